//! What a request costs: the route that its facts choose, and the terms of the call.
//!
//! Prices are read strictly. Whatever an origin might read otherwise than Tollgate does (a field
//! that is there twice, or in another case) is refused rather than priced.

use std::{collections::BTreeSet, fmt};

use super::{Access, Amount, Expected, Field, Price, Route, When};
use crate::{
    credits::Credits,
    price::{OnUnknown, Quantity, Terms},
};

mod body;
mod query;

/// What a price may depend on.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The query as it was sent, without its `?`; empty where there is none.
    pub query: &'a str,
    /// All values of a header, by its lower-case name, joined or not.
    pub header: &'a dyn Fn(&str) -> Vec<String>,
    /// The whole body, or `None` where it was not read.
    pub body: Option<&'a [u8]>,
}

/// What the facts chose.
#[derive(Clone, Debug)]
pub enum Choice<'p> {
    /// A route and its terms.
    Made(Chosen<'p>),
    /// The body has to be read first: ask again with it.
    NeedsBody,
    /// 400 `bad_request`.
    Refused(BadRequest),
}

/// Why a request has no price; a sentence for its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRequest(String);

impl fmt::Display for BadRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The route that is taken.
#[derive(Clone, Debug)]
pub struct Chosen<'p> {
    /// The route.
    pub route: &'p Route,
    /// What the call costs; `None` where the route is public.
    pub terms: Option<Terms>,
}

/// Chooses the first of `candidates` whose `when` holds, and prices the call.
///
/// `on_unknown` is the gateway's, for calls that are no jobs. A body is asked for only where the
/// choice or the price depends on it.
#[must_use]
pub fn choose<'p>(candidates: &[&'p Route], facts: Facts<'_>, on_unknown: OnUnknown) -> Choice<'p> {
    match try_choose(candidates, facts, on_unknown) {
        Ok(chosen) => Choice::Made(chosen),
        Err(Stop::NeedsBody) => Choice::NeedsBody,
        Err(Stop::Bad(refusal)) => Choice::Refused(refusal),
    }
}

/// The headers, in lower case, on which a price among `candidates` depends.
#[must_use]
pub fn priced_headers<'p>(candidates: &[&'p Route]) -> BTreeSet<&'p str> {
    let conditions = candidates.iter().flat_map(|route| &route.when);
    let quantities = candidates.iter().filter_map(|route| match &route.access {
        Access::Priced(Price {
            amount: Amount::Requested { from, .. },
            ..
        }) => Some(from),
        Access::Priced(_) | Access::Public => None,
    });
    conditions
        .map(|when| &when.field)
        .chain(quantities)
        .filter_map(|field| match field {
            Field::Header(name) => Some(name.as_str()),
            Field::Body(_) | Field::Query(_) => None,
        })
        .collect()
}

impl Price {
    /// The terms of a call of this price, whose request tells `quantity`.
    ///
    /// # Errors
    ///
    /// The price depends on a quantity in the request, and there is none or it is priced above
    /// the maximum.
    pub fn terms(
        &self,
        quantity: Option<Quantity>,
        on_unknown: OnUnknown,
    ) -> Result<Terms, BadRequest> {
        let (least, most, meter, reads_answer) = match &self.amount {
            Amount::Fixed(cost) => (*cost, *cost, None, false),
            Amount::Requested { meter, from } => {
                let quantity = quantity.ok_or_else(|| {
                    BadRequest(format!(
                        "the price of this call depends on {from}, which is missing"
                    ))
                })?;
                let price = meter.price(quantity).ok_or_else(|| {
                    BadRequest(format!("{from} is {quantity}: that costs more than {} credits, the maximum for one call", meter.maximum))
                })?;
                (price, price, Some(meter.clone()), false)
            }
            Amount::Reported {
                meter,
                hold_available,
                ..
            } => {
                let least = if *hold_available {
                    meter.minimum
                } else {
                    meter.maximum
                };
                (least, meter.maximum, Some(meter.clone()), true)
            }
        };
        Ok(Terms {
            least,
            most,
            charge_on: self.charge_on,
            meter,
            reads_answer,
            job: self.job,
            on_unknown: self.job.map_or(on_unknown, |job| job.on_unknown),
            ..Terms::fixed(self.pool.clone(), Credits::ZERO)
        })
    }
}

impl fmt::Display for Field {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body(path) => write!(formatter, "body.{}", path.join(".")),
            Self::Query(name) => write!(formatter, "query.{name}"),
            Self::Header(name) => write!(formatter, "header.{name}"),
        }
    }
}

/// Why no route was chosen.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    NeedsBody,
    Bad(BadRequest),
}

impl Stop {
    fn bad(detail: impl Into<String>) -> Self {
        Self::Bad(BadRequest(detail.into()))
    }
}

fn try_choose<'p>(
    candidates: &[&'p Route],
    facts: Facts<'_>,
    on_unknown: OnUnknown,
) -> Result<Chosen<'p>, Stop> {
    for route in candidates {
        if holds(&route.when, facts)? {
            let terms = match &route.access {
                Access::Public => None,
                Access::Priced(price) => {
                    let quantity = quantity(price, facts)?;
                    Some(price.terms(quantity, on_unknown).map_err(Stop::Bad)?)
                }
            };
            return Ok(Chosen { route, terms });
        }
    }
    let mut fields: Vec<String> = candidates
        .iter()
        .flat_map(|route| &route.when)
        .map(|when| when.field.to_string())
        .collect();
    fields.dedup();
    Err(Stop::bad(format!(
        "nothing is sold at this path for the given {}",
        fields.join(", ")
    )))
}

/// The quantity in the request that `price` depends on, if it depends on one.
fn quantity(price: &Price, facts: Facts<'_>) -> Result<Option<Quantity>, Stop> {
    let Amount::Requested { from, .. } = &price.amount else {
        return Ok(None);
    };
    let Some(found) = look_up(from, facts)? else {
        return Ok(None);
    };
    match found.as_quantity() {
        Some(quantity) => Ok(Some(quantity)),
        None => Err(Stop::bad(format!(
            "{from} must be {} of plain digits with at most 3 places",
            found.number_words()
        ))),
    }
}

fn holds(conditions: &[When], facts: Facts<'_>) -> Result<bool, Stop> {
    for condition in conditions {
        let Some(found) = look_up(&condition.field, facts)? else {
            return Ok(false);
        };
        let equal = found.equals(&condition.equals).ok_or_else(|| {
            Stop::bad(format!(
                "{} must be {}",
                condition.field,
                words(&condition.equals)
            ))
        })?;
        if !equal {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A value that a price depends on.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// The text of a query field or header.
    Text(String),
    /// A field of a JSON body.
    Json(body::Scalar),
}

impl Found {
    fn as_quantity(&self) -> Option<Quantity> {
        match self {
            Self::Text(text) | Self::Json(body::Scalar::Number(text)) => Quantity::parse(text),
            Self::Json(body::Scalar::Text(_) | body::Scalar::Flag(_)) => None,
        }
    }

    const fn number_words(&self) -> &'static str {
        match self {
            Self::Text(_) => "a number",
            Self::Json(_) => "a JSON number",
        }
    }

    /// Whether this is `expected`; `None` where it is of another type, which an origin might
    /// turn into the expected one (`"5"` into `5`), or a number that is not spelled plainly.
    fn equals(&self, expected: &Expected) -> Option<bool> {
        match (self, expected) {
            (
                Self::Text(found) | Self::Json(body::Scalar::Text(found)),
                Expected::Text(expected),
            ) => Some(found == expected),
            (Self::Json(body::Scalar::Flag(found)), Expected::Flag(expected)) => {
                Some(found == expected)
            }
            (Self::Json(body::Scalar::Number(found)), Expected::Number(expected)) => {
                Some(Quantity::parse(found)? == *expected)
            }
            _ => None,
        }
    }
}

const fn words(expected: &Expected) -> &'static str {
    match expected {
        Expected::Text(_) => "a string",
        Expected::Number(_) => "a JSON number of plain digits with at most 3 places",
        Expected::Flag(_) => "true or false",
    }
}

fn look_up(field: &Field, facts: Facts<'_>) -> Result<Option<Found>, Stop> {
    match field {
        Field::Body(path) => {
            let bytes = facts.body.ok_or(Stop::NeedsBody)?;
            body::check_headers(facts.header)?;
            Ok(body::look_up(bytes, path)?.map(Found::Json))
        }
        Field::Query(name) => Ok(query::look_up(facts.query, name)?.map(Found::Text)),
        Field::Header(name) => Ok(single_header(facts.header, name)?.map(Found::Text)),
    }
}

/// The one value of a header. A comma may be two values that were joined on the way (RFC 9110
/// §5.2), so it counts as two.
fn single_header(header: &dyn Fn(&str) -> Vec<String>, name: &str) -> Result<Option<String>, Stop> {
    let mut values = header(name);
    let Some(value) = values.pop() else {
        return Ok(None);
    };
    if !values.is_empty() || value.contains(',') {
        return Err(Stop::bad(format!("the header {name} must be given once")));
    }
    Ok(Some(value))
}
