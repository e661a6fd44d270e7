//! The account object as the runtime sees it: bytes in, bytes out, and one alarm.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use js_sys::{Promise, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{future_to_promise, spawn_local};

use super::{
    analytics::write_hours,
    deployment,
    log::Fault,
    messenger,
    platform::{Env, clock, to_number},
    question::{Question, Step, Stepwise},
    sql::{SqlStore, Storage},
};
use crate::{
    account::{Account, Attempt, Messenger},
    object::Object,
    protocol::{self, Answer, Reply},
    time::{Span, Timestamp},
};

/// Alarms are set to multiples of this: holds that end one after the other share one, since
/// setting an alarm costs a row.
const SWEEP: Span = Span::from_seconds(10);
/// So many events are sent in one go.
const MESSAGES_MAX: u32 = 20;
/// So often other objects are asked in one go: each time, something else may have come between.
const QUESTIONS_MAX: u32 = 10;

#[wasm_bindgen]
extern "C" {
    /// The state that the runtime gives to an object.
    pub type ObjectState;
    #[wasm_bindgen(method, getter)]
    pub fn storage(this: &ObjectState) -> Storage;
}

/// What `entry.mjs` lends RPC and the alarm.
#[wasm_bindgen]
pub struct AccountCore(Rc<Core>);

struct Core {
    /// `Err`: the policy cannot be read, which `policyFault` has told.
    object: Result<RefCell<Object<SqlStore>>, String>,
    env: Env,
    /// When the alarm will go off, as far as this wake-up knows.
    alarm_at: Cell<Option<Timestamp>>,
    /// Whether there is something that another object may not know of the account.
    is_behind: Cell<bool>,
    /// Whether it is being told.
    is_reporting: Cell<bool>,
    /// Nobody is told before this, after somebody did not answer.
    report_after: Cell<Timestamp>,
    /// Whether there is an event that operator or customer have to be told of now.
    has_message: Cell<bool>,
    /// Whether the operator is being told.
    is_posting: Cell<bool>,
    /// Whether the customer is being told.
    is_mailing: Cell<bool>,
}

#[wasm_bindgen]
impl AccountCore {
    /// Built once for each wake-up.
    #[wasm_bindgen(constructor)]
    #[must_use]
    pub fn new(state: &ObjectState, env: Env) -> Self {
        let object = deployment::policy()
            .map(|policy| RefCell::new(Object::new(SqlStore::new(state.storage()), policy)));
        Self(Rc::new(Core {
            object,
            env,
            alarm_at: Cell::new(None),
            is_behind: Cell::new(false),
            is_reporting: Cell::new(false),
            report_after: Cell::new(Timestamp::EPOCH),
            has_message: Cell::new(false),
            is_posting: Cell::new(false),
            is_mailing: Cell::new(false),
        }))
    }

    /// Carries out one message (see `protocol.rs`): its answer, in bytes, or the promise of it where
    /// another object has a word in it. Nothing else waits.
    #[must_use]
    pub fn tell(&self, message: &[u8]) -> JsValue {
        let (request, ends) = match protocol::decode_beside(message) {
            Ok(message) => message,
            Err(unreadable) => return encoded(&unavailable(unreadable.to_string())),
        };
        if let Some(stepwise) = Stepwise::of(&request) {
            let core = Rc::clone(&self.0);
            let answer = async move { Ok(encoded(&core.in_steps(&stepwise).await)) };
            return future_to_promise(answer).into();
        }
        let mut ends_taken = 0;
        let mut answer = self.0.answer(|object, now| {
            ends_taken = object.end_calls(&ends, now);
            object.handle(request, now)
        });
        answer.ends_taken = ends_taken;
        self.0.report_soon();
        self.0.deliver_soon();
        encoded(&answer)
    }

    /// Does what has fallen due. Never fails: the runtime gives up an alarm that fails too often.
    pub fn alarm(&self) -> Promise {
        let core = Rc::clone(&self.0);
        future_to_promise(async move {
            core.sweep();
            core.deliver_soon();
            core.report().await;
            // What Stripe has answered may be news.
            core.deliver_soon();
            core.rest();
            Ok(JsValue::UNDEFINED)
        })
    }
}

impl Core {
    /// What `work` replies, and what it cost.
    fn answer(&self, work: impl FnOnce(&mut Object<SqlStore>, Timestamp) -> Reply) -> Answer {
        self.with(|object, now| {
            let reply = work(object, now);
            let rows_written = object.store_mut().take_rows_written();
            Answer {
                reply,
                rows_written,
                ends_taken: 0,
            }
        })
        .unwrap_or_else(unavailable)
    }

    /// Does `work` with the object, and sees to it that the alarm goes off in time.
    fn with<T>(
        &self,
        work: impl FnOnce(&mut Object<SqlStore>, Timestamp) -> T,
    ) -> Result<T, String> {
        let object = self.object.as_ref().map_err(String::clone)?;
        // Messages are carried out as a whole: nothing can be borrowed between them.
        let mut object = object
            .try_borrow_mut()
            .map_err(|_| "the object is busy with itself")?;
        let now = clock();
        let done = work(&mut object, now);
        log_flags(&mut object);
        self.arm(&object, object.next_wakeup(), now);
        Ok(done)
    }

    /// Carries out what needs another object's word: what this one can do alone, and between its
    /// steps that word.
    async fn in_steps(&self, stepwise: &Stepwise) -> Answer {
        let mut step = self.with(|object, now| stepwise.begin(object, now));
        let mut rows_written = 0_u32;
        for _ in 0..QUESTIONS_MAX {
            let question = match step {
                Err(detail) => return unavailable(detail),
                Ok(Step::Ask(question)) => question,
                Ok(Step::Answered(reply)) => {
                    let own = self.answer(|_, _| reply);
                    return Answer {
                        rows_written: own.rows_written.saturating_add(rows_written),
                        ..own
                    };
                }
            };
            match question.ask(&self.env).await {
                Err(detail) => return unavailable(detail),
                Ok((heard, rows)) => {
                    rows_written = rows_written.saturating_add(rows);
                    step = self.with(|object, now| stepwise.go_on(object, &heard, now));
                }
            }
        }
        unavailable("others ask for the same".to_owned())
    }

    fn sweep(&self) {
        self.alarm_at.set(None);
        let swept = self.with(|object, now| {
            let ticked = object.tick(now);
            if ticked.is_err() {
                self.set_alarm(object.store().storage(), now.plus(SWEEP));
            }
            ticked
        });
        if let Ok(Err(detail)) = swept {
            Fault::new("alarm_failed", &detail).write();
        }
    }

    /// Sets the alarm that has gone off to when it is needed next.
    fn rest(&self) {
        // Where there is no object, nothing can be due.
        drop(self.with(|object, now| {
            let figures_at = object.figures_at(now);
            let next = object.next_alarm().into_iter().chain(figures_at).min();
            self.arm(object, next, now);
        }));
    }

    /// Tells other objects what they do not know yet, in the background: the alarm comes back to
    /// it if this is lost.
    fn report_soon(self: &Rc<Self>) {
        if self.should_report() {
            let core = Rc::clone(self);
            spawn_local(async move {
                core.report().await;
                core.deliver_soon();
            });
        }
    }

    fn should_report(&self) -> bool {
        self.is_behind.get() && !self.is_reporting.get() && self.report_after.get() <= clock()
    }

    /// Tells other objects until they know what is to be known, or one does not answer.
    async fn report(&self) {
        for _ in 0..QUESTIONS_MAX {
            if !self.should_report() {
                return;
            }
            let Ok(Some(question)) = self.with(Question::next) else {
                return;
            };
            self.is_reporting.set(true);
            let answered = question.ask(&self.env).await;
            self.is_reporting.set(false);
            let heard = match answered {
                Ok((heard, _)) => self.with(|object, now| {
                    let booked = heard.book(object, now);
                    // No request's: the next one must not be told as having cost this.
                    object.store_mut().take_rows_written();
                    if booked.is_ok()
                        && let (Some(hours), Some(account)) = (heard.counted(), object.account())
                    {
                        write_hours(&self.env, account.id(), hours);
                    }
                    booked
                }),
                Err(detail) => Err(detail),
            };
            if let Ok(Err(detail)) | Err(detail) = heard {
                let retry_at = self.with(|object, now| {
                    let figures_at = object.figures_at(now);
                    Question::due_at(object, now)
                        .into_iter()
                        .chain(figures_at)
                        .min()
                });
                if let Ok(Some(retry_at)) = retry_at {
                    self.report_after.set(retry_at);
                }
                Fault::new("report_failed", &detail).write();
                return;
            }
        }
    }

    /// Sends the events that are due, in the background: the alarm comes back to it if this is lost.
    /// Neither messenger waits for the other.
    fn deliver_soon(self: &Rc<Self>) {
        if !self.has_message.get() {
            return;
        }
        for messenger in [Messenger::Webhook, Messenger::Email] {
            let core = Rc::clone(self);
            spawn_local(async move { core.deliver(messenger).await });
        }
    }

    /// Sends the events that are due by `messenger`, one after the other.
    async fn deliver(&self, messenger: Messenger) {
        let is_delivering = match messenger {
            Messenger::Webhook => &self.is_posting,
            Messenger::Email => &self.is_mailing,
        };
        if is_delivering.replace(true) {
            return;
        }
        for _ in 0..MESSAGES_MAX {
            if !self.deliver_next(messenger).await {
                break;
            }
        }
        is_delivering.set(false);
    }

    /// Sends the next event by `messenger`. Says whether there was one, and what came of it is kept.
    async fn deliver_next(&self, messenger: Messenger) -> bool {
        let next = self.with(|object, now| {
            let account = object.account().map(|account| account.id().clone());
            let message = object.message(messenger, now);
            object.store_mut().take_rows_written();
            (account, message)
        });
        let Ok((account, Ok(Some(message)))) = next else {
            return false;
        };
        let attempt = messenger::send(&self.env, &message).await;
        if let Attempt::Failed(detail) | Attempt::Refused(detail) = &attempt {
            Fault {
                event: match messenger {
                    Messenger::Webhook => "webhook_failed",
                    Messenger::Email => "email_failed",
                },
                account: account.as_ref(),
                detail,
            }
            .write();
        }
        let booked = self.with(|object, now| {
            let booked = object.attempted(messenger, message.number(), attempt, now);
            // No request's: the next one must not be told as having cost this.
            object.store_mut().take_rows_written();
            booked
        });
        booked.is_ok_and(|booked| booked.is_ok())
    }

    /// Sets the alarm, if it would come too late for `wakeup`, for what others are to be told, or for
    /// events.
    fn arm(&self, object: &Object<SqlStore>, wakeup: Option<Timestamp>, now: Timestamp) {
        let report_at = Question::due_at(object, now);
        self.is_behind.set(Question::is_due(object, now));
        self.has_message.set(object.is_message_due(now));
        let due = [wakeup, report_at, object.events_at(now)];
        let due = due.into_iter().flatten().min();
        let Some(at) = due.map(|due| sweep_after(due).max(now)) else {
            return;
        };
        if self.alarm_at.get().is_none_or(|alarm_at| alarm_at > at) {
            self.set_alarm(object.store().storage(), at);
        }
    }

    fn set_alarm(&self, storage: &Storage, at: Timestamp) {
        let millis = u64::try_from(at.as_millis()).unwrap_or(0);
        // Its promise is for callers that want to wait; the runtime holds every answer back until
        // the alarm is durable.
        if storage.set_alarm(to_number(millis)).is_ok() {
            self.alarm_at.set(Some(at));
        }
    }
}

/// A line for each flag that was raised.
fn log_flags(object: &mut Object<SqlStore>) {
    for flag in object.take_flagged() {
        let detail = flag.cause.to_string();
        Fault {
            account: object.account().map(Account::id),
            ..Fault::new("account_flagged", &detail)
        }
        .write();
    }
}

fn unavailable(detail: String) -> Answer {
    Answer {
        reply: Reply::Unavailable { detail },
        rows_written: 0,
        ends_taken: 0,
    }
}

fn encoded(answer: &Answer) -> JsValue {
    Uint8Array::from(protocol::encode(answer).as_slice()).into()
}

/// The first multiple of [`SWEEP`] that is not before `moment`.
fn sweep_after(moment: Timestamp) -> Timestamp {
    let sweep = SWEEP.as_millis();
    let started = moment.as_millis().saturating_add(sweep).saturating_sub(1);
    Timestamp::from_millis(started.div_euclid(sweep).saturating_mul(sweep))
}
