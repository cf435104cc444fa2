//! The other nodes of the cluster and the store that they share.
//!
//! Messages: `message`, `codec` (their bytes), `wire_version`, `peer_versions`, `peers` (sending, and which node owns what).
//! Tasks: `background`, `change_follower`. State of the store: `store_clock`, `store_status`, `log_history` and
//! `history_check`. For balancers: `readiness`, `save_check`.

pub(in crate::node) mod background;
mod change_follower;
mod codec;
mod history_check;
pub(in crate::node) mod log_history;
pub(in crate::node) mod message;
mod peer_versions;
pub(in crate::node) mod peers;
pub(in crate::node) mod readiness;
pub(in crate::node) mod save_check;
pub(in crate::node) mod store_clock;
pub(in crate::node) mod store_status;
pub(in crate::node) mod wire_version;
