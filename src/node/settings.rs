//! Limits of a node.

use std::time::Duration;

use super::cluster::wire_version;
use super::faults::DeadLetterSettings;
use crate::doc::DocumentSettings;
use crate::setting::settings;
use crate::version::NodeVersion;

settings! {
    /// Limits of a node. Sizes are bytes, times are milliseconds.
    pub struct NodeSettings {
        /// How long a document without sessions stays in memory.
        pub idle_close_ms: u64 = 60_000, in 0..=86_400_000;
        /// Documents that may be open at once.
        pub documents_max: usize = 200_000, in 1..=100_000_000;
        /// Requests that may wait for one document. If there are as many, sockets that have more are not read.
        pub mailbox_max: usize = 1_024, in 1..=1_000_000;
        /// Bytes of submits without an answer, of all sockets together. Sockets that have more are not read.
        pub submits_bytes_max: usize = 256 << 20, in 1 << 10..=u32::MAX as usize;
        /// Bytes of encoded snapshots held for readers, of all documents and sockets together.
        pub snapshots_bytes_max: usize = 256 << 20, in 1 << 20..=1 << 40;
        /// Bytes waiting to be written to slow sockets, of all sockets together.
        pub outboxes_bytes_max: usize = 256 << 20, in 1 << 20..=1 << 40;
        /// Documents claimed at once: the claims of a failed node's documents must not fill the store's connections.
        pub claims_max: usize = 256, in 1..=100_000;
        /// Interval of the node's heartbeats.
        pub heartbeat_ms: u64 = 500, in 50..=60_000;
        derived {
            /// How long a node may miss heartbeats until its documents are given to other nodes: the value of
            /// `postgres.node_dead_after_ms`.
            pub dead_after_ms: u64 = 3_000;
            /// Bounds of the dead letters.
            pub dead_letters: DeadLetterSettings = DeadLetterSettings::default();
            /// Limits of each document.
            pub document: DocumentSettings = DocumentSettings::default();
            /// Added to this machine's clock, in milliseconds. Set by tests.
            pub clock_offset_ms: i64 = 0;
            /// The wire versions that the node speaks. Other than the program's own only in tests.
            pub version: NodeVersion = wire_version::of_this_program();
        }
    }
}

impl NodeSettings {
    pub(in crate::node) fn idle_close(&self) -> Duration {
        Duration::from_millis(self.idle_close_ms)
    }

    pub(in crate::node) fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    pub(in crate::node) fn dead_after(&self) -> Duration {
        Duration::from_millis(self.dead_after_ms)
    }
}
