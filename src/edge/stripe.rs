//! Stripe, as it is asked over HTTP: one request, one answer, in bounded time.

use wasm_bindgen::prelude::*;

use super::{
    body::{Unread, read_body},
    platform::{self, Env, clock, message_of},
    promise::settled_within,
};
use crate::{
    payments::stripe::{self, Call, Failure, Kind},
    secrets::StripeSecrets,
    time::Span,
};

/// Where Stripe is, unless `STRIPE_API` says otherwise: tests have one of their own.
const API: &str = "https://api.stripe.com";
/// How long its answer is waited for, and then that answer's body. A payment takes it some seconds.
const PATIENCE: Span = Span::from_seconds(15);
/// The longest answer that is read: the longest of Stripe's own are pages of a hundred objects.
const ANSWER_MAX: usize = 1 << 20;

/// Stripe, for whoever holds the secret key.
pub struct Stripe {
    api: String,
    authorization: String,
}

impl Stripe {
    /// The Stripe that `env` names, asked with the deployment's secret key.
    pub fn new(env: &Env, secrets: &StripeSecrets) -> Self {
        let api = env.text("STRIPE_API").filter(|api| !api.is_empty());
        let api = api.as_deref().unwrap_or(API);
        Self {
            api: api.trim_end_matches('/').to_owned(),
            authorization: secrets.key.authorization(),
        }
    }

    /// Asks once: the JSON that it answers.
    ///
    /// # Errors
    /// What it was asked is not done, or nobody knows whether it is.
    pub async fn ask(&self, call: &Call) -> Result<String, Failure> {
        let lost = |thrown: JsValue| Failure::Unclear(message_of(&thrown));
        let late = || Failure::Unclear("no answer in time".to_owned());
        let request = self.request(call).map_err(lost)?;
        let init = web_sys::RequestInit::new();
        init.set_redirect(web_sys::RequestRedirect::Manual);
        init.set_cache(web_sys::RequestCache::NoStore);
        let answered = platform::fetch(&request, &init).map_err(lost)?;
        let answer = settled_within(&answered, PATIENCE.as_millis())
            .await
            .map_err(lost)?
            .ok_or_else(late)?;
        let answer: web_sys::Response = answer.unchecked_into();
        let body = match answer.body() {
            Some(stream) => {
                let deadline = clock().plus(PATIENCE);
                let read = read_body(&stream, ANSWER_MAX, Some(deadline)).await;
                read.map_err(|unread| match unread {
                    Unread::TooLong => Failure::Unclear("an answer without end".to_owned()),
                    Unread::TooLate => late(),
                    Unread::Broken(thrown) => lost(thrown),
                })?
            }
            None => Vec::new(),
        };
        let text = String::from_utf8(body).unwrap_or_default();
        stripe::read(answer.status(), text)
    }

    fn request(&self, call: &Call) -> Result<web_sys::Request, JsValue> {
        let headers = web_sys::Headers::new()?;
        headers.set("Authorization", &self.authorization)?;
        headers.set("Stripe-Version", stripe::VERSION)?;
        let init = web_sys::RequestInit::new();
        if let Kind::Change {
            form,
            idempotency_key,
        } = &call.kind
        {
            headers.set("Content-Type", "application/x-www-form-urlencoded")?;
            headers.set("Idempotency-Key", idempotency_key)?;
            init.set_method("POST");
            init.set_body(&JsValue::from_str(form));
        }
        if call.kind == Kind::End {
            init.set_method("DELETE");
        }
        init.set_headers(&headers);
        let url = format!("{}{}", self.api, call.path);
        web_sys::Request::new_with_str_and_init(&url, &init)
    }
}
