//! What crosses between JavaScript and Rust in one piece rather than name by name: every crossing
//! costs, and every text that crosses is copied. `entry.mjs` has the other side.
//!
//! The pieces are lines, since no method, URL, header name or header value has a line break in it.

use js_sys::{Promise, Uint8Array};
use wasm_bindgen::prelude::*;

use super::platform::Fetcher;

#[wasm_bindgen]
extern "C" {
    /// A request's method and URL, then the name and the value of each header.
    #[wasm_bindgen(js_namespace = tollgate, js_name = linesOf)]
    pub fn lines_of(request: &web_sys::Request) -> String;

    /// Does to `headers` what the lines say, in their order.
    #[wasm_bindgen(catch, js_namespace = tollgate, js_name = change)]
    fn change(headers: &web_sys::Headers, lines: &str) -> Result<(), JsValue>;

    /// A response with these headers.
    #[wasm_bindgen(catch, js_namespace = tollgate, js_name = answer)]
    fn answer(status: u16, lines: &str, body: Option<&str>) -> Result<web_sys::Response, JsValue>;

    /// What `fetcher` fetches from `target` with the method of `request`, its headers as the lines change
    /// them, and `body`, or its own where that is absent.
    #[wasm_bindgen(catch, js_namespace = tollgate, js_name = forward)]
    fn forward(
        fetcher: &Fetcher,
        target: &str,
        request: &web_sys::Request,
        lines: &str,
        body: Option<Uint8Array>,
        init: &web_sys::RequestInit,
    ) -> Result<Promise, JsValue>;

    /// The origin's headers that decide about Tollgate's: `Access-Control-Allow-Origin`,
    /// `Access-Control-Expose-Headers` and `Location`, one a line; an empty one where there is none.
    #[wasm_bindgen(catch, js_namespace = tollgate, js_name = decidingOf)]
    pub fn deciding_of(answer: &web_sys::Response) -> Result<String, JsValue>;

    /// The origin's answer, whose headers can be changed; its body is what it is `carried` by, or its own. One whose
    /// status is outside 200 to 599 cannot be copied.
    #[wasm_bindgen(catch, js_namespace = tollgate, js_name = copyOf)]
    pub fn copy_of(
        from_origin: &web_sys::Response,
        carried: Option<&web_sys::ReadableStream>,
    ) -> Result<web_sys::Response, JsValue>;
}

/// So much is what a call's origin is told, and so much what its caller.
const USUAL_BYTES: usize = 1_024;

/// Headers to be set, and others to be taken away.
pub struct HeaderLines(String);

impl HeaderLines {
    /// None yet.
    pub fn new() -> Self {
        Self(String::with_capacity(USUAL_BYTES))
    }

    /// Sets a header. One that is empty is as good as none, and a value with a line break is none.
    pub fn set(&mut self, name: &str, value: &str) {
        self.0.push_str(name);
        self.0.push('\n');
        if !value.contains('\n') {
            self.0.push_str(value);
        }
        self.0.push('\n');
    }

    /// Takes a header away.
    pub fn remove(&mut self, name: &str) {
        self.set(name, "");
    }

    /// Sets a header, or takes it away where it has no value.
    pub fn put(&mut self, name: &str, value: Option<&str>) {
        self.set(name, value.unwrap_or_default());
    }

    /// Does all of it.
    ///
    /// # Errors
    /// A name or a value that no header has.
    pub fn change(&self, headers: &web_sys::Headers) -> Result<(), JsValue> {
        change(headers, &self.0)
    }

    /// Sends `request` to `target` with its headers changed: what `fetcher` promises. `body` stands in
    /// place of its own, where it was read.
    ///
    /// # Errors
    /// A name or a value that no header has, and whatever else cannot be sent.
    pub fn forward(
        &self,
        fetcher: &Fetcher,
        target: &str,
        request: &web_sys::Request,
        body: Option<&[u8]>,
        init: &web_sys::RequestInit,
    ) -> Result<Promise, JsValue> {
        let body = body.map(Uint8Array::from);
        forward(fetcher, target, request, &self.0, body, init)
    }

    /// A response with these headers.
    ///
    /// # Errors
    /// What the platform throws where its own objects are built.
    pub fn respond(&self, status: u16, body: Option<&str>) -> Result<web_sys::Response, JsValue> {
        answer(status, &self.0, body)
    }
}
