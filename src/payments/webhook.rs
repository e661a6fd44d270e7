//! `Stripe-Signature`: that an event comes from Stripe, and just now (docs.stripe.com/webhooks/signature).
//!
//! The header is `t=UNIX,v1=HEX`, perhaps with several `v1` while Stripe rolls the secret, and with
//! signatures of other schemes, which are passed over. What is signed is the time, a point and the body as
//! it came.

use hmac::Mac;

use crate::{
    secrets::Rolling,
    signature::mac_of_hex,
    time::{Span, Timestamp},
};

/// How far the time that was signed may lie from the clock: what Stripe's own libraries allow.
const TOLERANCE: Span = Span::from_seconds(300);
/// So many signatures are looked at: nobody is made to compute more.
const SIGNATURES_MAX: usize = 8;

/// Whether `header` is Stripe's signature of `body`, made about `now`. What the comparison takes does not
/// depend on how much of a signature is right.
#[must_use]
pub fn is_signed(header: &str, body: &[u8], secret: &Rolling, now: Timestamp) -> bool {
    let mut seconds = None;
    let mut signatures = Vec::new();
    for part in header.split(',') {
        match part.trim().split_once('=') {
            Some(("t", t)) if seconds.is_none() => seconds = Some(t),
            Some(("v1", hex)) if signatures.len() < SIGNATURES_MAX => {
                signatures.extend(mac_of_hex(hex));
            }
            _ => {}
        }
    }
    let Some(seconds) = seconds else {
        return false;
    };
    let is_plain = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
    let Some(signed_at) = seconds.parse().ok().filter(|_| is_plain) else {
        return false;
    };
    let signed_at = Timestamp::from_seconds(signed_at);
    let age = now.since(signed_at).max(signed_at.since(now));
    let mut found = false;
    for secret in [&secret.current].into_iter().chain(&secret.previous) {
        let mut mac = secret.hmac();
        mac.update(seconds.as_bytes());
        mac.update(b".");
        mac.update(body);
        for signature in &signatures {
            // `|` and not `||`: every one is tried, whichever is right.
            found |= mac.clone().verify_slice(signature).is_ok();
        }
    }
    found && age <= TOLERANCE
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::secrets::Secrets;

    const SECRET: &str = "whsec_0123456789abcdef0123456789abcdef";
    const BODY: &[u8] = br#"{"id":"evt_1"}"#;
    // generateTestHeaderString of the npm package stripe, with SECRET, BODY and t=1795000000.
    const V1: &str = "1ea3e7a2d9941e13bc55a7ee686c09ccfa6b6a4fbd5a21d66054e9361267464b";

    fn secret(previous: &str) -> Rolling {
        let lookup = |name: &str| match name {
            "STRIPE_WEBHOOK_SECRET" if previous.is_empty() => Some(SECRET.to_owned()),
            "STRIPE_WEBHOOK_SECRET" => Some(previous.to_owned()),
            "STRIPE_WEBHOOK_SECRET_PREVIOUS" if !previous.is_empty() => Some(SECRET.to_owned()),
            name if name.ends_with("_PREVIOUS") => None,
            name => Some(format!("{name:-<40}")),
        };
        Secrets::read(lookup, false)
            .unwrap()
            .stripe
            .unwrap()
            .webhook
    }

    fn verify(header: &str, late_by: i64) -> bool {
        let now = Timestamp::from_seconds(1_795_000_000 + late_by);
        is_signed(header, BODY, &secret(""), now)
    }

    #[test]
    fn stripes_own_signature_is_known() {
        for header in [
            format!("t=1795000000,v1={V1}"),
            format!("t=1795000000,v0=00,v1={},v1={V1}", "0".repeat(64)),
            format!("v1={V1}, t=1795000000"),
        ] {
            assert!(verify(&header, 0), "{header}");
        }
        let header = format!("t=1795000000,v1={V1}");
        let now = Timestamp::from_seconds(1_795_000_000);
        let rolled = secret("whsec_another_one_0123456789abcdef0123");
        assert!(is_signed(&header, BODY, &rolled, now));
    }

    #[test]
    fn what_stripe_did_not_sign_is_refused() {
        for header in [
            String::new(),
            format!("v1={V1}"),
            "t=1795000000".to_owned(),
            format!("t=1795000001,v1={V1}"),
            format!("t=+1795000000,v1={V1}"),
            format!("t=1795000000,v0={V1}"),
            format!("t=1795000000,v1={}", &V1[..62]),
            format!("t=1795000000,v1={V1}00"),
            format!("t=1795000000,v1={}", V1.replace(&V1[..1], "g")),
            format!("t=1,t=1795000000,v1={V1}"),
        ] {
            assert!(!verify(&header, 0), "{header}");
        }
        let header = format!("t=1795000000,v1={V1}");
        let now = Timestamp::from_seconds(1_795_000_000);
        assert!(!is_signed(&header, br#"{"id":"evt_2"}"#, &secret(""), now));
    }

    #[test]
    fn an_old_signature_is_refused() {
        let header = format!("t=1795000000,v1={V1}");
        for (late_by, holds) in [(300, true), (301, false), (-300, true), (-301, false)] {
            assert_eq!(verify(&header, late_by), holds, "{late_by} s");
        }
    }
}
