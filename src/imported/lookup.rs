//! One of the lookup objects: secrets by digest, each with the key that it is.

use super::{Reply, Request};
use crate::{id::KeyId, key::SecretDigest};

/// A lookup object's durable storage.
pub trait Store {
    /// What goes wrong with it.
    type Error: std::fmt::Display;

    /// What is known of the secret of this digest. Never writes.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn find(&self, digest: &SecretDigest) -> Result<Option<Registered>, Self::Error>;

    /// Writes one row.
    ///
    /// # Errors
    /// Nothing was written.
    fn put(&mut self, digest: &SecretDigest, registered: &Registered) -> Result<(), Self::Error>;
}

/// What is known of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The key that has it, or had it last.
    pub key: KeyId,
    /// That key was revoked: another account may have the secret.
    pub withdrawn: bool,
}

impl Registered {
    /// Whether another key may have the secret now: one of another account when this one was
    /// revoked, a later one of the same account when it asks, since it knows which of its own it has.
    fn gives_way_to(&self, key: &KeyId) -> bool {
        if self.key.account == key.account {
            self.key.number < key.number
        } else {
            self.withdrawn
        }
    }
}

/// One lookup object.
#[derive(Debug)]
pub struct Lookup<S> {
    store: S,
}

impl<S: Store> Lookup<S> {
    /// The object over this storage.
    pub const fn new(store: S) -> Self {
        Self { store }
    }

    /// The storage.
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// The storage.
    pub const fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// Carries out one request.
    pub fn handle(&mut self, request: Request) -> Reply {
        self.carry_out(request)
            .unwrap_or_else(|error| Reply::Unavailable {
                detail: error.to_string(),
            })
    }

    fn carry_out(&mut self, request: Request) -> Result<Reply, S::Error> {
        let known = self.store.find(request.digest())?;
        match request {
            // A revoked key is found too: its account knows best what to say.
            Request::Find(_) => Ok(Reply::Found(known.map(|known| known.key))),
            Request::Register { digest, key } => {
                match known {
                    // Also where it was withdrawn since: a key is revoked for good, and this is a
                    // late copy.
                    Some(known) if known.key == key => {}
                    Some(known) if !known.gives_way_to(&key) => {
                        return Ok(Reply::Taken { key, by: known.key });
                    }
                    Some(_) | None => {
                        let registered = Registered {
                            key: key.clone(),
                            withdrawn: false,
                        };
                        self.store.put(&digest, &registered)?;
                    }
                }
                Ok(Reply::Registered(key))
            }
            Request::Withdraw { digest, key } => {
                if known.is_some_and(|known| known.key == key && !known.withdrawn) {
                    let registered = Registered {
                        key: key.clone(),
                        withdrawn: true,
                    };
                    self.store.put(&digest, &registered)?;
                }
                Ok(Reply::Withdrawn(key))
            }
        }
    }
}
