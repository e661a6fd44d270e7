//! What the Worker and account objects say to a lookup object: written and read as in
//! `src/protocol.rs`, with numbered places that are only added to.

use crate::{
    id::KeyId,
    key::SecretDigest,
    wire::{Decode, Encode},
};

/// What a lookup object is asked. Everything is safe to repeat.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// Whose secret is this?
    #[n(0)]
    Find(#[n(0)] SecretDigest),
    /// This secret is to be this key's. From its account's object, until it is answered.
    #[n(1)]
    Register {
        /// SHA-256 of the secret.
        #[n(0)]
        digest: SecretDigest,
        /// The key.
        #[n(1)]
        key: KeyId,
    },
    /// This secret's key was revoked: another account may have it. From its account's object, until it
    /// is answered.
    #[n(2)]
    Withdraw {
        /// SHA-256 of the secret.
        #[n(0)]
        digest: SecretDigest,
        /// The key.
        #[n(1)]
        key: KeyId,
    },
}

impl Request {
    /// The secret that it is about.
    #[must_use]
    pub const fn digest(&self) -> &SecretDigest {
        match self {
            Self::Find(digest) | Self::Register { digest, .. } | Self::Withdraw { digest, .. } => {
                digest
            }
        }
    }
}

/// A lookup object's answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Answer {
    /// What it says.
    #[n(0)]
    pub reply: Reply,
    /// Rows written for it.
    #[n(1)]
    pub rows_written: u32,
}

/// What a lookup object says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// Whose secret it is, if anybody's.
    #[n(0)]
    Found(#[n(0)] Option<KeyId>),
    /// The secret is this key's.
    #[n(1)]
    Registered(#[n(0)] KeyId),
    /// It is not this key's, but another's.
    #[n(2)]
    Taken {
        /// The key that asked.
        #[n(0)]
        key: KeyId,
        /// The key that has it.
        #[n(1)]
        by: KeyId,
    },
    /// It is known that this key was revoked.
    #[n(3)]
    Withdrawn(#[n(0)] KeyId),
    /// It cannot answer now.
    #[n(4)]
    Unavailable {
        /// For the log.
        #[n(0)]
        detail: String,
    },
}
