//! The origin's or the operator's word on how a call ended: a job's end, a refund.

use super::{Account, CallEnd, Changes, Rejected, settle::ReplacedEnd};
use crate::{
    call::{CallRow, CallState, Outcome},
    credits::Credits,
    ledger::EntryKind,
    policy::Mode,
    price::{Quantity, Terms},
    time::{Span, Timestamp},
    wire::{Decode, Encode},
};

/// How long a settled call can be refunded, and a provisional end replaced by the real one.
pub(super) const OPEN_TO_CHANGE: Span = Span::from_days(30);

/// What is said of a call's end.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Word {
    /// It succeeded, and costs this.
    #[n(0)]
    Settle(#[n(0)] Told),
    /// It failed, or is refunded: everything goes back.
    #[n(1)]
    Release {
        /// Why.
        #[n(0)]
        reason: Option<String>,
    },
}

/// What a call really cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Told {
    /// So many credits.
    #[n(0)]
    Credits(#[n(0)] Credits),
    /// So much of what its price counts.
    #[n(1)]
    Value(#[n(0)] Quantity),
    /// What it holds.
    #[n(2)]
    Hold,
}

impl Account {
    /// Ends or refunds the call of `row`.
    ///
    /// # Errors
    /// It has ended otherwise, or would cost more than it holds. Nothing was changed.
    pub fn conclude(
        &mut self,
        row: &CallRow,
        word: Word,
        clock: Timestamp,
    ) -> Result<Changes, Rejected> {
        let ended_at = row.outcome.as_ref().map_or(clock, |outcome| outcome.at);
        let is_late = self.state.latest.max(clock) > ended_at.plus(OPEN_TO_CHANGE);
        match (row.state(), &word) {
            (CallState::Open | CallState::Job, word) => {
                let charge = self.charge_of(row, word)?;
                Ok(self.end_open(row, charge, clock))
            }
            (CallState::UnknownReleased | CallState::UnknownCharged, told) if !is_late => {
                let charge = self.charge_of(row, told)?;
                Ok(self.replace(row, charge, EntryKind::Corrected, word, clock))
            }
            (CallState::Settled | CallState::UnknownCharged, Word::Settle(_)) => {
                Err(Rejected::AlreadySettled)
            }
            (CallState::Settled, Word::Release { .. }) if !is_late => {
                Ok(self.replace(row, None, EntryKind::Refunded, word, clock))
            }
            (CallState::Settled | CallState::UnknownCharged, Word::Release { .. }) => {
                Err(Rejected::TooLateToRefund)
            }
            (
                CallState::Released
                | CallState::Cancelled
                | CallState::UnknownReleased
                | CallState::Refunded,
                _,
            ) => Err(Rejected::AlreadyReleased),
        }
    }

    /// What is charged by this word; `None` where everything goes back.
    fn charge_of(&self, row: &CallRow, word: &Word) -> Result<Option<Credits>, Rejected> {
        match word {
            Word::Settle(told) => Ok(Some(self.told(&row.call.hold.terms, row, *told)?)),
            Word::Release { .. } => Ok(None),
        }
    }

    /// What a settle charges: never more than the call held when it was admitted, and nothing
    /// where the gateway only observes.
    fn told(&self, terms: &Terms, row: &CallRow, told: Told) -> Result<Credits, Rejected> {
        let held = terms.most.min(row.call.held().max(terms.least));
        let charge = match told {
            Told::Hold => row.call.held(),
            Told::Credits(credits) => credits,
            Told::Value(value) => {
                let meter = terms.meter.as_ref().ok_or(Rejected::NotByQuantity)?;
                meter.price(value).ok_or(Rejected::AboveHold(held))?
            }
        };
        if row.call.hold.observed || self.policy.gateway.mode == Mode::Observe {
            return Ok(Credits::ZERO);
        }
        if charge > held {
            return Err(Rejected::AboveHold(held));
        }
        Ok(charge)
    }

    fn end_open(&mut self, row: &CallRow, charge: Option<Credits>, clock: Timestamp) -> Changes {
        let mut changes = Changes::default();
        self.book_due(clock, &mut changes);
        let Some(call) = self.take_open(row.call.number) else {
            return changes;
        };
        let answer = row.outcome.as_ref();
        let outcome = Outcome {
            state: if charge.is_some() {
                CallState::Settled
            } else {
                CallState::Released
            },
            status: answer.and_then(|answer| answer.status),
            charged: charge.unwrap_or_default(),
            response_time_ms: answer.map_or(0, |answer| answer.response_time_ms),
            at: clock,
            mark: None,
            nth_end: self.next_end(),
            first_charged: None,
        };
        if let Some(month) = self.month_of(call.number) {
            changes.ended.push(CallEnd {
                call: call.number,
                month,
                outcome: outcome.clone(),
                hold: None,
            });
        }
        self.book_end(call, &outcome, clock, &mut changes);
        changes
    }

    fn replace(
        &mut self,
        row: &CallRow,
        charge: Option<Credits>,
        kind: EntryKind,
        word: Word,
        clock: Timestamp,
    ) -> Changes {
        let mut changes = Changes::default();
        self.book_due(clock, &mut changes);
        let state = match (charge, kind) {
            (Some(_), _) => CallState::Settled,
            (None, EntryKind::Refunded) => CallState::Refunded,
            (None, _) => CallState::Released,
        };
        let answer = row.outcome.as_ref();
        let end = ReplacedEnd {
            state,
            status: answer.and_then(|answer| answer.status),
            charge: charge.unwrap_or_default(),
            response_time_ms: answer.map_or(0, |answer| answer.response_time_ms),
            mark: None,
            kind,
            reference: match word {
                Word::Release { reason } => reason,
                Word::Settle(_) => None,
            },
        };
        self.replace_end(row, end, clock, &mut changes);
        changes
    }
}
