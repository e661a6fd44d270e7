//! Tollgate, a gateway that limits, charges and forwards API calls.
pub mod credits;
pub mod headers;
pub mod id;
pub mod key;
pub mod policy;
pub mod price;
pub mod problem;
pub mod secrets;
pub mod signature;
pub mod time;
