//! What is stored as one value must stay below what storage takes: 2 MB in a Durable Object.

use std::sync::Arc;

use tollgate::{
    object::Store,
    policy::Policy,
    price::Terms,
    protocol::Reply,
    time::{Span, Timestamp},
};

use crate::{branch::Branch, sold};

const NOW: Timestamp = Timestamp::from_millis(1_900_000_000_000);

#[test]
#[ignore = "shows a defect: what idle keys did in their last minute is kept for good"]
fn many_busy_keys_do_not_outgrow_a_stored_value() {
    let text = format!(
        "{}\n[plans.busy]\nrequests_per_minute = 300\n",
        sold::STANDARD
    );
    let mut branch = Branch::new(Arc::new(Policy::parse(&text).unwrap()), NOW);
    branch.open("busy", None, None);
    let keys = 500;
    for _ in 0..keys {
        assert!(matches!(branch.create_key(), Reply::Document(_)));
    }
    let free = || Terms::fixed("credits".into(), sold::credits(0));
    let mut n = 0_u64;
    for key in 1..=keys {
        for _ in 0..300 {
            let operation = branch.operation();
            let reply = branch.admit_as(operation, key, free());
            assert!(matches!(reply, Reply::Admitted(_)), "{reply:?}");
            n += 1;
            branch.settle(n, 200);
        }
        branch.set_clock(branch.clock.plus(Span::from_seconds(61)));
        if key % 50 == 0 {
            let loaded = branch.store().load().unwrap().unwrap();
            eprintln!(
                "keys {key} snapshot {} profile {}",
                loaded.snapshot.len(),
                loaded.profile.len()
            );
        }
    }
    let loaded = branch.store().load().unwrap().unwrap();
    assert!(
        loaded.snapshot.len() < 2_000_000,
        "{}",
        loaded.snapshot.len()
    );
}
