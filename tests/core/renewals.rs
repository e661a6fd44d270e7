//! What the clock brings: renewals, expiry, plans and subscriptions that change.

use crate::statement::statement;

#[test]
fn a_billing_day_31_renews_on_the_last_day_of_a_shorter_month() {
    statement(
        "2028-01-31T10:00:00 | open pro billing 31 | 201
                             | key                 | 201
                             | call 40             | call 1 holds 40
                             | settle 1 200        | settled 40
                             | balance credits     | 960 available, 0 held, 40 spent, renews 2028-02-29
                             | entries             | 2028-01-31T10:00:00 renewed credits +1000 = 1000
         2028-02-28T23:59:59 | balance credits     | 960 available, 0 held, 40 spent, renews 2028-02-29
         +1s                 | balance credits     | 1000 available, 0 held, 40 spent, renews 2028-03-31
                             | entries             | 2028-02-29 expired credits -960 = 0; 2028-02-29 renewed credits +1000 = 1000
         # Asleep for months: each is issued and expires, dated at its moment.
         2028-06-15          | evict               | ok
                             | balance credits     | 1000 available, 0 held, 40 spent, renews 2028-06-30
                             | entries             | 2028-03-31 expired credits -1000 = 0; 2028-03-31 renewed credits +1000 = 1000; 2028-04-30 expired credits -1000 = 0; 2028-04-30 renewed credits +1000 = 1000; 2028-05-31 expired credits -1000 = 0; 2028-05-31 renewed credits +1000 = 1000",
    );
}

#[test]
fn a_year_without_a_29th_of_february_renews_on_the_28th() {
    statement(
        "2027-01-30 | open pro billing 30 | 201
         2027-02-27T23:59:59 | balance credits | 1000 available, 0 held, 0 spent, renews 2027-02-28
         +1s        | balance credits     | 1000 available, 0 held, 0 spent, renews 2027-03-30
                    | billing 5           | 200
         # The running cycle ends as it was told; the new day counts from then on.
                    | balance credits     | 1000 available, 0 held, 0 spent, renews 2027-03-30
         2027-03-30 | balance credits     | 1000 available, 0 held, 0 spent, renews 2027-04-05",
    );
}

#[test]
fn a_plan_grants_no_more_than_the_pool_can_hold() {
    statement(
        "2026-11-10 | open starter billing 10 | 201
                    | key                     | 201
                    | grant credits 9007199254740691 extra | 201
                    | grant credits 1 extra   | BadRequest
                    | entries                 | 2026-11-10 renewed credits +300 = 300; 2026-11-10 renewed lyrics +100 = 100; 2026-11-10 granted credits +9007199254740691 = 9007199254740991
                    | plan pro                | 200
                    | balance credits         | 9007199254740991 available, 0 held, 0 spent, renews 2026-12-10
                    | entries                 | 2026-11-10 adjusted lyrics -100 = 0
         # What is spent may come back, and has its room; what has expired may not.
                    | call 1000               | call 1 holds 1000
                    | settle 1 200            | settled 1000
         2026-12-10 | balance credits         | 9007199254739991 available, 0 held, 1000 spent, renews 2027-01-10
                    | entries                 | 2026-12-10 expired credits -300 = 9007199254739691; 2026-12-10 renewed credits +300 = 9007199254739991
                    | release 1               | refunded 0
                    | balance credits         | 9007199254740991 available, 0 held, 0 spent, renews 2027-01-10
                    | plan starter            | 200
                    | plan pro                | 200
                    | adjust credits -700     | 201
                    | plan starter            | 200
                    | plan pro                | 200
                    | balance credits         | 9007199254740991 available, 0 held, 0 spent, renews 2027-01-10",
    );
}

#[test]
fn days_and_months_start_at_local_midnight() {
    statement(
        "2026-11-30T21:59:59 | policy local_days   | ok
                             | open tight          | 201
                             | key                 | 201
                             | call 5              | call 1 holds 5
                             | settle 1 200        | settled 5
                             | balance credits     | 15 available, 0 held, 5 spent, renews 2026-11-30T22:00:00
                             | standing            | minute 2 of 3, day 3 of 4
         +1s                 | balance credits     | 20 available, 0 held, 5 spent, renews 2026-12-31T22:00:00
                             | standing            | minute 2 of 3, day 4 of 4",
    );
}

#[test]
fn what_rolls_over_does_so_once() {
    statement(
        "2026-11-10 | open saver          | 201
                    | key                 | 201
                    | call 50             | call 1 holds 50
                    | settle 1 200        | settled 50
                    | entries             | 2026-11-10 renewed credits +100 = 100
         2026-12-01 | balance credits     | 130 available, 0 held, 50 spent, renews 2027-01-01
                    | entries             | 2026-12-01 expired credits -50 = 0; 2026-12-01 rolled over credits +30 = 30; 2026-12-01 renewed credits +100 = 130
         # The month's 100 roll 30 again; the old 30 do not.
         2027-01-01 | balance credits     | 130 available, 0 held, 50 spent, renews 2027-02-01
                    | entries             | 2027-01-01 expired credits -100 = 30; 2027-01-01 rolled over credits +30 = 60; 2027-01-01 renewed credits +100 = 160; 2027-01-01 expired credits -30 = 130
                    | call 120            | call 2 holds 120
                    | settle 2 200        | settled 120
         2027-02-01 | balance credits     | 110 available, 0 held, 170 spent, renews 2027-03-01",
    );
}

#[test]
fn what_was_carried_over_is_spent_before_the_new_grant() {
    statement(
        "2026-11-10 | open saver          | 201
                    | key                 | 201
         2026-12-01 | call 40             | call 1 holds 40
                    | settle 1 200        | settled 40
                    | lots credits        | subscription 100, 100 expired; subscription 30, 30 spent; subscription 100, 10 spent, 90 available
         # It rolls 30 of its own again: what was carried over is gone, unspent or spent.
         2027-01-01 | balance credits     | 130 available, 0 held, 40 spent, renews 2027-02-01",
    );
}

#[test]
fn a_402_counts_what_will_roll_over() {
    statement(
        "2026-11-30T23:59:00 | open saver | 201
                             | key        | 201
                             | call 131   | 402 100 of 131
                             | call 130   | 402 100 of 130, wait 60
         +59s                | call 130   | 402 100 of 130, wait 1
         +1s                 | call 130   | call 1 holds 130",
    );
}

#[test]
fn a_402_counts_only_what_is_there_after_the_renewal() {
    statement(
        "2026-11-30T23:59:00 | open saver | 201
                             | key        | 201
                             | grant credits 7 extra until 2026-12-01 | 201
                             | grant credits 7 promo until 2026-11-30T23:59:30 | 201
                             | grant credits 7 promo until 2026-12-01T00:00:01 | 201
         # 30 carried over, 100 new, and the 7 that expire later.
                             | call 138   | 402 121 of 138
                             | call 137   | 402 121 of 137, wait 60
         +60s                | call 137   | call 1 holds 137",
    );
}

#[test]
fn a_402_counts_extra_credits_only_where_they_can_be_spent() {
    statement(
        "2026-11-30T23:59:00 | policy extra_needs_subscription | ok
                             | open saver | 201
                             | key        | 201
                             | grant credits 50 extra | 201
         # No paid plan: extra credits can be spent neither now nor then.
                             | call 131   | 402 100 of 131
                             | call 130   | 402 100 of 130, wait 60
                             | plan calendar | 200
                             | call 151   | 402 150 of 151
                             | call 150   | call 1 holds 150
                             | settle 1 200 | settled 150
                             | call 100   | 402 0 of 100, wait 60
                             | subscription cancelled | 200
                             | call 100   | 402 0 of 100
                             | subscription active | 200
                             | grant credits 50 extra | 201
                             | call 51    | 402 50 of 51, wait 60
                             | call 150   | 402 50 of 150, wait 60
                             | call 151   | 402 50 of 151
         +60s                | call 150   | call 2 holds 150",
    );
}

#[test]
fn a_one_time_grant_is_given_once_per_account_and_plan() {
    statement(
        "2026-11-10 | open free           | 201
                    | plan prepaid        | 200
                    | plan free           | 200
                    | plan free           | 200
                    | plan nothing        | BadRequest
                    | lots credits        | promo 50, 50 available
                    | entries             | 2026-11-10 granted credits +50 = 50
         +400d      | entries             | ",
    );
}

#[test]
fn a_plan_change_makes_the_new_allowance_the_running_lots_amount() {
    statement(
        "2026-11-10 | open starter        | 201
                    | key                 | 201
                    | call 200            | call 1 holds 200
                    | settle 1 200        | settled 200
                    | call 50             | call 2 holds 50
                    | plan pro            | 200
                    | balance credits     | 750 available, 50 held, 200 spent, renews 2026-12-10
         # The new plan has no lyrics.
                    | balance lyrics      | 0 available, 0 held, 0 spent
                    | entries             | 2026-11-10 renewed credits +300 = 300; 2026-11-10 renewed lyrics +100 = 100; 2026-11-10 adjusted credits +700 = 800; 2026-11-10 adjusted lyrics -100 = 0
                    | call 400            | call 3 holds 400
         # Overdrawn: it can give nothing, and what is released does not exceed the allowance.
                    | plan starter        | 200
                    | lots credits        | subscription 300, 200 spent, 450 held
                    | call 1              | 402 0 of 1, wait 2592000
                    | settle 3 500        | released 0
                    | lots credits        | subscription 300, 200 spent, 50 held, 50 available
                    | settle 2 500        | released 0
                    | balance credits     | 100 available, 0 held, 200 spent, renews 2026-12-10
                    | balance lyrics      | 100 available, 0 held, 0 spent, renews 2026-12-10
         2026-12-10 | balance credits     | 300 available, 0 held, 200 spent, renews 2027-01-10",
    );
}

#[test]
fn a_cancelled_subscription_stays_active_to_the_end_of_its_cycle_and_gets_no_further_grant() {
    statement(
        "2026-11-10 | policy extra_needs_subscription | ok
                    | open starter billing 20 | 201
                    | key                 | 201
                    | grant credits 30 extra | 201
                    | subscription cancelled | 200
                    | balance credits     | 330 available, 0 held, 0 spent
         2026-11-15 | subscription cancelled | 200
         2026-11-19T23:59:59 | balance credits | 330 available, 0 held, 0 spent
         +1s        | balance credits     | 0 available, 0 held, 0 spent
                    | lots credits        | subscription 300, 300 expired; extra 30, 30 available
                    | call 1              | 402 0 of 1
         2027-01-05 | subscription active | 200
                    | balance credits     | 330 available, 0 held, 0 spent, renews 2027-01-20
                    | call 1              | call 1 holds 1
                    | lots credits        | extra 30, 1 held, 29 available; subscription 300, 300 available",
    );
}

#[test]
fn a_cancelled_subscription_gets_no_calendar_grant_either() {
    statement(
        "2026-11-10 | open calendar billing 20 | 201
                    | subscription cancelled | 200
                    | entries             | 2026-11-10 renewed credits +100 = 100; 2026-11-10 renewed lyrics +10 = 10
         2026-11-20 | balance lyrics      | 0 available, 0 held, 0 spent
         2026-12-02 | tick                | ok
                    | entries             | 2026-11-20 expired lyrics -10 = 0; 2026-12-01 expired credits -100 = 0
                    | billing 15          | 200
                    | entries             | ",
    );
}

#[test]
fn a_calendar_grant_does_not_come_between_the_cancelling_and_the_cycles_end() {
    statement(
        "2026-11-25 | open calendar billing 20 | 201
                    | subscription cancelled | 200
         2026-12-02 | balance credits     | 0 available, 0 held, 0 spent
                    | billing 19          | 200
                    | balance credits     | 0 available, 0 held, 0 spent
                    | balance lyrics      | 10 available, 0 held, 0 spent
         2026-12-20 | balance lyrics      | 0 available, 0 held, 0 spent",
    );
}

#[test]
fn a_lapsed_subscription_grants_nothing_and_cancelling_it_revives_nothing() {
    statement(
        "2026-11-10 | open starter subscription lapsed | 201
                    | balance credits     | 0 available, 0 held, 0 spent
                    | subscription cancelled | 200
                    | balance credits     | 0 available, 0 held, 0 spent
                    | plan pro            | 200
                    | balance credits     | 0 available, 0 held, 0 spent
                    | subscription active | 200
                    | balance credits     | 1000 available, 0 held, 0 spent, renews 2026-12-10
                    | subscription lapsed | 200
         2026-12-10 | balance credits     | 0 available, 0 held, 0 spent
         2027-02-03 | subscription active | 200
                    | balance credits     | 1000 available, 0 held, 0 spent, renews 2027-02-10",
    );
}

#[test]
fn a_plan_change_of_a_lapsed_subscription_makes_no_credits() {
    statement(
        "2026-11-10 | open saver          | 201
                    | subscription lapsed | 200
                    | balance credits     | 100 available, 0 held, 0 spent, renews 2026-12-01
                    | plan pro            | 200
                    | balance credits     | 100 available, 0 held, 0 spent
                    | subscription active | 200
                    | balance credits     | 1000 available, 0 held, 0 spent, renews 2026-12-01",
    );
}

#[test]
fn what_comes_back_to_an_expired_lot_stays_spendable_as_long_as_the_pool_says() {
    statement(
        "2026-11-30T23:58:00 | open prepaid        | 201
                             | key                 | 201
                             | grant credits 100 extra until 2026-12-01 | 201
                             | grant strict 100 extra until 2026-12-01 | 201
                             | entries             | 2026-11-30T23:58:00 granted credits +100 = 100; 2026-11-30T23:58:00 granted strict +100 = 100
                             | call 40             | call 1 holds 40
                             | call 40 strict      | call 2 holds 40
         2026-12-01T00:01:00 | entries             | 
                             | tick                | ok
                             | entries             | 2026-12-01 expired credits -60 = 40; 2026-12-01 expired strict -60 = 40
                             | settle 1 500        | released 0
                             | settle 2 500        | released 0
                             | balance credits     | 40 available, 0 held, 0 spent
                             | balance strict      | 0 available, 0 held, 0 spent
                             | entries             | 2026-12-01T00:01:00 expired strict -40 = 0
         2026-12-08T00:00:59 | call 5              | call 3 holds 5
         +1s                 | balance credits     | 0 available, 5 held, 0 spent
         # Once more, for as long again.
                             | settle 3 500        | released 0
                             | balance credits     | 5 available, 0 held, 0 spent
                             | entries             | 2026-12-08T00:01:00 expired credits -35 = 5",
    );
}

#[test]
fn a_hold_that_ended_unseen_comes_back_before_its_lot_expires() {
    statement(
        "2026-11-29 | open saver          | 201
                    | key                 | 201
                    | grant credits 50 extra until 2026-11-30 | 201
                    | call 60             | call 1 holds 60
                    | entries             | 2026-11-29 renewed credits +100 = 100; 2026-11-29 granted credits +50 = 150
         # Asleep past the hold's end, the lot's and the cycle's: each in its turn.
         2026-12-03 | tick                | ok
                    | entries             | 2026-11-30 expired credits -50 = 100; 2026-12-01 expired credits -100 = 0; 2026-12-01 rolled over credits +30 = 30; 2026-12-01 renewed credits +100 = 130
                    | balance credits     | 130 available, 0 held, 0 spent, renews 2027-01-01",
    );
}

#[test]
fn a_hold_that_ends_as_its_lot_does_takes_nothing_along() {
    statement(
        "2026-11-30T23:55:00 | open prepaid        | 201
                             | key                 | 201
                             | grant credits 50 extra until 2026-12-01 | 201
                             | call 10             | call 1 holds 10
         2026-12-01          | tick                | ok
                             | balance credits     | 0 available, 0 held, 0 spent
                             | lots credits        | extra 50, 50 expired",
    );
}

#[test]
fn a_release_into_one_expired_lot_revives_no_other() {
    statement(
        "2026-11-30T23:59:00 | open prepaid        | 201
                             | key                 | 201
                             | grant credits 10 extra until 2026-12-01 | 201
                             | grant credits 10 promo until 2026-12-01T00:01:00 | 201
                             | call 15             | call 1 holds 15
         2026-12-01T00:00:30 | settle 1 200        | settled 15
                             | lots credits        | extra 10, 5 spent, 5 expired; promo 10, 10 spent",
    );
}

#[test]
fn a_policy_edited_while_the_account_slept_is_taken_over() {
    statement(
        "2026-11-10T10:00:00 | open starter        | 201
                             | key                 | 201
                             | call 1              | call 1 holds 1
                             | call 1              | call 2 holds 1
                             | policy starter_2_per_minute starter_500 | ok
         # Limits at once, grants with the next renewal.
                             | call 1              | 429 minute, wait 60
                             | balance credits     | 298 available, 2 held, 0 spent, renews 2026-12-10
         # The plan is gone: it stays in force as it was last seen.
                             | policy without_starter | ok
                             | call 1              | 429 minute, wait 60
                             | plan prepaid        | 200
                             | plan starter        | BadRequest",
    );
}

#[test]
fn a_plan_that_is_gone_still_renews() {
    statement(
        "2026-11-10 | open starter           | 201
                    | policy without_starter | ok
                    | plan starter           | 200
         2026-12-10 | balance credits        | 300 available, 0 held, 0 spent, renews 2027-01-10
                    | policy starter_500     | ok
         2027-01-10 | balance credits        | 500 available, 0 held, 0 spent, renews 2027-02-10",
    );
}

#[test]
fn a_pool_that_is_gone_is_shown_and_cannot_be_spent() {
    statement(
        "2026-11-10 | open starter           | 201
                    | key                    | 201
                    | call 10 lyrics         | call 1 holds 10
                    | policy without_lyrics  | ok
                    | settle 1 200           | settled 10
                    | balance lyrics         | 0 available, 0 held, 10 spent, renews 2026-12-10
                    | lots lyrics            | subscription 100, 10 spent, 90 available
                    | call 10 lyrics         | 402 0 of 10
                    | call 0 lyrics          | call 2 holds 0
                    | grant lyrics 10 extra  | BadRequest
                    | policy standard        | ok
                    | call 10 lyrics         | call 3 holds 10",
    );
}
