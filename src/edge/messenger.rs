//! Sends what an account tells of by itself: to the operator's webhook, and to customers by e-mail.

use js_sys::{Object, Reflect};
use wasm_bindgen::prelude::*;

use super::{
    deployment::Deployment,
    platform::{Env, clock, code_of, fetch, message_of},
    promise::settled_within,
};
use crate::{
    account::Attempt,
    object::{Email, Message},
    policy::Notifications,
    webhook::Webhook,
};

/// How long an answer is waited for.
const PATIENCE_MILLIS: i64 = 15_000;
/// How long until what nobody reads has to be put away.
const PUT_AWAY_MILLIS: i64 = 1_000;
/// The receiver's word that it will take nothing any more (RFC 9110 §15.5.11).
const GONE: u16 = 410;
/// What the e-mail service says of addresses that it will never write to.
const NEVER: [&str; 2] = ["E_RECIPIENT_SUPPRESSED", "E_RECIPIENT_NOT_ALLOWED"];

/// Sends a message, once.
pub async fn send(env: &Env, message: &Message) -> Attempt {
    let deployment = match Deployment::of(env) {
        Ok(deployment) => deployment,
        Err(detail) => return Attempt::Failed(detail),
    };
    let Some(told) = &deployment.policy.notifications else {
        return Attempt::Failed("the policy has no [notifications]".to_owned());
    };
    let sent = match message {
        Message::Webhook(webhook) => post(deployment, told, webhook).await,
        Message::Email(email) => mail(env, told, email).await,
    };
    sent.unwrap_or_else(|thrown| {
        let code = code_of(&thrown);
        let detail = code.clone().unwrap_or_else(|| message_of(&thrown));
        match code.filter(|code| NEVER.contains(&code.as_str())) {
            Some(code) => Attempt::Refused(code),
            None => Attempt::Failed(detail),
        }
    })
}

async fn post(
    deployment: &Deployment,
    told: &Notifications,
    webhook: &Webhook,
) -> Result<Attempt, JsValue> {
    let Some(signer) = &deployment.webhooks else {
        return Ok(Attempt::Failed("there is no WEBHOOK_SECRET".to_owned()));
    };
    let now = clock();
    let headers = web_sys::Headers::new()?;
    headers.set("Content-Type", "application/json")?;
    headers.set("User-Agent", "Tollgate")?;
    headers.set("webhook-id", &webhook.id)?;
    headers.set("webhook-timestamp", &now.as_seconds().to_string())?;
    headers.set("webhook-signature", &signer.sign(webhook, now))?;
    let abort = web_sys::AbortController::new()?;
    let init = web_sys::RequestInit::new();
    init.set_method("POST");
    init.set_headers(&headers);
    init.set_body(&JsValue::from_str(&webhook.body));
    // A redirect would take what is signed to somebody else.
    init.set_redirect(web_sys::RequestRedirect::Manual);
    init.set_signal(Some(&abort.signal()));
    let request = web_sys::Request::new_with_str_and_init(&told.url, &init)?;
    let answered = fetch(&request, &web_sys::RequestInit::new())?;
    let Some(response) = settled_within(&answered, PATIENCE_MILLIS).await? else {
        abort.abort();
        return Ok(no_answer());
    };
    let response: web_sys::Response = response.unchecked_into();
    if let Some(body) = response.body() {
        // Nobody reads it, and whether it can be put away changes nothing.
        let _ = settled_within(&body.cancel(), PUT_AWAY_MILLIS).await;
    }
    Ok(match response.status() {
        200..=299 => Attempt::Taken,
        GONE => Attempt::Refused(format!("HTTP {GONE}")),
        status => Attempt::Failed(format!("HTTP {status}")),
    })
}

async fn mail(env: &Env, told: &Notifications, email: &Email) -> Result<Attempt, JsValue> {
    let (Some(binding), Some(sender)) = (env.email(), &told.email) else {
        return Ok(Attempt::Failed("there is no binding EMAIL".to_owned()));
    };
    let from = match &sender.name {
        Some(name) => object(&[
            ("email", &sender.from.as_str().into()),
            ("name", &name.into()),
        ])?,
        None => sender.from.as_str().into(),
    };
    let message = object(&[
        ("from", &from),
        ("to", &email.to.as_str().into()),
        ("subject", &email.subject.as_str().into()),
        ("text", &email.text.as_str().into()),
    ])?;
    let sent = settled_within(&binding.send(&message)?, PATIENCE_MILLIS).await?;
    Ok(sent.map_or_else(no_answer, |_| Attempt::Taken))
}

fn no_answer() -> Attempt {
    Attempt::Failed("no answer in 15 s".to_owned())
}

fn object(members: &[(&str, &JsValue)]) -> Result<JsValue, JsValue> {
    let object = Object::new();
    for (name, value) in members {
        Reflect::set(&object, &JsValue::from_str(name), value)?;
    }
    Ok(object.into())
}
