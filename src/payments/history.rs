//! What an account keeps of a payment, for good: how it stands, and the credits that it brought.

use serde::Serialize;

use super::{
    money::{Currency, Money},
    sighting::{Papers, Period, Progress, Purpose, Reversal, Sighting},
};
use crate::{
    credits::Credits,
    ledger::LotNumber,
    time::Timestamp,
    wire::{Decode, Encode},
};

/// One payment. Stored; places are only added.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Payment {
    /// 1, 2, 3 … as the account heard of them.
    #[n(0)]
    pub number: u64,
    /// When it first did.
    #[n(1)]
    pub at: Timestamp,
    /// What Stripe calls it: a repeat is known by it.
    #[n(2)]
    pub name: String,
    /// What it is for.
    #[n(3)]
    pub purpose: Purpose,
    /// How far it has come.
    #[n(4)]
    pub progress: Progress,
    /// All that is paid, tax included, in the currency's smallest unit.
    #[n(5)]
    pub total: u64,
    /// The currency.
    #[n(6)]
    pub currency: Currency,
    /// What Stripe calls what belongs to it.
    #[n(7)]
    pub papers: Papers,
    /// What has gone back.
    #[n(8)]
    pub reversal: Reversal,
    /// What it brought. Empty until it is paid, and where it brought nothing.
    #[n(9)]
    pub brought: Vec<Brought>,
    /// Why it brought nothing although it is paid.
    #[n(10)]
    pub in_vain: Option<InVain>,
    /// The change of plan that it is the difference of.
    #[n(11)]
    pub change: Option<PlanChange>,
}

/// A change of plan in the midst of a period, whose difference was paid.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PlanChange {
    /// The price that is subscribed to from now on, and the rest of its period.
    #[n(0)]
    pub to: Period,
    /// The plan that was paid for before, once the change has counted.
    #[n(1)]
    pub from: Option<String>,
}

/// How much is left of the money of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Share {
    #[n(0)]
    left: u64,
    #[n(1)]
    total: u64,
}

impl Share {
    /// The same share of `credits`: nothing of nothing, everything of all. Nothing that was free is lost.
    #[must_use]
    pub fn of(self, credits: Credits) -> Credits {
        let share = u128::from(credits.get()).saturating_mul(u128::from(self.left));
        let kept = share.checked_div(u128::from(self.total));
        let kept = kept.and_then(|kept| Credits::new(u64::try_from(kept).ok()?));
        kept.unwrap_or(credits)
    }
}

/// A lot that a payment brought.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Brought {
    /// Its pool.
    #[n(0)]
    pub pool: String,
    /// The lot.
    #[n(1)]
    pub lot: LotNumber,
    /// Its credits.
    #[n(2)]
    pub credits: Credits,
    /// How many of them went back with the money.
    #[n(3)]
    pub taken: Credits,
    /// How many of those had been spent already.
    #[n(4)]
    pub short: Credits,
}

impl Brought {
    /// A lot that has just come.
    #[must_use]
    pub const fn new(pool: String, lot: LotNumber, credits: Credits) -> Self {
        Self {
            pool,
            lot,
            credits,
            taken: Credits::ZERO,
            short: Credits::ZERO,
        }
    }
}

/// Why a payment that is paid brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum InVain {
    /// It is not what the package costs.
    #[n(0)]
    OtherAmount,
    /// The account is closed.
    #[n(1)]
    Closed,
    /// The pool would have more than can be counted.
    #[n(2)]
    NoRoom,
    /// What is subscribed to is no plan of the policy's.
    #[n(3)]
    UnknownPlan,
    /// The period was over when it was paid.
    #[n(4)]
    PastPeriod,
}

impl InVain {
    /// For the operator.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::OtherAmount => "what was paid is not what the package costs",
            Self::Closed => "the account is closed",
            Self::NoRoom => "the pool would have more credits than can be counted",
            Self::UnknownPlan => "no plan of the policy has this stripe_price",
            Self::PastPeriod => "the period was over when it was paid",
        }
    }
}

impl Payment {
    /// A payment that the account has just heard of.
    #[must_use]
    pub fn new(number: u64, at: Timestamp, sighting: &Sighting) -> Self {
        Self {
            number,
            at,
            name: sighting.name.clone(),
            purpose: sighting.purpose.clone(),
            progress: Progress::Processing,
            total: sighting.total,
            currency: sighting.currency,
            papers: Papers::default(),
            reversal: Reversal::default(),
            brought: Vec::new(),
            in_vain: None,
            change: sighting
                .change
                .clone()
                .map(|to| PlanChange { to, from: None }),
        }
    }

    /// How much of what was paid has gone back.
    #[must_use]
    pub fn gone(&self) -> u64 {
        let reversal = &self.reversal;
        let gone = reversal.refunded.saturating_add(reversal.disputed);
        gone.min(self.total)
    }

    /// How much of what was paid is left.
    #[must_use]
    pub fn share(&self) -> Share {
        Share {
            left: self.total.saturating_sub(self.gone()),
            total: self.total,
        }
    }

    /// What of `credits` goes back with the money that did, what is left of one included: nothing with none,
    /// everything with all.
    #[must_use]
    pub fn gone_of(&self, credits: Credits) -> Credits {
        credits.saturating_sub(self.share().of(credits))
    }

    /// How it stands, in a word.
    #[must_use]
    pub const fn status(&self) -> &'static str {
        let reversal = &self.reversal;
        match self.progress {
            Progress::Processing => "processing",
            Progress::Failed => "failed",
            Progress::Paid if reversal.is_open => "disputed",
            Progress::Paid if reversal.disputed > 0 => "dispute_lost",
            Progress::Paid if reversal.refunded == 0 => "paid",
            Progress::Paid if reversal.refunded >= self.total => "refunded",
            Progress::Paid => "partially_refunded",
        }
    }
}

/// A page of the history.
#[derive(Debug, Serialize)]
pub struct HistoryView<'a> {
    /// The payments, newest first.
    pub data: Vec<PaymentView<'a>>,
    /// Where the next page begins.
    pub next: Option<String>,
}

/// A payment, as it is shown.
#[derive(Debug, Serialize)]
pub struct PaymentView<'a> {
    id: &'a str,
    timestamp: Timestamp,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    package: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<PeriodView>,
    status: &'static str,
    amount: u64,
    currency: &'a str,
    paid: String,
    refunded: u64,
    credits: Vec<BroughtView<'a>>,
    stripe: &'a Papers,
    receipt_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct PeriodView {
    starts_at: Timestamp,
    ends_at: Timestamp,
}

#[derive(Debug, Serialize)]
struct BroughtView<'a> {
    pool: &'a str,
    lot: LotNumber,
    amount: Credits,
    taken_back: Credits,
    shortfall: Credits,
}

impl<'a> From<&'a Payment> for PaymentView<'a> {
    fn from(payment: &'a Payment) -> Self {
        let (kind, package, period) = match &payment.purpose {
            Purpose::Package(package) => ("package", Some(package.id.as_str()), None),
            Purpose::Period(period) => ("subscription", None, Some(period)),
            Purpose::Subscription => ("subscription", None, None),
            Purpose::TopUp(_) => ("top_up", None, None),
        };
        let paid = Money {
            amount: payment.total,
            currency: payment.currency,
        };
        Self {
            id: &payment.name,
            timestamp: payment.at,
            kind,
            package,
            period: period.map(|period| PeriodView {
                starts_at: period.starts_at,
                ends_at: period.ends_at,
            }),
            status: payment.status(),
            amount: payment.total,
            currency: payment.currency.as_str(),
            paid: paid.to_string(),
            refunded: payment.reversal.refunded,
            credits: payment
                .brought
                .iter()
                .map(|brought| BroughtView {
                    pool: &brought.pool,
                    lot: brought.lot,
                    amount: brought.credits,
                    taken_back: brought.taken,
                    shortfall: brought.short,
                })
                .collect(),
            stripe: &payment.papers,
            receipt_url: payment.papers.receipt_url.as_deref(),
            problem: payment.in_vain.map(InVain::reason),
        }
    }
}
