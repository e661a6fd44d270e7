//! What operators and customers read of keys, in the shapes of the contract.

use serde::Serialize;

use super::{Account, FlagView, Key, KeyLimits, Scope};
use crate::{
    credits::Credits,
    id::{KeyId, KeyNumber},
    protocol::KeysQuery,
    time::Timestamp,
};

/// The status of a key that is dead for good: by itself, or with its account.
const REVOKED: &str = "revoked";

/// A key as the admin API tells it.
#[derive(Debug, Serialize)]
pub struct KeyView<'a> {
    id: KeyId,
    name: Option<&'a str>,
    status: &'static str,
    created_at: Timestamp,
    last_used_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    limits: Option<KeyLimits>,
    scope: Option<&'a Scope>,
    budget: Option<Credits>,
    /// What its calls of this month hold and were charged, with a budget or without.
    budget_used: u64,
    rotated_at: Option<Timestamp>,
    /// Whether it was issued before Tollgate.
    imported: bool,
    /// Until when the secret before the last rotation is good.
    overlap_ends_at: Option<Timestamp>,
    refused_today: u32,
    /// What is unusual about it; left out where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    flag: Option<FlagView<'a>>,
}

/// `GET …/keys`: the oldest first.
#[derive(Debug, Serialize)]
pub struct KeysView<'a> {
    data: Vec<KeyView<'a>>,
    /// What to ask for with `next=` to see what comes after; `null` at the end.
    next: Option<String>,
}

/// The customer's own key, in `GET /me`.
#[derive(Debug, Serialize)]
pub struct OwnKeyView<'a> {
    id: KeyId,
    name: Option<&'a str>,
    expires_at: Option<Timestamp>,
    scope: Option<&'a Scope>,
    budget: Option<Credits>,
    budget_used: u64,
}

impl Account {
    /// A key as the admin API tells it.
    #[must_use]
    pub fn key_view(&self, number: KeyNumber, clock: Timestamp) -> Option<KeyView<'_>> {
        let key = self.keys.get(&number)?;
        let usage = self.state.usage.get(&number);
        let today = self.policy.gateway.calendar.day_of(clock);
        Some(KeyView {
            id: self.key_id(number),
            name: key.name.as_deref(),
            status: if self.is_closed() {
                REVOKED
            } else {
                key.status(clock)
            },
            created_at: key.created_at,
            last_used_at: usage.and_then(|usage| usage.last_used_at),
            expires_at: key.expires_at,
            limits: key.limits,
            scope: key.scope.as_ref(),
            budget: key.budget,
            budget_used: self.cost_of_month(number, clock),
            rotated_at: key.rotated_at,
            imported: key.imported.is_some(),
            overlap_ends_at: key.overlap_ends_at(clock),
            refused_today: usage.map_or(0, |usage| usage.refused.of(today)),
            flag: self.flag_of(number).map(|flag| flag.view(self.id())),
        })
    }

    /// A page of the keys.
    #[must_use]
    pub fn keys_view(&self, query: &KeysQuery, clock: Timestamp) -> KeysView<'_> {
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let mut numbers = self.keys_after(query.after.unwrap_or(KeyNumber::new(0)));
        let page: Vec<KeyNumber> = numbers.by_ref().take(limit).collect();
        let last = page.last().filter(|_| numbers.next().is_some());
        KeysView {
            next: last.map(ToString::to_string),
            data: page
                .into_iter()
                .filter_map(|number| self.key_view(number, clock))
                .collect(),
        }
    }

    /// The keys with a higher number, the oldest first.
    pub fn keys_after(&self, last: KeyNumber) -> impl Iterator<Item = KeyNumber> + '_ {
        let first = KeyNumber::new(last.get().saturating_add(1));
        self.keys.range(first..).map(|(key, _)| *key)
    }

    /// The customer's own key.
    pub(super) fn own_key_view(
        &self,
        number: KeyNumber,
        clock: Timestamp,
    ) -> Option<OwnKeyView<'_>> {
        let key = self.keys.get(&number)?;
        Some(OwnKeyView {
            id: self.key_id(number),
            name: key.name.as_deref(),
            expires_at: key.expires_at,
            scope: key.scope.as_ref(),
            budget: key.budget,
            budget_used: self.cost_of_month(number, clock),
        })
    }

    /// The id of the key `number`.
    #[must_use]
    pub fn key_id(&self, number: KeyNumber) -> KeyId {
        KeyId {
            account: self.profile.id.clone(),
            number,
        }
    }
}

impl Key {
    fn status(&self, clock: Timestamp) -> &'static str {
        if self.revoked_at.is_some() {
            REVOKED
        } else if self.is_expired(clock) {
            "expired"
        } else if self.overlap_ends_at(clock).is_some() {
            "rotating"
        } else {
            "active"
        }
    }
}
