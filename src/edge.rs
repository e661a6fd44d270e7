//! The Worker and its objects, on wasm32 only: thin. What is decided is decided in the core.
//!
//! `entry.mjs` hands over a request, or a message to an object; the files here turn JavaScript
//! into the core's types and back.

mod accounts;
mod analytics;
mod answer;
mod billing;
mod body;
mod carriage;
mod crossing;
mod deployment;
mod directory;
mod export;
mod forward;
mod gateway;
mod imported;
mod journey;
mod log;
mod messenger;
mod object;
mod operate;
mod passage;
mod platform;
mod promise;
mod question;
mod retried;
mod sql;
mod stripe;
mod visit;

use std::task::{Poll, Waker};

use wasm_bindgen::{handler, prelude::*};
use wasm_bindgen_futures::future_to_promise;

use self::{
    deployment::Deployment,
    gateway::Gateway,
    platform::{Context, Env, console_error},
};
pub use self::{directory::DirectoryCore, imported::LookupCore, object::AccountCore};

/// Runs once in each isolate, before anything else, and again after a trap.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|panic| console_error(&panic.to_string())));
    // What a trap leaves of the memory is not to be trusted: the next call begins a new one.
    handler::set_on_abort(handler::schedule_reinit);
}

/// Answers one request: with a response where nothing has to be waited for, else with a promise of
/// one.
///
/// # Errors
/// What the platform throws where its own objects are built; nothing that a caller can bring about.
#[wasm_bindgen]
pub fn fetch(request: web_sys::Request, env: Env, context: Context) -> Result<JsValue, JsValue> {
    let deployment = match Deployment::of(&env) {
        Ok(deployment) => deployment,
        Err(faults) => return answer::out_of_order(&request, &faults).map(Into::into),
    };
    let mut answer = Box::pin(Gateway::new(deployment, env, context).answer(request));
    // Nobody is woken by this look at it: the promise looks again.
    match answer
        .as_mut()
        .poll(&mut std::task::Context::from_waker(Waker::noop()))
    {
        Poll::Ready(answer) => answer,
        Poll::Pending => Ok(future_to_promise(answer).into()),
    }
}

/// Why the policy that travels with this bundle cannot be read; nothing, where it is `undefined`.
/// A deploy that would serve nobody is refused before it serves.
#[wasm_bindgen(js_name = policyFault)]
#[must_use]
pub fn policy_fault() -> Option<String> {
    deployment::policy().err()
}
