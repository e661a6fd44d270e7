//! Money that goes back, and the credits with it.

use super::{LONGEST_MONTH, OVERLAP};
use crate::{
    account::{Account, Changes},
    credits::Credits,
    event::Event,
    ledger::{EntryKind, Lot},
    payments::{
        history::{Brought, Payment},
        money::Money,
        sighting::{Period, Purpose, Reversal},
    },
    policy::Source,
    time::Timestamp,
};

/// What was done about the credits of one pool.
struct Undone {
    pool: String,
    taken: Credits,
    short: Credits,
}

impl Account {
    /// What has gone back of a payment, as of now.
    pub(super) fn reverse(
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
                self.close_pages(clock, changes);
            }
        } else if disputed.remove(&payment.number) && reversal.disputed == 0 {
            self.top_up_undisputed(changes);
        }
    }

    /// Makes the credits that a payment brought what its money comes to.
    pub(super) fn settle_up(
        &mut self,
        payment: &mut Payment,
        gone_before: u64,
        changes: &mut Changes,
    ) {
        let gone_now = payment.gone();
        if gone_now != gone_before {
            self.find_running_months(payment);
        }
        if gone_now > gone_before {
            self.find_what_was_carried_over(payment);
        }
        let came_again = gone_now < gone_before;
        let mut undone: Vec<Undone> = Vec::new();
        let mut all = std::mem::take(&mut payment.brought);
        for brought in &mut all {
            let (taken, short) = self.settle_lot(payment, brought, came_again, changes);
            match undone.iter_mut().find(|told| told.pool == brought.pool) {
                Some(told) => {
                    told.taken = told.taken.saturating_add(taken);
                    told.short = told.short.saturating_add(short);
                }
                None => undone.push(Undone {
                    pool: brought.pool.clone(),
                    taken,
                    short,
                }),
            }
        }
        payment.brought = all;
        self.tell_what_went_back(payment, gone_before, undone, changes);
        if gone_now != gone_before {
            self.count_what_is_left(payment, changes);
        }
    }

    /// The same for one lot: what was taken of it, and what of that could not be.
    fn settle_lot(
        &mut self,
        payment: &Payment,
        brought: &mut Brought,
        came_again: bool,
        changes: &mut Changes,
    ) -> (Credits, Credits) {
        let now = self.state.latest;
        let book = self.state.ledger.book(&brought.pool);
        let lot = book.and_then(|book| book.lot(brought.lot));
        let left = lot.map_or(Credits::ZERO, Lot::available);
        let (at_stake, is_over) = match lot {
            // What nobody used in time is nobody's loss.
            Some(lot) => {
                let is_over = lot.expires_at.is_some_and(|at| at <= now);
                let at_stake = brought.credits.saturating_sub(lot.expired);
                (at_stake, is_over || !lot.expired.is_zero())
            }
            None if payment.purpose.is_for_good() => (brought.credits, false),
            None => return (Credits::ZERO, Credits::ZERO),
        };
        let gone = payment.gone_of(at_stake);
        let to_take = gone.saturating_sub(brought.taken);
        let to_give = if is_over && !came_again {
            Credits::ZERO
        } else {
            brought.taken.saturating_sub(gone)
        };
        let short = to_take.saturating_sub(left);
        let taken = to_take.saturating_sub(short);
        for (kind, credits, is_taken) in [
            (EntryKind::TakenBack, taken, true),
            (EntryKind::Shortfall, short, true),
            (EntryKind::GivenBack, to_give, false),
        ] {
            if credits.is_zero() {
                continue;
            }
            let moment = self.moment(now);
            let entry = self.state.ledger.change_amount(
                (&brought.pool, brought.lot),
                (credits, is_taken),
                kind,
                &payment.name,
                moment,
            );
            changes.enter(entry);
        }
        let after = |before: Credits| before.saturating_add(to_take).saturating_sub(to_give);
        brought.taken = after(brought.taken);
        brought.short = brought.short.saturating_add(short).saturating_sub(to_give);
        let mut cycles = self.state.cycles.iter_mut();
        // What a change of plan has added and is gone another one may add again.
        if payment.change.is_none()
            && let Some(cycle) = cycles.find(|cycle| cycle.lot == brought.lot)
        {
            cycle.taken = after(cycle.taken);
        }
        (taken, short)
    }

    /// One event for each pool that lost something; of a payment whose credits are all over, one all the same.
    fn tell_what_went_back(
        &mut self,
        payment: &Payment,
        gone_before: u64,
        undone: Vec<Undone>,
        changes: &mut Changes,
    ) {
        let went_back = Money {
            amount: payment.gone().saturating_sub(gone_before),
            currency: payment.currency,
        };
        let lost = |undone: &Undone| !(undone.taken.is_zero() && undone.short.is_zero());
        let is_any_lost = undone.iter().any(lost);
        for (nth, undone) in undone.into_iter().enumerate() {
            let is_only_word = !is_any_lost && nth == 0 && went_back.amount > 0;
            if lost(&undone) || is_only_word {
                let event = Event::PaymentRefunded {
                    pool: undone.pool,
                    credits: undone.taken,
                    shortfall: undone.short,
                    price: went_back.to_string(),
                    payment: payment.name.clone(),
                };
                self.emit(&event, self.state.latest, changes);
            }
        }
    }

    /// Adds the running lots of a period that is granted month by month, which the clock has brought.
    fn find_running_months(&self, payment: &mut Payment) {
        let Some(period) = long_period(payment) else {
            return;
        };
        let plan = self.policy.plan_sold_as(&period.price);
        let plan = plan.unwrap_or(&self.profile.plan);
        let running = self.state.cycles.iter().filter_map(|cycle| {
            let lot = self.state.ledger.book(&cycle.pool)?.lot(cycle.lot)?;
            let mut grants = plan.grants.iter();
            let grant = grants.find(|grant| grant.is_recurring() && grant.pool == cycle.pool)?;
            let kept = self.kept_grant(grant.clone())?.amount;
            // What a change of plan has added was paid by another invoice; what had gone back before was not
            // even granted.
            is_in(lot, &period).then(|| Brought {
                taken: grant.amount.saturating_sub(kept),
                ..Brought::new(cycle.pool.clone(), cycle.lot, grant.amount)
            })
        });
        add(payment, running.collect());
    }

    /// Adds what was carried over from a period's lots.
    fn find_what_was_carried_over(&self, payment: &mut Payment) {
        let Purpose::Period(_) = &payment.purpose else {
            return;
        };
        let period = long_period(payment);
        let mut found = Vec::new();
        for (pool, book) in &self.state.ledger.books {
            for lot in &book.lots {
                let Some(from) = lot.rolled_from else {
                    continue;
                };
                let is_in_months = period.as_ref().is_some_and(|period| is_in(lot, period));
                let is_from_it = || payment.brought.iter().any(|brought| brought.lot == from);
                if is_in_months || is_from_it() {
                    found.push(Brought::new(pool.clone(), lot.number, lot.amount));
                }
            }
        }
        add(payment, found);
    }
}

/// The period that was paid, if it is granted month by month.
fn long_period(payment: &Payment) -> Option<Period> {
    match &payment.purpose {
        Purpose::Period(period) if period.ends_at.since(period.starts_at) > LONGEST_MONTH => {
            Some(period.clone())
        }
        _ => None,
    }
}

fn add(payment: &mut Payment, found: Vec<Brought>) {
    for lot in found {
        if payment.brought.iter().all(|known| known.lot != lot.lot) {
            payment.brought.push(lot);
        }
    }
}

/// Whether a lot was granted in this period.
fn is_in(lot: &Lot, period: &Period) -> bool {
    lot.source == Source::Subscription
        && lot.granted_at.plus(OVERLAP) >= period.starts_at
        && lot.granted_at < period.ends_at
}
