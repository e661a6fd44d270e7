//! The directory's object: it lists and finds accounts, and sees to it that what has to be unique
//! is.
//!
//! Each account's object tells it what the account is ([`Report`]), by versions, so that what is
//! lost, comes twice or late does no harm. Nothing is decided here for an account that stands; only
//! a fresh one asks first ([`Request::Claim`]), and is refused what another account has.
//!
//! Storage comes in as [`Store`]: records by number, and one index of their names (`names.rs`).
//! No request reads more than 5,000 rows, however many accounts there are.

mod figures;
mod names;
mod page;
mod protocol;

use std::{collections::BTreeMap, sync::Arc};

use crate::wire::{Decode, Encode};

pub use self::{
    names::{Kind, Name, query_text},
    page::{EXAMINED_MAX, LIMIT_MAX},
    protocol::{
        Answer, Filter, Page, PlanInForce, Position, Reply, Report, Request, Search, Taken,
    },
};
use crate::{
    account::{Fingerprint, Listed},
    id::AccountId,
    key::SecretId,
    policy::{Plan, Policy},
    status::Hours,
    time::Timestamp,
};

/// Numbers count down from here, so that in every order of numbers the newest comes first.
/// JavaScript carries no larger number exactly.
const FIRST_NUMBER: u64 = (1 << 53) - 1;

/// The directory's durable storage.
pub trait Store {
    /// What goes wrong with it.
    type Error: std::fmt::Display;

    /// Every plan that was ever in force, encoded.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn plans(&self) -> Result<Vec<Vec<u8>>, Self::Error>;

    /// Records with a number above `number`, the lowest first: at most `limit` rows are read.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn after(&self, number: u64, limit: u32) -> Result<Vec<Found>, Self::Error>;

    /// What has a name in this range, in the order of text and number, each with its record: at
    /// most twice `limit` rows are read.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn named(&self, names: &NameRange<'_>, limit: u32) -> Result<Vec<Found>, Self::Error>;

    /// The sums, encoded, of the hours that begin from `from` to before `to`, the newest first: at
    /// most `limit` rows are read.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn hours(
        &self,
        from: Timestamp,
        to: Timestamp,
        limit: usize,
    ) -> Result<Vec<(Timestamp, Vec<u8>)>, Self::Error>;

    /// Writes everything, or nothing.
    ///
    /// # Errors
    /// Nothing was written.
    fn commit(&mut self, write: &Write) -> Result<(), Self::Error>;
}

/// Names of one kind, from behind a text and number to before a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameRange<'a> {
    /// The kind.
    pub kind: Kind,
    /// Behind this text's …
    pub from: &'a str,
    /// … entry of this number; 0 is before all of them.
    pub number: u64,
    /// And before this text.
    pub to: &'a str,
}

/// A stored record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The name that it was found by; empty where it was found by number.
    pub text: String,
    /// Its number.
    pub number: u64,
    /// The record, encoded.
    pub record: Vec<u8>,
}

/// One atomic write.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// A record anew.
    pub record: Option<(u64, Vec<u8>)>,
    /// Names that the record has from now on.
    pub named: Vec<Name>,
    /// Names that it has no more.
    pub unnamed: Vec<Name>,
    /// Plans anew, by name.
    pub plans: Vec<(String, Vec<u8>)>,
    /// Sums of hours anew.
    pub hours: Vec<(Timestamp, Vec<u8>)>,
    /// Sums of hours before this one are to be dropped, after that.
    pub hours_from: Option<Timestamp>,
}

/// What the directory knows of an account.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Record {
    #[n(0)]
    id: AccountId,
    #[n(1)]
    version: u64,
    /// The request that opened it, as far as it asked here.
    #[n(2)]
    opened_by: Option<Fingerprint>,
    #[n(3)]
    standing: Standing,
    /// What it has told of its figures, and is counted.
    #[cbor(n(4), default)]
    counted: Counted,
}

/// The latest report of an account's figures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Counted {
    #[n(0)]
    number: u64,
    /// What is counted under this number.
    #[n(1)]
    hours: Hours,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
enum Standing {
    /// It is listed.
    #[n(0)]
    Listed {
        #[n(0)]
        account: Box<Listed>,
        /// What its standing keys were signed under.
        #[n(1)]
        secrets: Vec<SecretId>,
    },
    /// It was not opened. That is kept so that a late copy of its claim changes nothing.
    #[n(1)]
    Refused(#[n(0)] Taken),
    /// It was closed and is erased: nothing is left but its id, and by which request it was opened.
    #[n(2)]
    Erased,
}

impl Record {
    fn listed(&self) -> Option<&Listed> {
        match &self.standing {
            Standing::Listed { account, .. } => Some(account),
            Standing::Refused(_) | Standing::Erased => None,
        }
    }

    /// The plan that the account is on; a closed one is on none.
    fn plan(&self) -> Option<&str> {
        let account = self.listed()?;
        let is_open = account.status.closed_at().is_none();
        is_open.then_some(account.plan.as_str())
    }

    fn reply(&self) -> Reply {
        match &self.standing {
            Standing::Listed { .. } | Standing::Erased => Reply::Known(self.version),
            Standing::Refused(taken) => Reply::Taken {
                version: self.version,
                taken: taken.clone(),
            },
        }
    }
}

/// The directory.
#[derive(Debug)]
pub struct Directory<S> {
    store: S,
    policy: Arc<Policy>,
    /// The plans that were ever in force, by name. `None` until they are read, and again after a
    /// write that failed.
    plans: Option<BTreeMap<String, PlanInForce>>,
}

/// Why a request could not be carried out: for the log.
type Failure = String;

impl<S: Store> Directory<S> {
    /// A directory that has not been woken yet.
    pub const fn new(store: S, policy: Arc<Policy>) -> Self {
        Self {
            store,
            policy,
            plans: None,
        }
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
        let reply = self.wake().and_then(|()| match request {
            Request::Claim { report, opened_by } => self.hear(report, Some(opened_by)),
            Request::Tell(report) => self.hear(report, None),
            Request::Erased { id, version } => self.forget(id, version),
            Request::List(search) => self.list(&search).map(Reply::Page),
            Request::Count {
                account,
                number,
                hours,
            } => self.count_figures(&account, number, hours),
            Request::Status { from, to } => self.figures(from, to).map(Reply::Status),
            Request::Plans => Ok(Reply::Plans(self.awake().values().cloned().collect())),
        });
        reply.unwrap_or_else(|detail| Reply::Unavailable { detail })
    }

    /// Hears what an account is. What it has heard already, or something later, changes nothing.
    fn hear(&mut self, report: Report, opened_by: Option<Fingerprint>) -> Result<Reply, Failure> {
        let before = self.record_of(&report.account.id)?;
        if let Some((_, record)) = &before
            && record.version >= report.version
        {
            return Ok(record.reply());
        }
        let taken = match &opened_by {
            Some(opened_by) => self.taken(&report.account, opened_by)?,
            None => None,
        };
        let Report {
            version,
            account,
            plan,
            secrets,
        } = report;
        let record = Record {
            id: account.id.clone(),
            version,
            opened_by: opened_by.or_else(|| before.as_ref()?.1.opened_by),
            standing: match taken {
                Some(taken) => Standing::Refused(taken),
                None => Standing::Listed {
                    account: Box::new(account),
                    secrets: secrets.into_iter().collect(),
                },
            },
            counted: counted_of(&before),
        };
        let reply = record.reply();
        self.put(before, &record, Some(plan))?;
        Ok(reply)
    }

    /// Forgets what an account was that is erased.
    fn forget(&mut self, id: AccountId, version: u64) -> Result<Reply, Failure> {
        let before = self.record_of(&id)?;
        if let Some((_, record)) = &before
            && record.version >= version
        {
            return Ok(record.reply());
        }
        let record = Record {
            id,
            version,
            opened_by: before.as_ref().and_then(|(_, record)| record.opened_by),
            standing: Standing::Erased,
            counted: counted_of(&before),
        };
        let reply = record.reply();
        self.put(before, &record, None)?;
        Ok(reply)
    }

    /// What a fresh account asks for and another one has.
    fn taken(&self, account: &Listed, opened_by: &Fingerprint) -> Result<Option<Taken>, Failure> {
        let others = |name: Name| {
            let found = self.exactly(&name)?.into_iter();
            let mut others = found.filter(|(_, record)| record.id != account.id);
            Ok::<_, Failure>(others.next().map(|(_, record)| record.id))
        };
        if others(Name::opened_by(opened_by))?.is_some() {
            return Ok(Some(Taken::IdempotencyKey));
        }
        match &account.external_id {
            Some(external_id) => {
                let other = others(Name::new(Kind::ExternalId, external_id.as_str()))?;
                Ok(other.map(Taken::ExternalId))
            }
            None => Ok(None),
        }
    }

    fn put(
        &mut self,
        before: Option<(u64, Record)>,
        record: &Record,
        plan: Option<Plan>,
    ) -> Result<(), Failure> {
        let number = match &before {
            Some((number, _)) => *number,
            None => self.next_number()?,
        };
        let names_before = before
            .as_ref()
            .map(|(_, record)| names::of(record))
            .unwrap_or_default();
        let names = names::of(record);
        let moved = self.count(
            before.as_ref().and_then(|(_, record)| record.plan()),
            record.plan(),
            plan,
        );
        let write = Write {
            record: Some((number, encoded_record(record))),
            named: names.difference(&names_before).cloned().collect(),
            unnamed: names_before.difference(&names).cloned().collect(),
            plans: moved.iter().map(encoded).collect(),
            ..Write::default()
        };
        self.store.commit(&write).map_err(failed)?;
        for plan in moved {
            self.awake().insert(plan.plan.name.clone(), plan);
        }
        Ok(())
    }

    /// The plans whose accounts become more or fewer, as they are from then on.
    fn count(
        &mut self,
        left: Option<&str>,
        joined: Option<&str>,
        plan: Option<Plan>,
    ) -> Vec<PlanInForce> {
        if left == joined {
            return Vec::new();
        }
        let mut moved = Vec::new();
        if let Some(mut left) = left.and_then(|left| self.awake().get(left).cloned()) {
            left.accounts = left.accounts.saturating_sub(1);
            moved.push(left);
        }
        if let (Some(name), Some(plan)) = (joined, plan) {
            let sold = self
                .policy
                .plans
                .get(name)
                .map(|plan| plan.as_ref().clone());
            let known = self.awake().get(name).cloned();
            let mut joined = known.unwrap_or(PlanInForce {
                plan: sold.unwrap_or(plan),
                accounts: 0,
            });
            joined.accounts = joined.accounts.saturating_add(1);
            moved.push(joined);
        }
        moved
    }

    fn next_number(&self) -> Result<u64, Failure> {
        let newest = self.store.after(0, 1).map_err(failed)?;
        Ok(newest
            .first()
            .map_or(FIRST_NUMBER, |newest| newest.number.saturating_sub(1)))
    }

    fn record_of(&self, id: &AccountId) -> Result<Option<(u64, Record)>, Failure> {
        let mut found = self.exactly(&Name::new(Kind::Id, id.as_str()))?;
        Ok(found.pop())
    }

    /// The first two that have this name: no unique one has more.
    fn exactly(&self, name: &Name) -> Result<Vec<(u64, Record)>, Failure> {
        let to = names::behind(&name.text);
        let range = NameRange {
            kind: name.kind,
            from: &name.text,
            number: 0,
            to: &to,
        };
        let found = self.store.named(&range, 2).map_err(failed)?;
        found
            .iter()
            .map(|found| Ok((found.number, read(found)?)))
            .collect()
    }

    /// Reads the plans in force, and keeps what the policy now says of them: once a plan leaves
    /// it, that is how the plan stays.
    fn wake(&mut self) -> Result<(), Failure> {
        if self.plans.is_some() {
            return Ok(());
        }
        let mut plans = BTreeMap::new();
        let mut edited = Vec::new();
        for body in self.store.plans().map_err(failed)? {
            let mut plan: PlanInForce =
                minicbor::decode(&body).map_err(|error| format!("a stored plan: {error}"))?;
            if let Some(sold) = self.policy.plans.get(&plan.plan.name)
                && **sold != plan.plan
            {
                plan.plan = sold.as_ref().clone();
                edited.push(encoded(&plan));
            }
            plans.insert(plan.plan.name.clone(), plan);
        }
        if !edited.is_empty() {
            let write = Write {
                plans: edited,
                ..Write::default()
            };
            self.store.commit(&write).map_err(failed)?;
        }
        self.plans = Some(plans);
        Ok(())
    }

    fn awake(&mut self) -> &mut BTreeMap<String, PlanInForce> {
        self.plans.get_or_insert_default()
    }
}

/// What is counted of an account stays so, whatever else is told of it.
fn counted_of(before: &Option<(u64, Record)>) -> Counted {
    let counted = before.as_ref().map(|(_, record)| record.counted.clone());
    counted.unwrap_or_default()
}

fn encoded_record(record: &Record) -> Vec<u8> {
    // Encoding into memory cannot fail.
    minicbor::to_vec(record).unwrap_or_default()
}

fn encoded(plan: &PlanInForce) -> (String, Vec<u8>) {
    // Encoding into memory cannot fail.
    let body = minicbor::to_vec(plan).unwrap_or_default();
    (plan.plan.name.clone(), body)
}

fn read(found: &Found) -> Result<Record, Failure> {
    minicbor::decode(&found.record).map_err(|error| format!("stored record: {error}"))
}

fn failed<E: std::fmt::Display>(error: E) -> Failure {
    error.to_string()
}
