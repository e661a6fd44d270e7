//! Tollgate, a gateway that limits, charges and forwards API calls.
#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

pub mod account;
pub mod admin;
pub mod call;
pub mod credits;
pub mod headers;
pub mod id;
pub mod key;
pub mod ledger;
pub mod limits;
pub mod object;
pub mod policy;
pub mod price;
pub mod problem;
pub mod protocol;
pub mod repeat;
pub mod secrets;
pub mod self_service;
pub mod signature;
pub mod time;
