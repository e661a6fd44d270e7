//! `/usage`: every call that is asked for once, how many there are, and what it costs to read.

use serde_json::Value;
use tollgate::{
    id::CallNumber,
    policy::Source,
    protocol::{Page, Reply, UsageFilter, UsageQuery},
    time::Span,
};

use crate::{
    branch::{Branch, cost},
    statement::moment,
};

const CALLS: u64 = 7_000;

/// Over a month's end. Every 700th call failed, one was undone and one goes on.
fn long_history() -> Branch {
    let mut branch = Branch::with_account("standard", "prepaid", moment("2026-10-30T12:00:00"));
    branch.grant("credits", CALLS, Source::Extra, None);
    for call in 1..=CALLS {
        branch.set_clock(branch.clock.plus(Span::from_seconds(30)));
        branch.call(cost(1));
        match call {
            2_000 => drop(branch.cancel(branch.row(call).call.hold.operation)),
            CALLS => {}
            _ => drop(branch.settle(call, if call % 700 == 0 { 500 } else { 200 })),
        }
    }
    branch
}

fn page(branch: &mut Branch, query: &UsageQuery) -> Value {
    branch.store().rows_read.set(0);
    let Reply::Document(document) = branch.read(1, Page::Usage(query.clone())) else {
        panic!("no usage");
    };
    let rows_read = branch.store().rows_read.get();
    assert!(rows_read <= 5_000, "{rows_read} rows");
    serde_json::from_str(&document.json).expect("JSON")
}

/// How many pages it takes, and what they list.
fn all(branch: &mut Branch, mut query: UsageQuery) -> (u64, Vec<Value>) {
    let (mut pages, mut listed) = (0, Vec::new());
    loop {
        let page = page(branch, &query);
        pages += 1;
        listed.extend(page["usage"].as_array().expect("calls").iter().cloned());
        let Some(next) = page["next"].as_str() else {
            return (pages, listed);
        };
        let next = next.parse().ok().and_then(CallNumber::new);
        query.before = Some(next.expect("a call's number"));
    }
}

fn having(filter: UsageFilter, limit: u32) -> UsageQuery {
    UsageQuery {
        filter,
        limit,
        ..UsageQuery::default()
    }
}

#[test]
fn a_filtered_page_reads_no_more_than_5_000_rows_and_goes_on_with_next() {
    let mut branch = long_history();
    let failed = UsageFilter {
        status: Some(500),
        ..UsageFilter::default()
    };
    let (pages, listed) = all(&mut branch, having(failed.clone(), 500));
    let numbers: Vec<&str> = listed
        .iter()
        .filter_map(|call| call["request_id"].as_str()?.rsplit('_').next())
        .collect();
    let expected = [
        "6300", "5600", "4900", "4200", "3500", "2800", "2100", "1400", "700",
    ];
    assert_eq!((pages, numbers.as_slice()), (2, expected.as_slice()));

    let first = page(&mut branch, &having(failed, 500));
    assert_eq!(
        (&first["total_count"], &first["total_exact"]),
        (&6.into(), &false.into())
    );

    let nothing = UsageFilter {
        endpoint: Some("/nowhere".to_owned()),
        ..UsageFilter::default()
    };
    assert_eq!(all(&mut branch, having(nothing, 50)), (2, Vec::new()));

    let everything = UsageFilter {
        from: Some(moment("2026-10-30T12:00:00")),
        ..UsageFilter::default()
    };
    let (_, listed) = all(&mut branch, having(everything.clone(), 300));
    let listed_calls = listed.len() as u64;
    assert_eq!(listed_calls, CALLS - 1, "all but the one that was undone");
    let query = UsageQuery {
        offset: 3_000,
        ..having(everything, 300)
    };
    let page = page(&mut branch, &query);
    assert_eq!(
        page["usage"].as_array(),
        listed.get(3_000..3_300).map(<[_]>::to_vec).as_ref()
    );
}

#[test]
fn a_page_after_another_reads_what_it_shows_and_tells_how_many_calls_there_are() {
    let mut branch = long_history();
    let mut query = having(UsageFilter::default(), 500);
    let mut listed = 0;
    loop {
        let page = page(&mut branch, &query);
        assert_eq!(page["total_count"], CALLS - 1);
        assert_eq!(page["total_exact"], Value::Null);
        let rows_read = branch.store().rows_read.get();
        assert!(rows_read <= 502, "{rows_read} rows for 500 lines");
        listed += page["usage"].as_array().map_or(0, Vec::len) as u64;
        let Some(next) = page["next"].as_str() else {
            break;
        };
        query.before = next.parse().ok().and_then(CallNumber::new);
    }
    assert_eq!(listed, CALLS - 1);
}

#[test]
fn the_count_of_a_filtered_page_after_another_is_no_exact_one() {
    let mut branch = long_history();
    let succeeded = UsageFilter {
        from: Some(moment("2026-11-01T20:00:00")),
        status: Some(200),
        ..UsageFilter::default()
    };
    let mut query = UsageQuery {
        before: CallNumber::new(CALLS - 4),
        ..having(succeeded, 50)
    };
    let second = page(&mut branch, &query);
    assert_eq!(second["total_exact"], false);
    query.before = None;
    let first = page(&mut branch, &query);
    let more = first["total_count"]
        .as_u64()
        .zip(second["total_count"].as_u64());
    assert!(more.is_some_and(|(all, rest)| all > rest), "{more:?}");
}
