//! What an isolate remembers of refusals, so that a caller who will not wait costs the account's
//! object nothing.
//!
//! Nothing here is needed for a decision to be right: what is forgotten is asked again.

use std::collections::{HashMap, VecDeque};

use crate::{
    account::Refusal,
    credits::Credits,
    headers::Standing,
    id::AccountId,
    key::PresentedKey,
    time::{Span, Timestamp},
};

/// At most so many keys are remembered.
pub const CALLERS_MAX: usize = 4_096;

/// Whose refusal it is. The secret's digest is part of it: a wrong secret under a right number
/// never makes the right one refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    account: AccountId,
    key: u32,
    digest: [u8; 32],
}

impl Caller {
    /// The holder of a key that was verified.
    #[must_use]
    pub fn of(key: &PresentedKey) -> Self {
        Self {
            account: key.account.clone(),
            key: key.key.get(),
            digest: *key.digest.as_bytes(),
        }
    }
}

/// What a request asks for, as far as a refusal depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its route's template.
    pub endpoint: &'a str,
    /// The pool that pays.
    pub pool: &'a str,
    /// What it must be able to hold.
    pub least: Credits,
}

/// Refusals of admissions by key, the latest of each. Refusals of self-service pages are another
/// matter and must not be put here.
#[derive(Debug, Default)]
pub struct RefusalMemory {
    told: HashMap<Caller, Told>,
    /// The callers in `told`, each once, in the order in which they came.
    order: VecDeque<Caller>,
}

#[derive(Debug)]
struct Told {
    refusal: Refusal,
    /// The pool of the request that was refused.
    pool: String,
    at: Timestamp,
    until: Timestamp,
    repeated: u32,
}

impl RefusalMemory {
    /// Remembers a refusal of a request that is paid from `pool`, told at `clock`, as far as it
    /// may be repeated.
    pub fn remember(&mut self, caller: &Caller, pool: &str, refusal: &Refusal, clock: Timestamp) {
        let Some(until) = refusal.repeatable_until(clock) else {
            return;
        };
        let mut told = Told {
            refusal: refusal.clone(),
            pool: pool.to_owned(),
            at: clock,
            until,
            repeated: 0,
        };
        if let Some(before) = self.told.get_mut(caller) {
            told.repeated = before.repeated;
            *before = told;
            return;
        }
        if self.told.len() >= CALLERS_MAX {
            self.make_room(clock);
        }
        self.told.insert(caller.clone(), told);
        self.order.push_back(caller.clone());
    }

    /// The refusal that a request of `caller` gets without asking, as it reads at `clock`; it is
    /// counted as repeated.
    pub fn recall(
        &mut self,
        caller: &Caller,
        asked: Asked<'_>,
        clock: Timestamp,
    ) -> Option<Refusal> {
        let told = self.told.get_mut(caller)?;
        let refusal = told.again(asked, clock)?;
        // A suspension is no figure of the key's: see `account/unusual.rs`.
        if !matches!(refusal, Refusal::Suspended { .. }) {
            told.repeated = told.repeated.saturating_add(1);
        }
        Some(refusal)
    }

    /// How often refusals of `caller` were repeated since this was last asked: for the next
    /// message to the account's object.
    pub fn take_repeated(&mut self, caller: &Caller) -> u32 {
        self.told
            .get_mut(caller)
            .map_or(0, |told| std::mem::take(&mut told.repeated))
    }

    /// Forgets the caller that came first, and those after it whose refusals have run out: all
    /// of these run out within seconds, so the first to come are the first to go. One step for
    /// each caller that ever came.
    fn make_room(&mut self, clock: Timestamp) {
        while let Some(oldest) = self.order.pop_front() {
            self.told.remove(&oldest);
            let next = self.order.front().and_then(|next| self.told.get(next));
            if next.is_none_or(|next| next.holds_at(clock)) {
                break;
            }
        }
    }
}

impl Told {
    /// Not before it was told either: a clock that is set back must not make it last.
    fn holds_at(&self, clock: Timestamp) -> bool {
        self.at <= clock && clock < self.until
    }

    /// The refusal as it reads for another request at `clock`, where it holds for that too.
    fn again(&self, asked: Asked<'_>, clock: Timestamp) -> Option<Refusal> {
        if !self.holds_at(clock) {
            return None;
        }
        let Asked { pool, least, .. } = asked;
        let elapsed = clock.since(self.at);
        match &self.refusal {
            Refusal::UnknownKey => Some(Refusal::UnknownKey),
            Refusal::Suspended {
                reason,
                standing,
                restricted,
            } => Some(Refusal::Suspended {
                reason: reason.clone(),
                restricted: *restricted,
                standing: self.standing(*standing, pool, elapsed),
            }),
            Refusal::OutOfScope {
                method,
                endpoint,
                standing,
            } if asked.method == method && asked.endpoint == endpoint => {
                Some(Refusal::OutOfScope {
                    method: method.clone(),
                    endpoint: endpoint.clone(),
                    standing: self.standing(*standing, pool, elapsed),
                })
            }
            Refusal::RateLimited {
                violated,
                retry_at,
                standing,
            } => Some(Refusal::RateLimited {
                violated: violated.clone(),
                retry_at: *retry_at,
                standing: self.standing(*standing, pool, elapsed),
            }),
            Refusal::InsufficientCredits {
                pool: short_pool,
                required,
                available,
                renews_at,
                affordable_then,
                standing,
                budget,
            } if short_pool == pool && least >= *required => Some(Refusal::InsufficientCredits {
                pool: short_pool.clone(),
                required: least,
                available: *available,
                renews_at: *renews_at,
                // Whether a dearer call can be paid then, only the object knows.
                affordable_then: *affordable_then && least == *required,
                standing: self.standing(*standing, pool, elapsed),
                budget: *budget,
            }),
            Refusal::OutOfScope { .. }
            | Refusal::FirstRuns { .. }
            | Refusal::OtherContent { .. }
            | Refusal::InsufficientCredits { .. }
            | Refusal::Cancelled => None,
        }
    }

    /// What another pool can spend was not told.
    fn standing(&self, standing: Standing, pool: &str, elapsed: Span) -> Standing {
        Standing {
            credits_remaining: standing
                .credits_remaining
                .filter(|_| self.pool.as_str() == pool),
            ..standing.later(elapsed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    use crate::{
        headers::Window,
        id::KeyNumber,
        key::SecretDigest,
        problem::{ViolatedPolicy, Violation},
    };

    const NOW: Timestamp = Timestamp::from_seconds(1_000);

    fn after(millis: i64) -> Timestamp {
        Timestamp::from_millis(NOW.as_millis() + millis)
    }

    fn credits(amount: u64) -> Credits {
        Credits::new(amount).unwrap()
    }

    fn caller(account: &str, key: u32, secret: u8) -> Caller {
        Caller::of(&PresentedKey {
            account: AccountId::parse(account).unwrap(),
            key: KeyNumber::new(key),
            digest: SecretDigest::of(&[secret; 16]),
        })
    }

    fn standing() -> Standing {
        Standing {
            minute: Some(Window {
                limit: 5,
                remaining: 0,
                reset_seconds: 3,
            }),
            daily: None,
            credits_remaining: Some(credits(4)),
        }
    }

    fn limited(policy: ViolatedPolicy) -> Refusal {
        Refusal::RateLimited {
            violated: vec![Violation { policy, limit: 5 }],
            retry_at: after(3_000),
            standing: standing(),
        }
    }

    fn short(required: u64, affordable_then: bool) -> Refusal {
        Refusal::InsufficientCredits {
            pool: "credits".to_owned(),
            required: credits(required),
            available: credits(4),
            renews_at: Some(after(90_000)),
            affordable_then,
            standing: standing(),
            budget: None,
        }
    }

    const fn asked(pool: &str, least: Credits) -> Asked<'_> {
        Asked {
            method: "POST",
            endpoint: "/search",
            pool,
            least,
        }
    }

    fn told(refusal: &Refusal) -> (RefusalMemory, Caller) {
        let mut memory = RefusalMemory::default();
        let caller = caller("acme", 1, 1);
        memory.remember(&caller, "credits", refusal, NOW);
        (memory, caller)
    }

    #[test]
    fn a_refusal_is_repeated_until_its_time_and_not_at_it() {
        for (refusal, millis) in [
            (Refusal::UnknownKey, 5_000),
            (limited(ViolatedPolicy::Minute), 3_000),
            (limited(ViolatedPolicy::Daily), 3_000),
            (short(15, true), 1_000),
        ] {
            let (mut memory, caller) = told(&refusal);
            let mut at = |clock| {
                memory
                    .recall(&caller, asked("credits", credits(15)), clock)
                    .is_some()
            };
            assert!(at(NOW), "{refusal:?}");
            assert!(at(after(millis - 1)), "{refusal:?}");
            assert!(!at(after(millis)), "{refusal:?}");
            assert!(!at(after(-1)), "a clock set back: {refusal:?}");
        }
    }

    #[test]
    fn what_an_answered_call_could_end_is_never_repeated() {
        for refusal in [
            limited(ViolatedPolicy::InFlight),
            limited(ViolatedPolicy::Jobs),
            limited(ViolatedPolicy::Account),
            Refusal::FirstRuns {
                standing: standing(),
            },
            Refusal::Cancelled,
        ] {
            let (mut memory, caller) = told(&refusal);
            assert_eq!(
                memory.recall(&caller, asked("credits", credits(15)), NOW),
                None,
                "{refusal:?}"
            );
        }
    }

    #[test]
    fn missing_credits_refuse_only_calls_of_that_pool_that_cost_as_much() {
        let (mut memory, caller) = told(&short(15, true));
        for (pool, least, refused) in [
            ("credits", 15, true),
            ("credits", 16, true),
            ("credits", 14, false),
            ("credits", 0, false),
            ("lyrics", 15, false),
        ] {
            let recalled = memory.recall(&caller, asked(pool, credits(least)), NOW);
            assert_eq!(recalled.is_some(), refused, "{pool} {least}");
        }
    }

    #[test]
    fn what_is_out_of_scope_is_refused_again_and_nothing_else() {
        let (mut memory, caller) = told(&Refusal::OutOfScope {
            method: "POST".to_owned(),
            endpoint: "/search".to_owned(),
            standing: standing(),
        });
        for (method, endpoint, refused) in [
            ("POST", "/search", true),
            ("GET", "/search", false),
            ("POST", "/tracks", false),
        ] {
            let asked = Asked {
                method,
                endpoint,
                ..asked("credits", credits(1))
            };
            let recalled = memory.recall(&caller, asked, NOW);
            assert_eq!(recalled.is_some(), refused, "{method} {endpoint}");
        }
    }

    #[test]
    fn a_used_up_budget_is_refused_again_as_such() {
        let mut refusal = short(15, true);
        if let Refusal::InsufficientCredits { budget, .. } = &mut refusal {
            *budget = Some(credits(100));
        }
        let (mut memory, caller) = told(&refusal);
        let recalled = memory.recall(&caller, asked("credits", credits(15)), NOW);
        assert_eq!(recalled, Some(refusal));
        let cheaper = memory.recall(&caller, asked("credits", credits(4)), NOW);
        assert_eq!(cheaper, None);
    }

    #[test]
    fn a_dearer_call_is_told_its_own_price_and_promised_nothing() {
        let (mut memory, caller) = told(&short(15, true));
        let recalled = memory.recall(&caller, asked("credits", credits(15)), NOW);
        assert_eq!(recalled, Some(short(15, true)));
        let recalled = memory.recall(&caller, asked("credits", credits(600)), NOW);
        assert_eq!(recalled, Some(short(600, false)));
    }

    #[test]
    fn a_repeated_refusal_tells_the_time_that_is_left() {
        let (mut memory, caller) = told(&limited(ViolatedPolicy::Minute));
        let recalled = memory
            .recall(&caller, asked("credits", credits(1)), after(2_500))
            .unwrap();
        let standing = recalled.standing().unwrap();
        assert_eq!(standing.minute.unwrap().reset_seconds, 1);
        assert_eq!(standing.credits_remaining, Some(credits(4)));
    }

    #[test]
    fn the_credits_of_one_pool_are_not_told_for_another() {
        let (mut memory, caller) = told(&limited(ViolatedPolicy::Minute));
        let recalled = memory
            .recall(&caller, asked("lyrics", credits(1)), NOW)
            .unwrap();
        assert_eq!(recalled.standing().unwrap().credits_remaining, None);
    }

    #[test]
    fn a_refusal_is_repeated_to_the_same_secret_alone() {
        let (mut memory, _) = told(&Refusal::UnknownKey);
        for other in [
            caller("acme", 1, 2),
            caller("acme", 2, 1),
            caller("other", 1, 1),
        ] {
            assert_eq!(
                memory.recall(&other, asked("credits", Credits::ZERO), NOW),
                None,
                "{other:?}"
            );
        }
    }

    #[test]
    fn repeats_are_counted_and_told_once() {
        let (mut memory, caller) = told(&limited(ViolatedPolicy::Minute));
        assert_eq!(memory.take_repeated(&caller), 0);
        for _ in 0..3 {
            memory.recall(&caller, asked("credits", credits(1)), NOW);
        }
        // It has run out: asked again, and refused again, before the count was taken.
        assert_eq!(
            memory.recall(&caller, asked("credits", credits(1)), after(3_000)),
            None
        );
        memory.remember(&caller, "credits", &Refusal::UnknownKey, after(3_000));
        assert_eq!(memory.take_repeated(&caller), 3);
        assert_eq!(memory.take_repeated(&caller), 0);
        assert_eq!(memory.take_repeated(&self::caller("acme", 2, 1)), 0);
    }

    #[test]
    fn a_suspension_is_repeated_and_not_counted() {
        let suspended = Refusal::Suspended {
            reason: None,
            standing: standing(),
            restricted: None,
        };
        let (mut memory, caller) = told(&suspended);
        let again = memory.recall(&caller, asked("credits", credits(1)), NOW);
        assert_eq!(again, Some(suspended));
        assert_eq!(memory.take_repeated(&caller), 0);
    }

    #[test]
    fn a_flood_of_keys_neither_grows_the_memory_nor_lasts_in_it() {
        let mut memory = RefusalMemory::default();
        let number = |index: usize| caller("acme", u32::try_from(index).unwrap(), 1);
        for index in 0..3 * CALLERS_MAX {
            memory.remember(&number(index), "credits", &Refusal::UnknownKey, NOW);
            assert!(memory.told.len() <= CALLERS_MAX);
            assert_eq!(memory.told.len(), memory.order.len());
        }
        let mut knows = |index| {
            memory
                .recall(&number(index), asked("credits", Credits::ZERO), NOW)
                .is_some()
        };
        assert!(!knows(2 * CALLERS_MAX - 1));
        assert!(knows(2 * CALLERS_MAX));
        assert!(knows(3 * CALLERS_MAX - 1));
        // Once they have run out, the next one sweeps them all away.
        memory.remember(&number(0), "credits", &Refusal::UnknownKey, after(5_000));
        assert_eq!((memory.told.len(), memory.order.len()), (1, 1));
    }

    proptest! {
        #[test]
        fn callers_and_their_order_stay_one_list(
            steps in prop::collection::vec((0_u32..8, 0_i64..2_000, 0_usize..3), 0..200),
        ) {
            let refusals = [
                Refusal::UnknownKey,
                short(1, false),
                limited(ViolatedPolicy::InFlight),
            ];
            let mut memory = RefusalMemory::default();
            let mut clock = NOW;
            for (key, millis, refusal) in steps {
                clock = clock.plus(Span::from_millis(millis));
                let caller = caller("acme", key, 1);
                memory.remember(&caller, "credits", &refusals[refusal], clock);
                memory.recall(&caller, asked("credits", credits(1)), clock);
                prop_assert_eq!(memory.told.len(), memory.order.len());
                prop_assert!(memory.order.iter().all(|caller| memory.told.contains_key(caller)));
            }
        }
    }
}
