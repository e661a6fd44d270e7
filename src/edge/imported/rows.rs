//! A lookup object's storage: one row for each secret.
//!
//! A table without a rowid costs one written row for each row, whatever its key.

use js_sys::Array;
use wasm_bindgen::prelude::*;

use crate::{
    edge::sql::{Database, Storage, StorageError, blob, integer},
    id::{AccountId, KeyId, KeyNumber},
    imported::{Registered, Store},
    key::SecretDigest,
};

const TABLE: &str = "imported_keys";
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS imported_keys (
        digest BLOB PRIMARY KEY, account TEXT NOT NULL, key INTEGER NOT NULL, withdrawn INTEGER NOT NULL
    ) WITHOUT ROWID";

/// A lookup object's table.
pub struct Rows {
    database: Database,
    has_table: bool,
}

impl Rows {
    /// Those of the object with this storage.
    pub fn new(storage: Storage) -> Self {
        let database = Database::new(storage);
        // Where this cannot be read, the next statement says why.
        let has_table = database.has_table(TABLE).unwrap_or(true);
        Self {
            database,
            has_table,
        }
    }

    /// Rows written since this was last asked: what the operator pays for.
    pub fn take_rows_written(&mut self) -> u32 {
        self.database.take_rows_written()
    }
}

impl Store for Rows {
    type Error = StorageError;

    fn find(&self, digest: &SecretDigest) -> Result<Option<Registered>, StorageError> {
        if !self.has_table {
            return Ok(None);
        }
        let rows = self.database.rows(
            "SELECT account, key, withdrawn FROM imported_keys WHERE digest = ?",
            &[blob(digest.as_bytes())],
        )?;
        if rows.length() == 0 {
            return Ok(None);
        }
        read(&rows.get(0).unchecked_into())
            .map(Some)
            .ok_or_else(|| StorageError::unreadable("imported key"))
    }

    fn put(&mut self, digest: &SecretDigest, registered: &Registered) -> Result<(), StorageError> {
        if !self.has_table {
            self.database.run(SCHEMA, &[])?;
            self.has_table = true;
        }
        let Registered { key, withdrawn } = registered;
        self.database.run(
            "INSERT OR REPLACE INTO imported_keys (digest, account, key, withdrawn) VALUES (?, ?, ?, ?)",
            &[
                blob(digest.as_bytes()),
                key.account.as_str().into(),
                key.number.get().into(),
                u32::from(*withdrawn).into(),
            ],
        )
    }
}

fn read(row: &Array) -> Option<Registered> {
    let number = u32::try_from(integer(&row.get(1))?).ok()?;
    Some(Registered {
        key: KeyId {
            account: AccountId::parse(&row.get(0).as_string()?)?,
            number: KeyNumber::new(number),
        },
        withdrawn: integer(&row.get(2))? != 0,
    })
}
