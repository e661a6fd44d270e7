//! What the directory has to know of the account, until it has said that it does.
//!
//! The account counts the versions of that. A message may be lost, come twice or late: the
//! directory passes over what is older than what it has, and the account tells again until the
//! latest version was acknowledged. Calls change nothing of it, so they never pay for it.

use std::collections::BTreeSet;

use crate::wire::{Decode, Encode};
use sha2::{Digest, Sha256};

use super::{Account, Changes, Key};
use crate::{directory::Report, id::KeyNumber, key::SecretId, time::Timestamp};

/// How far the directory is behind. It is stored in the snapshot, with each change.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Outbox {
    /// The version of what is to be known.
    #[n(0)]
    version: u64,
    /// The version that the directory has said it knows.
    #[n(1)]
    known: u64,
    /// When it came to be behind, in order time.
    #[n(2)]
    since: Timestamp,
    /// A digest of what is to be known, to tell whether a change changed it.
    #[n(3)]
    digest: u64,
}

impl Default for Outbox {
    /// That of an account that was opened before there was a directory: it has never been told.
    fn default() -> Self {
        Self {
            version: 1,
            known: 0,
            since: Timestamp::EPOCH,
            digest: 0,
        }
    }
}

impl Account {
    /// What the directory has to be told, if it does not know it.
    #[must_use]
    pub fn report(&self) -> Option<Report> {
        self.untold_since().map(|_| self.listing())
    }

    /// What the directory is told, if it is told.
    #[must_use]
    pub fn listing(&self) -> Report {
        Report {
            version: self.state.outbox.version,
            account: self.view(),
            plan: self.profile.plan.clone(),
            secrets: self.secrets(),
        }
    }

    /// Since when the directory may not know what it has to; `None` if it does.
    #[must_use]
    pub fn untold_since(&self) -> Option<Timestamp> {
        let outbox = &self.state.outbox;
        (outbox.known < outbox.version).then_some(outbox.since)
    }

    /// Counts a version more if what the directory has to know has changed. A snapshot has to
    /// come with it.
    pub fn note_listing(&mut self) -> bool {
        let digest = self.listing_digest();
        if digest == self.state.outbox.digest {
            return false;
        }
        if self.untold_since().is_none() {
            self.state.outbox.since = self.state.latest;
        }
        self.state.outbox.digest = digest;
        self.state.outbox.version = self.state.outbox.version.saturating_add(1);
        true
    }

    /// The directory was told of the account as it is now, as this version.
    pub(super) fn was_told(&mut self, version: u64) {
        self.state.outbox = Outbox {
            version,
            known: version,
            since: self.state.latest,
            digest: self.listing_digest(),
        };
    }

    /// The directory has `version` of this account, and lists it unless it disowns it.
    ///
    /// It has a later one than the account where the account's count was lost, as by a release
    /// that did not have it; then the account counts on from there, and tells again.
    pub fn directory_has(&mut self, version: u64, is_listed: bool) -> Changes {
        let outbox = &mut self.state.outbox;
        let is_this = version == outbox.version;
        let mut changes = Changes::default();
        if is_this && is_listed {
            changes.snapshot = outbox.known != version;
            outbox.known = version;
        } else if is_this || version > outbox.version {
            outbox.version = version.saturating_add(1);
            changes.snapshot = true;
        }
        changes
    }

    /// Keeps which KEY_SECRET a key was signed under.
    pub fn signed(&mut self, key: KeyNumber, secret: SecretId, changes: &mut Changes) {
        if let Some(signed) = self.keys.get_mut(&key) {
            signed.signed_under = Some(secret);
            changes.keys.insert(key);
        }
    }

    /// The version that the directory is told next, of whatever there will be to know.
    #[must_use]
    pub const fn next_version(&self) -> u64 {
        self.state.outbox.version.saturating_add(1)
    }

    /// When what the directory has to know changes next by time alone: a key expires, or the overlap
    /// of a rotation ends. The alarm then counts a version more.
    #[must_use]
    pub fn listing_ends_at(&self) -> Option<Timestamp> {
        let keys = self.keys.values().filter(|_| !self.is_closed());
        keys.filter_map(|key| key.next_end(self.state.latest)).min()
    }

    /// What the latest secret of a key was signed under, if that was kept.
    pub(super) fn latest_signed_under(&self, number: KeyNumber, key: &Key) -> Option<SecretId> {
        let of_before = || self.profile.signed_under.get(&number).copied();
        key.signed_under.or_else(of_before)
    }

    /// What the good secrets of the standing keys were signed under.
    fn secrets(&self) -> BTreeSet<SecretId> {
        self.keys
            .iter()
            .filter(|_| !self.is_closed())
            .flat_map(|(number, key)| {
                let latest = self.latest_signed_under(*number, key);
                key.signed_under(latest, self.state.latest)
            })
            .map(|secret| secret.unwrap_or(SecretId::UNKNOWN))
            .collect()
    }

    fn listing_digest(&self) -> u64 {
        // Encoding into memory cannot fail.
        let listing = minicbor::to_vec((self.view(), self.secrets())).unwrap_or_default();
        Sha256::digest(listing)
            .iter()
            .take(8)
            .fold(0, |digest, byte| (digest << 8) | u64::from(*byte))
    }
}
