//! Tollgate, a gateway that limits, charges and forwards API calls.
pub mod caseless;
pub mod credits;
pub mod path;
pub mod policy;
pub mod price;
pub mod time;
