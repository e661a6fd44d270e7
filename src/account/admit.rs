//! A request becomes a call, or is refused: one decision over everything, all or nothing.

use super::{
    Account, Changes, Earlier, Fingerprint, KeyUsage, LogMonth, OPEN_CALLS_MAX, OPERATIONS_KNOWN,
    Refusal, Restricted, Status, retried::Turn,
};
use crate::{
    call::{Call, CallRow, Hold},
    credits::Credits,
    headers::{Standing, Window},
    id::{CallNumber, ExternalId, KeyNumber},
    key::SecretDigest,
    ledger::{Book, Part, Unsound, sum_of},
    policy::Mode,
    price::Terms,
    problem::{ViolatedPolicy, Violation},
    status::{Counts, Refusals},
    time::{Span, Timestamp},
    wire::{Decode, Encode},
};

/// How soon a caller that has too many calls in flight may look again.
const IN_FLIGHT_RETRY: Span = Span::from_seconds(1);
/// How soon a caller that has too many jobs open may look again, at the latest.
const JOBS_RETRY: Span = Span::MINUTE;

/// Asks for a call.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Admit {
    /// The operation id: a repeat with the same one is the same admission.
    #[n(0)]
    pub operation: u64,
    /// The key.
    #[n(1)]
    pub key: KeyNumber,
    /// SHA-256 of the secret part that was presented.
    #[n(2)]
    pub digest: SecretDigest,
    /// The method, as it will be listed.
    #[n(3)]
    pub method: String,
    /// The route's template, as it will be listed.
    #[n(4)]
    pub endpoint: String,
    /// What it costs.
    #[n(5)]
    pub terms: Terms,
    /// Refusals that the isolate has repeated for this key since it last told.
    #[n(6)]
    pub repeated_refusals: u32,
    /// Its `Idempotency-Key` and what came with it, where the origin deduplicates.
    #[n(10)]
    pub retried: Option<Fingerprint>,
    /// The same refusals by their code.
    #[cbor(n(11), default)]
    pub repeated_by_code: Refusals,
}

/// An admitted call.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Admission {
    /// Its number.
    #[n(0)]
    pub call: CallNumber,
    /// The credits that it holds.
    #[n(1)]
    pub held: Credits,
    /// Limits as they stand with this call counted, and what its pool can spend beside its hold.
    #[n(2)]
    pub standing: Standing,
    /// The account's plan.
    #[n(3)]
    pub plan: String,
    /// The operator's own name for the account.
    #[n(4)]
    pub external_id: Option<ExternalId>,
    /// What enforcing would have answered, where the gateway only observes.
    #[n(5)]
    pub would_refuse: Option<Refusal>,
    /// The call that has paid for this one: it is a repeat, and free.
    #[n(10)]
    pub repeats: Option<CallNumber>,
    /// Whether its end may be told a moment late: no limit on calls in flight waits for it and no repeat, and
    /// it is charged.
    #[cbor(n(11), default)]
    pub may_end_late: bool,
}

/// What a call needs cannot be had.
struct Short {
    /// What can.
    available: Credits,
    /// The key's budget, where it is that which cannot give more.
    budget: Option<Credits>,
    /// When more comes.
    renews_at: Option<Timestamp>,
    /// Whether it is enough then.
    affordable_then: bool,
}

impl Account {
    /// Decides about a request and, if it becomes a call, counts it and holds its credits.
    /// `earlier` is what it may be a repeat of, with all that is due at `clock` booked.
    ///
    /// # Errors
    /// The refusal; nothing was counted or held.
    pub fn admit(
        &mut self,
        mut admit: Admit,
        earlier: Option<&Earlier>,
        clock: Timestamp,
    ) -> (Result<Admission, Refusal>, Changes) {
        let mut changes = Changes::default();
        self.book_due(clock, &mut changes);
        // A repeat: the copy that was sent first may come last.
        if let Some(call) = self.open_by(admit.operation) {
            let admission = self.admission_of(call, admit.retried.is_some(), clock);
            return (Ok(admission), changes);
        }
        if self.is_over(admit.operation) {
            return (Err(Refusal::Cancelled), changes);
        }
        self.count_refusals(&admit, admit.repeated_refusals, clock);
        self.watch_refusals(admit.key, clock, &mut changes);
        self.count_refused(std::mem::take(&mut admit.repeated_by_code), clock);
        let turn = Turn::of(&admit, earlier);
        if matches!(turn, Turn::Repeat(_)) {
            admit.terms = admit.terms.of_repeat();
        }
        let observes = self.policy.gateway.mode == Mode::Observe;
        let (parts, would_refuse) = match self.decide(&admit, turn, clock) {
            Ok(parts) => (parts, None),
            // Without a key there is nobody to count the call for, and what an account may have
            // open is bounded in any mode.
            Err(refusal) if observes && refusal != Refusal::UnknownKey && !self.is_full() => {
                (Vec::new(), Some(refusal))
            }
            Err(refusal) => {
                if refusal.code().is_drawn_by_key() {
                    self.count_refusals(&admit, 1, clock);
                    self.watch_refusals(admit.key, clock, &mut changes);
                }
                if !observes {
                    let code = refusal.code().as_str().to_owned();
                    let mut refused = Refusals::new();
                    refused.insert(code, 1);
                    self.count_refused(refused, clock);
                }
                return (Err(refusal), changes);
            }
        };
        let hold = Hold {
            operation: admit.operation,
            terms: admit.terms.clone(),
            parts,
            deadline: clock.plus(self.policy.gateway.hold),
            observed: observes,
            would_refuse: would_refuse.map(Box::new),
            repeats: turn.repeats(),
        };
        self.secret_used(admit.key, &admit.digest, &mut changes);
        let retried = admit.retried;
        let call = self.count(admit, hold, clock, &mut changes);
        if let Some(fingerprint) = retried {
            self.keep_first(fingerprint, &call, earlier, &mut changes);
        }
        let admission = self.admission_of(&call, retried.is_some(), clock);
        self.add_open(call);
        (Ok(admission), changes)
    }

    fn is_full(&self) -> bool {
        self.open.len() >= OPEN_CALLS_MAX
    }

    /// Whether this admission was given up, or its call has ended.
    fn is_over(&self, operation: u64) -> bool {
        let is_known = self.state.operations.contains(&operation);
        is_known
            || self
                .state
                .cancelled
                .iter()
                .any(|(cancelled, _)| *cancelled == operation)
    }

    /// Limits, and what `pool` can spend, as they stand for `key`.
    #[must_use]
    pub fn standing(&self, key: KeyNumber, pool: Option<&str>, clock: Timestamp) -> Standing {
        let fresh = KeyUsage::default();
        let usage = self.state.usage.get(&key).unwrap_or(&fresh);
        let limits = self.limits_of(key);
        let calendar = self.policy.gateway.calendar;
        let minute = limits.requests_per_minute.map(|limit| Window {
            limit,
            remaining: usage.minute.remaining(limit, clock),
            reset_seconds: seconds_until(usage.minute.resets_at(clock), clock),
        });
        let daily = limits.requests_per_day.map(|limit| Window {
            limit,
            remaining: limit.saturating_sub(usage.days.of(calendar.day_of(clock))),
            reset_seconds: seconds_until(calendar.next_day(clock), clock),
        });
        Standing {
            minute,
            daily,
            credits_remaining: pool.map(|pool| self.available(pool)),
        }
    }

    /// What `pool` can spend now.
    pub(super) fn available(&self, pool: &str) -> Credits {
        let spending = self.spending(pool, self.state.latest);
        self.state
            .ledger
            .book(pool)
            .map_or(Credits::ZERO, |book| book.available(spending))
    }

    /// Looks at everything and changes nothing.
    fn decide(&self, admit: &Admit, turn: Turn, clock: Timestamp) -> Result<Vec<Part>, Refusal> {
        let key = self
            .key_held(admit.key, &admit.digest, clock)
            .ok_or(Refusal::UnknownKey)?;
        let pool = admit.terms.pool.as_str();
        let standing = || self.standing(admit.key, Some(pool), clock);
        if let Status::Suspended { reason } = &self.profile.status {
            return Err(Refusal::Suspended {
                reason: reason.clone(),
                standing: standing(),
                restricted: None,
            });
        }
        if let Some((flag, until)) = self.restriction(admit.key, clock) {
            return Err(Refusal::Suspended {
                reason: Some(flag.cause.to_string()),
                standing: standing(),
                restricted: Some(Restricted {
                    until,
                    key_alone: flag.cause.key().is_some(),
                }),
            });
        }
        let (method, endpoint, routes) = (&admit.method, &admit.endpoint, &self.policy.routes);
        if let Some(scope) = &key.scope
            && !scope.includes(method, endpoint, routes)
        {
            return Err(Refusal::OutOfScope {
                method: method.clone(),
                endpoint: endpoint.clone(),
                standing: standing(),
            });
        }
        match turn {
            Turn::Own | Turn::Repeat(_) => {}
            Turn::TooEarly => {
                return Err(Refusal::FirstRuns {
                    standing: standing(),
                });
            }
            Turn::OtherContent => {
                return Err(Refusal::OtherContent {
                    standing: standing(),
                });
            }
        }
        let limited = self.violated(admit.key, admit.terms.job.is_some(), clock);
        match (limited, self.choose(admit.key, &admit.terms, clock)) {
            (None, Ok(parts)) => Ok(parts),
            (Some((violated, retry_at)), Ok(_)) => Err(Refusal::RateLimited {
                violated,
                retry_at,
                standing: standing(),
            }),
            // Waiting for the limit would end at a 402, unless a renewal comes before.
            (Some((violated, retry_at)), Err(short))
                if short.affordable_then
                    && short
                        .renews_at
                        .is_some_and(|renews_at| renews_at <= retry_at) =>
            {
                Err(Refusal::RateLimited {
                    violated,
                    retry_at,
                    standing: standing(),
                })
            }
            (_, Err(short)) => Err(Refusal::InsufficientCredits {
                pool: pool.to_owned(),
                required: admit.terms.least,
                available: short.available,
                renews_at: short.renews_at,
                affordable_then: short.affordable_then,
                standing: standing(),
                budget: short.budget,
            }),
        }
    }

    /// What a call takes from which lots: what its pool and its key's budget can give.
    fn choose(&self, key: KeyNumber, terms: &Terms, clock: Timestamp) -> Result<Vec<Part>, Short> {
        if terms.most.is_zero() {
            return Ok(Vec::new());
        }
        let pool = terms.pool.as_str();
        let budget = self.budget(key, pool, clock);
        let left = budget.as_ref().map_or(terms.most, |budget| budget.left);
        let most = terms.most.min(left);

        let none = Book::default();
        let book = self.state.ledger.book(pool).unwrap_or(&none);
        let spending = self.spending(pool, self.state.latest);
        let chosen = book.choose(terms.least, most.max(terms.least), spending);
        let (available, renews_at, budget) = match (chosen, budget) {
            // Whatever the budget, the account cannot pay.
            (Err(short), _) => (short.available, self.renews_at(pool), None),
            (Ok(_), Some(budget)) if budget.left < terms.least => {
                let renews_at = self.budgets_renew_at(clock);
                (budget.left, Some(renews_at), Some(budget.amount))
            }
            (Ok(parts), _) => return Ok(parts),
        };
        let can_pay = |at| {
            let budget = self.budget(key, pool, at);
            self.available_at(pool, at) >= terms.least
                && budget.is_none_or(|budget| budget.left >= terms.least)
        };
        Err(Short {
            available,
            budget,
            renews_at,
            affordable_then: renews_at.is_some_and(can_pay),
        })
    }

    /// The limits that are used up, and the first moment at which a lone caller passes them all.
    fn violated(
        &self,
        key: KeyNumber,
        opens_job: bool,
        clock: Timestamp,
    ) -> Option<(Vec<Violation>, Timestamp)> {
        let limits = self.limits_of(key);
        let calendar = self.policy.gateway.calendar;
        let usage = self.state.usage.get(&key);
        let open = self.in_flight.get(&key).copied().unwrap_or_default();
        let minute = limits
            .requests_per_minute
            .and_then(|limit| usage?.minute.frees_at(limit, clock));
        let daily = limits
            .requests_per_day
            .filter(|limit| {
                usage.is_some_and(|usage| usage.days.of(calendar.day_of(clock)) >= *limit)
            })
            .map(|_| calendar.next_day(clock));
        let is_full = self.is_full();
        let in_flight = limits
            .requests_in_flight
            .map_or(is_full, |limit| is_full || open.requests >= limit)
            .then(|| clock.plus(IN_FLIGHT_RETRY));
        let account = limits
            .account_requests_per_minute
            .and_then(|limit| self.state.account_minute.frees_at(limit, clock));
        let jobs = limits
            .jobs_open
            .filter(|limit| opens_job && open.jobs_open() >= *limit)
            .map(|limit| {
                // One that is still being opened may fail in a moment; a job goes on.
                let is_lasting = open.jobs >= limit;
                clock.plus(if is_lasting {
                    JOBS_RETRY
                } else {
                    IN_FLIGHT_RETRY
                })
            });
        let all = [
            (ViolatedPolicy::Minute, limits.requests_per_minute, minute),
            (ViolatedPolicy::Daily, limits.requests_per_day, daily),
            (
                ViolatedPolicy::InFlight,
                limits.requests_in_flight.or(OPEN_CALLS_MAX.try_into().ok()),
                in_flight,
            ),
            (
                ViolatedPolicy::Account,
                limits.account_requests_per_minute,
                account,
            ),
            (ViolatedPolicy::Jobs, limits.jobs_open, jobs),
        ];
        let retry_at = all.iter().filter_map(|(_, _, frees_at)| *frees_at).max()?;
        let violated = all
            .into_iter()
            .filter(|(_, _, frees_at)| frees_at.is_some())
            .map(|(policy, limit, _)| Violation {
                policy,
                limit: limit.unwrap_or_default(),
            })
            .collect();
        Some((violated, retry_at))
    }

    /// Past this line nothing can fail.
    fn count(&mut self, admit: Admit, hold: Hold, clock: Timestamp, changes: &mut Changes) -> Call {
        self.state.calls_admitted = self.state.calls_admitted.saturating_add(1);
        let number = CallNumber::new(self.state.calls_admitted).unwrap_or_default();
        self.open_month(number, changes);
        let call = Call {
            number,
            key: admit.key,
            method: admit.method,
            endpoint: admit.endpoint,
            admitted_at: clock,
            hold,
            answer: None,
        };
        changes.unless_broken(self.count_admitted(&call));
        changes.admitted.push(CallRow {
            call: call.clone(),
            outcome: None,
        });
        changes.snapshot |= self.is_snapshot_due();
        call
    }

    /// Books an admission: the same at admission and when the call's row is replayed.
    ///
    /// # Errors
    /// A lot that it holds of is gone.
    pub(super) fn count_admitted(&mut self, call: &Call) -> Result<(), Unsound> {
        let clock = call.admitted_at;
        self.state.latest = self.state.latest.max(clock);
        self.state.operations.push_back(call.hold.operation);
        while self.state.operations.len() > OPERATIONS_KNOWN {
            self.state.operations.pop_front();
        }
        let limits = self.limits_of(call.key);
        let day = self.policy.gateway.calendar.day_of(clock);
        let usage = self.state.usage.entry(call.key).or_default();
        // A plan that comes later looks back at this minute, too.
        let widest = self.policy.widest_limits();
        if let Some(limit) = limits.requests_per_minute.max(widest.requests_per_minute) {
            usage.minute.count(call.number, limit, clock);
        }
        let account_limit = limits.account_requests_per_minute;
        if let Some(limit) = account_limit.max(widest.account_requests_per_minute) {
            self.state.account_minute.count(call.number, limit, clock);
        }
        usage.days.count(day);
        usage.last_used_at = Some(clock);
        self.count_cost(call);
        self.count_figures(&Counts {
            admitted: 1,
            ..Counts::at(clock)
        });
        let hold = &call.hold;
        self.state.ledger.hold(&hold.terms.pool, &hold.parts)
    }

    fn open_month(&mut self, first: CallNumber, changes: &mut Changes) {
        let month = self.policy.gateway.calendar.month_of(self.state.latest);
        if self.state.log.last().is_none_or(|last| last.month < month) {
            self.state.log.push(LogMonth {
                month,
                first,
                cancelled: 0,
                rolling: None,
                refundable_until: None,
            });
            changes.new_month = Some(month);
            changes.snapshot = true;
        }
    }

    fn admission_of(&self, call: &Call, is_retried: bool, clock: Timestamp) -> Admission {
        let limits_those_in_flight = self.limits_of(call.key).requests_in_flight.is_some();
        Admission {
            call: call.number,
            held: sum_of(&call.hold.parts),
            standing: self.standing(call.key, Some(&call.hold.terms.pool), clock),
            plan: self.profile.plan.name.clone(),
            external_id: self.profile.external_id.clone(),
            would_refuse: call.hold.would_refuse.as_deref().cloned(),
            repeats: call.hold.repeats,
            may_end_late: !limits_those_in_flight && !is_retried && !call.hold.observed,
        }
    }
}

fn seconds_until(moment: Timestamp, clock: Timestamp) -> u32 {
    u32::try_from(moment.since(clock).as_seconds_ceil()).unwrap_or(u32::MAX)
}
