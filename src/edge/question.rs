//! What an account's object asks other objects, and what it hears.

use super::{directory, imported, platform::Env};
use crate::{
    directory as directory_core, imported as lookup_core,
    object::{Imported, Object, Opened, Store},
    protocol::{Command, Manage, Reply, Request},
    time::Timestamp,
};

/// What another object is asked, or told.
pub enum Question {
    /// The directory.
    Directory(Box<directory_core::Request>),
    /// A lookup object.
    Lookup(lookup_core::Request),
}

/// Its word.
pub enum Heard {
    /// The directory's.
    Directory(directory_core::Reply),
    /// A lookup object's.
    Lookup(lookup_core::Reply),
}

/// How far a message could be carried out.
pub enum Step {
    /// It is answered.
    Answered(Reply),
    /// Another object's word is needed.
    Ask(Question),
}

impl Question {
    /// The next thing that the account has to tell, whoever asks for it.
    pub fn next<S: Store>(object: &Object<S>) -> Option<Self> {
        let report = || object.report().map(Box::new).map(Self::Directory);
        object.errand().map(Self::Lookup).or_else(report)
    }

    /// When it should be told at the latest, counted from `clock`.
    pub fn due_at<S: Store>(object: &Object<S>, clock: Timestamp) -> Option<Timestamp> {
        let errand_at = object.errand_at(clock);
        object.report_at(clock).into_iter().chain(errand_at).min()
    }

    /// Asks: what was said, and the rows that it cost.
    ///
    /// # Errors
    /// Why there is no answer, for the log.
    pub async fn ask(&self, env: &Env) -> Result<(Heard, u32), String> {
        match self {
            Self::Directory(request) => directory::ask(env, request)
                .await
                .map(|answer| (Heard::Directory(answer.reply), answer.rows_written)),
            Self::Lookup(request) => imported::ask(env, request)
                .await
                .map(|answer| (Heard::Lookup(answer.reply), answer.rows_written)),
        }
    }
}

impl Heard {
    /// Books what was heard.
    ///
    /// # Errors
    /// What went wrong, for the log; nothing was changed.
    pub fn book<S: Store>(&self, object: &mut Object<S>, clock: Timestamp) -> Result<(), String> {
        match self {
            Self::Directory(reply) => object.hear(reply, clock),
            Self::Lookup(reply) => object.looked_up(reply, clock),
        }
    }
}

impl Step {
    /// Whether another object's word may be needed for this message.
    pub const fn may_be_several(request: &Request) -> bool {
        matches!(
            request,
            Request::Manage(Manage {
                command: Command::Open(_) | Command::ImportKey(_),
                ..
            })
        )
    }

    /// Carries out a message as far as that goes.
    pub fn first<S: Store>(object: &mut Object<S>, request: &Request, clock: Timestamp) -> Self {
        match request {
            Request::Manage(Manage {
                command: Command::Open(new),
                ..
            }) => object.open(new, clock).into(),
            Request::Manage(Manage {
                command: Command::ImportKey(import),
                idempotency,
                ..
            }) => object.import(import, *idempotency, clock).into(),
            request => Self::Answered(object.handle(request.clone(), clock)),
        }
    }

    /// Goes on with it after another object's word.
    pub fn next<S: Store>(
        object: &mut Object<S>,
        request: &Request,
        heard: &Heard,
        clock: Timestamp,
    ) -> Self {
        match (request, heard) {
            (
                Request::Manage(Manage {
                    command: Command::Open(new),
                    ..
                }),
                Heard::Directory(reply),
            ) => object.claimed(new, reply, clock).into(),
            (
                Request::Manage(Manage {
                    command: Command::ImportKey(import),
                    idempotency,
                    ..
                }),
                Heard::Lookup(reply),
            ) => object
                .import_looked_up(import, *idempotency, reply, clock)
                .into(),
            (request, _) => Self::first(object, request, clock),
        }
    }
}

impl From<Opened> for Step {
    fn from(opened: Opened) -> Self {
        match opened {
            Opened::Answered(reply) => Self::Answered(reply),
            Opened::Claim(claim) => Self::Ask(Question::Directory(claim)),
        }
    }
}

impl From<Imported> for Step {
    fn from(imported: Imported) -> Self {
        match imported {
            Imported::Answered(reply) => Self::Answered(reply),
            Imported::Ask(request) => Self::Ask(Question::Lookup(request)),
        }
    }
}
