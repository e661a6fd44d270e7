//! A call ends: charged, released, undone; or its provisional end is corrected.

use super::{Account, Broken, CallEnd, Changes, conclude::OPEN_TO_CHANGE};
use crate::{
    call::{Answer, BodyEnd, Call, CallRow, CallState, Hold, Outcome, Settle},
    credits::Credits,
    id::CallNumber,
    ledger::{Correction, EntryKind, Part, Returned, split, sum_of},
    policy::Mode,
    price::{Mark, Reported},
    status::Counts,
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
    /// Something for the operator to look at.
    #[n(2)]
    pub mark: Option<Mark>,
}

impl Settled {
    const fn of(outcome: &Outcome) -> Self {
        Self {
            state: outcome.state,
            charged: outcome.charged,
            mark: outcome.mark,
        }
    }

    /// A call whose hold stands.
    const fn open(state: CallState) -> Self {
        Self {
            state,
            charged: Credits::ZERO,
            mark: None,
        }
    }
}

/// How a call ends, or is answered and goes on as a job.
pub(super) struct Ending {
    /// How far it comes by that.
    pub state: CallState,
    /// What it costs.
    pub charge: Credits,
    /// What it was answered, if this tells; else what is known of that stays.
    pub answer: Option<Answer>,
    pub mark: Option<Mark>,
    pub at: Timestamp,
}

impl Ending {
    pub(super) const fn new(state: CallState, charge: Credits, at: Timestamp) -> Self {
        Self {
            state,
            charge,
            answer: None,
            mark: None,
            at,
        }
    }

    /// What the row of a call says by this, where `known` is what it was answered.
    fn outcome(self, known: Option<Answer>, nth_end: u64) -> Outcome {
        let outcome = Outcome {
            state: self.state,
            status: None,
            charged: self.charge,
            response_time_ms: 0,
            at: self.at,
            mark: self.mark,
            nth_end,
            first_charged: None,
        };
        match self.answer.or(known) {
            Some(answer) => outcome.answered(answer),
            None => outcome,
        }
    }
}

/// Why an end is replaced, for the ledger.
pub(super) struct Reason {
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
        let of_operation = |call: &&Call| call.hold.operation == settle.operation;
        match self.open.get(&settle.call).filter(of_operation) {
            None => return (None, changes),
            Some(call) if call.is_job() => {
                // A repeat: the answer was told before, and the job goes on.
                return (Some(Settled::open(CallState::Job)), changes);
            }
            Some(_) => {}
        }
        let Some(call) = self.take_open(settle.call) else {
            return (None, changes);
        };
        let verdict = self.judge(&call, &settle, CallState::Open, clock);
        if verdict.takes_forgiveness {
            self.count_forgiven(call.key, clock);
            changes.snapshot = true;
        }
        let ending = verdict.ending(&settle, clock);
        let settled = self.end_now(call, ending, clock, &mut changes);
        (Some(settled), changes)
    }

    /// Ends an open call by a word that has just come.
    pub(super) fn end_now(
        &mut self,
        call: Call,
        ending: Ending,
        clock: Timestamp,
        changes: &mut Changes,
    ) -> Settled {
        let settled = self.end(call, ending, self.state.latest, changes);
        if changes.snapshot {
            // What came back late may expire at once.
            self.book_due(clock, changes);
        }
        self.watch_spending(clock, changes);
        settled
    }

    /// The one way for an open call to end, whoever says so: on its row, and in all that
    /// [`Account::count_ended`] books. Everything due by `booked` is booked.
    pub(super) fn end(
        &mut self,
        call: Call,
        ending: Ending,
        booked: Timestamp,
        changes: &mut Changes,
    ) -> Settled {
        let has_place = !ending.state.is_open() && ending.state != CallState::Cancelled;
        let nth_end = if has_place { self.next_end() } else { 0 };
        let outcome = ending.outcome(call.answer, nth_end);
        let settled = Settled::of(&outcome);
        let is_watched = !outcome.charged.is_zero() && self.is_topped_up(&call.hold.terms.pool);
        self.write_end(call.number, outcome.clone(), None, changes);
        self.count_ended(call, &outcome, booked, changes);
        if is_watched {
            self.charged(changes);
        }
        settled
    }

    /// Books a call's answer or end: the same when it comes and when the call's row is replayed.
    /// A lot that expires after `booked` takes back what it gave.
    pub(super) fn count_ended(
        &mut self,
        mut call: Call,
        outcome: &Outcome,
        booked: Timestamp,
        changes: &mut Changes,
    ) {
        self.state.latest = self.state.latest.max(outcome.at);
        if outcome.state == CallState::Job {
            if let Some(job) = call.hold.terms.job {
                call.hold.deadline = outcome.at.plus(job.settle_within);
            }
            call.answer = outcome.answer();
            self.add_open(call);
            return;
        }
        self.state.brought_forward.remove(&call.number);
        self.add_total(&call, Tally::of(Some(outcome)));
        self.recount_cost(&call, call.held(), outcome.charged);
        self.state.ends = self.state.ends.max(outcome.nth_end);
        let (pool, parts) = (&call.hold.terms.pool, &call.hold.parts);
        self.count_spent(pool, outcome.charged, outcome.at);
        let moments = (outcome.at, booked);
        let ended = self.state.ledger.end(pool, parts, outcome.charged, moments);
        if changes.unless_broken(ended) == Some(Returned::Late) {
            self.restore(pool, parts, booked, changes);
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
    /// repeat gets the same answer, and a provisional end is replaced by the real one, as far as
    /// credits are there. Where a call had ended before its answer was told of, the row gets that.
    pub fn settle_ended(
        &mut self,
        settle: Settle,
        row: &CallRow,
        clock: Timestamp,
    ) -> (Settled, Changes) {
        let mut changes = Changes::default();
        self.book_due(clock, &mut changes);
        let Some(outcome) = row.outcome.as_ref().filter(|end| !end.state.is_open()) else {
            changes.broken = Some(Broken::open_call(row.call.number));
            return (Settled::open(row.state()), changes);
        };
        if outcome.status.is_some() || outcome.state == CallState::Cancelled {
            // A repeat, or what no client has seen.
            return (Settled::of(outcome), changes);
        }
        let is_provisional =
            outcome.state.is_unknown() && self.state.latest <= outcome.at.plus(OPEN_TO_CHANGE);
        let verdict = is_provisional
            .then(|| self.judge(&row.call, &settle, outcome.state, clock))
            // The hold of a job is gone, and this tells no end: the origin's word will.
            .filter(|verdict| verdict.state != CallState::Job);
        let Some(verdict) = verdict else {
            let answered = outcome.clone().answered(settle.answer());
            self.rewrite(row, answered, None, &mut changes);
            return (Settled::of(outcome), changes);
        };
        if verdict.takes_forgiveness {
            self.count_forgiven(row.call.key, clock);
        }
        let ending = verdict.ending(&settle, clock);
        let reason = Reason {
            kind: EntryKind::Corrected,
            reference: None,
        };
        let settled = self.replace_end(row, ending, reason, clock, &mut changes);
        (settled, changes)
    }

    /// Replaces the end of an ended call, with an entry, as far as credits are there.
    pub(super) fn replace_end(
        &mut self,
        row: &CallRow,
        ending: Ending,
        reason: Reason,
        clock: Timestamp,
        changes: &mut Changes,
    ) -> Settled {
        let Some(ended) = &row.outcome else {
            changes.broken = Some(Broken::open_call(row.call.number));
            return Settled::open(row.state());
        };
        let before = split(&row.call.hold.parts, ended.charged).0;
        let parts = self.correct_charge(row, &before, ending.charge, &reason, changes);
        let charged = sum_of(parts.as_ref().unwrap_or(&before)).min(ending.charge);
        self.recount_cost(&row.call, ended.charged, charged);
        let more = charged.saturating_sub(ended.charged);
        self.count_spent(&row.call.hold.terms.pool, more, clock);
        if ended.state.is_unknown() {
            self.count_figures(&Counts {
                late_settles: 1,
                ..Counts::at(clock)
            });
        }
        let mark = (charged < ending.charge).then_some(Mark::Uncovered);
        let outcome = Outcome {
            charged,
            mark: mark.or(ending.mark),
            first_charged: Some(ended.first_charged()),
            ..ending.outcome(ended.answer(), ended.nth_end)
        };
        let settled = Settled::of(&outcome);
        if outcome.state == CallState::Settled {
            self.keep_refundable(row.call.number, outcome.at);
        }
        let hold = parts.map(|parts| Hold {
            parts,
            ..row.call.hold.clone()
        });
        self.rewrite(row, outcome, hold, changes);
        changes.snapshot = true;
        self.book_due(clock, changes);
        if !more.is_zero() && self.is_topped_up(&row.call.hold.terms.pool) {
            self.charged(changes);
        }
        self.watch_spending(clock, changes);
        settled
    }

    /// A call that was settled late can be refunded as long as any other.
    fn keep_refundable(&mut self, call: CallNumber, settled_at: Timestamp) {
        let until = settled_at.plus(OPEN_TO_CHANGE);
        if let Some(log) = self.log_month_of(call) {
            log.refundable_until = log.refundable_until.max(Some(until));
        }
    }

    /// Has the row of an ended call say this, and totals with it.
    pub(super) fn rewrite(
        &mut self,
        row: &CallRow,
        outcome: Outcome,
        hold: Option<Hold>,
        changes: &mut Changes,
    ) {
        let changed = Tally::of(Some(&outcome)).less(Tally::of(row.outcome.as_ref()));
        if changed != Tally::default() {
            self.add_total(&row.call, changed);
            changes.snapshot = true;
        }
        self.write_end(row.call.number, outcome, hold, changes);
    }

    fn write_end(
        &self,
        call: CallNumber,
        outcome: Outcome,
        hold: Option<Hold>,
        changes: &mut Changes,
    ) {
        match self.month_of(call) {
            Some(month) => changes.ended.push(CallEnd {
                call,
                month,
                outcome,
                hold,
            }),
            None => changes.broken = Some(Broken::no_row(call)),
        }
    }

    /// Brings what an ended call was charged to `charge`, as far as credits are there. Says from
    /// which lots it is charged now, if they are others than before.
    fn correct_charge(
        &mut self,
        row: &CallRow,
        charged_before: &[Part],
        charge: Credits,
        reason: &Reason,
        changes: &mut Changes,
    ) -> Option<Vec<Part>> {
        let pool = row.call.hold.terms.pool.as_str();
        let before = sum_of(charged_before);
        let now = self.state.latest;
        self.state.ledger.touch(pool, charged_before, now);
        if charge > before {
            let missing = charge.saturating_sub(before);
            let spending = self.spending(pool, now);
            let book = self.state.ledger.book(pool);
            let taken = book
                .and_then(|book| book.choose(Credits::ZERO, missing, spending).ok())
                .unwrap_or_default();
            for part in &taken {
                changes.unless_broken(self.state.ledger.take(pool, *part, now));
                self.enter_correction(row, reason, *part, -1, changes);
            }
            return Some([charged_before, &taken].concat());
        }
        let (_, returned) = split(charged_before, charge);
        let mut came_back_late = false;
        for part in &returned {
            let given_back = self.state.ledger.give_back(pool, *part, now);
            came_back_late |= changes.unless_broken(given_back) == Some(Returned::Late);
            self.enter_correction(row, reason, *part, 1, changes);
        }
        if came_back_late {
            self.restore(pool, &returned, now, changes);
        }
        None
    }

    fn enter_correction(
        &mut self,
        row: &CallRow,
        reason: &Reason,
        part: Part,
        sign: i64,
        changes: &mut Changes,
    ) {
        let moment = self.moment(self.state.latest);
        let credits = i64::try_from(part.credits.get())
            .unwrap_or(i64::MAX)
            .saturating_mul(sign);
        let correction = Correction {
            kind: reason.kind,
            pool: &row.call.hold.terms.pool,
            lot: part.lot,
            call: row.call.number,
            credits,
            reference: reason.reference.clone(),
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
            .filter(|call| !call.is_job())
            .map(|call| call.number);
        let until = clock.plus(self.policy.gateway.hold);
        let cancelled = &mut self.state.cancelled;
        if cancelled
            .iter()
            .all(|(operation, _)| *operation != cancel.operation)
        {
            cancelled.push((cancel.operation, until));
            self.count_figures(&Counts {
                unavailable: 1,
                ..Counts::at(clock)
            });
        }
        changes.snapshot = true;
        let Some(call) = open.and_then(|number| self.take_open(number)) else {
            return changes;
        };
        self.uncount(&call);
        if let Some(log) = self.log_month_of(call.number) {
            log.cancelled = log.cancelled.saturating_add(1);
        }
        let undone = Ending::new(CallState::Cancelled, Credits::ZERO, clock);
        self.end_now(call, undone, clock, &mut changes);
        changes
    }

    /// A refused request consumes nothing: the limits get back what the undone call took.
    fn uncount(&mut self, call: &Call) {
        let day = self.policy.gateway.calendar.day_of(call.admitted_at);
        if let Some(usage) = self.state.usage.get_mut(&call.key) {
            usage.minute.uncount(call.number);
            usage.days.uncount(day);
        }
        self.state.account_minute.uncount(call.number);
    }
}

impl Verdict {
    const fn ending(&self, settle: &Settle, at: Timestamp) -> Ending {
        Ending {
            state: self.state,
            charge: self.charged,
            answer: Some(settle.answer()),
            mark: self.mark,
            at,
        }
    }
}
