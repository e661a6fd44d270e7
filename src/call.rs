//! A call: from its admission to its end, in memory and as a row of the call log.

use crate::{
    account::Refusal,
    credits::Credits,
    id::{CallNumber, KeyNumber},
    ledger::{Part, sum_of},
    price::{Mark, Terms},
    time::Timestamp,
    wire::{Decode, Encode},
};

/// What a call is admitted under and ended by. Stored with its row.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Hold {
    /// The operation id that it was admitted with.
    #[n(0)]
    pub operation: u64,
    /// Its whole price.
    #[n(1)]
    pub terms: Terms,
    /// What it holds, in the order in which it is charged.
    #[n(2)]
    pub parts: Vec<Part>,
    /// When an end is made for it if nobody made one, by the clock.
    #[n(3)]
    pub deadline: Timestamp,
    /// The gateway only observes: whatever happens, nothing is charged.
    #[n(4)]
    pub observed: bool,
    /// What enforcing would have answered, where the gateway only observes.
    #[n(5)]
    pub would_refuse: Option<Box<Refusal>>,
    /// The call that has paid for it: its terms are those of a repeat.
    #[n(10)]
    pub repeats: Option<CallNumber>,
}

/// An open call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number.
    pub number: CallNumber,
    /// The key that made it.
    pub key: KeyNumber,
    /// Its method.
    pub method: String,
    /// Its route's template.
    pub endpoint: String,
    /// When it was admitted, by the clock as read.
    pub admitted_at: Timestamp,
    /// What it holds.
    pub hold: Hold,
    /// What it was answered, where it goes on as a job.
    pub answer: Option<Answer>,
}

/// What the client was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// From admission to answer, in milliseconds, as the gateway measured it.
    pub response_time_ms: u32,
}

impl Call {
    /// The credits that it holds.
    #[must_use]
    pub fn held(&self) -> Credits {
        sum_of(&self.hold.parts)
    }

    /// Whether it was answered and goes on as a job.
    #[must_use]
    pub const fn is_job(&self) -> bool {
        self.answer.is_some()
    }
}

/// How far a call has come, and how it ended. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[repr(u8)]
pub enum CallState {
    /// Admitted, not answered yet.
    #[n(0)]
    Open = 0,
    /// Ended: charged.
    #[n(1)]
    Settled = 1,
    /// Ended: everything was given back.
    #[n(2)]
    Released = 2,
    /// Undone: its admission never reached the gateway.
    #[n(3)]
    Cancelled = 3,
    /// Ended by the alarm, outcome unknown: given back. Provisional.
    #[n(4)]
    UnknownReleased = 4,
    /// Ended by the alarm, outcome unknown: charged. Provisional.
    #[n(5)]
    UnknownCharged = 5,
    /// Answered; the origin will tell how the job ended.
    #[n(6)]
    Job = 6,
    /// It was settled, and its credits came back.
    #[n(7)]
    Refunded = 7,
}

impl CallState {
    /// Every state, by its stored number.
    const ALL: [Self; 8] = [
        Self::Open,
        Self::Settled,
        Self::Released,
        Self::Cancelled,
        Self::UnknownReleased,
        Self::UnknownCharged,
        Self::Job,
        Self::Refunded,
    ];

    /// The state stored as `number`.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The number that is stored.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Its name, as the admin API tells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Settled => "settled",
            Self::Released => "released",
            Self::Cancelled => "cancelled",
            Self::UnknownReleased => "unknown_released",
            Self::UnknownCharged => "unknown_charged",
            Self::Job => "job",
            Self::Refunded => "refunded",
        }
    }

    /// Whether it has ended as nobody knows: provisionally.
    #[must_use]
    pub const fn is_unknown(self) -> bool {
        matches!(self, Self::UnknownReleased | Self::UnknownCharged)
    }

    /// Whether the hold still stands.
    #[must_use]
    pub const fn is_open(self) -> bool {
        match self {
            Self::Open | Self::Job => true,
            Self::Settled
            | Self::Released
            | Self::Cancelled
            | Self::UnknownReleased
            | Self::UnknownCharged
            | Self::Refunded => false,
        }
    }
}

/// What a call's row says from its answer on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How far it has come.
    pub state: CallState,
    /// The status the client saw; `None` where it was never learned.
    pub status: Option<u16>,
    /// What was charged.
    pub charged: Credits,
    /// From admission to answer, in milliseconds, as the gateway measured it.
    pub response_time_ms: u32,
    /// When, by the clock as read.
    pub at: Timestamp,
    /// Something for the operator to look at.
    pub mark: Option<Mark>,
    /// Its place among the ends of the account's calls: 1, 2, 3 …; 0 while it goes on and where it
    /// was undone. An end that replaces another keeps the place: a charge has one moment, and
    /// entries tell what became of it.
    pub nth_end: u64,
    /// What was charged at first, where another end has changed that.
    pub first_charged: Option<Credits>,
}

impl Outcome {
    /// What the client was answered, where that was learned.
    #[must_use]
    pub fn answer(&self) -> Option<Answer> {
        self.status.map(|status| Answer {
            status,
            response_time_ms: self.response_time_ms,
        })
    }

    /// The same, of a call that was answered so.
    #[must_use]
    pub fn answered(self, answer: Answer) -> Self {
        Self {
            status: Some(answer.status),
            response_time_ms: answer.response_time_ms,
            ..self
        }
    }

    /// What the ledger has as the call's charge, apart from the entries about it.
    #[must_use]
    pub fn first_charged(&self) -> Credits {
        self.first_charged.unwrap_or(self.charged)
    }
}

/// A row of the call log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallRow {
    /// The call as it was admitted.
    pub call: Call,
    /// What happened after; `None` while it is open.
    pub outcome: Option<Outcome>,
}

impl CallRow {
    /// How far the call has come.
    #[must_use]
    pub fn state(&self) -> CallState {
        self.outcome
            .as_ref()
            .map_or(CallState::Open, |outcome| outcome.state)
    }
}

/// What the gateway learned about a call's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Settle {
    /// The call.
    #[n(0)]
    pub call: CallNumber,
    /// The operation id of its admission.
    #[n(1)]
    pub operation: u64,
    /// The status that the client sees.
    #[n(2)]
    pub status: u16,
    /// From admission to answer, in milliseconds.
    #[n(3)]
    pub response_time_ms: u32,
    /// Whether the origin answered at all; its failure is never charged.
    #[n(4)]
    pub answered: bool,
    /// What the answer said about the quantity, where the price asks for it.
    #[n(5)]
    pub reported: Option<crate::price::Reported>,
    /// How the answer's body ended, where the call ends with it; absent where it ended before.
    #[n(6)]
    pub body: Option<BodyEnd>,
}

impl Settle {
    /// Whether a call of these `terms` is charged all that it holds, and over: nobody could tell if it ended
    /// a moment later.
    #[must_use]
    pub fn frees_nothing(&self, terms: &Terms) -> bool {
        self.answered && self.body.is_none() && terms.charges_what_is_held(self.status)
    }

    /// The answer that it tells of.
    #[must_use]
    pub const fn answer(&self) -> Answer {
        Answer {
            status: self.status,
            response_time_ms: self.response_time_ms,
        }
    }
}

/// How the body of an answer ended, where its route says `whole_body`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum BodyEnd {
    /// All of it was handed on.
    #[n(0)]
    Whole,
    /// The client left before its end.
    #[n(1)]
    Left,
    /// The origin broke it off.
    #[n(2)]
    BrokenOff {
        /// After its first byte: by reading slowly, a client can bring this about.
        #[n(0)]
        begun: bool,
    },
}
