//! Keys at rest (`account/at_rest.rs`) are read from their rows, by whoever asks for them.

use super::{Done, Failure, Object, Store, storage, to_json, told};
use crate::{
    account::{Account, Changes, Key, Rejected},
    id::KeyNumber,
    key::SecretDigest,
    protocol::{KeysQuery, Reply},
    time::Timestamp,
};

impl<S: Store> Object<S> {
    /// A page of keys. Their figures are made up to date first, which may have to be stored.
    pub(super) fn list_keys(
        &mut self,
        query: &KeysQuery,
        clock: Timestamp,
    ) -> Result<(Reply, Changes), Failure> {
        let changes = self.awake()?.book_refusals();
        let account = self.account.as_ref().ok_or(Failure::NoAccount)?;
        let after = query.after.unwrap_or(KeyNumber::new(0));
        let limit = u64::from(query.limit).saturating_add(1);
        let keys = keys_after(&self.store, account, after, limit)?;
        let json = to_json(&account.keys_view(&keys, query.limit, clock));
        Ok((told(200, json), changes))
    }

    pub(super) fn show_key(
        &mut self,
        number: KeyNumber,
        clock: Timestamp,
    ) -> Result<Done, Failure> {
        let changes = self.awake()?.book_refusals();
        let at_rest = self.key_at_rest(number)?;
        let account = self.awake()?;
        let Some(key) = at_rest.as_ref().or_else(|| account.key(number)) else {
            return Ok(Err(Rejected::UnknownKey));
        };
        let json = to_json(&account.view_of_key(number, key, clock));
        Ok(Ok((told(200, json), changes)))
    }

    /// A key is going to change, or what it has counted: it must not be at rest.
    pub(super) fn wake_key(&mut self, number: KeyNumber) -> Result<(), Failure> {
        if let Some(key) = self.key_at_rest(number)? {
            self.awake()?.wake_key(number, key);
        }
        Ok(())
    }

    /// A key is going to be used. If it is at rest and stands, a clock that had strayed put it there,
    /// and it wakes; if it is dead, it is given back.
    pub(super) fn wake_key_or_tell(
        &mut self,
        number: KeyNumber,
        clock: Timestamp,
    ) -> Result<Option<Key>, Failure> {
        let at_rest = self.key_at_rest(number)?;
        match at_rest {
            Some(key) if key.stands(clock) => self.awake()?.wake_key(number, key),
            dead_or_none => return Ok(dead_or_none),
        }
        Ok(None)
    }

    /// Wakes the key that once had this secret, which was imported.
    pub(super) fn wake_imported(&mut self, digest: &SecretDigest) -> Result<(), Failure> {
        if !self.awake()?.has_imported(digest) {
            for number in self.store.keys_with(digest.as_bytes()).map_err(storage)? {
                self.wake_key(number)?;
            }
        }
        Ok(())
    }

    fn key_at_rest(&mut self, number: KeyNumber) -> Result<Option<Key>, Failure> {
        let account = self.account.as_ref().ok_or(Failure::NoAccount)?;
        if !account.is_at_rest(number) {
            return Ok(None);
        }
        let row = self.store.keys(&[number]).map_err(storage)?.pop();
        let key = row.map(|(_, row)| account.read_at_rest(number, &row));
        Ok(key.transpose()?)
    }
}

/// Keys with a number above `last`, the oldest first, at most `limit`.
pub(super) fn keys_after<S: Store>(
    store: &S,
    account: &Account,
    last: KeyNumber,
    limit: u64,
) -> Result<Vec<(KeyNumber, Key)>, Failure> {
    let rows = store.keys_after(last, limit).map_err(storage)?;
    let key = |(number, row): (KeyNumber, Vec<u8>)| match account.key(number) {
        Some(key) => Ok((number, key.clone())),
        None => Ok((number, account.read_at_rest(number, &row)?)),
    };
    rows.into_iter().map(key).collect()
}
