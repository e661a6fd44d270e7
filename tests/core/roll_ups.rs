//! Months of the call log that are no longer kept call by call.

use serde_json::Value;
use tollgate::{
    account::{ROLL_UPS_SPREAD, Rolled, Told, Word},
    id::CallNumber,
    ledger_page::LedgerQuery,
    object::Store,
    price::{Job, OnUnknown, Terms},
    problem::Code,
    protocol::{AuditStep, Command, Page, Reply, UsageQuery},
    time::Span,
};

use crate::{
    branch::{Branch, cost},
    statement::moment,
};

/// A day in the life of an account that keeps its calls for a week.
fn november() -> Branch {
    let mut branch = Branch::with_account("usage_7", "prepaid", moment("2026-11-30T12:00:00"));
    branch.grant("credits", 100, tollgate::policy::Source::Extra, None);
    for call in 1..=3 {
        branch.call(cost(5));
        branch.settle(call, if call == 2 { 500 } else { 200 });
    }
    branch
}

fn parts(branch: &Branch) -> Vec<Rolled> {
    branch.store().rolled(0, 100).expect("a store that works")
}

fn listed(branch: &mut Branch) -> u64 {
    let query = UsageQuery {
        limit: 50,
        ..UsageQuery::default()
    };
    let Reply::Document(document) = branch.read(1, Page::Usage(query)) else {
        panic!("no usage");
    };
    let usage: Value = serde_json::from_str(&document.json).expect("JSON");
    usage["total_count"].as_u64().expect("a count")
}

fn release(branch: &mut Branch, call: u64) -> Option<Code> {
    match branch.end_call(call, Word::Release { reason: None }, None) {
        Reply::Problem(problem) => Some(problem.code),
        _ => None,
    }
}

fn job(amount: u64) -> Terms {
    Terms {
        job: Some(Job {
            settle_within: Span::from_days(20),
            on_unknown: OnUnknown::Release,
        }),
        ..cost(amount)
    }
}

#[test]
fn a_month_is_rolled_up_when_usage_days_have_passed_since_its_end() {
    let mut branch = november();
    let due = moment("2026-12-08");
    let alarm = branch.object.next_alarm().expect("an alarm");
    assert!(
        (due..due.plus(ROLL_UPS_SPREAD)).contains(&alarm),
        "{alarm:?}"
    );
    branch.set_clock(due.minus(Span::from_millis(1)));
    branch.rest().expect("a store that works");
    assert_eq!((listed(&mut branch), parts(&branch).len()), (3, 0));
    assert_eq!(release(&mut branch, 1), None, "a refund of what is kept");

    let rows = branch.store().rows_written;
    branch.set_clock(due);
    assert_eq!(branch.object.next_wakeup(), None, "nobody has looked yet");
    branch.rest().expect("a store that works");
    assert_eq!(
        branch.store().rows_written - rows,
        2,
        "the row and a snapshot"
    );
    let [rolled] = &parts(&branch)[..] else {
        panic!("{:?}", parts(&branch));
    };
    assert_eq!((rolled.calls, rolled.cancelled), (3, 0));
    assert_eq!((rolled.first.get(), rolled.last.get()), (1, 3));
    // As it was first charged; the refund is an entry.
    let charged: Vec<_> = rolled.charged["credits"].values().collect();
    assert_eq!(charged, [&10]);
    let [day] = rolled.days.lines() else {
        panic!("{:?}", rolled.days);
    };
    assert_eq!(day.at, moment("2026-11-30"));
    assert_eq!(
        (day.tally.calls, day.tally.failed, day.tally.credits),
        (3, 1, 5)
    );

    assert_eq!(listed(&mut branch), 0);
    assert_eq!(branch.object.next_alarm(), None);
    assert_eq!(branch.balance("credits")["spent"], 5);
    branch.check().expect("sound books");
}

#[test]
fn a_call_whose_end_came_late_is_kept_as_long_as_it_can_be_refunded() {
    let mut branch = Branch::with_account("usage_90", "prepaid", moment("2026-11-30T12:00:00"));
    branch.grant("credits", 100, tollgate::policy::Source::Extra, None);
    let mut job = job(5);
    job.job = job.job.map(|job| Job {
        settle_within: Span::from_days(59),
        ..job
    });
    branch.call(job);
    branch.settle(1, 202);
    branch.set_clock(moment("2027-01-28T12:00:00"));
    branch.rest().expect("a store that works");
    assert!(branch.row(1).state().is_unknown());
    // The last moment for its real end, and from then on the last one for a refund.
    branch.set_clock(moment("2027-02-27T12:00:00"));
    branch.end_call(1, Word::Settle(Told::Hold), None);
    branch.evict();
    branch.set_clock(moment("2027-03-01"));
    branch.check().expect("sound books");
    assert_eq!((listed(&mut branch), parts(&branch).len()), (1, 0));
    branch.close();
    let refundable_until = moment("2027-03-29T12:00:00");
    let alarm = branch.object.next_alarm().expect("an alarm");
    let last = refundable_until.plus(ROLL_UPS_SPREAD);
    assert!((refundable_until..last).contains(&alarm), "{alarm:?}");
    branch.set_clock(refundable_until.minus(Span::from_millis(1)));
    branch.rest().expect("a store that works");
    assert_eq!(release(&mut branch, 1), None, "a refund of what is kept");
    assert_eq!(branch.balance("credits")["available"], 100);
    branch.set_clock(refundable_until);
    branch.check().expect("sound books");
    assert_eq!(parts(&branch).len(), 1);
}

#[test]
fn a_rolled_call_is_no_longer_kept_and_cannot_be_changed() {
    let mut branch = november();
    branch.set_clock(moment("2026-12-08"));
    branch.rest().expect("a store that works");
    let number = CallNumber::new(1).expect("a number");
    let shown = branch.manage(Command::ShowCall(number), None);
    assert!(matches!(shown, Reply::Problem(problem) if problem.code == Code::NotFound));
    assert_eq!(release(&mut branch, 1), Some(Code::NotFound));
    assert_eq!(branch.settle(1, 200), Reply::Settled(None));
    // Numbers go on, in a month of their own.
    branch.call(cost(1));
    branch.evict();
    assert_eq!(release(&mut branch, 4), None);
    assert_eq!(listed(&mut branch), 1);
    branch.check().expect("sound books");
}

#[test]
fn a_month_waits_for_its_last_job() {
    let mut branch = november();
    branch.call(job(7));
    branch.settle(4, 202);
    branch.set_clock(moment("2026-12-09"));
    branch.call(cost(1));
    branch.settle(5, 200);
    branch.rest().expect("a store that works");
    assert_eq!(parts(&branch).len(), 0);
    // Until then the alarm waits for the job as well.
    assert_eq!(
        branch.object.next_alarm(),
        Some(moment("2026-12-20T12:00:00"))
    );
    branch.end_call(4, Word::Settle(Told::Hold), None);
    branch.check().expect("sound books");
    let charged: Vec<_> = parts(&branch)[0].charged["credits"]
        .values()
        .copied()
        .collect();
    assert_eq!(charged, [17]);
}

#[test]
fn months_are_rolled_up_in_order_and_each_in_its_own_slice() {
    let mut branch = november();
    for month in ["2027-01-31", "2027-03-31"] {
        branch.set_clock(moment(month));
        branch.call(cost(1));
        let number = branch.object.account().expect("awake").calls_admitted();
        branch.settle(number, 200);
    }
    branch.set_clock(moment("2027-03-31T00:00:01"));
    branch.tick().expect("a store that works");
    assert_eq!(parts(&branch).len(), 1);
    assert!(
        branch.object.next_wakeup() <= Some(branch.clock),
        "there is more to do"
    );
    branch.check().expect("sound books");
    assert_eq!(parts(&branch).len(), 2);
    assert_eq!(listed(&mut branch), 1);
}

#[test]
fn a_long_month_takes_several_slices_and_admits_between_them() {
    let mut branch = Branch::with_account("usage_7", "prepaid", moment("2026-11-28"));
    branch.grant("credits", 20_000, tollgate::policy::Source::Extra, None);
    for call in 1..=10_100 {
        branch.set_clock(branch.clock.plus(Span::from_seconds(10)));
        branch.call(cost(1));
        branch.settle(call, 200);
    }
    branch.set_clock(moment("2026-12-08"));
    for _ in 0..2 {
        branch.tick().expect("a store that works");
        assert_eq!(parts(&branch).len(), 0);
        assert!(branch.object.next_wakeup() <= Some(branch.clock));
        assert!(matches!(branch.call(cost(1)), Reply::Admitted(_)));
        // A word would change what was gathered.
        assert_eq!(release(&mut branch, 10_100), Some(Code::NotFound));
    }
    // What was gathered is lost, and nothing else.
    branch.evict();
    assert_eq!(release(&mut branch, 10_100), None);
    for _ in 0..3 {
        assert_eq!(parts(&branch).len(), 0);
        branch.tick().expect("a store that works");
    }
    assert_eq!(parts(&branch)[0].calls, 10_100);
    assert_eq!(release(&mut branch, 10_101), None);
    branch.check().expect("sound books");
}

#[test]
fn a_month_of_too_many_lines_for_a_row_is_stored_in_parts() {
    let mut branch = Branch::with_account("usage_7", "prepaid", moment("2026-11-02"));
    for call in 1..=2_500 {
        branch.endpoint = format!("/{call}/{}", "x".repeat(1_000));
        branch.call(cost(0));
        branch.settle(call, 200);
    }
    branch.set_clock(moment("2026-12-08"));
    branch.tick().expect("a store that works");
    let stored = parts(&branch);
    assert_eq!(stored.len(), 1);
    assert!(minicbor::to_vec(&stored[0]).expect("encodes").len() < 2_000_000);
    // The first part stays as it is, so the month is closed also after an eviction.
    branch.evict();
    assert_eq!(release(&mut branch, 1), Some(Code::NotFound));
    assert_eq!(release(&mut branch, 2_500), Some(Code::NotFound));
    assert_eq!(listed(&mut branch), 2_500);
    branch.check().expect("sound books");
    assert_eq!(parts(&branch).len(), 3);
    assert_eq!(listed(&mut branch), 0);
}

#[test]
fn the_ledger_has_a_line_for_each_pool_of_a_month_that_was_rolled_up_and_still_adds_up() {
    let mut branch = november();
    branch.grant("lyrics", 50, tollgate::policy::Source::Extra, None);
    branch.call(Terms::fixed("lyrics".into(), crate::sold::credits(20)));
    branch.settle(4, 200);
    branch.set_clock(moment("2026-12-02"));
    release(&mut branch, 1);
    branch.call(cost(8));
    branch.settle(5, 200);
    branch.set_clock(moment("2026-12-08"));
    branch.rest().expect("a store that works");
    for limit in [1, 2, 9] {
        let lines: Vec<_> = branch
            .ledger(limit)
            .into_iter()
            .map(|line| {
                let (at, kind) = (line.timestamp.to_rfc3339(), line.kind.as_str());
                let reference = line.reference.unwrap_or_default();
                format!(
                    "{at} {kind} {} {} = {} {reference}",
                    line.pool, line.credits, line.balance
                )
            })
            .collect();
        let told: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
        assert_eq!(
            told,
            [
                "2026-12-02T00:00:00Z charged credits -8 = 87",
                "2026-12-02T00:00:00Z refunded credits 5 = 95",
                "2026-11-30T23:59:59Z charged_in_month credits -10 = 90 2026-11",
                "2026-11-30T23:59:59Z charged_in_month lyrics -20 = 30 2026-11",
                "2026-11-30T12:00:00Z granted lyrics 50 = 50",
                "2026-11-30T12:00:00Z granted credits 100 = 100",
            ],
            "by {limit}"
        );
    }
}

#[test]
fn a_ledger_that_was_begun_before_a_month_was_rolled_up_does_not_tell_its_calls_twice() {
    let mut branch = november();
    let page = branch.ledger_page(1, None);
    branch.set_clock(moment("2026-12-08"));
    branch.rest().expect("a store that works");
    let query = LedgerQuery {
        limit: 1,
        after: page.next,
    };
    let Reply::Problem(problem) = branch.manage(Command::Ledger(query), None) else {
        panic!("a page that does not add up");
    };
    assert_eq!(
        (problem.code, problem.field.as_deref()),
        (Code::BadRequest, Some("next"))
    );
}

#[test]
fn an_audit_that_a_roll_up_comes_between_begins_anew() {
    let mut branch = Branch::with_account("usage_7", "prepaid", moment("2026-11-28"));
    branch.grant("credits", 20_000, tollgate::policy::Source::Extra, None);
    for call in 1..=6_000 {
        branch.call(cost(1));
        branch.settle(call, 200);
    }
    branch.set_clock(moment("2026-12-08"));
    let step = branch.manage(Command::Audit, None);
    assert_eq!(step, Reply::Audit(AuditStep::Unfinished));
    branch.rest().expect("a store that works");
    assert_eq!(parts(&branch).len(), 1);
    branch.audit_itself().expect("sound books");
}
