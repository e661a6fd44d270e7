//! Webhooks as the Standard Webhooks specification has them: what is sent, and how it is signed.
//!
//! `webhook-signature` has a `v1,` signature for each listed secret, parted by spaces, so that a receiver
//! can change from one to the other at its own time. It covers `id.timestamp.body`.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::Mac;

use crate::{
    event::EventRecord,
    id::{AccountId, EventId, EventNumber},
    secrets::{DEVELOPMENT_PREFIX, HmacSha256, hmac_of},
    time::Timestamp,
};

/// The secret that signs webhooks.
pub const WEBHOOK_SECRET: &str = "WEBHOOK_SECRET";
const PREFIX: &str = "whsec_";

/// What is sent to the operator of one event: always the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The event.
    pub number: EventNumber,
    /// `webhook-id`.
    pub id: String,
    /// The body, as JSON.
    pub body: String,
}

impl Webhook {
    /// That of an event of `account`.
    #[must_use]
    pub fn of(account: &AccountId, event: &EventRecord) -> Self {
        let (kind, at) = (event.kind.as_str(), event.at.to_rfc3339());
        Self {
            number: event.number,
            id: EventId {
                account: account.clone(),
                number: event.number,
            }
            .to_string(),
            body: format!(
                "{{\"type\":\"{kind}\",\"timestamp\":\"{at}\",\"data\":{}}}",
                event.data
            ),
        }
    }
}

/// Signs webhooks.
pub struct WebhookSigner(Vec<HmacSha256>);

impl WebhookSigner {
    /// Reads WEBHOOK_SECRET and those of WEBHOOK_SECRET_PREVIOUS: `whsec_` and 24 to 64 bytes in
    /// base64. `lookup` gives the value of a name where it is set. Development values are accepted
    /// only where `development` says so.
    ///
    /// # Errors
    /// What is wrong, as a sentence for the log, without the secret.
    pub fn read(
        lookup: impl Fn(&str) -> Option<String>,
        development: bool,
    ) -> Result<Self, String> {
        let previous = lookup("WEBHOOK_SECRET_PREVIOUS").unwrap_or_default();
        let current = lookup(WEBHOOK_SECRET)
            .filter(|text| !text.is_empty())
            .ok_or("WEBHOOK_SECRET is missing, which [notifications] needs")?;
        let previous = previous.split(',').map(str::trim);
        let all = std::iter::once(current.as_str()).chain(previous.filter(|text| !text.is_empty()));
        let keys = all.enumerate().map(|(place, text)| {
            read_secret(text, development).ok_or_else(|| {
                let list = if place == 0 { "" } else { "_PREVIOUS" };
                format!(
                    "{WEBHOOK_SECRET}{list} is not whsec_ and 24 to 64 bytes in base64, or is a \
                     development value"
                )
            })
        });
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// The value of `webhook-signature` for what is sent at `timestamp`.
    #[must_use]
    pub fn sign(&self, webhook: &Webhook, timestamp: Timestamp) -> String {
        let signed = format!("{}.{}.{}", webhook.id, timestamp.as_seconds(), webhook.body);
        let signatures: Vec<String> = self
            .0
            .iter()
            .map(|key| {
                let mac = key.clone().chain_update(&signed).finalize().into_bytes();
                format!("v1,{}", BASE64_STANDARD.encode(mac))
            })
            .collect();
        signatures.join(" ")
    }
}

impl fmt::Debug for WebhookSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("WebhookSigner(…)")
    }
}

fn read_secret(text: &str, development: bool) -> Option<HmacSha256> {
    let bytes = BASE64_STANDARD.decode(text.strip_prefix(PREFIX)?).ok()?;
    let is_long_enough = (24..=64).contains(&bytes.len());
    let is_known_to_all = bytes.starts_with(DEVELOPMENT_PREFIX.as_bytes()) && !development;
    (is_long_enough && !is_known_to_all).then(|| hmac_of(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn signer(previous: &str) -> Result<WebhookSigner, String> {
        let lookup = |name: &str| match name {
            WEBHOOK_SECRET => Some(SECRET.to_owned()),
            _ => Some(previous.to_owned()),
        };
        WebhookSigner::read(lookup, false)
    }

    /// The example of the specification's own libraries.
    #[test]
    fn a_webhook_is_signed_as_everyone_elses_is() {
        let webhook = Webhook {
            number: EventNumber::new(1),
            id: "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned(),
            body: r#"{"test": 2432232314}"#.to_owned(),
        };
        let at = Timestamp::from_seconds(1_614_265_330);
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(signer("").unwrap().sign(&webhook, at), expected);
        let rolling = signer("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();
        let signatures = rolling.sign(&webhook, at);
        let signatures: Vec<&str> = signatures.split(' ').collect();
        assert_eq!((signatures.len(), signatures[0]), (2, expected));
        assert!(signatures[1].starts_with("v1,") && signatures[1] != expected);
    }

    #[test]
    fn a_secret_that_cannot_be_used_is_named_and_not_told() {
        // `development-only-webhook-secret-0123`
        let development = "whsec_ZGV2ZWxvcG1lbnQtb25seS13ZWJob29rLXNlY3JldC0wMTIz";
        for bad in [
            "whsec_",
            "whsec_AAAA",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "whsec_!",
            development,
        ] {
            let told = signer(bad).unwrap_err();
            assert!(told.starts_with("WEBHOOK_SECRET_PREVIOUS is not"), "{told}");
            let told = WebhookSigner::read(|_| Some(bad.to_owned()), false).unwrap_err();
            assert!(told.starts_with("WEBHOOK_SECRET is not"), "{told}");
        }
        assert!(WebhookSigner::read(|_| Some(development.to_owned()), true).is_ok());
        let missing = WebhookSigner::read(|_| None, false).unwrap_err();
        assert!(missing.starts_with("WEBHOOK_SECRET is missing"));
    }
}
