//! What is stored of an account, and how it is rebuilt exactly from that.
//!
//! A snapshot is the state as of some call. It is written together with everything that calls do
//! not tell (entries, corrections, undone admissions), so that what comes after it in storage is
//! admissions and answers only: rows whose effect does not depend on their order.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Account, CALLS_PER_SNAPSHOT, CALLS_REPLAYED_MAX, Changes, Key, LogMonth, Notices, Profile,
    SNAPSHOT_BYTES_PER_CALL, State, at_rest,
};
use crate::{
    call::{CallRow, CallState},
    id::{CallNumber, KeyNumber},
    ledger::Unsound,
    policy::Policy,
    status::Hours,
    time::Timestamp,
    wire::{Decode, Encode},
};

/// A stored account that cannot be read: it must not serve until it can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// What is wrong, for the log.
    pub detail: String,
}

impl Broken {
    /// Storage and memory do not agree on whether this call is open.
    pub(super) fn open_call(call: CallNumber) -> Self {
        Self {
            detail: format!("call {call} is open on its row or in memory, not in both"),
        }
    }

    /// There is no row of this call to be written.
    pub(super) fn no_row(call: CallNumber) -> Self {
        Self {
            detail: format!("call {call} is in no month that is kept"),
        }
    }
}

impl From<Unsound> for Broken {
    fn from(unsound: Unsound) -> Self {
        let detail = match unsound {
            Unsound::Lot(lot) => format!("lot {} has not what a call takes of it", lot.get()),
            Unsound::AboveHold => "a call is charged more than it holds".to_owned(),
        };
        Self { detail }
    }
}

impl From<minicbor::decode::Error> for Broken {
    fn from(error: minicbor::decode::Error) -> Self {
        Self {
            detail: format!("stored bytes: {error}"),
        }
    }
}

#[derive(Encode)]
#[cbor(array)]
struct SnapshotRef<'a> {
    #[n(0)]
    state: &'a State,
    #[n(1)]
    open: Vec<CallNumber>,
    #[n(2)]
    at_rest: Vec<(u32, u32)>,
}

#[derive(Debug, Decode)]
#[cbor(array)]
struct Snapshot {
    #[n(0)]
    state: State,
    #[n(1)]
    open: Vec<CallNumber>,
    /// Runs of keys whose rows are not needed: the first and the last of each.
    #[cbor(n(2), default)]
    at_rest: Vec<(u32, u32)>,
}

/// A stored account on its way to wake up.
#[derive(Debug)]
pub struct Stored {
    profile: Profile,
    snapshot: Snapshot,
    /// So many calls are admitted before the next.
    snapshot_calls: u32,
    notices: Notices,
}

impl Stored {
    /// Reads the profile, the snapshot, and which events are still to be sent, if there ever were any.
    ///
    /// # Errors
    /// Bytes that no version of this crate wrote.
    pub fn read(profile: &[u8], snapshot: &[u8], notices: Option<&[u8]>) -> Result<Self, Broken> {
        Ok(Self {
            profile: minicbor::decode(profile)?,
            snapshot: minicbor::decode(snapshot)?,
            snapshot_calls: calls_after(snapshot),
            notices: notices
                .map(minicbor::decode)
                .transpose()?
                .unwrap_or_default(),
        })
    }

    /// The keys that are not at rest: their rows are needed, as far as there are any.
    #[must_use]
    pub fn keys(&self) -> Vec<KeyNumber> {
        at_rest::awake(&self.snapshot.at_rest, self.profile.keys_issued)
    }

    /// The calls that were open at the snapshot: their rows are needed.
    #[must_use]
    pub fn open(&self) -> &[CallNumber] {
        &self.snapshot.open
    }

    /// The last call that the snapshot counts: the rows after it are needed. A month's first call
    /// comes with a snapshot, so they are all in the last month's table.
    #[must_use]
    pub const fn last_call(&self) -> u64 {
        self.snapshot.state.calls_admitted
    }

    /// The months of the call log that are kept, oldest first.
    #[must_use]
    pub fn log(&self) -> &[LogMonth] {
        &self.snapshot.state.log
    }

    /// Wakes the account: `keys` are the rows of [`Stored::keys`]; `rows` are those of [`Stored::open`] and those after
    /// [`Stored::last_call`], each once and in their order.
    ///
    /// The changes are what a policy that was edited meanwhile brings.
    ///
    /// # Errors
    /// A row that is named and not there, or one that says what no version of this crate wrote.
    pub fn wake(
        self,
        policy: Arc<Policy>,
        keys: &[(KeyNumber, Vec<u8>)],
        rows: Vec<CallRow>,
        clock: Timestamp,
    ) -> Result<(Account, Changes), Broken> {
        if !rows.is_sorted_by_key(|row| row.call.number) {
            return Err(Broken {
                detail: "the calls' rows are out of order".to_owned(),
            });
        }
        for number in &self.snapshot.open {
            if rows
                .binary_search_by_key(number, |row| row.call.number)
                .is_err()
            {
                return Err(Broken {
                    detail: format!("call {number} is open and has no row"),
                });
            }
        }
        let mut awake = BTreeMap::new();
        for (number, row) in keys {
            let mut key: Key = minicbor::decode(row)?;
            // It has counted more since it was at rest, if it was: the state tells.
            key.counted = None;
            awake.insert(*number, key);
        }
        let last = self.snapshot.state.calls_admitted;
        let mut account = Account {
            policy,
            profile: self.profile,
            keys: awake,
            state: self.snapshot.state,
            open: BTreeMap::new(),
            operations: BTreeMap::new(),
            deadlines: Default::default(),
            in_flight: BTreeMap::new(),
            refusals: BTreeMap::new(),
            refused: Hours::default(),
            told: Hours::default(),
            calls_to_snapshot: self.snapshot_calls,
            clock,
            gathering: None,
            notices: self.notices,
            balances: Vec::new(),
            top_up_looked_at: clock,
        };
        for row in rows {
            if row.call.number.get() > last {
                account.state.calls_admitted = row.call.number.get();
                account.calls_to_snapshot = account.calls_to_snapshot.saturating_sub(1);
                account.count_admitted(&row.call)?;
            }
            account.replay_end(row)?;
        }
        account.look_at_balances();
        let mut changes = Changes::default();
        account.adopt_policy(clock, &mut changes);
        Ok((account, changes))
    }
}

impl Account {
    /// Books what a row says about its call's answer or end.
    fn replay_end(&mut self, row: CallRow) -> Result<(), Broken> {
        let Some(outcome) = row.outcome else {
            self.add_open(row.call);
            return Ok(());
        };
        match outcome.state {
            CallState::Job if outcome.status.is_none() => Err(Broken {
                detail: format!("call {} is a job and has no answer", row.call.number),
            }),
            CallState::Settled | CallState::Released | CallState::Job => {
                let booked = self.state.latest.max(outcome.at);
                let mut changes = Changes::default();
                self.count_ended(row.call, &outcome, booked, &mut changes);
                match changes.broken {
                    Some(broken) => Err(broken),
                    None if changes.is_empty() => Ok(()),
                    None => Err(Broken {
                        detail: "an end that came back to an expired lot has no snapshot"
                            .to_owned(),
                    }),
                }
            }
            CallState::Open => {
                self.add_open(row.call);
                Ok(())
            }
            CallState::Cancelled
            | CallState::UnknownReleased
            | CallState::UnknownCharged
            | CallState::Refunded => Err(Broken {
                detail: format!(
                    "call {} ended as {:?} without a snapshot",
                    row.call.number, outcome.state
                ),
            }),
        }
    }

    /// Takes over what the policy now says of the account's plan. Limits change at once, grants
    /// with their next renewal; a plan that is gone stays as it was.
    fn adopt_policy(&mut self, clock: Timestamp, changes: &mut Changes) {
        let Some(plan) = self.policy.plans.get(&self.profile.plan.name) else {
            return;
        };
        if **plan == self.profile.plan {
            return;
        }
        // What fell due before was under the old plan.
        let plan = plan.as_ref().clone();
        self.book_due(clock, changes);
        self.profile.plan = plan;
        changes.profile = true;
        changes.snapshot = true;
        self.start_missing_grants(self.state.latest, changes);
    }

    /// The profile as it is stored.
    #[must_use]
    pub fn profile_bytes(&self) -> Vec<u8> {
        encoded(&self.profile)
    }

    /// A key as it is stored.
    #[must_use]
    pub fn key_bytes(&self, number: KeyNumber) -> Option<Vec<u8>> {
        self.keys.get(&number).map(encoded)
    }

    /// The snapshot to be stored; forgets what no longer matters first.
    pub fn take_snapshot(&mut self) -> Vec<u8> {
        let latest = self.state.latest;
        self.state.ledger.let_go(latest);
        self.move_refusals();
        self.forget_old_refusals();
        self.forget_idle_minutes();
        let snapshot = encoded(&SnapshotRef {
            state: &self.state,
            open: self.open.keys().copied().collect(),
            at_rest: self.at_rest(),
        });
        self.calls_to_snapshot = calls_after(&snapshot);
        snapshot
    }

    /// Counts a call towards the next snapshot.
    pub(super) fn is_snapshot_due(&mut self) -> bool {
        self.calls_to_snapshot = self.calls_to_snapshot.saturating_sub(1);
        self.calls_to_snapshot == 0
    }
}

/// So many calls are admitted from this snapshot to the next.
fn calls_after(snapshot: &[u8]) -> u32 {
    let bytes = u32::try_from(snapshot.len()).unwrap_or(u32::MAX);
    (bytes / SNAPSHOT_BYTES_PER_CALL).clamp(CALLS_PER_SNAPSHOT, CALLS_REPLAYED_MAX)
}

/// Encoding into memory cannot fail.
pub(super) fn encoded<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).unwrap_or_default()
}
