//! Automatic top-up: a charge that takes what the pool can spend below the customer's threshold has
//! credits bought up to the target, off-session.
//!
//! Money must move once for each top-up, whatever is lost on the way, and the credits must come once for
//! the money. So an attempt has a number and is committed before Stripe hears of it; its requests carry
//! idempotency keys made from that number; and every answer is committed before the next request
//! (`account/top_up/attempt.rs`). What is paid is one invoice, which Stripe lets be paid once.
//!
//! Whether a top-up is due follows from the balance; that a charge made it so is kept, so that lots that
//! expire in an idle account buy nothing.

mod attempt;
mod standing;
mod view;

use self::{attempt::Attempt, standing::Standing};
pub use self::{
    attempt::{Ask, Asked},
    view::TopUpView,
};
use super::{Account, Changes, Rejected};
use crate::{
    credits::Credits,
    event::Event,
    payments::{
        history::Payment,
        money::Money,
        sighting::{MethodSeen, Purpose},
        stripe::Failure,
        top_up::TopUpBought,
    },
    time::{MonthNumber, Span, Timestamp},
    wire::{Decode, Encode},
};

/// The least and the most that a threshold is.
pub const THRESHOLD: (u64, u64) = (100, 99_000);
/// The least and the most that a target is.
pub const TARGET: (u64, u64) = (1_100, 100_000);
/// By how much the target is above the threshold, at least.
pub const APART: u64 = 1_000;
/// Every top-up is of at least so many credits: what can be spent is below the threshold, which is
/// [`APART`] below the target.
pub const LEAST_CREDITS: u64 = APART + 1;

/// At most one top-up begins by itself in so long, and none so soon after one that was paid.
const COOLING: Span = Span::from_seconds(6 * 3_600);
/// How soon after an attempt another one may be asked for.
const RETRY_GAP: Span = Span::MINUTE;
/// So many attempts may be asked for in so long. Each is a question to the bank: many of them are how
/// stolen cards are tried.
const RETRIES: [(usize, Span); 2] = [(3, Span::HOUR), (10, Span::from_days(1))];
/// Stripe tells when something happened in whole seconds, rounded down.
const STRIPES_SECOND: Span = Span::from_seconds(1);
/// How often the alarm looks again while a top-up is due and has to wait.
const LOOK_AGAIN: Span = Span::from_seconds(30 * 60);

/// What the customer wants.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct TopUpSettings {
    /// Whether top-up is on.
    #[n(0)]
    pub is_on: bool,
    /// Below this a top-up is due.
    #[n(1)]
    pub threshold: Credits,
    /// It buys up to this.
    #[n(2)]
    pub target: Credits,
    /// The most that it may pay in a calendar month.
    #[n(3)]
    pub monthly_cap: Option<Money>,
}

/// All that is known of an account's top-ups. Stored in the snapshot, which comes with each change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct TopUp {
    /// What the customer wants.
    #[n(0)]
    settings: Option<TopUpSettings>,
    /// Since when a charge has had the pool below the threshold, in order time.
    #[n(1)]
    due_since: Option<Timestamp>,
    /// Attempts ever begun: the last one's number.
    #[n(2)]
    attempts: u32,
    /// The one that is under way.
    #[n(3)]
    attempt: Option<Attempt>,
    /// The last one that failed, as long as its invoice can be paid by hand.
    #[n(4)]
    unpaid: Option<Attempt>,
    /// Nothing is tried until the customer has done something.
    #[n(5)]
    paused: Option<Pause>,
    /// When the last attempt began, by the clock as read.
    #[n(6)]
    begun_at: Option<Timestamp>,
    /// When the last one that was paid was known to be, by the clock as read.
    #[n(7)]
    paid_at: Option<Timestamp>,
    /// What was paid lately.
    #[n(8)]
    spent: Option<Spent>,
    /// How the last attempt ended.
    #[n(9)]
    last: Option<Ended>,
    /// What was paid with, or was tried to be, the last time.
    #[n(10)]
    method: Option<String>,
    /// What the last invoice came to.
    #[n(11)]
    taxed: Option<Taxed>,
    /// When the customer asked for an attempt lately, by the clock as read, the first one first.
    #[n(12)]
    #[cbor(default)]
    retried_at: Vec<Timestamp>,
}

/// Why nothing is tried.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Pause {
    /// Since when, by the clock as read.
    #[n(0)]
    since: Timestamp,
    #[n(1)]
    why: Why,
    /// Where the customer can pay, and so answer what the bank asks.
    #[n(2)]
    link: Option<String>,
}

/// Why an attempt failed, or none is made.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum Why {
    /// The payment method was declined, with this code of Stripe's.
    #[n(0)]
    Declined(#[n(0)] String),
    /// The customer has to confirm the payment (3-D Secure).
    #[n(1)]
    AuthenticationRequired,
    /// There is nothing to pay with.
    #[n(2)]
    NoPaymentMethod,
    /// Stripe would not take the payment.
    #[n(3)]
    Refused,
    /// Nobody could say for too long, and now it is known that nothing was paid.
    #[n(4)]
    Unclear,
    /// Stripe would not make out the invoice: nothing was tried.
    #[n(5)]
    NotBilled,
    /// A payment is disputed, or was with success.
    #[n(6)]
    Disputed,
    /// It was turned off, or the account stopped, before anything was paid.
    #[n(7)]
    CalledOff,
    /// Stripe has the account's customer no more.
    #[n(8)]
    NoCustomer,
    /// Credits came in meanwhile, and with it there would be more than the target.
    #[n(18)]
    NotNeeded,
    /// It comes to this with its tax, and the customer's cap has no room for that.
    #[n(19)]
    AboveCap(#[n(0)] Money),
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Ended {
    #[n(0)]
    at: Timestamp,
    #[n(1)]
    bought: TopUpBought,
    /// `None`: it was paid.
    #[n(2)]
    failed: Option<Why>,
    #[n(3)]
    invoice: Option<String>,
}

/// What an invoice came to: the next one is expected to come to as much.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Taxed {
    /// The month in which that was told.
    #[n(0)]
    month: MonthNumber,
    /// Without tax.
    #[n(1)]
    price: Money,
    /// With it.
    #[n(2)]
    total: u64,
}

impl Taxed {
    /// What `price` comes to with as much tax, rounded up.
    fn total_of(&self, price: Money) -> u64 {
        let total = u128::from(price.amount).saturating_mul(self.total.into());
        let total = total.div_ceil(u128::from(self.price.amount).max(1));
        u64::try_from(total).unwrap_or(u64::MAX).max(price.amount)
    }
}

/// What was paid in a month, tax included.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Spent {
    #[n(0)]
    month: MonthNumber,
    #[n(1)]
    price: Money,
}

/// How it came that top-up goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resumed {
    /// The customer has changed the payment method.
    MethodUpdated,
    /// A payment went through.
    Paid,
    /// A dispute was won.
    DisputeWon,
}

impl Account {
    /// Sets what the customer wants. Where the pool is below the threshold already, a top-up is due.
    ///
    /// # Errors
    /// Nothing is sold that way, or the cap does not allow one whole top-up.
    pub fn set_top_up(
        &mut self,
        settings: TopUpSettings,
        clock: Timestamp,
    ) -> Result<Changes, Rejected> {
        let offer = self.policy.top_up.as_ref().ok_or(Rejected::NoTopUp)?;
        let whole = offer.price_of(settings.target).ok_or(Rejected::NoTopUp)?;
        let allows = |cap: Money| cap.currency == whole.currency && cap.amount >= whole.amount;
        if settings.is_on && !settings.monthly_cap.is_none_or(allows) {
            return Err(Rejected::CapTooLow(whole));
        }
        let mut changes = Changes::default();
        self.book_due(clock, &mut changes);
        let top_up = self.state.top_up.get_or_insert_default();
        if !settings.is_on {
            // What the customer did not want must not be paid.
            top_up.drop_prepared();
        }
        top_up.settings = Some(settings);
        top_up.taxed = None;
        changes.snapshot = true;
        self.review_top_up(true, &mut changes);
        Ok(changes)
    }

    /// Tries a top-up that is due, at once: the customer says so.
    ///
    /// # Errors
    /// Why none can be made now.
    pub fn retry_top_up(&mut self, clock: Timestamp) -> Result<Changes, Rejected> {
        if self.policy.top_up.is_none() {
            return Err(Rejected::NoTopUp);
        }
        let mut changes = Changes::default();
        self.book_due(clock, &mut changes);
        if let Some(hindrance) = self.retry_hindrance(clock) {
            return Err(Rejected::TopUpCannotRun(hindrance));
        }
        let top_up = self.state.top_up.get_or_insert_default();
        if let Some(wait) = top_up.retry_wait(clock) {
            return Err(Rejected::TooManyRetries(wait));
        }
        top_up.note_retry(clock);
        self.begin_top_up(clock, &mut changes);
        Ok(changes)
    }

    /// Whether a charge on `pool` can make a top-up due ([`Account::charged`]).
    pub(super) fn is_topped_up(&self, pool: &str) -> bool {
        let offer = self.policy.top_up.as_ref();
        self.state.top_up.is_some() && offer.is_some_and(|offer| offer.pool == pool)
    }

    /// A charge on a pool that is topped up was booked: one may be due. It is noted once, with a
    /// snapshot.
    pub(super) fn charged(&mut self, changes: &mut Changes) {
        self.review_top_up(true, changes);
    }

    /// Notes that a top-up is due, where `is_asked_for`, or is not any more.
    fn review_top_up(&mut self, is_asked_for: bool, changes: &mut Changes) {
        let is_below = self.is_below_threshold();
        let latest = self.state.latest;
        let Some(top_up) = &mut self.state.top_up else {
            return;
        };
        if is_below && is_asked_for && top_up.due_since.is_none() {
            top_up.due_since = Some(latest);
            changes.snapshot = true;
        } else if !is_below && top_up.due_since.take().is_some() {
            changes.snapshot = true;
        }
    }

    /// Begins the top-up that is due, if it need not wait.
    pub(super) fn top_up_if_due(&mut self, clock: Timestamp, changes: &mut Changes) {
        self.top_up_looked_at = clock;
        if self.state.top_up.is_none() {
            return;
        }
        self.review_top_up(false, changes);
        if matches!(self.top_up_standing(clock), Standing::Due) {
            self.begin_top_up(clock, changes);
        }
    }

    /// Past this line nothing can fail: whether a top-up may begin is decided.
    fn begin_top_up(&mut self, clock: Timestamp, changes: &mut Changes) {
        let Some((credits, price)) = self.next_top_up() else {
            return;
        };
        let (Some(offer), Some(customer)) = (&self.policy.top_up, self.customer()) else {
            return;
        };
        let (pool, customer) = (offer.pool.clone(), customer.to_owned());
        let with_tax = self.policy.payments.automatic_tax;
        let left = self.left(&pool);
        let top_up = self.state.top_up.get_or_insert_default();
        top_up.attempts = top_up.attempts.saturating_add(1);
        top_up.begun_at = Some(clock);
        top_up.attempt = Some(Attempt::new(attempt::New {
            bought: TopUpBought {
                number: top_up.attempts,
                pool,
                credits,
                price,
            },
            customer,
            with_tax,
            begun_at: clock,
            left,
            waits: top_up.unpaid.is_some(),
        }));
        if let Some(unpaid) = &mut top_up.unpaid {
            unpaid.begin_to_clear(clock);
        }
        changes.snapshot = true;
    }

    /// A payment has come, or is known to have. Where it is that of a top-up, its attempt is over; with
    /// the first word of it, it counts.
    pub(super) fn top_up_paid(
        &mut self,
        payment: &Payment,
        is_first_word: bool,
        clock: Timestamp,
        changes: &mut Changes,
    ) {
        let Purpose::TopUp(bought) = &payment.purpose else {
            return;
        };
        let month = self.policy.gateway.calendar.month_of(clock);
        let (is_below, latest) = (self.is_below_threshold(), self.state.latest);
        let top_up = self.state.top_up.get_or_insert_default();
        top_up.close(&payment.name);
        if !is_first_word {
            return;
        }
        top_up.paid_at = Some(clock);
        let paid = Money {
            amount: payment.total,
            currency: payment.currency,
        };
        top_up.count_spent(month, paid);
        // Whoever still has too little need not wait for the next charge.
        top_up.due_since = is_below.then_some(latest);
        let failed = payment.in_vain.map(|_| Why::Refused);
        top_up.last = Some(Ended {
            at: clock,
            bought: bought.clone(),
            failed: failed.clone(),
            invoice: Some(payment.name.clone()),
        });
        changes.snapshot = true;
        if let Some(why) = failed {
            return self.pause_top_up(why, None, clock, changes);
        }
        let event = Event::TopUpSucceeded {
            pool: bought.pool.clone(),
            credits: bought.credits,
            price: paid.to_string(),
            payment: payment.name.clone(),
        };
        self.emit(&event, latest, changes);
        self.resume_top_up(Resumed::Paid, changes);
    }

    /// An attempt is over, and nothing was paid. What the customer has to mend pauses top-up.
    fn top_up_failed(
        &mut self,
        mut attempt: Attempt,
        why: Why,
        clock: Timestamp,
        changes: &mut Changes,
    ) {
        let top_up = self.state.top_up.get_or_insert_default();
        top_up.last = Some(attempt.ended(clock, Some(why.clone())));
        if why.pauses() {
            top_up.method.clone_from(&attempt.method);
        }
        let reason = why.sentence();
        let link = attempt.link.clone();
        if attempt.can_be_paid() {
            attempt.rest();
            top_up.unpaid = Some(attempt);
        }
        changes.snapshot = true;
        let latest = self.state.latest;
        let event = Event::TopUpFailed { reason };
        self.emit(&event, latest, changes);
        if why.pauses() {
            self.pause_top_up(why, link, clock, changes);
        }
    }

    fn pause_top_up(
        &mut self,
        why: Why,
        link: Option<String>,
        clock: Timestamp,
        changes: &mut Changes,
    ) {
        let event = Event::TopUpPaused {
            reason: why.sentence(),
            url: link.clone(),
        };
        let top_up = self.state.top_up.get_or_insert_default();
        // Where the customer can pay is another place after a retry: the invoice before is void.
        let before = top_up.paused.as_ref();
        let is_told = before.is_some_and(|before| link.is_none() || before.link == link);
        top_up.paused = Some(Pause {
            since: clock,
            why,
            link,
        });
        changes.snapshot = true;
        if !is_told {
            self.emit(&event, self.state.latest, changes);
        }
    }

    /// Goes on after a pause. What is due then is tried in its time.
    fn resume_top_up(&mut self, how: Resumed, changes: &mut Changes) {
        let is_disputed = !self.state.billing.disputed.is_empty();
        let Some(top_up) = &mut self.state.top_up else {
            return;
        };
        let Some(pause) = top_up.paused.take() else {
            return;
        };
        changes.snapshot = true;
        if is_disputed {
            // That alone stands in its way now.
            top_up.paused = Some(Pause {
                why: Why::Disputed,
                link: None,
                ..pause
            });
            return;
        }
        let event = Event::TopUpResumed {
            reason: how.sentence().to_owned(),
        };
        self.emit(&event, self.state.latest, changes);
    }

    /// A payment is disputed: nothing is bought until that is decided.
    pub(super) fn top_up_disputed(&mut self, clock: Timestamp, changes: &mut Changes) {
        let Some(top_up) = &mut self.state.top_up else {
            return;
        };
        top_up.drop_prepared();
        if top_up.paused.is_none() {
            self.pause_top_up(Why::Disputed, None, clock, changes);
        }
    }

    /// A dispute was won.
    pub(super) fn top_up_undisputed(&mut self, changes: &mut Changes) {
        let paused = self
            .state
            .top_up
            .as_ref()
            .and_then(|top_up| top_up.paused.as_ref());
        let is_for_that = paused.is_some_and(|pause| pause.why == Why::Disputed);
        if is_for_that && self.state.billing.disputed.is_empty() {
            self.resume_top_up(Resumed::DisputeWon, changes);
        }
    }

    /// The account is closed: nothing more is bought.
    pub(super) fn drop_prepared_top_up(&mut self) {
        if let Some(top_up) = &mut self.state.top_up {
            top_up.drop_prepared();
        }
    }

    /// Something about the customer's payment methods was changed, at this moment of Stripe's clock. What
    /// was paused goes on where that would be paid with something else now, or with what was mended since.
    /// `seen` is absent where the release before tells of it, which has not looked.
    pub fn payment_method_seen(
        &mut self,
        at: Timestamp,
        seen: Option<MethodSeen>,
        clock: Timestamp,
    ) -> Changes {
        let mut changes = Changes::default();
        self.book_due(clock, &mut changes);
        let top_up = self.state.top_up.as_deref();
        let resumes = top_up.is_some_and(|top_up| {
            let paused = top_up.paused.as_ref();
            let is_later = paused.is_some_and(|pause| at.plus(STRIPES_SECOND) > pause.since);
            match &seen {
                None => is_later,
                Some(seen) if seen.now.is_none() => false,
                Some(seen) => seen.now != top_up.method || (is_later && seen.updated == seen.now),
            }
        });
        if resumes {
            self.resume_top_up(Resumed::MethodUpdated, &mut changes);
        }
        changes
    }
}

impl TopUp {
    /// What nobody can pay yet is not paid.
    fn drop_prepared(&mut self) {
        self.attempt.take_if(|attempt| attempt.is_prepared_only());
        if let Some(unpaid) = &mut self.unpaid {
            unpaid.rest();
        }
    }

    /// An invoice was paid: the attempt at it is over, and one that waited for it as well, which was to
    /// buy what is here now.
    fn close(&mut self, invoice: &str) {
        let is_it = |attempt: &mut Attempt| attempt.invoice.as_deref() == Some(invoice);
        if let Some(paid) = self.attempt.take_if(is_it) {
            self.method = paid.method;
        }
        if self.unpaid.take_if(is_it).is_some() {
            self.attempt.take_if(|attempt| attempt.is_prepared_only());
        }
    }

    /// How long it takes until another attempt may be asked for, if one may not now.
    fn retry_wait(&self, clock: Timestamp) -> Option<Span> {
        let waits = RETRIES.iter().filter_map(|(most, span)| {
            let mut latest = self.retried_at.iter().rev();
            let free_at = latest.nth(most.saturating_sub(1))?.plus(*span);
            (free_at > clock).then(|| free_at.since(clock))
        });
        waits.max()
    }

    fn note_retry(&mut self, clock: Timestamp) {
        let most = RETRIES.iter().map(|(most, _)| *most).max();
        if Some(self.retried_at.len()) >= most {
            self.retried_at.remove(0);
        }
        self.retried_at.push(clock);
    }

    fn count_spent(&mut self, month: MonthNumber, price: Money) {
        match &mut self.spent {
            Some(spent) if spent.month == month && spent.price.currency == price.currency => {
                spent.price.amount = spent.price.amount.saturating_add(price.amount);
            }
            spent => *spent = Some(Spent { month, price }),
        }
    }

    /// The clock has stepped back: nothing waits for it to catch up.
    pub(super) fn forget_stray(&mut self, clock: Timestamp, month: MonthNumber) -> bool {
        let mut strayed = self.bring_forward(clock);
        if let Some(spent) = self.spent.as_mut().filter(|spent| spent.month > month) {
            spent.month = month;
            strayed = true;
        }
        if self.taxed.take_if(|taxed| taxed.month > month).is_some() {
            strayed = true;
        }
        strayed
    }
}

impl Why {
    /// Whether nothing is tried until the customer has done something.
    const fn pauses(&self) -> bool {
        match self {
            Self::Declined(_)
            | Self::AuthenticationRequired
            | Self::NoPaymentMethod
            | Self::Refused
            | Self::Disputed
            | Self::NoCustomer => true,
            Self::Unclear
            | Self::NotBilled
            | Self::CalledOff
            | Self::NotNeeded
            | Self::AboveCap(_) => false,
        }
    }

    /// What a failed payment comes to; `None` where the payment method was not refused.
    fn of(failure: &Failure) -> Option<Self> {
        match failure {
            Failure::Declined(code) => Some(Self::Declined(code.clone())),
            Failure::AuthenticationRequired => Some(Self::AuthenticationRequired),
            Failure::Unclear(_)
            | Failure::Busy
            | Failure::Missing
            | Failure::NoCustomer
            | Failure::OtherRequest
            | Failure::Mistake(_) => None,
        }
    }
}
