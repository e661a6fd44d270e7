//! What the admin API shows that no account's object knows.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use crate::{account::PlanView, directory::PlanInForce, policy::Plan};

/// `GET /plans`: the plans of the policy, and those gone from it that accounts still have.
#[must_use]
pub fn plans(sold: &BTreeMap<String, Arc<Plan>>, in_force: &[PlanInForce]) -> String {
    let accounts = |name: &str| {
        let known = in_force.iter().find(|known| known.plan.name == name);
        known.map_or(0, |known| known.accounts)
    };
    let gone = in_force
        .iter()
        .filter(|known| known.accounts > 0 && !sold.contains_key(&known.plan.name))
        .map(|known| PlanView::of(&known.plan).in_force(false, known.accounts));
    let page = PlansView {
        data: sold
            .values()
            .map(|plan| PlanView::of(plan).in_force(true, accounts(&plan.name)))
            .chain(gone)
            .collect(),
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

#[cfg(test)]
mod tests {
    use super::*;

    use crate::{
        credits::Credits,
        policy::{Grant, Limits, Renews},
    };

    #[test]
    fn plans_are_shown_as_the_policy_says_them_and_those_gone_while_accounts_have_them() {
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
        let in_force = |plan: Plan, accounts| PlanInForce { plan, accounts };
        let named = |name: &str| Plan {
            name: name.to_owned(),
            ..Plan::default()
        };
        let in_force = [
            in_force(plan.clone(), 3),
            in_force(named("gone"), 1),
            in_force(named("given up"), 0),
        ];
        let list = BTreeMap::from([
            ("free".to_owned(), Arc::new(plan)),
            ("new".to_owned(), Arc::new(named("new"))),
        ]);
        let bare = concat!(
            r#""paid":false,"limits":{"requests_per_minute":null,"requests_per_day":null,"#,
            r#""requests_in_flight":null,"jobs_open":null,"account_requests_per_minute":null},"#,
            r#""max_keys":null,"grants":[]}"#
        );
        let shown = plans(&list, &in_force);
        assert!(shown.ends_with(&format!(
            r#",{{"name":"new","in_policy":true,"accounts":0,{bare},{{"name":"gone","in_policy":false,"accounts":1,{bare}],"next":null}}"#
        )));
        assert!(shown.starts_with(concat!(
            r#"{"data":[{"name":"free","in_policy":true,"accounts":3,"paid":false,"#,
            r#""limits":{"requests_per_minute":5,"requests_per_day":null,"#,
            r#""requests_in_flight":null,"jobs_open":null,"#,
            r#""account_requests_per_minute":null},"max_keys":null,"#,
            r#""grants":[{"pool":"credits","amount":50,"renews":"calendar-month","#,
            r#""rollover":0}]},"#
        )));
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
