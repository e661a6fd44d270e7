//! A plan that is bought at Stripe: what of it is paid, and so granted.
//!
//! Stripe tells two things. How the subscription stands says plan, status and billing day, and so the limits. Which
//! invoices were paid says the grants: those of a period, and the difference where a change of plan in its midst
//! is billed. So credits come with the money, also where a customer changes to and fro.

use super::{Billing, GRACE, LONGEST_MONTH, OVERLAP, is_news};
use crate::{
    account::{Account, Changes, Cycle, SubscriptionStatus},
    credits::Credits,
    event::Event,
    ledger::LotNumber,
    payments::{
        history::{Brought, InVain, Payment, Share},
        sighting::{Period, Purpose, Stage, SubscriptionSighting},
    },
    policy::{Grant, Plan, Renews},
    time::{Span, Timestamp},
    wire::{Decode, Encode},
};

/// So many subscriptions are known besides the one that counts.
const OTHERS_MAX: usize = 4;
/// So many paid changes wait for the period that they are of.
const WAITING_MAX: usize = 8;

/// A subscription at Stripe. Part of the snapshot; places are only added.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(in crate::account) struct Subscribed {
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
    /// What was paid for until then. `None`: nothing, or the account's plan, where that was paid before
    /// this was kept.
    #[n(5)]
    paid_for: Option<PaidFor>,
}

/// The plan that was paid for. Part of the snapshot; places are only added.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct PaidFor {
    /// Its name.
    #[n(0)]
    plan: String,
    /// The price at Stripe that it was paid as.
    #[n(1)]
    price: String,
    /// Since when: of several changes in a period the latest counts.
    #[n(2)]
    since: Timestamp,
    /// What is left of the period's money, where some went back.
    #[n(3)]
    share: Option<Share>,
}

/// What is left of a cycle, of the whole of it.
#[derive(Clone, Copy)]
struct Rest {
    left: Span,
    whole: Span,
}

impl Rest {
    /// The share of `credits`, rounded up; all of them where nobody can tell.
    fn of(self, credits: Credits) -> Credits {
        let millis = |span: Span| u128::try_from(span.as_millis()).unwrap_or(0);
        let share = u128::from(credits.get()).saturating_mul(millis(self.left));
        let whole = millis(self.whole);
        let rounded = share
            .saturating_add(whole.saturating_sub(1))
            .checked_div(whole);
        let rounded = rounded.and_then(|share| Credits::new(u64::try_from(share).ok()?));
        rounded.map_or(credits, |share| share.min(credits))
    }
}

/// How a running lot is raised.
struct Raise {
    /// The new plan's allowance.
    to: Credits,
    /// The allowance that was paid before; `None`: what the lot was, since the plan is not known any more.
    from: Option<Credits>,
    /// What of the cycle the difference was paid for.
    rest: Rest,
}

impl Subscribed {
    pub(super) const fn is_live(&self) -> bool {
        match self.stage {
            Stage::Paid | Stage::Ending(_) | Stage::Unpaid => true,
            Stage::Begun | Stage::Ended => false,
        }
    }

    /// Its id at Stripe.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn has_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// Whether `period` comes after what is known to be paid, and not late. One that begins later takes the place of
    /// a longer one, as where somebody changes from years to months: Stripe gives the money for the rest back.
    fn goes_on_with(&self, period: &Period) -> bool {
        match &self.paid_for {
            Some(paid_for) if paid_for.since > Timestamp::EPOCH => {
                period.starts_at >= paid_for.since
            }
            _ => self.paid_until <= period.ends_at,
        }
    }
}

impl Account {
    /// Books how a subscription stands at Stripe.
    pub fn subscription_sighted(
        &mut self,
        sighting: SubscriptionSighting,
        clock: Timestamp,
    ) -> Changes {
        let mut changes = Changes::default();
        self.book_due(clock, &mut changes);
        if self.is_closed() {
            return changes;
        }
        if !self.is_about_this(&sighting, clock) {
            let is_over = sighting.stage == Stage::Ended;
            if is_over && self.state.billing.take_other(&sighting.id).is_some() {
                changes.snapshot = true;
            }
            return changes;
        }
        let mut known = self.state.subscribed.take();
        if let Some(other) = known.take_if(|known| known.id != sighting.id) {
            self.state.billing.note_other(other);
        }
        // Its invoice may have come first.
        let known = known.or_else(|| self.state.billing.take_other(&sighting.id));
        let before = self.profile.clone();
        self.state.subscribed = Some(Subscribed {
            id: sighting.id,
            as_of: sighting.as_of,
            created_at: sighting.created_at,
            stage: sighting.stage,
            paid_until: known
                .as_ref()
                .map_or(Timestamp::EPOCH, |known| known.paid_until),
            paid_for: known.and_then(|known| known.paid_for),
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
            self.keep_what_is_paid();
            self.profile.plan = plan;
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

    /// The plan changes without money: where what was paid for was never written down, it is the plan before.
    fn keep_what_is_paid(&mut self) {
        let plan = &self.profile.plan;
        if let Some(known) = &mut self.state.subscribed
            && known.paid_for.is_none()
            && known.paid_until > Timestamp::EPOCH
        {
            known.paid_for = Some(PaidFor {
                plan: plan.name.clone(),
                price: plan.stripe_price.clone().unwrap_or_default(),
                since: Timestamp::EPOCH,
                share: None,
            });
        }
    }

    /// The operator has put the account on another plan, which needs no invoice.
    pub(in crate::account) fn plan_given(&mut self) {
        let paid_for = self
            .state
            .subscribed
            .as_mut()
            .and_then(|known| known.paid_for.as_mut());
        if let Some(paid_for) = paid_for {
            paid_for.plan.clone_from(&self.profile.plan.name);
        }
    }

    /// A period of a plan was paid: its grants are issued, and what is left of those before ends.
    pub(super) fn bring_period(
        &mut self,
        period: &Period,
        invoice: &str,
        changes: &mut Changes,
    ) -> Result<Vec<Brought>, InVain> {
        let now = self.state.latest;
        let plan = self.plan_paid_by(period).ok_or(InVain::UnknownPlan)?;
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
        let is_running =
            known.is_none_or(|known| known.id != period.subscription || known.goes_on_with(period));
        let mut carried = Vec::new();
        if is_running {
            carried = self.end_cycles_before(period, changes);
            if self.note_paid(period, &plan.name) {
                self.profile.plan = plan.clone();
            }
        }
        let ends_at = self.paid_cycle_end(now, period.ends_at);
        let mut brought = Vec::new();
        for grant in plan.grants {
            if grant.renews == Renews::Never {
                continue;
            }
            let reference = format!("{}/{}@{invoice}", plan.name, grant.pool);
            if let Some((_, lot, rest)) = carried.iter().find(|(pool, ..)| *pool == grant.pool) {
                self.roll_over(&grant, (*lot, *rest), &reference, (now, ends_at), changes);
            }
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
            brought.push(Brought::new(grant.pool, lot, grant.amount));
        }
        self.start_missing_grants(now, changes);
        changes.profile |= before != self.profile;
        Ok(brought)
    }

    /// The plan that a period is of. A price that has left the policy still is that of the subscription's plan, where
    /// the last period was paid as the same.
    fn plan_paid_by(&self, period: &Period) -> Option<Plan> {
        if let Some(plan) = self.policy.plan_sold_as(&period.price) {
            return Some(plan.clone());
        }
        let known = self.state.subscribed.as_ref();
        let known = known.filter(|known| known.id == period.subscription)?;
        let paid_for = known.paid_for.as_ref();
        let paid_for = paid_for.filter(|paid_for| paid_for.price == period.price)?;
        self.plan_named(&paid_for.plan).ok()
    }

    /// Ends the cycles that a paid period takes the place of; what was left of each lot, to be carried over, where
    /// the period follows it.
    fn end_cycles_before(
        &mut self,
        period: &Period,
        changes: &mut Changes,
    ) -> Vec<(String, LotNumber, Credits)> {
        let now = self.state.latest;
        let follows = |ends_at: Timestamp| ends_at <= period.starts_at.plus(OVERLAP);
        // Somebody who pays for two subscriptions at a time has the credits of both.
        let known = self.state.subscribed.iter();
        let has_another = known.chain(&self.state.billing.others).any(|other| {
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
                carried.push((pool.clone(), cycle.lot, rest));
            }
        }
        carried
    }

    /// A period was paid that is not late, and with it the subscription that it is of. Whether nothing but this
    /// tells the plan.
    fn note_paid(&mut self, period: &Period, plan: &str) -> bool {
        let paid_for = Some(PaidFor {
            plan: plan.to_owned(),
            price: period.price.clone(),
            since: period.starts_at,
            share: None,
        });
        match &mut self.state.subscribed {
            Some(known) if known.id == period.subscription => {
                known.paid_until = period.ends_at;
                known.paid_for = paid_for;
                known.as_of == Timestamp::EPOCH
            }
            subscribed => {
                // Whatever is told of it besides counts more.
                let paid = Subscribed {
                    id: period.subscription.clone(),
                    as_of: Timestamp::EPOCH,
                    created_at: Timestamp::EPOCH,
                    stage: Stage::Paid,
                    paid_until: period.ends_at,
                    paid_for,
                };
                let billing = &mut self.state.billing;
                let still_counts =
                    |known: &Subscribed| known.is_live() && known.paid_until > period.starts_at;
                if subscribed.as_ref().is_some_and(still_counts) {
                    billing.note_other(paid);
                    return false;
                }
                billing.take_other(&paid.id);
                if let Some(other) = subscribed.replace(paid) {
                    billing.note_other(other);
                }
                let calendar = self.policy.gateway.calendar;
                self.profile.subscription.billing_day = calendar.day_of_month(period.starts_at);
                self.profile.subscription.status = SubscriptionStatus::Active;
                true
            }
        }
    }

    /// A change of plan was paid that takes effect before its period is over: as Stripe bills the difference for the
    /// rest of the period, the running lots are raised by the difference of the allowances for the rest of it. They are
    /// never lowered: what a period has brought was paid.
    pub(super) fn bring_change(
        &mut self,
        payment: &mut Payment,
        changes: &mut Changes,
    ) -> Result<Vec<Brought>, InVain> {
        let Some(change) = &payment.change else {
            return Ok(Vec::new());
        };
        let period = change.to.clone();
        if self.waits_for_its_period(&period) {
            self.state.billing.wait(&payment.name);
            return Ok(Vec::new());
        }
        let plan = self.plan_paid_by(&period).ok_or(InVain::UnknownPlan)?;
        let now = self.state.latest;
        let is_theirs = |known: &&mut Subscribed| known.id == period.subscription;
        let Some(known) = self.state.subscribed.as_mut().filter(is_theirs) else {
            return Ok(Vec::new());
        };
        if period.ends_at.plus(OVERLAP) < known.paid_until || period.ends_at.plus(GRACE) <= now {
            return Err(InVain::PastPeriod);
        }
        let tells_the_plan = known.as_of == Timestamp::EPOCH;
        let (from, share) = match &known.paid_for {
            // A later one has taken its place.
            Some(paid_for) if paid_for.since > period.starts_at => return Ok(Vec::new()),
            Some(paid_for) => (paid_for.plan.clone(), paid_for.share),
            None => (self.profile.plan.name.clone(), None),
        };
        let paid_until = known.paid_until;
        known.paid_for = Some(PaidFor {
            plan: plan.name.clone(),
            price: period.price,
            since: period.starts_at,
            share,
        });
        if tells_the_plan && self.profile.plan != plan {
            self.profile.plan = plan.clone();
            changes.profile = true;
        }
        let ends_at = self.paid_cycle_end(now, paid_until);
        let before = self.plan_named(&from).ok();
        let changed = (period.starts_at, period.ends_at);
        let mut brought = Vec::new();
        for mut grant in plan.grants {
            if grant.renews == Renews::Never {
                continue;
            }
            let mut latest = self.state.cycles.iter().rev();
            let running = latest.find(|cycle| cycle.pool == grant.pool);
            if let Some(cycle) = running.cloned() {
                let reference = format!("plan {from} to {}@{}", plan.name, payment.name);
                let granted_before = before.as_ref().map(|plan| allowance(plan, &grant.pool));
                let raise = Raise {
                    to: grant.amount,
                    from: granted_before,
                    rest: self.rest_of(&cycle, changed),
                };
                let raised = self.raise_lot(&cycle, raise, &reference, changes);
                if !raised.is_zero() {
                    brought.push(Brought::new(grant.pool, cycle.lot, raised));
                }
            } else {
                let reference = format!("{}/{}@{}", plan.name, grant.pool, payment.name);
                if let Some(cycle) = self.state.cycles.first() {
                    grant.amount = self.rest_of(cycle, changed).of(grant.amount);
                }
                let lot = self.start_cycle(&grant, reference, (now, ends_at), changes);
                brought.push(Brought::new(grant.pool, lot, grant.amount));
            }
        }
        if let Some(change) = &mut payment.change {
            change.from = Some(from);
        }
        self.start_missing_grants(now, changes);
        changes.snapshot = true;
        Ok(brought)
    }

    /// What is left of a running cycle from a change on that is paid until the end of its period.
    fn rest_of(&self, cycle: &Cycle, (changed_at, paid_until): (Timestamp, Timestamp)) -> Rest {
        let book = self.state.ledger.book(&cycle.pool);
        let lot = book.and_then(|book| book.lot(cycle.lot));
        let ends_at = cycle.ends_at.min(paid_until);
        let whole = lot.map_or(Span::ZERO, |lot| ends_at.since(lot.granted_at));
        Rest {
            left: ends_at.since(changed_at).min(whole),
            whole,
        }
    }

    /// Raises a running lot by the rest's share of the difference, and to no more than the new allowance, less what was
    /// taken back of it: by how much.
    fn raise_lot(
        &mut self,
        cycle: &Cycle,
        raise: Raise,
        reference: &str,
        changes: &mut Changes,
    ) -> Credits {
        let lot = self.state.ledger.book(&cycle.pool);
        let Some(before) = lot
            .and_then(|book| book.lot(cycle.lot))
            .map(|lot| lot.amount)
        else {
            return Credits::ZERO;
        };
        let from = raise.from.unwrap_or(before);
        let difference = raise.rest.of(raise.to.saturating_sub(from));
        let most = raise.to.saturating_sub(cycle.taken);
        let amount = before.saturating_add(difference).min(most).max(before);
        let moment = self.moment(self.state.latest);
        let entry = self
            .state
            .ledger
            .set_amount(&cycle.pool, cycle.lot, amount, reference, moment);
        let raised = entry.as_ref().map_or(0, |entry| entry.credits);
        if let Some(entry) = entry {
            changes.enter(entry);
        }
        let raised = u64::try_from(raised).ok().and_then(Credits::new);
        raised.unwrap_or(Credits::ZERO)
    }

    /// Whether a paid change was told of before the invoice of the period that it is of.
    fn waits_for_its_period(&self, change: &Period) -> bool {
        match &self.state.subscribed {
            Some(known) if known.id == change.subscription => {
                known.paid_until.plus(OVERLAP) < change.ends_at
            }
            Some(known) => !known.is_live(),
            None => true,
        }
    }

    /// Paid changes of plan that wait for the period that they are of, by their payments' names.
    #[must_use]
    pub fn waiting_changes(&self) -> &[String] {
        &self.state.billing.waiting
    }

    /// Brings what such a change is for, if its period was paid meanwhile.
    pub(super) fn bring_late(&mut self, mut payment: Payment, changes: &mut Changes) {
        let waits = payment
            .change
            .as_ref()
            .is_some_and(|change| self.waits_for_its_period(&change.to));
        if waits {
            return;
        }
        let waiting = &mut self.state.billing.waiting;
        waiting.retain(|name| *name != payment.name);
        changes.snapshot = true;
        let brought = self.bring_change(&mut payment, changes);
        self.note_brought(&mut payment, brought, changes);
        self.settle_up(&mut payment, 0, changes);
        changes.payments.push(payment);
    }

    /// Makes what is paid for what is left of the money of a payment that has paid for it.
    pub(super) fn count_what_is_left(&mut self, payment: &Payment, changes: &mut Changes) {
        let Some(known) = &mut self.state.subscribed else {
            return;
        };
        let before = known.paid_for.clone();
        let share = (payment.gone() > 0).then(|| payment.share());
        match (&payment.purpose, &payment.change, &mut known.paid_for) {
            (Purpose::Period(period), _, paid_for)
                if period.subscription == known.id && period.ends_at == known.paid_until =>
            {
                if let Some(paid_for) = paid_for {
                    paid_for.share = share;
                } else if share.is_some() {
                    *paid_for = Some(PaidFor {
                        plan: self.profile.plan.name.clone(),
                        price: period.price.clone(),
                        since: period.starts_at,
                        share,
                    });
                }
            }
            (_, Some(change), Some(paid_for))
                if change.to.subscription == known.id && change.to.starts_at == paid_for.since =>
            {
                let is_all_gone = payment.total > 0 && payment.gone() == payment.total;
                let to = self.policy.plan_sold_as(&change.to.price);
                let plan = if is_all_gone {
                    change.from.as_deref()
                } else {
                    to.map(|plan| plan.name.as_str())
                };
                if let Some(plan) = plan {
                    plan.clone_into(&mut paid_for.plan);
                }
            }
            _ => return,
        }
        if known.paid_for != before {
            changes.snapshot = true;
            self.start_missing_grants(self.state.latest, changes);
        }
    }

    /// A grant of the account's plan as far as it is paid, where the plan is bought; `None` if it is not at all. What
    /// went back of the money is not taken off.
    pub(in crate::account) fn paid_grant(&self, grant: &Grant) -> Option<Grant> {
        let mut grant = grant.clone();
        let Some(known) = self.bought() else {
            return Some(grant);
        };
        let Some(paid_for) = &known.paid_for else {
            return (known.paid_until > Timestamp::EPOCH).then_some(grant);
        };
        if paid_for.plan == self.profile.plan.name {
            return Some(grant);
        }
        if grant.renews == Renews::Never {
            return None;
        }
        // A plan that is gone from the policy is not known any more.
        if let Some(paid) = self.policy.plans.get(&paid_for.plan) {
            let mut paid = paid.grants.iter();
            let paid = paid.find(|paid| paid.renews != Renews::Never && paid.pool == grant.pool)?;
            grant.amount = grant.amount.min(paid.amount);
        }
        Some(grant)
    }

    /// What is left of a recurring grant of a period of which money went back; `None` if nothing is.
    pub(in crate::account) fn kept_grant(&self, mut grant: Grant) -> Option<Grant> {
        let paid_for = self.bought().and_then(|known| known.paid_for.as_ref());
        if let Some(share) = paid_for.and_then(|paid_for| paid_for.share) {
            grant.amount = share.of(grant.amount);
            return (!grant.amount.is_zero()).then_some(grant);
        }
        Some(grant)
    }

    /// The subscription, where the plan is bought by it.
    fn bought(&self) -> Option<&Subscribed> {
        let subscribed = self.state.subscribed.as_ref()?;
        let is_sold = self.profile.plan.stripe_price.is_some();
        (is_sold && subscribed.is_live()).then_some(subscribed)
    }

    /// Until when the plan is paid at Stripe, where its grants are issued by paid invoices and not by the
    /// clock.
    pub(in crate::account) fn paid_until(&self) -> Option<Timestamp> {
        self.bought().map(|subscribed| subscribed.paid_until)
    }

    /// The end of a cycle that starts at `at` in what is paid until `paid_until`: of its period, or of a month
    /// of it.
    pub(in crate::account) fn paid_cycle_end(
        &self,
        at: Timestamp,
        paid_until: Timestamp,
    ) -> Timestamp {
        if paid_until.since(at) <= LONGEST_MONTH {
            return paid_until.plus(GRACE);
        }
        let day = self.profile.subscription.billing_day;
        self.policy.gateway.calendar.next_billing(at, day)
    }
}

impl Billing {
    /// Keeps what is known of a subscription that does not count, or not any more, unless it is over.
    fn note_other(&mut self, other: Subscribed) {
        self.others.retain(|known| known.id != other.id);
        if other.is_live() {
            if self.others.len() >= OTHERS_MAX {
                self.others.remove(0);
            }
            self.others.push(other);
        }
    }

    fn take_other(&mut self, id: &str) -> Option<Subscribed> {
        let at = self.others.iter().position(|known| known.id == id)?;
        Some(self.others.remove(at))
    }

    fn wait(&mut self, payment: &str) {
        if self.waiting.iter().all(|waiting| waiting != payment) {
            if self.waiting.len() >= WAITING_MAX {
                self.waiting.remove(0);
            }
            self.waiting.push(payment.to_owned());
        }
    }
}

/// What `plan` grants of `pool` in each cycle.
fn allowance(plan: &Plan, pool: &str) -> Credits {
    let mut grants = plan.grants.iter();
    let grant = grants.find(|grant| grant.is_recurring() && grant.pool == pool);
    grant.map_or(Credits::ZERO, |grant| grant.amount)
}
