//! Points in time, spans, and the calendar that this deployment sells by.
//!
//! Nothing here reads a clock: `now` is always an argument.

use crate::wire::{Decode, Encode};
use time::{Date, Month, OffsetDateTime, format_description::well_known::Rfc3339};

const MILLIS_PER_SECOND: i64 = 1_000;
const MILLIS_PER_HOUR: i64 = 3_600_000;
const MILLIS_PER_DAY: i64 = 86_400_000;
/// `time::Date` counts days from Julian day 0; 1970-01-01 is this one.
const UNIX_EPOCH_JULIAN_DAY: i64 = 2_440_588;
/// 9999-12-31T23:59:59.999Z, the last moment that RFC 3339 can write.
const LAST_MILLIS: i64 = 253_402_300_799_999;

/// A moment: whole milliseconds since 1970-01-01T00:00:00Z, between that moment and the end of
/// year 9999. Arithmetic stays inside those bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Timestamp(#[n(0)] i64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// The moment `millis` milliseconds after the epoch, moved into the supported range.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        if millis < 0 {
            Self(0)
        } else if millis > LAST_MILLIS {
            Self(LAST_MILLIS)
        } else {
            Self(millis)
        }
    }

    /// The moment `seconds` seconds after the epoch, moved into the supported range.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self::from_millis(seconds.saturating_mul(MILLIS_PER_SECOND))
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(MILLIS_PER_SECOND)
    }

    /// The moment `span` later.
    #[must_use]
    pub const fn plus(self, span: Span) -> Self {
        Self::from_millis(self.0.saturating_add(span.0))
    }

    /// The moment `span` earlier.
    #[must_use]
    pub const fn minus(self, span: Span) -> Self {
        Self::from_millis(self.0.saturating_sub(span.0))
    }

    /// How long after `earlier` this is; zero if it is not later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Span {
        Span::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Reads an RFC 3339 date and time with any offset.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let parsed = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        let millis = i64::try_from(parsed.unix_timestamp_nanos().div_euclid(1_000_000)).ok()?;
        (0..=LAST_MILLIS).contains(&millis).then_some(Self(millis))
    }

    /// RFC 3339 in UTC, to the second: `2026-12-01T00:00:00Z`.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        OffsetDateTime::from_unix_timestamp(self.as_seconds())
            .ok()
            .and_then(|moment| moment.format(&Rfc3339).ok())
            .unwrap_or_default()
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_rfc3339())
    }
}

/// A length of time in whole milliseconds, never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Span(#[n(0)] i64);

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);
    /// The 60 seconds of the minute limit.
    pub const MINUTE: Self = Self::from_seconds(60);
    /// The 60 minutes that totals are of.
    pub const HOUR: Self = Self(MILLIS_PER_HOUR);

    /// `millis` milliseconds; zero if negative.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(if millis < 0 { 0 } else { millis })
    }

    /// `seconds` seconds; zero if negative.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self::from_millis(seconds.saturating_mul(MILLIS_PER_SECOND))
    }

    /// `days` days of 24 hours; zero if negative.
    #[must_use]
    pub const fn from_days(days: i64) -> Self {
        Self::from_millis(days.saturating_mul(MILLIS_PER_DAY))
    }

    /// What it is longer than `other` by; zero if it is not.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self::from_millis(self.0.saturating_sub(other.0))
    }

    /// Milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Seconds, a started one counted whole.
    #[must_use]
    pub const fn as_seconds_ceil(self) -> i64 {
        self.0
            .saturating_add(MILLIS_PER_SECOND.saturating_sub(1))
            .div_euclid(MILLIS_PER_SECOND)
    }
}

/// A local day of a [`Calendar`], counted from its day 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Day(#[n(0)] i64);

impl Day {
    /// The day so many days before this one.
    #[must_use]
    pub const fn minus(self, days: i64) -> Self {
        Self(self.0.saturating_sub(days))
    }
}

/// Its date, as in `2026-12-01`: that of the day it starts on.
impl std::fmt::Display for Day {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let date = i32::try_from(self.0.saturating_add(UNIX_EPOCH_JULIAN_DAY))
            .ok()
            .and_then(|julian| Date::from_julian_day(julian).ok());
        date.map_or(Ok(()), |date| date.fmt(formatter))
    }
}

/// A local month of a [`Calendar`]: year × 12 + month, so that months are consecutive numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct MonthNumber(#[n(0)] i64);

impl MonthNumber {
    /// The year and the month of the year, 1 to 12.
    #[must_use]
    pub fn year_month(self) -> (i64, u8) {
        let month = u8::try_from(self.0.rem_euclid(12)).unwrap_or(0);
        (self.0.div_euclid(12), month.saturating_add(1))
    }

    /// The month of this number.
    #[must_use]
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// The number: months in order, without gaps.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The month after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The calendar day `day` of this month, or the month's last day where it is shorter.
    fn day(self, day: u8) -> Day {
        let (year, month) = self.year_month();
        let month = Month::try_from(month).unwrap_or(Month::January);
        let year = i32::try_from(year).unwrap_or(1970);
        let day = day.clamp(1, month.length(year));
        Date::from_calendar_date(year, month, day).map_or(Day(0), |date| {
            Day(i64::from(date.to_julian_day()).saturating_sub(UNIX_EPOCH_JULIAN_DAY))
        })
    }
}

/// When local days start: days, months, billing days, budgets and summaries all use it.
///
/// A fixed offset, so that every day has 24 hours and no clock change moves a renewal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Calendar {
    /// What is added to UTC so that a local day starts at a multiple of 24 hours.
    #[n(0)]
    shift_millis: i64,
}

impl Calendar {
    /// Days that start at `hour:minute` local time, where local time is UTC plus
    /// `offset_minutes`.
    #[must_use]
    pub const fn new(hour: u8, minute: u8, offset_minutes: i16) -> Self {
        let start_minutes = (hour as i64)
            .saturating_mul(60)
            .saturating_add(minute as i64);
        let shift_minutes = (offset_minutes as i64).saturating_sub(start_minutes);
        Self {
            shift_millis: shift_minutes.saturating_mul(60 * MILLIS_PER_SECOND),
        }
    }

    /// Reads `HH:MM+HH:MM` or `HH:MM-HH:MM`: the time of day at which days start, and the fixed
    /// offset from UTC (at most 14 hours) in which it is told.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (start, sign, offset) = if let Some((start, offset)) = text.split_once('+') {
            (start, 1, offset)
        } else {
            let (start, offset) = text.split_once('-')?;
            (start, -1, offset)
        };
        let (hour, minute) = parse_hours_minutes(start)?;
        let (offset_hour, offset_minute) = parse_hours_minutes(offset)?;
        let offset = i16::from(offset_hour)
            .checked_mul(60)?
            .checked_add(i16::from(offset_minute))?;
        (hour < 24 && offset <= 14 * 60)
            .then(|| Self::new(hour, minute, offset.saturating_mul(sign)))
    }

    /// The local day that `moment` lies in.
    #[must_use]
    pub const fn day_of(self, moment: Timestamp) -> Day {
        Day(moment
            .0
            .saturating_add(self.shift_millis)
            .div_euclid(MILLIS_PER_DAY))
    }

    /// The first moment of `day`.
    #[must_use]
    pub const fn start_of(self, day: Day) -> Timestamp {
        Timestamp::from_millis(
            day.0
                .saturating_mul(MILLIS_PER_DAY)
                .saturating_sub(self.shift_millis),
        )
    }

    /// The first moment of the day after the one that `moment` lies in.
    #[must_use]
    pub const fn next_day(self, moment: Timestamp) -> Timestamp {
        self.start_of(Day(self.day_of(moment).0.saturating_add(1)))
    }

    /// The first moment of the hour that `moment` lies in: an hour starts with each day.
    #[must_use]
    pub const fn hour_of(self, moment: Timestamp) -> Timestamp {
        let into_hour = moment
            .0
            .saturating_add(self.shift_millis)
            .rem_euclid(MILLIS_PER_HOUR);
        Timestamp::from_millis(moment.0.saturating_sub(into_hour))
    }

    /// The local month that `moment` lies in.
    #[must_use]
    pub fn month_of(self, moment: Timestamp) -> MonthNumber {
        let julian = self.day_of(moment).0.saturating_add(UNIX_EPOCH_JULIAN_DAY);
        i32::try_from(julian)
            .ok()
            .and_then(|julian| Date::from_julian_day(julian).ok())
            .map_or(MonthNumber(0), |date| {
                let month = i64::from(u8::from(date.month())).saturating_sub(1);
                MonthNumber(
                    i64::from(date.year())
                        .saturating_mul(12)
                        .saturating_add(month),
                )
            })
    }

    /// The day of the month, 1 to 31, that `moment` lies in.
    #[must_use]
    pub fn day_of_month(self, moment: Timestamp) -> u8 {
        let first = self.month_of(moment).day(1).0;
        let day = self
            .day_of(moment)
            .0
            .saturating_sub(first)
            .saturating_add(1);
        u8::try_from(day).unwrap_or(1)
    }

    /// The first moment of the calendar month `month`.
    #[must_use]
    pub fn start_of_month(self, month: MonthNumber) -> Timestamp {
        self.start_of(month.day(1))
    }

    /// The first moment of `billing_day` (1 to 31) after `moment`; a shorter month's last day
    /// stands in for a day that it lacks.
    #[must_use]
    pub fn next_billing(self, moment: Timestamp, billing_day: u8) -> Timestamp {
        let month = self.month_of(moment);
        let this = self.start_of(month.day(billing_day));
        if this > moment {
            this
        } else {
            self.start_of(month.next().day(billing_day))
        }
    }
}

fn parse_hours_minutes(text: &str) -> Option<(u8, u8)> {
    let (hour, minute) = text.split_once(':')?;
    let two_digits = |part: &str| {
        (part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| part.parse::<u8>().ok())
            .flatten()
    };
    let (hour, minute) = (two_digits(hour)?, two_digits(minute)?);
    (minute < 60).then_some((hour, minute))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn a_timestamp_is_written_as_it_was_read() {
        for text in [
            "1970-01-01T00:00:00Z",
            "2026-11-22T02:40:10Z",
            "9999-12-31T23:59:59Z",
        ] {
            assert_eq!(at(text).to_rfc3339(), text);
        }
        assert_eq!(
            at("2026-11-22T03:40:10+01:00").to_rfc3339(),
            "2026-11-22T02:40:10Z"
        );
        assert_eq!(Timestamp::parse_rfc3339("2026-11-22"), None);
        assert_eq!(Timestamp::parse_rfc3339("1969-12-31T23:59:59Z"), None);
    }

    #[test]
    fn days_start_at_the_told_local_time() {
        let cases = [
            ("00:00+00:00", "2026-11-22T00:00:00Z"),
            ("00:00+02:00", "2026-11-22T22:00:00Z"),
            ("00:00-05:30", "2026-11-22T05:30:00Z"),
            ("06:00+02:00", "2026-11-22T04:00:00Z"),
        ];
        for (text, start) in cases {
            let calendar = Calendar::parse(text).unwrap();
            let start = at(start);
            let before = start.minus(Span::from_millis(1));
            assert_eq!(calendar.next_day(before), start, "{text}");
            assert_ne!(calendar.day_of(before), calendar.day_of(start), "{text}");
            assert_eq!(calendar.start_of(calendar.day_of(start)), start, "{text}");
        }
        for text in [
            "",
            "00:00",
            "24:00+00:00",
            "00:60+00:00",
            "0:00+00:00",
            "00:00+15:00",
            "00:00 +1",
        ] {
            assert_eq!(Calendar::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_billing_day_that_a_month_lacks_is_its_last_day() {
        let calendar = Calendar::default();
        let mut moment = at("2027-12-31T00:00:00Z");
        let mut told = Vec::new();
        for _ in 0..4 {
            moment = calendar.next_billing(moment, 31);
            told.push(moment.to_rfc3339());
        }
        assert_eq!(
            told,
            [
                "2028-01-31T00:00:00Z",
                "2028-02-29T00:00:00Z",
                "2028-03-31T00:00:00Z",
                "2028-04-30T00:00:00Z"
            ]
        );
    }

    #[test]
    fn hours_start_with_the_day() {
        for (text, hour) in [
            ("00:00+00:00", "2026-11-22T14:00:00Z"),
            ("00:00+05:30", "2026-11-22T13:30:00Z"),
            ("06:15-03:00", "2026-11-22T14:15:00Z"),
        ] {
            let calendar = Calendar::parse(text).unwrap();
            for moment in [at("2026-11-22T14:29:59Z"), at(hour)] {
                assert_eq!(calendar.hour_of(moment), at(hour), "{text}");
            }
            let day = calendar.start_of(calendar.day_of(at(hour)));
            assert_eq!(calendar.hour_of(day), day, "{text}");
        }
    }

    #[test]
    fn months_follow_the_calendar_of_the_deployment() {
        let calendar = Calendar::parse("00:00+02:00").unwrap();
        let moment = at("2026-11-30T22:00:00Z");
        assert_eq!(calendar.month_of(moment).year_month(), (2026, 12));
        assert_eq!(calendar.day_of_month(moment), 1);
        assert_eq!(calendar.start_of_month(calendar.month_of(moment)), moment);
        assert_eq!(
            calendar
                .month_of(moment.minus(Span::from_millis(1)))
                .year_month(),
            (2026, 11)
        );
    }

    #[test]
    fn a_started_second_counts_whole() {
        assert_eq!(Span::from_millis(0).as_seconds_ceil(), 0);
        assert_eq!(Span::from_millis(1).as_seconds_ceil(), 1);
        assert_eq!(Span::from_millis(1_000).as_seconds_ceil(), 1);
        assert_eq!(Span::from_millis(1_001).as_seconds_ceil(), 2);
    }
}
