//! Whether a top-up runs, and why it does not.

use super::{Attempt, COOLING, LOOK_AGAIN, Pause, RETRY_GAP, TopUp, TopUpSettings, Why};
use crate::{
    account::{Account, Status},
    credits::Credits,
    payments::money::Money,
    policy::{Mode, TopUpOffer},
    time::{MonthNumber, Timestamp},
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

/// Whether what has been begun may be paid.
pub(super) enum Leave {
    /// If it comes to no more than this, tax included.
    UpTo(Option<Money>),
    /// It may not, for this reason.
    Not(Why),
}

impl Leave {
    /// Why `price` may not be paid, if it may not.
    pub(super) fn refuses(&self, price: Money) -> Option<Why> {
        match self {
            Self::Not(why) => Some(why.clone()),
            Self::UpTo(None) => None,
            Self::UpTo(Some(most)) => {
                let is_within = price.currency == most.currency && price.amount <= most.amount;
                (!is_within).then_some(Why::AboveCap(price))
            }
        }
    }
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

    /// Whether `attempt` may still be paid: between its begin and its payment hours can pass.
    pub(super) fn top_up_leave(&self, attempt: &Attempt, clock: Timestamp) -> Leave {
        let (Some(offer), Some(top_up)) = (&self.policy.top_up, self.state.top_up.as_deref())
        else {
            return Leave::Not(Why::CalledOff);
        };
        let Some(settings) = top_up.is_on() else {
            return Leave::Not(Why::CalledOff);
        };
        let is_cleared = top_up
            .unpaid
            .as_ref()
            .is_some_and(|it| it.number() == attempt.number());
        let paused = top_up.paused.as_ref();
        let is_called_off = is_cleared
            || self.is_closed()
            || self.hindrance(offer).is_some()
            || paused.is_some_and(|pause| pause.since > attempt.begun_at)
            || settings.target < attempt.bought.credits;
        if is_called_off {
            return Leave::Not(Why::CalledOff);
        }
        let pool = &attempt.bought.pool;
        // A hold that came back is no credit that came in.
        let came_in = attempt.left.is_some_and(|before| self.left(pool) > before);
        let with_it = self.available(pool).saturating_add(attempt.bought.credits);
        if came_in && with_it > settings.target {
            return Leave::Not(Why::NotNeeded);
        }
        Leave::UpTo(settings.monthly_cap.map(|cap| Money {
            amount: cap.amount.saturating_sub(self.paid_in_month(cap, clock)),
            ..cap
        }))
    }

    /// What was paid of a monthly cap so far.
    fn paid_in_month(&self, cap: Money, clock: Timestamp) -> u64 {
        let month = self.policy.gateway.calendar.month_of(clock);
        let top_up = self.state.top_up.as_deref();
        let spent = top_up.and_then(|top_up| top_up.spent.as_ref());
        let spent = spent.filter(|it| it.month == month && it.price.currency == cap.currency);
        spent.map_or(0, |spent| spent.price.amount)
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

    /// `price` with as much tax as was on the last invoice.
    pub(super) fn with_tax(&self, price: Money) -> Money {
        let top_up = self.state.top_up.as_deref();
        let taxed = top_up.and_then(|top_up| top_up.taxed.as_ref());
        let taxed = taxed.filter(|taxed| taxed.price.currency == price.currency);
        Money {
            amount: taxed.map_or(price.amount, |taxed| taxed.total_of(price)),
            ..price
        }
    }

    /// Whether the customer's cap has room for the next top-up, with as much tax as was on the last one.
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
        let calendar = self.policy.gateway.calendar;
        let after = |month: MonthNumber| Room::From(calendar.start_of_month(month.next()));
        let total = self.with_tax(price).amount;
        let taxed = top_up.and_then(|top_up| top_up.taxed.as_ref());
        let spent = top_up.and_then(|top_up| top_up.spent.as_ref());
        match (spent, taxed) {
            (Some(spent), _)
                if spent.price.currency == cap.currency
                    && spent.price.amount.saturating_add(total) > cap.amount =>
            {
                after(spent.month)
            }
            // Another tax may be due by then.
            (_, Some(taxed)) if total > cap.amount => after(taxed.month),
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
        let was_needless = self
            .last
            .as_ref()
            .is_some_and(|last| last.failed == Some(Why::NotNeeded));
        let cooling = if was_needless { LOOK_AGAIN } else { COOLING };
        let tried = self.begun_at.map(|at| at.plus(cooling));
        tried.max(self.paid_at.map(|at| at.plus(COOLING)))
    }
}
