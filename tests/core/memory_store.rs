//! The durable storage of one account, in memory: what the SQL would do, and what it would cost.

use std::{cell::Cell, collections::BTreeMap, ops::Range};

use tollgate::{
    account::{First, Rolled},
    call::{CallRow, CallState, Hold},
    event::{EventRecord, row_of},
    id::{CallNumber, EventNumber, KeyNumber},
    ledger::{Entry, EntryKind, LotNumber, split},
    object::{Intent, Loaded, Remembered, Store, Write, pieces},
    payments::history::Payment,
    protocol::UsageFilter,
    time::{Day, MonthNumber},
    totals::Totals,
};

/// One account's tables.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    profile: Option<Vec<u8>>,
    keys: BTreeMap<KeyNumber, Vec<u8>>,
    /// In its pieces, each a row.
    snapshot: Vec<Vec<u8>>,
    months: BTreeMap<MonthNumber, BTreeMap<u64, CallRow>>,
    /// Months whose tables were dropped, and what is left of them.
    dropped: BTreeMap<MonthNumber, BTreeMap<u64, CallRow>>,
    rolled: BTreeMap<u64, Vec<u8>>,
    totals: BTreeMap<MonthNumber, Vec<Vec<u8>>>,
    entries: Vec<Entry>,
    remembered: BTreeMap<u64, Remembered>,
    payments: BTreeMap<u64, Payment>,
    firsts: BTreeMap<Day, BTreeMap<[u8; 32], First>>,
    events: BTreeMap<u64, Vec<u8>>,
    notices: Option<Vec<u8>>,
    opening: Option<Vec<u8>>,
    tombstone: Option<Vec<u8>>,
    /// What calls took from lots when they first ended: entries tell every change since.
    pub first_charges: BTreeMap<LotNumber, i64>,
    /// Rows that SQLite would have counted as written.
    pub rows_written: u64,
    /// Rows that SQLite would have counted as read.
    pub rows_read: Cell<u64>,
    /// Snapshots written.
    pub snapshots_written: u64,
    /// Rows of totals written.
    pub totals_written: u64,
    /// So many commits from now on fail.
    pub commits_to_fail: u32,
}

/// A commit that was told to fail.
#[derive(Debug)]
pub struct DiskFull;

impl std::fmt::Display for DiskFull {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("disk full")
    }
}

impl MemoryStore {
    /// The whole call log, oldest first, with the months that were dropped since.
    pub fn calls(&self) -> impl Iterator<Item = &CallRow> {
        let months = self.dropped.values().chain(self.months.values());
        months.flat_map(BTreeMap::values)
    }

    /// Whether the month of `call` was dropped.
    pub fn is_dropped(&self, call: CallNumber) -> bool {
        let mut months = self.dropped.values();
        months.any(|calls| calls.contains_key(&call.get()))
    }

    /// The calls in the months that are kept.
    pub fn kept(&self) -> impl Iterator<Item = &CallRow> {
        self.months.values().flat_map(BTreeMap::values)
    }

    /// The calls of a month that was dropped: what only the tests still know.
    pub fn dropped(&self) -> impl Iterator<Item = (MonthNumber, Vec<&CallRow>)> {
        let months = self.dropped.iter();
        months.map(|(month, calls)| (*month, calls.values().collect()))
    }

    /// The row of a call.
    pub fn row(&self, call: u64) -> Option<&CallRow> {
        let mut months = self.dropped.values().chain(self.months.values());
        months.find_map(|calls| calls.get(&call))
    }

    /// Something changes a row behind the account's back.
    pub fn tamper_with_row(&mut self, call: u64, change: impl FnOnce(&mut CallRow)) {
        let row = self
            .months
            .values_mut()
            .find_map(|calls| calls.get_mut(&call));
        change(row.expect("the row of a call"));
    }

    /// Something changes an entry behind the account's back.
    pub fn tamper_with_entries(&mut self, change: impl FnOnce(&mut Vec<Entry>)) {
        change(&mut self.entries);
    }

    /// The ledger's entries, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// As if what the first row of totals tells had come so many times more.
    pub fn repeat_totals(&mut self, times: usize) {
        let rows = self.totals.values_mut().next().expect("totals");
        let row = rows[0].clone();
        rows.extend(std::iter::repeat_n(row, times));
    }

    /// The same tables with the same bytes in them.
    pub fn holds_the_same_as(&self, other: &Self) -> bool {
        self.profile == other.profile
            && self.keys == other.keys
            && self.snapshot == other.snapshot
            && self.months == other.months
            && self.rolled == other.rolled
            && self.totals == other.totals
            && self.entries == other.entries
            && self.remembered == other.remembered
            && self.payments == other.payments
            && self.firsts == other.firsts
            && self.events == other.events
            && self.notices == other.notices
            && self.opening == other.opening
            && self.tombstone == other.tombstone
    }

    /// The events that are kept, the one with the lowest row first.
    pub fn all_events(&self) -> impl Iterator<Item = EventRecord> {
        let rows = self.events.values();
        rows.map(|bytes| minicbor::decode(bytes).expect("decodes"))
    }

    /// How many tables of firsts there are, and how many rows in them.
    pub fn firsts(&self) -> (usize, usize) {
        let rows = self.firsts.values().map(BTreeMap::len).sum();
        (self.firsts.len(), rows)
    }

    fn wrote(&mut self, rows: usize) {
        self.rows_written += rows as u64;
    }

    fn read(&self, rows: usize) {
        self.rows_read.set(self.rows_read.get() + rows as u64);
    }
}

impl Store for MemoryStore {
    type Error = DiskFull;

    fn load(&self) -> Result<Option<Loaded>, DiskFull> {
        self.read(1 + self.snapshot.len() + self.notices.iter().len());
        Ok(self.profile.clone().map(|profile| Loaded {
            profile,
            snapshot: pieces::join(self.snapshot.clone()).expect("all pieces"),
            notices: self.notices.clone(),
        }))
    }

    fn keys(&self, numbers: &[KeyNumber]) -> Result<Vec<(KeyNumber, Vec<u8>)>, DiskFull> {
        let row = |number: &KeyNumber| Some((*number, self.keys.get(number)?.clone()));
        let rows: Vec<_> = numbers.iter().filter_map(row).collect();
        self.read(rows.len());
        Ok(rows)
    }

    fn keys_after(
        &self,
        last: KeyNumber,
        limit: u64,
    ) -> Result<Vec<(KeyNumber, Vec<u8>)>, DiskFull> {
        let rows = self.keys.iter().filter(|(number, _)| **number > last);
        let rows: Vec<_> = rows
            .take(limit as usize)
            .map(|(number, bytes)| (*number, bytes.clone()))
            .collect();
        self.read(rows.len());
        Ok(rows)
    }

    fn keys_with(&self, digest: &[u8; 32]) -> Result<Vec<KeyNumber>, DiskFull> {
        self.read(self.keys.len());
        let keys = self.keys.iter();
        Ok(keys
            .filter(|(_, bytes)| bytes.windows(32).any(|window| window == digest))
            .map(|(number, _)| *number)
            .collect())
    }

    fn call(&self, month: MonthNumber, call: CallNumber) -> Result<Option<CallRow>, DiskFull> {
        self.read(1);
        Ok(self
            .months
            .get(&month)
            .and_then(|calls| calls.get(&call.get()))
            .cloned())
    }

    fn calls_after(
        &self,
        month: MonthNumber,
        last: u64,
        limit: u64,
    ) -> Result<Vec<CallRow>, DiskFull> {
        let rows: Vec<CallRow> = self.months[&month]
            .range(last + 1..)
            .take(limit as usize)
            .map(|(_, row)| row.clone())
            .collect();
        self.read(rows.len());
        Ok(rows)
    }

    fn calls_before(
        &self,
        month: MonthNumber,
        before: u64,
        limit: u64,
    ) -> Result<Vec<CallRow>, DiskFull> {
        let rows: Vec<CallRow> = self.months[&month]
            .range(..before)
            .rev()
            .take(limit as usize)
            .map(|(_, row)| row.clone())
            .collect();
        self.read(rows.len());
        Ok(rows)
    }

    fn matching_calls(
        &self,
        month: MonthNumber,
        filter: &UsageFilter,
        numbers: Range<u64>,
    ) -> Result<Vec<CallNumber>, DiskFull> {
        let looked_at = self.months[&month].range(numbers).rev();
        self.read(looked_at.clone().count());
        Ok(looked_at
            .filter(|(_, row)| filter.lets_through(row))
            .map(|(_, row)| row.call.number)
            .collect())
    }

    fn these_calls(
        &self,
        month: MonthNumber,
        numbers: &[CallNumber],
    ) -> Result<Vec<CallRow>, DiskFull> {
        self.read(numbers.len());
        let calls = &self.months[&month];
        Ok(numbers
            .iter()
            .filter_map(|number| calls.get(&number.get()).cloned())
            .collect())
    }

    fn entries_before(&self, before: u64, limit: u64) -> Result<Vec<Entry>, DiskFull> {
        let entries: Vec<Entry> = self
            .entries
            .iter()
            .rev()
            .filter(|entry| entry.number < before)
            .take(limit as usize)
            .cloned()
            .collect();
        self.read(entries.len());
        Ok(entries)
    }

    fn entries_after(&self, last: u64, limit: u64) -> Result<Vec<Entry>, DiskFull> {
        let entries: Vec<Entry> = self
            .entries
            .iter()
            .filter(|entry| entry.number > last)
            .take(limit as usize)
            .cloned()
            .collect();
        self.read(entries.len());
        Ok(entries)
    }

    fn newest_calls(
        &self,
        month: MonthNumber,
        before: u64,
        offset: u64,
        limit: u64,
    ) -> Result<Vec<CallRow>, DiskFull> {
        let is_listed = |row: &&CallRow| {
            row.outcome
                .as_ref()
                .is_none_or(|outcome| outcome.state != CallState::Cancelled)
        };
        let rows: Vec<CallRow> = self.months[&month]
            .range(..before)
            .rev()
            .map(|(_, row)| row)
            .filter(is_listed)
            .skip(offset as usize)
            .take(limit as usize)
            .cloned()
            .collect();
        self.read(rows.len() + offset as usize);
        Ok(rows)
    }

    fn opening(&self) -> Result<Option<Vec<u8>>, DiskFull> {
        self.read(1);
        Ok(self.opening.clone())
    }

    fn tombstone(&self) -> Result<Option<Vec<u8>>, DiskFull> {
        self.read(1);
        Ok(self.tombstone.clone())
    }

    fn rolled(&self, from: u64, limit: u64) -> Result<Vec<Rolled>, DiskFull> {
        let rows = self.rolled.range(from..).take(limit as usize);
        let rows: Vec<Rolled> = rows
            .map(|(_, bytes)| minicbor::decode(bytes).expect("decodes"))
            .collect();
        self.read(rows.len());
        Ok(rows)
    }

    fn rolled_before(&self, before: u64) -> Result<Option<Rolled>, DiskFull> {
        let row = self.rolled.range(..before).next_back();
        self.read(row.iter().len());
        Ok(row.map(|(_, bytes)| minicbor::decode(bytes).expect("decodes")))
    }

    fn totals(
        &self,
        month: MonthNumber,
        after: u64,
        limit: u64,
    ) -> Result<Vec<(u64, Totals)>, DiskFull> {
        let rows = self.totals.get(&month).into_iter().flatten();
        let rows: Vec<_> = (1..)
            .zip(rows)
            .skip(after as usize)
            .take(limit as usize)
            .map(|(number, bytes)| (number, minicbor::decode(bytes).expect("decodes")))
            .collect();
        self.read(rows.len());
        Ok(rows)
    }

    fn payment(&self, name: &str) -> Result<Option<Payment>, DiskFull> {
        self.read(2);
        let mut payments = self.payments.values();
        let found = payments.find(|payment| payment.name == name).cloned();
        // As it is stored.
        Ok(found.map(|payment| {
            minicbor::decode(&minicbor::to_vec(payment).expect("encodes")).expect("decodes")
        }))
    }

    fn payments_before(&self, before: u64, limit: u64) -> Result<Vec<Payment>, DiskFull> {
        let payments = self.payments.range(..before).rev();
        let payments: Vec<_> = payments.take(limit as usize).collect();
        self.read(payments.len());
        Ok(payments
            .into_iter()
            .map(|(_, payment)| payment.clone())
            .collect())
    }

    fn remembered(&self, id: u64) -> Result<Option<Remembered>, DiskFull> {
        self.read(1);
        Ok(self.remembered.get(&id).cloned())
    }

    fn first(&self, days: &[Day], key: &[u8; 32]) -> Result<Option<First>, DiskFull> {
        let found: Vec<&First> = days
            .iter()
            .filter_map(|day| self.firsts[day].get(key))
            .collect();
        self.read(found.len());
        Ok(found.into_iter().max_by_key(|first| first.call).copied())
    }

    fn event(&self, number: EventNumber) -> Result<Option<EventRecord>, DiskFull> {
        self.read(1);
        let row = self.events.get(&row_of(number));
        let event = row.map(|bytes| minicbor::decode::<EventRecord>(bytes).expect("decodes"));
        Ok(event.filter(|event| event.number == number))
    }

    fn events(&self) -> Result<Vec<EventRecord>, DiskFull> {
        self.read(self.events.len());
        Ok(self.all_events().collect())
    }

    fn commit(&mut self, write: &Write) -> Result<(), DiskFull> {
        if self.commits_to_fail > 0 {
            self.commits_to_fail -= 1;
            return Err(DiskFull);
        }
        if let Some(tombstone) = &write.tombstone {
            let alone = Write {
                tombstone: Some(tombstone.clone()),
                ..Write::default()
            };
            assert_eq!(*write, alone, "nothing comes with a tombstone");
            *self = Self {
                tombstone: Some(tombstone.clone()),
                rows_written: self.rows_written + 1,
                ..Self::default()
            };
            return Ok(());
        }
        let rows_written = self.rows_written;
        if let Some(month) = write.changes.new_month {
            assert!(
                self.months.insert(month, BTreeMap::new()).is_none(),
                "the table of {month:?} is there already"
            );
        }
        if let Some(day) = write.changes.new_first_day {
            assert!(self.firsts.insert(day, BTreeMap::new()).is_none());
        }
        for day in &write.changes.past_first_days {
            assert!(self.firsts.remove(day).is_some());
        }
        if let Some(first) = &write.changes.first {
            let today = self.firsts.get_mut(&first.day()).expect("a table");
            today.insert(first.fingerprint.key, *first);
            self.wrote(1);
        }
        for row in &write.changes.admitted {
            let newest = write
                .month
                .and_then(|month| self.months.get_mut(&month))
                .expect("a table for calls");
            let mut row = row.clone();
            row.call.hold = through_bytes(&row.call.hold);
            let number = row.call.number.get();
            assert!(
                newest.insert(number, row).is_none(),
                "call {number} is there already"
            );
            self.wrote(1);
        }
        for end in &write.changes.ended {
            let row = self
                .months
                .get_mut(&end.month)
                .and_then(|calls| calls.get_mut(&end.call.get()))
                .expect("the row of the call that ended");
            let was_open = row
                .outcome
                .as_ref()
                .is_none_or(|outcome| outcome.state.is_open());
            if was_open {
                for part in split(&row.call.hold.parts, end.outcome.charged).0 {
                    *self.first_charges.entry(part.lot).or_default() += part.credits.get() as i64;
                }
            }
            row.outcome = Some(end.outcome.clone());
            if let Some(hold) = &end.hold {
                row.call.hold = through_bytes(hold);
            }
            self.wrote(1);
        }
        check_balances(write);
        for entry in &write.changes.entries {
            assert_eq!(
                entry.number,
                self.entries.len() as u64 + 1,
                "entries have no gaps"
            );
            self.entries.push(entry.clone());
            self.wrote(1);
        }
        for event in &write.changes.events {
            assert!(write.notices.is_some(), "an event that nobody sends");
            let bytes = minicbor::to_vec(event).expect("encodes");
            self.events.insert(event.row(), bytes);
            self.wrote(1);
        }
        if let Some(notices) = &write.notices {
            self.notices = Some(notices.clone());
            self.wrote(1);
        }
        for payment in &write.changes.payments {
            self.payments.insert(payment.number, payment.clone());
            self.wrote(2);
        }
        if let Some(rolled) = &write.changes.rolled {
            let bytes = stored(&minicbor::to_vec(rolled).expect("encodes"));
            assert!(self.rolled.insert(rolled.row(), bytes).is_none());
            self.wrote(1);
        }
        for (month, totals) in &write.changes.totals {
            assert!(write.snapshot.is_some(), "totals without a snapshot");
            assert!(self.months.contains_key(month), "totals of no month");
            let rows = self.totals.entry(*month).or_default();
            rows.push(stored(&minicbor::to_vec(totals).expect("encodes")));
            self.totals_written += 1;
            self.wrote(1);
        }
        if let Some(month) = write.changes.dropped_month {
            self.totals.remove(&month);
            let calls = self.months.remove(&month).expect("the month's table");
            self.dropped.insert(month, calls);
        }
        if let Some(profile) = &write.profile {
            self.profile = Some(stored(profile));
            self.wrote(1);
        }
        for (number, bytes) in &write.keys {
            self.keys.insert(*number, stored(bytes));
            self.wrote(1);
        }
        if let Some(snapshot) = &write.snapshot {
            let pieces = pieces::split(snapshot);
            self.snapshot = pieces.iter().map(|piece| stored(piece)).collect();
            self.snapshots_written += 1;
            self.wrote(self.snapshot.len());
        }
        if let Some(opening) = &write.opening {
            self.opening = match opening {
                Intent::Keep(bytes) => Some(bytes.clone()),
                Intent::Forget => None,
            };
            self.wrote(1);
        }
        if let Some(remembered) = &write.remember {
            self.remembered
                .insert(remembered.request.row(), remembered.clone());
            self.wrote(1);
        }
        let rows = self.rows_written - rows_written;
        assert!(rows == 1 || !write.is_one_row(), "{rows} rows in one");
        Ok(())
    }
}

/// Where no charge comes between two entries of a pool, the second's balance is the first's and
/// its own credits.
fn check_balances(write: &Write) {
    let charges = write.changes.ended.iter().any(|end| {
        let is_correction = write
            .changes
            .entries
            .iter()
            .any(|entry| entry.kind == EntryKind::Corrected && entry.call == Some(end.call));
        end.outcome.charged.get() > 0 && !is_correction
    });
    let mut balances: BTreeMap<&str, i64> = BTreeMap::new();
    for entry in &write.changes.entries {
        if let Some(before) = balances.insert(&entry.pool, entry.balance) {
            assert!(
                charges || before + entry.credits == entry.balance,
                "after a balance of {before}: {entry:?}"
            );
        }
    }
}

fn through_bytes(hold: &Hold) -> Hold {
    minicbor::decode(&stored(&minicbor::to_vec(hold).expect("encodes"))).expect("decodes")
}

/// As one value, which a Durable Object takes up to 2 MB.
fn stored(bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() <= 2_000_000, "a value of {} bytes", bytes.len());
    bytes.to_vec()
}
