//! `/export`: the next slice of everything that is known of the account.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    Failure, Object, ROWS_MAX, Store, at_rest::keys_after, events::event_json, storage, to_json,
};
use crate::{
    account::{Account, PlanView, Rolled},
    event::EVENTS_KEPT,
    export::{ExportPlace, ExportSlice},
    id::{AccountId, CallId, EventNumber, KeyId, KeyNumber},
    ledger::{Entry, LotNumber},
    payments::history::PaymentView,
    time::{Calendar, Timestamp},
    totals::Line,
};

/// A slice that has so many bytes is not added to.
const BYTES_MAX: usize = 1 << 20;
/// At most so many rows are read at a time, since the slice may be full before they are written.
const ROWS_AT_A_TIME: u64 = 500;

/// The first line.
#[derive(Serialize)]
struct ExportLine<'a> {
    account: &'a AccountId,
    /// The lines after it tell of these entries and calls, and of nothing that came later.
    as_of: Timestamp,
    entries: u64,
    calls: u64,
}

#[derive(Serialize)]
struct MonthLine<'a> {
    month: String,
    part: u16,
    first_call: CallId,
    last_call: CallId,
    calls: u64,
    cancelled: u64,
    /// By pool and lot.
    charged: &'a BTreeMap<String, BTreeMap<LotNumber, u64>>,
}

#[derive(Serialize)]
struct DayLine<'a> {
    day: String,
    key: KeyId,
    endpoint: &'a str,
    pool: &'a str,
    calls: i64,
    failed: i64,
    credits_consumed: i64,
}

#[derive(Serialize)]
struct EntryLine<'a> {
    number: u64,
    timestamp: Timestamp,
    kind: &'static str,
    pool: &'a str,
    lot: LotNumber,
    credits: i64,
    balance: i64,
    /// How many calls had been admitted when it was written.
    calls_before: u64,
    request_id: Option<CallId>,
    reference: Option<&'a str>,
}

#[derive(Serialize)]
struct EndLine {
    /// How many lines came before this one.
    lines: u64,
}

impl<S: Store> Object<S> {
    /// The slice that begins at `place`, or the first one.
    pub(super) fn export(
        &mut self,
        place: Option<ExportPlace>,
        clock: Timestamp,
    ) -> Result<ExportSlice, Failure> {
        let changes = self.awake()?.book_refusals();
        self.commit(changes, None)?;
        let account = self.account.as_ref().ok_or(Failure::NoAccount)?;
        let is_first = place.is_none();
        let mut slice = Slice {
            store: &self.store,
            account,
            calendar: self.policy.gateway.calendar,
            clock,
            place: place.unwrap_or_else(|| ExportPlace {
                as_of: clock,
                entries: account.ledger().entries_written(),
                calls: account.calls_admitted(),
                keys_written: KeyNumber::new(0),
                rolled_from: 0,
                entries_written: 0,
                calls_written: 0,
                lines: 0,
                payments_before: account.payments().saturating_add(1),
                events_before: account.events_emitted().get().saturating_add(1),
            }),
            lines: String::new(),
            rows_left: ROWS_MAX,
        };
        if is_first {
            slice.introduce();
        }
        let is_all = slice.keys()?
            && slice.months()?
            && slice.entries()?
            && slice.calls()?
            && slice.payments()?
            && slice.events()?;
        if is_all {
            let lines = slice.place.lines;
            slice.write("end", &EndLine { lines });
        }
        Ok(ExportSlice {
            lines: slice.lines,
            next: (!is_all).then_some(slice.place),
        })
    }
}

/// A slice in the making. Each step writes what is left of its kind, and says whether that was all.
struct Slice<'a, S> {
    store: &'a S,
    account: &'a Account,
    calendar: Calendar,
    clock: Timestamp,
    place: ExportPlace,
    lines: String,
    rows_left: u64,
}

impl<S: Store> Slice<'_, S> {
    fn introduce(&mut self) {
        let account = self.account;
        let line = ExportLine {
            account: account.id(),
            as_of: self.place.as_of,
            entries: self.place.entries,
            calls: self.place.calls,
        };
        self.write("export", &line);
        self.write("account", &account.view());
        self.write("plan", &PlanView::of(&account.profile().plan));
        self.write("balance", &account.balance_view());
    }

    fn keys(&mut self) -> Result<bool, Failure> {
        let account = self.account;
        while !self.is_full() {
            let limit = ROWS_AT_A_TIME.min(self.rows_left);
            let keys = keys_after(self.store, account, self.place.keys_written, limit)?;
            let Some((last, _)) = keys.last() else {
                return Ok(true);
            };
            self.place.keys_written = *last;
            self.spend(keys.len());
            for (number, key) in &keys {
                self.write("key", &account.view_of_key(*number, key, self.clock));
            }
        }
        Ok(false)
    }

    /// Months that were rolled up: also one that is rolled up while the export goes on, unless all
    /// of its calls were written by then.
    fn months(&mut self) -> Result<bool, Failure> {
        loop {
            let next = self.store.rolled(self.place.rolled_from, 1);
            let next = next.map_err(storage)?.pop();
            let Some(part) = next.filter(|part| self.account.is_rolled_up(part.month)) else {
                return Ok(true);
            };
            if self.is_full() {
                return Ok(false);
            }
            self.rows_left = self.rows_left.saturating_sub(1);
            self.place.rolled_from = part.row().saturating_add(1);
            if part.last.get() > self.place.calls_written {
                self.place.calls_written = part.last.get();
                self.month(&part);
            }
        }
    }

    fn month(&mut self, part: &Rolled) {
        let account = self.account;
        let (year, month) = part.month.year_month();
        let line = MonthLine {
            month: format!("{year:04}-{month:02}"),
            part: part.part,
            first_call: account.call_id(part.first),
            last_call: account.call_id(part.last),
            calls: part.calls,
            cancelled: part.cancelled,
            charged: &part.charged,
        };
        self.write("month", &line);
        for line in part.days.lines() {
            self.day(line);
        }
    }

    fn day(&mut self, line: &Line) {
        let line = DayLine {
            day: self.calendar.day_of(line.at).to_string(),
            key: self.account.key_id(line.key),
            endpoint: &line.endpoint,
            pool: &line.pool,
            calls: line.tally.calls,
            failed: line.tally.failed,
            credits_consumed: line.tally.credits,
        };
        self.write("day", &line);
    }

    fn entries(&mut self) -> Result<bool, Failure> {
        while self.place.entries_written < self.place.entries {
            if self.is_full() {
                return Ok(false);
            }
            let left = self
                .place
                .entries
                .saturating_sub(self.place.entries_written);
            let limit = ROWS_AT_A_TIME.min(self.rows_left).min(left);
            let entries = self.store.entries_after(self.place.entries_written, limit);
            let entries = entries.map_err(storage)?;
            let Some(last) = entries.last() else {
                // The ledger ends too soon, which an audit tells.
                break;
            };
            self.spend(entries.len());
            self.place.entries_written = last.number;
            for entry in &entries {
                self.entry(entry);
            }
        }
        Ok(true)
    }

    fn entry(&mut self, entry: &Entry) {
        let account = self.account;
        let line = EntryLine {
            number: entry.number,
            timestamp: entry.at,
            kind: entry.kind.as_str(),
            pool: &entry.pool,
            lot: entry.lot,
            credits: entry.credits,
            balance: entry.balance,
            calls_before: entry.calls_before,
            request_id: entry.call.map(|call| account.call_id(call)),
            reference: entry.reference.as_deref(),
        };
        self.write("entry", &line);
    }

    fn calls(&mut self) -> Result<bool, Failure> {
        let account = self.account;
        let months = account.log();
        let ends = months
            .iter()
            .skip(1)
            .map(|month| month.first.get().saturating_sub(1))
            .chain([u64::MAX]);
        for (month, end) in months.iter().zip(ends) {
            let end = end.min(self.place.calls);
            while self.place.calls_written < end {
                if self.is_full() {
                    return Ok(false);
                }
                let left = end.saturating_sub(self.place.calls_written);
                let limit = ROWS_AT_A_TIME.min(self.rows_left).min(left);
                let rows = self
                    .store
                    .calls_after(month.month, self.place.calls_written, limit);
                let rows = rows.map_err(storage)?;
                let Some(last) = rows.last() else {
                    break;
                };
                self.spend(rows.len());
                self.place.calls_written = last.call.number.get();
                for row in rows {
                    self.write("call", &account.call_view(row));
                }
            }
        }
        Ok(true)
    }

    /// The newest first. One that came while the export went on is not among them; one that has changed is
    /// as it is now.
    fn payments(&mut self) -> Result<bool, Failure> {
        loop {
            if self.is_full() {
                return Ok(false);
            }
            let limit = ROWS_AT_A_TIME.min(self.rows_left);
            let payments = self
                .store
                .payments_before(self.place.payments_before, limit);
            let payments = payments.map_err(storage)?;
            let Some(last) = payments.last() else {
                return Ok(true);
            };
            self.spend(payments.len());
            self.place.payments_before = last.number;
            for payment in &payments {
                self.write("payment", &PaymentView::from(payment));
            }
        }
    }

    /// The newest first, as far back as they are kept.
    fn events(&mut self) -> Result<bool, Failure> {
        let emitted = self.account.events_emitted().get();
        let oldest = emitted.saturating_sub(EVENTS_KEPT).saturating_add(1);
        while self.place.events_before > oldest {
            if self.is_full() {
                return Ok(false);
            }
            self.spend(1);
            self.place.events_before = self.place.events_before.saturating_sub(1);
            let number = EventNumber::new(self.place.events_before);
            if let Some(event) = self.store.event(number).map_err(storage)? {
                // It has a type of its own.
                let json = event_json(self.account, &event);
                self.lines
                    .extend([r#"{"type":"event","event":"#, &json, "}\n"]);
                self.place.lines = self.place.lines.saturating_add(1);
            }
        }
        Ok(true)
    }

    fn is_full(&self) -> bool {
        self.rows_left == 0 || self.lines.len() >= BYTES_MAX
    }

    fn spend(&mut self, rows: usize) {
        let rows = u64::try_from(rows).unwrap_or(u64::MAX);
        self.rows_left = self.rows_left.saturating_sub(rows);
    }

    /// A line: its type, and then `what` as it is told elsewhere.
    fn write<T: Serialize>(&mut self, r#type: &str, what: &T) {
        let json = to_json(what);
        let fields = json.strip_prefix('{').unwrap_or_default();
        let line = [r#"{"type":""#, r#type, r#"","#, fields, "\n"];
        self.lines.extend(line);
        self.place.lines = self.place.lines.saturating_add(1);
    }
}
