//! How often a key was refused: what an operator looks at when keys are tried in vain.
//!
//! A refused request writes no row. So these counts wait in memory for the next snapshot, and are
//! lost where the account falls asleep before one: figures to look at, which decide about no call.

use super::{Account, Admit, Changes};
use crate::{id::KeyNumber, time::Timestamp};

impl Account {
    /// Counts `times` refusals of the key, if whoever was refused has its secret: a dead one in other
    /// hands must neither flag nor restrict who has the new one.
    pub(super) fn count_refusals(&mut self, admit: &Admit, times: u32, clock: Timestamp) {
        let is_its_secret = || {
            let key = self.keys.get(&admit.key);
            key.is_some_and(|key| key.has_secret(&admit.digest, clock))
        };
        if times > 0 && is_its_secret() {
            self.count_tries(admit.key, times, clock);
        }
    }

    /// Counts `times` refusals of a key.
    pub fn count_tries(&mut self, key: KeyNumber, times: u32, clock: Timestamp) {
        let day = self.policy.gateway.calendar.day_of(clock);
        self.refusals.entry(key).or_default().add(day, times);
    }

    /// Has the counts stored, for an operator who is going to look at them.
    pub fn book_refusals(&mut self) -> Changes {
        let changes = Changes {
            snapshot: !self.refusals.is_empty(),
            ..Changes::default()
        };
        self.move_refusals();
        changes
    }

    /// Moves the counts to where a snapshot has them.
    pub(super) fn move_refusals(&mut self) {
        self.move_refused();
        for (key, days) in std::mem::take(&mut self.refusals) {
            let usage = self.state.usage.entry(key).or_default();
            for (day, times) in days.iter() {
                usage.refused.add(day, times);
            }
        }
    }
}
