//! `[pools]` and `[plans]`.

use std::{collections::BTreeMap, sync::Arc};

use super::{A_SPAN, Table, Value, gateway::set, is_name, parse_span};
use crate::{
    credits::Credits,
    policy::{DEFAULT_POOL, Grant, Limits, Plan, Pool, Renews, Source},
    time::Span,
};

const A_NAME: &str = "a name of 1 to 64 letters, digits, _ and -";

/// `[pools.NAME]` tables.
pub(super) fn read_pools(table: Table<'_>) -> BTreeMap<String, Pool> {
    named(&table, |_, table| read_pool(table))
}

/// `[plans.NAME]` tables, at least one.
pub(super) fn read_plans(
    table: Table<'_>,
    pools: &BTreeMap<String, Pool>,
) -> BTreeMap<String, Arc<Plan>> {
    if table.entries().next().is_none() {
        table.note("NAME", "at least one plan", "none");
    }
    let plans = named(&table, |name, table| {
        Arc::new(read_plan(name, table, pools))
    });
    // Whoever pays it must get one plan.
    let mut sold: Vec<(&str, &str)> = Vec::new();
    for plan in plans.values() {
        for price in plan.stripe_prices() {
            let other = sold.iter().find(|(_, taken)| taken == price);
            let mut values = table.entries();
            if let Some((other, _)) = other
                && let Some((_, value)) = values.find(|(name, _)| *name == plan.name)
                && let Some(value) = value.field("stripe_price")
            {
                value.wrong(&format!("another price than that of {other}"));
            }
            sold.push((&plan.name, price));
        }
    }
    plans
}

/// The field `pool`: a declared pool.
pub(super) fn read_pool_name(table: &mut Table<'_>, pools: &BTreeMap<String, Pool>) -> String {
    let value = table.take("pool");
    let declared = || {
        let names: Vec<&str> = pools.keys().map(String::as_str).collect();
        format!("a pool that [pools] declares ({})", names.join(", "))
    };
    match value {
        Some(value) => value
            .parsed(&declared(), |name| {
                pools.contains_key(name).then(|| name.to_owned())
            })
            .unwrap_or_default(),
        None => {
            if !pools.contains_key(DEFAULT_POOL) {
                table.note("pool", &declared(), "\"credits\" (the default)");
            }
            DEFAULT_POOL.to_owned()
        }
    }
}

fn named<T>(table: &Table<'_>, mut read: impl FnMut(&str, Table<'_>) -> T) -> BTreeMap<String, T> {
    let mut all = BTreeMap::new();
    for (name, value) in table.entries() {
        if !is_name(name, 64, b"_-") {
            value.say(&format!("expected {A_NAME}, found {name:?}"));
        }
        if let Some(table) = value.table() {
            all.insert(name.to_owned(), read(name, table));
        }
    }
    all
}

fn read_pool(mut table: Table<'_>) -> Pool {
    let mut pool = Pool {
        spend_first: [Source::Promo, Source::Extra, Source::Subscription],
        restore: Span::from_days(7),
    };
    set(
        &mut pool.spend_first,
        table.take("spend_first"),
        read_spend_first,
    );
    set(&mut pool.restore, table.take("restore"), |value| {
        value.parsed(A_SPAN, parse_span)
    });
    table.finish();
    pool
}

fn read_spend_first(value: &Value<'_>) -> Option<[Source; 3]> {
    const EXPECTED: &str = "each of \"promo\", \"extra\" and \"subscription\" once";
    let words = [
        ("promo", Source::Promo),
        ("extra", Source::Extra),
        ("subscription", Source::Subscription),
    ];
    let sources: Option<Vec<Source>> = value
        .list(EXPECTED)?
        .map(|source| source.word(&words))
        .collect();
    let sources: Option<[Source; 3]> = sources?.try_into().ok();
    let sources =
        sources.filter(|sources| words.iter().all(|(_, source)| sources.contains(source)));
    if sources.is_none() {
        value.wrong(EXPECTED);
    }
    sources
}

fn read_plan(name: &str, mut table: Table<'_>, pools: &BTreeMap<String, Pool>) -> Plan {
    let mut limit = |name: &'static str| table.take(name).and_then(|value| value.count(1));
    let limits = Limits {
        requests_per_minute: limit("requests_per_minute"),
        requests_per_day: limit("requests_per_day"),
        requests_in_flight: limit("requests_in_flight"),
        jobs_open: limit("jobs_open"),
        account_requests_per_minute: limit("account_requests_per_minute"),
    };
    let max_keys = limit("max_keys");
    let mut plan = Plan {
        name: name.to_owned(),
        paid: false,
        limits,
        max_keys,
        grants: Vec::new(),
        stripe_price: None,
        earlier_prices: Vec::new(),
    };
    if let Some(value) = table.take("stripe_price") {
        let mut prices = read_prices(&value).into_iter();
        plan.stripe_price = prices.next();
        plan.earlier_prices = prices.collect();
        // What is bought is paid for.
        plan.paid = true;
    }
    if let Some(paid) = table.take("paid") {
        let is_bought = plan.paid;
        set(&mut plan.paid, Some(paid), Value::flag);
        if is_bought && !plan.paid {
            table.forbid("paid", "true beside stripe_price");
        }
    }
    if let Some(grants) = table.take("grants") {
        for value in grants.list("an array of grants").into_iter().flatten() {
            let grant = value.table().and_then(|table| read_grant(table, pools));
            if let Some(grant) = grant {
                check_grant(&grant, &plan.grants, &value);
                plan.grants.push(grant);
            }
        }
    }
    table.finish();
    plan
}

/// One price, or a list of them.
fn read_prices(value: &Value<'_>) -> Vec<String> {
    const EXPECTED: &str = "the id of a price at Stripe, \"price_…\"";
    let read = |value: &Value<'_>| {
        value.parsed(EXPECTED, |price| {
            is_name(price, 255, b"_").then(|| price.to_owned())
        })
    };
    match value.as_list() {
        None => read(value).into_iter().collect(),
        Some(prices) => {
            let prices: Vec<Value<'_>> = prices.collect();
            if prices.is_empty() {
                value.wrong(EXPECTED);
            }
            prices.iter().filter_map(read).collect()
        }
    }
}

fn read_grant(mut table: Table<'_>, pools: &BTreeMap<String, Pool>) -> Option<Grant> {
    let pool = read_pool_name(&mut table, pools);
    let amount = table.require("amount", "how many credits");
    let renews = table.require("renews", "\"never\", \"monthly\" or \"calendar-month\"");
    let rollover = table.take("rollover");

    let renews = renews.and_then(|value| {
        value.word(&[
            ("never", Renews::Never),
            ("monthly", Renews::Monthly),
            ("calendar-month", Renews::CalendarMonth),
        ])
    });
    if let (Some(Renews::Never), Some(rollover)) = (renews, &rollover) {
        rollover.say("expected only where the grant renews, found renews = \"never\"");
    }
    let amount = amount.and_then(|value| value.credits(0));
    let rollover = rollover.map_or(Some(Credits::ZERO), |value| value.credits(0));
    table.finish();
    Some(Grant {
        pool,
        amount: amount?,
        renews: renews?,
        rollover: rollover?,
    })
}

/// A plan's grants are told apart by pool and kind: ids of lots are made from them.
fn check_grant(grant: &Grant, earlier: &[Grant], value: &Value<'_>) {
    let is_once = |grant: &Grant| grant.renews == Renews::Never;
    let rival = earlier
        .iter()
        .any(|other| other.pool == grant.pool && is_once(other) == is_once(grant));
    if rival {
        let kind = if is_once(grant) {
            "one-time"
        } else {
            "recurring"
        };
        value.say(&format!(
            "expected one {kind} grant for each pool, found a second for {:?}",
            grant.pool
        ));
    }
}
