//! What an isolate remembers of keys issued before Tollgate: whose they are, which are nobody's, and
//! which addresses try too many of those.
//!
//! Nothing here is needed for a decision to be right: what is forgotten is asked again. All of it is
//! bounded, and nobody who tries keys pushes out those that are known.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

use sha2::{Digest, Sha256};

use crate::{
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
/// At most so many of each kind are remembered.
const MOST: usize = 4_096;

/// Where a client comes from: a digest of its IPv4 address, or of the network of its IPv6 address, in
/// which it has as many addresses as it likes (RFC 6177 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address(u64);

impl Address {
    /// Reads `CF-Connecting-IP`, which Cloudflare writes, always in the same way (RFC 5952). All clients
    /// that have no address share one.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let digest = Sha256::digest(network_of(text));
        let first = digest.first_chunk().copied().unwrap_or_default();
        Self(u64::from_be_bytes(first))
    }
}

/// The first four groups of an IPv6 address, as far as they are no zeros that are left out; an IPv4
/// address as it is.
fn network_of(text: &str) -> &str {
    let fourth = text.match_indices(':').nth(3).map(|(index, _)| index);
    let end = text.find("::").into_iter().chain(fourth).min();
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}

impl std::fmt::Display for Address {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:x}", self.0)
    }
}

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
    found: Bounded<[u8; 32], Noted>,
    missed: Bounded<[u8; 32], Noted>,
    addresses: Bounded<Address, Tries>,
}

/// What a lookup object said at a moment, and is taken to say until another.
#[derive(Debug)]
struct Noted {
    key: Option<KeyId>,
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
        let noted = |notes: &Bounded<[u8; 32], Noted>| {
            let noted = notes.get(digest.as_bytes())?;
            noted.holds_at(clock).then(|| noted.key.clone())
        };
        match noted(&self.found).or_else(|| noted(&self.missed)) {
            Some(Some(key)) => return Recalled::Key(key),
            Some(None) => return Recalled::Unknown,
            None => {}
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
            key: Some(key),
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
            key: None,
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

impl Noted {
    /// Not before it was noted either: a clock that is set back must not make it last.
    fn holds_at(&self, clock: Timestamp) -> bool {
        self.at <= clock && clock < self.until
    }
}

/// A map that forgets what came first when it is full.
#[derive(Debug)]
struct Bounded<K, V> {
    values: HashMap<K, V>,
    /// The keys in `values`, each once, in the order in which they came.
    order: VecDeque<K>,
}

impl<K, V> Default for Bounded<K, V> {
    fn default() -> Self {
        Self {
            values: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<K: Eq + Hash + Copy, V> Bounded<K, V> {
    fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key)
    }

    fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.values.get_mut(key)
    }

    fn insert(&mut self, key: K, value: V) {
        if self.values.insert(key, value).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.values.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_000);
    const HOME: Address = Address(1);
    const AWAY: Address = Address(2);

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
            let address = Address(u64::try_from(number).unwrap());
            memory.missed(&secret(number), address, NOW);
        }
        assert_eq!(memory.recall(&secret(0), HOME, NOW), Recalled::Key(key()));
        assert_eq!(
            memory.recall(&secret(3 * MOST), HOME, NOW),
            Recalled::Unknown
        );
        assert_eq!(memory.recall(&secret(1), HOME, NOW), Recalled::Nothing);
        assert_eq!(
            (memory.missed.values.len(), memory.missed.order.len()),
            (MOST, MOST)
        );
        assert_eq!(
            (memory.addresses.values.len(), memory.addresses.order.len()),
            (MOST, MOST)
        );
    }

    #[test]
    fn an_address_is_an_ipv4_address_or_an_ipv6_network() {
        let one = |text: &str, other: &str| Address::parse(text) == Address::parse(other);
        assert!(one("192.0.2.1", "192.0.2.1"));
        assert!(!one("192.0.2.1", "192.0.2.2"));
        assert!(one("2001:db8:0:1::1", "2001:db8:0:1:ffff::7"));
        assert!(one("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::1"));
        assert!(!one("2001:db8:0:1::1", "2001:db8:0:2::1"));
        assert!(one("2001:db8::1", "2001:db8::ffff:1"));
        assert!(!one("2001:db8::1", "2001:db9::1"));
        assert!(!one("", "192.0.2.1"));
    }
}
