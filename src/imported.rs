//! Keys that were issued before Tollgate: whose they are.
//!
//! Such a key says nothing of itself, so one of 64 objects is asked, which know the accounts by the
//! SHA-256 of keys. They are told by the account's object, and give a key to one account at a time;
//! whether it still stands, the account alone says. So what they or an isolate remember may be old, and
//! lets nobody in.

mod lookup;
mod memory;
mod protocol;

pub use self::{
    lookup::{Lookup, Registered, Store},
    memory::{ImportedMemory, MISSES_PER_MINUTE, Recalled},
    protocol::{Answer, Reply, Request},
};
use crate::key::SecretDigest;

/// How many lookup objects there are, for good: an object's name tells which keys it knows.
pub const LOOKUPS: u8 = 64;

/// The name of the object that knows the key of this digest: its first 6 bits, as a number.
#[must_use]
pub fn lookup_of(digest: &SecretDigest) -> String {
    let [first, ..] = digest.as_bytes();
    // The highest 6 bits of 8 make numbers from 0 to LOOKUPS - 1.
    (first >> 2).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_looked_up_where_it_always_was() {
        for (first, name) in [(0, "0"), (3, "0"), (4, "1"), (0x7f, "31"), (0xff, "63")] {
            let mut digest = [0x55; 32];
            digest[0] = first;
            assert_eq!(lookup_of(&SecretDigest::from_bytes(digest)), name);
        }
    }
}
