//! Presence channels: `registry` is the pure state, `service` performs its effects.

pub(in crate::node) mod registry;
pub(in crate::node) mod service;
