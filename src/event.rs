//! What an account tells of by itself: the operator by webhook, the customer by e-mail.
//!
//! The account's state machine emits an [`Event`] with the change that brings it about
//! (`account/notices.rs`). What is stored of it is an [`EventRecord`], and what is sent of it never
//! changes: a repeat has the same id and the same content.

use serde::{Serialize, Serializer};

pub mod letter;

use self::letter::Letter;
use crate::{
    credits::Credits,
    id::{AccountId, EventNumber, ExternalId, KeyId},
    time::Timestamp,
    wire::{Decode, Encode},
};

/// So many of an account's events are kept: the next one takes the row of the oldest that is not still
/// to be sent.
pub const EVENTS_KEPT: u64 = 1_000;

/// The most thresholds that a pool's balance has.
pub const THRESHOLDS_MAX: usize = 5;
/// The most pools for which an account has thresholds of its own.
pub const THRESHOLD_POOLS_MAX: usize = 20;

/// By pool, the balances below which `balance.low` is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct BalanceLow(#[n(0)] Vec<Thresholds>);

/// Those of one pool.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Thresholds {
    /// The pool.
    #[n(0)]
    pub pool: String,
    /// The balances.
    #[n(1)]
    pub below: Vec<Credits>,
}

impl BalanceLow {
    /// These thresholds, each pool's once.
    #[must_use]
    pub const fn new(thresholds: Vec<Thresholds>) -> Self {
        Self(thresholds)
    }

    /// Those of `pool`, if any are told of it.
    #[must_use]
    pub fn of(&self, pool: &str) -> Option<&[Credits]> {
        let mut all = self.0.iter();
        let of_pool = all.find(|thresholds| thresholds.pool == pool)?;
        Some(&of_pool.below)
    }

    /// The pools that there are thresholds of.
    pub fn pools(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|thresholds| thresholds.pool.as_str())
    }
}

impl Serialize for BalanceLow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let members = self.0.iter();
        serializer.collect_map(members.map(|thresholds| (&thresholds.pool, &thresholds.below)))
    }
}

/// Something that happened to an account, with what is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Event {
    /// What a pool has left, holds included, fell below a threshold.
    BalanceLow {
        /// The pool.
        pool: String,
        /// The lowest threshold that it fell below.
        threshold: Credits,
        /// What it has left.
        balance: Credits,
    },
    /// A pool has nothing left.
    BalanceExhausted {
        /// The pool.
        pool: String,
    },
    /// A recurring grant was issued anew.
    CreditsRenewed {
        /// The pool.
        pool: String,
        /// What was granted.
        credits: Credits,
        /// When it is granted the next time.
        renews_at: Option<Timestamp>,
    },
    /// An automatic top-up was paid, and its credits are there.
    TopUpSucceeded {
        /// The pool.
        pool: String,
        /// What was granted.
        credits: Credits,
        /// What was paid: `"12.00 USD"`.
        price: String,
        /// The payment's id.
        payment: String,
    },
    /// An automatic top-up was not paid.
    TopUpFailed {
        /// Why, in one sentence.
        reason: String,
    },
    /// No automatic top-up is tried until the customer has done something.
    TopUpPaused {
        /// Why, in one sentence.
        reason: String,
        /// Where the customer can complete the authentication or change the card.
        url: Option<String>,
    },
    /// Automatic top-up runs again.
    TopUpResumed {
        /// Why, in one sentence.
        reason: String,
    },
    /// A payment went back, and what was left of its credits with it.
    PaymentRefunded {
        /// The pool.
        pool: String,
        /// What was taken back.
        credits: Credits,
        /// What could not be taken back, because it was spent.
        shortfall: Credits,
        /// What went back: `"12.00 USD"`.
        price: String,
        /// The payment's id.
        payment: String,
    },
    /// The account may not call any more.
    AccountSuspended {
        /// What the customer is told.
        reason: Option<String>,
    },
    /// Somebody should look at the account.
    AccountFlagged {
        /// Why, in one sentence.
        reason: String,
        /// The key that it is about, where it is about one.
        key: Option<KeyId>,
        /// Until when it restricts, where it does.
        restricted_until: Option<Timestamp>,
    },
}

/// What kind of event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum EventType {
    /// [`Event::BalanceLow`].
    #[n(0)]
    BalanceLow,
    /// [`Event::BalanceExhausted`].
    #[n(1)]
    BalanceExhausted,
    /// [`Event::CreditsRenewed`].
    #[n(2)]
    CreditsRenewed,
    /// [`Event::TopUpSucceeded`].
    #[n(3)]
    TopUpSucceeded,
    /// [`Event::TopUpFailed`].
    #[n(4)]
    TopUpFailed,
    /// [`Event::TopUpPaused`].
    #[n(5)]
    TopUpPaused,
    /// [`Event::TopUpResumed`].
    #[n(6)]
    TopUpResumed,
    /// [`Event::PaymentRefunded`].
    #[n(7)]
    PaymentRefunded,
    /// [`Event::AccountSuspended`].
    #[n(8)]
    AccountSuspended,
    /// [`Event::AccountFlagged`].
    #[n(9)]
    AccountFlagged,
}

impl EventType {
    /// Every type with the name that is told and stored of it.
    pub const NAMES: [(&str, Self); 10] = [
        ("balance.low", Self::BalanceLow),
        ("balance.exhausted", Self::BalanceExhausted),
        ("credits.renewed", Self::CreditsRenewed),
        ("top_up.succeeded", Self::TopUpSucceeded),
        ("top_up.failed", Self::TopUpFailed),
        ("top_up.paused", Self::TopUpPaused),
        ("top_up.resumed", Self::TopUpResumed),
        ("payment.refunded", Self::PaymentRefunded),
        ("account.suspended", Self::AccountSuspended),
        ("account.flagged", Self::AccountFlagged),
    ];

    /// Whether calls and time alone bring it about, again and again.
    #[must_use]
    pub const fn is_of_calls(self) -> bool {
        match self {
            Self::BalanceLow | Self::BalanceExhausted | Self::CreditsRenewed => true,
            Self::TopUpSucceeded
            | Self::TopUpFailed
            | Self::TopUpPaused
            | Self::TopUpResumed
            | Self::PaymentRefunded
            | Self::AccountSuspended
            | Self::AccountFlagged => false,
        }
    }

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, other)| *other == self)
            .map_or("", |(name, _)| name)
    }
}

impl Event {
    /// What kind it is.
    #[must_use]
    pub const fn kind(&self) -> EventType {
        match self {
            Self::BalanceLow { .. } => EventType::BalanceLow,
            Self::BalanceExhausted { .. } => EventType::BalanceExhausted,
            Self::CreditsRenewed { .. } => EventType::CreditsRenewed,
            Self::TopUpSucceeded { .. } => EventType::TopUpSucceeded,
            Self::TopUpFailed { .. } => EventType::TopUpFailed,
            Self::TopUpPaused { .. } => EventType::TopUpPaused,
            Self::TopUpResumed { .. } => EventType::TopUpResumed,
            Self::PaymentRefunded { .. } => EventType::PaymentRefunded,
            Self::AccountSuspended { .. } => EventType::AccountSuspended,
            Self::AccountFlagged { .. } => EventType::AccountFlagged,
        }
    }

    /// What is told of it, as JSON: whose it is, then what happened.
    #[must_use]
    pub fn data(&self, account: &AccountId, external_id: Option<&ExternalId>) -> String {
        // Plain structs with string keys: serialising them cannot fail.
        let whose = Whose {
            account,
            external_id,
        };
        let mut data = serde_json::to_string(&whose).unwrap_or_default();
        let what = serde_json::to_string(self).unwrap_or_default();
        // Both are objects, and neither is empty.
        data.pop();
        data.push(',');
        data.extend(what.chars().skip(1));
        data
    }
}

#[derive(Serialize)]
struct Whose<'a> {
    account: &'a AccountId,
    external_id: Option<&'a ExternalId>,
}

/// An event as it is stored; places are only added.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct EventRecord {
    /// Its number inside its account: 1, 2, 3 …
    #[n(0)]
    pub number: EventNumber,
    /// When it happened.
    #[n(1)]
    pub at: Timestamp,
    /// What kind it is.
    #[n(2)]
    pub kind: EventType,
    /// What is told of it, as JSON.
    #[n(3)]
    pub data: String,
    /// What became of the webhook.
    #[n(4)]
    pub webhook: Fate,
    /// The e-mail, where the customer gets one.
    #[n(5)]
    pub email: Option<Letter>,
}

impl EventRecord {
    /// The row that it is stored in.
    #[must_use]
    pub const fn row(&self) -> u64 {
        row_of(self.number)
    }
}

/// The row of the event `number`.
#[must_use]
pub const fn row_of(number: EventNumber) -> u64 {
    number.get() % EVENTS_KEPT
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Fate {
    /// It is still to be sent: how far that is, the account knows.
    #[n(0)]
    Waiting,
    /// It was taken.
    #[n(1)]
    Delivered {
        /// When.
        #[n(0)]
        at: Timestamp,
        /// How often it was sent.
        #[n(1)]
        attempts: u32,
    },
    /// Nobody took it in time.
    #[n(2)]
    Parked {
        /// When it was given up.
        #[n(0)]
        at: Timestamp,
        /// How often it was sent.
        #[n(1)]
        attempts: u32,
        /// What went wrong the last time.
        #[n(2)]
        error: String,
    },
}
