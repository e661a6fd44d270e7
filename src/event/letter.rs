//! What customers are told by e-mail: plain text, in a few sentences.

use super::{Event, Fate};
use crate::{
    credits::Credits,
    policy::DEFAULT_POOL,
    wire::{Decode, Encode},
};

/// An e-mail to the customer. Its subject is one of a few, so nothing that anybody chose gets into a
/// header.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Letter {
    /// The subject.
    #[n(0)]
    pub subject: String,
    /// The text.
    #[n(1)]
    pub text: String,
    /// What became of it.
    #[n(2)]
    pub fate: Fate,
}

impl Event {
    /// The e-mail to the customer.
    #[must_use]
    pub fn letter(&self) -> Letter {
        const MORE: &str = "Calls that cost credits are refused from then on, until more are added \
                            or your plan renews.";
        let (subject, text) = match self {
            Self::BalanceLow {
                pool,
                threshold,
                balance,
            } => (
                "Your credits are running low",
                format!(
                    "{} left, fewer than {threshold}. {MORE}",
                    amount(*balance, pool)
                ),
            ),
            Self::BalanceExhausted { pool } => (
                "Your credits are used up",
                format!("{} left. {MORE}", amount(Credits::ZERO, pool)),
            ),
            Self::CreditsRenewed { pool, credits, .. } => (
                "Your credits have been renewed",
                format!("{} added.", amount(*credits, pool)),
            ),
            Self::TopUpSucceeded {
                pool,
                credits,
                price,
                ..
            } => (
                "Your credits have been topped up",
                format!("{} added for {price}.", amount(*credits, pool)),
            ),
            Self::TopUpFailed { reason } => ("Your automatic top-up has failed", reason.clone()),
            Self::TopUpPaused { reason, url } => (
                "Your automatic top-up is paused",
                format!("{reason}\n{}", url.as_deref().unwrap_or("")),
            ),
            Self::TopUpResumed { reason } => ("Your automatic top-up runs again", reason.clone()),
            Self::PaymentRefunded {
                pool,
                credits,
                price,
                ..
            } => (
                "Your payment has been refunded",
                format!(
                    "{price} were refunded. {} taken back.",
                    amount(*credits, pool)
                ),
            ),
            Self::AccountSuspended { reason } => (
                "Your account has been suspended",
                format!(
                    "Calls with your keys are refused. {}",
                    reason.as_deref().unwrap_or("")
                ),
            ),
            Self::AccountFlagged { reason, .. } => {
                ("Unusual activity on your account", reason.clone())
            }
        };
        Letter {
            subject: subject.to_owned(),
            text: format!("{}\n", text.trim_end()),
            fate: Fate::Waiting,
        }
    }
}

/// `5 credits`, or `5 credits (lyrics)`.
fn amount(credits: Credits, pool: &str) -> String {
    if pool == DEFAULT_POOL {
        format!("{credits} credits")
    } else {
        format!("{credits} credits ({pool})")
    }
}

/// Whether `text` is one plain e-mail address (RFC 5321 §4.1.2: a dot-string and a domain), which
/// nothing can be added to: no list, no display name, no quotes.
#[must_use]
pub fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else {
        return false;
    };
    let is_atom = |part: &str| {
        let is_atext =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
        !part.is_empty() && part.bytes().all(is_atext)
    };
    let is_label = |part: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !part.is_empty() && part.len() <= 63 && part.bytes().all(is_plain)
    };
    local.len() <= 64
        && local.split('.').all(is_atom)
        && domain.len() <= 253
        && domain.contains('.')
        && domain.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_address() {
        for good in [
            "a@example.com",
            "first.last+tag@mail.example.co.uk",
            "o'neil@x-y.example",
        ] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "@example.com",
            "a@",
            "a@localhost",
            "a@example..com",
            "a..b@example.com",
            "a@example.com,b@example.com",
            "A <a@example.com>",
            "\"a b\"@example.com",
            "a@example.com\r\nBcc: b@example.com",
            "a\n@example.com",
            "a@b@example.com",
            "ä@example.com",
        ] {
            assert!(!is_address(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_letter_says_what_happened_and_its_subject_what_nobody_chose() {
        let credits = |amount| Credits::new(amount).unwrap();
        let low = |pool: &str| Event::BalanceLow {
            pool: pool.to_owned(),
            threshold: credits(20),
            balance: credits(11),
        };
        let letter = low("credits").letter();
        assert_eq!(letter.subject, "Your credits are running low");
        assert!(
            letter.text.starts_with("11 credits left, fewer than 20. "),
            "{}",
            letter.text
        );
        assert_eq!(low("lyrics").letter().subject, letter.subject);
        let suspended = Event::AccountSuspended {
            reason: Some("unpaid".to_owned()),
        };
        assert_eq!(
            suspended.letter().text,
            "Calls with your keys are refused. unpaid\n"
        );
    }
}
