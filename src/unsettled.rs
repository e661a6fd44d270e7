//! Ends of calls that an isolate has yet to tell. Where calls of an account come one after the other, an
//! end that frees nothing waits a moment and goes with the account's next message, which saves a message
//! and a commit of its own.
//!
//! Plain data, since nothing else may be shared between requests. Each request still answers for its own
//! call: an end stays listed until the object has confirmed it, and who finds it listed when its moment is
//! over tells it by itself. It may be told twice, which changes nothing.

use rustc_hash::FxHashMap;

use crate::{
    bounded::Bounded,
    call::Settle,
    id::{AccountId, CallNumber},
    time::{Span, Timestamp},
};

/// How long an end waits for a message to go with.
pub const PATIENCE: Span = Span::from_millis(500);
/// A timer that was set for something else will do, if it goes off in no less than this.
const SHORTEST_PATIENCE: Span = Span::from_millis(400);
/// An account is busy while its last two calls ended within this time: the next message will soon be here.
const BUSY: Span = Span::from_millis(1_000);
/// So many go with one message.
const TOLD_AT_ONCE: usize = 64;
/// So many wait in one isolate; what comes then waits for nothing.
const LISTED_MAX: usize = 10_000;

/// Whether an end may wait for a timer that goes off at `goes_off`, in place of one that is set `now`.
#[must_use]
pub fn is_patient(goes_off: Timestamp, now: Timestamp) -> bool {
    (SHORTEST_PATIENCE..=PATIENCE).contains(&goes_off.since(now))
}

/// The ends that wait in one isolate.
#[derive(Debug, Default)]
pub struct Unsettled {
    by_account: FxHashMap<AccountId, Vec<Ended>>,
    listed: usize,
    /// When the last two calls of an account ended, the later one first.
    lately: Bounded<AccountId, [Timestamp; 2]>,
}

#[derive(Debug)]
struct Ended {
    settle: Settle,
    /// It is on its way with a message.
    is_told: bool,
}

impl Unsettled {
    /// Lists the end of a call of `account`; `false` where it should not wait: no message is in sight, or
    /// there is no more room.
    pub fn list(&mut self, account: &AccountId, settle: Settle, clock: Timestamp) -> bool {
        let is_busy = match self.lately.get_mut(account) {
            Some(lately) => {
                let [last, before] = *lately;
                *lately = [clock, last];
                before.plus(BUSY) >= clock
            }
            None => {
                self.lately
                    .insert(account.clone(), [clock, Timestamp::EPOCH]);
                false
            }
        };
        if !is_busy || self.listed >= LISTED_MAX {
            return false;
        }
        self.listed = self.listed.saturating_add(1);
        let ended = Ended {
            settle,
            is_told: false,
        };
        self.by_account
            .entry(account.clone())
            .or_default()
            .push(ended);
        true
    }

    /// Those that go with a message to `account` now. [`Unsettled::heard`] says what became of them.
    pub fn take(&mut self, account: &AccountId) -> Vec<Settle> {
        let listed = self.by_account.get_mut(account).into_iter().flatten();
        let waiting = listed.filter(|ended| !ended.is_told).take(TOLD_AT_ONCE);
        waiting
            .map(|ended| {
                ended.is_told = true;
                ended.settle
            })
            .collect()
    }

    /// The object has taken the first `taken` of the ends that it was `told`; the others wait again.
    pub fn heard(&mut self, account: &AccountId, told: &[Settle], taken: u32) {
        for (at, settle) in (0..).zip(told) {
            if at < taken {
                self.remove(account, settle.call);
            } else if let Some(ended) = self.find(account, settle.call) {
                ended.is_told = false;
            }
        }
    }

    /// Takes a call's end off the list; `false` where it was confirmed before.
    pub fn remove(&mut self, account: &AccountId, call: CallNumber) -> bool {
        let Some(ends) = self.by_account.get_mut(account) else {
            return false;
        };
        let Some(at) = ends.iter().position(|ended| ended.settle.call == call) else {
            return false;
        };
        ends.swap_remove(at);
        if ends.is_empty() {
            self.by_account.remove(account);
        }
        self.listed = self.listed.saturating_sub(1);
        true
    }

    fn find(&mut self, account: &AccountId, call: CallNumber) -> Option<&mut Ended> {
        let ends = self.by_account.get_mut(account)?;
        ends.iter_mut().find(|ended| ended.settle.call == call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(id: &str) -> AccountId {
        AccountId::parse(id).unwrap()
    }

    fn settle(call: u64) -> Settle {
        Settle {
            call: CallNumber::new(call).unwrap(),
            operation: call,
            status: 200,
            response_time_ms: 1,
            answered: true,
            reported: None,
            body: None,
        }
    }

    const NOW: Timestamp = Timestamp::from_seconds(1_000);

    /// A list on which ends of these accounts wait.
    fn busy(accounts: &[&AccountId]) -> Unsettled {
        let mut unsettled = Unsettled::default();
        for account in accounts {
            assert!(!unsettled.list(account, settle(101), NOW));
            assert!(!unsettled.list(account, settle(102), NOW));
        }
        unsettled
    }

    #[test]
    fn an_end_stays_listed_until_the_object_has_confirmed_it() {
        let (one, other) = (account("acme"), account("globex"));
        let mut unsettled = busy(&[&one, &other]);
        for call in 1..=3 {
            assert!(unsettled.list(&one, settle(call), NOW));
        }
        assert_eq!(unsettled.take(&other), []);
        let told = unsettled.take(&one);
        assert_eq!(told, [settle(1), settle(2), settle(3)]);
        assert_eq!(unsettled.take(&one), [], "they are on their way");
        unsettled.heard(&one, &told, 2);
        assert_eq!(unsettled.take(&one), [settle(3)], "it was not taken");
        assert!(unsettled.remove(&one, settle(3).call), "nor confirmed");
        assert!(!unsettled.remove(&one, settle(1).call));
        assert_eq!(unsettled.listed, 0);
        assert!(unsettled.by_account.is_empty());
    }

    #[test]
    fn an_end_waits_only_where_calls_come_one_after_the_other() {
        let one = account("acme");
        let mut unsettled = Unsettled::default();
        let mut clock = NOW;
        let mut waits = |call: u64, millis: i64| {
            clock = clock.plus(Span::from_millis(millis));
            unsettled.list(&one, settle(call), clock)
        };
        assert!(!waits(1, 0));
        assert!(!waits(2, 400));
        assert!(waits(3, 400));
        assert!(waits(4, 600));
        assert!(!waits(5, 401), "1,001 ms since the last but one");
        assert!(!waits(6, 5_000));
    }

    #[test]
    fn an_end_waits_no_longer_than_half_a_second_whatever_its_timer_was_set_for() {
        let in_millis = |millis| NOW.plus(Span::from_millis(millis));
        for (goes_off, will_do) in [
            (in_millis(500), true),
            (in_millis(400), true),
            (in_millis(399), false),
            (in_millis(501), false),
            (in_millis(60_000), false),
            (NOW, false),
        ] {
            assert_eq!(is_patient(goes_off, NOW), will_do, "{goes_off:?}");
        }
        assert!(!is_patient(NOW, in_millis(1)), "it has gone off");
    }

    #[test]
    fn what_waits_and_what_goes_at_once_are_bounded() {
        let one = account("acme");
        let mut unsettled = busy(&[&one]);
        let room = (1_u64..).take_while(|call| unsettled.list(&one, settle(*call), NOW));
        assert_eq!(room.count(), LISTED_MAX);
        assert_eq!(unsettled.take(&one).len(), TOLD_AT_ONCE);
    }
}
