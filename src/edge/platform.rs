//! The parts of the Workers runtime that Tollgate calls, bound thinly: constant strings cross
//! once, numbers one by one, and whatever can throw is caught.

use std::cell::RefCell;

use js_sys::{ArrayBuffer, Function, Promise, Uint8Array};
use wasm_bindgen::prelude::*;

use super::promise::settled;
use crate::time::Timestamp;

#[wasm_bindgen]
extern "C" {
    /// The bindings, variables and secrets of the deployment.
    pub type Env;
    /// The account objects.
    #[wasm_bindgen(method, getter, structural, js_name = ACCOUNTS)]
    pub fn accounts(this: &Env) -> Namespace;

    /// What outlives a request.
    pub type Context;
    #[wasm_bindgen(method, catch, js_name = waitUntil)]
    pub fn wait_until(this: &Context, promise: &Promise) -> Result<(), JsValue>;

    /// The objects of one class.
    pub type Namespace;
    #[wasm_bindgen(method, catch, js_name = getByName)]
    fn get_by_name(this: &Namespace, name: &str) -> Result<ObjectStub, JsValue>;
    #[wasm_bindgen(method, catch, js_name = getByName)]
    fn get_by_name_near(
        this: &Namespace,
        name: &str,
        options: &JsValue,
    ) -> Result<ObjectStub, JsValue>;

    /// One object, from far.
    pub type ObjectStub;
    #[wasm_bindgen(method, catch)]
    pub fn tell(this: &ObjectStub, message: Uint8Array) -> Result<Promise, JsValue>;

    /// A binding that counts by key, over all isolates of a place.
    pub type RateLimit;
    #[wasm_bindgen(method, catch)]
    fn limit(this: &RateLimit, options: &JsValue) -> Result<Promise, JsValue>;

    /// A dataset of Analytics Engine.
    pub type Dataset;
    #[wasm_bindgen(method, catch, js_name = writeDataPoint)]
    pub fn write_data_point(this: &Dataset, point: &JsValue) -> Result<(), JsValue>;
    /// A binding that sends e-mail.
    pub type SendEmail;
    #[wasm_bindgen(method, catch)]
    pub fn send(this: &SendEmail, message: &JsValue) -> Result<Promise, JsValue>;

    /// The runtime, or another Worker that is bound as a service.
    pub type Fetcher;
    #[wasm_bindgen(method, catch)]
    pub fn fetch(
        this: &Fetcher,
        target: &str,
        init: &web_sys::RequestInit,
    ) -> Result<Promise, JsValue>;

    #[wasm_bindgen(catch, js_name = fetch)]
    pub fn fetch(
        request: &web_sys::Request,
        init: &web_sys::RequestInit,
    ) -> Result<Promise, JsValue>;

    /// What is written at one end and read as an answer's body at the other. A write is done when
    /// its bytes were taken, and fails when nobody is there to take them.
    pub type IdentityTransformStream;
    #[wasm_bindgen(constructor, catch)]
    pub fn new() -> Result<IdentityTransformStream, JsValue>;
    #[wasm_bindgen(method, getter)]
    pub fn readable(this: &IdentityTransformStream) -> web_sys::ReadableStream;
    #[wasm_bindgen(method, getter)]
    pub fn writable(this: &IdentityTransformStream) -> JsValue;

    /// The same for as many bytes as are told before: the answer keeps its `Content-Length`.
    #[wasm_bindgen(extends = IdentityTransformStream)]
    pub type FixedLengthStream;
    #[wasm_bindgen(constructor, catch)]
    pub fn new(length: f64) -> Result<FixedLengthStream, JsValue>;

    #[derive(Clone)]
    #[wasm_bindgen(js_name = WritableStreamDefaultWriter)]
    pub type Writer;
    #[wasm_bindgen(constructor, catch, js_class = "WritableStreamDefaultWriter")]
    pub fn new(stream: &JsValue) -> Result<Writer, JsValue>;
    #[wasm_bindgen(method)]
    pub fn write(this: &Writer, bytes: &Uint8Array) -> Promise;
    #[wasm_bindgen(method)]
    pub fn close(this: &Writer) -> Promise;
    #[wasm_bindgen(method)]
    pub fn abort(this: &Writer, reason: &JsValue) -> Promise;

    /// Reads into memory that it is lent.
    #[wasm_bindgen(js_name = ReadableStreamBYOBReader)]
    pub type Reader;
    #[wasm_bindgen(constructor, catch, js_class = "ReadableStreamBYOBReader")]
    pub fn new(stream: &web_sys::ReadableStream) -> Result<Reader, JsValue>;
    #[wasm_bindgen(method)]
    pub fn read(this: &Reader, into: &Uint8Array) -> Promise;
    #[wasm_bindgen(method)]
    pub fn cancel(this: &Reader) -> Promise;

    /// What was read: bytes, in the memory that was lent, or the end.
    pub type Piece;
    #[wasm_bindgen(method, getter)]
    pub fn done(this: &Piece) -> bool;
    #[wasm_bindgen(method, getter)]
    pub fn value(this: &Piece) -> Uint8Array;

    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &Function, millis: i32) -> JsValue;
    #[wasm_bindgen(js_name = clearTimeout)]
    fn clear_timeout(timer: &JsValue);

    #[wasm_bindgen(catch, js_namespace = crypto, js_name = getRandomValues)]
    fn get_random_values(bytes: &mut [u8]) -> Result<JsValue, JsValue>;

    #[wasm_bindgen(js_namespace = console, js_name = log)]
    pub fn console_log(line: &str);
    #[wasm_bindgen(js_namespace = console, js_name = error)]
    pub fn console_error(line: &str);

    #[wasm_bindgen(thread_local_v2, js_namespace = globalThis, js_name = tollgatePolicy)]
    static POLICY: ArrayBuffer;

    /// `openapi.json`, read when it is first asked for.
    #[wasm_bindgen(thread_local_v2, js_namespace = globalThis, js_name = tollgateOpenApi)]
    pub static OPENAPI_TEXT: String;
}

/// The policy that travels with this bundle.
pub fn compiled_policy() -> Vec<u8> {
    POLICY.with(|policy| Uint8Array::new(policy).to_vec())
}

impl Env {
    /// A binding, or undefined.
    fn get(&self, name: &str) -> JsValue {
        js_sys::Reflect::get(self.as_ref(), &JsValue::from_str(name)).unwrap_or(JsValue::UNDEFINED)
    }

    /// A variable or secret.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).as_string()
    }

    /// Where the directory's object is.
    pub fn directory(&self) -> Namespace {
        self.get("DIRECTORY").unchecked_into()
    }

    /// The objects that know keys issued before Tollgate.
    pub fn imported_keys(&self) -> Namespace {
        self.get("IMPORTED_KEYS").unchecked_into()
    }

    /// What counts unknown keys by address, if it is bound.
    pub fn imported_key_misses(&self) -> Option<RateLimit> {
        let binding = self.get("IMPORTED_KEY_MISSES");
        binding.is_object().then(|| binding.unchecked_into())
    }

    /// Where points about requests go, if it is bound.
    pub fn analytics(&self) -> Option<Dataset> {
        let binding = self.get("ANALYTICS");
        binding.is_object().then(|| binding.unchecked_into())
    }

    /// What sends e-mail, if it is bound.
    pub fn email(&self) -> Option<SendEmail> {
        let binding = self.get("EMAIL");
        binding.is_object().then(|| binding.unchecked_into())
    }

    /// Another Worker, if one is bound under this name.
    pub fn service(&self, name: &str) -> Option<Fetcher> {
        let binding = self.get(name);
        binding.is_object().then(|| binding.unchecked_into())
    }
}

impl RateLimit {
    /// Counts one more for `key`: comes to an object whose flag `success` says whether that is still
    /// within the limit.
    ///
    /// # Errors
    /// What the runtime throws.
    pub fn count(&self, key: &str) -> Result<Promise, JsValue> {
        let options = js_sys::Object::new();
        js_sys::Reflect::set(&options, &"key".into(), &key.into())?;
        self.limit(&options)
    }
}

impl Namespace {
    /// Tells an object something, in bytes, and waits for what it answers.
    ///
    /// # Errors
    /// What the runtime throws, for the log.
    pub async fn ask(
        &self,
        name: &str,
        region: Option<&str>,
        message: &[u8],
    ) -> Result<Vec<u8>, String> {
        let asked = async {
            let told = self.object(name, region)?.tell(message.into())?;
            settled(&told).await
        };
        let answer = asked.await.map_err(|thrown| message_of(&thrown))?;
        Ok(Uint8Array::from(answer).to_vec())
    }

    /// One object; placed in `region` if it is not there yet.
    ///
    /// # Errors
    /// What the runtime throws.
    pub fn object(&self, name: &str, region: Option<&str>) -> Result<ObjectStub, JsValue> {
        let Some(region) = region else {
            return self.get_by_name(name);
        };
        let options = js_sys::Object::new();
        js_sys::Reflect::set(&options, &"locationHint".into(), &region.into())?;
        self.get_by_name_near(name, &options)
    }
}

/// The clock. It stands still while code runs: read once per event and passed down.
pub fn clock() -> Timestamp {
    // Milliseconds since the epoch are whole and far below 2^53.
    #[allow(clippy::cast_possible_truncation)]
    let millis = js_sys::Date::now() as i64;
    Timestamp::from_millis(millis)
}

/// A number as JavaScript has them. Everything that is stored is below 2^53.
pub fn to_number(value: u64) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    let number = value as f64;
    number
}

/// Random bytes. Without them no operation can be told from another: the error is passed up.
pub fn random<const N: usize>() -> Result<[u8; N], JsValue> {
    let mut bytes = [0; N];
    get_random_values(&mut bytes)?;
    Ok(bytes)
}

thread_local! {
    /// Random bytes that nobody has had yet: asking for many at once costs no more than for a few.
    static UNUSED: RefCell<Vec<[u8; 8]>> = const { RefCell::new(Vec::new()) };
}

/// 53 random bits: enough to tell one operation from another, and no secret.
pub fn operation_id() -> Result<u64, JsValue> {
    UNUSED.with_borrow_mut(|unused| {
        if unused.is_empty() {
            unused.extend(random::<512>()?.as_chunks().0);
        }
        let bytes = unused.pop().unwrap_or_default();
        Ok(u64::from_be_bytes(bytes) >> 11)
    })
}

/// A timer that is cleared when it is dropped.
pub struct Timer {
    timer: JsValue,
    _callback: Closure<dyn FnMut()>,
}

impl Timer {
    /// Calls `callback` after `millis`, once.
    pub fn after(millis: i64, callback: impl FnOnce() + 'static) -> Self {
        let callback = Closure::once(callback);
        let millis = i32::try_from(millis).unwrap_or(i32::MAX);
        let timer = set_timeout(callback.as_ref().unchecked_ref(), millis);
        Self {
            timer,
            _callback: callback,
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        clear_timeout(&self.timer);
    }
}

/// What a thrown value says.
pub fn message_of(thrown: &JsValue) -> String {
    thrown
        .dyn_ref::<js_sys::Error>()
        .map(|error| String::from(error.message()))
        .or_else(|| thrown.as_string())
        .unwrap_or_else(|| format!("{thrown:?}"))
}

/// The `code` of a thrown value, where it has one.
pub fn code_of(thrown: &JsValue) -> Option<String> {
    js_sys::Reflect::get(thrown, &JsValue::from_str("code"))
        .ok()?
        .as_string()
}

/// Whether a thrown value has this flag set: the runtime marks what went wrong so.
pub fn has_flag(thrown: &JsValue, flag: &str) -> bool {
    js_sys::Reflect::get(thrown, &JsValue::from_str(flag)).is_ok_and(|value| value.is_truthy())
}
