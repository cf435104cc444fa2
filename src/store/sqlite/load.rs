//! Loading documents. Each function runs within one read transaction.

use std::ops::RangeInclusive;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::documents::{find, number};
use super::error::{SqliteError, is_corruption};
use crate::id::DocId;
use crate::log::{Entry, Revision, Snapshot};
use crate::store::damage::{LogDamage, LogEnd, ReportedSnapshots};
use crate::store::revision_search::last_at;
use crate::store::snapshot_codec::unpack;
use crate::store::stored_entry::StoredEntry;
use crate::store::{LoadRange, Loaded, PAGE_BYTES, PAGE_ENTRIES};

type ReadResult<T> = Result<T, SqliteError>;

/// Loads a document. A document that was never claimed is empty.
pub(super) fn load(
    db: &Connection,
    doc: &DocId,
    range: LoadRange,
    reported: &ReportedSnapshots,
) -> ReadResult<Loaded> {
    let (number, end) = match find(db, doc) {
        Err(error) if range == LoadRange::BeforeDamage && is_corruption(&error) => {
            let Some(number) = number(db, doc)? else {
                return Ok(Loaded::default());
            };
            (number, HEAD_UNKNOWN)
        }
        found => match found? {
            Some(found) => found,
            None => return Ok(Loaded::default()),
        },
    };
    let log = StoredLog {
        db,
        doc,
        number,
        end,
        reported,
    };
    match range {
        LoadRange::Since(revision) => log.page(revision),
        LoadRange::BeforeDamage => log.before_damage(),
        LoadRange::Head => log.at(Revision(u64::MAX)),
        LoadRange::At(revision) => log.at(revision),
        LoadRange::AtTime(at_ms) => {
            log.at(last_at(end.head, at_ms, |revision| log.at_ms(revision))?)
        }
    }
}

/// Stands for the end of a log if its last page cannot be read.
const HEAD_UNKNOWN: LogEnd = LogEnd {
    head: Revision(i64::MAX as u64),
    is_cut_off: false,
};

/// One document's log in the database.
struct StoredLog<'a> {
    db: &'a Connection,
    doc: &'a DocId,
    number: i64,
    end: LogEnd,
    reported: &'a ReportedSnapshots,
}

impl StoredLog<'_> {
    /// The newest readable snapshot at or before `revision`, and the entries from there to `revision`.
    fn at(&self, revision: Revision) -> ReadResult<Loaded> {
        let last = revision.min(self.end.head);
        let snapshot = self.snapshot(last)?;
        if snapshot.revision > self.end.head {
            return Err(LogDamage::before_snapshot(self.doc, snapshot.revision).into());
        }
        self.end.check(self.doc, revision)?;
        let entries = self.entries(snapshot.revision.next().0..=last.0, usize::MAX)?;
        Ok(Loaded {
            snapshot,
            entries,
            head: self.end.head,
        })
    }

    /// The entries after `revision`, as many as one page holds.
    fn page(&self, revision: Revision) -> ReadResult<Loaded> {
        if revision == self.end.head {
            self.end.check(self.doc, revision.next())?;
        }
        let first = revision.min(self.end.head).next().0;
        let page_end = first.saturating_add(PAGE_ENTRIES as u64 - 1);
        let entries = self.entries(first..=self.end.head.0.min(page_end), PAGE_BYTES)?;
        Ok(Loaded {
            snapshot: Snapshot::default(),
            entries,
            head: self.end.head,
        })
    }

    /// The newest state before the first entry that cannot be read.
    fn before_damage(&self) -> ReadResult<Loaded> {
        let snapshot = self.snapshot(self.end.head)?;
        let mut entries = Vec::new();
        let range = snapshot.revision.next().0..=self.end.head.0;
        let head = self.end.head_before_damage(snapshot.revision);
        match self.read(range, usize::MAX, &mut entries) {
            Err(SqliteError::Sql(error)) if !is_corruption(&error) => Err(error.into()),
            Ok(()) | Err(_) => Ok(Loaded {
                snapshot,
                entries,
                head,
            }),
        }
    }

    /// The entries of a range without a gap. It ends early once they have `bytes_max` bytes.
    fn entries(&self, range: RangeInclusive<u64>, bytes_max: usize) -> ReadResult<Vec<Arc<Entry>>> {
        let mut entries = Vec::new();
        self.read(range, bytes_max, &mut entries)?;
        Ok(entries)
    }

    /// As [`entries`](Self::entries), into `entries`: after an error these are the ones before the damage.
    fn read(
        &self,
        range: RangeInclusive<u64>,
        bytes_max: usize,
        entries: &mut Vec<Arc<Entry>>,
    ) -> ReadResult<()> {
        if range.is_empty() {
            return Ok(());
        }
        let mut statement = self.db.prepare_cached(ENTRIES)?;
        let (first, last) = (range.start().cast_signed(), range.end().cast_signed());
        let mut rows = statement.query(params![self.number, first, last])?;
        let mut bytes = 0;
        for expected in range.map(Revision) {
            let missing = || LogDamage::missing(self.doc, expected);
            let row = rows.next()?.ok_or_else(missing)?;
            let entry = entry(row).map_err(|why| LogDamage::new(self.doc, expected, why))?;
            if entry.revision != expected {
                return Err(missing().into());
            }
            entries.push(Arc::new(entry));
            bytes += row.get_ref(6)?.as_blob().map_or(0, <[u8]>::len);
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(())
    }

    /// The newest readable snapshot at or before a revision; the empty document if there is none.
    ///
    /// A snapshot after the head is returned as well: it proves that the end of the log is missing.
    fn snapshot(&self, until: Revision) -> ReadResult<Snapshot> {
        match self.newest_snapshot(until) {
            Err(SqliteError::Sql(error)) if is_corruption(&error) => {
                if self.reported.is_first(self.doc, Revision::ZERO) {
                    tracing::error!(doc = %self.doc, %error, "passed over damaged snapshots: the pages that hold them cannot be read");
                }
                Ok(Snapshot::default())
            }
            found => found,
        }
    }

    fn newest_snapshot(&self, until: Revision) -> ReadResult<Snapshot> {
        let mut statement = self.db.prepare_cached(
            "SELECT revision, data
             FROM snapshots
             WHERE doc = ?1
             ORDER BY revision DESC",
        )?;
        let mut rows = statement.query([self.number])?;
        while let Some(row) = rows.next()? {
            let revision = Revision(row.get::<_, i64>(0)?.cast_unsigned());
            if revision > until && revision <= self.end.head {
                continue;
            }
            match unpack(revision, row.get_ref(1)?.as_blob().unwrap_or_default()) {
                Ok(snapshot) => return Ok(snapshot),
                Err(damage) if self.reported.is_first(self.doc, revision) => {
                    tracing::error!(doc = %self.doc, %revision, %damage, "passed over a damaged snapshot");
                }
                Err(_) => {}
            }
        }
        Ok(Snapshot::default())
    }

    /// When an entry was sequenced, in milliseconds since 1970.
    fn at_ms(&self, revision: Revision) -> ReadResult<u64> {
        let at_ms: Option<i64> = self
            .db
            .prepare_cached("SELECT at_ms FROM entries WHERE doc = ?1 AND revision = ?2")?
            .query_row([self.number, revision.0.cast_signed()], |row| row.get(0))
            .optional()?;
        let at_ms = at_ms.ok_or_else(|| LogDamage::missing(self.doc, revision))?;
        Ok(at_ms.cast_unsigned())
    }
}

/// The columns that [`entry`] reads, of the document `?1`, from revision `?2` to `?3`.
pub(super) const ENTRIES: &str = "
SELECT revision, epoch, author, client, seq, at_ms, payload, checksum
FROM entries
WHERE doc = ?1 AND revision BETWEEN ?2 AND ?3
ORDER BY revision";

/// Reads an entry from a row of [`ENTRIES`], or returns why the row is damaged.
pub(super) fn entry(row: &Row<'_>) -> Result<Entry, String> {
    let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let columns = || -> rusqlite::Result<StoredEntry<'_>> {
        Ok(StoredEntry {
            revision: number(0)?,
            epoch: number(1)?,
            author: row.get_ref(2)?.as_str()?,
            client: row.get_ref(3)?.as_str()?,
            seq: number(4)?,
            at_ms: number(5)?,
            payload: row.get_ref(6)?.as_blob()?,
            checksum: number(7)?,
        })
    };
    columns().map_err(|error| error.to_string())?.decode()
}
