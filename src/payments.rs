//! Payments, by way of Stripe's HTTP API.
//!
//! What is sent to Stripe and what its answers mean is worked out here, without I/O; `edge/stripe.rs`
//! carries it over.

pub mod money;
pub mod stripe;
pub mod top_up;
