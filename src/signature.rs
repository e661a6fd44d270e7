//! `X-Tollgate-Signature`: how the origin knows that a request came through the gateway.
//!
//! The value is `t=UNIX,v1=HEX`: seconds since 1970 and HMAC-SHA256 under ORIGIN_SECRET over the
//! lines t, method, path, query, call, account, key, plan, external id, joined by `\n`.

use std::fmt;

use base16ct::lower;
use hmac::Mac;

use crate::{
    secrets::{HmacSha256, Rolling},
    time::Timestamp,
};

const MAC_BYTES: usize = 32;

/// What a signature covers, each as it stands in the request line or in its `X-Tollgate-…`
/// header. A line that the request does not have is empty.
///
/// None of them can hold a line break: each is read from a URL or a header, or parsed to types
/// that refuse one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Signed<'a> {
    /// The method.
    pub method: &'a str,
    /// The canonical path.
    pub path: &'a str,
    /// The query as it came, without `?`.
    pub query: &'a str,
    /// `X-Tollgate-Call`.
    pub call: &'a str,
    /// `X-Tollgate-Account`.
    pub account: &'a str,
    /// `X-Tollgate-Key`.
    pub key: &'a str,
    /// `X-Tollgate-Plan`.
    pub plan: &'a str,
    /// `X-Tollgate-External-Id`.
    pub external_id: &'a str,
}

/// Signs what is forwarded, and knows its own signature again.
pub struct Signer {
    current: HmacSha256,
    previous: Vec<HmacSha256>,
}

impl Signer {
    /// A signer that signs under the current ORIGIN_SECRET and knows all that are listed.
    #[must_use]
    pub fn new(origin_secret: &Rolling) -> Self {
        Self {
            current: origin_secret.current.hmac(),
            previous: origin_secret
                .previous
                .iter()
                .map(|secret| secret.hmac())
                .collect(),
        }
    }

    /// The header's value for a request that is forwarded at `t`.
    #[must_use]
    pub fn sign(&self, signed: &Signed<'_>, t: Timestamp) -> String {
        let t = t.as_seconds().to_string();
        let mac = over(&self.current, &t, signed).finalize().into_bytes();
        format!("t={t},v1={}", lower::encode_string(&mac))
    }

    /// Whether `header` is this deployment's signature over exactly this request, of whatever
    /// time: such a request has come back to the gateway that forwarded it.
    #[must_use]
    pub fn verify(&self, header: &str, signed: &Signed<'_>) -> bool {
        let Some((t, mac)) = read(header) else {
            return false;
        };
        let is_signed_under = |state| over(state, t, signed).verify_slice(&mac).is_ok();
        let current = is_signed_under(&self.current);
        // `|` and not `||`: every listed secret is tried, whichever one it is.
        self.previous
            .iter()
            .fold(current, |found, state| found | is_signed_under(state))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Signer(…)")
    }
}

/// The keyed state fed with the signed lines.
fn over(state: &HmacSha256, t: &str, signed: &Signed<'_>) -> HmacSha256 {
    let mut mac = state.clone();
    mac.update(t.as_bytes());
    for line in [
        signed.method,
        signed.path,
        signed.query,
        signed.call,
        signed.account,
        signed.key,
        signed.plan,
        signed.external_id,
    ] {
        mac.update(b"\n");
        mac.update(line.as_bytes());
    }
    mac
}

/// Takes `t=UNIX,v1=HEX` apart; `None` for every spelling that [`Signer::sign`] does not write.
fn read(header: &str) -> Option<(&str, [u8; MAC_BYTES])> {
    let (t, hex) = header.strip_prefix("t=")?.split_once(",v1=")?;
    let is_as_written = t.parse::<i64>().is_ok_and(|t_read| t_read.to_string() == t);
    Some((t, mac_of_hex(hex).filter(|_| is_as_written)?))
}

/// Reads a MAC of 32 bytes, spelled in lower-case hexadecimal digits.
pub(crate) fn mac_of_hex(hex: &str) -> Option<[u8; MAC_BYTES]> {
    let mut mac = [0; MAC_BYTES];
    let read = lower::decode(hex, &mut mac).ok()?.len();
    (read == MAC_BYTES).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    use crate::secrets::Secrets;

    const OLD: &str = "the-old-secret-0123456789-0123456789";
    const NEW: &str = "the-new-secret-0123456789-0123456789";
    const FORWARDED: Signed<'_> = Signed {
        method: "POST",
        path: "/api/external/v1/search",
        query: "q=a&page=2",
        call: "call_acme_17",
        account: "acme",
        key: "key_acme_1",
        plan: "starter",
        external_id: "customer 9",
    };

    fn signer(current: &str, previous: &str) -> Signer {
        let lookup = |name: &str| match name {
            "ORIGIN_SECRET_PREVIOUS" => Some(previous.to_owned()),
            "ADMIN_READ_TOKEN" => None,
            name if name.ends_with("_PREVIOUS") => None,
            "ORIGIN_SECRET" => Some(current.to_owned()),
            other => Some(format!("{other:-<40}")),
        };
        Signer::new(&Secrets::read(lookup, false).unwrap().origin_secret)
    }

    fn at() -> Timestamp {
        Timestamp::from_seconds(1_795_000_000)
    }

    #[test]
    fn an_origin_finds_the_same_signature_with_any_hmac_library() {
        // Python: hmac.new(secret, "\n".join([...]).encode(), "sha256").hexdigest()
        assert_eq!(
            signer(NEW, "").sign(&FORWARDED, at()),
            "t=1795000000,v1=7e1c08acd4ad2406340541bf85e66404ac379bbc373f64c0f99258a5fd12f5df"
        );
        let anonymous = Signed {
            method: "GET",
            path: "/hooks/a",
            ..Signed::default()
        };
        assert_eq!(
            signer(NEW, "").sign(&anonymous, at()),
            "t=1795000000,v1=9ac200500d3288a57e50de322473cf475d949c5b92265101805ed8392d3a0415"
        );
    }

    #[test]
    fn a_signature_covers_every_line() {
        let signer = signer(NEW, "");
        let header = signer.sign(&FORWARDED, at());
        assert!(signer.verify(&header, &FORWARDED));
        for (changed, signed) in [
            (
                "method",
                Signed {
                    method: "PUT",
                    ..FORWARDED
                },
            ),
            (
                "path",
                Signed {
                    path: "/",
                    ..FORWARDED
                },
            ),
            (
                "query",
                Signed {
                    query: "",
                    ..FORWARDED
                },
            ),
            (
                "call",
                Signed {
                    call: "call_acme_18",
                    ..FORWARDED
                },
            ),
            (
                "account",
                Signed {
                    account: "",
                    ..FORWARDED
                },
            ),
            (
                "key",
                Signed {
                    key: "key_acme_2",
                    ..FORWARDED
                },
            ),
            (
                "plan",
                Signed {
                    plan: "free",
                    ..FORWARDED
                },
            ),
            (
                "external id",
                Signed {
                    external_id: "customer 8",
                    ..FORWARDED
                },
            ),
        ] {
            assert!(!signer.verify(&header, &signed), "{changed}");
        }
        let later = header.replace("t=1795000000", "t=1795000001");
        assert!(!signer.verify(&later, &FORWARDED));
    }

    #[test]
    fn a_signature_has_one_spelling() {
        let signer = signer(NEW, "");
        let header = signer.sign(&FORWARDED, at());
        for other in [
            String::new(),
            "t=,v1=".to_owned(),
            header.replace("t=", "t=+"),
            header.replace("t=", "t=0"),
            header.replace("t=", "t= "),
            header.replace(",v1", ", v1"),
            header.replace("v1=", "v2="),
            header.to_uppercase(),
            format!("{header}0"),
            format!("{header}00"),
            format!("{header}, {header}"),
            header[..header.len() - 2].to_owned(),
            header[..header.len() - 1].to_owned(),
        ] {
            assert!(!signer.verify(&other, &FORWARDED), "{other}");
        }
    }

    #[test]
    fn a_loop_is_seen_while_the_secret_rolls() {
        let header = signer(OLD, "").sign(&FORWARDED, at());
        assert!(signer(NEW, OLD).verify(&header, &FORWARDED));
        assert!(!signer(NEW, "").verify(&header, &FORWARDED));
        assert_ne!(signer(NEW, OLD).sign(&FORWARDED, at()), header);
    }

    proptest! {
        #[test]
        fn what_a_client_makes_up_is_no_signature(header in "(t=[0-9]{0,12},v1=)?[0-9a-f]{0,66}") {
            prop_assert!(!signer(NEW, OLD).verify(&header, &FORWARDED));
        }
    }
}
