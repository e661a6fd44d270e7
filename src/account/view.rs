//! What customers and operators read of an account, in the shapes of the contract.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

use super::{Account, key_view::OwnKeyView};
use crate::{
    call::CallRow,
    credits::Credits,
    id::{AccountId, CallId, CallNumber, KeyId, KeyNumber},
    ledger::{Lot, LotNumber},
    policy::{DEFAULT_POOL, Renews, Source},
    price::Mark,
    time::Timestamp,
};

/// `GET …/balance`.
#[derive(Debug, Serialize)]
pub struct BalanceView<'a> {
    #[serde(serialize_with = "as_map")]
    pools: Vec<(&'a str, PoolBalance)>,
}

#[derive(Debug, Serialize)]
struct PoolBalance {
    available: Credits,
    held: Credits,
    spent: u64,
    by_source: BySource,
    lots: Vec<LotView>,
    renews_at: Option<Timestamp>,
}

#[derive(Debug, Default, Serialize)]
struct BySource {
    subscription: Credits,
    extra: Credits,
    promo: Credits,
}

/// A lot as the admin API tells it.
#[derive(Debug, Serialize)]
pub struct LotView {
    id: LotNumber,
    source: Source,
    amount: Credits,
    spent: Credits,
    held: Credits,
    expired: Credits,
    available: Credits,
    granted_at: Timestamp,
    expires_at: Option<Timestamp>,
}

/// `GET /me`.
#[derive(Debug, Serialize)]
pub struct MeView<'a> {
    tier: &'a str,
    credits_remaining: Credits,
    monthly_allowance: Credits,
    rate_limit: RateLimitView,
    #[serde(serialize_with = "as_map")]
    pools: Vec<(&'a str, PoolView)>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'a, str>>,
    /// Until when calls with this key are refused, where that is for unusual consumption.
    #[serde(skip_serializing_if = "Option::is_none")]
    restricted_until: Option<Timestamp>,
    key: Option<OwnKeyView<'a>>,
}

#[derive(Debug, Serialize)]
struct RateLimitView {
    requests_per_minute: Option<u32>,
    requests_per_day: Option<u32>,
}

#[derive(Debug, Serialize)]
struct PoolView {
    available: Credits,
    held: Credits,
    by_source: BySource,
    renews_at: Option<Timestamp>,
    expires: Vec<ExpiryView>,
}

#[derive(Debug, Serialize)]
struct ExpiryView {
    at: Timestamp,
    credits: Credits,
}

/// `GET /get-credits`.
#[derive(Debug, Serialize)]
pub struct CreditsView<'a> {
    credits: Credits,
    extra_credits: Credits,
    #[serde(serialize_with = "as_map")]
    pools: Vec<(&'a str, Credits)>,
}

/// A call as `/usage` lists it.
#[derive(Debug, Serialize)]
pub struct UsageLine {
    /// When it was admitted.
    pub timestamp: Timestamp,
    /// Its route's template.
    pub endpoint: String,
    /// What the client saw; `null` while the call is open and where it was never learned.
    pub status_code: Option<u16>,
    /// What it was charged.
    pub credits_consumed: Credits,
    /// From admission to answer.
    pub response_time_ms: Option<u32>,
    /// The call's id.
    pub request_id: CallId,
    /// Its method.
    pub method: String,
    /// The key that made it.
    pub key: KeyId,
}

/// `GET /calls/{call}`.
#[derive(Debug, Serialize)]
pub struct CallView {
    id: CallId,
    account: AccountId,
    key: KeyId,
    method: String,
    endpoint: String,
    state: &'static str,
    admitted_at: Timestamp,
    /// When it was answered or ended; `null` while it is open.
    ended_at: Option<Timestamp>,
    /// When an end is made for it if nobody makes one; `null` once it has ended.
    deadline: Option<Timestamp>,
    pool: String,
    /// What it holds; 0 once it has ended.
    held: Credits,
    charged: Credits,
    status_code: Option<u16>,
    response_time_ms: Option<u32>,
    /// What the operator should look at.
    mark: Option<&'static str>,
    /// The call that has paid for it, where it is a repeat; else left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    repeats: Option<CallId>,
}

/// `GET /usage`.
#[derive(Debug, Serialize)]
pub struct UsageView {
    /// The page, newest first.
    pub usage: Vec<UsageLine>,
    /// How many calls there are in all; a lower bound where `total_exact` is false.
    pub total_count: u64,
    /// `false` where a filter met the bound of what one request reads; else left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_exact: Option<bool>,
    /// How many newer calls were left out.
    pub offset: u32,
    /// The most that the page may have.
    pub limit: u32,
    /// What to ask for with `next=` to see what comes after; `null` at the end.
    pub next: Option<String>,
}

impl Account {
    /// A lot as it stands.
    #[must_use]
    pub fn lot_view(&self, pool: &str, number: LotNumber) -> Option<LotView> {
        self.lots(pool)
            .find(|lot| lot.number == number)
            .map(LotView::of)
    }

    /// The id of `call`.
    #[must_use]
    pub fn call_id(&self, number: CallNumber) -> CallId {
        CallId {
            account: self.profile.id.clone(),
            number,
        }
    }

    /// Every pool with its lots.
    #[must_use]
    pub fn balance_view(&self) -> BalanceView<'_> {
        BalanceView {
            pools: self.pools(|pool| {
                let book = self.state.ledger.book(pool);
                PoolBalance {
                    available: self.available(pool),
                    held: book.map_or(Credits::ZERO, crate::ledger::Book::held),
                    spent: book.map_or(0, crate::ledger::Book::spent),
                    by_source: self.by_source(pool),
                    lots: self.lots(pool).map(LotView::of).collect(),
                    renews_at: self.renews_at(pool),
                }
            }),
        }
    }

    /// What customers read about themselves, with the key `key`.
    #[must_use]
    pub fn me_view(&self, key: KeyNumber, clock: Timestamp) -> MeView<'_> {
        let limits = self.limits_of(key);
        let restriction = self.restriction(key, clock);
        MeView {
            tier: &self.profile.plan.name,
            credits_remaining: self.available(DEFAULT_POOL),
            monthly_allowance: self.allowance(DEFAULT_POOL),
            rate_limit: RateLimitView {
                requests_per_minute: limits.requests_per_minute,
                requests_per_day: limits.requests_per_day,
            },
            pools: self.pools(|pool| PoolView {
                available: self.available(pool),
                held: self
                    .state
                    .ledger
                    .book(pool)
                    .map_or(Credits::ZERO, crate::ledger::Book::held),
                by_source: self.by_source(pool),
                renews_at: self.renews_at(pool),
                expires: self.expiries(pool),
            }),
            status: self.profile.status.name(),
            reason: (self.profile.status.reason().map(Cow::from))
                .or_else(|| Some(restriction?.0.cause.to_string().into())),
            restricted_until: restriction.map(|(_, until)| until),
            key: self.own_key_view(key, clock),
        }
    }

    /// What customers can spend.
    #[must_use]
    pub fn credits_view(&self) -> CreditsView<'_> {
        CreditsView {
            credits: self.available(DEFAULT_POOL),
            extra_credits: self.by_source(DEFAULT_POOL).extra,
            pools: self.pools(|pool| self.available(pool)),
        }
    }

    /// A call as the admin API tells it.
    #[must_use]
    pub fn call_view(&self, row: CallRow) -> CallView {
        let state = row.state();
        let open = self.open.get(&row.call.number);
        let outcome = row.outcome.as_ref();
        let held = row.call.held();
        CallView {
            id: self.call_id(row.call.number),
            account: self.profile.id.clone(),
            key: self.key_id(row.call.key),
            method: row.call.method,
            endpoint: row.call.endpoint,
            state: state.as_str(),
            admitted_at: row.call.admitted_at,
            ended_at: outcome.map(|outcome| outcome.at),
            deadline: open
                .filter(|_| state.is_open())
                .map(|call| call.hold.deadline),
            pool: row.call.hold.terms.pool,
            held: if state.is_open() { held } else { Credits::ZERO },
            charged: outcome.map_or(Credits::ZERO, |outcome| outcome.charged),
            status_code: outcome.and_then(|outcome| outcome.status),
            response_time_ms: outcome
                .and_then(|outcome| outcome.status.map(|_| outcome.response_time_ms)),
            mark: outcome.and_then(|outcome| outcome.mark).map(Mark::as_str),
            repeats: row.call.hold.repeats.map(|call| self.call_id(call)),
        }
    }

    /// The pools of the policy, and those gone from it of which the account still has lots.
    fn pools<T>(&self, view: impl Fn(&str) -> T) -> Vec<(&str, T)> {
        let sold = self.policy.pools.keys();
        let kept = self.state.ledger.books.keys();
        let mut pools: Vec<(&str, T)> = Vec::new();
        for name in sold.chain(kept) {
            if let Err(at) = pools.binary_search_by_key(&name.as_str(), |(name, _)| name) {
                pools.insert(at, (name, view(name)));
            }
        }
        pools
    }

    fn lots(&self, pool: &str) -> impl Iterator<Item = &Lot> {
        self.state
            .ledger
            .book(pool)
            .into_iter()
            .flat_map(|book| &book.lots)
    }

    fn by_source(&self, pool: &str) -> BySource {
        let spending = self.spending(pool, self.state.latest);
        let mut sum = BySource::default();
        for lot in self.lots(pool).filter(|lot| spending.allows(lot)) {
            let of_source = match lot.source {
                Source::Subscription => &mut sum.subscription,
                Source::Extra => &mut sum.extra,
                Source::Promo => &mut sum.promo,
            };
            *of_source = of_source.saturating_add(lot.available());
        }
        sum
    }

    fn expiries(&self, pool: &str) -> Vec<ExpiryView> {
        let mut sums: Vec<ExpiryView> = Vec::new();
        for lot in self.lots(pool).filter(|lot| !lot.available().is_zero()) {
            let Some(at) = lot.expires_at else { continue };
            let credits = lot.available();
            match sums.binary_search_by_key(&at, |sum| sum.at) {
                Ok(same) => {
                    if let Some(sum) = sums.get_mut(same) {
                        sum.credits = sum.credits.saturating_add(credits);
                    }
                }
                Err(place) => sums.insert(place, ExpiryView { at, credits }),
            }
        }
        sums
    }

    /// What the plan gives of `pool`: each cycle, or else once.
    fn allowance(&self, pool: &str) -> Credits {
        let grants = || {
            self.profile
                .plan
                .grants
                .iter()
                .filter(|grant| grant.pool == pool)
        };
        grants()
            .find(|grant| grant.renews != Renews::Never)
            .or_else(|| grants().next())
            .map_or(Credits::ZERO, |grant| grant.amount)
    }
}

impl LotView {
    fn of(lot: &Lot) -> Self {
        Self {
            id: lot.number,
            source: lot.source,
            amount: lot.amount,
            spent: lot.spent,
            held: lot.held,
            expired: lot.expired,
            available: lot.available(),
            granted_at: lot.granted_at,
            expires_at: lot.expires_at,
        }
    }
}

/// A JSON object with these members, in this order.
fn as_map<T: Serialize, S: Serializer>(
    members: &[(&str, T)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(members.iter().map(|(name, value)| (name, value)))
}
