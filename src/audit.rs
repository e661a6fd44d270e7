//! Audit: what the books must be, worked out anew from the ledger's entries and the call log.
//!
//! History is booked piece by piece, and a call that changes after it was booked is booked out and
//! in again, so that an audit can take its time while calls go on. For each lot, two ways lead to
//! what was spent: what its calls are charged now, and what they were charged at first less what
//! entries have corrected. They must agree with each other and with the books.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{
    account::Rolled,
    call::{CallRow, CallState},
    credits::Credits,
    id::CallNumber,
    ledger::{Book, Entry, EntryKind, Ledger, Lot, LotNumber, Part, split},
};

/// So many differences are told at most.
const DIFFERENCES_MAX: usize = 100;

/// An audit under way.
#[derive(Debug, Default)]
pub struct Audit {
    lots: BTreeMap<LotNumber, Audited>,
    entries: u64,
    calls: u64,
    open_calls: u64,
    /// The last call whose month was rolled up.
    rolled_through: Option<CallNumber>,
    /// What is wrong with history itself.
    differences: Vec<Difference>,
}

/// A lot as history tells it.
#[derive(Debug, Default)]
struct Audited {
    pool: String,
    amount: i64,
    expired: i64,
    /// What open calls hold.
    held: i64,
    /// What ended calls are charged now.
    spent: i64,
    /// What they were charged at first.
    first_spent: i64,
    /// What entries gave back of that; negative where they took more.
    corrected: i64,
}

/// What an audit found.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// Whether the books are what history tells.
    pub ok: bool,
    entries: u64,
    calls: u64,
    /// By pool, as history tells them.
    pools: BTreeMap<String, AuditedPool>,
    differences: Vec<Difference>,
}

#[derive(Debug, Default, Serialize)]
struct AuditedPool {
    /// Granted less spent and expired; holds are still in it.
    balance: i64,
    held: i64,
    spent: i64,
    expired: i64,
}

/// A figure that is not what it must be.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Difference {
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lot: Option<LotNumber>,
    figure: &'static str,
    /// As it stands.
    books: i64,
    /// As history tells it.
    history: i64,
}

/// What the account says of itself, to be compared.
#[derive(Clone, Copy, Debug)]
pub struct Books<'a> {
    /// Its lots.
    pub ledger: &'a Ledger,
    /// Calls whose rows are kept or summed up.
    pub calls: u64,
    /// Calls whose hold stands.
    pub open_calls: u64,
}

impl Audit {
    /// Books what is left of a month. All of them come before the first entry.
    pub fn book_rolled(&mut self, rolled: &Rolled) {
        let calls = rolled.calls.saturating_add(rolled.cancelled);
        self.calls = self.calls.saturating_add(calls);
        self.rolled_through = Some(rolled.last);
        for (number, credits) in rolled.charged.values().flatten() {
            let lot = self.lots.entry(*number).or_default();
            add(&mut lot.first_spent, signed(*credits));
            add(&mut lot.spent, signed(*credits));
        }
    }

    /// Books an entry. They come in their order.
    pub fn book_entry(&mut self, entry: &Entry) {
        self.entries = self.entries.saturating_add(1);
        if entry.number != self.entries {
            let (found, expected) = (signed(entry.number), signed(self.entries));
            self.report(None, None, "entry number", found, expected);
            self.entries = entry.number;
        }
        let lot = self.lots.entry(entry.lot).or_default();
        match entry.kind {
            EntryKind::Granted
            | EntryKind::Renewed
            | EntryKind::RolledOver
            | EntryKind::Adjusted
            | EntryKind::Bought
            | EntryKind::TakenBack
            | EntryKind::Shortfall
            | EntryKind::GivenBack
            | EntryKind::ToppedUp => {
                lot.pool.clone_from(&entry.pool);
                add(&mut lot.amount, entry.credits);
            }
            EntryKind::Expired => add(&mut lot.expired, entry.credits.saturating_neg()),
            EntryKind::Corrected | EntryKind::Refunded => {
                add(&mut lot.corrected, entry.credits);
                // Of a call that is no longer kept, only this tells what it is charged now.
                if entry.call.is_some() && entry.call <= self.rolled_through {
                    add(&mut lot.spent, entry.credits.saturating_neg());
                }
            }
        }
    }

    /// Books a call.
    pub fn book_call(&mut self, row: &CallRow) {
        self.calls = self.calls.saturating_add(1);
        self.book(row, 1);
    }

    /// Books a call out again, as it was booked: it is about to change.
    pub fn unbook_call(&mut self, row: &CallRow) {
        self.calls = self.calls.saturating_sub(1);
        self.book(row, -1);
    }

    fn book(&mut self, row: &CallRow, sign: i64) {
        let parts = &row.call.hold.parts;
        let Some(ended) = row
            .outcome
            .as_ref()
            .filter(|outcome| !outcome.state.is_open())
        else {
            self.open_calls = self.open_calls.saturating_add_signed(sign);
            self.take(parts, sign, |lot| &mut lot.held);
            return;
        };
        if ended.state == CallState::Cancelled {
            return;
        }
        self.take(&charged_of(parts, ended.charged), sign, |lot| {
            &mut lot.spent
        });
        let first = charged_of(parts, ended.first_charged());
        self.take(&first, sign, |lot| &mut lot.first_spent);
    }

    fn take(&mut self, parts: &[Part], sign: i64, figure: impl Fn(&mut Audited) -> &mut i64) {
        for part in parts {
            let lot = self.lots.entry(part.lot).or_default();
            let credits = signed(part.credits.get()).saturating_mul(sign);
            add(figure(lot), credits);
        }
    }

    /// Compares the books with history, when all of it is booked.
    #[must_use]
    pub fn conclude(mut self, books: Books<'_>) -> Findings {
        for (pool, book) in &books.ledger.books {
            for lot in &book.lots {
                self.compare_lot(pool, lot);
            }
        }
        let mut pools: BTreeSet<String> = books.ledger.books.keys().cloned().collect();
        pools.extend(self.lots.values().map(|lot| lot.pool.clone()));
        for pool in pools {
            let none = Book::default();
            let book = books.ledger.book(&pool).unwrap_or(&none);
            self.compare_done(&pool, book);
        }
        self.compare_history(&books);
        self.differences.truncate(DIFFERENCES_MAX);
        Findings {
            ok: self.differences.is_empty(),
            entries: self.entries,
            calls: self.calls,
            pools: self.pools(),
            differences: self.differences,
        }
    }

    fn compare_lot(&mut self, pool: &str, lot: &Lot) {
        let history = self.lots.entry(lot.number).or_default();
        let is_of_pool = history.pool == pool;
        pool.clone_into(&mut history.pool);
        let figures = [
            ("amount", signed(lot.amount.get()), history.amount),
            ("held", signed(lot.held.get()), history.held),
            ("spent", signed(lot.spent.get()), history.spent),
            ("expired", signed(lot.expired.get()), history.expired),
        ];
        for (figure, books, history) in figures {
            self.report(Some(pool), Some(lot.number), figure, books, history);
        }
        if !is_of_pool {
            self.report(Some(pool), Some(lot.number), "lots of this number", 1, 0);
        }
    }

    /// The lots of `pool` that the books let go of, in sum.
    fn compare_done(&mut self, pool: &str, book: &Book) {
        let done = book.done;
        let (mut amount, mut spent, mut expired, mut held) = (0_i64, 0_i64, 0_i64, 0_i64);
        for (number, lot) in &self.lots {
            if lot.pool == pool && book.lot(*number).is_none() {
                add(&mut amount, lot.amount);
                add(&mut spent, lot.spent);
                add(&mut expired, lot.expired);
                add(&mut held, lot.held);
            }
        }
        let figures = [
            ("amount of past lots", signed(done.amount), amount),
            ("spent of past lots", signed(done.spent), spent),
            ("expired of past lots", signed(done.expired), expired),
            ("held of past lots", 0, held),
        ];
        for (figure, books, history) in figures {
            self.report(Some(pool), None, figure, books, history);
        }
    }

    fn compare_history(&mut self, books: &Books<'_>) {
        let by_entries: Vec<_> = self
            .lots
            .iter()
            .map(|(number, lot)| {
                let by_entries = lot.first_spent.saturating_sub(lot.corrected);
                (lot.pool.clone(), *number, lot.spent, by_entries)
            })
            .collect();
        for (pool, number, spent, by_entries) in by_entries {
            let figure = "spent by entries";
            self.report(Some(&pool), Some(number), figure, spent, by_entries);
        }
        let figures = [
            (
                "entries",
                signed(books.ledger.entries_written()),
                signed(self.entries),
            ),
            ("calls", signed(books.calls), signed(self.calls)),
            (
                "open calls",
                signed(books.open_calls),
                signed(self.open_calls),
            ),
        ];
        for (figure, books, history) in figures {
            self.report(None, None, figure, books, history);
        }
    }

    fn pools(&self) -> BTreeMap<String, AuditedPool> {
        let mut pools: BTreeMap<String, AuditedPool> = BTreeMap::new();
        for lot in self.lots.values() {
            let pool = pools.entry(lot.pool.clone()).or_default();
            let spent = lot.spent.saturating_add(lot.expired);
            add(&mut pool.balance, lot.amount.saturating_sub(spent));
            add(&mut pool.held, lot.held);
            add(&mut pool.spent, lot.spent);
            add(&mut pool.expired, lot.expired);
        }
        pools
    }

    fn report(
        &mut self,
        pool: Option<&str>,
        lot: Option<LotNumber>,
        figure: &'static str,
        books: i64,
        history: i64,
    ) {
        if books != history {
            self.differences.push(Difference {
                pool: pool.map(str::to_owned),
                lot,
                figure,
                books,
                history,
            });
        }
    }
}

fn charged_of(parts: &[Part], charged: Credits) -> Vec<Part> {
    split(parts, charged).0
}

fn add(sum: &mut i64, credits: i64) {
    *sum = sum.saturating_add(credits);
}

fn signed(figure: u64) -> i64 {
    i64::try_from(figure).unwrap_or(i64::MAX)
}
