//! What a key's calls cost in a month, and how much of its budget is left.
//!
//! A call counts in the month of its admission, by the clock as read, for as long as it is known:
//! what it holds while it is open, then what it is charged. What comes back to a pool later comes
//! back to the budget of that month, never to that of the month in which it comes.

use std::collections::VecDeque;

use crate::wire::{Decode, Encode};

use super::Account;
use crate::{
    call::Call,
    credits::Credits,
    id::KeyNumber,
    time::{MonthNumber, Timestamp},
};

/// The pool that budgets are of: the one that routes pay from unless they say otherwise.
pub const BUDGET_POOL: &str = "credits";

/// How many months' sums are kept, so that a clock that strays over three other months, wherever
/// they lie, and comes back finds the month's sum as it was.
const MONTHS_KEPT: usize = 4;

/// What a key's calls cost in each of the latest months, the month that was counted last at the
/// back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub(super) struct Costs(#[n(0)] VecDeque<(MonthNumber, u64)>);

impl Costs {
    /// What the calls of `month` hold and were charged.
    pub(super) fn of(&self, month: MonthNumber) -> u64 {
        self.0
            .iter()
            .find(|(counted, _)| *counted == month)
            .map_or(0, |(_, sum)| *sum)
    }

    /// Counts what a call of `month` holds.
    fn count(&mut self, month: MonthNumber, held: Credits) {
        if held.is_zero() {
            return;
        }
        let sum = self.of(month).saturating_add(held.get());
        self.0.retain(|(counted, _)| *counted != month);
        while self.0.len() >= MONTHS_KEPT {
            self.0.pop_front();
        }
        self.0.push_back((month, sum));
    }

    /// A call of `month` that counted as `before` counts as `after`.
    fn recount(&mut self, month: MonthNumber, before: Credits, after: Credits) {
        if let Some((_, sum)) = self.0.iter_mut().find(|(counted, _)| *counted == month) {
            *sum = sum.saturating_add(after.get()).saturating_sub(before.get());
        }
    }
}

/// A key's budget at a moment.
pub(super) struct Budget {
    /// Credits a month.
    pub(super) amount: Credits,
    /// What is left of it.
    pub(super) left: Credits,
}

impl Account {
    /// The budget of `key` as it stands for a call from `pool` at `at`, if it has one. No call of
    /// a month to come is known yet: all of it is left then.
    pub(super) fn budget(&self, key: KeyNumber, pool: &str, at: Timestamp) -> Option<Budget> {
        if pool != BUDGET_POOL {
            return None;
        }
        let amount = self.keys.get(&key)?.budget?;
        let used = Credits::new(self.cost_of_month(key, at)).unwrap_or(Credits::MAX);
        Some(Budget {
            amount,
            left: amount.saturating_sub(used),
        })
    }

    /// What the key's calls of the month of `at` hold and were charged.
    pub(super) fn cost_of_month(&self, key: KeyNumber, at: Timestamp) -> u64 {
        let month = self.policy.gateway.calendar.month_of(at);
        self.state
            .usage
            .get(&key)
            .map_or(0, |usage| usage.costs.of(month))
    }

    /// When the budgets of the month of `clock` are over.
    pub(super) fn budgets_renew_at(&self, clock: Timestamp) -> Timestamp {
        let calendar = self.policy.gateway.calendar;
        calendar.start_of_month(calendar.month_of(clock).next())
    }

    /// Counts what an admitted call holds.
    pub(super) fn count_cost(&mut self, call: &Call) {
        self.with_costs(call, |costs, month| costs.count(month, call.held()));
    }

    /// A call that counted as `before` counts as `after`: it has ended, or its end was replaced.
    pub(super) fn recount_cost(&mut self, call: &Call, before: Credits, after: Credits) {
        self.with_costs(call, |costs, month| costs.recount(month, before, after));
    }

    fn with_costs(&mut self, call: &Call, change: impl FnOnce(&mut Costs, MonthNumber)) {
        if call.hold.terms.pool == BUDGET_POOL {
            let month = self.policy.gateway.calendar.month_of(call.admitted_at);
            let usage = self.state.usage.entry(call.key).or_default();
            change(&mut usage.costs, month);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::time::Calendar;

    fn month(days: i64) -> MonthNumber {
        Calendar::default().month_of(Timestamp::from_seconds(days * 86_400))
    }

    fn credits(amount: u64) -> Credits {
        Credits::new(amount).unwrap()
    }

    #[test]
    fn what_comes_back_comes_back_to_the_month_of_the_call() {
        let mut costs = Costs::default();
        costs.count(month(0), credits(10));
        costs.count(month(40), credits(7));
        costs.recount(month(0), credits(10), credits(4));
        assert_eq!((costs.of(month(0)), costs.of(month(40))), (4, 7));
        costs.recount(month(0), credits(4), Credits::ZERO);
        assert_eq!((costs.of(month(0)), costs.of(month(40))), (0, 7));
    }

    #[test]
    fn a_clock_that_strays_over_three_other_months_forgets_no_cost() {
        let mut costs = Costs::default();
        for past in 0..6 {
            costs.count(month(40 * past), credits(1));
        }
        for stray in [700, 500, 9_000] {
            costs.count(month(400), credits(3));
            costs.count(month(stray), credits(1));
        }
        assert_eq!(costs.of(month(400)), 9);
        // What is no longer kept is not begun anew by what comes back to it.
        costs.recount(month(0), credits(1), credits(5));
        assert_eq!(costs.of(month(0)), 0);
    }
}
