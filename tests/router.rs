//! Which routes a request is for.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use proptest::prelude::*;
use tollgate::{
    path::CanonicalPath,
    policy::{
        Policy,
        router::{Found, Page, Router},
        template::Template,
    },
};

fn policy(gateway: &str, routes: &[&str]) -> Policy {
    let routes: String = routes
        .iter()
        .map(|route| {
            let (matched, more) = route.split_once(" | ").unwrap_or((route, "cost = 1"));
            format!("[[routes]]\nmatch = \"{matched}\"\n{more}\n")
        })
        .collect();
    let text = format!(
        "[gateway]\nkey_prefix = \"tk\"\n{gateway}\n[origins]\ndefault = \"zone\"\n[pools.credits]\n[plans.free]\n{routes}"
    );
    Policy::parse(&text).unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}"))
}

/// What is found, in short: the routes by number, or a word.
fn find(policy: &Policy, request: &str) -> String {
    let mut parts = request.split(' ');
    let (method, path) = (parts.next().unwrap(), parts.next().unwrap());
    let host = parts.next().unwrap_or("api.example.com");
    let path = CanonicalPath::parse(path).unwrap();
    match Router::new(policy).find(method, host, &path) {
        Found::Candidates(routes) => routes
            .into_iter()
            .map(|route| {
                let index = policy
                    .routes
                    .iter()
                    .position(|other| std::ptr::eq(other, route));
                index.unwrap().to_string()
            })
            .collect::<Vec<_>>()
            .join(" "),
        Found::NotAllowed { allow } => format!("405 {allow}"),
        Found::Unmatched(_) => "unmatched".into(),
        Found::NoRoute => "404".into(),
        Found::SelfService(page) => format!("{page:?}"),
        Found::Admin => "admin".into(),
    }
}

fn check(policy: &Policy, cases: &[(&str, &str)]) {
    for (request, found) in cases {
        assert_eq!(find(policy, request), *found, "{request}");
    }
}

#[test]
fn a_request_finds_the_routes_that_fit_in_the_order_of_the_file() {
    let policy = policy(
        "base_path = \"/api/v1\"",
        &[
            "POST /create | when = { \"query.a\" = \"1\" }\ncost = 1",
            "POST /create | when = { \"query.b\" = \"1\" }\ncost = 2",
            "POST /create",
            "GET /tracks/{id}",
            "GET /tracks/{id}/preview",
            "PUT /tracks/new",
            "PUT /tracks/{id}",
            "POST /hooks/* | public = true\nroot = true",
        ],
    );
    check(
        &policy,
        &[
            ("POST /api/v1/create", "0 1 2"),
            ("GET /api/v1/tracks/7", "3"),
            ("GET /api/v1/tracks/%37", "3"),
            ("GET /api/v1/tracks/7/preview", "4"),
            ("PUT /api/v1/tracks/new", "5"),
            ("PUT /api/v1/tracks/7", "6"),
            ("POST /hooks/a/b", "7"),
            ("POST /hooks/", "7"),
            ("GET /api/v1/tracks", "404"),
            ("POST /create", "404"),
            ("POST /api/v1/hooks/a", "404"),
            ("GET /api/v1", "404"),
            ("GET /", "404"),
        ],
    );
}

#[test]
fn a_known_path_with_another_method_is_405_with_allow() {
    let policy = policy(
        "unmatched = { cost = 1 }",
        &["POST /a", "GET /a", "DELETE /a", "POST /b"],
    );
    check(
        &policy,
        &[
            ("PUT /a", "405 DELETE, GET, HEAD, POST"),
            ("GET /b", "405 POST"),
            ("HEAD /b", "405 POST"),
            ("post /b", "405 POST"),
            ("TRACE /b", "405 POST"),
            ("CONNECT /nowhere", "405 "),
            ("GET /nowhere", "unmatched"),
        ],
    );
}

#[test]
fn head_is_get_unless_a_route_names_it() {
    let policy = policy(
        "",
        &["GET /a", "GET /b", "HEAD /b", "HEAD /b/{x}", "GET /b/{x}"],
    );
    check(
        &policy,
        &[
            ("HEAD /a", "0"),
            ("HEAD /b", "2"),
            ("GET /b", "1"),
            ("HEAD /b/1", "3"),
        ],
    );
}

#[test]
fn a_route_with_a_host_is_for_that_host_alone() {
    let policy = policy(
        "",
        &[
            "GET /a | cost = 1\nhost = \"music.example.com\"",
            "GET /a",
            "GET /b | cost = 1\nhost = \"music.example.com\"",
        ],
    );
    check(
        &policy,
        &[
            ("GET /a music.example.com", "0"),
            ("GET /a other.example.com", "1"),
            ("GET /b music.example.com", "2"),
            ("GET /b other.example.com", "404"),
            ("POST /b other.example.com", "404"),
            ("POST /b music.example.com", "405 GET, HEAD"),
        ],
    );
}

#[test]
fn a_path_off_by_case_or_a_slash_is_404_where_others_have_a_price() {
    let policy = policy(
        "base_path = \"/Api\"\nunmatched = { cost = 1 }",
        &[
            "POST /search",
            "GET /tracks/{id}",
            "GET /files/*",
            "GET /caf%C3%A9",
        ],
    );
    check(
        &policy,
        &[
            ("POST /Api/Search", "404"),
            ("POST /Api/search/", "404"),
            ("GET /Api/SEARCH/", "404"),
            ("POST /api/search", "404"),
            ("GET /Api/tracks/7/", "404"),
            ("GET /Api/Tracks/7", "404"),
            ("GET /Api/files", "404"),
            ("GET /Api/CAF%C3%89", "404"),
            ("GET /Api/ME", "404"),
            ("GET /Api/usage/", "404"),
            ("GET /_Tollgate/v1", "404"),
            ("GET /Api/tracks/", "unmatched"),
            ("GET /Api/searching", "unmatched"),
            ("GET /Api", "unmatched"),
            ("GET /other", "unmatched"),
        ],
    );
}

/// An origin that is blind to the difference serves `/Search` as `/search`: a route that takes
/// all the rest must not sell it for less.
#[test]
fn a_catch_all_does_not_undercut_a_route_before_it() {
    let dear_first = policy(
        "",
        &[
            "POST /search | cost = 15",
            "POST /{word}/x",
            "GET /search",
            "POST /*",
        ],
    );
    check(
        &dear_first,
        &[
            ("POST /search", "0"),
            ("POST /Search", "404"),
            ("POST /search/", "404"),
            ("POST /other/x", "1"),
            ("POST /other/x/", "404"),
            ("POST /other/X", "404"),
            ("POST /other/y", "3"),
        ],
    );
    let told_apart = policy(
        "",
        &[
            "GET /files/*",
            "GET /files",
            "GET /Files",
            "GET /a/{x}/",
            "GET /a/{x}",
            "GET /A/*",
        ],
    );
    check(
        &told_apart,
        &[
            ("GET /files/", "0"),
            ("GET /files/7", "0"),
            ("GET /files", "1"),
            ("GET /Files", "2"),
            ("GET /FILES", "404"),
            ("GET /a/7/", "3"),
            ("GET /a/7", "4"),
            ("GET /A/7/8", "5"),
            ("GET /A/7", "404"),
        ],
    );
}

#[test]
fn tollgates_own_paths_come_first_whatever_the_method() {
    let policy = policy(
        "base_path = \"/v1\"",
        &["GET /*", "POST /*", "GET /* | public = true\nroot = true"],
    );
    check(
        &policy,
        &[
            ("GET /_tollgate", "admin"),
            ("POST /_tollgate/v1/accounts", "admin"),
            ("GET /_tollgates", "2"),
            ("GET /v1/me", "Me"),
            ("POST /v1/me", "Me"),
            ("GET /v1/usage", "Usage"),
            ("GET /v1/usage/summary", "UsageSummary"),
            ("GET /v1/ledger", "Ledger"),
            ("GET /v1/get-credits", "GetCredits"),
            ("GET /v1/quote", "Quote"),
            ("GET /v1/other", "0"),
            ("GET /me", "2"),
        ],
    );
}

#[test]
fn a_page_that_is_renamed_or_switched_off_leaves_its_path() {
    let text = "[gateway]\nkey_prefix = \"tk\"\n[origins]\ndefault = \"zone\"\n[pools.credits]\n[plans.free]\n\
                [[routes]]\nmatch = \"GET /me\"\ncost = 1\n[self_service]\nme = \"/account\"\nquote = false\n";
    let policy = Policy::parse(text).unwrap();
    check(
        &policy,
        &[
            ("GET /me", "0"),
            ("GET /account", "Me"),
            ("GET /quote", "404"),
        ],
    );
    assert!(matches!(
        Router::new(&policy).find("GET", "", &CanonicalPath::parse("/account").unwrap()),
        Found::SelfService(Page::Me)
    ));
}

/// A thousand routes that share every prefix, and a path as long as they come.
#[test]
fn a_hostile_path_costs_no_more_than_the_tree() {
    let routes: Vec<String> = (0_u32..512)
        .map(|n| {
            let segments: String = (0..9)
                .map(|bit| {
                    if n >> bit & 1 == 0 {
                        "/a".to_owned()
                    } else {
                        format!("/{{p{bit}}}")
                    }
                })
                .collect();
            format!("GET {segments}/{n}")
        })
        .collect();
    let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
    let policy = policy("", &routes);
    assert_eq!(find(&policy, &format!("GET {}/17", "/a".repeat(9))), "17");
    assert_eq!(find(&policy, &format!("GET {}", "/a".repeat(8_000))), "404");
}

/// The rules of routing, told route by route.
fn naive(policy: &Policy, method: &str, path: &CanonicalPath) -> String {
    let other = match path.as_str().strip_suffix('/') {
        Some("") => path.clone(),
        Some(without) => CanonicalPath::parse(without).unwrap(),
        None => CanonicalPath::parse(&format!("{path}/")).unwrap(),
    };
    let lower = |path: &CanonicalPath| CanonicalPath::parse(&path.as_str().to_lowercase()).unwrap();
    let (mut exact, mut near) = (Vec::new(), Vec::new());
    for (index, route) in policy.routes.iter().enumerate() {
        let blind = Template::parse(&route.template.to_lowercase()).unwrap();
        if Template::parse(&route.template).unwrap().matches(path) {
            exact.push(index);
        } else if blind.matches(&lower(path)) || blind.matches(&lower(&other)) {
            near.push(index);
        }
    }
    let names_head = exact
        .iter()
        .any(|index| policy.routes[*index].method == "HEAD");
    let method = if method == "HEAD" && !names_head {
        "GET"
    } else {
        method
    };
    let of_method = |index: &&usize| policy.routes[**index].method == method;
    match exact.iter().find(of_method) {
        Some(first) => {
            let before = near.iter().filter(of_method).any(|near| {
                near < first
                    && !at_least_as_explicit(
                        &policy.routes[*first].template,
                        &policy.routes[*near].template,
                    )
            });
            if before {
                "404".into()
            } else {
                first.to_string()
            }
        }
        None if !exact.is_empty() => "405".into(),
        None if !near.is_empty() => "404".into(),
        None => "unmatched".into(),
    }
}

fn at_least_as_explicit(ours: &str, theirs: &str) -> bool {
    let rank = |segment: &str| match segment {
        "*" => 0,
        name if name.starts_with('{') => 1,
        _ => 2,
    };
    let ours: Vec<&str> = ours.split('/').skip(1).collect();
    // A closing slash alone is told apart by every template that does not end in `*`.
    theirs
        .split('/')
        .skip(1)
        .enumerate()
        .all(|(index, theirs)| match ours.get(index) {
            Some(ours) => rank(ours) >= rank(theirs) || (theirs.is_empty() && *ours != "*"),
            None => rank(theirs) < 2 || theirs.is_empty(),
        })
}

fn template() -> impl Strategy<Value = String> {
    (prop::collection::vec("a|A|b|\\{NAME\\}", 0..4), "|/|/\\*").prop_map(|(segments, end)| {
        let named: String = segments
            .iter()
            .enumerate()
            .map(|(index, segment)| format!("/{}", segment.replace("NAME", &format!("n{index}"))))
            .collect();
        let whole = format!("{named}{end}");
        if whole.is_empty() { "/".into() } else { whole }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_router_agrees_with_a_list_of_routes(
        templates in prop::collection::vec(("GET|POST|HEAD", template()), 1..8),
        requests in prop::collection::vec(("GET|POST|HEAD", "(/(a|A|b|c)){0,4}/?"), 1..8),
    ) {
        let routes: String = templates
            .iter()
            .map(|(method, template)| format!("[[routes]]\nmatch = \"{method} {template}\"\ncost = 1\n"))
            .collect();
        let off = ["me", "usage", "usage_summary", "ledger", "get_credits", "quote"].map(|page| format!("{page} = false\n")).concat();
        let text = format!("[gateway]\nkey_prefix = \"tk\"\nunmatched = {{ cost = 1 }}\n[origins]\ndefault = \"zone\"\n[pools.credits]\n[plans.free]\n{routes}[self_service]\n{off}");
        // Some of these policies have routes that no call reaches, which is a mistake.
        if let Ok(policy) = Policy::parse(&text) {
            for (method, path) in requests.iter().filter(|(_, path)| !path.is_empty()) {
                let expected = naive(&policy, method, &CanonicalPath::parse(path).unwrap());
                let found = find(&policy, &format!("{method} {path}"));
                let found = if found.starts_with("405") { "405" } else { &found };
                prop_assert_eq!(found, expected, "{} {} of\n{}", method, path, routes);
            }
        }
    }
}

/// Each segment of a hostile set of templates is a name or a literal, in all 128 ways: a walk that
/// tries all of them for each segment anew would never end.
#[test]
fn hostile_templates_are_searched_in_time_that_the_policy_bounds() {
    const SEGMENTS: u32 = 7;
    let templates: Vec<String> = (0..1_u32 << SEGMENTS)
        .map(|ways| {
            let path: String = (0..SEGMENTS)
                .map(|at| match ways >> at & 1 {
                    0 => "/a".to_owned(),
                    _ => format!("/{{n{at}}}"),
                })
                .collect();
            format!("GET {path}/end{ways}")
        })
        .collect();
    let routes: Vec<&str> = templates.iter().map(String::as_str).collect();
    let policy = policy("", &routes);
    let router = Router::new(&policy);
    for (path, found) in [
        (format!("{}/end0", "/a".repeat(7)), true),
        (format!("{}/end127", "/b".repeat(7)), true),
        (format!("{}/nothing", "/a".repeat(7)), false),
        (format!("{}/", "/a".repeat(6)), false),
        ("/a".repeat(5_000), false),
    ] {
        let path = CanonicalPath::parse(&path).unwrap();
        for _ in 0..200 {
            let is_found = matches!(
                router.find("GET", "api.example.com", &path),
                Found::Candidates(_)
            );
            assert_eq!(is_found, found, "{}", path.as_str().len());
        }
    }
}
