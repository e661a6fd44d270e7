//! The origin's word on how a call ended: jobs, refunds, corrections. The operator's adjustments.

use serde_json::{Value, json};
use tollgate::{
    account::{Told, Word},
    call::CallState,
    id::CallNumber,
    price::{Job, OnUnknown, Terms},
    protocol::{Command, Page, Reply, UsageFilter, UsageQuery},
    time::Span,
    totals::summary::By,
};

use crate::{
    branch::{Branch, cost, fingerprint},
    statement::{moment, statement},
};

#[test]
fn a_call_is_shown_as_it_stands() {
    let mut branch = Branch::with_account("standard", "free", moment("2026-11-02"));
    branch.call(Terms {
        job: Some(Job {
            settle_within: Span::from_days(1),
            on_unknown: OnUnknown::Release,
        }),
        ..cost(5)
    });
    let shown = |reply: Reply| -> Value {
        let Reply::Document(document) = reply else {
            panic!("{reply:?}");
        };
        assert_eq!(document.status, 200);
        serde_json::from_str(&document.json).expect("a call is JSON")
    };
    let show = Command::ShowCall(CallNumber::new(1).expect("a number"));
    let mut expected = json!({
        "id": "call_acc_1", "account": "acc", "key": "key_acc_1", "method": "POST",
        "endpoint": "/search", "state": "open", "admitted_at": "2026-11-02T00:00:00Z",
        "ended_at": null, "deadline": "2026-11-02T00:05:00Z", "pool": "credits", "held": 5,
        "charged": 0, "status_code": null, "response_time_ms": null, "mark": null,
    });
    assert_eq!(shown(branch.manage(show.clone(), None)), expected);
    branch.settle(1, 202);
    for (field, value) in [
        ("state", json!("job")),
        ("ended_at", json!("2026-11-02T00:00:00Z")),
        ("deadline", json!("2026-11-03T00:00:00Z")),
        ("status_code", json!(202)),
        ("response_time_ms", json!(7)),
    ] {
        expected[field] = value;
    }
    assert_eq!(shown(branch.manage(show.clone(), None)), expected);
    branch.set_clock(branch.clock.plus(Span::from_seconds(60)));
    for (field, value) in [
        ("state", json!("settled")),
        ("ended_at", json!("2026-11-02T00:01:00Z")),
        ("deadline", json!(null)),
        ("held", json!(0)),
        ("charged", json!(5)),
    ] {
        expected[field] = value;
    }
    assert_eq!(
        shown(branch.end_call(1, Word::Settle(Told::Hold), None)),
        expected
    );
    assert_eq!(shown(branch.manage(show.clone(), None)), expected);
    expected["state"] = json!("refunded");
    expected["charged"] = json!(0);
    let release = Word::Release { reason: None };
    assert_eq!(shown(branch.end_call(1, release, None)), expected);
    assert_eq!(shown(branch.manage(show, None)), expected);
}

#[test]
fn a_job_stays_held_across_restarts_renewals_and_plan_changes() {
    statement(
        "2026-11-09T23:00:00 | open starter billing 10 | 201
                             | key                 | 201
                             | call 30 job         | call 1 holds 30
                             | call 20 job         | call 2 holds 20
                             | settle 1 202        | job 0
                             | settle 2 202        | job 0
                             | entries             | 2026-11-09T23:00:00 renewed credits +300 = 300; 2026-11-09T23:00:00 renewed lyrics +100 = 100
                             | wakeup              | 2026-11-10T23:00:00
         +30m                | evict               | ok
                             | balance credits     | 250 available, 50 held, 0 spent, renews 2026-11-10
                             | plan pro            | 200
         # What jobs hold neither expires nor is granted anew.
         2026-11-10          | evict               | ok
                             | balance credits     | 1000 available, 50 held, 0 spent, renews 2026-12-10
                             | lots credits        | subscription 1000, 50 held, 950 expired; subscription 1000, 1000 available
         +1h                 | policy without_starter | ok
                             | settle 1 credits 10 | settled 10
         # The rest comes back to its own lot, for as long as the pool says.
                             | lots credits        | subscription 1000, 10 spent, 20 held, 950 expired, 20 available; subscription 1000, 1000 available
                             | release 2           | released 0
                             | lots credits        | subscription 1000, 10 spent, 950 expired, 40 available; subscription 1000, 1000 available
                             | wakeup              | never
                             | entries             | 2026-11-09T23:30:00 adjusted credits +700 = 1000; 2026-11-09T23:30:00 adjusted lyrics -100 = 0; 2026-11-10 expired credits -950 = 50; 2026-11-10 renewed credits +1000 = 1050
         2026-11-17T00:59:59 | balance credits     | 1040 available, 0 held, 10 spent, renews 2026-12-10
         +1s                 | balance credits     | 1000 available, 0 held, 10 spent, renews 2026-12-10
                             | entries             | 2026-11-17T01:00:00 expired credits -40 = 1000",
    );
}

#[test]
fn a_job_that_nobody_ends_ends_as_its_route_says() {
    statement(
        "2026-11-02T10:00:00 | open prepaid        | 201
                             | key                 | 201
                             | grant credits 100 extra | 201
                             | call 10 job         | call 1 holds 10
                             | call 10 job_charges | call 2 holds 10
         +1s                 | settle 1 202        | job 0
                             | settle 2 202        | job 0
         +6m                 | row 1               | job 0
         2026-11-03T10:00:00 | row 1               | job 0
         +1s                 | tick                | ok
                             | row 1               | unknown released 0
                             | row 2               | unknown charged 10
         # Outside of what a day forgives: that is for calls.
                             | call 10             | call 3 holds 10
                             | call 10             | call 4 holds 10
                             | call 10             | call 5 holds 10
         +5m                 | tick                | ok
                             | row 4               | unknown released 0
                             | row 5               | unknown charged 10, Unforgiven
                             | balance credits     | 80 available, 0 held, 20 spent",
    );
}

#[test]
fn a_job_ends_once() {
    statement(
        "2026-11-02T10:00:00 | open prepaid        | 201
                             | key                 | 201
                             | grant credits 100 extra | 201
                             | call 10 job         | call 1 holds 10
                             | call 10 job         | call 2 holds 10
                             | call 10 job         | call 3 holds 10
                             | settle 1 200        | job 0
                             | settle 2 200        | job 0
                             | settle 3 200        | job 0
                             | settle 1            | settled 10
                             | settle 1            | AlreadySettled
                             | settle 1 credits 3  | AlreadySettled
                             | settle 1 credits 11 | AlreadySettled
                             | settle 1 value 1    | AlreadySettled
                             | release 2           | released 0
                             | release 2           | AlreadyReleased
                             | settle 2            | AlreadyReleased
                             | settle 2 credits 11 | AlreadyReleased
         # Nothing changes with a word that is refused.
                             | settle 3 credits 11 | AboveHold
                             | row 3               | job 0
                             | balance credits     | 80 available, 10 held, 10 spent
                             | settle 3 value 5    | BadRequest
                             | row 3               | job 0
                             | settle 3 credits 0  | settled 0
                             | settle 4            | NotFound
                             | release 4           | NotFound
         # Neither does what the gateway says only now.
                             | settle 1 500        | settled 10
                             | settle 2 200        | released 0
                             | balance credits     | 90 available, 0 held, 10 spent
                             | entries             | 2026-11-02T10:00:00 granted credits +100 = 100",
    );
}

#[test]
fn a_job_may_be_settled_by_what_its_price_counts() {
    statement(
        "2026-11-02T10:00:00 | open prepaid            | 201
                             | key                     | 201
                             | grant credits 100 extra | 201
                             | call 10..60 per 60 job  | call 1 holds 60
                             | call 10..60 per 60 job  | call 2 holds 40
                             | settle 1 202 reported 1 | job 0
                             | settle 2 202 reported 1 | job 0
                             | settle 2 value 300      | AboveHold
                             | settle 2 value 999      | AboveHold
                             | settle 2 value 240      | settled 40
                             | settle 1 value 60.001   | settled 20
                             | balance credits         | 40 available, 0 held, 60 spent",
    );
}

#[test]
fn the_origin_may_be_faster_than_the_gateway() {
    statement(
        "2026-11-02T10:00:00 | open tight       | 201
                             | key              | 201
                             | call 5 job       | call 1 holds 5
                             | call 5           | call 2 holds 5
                             | call 5           | 429 in_flight, wait 1
                             | settle 1 credits 3 | settled 3
                             | release 2        | released 0
                             | call 5           | call 3 holds 5
                             | settle 1 202     | settled 3
                             | settle 2 200     | released 0
                             | balance credits  | 12 available, 5 held, 3 spent, renews 2026-12-01",
    );
}

/// Status and time of a call's answer, as the operator is shown them.
fn answer_of(branch: &mut Branch, call: u64) -> [Value; 2] {
    let number = CallNumber::new(call).expect("a number");
    let Reply::Document(shown) = branch.manage(Command::ShowCall(number), None) else {
        panic!("no call {call}");
    };
    let shown: Value = serde_json::from_str(&shown.json).expect("a call is JSON");
    ["status_code", "response_time_ms"].map(|field| shown[field].clone())
}

fn listed_with(branch: &mut Branch, status: u16) -> u64 {
    let query = UsageQuery {
        limit: 50,
        filter: UsageFilter {
            status: Some(status),
            ..UsageFilter::default()
        },
        ..UsageQuery::default()
    };
    let Reply::Document(document) = branch.read(1, Page::Usage(query)) else {
        panic!("no usage");
    };
    let usage: Value = serde_json::from_str(&document.json).expect("JSON");
    usage["total_count"].as_u64().expect("a count")
}

/// How many calls failed, as totals have it.
fn failed(branch: &mut Branch) -> Value {
    branch.summary(By::Day)["summary"][0]["failed"].clone()
}

#[test]
fn what_a_job_was_answered_is_known_for_good() {
    let job = |on_unknown| Terms {
        job: Some(Job {
            settle_within: Span::from_days(1),
            on_unknown,
        }),
        ..cost(5)
    };
    let accepted = [json!(202), json!(7)];
    let mut branch = Branch::with_account("standard", "free", moment("2026-11-02"));
    for on_unknown in [OnUnknown::Release, OnUnknown::Charge] {
        branch.call(job(on_unknown));
    }
    branch.settle(1, 202);
    branch.settle(2, 202);
    branch.evict();
    branch.set_clock(moment("2026-11-03"));
    branch.check().expect("sound books");
    for call in [1, 2] {
        assert!(branch.row(call).state().is_unknown());
        assert_eq!(answer_of(&mut branch, call), accepted);
    }
    assert_eq!(listed_with(&mut branch, 202), 2);
    // The client was answered, and nobody has told how the jobs ended.
    assert_eq!(failed(&mut branch), 2);

    branch.end_call(1, Word::Settle(Told::Hold), None);
    assert_eq!(failed(&mut branch), 1);
    for call in [1, 2] {
        branch.end_call(call, Word::Release { reason: None }, None);
        assert_eq!(answer_of(&mut branch, call), accepted);
    }
    assert_eq!(failed(&mut branch), 0);
    branch.check().expect("sound books");
}

#[test]
fn an_answer_that_is_told_after_the_end_of_its_call_is_written_down_once() {
    let unknown = [json!(null), json!(null)];
    let mut branch = Branch::with_account("standard", "starter", moment("2026-11-02"));
    for _ in 1..=5 {
        branch.call(Terms {
            job: Some(Job {
                settle_within: Span::from_days(1),
                on_unknown: OnUnknown::Release,
            }),
            ..cost(5)
        });
    }
    branch.end_call(1, Word::Settle(Told::Hold), None);
    branch.end_call(2, Word::Release { reason: None }, None);
    branch.end_call(3, Word::Settle(Told::Hold), None);
    branch.end_call(3, Word::Release { reason: None }, None);
    let operation = branch.row(4).call.hold.operation;
    branch.cancel(operation);
    // The fifth outlives its hold.
    branch.set_clock(moment("2026-11-02T00:10:00"));
    branch.check().expect("sound books");
    assert_eq!(failed(&mut branch), 2);
    for call in [1, 2, 3, 5] {
        let ended = branch.row(call).clone();
        assert_eq!(answer_of(&mut branch, call), unknown);
        branch.settle(call, 202);
        assert_eq!(answer_of(&mut branch, call), [json!(202), json!(7)]);
        let end = ended.outcome.expect("an end");
        let now = branch.row(call).outcome.clone().expect("an end");
        assert_eq!((now.state, now.charged), (end.state, end.charged));
        branch.check().expect("sound books");
        // A copy of that, and one that says something else, find it written.
        let rows = branch.store().rows_written;
        branch.settle(call, 202);
        branch.settle(call, 500);
        assert_eq!(branch.store().rows_written, rows);
        assert_eq!(answer_of(&mut branch, call)[0], 202);
    }
    // The second was answered well and released by a word: only of the fifth nobody knows the end.
    assert_eq!(failed(&mut branch), 1);
    assert_eq!(listed_with(&mut branch, 202), 4);

    branch.settle(4, 202);
    assert_eq!(answer_of(&mut branch, 4), unknown, "no client has seen it");
    branch.check().expect("sound books");
}

#[test]
fn a_first_whose_end_nobody_told_is_replaced_with_its_answer_and_totals_know() {
    let mut branch = Branch::with_account("standard", "free", moment("2026-11-02"));
    let job = Terms {
        job: Some(Job {
            settle_within: Span::from_seconds(3_600),
            on_unknown: OnUnknown::Release,
        }),
        ..cost(5)
    };
    let ask = |branch: &mut Branch| {
        let operation = branch.operation();
        branch.ask(operation, 1, job.clone(), Some(fingerprint(1, 0)))
    };
    ask(&mut branch);
    branch.settle(1, 202);
    branch.set_clock(moment("2026-11-02T02:00:00"));
    ask(&mut branch);
    assert_eq!(branch.row(1).state(), CallState::Released);
    assert_eq!(answer_of(&mut branch, 1)[0], 202);
    assert_eq!(failed(&mut branch), 0);
    branch.check().expect("sound books");
}

#[test]
fn open_jobs_have_a_limit_of_their_own() {
    statement(
        "2026-11-02T10:00:00 | open free        | 201
                             | key              | 201
                             | key              | 201
                             | call 1 job       | call 1 holds 1
                             | settle 1 202     | job 0
                             | call 1 job       | call 2 holds 1
                             | settle 2 202     | job 0
                             | call 1 job       | call 3 holds 1
                             | settle 3 202     | job 0
                             | call 1 job       | 429 jobs, wait 60
                             | evict            | ok
                             | call 1 job       | 429 jobs, wait 60
                             | call 1 job key 2 | call 4 holds 1
                             | call 1           | call 5 holds 1
                             | release 1        | released 0
                             | call 1 job       | call 6 holds 1",
    );
}

#[test]
fn a_job_that_is_being_opened_has_its_place_among_the_open_ones() {
    statement(
        "2026-11-02T10:00:00 | open free        | 201
                             | key              | 201
                             | call 1 job       | call 1 holds 1
                             | call 1 job       | call 2 holds 1
                             | settle 1 202     | job 0
                             | call 1 job       | call 3 holds 1
                             | call 1 job       | 429 jobs, wait 1
                             | evict            | ok
                             | call 1 job       | 429 jobs, wait 1
                             | settle 2 500     | released 0
                             | call 1 job       | call 4 holds 1
                             | call 1 job       | 429 jobs, wait 1",
    );
}

#[test]
fn a_refund_gives_back_to_the_lots_that_paid() {
    statement(
        "2026-11-02T10:00:00 | open saver              | 201
                             | key                     | 201
                             | grant credits 10 extra  | 201
                             | call 30                 | call 1 holds 30
                             | settle 1 200            | settled 30
                             | lots credits            | subscription 100, 20 spent, 80 available; extra 10, 10 spent
                             | entries                 | 2026-11-02T10:00:00 renewed credits +100 = 100; 2026-11-02T10:00:00 granted credits +10 = 110
         +1h                 | release 1 because noise | refunded 0
                             | row 1                   | refunded 0
                             | lots credits            | subscription 100, 100 available; extra 10, 10 available
                             | entries                 | 2026-11-02T11:00:00 refunded credits +10 = 90; 2026-11-02T11:00:00 refunded credits +20 = 110
                             | release 1               | AlreadyReleased
                             | settle 1                | AlreadyReleased
                             | settle 1 200            | refunded 0
                             | evict                   | ok
                             | balance credits         | 110 available, 0 held, 0 spent, renews 2026-12-01",
    );
}

#[test]
fn a_refund_comes_within_thirty_days() {
    statement(
        "2026-11-02T10:00:00 | open prepaid            | 201
                             | key                     | 201
                             | grant credits 30 extra  | 201
                             | call 10                 | call 1 holds 10
                             | call 10                 | call 2 holds 10
                             | call 10 job             | call 3 holds 10
                             | settle 1 200            | settled 10
                             | settle 2 200            | settled 10
                             | settle 3 202            | job 0
         +23h                | settle 3                | settled 10
         # The lot is empty, and still knows what it was.
         2026-12-02T10:00:00 | release 1               | refunded 0
         +1ms                | release 2               | AlreadySettled
                             | row 2                   | settled 10
         +23h                | release 3               | AlreadySettled
                             | balance credits         | 10 available, 0 held, 20 spent",
    );
}

#[test]
fn a_refund_into_an_expired_lot_is_spendable_as_long_as_the_pool_says() {
    statement(
        "2026-11-29 | open prepaid            | 201
                    | key                     | 201
                    | grant credits 20 extra until 2026-12-01 | 201
                    | grant strict 20 extra until 2026-12-01 | 201
                    | call 15                 | call 1 holds 15
                    | call 15 strict          | call 2 holds 15
                    | settle 1 200            | settled 15
                    | settle 2 200            | settled 15
         2026-12-03 | tick                    | ok
                    | entries                 | 2026-11-29 granted credits +20 = 20; 2026-11-29 granted strict +20 = 20; 2026-12-01 expired credits -5 = 0; 2026-12-01 expired strict -5 = 0
                    | release 1               | refunded 0
                    | release 2               | refunded 0
                    | entries                 | 2026-12-03 refunded credits +15 = 15; 2026-12-03 refunded strict +15 = 15; 2026-12-03 expired strict -15 = 0
                    | balance strict          | 0 available, 0 held, 0 spent
                    | evict                   | ok
         2026-12-09T23:59:59 | balance credits | 15 available, 0 held, 0 spent
         +1s        | balance credits         | 0 available, 0 held, 0 spent
                    | entries                 | 2026-12-10 expired credits -15 = 0",
    );
}

#[test]
fn the_origins_word_replaces_a_provisional_end_within_thirty_days() {
    statement(
        "2026-11-02 | open prepaid            | 201
                    | key                     | 201
                    | grant credits 100 extra | 201
                    | call 10 charge_unknown  | call 1 holds 10
                    | call 10 charge_unknown  | call 2 holds 10
                    | call 10                 | call 3 holds 10
                    | call 10                 | call 4 holds 10
                    | call 10 charge_unknown  | call 5 holds 10
                    | call 10 charge_unknown  | call 6 holds 10
         +5m        | balance credits         | 60 available, 0 held, 40 spent
                    | entries                 | 2026-11-02 granted credits +100 = 100
         +1d        | settle 1 credits 4      | settled 4
                    | release 2               | released 0
                    | settle 3 credits 11     | AboveHold
                    | settle 3                | settled 10
                    | release 4               | released 0
                    | settle 5                | settled 10
                    | entries                 | 2026-11-03T00:05:00 corrected credits +6 = 66; 2026-11-03T00:05:00 corrected credits +10 = 76; 2026-11-03T00:05:00 corrected credits -10 = 66
         # From then on it has ended.
                    | settle 1                | AlreadySettled
                    | settle 1 500            | settled 4
                    | release 2               | AlreadyReleased
                    | settle 2                | AlreadyReleased
                    | release 3               | refunded 0
                    | entries                 | 2026-11-03T00:05:00 refunded credits +10 = 76
         +29d       | settle 6 200            | settled 10
         # Settled only now, and so it can be refunded for 30 days from now.
         +2d        | release 5               | AlreadySettled
                    | release 6               | refunded 0",
    );
}

#[test]
fn a_provisional_end_is_final_after_thirty_days() {
    statement(
        "2026-11-02 | open prepaid            | 201
                    | key                     | 201
                    | grant credits 100 extra | 201
                    | call 10 charge_unknown  | call 1 holds 10
                    | call 10                 | call 2 holds 10
         +5m        | tick                    | ok
         +30d       | tick                    | ok
         +1ms       | settle 1                | AlreadySettled
                    | release 1               | AlreadySettled
                    | settle 2                | AlreadyReleased
                    | release 2               | AlreadyReleased",
    );
}

#[test]
fn a_correction_charges_as_far_as_credits_are_there() {
    statement(
        "2026-11-02 | open prepaid            | 201
                    | key                     | 201
                    | grant credits 20 extra  | 201
                    | call 15 job             | call 1 holds 15
         +5m        | tick                    | ok
                    | row 1                   | unknown released 0
                    | call 13                 | call 2 holds 13
                    | settle 2 200            | settled 13
                    | settle 1                | settled 7
                    | row 1                   | settled 7, Uncovered
                    | settle 1 202            | settled 7
                    | balance credits         | 0 available, 0 held, 20 spent
                    | release 1               | refunded 0
                    | row 1                   | refunded 0
                    | balance credits         | 7 available, 0 held, 13 spent",
    );
}

#[test]
fn a_lot_whose_charge_was_confirmed_late_takes_a_refund_for_as_long() {
    statement(
        "2026-11-02 | open prepaid            | 201
                    | key                     | 201
                    | grant credits 10 extra  | 201
                    | call 10 charge_unknown  | call 1 holds 10
         +5m        | tick                    | ok
         +29d       | settle 1 200            | settled 10
         # 31 days after anything moved in it, and 20 after it was settled.
         +20d       | grant credits 1 extra   | 201
                    | release 1               | refunded 0
                    | balance credits         | 11 available, 0 held, 0 spent",
    );
}

#[test]
fn whoever_only_observes_hears_the_origin_and_charges_nothing() {
    statement(
        "2026-11-02T10:00:00 | policy observe   | ok
                             | open free        | 201
                             | key              | 201
                             | call 5 job       | call 1 holds 5
                             | call 5 job       | call 2 holds 5
                             | call 90 job      | call 3 holds 0, would be 402 40 of 90
                             | settle 1 202     | job 0
                             | settle 2 202     | job 0
                             | settle 3 202     | job 0
                             | settle 1 credits 5 | settled 0
                             | settle 1 credits 5 | AlreadySettled
                             | settle 3 credits 90 | settled 0
                             | release 1        | refunded 0
                             | release 2        | released 0
                             | call 5 job       | call 4 holds 5
                             | settle 4 202     | job 0
                             | call 5 job       | call 5 holds 5
                             | settle 5 202     | job 0
         # Enforced from here on; what was admitted while observing is not charged.
         +1m                 | policy standard  | ok
                             | settle 4         | settled 0
                             | call 5 job       | call 6 holds 5
                             | settle 6 202     | job 0
         +1d                 | tick             | ok
                             | row 5            | unknown released 0
                             | settle 5         | settled 0
         # And while observing nothing is, whenever it was admitted.
                             | policy observe   | ok
                             | settle 6         | settled 0
                             | balance credits  | 50 available, 0 held, 0 spent
                             | entries          | 2026-11-02T10:00:00 granted credits +50 = 50",
    );
}

#[test]
fn the_same_idempotency_key_gets_the_same_answer() {
    statement(
        "2026-11-02 | open prepaid            | 201
                    | key                     | 201
                    | grant credits 30 extra  | 201
                    | call 10 job             | call 1 holds 10
                    | settle 1 202            | job 0
                    | fail 1                  | ok
                    | settle 1 credits 5 id 7/1 | unavailable: disk full
                    | settle 1 credits 5 id 7/1 | settled 5
                    | settle 1 credits 5 id 7/1 | settled 5
                    | settle 1 credits 6 id 7/2 | IdempotencyMismatch
                    | release 1 id 8          | refunded 0
                    | evict                   | ok
                    | release 1 id 8          | refunded 0
         # As it was then, whatever came after.
                    | settle 1 credits 5 id 7/1 | settled 5
                    | row 1                   | refunded 0
         +1d        | settle 1 credits 5 id 7/1 | AlreadyReleased",
    );
}

#[test]
fn what_was_refused_stays_refused_under_its_idempotency_key() {
    statement(
        "2026-11-02 | open tight              | 201
                    | key                     | 201
                    | call 10 job             | call 1 holds 10
                    | settle 1 202            | job 0
                    | settle 1 credits 11 id 1 | AboveHold
                    | settle 1 credits 11 id 1 | AboveHold
                    | settle 1 credits 5 id 1/2 | IdempotencyMismatch
                    | settle 1 credits 5 id 2 | settled 5
                    | settle 1 credits 5 id 3 | AlreadySettled
                    | release 1 id 4          | refunded 0
                    | evict                   | ok
         # As it was then, whatever came after.
                    | settle 1 credits 5 id 3 | AlreadySettled
                    | settle 1 credits 11 id 1 | AboveHold
                    | settle 1 credits 5 id 5 | AlreadyReleased
                    | fail 1                  | ok
                    | release 1 id 6          | unavailable: disk full
                    | release 1 id 6          | AlreadyReleased
                    | adjust credits -50 id 8 | BadRequest
                    | grant credits 30 extra  | 201
                    | adjust credits -50 id 8 | BadRequest
         # What was wrong with the request alone is looked at anew: the operator may have mended it.
                    | adjust nothing +1 id 9  | BadRequest
                    | adjust credits +1 id 9/1 | 201
         +1d        | settle 1 credits 11 id 1 | AlreadyReleased",
    );
}

#[test]
fn an_adjustment_is_an_entry_and_a_balance_never_goes_below_zero() {
    statement(
        "2026-11-02 | open saver              | 201
                    | key                     | 201
                    | grant credits 10 extra  | 201
                    | grant credits 10 promo  | 201
                    | entries                 | 2026-11-02 renewed credits +100 = 100; 2026-11-02 granted credits +10 = 110; 2026-11-02 granted credits +10 = 120
                    | call 5                  | call 1 holds 5
         # Taken in the order of spending, and never from what calls hold.
                    | adjust credits -20      | 201
                    | lots credits            | subscription 95, 95 available; extra 0; promo 5, 5 held
                    | entries                 | 2026-11-02 adjusted credits -5 = 115; 2026-11-02 adjusted credits -10 = 105; 2026-11-02 adjusted credits -5 = 100
                    | adjust credits -96      | BadRequest
                    | balance credits         | 95 available, 5 held, 0 spent, renews 2026-12-01
                    | adjust credits +7 id 3  | 201
                    | adjust credits +7 id 3  | 201
                    | adjust credits +8 id 3/1 | IdempotencyMismatch
                    | lots credits            | subscription 95, 95 available; extra 0; promo 5, 5 held; promo 7, 7 available
                    | entries                 | 2026-11-02 adjusted credits +7 = 107
                    | adjust nothing +1       | BadRequest
                    | adjust lyrics -1        | BadRequest
                    | adjust credits +9007199254740991 | BadRequest
                    | adjust credits -102     | 201
                    | balance credits         | 0 available, 5 held, 0 spent, renews 2026-12-01
                    | release 1               | released 0
                    | balance credits         | 5 available, 0 held, 0 spent, renews 2026-12-01
         # Where credits were made, for good.
         +400d      | adjust credits +7 id 3  | 201
                    | adjust credits -1 id 4  | 201
                    | adjust credits -1 id 4  | 201
                    | balance credits         | 134 available, 0 held, 0 spent, renews 2028-01-01",
    );
}

#[test]
fn an_adjustment_takes_extra_credits_that_cannot_be_spent_now_as_well() {
    statement(
        "2026-11-02 | policy extra_needs_subscription | ok
                    | open prepaid            | 201
                    | grant credits 10 extra  | 201
                    | balance credits         | 0 available, 0 held, 0 spent
                    | adjust credits -11      | BadRequest
                    | adjust credits -10      | 201
                    | lots credits            | extra 0",
    );
}
