//! What the tests' deployment sells.

use std::{collections::BTreeMap, sync::Arc};

use tollgate::{
    credits::Credits,
    policy::{
        Cors, Gateway, Grant, Limits, Mode, Origin, Origins, Plan, Policy, Pool, Renews,
        SelfService, Source, WhenUnavailable,
    },
    price::OnUnknown,
    time::{Calendar, Span},
};

/// Some credits.
pub fn credits(amount: u64) -> Credits {
    Credits::new(amount).expect("an amount")
}

/// The policy that the tests start from.
pub fn standard() -> Policy {
    Policy {
        gateway: Gateway {
            base_path: String::new(),
            key_prefixes: vec!["tk_test".into()],
            mode: Mode::Enforce,
            unmatched: None,
            origin_timeout: Span::from_seconds(100),
            hold: Span::from_seconds(300),
            on_unknown: OnUnknown::Release,
            forgive_per_day: 2,
            forward_key: false,
            calendar: Calendar::default(),
            usage_days: 90,
            body_limit: 65_536,
            region: None,
            cors: Cors::Origin,
            when_unavailable: WhenUnavailable::Refuse,
            extra_needs_subscription: false,
            admin_hosts: None,
        },
        origins: Origins {
            default: Origin::Url("https://origin.example.com".into()),
            by_host: BTreeMap::new(),
        },
        pools: BTreeMap::from([
            pool("credits", Span::from_days(7)),
            pool("lyrics", Span::from_days(7)),
            pool("strict", Span::ZERO),
        ]),
        plans: plans().into_iter().map(named).collect(),
        routes: Vec::new(),
        self_service: SelfService {
            me: None,
            usage: None,
            usage_summary: None,
            ledger: None,
            get_credits: None,
            quote: None,
        },
    }
}

/// The standard policy after the named edits.
pub fn edited(edits: &str) -> Arc<Policy> {
    let mut policy = standard();
    for edit in edits.split_whitespace() {
        match edit {
            "standard" => {}
            "observe" => policy.gateway.mode = Mode::Observe,
            "extra_needs_subscription" => policy.gateway.extra_needs_subscription = true,
            "without_starter" => drop(policy.plans.remove("starter")),
            "without_lyrics" => drop(policy.pools.remove("lyrics")),
            "starter_2_per_minute" => {
                edit_plan(&mut policy, "starter", |plan| {
                    plan.limits.requests_per_minute = Some(2);
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
            other => panic!("no such edit: {other}"),
        }
    }
    Arc::new(policy)
}

fn edit_plan(policy: &mut Policy, name: &str, edit: impl FnOnce(&mut Plan)) {
    let mut plan = policy.plans[name].as_ref().clone();
    edit(&mut plan);
    policy.plans.insert(name.into(), Arc::new(plan));
}

fn pool(name: &str, restore: Span) -> (String, Pool) {
    let spend_first = [Source::Promo, Source::Extra, Source::Subscription];
    let pool = Pool {
        spend_first,
        restore,
    };
    (name.to_owned(), pool)
}

fn named(plan: Plan) -> (String, Arc<Plan>) {
    (plan.name.clone(), Arc::new(plan))
}

fn grant(pool: &str, amount: u64, renews: Renews, rollover: u64) -> Grant {
    Grant {
        pool: pool.into(),
        amount: credits(amount),
        renews,
        rollover: credits(rollover),
    }
}

fn plans() -> [Plan; 8] {
    [
        Plan {
            name: "free".into(),
            limits: Limits {
                requests_per_minute: Some(5),
                requests_per_day: Some(50),
                requests_in_flight: Some(10),
                jobs_open: Some(3),
                account_requests_per_minute: None,
            },
            grants: vec![grant("credits", 50, Renews::Never, 0)],
            ..Plan::default()
        },
        Plan {
            name: "starter".into(),
            paid: true,
            limits: Limits {
                requests_per_minute: Some(10),
                requests_per_day: Some(1_000),
                account_requests_per_minute: Some(60),
                ..Limits::default()
            },
            max_keys: Some(20),
            grants: vec![
                grant("credits", 300, Renews::Monthly, 0),
                grant("lyrics", 100, Renews::Monthly, 0),
            ],
        },
        Plan {
            name: "pro".into(),
            paid: true,
            grants: vec![grant("credits", 1_000, Renews::Monthly, 0)],
            ..Plan::default()
        },
        Plan {
            name: "saver".into(),
            grants: vec![grant("credits", 100, Renews::CalendarMonth, 30)],
            ..Plan::default()
        },
        Plan {
            name: "calendar".into(),
            paid: true,
            grants: vec![
                grant("credits", 100, Renews::CalendarMonth, 0),
                grant("lyrics", 10, Renews::Monthly, 0),
            ],
            ..Plan::default()
        },
        // Nothing but what is bought.
        Plan {
            name: "prepaid".into(),
            ..Plan::default()
        },
        Plan {
            name: "tight".into(),
            limits: Limits {
                requests_per_minute: Some(3),
                requests_per_day: Some(4),
                requests_in_flight: Some(2),
                jobs_open: Some(1),
                account_requests_per_minute: Some(4),
            },
            max_keys: Some(2),
            grants: vec![grant("credits", 20, Renews::CalendarMonth, 0)],
            ..Plan::default()
        },
        Plan {
            name: "strict".into(),
            grants: vec![grant("strict", 40, Renews::Monthly, 0)],
            ..Plan::default()
        },
    ]
}
