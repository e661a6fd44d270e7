//! `GET /accounts/{id}/events`: its query, and what accounts say of when they are told of.

use super::json::Value;
use crate::{
    credits::Credits,
    event::{BalanceLow, THRESHOLD_POOLS_MAX, THRESHOLDS_MAX, Thresholds},
    id::{AccountId, EventId},
    problem::Problem,
    protocol::{EventState, EventsQuery},
    self_service::Parameters,
};

const PAGE: u32 = 50;
const PAGE_MAX: u32 = 500;

/// The query about events of `account`.
pub(super) fn query(query: Option<&str>, account: &AccountId) -> Result<EventsQuery, Problem> {
    let parameters = Parameters::read(query, &["limit", "next", "state"])?;
    let before = parameters.read_as("next", "the `next` of an earlier page", |text| {
        EventId::parse(text).filter(|event| event.account == *account)
    })?;
    let states = "waiting, delivered or parked";
    Ok(EventsQuery {
        limit: parameters.whole("limit", 1, PAGE_MAX)?.unwrap_or(PAGE),
        before: before.map(|event| event.number),
        state: parameters.read_as("state", states, |text| {
            let mut known = EventState::NAMES.iter();
            known
                .find(|(name, _)| *name == text)
                .map(|(_, state)| *state)
        })?,
    })
}

/// `balance_low`: by pool, the thresholds that an account has in place of the policy's.
pub(super) fn thresholds(value: &Value<'_>) -> Result<BalanceLow, Problem> {
    let mut all = Vec::new();
    for (pool, list) in value.entries(THRESHOLD_POOLS_MAX)? {
        let thresholds = list.list(THRESHOLDS_MAX)?.into_iter().map(|threshold| {
            let credits = threshold.whole(1, Credits::MAX.get())?;
            Ok(Credits::new(credits).unwrap_or(Credits::MAX))
        });
        let below = thresholds.collect::<Result<_, Problem>>()?;
        all.push(Thresholds { pool, below });
    }
    Ok(BalanceLow::new(all))
}
