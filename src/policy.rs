//! What this deployment sells: `policy.toml` as types.
//!
//! [`Policy::parse`] (in `policy/read.rs`) turns the text into these types or names every
//! mistake with its place; past it nothing is checked again. That is done where the bundle is made:
//! an isolate reads what [`Policy::compile`] made of it (`policy/compiled.rs`).

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc};

use crate::{
    credits::Credits,
    event::{BalanceLow, EventType},
    payments::money::Money,
    price::{ChargeOn, Job, Meter, OnUnknown, Quantity},
    time::{Calendar, Span},
    url::CalledUrl,
    wire::{Decode, Encode},
};

mod compiled;
#[cfg(test)]
mod growth;
mod pattern;
pub mod quote;
mod read;
pub mod router;
pub mod template;
mod unusual;

pub use self::{
    pattern::KeyPattern,
    read::{Mistake, Mistakes},
    unusual::{FarAbove, MostlyRefused, Unusual},
};

/// The pool that is meant where none is named.
pub const DEFAULT_POOL: &str = "credits";

/// A checked policy.
#[derive(Debug, Encode, Decode)]
#[cbor(array)]
pub struct Policy {
    /// How the gateway behaves.
    #[n(0)]
    pub gateway: Gateway,
    /// Where calls go.
    #[n(1)]
    pub origins: Origins,
    /// Every pool of credits, by name.
    #[n(2)]
    pub pools: BTreeMap<String, Pool>,
    /// Every plan, by name.
    #[cbor(n(3), with = "compiled::plans")]
    pub plans: BTreeMap<String, Arc<Plan>>,
    /// The routes in the order of the file: the first that matches is taken.
    #[n(4)]
    pub routes: Vec<Route>,
    /// Where customers read about themselves.
    #[n(5)]
    pub self_service: SelfService,
    /// `[imported_keys]`: what keys issued before Tollgate look like, where there are any.
    #[n(6)]
    pub imported_keys: Option<KeyPattern>,
    /// What can be bought besides plans.
    #[n(7)]
    pub packages: Vec<Package>,
    /// `[payments]`: how it is paid.
    #[n(8)]
    pub payments: Payments,
    /// `[notifications]`: who is told what happens to accounts, where somebody is.
    #[n(10)]
    pub notifications: Option<Notifications>,
    /// `[top_up]`: what automatic top-up buys, where it is sold.
    #[n(12)]
    pub top_up: Option<TopUpOffer>,
    /// `[unusual]`: which consumption is flagged; `None`: none is.
    #[n(21)]
    pub unusual: Option<Unusual>,
}

impl Policy {
    /// The package `id`.
    #[must_use]
    pub fn package(&self, id: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.id == id)
    }

    /// The plan that is paid at Stripe as `price`.
    #[must_use]
    pub fn plan_sold_as(&self, price: &str) -> Option<&Plan> {
        self.plans
            .values()
            .find(|plan| plan.stripe_prices().any(|paid_as| paid_as == price))
            .map(|plan| &**plan)
    }

    /// The widest minute limits of any plan: how far back a plan change may have to look.
    #[must_use]
    pub fn widest_limits(&self) -> Limits {
        let limits = || self.plans.values().map(|plan| plan.limits);
        Limits {
            requests_per_minute: limits()
                .filter_map(|limits| limits.requests_per_minute)
                .max(),
            account_requests_per_minute: limits()
                .filter_map(|limits| limits.account_requests_per_minute)
                .max(),
            ..Limits::default()
        }
    }
}

/// `[gateway]`.
#[derive(Debug, Encode, Decode)]
#[cbor(array)]
pub struct Gateway {
    /// `base_path`: what routes and self-service live under; empty, or `/…` without a closing `/`.
    #[n(0)]
    pub base_path: String,
    /// `key_prefix` first, then the older ones of `key_prefixes`, which still verify.
    #[n(1)]
    pub key_prefixes: Vec<String>,
    /// `mode`.
    #[n(2)]
    pub mode: Mode,
    /// `unmatched`: the price of a path that no route names; `None` is `"reject"`.
    #[n(3)]
    pub unmatched: Option<Price>,
    /// `origin_timeout_seconds`.
    #[n(4)]
    pub origin_timeout: Span,
    /// `hold_seconds`.
    #[n(5)]
    pub hold: Span,
    /// `on_unknown`.
    #[n(6)]
    pub on_unknown: OnUnknown,
    /// `forgive_per_day`: unknown outcomes released per key and day.
    #[n(7)]
    pub forgive_per_day: u32,
    /// `forward_key`: whether the origin sees Tollgate's key.
    #[n(8)]
    pub forward_key: bool,
    /// `day_starts`.
    #[n(9)]
    pub calendar: Calendar,
    /// `usage_days`: how many days single calls are kept after the end of their month.
    #[n(10)]
    pub usage_days: u32,
    /// `body_limit`: bytes read where a price needs the body.
    #[n(11)]
    pub body_limit: usize,
    /// `region`: the location hint of new accounts' objects.
    #[n(12)]
    pub region: Option<String>,
    /// `cors`: who answers preflights of origin paths.
    #[n(13)]
    pub cors: Cors,
    /// `when_unavailable`, for routes that do not say otherwise.
    #[n(14)]
    pub when_unavailable: WhenUnavailable,
    /// `extra_needs_subscription`.
    #[n(15)]
    pub extra_needs_subscription: bool,
    /// `admin_hosts`: the only hostnames where `/_tollgate` answers; `None` is all of them.
    #[n(16)]
    pub admin_hosts: Option<Vec<String>>,
    /// `retain_days`: how many days a closed account is kept before it is erased; at least
    /// `usage_days`.
    #[n(17)]
    pub retain_days: u32,
}

impl Gateway {
    /// The first part of every key that is issued.
    #[must_use]
    pub fn key_prefix(&self) -> &str {
        self.key_prefixes.first().map_or("", String::as_str)
    }
}

/// `[gateway] mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Mode {
    /// Decide and act.
    #[n(0)]
    Enforce,
    /// Decide, log and count; refuse nothing, charge nothing.
    #[n(1)]
    Observe,
}

/// `[gateway] cors`.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub enum Cors {
    /// The origin answers preflights.
    #[n(0)]
    Origin,
    /// Tollgate answers them, for pages of these origins (`https://app.example.com`).
    #[n(1)]
    Origins(#[n(0)] Vec<String>),
}

/// `when_unavailable`: what happens when the account's object cannot answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum WhenUnavailable {
    /// 503.
    #[n(0)]
    Refuse,
    /// The call goes through uncounted; only for routes of cost 0.
    #[n(1)]
    Allow,
}

/// Where Cloudflare can be asked to place an object (the location hints of Durable Objects): the
/// words as they are written, and as they are passed on.
pub const REGIONS: [(&str, &str); 9] = [
    ("wnam", "wnam"),
    ("enam", "enam"),
    ("sam", "sam"),
    ("weur", "weur"),
    ("eeur", "eeur"),
    ("apac", "apac"),
    ("oc", "oc"),
    ("afr", "afr"),
    ("me", "me"),
];

/// `[origins]`.
#[derive(Debug, Encode, Decode)]
#[cbor(array)]
pub struct Origins {
    /// `default`.
    #[n(0)]
    pub default: Origin,
    /// By the hostname that was called (lower case, no port).
    #[n(1)]
    pub by_host: Vec<ByHost>,
}

impl Origins {
    /// Where calls to `host` (lower case, no port) go.
    #[must_use]
    pub fn of(&self, host: &str) -> &Origin {
        self.by_host
            .iter()
            .find(|by_host| by_host.host == host)
            .map_or(&self.default, |by_host| &by_host.origin)
    }
}

/// Where calls to one hostname go.
#[derive(Debug, Encode, Decode)]
#[cbor(array)]
pub struct ByHost {
    /// The hostname (lower case, no port).
    #[n(0)]
    pub host: String,
    /// Its origin.
    #[n(1)]
    pub origin: Origin,
}

/// One origin.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Origin {
    /// Scheme, host and port, without a closing `/`: `https://origin.example.com`.
    #[n(0)]
    Url(#[n(0)] String),
    /// `service:BINDING`: another Worker.
    #[n(1)]
    Service(#[n(0)] String),
    /// `zone`: the same hostname, behind the Worker's Route.
    #[n(2)]
    Zone,
}

impl Origin {
    /// Scheme, host and port to ask it by, where `called` is what was called: another Worker and the same
    /// hostname's origin are asked as Tollgate was.
    #[must_use]
    pub fn url<'a>(&'a self, called: &CalledUrl<'_>) -> Cow<'a, str> {
        match self {
            Self::Url(url) => Cow::Borrowed(url),
            Self::Service(_) | Self::Zone => Cow::Owned(called.origin()),
        }
    }
}

/// `[pools.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Pool {
    /// `spend_first`: each source once, the first spent first.
    #[n(0)]
    pub spend_first: [Source; 3],
    /// `restore`: how long what comes back to an expired lot stays spendable.
    #[n(1)]
    pub restore: Span,
}

impl Pool {
    /// The place of `source` in `spend_first`: the lowest is spent first.
    #[must_use]
    pub fn rank(&self, source: Source) -> usize {
        self.spend_first
            .iter()
            .position(|other| *other == source)
            .unwrap_or(self.spend_first.len())
    }
}

/// Where a lot came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Given: also a plan's one-time grant.
    #[n(0)]
    Promo,
    /// Purchases and top-ups.
    #[n(1)]
    Extra,
    /// The plan's recurring grant.
    #[n(2)]
    Subscription,
}

/// `[plans.NAME]`: named limits and recurring grants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Plan {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// `paid`: counts as a subscription.
    #[n(1)]
    pub paid: bool,
    /// The limits of each key, and of the account.
    #[n(2)]
    pub limits: Limits,
    /// `max_keys`; `None`: no limit of the plan's.
    #[n(3)]
    pub max_keys: Option<u32>,
    /// `grants`; at most one recurring grant for each pool.
    #[n(4)]
    pub grants: Vec<Grant>,
    /// `stripe_price`: what is subscribed to at Stripe to be on this plan.
    #[n(5)]
    pub stripe_price: Option<String>,
    /// The others of a `stripe_price` that is a list: those that earlier customers pay it as.
    #[cbor(n(6), default)]
    pub earlier_prices: Vec<String>,
}

impl Plan {
    /// Every price at Stripe that the plan is paid as, the one that it is sold as first.
    pub fn stripe_prices(&self) -> impl Iterator<Item = &String> {
        self.stripe_price.iter().chain(&self.earlier_prices)
    }
}

/// A plan's limits; `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Limits {
    /// Calls of one key in any 60 seconds.
    #[n(0)]
    pub requests_per_minute: Option<u32>,
    /// Calls of one key in a day.
    #[n(1)]
    pub requests_per_day: Option<u32>,
    /// Calls of one key admitted and not yet answered.
    #[n(2)]
    pub requests_in_flight: Option<u32>,
    /// Jobs of one key not yet ended.
    #[n(3)]
    pub jobs_open: Option<u32>,
    /// Calls of all keys of the account in any 60 seconds.
    #[n(4)]
    pub account_requests_per_minute: Option<u32>,
}

/// One of a plan's `grants`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Grant {
    /// The pool it fills.
    #[n(0)]
    pub pool: String,
    /// Credits.
    #[n(1)]
    pub amount: Credits,
    /// When it comes again.
    #[n(2)]
    pub renews: Renews,
    /// At most this much of what the old lot can give goes into the next cycle, once.
    #[n(3)]
    pub rollover: Credits,
}

impl Grant {
    /// Whether it comes again.
    #[must_use]
    pub fn is_recurring(&self) -> bool {
        self.renews != Renews::Never
    }
}

/// `renews`: when a grant comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Renews {
    /// Once per account and plan; its source is promo.
    #[n(0)]
    Never,
    /// On the account's billing day.
    #[n(1)]
    Monthly,
    /// On the 1st.
    #[n(2)]
    CalendarMonth,
}

/// One `[[packages]]` table: credits that are bought once.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Package {
    /// `id`.
    #[n(0)]
    pub id: String,
    /// The pool that the credits are of.
    #[n(1)]
    pub pool: String,
    /// `credits`.
    #[n(2)]
    pub credits: Credits,
    /// `price`, without the tax that Stripe may add.
    #[n(3)]
    pub price: Money,
}

/// `[payments]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Payments {
    /// `return_url`: where Stripe's pages send customers when they are done; `None` is the host that was
    /// called.
    #[n(0)]
    pub return_url: Option<String>,
    /// `automatic_tax`: Stripe Tax works out the tax of every payment.
    #[n(1)]
    pub automatic_tax: bool,
}

/// One `[[routes]]` table.
#[derive(Debug, Encode, Decode)]
#[cbor(array)]
pub struct Route {
    /// The method of `match`, upper case.
    #[n(0)]
    pub method: String,
    /// The template of `match`, without `base_path`: what usage lists as the endpoint.
    #[n(1)]
    pub template: String,
    /// `root`: the template stands outside `base_path`.
    #[n(2)]
    pub root: bool,
    /// `host`: the only hostname (lower case) where it applies.
    #[n(3)]
    pub host: Option<String>,
    /// `when`: all must hold.
    #[n(4)]
    pub when: Vec<When>,
    /// Who may pass, and for how much.
    #[n(5)]
    pub access: Access,
    /// `whole_body`: a call that is charged by its status ends only when the answer's body does.
    #[n(6)]
    pub whole_body: bool,
    /// `idempotency = "origin"`: the origin deduplicates retried calls, which are charged once.
    #[n(7)]
    pub idempotent: bool,
    /// `cache = true`: Cloudflare's cache may answer.
    #[n(8)]
    pub cache: bool,
    /// `upgrade = true`: WebSocket upgrades pass.
    #[n(9)]
    pub upgrade: bool,
    /// `timeout_seconds`, or the gateway's `origin_timeout_seconds`.
    #[n(10)]
    pub timeout: Span,
    /// `when_unavailable`, or the gateway's.
    #[n(11)]
    pub when_unavailable: WhenUnavailable,
}

/// Who may pass a route.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Access {
    /// `public = true`: forwarded without key, count or charge.
    #[n(0)]
    Public,
    /// A key is needed, and this is paid.
    #[n(1)]
    Priced(#[n(0)] Price),
}

/// A route's price.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Price {
    /// The pool that pays.
    #[n(0)]
    pub pool: String,
    /// How much.
    #[n(1)]
    pub amount: Amount,
    /// `charge_on`.
    #[n(2)]
    pub charge_on: ChargeOn,
    /// `job`.
    #[n(3)]
    pub job: Option<Job>,
}

/// `cost` or `charge`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Amount {
    /// `cost`: the same for every call.
    #[n(0)]
    Fixed(#[n(0)] Credits),
    /// `charge` with a quantity that the request tells.
    #[n(1)]
    Requested {
        /// The arithmetic.
        #[n(0)]
        meter: Meter,
        /// Where the quantity is.
        #[n(1)]
        from: Field,
    },
    /// `charge` with a quantity that the origin's answer tells.
    #[n(2)]
    Reported {
        /// The arithmetic.
        #[n(0)]
        meter: Meter,
        /// The response header, lower case.
        #[n(1)]
        header: String,
        /// `hold = "available"`: the least that must be held is the minimum, not the maximum.
        #[n(2)]
        hold_available: bool,
    },
}

/// Something in a request that a price depends on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Field {
    /// `body.A.B`: a field of the JSON body, level by level.
    #[n(0)]
    Body(#[n(0)] Vec<String>),
    /// `query.NAME`.
    #[n(1)]
    Query(#[n(0)] String),
    /// `header.NAME`, lower case.
    #[n(2)]
    Header(#[n(0)] String),
}

/// One condition of `when`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct When {
    /// What is looked at.
    #[n(0)]
    pub field: Field,
    /// What it must be: of any type for a body field, else text.
    #[n(1)]
    pub equals: Expected,
}

/// What a condition compares with.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Expected {
    /// A text; in a body, a JSON string.
    #[n(0)]
    Text(#[n(0)] String),
    /// A JSON number.
    #[n(1)]
    Number(#[n(0)] Quantity),
    /// `true` or `false`.
    #[n(2)]
    Flag(#[n(0)] bool),
}

impl fmt::Display for Expected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(formatter, "{text:?}"),
            Self::Number(number) => number.fmt(formatter),
            Self::Flag(flag) => flag.fmt(formatter),
        }
    }
}

/// `[notifications]`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Notifications {
    /// `url`: where the operator's webhook is; `https`, or `http` on this machine.
    #[n(0)]
    pub url: String,
    /// `balance_low`: by pool, the thresholds of accounts that have none of their own.
    #[n(1)]
    pub balance_low: BalanceLow,
    /// `[notifications.email]`: what customers are told themselves.
    #[n(2)]
    pub email: Option<EmailNotices>,
}

/// `[notifications.email]`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct EmailNotices {
    /// `from`: an address of a domain that the deployment may send from.
    #[n(0)]
    pub from: String,
    /// `name`: the sender's name for people.
    #[n(1)]
    pub name: Option<String>,
    /// `events`: which ones the customer is told.
    #[n(2)]
    pub events: Vec<EventType>,
}

/// `[top_up]`: what automatic top-up buys.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct TopUpOffer {
    /// `pool`: the pool that is topped up.
    #[n(0)]
    pub pool: String,
    /// `credits_per`: so many credits …
    #[n(1)]
    pub credits_per: Credits,
    /// `price`: … cost this, without the tax that Stripe may add.
    #[n(2)]
    pub price: Money,
}

impl TopUpOffer {
    /// What `credits` cost: rounded up to what the currency can be paid in. `None` where that is no
    /// amount.
    #[must_use]
    pub fn price_of(&self, credits: Credits) -> Option<Money> {
        let step = self.price.currency.step();
        let amount = u128::from(self.price.amount)
            .checked_mul(credits.get().into())?
            .div_ceil(self.credits_per.get().max(1).into())
            .checked_next_multiple_of(step.into())?;
        Some(Money {
            amount: amount.try_into().ok()?,
            ..self.price
        })
    }
}

/// `[self_service]`: the template of each page under `base_path`, or `None` where switched off.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct SelfService {
    /// `me`, by default `/me`.
    #[n(0)]
    pub me: Option<String>,
    /// `usage`, by default `/usage`.
    #[n(1)]
    pub usage: Option<String>,
    /// `usage_summary`, by default `/usage/summary`.
    #[n(2)]
    pub usage_summary: Option<String>,
    /// `ledger`, by default `/ledger`.
    #[n(3)]
    pub ledger: Option<String>,
    /// `get_credits`, by default `/get-credits`.
    #[n(4)]
    pub get_credits: Option<String>,
    /// `quote`, by default `/quote`.
    #[n(5)]
    pub quote: Option<String>,
    /// `purchase`, by default `/credits/purchase`.
    #[n(6)]
    pub purchase: Option<String>,
    /// `subscription`, by default `/subscription`.
    #[n(7)]
    pub subscription: Option<String>,
    /// `billing_history`, by default `/billing/history`.
    #[n(8)]
    pub billing_history: Option<String>,
    /// `billing_portal`, by default `/billing/portal`.
    #[n(9)]
    pub billing_portal: Option<String>,
    /// `top_up`, by default `/credits/top-up`.
    #[n(10)]
    pub top_up: Option<String>,
    /// `top_up_retry`, by default `/credits/top-up/retry`.
    #[n(11)]
    pub top_up_retry: Option<String>,
}
