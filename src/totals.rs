//! Totals of calls, for charts: how many there were, how many failed and what they were charged,
//! by hour or by day, key, endpoint and pool.
//!
//! A total may be told in several lines, some of them below zero: a refund takes from the hour of
//! the call that it is about, also when that hour was written long ago. Whoever reads, sums.

pub mod summary;

use std::cmp::Ordering;

use crate::wire::{Decode, Encode};

use crate::{
    call::{Call, CallState, Outcome},
    id::KeyNumber,
    time::Timestamp,
};

/// About how many bytes a line is, stored, apart from its names.
const LINE_BYTES: usize = 32;

/// What some calls come to, or by how much that changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Tally {
    /// Calls, open ones included, undone ones not.
    #[n(0)]
    pub calls: i64,
    /// Those of them that ended with a status of 400 or above, or without anybody telling how.
    #[n(1)]
    pub failed: i64,
    /// What they were charged.
    #[n(2)]
    pub credits: i64,
}

impl Tally {
    /// A call that has not ended.
    pub const OPEN: Self = Self {
        calls: 1,
        failed: 0,
        credits: 0,
    };

    /// One call, by what its row says of its end.
    #[must_use]
    pub fn of(outcome: Option<&Outcome>) -> Self {
        let Some(outcome) = outcome else {
            return Self::OPEN;
        };
        let status = outcome.status;
        let is_failure = match outcome.state {
            CallState::Open | CallState::Job => return Self::OPEN,
            CallState::Cancelled => return Self::default(),
            // Also where it was answered: nobody told how the job ended.
            CallState::UnknownReleased | CallState::UnknownCharged => true,
            // Without an answer, the origin or the operator said that it succeeded or failed.
            CallState::Settled | CallState::Refunded => status.is_some_and(|status| status >= 400),
            CallState::Released => status.is_none_or(|status| status >= 400),
        };
        Self {
            calls: 1,
            failed: is_failure.into(),
            credits: i64::try_from(outcome.charged.get()).unwrap_or(i64::MAX),
        }
    }

    /// Adds `other`.
    pub const fn add(&mut self, other: Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.failed = self.failed.saturating_add(other.failed);
        self.credits = self.credits.saturating_add(other.credits);
    }

    /// What has to be added to `other` to get this.
    #[must_use]
    pub const fn less(self, other: Self) -> Self {
        Self {
            calls: self.calls.saturating_sub(other.calls),
            failed: self.failed.saturating_sub(other.failed),
            credits: self.credits.saturating_sub(other.credits),
        }
    }
}

/// The calls of one hour or day, one key, one endpoint and one pool.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Line {
    /// When the hour or the day starts.
    #[n(0)]
    pub at: Timestamp,
    /// The key that made them.
    #[n(1)]
    pub key: KeyNumber,
    /// The route's template.
    #[n(2)]
    pub endpoint: String,
    /// The pool that they were charged to.
    #[n(3)]
    pub pool: String,
    /// What they come to.
    #[n(4)]
    pub tally: Tally,
}

impl Line {
    fn order(&self, at: Timestamp, call: &Call) -> Ordering {
        (self.at, self.key)
            .cmp(&(at, call.key))
            .then_with(|| self.endpoint.as_str().cmp(&call.endpoint))
            .then_with(|| self.pool.as_str().cmp(&call.hold.terms.pool))
    }
}

/// Lines of totals in the order of their times, keys, endpoints and pools, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Totals(#[n(0)] Vec<Line>);

impl Totals {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Its lines.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.0
    }

    /// Adds `tally` to the line of `call` in the hour or day that starts at `at`. Says by how many
    /// bytes the stored lines have grown, about.
    pub fn add(&mut self, at: Timestamp, call: &Call, tally: Tally) -> usize {
        match self.0.binary_search_by(|line| line.order(at, call)) {
            Ok(found) => {
                if let Some(line) = self.0.get_mut(found) {
                    line.tally.add(tally);
                }
                0
            }
            Err(place) => {
                let line = Line {
                    at,
                    key: call.key,
                    endpoint: call.endpoint.clone(),
                    pool: call.hold.terms.pool.clone(),
                    tally,
                };
                let names = line.endpoint.len().saturating_add(line.pool.len());
                self.0.insert(place, line);
                names.saturating_add(LINE_BYTES)
            }
        }
    }
}
