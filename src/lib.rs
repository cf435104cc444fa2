//! Copydesk: a real-time document server. Every document has one owner node at a time; the owner's sequencer assigns every
//! op its revision in the document's log. ARCHITECTURE.md describes the modules.

pub mod access;
pub mod admin;
pub mod auth;
pub mod client;
pub mod cluster;
pub mod config;
pub mod doc;
pub mod gateway;
pub mod id;
pub mod log;
pub mod metrics;
pub mod node;
pub mod ot;
pub mod outage;
pub mod protocol;
pub mod setting;
pub mod store;
pub mod sync;
pub mod telemetry;
pub mod version;

/// Compiles the Rust examples of docs/API.md.
#[cfg(doctest)]
#[doc = include_str!("../docs/API.md")]
struct ApiExamples;
