//! JavaScript's promises as futures. Those of js-sys make two closures for each promise, which the
//! runtime has to register and to collect; these make an entry in a table.

use std::{
    cell::RefCell,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use js_sys::Promise;
use rustc_hash::{FxBuildHasher, FxHashMap};
use wasm_bindgen::prelude::*;

use super::platform::{clock, random, to_number};
use crate::{
    time::{Span, Timestamp},
    unsettled::{PATIENCE, is_patient},
};

#[wasm_bindgen]
extern "C" {
    /// Calls [`wake`] with `key` when the promise has come to something.
    #[wasm_bindgen(js_namespace = tollgate)]
    fn watch(promise: &Promise, key: f64);

    /// Calls [`wake`] with `key` after so many milliseconds; gives the timer.
    #[wasm_bindgen(js_namespace = tollgate)]
    fn after(millis: f64, key: f64) -> JsValue;

    #[wasm_bindgen(js_name = clearTimeout)]
    fn clear_timeout(timer: &JsValue);

    type Resolvers;
    #[wasm_bindgen(js_namespace = Promise, js_name = withResolvers)]
    fn with_resolvers() -> Resolvers;
    #[wasm_bindgen(method, getter)]
    fn promise(this: &Resolvers) -> Promise;
    #[wasm_bindgen(method)]
    fn resolve(this: &Resolvers, value: &JsValue);
    #[wasm_bindgen(method)]
    fn reject(this: &Resolvers, thrown: &JsValue);
}

thread_local! {
    static AWAITED: RefCell<Awaited> = const { RefCell::new(Awaited { next: 0, entries: FxHashMap::with_hasher(FxBuildHasher) }) };
}

/// Everything that is awaited in this isolate.
struct Awaited {
    /// The next key. They start anywhere: after a trap has begun the wasm anew, what was awaited
    /// before must not be taken for what is awaited now.
    next: u64,
    entries: FxHashMap<u64, Entry>,
}

enum Entry {
    Pending(Option<Waker>),
    Settled(Result<JsValue, JsValue>),
}

/// What a promise or a timer comes to.
pub struct Settling(u64);

impl Settling {
    fn begin() -> Result<Self, JsValue> {
        let start = if AWAITED.with_borrow(|awaited| awaited.next) == 0 {
            // Far below 2^53, which JavaScript's numbers carry exactly.
            u64::from_be_bytes(random()?) >> 12
        } else {
            0
        };
        AWAITED.with_borrow_mut(|awaited| {
            let key = awaited.next.max(start).max(1);
            awaited.next = key.saturating_add(1);
            awaited.entries.insert(key, Entry::Pending(None));
            Ok(Self(key))
        })
    }

    fn of(promise: &Promise) -> Result<Self, JsValue> {
        let settling = Self::begin()?;
        watch(promise, to_number(settling.0));
        Ok(settling)
    }

    /// What it comes to, if it does before `sleep` is over.
    async fn within(&mut self, sleep: &mut Sleep) -> Option<Result<JsValue, JsValue>> {
        std::future::poll_fn(|context| {
            if let Poll::Ready(outcome) = Pin::new(&mut *self).poll(context) {
                return Poll::Ready(Some(outcome));
            }
            Pin::new(&mut *sleep).poll(context).map(|_| None)
        })
        .await
    }
}

impl Future for Settling {
    type Output = Result<JsValue, JsValue>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        AWAITED.with_borrow_mut(|awaited| {
            let entry = awaited.entries.get_mut(&self.0);
            if let Some(Entry::Pending(waker)) = entry {
                *waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            match awaited.entries.remove(&self.0) {
                Some(Entry::Settled(outcome)) => Poll::Ready(outcome),
                // It was taken before: there is nothing more to come.
                Some(Entry::Pending(_)) | None => Poll::Pending,
            }
        })
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        AWAITED.with_borrow_mut(|awaited| awaited.entries.remove(&self.0));
    }
}

/// What is yet to be said to who has a promise of it. It is handed on in the turn in which it is said,
/// where a future that waits for it would have to be woken first.
pub struct Promised(Resolvers);

impl Promised {
    /// It, and the promise.
    pub fn new() -> (Self, Promise) {
        let resolvers = with_resolvers();
        let promise = resolvers.promise();
        (Self(resolvers), promise)
    }

    /// This is what it comes to.
    pub fn keep(self, outcome: Result<impl AsRef<JsValue>, JsValue>) {
        match outcome {
            Ok(value) => self.0.resolve(value.as_ref()),
            Err(thrown) => self.0.reject(&thrown),
        }
    }
}

/// Waits for a promise.
///
/// # Errors
/// What it was rejected with.
pub async fn settled(promise: &Promise) -> Result<JsValue, JsValue> {
    Settling::of(promise)?.await
}

/// What a promise comes to, if it does within `millis`.
///
/// # Errors
/// What it was rejected with.
pub async fn settled_within(promise: &Promise, millis: i64) -> Result<Option<JsValue>, JsValue> {
    Settling::of(promise)?
        .within(&mut Sleep::of(millis)?)
        .await
        .transpose()
}

/// Lets others take their turn, requests that have not been read from their sockets included: the
/// runtime reads none while one message after the other is ready to be carried out.
///
/// # Errors
/// What the runtime throws.
pub async fn others() -> Result<(), JsValue> {
    Sleep::of(1)?.await
}

/// The waits of a call, for its origin and with its end, by one timer where the origin answers within a tenth of a
/// second. It runs on meanwhile: where it goes off before it is waited for, the call is looked at once for nothing.
#[derive(Default)]
pub struct Timer {
    /// And when it goes off.
    running: Option<(Sleep, Timestamp)>,
}

impl Timer {
    /// What a promise comes to, if it does within `limit`.
    ///
    /// # Errors
    /// What it was rejected with.
    pub async fn settled_within(
        &mut self,
        promise: &Promise,
        limit: Span,
    ) -> Result<Option<JsValue>, JsValue> {
        let mut settling = Settling::of(promise)?;
        let first = limit.min(PATIENCE);
        let sleep = Sleep::of(first.as_millis())?;
        let (sleep, _) = self.running.insert((sleep, clock().plus(first)));
        if let Some(outcome) = settling.within(sleep).await {
            return outcome.map(Some);
        }
        // Only a first wait is kept: whatever the clock does, it is over in half a second.
        self.running = None;
        let mut rest = Sleep::of(limit.minus(first).as_millis())?;
        settling.within(&mut rest).await.transpose()
    }

    /// Waits for as long as the end of a call may.
    ///
    /// # Errors
    /// What the runtime throws.
    pub async fn patience(&mut self) -> Result<(), JsValue> {
        let running = self.running.take();
        match running.filter(|(_, goes_off)| is_patient(*goes_off, clock())) {
            Some((sleep, _)) => sleep.await,
            None => Sleep::of(PATIENCE.as_millis())?.await,
        }
    }
}

/// Waits for a timer, which is cleared if this is dropped before it has gone off.
struct Sleep {
    settling: Settling,
    timer: Option<JsValue>,
}

impl Sleep {
    fn of(millis: i64) -> Result<Self, JsValue> {
        let settling = Settling::begin()?;
        let millis = to_number(u64::try_from(millis).unwrap_or(0));
        let timer = Some(after(millis, to_number(settling.0)));
        Ok(Self { settling, timer })
    }
}

impl Future for Sleep {
    type Output = Result<(), JsValue>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let gone_off = Pin::new(&mut self.settling).poll(context);
        if gone_off.is_ready() {
            self.timer = None;
        }
        gone_off.map_ok(drop)
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = &self.timer {
            clear_timeout(timer);
        }
    }
}

/// What was awaited under `key` has come; nothing happens if nobody waits any more.
#[wasm_bindgen]
pub fn wake(key: f64, fulfilled: bool, value: JsValue) {
    // Keys are whole numbers below 2^53.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let key = key as u64;
    let waker = AWAITED.with_borrow_mut(|awaited| {
        let entry = awaited.entries.get_mut(&key)?;
        let outcome = if fulfilled { Ok(value) } else { Err(value) };
        match std::mem::replace(entry, Entry::Settled(outcome)) {
            Entry::Pending(waker) => waker,
            Entry::Settled(_) => None,
        }
    });
    if let Some(waker) = waker {
        waker.wake();
    }
}
