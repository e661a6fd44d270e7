//! What the clock brings: renewals, expiry, plans and subscriptions that change.

use crate::statement::statement;

#[test]
fn a_billing_day_31_renews_on_the_last_day_of_a_shorter_month() {
    statement(
        "2028-01-31T10:00:00 | open pro billing 31 | 201
                             | key                 | 201
                             | balance credits     | 1000 available, 0 held, 0 spent, renews 2028-02-29",
    );
}
