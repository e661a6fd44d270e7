//! What account objects and the Worker say to the directory: written and read as in
//! `src/protocol.rs`, with numbered places that are only added to.

use std::collections::BTreeSet;

use crate::wire::{Decode, Encode};

use crate::{
    account::{Fingerprint, Listed},
    id::{AccountId, ExternalId},
    key::SecretId,
    policy::Plan,
    problem::Code,
    protocol::Complaint,
    status::Hours,
    time::Timestamp,
};

/// What the directory is asked.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// May this account be opened? From its object, until it is answered.
    #[n(0)]
    Claim {
        /// The account as it will be.
        #[n(0)]
        report: Report,
        /// The request that opens it.
        #[n(1)]
        opened_by: Fingerprint,
    },
    /// What an account is now. From its object, until it is acknowledged.
    #[n(1)]
    Tell(#[n(0)] Report),
    /// `GET /accounts`.
    #[n(2)]
    List(#[n(0)] Search),
    /// The plans in force.
    #[n(3)]
    Plans,
    /// What an account has counted in hours that are over. From its object, until it is acknowledged.
    #[n(20)]
    Count {
        /// The account.
        #[n(0)]
        account: AccountId,
        /// Counts its reports: until one is acknowledged, the next has the same number and tells at
        /// least as much.
        #[n(1)]
        number: u64,
        /// What it has counted since the last report that was acknowledged.
        #[n(2)]
        hours: Hours,
    },
    /// `GET /status`: the hours that begin in this period.
    #[n(21)]
    Status {
        /// From then on.
        #[n(0)]
        from: Timestamp,
        /// Until before then.
        #[n(1)]
        to: Timestamp,
    },
    /// The account was closed and is erased. From its object, until it is acknowledged.
    #[n(50)]
    Erased {
        /// Its id.
        #[n(0)]
        id: AccountId,
        /// Counted as in [`Report`].
        #[n(1)]
        version: u64,
    },
}

/// What an account's object tells of the account.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Report {
    /// Counts the account's changes: what is older than what was heard is passed over.
    #[n(0)]
    pub version: u64,
    /// The account.
    #[n(1)]
    pub account: Listed,
    /// Its plan: the policy may not have it any more.
    #[n(2)]
    pub plan: Plan,
    /// What its standing keys were signed under.
    #[n(3)]
    pub secrets: BTreeSet<SecretId>,
}

/// Which accounts are listed, and from where on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Search {
    /// How many, 1 to 500.
    #[n(0)]
    pub limit: u32,
    /// Which.
    #[n(1)]
    pub filter: Filter,
    /// Where an earlier page ended.
    #[n(2)]
    pub after: Option<Position>,
    /// With `previous_keys`: the secrets that are meant.
    #[n(3)]
    pub secrets: BTreeSet<SecretId>,
}

/// What listed accounts have in common; `None` is anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Filter {
    /// How a word of the id, external id, e-mail address or name begins, as
    /// [`super::query_text`] reads it.
    #[n(0)]
    pub query: Option<String>,
    /// The external id.
    #[n(1)]
    pub external_id: Option<ExternalId>,
    /// The plan.
    #[n(2)]
    pub plan: Option<String>,
    /// The status's name.
    #[n(3)]
    pub status: Option<String>,
    /// Whether it has to have a standing key that was signed under an older KEY_SECRET.
    #[n(4)]
    pub previous_keys: bool,
    /// Whether it has to be flagged.
    #[cbor(n(9), default)]
    pub flagged: bool,
}

/// Where a page ended: the last account looked at.
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

/// A page of accounts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Page {
    /// The accounts.
    #[n(0)]
    pub accounts: Vec<Listed>,
    /// Where it ended, if there may be more.
    #[n(1)]
    pub next: Option<Position>,
}

/// The directory's reply, and what it cost.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Answer {
    /// The reply.
    #[n(0)]
    pub reply: Reply,
    /// Rows written on the way.
    #[n(1)]
    pub rows_written: u32,
}

/// What the directory replies.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// The account is listed, or forgotten, as this version of it.
    #[n(0)]
    Known(#[n(0)] u64),
    /// The account may not be opened.
    #[n(1)]
    Taken {
        /// The version that asked.
        #[n(0)]
        version: u64,
        /// Why.
        #[n(1)]
        taken: Taken,
    },
    /// A page of accounts.
    #[n(2)]
    Page(#[n(0)] Page),
    /// The plans that were ever in force, by name.
    #[n(3)]
    Plans(#[n(0)] Vec<PlanInForce>),
    /// What was told under this number is counted.
    #[n(20)]
    Counted {
        /// The account's latest number.
        #[n(0)]
        number: u64,
        /// All that was told under it.
        #[n(1)]
        hours: Hours,
    },
    /// What all accounts have counted.
    #[n(21)]
    Status(#[n(0)] Hours),
    /// The directory cannot answer now; nothing was changed.
    #[n(4)]
    Unavailable {
        /// For the log.
        #[n(0)]
        detail: String,
    },
}

/// What another account has.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Taken {
    /// The request's `Idempotency-Key` opened another account.
    #[n(0)]
    IdempotencyKey,
    /// This account has the external id.
    #[n(1)]
    ExternalId(#[n(0)] AccountId),
}

impl Taken {
    /// How whoever wanted to open the account is told.
    #[must_use]
    pub fn complaint(&self) -> Complaint {
        match self {
            Self::IdempotencyKey => Complaint::mismatch(),
            Self::ExternalId(account) => Complaint {
                code: Code::Conflict,
                detail: format!("external_id: the account {account} has it"),
                field: Some("external_id".to_owned()),
                retry_after_seconds: None,
            },
        }
    }
}

/// A plan that accounts have, or had.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PlanInForce {
    /// The plan, as the policy last had it.
    #[n(0)]
    pub plan: Plan,
    /// How many accounts have it.
    #[n(1)]
    pub accounts: u64,
}
