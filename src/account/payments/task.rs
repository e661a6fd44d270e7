//! What Stripe has to be told of an account, because of something that happened here: that pages can be paid no more,
//! that a subscription is over, what the customer is called now.
//!
//! It is written down with what brought it about, and asked one by one until Stripe has answered. Nothing of it moves
//! money, and to do it twice is as good as once.

use crate::{
    account::{Account, Changes, Profile},
    json,
    payments::stripe::{Call, Failure, Form},
    time::{Span, Timestamp},
    wire::{Decode, Encode},
};

/// How soon Stripe is asked again that did not answer, at first …
const ASK_FIRST: Span = Span::from_seconds(10);
/// … and at most.
const ASK_LAST: Span = Span::from_seconds(30 * 60);
/// What it has not answered for so long is given up, and the operator told.
const GIVEN_UP_AFTER: Span = Span::from_days(3);

/// Something that Stripe has to be told.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Task {
    /// Which pages this customer can still pay: each is closed then.
    #[n(0)]
    FindPages(#[n(0)] String),
    /// That this page can be paid no more.
    #[n(1)]
    ClosePage(#[n(0)] String),
    /// That this subscription is over.
    #[n(2)]
    EndSubscription(#[n(0)] String),
    /// The account's name and e-mail address, which are this customer's.
    #[n(3)]
    Rename(#[n(0)] String),
}

/// What is still to be told. Part of the snapshot; places are only added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Tasks {
    /// The next one first.
    #[n(0)]
    waiting: Vec<Task>,
    /// It is not asked before this, by the clock as read.
    #[n(1)]
    ask_at: Timestamp,
    /// Since when Stripe has not answered it.
    #[n(2)]
    unanswered_since: Option<Timestamp>,
}

impl Account {
    /// What Stripe has to be told next, and when.
    #[must_use]
    pub fn stripe_task(&self) -> Option<(Timestamp, Task, Call)> {
        let tasks = &self.state.billing.tasks;
        let task = tasks.waiting.first()?;
        let key = format!("tollgate-task-{}", tasks.ask_at.as_millis());
        let call = task.call(&key, &self.profile);
        Some((tasks.ask_at, task.clone(), call))
    }

    /// When that is.
    #[must_use]
    pub fn stripe_task_at(&self) -> Option<Timestamp> {
        let tasks = &self.state.billing.tasks;
        tasks.waiting.first().map(|_| tasks.ask_at)
    }

    /// Books what Stripe has answered to `task`. Late and repeated answers change nothing.
    pub fn stripe_answered(
        &mut self,
        task: &Task,
        answer: Result<String, Failure>,
        clock: Timestamp,
    ) -> Changes {
        let mut changes = Changes::default();
        let tasks = &mut self.state.billing.tasks;
        if tasks.waiting.first() != Some(task) {
            return changes;
        }
        changes.snapshot = true;
        let why = match answer {
            Ok(answer) => {
                tasks.done(clock);
                if let Task::FindPages(customer) = task {
                    tasks.close(customer, &answer);
                }
                return changes;
            }
            Err(Failure::Unclear(_) | Failure::Busy) if tasks.wait(clock) => return changes,
            // It is paid, closed, over or gone already.
            Err(Failure::Missing) => None,
            Err(Failure::Mistake(detail)) if detail.starts_with("400") => None,
            Err(Failure::NoCustomer) => {
                if let Task::FindPages(customer) | Task::Rename(customer) = task {
                    self.forget_customer(customer, &mut changes);
                }
                None
            }
            Err(failure) => Some(failure.to_string()),
        };
        self.state.billing.tasks.done(clock);
        if let Some(why) = why {
            self.flag(format!("{}: {why}", task.title()), &mut changes);
        }
        changes
    }

    /// Pages that were opened when the account could buy can be paid no more. Where nobody ever bought anything, Stripe
    /// knows nothing of the account.
    pub(in crate::account) fn close_pages(&mut self, clock: Timestamp, changes: &mut Changes) {
        if let Some(customer) = self.customer() {
            let task = Task::FindPages(customer.to_owned());
            self.have_told(task, clock, changes);
        }
    }

    /// The subscription, and any besides it, is not paid on for an account that is closed.
    pub(in crate::account) fn end_subscription(&mut self, clock: Timestamp, changes: &mut Changes) {
        let known = self.state.subscribed.iter();
        let running = known
            .chain(&self.state.billing.others)
            .filter(|subscribed| !subscribed.has_ended())
            .map(|subscribed| Task::EndSubscription(subscribed.id().to_owned()));
        for task in running.collect::<Vec<_>>() {
            self.have_told(task, clock, changes);
        }
    }

    /// The account is called otherwise, or has another address.
    pub(in crate::account) fn rename_customer(&mut self, clock: Timestamp, changes: &mut Changes) {
        if let Some(customer) = self.customer() {
            let task = Task::Rename(customer.to_owned());
            self.have_told(task, clock, changes);
        }
    }

    fn have_told(&mut self, task: Task, clock: Timestamp, changes: &mut Changes) {
        let tasks = &mut self.state.billing.tasks;
        if tasks.waiting.is_empty() {
            tasks.ask_at = clock;
        }
        // The first may be under way, and have been asked before this came up.
        if !tasks.waiting.iter().skip(1).any(|waiting| *waiting == task) {
            tasks.waiting.push(task);
            changes.snapshot = true;
        }
    }

    /// The clock has stepped back: nothing waits for it to catch up.
    pub(in crate::account) fn bring_tasks_forward(&mut self, clock: Timestamp) -> bool {
        let tasks = &mut self.state.billing.tasks;
        let latest = clock.plus(ASK_LAST);
        let strayed = tasks.ask_at > latest;
        tasks.ask_at = tasks.ask_at.min(latest);
        strayed
    }
}

impl Tasks {
    fn done(&mut self, clock: Timestamp) {
        self.waiting.remove(0);
        self.unanswered_since = None;
        self.ask_at = clock;
    }

    /// Has it asked again later; `false` if it was asked for too long.
    fn wait(&mut self, clock: Timestamp) -> bool {
        let since = *self.unanswered_since.get_or_insert(clock);
        let waited = clock.since(since);
        self.ask_at = clock.plus(waited.max(ASK_FIRST).min(ASK_LAST));
        waited < GIVEN_UP_AFTER
    }

    /// Closes the pages that Stripe has listed.
    fn close(&mut self, customer: &str, answer: &str) {
        let Ok(list) = json::parse(answer) else {
            return;
        };
        let pages = list.member("data").and_then(json::Value::items);
        for page in pages.into_iter().flatten() {
            if let Some(id) = page.member("id").and_then(json::Value::string) {
                self.waiting.push(Task::ClosePage(id.into_owned()));
            }
        }
        let has_more = list.member("has_more").map(|told| told.text() == "true");
        if has_more == Some(true) {
            self.waiting.push(Task::FindPages(customer.to_owned()));
        }
    }
}

impl Task {
    fn call(&self, key: &str, of: &Profile) -> Call {
        match self {
            Self::FindPages(customer) => Call::get(format!(
                "/v1/checkout/sessions?customer={customer}&status=open&limit=100"
            )),
            Self::ClosePage(id) => {
                let path = format!("/v1/checkout/sessions/{id}/expire");
                Call::post(path, format!("{key}-{id}"), Form::default())
            }
            Self::EndSubscription(id) => Call::delete(format!("/v1/subscriptions/{id}")),
            Self::Rename(customer) => {
                // What is empty is taken away.
                let form = Form::default()
                    .with("name", of.name.as_deref().unwrap_or_default())
                    .with("email", of.email.as_deref().unwrap_or_default());
                let path = format!("/v1/customers/{customer}");
                Call::post(path, format!("{key}-{customer}"), form)
            }
        }
    }

    /// For the operator.
    const fn title(&self) -> &'static str {
        match self {
            Self::FindPages(_) | Self::ClosePage(_) => {
                "open Checkout pages could not be closed at Stripe"
            }
            Self::EndSubscription(_) => "the subscription could not be ended at Stripe",
            Self::Rename(_) => "name and e-mail address could not be changed at Stripe",
        }
    }
}
