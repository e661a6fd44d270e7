//! Unusual consumption: an account that spends far above its habit, a key that draws mostly refusals.
//!
//! The policy says what "far" and "mostly" are (`policy/unusual.rs`). Each is flagged once a day, also
//! where the flag is taken away meanwhile, and a flag restricts for as long as the policy says. What
//! is flagged costs a snapshot, and nothing more that day.

use std::fmt;

use serde::Serialize;

use super::{Account, Changes, habit::Habit};
use crate::{
    credits::Credits,
    event::Event,
    id::{AccountId, KeyId, KeyNumber},
    policy::{Mode, Unusual},
    time::{Day, Timestamp},
    wire::{Decode, Encode},
};

/// At most so many flags of an account are told, the latest.
const FLAGS_TOLD: usize = 8;

/// What was unusual.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Flag {
    /// When it was found, by the clock as read.
    #[n(0)]
    pub at: Timestamp,
    /// What it is.
    #[n(1)]
    pub cause: Cause,
    /// Until when it restricts; `None`: not at all.
    #[n(2)]
    pub until: Option<Timestamp>,
    /// The operator has taken it away: it is kept so that it does not come back on the same day.
    #[cbor(n(3), default)]
    dismissed: bool,
}

/// What is unusual.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Cause {
    /// The account spends far above its habit.
    #[n(0)]
    Spending {
        /// The pool.
        #[n(0)]
        pool: String,
        /// What was charged on this day.
        #[n(1)]
        spent: u64,
        /// The most on a day before.
        #[n(2)]
        habit: u64,
    },
    /// A key draws mostly refusals. It restricts that key alone.
    #[n(1)]
    Refusals {
        /// The key.
        #[n(0)]
        key: KeyNumber,
        /// How many of its requests were refused on this day.
        #[n(1)]
        refused: u32,
        /// How many requests there were.
        #[n(2)]
        requests: u32,
    },
}

/// As the customer and the log read it.
impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spending { pool, spent, habit } => write!(
                formatter,
                "unusual consumption: {spent} credits of pool '{pool}' in a day, \
                 after at most {habit} in a day of the four weeks before"
            ),
            Self::Refusals {
                refused, requests, ..
            } => write!(
                formatter,
                "unusual consumption: {refused} of {requests} requests of this API key in a day \
                 were refused"
            ),
        }
    }
}

impl Cause {
    /// The key that it is about, where it is about one.
    #[must_use]
    pub const fn key(&self) -> Option<KeyNumber> {
        match self {
            Self::Spending { .. } => None,
            Self::Refusals { key, .. } => Some(*key),
        }
    }
}

impl Flag {
    /// A flag that was raised at `at` restricts only from then on: a clock that strayed ahead has
    /// restricted nobody when it is right again.
    fn restricts_until(&self, clock: Timestamp) -> Option<Timestamp> {
        let until = self
            .until
            .filter(|until| self.at <= clock && clock < *until);
        until.filter(|_| !self.dismissed)
    }

    /// As the admin API and events tell it.
    #[must_use]
    pub fn view(&self, account: &AccountId) -> FlagView<'_> {
        let mut view = FlagView {
            at: self.at,
            restricted_until: self.until,
            ..FlagView::default()
        };
        match &self.cause {
            Cause::Spending { pool, spent, habit } => {
                view.cause = "spending";
                view.pool = Some(pool);
                (view.spent, view.habit) = (Some(*spent), Some(*habit));
            }
            Cause::Refusals {
                key,
                refused,
                requests,
            } => {
                view.cause = "refusals";
                view.key = Some(KeyId {
                    account: account.clone(),
                    number: *key,
                });
                (view.refused, view.requests) = (Some(*refused), Some(*requests));
            }
        }
        view
    }
}

/// A flag as the admin API and events tell it.
#[derive(Debug, Default, Serialize)]
pub struct FlagView<'a> {
    cause: &'static str,
    at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    habit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<KeyId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restricted_until: Option<Timestamp>,
}

impl Account {
    /// Counts what was charged of `pool`: the same when a call ends and when its row is replayed.
    pub(super) fn count_spent(&mut self, pool: &str, charged: Credits, at: Timestamp) {
        if charged.is_zero() {
            return;
        }
        let day = self.policy.gateway.calendar.day_of(at);
        let habits = &mut self.state.habits;
        let known = habits.binary_search_by(|habit| habit.pool.as_str().cmp(pool));
        let place = known.unwrap_or_else(|place| {
            habits.insert(place, Habit::new(pool, day));
            place
        });
        if let Some(habit) = habits.get_mut(place) {
            habit.count(day, charged);
        }
    }

    /// Flags the account if it has spent far above its habit today.
    pub(super) fn watch_spending(&mut self, clock: Timestamp, changes: &mut Changes) {
        let Some(unusual) = self.policy.unusual else {
            return;
        };
        let Some(far) = unusual.spending else {
            return;
        };
        let today = self.policy.gateway.calendar.day_of(clock);
        let mut found = Vec::new();
        for habit in &self.state.habits {
            let (spent, before) = (habit.of(today), habit.before(today));
            if let Some(habit_before) = before.filter(|before| far.is_met(spent, *before))
                && !self.was_raised(habit.flag.as_ref(), today)
            {
                found.push(Cause::Spending {
                    pool: habit.pool.clone(),
                    spent,
                    habit: habit_before,
                });
            }
        }
        for cause in found {
            self.raise(cause, unusual, clock, changes);
        }
    }

    /// Flags a key if most of its requests of today were refused.
    pub(super) fn watch_refusals(
        &mut self,
        number: KeyNumber,
        clock: Timestamp,
        changes: &mut Changes,
    ) {
        let Some(unusual) = self.policy.unusual else {
            return;
        };
        let Some(mostly) = unusual.refusals else {
            return;
        };
        let today = self.policy.gateway.calendar.day_of(clock);
        let usage = self.state.usage.get(&number);
        let counted = usage.map_or(0, |usage| usage.refused.of(today));
        let waiting = self.refusals.get(&number).map_or(0, |days| days.of(today));
        let refused = counted.saturating_add(waiting);
        let calls = usage.map_or(0, |usage| usage.days.of(today));
        let requests = calls.saturating_add(refused);
        let flag = usage.and_then(|usage| usage.flag.as_ref());
        let is_new = mostly.is_met(refused, requests)
            && !self.was_raised(flag, today)
            && self.may_call(number);
        if is_new {
            let cause = Cause::Refusals {
                key: number,
                refused,
                requests,
            };
            self.raise(cause, unusual, clock, changes);
        }
    }

    fn was_raised(&self, flag: Option<&Flag>, today: Day) -> bool {
        flag.is_some_and(|flag| self.policy.gateway.calendar.day_of(flag.at) == today)
    }

    /// Nothing about a key that was revoked, or of a closed account, is worth a look any more.
    fn may_call(&self, number: KeyNumber) -> bool {
        let key = self.keys.get(&number);
        !self.is_closed() && key.is_some_and(|key| key.revoked_at.is_none())
    }

    /// The one place where a flag is raised: it is kept, told to the directory and logged.
    fn raise(&mut self, cause: Cause, unusual: Unusual, clock: Timestamp, changes: &mut Changes) {
        let restrict = unusual
            .restrict
            .filter(|_| self.policy.gateway.mode == Mode::Enforce);
        let flag = Flag {
            at: clock,
            cause,
            until: restrict.map(|restrict| clock.plus(restrict)),
            dismissed: false,
        };
        match &flag.cause {
            Cause::Spending { pool, .. } => {
                let mut habits = self.state.habits.iter_mut();
                if let Some(habit) = habits.find(|habit| habit.pool == *pool) {
                    habit.flag = Some(flag.clone());
                }
            }
            Cause::Refusals { key, .. } => {
                self.state.usage.entry(*key).or_default().flag = Some(flag.clone());
            }
        }
        let event = Event::AccountFlagged {
            reason: flag.cause.to_string(),
            key: flag.cause.key().map(|key| self.key_id(key)),
            restricted_until: flag.until,
        };
        self.emit(&event, clock, changes);
        changes.snapshot = true;
        changes.flagged.push(flag);
    }

    /// Why, and until when, calls with `key` are refused, if they are.
    pub(super) fn restriction(
        &self,
        key: KeyNumber,
        clock: Timestamp,
    ) -> Option<(&Flag, Timestamp)> {
        let of_account = self.state.habits.iter();
        let of_account = of_account.filter_map(|habit| habit.flag.as_ref());
        let of_key = self.state.usage.get(&key);
        of_account
            .chain(of_key.and_then(|usage| usage.flag.as_ref()))
            .filter_map(|flag| Some((flag, flag.restricts_until(clock)?)))
            .max_by_key(|(_, until)| *until)
    }

    /// The flag of `key` that the operator has not taken away.
    pub(super) fn flag_of(&self, key: KeyNumber) -> Option<&Flag> {
        let flag = self.state.usage.get(&key)?.flag.as_ref()?;
        (!flag.dismissed && self.may_call(key)).then_some(flag)
    }

    /// The flags that the operator has not taken away, the latest first.
    pub(super) fn flags(&self) -> Vec<Flag> {
        let mut flags: Vec<Flag> = Vec::new();
        if self.is_closed() {
            return flags;
        }
        let of_account = self.state.habits.iter();
        let of_account = of_account.filter_map(|habit| habit.flag.as_ref());
        let of_keys = self.state.usage.keys();
        let of_keys = of_keys.filter_map(|key| self.flag_of(*key));
        for flag in of_account.filter(|flag| !flag.dismissed).chain(of_keys) {
            let place = flags.partition_point(|other| other.at >= flag.at);
            if place < FLAGS_TOLD {
                flags.truncate(FLAGS_TOLD.saturating_sub(1));
                flags.insert(place, flag.clone());
            }
        }
        flags
    }

    /// Takes all flags away, and with them what they restrict. Says whether there were any.
    pub(super) fn dismiss_flags(&mut self) -> bool {
        let of_account = self.state.habits.iter_mut();
        let of_account = of_account.filter_map(|habit| habit.flag.as_mut());
        let of_keys = self.state.usage.values_mut();
        let of_keys = of_keys.filter_map(|usage| usage.flag.as_mut());
        let mut dismissed = false;
        for flag in of_account.chain(of_keys) {
            dismissed |= !flag.dismissed;
            flag.dismissed = true;
        }
        dismissed
    }
}
