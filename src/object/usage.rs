//! `/usage`: a page of the call log, read within a bound however long the log is.

use super::{Failure, Object, ROWS_MAX, Store, storage};
use crate::{
    account::{Account, LogMonth, UsageLine, UsageView},
    call::{CallRow, CallState},
    id::CallNumber,
    protocol::{UsageFilter, UsageQuery},
};

/// How many rows are read at a time where a filter looks for matches.
const ROWS_AT_A_TIME: u64 = 500;

impl<S: Store> Object<S> {
    pub(super) fn usage(&self, query: &UsageQuery) -> Result<UsageView, Failure> {
        if query.filter == UsageFilter::default() && query.before.is_none() {
            self.unfiltered(query)
        } else {
            self.filtered(query)
        }
    }

    /// The counts of the months tell where the page starts and how many calls there are.
    fn unfiltered(&self, query: &UsageQuery) -> Result<UsageView, Failure> {
        let account = self.account.as_ref().ok_or(Failure::NoAccount)?;
        let months = months_with_counts(account);
        let total_count = listed(&months);
        let limit = u64::from(query.limit);
        let mut to_skip = u64::from(query.offset);
        let mut rows = Vec::new();
        for (month, count) in months.into_iter().rev() {
            let missing = limit.saturating_sub(len(&rows));
            if missing == 0 {
                break;
            }
            if to_skip >= count {
                to_skip = to_skip.saturating_sub(count);
                continue;
            }
            let of_month = self.store.newest_calls(month.month, to_skip, missing);
            rows.extend(of_month.map_err(storage)?);
            to_skip = 0;
        }
        let passed = u64::from(query.offset).saturating_add(len(&rows));
        let next = rows
            .last()
            .filter(|_| passed < total_count)
            .map(|row| row.call.number);
        Ok(page(
            account,
            query,
            rows,
            Found {
                total_count,
                total_exact: true,
                next,
            },
        ))
    }

    /// Looks at one row after the other, newest first, until the bound; where there is no filter, until
    /// the page is full.
    fn filtered(&self, query: &UsageQuery) -> Result<UsageView, Failure> {
        let account = self.account.as_ref().ok_or(Failure::NoAccount)?;
        let is_filtered = query.filter != UsageFilter::default();
        let wanted = u64::from(query.offset).saturating_add(query.limit.into());
        let mut before = query.before.map_or(u64::MAX, CallNumber::get);
        let (mut read, mut matched) = (0_u64, 0_u64);
        let mut rows: Vec<CallRow> = Vec::new();
        let mut last_read = None;
        for month in account.log().iter().rev() {
            if month.first.get() >= before {
                continue;
            }
            loop {
                let mut at_a_time = ROWS_AT_A_TIME.min(ROWS_MAX.saturating_sub(read));
                if !is_filtered {
                    // One more tells whether there is more.
                    at_a_time = at_a_time.min(wanted.saturating_add(1).saturating_sub(matched));
                }
                if at_a_time == 0 {
                    break;
                }
                // Numbers are stored as JavaScript has them.
                let below = before.min(account.calls_admitted().saturating_add(1));
                let chunk = self
                    .store
                    .calls_before(month.month, below, at_a_time)
                    .map_err(storage)?;
                read = read.saturating_add(len(&chunk));
                let is_last = len(&chunk) < at_a_time;
                for row in chunk {
                    before = row.call.number.get();
                    last_read = Some(row.call.number);
                    if !matches(&query.filter, &row) {
                        continue;
                    }
                    matched = matched.saturating_add(1);
                    if matched > u64::from(query.offset) && len(&rows) < u64::from(query.limit) {
                        rows.push(row);
                    }
                }
                if is_last {
                    break;
                }
            }
        }
        let first_kept = account.log().first().map(|month| month.first.get());
        let is_all_read = read < ROWS_MAX || first_kept.is_none_or(|first| before <= first);
        let is_more = matched > u64::from(query.offset).saturating_add(len(&rows));
        let next = if is_more {
            rows.last().map(|row| row.call.number)
        } else {
            last_read.filter(|_| !is_all_read)
        };
        // What earlier pages listed was not looked at again.
        let found = if is_filtered {
            Found {
                total_count: matched,
                total_exact: is_all_read && query.before.is_none(),
                next,
            }
        } else {
            Found {
                total_count: listed(&months_with_counts(account)),
                total_exact: true,
                next,
            }
        };
        Ok(page(account, query, rows, found))
    }
}

struct Found {
    total_count: u64,
    total_exact: bool,
    next: Option<CallNumber>,
}

fn page(account: &Account, query: &UsageQuery, rows: Vec<CallRow>, found: Found) -> UsageView {
    UsageView {
        usage: rows
            .into_iter()
            .map(|row| usage_line(account, row))
            .collect(),
        total_count: found.total_count,
        total_exact: (!found.total_exact).then_some(false),
        offset: query.offset,
        limit: query.limit,
        next: found.next.map(|next| next.to_string()),
    }
}

fn matches(filter: &UsageFilter, row: &CallRow) -> bool {
    let outcome = row.outcome.as_ref();
    let is_undone = outcome.is_some_and(|outcome| outcome.state == CallState::Cancelled);
    let status = outcome.and_then(|outcome| outcome.status);
    !is_undone
        && filter.from.is_none_or(|from| row.call.admitted_at >= from)
        && filter.to.is_none_or(|to| row.call.admitted_at < to)
        && filter
            .endpoint
            .as_ref()
            .is_none_or(|endpoint| *endpoint == row.call.endpoint)
        && filter.status.is_none_or(|asked| status == Some(asked))
}

/// The months that are kept, oldest first, with how many calls of each are listed.
fn months_with_counts(account: &Account) -> Vec<(LogMonth, u64)> {
    let log = account.log();
    let ends = log
        .iter()
        .skip(1)
        .map(|month| month.first.get())
        .chain([account.calls_admitted().saturating_add(1)]);
    log.iter()
        .zip(ends)
        .map(|(month, end)| {
            let numbers = end.saturating_sub(month.first.get());
            (*month, numbers.saturating_sub(month.cancelled))
        })
        .collect()
}

/// How many calls these months list.
fn listed(months: &[(LogMonth, u64)]) -> u64 {
    months
        .iter()
        .fold(0, |sum, (_, count)| sum.saturating_add(*count))
}

fn usage_line(account: &Account, row: CallRow) -> UsageLine {
    let answered = row
        .outcome
        .filter(|outcome| outcome.state != CallState::Open);
    UsageLine {
        timestamp: row.call.admitted_at,
        endpoint: row.call.endpoint,
        status_code: answered.as_ref().and_then(|outcome| outcome.status),
        credits_consumed: answered
            .as_ref()
            .map_or_else(Default::default, |outcome| outcome.charged),
        response_time_ms: answered
            .as_ref()
            .and_then(|outcome| outcome.status.map(|_| outcome.response_time_ms)),
        request_id: account.call_id(row.call.number),
        method: row.call.method,
        key: account.key_id(row.call.key),
    }
}

fn len(rows: &[CallRow]) -> u64 {
    u64::try_from(rows.len()).unwrap_or(u64::MAX)
}
