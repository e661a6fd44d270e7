//! The account object's storage: SQLite, through statements that are constant or name a month's
//! table.
//!
//! A table with an INTEGER PRIMARY KEY costs one written row for each row; there is no other
//! index. The schema has a version and is only ever added to, so that the release before can run
//! on it.

use std::ops::Range;

use js_sys::{Array, JsString, Uint8Array};
use wasm_bindgen::prelude::*;

use super::platform::{message_of, to_number};
use crate::{
    account::{CallEnd, Fingerprint, First, Rolled},
    call::{Call, CallRow, CallState, Hold, Outcome},
    credits::Credits,
    event::{self, EventRecord},
    id::{CallNumber, EventNumber, KeyNumber},
    ledger::{Entry, EntryKind, LotNumber},
    object::{Intent, Loaded, Remembered, Store, Write, pieces},
    payments::history::Payment,
    price::Mark,
    protocol::UsageFilter,
    time::{Calendar, Day, MonthNumber, Timestamp},
    totals::Totals,
};

/// The stored schema's version.
const SCHEMA_VERSION: u64 = 1;
const SCHEMA: &str = "
    CREATE TABLE account (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
    CREATE TABLE keys (number INTEGER PRIMARY KEY, body BLOB NOT NULL);
    CREATE TABLE entries (
        number INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind INTEGER NOT NULL, pool TEXT NOT NULL,
        lot INTEGER NOT NULL, credits INTEGER NOT NULL, balance INTEGER NOT NULL,
        calls_before INTEGER NOT NULL, call INTEGER, reference TEXT
    );
    CREATE TABLE answers (
        id INTEGER PRIMARY KEY, key BLOB NOT NULL, request BLOB NOT NULL, status INTEGER NOT NULL,
        json TEXT NOT NULL, until INTEGER
    );";
/// Made when the first month is rolled up.
const ROLLED: &str =
    "CREATE TABLE IF NOT EXISTS rolled (number INTEGER PRIMARY KEY, body BLOB NOT NULL)";
/// Made with the first event. An event's row is its number modulo [`EVENTS_KEPT`].
const EVENTS: &str =
    "CREATE TABLE IF NOT EXISTS events (row INTEGER PRIMARY KEY, body BLOB NOT NULL)";
/// Made when the first payment is heard of. Without a ROWID a name is the table's one key.
const PAYMENTS: &str = "
    CREATE TABLE IF NOT EXISTS payments (number INTEGER PRIMARY KEY, body BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS payment_names (name TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;";
/// The table of the answers that are kept for good; those that are kept for a day lie in tables
/// named after it and the day.
const ANSWERS: &str = "answers";
/// Rows of the table `account`.
const VERSION_ROW: u32 = 1;
const PROFILE_ROW: u32 = 2;
const SNAPSHOT_ROW: u32 = 3;
const NOTICES_ROW: u32 = 4;
/// Where the second piece of a snapshot lies that has several; the others follow.
const PIECES_ROW: u32 = 1001;
/// No piece lies beyond this row.
const LAST_PIECE_ROW: u32 = 1999;
/// The columns of a call, in the order in which [`read_call`] reads them.
const CALL_COLUMNS: &str = "number, at, key, method, endpoint, hold, state, status, charged, response_time_ms, \
    ended_at, mark, nth_end, first_charged";
/// The columns of an entry, in the order in which [`read_entry`] reads them.
const ENTRY_COLUMNS: &str =
    "number, at, kind, pool, lot, credits, balance, calls_before, call, reference";

#[wasm_bindgen]
extern "C" {
    /// The object with this storage begins anew after this message: a database that could not be written, or
    /// was opened while it could only be read, stays so for as long as it is open.
    #[wasm_bindgen(js_namespace = tollgate, js_name = storageFailed)]
    fn storage_failed(storage: &Storage);

    /// An object's storage.
    pub type Storage;
    #[wasm_bindgen(method, getter)]
    pub fn sql(this: &Storage) -> Sql;
    #[wasm_bindgen(method, catch, js_name = transactionSync)]
    fn transaction_sync(
        this: &Storage,
        work: &mut dyn FnMut() -> Result<(), JsValue>,
    ) -> Result<(), JsValue>;
    #[wasm_bindgen(method, catch, js_name = setAlarm)]
    pub fn set_alarm(this: &Storage, at_millis: f64) -> Result<js_sys::Promise, JsValue>;

    /// Its SQLite database.
    pub type Sql;
    #[wasm_bindgen(method, catch, variadic)]
    fn exec(this: &Sql, statement: &JsString, bindings: &Array) -> Result<Cursor, JsValue>;
    #[wasm_bindgen(method, catch, js_name = exec)]
    fn exec_admit(
        this: &Sql,
        statement: &JsString,
        number: f64,
        at: f64,
        key: u32,
        method: &str,
        endpoint: &str,
        hold: Uint8Array,
    ) -> Result<Cursor, JsValue>;
    #[wasm_bindgen(method, catch, js_name = exec)]
    fn exec_end(
        this: &Sql,
        statement: &JsString,
        state: u8,
        status: Option<u16>,
        charged: f64,
        response_time_ms: u32,
        ended_at: f64,
        mark: Option<u8>,
        nth_end: f64,
        number: f64,
    ) -> Result<Cursor, JsValue>;

    /// What a statement gives.
    type Cursor;
    #[wasm_bindgen(method, catch)]
    fn raw(this: &Cursor) -> Result<RawRows, JsValue>;
    #[wasm_bindgen(method, getter, js_name = rowsWritten)]
    fn rows_written(this: &Cursor) -> f64;

    /// Its rows, each an array of values.
    type RawRows;
    #[wasm_bindgen(method, catch, js_name = toArray)]
    fn to_array(this: &RawRows) -> Result<Array, JsValue>;
}

/// What went wrong with the storage, for the log.
#[derive(Debug)]
pub struct StorageError(String);

impl std::fmt::Display for StorageError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl From<JsValue> for StorageError {
    fn from(thrown: JsValue) -> Self {
        Self(message_of(&thrown))
    }
}

impl StorageError {
    pub fn unreadable(what: &str) -> Self {
        Self(format!("stored {what} cannot be read"))
    }
}

/// An account's storage.
pub struct SqlStore {
    database: Database,
    /// The statements of the month that calls are written to.
    month: Option<MonthStatements>,
}

/// An object's database, and what was written to it.
pub struct Database {
    storage: Storage,
    sql: Sql,
    rows_written: f64,
}

impl Database {
    /// That of the object with this storage.
    pub fn new(storage: Storage) -> Self {
        let sql = storage.sql();
        Self {
            storage,
            sql,
            rows_written: 0.0,
        }
    }

    /// Rows written since this was last asked: what the operator pays for.
    pub fn take_rows_written(&mut self) -> u32 {
        // A message writes a handful of rows.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rows = std::mem::take(&mut self.rows_written) as u32;
        rows
    }

    /// What a query gives.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn rows(&self, statement: &str, bindings: &[JsValue]) -> Result<Array, StorageError> {
        let cursor = self
            .sql
            .exec(&statement.into(), &bindings.iter().collect())?;
        Ok(cursor.raw()?.to_array()?)
    }

    /// Carries out a statement that writes.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn run(&mut self, statement: &str, bindings: &[JsValue]) -> Result<(), StorageError> {
        let cursor = self
            .sql
            .exec(&statement.into(), &bindings.iter().collect())
            .inspect_err(|_| storage_failed(&self.storage))?;
        self.rows_written += cursor.rows_written();
        Ok(())
    }

    /// Whether there is such a table.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn has_table(&self, name: &str) -> Result<bool, StorageError> {
        let found = self.rows(
            "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?",
            &[name.into()],
        )?;
        Ok(found.length() > 0)
    }

    /// The storage again, for what borrows the database meanwhile.
    pub fn handle(&self) -> Storage {
        JsValue::from(&self.storage).unchecked_into()
    }
}

/// Does all of `work`, or nothing where it fails.
///
/// # Errors
/// The error of `work`, or that its writes could not be kept.
pub fn in_transaction(
    storage: &Storage,
    work: &mut dyn FnMut() -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let mut failed = None;
    let committed = storage.transaction_sync(&mut || {
        work().map_err(|error| {
            let thrown = JsValue::from_str(&error.0);
            failed = Some(error);
            thrown
        })
    });
    match (failed, committed) {
        (Some(error), _) => Err(error),
        (None, Err(thrown)) => {
            storage_failed(storage);
            Err(thrown.into())
        }
        (None, Ok(())) => Ok(()),
    }
}

struct MonthStatements {
    month: MonthNumber,
    admit: JsString,
    end: JsString,
}

impl MonthStatements {
    fn of(month: MonthNumber) -> Self {
        let table = table_of(month);
        Self {
            month,
            admit: format!("INSERT INTO {table} (number, at, key, method, endpoint, hold) VALUES (?, ?, ?, ?, ?, ?)").into(),
            end: format!(
                "UPDATE {table} SET state = ?, status = ?, charged = ?, response_time_ms = ?, ended_at = ?, mark = ?, \
                 nth_end = ? WHERE number = ?"
            )
            .into(),
        }
    }
}

impl SqlStore {
    /// The storage of the object it is opened in.
    pub fn new(storage: Storage) -> Self {
        Self {
            database: Database::new(storage),
            month: None,
        }
    }

    /// The storage itself, for alarms.
    pub const fn storage(&self) -> &Storage {
        &self.database.storage
    }

    /// Rows written since this was last asked: what the operator pays for.
    pub fn take_rows_written(&mut self) -> u32 {
        self.database.take_rows_written()
    }

    fn rows(&self, statement: &str, bindings: &[JsValue]) -> Result<Array, StorageError> {
        self.database.rows(statement, bindings)
    }

    fn run(&mut self, statement: &str, bindings: &[JsValue]) -> Result<(), StorageError> {
        self.database.run(statement, bindings)
    }

    fn has_table(&self, name: &str) -> Result<bool, StorageError> {
        self.database.has_table(name)
    }

    /// What is in a table of one row, if it is there.
    fn only_body(&self, table: &str) -> Result<Option<Vec<u8>>, StorageError> {
        if !self.has_table(table)? {
            return Ok(None);
        }
        let rows = self.rows(&format!("SELECT body FROM {table}"), &[])?;
        let row = rows.iter().next();
        Ok(row.map(|row| bytes(&row.unchecked_into::<Array>().get(0))))
    }

    fn calls(&self, query: &str, bindings: &[JsValue]) -> Result<Vec<CallRow>, StorageError> {
        self.rows(query, bindings)?
            .iter()
            .map(|row| read_call(&row.unchecked_into()))
            .collect()
    }

    fn entries(&self, query: &str, bindings: &[JsValue]) -> Result<Vec<Entry>, StorageError> {
        self.rows(query, bindings)?
            .iter()
            .map(|row| read_entry(&row.unchecked_into()))
            .collect()
    }

    /// Drops every table, which writes no rows, and leaves the tombstone.
    fn erase(&mut self, tombstone: &[u8]) -> Result<(), StorageError> {
        // The runtime keeps tables of its own, whose names begin with `_`.
        let tables = self.rows(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB '[a-z]*' AND name NOT GLOB 'sqlite_*'",
            &[],
        )?;
        for table in tables.iter() {
            let name = table.unchecked_into::<Array>().get(0).as_string();
            self.run(&format!("DROP TABLE {}", name.unwrap_or_default()), &[])?;
        }
        self.month = None;
        self.run(
            "CREATE TABLE tombstone (id INTEGER PRIMARY KEY, body BLOB NOT NULL)",
            &[],
        )?;
        self.run(
            "INSERT INTO tombstone (id, body) VALUES (1, ?)",
            &[blob(tombstone)],
        )
    }

    fn write(&mut self, write: &Write) -> Result<(), StorageError> {
        if let Some(tombstone) = &write.tombstone {
            return self.erase(tombstone);
        }
        if write.profile.is_some() && !self.has_table("account")? {
            self.run(SCHEMA, &[])?;
            self.put(VERSION_ROW, &SCHEMA_VERSION.to_be_bytes())?;
        }
        if let Some(month) = write.changes.new_month {
            self.run(
                &format!(
                    "CREATE TABLE IF NOT EXISTS {} (
                        number INTEGER PRIMARY KEY, at INTEGER NOT NULL, key INTEGER NOT NULL, method TEXT NOT NULL,
                        endpoint TEXT NOT NULL, hold BLOB NOT NULL, state INTEGER NOT NULL DEFAULT 0, status INTEGER,
                        charged INTEGER, response_time_ms INTEGER, ended_at INTEGER, mark INTEGER,
                        nth_end INTEGER NOT NULL DEFAULT 0, first_charged INTEGER)",
                    table_of(month)
                ),
                &[],
            )?;
        }
        if let Some(day) = write.changes.new_first_day {
            // Without a ROWID the digest is the table's one key: each first is one row written.
            self.run(
                &format!(
                    "CREATE TABLE IF NOT EXISTS {} (
                        key BLOB PRIMARY KEY, request BLOB NOT NULL, call INTEGER NOT NULL, at INTEGER NOT NULL
                    ) WITHOUT ROWID",
                    firsts_of(day)
                ),
                &[],
            )?;
        }
        for day in &write.changes.past_first_days {
            self.run(&format!("DROP TABLE IF EXISTS {}", firsts_of(*day)), &[])?;
        }
        if !write.changes.admitted.is_empty() {
            let month = write
                .month
                .ok_or_else(|| StorageError("no month is open for calls".to_owned()))?;
            if self
                .month
                .as_ref()
                .is_none_or(|statements| statements.month != month)
            {
                self.month = Some(MonthStatements::of(month));
            }
        }
        for row in &write.changes.admitted {
            self.admit(row)?;
        }
        if let Some(first) = &write.changes.first {
            self.keep_first(first)?;
        }
        for end in &write.changes.ended {
            self.end(end)?;
        }
        for entry in &write.changes.entries {
            self.enter(entry)?;
        }
        for event in &write.changes.events {
            self.run(EVENTS, &[])?;
            let body = minicbor::to_vec(event).map_err(|_| StorageError::unreadable("event"))?;
            self.run(
                "INSERT OR REPLACE INTO events (row, body) VALUES (?, ?)",
                &[to_number(event.row()).into(), blob(&body)],
            )?;
        }
        if let Some(rolled) = &write.changes.rolled {
            self.run(ROLLED, &[])?;
            let body = minicbor::to_vec(rolled).map_err(|_| StorageError::unreadable("month"))?;
            self.run(
                "INSERT INTO rolled (number, body) VALUES (?, ?)",
                &[to_number(rolled.row()).into(), blob(&body)],
            )?;
        }
        for payment in &write.changes.payments {
            self.keep_payment(payment)?;
        }
        for (month, totals) in &write.changes.totals {
            self.write_totals(*month, totals)?;
        }
        if let Some(month) = write.changes.dropped_month {
            self.run(&format!("DROP TABLE {}", table_of(month)), &[])?;
            self.run(&format!("DROP TABLE IF EXISTS {}", totals_of(month)), &[])?;
        }
        for (number, body) in &write.keys {
            let bindings = [number.get().into(), blob(body)];
            self.run(
                "INSERT OR REPLACE INTO keys (number, body) VALUES (?, ?)",
                &bindings,
            )?;
        }
        if let Some(profile) = &write.profile {
            self.put(PROFILE_ROW, profile)?;
        }
        if let Some(snapshot) = &write.snapshot {
            self.put_snapshot(snapshot)?;
        }
        if let Some(notices) = &write.notices {
            self.put(NOTICES_ROW, notices)?;
        }
        if let Some(answer) = &write.remember {
            self.remember(answer)?;
        }
        match &write.opening {
            Some(Intent::Keep(opening)) => self.keep_opening(opening),
            // Its only row; dropping the table writes none.
            Some(Intent::Forget) => self.run("DROP TABLE IF EXISTS opening", &[]),
            None => Ok(()),
        }
    }

    /// Beside the account's tables, which are made when there is an account.
    fn keep_opening(&mut self, opening: &[u8]) -> Result<(), StorageError> {
        self.run(
            "CREATE TABLE IF NOT EXISTS opening (id INTEGER PRIMARY KEY, body BLOB NOT NULL)",
            &[],
        )?;
        self.run(
            "INSERT OR REPLACE INTO opening (id, body) VALUES (1, ?)",
            &[blob(opening)],
        )
    }

    fn put_snapshot(&mut self, snapshot: &[u8]) -> Result<(), StorageError> {
        let mut row = SNAPSHOT_ROW;
        let mut next = PIECES_ROW;
        for piece in pieces::split(snapshot) {
            self.put(row, &piece)?;
            row = next;
            next = next.saturating_add(1);
        }
        // Pieces of a longer one. Where there are none this writes nothing.
        self.run(
            "DELETE FROM account WHERE id BETWEEN ? AND ?",
            &[row.max(PIECES_ROW).into(), LAST_PIECE_ROW.into()],
        )
    }

    fn put(&mut self, row: u32, body: &[u8]) -> Result<(), StorageError> {
        self.run(
            "INSERT OR REPLACE INTO account (id, body) VALUES (?, ?)",
            &[row.into(), blob(body)],
        )
    }

    fn admit(&mut self, row: &CallRow) -> Result<(), StorageError> {
        let call = &row.call;
        let hold = minicbor::to_vec(&call.hold).map_err(|_| StorageError::unreadable("hold"))?;
        let statements = self
            .month
            .as_ref()
            .ok_or_else(|| StorageError("no month is open for calls".to_owned()))?;
        let cursor = self.database.sql.exec_admit(
            &statements.admit,
            to_number(call.number.get()),
            millis(call.admitted_at),
            call.key.get(),
            &call.method,
            &call.endpoint,
            Uint8Array::from(hold.as_slice()),
        )?;
        self.database.rows_written += cursor.rows_written();
        Ok(())
    }

    fn keep_first(&mut self, first: &First) -> Result<(), StorageError> {
        let statement = format!(
            "INSERT OR REPLACE INTO {} (key, request, call, at) VALUES (?, ?, ?, ?)",
            firsts_of(first.day())
        );
        let bindings = [
            blob(&first.fingerprint.key),
            blob(&first.fingerprint.request),
            to_number(first.call.get()).into(),
            millis(first.at).into(),
        ];
        self.run(&statement, &bindings)
    }

    fn end(&mut self, end: &CallEnd) -> Result<(), StorageError> {
        if let Some(first_charged) = end.outcome.first_charged {
            return self.correct(end, first_charged);
        }
        let other_month;
        let statements = match &self.month {
            Some(statements) if statements.month == end.month => statements,
            _ => {
                other_month = MonthStatements::of(end.month);
                &other_month
            }
        };
        let outcome = &end.outcome;
        let cursor = self.database.sql.exec_end(
            &statements.end,
            outcome.state.number(),
            outcome.status,
            to_number(outcome.charged.get()),
            outcome.response_time_ms,
            millis(outcome.at),
            outcome.mark.map(Mark::number),
            to_number(outcome.nth_end),
            to_number(end.call.get()),
        )?;
        self.database.rows_written += cursor.rows_written();
        Ok(())
    }

    /// An end that takes the place of another: one row as well.
    fn correct(&mut self, end: &CallEnd, first_charged: Credits) -> Result<(), StorageError> {
        let hold = match &end.hold {
            Some(hold) => {
                blob(&minicbor::to_vec(hold).map_err(|_| StorageError::unreadable("hold"))?)
            }
            None => JsValue::NULL,
        };
        let statement = format!(
            "UPDATE {} SET state = ?, status = ?, charged = ?, response_time_ms = ?, ended_at = ?, mark = ?, nth_end = ?, \
             hold = coalesce(?, hold), first_charged = ? WHERE number = ?",
            table_of(end.month)
        );
        let outcome = &end.outcome;
        let bindings = [
            outcome.state.number().into(),
            outcome.status.map_or(JsValue::NULL, JsValue::from),
            to_number(outcome.charged.get()).into(),
            outcome.response_time_ms.into(),
            millis(outcome.at).into(),
            outcome
                .mark
                .map_or(JsValue::NULL, |mark| mark.number().into()),
            to_number(outcome.nth_end).into(),
            hold,
            to_number(first_charged.get()).into(),
            to_number(end.call.get()).into(),
        ];
        self.run(&statement, &bindings)
    }

    /// A month's table is made with its first row; a release before this one has made none.
    fn write_totals(&mut self, month: MonthNumber, totals: &Totals) -> Result<(), StorageError> {
        let table = totals_of(month);
        self.run(
            &format!(
                "CREATE TABLE IF NOT EXISTS {table} (number INTEGER PRIMARY KEY, body BLOB NOT NULL)"
            ),
            &[],
        )?;
        let body = minicbor::to_vec(totals).map_err(|_| StorageError::unreadable("totals"))?;
        self.run(
            &format!("INSERT INTO {table} (body) VALUES (?)"),
            &[blob(&body)],
        )
    }

    fn enter(&mut self, entry: &Entry) -> Result<(), StorageError> {
        let signed = |value: i64| {
            // Sums of credits stay below 2^53.
            #[allow(clippy::cast_precision_loss)]
            let number = value as f64;
            JsValue::from_f64(number)
        };
        self.run(
            "INSERT INTO entries (number, at, kind, pool, lot, credits, balance, calls_before, call, reference) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            &[
                to_number(entry.number).into(),
                millis(entry.at).into(),
                entry.kind.number().into(),
                entry.pool.as_str().into(),
                entry.lot.get().into(),
                signed(entry.credits),
                signed(entry.balance),
                to_number(entry.calls_before).into(),
                entry.call.map_or(JsValue::NULL, |call| to_number(call.get()).into()),
                entry.reference.as_deref().map_or(JsValue::NULL, JsValue::from_str),
            ],
        )
    }

    fn keep_payment(&mut self, payment: &Payment) -> Result<(), StorageError> {
        self.run(PAYMENTS, &[])?;
        let body = minicbor::to_vec(payment).map_err(|_| StorageError::unreadable("payment"))?;
        let number = JsValue::from(to_number(payment.number));
        self.run(
            "INSERT OR REPLACE INTO payments (number, body) VALUES (?, ?)",
            &[number.clone(), blob(&body)],
        )?;
        self.run(
            "INSERT OR IGNORE INTO payment_names (name, number) VALUES (?, ?)",
            &[payment.name.as_str().into(), number],
        )
    }

    fn payments(&self, query: &str, bindings: &[JsValue]) -> Result<Vec<Payment>, StorageError> {
        if !self.has_table("payments")? {
            return Ok(Vec::new());
        }
        let rows = self.rows(query, bindings)?;
        rows.iter()
            .map(|row| {
                let body = bytes(&row.unchecked_into::<Array>().get(0));
                minicbor::decode(&body).map_err(|_| StorageError::unreadable("payment"))
            })
            .collect()
    }

    fn remember(&mut self, answer: &Remembered) -> Result<(), StorageError> {
        let table = match answer.until {
            Some(until) => self.answers_until(until)?,
            None => ANSWERS.to_owned(),
        };
        self.run(
            &format!(
                "INSERT OR REPLACE INTO {table} (id, key, request, status, json, until) VALUES (?, ?, ?, ?, ?, ?)"
            ),
            &[
                to_number(answer.request.row()).into(),
                blob(&answer.request.key),
                blob(&answer.request.request),
                answer.status.into(),
                answer.json.as_str().into(),
                answer.until.map_or(JsValue::NULL, |until| millis(until).into()),
            ],
        )
    }

    /// The table of the answers that are forgotten on the day of `until`. Such a table is dropped
    /// whole when its day is over: origins send an `Idempotency-Key` with every word on a job, so
    /// there may be very many, which nobody should have to look through, or to delete row by row.
    fn answers_until(&mut self, until: Timestamp) -> Result<String, StorageError> {
        let utc = Calendar::default();
        let table = named_by_day(ANSWERS, utc.day_of(until));
        if self.has_table(&table)? {
            return Ok(table);
        }
        let now = until.minus(crate::object::REMEMBERED);
        let today = named_by_day(ANSWERS, utc.day_of(now));
        for past in self.answers_by_day()? {
            // Their names are in the order of their days.
            if past < today {
                self.run(&format!("DROP TABLE {past}"), &[])?;
            }
        }
        // A release before this one kept them with those that are kept for good.
        self.run("DELETE FROM answers WHERE until < ?", &[millis(now).into()])?;
        self.run(
            &format!(
                "CREATE TABLE {table} (
                    id INTEGER PRIMARY KEY, key BLOB NOT NULL, request BLOB NOT NULL, status INTEGER NOT NULL,
                    json TEXT NOT NULL, until INTEGER NOT NULL)"
            ),
            &[],
        )?;
        Ok(table)
    }

    /// The tables of answers that are kept for a day, the latest first.
    fn answers_by_day(&self) -> Result<Vec<String>, StorageError> {
        let query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'answers_[0-9]*' ORDER BY name DESC";
        let names = self.rows(query, &[])?;
        let name = |row: JsValue| row.unchecked_into::<Array>().get(0).as_string();
        Ok(names.iter().filter_map(name).collect())
    }
}

impl Store for SqlStore {
    type Error = StorageError;

    fn load(&self) -> Result<Option<Loaded>, StorageError> {
        if !self.has_table("account")? {
            return Ok(None);
        }
        let mut loaded = Loaded::default();
        let mut snapshot = Vec::new();
        let rows = self.rows("SELECT id, body FROM account ORDER BY id", &[])?;
        for row in rows.iter() {
            let row: Array = row.unchecked_into();
            let body = bytes(&row.get(1));
            match integer(&row.get(0)).and_then(|id| u32::try_from(id).ok()) {
                Some(PROFILE_ROW) => loaded.profile = body,
                Some(SNAPSHOT_ROW | PIECES_ROW..=LAST_PIECE_ROW) => snapshot.push(body),
                Some(NOTICES_ROW) => loaded.notices = Some(body),
                // Written for the releases to come.
                _ => {}
            }
        }
        loaded.snapshot =
            pieces::join(snapshot).ok_or_else(|| StorageError::unreadable("snapshot"))?;
        Ok(Some(loaded))
    }

    fn keys(&self, numbers: &[KeyNumber]) -> Result<Vec<(KeyNumber, Vec<u8>)>, StorageError> {
        let query =
            "SELECT number, body FROM keys WHERE number IN (SELECT value FROM json_each(?))";
        let list = json_list(numbers.iter().map(|number| u64::from(number.get())));
        read_keys(&self.rows(query, &[list.into()])?)
    }

    fn keys_after(
        &self,
        last: KeyNumber,
        limit: u64,
    ) -> Result<Vec<(KeyNumber, Vec<u8>)>, StorageError> {
        let query = "SELECT number, body FROM keys WHERE number > ? ORDER BY number LIMIT ?";
        read_keys(&self.rows(query, &[last.get().into(), to_number(limit).into()])?)
    }

    fn keys_with(&self, digest: &[u8; 32]) -> Result<Vec<KeyNumber>, StorageError> {
        let query = "SELECT number FROM keys WHERE instr(body, ?) > 0";
        let rows = self.rows(query, &[blob(digest)])?;
        rows.iter()
            .map(|row| read_key_number(&row.unchecked_into()))
            .collect()
    }

    fn call(&self, month: MonthNumber, call: CallNumber) -> Result<Option<CallRow>, StorageError> {
        let query = format!(
            "SELECT {CALL_COLUMNS} FROM {} WHERE number = ?",
            table_of(month)
        );
        Ok(self.calls(&query, &[to_number(call.get()).into()])?.pop())
    }

    fn calls_after(
        &self,
        month: MonthNumber,
        last: u64,
        limit: u64,
    ) -> Result<Vec<CallRow>, StorageError> {
        let query = format!(
            "SELECT {CALL_COLUMNS} FROM {} WHERE number > ? ORDER BY number LIMIT ?",
            table_of(month)
        );
        self.calls(&query, &[to_number(last).into(), to_number(limit).into()])
    }

    fn newest_calls(
        &self,
        month: MonthNumber,
        before: u64,
        offset: u64,
        limit: u64,
    ) -> Result<Vec<CallRow>, StorageError> {
        let query = format!(
            "SELECT {CALL_COLUMNS} FROM {} WHERE number < ? AND state <> {} \
             ORDER BY number DESC LIMIT ? OFFSET ?",
            table_of(month),
            CallState::Cancelled.number()
        );
        let bindings = [before, limit, offset].map(|number| to_number(number).into());
        self.calls(&query, &bindings)
    }

    fn calls_before(
        &self,
        month: MonthNumber,
        before: u64,
        limit: u64,
    ) -> Result<Vec<CallRow>, StorageError> {
        let query = format!(
            "SELECT {CALL_COLUMNS} FROM {} WHERE number < ? ORDER BY number DESC LIMIT ?",
            table_of(month)
        );
        self.calls(&query, &[to_number(before).into(), to_number(limit).into()])
    }

    fn matching_calls(
        &self,
        month: MonthNumber,
        filter: &UsageFilter,
        numbers: Range<u64>,
    ) -> Result<Vec<CallNumber>, StorageError> {
        // What is not asked for is compared with itself. All of it comes as one text: a value at a
        // time would take longer than the search.
        let query = format!(
            "SELECT group_concat(number, ' ' ORDER BY number DESC) FROM {} \
             WHERE number >= ? AND number < ? AND state <> {} \
             AND at >= coalesce(?, at) AND at < coalesce(?, at + 1) \
             AND endpoint = coalesce(?, endpoint) AND ifnull(status, 0) = coalesce(?, status, 0) \
             AND coalesce(mark, ?) IS NOT NULL",
            table_of(month),
            CallState::Cancelled.number()
        );
        let bindings = [
            to_number(numbers.start).into(),
            to_number(numbers.end).into(),
            filter
                .from
                .map_or(JsValue::NULL, |from| millis(from).into()),
            filter.to.map_or(JsValue::NULL, |to| millis(to).into()),
            filter
                .endpoint
                .as_deref()
                .map_or(JsValue::NULL, JsValue::from),
            filter.status.map_or(JsValue::NULL, JsValue::from),
            if filter.marked {
                JsValue::NULL
            } else {
                0.into()
            },
        ];
        let rows = self.rows(&query, &bindings)?;
        let found: Array = rows.get(0).unchecked_into();
        let found = found.get(0).as_string().unwrap_or_default();
        found
            .split_ascii_whitespace()
            .map(|number| number.parse().ok().and_then(CallNumber::new))
            .collect::<Option<_>>()
            .ok_or_else(|| StorageError::unreadable("call"))
    }

    fn these_calls(
        &self,
        month: MonthNumber,
        numbers: &[CallNumber],
    ) -> Result<Vec<CallRow>, StorageError> {
        let query = format!(
            "SELECT {CALL_COLUMNS} FROM {} WHERE number IN (SELECT value FROM json_each(?)) \
             ORDER BY number DESC",
            table_of(month)
        );
        let list = json_list(numbers.iter().map(|number| number.get()));
        self.calls(&query, &[list.into()])
    }

    fn rolled(&self, from: u64, limit: u64) -> Result<Vec<Rolled>, StorageError> {
        if !self.has_table("rolled")? {
            return Ok(Vec::new());
        }
        let query = "SELECT body FROM rolled WHERE number >= ? ORDER BY number LIMIT ?";
        let bindings = [to_number(from).into(), to_number(limit).into()];
        let rows = self.rows(query, &bindings)?;
        rows.iter()
            .map(|row| read_rolled(&row.unchecked_into()))
            .collect()
    }

    fn rolled_before(&self, before: u64) -> Result<Option<Rolled>, StorageError> {
        if !self.has_table("rolled")? {
            return Ok(None);
        }
        let query = "SELECT body FROM rolled WHERE number < ? ORDER BY number DESC LIMIT 1";
        let rows = self.rows(query, &[to_number(before).into()])?;
        let row = rows.iter().next();
        row.map(|row| read_rolled(&row.unchecked_into()))
            .transpose()
    }

    fn totals(
        &self,
        month: MonthNumber,
        after: u64,
        limit: u64,
    ) -> Result<Vec<(u64, Totals)>, StorageError> {
        let table = totals_of(month);
        if !self.has_table(&table)? {
            return Ok(Vec::new());
        }
        let query =
            format!("SELECT number, body FROM {table} WHERE number > ? ORDER BY number LIMIT ?");
        let bindings = [to_number(after).into(), to_number(limit).into()];
        let rows = self.rows(&query, &bindings)?;
        rows.iter()
            .map(|row| {
                let row: Array = row.unchecked_into();
                let number = integer(&row.get(0)).and_then(|number| u64::try_from(number).ok());
                number
                    .zip(minicbor::decode(&bytes(&row.get(1))).ok())
                    .ok_or_else(|| StorageError::unreadable("totals"))
            })
            .collect()
    }

    fn entries_before(&self, before: u64, limit: u64) -> Result<Vec<Entry>, StorageError> {
        let query = format!(
            "SELECT {ENTRY_COLUMNS} FROM entries WHERE number < ? ORDER BY number DESC LIMIT ?"
        );
        self.entries(&query, &[to_number(before).into(), to_number(limit).into()])
    }

    fn opening(&self) -> Result<Option<Vec<u8>>, StorageError> {
        self.only_body("opening")
    }

    fn tombstone(&self) -> Result<Option<Vec<u8>>, StorageError> {
        self.only_body("tombstone")
    }

    fn entries_after(&self, last: u64, limit: u64) -> Result<Vec<Entry>, StorageError> {
        let query =
            format!("SELECT {ENTRY_COLUMNS} FROM entries WHERE number > ? ORDER BY number LIMIT ?");
        self.entries(&query, &[to_number(last).into(), to_number(limit).into()])
    }

    fn payment(&self, name: &str) -> Result<Option<Payment>, StorageError> {
        let query = "SELECT body FROM payments WHERE number = (SELECT number FROM payment_names WHERE name = ?)";
        Ok(self.payments(query, &[name.into()])?.pop())
    }

    fn payments_before(&self, before: u64, limit: u64) -> Result<Vec<Payment>, StorageError> {
        let query = "SELECT body FROM payments WHERE number < ? ORDER BY number DESC LIMIT ?";
        self.payments(query, &[to_number(before).into(), to_number(limit).into()])
    }

    fn remembered(&self, id: u64) -> Result<Option<Remembered>, StorageError> {
        let mut found = None;
        for table in self
            .answers_by_day()?
            .iter()
            .map(String::as_str)
            .chain([ANSWERS])
        {
            let query =
                format!("SELECT key, request, status, json, until FROM {table} WHERE id = ?");
            found = self.rows(&query, &[to_number(id).into()])?.iter().next();
            if found.is_some() {
                break;
            }
        }
        let Some(row) = found else {
            return Ok(None);
        };
        let row: Array = row.unchecked_into();
        let digest = |index| digest(&row.get(index), "answer");
        Ok(Some(Remembered {
            request: Fingerprint {
                key: digest(0)?,
                request: digest(1)?,
            },
            status: integer(&row.get(2))
                .and_then(|status| u16::try_from(status).ok())
                .unwrap_or(200),
            json: row.get(3).as_string().unwrap_or_default(),
            until: integer(&row.get(4)).map(Timestamp::from_millis),
        }))
    }

    /// One statement is atomic by itself; more of them are one transaction.
    fn first(&self, days: &[Day], key: &[u8; 32]) -> Result<Option<First>, StorageError> {
        let of_day = |day: &Day| {
            format!(
                "SELECT request, call, at FROM {} WHERE key = ?1",
                firsts_of(*day)
            )
        };
        let tables: Vec<String> = days.iter().map(of_day).collect();
        if tables.is_empty() {
            return Ok(None);
        }
        let query = format!("{} ORDER BY 2 DESC LIMIT 1", tables.join(" UNION ALL "));
        let Some(row) = self.rows(&query, &[blob(key)])?.iter().next() else {
            return Ok(None);
        };
        let row: Array = row.unchecked_into();
        let unreadable = || StorageError::unreadable("first");
        Ok(Some(First {
            fingerprint: Fingerprint {
                key: *key,
                request: digest(&row.get(0), "first")?,
            },
            call: integer(&row.get(1))
                .and_then(|call| CallNumber::new(u64::try_from(call).ok()?))
                .ok_or_else(unreadable)?,
            at: Timestamp::from_millis(integer(&row.get(2)).ok_or_else(unreadable)?),
        }))
    }

    fn event(&self, number: EventNumber) -> Result<Option<EventRecord>, StorageError> {
        let row = to_number(event::row_of(number)).into();
        let found = self.rows("SELECT body FROM events WHERE row = ?", &[row])?;
        let event = found.iter().next().map(read_event).transpose()?;
        Ok(event.filter(|event| event.number == number))
    }

    fn events(&self) -> Result<Vec<EventRecord>, StorageError> {
        let found = self.rows("SELECT body FROM events", &[])?;
        found.iter().map(read_event).collect()
    }

    fn commit(&mut self, write: &Write) -> Result<(), StorageError> {
        if write.is_one_row() {
            return self
                .write(write)
                .inspect_err(|_| storage_failed(&self.database.storage));
        }
        in_transaction(&self.database.handle(), &mut || self.write(write))
    }
}

fn read_event(row: JsValue) -> Result<EventRecord, StorageError> {
    let body = bytes(&row.unchecked_into::<Array>().get(0));
    minicbor::decode(&body).map_err(|_| StorageError::unreadable("event"))
}

fn table_of(month: MonthNumber) -> String {
    named_by("calls", month)
}

fn totals_of(month: MonthNumber) -> String {
    named_by("totals", month)
}

fn named_by(what: &str, month: MonthNumber) -> String {
    let (year, month) = month.year_month();
    format!("{what}_{year:04}_{month:02}")
}

fn json_list(numbers: impl Iterator<Item = u64>) -> String {
    let mut list = String::from("[");
    for number in numbers {
        if list.len() > 1 {
            list.push(',');
        }
        list.push_str(&number.to_string());
    }
    list.push(']');
    list
}

fn read_keys(rows: &Array) -> Result<Vec<(KeyNumber, Vec<u8>)>, StorageError> {
    rows.iter()
        .map(|row| {
            let row: Array = row.unchecked_into();
            Ok((read_key_number(&row)?, bytes(&row.get(1))))
        })
        .collect()
}

fn read_key_number(row: &Array) -> Result<KeyNumber, StorageError> {
    integer(&row.get(0))
        .and_then(|number| u32::try_from(number).ok())
        .map(KeyNumber::new)
        .ok_or_else(|| StorageError::unreadable("key"))
}

fn read_rolled(row: &Array) -> Result<Rolled, StorageError> {
    minicbor::decode(&bytes(&row.get(0))).map_err(|_| StorageError::unreadable("month"))
}

fn firsts_of(day: Day) -> String {
    named_by_day("firsts", day)
}

/// `firsts_2026_11_02`, whatever days the policy has.
fn named_by_day(what: &str, day: Day) -> String {
    let utc = Calendar::default();
    let start = utc.start_of(day);
    let (year, month) = utc.month_of(start).year_month();
    let day = utc.day_of_month(start);
    format!("{what}_{year:04}_{month:02}_{day:02}")
}

fn read_call(row: &Array) -> Result<CallRow, StorageError> {
    let unreadable = || StorageError::unreadable("call");
    let number_at = |index| integer(&row.get(index));
    let unsigned = |index| number_at(index).and_then(|number| u64::try_from(number).ok());
    let small = |index| number_at(index).and_then(|number| u32::try_from(number).ok());
    let hold: Hold = minicbor::decode(&bytes(&row.get(5))).map_err(|_| unreadable())?;
    let state = small(6)
        .and_then(|state| CallState::from_number(u8::try_from(state).ok()?))
        .ok_or_else(unreadable)?;
    let call = Call {
        number: unsigned(0)
            .and_then(CallNumber::new)
            .ok_or_else(unreadable)?,
        key: KeyNumber::new(small(2).ok_or_else(unreadable)?),
        method: row.get(3).as_string().unwrap_or_default(),
        endpoint: row.get(4).as_string().unwrap_or_default(),
        admitted_at: Timestamp::from_millis(number_at(1).ok_or_else(unreadable)?),
        hold,
        answer: None,
    };
    let outcome = (state != CallState::Open).then(|| Outcome {
        state,
        status: small(7).and_then(|status| u16::try_from(status).ok()),
        charged: unsigned(8).and_then(Credits::new).unwrap_or_default(),
        response_time_ms: small(9).unwrap_or_default(),
        at: Timestamp::from_millis(number_at(10).unwrap_or_default()),
        mark: small(11).and_then(|mark| Mark::from_number(u8::try_from(mark).ok()?)),
        nth_end: unsigned(12).unwrap_or_default(),
        first_charged: unsigned(13).and_then(Credits::new),
    });
    Ok(CallRow { call, outcome })
}

fn read_entry(row: &Array) -> Result<Entry, StorageError> {
    let unreadable = || StorageError::unreadable("entry");
    let signed = |index| integer(&row.get(index)).ok_or_else(unreadable);
    let unsigned = |index| u64::try_from(signed(index)?).map_err(|_| unreadable());
    let small = |index| u32::try_from(signed(index)?).map_err(|_| unreadable());
    Ok(Entry {
        number: unsigned(0)?,
        at: Timestamp::from_millis(signed(1)?),
        kind: u8::try_from(small(2)?)
            .ok()
            .and_then(EntryKind::from_number)
            .ok_or_else(unreadable)?,
        pool: row.get(3).as_string().unwrap_or_default(),
        lot: LotNumber::new(small(4)?),
        credits: signed(5)?,
        balance: signed(6)?,
        calls_before: unsigned(7)?,
        call: unsigned(8).ok().and_then(CallNumber::new),
        reference: row.get(9).as_string(),
    })
}

fn digest(value: &JsValue, of: &str) -> Result<[u8; 32], StorageError> {
    <[u8; 32]>::try_from(bytes(value)).map_err(|_| StorageError::unreadable(of))
}

pub fn integer(value: &JsValue) -> Option<i64> {
    // SQLite's integers come as numbers; all that were stored are below 2^53.
    #[allow(clippy::cast_possible_truncation)]
    value.as_f64().map(|number| number as i64)
}

fn millis(moment: Timestamp) -> f64 {
    to_number(u64::try_from(moment.as_millis()).unwrap_or(0))
}

pub fn bytes(value: &JsValue) -> Vec<u8> {
    // BLOBs come as ArrayBuffers.
    Uint8Array::new(value).to_vec()
}

pub fn blob(bytes: &[u8]) -> JsValue {
    Uint8Array::from(bytes).into()
}
