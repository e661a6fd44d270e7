//! What a route's price depends on: `charge` and `when`.

use super::super::{Table, Value, gateway::set};
use crate::{
    credits::Credits,
    headers::dropped_request_header,
    policy::{Amount, Expected, Field, When},
    price::{Meter, Quantity},
};

/// Headers that may carry a key, which is taken off.
const CREDENTIALS: [&str; 2] = ["authorization", "x-api-key"];
const A_FIELD: &str = "body.FIELD, query.NAME or header.NAME";
const A_SOURCE: &str = "body.FIELD, query.NAME, header.NAME or response.header.NAME";

/// `charge = { … }`.
pub(super) fn read_charge(value: &Value<'_>) -> Option<Amount> {
    let mut table = value.table()?;
    let rate = table
        .require("rate", "the credits for each started unit")
        .and_then(|rate| rate.credits(1));
    let unit = table
        .require("unit", A_UNIT)
        .and_then(|unit| read_unit(&unit));
    let maximum = table
        .require("maximum", "the most that one call may cost")
        .and_then(|maximum| maximum.credits(1));
    let mut minimum = Credits::ZERO;
    set(&mut minimum, table.take("minimum"), |minimum| {
        minimum.credits(0)
    });
    let from = table.require("from", A_SOURCE).and_then(|from| {
        let source = from.parsed(A_SOURCE, parse_source)?;
        match &source {
            QuantitySource::Request(field) => refuse_unforwarded(field, &from)?,
            QuantitySource::Response(_) => {}
        }
        Some(source)
    });
    let hold_available = read_hold(&mut table, from.as_ref());

    if let Some(maximum) = maximum {
        if minimum > maximum {
            table.note(
                "minimum",
                &format!("at most the maximum, {maximum}"),
                &minimum.to_string(),
            );
        }
        if let Some(rate) = rate.filter(|rate| *rate > maximum) {
            table.note(
                "rate",
                &format!("at most the maximum, {maximum}"),
                &rate.to_string(),
            );
        }
    }
    if hold_available && minimum.is_zero() {
        table.note(
            "minimum",
            "at least 1 with hold = \"available\", or a call is let in with nothing to pay it",
            "0",
        );
    }
    table.finish();
    let meter = Meter {
        rate: rate?,
        unit: unit?,
        minimum,
        maximum: maximum?,
    };
    Some(match from? {
        QuantitySource::Request(from) => Amount::Requested { meter, from },
        QuantitySource::Response(header) => Amount::Reported {
            meter,
            header,
            hold_available,
        },
    })
}

/// Where a quantity comes from.
enum QuantitySource {
    Request(Field),
    Response(String),
}

const A_UNIT: &str = "a number above 0 with at most 3 places";

fn read_unit(value: &Value<'_>) -> Option<Quantity> {
    let unit = value.quantity().filter(|unit| unit.as_thousandths() > 0);
    if unit.is_none() {
        value.wrong(A_UNIT);
    }
    unit
}

/// `hold`, which has a meaning only where the price is learned after the fact.
fn read_hold(table: &mut Table<'_>, from: Option<&QuantitySource>) -> bool {
    let Some(value) = table.take("hold") else {
        return false;
    };
    if let Some(QuantitySource::Request(_)) = from {
        value.say(
            "expected only with from = \"response.header.NAME\", as the price is known before",
        );
    }
    value
        .word(&[("maximum", false), ("available", true)])
        .unwrap_or_default()
}

/// `when = { … }`, at least one condition.
pub(super) fn read_when(value: Option<Value<'_>>) -> Vec<When> {
    let Some(value) = value else {
        return Vec::new();
    };
    let Some(table) = value.table() else {
        return Vec::new();
    };
    let mut when = Vec::new();
    for (name, expected) in table.entries() {
        match parse_field(name) {
            Some(field) => {
                let equals = refuse_unforwarded(&field, &expected)
                    .and_then(|()| read_equals(&field, &expected));
                when.extend(equals.map(|equals| When { field, equals }));
            }
            None => expected.say(&format!("expected {A_FIELD} before the =, found {name:?}")),
        }
    }
    if table.entries().next().is_none() {
        value.say("expected at least one condition, found none");
    }
    when
}

/// A price must not depend on a header that the origin does not get as it was sent.
fn refuse_unforwarded(field: &Field, value: &Value<'_>) -> Option<()> {
    match field {
        Field::Header(name)
            if dropped_request_header(name) || CREDENTIALS.contains(&name.as_str()) =>
        {
            value.say(&format!(
                "expected a header that reaches the origin as it was sent; {name} does not"
            ));
            None
        }
        Field::Header(_) | Field::Body(_) | Field::Query(_) => Some(()),
    }
}

/// What a field must be.
fn read_equals(field: &Field, value: &Value<'_>) -> Option<Expected> {
    let text = |text: &str| Expected::Text(text.to_owned());
    match field {
        Field::Body(_) => {
            let read = value.as_text().map(text);
            let read = read.or_else(|| value.as_flag().map(Expected::Flag));
            let read = read.or_else(|| value.quantity().map(Expected::Number));
            if read.is_none() {
                value.wrong("a string, true, false or a plain number with at most 3 places");
            }
            read
        }
        Field::Query(_) => value.text("a string").map(text),
        // A header with a comma in it is refused as one given twice.
        Field::Header(_) => value.parsed("a string without a comma", |found| {
            (!found.contains(',')).then(|| text(found))
        }),
    }
}

fn parse_source(text: &str) -> Option<QuantitySource> {
    match text.strip_prefix("response.header.") {
        Some(name) => parse_header(name).map(QuantitySource::Response),
        None => parse_field(text).map(QuantitySource::Request),
    }
}

fn parse_field(text: &str) -> Option<Field> {
    let (place, name) = text.split_once('.')?;
    match place {
        "body" => {
            let path: Vec<String> = name.split('.').map(str::to_owned).collect();
            path.iter()
                .all(|level| !level.is_empty())
                .then_some(Field::Body(path))
        }
        "query" => (!name.is_empty()).then(|| Field::Query(name.to_owned())),
        "header" => parse_header(name).map(Field::Header),
        _ => None,
    }
}

/// A header's name (RFC 9110 §5.1 `token`) in lower case.
fn parse_header(name: &str) -> Option<String> {
    let is_token = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    is_token.then(|| name.to_ascii_lowercase())
}
