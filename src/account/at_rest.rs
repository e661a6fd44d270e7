//! Keys at rest: dead ones, of which memory has nothing. What such a key has counted goes to its row,
//! so that neither a snapshot nor a wake-up grows with the keys that there ever were.
//!
//! A dead key is put to rest with a snapshot, once its calls have ended. It may stand again: the
//! operator moves its expiry, or the clock that it had expired by was a stray one. A late word may
//! change what its calls cost. So whatever changes a key, or what it has counted, wakes it first; and
//! since its row has that as of before, the next call brings a snapshot along.

use std::collections::BTreeSet;

use super::{Account, Broken, Changes, Key, stored::encoded};
use crate::{id::KeyNumber, time::Span};

/// How many keys are put to rest with one snapshot, each a row.
const AT_ONCE: usize = 100;
/// For how long refusals of a key at rest are told: they are counted by days.
const REFUSALS_TOLD: Span = Span::from_days(3);

impl Account {
    /// Whether the key is at rest, or there never was one: its row tells.
    #[must_use]
    pub fn is_at_rest(&self, number: KeyNumber) -> bool {
        number < self.next_key() && !self.keys.contains_key(&number)
    }

    /// A key at rest, with what it has counted, from its row.
    ///
    /// # Errors
    /// Bytes that no version of this crate wrote.
    pub fn read_at_rest(&self, number: KeyNumber, row: &[u8]) -> Result<Key, Broken> {
        let mut key: Key = minicbor::decode(row)?;
        let counted = key.counted.get_or_insert_default();
        if let Some(since) = self.state.usage.get(&number) {
            for (day, times) in since.refused.iter() {
                counted.refused.add(day, times);
            }
        }
        Ok(key)
    }

    /// Wakes a key that was at rest.
    pub fn wake_key(&mut self, number: KeyNumber, mut key: Key) {
        let counted = key.counted.take().unwrap_or_default();
        self.state.usage.insert(number, counted);
        self.keys.insert(number, key);
        self.calls_to_snapshot = 0;
    }

    /// Puts keys to rest, as a snapshot is about to be taken: gives their rows.
    pub fn put_to_rest(&mut self, changes: &mut Changes) -> Vec<(KeyNumber, Vec<u8>)> {
        self.move_refusals();
        let dead: Vec<KeyNumber> = self.idle_dead_keys().take(AT_ONCE).collect();
        let mut rows = Vec::new();
        for number in dead {
            let Some(mut key) = self.keys.remove(&number) else {
                continue;
            };
            key.counted = self.state.usage.remove(&number);
            let signed_under = self.profile.signed_under.remove(&number);
            changes.profile |= signed_under.is_some();
            key.signed_under = key.signed_under.or(signed_under);
            let is_written = changes.keys.remove(&number);
            if is_written || key.counted.is_some() || signed_under.is_some() {
                rows.push((number, encoded(&key)));
            }
        }
        rows
    }

    /// The keys that can be put to rest. One that holds the secret it had before Tollgate cannot: when
    /// the account is closed, a lookup object has to hear of it.
    pub(super) fn idle_dead_keys(&self) -> impl Iterator<Item = KeyNumber> + '_ {
        let keys = self.keys.iter().filter(|(number, key)| {
            !key.stands(self.clock)
                && !key.holds_imported_secret()
                && !self.in_flight.contains_key(number)
        });
        keys.map(|(number, _)| *number)
    }

    /// Lets go of old refusals of keys at rest.
    pub(super) fn forget_old_refusals(&mut self) {
        let calendar = self.policy.gateway.calendar;
        let first = calendar.day_of(self.clock.minus(REFUSALS_TOLD));
        let keys = &self.keys;
        self.state.usage.retain(|number, usage| {
            keys.contains_key(number) || usage.refused.iter().any(|(day, _)| day >= first)
        });
    }

    /// Which keys are at rest: the first and the last of each run of them.
    pub(super) fn at_rest(&self) -> Vec<(u32, u32)> {
        let others: BTreeSet<KeyNumber> = self
            .keys
            .keys()
            .copied()
            .chain(self.keys_wanted())
            .collect();
        let mut runs = Vec::new();
        let mut first = 1_u32;
        for other in others.into_iter().chain([self.next_key()]) {
            let other = other.get();
            if first < other {
                runs.push((first, other.saturating_sub(1)));
            }
            first = other.saturating_add(1);
        }
        runs
    }
}

/// The keys up to the last one `issued` that are in none of these runs.
pub(super) fn awake(at_rest: &[(u32, u32)], issued: u32) -> Vec<KeyNumber> {
    let end = issued.saturating_add(1);
    let mut awake = Vec::new();
    let mut next = 1_u32;
    for (first, last) in at_rest.iter().copied().chain([(end, end)]) {
        awake.extend((next..first).map(KeyNumber::new));
        next = last.saturating_add(1);
    }
    awake
}
