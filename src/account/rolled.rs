//! Months of the call log that are no longer kept call by call: what is left of them, and how a
//! month becomes that.
//!
//! A month is rolled up when `usage_days` have passed since its end, the oldest first, and not
//! before its last call has ended. Its rows are read in slices. While that goes on the month is
//! closed: no word changes its calls any more. What was gathered is lost with an eviction and
//! gathered again, apart from the parts that a huge month is stored in.

use std::collections::BTreeMap;

use crate::wire::{Decode, Encode};

use super::{Account, Changes, LogMonth, figures::turn_of};
use crate::{
    call::{CallRow, CallState, Outcome},
    id::CallNumber,
    ledger::{LotNumber, split},
    time::{Calendar, MonthNumber, Span, Timestamp},
    totals::{Tally, Totals},
};

/// An idle account's alarm rolls a month up at some moment of this long after it can be, so that not all
/// accounts wake at once.
pub const ROLL_UPS_SPREAD: Span = Span::from_seconds(6 * 3_600);
/// How many rows of the call log one slice reads at most.
pub const ROWS_PER_SLICE: u64 = 5_000;
/// A part is stored after so many slices: what an eviction can cost.
const SLICES_PER_PART: u32 = 64;
/// A part is stored when it has grown to so many bytes, about: a row can have 2 MB.
const BYTES_PER_PART: usize = 1 << 20;

/// What is left of a month of the call log: one row. A huge month has several, each about a part
/// of its calls; they count when the month has left [`Account::log`] ([`Account::is_rolled_up`]).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Rolled {
    /// Which month, by order time.
    #[n(0)]
    pub month: MonthNumber,
    /// Which of its parts: 0, 1, 2 …
    #[n(1)]
    pub part: u16,
    /// The first call in it.
    #[n(2)]
    pub first: CallNumber,
    /// The last call in it.
    #[n(3)]
    pub last: CallNumber,
    /// How many calls it has, without undone admissions.
    #[n(4)]
    pub calls: u64,
    /// How many undone admissions.
    #[n(5)]
    pub cancelled: u64,
    /// By pool and lot, what its calls were charged when they first ended. Entries tell every
    /// change since.
    #[n(6)]
    pub charged: BTreeMap<String, BTreeMap<LotNumber, u64>>,
    /// Daily totals of its calls as they ended, by the days of their admission.
    #[n(7)]
    pub days: Totals,
    /// The last place among the ends that one of its calls has.
    #[n(8)]
    pub ends: u64,
}

impl Rolled {
    /// The row that it is stored as: months and their parts in order.
    #[must_use]
    pub fn row(&self) -> u64 {
        Self::first_row_of(self.month).saturating_add(self.part.into())
    }

    /// The row of the first part of `month`.
    #[must_use]
    pub fn first_row_of(month: MonthNumber) -> u64 {
        u64::try_from(month.get()).unwrap_or(0) << 16
    }

    const fn starting_with(first: CallNumber, month: MonthNumber, part: u16) -> Self {
        Self {
            month,
            part,
            first,
            last: first,
            calls: 0,
            cancelled: 0,
            charged: BTreeMap::new(),
            days: Totals::new(),
            ends: 0,
        }
    }

    /// Adds an ended call. Says by how many bytes this has grown, about.
    fn add(&mut self, row: &CallRow, calendar: Calendar) -> usize {
        let call = &row.call;
        self.last = call.number;
        let outcome = row.outcome.as_ref();
        if outcome.is_some_and(|outcome| outcome.state == CallState::Cancelled) {
            self.cancelled = self.cancelled.saturating_add(1);
            return 0;
        }
        self.calls = self.calls.saturating_add(1);
        let place = outcome.map_or(0, |outcome| outcome.nth_end);
        self.ends = self.ends.max(place);
        let charged = outcome.map(Outcome::first_charged);
        for part in split(&call.hold.parts, charged.unwrap_or_default()).0 {
            let lots = self.charged.entry(call.hold.terms.pool.clone());
            let sum = lots.or_default().entry(part.lot).or_default();
            *sum = sum.saturating_add(part.credits.get());
        }
        let day = calendar.start_of(calendar.day_of(call.admitted_at));
        self.days.add(day, call, Tally::of(outcome))
    }
}

/// How far the roll-up of a month has been stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Rolling {
    /// The last call that a part has.
    #[n(0)]
    pub through: CallNumber,
    /// Parts stored.
    #[n(1)]
    pub parts: u16,
}

/// The part that is being gathered of the oldest month.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    part: Option<Rolled>,
    bytes: usize,
    slices: u32,
}

impl Account {
    /// Whether nothing is left of `month` but what was rolled up.
    #[must_use]
    pub fn is_rolled_up(&self, month: MonthNumber) -> bool {
        self.state.log.first().is_none_or(|kept| month < kept.month)
    }

    /// Whether a word may still change this call: it is kept, and its month is not being rolled
    /// up.
    #[must_use]
    pub fn is_open_to_change(&self, call: CallNumber) -> bool {
        self.month_of(call).is_some_and(|month| {
            let oldest = self
                .state
                .log
                .first()
                .filter(|oldest| oldest.month == month);
            oldest.is_none_or(|oldest| self.gathering.is_none() && oldest.rolling.is_none())
        })
    }

    /// When the oldest month can be rolled up, not before a call whose end came late can no longer be
    /// refunded; `None` if there is none, or if it waits for a call to end.
    #[must_use]
    pub fn next_roll_up(&self) -> Option<Timestamp> {
        let oldest = self.state.log.first()?;
        let next = self.state.log.get(1);
        let first_open = self.open.keys().next();
        let waits = first_open.is_some_and(|open| next.is_none_or(|next| *open < next.first));
        let gateway = &self.policy.gateway;
        let ends_at = gateway.calendar.start_of_month(oldest.month.next());
        let kept_until = ends_at.plus(Span::from_days(gateway.usage_days.into()));
        (!waits).then(|| kept_until.max(oldest.refundable_until.unwrap_or(kept_until)))
    }

    /// When the alarm sees to the roll-up where nobody comes before: less than [`ROLL_UPS_SPREAD`] after
    /// it can be done.
    #[must_use]
    pub fn roll_up_alarm(&self) -> Option<Timestamp> {
        let turn = turn_of(&self.profile.id, ROLL_UPS_SPREAD);
        Some(self.next_roll_up()?.plus(turn))
    }

    /// The month that is to be rolled up now, and the number after which its next slice starts:
    /// at most [`ROWS_PER_SLICE`] rows of it are what [`Account::roll_up`] needs.
    #[must_use]
    pub fn next_slice(&self) -> Option<(MonthNumber, u64)> {
        self.next_roll_up()
            .filter(|due| *due <= self.state.latest)?;
        let oldest = self.state.log.first()?;
        let gathered = self
            .gathering
            .as_ref()
            .and_then(|gathering| gathering.part.as_ref());
        let after = gathered
            .map(|part| part.last)
            .or_else(|| oldest.rolling.map(|rolling| rolling.through));
        Some((oldest.month, after.map_or(0, CallNumber::get)))
    }

    /// Gathers the slice that [`Account::next_slice`] asked for. The month's last brings the row
    /// that is left of it, and the month leaves the log.
    pub fn roll_up(&mut self, rows: &[CallRow]) -> Changes {
        let mut changes = Changes::default();
        let Some(oldest) = self.state.log.first_mut() else {
            return changes;
        };
        let mut gathering = self.gathering.take().unwrap_or_default();
        let calendar = self.policy.gateway.calendar;
        let mut left = rows.iter();
        while gathering.bytes < BYTES_PER_PART
            && let Some(row) = left.next()
        {
            gathering.add(row, oldest, calendar);
        }
        gathering.slices = gathering.slices.saturating_add(1);
        let is_full = gathering.bytes >= BYTES_PER_PART || gathering.slices >= SLICES_PER_PART;
        let was_last = u64::try_from(rows.len()).is_ok_and(|read| read < ROWS_PER_SLICE);
        if was_last && left.len() == 0 {
            changes.rolled = gathering.part;
            changes.dropped_month = Some(oldest.month);
            changes.snapshot = true;
            self.state.unwritten.remove(&oldest.month);
            self.state.log.remove(0);
        } else if is_full && let Some(part) = gathering.part {
            oldest.rolling = Some(Rolling {
                through: part.last,
                parts: part.part.saturating_add(1),
            });
            changes.rolled = Some(part);
            changes.snapshot = true;
        } else {
            self.gathering = Some(gathering);
        }
        changes
    }
}

impl Gathering {
    fn add(&mut self, row: &CallRow, month: &LogMonth, calendar: Calendar) {
        let part = self.part.get_or_insert_with(|| {
            let parts = month.rolling.map_or(0, |rolling| rolling.parts);
            Rolled::starting_with(row.call.number, month.month, parts)
        });
        self.bytes = self.bytes.saturating_add(part.add(row, calendar));
    }
}
