//! `cargo bench`: what the core's own steps cost, natively, so that a regression shows without
//! workerd. Compare with the run before (`criterion` does), not with another machine's.
#![allow(
    missing_docs,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

#[allow(dead_code)]
#[path = "../tests/core/auditor.rs"]
mod auditor;
#[allow(dead_code)]
#[path = "../tests/core/branch.rs"]
mod branch;
#[allow(dead_code)]
#[path = "../tests/core/memory_store.rs"]
mod memory_store;
#[allow(dead_code)]
#[path = "../tests/core/sold.rs"]
mod sold;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use tollgate::{
    account::Admit,
    id::{AccountId, KeyNumber},
    key::Keyring,
    path::CanonicalPath,
    policy::{Policy, router::Router},
    price::Terms,
    protocol::Request,
    secrets::Secrets,
    time::{Span, Timestamp},
};

use crate::{
    branch::{Branch, answered, digest_of},
    sold::credits,
};

const START: Timestamp = Timestamp::from_seconds(1_800_000_000);
/// Milliseconds between calls.
const PACE: Span = Span::from_millis(5);

fn account() -> Branch {
    Branch::with_account("standard", "pro", START)
}

fn admit(operation: u64) -> Request {
    Request::Admit(Admit {
        operation,
        key: KeyNumber::new(1),
        digest: digest_of(1),
        method: "POST".to_owned(),
        endpoint: "/search".to_owned(),
        terms: Terms::fixed("credits".to_owned(), credits(1)),
        repeated_refusals: 0,
        repeated_by_code: std::collections::BTreeMap::new(),
        retried: None,
    })
}

/// An account after `calls` calls, charged nothing so that credits never end.
fn with_history(calls: u64) -> Branch {
    let mut branch = account();
    for call in 1..=calls {
        branch.clock = branch.clock.plus(PACE);
        branch.send(admit(call));
        branch.send(Request::Settle(answered(call, call, 500)));
    }
    branch
}

/// Messages as they travel: decoded, carried out, committed to memory, the reply encoded.
fn messages(bench: &mut Criterion) {
    let mut branch = with_history(1_000);
    let mut call = 1_000;
    bench.bench_function("admit and settle", |bencher| {
        bencher.iter(|| {
            call += 1;
            branch.clock = branch.clock.plus(PACE);
            black_box(branch.send(admit(call)));
            black_box(branch.send(Request::Settle(answered(call, call, 500))));
        });
    });
    let mut branch = with_history(1_000);
    bench.bench_function("admit refused for credits", |bencher| {
        let mut dear = admit(5_000_000);
        if let Request::Admit(admit) = &mut dear {
            admit.terms = Terms::fixed("credits".to_owned(), credits(1_000_000));
        }
        bencher.iter(|| black_box(branch.send(dear.clone())));
    });
    for calls in [100, 10_000] {
        let branch = with_history(calls);
        let wake = format!("wake and admit after {calls} calls");
        bench.bench_function(&wake, |bencher| {
            bencher.iter_batched_ref(
                || {
                    let mut asleep = account();
                    asleep.clock = branch.clock;
                    *asleep.object.store_mut() = branch.store().clone();
                    asleep.evict();
                    asleep
                },
                |asleep| black_box(asleep.send(admit(9_000_000))),
                BatchSize::LargeInput,
            );
        });
    }
}

fn requests(bench: &mut Criterion) {
    bench.bench_function("canonical path", |bencher| {
        bencher
            .iter(|| CanonicalPath::parse(black_box("/api/external/v1/tracks/4uLU6%20h/preview")));
    });
    let secret = |name: &str| Some(format!("{name}-of-the-bench-0123456789abcdefghijkl"));
    let secrets = Secrets::read(
        |name| {
            (!name.ends_with("_PREVIOUS"))
                .then(|| secret(name))
                .flatten()
        },
        false,
    )
    .expect("secrets");
    let keyring = Keyring::new(&secrets.key_secret);
    let account = AccountId::parse("account-17").expect("an id");
    let key = keyring.issue("tk_live", &account, KeyNumber::new(1), [7; 16]);
    let prefixes = ["tk_live".to_owned()];
    bench.bench_function("key check", |bencher| {
        bencher.iter(|| keyring.verify(&prefixes, black_box(&key.text)));
    });
    let forged = format!("{}AAA", &key.text[..key.text.len() - 3]);
    bench.bench_function("key check, forged", |bencher| {
        bencher.iter(|| keyring.verify(&prefixes, black_box(&forged)).is_err());
    });
}

/// The time must not grow with the routes.
fn routes(bench: &mut Criterion) {
    for count in [5, 50, 500] {
        let policy = with_routes(count);
        let router = Router::new(&policy);
        let path = format!("/service-{}/items/42", count - 1);
        let path = CanonicalPath::parse(&path).expect("a path");
        let find = format!("route, the last of {count}");
        bench.bench_function(&find, |bencher| {
            bencher.iter(|| router.find("GET", "api.example.com", black_box(&path)));
        });
        let nowhere = CanonicalPath::parse("/nowhere/items/42").expect("a path");
        let find = format!("no route among {count}");
        bench.bench_function(&find, |bencher| {
            bencher.iter(|| router.find("GET", "api.example.com", black_box(&nowhere)));
        });
    }
}

fn with_routes(count: usize) -> Policy {
    let routes: String = (0..count)
        .map(|route| {
            format!("[[routes]]\nmatch = \"GET /service-{route}/items/{{id}}\"\ncost = 1\n")
        })
        .collect();
    let text = format!(
        "[gateway]\nkey_prefix = \"tk\"\n[origins]\ndefault = \"zone\"\n[pools.credits]\n[plans.free]\n{routes}"
    );
    Policy::parse(&text).expect("a policy without mistakes")
}

criterion_group!(core, messages, requests, routes);
criterion_main!(core);
