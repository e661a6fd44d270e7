//! The one place where the forwarded request is made, and sent.

use js_sys::{Promise, Reflect};
use wasm_bindgen::prelude::*;

use super::{
    crossing::HeaderLines,
    platform::{Env, Fetcher, message_of},
    promise::Timer,
    visit::{CLIENT_ADDRESS, Visit},
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
    pub identity: Option<Identity<'a>>,
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
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    /// `X-Tollgate-Call`.
    pub call: &'a str,
    /// `X-Tollgate-Account`.
    pub account: &'a str,
    /// `X-Tollgate-Key`.
    pub key: &'a str,
    /// `X-Tollgate-Plan`.
    pub plan: &'a str,
    /// `X-Tollgate-External-Id`.
    pub external_id: Option<&'a str>,
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

impl From<JsValue> for OriginFailure {
    /// Something was thrown on the way to the origin's answer.
    fn from(thrown: JsValue) -> Self {
        Self::Unreachable(message_of(&thrown))
    }
}

impl Forward<'_> {
    /// Sends it, and waits for the origin's headers.
    ///
    /// # Errors
    /// The origin did not answer.
    pub async fn send(
        &self,
        env: &Env,
        signer: &Signer,
        timer: &mut Timer,
    ) -> Result<web_sys::Response, OriginFailure> {
        let sent = self.derived(env, signer)?;
        self.answered(&sent, timer).await
    }

    /// Sends a preflight on: nothing but its method, its path and its CORS headers.
    ///
    /// # Errors
    /// The origin did not answer.
    pub async fn send_preflight(&self, env: &Env) -> Result<web_sys::Response, OriginFailure> {
        let sent = self.preflight(env)?;
        self.answered(&sent, &mut Timer::default()).await
    }

    /// What fetches: the runtime, or another Worker.
    fn fetcher(&self, env: &Env) -> Result<Fetcher, JsValue> {
        match self.origin {
            Origin::Url(_) | Origin::Zone => Ok(js_sys::global().unchecked_into()),
            Origin::Service(name) => env
                .service(name)
                .ok_or_else(|| JsValue::from_str(&format!("no service is bound as {name}"))),
        }
    }

    async fn answered(
        &self,
        sent: &Promise,
        timer: &mut Timer,
    ) -> Result<web_sys::Response, OriginFailure> {
        // What comes too late ends with this request: nothing of a request outlives it.
        timer
            .settled_within(sent, self.timeout)
            .await?
            .map(JsCast::unchecked_into)
            .ok_or(OriginFailure::Timeout)
    }

    /// How it is sent. What most are sent with is made once.
    fn init(&self) -> Result<web_sys::RequestInit, JsValue> {
        thread_local! {
            static USUAL: web_sys::RequestInit = init(false);
        }
        if !self.cache && !self.whole_body {
            return Ok(USUAL.with(Clone::clone));
        }
        let init = init(self.cache);
        if self.whole_body {
            // Read as the origin sent it, and not decoded, to be encoded anew on its way out.
            Reflect::set(&init, &"encodeResponseBody".into(), &"manual".into())?;
        }
        Ok(init)
    }

    /// Sends what is derived from the incoming request, whose body streams unless it was read.
    fn derived(&self, env: &Env, signer: &Signer) -> Result<Promise, JsValue> {
        let url = self.visit.url();
        let target = self.target(url.query);
        let mut change = HeaderLines::new();
        self.drop_headers(&mut change);
        change.set("X-Forwarded-Host", url.authority);
        change.set("X-Forwarded-Proto", url.scheme);
        if let Some(address) = self.visit.header(CLIENT_ADDRESS) {
            change.set("X-Forwarded-For", &address);
        }
        let asked = self.visit.header("Upgrade").unwrap_or_default();
        // The runtime sends every upgrade as a GET, whatever was matched, priced and signed (RFC 6455 §4.1).
        let may_upgrade = self.upgrade && self.visit.method == "GET";
        if may_upgrade && asked.eq_ignore_ascii_case("websocket") {
            change.set("Upgrade", "websocket");
        }
        // The runtime encodes what a URL cannot have as it is (WHATWG URL, query percent-encode
        // set): what is signed is what the origin gets.
        let sent = url
            .query
            .map(|_| web_sys::Request::new_with_str(&target).map(|request| request.url()))
            .transpose()?;
        let query = sent
            .as_deref()
            .and_then(CalledUrl::split)
            .and_then(|sent| sent.query);
        self.sign(&mut change, query.unwrap_or(""), signer);
        let fetcher = self.fetcher(env)?;
        change.forward(
            &fetcher,
            &target,
            &self.visit.request,
            self.body,
            &self.init()?,
        )
    }

    fn target(&self, query: Option<&str>) -> String {
        let (origin, path) = (self.origin.url(&self.visit.url()), self.path);
        match query {
            Some(query) => format!("{origin}{path}?{query}"),
            None => format!("{origin}{path}"),
        }
    }

    fn preflight(&self, env: &Env) -> Result<Promise, JsValue> {
        let headers = web_sys::Headers::new()?;
        for name in PREFLIGHT_HEADERS {
            if let Some(value) = self.visit.header(name) {
                headers.set(name, &value)?;
            }
        }
        let init = init(false);
        init.set_method("OPTIONS");
        init.set_headers(&headers);
        self.fetcher(env)?.fetch(&self.target(None), &init)
    }

    fn drop_headers(&self, change: &mut HeaderLines) {
        let connection = self.visit.header("Connection");
        let dropped = Dropped::of(connection.as_deref());
        for (name, _) in self.visit.headers() {
            let carries_key = (self.drop.authorization && name == "authorization")
                || (self.drop.x_api_key && name == "x-api-key");
            if carries_key || dropped.contains(name) {
                change.remove(name);
            }
        }
    }

    /// What the origin is told about the caller, and the signature by which it knows that this
    /// did not go round the gateway.
    fn sign(&self, change: &mut HeaderLines, query: &str, signer: &Signer) {
        let mut signed = Signed {
            method: &self.visit.method,
            path: self.path,
            query,
            ..Signed::default()
        };
        if let Some(identity) = self.identity {
            signed.call = identity.call;
            signed.account = identity.account;
            signed.key = identity.key;
            signed.plan = identity.plan;
            signed.external_id = identity.external_id.unwrap_or("");
            change.set("X-Tollgate-Call", identity.call);
            change.set("X-Tollgate-Account", identity.account);
            change.set("X-Tollgate-Key", identity.key);
            change.set("X-Tollgate-Plan", identity.plan);
            if let Some(external_id) = identity.external_id {
                change.set("X-Tollgate-External-Id", external_id);
            }
            change.set("X-Tollgate-Held", &identity.held.to_string());
        }
        change.set(
            "X-Tollgate-Signature",
            &signer.sign(&signed, self.visit.started),
        );
    }
}

/// What every request is sent with.
fn init(cache: bool) -> web_sys::RequestInit {
    let init = web_sys::RequestInit::new();
    // A redirect is the client's to follow: it has to be admitted, too.
    init.set_redirect(web_sys::RequestRedirect::Manual);
    if !cache {
        // Cloudflare's cache knows no accounts: one customer's answer would be another's.
        init.set_cache(web_sys::RequestCache::NoStore);
    }
    init
}
