//! How a payment or a subscription stands at Stripe, as the Worker has learned of it.
//!
//! A sighting of a payment only ever adds to what is known: what is paid stays paid. What can go to and fro,
//! money that went back, and a subscription, is told as of a moment, and the latest counts. So they may come
//! in any order, and as often as they like.

use super::{money::Currency, top_up::TopUpBought};
use crate::{
    policy::Package,
    time::Timestamp,
    wire::{Decode, Encode},
};

/// How a payment stands.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Sighting {
    /// What it is called for good: the payment intent of what was paid on a Checkout page, the invoice of
    /// everything else.
    #[n(0)]
    pub name: String,
    /// What it is for.
    #[n(1)]
    pub purpose: Purpose,
    /// How far it has come.
    #[n(2)]
    pub progress: Progress,
    /// All that is paid, tax included, in the currency's smallest unit.
    #[n(3)]
    pub total: u64,
    /// What is paid without discounts and what tax comes on top, where that is told.
    #[n(4)]
    pub subtotal: Option<u64>,
    /// The currency.
    #[n(5)]
    pub currency: Currency,
    /// What Stripe calls what belongs to it.
    #[n(6)]
    pub papers: Papers,
    /// What has gone back of it, where that was looked up.
    #[n(7)]
    pub reversal: Option<Reversal>,
    /// The change of plan that it is the difference of: what is subscribed to instead, and from when until when.
    #[n(8)]
    pub change: Option<Period>,
}

/// What a payment is for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Purpose {
    /// A package, as it was offered.
    #[n(0)]
    Package(#[n(0)] Package),
    /// A period of a subscription.
    #[n(1)]
    Period(#[n(0)] Period),
    /// Something of a subscription that is no period: the difference that a change of plan makes.
    #[n(2)]
    Subscription,
    /// An automatic top-up.
    #[n(3)]
    TopUp(#[n(0)] TopUpBought),
}

impl Purpose {
    /// Whether the credits that it brings are bought as such, and not for a time.
    #[must_use]
    pub const fn is_for_good(&self) -> bool {
        match self {
            Self::Package(_) | Self::TopUp(_) => true,
            Self::Period(_) | Self::Subscription => false,
        }
    }
}

/// A period of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Period {
    /// The subscription's id.
    #[n(0)]
    pub subscription: String,
    /// What is subscribed to: a price's id.
    #[n(1)]
    pub price: String,
    /// From this moment …
    #[n(2)]
    pub starts_at: Timestamp,
    /// … until before this one.
    #[n(3)]
    pub ends_at: Timestamp,
}

/// How far a payment has come: what comes later here replaces what comes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Progress {
    /// The money is on its way.
    #[n(0)]
    Processing,
    /// It will not come.
    #[n(1)]
    Failed,
    /// It has come.
    #[n(2)]
    Paid,
}

/// What Stripe calls what belongs to a payment, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[cbor(array)]
pub struct Papers {
    /// The Checkout session.
    #[n(0)]
    pub checkout_session: Option<String>,
    /// The payment intent.
    #[n(1)]
    pub payment_intent: Option<String>,
    /// The invoice.
    #[n(2)]
    pub invoice: Option<String>,
    /// The page where the invoice is shown and can be downloaded.
    #[n(3)]
    #[serde(skip)]
    pub receipt_url: Option<String>,
}

impl Papers {
    /// Takes what `other` knows and this does not.
    pub fn add(&mut self, other: Self) {
        for (own, others) in [
            (&mut self.checkout_session, other.checkout_session),
            (&mut self.payment_intent, other.payment_intent),
            (&mut self.invoice, other.invoice),
            (&mut self.receipt_url, other.receipt_url),
        ] {
            if own.is_none() {
                *own = others;
            }
        }
    }
}

/// What a customer pays with, as it was looked up.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct MethodSeen {
    /// The payment method that a top-up would be paid with now.
    #[n(0)]
    pub now: Option<String>,
    /// The one whose details have changed, where that was told.
    #[n(1)]
    pub updated: Option<String>,
}

/// What has gone back of a payment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Reversal {
    /// When Stripe was asked.
    #[n(0)]
    pub as_of: Timestamp,
    /// What was refunded, and has not failed to arrive.
    #[n(1)]
    pub refunded: u64,
    /// What banks have taken back: disputes that are open or lost.
    #[n(2)]
    pub disputed: u64,
    /// Whether a dispute, or an inquiry before one, is open.
    #[n(3)]
    pub is_open: bool,
}

/// How a subscription stands.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct SubscriptionSighting {
    /// Its id.
    #[n(0)]
    pub id: String,
    /// When Stripe was asked.
    #[n(1)]
    pub as_of: Timestamp,
    /// When it was made: of two, the later one is meant.
    #[n(2)]
    pub created_at: Timestamp,
    /// Whether it is paid.
    #[n(3)]
    pub stage: Stage,
    /// What is subscribed to: a price's id.
    #[n(4)]
    pub price: String,
    /// From when on its periods are counted.
    #[n(5)]
    pub anchor: Timestamp,
}

/// Whether a subscription is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Stage {
    /// Its first payment has not come.
    #[n(0)]
    Begun,
    /// It is.
    #[n(1)]
    Paid,
    /// It is, and is not continued after this moment.
    #[n(2)]
    Ending(#[n(0)] Timestamp),
    /// A payment is due.
    #[n(3)]
    Unpaid,
    /// It is over.
    #[n(4)]
    Ended,
}
