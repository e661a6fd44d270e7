//! What idle keys did in their last minute is let go of, or a snapshot would grow with every key that
//! ever had a busy minute.

use super::Account;
use crate::{
    limits::MinuteWindow,
    time::{Span, Timestamp},
};

/// So many calls are known to the keys' minute windows in any case: all of the last minute of an
/// account that is as busy as its object can be. So a clock that strays ahead makes no window forget
/// what counts again when the clock comes back.
const CALLS_KNOWN: usize = 20_000;
/// How long after its last call a window that is over that is kept: its minute, and another for a
/// clock that strays.
const KEPT: Span = Span::from_seconds(120);

impl Account {
    /// Lets go of calls that no limit can count any more, if there are many.
    pub(super) fn forget_idle_minutes(&mut self) {
        let usages = self.state.usage.values_mut();
        let mut windows: Vec<&mut MinuteWindow> = usages.map(|usage| &mut usage.minute).collect();
        forget_idle(&mut windows, self.clock);
    }
}

/// The windows that have been idle for longest are emptied first.
fn forget_idle(windows: &mut [&mut MinuteWindow], clock: Timestamp) {
    let before = clock.minus(KEPT);
    let mut known = windows
        .iter()
        .fold(0_usize, |sum, window| sum.saturating_add(window.known()));
    while known > CALLS_KNOWN {
        let idle = windows
            .iter_mut()
            .filter(|window| window.known() > 0 && window.latest() <= before);
        let Some(window) = idle.min_by_key(|window| window.latest()) else {
            return;
        };
        known = known.saturating_sub(window.known());
        window.forget_calls();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::CallNumber;

    const START: Timestamp = Timestamp::from_seconds(1_900_000_000);

    fn minutes(count: i64) -> Timestamp {
        START.plus(Span::from_seconds(60 * count))
    }

    /// 500 keys, each of which makes 300 calls in a minute of its own.
    fn one_after_another() -> Vec<MinuteWindow> {
        let window = |minute| {
            let mut window = MinuteWindow::default();
            for call in 0..300 {
                window.count(CallNumber::new(call).unwrap(), 300, minutes(minute));
            }
            window
        };
        (0..500).map(window).collect()
    }

    fn forget(windows: &mut [MinuteWindow], clock: Timestamp) {
        forget_idle(&mut windows.iter_mut().collect::<Vec<_>>(), clock);
    }

    fn known(windows: &[MinuteWindow]) -> Vec<usize> {
        windows.iter().map(MinuteWindow::known).collect()
    }

    #[test]
    fn the_calls_of_idle_keys_are_let_go_of_and_the_latest_kept() {
        let mut windows = one_after_another();
        forget(&mut windows, minutes(500));
        // 66 times 300 are what is kept in any case.
        assert_eq!(known(&windows), [vec![0; 434], vec![300; 66]].concat());
        forget(&mut windows, minutes(9_000));
        assert_eq!(known(&windows)[434..], [300; 66]);
    }

    #[test]
    fn a_minute_that_may_still_count_is_kept_however_many_there_are() {
        let mut windows: Vec<MinuteWindow> = one_after_another();
        for window in &mut windows {
            window.count(CallNumber::new(300).unwrap(), 300, minutes(501));
        }
        let before = known(&windows);
        forget(&mut windows, minutes(502));
        assert_eq!(known(&windows), before);
        let clock = minutes(501);
        assert!(
            windows
                .iter()
                .all(|window| window.remaining(300, clock) == 299)
        );
    }

    #[test]
    fn a_clock_that_strays_ahead_makes_a_busy_key_forget_nothing() {
        let mut windows = one_after_another();
        let clock = minutes(499);
        forget(&mut windows, clock.plus(Span::from_days(400)));
        assert_eq!(windows[499].frees_at(300, clock), Some(minutes(500)));
    }
}
