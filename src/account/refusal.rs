//! Why a request does not become a call, as callers read it, and how long that holds.

use crate::{
    credits::Credits,
    headers::Standing,
    problem::{Code, Problem, Shortage, ViolatedPolicy, Violation},
    time::{Span, Timestamp},
    wire::{Decode, Encode},
};

/// How long an isolate may repeat that a key, or its account, is refused or over a limit.
const REPEATABLE: Span = Span::from_seconds(5);
/// How long it may repeat that credits are missing: they may come back at any moment.
const SHORTAGE_REPEATABLE: Span = Span::from_seconds(1);

/// Why a request does not become a call, in order of precedence. No error: an outcome.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    /// 401: no such key, another secret, revoked, or the account is closed.
    #[n(0)]
    UnknownKey,
    /// 403: the operator stopped the account, or it, or the key, is restricted for a while.
    #[n(1)]
    Suspended {
        /// What the customer is told.
        #[n(0)]
        reason: Option<String>,
        /// Limits as they stand.
        #[n(1)]
        standing: Standing,
        /// Where it is no word of the operator's, but for unusual consumption.
        #[n(2)]
        restricted: Option<Restricted>,
    },
    /// 409: the first call of this `Idempotency-Key` has not been answered.
    #[n(10)]
    FirstRuns {
        /// Limits as they stand.
        #[n(0)]
        standing: Standing,
    },
    /// 422: this `Idempotency-Key` came with other content before.
    #[n(11)]
    OtherContent {
        /// Limits as they stand.
        #[n(0)]
        standing: Standing,
    },
    /// 429.
    #[n(2)]
    RateLimited {
        /// The limits that are used up.
        #[n(0)]
        violated: Vec<Violation>,
        /// The first moment at which a lone caller passes.
        #[n(1)]
        retry_at: Timestamp,
        /// Limits as they stand.
        #[n(2)]
        standing: Standing,
    },
    /// 402.
    #[n(3)]
    InsufficientCredits {
        /// The pool.
        #[n(0)]
        pool: String,
        /// The least that had to be held.
        #[n(1)]
        required: Credits,
        /// What could have been held.
        #[n(2)]
        available: Credits,
        /// When the pool's next grant comes.
        #[n(3)]
        renews_at: Option<Timestamp>,
        /// Whether the call can be paid then.
        #[n(4)]
        affordable_then: bool,
        /// Limits as they stand.
        #[n(5)]
        standing: Standing,
        /// The key's budget for a month, where it is that which is used up, and not the pool.
        #[n(6)]
        budget: Option<Credits>,
    },
    /// The gateway gave this admission up before it arrived, or it is a late copy of one whose
    /// call has ended: nobody waits for the answer.
    #[n(4)]
    Cancelled,
    /// 403: the key may not call this route. It comes right after `Suspended`.
    #[n(5)]
    OutOfScope {
        /// The method.
        #[n(0)]
        method: String,
        /// The route's template.
        #[n(1)]
        endpoint: String,
        /// Limits as they stand.
        #[n(2)]
        standing: Standing,
    },
}

/// How calls are restricted for unusual consumption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Restricted {
    /// Until when.
    #[n(0)]
    pub until: Timestamp,
    /// Whether it is this key alone, and not its account.
    #[n(1)]
    pub key_alone: bool,
}

impl Restricted {
    fn problem(&self, reason: &str, clock: Timestamp) -> Problem {
        let who = if self.key_alone {
            "this API key"
        } else {
            "this account"
        };
        let until = self.until.to_rfc3339();
        let detail = format!("{who} is restricted until {until}: {reason}");
        Problem::new(Code::AccountSuspended, detail).passing_after(self.until.since(clock))
    }
}

impl Refusal {
    /// The answer, as seen at `clock`.
    #[must_use]
    pub fn problem(&self, clock: Timestamp) -> Problem {
        match self {
            Self::UnknownKey => Problem::new(
                Code::InvalidKey,
                "this API key is unknown, revoked or expired",
            ),
            Self::Suspended {
                reason,
                restricted: Some(restricted),
                ..
            } => restricted.problem(reason.as_deref().unwrap_or_default(), clock),
            Self::Suspended { reason: None, .. } => {
                Problem::new(Code::AccountSuspended, "this account is suspended")
            }
            Self::Suspended {
                reason: Some(reason),
                ..
            } => Problem::new(
                Code::AccountSuspended,
                format!("this account is suspended: {reason}"),
            ),
            Self::OutOfScope {
                method, endpoint, ..
            } => Problem::new(
                Code::OutOfScope,
                format!("this API key may not call {method} {endpoint}"),
            ),
            Self::FirstRuns { .. } => Problem::still_running(),
            Self::OtherContent { .. } => Problem::new(
                Code::IdempotencyMismatch,
                "this Idempotency-Key came with another request before; a new request needs a new key",
            ),
            Self::RateLimited {
                violated, retry_at, ..
            } => Problem::rate_limited(violated, retry_at.since(clock)),
            Self::InsufficientCredits {
                pool,
                required,
                available,
                renews_at,
                affordable_then,
                budget,
                ..
            } => Problem::insufficient_credits(Shortage {
                pool: pool.clone(),
                required: *required,
                available: *available,
                budget: *budget,
                renews_at: *renews_at,
                affordable_in: renews_at
                    .filter(|_| *affordable_then)
                    .map(|renews_at| renews_at.since(clock)),
            }),
            Self::Cancelled => Problem::new(
                Code::Unavailable,
                "this request was given up before it was admitted; try again",
            ),
        }
    }

    /// How the key stands, where it is one.
    #[must_use]
    pub const fn standing(&self) -> Option<&Standing> {
        match self {
            Self::Suspended { standing, .. }
            | Self::OutOfScope { standing, .. }
            | Self::FirstRuns { standing }
            | Self::OtherContent { standing }
            | Self::RateLimited { standing, .. }
            | Self::InsufficientCredits { standing, .. } => Some(standing),
            Self::UnknownKey | Self::Cancelled => None,
        }
    }

    /// Until when an isolate that was told this at `clock` may repeat it without asking; `None`:
    /// never.
    ///
    /// Only what nothing but time can end is repeated: any answered call may free one in flight
    /// or a job, and what is refused for the whole account depends on its other keys.
    #[must_use]
    pub fn repeatable_until(&self, clock: Timestamp) -> Option<Timestamp> {
        match self {
            Self::UnknownKey | Self::OutOfScope { .. } => Some(clock.plus(REPEATABLE)),
            Self::Suspended { restricted, .. } => {
                let until = clock.plus(REPEATABLE);
                Some(restricted.map_or(until, |restricted| until.min(restricted.until)))
            }
            Self::RateLimited {
                violated, retry_at, ..
            } => violated
                .iter()
                .all(|violation| {
                    matches!(
                        violation.policy,
                        ViolatedPolicy::Minute | ViolatedPolicy::Daily
                    )
                })
                .then(|| clock.plus(REPEATABLE).min(*retry_at)),
            Self::InsufficientCredits { renews_at, .. } => {
                let until = clock.plus(SHORTAGE_REPEATABLE);
                Some(renews_at.map_or(until, |renews_at| until.min(renews_at)))
            }
            Self::FirstRuns { .. } | Self::OtherContent { .. } | Self::Cancelled => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::headers::Window;

    const NOW: Timestamp = Timestamp::from_seconds(1_000);

    fn after(seconds: i64) -> Timestamp {
        NOW.plus(Span::from_seconds(seconds))
    }

    const fn standing() -> Standing {
        Standing {
            minute: Some(Window {
                limit: 5,
                remaining: 0,
                reset_seconds: 12,
            }),
            daily: None,
            credits_remaining: None,
        }
    }

    fn limited(policies: &[ViolatedPolicy], retry_in_seconds: i64) -> Refusal {
        Refusal::RateLimited {
            violated: policies
                .iter()
                .map(|policy| Violation {
                    policy: *policy,
                    limit: 5,
                })
                .collect(),
            retry_at: after(retry_in_seconds),
            standing: standing(),
        }
    }

    fn short(renews_in_seconds: Option<i64>, affordable_then: bool) -> Refusal {
        Refusal::InsufficientCredits {
            pool: "lyrics".to_owned(),
            required: Credits::new(15).unwrap(),
            available: Credits::new(4).unwrap(),
            renews_at: renews_in_seconds.map(after),
            affordable_then,
            standing: standing(),
            budget: None,
        }
    }

    fn suspended(reason: Option<&str>) -> Refusal {
        Refusal::Suspended {
            reason: reason.map(str::to_owned),
            standing: standing(),
            restricted: None,
        }
    }

    fn restricted(seconds: i64, key_alone: bool) -> Refusal {
        Refusal::Suspended {
            reason: Some("unusual".to_owned()),
            standing: standing(),
            restricted: Some(Restricted {
                until: after(seconds),
                key_alone,
            }),
        }
    }

    const fn first_runs() -> Refusal {
        Refusal::FirstRuns {
            standing: standing(),
        }
    }

    const fn other_content() -> Refusal {
        Refusal::OtherContent {
            standing: standing(),
        }
    }

    fn out_of_scope() -> Refusal {
        Refusal::OutOfScope {
            method: "POST".to_owned(),
            endpoint: "/search".to_owned(),
            standing: standing(),
        }
    }

    fn retry_after(refusal: &Refusal) -> Option<String> {
        let mut value = None;
        let written: Result<(), ()> = refusal.problem(NOW).write_headers(|name, text| {
            if name == "Retry-After" {
                value = Some(text.to_owned());
            }
            Ok(())
        });
        assert_eq!(written, Ok(()));
        value
    }

    #[test]
    fn every_refusal_has_its_answer() {
        use ViolatedPolicy::{InFlight, Minute};
        for (refusal, code, retry_after_seconds) in [
            (Refusal::UnknownKey, Code::InvalidKey, None),
            (suspended(None), Code::AccountSuspended, None),
            (restricted(90, true), Code::AccountSuspended, Some("90")),
            (out_of_scope(), Code::OutOfScope, None),
            (first_runs(), Code::Conflict, Some("1")),
            (other_content(), Code::IdempotencyMismatch, None),
            (limited(&[Minute], 12), Code::RateLimited, Some("12")),
            (limited(&[InFlight], 1), Code::RateLimited, Some("1")),
            (short(None, false), Code::InsufficientCredits, None),
            (short(Some(90), false), Code::InsufficientCredits, None),
            (short(Some(90), true), Code::InsufficientCredits, Some("90")),
            (Refusal::Cancelled, Code::Unavailable, Some("1")),
        ] {
            assert_eq!(refusal.problem(NOW).code, code, "{refusal:?}");
            assert_eq!(
                retry_after(&refusal).as_deref(),
                retry_after_seconds,
                "{refusal:?}"
            );
        }
    }

    #[test]
    fn a_suspended_customer_reads_the_operators_reason() {
        assert_eq!(
            suspended(Some("invoice 7 is open")).problem(NOW).detail,
            "this account is suspended: invoice 7 is open"
        );
        assert_eq!(
            suspended(None).problem(NOW).detail,
            "this account is suspended"
        );
    }

    #[test]
    fn a_restricted_customer_reads_until_when_and_why() {
        for (key_alone, who) in [(false, "account"), (true, "API key")] {
            assert_eq!(
                restricted(90, key_alone).problem(NOW).detail,
                format!("this {who} is restricted until 1970-01-01T00:18:10Z: unusual")
            );
        }
    }

    #[test]
    fn a_refusal_is_repeated_only_while_nothing_but_time_can_end_it() {
        use ViolatedPolicy::{Account, Daily, InFlight, Jobs, Minute};
        for (refusal, until) in [
            (Refusal::UnknownKey, Some(after(5))),
            (suspended(None), Some(after(5))),
            (restricted(90, false), Some(after(5))),
            (restricted(2, false), Some(after(2))),
            (out_of_scope(), Some(after(5))),
            (limited(&[Minute], 3), Some(after(3))),
            (limited(&[Minute], 12), Some(after(5))),
            (limited(&[Daily], 30_000), Some(after(5))),
            (limited(&[Minute, Daily], 2), Some(after(2))),
            (limited(&[InFlight], 1), None),
            (limited(&[Minute, InFlight], 12), None),
            (limited(&[Account], 12), None),
            (limited(&[Jobs], 60), None),
            (short(None, false), Some(after(1))),
            (short(Some(90), true), Some(after(1))),
            (short(Some(0), true), Some(after(0))),
            (first_runs(), None),
            (other_content(), None),
            (Refusal::Cancelled, None),
        ] {
            assert_eq!(refusal.repeatable_until(NOW), until, "{refusal:?}");
        }
    }
}
