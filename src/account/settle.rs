//! A call ends: charged, released, undone; or its provisional end is corrected.

use minicbor::{Decode, Encode};

use super::{Account, CallEnd, Changes};
use crate::{
    call::{Call, CallRow, CallState, Hold, Outcome, Settle},
    credits::Credits,
    id::CallNumber,
    ledger::{Part, split, sum_of},
    policy::Mode,
    price::{Mark, Reported, Terms},
    time::{Span, Timestamp},
};

/// How long after it was made a provisional end can be replaced by the real one.
const CORRECTED_WITHIN: Span = Span::from_days(30);

/// Undoes an admission whose answer never reached the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Cancel {
    /// The operation id of the admission.
    #[n(0)]
    pub operation: u64,
}

/// How a call stands after a settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Settled {
    /// How far it has come.
    #[n(0)]
    pub state: CallState,
    /// What it was charged.
    #[n(1)]
    pub charged: Credits,
}

/// What a settle makes of a call.
struct Verdict {
    state: CallState,
    charged: Credits,
    mark: Option<Mark>,
}

impl Account {
    /// Ends an open call as the gateway saw it end. `None` if the call is not open: its row
    /// tells ([`Account::settle_ended`]).
    pub fn settle(&mut self, settle: Settle, clock: Timestamp) -> (Option<Settled>, Changes) {
        let mut changes = Changes::default();
        self.book_due(clock, &mut changes);
        let Some(call) = self
            .open
            .get(&settle.call)
            .filter(|call| call.hold.operation == settle.operation)
        else {
            return (None, changes);
        };
        if call.is_job {
            // A repeat: the answer was told before, and the job goes on.
            return (
                Some(Settled {
                    state: CallState::Job,
                    charged: Credits::ZERO,
                }),
                changes,
            );
        }
        let verdict = self.judge(&call.hold.terms, call.held(), call.hold.observed, &settle);
        let Some(call) = self.take_open(settle.call) else {
            return (None, changes);
        };
        let outcome = Outcome {
            state: verdict.state,
            status: Some(settle.status),
            charged: verdict.charged,
            response_time_ms: settle.response_time_ms,
            at: clock,
            mark: verdict.mark,
        };
        let settled = Settled {
            state: outcome.state,
            charged: outcome.charged,
        };
        if let Some(month) = self.month_of(settle.call) {
            changes.ended.push(CallEnd {
                call: settle.call,
                month,
                outcome: outcome.clone(),
                hold: None,
            });
        }
        self.count_ended(call, &outcome, clock, &mut changes);
        (Some(settled), changes)
    }

    /// Books a call's answer or end: the same when it comes and when the call's row is replayed.
    pub(super) fn count_ended(
        &mut self,
        mut call: Call,
        outcome: &Outcome,
        clock: Timestamp,
        changes: &mut Changes,
    ) {
        self.state.latest = self.state.latest.max(outcome.at);
        if outcome.state == CallState::Job {
            if let Some(job) = call.hold.terms.job {
                call.hold.deadline = outcome.at.plus(job.settle_within);
            }
            call.is_job = true;
            self.add_open(call);
            return;
        }
        self.state.brought_forward.remove(&call.number);
        let now = self.state.latest;
        let pool = call.hold.terms.pool;
        let came_back_late = self
            .state
            .ledger
            .book_mut(&pool)
            .is_some_and(|book| book.end(&call.hold.parts, outcome.charged, outcome.at, now));
        if came_back_late {
            self.restore(&pool, &call.hold.parts, now, changes);
            self.book_due(clock, changes);
        }
    }

    fn judge(&self, terms: &Terms, held: Credits, observed: bool, settle: &Settle) -> Verdict {
        let released = Verdict {
            state: CallState::Released,
            charged: Credits::ZERO,
            mark: None,
        };
        if !settle.answered || !terms.charge_on.holds(settle.status) {
            return released;
        }
        if observed || self.policy.gateway.mode == Mode::Observe {
            return released;
        }
        if terms.job.is_some() {
            return Verdict {
                state: CallState::Job,
                ..released
            };
        }
        let charge = terms.charge(held, settle.reported.unwrap_or(Reported::Unreadable));
        Verdict {
            state: CallState::Settled,
            charged: charge.credits,
            mark: charge.mark,
        }
    }

    /// Settles a call that is no longer open, from its row: a repeat gets the same answer, and a
    /// provisional end is replaced by the real one, as far as credits are there.
    pub fn settle_ended(
        &mut self,
        settle: Settle,
        row: &CallRow,
        clock: Timestamp,
    ) -> (Settled, Changes) {
        let mut changes = Changes::default();
        self.book_due(clock, &mut changes);
        let Some(outcome) = &row.outcome else {
            return (
                Settled {
                    state: CallState::Open,
                    charged: Credits::ZERO,
                },
                changes,
            );
        };
        let as_it_stands = Settled {
            state: outcome.state,
            charged: outcome.charged,
        };
        let is_provisional = matches!(
            outcome.state,
            CallState::UnknownReleased | CallState::UnknownCharged
        ) && row.call.hold.operation == settle.operation
            && self.state.latest <= outcome.at.plus(CORRECTED_WITHIN);
        if !is_provisional {
            return (as_it_stands, changes);
        }
        let terms = &row.call.hold.terms;
        let verdict = self.judge(terms, row.call.held(), row.call.hold.observed, &settle);
        if verdict.state == CallState::Job {
            // The hold is gone, and this tells no end: the origin's word on the job will.
            return (as_it_stands, changes);
        }
        let charged_before = split(&row.call.hold.parts, outcome.charged).0;
        let (charged, parts) = self.correct_charge(
            row.call.number,
            &terms.pool,
            &charged_before,
            verdict.charged,
            &mut changes,
        );
        if let Some(month) = self.month_of(row.call.number) {
            changes.ended.push(CallEnd {
                call: row.call.number,
                month,
                outcome: Outcome {
                    state: verdict.state,
                    status: Some(settle.status),
                    charged,
                    response_time_ms: settle.response_time_ms,
                    at: clock,
                    mark: verdict.mark,
                },
                hold: parts.map(|parts| Hold {
                    parts,
                    ..row.call.hold.clone()
                }),
            });
            changes.snapshot = true;
        }
        self.book_due(clock, &mut changes);
        let settled = Settled {
            state: verdict.state,
            charged,
        };
        (settled, changes)
    }

    /// Brings what an ended call was charged to `charge`. Says what it is charged now, and from
    /// which lots if they are others than before.
    fn correct_charge(
        &mut self,
        call: CallNumber,
        pool: &str,
        charged_before: &[Part],
        charge: Credits,
        changes: &mut Changes,
    ) -> (Credits, Option<Vec<Part>>) {
        let before = sum_of(charged_before);
        let now = self.state.latest;
        if charge > before {
            let missing = charge.saturating_sub(before);
            let spending = self.spending(pool, now);
            let taken = self
                .state
                .ledger
                .book(pool)
                .and_then(|book| book.choose(Credits::ZERO, missing, spending).ok())
                .unwrap_or_default();
            for part in &taken {
                if let Some(book) = self.state.ledger.book_mut(pool) {
                    book.take(*part, now);
                }
                self.enter_correction(call, pool, *part, -1, changes);
            }
            let mut parts = charged_before.to_vec();
            parts.extend_from_slice(&taken);
            return (sum_of(&parts), Some(parts));
        }
        if charge == before {
            return (before, None);
        }
        let (_, returned) = split(charged_before, charge);
        let mut came_back_late = false;
        for part in &returned {
            if let Some(book) = self.state.ledger.book_mut(pool) {
                came_back_late |= book.give_back(*part, now);
            }
            self.enter_correction(call, pool, *part, 1, changes);
        }
        if came_back_late {
            self.restore(pool, &returned, now, changes);
        }
        (charge, None)
    }

    fn enter_correction(
        &mut self,
        call: CallNumber,
        pool: &str,
        part: Part,
        sign: i64,
        changes: &mut Changes,
    ) {
        let moment = self.moment(self.state.latest);
        let credits = i64::try_from(part.credits.get())
            .unwrap_or(i64::MAX)
            .saturating_mul(sign);
        let entry = self
            .state
            .ledger
            .correct(pool, part.lot, call, credits, moment);
        changes.enter(entry);
    }

    /// Undoes an admission, and has it refused for `hold_seconds` if it comes only now or once
    /// more. The call's number is never used again.
    pub fn cancel(&mut self, cancel: Cancel, clock: Timestamp) -> Changes {
        let mut changes = Changes::default();
        self.book_due(clock, &mut changes);
        let open = self
            .open_by(cancel.operation)
            .filter(|call| !call.is_job)
            .map(|call| call.number);
        let until = clock.plus(self.policy.gateway.hold);
        let cancelled = &mut self.state.cancelled;
        if cancelled
            .iter()
            .all(|(operation, _)| *operation != cancel.operation)
        {
            cancelled.push((cancel.operation, until));
        }
        changes.snapshot = true;
        let Some(call) = open.and_then(|number| self.take_open(number)) else {
            return changes;
        };
        self.uncount(&call, &mut changes);
        if let Some(month) = self.month_of(call.number) {
            changes.ended.push(CallEnd {
                call: call.number,
                month,
                outcome: Outcome {
                    state: CallState::Cancelled,
                    status: None,
                    charged: Credits::ZERO,
                    response_time_ms: 0,
                    at: clock,
                    mark: None,
                },
                hold: None,
            });
            if let Some(log) = self.state.log.iter_mut().find(|log| log.month == month) {
                log.cancelled = log.cancelled.saturating_add(1);
            }
        }
        self.book_due(clock, &mut changes);
        changes
    }

    /// A refused request consumes nothing: the limits get back what the undone call took.
    fn uncount(&mut self, call: &Call, changes: &mut Changes) {
        let day = self.policy.gateway.calendar.day_of(call.admitted_at);
        if let Some(usage) = self.state.usage.get_mut(&call.key) {
            usage.minute.uncount(call.number);
            usage.days.uncount(day);
        }
        self.state.account_minute.uncount(call.number);
        let now = self.state.latest;
        let pool = &call.hold.terms.pool;
        let came_back_late = self
            .state
            .ledger
            .book_mut(pool)
            .is_some_and(|book| book.end(&call.hold.parts, Credits::ZERO, now, now));
        if came_back_late {
            self.restore(pool, &call.hold.parts, now, changes);
        }
    }
}
