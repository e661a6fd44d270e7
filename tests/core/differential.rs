//! Random histories as the core carries them out natively, written down for whoever carries them out elsewhere:
//! `tests/faults/differential.test.mjs` tells the same messages to the wasm in workerd, at the same clock.
//!
//! `TOLLGATE_HISTORIES=FILE TOLLGATE_SEED=7 TOLLGATE_COUNT=3` writes three of them, a line of JSON for each thing that
//! happens. Nobody is told anything by the account, and no alarm goes off, in either place.

use std::fmt::Write;

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};
use serde_json::json;
use tollgate::{
    account::{NewAccount, PatchKey},
    id::{AccountId, KeyNumber},
    object::Store,
    protocol::{Command, KeysQuery, Manage, Page, Reply, Request, UsageQuery, encode},
    time::Timestamp,
    totals::summary::By,
};

use crate::{
    branch::{Branch, Exchange, fingerprint},
    properties::{PLANS, Step, step},
    sold,
    statement::moment,
};

/// The steps of a history and the plan that it begins on.
fn history(seed: u64) -> (usize, Vec<Step>) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    let strategy = (0..PLANS.len(), prop::collection::vec(step(), 120..240));
    let tree = strategy.new_tree(&mut runner).expect("a history");
    tree.current()
}

/// What happens, as lines: each message with its answer, and where memory is lost.
fn carried_out(seed: u64) -> Vec<String> {
    let (plan, steps) = history(seed);
    let mut branch = Branch::new(sold::edited("standard"), moment("2027-12-20T09:30:00"));
    let mut lines = vec![json!({ "seed": seed, "policy": sold::STANDARD }).to_string()];
    let opened = open(&mut branch, PLANS[plan]);
    lines.push(opened);
    branch.transcript = Some(Vec::new());
    branch.create_key();
    branch.create_key();
    for step in &steps {
        match step {
            // There is one policy for each gateway, and its disk is well.
            Step::Policy(_) | Step::FailNext => {}
            Step::Evict => {
                lines.extend(told(&mut branch));
                branch.evict();
                lines.push(json!({ "evict": true }).to_string());
            }
            step => drop(step.play(&mut branch)),
        }
    }
    look_at_everything(&mut branch);
    // Whoever stores next brings a snapshot along.
    branch.patch_key(1, PatchKey::default());
    branch.cancel(2);
    lines.extend(told(&mut branch));
    lines.push(stored(&branch));
    lines
}

fn open(branch: &mut Branch, plan: &str) -> String {
    let new = NewAccount {
        id: AccountId::parse("acc").expect("an id"),
        external_id: None,
        name: None,
        email: None,
        plan: plan.to_owned(),
        billing_day: Some(31),
        subscription: None,
        opened_by: fingerprint(0, 0),
    };
    let message = encode(&Request::Manage(Manage {
        command: Command::Open(new.clone()),
        idempotency: None,
        signs_under: None,
    }));
    let reply = encode(&branch.open_account(&new));
    // The directory's rows are among those that opening an account costs.
    line(branch.clock, &message, &reply, None)
}

fn look_at_everything(branch: &mut Branch) {
    let usage = UsageQuery {
        limit: 500,
        ..UsageQuery::default()
    };
    for page in [Page::Me, Page::Credits, Page::Usage(usage.clone())] {
        branch.read(1, page);
    }
    for command in [
        Command::Show,
        Command::Balance,
        Command::Keys(KeysQuery::default()),
        Command::Usage(usage),
    ] {
        branch.manage(command, None);
    }
    for by in [By::Day, By::Hour, By::Endpoint, By::Key] {
        branch.summary(by);
    }
    branch.ledger(7);
    branch.audit_itself().expect("a sound account");
    let mut place = None;
    loop {
        match branch.manage(Command::Export(place), None) {
            Reply::Export(slice) if slice.next.is_some() => place = slice.next,
            Reply::Export(_) => return,
            other => panic!("no export: {other:?}"),
        }
    }
}

fn told(branch: &mut Branch) -> Vec<String> {
    let exchanges = branch.transcript.replace(Vec::new()).unwrap_or_default();
    exchanges
        .iter()
        .map(
            |Exchange {
                 clock,
                 message,
                 reply,
                 rows,
             }| line(*clock, message, reply, Some(*rows)),
        )
        .collect()
}

fn line(clock: Timestamp, message: &[u8], reply: &[u8], rows: Option<u64>) -> String {
    json!({
        "clock": clock.as_millis(),
        "message": hex(message),
        "reply": hex(reply),
        "rows": rows,
    })
    .to_string()
}

fn stored(branch: &Branch) -> String {
    let loaded = branch.store().load().expect("a store").expect("an account");
    let keys = branch.store().keys_after(KeyNumber::new(0), u64::MAX);
    let keys: Vec<_> = keys
        .expect("a store")
        .iter()
        .map(|(number, body)| json!([number.get(), hex(body)]))
        .collect();
    json!({
        "stored": {
            "profile": hex(&loaded.profile),
            "snapshot": hex(&loaded.snapshot),
            "keys": keys,
            "calls": branch.store().calls().count(),
            "entries": branch.store().entries().len(),
        }
    })
    .to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn a_history_is_carried_out_in_one_way_alone() {
    let of = |name: &str, default: u64| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse().ok())
            .unwrap_or(default)
    };
    let (seed, count) = (of("TOLLGATE_SEED", 7), of("TOLLGATE_COUNT", 1));
    let mut lines = Vec::new();
    for seed in seed..seed + count {
        let told = carried_out(seed);
        assert_eq!(told, carried_out(seed));
        lines.extend(told);
    }
    if let Some(file) = std::env::var_os("TOLLGATE_HISTORIES") {
        std::fs::write(file, lines.join("\n") + "\n").expect("a file to write to");
    }
}
