//! What keys issued before Tollgate look like.
//!
//! A small part of regular expressions, anchored at both ends, in which no place is ever in doubt:
//! one step for each character, whoever sent it.

use crate::wire::{Decode, Encode};

/// `[imported_keys] pattern`: pieces that follow each other.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct KeyPattern {
    /// Never empty.
    #[n(0)]
    pub(super) pieces: Vec<Piece>,
}

/// Some of these characters in a row. Where there may be more or fewer, the piece that follows has
/// none of them: the first other character ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Piece {
    #[n(0)]
    pub(super) characters: Characters,
    /// At least one.
    #[n(1)]
    pub(super) least: u16,
    #[n(2)]
    pub(super) most: u16,
}

/// A set of ASCII characters, a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Characters {
    #[n(0)]
    low: u64,
    #[n(1)]
    high: u64,
}

/// How far into a pattern a text leads.
struct Walk {
    at_last_piece: bool,
    /// The piece that it ends in may end here.
    may_end: bool,
}

impl KeyPattern {
    /// Whether `text` is such a key, from its first character to its last.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.walk(text)
            .is_some_and(|walk| walk.at_last_piece && walk.may_end)
    }

    /// Whether some such key begins with `text`.
    #[must_use]
    pub fn may_begin_with(&self, text: &str) -> bool {
        self.walk(text).is_some()
    }

    /// How many of the shortest such keys there are, as far as that can be counted.
    pub(super) fn shortest_keys(&self) -> u128 {
        self.pieces.iter().fold(1, |keys: u128, piece| {
            let each = u128::from(piece.characters.count()).saturating_pow(piece.least.into());
            keys.saturating_mul(each)
        })
    }

    fn walk(&self, text: &str) -> Option<Walk> {
        let mut pieces = self.pieces.iter();
        let mut piece = pieces.next()?;
        let mut count = 0_u16;
        for byte in text.bytes() {
            #[cfg(test)]
            crate::steps::count();
            if count == piece.most || !piece.characters.contains(byte) {
                let next = pieces.next().filter(|_| count >= piece.least)?;
                if !next.characters.contains(byte) {
                    return None;
                }
                piece = next;
                count = 0;
            }
            count = count.saturating_add(1);
        }
        Some(Walk {
            at_last_piece: pieces.next().is_none(),
            may_end: count >= piece.least,
        })
    }
}

impl Characters {
    pub(super) const fn insert(&mut self, byte: u8) {
        if byte < 64 {
            self.low |= 1 << byte;
        } else if byte < 128 {
            self.high |= 1 << (byte & 63);
        }
    }

    pub(super) const fn contains(self, byte: u8) -> bool {
        let bits = if byte < 64 { self.low } else { self.high };
        byte < 128 && bits & (1 << (byte & 63)) != 0
    }

    pub(super) const fn overlaps(self, other: Self) -> bool {
        self.low & other.low != 0 || self.high & other.high != 0
    }

    pub(super) const fn is_empty(self) -> bool {
        self.low == 0 && self.high == 0
    }

    fn count(self) -> u32 {
        self.low.count_ones().saturating_add(self.high.count_ones())
    }
}
