//! One attempt at a top-up, request by request.
//!
//! An invoice is drafted, given its line and finalized, which moves no money; then it is paid. Where an
//! answer to that is lost, the invoice tells whether it was paid, and if not, paying it is tried again
//! with the same idempotency key. An attempt ends when it is known to be paid, or known not to be: what
//! nobody could say for [`GIVEN_UP_AFTER`] is voided first. What Stripe says is on its way is waited for,
//! however long that takes.
//!
//! Whether it may still be paid is looked at with each answer, and once more before money would move
//! ([`Leave`]).

use super::{Account, Ended, Taxed, TopUp, Why, standing::Leave};
use crate::{
    account::{Changes, Profile},
    credits::Credits,
    payments::{
        history::Payment,
        money::Money,
        stripe::{Call, Failure},
        top_up::{self as stripe, Invoice, InvoiceStatus, TopUpBought},
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
    /// What it buys.
    #[n(0)]
    pub(super) bought: TopUpBought,
    /// Stripe's customer.
    #[n(1)]
    customer: String,
    /// Whether Stripe works out its tax.
    #[n(2)]
    with_tax: bool,
    /// By the clock as read.
    #[n(3)]
    pub(super) begun_at: Timestamp,
    #[n(4)]
    step: Step,
    /// Stripe is not asked before this.
    #[n(5)]
    ask_at: Timestamp,
    /// Since when Stripe has not said.
    #[n(6)]
    unclear_since: Option<Timestamp>,
    /// What it is paid with.
    #[n(7)]
    pub(super) method: Option<String>,
    /// What is paid, once it is there.
    #[n(8)]
    pub(super) invoice: Option<String>,
    /// Where the customer can pay it.
    #[n(9)]
    pub(super) link: Option<String>,
    /// Stripe has said that it does not take the payment; whether it was paid before, the invoice tells.
    #[n(10)]
    is_refused: bool,
    /// What its invoice comes to, tax included, once it is finalized.
    #[n(11)]
    total: Option<u64>,
    /// Why it ends without having been paid, as soon as its invoice can be paid no more.
    #[n(12)]
    over: Option<Why>,
    /// What the pool had left when it began, what is held of it included.
    #[n(13)]
    pub(super) left: Option<Credits>,
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
    pub bought: TopUpBought,
    pub customer: String,
    pub with_tax: bool,
    pub begun_at: Timestamp,
    pub left: Credits,
    /// There is one before it whose invoice could still be paid.
    pub waits: bool,
}

/// What an answer makes of an attempt.
enum Turn {
    /// It goes on.
    GoOn,
    /// It was paid: this invoice.
    Paid(Box<Invoice>),
    /// It was not, and is over; the customer may still pay it by hand, if it came so far.
    Failed(Why),
    /// It was not, and can be paid no more.
    Gone(Why),
}

impl Account {
    /// What Stripe has to be asked, if anything, and when.
    #[must_use]
    pub fn top_up_ask(&self, clock: Timestamp) -> Option<(Timestamp, Ask)> {
        let asking = self.state.top_up.as_ref()?.asking()?;
        // Much may have happened since that was decided.
        let leave = self.top_up_leave(asking, clock);
        let call = asking.call(&self.profile, &leave, clock)?;
        let asked = asking.asked();
        Some((asking.ask_at, Ask { asked, call }))
    }

    /// When Stripe has to be asked, if it has to be.
    #[must_use]
    pub fn top_up_asks_at(&self) -> Option<Timestamp> {
        let asking = self.state.top_up.as_ref()?.asking()?;
        Some(asking.ask_at)
    }

    /// The invoice that Stripe has to be asked about, if it is there: what is known of its payment is
    /// needed with the answer.
    #[must_use]
    pub fn top_up_invoice(&self) -> Option<&str> {
        self.state.top_up.as_ref()?.asking()?.invoice.as_deref()
    }

    /// Books what Stripe has answered; `known` is what is kept of the payment of the invoice. Late and
    /// repeated answers change nothing.
    pub fn top_up_answered(
        &mut self,
        asked: Asked,
        answer: Result<String, Failure>,
        known: Option<Payment>,
        clock: Timestamp,
    ) -> Changes {
        let mut changes = Changes::default();
        self.book_due(clock, &mut changes);
        let Some(top_up) = self.state.top_up.as_ref() else {
            return changes;
        };
        let leave = match top_up.asking() {
            Some(asking) if asking.asked() == asked => self.top_up_leave(asking, clock),
            _ => return changes,
        };
        let month = self.policy.gateway.calendar.month_of(clock);
        let Some(top_up) = &mut self.state.top_up else {
            return changes;
        };
        let Some(asking) = top_up.asking_mut() else {
            return changes;
        };
        let turn = asking.hear(answer, &leave, clock);
        let bought = asking.bought.clone();
        if let Some(total) = asking.total {
            let price = bought.price;
            top_up.taxed = Some(Taxed {
                month,
                price,
                total,
            });
        }
        changes.snapshot = true;
        let over = match turn {
            Turn::GoOn => None,
            Turn::Paid(invoice) => {
                self.book_payment(known, invoice.sighting(bought), clock, &mut changes);
                None
            }
            Turn::Failed(why) => Some((why, true)),
            Turn::Gone(why) => Some((why, false)),
        };
        if let Some((why, can_be_paid)) = over {
            self.top_up_over(why, can_be_paid, clock, &mut changes);
        }
        self.top_up_waits_no_longer(clock, &mut changes);
        changes
    }

    /// The invoice of a top-up is not what it was, as Stripe has told: it is looked at now, and again soon,
    /// since an answer that is under way may be older.
    pub fn top_up_invoice_changed(&mut self, invoice: &str, clock: Timestamp) -> Changes {
        let mut changes = Changes::default();
        self.book_due(clock, &mut changes);
        let top_up = self.state.top_up.as_mut();
        let asking = top_up.and_then(|top_up| top_up.asking_mut());
        if let Some(asking) = asking
            && asking.step == Step::Look
            && asking.invoice.as_deref() == Some(invoice)
        {
            asking.go_to(Step::Look, clock);
            changes.snapshot = true;
        }
        changes
    }

    /// What Stripe was asked about is over, and nothing was paid.
    fn top_up_over(
        &mut self,
        why: Why,
        can_be_paid: bool,
        clock: Timestamp,
        changes: &mut Changes,
    ) {
        let Some(top_up) = &mut self.state.top_up else {
            return;
        };
        if top_up.unpaid.take_if(|unpaid| unpaid.is_asking()).is_none()
            && let Some(mut attempt) = top_up.attempt.take()
        {
            if why == Why::NoCustomer {
                self.forget_customer(&attempt.customer, changes);
            }
            if !can_be_paid {
                // What is gone is paid by nobody.
                attempt.rest();
                attempt.link = None;
            }
            self.top_up_failed(attempt, why, clock, changes);
        }
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
            .filter(|attempt| attempt.is_waiting())
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
}

impl TopUp {
    /// The attempt that Stripe has to be asked about: one before the present one first.
    fn asking(&self) -> Option<&Attempt> {
        let mut both = self.unpaid.iter().chain(&self.attempt);
        both.find(|attempt| attempt.is_asking())
    }

    fn asking_mut(&mut self) -> Option<&mut Attempt> {
        let mut both = self.unpaid.iter_mut().chain(&mut self.attempt);
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
        let paused_at = self.paused.as_mut().map(|paused| &mut paused.since);
        let moments = [self.begun_at.as_mut(), self.paid_at.as_mut(), paused_at];
        let moments = moments.into_iter().flatten();
        for moment in moments.chain(&mut self.retried_at) {
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
            bought: new.bought,
            customer: new.customer,
            with_tax: new.with_tax,
            begun_at: new.begun_at,
            step: if new.waits {
                Step::Wait
            } else {
                Step::Customer
            },
            ask_at: new.begun_at,
            unclear_since: None,
            method: None,
            invoice: None,
            link: None,
            is_refused: false,
            total: None,
            over: None,
            left: Some(new.left),
        }
    }

    /// How it ended.
    pub(super) fn ended(&self, at: Timestamp, failed: Option<Why>) -> Ended {
        Ended {
            at,
            bought: self.bought.clone(),
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
    pub(super) const fn begin_to_clear(&mut self, clock: Timestamp) {
        self.go_to(Step::Look, clock);
    }

    /// Its number inside its account.
    pub(super) const fn number(&self) -> u32 {
        self.bought.number
    }

    /// What is paid with it, as far as that is known.
    pub(super) fn price(&self) -> Money {
        Money {
            amount: self.total.unwrap_or(self.bought.price.amount),
            ..self.bought.price
        }
    }

    fn is_waiting(&self) -> bool {
        self.step == Step::Wait
    }

    const fn is_asking(&self) -> bool {
        !matches!(self.step, Step::Wait | Step::Rest)
    }

    const fn asked(&self) -> Asked {
        Asked {
            number: self.bought.number,
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

    /// The request of its step. Each has the idempotency key of the attempt, by what it does. Instead of
    /// what would let money move, and may not any more, it is asked how the invoice stands.
    fn call(&self, of: &Profile, leave: &Leave, clock: Timestamp) -> Option<Call> {
        let account = &of.id;
        let key = |what: &str| {
            // An id comes again where somebody has erased the objects, but not a Stripe account.
            let opened = of.created_at.as_millis();
            let number = self.bought.number;
            format!("tollgate-top-up-{account}-{opened}-{number}-{what}")
        };
        let invoice = self.invoice.as_deref().unwrap_or_default();
        Some(match self.step {
            Step::Wait | Step::Rest => return None,
            Step::Customer => stripe::customer(&self.customer),
            Step::Method => stripe::methods(&self.customer),
            Step::Draft => {
                let (bought, with_tax) = (&self.bought, self.with_tax);
                stripe::draft(
                    key("draft"),
                    (account, of.created_at),
                    &self.customer,
                    bought,
                    with_tax,
                )
            }
            Step::Line => stripe::line(key("line"), (&self.customer, invoice), &self.bought),
            Step::Finalize | Step::Pay
                if leave.refuses(self.price()).is_some() || self.is_given_up(clock) =>
            {
                stripe::look(invoice)
            }
            Step::Finalize => stripe::finalize(key("finalize"), invoice),
            Step::Pay => stripe::pay(key("pay"), invoice, self.method.as_deref()),
            Step::Look => stripe::look(invoice),
            // To void it twice is as good as once, and a failure of Stripe's is not to be heard again.
            Step::Void => stripe::void(key(&format!("void-{}", self.ask_at.as_millis())), invoice),
        })
    }

    /// What an answer makes of it; without leave nothing is paid that was not paid before.
    fn hear(&mut self, answer: Result<String, Failure>, leave: &Leave, clock: Timestamp) -> Turn {
        match self.step {
            Step::Wait | Step::Rest => Turn::GoOn,
            Step::Customer | Step::Method | Step::Draft | Step::Line => {
                match leave.refuses(self.price()) {
                    None => self.hear_prepared(answer, clock),
                    Some(why) => Turn::Gone(why),
                }
            }
            Step::Finalize | Step::Pay => self.hear_paid(answer, leave, clock),
            Step::Look => match answer.as_deref().map(Invoice::read) {
                Ok(Some(invoice)) => self.look_at(invoice, leave, clock),
                Err(Failure::Missing) => self.gone(),
                _ => self.wait_at(Step::Look, clock),
            },
            Step::Void => match answer {
                Ok(_) => self.gone(),
                // It was paid at the last moment, or is about to be.
                Err(Failure::Mistake(_) | Failure::Missing) => self.wait_at(Step::Look, clock),
                Err(_) => self.wait_at(Step::Void, clock),
            },
        }
    }

    /// Its invoice can be paid no more.
    fn gone(&mut self) -> Turn {
        Turn::Gone(self.over.take().unwrap_or(Why::Unclear))
    }

    /// Nothing of this moves money.
    fn hear_prepared(&mut self, answer: Result<String, Failure>, clock: Timestamp) -> Turn {
        let body = match answer {
            Ok(body) if self.step == Step::Customer && stripe::is_deleted(&body) => {
                return Turn::Failed(Why::NoCustomer);
            }
            Ok(body) => body,
            Err(Failure::NoCustomer) => return Turn::Failed(Why::NoCustomer),
            Err(Failure::Missing) if matches!(self.step, Step::Customer | Step::Method) => {
                return Turn::Failed(Why::NoCustomer);
            }
            Err(Failure::Unclear(_) | Failure::Busy) => return self.try_again(clock),
            Err(
                Failure::Declined(_)
                | Failure::AuthenticationRequired
                | Failure::Missing
                | Failure::OtherRequest
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
                None => return self.try_again(clock),
            },
            _ => Step::Finalize,
        };
        self.goes_to(next, clock)
    }

    /// Does the same once more, unless it was tried for too long.
    fn try_again(&mut self, clock: Timestamp) -> Turn {
        if self.is_given_up(clock) {
            Turn::Gone(Why::Unclear)
        } else {
            self.wait_at(self.step, clock)
        }
    }

    /// Its invoice is finalized or paid: what is not known of that, the invoice tells.
    fn hear_paid(
        &mut self,
        answer: Result<String, Failure>,
        leave: &Leave,
        clock: Timestamp,
    ) -> Turn {
        match answer {
            Ok(body) => match Invoice::read(&body) {
                Some(invoice) => self.look_at(invoice, leave, clock),
                None => self.wait_at(Step::Look, clock),
            },
            Err(Failure::Declined(code)) => Turn::Failed(Why::Declined(code)),
            Err(Failure::AuthenticationRequired) => Turn::Failed(Why::AuthenticationRequired),
            Err(Failure::Unclear(_) | Failure::Busy) => self.wait_at(Step::Look, clock),
            Err(
                Failure::Missing
                | Failure::NoCustomer
                | Failure::OtherRequest
                | Failure::Mistake(_),
            ) => {
                self.is_refused = true;
                self.goes_to(Step::Look, clock)
            }
        }
    }

    /// What is to be done about an invoice that stands like this.
    fn look_at(&mut self, invoice: Invoice, leave: &Leave, clock: Timestamp) -> Turn {
        if invoice.link.is_some() {
            self.link.clone_from(&invoice.link);
        }
        if invoice.status != InvoiceStatus::Draft {
            self.total = Some(invoice.total);
        }
        let failed = invoice.failed.as_ref().and_then(Why::of);
        let is_late = failed.is_none() && self.is_given_up(clock);
        let refused = leave.refuses(self.price());
        let refused = refused.or(is_late.then_some(Why::Unclear));
        match (invoice.status, refused) {
            (InvoiceStatus::Paid, _) => Turn::Paid(Box::new(invoice)),
            (InvoiceStatus::Void, _) => self.gone(),
            (InvoiceStatus::Open, _) if invoice.is_processing => self.wait_at(Step::Look, clock),
            // Nobody can pay a draft.
            (InvoiceStatus::Draft, Some(why)) => Turn::Gone(why),
            // What the bank has said counts more than why it could not be waited for.
            (InvoiceStatus::Open, Some(why)) => {
                self.over = failed.or(Some(why));
                self.goes_to(Step::Void, clock)
            }
            (status, None) => match (failed, status) {
                (Some(why), _) => Turn::Failed(why),
                (None, _) if self.is_refused => Turn::Failed(Why::Refused),
                (None, InvoiceStatus::Open) => self.go_on_at(Step::Pay, clock),
                (None, _) => self.go_on_at(Step::Finalize, clock),
            },
        }
    }

    /// Goes on at once, and remembers since when Stripe has not said how it came out.
    fn go_on_at(&mut self, step: Step, clock: Timestamp) -> Turn {
        self.step = step;
        self.ask_at = clock;
        Turn::GoOn
    }
}
