//! Documents in quarantine: read-only since repeated panics, until an operator releases them.

use std::sync::Arc;

use crate::id::{DocId, NodeId};

/// Two panics of one document within this time put it into quarantine.
pub const PANIC_WINDOW_MS: u64 = 60_000;

/// The most documents in quarantine. Each node reads all of them every second. Beyond it, the panics of further documents
/// are caught and logged only.
pub const QUARANTINED_MAX: usize = 1_000;

/// The most documents of which the newest panic is stored, those in quarantine included.
pub(in crate::store) const PANICS_MAX: usize = 2 * QUARANTINED_MAX;

/// A panic of a document's state machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PanicRecord {
    /// The document.
    pub doc: DocId,
    /// The node on which it happened.
    pub node: NodeId,
    /// The name of that node.
    pub node_name: Arc<str>,
    /// The time, in milliseconds since 1970.
    pub at_ms: u64,
    /// Whether the node has seen another panic of the document within [`PANIC_WINDOW_MS`].
    pub is_repeated: bool,
}

impl PanicRecord {
    /// Returns true if this panic puts the document into quarantine after one of the time `at_ms` on `node`. A record that is
    /// stored a second time, because the outcome of the first time was unknown, is the same panic.
    pub(in crate::store) fn quarantines_after(&self, node: NodeId, at_ms: u64) -> bool {
        let is_same = (node, at_ms) == (self.node, self.at_ms);
        self.is_repeated || (!is_same && self.at_ms.abs_diff(at_ms) < PANIC_WINDOW_MS)
    }
}

/// What became of a stored panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PanicOutcome {
    /// It is the document's first within [`PANIC_WINDOW_MS`].
    Recorded,
    /// The document is in quarantine.
    Quarantined,
    /// The document will not be put into quarantine: there are as many as the store holds.
    Full,
}

/// A document in quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedDocument {
    /// The document.
    pub doc: DocId,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// The name of the node on which it panicked last.
    pub node_name: Arc<str>,
}

/// The columns of a document in quarantine in the tables of both stores.
pub(in crate::store) struct QuarantineColumns {
    pub(in crate::store) collection: String,
    pub(in crate::store) doc: String,
    pub(in crate::store) since_ms: i64,
    pub(in crate::store) node_name: Vec<u8>,
}

impl QuarantineColumns {
    /// The document, or why the row is damaged.
    pub(in crate::store) fn decode(self) -> Result<QuarantinedDocument, String> {
        let doc = DocId::parse(&self.collection, &self.doc);
        let doc = doc.map_err(|error| {
            format!(
                "quarantine of {:?}/{:?}: {error}",
                self.collection, self.doc
            )
        })?;
        Ok(QuarantinedDocument {
            doc,
            since_ms: self.since_ms.cast_unsigned(),
            node_name: String::from_utf8_lossy(&self.node_name).into(),
        })
    }
}
