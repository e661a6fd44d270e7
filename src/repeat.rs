//! What an isolate remembers of refusals, so that a caller who will not wait costs the account's
//! object nothing.
//!
//! Nothing here is needed for a decision to be right: what is forgotten is asked again.

use std::collections::{HashMap, VecDeque};

use crate::{
    account::Refusal,
    headers::Standing,
    id::{AccountId, KeyNumber},
    key::SecretDigest,
    price::Terms,
    time::{Span, Timestamp},
};

/// At most so many keys are remembered.
pub const CALLERS_MAX: usize = 4_096;

/// Refusals of admissions by key, the latest of each. Refusals of self-service pages are another
/// matter and must not be put here.
#[derive(Debug, Default)]
pub struct RefusalMemory {
    told: HashMap<Caller, Told>,
    /// The callers in `told`, each once, in the order in which they came.
    order: VecDeque<Caller>,
}

/// Whose refusal it is. The secret's digest is part of it: a wrong secret under a right number
/// never makes the right one refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Caller {
    account: AccountId,
    key: u32,
    digest: [u8; 32],
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
    /// Remembers a refusal of a request on these terms, told at `clock`, as far as it may be
    /// repeated.
    pub fn remember(
        &mut self,
        account: &AccountId,
        key: KeyNumber,
        digest: SecretDigest,
        terms: &Terms,
        refusal: &Refusal,
        clock: Timestamp,
    ) {
        let Some(until) = refusal.repeatable_until(clock) else {
            return;
        };
        let caller = Caller::new(account, key, digest);
        let mut told = Told {
            refusal: refusal.clone(),
            pool: terms.pool.clone(),
            at: clock,
            until,
            repeated: 0,
        };
        if let Some(before) = self.told.get_mut(&caller) {
            told.repeated = before.repeated;
            *before = told;
            return;
        }
        if self.told.len() >= CALLERS_MAX {
            self.make_room(clock);
        }
        self.told.insert(caller.clone(), told);
        self.order.push_back(caller);
    }

    /// The refusal that a request on these terms gets without asking, as it reads at `clock`; it
    /// is counted as repeated.
    pub fn recall(
        &mut self,
        account: &AccountId,
        key: KeyNumber,
        digest: SecretDigest,
        terms: &Terms,
        clock: Timestamp,
    ) -> Option<Refusal> {
        let told = self.told.get_mut(&Caller::new(account, key, digest))?;
        let refusal = told.again(terms, clock)?;
        told.repeated = told.repeated.saturating_add(1);
        Some(refusal)
    }

    /// How often refusals of this key were repeated since this was last asked: for the next
    /// message to the account's object.
    pub fn take_repeated(
        &mut self,
        account: &AccountId,
        key: KeyNumber,
        digest: SecretDigest,
    ) -> u32 {
        self.told
            .get_mut(&Caller::new(account, key, digest))
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

impl Caller {
    fn new(account: &AccountId, key: KeyNumber, digest: SecretDigest) -> Self {
        Self {
            account: account.clone(),
            key: key.get(),
            digest: *digest.as_bytes(),
        }
    }
}

impl Told {
    /// Not before it was told either: a clock that is set back must not make it last.
    fn holds_at(&self, clock: Timestamp) -> bool {
        self.at <= clock && clock < self.until
    }

    /// The refusal as it reads for another request at `clock`, where it holds for that too.
    fn again(&self, terms: &Terms, clock: Timestamp) -> Option<Refusal> {
        if !self.holds_at(clock) {
            return None;
        }
        let elapsed = clock.since(self.at);
        let (pool, least) = (terms.pool.as_str(), terms.least);
        match &self.refusal {
            Refusal::UnknownKey => Some(Refusal::UnknownKey),
            Refusal::Suspended { reason, standing } => Some(Refusal::Suspended {
                reason: reason.clone(),
                standing: self.standing(*standing, pool, elapsed),
            }),
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
            } if short_pool == pool && least >= *required => Some(Refusal::InsufficientCredits {
                pool: short_pool.clone(),
                required: least,
                available: *available,
                renews_at: *renews_at,
                // Whether a dearer call can be paid then, only the object knows.
                affordable_then: *affordable_then && least == *required,
                standing: self.standing(*standing, pool, elapsed),
            }),
            Refusal::InsufficientCredits { .. } | Refusal::Cancelled => None,
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
        credits::Credits,
        headers::Window,
        price::{ChargeOn, OnUnknown},
        problem::{ViolatedPolicy, Violation},
    };

    const NOW: Timestamp = Timestamp::from_seconds(1_000);

    fn after(millis: i64) -> Timestamp {
        Timestamp::from_millis(NOW.as_millis() + millis)
    }

    fn credits(amount: u64) -> Credits {
        Credits::new(amount).unwrap()
    }

    fn terms(pool: &str, least: u64) -> Terms {
        Terms {
            pool: pool.to_owned(),
            least: credits(least),
            most: credits(600),
            charge_on: ChargeOn::default(),
            meter: None,
            job: None,
            on_unknown: OnUnknown::default(),
        }
    }

    /// Somebody who calls with a key.
    #[derive(Clone, Debug)]
    struct Holder {
        account: AccountId,
        key: KeyNumber,
        digest: SecretDigest,
    }

    impl Holder {
        fn of(account: &str, key: u32, secret: u8) -> Self {
            Self {
                account: AccountId::parse(account).unwrap(),
                key: KeyNumber::new(key),
                digest: SecretDigest::of(&[secret; 16]),
            }
        }

        fn is_told(&self, memory: &mut RefusalMemory, refusal: &Refusal, clock: Timestamp) {
            let terms = terms("credits", 15);
            memory.remember(&self.account, self.key, self.digest, &terms, refusal, clock);
        }

        fn asks(
            &self,
            memory: &mut RefusalMemory,
            (pool, least): (&str, u64),
            clock: Timestamp,
        ) -> Option<Refusal> {
            let terms = terms(pool, least);
            memory.recall(&self.account, self.key, self.digest, &terms, clock)
        }

        fn repeats(&self, memory: &mut RefusalMemory) -> u32 {
            memory.take_repeated(&self.account, self.key, self.digest)
        }
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
        }
    }

    fn told(refusal: &Refusal) -> (RefusalMemory, Holder) {
        let mut memory = RefusalMemory::default();
        let holder = Holder::of("acme", 1, 1);
        holder.is_told(&mut memory, refusal, NOW);
        (memory, holder)
    }

    #[test]
    fn a_refusal_is_repeated_until_its_time_and_not_at_it() {
        for (refusal, millis) in [
            (Refusal::UnknownKey, 5_000),
            (limited(ViolatedPolicy::Minute), 3_000),
            (limited(ViolatedPolicy::Daily), 3_000),
            (short(15, true), 1_000),
        ] {
            let (mut memory, holder) = told(&refusal);
            let mut at = |clock| holder.asks(&mut memory, ("credits", 15), clock).is_some();
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
            Refusal::Cancelled,
        ] {
            let (mut memory, holder) = told(&refusal);
            assert_eq!(
                holder.asks(&mut memory, ("credits", 15), NOW),
                None,
                "{refusal:?}"
            );
        }
    }

    #[test]
    fn missing_credits_refuse_only_calls_of_that_pool_that_cost_as_much() {
        let (mut memory, holder) = told(&short(15, true));
        for (pool, least, refused) in [
            ("credits", 15, true),
            ("credits", 16, true),
            ("credits", 14, false),
            ("credits", 0, false),
            ("lyrics", 15, false),
        ] {
            let recalled = holder.asks(&mut memory, (pool, least), NOW);
            assert_eq!(recalled.is_some(), refused, "{pool} {least}");
        }
    }

    #[test]
    fn a_dearer_call_is_told_its_own_price_and_promised_nothing() {
        let (mut memory, holder) = told(&short(15, true));
        let recalled = holder.asks(&mut memory, ("credits", 15), NOW);
        assert_eq!(recalled, Some(short(15, true)));
        let recalled = holder.asks(&mut memory, ("credits", 600), NOW);
        assert_eq!(recalled, Some(short(600, false)));
    }

    #[test]
    fn a_repeated_refusal_tells_the_time_that_is_left() {
        let (mut memory, holder) = told(&limited(ViolatedPolicy::Minute));
        let recalled = holder
            .asks(&mut memory, ("credits", 1), after(2_500))
            .unwrap();
        let standing = recalled.standing().unwrap();
        assert_eq!(standing.minute.unwrap().reset_seconds, 1);
        assert_eq!(standing.credits_remaining, Some(credits(4)));
    }

    #[test]
    fn the_credits_of_one_pool_are_not_told_for_another() {
        let (mut memory, holder) = told(&limited(ViolatedPolicy::Minute));
        let recalled = holder.asks(&mut memory, ("lyrics", 1), NOW).unwrap();
        assert_eq!(recalled.standing().unwrap().credits_remaining, None);
    }

    #[test]
    fn a_refusal_is_repeated_to_the_same_secret_alone() {
        let (mut memory, _) = told(&Refusal::UnknownKey);
        for other in [
            Holder::of("acme", 1, 2),
            Holder::of("acme", 2, 1),
            Holder::of("other", 1, 1),
        ] {
            assert_eq!(
                other.asks(&mut memory, ("credits", 0), NOW),
                None,
                "{other:?}"
            );
        }
    }

    #[test]
    fn repeats_are_counted_and_told_once() {
        let (mut memory, holder) = told(&limited(ViolatedPolicy::Minute));
        assert_eq!(holder.repeats(&mut memory), 0);
        for _ in 0..3 {
            holder.asks(&mut memory, ("credits", 1), NOW);
        }
        // It has run out: asked again, and refused again, before the count was taken.
        assert_eq!(holder.asks(&mut memory, ("credits", 1), after(3_000)), None);
        holder.is_told(&mut memory, &Refusal::UnknownKey, after(3_000));
        assert_eq!(holder.repeats(&mut memory), 3);
        assert_eq!(holder.repeats(&mut memory), 0);
        assert_eq!(Holder::of("acme", 2, 1).repeats(&mut memory), 0);
    }

    #[test]
    fn a_flood_of_keys_neither_grows_the_memory_nor_lasts_in_it() {
        let mut memory = RefusalMemory::default();
        let number = |index: usize| Holder::of("acme", u32::try_from(index).unwrap(), 1);
        for index in 0..3 * CALLERS_MAX {
            number(index).is_told(&mut memory, &Refusal::UnknownKey, NOW);
            assert!(memory.told.len() <= CALLERS_MAX);
            assert_eq!(memory.told.len(), memory.order.len());
        }
        let mut knows = |index| {
            number(index)
                .asks(&mut memory, ("credits", 0), NOW)
                .is_some()
        };
        assert!(!knows(2 * CALLERS_MAX - 1));
        assert!(knows(2 * CALLERS_MAX));
        assert!(knows(3 * CALLERS_MAX - 1));
        // Once they have run out, the next one sweeps them all away.
        number(0).is_told(&mut memory, &Refusal::UnknownKey, after(5_000));
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
                let holder = Holder::of("acme", key, 1);
                holder.is_told(&mut memory, &refusals[refusal], clock);
                holder.asks(&mut memory, ("credits", 1), clock);
                prop_assert_eq!(memory.told.len(), memory.order.len());
                prop_assert!(memory.order.iter().all(|caller| memory.told.contains_key(caller)));
            }
        }
    }
}
