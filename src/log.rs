//! The log of a document: revisions, epochs, entries, and the snapshots and tails made of them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

use crate::id::{ClientId, UserId};
use crate::ot::{Content, ContentBounds, Kind, Op, OtError};

/// The number of entries in the log. Entry `r` leads from revision `r - 1` to `r`; on the wire a revision is ShareDB's
/// `v`, and an op's `v` is the revision that it applies to.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Revision(pub u64);

impl Revision {
    /// Before the first entry: the document has never existed.
    pub const ZERO: Self = Self(0);

    /// The revision one entry later.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The revision one entry earlier; revision zero for revision zero.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The fencing number of a document. It grows by one at every claim.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

/// The right to append: the epoch and the random token of one claim. The token distinguishes two claims that got the same
/// epoch because a failover lost the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The claim's number.
    pub epoch: Epoch,
    /// The claim's random part.
    pub token: u128,
}

/// Identifies a submit for ever.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubmitId {
    /// Its author.
    pub author: UserId,
    /// The client that sent it.
    pub client: ClientId,
    /// The client's count of its submits.
    pub seq: u64,
}

/// The effect of an entry on the document.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Creates the document with this content.
    Create(Content),
    /// Edits the content.
    Edit(Op),
    /// Deletes the document. Its revisions go on counting.
    Delete,
    /// No effect: the submit's effect had already been committed.
    Nothing,
}

impl Change {
    /// Approximate size in bytes, for bounds.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Create(content) => content.size_bytes(),
            Self::Edit(op) => op.size(),
            Self::Delete | Self::Nothing => 0,
        }
    }

    /// The stored form: a letter for the kind of change, then its JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        match self {
            Self::Create(content) => {
                out.push(b'C');
                write_content(content, &mut out);
            }
            Self::Edit(op) => {
                out.push(match op.kind() {
                    Kind::TextUnicode => b'T',
                    Kind::RichText => b'R',
                });
                op.write_json(&mut out);
            }
            Self::Delete => out.push(b'D'),
            Self::Nothing => out.push(b'N'),
        }
        out
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When the bytes are not what [`Change::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (tag, json) = bytes
            .split_first()
            .ok_or(DecodeError::Form("an empty change"))?;
        let json = || std::str::from_utf8(json).map_err(|_| DecodeError::Form("not UTF-8"));
        match tag {
            b'C' => Ok(Self::Create(read_content(json()?)?)),
            b'T' => Ok(Self::Edit(Op::parse_logged(Kind::TextUnicode, json()?)?)),
            b'R' => Ok(Self::Edit(Op::parse_logged(Kind::RichText, json()?)?)),
            b'D' => Ok(Self::Delete),
            b'N' => Ok(Self::Nothing),
            _ => Err(DecodeError::Form("an unknown kind of change")),
        }
    }
}

/// Stored bytes cannot be decoded.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// The bytes do not have the stored form.
    #[error("stored bytes: {0}")]
    Form(&'static str),
    /// The JSON in them is invalid.
    #[error("stored JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The op or content in them is invalid.
    #[error("stored op: {0}")]
    Ot(#[from] OtError),
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The revision that it leads to.
    pub revision: Revision,
    /// The epoch that it was committed under.
    pub epoch: Epoch,
    /// The submit that it commits.
    pub id: SubmitId,
    /// When its owner sequenced it, in milliseconds since 1970 by the owner's clock. For display only.
    pub at_ms: u64,
    /// Its effect.
    pub change: Change,
}

impl Entry {
    /// Approximate size in bytes, for bounds.
    #[must_use]
    pub fn size(&self) -> usize {
        self.change.size() + 200
    }

    /// A hash of the epoch and of the submit's id. Two entries of one document and revision have the same
    /// fingerprint only if they are the same commit.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        fingerprint(self.epoch, &self.id)
    }
}

/// [`Entry::fingerprint`] of an entry that has this epoch and came from this submit.
#[must_use]
pub fn fingerprint(epoch: Epoch, id: &SubmitId) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&epoch.0.to_le_bytes());
    hasher.update(&id.seq.to_le_bytes());
    for text in [id.author.as_str(), id.client.as_str()] {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.digest()
}

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

#[derive(Deserialize)]
struct StoredContent<'a> {
    r#type: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Writes `{"type":uri,"data":json}`: a create's form in the log and on the wire.
pub fn write_content(content: &Content, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(content.kind().uri().as_bytes());
    out.extend_from_slice(b"\",\"data\":");
    content.write_json(out);
    out.push(b'}');
}

fn read_content(json: &str) -> Result<Content, DecodeError> {
    let stored: StoredContent<'_> = serde_json::from_str(json)?;
    let kind = Kind::parse(stored.r#type).ok_or(DecodeError::Form("an unknown type"))?;
    Ok(Content::create_logged(kind, stored.data.get())?)
}

/// The newest entries of the log, without a gap. Older entries are read from the store.
///
/// ```
/// use copydesk::log::{Revision, Tail};
///
/// // The log up to revision 7 is not in memory: a client that has revision 6 must read the store.
/// let tail = Tail::new(Revision(7));
/// assert_eq!(tail.head(), Revision(7));
/// assert!(tail.since(Revision(7)).is_some());
/// assert!(tail.since(Revision(6)).is_none());
/// ```
#[derive(Debug, Clone)]
pub struct Tail {
    /// The revision that the first entry applies to; with no entries, the head.
    start: Revision,
    entries: VecDeque<Arc<Entry>>,
    /// The entries' sizes, summed.
    bytes: usize,
}

impl Tail {
    /// A tail that ends at `head` and holds nothing yet.
    #[must_use]
    pub fn new(head: Revision) -> Self {
        Self {
            start: head,
            entries: VecDeque::new(),
            bytes: 0,
        }
    }

    /// The revision that the newest entry leads to.
    #[must_use]
    pub fn head(&self) -> Revision {
        Revision(self.start.0 + self.entries.len() as u64)
    }

    /// The newest entry, if any is held.
    #[must_use]
    pub fn newest(&self) -> Option<&Arc<Entry>> {
        self.entries.back()
    }

    /// The oldest revision after which all entries are held.
    #[must_use]
    pub fn start(&self) -> Revision {
        self.start
    }

    /// The number of entries held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true if no entries are held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds the next entry.
    ///
    /// # Panics
    /// If it is not the next entry, which the caller must check.
    pub fn push(&mut self, entry: Arc<Entry>) {
        assert_eq!(entry.revision, self.head().next(), "the log has no gaps");
        self.bytes += entry.size();
        self.entries.push_back(entry);
    }

    /// The entries after `revision`, oldest first; `None` if some of them are not held (any more or yet).
    #[must_use]
    pub fn since(
        &self,
        revision: Revision,
    ) -> Option<impl ExactSizeIterator<Item = &Arc<Entry>> + Clone> {
        let skip = revision.0.checked_sub(self.start.0)?;
        let skip = usize::try_from(skip)
            .ok()
            .filter(|skip| *skip <= self.entries.len())?;
        Some(self.entries.range(skip..))
    }

    /// Drops the oldest entries until at most so many entries and bytes are held. The newest is always kept. Passes each dropped
    /// entry to `forgotten`.
    pub fn trim(
        &mut self,
        entries_max: usize,
        bytes_max: usize,
        mut forgotten: impl FnMut(&Entry),
    ) {
        while self.entries.len() > entries_max || (self.bytes > bytes_max && self.entries.len() > 1)
        {
            let Some(entry) = self.entries.pop_front() else {
                return;
            };
            self.bytes -= entry.size();
            self.start = entry.revision;
            forgotten(&entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(revision: u64, change: Change) -> Entry {
        let client = ClientId::parse("ann").unwrap();
        let id = SubmitId {
            author: UserId::anyone(),
            client,
            seq: revision,
        };
        Entry {
            revision: Revision(revision),
            epoch: Epoch(1),
            id,
            at_ms: 7,
            change,
        }
    }

    fn text(data: &str) -> Content {
        Content::create(
            Kind::TextUnicode,
            Some(&serde_json::to_string(data).unwrap()),
        )
        .unwrap()
    }

    fn op(json: &str) -> Change {
        Change::Edit(Op::parse(Kind::TextUnicode, json).unwrap())
    }

    #[test]
    fn snapshot_is_the_fold_of_its_entries() {
        let mut snapshot = Snapshot::default();
        snapshot
            .fold(&entry(1, Change::Create(text("a😀b"))))
            .unwrap();
        snapshot.fold(&entry(2, op(r#"[2,"x"]"#))).unwrap();
        assert_eq!(snapshot.content, Some(text("a😀xb")));
        assert!(matches!(
            snapshot.fold(&entry(4, Change::Nothing)),
            Err(FoldError::Gap { .. })
        ));
        assert!(matches!(
            snapshot.fold(&entry(3, op(r#"[9,"x"]"#))),
            Err(FoldError::Unfit(..))
        ));
        assert_eq!(snapshot.revision, Revision(2));
        let again = Snapshot::decode(Revision(2), &snapshot.encode()).unwrap();
        assert_eq!(again, snapshot);
        snapshot.fold(&entry(3, Change::Delete)).unwrap();
        assert_eq!(snapshot.content, None);
        assert_eq!(
            Snapshot::decode(Revision(3), &snapshot.encode()).unwrap(),
            snapshot
        );
        assert!(matches!(
            snapshot.fold(&entry(4, op("[]"))),
            Err(FoldError::Missing(_))
        ));
    }

    #[test]
    fn changes_survive_the_store() {
        for change in [
            Change::Create(text("\u{0}\"\n")),
            Change::Create(Content::create(Kind::RichText, Some(r#"[{"insert":"a\n"}]"#)).unwrap()),
            op(r#"[1,"\n",{"d":2}]"#),
            Change::Delete,
            Change::Nothing,
        ] {
            assert_eq!(Change::decode(&change.encode()).unwrap(), change);
        }
        for bad in ["", "X", "T", "T{", "C{}", "C{\"type\":\"x\",\"data\":1}"] {
            assert!(Change::decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn tail_has_no_gap_and_forgets_the_oldest() {
        let mut tail = Tail::new(Revision(3));
        assert_eq!(tail.since(Revision(3)).map(|it| it.len()), Some(0));
        for revision in 4..=9 {
            tail.push(Arc::new(entry(revision, Change::Nothing)));
        }
        assert!(tail.since(Revision(2)).is_none());
        assert!(tail.since(Revision(10)).is_none());
        let mut gone = Vec::new();
        tail.trim(2, usize::MAX, |entry| gone.push(entry.revision.0));
        assert_eq!(gone, [4, 5, 6, 7]);
        assert_eq!(
            (tail.start(), tail.head(), tail.len()),
            (Revision(7), Revision(9), 2)
        );
        let since: Vec<u64> = tail
            .since(Revision(8))
            .unwrap()
            .map(|entry| entry.revision.0)
            .collect();
        assert_eq!(since, [9]);
        tail.trim(9, 0, |_| {});
        assert_eq!(tail.len(), 1);
    }
}
