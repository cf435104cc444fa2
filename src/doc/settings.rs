//! What bounds a document.

use serde::Deserialize;

/// What bounds a document. Sizes are bytes, counts are entries.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DocumentSettings {
    /// The largest that a document may grow.
    pub document_bytes_max: usize,
    /// The most commits that are held in memory for transforming and for those who come back.
    pub tail_entries_max: usize,
    /// The most bytes of commits that are held in memory.
    pub tail_bytes_max: usize,
    /// How many commits make a snapshot due.
    pub snapshot_entries: usize,
    /// How many bytes of commits make a snapshot due.
    pub snapshot_bytes: usize,
    /// How old a submit's base may be, in commits.
    pub behind_entries_max: u64,
    /// How many submits with old bases may wait at once.
    pub late_submits_max: usize,
    /// How many steps of work may be spent on one submit to bring it from its base to the head; what needs more is refused.
    /// A step is one component of an op that is read and written, about 100 ns.
    pub combine_steps_max: u64,
    /// How many of those steps are done at once. Then other documents have their turn.
    pub combine_slice_steps: u64,
    /// How many submits may wait to become durable.
    pub staged_entries_max: usize,
    /// How many bytes of them may wait, how many of those with old bases, and how many of those that wait for a claim. The
    /// one that goes beyond it still may.
    pub staged_bytes_max: usize,
    /// How many submits one session may have waiting.
    pub session_submits_max: usize,
}

impl Default for DocumentSettings {
    fn default() -> Self {
        Self {
            document_bytes_max: 10 << 20,
            tail_entries_max: 1_000,
            tail_bytes_max: 1 << 20,
            snapshot_entries: 1_000,
            snapshot_bytes: 1 << 20,
            behind_entries_max: 1_000_000,
            late_submits_max: 1_000,
            combine_steps_max: 100_000_000,
            combine_slice_steps: 200_000,
            staged_entries_max: 10_000,
            staged_bytes_max: 64 << 20,
            session_submits_max: 64,
        }
    }
}
