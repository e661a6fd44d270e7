//! Where a page of accounts ended, as the next one is asked for.
//!
//! The text is for no one to read: the place, and a digest of it and of what was searched for. A
//! cursor that was changed, or is taken to another search, is none. There is nothing to gain by
//! making one up: all it says is where to go on.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use super::Filter;

const CHECK_BYTES: usize = 6;

/// The last account looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct Position {
    /// The name that it was found by; empty where accounts are not found by name.
    #[n(0)]
    pub text: String,
    /// Its number.
    #[n(1)]
    pub number: u64,
}

impl Position {
    /// The cursor that goes on from here.
    #[must_use]
    pub fn cursor(&self, filter: &Filter) -> String {
        // Encoding into memory cannot fail.
        let mut bytes = minicbor::to_vec(self).unwrap_or_default();
        bytes.extend(check(&bytes, filter));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a cursor of the same search; `None` for anything else.
    #[must_use]
    pub fn read(cursor: &str, filter: &Filter) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (place, found) = bytes.split_last_chunk::<CHECK_BYTES>()?;
        if check(place, filter) != *found {
            return None;
        }
        minicbor::decode(place).ok()
    }
}

fn check(place: &[u8], filter: &Filter) -> [u8; CHECK_BYTES] {
    let digest = Sha256::new()
        .chain_update(minicbor::to_vec(filter).unwrap_or_default())
        .chain_update(place)
        .finalize();
    let mut check = [0; CHECK_BYTES];
    for (to, from) in check.iter_mut().zip(digest) {
        *to = from;
    }
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_that_was_tampered_with_is_none() {
        let filter = Filter {
            plan: Some("free".to_owned()),
            ..Filter::default()
        };
        let position = Position {
            text: "free".to_owned(),
            number: (1 << 53) - 7,
        };
        let cursor = position.cursor(&filter);
        assert_eq!(Position::read(&cursor, &filter), Some(position));
        assert_eq!(Position::read(&cursor, &Filter::default()), None);
        for at in 0..cursor.len() {
            for other in ["A", "z", "_", "", "AA", "=", "é"] {
                let mut changed = cursor.clone();
                changed.replace_range(at..=at, other);
                if changed != cursor {
                    assert_eq!(Position::read(&changed, &filter), None, "{changed}");
                }
            }
        }
        for made_up in ["", "AAAA", "AAAAAAAAAAAA", "next"] {
            assert_eq!(Position::read(made_up, &filter), None, "{made_up}");
        }
    }
}
