//! What the admin API shows that no account's object knows.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use crate::{
    credits::Credits,
    policy::{Plan, Renews},
};

/// `GET /plans`: the plans of the policy.
#[must_use]
pub fn plans(plans: &BTreeMap<String, Arc<Plan>>) -> String {
    let page = PlansView {
        data: plans.values().map(|plan| PlanView::of(plan)).collect(),
        next: None,
    };
    // Texts and numbers alone: writing them cannot fail.
    serde_json::to_string(&page).unwrap_or_default()
}

/// The answer to `POST …/keys` and `…/rotate`: the object's document of a key with the key itself,
/// or with null where it was made, and shown, by an earlier request.
#[must_use]
pub fn with_key(document: &str, key: Option<&str>) -> String {
    let start = document.strip_suffix('}').unwrap_or(document);
    // A key has only characters that JSON writes as they are.
    match key {
        Some(key) => format!(r#"{start},"key":"{key}"}}"#),
        None => format!(r#"{start},"key":null}}"#),
    }
}

#[derive(Serialize)]
struct PlansView<'a> {
    data: Vec<PlanView<'a>>,
    next: Option<&'a str>,
}

#[derive(Serialize)]
struct PlanView<'a> {
    name: &'a str,
    paid: bool,
    limits: LimitsView,
    max_keys: Option<u32>,
    grants: Vec<GrantView<'a>>,
}

#[derive(Serialize)]
struct LimitsView {
    requests_per_minute: Option<u32>,
    requests_per_day: Option<u32>,
    requests_in_flight: Option<u32>,
    jobs_open: Option<u32>,
    account_requests_per_minute: Option<u32>,
}

#[derive(Serialize)]
struct GrantView<'a> {
    pool: &'a str,
    amount: Credits,
    renews: &'static str,
    rollover: Credits,
}

impl<'a> PlanView<'a> {
    fn of(plan: &'a Plan) -> Self {
        let limits = plan.limits;
        Self {
            name: &plan.name,
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
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::policy::{Grant, Limits};

    #[test]
    fn plans_are_shown_as_the_policy_says_them() {
        let plan = Plan {
            name: "free".to_owned(),
            limits: Limits {
                requests_per_minute: Some(5),
                ..Limits::default()
            },
            grants: vec![Grant {
                pool: "credits".to_owned(),
                amount: Credits::new(50).unwrap(),
                renews: Renews::CalendarMonth,
                rollover: Credits::ZERO,
            }],
            ..Plan::default()
        };
        let list = BTreeMap::from([("free".to_owned(), Arc::new(plan))]);
        assert_eq!(
            plans(&list),
            concat!(
                r#"{"data":[{"name":"free","paid":false,"#,
                r#""limits":{"requests_per_minute":5,"requests_per_day":null,"#,
                r#""requests_in_flight":null,"jobs_open":null,"#,
                r#""account_requests_per_minute":null},"max_keys":null,"#,
                r#""grants":[{"pool":"credits","amount":50,"renews":"calendar-month","#,
                r#""rollover":0}]}],"next":null}"#
            )
        );
    }

    #[test]
    fn a_new_key_is_shown_once() {
        let document = r#"{"id":"key_acme_1"}"#;
        assert_eq!(
            with_key(document, Some("tk_live_abc")),
            r#"{"id":"key_acme_1","key":"tk_live_abc"}"#
        );
        assert_eq!(
            with_key(document, None),
            r#"{"id":"key_acme_1","key":null}"#
        );
    }
}
