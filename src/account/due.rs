//! What falls due by the clock: cycles that end, lots that expire, holds that nobody ended.

use super::{Account, Changes, Cycle, SubscriptionStatus, settle::Ending};
use crate::{
    call::{Call, CallState},
    credits::Credits,
    event::Event,
    id::{CallNumber, KeyNumber},
    ledger::{EntryKind, Lot, LotNumber, NewLot, Part, Spending},
    policy::{Grant, Mode, Renews, Source},
    price::{Mark, OnUnknown},
    status::Counts,
    time::{Span, Timestamp},
};

/// The share of a key's calls in a day that may end unknown and be forgiven, if that is more
/// than `forgive_per_day`: 1 in this many.
const FORGIVEN_ONE_IN: u32 = 100;

/// Whose time is up. Between these, lots expire.
enum Due {
    Hold(CallNumber),
    Cycle(usize),
}

impl Account {
    /// Books everything that has fallen due by `clock`, each dated at its moment and in their
    /// order, and moves the latest time seen. Every command starts with it.
    pub(super) fn book_due(&mut self, clock: Timestamp, changes: &mut Changes) {
        self.clock = clock;
        let booked = self.state.latest;
        self.state.latest = booked.max(clock);
        if clock < self.state.latest {
            self.forget_stray(clock, changes);
        }
        let had_cancelled = self.state.cancelled.len();
        self.state.cancelled.retain(|(_, until)| *until > clock);
        changes.snapshot |= self.state.cancelled.len() != had_cancelled;
        // Of several renewals of a pool, the last is news; the ledger has the others.
        let mut renewed: Vec<(Grant, Timestamp)> = Vec::new();
        while let Some((at, due)) = self.next_due(clock) {
            // At the same moment a lot comes last, so that what a hold gives back is there to be
            // carried over or to expire.
            let just_before = at.minus(Span::from_millis(1));
            self.expire_lots(just_before, changes);
            match due {
                Due::Hold(call) => {
                    // What falls due at the same moment is not booked yet.
                    self.end_unknown(call, at, booked.max(just_before), changes);
                    self.watch_spending(clock, changes);
                }
                Due::Cycle(index) => {
                    if let Some(grant) = self.end_cycle(index, changes) {
                        renewed.retain(|(other, _)| other.pool != grant.pool);
                        renewed.push((grant, at));
                    }
                }
            }
        }
        self.expire_lots(self.state.latest, changes);
        for (grant, at) in renewed {
            let event = Event::CreditsRenewed {
                renews_at: self.renews_at(&grant.pool),
                pool: grant.pool,
                credits: grant.amount,
            };
            self.emit(&event, at, changes);
        }
    }

    fn expire_lots(&mut self, until: Timestamp, changes: &mut Changes) {
        let calls_before = self.state.calls_admitted;
        for entry in self.state.ledger.expire_due(until, calls_before) {
            changes.enter(entry);
        }
    }

    /// The next hold or cycle whose time is up; at the same moment a hold comes first.
    fn next_due(&self, clock: Timestamp) -> Option<(Timestamp, Due)> {
        let hold = self
            .deadlines
            .first()
            .filter(|(deadline, _)| *deadline <= clock)
            .map(|(deadline, call)| (*deadline, 0_u8, Due::Hold(*call)));
        let cycle = self
            .state
            .cycles
            .iter()
            .enumerate()
            .min_by_key(|(_, cycle)| cycle.ends_at)
            .filter(|(_, cycle)| cycle.ends_at <= self.state.latest)
            .map(|(index, cycle)| (cycle.ends_at, 1, Due::Cycle(index)));
        [hold, cycle]
            .into_iter()
            .flatten()
            .min_by_key(|(at, rank, _)| (*at, *rank))
            .map(|(at, _, due)| (at, due))
    }

    /// The clock has stepped back: limits and deadlines must not wait for it to catch up.
    fn forget_stray(&mut self, clock: Timestamp, changes: &mut Changes) {
        let mut strayed = self.state.account_minute.forget_stray(clock);
        for usage in self.state.usage.values_mut() {
            strayed |= usage.minute.forget_stray(clock);
        }

        let hold = self.policy.gateway.hold;
        let late: Vec<(Timestamp, CallNumber)> = self.deadlines.iter().rev().copied().collect();
        for (deadline, number) in late {
            let Some(call) = self.open.get_mut(&number) else {
                continue;
            };
            let longest = call
                .hold
                .terms
                .job
                .filter(|_| call.is_job())
                .map_or(hold, |job| job.settle_within);
            let latest = clock.plus(longest);
            if deadline > latest {
                strayed = true;
                call.hold.deadline = latest;
                self.state
                    .brought_forward
                    .insert(number, (latest, call.is_job()));
                self.deadlines.remove(&(deadline, number));
                self.deadlines.insert((latest, number));
            }
        }
        let month = self.policy.gateway.calendar.month_of(clock);
        if let Some(top_up) = &mut self.state.top_up {
            strayed |= top_up.forget_stray(clock, month);
        }
        strayed |= self.bring_tasks_forward(clock);
        // Without a snapshot every wake-up would find the stray times in the rows again.
        changes.snapshot |= strayed;
    }

    /// A recurring grant's cycle is over: what is left expires, apart from what is carried over,
    /// and the next cycle's grant is issued, if the plan still has one and is paid. Gives that one.
    fn end_cycle(&mut self, index: usize, changes: &mut Changes) -> Option<Grant> {
        if index >= self.state.cycles.len() {
            return None;
        }
        let cycle = self.state.cycles.swap_remove(index);
        let at = cycle.ends_at;
        let rest = self.expire_cycle(&cycle, at, changes);
        changes.snapshot = true;
        let grant = self
            .recurring_grant(&cycle.pool)
            .filter(|_| self.is_granting_by_the_clock(at))?;
        let reference = self.grant_reference(&grant, at);
        let ends_at = self.cycle_end(grant.renews, at);
        // First, so that of two lots with the same end it is the older one, and spent first.
        self.roll_over(
            &grant,
            (cycle.lot, rest),
            &reference,
            (at, ends_at),
            changes,
        );
        self.start_cycle(&grant, reference, (at, ends_at), changes);
        Some(grant)
    }

    /// Expires what is left of a cycle's lot: how much that was.
    pub(super) fn expire_cycle(
        &mut self,
        cycle: &Cycle,
        at: Timestamp,
        changes: &mut Changes,
    ) -> Credits {
        let rest = self
            .state
            .ledger
            .book(&cycle.pool)
            .and_then(|book| book.lot(cycle.lot))
            .map_or(Credits::ZERO, Lot::available);
        let moment = self.moment(at);
        if let Some(entry) = self.state.ledger.expire(&cycle.pool, cycle.lot, moment) {
            changes.enter(entry);
        }
        rest
    }

    /// Carries over what `grant` allows of the `rest` of the lot of the cycle before, into the one that runs from
    /// `at` until `ends_at`.
    pub(super) fn roll_over(
        &mut self,
        grant: &Grant,
        (from, rest): (LotNumber, Credits),
        reference: &str,
        (at, ends_at): (Timestamp, Timestamp),
        changes: &mut Changes,
    ) {
        let carried = grant.rollover.min(rest);
        if carried.is_zero() {
            return;
        }
        let moment = self.moment(at);
        let (lot, entry) = self.state.ledger.grant(
            NewLot {
                kind: EntryKind::RolledOver,
                pool: &grant.pool,
                source: Source::Subscription,
                amount: carried,
                expires_at: Some(ends_at),
                reference: Some(reference.to_owned()),
            },
            moment,
        );
        self.state.ledger.carried_over(&grant.pool, lot, from);
        changes.enter(entry);
    }

    /// Issues a recurring grant for the cycle that runs from `at`, or did before, until `ends_at`.
    pub(super) fn start_cycle(
        &mut self,
        grant: &Grant,
        reference: String,
        (at, ends_at): (Timestamp, Timestamp),
        changes: &mut Changes,
    ) -> LotNumber {
        let reference = Some(reference);
        let moment = self.moment(at);
        let (lot, entry) = self.state.ledger.grant(
            NewLot {
                kind: EntryKind::Renewed,
                pool: &grant.pool,
                source: Source::Subscription,
                amount: grant.amount,
                expires_at: Some(ends_at),
                reference,
            },
            moment,
        );
        changes.enter(entry);
        self.state.cycles.push(Cycle {
            pool: grant.pool.clone(),
            lot,
            renews: grant.renews,
            ends_at,
            taken: Credits::ZERO,
        });
        lot
    }

    /// `plan/pool@start of the period`: the same period always has the same.
    pub(super) fn grant_reference(&self, grant: &Grant, at: Timestamp) -> String {
        format!(
            "{}/{}@{}",
            self.profile.plan.name,
            grant.pool,
            at.to_rfc3339()
        )
    }

    pub(super) fn cycle_end(&self, renews: Renews, at: Timestamp) -> Timestamp {
        if let Some(paid_until) = self.paid_until() {
            return self.paid_cycle_end(at, paid_until);
        }
        let day = match renews {
            Renews::Monthly => self.profile.subscription.billing_day,
            Renews::CalendarMonth | Renews::Never => 1,
        };
        self.policy.gateway.calendar.next_billing(at, day)
    }

    /// The recurring grant for `pool` that comes next: the plan's, as far as it is paid.
    pub(super) fn recurring_grant(&self, pool: &str) -> Option<Grant> {
        self.kept_grant(self.whole_grant(pool)?)
    }

    /// The same, whatever went back of the money.
    pub(super) fn whole_grant(&self, pool: &str) -> Option<Grant> {
        let mut grants = self.profile.plan.grants.iter();
        let grant = grants.find(|grant| grant.is_recurring() && grant.pool == pool)?;
        self.paid_grant(grant)
    }

    /// Whether the plan grants anything. A closed account gets no further grant, and neither does a
    /// cancelled subscription, also while it is still active.
    pub(super) fn is_granting(&self) -> bool {
        let is_paid = self.profile.subscription.status == SubscriptionStatus::Active;
        !self.is_closed() && (is_paid || !self.profile.plan.paid)
    }

    /// Whether a recurring grant that is due at `at` is issued by the clock alone: not before its invoice is
    /// paid, where the plan is bought.
    pub(super) fn is_granting_by_the_clock(&self, at: Timestamp) -> bool {
        match self.paid_until() {
            Some(paid_until) => !self.is_closed() && at < paid_until,
            None => self.is_granting(),
        }
    }

    /// When the pool's recurring grant comes next, if it will.
    pub(super) fn renews_at(&self, pool: &str) -> Option<Timestamp> {
        let (cycle, _) = self.renewal(pool)?;
        // A paid period ends before its lot does.
        let paid_until = self.paid_until().unwrap_or(cycle.ends_at);
        Some(cycle.ends_at.min(paid_until))
    }

    /// What the pool can spend at `at`, before its grant could renew twice, if nothing happens until
    /// then but what falls due: lots expire, and the grant renews.
    pub(super) fn available_at(&self, pool: &str, at: Timestamp) -> Credits {
        let Some(book) = self.state.ledger.book(pool) else {
            return Credits::ZERO;
        };
        let spending = self.spending(pool, at);
        let is_left = |lot: &&Lot| {
            let stands = lot.expires_at.is_none_or(|expires_at| expires_at > at);
            stands && spending.allows(lot)
        };
        let kept = book
            .lots
            .iter()
            .filter(is_left)
            .fold(Credits::ZERO, |sum, lot| {
                sum.saturating_add(lot.available())
            });
        // Nothing of a pool that is gone from the policy can be spent.
        match self.renewal(pool) {
            Some((cycle, grant)) if cycle.ends_at <= at && spending.pool.is_some() => {
                let rest = book.lot(cycle.lot).map_or(Credits::ZERO, Lot::available);
                kept.saturating_add(grant.amount)
                    .saturating_add(grant.rollover.min(rest))
            }
            _ => kept,
        }
    }

    /// The pool's running cycle, and the grant that comes at its end, if one will.
    fn renewal(&self, pool: &str) -> Option<(&Cycle, Grant)> {
        let cycle = self.state.cycles.iter().find(|cycle| cycle.pool == pool)?;
        let grant = self.recurring_grant(pool)?;
        // The months of a year that is paid come also where it is cancelled.
        let is_paid = self.paid_until().is_some_and(|until| cycle.ends_at < until);
        (self.is_granting() || is_paid).then_some((cycle, grant))
    }

    /// What of `pool` can be spent at `now`, and in which order.
    pub(super) fn spending(&self, pool: &str, now: Timestamp) -> Spending<'_> {
        Spending {
            pool: self.policy.pools.get(pool),
            extra: !self.policy.gateway.extra_needs_subscription || self.has_subscription(now),
        }
    }

    /// What came back to expired lots of `pool` stays spendable as long as the pool says: with
    /// "0d" it is due to expire at once, which the next look at what is due books.
    pub(super) fn restore(
        &mut self,
        pool: &str,
        parts: &[Part],
        now: Timestamp,
        changes: &mut Changes,
    ) {
        let restore = self
            .policy
            .pools
            .get(pool)
            .map_or(Span::ZERO, |pool| pool.restore);
        self.state.ledger.restore(pool, parts, restore, now);
        changes.snapshot = true;
    }

    /// Ends a call whose outcome nobody told until its deadline `at`, when everything due by
    /// `booked` is booked: a lot that expires after that takes back what it gave. Provisional: a
    /// settle that comes late corrects it.
    fn end_unknown(
        &mut self,
        number: CallNumber,
        at: Timestamp,
        booked: Timestamp,
        changes: &mut Changes,
    ) {
        let Some(call) = self.take_open(number) else {
            // Kept in step with `open`; were it ever not, the loop must still come to an end.
            self.deadlines.retain(|(_, other)| *other != number);
            return;
        };
        let (state, mark) = self.judge_unknown(&call, at);
        let charge = match state {
            CallState::UnknownCharged => call.held(),
            CallState::Open
            | CallState::Settled
            | CallState::Released
            | CallState::Cancelled
            | CallState::UnknownReleased
            | CallState::Job
            | CallState::Refunded => Credits::ZERO,
        };
        let ending = Ending {
            mark,
            ..Ending::new(state, charge, at)
        };
        self.end(call, ending, booked, changes);
        self.count_figures(&Counts {
            ended_unknown: 1,
            ..Counts::at(at)
        });
        // No row tells of the day's forgiveness.
        changes.snapshot = true;
    }

    fn judge_unknown(&mut self, call: &Call, at: Timestamp) -> (CallState, Option<Mark>) {
        if call.hold.observed || self.policy.gateway.mode == Mode::Observe {
            return (CallState::UnknownReleased, None);
        }
        if let Some(job) = call.hold.terms.job.filter(|_| call.is_job()) {
            return match job.on_unknown {
                OnUnknown::Release => (CallState::UnknownReleased, None),
                OnUnknown::Charge => (CallState::UnknownCharged, None),
            };
        }
        match call.hold.terms.on_unknown {
            OnUnknown::Charge => (CallState::UnknownCharged, None),
            OnUnknown::Release if call.held().is_zero() => (CallState::UnknownReleased, None),
            OnUnknown::Release => {
                if self.can_forgive(call.key, at) {
                    self.count_forgiven(call.key, at);
                    (CallState::UnknownReleased, None)
                } else {
                    (CallState::UnknownCharged, Some(Mark::Unforgiven))
                }
            }
        }
    }

    /// Whether one of the key's forgiven outcomes of the day is left.
    pub(super) fn can_forgive(&self, key: KeyNumber, at: Timestamp) -> bool {
        let day = self.policy.gateway.calendar.day_of(at);
        let per_day = self.policy.gateway.forgive_per_day;
        let (calls, forgiven) = self
            .state
            .usage
            .get(&key)
            .map_or((0, 0), |usage| (usage.days.of(day), usage.forgiven.of(day)));
        let share = calls.checked_div(FORGIVEN_ONE_IN).unwrap_or(0);
        forgiven < per_day.max(share)
    }

    /// Takes one of them. No row tells this: it needs a snapshot.
    pub(super) fn count_forgiven(&mut self, key: KeyNumber, at: Timestamp) {
        let day = self.policy.gateway.calendar.day_of(at);
        self.state.usage.entry(key).or_default().forgiven.count(day);
    }
}
