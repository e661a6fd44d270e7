//! A snapshot, and what a wake-up reads, stay small however much an account has seen; what is large
//! all the same is stored in pieces, for a Durable Object takes no value of more than 2 MB.

use tollgate::{
    account::{Edit, NewKey, PatchKey, Refusal, Word},
    id::KeyNumber,
    object::{Store, pieces::PIECE_MAX},
    policy::Source,
    price::Terms,
    protocol::{Command, KeysQuery, Reply},
    time::{Span, Timestamp},
};

use crate::{
    branch::{Branch, cost},
    sold,
    statement::moment,
};

const NOW: Timestamp = Timestamp::from_millis(1_900_000_000_000);

fn free() -> Terms {
    Terms::fixed("credits".into(), sold::credits(0))
}

fn call(branch: &mut Branch, key: u32, n: &mut u64) {
    let operation = branch.operation();
    let reply = branch.admit_as(operation, key, free());
    assert!(matches!(reply, Reply::Admitted(_)), "{reply:?}");
    *n += 1;
    branch.settle(*n, 200);
}

fn snapshot_len(branch: &Branch) -> usize {
    let loaded = branch.store().load().unwrap().unwrap();
    loaded.snapshot.len()
}

/// The rows that a wake-up reads.
fn rows_to_wake(branch: &mut Branch) -> u64 {
    branch.evict();
    let before = branch.store().rows_read.get();
    branch.tick().unwrap();
    branch.store().rows_read.get() - before
}

fn revoke(branch: &mut Branch, key: u32) {
    let reply = branch.manage(Command::RevokeKey(KeyNumber::new(key)), None);
    assert!(matches!(reply, Reply::Document(_)), "{reply:?}");
}

#[test]
fn a_snapshot_larger_than_a_row_is_stored_in_pieces() {
    let mut branch = Branch::with_account("standard", "prepaid", NOW);
    let mut n = 0;
    let mut call_endpoints = |branch: &mut Branch, count: usize| {
        for _ in 0..count {
            branch.endpoint = format!("/{n}/{}", "x".repeat(9_000));
            call(branch, 1, &mut n);
        }
        snap(branch);
    };
    call_endpoints(&mut branch, 190);
    let len = snapshot_len(&branch);
    assert!(len > PIECE_MAX, "{len}");
    branch.check_waking().unwrap();
    branch.evict();
    // It shrinks again, and nothing of the longer one is left.
    call_endpoints(&mut branch, 20);
    let len = snapshot_len(&branch);
    assert!(len < 20_000, "{len}");
    branch.check_waking().unwrap();
}

#[test]
fn two_thousand_keys_that_are_gone_make_no_wake_up_longer() {
    let mut branch = Branch::with_account("standard", "free", NOW);
    let mut n = 0;
    for key in 2..=2_001 {
        assert!(matches!(branch.create_key(), Reply::Document(_)));
        if key % 100 == 0 {
            call(&mut branch, key, &mut n);
        }
        revoke(&mut branch, key);
    }
    let rows = rows_to_wake(&mut branch);
    assert!(rows < 30, "{rows} rows");
    let len = snapshot_len(&branch);
    assert!(len < 3_000, "{len}");
    // They are all told of, as they were.
    let mut query = KeysQuery {
        limit: 500,
        ..KeysQuery::default()
    };
    let (mut told, mut used) = (0, 0);
    loop {
        let Reply::Document(page) = branch.manage(Command::Keys(query), None) else {
            panic!("no page");
        };
        let page: serde_json::Value = serde_json::from_str(&page.json).unwrap();
        let keys = page["data"].as_array().unwrap();
        told += keys.len();
        used += keys
            .iter()
            .filter(|key| !key["last_used_at"].is_null())
            .count();
        let Some(next) = page["next"].as_str() else {
            break;
        };
        query.after = Some(KeyNumber::new(next.parse().unwrap()));
    }
    assert_eq!((told, used), (2_001, 20));
    branch.check_waking().unwrap();
}

/// A key with a daily limit and a budget that has made three calls of 5 credits and expired.
fn expired() -> Branch {
    let mut branch = Branch::with_account("standard", "prepaid", moment("2026-11-02T10:00:00"));
    branch.grant("credits", 100, Source::Extra, None);
    branch.create_key_as(NewKey {
        expires_at: Some(moment("2026-11-02T11:00:00")),
        budget: Some(sold::credits(30)),
        ..NewKey::default()
    });
    for n in 1..=3 {
        let operation = branch.operation();
        let reply = branch.admit_as(operation, 2, cost(5));
        assert!(matches!(reply, Reply::Admitted(_)), "{reply:?}");
        branch.settle(n, 200);
    }
    branch.set_clock(moment("2026-11-02T11:00:00"));
    snap(&mut branch);
    branch
}

/// Something that brings a snapshot.
fn snap(branch: &mut Branch) {
    branch.grant("lyrics", 1, Source::Extra, None);
}

fn is_at_rest(branch: &Branch, key: u32) -> bool {
    let account = branch.object.account().expect("awake");
    account.is_at_rest(KeyNumber::new(key))
}

#[test]
fn a_key_that_has_expired_is_put_to_rest_and_told_as_before() {
    let mut branch = expired();
    assert!(is_at_rest(&branch, 2));
    let shown = branch.show_key(2);
    assert_eq!(
        (&shown["status"], &shown["budget_used"]),
        (&"expired".into(), &15.into())
    );
    assert!(!shown["last_used_at"].is_null());
    // Whoever tries it is counted, without a row.
    let rows = branch.store().rows_written;
    for _ in 0..3 {
        let operation = branch.operation();
        let reply = branch.admit_as(operation, 2, free());
        assert_eq!(reply, Reply::Refused(Refusal::UnknownKey));
    }
    assert_eq!(branch.store().rows_written, rows);
    assert_eq!(branch.show_key(2)["refused_today"], 3);
    branch.check().unwrap();
}

#[test]
fn a_key_that_stands_again_has_counted_what_it_had() {
    let mut branch = expired();
    let patch = PatchKey {
        expires_at: Some(Edit::Remove),
        ..PatchKey::default()
    };
    branch.patch_key(2, patch);
    assert!(!is_at_rest(&branch, 2));
    branch.evict();
    let shown = branch.show_key(2);
    assert_eq!(
        (&shown["status"], &shown["budget_used"]),
        (&"active".into(), &15.into())
    );
    let operation = branch.operation();
    let reply = branch.admit_as(operation, 2, cost(16));
    assert!(matches!(reply, Reply::Refused(_)), "{reply:?}");
    branch.check().unwrap();
}

#[test]
fn a_clock_that_strays_ends_no_key_for_good() {
    let mut branch = Branch::with_account("standard", "prepaid", moment("2026-11-02T10:00:00"));
    branch.grant("credits", 100, Source::Extra, None);
    branch.create_key_as(NewKey {
        expires_at: Some(moment("2026-11-03T10:00:00")),
        budget: Some(sold::credits(30)),
        ..NewKey::default()
    });
    let operation = branch.operation();
    branch.admit_as(operation, 2, cost(5));
    branch.settle(1, 200);
    branch.set_clock(moment("2026-11-04T10:00:00"));
    snap(&mut branch);
    assert!(is_at_rest(&branch, 2));
    branch.set_clock(moment("2026-11-02T10:01:00"));
    for n in 2..=3 {
        branch.evict();
        let operation = branch.operation();
        let reply = branch.admit_as(operation, 2, cost(5));
        assert!(matches!(reply, Reply::Admitted(_)), "{reply:?}");
        branch.settle(n, 200);
    }
    assert_eq!(branch.show_key(2)["budget_used"], 15);
    branch.check_waking().unwrap();
}

#[test]
fn what_comes_back_to_a_key_at_rest_comes_back_to_its_month() {
    let mut branch = expired();
    branch.end_call(2, Word::Release { reason: None }, None);
    assert_eq!(branch.show_key(2)["budget_used"], 10);
    branch.evict();
    assert_eq!(branch.show_key(2)["budget_used"], 10);
    branch.check().unwrap();
}

#[test]
fn a_busy_minute_costs_a_call_few_bytes_of_snapshots_and_a_wake_up_reads_few_rows() {
    let mut branch = Branch::with_account("prepaid_100000_per_minute", "prepaid", NOW);
    let mut n = 0;
    let mut call_often = |branch: &mut Branch, count: u32| {
        for _ in 0..count {
            branch.set_clock(branch.clock.plus(Span::from_millis(1)));
            call(branch, 1, &mut n);
        }
    };
    call_often(&mut branch, 40_000);
    let before = branch.store().snapshots_written;
    call_often(&mut branch, 10_000);
    // Each names all calls of the minute, in two bytes.
    let len = snapshot_len(&branch);
    assert!((80_000..130_000).contains(&len), "{len} bytes");
    let snapshots = branch.store().snapshots_written - before;
    assert!(
        (8..=20).contains(&snapshots),
        "{snapshots} for 10,000 calls"
    );
    call_often(&mut branch, 500);
    let rows = rows_to_wake(&mut branch);
    assert!((300..=2_100).contains(&rows), "{rows}");
    // Awake again, it writes them no more often.
    let before = branch.store().snapshots_written;
    call_often(&mut branch, 600);
    assert!(branch.store().snapshots_written - before <= 2);
    branch.check().unwrap();
}
