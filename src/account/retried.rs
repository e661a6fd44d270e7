//! Retried calls: what a request with an `Idempotency-Key` is, beside the first that came with it.
//!
//! A call of such a request is kept as a *first* for 24 hours: a row of its own, in a table for its
//! day, committed with its admission. No memory grows with them: one look finds the first, and its
//! call's row tells how it stands. Old days' tables are dropped, which writes no row.

use super::{Account, Admit, Changes, Fingerprint};
use crate::{
    call::{Call, CallRow, CallState, Outcome},
    id::CallNumber,
    time::{Calendar, Day, Span, Timestamp},
};

/// How long a request is a repeat of an earlier one, from the earlier one's admission.
const REPEATABLE: Span = Span::from_days(1);
/// The tables that are kept: those of today and yesterday reach back 24 hours, and a clock that
/// strays into another day drops neither.
const DAYS_KEPT: usize = 3;

/// The call that repeats of a request are measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    /// The request.
    pub fingerprint: Fingerprint,
    /// Its call.
    pub call: CallNumber,
    /// When that was admitted, by the clock as read.
    pub at: Timestamp,
}

impl First {
    /// The day (in UTC, which no policy changes) whose table it is in.
    #[must_use]
    pub const fn day(&self) -> Day {
        Calendar::new(0, 0, 0).day_of(self.at)
    }

    /// Whether a request at `clock` is no longer a repeat.
    #[must_use]
    pub fn is_over(&self, clock: Timestamp) -> bool {
        self.at.plus(REPEATABLE) <= clock
    }
}

/// A first, and how its call stands.
#[derive(Clone, Debug)]
pub struct Earlier {
    /// The first.
    pub first: First,
    /// Its call's row.
    pub row: CallRow,
}

/// What a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// A call of its own, which pays for itself.
    Own,
    /// A repeat of this call, which has paid for it.
    Repeat(CallNumber),
    /// A repeat of a call that has not been answered.
    TooEarly,
    /// Something else under the same `Idempotency-Key`.
    OtherContent,
}

impl Turn {
    pub(super) fn of(admit: &Admit, earlier: Option<&Earlier>) -> Self {
        let (Some(sent), Some(Earlier { first, row })) = (&admit.retried, earlier) else {
            return Self::Own;
        };
        let state = row.state();
        if state == CallState::Cancelled {
            // As if it had never been: no origin has seen it.
            return Self::Own;
        }
        if first.fingerprint.request != sent.request {
            return Self::OtherContent;
        }
        match state {
            CallState::Open => Self::TooEarly,
            CallState::Job | CallState::Settled | CallState::UnknownCharged => {
                Self::Repeat(first.call)
            }
            CallState::Released
            | CallState::UnknownReleased
            | CallState::Refunded
            | CallState::Cancelled => Self::Own,
        }
    }

    /// The call that has paid.
    pub(super) const fn repeats(self) -> Option<CallNumber> {
        match self {
            Self::Repeat(call) => Some(call),
            Self::Own | Self::TooEarly | Self::OtherContent => None,
        }
    }
}

impl Account {
    /// The days whose tables of firsts are kept.
    #[must_use]
    pub fn first_days(&self) -> &[Day] {
        &self.state.first_days
    }

    /// Has repeats of `call` find it, if it pays for itself. Where it is an observed one that would
    /// have been refused, or a repeat, they find what they found before.
    pub(super) fn keep_first(
        &mut self,
        fingerprint: Fingerprint,
        call: &Call,
        earlier: Option<&Earlier>,
        changes: &mut Changes,
    ) {
        if call.hold.repeats.is_some() || call.hold.would_refuse.is_some() {
            return;
        }
        let first = First {
            fingerprint,
            call: call.number,
            at: call.admitted_at,
        };
        self.open_first_day(first.day(), changes);
        if let Some(earlier) = earlier {
            self.make_final(&earlier.row, changes);
        }
        changes.first = Some(first);
    }

    /// A call that was given back as unknown stays so for good once another has taken its place: a
    /// settle that comes late must not charge for the same work again.
    fn make_final(&mut self, row: &CallRow, changes: &mut Changes) {
        if row.state() != CallState::UnknownReleased || !self.is_open_to_change(row.call.number) {
            return;
        }
        if let Some(outcome) = row.outcome.clone() {
            let state = CallState::Released;
            self.rewrite(row, Outcome { state, ..outcome }, None, changes);
        }
    }

    fn open_first_day(&mut self, day: Day, changes: &mut Changes) {
        let days = &mut self.state.first_days;
        if days.contains(&day) {
            return;
        }
        days.push(day);
        let past = days.len().saturating_sub(DAYS_KEPT);
        changes.past_first_days.extend(days.drain(..past));
        changes.new_first_day = Some(day);
        changes.snapshot = true;
    }
}
