//! The deployment's secrets: complete and long enough, or a list of what is wrong with them.
//!
//! A secret goes in and never comes out again: only a keyed HMAC or the answer to "is it this
//! one?" does, and `Debug` shows neither. Stripe's own key alone goes back to Stripe.

use std::fmt;

use hmac::{Hmac, KeyInit};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// HMAC-SHA256 (RFC 2104), keyed once and cloned for each message.
pub type HmacSha256 = Hmac<Sha256>;

const LEAST_CHARACTERS: usize = 32;
/// What the secrets of `npm run dev` start with, so that a deployed Worker knows and refuses them.
pub(crate) const DEVELOPMENT_PREFIX: &str = "development-only-";
/// SHA-256 works on blocks of this size.
const BLOCK_BYTES: usize = 64;

/// Everything secret that a deployment is given.
#[derive(Debug)]
pub struct Secrets {
    /// `KEY_SECRET`: signs API keys.
    pub key_secret: Rolling,
    /// `ORIGIN_SECRET`: signs what is forwarded.
    pub origin_secret: Rolling,
    /// `ADMIN_TOKEN`: may do everything under `/_tollgate`.
    pub admin_token: Token,
    /// `ADMIN_READ_TOKEN`: may read there; the deployment can do without.
    pub admin_read_token: Option<Token>,
    /// `ORIGIN_TOKEN`: may end calls.
    pub origin_token: Token,
    /// What payments need; the deployment can do without.
    pub stripe: Option<StripeSecrets>,
}

/// What payments need: both, or neither.
#[derive(Debug)]
pub struct StripeSecrets {
    /// `STRIPE_SECRET_KEY`: what Stripe is asked with.
    pub key: Secret,
    /// `STRIPE_WEBHOOK_SECRET`: what Stripe signs its events with.
    pub webhook: Rolling,
}

impl Secrets {
    /// Reads the secrets by their names; `lookup` gives the value of a name where it is set.
    /// Development values are accepted only where `development` says so.
    ///
    /// # Errors
    ///
    /// Every fault there is, so that the operator mends them in one go.
    pub fn read(
        lookup: impl Fn(&str) -> Option<String>,
        development: bool,
    ) -> Result<Self, Vec<SecretFault>> {
        let mut reader = Reader {
            lookup,
            development,
            faults: Vec::new(),
        };
        let key_secret = reader.required("KEY_SECRET");
        let admin_token = reader.required("ADMIN_TOKEN");
        let origin_token = reader.required("ORIGIN_TOKEN");
        let origin_secret = reader.required("ORIGIN_SECRET");
        let admin_read_token = reader.optional("ADMIN_READ_TOKEN");
        let stripe_key = reader.optional("STRIPE_SECRET_KEY");
        let stripe_webhook = reader.optional("STRIPE_WEBHOOK_SECRET");
        reader.apart(&[
            ("ADMIN_TOKEN", admin_token.as_ref()),
            ("ADMIN_READ_TOKEN", admin_read_token.as_ref()),
            ("ORIGIN_TOKEN", origin_token.as_ref()),
            ("ORIGIN_SECRET", origin_secret.as_ref()),
            ("KEY_SECRET", key_secret.as_ref()),
            ("STRIPE_SECRET_KEY", stripe_key.as_ref()),
            ("STRIPE_WEBHOOK_SECRET", stripe_webhook.as_ref()),
        ]);
        let stripe = reader.stripe(stripe_key, stripe_webhook);
        match (key_secret, origin_secret, admin_token, origin_token) {
            (Some(key_secret), Some(origin_secret), Some(admin_token), Some(origin_token))
                if reader.faults.is_empty() =>
            {
                Ok(Self {
                    key_secret,
                    origin_secret,
                    admin_token: Token::of(&admin_token),
                    admin_read_token: admin_read_token.as_ref().map(Token::of),
                    origin_token: Token::of(&origin_token),
                    stripe,
                })
            }
            _ => Err(reader.faults),
        }
    }
}

/// A secret and those that it replaces, which are accepted until the operator unlists them.
#[derive(Debug)]
pub struct Rolling {
    /// What signs from now on.
    pub current: Secret,
    /// What still verifies.
    pub previous: Vec<Secret>,
}

impl Rolling {
    fn texts(&self) -> impl Iterator<Item = &str> {
        [&self.current]
            .into_iter()
            .chain(&self.previous)
            .map(|secret| &*secret.0)
    }
}

/// At least 32 visible characters that only this deployment and its operator know.
pub struct Secret(Box<str>);

impl Secret {
    /// HMAC-SHA256 keyed with this secret.
    #[must_use]
    pub fn hmac(&self) -> HmacSha256 {
        hmac_of(self.0.as_bytes())
    }

    /// The value of `Authorization` for whoever issued this secret: the one way in which a secret
    /// leaves.
    #[must_use]
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// A bearer token and those that it replaces. Only their digests are kept.
pub struct Token(Vec<[u8; 32]>);

impl Token {
    /// Whether `presented` is this token or one that it replaces. What the comparison takes does
    /// not depend on how much of it is right.
    #[must_use]
    pub fn matches(&self, presented: &str) -> bool {
        let presented = Sha256::digest(presented);
        self.0
            .iter()
            .fold(Choice::from(0), |found, accepted| {
                found | accepted.ct_eq(&presented[..])
            })
            .into()
    }

    fn of(rolling: &Rolling) -> Self {
        let accepted = std::iter::once(&rolling.current).chain(&rolling.previous);
        Self(
            accepted
                .map(|secret| Sha256::digest(secret.0.as_bytes()).into())
                .collect(),
        )
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(…)")
    }
}

/// What is wrong with one secret; its `Display` is a sentence for the log, without the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFault {
    /// `KEY_SECRET`, or `KEY_SECRET_PREVIOUS[1]` counted from 0.
    place: String,
    mistake: Mistake,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    Missing,
    TooShort,
    Unlistable,
    DevelopmentOnly,
    Shared,
}

impl fmt::Display for SecretFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mistake = match self.mistake {
            Mistake::Missing => "is missing",
            Mistake::TooShort => "is shorter than 32 characters",
            Mistake::Unlistable => "has a space, a comma or a character outside visible ASCII",
            Mistake::DevelopmentOnly => "is a development value",
            Mistake::Shared => "has the value of another secret",
        };
        write!(formatter, "{} {mistake}", self.place)
    }
}

impl std::error::Error for SecretFault {}

/// Reads one name after the other and keeps what is wrong.
struct Reader<L> {
    lookup: L,
    development: bool,
    faults: Vec<SecretFault>,
}

impl<L: Fn(&str) -> Option<String>> Reader<L> {
    fn required(&mut self, name: &str) -> Option<Rolling> {
        let current = self.text(name);
        let previous = self.text(&format!("{name}_PREVIOUS"));
        self.rolling(name, current, previous)
    }

    /// One value in two places would give one the rights of the other.
    fn apart(&mut self, secrets: &[(&str, Option<&Rolling>)]) {
        let mut seen: Vec<&str> = Vec::new();
        for (name, secret) in secrets {
            let texts: Vec<&str> = secret.iter().flat_map(|secret| secret.texts()).collect();
            if texts.iter().any(|text| seen.contains(text)) {
                self.fault::<()>((*name).to_owned(), Mistake::Shared);
            }
            seen.extend(texts);
        }
    }

    /// A previous value alone is a mistake: nobody can tell whether the token was to be replaced
    /// or withdrawn.
    fn optional(&mut self, name: &str) -> Option<Rolling> {
        let current = self.text(name);
        let previous = self.text(&format!("{name}_PREVIOUS"));
        if current.is_none() && previous.is_none() {
            return None;
        }
        self.rolling(name, current, previous)
    }

    /// One without the other could take money and never hear of it, or hear of money and never ask.
    fn stripe(&mut self, key: Option<Rolling>, webhook: Option<Rolling>) -> Option<StripeSecrets> {
        let names = ["STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET"];
        let missing = names.map(|name| self.text(name).is_none());
        for (name, is_missing) in names.into_iter().zip(missing) {
            if is_missing && missing.contains(&false) {
                self.fault::<()>(name.to_owned(), Mistake::Missing);
            }
        }
        Some(StripeSecrets {
            key: key?.current,
            webhook: webhook?,
        })
    }

    fn rolling(
        &mut self,
        name: &str,
        current: Option<String>,
        previous: Option<String>,
    ) -> Option<Rolling> {
        let current = match current {
            Some(text) => self.secret(name.to_owned(), &text),
            None => self.fault(name.to_owned(), Mistake::Missing),
        };
        let previous = previous
            .iter()
            .flat_map(|list| list.split(','))
            .enumerate()
            .filter_map(|(place, text)| {
                self.secret(format!("{name}_PREVIOUS[{place}]"), text.trim())
            })
            .collect();
        current.map(|current| Rolling { current, previous })
    }

    fn secret(&mut self, place: String, text: &str) -> Option<Secret> {
        if text.chars().count() < LEAST_CHARACTERS {
            self.fault(place, Mistake::TooShort)
        } else if !text.bytes().all(is_listable) {
            self.fault(place, Mistake::Unlistable)
        } else if text.starts_with(DEVELOPMENT_PREFIX) && !self.development {
            self.fault(place, Mistake::DevelopmentOnly)
        } else {
            Some(Secret(text.into()))
        }
    }

    fn fault<T>(&mut self, place: String, mistake: Mistake) -> Option<T> {
        self.faults.push(SecretFault { place, mistake });
        None
    }

    /// An empty value is none: that is how one is taken back in a dashboard.
    fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|text| !text.is_empty())
    }
}

/// A secret must fit into a header (the tokens) and into `…_PREVIOUS` (all of them), where commas
/// part the values and spaces around them are nobody's.
const fn is_listable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~') && byte != b','
}

/// HMAC-SHA256 with a key of any length.
pub(crate) fn hmac_of(key: &[u8]) -> HmacSha256 {
    HmacSha256::new(&key_block(key).into())
}

/// RFC 2104 §2: a key longer than a block is hashed, a shorter one filled up with zeros. Done
/// here because keying HMAC with a whole block cannot fail.
fn key_block(secret: &[u8]) -> [u8; BLOCK_BYTES] {
    let digest = Sha256::digest(secret);
    let key = if secret.len() > BLOCK_BYTES {
        digest.as_slice()
    } else {
        secret
    };
    let mut block = [0; BLOCK_BYTES];
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeMap;

    use hmac::Mac;

    const KEY: &str = "key-secret-0123456789-0123456789";
    const ADMIN: &str = "admin-token-0123456789-0123456789";
    const ORIGIN: &str = "origin-token-0123456789-0123456789";
    const SIGNING: &str = "origin-secret-0123456789-0123456789";
    const OLD: &str = "an-older-value-0123456789-0123456789";
    const OLDER: &str = "an-even-older-value-0123456789-0123456789";

    fn read(
        changes: &[(&str, Option<&str>)],
        development: bool,
    ) -> Result<Secrets, Vec<SecretFault>> {
        let mut values = BTreeMap::from([
            ("KEY_SECRET", KEY),
            ("ADMIN_TOKEN", ADMIN),
            ("ORIGIN_TOKEN", ORIGIN),
            ("ORIGIN_SECRET", SIGNING),
        ]);
        for (name, value) in changes {
            match value {
                Some(value) => values.insert(name, value),
                None => values.remove(name),
            };
        }
        Secrets::read(
            |name| values.get(name).map(|value| (*value).to_owned()),
            development,
        )
    }

    #[test]
    fn one_value_never_serves_as_two_secrets() {
        let shared = "one value that serves in two places".replace(' ', "-");
        let changes = [
            ("ORIGIN_TOKEN", Some(shared.as_str())),
            ("ADMIN_TOKEN_PREVIOUS", Some(shared.as_str())),
        ];
        assert_eq!(
            faults(&changes),
            ["ORIGIN_TOKEN has the value of another secret"]
        );
    }

    fn faults(changes: &[(&str, Option<&str>)]) -> Vec<String> {
        read(changes, false)
            .err()
            .unwrap_or_default()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn each_secret_that_cannot_be_used_is_named() {
        let short = "x".repeat(31);
        let listed = format!("{OLD}, {short}");
        let padded = format!("{OLD} ");
        let comma = format!("{KEY},{KEY}");
        let development = format!("development-only-{KEY}");
        for (changes, expected) in [
            (vec![], vec![]),
            (vec![("KEY_SECRET", None)], vec!["KEY_SECRET is missing"]),
            (
                vec![("ADMIN_TOKEN", Some(""))],
                vec!["ADMIN_TOKEN is missing"],
            ),
            (
                vec![
                    ("ADMIN_TOKEN", Some(short.as_str())),
                    ("ORIGIN_SECRET", None),
                ],
                vec![
                    "ADMIN_TOKEN is shorter than 32 characters",
                    "ORIGIN_SECRET is missing",
                ],
            ),
            (
                vec![("ORIGIN_TOKEN_PREVIOUS", Some(listed.as_str()))],
                vec!["ORIGIN_TOKEN_PREVIOUS[1] is shorter than 32 characters"],
            ),
            (
                vec![("ORIGIN_TOKEN_PREVIOUS", Some(","))],
                vec![
                    "ORIGIN_TOKEN_PREVIOUS[0] is shorter than 32 characters",
                    "ORIGIN_TOKEN_PREVIOUS[1] is shorter than 32 characters",
                ],
            ),
            (vec![("KEY_SECRET_PREVIOUS", Some(padded.as_str()))], vec![]),
            (vec![("KEY_SECRET_PREVIOUS", Some(""))], vec![]),
            (
                vec![("KEY_SECRET", Some(comma.as_str()))],
                vec!["KEY_SECRET has a space, a comma or a character outside visible ASCII"],
            ),
            (
                vec![("ADMIN_READ_TOKEN", Some("x"))],
                vec!["ADMIN_READ_TOKEN is shorter than 32 characters"],
            ),
            (
                vec![("ADMIN_READ_TOKEN_PREVIOUS", Some(OLD))],
                vec!["ADMIN_READ_TOKEN is missing"],
            ),
            (
                vec![("STRIPE_SECRET_KEY", Some(OLD))],
                vec!["STRIPE_WEBHOOK_SECRET is missing"],
            ),
            (
                vec![("STRIPE_WEBHOOK_SECRET", Some("whsec_"))],
                vec![
                    "STRIPE_WEBHOOK_SECRET is shorter than 32 characters",
                    "STRIPE_SECRET_KEY is missing",
                ],
            ),
            (
                vec![
                    ("KEY_SECRET", Some(development.as_str())),
                    ("ADMIN_TOKEN_PREVIOUS", Some(development.as_str())),
                ],
                vec![
                    "KEY_SECRET is a development value",
                    "ADMIN_TOKEN_PREVIOUS[0] is a development value",
                ],
            ),
        ] {
            assert_eq!(faults(&changes), expected, "{changes:?}");
        }
    }

    #[test]
    fn development_values_serve_in_development() {
        let value = format!("development-only-{KEY}");
        assert!(read(&[("KEY_SECRET", Some(&value))], true).is_ok());
    }

    #[test]
    fn a_token_and_those_it_replaces_open_nothing_else() {
        let listed = format!("{OLD},{OLDER}");
        let secrets = read(&[("ADMIN_TOKEN_PREVIOUS", Some(&listed))], false).unwrap();
        for (presented, expected) in [
            (ADMIN, true),
            (OLD, true),
            (OLDER, true),
            (ORIGIN, false),
            (KEY, false),
            (listed.as_str(), false),
            ("", false),
            (&ADMIN[1..], false),
        ] {
            assert_eq!(
                secrets.admin_token.matches(presented),
                expected,
                "{presented}"
            );
        }
        assert!(secrets.admin_read_token.is_none());
    }

    #[test]
    fn nothing_secret_is_ever_printed() {
        let secrets = read(
            &[
                ("KEY_SECRET_PREVIOUS", Some(OLD)),
                ("ADMIN_READ_TOKEN", Some(OLDER)),
            ],
            false,
        )
        .unwrap();
        let printed = format!("{secrets:?}");
        assert!(!printed.contains("0123456789"), "{printed}");
    }

    #[test]
    fn a_secret_keys_hmac_as_everyone_elses_does() {
        for length in [32, 63, 64, 65, 200] {
            let text = "s".repeat(length);
            let ours = Secret(text.as_str().into()).hmac().chain_update("message");
            let theirs = HmacSha256::new_from_slice(text.as_bytes())
                .unwrap()
                .chain_update("message");
            assert_eq!(ours.finalize(), theirs.finalize(), "{length}");
        }
    }
}
