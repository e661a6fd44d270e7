//! What a request costs, and which requests have no price.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use proptest::prelude::*;
use tollgate::{
    policy::{
        Policy, Route,
        quote::{Choice, Facts, choose, priced_headers},
    },
    price::{ChargeOn, OnUnknown, Terms},
};

/// A request: `query`, headers as `name: value` lines, body. Every body is JSON unless a header
/// says otherwise.
#[derive(Clone, Copy, Default)]
struct Request {
    query: &'static str,
    headers: &'static [&'static str],
    body: Option<&'static str>,
}

const NOTHING: Request = Request {
    query: "",
    headers: &[],
    body: None,
};

fn body(body: &'static str) -> Request {
    Request {
        body: Some(body),
        ..NOTHING
    }
}

fn query(query: &'static str) -> Request {
    Request { query, ..NOTHING }
}

fn headers(headers: &'static [&'static str]) -> Request {
    Request { headers, ..NOTHING }
}

fn policy(routes: &[&str]) -> Policy {
    let routes: String = routes
        .iter()
        .map(|lines| format!("[[routes]]\nmatch = \"POST /a\"\n{lines}\n"))
        .collect();
    let text = format!(
        "[gateway]\nkey_prefix = \"tk\"\n[origins]\ndefault = \"zone\"\n[pools.credits]\n[pools.lyrics]\n[plans.free]\n{routes}"
    );
    Policy::parse(&text).unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}"))
}

/// The route by number and what it holds (`least..most` where they differ), or the refusal.
fn price(policy: &Policy, request: Request) -> Result<String, String> {
    let header = |name: &str| -> Vec<String> {
        let mut values: Vec<String> = request
            .headers
            .iter()
            .filter_map(|line| line.split_once(": "))
            .filter(|(found, _)| *found == name)
            .map(|(_, value)| (*value).to_owned())
            .collect();
        if name == "content-type" && values.is_empty() {
            values.push("application/json".to_owned());
        }
        values.retain(|value| value != "absent");
        values
    };
    let candidates: Vec<&Route> = policy.routes.iter().collect();
    let facts = Facts {
        query: request.query,
        header: &header,
        body: request.body.map(str::as_bytes),
    };
    match choose(&candidates, facts, OnUnknown::Release) {
        Choice::Made(chosen) => {
            let index = policy
                .routes
                .iter()
                .position(|route| std::ptr::eq(route, chosen.route));
            let index = index.unwrap();
            Ok(match chosen.terms {
                None => format!("{index}: public"),
                Some(Terms {
                    pool, least, most, ..
                }) if least == most => format!("{index}: {least} {pool}"),
                Some(Terms {
                    pool, least, most, ..
                }) => format!("{index}: {least}..{most} {pool}"),
            })
        }
        Choice::NeedsBody => Err("needs the body".to_owned()),
        Choice::Refused(refusal) => Err(refusal.to_string()),
    }
}

fn check(policy: &Policy, cases: &[(Request, Result<&str, &str>)]) {
    for (request, expected) in cases {
        let told = price(policy, *request);
        let shown = format!(
            "{:?} {:?} {:?}: {told:?}",
            request.query, request.headers, request.body
        );
        match (&told, expected) {
            (Ok(told), Ok(expected)) => assert_eq!(told, expected, "{shown}"),
            (Err(told), Err(expected)) => {
                assert!(told.contains(expected), "{shown}, not {expected}")
            }
            _ => panic!("{shown}, not {expected:?}"),
        }
    }
}

#[test]
fn a_fixed_cost_asks_nothing_of_the_request() {
    let cases = [
        (NOTHING, Ok("0: 3 lyrics")),
        (body("no json"), Ok("0: 3 lyrics")),
    ];
    check(&policy(&["cost = 3\npool = \"lyrics\""]), &cases);
    check(&policy(&["public = true"]), &[(NOTHING, Ok("0: public"))]);
}

#[test]
fn the_first_route_whose_conditions_all_hold_is_taken() {
    let policy = policy(&[
        "cost = 15\nwhen = { \"body.task\" = \"extend\", \"body.family\" = \"a\" }",
        "cost = 12\nwhen = { \"body.task\" = \"extend\" }",
        "cost = 10\npool = \"lyrics\"\nwhen = { \"body.task\" = \"lyrics\" }",
        "cost = 1",
    ]);
    check(
        &policy,
        &[
            (
                body(r#"{"task":"extend","family":"a"}"#),
                Ok("0: 15 credits"),
            ),
            (
                body(r#"{"task":"extend","family":"b"}"#),
                Ok("1: 12 credits"),
            ),
            (body(r#"{"task":"extend"}"#), Ok("1: 12 credits")),
            (body(r#"{"task":"ext\u0065nd"}"#), Ok("1: 12 credits")),
            (body(r#"{"t\u0061sk":"extend"}"#), Ok("1: 12 credits")),
            (body(r#"{"task":"lyrics"}"#), Ok("2: 10 lyrics")),
            (body(r#"{"task":"Extend"}"#), Ok("3: 1 credits")),
            (body(r#"{"task":null}"#), Ok("3: 1 credits")),
            (body("{}"), Ok("3: 1 credits")),
            (body("[]"), Ok("3: 1 credits")),
        ],
    );
}

#[test]
fn conditions_that_all_fail_with_no_route_without_one_are_refused() {
    let policy = policy(&[
        "cost = 1\nwhen = { \"query.v\" = \"1\" }",
        "cost = 2\nwhen = { \"query.v\" = \"2\" }",
    ]);
    check(
        &policy,
        &[
            (query("v=2"), Ok("1: 2 credits")),
            (
                query("v=3"),
                Err("nothing is sold at this path for the given query.v"),
            ),
            (NOTHING, Err("nothing is sold")),
        ],
    );
}

#[test]
fn the_headers_that_a_price_depends_on_are_known() {
    let policy = policy(&[
        "when = { \"header.X-Model\" = \"a\", \"query.v\" = \"1\" }\npublic = true",
        "when = { \"header.x-model\" = \"b\", \"body.n\" = 1 }\ncost = 1",
        "charge = { rate = 1, unit = 1, maximum = 9, from = \"header.X-Length\" }\nwhen = { \"query.v\" = \"1\" }",
        "charge = { rate = 1, unit = 1, maximum = 9, from = \"response.header.x-seconds\" }",
    ]);
    let candidates: Vec<&Route> = policy.routes.iter().collect();
    let named = |candidates| Vec::from_iter(priced_headers(candidates));
    assert_eq!(named(&candidates), ["x-length", "x-model"]);
    assert_eq!(named(&candidates[3..]), [""; 0]);
}

#[test]
fn the_body_is_asked_for_only_where_the_price_depends_on_it() {
    let policy = policy(&[
        "cost = 1\nwhen = { \"query.v\" = \"1\" }",
        "cost = 2\nwhen = { \"body.v\" = 2 }",
        "cost = 3",
    ]);
    check(
        &policy,
        &[
            (query("v=1"), Ok("0: 1 credits")),
            (query("v=2"), Err("needs the body")),
            (
                Request {
                    query: "v=2",
                    ..body(r#"{"v":2}"#)
                },
                Ok("1: 2 credits"),
            ),
        ],
    );
}

#[test]
fn a_condition_is_never_met_by_a_value_of_another_type() {
    let number = policy(&["cost = 15\nwhen = { \"body.n\" = 2 }", "cost = 1"]);
    check(
        &number,
        &[
            (body(r#"{"n":2}"#), Ok("0: 15 credits")),
            (body(r#"{"n":2.0}"#), Ok("0: 15 credits")),
            (body(r#"{"n":2.5}"#), Ok("1: 1 credits")),
            (
                body(r#"{"n":2e0}"#),
                Err("body.n must be a JSON number of plain digits"),
            ),
            (body(r#"{"n":2.00001}"#), Err("body.n must be")),
            (body(r#"{"n":-2}"#), Err("body.n must be")),
            (body(r#"{"n":"2"}"#), Err("body.n must be")),
            (body(r#"{"n":true}"#), Err("body.n must be")),
            (body(r#"{"n":[2]}"#), Err("body.n must be a single value")),
            (body(r#"{"n":{}}"#), Err("body.n must be a single value")),
        ],
    );
    let flag = policy(&["cost = 15\nwhen = { \"body.hd\" = true }", "cost = 1"]);
    check(
        &flag,
        &[
            (body(r#"{"hd":true}"#), Ok("0: 15 credits")),
            (body(r#"{"hd":false}"#), Ok("1: 1 credits")),
            (
                body(r#"{"hd":"true"}"#),
                Err("body.hd must be true or false"),
            ),
        ],
    );
    let text = policy(&["cost = 15\nwhen = { \"body.s\" = \"2\" }", "cost = 1"]);
    check(
        &text,
        &[
            (body(r#"{"s":"2"}"#), Ok("0: 15 credits")),
            (body(r#"{"s":2}"#), Err("body.s must be a string")),
            (
                body(r#"{"s":"\ud800"}"#),
                Err("body.s must be a valid string"),
            ),
        ],
    );
}

const TRAINING: &str =
    "charge = { rate = 10, unit = 1, from = \"body.job.maxMinutes\", minimum = 10, maximum = 600 }";

#[test]
fn a_quantity_in_the_body_is_priced() {
    check(
        &policy(&[TRAINING]),
        &[
            (body(r#"{"job":{"maxMinutes":5}}"#), Ok("0: 50 credits")),
            (body(r#"{"job":{"maxMinutes":60}}"#), Ok("0: 600 credits")),
            (body(r#"{"job":{"maxMinutes":0}}"#), Ok("0: 10 credits")),
            (body(r#"{"job":{"maxMinutes":4.001}}"#), Ok("0: 50 credits")),
            (
                body(r#" {"x":[{"maxMinutes":9}],"job" : { "maxMinutes" : 5 } } "#),
                Ok("0: 50 credits"),
            ),
            (
                body(r#"{"job":{"maxMinutes":60.001}}"#),
                Err("body.job.maxMinutes is 60.001: that costs more than 600 credits, the maximum"),
            ),
            (
                body(r#"{"job":{"maxMinutes":18446744073709551}}"#),
                Err("that costs more than 600 credits"),
            ),
        ],
    );
}

#[test]
fn a_quantity_that_is_absent_or_not_plain_is_refused() {
    let plain = "body.job.maxMinutes must be a JSON number of plain digits with at most 3 places";
    let missing = "the price of this call depends on body.job.maxMinutes, which is missing";
    check(
        &policy(&[TRAINING]),
        &[
            (body("{}"), Err(missing)),
            (body(r#"{"job":7}"#), Err(missing)),
            (body(r#"{"job":[{"maxMinutes":7}]}"#), Err(missing)),
            (body(r#"{"job":{"maxMinutes":null}}"#), Err(missing)),
            (body(r#"{"job":{"maxMinutes":"5"}}"#), Err(plain)),
            (body(r#"{"job":{"maxMinutes":-5}}"#), Err(plain)),
            (body(r#"{"job":{"maxMinutes":-0}}"#), Err(plain)),
            (body(r#"{"job":{"maxMinutes":5e0}}"#), Err(plain)),
            (body(r#"{"job":{"maxMinutes":1.2345}}"#), Err(plain)),
            (body(r#"{"job":{"maxMinutes":true}}"#), Err(plain)),
            (
                body(r#"{"job":{"maxMinutes":[5]}}"#),
                Err("must be a single value"),
            ),
            (
                body(r#"{"job":{"maxMinutes":99999999999999999999}}"#),
                Err(plain),
            ),
        ],
    );
}

#[test]
fn a_priced_field_there_twice_or_in_another_case_is_refused_at_any_level() {
    check(
        &policy(&[TRAINING]),
        &[
            (
                body(r#"{"job":{"maxMinutes":5,"maxMinutes":5}}"#),
                Err("body.job.maxMinutes must be given once"),
            ),
            (
                body(r#"{"job":{"maxMinutes":5,"max\u004dinutes":60}}"#),
                Err("body.job.maxMinutes must be given once"),
            ),
            (
                body(r#"{"job":{"maxMinutes":5},"job":{}}"#),
                Err("body.job must be given once"),
            ),
            (
                body(r#"{"job":null,"job":{"maxMinutes":5}}"#),
                Err("body.job must be given once"),
            ),
            (
                body(r#"{"job":{"maxminutes":5}}"#),
                Err("body.job.maxMinutes must be spelled just so, not \"maxminutes\""),
            ),
            (
                body(r#"{"job":{"maxMinutes":5,"MaxMinutes":60}}"#),
                Err("must be spelled just so"),
            ),
            (
                body(r#"{"job":{"MaxMinutes":60,"maxMinutes":5}}"#),
                Err("must be spelled just so"),
            ),
            (
                body(r#"{"job":{"maxMinutes":5},"Job":1}"#),
                Err("body.job must be spelled just so, not \"Job\""),
            ),
            (
                body("{\"job\":{\"maxMinute\u{17f}\":5}}"),
                Err("must be spelled just so"),
            ),
            (
                body(r#"{"job":{"maxMinutes":5},"maxMinutes":1,"x":{"job":2}}"#),
                Ok("0: 50 credits"),
            ),
        ],
    );
}

#[test]
fn a_body_that_is_not_plain_json_is_refused() {
    let policy = policy(&[TRAINING]);
    let good = r#"{"job":{"maxMinutes":5}}"#;
    let typed = |headers: &'static [&'static str]| Request {
        headers,
        ..body(good)
    };
    let not_json = "the body must be JSON, with the Content-Type application/json";
    let invalid = "the body must be valid JSON";
    check(
        &policy,
        &[
            (
                typed(&["content-type: application/json"]),
                Ok("0: 50 credits"),
            ),
            (
                typed(&["content-type: Application/JSON; charset=UTF-8"]),
                Ok("0: 50 credits"),
            ),
            (
                typed(&["content-type: application/json;charset=\"utf-8\""]),
                Ok("0: 50 credits"),
            ),
            (
                typed(&["content-type: application/vnd.api+json"]),
                Ok("0: 50 credits"),
            ),
            (typed(&["content-encoding: identity"]), Ok("0: 50 credits")),
            (typed(&["content-type: absent"]), Err(not_json)),
            (typed(&["content-type: text/plain"]), Err(not_json)),
            (typed(&["content-type: text/json"]), Err(not_json)),
            (
                typed(&["content-type: application/x-www-form-urlencoded"]),
                Err(not_json),
            ),
            (
                typed(&["content-type: application/json; charset=utf-16"]),
                Err(not_json),
            ),
            (
                typed(&["content-type: application/json; charset"]),
                Err(not_json),
            ),
            (
                typed(&["content-type: application/json, text/plain"]),
                Err("the header content-type must be given once"),
            ),
            (
                typed(&["content-type: application/json", "content-type: text/plain"]),
                Err("the header content-type must be given once"),
            ),
            (
                typed(&["content-encoding: gzip"]),
                Err("the body must not be compressed"),
            ),
            (
                body("\u{feff}{\"job\":{\"maxMinutes\":5}}"),
                Err("byte-order mark"),
            ),
            (body(""), Err(invalid)),
            (body("{"), Err(invalid)),
            (body(r#"{"job":{"maxMinutes":5}} x"#), Err(invalid)),
            (body(r#"{"job":{"maxMinutes":5},}"#), Err(invalid)),
            (body(r#"{"job":{"maxMinutes":05}}"#), Err(invalid)),
            (body(r#"{"job":{"maxMinutes":NaN}}"#), Err(invalid)),
            (body(r#"{"job":{"maxMinutes":5}/* */}"#), Err(invalid)),
        ],
    );
}

#[test]
fn a_body_that_is_not_utf_8_is_refused() {
    let policy = policy(&[TRAINING]);
    let candidates: Vec<&Route> = policy.routes.iter().collect();
    let facts = Facts {
        query: "",
        header: &|name| {
            if name == "content-type" {
                vec!["application/json".into()]
            } else {
                Vec::new()
            }
        },
        body: Some(b"{\"job\":{\"maxMinutes\":5},\"x\":\"\xff\"}"),
    };
    let Choice::Refused(refusal) = choose(&candidates, facts, OnUnknown::Release) else {
        panic!("priced");
    };
    assert_eq!(refusal.to_string(), "the body must be UTF-8");
}

#[test]
fn no_depth_of_nesting_exhausts_the_stack() {
    let policy = policy(&[TRAINING]);
    let deep = format!(
        "{{\"x\":{}{},\"job\":{{\"maxMinutes\":5}}}}",
        "[".repeat(1_000_000),
        "]".repeat(1_000_000)
    );
    let unclosed = format!("{{\"job\":{}", "{\"job\":".repeat(1_000_000));
    for (text, expected) in [
        (deep, Ok("0: 50 credits")),
        (unclosed, Err("the body must be valid JSON")),
    ] {
        let text: &'static str = text.leak();
        check(&policy, &[(body(text), expected)]);
    }
}

#[test]
fn a_quantity_in_the_query_or_a_header_is_text_of_plain_digits() {
    let by_query = policy(&["charge = { rate = 1, unit = 1, from = \"query.n\", maximum = 100 }"]);
    check(
        &by_query,
        &[
            (query("n=5"), Ok("0: 5 credits")),
            (query("%6e=%35.5"), Ok("0: 6 credits")),
            (query("n=0"), Ok("0: 0 credits")),
            (
                query(""),
                Err("the price of this call depends on query.n, which is missing"),
            ),
            (
                query("n="),
                Err("query.n must be a number of plain digits with at most 3 places"),
            ),
            (query("n=+5"), Err("query.n must be a number")),
            (query("n=1e1"), Err("query.n must be a number")),
            (query("n=-5"), Err("query.n must be a number")),
            (query("n=5&n=5"), Err("query.n must be given once")),
            (
                query("N=5"),
                Err("query.n must be spelled just so, not \"N\""),
            ),
            (
                query("n=101"),
                Err("query.n is 101: that costs more than 100 credits"),
            ),
        ],
    );
    let by_header =
        policy(&["charge = { rate = 1, unit = 1, from = \"header.X-Count\", maximum = 100 }"]);
    check(
        &by_header,
        &[
            (headers(&["x-count: 5"]), Ok("0: 5 credits")),
            (
                headers(&["x-count: "]),
                Err("header.x-count must be a number"),
            ),
            (
                headers(&["x-count: five"]),
                Err("header.x-count must be a number"),
            ),
            (
                headers(&["x-count: 5, 6"]),
                Err("the header x-count must be given once"),
            ),
            (
                headers(&["x-count: 5", "x-count: 5"]),
                Err("the header x-count must be given once"),
            ),
            (NOTHING, Err("depends on header.x-count, which is missing")),
        ],
    );
}

#[test]
fn a_header_in_a_condition_given_twice_is_refused() {
    let policy = policy(&[
        "cost = 15\nwhen = { \"header.x-model\" = \"large\" }",
        "cost = 1",
    ]);
    check(
        &policy,
        &[
            (headers(&["x-model: large"]), Ok("0: 15 credits")),
            (headers(&["x-model: small"]), Ok("1: 1 credits")),
            (NOTHING, Ok("1: 1 credits")),
            (
                headers(&["x-model: small, large"]),
                Err("the header x-model must be given once"),
            ),
        ],
    );
}

#[test]
fn a_price_that_the_origin_tells_holds_the_maximum_or_what_is_available() {
    let charge = |hold: &str| {
        format!(
            "charge = {{ rate = 10, unit = 60, from = \"response.header.x-seconds\", minimum = 10, maximum = 600{hold} }}"
        )
    };
    check(&policy(&[&charge("")]), &[(NOTHING, Ok("0: 600 credits"))]);
    check(
        &policy(&[&charge(", hold = \"maximum\"")]),
        &[(NOTHING, Ok("0: 600 credits"))],
    );
    check(
        &policy(&[&charge(", hold = \"available\"")]),
        &[(NOTHING, Ok("0: 10..600 credits"))],
    );
}

#[test]
fn the_terms_say_how_the_call_ends() {
    let policy = policy(&[
        "cost = 1\ncharge_on = \"2xx\"\nwhen = { \"query.v\" = \"1\" }",
        "cost = 1\njob = { settle_within = \"1d\", on_unknown = \"charge\" }",
    ]);
    let terms = |query: &str| {
        let candidates: Vec<&Route> = policy.routes.iter().collect();
        let facts = Facts {
            query,
            header: &|_| Vec::new(),
            body: None,
        };
        match choose(&candidates, facts, OnUnknown::Release) {
            Choice::Made(chosen) => chosen.terms.unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let call = terms("v=1");
    assert_eq!(
        (call.charge_on, call.job, call.on_unknown),
        (ChargeOn::TwoHundreds, None, OnUnknown::Release)
    );
    let job = terms("");
    assert_eq!(job.on_unknown, OnUnknown::Charge);
    assert!(job.job.is_some() && job.meter.is_none());
}

proptest! {
    #[test]
    fn whatever_is_priced_lies_between_minimum_and_maximum(
        text in "\\{(\"(job|Job|x)\":(\\{\"(maxMinutes|MaxMinutes|x)\":-?[0-9]{1,20}(\\.[0-9]{1,4})?\\}|1|null)(,|\\}|)){1,3}\\}?",
    ) {
        let policy = policy(&[TRAINING]);
        let candidates: Vec<&Route> = policy.routes.iter().collect();
        let facts = Facts {
            query: "",
            header: &|name| if name == "content-type" { vec!["application/json".into()] } else { Vec::new() },
            body: Some(text.as_bytes()),
        };
        if let Choice::Made(chosen) = choose(&candidates, facts, OnUnknown::Release) {
            let terms = chosen.terms.unwrap();
            prop_assert!((10..=600).contains(&terms.least.get()) && terms.least == terms.most);
            prop_assert!(!text.contains("Job"), "another spelling was there: {}", text);
        }
    }
}
