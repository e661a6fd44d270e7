//! What an account has to do with payments: what it may be sold, and what comes of it.
//!
//! Stripe says how a payment or a subscription stands, in any order and as often as it likes
//! ([`crate::payments::sighting`]). What is kept of a payment is what was seen of it last and the credits
//! that it brought, and each sighting makes the credits what the money comes to: so the same sighting changes
//! nothing the second time, and whatever order they come in, the end is the same.

use std::collections::BTreeSet;

mod reversal;
mod subscription;
mod task;

use super::{Account, Changes, Rejected, Status};
use crate::{
    credits::Credits,
    event::Event,
    ledger::{EntryKind, NewLot},
    payments::{
        ask::{Ask, Order, Ordered, What},
        history::{Brought, InVain, Payment},
        money::Money,
        sighting::{Progress, Purpose, Sighting},
    },
    policy::Source,
    time::{Span, Timestamp},
    wire::{Decode, Encode},
};
pub(super) use subscription::Subscribed;
pub use task::Task;

/// For so long after a period its lot can still be spent: Stripe makes the next invoice at the period's end,
/// and has it paid about an hour later.
const GRACE: Span = Span::from_seconds(3 * 3_600);
/// A period that is longer is granted month by month.
const LONGEST_MONTH: Span = Span::from_days(35);
/// By so much two periods may overlap that follow each other.
const OVERLAP: Span = Span::from_seconds(3_600);
/// A moment that lies further ahead of the clock comes from one that strayed.
const STRAY: Span = Span::from_seconds(60);

/// What an account knows of its payments. Part of the snapshot; places are only added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Billing {
    /// Its customer at Stripe.
    #[n(0)]
    customer: Option<String>,
    /// Payments that it has heard of: the last one's number.
    #[n(1)]
    payments: u64,
    /// Those of which a dispute is open.
    #[n(2)]
    pub(super) disputed: BTreeSet<u64>,
    /// Paid changes of plan that were told of before the period that they are of, by their payments' names.
    #[cbor(n(3), default)]
    waiting: Vec<String>,
    /// What Stripe has still to be told.
    #[cbor(n(4), default)]
    tasks: task::Tasks,
    /// Subscriptions besides the one that counts, as they were when they did, or as they were paid.
    #[cbor(n(5), default)]
    others: Vec<Subscribed>,
}

impl Account {
    /// What a page at Stripe is to be made for, and for whom.
    ///
    /// # Errors
    /// Why nothing is sold: no such package or plan, or not to this account now.
    pub fn order(&mut self, ask: Ask) -> Result<(Order, Changes), Rejected> {
        let page = match ask.what {
            What::Buy(id) => {
                let package = self.policy.package(&id);
                let package = package.ok_or(Rejected::UnknownPackage(id))?.clone();
                self.may_buy()?;
                Ordered::Package(package)
            }
            What::Subscribe(name) => {
                let plan = super::find_plan(&self.policy, &name)?;
                let price = plan.stripe_price.ok_or(Rejected::NotSold(name))?;
                self.may_buy()?;
                if self
                    .state
                    .subscribed
                    .as_ref()
                    .is_some_and(Subscribed::is_live)
                {
                    return Err(Rejected::AlreadySubscribed);
                }
                Ordered::Plan {
                    name: plan.name,
                    price,
                }
            }
            What::Portal | What::History(_) | What::TopUp(_) => Ordered::Portal,
        };
        let mut changes = Changes::default();
        if let Some(gone) = ask.gone {
            self.forget_customer(&gone, &mut changes);
        }
        if let (None, Some(made)) = (&self.state.billing.customer, ask.made) {
            self.state.billing.customer = Some(made);
            changes.snapshot = true;
        }
        let order = Order {
            page,
            customer: self.state.billing.customer.clone(),
            name: self.profile.name.clone(),
            email: self.profile.email.clone(),
            standing: None,
            opened: Some(self.profile.created_at),
        };
        Ok((order, changes))
    }

    /// Stripe has this customer no more: the next purchase makes another.
    pub(super) fn forget_customer(&mut self, gone: &str, changes: &mut Changes) {
        let customer = &mut self.state.billing.customer;
        if customer.take_if(|customer| customer == gone).is_some() {
            changes.snapshot = true;
        }
    }

    /// Whether anything is sold to this account now.
    ///
    /// # Errors
    /// Why not.
    pub fn may_buy(&self) -> Result<(), Rejected> {
        match &self.profile.status {
            Status::Active => {}
            Status::Suspended { reason } => return Err(Rejected::Suspended(reason.clone())),
            Status::Closed { at } => return Err(Rejected::Closed(*at)),
        }
        if self.state.billing.disputed.is_empty() {
            Ok(())
        } else {
            Err(Rejected::Disputed)
        }
    }

    /// Its customer at Stripe, if it has one.
    #[must_use]
    pub fn customer(&self) -> Option<&str> {
        self.state.billing.customer.as_deref()
    }

    /// The number of the last payment; 0 before the first.
    #[must_use]
    pub const fn payments(&self) -> u64 {
        self.state.billing.payments
    }

    /// Books how a payment stands at Stripe. `known` is what is kept of it, `waiting` of
    /// [`Account::waiting_changes`].
    pub fn payment_sighted(
        &mut self,
        known: Option<Payment>,
        waiting: Vec<Payment>,
        sighting: Sighting,
        clock: Timestamp,
    ) -> (Payment, Changes) {
        let mut changes = Changes::default();
        self.book_due(clock, &mut changes);
        let payment = self.book_payment(known, sighting, clock, &mut changes);
        for late in waiting {
            if late.name != payment.name {
                self.bring_late(late, &mut changes);
            }
        }
        (payment, changes)
    }

    /// The same, with all that is due booked.
    pub(super) fn book_payment(
        &mut self,
        known: Option<Payment>,
        sighting: Sighting,
        clock: Timestamp,
        changes: &mut Changes,
    ) -> Payment {
        let before = known.clone();
        let mut payment = known.unwrap_or_else(|| {
            self.state.billing.payments = self.state.billing.payments.saturating_add(1);
            Payment::new(self.state.billing.payments, self.state.latest, &sighting)
        });
        let reversal = sighting.reversal;
        let has_come = sighting.progress == Progress::Paid && payment.progress != Progress::Paid;
        let gone_before = payment.gone();
        if sighting.progress > payment.progress {
            payment.progress = sighting.progress;
            // Until it is paid, what is to be paid may change.
            payment.total = sighting.total;
            if payment.progress == Progress::Paid {
                self.bring(&mut payment, &sighting, changes);
            }
        }
        payment.papers.add(sighting.papers);
        if let Some(reversal) = reversal
            && is_news(reversal.as_of, payment.reversal.as_of, clock)
        {
            self.reverse(&mut payment, reversal, clock, changes);
        }
        self.settle_up(&mut payment, gone_before, changes);
        if payment.progress == Progress::Paid {
            self.top_up_paid(&payment, has_come, clock, changes);
        }
        if before.as_ref() != Some(&payment) {
            changes.snapshot = true;
            changes.payments.push(payment.clone());
        }
        payment
    }

    /// A payment has come: what it is for comes with it.
    fn bring(&mut self, payment: &mut Payment, sighting: &Sighting, changes: &mut Changes) {
        let brought = match &payment.purpose {
            _ if self.is_closed() => Err(InVain::Closed),
            Purpose::Package(package) => {
                let sold = (package.pool.clone(), package.credits, package.price);
                self.bring_lot(EntryKind::Bought, sold, sighting, changes)
            }
            Purpose::TopUp(bought) => {
                let sold = (bought.pool.clone(), bought.credits, bought.price);
                self.bring_lot(EntryKind::ToppedUp, sold, sighting, changes)
            }
            Purpose::Period(period) => {
                let period = period.clone();
                self.bring_period(&period, &payment.name, changes)
            }
            Purpose::Subscription => self.bring_change(payment, changes),
        };
        self.note_brought(payment, brought, changes);
    }

    fn note_brought(
        &mut self,
        payment: &mut Payment,
        brought: Result<Vec<Brought>, InVain>,
        changes: &mut Changes,
    ) {
        match brought {
            Ok(brought) => payment.brought = brought,
            Err(in_vain) => {
                payment.in_vain = Some(in_vain);
                self.flag(format!("{}: {}", payment.name, in_vain.reason()), changes);
            }
        }
    }

    /// Tells the operator to look at the account.
    pub(super) fn flag(&mut self, reason: String, changes: &mut Changes) {
        let event = Event::AccountFlagged {
            reason,
            key: None,
            restricted_until: None,
        };
        self.emit(&event, self.state.latest, changes);
    }

    fn bring_lot(
        &mut self,
        kind: EntryKind,
        (pool, credits, price): (String, Credits, Money),
        paid: &Sighting,
        changes: &mut Changes,
    ) -> Result<Vec<Brought>, InVain> {
        // Tax may come on top; a discount is none that Tollgate gave.
        let is_exact = paid
            .subtotal
            .is_none_or(|subtotal| subtotal == price.amount)
            && paid.total >= price.amount
            && paid.currency == price.currency;
        if !is_exact {
            return Err(InVain::OtherAmount);
        }
        if !self.state.ledger.has_room_for(&pool, credits) {
            return Err(InVain::NoRoom);
        }
        let lot = NewLot {
            kind,
            pool: &pool,
            source: Source::Extra,
            amount: credits,
            expires_at: None,
            reference: Some(paid.name.clone()),
        };
        let (lot, entry) = self.state.ledger.grant(lot, self.moment(self.state.latest));
        changes.enter(entry);
        Ok(vec![Brought::new(pool, lot, credits)])
    }
}

/// Whether what was seen at `seen` is later than what is known. What a clock that strayed has told does not
/// keep out what comes after it.
fn is_news(seen: Timestamp, known: Timestamp, clock: Timestamp) -> bool {
    seen >= known || known > clock.plus(STRAY)
}
