//! What storage costs: rows written and rows read.

use tollgate::{
    account::Refusal, policy::Source, problem::ViolatedPolicy, protocol::Reply, time::Span,
};

use crate::{
    branch::{Branch, cost, fingerprint},
    sold,
    statement::moment,
};

#[test]
fn a_call_writes_two_rows_and_a_snapshot_or_totals_come_with_at_most_one_in_64() {
    let mut branch = Branch::with_account("standard", "prepaid", moment("2026-11-02"));
    branch.grant("credits", 5_000, Source::Extra, None);
    branch.call(cost(1));
    branch.settle(1, 200);
    let written = |branch: &Branch| {
        let store = branch.store();
        (
            store.rows_written,
            store.snapshots_written,
            store.totals_written,
        )
    };
    let (rows, snapshots, totals) = written(&branch);
    for call in 2..=1_001 {
        branch.set_clock(branch.clock.plus(Span::from_millis(40)));
        // Each call in a line of totals by itself.
        branch.endpoint = format!("/search/{call}");
        assert!(matches!(branch.call(cost(3)), Reply::Admitted(_)));
        let status = if call % 3 == 0 { 500 } else { 200 };
        branch.set_clock(branch.clock.plus(Span::from_millis(30)));
        branch.settle(call, status);
        branch.settle(call, status);
    }
    let (rows_now, snapshots_now, totals_now) = written(&branch);
    let more = (snapshots_now - snapshots) + (totals_now - totals);
    assert_eq!(rows_now - rows, 2_000 + more);
    // Half of 1 in 64: the other half is for alarms.
    assert!(more <= 1_000 / 128 + 1, "{more} snapshots and totals");
    assert!(totals_now > totals, "no totals");
    branch.check().expect("sound books");
}

#[test]
fn a_refused_request_writes_no_row() {
    let mut branch = Branch::with_account("standard", "free", moment("2026-11-02T10:00:00"));
    for call in 1..=5 {
        branch.call(cost(1));
        branch.settle(call, 200);
    }
    let rows = branch.store().rows_written;
    for step in 0..100 {
        branch.set_clock(branch.clock.plus(Span::from_millis(100)));
        assert!(matches!(branch.call(cost(step)), Reply::Refused(_)));
        assert!(matches!(branch.call(cost(51)), Reply::Refused(_)));
    }
    assert_eq!(branch.store().rows_written, rows);
}

#[test]
fn a_job_writes_three_rows() {
    let mut branch = Branch::with_account("standard", "free", moment("2026-11-02T10:00:00"));
    branch.call(cost(0));
    branch.settle(1, 200);
    let rows = branch.store().rows_written;
    let mut terms = cost(5);
    terms.job = Some(tollgate::price::Job {
        settle_within: Span::from_days(1),
        on_unknown: tollgate::price::OnUnknown::Release,
    });
    branch.call(terms);
    branch.settle(2, 202);
    assert_eq!(branch.store().rows_written - rows, 2);
    // Its end is the third, here by the alarm, which a snapshot comes with.
    branch.set_clock(branch.clock.plus(Span::from_days(1)));
    branch.tick().expect("a store that works");
    assert_eq!(branch.store().rows_written - rows, 4);
}

#[test]
fn an_idempotent_call_writes_three_rows_and_a_repeat_two() {
    let mut branch = Branch::with_account("standard", "free", moment("2026-11-02T10:00:00"));
    let ask = |branch: &mut Branch, key, content, settled: Option<(u64, u16)>| {
        let rows = branch.store().rows_written;
        let read = branch.store().rows_read.get();
        let operation = branch.operation();
        let reply = branch.ask(operation, 1, cost(40), Some(fingerprint(key, content)));
        assert!(branch.store().rows_read.get() - read <= 2);
        if let Some((call, status)) = settled {
            assert!(matches!(reply, Reply::Admitted(_)), "{reply:?}");
            branch.settle(call, status);
        } else {
            assert!(matches!(reply, Reply::Refused(_)), "{reply:?}");
        }
        branch.store().rows_written - rows
    };
    // The first of a day comes with a snapshot, as its table is new.
    assert_eq!(ask(&mut branch, 0, 0, Some((1, 500))), 4);
    assert_eq!(ask(&mut branch, 1, 0, Some((2, 500))), 3);
    assert_eq!(ask(&mut branch, 1, 0, Some((3, 200))), 3);
    assert_eq!(ask(&mut branch, 1, 0, Some((4, 200))), 2);
    assert_eq!(ask(&mut branch, 1, 1, None), 0);
    assert_eq!(ask(&mut branch, 2, 0, None), 0);
    assert_eq!(ask(&mut branch, 1, 0, Some((5, 500))), 2);
    assert_eq!(ask(&mut branch, 1, 0, None), 0);
    branch.check().expect("sound books");
}

#[test]
fn ten_thousand_holds_stand_and_are_all_that_a_wake_up_reads() {
    let mut branch = Branch::with_account("standard", "prepaid", moment("2026-11-02"));
    branch.grant("credits", 20_000, Source::Extra, None);
    for _ in 0..10_000 {
        assert!(matches!(branch.call(cost(1)), Reply::Admitted(_)));
    }
    let Reply::Refused(Refusal::RateLimited { violated, .. }) = branch.call(cost(1)) else {
        panic!("one hold too many");
    };
    assert_eq!(violated[0].policy, ViolatedPolicy::InFlight);
    // Whoever only observes has this bound as well; the gateway forwards what is refused.
    branch.policy = sold::edited("observe");
    branch.evict();
    assert!(matches!(branch.call(cost(1)), Reply::Refused(_)));
    branch.policy = sold::edited("standard");
    branch.evict();
    branch.settle(10_000, 200);
    assert!(matches!(branch.call(cost(1)), Reply::Admitted(_)));
    // Looks at how many rows are read, too.
    branch.check().expect("an account that wakes");
}

#[test]
fn a_history_of_any_length_wakes_from_its_tail() {
    let mut branch = Branch::with_account("standard", "prepaid", moment("2026-11-02"));
    for call in 1..=5_000 {
        branch.set_clock(branch.clock.plus(Span::from_seconds(1_800)));
        branch.call(cost(0));
        if call % 500 == 0 {
            branch.check().expect("an account that wakes");
        }
    }
}
