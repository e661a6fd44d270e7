//! Tollgate: a gateway that knows whose key a call carries, counts it, charges it and forwards it.
//!
//! The story of a call, file by file (`edge/gateway.rs` tells it): its path is made canonical
//! (`path`), its candidate routes found (`policy/router.rs`), its key verified (`key`), its route
//! chosen and priced (`policy/quote.rs`, `price`); the account's object (`object`, reached by
//! `protocol`) admits it (`account/admit.rs`) against limits (`limits`) and credits (`ledger`), the
//! edge forwards it (`edge/forward.rs`, signed by `signature`) and has it settled
//! (`account/settle.rs`). A refusal may be repeated from memory (`repeat`).
//!
//! Everything but `edge` is pure: no clock, no I/O, no JavaScript.
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
pub mod address;
pub mod admin;
pub mod audit;
pub mod bounded;
pub mod call;
pub mod caseless;
pub mod credits;
pub mod cursor;
pub mod data_point;
pub mod directory;
#[cfg(target_arch = "wasm32")]
pub mod edge;
pub mod event;
pub mod export;
pub mod guesses;
pub mod headers;
pub mod id;
pub mod imported;
pub mod json;
pub mod key;
pub mod ledger;
pub mod ledger_page;
pub mod limits;
pub mod object;
pub mod path;
pub mod payments;
pub mod policy;
pub mod price;
pub mod problem;
pub mod protocol;
pub mod quote_page;
pub mod repeat;
pub mod retried;
pub mod secrets;
pub mod self_service;
pub mod signature;
pub mod status;
#[cfg(test)]
mod steps;
pub mod task;
pub mod time;
pub mod totals;
pub mod unsettled;
pub mod url;
pub mod webhook;
pub mod wire;
