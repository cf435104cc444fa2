//! Folds loaded entries into a snapshot, as far as they can be read.

use std::sync::Arc;

use super::blocking::work_off_thread;
use crate::doc::{EncodedSnapshot, ReadOnlyCause};
use crate::log::{Entry, Revision, Snapshot};
use crate::ot::Content;
use crate::store::Loaded;

/// A document as loaded and folded.
#[derive(Debug)]
pub(super) enum Folded {
    /// The document at its head, and the entries that were loaded with it.
    Whole(Snapshot, Vec<Arc<Entry>>),
    /// Only a part of the log can be folded, or the document is in quarantine.
    ReadOnly(ReadablePart),
}

/// The readable part of a read-only document.
#[derive(Debug)]
pub(super) struct ReadablePart {
    /// The newest readable state; `None` if there is none.
    pub(super) readable: Option<Snapshot>,
    /// The number of entries in the log.
    pub(super) head: Revision,
    pub(super) cause: ReadOnlyCause,
}

impl Folded {
    /// The document stands at `snapshot`, and the entry after it cannot be read.
    pub(super) fn damaged(snapshot: Snapshot, head: Revision) -> Self {
        // A snapshot beyond the head proves that the entries after the head are missing.
        let entry = Some(snapshot.revision.min(head).next());
        Self::ReadOnly(ReadablePart {
            readable: snapshot.content.is_some().then_some(snapshot),
            head,
            cause: ReadOnlyCause::Damaged { entry },
        })
    }
}

impl Folded {
    /// The document is in quarantine, and stands at `head`.
    pub(super) fn quarantined(head: Snapshot) -> Self {
        Self::ReadOnly(ReadablePart {
            head: head.revision,
            readable: head.content.is_some().then_some(head),
            cause: ReadOnlyCause::Quarantined,
        })
    }
}

/// Folds what was loaded.
pub(super) async fn fold(loaded: Loaded) -> Folded {
    let Loaded {
        mut snapshot,
        entries,
        head,
    } = loaded;
    let bytes = size_of_content(&snapshot) + size_of(&entries);
    work_off_thread(bytes, move || match snapshot.fold_all(&entries) {
        Ok(()) => Folded::Whole(snapshot, entries),
        Err(error) if error.is_too_large() => Folded::ReadOnly(ReadablePart {
            readable: Some(snapshot),
            head,
            cause: ReadOnlyCause::Oversized,
        }),
        Err(_) => Folded::damaged(snapshot, head),
    })
    .await
}

/// Applies entries to an encoded snapshot. Returns `None` if they do not fit.
pub(super) async fn refold(
    snapshot: Arc<EncodedSnapshot>,
    entries: Vec<Arc<Entry>>,
) -> Option<Snapshot> {
    let bytes = snapshot.size() + size_of(&entries);
    work_off_thread(bytes, move || {
        let mut decoded = decode(&snapshot)?;
        decoded.fold_all(&entries).ok()?;
        Some(decoded)
    })
    .await
}

/// About how many bytes there are to encode or to fold.
pub(super) fn size_of_content(snapshot: &Snapshot) -> usize {
    snapshot.content.as_ref().map_or(0, Content::size_bytes)
}

fn size_of(entries: &[Arc<Entry>]) -> usize {
    entries.iter().map(|entry| entry.size()).sum()
}

fn decode(encoded: &EncodedSnapshot) -> Option<Snapshot> {
    let content = match encoded.kind {
        Some(kind) => {
            let data = encoded.content_json();
            let json = std::str::from_utf8(&data).ok()?;
            Some(Content::create_logged(kind, json).ok()?)
        }
        None => None,
    };
    Some(Snapshot {
        revision: encoded.revision,
        content,
        ..Snapshot::default()
    })
}
