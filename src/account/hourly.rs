//! Hourly totals: a call adds to them when it ends, and a change of its end changes the hour of its
//! admission, so that a refund never lands in another period.
//!
//! They gather in the account's state. When there are enough for a row, they are written out with
//! a snapshot that is written anyway.

use std::collections::BTreeMap;

use super::Account;
use crate::{
    call::Call,
    time::MonthNumber,
    totals::{Line, Tally, Totals},
};

/// Totals are written out when there are more lines than this, each about 50 bytes of every
/// snapshot.
const LINES_HELD: usize = 200;

/// Totals that are in no table yet, by the month of the log that their calls are in: its table of
/// totals goes when its calls go.
pub(super) type Unwritten = BTreeMap<MonthNumber, Totals>;

impl Account {
    /// Adds to the hour of `call`: the same when it ends and when its row is replayed.
    pub(super) fn add_total(&mut self, call: &Call, tally: Tally) {
        if let Some(month) = self.month_of(call.number)
            && tally != Tally::default()
        {
            let hour = self.policy.gateway.calendar.hour_of(call.admitted_at);
            let totals = self.state.unwritten.entry(month).or_default();
            totals.add(hour, call, tally);
        }
    }

    /// The totals to be written out with the snapshot that is about to be taken; nothing, if that
    /// can wait.
    pub fn take_totals(&mut self) -> BTreeMap<MonthNumber, Totals> {
        let unwritten = &mut self.state.unwritten;
        let lines = unwritten.values().map(|totals| totals.lines().len());
        if lines.sum::<usize>() > LINES_HELD {
            std::mem::take(unwritten)
        } else {
            BTreeMap::new()
        }
    }

    /// Looks at all totals that are in no table: of calls that ended lately, and of open ones.
    pub fn each_unwritten(&self, each: &mut dyn FnMut(&Line)) {
        let calendar = self.policy.gateway.calendar;
        let mut open = Totals::new();
        for call in self.open.values() {
            open.add(calendar.hour_of(call.admitted_at), call, Tally::OPEN);
        }
        let ended = self.state.unwritten.values();
        for line in ended.chain([&open]).flat_map(Totals::lines) {
            each(line);
        }
    }
}
