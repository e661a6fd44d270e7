//! The one place where the forwarded request is made, and sent.

use std::{cell::Cell, rc::Rc};

use js_sys::{Reflect, Uint8Array};
use wasm_bindgen::prelude::*;

use super::{
    platform::{self, Env, Timer, message_of},
    visit::Visit,
};
use crate::{
    credits::Credits,
    headers::Dropped,
    key::Carriers,
    policy::Origin,
    problem::{Code, Problem},
    signature::{Signed, Signer},
    time::Span,
    url::CalledUrl,
};

/// The client's address, as Cloudflare tells it.
const CLIENT_ADDRESS: &str = "CF-Connecting-IP";
/// What a preflight is forwarded with, and nothing else (Fetch standard, CORS-preflight request).
const PREFLIGHT_HEADERS: [&str; 4] = [
    "Origin",
    "Access-Control-Request-Method",
    "Access-Control-Request-Headers",
    "Access-Control-Request-Private-Network",
];

/// A request to be forwarded.
pub struct Forward<'a> {
    /// The request that came in.
    pub visit: &'a Visit,
    /// Where it goes.
    pub origin: &'a Origin,
    /// The canonical path: the same that was matched and priced.
    pub path: &'a str,
    /// The body, where it was read; else the incoming one is streamed.
    pub body: Option<&'a [u8]>,
    /// Which headers carry Tollgate's key and are not for the origin.
    pub drop: Carriers,
    /// The admitted call.
    pub identity: Option<&'a Identity>,
    /// Cloudflare's cache may answer.
    pub cache: bool,
    /// A WebSocket upgrade passes.
    pub upgrade: bool,
    /// The Worker carries the answer's body itself.
    pub whole_body: bool,
    /// How long to wait for the origin's headers.
    pub timeout: Span,
}

/// Who called, for the origin.
pub struct Identity {
    /// `X-Tollgate-Call`.
    pub call: String,
    /// `X-Tollgate-Account`.
    pub account: String,
    /// `X-Tollgate-Key`.
    pub key: String,
    /// `X-Tollgate-Plan`.
    pub plan: String,
    /// `X-Tollgate-External-Id`.
    pub external_id: Option<String>,
    /// `X-Tollgate-Held`.
    pub held: Credits,
}

/// The origin did not answer.
pub enum OriginFailure {
    /// No connection, or it broke before the headers.
    Unreachable(String),
    /// No headers in time.
    Timeout,
}

impl OriginFailure {
    /// Something was thrown on the way to the origin's answer.
    pub fn unreachable(thrown: &JsValue) -> Self {
        Self::Unreachable(message_of(thrown))
    }

    /// What the caller is told. Nothing is charged.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Unreachable(_) => Problem::new(
                Code::OriginUnreachable,
                "the origin could not be reached; nothing was charged",
            ),
            Self::Timeout => Problem::new(
                Code::OriginTimeout,
                "the origin did not answer in time; nothing was charged",
            ),
        }
    }
}

impl Forward<'_> {
    /// The URL without path and query that the request is sent to.
    pub fn origin_url(&self) -> String {
        match self.origin {
            Origin::Url(url) => url.clone(),
            Origin::Service(_) | Origin::Zone => self.visit.url().origin(),
        }
    }

    /// Sends it, and waits for the origin's headers.
    ///
    /// # Errors
    /// The origin did not answer.
    pub async fn send(
        &self,
        env: &Env,
        signer: &Signer,
    ) -> Result<web_sys::Response, OriginFailure> {
        let request = self
            .request(signer)
            .map_err(|thrown| OriginFailure::unreachable(&thrown))?;
        self.fetch(env, &request).await
    }

    /// Sends a preflight on: nothing but its method, its path and its CORS headers.
    ///
    /// # Errors
    /// The origin did not answer.
    pub async fn send_preflight(&self, env: &Env) -> Result<web_sys::Response, OriginFailure> {
        let request = self
            .preflight()
            .map_err(|thrown| OriginFailure::unreachable(&thrown))?;
        self.fetch(env, &request).await
    }

    async fn fetch(
        &self,
        env: &Env,
        request: &web_sys::Request,
    ) -> Result<web_sys::Response, OriginFailure> {
        let controller = web_sys::AbortController::new()
            .map_err(|thrown| OriginFailure::unreachable(&thrown))?;
        let init = web_sys::RequestInit::new();
        // A redirect is the client's to follow: it has to be admitted, too.
        init.set_redirect(web_sys::RequestRedirect::Manual);
        if !self.cache {
            // Cloudflare's cache knows no accounts: one customer's answer would be another's.
            init.set_cache(web_sys::RequestCache::NoStore);
        }
        if self.whole_body {
            // Read as the origin sent it, and not decoded, to be encoded anew on its way out.
            Reflect::set(&init, &"encodeResponseBody".into(), &"manual".into())
                .map_err(|thrown| OriginFailure::unreachable(&thrown))?;
        }
        init.set_signal(Some(&controller.signal()));
        let timed_out = Rc::new(Cell::new(false));
        let timer = Timer::after(self.timeout.as_millis(), {
            let timed_out = Rc::clone(&timed_out);
            move || {
                timed_out.set(true);
                controller.abort();
            }
        });
        let answered = match self.origin {
            Origin::Url(_) | Origin::Zone => platform::fetch(request, &init).await,
            Origin::Service(name) => match env.service(name) {
                Some(service) => service.fetch(request, &init).await,
                None => Err(JsValue::from_str(&format!("no service is bound as {name}"))),
            },
        };
        drop(timer);
        answered.map_err(|thrown| {
            if timed_out.get() {
                OriginFailure::Timeout
            } else {
                OriginFailure::unreachable(&thrown)
            }
        })
    }

    /// Derived from the incoming request, so that its body streams.
    fn request(&self, signer: &Signer) -> Result<web_sys::Request, JsValue> {
        let url = self.visit.url();
        let target = target(&self.origin_url(), self.path, url.query);
        let incoming = self.visit.request.unchecked_ref::<web_sys::RequestInit>();
        let request = match self.body {
            None => web_sys::Request::new_with_str_and_init(&target, incoming)?,
            Some(body) => {
                let init = web_sys::RequestInit::new();
                init.set_method(&self.visit.method);
                init.set_headers(&self.visit.headers);
                init.set_body(&Uint8Array::from(body));
                web_sys::Request::new_with_str_and_init(&target, &init)?
            }
        };
        let headers = request.headers();
        self.drop_headers(&headers)?;
        headers.set("X-Forwarded-Host", url.authority)?;
        headers.set("X-Forwarded-Proto", url.scheme)?;
        if let Some(address) = self.visit.header(CLIENT_ADDRESS) {
            headers.set("X-Forwarded-For", &address)?;
        }
        let asked = self.visit.header("Upgrade").unwrap_or_default();
        if self.upgrade && asked.eq_ignore_ascii_case("websocket") {
            headers.set("Upgrade", "websocket")?;
        }
        // The runtime encodes what a URL cannot have as it is (WHATWG URL, query percent-encode
        // set): what is signed is what the origin gets.
        let sent = request.url();
        let query = CalledUrl::split(&sent).and_then(|sent| sent.query);
        self.sign(&headers, query.unwrap_or(""), signer)?;
        Ok(request)
    }

    fn preflight(&self) -> Result<web_sys::Request, JsValue> {
        let headers = web_sys::Headers::new()?;
        for name in PREFLIGHT_HEADERS {
            if let Some(value) = self.visit.header(name) {
                headers.set(name, &value)?;
            }
        }
        let init = web_sys::RequestInit::new();
        init.set_method("OPTIONS");
        init.set_headers(&headers);
        web_sys::Request::new_with_str_and_init(&target(&self.origin_url(), self.path, None), &init)
    }

    fn drop_headers(&self, headers: &web_sys::Headers) -> Result<(), JsValue> {
        let connection = self.visit.header("Connection");
        let dropped = Dropped::of(connection.as_deref());
        for name in names_of(headers)? {
            let carries_key = (self.drop.authorization
                && name.eq_ignore_ascii_case("authorization"))
                || (self.drop.x_api_key && name.eq_ignore_ascii_case("x-api-key"));
            if carries_key || dropped.contains(&name) {
                headers.delete(&name)?;
            }
        }
        Ok(())
    }

    /// What the origin is told about the caller, and the signature by which it knows that this
    /// did not go round the gateway.
    fn sign(
        &self,
        headers: &web_sys::Headers,
        query: &str,
        signer: &Signer,
    ) -> Result<(), JsValue> {
        let mut signed = Signed {
            method: &self.visit.method,
            path: self.path,
            query,
            ..Signed::default()
        };
        if let Some(identity) = self.identity {
            signed.call = &identity.call;
            signed.account = &identity.account;
            signed.key = &identity.key;
            signed.plan = &identity.plan;
            signed.external_id = identity.external_id.as_deref().unwrap_or("");
            headers.set("X-Tollgate-Call", &identity.call)?;
            headers.set("X-Tollgate-Account", &identity.account)?;
            headers.set("X-Tollgate-Key", &identity.key)?;
            headers.set("X-Tollgate-Plan", &identity.plan)?;
            if let Some(external_id) = &identity.external_id {
                headers.set("X-Tollgate-External-Id", external_id)?;
            }
            headers.set("X-Tollgate-Held", &identity.held.to_string())?;
        }
        headers.set(
            "X-Tollgate-Signature",
            &signer.sign(&signed, self.visit.started),
        )
    }
}

/// The names of all headers, before any is deleted: deleting while listing passes some over.
fn names_of(headers: &web_sys::Headers) -> Result<Vec<String>, JsValue> {
    let mut names = Vec::new();
    for name in headers.keys() {
        names.extend(name?.as_string());
    }
    Ok(names)
}

fn target(origin: &str, path: &str, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{origin}{path}?{query}"),
        None => format!("{origin}{path}"),
    }
}
