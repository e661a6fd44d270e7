//! Who guesses at the operators' tokens: an address that sends too many wrong ones is not listened to for
//! a minute, so that what it tries then tells it nothing.
//!
//! An address from which a right token came lately is always listened to: whoever shares it with an
//! operator must not be able to lock the operator out. Tokens are of 32 characters at least, so that is
//! no way in either; what an isolate remembers is bounded.

use crate::{
    address::Address,
    bounded::Bounded,
    time::{Span, Timestamp},
};

/// So many wrong tokens are looked at from one address in a minute.
pub const GUESSES_PER_MINUTE: u32 = 10;

const MINUTE: Span = Span::from_seconds(60);
/// How long an address is known as an operator's.
const KNOWN: Span = Span::from_seconds(3_600);

/// What one isolate remembers.
#[derive(Debug, Default)]
pub struct Guesses {
    guesses: Bounded<Address, Guessed>,
    /// When the last right token came. Those who guess push none out.
    operators: Bounded<Address, Timestamp>,
}

/// What one address guessed in the minute that began at `since`.
#[derive(Clone, Copy, Debug)]
struct Guessed {
    since: Timestamp,
    wrong: u32,
}

impl Guesses {
    /// Until when this address is not listened to.
    #[must_use]
    pub fn refused_until(&self, address: Address, clock: Timestamp) -> Option<Timestamp> {
        let known = self.operators.get(&address);
        if known.is_some_and(|known| within(*known, KNOWN, clock)) {
            return None;
        }
        let guessed = self.guesses.get(&address)?;
        let is_over = guessed.wrong >= GUESSES_PER_MINUTE && within(guessed.since, MINUTE, clock);
        is_over.then(|| guessed.since.plus(MINUTE))
    }

    /// Counts a wrong token. The minute in which an address is not listened to begins with the last
    /// one that was.
    pub fn wrong(&mut self, address: Address, clock: Timestamp) {
        let mut guessed = match self.guesses.get(&address) {
            Some(guessed) if within(guessed.since, MINUTE, clock) => *guessed,
            _ => Guessed {
                since: clock,
                wrong: 0,
            },
        };
        guessed.wrong = guessed.wrong.saturating_add(1);
        if guessed.wrong >= GUESSES_PER_MINUTE {
            guessed.since = clock;
        }
        self.guesses.insert(address, guessed);
    }

    /// A right token came.
    pub fn right(&mut self, address: Address, clock: Timestamp) {
        self.operators.insert(address, clock);
    }
}

/// Whether `clock` lies less than `span` after `since`; before it, where a clock was set back, it does not.
fn within(since: Timestamp, span: Span, clock: Timestamp) -> bool {
    since <= clock && clock < since.plus(span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounded::MOST;

    const NOW: Timestamp = Timestamp::from_seconds(10_000);
    const HOME: Address = Address::new(1);
    const AWAY: Address = Address::new(2);

    fn after(seconds: i64) -> Timestamp {
        NOW.plus(Span::from_seconds(seconds))
    }

    fn guessed(times: u32, clock: Timestamp) -> Guesses {
        let mut guesses = Guesses::default();
        for _ in 0..times {
            guesses.wrong(AWAY, clock);
        }
        guesses
    }

    #[test]
    fn an_address_that_guesses_too_often_is_not_listened_to_for_a_minute() {
        assert_eq!(guessed(9, NOW).refused_until(AWAY, NOW), None);
        let mut guesses = guessed(9, NOW);
        guesses.wrong(AWAY, after(59));
        for (seconds, expected) in [
            (58, None),
            (59, Some(after(119))),
            (118, Some(after(119))),
            (119, None),
        ] {
            let refused = guesses.refused_until(AWAY, after(seconds));
            assert_eq!(refused, expected, "{seconds}");
        }
        assert_eq!(guesses.refused_until(HOME, after(60)), None, "nobody else");
        // Then it begins anew.
        guesses.wrong(AWAY, after(119));
        assert_eq!(guesses.refused_until(AWAY, after(119)), None);
    }

    #[test]
    fn few_wrong_tokens_a_minute_are_anyones_mistakes() {
        let mut guesses = Guesses::default();
        for minute in 0..20 {
            for _ in 1..GUESSES_PER_MINUTE {
                guesses.wrong(AWAY, after(60 * minute));
                assert_eq!(guesses.refused_until(AWAY, after(60 * minute)), None);
            }
        }
    }

    #[test]
    fn an_operator_is_not_locked_out_by_others_at_the_same_address() {
        let mut guesses = guessed(50, NOW);
        guesses.right(AWAY, after(60));
        for _ in 0..50 {
            guesses.wrong(AWAY, after(61));
        }
        assert_eq!(guesses.refused_until(AWAY, after(61)), None);
        assert_eq!(guesses.refused_until(AWAY, after(3_659)), None);
        guesses.wrong(AWAY, after(3_660));
        for _ in 0..GUESSES_PER_MINUTE {
            guesses.wrong(AWAY, after(3_661));
        }
        assert!(guesses.refused_until(AWAY, after(3_661)).is_some());
    }

    #[test]
    fn those_who_guess_grow_no_memory_and_push_out_no_operator() {
        let mut guesses = Guesses::default();
        guesses.right(HOME, NOW);
        for number in 0..u64::try_from(3 * MOST).unwrap() {
            guesses.wrong(Address::new(number), NOW);
        }
        for _ in 0..GUESSES_PER_MINUTE {
            guesses.wrong(HOME, NOW);
        }
        assert_eq!(
            (guesses.guesses.count(), guesses.operators.count()),
            (MOST, 1)
        );
        assert_eq!(guesses.refused_until(HOME, NOW), None);
    }
}
