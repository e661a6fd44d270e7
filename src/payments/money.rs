//! Amounts of money as Stripe counts them: whole numbers of a currency's smallest unit.

use std::fmt;

use crate::wire::{Decode, Encode};

/// The largest amount that Stripe takes in one payment: eight digits (docs.stripe.com/currencies).
const AMOUNT_MAX: u64 = 99_999_999;

/// Currencies without a smaller unit (docs.stripe.com/currencies, "Zero-decimal currencies").
const ZERO_DECIMAL: [&str; 15] = [
    "bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf",
    "xof", "xpf",
];
/// Currencies of a thousand units, which Stripe takes in tens of them (the same, "Three-decimal
/// currencies").
const THREE_DECIMAL: [&str; 5] = ["bhd", "jod", "kwd", "omr", "tnd"];
/// Currencies without a smaller unit that Stripe counts in hundredths all the same (the same,
/// "Special cases").
const WHOLE_ONLY: [&str; 2] = ["isk", "ugx"];

/// The least that Stripe takes in one payment, in the smallest unit (the same, "Minimum and maximum
/// charge amounts"). Of other currencies it depends on the day's rate.
const MINIMUMS: [(&str, u64); 24] = [
    ("usd", 50),
    ("aed", 200),
    ("aud", 50),
    ("bgn", 100),
    ("brl", 50),
    ("cad", 50),
    ("chf", 50),
    ("czk", 1_500),
    ("dkk", 250),
    ("eur", 50),
    ("gbp", 30),
    ("hkd", 400),
    ("huf", 17_500),
    ("inr", 50),
    ("jpy", 50),
    ("mxn", 1_000),
    ("myr", 200),
    ("nok", 300),
    ("nzd", 50),
    ("pln", 200),
    ("ron", 200),
    ("sek", 300),
    ("sgd", 50),
    ("thb", 1_000),
];

/// A currency: three letters of ISO 4217, in lower case, as Stripe writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Currency(#[cbor(n(0), with = "minicbor::bytes")] [u8; 3]);

impl Currency {
    /// Reads three letters, in either case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let letters: [u8; 3] = text.as_bytes().try_into().ok()?;
        let are_letters = letters.iter().all(u8::is_ascii_alphabetic);
        are_letters.then(|| Self(letters.map(|letter| letter.to_ascii_lowercase())))
    }

    /// As Stripe writes it: `usd`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// How many decimal places its smallest unit makes.
    #[must_use]
    pub fn places(self) -> u32 {
        if ZERO_DECIMAL.contains(&self.as_str()) {
            0
        } else if THREE_DECIMAL.contains(&self.as_str()) {
            3
        } else {
            2
        }
    }

    /// What every amount is a multiple of.
    #[must_use]
    pub fn step(self) -> u64 {
        if THREE_DECIMAL.contains(&self.as_str()) {
            10
        } else if WHOLE_ONLY.contains(&self.as_str()) {
            100
        } else {
            1
        }
    }

    /// The least that Stripe takes in one payment.
    #[must_use]
    pub fn minimum(self) -> u64 {
        let known = MINIMUMS.iter().find(|(name, _)| *name == self.as_str());
        known.map_or(self.step(), |(_, minimum)| *minimum)
    }
}

/// An amount of money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Money {
    /// In the currency's smallest unit.
    #[n(0)]
    pub amount: u64,
    /// The currency.
    #[n(1)]
    pub currency: Currency,
}

impl Money {
    /// Reads `50.00 USD`, `50 USD` or `5000 JPY`: whole numbers alone, and no more or fewer decimal places
    /// than the currency has, or none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (number, currency) = text.split_once(' ')?;
        let currency = Currency::parse(currency)?;
        let (whole, places) = number.split_once('.').unwrap_or((number, ""));
        let expected = usize::try_from(currency.places()).ok()?;
        let has_point = number.contains('.');
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let is_plain = !whole.is_empty() && digits(whole) && digits(places);
        if !is_plain || has_point && (expected == 0 || places.len() != expected) {
            return None;
        }
        let unit = 10_u64.checked_pow(currency.places())?;
        let places: u64 = if has_point { places.parse().ok()? } else { 0 };
        let amount = whole.parse::<u64>().ok()?.checked_mul(unit)?;
        Some(Self {
            amount: amount.checked_add(places)?,
            currency,
        })
    }

    /// Whether Stripe takes this amount in one payment.
    #[must_use]
    pub fn can_be_paid(self) -> bool {
        let is_whole = self
            .amount
            .checked_rem(self.currency.step())
            .is_some_and(|rest| rest == 0);
        is_whole && (self.currency.minimum()..=AMOUNT_MAX).contains(&self.amount)
    }
}

/// `50.00 USD`, which [`Money::parse`] reads.
impl fmt::Display for Money {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = self.currency.places();
        let unit = 10_u64.checked_pow(places).unwrap_or(1);
        let whole = self.amount.checked_div(unit).unwrap_or(0);
        let rest = self.amount.checked_rem(unit).unwrap_or(0);
        let name = self.currency.as_str().to_ascii_uppercase();
        match places {
            0 => write!(formatter, "{whole} {name}"),
            3 => write!(formatter, "{whole}.{rest:03} {name}"),
            _ => write!(formatter, "{whole}.{rest:02} {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_a_whole_number_of_the_smallest_unit() {
        for (text, amount, shown) in [
            ("50.00 USD", 5_000, "50.00 USD"),
            ("50 usd", 5_000, "50.00 USD"),
            ("0.05 EUR", 5, "0.05 EUR"),
            ("5000 JPY", 5_000, "5000 JPY"),
            ("1.500 KWD", 1_500, "1.500 KWD"),
            ("500 ISK", 50_000, "500.00 ISK"),
        ] {
            let money = Money::parse(text).unwrap();
            assert_eq!((money.amount, money.to_string().as_str()), (amount, shown));
            assert_eq!(Money::parse(shown), Some(money));
        }
    }

    #[test]
    fn what_is_no_exact_amount_is_refused() {
        for text in [
            "",
            "50",
            "50.00",
            "USD",
            " USD",
            "50.0 USD",
            "50. USD",
            ".50 USD",
            "50.000 USD",
            "50,00 USD",
            "-50 USD",
            "+50 USD",
            "1e3 USD",
            "50.00  USD",
            "50.00 US",
            "50.00 DOLLAR",
            "50.00 US1",
            "50.00 JPY",
            "1.50 KWD",
            "999999999999999999999 USD",
            "199999999999999999 USD",
        ] {
            assert_eq!(Money::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_stripe_would_not_take_cannot_be_paid() {
        for (text, can) in [
            ("0.49 USD", false),
            ("0.50 USD", true),
            ("0.30 GBP", true),
            ("0.29 GBP", false),
            ("49 JPY", false),
            ("50 JPY", true),
            ("174.99 HUF", false),
            ("0 XAF", false),
            ("1 XAF", true),
            ("1.505 KWD", false),
            ("1.510 KWD", true),
            ("5.50 ISK", false),
            ("999999.99 USD", true),
            ("1000000.00 USD", false),
        ] {
            assert_eq!(Money::parse(text).unwrap().can_be_paid(), can, "{text}");
        }
    }
}
