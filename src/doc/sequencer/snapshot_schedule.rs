//! When an owner encodes and saves snapshots.

use crate::doc::action::Action;
use crate::doc::effects::Effects;
use crate::doc::settings::DocumentSettings;
use crate::log::{Entry, Fence, Revision, Snapshot};

/// For each further piece of this size, a document has twice, three times, … as many commits between two snapshots, because a
/// snapshot of a large document costs more than reading its log.
const SNAPSHOT_PIECE_BYTES: usize = 256 << 10;

/// The snapshots that an owner owes. A snapshot may only show durable entries, so it is taken when nothing is staged, or as the
/// state that an append under way leads to.
#[derive(Debug, Default)]
pub(super) struct SnapshotSchedule {
    /// The document as it is when the append under way is durable, if a snapshot is owed.
    after_append: Option<Snapshot>,
    /// Whether an encoded snapshot was requested.
    is_requested: bool,
    /// Whether a snapshot is to be saved.
    is_save_due: bool,
    /// The number of entries appended since the last snapshot was saved.
    entries: usize,
    /// The bytes of those entries.
    bytes: usize,
    /// The revision of the last snapshot that was saved because the stored log is damaged.
    rescued: Option<Revision>,
}

impl SnapshotSchedule {
    /// After `entries` were read to open the document: with the next snapshot, the next opening reads fewer.
    pub(super) fn after_opening(entries: usize) -> Self {
        Self {
            entries,
            ..Self::default()
        }
    }

    /// Returns true if an encoded snapshot was requested and not provided.
    pub(super) fn is_requested(&self) -> bool {
        self.is_requested
    }

    /// Requests an encoded snapshot.
    pub(super) fn request(&mut self) {
        self.is_requested = true;
    }

    /// Requires a snapshot to be saved, once for each `head`. Returns true if it is the first time for this one.
    pub(super) fn rescue(&mut self, head: Revision) -> bool {
        let is_first = self.rescued.replace(head) != Some(head);
        self.is_save_due |= is_first;
        is_first
    }

    /// Returns true if a snapshot is to be encoded or saved.
    pub(super) fn is_any_owed(&self) -> bool {
        self.is_requested || self.is_save_due
    }

    /// Counts entries that are appended, and decides whether a snapshot is due.
    pub(super) fn appending<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a Entry>,
        head: &Snapshot,
        settings: &DocumentSettings,
    ) {
        for entry in entries {
            self.entries += 1;
            self.bytes += entry.size();
        }
        let content = head.content.as_ref();
        let content_bytes = content.map_or(0, |content| content.size_bytes());
        let pieces = 1 + content_bytes / SNAPSHOT_PIECE_BYTES;
        let is_due = self.entries >= settings.snapshot_entries * pieces
            || self.bytes >= settings.snapshot_bytes * pieces;
        if is_due {
            (self.entries, self.bytes) = (0, 0);
            self.is_save_due = true;
        }
    }

    /// Keeps the state that the append under way leads to.
    pub(super) fn keep(&mut self, head: &Snapshot) {
        self.after_append = Some(head.clone());
    }

    /// The append is durable: provides the snapshots that are owed, if the state was kept.
    pub(super) fn appended(&mut self, fence: Fence, effects: &mut Effects) {
        if let Some(snapshot) = self.after_append.take() {
            self.provide(snapshot, fence, effects);
        }
    }

    /// Provides the snapshots that are owed.
    pub(super) fn provide(&mut self, snapshot: Snapshot, fence: Fence, effects: &mut Effects) {
        if std::mem::take(&mut self.is_save_due) {
            effects.action(Action::SaveSnapshot {
                fence,
                snapshot: snapshot.clone(),
            });
        }
        if std::mem::take(&mut self.is_requested) {
            effects.action(Action::EncodeSnapshot(snapshot));
        }
    }
}
