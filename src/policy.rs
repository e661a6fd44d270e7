//! What this deployment sells: `policy.toml` as types.
//!
//! [`Policy::parse`] (in `policy/read.rs`) turns the text into these types or names every
//! mistake with its place; past it nothing is checked again.

use std::{collections::BTreeMap, sync::Arc};

use minicbor::{Decode, Encode};

use crate::{
    credits::Credits,
    price::{ChargeOn, Job, Meter, OnUnknown},
    time::{Calendar, Span},
};

pub mod quote;
mod read;
pub mod router;
pub mod template;

pub use self::read::{Mistake, Mistakes};

/// The pool that is meant where none is named.
pub const DEFAULT_POOL: &str = "credits";

/// A checked policy.
#[derive(Debug)]
pub struct Policy {
    /// How the gateway behaves.
    pub gateway: Gateway,
    /// Where calls go.
    pub origins: Origins,
    /// Every pool of credits, by name.
    pub pools: BTreeMap<String, Pool>,
    /// Every plan, by name.
    pub plans: BTreeMap<String, Arc<Plan>>,
    /// The routes in the order of the file: the first that matches is taken.
    pub routes: Vec<Route>,
    /// Where customers read about themselves.
    pub self_service: SelfService,
}

impl Policy {
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
#[derive(Debug)]
pub struct Gateway {
    /// `base_path`: what routes and self-service live under; empty, or `/…` without a closing `/`.
    pub base_path: String,
    /// `key_prefix` first, then the older ones of `key_prefixes`, which still verify.
    pub key_prefixes: Vec<String>,
    /// `mode`.
    pub mode: Mode,
    /// `unmatched`: the price of a path that no route names; `None` is `"reject"`.
    pub unmatched: Option<Price>,
    /// `origin_timeout_seconds`.
    pub origin_timeout: Span,
    /// `hold_seconds`.
    pub hold: Span,
    /// `on_unknown`.
    pub on_unknown: OnUnknown,
    /// `forgive_per_day`: unknown outcomes released per key and day.
    pub forgive_per_day: u32,
    /// `forward_key`: whether the origin sees Tollgate's key.
    pub forward_key: bool,
    /// `day_starts`.
    pub calendar: Calendar,
    /// `usage_days`: how many days single calls are kept after the end of their month.
    pub usage_days: u32,
    /// `retain_days`: how many days a closed account is kept before it is erased; at least
    /// `usage_days`.
    pub retain_days: u32,
    /// `body_limit`: bytes read where a price needs the body.
    pub body_limit: usize,
    /// `region`: the location hint of new accounts' objects.
    pub region: Option<String>,
    /// `cors`: who answers preflights of origin paths.
    pub cors: Cors,
    /// `when_unavailable`, for routes that do not say otherwise.
    pub when_unavailable: WhenUnavailable,
    /// `extra_needs_subscription`.
    pub extra_needs_subscription: bool,
    /// `admin_hosts`: the only hostnames where `/_tollgate` answers; `None` is all of them.
    pub admin_hosts: Option<Vec<String>>,
}

impl Gateway {
    /// The first part of every key that is issued.
    #[must_use]
    pub fn key_prefix(&self) -> &str {
        self.key_prefixes.first().map_or("", String::as_str)
    }
}

/// `[gateway] mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Decide and act.
    Enforce,
    /// Decide, log and count; refuse nothing, charge nothing.
    Observe,
}

/// `[gateway] cors`.
#[derive(Debug, PartialEq, Eq)]
pub enum Cors {
    /// The origin answers preflights.
    Origin,
    /// Tollgate answers them, for pages of these origins (`https://app.example.com`).
    Origins(Vec<String>),
}

/// `when_unavailable`: what happens when the account's object cannot answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenUnavailable {
    /// 503.
    Refuse,
    /// The call goes through uncounted; only for routes of cost 0.
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
#[derive(Debug)]
pub struct Origins {
    /// `default`.
    pub default: Origin,
    /// By the hostname that was called (lower case, no port).
    pub by_host: BTreeMap<String, Origin>,
}

impl Origins {
    /// Where calls to `host` (lower case, no port) go.
    #[must_use]
    pub fn of(&self, host: &str) -> &Origin {
        self.by_host.get(host).unwrap_or(&self.default)
    }
}

/// One origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Scheme, host and port, without a closing `/`: `https://origin.example.com`.
    Url(String),
    /// `service:BINDING`: another Worker.
    Service(String),
    /// `zone`: the same hostname, behind the Worker's Route.
    Zone,
}

/// `[pools.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// `spend_first`: each source once, the first spent first.
    pub spend_first: [Source; 3],
    /// `restore`: how long what comes back to an expired lot stays spendable.
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

/// One `[[routes]]` table.
#[derive(Debug)]
pub struct Route {
    /// The method of `match`, upper case.
    pub method: String,
    /// The template of `match`, without `base_path`: what usage lists as the endpoint.
    pub template: String,
    /// `root`: the template stands outside `base_path`.
    pub root: bool,
    /// `host`: the only hostname (lower case) where it applies.
    pub host: Option<String>,
    /// `when`: all must hold.
    pub when: Vec<When>,
    /// Who may pass, and for how much.
    pub access: Access,
    /// `whole_body`: a call that is charged by its status ends only when the answer's body does.
    pub whole_body: bool,
    /// `idempotency = "origin"`: the origin deduplicates retried calls. Read and checked; not acted
    /// on yet.
    pub idempotent: bool,
    /// `cache = true`: Cloudflare's cache may answer.
    pub cache: bool,
    /// `upgrade = true`: WebSocket upgrades pass.
    pub upgrade: bool,
    /// `timeout_seconds`, or the gateway's `origin_timeout_seconds`.
    pub timeout: Span,
    /// `when_unavailable`, or the gateway's.
    pub when_unavailable: WhenUnavailable,
}

/// Who may pass a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// `public = true`: forwarded without key, count or charge.
    Public,
    /// A key is needed, and this is paid.
    Priced(Price),
}

/// A route's price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// The pool that pays.
    pub pool: String,
    /// How much.
    pub amount: Amount,
    /// `charge_on`.
    pub charge_on: ChargeOn,
    /// `job`.
    pub job: Option<Job>,
}

/// `cost` or `charge`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Amount {
    /// `cost`: the same for every call.
    Fixed(Credits),
    /// `charge` with a quantity that the request tells.
    Requested {
        /// The arithmetic.
        meter: Meter,
        /// Where the quantity is.
        from: Field,
    },
    /// `charge` with a quantity that the origin's answer tells.
    Reported {
        /// The arithmetic.
        meter: Meter,
        /// The response header, lower case.
        header: String,
        /// `hold = "available"`: the least that must be held is the minimum, not the maximum.
        hold_available: bool,
    },
}

/// Something in a request that a price depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// `body.A.B`: a field of the JSON body, level by level.
    Body(Vec<String>),
    /// `query.NAME`.
    Query(String),
    /// `header.NAME`, lower case.
    Header(String),
}

/// One condition of `when`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct When {
    /// What is looked at.
    pub field: Field,
    /// What it must be: a JSON string, number or boolean for a body field, else text.
    pub equals: serde_json::Value,
}

/// `[self_service]`: the template of each page under `base_path`, or `None` where switched off.
#[derive(Debug, PartialEq, Eq)]
pub struct SelfService {
    /// `me`, by default `/me`.
    pub me: Option<String>,
    /// `usage`, by default `/usage`.
    pub usage: Option<String>,
    /// `usage_summary`, by default `/usage/summary`.
    pub usage_summary: Option<String>,
    /// `ledger`, by default `/ledger`.
    pub ledger: Option<String>,
    /// `get_credits`, by default `/get-credits`.
    pub get_credits: Option<String>,
    /// `quote`, by default `/quote`.
    pub quote: Option<String>,
}
