//! Limits of a document.

use std::sync::Arc;

use super::submit::Proposal;
use crate::setting::settings;

settings! {
    /// Limits of one document. Sizes are bytes.
    pub struct DocumentSettings {
        /// The largest size of the content as JSON. The upper bound is the size that can still be loaded,
        /// `ot::CONTENT_BYTES_MAX`.
        pub document_bytes_max: usize = 10 << 20, in 1 << 10..=64 << 20;
        /// Commits held in memory for transforming submits and for clients that reconnect.
        pub tail_entries_max: usize = 1_000, in 1..=1_000_000;
        /// Bytes of those commits.
        pub tail_bytes_max: usize = 1 << 20, in 1 << 10..=1 << 30;
        /// Commits after which a snapshot is saved.
        pub snapshot_entries: usize = 1_000, in 1..=1_000_000;
        /// Bytes of commits after which a snapshot is saved.
        pub snapshot_bytes: usize = 1 << 20, in 1 << 10..=1 << 30;
        /// How many commits the base of a submit may lie behind the head.
        pub behind_entries_max: u64 = 1_000_000, in 1..=1 << 40;
        /// Submits with a base before the tail that may wait at once.
        pub late_submits_max: usize = 1_000, in 1..=1_000_000;
        /// Steps of work to bring one submit from its base to the head; a submit that needs more is rejected. A step reads
        /// and writes one component of an op and takes about 100 ns.
        pub combine_steps_max: u64 = 100_000_000, in 1_000..=1_000_000_000_000;
        /// Steps done at once, before other documents have their turn.
        pub combine_slice_steps: u64 = 200_000, in 1_000..=1_000_000_000;
        /// Submits that may wait to become durable.
        pub staged_entries_max: usize = 10_000, in 1..=1_000_000;
        /// Bytes of those submits. The same bound applies to submits with old bases and to submits that wait for a claim.
        /// The submit that crosses the bound is still accepted.
        pub staged_bytes_max: usize = 64 << 20, in 1 << 10..=1 << 40;
        /// Submits of one session that may wait for their commit.
        pub session_submits_max: usize = 64, in 1..=100_000;
        derived {
            /// The sequencer of a debug build panics when it processes an edit whose JSON contains this text. Set by tests.
            pub panic_mark: Option<Arc<str>> = None;
        }
    }
}

impl DocumentSettings {
    /// Returns true if a test wants the sequencer to panic on this proposal. Always false in a release build.
    pub(super) fn panics_on(&self, proposal: &Proposal) -> bool {
        match (&self.panic_mark, proposal) {
            (Some(mark), Proposal::Edit(json)) => cfg!(debug_assertions) && json.contains(&**mark),
            _ => false,
        }
    }
}
