//! Payments, by way of Stripe's HTTP API.
//!
//! Nobody but Stripe says what was paid. A customer or the operator asks for something to pay
//! ([`ask`]), the account's object says whether that may be and for how much, and the Worker has Stripe
//! make a page for it ([`checkout`]). What becomes of it Stripe tells by events, signed ([`webhook`]); what
//! an event says, and what has to be looked up because of it, is read here ([`event`]), and goes to the
//! account's object as a [`sighting`]: how a payment or a subscription stands at Stripe. Sightings may
//! come in any order and as often as they like (`account/payments.rs`).
//!
//! All of this is without I/O; `edge/stripe.rs` carries it over.

pub mod ask;
pub mod checkout;
pub mod event;
pub mod history;
pub mod money;
pub mod sighting;
pub mod stripe;
pub mod top_up;
pub mod webhook;
