//! The operator's commands: open an account, change it, grant credits. Those about keys are in
//! `account/keys.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Account, CALLS_PER_SNAPSHOT, Changes, Fingerprint, Notices, Profile, State, Status,
    Subscription, SubscriptionStatus,
};
use crate::{
    credits::Credits,
    event::{BalanceLow, Event},
    id::{AccountId, ExternalId, KeyId},
    ledger::{Book, EntryKind, LotNumber, NewLot, Spending},
    payments::money::Money,
    policy::{Plan, Policy, Renews, Source},
    status::Hours,
    time::{Span, Timestamp},
    wire::{Decode, Encode},
};

/// Opens an account.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct NewAccount {
    /// Its id.
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
    /// The plan's name.
    #[n(4)]
    pub plan: String,
    /// `subscription.billing_day`; the day of the month on which it is opened, if not told.
    #[n(5)]
    pub billing_day: Option<u8>,
    /// `subscription.status`; active if not told.
    #[n(6)]
    pub subscription: Option<StatusChange>,
    /// The request that opens it.
    #[n(7)]
    pub opened_by: Fingerprint,
}

/// Changes an account: what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PatchAccount {
    /// Another plan's name.
    #[n(0)]
    pub plan: Option<String>,
    /// Active, or suspended with a reason.
    #[n(1)]
    pub status: Option<Status>,
    /// A name for people.
    #[n(2)]
    pub name: Option<Edit>,
    /// An e-mail address.
    #[n(3)]
    pub email: Option<Edit>,
    /// `subscription.billing_day`.
    #[n(4)]
    pub billing_day: Option<u8>,
    /// `subscription.status`.
    #[n(5)]
    pub subscription: Option<StatusChange>,
    /// Whether its flags, and what they restrict, are taken away.
    #[cbor(n(6), default)]
    pub dismisses_flags: bool,
    /// By pool, the thresholds that it has in place of the policy's.
    #[n(22)]
    pub balance_low: Option<Edit<BalanceLow>>,
}

/// What becomes of something that an account or a key can do without. Not an `Option` in an `Option`: on the
/// wire, to remove it would be to leave it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Edit<T = String> {
    /// It becomes this one.
    #[n(0)]
    Set(#[n(0)] T),
    /// It is removed.
    #[n(1)]
    Remove,
}

impl<T> Edit<T> {
    pub(super) fn into_value(self) -> Option<T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Remove => None,
        }
    }
}

/// What a subscription's status becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum StatusChange {
    /// Paid.
    #[n(0)]
    Active,
    /// No further grant; active until its cycle's end.
    #[n(1)]
    Cancelled,
    /// Not paid.
    #[n(2)]
    Lapsed,
}

/// Adds a lot.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct NewGrant {
    /// The pool.
    #[n(0)]
    pub pool: String,
    /// Its credits: at least 1.
    #[n(1)]
    pub amount: Credits,
    /// Its source.
    #[n(2)]
    pub source: Source,
    /// When what is left of it expires.
    #[n(3)]
    pub expires_at: Option<Timestamp>,
    /// The operator's word on what it is for.
    #[n(4)]
    pub reference: Option<String>,
}

/// Corrects what a pool can give by an entry, never by rewriting.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Adjustment {
    /// The pool.
    #[n(0)]
    pub pool: String,
    /// Its credits.
    #[n(1)]
    pub credits: Credits,
    /// Whether they are taken away.
    #[n(2)]
    pub takes_away: bool,
    /// Why, for the ledger.
    #[n(3)]
    pub reason: String,
}

/// Why a command of the operator's is not carried out. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// The policy has no such plan.
    UnknownPlan(String),
    /// The policy has no such pool.
    UnknownPool(String),
    /// The policy has no pool of this name, for whose balance there could be thresholds.
    UnknownPoolToWatch(String),
    /// No event of that number is kept.
    UnknownEvent,
    /// The policy tells nobody of events.
    NobodyToTell,
    /// The account was closed, for good, at this moment.
    Closed(Timestamp),
    /// The account is suspended.
    Suspended(Option<String>),
    /// The policy has no such package.
    UnknownPackage(String),
    /// The plan is none that customers buy.
    NotSold(String),
    /// There is a subscription already.
    AlreadySubscribed,
    /// Nothing is sold while a payment is disputed.
    Disputed,
    /// Another deployment's account of the same id is meant.
    OpenedElsewhere,
    /// No key of that number was issued.
    UnknownKey,
    /// The key was revoked, for good.
    RevokedKey,
    /// The key's time is up.
    ExpiredKey,
    /// The secret is that of a key of this account that was revoked.
    SecretRevoked(KeyId),
    /// The secret is one that a key of this account had before it was rotated.
    SecretRotated(KeyId),
    /// The secret is that of a key of this account that is otherwise than told.
    SecretKnown(KeyId),
    /// The secret is that of another account's key.
    SecretTaken(KeyId),
    /// An item of a key's scope names no route of the policy that needs a key.
    OutsidePolicy {
        /// Its place, from 0.
        index: usize,
        /// What it is.
        item: String,
    },
    /// The policy does not have the pool that budgets are of.
    NoBudgetPool,
    /// No call of that number was admitted, or it is no longer kept.
    UnknownCall,
    /// A summary cannot go on where an earlier page stopped.
    RolledUpSince,
    /// The account has as many keys as it may.
    TooManyKeys(u32),
    /// The pool's sum would be no number that JSON carries.
    TooManyCredits,
    /// The lot, or the key, would expire before it was there.
    AlreadyExpired,
    /// The pool has less than is to be taken away.
    BelowZero(Credits),
    /// The call was settled before.
    AlreadySettled,
    /// The call was settled more than 30 days ago.
    TooLateToRefund,
    /// Everything that the call held or was charged went back before.
    AlreadyReleased,
    /// The call would cost more than it holds.
    AboveHold(Credits),
    /// The call's price does not depend on a quantity.
    NotByQuantity,
    /// The policy sells no automatic top-up.
    NoTopUp,
    /// The cap of a month is below the price of one whole top-up.
    CapTooLow(Money),
    /// No top-up can be made now, for this reason.
    TopUpCannotRun(String),
    /// The customer has asked for too many of them, and may again after so long.
    TooManyRetries(Span),
}

impl Rejected {
    /// Whether it depends on how the account stands, which may be otherwise when the request comes
    /// again, and not on the request and the policy alone: who mends the policy may repeat the request.
    #[must_use]
    pub const fn is_of_the_moment(&self) -> bool {
        match self {
            Self::Closed(_)
            | Self::Suspended(_)
            | Self::AlreadySubscribed
            | Self::Disputed
            | Self::RevokedKey
            | Self::ExpiredKey
            | Self::SecretRevoked(_)
            | Self::SecretRotated(_)
            | Self::SecretKnown(_)
            | Self::SecretTaken(_)
            | Self::TooManyKeys(_)
            | Self::TooManyCredits
            | Self::BelowZero(_)
            | Self::AlreadySettled
            | Self::TooLateToRefund
            | Self::AlreadyReleased
            | Self::AboveHold(_)
            | Self::TopUpCannotRun(_)
            | Self::TooManyRetries(_) => true,
            Self::UnknownPlan(_)
            | Self::UnknownPool(_)
            | Self::UnknownPoolToWatch(_)
            | Self::UnknownEvent
            | Self::NobodyToTell
            | Self::UnknownPackage(_)
            | Self::NotSold(_)
            | Self::OpenedElsewhere
            | Self::UnknownKey
            | Self::OutsidePolicy { .. }
            | Self::NoBudgetPool
            | Self::UnknownCall
            | Self::RolledUpSince
            | Self::AlreadyExpired
            | Self::NotByQuantity
            | Self::NoTopUp
            | Self::CapTooLow(_) => false,
        }
    }
}

impl Account {
    /// Opens an account on a plan that [`find_plan`] found. The directory has listed it as this
    /// `version` of it.
    #[must_use]
    pub fn open(
        policy: Arc<Policy>,
        plan: Plan,
        new: NewAccount,
        version: u64,
        clock: Timestamp,
    ) -> (Self, Changes) {
        let billing_day = new
            .billing_day
            .unwrap_or_else(|| policy.gateway.calendar.day_of_month(clock));
        let mut account = Self {
            policy,
            profile: Profile {
                id: new.id,
                external_id: new.external_id,
                name: new.name,
                email: new.email,
                created_at: clock,
                plan,
                status: Status::Active,
                subscription: Subscription {
                    status: SubscriptionStatus::Active,
                    billing_day,
                },
                keys_issued: 0,
                signed_under: BTreeMap::new(),
                errands: BTreeMap::new(),
                balance_low: None,
            },
            keys: BTreeMap::new(),
            state: State {
                latest: clock,
                ..State::default()
            },
            open: BTreeMap::new(),
            operations: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            refusals: BTreeMap::new(),
            refused: Hours::default(),
            told: Hours::default(),
            calls_to_snapshot: CALLS_PER_SNAPSHOT,
            clock,
            gathering: None,
            notices: Notices::default(),
            balances: Vec::new(),
            top_up_looked_at: clock,
        };
        let mut changes = Changes {
            profile: true,
            snapshot: true,
            ..Changes::default()
        };
        if new.subscription == Some(StatusChange::Cancelled) {
            // The running cycle is paid; no further grant comes.
            account.start_missing_grants(clock, &mut changes);
        }
        if let Some(change) = new.subscription {
            account.change_subscription(change);
        }
        account.start_missing_grants(clock, &mut changes);
        account.was_told(version);
        account.look_at_balances();
        (account, changes)
    }

    /// Changes the account.
    ///
    /// # Errors
    /// No such plan, or no such pool.
    pub fn patch(&mut self, patch: PatchAccount, clock: Timestamp) -> Result<Changes, Rejected> {
        let plan = patch.plan.map(|name| self.plan_named(&name)).transpose()?;
        if let Some(Edit::Set(thresholds)) = &patch.balance_low {
            let mut pools = thresholds.pools();
            if let Some(unknown) = pools.find(|pool| !self.policy.pools.contains_key(*pool)) {
                return Err(Rejected::UnknownPoolToWatch(unknown.to_owned()));
            }
        }
        let mut changes = Changes::default();
        self.book_due(clock, &mut changes);
        let before = self.profile.clone();
        if let Some(name) = patch.name {
            self.profile.name = name.into_value();
        }
        if let Some(email) = patch.email {
            self.profile.email = email.into_value();
        }
        if let Some(thresholds) = patch.balance_low {
            self.profile.balance_low = thresholds.into_value();
        }
        if (&before.name, &before.email) != (&self.profile.name, &self.profile.email) {
            self.rename_customer(clock, &mut changes);
        }
        if let Some(status) = patch.status {
            self.change_status(status, &mut changes);
            if before.status != self.profile.status && self.may_buy().is_err() {
                self.close_pages(clock, &mut changes);
            }
        }
        if let Some(billing_day) = patch.billing_day {
            self.profile.subscription.billing_day = billing_day;
        }
        if let Some(change) = patch.subscription {
            let was_granting = self.is_granting();
            self.change_subscription(change);
            if self.is_granting() && !was_granting {
                self.fit_running_lots("subscription resumed", &mut changes);
            }
        }
        if let Some(plan) = plan.filter(|plan| *plan != self.profile.plan) {
            self.change_plan(plan, &mut changes);
        }
        self.start_missing_grants(self.state.latest, &mut changes);
        changes.profile |= before != self.profile;
        // The directory is told of what comes with the profile.
        changes.profile |= patch.dismisses_flags && self.dismiss_flags();
        changes.snapshot |= changes.profile;
        Ok(changes)
    }

    /// Adds a lot.
    ///
    /// # Errors
    /// No such pool, more credits than can be summed, or an expiry that is past.
    pub fn grant(
        &mut self,
        grant: NewGrant,
        clock: Timestamp,
    ) -> Result<(LotNumber, Changes), Rejected> {
        if !self.policy.pools.contains_key(&grant.pool) {
            return Err(Rejected::UnknownPool(grant.pool));
        }
        if !self.state.ledger.has_room_for(&grant.pool, grant.amount) {
            return Err(Rejected::TooManyCredits);
        }
        let now = self.state.latest.max(clock);
        if grant.expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Err(Rejected::AlreadyExpired);
        }
        let mut changes = Changes::default();
        self.book_due(clock, &mut changes);
        let moment = self.moment(now);
        let (lot, entry) = self.state.ledger.grant(
            NewLot {
                kind: EntryKind::Granted,
                pool: &grant.pool,
                source: grant.source,
                amount: grant.amount,
                expires_at: grant.expires_at,
                reference: grant.reference,
            },
            moment,
        );
        changes.enter(entry);
        Ok((lot, changes))
    }

    /// Corrects what a pool can give. What is taken away is taken in the order of spending; what
    /// is added is a lot that never expires.
    ///
    /// # Errors
    /// No such pool, more credits than can be summed, or fewer than are to be taken away.
    pub fn adjust(
        &mut self,
        adjustment: Adjustment,
        clock: Timestamp,
    ) -> Result<Changes, Rejected> {
        let Adjustment {
            pool,
            credits,
            takes_away,
            reason,
        } = adjustment;
        if !self.policy.pools.contains_key(&pool) {
            return Err(Rejected::UnknownPool(pool));
        }
        let mut changes = Changes::default();
        if !takes_away {
            if !self.state.ledger.has_room_for(&pool, credits) {
                return Err(Rejected::TooManyCredits);
            }
            self.book_due(clock, &mut changes);
            let lot = NewLot {
                kind: EntryKind::Adjusted,
                pool: &pool,
                source: Source::Promo,
                amount: credits,
                expires_at: None,
                reference: Some(reason),
            };
            let (_, entry) = self.state.ledger.grant(lot, self.moment(self.state.latest));
            changes.enter(entry);
            return Ok(changes);
        }
        let spending = Spending {
            extra: true,
            ..self.spending(&pool, self.state.latest.max(clock))
        };
        let none = Book::default();
        let parts = self
            .state
            .ledger
            .book(&pool)
            .unwrap_or(&none)
            .choose(credits, credits, spending)
            .map_err(|short| Rejected::BelowZero(short.available))?;
        self.book_due(clock, &mut changes);
        let moment = self.moment(self.state.latest);
        for part in parts {
            let amount = self
                .state
                .ledger
                .book(&pool)
                .and_then(|book| book.lot(part.lot))
                .map_or(Credits::ZERO, |lot| lot.amount.saturating_sub(part.credits));
            if let Some(entry) = self
                .state
                .ledger
                .set_amount(&pool, part.lot, amount, &reason, moment)
            {
                changes.enter(entry);
            }
        }
        Ok(changes)
    }

    /// Issues what the plan grants and the account does not have yet: one-time grants never
    /// given, and recurring ones that have no running cycle.
    pub(super) fn start_missing_grants(&mut self, at: Timestamp, changes: &mut Changes) {
        if !self.is_granting() {
            return;
        }
        let is_due = self.is_granting_by_the_clock(at);
        for grant in self.profile.plan.grants.clone() {
            let Some(grant) = self.paid_grant(&grant) else {
                continue;
            };
            match grant.renews {
                Renews::Never => {
                    let once = format!("{}/{}", self.profile.plan.name, grant.pool);
                    if !self.state.given_once.insert(once.clone()) {
                        continue;
                    }
                    let moment = self.moment(at);
                    let (_, entry) = self.state.ledger.grant(
                        NewLot {
                            kind: EntryKind::Granted,
                            pool: &grant.pool,
                            source: Source::Promo,
                            amount: grant.amount,
                            expires_at: None,
                            reference: Some(once),
                        },
                        moment,
                    );
                    changes.enter(entry);
                }
                Renews::Monthly | Renews::CalendarMonth => {
                    let mut running = self.state.cycles.iter();
                    if is_due && running.all(|cycle| cycle.pool != grant.pool) {
                        let Some(grant) = self.kept_grant(grant) else {
                            continue;
                        };
                        let reference = self.grant_reference(&grant, at);
                        let ends_at = self.cycle_end(grant.renews, at);
                        self.start_cycle(&grant, reference, (at, ends_at), changes);
                    }
                }
            }
        }
    }

    /// Limits change at once; the running subscription lots' amounts become the new allowances.
    fn change_plan(&mut self, plan: Plan, changes: &mut Changes) {
        let reference = format!("plan {} to {}", self.profile.plan.name, plan.name);
        self.profile.plan = plan;
        self.plan_given();
        self.fit_running_lots(&reference, changes);
    }

    /// Sets the running subscription lots to the plan's allowances, less what was taken back of them; while the
    /// plan grants nothing, to no more than they were.
    fn fit_running_lots(&mut self, reference: &str, changes: &mut Changes) {
        let moment = self.moment(self.state.latest);
        for cycle in self.state.cycles.clone() {
            let allowance = self
                .whole_grant(&cycle.pool)
                .map_or(Credits::ZERO, |grant| grant.amount)
                .saturating_sub(cycle.taken);
            let amount = self
                .state
                .ledger
                .book(&cycle.pool)
                .and_then(|book| book.lot(cycle.lot))
                .map_or(Credits::ZERO, |lot| lot.amount);
            let amount = if self.is_granting() {
                allowance
            } else {
                allowance.min(amount)
            };
            let entry =
                self.state
                    .ledger
                    .set_amount(&cycle.pool, cycle.lot, amount, reference, moment);
            if let Some(entry) = entry {
                changes.enter(entry);
            }
        }
    }

    fn change_status(&mut self, status: Status, changes: &mut Changes) {
        let was_suspended = matches!(self.profile.status, Status::Suspended { .. });
        self.profile.status = status;
        if let Status::Suspended { reason } = &self.profile.status
            && !was_suspended
        {
            let reason = reason.clone();
            let at = self.state.latest;
            self.emit(&Event::AccountSuspended { reason }, at, changes);
        }
    }

    fn change_subscription(&mut self, change: StatusChange) {
        let now = self.state.latest;
        self.profile.subscription.status = match change {
            StatusChange::Active => SubscriptionStatus::Active,
            StatusChange::Lapsed => SubscriptionStatus::Lapsed,
            StatusChange::Cancelled => match self.profile.subscription.status {
                // Cancelling again does not move the end.
                cancelled @ SubscriptionStatus::Cancelled(_) => cancelled,
                SubscriptionStatus::Active => {
                    SubscriptionStatus::Cancelled(self.subscription_ends_at(now))
                }
                // Nothing is paid that could run on.
                SubscriptionStatus::Lapsed => SubscriptionStatus::Cancelled(now),
            },
        };
    }

    /// The end of the running cycle: of the monthly grant's if there is one, else of the calendar
    /// month's, else the next billing day.
    fn subscription_ends_at(&self, now: Timestamp) -> Timestamp {
        let end_of = |renews| {
            let running = self.state.cycles.iter();
            running
                .filter(|cycle| cycle.renews == renews)
                .map(|cycle| cycle.ends_at)
                .min()
        };
        end_of(Renews::Monthly)
            .or_else(|| end_of(Renews::CalendarMonth))
            .unwrap_or_else(|| {
                self.policy
                    .gateway
                    .calendar
                    .next_billing(now, self.profile.subscription.billing_day)
            })
    }

    /// The plan as the policy has it; the account's own also when the policy has it no more.
    pub(super) fn plan_named(&self, name: &str) -> Result<Plan, Rejected> {
        match find_plan(&self.policy, name) {
            Err(_) if name == self.profile.plan.name => Ok(self.profile.plan.clone()),
            found => found,
        }
    }
}

/// The plan as the policy has it.
///
/// # Errors
/// No such plan.
pub fn find_plan(policy: &Policy, name: &str) -> Result<Plan, Rejected> {
    policy
        .plans
        .get(name)
        .map(|plan| plan.as_ref().clone())
        .ok_or_else(|| Rejected::UnknownPlan(name.to_owned()))
}
