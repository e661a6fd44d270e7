//! Keys that were issued before Tollgate: their secrets, and what the lookup objects have to be
//! asked and told about them.
//!
//! A secret may be one account's alone, and the lookup objects say whose. So such a key has two steps
//! with a question between them: its intent is kept, its number taken; then it is asked for; then the
//! key is there, or there never was one. Each matter is kept in the profile until it is answered, so that
//! no crash leaves a key that nobody finds, or a secret that nobody can have.

use super::{Account, Changes, KEYS_MAX, Key, NewKey, Rejected};
use crate::{
    id::KeyNumber,
    imported::{Reply, Request},
    key::SecretDigest,
    time::Timestamp,
    wire::{Decode, Encode},
};

/// What has to be settled with a lookup object about a key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Errand {
    /// SHA-256 of the secret.
    #[n(0)]
    digest: SecretDigest,
    /// Since when it waits.
    #[n(1)]
    since: Timestamp,
    #[n(2)]
    matter: Matter,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
enum Matter {
    /// The secret is wanted for this key, which is not there yet.
    #[n(0)]
    Register(#[n(0)] NewKey),
    /// The key was revoked: another account may have the secret.
    #[n(1)]
    Withdraw,
}

impl Account {
    /// Imports a key: its number if it is there, `None` where a lookup object has to be asked first
    /// ([`Account::errand_about`]). Importing a secret again gives the same key.
    ///
    /// # Errors
    /// The account is closed; the secret's key here was revoked, which is for good, has another secret
    /// since, or differs from what is told of this one; or as in [`Account::create_key`].
    pub fn import_key(
        &mut self,
        new: &NewKey,
        digest: SecretDigest,
        clock: Timestamp,
    ) -> Result<(Option<KeyNumber>, Changes), Rejected> {
        if let Some(at) = self.profile.status.closed_at() {
            return Err(Rejected::Closed(at));
        }
        let mut changes = Changes::default();
        let known = self
            .keys
            .iter()
            .find(|(_, key)| key.imported == Some(digest));
        if let Some((number, key)) = known {
            if key.revoked_at.is_some() {
                return Err(Rejected::SecretRevoked(self.key_id(*number)));
            }
            if !key.has_secret(&digest, clock) {
                return Err(Rejected::SecretRotated(self.key_id(*number)));
            }
            if !key.is_as_told(new) {
                return Err(Rejected::SecretKnown(self.key_id(*number)));
            }
            return Ok((Some(*number), changes));
        }
        if self.errand_about(&digest).is_none() {
            let holding = self.keys.values().filter(|key| key.holds_imported_secret());
            if holding.count().saturating_add(self.keys_wanted().count()) >= KEYS_MAX as usize {
                return Err(Rejected::TooManyKeys(KEYS_MAX));
            }
            self.check_new_key(&Key::new(new.clone(), digest, clock), clock)?;
            let number = self.next_key();
            self.profile.keys_issued = number.get();
            let errand = Errand {
                digest,
                since: clock,
                matter: Matter::Register(new.clone()),
            };
            self.profile.errands.insert(number, errand);
            changes.profile = true;
        }
        Ok((None, changes))
    }

    /// The request that asks for a secret that is wanted here.
    #[must_use]
    pub fn errand_about(&self, digest: &SecretDigest) -> Option<Request> {
        let is_it = |errand: &Errand| {
            errand.digest == *digest && matches!(errand.matter, Matter::Register(_))
        };
        let errands = &self.profile.errands;
        let (number, errand) = errands.iter().find(|(_, errand)| is_it(errand))?;
        Some(self.request(*number, errand))
    }

    /// What a lookup object has to be asked or told, if anything.
    #[must_use]
    pub fn errand(&self) -> Option<Request> {
        let (number, errand) = self.profile.errands.first_key_value()?;
        Some(self.request(*number, errand))
    }

    /// Since when there is something that a lookup object has not answered.
    #[must_use]
    pub fn errands_since(&self) -> Option<Timestamp> {
        self.profile
            .errands
            .values()
            .map(|errand| errand.since)
            .min()
    }

    /// Books what a lookup object has replied. Late and repeated replies change nothing.
    pub fn looked_up(&mut self, reply: &Reply, clock: Timestamp) -> Changes {
        let mut changes = Changes::default();
        let (key, is_withdrawn) = match reply {
            Reply::Registered(key) | Reply::Taken { key, .. } => (key, false),
            Reply::Withdrawn(key) => (key, true),
            Reply::Found(_) | Reply::Unavailable { .. } => return changes,
        };
        let errands = &mut self.profile.errands;
        let Some(errand) = errands
            .get(&key.number)
            .filter(|errand| matches!(errand.matter, Matter::Withdraw) == is_withdrawn)
            .cloned()
        else {
            return changes;
        };
        errands.remove(&key.number);
        // Where one answers, so will the others: what still waits has not been asked in vain.
        for waiting in errands.values_mut() {
            if matches!(waiting.matter, Matter::Withdraw) {
                waiting.since = waiting.since.max(clock);
            }
        }
        changes.profile = true;
        if let (Reply::Registered(_), Matter::Register(new)) = (reply, errand.matter) {
            let key_there = Key {
                imported: Some(errand.digest),
                ..Key::new(new, errand.digest, errand.since)
            };
            self.keys.insert(key.number, key_there);
            changes.keys.insert(key.number);
            if self.is_closed() {
                // It was closed while the secret was asked for.
                self.withdraw(key.number, errand.digest, errand.since, &mut changes);
            }
        }
        changes
    }

    /// The key of this secret was revoked.
    pub(super) fn withdraw(
        &mut self,
        number: KeyNumber,
        digest: SecretDigest,
        clock: Timestamp,
        changes: &mut Changes,
    ) {
        let errand = Errand {
            digest,
            since: clock,
            matter: Matter::Withdraw,
        };
        self.profile.errands.insert(number, errand);
        changes.profile = true;
    }

    /// The account is closed: other accounts may have its secrets.
    pub(super) fn withdraw_all(&mut self, clock: Timestamp, changes: &mut Changes) {
        let standing = self.keys.iter();
        let secrets: Vec<_> = standing
            .filter(|(_, key)| key.holds_imported_secret())
            .filter_map(|(number, key)| Some((*number, key.imported?)))
            .collect();
        for (number, digest) in secrets {
            self.withdraw(number, digest, clock, changes);
        }
    }

    /// The keys that will be there if they are not refused.
    pub(super) fn keys_wanted(&self) -> impl Iterator<Item = KeyNumber> + '_ {
        let errands = self.profile.errands.iter();
        errands
            .filter(|(_, errand)| matches!(errand.matter, Matter::Register(_)))
            .map(|(number, _)| *number)
    }

    /// Whether the key of a secret that was imported is in memory.
    #[must_use]
    pub fn has_imported(&self, digest: &SecretDigest) -> bool {
        let mut keys = self.keys.values();
        keys.any(|key| key.imported == Some(*digest))
    }

    fn request(&self, number: KeyNumber, errand: &Errand) -> Request {
        let (digest, key) = (errand.digest, self.key_id(number));
        match errand.matter {
            Matter::Register(_) => Request::Register { digest, key },
            Matter::Withdraw => Request::Withdraw { digest, key },
        }
    }
}

impl Key {
    /// Whether no other account may have the secret that it had before Tollgate: also when it has
    /// expired, until it is revoked.
    pub(super) const fn holds_imported_secret(&self) -> bool {
        self.imported.is_some() && self.revoked_at.is_none()
    }

    /// Whether it is what is told of a key to be imported, as far as something is told.
    fn is_as_told(&self, new: &NewKey) -> bool {
        fn agrees<T: PartialEq>(told: &Option<T>, is: &Option<T>) -> bool {
            told.is_none() || told == is
        }
        agrees(&new.name, &self.name)
            && agrees(&new.limits, &self.limits)
            && agrees(&new.scope, &self.scope)
            && agrees(&new.expires_at, &self.expires_at)
            && agrees(&new.budget, &self.budget)
    }
}
