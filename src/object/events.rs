//! Events: what is to be sent of them, what came of it, and how they are listed.

use serde::Serialize;

use super::{Done, Failure, Object, Store, storage, to_json, told};
use crate::{
    account::{Account, Attempt, Changes, Messenger, Rejected},
    event::{EventRecord, Fate, letter::is_address},
    id::{EventId, EventNumber},
    protocol::{EventState, EventsQuery},
    time::Timestamp,
    webhook::Webhook,
};

/// What is to be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// To the operator.
    Webhook(Webhook),
    /// To the customer.
    Email(Email),
}

/// An e-mail to one customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    /// The event that it tells.
    pub number: EventNumber,
    /// One plain address.
    pub to: String,
    /// The subject.
    pub subject: String,
    /// The text.
    pub text: String,
}

impl Message {
    /// Who sends it.
    #[must_use]
    pub const fn messenger(&self) -> Messenger {
        match self {
            Self::Webhook(_) => Messenger::Webhook,
            Self::Email(_) => Messenger::Email,
        }
    }

    /// The event that it tells.
    #[must_use]
    pub const fn number(&self) -> EventNumber {
        match self {
            Self::Webhook(webhook) => webhook.number,
            Self::Email(email) => email.number,
        }
    }
}

/// An event as the operator reads it, apart from its data.
#[derive(Serialize)]
struct EventView<'a> {
    id: EventId,
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: Timestamp,
    state: &'static str,
    attempts: u32,
    last_error: Option<&'a str>,
    ended_at: Option<Timestamp>,
    email: Option<FateView<'a>>,
}

#[derive(Serialize)]
struct FateView<'a> {
    state: &'static str,
    attempts: u32,
    last_error: Option<&'a str>,
    ended_at: Option<Timestamp>,
}

impl<S: Store> Object<S> {
    /// When events are to be sent, if there are any to be sent.
    #[must_use]
    pub fn events_at(&self, clock: Timestamp) -> Option<Timestamp> {
        self.account.as_ref()?.events_at(clock)
    }

    /// Whether there is something to be sent now.
    #[must_use]
    pub fn is_message_due(&self, clock: Timestamp) -> bool {
        let messengers = [Messenger::Webhook, Messenger::Email];
        self.account.as_ref().is_some_and(|account| {
            let mut due = messengers
                .map(|messenger| account.due_event(messenger, clock))
                .into_iter();
            due.any(|event| event.is_some())
        })
    }

    /// What is to be sent now by `messenger`. It stays the same until [`Object::attempted`] says what
    /// came of it, however often it is asked for and whatever is forgotten meanwhile.
    ///
    /// # Errors
    /// What went wrong, for the log.
    pub fn message(
        &mut self,
        messenger: Messenger,
        clock: Timestamp,
    ) -> Result<Option<Message>, String> {
        while let Some(account) = &self.account
            && let Some(number) = account.due_event(messenger, clock)
        {
            let found = self
                .store
                .event(number)
                .map_err(|error| error.to_string())?;
            let Some(record) = found else {
                let changes = self
                    .account
                    .as_mut()
                    .map(|it| it.pass_over(messenger, number));
                self.commit(changes.unwrap_or_default(), None)
                    .map_err(Failure::detail)?;
                continue;
            };
            match message_of(account, messenger, &record) {
                Ok(message) => return Ok(Some(message)),
                Err(why) => {
                    let refused = Attempt::Refused(why.to_owned());
                    self.attempted(messenger, number, refused, clock)?;
                }
            }
        }
        Ok(None)
    }

    /// Books how an attempt went. A late or repeated word changes nothing.
    ///
    /// # Errors
    /// What went wrong, for the log; nothing was changed.
    pub fn attempted(
        &mut self,
        messenger: Messenger,
        number: EventNumber,
        attempt: Attempt,
        clock: Timestamp,
    ) -> Result<(), String> {
        let booked = self.wake(clock).and_then(|()| {
            let Some(record) = self.event(number)? else {
                return Ok(());
            };
            let changes = self.awake()?.attempted(messenger, record, attempt, clock);
            self.commit(changes, None)
        });
        match booked {
            Ok(()) | Err(Failure::NoAccount) => Ok(()),
            Err(failure) => Err(failure.detail()),
        }
    }

    /// A page of the events that are kept, newest first.
    pub(super) fn events(&self, query: &EventsQuery) -> Result<String, Failure> {
        let account = self.account.as_ref().ok_or(Failure::NoAccount)?;
        let mut kept = Vec::new();
        if account.events_emitted().get() > 0 {
            kept = self.store.events().map_err(storage)?;
        }
        kept.retain(|event| {
            let is_before = query.before.is_none_or(|before| event.number < before);
            is_before && query.state.is_none_or(|state| state.is_of(&event.webhook))
        });
        kept.sort_unstable_by_key(|event| std::cmp::Reverse(event.number));
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let has_more = kept.len() > limit;
        kept.truncate(limit);
        let last = kept.last().filter(|_| has_more);
        let next = last.map(|last| event_id(account, last.number));
        let data: Vec<_> = kept
            .iter()
            .map(|event| event_json(account, event))
            .collect();
        let data = data.join(",");
        let next = to_json(&next);
        Ok(format!("{{\"data\":[{data}],\"next\":{next}}}"))
    }

    /// An event, if there ever was such a one and it is still kept.
    fn event(&self, number: EventNumber) -> Result<Option<EventRecord>, Failure> {
        let account = self.account.as_ref().ok_or(Failure::NoAccount)?;
        let was_emitted = (1..=account.events_emitted().get()).contains(&number.get());
        if !was_emitted {
            return Ok(None);
        }
        self.store.event(number).map_err(storage)
    }

    /// Has an event's webhook sent once more.
    pub(super) fn replay_event(
        &mut self,
        number: EventNumber,
        clock: Timestamp,
    ) -> Result<Done, Failure> {
        if self.policy.notifications.is_none() {
            return Ok(Err(Rejected::NobodyToTell));
        }
        let Some(mut record) = self.event(number)? else {
            return Ok(Err(Rejected::UnknownEvent));
        };
        let account = self.awake()?;
        let changes: Changes = account.replay_event(&mut record, clock);
        Ok(Ok((told(200, event_json(account, &record)), changes)))
    }
}

/// What is sent of an event.
///
/// # Errors
/// Why nothing can be.
fn message_of(
    account: &Account,
    messenger: Messenger,
    record: &EventRecord,
) -> Result<Message, &'static str> {
    if messenger == Messenger::Webhook {
        return Ok(Message::Webhook(Webhook::of(account.id(), record)));
    }
    let letter = record.email.as_ref().ok_or("there is no e-mail of it")?;
    let address = account.profile().email.as_deref();
    let to = address
        .filter(|text| is_address(text))
        .ok_or("the account has no plain e-mail address")?;
    Ok(Message::Email(Email {
        number: record.number,
        to: to.to_owned(),
        subject: letter.subject.clone(),
        text: letter.text.clone(),
    }))
}

fn event_id(account: &Account, number: EventNumber) -> EventId {
    EventId {
        account: account.id().clone(),
        number,
    }
}

/// The event with its data, which is JSON already.
pub(super) fn event_json(account: &Account, event: &EventRecord) -> String {
    let fate = |messenger, fate| FateView::of(account, messenger, event.number, fate);
    let webhook = fate(Messenger::Webhook, &event.webhook);
    let view = EventView {
        id: event_id(account, event.number),
        kind: event.kind.as_str(),
        timestamp: event.at,
        state: webhook.state,
        attempts: webhook.attempts,
        last_error: webhook.last_error,
        ended_at: webhook.ended_at,
        email: event
            .email
            .as_ref()
            .map(|letter| fate(Messenger::Email, &letter.fate)),
    };
    let mut json = to_json(&view);
    json.pop();
    format!("{json},\"data\":{}}}", event.data)
}

impl EventState {
    fn is_of(self, fate: &Fate) -> bool {
        self.name() == name_of(fate)
    }
}

const fn name_of(fate: &Fate) -> &'static str {
    match fate {
        Fate::Waiting => EventState::Waiting.name(),
        Fate::Delivered { .. } => EventState::Delivered.name(),
        Fate::Parked { .. } => EventState::Parked.name(),
    }
}

impl<'a> FateView<'a> {
    fn of(account: &'a Account, messenger: Messenger, number: EventNumber, fate: &'a Fate) -> Self {
        let (attempts, last_error, ended_at) = match fate {
            Fate::Waiting => {
                let (attempts, error) = account.attempts_at(messenger, number).unwrap_or_default();
                (attempts, error, None)
            }
            Fate::Delivered { at, attempts } => (*attempts, None, Some(*at)),
            Fate::Parked {
                at,
                attempts,
                error,
            } => (*attempts, Some(error.as_str()), Some(*at)),
        };
        Self {
            state: name_of(fate),
            attempts,
            last_error,
            ended_at,
        }
    }
}
