//! The directory's storage: records by number, their names, and the plans in force.
//!
//! A table without a rowid costs one written row for each row, whatever its key.

use js_sys::Array;
use wasm_bindgen::prelude::*;

use crate::{
    directory::{Found, NameRange, Store, Write},
    edge::{
        platform::to_number,
        sql::{Database, Storage, StorageError, blob, bytes, in_transaction, integer},
    },
    time::Timestamp,
};

const SCHEMA: &str = "
    CREATE TABLE records (number INTEGER PRIMARY KEY, body BLOB NOT NULL);
    CREATE TABLE names (
        kind INTEGER NOT NULL, text TEXT NOT NULL, number INTEGER NOT NULL,
        PRIMARY KEY (kind, text, number)
    ) WITHOUT ROWID;
    CREATE TABLE plans (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;";

/// Made where they are first written: there are directories of before.
const HOURS: &str =
    "CREATE TABLE IF NOT EXISTS hours (hour INTEGER PRIMARY KEY, body BLOB NOT NULL)";

/// The directory's tables.
pub struct Tables {
    database: Database,
    has_schema: bool,
}

impl Tables {
    /// Those of the object with this storage.
    pub fn new(storage: Storage) -> Self {
        Self {
            database: Database::new(storage),
            has_schema: false,
        }
    }

    /// Rows written since this was last asked: what the operator pays for.
    pub fn take_rows_written(&mut self) -> u32 {
        self.database.take_rows_written()
    }

    fn found(&self, query: &str, bindings: &[JsValue]) -> Result<Vec<Found>, StorageError> {
        let rows = self.query(query, bindings)?;
        rows.iter()
            .map(|row| {
                let row: Array = row.unchecked_into();
                let number = integer(&row.get(1)).and_then(|number| u64::try_from(number).ok());
                Ok(Found {
                    text: row.get(0).as_string().unwrap_or_default(),
                    number: number.ok_or_else(|| StorageError::unreadable("number"))?,
                    record: bytes(&row.get(2)),
                })
            })
            .collect()
    }

    /// Nothing, where nothing was written yet.
    fn query(&self, query: &str, bindings: &[JsValue]) -> Result<Array, StorageError> {
        if self.has_schema || self.database.has_table("records")? {
            self.database.rows(query, bindings)
        } else {
            Ok(Array::new())
        }
    }

    fn write(&mut self, write: &Write) -> Result<(), StorageError> {
        if !self.has_schema && !self.database.has_table("records")? {
            self.database.run(SCHEMA, &[])?;
        }
        let number = match &write.record {
            Some((number, body)) => {
                let number = JsValue::from(to_number(*number));
                self.database.run(
                    "INSERT OR REPLACE INTO records (number, body) VALUES (?, ?)",
                    &[number.clone(), blob(body)],
                )?;
                number
            }
            None => JsValue::NULL,
        };
        for (statement, names) in [
            (
                "DELETE FROM names WHERE kind = ? AND text = ? AND number = ?",
                &write.unnamed,
            ),
            (
                "INSERT INTO names (kind, text, number) VALUES (?, ?, ?)",
                &write.named,
            ),
        ] {
            for name in names {
                let kind = name.kind.number().into();
                self.database.run(
                    statement,
                    &[kind, name.text.as_str().into(), number.clone()],
                )?;
            }
        }
        if !write.hours.is_empty() {
            self.database.run(HOURS, &[])?;
        }
        for (hour, body) in &write.hours {
            self.database.run(
                "INSERT OR REPLACE INTO hours (hour, body) VALUES (?, ?)",
                &[millis(*hour), blob(body)],
            )?;
        }
        if let Some(first) = write.hours_from {
            self.database
                .run("DELETE FROM hours WHERE hour < ?", &[millis(first)])?;
        }
        for (name, body) in &write.plans {
            self.database.run(
                "INSERT OR REPLACE INTO plans (name, body) VALUES (?, ?)",
                &[name.as_str().into(), blob(body)],
            )?;
        }
        Ok(())
    }
}

fn millis(moment: Timestamp) -> JsValue {
    to_number(u64::try_from(moment.as_millis()).unwrap_or(0)).into()
}

impl Store for Tables {
    type Error = StorageError;

    fn plans(&self) -> Result<Vec<Vec<u8>>, StorageError> {
        let rows = self.query("SELECT body FROM plans", &[])?;
        let bodies = rows.iter().map(|row| row.unchecked_into::<Array>().get(0));
        Ok(bodies.map(|body| bytes(&body)).collect())
    }

    fn after(&self, number: u64, limit: u32) -> Result<Vec<Found>, StorageError> {
        self.found(
            "SELECT '', number, body FROM records WHERE number > ? ORDER BY number LIMIT ?",
            &[to_number(number).into(), limit.into()],
        )
    }

    /// The index is walked, and each record that it names is read: SQLite keeps a CROSS JOIN in
    /// its order.
    fn named(&self, names: &NameRange<'_>, limit: u32) -> Result<Vec<Found>, StorageError> {
        self.found(
            "SELECT names.text, names.number, records.body \
             FROM names CROSS JOIN records ON records.number = names.number \
             WHERE kind = ? AND (names.text, names.number) > (?, ?) AND names.text < ? \
             ORDER BY names.text, names.number LIMIT ?",
            &[
                names.kind.number().into(),
                names.from.into(),
                to_number(names.number).into(),
                names.to.into(),
                limit.into(),
            ],
        )
    }

    fn hours(
        &self,
        from: Timestamp,
        to: Timestamp,
        limit: usize,
    ) -> Result<Vec<(Timestamp, Vec<u8>)>, StorageError> {
        if !self.database.has_table("hours")? {
            return Ok(Vec::new());
        }
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let rows = self.database.rows(
            "SELECT hour, body FROM hours WHERE hour >= ? AND hour < ? ORDER BY hour DESC LIMIT ?",
            &[millis(from), millis(to), limit.into()],
        )?;
        rows.iter()
            .map(|row| {
                let row: Array = row.unchecked_into();
                let hour = integer(&row.get(0)).ok_or_else(|| StorageError::unreadable("hour"))?;
                Ok((Timestamp::from_millis(hour), bytes(&row.get(1))))
            })
            .collect()
    }

    fn commit(&mut self, write: &Write) -> Result<(), StorageError> {
        let storage = self.database.handle();
        in_transaction(&storage, &mut || self.write(write))?;
        self.has_schema = true;
        Ok(())
    }
}
