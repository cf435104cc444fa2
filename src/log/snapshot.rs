//! The fold of a log's entries, and its stored form.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::change::{read_content, write_content};
use super::{Change, DecodeError, Entry, Revision, SubmitId};
use crate::id::{ClientId, UserId};
use crate::ot::{Content, ContentBounds, OtError};

/// The document at a revision.
///
/// ```
/// use copydesk::id::{ClientId, UserId};
/// use copydesk::log::{Change, Entry, Epoch, Revision, Snapshot, SubmitId};
/// use copydesk::ot::{Content, Kind};
///
/// let mut document = Snapshot::default();
/// document.fold(&Entry {
///     revision: Revision(1),
///     epoch: Epoch(1),
///     id: SubmitId { author: UserId::anyone(), client: ClientId::parse("ann")?, seq: 1 },
///     at_ms: 0,
///     change: Change::Create(Content::create(Kind::TextUnicode, Some("\"Hello\""))?),
/// })?;
/// assert_eq!(document.revision, Revision(1));
/// assert_eq!(document.content.unwrap().to_text(), "Hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// The number of entries folded into it.
    pub revision: Revision,
    /// When its last entry was sequenced, in milliseconds since 1970; 0 at revision zero.
    pub at_ms: u64,
    /// The content, while the document exists.
    pub content: Option<Content>,
    /// The submit that created the current document: identifies a create that is sent again.
    pub creator: Option<(SubmitId, Revision)>,
}

/// An entry does not follow a snapshot: the log is corrupt.
#[derive(Debug, Error)]
pub enum FoldError {
    /// The entry is not the next one.
    #[error("entry {entry} does not follow revision {revision}")]
    Gap {
        /// The snapshot's revision.
        revision: Revision,
        /// The entry's revision.
        entry: Revision,
    },
    /// The entry edits a document that does not exist.
    #[error("entry {0} edits a document that does not exist")]
    Missing(Revision),
    /// The entry's op does not fit.
    #[error("entry {0}: {1}")]
    Unfit(Revision, OtError),
}

impl FoldError {
    /// Returns true if the content would exceed a bound. The snapshot before the entry can still be read then.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        matches!(
            self,
            Self::Unfit(_, OtError::ContentTooLarge | OtError::TooLarge(_))
        )
    }
}

impl Snapshot {
    /// Applies the next entry of the log, within [`ContentBounds::LOGGED`]. The snapshot is unchanged if it fails.
    ///
    /// # Errors
    /// When the entry is not the next one or does not fit.
    pub fn fold(&mut self, entry: &Entry) -> Result<(), FoldError> {
        self.fold_within(entry, &ContentBounds::LOGGED)
    }

    /// As [`fold`](Self::fold), within `bounds`.
    ///
    /// # Errors
    /// As [`fold`](Self::fold); `Unfit` also when the content would be out of `bounds`.
    pub fn fold_within(&mut self, entry: &Entry, bounds: &ContentBounds) -> Result<(), FoldError> {
        self.follows(entry)?;
        match &entry.change {
            Change::Create(content) if content.size_bytes() > bounds.bytes_max => {
                return Err(FoldError::Unfit(entry.revision, OtError::ContentTooLarge));
            }
            Change::Create(content) => {
                self.content = Some(content.clone());
                self.creator = Some((entry.id.clone(), entry.revision));
            }
            Change::Edit(op) => {
                let content = self
                    .content
                    .as_mut()
                    .ok_or(FoldError::Missing(entry.revision))?;
                content
                    .apply_within(op, bounds)
                    .map_err(|error| FoldError::Unfit(entry.revision, error))?;
            }
            Change::Delete => {
                self.content = None;
                self.creator = None;
            }
            Change::Nothing => {}
        }
        self.revision = entry.revision;
        self.at_ms = entry.at_ms;
        Ok(())
    }

    /// Applies these entries. Those before the last create or delete have no effect on the result, so they are counted and not
    /// applied: a faulty one among them does not prevent the opening of a document that was created again since. If it fails,
    /// the snapshot is as before the faulty entry.
    ///
    /// # Errors
    /// As [`fold`](Self::fold), for the first faulty entry.
    pub fn fold_all(&mut self, entries: &[Arc<Entry>]) -> Result<(), FoldError> {
        let is_fresh =
            |entry: &Arc<Entry>| matches!(entry.change, Change::Create(_) | Change::Delete);
        let (past, rest) = entries.split_at(entries.iter().rposition(is_fresh).unwrap_or(0));
        for entry in past {
            self.follows(entry)?;
            self.revision = entry.revision;
            self.at_ms = entry.at_ms;
        }
        rest.iter().try_for_each(|entry| self.fold(entry))
    }

    /// Checks that `entry` is the next one.
    fn follows(&self, entry: &Entry) -> Result<(), FoldError> {
        if entry.revision != self.revision.next() {
            return Err(FoldError::Gap {
                revision: self.revision,
                entry: entry.revision,
            });
        }
        Ok(())
    }

    /// The stored form, as JSON. The store keeps the revision separately.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let head = StoredSnapshot {
            at_ms: self.at_ms,
            creator: self.creator.as_ref().map(|(id, revision)| StoredCreator {
                author: id.author.as_str().to_owned(),
                client: id.client.as_str().to_owned(),
                seq: id.seq,
                revision: *revision,
            }),
        };
        let mut out = serde_json::to_vec(&head).expect("a plain struct is JSON");
        if let Some(content) = &self.content {
            out.push(b'\n');
            write_content(content, &mut out);
        }
        out
    }

    /// Reads the stored form of the snapshot at `revision`.
    ///
    /// # Errors
    /// When the bytes are not what [`Snapshot::encode`] writes.
    pub fn decode(revision: Revision, bytes: &[u8]) -> Result<Self, DecodeError> {
        let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Form("not UTF-8"))?;
        let (head, content) = match text.split_once('\n') {
            Some((head, content)) => (head, Some(content)),
            None => (text, None),
        };
        let head: StoredSnapshot = serde_json::from_str(head)?;
        let creator = match head.creator {
            None => None,
            Some(creator) => {
                let client = ClientId::parse(&creator.client)
                    .map_err(|_| DecodeError::Form("a client's id"))?;
                let id = SubmitId {
                    author: UserId::new(&creator.author),
                    client,
                    seq: creator.seq,
                };
                Some((id, creator.revision))
            }
        };
        let content = content.map(read_content).transpose()?;
        Ok(Self {
            revision,
            at_ms: head.at_ms,
            content,
            creator,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct StoredSnapshot {
    at_ms: u64,
    creator: Option<StoredCreator>,
}

#[derive(Serialize, Deserialize)]
struct StoredCreator {
    author: String,
    client: String,
    seq: u64,
    revision: Revision,
}
