//! Erasing a closed account: everything that is stored of it goes in one commit, and a tombstone is
//! left. It keeps the id from being given out again, and tells the directory until that knows.

use super::{Failure, Object, Store, Write, storage};
use crate::{
    account::Broken,
    directory,
    id::AccountId,
    time::Timestamp,
    wire::{Decode, Encode},
};

/// What is left of an account: nothing of what it was. Stored; places are only added.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Tombstone {
    #[n(0)]
    pub id: AccountId,
    /// When it was erased.
    #[n(1)]
    pub at: Timestamp,
    /// The version as which the directory is told.
    #[n(2)]
    version: u64,
    /// Whether it knows.
    #[n(3)]
    is_known: bool,
}

impl Tombstone {
    /// What the directory has to be told, if it does not know it.
    pub fn report(&self) -> Option<directory::Request> {
        (!self.is_known).then(|| directory::Request::Erased {
            id: self.id.clone(),
            version: self.version,
        })
    }

    /// Since when the directory may not know; `None` if it does.
    pub fn untold_since(&self) -> Option<Timestamp> {
        (!self.is_known).then_some(self.at)
    }
}

impl<S: Store> Object<S> {
    /// Erases the account, if it is closed and its time is over by the clock as read. The alarm
    /// alone does this.
    pub(super) fn erase(&mut self, clock: Timestamp) -> Result<(), Failure> {
        let account = self.awake()?;
        if account.erased_at().is_none_or(|due| clock < due) {
            return Ok(());
        }
        let tombstone = Tombstone {
            id: account.id().clone(),
            at: clock,
            version: account.next_version(),
            is_known: false,
        };
        self.bury(tombstone)?;
        self.account = None;
        self.audit = None;
        self.reads.clear();
        Ok(())
    }

    /// The tombstone, as it is stored.
    pub(super) fn load_tombstone(&self) -> Result<Option<Tombstone>, Failure> {
        let stored = self.store.tombstone().map_err(storage)?;
        let read = |bytes: Vec<u8>| minicbor::decode(&bytes).map_err(Broken::from);
        Ok(stored.map(read).transpose()?)
    }

    /// The directory has `version` of what it was told of an account that is erased.
    pub(super) fn directory_has_tombstone(
        &mut self,
        mut tombstone: Tombstone,
        version: u64,
    ) -> Result<(), Failure> {
        if tombstone.is_known || version < tombstone.version {
            return Ok(());
        }
        if version == tombstone.version {
            tombstone.is_known = true;
        } else {
            // As in [`crate::account::Account::directory_has`].
            tombstone.version = version.saturating_add(1);
        }
        self.bury(tombstone)
    }

    fn bury(&mut self, tombstone: Tombstone) -> Result<(), Failure> {
        let write = Write {
            // Encoding into memory cannot fail.
            tombstone: Some(minicbor::to_vec(&tombstone).unwrap_or_default()),
            ..Write::default()
        };
        self.store.commit(&write).map_err(storage)?;
        self.tombstone = Some(tombstone);
        Ok(())
    }
}
