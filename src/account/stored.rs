//! What is stored of an account, and how it is rebuilt exactly from that.
//!
//! A snapshot is the state as of some call. It is written together with everything that calls do
//! not tell (entries, corrections, undone admissions), so that what comes after it in storage is
//! admissions and answers only: rows whose effect does not depend on their order.

use std::{collections::BTreeMap, sync::Arc};

use super::{Account, CALLS_PER_SNAPSHOT, Changes, Key, LogMonth, Notices, Profile, State};
use crate::{
    call::{CallRow, CallState},
    id::{CallNumber, KeyNumber},
    policy::Policy,
    time::Timestamp,
    wire::{Decode, Encode},
};

/// A stored account that cannot be read: it must not serve until it can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// What is wrong, for the log.
    pub detail: String,
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
}

#[derive(Debug, Decode)]
#[cbor(array)]
struct Snapshot {
    #[n(0)]
    state: State,
    #[n(1)]
    open: Vec<CallNumber>,
}

/// A stored account on its way to wake up.
#[derive(Debug)]
pub struct Stored {
    profile: Profile,
    keys: BTreeMap<KeyNumber, Key>,
    snapshot: Snapshot,
    notices: Notices,
}

impl Stored {
    /// Reads the profile, the keys, the snapshot, and which events are still to be sent, if there
    /// ever were any.
    ///
    /// # Errors
    /// Bytes that no version of this crate wrote.
    pub fn read<'a>(
        profile: &[u8],
        keys: impl Iterator<Item = (KeyNumber, &'a [u8])>,
        snapshot: &[u8],
        notices: Option<&[u8]>,
    ) -> Result<Self, Broken> {
        let mut read = BTreeMap::new();
        for (number, bytes) in keys {
            read.insert(number, minicbor::decode(bytes)?);
        }
        Ok(Self {
            profile: minicbor::decode(profile)?,
            keys: read,
            snapshot: minicbor::decode(snapshot)?,
            notices: notices
                .map(minicbor::decode)
                .transpose()?
                .unwrap_or_default(),
        })
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

    /// Wakes the account: `rows` are those of [`Stored::open`] and those after
    /// [`Stored::last_call`], each once and in their order.
    ///
    /// The changes are what a policy that was edited meanwhile brings.
    ///
    /// # Errors
    /// A row that is named and not there, or one that says what no version of this crate wrote.
    pub fn wake(
        self,
        policy: Arc<Policy>,
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
        let last = self.snapshot.state.calls_admitted;
        let mut account = Account {
            policy,
            profile: self.profile,
            keys: self.keys,
            state: self.snapshot.state,
            open: BTreeMap::new(),
            operations: BTreeMap::new(),
            deadlines: Default::default(),
            in_flight: BTreeMap::new(),
            refusals: BTreeMap::new(),
            calls_since_snapshot: 0,
            gathering: None,
            notices: self.notices,
            balances: Vec::new(),
            top_up_looked_at: clock,
        };
        for row in rows {
            if row.call.number.get() > last {
                account.state.calls_admitted = row.call.number.get();
                account.calls_since_snapshot = account.calls_since_snapshot.saturating_add(1);
                account.count_admitted(&row.call);
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
            CallState::Settled | CallState::Released | CallState::Job => {
                let at = outcome.at;
                let mut changes = Changes::default();
                self.count_ended(row.call, &outcome, at, &mut changes);
                if changes.is_empty() {
                    Ok(())
                } else {
                    Err(Broken {
                        detail: "an end that came back to an expired lot has no snapshot"
                            .to_owned(),
                    })
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
        self.calls_since_snapshot = 0;
        encoded(&SnapshotRef {
            state: &self.state,
            open: self.open.keys().copied().collect(),
        })
    }

    /// Counts a call towards the next snapshot.
    pub(super) fn is_snapshot_due(&mut self) -> bool {
        self.calls_since_snapshot = self.calls_since_snapshot.saturating_add(1);
        self.calls_since_snapshot >= CALLS_PER_SNAPSHOT
    }
}

/// Encoding into memory cannot fail.
pub(super) fn encoded<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).unwrap_or_default()
}
