//! Copydesk: a real-time document server. Every document has one owner at a time, whose sequencer gives every op its
//! place in the document's log. ARCHITECTURE.md is the house; this file is its list of rooms.

pub mod id;
pub mod log;
pub mod ot;
pub mod store;
