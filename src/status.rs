//! What an operator watches: how many requests came to what, hour by hour.
//!
//! Accounts count in memory and in what they store anyway (`account/figures.rs`); the directory sums
//! up what they tell it (`directory/figures.rs`); `GET /status` shows the sums. What never reaches an
//! account's object is counted nowhere here: see `data_point.rs`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    account::FIGURES_SPREAD,
    problem::{Code, Problem},
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

/// How many of them say something of the key ([`Code::is_drawn_by_key`]).
#[must_use]
pub fn drawn_by_key(refusals: &Refusals) -> u32 {
    let is_drawn = |name: &str| {
        let named = Code::ALL.into_iter().find(|code| code.as_str() == name);
        named.is_none_or(Code::is_drawn_by_key)
    };
    let drawn = refusals
        .iter()
        .filter(|(code, _)| is_drawn(code))
        .map(|(_, times)| *times)
        .fold(0, u64::saturating_add);
    u32::try_from(drawn).unwrap_or(u32::MAX)
}

/// What requests came to in one hour. Stored and told; places are only added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct Counts {
    /// When the hour began, in UTC.
    #[n(0)]
    pub hour: Timestamp,
    /// Requests that became calls, those that were undone later included.
    #[n(1)]
    pub admitted: u64,
    /// Requests that the account refused, or an isolate in its name.
    #[n(2)]
    pub refused: Refusals,
    /// Requests that were answered, or let through, without the account, as far as it heard of it.
    #[n(3)]
    pub unavailable: u64,
    /// Holds that nobody ended before their deadline.
    #[n(4)]
    pub ended_unknown: u64,
    /// Such ends that were replaced by the real one.
    #[n(5)]
    pub late_settles: u64,
    /// Audits that found a difference.
    #[n(6)]
    pub failed_audits: u64,
}

impl Counts {
    /// None yet in the hour that `moment` lies in.
    #[must_use]
    pub fn at(moment: Timestamp) -> Self {
        Self {
            hour: hour_of(moment),
            ..Self::default()
        }
    }

    fn is_empty(&self) -> bool {
        let refused = self.refused.values();
        let others = [
            self.admitted,
            self.unavailable,
            self.ended_unknown,
            self.late_settles,
            self.failed_audits,
        ];
        refused.chain(&others).all(|times| *times == 0)
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
            match self.refused.get_mut(code) {
                Some(own) => *own = operation(*own, *times),
                None if operation(0, *times) == 0 => {}
                None => drop(self.refused.insert(code.clone(), *times)),
            }
        }
    }
}

/// Counts of several hours, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Hours(#[n(0)] Vec<Counts>);

impl Hours {
    /// Adds counts of an hour.
    pub fn count(&mut self, counts: &Counts) {
        let place = self.0.partition_point(|other| other.hour < counts.hour);
        match self.0.get_mut(place) {
            Some(same) if same.hour == counts.hour => same.add(counts),
            _ if counts.is_empty() => {}
            _ => {
                self.0.insert(place, counts.clone());
                if self.0.len() > HOURS_KEPT {
                    self.0.remove(0);
                }
            }
        }
    }

    /// Adds what `other` counts.
    pub fn add(&mut self, other: &Self) {
        for counts in &other.0 {
            self.count(counts);
        }
    }

    /// What is counted here beyond what `other` counts.
    #[must_use]
    pub fn less(mut self, other: &Self) -> Self {
        for counts in &other.0 {
            let same = self.0.iter_mut().find(|same| same.hour == counts.hour);
            if let Some(same) = same {
                same.combine(counts, u64::saturating_sub);
            }
        }
        self.0.retain(|counts| !counts.is_empty());
        self
    }

    /// Those that are over at `clock`. What a clock counted that was ahead of it has to wait.
    #[must_use]
    pub fn over(mut self, clock: Timestamp) -> Self {
        self.0.retain(|counts| counts.hour < hour_of(clock));
        self
    }

    /// The first hour.
    #[must_use]
    pub fn first(&self) -> Option<Timestamp> {
        self.0.first().map(|counts| counts.hour)
    }

    /// Whether nothing is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The hours, the first first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Counts> {
        self.0.iter()
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
    data: Vec<&'a Counts>,
    next: Option<&'a str>,
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
        data: hours.iter().rev().collect(),
        next: None,
    };
    // Texts and numbers alone: writing them cannot fail.
    serde_json::to_string(&view).unwrap_or_default()
}
