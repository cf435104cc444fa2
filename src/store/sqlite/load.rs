//! What is read: documents, and the list of them. Each of these is called within one read transaction.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};
use thiserror::Error;

use super::write_connection::{head, number};
use crate::id::{ClientId, DocId, UserId};
use crate::log::{Change, Entry, Epoch, Revision, Snapshot, SubmitId};
use crate::store::snapshot_codec::{row_checksum, unpack};
use crate::store::store::last_at;
use crate::store::{
    DocumentLocation, ListPage, ListQuery, ListedDocument, LoadRange, Loaded, PAGE_BYTES,
    PAGE_ENTRIES, StoreError,
};
use crate::sync::lock;

/// Why something could not be read.
#[derive(Debug, Error)]
pub(super) enum SqliteError {
    /// SQLite says why.
    #[error("{0}")]
    Sql(#[from] rusqlite::Error),
    /// What is stored is not what was stored.
    #[error("{doc}: entry {entry}: {what}: the log is damaged")]
    Damage {
        doc: DocId,
        /// The first entry that cannot be read.
        entry: Revision,
        what: String,
    },
}

impl SqliteError {
    /// The error that the caller of `verb` gets.
    pub(super) fn into_store_error(self, verb: &'static str) -> StoreError {
        match self {
            Self::Damage { entry, .. } => StoreError::damaged(verb, Some(entry), self),
            Self::Sql(ref error) if is_corruption(error) => StoreError::damaged(verb, None, self),
            Self::Sql(_) => StoreError::new(verb, self),
        }
    }
}

/// Returns true if the pages of the database's file contradict each other.
fn is_corruption(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

type ReadResult<T> = Result<T, SqliteError>;

/// How many damaged snapshots are remembered. When there are more, all are forgotten and may be reported again.
const REPORTED_MAX: usize = 1_024;

/// The damaged snapshots that were reported: once each, not at every load.
#[derive(Debug, Default)]
pub(super) struct Reported(Mutex<HashSet<(DocId, Revision)>>);

impl Reported {
    fn is_first(&self, doc: &DocId, revision: Revision) -> bool {
        let mut reported = lock(&self.0);
        if reported.len() >= REPORTED_MAX {
            reported.clear();
        }
        reported.insert((doc.clone(), revision))
    }
}

/// Reads a document.
pub(super) fn load(
    db: &Connection,
    doc: &DocId,
    reach: LoadRange,
    reported: &Reported,
) -> ReadResult<Loaded> {
    let Some(number) = number(db, doc)? else {
        return Ok(Loaded::default());
    };
    let head = match head(db, number) {
        Err(error) if reach == LoadRange::BeforeDamage && is_corruption(&error) => HEAD_UNKNOWN,
        head => head?,
    };
    let log = StoredLog {
        db,
        doc,
        number,
        head,
    };
    let until = match reach {
        LoadRange::Since(revision) => return log.page(revision),
        LoadRange::Head => log.head,
        LoadRange::At(revision) => revision.min(log.head),
        LoadRange::AtTime(at_ms) => last_at(log.head, at_ms, |revision| log.at_ms(revision))?,
        LoadRange::BeforeDamage => return log.before_damage(reported),
    };
    let snapshot = log.snapshot(until, reported)?;
    if snapshot.revision > log.head {
        let why = "it is missing, and there is a snapshot of it";
        return Err(log.damage(snapshot.revision.0, why));
    }
    let entries = log.entries(snapshot.revision.next().0..=until.0, usize::MAX)?;
    Ok(Loaded {
        snapshot,
        entries,
        head: log.head,
    })
}

/// Stands for the head of a log whose last page cannot be read.
const HEAD_UNKNOWN: Revision = Revision(i64::MAX as u64);

/// One document's log in the database.
struct StoredLog<'a> {
    db: &'a Connection,
    doc: &'a DocId,
    number: i64,
    head: Revision,
}

impl StoredLog<'_> {
    /// The entries after `revision`, as many as one page holds.
    fn page(&self, revision: Revision) -> ReadResult<Loaded> {
        let first = revision.min(self.head).next().0;
        let last = self
            .head
            .0
            .min(first.saturating_add(PAGE_ENTRIES as u64 - 1));
        let entries = self.entries(first..=last, PAGE_BYTES)?;
        Ok(Loaded {
            snapshot: Snapshot::default(),
            entries,
            head: self.head,
        })
    }

    /// The newest state before the first entry that cannot be read.
    fn before_damage(&self, reported: &Reported) -> ReadResult<Loaded> {
        let snapshot = self.snapshot(self.head, reported)?;
        let mut entries = Vec::new();
        let range = snapshot.revision.next().0..=self.head.0;
        match self.read(range, usize::MAX, &mut entries) {
            Err(SqliteError::Sql(error)) if !is_corruption(&error) => Err(error.into()),
            Ok(()) | Err(_) => Ok(Loaded {
                snapshot,
                entries,
                head: self.head,
            }),
        }
    }

    /// These entries without a gap, or fewer once they have `bytes_max` bytes.
    fn entries(&self, range: RangeInclusive<u64>, bytes_max: usize) -> ReadResult<Vec<Arc<Entry>>> {
        let mut entries = Vec::new();
        self.read(range, bytes_max, &mut entries)?;
        Ok(entries)
    }

    /// As [`entries`](Self::entries), into `entries`: on an error it holds those before the fault.
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
        for expected in range {
            let row = rows
                .next()?
                .ok_or_else(|| self.damage(expected, "it is missing"))?;
            let entry = entry(row).map_err(|why| self.damage(expected, why))?;
            if entry.revision.0 != expected {
                return Err(self.damage(expected, "it is missing"));
            }
            entries.push(Arc::new(entry));
            bytes += row.get_ref(6)?.as_blob().map_or(0, <[u8]>::len);
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(())
    }

    /// The newest good snapshot at or before a revision; down to the empty document.
    ///
    /// A good one that is ahead of the log is returned as well: it proves that the log has lost its end.
    fn snapshot(&self, until: Revision, reported: &Reported) -> ReadResult<Snapshot> {
        match self.newest_snapshot(until, reported) {
            Err(SqliteError::Sql(error)) if is_corruption(&error) => {
                if reported.is_first(self.doc, Revision::ZERO) {
                    tracing::error!(doc = %self.doc, %error, "passed over damaged snapshots: the pages that hold them cannot be read");
                }
                Ok(Snapshot::default())
            }
            found => found,
        }
    }

    fn newest_snapshot(&self, until: Revision, reported: &Reported) -> ReadResult<Snapshot> {
        let mut statement = self.db.prepare_cached(
            "SELECT revision, data
             FROM snapshots
             WHERE doc = ?1
             ORDER BY revision DESC",
        )?;
        let mut rows = statement.query([self.number])?;
        while let Some(row) = rows.next()? {
            let revision = Revision(row.get::<_, i64>(0)?.cast_unsigned());
            if revision > until && revision <= self.head {
                continue;
            }
            match unpack(revision, row.get_ref(1)?.as_blob().unwrap_or_default()) {
                Ok(snapshot) => return Ok(snapshot),
                Err(damage) if reported.is_first(self.doc, revision) => {
                    tracing::error!(doc = %self.doc, %revision, %damage, "passed over a damaged snapshot");
                }
                Err(_) => {}
            }
        }
        Ok(Snapshot::default())
    }

    fn at_ms(&self, revision: Revision) -> ReadResult<u64> {
        let at_ms: Option<i64> = self
            .db
            .prepare_cached("SELECT at_ms FROM entries WHERE doc = ?1 AND revision = ?2")?
            .query_row([self.number, revision.0.cast_signed()], |row| row.get(0))
            .optional()?;
        at_ms
            .map(i64::cast_unsigned)
            .ok_or_else(|| self.damage(revision.0, "it is missing"))
    }

    fn damage(&self, revision: u64, what: impl std::fmt::Display) -> SqliteError {
        SqliteError::Damage {
            doc: self.doc.clone(),
            entry: Revision(revision),
            what: what.to_string(),
        }
    }
}

/// The columns that [`entry`] reads, of the document `?1`, from revision `?2` to `?3`.
pub(super) const ENTRIES: &str = "
SELECT revision, epoch, author, client, seq, at_ms, payload, checksum
FROM entries
WHERE doc = ?1 AND revision BETWEEN ?2 AND ?3
ORDER BY revision";

/// Reads an entry from a row of [`ENTRIES`], or says why it cannot be read.
pub(super) fn entry(row: &Row<'_>) -> Result<Entry, String> {
    let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let read = || -> rusqlite::Result<_> {
        let payload = row.get_ref(6)?.as_blob()?;
        let texts = (row.get_ref(2)?.as_str()?, row.get_ref(3)?.as_str()?);
        let numbers = [number(0)?, number(1)?, number(4)?, number(5)?, number(7)?];
        Ok((payload, texts, numbers))
    };
    let (payload, (author, client), [revision, epoch, seq, at_ms, checksum]) =
        read().map_err(|error| error.to_string())?;
    let client = ClientId::parse(client).map_err(|_| "its client is none")?;
    let entry = Entry {
        revision: Revision(revision),
        epoch: Epoch(epoch),
        id: SubmitId {
            author: UserId::new(author),
            client,
            seq,
        },
        at_ms,
        change: Change::decode(payload).map_err(|error| error.to_string())?,
    };
    if row_checksum(&entry, payload) != checksum {
        return Err("its checksum does not match".to_owned());
    }
    Ok(entry)
}

/// How many documents one page of a search looks at, in their order: some 10 ms.
const WALK_MAX: usize = 10_000;

/// A page of the documents that exist.
pub(super) fn list(db: &Connection, query: &ListQuery) -> ReadResult<ListPage> {
    walk(db, query, |_, _| Ok(true))
}

/// Looks through the documents of a collection, newest edit first, until the page is full or [`WALK_MAX`] were looked at.
/// `may_read` is asked about those whose title matches.
pub(super) fn walk(
    db: &Connection,
    query: &ListQuery,
    mut may_read: impl FnMut(&Connection, &str) -> rusqlite::Result<bool>,
) -> ReadResult<ListPage> {
    let mut statement = db.prepare_cached(
        "SELECT updated_at_ms, id, instr(title_folded, ?4) > 0
         FROM documents
         WHERE live = 1 AND collection = ?1 AND (updated_at_ms, id) < (?2, ?3)
         ORDER BY updated_at_ms DESC, id DESC",
    )?;
    let (at_ms, id) = first_place(query);
    let title = query.title.as_deref().unwrap_or_default().to_lowercase();
    let mut rows = statement.query(params![query.collection.as_str(), at_ms, id, title])?;
    let mut page = ListPage::default();
    if query.limit == 0 {
        return Ok(page);
    }
    for looked_at in 1.. {
        let Some(row) = rows.next()? else {
            return Ok(page);
        };
        let id: String = row.get(1)?;
        if row.get(2)? && may_read(db, &id)? {
            page.documents
                .extend(described(db, query.collection.as_str(), &id)?);
        }
        if page.documents.len() >= query.limit || looked_at >= WALK_MAX {
            page.next = Some((row.get::<_, i64>(0)?.cast_unsigned(), id));
            return Ok(page);
        }
    }
    Ok(page)
}

/// Where a page begins, as the statements compare it.
pub(super) fn first_place(query: &ListQuery) -> (i64, &str) {
    // No id is as large as this: the first page begins before it.
    match &query.after {
        Some((at_ms, id)) => (i64::try_from(*at_ms).unwrap_or(i64::MAX), id.as_str()),
        None => (i64::MAX, "\u{10ffff}"),
    }
}

/// What the list says of one document.
pub(super) fn describe(db: &Connection, doc: &DocId) -> ReadResult<Option<ListedDocument>> {
    described(db, doc.collection.as_str(), doc.id.as_str())
}

fn described(db: &Connection, collection: &str, id: &str) -> ReadResult<Option<ListedDocument>> {
    let mut statement = db.prepare_cached(
        "SELECT collection, id, title, created_at_ms, updated_at_ms,
           (SELECT coalesce(max(revision), 0) FROM entries WHERE doc = number)
         FROM documents
         WHERE live = 1 AND collection = ?1 AND id = ?2",
    )?;
    let mut rows = statement.query([collection, id])?;
    rows.next()?.map(listed).transpose()
}

pub(super) fn listed(row: &Row<'_>) -> ReadResult<ListedDocument> {
    let (collection, id) = (row.get_ref(0)?, row.get_ref(1)?);
    let text = |value: rusqlite::types::ValueRef<'_>| value.as_str().map(str::to_owned);
    let (collection, id) = (
        text(collection).map_err(rusqlite::Error::from)?,
        text(id).map_err(rusqlite::Error::from)?,
    );
    let doc = DocId::parse(&collection, &id).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(error))
    })?;
    Ok(ListedDocument {
        doc,
        title: row.get(2)?,
        created_at_ms: row.get::<_, Option<i64>>(3)?.unwrap_or(0).cast_unsigned(),
        updated_at_ms: row.get::<_, i64>(4)?.cast_unsigned(),
        revision: Revision(row.get::<_, i64>(5)?.cast_unsigned()),
    })
}

/// Which of these documents have been claimed by others.
pub(super) fn lost(db: &Connection, owned: &[(DocId, Epoch)]) -> ReadResult<Vec<DocId>> {
    let mut statement = db.prepare_cached(
        "SELECT 1 FROM documents WHERE collection = ?1 AND id = ?2 AND epoch = ?3",
    )?;
    let mut lost = Vec::new();
    for (doc, epoch) in owned {
        let names = params![
            doc.collection.as_str(),
            doc.id.as_str(),
            epoch.0.cast_signed()
        ];
        if !statement.exists(names)? {
            lost.push(doc.clone());
        }
    }
    Ok(lost)
}

/// Which of `followed` have a newer head, and which.
pub(super) fn newer(
    db: &Connection,
    followed: &[(DocId, Revision)],
) -> ReadResult<Vec<(DocId, Revision)>> {
    let mut newer = Vec::new();
    for (doc, known) in followed {
        let Some(number) = number(db, doc)? else {
            continue;
        };
        let head = head(db, number)?;
        if head > *known {
            newer.push((doc.clone(), head));
        }
    }
    Ok(newer)
}

/// Where a document is. Who owns it, the folder's lock says.
pub(super) fn locate(db: &Connection, doc: &DocId) -> ReadResult<Option<DocumentLocation>> {
    let mut statement =
        db.prepare_cached("SELECT number, epoch FROM documents WHERE collection = ?1 AND id = ?2")?;
    let row = statement
        .query_row([doc.collection.as_str(), doc.id.as_str()], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })
        .optional()?;
    let Some((number, epoch)) = row else {
        return Ok(None);
    };
    Ok(Some(DocumentLocation {
        owner: None,
        owner_name: None,
        owner_lives: false,
        epoch: Epoch(epoch.cast_unsigned()),
        head: head(db, number)?,
    }))
}
