//! An export: everything about one account, once, in slices between which calls go on.

use std::collections::BTreeMap;

use serde_json::Value;
use tollgate::{
    account::NewKey,
    export::{ExportPlace, ExportSlice},
    policy::Source,
    protocol::{Command, Reply},
    time::Span,
};

use crate::{
    branch::{Branch, cost},
    statement::moment,
};

fn slice(branch: &mut Branch, place: Option<ExportPlace>) -> ExportSlice {
    branch.object.store().rows_read.set(0);
    let Reply::Export(slice) = branch.manage(Command::Export(place), None) else {
        panic!("no export");
    };
    let rows_read = branch.object.store().rows_read.get();
    assert!(rows_read <= 5_010, "{rows_read} rows");
    assert!(slice.lines.len() < 2 << 20, "{} bytes", slice.lines.len());
    slice
}

/// The whole export; `between` happens before each slice but the first.
fn export(branch: &mut Branch, mut between: impl FnMut(&mut Branch)) -> Vec<Value> {
    let mut text = String::new();
    let mut place = None;
    loop {
        let slice = slice(branch, place);
        text.push_str(&slice.lines);
        place = slice.next;
        if place.is_none() {
            break;
        }
        between(branch);
    }
    let read = |line| serde_json::from_str(line).expect("a line is JSON");
    text.lines().map(read).collect()
}

fn of_type<'a>(lines: &'a [Value], wanted: &'a str) -> impl Iterator<Item = &'a Value> {
    lines.iter().filter(move |line| line["type"] == wanted)
}

#[test]
fn an_export_has_everything_once_and_no_secret() {
    let mut branch = Branch::with_account("usage_7", "starter", moment("2026-10-05"));
    branch.create_key_as(NewKey {
        name: Some("second".into()),
        ..NewKey::default()
    });
    branch.grant("credits", 200, Source::Extra, None);
    for (call, status) in [(1, 200), (2, 500)] {
        branch.call(cost(15));
        branch.settle(call, status);
    }
    // October is rolled up by then.
    branch.set_clock(moment("2026-11-20"));
    branch.rest().expect("a store that works");
    branch.call(cost(4));
    branch.settle(3, 200);
    branch.call(cost(6));

    let lines = export(&mut branch, |_| {});
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in &lines {
        *counts
            .entry(line["type"].as_str().expect("a type"))
            .or_default() += 1;
    }
    let entries = branch.store().entries().len();
    let expected = [
        ("account", 1),
        ("balance", 1),
        ("call", 2),
        ("day", 1),
        ("end", 1),
        ("entry", entries),
        ("export", 1),
        ("key", 2),
        ("month", 1),
        ("plan", 1),
    ];
    assert_eq!(counts, BTreeMap::from(expected));

    let (first, last) = (&lines[0], &lines[lines.len() - 1]);
    assert_eq!(first["as_of"], "2026-11-20T00:00:00Z");
    assert_eq!(
        (&first["account"], &first["calls"]),
        (&"acc".into(), &4.into())
    );
    assert_eq!(
        last,
        &serde_json::json!({ "type": "end", "lines": lines.len() - 1 })
    );
    assert_eq!(
        of_type(&lines, "plan").next().expect("a plan")["name"],
        "starter"
    );
    // What is told elsewhere is told the same way here.
    for (command, kind) in [(Command::Show, "account"), (Command::Balance, "balance")] {
        let Reply::Document(document) = branch.manage(command, None) else {
            panic!("no {kind}");
        };
        let mut told: Value = serde_json::from_str(&document.json).expect("JSON");
        told["type"] = kind.into();
        assert_eq!(of_type(&lines, kind).next(), Some(&told));
    }
    let calls: Vec<_> = of_type(&lines, "call")
        .map(|call| (&call["id"], &call["state"]))
        .collect();
    let (third, fourth) = (
        ("call_acc_3".into(), "settled".into()),
        ("call_acc_4".into(), "open".into()),
    );
    assert_eq!(calls, [(&third.0, &third.1), (&fourth.0, &fourth.1)]);
    let month = of_type(&lines, "month").next().expect("a month");
    assert_eq!(
        (&month["month"], &month["calls"]),
        (&"2026-10".into(), &2.into())
    );
    assert_eq!(
        (&month["first_call"], &month["last_call"]),
        (&"call_acc_1".into(), &"call_acc_2".into())
    );
    let day = of_type(&lines, "day").next().expect("a day");
    assert_eq!(
        (&day["day"], &day["failed"], &day["credits_consumed"]),
        (&"2026-10-05".into(), &1.into(), &15.into())
    );
    let numbers: Vec<_> = of_type(&lines, "entry")
        .map(|entry| entry["number"].as_u64())
        .collect();
    assert_eq!(numbers, (1..=entries as u64).map(Some).collect::<Vec<_>>());
    assert!(
        lines
            .iter()
            .all(|line| !line.to_string().contains("digest"))
    );
}

#[test]
fn an_export_has_the_events_that_are_kept() {
    let mut branch = Branch::with_account("told", "prepaid", moment("2026-10-05"));
    branch.grant("credits", 120, Source::Extra, None);
    branch.call(cost(120));
    branch.settle(1, 200);
    let lines = export(&mut branch, |_| {});
    let told: Vec<_> = of_type(&lines, "event")
        .map(|line| line["event"]["type"].as_str())
        .collect();
    assert_eq!(told, [Some("balance.exhausted")]);
}

#[test]
fn calls_go_on_while_an_export_is_read_slice_by_slice() {
    let mut branch = Branch::with_account("standard", "prepaid", moment("2026-10-30"));
    branch.grant("credits", 50_000, Source::Extra, None);
    for call in 1..=7_000_u64 {
        // Over the end of a month.
        branch.set_clock(branch.clock.plus(Span::from_seconds(30)));
        branch.call(cost(1));
        branch.settle(call, 200);
    }
    let open = branch.row(7_000).call.number;
    let mut slices = 1;
    let lines = export(&mut branch, |branch| {
        slices += 1;
        branch.call(cost(1));
        branch.grant("credits", 1, Source::Extra, None);
        branch.evict();
    });
    assert!(slices > 1);
    let calls: Vec<String> = of_type(&lines, "call")
        .map(|call| call["id"].to_string())
        .collect();
    let expected: Vec<String> = (1..=open.get())
        .map(|call| format!("\"call_acc_{call}\""))
        .collect();
    assert_eq!(calls, expected);
    assert_eq!(of_type(&lines, "entry").count() as u64, lines[0]["entries"]);
}

#[test]
fn a_month_that_is_rolled_up_meanwhile_comes_as_what_is_left_of_it() {
    let mut branch = Branch::with_account("usage_7", "prepaid", moment("2026-10-28"));
    for _ in 0..6_000 {
        branch.set_clock(branch.clock.plus(Span::from_seconds(60)));
        branch.call(cost(0));
    }
    let in_october = branch.object.account().expect("an account").log()[1]
        .first
        .get()
        - 1;
    let lines = export(&mut branch, |branch| {
        branch.set_clock(moment("2026-11-08"));
        branch.rest().expect("a store that works");
    });
    let months: Vec<_> = of_type(&lines, "month").collect();
    // As many of its calls as came before are there by themselves; the rest of the export is whole.
    let listed: Vec<&str> = of_type(&lines, "call")
        .filter_map(|call| call["id"].as_str())
        .collect();
    let rest = (in_october + 1..=6_000).map(|call| format!("call_acc_{call}"));
    assert!(rest.into_iter().all(|call| listed.contains(&call.as_str())));
    let all_were_listed = listed.contains(&format!("call_acc_{in_october}").as_str());
    assert_eq!(months.is_empty(), all_were_listed);
    assert!(!all_were_listed, "{in_october} calls are not too few");
    assert_eq!(months[0]["last_call"], format!("call_acc_{in_october}"));
    assert_eq!(lines[lines.len() - 1]["type"], "end");
}
