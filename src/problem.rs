//! Refusals as callers read them: problem documents (RFC 9457) and the headers that go with them.
//!
//! A code for programs, a title for the code, a sentence for people.

use std::fmt;

use serde::Serialize;

use crate::{
    credits::Credits,
    time::{Span, Timestamp},
    wire::{Decode, Encode},
};

/// One refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What it is, for programs.
    pub code: Code,
    /// What it is this time, for people.
    pub detail: String,
    members: Members,
}

/// What some codes tell besides.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Members {
    None,
    Limits {
        violated: Vec<ViolatedPolicy>,
        retry_after_seconds: u64,
    },
    Credits(Shortage),
    Allow(String),
    Field(String),
    /// It will be otherwise after so many seconds.
    Passing(u64),
}

impl Problem {
    /// A refusal that its code and a sentence say all about.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            members: Members::None,
        }
    }

    /// 400: `field` of what was sent is wrong.
    #[must_use]
    pub fn bad_field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::of_field(Code::BadRequest, field, detail)
    }

    /// `field` of what was sent is the reason.
    #[must_use]
    pub fn of_field(code: Code, field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            members: Members::Field(field.into()),
            ..Self::new(code, detail)
        }
    }

    /// 409: the first call of the request's `Idempotency-Key` has not been answered.
    #[must_use]
    pub fn still_running() -> Self {
        Self {
            code: Code::Conflict,
            detail: "the first call with this Idempotency-Key is still running; try again later"
                .to_owned(),
            members: Members::Passing(1),
        }
    }

    /// The same, which will be over after `span`.
    #[must_use]
    pub fn passing_after(self, span: Span) -> Self {
        self.passing_in(whole_seconds(span))
    }

    /// The same, which will be over after so many seconds.
    #[must_use]
    pub fn passing_in(self, seconds: u64) -> Self {
        Self {
            members: Members::Passing(seconds),
            ..self
        }
    }

    /// 405: the path answers to `allow`, a list of methods as the header `Allow` has it
    /// (RFC 9110 §10.2.1).
    #[must_use]
    pub fn method_not_allowed(allow: impl Into<String>) -> Self {
        let allow = allow.into();
        Self {
            detail: format!("this path answers to {allow}"),
            members: Members::Allow(allow),
            code: Code::MethodNotAllowed,
        }
    }

    /// 429: these limits are reached; a lone caller passes them after `retry_after`.
    #[must_use]
    pub fn rate_limited(violations: &[Violation], retry_after: Span) -> Self {
        let retry_after_seconds = whole_seconds(retry_after);
        let sentences: Vec<_> = violations.iter().map(ToString::to_string).collect();
        Self {
            code: Code::RateLimited,
            detail: format!(
                "{}; try again in {retry_after_seconds} s",
                sentences.join(", ")
            ),
            members: Members::Limits {
                violated: violations.iter().map(|each| each.policy).collect(),
                retry_after_seconds,
            },
        }
    }

    /// 402: the pool cannot pay for the call.
    #[must_use]
    pub fn insufficient_credits(shortage: Shortage) -> Self {
        let unit = if shortage.required.get() == 1 {
            "credit"
        } else {
            "credits"
        };
        let renewal = shortage.renews_at.map_or_else(String::new, |renews_at| {
            format!("; it is renewed at {}", renews_at.to_rfc3339())
        });
        let has = match shortage.budget {
            None => format!(
                "pool '{}' has {} to spend",
                shortage.pool, shortage.available
            ),
            Some(budget) => format!(
                "the budget of this API key, {budget} a month, has {} left",
                shortage.available
            ),
        };
        Self {
            code: Code::InsufficientCredits,
            detail: format!(
                "this call needs {} {unit} and {has}{renewal}",
                shortage.required
            ),
            members: Members::Credits(shortage),
        }
    }

    /// The status of the answer.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.code.status()
    }

    /// Hands over the answer's headers, besides those of [`crate::headers`], one by one.
    ///
    /// # Errors
    ///
    /// The first that `set` returns.
    pub fn write_headers<E>(
        &self,
        mut set: impl FnMut(&'static str, &str) -> Result<(), E>,
    ) -> Result<(), E> {
        set("Content-Type", "application/problem+json")?;
        set("Cache-Control", "no-store")?;
        if let Some(seconds) = self.retry_after_seconds() {
            set("Retry-After", &seconds.to_string())?;
        }
        if self.status() == 401 {
            set("WWW-Authenticate", "Bearer")?;
        }
        if let Members::Allow(methods) = &self.members {
            set("Allow", methods)?;
        }
        Ok(())
    }

    /// The document, in the order of members that the contract shows.
    #[must_use]
    pub fn to_json(&self, request_id: &str) -> String {
        let (violated, shortage, field) = match &self.members {
            Members::Limits { violated, .. } => (Some(violated.as_slice()), None, None),
            Members::Credits(shortage) => (None, Some(shortage), None),
            Members::Field(field) => (None, None, Some(field.as_str())),
            Members::None | Members::Allow(_) | Members::Passing(_) => (None, None, None),
        };
        let document = Document {
            type_uri: self.code.type_uri(),
            title: self.code.title(),
            status: self.status(),
            code: self.code.as_str(),
            detail: &self.detail,
            violated,
            shortage,
            field,
            request_id,
        };
        // Texts and numbers alone: writing them cannot fail.
        serde_json::to_string(&document).unwrap_or_default()
    }

    /// `Retry-After` in seconds (RFC 9110 §10.2.3), never 0: a caller that comes back at once
    /// would be refused again. Every 429 and every `unavailable` has it.
    fn retry_after_seconds(&self) -> Option<u64> {
        match &self.members {
            Members::Limits {
                retry_after_seconds,
                ..
            } => Some(*retry_after_seconds),
            Members::Credits(shortage) => shortage.affordable_in.map(whole_seconds),
            Members::Passing(seconds) => Some(*seconds),
            Members::None | Members::Allow(_) | Members::Field(_) => {
                matches!(self.code, Code::RateLimited | Code::Unavailable).then_some(1)
            }
        }
    }
}

/// Why a pool cannot pay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shortage {
    /// The pool.
    pub pool: String,
    /// What the call needs.
    pub required: Credits,
    /// What can be spent.
    pub available: Credits,
    /// The key's budget for a month, where it is that which cannot pay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Credits>,
    /// The next scheduled renewal of the pool, or of the budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renews_at: Option<Timestamp>,
    /// How long until that renewal, where the call is affordable then: `Retry-After`.
    #[serde(skip)]
    pub affordable_in: Option<Span>,
}

/// A limit that a request would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Violation {
    /// Which one.
    #[n(0)]
    pub policy: ViolatedPolicy,
    /// How many it allows.
    #[n(1)]
    pub limit: u32,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (one, many) = match self.policy {
            ViolatedPolicy::Minute => (
                "request in any 60 seconds is allowed",
                "requests in any 60 seconds are allowed",
            ),
            ViolatedPolicy::Daily => ("request a day is allowed", "requests a day are allowed"),
            ViolatedPolicy::InFlight => (
                "request in flight is allowed",
                "requests in flight are allowed",
            ),
            ViolatedPolicy::Account => (
                "request of the whole account in any 60 seconds is allowed",
                "requests of the whole account in any 60 seconds are allowed",
            ),
            ViolatedPolicy::Jobs => ("open job is allowed", "open jobs are allowed"),
            ViolatedPolicy::UnknownKeys => (
                "unknown key from one address in a minute is looked up",
                "unknown keys from one address in a minute are looked up",
            ),
            ViolatedPolicy::UnknownTokens => (
                "wrong token from one address in a minute is looked at",
                "wrong tokens from one address in a minute are looked at",
            ),
        };
        let allowed = if self.limit == 1 { one } else { many };
        write!(formatter, "{} {allowed}", self.limit)
    }
}

/// The limits by the names that `violated-policies` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ViolatedPolicy {
    /// Calls of the key in any 60 seconds.
    #[n(0)]
    Minute,
    /// Calls of the key in a day.
    #[n(1)]
    Daily,
    /// Calls of the key not yet answered.
    #[n(2)]
    InFlight,
    /// Calls of all keys of the account in any 60 seconds.
    #[n(3)]
    Account,
    /// Jobs of the key not yet ended.
    #[n(4)]
    Jobs,
    /// Keys that could have been issued before Tollgate, from one client address, and were not.
    #[n(5)]
    UnknownKeys,
    /// Tokens for the admin API, from one client address, that were none of this deployment's.
    #[n(6)]
    UnknownTokens,
}

/// Every reason that Tollgate gives, for programs: a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Code {
    /// The path has a spelling that gateway and origin could read differently.
    #[n(0)]
    BadPath,
    /// Something in the request cannot be read.
    #[n(1)]
    BadRequest,
    /// No key was presented.
    #[n(2)]
    MissingKey,
    /// The key is malformed, forged, unknown, revoked or expired; or an admin token is wrong.
    #[n(3)]
    InvalidKey,
    /// The pool, or the key's budget, cannot pay for the call.
    #[n(4)]
    InsufficientCredits,
    /// The operator has suspended the account.
    #[n(5)]
    AccountSuspended,
    /// The key may not call this route.
    #[n(6)]
    OutOfScope,
    /// No route names the path.
    #[n(7)]
    NoRoute,
    /// What the path names does not exist.
    #[n(8)]
    NotFound,
    /// The path does not answer to the method.
    #[n(9)]
    MethodNotAllowed,
    /// Something else has the name, or is still running.
    #[n(10)]
    Conflict,
    /// The call was settled before.
    #[n(11)]
    AlreadySettled,
    /// The call was released before.
    #[n(12)]
    AlreadyReleased,
    /// The body is larger than what is read.
    #[n(13)]
    BodyTooLarge,
    /// The `Idempotency-Key` came with other content before.
    #[n(14)]
    IdempotencyMismatch,
    /// The settlement is above the call's hold.
    #[n(15)]
    AboveHold,
    /// A limit is reached.
    #[n(16)]
    RateLimited,
    /// This deployment sells nothing by itself.
    #[n(17)]
    PaymentsOff,
    /// No connection to the origin.
    #[n(18)]
    OriginUnreachable,
    /// The account's object did not answer.
    #[n(19)]
    Unavailable,
    /// The origin's headers did not come in time.
    #[n(20)]
    OriginTimeout,
    /// The request was forwarded by this gateway before.
    #[n(21)]
    Loop,
}

impl Code {
    /// Whether a refusal with this code says something of the key that draws it. A suspension says
    /// nothing of it, and a restriction would prolong itself; and who has run out of credits is told so,
    /// and is to go on as soon as there are some.
    #[must_use]
    pub const fn is_drawn_by_key(self) -> bool {
        !matches!(self, Self::AccountSuspended | Self::InsufficientCredits)
    }

    /// All of them, in the order of their status.
    pub const ALL: [Self; 22] = [
        Self::BadPath,
        Self::BadRequest,
        Self::MissingKey,
        Self::InvalidKey,
        Self::InsufficientCredits,
        Self::AccountSuspended,
        Self::OutOfScope,
        Self::NoRoute,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::AlreadySettled,
        Self::AlreadyReleased,
        Self::BodyTooLarge,
        Self::IdempotencyMismatch,
        Self::AboveHold,
        Self::RateLimited,
        Self::PaymentsOff,
        Self::OriginUnreachable,
        Self::Unavailable,
        Self::OriginTimeout,
        Self::Loop,
    ];

    /// The code as programs read it: `rate_limited`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        let (_, name, _) = self.facts();
        name
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        let (status, _, _) = self.facts();
        status
    }

    /// What the code means, the same every time (RFC 9457 §3.1.3).
    #[must_use]
    pub const fn title(self) -> &'static str {
        let (_, _, title) = self.facts();
        title
    }

    /// The problem type (RFC 9457 §3.1.1): the registered one where there is one
    /// (draft-ietf-httpapi-ratelimit-headers-11), else `urn:tollgate:problem:` and the code.
    #[must_use]
    pub fn type_uri(self) -> String {
        if self == Self::RateLimited {
            "https://iana.org/assignments/http-problem-types#quota-exceeded".to_owned()
        } else {
            format!("urn:tollgate:problem:{}", self.as_str().replace('_', "-"))
        }
    }

    /// Status, name and title.
    const fn facts(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::BadPath => (400, "bad_path", "Path refused"),
            Self::BadRequest => (400, "bad_request", "Request refused"),
            Self::MissingKey => (401, "missing_key", "API key missing"),
            Self::InvalidKey => (401, "invalid_key", "API key not valid"),
            Self::InsufficientCredits => (402, "insufficient_credits", "Not enough credits"),
            Self::AccountSuspended => (403, "account_suspended", "Account suspended"),
            Self::OutOfScope => (403, "out_of_scope", "Outside the key's scope"),
            Self::NoRoute => (404, "no_route", "No such route"),
            Self::NotFound => (404, "not_found", "Not found"),
            Self::MethodNotAllowed => (405, "method_not_allowed", "Method not allowed"),
            Self::Conflict => (409, "conflict", "Conflict"),
            Self::AlreadySettled => (409, "already_settled", "Call already settled"),
            Self::AlreadyReleased => (409, "already_released", "Call already released"),
            Self::BodyTooLarge => (413, "body_too_large", "Body too large"),
            Self::IdempotencyMismatch => (
                422,
                "idempotency_mismatch",
                "Idempotency-Key used for something else",
            ),
            Self::AboveHold => (422, "above_hold", "More than was held"),
            Self::RateLimited => (429, "rate_limited", "Quota exceeded"),
            Self::PaymentsOff => (501, "payments_off", "Payments are not set up"),
            Self::OriginUnreachable => (502, "origin_unreachable", "Origin unreachable"),
            Self::Unavailable => (503, "unavailable", "Temporarily unavailable"),
            Self::OriginTimeout => (504, "origin_timeout", "Origin did not answer in time"),
            Self::Loop => (508, "loop", "Request loop"),
        }
    }
}

/// The document as JSON has it.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    type_uri: String,
    title: &'static str,
    status: u16,
    code: &'static str,
    detail: &'a str,
    #[serde(rename = "violated-policies", skip_serializing_if = "Option::is_none")]
    violated: Option<&'a [ViolatedPolicy]>,
    #[serde(flatten)]
    shortage: Option<&'a Shortage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    request_id: &'a str,
}

/// A wait in whole seconds, a started one counted and at least one.
fn whole_seconds(span: Span) -> u64 {
    u64::try_from(span.as_seconds_ceil()).unwrap_or(0).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeSet;

    fn credits(amount: u64) -> Credits {
        Credits::new(amount).unwrap()
    }

    fn json(problem: &Problem) -> String {
        problem.to_json("req_1")
    }

    fn headers(problem: &Problem) -> Vec<String> {
        let mut lines = Vec::new();
        let written: Result<(), ()> = problem.write_headers(|name, value| {
            lines.push(format!("{name}: {value}"));
            Ok(())
        });
        assert_eq!(written, Ok(()));
        assert_eq!(
            lines[..2],
            [
                "Content-Type: application/problem+json",
                "Cache-Control: no-store"
            ]
        );
        lines.split_off(2)
    }

    fn minute(limit: u32) -> Violation {
        Violation {
            policy: ViolatedPolicy::Minute,
            limit,
        }
    }

    fn shortage() -> Shortage {
        Shortage {
            pool: "credits".to_owned(),
            required: credits(15),
            available: credits(4),
            budget: None,
            renews_at: None,
            affordable_in: None,
        }
    }

    #[test]
    fn a_reached_limit_reads_as_the_contract_shows() {
        let problem = Problem::rate_limited(&[minute(5)], Span::from_millis(11_001));
        assert_eq!(
            json(&problem),
            concat!(
                r#"{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","#,
                r#""title":"Quota exceeded","status":429,"code":"rate_limited","#,
                r#""detail":"5 requests in any 60 seconds are allowed; try again in 12 s","#,
                r#""violated-policies":["minute"],"request_id":"req_1"}"#
            )
        );
        assert_eq!(headers(&problem), ["Retry-After: 12"]);
    }

    #[test]
    fn several_reached_limits_are_all_named() {
        let violations = [
            ViolatedPolicy::Minute,
            ViolatedPolicy::Daily,
            ViolatedPolicy::InFlight,
            ViolatedPolicy::Account,
            ViolatedPolicy::Jobs,
            ViolatedPolicy::UnknownKeys,
            ViolatedPolicy::UnknownTokens,
        ]
        .map(|policy| Violation { policy, limit: 1 });
        let problem = Problem::rate_limited(&violations, Span::from_seconds(1));
        let json = json(&problem);
        assert!(
            json.contains(
                r#""violated-policies":["minute","daily","in_flight","account","jobs","unknown_keys","unknown_tokens"]"#
            ),
            "{json}"
        );
        assert!(
            json.contains("1 request in any 60 seconds is allowed, 1 request a day is allowed, "),
            "{json}"
        );
    }

    #[test]
    fn missing_credits_read_as_the_contract_shows() {
        let problem = Problem::insufficient_credits(Shortage {
            renews_at: Timestamp::parse_rfc3339("2026-12-01T00:00:00Z"),
            affordable_in: Some(Span::from_seconds(90)),
            ..shortage()
        });
        assert_eq!(
            json(&problem),
            concat!(
                r#"{"type":"urn:tollgate:problem:insufficient-credits","#,
                r#""title":"Not enough credits","status":402,"code":"insufficient_credits","#,
                r#""detail":"this call needs 15 credits and pool 'credits' has 4 to spend; "#,
                r#"it is renewed at 2026-12-01T00:00:00Z","#,
                r#""pool":"credits","required":15,"available":4,"#,
                r#""renews_at":"2026-12-01T00:00:00Z","request_id":"req_1"}"#
            )
        );
        assert_eq!(headers(&problem), ["Retry-After: 90"]);
    }

    #[test]
    fn a_used_up_budget_reads_as_one() {
        let problem = Problem::insufficient_credits(Shortage {
            budget: Some(credits(100)),
            renews_at: Timestamp::parse_rfc3339("2026-12-01T00:00:00Z"),
            affordable_in: Some(Span::from_seconds(90)),
            ..shortage()
        });
        assert_eq!(
            problem.detail,
            "this call needs 15 credits and the budget of this API key, 100 a month, has 4 left; \
             it is renewed at 2026-12-01T00:00:00Z"
        );
        let json = json(&problem);
        assert!(
            json.contains(r#""pool":"credits","required":15,"available":4,"budget":100,"#),
            "{json}"
        );
        assert_eq!(headers(&problem), ["Retry-After: 90"]);
    }

    #[test]
    fn a_renewal_that_does_not_help_is_no_reason_to_retry() {
        let problem = Problem::insufficient_credits(Shortage {
            renews_at: Timestamp::parse_rfc3339("2026-12-01T00:00:00Z"),
            ..shortage()
        });
        assert_eq!(headers(&problem), [""; 0]);
        let never = json(&Problem::insufficient_credits(shortage()));
        assert!(!never.contains("renew"), "{never}");
    }

    #[test]
    fn headers_follow_from_the_problem() {
        for (problem, expected) in [
            (
                Problem::rate_limited(&[minute(5)], Span::ZERO),
                vec!["Retry-After: 1"],
            ),
            (
                Problem::new(Code::RateLimited, "slow down"),
                vec!["Retry-After: 1"],
            ),
            (
                Problem::new(Code::Unavailable, "try again"),
                vec!["Retry-After: 1"],
            ),
            (
                Problem::new(Code::MissingKey, "no key"),
                vec!["WWW-Authenticate: Bearer"],
            ),
            (
                Problem::new(Code::InvalidKey, "no key"),
                vec!["WWW-Authenticate: Bearer"],
            ),
            (
                Problem::method_not_allowed("GET, HEAD"),
                vec!["Allow: GET, HEAD"],
            ),
            (Problem::still_running(), vec!["Retry-After: 1"]),
            (Problem::bad_field("plan", "no such plan"), vec![]),
            (Problem::new(Code::Loop, "loop"), vec![]),
        ] {
            assert_eq!(headers(&problem), expected, "{problem:?}");
        }
    }

    #[test]
    fn a_bad_field_is_named() {
        let json = json(&Problem::bad_field(
            "limits.daily",
            "a whole number is expected",
        ));
        assert!(
            json.ends_with(
                r#""detail":"a whole number is expected","field":"limits.daily","request_id":"req_1"}"#
            ),
            "{json}"
        );
    }

    #[test]
    fn every_code_has_its_own_name_title_and_type() {
        let all = Code::ALL;
        let distinct = |texts: Vec<String>| texts.into_iter().collect::<BTreeSet<_>>().len();
        assert_eq!(
            distinct(all.iter().map(|code| code.as_str().to_owned()).collect()),
            all.len()
        );
        assert_eq!(
            distinct(all.iter().map(|code| code.title().to_owned()).collect()),
            all.len()
        );
        assert_eq!(
            distinct(all.iter().map(|code| code.type_uri()).collect()),
            all.len()
        );
        let statuses: Vec<_> = all.iter().map(|code| code.status()).collect();
        assert!(statuses.is_sorted());
        assert_eq!(Code::BadPath.type_uri(), "urn:tollgate:problem:bad-path");
    }

    #[test]
    fn a_header_that_cannot_be_set_is_told() {
        let problem = Problem::new(Code::Loop, "loop");
        assert_eq!(
            problem.write_headers(|name, _| Err(name)),
            Err("Content-Type")
        );
    }
}
