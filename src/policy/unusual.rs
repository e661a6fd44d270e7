//! `[unusual]`: which consumption is flagged, and what comes of that.

use crate::{
    credits::Credits,
    price::Quantity,
    time::Span,
    wire::{Decode, Encode},
};

/// `[unusual]`: at least one of the two is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Unusual {
    /// `spend_factor` and `spend_floor`: an account that spends far above its habit.
    #[n(0)]
    pub spending: Option<FarAbove>,
    /// `refused_share` and `refused_at_least`: a key that draws mostly refusals.
    #[n(1)]
    pub refusals: Option<MostlyRefused>,
    /// `restrict`: for how long what is flagged is refused; `None`: not at all.
    #[n(2)]
    pub restrict: Option<Span>,
}

/// How far above its habit an account has to spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct FarAbove {
    /// More than so many times the greatest day before.
    #[n(0)]
    pub factor: Quantity,
    /// And more than so many credits.
    #[n(1)]
    pub floor: Credits,
}

impl FarAbove {
    /// Whether a day on which `spent` credits were charged is unusual where `habit` were the most before.
    #[must_use]
    pub const fn is_met(&self, spent: u64, habit: u64) -> bool {
        let far = habit.saturating_mul(self.factor.as_thousandths());
        spent > self.floor.get() && spent.saturating_mul(1_000) > far
    }
}

/// How many of a key's requests have to be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct MostlyRefused {
    /// At least this share of a day's requests …
    #[n(0)]
    pub share: Quantity,
    /// … if there are at least so many.
    #[n(1)]
    pub at_least: u32,
}

impl MostlyRefused {
    /// Whether `refused` of the `requests` of a day are unusual.
    #[must_use]
    pub fn is_met(&self, refused: u32, requests: u32) -> bool {
        let least = u64::from(requests).saturating_mul(self.share.as_thousandths());
        requests >= self.at_least && u64::from(refused).saturating_mul(1_000) >= least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_is_above_the_floor_and_above_so_many_times_the_habit() {
        let far = FarAbove {
            factor: Quantity::parse("2.5").unwrap(),
            floor: Credits::new(100).unwrap(),
        };
        for (spent, habit, is_met) in [
            (100, 0, false),
            (101, 0, true),
            (101, 40, true),
            (101, 41, false),
            (125, 50, false),
            (126, 50, true),
            (Credits::MAX.get(), u64::MAX, false),
        ] {
            assert_eq!(far.is_met(spent, habit), is_met, "{spent} after {habit}");
        }
    }

    #[test]
    fn mostly_is_a_share_of_enough_requests() {
        let mostly = MostlyRefused {
            share: Quantity::parse("0.9").unwrap(),
            at_least: 10,
        };
        for (refused, requests, is_met) in [
            (9, 9, false),
            (9, 10, true),
            (8, 10, false),
            (899, 1_000, false),
            (900, 1_000, true),
            (u32::MAX, u32::MAX, true),
        ] {
            assert_eq!(
                mostly.is_met(refused, requests),
                is_met,
                "{refused} of {requests}"
            );
        }
    }
}
