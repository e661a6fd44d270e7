//! What a hostile policy, or a hostile caller of any policy, can make of the work: told in steps.

use super::{
    Policy, Route,
    pattern::KeyPattern,
    quote::{Choice, Facts, choose},
    router::Router,
};
use crate::{path::CanonicalPath, price::OnUnknown, steps};

fn policy(routes: &str) -> Policy {
    let text = format!(
        "[gateway]\nkey_prefix = \"tk\"\n[origins]\ndefault = \"zone\"\n[pools.credits]\n[plans.free]\n{routes}"
    );
    Policy::parse(&text).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// As many routes of one path, each with a `when` for each of these fields.
fn conditional(routes: usize, fields: &[String]) -> Policy {
    let routes: Vec<String> = (0..routes)
        .map(|number| {
            let (last, others) = fields.split_last().unwrap();
            let others: String = others.iter().map(|field| format!("\"{field}\" = \"x\", ")).collect();
            format!("[[routes]]\nmatch = \"POST /a\"\ncost = 1\nwhen = {{ {others}\"{last}\" = \"y{number}\" }}\n")
        })
        .collect();
    policy(&routes.concat())
}

fn steps_to_choose(policy: &Policy, query: &str, body: &str) -> usize {
    let candidates: Vec<&Route> = policy.routes.iter().collect();
    let header = |name: &str| match name {
        "content-type" => vec!["application/json".to_owned()],
        _ => Vec::new(),
    };
    let facts = Facts {
        query,
        header: &header,
        body: Some(body.as_bytes()),
    };
    steps::of(|| match choose(&candidates, facts, OnUnknown::Release) {
        Choice::Refused(_) => {}
        other => panic!("{other:?}"),
    })
}

/// Bodies of about so many bytes that are all path, all depth, all names, or all but what is looked for.
fn hostile_bodies(bytes: usize, path: &[&str]) -> Vec<String> {
    let open: String = path.iter().map(|name| format!("{{\"{name}\":")).collect();
    let close = "}".repeat(path.len());
    let around = |inside: String| format!("{open}{inside}{close}");
    let members = |name: &str| {
        let one = format!("\"{name}\":{{\"{name}\":0}},");
        format!("{{{}\"z\":0}}", one.repeat(bytes / one.len()))
    };
    vec![
        around(format!("\"{}\"", "x".repeat(bytes))),
        around(format!("\"{}\"", "\\u0078".repeat(bytes / 6))),
        around("[".repeat(bytes / 2) + &"]".repeat(bytes / 2)),
        around("{\"a\":".repeat(bytes / 6) + "0" + &"}".repeat(bytes / 6)),
        around("[".repeat(bytes)),
        around(" ".repeat(bytes)),
        members("a"),
        members("A"),
        members("\\u0061"),
        members("b"),
        around(members("a")),
        "{\"a\":".repeat(bytes / 5),
        "\"".repeat(bytes),
        "\\".repeat(bytes),
    ]
}

/// Each condition reads the body once to check it, and once for each level of its path.
#[test]
fn a_when_reads_a_hostile_body_once_for_each_level_of_each_condition() {
    const LOOKS_AT_A_BYTE: usize = 4;
    for (routes, conditions, levels) in [(1, 1, 1), (8, 1, 1), (1, 8, 1), (1, 1, 8), (8, 8, 8)] {
        let path = vec!["a"; levels];
        let mut fields = vec![format!("body.{}", path.join("."))];
        fields.extend((1..conditions).map(|other| format!("body.b{other}")));
        let policy = conditional(routes, &fields);
        for bytes in [1_000, 2_000, 4_000] {
            for body in hostile_bodies(bytes, &path) {
                let steps = steps_to_choose(&policy, "", &body);
                let most = LOOKS_AT_A_BYTE * body.len() * routes * conditions * (levels + 1);
                assert!(steps <= most, "{steps} steps of {most}, {}", &body[..40]);
            }
        }
    }
}

#[test]
fn a_when_reads_a_hostile_query_once_for_each_condition() {
    for (routes, conditions) in [(1, 1), (8, 1), (1, 8), (8, 8)] {
        let fields: Vec<String> = (0..conditions)
            .map(|field| format!("query.a{field}"))
            .collect();
        let policy = conditional(routes, &fields);
        for pairs in [100, 200, 400] {
            for pair in ["&", "b=a0&", "%61=x&", "[a0]=&", "a=a=a=&"] {
                let query = pair.repeat(pairs);
                let steps = steps_to_choose(&policy, &query, "{}");
                assert!(
                    steps <= routes * conditions * (pairs + 1),
                    "{steps}, {pair}"
                );
            }
        }
    }
}

/// `segments` segments, each a name or a literal, in all ways: as many routes as a walk that tries all of
/// them has to visit for each path.
fn all_ways(segments: u32) -> Policy {
    let routes: Vec<String> = (0..1_u32 << segments)
        .map(|ways| {
            let path: String = (0..segments)
                .map(|at| match ways >> at & 1 {
                    0 => "/a".to_owned(),
                    _ => format!("/{{n{at}}}"),
                })
                .collect();
            format!("[[routes]]\nmatch = \"GET {path}/end{ways}\"\ncost = 1\n")
        })
        .collect();
    policy(&routes.concat())
}

#[test]
fn a_path_takes_no_more_steps_than_the_policy_has_segments() {
    for segments in 1..=8 {
        let policy = all_ways(segments);
        let in_policy = policy.routes.len() * (segments as usize + 1);
        let router = Router::new(&policy);
        let depth = segments as usize;
        for path in [
            "/a".repeat(depth) + "/end0",
            "/a".repeat(depth) + "/END0",
            "/a".repeat(depth) + "/nothing",
            "/a".repeat(depth - 1) + "/",
            "/A".repeat(depth) + "/end0/",
            "/a".repeat(4_000),
            "/a".repeat(8_000),
        ] {
            let path = CanonicalPath::parse(&path).unwrap();
            let steps = steps::of(|| router.find("GET", "", &path));
            // With and without a closing slash, among pages and routes; then those that fit, one by one.
            assert!(
                steps <= 5 * in_policy,
                "{steps} steps, {in_policy} segments"
            );
        }
    }
}

#[test]
fn checking_a_policy_takes_steps_as_the_square_of_its_routes_at_most() {
    let steps_of = |segments: u32| {
        let policy = all_ways(segments);
        let routes = policy.routes.len();
        (
            steps::of(|| all_ways(segments)),
            routes * routes * (segments as usize + 1),
        )
    };
    for segments in 1..=8 {
        let (steps, most) = steps_of(segments);
        assert!(steps <= most, "{steps} steps of {most}");
    }
}

#[test]
fn a_pattern_takes_a_step_for_each_character() {
    let read = |pattern: &str| -> KeyPattern {
        let route = "[[routes]]\nmatch = \"GET /a\"\ncost = 1\n";
        policy(&format!(
            "[imported_keys]\npattern = \"{pattern}\"\n{route}"
        ))
        .imported_keys
        .unwrap()
    };
    for pattern in [
        "sk_[0-9a-f]{32}",
        "[g-z]{1,100}[0-9a-f]{16,150}",
        "sk_[a-z]{1,80}_[a-z0-9]{16,90}",
    ] {
        let pattern = read(pattern);
        for text in ["a", "0", "a_", "sk_", "_", "\u{e9}"] {
            for times in [1, 100, 10_000] {
                let text = text.repeat(times);
                let steps = steps::of(|| pattern.matches(&text));
                assert!(steps <= text.len(), "{steps}");
            }
        }
    }
}
