//! Tollgate, a gateway that limits, charges and forwards API calls.
pub mod credits;
pub mod policy;
pub mod price;
pub mod time;
