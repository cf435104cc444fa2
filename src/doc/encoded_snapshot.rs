//! A snapshot that was encoded for the wire once and is shared by all sessions that are sent it.

use std::ops::Range;

use bytes::Bytes;

use crate::log::Revision;
use crate::ot::Kind;

/// A snapshot's bytes as clients are sent them. A document holds and passes them on, and reads only the revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedSnapshot {
    /// The snapshot's revision.
    pub revision: Revision,
    /// The document's type; `None` if there is no document at this revision.
    pub kind: Option<Kind>,
    json: Bytes,
    /// The place of the content's JSON within `json`.
    content: Range<usize>,
}

impl EncodedSnapshot {
    /// A snapshot as `json`. The range `content` of it is the content's own JSON; it is empty if there is no document.
    #[must_use]
    pub fn new(revision: Revision, kind: Option<Kind>, json: Bytes, content: Range<usize>) -> Self {
        Self {
            revision,
            kind,
            json,
            content,
        }
    }

    /// The whole snapshot as JSON.
    #[must_use]
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// The size of [`json`](Self::json) in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.json.len()
    }

    /// The content's JSON, empty if there is no document. Shares the memory of [`json`](Self::json).
    #[must_use]
    pub fn content_json(&self) -> Bytes {
        self.json.slice(self.content.clone())
    }

    /// The same snapshot with its JSON replaced by `map(json)`, which returns the same bytes under another owner.
    #[must_use]
    pub fn map_json(self, map: impl FnOnce(Bytes) -> Bytes) -> Self {
        let json = map(self.json);
        Self { json, ..self }
    }
}
