//! What an isolate remembers of keys issued before Tollgate: whose they are, which are nobody's, and
//! which addresses try too many of those.
//!
//! Nothing here is needed for a decision to be right: what is forgotten is asked again. All of it is
//! bounded, and nobody who tries keys pushes out those that are known.

use crate::{
    address::Address,
    bounded::Bounded,
    id::KeyId,
    key::SecretDigest,
    time::{Span, Timestamp},
};

/// So many unknown keys are looked up for one address in a minute; those that come after are refused
/// for a minute. The limit of the binding in `wrangler.toml`, over all isolates of a place, is the same.
pub const MISSES_PER_MINUTE: u32 = 30;

const MINUTE: Span = Span::from_seconds(60);
/// How long it is known whose a key is. A stale answer lets nobody in: the account has the last word.
const FOUND: Span = Span::from_seconds(300);
/// How long it is known that a key is nobody's: as long as other refusals are repeated.
const MISSED: Span = Span::from_seconds(5);
/// What is remembered of a secret that somebody presents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recalled {
    /// Whose it was lately.
    Key(KeyId),
    /// It was nobody's, moments ago.
    Unknown,
    /// It is not remembered, and its address has tried too many: not before this.
    Refused {
        /// When it may try again.
        until: Timestamp,
    },
    /// Nothing: the lookup object has to be asked.
    Nothing,
}

/// What one isolate remembers.
#[derive(Debug, Default)]
pub struct ImportedMemory {
    found: Bounded<[u8; 32], Noted<KeyId>>,
    missed: Bounded<[u8; 32], Noted<()>>,
    addresses: Bounded<Address, Tries>,
}

/// What was so at a moment, and is taken to be so until another.
#[derive(Debug)]
struct Noted<T> {
    what: T,
    at: Timestamp,
    until: Timestamp,
}

/// What one address tried.
#[derive(Clone, Copy, Debug)]
struct Tries {
    since: Timestamp,
    misses: u32,
    refused: Option<(Timestamp, Timestamp)>,
}

impl ImportedMemory {
    /// What is remembered of the secret of this digest, which came from `address`.
    #[must_use]
    pub fn recall(&self, digest: &SecretDigest, address: Address, clock: Timestamp) -> Recalled {
        let digest = digest.as_bytes();
        if let Some(found) = self.found.get(digest).and_then(|found| found.at(clock)) {
            return Recalled::Key(found.clone());
        }
        if self
            .missed
            .get(digest)
            .is_some_and(|missed| missed.at(clock).is_some())
        {
            return Recalled::Unknown;
        }
        let tries = self.addresses.get(&address);
        match tries.and_then(|tries| tries.refused) {
            Some((at, until)) if at <= clock && clock < until => Recalled::Refused { until },
            _ => Recalled::Nothing,
        }
    }

    /// The lookup object said whose it is.
    pub fn found(&mut self, digest: &SecretDigest, key: KeyId, clock: Timestamp) {
        let noted = Noted {
            what: key,
            at: clock,
            until: clock.plus(FOUND),
        };
        self.found.insert(*digest.as_bytes(), noted);
    }

    /// The key's account does not know the secret any more: the lookup object may know more.
    pub fn forget(&mut self, digest: &SecretDigest) {
        if let Some(found) = self.found.get_mut(digest.as_bytes()) {
            found.until = found.at;
        }
    }

    /// The lookup object said that it is nobody's. Counts that for its address: whether that is
    /// one too many, as far as this isolate knows.
    pub fn missed(&mut self, digest: &SecretDigest, address: Address, clock: Timestamp) -> bool {
        let noted = Noted {
            what: (),
            at: clock,
            until: clock.plus(MISSED),
        };
        self.missed.insert(*digest.as_bytes(), noted);
        let mut tries = self.tries(address);
        // A clock that was set back begins anew, as a minute that is over does.
        if clock < tries.since || clock.since(tries.since) >= MINUTE {
            tries.since = clock;
            tries.misses = 0;
        }
        tries.misses = tries.misses.saturating_add(1);
        self.addresses.insert(address, tries);
        tries.misses > MISSES_PER_MINUTE
    }

    /// Refuses the unknown keys of this address for a minute. When that is over.
    pub fn refuse(&mut self, address: Address, clock: Timestamp) -> Timestamp {
        let until = clock.plus(MINUTE);
        let tries = Tries {
            refused: Some((clock, until)),
            ..self.tries(address)
        };
        self.addresses.insert(address, tries);
        until
    }

    fn tries(&self, address: Address) -> Tries {
        self.addresses.get(&address).copied().unwrap_or(Tries {
            since: Timestamp::EPOCH,
            misses: 0,
            refused: None,
        })
    }
}

impl<T> Noted<T> {
    /// Not before it was noted either: a clock that is set back must not make it last.
    fn at(&self, clock: Timestamp) -> Option<&T> {
        (self.at <= clock && clock < self.until).then_some(&self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounded::MOST;

    const NOW: Timestamp = Timestamp::from_seconds(1_000);
    const HOME: Address = Address::new(1);
    const AWAY: Address = Address::new(2);

    fn after(millis: i64) -> Timestamp {
        Timestamp::from_millis(NOW.as_millis() + millis)
    }

    fn secret(number: usize) -> SecretDigest {
        SecretDigest::of(&number.to_be_bytes())
    }

    fn key() -> KeyId {
        KeyId::parse("key_acme_1").unwrap()
    }

    #[test]
    fn what_was_looked_up_is_remembered_for_its_time() {
        let mut memory = ImportedMemory::default();
        memory.found(&secret(1), key(), NOW);
        memory.missed(&secret(2), HOME, NOW);
        for (millis, known, unknown) in [
            (-1, false, false),
            (0, true, true),
            (4_999, true, true),
            (5_000, true, false),
            (299_999, true, false),
            (300_000, false, false),
        ] {
            let recall = |number| memory.recall(&secret(number), HOME, after(millis));
            let expected = if known {
                Recalled::Key(key())
            } else {
                Recalled::Nothing
            };
            assert_eq!(recall(1), expected, "{millis}");
            let expected = if unknown {
                Recalled::Unknown
            } else {
                Recalled::Nothing
            };
            assert_eq!(recall(2), expected, "{millis}");
        }
        memory.forget(&secret(1));
        memory.forget(&secret(3));
        assert_eq!(memory.recall(&secret(1), HOME, NOW), Recalled::Nothing);
        memory.found(&secret(1), key(), NOW);
        assert_eq!(memory.recall(&secret(1), HOME, NOW), Recalled::Key(key()));
    }

    #[test]
    fn an_address_that_tries_too_many_keys_is_refused_for_a_minute() {
        let mut memory = ImportedMemory::default();
        memory.found(&secret(0), key(), NOW);
        for number in 1..=30 {
            assert!(!memory.missed(&secret(number), HOME, NOW), "{number}");
        }
        assert!(!memory.missed(&secret(31), AWAY, NOW), "each by itself");
        assert!(memory.missed(&secret(31), HOME, after(59_999)));
        let until = memory.refuse(HOME, after(59_999));
        let recall =
            |number, address, millis| memory.recall(&secret(number), address, after(millis));
        assert_eq!(until, after(119_999));
        assert_eq!(recall(99, HOME, 119_998), Recalled::Refused { until });
        assert_eq!(recall(99, HOME, 119_999), Recalled::Nothing);
        assert_eq!(
            recall(99, HOME, 59_998),
            Recalled::Nothing,
            "a clock set back"
        );
        assert_eq!(recall(99, AWAY, 60_000), Recalled::Nothing);
        // A key that is known passes all the while.
        assert_eq!(recall(0, HOME, 60_000), Recalled::Key(key()));
        // The next minute counts anew.
        assert!(!memory.missed(&secret(32), HOME, after(60_000)));
    }

    #[test]
    fn a_flood_of_unknown_keys_neither_grows_the_memory_nor_pushes_out_known_ones() {
        let mut memory = ImportedMemory::default();
        memory.found(&secret(0), key(), NOW);
        for number in 1..=3 * MOST {
            let address = Address::new(u64::try_from(number).unwrap());
            memory.missed(&secret(number), address, NOW);
        }
        assert_eq!(memory.recall(&secret(0), HOME, NOW), Recalled::Key(key()));
        assert_eq!(
            memory.recall(&secret(3 * MOST), HOME, NOW),
            Recalled::Unknown
        );
        assert_eq!(memory.recall(&secret(1), HOME, NOW), Recalled::Nothing);
        assert_eq!(
            (memory.missed.count(), memory.addresses.count()),
            (MOST, MOST)
        );
    }
}
