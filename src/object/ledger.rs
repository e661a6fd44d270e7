//! `/ledger`: entries and calls merged, newest first, read within a bound however long both are.

use std::collections::{BTreeMap, VecDeque};

use super::{Failure, Object, ROWS_MAX, Store, storage};
use crate::{
    account::{Account, Rejected, Rolled},
    call::CallRow,
    credits::Credits,
    id::CallNumber,
    ledger::Entry,
    ledger_page::{LedgerCursor, LedgerLine, LedgerPage, LedgerQuery, LineKind, MonthsCursor},
    time::{MonthNumber, Span, Timestamp},
};

/// At least so many rows are read at a time: most calls of some accounts are free.
const ROWS_AT_A_TIME: u64 = 50;

impl<S: Store> Object<S> {
    /// A page of the ledger.
    pub(super) fn ledger(
        &self,
        query: LedgerQuery,
    ) -> Result<Result<LedgerPage, Rejected>, Failure> {
        let account = self.account.as_ref().ok_or(Failure::NoAccount)?;
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let at = query.after.unwrap_or_else(|| LedgerCursor {
            ends: account.ends(),
            calls_below: account.calls_admitted().saturating_add(1),
            entries_below: account.ledger().entries_written().saturating_add(1),
            balances: balances(account),
            months: None,
        });
        let mut statement = Statement {
            account,
            balances: at.balances.into_iter().collect(),
            lines: Vec::new(),
        };
        let mut history = History {
            store: &self.store,
            account,
            calls: VecDeque::new(),
            entries: VecDeque::new(),
            months: VecDeque::new(),
            ends: at.ends,
            calls_below: at.calls_below,
            entries_below: at.entries_below,
            months_at: at.months.unwrap_or(MonthsCursor {
                below: CallNumber::MAX.get(),
                pools: 0,
            }),
            at_a_time: u64::from(query.limit).max(ROWS_AT_A_TIME),
            rows_left: ROWS_MAX,
        };
        let mut is_more = true;
        while statement.lines.len() < limit {
            match history.next()? {
                Next::Call(row) => statement.charge(row, at.ends),
                Next::Entry(entry) => statement.enter(entry),
                Next::Month(month) => {
                    let ends_at = self.ends_of(month.month);
                    statement.charge_month(month, ends_at);
                }
                Next::TooFar => break,
                Next::RolledUpSince => return Ok(Err(Rejected::RolledUpSince)),
                Next::End => {
                    is_more = false;
                    break;
                }
            }
        }
        let next = is_more.then(|| LedgerCursor {
            ends: at.ends,
            calls_below: history.calls_below,
            entries_below: history.entries_below,
            balances: statement.balances.into_iter().collect(),
            months: Some(history.months_at),
        });
        Ok(Ok(LedgerPage {
            lines: statement.lines,
            next,
            standing: None,
        }))
    }

    /// The last moment of `month`.
    fn ends_of(&self, month: MonthNumber) -> Timestamp {
        let next = self.policy.gateway.calendar.start_of_month(month.next());
        next.minus(Span::from_millis(1))
    }
}

fn balances(account: &Account) -> Vec<(String, i64)> {
    let books = &account.ledger().books;
    books
        .iter()
        .map(|(pool, book)| (pool.clone(), book.balance()))
        .collect()
}

/// Lines, and each pool's balance before the last of them.
struct Statement<'a> {
    account: &'a Account,
    balances: BTreeMap<String, i64>,
    lines: Vec<LedgerLine>,
}

impl Statement<'_> {
    /// A call has a line if it was charged, and ended before the statement was begun.
    fn charge(&mut self, row: CallRow, ends: u64) {
        let charged = row
            .outcome
            .filter(|outcome| (1..=ends).contains(&outcome.nth_end))
            .map_or(Credits::ZERO, |outcome| outcome.first_charged());
        if charged.is_zero() {
            return;
        }
        let credits = i64::try_from(charged.get()).unwrap_or(i64::MAX);
        let call = row.call;
        let (account, pool) = (self.account, call.hold.terms.pool);
        let line = LedgerLine {
            timestamp: call.admitted_at,
            kind: LineKind::Charged,
            credits: credits.saturating_neg(),
            balance: self.before(&pool, credits.saturating_neg()),
            pool,
            request_id: Some(account.call_id(call.number)),
            endpoint: Some(call.endpoint),
            key: Some(account.key_id(call.key)),
            lot: None,
            reference: None,
        };
        self.lines.push(line);
    }

    /// What the calls of a month were charged stands at its end.
    fn charge_month(&mut self, month: MonthCharge, ends_at: Timestamp) {
        let credits = i64::try_from(month.credits).unwrap_or(i64::MAX);
        let (year, number) = month.month.year_month();
        let line = LedgerLine {
            timestamp: ends_at,
            kind: LineKind::ChargedInMonth,
            credits: credits.saturating_neg(),
            balance: self.before(&month.pool, credits.saturating_neg()),
            pool: month.pool,
            request_id: None,
            endpoint: None,
            key: None,
            lot: None,
            reference: Some(format!("{year:04}-{number:02}")),
        };
        self.lines.push(line);
    }

    fn enter(&mut self, entry: Entry) {
        let line = LedgerLine {
            timestamp: entry.at,
            kind: LineKind::Entry(entry.kind),
            credits: entry.credits,
            balance: self.before(&entry.pool, entry.credits),
            pool: entry.pool,
            request_id: entry.call.map(|call| self.account.call_id(call)),
            endpoint: None,
            key: None,
            lot: Some(entry.lot),
            reference: entry.reference,
        };
        self.lines.push(line);
    }

    /// Goes back before a line of `credits`; says the balance after it.
    fn before(&mut self, pool: &str, credits: i64) -> i64 {
        let balance = self.balances.entry(pool.to_owned()).or_default();
        std::mem::replace(balance, balance.saturating_sub(credits))
    }
}

/// What comes next, going back.
enum Next {
    Call(CallRow),
    Month(MonthCharge),
    Entry(Entry),
    /// Calls that an earlier page has listed were rolled up with others that none has.
    RolledUpSince,
    /// There is more, and no more may be read.
    TooFar,
    /// There is nothing older.
    End,
}

/// What the calls of a month, or of a part of it, were charged in one pool.
struct MonthCharge {
    /// The row that tells it.
    row: u64,
    month: MonthNumber,
    /// The last call among them.
    last: u64,
    pool: String,
    credits: u64,
}

/// Calls and entries from the newest to the oldest. An entry comes after the calls that had been
/// admitted when it was written, so going back it comes first.
struct History<'a, S> {
    store: &'a S,
    account: &'a Account,
    /// Read ahead, the newest first.
    calls: VecDeque<CallRow>,
    entries: VecDeque<Entry>,
    /// Of one row.
    months: VecDeque<MonthCharge>,
    /// The ends of calls that the statement knows of.
    ends: u64,
    calls_below: u64,
    entries_below: u64,
    months_at: MonthsCursor,
    at_a_time: u64,
    rows_left: u64,
}

impl<S: Store> History<'_, S> {
    fn next(&mut self) -> Result<Next, Failure> {
        if let Some(stop) = self.read_ahead()? {
            return Ok(stop);
        }
        let call = self.calls.front().map(|row| row.call.number.get());
        let charged = call.or_else(|| self.months.front().map(|month| month.last));
        let is_entry = self
            .entries
            .front()
            .is_some_and(|entry| entry.calls_before >= charged.unwrap_or(0));
        if is_entry && let Some(entry) = self.entries.pop_front() {
            self.entries_below = entry.number;
            return Ok(Next::Entry(entry));
        }
        if let Some(row) = self.calls.pop_front() {
            self.calls_below = row.call.number.get();
            return Ok(Next::Call(row));
        }
        let Some(month) = self.months.pop_front() else {
            return Ok(Next::End);
        };
        let at = &mut self.months_at;
        if self.months.is_empty() {
            (at.below, at.pools) = (month.row, 0);
        } else {
            at.pools = at.pools.saturating_add(1);
        }
        Ok(Next::Month(month))
    }

    /// Makes sure that the next call, or month, and the next entry are known; or says why not.
    fn read_ahead(&mut self) -> Result<Option<Next>, Failure> {
        if self.entries.is_empty() && self.entries_below > 1 {
            let limit = self.at_a_time.min(self.rows_left);
            let read = self.store.entries_before(self.entries_below, limit);
            self.entries.extend(read.map_err(storage)?);
            self.spend(self.entries.len());
            if self.entries.is_empty() {
                return Ok(Some(Next::TooFar));
            }
        }
        if !self.calls.is_empty() {
            return Ok(None);
        }
        if let Some(month) = self.account.month_below(self.calls_below) {
            let limit = self.at_a_time.min(self.rows_left);
            let read = self.store.calls_before(month, self.calls_below, limit);
            self.calls.extend(read.map_err(storage)?);
            self.spend(self.calls.len());
            return Ok(self.calls.is_empty().then_some(Next::TooFar));
        }
        while self.months.is_empty() {
            if self.rows_left == 0 {
                return Ok(Some(Next::TooFar));
            }
            let read = self.store.rolled_before(self.months_at.below);
            let Some(part) = read.map_err(storage)? else {
                break;
            };
            self.spend(1);
            if self.account.is_rolled_up(part.month) {
                if part.last.get() >= self.calls_below || part.ends > self.ends {
                    return Ok(Some(Next::RolledUpSince));
                }
                let listed = usize::try_from(self.months_at.pools).unwrap_or(usize::MAX);
                self.months.extend(charges_of(&part).skip(listed));
            }
            if self.months.is_empty() {
                (self.months_at.below, self.months_at.pools) = (part.row(), 0);
            }
        }
        Ok(None)
    }

    fn spend(&mut self, rows: usize) {
        let rows = u64::try_from(rows).unwrap_or(u64::MAX);
        self.rows_left = self.rows_left.saturating_sub(rows);
    }
}

fn charges_of(part: &Rolled) -> impl Iterator<Item = MonthCharge> {
    part.charged.iter().map(|(pool, lots)| MonthCharge {
        row: part.row(),
        month: part.month,
        last: part.last.get(),
        pool: pool.clone(),
        credits: lots
            .values()
            .fold(0, |sum, credits| sum.saturating_add(*credits)),
    })
}
