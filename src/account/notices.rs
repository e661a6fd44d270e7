//! Events that the operator and the customer have to be told of, until they were or it is given up.
//!
//! An event is committed with the change that brings it about, in a row of its own; which of them are
//! still to be sent is kept in one more row. Neither is written where the policy tells nobody. The
//! webhook's queue is sent in order: the next one waits until the one before was taken or parked. The
//! e-mail's is another, so that neither waits for the other.
//!
//! What is still to be sent keeps its row for 3 days, whatever is emitted meanwhile. Where nearly all rows
//! are taken so, an event that calls bring about is not kept, and where all are, none is; how many were
//! not, is told as soon as there is room.

use std::{collections::BTreeSet, sync::Arc};

use super::{Account, Changes};
use crate::{
    credits::Credits,
    event::{EVENTS_KEPT, Event, EventRecord, EventType, Fate, row_of},
    id::EventNumber,
    time::{Span, Timestamp},
    wire::{Decode, Encode},
};

/// So long after an event came to be sent, it is given up with the next attempt that fails.
const GIVEN_UP_AFTER: Span = Span::from_days(3);
/// What the wait after a failed attempt begins with, and by how much each one is longer.
const FIRST_WAIT: Span = Span::from_seconds(10);
const WAIT_GROWS_BY: i64 = 3;
/// The longest wait after a failed attempt, before it is spread.
const LONGEST_WAIT: Span = Span::from_seconds(43_200);
/// When the alarm looks after what should be on its way by then.
const BACKUP: Span = Span::MINUTE;
/// So many rows are left to events that calls do not bring about.
const RESERVED: u64 = 100;
/// The most that is kept of what went wrong.
const ERROR_BYTES: usize = 200;

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Messenger {
    /// The operator, by webhook.
    Webhook,
    /// The customer, by e-mail.
    Email,
}

/// How an attempt to send something went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It was taken.
    Taken,
    /// It was not, and may be another time.
    Failed(String),
    /// It was not, and never will be.
    Refused(String),
}

/// Which events are still to be sent. Stored in a row of its own; places are only added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Notices {
    /// Events ever emitted: the last one's number.
    #[n(0)]
    emitted: u64,
    #[n(1)]
    webhook: Queue,
    #[n(2)]
    email: Queue,
    /// Events that were not kept since the last one that said how many.
    #[n(3)]
    #[cbor(default)]
    missed: u64,
}

/// What one messenger has still to send: the first first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Queue {
    #[n(0)]
    waiting: Vec<Waiting>,
    /// How often the first was sent.
    #[n(1)]
    attempts: u32,
    /// Not before this is it sent again.
    #[n(2)]
    retry_at: Timestamp,
    /// What went wrong the last time.
    #[n(3)]
    error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Waiting {
    #[n(0)]
    number: EventNumber,
    /// Since when; what it is given up by.
    #[n(1)]
    since: Timestamp,
}

impl Account {
    /// Has the operator told, and the customer where the policy says so, of what happened at `at`. It
    /// is committed with `changes`; nothing is where the policy tells nobody.
    pub(super) fn emit(&mut self, event: &Event, at: Timestamp, changes: &mut Changes) {
        let Some(told) = &self.policy.notifications else {
            return;
        };
        let kind = event.kind();
        let by_email = told
            .email
            .as_ref()
            .is_some_and(|email| email.events.contains(&kind) && self.profile.email.is_some());
        changes.notices = true;
        let Some(number) = self.notices.next_number(kind, self.state.latest) else {
            self.notices.missed = self.notices.missed.saturating_add(1);
            return;
        };
        self.notices.make_room(number);
        let waiting = Waiting {
            number,
            since: self.state.latest,
        };
        self.notices.emitted = number.get();
        self.notices.webhook.waiting.push(waiting);
        if by_email {
            self.notices.email.waiting.push(waiting);
        }
        changes.events.push(EventRecord {
            number,
            at,
            kind,
            data: event.data(&self.profile.id, self.profile.external_id.as_ref()),
            webhook: Fate::Waiting,
            email: by_email.then(|| event.letter()),
        });
    }

    /// Tells how many events were not kept, if any were and there is room for that.
    fn tell_of_missed_events(&mut self, changes: &mut Changes) {
        let latest = self.state.latest;
        let has_room = self
            .notices
            .next_number(EventType::AccountFlagged, latest)
            .is_some();
        if self.notices.missed > 0 && has_room {
            let missed = std::mem::take(&mut self.notices.missed);
            self.flag(
                format!("{missed} events were not kept: too many others could not be sent"),
                changes,
            );
        }
    }

    /// Emits what the balances of pools have come to since this was last done: each threshold once
    /// for each fall below it. Holds are not taken off, so that nothing is told which a release
    /// would take back.
    pub fn note_balances(&mut self, changes: &mut Changes) {
        let before = self.look_at_balances();
        if self.is_closed() {
            return;
        }
        let policy = Arc::clone(&self.policy);
        let balances = self.balances.clone().into_iter();
        for ((pool, before), balance) in policy.pools.keys().zip(before).zip(balances) {
            if balance >= before {
                continue;
            }
            let threshold = self.threshold_passed(pool, before, balance);
            let event = match threshold {
                _ if balance.is_zero() => Event::BalanceExhausted { pool: pool.clone() },
                Some(threshold) => Event::BalanceLow {
                    pool: pool.clone(),
                    threshold,
                    balance,
                },
                None => continue,
            };
            self.emit(&event, self.state.latest, changes);
        }
    }

    /// Looks at what the policy's pools have left, in their order, and gives what they had when this
    /// was last done.
    pub(super) fn look_at_balances(&mut self) -> Vec<Credits> {
        let balances = match &self.policy.notifications {
            Some(_) => self
                .policy
                .pools
                .keys()
                .map(|pool| self.left(pool))
                .collect(),
            None => Vec::new(),
        };
        std::mem::replace(&mut self.balances, balances)
    }

    /// What could be spent of `pool` if all that is held of it came back.
    pub(super) fn left(&self, pool: &str) -> Credits {
        let spending = self.spending(pool, self.state.latest);
        let lots = self.state.ledger.book(pool).into_iter();
        lots.flat_map(|book| &book.lots)
            .filter(|lot| spending.allows(lot))
            .fold(Credits::ZERO, |sum, lot| sum.saturating_add(lot.left()))
    }

    /// The lowest threshold that a balance fell below.
    fn threshold_passed(&self, pool: &str, before: Credits, now: Credits) -> Option<Credits> {
        let own = self.profile.balance_low.as_ref();
        let thresholds = own.and_then(|own| own.of(pool)).or_else(|| {
            let told = self.policy.notifications.as_ref()?;
            told.balance_low.of(pool)
        })?;
        let passed = |threshold: &&Credits| before >= **threshold && now < **threshold;
        thresholds.iter().filter(passed).min().copied()
    }

    /// The event that `messenger` should send now, if there is one.
    #[must_use]
    pub fn due_event(&self, messenger: Messenger, clock: Timestamp) -> Option<EventNumber> {
        let told = self.policy.notifications.as_ref()?;
        let can_send = match messenger {
            Messenger::Webhook => true,
            Messenger::Email => told.email.is_some(),
        };
        let queue = self.notices.queue(messenger);
        queue.first().filter(|_| can_send && queue.is_due(clock))
    }

    /// When the alarm has to see to it that events are sent: when the next attempt is to be made, or
    /// soon, where one should be under way. `None` while nothing is to be sent.
    #[must_use]
    pub fn events_at(&self, clock: Timestamp) -> Option<Timestamp> {
        let told = self.policy.notifications.as_ref()?;
        let email = told.email.as_ref().map(|_| &self.notices.email);
        let queues = std::iter::once(&self.notices.webhook).chain(email);
        queues.filter_map(|queue| queue.wakes_at(clock)).min()
    }

    /// The last event's number; 0 before the first.
    #[must_use]
    pub const fn events_emitted(&self) -> EventNumber {
        EventNumber::new(self.notices.emitted)
    }

    /// How `messenger` stands with an event: how often it was sent, and what went wrong the last
    /// time; `None` where it is not to be sent any more.
    #[must_use]
    pub fn attempts_at(
        &self,
        messenger: Messenger,
        number: EventNumber,
    ) -> Option<(u32, Option<&str>)> {
        let queue = self.notices.queue(messenger);
        if queue.first() == Some(number) {
            return Some((queue.attempts, queue.error.as_deref()));
        }
        let is_waiting = queue.waiting.iter().any(|other| other.number == number);
        is_waiting.then_some((0, None))
    }

    /// Books how an attempt went. A late or repeated word changes nothing.
    pub fn attempted(
        &mut self,
        messenger: Messenger,
        mut record: EventRecord,
        attempt: Attempt,
        clock: Timestamp,
    ) -> Changes {
        let mut changes = Changes::default();
        let spread_by = self.spread_by(record.number);
        let queue = self.notices.queue_mut(messenger);
        let first = queue.waiting.first_mut();
        let Some(first) = first.filter(|first| first.number == record.number) else {
            return changes;
        };
        // It was emitted in order time, which may lie ahead of the clock.
        first.since = first.since.min(clock);
        let since = first.since;
        changes.notices = true;
        let attempts = queue.attempts.saturating_add(1);
        let fate = match attempt {
            Attempt::Taken => Fate::Delivered {
                at: clock,
                attempts,
            },
            Attempt::Failed(error) if clock.since(since) < GIVEN_UP_AFTER => {
                let last = since.plus(GIVEN_UP_AFTER);
                let retry_at = clock.plus(wait_after(attempts, spread_by));
                queue.attempts = attempts;
                queue.retry_at = retry_at.min(last.max(clock));
                queue.error = Some(shortened(error));
                return changes;
            }
            Attempt::Failed(error) | Attempt::Refused(error) => Fate::Parked {
                at: clock,
                attempts,
                error: shortened(error),
            },
        };
        queue.pop();
        match messenger {
            Messenger::Webhook => record.webhook = fate,
            Messenger::Email => {
                if let Some(letter) = &mut record.email {
                    letter.fate = fate;
                }
            }
        }
        changes.events.push(record);
        self.tell_of_missed_events(&mut changes);
        changes
    }

    /// Passes over an event that is no longer kept.
    pub fn pass_over(&mut self, messenger: Messenger, number: EventNumber) -> Changes {
        let queue = self.notices.queue_mut(messenger);
        let is_first = queue.first() == Some(number);
        if is_first {
            queue.pop();
        }
        Changes {
            notices: is_first,
            ..Changes::default()
        }
    }

    /// Has the webhook sent once more, after those that wait; one that waits first, at once. An e-mail that
    /// was given up goes out with it; one that was taken does not.
    pub fn replay_event(&mut self, record: &mut EventRecord, clock: Timestamp) -> Changes {
        let waiting = Waiting {
            number: record.number,
            since: clock,
        };
        let before = record.clone();
        let Notices { webhook, email, .. } = &mut self.notices;
        if webhook.first() == Some(record.number) {
            webhook.retry_at = Timestamp::EPOCH;
        } else if record.webhook != Fate::Waiting {
            webhook.waiting.push(waiting);
            record.webhook = Fate::Waiting;
        }
        if let Some(letter) = &mut record.email
            && matches!(letter.fate, Fate::Parked { .. })
        {
            email.waiting.push(waiting);
            letter.fate = Fate::Waiting;
        }
        let changed = Some(&*record).filter(|record| **record != before);
        Changes {
            notices: true,
            events: changed.cloned().into_iter().collect(),
            ..Changes::default()
        }
    }

    /// What is still to be sent, as it is stored.
    #[must_use]
    pub fn notices_bytes(&self) -> Vec<u8> {
        super::stored::encoded(&self.notices)
    }

    /// By how much a wait is spread, in thousandths: other for other accounts, so that those whose
    /// events failed together do not come back together.
    fn spread_by(&self, number: EventNumber) -> i64 {
        let id = self.profile.id.as_str().bytes();
        let seed = id.fold(number.get(), |seed, byte| {
            seed.wrapping_mul(31).wrapping_add(byte.into())
        });
        i64::try_from(seed % 401).unwrap_or(0).saturating_add(800)
    }
}

impl Notices {
    /// The next event's number: its row is none of an event that is still to be sent. `None` where too many
    /// are.
    fn next_number(&self, kind: EventType, latest: Timestamp) -> Option<EventNumber> {
        let waiting = self.webhook.waiting.iter().chain(&self.email.waiting);
        let kept = waiting.filter(|it| it.since.plus(GIVEN_UP_AFTER) > latest);
        let taken: BTreeSet<u64> = kept.map(|it| row_of(it.number)).collect();
        let taken_rows = u64::try_from(taken.len()).unwrap_or(u64::MAX);
        let free = EVENTS_KEPT.saturating_sub(taken_rows);
        let reserved = if kind.is_of_calls() { RESERVED } else { 0 };
        if free <= reserved {
            return None;
        }
        let last = self.emitted.saturating_add(EVENTS_KEPT);
        let next = self.emitted.saturating_add(1)..=last;
        let mut next = next.map(EventNumber::new);
        next.find(|number| !taken.contains(&row_of(*number)))
    }

    /// What had the row of `number` is not sent any more.
    fn make_room(&mut self, number: EventNumber) {
        for queue in [&mut self.webhook, &mut self.email] {
            let first = queue.first();
            let stays = |it: &Waiting| row_of(it.number) != row_of(number);
            queue.waiting.retain(stays);
            if queue.first() != first {
                queue.begin_anew();
            }
        }
    }

    const fn queue(&self, messenger: Messenger) -> &Queue {
        match messenger {
            Messenger::Webhook => &self.webhook,
            Messenger::Email => &self.email,
        }
    }

    const fn queue_mut(&mut self, messenger: Messenger) -> &mut Queue {
        match messenger {
            Messenger::Webhook => &mut self.webhook,
            Messenger::Email => &mut self.email,
        }
    }
}

impl Queue {
    fn first(&self) -> Option<EventNumber> {
        self.waiting.first().map(|first| first.number)
    }

    /// Whether the first should be sent now. A wait longer than any is one of a clock that strayed.
    fn is_due(&self, clock: Timestamp) -> bool {
        self.retry_at <= clock || self.retry_at > clock.plus(LONGEST_WAIT).plus(LONGEST_WAIT)
    }

    fn wakes_at(&self, clock: Timestamp) -> Option<Timestamp> {
        self.first()?;
        let is_due = self.is_due(clock);
        Some(if is_due {
            clock.plus(BACKUP)
        } else {
            self.retry_at
        })
    }

    fn pop(&mut self) {
        if !self.waiting.is_empty() {
            self.waiting.remove(0);
        }
        self.begin_anew();
    }

    /// Another one is the first.
    fn begin_anew(&mut self) {
        self.attempts = 0;
        self.retry_at = Timestamp::EPOCH;
        self.error = None;
    }
}

/// How long to wait after so many attempts that failed, spread by so many thousandths.
fn wait_after(attempts: u32, spread_by: i64) -> Span {
    let grown = WAIT_GROWS_BY.saturating_pow(attempts.saturating_sub(1));
    let wait = FIRST_WAIT.as_millis().saturating_mul(grown);
    let wait = wait.min(LONGEST_WAIT.as_millis());
    Span::from_millis(wait.saturating_div(1_000).saturating_mul(spread_by))
}

/// What went wrong, as far as it is kept.
fn shortened(mut error: String) -> String {
    let end = (0..=ERROR_BYTES)
        .rev()
        .find(|end| error.is_char_boundary(*end));
    error.truncate(end.unwrap_or(0));
    error
}
