//! `/audit`: all of history booked anew, in slices between which calls are admitted.

use super::{Failure, Object, ROWS_MAX, Store, storage, to_json};
use crate::{
    account::{Account, Changes},
    audit::{Audit, Books},
    call::CallRow,
    protocol::AuditStep,
    time::{Span, Timestamp},
};

/// How long an audit waits for its next slice before it is given up.
const PATIENCE: Span = Span::from_seconds(60);

/// An audit under way. It is in memory alone: an object that is thrown out begins anew.
#[derive(Debug)]
pub(super) struct RunningAudit {
    audit: Audit,
    /// The row of the months that were rolled up that comes next.
    rolled_from: u64,
    /// The last entry that is booked.
    entries_read: u64,
    /// The last call that is booked, or passed over as no longer kept.
    calls_read: u64,
    last_asked_for: Timestamp,
}

impl<S: Store> Object<S> {
    /// The next slice of the audit that is under way, whoever began it, or the first of one.
    pub(super) fn audit(&mut self, clock: Timestamp) -> Result<AuditStep, Failure> {
        let account = self.account.as_ref().ok_or(Failure::NoAccount)?;
        let mut running = self.audit.take().unwrap_or_else(|| RunningAudit {
            audit: Audit::default(),
            rolled_from: 0,
            entries_read: 0,
            calls_read: 0,
            last_asked_for: clock,
        });
        running.last_asked_for = clock;
        if !running.read_slice(&self.store, account)? {
            self.audit = Some(running);
            return Ok(AuditStep::Unfinished);
        }
        let findings = running.audit.conclude(Books {
            ledger: account.ledger(),
            calls: account.calls_admitted(),
            open_calls: u64::try_from(account.open_calls()).unwrap_or(u64::MAX),
        });
        if !findings.ok {
            let changes = self.awake()?.count_failed_audit(clock);
            self.commit(changes, None)?;
        }
        Ok(AuditStep::Finished {
            ok: findings.ok,
            json: to_json(&findings),
        })
    }

    /// Gives up an audit that nobody has asked about for a while: calls pay for it as they end.
    pub(super) fn forget_idle_audit(&mut self, clock: Timestamp) {
        let is_idle = |running: &RunningAudit| clock.since(running.last_asked_for) > PATIENCE;
        if self.audit.as_ref().is_some_and(is_idle) {
            self.audit = None;
        }
    }

    /// Hands over the calls among `changes` that are booked, as they stand, to be booked out before
    /// they change, and in again after it.
    pub(super) fn rebook(
        &mut self,
        changes: &Changes,
        book: impl Fn(&mut Audit, &CallRow),
    ) -> Result<(), Failure> {
        let Some(running) = &mut self.audit else {
            return Ok(());
        };
        for end in &changes.ended {
            if end.call.get() <= running.calls_read
                && let Some(row) = self.store.call(end.month, end.call).map_err(storage)?
            {
                book(&mut running.audit, &row);
            }
        }
        Ok(())
    }
}

impl RunningAudit {
    /// Books as much of history as one slice may read; whether that was all.
    fn read_slice<S: Store>(&mut self, store: &S, account: &Account) -> Result<bool, Failure> {
        let mut rows_left = ROWS_MAX;
        while let Some(part) = store.rolled(self.rolled_from, 1).map_err(storage)?.first()
            && account.is_rolled_up(part.month)
        {
            if rows_left == 0 {
                return Ok(false);
            }
            self.rolled_from = part.row().saturating_add(1);
            rows_left = rows_left.saturating_sub(1);
            self.audit.book_rolled(part);
        }
        while self.entries_read < account.ledger().entries_written() {
            if rows_left == 0 {
                return Ok(false);
            }
            let entries = store
                .entries_after(self.entries_read, rows_left)
                .map_err(storage)?;
            let Some(last) = entries.last() else {
                // The ledger ends too soon: the comparison tells.
                break;
            };
            self.entries_read = last.number;
            rows_left = rows_left.saturating_sub(len(entries.len()));
            for entry in &entries {
                self.audit.book_entry(entry);
            }
        }
        let months = account.log();
        let ends = months
            .iter()
            .skip(1)
            .map(|month| month.first.get().saturating_sub(1))
            .chain([account.calls_admitted()]);
        for (month, end) in months.iter().zip(ends) {
            self.calls_read = self.calls_read.max(month.first.get().saturating_sub(1));
            while self.calls_read < end {
                if rows_left == 0 {
                    return Ok(false);
                }
                let rows = store
                    .calls_after(month.month, self.calls_read, rows_left)
                    .map_err(storage)?;
                let Some(last) = rows.last() else {
                    self.calls_read = end;
                    break;
                };
                self.calls_read = last.call.number.get();
                rows_left = rows_left.saturating_sub(len(rows.len()));
                for row in &rows {
                    self.audit.book_call(row);
                }
            }
        }
        Ok(true)
    }
}

fn len(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}
