//! What a call costs: the terms that it is admitted under and ended by.

use std::fmt;

use crate::{
    credits::Credits,
    time::Span,
    wire::{Decode, Encode},
};

/// How much of something a call used (seconds, characters …): a decimal number with at most
/// three places, kept in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct Quantity(#[n(0)] u64);

impl Quantity {
    /// The largest: more than any price has room for.
    pub const MAX: Self = Self(u64::MAX);

    /// Reads digits, and optionally a point and one to three digits: no sign, no exponent, no
    /// spaces. `None` for anything else and for what does not fit 64 bits of thousandths.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, places) = plain_decimal(text)?;
        let scale = [0, 100, 10, 1].get(places.len()).copied()?;
        let thousandths = places.parse::<u64>().ok()?.checked_mul(scale)?;
        let whole = whole.parse::<u64>().ok()?.checked_mul(1_000)?;
        whole.checked_add(thousandths).map(Self)
    }

    /// The quantity in thousandths.
    #[must_use]
    pub const fn as_thousandths(self) -> u64 {
        self.0
    }
}

/// The digits before and after the point, where there are no more than three of the latter.
fn plain_decimal(text: &str) -> Option<(&str, &str)> {
    let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    (digits(whole) && digits(places) && places.len() <= 3).then_some((whole, places))
}

impl fmt::Display for Quantity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, places) = (self.0.div_euclid(1_000), self.0.rem_euclid(1_000));
        if places == 0 {
            write!(formatter, "{whole}")
        } else {
            write!(
                formatter,
                "{}",
                format!("{whole}.{places:03}").trim_end_matches('0')
            )
        }
    }
}

/// A price by quantity: `ceil(value / unit) × rate`, within `minimum..=maximum`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Meter {
    /// Credits for each started unit.
    #[n(0)]
    pub rate: Credits,
    /// The unit; never zero in a checked policy.
    #[n(1)]
    pub unit: Quantity,
    /// The least that is charged.
    #[n(2)]
    pub minimum: Credits,
    /// The most that is charged.
    #[n(3)]
    pub maximum: Credits,
}

impl Meter {
    /// What `value` costs, at least the minimum; `None` when that is above the maximum.
    #[must_use]
    pub fn price(&self, value: Quantity) -> Option<Credits> {
        let units = value
            .0
            .checked_add(self.unit.0.checked_sub(1)?)?
            .checked_div(self.unit.0)?;
        let price = self.rate.checked_mul(units)?.max(self.minimum);
        (price <= self.maximum).then_some(price)
    }
}

/// Which of the origin's answers are charged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum ChargeOn {
    /// `<400`: every status below 400.
    #[default]
    #[n(0)]
    BelowFourHundred,
    /// `2xx`: 200 to 299.
    #[n(1)]
    TwoHundreds,
}

impl ChargeOn {
    /// Whether an answer with this HTTP status is charged. An accepted upgrade (101) always is.
    #[must_use]
    pub const fn holds(self, status: u16) -> bool {
        match self {
            Self::BelowFourHundred => status < 400,
            Self::TwoHundreds => status == 101 || (status >= 200 && status < 300),
        }
    }
}

/// What becomes of a hold whose outcome is never learned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum OnUnknown {
    /// The credits go back.
    #[default]
    #[n(0)]
    Release,
    /// The whole hold is charged.
    #[n(1)]
    Charge,
}

/// A call that outlives its answer: a success only opens it, the origin tells how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Job {
    /// How long the origin may take.
    #[n(0)]
    pub settle_within: Span,
    /// What happens when it never told.
    #[n(1)]
    pub on_unknown: OnUnknown,
}

/// Everything about its price that a call is admitted under and ended by. Stored with the call,
/// so that a policy that changes meanwhile changes nothing for it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Terms {
    /// The pool that pays.
    #[n(0)]
    pub pool: String,
    /// The least that must be held for the call to be admitted.
    #[n(1)]
    pub least: Credits,
    /// The most that is held; more than `least` only with `hold = "available"`.
    #[n(2)]
    pub most: Credits,
    /// Which answers are charged.
    #[n(3)]
    pub charge_on: ChargeOn,
    /// The arithmetic, where the price is by quantity.
    #[n(4)]
    pub meter: Option<Meter>,
    /// Set when a success opens a job.
    #[n(5)]
    pub job: Option<Job>,
    /// What the end of an unknown outcome is.
    #[n(6)]
    pub on_unknown: OnUnknown,
    /// The origin's answer tells the quantity: held first, the real cost charged.
    #[n(7)]
    pub reads_answer: bool,
}

impl Terms {
    /// A call that costs exactly `cost`, known before it is admitted.
    #[must_use]
    pub const fn fixed(pool: String, cost: Credits) -> Self {
        Self {
            pool,
            least: cost,
            most: cost,
            charge_on: ChargeOn::BelowFourHundred,
            meter: None,
            job: None,
            on_unknown: OnUnknown::Release,
            reads_answer: false,
        }
    }

    /// Those of a repeat of a call that was paid for under these: it is free, and opens no job.
    #[must_use]
    pub fn of_repeat(&self) -> Self {
        Self {
            charge_on: self.charge_on,
            ..Self::fixed(self.pool.clone(), Credits::ZERO)
        }
    }

    /// Whether the call is over with an answer of this `status`, and charged all that it holds.
    #[must_use]
    pub fn charges_what_is_held(&self, status: u16) -> bool {
        self.charge_on.holds(status) && self.job.is_none() && !self.reads_answer
    }

    /// What a charged answer costs when `held` credits were held and the origin reported
    /// `reported` where a header was expected.
    #[must_use]
    pub fn charge(&self, held: Credits, reported: Reported) -> Charge {
        let Some(meter) = self.meter.as_ref().filter(|_| self.reads_answer) else {
            return Charge::exact(held);
        };
        let minimum = meter.minimum.min(held);
        match reported {
            Reported::Value(value) => match meter.price(value) {
                Some(price) if price <= held => Charge::exact(price),
                _ => Charge {
                    credits: held,
                    mark: Some(Mark::AboveHold),
                },
            },
            Reported::Unreadable => Charge {
                credits: minimum,
                mark: Some(Mark::BadValue),
            },
        }
    }
}

/// What the origin's answer said about the quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reported {
    /// A readable quantity.
    #[n(0)]
    Value(#[n(0)] Quantity),
    /// No header, two of them, or no plain decimal.
    #[n(1)]
    Unreadable,
}

impl Reported {
    /// Reads the header that tells the quantity: a plain decimal that is too large for a
    /// [`Quantity`] is still one, and above every hold.
    #[must_use]
    pub fn read(header: Option<&str>) -> Self {
        let of_digits = |text| {
            let too_large = plain_decimal(text).map(|_| Quantity::MAX);
            Quantity::parse(text).or(too_large)
        };
        header
            .and_then(of_digits)
            .map_or(Self::Unreadable, Self::Value)
    }
}

/// What an ended call is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The credits, never more than were held.
    pub credits: Credits,
    /// Something for the operator to look at.
    pub mark: Option<Mark>,
}

impl Charge {
    const fn exact(credits: Credits) -> Self {
        Self {
            credits,
            mark: None,
        }
    }
}

/// Why a call deserves the operator's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Mark {
    /// The origin's answer carried no readable quantity: the minimum was charged.
    #[n(0)]
    BadValue,
    /// The real cost was above the hold: the hold was charged.
    #[n(1)]
    AboveHold,
    /// The outcome was never learned, or the origin broke the answer off, and the day's
    /// forgiveness was used up.
    #[n(2)]
    Unforgiven,
    /// Its real end came late, when fewer credits were there than it cost: those were charged.
    #[n(3)]
    Uncovered,
}

impl Mark {
    const ALL: [Self; 4] = [
        Self::BadValue,
        Self::AboveHold,
        Self::Unforgiven,
        Self::Uncovered,
    ];

    /// Its name, as the admin API tells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadValue => "bad_value",
            Self::AboveHold => "above_hold",
            Self::Unforgiven => "unforgiven",
            Self::Uncovered => "uncovered",
        }
    }

    /// The mark stored as `number`.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The number that is stored.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credits(amount: u64) -> Credits {
        Credits::new(amount).unwrap()
    }

    fn quantity(text: &str) -> Quantity {
        Quantity::parse(text).unwrap()
    }

    fn dubbing() -> Meter {
        Meter {
            rate: credits(10),
            unit: quantity("60"),
            minimum: credits(10),
            maximum: credits(600),
        }
    }

    #[test]
    fn a_quantity_is_a_plain_decimal_with_at_most_three_places() {
        for (text, thousandths) in [
            ("0", 0),
            ("7", 7_000),
            ("0.5", 500),
            ("1.25", 1_250),
            ("007.125", 7_125),
        ] {
            assert_eq!(quantity(text).as_thousandths(), thousandths, "{text}");
        }
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            " 1",
            "1.2345",
            "١",
            "18446744073709551615",
            "1,5",
            "0x10",
        ] {
            assert_eq!(Quantity::parse(text), None, "{text}");
        }
        assert_eq!(quantity("1.250").to_string(), "1.25");
        assert_eq!(quantity("60").to_string(), "60");
    }

    #[test]
    fn a_reported_quantity_too_large_to_be_kept_is_above_every_hold_and_not_unreadable() {
        for (header, reported) in [
            (Some("180"), Reported::Value(quantity("180"))),
            (
                Some("36000000000000000000000"),
                Reported::Value(Quantity::MAX),
            ),
            (
                Some("18446744073709551.616"),
                Reported::Value(Quantity::MAX),
            ),
            (Some("36000000000000000000000.1234"), Reported::Unreadable),
            (Some("1e22"), Reported::Unreadable),
            (Some(""), Reported::Unreadable),
            (None, Reported::Unreadable),
        ] {
            assert_eq!(Reported::read(header), reported, "{header:?}");
        }
        for unit in ["60", "0.001"] {
            let unit = quantity(unit);
            let meter = Meter { unit, ..dubbing() };
            assert_eq!(meter.price(Quantity::MAX), None);
        }
    }

    #[test]
    fn a_started_unit_is_charged_whole() {
        for (value, price) in [
            ("0", 10),
            ("30", 10),
            ("60", 10),
            ("60.001", 20),
            ("180", 30),
            ("600", 100),
            ("3600", 600),
        ] {
            assert_eq!(
                dubbing().price(quantity(value)),
                Some(credits(price)),
                "{value}"
            );
        }
        assert_eq!(dubbing().price(quantity("3600.001")), None);
        assert_eq!(dubbing().price(quantity("18446744073709551")), None);
    }

    #[test]
    fn a_charge_is_never_above_the_hold() {
        let terms = Terms {
            meter: Some(dubbing()),
            reads_answer: true,
            ..Terms::fixed("credits".into(), credits(600))
        };
        let cases = [
            (600, Reported::Value(quantity("180")), 30, None),
            (
                100,
                Reported::Value(quantity("3600")),
                100,
                Some(Mark::AboveHold),
            ),
            (
                600,
                Reported::Value(quantity("9999")),
                600,
                Some(Mark::AboveHold),
            ),
            (600, Reported::Unreadable, 10, Some(Mark::BadValue)),
            (4, Reported::Unreadable, 4, Some(Mark::BadValue)),
        ];
        for (held, reported, charged, mark) in cases {
            let charge = terms.charge(credits(held), reported);
            assert_eq!(
                charge,
                Charge {
                    credits: credits(charged),
                    mark
                },
                "{held} {reported:?}"
            );
        }
    }

    #[test]
    fn what_is_charged_as_it_is_held_is_known_before_it_is_told() {
        let fixed = || Terms::fixed("credits".into(), credits(5));
        let metered = Terms {
            meter: Some(dubbing()),
            reads_answer: true,
            ..fixed()
        };
        let job = Terms {
            job: Some(Job {
                settle_within: Span::from_days(1),
                on_unknown: OnUnknown::Release,
            }),
            ..fixed()
        };
        assert!(fixed().charges_what_is_held(200));
        assert!(!fixed().charges_what_is_held(500), "it comes back");
        assert!(!metered.charges_what_is_held(200), "a part may come back");
        assert!(!job.charges_what_is_held(202), "it is not over");
    }

    #[test]
    fn success_is_what_the_route_says() {
        for (status, below, two) in [
            (101, true, true),
            (200, true, true),
            (304, true, false),
            (399, true, false),
            (400, false, false),
            (500, false, false),
        ] {
            assert_eq!(ChargeOn::BelowFourHundred.holds(status), below, "{status}");
            assert_eq!(ChargeOn::TwoHundreds.holds(status), two, "{status}");
        }
    }
}
