//! `policy.toml`: text in, types or every mistake out.

use std::collections::BTreeMap;

use super::{Policy, SelfService, template::Template};
use crate::time::Span;

mod gateway;
mod notifications;
mod pattern;
mod payments;
mod plans;
mod routes;
mod strict;
mod top_up;
mod unusual;

pub use self::strict::{Mistake, Mistakes};
use self::strict::{Notes, Table, Value};

/// How many calls a minute one account's object can be trusted with: about 100 a second.
const CALLS_PER_MINUTE: u32 = 6_000;

impl Policy {
    /// Reads and checks a `policy.toml`.
    ///
    /// # Errors
    ///
    /// Every mistake in it, with its place, what was expected and what was found.
    pub fn parse(text: &str) -> Result<Self, Mistakes> {
        let document = strict::parse(text)?;
        let notes = Notes::default();
        let policy = read(Table::of_document(&document, &notes));
        notes.into_mistakes().map_or(Ok(policy), Err)
    }

    /// What is no mistake, but may surprise: sentences for the operator.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for plan in self.plans.values() {
            for (name, limit) in [
                ("requests_per_minute", plan.limits.requests_per_minute),
                (
                    "account_requests_per_minute",
                    plan.limits.account_requests_per_minute,
                ),
            ] {
                if let Some(limit) = limit.filter(|limit| *limit > CALLS_PER_MINUTE) {
                    warnings.push(format!(
                        "plans.{}.{name}: {limit} calls a minute; one account can count on about {CALLS_PER_MINUTE} (100 a second)",
                        plan.name
                    ));
                }
            }
        }
        warnings
    }
}

/// The policy, complete only where nothing was noted.
fn read(mut document: Table<'_>) -> Policy {
    let expected = "a table";
    let gateway = document.require("gateway", expected);
    let origins = document.require("origins", expected);
    let pools = document.require("pools", expected);
    let plans = document.require("plans", expected);
    let self_service = document.take("self_service");
    let imported_keys = document.take("imported_keys");
    let packages = document.take("packages");
    let payments = document.take("payments");
    let notifications = document.take("notifications");
    let unusual = document.take("unusual");
    let top_up = document.take("top_up");
    let routes = document.require("routes", "[[routes]] tables");

    let pools = pools
        .and_then(|pools| pools.table())
        .map(plans::read_pools)
        .unwrap_or_default();
    let gateway = gateway::read(gateway.as_ref().and_then(Value::table), &pools);
    let policy = Policy {
        origins: gateway::read_origins(origins.and_then(|origins| origins.table())),
        plans: plans
            .and_then(|plans| plans.table())
            .map(|plans| plans::read_plans(plans, &pools))
            .unwrap_or_default(),
        self_service: read_self_service(
            self_service.and_then(|pages| pages.table()),
            &gateway.base_path,
        ),
        routes: Vec::new(),
        packages: payments::read_packages(packages, &pools),
        payments: payments::read_payments(payments.and_then(|payments| payments.table())),
        imported_keys: pattern::read(
            imported_keys.and_then(|table| table.table()),
            &gateway.key_prefixes,
        ),
        notifications: notifications
            .and_then(|table| table.table())
            .map(|table| notifications::read(table, &pools)),
        top_up: top_up
            .and_then(|table| table.table())
            .and_then(|table| top_up::read(table, &pools)),
        unusual: unusual::read(unusual.and_then(|table| table.table())),
        gateway,
        pools,
    };
    let policy = routes::read(routes, policy);
    document.finish();
    policy
}

fn read_self_service(table: Option<Table<'_>>, base_path: &str) -> SelfService {
    let mut taken = BTreeMap::new();
    let mut table = table;
    let mut page = |name: &'static str, usual: &str| {
        let value = table.as_mut().and_then(|table| table.take(name));
        let path = match &value {
            Some(value) if value.as_flag() == Some(false) => return None,
            Some(value) => read_page(value, base_path)?,
            None => usual.to_owned(),
        };
        match (taken.insert(path.clone(), name), value) {
            (Some(other), Some(value)) => {
                value.wrong(&format!("another path than that of {other}"))
            }
            (Some(other), None) => {
                if let Some(table) = &table {
                    table.note(
                        other,
                        &format!("another path than that of {name}"),
                        &format!("{path:?}"),
                    );
                }
            }
            (None, _) => {}
        }
        Some(path)
    };
    let pages = SelfService {
        me: page("me", "/me"),
        usage: page("usage", "/usage"),
        usage_summary: page("usage_summary", "/usage/summary"),
        ledger: page("ledger", "/ledger"),
        get_credits: page("get_credits", "/get-credits"),
        quote: page("quote", "/quote"),
        purchase: page("purchase", "/credits/purchase"),
        subscription: page("subscription", "/subscription"),
        billing_history: page("billing_history", "/billing/history"),
        billing_portal: page("billing_portal", "/billing/portal"),
        top_up: page("top_up", "/credits/top-up"),
        top_up_retry: page("top_up_retry", "/credits/top-up/retry"),
    };
    if let Some(table) = table {
        table.finish();
    }
    pages
}

fn read_page(value: &Value<'_>, base_path: &str) -> Option<String> {
    let path = value.text("a path such as \"/me\", or false")?;
    match Template::parse(path) {
        Ok(template) if !template.is_literal() => value.wrong("a path without {name} and *"),
        Ok(template) if template.clone().under(base_path).is_admin() => {
            value.wrong("a path outside /_tollgate")
        }
        Ok(_) => return Some(path.to_owned()),
        Err(expected) => value.wrong(&expected),
    }
    None
}

/// `7d`, `24h`, `30m` or `10s`.
fn parse_span(text: &str) -> Option<Span> {
    let number = text.get(..text.len().checked_sub(1)?)?;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: i64 = number.parse().ok()?;
    let seconds = match text.bytes().last()? {
        b'd' => 86_400,
        b'h' => 3_600,
        b'm' => 60,
        b's' => 1,
        _ => return None,
    };
    // Beyond ten years nobody means it, and sums with it stay far from the end of time.
    let seconds = number
        .checked_mul(seconds)
        .filter(|seconds| *seconds <= 315_360_000)?;
    Some(Span::from_seconds(seconds))
}

/// What [`parse_span`] reads.
const A_SPAN: &str = "a time such as \"7d\", \"24h\", \"30m\" or \"10s\"";

/// Whether `text` is 1 to `most` of the ASCII letters, digits and `also`.
fn is_name(text: &str, most: usize, also: &[u8]) -> bool {
    (1..=most).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || also.contains(&byte))
}
