//! Calls: admitted, refused, ended.

use tollgate::{
    account::NewKey,
    call::{BodyEnd, CallState, Settle},
    problem::Code,
    protocol::{Command, Document, Manage, Reply, Request},
    time::Span,
};

use crate::{
    branch::{Branch, answered, cost, digest_of, fingerprint},
    statement::{moment, statement},
};

#[test]
fn only_success_is_charged() {
    statement(
        "2026-11-02T10:00:00 | open free        | 201
                             | key              | 201
                             | call 15          | call 1 holds 15
                             | balance credits  | 35 available, 15 held, 0 spent
         +1s                 | settle 1 200     | settled 15
                             | balance credits  | 35 available, 0 held, 15 spent
                             | call 15          | call 2 holds 15
                             | settle 2 500     | released 0
                             | call 15          | call 3 holds 15
                             | settle 3 200 unreachable | released 0
                             | call 15 2xx      | call 4 holds 15
                             | settle 4 302     | released 0
                             | call 15          | call 5 holds 15
                             | settle 5 302     | settled 15
                             | balance credits  | 20 available, 0 held, 30 spent
                             | entries          | 2026-11-02T10:00:00 granted credits +50 = 50",
    );
}

#[test]
fn refusals_come_in_their_order() {
    statement(
        "2026-11-02T10:00:00 | call 1           | 401
                             | open tight       | 201
                             | call 1           | 401
                             | key              | 201
                             | key              | 201
                             | key              | Conflict
                             | call_with_another_secret 1 | 401
                             | call 1 key 3     | 401
                             | grant credits 100 extra | 201
                             | call 1           | call 1 holds 1
                             | call 1           | call 2 holds 1
                             | call 1           | 429 in_flight, wait 1
                             | settle 1 200     | settled 1
                             | call 1           | call 3 holds 1
                             | call 1           | 429 minute in_flight, wait 60
                             | call 500         | 402 117 of 500
         # Each key has its own limits; the account's minute is for all of them.
         +10s                | call 1 key 2     | call 4 holds 1
                             | call 1 key 2     | 429 account, wait 50
                             | settle 2 200     | settled 1
                             | settle 3 200     | settled 1
                             | settle 4 200     | settled 1
         +50s                | call 1           | call 5 holds 1
         # The 429 that waits longest is the one that counts.
                             | call 1           | 429 daily, wait 50340
                             | settle 5 200     | settled 1
                             | call 200         | 402 115 of 200
                             | suspend unpaid   | 200
                             | call 200         | 403 unpaid
                             | revoke 1         | 204
                             | call 200         | 401
                             | call 200 key 2   | 403 unpaid
                             | resume           | 200
                             | call 200 key 2   | 402 115 of 200
                             | key              | 201
                             | call 1 key 3     | call 6 holds 1
                             | revoke 9         | NotFound
         # Expired, then suspended, then out of scope; then the limits, then the credits.
                             | patch 3 scope GET:/ budget 2 expires 2026-11-02T10:02:00 | 200
                             | call 1 key 3 to GET:/ | call 7 holds 1
         +10s                | call 0 key 3 to GET:/ | 429 in_flight, wait 1
                             | call 3 key 3 to GET:/ | 402 budget 2, 0 of 3
                             | call 3 key 3     | 403 not POST /search
                             | suspend unpaid   | 200
                             | call 3 key 3     | 403 unpaid
         +1m                 | call 3 key 3     | 401
                             | call 3 key 2     | 403 unpaid",
    );
}

#[test]
fn a_plan_change_looks_back_at_the_minute_before_it() {
    statement(
        "2026-11-02T10:00:00 | open pro         | 201
                             | key              | 201
                             | call 0           | call 1 holds 0
                             | call 0           | call 2 holds 0
         +30s                | call 0           | call 3 holds 0
                             | call 0           | call 4 holds 0
                             | plan free        | 200
         +1s                 | call 0           | call 5 holds 0
                             | call 0           | 429 minute, wait 29
         +29s                | call 0           | call 6 holds 0",
    );
}

#[test]
fn a_402_replaces_a_429_unless_a_renewal_comes_before_the_limit_frees() {
    statement(
        "2026-11-30T23:59:00 | open tight       | 201
                             | key              | 201
                             | call 18          | call 1 holds 18
                             | settle 1 200     | settled 18
                             | call 1           | call 2 holds 1
                             | settle 2 500     | released 0
                             | call 1           | call 3 holds 1
                             | settle 3 500     | released 0
         # The minute frees at midnight, when the grant renews too.
                             | call 10          | 429 minute, wait 60
                             | call 2           | 429 minute, wait 60
         # Even the renewal does not pay for this.
                             | call 21          | 402 2 of 21
         +1s                 | call 10          | 429 minute, wait 59
         2026-12-01          | call 10          | call 4 holds 10
                             | settle 4 200     | settled 10
                             | call 15          | 402 10 of 15, wait 2678400
         2027-01-01          | call 15          | call 5 holds 15",
    );
}

#[test]
fn a_402_names_the_renewal_that_would_pay() {
    statement(
        "2026-11-02T10:00:00 | open starter billing 1 | 201
                             | key                    | 201
                             | call 290               | call 1 holds 290
                             | call 15                | 402 10 of 15, wait 2469600
         # What is held comes back or not: only what is sure counts.
                             | call 301               | 402 10 of 301
                             | subscription cancelled | 200
                             | call 15                | 402 10 of 15
                             | subscription active    | 200
                             | call 15                | 402 10 of 15, wait 2469600
         2026-11-30T23:59:59 | call 15                | call 2 holds 15",
    );
}

#[test]
fn a_job_is_held_past_its_answer_and_leaves_the_in_flight_count() {
    statement(
        "2026-11-02T10:00:00 | open tight       | 201
                             | key              | 201
                             | call 5 job       | call 1 holds 5
                             | call 5 job       | 429 jobs, wait 1
                             | call 5           | call 2 holds 5
                             | call 1           | 429 in_flight, wait 1
                             | settle 1 202     | job 0
                             | settle 1 202     | job 0
                             | call 5 job       | 429 jobs, wait 60
                             | settle 2 500     | released 0
                             | balance credits  | 15 available, 5 held, 0 spent, renews 2026-12-01
         +5m                 | call 5           | call 3 holds 5
         2026-11-03T09:59:59 | balance credits  | 15 available, 5 held, 0 spent, renews 2026-12-01
         +1s                 | row 1            | job 0
                             | tick             | ok
                             | row 1            | unknown released 0",
    );
}

#[test]
fn the_origin_tells_what_a_metered_call_cost() {
    statement(
        "2026-11-02T10:00:00 | open prepaid           | 201
                             | key                    | 201
                             | call 10..600 per 60    | 402 0 of 10
                             | grant credits 500 extra | 201
                             | call 10..600 per 60    | call 1 holds 500
                             | call 10..600 per 60    | 402 0 of 10
                             | settle 1 200 reported 30 | settled 10
                             | call 10..600 per 60    | call 2 holds 490
                             | settle 2 200 reported 600 | settled 100
                             | call 10..600 per 60    | call 3 holds 390
                             | settle 3 200 reported -1 | settled 10
                             | row 3                  | settled 10, BadValue
                             | call 10..600 per 60    | call 4 holds 380
                             | settle 4 200 reported 9999 | settled 380
                             | row 4                  | settled 380, AboveHold
                             | balance credits        | 0 available, 0 held, 500 spent",
    );
}

#[test]
fn a_hold_takes_from_sources_in_order_then_what_expires_first_then_the_oldest() {
    statement(
        "2026-11-02 | open saver              | 201
                    | key                     | 201
                    | grant credits 10 extra  | 201
                    | grant credits 10 extra until 2027-01-01 | 201
                    | grant credits 10 extra until 2026-12-15 | 201
                    | grant credits 10 extra until 2026-12-15 | 201
                    | grant credits 10 promo  | 201
                    | call 62                 | call 1 holds 62
                    | lots credits            | subscription 100, 12 held, 88 available; extra 10, 10 held; extra 10, 10 held; extra 10, 10 held; extra 10, 10 held; promo 10, 10 held
                    | settle 1 500            | released 0
                    | call 25                 | call 2 holds 25
                    | settle 2 200            | settled 25
                    | lots credits            | subscription 100, 100 available; extra 10, 10 available; extra 10, 10 available; extra 10, 10 spent; extra 10, 5 spent, 5 available; promo 10, 10 spent
                    | policy subscription_first | ok
                    | call 101                | call 3 holds 101
                    | settle 3 200            | settled 101
                    | lots credits            | subscription 100, 100 spent; extra 10, 10 available; extra 10, 10 available; extra 10, 10 spent; extra 10, 6 spent, 4 available; promo 10, 10 spent",
    );
}

#[test]
fn a_metered_charge_gives_the_rest_back_to_the_lots_taken_last() {
    statement(
        "2026-11-02 | open saver              | 201
                    | key                     | 201
                    | grant credits 30 extra  | 201
                    | call 10..600 per 60     | call 1 holds 130
                    | settle 1 200 reported 180 | settled 30
                    | lots credits            | subscription 100, 100 available; extra 30, 30 spent",
    );
}

#[test]
fn pools_do_not_pay_for_each_other() {
    statement(
        "2026-11-02 | open starter            | 201
                    | key                     | 201
                    | call 101 lyrics         | 402 100 of 101
                    | call 100 lyrics         | call 1 holds 100
                    | settle 1 200            | settled 100
                    | balance credits         | 300 available, 0 held, 0 spent, renews 2026-12-02
                    | balance lyrics          | 0 available, 0 held, 100 spent, renews 2026-12-02
                    | call 1 strict           | 402 0 of 1
                    | call 0 strict           | call 2 holds 0",
    );
}

#[test]
fn a_hold_that_nobody_ends_is_given_back_as_often_as_a_day_forgives() {
    statement(
        "2026-11-02T10:00:00 | open prepaid     | 201
                             | key              | 201
                             | grant credits 100 extra | 201
                             | call 10          | call 1 holds 10
                             | call 10          | call 2 holds 10
                             | call 10          | call 3 holds 10
                             | call 0           | call 4 holds 0
                             | call 10 charge_unknown | call 5 holds 10
                             | wakeup           | 2026-11-02T10:05:00
         +299s               | balance credits  | 60 available, 40 held, 0 spent
         +1s                 | tick             | ok
                             | row 1            | unknown released 0
                             | row 2            | unknown released 0
                             | row 3            | unknown charged 10, Unforgiven
                             | row 4            | unknown released 0
                             | row 5            | unknown charged 10
                             | balance credits  | 80 available, 0 held, 20 spent
         2026-11-03          | call 10          | call 6 holds 10
         +5m                 | tick             | ok
                             | row 6            | unknown released 0",
    );
}

#[test]
fn a_whole_body_is_charged_also_to_a_client_that_leaves_and_free_where_the_origin_breaks_off() {
    statement(
        "2026-11-02T10:00:00 | open prepaid     | 201
                             | key              | 201
                             | grant credits 50 extra | 201
                             | call 10          | call 1 holds 10
                             | settle 1 200 body whole | settled 10
                             | call 10          | call 2 holds 10
                             | settle 2 200 body left | settled 10
         # Before its first byte, an answer is as good as none.
                             | call 10          | call 3 holds 10
                             | settle 3 200 body never_begun | released 0
         # Its status has the first word.
                             | call 10          | call 4 holds 10
                             | settle 4 500 body whole | released 0
                             | call 10 2xx      | call 5 holds 10
                             | settle 5 302 body broken_off | released 0
                             | call 10          | call 6 holds 10
                             | settle 6 200 body broken_off | released 0
                             | settle 6 200 body whole | released 0
                             | balance credits  | 30 available, 0 held, 20 spent
                             | entries          | 2026-11-02T10:00:00 granted credits +50 = 50",
    );
}

#[test]
fn an_answer_that_breaks_off_is_given_back_as_often_as_a_day_forgives() {
    statement(
        "2026-11-02T10:00:00 | open prepaid     | 201
                             | key              | 201
                             | key              | 201
                             | grant credits 500 extra | 201
                             | call 10          | call 1 holds 10
                             | settle 1 200 body broken_off | released 0
         # What a client cannot bring about, or what is free, takes nothing of the forgiveness.
                             | call 10          | call 2 holds 10
                             | settle 2 200 body never_begun | released 0
                             | call 0           | call 3 holds 0
                             | settle 3 200 body broken_off | released 0
                             | call 10          | call 4 holds 10
                             | settle 4 500 body broken_off | released 0
                             | evict            | ok
         # It is one with that of ends that are never learned, whatever becomes of those.
                             | call 10          | call 5 holds 10
         +5m                 | tick             | ok
                             | row 5            | unknown released 0
                             | call 10 charge_unknown | call 6 holds 10
                             | settle 6 200 body broken_off | settled 10
                             | row 6            | settled 10, Unforgiven
                             | call 10..600 per 60 | call 7 holds 490
                             | settle 7 200 reported 120 body broken_off | settled 20
                             | row 7            | settled 20, Unforgiven
                             | call 10          | call 8 holds 10
                             | settle 8 200 body never_begun | released 0
         # It can be refunded as any other; each key has its own forgiveness, and each day.
                             | release 6        | refunded 0
                             | call 10 key 2    | call 9 holds 10
                             | settle 9 200 body broken_off | released 0
         2026-11-03          | call 10          | call 10 holds 10
                             | settle 10 200 body broken_off | released 0",
    );
}

#[test]
fn a_provisional_end_that_was_forgiven_is_not_forgiven_once_more() {
    statement(
        "2026-11-02T10:00:00 | open prepaid     | 201
                             | key              | 201
                             | grant credits 500 extra | 201
                             | call 10          | call 1 holds 10
                             | call 10          | call 2 holds 10
                             | call 10          | call 3 holds 10
                             | call 10 charge_unknown | call 4 holds 10
         +5m                 | tick             | ok
                             | row 2            | unknown released 0
                             | row 3            | unknown charged 10, Unforgiven
                             | settle 2 200 body broken_off | released 0
                             | settle 3 200 body broken_off | settled 10
                             | row 3            | settled 10, Unforgiven
         # A download that took longer than its hold is charged after all.
                             | settle 1 200 body whole | settled 10
                             | entries          | 2026-11-02T10:00:00 granted credits +500 = 500; 2026-11-02T10:05:00 corrected credits -10 = 470
         # Charged as unknown yesterday, broken off as is learned today.
         2026-11-03          | settle 4 200 body broken_off | released 0
                             | call 10          | call 5 holds 10
                             | settle 5 200 body broken_off | released 0
                             | call 10          | call 6 holds 10
                             | settle 6 200 body broken_off | settled 10",
    );
}

#[test]
fn a_late_settle_replaces_a_provisional_end_with_an_entry() {
    statement(
        "2026-11-02 | open prepaid            | 201
                    | key                     | 201
                    | grant credits 30 extra  | 201
                    | grant credits 10 promo  | 201
                    | entries                 | 2026-11-02 granted credits +30 = 30; 2026-11-02 granted credits +10 = 40
                    | call 15                 | call 1 holds 15
                    | call 15 charge_unknown  | call 2 holds 15
         +5m        | tick                    | ok
                    | row 1                   | unknown released 0
                    | row 2                   | unknown charged 15
         # The first was a success after all: it is charged, from what is there now.
         +1d        | settle 1 200            | settled 15
                    | settle 1 200            | settled 15
                    | settle 1 500            | settled 15
                    | entries                 | 2026-11-03T00:05:00 corrected credits -10 = 15; 2026-11-03T00:05:00 corrected credits -5 = 10
         # The second failed: what it was charged comes back to the lot it came from.
                    | settle 2 500            | released 0
                    | entries                 | 2026-11-03T00:05:00 corrected credits +15 = 25
                    | settle 2 200            | released 0
                    | balance credits         | 25 available, 0 held, 15 spent
         # As far as credits are there, and not after 30 days.
                    | call 20                 | call 3 holds 20
                    | call 5                  | call 4 holds 5
         +5m        | tick                    | ok
                    | call 18                 | call 5 holds 18
                    | settle 5 200            | settled 18
                    | settle 3 200            | settled 7
                    | balance credits         | 0 available, 0 held, 40 spent
         +30d       | settle 4 200            | settled 0
                    | entries                 | 2026-11-03T00:10:00 corrected credits -7 = 0",
    );
}

#[test]
fn a_provisional_end_stands_after_thirty_days() {
    statement(
        "2026-11-02 | open prepaid            | 201
                    | key                     | 201
                    | grant credits 30 extra  | 201
                    | call 15                 | call 1 holds 15
         +5m        | tick                    | ok
         +30d       | tick                    | ok
         +1ms       | settle 1 200            | unknown released 0",
    );
}

#[test]
fn a_job_that_opens_late_does_not_undo_its_provisional_charge() {
    statement(
        "2026-11-02 | open prepaid            | 201
                    | key                     | 201
                    | grant credits 30 extra  | 201
                    | call 15 job charge_unknown | call 1 holds 15
         +5m        | tick                    | ok
                    | row 1                   | unknown charged 15
                    | settle 1 202            | unknown charged 15
                    | balance credits         | 15 available, 0 held, 15 spent
         # A call is answered once; how the job ended is the origin's word.
                    | settle 1 500            | unknown charged 15
                    | release 1               | released 0",
    );
}

#[test]
fn an_undone_admission_takes_nothing_and_its_number_is_gone() {
    statement(
        "2026-11-02T10:00:00 | open tight       | 201
                             | key              | 201
                             | call 5 as 71     | call 1 holds 5
                             | call 5 as 72     | call 2 holds 5
                             | cancel 71        | cancelled
                             | standing         | minute 2 of 3, day 3 of 4
                             | row 1            | undone 0
         # Late copies of its admission, or of its settlement, change nothing.
         +1s                 | call 5 as 71     | refused: cancelled
                             | call 5 as 71 | refused: cancelled
                             | cancel 71        | cancelled
                             | standing         | minute 2 of 3, day 3 of 4
                             | settle 1 200     | undone 0
                             | balance credits  | 15 available, 5 held, 0 spent, renews 2026-12-01
         # Before its admission.
                             | cancel 73        | cancelled
                             | evict            | ok
                             | call 5 as 73     | refused: cancelled
                             | call 5 as 73 | refused: cancelled
                             | standing         | minute 2 of 3, day 3 of 4
                             | call 5           | call 3 holds 5",
    );
}

#[test]
fn the_same_operation_is_the_same_call() {
    statement(
        "2026-11-02T10:00:00 | open free        | 201
                             | key              | 201
                             | call 5 as 71     | call 1 holds 5
                             | call 5 as 71 | call 1 holds 5
         # The copy that was sent first may come last.
                             | call 5 as 71     | call 1 holds 5
                             | evict            | ok
                             | call 5 as 71     | call 1 holds 5
                             | call 5 as 71 | call 1 holds 5
                             | revoke 1         | 204
                             | call 5 as 71 | call 1 holds 5
                             | balance credits  | 45 available, 5 held, 0 spent
                             | settle 1 200     | settled 5
                             | settle 1 200     | settled 5
                             | settle 1 500     | settled 5
         # It has ended: nobody waits for this answer.
                             | call 5 as 71 | refused: cancelled
                             | evict            | ok
                             | call 5 as 71     | refused: cancelled
                             | standing         | minute 4 of 5, day 49 of 50",
    );
}

#[test]
fn a_settle_that_does_not_know_the_operation_finds_no_call() {
    statement(
        "2026-11-02 | open prepaid            | 201
                    | key                     | 201
                    | grant credits 30 extra  | 201
                    | call 5                  | call 1 holds 5
                    | settle 1 200 as 7       | no such call
                    | row 1                   | open
                    | settle 1 200            | settled 5
                    | settle 1 200 as 7       | no such call
                    | settle 1 500 as 7       | no such call
                    | call 5                  | call 2 holds 5
         +5m        | tick                    | ok
                    | settle 2 200 as 7       | no such call
                    | row 2                   | unknown released 0
                    | settle 3 200 as 7       | no such call",
    );
}

#[test]
fn a_failed_commit_leaves_everything_as_it_was() {
    statement(
        "2026-11-02T10:00:00 | open free        | 201
                             | key              | 201
                             | fail 1           | ok
                             | call 5           | unavailable: disk full
                             | balance credits  | 50 available, 0 held, 0 spent
                             | call 5           | call 1 holds 5
                             | fail 1           | ok
                             | settle 1 200     | unavailable: disk full
                             | balance credits  | 45 available, 5 held, 0 spent
                             | settle 1 200     | settled 5
                             | fail 1           | ok
                             | grant credits 10 extra id 1 | unavailable: disk full
                             | grant credits 10 extra id 1 | 201
                             | grant credits 10 extra id 1 | 201
                             | grant credits 11 extra id 1 | IdempotencyMismatch
                             | balance credits  | 55 available, 0 held, 5 spent
         +400d               | grant credits 10 extra id 1 | 201
                             | balance credits  | 55 available, 0 held, 5 spent
                             | grant nothing 10 extra | BadRequest
                             | grant credits 10 extra until 2026-11-02 | BadRequest
                             | grant credits 9007199254740991 extra | BadRequest",
    );
}

#[test]
fn observing_refuses_nothing_charges_nothing_and_holds_nothing_for_a_refusal() {
    statement(
        "2026-11-02T10:00:00 | policy observe   | ok
                             | open tight       | 201
                             | call 5           | 401
                             | key              | 201
                             | call 5           | call 1 holds 5
                             | call 5           | call 2 holds 5
                             | call 5           | call 3 holds 0, would be 429 in_flight, wait 1
                             | settle 1 200     | released 0
                             | call 50          | call 4 holds 0, would be 402 15 of 50
                             | settle 4 200     | released 0
                             | suspend unpaid   | 200
                             | call 5           | call 5 holds 0, would be 403 unpaid
                             | settle 3 200     | released 0
         # Enforced from here on; what was admitted while observing is not charged.
                             | policy standard  | ok
                             | settle 2 200     | released 0
                             | settle 5 200     | released 0
                             | call 5           | 403 unpaid
                             | balance credits  | 20 available, 0 held, 0 spent, renews 2026-12-01",
    );
}

#[test]
fn a_repeated_admission_tells_again_what_enforcing_would_have_answered() {
    statement(
        "2026-11-02T10:00:00 | policy observe   | ok
                             | open tight       | 201
                             | key              | 201
                             | call 50 as 71    | call 1 holds 0, would be 402 20 of 50
                             | grant credits 90 extra | 201
                             | call 50 as 71    | call 1 holds 0, would be 402 20 of 50
                             | evict            | ok
                             | call 50 as 71    | call 1 holds 0, would be 402 20 of 50
                             | call 50          | call 2 holds 50",
    );
}

#[test]
fn a_clock_that_strays_holds_nobody_back_for_long() {
    statement(
        "2026-11-02T10:00:00 | open tight       | 201
                             | key              | 201
                             | call 1           | call 1 holds 1
         +1h                 | call 1           | call 2 holds 1
                             | wakeup           | 2026-11-02T11:05:00
         # Call 1's time was up, by the clock as read.
                             | row 1            | unknown released 0
         -1h                 | tick             | ok
                             | wakeup           | 2026-11-02T10:05:00
                             | call 1           | call 3 holds 1
         # The stray call counts as made just now.
                             | standing         | minute 1 of 3, day 1 of 4
         +60s                | settle 3 200     | settled 1
                             | standing         | minute 3 of 3, day 1 of 4
                             | evict            | ok
                             | tick             | ok
                             | wakeup           | 2026-11-02T10:05:00
         +240s               | tick             | ok
                             | row 2            | unknown released 0",
    );
}

#[test]
fn ends_that_come_beside_a_message_are_booked_before_it() {
    let mut branch = Branch::with_account("standard", "free", moment("2026-11-02"));
    for _ in 0..3 {
        branch.call(cost(15));
    }
    // 5 of 50 are left: the end of the call that failed pays for the next.
    let admit = branch.request(1_999, 1, cost(20));
    let ended = [(1, 200), (2, 500)];
    let rows = branch.store().rows_written;
    let (taken, reply) = branch.send_beside(&ended, &Request::Admit(admit.clone()));
    assert!(matches!(reply, Reply::Admitted(_)), "{reply:?}");
    assert_eq!((taken, branch.store().rows_written - rows), (2, 3));
    // Told again, because the answer was lost, they change nothing.
    let (taken, again) = branch.send_beside(&ended, &Request::Admit(admit));
    assert_eq!((taken, again), (2, reply));
    assert_eq!(branch.store().rows_written - rows, 3);
    branch.check().expect("sound books");
}

#[test]
fn an_end_that_cannot_be_kept_is_not_taken() {
    let mut branch = Branch::with_account("standard", "free", moment("2026-11-02"));
    for _ in 0..2 {
        branch.call(cost(15));
    }
    branch.object.store_mut().commits_to_fail = 1;
    let show = Request::Manage(Manage {
        command: Command::Balance,
        idempotency: None,
        signs_under: None,
    });
    let (taken, _) = branch.send_beside(&[(1, 200), (2, 200)], &show);
    assert_eq!(
        (taken, state(&branch, 1), state(&branch, 2)),
        (0, CallState::Open, CallState::Open)
    );
    let (taken, _) = branch.send_beside(&[(1, 200), (2, 200)], &show);
    assert_eq!(
        (taken, state(&branch, 1), state(&branch, 2)),
        (2, CallState::Settled, CallState::Settled)
    );
}

#[test]
fn an_end_may_come_late_only_where_nothing_waits_for_it() {
    for (policy, plan, retried, may_end_late) in [
        ("standard", "prepaid", None, true),
        ("standard", "tight", None, false),
        ("standard", "prepaid", Some(fingerprint(1, 1)), false),
        ("observe", "prepaid", None, false),
    ] {
        let mut branch = Branch::with_account(policy, plan, moment("2026-11-02"));
        let operation = branch.operation();
        // The second is the first, asked once more.
        for _ in 0..2 {
            let Reply::Admitted(admission) = branch.ask(operation, 1, cost(0), retried) else {
                panic!("{policy}, {plan}: not admitted");
            };
            assert_eq!(admission.may_end_late, may_end_late, "{policy}, {plan}");
        }
    }
}

#[test]
fn an_end_frees_nothing_only_where_all_that_is_held_is_charged() {
    let charged = answered(1, 1, 200);
    assert!(charged.frees_nothing(&cost(1)));
    for (end, what) in [
        (
            Settle {
                status: 500,
                ..charged
            },
            "it is free",
        ),
        (
            Settle {
                answered: false,
                ..charged
            },
            "the origin did not answer",
        ),
        (
            Settle {
                body: Some(BodyEnd::Whole),
                ..charged
            },
            "its body may be what it is charged for",
        ),
    ] {
        assert!(!end.frees_nothing(&cost(1)), "{what}");
    }
}

fn state(branch: &Branch, call: u64) -> CallState {
    let outcome = branch.row(call).outcome.as_ref();
    outcome.map_or(CallState::Open, |outcome| outcome.state)
}

#[test]
fn a_repeated_request_for_a_key_makes_one_key_and_shows_no_secret_again() {
    let mut branch = Branch::with_account("standard", "free", moment("2026-11-02"));
    let ask = |branch: &mut Branch, name: &str, request: u8, secret: u32| {
        let new = NewKey {
            name: Some(name.into()),
            ..NewKey::default()
        };
        let command = Command::CreateKey {
            new,
            digest: digest_of(secret),
        };
        branch.manage(command, Some(fingerprint(7, request)))
    };
    let Reply::Document(first) = ask(&mut branch, "shop", 1, 2) else {
        panic!("no key");
    };
    assert_eq!(first.created_key.map(|key| key.get()), Some(2));
    branch.evict();
    // The gateway asks again by itself where the answer was lost: it still has the secret to show.
    let asked_again = ask(&mut branch, "shop", 1, 2);
    assert_eq!(asked_again, Reply::Document(first.clone()));
    // A client that repeats its request has another secret drawn for it, which is no key's.
    let repeated = ask(&mut branch, "shop", 1, 50);
    let without_secret = Document {
        created_key: None,
        ..first
    };
    assert_eq!(repeated, Reply::Document(without_secret));
    let Reply::Problem(other) = ask(&mut branch, "office", 2, 51) else {
        panic!("another body got an answer");
    };
    assert_eq!(other.code, Code::IdempotencyMismatch);
    // A day later the Idempotency-Key is free again.
    branch.set_clock(branch.clock.plus(Span::from_days(1)));
    let Reply::Document(third) = ask(&mut branch, "office", 2, 51) else {
        panic!("no key");
    };
    assert_eq!(third.created_key.map(|key| key.get()), Some(3));
}
