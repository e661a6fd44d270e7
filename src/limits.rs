//! Limits of calls: any 60 seconds, a day, in flight. Look at all, then count all.
//!
//! Credits are charged for success only; limits count every call, also one that fails.

use std::collections::VecDeque;

use minicbor::{Decoder, Encoder, decode, encode};

use crate::{
    id::CallNumber,
    time::{Day, Span, Timestamp},
    wire::{Decode, Encode},
};

/// How far the latest time seen may lie ahead of the clock before the minute window stops
/// believing it.
const STRAY: Span = Span::MINUTE;

/// The latest calls of one key (or account) inside the last 60 seconds, oldest first.
///
/// It keeps as many as its limit, which is all that the next decision needs, so the limit is
/// exact: never more than N calls admitted in *any* 60 seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MinuteWindow {
    calls: VecDeque<Counted>,
    /// The latest time at which a call was counted, also if it was undone since.
    latest: Timestamp,
}

/// One call in the window, and when it counts as made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Counted {
    #[n(0)]
    at: Timestamp,
    #[n(1)]
    call: CallNumber,
}

/// A window of more calls than this is stored as steps.
const CALLS_AS_THEY_ARE: usize = 1_024;

/// A window as it is stored: a busy account's has tens of thousands of calls, and goes into every
/// snapshot.
#[derive(Encode, Decode)]
#[cbor(array)]
struct StoredWindow {
    /// The calls as they are, where they are few: the release before reads them nowhere else. Where they
    /// are many it finds none: rolled back to, it begins the minute anew.
    #[n(0)]
    calls: VecDeque<Counted>,
    #[n(1)]
    latest: Timestamp,
    /// Of each call, how many milliseconds and how many numbers it came after the one before; of
    /// the first, after 0. Mostly two bytes, where both as they are take up to fourteen.
    #[cbor(n(2), default)]
    steps: Vec<i64>,
}

impl From<&MinuteWindow> for StoredWindow {
    fn from(window: &MinuteWindow) -> Self {
        if window.calls.len() <= CALLS_AS_THEY_ARE {
            return Self {
                calls: window.calls.clone(),
                latest: window.latest,
                steps: Vec::new(),
            };
        }
        let mut steps = Vec::with_capacity(window.calls.len().saturating_mul(2));
        let mut before = (0, 0);
        for counted in &window.calls {
            let (at, call) = (counted.at.as_millis(), counted.call.get().cast_signed());
            steps.extend([at.wrapping_sub(before.0), call.wrapping_sub(before.1)]);
            before = (at, call);
        }
        Self {
            calls: VecDeque::new(),
            latest: window.latest,
            steps,
        }
    }
}

impl TryFrom<StoredWindow> for MinuteWindow {
    type Error = decode::Error;

    fn try_from(stored: StoredWindow) -> Result<Self, decode::Error> {
        let mut calls = stored.calls;
        let (mut at, mut call) = (0_i64, 0_i64);
        let (steps, rest) = stored.steps.as_chunks();
        if !rest.is_empty() {
            return Err(decode::Error::message("half a call in a minute"));
        }
        for [millis, numbers] in steps {
            at = at.wrapping_add(*millis);
            call = call.wrapping_add(*numbers);
            calls.push_back(Counted {
                at: Timestamp::from_millis(at),
                call: CallNumber::new(call.cast_unsigned())
                    .ok_or_else(|| decode::Error::message("no call's number"))?,
            });
        }
        Ok(Self {
            calls,
            latest: stored.latest,
        })
    }
}

impl<Ctx> Encode<Ctx> for MinuteWindow {
    fn encode<W: encode::Write>(
        &self,
        encoder: &mut Encoder<W>,
        context: &mut Ctx,
    ) -> Result<(), encode::Error<W::Error>> {
        StoredWindow::from(self).encode(encoder, context)
    }
}

impl<'bytes, Ctx> Decode<'bytes, Ctx> for MinuteWindow {
    fn decode(decoder: &mut Decoder<'bytes>, context: &mut Ctx) -> Result<Self, decode::Error> {
        StoredWindow::decode(decoder, context)?.try_into()
    }
}

impl MinuteWindow {
    /// The window's own time: it never runs backwards, so a clock that steps back a little can
    /// not make two calls look a minute apart.
    fn now(&self, clock: Timestamp) -> Timestamp {
        self.latest.max(clock)
    }

    /// When a caller passes a limit of `limit` calls: `None` is now.
    #[must_use]
    pub fn frees_at(&self, limit: u32, clock: Timestamp) -> Option<Timestamp> {
        let index = self.calls.len().checked_sub(as_len(limit))?;
        // Of the last `limit` calls the oldest has to leave. A limit of 0 has no such call.
        let oldest = self
            .calls
            .get(index)
            .map_or(self.now(clock), |counted| counted.at);
        let frees_at = oldest.plus(Span::MINUTE);
        (frees_at > self.now(clock)).then_some(frees_at)
    }

    /// How many more calls pass a limit of `limit` calls at this moment.
    #[must_use]
    pub fn remaining(&self, limit: u32, clock: Timestamp) -> u32 {
        let in_force = self.in_force(clock).len();
        limit.saturating_sub(u32::try_from(in_force).unwrap_or(u32::MAX))
    }

    /// When the oldest call leaves the window: the next moment at which more calls pass.
    #[must_use]
    pub fn resets_at(&self, clock: Timestamp) -> Timestamp {
        self.in_force(clock)
            .next()
            .map_or(clock, |oldest| oldest.at.plus(Span::MINUTE))
    }

    fn in_force(&self, clock: Timestamp) -> impl ExactSizeIterator<Item = &Counted> {
        let start = self.now(clock).minus(Span::MINUTE);
        let first = self.calls.partition_point(|counted| counted.at <= start);
        self.calls.range(first..)
    }

    /// How many calls it knows: of the last 60 seconds before its last call.
    #[must_use]
    pub fn known(&self) -> usize {
        self.calls.len()
    }

    /// The latest time at which a call was counted.
    #[must_use]
    pub const fn latest(&self) -> Timestamp {
        self.latest
    }

    /// Lets go of its calls, which its limit cannot count any more. Its time stays.
    pub fn forget_calls(&mut self) {
        self.calls = VecDeque::new();
    }

    /// Counts an admitted call under a limit of `limit` calls.
    pub fn count(&mut self, call: CallNumber, limit: u32, clock: Timestamp) {
        let at = self.now(clock);
        let start = at.minus(Span::MINUTE);
        while self
            .calls
            .front()
            .is_some_and(|oldest| oldest.at <= start || self.calls.len() >= as_len(limit))
        {
            self.calls.pop_front();
        }
        self.calls.push_back(Counted { at, call });
        self.latest = at;
    }

    /// Takes a call out that never was: its admission was undone.
    pub fn uncount(&mut self, call: CallNumber) {
        self.calls.retain(|counted| counted.call != call);
    }

    /// If the clock turns out to have strayed more than a minute ahead, the window's calls count
    /// as made just now, so that the stray clock can hold a key back for a minute at most.
    /// Says whether it did anything.
    pub fn forget_stray(&mut self, clock: Timestamp) -> bool {
        let strayed = self.latest > clock.plus(STRAY);
        if strayed {
            self.latest = clock;
            for counted in &mut self.calls {
                counted.at = clock;
            }
        }
        strayed
    }
}

/// A limit as a length; a limit beyond the address space is no limit in practice.
fn as_len(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// How many days' counts are kept, so that a clock that strays over three other days, wherever
/// they lie, and comes back finds the day's count as it was.
const DAYS_KEPT: usize = 4;

/// Counts per day of the clock as read, the day that was counted last at the back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct DayCounts(#[n(0)] VecDeque<(Day, u32)>);

impl DayCounts {
    /// The count of `day`.
    #[must_use]
    pub fn of(&self, day: Day) -> u32 {
        self.0
            .iter()
            .find(|(counted, _)| *counted == day)
            .map_or(0, |(_, count)| *count)
    }

    /// Adds one to the count of `day`.
    pub fn count(&mut self, day: Day) {
        self.add(day, 1);
    }

    /// Adds `more` to the count of `day`.
    pub fn add(&mut self, day: Day, more: u32) {
        let count = self.of(day).saturating_add(more);
        self.0.retain(|(counted, _)| *counted != day);
        while self.0.len() >= DAYS_KEPT {
            self.0.pop_front();
        }
        self.0.push_back((day, count));
    }

    /// The counts of the days that are kept, the one that was counted last at the end.
    pub fn iter(&self) -> impl Iterator<Item = (Day, u32)> {
        self.0.iter().copied()
    }

    /// Takes one from the count of `day`.
    pub fn uncount(&mut self, day: Day) {
        if let Some((_, count)) = self.0.iter_mut().find(|(counted, _)| *counted == day) {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + millis)
    }

    fn admit(
        window: &mut MinuteWindow,
        call: u64,
        limit: u32,
        clock: Timestamp,
    ) -> Option<Timestamp> {
        let frees_at = window.frees_at(limit, clock);
        if frees_at.is_none() {
            window.count(CallNumber::new(call).unwrap(), limit, clock);
        }
        frees_at
    }

    #[test]
    fn a_call_is_refused_until_the_told_moment_and_admitted_at_it() {
        let mut window = MinuteWindow::default();
        for call in 0..5 {
            assert_eq!(
                admit(
                    &mut window,
                    call,
                    5,
                    at(i64::try_from(call).unwrap() * 1_000)
                ),
                None
            );
        }
        assert_eq!(admit(&mut window, 5, 5, at(10_000)), Some(at(60_000)));
        assert_eq!(admit(&mut window, 5, 5, at(59_999)), Some(at(60_000)));
        assert_eq!(admit(&mut window, 5, 5, at(60_000)), None);
        assert_eq!(admit(&mut window, 6, 5, at(60_000)), Some(at(61_000)));
    }

    #[test]
    fn a_limit_that_became_smaller_looks_at_its_own_last_calls() {
        let mut window = MinuteWindow::default();
        for call in 0..10 {
            assert_eq!(
                admit(
                    &mut window,
                    call,
                    10,
                    at(i64::try_from(call).unwrap() * 1_000)
                ),
                None
            );
        }
        assert_eq!(window.frees_at(2, at(20_000)), Some(at(68_000)));
        assert_eq!(window.frees_at(11, at(20_000)), None);
        assert_eq!(window.remaining(12, at(20_000)), 2);
    }

    #[test]
    fn a_stray_clock_holds_a_key_back_for_a_minute_at_most() {
        let mut window = MinuteWindow::default();
        assert_eq!(admit(&mut window, 0, 1, at(3_600_000)), None);
        // Back to the truth, an hour earlier: the call counts as made now, and only once.
        assert!(window.forget_stray(at(0)));
        assert_eq!(admit(&mut window, 1, 1, at(0)), Some(at(60_000)));
        assert!(!window.forget_stray(at(1_000)));
        assert_eq!(admit(&mut window, 1, 1, at(60_000)), None);
    }

    #[test]
    fn a_small_step_back_does_not_open_the_window_early() {
        let mut window = MinuteWindow::default();
        assert_eq!(admit(&mut window, 0, 1, at(30_000)), None);
        assert!(!window.forget_stray(at(0)));
        assert_eq!(admit(&mut window, 1, 1, at(0)), Some(at(90_000)));
        assert_eq!(admit(&mut window, 1, 1, at(90_000)), None);
    }

    #[test]
    fn an_undone_call_does_not_turn_the_windows_time_back() {
        let mut window = MinuteWindow::default();
        assert_eq!(admit(&mut window, 0, 2, at(0)), None);
        assert_eq!(admit(&mut window, 1, 2, at(30_000)), None);
        assert_eq!(admit(&mut window, 2, 2, at(61_000)), None);
        window.uncount(CallNumber::new(2).unwrap());
        // Call 0 has left the window for good; before its minute is over nobody takes its place.
        assert_eq!(admit(&mut window, 3, 2, at(40_000)), None);
        assert_eq!(admit(&mut window, 4, 2, at(40_000)), Some(at(90_000)));
        assert_eq!(window.remaining(2, at(61_000)), 0);
    }

    #[test]
    fn an_undone_call_gives_its_place_back() {
        let mut window = MinuteWindow::default();
        assert_eq!(admit(&mut window, 7, 1, at(0)), None);
        window.uncount(CallNumber::new(7).unwrap());
        assert_eq!(admit(&mut window, 8, 1, at(1)), None);
    }

    #[test]
    fn a_busy_window_is_stored_in_few_bytes_and_read_as_it_was() {
        let mut window = MinuteWindow::default();
        let mut clock = 0;
        for call in 0..60_000_i64 {
            clock += call % 3;
            window.count(
                CallNumber::new(9_000_000_000 + 2 * call.cast_unsigned()).unwrap(),
                u32::MAX,
                at(clock),
            );
        }
        window.uncount(CallNumber::new(9_000_000_400).unwrap());
        let bytes = minicbor::to_vec(&window).unwrap();
        assert!(bytes.len() < 130_000, "{}", bytes.len());
        assert_eq!(minicbor::decode::<MinuteWindow>(&bytes).unwrap(), window);
        // A clock that strays makes all of them one moment's.
        assert!(window.forget_stray(at(-3_600_000)));
        let bytes = minicbor::to_vec(&window).unwrap();
        assert_eq!(minicbor::decode::<MinuteWindow>(&bytes).unwrap(), window);
    }

    #[test]
    fn the_release_before_finds_the_calls_of_a_window_where_they_are_few() {
        #[derive(Decode)]
        #[cbor(array)]
        struct Before {
            #[n(0)]
            calls: VecDeque<Counted>,
            #[n(1)]
            latest: Timestamp,
        }
        let mut window = MinuteWindow::default();
        for (call, found) in (1..).zip((1..=CALLS_AS_THEY_ARE).chain([0])) {
            window.count(CallNumber::new(call).unwrap(), u32::MAX, at(7));
            let bytes = minicbor::to_vec(&window).unwrap();
            let before: Before = minicbor::decode(&bytes).unwrap();
            assert_eq!((before.calls.len(), before.latest), (found, at(7)));
            assert_eq!(minicbor::decode::<MinuteWindow>(&bytes).unwrap(), window);
        }
    }

    #[test]
    fn half_a_call_is_no_window() {
        let mut bytes = minicbor::to_vec((Vec::<u8>::new(), 0, [1_i64, 1, 1])).unwrap();
        assert!(minicbor::decode::<MinuteWindow>(&bytes).is_err());
        bytes = minicbor::to_vec((Vec::<u8>::new(), 0, [1_i64, -1])).unwrap();
        assert!(minicbor::decode::<MinuteWindow>(&bytes).is_err());
    }

    #[test]
    fn a_day_that_comes_back_finds_its_count() {
        let calendar = crate::time::Calendar::default();
        let (today, tomorrow) = (calendar.day_of(at(0)), calendar.day_of(at(86_400_000)));
        let mut counts = DayCounts::default();
        counts.count(today);
        counts.count(tomorrow);
        counts.count(today);
        assert_eq!((counts.of(today), counts.of(tomorrow)), (2, 1));
        counts.uncount(today);
        assert_eq!(counts.of(today), 1);
    }

    #[test]
    fn a_clock_that_strays_over_three_other_days_forgets_no_count() {
        let calendar = crate::time::Calendar::default();
        let day = |days: i64| calendar.day_of(at(days * 86_400_000));
        for strays in [[1, 2, 3], [-1, -2, -3], [-9_000, 9_000, 1], [700, -1, 701]] {
            let mut counts = DayCounts::default();
            for past in -5..0 {
                counts.count(day(past));
            }
            for (index, stray) in strays.into_iter().enumerate() {
                counts.count(day(0));
                counts.count(day(stray));
                counts.count(day(stray));
                assert_eq!(counts.of(day(0)) as usize, index + 1, "{strays:?}");
            }
            for stray in strays {
                counts.count(day(stray));
            }
            assert_eq!(counts.of(day(0)), 3, "{strays:?}");
        }
    }

    proptest! {
        #[test]
        fn never_more_than_the_limit_in_any_sixty_seconds(
            limit in 1_u32..8,
            steps in prop::collection::vec(0_i64..30_000, 1..200),
        ) {
            let mut window = MinuteWindow::default();
            let mut clock = 0;
            let mut admitted: Vec<i64> = Vec::new();
            for (call, step) in steps.into_iter().enumerate() {
                clock += step;
                if admit(&mut window, call as u64, limit, at(clock)).is_none() {
                    admitted.push(clock);
                }
                let in_window = admitted.iter().filter(|made| **made > clock - 60_000).count();
                prop_assert!(in_window <= limit as usize);
                prop_assert_eq!(window.remaining(limit, at(clock)), limit - in_window as u32);
                // Exact the other way as well: what is refused would have been one too many.
                if let Some(frees_at) = window.frees_at(limit, at(clock)) {
                    prop_assert_eq!(in_window, limit as usize);
                    prop_assert!(window.frees_at(limit, frees_at).is_none());
                    prop_assert!(window.frees_at(limit, frees_at.minus(Span::from_millis(1))).is_some());
                }
            }
        }
    }
}
