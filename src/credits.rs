//! Credits: whole numbers that only add up or say that they do not.

use std::fmt;

use crate::wire::{Decode, Encode};

/// An amount of credits, 0 to 2^53 − 1, so that JSON and JavaScript carry it exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode)]
#[cbor(transparent)]
pub struct Credits(#[n(0)] u64);

impl Credits {
    /// None.
    pub const ZERO: Self = Self(0);
    /// The largest amount: 2^53 − 1 (RFC 8259 §6: the integers on which JSON readers agree).
    pub const MAX: Self = Self((1 << 53) - 1);

    /// `amount` credits, or `None` above [`Credits::MAX`].
    #[must_use]
    pub const fn new(amount: u64) -> Option<Self> {
        if amount <= Self::MAX.0 {
            Some(Self(amount))
        } else {
            None
        }
    }

    /// The amount as a number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum, or `None` above [`Credits::MAX`].
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).and_then(Self::new)
    }

    /// The difference, or `None` below zero.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// The sum, or [`Credits::MAX`]: for figures that are shown, never for a balance.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        self.checked_add(other).unwrap_or(Self::MAX)
    }

    /// The difference, or zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `self` times `count`, or `None` above [`Credits::MAX`].
    #[must_use]
    pub fn checked_mul(self, count: u64) -> Option<Self> {
        self.0.checked_mul(count).and_then(Self::new)
    }
}

impl fmt::Display for Credits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl serde::Serialize for Credits {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'b, C> Decode<'b, C> for Credits {
    fn decode(
        decoder: &mut minicbor::Decoder<'b>,
        _: &mut C,
    ) -> Result<Self, minicbor::decode::Error> {
        Self::new(decoder.u64()?)
            .ok_or_else(|| minicbor::decode::Error::message("credits above 2^53 - 1"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_beyond_what_json_carries_are_refused() {
        let one = Credits::new(1).unwrap();
        assert_eq!(Credits::MAX.get(), 9_007_199_254_740_991);
        assert_eq!(Credits::new(9_007_199_254_740_992), None);
        assert_eq!(Credits::MAX.checked_add(one), None);
        assert_eq!(Credits::ZERO.checked_sub(one), None);
        assert_eq!(Credits::MAX.checked_mul(2), None);
        assert_eq!(Credits::MAX.checked_mul(u64::MAX), None);
        assert_eq!(Credits::ZERO.checked_add(Credits::MAX), Some(Credits::MAX));
    }

    #[test]
    fn a_stored_amount_out_of_range_is_not_read() {
        let bytes = minicbor::to_vec(u64::MAX).unwrap();
        assert!(minicbor::decode::<Credits>(&bytes).is_err());
    }
}
