//! The other nodes of the cluster and the store that they share: messages, membership, heartbeats, the feed of changes, the
//! history of the log.

pub(in crate::node) mod background;
mod change_follower;
pub(in crate::node) mod codec;
pub(in crate::node) mod history;
mod peer_versions;
pub(in crate::node) mod peers;
pub(in crate::node) mod readiness;
pub(in crate::node) mod store_clock;
pub(in crate::node) mod store_status;
pub(in crate::node) mod wire_version;
