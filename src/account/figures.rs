//! What the account counts for `GET /status`, until the directory has counted it too.
//!
//! Nothing is written for it: calls are counted from their rows when the account wakes, and whatever
//! else is counted comes with a snapshot anyway. Refusals wait in memory for one, as in
//! `account/refusals.rs`, or for the report.
//!
//! **Once.** Reports are numbered, and one number tells all hours that are over since the last report
//! that was acknowledged. The directory keeps the latest number and what it has counted under it, and
//! answers with that; so a report that comes twice, late, or with more than before is counted once. An
//! answer that lacks something of what was told last is one to an earlier report, and passed over: what
//! came after it may be counted, too.

use super::{Account, Changes};
use crate::{
    id::AccountId,
    status::{Counts, Hours, Refusals},
    time::{Span, Timestamp},
    wire::{Decode, Encode},
};

/// Accounts tell an hour at some moment of this long after its end, so that not all come at once.
pub const SPREAD: Span = Span::from_seconds(30 * 60);

/// What the directory has not said that it has counted. Stored in the snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Figures {
    /// The last report that was acknowledged.
    #[n(0)]
    reported: u64,
    #[n(1)]
    hours: Hours,
}

impl Account {
    /// Counts what comes with a snapshot, or is replayed.
    pub(super) fn count_figures(&mut self, counts: &Counts) {
        self.state.figures.hours.count(counts);
    }

    /// Counts refusals by their code, in memory.
    pub(super) fn count_refused(&mut self, refused: Refusals, clock: Timestamp) {
        self.refused.count(&Counts {
            refused,
            ..Counts::at(clock)
        });
    }

    /// Counts an audit that found a difference.
    pub fn count_failed_audit(&mut self, clock: Timestamp) -> Changes {
        self.count_figures(&Counts {
            failed_audits: 1,
            ..Counts::at(clock)
        });
        Changes {
            snapshot: true,
            ..Changes::default()
        }
    }

    /// When the hours that are over by then should be told; `None` where there is nothing to tell.
    #[must_use]
    pub fn figures_due_at(&self) -> Option<Timestamp> {
        let hours = [&self.state.figures.hours, &self.refused];
        let first = hours.into_iter().filter_map(Hours::first).min()?;
        Some(
            first
                .plus(Span::HOUR)
                .plus(turn_of(&self.profile.id, SPREAD)),
        )
    }

    /// What has been counted in hours that are over at `clock`, and not been acknowledged.
    #[must_use]
    pub fn figures(&self, clock: Timestamp) -> Hours {
        let mut hours = self.state.figures.hours.clone();
        hours.add(&self.refused);
        hours.over(clock)
    }

    /// The number of the report that is made now, and what it tells.
    pub fn tell_figures(&mut self, clock: Timestamp) -> (u64, Hours) {
        self.told = self.figures(clock);
        let number = self.state.figures.reported.saturating_add(1);
        (number, self.told.clone())
    }

    /// The directory has counted `hours` under this number. Late and repeated words change nothing.
    ///
    /// It has a later number than the account where the account's was lost, as by a release that did
    /// not have it; then the account counts on from there, and tells again.
    pub fn figures_counted(&mut self, number: u64, hours: &Hours) -> Changes {
        let next = self.state.figures.reported.saturating_add(1);
        let is_told = !self.told.is_empty() && self.told.clone().less(hours).is_empty();
        let is_latest = number == next && is_told;
        if is_latest {
            self.move_refusals();
            self.told = Hours::default();
            let counted = std::mem::take(&mut self.state.figures.hours);
            self.state.figures.hours = counted.less(hours);
        }
        if is_latest || number > next {
            self.state.figures.reported = number;
        }
        Changes {
            snapshot: is_latest || number > next,
            ..Changes::default()
        }
    }

    /// Moves refusals to where a snapshot has them.
    pub(super) fn move_refused(&mut self) {
        let refused = std::mem::take(&mut self.refused);
        self.state.figures.hours.add(&refused);
    }
}

/// How long after a moment that is the same for all accounts it is this one's turn, shorter than
/// `spread`: always the same.
pub(super) fn turn_of(account: &AccountId, spread: Span) -> Span {
    // Ids that follow each other must lie apart.
    const FACTOR: i64 = 1_099_511_628_211;
    let digest = account.as_str().bytes().fold(0_i64, |digest, byte| {
        digest.wrapping_add(byte.into()).wrapping_mul(FACTOR)
    });
    Span::from_millis(digest.checked_rem_euclid(spread.as_millis()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_take_their_turns_all_over_the_half_hour() {
        let mut minutes = [0_u32; 30];
        for number in 0..3_000 {
            let id = AccountId::parse(&format!("cus_{number}")).unwrap();
            let minute = turn_of(&id, SPREAD).as_millis() / 60_000;
            minutes[usize::try_from(minute).unwrap()] += 1;
        }
        assert!(
            minutes.iter().all(|told| (60..140).contains(told)),
            "{minutes:?}"
        );
    }
}
