//! Retried calls, as requests: which `Idempotency-Key` one carries, and what makes two the same.

use sha2::{Digest, Sha256};

use crate::{account::Fingerprint, id::KeyNumber, problem::Problem};

/// The header that names a request which may be sent again.
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// As many characters it has at most.
pub const IDEMPOTENCY_KEY_MAX: usize = 255;

/// What a repeat of a request has in common with it.
#[derive(Clone, Debug)]
pub struct Content<'a> {
    /// The method.
    pub method: &'a str,
    /// The hostname that was called.
    pub host: &'a str,
    /// The canonical path.
    pub path: &'a str,
    /// The query as it was sent, without its `?`.
    pub query: &'a str,
    /// The whole body.
    pub body: &'a [u8],
    /// The headers on which prices at this path depend, and all values of each.
    pub priced_headers: &'a [(&'a str, Vec<String>)],
}

/// The `Idempotency-Key` among all values that an origin may read as that header, as it goes to the
/// origin: 1 to 255 visible ASCII characters, or a string (RFC 8941 §3.3.3), as
/// draft-ietf-httpapi-idempotency-key-header-07 §2.1 has it.
///
/// # Errors
/// 400: it has another form, or is there twice.
pub fn idempotency_key(values: &[String]) -> Result<Option<&str>, Problem> {
    let bad = |found: &str| {
        let detail = format!(
            "{IDEMPOTENCY_KEY}: expected 1 to {IDEMPOTENCY_KEY_MAX} visible ASCII characters or a \
             quoted string of them, found {found}"
        );
        Problem::bad_field(IDEMPOTENCY_KEY, detail)
    };
    match values {
        [] => Ok(None),
        [key] if (1..=IDEMPOTENCY_KEY_MAX).contains(&key.len()) && has_form(key) => Ok(Some(key)),
        [_] => Err(bad("something else")),
        _ => Err(bad("more than one")),
    }
}

fn has_form(key: &str) -> bool {
    let Some(quoted) = key.strip_prefix('"') else {
        return key.bytes().all(|byte| byte.is_ascii_graphic());
    };
    let Some(text) = quoted.strip_suffix('"') else {
        return false;
    };
    let mut is_escaped = false;
    let is_string = text.bytes().all(|byte| {
        let fits = match byte {
            b'"' => is_escaped,
            b'\\' => true,
            b' '..=b'~' => !is_escaped,
            _ => false,
        };
        is_escaped = byte == b'\\' && !is_escaped;
        fits
    });
    is_string && !is_escaped && !text.is_empty()
}

impl Content<'_> {
    /// The digests by which a repeat with the same `Idempotency-Key`, of the same API key, is known.
    #[must_use]
    pub fn fingerprint(&self, key: KeyNumber, idempotency_key: &str) -> Fingerprint {
        let mut request = Parts::default();
        for part in [self.method, self.host, self.path, self.query] {
            request.add(part.as_bytes());
        }
        request.add(self.body);
        for (name, values) in self.priced_headers {
            request.add(name.as_bytes());
            request.add(&values.len().to_be_bytes());
            for value in values {
                request.add(value.as_bytes());
            }
        }
        let mut named = Parts::default();
        named.add(&key.get().to_be_bytes());
        named.add(idempotency_key.as_bytes());
        Fingerprint {
            key: named.digest(),
            request: request.digest(),
        }
    }
}

/// A digest of several texts, each with its length before it: no two lists of them are alike.
#[derive(Default)]
struct Parts(Sha256);

impl Parts {
    fn add(&mut self, part: &[u8]) {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        self.0.update(length.to_be_bytes());
        self.0.update(part);
    }

    fn digest(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeSet;

    use crate::problem::Code;

    fn read(values: &[&str]) -> Result<Option<String>, Problem> {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        Ok(idempotency_key(&values)?.map(str::to_owned))
    }

    #[test]
    fn an_idempotency_key_is_visible_or_a_quoted_string() {
        assert_eq!(read(&[]), Ok(None));
        let longest = "k".repeat(255);
        for good in [
            "k",
            "8e03978e-40d5-43dd-bc93-6894a57f9324",
            "a,b;c=\"d\"",
            "a\\",
            "\"8e03978e\"",
            "\"two words\"",
            r#""a \"quoted\" \\ one""#,
            longest.as_str(),
        ] {
            assert_eq!(read(&[good]), Ok(Some(good.to_owned())), "{good}");
        }
        let too_long = "k".repeat(256);
        for bad in [
            "",
            "two words",
            "a, b",
            "é",
            "a\tb",
            "\"",
            "\"\"",
            "\"open",
            "\"a\" ",
            "\"a\";b=1",
            "\"a\", \"b\"",
            r#""a"b""#,
            r#""a\""#,
            r#""a\b""#,
            "\"\u{7f}\"",
            too_long.as_str(),
        ] {
            let problem = read(&[bad]).unwrap_err();
            assert_eq!(problem.code, Code::BadRequest, "{bad}");
            let json = problem.to_json("req_1");
            assert!(json.contains(r#""field":"Idempotency-Key""#), "{json}");
        }
        assert!(read(&["a", "a"]).is_err());
    }

    #[test]
    fn every_part_of_a_request_tells_it_from_others() {
        let headers = |name, values: &[&str]| {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            [(name, values)]
        };
        let (fast, slow) = (headers("x-speed", &["fast"]), headers("x-speed", &["slow"]));
        let (none, other) = (headers("x-speed", &[]), headers("x-spee", &["dfast"]));
        let content = Content {
            method: "POST",
            host: "api.example.com",
            path: "/dub",
            query: "a=1",
            body: b"{}",
            priced_headers: &fast,
        };
        #[rustfmt::skip]
        let others = [
            content.clone(),
            Content { method: "PUT", ..content.clone() },
            Content { host: "api.example.co", ..content.clone() },
            Content { path: "/du", query: "ba=1", ..content.clone() },
            Content { path: "/dub/", ..content.clone() },
            Content { query: "", ..content.clone() },
            Content { query: "a=1{}", body: b"", ..content.clone() },
            Content { body: b"{ }", ..content.clone() },
            Content { body: &[0; 65_536], ..content.clone() },
            Content { priced_headers: &[], ..content.clone() },
            Content { priced_headers: &slow, ..content.clone() },
            Content { priced_headers: &none, ..content.clone() },
            Content { priced_headers: &other, ..content.clone() },
        ];
        let of = |content: &Content<'_>, key, name| content.fingerprint(KeyNumber::new(key), name);
        let requests: BTreeSet<_> = others
            .iter()
            .map(|other| of(other, 1, "k").request)
            .collect();
        assert_eq!(requests.len(), others.len());
        assert_eq!(of(&content, 1, "k"), of(&content.clone(), 1, "k"));

        let keys: BTreeSet<_> = [(1, "k"), (1, "K"), (1, "\"k\""), (2, "k"), (1, "")]
            .map(|(key, name)| of(&content, key, name).key)
            .into();
        assert_eq!(keys.len(), 5);
        assert_eq!(
            of(&content, 1, "k").request,
            of(&content, 2, "other").request
        );
    }
}
