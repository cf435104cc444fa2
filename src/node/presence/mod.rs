//! Presence: cursors and lists of users, unsequenced and not stored.

pub(in crate::node) mod registry;
pub(in crate::node) mod sync;
