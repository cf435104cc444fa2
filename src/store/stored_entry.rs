//! The rows of the log: how entries are encoded for an append and decoded on a load. Both databases use these columns.

use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::Batch;
use crate::id::{ClientId, DocId, UserId};
use crate::log::{Change, Entry, Epoch, Fence, Revision, SubmitId};

/// About how many bytes a row needs besides its payload.
const ROW_BYTES: usize = 200;

/// One document's part of an append. It is encoded by the caller of the append, not by the task that writes.
#[derive(Debug)]
pub(super) struct EncodedBatch {
    pub(super) doc: DocId,
    pub(super) fence: Fence,
    pub(super) rows: Vec<EncodedEntry>,
    /// `None` if no entry creates or deletes the document.
    pub(super) liveness: Option<Liveness>,
}

/// An entry with the two columns that are derived from it.
#[derive(Debug)]
pub(super) struct EncodedEntry {
    pub(super) entry: Arc<Entry>,
    pub(super) payload: Vec<u8>,
    pub(super) checksum: u64,
}

/// What a batch changes in the document's row in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Liveness {
    /// Whether the document exists after the batch.
    pub(super) live: bool,
    /// The time of the batch's last create or delete, in milliseconds since 1970.
    pub(super) at_ms: u64,
    /// The time of the batch's first create; `None` if it has none.
    pub(super) created_at_ms: Option<u64>,
}

impl EncodedBatch {
    pub(super) fn new(batch: Batch) -> Self {
        let liveness = Liveness::of(&batch.entries);
        let rows = batch.entries.into_iter().map(|entry| {
            let payload = entry.change.encode();
            EncodedEntry {
                checksum: row_checksum(&entry, &payload),
                payload,
                entry,
            }
        });
        Self {
            rows: rows.collect(),
            doc: batch.doc,
            fence: batch.fence,
            liveness,
        }
    }

    /// A batch without entries, under a fence that no claim returns: it writes nothing.
    pub(super) fn empty(doc: DocId) -> Self {
        Self {
            doc,
            fence: Fence {
                epoch: Epoch(0),
                token: 0,
            },
            rows: Vec::new(),
            liveness: None,
        }
    }

    /// About how many bytes it writes.
    pub(super) fn bytes(&self) -> usize {
        let rows = self.rows.iter();
        rows.map(|row| row.payload.len() + ROW_BYTES).sum()
    }

    /// The revision of the first entry; zero if there is none.
    pub(super) fn first(&self) -> Revision {
        let first = self.rows.first();
        first.map_or(Revision::ZERO, |row| row.entry.revision)
    }

    /// The revision of the last entry; zero if there is none.
    pub(super) fn last(&self) -> Revision {
        let last = self.rows.last();
        last.map_or(Revision::ZERO, |row| row.entry.revision)
    }

    /// Returns true if there are entries and each follows the one before it.
    pub(super) fn is_contiguous(&self) -> bool {
        !self.rows.is_empty() && self.follows(self.first().before())
    }

    /// Returns true if the entries continue a log that ends at `head`, without a gap.
    pub(super) fn follows(&self, head: Revision) -> bool {
        let revisions = self.rows.iter().map(|row| row.entry.revision.0);
        revisions.eq((head.0 + 1..=u64::MAX).take(self.rows.len()))
    }
}

impl Liveness {
    fn of(entries: &[Arc<Entry>]) -> Option<Self> {
        let mut liveness: Option<Self> = None;
        for entry in entries {
            let live = match entry.change {
                Change::Create(_) => true,
                Change::Delete => false,
                Change::Edit(_) | Change::Nothing => continue,
            };
            let created_before = liveness.and_then(|it| it.created_at_ms);
            liveness = Some(Self {
                live,
                at_ms: entry.at_ms,
                created_at_ms: created_before.or(live.then_some(entry.at_ms)),
            });
        }
        liveness
    }
}

/// The columns of a row of the log, as they were read.
pub(super) struct StoredEntry<'a> {
    pub(super) revision: u64,
    pub(super) epoch: u64,
    pub(super) author: &'a str,
    pub(super) client: &'a str,
    pub(super) seq: u64,
    pub(super) at_ms: u64,
    pub(super) payload: &'a [u8],
    pub(super) checksum: u64,
}

impl StoredEntry<'_> {
    /// Decodes the entry and verifies its checksum.
    ///
    /// # Errors
    /// The reason why the row is damaged, for a log line.
    pub(super) fn decode(&self) -> Result<Entry, String> {
        let client = ClientId::parse(self.client).map_err(|_| "its client id is not valid")?;
        let entry = Entry {
            revision: Revision(self.revision),
            epoch: Epoch(self.epoch),
            id: SubmitId {
                author: UserId::new(self.author),
                client,
                seq: self.seq,
            },
            at_ms: self.at_ms,
            change: Change::decode(self.payload).map_err(|error| error.to_string())?,
        };
        if row_checksum(&entry, self.payload) != self.checksum {
            return Err("its checksum does not match".to_owned());
        }
        Ok(entry)
    }
}

/// The checksum of an entry's row: XXH3 of all columns except the document's number, which is assigned by the database.
fn row_checksum(entry: &Entry, payload: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    for number in [entry.revision.0, entry.epoch.0, entry.id.seq, entry.at_ms] {
        hash.update(&number.to_le_bytes());
    }
    for text in [entry.id.author.as_str(), entry.id.client.as_str()] {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hash.update(payload);
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ot::{Content, Kind};

    fn entry(revision: u64, change: Change) -> Arc<Entry> {
        Arc::new(Entry {
            revision: Revision(revision),
            epoch: Epoch(2),
            id: SubmitId {
                author: UserId::new("ann"),
                client: ClientId::parse("c1").unwrap(),
                seq: revision,
            },
            at_ms: 100 + revision,
            change,
        })
    }

    fn create() -> Change {
        Change::Create(Content::create(Kind::TextUnicode, None).unwrap())
    }

    fn batch(entries: Vec<Arc<Entry>>) -> EncodedBatch {
        EncodedBatch::new(Batch {
            doc: DocId::parse("docs", "a").unwrap(),
            fence: Fence {
                epoch: Epoch(2),
                token: 3,
            },
            entries,
        })
    }

    #[test]
    fn encoded_rows_are_decoded_to_their_entries() {
        let batch = batch(vec![entry(1, create()), entry(2, Change::Delete)]);
        for row in &batch.rows {
            let stored = StoredEntry {
                revision: row.entry.revision.0,
                epoch: row.entry.epoch.0,
                author: row.entry.id.author.as_str(),
                client: row.entry.id.client.as_str(),
                seq: row.entry.id.seq,
                at_ms: row.entry.at_ms,
                payload: &row.payload,
                checksum: row.checksum,
            };
            assert_eq!(stored.decode().unwrap(), *row.entry);
            let flipped = StoredEntry {
                seq: stored.seq ^ 1,
                ..stored
            };
            assert!(flipped.decode().unwrap_err().contains("checksum"));
        }
    }

    #[test]
    fn batch_follows_only_the_revision_before_its_first() {
        for (revisions, contiguous) in [
            (&[][..], false),
            (&[5], true),
            (&[5, 6, 7], true),
            (&[5, 7], false),
            (&[5, 5], false),
        ] {
            let entries = revisions.iter().map(|at| entry(*at, Change::Nothing));
            let batch = batch(entries.collect());
            assert_eq!(batch.is_contiguous(), contiguous, "{revisions:?}");
            assert_eq!(
                batch.follows(Revision(4)),
                contiguous || revisions.is_empty()
            );
            assert_eq!(batch.follows(Revision(3)), revisions.is_empty());
        }
    }

    #[test]
    fn liveness_has_the_last_change_and_the_first_creation() {
        let liveness = |changes: Vec<Change>| {
            let entries = (1..).zip(changes).map(|(at, change)| entry(at, change));
            batch(entries.collect()).liveness
        };
        let expected = |live, at_ms, created_at_ms| {
            Some(Liveness {
                live,
                at_ms,
                created_at_ms,
            })
        };
        assert_eq!(liveness(vec![Change::Nothing]), None);
        assert_eq!(liveness(vec![Change::Delete]), expected(false, 101, None));
        let again = vec![create(), Change::Delete, create(), Change::Nothing];
        assert_eq!(liveness(again), expected(true, 103, Some(101)));
    }
}
