//! Opening an account, and keeping the directory's copy of it true.
//!
//! Opening takes two steps with a question between them. First the object keeps the intent: who
//! wants the account, on which plan, since when. Then it asks the directory, which says whether the
//! names that it asks for are free, and lists it if they are. Only then is there an account, made
//! in one commit from what was kept; where the claim is lost there never was one.
//!
//! Each step can be lost or come twice. The intent is kept until the directory's answer is booked,
//! by a repeated request or by the alarm, and a claim that was won once is won again. So nothing
//! is left that has a name and no account, and no name opens two.

use std::sync::Arc;

use crate::wire::{Decode, Encode};

use super::{Failure, Object, Remembered, Store, Write, complaint, storage, to_json};
use crate::{
    account::{Account, Broken, Changes, NewAccount, find_plan},
    directory,
    policy::Plan,
    problem::Code,
    protocol::{Complaint, Reply},
    time::{Span, Timestamp},
};

/// How soon the directory is told again if it did not acknowledge, at first …
const RETRY_FIRST: Span = Span::from_seconds(10);
/// … and at most: each time as long again as it has been behind so far.
const RETRY_LAST: Span = Span::from_seconds(3_600);

/// What becomes of the stored intent to open an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// It is this one, encoded.
    Keep(Vec<u8>),
    /// There is none any more.
    Forget,
}

/// What comes of a request to open an account.
#[derive(Debug)]
pub enum Opened {
    /// It is answered.
    Answered(Reply),
    /// The directory has to be asked this first: [`Object::claimed`] takes its reply.
    Claim(Box<directory::Request>),
}

/// The intent to open an account. Stored while there is none; places are only added.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Opening {
    /// The version under which the directory is asked. Each attempt has its own, so that a late
    /// reply is not taken for one to a later attempt.
    #[n(0)]
    version: u64,
    /// `None`: the directory has refused the latest.
    #[n(1)]
    wanted: Option<Wanted>,
}

/// The account that is wanted. What it was decided on is kept, so that it can be opened whatever the
/// policy says by then.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Wanted {
    #[n(0)]
    new: NewAccount,
    #[n(1)]
    plan: Plan,
    #[n(2)]
    since: Timestamp,
}

impl Wanted {
    fn open(&self, policy: &Arc<crate::policy::Policy>, version: u64) -> (Account, Changes) {
        Account::open(
            Arc::clone(policy),
            self.plan.clone(),
            self.new.clone(),
            version,
            self.since,
        )
    }
}

/// When another object should be asked again that has not answered since `since`.
pub(super) fn retry_at(since: Timestamp, clock: Timestamp) -> Timestamp {
    clock.plus(clock.since(since).max(RETRY_FIRST).min(RETRY_LAST))
}

impl<S: Store> Object<S> {
    /// Opens an account, as far as that goes without the directory. Opening again with the same
    /// `Idempotency-Key` and body gets the same answer, for good: an id is never given out again.
    pub fn open(&mut self, new: &NewAccount, clock: Timestamp) -> Opened {
        self.try_open(new, clock)
            .unwrap_or_else(|failure| Opened::Answered(failure.reply()))
    }

    /// Goes on with a request to open an account after the directory's reply.
    pub fn claimed(
        &mut self,
        new: &NewAccount,
        reply: &directory::Reply,
        clock: Timestamp,
    ) -> Opened {
        let is_own = |opening: &Opening, version| {
            let wanted = opening.wanted.as_ref();
            opening.version == version && wanted.is_some_and(|wanted| wanted.new == *new)
        };
        let refused = match (reply, &self.opening) {
            (directory::Reply::Taken { version, taken }, Some(opening))
                if is_own(opening, *version) =>
            {
                Some(taken.complaint())
            }
            _ => None,
        };
        match (self.try_hear(reply, clock), refused) {
            (Err(failure), _) => Opened::Answered(failure.reply()),
            (Ok(()), Some(refused)) => Opened::Answered(Reply::Problem(refused)),
            (Ok(()), None) => self.open(new, clock),
        }
    }

    /// What the directory has to be told, as far as this is known without waking.
    #[must_use]
    pub fn report(&self) -> Option<directory::Request> {
        match &self.account {
            Some(account) => account.report().map(directory::Request::Tell),
            None => match &self.tombstone {
                Some(tombstone) => tombstone.report(),
                None => self.claim(self.opening.as_ref()?),
            },
        }
    }

    /// When the directory should be told at the latest, counted from `clock`; `None` while it
    /// knows all.
    #[must_use]
    pub fn report_at(&self, clock: Timestamp) -> Option<Timestamp> {
        let since = match &self.account {
            Some(account) => account.untold_since()?,
            None => match &self.tombstone {
                Some(tombstone) => tombstone.untold_since()?,
                None => self.opening.as_ref()?.wanted.as_ref()?.since,
            },
        };
        Some(retry_at(since, clock))
    }

    /// Books what the directory has replied to a report. Late and repeated replies are harmless.
    ///
    /// # Errors
    /// What went wrong, for the log; nothing was changed.
    pub fn hear(&mut self, reply: &directory::Reply, clock: Timestamp) -> Result<(), String> {
        match self.try_hear(reply, clock) {
            Ok(()) | Err(Failure::NoAccount) => Ok(()),
            Err(Failure::Storage(detail)) => Err(detail),
        }
    }

    /// The intent, as it is stored.
    pub(super) fn load_opening(&self) -> Result<Option<Opening>, Failure> {
        let Some(bytes) = self.store.opening().map_err(storage)? else {
            return Ok(None);
        };
        Ok(Some(minicbor::decode(&bytes).map_err(Broken::from)?))
    }

    fn try_open(&mut self, new: &NewAccount, clock: Timestamp) -> Result<Opened, Failure> {
        match self.wake(clock) {
            Ok(()) => {
                let answer = self.answer_again(Some(new.opened_by), clock)?;
                return Ok(Opened::Answered(
                    answer.unwrap_or_else(|| Reply::Problem(id_taken(new))),
                ));
            }
            // What it was answered is erased with it.
            Err(Failure::NoAccount) if self.tombstone.is_some() => {
                return Ok(Opened::Answered(Reply::Problem(id_taken(new))));
            }
            Err(Failure::NoAccount) => {}
            Err(failure) => return Err(failure),
        }
        // Whoever came first is answered first, also where that was another request.
        let mut opening = self.opening.clone().unwrap_or(Opening {
            version: 0,
            wanted: None,
        });
        if opening.wanted.is_none() {
            let plan = match find_plan(&self.policy, &new.plan) {
                Ok(plan) => plan,
                Err(rejected) => return Ok(Opened::Answered(Reply::Problem(rejected.complaint()))),
            };
            opening.version = opening.version.saturating_add(1);
            opening.wanted = Some(Wanted {
                new: new.clone(),
                plan,
                since: clock,
            });
            self.keep(opening.clone())?;
        }
        self.claim(&opening)
            .map(|claim| Opened::Claim(Box::new(claim)))
            .ok_or(Failure::NoAccount)
    }

    /// What the directory is asked: may the account be opened as it will be?
    fn claim(&self, opening: &Opening) -> Option<directory::Request> {
        let wanted = opening.wanted.as_ref()?;
        let (account, _) = wanted.open(&self.policy, opening.version);
        Some(directory::Request::Claim {
            report: account.listing(),
            opened_by: wanted.new.opened_by,
        })
    }

    fn try_hear(&mut self, reply: &directory::Reply, clock: Timestamp) -> Result<(), Failure> {
        let (version, is_listed) = match reply {
            directory::Reply::Known(version) => (*version, true),
            directory::Reply::Taken { version, .. } => (*version, false),
            directory::Reply::Counted { number, hours } => {
                return self.figures_heard(*number, hours, clock);
            }
            directory::Reply::Page(_)
            | directory::Reply::Plans(_)
            | directory::Reply::Status(_)
            | directory::Reply::Unavailable { .. } => return Ok(()),
        };
        match self.wake(clock) {
            Ok(()) => {
                let changes = self.awake()?.directory_has(version, is_listed);
                self.commit(changes, None)
            }
            Err(Failure::NoAccount) => match (self.tombstone.clone(), self.opening.clone()) {
                (Some(tombstone), _) => self.directory_has_tombstone(tombstone, version),
                (None, Some(opening)) => self.decide_claim(opening, version, is_listed),
                (None, None) => Ok(()),
            },
            Err(failure) => Err(failure),
        }
    }

    fn decide_claim(
        &mut self,
        mut opening: Opening,
        version: u64,
        is_listed: bool,
    ) -> Result<(), Failure> {
        if version > opening.version {
            // The directory knows of more than is stored here: the claim is made anew.
            opening.version = version.saturating_add(1);
            return self.keep(opening);
        }
        let Some(wanted) = opening.wanted.take_if(|_| version == opening.version) else {
            return Ok(());
        };
        if !is_listed {
            return self.keep(opening);
        }
        let (account, changes) = wanted.open(&self.policy, version);
        let answer = Remembered {
            request: wanted.new.opened_by,
            status: 201,
            json: to_json(&account.view()),
            until: None,
        };
        self.account = Some(account);
        self.commit(changes, Some(answer))
    }

    fn keep(&mut self, opening: Opening) -> Result<(), Failure> {
        // Encoding into memory cannot fail.
        let bytes = minicbor::to_vec(&opening).unwrap_or_default();
        let write = Write {
            opening: Some(Intent::Keep(bytes)),
            ..Write::default()
        };
        self.store.commit(&write).map_err(storage)?;
        self.opening = Some(opening);
        Ok(())
    }
}

fn id_taken(new: &NewAccount) -> Complaint {
    Complaint {
        field: Some("id".to_owned()),
        ..complaint(Code::Conflict, &format!("the id {} is taken", new.id))
    }
}
