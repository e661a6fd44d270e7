//! Tollgate, a gateway that limits, charges and forwards API calls.
pub mod credits;
#[cfg(target_arch = "wasm32")]
pub mod edge;
pub mod policy;
pub mod price;
pub mod time;
