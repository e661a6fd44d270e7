//! The account object as the runtime sees it: bytes in, bytes out, and one alarm.

use std::cell::{Cell, RefCell};

use js_sys::Uint8Array;
use wasm_bindgen::prelude::*;

use super::{
    deployment,
    log::Fault,
    platform::{clock, to_number},
    sql::{SqlStore, Storage},
};
use crate::{
    object::Object,
    protocol::{self, Answer, Reply},
    time::{Span, Timestamp},
};

/// Alarms are set to multiples of this: holds that end one after the other share one, since
/// setting an alarm costs a row.
const SWEEP: Span = Span::from_seconds(10);

#[wasm_bindgen]
extern "C" {
    /// The state that the runtime gives to an object.
    pub type ObjectState;
    #[wasm_bindgen(method, getter)]
    fn storage(this: &ObjectState) -> Storage;
}

/// What `entry.mjs` lends RPC and the alarm.
#[wasm_bindgen]
pub struct AccountCore {
    /// `Err`: the policy cannot be read, which `policyFault` has told.
    object: Result<RefCell<Object<SqlStore>>, String>,
    /// When the alarm will go off, as far as this wake-up knows.
    alarm_at: Cell<Option<Timestamp>>,
}

#[wasm_bindgen]
impl AccountCore {
    /// Built once for each wake-up.
    #[wasm_bindgen(constructor)]
    #[must_use]
    pub fn new(state: &ObjectState) -> Self {
        let object = deployment::policy()
            .map(|policy| RefCell::new(Object::new(SqlStore::new(state.storage()), policy)));
        Self {
            object,
            alarm_at: Cell::new(None),
        }
    }

    /// Carries out one message (see `protocol.rs`) and answers it. Never waits.
    #[must_use]
    pub fn tell(&self, message: &[u8]) -> Uint8Array {
        let answer = self.answer(message);
        Uint8Array::from(protocol::encode(&answer).as_slice())
    }

    /// Does what has fallen due. Never fails: the runtime gives up an alarm that fails too often.
    pub fn alarm(&self) {
        let Ok(object) = &self.object else {
            return;
        };
        let now = clock();
        self.alarm_at.set(None);
        let Ok(mut object) = object.try_borrow_mut() else {
            return;
        };
        if let Err(detail) = object.tick(now) {
            Fault::new("alarm_failed", &detail).write();
            self.set_alarm(object.store().storage(), now.plus(SWEEP));
            return;
        }
        self.arm(&object, object.next_alarm(), now);
    }
}

impl AccountCore {
    fn answer(&self, message: &[u8]) -> Answer {
        let unavailable = |detail: &str| Answer {
            reply: Reply::Unavailable {
                detail: detail.to_owned(),
            },
            rows_written: 0,
        };
        let object = match &self.object {
            Ok(object) => object,
            Err(mistakes) => return unavailable(mistakes),
        };
        let request = match protocol::decode(message) {
            Ok(request) => request,
            Err(unreadable) => return unavailable(&unreadable.to_string()),
        };
        // Messages are carried out as a whole: nothing can be borrowed between them.
        let Ok(mut object) = object.try_borrow_mut() else {
            return unavailable("the object is busy with itself");
        };
        let now = clock();
        let reply = object.handle(request, now);
        self.arm(&object, object.next_wakeup(), now);
        Answer {
            reply,
            rows_written: object.store_mut().take_rows_written(),
        }
    }

    /// Sets the alarm, if it would come too late for `wakeup`.
    fn arm(&self, object: &Object<SqlStore>, wakeup: Option<Timestamp>, now: Timestamp) {
        let Some(at) = wakeup.map(|wakeup| sweep_after(wakeup).max(now)) else {
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

/// The first multiple of [`SWEEP`] that is not before `moment`.
fn sweep_after(moment: Timestamp) -> Timestamp {
    let sweep = SWEEP.as_millis();
    let started = moment.as_millis().saturating_add(sweep).saturating_sub(1);
    Timestamp::from_millis(started.div_euclid(sweep).saturating_mul(sweep))
}
