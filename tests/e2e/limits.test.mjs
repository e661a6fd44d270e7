// Limits, to the millisecond: the gateway's clock is stopped, and moved.
import assert from "node:assert/strict";
import * as suite from "node:test";
import { before, beforeEach, test } from "node:test";
import { openAccount, policyFor, statuses } from "./harness/account.mjs";
import { startGateway } from "./harness/gateway.mjs";
import { hold, startOrigin } from "./harness/origin.mjs";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;

const origin = await startOrigin(suite);
const gateway = await startGateway(suite, {
  policy: policyFor(
    origin,
    `
[pools.credits]
[plans.free]
requests_per_minute = 5
requests_per_day    = 12
grants = [{ pool = "credits", amount = 50, renews = "never" }]
[plans.bigger]
requests_per_minute = 8
grants = [{ pool = "credits", amount = 50, renews = "never" }]
[plans.unlimited]
grants = [{ pool = "credits", amount = 50, renews = "never" }]
[plans.narrow]
requests_in_flight = 2
[plans.shared]
requests_per_minute = 4
account_requests_per_minute = 6
[plans.poor]
requests_per_minute = 2
grants = [{ pool = "credits", amount = 2, renews = "never" }]
[plans.soon]
requests_per_day = 2
grants = [{ pool = "credits", amount = 2, renews = "monthly" }]
[[routes]]
match = "POST /search"
cost  = 1
[[routes]]
match = "GET /tracks/{id}"
cost  = 0
`,
  ),
});
const { clock } = gateway;

before(() => clock.stop("2031-03-10T12:00:00Z"));
// Nothing that an earlier test did is in any window any more.
beforeEach(() => clock.advance(2 * MINUTE));

const search = (account) => account.call("POST", "/search");
const track = (account) => account.call("GET", "/tracks/1");

// Refused now and until the very millisecond that Retry-After tells, admitted at it.
async function assertRefusedExactlyUntilTold(account, policies) {
  const refused = await search(account);
  assert.equal(refused.status, 429);
  assert.deepEqual(refused.json()["violated-policies"], policies);
  const wait = Number(refused.headers["retry-after"]) * SECOND;
  assert.ok(wait > 0);
  clock.advance(wait - 1);
  assert.equal((await search(account)).status, 429);
  clock.advance(1);
  assert.equal((await search(account)).status, 200);
  return wait;
}

test("the sixth call in a minute waits for exactly Retry-After, and is as the contract says", async () => {
  const account = await openAccount(gateway, { plan: "free" });
  for (let nth = 1; nth <= 5; nth++) {
    const { status, headers } = await search(account);
    assert.deepEqual([status, headers["x-ratelimit-remaining"]], [200, String(5 - nth)]);
  }
  const sixth = await search(account);
  assert.equal(sixth.headers["content-type"], "application/problem+json");
  assert.equal(sixth.headers["cache-control"], "no-store");
  assert.equal(sixth.headers["x-ratelimit-remaining"], "0");
  assert.equal(sixth.headers["x-credits-charged"], "0");
  assert.equal(sixth.headers["x-credits-remaining"], "45");
  assert.deepEqual(sixth.json(), {
    type: "https://iana.org/assignments/http-problem-types#quota-exceeded",
    title: sixth.json().title,
    status: 429,
    code: "rate_limited",
    detail: "5 requests in any 60 seconds are allowed; try again in 60 s",
    "violated-policies": ["minute"],
    request_id: sixth.headers["x-request-id"],
  });
  assert.equal(await assertRefusedExactlyUntilTold(account, ["minute"]), MINUTE);
});

test("the window slides: each call leaves it sixty seconds after it was admitted", async () => {
  const account = await openAccount(gateway, { plan: "free" });
  assert.deepEqual(await statuses(2, () => track(account)), [200, 200]);
  clock.advance(40_500);
  assert.deepEqual(await statuses(4, () => track(account)), [200, 200, 200, 429]);
  // The first two leave after 19.5 seconds more: the first whole second after that is told.
  assert.equal((await track(account)).headers["retry-after"], "20");
  clock.advance(19_499);
  assert.equal((await track(account)).status, 429);
  clock.advance(1);
  assert.deepEqual(await statuses(3, () => track(account)), [200, 200, 429]);
});

test("the window and the balance are exact across a kill in the middle", async () => {
  const account = await openAccount(gateway, { plan: "free" });
  assert.deepEqual(await statuses(2, () => search(account)), [200, 200]);
  clock.advance(30 * SECOND);
  await account.finished("POST", "/search");
  await gateway.restart();
  const after = await account.finished("POST", "/search");
  assert.equal(after.headers["x-ratelimit-remaining"], "1");
  assert.equal(after.headers["x-ratelimit-remaining-daily"], "8");
  assert.equal(after.headers["x-credits-remaining"], "46");
  await account.finished("POST", "/search");
  await gateway.restart();
  assert.equal(await assertRefusedExactlyUntilTold(account, ["minute"]), 30 * SECOND);
  assert.equal((await search(account)).status, 200);
  assert.equal((await search(account)).status, 429);
});

test("a clock that strays an hour ahead and comes back holds a key back for a minute at most", async () => {
  const account = await openAccount(gateway, { plan: "free" });
  clock.advance(60 * MINUTE);
  assert.deepEqual(await statuses(5, () => track(account)), [200, 200, 200, 200, 200]);
  clock.advance(-60 * MINUTE);
  const refused = await track(account);
  assert.deepEqual([refused.status, refused.headers["retry-after"]], [429, "60"]);
  clock.advance(MINUTE);
  assert.deepEqual(await statuses(6, () => track(account)), [200, 200, 200, 200, 200, 429]);
});

test("the daily limit holds until midnight to the millisecond", async () => {
  clock.moveTo("2031-03-11T20:00:00Z");
  const account = await openAccount(gateway, { plan: "free" });
  for (const calls of [5, 5, 2]) {
    assert.deepEqual(new Set(await statuses(calls, () => track(account))), new Set([200]));
    clock.advance(MINUTE);
  }
  const refused = await track(account);
  assert.equal(refused.headers["x-ratelimit-remaining-daily"], "0");
  assert.match(refused.headers.ratelimit, /"daily";r=0;t=14220$/);
  assert.equal(await assertRefusedExactlyUntilTold(account, ["daily"]), 14_220 * SECOND);
  assert.equal(clock.now().toISOString(), "2031-03-12T00:00:00.000Z");
  assert.equal((await track(account)).headers["x-ratelimit-remaining-daily"], "10");
});

test("a call is in flight until it is answered", async () => {
  const account = await openAccount(gateway, { plan: "narrow" });
  const held = hold();
  origin.on("/tracks/held", held);
  const open = [1, 2].map(() => account.finished("GET", "/tracks/held"));
  const exchanges = [await held.next(), await held.next()];
  const third = await track(account);
  assert.equal(third.status, 429);
  assert.deepEqual(third.json()["violated-policies"], ["in_flight"]);
  assert.equal(third.headers["retry-after"], "1");
  exchanges[0].begin(200);
  exchanges[0].end();
  await Promise.race(open);
  assert.equal((await track(account)).status, 200);
  exchanges[1].begin(200);
  exchanges[1].end();
  await Promise.all(open);
});

test("the account's limit counts the calls of all its keys, and frees at exactly Retry-After", async () => {
  const one = await openAccount(gateway, { plan: "shared" });
  const two = await one.anotherKey();
  assert.deepEqual(await statuses(4, () => track(one)), [200, 200, 200, 200]);
  clock.advance(10 * SECOND);
  assert.deepEqual(await statuses(3, () => track(two)), [200, 200, 429]);
  const refused = await track(two);
  assert.deepEqual(refused.json()["violated-policies"], ["account"]);
  assert.equal(refused.headers["retry-after"], "50");
  assert.equal(refused.headers["x-ratelimit-remaining"], "2");
  clock.advance(50 * SECOND - 1);
  assert.equal((await track(two)).status, 429);
  clock.advance(1);
  assert.equal((await track(two)).status, 200);
});

test("one key's limit is not another's", async () => {
  const one = await openAccount(gateway, { plan: "free" });
  const two = await one.anotherKey();
  assert.equal((await statuses(6, () => track(one))).at(-1), 429);
  assert.equal((await track(two)).headers["x-ratelimit-remaining"], "4");
});

test("never more than the limit in any minute, however many ask at once", async () => {
  const account = await openAccount(gateway, { plan: "bigger" });
  const admitted = [];
  for (let step = 0; step < 12; step++) {
    const passed = (await statuses(4, () => track(account))).filter((status) => status === 200);
    admitted.push(...passed.map(() => clock.now().getTime()));
    clock.advance(9_700);
  }
  for (const at of admitted) {
    const within = admitted.filter((other) => other > at - MINUTE && other <= at).length;
    assert.ok(within <= 8, `${within} calls in the minute before ${at}`);
  }
  assert.equal(admitted.length, 16);
});

test("the fifty-first charged call is refused with 402 and every member of the contract", async () => {
  const account = await openAccount(gateway, { plan: "unlimited" });
  const fifty = await statuses(50, () => search(account));
  assert.deepEqual(new Set(fifty), new Set([200]));
  const refused = await search(account);
  assert.equal(refused.status, 402);
  assert.equal(refused.headers["content-type"], "application/problem+json");
  assert.equal(refused.headers["retry-after"], undefined);
  assert.equal(refused.headers["x-credits-remaining"], "0");
  assert.equal(refused.headers["x-credits-charged"], "0");
  assert.deepEqual(refused.json(), {
    type: "urn:tollgate:problem:insufficient-credits",
    title: refused.json().title,
    status: 402,
    code: "insufficient_credits",
    detail: "this call needs 1 credit and pool 'credits' has 0 to spend",
    pool: "credits",
    required: 1,
    available: 0,
    request_id: refused.headers["x-request-id"],
  });
  // What costs nothing goes on.
  assert.equal((await track(account)).status, 200);
});

test("where waiting would end at a 402, 402 is the answer; before a renewal it is 429", async () => {
  const poor = await openAccount(gateway, { plan: "poor" });
  assert.deepEqual(await statuses(3, () => search(poor)), [200, 200, 402]);
  // Over the same limit, but free: only the limit is in the way.
  assert.equal((await track(poor)).status, 429);

  clock.moveTo("2031-03-31T23:00:00Z");
  const soon = await openAccount(gateway, { plan: "soon", subscription: { billing_day: 1 } });
  assert.deepEqual(await statuses(2, () => search(soon)), [200, 200]);
  assert.equal(await assertRefusedExactlyUntilTold(soon, ["daily"]), 60 * MINUTE);
});

test("a refused request consumes nothing", async () => {
  const account = await openAccount(gateway, { plan: "poor" });
  await statuses(20, () => track(account));
  clock.advance(MINUTE);
  const { headers } = await search(account);
  assert.equal(headers["x-ratelimit-remaining"], "1");
  assert.equal(headers["x-credits-remaining"], "1");
});

test("a flood is answered by the isolate, writes nothing, and ends at exactly Retry-After", async () => {
  const account = await openAccount(gateway, { plan: "free" });
  assert.equal((await statuses(6, () => track(account))).at(-1), 429);
  const received = origin.requests.length;
  const flood = await Promise.all(Array.from({ length: 60 }, () => account.finished("GET", "/tracks/1")));
  for (const { status, headers, line } of flood) {
    assert.deepEqual([status, headers["retry-after"], line.rows], [429, "60", 0]);
  }
  assert.equal(origin.requests.length, received);
  // Who knows of the greater limit is the object, and the isolate does not ask it for five seconds.
  await account.patch({ plan: "bigger" });
  clock.advance(5 * SECOND - 1);
  const repeated = await track(account);
  assert.deepEqual([repeated.status, repeated.headers["retry-after"]], [429, "56"]);
  clock.advance(1);
  assert.deepEqual(await statuses(4, () => track(account)), [200, 200, 200, 429]);
  clock.advance(55 * SECOND - 1);
  assert.equal((await track(account)).status, 429);
  clock.advance(1);
  assert.deepEqual(await statuses(6, () => track(account)), [200, 200, 200, 200, 200, 429]);
});
