//! That `src/openapi.json` says what the code does: each endpoint and page, each field with its
//! bounds, each problem, and nothing else.

use std::collections::BTreeSet;

mod pages;

use serde_json::{Value, json};

use super::*;
use crate::{
    admin::{Access, AdminRequest, ENDPOINTS, Endpoint, Operator, Sent},
    call::CallState,
    cursor::Cursors,
    ledger::EntryKind,
    ledger_page::LineKind,
    price::Mark,
    problem::{Code, Problem, ViolatedPolicy},
    secrets::Secrets,
    self_service,
};

const DOCUMENT: &str = include_str!("../../openapi.json");
const PAGES: [(&str, &str, crate::policy::router::Page); 13] = {
    use crate::policy::router::Page;
    [
        ("GET", "/me", Page::Me),
        ("GET", "/usage", Page::Usage),
        ("GET", "/usage/summary", Page::UsageSummary),
        ("GET", "/ledger", Page::Ledger),
        ("GET", "/get-credits", Page::GetCredits),
        ("GET", "/quote", Page::Quote),
        ("POST", "/credits/purchase", Page::Purchase),
        ("POST", "/subscription", Page::Subscription),
        ("GET", "/billing/history", Page::BillingHistory),
        ("POST", "/billing/portal", Page::BillingPortal),
        ("GET", "/credits/top-up", Page::TopUp),
        ("PUT", "/credits/top-up", Page::TopUp),
        ("POST", "/credits/top-up/retry", Page::TopUpRetry),
    ]
};

fn document() -> Value {
    serde_json::from_str(DOCUMENT).unwrap()
}

/// What a value refers to, or itself.
fn followed<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value["$ref"].as_str() {
        Some(reference) => document
            .pointer(reference.strip_prefix('#').unwrap())
            .unwrap_or_else(|| panic!("{reference} leads nowhere")),
        None => value,
    }
}

fn names(object: &Value) -> BTreeSet<&str> {
    let object = object.as_object();
    object.map_or_else(BTreeSet::new, |object| {
        object.keys().map(String::as_str).collect()
    })
}

/// Every operation: method, path, itself.
fn operations(document: &Value) -> Vec<(String, &str, &Value)> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if method != "parameters" {
                operations.push((method.to_ascii_uppercase(), path.as_str(), operation));
            }
        }
    }
    operations
}

fn operation<'d>(document: &'d Value, method: &str, path: &str) -> &'d Value {
    &document["paths"][path][method.to_ascii_lowercase()]
}

fn secrets() -> Secrets {
    let lookup = |name: &str| (!name.ends_with("_PREVIOUS")).then(|| format!("{name:-<40}"));
    Secrets::read(lookup, false).unwrap()
}

/// Reads a request to an endpoint, with names in its path that fit.
fn read(method: &str, template: &str, sent: &Sent<'_>) -> Result<AdminRequest, Problem> {
    let path = template
        .replace("{id}", "acme")
        .replace("{key}", "key_acme_1")
        .replace("{event}", "event_acme_1")
        .replace("{call}", "call_acme_1");
    Endpoint::find(method, &path, Ok(Operator::Admin))?.read(sent, &secrets(), None)
}

fn send(method: &str, template: &str, body: &str) -> Result<(), Problem> {
    let is_it = |(by, path, _): &&(&str, &str, _)| (*by, *path) == (method, template);
    if let Some((.., page)) = PAGES.iter().find(is_it) {
        return read_page(*page, (method, None, body));
    }
    let sent = Sent {
        query: None,
        idempotency_key: Some("order-1"),
        content_type: Some("application/json"),
        body: body.as_bytes(),
    };
    read(method, template, &sent).map(drop)
}

/// Asks for a page of the customer's.
fn read_page(
    page: crate::policy::router::Page,
    (method, query, body): (&str, Option<&str>, &str),
) -> Result<(), Problem> {
    let account = crate::id::AccountId::parse("acme").unwrap();
    let secrets = secrets();
    let sent = (method, query, body.as_bytes());
    let cursors = Cursors {
        key_secret: &secrets.key_secret,
        account: &account,
    };
    self_service::read(page, sent, cursors).map(drop)
}

/// Asks with a query alone: an endpoint of the operator's, or a page of the customer's.
fn ask(path: &str, query: &str) -> Result<(), Problem> {
    match PAGES.iter().find(|(_, page, _)| *page == path) {
        Some((.., page)) => read_page(*page, ("GET", Some(query), "")),
        None => {
            let query = Some(query);
            let sent = Sent {
                query,
                ..Sent::default()
            };
            read("GET", path, &sent).map(drop)
        }
    }
}

#[test]
fn every_endpoint_and_page_is_described_and_nothing_else() {
    let document = document();
    let described: BTreeSet<(String, &str)> = operations(&document)
        .into_iter()
        .map(|(method, path, _)| (method, path))
        .collect();
    let endpoints: Vec<(String, String)> = ENDPOINTS
        .iter()
        .map(|(method, path, ..)| {
            (
                (*method).to_owned(),
                format!("{}{path}", crate::admin::ROOT),
            )
        })
        .chain(PAGES.map(|(method, path, _)| (method.to_owned(), path.to_owned())))
        .collect();
    let there: BTreeSet<(String, &str)> = endpoints
        .iter()
        .map(|(method, path)| (method.clone(), path.as_str()))
        .collect();
    assert_eq!(described, there);
}

#[test]
fn it_says_which_token_may_do_what() {
    let document = document();
    for (method, path, access, _) in ENDPOINTS {
        let path = format!("{}{path}", crate::admin::ROOT);
        let expected = match access {
            Access::Anyone => json!([]),
            Access::Read => json!([{ "admin": [] }, { "read_only": [] }]),
            Access::Write => json!([{ "admin": [] }]),
            Access::End => json!([{ "admin": [] }, { "origin": [] }]),
        };
        let operation = operation(&document, method, &path);
        assert_eq!(operation["security"], expected, "{method} {path}");
        let answers = names(&operation["responses"]);
        for status in ["401", "403"] {
            let refuses = access != Access::Anyone;
            assert_eq!(
                answers.contains(status),
                refuses,
                "{method} {path} {status}"
            );
        }
    }
    for (method, path, _) in PAGES {
        let expected = json!([{ "key": [] }, { "x_api_key": [] }]);
        assert_eq!(
            operation(&document, method, path)["security"],
            expected,
            "{path}"
        );
    }
}

#[test]
fn bodies_and_idempotency_keys_are_where_they_are_read() {
    let document = document();
    for (method, path, ..) in ENDPOINTS {
        let path = format!("{}{path}", crate::admin::ROOT);
        let operation = operation(&document, method, &path);
        let plain = path.replace("{id}", "acme").replace("{key}", "key_acme_1");
        let takes_body = Endpoint::find(method, &plain, Ok(Operator::Admin))
            .unwrap()
            .takes_body();
        assert_eq!(
            !operation["requestBody"].is_null(),
            takes_body,
            "{method} {path}"
        );
        if takes_body {
            let must_have_body = send(method, &path, "").is_err();
            let required = operation["requestBody"]["required"] == true;
            assert_eq!(required, must_have_body, "{method} {path}");
        }

        let parameters = operation["parameters"].as_array();
        let described = parameters
            .into_iter()
            .flatten()
            .map(|parameter| followed(&document, parameter))
            .find(|parameter| parameter["name"] == "Idempotency-Key");
        // Stripe's events have ids of their own.
        let has_key = method == "POST" && !path.ends_with("/stripe/webhook");
        assert_eq!(described.is_some(), has_key, "{method} {path}");
        if let Some(described) = described {
            let example = examples(operation).pop();
            let body = example.map_or_else(String::new, |(_, example)| example.to_string());
            let without = Sent {
                content_type: Some("application/json"),
                body: body.as_bytes(),
                ..Sent::default()
            };
            let must_have_key = read(method, &path, &without).is_err();
            assert_eq!(
                described["required"] == true,
                must_have_key,
                "{method} {path}"
            );
        }
    }
}

/// The examples of an operation's body, by name.
fn examples(operation: &Value) -> Vec<(&str, &Value)> {
    let content = &operation["requestBody"]["content"]["application/json"];
    let examples = content["examples"].as_object().into_iter().flatten();
    examples
        .map(|(name, example)| (name.as_str(), &example["value"]))
        .collect()
}

#[test]
fn every_example_of_a_body_is_read() {
    for (method, path, operation) in operations(&document()) {
        for (name, example) in examples(operation) {
            let read = send(&method, path, &example.to_string());
            assert!(read.is_ok(), "{method} {path} {name}: {read:?}");
        }
    }
}

#[test]
fn every_field_of_a_body_is_read_within_the_bounds_that_it_is_described_with() {
    let document = document();
    for (method, path, operation) in operations(&document) {
        let Some((_, example)) = examples(operation).into_iter().next_back() else {
            continue;
        };
        let content = &operation["requestBody"]["content"]["application/json"];
        let schema = followed(&document, &content["schema"]);
        check_fields(&document, schema, &|field, value, good| {
            let mut body = json!({});
            for required in schema["required"].as_array().into_iter().flatten() {
                let required = required.as_str().unwrap();
                body[required] = example[required].clone();
            }
            let needed = &schema["dependentSchemas"][field]["properties"];
            for (other, needed) in needed.as_object().into_iter().flatten() {
                body[other] = needed["const"].clone();
            }
            body[field] = value.clone();
            let read = send(&method, path, &body.to_string());
            assert_eq!(read.is_ok(), good, "{method} {path} {body:.200} {read:?}");
        });
        // Nothing else is read.
        let unknown = send(&method, path, r#"{"?":1}"#).unwrap_err();
        assert_eq!(
            known_in(&unknown),
            names(&schema["properties"]),
            "{method} {path}"
        );
    }
}

/// The names that a refusal of an unknown one lists.
fn known_in(problem: &Problem) -> BTreeSet<&str> {
    let list = problem
        .detail
        .split_once("expected only ")
        .map(|(_, list)| list);
    list.into_iter().flat_map(|list| list.split(", ")).collect()
}

/// Tries each field of an object with what its schema just allows and what it just does not.
fn check_fields(document: &Value, schema: &Value, check: &dyn Fn(&str, &Value, bool)) {
    for (name, property) in schema["properties"].as_object().unwrap() {
        let kinds = kinds(document, property);
        check(
            name,
            &Value::Null,
            kinds.iter().any(|kind| allows_null(kind)),
        );
        check(name, &json!([{}]), false);
        for kind in kinds {
            if kind["properties"].is_null() {
                for (value, good) in bounds(kind) {
                    check(name, &value, good);
                }
            } else {
                check(name, &json!({}), true);
                check(name, &json!({ "?": 1 }), false);
                check_fields(document, kind, &|inner, value, good| {
                    check(name, &json!({ inner: value }), good);
                });
            }
        }
    }
}

/// The alternatives of a schema.
fn kinds<'d>(document: &'d Value, schema: &'d Value) -> Vec<&'d Value> {
    let schema = followed(document, schema);
    let alternatives = schema["oneOf"].as_array().or(schema["anyOf"].as_array());
    match alternatives {
        Some(alternatives) => alternatives
            .iter()
            .flat_map(|schema| kinds(document, schema))
            .collect(),
        None => vec![schema],
    }
}

fn allows_null(schema: &Value) -> bool {
    let null = json!("null");
    schema["type"] == null
        || schema["type"]
            .as_array()
            .is_some_and(|types| types.contains(&null))
}

/// Values at the bounds of a schema, and whether they are inside.
fn bounds(schema: &Value) -> Vec<(Value, bool)> {
    let mut values = Vec::new();
    let integer = |pointer: &str| schema[pointer].as_i64();
    if let Some(least) = integer("minimum") {
        let is_signed = !schema["not"].is_null();
        values.push((json!(least), true));
        values.push((json!(least - 1), false));
        values.push((json!(0), !is_signed && least == 0));
    }
    if let Some(most) = integer("maximum") {
        // The largest quantity depends on the price.
        if schema["multipleOf"].is_null() {
            values.push((json!(most), true));
            values.push((json!(most + 1), false));
            values.push((json!(1.5), false));
        } else {
            values.push((json!(1.125), true));
            values.push((json!(1.0625), false));
        }
    }
    for word in schema["enum"].as_array().into_iter().flatten() {
        values.push((word.clone(), true));
    }
    if !schema["enum"].is_null() {
        values.push((json!("Unheard-of"), false));
    }
    if let Some(word) = schema["const"].as_str() {
        values.extend([(json!(word), true), (json!(word.to_uppercase()), false)]);
    }
    if let Some(most) = schema["maxLength"]
        .as_u64()
        .map(|most| usize::try_from(most).unwrap())
    {
        // An address needs something around its @.
        let text = |length: usize| match schema["minLength"].as_u64() {
            Some(_) => json!("ä".repeat(length)),
            None => json!(format!("a@{}", "b".repeat(length - 2))),
        };
        values.extend([(text(most), true), (text(most + 1), false)]);
        values.push((json!(""), false));
        for control in ["\u{85}", "\u{202a}", "\u{202e}", "\u{2066}", "\u{2069}"] {
            values.push((json!(format!("a{control}@b")), false));
        }
        for sign in ["\u{200f}", "\u{2030}", "\u{2065}", "\u{206a}"] {
            values.push((json!(format!("{sign}a@b")), true));
        }
    }
    if schema["format"] == "date-time" {
        values.extend([
            (json!("2031-01-01T00:00:00+01:00"), true),
            (json!("2031-01-01"), false),
        ]);
    }
    if schema["type"] == "array" {
        let most = schema["maxItems"].as_u64().unwrap();
        let distinct = |count: u64| (0..count).map(|n| json!(format!("GET /{n}"))).collect();
        values.extend([
            (Value::Array(distinct(most)), true),
            (Value::Array(distinct(most + 1)), false),
            (json!([]), false),
            (json!(["GET /a", "GET /a"]), false),
        ]);
        for (item, good) in bounds(&schema["items"]) {
            values.push((json!([item]), good));
        }
    }
    values
}

#[test]
fn every_parameter_is_read_within_the_bounds_that_it_is_described_with() {
    let document = document();
    for (method, path, operation) in operations(&document) {
        // The quote's parameters are read where it is told.
        if method != "GET" || path == "/quote" || path.ends_with("/healthz") {
            continue;
        }
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let parameters: Vec<&Value> = parameters
            .map(|parameter| followed(&document, parameter))
            .collect();
        let described: BTreeSet<&str> = parameters
            .iter()
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        let unknown = ask(path, "?=1").unwrap_err();
        assert_eq!(known_in(&unknown), described, "{path}");
        for parameter in parameters {
            assert_eq!(parameter["in"], "query", "{path}");
            let name = parameter["name"].as_str().unwrap();
            let schema = followed(&document, &parameter["schema"]);
            for (value, good) in bounds(schema) {
                // What the two may be depends on each other.
                if name == "offset" && value.as_i64() > Some(0) {
                    continue;
                }
                let text = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                let text = text.replace('+', "%2B");
                let asked = ask(path, &format!("{name}={text}"));
                assert_eq!(asked.is_ok(), good, "{path}?{name}={text}");
            }
        }
    }
    assert!(ask("/usage", "limit=1&offset=3999").is_ok());
    assert!(ask("/usage", "limit=1&offset=4000").is_err());
}

#[test]
fn every_problem_is_described_with_an_example_and_listed_under_its_status() {
    let document = document();
    let components = &document["components"];
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(components["schemas"]["ProblemCode"]["enum"], json!(codes));
    assert_eq!(
        names(&components["examples"]),
        codes.iter().copied().collect()
    );
    for code in Code::ALL {
        let example = &components["examples"][code.as_str()]["value"];
        let plain = Problem::new(code, example["detail"].as_str().unwrap());
        let told: Value = serde_json::from_str(&plain.to_json("req_0d24c8c301b00c")).unwrap();
        for (member, value) in told.as_object().unwrap() {
            assert_eq!(&example[member], value, "{code:?} {member}");
        }
    }
    for (name, response) in components["responses"].as_object().unwrap() {
        let content = &response["content"]["application/problem+json"];
        let narrowed = &content["schema"]["allOf"][1]["properties"];
        for code in narrowed["code"]["enum"].as_array().unwrap() {
            let code = Code::ALL
                .into_iter()
                .find(|known| known.as_str() == code)
                .unwrap();
            assert_eq!(narrowed["status"]["const"], code.status(), "{name}");
        }
        let examples = names(&content["examples"]);
        let listed = narrowed["code"]["enum"].as_array().unwrap();
        assert_eq!(
            examples,
            listed.iter().filter_map(Value::as_str).collect(),
            "{name}"
        );
    }
    for (method, path, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let content = &followed(&document, response)["content"];
            let problem = &content["application/problem+json"]["schema"]["allOf"][1];
            let narrowed = &problem["properties"]["status"]["const"];
            let told = narrowed.as_u64().map(|status| status.to_string());
            assert!(
                told.is_none_or(|told| told == *status),
                "{method} {path} {status}"
            );
            assert_eq!(
                status.starts_with('2'),
                narrowed.is_null(),
                "{method} {path} {status}"
            );
        }
    }
}

#[test]
fn every_word_of_an_answer_is_described() {
    fn names<T>(from_number: impl Fn(u8) -> Option<T>, name: impl Fn(T) -> &'static str) -> Value {
        (0..=u8::MAX).filter_map(from_number).map(name).collect()
    }
    let mut marks = names(Mark::from_number, Mark::as_str);
    marks.as_array_mut().unwrap().push(Value::Null);
    let mut kinds = names(EntryKind::from_number, EntryKind::as_str);
    let charged = [LineKind::Charged, LineKind::ChargedInMonth].map(|kind| json!(kind.as_str()));
    kinds.as_array_mut().unwrap().splice(0..0, charged);
    let document = document();
    for (schema, member, words) in [
        (
            "Call",
            "state",
            names(CallState::from_number, CallState::as_str),
        ),
        ("Call", "mark", marks),
        ("LedgerLine", "kind", kinds),
    ] {
        let described = &document["components"]["schemas"][schema]["properties"][member]["enum"];
        assert_eq!(*described, words, "{schema}.{member}");
    }
    let violated = &document["components"]["schemas"]["Problem"]["properties"]["violated-policies"];
    // As it travels: every number that has a policy.
    let policies: Vec<ViolatedPolicy> = (0..24)
        .map_while(|number| minicbor::decode(&[0x82, number, 0x80]).ok())
        .collect();
    assert_eq!(violated["items"]["enum"], json!(policies));
}

#[test]
fn every_reference_leads_somewhere_and_every_component_is_referred_to() {
    let document = document();
    let mut referred = BTreeSet::new();
    collect_references(&document, &mut referred);
    for reference in &referred {
        followed(&document, &json!({ "$ref": reference }));
    }
    for (kind, components) in document["components"].as_object().unwrap() {
        for name in names(components) {
            let reference = format!("#/components/{kind}/{name}");
            let is_apart = match kind.as_str() {
                "securitySchemes" => true,
                // Those of calls of the API behind the gateway, and of each path.
                "examples" => !referred.contains(&reference),
                _ => false,
            };
            assert!(is_apart || referred.contains(&reference), "{reference}");
        }
    }
    let ids: Vec<&str> = operations(&document)
        .iter()
        .map(|(_, _, operation)| operation["operationId"].as_str().unwrap())
        .collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
}

fn collect_references(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            into.extend(
                members
                    .get("$ref")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
            );
            members
                .values()
                .for_each(|value| collect_references(value, into));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, into)),
        _ => {}
    }
}

#[test]
fn a_deployment_describes_its_pages_where_it_has_them() {
    let policy = |gateway: &str, pages: &str| {
        let text = format!(
            "[gateway]\nkey_prefix = \"tk_live\"\n{gateway}\n[origins]\n\
             default = \"https://origin.example.com\"\n[pools.credits]\n[plans.free]\n\
             [[routes]]\nmatch = \"POST /search\"\ncost = 1\n[self_service]\n{pages}"
        );
        Policy::parse(&text).unwrap()
    };
    let usual: Value = serde_json::from_str(&openapi(DOCUMENT, &policy("", ""))).unwrap();
    assert_eq!(usual, document());

    let policy = policy(
        "base_path = \"/api/v1\"",
        "me = \"/account\"\nledger = false\n",
    );
    let told: Value = serde_json::from_str(&openapi(DOCUMENT, &policy)).unwrap();
    let (mut expected, plain) = (document(), document());
    let paths = expected["paths"].as_object_mut().unwrap();
    for (_, page, _) in PAGES {
        paths.remove(page);
        let place = match page {
            "/ledger" => continue,
            "/me" => "/api/v1/account".to_owned(),
            page => format!("/api/v1{page}"),
        };
        paths.insert(place, plain["paths"][page].clone());
    }
    assert_eq!(told, expected);
}
