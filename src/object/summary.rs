//! `/usage/summary`: totals, read within a bound however long the history is.

use super::{Failure, Object, ROWS_MAX, Store, storage};
use crate::{
    account::{Account, Rejected, Rolled},
    protocol::{SummaryPlace, SummaryQuery},
    time::{MonthNumber, Span, Timestamp},
    totals::{
        Totals,
        summary::{Period, Summary, SummaryView, Width},
    },
};

/// How many rows are read at a time: a row of totals can be large.
const ROWS_AT_A_TIME: u64 = 50;
/// So many lines of totals count as one more row read.
const LINES_PER_ROW: u64 = 50;

impl<S: Store> Object<S> {
    /// Days of the months that were rolled up, hours of those that are kept, and then what is in
    /// no table yet. A page that meets the bound is a part of the sum, and says where the rest is.
    pub(super) fn summary(
        &self,
        query: &SummaryQuery,
        clock: Timestamp,
    ) -> Result<Result<SummaryView, Rejected>, Failure> {
        let account = self.account.as_ref().ok_or(Failure::NoAccount)?;
        let calendar = self.policy.gateway.calendar;
        let period = Period::asked(query.from, query.to, clock, calendar);
        // Where the policy's calendar was edited, a month's ends have moved by some hours.
        let first_month = calendar.month_of(period.from.minus(Span::from_days(1)));
        let (days_from, hours_from, after) = match query.next {
            None => (Some(Rolled::first_row_of(first_month)), first_month, 0),
            Some(SummaryPlace::Days(row)) => (Some(row.saturating_add(1)), first_month, 0),
            Some(SummaryPlace::Hours(month, row)) if !account.is_rolled_up(month) => {
                (None, month, row)
            }
            Some(SummaryPlace::Hours(..)) => return Ok(Err(Rejected::RolledUpSince)),
        };
        let mut page = Page {
            summary: Summary::new(query.by, period, calendar),
            left: ROWS_MAX,
        };
        let mut next = match days_from {
            Some(row) => self.add_days(&mut page, account, row)?,
            None => None,
        };
        if next.is_none() {
            next = self.add_hours(&mut page, account, hours_from, after)?;
        }
        if next.is_none() {
            account.each_unwritten(&mut |line| page.summary.add(line, Width::Hour));
        }
        let next = next.map(|place| place.to_string());
        Ok(Ok(page.summary.into_view(account.id(), next)))
    }

    /// What is left of months that were rolled up, from the row `from` on. Says where it stopped,
    /// if it met the bound.
    fn add_days(
        &self,
        page: &mut Page,
        account: &Account,
        mut from: u64,
    ) -> Result<Option<SummaryPlace>, Failure> {
        loop {
            let read = self.store.rolled(from, 1).map_err(storage)?;
            let Some(part) = read.first().filter(|part| account.is_rolled_up(part.month)) else {
                return Ok(None);
            };
            page.add(&part.days, Width::Day);
            if page.left == 0 {
                return Ok(Some(SummaryPlace::Days(part.row())));
            }
            from = part.row().saturating_add(1);
        }
    }

    /// Hours of the months that are kept, from the row after `after` of the month `first` on. Says
    /// where it stopped, if it met the bound.
    fn add_hours(
        &self,
        page: &mut Page,
        account: &Account,
        first: MonthNumber,
        mut after: u64,
    ) -> Result<Option<SummaryPlace>, Failure> {
        let log = account.log().iter().map(|kept| kept.month);
        for month in log.filter(|month| *month >= first) {
            loop {
                let limit = ROWS_AT_A_TIME.min(page.left);
                let rows = self.store.totals(month, after, limit).map_err(storage)?;
                let was_last = u64::try_from(rows.len()).is_ok_and(|read| read < limit);
                for (row, totals) in rows {
                    page.add(&totals, Width::Hour);
                    if page.left == 0 {
                        return Ok(Some(SummaryPlace::Hours(month, row)));
                    }
                    after = row;
                }
                if was_last {
                    break;
                }
            }
            after = 0;
        }
        Ok(None)
    }
}

struct Page {
    summary: Summary,
    /// How many rows can still be read.
    left: u64,
}

impl Page {
    fn add(&mut self, totals: &Totals, width: Width) {
        for line in totals.lines() {
            self.summary.add(line, width);
        }
        let lines = u64::try_from(totals.lines().len()).unwrap_or(u64::MAX);
        let rows = lines
            .checked_div(LINES_PER_ROW)
            .unwrap_or(0)
            .saturating_add(1);
        self.left = self.left.saturating_sub(rows);
    }
}
