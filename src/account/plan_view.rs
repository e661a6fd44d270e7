//! What operators read of a plan.

use serde::Serialize;

use crate::{
    credits::Credits,
    policy::{Plan, Renews},
};

/// A plan as the admin API tells it.
#[derive(Debug, Serialize)]
pub struct PlanView<'a> {
    name: &'a str,
    /// In `GET /plans`: whether the policy has it, so that accounts can be put on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_policy: Option<bool>,
    /// In `GET /plans`: how many accounts have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    accounts: Option<u64>,
    paid: bool,
    limits: LimitsView,
    max_keys: Option<u32>,
    grants: Vec<GrantView<'a>>,
}

#[derive(Debug, Serialize)]
struct LimitsView {
    requests_per_minute: Option<u32>,
    requests_per_day: Option<u32>,
    requests_in_flight: Option<u32>,
    jobs_open: Option<u32>,
    account_requests_per_minute: Option<u32>,
}

#[derive(Debug, Serialize)]
struct GrantView<'a> {
    pool: &'a str,
    amount: Credits,
    renews: &'static str,
    rollover: Credits,
}

impl<'a> PlanView<'a> {
    /// The plan by itself.
    #[must_use]
    pub fn of(plan: &'a Plan) -> Self {
        let limits = plan.limits;
        Self {
            name: &plan.name,
            in_policy: None,
            accounts: None,
            paid: plan.paid,
            limits: LimitsView {
                requests_per_minute: limits.requests_per_minute,
                requests_per_day: limits.requests_per_day,
                requests_in_flight: limits.requests_in_flight,
                jobs_open: limits.jobs_open,
                account_requests_per_minute: limits.account_requests_per_minute,
            },
            max_keys: plan.max_keys,
            grants: plan
                .grants
                .iter()
                .map(|grant| GrantView {
                    pool: &grant.pool,
                    amount: grant.amount,
                    renews: match grant.renews {
                        Renews::Never => "never",
                        Renews::Monthly => "monthly",
                        Renews::CalendarMonth => "calendar-month",
                    },
                    rollover: grant.rollover,
                })
                .collect(),
        }
    }

    /// With how it stands in the deployment.
    #[must_use]
    pub fn in_force(self, in_policy: bool, accounts: u64) -> Self {
        Self {
            in_policy: Some(in_policy),
            accounts: Some(accounts),
            ..self
        }
    }
}
