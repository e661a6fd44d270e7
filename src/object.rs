//! The account's object: it wakes the account, carries out one message at a time, and commits
//! what it changed before it answers.
//!
//! Storage comes in as [`Store`], so that everything but the SQL itself runs and is tested
//! natively. Nothing here waits: a message is carried out as a whole.

mod at_rest;
mod audit;
mod erase;
mod events;
mod export;
mod figures;
mod importing;
mod ledger;
mod opening;
mod payments;
pub mod pieces;
mod roll_up;
mod summary;
mod top_up;
mod usage;

use std::{ops::Range, sync::Arc};

use self::{audit::RunningAudit, erase::Tombstone, opening::Opening};
pub use self::{
    events::{Email, Message},
    importing::Imported,
    opening::{Intent, Opened},
};
use crate::{
    account::{
        Account, Admit, BUDGET_POOL, Broken, Changes, Earlier, Fingerprint, First, Flag, LogMonth,
        Refusal, Rejected, Rolled, Stored, Word,
    },
    audit::Audit,
    call::{CallRow, Settle},
    credits::Credits,
    event::EventRecord,
    id::{CallNumber, EventNumber, KeyNumber},
    ledger::Entry,
    ledger_page::LedgerPage,
    limits::MinuteWindow,
    payments::history::Payment,
    policy::{DEFAULT_POOL, Policy},
    problem::{Code, ViolatedPolicy, Violation},
    protocol::{
        Command, Complaint, Document, KeysQuery, Manage, Page, Read, Reply, Request, UsageFilter,
    },
    time::{Day, MonthNumber, Span, Timestamp},
    totals::Totals,
};

/// How long the answer to an operator's request is remembered, unless it made credits.
pub const REMEMBERED: Span = Span::from_days(1);
/// How often one key may read about itself in any 60 seconds.
const READS_PER_MINUTE: u32 = 60;
/// How often what takes more reading than a page.
const LONG_READS_PER_MINUTE: u32 = 10;
/// The most rows that one request reads.
const ROWS_MAX: u64 = 5_000;

/// The durable storage of one account.
pub trait Store {
    /// What goes wrong with it.
    type Error: std::fmt::Display;

    /// The profile and the snapshot; `None` where no account was opened.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn load(&self) -> Result<Option<Loaded>, Self::Error>;

    /// Those of these keys that are there, encoded.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn keys(&self, numbers: &[KeyNumber]) -> Result<Vec<(KeyNumber, Vec<u8>)>, Self::Error>;

    /// Keys with a number above `last`, the oldest first, at most `limit`.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn keys_after(
        &self,
        last: KeyNumber,
        limit: u64,
    ) -> Result<Vec<(KeyNumber, Vec<u8>)>, Self::Error>;

    /// Every key in whose row `digest` stands. This looks at them all.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn keys_with(&self, digest: &[u8; 32]) -> Result<Vec<KeyNumber>, Self::Error>;

    /// The row of `call` in the table of `month`.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn call(&self, month: MonthNumber, call: CallNumber) -> Result<Option<CallRow>, Self::Error>;

    /// Calls of `month` with a number above `last`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn calls_after(
        &self,
        month: MonthNumber,
        last: u64,
        limit: u64,
    ) -> Result<Vec<CallRow>, Self::Error>;

    /// Calls of `month` with a number below `before`, newest first, undone ones left out: `limit`
    /// of them after `offset`.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn newest_calls(
        &self,
        month: MonthNumber,
        before: u64,
        offset: u64,
        limit: u64,
    ) -> Result<Vec<CallRow>, Self::Error>;

    /// Calls of `month` with a number below `before`, newest first, at most `limit`.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn calls_before(
        &self,
        month: MonthNumber,
        before: u64,
        limit: u64,
    ) -> Result<Vec<CallRow>, Self::Error>;

    /// The numbers of the calls of `month` that `filter` lets through
    /// ([`UsageFilter::lets_through`]), newest first; only `numbers` are looked at.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn matching_calls(
        &self,
        month: MonthNumber,
        filter: &UsageFilter,
        numbers: Range<u64>,
    ) -> Result<Vec<CallNumber>, Self::Error>;

    /// The calls of `month` with these numbers, newest first.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn these_calls(
        &self,
        month: MonthNumber,
        numbers: &[CallNumber],
    ) -> Result<Vec<CallRow>, Self::Error>;

    /// The intent to open an account here, encoded, where there is one.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn opening(&self) -> Result<Option<Vec<u8>>, Self::Error>;

    /// What is left of an account that was erased here, encoded, if there was one.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn tombstone(&self) -> Result<Option<Vec<u8>>, Self::Error>;

    /// What is left of months that were rolled up, oldest first: at most `limit` rows from the
    /// row `from` on ([`Rolled::row`]).
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn rolled(&self, from: u64, limit: u64) -> Result<Vec<Rolled>, Self::Error>;

    /// The latest of them that is in a row before `before`.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn rolled_before(&self, before: u64) -> Result<Option<Rolled>, Self::Error>;

    /// Hourly totals of the calls of `month`: at most `limit` rows after the row numbered
    /// `after`, with their numbers.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn totals(
        &self,
        month: MonthNumber,
        after: u64,
        limit: u64,
    ) -> Result<Vec<(u64, Totals)>, Self::Error>;

    /// Entries with a number below `before`, newest first, at most `limit`.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn entries_before(&self, before: u64, limit: u64) -> Result<Vec<Entry>, Self::Error>;

    /// Entries with a number above `last`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn entries_after(&self, last: u64, limit: u64) -> Result<Vec<Entry>, Self::Error>;

    /// The payment that Stripe calls `name`.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn payment(&self, name: &str) -> Result<Option<Payment>, Self::Error>;

    /// Payments with a number below `before`, newest first, at most `limit`.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn payments_before(&self, before: u64, limit: u64) -> Result<Vec<Payment>, Self::Error>;

    /// The remembered answer under `id`.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn remembered(&self, id: u64) -> Result<Option<Remembered>, Self::Error>;

    /// The latest first that the tables of `days` have under the digest `key`.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn first(&self, days: &[Day], key: &[u8; 32]) -> Result<Option<First>, Self::Error>;

    /// An event that was emitted, if it is still there: a later one may have taken its row.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn event(&self, number: EventNumber) -> Result<Option<EventRecord>, Self::Error>;

    /// All events that are kept, in no order. One was emitted before.
    ///
    /// # Errors
    /// Storage that cannot be read.
    fn events(&self) -> Result<Vec<EventRecord>, Self::Error>;

    /// Writes everything, or nothing.
    ///
    /// # Errors
    /// Nothing was written.
    fn commit(&mut self, write: &Write) -> Result<(), Self::Error>;
}

/// What is loaded first at wake-up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The profile.
    pub profile: Vec<u8>,
    /// The snapshot, whole.
    pub snapshot: Vec<u8>,
    /// Which events are still to be sent, where there ever were any.
    pub notices: Option<Vec<u8>>,
}

/// One atomic write.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// Rows of the call log, entries, and a month's table.
    pub changes: Changes,
    /// The month whose table new calls go to.
    pub month: Option<MonthNumber>,
    /// The profile anew.
    pub profile: Option<Vec<u8>>,
    /// Keys anew.
    pub keys: Vec<(KeyNumber, Vec<u8>)>,
    /// The snapshot anew, to be stored in [`pieces`].
    pub snapshot: Option<Vec<u8>>,
    /// Which events are still to be sent, anew.
    pub notices: Option<Vec<u8>>,
    /// An answer to be remembered.
    pub remember: Option<Remembered>,
    /// What becomes of the intent to open an account.
    pub opening: Option<Intent>,
    /// Everything that is stored is erased, and only this left: what an erased account leaves. Nothing
    /// else comes with it.
    pub tombstone: Option<Vec<u8>>,
}

impl Write {
    /// Whether it is one statement on one row, which needs no transaction to be atomic.
    #[must_use]
    pub fn is_one_row(&self) -> bool {
        let changes = &self.changes;
        let calls = changes.admitted.len().saturating_add(changes.ended.len());
        let corrects = changes
            .ended
            .iter()
            .any(|end| end.outcome.first_charged.is_some());
        calls == 1
            && !corrects
            && changes.new_month.is_none()
            && changes.first.is_none()
            && changes.entries.is_empty()
            && changes.events.is_empty()
            && self.notices.is_none()
            && changes.payments.is_empty()
            && self.keys.is_empty()
            && self.profile.is_none()
            && self.snapshot.is_none()
            && self.remember.is_none()
            && self.opening.is_none()
            && self.tombstone.is_none()
    }
}

/// The answer to a request with an `Idempotency-Key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The request.
    pub request: Fingerprint,
    /// The answer's status.
    pub status: u16,
    /// The answer's JSON.
    pub json: String,
    /// Until when it is kept; `None`: for good.
    pub until: Option<Timestamp>,
}

impl Fingerprint {
    /// The row that it is remembered in: 53 bits of the key's digest, which JavaScript numbers
    /// carry exactly.
    #[must_use]
    pub fn row(&self) -> u64 {
        self.key
            .iter()
            .take(8)
            .fold(0_u64, |row, byte| (row << 8) | u64::from(*byte))
            >> 11
    }
}

/// One account's object.
#[derive(Debug)]
pub struct Object<S> {
    store: S,
    policy: Arc<Policy>,
    /// `None` until it is woken, and again after a write that failed.
    account: Option<Account>,
    /// While there is no account: who wants to open one.
    opening: Option<Opening>,
    /// There will be no account here any more.
    tombstone: Option<Tombstone>,
    /// What keys read about themselves lately, by what guards it. Not stored: it guards the object,
    /// not credits.
    reads: std::collections::BTreeMap<(KeyNumber, u32), MinuteWindow>,
    reads_counted: u64,
    audit: Option<RunningAudit>,
    /// Flags that were raised and committed since they were last taken.
    flagged: Vec<Flag>,
}

/// What a command came to: its answer and what is to be committed, or why it is not carried out.
type Done = Result<(Reply, Changes), Rejected>;

/// Why a message could not be carried out.
enum Failure {
    /// No account was opened here, or it was erased.
    NoAccount,
    /// The storage, or what is in it.
    Storage(String),
}

impl Failure {
    fn reply(self) -> Reply {
        match self {
            Self::NoAccount => {
                Reply::Problem(complaint(Code::NotFound, "there is no such account"))
            }
            Self::Storage(detail) => Reply::Unavailable { detail },
        }
    }

    /// For the log.
    fn detail(self) -> String {
        match self {
            Self::NoAccount => "there is no such account".to_owned(),
            Self::Storage(detail) => detail,
        }
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Self::Storage(broken.detail)
    }
}

impl<S: Store> Object<S> {
    /// An object that has not been woken yet.
    pub const fn new(store: S, policy: Arc<Policy>) -> Self {
        Self {
            store,
            policy,
            account: None,
            opening: None,
            tombstone: None,
            reads: std::collections::BTreeMap::new(),
            reads_counted: 0,
            audit: None,
            flagged: Vec::new(),
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

    /// Flags that were raised since this was last asked: for the log.
    pub fn take_flagged(&mut self) -> Vec<Flag> {
        std::mem::take(&mut self.flagged)
    }

    /// The account, while it is awake.
    pub const fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    /// When [`Object::tick`] should be called at the latest; `None` while nothing is open and
    /// nothing is left to do.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.account.as_ref().and_then(Account::next_wakeup)
    }

    /// When it should be called if no message comes before. Only an alarm that has gone off is set
    /// to this: it may lie months ahead, and to set it at every wake-up would cost a row each.
    #[must_use]
    pub fn next_alarm(&self) -> Option<Timestamp> {
        let account = self.account.as_ref();
        let roll_up = account.and_then(Account::roll_up_alarm);
        let erasure = account.and_then(Account::erased_at);
        let listing = account.and_then(Account::listing_ends_at);
        let wakeup = self.next_wakeup().into_iter();
        wakeup.chain(roll_up).chain(erasure).chain(listing).min()
    }

    /// Books what has fallen due, and does a slice of what takes longer; erases a closed account whose
    /// time is over. Spurious calls are harmless.
    ///
    /// # Errors
    /// What went wrong, for the log; what was not committed was not changed.
    pub fn tick(&mut self, clock: Timestamp) -> Result<(), String> {
        let ticked = self.wake(clock).and_then(|()| {
            let account = self.awake()?;
            let mut changes = account.tick(clock);
            changes.snapshot |= account.note_listing();
            self.commit(changes, None)?;
            self.roll_up()?;
            self.erase(clock)
        });
        match ticked {
            Ok(()) | Err(Failure::NoAccount) => Ok(()),
            Err(Failure::Storage(detail)) => Err(detail),
        }
    }

    /// Carries out one message.
    pub fn handle(&mut self, request: Request, clock: Timestamp) -> Reply {
        self.forget_idle_audit(clock);
        let reply = match request {
            Request::Admit(admit) => self.admit(admit, clock),
            Request::Settle(settle) => self.settle(settle, clock),
            Request::Cancel(cancel) => self.wake(clock).and_then(|()| {
                let changes = self.awake()?.cancel(cancel, clock);
                self.commit(changes, None)?;
                Ok(Reply::Cancelled)
            }),
            Request::Read(read) => self.read(&read, clock),
            Request::Manage(manage) => self.manage(manage, clock),
        };
        reply.unwrap_or_else(Failure::reply)
    }

    fn admit(&mut self, admit: Admit, clock: Timestamp) -> Result<Reply, Failure> {
        match self.wake(clock) {
            Err(Failure::NoAccount) => return Ok(Reply::Refused(Refusal::UnknownKey)),
            woken => woken?,
        }
        let earlier = match &admit.retried {
            Some(retried) => self.earlier(retried, clock)?,
            None => None,
        };
        let (key, tries) = (admit.key, admit.repeated_refusals.saturating_add(1));
        let dead = self.wake_key_or_tell(admit.key, clock)?;
        let is_dead_ones = dead.is_some_and(|dead| dead.has_secret(&admit.digest, clock));
        let (outcome, changes) = self.awake()?.admit(admit, earlier.as_ref(), clock);
        if is_dead_ones && matches!(outcome, Err(Refusal::UnknownKey)) {
            self.awake()?.count_tries(key, tries, clock);
        }
        self.commit(changes, None)?;
        Ok(match outcome {
            Ok(admission) => Reply::Admitted(Box::new(admission)),
            Err(refusal) => Reply::Refused(refusal),
        })
    }

    /// What a request may be a repeat of, as it stands when all that is due is booked: a hold that
    /// nobody ended may end now.
    fn earlier(
        &mut self,
        retried: &Fingerprint,
        clock: Timestamp,
    ) -> Result<Option<Earlier>, Failure> {
        let changes = self.awake()?.tick(clock);
        self.commit(changes, None)?;
        let days = self
            .account
            .as_ref()
            .ok_or(Failure::NoAccount)?
            .first_days();
        let first = self
            .store
            .first(days, &retried.key)
            .map_err(storage)?
            .filter(|first| !first.is_over(clock));
        let Some(first) = first else {
            return Ok(None);
        };
        let row = self.row_of(first.call)?;
        Ok(row.map(|row| Earlier { first, row }))
    }

    /// Ends the calls that a message brought the ends of beside it: how many, up to the first that
    /// cannot be kept now.
    pub fn end_calls(&mut self, ends: &[Settle], clock: Timestamp) -> u32 {
        let replies = ends
            .iter()
            .map(|settle| self.handle(Request::Settle(*settle), clock));
        let taken = replies.take_while(|reply| !matches!(reply, Reply::Unavailable { .. }));
        u32::try_from(taken.count()).unwrap_or(u32::MAX)
    }

    fn settle(&mut self, settle: Settle, clock: Timestamp) -> Result<Reply, Failure> {
        self.wake(clock)?;
        let (settled, changes) = self.awake()?.settle(settle, clock);
        self.commit(changes, None)?;
        if settled.is_some() {
            return Ok(Reply::Settled(settled));
        }
        // Whoever does not know the operation is told nothing of the call.
        let row = self
            .row_to_change(settle.call)?
            .filter(|row| row.call.hold.operation == settle.operation);
        let Some(row) = row else {
            return Ok(Reply::Settled(None));
        };
        self.wake_key(row.call.key)?;
        let (settled, changes) = self.awake()?.settle_ended(settle, &row, clock);
        self.commit(changes, None)?;
        Ok(Reply::Settled(Some(settled)))
    }

    fn read(&mut self, read: &Read, clock: Timestamp) -> Result<Reply, Failure> {
        match self.wake(clock) {
            Err(Failure::NoAccount) => return Ok(Reply::Refused(Refusal::UnknownKey)),
            woken => woken?,
        }
        let changes = self.awake()?.tick(clock);
        self.commit(changes, None)?;
        self.wake_key_or_tell(read.key, clock)?;
        let account = self.awake()?;
        if account.key_held(read.key, &read.digest, clock).is_none() {
            return Ok(Reply::Refused(Refusal::UnknownKey));
        }
        let mut changes = Changes::default();
        account.secret_used(read.key, &read.digest, &mut changes);
        self.commit(changes, None)?;
        let standing = self.awake()?.standing(read.key, Some(DEFAULT_POOL), clock);
        let limit = reads_per_minute(&read.page);
        if let Some(retry_at) = self.guard_reads(read.key, limit, clock) {
            let violated = vec![Violation {
                policy: ViolatedPolicy::Minute,
                limit,
            }];
            return Ok(Reply::Refused(Refusal::RateLimited {
                violated,
                retry_at,
                standing,
            }));
        }
        let json = match &read.page {
            Page::Me => to_json(&self.awake()?.me_view(read.key, clock)),
            Page::Credits => to_json(&self.awake()?.credits_view()),
            Page::Quote => String::new(),
            Page::Ledger(query) => {
                let page = match self.ledger(query.clone())? {
                    Ok(page) => page,
                    Err(rejected) => return Ok(Reply::Problem(rejected.complaint())),
                };
                return Ok(Reply::Ledger(LedgerPage {
                    standing: Some(standing),
                    ..page
                }));
            }
            Page::Payments(ask) => return self.asked_by_customer(ask.clone(), standing, clock),
            Page::Usage(query) => to_json(&self.usage(query)?.without_marks()),
            Page::UsageSummary(query) => match self.summary(query, clock)? {
                Ok(view) => to_json(&view),
                Err(rejected) => return Ok(Reply::Problem(rejected.complaint())),
            },
        };
        Ok(Reply::Document(Document {
            standing: Some(standing),
            ..document(200, json)
        }))
    }

    fn guard_reads(&mut self, key: KeyNumber, limit: u32, clock: Timestamp) -> Option<Timestamp> {
        let window = self.reads.entry((key, limit)).or_default();
        window.forget_stray(clock);
        let frees_at = window.frees_at(limit, clock);
        if frees_at.is_none() {
            self.reads_counted = self.reads_counted.saturating_add(1);
            let read = CallNumber::new(self.reads_counted).unwrap_or_default();
            window.count(read, limit, clock);
        }
        frees_at
    }

    fn manage(&mut self, manage: Manage, clock: Timestamp) -> Result<Reply, Failure> {
        self.wake(clock)?;
        let changes = self.awake()?.tick(clock);
        self.commit(changes, None)?;
        if let Some(mut answer) = self.answer_again(manage.idempotency, clock)? {
            // The gateway asks once more where the first answer was lost on its way: then it still
            // has the secret, which nobody else will ever have.
            if let (
                Reply::Document(document),
                Command::CreateKey { digest, .. } | Command::RotateKey { digest, .. },
            ) = (&mut answer, &manage.command)
            {
                document.created_key = self.awake()?.key_of(digest);
            }
            return Ok(answer);
        }
        let makes_credits = matches!(manage.command, Command::Grant(_) | Command::Adjust(_));
        let (done, mut changes) = match self.carry_out(manage.command, clock)? {
            Ok((Reply::Document(done), changes)) => (done, changes),
            // What is no document is not remembered.
            Ok((looked_at, changes)) => {
                self.commit(changes, None)?;
                return Ok(looked_at);
            }
            Err(rejected) => return self.refuse(rejected, manage.idempotency, clock),
        };
        if let (Some(key), Some(secret)) = (done.created_key, manage.signs_under) {
            self.awake()?.signed(key, secret, &mut changes);
        }
        let remember = manage.idempotency.map(|request| Remembered {
            request,
            status: done.status,
            json: done.json.clone(),
            until: (!makes_credits).then(|| clock.plus(REMEMBERED)),
        });
        self.commit(changes, remember)?;
        Ok(Reply::Document(done))
    }

    /// Says no. Where that is of the moment, the same `Idempotency-Key` gets the same answer although
    /// things may stand otherwise by then.
    fn refuse(
        &mut self,
        rejected: Rejected,
        request: Option<Fingerprint>,
        clock: Timestamp,
    ) -> Result<Reply, Failure> {
        let request = request.filter(|_| rejected.is_of_the_moment());
        let complaint = rejected.complaint();
        if let Some(request) = request {
            let remembered = Remembered {
                request,
                status: complaint.code.status(),
                json: complaint.to_json(),
                until: Some(clock.plus(REMEMBERED)),
            };
            self.commit(Changes::default(), Some(remembered))?;
        }
        Ok(Reply::Problem(complaint))
    }

    /// The answer to a request that came before, from the record.
    fn answer_again(
        &self,
        request: Option<Fingerprint>,
        clock: Timestamp,
    ) -> Result<Option<Reply>, Failure> {
        let Some(request) = request else {
            return Ok(None);
        };
        let remembered = self
            .store
            .remembered(request.row())
            .map_err(storage)?
            .filter(|remembered| remembered.until.is_none_or(|until| until > clock));
        Ok(remembered.map(|remembered| {
            if remembered.request != request {
                return Reply::Problem(Complaint::mismatch());
            }
            let complaint = (remembered.status >= 400)
                .then(|| Complaint::from_json(&remembered.json))
                .flatten();
            complaint.map_or_else(
                || Reply::Document(document(remembered.status, remembered.json)),
                Reply::Problem,
            )
        }))
    }

    fn carry_out(&mut self, command: Command, clock: Timestamp) -> Result<Done, Failure> {
        let closed_at = self.awake()?.profile().status.closed_at();
        if let Some(at) = closed_at.filter(|_| command.needs_an_open_account()) {
            return Ok(Err(Rejected::Closed(at)));
        }
        match command {
            Command::Usage(query) => {
                let json = to_json(&self.usage(&query)?);
                Ok(Ok(shown(json)))
            }
            Command::UsageSummary(query) => Ok(self
                .summary(&query, clock)?
                .map(|view| shown(to_json(&view)))),
            Command::Ledger(query) => Ok(self
                .ledger(query)?
                .map(|page| (Reply::Ledger(page), Changes::default()))),
            Command::Audit => Ok(Ok((Reply::Audit(self.audit(clock)?), Changes::default()))),
            Command::Export(place) => {
                let slice = self.export(place, clock)?;
                Ok(Ok((Reply::Export(slice), Changes::default())))
            }
            Command::ShowCall(call) => match self.row_of(call)? {
                Some(row) => Ok(Ok(shown(self.call_json(row)?))),
                None => Ok(Err(Rejected::UnknownCall)),
            },
            Command::EndCall { call, word } => self.end_call(call, word, clock),
            Command::Events(query) => Ok(Ok(shown(self.events(&query)?))),
            Command::ReplayEvent(number) => self.replay_event(number, clock),
            Command::Payments(ask) => self.asked(ask, clock),
            Command::SeePayment(sighting) => self.see_payment(*sighting, clock),
            Command::SeeSubscription(sighting) => {
                let changes = self.awake()?.subscription_sighted(sighting, clock);
                Ok(Ok((told(200, to_json(&self.awake()?.view())), changes)))
            }
            Command::IfOpened(opened, command) => {
                if self.awake()?.profile().created_at == opened {
                    self.carry_out(*command, clock)
                } else {
                    Ok(Err(Rejected::OpenedElsewhere))
                }
            }
            // Whoever carries these out waits for another object's word: see `edge/question.rs`.
            Command::Open(_) | Command::ImportKey(_) => Err(Failure::Storage(
                "this takes another object's word, which was not asked for".to_owned(),
            )),
            Command::Show => Ok(Ok(shown(to_json(&self.awake()?.view())))),
            Command::Balance => Ok(Ok(shown(to_json(&self.awake()?.balance_view())))),
            Command::ListKeys => Ok(Ok(self.list_keys(&KeysQuery::default(), clock)?)),
            Command::Keys(query) => Ok(Ok(self.list_keys(&query, clock)?)),
            Command::ShowKey(number) => self.show_key(number, clock),
            Command::ShowTopUp => {
                let view = self.awake()?.top_up_view(clock).map(|view| to_json(&view));
                Ok(view.map(shown).ok_or(Rejected::NoTopUp))
            }
            Command::SetTopUp(set) => {
                let account = self.awake()?;
                let set = account.set_top_up(set, clock);
                Ok(set.map(|changes| (told(200, to_json(&account.top_up_view(clock))), changes)))
            }
            Command::SeePaymentMethod(at, seen) => {
                let changes = self.awake()?.payment_method_seen(at, seen, clock);
                Ok(Ok((told(200, to_json(&self.awake()?.view())), changes)))
            }
            Command::SeeTopUp(invoice) => {
                let changes = self.awake()?.top_up_invoice_changed(&invoice, clock);
                Ok(Ok((told(200, to_json(&self.awake()?.view())), changes)))
            }
            Command::RetryTopUp => {
                let account = self.awake()?;
                let retried = account.retry_top_up(clock);
                Ok(retried
                    .map(|changes| (told(202, to_json(&account.top_up_view(clock))), changes)))
            }
            Command::Adjust(adjustment) => {
                let account = self.awake()?;
                let adjusted = account.adjust(adjustment, clock);
                Ok(adjusted.map(|changes| (told(201, to_json(&account.balance_view())), changes)))
            }
            Command::Grant(grant) => {
                let account = self.awake()?;
                let pool = grant.pool.clone();
                let granted = account.grant(grant, clock);
                Ok(granted.map(|(lot, changes)| {
                    (told(201, to_json(&account.lot_view(&pool, lot))), changes)
                }))
            }
            Command::Close => {
                let changes = self.awake()?.close(clock);
                Ok(Ok((told(204, String::new()), changes)))
            }
            Command::Patch(patch) => {
                let account = self.awake()?;
                let patched = account.patch(patch, clock);
                Ok(patched.map(|changes| (told(200, to_json(&account.view())), changes)))
            }
            Command::CreateKey { new, digest } => {
                let account = self.awake()?;
                let created = account.create_key(new, digest, clock);
                Ok(created
                    .map(|(number, changes)| (with_secret(account, 201, number, clock), changes)))
            }
            Command::RotateKey { rotate, digest } => {
                self.wake_key(rotate.key)?;
                let account = self.awake()?;
                let rotated = account.rotate_key(rotate, digest, clock);
                Ok(rotated.map(|changes| (with_secret(account, 200, rotate.key, clock), changes)))
            }
            Command::PatchKey { key, patch } => {
                self.wake_key(key)?;
                let account = self.awake()?;
                let patched = account.patch_key(key, patch, clock);
                Ok(patched
                    .map(|changes| (told(200, to_json(&account.key_view(key, clock))), changes)))
            }
            Command::RevokeKey(number) => {
                self.wake_key(number)?;
                let revoked = self.awake()?.revoke_key(number, clock);
                Ok(revoked.map(|changes| (told(204, String::new()), changes)))
            }
        }
    }

    /// The origin's or the operator's word on how a call ended.
    fn end_call(
        &mut self,
        call: CallNumber,
        word: Word,
        clock: Timestamp,
    ) -> Result<Done, Failure> {
        let Some(mut row) = self.row_to_change(call)? else {
            return Ok(Err(Rejected::UnknownCall));
        };
        self.wake_key(row.call.key)?;
        let changes = match self.awake()?.conclude(&row, word, clock) {
            Ok(changes) => changes,
            Err(rejected) => return Ok(Err(rejected)),
        };
        if let Some(end) = changes.ended.iter().find(|end| end.call == call) {
            row.outcome = Some(end.outcome.clone());
        }
        Ok(Ok((told(200, self.call_json(row)?), changes)))
    }

    fn row_of(&mut self, call: CallNumber) -> Result<Option<CallRow>, Failure> {
        match self.awake()?.month_of(call) {
            Some(month) => self.store.call(month, call).map_err(storage),
            None => Ok(None),
        }
    }

    fn row_to_change(&mut self, call: CallNumber) -> Result<Option<CallRow>, Failure> {
        if self.awake()?.is_open_to_change(call) {
            self.row_of(call)
        } else {
            Ok(None)
        }
    }

    fn call_json(&mut self, row: CallRow) -> Result<String, Failure> {
        Ok(to_json(&self.awake()?.call_view(row)))
    }

    fn awake(&mut self) -> Result<&mut Account, Failure> {
        self.account.as_mut().ok_or(Failure::NoAccount)
    }

    /// Rebuilds the account from storage, unless it is awake.
    fn wake(&mut self, clock: Timestamp) -> Result<(), Failure> {
        if self.account.is_some() {
            return Ok(());
        }
        let Some(loaded) = self.store.load().map_err(storage)? else {
            self.tombstone = self.load_tombstone()?;
            self.opening = self.load_opening()?;
            return Err(Failure::NoAccount);
        };
        let notices = loaded.notices.as_deref();
        let stored = Stored::read(&loaded.profile, &loaded.snapshot, notices)?;
        let keys = self.store.keys(&stored.keys()).map_err(storage)?;
        let mut rows = Vec::new();
        for call in stored.open() {
            if let Some(month) = month_of(stored.log(), *call) {
                rows.extend(self.store.call(month, *call).map_err(storage)?);
            }
        }
        if let Some(last) = stored.log().last() {
            rows.extend(
                self.store
                    .calls_after(last.month, stored.last_call(), u64::from(u32::MAX))
                    .map_err(storage)?,
            );
        }
        let (account, changes) = stored.wake(Arc::clone(&self.policy), &keys, rows, clock)?;
        self.account = Some(account);
        self.commit(changes, None)
    }

    /// Commits what a command changed. If that fails, or the books were found broken, memory is ahead
    /// of storage and is dropped.
    fn commit(
        &mut self,
        mut changes: Changes,
        remember: Option<Remembered>,
    ) -> Result<(), Failure> {
        if changes.is_empty() && remember.is_none() {
            return Ok(());
        }
        if let Some(broken) = changes.broken.take() {
            self.account = None;
            self.audit = None;
            return Err(broken.into());
        }
        let account = self.account.as_mut().ok_or(Failure::NoAccount)?;
        account.note_balances(&mut changes);
        if changes.profile || !changes.keys.is_empty() || !changes.flagged.is_empty() {
            changes.snapshot |= account.note_listing();
        }
        let mut keys = Vec::new();
        if changes.snapshot {
            keys = account.put_to_rest(&mut changes);
            changes.totals = account.take_totals();
        }
        let of_awake = |number: &KeyNumber| Some((*number, account.key_bytes(*number)?));
        keys.extend(changes.keys.iter().filter_map(of_awake));
        let write = Write {
            month: account.log().last().map(|last| last.month),
            profile: changes.profile.then(|| account.profile_bytes()),
            keys,
            snapshot: changes.snapshot.then(|| account.take_snapshot()),
            notices: changes.notices.then(|| account.notices_bytes()),
            remember,
            // An account that is there is wanted no more.
            opening: self.opening.take().map(|_| Intent::Forget),
            tombstone: None,
            changes,
        };
        if write.changes.dropped_month.is_some() {
            // Its calls come in another form from now on: an audit begins anew.
            self.audit = None;
        }
        let committed = self
            .rebook(&write.changes, Audit::unbook_call)
            .and_then(|()| self.store.commit(&write).map_err(storage))
            .and_then(|()| self.rebook(&write.changes, Audit::book_call));
        if committed.is_err() {
            self.account = None;
            self.audit = None;
        } else {
            self.flagged.extend(write.changes.flagged);
        }
        committed
    }
}

const fn reads_per_minute(page: &Page) -> u32 {
    match page {
        Page::Me | Page::Credits | Page::Quote | Page::Usage(_) => READS_PER_MINUTE,
        Page::UsageSummary(_) | Page::Ledger(_) | Page::Payments(_) => LONG_READS_PER_MINUTE,
    }
}

fn storage<E: std::fmt::Display>(error: E) -> Failure {
    Failure::Storage(error.to_string())
}

fn month_of(log: &[LogMonth], call: CallNumber) -> Option<MonthNumber> {
    let after = log.partition_point(|month| month.first <= call);
    Some(log.get(after.checked_sub(1)?)?.month)
}

fn document(status: u16, json: String) -> Document {
    Document {
        status,
        json,
        standing: None,
        created_key: None,
    }
}

fn told(status: u16, json: String) -> Reply {
    Reply::Document(document(status, json))
}

/// What is only looked at.
fn shown(json: String) -> (Reply, Changes) {
    (told(200, json), Changes::default())
}

/// A key that has just got a secret, for the Worker to sign.
fn with_secret(account: &Account, status: u16, key: KeyNumber, clock: Timestamp) -> Reply {
    Reply::Document(Document {
        created_key: Some(key),
        ..document(status, to_json(&account.key_view(key, clock)))
    })
}

fn complaint(code: Code, detail: &str) -> Complaint {
    Complaint {
        code,
        detail: detail.to_owned(),
        field: None,
        retry_after_seconds: None,
    }
}

fn to_json<T: serde::Serialize>(value: &T) -> String {
    // The views are plain structs with string keys: serialising them cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}

impl Rejected {
    fn complaint(self) -> Complaint {
        let of_field = |field: &str, detail: String| Complaint {
            field: Some(field.to_owned()),
            ..complaint(Code::BadRequest, &detail)
        };
        let of_secret = |detail: &str| Complaint {
            field: Some("secret".to_owned()),
            ..complaint(Code::Conflict, detail)
        };
        match self {
            Self::UnknownPlan(plan) => {
                of_field("plan", format!("plan: the policy has no plan {plan:?}"))
            }
            Self::UnknownPoolToWatch(pool) => of_field(
                "balance_low",
                format!("balance_low: the policy has no pool {pool:?}"),
            ),
            Self::UnknownEvent => complaint(
                Code::NotFound,
                "there is no such event, or it is no longer kept",
            ),
            Self::NobodyToTell => complaint(
                Code::Conflict,
                "the policy has no [notifications], so nobody is told",
            ),
            Self::UnknownPool(pool) => {
                of_field("pool", format!("pool: the policy has no pool {pool:?}"))
            }
            Self::TooManyCredits => of_field(
                "amount",
                format!(
                    "amount: the pool would have more than {} credits",
                    Credits::MAX
                ),
            ),
            Self::AlreadyExpired => of_field(
                "expires_at",
                "expires_at: expected a moment to come".to_owned(),
            ),
            Self::BelowZero(available) => of_field(
                "amount",
                format!(
                    "amount: the pool has {available} credits to take away, and a balance never goes below zero"
                ),
            ),
            Self::NotByQuantity => of_field(
                "value",
                "value: the price of this call does not depend on a quantity; tell credits"
                    .to_owned(),
            ),
            Self::AboveHold(held) => complaint(
                Code::AboveHold,
                &format!("the call holds {held} credits, and no more can be charged"),
            ),
            Self::NoTopUp => complaint(
                Code::NotFound,
                "this deployment sells no automatic top-up",
            ),
            Self::CapTooLow(whole) => of_field(
                "monthly_cap",
                format!(
                    "monthly_cap: expected {whole} or more, the price of a top-up from 0 to the target"
                ),
            ),
            Self::TopUpCannotRun(why) => complaint(
                Code::Conflict,
                &format!("no top-up can be made now: {why}"),
            ),
            Self::TooManyRetries(wait) => {
                let seconds = wait.as_seconds_ceil();
                Complaint {
                    retry_after_seconds: u64::try_from(seconds).ok(),
                    ..complaint(
                        Code::RateLimited,
                        &format!(
                            "a top-up can be asked for 3 times an hour and 10 times a day; try \
                             again in {seconds} s"
                        ),
                    )
                }
            }
            Self::AlreadySettled => complaint(Code::AlreadySettled, "this call was settled before"),
            Self::TooLateToRefund => complaint(
                Code::AlreadySettled,
                "this call was settled more than 30 days ago, which is too long for a refund",
            ),
            Self::AlreadyReleased => complaint(
                Code::AlreadyReleased,
                "everything that this call held or was charged was given back before",
            ),
            Self::OutsidePolicy { index, item } => of_field(
                &format!("scope[{index}]"),
                format!(
                    "scope[{index}]: expected a route of the policy that needs a key, as its \
                     match has it (\"POST /search\"), or all of them below a path \
                     (\"GET /tracks/*\"), found {item:?}"
                ),
            ),
            Self::NoBudgetPool => of_field(
                "budget",
                format!(
                    "budget: it is of the pool {BUDGET_POOL:?}, which the policy does not have"
                ),
            ),
            Self::Closed(at) => complaint(
                Code::Conflict,
                &format!(
                    "this account was closed at {}, which is for good; its calls can still be ended",
                    at.to_rfc3339()
                ),
            ),
            Self::Suspended(reason) => complaint(
                Code::AccountSuspended,
                reason.as_deref().unwrap_or("this account is suspended"),
            ),
            Self::UnknownPackage(id) => of_field(
                "package",
                format!("package: the policy has no package {id:?}"),
            ),
            Self::NotSold(plan) => of_field(
                "plan",
                format!("plan: {plan:?} is no plan that is bought"),
            ),
            Self::AlreadySubscribed => complaint(
                Code::Conflict,
                "this account has a subscription; the billing portal changes or cancels it",
            ),
            Self::Disputed => complaint(
                Code::Conflict,
                "nothing is sold to this account while one of its payments is disputed",
            ),
            Self::OpenedElsewhere => complaint(
                Code::NotFound,
                "this account was opened at another time: another deployment's is meant",
            ),
            Self::UnknownKey => complaint(Code::NotFound, "there is no such key"),
            Self::RevokedKey => complaint(
                Code::Conflict,
                "this key was revoked, which is for good; issue another one",
            ),
            Self::ExpiredKey => complaint(
                Code::Conflict,
                "this key has expired; give it another expires_at first",
            ),
            Self::SecretRevoked(key) => of_secret(&format!(
                "secret: it is that of {key}, which was revoked for good"
            )),
            Self::SecretRotated(key) => of_secret(&format!(
                "secret: it was that of {key}, which was rotated and has another one since"
            )),
            Self::SecretKnown(key) => of_secret(&format!(
                "secret: it is that of {key}, which is otherwise than told here; change that key"
            )),
            Self::SecretTaken(key) => of_secret(&format!(
                "secret: it is that of {key}; another account can have it when that key is revoked"
            )),
            Self::UnknownCall => complaint(
                Code::NotFound,
                "there is no such call, or it is no longer kept",
            ),
            Self::RolledUpSince => of_field(
                "next",
                "next: the month that it is in has been summed up by days since; ask again without next"
                    .to_owned(),
            ),
            Self::TooManyKeys(most) => complaint(
                Code::Conflict,
                &format!("the account has {most} keys, as many as it may have; revoke one first"),
            ),
        }
    }
}
