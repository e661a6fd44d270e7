"""What schemathesis cannot know of the gateway."""

import re
from itertools import count

import schemathesis

# What no schema can say. Every other 400 to a request that fits the description is a failure.
BEYOND_A_SCHEMA = re.compile(
    r"the policy has no (plan|pool|package) "
    r"|is no plan that is bought"
    r"|expected Stripe's signature of this body"
    r"|above the threshold, found"
    r"|^monthly_cap: expected"
    r"|expected a moment to come"
    r"|expected a route of the policy"
    r"|expected a key of the pattern that the policy has"
    r"|expected the .?next.? of an (earlier page|unfinished export)"
    r"|from: expected a moment before to"
    r"|offset: expected (a whole number from 0 to \d+|none beside next)"
    r"|the pool (has \d+ credits to take away|would have more than)"
    r"|the price of this call does not depend on a quantity"
    r"|costs more than \d+ credits, the maximum"
    r"|and a letter or digit, found"
    r"|a whole number .*found -?\d+\.0$"
    r"|a plain decimal number .*found \d+(\.\d+)?e[+-]\d+$"
    r"|^path: the path must not "
)

numbers = count()


@schemathesis.hook
def before_call(context, case, kwargs):
    """Most requests are new ones: under an Idempotency-Key that came before, 422 would be all there is."""
    number = next(numbers)
    if case.meta.generation.mode.is_positive and "Idempotency-Key" in case.headers and number % 5 > 0:
        case.headers["Idempotency-Key"] = f"request-{number}"


@schemathesis.check
def valid_requests_are_read(ctx, response, case):
    """What fits the description is refused for what it says, not for how it looks."""
    if case.meta.generation.mode.is_positive and response.status_code == 400:
        detail = response.json()["detail"]
        assert BEYOND_A_SCHEMA.search(detail), f"a valid request was not read: {detail}"
