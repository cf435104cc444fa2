//! What a node does about faults of a document: it keeps dead letters, and it puts documents that panic repeatedly into
//! quarantine.
//!
//! - `service`: what the tasks of documents call; it never waits
//! - `panics`: the panics of this node and the documents in quarantine, as a pure state machine
//! - `quarantine_sync`: exchanges both with the store, once a second
//! - `dead_letter_writer`: writes dead letters to the store, and deletes old ones
//! - `payload`: a dead letter's payload

mod dead_letter_writer;
mod panics;
mod payload;
mod quarantine_sync;
mod service;
mod settings;

pub(in crate::node) use service::{FaultService, FaultyDocument};
pub use settings::DeadLetterSettings;
