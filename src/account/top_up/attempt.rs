//! One attempt at a top-up, request by request.
//!
//! An invoice is drafted, given its line and finalized, which moves no money; then it is paid. Where an
//! answer to that is lost, the invoice tells whether it was paid, and if not, paying it is tried again
//! with the same idempotency key. An attempt ends when it is known to be paid, or known not to be: what
//! nobody could say for [`GIVEN_UP_AFTER`] is voided first.

use super::{Account, Ended, TopUp, Why};
use crate::{
    account::Changes,
    credits::Credits,
    id::AccountId,
    payments::{
        money::Money,
        stripe::{Call, Failure},
        top_up::{self as stripe, Invoice, InvoiceStatus},
    },
    time::{Span, Timestamp},
    wire::{Decode, Encode},
};

/// What nobody could say for so long is given up. Stripe keeps idempotency keys for four times as long.
const GIVEN_UP_AFTER: Span = Span::from_seconds(6 * 3_600);
/// How soon Stripe is asked again that did not say, at first …
const ASK_FIRST: Span = Span::from_seconds(10);
/// … and at most: each time as long again as it has not said so far.
const ASK_LAST: Span = Span::from_seconds(30 * 60);

/// An attempt, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(in crate::account) struct Attempt {
    #[n(0)]
    number: u32,
    #[n(1)]
    pub(super) pool: String,
    #[n(2)]
    pub(super) credits: Credits,
    #[n(3)]
    pub(super) price: Money,
    /// Stripe's customer.
    #[n(4)]
    customer: String,
    /// Whether the customer asked for it.
    #[n(5)]
    pub(super) is_retry: bool,
    /// By the clock as read.
    #[n(6)]
    pub(super) begun_at: Timestamp,
    #[n(7)]
    step: Step,
    /// What it is paid with.
    #[n(8)]
    method: Option<String>,
    /// What is paid, once it is there.
    #[n(9)]
    invoice: Option<String>,
    /// Where the customer can pay it.
    #[n(10)]
    pub(super) link: Option<String>,
    /// Stripe has said that it does not take the payment; whether it was paid before, the invoice tells.
    #[n(11)]
    is_refused: bool,
    /// The payment, once it is made.
    #[n(12)]
    payment: Option<String>,
    /// Since when Stripe has not said.
    #[n(13)]
    unclear_since: Option<Timestamp>,
    /// Stripe is not asked before this.
    #[n(14)]
    ask_at: Timestamp,
    /// Whether Stripe works out its tax.
    #[n(15)]
    with_tax: bool,
}

/// What Stripe is asked next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
enum Step {
    /// Nothing, until the invoice of the attempt before can be paid no more.
    #[n(0)]
    Wait,
    /// What the customer pays with.
    #[n(1)]
    Customer,
    /// What else the customer could pay with.
    #[n(2)]
    Method,
    /// An invoice.
    #[n(3)]
    Draft,
    /// The credits on it.
    #[n(4)]
    Line,
    /// That it can be paid.
    #[n(5)]
    Finalize,
    /// The payment.
    #[n(6)]
    Pay,
    /// How the invoice stands.
    #[n(7)]
    Look,
    /// That it can be paid no more.
    #[n(8)]
    Void,
    /// Nothing: the attempt is over, and its invoice can still be paid by hand.
    #[n(9)]
    Rest,
}

/// What Stripe has to be asked about a top-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What its answer is given back with.
    pub asked: Asked,
    /// The request.
    pub call: Call,
}

/// Which step of which attempt was asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    number: u32,
    step: Step,
}

/// A new attempt.
pub(super) struct New {
    pub number: u32,
    pub pool: String,
    pub credits: Credits,
    pub price: Money,
    pub customer: String,
    pub is_retry: bool,
    pub begun_at: Timestamp,
    pub with_tax: bool,
    /// There is one before it whose invoice could still be paid.
    pub clears: bool,
}

/// What an answer makes of an attempt.
enum Turn {
    /// It goes on.
    GoOn,
    /// It was paid.
    Paid,
    /// It was not, and is over.
    Failed(Why),
    /// It can be paid no more.
    Gone,
}

impl Account {
    /// What Stripe has to be asked, if anything, and when.
    #[must_use]
    pub fn top_up_ask(&self) -> Option<(Timestamp, Ask)> {
        let asking = self.state.top_up.as_ref()?.asking()?;
        let call = asking.call(&self.profile.id)?;
        let asked = asking.asked();
        Some((asking.ask_at, Ask { asked, call }))
    }

    /// When Stripe has to be asked, if it has to be.
    #[must_use]
    pub fn top_up_asks_at(&self) -> Option<Timestamp> {
        let asking = self.state.top_up.as_ref()?.asking()?;
        Some(asking.ask_at)
    }

    /// Books what Stripe has answered. Late and repeated answers change nothing.
    pub fn top_up_answered(
        &mut self,
        asked: Asked,
        answer: Result<String, Failure>,
        clock: Timestamp,
    ) -> Changes {
        let mut changes = Changes::default();
        self.book_due(clock, &mut changes);
        let Some(top_up) = &mut self.state.top_up else {
            return changes;
        };
        if top_up.asking().map(Attempt::asked) != Some(asked) {
            return changes;
        }
        changes.snapshot = true;
        if let Some(mut unpaid) = top_up.unpaid.take_if(|unpaid| unpaid.is_asking()) {
            let is_waited_for = top_up.attempt.is_some();
            match unpaid.hear_again(answer, is_waited_for, clock) {
                Turn::GoOn => top_up.unpaid = Some(unpaid),
                Turn::Paid => {
                    // What waited for it was to buy what is here now.
                    top_up.attempt = None;
                    self.top_up_paid(unpaid, clock, &mut changes);
                }
                Turn::Failed(_) | Turn::Gone => {}
            }
            self.top_up_waits_no_longer(clock, &mut changes);
            return changes;
        }
        let Some(mut attempt) = top_up.attempt.take() else {
            return changes;
        };
        match attempt.hear(answer, clock) {
            Turn::GoOn => top_up.attempt = Some(attempt),
            Turn::Paid => self.top_up_paid(attempt, clock, &mut changes),
            Turn::Failed(why) => self.top_up_failed(attempt, why, clock, &mut changes),
            Turn::Gone => {
                attempt.rest();
                self.top_up_failed(attempt, Why::Unclear, clock, &mut changes);
            }
        }
        changes
    }

    /// What waits for the invoice before it goes on when that is gone, and is given up in time.
    fn top_up_waits_no_longer(&mut self, clock: Timestamp, changes: &mut Changes) {
        let Some(top_up) = &mut self.state.top_up else {
            return;
        };
        let is_free = top_up.unpaid.is_none();
        let Some(attempt) = top_up
            .attempt
            .as_mut()
            .filter(|attempt| attempt.step == Step::Wait)
        else {
            return;
        };
        if is_free {
            attempt.go_to(Step::Customer, clock);
        } else if attempt.is_given_up(clock)
            && let Some(attempt) = top_up.attempt.take()
        {
            if let Some(unpaid) = &mut top_up.unpaid {
                unpaid.rest();
            }
            let ended = attempt.ended(clock, Some(Why::Unclear));
            top_up.last = Some(ended);
            changes.snapshot = true;
        }
    }

    /// Something has happened to an invoice: whether it is that of a top-up, and how it stands, is
    /// asked at once.
    pub fn hurry_top_up(&mut self, invoice: &str, clock: Timestamp) -> Changes {
        let mut changes = Changes::default();
        let Some(top_up) = &mut self.state.top_up else {
            return changes;
        };
        let both = top_up.unpaid.iter_mut().chain(top_up.attempt.iter_mut());
        for attempt in both.filter(|attempt| attempt.invoice.as_deref() == Some(invoice)) {
            if matches!(attempt.step, Step::Rest) {
                attempt.go_to(Step::Look, clock);
                changes.snapshot = true;
            } else if attempt.step == Step::Look && attempt.ask_at > clock {
                attempt.ask_at = clock;
                changes.snapshot = true;
            }
        }
        changes
    }
}

impl TopUp {
    /// The attempt that Stripe has to be asked about: one before the present one first.
    fn asking(&self) -> Option<&Attempt> {
        let mut both = self.unpaid.iter().chain(&self.attempt);
        both.find(|attempt| attempt.is_asking())
    }

    /// The clock has stepped back: what was to be asked later than the longest wait is asked then.
    pub(super) fn bring_forward(&mut self, clock: Timestamp) -> bool {
        let both = self.unpaid.iter_mut().chain(self.attempt.iter_mut());
        let mut strayed = false;
        for attempt in both {
            strayed |= brought_forward(&mut attempt.ask_at, clock.plus(ASK_LAST));
            strayed |= brought_forward(&mut attempt.begun_at, clock);
            if let Some(since) = &mut attempt.unclear_since {
                strayed |= brought_forward(since, clock);
            }
        }
        for moment in [&mut self.begun_at, &mut self.paid_at]
            .into_iter()
            .flatten()
        {
            strayed |= brought_forward(moment, clock);
        }
        strayed
    }
}

fn brought_forward(moment: &mut Timestamp, latest: Timestamp) -> bool {
    let strayed = *moment > latest;
    *moment = latest.min(*moment);
    strayed
}

impl Attempt {
    pub(super) fn new(new: New) -> Self {
        Self {
            number: new.number,
            pool: new.pool,
            credits: new.credits,
            price: new.price,
            customer: new.customer,
            is_retry: new.is_retry,
            begun_at: new.begun_at,
            step: if new.clears {
                Step::Wait
            } else {
                Step::Customer
            },
            method: None,
            invoice: None,
            link: None,
            is_refused: false,
            payment: None,
            unclear_since: None,
            ask_at: new.begun_at,
            with_tax: new.with_tax,
        }
    }

    /// The payment's id, or that of what was paid.
    pub(super) fn payment_id(&self) -> &str {
        let id = self.payment.as_deref().or(self.invoice.as_deref());
        id.unwrap_or_default()
    }

    /// How it ended.
    pub(super) fn ended(&self, at: Timestamp, failed: Option<Why>) -> Ended {
        Ended {
            at,
            credits: self.credits,
            price: self.price,
            failed,
            invoice: self.invoice.clone(),
        }
    }

    /// Whether the customer can still pay it by hand.
    pub(super) fn can_be_paid(&self) -> bool {
        matches!(self.step, Step::Pay | Step::Look)
    }

    /// Whether its payment was asked for, so that money may move any moment.
    pub(super) const fn is_paying(&self) -> bool {
        matches!(self.step, Step::Pay | Step::Look | Step::Void)
    }

    /// Whether nobody can pay it yet.
    pub(super) const fn is_prepared_only(&self) -> bool {
        match self.step {
            Step::Wait | Step::Customer | Step::Method | Step::Draft | Step::Line => true,
            Step::Finalize | Step::Pay | Step::Look | Step::Void | Step::Rest => false,
        }
    }

    /// It is over.
    pub(super) const fn rest(&mut self) {
        self.step = Step::Rest;
        self.unclear_since = None;
    }

    /// A new attempt waits for it: how its invoice stands is asked.
    pub(super) const fn clear(&mut self, clock: Timestamp) {
        self.go_to(Step::Look, clock);
    }

    const fn is_asking(&self) -> bool {
        !matches!(self.step, Step::Wait | Step::Rest)
    }

    const fn asked(&self) -> Asked {
        Asked {
            number: self.number,
            step: self.step,
        }
    }

    fn is_given_up(&self, clock: Timestamp) -> bool {
        self.begun_at.plus(GIVEN_UP_AFTER) <= clock
    }

    const fn go_to(&mut self, step: Step, clock: Timestamp) {
        self.step = step;
        self.unclear_since = None;
        self.ask_at = clock;
    }

    /// Asks again later, at this step.
    fn wait_at(&mut self, step: Step, clock: Timestamp) -> Turn {
        let since = *self.unclear_since.get_or_insert(clock);
        self.step = step;
        self.ask_at = clock.plus(clock.since(since).max(ASK_FIRST).min(ASK_LAST));
        Turn::GoOn
    }

    fn goes_to(&mut self, step: Step, clock: Timestamp) -> Turn {
        self.go_to(step, clock);
        Turn::GoOn
    }

    /// The request of its step. Each has the idempotency key of the attempt, by what it does.
    fn call(&self, account: &AccountId) -> Option<Call> {
        let key = |what: &str| {
            let begun = self.begun_at.as_millis();
            format!("tollgate-{account}-top-up-{}-{begun}-{what}", self.number)
        };
        let invoice = self.invoice.as_deref().unwrap_or_default();
        Some(match self.step {
            Step::Wait | Step::Rest => return None,
            Step::Customer => stripe::customer(&self.customer),
            Step::Method => stripe::methods(&self.customer),
            Step::Draft => {
                let currency = self.price.currency;
                let of = (account, self.number);
                stripe::draft(key("draft"), &self.customer, currency, self.with_tax, of)
            }
            Step::Line => {
                let of = (self.customer.as_str(), invoice);
                stripe::line(key("line"), of, self.price, self.credits, &self.pool)
            }
            Step::Finalize => stripe::finalize(key("finalize"), invoice),
            Step::Pay => stripe::pay(key("pay"), invoice, self.method.as_deref()),
            Step::Look => stripe::look(invoice),
            Step::Void => stripe::void(key("void"), invoice),
        })
    }

    /// What an answer makes of it.
    fn hear(&mut self, answer: Result<String, Failure>, clock: Timestamp) -> Turn {
        match self.step {
            Step::Wait | Step::Rest => Turn::GoOn,
            Step::Customer | Step::Method | Step::Draft | Step::Line => {
                self.hear_prepared(answer, clock)
            }
            Step::Finalize | Step::Pay => self.hear_paid(answer, clock),
            Step::Look => match answer.as_deref().map(Invoice::read) {
                Ok(Some(invoice)) => self.look_at(&invoice, clock),
                Err(Failure::Missing) => Turn::Gone,
                _ => self.wait_at(Step::Look, clock),
            },
            Step::Void => match answer {
                Ok(_) => Turn::Gone,
                // It was paid at the last moment, or is about to be.
                Err(Failure::Mistake(_) | Failure::Missing) => self.wait_at(Step::Look, clock),
                Err(_) => self.wait_at(Step::Void, clock),
            },
        }
    }

    /// Nothing of this moves money.
    fn hear_prepared(&mut self, answer: Result<String, Failure>, clock: Timestamp) -> Turn {
        let body = match answer {
            Ok(body) => body,
            Err(Failure::Unclear(_) | Failure::Busy) if self.is_given_up(clock) => {
                return Turn::Failed(Why::Unclear);
            }
            Err(Failure::Unclear(_) | Failure::Busy) => return self.wait_at(self.step, clock),
            Err(
                Failure::Declined(_)
                | Failure::AuthenticationRequired
                | Failure::Missing
                | Failure::Mistake(_),
            ) => return Turn::Failed(Why::NotBilled),
        };
        let next = match self.step {
            Step::Customer => {
                self.method = stripe::own_method(&body);
                match self.method {
                    Some(_) => Step::Draft,
                    None => Step::Method,
                }
            }
            Step::Method => {
                self.method = stripe::first_method(&body);
                if self.method.is_none() {
                    return Turn::Failed(Why::NoPaymentMethod);
                }
                Step::Draft
            }
            Step::Draft => match Invoice::read(&body) {
                Some(invoice) => {
                    self.invoice = Some(invoice.id);
                    Step::Line
                }
                None => return self.wait_at(Step::Draft, clock),
            },
            _ => Step::Finalize,
        };
        self.goes_to(next, clock)
    }

    /// Its invoice is finalized or paid: what is not known of that, the invoice tells.
    fn hear_paid(&mut self, answer: Result<String, Failure>, clock: Timestamp) -> Turn {
        match answer {
            Ok(body) => match Invoice::read(&body) {
                Some(invoice) => self.look_at(&invoice, clock),
                None => self.wait_at(Step::Look, clock),
            },
            Err(Failure::Declined(code)) => Turn::Failed(Why::Declined(code)),
            Err(Failure::AuthenticationRequired) => Turn::Failed(Why::AuthenticationRequired),
            Err(Failure::Unclear(_) | Failure::Busy) => self.wait_at(Step::Look, clock),
            Err(Failure::Missing | Failure::Mistake(_)) => {
                self.is_refused = true;
                self.goes_to(Step::Look, clock)
            }
        }
    }

    /// What is to be done about an invoice that stands like this.
    fn look_at(&mut self, invoice: &Invoice, clock: Timestamp) -> Turn {
        if invoice.link.is_some() {
            self.link.clone_from(&invoice.link);
        }
        match invoice.status {
            InvoiceStatus::Paid if invoice.is_of(self.price) => {
                self.payment.clone_from(&invoice.payment);
                Turn::Paid
            }
            InvoiceStatus::Paid => {
                self.rest();
                Turn::Failed(Why::Refused)
            }
            InvoiceStatus::Void => Turn::Gone,
            InvoiceStatus::Draft | InvoiceStatus::Open if self.is_refused => {
                Turn::Failed(Why::Refused)
            }
            InvoiceStatus::Draft if self.is_given_up(clock) => Turn::Gone,
            InvoiceStatus::Draft => self.go_on_at(Step::Finalize, clock),
            InvoiceStatus::Open if invoice.is_processing => self.wait_at(Step::Look, clock),
            InvoiceStatus::Open if self.is_given_up(clock) => self.goes_to(Step::Void, clock),
            InvoiceStatus::Open => self.go_on_at(Step::Pay, clock),
        }
    }

    /// Goes on at once, and remembers since when Stripe has not said how it came out.
    fn go_on_at(&mut self, step: Step, clock: Timestamp) -> Turn {
        self.step = step;
        self.ask_at = clock;
        Turn::GoOn
    }

    /// What an answer makes of one that is over: whether it was paid by hand since.
    fn hear_again(
        &mut self,
        answer: Result<String, Failure>,
        is_waited_for: bool,
        clock: Timestamp,
    ) -> Turn {
        if self.step != Step::Look {
            return self.hear(answer, clock);
        }
        let invoice = match answer.as_deref().map(Invoice::read) {
            Ok(Some(invoice)) => invoice,
            Err(Failure::Missing) => return Turn::Gone,
            _ => return self.wait_at(Step::Look, clock),
        };
        match invoice.status {
            InvoiceStatus::Paid => self.look_at(&invoice, clock),
            InvoiceStatus::Void | InvoiceStatus::Draft => Turn::Gone,
            InvoiceStatus::Open if is_waited_for && !invoice.is_processing => {
                self.goes_to(Step::Void, clock)
            }
            InvoiceStatus::Open if is_waited_for || invoice.is_processing => {
                self.wait_at(Step::Look, clock)
            }
            InvoiceStatus::Open => {
                self.rest();
                Turn::GoOn
            }
        }
    }
}
