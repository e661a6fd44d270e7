//! `[[routes]]`: each by itself, then each among the others.

use super::{
    A_SPAN, Table, Value,
    gateway::{CHARGE_ON, ON_UNKNOWN, WHEN_UNAVAILABLE, read_host, read_timeout, set},
    parse_span, plans,
};
use crate::{
    policy::{
        Access, Amount, Expected, Field, Policy, Price, Route, When, WhenUnavailable,
        router::{Page, full_template, pages},
        template::Template,
    },
    price::{ChargeOn, Job},
    time::Span,
};

mod charge;

const MOST_ROUTES: usize = 1_000;
/// Long enough for any path, and short enough to bound how deep templates nest.
const LONGEST_TEMPLATE: usize = 1_024;
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// A settled call can be refunded this long, and its row must still be there then.
const REFUNDS: Span = Span::from_days(30);

/// `policy`, which is complete but for its routes, with them.
pub(super) fn read(routes: Option<Value<'_>>, mut policy: Policy) -> Policy {
    let Some(list) = routes
        .as_ref()
        .and_then(|routes| routes.list("[[routes]] tables"))
    else {
        return policy;
    };
    let pages = pages(&policy);
    let mut earlier = Vec::new();
    for (index, value) in list.enumerate() {
        if index == MOST_ROUTES {
            value.say(&format!(
                "expected at most {MOST_ROUTES} routes, found more"
            ));
            break;
        }
        let Some(route) = value.table().and_then(|table| read_route(table, &policy)) else {
            continue;
        };
        let Some(template) = full_template(&policy.gateway.base_path, &route) else {
            continue;
        };
        let placed = Placed { index, template };
        if let Some(matched) = value.field("match") {
            placed.check_own_paths(&pages, &matched);
            placed.check_reachable(&route, &earlier, &policy.routes, &matched);
        }
        if let Some(when) = value.field("when") {
            placed.check_types(&route, &earlier, &policy.routes, &when);
        }
        earlier.push(placed);
        policy.routes.push(route);
    }
    policy
}

/// A route's place in the file and on the whole path.
struct Placed {
    index: usize,
    template: Template,
}

impl Placed {
    fn check_own_paths(&self, pages: &[(Template, Page)], matched: &Value<'_>) {
        if self.template.is_admin() {
            matched.wrong("a path outside /_tollgate, where the admin API is");
        }
        if pages.iter().any(|(page, _)| self.template.takes(page)) {
            matched.wrong(
                "a path that is no self-service page's \
                 ([self_service] renames a page or switches it off)",
            );
        }
    }

    fn check_reachable(
        &self,
        route: &Route,
        earlier: &[Self],
        routes: &[Route],
        matched: &Value<'_>,
    ) {
        let hides = |(placed, other): &(&Self, &Route)| {
            other.when.is_empty()
                && other.method == route.method
                && (other.host.is_none() || other.host == route.host)
                && placed.template.covers(&self.template)
        };
        if let Some((placed, _)) = earlier.iter().zip(routes).find(hides) {
            matched.wrong(&format!(
                "a route that routes[{}] leaves some calls for",
                placed.index
            ));
        }
    }

    /// A request's value of another type than a condition's is refused, so that two types for
    /// one field would leave the second without a call.
    fn check_types(&self, route: &Route, earlier: &[Self], routes: &[Route], when: &Value<'_>) {
        for (placed, other) in earlier.iter().zip(routes) {
            if other.method != route.method || !placed.template.covers(&self.template) {
                continue;
            }
            let differs = |ours: &&When| {
                other.when.iter().any(|theirs| {
                    theirs.field == ours.field && !same_type(&theirs.equals, &ours.equals)
                })
            };
            if let Some(ours) = route.when.iter().find(differs) {
                when.say(&format!(
                    "expected {} to have the type that it has in routes[{}], found {}",
                    ours.field, placed.index, ours.equals
                ));
            }
        }
    }
}

fn same_type(one: &Expected, other: &Expected) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

fn read_route(mut table: Table<'_>, policy: &Policy) -> Option<Route> {
    let gateway = &policy.gateway;
    let matched = table
        .require("match", A_MATCH)
        .and_then(|value| read_match(&value));
    let (method, template) = matched.map_or((None, String::new()), |(method, template)| {
        (Some(method), template)
    });
    let access = read_access(&mut table, policy);
    let mut route = Route {
        method: method.unwrap_or_default(),
        template,
        root: false,
        host: table.take("host").and_then(|value| read_host(&value)),
        when: charge::read_when(table.take("when")),
        access: Access::Public,
        whole_body: false,
        idempotent: false,
        cache: false,
        upgrade: false,
        timeout: gateway.origin_timeout,
        when_unavailable: WhenUnavailable::Refuse,
    };
    let is_public = access == Some(Access::Public);
    for (name, field) in [
        ("root", &mut route.root),
        ("cache", &mut route.cache),
        ("upgrade", &mut route.upgrade),
        ("whole_body", &mut route.whole_body),
    ] {
        set(field, table.take(name), Value::flag);
    }
    if table.take("timeout_seconds").is_some() {
        read_timeout(
            &mut route.timeout,
            &mut table,
            "timeout_seconds",
            gateway.hold,
        );
    }
    set(&mut route.idempotent, table.take("idempotency"), |value| {
        value.word(&[("origin", true)])
    });
    if matches!(route.method.as_str(), "GET" | "HEAD") {
        let in_body = |field: &Field| matches!(field, Field::Body(_));
        let expected = "no body field, as the body of a GET has no meaning (RFC 9110 §9.3.1)";
        if route.when.iter().any(|when| in_body(&when.field)) {
            table.note("when", expected, "one");
        }
        if let Some(Access::Priced(Price {
            amount: Amount::Requested { from, .. },
            ..
        })) = &access
            && in_body(from)
        {
            table.note("charge", expected, "one");
        }
    }
    let is_free = matches!(
        &access,
        Some(Access::Priced(Price { amount: Amount::Fixed(cost), .. })) if cost.is_zero()
    );
    if is_free {
        route.when_unavailable = gateway.when_unavailable;
    }
    if let Some(value) = table.take("when_unavailable") {
        set(&mut route.when_unavailable, Some(value), |value| {
            value.word(&WHEN_UNAVAILABLE)
        });
        if route.when_unavailable == WhenUnavailable::Allow && !is_free {
            table.note(
                "when_unavailable",
                "\"refuse\", as the route's cost is not 0",
                "\"allow\"",
            );
        }
    }
    if is_public {
        for name in [
            "pool",
            "charge_on",
            "job",
            "whole_body",
            "idempotency",
            "when_unavailable",
        ] {
            table.forbid(name, "nothing, as the route is public");
        }
    } else {
        let opens_job = matches!(&access, Some(Access::Priced(price)) if price.job.is_some());
        for (senseless, why) in [
            (opens_job, "as a job outlives its answer's body"),
            (route.upgrade, "as a WebSocket has no body"),
        ] {
            if route.whole_body && senseless {
                table.note("whole_body", &format!("to be left out, {why}"), "true");
            }
        }
        if route.idempotent && route.upgrade {
            let expected = "to be left out, as a WebSocket cannot be answered twice";
            table.note("idempotency", expected, "\"origin\"");
        }
    }
    table.finish();
    route.access = access?;
    (!route.method.is_empty()).then_some(route)
}

const A_MATCH: &str = "a method and a path template, such as \"POST /search\"";

fn read_match(value: &Value<'_>) -> Option<(String, String)> {
    let (method, template) = value.parsed(A_MATCH, |text| text.split_once(' '))?;
    if !METHODS.contains(&method) {
        value.wrong(&format!("one of the methods {}", METHODS.join(", ")));
        return None;
    }
    if template.len() > LONGEST_TEMPLATE {
        value.wrong(&format!("at most {LONGEST_TEMPLATE} characters"));
        return None;
    }
    if let Err(expected) = Template::parse(template) {
        value.wrong(&expected);
        return None;
    }
    Some((method.to_owned(), template.to_owned()))
}

/// `cost`, `charge` or `public`, of which each route has one, and what belongs to a price.
fn read_access(table: &mut Table<'_>, policy: &Policy) -> Option<Access> {
    let cost = table.take("cost");
    let charge = table.take("charge");
    let public = table.take("public");
    let is_public = public.as_ref().and_then(Value::flag).unwrap_or_default();
    let amount = match (cost, charge, is_public) {
        (Some(cost), None, false) => cost.credits(0).map(Amount::Fixed),
        (None, Some(charge), false) => charge::read_charge(&charge),
        (None, None, true) => {
            for name in ["pool", "charge_on", "job"] {
                let _ = table.take(name);
            }
            return Some(Access::Public);
        }
        (None, None, false) => {
            table.note(
                "cost",
                "one of cost, charge and public = true",
                "none of them",
            );
            None
        }
        (_, Some(_), _) => {
            table.note(
                "charge",
                "one of cost, charge and public = true",
                "more than one",
            );
            None
        }
        (Some(_), None, true) => {
            table.note(
                "cost",
                "one of cost, charge and public = true",
                "more than one",
            );
            None
        }
    };
    let pool = plans::read_pool_name(table, &policy.pools);
    let mut charge_on = ChargeOn::default();
    set(&mut charge_on, table.take("charge_on"), |value| {
        value.word(&CHARGE_ON)
    });
    let job = table.take("job").and_then(|value| read_job(&value, policy));
    if let (Some(_), Some(Amount::Reported { .. })) = (job, &amount) {
        table.note(
            "job",
            "a cost, or a charge by something in the request",
            "a charge by the response, which comes before the job's end",
        );
    }
    Some(Access::Priced(Price {
        pool,
        amount: amount?,
        charge_on,
        job,
    }))
}

fn read_job(value: &Value<'_>, policy: &Policy) -> Option<Job> {
    let mut table = value.table()?;
    let mut on_unknown = policy.gateway.on_unknown;
    let within = table.require("settle_within", A_SPAN);
    set(&mut on_unknown, table.take("on_unknown"), |value| {
        value.word(&ON_UNKNOWN)
    });
    table.finish();
    let within = within?;
    let settle_within = within.parsed(A_SPAN, |text| {
        parse_span(text).filter(|span| *span > Span::ZERO)
    })?;
    let kept = Span::from_days(policy.gateway.usage_days.into());
    let refundable = settle_within
        .as_millis()
        .saturating_add(REFUNDS.as_millis());
    if refundable >= kept.as_millis() {
        within.wrong(&format!(
            "a time that, with the 30 days of refunds, is below the {} of usage_days",
            policy.gateway.usage_days
        ));
    }
    Some(Job {
        settle_within,
        on_unknown,
    })
}
