//! What an account is, as the admin API tells it: by itself, and in the directory's lists.

use crate::wire::{Decode, Encode};
use serde::{Serialize, Serializer};

use super::{Account, Flag, FlagView, Status, Subscription, SubscriptionStatus};
use crate::{
    event::BalanceLow,
    id::{AccountId, ExternalId},
    time::Timestamp,
};

/// An account as the admin API tells it. The directory keeps a copy, so places are only added.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Listed {
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
    /// Its plan's name.
    #[n(4)]
    pub plan: String,
    /// Whether it may call.
    #[n(5)]
    pub status: Status,
    /// How its plan is paid for.
    #[n(6)]
    pub subscription: Subscription,
    /// When it was opened.
    #[n(7)]
    pub created_at: Timestamp,
    /// What is unusual about its consumption, the latest first.
    #[cbor(n(9), default)]
    pub flags: Vec<Flag>,
    /// By pool, the thresholds that it has in place of the policy's.
    #[n(22)]
    pub balance_low: Option<BalanceLow>,
}

impl Account {
    /// The account as the admin API tells it.
    #[must_use]
    pub fn view(&self) -> Listed {
        let profile = &self.profile;
        Listed {
            id: profile.id.clone(),
            external_id: profile.external_id.clone(),
            name: profile.name.clone(),
            email: profile.email.clone(),
            plan: profile.plan.name.clone(),
            status: profile.status.clone(),
            subscription: profile.subscription,
            created_at: profile.created_at,
            balance_low: profile.balance_low.clone(),
            flags: self.flags(),
        }
    }
}

impl Status {
    /// The status as it is told and asked for.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended { .. } => "suspended",
            Self::Closed { .. } => "closed",
        }
    }

    /// What the customer is told about it.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Active | Self::Closed { .. } => None,
            Self::Suspended { reason } => reason.as_deref(),
        }
    }

    /// When it was closed.
    #[must_use]
    pub const fn closed_at(&self) -> Option<Timestamp> {
        match self {
            Self::Active | Self::Suspended { .. } => None,
            Self::Closed { at } => Some(*at),
        }
    }
}

#[derive(Serialize)]
struct View<'a> {
    id: &'a AccountId,
    external_id: Option<&'a ExternalId>,
    name: Option<&'a str>,
    email: Option<&'a str>,
    plan: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    subscription: SubscriptionView,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    balance_low: Option<&'a BalanceLow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    flags: Vec<FlagView<'a>>,
}

#[derive(Serialize)]
struct SubscriptionView {
    status: &'static str,
    billing_day: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_at: Option<Timestamp>,
}

impl Serialize for Listed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (subscription, ends_at) = match self.subscription.status {
            SubscriptionStatus::Active => ("active", None),
            SubscriptionStatus::Cancelled(ends_at) => ("cancelled", Some(ends_at)),
            SubscriptionStatus::Lapsed => ("lapsed", None),
        };
        View {
            id: &self.id,
            external_id: self.external_id.as_ref(),
            name: self.name.as_deref(),
            email: self.email.as_deref(),
            plan: &self.plan,
            status: self.status.name(),
            reason: self.status.reason(),
            subscription: SubscriptionView {
                status: subscription,
                billing_day: self.subscription.billing_day,
                ends_at,
            },
            created_at: self.created_at,
            closed_at: self.status.closed_at(),
            balance_low: self.balance_low.as_ref(),
            flags: self.flags.iter().map(|flag| flag.view(&self.id)).collect(),
        }
        .serialize(serializer)
    }
}
