//! Retried calls: a repeat of an `Idempotency-Key` is told from a new call, however the first stands.

use tollgate::{
    account::Refusal,
    protocol::Reply,
    time::{Span, Timestamp},
};

use crate::{
    branch::{Branch, cost, fingerprint},
    statement::{moment, statement},
};

#[test]
fn a_repeat_of_a_charged_call_is_a_call_and_is_free() {
    statement(
        "2026-11-02T10:00:00 | open free            | 201
                             | key                  | 201
                             | call 40 id 1         | call 1 holds 40
                             | settle 1 200         | settled 40
         # Without the credits that another call would need.
                             | call 40              | 402 10 of 40
                             | call 40 id 1         | call 2 repeats 1
                             | standing             | minute 3 of 5, day 48 of 50
                             | balance credits      | 10 available, 0 held, 40 spent
                             | settle 2 200         | settled 0
         # A repeat that fails is no new beginning, nor is one of which nothing is learned.
                             | call 40 id 1         | call 3 repeats 1
                             | settle 3 500         | released 0
                             | call 40 id 1         | call 4 repeats 1
         +300s               | tick                 | ok
                             | row 4                | unknown released 0
                             | call 40 id 1         | call 5 repeats 1
                             | call 40 id 1         | call 6 repeats 1
                             | balance credits      | 10 available, 0 held, 40 spent
                             | firsts               | 1 in 1",
    );
}

#[test]
fn a_repeat_counts_against_the_limits() {
    statement(
        "2026-11-02T10:00:00 | open tight           | 201
                             | key                  | 201
                             | call 1 id 1          | call 1 holds 1
                             | settle 1 200         | settled 1
                             | call 1 id 1          | call 2 repeats 1
                             | call 1 id 1          | call 3 repeats 1
                             | call 1 id 1          | 429 minute in_flight, wait 60
         +60s                | call 1 id 1          | 429 in_flight, wait 1
                             | settle 2 200         | settled 0
                             | settle 3 200         | settled 0
                             | call 1 id 1          | call 4 repeats 1
                             | settle 4 200         | settled 0
                             | call 1 id 1          | 429 daily, wait 50340",
    );
}

#[test]
fn while_the_first_runs_a_repeat_waits() {
    statement(
        "2026-11-02T10:00:00 | open tight           | 201
                             | key                  | 201
                             | key                  | 201
                             | call 15 id 1         | call 1 holds 15
                             | call 15 id 1         | 409
         # Nor is it one limit's or the credits' turn.
                             | call 15              | 402 5 of 15, wait 2469600
                             | call 1 id 2          | call 2 holds 1
                             | call 1 id 2          | 409
                             | call 1               | 429 in_flight, wait 1
                             | standing             | minute 1 of 3, day 2 of 4
         # Another key's is another call.
                             | call 1 id 3 key 2    | call 3 holds 1
                             | settle 1 200         | settled 15
                             | call 15 id 1         | call 4 repeats 1",
    );
}

#[test]
fn other_content_is_no_repeat() {
    statement(
        "2026-11-02T10:00:00 | open starter         | 201
                             | key                  | 201
                             | call 15 id 1/1       | call 1 holds 15
                             | call 15 id 1/2       | 422
                             | settle 1 200         | settled 15
                             | call 15 id 1/2       | 422
                             | call 15 id 1/1       | call 2 repeats 1
                             | release 1            | refunded 0
                             | call 15 id 1/2       | 422
                             | suspend unpaid       | 200
                             | call 15 id 1/2       | 403 unpaid
                             | call 15 id 1/1       | 403 unpaid
                             | revoke 1             | 204
                             | call 15 id 1/1       | 401",
    );
}

#[test]
fn a_repeat_of_a_released_or_refunded_call_is_a_new_call() {
    statement(
        "2026-11-02T10:00:00 | open starter         | 201
                             | key                  | 201
                             | call 15 id 1         | call 1 holds 15
                             | settle 1 500         | released 0
                             | call 15 id 1         | call 2 holds 15
                             | call 15 id 1         | 409
                             | settle 2 200         | settled 15
                             | call 15 id 1         | call 3 repeats 2
                             | settle 3 200         | settled 0
                             | release 2            | refunded 0
         # What has been forwarded for nothing stays so.
                             | balance credits      | 300 available, 0 held, 0 spent, renews 2026-12-02
                             | call 15 id 1         | call 4 holds 15
                             | settle 4 502 unreachable | released 0
                             | call 15 id 1         | call 5 holds 15
                             | settle 5 200         | settled 15
                             | call 15 id 1         | call 6 repeats 5
                             | firsts               | 1 in 1",
    );
}

#[test]
fn the_first_of_an_unknown_end_is_judged_by_its_charge() {
    statement(
        "2026-11-02T10:00:00 | open starter         | 201
                             | key                  | 201
                             | call 15 id 1         | call 1 holds 15
                             | call 20 id 2 charge_unknown | call 2 holds 20
         +299s               | call 15 id 1         | 409
                             | call 20 id 2         | 409
         +1s                 | call 15 id 1         | call 3 holds 15
                             | call 20 id 2         | call 4 repeats 2
                             | row 2                | unknown charged 20
         # Another call has taken its place: what comes late does not charge for both.
                             | row 1                | released 0
                             | settle 1 200         | released 0
                             | settle 1 id 8        | AlreadyReleased
                             | settle 3 200         | settled 15
                             | balance credits      | 265 available, 0 held, 35 spent, renews 2026-12-02
         # It failed after all.
                             | settle 2 500         | released 0
                             | settle 4 200         | settled 0
                             | call 20 id 2         | call 5 holds 20
                             | balance credits      | 265 available, 20 held, 15 spent, renews 2026-12-02",
    );
}

#[test]
fn a_late_settle_of_an_unrepeated_call_makes_repeats_free() {
    statement(
        "2026-11-02T10:00:00 | open starter         | 201
                             | key                  | 201
                             | call 15 id 1         | call 1 holds 15
         +301s               | tick                 | ok
                             | row 1                | unknown released 0
                             | settle 1 200         | settled 15
                             | call 15 id 1         | call 2 repeats 1",
    );
}

#[test]
fn a_job_runs_until_its_answer_and_is_paid_for_while_it_is_open() {
    statement(
        "2026-11-02T10:00:00 | open tight           | 201
                             | key                  | 201
                             | call 5 job id 1      | call 1 holds 5
                             | call 5 job id 1      | 409
                             | settle 1 202         | job 0
         # The repeat opens no second job: one is all that the plan has.
                             | call 5 job id 1      | call 2 repeats 1
                             | settle 2 202         | settled 0
         +60s                | settle 1 credits 3   | settled 3
                             | call 5 job id 1      | call 3 repeats 1
                             | settle 3 202         | settled 0
                             | release 1            | refunded 0
                             | call 5 job id 1      | call 4 holds 5
                             | settle 4 404         | released 0
         +1d                 | call 5 job id 1      | call 5 holds 5
                             | settle 5 202         | job 0
                             | release 5            | released 0
                             | call 5 job id 1      | call 6 holds 5",
    );
}

#[test]
fn after_a_day_it_is_a_new_call() {
    statement(
        "2026-11-02T23:59:59 | open starter         | 201
                             | key                  | 201
                             | call 15 id 1         | call 1 holds 15
                             | settle 1 200         | settled 15
         2026-11-03T23:59:58 | call 15 id 1/9       | 422
                             | call 15 id 1         | call 2 repeats 1
                             | settle 2 200         | settled 0
         +1s                 | call 15 id 1/9       | call 3 holds 15
                             | settle 3 200         | settled 15
                             | call 15 id 1         | 422
                             | firsts               | 2 in 2
         +1d                 | call 15 id 2         | call 4 holds 15
         +1d                 | call 15 id 2         | call 5 holds 15
                             | firsts               | 3 in 3
         # No table older than two days before is left, whenever the next comes.
         2027-03-01T12:00:00 | call 1 id 1          | call 6 holds 1
                             | firsts               | 3 in 3",
    );
}

#[test]
fn an_undone_call_is_no_first() {
    statement(
        "2026-11-02T10:00:00 | open starter         | 201
                             | key                  | 201
                             | call 15 id 1 as 7    | call 1 holds 15
                             | cancel 7             | cancelled
                             | call 15 id 1 as 7    | refused: cancelled
         # Nor does it bind anyone to its content.
                             | call 15 id 1/2 as 8  | call 2 holds 15
                             | settle 2 200         | settled 15
                             | call 15 id 1/2 as 9  | call 3 repeats 2
                             | cancel 9             | cancelled
                             | call 15 id 1/2 as 10 | call 4 repeats 2",
    );
}

#[test]
fn a_lost_answer_is_the_same_call_and_no_repeat_of_itself() {
    statement(
        "2026-11-02T10:00:00 | open starter         | 201
                             | key                  | 201
                             | call 15 id 1 as 7    | call 1 holds 15
                             | call 15 id 1 as 7    | call 1 holds 15
                             | settle 1 200         | settled 15
                             | call 15 id 1 as 7    | refused: cancelled
                             | call 15 id 1 as 8    | call 2 repeats 1
                             | evict                | ok
                             | call 15 id 1 as 8    | call 2 repeats 1
                             | settle 2 200         | settled 0
                             | call 15 id 1 as 8    | refused: cancelled",
    );
}

#[test]
fn a_failed_commit_keeps_no_first() {
    statement(
        "2026-11-02T10:00:00 | open starter         | 201
                             | key                  | 201
                             | fail 1               | ok
                             | call 15 id 1         | unavailable: disk full
                             | firsts               | 0 in 0
                             | call 15 id 1         | call 1 holds 15
                             | fail 1               | ok
                             | call 15 id 2         | unavailable: disk full
                             | call 15 id 2         | call 2 holds 15
                             | settle 1 200         | settled 15
                             | fail 1               | ok
                             | call 15 id 1         | unavailable: disk full
                             | call 15 id 1         | call 3 repeats 1",
    );
}

#[test]
fn a_clock_that_strays_into_other_days_forgets_no_first() {
    statement(
        "2026-11-02T23:00:00 | open starter         | 201
                             | key                  | 201
                             | call 15 id 1         | call 1 holds 15
                             | settle 1 200         | settled 15
         2026-11-03T10:00:00 | call 15 id 2         | call 2 holds 15
                             | settle 2 200         | settled 15
         # Ahead, and back.
         2026-12-05T10:00:00 | call 15 id 3         | call 3 holds 15
         2026-11-03T10:00:01 | call 15 id 1         | call 4 repeats 1
                             | call 15 id 2         | call 5 repeats 2
                             | call 15 id 3         | 409
                             | firsts               | 3 in 3
         # A little behind, on the day before.
         2026-11-03T00:00:00 | call 15 id 4         | call 6 holds 15
                             | settle 6 200         | settled 15
         -1s                 | call 15 id 4         | call 7 repeats 6",
    );
}

#[test]
fn observing_tells_what_enforcing_would_answer() {
    statement(
        "2026-11-02T10:00:00 | open starter         | 201
                             | key                  | 201
                             | call 15 id 1         | call 1 holds 15
                             | settle 1 200         | settled 15
                             | call 15 id 2         | call 2 holds 15
                             | policy observe       | ok
                             | call 15 id 1         | call 3 repeats 1
                             | call 15 id 1/2       | call 4 holds 0, would be 422
                             | call 15 id 2         | call 5 holds 0, would be 409
                             | call 900 id 3        | call 6 holds 0, would be 402 270 of 900
                             | settle 2 200         | released 0
         # What would have been refused is no first.
                             | call 15 id 2         | call 7 holds 15
                             | settle 7 200         | released 0
                             | call 15 id 3         | call 8 holds 15
                             | balance credits      | 270 available, 15 held, 15 spent, renews 2026-12-02",
    );
}

#[test]
fn of_many_at_once_one_is_charged() {
    let mut branch = Branch::with_account("standard", "pro", moment("2026-11-02T10:00:00"));
    let retried = fingerprint(1, 1);
    let mut admitted = 0;
    for round in 0..40_u64 {
        let operation = branch.operation();
        match branch.ask(operation, 1, cost(15), Some(retried)) {
            Reply::Admitted(admission) => {
                admitted += 1;
                assert_eq!(admission.repeats.is_some(), round >= 20);
            }
            Reply::Refused(Refusal::FirstRuns { .. }) => assert!((1..20).contains(&round)),
            other => panic!("{other:?}"),
        }
        if round == 19 {
            branch.settle(1, 200);
        }
    }
    assert_eq!(admitted, 21);
    assert_eq!(branch.balance("credits")["spent"], 15);
    branch.check().expect("sound books");
}

#[test]
fn a_thousand_days_of_firsts_take_no_memory_and_three_tables() {
    let mut branch = Branch::with_account("standard", "pro", moment("2026-11-02T10:00:00"));
    let opened: Timestamp = branch.clock;
    for day in 0..1_000_u64 {
        branch.set_clock(opened.plus(Span::from_days(day as i64)));
        for request in 0..3 {
            let operation = branch.operation();
            let reply = branch.ask(operation, 1, cost(0), Some(fingerprint(request, 1)));
            let Reply::Admitted(admission) = reply else {
                panic!("{reply:?}");
            };
            branch.settle(admission.call.get(), 200);
        }
        assert!(branch.store().firsts().0 <= 3);
    }
    assert_eq!(branch.store().firsts(), (3, 9));
    assert_eq!(
        branch.object.account().expect("awake").first_days().len(),
        3
    );
    let rows = branch.store().rows_read.get();
    let operation = branch.operation();
    branch.ask(operation, 1, cost(0), Some(fingerprint(0, 1)));
    assert!(branch.store().rows_read.get() - rows <= 4);
    branch.check().expect("an account that wakes");
}
