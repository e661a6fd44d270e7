//! `GET /accounts/{id}/events`: its query, and what accounts say of when they are told of.

use super::json::Value;
use crate::{
    credits::Credits,
    cursor::{Cursors, Listing},
    event::{BalanceLow, THRESHOLD_POOLS_MAX, THRESHOLDS_MAX, Thresholds},
    id::EventId,
    problem::Problem,
    protocol::{EventState, EventsQuery},
    self_service::Parameters,
};

const PAGE: u32 = 50;
const PAGE_MAX: u32 = 500;

/// The query about an account's events.
pub(super) fn query(query: Option<&str>, cursors: Cursors<'_>) -> Result<EventsQuery, Problem> {
    let parameters = Parameters::read(query, &["limit", "next", "state"])?;
    let before = parameters.next(cursors, Listing::Events, EventId::parse)?;
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
