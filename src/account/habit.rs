//! What an account usually spends: what it was charged, by day, as far back as a habit goes.

use super::unusual::Flag;
use crate::{
    credits::Credits,
    time::Day,
    wire::{Decode, Encode},
};

/// A habit is what the days of four weeks were like.
const HABIT_DAYS: i64 = 28;
/// In its first days of spending an account has none: a new customer tries a little, then goes live.
const DAYS_WITHOUT: i64 = 7;
/// The days of a habit, the present one, and a few that a clock may stray to.
const DAYS_KEPT: usize = 32;

/// What was charged of one pool. It follows from the ends of calls, in whichever order they come, so that
/// it is replayed like all else; what comes back later changes nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Habit {
    #[n(0)]
    pub(super) pool: String,
    /// The first day that is known of.
    #[n(1)]
    since: Day,
    /// The latest days with what was charged on each, in their order.
    #[n(2)]
    days: Vec<(Day, u64)>,
    /// Why it was last flagged.
    #[n(3)]
    pub(super) flag: Option<Flag>,
}

impl Habit {
    pub(super) fn new(pool: &str, since: Day) -> Self {
        Self {
            pool: pool.to_owned(),
            since,
            days: Vec::new(),
            flag: None,
        }
    }

    /// Counts what was charged on `day`, by the clock as read.
    pub(super) fn count(&mut self, day: Day, charged: Credits) {
        self.since = self.since.min(day);
        match self.days.binary_search_by_key(&day, |(day, _)| *day) {
            Ok(place) => {
                if let Some((_, sum)) = self.days.get_mut(place) {
                    *sum = sum.saturating_add(charged.get());
                }
            }
            Err(place) => {
                self.days.insert(place, (day, charged.get()));
                if self.days.len() > DAYS_KEPT {
                    self.days.remove(0);
                }
            }
        }
    }

    /// What was charged on `day`.
    pub(super) fn of(&self, day: Day) -> u64 {
        let place = self.days.binary_search_by_key(&day, |(day, _)| *day);
        let known = place.ok().and_then(|place| self.days.get(place));
        known.map_or(0, |(_, sum)| *sum)
    }

    /// The most that was charged on a day before `day`; `None` where it is too early for a habit.
    pub(super) fn before(&self, day: Day) -> Option<u64> {
        let habit = day.minus(HABIT_DAYS)..day;
        let days = self.days.iter().filter(|(day, _)| habit.contains(day));
        let most = days.map(|(_, sum)| *sum).max().unwrap_or(0);
        (self.since <= day.minus(DAYS_WITHOUT)).then_some(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    use crate::time::{Calendar, Timestamp};

    fn day(number: i64) -> Day {
        Calendar::default().day_of(Timestamp::from_seconds(number * 86_400))
    }

    fn habit(charges: &[(i64, u64)]) -> Habit {
        let first = charges.iter().map(|(at, _)| day(*at)).next().unwrap();
        let mut habit = Habit::new("credits", first);
        for (at, charged) in charges {
            habit.count(day(*at), Credits::new(*charged).unwrap());
        }
        habit
    }

    #[test]
    fn a_habit_is_the_greatest_of_28_days_and_not_there_for_7() {
        let habit = habit(&[(0, 9), (0, 1), (3, 7), (5, 2), (40, 90)]);
        for (at, spent, before) in [
            (0, 10, None),
            (3, 7, None),
            (6, 0, None),
            (7, 0, Some(10)),
            (28, 0, Some(10)),
            (29, 0, Some(7)),
            (31, 0, Some(7)),
            (32, 0, Some(2)),
            (40, 90, Some(0)),
            (41, 0, Some(90)),
            (100, 0, Some(0)),
        ] {
            assert_eq!((habit.of(day(at)), habit.before(day(at))), (spent, before));
        }
    }

    #[test]
    fn a_clock_that_strays_a_few_times_leaves_the_habit() {
        let mut charges: Vec<(i64, u64)> = (0..29).map(|at| (at, 10)).collect();
        charges.extend([(700, 1), (9_000, 1), (400, 1)]);
        let habit = habit(&charges);
        assert_eq!(habit.days.len(), DAYS_KEPT);
        assert_eq!((habit.of(day(28)), habit.before(day(28))), (10, Some(10)));
    }

    proptest! {
        /// Calls' rows are replayed in another order than that of their ends.
        #[test]
        fn the_order_of_the_ends_does_not_matter(
            charges in prop::collection::vec((0_i64..60, 0_u64..9), 1..120),
            shuffled in any::<prop::sample::Index>(),
        ) {
            let mut other = charges.clone();
            other.rotate_left(shuffled.index(charges.len()));
            other.reverse();
            prop_assert_eq!(habit(&charges), habit(&other));
        }
    }
}
