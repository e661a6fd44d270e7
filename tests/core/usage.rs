//! Pages of `/usage`: what they cost to read, and what they say of all calls.

use serde_json::Value;
use tollgate::{
    price::Terms,
    protocol::{Command, Reply, UsageFilter, UsageQuery},
    time::Span,
};

use crate::{branch::Branch, sold, statement::moment};

fn usage(branch: &mut Branch, query: UsageQuery) -> (Value, u64) {
    let before = branch.store().rows_read.get();
    let Reply::Document(document) = branch.manage(Command::Usage(query), None) else {
        panic!("no usage");
    };
    let read = branch.store().rows_read.get() - before;
    (serde_json::from_str(&document.json).expect("JSON"), read)
}

fn busy(calls: u64) -> Branch {
    let mut branch = Branch::with_account("standard", "prepaid", moment("2026-11-02"));
    for call in 1..=calls {
        branch.call(Terms::fixed("credits".into(), sold::credits(0)));
        branch.settle(call, 200);
        branch.set_clock(branch.clock.plus(Span::from_seconds(1)));
    }
    branch
}

#[test]
fn a_page_after_another_costs_what_it_shows_and_tells_how_many_calls_there_are() {
    let mut branch = busy(600);
    let mut before = None;
    let mut listed = 0;
    loop {
        let query = UsageQuery {
            limit: 50,
            before,
            ..UsageQuery::default()
        };
        let (page, read) = usage(&mut branch, query);
        assert_eq!(page["total_count"], 600, "{page}");
        assert!(read <= 52, "{read} rows for 50 lines");
        listed += page["usage"].as_array().map_or(0, Vec::len);
        let Some(next) = page["next"].as_str() else {
            break;
        };
        before = Some(
            next.parse()
                .ok()
                .and_then(tollgate::id::CallNumber::new)
                .unwrap(),
        );
    }
    assert_eq!(listed, 600);
}

#[test]
fn the_count_of_a_filtered_page_after_another_is_no_exact_one() {
    let mut branch = busy(20);
    let query = |before: Option<u64>| UsageQuery {
        limit: 5,
        before: before.and_then(tollgate::id::CallNumber::new),
        filter: UsageFilter {
            status: Some(200),
            ..UsageFilter::default()
        },
        ..UsageQuery::default()
    };
    let (first, _) = usage(&mut branch, query(None));
    assert_eq!(
        (&first["total_count"], &first["total_exact"]),
        (&20.into(), &Value::Null)
    );
    let (second, _) = usage(&mut branch, query(Some(16)));
    assert_eq!(
        (&second["total_count"], &second["total_exact"]),
        (&15.into(), &false.into())
    );
}
