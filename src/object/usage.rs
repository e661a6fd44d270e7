//! `/usage`: a page of the call log, read within a bound however long the log is.

use super::{Failure, Object, ROWS_MAX, Store, storage};
use crate::{
    account::{Account, LogMonth, UsageLine, UsageView},
    call::{CallRow, CallState},
    id::CallNumber,
    protocol::{UsageFilter, UsageQuery},
};

impl<S: Store> Object<S> {
    pub(super) fn usage(&self, query: &UsageQuery) -> Result<UsageView, Failure> {
        if query.filter == UsageFilter::default() {
            self.unfiltered(query)
        } else {
            self.filtered(query)
        }
    }

    /// The counts of the months tell where the page starts and how many calls there are.
    fn unfiltered(&self, query: &UsageQuery) -> Result<UsageView, Failure> {
        let account = self.account.as_ref().ok_or(Failure::NoAccount)?;
        let months = months_with_counts(account);
        let total_count = months
            .iter()
            .fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
        let before = below(query, account);
        // One more tells whether there is a page after this one.
        let wanted = u64::from(query.limit).saturating_add(1);
        let mut to_skip = u64::from(query.offset);
        let mut rows = Vec::new();
        for (month, count) in months.into_iter().rev() {
            let missing = wanted.saturating_sub(len(&rows));
            if missing == 0 {
                break;
            }
            if month.first.get() >= before {
                continue;
            }
            if to_skip >= count {
                to_skip = to_skip.saturating_sub(count);
                continue;
            }
            let of_month = self
                .store
                .newest_calls(month.month, before, to_skip, missing);
            rows.extend(of_month.map_err(storage)?);
            to_skip = 0;
        }
        let is_more = len(&rows) == wanted;
        if is_more {
            rows.pop();
        }
        let next = rows.last().filter(|_| is_more).map(|row| row.call.number);
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

    /// Finds what the filter lets through, newest first, until the bound; reads whole only what is
    /// listed.
    fn filtered(&self, query: &UsageQuery) -> Result<UsageView, Failure> {
        let account = self.account.as_ref().ok_or(Failure::NoAccount)?;
        let (limit, offset) = (u64::from(query.limit), u64::from(query.offset));
        let mut to_look_at = ROWS_MAX.saturating_sub(limit);
        let mut before = below(query, account);
        let mut matched = 0_u64;
        let mut rows: Vec<CallRow> = Vec::new();
        for month in account.log().iter().rev() {
            let first = month.first.get();
            if first >= before {
                continue;
            }
            let from = first.max(before.saturating_sub(to_look_at));
            let found = self
                .store
                .matching_calls(month.month, &query.filter, from..before)
                .map_err(storage)?;
            to_look_at = to_look_at.saturating_sub(before.saturating_sub(from));
            before = from;
            let to_skip = offset.saturating_sub(matched);
            matched = matched.saturating_add(len(&found));
            let listed: Vec<CallNumber> = found
                .into_iter()
                .skip(usize::try_from(to_skip).unwrap_or(usize::MAX))
                .take(usize::try_from(limit.saturating_sub(len(&rows))).unwrap_or_default())
                .collect();
            if !listed.is_empty() {
                let of_month = self.store.these_calls(month.month, &listed);
                rows.extend(of_month.map_err(storage)?);
            }
            if to_look_at == 0 {
                break;
            }
        }
        let first_kept = account.log().first().map(|month| month.first.get());
        let is_all = first_kept.is_none_or(|first| before <= first);
        let is_more = matched > offset.saturating_add(len(&rows));
        let next = if is_more {
            rows.last().map(|row| row.call.number)
        } else {
            CallNumber::new(before).filter(|_| !is_all)
        };
        Ok(page(
            account,
            query,
            rows,
            Found {
                total_count: matched,
                // What earlier pages listed was not looked at again.
                total_exact: is_all && query.before.is_none(),
                next,
            },
        ))
    }
}

/// The calls below this number are those that a page is about.
fn below(query: &UsageQuery, account: &Account) -> u64 {
    let end = account.calls_admitted().saturating_add(1);
    query.before.map_or(end, |before| before.get().min(end))
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

impl UsageFilter {
    /// Whether a call is among those that are asked for. One that was undone never is.
    ///
    /// A store may say the same in its own words ([`Store::matching_calls`]).
    #[must_use]
    pub fn lets_through(&self, row: &CallRow) -> bool {
        let outcome = row.outcome.as_ref();
        let status = outcome.and_then(|outcome| outcome.status);
        row.state() != CallState::Cancelled
            && self.from.is_none_or(|from| row.call.admitted_at >= from)
            && self.to.is_none_or(|to| row.call.admitted_at < to)
            && self
                .endpoint
                .as_ref()
                .is_none_or(|endpoint| *endpoint == row.call.endpoint)
            && self.status.is_none_or(|asked| status == Some(asked))
    }
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

fn len<T>(rows: &[T]) -> u64 {
    u64::try_from(rows.len()).unwrap_or(u64::MAX)
}
