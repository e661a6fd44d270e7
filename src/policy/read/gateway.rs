//! `[gateway]` and `[origins]`.

use std::collections::BTreeMap;

use super::{Table, Value, is_name, plans};
use crate::{
    policy::{
        Amount, ByHost, Cors, Gateway, Mode, Origin, Origins, Pool, Price, REGIONS,
        WhenUnavailable, template::Template,
    },
    price::{ChargeOn, OnUnknown},
    time::{Calendar, Span},
};

pub(super) const ON_UNKNOWN: [(&str, OnUnknown); 2] = [
    ("release", OnUnknown::Release),
    ("charge", OnUnknown::Charge),
];

pub(super) const WHEN_UNAVAILABLE: [(&str, WhenUnavailable); 2] = [
    ("refuse", WhenUnavailable::Refuse),
    ("allow", WhenUnavailable::Allow),
];

pub(super) const CHARGE_ON: [(&str, ChargeOn); 2] = [
    ("<400", ChargeOn::BelowFourHundred),
    ("2xx", ChargeOn::TwoHundreds),
];

/// `[gateway]`, with its defaults where a field is absent or wrong.
pub(super) fn read(table: Option<Table<'_>>, pools: &BTreeMap<String, Pool>) -> Gateway {
    let mut gateway = defaults();
    let Some(mut table) = table else {
        return gateway;
    };
    if let Some(value) = table.take("base_path") {
        gateway.base_path = read_base_path(&value).unwrap_or_default();
    }
    gateway.key_prefixes = read_key_prefixes(&mut table);
    set(&mut gateway.mode, table.take("mode"), |value| {
        value.word(&[("enforce", Mode::Enforce), ("observe", Mode::Observe)])
    });
    set(&mut gateway.unmatched, table.take("unmatched"), |value| {
        read_unmatched(value, pools)
    });
    set(&mut gateway.hold, table.take("hold_seconds"), read_seconds);
    read_timeout(
        &mut gateway.origin_timeout,
        &mut table,
        "origin_timeout_seconds",
        gateway.hold,
    );
    set(&mut gateway.on_unknown, table.take("on_unknown"), |value| {
        value.word(&ON_UNKNOWN)
    });
    set(
        &mut gateway.forgive_per_day,
        table.take("forgive_per_day"),
        |value| value.count(0),
    );
    set(
        &mut gateway.forward_key,
        table.take("forward_key"),
        Value::flag,
    );
    set(&mut gateway.calendar, table.take("day_starts"), |value| {
        value.parsed(
            "a time of day and an offset from UTC of at most 14 hours, such as \"00:00+01:00\"",
            Calendar::parse,
        )
    });
    set(&mut gateway.usage_days, table.take("usage_days"), read_days);
    read_retain_days(&mut gateway, &mut table);
    // An isolate has 128 MB for everything; this leaves room for several bodies at once.
    set(&mut gateway.body_limit, table.take("body_limit"), |value| {
        value
            .whole(1, 16_777_216)
            .and_then(|bytes| bytes.try_into().ok())
    });
    set(&mut gateway.region, table.take("region"), |value| {
        value.word(&REGIONS).map(|region| Some(region.to_owned()))
    });
    set(&mut gateway.cors, table.take("cors"), read_cors);
    set(
        &mut gateway.when_unavailable,
        table.take("when_unavailable"),
        |value| value.word(&WHEN_UNAVAILABLE),
    );
    set(
        &mut gateway.extra_needs_subscription,
        table.take("extra_needs_subscription"),
        Value::flag,
    );
    set(
        &mut gateway.admin_hosts,
        table.take("admin_hosts"),
        |value| {
            let hosts = value.list("an array of hostnames")?;
            Some(Some(hosts.filter_map(|host| read_host(&host)).collect()))
        },
    );
    table.finish();
    gateway
}

fn defaults() -> Gateway {
    Gateway {
        base_path: String::new(),
        key_prefixes: Vec::new(),
        mode: Mode::Enforce,
        unmatched: None,
        origin_timeout: Span::from_seconds(100),
        hold: Span::from_seconds(300),
        on_unknown: OnUnknown::Release,
        forgive_per_day: 20,
        forward_key: false,
        calendar: Calendar::default(),
        usage_days: 90,
        retain_days: 400,
        body_limit: 65_536,
        region: None,
        cors: Cors::Origin,
        when_unavailable: WhenUnavailable::Refuse,
        extra_needs_subscription: false,
        admin_hosts: None,
    }
}

/// Overwrites a default where the field is there and right.
pub(super) fn set<'a, T>(
    field: &mut T,
    value: Option<Value<'a>>,
    read: impl FnOnce(&Value<'a>) -> Option<T>,
) {
    if let Some(read) = value.as_ref().and_then(read) {
        *field = read;
    }
}

/// A timeout, which must leave time to settle before the hold ends.
pub(super) fn read_timeout(
    timeout: &mut Span,
    table: &mut Table<'_>,
    name: &'static str,
    hold: Span,
) {
    let value = table.take(name);
    let is_given = value.is_some();
    set(timeout, value, read_seconds);
    if *timeout >= hold {
        let hold = hold.as_seconds_ceil();
        let found = timeout.as_seconds_ceil();
        let default = if is_given { "" } else { " (the default)" };
        table.note(
            name,
            &format!("less than hold_seconds, {hold}"),
            &format!("{found}{default}"),
        );
    }
}

/// A closed account's history is kept at least as long as an open one's: so it is not erased while a
/// call of it can still change.
fn read_retain_days(gateway: &mut Gateway, table: &mut Table<'_>) {
    let value = table.take("retain_days");
    let is_given = value.is_some();
    set(&mut gateway.retain_days, value, read_days);
    if gateway.retain_days < gateway.usage_days {
        let default = if is_given { "" } else { " (the default)" };
        table.note(
            "retain_days",
            &format!("at least usage_days, {}", gateway.usage_days),
            &format!("{}{default}", gateway.retain_days),
        );
    }
}

fn read_days(value: &Value<'_>) -> Option<u32> {
    value.whole(1, 3_650).and_then(|days| days.try_into().ok())
}

fn read_seconds(value: &Value<'_>) -> Option<Span> {
    let seconds = value.whole(1, 86_400)?;
    i64::try_from(seconds).ok().map(Span::from_seconds)
}

fn read_base_path(value: &Value<'_>) -> Option<String> {
    let path = value.text("a path such as \"/api/v1\", or \"\"")?;
    if path.is_empty() {
        return Some(String::new());
    }
    match Template::parse(path) {
        Ok(template) if !template.is_literal() => value.wrong("a path without {name} and *"),
        Ok(template) if template.is_admin() => value.wrong("a path outside /_tollgate"),
        Ok(_) if path.ends_with('/') => value.wrong("a path without a closing /"),
        Ok(_) => return Some(path.to_owned()),
        Err(expected) => value.wrong(&expected),
    }
    None
}

fn read_key_prefixes(table: &mut Table<'_>) -> Vec<String> {
    const EXPECTED: &str = "1 to 32 letters, digits and _, such as \"tk_live\"";
    let mut prefixes = Vec::new();
    let first = table.require("key_prefix", EXPECTED);
    let older = table.take("key_prefixes");
    let values = first.into_iter().chain(
        older
            .and_then(|older| older.list("an array of key prefixes"))
            .into_iter()
            .flatten(),
    );
    for value in values {
        let prefix = value.parsed(EXPECTED, |text| {
            is_name(text, 32, b"_").then(|| text.to_owned())
        });
        match prefix {
            Some(prefix) if prefixes.contains(&prefix) => value.wrong("each prefix once"),
            prefix => prefixes.extend(prefix),
        }
    }
    prefixes
}

/// The outer `None` is a mistake, the inner one `"reject"`.
fn read_unmatched(value: &Value<'_>, pools: &BTreeMap<String, Pool>) -> Option<Option<Price>> {
    match value.as_text() {
        Some("reject") => return Some(None),
        Some(_) => {
            value.wrong("\"reject\" or a price such as { cost = 1 }");
            return None;
        }
        None => {}
    }
    let mut table = value.table()?;
    let cost = table.require("cost", "the price of a path that no route names");
    let cost = cost.and_then(|cost| cost.credits(0));
    let mut price = Price {
        pool: plans::read_pool_name(&mut table, pools),
        amount: Amount::Fixed(cost.unwrap_or_default()),
        charge_on: ChargeOn::default(),
        job: None,
    };
    set(&mut price.charge_on, table.take("charge_on"), |value| {
        value.word(&CHARGE_ON)
    });
    table.finish();
    Some(Some(price))
}

fn read_cors(value: &Value<'_>) -> Option<Cors> {
    if value.as_text() == Some("origin") {
        return Some(Cors::Origin);
    }
    if value.as_text().is_some() {
        value.wrong("\"origin\" or { origins = [\"https://app.example.com\"] }");
        return None;
    }
    let mut table = value.table()?;
    let expected = "an array of web origins";
    let origins = table.require("origins", expected).and_then(|origins| {
        let read = |origin: Value<'_>| {
            origin.parsed(
                "a web origin in lower case, such as \"https://app.example.com\"",
                |text| parse_url(text).filter(|parsed| parsed == text),
            )
        };
        Some(origins.list(expected)?.filter_map(read).collect())
    });
    table.finish();
    origins.map(Cors::Origins)
}

/// `[origins]`.
pub(super) fn read_origins(table: Option<Table<'_>>) -> Origins {
    let mut origins = Origins {
        default: Origin::Zone,
        by_host: Vec::new(),
    };
    let Some(mut table) = table else {
        return origins;
    };
    if let Some(default) = table.require("default", AN_ORIGIN) {
        set(&mut origins.default, Some(default), read_origin);
    }
    for (host, value) in table.entries().filter(|(host, _)| *host != "default") {
        let origin = read_origin(&value);
        if !is_host(host) {
            value.say(&format!("expected {A_HOST} before the =, found {host:?}"));
        } else if let Some(origin) = origin {
            let host = host.to_owned();
            origins.by_host.push(ByHost { host, origin });
        }
    }
    origins
}

const AN_ORIGIN: &str = "\"https://HOST\" or \"http://HOST\" without path, query and user, \
                         \"service:BINDING\" or \"zone\"";
const A_HOST: &str = "a hostname in lower case without port";

fn read_origin(value: &Value<'_>) -> Option<Origin> {
    value.parsed(AN_ORIGIN, |text| {
        if text == "zone" {
            return Some(Origin::Zone);
        }
        match text.strip_prefix("service:") {
            Some(binding) => {
                let starts_well = !binding.starts_with(|first: char| first.is_ascii_digit());
                (starts_well && is_name(binding, 64, b"_"))
                    .then(|| Origin::Service(binding.to_owned()))
            }
            None => parse_url(text).map(Origin::Url),
        }
    })
}

/// `http` or `https`, a host and perhaps a port; nothing after it. In lower case.
pub(super) fn parse_url(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let authority = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port_is_good = port.is_none_or(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    let is_ipv6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    (port_is_good && (is_host(host) || is_ipv6)).then_some(text)
}

/// A hostname in lower case, without port.
pub(super) fn read_host(value: &Value<'_>) -> Option<String> {
    value.parsed(A_HOST, |text| is_host(text).then(|| text.to_owned()))
}

fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        is_name(label, 63, b"-_")
            && !label.starts_with('-')
            && !label.ends_with('-')
            && !label.bytes().any(|byte| byte.is_ascii_uppercase())
    };
    text.len() <= 253 && text.split('.').all(is_label)
}
