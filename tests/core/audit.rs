//! The account's own audit: it agrees with sound books whatever happens meanwhile, and finds what
//! is wrong with others.

use serde_json::{Value, json};
use tollgate::{
    account::Word,
    call::{CallRow, CallState},
    ledger::LotNumber,
    policy::Source,
    protocol::{AuditStep, Command, Reply},
    time::Span,
};

use crate::{
    branch::{Branch, cost},
    memory_store::MemoryStore,
    sold,
    statement::moment,
};

/// An account whose history takes several slices to read, with calls of every kind of end.
fn with_a_long_history() -> Branch {
    let mut branch = Branch::with_account("standard", "prepaid", moment("2026-10-30T12:00:00"));
    branch.grant("credits", 1_000_000, Source::Extra, None);
    for call in 1..=11_000 {
        branch.set_clock(branch.clock.plus(Span::from_seconds(20)));
        branch.call(cost(call % 7));
        match call % 50 {
            0 => {}
            1 => drop(branch.settle(call, 500)),
            _ => drop(branch.settle(call, 200)),
        }
    }
    branch
}

fn audited(branch: &mut Branch) -> AuditStep {
    match branch.manage(Command::Audit, None) {
        Reply::Audit(step) => step,
        other => panic!("no audit: {other:?}"),
    }
}

#[test]
fn calls_go_on_while_an_audit_reads_slice_by_slice() {
    let mut branch = with_a_long_history();
    let mut slices = 1;
    let release = || Word::Release { reason: None };
    loop {
        branch.store().rows_read.set(0);
        let step = audited(&mut branch);
        let read = branch.store().rows_read.get();
        assert!(read <= 5_000, "a slice read {read} rows");
        let AuditStep::Finished { ok, json } = step else {
            // What is booked already changes: refunds, late ends, a new call, a renewal, a lot.
            let n = slices * 50;
            branch.end_call(n + 2, release(), None);
            branch.end_call(10_800 + n, release(), None);
            branch.call(cost(5));
            branch.settle(11_000 + slices, 200);
            branch.grant("lyrics", 9, Source::Promo, None);
            branch.set_clock(branch.clock.plus(Span::from_seconds(59)));
            slices += 1;
            continue;
        };
        assert!(ok, "{json}");
        let told: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(told["calls"], 11_000 + slices - 1);
        assert_eq!(told["differences"], json!([]));
        let balance = branch.balance("credits");
        assert_eq!(told["pools"]["credits"]["spent"], balance["spent"]);
        break;
    }
    assert!(slices >= 3, "{slices} slices");
}

#[test]
fn an_audit_that_is_interrupted_begins_anew() {
    let mut branch = with_a_long_history();
    assert_eq!(audited(&mut branch), AuditStep::Unfinished);
    branch.evict();
    for _ in 0..2 {
        assert_eq!(audited(&mut branch), AuditStep::Unfinished);
    }
    branch.audit_itself().expect("sound books");
    // One that nobody asked about for a minute is given up.
    assert_eq!(audited(&mut branch), AuditStep::Unfinished);
    branch.set_clock(branch.clock.plus(Span::from_seconds(61)));
    for _ in 0..2 {
        assert_eq!(audited(&mut branch), AuditStep::Unfinished);
    }
    branch.audit_itself().expect("sound books");
}

/// A refund reads its call's row. While an audit runs that has booked the call, also before and
/// after the change; an audit that was left alone costs nothing.
#[test]
fn books_that_cannot_be_are_not_served_on_a_guess() {
    let mut branch = Branch::with_account("standard", "prepaid", moment("2026-11-02"));
    branch.grant("credits", 20, Source::Extra, None);
    for _ in 1..=3 {
        branch.call(cost(5));
    }
    branch.settle(1, 200);
    // The snapshot that comes with this has the holds.
    branch.grant("credits", 1, Source::Extra, None);
    let of_another_lot = |row: &mut CallRow| {
        for part in &mut row.call.hold.parts {
            part.lot = LotNumber::new(99);
        }
    };
    for call in [1, 2] {
        branch
            .object
            .store_mut()
            .tamper_with_row(call, of_another_lot);
    }
    branch.evict();
    let rows = branch.store().rows_written;
    let is_broken =
        |reply: &Reply| matches!(reply, Reply::Unavailable { detail } if detail.contains("lot 99"));
    assert!(is_broken(&branch.settle(2, 200)));
    let release = Word::Release { reason: None };
    assert!(is_broken(&branch.end_call(1, release, None)));
    assert_eq!(branch.store().rows_written, rows, "and nothing is written");
    // What has to do with sound lots alone goes on.
    assert!(matches!(branch.settle(3, 200), Reply::Settled(Some(_))));
    assert!(matches!(branch.call(cost(5)), Reply::Admitted(_)));
    // The alarm cannot end it either, and says so.
    branch.set_clock(moment("2026-11-02T00:10:00"));
    let told = branch.tick().expect_err("books that are broken");
    assert!(told.contains("lot 99"), "{told}");
}

#[test]
fn calls_pay_for_no_audit_that_nobody_asks_about() {
    let mut branch = with_a_long_history();
    let rows_read = |branch: &mut Branch, call| {
        branch.store().rows_read.set(0);
        branch.end_call(call, Word::Release { reason: None }, None);
        branch.store().rows_read.get()
    };
    assert_eq!(rows_read(&mut branch, 2), 1);
    assert_eq!(audited(&mut branch), AuditStep::Unfinished);
    assert_eq!(rows_read(&mut branch, 3), 3);
    branch.set_clock(branch.clock.plus(Span::from_seconds(61)));
    assert_eq!(rows_read(&mut branch, 4), 1);
}

#[test]
fn an_audit_finds_what_is_wrong_and_says_where() {
    type Tampering = fn(&mut MemoryStore);
    let found: [(&str, Tampering, Value); 6] = [
        (
            "a charge that was changed",
            |store| {
                store.tamper_with_row(1, |row| {
                    row.outcome.as_mut().unwrap().charged = sold::credits(4);
                });
            },
            json!([
                {"pool": "credits", "lot": 1, "figure": "spent", "books": 8, "history": 7},
            ]),
        ),
        (
            "a call that was never released",
            |store| store.tamper_with_row(2, |row| row.outcome = None),
            json!([
                {"pool": "credits", "lot": 1, "figure": "held", "books": 0, "history": 3},
                {"pool": "credits", "lot": 1, "figure": "spent", "books": 8, "history": 5},
                {"figure": "open calls", "books": 0, "history": 1},
            ]),
        ),
        (
            "a refund without its entry",
            |store| {
                store.tamper_with_row(1, |row| {
                    let outcome = row.outcome.as_mut().unwrap();
                    outcome.first_charged = Some(outcome.charged);
                    outcome.charged = sold::credits(0);
                    outcome.state = CallState::Refunded;
                });
            },
            json!([
                {"pool": "credits", "lot": 1, "figure": "spent", "books": 8, "history": 3},
                {"pool": "credits", "lot": 1, "figure": "spent by entries", "books": 3, "history": 8},
            ]),
        ),
        (
            "a grant of another amount",
            |store| store.tamper_with_entries(|entries| entries[0].credits = 60),
            json!([
                {"pool": "credits", "lot": 1, "figure": "amount", "books": 50, "history": 60},
            ]),
        ),
        (
            "an entry that is gone",
            |store| {
                store.tamper_with_entries(|entries| {
                    entries.remove(0);
                });
            },
            json!([
                {"figure": "entry number", "books": 2, "history": 1},
                {"pool": "credits", "lot": 1, "figure": "amount", "books": 50, "history": 0},
                {"pool": "credits", "lot": 1, "figure": "lots of this number", "books": 1, "history": 0},
            ]),
        ),
        (
            "an entry too many",
            |store| {
                store.tamper_with_entries(|entries| {
                    let mut entry = entries[1].clone();
                    entry.number = 3;
                    entries.push(entry);
                });
            },
            json!([
                {"pool": "lyrics", "lot": 2, "figure": "amount", "books": 9, "history": 18},
                {"figure": "entries", "books": 2, "history": 3},
            ]),
        ),
    ];
    for (what, tamper, differences) in found {
        let mut branch = Branch::with_account("standard", "free", moment("2026-11-02"));
        branch.grant("lyrics", 9, Source::Promo, None);
        branch.call(cost(5));
        branch.settle(1, 200);
        branch.call(cost(3));
        branch.settle(2, 200);
        branch.audit_itself().expect("sound books");
        tamper(branch.object.store_mut());
        let AuditStep::Finished { ok, json } = audited(&mut branch) else {
            panic!("a short history is read at once");
        };
        let told: Value = serde_json::from_str(&json).unwrap();
        assert!(!ok);
        assert_eq!(told["differences"], differences, "{what}");
    }
}
