//! The account: keys, limits and ledger behind `admit`, `settle` and the operator's commands.
//!
//! A state machine without I/O. Commands come in with the clock as read; an outcome and the
//! [`Changes`] to commit go out, and [`Account::next_wakeup`] tells when to call again. Every
//! command decides first and applies after, and each first books what has fallen due
//! (`account/due.rs`), so that no timer has to fire for a balance to be right.
//!
//! Memory runs ahead of storage by exactly the `Changes` of one command. If they cannot be
//! committed, the account must be dropped and woken again from what is stored.

mod admit;
mod at_rest;
mod budget;
mod close;
mod conclude;
mod due;
mod figures;
mod habit;
mod hourly;
mod idle;
mod imported;
mod key_view;
mod keys;
mod listed;
mod manage;
mod notices;
mod outbox;
mod payments;
mod plan_view;
mod refusal;
mod refusals;
mod retried;
mod rolled;
mod scope;
mod settle;
mod stored;
mod top_up;
mod unusual;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

pub use self::{
    admit::{Admission, Admit},
    budget::BUDGET_POOL,
    conclude::{Told, Word},
    figures::SPREAD as FIGURES_SPREAD,
    imported::Errand,
    keys::{Key, KeyLimits, Limit, NewKey, OVERLAP_MAX, PatchKey, PreviousSecret, RotateKey},
    listed::Listed,
    manage::{
        Adjustment, Edit, NewAccount, NewGrant, PatchAccount, Rejected, StatusChange, find_plan,
    },
    notices::{Attempt, Messenger},
    payments::Task as StripeTask,
    plan_view::PlanView,
    refusal::{Refusal, Restricted},
    retried::{Earlier, First},
    rolled::{ROLL_UPS_SPREAD, ROWS_PER_SLICE, Rolled, Rolling},
    scope::{SCOPE_MAX, Scope},
    settle::{Cancel, Settled},
    stored::{Broken, Stored},
    top_up::{
        APART as TOP_UP_APART, Ask as TopUpAsk, Asked as TopUpAsked, LEAST_CREDITS as TOP_UP_LEAST,
        TARGET as TOP_UP_TARGET, THRESHOLD as TOP_UP_THRESHOLD, TopUpSettings, TopUpView,
    },
    unusual::{Cause, Flag, FlagView},
    view::{UsageLine, UsageView},
};
use self::{notices::Notices, outbox::Outbox};
use crate::{
    call::{Call, CallRow, Hold, Outcome},
    credits::Credits,
    event::{BalanceLow, EventRecord},
    id::{AccountId, CallNumber, ExternalId, KeyNumber},
    key::SecretId,
    ledger::{Entry, Ledger, LotNumber, Moment},
    limits::{DayCounts, MinuteWindow},
    payments::history::Payment,
    policy::{Plan, Policy, Renews},
    status::Hours,
    time::{Day, MonthNumber, Timestamp},
    totals::Totals,
    wire::{Decode, Encode},
};

/// At most so many holds are open per account: what a wake-up may have to read.
pub const OPEN_CALLS_MAX: usize = 10_000;
/// At most so many keys stand in one account, whatever its plan says.
pub const KEYS_MAX: u32 = 1_000;
/// A snapshot is written with every so-manyth call, now and then with a row of totals.
const CALLS_PER_SNAPSHOT: u32 = 256;
/// A snapshot of more bytes than this for each of them is written less often, so that what a call costs
/// does not grow with how busy the account is.
const SNAPSHOT_BYTES_PER_CALL: u32 = 128;
/// So many calls at most are to be replayed at wake-up.
const CALLS_REPLAYED_MAX: u32 = 2_048;
/// So many of the latest admissions are known by their operation also after their calls ended:
/// what a copy may be late by.
const OPERATIONS_KNOWN: usize = 256;

/// One account, awake.
#[derive(Debug)]
pub struct Account {
    policy: Arc<Policy>,
    profile: Profile,
    /// The keys that are not at rest (`account/at_rest.rs`).
    keys: BTreeMap<KeyNumber, Key>,
    state: State,
    open: BTreeMap<CallNumber, Call>,
    /// The open calls again, by the operation that they were admitted with.
    operations: BTreeMap<u64, CallNumber>,
    /// The open calls again, the one whose time is up first at the front.
    deadlines: BTreeSet<(Timestamp, CallNumber)>,
    in_flight: BTreeMap<KeyNumber, InFlight>,
    /// Refusals that no snapshot counts yet.
    refusals: BTreeMap<KeyNumber, DayCounts>,
    /// The same by hour and code.
    refused: Hours,
    /// What the directory was told last. Not stored: who is woken tells again.
    told: Hours,
    /// So many calls are admitted without a snapshot.
    calls_to_snapshot: u32,
    /// The clock, as the latest command read it.
    clock: Timestamp,
    /// While the oldest month of the log is being rolled up. Not stored.
    gathering: Option<rolled::Gathering>,
    /// Events that are still to be sent. Stored by themselves.
    notices: Notices,
    /// What each of the policy's pools had left when that was last looked at, if anybody is told of
    /// it. Not stored.
    balances: Vec<Credits>,
    /// When it was last looked whether a top-up is due. Not stored.
    top_up_looked_at: Timestamp,
}

/// What an account is, apart from its credits and counts. Stored whole.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Profile {
    /// Its id: never given out again.
    #[n(0)]
    pub id: AccountId,
    /// The operator's own name for it.
    #[n(1)]
    pub external_id: Option<ExternalId>,
    /// A name for people.
    #[n(2)]
    pub name: Option<String>,
    /// An e-mail address.
    #[n(3)]
    pub email: Option<String>,
    /// When it was opened.
    #[n(4)]
    pub created_at: Timestamp,
    /// Its plan with limits and grants, as last seen in a policy: a plan that leaves the policy
    /// stays in force here.
    #[n(5)]
    pub plan: Plan,
    /// Whether it may call.
    #[n(6)]
    pub status: Status,
    /// How its plan is paid for.
    #[n(7)]
    pub subscription: Subscription,
    /// Keys ever issued.
    #[n(8)]
    pub keys_issued: u32,
    /// Which KEY_SECRET keys were signed under that do not say so themselves: those of before they did.
    #[cbor(n(9), default)]
    pub signed_under: BTreeMap<KeyNumber, SecretId>,
    /// What has to be settled with lookup objects about imported keys.
    #[cbor(n(16), default)]
    pub errands: BTreeMap<KeyNumber, Errand>,
    /// By pool, the thresholds that it has in place of the policy's.
    #[n(22)]
    pub balance_low: Option<BalanceLow>,
}

/// A digest of an `Idempotency-Key` and one of what it was sent with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Fingerprint {
    /// SHA-256 of the `Idempotency-Key` and, where it tells calls apart, of whose it is.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub key: [u8; 32],
    /// SHA-256 of what must be the same for a repeat: method, path, body and more.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub request: [u8; 32],
}

/// Whether an account may call.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Status {
    /// It may.
    #[n(0)]
    Active,
    /// The operator stopped it.
    #[n(1)]
    Suspended {
        /// What the customer is told.
        #[n(0)]
        reason: Option<String>,
    },
    /// It was closed, which is for good.
    #[n(2)]
    Closed {
        /// When, in order time.
        #[n(0)]
        at: Timestamp,
    },
}

/// How a plan is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Subscription {
    /// Whether it is.
    #[n(0)]
    pub status: SubscriptionStatus,
    /// The day of the month, 1 to 31, on which monthly grants renew.
    #[n(1)]
    pub billing_day: u8,
}

/// Whether a subscription is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum SubscriptionStatus {
    /// Paid.
    #[n(0)]
    Active,
    /// It gets no further grant and stays active until this moment, its cycle's end.
    #[n(1)]
    Cancelled(#[n(0)] Timestamp),
    /// Not paid: a paid plan grants nothing.
    #[n(2)]
    Lapsed,
}

/// Everything that calls change; the snapshot is this, encoded. What is added later has a default,
/// so that snapshots of the release before can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct State {
    /// The latest time seen: order and money never run backwards.
    #[n(0)]
    latest: Timestamp,
    /// Calls ever admitted: the last call's number.
    #[n(1)]
    calls_admitted: u64,
    /// Lots and what they hold.
    #[n(2)]
    ledger: Ledger,
    /// The running cycles of recurring grants.
    #[n(3)]
    cycles: Vec<Cycle>,
    /// `plan/pool` of one-time grants that were given.
    #[n(4)]
    given_once: BTreeSet<String>,
    /// What each key has done lately; of a key at rest, how often it was refused since.
    #[n(5)]
    usage: BTreeMap<KeyNumber, KeyUsage>,
    /// The window of `account_requests_per_minute`.
    #[n(6)]
    account_minute: MinuteWindow,
    /// The months of the call log that are kept, oldest first.
    #[n(7)]
    log: Vec<LogMonth>,
    /// Operations whose cancel came before their admission, and until when that is remembered.
    #[n(8)]
    cancelled: Vec<(u64, Timestamp)>,
    /// The operations of the latest calls, the last at the back.
    #[cbor(n(9), default)]
    operations: VecDeque<u64>,
    /// Open calls whose deadline came from a stray clock and was brought forward: the new
    /// deadline, and whether it is that of a job.
    #[cbor(n(10), default)]
    brought_forward: BTreeMap<CallNumber, (Timestamp, bool)>,
    /// Hourly totals that are in no table yet.
    #[cbor(n(11), default)]
    unwritten: hourly::Unwritten,
    /// What the directory has to be told.
    #[cbor(n(12), default)]
    outbox: Outbox,
    /// What the directory has to be told of what was counted.
    #[cbor(n(13), default)]
    figures: figures::Figures,
    /// Calls that have ended, undone ones left out: the last end's place.
    #[cbor(n(15), default)]
    ends: u64,
    /// The days whose tables of firsts are kept, in the order in which they were made.
    #[cbor(n(20), default)]
    first_days: Vec<Day>,
    /// What is usually spent, in the order of the pools' names.
    #[cbor(n(21), default)]
    habits: Vec<habit::Habit>,
    /// What it has to do with Stripe.
    #[cbor(n(24), default)]
    billing: payments::Billing,
    /// Its subscription there.
    #[cbor(n(25), default)]
    subscribed: Option<payments::Subscribed>,
    /// Automatic top-up, once the customer has set it.
    #[n(26)]
    top_up: Option<Box<top_up::TopUp>>,
}

/// The running cycle of a recurring grant.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Cycle {
    #[n(0)]
    pool: String,
    /// The lot that it was granted as.
    #[n(1)]
    lot: LotNumber,
    #[n(2)]
    renews: Renews,
    #[n(3)]
    ends_at: Timestamp,
    /// What was taken back of what it was granted with, because its money went back.
    #[cbor(n(4), default)]
    taken: Credits,
}

/// What one key has done lately.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct KeyUsage {
    #[n(0)]
    minute: MinuteWindow,
    #[n(1)]
    days: DayCounts,
    /// Unknown outcomes that were forgiven.
    #[n(2)]
    forgiven: DayCounts,
    #[n(3)]
    last_used_at: Option<Timestamp>,
    #[cbor(n(4), default)]
    costs: budget::Costs,
    /// Refusals, those that isolates repeated from memory included.
    #[cbor(n(5), default)]
    refused: DayCounts,
    /// Why it was last flagged.
    #[n(21)]
    flag: Option<Flag>,
}

/// A month of the call log: its table and the calls in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct LogMonth {
    /// Which month.
    #[n(0)]
    pub month: MonthNumber,
    /// The first call in it.
    #[n(1)]
    pub first: CallNumber,
    /// How many of its rows are of undone admissions.
    #[n(2)]
    pub cancelled: u64,
    /// How far its roll-up has been stored, where it is a huge one.
    #[n(3)]
    pub rolling: Option<Rolling>,
    /// Until when one of its calls can be refunded whose end came late: it is kept as long.
    #[n(4)]
    pub refundable_until: Option<Timestamp>,
}

/// Calls of one key that are open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct InFlight {
    requests: u32,
    /// Those of the requests that open a job if they succeed.
    opening: u32,
    jobs: u32,
}

impl InFlight {
    /// What counts towards `jobs_open`: a job that is still being opened has its place, too, or as
    /// many as are asked for at once would pass.
    const fn jobs_open(self) -> u32 {
        self.jobs.saturating_add(self.opening)
    }

    fn count(&mut self, call: &Call, count: impl Fn(u32) -> u32) {
        if call.is_job() {
            self.jobs = count(self.jobs);
            return;
        }
        self.requests = count(self.requests);
        if call.hold.terms.job.is_some() {
            self.opening = count(self.opening);
        }
    }
}

/// What one command changed: committed as a whole or not at all.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// A table for a month's calls, to be made before anything else.
    pub new_month: Option<MonthNumber>,
    /// New rows of the call log.
    pub admitted: Vec<CallRow>,
    /// What rows of the call log say from now on.
    pub ended: Vec<CallEnd>,
    /// A table for a day's firsts, to be made before anything else.
    pub new_first_day: Option<Day>,
    /// Tables of firsts to be dropped.
    pub past_first_days: Vec<Day>,
    /// What repeats of the new call will find, in place of what they found before.
    pub first: Option<First>,
    /// New entries.
    pub entries: Vec<Entry>,
    /// What is left of a month, or of a part of it.
    pub rolled: Option<Rolled>,
    /// A month's tables that nothing needs any more.
    pub dropped_month: Option<MonthNumber>,
    /// Hourly totals, by the month whose table they go to.
    pub totals: BTreeMap<MonthNumber, Totals>,
    /// Events to be written, or to be written anew.
    pub events: Vec<EventRecord>,
    /// Which events are still to be sent is to be written anew.
    pub notices: bool,
    /// Payments to be written, or written anew.
    pub payments: Vec<Payment>,
    /// Keys to be written anew.
    pub keys: BTreeSet<KeyNumber>,
    /// What was found to be unusual: the directory is told of it, and the log.
    pub flagged: Vec<Flag>,
    /// The profile is to be written anew.
    pub profile: bool,
    /// A snapshot is to be written.
    pub snapshot: bool,
    /// The books are not what they must be: nothing is to be committed, and the account is to be
    /// woken again from what is stored.
    pub broken: Option<Broken>,
}

impl Changes {
    /// Whether there is nothing to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Entries never go without a snapshot: replaying calls must not need them.
    fn enter(&mut self, entry: Entry) {
        self.entries.push(entry);
        self.snapshot = true;
    }

    /// What came of a step that only broken books can fail.
    fn unless_broken<T, E: Into<Broken>>(&mut self, step: Result<T, E>) -> Option<T> {
        step.map_err(|broken| self.broken = Some(broken.into()))
            .ok()
    }
}

/// The new state of a row of the call log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallEnd {
    /// The call.
    pub call: CallNumber,
    /// The month whose table has it.
    pub month: MonthNumber,
    /// What its row says from now on.
    pub outcome: Outcome,
    /// Its hold, where a correction took it from other lots.
    pub hold: Option<Hold>,
}

impl Account {
    /// The account's id.
    #[must_use]
    pub const fn id(&self) -> &AccountId {
        &self.profile.id
    }

    /// What it is.
    #[must_use]
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The months of the call log that are kept, oldest first.
    #[must_use]
    pub fn log(&self) -> &[LogMonth] {
        &self.state.log
    }

    /// The number of the last call admitted; 0 before the first.
    #[must_use]
    pub const fn calls_admitted(&self) -> u64 {
        self.state.calls_admitted
    }

    /// Whether the call's hold still stands.
    #[must_use]
    pub fn is_open(&self, call: CallNumber) -> bool {
        self.open.contains_key(&call)
    }

    /// How many holds stand: a wake-up reads their rows.
    #[must_use]
    pub fn open_calls(&self) -> usize {
        self.open.len()
    }

    /// When [`Account::tick`] should be called, if nothing comes before: the end of the first
    /// hold that nobody may have ended by then, by the clock and not the latest time seen; at once,
    /// while a month is to be rolled up or the account erased; while a top-up is due, every 30 minutes
    /// at the latest.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        let overdue = |due: &Timestamp| *due <= self.state.latest;
        let roll_up = self.next_roll_up().filter(overdue);
        let erasure = self.erased_at().filter(overdue);
        let top_up = self.top_up_at();
        let all = deadline.into_iter().chain(roll_up).chain(erasure);
        all.chain(top_up).min()
    }

    /// Books what has fallen due. Spurious calls are harmless.
    pub fn tick(&mut self, clock: Timestamp) -> Changes {
        let mut changes = Changes::default();
        self.book_due(clock, &mut changes);
        self.top_up_if_due(clock, &mut changes);
        changes
    }

    /// The month of the log that has the last call with a number below `before`.
    #[must_use]
    pub fn month_below(&self, before: u64) -> Option<MonthNumber> {
        self.month_of(CallNumber::new(before.checked_sub(1)?)?)
    }

    /// Lots, what calls hold of them, and what of them is gone.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.state.ledger
    }

    /// The month of the log that `call` is in, if it is still kept.
    #[must_use]
    pub fn month_of(&self, call: CallNumber) -> Option<MonthNumber> {
        let after = self.state.log.partition_point(|month| month.first <= call);
        Some(self.state.log.get(after.checked_sub(1)?)?.month)
    }

    fn log_month_of(&mut self, call: CallNumber) -> Option<&mut LogMonth> {
        let after = self.state.log.partition_point(|month| month.first <= call);
        self.state.log.get_mut(after.checked_sub(1)?)
    }

    /// How many calls have ended: the place of the last end.
    #[must_use]
    pub const fn ends(&self) -> u64 {
        self.state.ends
    }

    /// Takes the next place among the ends.
    fn next_end(&mut self) -> u64 {
        self.state.ends = self.state.ends.saturating_add(1);
        self.state.ends
    }

    fn moment(&self, at: Timestamp) -> Moment {
        Moment {
            at,
            calls_before: self.state.calls_admitted,
        }
    }

    fn add_open(&mut self, mut call: Call) {
        if let Some((deadline, of_job)) = self.state.brought_forward.get(&call.number)
            && *of_job == call.is_job()
        {
            call.hold.deadline = *deadline;
        }
        let in_flight = self.in_flight.entry(call.key).or_default();
        in_flight.count(&call, |count| count.saturating_add(1));
        self.deadlines.insert((call.hold.deadline, call.number));
        self.operations.insert(call.hold.operation, call.number);
        self.open.insert(call.number, call);
    }

    /// The open call that `operation` was the admission of.
    fn open_by(&self, operation: u64) -> Option<&Call> {
        self.open.get(self.operations.get(&operation)?)
    }

    fn take_open(&mut self, number: CallNumber) -> Option<Call> {
        let call = self.open.remove(&number)?;
        self.deadlines.remove(&(call.hold.deadline, number));
        self.operations.remove(&call.hold.operation);
        self.state.brought_forward.remove(&number);
        if let Some(in_flight) = self.in_flight.get_mut(&call.key) {
            in_flight.count(&call, |count| count.saturating_sub(1));
            if *in_flight == InFlight::default() {
                self.in_flight.remove(&call.key);
            }
        }
        Some(call)
    }

    /// Whether the plan's paid part is in force: what `extra_needs_subscription` asks.
    fn has_subscription(&self, now: Timestamp) -> bool {
        self.profile.plan.paid && self.profile.subscription.is_active(now)
    }
}

impl Subscription {
    /// Whether it is paid at `now`.
    #[must_use]
    pub fn is_active(&self, now: Timestamp) -> bool {
        match self.status {
            SubscriptionStatus::Active => true,
            SubscriptionStatus::Cancelled(ends_at) => now < ends_at,
            SubscriptionStatus::Lapsed => false,
        }
    }
}
