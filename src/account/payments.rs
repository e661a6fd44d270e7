//! What an account has to do with payments: what it may be sold, and what comes of it.
//!
//! Stripe says how a payment or a subscription stands, in any order and as often as it likes
//! ([`crate::payments::sighting`]). What is kept of a payment is what was seen of it last and the credits
//! that it brought, and each sighting makes the credits what the money comes to: so the same sighting changes
//! nothing the second time, and whatever order they come in, the end is the same.

use std::collections::BTreeSet;

use super::{Account, Changes, Cycle, Rejected, Status, SubscriptionStatus};
use crate::{
    credits::Credits,
    event::Event,
    ledger::{EntryKind, Lot, NewLot},
    payments::{
        ask::{Ask, Order, Ordered, What},
        history::{Brought, InVain, Payment},
        money::Money,
        sighting::{Period, Progress, Purpose, Reversal, Sighting, Stage, SubscriptionSighting},
    },
    policy::{Renews, Source},
    time::{Span, Timestamp},
    wire::{Decode, Encode},
};

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
}

/// A subscription at Stripe. Part of the snapshot; places are only added.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Subscribed {
    #[n(0)]
    id: String,
    /// The moment that `stage` is of.
    #[n(1)]
    as_of: Timestamp,
    #[n(2)]
    created_at: Timestamp,
    #[n(3)]
    stage: Stage,
    /// The end of the last period that was paid.
    #[n(4)]
    paid_until: Timestamp,
}

impl Subscribed {
    const fn is_live(&self) -> bool {
        match self.stage {
            Stage::Paid | Stage::Ending(_) | Stage::Unpaid => true,
            Stage::Begun | Stage::Ended => false,
        }
    }
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
        };
        Ok((order, changes))
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

    /// Books how a payment stands at Stripe. `known` is what is kept of it.
    pub fn payment_sighted(
        &mut self,
        known: Option<Payment>,
        sighting: Sighting,
        clock: Timestamp,
    ) -> (Payment, Changes) {
        let mut changes = Changes::default();
        self.book_due(clock, &mut changes);
        let payment = self.book_payment(known, sighting, clock, &mut changes);
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
            Purpose::Subscription => Ok(Vec::new()),
        };
        match brought {
            Ok(brought) => payment.brought = brought,
            Err(in_vain) => {
                payment.in_vain = Some(in_vain);
                self.flag(format!("{}: {}", payment.name, in_vain.reason()), changes);
            }
        }
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
        Ok(vec![Brought {
            pool,
            lot,
            credits,
            taken: Credits::ZERO,
            short: Credits::ZERO,
        }])
    }

    /// What has gone back of a payment, as of now.
    fn reverse(
        &mut self,
        payment: &mut Payment,
        reversal: Reversal,
        clock: Timestamp,
        changes: &mut Changes,
    ) {
        payment.reversal = reversal;
        let disputed = &mut self.state.billing.disputed;
        if reversal.is_open {
            if disputed.insert(payment.number) {
                self.flag(
                    format!("{}: the payment is disputed", payment.name),
                    changes,
                );
                self.top_up_disputed(clock, changes);
            }
        } else if disputed.remove(&payment.number) && reversal.disputed == 0 {
            self.top_up_undisputed(changes);
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

    /// Makes the credits that a payment brought what its money comes to.
    fn settle_up(&mut self, payment: &mut Payment, gone_before: u64, changes: &mut Changes) {
        let now = self.state.latest;
        let went_back = Money {
            amount: payment.gone().saturating_sub(gone_before),
            currency: payment.currency,
        };
        // A period's credits end with it: then there is nothing to take or to give back.
        let is_for_good = payment.purpose.is_for_good();
        let gone: Vec<Credits> = payment
            .brought
            .iter()
            .map(|brought| payment.gone_of(brought.credits))
            .collect();
        for (brought, gone) in payment.brought.iter_mut().zip(gone) {
            let lot = self.state.ledger.book(&brought.pool);
            let lot = lot.and_then(|book| book.lot(brought.lot));
            let left = lot.map_or(Credits::ZERO, Lot::available);
            let stands = lot.is_some_and(|lot| lot.expires_at.is_none_or(|at| at > now));
            if !is_for_good && !stands {
                continue;
            }
            let mut change = |account: &mut Self, kind, credits: Credits, is_taken: bool| {
                if !credits.is_zero() {
                    let moment = account.moment(now);
                    let entry = account.state.ledger.change_amount(
                        (&brought.pool, brought.lot),
                        (credits, is_taken),
                        kind,
                        &payment.name,
                        moment,
                    );
                    changes.enter(entry);
                }
            };
            let to_take = gone.saturating_sub(brought.taken);
            let short = to_take.saturating_sub(left);
            change(
                self,
                EntryKind::TakenBack,
                to_take.saturating_sub(short),
                true,
            );
            change(self, EntryKind::Shortfall, short, true);
            let to_give = brought.taken.saturating_sub(gone);
            change(self, EntryKind::GivenBack, to_give, false);
            brought.taken = gone;
            brought.short = brought.short.saturating_add(short).saturating_sub(to_give);
            if !to_take.is_zero() {
                let event = Event::PaymentRefunded {
                    pool: brought.pool.clone(),
                    credits: to_take.saturating_sub(short),
                    shortfall: short,
                    price: went_back.to_string(),
                    payment: payment.name.clone(),
                };
                self.emit(&event, now, changes);
            }
        }
    }

    /// Books how a subscription stands at Stripe.
    pub fn subscription_sighted(
        &mut self,
        sighting: SubscriptionSighting,
        clock: Timestamp,
    ) -> Changes {
        let mut changes = Changes::default();
        self.book_due(clock, &mut changes);
        if self.is_closed() || !self.is_about_this(&sighting, clock) {
            return changes;
        }
        let paid_until = match &self.state.subscribed {
            Some(known) if known.id == sighting.id => known.paid_until,
            _ => Timestamp::EPOCH,
        };
        let before = self.profile.clone();
        self.state.subscribed = Some(Subscribed {
            id: sighting.id,
            as_of: sighting.as_of,
            created_at: sighting.created_at,
            stage: sighting.stage,
            paid_until,
        });
        let calendar = self.policy.gateway.calendar;
        self.profile.subscription.billing_day = calendar.day_of_month(sighting.anchor);
        self.profile.subscription.status = match sighting.stage {
            Stage::Paid => SubscriptionStatus::Active,
            Stage::Ending(at) => SubscriptionStatus::Cancelled(at),
            Stage::Begun | Stage::Unpaid | Stage::Ended => SubscriptionStatus::Lapsed,
        };
        // What is not paid, one is not on.
        if matches!(sighting.stage, Stage::Paid | Stage::Ending(_))
            && let Some(plan) = self.policy.plan_sold_as(&sighting.price).cloned()
            && plan != self.profile.plan
        {
            self.change_plan(plan, &mut changes);
        }
        self.start_missing_grants(self.state.latest, &mut changes);
        changes.profile |= before != self.profile;
        changes.snapshot = true;
        changes
    }

    /// Whether a sighting is of the subscription that counts, and not older than what is known.
    fn is_about_this(&self, sighting: &SubscriptionSighting, clock: Timestamp) -> bool {
        let is_live = match sighting.stage {
            Stage::Paid | Stage::Ending(_) | Stage::Unpaid => true,
            Stage::Begun | Stage::Ended => false,
        };
        match &self.state.subscribed {
            Some(known) if known.id == sighting.id => is_news(sighting.as_of, known.as_of, clock),
            // Of two that somebody has paid for, the later one.
            Some(known) if known.is_live() => is_live && sighting.created_at > known.created_at,
            Some(_) | None => is_live,
        }
    }

    /// A period of a plan was paid: its grants are issued, and what is left of those before ends.
    fn bring_period(
        &mut self,
        period: &Period,
        invoice: &str,
        changes: &mut Changes,
    ) -> Result<Vec<Brought>, InVain> {
        let now = self.state.latest;
        let plan = self.policy.plan_sold_as(&period.price).cloned();
        let plan = plan.ok_or(InVain::UnknownPlan)?;
        if period.ends_at.plus(GRACE) <= now {
            return Err(InVain::PastPeriod);
        }
        let has_room = |pool: &str, amount| self.state.ledger.has_room_for(pool, amount);
        if !plan
            .grants
            .iter()
            .all(|grant| has_room(&grant.pool, grant.amount))
        {
            return Err(InVain::NoRoom);
        }
        let before = self.profile.clone();
        let known = self.state.subscribed.as_ref();
        let is_running = known.is_none_or(|known| {
            known.id != period.subscription || known.paid_until <= period.ends_at
        });
        let mut carried = Vec::new();
        if is_running {
            carried = self.end_cycles_before(period, changes);
            if self.note_paid(period) && plan != self.profile.plan {
                self.change_plan(plan.clone(), changes);
            }
        }
        let ends_at = self.paid_cycle_end(now, period.ends_at);
        let mut brought = Vec::new();
        for grant in plan.grants {
            if grant.renews == Renews::Never {
                continue;
            }
            let reference = format!("{}/{}@{invoice}", plan.name, grant.pool);
            let left = carried.iter().find(|(pool, _)| *pool == grant.pool);
            let rest = left.map_or(Credits::ZERO, |(_, rest)| *rest);
            self.roll_over(&grant, rest, &reference, (now, ends_at), changes);
            let lot = self.start_cycle(&grant, reference, (now, ends_at), changes);
            if !is_running {
                // Its invoice comes late: the cycle that runs is another's.
                self.state.cycles.pop();
            }
            let event = Event::CreditsRenewed {
                pool: grant.pool.clone(),
                credits: grant.amount,
                renews_at: self.renews_at(&grant.pool),
            };
            self.emit(&event, now, changes);
            brought.push(Brought {
                pool: grant.pool,
                lot,
                credits: grant.amount,
                taken: Credits::ZERO,
                short: Credits::ZERO,
            });
        }
        self.start_missing_grants(now, changes);
        changes.profile |= before != self.profile;
        Ok(brought)
    }

    /// Ends the cycles that a paid period takes the place of; what was left of each, to be carried over, where
    /// the period follows it.
    fn end_cycles_before(
        &mut self,
        period: &Period,
        changes: &mut Changes,
    ) -> Vec<(String, Credits)> {
        let now = self.state.latest;
        let follows = |ends_at: Timestamp| ends_at <= period.starts_at.plus(OVERLAP);
        // Somebody who pays for two subscriptions at a time has the credits of both.
        let has_another = self.state.subscribed.as_ref().is_some_and(|other| {
            other.id != period.subscription && other.is_live() && !follows(other.paid_until)
        });
        let mut carried = Vec::new();
        for cycle in std::mem::take(&mut self.state.cycles) {
            let Cycle { pool, ends_at, .. } = &cycle;
            if has_another && !follows(ends_at.minus(GRACE)) {
                continue;
            }
            let rest = self.expire_cycle(&cycle, now, changes);
            if follows(ends_at.minus(GRACE)) {
                carried.push((pool.clone(), rest));
            }
        }
        carried
    }

    /// A period was paid, and with it the subscription that it is of. Whether nothing but this tells the
    /// plan.
    fn note_paid(&mut self, period: &Period) -> bool {
        match &mut self.state.subscribed {
            Some(known) if known.id == period.subscription => {
                known.paid_until = known.paid_until.max(period.ends_at);
                known.as_of == Timestamp::EPOCH
            }
            Some(known) if known.is_live() && known.paid_until > period.starts_at => false,
            subscribed => {
                // Whatever is told of it besides counts more.
                *subscribed = Some(Subscribed {
                    id: period.subscription.clone(),
                    as_of: Timestamp::EPOCH,
                    created_at: Timestamp::EPOCH,
                    stage: Stage::Paid,
                    paid_until: period.ends_at,
                });
                let calendar = self.policy.gateway.calendar;
                self.profile.subscription.billing_day = calendar.day_of_month(period.starts_at);
                self.profile.subscription.status = SubscriptionStatus::Active;
                true
            }
        }
    }

    /// Until when the plan is paid at Stripe, where its grants are issued by paid invoices and not by the
    /// clock.
    pub(super) fn paid_until(&self) -> Option<Timestamp> {
        let subscribed = self.state.subscribed.as_ref()?;
        let is_sold = self.profile.plan.stripe_price.is_some();
        (is_sold && subscribed.is_live()).then_some(subscribed.paid_until)
    }

    /// The end of a cycle that starts at `at` in what is paid until `paid_until`: of its period, or of a month
    /// of it.
    pub(super) fn paid_cycle_end(&self, at: Timestamp, paid_until: Timestamp) -> Timestamp {
        if paid_until.since(at) <= LONGEST_MONTH {
            return paid_until.plus(GRACE);
        }
        let day = self.profile.subscription.billing_day;
        self.policy.gateway.calendar.next_billing(at, day)
    }
}

/// Whether what was seen at `seen` is later than what is known. What a clock that strayed has told does not
/// keep out what comes after it.
fn is_news(seen: Timestamp, known: Timestamp, clock: Timestamp) -> bool {
    seen >= known || known > clock.plus(STRAY)
}
