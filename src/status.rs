//! What an operator watches: how many requests came to what, hour by hour.
//!
//! Accounts count in memory and in what they store anyway (`account/figures.rs`); the directory sums
//! up what they tell it (`directory/figures.rs`); `GET /status` shows the sums. What never reaches an
//! account's object is counted nowhere here: see `data_point.rs`.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer, ser::SerializeSeq};

use crate::{
    account::FIGURES_SPREAD,
    problem::Problem,
    self_service::Parameters,
    time::{Calendar, Span, Timestamp},
    wire::{Decode, Encode},
};

/// So many hours are kept, by the directory and by accounts that cannot tell it: 31 days of them, or
/// more where nothing happened in some.
pub const HOURS_KEPT: usize = 744;
/// What is shown where no period is asked for.
const PERIOD: Span = Span::from_days(1);
/// An alarm is not punctual.
const SLACK: Span = Span::MINUTE;

/// Refusals by the name of their code: text, so that a release that does not know a code can read it.
pub type Refusals = BTreeMap<String, u64>;

/// How many they are.
#[must_use]
pub fn sum_of(refusals: &Refusals) -> u32 {
    let sum = refusals.values().copied().fold(0, u64::saturating_add);
    u32::try_from(sum).unwrap_or(u32::MAX)
}

/// What requests came to in one hour. Stored and told; places are only added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct Counts {
    /// Requests that became calls, those that were undone later included.
    #[n(0)]
    pub admitted: u64,
    /// Requests that the account refused, or an isolate in its name.
    #[n(1)]
    pub refused: Refusals,
    /// Requests that were answered, or let through, without the account, as far as it heard of it.
    #[n(2)]
    pub unavailable: u64,
    /// Holds that nobody ended before their deadline.
    #[n(3)]
    pub ended_unknown: u64,
    /// Such ends that were replaced by the real one.
    #[n(4)]
    pub late_settles: u64,
    /// Audits that found a difference.
    #[n(5)]
    pub failed_audits: u64,
}

impl Counts {
    /// Counts `times` refusals with this code.
    pub fn refuse(&mut self, code: &str, times: u64) {
        let refused = self.refused.entry(code.to_owned()).or_default();
        *refused = refused.saturating_add(times);
    }

    /// Adds what `other` counts.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, u64::saturating_add);
    }

    fn combine(&mut self, other: &Self, operation: fn(u64, u64) -> u64) {
        for (own, other) in [
            (&mut self.admitted, other.admitted),
            (&mut self.unavailable, other.unavailable),
            (&mut self.ended_unknown, other.ended_unknown),
            (&mut self.late_settles, other.late_settles),
            (&mut self.failed_audits, other.failed_audits),
        ] {
            *own = operation(*own, other);
        }
        for (code, times) in &other.refused {
            let own = self.refused.entry(code.clone()).or_default();
            *own = operation(*own, *times);
        }
        self.refused.retain(|_, times| *times > 0);
    }
}

/// One more of a figure.
pub const fn one_more(figure: &mut u64) {
    *figure = figure.saturating_add(1);
}

/// Counts by the first moment of their hour, in UTC; never empty ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Hours(#[n(0)] BTreeMap<Timestamp, Counts>);

impl Hours {
    /// The counts of the hour that `clock` lies in, for something to be counted.
    pub fn at(&mut self, clock: Timestamp) -> &mut Counts {
        let hour = hour_of(clock);
        if self.0.len() >= HOURS_KEPT && !self.0.contains_key(&hour) {
            self.0.pop_first();
        }
        self.0.entry(hour).or_default()
    }

    /// Adds what `other` counts.
    pub fn add(&mut self, other: &Self) {
        for (hour, counts) in &other.0 {
            self.at(*hour).add(counts);
        }
    }

    /// What is counted here beyond what `other` counts.
    #[must_use]
    pub fn less(&self, other: &Self) -> Self {
        let mut left = self.clone();
        for (hour, counts) in &mut left.0 {
            if let Some(other) = other.0.get(hour) {
                counts.combine(other, u64::saturating_sub);
            }
        }
        left.0.retain(|_, counts| *counts != Counts::default());
        left
    }

    /// Those that are over at `clock`. What a clock counted that was ahead of it has to wait.
    #[must_use]
    pub fn over(mut self, clock: Timestamp) -> Self {
        self.0.retain(|hour, _| *hour < hour_of(clock));
        self
    }

    /// Puts the counts of an hour here.
    pub fn put(&mut self, hour: Timestamp, counts: Counts) {
        self.0.insert(hour, counts);
    }

    /// The first hour.
    #[must_use]
    pub fn first(&self) -> Option<Timestamp> {
        self.0.keys().next().copied()
    }

    /// Whether nothing is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The hours, the first first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Timestamp, &Counts)> {
        self.0.iter().map(|(hour, counts)| (*hour, counts))
    }
}

/// The first moment of the hour, in UTC, that `moment` lies in.
fn hour_of(moment: Timestamp) -> Timestamp {
    Calendar::default().hour_of(moment)
}

/// Which hours `GET /status` shows: those that begin in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusQuery {
    /// From this moment on; `None`: a day before `to`.
    pub from: Option<Timestamp>,
    /// Until before this moment; `None`: now.
    pub to: Option<Timestamp>,
}

impl StatusQuery {
    /// Reads the parameters.
    ///
    /// # Errors
    ///
    /// 400 with the name of the parameter that is unknown, repeated or wrong.
    pub fn read(query: Option<&str>) -> Result<Self, Problem> {
        let parameters = Parameters::read(query, &["from", "to"])?;
        let (from, to) = parameters.period()?;
        Ok(Self { from, to })
    }

    /// From when until when.
    #[must_use]
    pub fn period(&self, clock: Timestamp) -> (Timestamp, Timestamp) {
        let to = self.to.unwrap_or(clock);
        let from = self.from.unwrap_or_else(|| hour_of(to.minus(PERIOD)));
        (from, to)
    }
}

#[derive(Serialize)]
struct StatusView<'a> {
    as_of: Timestamp,
    from: Timestamp,
    to: Timestamp,
    data: NewestFirst<'a>,
    next: Option<&'a str>,
}

struct NewestFirst<'a>(&'a Hours);

#[derive(Serialize)]
struct HourView<'a> {
    hour: Timestamp,
    #[serde(flatten)]
    counts: &'a Counts,
}

impl Serialize for NewestFirst<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut hours = serializer.serialize_seq(None)?;
        for (hour, counts) in self.0.iter().rev() {
            hours.serialize_element(&HourView { hour, counts })?;
        }
        hours.end()
    }
}

/// `GET /status`: the hours in `period`, the newest first, as seen at `clock` where calls are held
/// for `hold` at most.
///
/// What began before `as_of` has been told by every account that could tell it: its alarm goes off
/// when the hold of its last call is over, and once more when it is its turn to tell.
#[must_use]
pub fn status(
    hours: &Hours,
    (from, to): (Timestamp, Timestamp),
    clock: Timestamp,
    hold: Span,
) -> String {
    let told_until = clock.minus(FIGURES_SPREAD).minus(hold).minus(SLACK);
    let view = StatusView {
        as_of: hour_of(told_until),
        from,
        to,
        data: NewestFirst(hours),
        next: None,
    };
    // Texts and numbers alone: writing them cannot fail.
    serde_json::to_string(&view).unwrap_or_default()
}
