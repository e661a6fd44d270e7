//! What the tests' deployment sells.

use std::sync::Arc;

use tollgate::{
    credits::Credits,
    event::{BalanceLow, EventType, Thresholds},
    payments::money::Money,
    policy::{
        EmailNotices, FarAbove, Mode, MostlyRefused, Notifications, Package, Plan, Policy, Source,
        TopUpOffer, Unusual,
    },
    price::Quantity,
    time::{Calendar, Span},
};

/// The policy that the tests start from.
pub const STANDARD: &str = r#"
[gateway]
key_prefix = "tk_test"
forgive_per_day = 2

[origins]
default = "https://origin.example.com"

[pools.credits]
[pools.lyrics]
[pools.strict]
restore = "0d"

[plans.free]
requests_per_minute = 5
requests_per_day = 50
requests_in_flight = 10
jobs_open = 3
grants = [{ pool = "credits", amount = 50, renews = "never" }]

[plans.starter]
paid = true
requests_per_minute = 10
requests_per_day = 1000
account_requests_per_minute = 60
max_keys = 20
grants = [
    { pool = "credits", amount = 300, renews = "monthly" },
    { pool = "lyrics", amount = 100, renews = "monthly" },
]

[plans.pro]
paid = true
grants = [{ pool = "credits", amount = 1000, renews = "monthly" }]

[plans.saver]
grants = [{ pool = "credits", amount = 100, renews = "calendar-month", rollover = 30 }]

[plans.calendar]
paid = true
grants = [
    { pool = "credits", amount = 100, renews = "calendar-month" },
    { pool = "lyrics", amount = 10, renews = "monthly" },
]

# Nothing but what is bought.
[plans.prepaid]

[plans.tight]
requests_per_minute = 3
requests_per_day = 4
requests_in_flight = 2
jobs_open = 1
account_requests_per_minute = 4
max_keys = 2
grants = [{ pool = "credits", amount = 20, renews = "calendar-month" }]

[plans.strict]
grants = [{ pool = "strict", amount = 40, renews = "monthly" }]

# The tests bring their own prices.
[[routes]]
match = "GET /"
cost = 0
[[routes]]
match = "POST /search"
cost = 1
[[routes]]
match = "GET /tracks/{id}"
cost = 1
[[routes]]
match = "GET /tracks/{id}/preview"
cost = 0
"#;

/// Some credits.
pub fn credits(amount: u64) -> Credits {
    Credits::new(amount).expect("an amount")
}

/// The standard policy after the named edits.
pub fn edited(edits: &str) -> Arc<Policy> {
    let mut policy = Policy::parse(STANDARD).expect("a policy without mistakes");
    for edit in edits.split_whitespace() {
        match edit {
            "standard" => {}
            "observe" => policy.gateway.mode = Mode::Observe,
            "unusual" => policy.unusual = Some(unusual()),
            "flags_only" => {
                policy.unusual = Some(Unusual {
                    restrict: None,
                    ..unusual()
                });
            }
            "extra_needs_subscription" => policy.gateway.extra_needs_subscription = true,
            "sold" => sell(&mut policy),
            "dearer" => edit_plan(&mut policy, "starter", |plan| {
                plan.stripe_price = Some("price_starter_2027".to_owned());
            }),
            "without_starter" => drop(policy.plans.remove("starter")),
            "without_search" => policy.routes.retain(|route| route.template != "/search"),
            "without_credits" => drop(policy.pools.remove("credits")),
            "without_lyrics" => drop(policy.pools.remove("lyrics")),
            "starter_2_per_minute" => {
                edit_plan(&mut policy, "starter", |plan| {
                    plan.limits.requests_per_minute = Some(2);
                });
            }
            "prepaid_100000_per_minute" => {
                edit_plan(&mut policy, "prepaid", |plan| {
                    plan.limits.requests_per_minute = Some(100_000);
                });
            }
            "starter_500" => {
                edit_plan(&mut policy, "starter", |plan| {
                    plan.grants[0].amount = credits(500);
                });
            }
            "subscription_first" => {
                policy.pools.get_mut("credits").unwrap().spend_first =
                    [Source::Subscription, Source::Promo, Source::Extra];
            }
            "local_days" => {
                policy.gateway.calendar = Calendar::parse("00:00+02:00").unwrap();
            }
            "top_up" => {
                policy.top_up = Some(TopUpOffer {
                    pool: "credits".into(),
                    credits_per: credits(100),
                    price: Money::parse("1.00 USD").unwrap(),
                });
            }
            "told" => policy.notifications = Some(told()),
            usage if usage.starts_with("usage_") => {
                policy.gateway.usage_days = usage["usage_".len()..].parse().unwrap();
            }
            retain if retain.starts_with("retain_") => {
                policy.gateway.retain_days = retain["retain_".len()..].parse().unwrap();
            }
            other => panic!("no such edit: {other}"),
        }
    }
    Arc::new(policy)
}

/// The thresholds of one pool.
pub fn low(pool: &str, below: &[u64]) -> BalanceLow {
    BalanceLow::new(vec![Thresholds {
        pool: pool.to_owned(),
        below: below.iter().copied().map(credits).collect(),
    }])
}

/// Who is told what happens.
pub fn told() -> Notifications {
    Notifications {
        url: "https://hooks.example.com/tollgate".into(),
        balance_low: low("credits", &[100, 20]),
        email: Some(EmailNotices {
            from: "billing@example.com".into(),
            name: None,
            events: vec![EventType::BalanceExhausted, EventType::AccountSuspended],
        }),
    }
}

/// Plans and packages that customers pay for.
fn sell(policy: &mut Policy) {
    for plan in ["starter", "pro"] {
        edit_plan(policy, plan, |sold| {
            sold.stripe_price = Some(format!("price_{plan}"));
            sold.grants[0].rollover = credits(50);
        });
    }
    policy.packages.push(Package {
        id: "small".into(),
        pool: "credits".into(),
        credits: credits(5_000),
        price: Money::parse("50.00 USD").expect("a price"),
    });
}

/// More than 20 credits and three times the habit; half of at least 6 requests; an hour.
pub fn unusual() -> Unusual {
    let number = |text| Quantity::parse(text).expect("a number");
    Unusual {
        spending: Some(FarAbove {
            factor: number("3"),
            floor: credits(20),
        }),
        refusals: Some(MostlyRefused {
            share: number("0.5"),
            at_least: 6,
        }),
        restrict: Some(Span::from_seconds(3_600)),
    }
}

fn edit_plan(policy: &mut Policy, name: &str, edit: impl FnOnce(&mut Plan)) {
    let mut plan = policy.plans[name].as_ref().clone();
    edit(&mut plan);
    policy.plans.insert(name.into(), Arc::new(plan));
}
