//! The directory's durable storage, in memory: what the SQL would do, and what it would cost.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

use tollgate::{
    directory::{Found, NameRange, Store, Write},
    time::Timestamp,
};

use crate::memory_store::DiskFull;

/// The directory's tables.
#[derive(Clone, Debug, Default)]
pub struct MemoryDirectory {
    records: BTreeMap<u64, Vec<u8>>,
    names: BTreeSet<(u8, String, u64)>,
    plans: BTreeMap<String, Vec<u8>>,
    hours: BTreeMap<Timestamp, Vec<u8>>,
    /// Rows that SQLite would have counted as written.
    pub rows_written: u64,
    /// Rows that SQLite would have counted as read.
    pub rows_read: Cell<u64>,
    /// So many commits from now on fail.
    pub commits_to_fail: u32,
}

impl MemoryDirectory {
    fn read(&self, rows: usize) {
        self.rows_read.set(self.rows_read.get() + rows as u64);
    }
}

impl Store for MemoryDirectory {
    type Error = DiskFull;

    fn plans(&self) -> Result<Vec<Vec<u8>>, DiskFull> {
        self.read(self.plans.len());
        Ok(self.plans.values().cloned().collect())
    }

    fn after(&self, number: u64, limit: u32) -> Result<Vec<Found>, DiskFull> {
        let found: Vec<Found> = self
            .records
            .range(number + 1..)
            .take(limit as usize)
            .map(|(number, record)| Found {
                text: String::new(),
                number: *number,
                record: record.clone(),
            })
            .collect();
        self.read(found.len());
        Ok(found)
    }

    fn named(&self, names: &NameRange<'_>, limit: u32) -> Result<Vec<Found>, DiskFull> {
        let kind = names.kind.number();
        let found: Vec<Found> = self
            .names
            .range((kind, names.from.to_owned(), names.number + 1)..)
            .take_while(|(other, text, _)| *other == kind && text.as_str() < names.to)
            .take(limit as usize)
            .map(|(_, text, number)| Found {
                text: text.clone(),
                number: *number,
                record: self.records[number].clone(),
            })
            .collect();
        self.read(2 * found.len());
        Ok(found)
    }

    fn hours(
        &self,
        from: Timestamp,
        to: Timestamp,
        limit: usize,
    ) -> Result<Vec<(Timestamp, Vec<u8>)>, DiskFull> {
        let hours = self.hours.range(from..to.max(from)).rev().take(limit);
        let found: Vec<_> = hours.map(|(hour, body)| (*hour, body.clone())).collect();
        self.read(found.len());
        Ok(found)
    }

    fn commit(&mut self, write: &Write) -> Result<(), DiskFull> {
        if self.commits_to_fail > 0 {
            self.commits_to_fail -= 1;
            return Err(DiskFull);
        }
        if let Some((number, record)) = &write.record {
            self.records.insert(*number, record.clone());
            self.rows_written += 1;
            for name in &write.unnamed {
                let name = (name.kind.number(), name.text.clone(), *number);
                assert!(self.names.remove(&name), "{name:?} is not there");
                self.rows_written += 1;
            }
            for name in &write.named {
                let name = (name.kind.number(), name.text.clone(), *number);
                assert!(self.names.insert(name.clone()), "{name:?} is there already");
                self.rows_written += 1;
            }
        }
        for (hour, body) in &write.hours {
            self.hours.insert(*hour, body.clone());
            self.rows_written += 1;
        }
        if let Some(first) = write.hours_from {
            let before = self.hours.len();
            self.hours.retain(|hour, _| *hour >= first);
            self.rows_written += (before - self.hours.len()) as u64;
        }
        for (name, plan) in &write.plans {
            self.plans.insert(name.clone(), plan.clone());
            self.rows_written += 1;
        }
        Ok(())
    }
}
