//! `[notifications]`.

use std::collections::BTreeMap;

use super::{
    Table, Value,
    gateway::{parse_url, set},
};
use crate::{
    credits::Credits,
    event::{BalanceLow, EventType, THRESHOLDS_MAX, Thresholds, letter::is_address},
    policy::{EmailNotices, Notifications, Pool},
};

const A_URL: &str =
    "\"https://HOST/PATH\" without user and fragment (http only for 127.0.0.1 and localhost)";
const AN_ADDRESS: &str = "an e-mail address such as \"billing@example.com\"";
/// What customers are told unless the policy says otherwise: what they can do something about.
const TOLD_BY_EMAIL: [EventType; 6] = [
    EventType::BalanceLow,
    EventType::BalanceExhausted,
    EventType::TopUpFailed,
    EventType::TopUpPaused,
    EventType::PaymentRefunded,
    EventType::AccountSuspended,
];

/// The table, where there is one.
pub(super) fn read(mut table: Table<'_>, pools: &BTreeMap<String, Pool>) -> Notifications {
    let url = table.require("url", A_URL);
    let url = url.and_then(|value| value.parsed(A_URL, read_url));
    let balance_low = table.take("balance_low");
    let email = table.take("email");
    let notifications = Notifications {
        url: url.unwrap_or_default(),
        balance_low: balance_low
            .and_then(|value| value.table())
            .map(|table| read_thresholds(&table, pools))
            .unwrap_or_default(),
        email: email.and_then(|value| value.table()).map(read_email),
    };
    table.finish();
    notifications
}

fn read_url(text: &str) -> Option<String> {
    let is_plain = text.len() <= 1_000
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && !text.contains(['#', '\\', '"', '<', '>']);
    let after_scheme = text.find("://")?.checked_add(3)?;
    let rest = text.get(after_scheme..)?;
    let host_ends = rest.find(['/', '?']).unwrap_or(rest.len());
    let (origin, path) = text.split_at_checked(after_scheme.checked_add(host_ends)?)?;
    let origin = parse_url(origin)?;
    let is_safe = origin.strip_prefix("http://").is_none_or(|authority| {
        let here = ["127.0.0.1", "localhost", "[::1]"];
        here.iter()
            .any(|host| authority.strip_prefix(host).is_some_and(is_port))
    });
    (is_plain && is_safe).then(|| format!("{origin}{path}"))
}

/// What can follow a host.
fn is_port(text: &str) -> bool {
    text.is_empty() || text.starts_with(':')
}

fn read_thresholds(table: &Table<'_>, pools: &BTreeMap<String, Pool>) -> BalanceLow {
    let expected = format!("an array of at most {THRESHOLDS_MAX} numbers of credits");
    let mut all = Vec::new();
    for (pool, value) in table.entries() {
        if !pools.contains_key(pool) {
            value.say(&format!(
                "expected a pool that [pools] declares before the =, found {pool:?}"
            ));
        }
        let Some(list) = value.list(&expected) else {
            continue;
        };
        let below: Vec<Credits> = list.filter_map(|value| value.credits(1)).collect();
        if below.len() > THRESHOLDS_MAX {
            value.wrong(&expected);
        }
        let pool = pool.to_owned();
        all.push(Thresholds { pool, below });
    }
    BalanceLow::new(all)
}

fn read_email(mut table: Table<'_>) -> EmailNotices {
    let from = table.require("from", AN_ADDRESS);
    let from = from.and_then(|value| {
        value.parsed(AN_ADDRESS, |text| is_address(text).then(|| text.to_owned()))
    });
    let name = table.take("name").and_then(|value| {
        value.parsed("1 to 100 characters without line breaks", |text| {
            let is_short = (1..=100).contains(&text.chars().count());
            (is_short && !text.contains(char::is_control)).then(|| text.to_owned())
        })
    });
    let mut events = TOLD_BY_EMAIL.to_vec();
    set(&mut events, table.take("events"), read_events);
    table.finish();
    EmailNotices {
        from: from.unwrap_or_default(),
        name,
        events,
    }
}

fn read_events(value: &Value<'_>) -> Option<Vec<EventType>> {
    let list = value.list("an array of types of events, such as \"balance.low\"")?;
    Some(
        list.filter_map(|value| value.word(&EventType::NAMES))
            .collect(),
    )
}
