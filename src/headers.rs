//! Headers: those that Tollgate writes, those that it does not hand on, and those that it mends.

use std::fmt::Write;

use crate::{
    credits::Credits,
    time::Span,
    wire::{Decode, Encode},
};

/// Every header that [`AnswerHeaders::write`] tells.
pub const OWNED: [&str; 9] = [
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Limit-Daily",
    "X-RateLimit-Remaining-Daily",
    "X-Credits-Remaining",
    "X-Credits-Charged",
    "X-Request-Id",
    "RateLimit-Policy",
    "RateLimit",
];

/// What the origin alone is told of a call. One that echoes what it hears would hand its caller a signature.
pub const TOLD_TO_ORIGIN: [&str; 7] = [
    "X-Tollgate-Account",
    "X-Tollgate-External-Id",
    "X-Tollgate-Key",
    "X-Tollgate-Plan",
    "X-Tollgate-Call",
    "X-Tollgate-Held",
    "X-Tollgate-Signature",
];

/// What makes an answer of Tollgate's own readable in a browser, where the request had an
/// `Origin`. Besides [`OWNED`] it shows what a refused script acts on.
pub const OWN_CORS: [(&str, &str); 2] = [
    ("Access-Control-Allow-Origin", "*"),
    (
        "Access-Control-Expose-Headers",
        "X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Limit-Daily, \
         X-RateLimit-Remaining-Daily, X-Credits-Remaining, X-Credits-Charged, X-Request-Id, \
         RateLimit-Policy, RateLimit, Retry-After",
    ),
];

const SECONDS_PER_MINUTE: u32 = 60;
const SECONDS_PER_DAY: u32 = 86_400;

/// How a key stands after a decision of its account's object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Standing {
    /// The key's calls in any 60 seconds; `None`: unlimited.
    #[n(0)]
    pub minute: Option<Window>,
    /// The key's calls of the day; `None`: unlimited.
    #[n(1)]
    pub daily: Option<Window>,
    /// What the route's pool can still spend once the call is ended as its status says.
    #[n(2)]
    pub credits_remaining: Option<Credits>,
}

/// How much of a limit is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Window {
    /// How many calls it allows.
    #[n(0)]
    pub limit: u32,
    /// How many are left.
    #[n(1)]
    pub remaining: u32,
    /// Seconds until more are.
    #[n(2)]
    pub reset_seconds: u32,
}

/// The headers that Tollgate writes on an answer: here and nowhere else.
#[derive(Clone, Copy, Debug)]
pub struct AnswerHeaders<'a> {
    /// The call's id, or that of a request which became none.
    pub request_id: &'a str,
    /// How the key stands, where the account's object had a part in the answer.
    pub standing: Option<&'a Standing>,
    /// What the call was charged, where that is known by now. Told only with a standing.
    pub charged: Option<Credits>,
}

impl AnswerHeaders<'_> {
    /// Tells each of [`OWNED`] once: its value, or that the answer has none, whatever the origin set.
    pub fn write(&self, mut tell: impl FnMut(&'static str, Option<&str>)) {
        let standing = self.standing.copied().unwrap_or_default();
        let Standing { minute, daily, .. } = standing;
        let charged = self.charged.filter(|_| self.standing.is_some());
        tell("X-Request-Id", Some(self.request_id));
        let mut tell_number = |name, value: Option<u64>| {
            let value = value.map(|value| value.to_string());
            tell(name, value.as_deref());
        };
        let limit = |window: Window| u64::from(window.limit);
        let remaining = |window: Window| u64::from(window.remaining);
        tell_number("X-RateLimit-Limit", minute.map(limit));
        tell_number("X-RateLimit-Remaining", minute.map(remaining));
        tell_number("X-RateLimit-Limit-Daily", daily.map(limit));
        tell_number("X-RateLimit-Remaining-Daily", daily.map(remaining));
        let credits_remaining = standing.credits_remaining.map(Credits::get);
        tell_number("X-Credits-Remaining", credits_remaining);
        tell_number("X-Credits-Charged", charged.map(Credits::get));
        tell("RateLimit-Policy", standing.policies().as_deref());
        tell("RateLimit", standing.service_limits().as_deref());
    }
}

impl Standing {
    /// The same, told `elapsed` later.
    #[must_use]
    pub fn later(self, elapsed: Span) -> Self {
        let seconds = u32::try_from(elapsed.as_millis() / 1_000).unwrap_or(u32::MAX);
        let later = |window: Window| Window {
            reset_seconds: window.reset_seconds.saturating_sub(seconds),
            ..window
        };
        Self {
            minute: self.minute.map(later),
            daily: self.daily.map(later),
            ..self
        }
    }

    /// `"minute";q=5;w=60, "daily";q=50;w=86400`
    /// (draft-ietf-httpapi-ratelimit-headers-11, RateLimit-Policy).
    fn policies(&self) -> Option<String> {
        self.list(|list, window, seconds| write!(list, ";q={};w={seconds}", window.limit))
    }

    /// `"minute";r=3;t=41, "daily";r=42;t=30120`
    /// (draft-ietf-httpapi-ratelimit-headers-11, RateLimit).
    fn service_limits(&self) -> Option<String> {
        self.list(|list, window, _| {
            let (remaining, reset) = (window.remaining, window.reset_seconds);
            write!(list, ";r={remaining};t={reset}")
        })
    }

    /// A list of strings with parameters (RFC 9651 §3.1); `None` where nothing is limited.
    fn list(
        &self,
        parameters: impl Fn(&mut String, Window, u32) -> std::fmt::Result,
    ) -> Option<String> {
        let windows = [
            (r#""minute""#, self.minute, SECONDS_PER_MINUTE),
            (r#""daily""#, self.daily, SECONDS_PER_DAY),
        ];
        let mut list = String::new();
        for (name, window, seconds) in windows {
            let Some(window) = window else { continue };
            list.push_str(if list.is_empty() { "" } else { ", " });
            list.push_str(name);
            // Writing to a String cannot fail.
            let _ = parameters(&mut list, window, seconds);
        }
        (!list.is_empty()).then_some(list)
    }
}

/// Which of a request's headers are not handed on to the origin.
#[derive(Clone, Copy, Debug)]
pub struct Dropped<'a> {
    connection: &'a str,
}

impl<'a> Dropped<'a> {
    /// Reads the request's `Connection`, which names further headers that end here
    /// (RFC 9110 §7.6.1).
    #[must_use]
    pub fn of(connection: Option<&'a str>) -> Self {
        Self {
            connection: connection.unwrap_or_default(),
        }
    }

    /// Whether the header `name` is dropped. What is priced or matched must not be read from such
    /// a header: the origin never sees it.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        dropped_request_header(name) || list(self.connection).any(|named| alike(named, name))
    }
}

/// Whether the header `name`, in whatever case, is dropped from every request: it ends at the
/// gateway, or makes claims to the origin that are the gateway's to make.
///
/// `_` counts as `-`: origins behind CGI, WSGI or PHP see no difference between
/// `X_Tollgate_Account` and `X-Tollgate-Account`.
#[must_use]
pub fn dropped_request_header(name: &str) -> bool {
    const NAMES: [&str; 20] = [
        // Hop-by-hop (RFC 9110 §7.6.1, and what is older than it).
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        // Waits for a 100, which the runtime cannot hand on: it takes the origin's for the answer.
        "expect",
        // Another sender than the one that was looked at.
        "forwarded",
        // Another method or path than the one that was priced.
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-http-path-override",
        "x-original-method",
        "x-original-uri",
        "x-original-url",
        "x-envoy-original-path",
        "x-rewrite-url",
    ];
    const PREFIXES: [&str; 2] = ["x-forwarded-", "x-tollgate-"];
    NAMES.iter().any(|dropped| alike(dropped, name))
        || PREFIXES.iter().any(|prefix| {
            name.get(..prefix.len())
                .is_some_and(|start| alike(prefix, start))
        })
}

/// The value of `Access-Control-Expose-Headers` that lets a browser read Tollgate's headers on
/// an origin's answer; `None` where the origin allowed no other site to read it at all.
///
/// Names are added also to a `*`, which in an answer with credentials is a name like any other
/// (Fetch, "CORS-exposed header-name list").
#[must_use]
pub fn expose_headers(allow_origin: Option<&str>, exposed: Option<&str>) -> Option<String> {
    allow_origin?;
    let exposed = exposed.unwrap_or_default();
    let mut value = exposed.trim_matches([' ', '\t', ',']).to_owned();
    for name in OWNED {
        if list(exposed).any(|other| other.eq_ignore_ascii_case(name)) {
            continue;
        }
        let separator = if value.is_empty() { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(value, "{separator}{name}");
    }
    Some(value)
}

/// The `Location` that keeps a redirected caller at the gateway: one at `origin` moves to
/// `called`. `None` where it leads elsewhere or is relative, and stays as it is.
///
/// `origin` and `called` are scheme, host and port: `https://api.example.com`. Host and port are
/// compared, the scheme's own port counting as none; the scheme is not, because an origin behind
/// its own TLS terminator may write `http://`.
#[must_use]
pub fn rewrite_location(location: &str, origin: &str, called: &str) -> Option<String> {
    let (scheme, rest) = match location.strip_prefix("//") {
        // Relative to the scheme that the origin was called by (RFC 3986 §4.2).
        Some(rest) => (origin.split_once("://")?.0, rest),
        None => location.split_once("://")?,
    };
    let (authority, path) = match rest.find(['/', '?', '#']) {
        Some(end) => rest.split_at_checked(end)?,
        None => (rest, ""),
    };
    let (origin_scheme, origin_authority) = origin.split_once("://")?;
    let there = Site::of(scheme, authority)?;
    let origin = Site::of(origin_scheme, origin_authority)?;
    there.is_at(origin).then(|| format!("{called}{path}"))
}

/// Where a URL leads. An authority with user information is compared whole, and so never is the
/// origin's: `https://origin.example.com@elsewhere.example` leads elsewhere.
#[derive(Clone, Copy)]
struct Site<'a> {
    host: &'a str,
    /// `None`: the scheme's own.
    port: Option<&'a str>,
}

impl<'a> Site<'a> {
    fn of(scheme: &str, authority: &'a str) -> Option<Self> {
        let default_port = if scheme.eq_ignore_ascii_case("https") {
            "443"
        } else if scheme.eq_ignore_ascii_case("http") {
            "80"
        } else {
            return None;
        };
        let (host, port) = match authority.rsplit_once(':') {
            // The last colon of `[::1]` is inside the address.
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (authority, ""),
        };
        let port = (!port.is_empty() && port != default_port).then_some(port);
        Some(Self { host, port })
    }

    fn is_at(self, other: Self) -> bool {
        self.host.eq_ignore_ascii_case(other.host) && self.port == other.port
    }
}

/// The elements of a comma-separated header (RFC 9110 §5.6.1).
fn list(value: &str) -> impl Iterator<Item = &str> {
    value
        .split(',')
        .map(|element| element.trim_matches([' ', '\t']))
        .filter(|element| !element.is_empty())
}

/// Whether an origin may take two header names for the same.
pub(crate) fn alike(one: &str, other: &str) -> bool {
    let folded = |byte: u8| match byte {
        b'_' => b'-',
        byte => byte.to_ascii_lowercase(),
    };
    one.len() == other.len() && one.bytes().map(folded).eq(other.bytes().map(folded))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(headers: AnswerHeaders<'_>) -> Vec<String> {
        let (mut told, mut lines) = (Vec::new(), Vec::new());
        headers.write(|name, value| {
            told.push(name);
            lines.extend(value.map(|value| format!("{name}: {value}")));
        });
        let (mut told, mut owned) = (told, OWNED);
        told.sort_unstable();
        owned.sort_unstable();
        assert_eq!(told, owned, "each is told once");
        lines
    }

    const fn standing() -> Standing {
        Standing {
            minute: Some(Window {
                limit: 5,
                remaining: 3,
                reset_seconds: 41,
            }),
            daily: Some(Window {
                limit: 50,
                remaining: 42,
                reset_seconds: 30_120,
            }),
            credits_remaining: Credits::new(44),
        }
    }

    #[test]
    fn an_answer_carries_what_the_contract_shows() {
        let headers = AnswerHeaders {
            request_id: "call_acme_17",
            standing: Some(&standing()),
            charged: Credits::new(1),
        };
        assert_eq!(
            written(headers),
            [
                "X-Request-Id: call_acme_17",
                "X-RateLimit-Limit: 5",
                "X-RateLimit-Remaining: 3",
                "X-RateLimit-Limit-Daily: 50",
                "X-RateLimit-Remaining-Daily: 42",
                "X-Credits-Remaining: 44",
                "X-Credits-Charged: 1",
                r#"RateLimit-Policy: "minute";q=5;w=60, "daily";q=50;w=86400"#,
                r#"RateLimit: "minute";r=3;t=41, "daily";r=42;t=30120"#,
            ]
        );
    }

    #[test]
    fn what_is_unlimited_or_unknown_is_left_out() {
        let daily_only = Standing {
            minute: None,
            ..standing()
        };
        let headers = AnswerHeaders {
            request_id: "call_acme_17",
            standing: Some(&daily_only),
            charged: None,
        };
        assert_eq!(
            written(headers),
            [
                "X-Request-Id: call_acme_17",
                "X-RateLimit-Limit-Daily: 50",
                "X-RateLimit-Remaining-Daily: 42",
                "X-Credits-Remaining: 44",
                r#"RateLimit-Policy: "daily";q=50;w=86400"#,
                r#"RateLimit: "daily";r=42;t=30120"#,
            ]
        );
        let headers = AnswerHeaders {
            standing: Some(&Standing::default()),
            charged: Some(Credits::ZERO),
            ..headers
        };
        assert_eq!(
            written(headers),
            ["X-Request-Id: call_acme_17", "X-Credits-Charged: 0"]
        );
    }

    #[test]
    fn an_answer_without_the_accounts_object_carries_its_id_alone() {
        let headers = AnswerHeaders {
            request_id: "req_1",
            standing: None,
            charged: Credits::new(1),
        };
        assert_eq!(written(headers), ["X-Request-Id: req_1"]);
    }

    #[test]
    fn a_standing_arrives_as_it_was_sent() {
        let bytes = minicbor::to_vec(standing()).unwrap();
        assert_eq!(minicbor::decode::<Standing>(&bytes).unwrap(), standing());
    }

    #[test]
    fn headers_that_end_here_are_dropped() {
        for name in [
            "Connection",
            "KEEP-ALIVE",
            "te",
            "Transfer-Encoding",
            "Upgrade",
            "Expect",
            "Proxy-Authorization",
            "Forwarded",
            "X-Forwarded-For",
            "x-forwarded-anything",
            "X_Forwarded_For",
            "X-Tollgate-Account",
            "x-tollgate_signature",
            "X_TOLLGATE_KEY",
            "X-HTTP-Method-Override",
            "X-HTTP-Method",
            "X-Method-Override",
            "X_HTTP_Method_Override",
            "X-Original-URL",
            "X-Rewrite-Url",
        ] {
            assert!(dropped_request_header(name), "{name}");
        }
        for name in [
            "",
            "Authorization",
            "Content-Type",
            "Accept",
            "X-Forwarded",
            "X-Tollgate",
            "X-Tollgates",
            "X-Request-Id",
            "Cookie",
            "Tea",
            "é",
            "x-tollgateé",
        ] {
            assert!(!dropped_request_header(name), "{name}");
        }
    }

    #[test]
    fn what_connection_names_is_dropped_too() {
        let dropped = Dropped::of(Some("close, X-Private ,x-other"));
        for (name, expected) in [
            ("x-private", true),
            ("X-Other", true),
            ("X_Other", true),
            ("close", true),
            ("Connection", true),
            ("X-Priv", false),
            ("", false),
            ("Accept", false),
        ] {
            assert_eq!(dropped.contains(name), expected, "{name}");
        }
        assert!(!Dropped::of(None).contains("x-private"));
        assert!(!Dropped::of(Some(",")).contains(""));
    }

    #[test]
    fn tollgates_headers_are_exposed_once() {
        let all = OWNED.join(", ");
        for (allow_origin, exposed, expected) in [
            (None, Some("X-Mine"), None),
            (Some("*"), None, Some(all.clone())),
            (Some("*"), Some(""), Some(all.clone())),
            (Some("*"), Some("X-Mine"), Some(format!("X-Mine, {all}"))),
            (Some("*"), Some(" X-Mine, "), Some(format!("X-Mine, {all}"))),
            (Some("*"), Some("*"), Some(format!("*, {all}"))),
            (
                Some("https://a.example"),
                Some(all.as_str()),
                Some(all.clone()),
            ),
            (
                Some("*"),
                Some("x-request-id, RATELIMIT"),
                Some(
                    "x-request-id, RATELIMIT, X-RateLimit-Limit, X-RateLimit-Remaining, \
                     X-RateLimit-Limit-Daily, X-RateLimit-Remaining-Daily, X-Credits-Remaining, \
                     X-Credits-Charged, RateLimit-Policy"
                        .to_owned(),
                ),
            ),
        ] {
            assert_eq!(
                expose_headers(allow_origin, exposed),
                expected,
                "{exposed:?}"
            );
        }
    }

    #[test]
    fn an_answer_of_tollgates_own_hides_none_of_its_headers() {
        let exposed: Vec<_> = OWN_CORS[1].1.split(", ").collect();
        assert_eq!(exposed[..9], OWNED);
        assert_eq!(exposed[9..], ["Retry-After"]);
    }

    #[test]
    fn a_redirect_at_the_origin_stays_at_the_gateway() {
        const ORIGIN: &str = "https://origin.example.com";
        const PORT: &str = "http://127.0.0.1:9000";
        for (location, origin, expected) in [
            ("https://origin.example.com/a?b#c", ORIGIN, Some("/a?b#c")),
            ("https://origin.example.com", ORIGIN, Some("")),
            ("https://origin.example.com?b", ORIGIN, Some("?b")),
            ("https://origin.example.com#c", ORIGIN, Some("#c")),
            ("HTTPS://Origin.Example.COM/A", ORIGIN, Some("/A")),
            ("https://origin.example.com:443/a", ORIGIN, Some("/a")),
            ("https://origin.example.com:/a", ORIGIN, Some("/a")),
            ("http://origin.example.com/a", ORIGIN, Some("/a")),
            ("//origin.example.com/a", ORIGIN, Some("/a")),
            ("http://127.0.0.1:9000/a", PORT, Some("/a")),
            ("http://[::1]:9000/a", "http://[::1]:9000", Some("/a")),
            ("http://[::1]/a", "http://[::1]", Some("/a")),
            ("/a", ORIGIN, None),
            ("a", ORIGIN, None),
            ("", ORIGIN, None),
            ("?next=https://origin.example.com/a", ORIGIN, None),
            ("/a?next=https://origin.example.com/a", ORIGIN, None),
            ("https://elsewhere.example/a", ORIGIN, None),
            ("https://origin.example.com.evil.example/a", ORIGIN, None),
            ("https://origin.example.com@evil.example/a", ORIGIN, None),
            ("https://evil.example@origin.example.com/a", ORIGIN, None),
            ("https://origin.example.com:8443/a", ORIGIN, None),
            ("http://origin.example.com:443/a", ORIGIN, None),
            ("ftp://origin.example.com/a", ORIGIN, None),
            ("http://127.0.0.1/a", PORT, None),
            ("https://127.0.0.1:9000/a", PORT, Some("/a")),
        ] {
            assert_eq!(
                rewrite_location(location, origin, "https://api.example.com"),
                expected.map(|path| format!("https://api.example.com{path}")),
                "{location}"
            );
        }
    }
}
