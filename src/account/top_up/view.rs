//! What is told of an account's top-ups.

use serde::Serialize;

use super::{Resumed, Standing, TopUp, Why};
use crate::{account::Account, credits::Credits, time::Timestamp};

/// `GET …/top-up`.
#[derive(Debug, Serialize)]
pub struct TopUpView<'a> {
    /// Whether the customer has turned it on.
    enabled: bool,
    /// Below this a top-up is due.
    threshold: Option<Credits>,
    /// It buys up to this.
    target: Option<Credits>,
    /// The most that it may pay in a calendar month; `null` is no cap.
    monthly_cap: Option<String>,
    /// How it stands, for programs.
    status: &'static str,
    /// Why it is running or is not, in one sentence.
    reason: String,
    /// The pool that it buys for.
    pool: &'a str,
    /// What that pool can spend.
    available: Credits,
    /// What `credits` cost.
    offer: OfferView,
    /// What was paid in this calendar month.
    spent_this_month: Option<String>,
    /// The earliest moment at which one can begin by itself, where one is due.
    next_at: Option<Timestamp>,
    /// Where the customer can pay what failed, and answer what the bank asks.
    url: Option<&'a str>,
    /// How the last attempt ended.
    last_attempt: Option<AttemptView<'a>>,
}

#[derive(Debug, Serialize)]
struct OfferView {
    credits: Credits,
    price: String,
}

#[derive(Debug, Serialize)]
struct AttemptView<'a> {
    at: Timestamp,
    succeeded: bool,
    credits: Credits,
    price: String,
    invoice: Option<&'a str>,
    reason: Option<String>,
}

impl Account {
    /// What customers and operators read of its top-ups; `None` where the policy sells none.
    #[must_use]
    pub fn top_up_view(&self, clock: Timestamp) -> Option<TopUpView<'_>> {
        let offer = self.policy.top_up.as_ref()?;
        let top_up = self.state.top_up.as_deref();
        let settings = top_up.and_then(|top_up| top_up.settings.as_ref());
        let standing = self.top_up_standing(clock);
        let month = self.policy.gateway.calendar.month_of(clock);
        let spent = top_up.and_then(|top_up| top_up.spent.as_ref());
        let last = top_up.and_then(|top_up| top_up.last.as_ref());
        Some(TopUpView {
            enabled: top_up.and_then(TopUp::is_on).is_some(),
            threshold: settings.map(|settings| settings.threshold),
            target: settings.map(|settings| settings.target),
            monthly_cap: settings
                .and_then(|settings| settings.monthly_cap)
                .map(|cap| cap.to_string()),
            status: standing.name(),
            reason: self.top_up_sentence(&standing),
            pool: &offer.pool,
            available: self.available(&offer.pool),
            offer: OfferView {
                credits: offer.credits_per,
                price: offer.price.to_string(),
            },
            spent_this_month: spent
                .filter(|spent| spent.month == month)
                .map(|spent| spent.price.to_string()),
            next_at: match standing {
                Standing::Cooling { until } => Some(until),
                Standing::Capped { until } => until,
                _ => None,
            },
            url: match standing {
                Standing::Paused(pause) => pause.link.as_deref(),
                _ => None,
            },
            last_attempt: last.map(|last| AttemptView {
                at: last.at,
                succeeded: last.failed.is_none(),
                credits: last.bought.credits,
                price: last.bought.price.to_string(),
                invoice: last.invoice.as_deref(),
                reason: last.failed.as_ref().map(Why::sentence),
            }),
        })
    }

    /// Why top-up runs or does not, in one sentence.
    pub(super) fn top_up_sentence(&self, standing: &Standing<'_>) -> String {
        let offer = self.policy.top_up.as_ref();
        let pool = offer.map_or("", |offer| offer.pool.as_str());
        let available = self.available(pool);
        let price = self
            .next_top_up()
            .map(|(_, price)| self.with_tax(price).to_string());
        let price = price.unwrap_or_default();
        match standing {
            Standing::NotSold => "this deployment sells no automatic top-up".to_owned(),
            Standing::Closed => "the account is closed".to_owned(),
            Standing::Off => "automatic top-up is off".to_owned(),
            Standing::Suspended => "the account is suspended".to_owned(),
            Standing::Observing => "nothing is charged while the gateway only observes".to_owned(),
            Standing::Disputed => {
                "a payment is disputed, and nothing is bought until that is decided".to_owned()
            }
            Standing::Attempting(attempt) if attempt.is_paying() => format!(
                "a payment of {} for {} credits is under way",
                attempt.price(),
                attempt.bought.credits
            ),
            Standing::Attempting(attempt) => format!(
                "a top-up of {} credits for {} is being prepared",
                attempt.bought.credits, attempt.bought.price
            ),
            Standing::Paused(pause) => format!(
                "paused: {}; it goes on when the payment method is changed or a retry succeeds",
                pause.why.sentence()
            ),
            Standing::NoCustomer => {
                "there is no payment method yet: buy a package first, or add a card".to_owned()
            }
            Standing::NotSpendable => {
                "what it would buy cannot be spent without an active subscription".to_owned()
            }
            Standing::Enough => format!(
                "the pool {pool} can spend {available} credits, which is not below the threshold"
            ),
            Standing::NotCharged => format!(
                "the pool {pool} can spend {available} credits, which is below the threshold, and \
                 the next charge starts a top-up"
            ),
            Standing::Capped { until } => {
                let until = until.map_or_else(String::new, |until| {
                    format!(" until {}", until.to_rfc3339())
                });
                format!("a top-up for {price} would be above the monthly cap{until}")
            }
            Standing::Cooling { until } => format!(
                "a top-up was made or tried not long ago, and the next can begin at {}",
                until.to_rfc3339()
            ),
            Standing::Due => format!("a top-up for {price} begins at once"),
        }
    }
}

impl Standing<'_> {
    /// Its name in the API.
    const fn name(&self) -> &'static str {
        match self {
            Self::Off | Self::Closed | Self::NotSold => "off",
            Self::Suspended
            | Self::Observing
            | Self::NoCustomer
            | Self::NotSpendable
            | Self::Disputed => "blocked",
            Self::Attempting(_) => "attempting",
            Self::Paused(_) => "paused",
            Self::Enough | Self::NotCharged => "ready",
            Self::Capped { .. } => "capped",
            Self::Cooling { .. } => "cooling_down",
            Self::Due => "due",
        }
    }
}

impl Why {
    /// For people.
    pub(super) fn sentence(&self) -> String {
        match self {
            Self::Declined(code) => format!("the payment was declined ({code})"),
            Self::AuthenticationRequired => {
                "the bank wants the customer to confirm the payment".to_owned()
            }
            Self::NoPaymentMethod => "there is no payment method".to_owned(),
            Self::Refused => "Stripe did not take the payment".to_owned(),
            Self::NotBilled => "Stripe made out no invoice".to_owned(),
            Self::Disputed => "a payment was disputed".to_owned(),
            Self::NoCustomer => "Stripe has no such customer any more; buy credits once".to_owned(),
            Self::CalledOff => "it was called off before anything was paid".to_owned(),
            Self::NotNeeded => "enough credits came in before anything was paid".to_owned(),
            Self::AboveCap(total) => {
                format!("{total} with tax is more than the monthly cap has room for")
            }
            Self::Unclear => "Stripe could not be reached, and nothing was paid".to_owned(),
        }
    }
}

impl Resumed {
    /// For people.
    pub(super) const fn sentence(self) -> &'static str {
        match self {
            Self::MethodUpdated => "the payment method was changed",
            Self::Paid => "a payment succeeded",
            Self::DisputeWon => "the dispute was won",
        }
    }
}
