//! `/usage/summary`: calls by day, hour, endpoint and key, as charts want them.

use serde_json::{Value, json};
use tollgate::{
    account::{Refusal, Told, Word},
    policy::Source,
    price::{Job, OnUnknown, Terms},
    problem::{Code, ViolatedPolicy},
    protocol::{Command, Page, Reply, SummaryPlace, SummaryQuery},
    time::{Span, Timestamp},
    totals::summary::By,
};

use crate::{
    branch::{Branch, cost},
    sold,
    statement::moment,
};

fn by(by: By) -> SummaryQuery {
    SummaryQuery {
        by,
        ..SummaryQuery::default()
    }
}

fn summary(branch: &mut Branch, query: SummaryQuery) -> Value {
    match branch.manage(Command::UsageSummary(query), None) {
        Reply::Document(document) => serde_json::from_str(&document.json).expect("JSON"),
        reply => panic!("{reply:?}"),
    }
}

fn lines(branch: &mut Branch, query: SummaryQuery) -> Value {
    summary(branch, query)["summary"].take()
}

fn prepaid(edits: &str, opened: &str) -> Branch {
    let mut branch = Branch::with_account(edits, "prepaid", moment(opened));
    branch.create_key();
    branch.grant("credits", 1_000, Source::Extra, None);
    branch.grant("lyrics", 1_000, Source::Extra, None);
    branch
}

/// A call that is charged `amount`, or fails.
fn call(branch: &mut Branch, key: u32, endpoint: &str, terms: Terms, status: u16) -> u64 {
    branch.endpoint = endpoint.into();
    let operation = branch.operation();
    let Reply::Admitted(admission) = branch.admit_as(operation, key, terms) else {
        panic!("no call");
    };
    let call = admission.call.get();
    branch.settle(call, status);
    call
}

fn lyrics(amount: u64) -> Terms {
    Terms::fixed("lyrics".into(), sold::credits(amount))
}

#[test]
fn calls_are_summed_by_day_hour_endpoint_and_key() {
    let mut branch = prepaid("standard", "2026-11-02T10:20:00");
    call(&mut branch, 1, "/search", cost(3), 200);
    call(&mut branch, 2, "/lyrics", lyrics(10), 200);
    branch.set_clock(moment("2026-11-02T11:00:00"));
    call(&mut branch, 1, "/search", cost(3), 404);
    branch.check().expect("sound books");
    assert_eq!(
        summary(&mut branch, by(By::Day)),
        json!({
            "by": "day", "from": "2026-10-04T00:00:00Z", "to": "2026-11-02T12:00:00Z", "next": null,
            "summary": [{ "day": "2026-11-02", "calls": 3, "failed": 1, "credits_consumed": 3,
                          "pools": { "credits": 3, "lyrics": 10 } }],
        })
    );
    branch.set_clock(moment("2026-11-03T00:00:00"));
    call(&mut branch, 1, "/search", cost(4), 200);
    branch.call(cost(5));
    branch.settle(5, 200);
    // One that is open is a call already.
    branch.call(cost(5));
    let of = |calls: u64, failed: u64, credits: u64| json!({ "calls": calls, "failed": failed, "credits_consumed": credits, "pools": { "credits": credits } });
    let with = |name: &str, value: &str, mut line: Value| {
        line[name] = value.into();
        line
    };
    let mut first = of(2, 0, 3);
    first["pools"]["lyrics"] = 10.into();
    assert_eq!(
        lines(&mut branch, by(By::Hour)),
        json!([
            with("hour", "2026-11-02T10:00:00Z", first),
            with("hour", "2026-11-02T11:00:00Z", of(1, 1, 0)),
            with("hour", "2026-11-03T00:00:00Z", of(3, 0, 9)),
        ])
    );
    let of_lyrics =
        json!({ "calls": 1, "failed": 0, "credits_consumed": 0, "pools": { "lyrics": 10 } });
    assert_eq!(
        lines(&mut branch, by(By::Endpoint)),
        json!([
            with("endpoint", "/lyrics", of_lyrics.clone()),
            with("endpoint", "/search", of(5, 1, 12)),
        ])
    );
    assert_eq!(
        lines(&mut branch, by(By::Key)),
        json!([
            with("key", "key_acc_1", of(5, 1, 12)),
            with("key", "key_acc_2", of_lyrics)
        ])
    );
}

#[test]
fn a_period_is_widened_to_whole_hours() {
    let mut branch = prepaid("standard", "2026-11-02T10:20:00");
    for _ in 0..3 {
        call(&mut branch, 1, "/search", cost(1), 200);
        branch.set_clock(branch.clock.plus(Span::HOUR));
    }
    let mut told = |from: Option<&str>, to: Option<&str>| {
        let query = SummaryQuery {
            from: from.map(moment),
            to: to.map(moment),
            ..by(By::Hour)
        };
        let summary = summary(&mut branch, query);
        let hours = summary["summary"].as_array().map_or(0, Vec::len);
        format!("{} {} {hours}", summary["from"], summary["to"]).replace('"', "")
    };
    for (from, to, expected) in [
        (None, None, "2026-10-04T00:00:00Z 2026-11-02T14:00:00Z 3"),
        (
            Some("2026-11-02T11:59:59"),
            None,
            "2026-11-02T11:00:00Z 2026-11-02T14:00:00Z 2",
        ),
        (
            None,
            Some("2026-11-02T11:00:00"),
            "2026-10-04T00:00:00Z 2026-11-02T11:00:00Z 1",
        ),
        (
            None,
            Some("2026-11-02T11:00:01"),
            "2026-10-04T00:00:00Z 2026-11-02T12:00:00Z 2",
        ),
        (
            Some("2026-11-02T11:00:00"),
            Some("2026-11-02T12:00:00"),
            "2026-11-02T11:00:00Z 2026-11-02T12:00:00Z 1",
        ),
        (
            Some("2027-01-01T00:00:00"),
            None,
            "2027-01-01T00:00:00Z 2027-01-01T01:00:00Z 0",
        ),
    ] {
        assert_eq!(told(from, to), expected, "{from:?} {to:?}");
    }
}

#[test]
fn days_start_when_the_policy_says() {
    let mut branch = prepaid("local_days", "2026-11-02T21:59:00");
    call(&mut branch, 1, "/search", cost(1), 200);
    branch.set_clock(moment("2026-11-02T22:00:00"));
    call(&mut branch, 1, "/search", cost(1), 200);
    branch.set_clock(moment("2026-11-02T22:10:00"));
    let told = lines(&mut branch, by(By::Day));
    assert_eq!(
        (&told[0]["day"], &told[1]["day"]),
        (&json!("2026-11-02"), &json!("2026-11-03"))
    );
}

#[test]
fn a_refund_and_a_late_word_change_the_hour_of_the_call() {
    let mut branch = prepaid("standard", "2026-11-02T10:20:00");
    let refunded = call(&mut branch, 1, "/search", cost(7), 200);
    branch.call(cost(5));
    branch.call(Terms {
        job: Some(Job {
            settle_within: Span::from_days(9),
            on_unknown: OnUnknown::Release,
        }),
        ..cost(30)
    });
    branch.settle(3, 202);
    let hour = |branch: &mut Branch| {
        let told = lines(branch, by(By::Hour));
        assert_eq!(told.as_array().map(Vec::len), Some(1), "{told}");
        let figure = |name: &str| told[0][name].as_i64().expect("a figure");
        [
            figure("calls"),
            figure("failed"),
            figure("credits_consumed"),
        ]
    };
    branch.set_clock(moment("2026-11-02T12:00:00"));
    branch.rest().expect("a store that works");
    // The second ended unknown, the third is a job still.
    assert_eq!(hour(&mut branch), [3, 1, 7]);
    branch.set_clock(moment("2026-11-09T12:00:00"));
    branch.settle(2, 200);
    assert_eq!(hour(&mut branch), [3, 0, 12]);
    branch.end_call(3, Word::Settle(Told::Hold), None);
    assert_eq!(hour(&mut branch), [3, 0, 42]);
    branch.end_call(refunded, Word::Release { reason: None }, None);
    assert_eq!(hour(&mut branch), [3, 0, 35]);
    branch.check().expect("sound books");
}

#[test]
fn an_undone_call_is_in_no_total() {
    let mut branch = prepaid("standard", "2026-11-02T10:20:00");
    let operation = branch.operation();
    branch.admit_as(operation, 1, cost(1));
    branch.cancel(operation);
    branch.set_clock(moment("2026-11-02T11:20:00"));
    assert_eq!(lines(&mut branch, by(By::Day)), json!([]));
}

#[test]
fn hours_of_months_that_were_rolled_up_come_as_days() {
    let mut branch = prepaid("usage_7", "2026-11-29T10:20:00");
    for at in [
        "2026-11-29T10:20:00",
        "2026-11-29T14:20:00",
        "2026-12-01T00:10:00",
    ] {
        branch.set_clock(moment(at));
        call(&mut branch, 1, "/search", cost(2), 200);
    }
    branch.set_clock(moment("2026-12-08T00:00:00"));
    branch.check().expect("sound books");
    let told = lines(&mut branch, by(By::Hour));
    let of = |calls: u64| json!({ "calls": calls, "failed": 0, "credits_consumed": 2 * calls, "pools": { "credits": 2 * calls } });
    let (mut day, mut hour) = (of(2), of(1));
    day["day"] = "2026-11-29".into();
    hour["hour"] = "2026-12-01T00:00:00Z".into();
    assert_eq!(told, json!([day, hour]));
    assert_eq!(lines(&mut branch, by(By::Day))[0], day);
    // A part of the day asks for the day.
    let part = SummaryQuery {
        from: Some(moment("2026-11-29T12:00:00")),
        to: Some(moment("2026-11-29T13:00:00")),
        ..by(By::Hour)
    };
    assert_eq!(lines(&mut branch, part), json!([day]));
}

/// An account with more rows of totals than one request reads, of 201 calls each.
fn long_history() -> Branch {
    let mut branch = prepaid("usage_3000", "2026-01-01T00:00:00");
    for endpoint in 0..201 {
        call(&mut branch, 1, &format!("/{endpoint}"), cost(0), 200);
    }
    branch.cancel(1);
    branch.object.store_mut().repeat_totals(1_099);
    branch
}

#[test]
fn a_summary_of_a_long_history_reads_no_more_than_5_000_rows_and_goes_on_with_next() {
    let mut branch = long_history();
    let mut query = SummaryQuery {
        from: Some(Timestamp::EPOCH),
        ..by(By::Endpoint)
    };
    let mut calls = 0;
    let mut pages = 0;
    loop {
        branch.store().rows_read.set(0);
        let page = summary(&mut branch, query.clone());
        pages += 1;
        let rows_read = branch.store().rows_read.get();
        assert!(rows_read <= 5_000, "{rows_read}");
        let lines = page["summary"].as_array().expect("lines");
        calls += lines
            .iter()
            .map(|line| line["calls"].as_i64().expect("calls"))
            .sum::<i64>();
        let Some(next) = page["next"].as_str() else {
            break;
        };
        query.next = Some(SummaryPlace::parse(next).expect("a place"));
    }
    assert_eq!((calls, pages), (1_100 * 201, 2));
    // What the first page stopped at has gone since.
    branch.policy = sold::edited("usage_1");
    branch.set_clock(moment("2026-03-01T00:00:00"));
    branch.evict();
    branch.rest().expect("a store that works");
    let Reply::Problem(problem) = branch.manage(Command::UsageSummary(query), None) else {
        panic!("a page of a month that is gone");
    };
    assert_eq!(
        (problem.code, problem.field.as_deref()),
        (Code::BadRequest, Some("next"))
    );
}

#[test]
fn a_key_may_ask_for_ten_summaries_a_minute() {
    let mut branch = prepaid("standard", "2026-11-02T10:20:00");
    let query = || Page::UsageSummary(by(By::Day));
    for _ in 0..10 {
        assert!(matches!(branch.read(1, query()), Reply::Document(_)));
    }
    let Reply::Refused(Refusal::RateLimited {
        violated, retry_at, ..
    }) = branch.read(1, query())
    else {
        panic!("an eleventh");
    };
    assert_eq!(
        (violated[0].policy, violated[0].limit),
        (ViolatedPolicy::Minute, 10)
    );
    assert_eq!(retry_at, branch.clock.plus(Span::MINUTE));
    assert!(matches!(branch.read(1, Page::Me), Reply::Document(_)));
    assert!(matches!(branch.read(2, query()), Reply::Document(_)));
}
