//! `GET /quote`: what a call would cost. Told from the policy alone; nothing is reserved.

use serde::Serialize;

use crate::{
    credits::Credits,
    path::CanonicalPath,
    policy::{
        Access, Amount, Policy, Price, Route,
        router::{Found, Router},
    },
    price::Quantity,
    problem::{Code, Problem},
    self_service::Parameters,
};

/// What is asked: `method`, `path` (as endpoints are listed, without `base_path`), and `value`
/// where the price is by quantity.
const PARAMETERS: [&str; 3] = ["method", "path", "value"];

#[derive(Serialize)]
struct QuoteView<'a> {
    method: &'a str,
    path: &'a str,
    #[serde(flatten)]
    price: PriceView<'a>,
    /// Where the price depends on `when` too: each of the prices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    alternatives: Vec<AlternativeView<'a>>,
}

#[derive(Serialize)]
struct AlternativeView<'a> {
    /// What must hold: field and value.
    when: Vec<String>,
    #[serde(flatten)]
    price: PriceView<'a>,
}

#[derive(Default, Serialize)]
struct PriceView<'a> {
    /// The route's template.
    endpoint: &'a str,
    pool: Option<&'a str>,
    /// What the call would cost; `null` where that depends on what was not told.
    credits: Option<Credits>,
    /// The least and the most that a price by quantity can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    minimum: Option<Credits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum: Option<Credits>,
}

/// The document for a query string, as a caller of `host` is told.
///
/// # Errors
/// 400 for a parameter that is missing, wrong or unknown; 404 and 405 as the call itself would
/// get them.
pub fn quote_page(
    policy: &Policy,
    router: &Router<'_>,
    host: &str,
    query: Option<&str>,
) -> Result<String, Problem> {
    let parameters = Parameters::read(query, &PARAMETERS)?;
    let method = parameters.required("method")?.to_ascii_uppercase();
    let path = parameters.required("path")?;
    let value = parameters
        .text("value")
        .map(|text| {
            Quantity::parse(&text).ok_or_else(|| {
                Problem::bad_field(
                    "value",
                    "value: expected a plain decimal number with at most 3 places",
                )
            })
        })
        .transpose()?;
    let view = match find(policy, router, host, &method, &path)? {
        Found::Candidates(routes) => of_routes(&routes, value)?,
        Found::Unmatched(price) => (price_view("*", price, value)?, Vec::new()),
        Found::NotAllowed { allow } => return Err(Problem::method_not_allowed(allow)),
        Found::NoRoute | Found::SelfService(_) | Found::Admin => {
            return Err(Problem::new(
                Code::NoRoute,
                format!("there is nothing to pay for at {path}"),
            ));
        }
    };
    let (price, alternatives) = view;
    let view = QuoteView {
        method: &method,
        path: &path,
        price,
        alternatives,
    };
    // Plain structs with text keys: writing them cannot fail.
    Ok(serde_json::to_string(&view).unwrap_or_default())
}

fn find<'p>(
    policy: &Policy,
    router: &Router<'p>,
    host: &str,
    method: &str,
    path: &str,
) -> Result<Found<'p>, Problem> {
    let canonical = |path: &str| {
        CanonicalPath::parse(path).map_err(|bad| Problem::bad_field("path", format!("path: {bad}")))
    };
    let under_base = format!("{}{path}", policy.gateway.base_path);
    match router.find(method, host, &canonical(&under_base)?) {
        // A route with `root = true` is listed by its whole path.
        Found::NoRoute | Found::Unmatched(_) => Ok(router.find(method, host, &canonical(path)?)),
        found => Ok(found),
    }
}

fn of_routes<'p>(
    routes: &[&'p Route],
    value: Option<Quantity>,
) -> Result<(PriceView<'p>, Vec<AlternativeView<'p>>), Problem> {
    let mut alternatives = Vec::new();
    for route in routes {
        let price = match &route.access {
            Access::Public => PriceView {
                endpoint: &route.template,
                credits: Some(Credits::ZERO),
                ..PriceView::default()
            },
            Access::Priced(price) => price_view(&route.template, price, value)?,
        };
        if route.when.is_empty() && alternatives.is_empty() {
            return Ok((price, alternatives));
        }
        let when = route
            .when
            .iter()
            .map(|when| format!("{} = {}", when.field, when.equals))
            .collect();
        alternatives.push(AlternativeView { when, price });
    }
    let endpoint = routes.first().map_or("", |route| route.template.as_str());
    Ok((
        PriceView {
            endpoint,
            ..PriceView::default()
        },
        alternatives,
    ))
}

fn price_view<'p>(
    endpoint: &'p str,
    price: &'p Price,
    value: Option<Quantity>,
) -> Result<PriceView<'p>, Problem> {
    let pool = Some(price.pool.as_str());
    let meter = match &price.amount {
        Amount::Fixed(cost) => {
            return Ok(PriceView {
                endpoint,
                pool,
                credits: Some(*cost),
                ..PriceView::default()
            });
        }
        Amount::Requested { meter, .. } | Amount::Reported { meter, .. } => meter,
    };
    let credits = value
        .map(|value| {
            meter.price(value).ok_or_else(|| {
                let most = meter.maximum;
                Problem::bad_field(
                    "value",
                    format!(
                        "value: {value} costs more than {most} credits, the maximum for one call"
                    ),
                )
            })
        })
        .transpose()?;
    Ok(PriceView {
        endpoint,
        pool,
        credits,
        minimum: Some(meter.minimum),
        maximum: Some(meter.maximum),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quote(policy: &str, query: &str) -> Result<serde_json::Value, Problem> {
        let policy = Policy::parse(policy).unwrap();
        let router = Router::new(&policy);
        quote_page(&policy, &router, "api.example.com", Some(query))
            .map(|json| serde_json::from_str(&json).unwrap())
    }

    const DUBBING: &str = include_str!("../examples/voice-dubbing.toml");
    const GENERATION: &str = include_str!("../examples/music-generation.toml");

    #[test]
    fn a_price_by_quantity_is_told_for_a_value() {
        for (value, credits) in [("30", 10), ("180", 30), ("600", 100)] {
            let told = quote(DUBBING, &format!("method=POST&path=/dub&value={value}")).unwrap();
            assert_eq!(told["credits"], credits, "{value}");
            assert_eq!(
                (&told["minimum"], &told["maximum"]),
                (&10.into(), &600.into())
            );
        }
        assert!(quote(DUBBING, "method=POST&path=/dub").unwrap()["credits"].is_null());
        let training = quote(DUBBING, "method=post&path=%2Ftrain&value=5").unwrap();
        assert_eq!(
            (&training["credits"], &training["pool"]),
            (&50.into(), &"credits".into())
        );
    }

    #[test]
    fn where_the_price_depends_on_the_body_every_price_is_told() {
        let told = quote(GENERATION, "method=POST&path=/stems").unwrap();
        assert!(told["credits"].is_null());
        assert_eq!(told["alternatives"][0]["credits"], 75);
        assert_eq!(told["alternatives"][0]["when"][0], "body.mode = \"full\"");
        assert_eq!(told["alternatives"][1]["credits"], 15);
        assert_eq!(
            quote(GENERATION, "method=POST&path=/lyrics").unwrap()["pool"],
            "lyrics"
        );
    }

    #[test]
    fn a_wrong_question_is_told_what_is_wrong() {
        for (query, code) in [
            ("path=/dub", Code::BadRequest),
            ("method=POST", Code::BadRequest),
            ("method=POST&path=/dub&value=1e3", Code::BadRequest),
            ("method=POST&path=/dub&value=36001", Code::BadRequest),
            ("method=POST&path=/dub&price=1", Code::BadRequest),
            ("method=POST&path=/a/../dub", Code::BadRequest),
            ("method=GET&path=/dub", Code::MethodNotAllowed),
            ("method=POST&path=/nothing", Code::NoRoute),
            ("method=GET&path=/me", Code::NoRoute),
        ] {
            assert_eq!(quote(DUBBING, query).unwrap_err().code, code, "{query}");
        }
    }
}
