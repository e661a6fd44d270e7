//! Keys: issued, changed, rotated, revoked; and which secret of theirs is good at a moment.
//!
//! A key's own time (its expiry, the end of an overlap) is told by the clock as read, as limits
//! and deadlines are: a clock that strays ahead must end no key for good.

use crate::wire::{Decode, Encode};

use super::{Account, Changes, Edit, KEYS_MAX, KeyUsage, Rejected, Scope, budget::BUDGET_POOL};
use crate::{
    credits::Credits,
    id::KeyNumber,
    key::{SecretDigest, SecretId},
    policy::Limits,
    time::{Span, Timestamp},
};

/// How long the secret before a rotation may stay good.
pub const OVERLAP_MAX: Span = Span::from_days(30);

/// Permission to call. Its secret is not here: only its digest.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Key {
    /// SHA-256 of the secret part.
    #[n(0)]
    pub digest: SecretDigest,
    /// A name for people.
    #[n(1)]
    pub name: Option<String>,
    /// When it was issued.
    #[n(2)]
    pub created_at: Timestamp,
    /// When it was revoked.
    #[n(3)]
    pub revoked_at: Option<Timestamp>,
    /// Its own limits, in place of the plan's.
    #[n(4)]
    pub limits: Option<KeyLimits>,
    /// The routes that it may call; `None`: all.
    #[n(5)]
    pub scope: Option<Scope>,
    /// From when on it is no longer good.
    #[n(6)]
    pub expires_at: Option<Timestamp>,
    /// The credits that its calls may cost in a calendar month.
    #[n(7)]
    pub budget: Option<Credits>,
    /// The secret that it had before it was last rotated.
    #[n(8)]
    pub previous: Option<PreviousSecret>,
    /// When it was last rotated.
    #[n(9)]
    pub rotated_at: Option<Timestamp>,
    /// SHA-256 of the secret that it had before Tollgate, kept when it is rotated.
    #[n(10)]
    pub imported: Option<SecretDigest>,
    /// What it has counted, while it is at rest.
    #[n(11)]
    pub(super) counted: Option<KeyUsage>,
    /// Which KEY_SECRET its latest secret was signed under, where that was kept.
    #[n(12)]
    pub(super) signed_under: Option<SecretId>,
    /// Whether nobody has used its latest secret yet, which a rotation gave it.
    #[cbor(n(13), default)]
    pub(super) is_untried: bool,
}

/// A secret that was replaced and stays good for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PreviousSecret {
    /// SHA-256 of it.
    #[n(0)]
    pub digest: SecretDigest,
    /// From when on it is dead.
    #[n(1)]
    pub until: Timestamp,
    /// Which KEY_SECRET it was signed under, where that was kept.
    #[n(2)]
    pub signed_under: Option<SecretId>,
}

impl Key {
    pub(super) fn new(new: NewKey, digest: SecretDigest, created_at: Timestamp) -> Self {
        Self {
            digest,
            name: new.name,
            created_at,
            revoked_at: None,
            limits: new.limits,
            scope: new.scope,
            expires_at: new.expires_at,
            budget: new.budget,
            previous: None,
            rotated_at: None,
            imported: None,
            counted: None,
            signed_under: None,
            is_untried: false,
        }
    }

    /// Whether it is neither revoked nor expired.
    #[must_use]
    pub fn stands(&self, clock: Timestamp) -> bool {
        self.revoked_at.is_none() && !self.is_expired(clock)
    }

    /// Whether its time is up.
    #[must_use]
    pub fn is_expired(&self, clock: Timestamp) -> bool {
        self.expires_at
            .is_some_and(|expires_at| expires_at <= clock)
    }

    /// When the secret before the last rotation will be dead, if it is not.
    #[must_use]
    pub fn overlap_ends_at(&self, clock: Timestamp) -> Option<Timestamp> {
        let until = self.previous?.until;
        (until > clock).then_some(until)
    }

    /// What its good secrets were signed under; `None` where that was not kept. `latest` is what that of
    /// its latest secret was kept as. A secret from before Tollgate was signed under nothing.
    pub(super) fn signed_under(
        &self,
        latest: Option<SecretId>,
        clock: Timestamp,
    ) -> impl Iterator<Item = Option<SecretId>> {
        let previous = self.previous.filter(|previous| previous.until > clock);
        let previous = previous.map(|previous| (previous.digest, previous.signed_under));
        [Some((self.digest, latest)), previous]
            .into_iter()
            .flatten()
            .filter(move |(digest, _)| self.stands(clock) && self.imported != Some(*digest))
            .map(|(_, secret)| secret)
    }

    /// When a secret of it will be dead next, if nothing comes before.
    pub(super) fn next_end(&self, clock: Timestamp) -> Option<Timestamp> {
        let ends = [self.overlap_ends_at(clock), self.expires_at];
        let ends = ends.into_iter().flatten().filter(|end| *end > clock);
        ends.min().filter(|_| self.revoked_at.is_none())
    }

    /// Whether who has the secret of this digest may use the key.
    #[must_use]
    pub fn admits(&self, digest: &SecretDigest, clock: Timestamp) -> bool {
        self.stands(clock) && self.has_secret(digest, clock)
    }

    /// Whether this is its secret, be the key revoked or expired. One that a rotation has ended is
    /// not: whoever still tries it says nothing of who has the key now.
    #[must_use]
    pub fn has_secret(&self, digest: &SecretDigest, clock: Timestamp) -> bool {
        let previous = self
            .previous
            .is_some_and(|previous| (previous.digest == *digest) & (previous.until > clock));
        // `|` and not `||`: each comparison takes its time, whichever fits.
        previous | (self.digest == *digest)
    }
}

/// A key's own limits; `None` is the plan's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[cbor(array)]
pub struct KeyLimits {
    /// Calls in any 60 seconds.
    #[n(0)]
    pub requests_per_minute: Option<Limit>,
    /// Calls in a day.
    #[n(1)]
    pub requests_per_day: Option<Limit>,
    /// Calls admitted and not yet answered.
    #[n(2)]
    pub requests_in_flight: Option<Limit>,
    /// Jobs not yet ended.
    #[n(3)]
    pub jobs_open: Option<Limit>,
}

/// One limit of a key's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Limit {
    /// None at all, whatever the plan says.
    #[n(0)]
    Unlimited,
    /// So many.
    #[n(1)]
    Of(#[n(0)] u32),
}

impl Limit {
    /// How no limit at all is written.
    pub const UNLIMITED: &str = "unlimited";
}

impl serde::Serialize for Limit {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unlimited => serializer.serialize_str(Self::UNLIMITED),
            Self::Of(limit) => serializer.serialize_u32(*limit),
        }
    }
}

impl KeyLimits {
    /// These limits, and the plan's where the key has none of its own.
    #[must_use]
    pub fn over(&self, plan: Limits) -> Limits {
        let over = |own: Option<Limit>, plan: Option<u32>| match own {
            None => plan,
            Some(Limit::Unlimited) => None,
            Some(Limit::Of(limit)) => Some(limit),
        };
        Limits {
            requests_per_minute: over(self.requests_per_minute, plan.requests_per_minute),
            requests_per_day: over(self.requests_per_day, plan.requests_per_day),
            requests_in_flight: over(self.requests_in_flight, plan.requests_in_flight),
            jobs_open: over(self.jobs_open, plan.jobs_open),
            account_requests_per_minute: plan.account_requests_per_minute,
        }
    }
}

/// Issues a key. Its secret never comes here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct NewKey {
    /// A name for people.
    #[n(0)]
    pub name: Option<String>,
    /// Its own limits.
    #[n(1)]
    pub limits: Option<KeyLimits>,
    /// The routes that it may call.
    #[n(2)]
    pub scope: Option<Scope>,
    /// From when on it is no longer good.
    #[n(3)]
    pub expires_at: Option<Timestamp>,
    /// The credits that its calls may cost in a calendar month.
    #[n(4)]
    pub budget: Option<Credits>,
}

/// Changes a key: what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PatchKey {
    /// A name for people.
    #[n(0)]
    pub name: Option<Edit>,
    /// Its own limits, all of them anew.
    #[n(1)]
    pub limits: Option<Edit<KeyLimits>>,
    /// The routes that it may call.
    #[n(2)]
    pub scope: Option<Edit<Scope>>,
    /// From when on it is no longer good.
    #[n(3)]
    pub expires_at: Option<Edit<Timestamp>>,
    /// The credits that its calls may cost in a calendar month.
    #[n(4)]
    pub budget: Option<Edit<Credits>>,
}

/// Gives a key another secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct RotateKey {
    /// The key.
    #[n(0)]
    pub key: KeyNumber,
    /// How long its present secret stays good, at most [`OVERLAP_MAX`].
    #[n(1)]
    pub overlap: Span,
}

impl Account {
    /// The key `number`, standing or not, unless it is at rest.
    #[must_use]
    pub fn key(&self, number: KeyNumber) -> Option<&Key> {
        self.keys.get(&number)
    }

    /// The key whose latest secret part has this digest.
    #[must_use]
    pub fn key_of(&self, digest: &SecretDigest) -> Option<KeyNumber> {
        let mut keys = self.keys.iter();
        keys.find(|(_, key)| key.digest == *digest)
            .map(|(number, _)| *number)
    }

    /// The limits that hold for a key: its own, and else the plan's.
    #[must_use]
    pub fn limits_of(&self, key: KeyNumber) -> Limits {
        let plan = self.profile.plan.limits;
        self.keys
            .get(&key)
            .and_then(|key| key.limits)
            .map_or(plan, |own| own.over(plan))
    }

    /// The number that the next key will have: its secret has to be signed with it first.
    #[must_use]
    pub const fn next_key(&self) -> KeyNumber {
        KeyNumber::new(self.profile.keys_issued.saturating_add(1))
    }

    /// Issues a key; its digest is the caller's to make.
    ///
    /// # Errors
    /// The account has as many keys as it may, the key would be expired, or its scope or budget
    /// is of nothing that the policy has.
    pub fn create_key(
        &mut self,
        new: NewKey,
        digest: SecretDigest,
        clock: Timestamp,
    ) -> Result<(KeyNumber, Changes), Rejected> {
        let key = Key::new(new, digest, clock);
        self.check_new_key(&key, clock)?;
        let mut changes = Changes::default();
        self.book_due(clock, &mut changes);
        let number = self.next_key();
        self.profile.keys_issued = number.get();
        self.keys.insert(number, key);
        changes.profile = true;
        changes.keys.insert(number);
        // Without calls there are no other snapshots to put those to rest that have expired.
        changes.snapshot |= self.idle_dead_keys().next().is_some();
        Ok((number, changes))
    }

    /// Changes a key. What it has counted stays.
    ///
    /// # Errors
    /// No such key, a revoked one, or as in [`Account::create_key`].
    pub fn patch_key(
        &mut self,
        number: KeyNumber,
        patch: PatchKey,
        clock: Timestamp,
    ) -> Result<Changes, Rejected> {
        let before = self.unrevoked(number)?;
        let mut key = before.clone();
        set(&mut key.name, patch.name);
        set(&mut key.limits, patch.limits);
        // What is not set anew may have left the policy, or run out, since.
        if patch.scope.is_some() {
            set(&mut key.scope, patch.scope);
            self.check_scope(&key)?;
        }
        if patch.budget.is_some() {
            set(&mut key.budget, patch.budget);
            self.check_budget(&key)?;
        }
        if patch.expires_at.is_some() {
            set(&mut key.expires_at, patch.expires_at);
            if key.is_expired(clock) {
                return Err(Rejected::AlreadyExpired);
            }
        }
        let is_revived = key.stands(clock) && !before.stands(clock);
        if is_revived {
            self.check_room_for_a_key(clock)?;
        }
        let is_changed = *before != key;
        let mut changes = Changes::default();
        self.book_due(clock, &mut changes);
        if is_revived {
            self.overlook_refusals(number, clock);
        }
        if is_changed {
            self.keys.insert(number, key);
            changes.keys.insert(number);
            // Calls are counted under the key's limits: those of before must not be replayed
            // under those of now.
            changes.snapshot = true;
        }
        Ok(changes)
    }

    /// Gives a key another secret. The one that is in use stays good until the overlap is over, any
    /// other is dead at once. Everything else about the key stays as it is.
    ///
    /// In use is the latest, unless nobody has used it yet while the one before it is good: then the
    /// answer to that rotation may have been lost, and callers have the one before.
    ///
    /// # Errors
    /// No such key, a revoked or an expired one.
    pub fn rotate_key(
        &mut self,
        rotate: RotateKey,
        digest: SecretDigest,
        clock: Timestamp,
    ) -> Result<Changes, Rejected> {
        let before = self.unrevoked(rotate.key)?;
        if before.is_expired(clock) {
            return Err(Rejected::ExpiredKey);
        }
        let overlap = rotate.overlap.min(OVERLAP_MAX);
        let until = clock.plus(overlap);
        let before_it = before.previous.filter(|previous| previous.until > clock);
        let in_use = match before_it.filter(|_| before.is_untried) {
            Some(previous) => PreviousSecret { until, ..previous },
            None => PreviousSecret {
                digest: before.digest,
                until,
                signed_under: self.latest_signed_under(rotate.key, before),
            },
        };
        let key = Key {
            digest,
            previous: (overlap > Span::ZERO).then_some(in_use),
            rotated_at: Some(clock),
            is_untried: true,
            ..before.clone()
        };
        let mut changes = Changes::default();
        self.book_due(clock, &mut changes);
        self.keys.insert(rotate.key, key);
        changes.keys.insert(rotate.key);
        changes.snapshot = true;
        Ok(changes)
    }

    /// Notes that a secret was used. This costs a row once for each rotation; replay needs to know
    /// nothing of it.
    pub fn secret_used(&mut self, number: KeyNumber, digest: &SecretDigest, changes: &mut Changes) {
        let key = self.keys.get_mut(&number);
        if let Some(key) = key.filter(|key| key.is_untried && key.digest == *digest) {
            key.is_untried = false;
            changes.keys.insert(number);
        }
    }

    /// Revokes a key, at once and for good. Revoking it again changes nothing.
    ///
    /// # Errors
    /// No such key.
    pub fn revoke_key(&mut self, number: KeyNumber, clock: Timestamp) -> Result<Changes, Rejected> {
        let key = self.keys.get_mut(&number).ok_or(Rejected::UnknownKey)?;
        let mut changes = Changes::default();
        if key.revoked_at.is_none() {
            key.revoked_at = Some(clock);
            changes.keys.insert(number);
            // It is put to rest.
            changes.snapshot = true;
            if let Some(digest) = key.imported {
                self.withdraw(number, digest, clock, &mut changes);
            }
        }
        self.book_due(clock, &mut changes);
        Ok(changes)
    }

    fn unrevoked(&self, number: KeyNumber) -> Result<&Key, Rejected> {
        let key = self.keys.get(&number).ok_or(Rejected::UnknownKey)?;
        if key.revoked_at.is_some() {
            return Err(Rejected::RevokedKey);
        }
        Ok(key)
    }

    pub(super) fn check_new_key(&self, key: &Key, clock: Timestamp) -> Result<(), Rejected> {
        self.check_scope(key)?;
        self.check_budget(key)?;
        if key.is_expired(clock) {
            return Err(Rejected::AlreadyExpired);
        }
        self.check_room_for_a_key(clock)
    }

    fn check_scope(&self, key: &Key) -> Result<(), Rejected> {
        match &key.scope {
            Some(scope) => scope.check(&self.policy.routes),
            None => Ok(()),
        }
    }

    fn check_budget(&self, key: &Key) -> Result<(), Rejected> {
        if key.budget.is_some() && !self.policy.pools.contains_key(BUDGET_POOL) {
            return Err(Rejected::NoBudgetPool);
        }
        Ok(())
    }

    fn check_room_for_a_key(&self, clock: Timestamp) -> Result<(), Rejected> {
        let standing = self.keys.values().filter(|key| key.stands(clock)).count();
        let standing = standing.saturating_add(self.keys_wanted().count());
        let most = self.profile.plan.max_keys.unwrap_or(KEYS_MAX).min(KEYS_MAX);
        if standing >= usize::try_from(most).unwrap_or(usize::MAX) {
            return Err(Rejected::TooManyKeys(most));
        }
        Ok(())
    }
}

fn set<T>(value: &mut Option<T>, edit: Option<Edit<T>>) {
    if let Some(edit) = edit {
        *value = edit.into_value();
    }
}
