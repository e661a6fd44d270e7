//! `policy.toml`: what is read, and what is a mistake.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use proptest::prelude::*;
use tollgate::{
    credits::Credits,
    event::EventType,
    payments::money::Money,
    policy::{
        Access, Amount, Cors, Field, Grant, Mode, Origin, Package, Payments, Policy, Renews,
        Source, TopUpOffer, WhenUnavailable,
    },
    price::{ChargeOn, Job, OnUnknown, Quantity},
    time::{Calendar, Span},
};

/// Every field of a policy, with values that are not its defaults.
const FULL: &str = include_str!("policies/full.toml");

const GATEWAY: &str = "[gateway]\nkey_prefix = \"tk_live\"\n";
const ORIGINS: &str = "[origins]\ndefault = \"https://origin.example.com\"\n";
const POOLS: &str = "[pools.credits]\n[pools.lyrics]\n";
const PLANS: &str = "[plans.free]\n";
const ROUTES: &str = "[[routes]]\nmatch = \"POST /search\"\ncost = 1\n";

/// A small policy with `lines` added to one of its sections; `""` adds tables of their own.
fn with(section: &str, lines: &str) -> String {
    [
        ("gateway", GATEWAY),
        ("origins", ORIGINS),
        ("pools", POOLS),
        ("plans", PLANS),
        ("routes", ROUTES),
        ("", ""),
    ]
    .map(|(name, text)| {
        let added = if name == section { lines } else { "" };
        format!("{text}{added}\n")
    })
    .concat()
}

/// A small policy whose one route has these lines.
fn with_route(lines: &str) -> String {
    format!("{GATEWAY}{ORIGINS}{POOLS}{PLANS}[[routes]]\n{lines}\n")
}

fn mistakes(text: &str) -> String {
    Policy::parse(text).map_or_else(|mistakes| mistakes.to_string(), |_| "none".to_owned())
}

fn parse(text: &str) -> Policy {
    Policy::parse(text).unwrap_or_else(|mistakes| panic!("{mistakes}\nin\n{text}"))
}

fn credits(amount: u64) -> Credits {
    Credits::new(amount).unwrap()
}

#[test]
fn a_field_that_is_absent_has_its_default() {
    let policy = parse(&with("", ""));
    let gateway = &policy.gateway;
    assert_eq!(gateway.base_path, "");
    assert_eq!(gateway.key_prefixes, ["tk_live"]);
    assert_eq!(gateway.mode, Mode::Enforce);
    assert_eq!(gateway.unmatched, None);
    assert_eq!(gateway.origin_timeout, Span::from_seconds(100));
    assert_eq!(gateway.hold, Span::from_seconds(300));
    assert_eq!(gateway.on_unknown, OnUnknown::Release);
    assert_eq!(gateway.forgive_per_day, 20);
    assert!(!gateway.forward_key);
    assert_eq!(gateway.calendar, Calendar::default());
    assert_eq!(gateway.usage_days, 90);
    assert_eq!(gateway.retain_days, 400);
    assert_eq!(gateway.body_limit, 65_536);
    assert_eq!(gateway.region, None);
    assert_eq!(gateway.cors, Cors::Origin);
    assert_eq!(gateway.when_unavailable, WhenUnavailable::Refuse);
    assert!(!gateway.extra_needs_subscription);
    assert_eq!(gateway.admin_hosts, None);
    assert_eq!(policy.imported_keys, None);
    assert_eq!(policy.packages, []);
    assert_eq!(policy.payments, Payments::default());
    assert_eq!(
        policy.self_service.purchase.as_deref(),
        Some("/credits/purchase")
    );
    assert_eq!(
        policy.self_service.subscription.as_deref(),
        Some("/subscription")
    );
    assert_eq!(
        policy.self_service.billing_history.as_deref(),
        Some("/billing/history")
    );
    assert_eq!(
        policy.self_service.billing_portal.as_deref(),
        Some("/billing/portal")
    );
    assert_eq!(policy.notifications, None);
    assert_eq!(policy.top_up, None);
    assert_eq!(policy.unusual, None);

    let pool = &policy.pools["credits"];
    assert_eq!(
        pool.spend_first,
        [Source::Promo, Source::Extra, Source::Subscription]
    );
    assert_eq!(pool.restore, Span::from_days(7));
    assert_eq!(policy.self_service.me.as_deref(), Some("/me"));
    assert_eq!(
        policy.self_service.get_credits.as_deref(),
        Some("/get-credits")
    );

    let route = &policy.routes[0];
    assert_eq!(
        (route.method.as_str(), route.template.as_str()),
        ("POST", "/search")
    );
    assert_eq!(route.timeout, Span::from_seconds(100));
    let Access::Priced(price) = &route.access else {
        panic!("{route:?}");
    };
    assert_eq!(price.amount, Amount::Fixed(credits(1)));
    assert_eq!(
        (price.pool.as_str(), price.charge_on, price.job),
        ("credits", ChargeOn::BelowFourHundred, None)
    );
}

const SHIPPED: [&str; 4] = [
    include_str!("../policy.toml"),
    include_str!("../examples/music-search.toml"),
    include_str!("../examples/music-generation.toml"),
    include_str!("../examples/voice-dubbing.toml"),
];

#[test]
fn every_policy_that_is_shipped_is_right() {
    for text in SHIPPED {
        let policy = Policy::parse(text).unwrap();
        assert_eq!(policy.warnings(), Vec::<String>::new());
    }
}

/// The text with what is commented out in it: tables, and fields.
fn uncommented(text: &str) -> String {
    let is_commented_out = |line: &&str| {
        let name = line.split_once('=').map(|(name, _)| name.trim());
        line.starts_with('[') || name.is_some_and(|name| !name.contains(' '))
    };
    let lines = text.lines().map(|line| {
        let comment = line.strip_prefix("# ").filter(is_commented_out);
        comment.unwrap_or(line)
    });
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn what_is_commented_out_in_a_shipped_policy_is_right_too() {
    for text in SHIPPED {
        let policy = Policy::parse(&uncommented(text)).unwrap();
        assert_eq!(policy.warnings(), Vec::<String>::new());
    }
    let policy = parse(&uncommented(SHIPPED[0]));
    assert_eq!(policy.packages.len(), 1);
    assert!(policy.top_up.is_some());
    assert!(
        policy
            .notifications
            .is_some_and(|told| told.email.is_some())
    );
    assert!(policy.plans["starter"].stripe_price.is_some());
}

#[test]
fn every_field_of_the_contract_is_read() {
    let policy = parse(FULL);
    let imported_keys = policy.imported_keys.as_ref().unwrap();
    assert!(imported_keys.matches("sk_0123456789abcdef0123456789abcdef"));
    assert!(!imported_keys.matches("sk_0123456789abcdef0123456789abcde"));
    let top_up = policy.top_up.as_ref().unwrap();
    assert_eq!(
        (top_up.pool.as_str(), top_up.credits_per),
        ("lyrics", credits(250))
    );
    assert_eq!(top_up.price.to_string(), "2.99 EUR");
    let told = policy.notifications.as_ref().unwrap();
    assert_eq!(told.url, "https://hooks.example.com/tollgate?from=api");
    let low = |pool| told.balance_low.of(pool).unwrap();
    assert_eq!(low("credits"), [credits(100), credits(20)]);
    assert_eq!(low("lyrics"), [credits(5)]);
    let email = told.email.as_ref().unwrap();
    assert_eq!(email.from, "billing@example.com");
    assert_eq!(email.name.as_deref(), Some("Example"));
    assert_eq!(
        email.events,
        [EventType::BalanceLow, EventType::TopUpPaused]
    );
    let number = Quantity::parse;
    let unusual = policy.unusual.unwrap();
    let spending = unusual.spending.unwrap();
    assert_eq!(Some(spending.factor), number("7.5"));
    assert_eq!(spending.floor, credits(500));
    let refusals = unusual.refusals.unwrap();
    assert_eq!(Some(refusals.share), number("0.95"));
    assert_eq!(refusals.at_least, 200);
    assert_eq!(unusual.restrict, Some(Span::from_seconds(7_200)));
    let gateway = &policy.gateway;
    assert_eq!(gateway.base_path, "/api/external/v1");
    assert_eq!(gateway.key_prefixes, ["tk_live", "tk_old"]);
    assert_eq!(gateway.mode, Mode::Observe);
    assert!(
        gateway
            .unmatched
            .as_ref()
            .is_some_and(|price| price.amount == Amount::Fixed(credits(1)))
    );
    assert_eq!(gateway.on_unknown, OnUnknown::Charge);
    assert_eq!(gateway.region.as_deref(), Some("weur"));
    assert_eq!(
        gateway.cors,
        Cors::Origins(vec!["https://app.example.com".into()])
    );
    assert_eq!(gateway.admin_hosts, Some(vec!["admin.example.com".into()]));
    assert_eq!(
        policy.origins.default,
        Origin::Url("https://origin.example.com:8443".into())
    );
    assert_eq!(
        policy.origins.of("music.example.com"),
        &Origin::Service("MUSIC".into())
    );
    assert_eq!(policy.origins.of("same.example.com"), &Origin::Zone);
    assert_eq!(policy.pools["lyrics"].restore, Span::ZERO);
    let starter = &policy.plans["starter"];
    assert!(starter.paid);
    assert_eq!(starter.max_keys, Some(20));
    assert_eq!(starter.limits.jobs_open, Some(3));
    assert_eq!(
        starter.grants,
        [
            Grant {
                pool: "credits".into(),
                amount: credits(300),
                renews: Renews::Monthly,
                rollover: credits(50)
            },
            Grant {
                pool: "lyrics".into(),
                amount: credits(100),
                renews: Renews::CalendarMonth,
                rollover: credits(0)
            },
        ]
    );
    assert_eq!(policy.self_service.me.as_deref(), Some("/account"));
    assert_eq!(policy.self_service.quote, None);
    assert_eq!(policy.self_service.purchase.as_deref(), Some("/buy"));
    assert_eq!(policy.self_service.subscription, None);
    assert_eq!(
        policy.self_service.billing_history.as_deref(),
        Some("/bills")
    );
    assert_eq!(
        policy.self_service.billing_portal.as_deref(),
        Some("/portal")
    );
    assert_eq!(
        policy.plans["starter"].stripe_price.as_deref(),
        Some("price_1Qy")
    );
    for price in ["price_1Qx", "price_1Qy"] {
        let plan = policy.plan_sold_as(price).map(|plan| plan.name.as_str());
        assert_eq!(plan, Some("starter"));
    }
    assert_eq!(
        policy.packages,
        [Package {
            id: "songs".into(),
            pool: "lyrics".into(),
            credits: credits(5_000),
            price: Money::parse("7500 JPY").unwrap(),
        }]
    );
    let home = policy.payments.return_url.as_deref();
    assert_eq!(home, Some("https://app.example.com/billing"));
    assert!(policy.payments.automatic_tax);

    let [search, hooks, create, dub, train] = &policy.routes[..] else {
        panic!("{:?}", policy.routes);
    };
    assert!(search.cache && search.upgrade && dub.whole_body);
    assert_eq!(search.host.as_deref(), Some("music.example.com"));
    assert_eq!(search.timeout, Span::from_seconds(30));
    assert_eq!(search.when_unavailable, WhenUnavailable::Allow);
    assert!(hooks.root && hooks.access == Access::Public);
    let fields: Vec<&Field> = create.when.iter().map(|when| &when.field).collect();
    assert_eq!(fields.len(), 5);
    assert!(fields.contains(&&Field::Body(vec!["input".into(), "task_type".into()])));
    assert!(fields.contains(&&Field::Header("x-model".into())));
    assert!(fields.contains(&&Field::Query("v".into())));
    let amounts: Vec<&Amount> = [dub, train]
        .iter()
        .map(|route| match &route.access {
            Access::Priced(price) => &price.amount,
            Access::Public => panic!("{route:?}"),
        })
        .collect();
    assert!(
        matches!(amounts[0], Amount::Reported { header, hold_available: true, .. } if header == "x-audio-seconds")
    );
    assert!(
        matches!(amounts[1], Amount::Requested { meter, .. } if meter.unit.to_string() == "0.5")
    );
    assert!(train.idempotent && !dub.idempotent);
    let Access::Priced(train) = &train.access else {
        panic!("{train:?}");
    };
    assert_eq!(
        train.job,
        Some(Job {
            settle_within: Span::from_days(1),
            on_unknown: OnUnknown::Charge
        })
    );
    assert_eq!(train.charge_on, ChargeOn::TwoHundreds);
}

#[test]
fn the_policy_that_is_shipped_is_right() {
    let policy = parse(include_str!("../policy.toml"));
    assert_eq!(policy.warnings(), Vec::<String>::new());
    assert_eq!(policy.plans["free"].grants[0].renews, Renews::Never);
}

#[test]
fn every_mistake_is_named_with_its_place() {
    let unknown = |fields: &str| format!("expected one of {fields}, found an unknown field");
    for (text, expected) in [
        ("", "policy.toml: gateway: expected a table, found nothing".to_owned()),
        ("[gateway", "policy.toml: line 1, column 9: ".to_owned()),
        ("[gateway]\nmode = \"a\"\nmode = \"b\"", "policy.toml: line 3, column 1: ".to_owned()),
        (&with("", "[package]\nx = 1"), format!("package: {}", unknown("gateway, origins, pools, plans, self_service, imported_keys, packages, payments, notifications, unusual, top_up, routes"))),
        (&with("", "[packages]\nx = 1"), "packages: expected [[packages]] tables, found a table".into()),
        (&with("gateway", "base_path = 7"), "gateway.base_path: expected a path such as \"/api/v1\", or \"\", found 7".into()),
        (&with("gateway", "base_path = \"/api/\""), "gateway.base_path: expected a path without a closing /, found \"/api/\"".into()),
        (&with("gateway", "base_path = \"/{v}\""), "gateway.base_path: expected a path without {name} and *".into()),
        (&with("gateway", "base_path = \"/_tollgate\""), "gateway.base_path: expected a path outside /_tollgate".into()),
        (&with("gateway", "key_prefixes = [\"tk_live\"]"), "gateway.key_prefixes[0]: expected each prefix once".into()),
        (&with("gateway", "key_prefixes = [\"a-b\"]"), "gateway.key_prefixes[0]: expected 1 to 32 letters, digits and _".into()),
        (&GATEWAY.replace("key_prefix", "key_prefixs"), "gateway.key_prefix: expected 1 to 32 letters, digits and _, such as \"tk_live\", found nothing".into()),
        (&with("gateway", "mode = \"off\""), "gateway.mode: expected \"enforce\" or \"observe\", found \"off\"".into()),
        (&with("gateway", "unmatched = \"free\""), "gateway.unmatched: expected \"reject\" or a price such as { cost = 1 }, found \"free\"".into()),
        (&with("gateway", "unmatched = { price = 1 }"), "gateway.unmatched.cost: expected the price of a path that no route names, found nothing".into()),
        (&with("gateway", "unmatched = { cost = 1, pool = \"x\" }"), "gateway.unmatched.pool: expected a pool that [pools] declares (credits, lyrics), found \"x\"".into()),
        (&with("gateway", "hold_seconds = 100"), "gateway.origin_timeout_seconds: expected less than hold_seconds, 100, found 100 (the default)".into()),
        (&with("gateway", "origin_timeout_seconds = 300"), "gateway.origin_timeout_seconds: expected less than hold_seconds, 300, found 300".into()),
        (&with("gateway", "origin_timeout_seconds = 0"), "gateway.origin_timeout_seconds: expected a whole number from 1 to 86400, found 0".into()),
        (&with("gateway", "on_unknown = \"keep\""), "gateway.on_unknown: expected \"release\" or \"charge\", found \"keep\"".into()),
        (&with("gateway", "forgive_per_day = -1"), "gateway.forgive_per_day: expected a whole number from 0 to 4294967295, found -1".into()),
        (&with("gateway", "forward_key = \"no\""), "gateway.forward_key: expected true or false, found \"no\"".into()),
        (&with("gateway", "day_starts = \"midnight\""), "gateway.day_starts: expected a time of day and an offset".into()),
        (&with("gateway", "usage_days = 0"), "gateway.usage_days: expected a whole number from 1 to 3650, found 0".into()),
        (&with("gateway", "retain_days = 3651"), "gateway.retain_days: expected a whole number from 1 to 3650, found 3651".into()),
        (&with("gateway", "retain_days = 89"), "gateway.retain_days: expected at least usage_days, 90, found 89".into()),
        (&with("gateway", "usage_days = 401"), "gateway.retain_days: expected at least usage_days, 401, found 400 (the default)".into()),
        (&with("gateway", "body_limit = 1.5"), "gateway.body_limit: expected a whole number from 1 to 16777216, found 1.5".into()),
        (&with("gateway", "region = \"mars\""), "gateway.region: expected \"wnam\", ".into()),
        (&with("gateway", "cors = \"*\""), "gateway.cors: expected \"origin\" or { origins = ".into()),
        (&with("gateway", "cors = { origins = [\"https://a.example/\"] }"), "gateway.cors.origins[0]: expected a web origin in lower case".into()),
        (&with("gateway", "when_unavailable = true"), "gateway.when_unavailable: expected \"refuse\" or \"allow\", found true".into()),
        (&with("gateway", "admin_hosts = [\"A.example\"]"), "gateway.admin_hosts[0]: expected a hostname in lower case".into()),
        (&with("gateway", "hold_second = 3"), "hold_seconds, origin_timeout_seconds, on_unknown, forgive_per_day, forward_key, day_starts, usage_days, retain_days, body_limit, region, cors, when_unavailable, extra_needs_subscription, admin_hosts, found an unknown field; did you mean hold_seconds?".into()),
        (&with("origins", "\"a.example:80\" = \"zone\""), "origins.\"a.example:80\": expected a hostname in lower case without port before the =, found \"a.example:80\"".into()),
        (&with("origins", "\"a.example\" = \"service:A-B\""), "origins.\"a.example\": expected \"https://HOST\" or".into()),
        (&with("pools", "spend_first = [\"promo\", \"extra\", \"extra\"]"), "pools.lyrics.spend_first: expected each of \"promo\", \"extra\" and \"subscription\" once".into()),
        (&with("pools", "spend_first = [\"gift\"]"), "pools.lyrics.spend_first[0]: expected \"promo\", \"extra\" or \"subscription\", found \"gift\"".into()),
        (&with("pools", "restore = \"7 days\""), "pools.lyrics.restore: expected a time such as \"7d\"".into()),
        (&with("pools", "[pools.\"a b\"]"), "pools.\"a b\": expected a name of 1 to 64 letters, digits, _ and -, found \"a b\"".into()),
        (&with("plans", "requests_per_minute = 0"), "plans.free.requests_per_minute: expected a whole number from 1 to 4294967295, found 0".into()),
        (&with("plans", "price = \"p\""), "plans.free.price: expected one of requests_per_minute".into()),
        (&with("plans", "stripe_price = \"19.00 USD\""), "plans.free.stripe_price: expected the id of a price at Stripe, \"price_…\", found \"19.00 USD\"".into()),
        (&with("plans", "stripe_price = []"), "plans.free.stripe_price: expected the id of a price at Stripe, \"price_…\", found an array".into()),
        (&with("plans", "stripe_price = [\"price_1\", \"\"]"), "plans.free.stripe_price[1]: expected the id of a price at Stripe, \"price_…\", found \"\"".into()),
        (&with("plans", "stripe_price = [\"price_1\", \"price_2\"]\n[plans.pro]\nstripe_price = \"price_2\""), "plans.pro.stripe_price: expected another price than that of free, found \"price_2\"".into()),
        (&with("plans", "stripe_price = \"price_1\"\npaid = false"), "plans.free.paid: expected true beside stripe_price, found false".into()),
        (&with("plans", "stripe_price = \"price_1\"\n[plans.pro]\nstripe_price = \"price_1\""), "plans.pro.stripe_price: expected another price than that of free, found \"price_1\"".into()),
        (&with("plans", "grants = { pool = \"credits\" }"), "plans.free.grants: expected an array of grants, found a table".into()),
        (&with("plans", "grants = [{ amount = 1 }]"), "plans.free.grants[0].renews: expected \"never\", \"monthly\" or \"calendar-month\", found nothing".into()),
        (&with("plans", "grants = [{ amount = 9007199254740992, renews = \"never\" }]"), "plans.free.grants[0].amount: expected a whole number from 0 to 9007199254740991, found 9007199254740992".into()),
        (&with("plans", "grants = [{ pool = \"x\", amount = 1, renews = \"never\" }]"), "plans.free.grants[0].pool: expected a pool that [pools] declares".into()),
        (&with("plans", "grants = [{ amount = 1, renews = \"never\", rollover = 1 }]"), "plans.free.grants[0].rollover: expected only where the grant renews".into()),
        (&with("plans", "grants = [{ amount = 1, renews = \"monthly\" }, { amount = 1, renews = \"calendar-month\" }]"), "plans.free.grants[1]: expected one recurring grant for each pool, found a second for \"credits\"".into()),
        (&with("", "[self_service]\nme = true"), "self_service.me: expected a path such as \"/me\", or false, found true".into()),
        (&with("", "[self_service]\nme = \"/usage\""), "self_service.me: expected another path than that of usage, found \"/usage\"".into()),
        (&with("", "[self_service]\nme = \"/{me}\""), "self_service.me: expected a path without {name} and *".into()),
        (&with("", "[self_service]\nme = \"/_tollgate/me\""), "self_service.me: expected a path outside /_tollgate".into()),
        (&with("", "[self_service]\nmee = \"/x\""), "self_service.mee: expected one of me, usage, usage_summary, ledger, get_credits, quote, purchase, subscription, billing_history, billing_portal, top_up, top_up_retry, found an unknown field".into()),
    ] {
        let told = mistakes(text);
        assert!(told.contains(&expected), "{expected}\nis not what was told:\n{told}\nof\n{text}");
    }
}

#[test]
fn every_mistake_in_a_package_is_named_with_its_place() {
    const GOOD: [(&str, &str); 4] = [
        ("id", "\"small\""),
        ("pool", "\"credits\""),
        ("credits", "5000"),
        ("price", "\"50.00 USD\""),
    ];
    let package = |changed: &str, value: &str| {
        let lines = GOOD.map(|(name, good)| {
            let value = if name == changed { value } else { good };
            if value.is_empty() {
                String::new()
            } else {
                format!("{name} = {value}\n")
            }
        });
        with("", &format!("[[packages]]\n{}", lines.concat()))
    };
    parse(&package("", ""));
    for (field, value, expected) in [
        ("id", "", "id: expected the package's name, found nothing"),
        (
            "id",
            "\"a b\"",
            "id: expected a name of 1 to 64 letters, digits, _ and -, found \"a b\"",
        ),
        (
            "pool",
            "\"gold\"",
            "pool: expected a pool that [pools] declares (credits, lyrics), found \"gold\"",
        ),
        (
            "credits",
            "",
            "credits: expected how many credits, found nothing",
        ),
        (
            "credits",
            "0",
            "credits: expected a whole number from 1 to 9007199254740991, found 0",
        ),
        (
            "credits",
            "1.5",
            "credits: expected a whole number from 1 to 9007199254740991, found 1.5",
        ),
        (
            "price",
            "",
            "price: expected a price such as \"50.00 USD\" or \"5000 JPY\", found nothing",
        ),
        (
            "price",
            "50.00",
            "price: expected a price such as \"50.00 USD\" or \"5000 JPY\", found 50.00",
        ),
        (
            "price",
            "\"50.00 JPY\"",
            "price: expected a price such as \"50.00 USD\" or \"5000 JPY\", found \"50.00 JPY\"",
        ),
        (
            "price",
            "\"0.49 USD\"",
            "price: expected an amount that Stripe takes, 0.50 USD or more, found \"0.49 USD\"",
        ),
        (
            "price",
            "\"49 JPY\"",
            "price: expected an amount that Stripe takes, 50 JPY or more, found \"49 JPY\"",
        ),
    ] {
        let told = mistakes(&package(field, value));
        assert!(
            told.contains(&format!("packages[0].{expected}")),
            "{expected}\nis not what was told:\n{told}"
        );
    }
    let twice = package("", "").replace(
        "[[packages]]",
        "[[packages]]\nid = \"small\"\ncredits = 1\nprice = \"1 EUR\"\n[[packages]]",
    );
    let expected =
        "packages[1]: expected another id than that of an earlier package, found \"small\"";
    assert!(mistakes(&twice).contains(expected), "{}", mistakes(&twice));
    for (line, expected) in [
        (
            "return_url = \"app.example.com\"",
            "payments.return_url: expected a page of yours such as ",
        ),
        (
            "return_url = \"https:///billing\"",
            "payments.return_url: expected a page of yours such as ",
        ),
        (
            "automatic_tax = 1",
            "payments.automatic_tax: expected true or false, found 1",
        ),
        (
            "tax = true",
            "payments.tax: expected one of return_url, automatic_tax, found an unknown field",
        ),
    ] {
        let told = mistakes(&with("", &format!("[payments]\n{line}")));
        assert!(
            told.contains(expected),
            "{expected}\nis not what was told:\n{told}"
        );
    }
}

#[test]
fn every_mistake_in_a_pattern_is_named_with_its_place() {
    for (line, expected) in [
        (
            "",
            "imported_keys.pattern: expected a pattern such as \"sk_[0-9a-f]{32}\", found nothing",
        ),
        (
            "pattern = 7",
            "imported_keys.pattern: expected a pattern such as \"sk_[0-9a-f]{32}\", found 7",
        ),
        (
            "pattern = \"\"",
            "imported_keys.pattern: expected a pattern such as \"sk_[0-9a-f]{32}\", found \"\"",
        ),
        (
            "patern = \"a\"",
            "imported_keys.patern: expected one of pattern, found an unknown field; did you mean pattern?",
        ),
        (
            "pattern = '^sk_[0-9a-f]{32}$'",
            "imported_keys.pattern: expected neither ^ nor $: the pattern is that of the whole key (character 1), found ",
        ),
        (
            "pattern = 'sk_.*'",
            "expected characters, classes such as [0-9a-f], {n} or {n,m}, and \\ before a sign that means itself (character 4), found \"sk_.*\"",
        ),
        ("pattern = 'a{2}{3}'", "that means itself (character 5)"),
        (
            "pattern = 'sk_\\d{32}'",
            "expected a sign that means itself after \\, and [0-9] for \\d (character 4)",
        ),
        (
            "pattern = 'sk [0-9a-f]{32}'",
            "expected neither spaces nor commas, and nothing outside ASCII: no key has them (character 3)",
        ),
        ("pattern = '[a-z,]{32}'", "no key has them (character 5)"),
        ("pattern = 'clé'", "no key has them (character 3)"),
        (
            "pattern = 'sk_[0-9'",
            "expected a ] that closes this [ (character 4)",
        ),
        (
            "pattern = 'sk_[]{32}'",
            "expected a class of one character at least (character 4)",
        ),
        (
            "pattern = '[^a]{32}'",
            "expected a class that lists what may stand there, with \\ before a sign that means itself (character 2)",
        ),
        (
            "pattern = '[A-z]{32}'",
            "expected a range that goes up, from digit to digit, a to z or A to Z (character 2)",
        ),
        (
            "pattern = '[a-z]{8,}'",
            "expected {n} or {n,m}, with numbers from 1 to 256 (character 6)",
        ),
        ("pattern = '[a-z]{9,8}'", "expected {n} or {n,m}"),
        ("pattern = '[a-z]{0}'", "expected {n} or {n,m}"),
        (
            "pattern = '[a-z]{8,32}[0-9a-f]{8}'",
            "expected none of the characters that {n,m} repeats right before, or nobody could tell where they end (character 12)",
        ),
        (
            "pattern = '[a-z]{256}x'",
            "imported_keys.pattern: expected keys of at most 256 characters, found ",
        ),
        (
            "pattern = 'sk_[0-9a-f]{15}'",
            "imported_keys.pattern: expected keys that nobody can guess, with at least the 64 random bits of [0-9a-f]{16}, found ",
        ),
        (
            "pattern = '[a-z]{2}_live_[0-9a-f]{32}'",
            "imported_keys.pattern: expected keys that cannot begin as this gateway's own do (key_prefix, key_prefixes), found ",
        ),
    ] {
        let told = mistakes(&with("", &format!("[imported_keys]\n{line}")));
        assert!(
            told.contains(expected),
            "{expected}\nis not what was told:\n{told}\nof\n{line}"
        );
    }
}

#[test]
fn every_mistake_in_the_top_up_is_named_with_its_place() {
    let small = "top_up.price: expected 1001 credits to cost what Stripe takes in one payment, ";
    for (lines, expected) in [
        (
            "",
            "top_up.credits_per: expected how many credits the price is of, found nothing",
        ),
        (
            "credits_per = 100",
            "top_up.price: expected a price such as \"1.00 USD\" or \"150 JPY\", found nothing",
        ),
        (
            "credits_per = 0\nprice = \"1.00 USD\"",
            "top_up.credits_per: expected a whole number from 1 to 9007199254740991, found 0",
        ),
        (
            "credits_per = 1.5\nprice = \"1.00 USD\"",
            "top_up.credits_per: expected a whole number from 1 to 9007199254740991, found 1.5",
        ),
        (
            "credits_per = 100\nprice = 1",
            "top_up.price: expected a price such as \"1.00 USD\" or \"150 JPY\", found 1",
        ),
        (
            "credits_per = 100\nprice = \"1.005 USD\"",
            "top_up.price: expected a price such as",
        ),
        (
            "pool = \"x\"\ncredits_per = 100\nprice = \"1.00 USD\"",
            "top_up.pool: expected a pool that [pools] declares (credits, lyrics), found \"x\"",
        ),
        (
            "credit_per = 100\nprice = \"1.00 USD\"",
            "top_up.credit_per: expected one of pool, credits_per, price, found an unknown field; did you mean credits_per?",
        ),
        // 1001 credits for 11 cents; and for 50, which is the least in dollars and too little in pesos.
        (
            "credits_per = 100\nprice = \"0.01 USD\"",
            &format!("{small}0.50 USD or more and 8 digits at most, found 0.11 USD"),
        ),
        (
            "credits_per = 1001\nprice = \"0.50 MXN\"",
            &format!("{small}10.00 MXN or more and 8 digits at most, found 0.50 MXN"),
        ),
        (
            "credits_per = 100\nprice = \"4 JPY\"",
            &format!("{small}50 JPY or more and 8 digits at most, found 41 JPY"),
        ),
        (
            "credits_per = 1\nprice = \"10.00 USD\"",
            "top_up.price: expected 100000 credits to cost what Stripe takes in one payment, 0.50 USD or more and 8 digits at most, found 1000000.00 USD",
        ),
    ] {
        let told = mistakes(&with("", &format!("[top_up]\n{lines}")));
        assert!(
            told.contains(expected),
            "{expected}\nis not what was told:\n{told}"
        );
    }
    for price in ["0.05 USD", "5 JPY", "0.050 KWD", "1 ISK"] {
        let told = mistakes(&with(
            "",
            &format!("[top_up]\ncredits_per = 100\nprice = \"{price}\""),
        ));
        assert_eq!(told, "none", "{price}");
    }
}

#[test]
fn a_top_up_is_rounded_up_to_what_the_currency_can_be_paid_in() {
    for (credits_per, price, bought, expected) in [
        (100, "1.00 USD", 1_600, "16.00 USD"),
        (100, "1.00 USD", 1_601, "16.01 USD"),
        (300, "1.00 USD", 1_001, "3.34 USD"),
        (100, "7 JPY", 1_001, "71 JPY"),
        (1_000, "3000 VND", 1_001, "3003 VND"),
        // Three places, the last of which is 0.
        (100, "0.070 KWD", 1_001, "0.710 KWD"),
        // No places, but counted in hundredths.
        (100, "7 UGX", 1_001, "71.00 UGX"),
        (99_999, "999999.99 USD", 100_000, "1000010.00 USD"),
    ] {
        let offer = TopUpOffer {
            pool: "credits".into(),
            credits_per: credits(credits_per),
            price: Money::parse(price).unwrap(),
        };
        let cost = offer.price_of(credits(bought)).unwrap();
        assert_eq!(
            cost.to_string(),
            expected,
            "{bought} of {credits_per} for {price}"
        );
    }
}

#[test]
fn every_mistake_in_the_notifications_is_named_with_its_place() {
    const A_URL: &str = "notifications.url: expected \"https://HOST/PATH\" without user and \
                         fragment (http only for 127.0.0.1 and localhost), found ";
    const URL: &str = "url = \"https://hooks.example.com\"";
    let with = |lines: &str| with("", &format!("[notifications]\n{URL}\n{lines}"));
    for (lines, expected) in [
        (
            "urls = 1",
            "notifications.urls: expected one of url, balance_low, email, found an unknown field; did you mean url?",
        ),
        (
            "balance_low = 7",
            "notifications.balance_low: expected a table, found 7",
        ),
        (
            "balance_low = { words = [1] }",
            "notifications.balance_low.words: expected a pool that [pools] declares before the =, found \"words\"",
        ),
        (
            "balance_low = { credits = 1 }",
            "notifications.balance_low.credits: expected an array of at most 5 numbers of credits, found 1",
        ),
        (
            "balance_low = { credits = [1, 2, 3, 4, 5, 6] }",
            "notifications.balance_low.credits: expected an array of at most 5 numbers of credits, found an array",
        ),
        (
            "balance_low = { credits = [0] }",
            "notifications.balance_low.credits[0]: expected a whole number from 1 to 9007199254740991, found 0",
        ),
        (
            "[notifications.email]",
            "notifications.email.from: expected an e-mail address such as \"billing@example.com\", found nothing",
        ),
        (
            "[notifications.email]\nfrom = \"Example <a@example.com>\"",
            "notifications.email.from: expected an e-mail address",
        ),
        (
            "[notifications.email]\nfrom = \"a@example.com\"\nname = \"A\\r\\nBcc: b@example.com\"",
            "notifications.email.name: expected 1 to 100 characters without line breaks",
        ),
        (
            "[notifications.email]\nfrom = \"a@example.com\"\nevents = [\"balance\"]",
            "notifications.email.events[0]: expected \"balance.low\", \"balance.exhausted\",",
        ),
    ] {
        let told = mistakes(&with(lines));
        assert!(
            told.contains(expected),
            "{expected}\nis not what was told:\n{told}"
        );
    }
    for url in [
        "hooks.example.com",
        "http://hooks.example.com/",
        "http://localhost.example.com/",
        "https://user@hooks.example.com/",
        "https://hooks.example.com/#here",
        "https://hooks.example.com/a b",
        "https://",
        "ftp://hooks.example.com/",
    ] {
        let told = mistakes(&with("").replace(URL, &format!("url = {url:?}")));
        assert!(told.contains(A_URL), "{url}: {told}");
    }
    for url in [
        "http://127.0.0.1:8788/hooks",
        "http://localhost",
        "https://a.example:8443/x?y=z",
    ] {
        let policy = parse(&with("").replace(URL, &format!("url = {url:?}")));
        assert_eq!(policy.notifications.unwrap().url, url);
    }
}

#[test]
fn every_mistake_about_unusual_consumption_is_named_with_its_place() {
    let spending = "spend_factor = 10\nspend_floor = 1000\n";
    for (lines, expected) in [
        (
            "",
            "unusual.spend_factor: expected this, or refused_share, found neither",
        ),
        (
            "restrict = \"1h\"",
            "unusual.spend_factor: expected this, or refused_share, found neither",
        ),
        (
            "spend_factor = 10",
            "unusual.spend_floor: expected this beside spend_factor, found nothing",
        ),
        (
            "spend_floor = 10",
            "unusual.spend_factor: expected this beside spend_floor, found nothing",
        ),
        (
            "refused_share = 0.9",
            "unusual.refused_at_least: expected this beside refused_share, found nothing",
        ),
        (
            "refused_at_least = 9",
            "unusual.refused_share: expected this beside refused_at_least, found nothing",
        ),
        (
            "spend_factor = 0.5\nspend_floor = 1",
            "unusual.spend_factor: expected a number from 1 to 1000, with at most 3 places, found 0.5",
        ),
        (
            "spend_factor = 1000.001\nspend_floor = 1",
            "unusual.spend_factor: expected a number from 1 to 1000, with at most 3 places, found 1000.001",
        ),
        (
            "spend_factor = \"10\"\nspend_floor = 1",
            "unusual.spend_factor: expected a number from 1 to 1000, with at most 3 places, found \"10\"",
        ),
        (
            "spend_factor = 10\nspend_floor = 0",
            "unusual.spend_floor: expected a whole number from 1 to 9007199254740991, found 0",
        ),
        (
            "refused_share = 1.5\nrefused_at_least = 1",
            "unusual.refused_share: expected a number above 0 and up to 1, with at most 3 places, found 1.5",
        ),
        (
            "refused_share = 0\nrefused_at_least = 1",
            "unusual.refused_share: expected a number above 0 and up to 1, with at most 3 places, found 0",
        ),
        (
            "refused_share = 0.9\nrefused_at_least = 0",
            "unusual.refused_at_least: expected a whole number from 1 to 4294967295, found 0",
        ),
        (
            &format!("{spending}restrict = \"59s\""),
            "unusual.restrict: expected a time such as \"7d\", \"24h\", \"30m\" or \"10s\", from \"1m\" to \"30d\", found \"59s\"",
        ),
        (
            &format!("{spending}restrict = \"31d\""),
            "unusual.restrict: expected a time such as",
        ),
        (
            &format!("{spending}restricts = \"1h\""),
            "unusual.restricts: expected one of spend_factor, spend_floor, refused_share, refused_at_least, restrict, found an unknown field; did you mean restrict?",
        ),
    ] {
        let told = mistakes(&with("", &format!("[unusual]\n{lines}")));
        assert!(
            told.contains(expected),
            "{expected}\nis not what was told:\n{told}\nof\n{lines}"
        );
    }
}

#[test]
fn every_mistake_in_a_route_is_named_with_its_place() {
    for (lines, expected) in [
        (
            "cost = 1",
            "routes[0].match: expected a method and a path template, such as \"POST /search\", found nothing",
        ),
        (
            "match = \"/search\"\ncost = 1",
            "routes[0].match: expected a method and a path template",
        ),
        (
            "match = \"PSOT /search\"\ncost = 1",
            "routes[0].match: expected one of the methods GET, HEAD",
        ),
        (
            "match = \"POST  /search\"\ncost = 1",
            "routes[0].match: expected a template that starts with /",
        ),
        (
            "match = \"POST /a{b}\"\ncost = 1",
            "routes[0].match: expected {name} (letters, digits and _) as a whole segment",
        ),
        (
            "match = \"POST /*/a\"\ncost = 1",
            "routes[0].match: expected * only as the last segment",
        ),
        (
            "match = \"POST /a%41\"\ncost = 1",
            "routes[0].match: expected the canonical spelling \"aA\" of \"a%41\"",
        ),
        (
            "match = \"POST /_tollgate/v1\"\ncost = 1",
            "routes[0].match: expected a path outside /_tollgate",
        ),
        (
            "match = \"POST /_TOLLGATE\"\ncost = 1",
            "routes[0].match: expected a path outside /_tollgate",
        ),
        (
            "match = \"GET /me\"\ncost = 1",
            "routes[0].match: expected a path that is no self-service page's",
        ),
        (
            "match = \"POST /Usage/\"\ncost = 1",
            "routes[0].match: expected a path that is no self-service page's",
        ),
        (
            "match = \"GET /{page}\"\ncost = 1",
            "routes[0].match: expected a path that is no self-service page's",
        ),
        (
            "match = \"POST /a\"",
            "routes[0].cost: expected one of cost, charge and public = true, found none of them",
        ),
        (
            "match = \"POST /a\"\npublic = false",
            "routes[0].cost: expected one of cost, charge and public = true, found none of them",
        ),
        (
            "match = \"POST /a\"\ncost = 1\npublic = true",
            "routes[0].cost: expected one of cost, charge and public = true, found more than one",
        ),
        (
            "match = \"POST /a\"\ncost = 1\ncharge = {}",
            "routes[0].charge: expected one of cost, charge and public = true, found more than one",
        ),
        (
            "match = \"POST /a\"\ncost = \"abc\"",
            "routes[0].cost: expected a whole number from 0 to 9007199254740991, found \"abc\"",
        ),
        (
            "match = \"POST /a\"\ncost = -1",
            "routes[0].cost: expected a whole number from 0 to 9007199254740991, found -1",
        ),
        (
            "match = \"POST /a\"\ncost = 1\npool = \"x\"",
            "routes[0].pool: expected a pool that [pools] declares (credits, lyrics), found \"x\"",
        ),
        (
            "match = \"POST /a\"\ncost = 1\nhost = \"A.example\"",
            "routes[0].host: expected a hostname in lower case",
        ),
        (
            "match = \"POST /a\"\ncost = 1\ntimeout_seconds = 300",
            "routes[0].timeout_seconds: expected less than hold_seconds, 300, found 300",
        ),
        (
            "match = \"POST /a\"\ncost = 1\nwhen_unavailable = \"allow\"",
            "routes[0].when_unavailable: expected \"refuse\", as the route's cost is not 0, found \"allow\"",
        ),
        (
            "match = \"POST /a\"\ncost = 1\nidempotency = \"client\"",
            "routes[0].idempotency: expected \"origin\", found \"client\"",
        ),
        (
            "match = \"GET /a\"\ncost = 1\nidempotency = \"origin\"\nupgrade = true",
            "routes[0].idempotency: expected to be left out, as a WebSocket cannot be answered twice, found \"origin\"",
        ),
        (
            "match = \"POST /a\"\npublic = true\nidempotency = \"origin\"",
            "routes[0].idempotency: expected nothing, as the route is public, found \"origin\"",
        ),
        (
            "match = \"POST /a\"\ncost = 1\ncharge_on = \"<500\"",
            "routes[0].charge_on: expected \"<400\" or \"2xx\", found \"<500\"",
        ),
        (
            "match = \"POST /a\"\npublic = true\npool = \"credits\"",
            "routes[0].pool: expected nothing, as the route is public, found \"credits\"",
        ),
        (
            "match = \"POST /a\"\ncost = 1\nwhen = { \"header.X-Forwarded-Host\" = \"a\" }",
            "routes[0].when.\"header.X-Forwarded-Host\": expected a header that reaches the origin as it was sent; x-forwarded-host does not",
        ),
        (
            "match = \"POST /a\"\ncharge = { rate = 1, unit = 1, maximum = 9, from = \"header.authorization\" }",
            "routes[0].charge.from: expected a header that reaches the origin as it was sent; authorization does not",
        ),
        (
            "match = \"GET /a\"\ncost = 1\nwhen = { \"body.a\" = 1 }",
            "routes[0].when: expected no body field, as the body of a GET has no meaning (RFC 9110 §9.3.1), found one",
        ),
        (
            "match = \"GET /a\"\ncharge = { rate = 1, unit = 1, maximum = 9, from = \"body.a\" }",
            "routes[0].charge: expected no body field, as the body of a GET has no meaning (RFC 9110 §9.3.1), found one",
        ),
        (
            "match = \"POST /a\"\ncost = 1\nwhole_body = true\njob = { settle_within = \"1h\" }",
            "routes[0].whole_body: expected to be left out, as a job outlives its answer's body, found true",
        ),
        (
            "match = \"POST /a\"\ncost = 1\nwhole_body = true\nupgrade = true",
            "routes[0].whole_body: expected to be left out, as a WebSocket has no body, found true",
        ),
        (
            "match = \"POST /a\"\npublic = true\nwhole_body = true",
            "routes[0].whole_body: expected nothing, as the route is public, found true",
        ),
        (
            "match = \"POST /a\"\ncost = 1\nwhen = {}",
            "routes[0].when: expected at least one condition, found none",
        ),
        (
            "match = \"POST /a\"\ncost = 1\nwhen = { \"bdy.a\" = 1 }",
            "routes[0].when.\"bdy.a\": expected body.FIELD, query.NAME or header.NAME before the =, found \"bdy.a\"",
        ),
        (
            "match = \"POST /a\"\ncost = 1\nwhen = { \"body..a\" = 1 }",
            "routes[0].when.\"body..a\": expected body.FIELD",
        ),
        (
            "match = \"POST /a\"\ncost = 1\nwhen = { \"body.a\" = 1.2345 }",
            "routes[0].when.\"body.a\": expected a string, true, false or a plain number with at most 3 places, found 1.2345",
        ),
        (
            "match = \"POST /a\"\ncost = 1\nwhen = { \"body.a\" = [1] }",
            "routes[0].when.\"body.a\": expected a string, true, false or a plain number",
        ),
        (
            "match = \"POST /a\"\ncost = 1\nwhen = { \"query.a\" = 1 }",
            "routes[0].when.\"query.a\": expected a string, found 1",
        ),
        (
            "match = \"POST /a\"\ncost = 1\nwhen = { \"header.a\" = \"1,2\" }",
            "routes[0].when.\"header.a\": expected a string without a comma",
        ),
        (
            "match = \"POST /a\"\ncost = 1\njob = {}",
            "routes[0].job.settle_within: expected a time such as",
        ),
        (
            "match = \"POST /a\"\ncost = 1\njob = { settle_within = \"0s\" }",
            "routes[0].job.settle_within: expected a time such as",
        ),
        (
            "match = \"POST /a\"\ncost = 1\njob = { settle_within = \"60d\" }",
            "routes[0].job.settle_within: expected a time that, with the 30 days of refunds, is below the 90 of usage_days, found \"60d\"",
        ),
        (
            "match = \"POST /a\"\ncost = 1\njob = { settle_within = \"1d\", in = 1 }",
            "routes[0].job.in: expected one of settle_within, on_unknown, found an unknown field",
        ),
        (
            "match = \"POST /a\"\ncost = 1\ncosts = 1",
            "found an unknown field; did you mean cost?",
        ),
    ] {
        let told = mistakes(&with_route(lines));
        assert!(
            told.contains(expected),
            "{expected}\nis not what was told:\n{told}\nof\n{lines}"
        );
    }
}

#[test]
fn every_mistake_in_a_charge_is_named_with_its_place() {
    for (charge, expected) in [
        (
            "unit = 1, maximum = 9, from = \"body.n\"",
            "charge.rate: expected the credits for each started unit, found nothing",
        ),
        (
            "rate = 0, unit = 1, maximum = 9, from = \"body.n\"",
            "charge.rate: expected a whole number from 1",
        ),
        (
            "rate = 1, maximum = 9, from = \"body.n\"",
            "charge.unit: expected a number above 0 with at most 3 places, found nothing",
        ),
        (
            "rate = 1, unit = 0, maximum = 9, from = \"body.n\"",
            "charge.unit: expected a number above 0 with at most 3 places, found 0",
        ),
        (
            "rate = 1, unit = 0.0001, maximum = 9, from = \"body.n\"",
            "charge.unit: expected a number above 0 with at most 3 places, found 0.0001",
        ),
        (
            "rate = 1, unit = -1, maximum = 9, from = \"body.n\"",
            "charge.unit: expected a number above 0",
        ),
        (
            "rate = 1, unit = 1, from = \"body.n\"",
            "charge.maximum: expected the most that one call may cost, found nothing",
        ),
        (
            "rate = 1, unit = 1, maximum = 9",
            "charge.from: expected body.FIELD, query.NAME, header.NAME or response.header.NAME, found nothing",
        ),
        (
            "rate = 1, unit = 1, maximum = 9, from = \"response.n\"",
            "charge.from: expected body.FIELD, query.NAME, header.NAME or response.header.NAME, found \"response.n\"",
        ),
        (
            "rate = 1, unit = 1, maximum = 9, from = \"header.a b\"",
            "charge.from: expected body.FIELD",
        ),
        (
            "rate = 1, unit = 1, minimum = 10, maximum = 9, from = \"body.n\"",
            "charge.minimum: expected at most the maximum, 9, found 10",
        ),
        (
            "rate = 10, unit = 1, maximum = 9, from = \"body.n\"",
            "charge.rate: expected at most the maximum, 9, found 10",
        ),
        (
            "rate = 1, unit = 1, maximum = 9, from = \"body.n\", hold = \"maximum\"",
            "charge.hold: expected only with from = \"response.header.NAME\"",
        ),
        (
            "rate = 1, unit = 1, maximum = 9, from = \"response.header.n\", hold = \"some\"",
            "charge.hold: expected \"maximum\" or \"available\", found \"some\"",
        ),
        (
            "rate = 1, unit = 1, maximum = 9, from = \"response.header.n\", hold = \"available\"",
            "charge.minimum: expected at least 1 with hold = \"available\"",
        ),
        (
            "rate = 1, unit = 1, maximum = 9, from = \"body.n\", rat = 1",
            "charge.rat: expected one of rate, unit, maximum, minimum, from, hold, found an unknown field",
        ),
    ] {
        let told = mistakes(&with_route(&format!(
            "match = \"POST /a\"\ncharge = {{ {charge} }}"
        )));
        assert!(
            told.contains(&format!("routes[0].{expected}")),
            "{expected}\nis not what was told:\n{told}"
        );
    }
    let reported = "match = \"POST /a\"\ncharge = { rate = 1, unit = 1, maximum = 9, from = \"response.header.n\" }\njob = { settle_within = \"1d\" }";
    assert!(
        mistakes(&with_route(reported))
            .contains("routes[0].job: expected a cost, or a charge by something in the request")
    );
}

#[test]
fn a_route_that_no_call_reaches_is_a_mistake() {
    let unreachable = "routes[1].match: expected a route that routes[0] leaves some calls for";
    for (first, second, reached) in [
        ("match = \"POST /a\"", "match = \"POST /a\"", false),
        ("match = \"POST /a/{x}\"", "match = \"POST /a/{y}\"", false),
        ("match = \"POST /a/*\"", "match = \"POST /a/b\"", false),
        (
            "match = \"POST /a\"",
            "match = \"POST /a\"\nhost = \"a.example\"",
            false,
        ),
        ("match = \"POST /a\"", "match = \"GET /a\"", true),
        ("match = \"POST /a\"", "match = \"POST /a/\"", true),
        (
            "match = \"POST /a\"",
            "match = \"POST /a\"\nroot = true",
            true,
        ),
        (
            "match = \"POST /a\"\nhost = \"a.example\"",
            "match = \"POST /a\"",
            true,
        ),
        (
            "match = \"POST /a\"\nwhen = { \"query.x\" = \"1\" }",
            "match = \"POST /a\"",
            true,
        ),
        ("match = \"POST /a/{x}\"", "match = \"POST /a/*\"", true),
    ] {
        let text = with("gateway", "base_path = \"/api\"").replace(
            ROUTES,
            &format!("[[routes]]\n{first}\ncost = 1\n[[routes]]\n{second}\ncost = 2\n"),
        );
        let told = mistakes(&text);
        assert_eq!(
            told.contains(unreachable),
            !reached,
            "{first} {second}: {told}"
        );
        assert_eq!(told == "none", reached, "{first} {second}: {told}");
    }
}

#[test]
fn a_field_is_compared_with_values_of_one_type() {
    let text = with_route(
        "match = \"POST /a\"\ncost = 1\nwhen = { \"body.n\" = 1 }\n[[routes]]\nmatch = \"POST /a\"\ncost = 2\nwhen = { \"body.n\" = \"x\" }",
    );
    assert_eq!(
        mistakes(&text),
        "policy.toml: routes[1].when: expected body.n to have the type that it has in routes[0], found \"x\""
    );
    parse(&text.replace("\"x\"", "2.5"));
}

#[test]
fn a_closing_star_takes_nobodys_path() {
    parse(&with_route("match = \"GET /*\"\ncost = 1"));
    parse(&with_route(
        "match = \"GET /*\"\npublic = true\nroot = true",
    ));
    parse(&with("", "[self_service]\nme = false").replace("POST /search", "GET /me"));
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let text = with("gateway", "mode = 1\nregion = 2").replace("cost = 1", "cost = \"x\"");
    let told = mistakes(&text);
    let places: Vec<&str> = told
        .lines()
        .map(|line| line.split(": ").nth(1).unwrap())
        .collect();
    assert_eq!(places, ["gateway.mode", "gateway.region", "routes[0].cost"]);
    assert!(told.lines().all(|line| line.starts_with("policy.toml: ")));
}

#[test]
fn more_than_a_thousand_routes_are_a_mistake() {
    let routes: String = (0..1_001)
        .map(|n| format!("[[routes]]\nmatch = \"POST /r{n}\"\ncost = 1\n"))
        .collect();
    let told = mistakes(&with("", "").replace(ROUTES, &routes));
    assert_eq!(
        told,
        "policy.toml: routes[1000]: expected at most 1000 routes, found more"
    );
}

#[test]
fn only_free_routes_inherit_allow() {
    let text = with("gateway", "when_unavailable = \"allow\"").replace(
        ROUTES,
        &format!("{ROUTES}[[routes]]\nmatch = \"GET /a\"\ncost = 0\n"),
    );
    let policy = parse(&text);
    let allowed: Vec<WhenUnavailable> = policy
        .routes
        .iter()
        .map(|route| route.when_unavailable)
        .collect();
    assert_eq!(allowed, [WhenUnavailable::Refuse, WhenUnavailable::Allow]);
}

#[test]
fn plans_above_what_one_object_can_do_are_warned_about() {
    let policy = parse(&with(
        "plans",
        "requests_per_minute = 6000\naccount_requests_per_minute = 6001",
    ));
    assert_eq!(
        policy.warnings(),
        [
            "plans.free.account_requests_per_minute: 6001 calls a minute; one account can count on about 6000 (100 a second)"
        ]
    );
}

/// Nothing here may exhaust the stack, or take longer than its length allows.
#[test]
fn no_depth_and_no_length_of_a_policy_is_too_much() {
    const MANY: usize = 50_000;
    let nested = |open: &str, close: &str| format!("{}1{}", open.repeat(MANY), close.repeat(MANY));
    for text in [
        format!("{GATEWAY}x = {}", nested("[", "]")),
        format!("{GATEWAY}x = {}", nested("{ a = ", " }")),
        format!("{GATEWAY}x{} = 1", ".x".repeat(MANY)),
        format!("{GATEWAY}[x{}]", ".x".repeat(MANY)),
        format!("{GATEWAY}[[x{}]]", ".x".repeat(MANY)),
        "[".repeat(MANY),
        "{".repeat(MANY),
        "\"".repeat(MANY),
        with_route(&format!("match = \"GET /{}\"\ncost = 1", "a/".repeat(MANY))),
        with_route(&format!("match = \"GET {}\"\ncost = 1", "/{a}".repeat(500))),
        with_route(&format!(
            "match = \"GET /a\"\ncost = 1\nwhen = {{ \"body.{}\" = 1 }}",
            "a.".repeat(MANY)
        )),
        with("plans", &format!("[plans.{}]\n", "a".repeat(MANY))),
        with("", &"[[routes]]\n".repeat(MANY / 10)),
        with("", &"[imported_keys]\n".repeat(2)),
        with(
            "",
            &format!(
                "[imported_keys]\npattern = \"{}\"\n",
                "[a-z]{999}".repeat(500)
            ),
        ),
    ] {
        let _ = Policy::parse(&text);
    }
}

/// Any text, and any values in any of the fields.
fn any_policy() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        "-?[0-9]{1,20}",
        "\"[ -!#-\\[\\]-~]{0,20}\"",
        "\"(GET|POST|\\*) /[a-z{}*/%.]{0,20}\"",
        "\"(body|query|header|response.header)\\.[a-zA-Z._-]{0,12}\"",
        "\"[0-9]{1,12}[smhd]\"",
        Just("true".to_owned()),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        Just("[[{}]]".to_owned()),
        Just("{ rate = 1, unit = 0, from = \"body.x\", maximum = 1 }".to_owned()),
        Just("nan".to_owned()),
        Just("1e308".to_owned()),
        Just("2026-01-01T00:00:00Z".to_owned()),
    ];
    let names: Vec<String> = FULL
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name.trim().to_owned())
        .chain(["idempotency", "host", "\"\"", "a.b.c", "x"].map(ToOwned::to_owned))
        .collect();
    let tables: Vec<String> = FULL
        .lines()
        .filter(|line| line.starts_with('['))
        .map(ToOwned::to_owned)
        .collect();
    let line = prop_oneof![
        6 => (prop::sample::select(names), value).prop_map(|(name, value)| format!("{name} = {value}")),
        2 => prop::sample::select(tables),
        1 => "[\\[\\]a-z.\"= ]{0,20}",
    ];
    prop::collection::vec(line, 0..40).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn no_mutation_of_a_policy_makes_the_reader_panic(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12, "[ -~\n]{0,6}|\\PC"), 1..6),
    ) {
        let mut text: Vec<char> = FULL.chars().collect();
        for (at, length, with) in cuts {
            let start = at.index(text.len());
            let end = start.saturating_add(length).min(text.len());
            text.splice(start..end, with.chars());
        }
        let _ = Policy::parse(&text.into_iter().collect::<String>());
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in any_policy(), any_text in "\\PC{0,200}") {
        let _ = Policy::parse(&any_text);
        let _ = Policy::parse(&text);
        // Where the tables that have to be there are, more of the reader is reached.
        if let Ok(policy) = Policy::parse(&format!("{}\n{text}", with("", ""))) {
            drop(policy.warnings());
        }
    }

    #[test]
    fn a_mistake_in_one_value_says_what_was_expected(value in "-?[0-9]{1,25}|\"[a-z/{}*.: ]{0,12}\"|true|\\[\\]|\\{\\}|[0-9]\\.[0-9]{1,6}", line in any::<prop::sample::Index>()) {
        let lines: Vec<&str> = FULL.lines().collect();
        let index = line.index(lines.len());
        let Some((name, _)) = lines[index].split_once(" = ") else {
            return Ok(());
        };
        let mut changed = lines.clone();
        let line = format!("{name} = {value}");
        changed[index] = &line;
        if let Err(mistakes) = Policy::parse(&changed.join("\n")) {
            for mistake in mistakes.iter() {
                let told = mistake.to_string();
                prop_assert!(told.starts_with("line ") || told.contains(": expected "), "{}", told);
            }
        }
    }
}
