//! The Worker and its objects, on wasm32 only: thin. What is decided is decided in the core.
//!
//! `entry.mjs` hands over a request, or a message to an object; the files here turn JavaScript
//! into the core's types and back.

mod accounts;
mod answer;
mod carriage;
mod deployment;
mod directory;
mod export;
mod forward;
mod gateway;
mod journey;
mod log;
mod object;
mod operate;
mod passage;
mod platform;
mod sql;
mod visit;

use wasm_bindgen::prelude::*;
// Linked for what worker-build's shim calls in it.
use worker as _;

use self::{
    deployment::Deployment,
    gateway::Gateway,
    platform::{Context, Env},
};
pub use self::{directory::DirectoryCore, object::AccountCore};

/// Runs once in each isolate, before anything else.
#[wasm_bindgen(start)]
pub fn start() {
    console_error_panic_hook::set_once();
}

/// Answers one request.
///
/// # Errors
/// What the platform throws where its own objects are built; nothing that a caller can bring about.
#[wasm_bindgen]
pub async fn fetch(
    request: web_sys::Request,
    env: Env,
    context: Context,
) -> Result<web_sys::Response, JsValue> {
    match Deployment::of(&env) {
        Ok(deployment) => Gateway::new(deployment, env, context).answer(request).await,
        Err(faults) => answer::out_of_order(&request, &faults),
    }
}

/// What is wrong with the policy that travels with this bundle; nothing, where it is `undefined`.
/// A deploy that would serve nobody is refused before it serves.
#[wasm_bindgen(js_name = policyMistake)]
#[must_use]
pub fn policy_mistake() -> Option<String> {
    deployment::policy().err()
}
