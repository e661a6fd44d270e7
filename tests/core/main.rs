//! The core as its adversary sees it: an object over a store in memory, told what to do by
//! statements, random histories and a simulated network, and audited from the outside.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod audit;
mod auditor;
mod branch;
mod calls;
mod closing;
mod differential;
mod directory;
mod events;
mod export;
mod figures;
mod imports;
mod jobs;
mod keys;
mod ledger;
mod memory_directory;
mod memory_store;
mod memory_stripe;
mod network;
mod openings;
mod payments;
mod properties;
mod renewals;
mod retried;
mod roll_ups;
mod rows;
mod simulation;
mod snapshots;
mod sold;
mod statement;
mod stored;
mod summaries;
mod top_up;
mod unusual;
mod usage;
