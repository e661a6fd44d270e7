//! Whether a top-up runs, and why it does not.

use super::{Attempt, COOLING, LOOK_AGAIN, Pause, RETRY_GAP, TopUp, TopUpSettings};
use crate::{
    account::{Account, Status},
    credits::Credits,
    payments::money::Money,
    policy::{Mode, TopUpOffer},
    time::Timestamp,
};

/// How top-up stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::account) enum Standing<'a> {
    /// The policy sells no credits that way.
    NotSold,
    /// The account is closed, which is for good.
    Closed,
    /// The customer has not turned it on.
    Off,
    /// The operator stopped the account.
    Suspended,
    /// A payment is disputed: nothing is bought until that is decided.
    Disputed,
    /// An attempt is under way.
    Attempting(&'a Attempt),
    /// The customer has to do something first.
    Paused(&'a Pause),
    /// Nothing was ever bought, so there is nothing to pay with.
    NoCustomer,
    /// The gateway only observes: nothing is charged.
    Observing,
    /// What is bought could not be spent.
    NotSpendable,
    /// The pool has more than it takes.
    Enough,
    /// It has less, and no charge took it there.
    NotCharged,
    /// The price would be above what the customer allows in a month.
    Capped {
        /// When the next month begins, if it is not above it alone.
        until: Option<Timestamp>,
    },
    /// One was tried, or paid, not long ago.
    Cooling {
        /// When the next may begin.
        until: Timestamp,
    },
    /// It begins now.
    Due,
}

/// Whether a customer's monthly cap has room for a top-up.
enum Room {
    /// It has, if nothing was paid in a later month.
    Now,
    /// Only from this month on.
    From(Timestamp),
    /// It alone is above it.
    Never,
}

impl Account {
    /// How top-up stands, by the clock as read.
    pub(super) fn top_up_standing(&self, clock: Timestamp) -> Standing<'_> {
        let top_up = match self.top_up_ready() {
            Ok(top_up) => top_up,
            Err(standing) => return standing,
        };
        if let Some(capped) = self.capped(clock) {
            return capped;
        }
        match top_up.cooled_at().filter(|cooled| *cooled > clock) {
            Some(until) => Standing::Cooling { until },
            None => Standing::Due,
        }
    }

    /// When the alarm has to look at a top-up that is due, as long as it is.
    pub(in crate::account) fn top_up_at(&self) -> Option<Timestamp> {
        let top_up = self.top_up_ready().ok()?;
        let room_at = match self.room() {
            Room::Now => None,
            Room::From(month) => Some(month),
            Room::Never => return None,
        };
        let cooled_at = top_up.cooled_at();
        let at = cooled_at.max(room_at).or(top_up.due_since)?;
        // Until the month is over nothing but a message can change that.
        let looks_again = room_at < cooled_at;
        let look_at = self.top_up_looked_at.plus(LOOK_AGAIN);
        Some(if looks_again { at.min(look_at) } else { at })
    }

    /// The top-ups of an account of which one is due, whatever the clock says.
    fn top_up_ready(&self) -> Result<&TopUp, Standing<'_>> {
        let offer = self.policy.top_up.as_ref().ok_or(Standing::NotSold)?;
        if self.is_closed() {
            return Err(Standing::Closed);
        }
        let top_up = self.state.top_up.as_deref().ok_or(Standing::Off)?;
        if let Some(attempt) = &top_up.attempt {
            return Err(Standing::Attempting(attempt));
        }
        let settings = top_up.is_on().ok_or(Standing::Off)?;
        if let Some(hindrance) = self.hindrance(offer) {
            return Err(hindrance);
        }
        if let Some(pause) = &top_up.paused {
            return Err(Standing::Paused(pause));
        }
        if self.available(&offer.pool) >= settings.threshold {
            return Err(Standing::Enough);
        }
        if top_up.due_since.is_none() {
            return Err(Standing::NotCharged);
        }
        Ok(top_up)
    }

    /// Whether what has been begun may still be paid.
    pub(super) fn is_top_up_wanted(&self) -> bool {
        let offer = self.policy.top_up.as_ref();
        let is_on = self
            .state
            .top_up
            .as_deref()
            .and_then(TopUp::is_on)
            .is_some();
        is_on && !self.is_closed() && offer.is_some_and(|offer| self.hindrance(offer).is_none())
    }

    /// What stands in the way whoever asks for it.
    fn hindrance(&self, offer: &TopUpOffer) -> Option<Standing<'static>> {
        if matches!(self.profile.status, Status::Suspended { .. }) {
            return Some(Standing::Suspended);
        }
        if self.policy.gateway.mode == Mode::Observe {
            return Some(Standing::Observing);
        }
        if !self.state.billing.disputed.is_empty() {
            return Some(Standing::Disputed);
        }
        if self.customer().is_none() {
            return Some(Standing::NoCustomer);
        }
        let spending = self.spending(&offer.pool, self.state.latest);
        let is_spendable = spending.pool.is_some() && spending.extra;
        (!is_spendable).then_some(Standing::NotSpendable)
    }

    /// Why no attempt can be made that the customer asks for now, in one sentence.
    pub(super) fn retry_hindrance(&self, clock: Timestamp) -> Option<String> {
        let standing = match self.top_up_ready() {
            // The customer may ask for one also after a failed one, and while it is paused.
            Ok(_) | Err(Standing::Paused(_) | Standing::NotCharged) => {
                let top_up = self.state.top_up.as_deref()?;
                let paid = top_up.paid_at.map(|at| at.plus(COOLING));
                let tried = top_up.begun_at.map(|at| at.plus(RETRY_GAP));
                let until = paid.max(tried).filter(|until| *until > clock);
                match (self.capped(clock), until) {
                    (Some(capped), _) => capped,
                    (None, Some(until)) => Standing::Cooling { until },
                    (None, None) if !self.is_below_threshold() => Standing::Enough,
                    (None, None) => return None,
                }
            }
            Err(standing) => standing,
        };
        Some(self.top_up_sentence(&standing))
    }

    /// Whether the pool can spend less than the threshold of a top-up that is on.
    pub(super) fn is_below_threshold(&self) -> bool {
        let offer = self.policy.top_up.as_ref();
        let settings = self.state.top_up.as_deref().and_then(TopUp::is_on);
        offer
            .zip(settings)
            .is_some_and(|(offer, settings)| self.available(&offer.pool) < settings.threshold)
    }

    /// What the next top-up buys, and for how much.
    pub(super) fn next_top_up(&self) -> Option<(Credits, Money)> {
        let offer = self.policy.top_up.as_ref()?;
        let settings = self.state.top_up.as_deref()?.settings.as_ref()?;
        let credits = settings
            .target
            .checked_sub(self.available(&offer.pool))
            .filter(|credits| !credits.is_zero())?;
        Some((credits, offer.price_of(credits)?))
    }

    /// Whether the next top-up is above the customer's cap, by the clock as read.
    fn capped(&self, clock: Timestamp) -> Option<Standing<'static>> {
        match self.room() {
            Room::Now => None,
            Room::From(month) => (month > clock).then_some(Standing::Capped { until: Some(month) }),
            Room::Never => Some(Standing::Capped { until: None }),
        }
    }

    /// Whether the customer's cap has room for the next top-up.
    fn room(&self) -> Room {
        let top_up = self.state.top_up.as_deref();
        let settings = top_up.and_then(|top_up| top_up.settings.as_ref());
        let cap = settings.and_then(|settings| settings.monthly_cap);
        let (Some(cap), Some((_, price))) = (cap, self.next_top_up()) else {
            return Room::Now;
        };
        if price.currency != cap.currency || price.amount > cap.amount {
            return Room::Never;
        }
        let spent = top_up.and_then(|top_up| top_up.spent.as_ref());
        match spent.filter(|spent| spent.price.currency == cap.currency) {
            Some(spent) if spent.price.amount.saturating_add(price.amount) > cap.amount => {
                let calendar = self.policy.gateway.calendar;
                Room::From(calendar.start_of_month(spent.month.next()))
            }
            _ => Room::Now,
        }
    }
}

impl TopUp {
    /// The settings, while it is on.
    pub(super) fn is_on(&self) -> Option<&TopUpSettings> {
        self.settings.as_ref().filter(|settings| settings.is_on)
    }

    /// When the next one may begin by itself.
    fn cooled_at(&self) -> Option<Timestamp> {
        self.begun_at.max(self.paid_at).map(|at| at.plus(COOLING))
    }
}
