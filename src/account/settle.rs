//! A call ends: charged, released, undone; or its provisional end is corrected.

use super::{Account, CallEnd, Changes, conclude::OPEN_TO_CHANGE};
use crate::{
    call::{BodyEnd, Call, CallRow, CallState, Hold, Outcome, Settle},
    credits::Credits,
    ledger::{Correction, EntryKind, Part, split, sum_of},
    policy::Mode,
    price::{Mark, Reported},
    time::Timestamp,
    totals::Tally,
    wire::{Decode, Encode},
};

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

/// The end that an ended call gets instead of the one it has.
pub(super) struct ReplacedEnd {
    pub state: CallState,
    pub status: Option<u16>,
    pub charge: Credits,
    pub response_time_ms: u32,
    pub mark: Option<Mark>,
    /// What the ledger calls it.
    pub kind: EntryKind,
    pub reference: Option<String>,
}

/// What a settle makes of a call.
struct Verdict {
    state: CallState,
    charged: Credits,
    mark: Option<Mark>,
    /// It uses up one of the key's forgiven outcomes of the day.
    takes_forgiveness: bool,
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
        let verdict = self.judge(call, &settle, CallState::Open, clock);
        let Some(call) = self.take_open(settle.call) else {
            return (None, changes);
        };
        if verdict.takes_forgiveness {
            self.count_forgiven(call.key, clock);
            changes.snapshot = true;
        }
        let outcome = Outcome {
            state: verdict.state,
            status: Some(settle.status),
            charged: verdict.charged,
            response_time_ms: settle.response_time_ms,
            at: clock,
            mark: verdict.mark,
            nth_end: if verdict.state.is_open() {
                0
            } else {
                self.next_end()
            },
            first_charged: None,
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
        self.book_end(call, &outcome, clock, &mut changes);
        (Some(settled), changes)
    }

    /// Books a call's answer or end when it comes, and what follows from its charge.
    pub(super) fn book_end(
        &mut self,
        call: Call,
        outcome: &Outcome,
        clock: Timestamp,
        changes: &mut Changes,
    ) {
        let pool = call.hold.terms.pool.clone();
        self.count_ended(call, outcome, clock, changes);
        if !outcome.charged.is_zero() {
            self.charged(&pool, changes);
        }
        self.watch_spending(clock, changes);
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
        self.add_total(&call, Tally::of(Some(outcome)));
        self.recount_cost(&call, call.held(), outcome.charged);
        self.state.ends = self.state.ends.max(outcome.nth_end);
        let now = self.state.latest;
        let pool = call.hold.terms.pool;
        self.count_spent(&pool, outcome.charged, outcome.at);
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

    /// What `settle` makes of a call that stands as `state`: open, or provisionally ended.
    fn judge(&self, call: &Call, settle: &Settle, state: CallState, clock: Timestamp) -> Verdict {
        let terms = &call.hold.terms;
        let released = Verdict {
            state: CallState::Released,
            charged: Credits::ZERO,
            mark: None,
            takes_forgiveness: false,
        };
        if !settle.answered || !terms.charge_on.holds(settle.status) {
            return released;
        }
        if terms.job.is_some() {
            return Verdict {
                state: CallState::Job,
                ..released
            };
        }
        if call.hold.observed || self.policy.gateway.mode == Mode::Observe {
            return released;
        }
        let reported = settle.reported.unwrap_or(Reported::Unreadable);
        let charge = terms.charge(call.held(), reported);
        let charged = Verdict {
            state: CallState::Settled,
            charged: charge.credits,
            mark: charge.mark,
            takes_forgiveness: false,
        };
        match settle.body {
            None | Some(BodyEnd::Whole | BodyEnd::Left) => charged,
            Some(BodyEnd::BrokenOff { begun }) => {
                // A call that was given back as unknown has been forgiven already.
                let was_forgiven = state == CallState::UnknownReleased;
                if !begun || charge.credits.is_zero() || was_forgiven {
                    released
                } else if self.can_forgive(call.key, clock) {
                    Verdict {
                        takes_forgiveness: true,
                        ..released
                    }
                } else {
                    Verdict {
                        mark: Some(Mark::Unforgiven),
                        ..charged
                    }
                }
            }
        }
    }

    /// Settles a call that is no longer open, from its row (which names the same operation): a
    /// repeat gets the same answer, and a
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
        ) && self.state.latest <= outcome.at.plus(OPEN_TO_CHANGE);
        if !is_provisional {
            return (as_it_stands, changes);
        }
        let verdict = self.judge(&row.call, &settle, outcome.state, clock);
        if verdict.state == CallState::Job {
            // The hold is gone, and this tells no end: the origin's word on the job will.
            return (as_it_stands, changes);
        }
        if verdict.takes_forgiveness {
            self.count_forgiven(row.call.key, clock);
        }
        let settled = self.replace_end(
            row,
            ReplacedEnd {
                state: verdict.state,
                status: Some(settle.status),
                charge: verdict.charged,
                response_time_ms: settle.response_time_ms,
                mark: verdict.mark,
                kind: EntryKind::Corrected,
                reference: None,
            },
            clock,
            &mut changes,
        );
        (settled, changes)
    }

    /// Replaces the end of an ended call, with an entry, as far as credits are there.
    pub(super) fn replace_end(
        &mut self,
        row: &CallRow,
        end: ReplacedEnd,
        clock: Timestamp,
        changes: &mut Changes,
    ) -> Settled {
        let charged = row
            .outcome
            .as_ref()
            .map_or(Credits::ZERO, |outcome| outcome.charged);
        let charged_before = split(&row.call.hold.parts, charged).0;
        let (charged, parts) = self.correct_charge(row, &charged_before, &end, changes);
        self.recount_cost(&row.call, sum_of(&charged_before), charged);
        let more = charged.saturating_sub(sum_of(&charged_before));
        self.count_spent(&row.call.hold.terms.pool, more, clock);
        if let Some(month) = self.month_of(row.call.number) {
            let outcome = Outcome {
                state: end.state,
                status: end.status,
                charged,
                response_time_ms: end.response_time_ms,
                at: clock,
                mark: end.mark,
                nth_end: row.outcome.as_ref().map_or(0, |ended| ended.nth_end),
                first_charged: row.outcome.as_ref().map(Outcome::first_charged),
            };
            let changed = Tally::of(Some(&outcome)).less(Tally::of(row.outcome.as_ref()));
            self.add_total(&row.call, changed);
            changes.ended.push(CallEnd {
                call: row.call.number,
                month,
                outcome,
                hold: parts.map(|parts| Hold {
                    parts,
                    ..row.call.hold.clone()
                }),
            });
            changes.snapshot = true;
        }
        self.book_due(clock, changes);
        if charged > sum_of(&charged_before) {
            self.charged(&row.call.hold.terms.pool, changes);
        }
        self.watch_spending(clock, changes);
        Settled {
            state: end.state,
            charged,
        }
    }

    /// Brings what an ended call was charged to `charge`. Says what it is charged now, and from
    /// which lots if they are others than before.
    fn correct_charge(
        &mut self,
        row: &CallRow,
        charged_before: &[Part],
        end: &ReplacedEnd,
        changes: &mut Changes,
    ) -> (Credits, Option<Vec<Part>>) {
        let pool = row.call.hold.terms.pool.as_str();
        let charge = end.charge;
        let before = sum_of(charged_before);
        let now = self.state.latest;
        if let Some(book) = self.state.ledger.book_mut(pool) {
            book.touch(charged_before, now);
        }
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
                self.enter_correction(row, end, *part, -1, changes);
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
            self.enter_correction(row, end, *part, 1, changes);
        }
        if came_back_late {
            self.restore(pool, &returned, now, changes);
        }
        (charge, None)
    }

    fn enter_correction(
        &mut self,
        row: &CallRow,
        end: &ReplacedEnd,
        part: Part,
        sign: i64,
        changes: &mut Changes,
    ) {
        let moment = self.moment(self.state.latest);
        let credits = i64::try_from(part.credits.get())
            .unwrap_or(i64::MAX)
            .saturating_mul(sign);
        let correction = Correction {
            kind: end.kind,
            pool: &row.call.hold.terms.pool,
            lot: part.lot,
            call: row.call.number,
            credits,
            reference: end.reference.clone(),
        };
        changes.enter(self.state.ledger.correct(correction, moment));
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
                    nth_end: 0,
                    first_charged: None,
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
        self.recount_cost(call, call.held(), Credits::ZERO);
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
