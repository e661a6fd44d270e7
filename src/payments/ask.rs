//! What is asked about payments, by a customer or by the operator for an account.

use crate::{
    account::TopUpSettings,
    admin::{nothing, only_line},
    cursor::{Cursors, Listing},
    headers::Standing,
    policy::Package,
    problem::Problem,
    self_service::Parameters,
    time::Timestamp,
    wire::{Decode, Encode},
};

/// How many payments a page of the history has, unless it is told.
const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 500;

/// What the Worker asks an account's object.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Ask {
    /// What for.
    #[n(0)]
    pub what: What,
    /// The account's customer at Stripe that the Worker has made a moment ago, because the object knew of
    /// none. The object keeps the first that it hears of.
    #[n(1)]
    pub made: Option<String>,
    /// The customer that Stripe has no more, as the Worker has found a moment ago: the object forgets it.
    #[n(2)]
    pub gone: Option<String>,
}

/// What a customer or the operator wants.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum What {
    /// To buy this package.
    #[n(0)]
    Buy(#[n(0)] String),
    /// To subscribe to this plan.
    #[n(1)]
    Subscribe(#[n(0)] String),
    /// To see to cards, invoices and the subscription.
    #[n(2)]
    Portal,
    /// To see what was paid.
    #[n(3)]
    History(#[n(0)] HistoryQuery),
    /// To see to automatic top-up.
    #[n(4)]
    TopUp(#[n(0)] TopUpWish),
}

impl What {
    /// The list whose page is answered, if it is one.
    #[must_use]
    pub const fn listing(&self) -> Option<Listing> {
        match self {
            Self::History(_) => Some(Listing::BillingHistory),
            Self::Buy(_) | Self::Subscribe(_) | Self::Portal | Self::TopUp(_) => None,
        }
    }
}

/// What a customer wants of automatic top-up.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum TopUpWish {
    /// To see how it stands.
    #[n(0)]
    Show,
    /// To turn it on or off.
    #[n(1)]
    Set(#[n(0)] TopUpSettings),
    /// To have it tried now.
    #[n(2)]
    Retry,
}

/// Which payments are listed: newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct HistoryQuery {
    /// How many, 1 to 500.
    #[n(0)]
    pub limit: u32,
    /// Only those with a lower number: where an earlier page ended.
    #[n(1)]
    pub before: Option<u64>,
}

/// What the object has to say to that.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Order {
    /// What Stripe is to make a page for.
    #[n(0)]
    pub page: Ordered,
    /// The account's customer at Stripe, if there is one.
    #[n(1)]
    pub customer: Option<String>,
    /// The account's name, for a customer that is to be made.
    #[n(2)]
    pub name: Option<String>,
    /// Its e-mail address, for the same.
    #[n(3)]
    pub email: Option<String>,
    /// Limits and credits of the key that asked.
    #[n(4)]
    pub standing: Option<Standing>,
    /// When the account was opened, which is noted on what is made at Stripe for it.
    #[n(5)]
    pub opened: Option<Timestamp>,
}

/// What a page at Stripe is for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Ordered {
    /// Paying a package.
    #[n(0)]
    Package(#[n(0)] Package),
    /// Subscribing to a plan.
    #[n(1)]
    Plan {
        /// Its name.
        #[n(0)]
        name: String,
        /// Its price at Stripe.
        #[n(1)]
        price: String,
    },
    /// The Customer Portal.
    #[n(2)]
    Portal,
}

/// Reads `{"package": "…"}`.
///
/// # Errors
///
/// 400 with the field that is wrong.
pub fn buy(body: &[u8]) -> Result<What, Problem> {
    only_line(body, "package").map(What::Buy)
}

/// Reads `{"plan": "…"}`.
///
/// # Errors
///
/// 400 with the field that is wrong.
pub fn subscribe(body: &[u8]) -> Result<What, Problem> {
    only_line(body, "plan").map(What::Subscribe)
}

/// Reads what a portal is asked for with: nothing, or an empty object.
///
/// # Errors
///
/// 400 with the field that is unknown.
pub fn portal(body: &[u8]) -> Result<What, Problem> {
    nothing(body).map(|()| What::Portal)
}

/// Reads the parameters of the history.
///
/// # Errors
///
/// 400 with the name of the parameter that is unknown, repeated or out of range.
pub fn history(query: Option<&str>, cursors: Cursors<'_>) -> Result<What, Problem> {
    let parameters = Parameters::read(query, &["limit", "next"])?;
    let limit = parameters.whole("limit", 1, LIMIT_MAX)?;
    let before = parameters.next(cursors, Listing::BillingHistory, |text| text.parse().ok())?;
    Ok(What::History(HistoryQuery {
        limit: limit.unwrap_or(LIMIT_DEFAULT),
        before,
    }))
}
