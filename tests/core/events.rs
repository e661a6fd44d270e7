//! What an account tells of by itself: when, to whom, in which order, and what becomes of it.

use serde_json::{Value, json};
use tollgate::{account::Status, policy::Source, time::Span};

use crate::{
    branch::{Branch, cost},
    statement::moment,
};

/// The events that are stored, oldest first: type and data.
fn emitted(branch: &Branch) -> Vec<(String, Value)> {
    let mut events: Vec<_> = branch.store().all_events().collect();
    events.sort_by_key(|event| event.number);
    let told = |data: &str| serde_json::from_str(data).expect("data is JSON");
    events
        .iter()
        .map(|event| (event.kind.as_str().to_owned(), told(&event.data)))
        .collect()
}

fn spend(branch: &mut Branch, amount: u64) {
    let call = branch
        .object
        .account()
        .expect("an account")
        .calls_admitted()
        + 1;
    branch.call(cost(amount));
    branch.settle(call, 200);
}

#[test]
fn a_balance_is_told_once_for_each_fall_below_a_threshold() {
    let mut branch = Branch::with_account("told", "prepaid", moment("2026-11-02"));
    branch.grant("credits", 150, Source::Extra, None);
    assert_eq!(emitted(&branch), []);
    // What is held has not fallen: a release would take it back.
    branch.call(cost(140));
    branch.settle(1, 500);
    for amount in [50, 1, 30, 30, 28] {
        spend(&mut branch, amount);
    }
    let low = |threshold, balance| {
        let data = json!({
            "account": "acc", "external_id": null, "pool": "credits",
            "threshold": threshold, "balance": balance,
        });
        ("balance.low".to_owned(), data)
    };
    assert_eq!(emitted(&branch), [low(100, 99), low(20, 11)]);
    // Credits that come re-arm it; what falls below several at once is told once.
    branch.grant("credits", 200, Source::Extra, None);
    spend(&mut branch, 200);
    spend(&mut branch, 11);
    let exhausted = json!({ "account": "acc", "external_id": null, "pool": "credits" });
    assert_eq!(
        emitted(&branch)[2..],
        [low(20, 11), ("balance.exhausted".into(), exhausted)]
    );
    branch.check().expect("sound books");
}

#[test]
fn a_crossing_costs_its_own_rows_and_calls_before_and_after_it_two() {
    let mut branch = Branch::with_account("told", "prepaid", moment("2026-11-02"));
    branch.grant("credits", 110, Source::Extra, None);
    spend(&mut branch, 1);
    let mut rows = branch.store().rows_written;
    for expected in [2, 2, 4, 2] {
        spend(&mut branch, 4);
        assert_eq!(branch.store().rows_written - rows, expected);
        rows = branch.store().rows_written;
    }
}

#[test]
fn without_a_policy_for_it_nothing_is_written() {
    let mut branch = Branch::with_account("standard", "starter", moment("2026-11-02"));
    spend(&mut branch, 300);
    branch.change_status(Status::Suspended { reason: None });
    branch.set_clock(branch.clock.plus(Span::from_days(60)));
    branch.tick().expect("a store that works");
    assert_eq!(emitted(&branch), []);
}

#[test]
fn renewals_and_suspensions_are_told() {
    let mut branch = Branch::with_account("told", "starter", moment("2026-11-02T10:00:00"));
    // Asleep for three months: of three renewals the last is news.
    branch.set_clock(moment("2027-02-10"));
    branch.tick().expect("a store that works");
    branch.change_status(Status::Suspended {
        reason: Some("unpaid".into()),
    });
    branch.change_status(Status::Suspended { reason: None });
    let told: Vec<String> = emitted(&branch)
        .iter()
        .map(|(kind, data)| {
            format!(
                "{kind} {} {} {}",
                data["pool"], data["credits"], data["reason"]
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            r#"credits.renewed "credits" 300 null"#,
            r#"credits.renewed "lyrics" 100 null"#,
            r#"account.suspended null null "unpaid""#,
        ]
    );
    let at = branch.store().all_events().map(|event| event.at);
    let renewed_at = moment("2027-02-02");
    assert_eq!(at.filter(|at| *at == renewed_at).count(), 2);
}

#[test]
fn an_event_is_committed_with_what_brought_it_about_or_not_at_all() {
    let mut branch = Branch::with_account("told", "prepaid", moment("2026-11-02"));
    branch.grant("credits", 100, Source::Extra, None);
    branch.call(cost(1));
    branch.object.store_mut().commits_to_fail = 1;
    branch.settle(1, 200);
    assert_eq!(emitted(&branch), []);
    branch.settle(1, 200);
    assert_eq!(emitted(&branch).len(), 1);
}
