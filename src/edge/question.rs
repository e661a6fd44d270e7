//! What an account's object asks other objects and Stripe, and what it hears.

use super::{deployment::Deployment, directory, imported, log::Fault, platform::Env};
use crate::{
    account::{Fingerprint, NewAccount, StripeTask, TopUpAsk, TopUpAsked},
    directory as directory_core, imported as lookup_core,
    object::{Imported, Object, Opened, Store},
    payments::stripe::{Call, Failure},
    protocol::{Command, ImportKey, Reply, Request},
    status::Hours,
    time::Timestamp,
};

/// What another object is asked, or told.
pub enum Question {
    /// The directory.
    Directory(Box<directory_core::Request>),
    /// A lookup object.
    Lookup(lookup_core::Request),
    /// Stripe, about a top-up.
    TopUp(TopUpAsk),
    /// Stripe, which has to be told something.
    Task(StripeTask, Call),
}

/// Its word.
pub enum Heard {
    /// The directory's.
    Directory(directory_core::Reply),
    /// A lookup object's.
    Lookup(lookup_core::Reply),
    /// Stripe's, about a top-up.
    TopUp(TopUpAsked, Result<String, Failure>),
    /// Stripe's, to what it was told.
    Task(StripeTask, Result<String, Failure>),
}

/// What may take several steps, with another object's word between them.
pub enum Stepwise {
    /// An account is to be opened.
    Open(NewAccount),
    /// A key is to be imported.
    Import(ImportKey, Option<Fingerprint>),
}

/// How far it could be carried out.
pub enum Step {
    /// It is answered.
    Answered(Reply),
    /// Another object's word is needed.
    Ask(Question),
}

impl Question {
    /// The next thing that the account has to tell or to ask at `clock`, whoever asks for it.
    pub fn next<S: Store>(object: &mut Object<S>, clock: Timestamp) -> Option<Self> {
        if let Some(top_up) = object.top_up_ask(clock) {
            return Some(Self::TopUp(top_up));
        }
        if let Some((task, call)) = object.stripe_task(clock) {
            return Some(Self::Task(task, call));
        }
        if let Some(errand) = object.errand() {
            return Some(Self::Lookup(errand));
        }
        let report = object.report().or_else(|| object.figures_report(clock));
        report.map(Box::new).map(Self::Directory)
    }

    /// Whether there is something to tell.
    pub fn is_due<S: Store>(object: &Object<S>, clock: Timestamp) -> bool {
        Self::due_at(object, clock).is_some() || object.has_figures(clock)
    }

    /// When, but for figures, it should be told at the latest, counted from `clock`.
    pub fn due_at<S: Store>(object: &Object<S>, clock: Timestamp) -> Option<Timestamp> {
        let errand_at = object.errand_at(clock);
        let others = object.report_at(clock).into_iter().chain(errand_at);
        let of_stripe = [object.top_up_asks_at(), object.stripe_task_at()];
        others.chain(of_stripe.into_iter().flatten()).min()
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
            Self::TopUp(ask) => {
                let answer = ask_stripe(env, "top_up", &ask.call).await;
                Ok((Heard::TopUp(ask.asked, answer), 0))
            }
            Self::Task(task, call) => {
                let answer = ask_stripe(env, "stripe_task", call).await;
                Ok((Heard::Task(task.clone(), answer), 0))
            }
        }
    }
}

/// What Stripe answers. That nobody could ask it is no answer: it is asked again.
async fn ask_stripe(env: &Env, about: &'static str, call: &Call) -> Result<String, Failure> {
    let deployment = Deployment::of(env).map_err(Failure::Unclear)?;
    let stripe = deployment.stripe.as_ref();
    let stripe = stripe.ok_or_else(|| Failure::Unclear("payments are off".to_owned()))?;
    let answer = stripe.ask(call).await;
    if let Err(failure) = &answer {
        Fault::new(about, &failure.to_string()).write();
    }
    answer
}

impl Heard {
    /// The hours that the directory has counted.
    pub const fn counted(&self) -> Option<&Hours> {
        match self {
            Self::Directory(directory_core::Reply::Counted { hours, .. }) => Some(hours),
            Self::Directory(_) | Self::Lookup(_) | Self::TopUp(..) | Self::Task(..) => None,
        }
    }

    /// Books what was heard.
    ///
    /// # Errors
    /// What went wrong, for the log; nothing was changed.
    pub fn book<S: Store>(&self, object: &mut Object<S>, clock: Timestamp) -> Result<(), String> {
        match self {
            Self::Directory(reply) => object.hear(reply, clock),
            Self::Lookup(reply) => object.looked_up(reply, clock),
            Self::TopUp(asked, answer) => object.top_up_answered(*asked, answer.clone(), clock),
            Self::Task(task, answer) => object.stripe_answered(task, answer.clone(), clock),
        }
    }
}

impl Stepwise {
    /// What a message asks for, if it is such a message.
    pub fn of(request: &Request) -> Option<Self> {
        let Request::Manage(manage) = request else {
            return None;
        };
        match &manage.command {
            Command::Open(new) => Some(Self::Open(new.clone())),
            Command::ImportKey(import) => Some(Self::Import(import.clone(), manage.idempotency)),
            _ => None,
        }
    }

    /// Carries it out as far as that goes.
    pub fn begin<S: Store>(&self, object: &mut Object<S>, clock: Timestamp) -> Step {
        match self {
            Self::Open(new) => object.open(new, clock).into(),
            Self::Import(import, idempotency) => object.import(import, *idempotency, clock).into(),
        }
    }

    /// Goes on with it after another object's word.
    pub fn go_on<S: Store>(&self, object: &mut Object<S>, heard: &Heard, clock: Timestamp) -> Step {
        match (self, heard) {
            (Self::Open(new), Heard::Directory(reply)) => object.claimed(new, reply, clock).into(),
            (Self::Import(import, idempotency), Heard::Lookup(reply)) => object
                .import_looked_up(import, *idempotency, reply, clock)
                .into(),
            (stepwise, _) => stepwise.begin(object, clock),
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
