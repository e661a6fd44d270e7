//! `/usage/summary`: lines of totals, put together as a chart wants them.

use std::collections::BTreeMap;

use crate::wire::{Decode, Encode};
use serde::Serialize;

use super::{Line, Tally};
use crate::{
    id::{AccountId, KeyId, KeyNumber},
    policy::DEFAULT_POOL,
    time::{Calendar, Span, Timestamp},
};

/// How many days are told where nobody says from when, the last one included.
const DAYS_TOLD: i64 = 30;

/// What the lines of a summary are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// A local day each.
    #[default]
    #[n(0)]
    Day,
    /// An hour each; a day each where single calls are no longer kept.
    #[n(1)]
    Hour,
    /// A route's template each.
    #[n(2)]
    Endpoint,
    /// A key each.
    #[n(3)]
    Key,
}

/// How much time a line of totals is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Width {
    /// A local day.
    Day,
    /// An hour.
    Hour,
}

/// From when to when a summary tells: whole hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// The start of its first hour.
    pub from: Timestamp,
    /// The end of its last hour.
    pub to: Timestamp,
}

impl Period {
    /// The period that is asked for at `now`, widened to whole hours. Where the end is not told, now
    /// is in it; where the start is not told, it is that of the day 29 days before the last.
    #[must_use]
    pub fn asked(
        from: Option<Timestamp>,
        to: Option<Timestamp>,
        now: Timestamp,
        calendar: Calendar,
    ) -> Self {
        let moment = Span::from_millis(1);
        let to = to.unwrap_or_else(|| from.map_or(now, |from| from.max(now)).plus(moment));
        let last = to.minus(moment);
        let first_day = calendar.day_of(last.minus(Span::from_days(DAYS_TOLD.saturating_sub(1))));
        let from = from.unwrap_or_else(|| calendar.start_of(first_day));
        Self {
            from: calendar.hour_of(from),
            to: calendar.hour_of(last).plus(Span::HOUR),
        }
    }

    /// Whether it has a part of what starts at `at` and is so wide.
    fn meets(self, at: Timestamp, width: Width) -> bool {
        let span = match width {
            Width::Day => Span::from_days(1),
            Width::Hour => Span::HOUR,
        };
        at < self.to && at.plus(span) > self.from
    }
}

/// What the calls of one line have in common. Days and hours are sorted by their time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Time(Timestamp, Width),
    Endpoint(String),
    Key(KeyNumber),
}

/// A summary in the making.
#[derive(Debug)]
pub struct Summary {
    by: By,
    period: Period,
    calendar: Calendar,
    groups: BTreeMap<Group, BTreeMap<String, Tally>>,
}

/// `GET /usage/summary`.
#[derive(Debug, Serialize)]
pub struct SummaryView {
    by: By,
    from: Timestamp,
    to: Timestamp,
    summary: Vec<SummaryLine>,
    /// What to ask for with `next=` to have the rest, which is to be added to this: the same day,
    /// endpoint or key may come again. `null` at the end.
    next: Option<String>,
}

#[derive(Debug, Serialize)]
struct SummaryLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hour: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<KeyId>,
    calls: i64,
    failed: i64,
    /// Of the pool `credits`; every pool is in `pools`.
    credits_consumed: i64,
    pools: BTreeMap<String, i64>,
}

impl Summary {
    /// Nothing yet.
    #[must_use]
    pub const fn new(by: By, period: Period, calendar: Calendar) -> Self {
        Self {
            by,
            period,
            calendar,
            groups: BTreeMap::new(),
        }
    }

    /// Adds a line of totals, if the period has a part of it.
    pub fn add(&mut self, line: &Line, width: Width) {
        if !self.period.meets(line.at, width) {
            return;
        }
        let day = || self.calendar.start_of(self.calendar.day_of(line.at));
        let group = match self.by {
            By::Day => Group::Time(day(), Width::Day),
            By::Hour => Group::Time(line.at, width),
            By::Endpoint => Group::Endpoint(line.endpoint.clone()),
            By::Key => Group::Key(line.key),
        };
        let pools = self.groups.entry(group).or_default();
        match pools.get_mut(&line.pool) {
            Some(tally) => tally.add(line.tally),
            None => {
                pools.insert(line.pool.clone(), line.tally);
            }
        }
    }

    /// The summary as customers and operators of `account` read it.
    #[must_use]
    pub fn into_view(self, account: &AccountId, next: Option<String>) -> SummaryView {
        let calendar = self.calendar;
        let lines = self.groups.into_iter();
        SummaryView {
            by: self.by,
            from: self.period.from,
            to: self.period.to,
            summary: lines
                .map(|(group, pools)| SummaryLine::of(group, pools, account, calendar))
                .collect(),
            next,
        }
    }
}

impl SummaryLine {
    fn of(
        group: Group,
        pools: BTreeMap<String, Tally>,
        account: &AccountId,
        calendar: Calendar,
    ) -> Self {
        let mut sum = Tally::default();
        for tally in pools.values() {
            sum.add(*tally);
        }
        let mut line = Self {
            day: None,
            hour: None,
            endpoint: None,
            key: None,
            calls: sum.calls,
            failed: sum.failed,
            credits_consumed: pools.get(DEFAULT_POOL).map_or(0, |tally| tally.credits),
            pools: pools
                .into_iter()
                .map(|(pool, tally)| (pool, tally.credits))
                .collect(),
        };
        match group {
            Group::Time(at, Width::Day) => line.day = Some(calendar.day_of(at).to_string()),
            Group::Time(at, Width::Hour) => line.hour = Some(at),
            Group::Endpoint(endpoint) => line.endpoint = Some(endpoint),
            Group::Key(number) => {
                line.key = Some(KeyId {
                    account: account.clone(),
                    number,
                });
            }
        }
        line
    }
}
