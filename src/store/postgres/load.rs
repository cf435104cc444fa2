//! Loading documents, at their heads and at earlier revisions.
//!
//! A document is loaded by one statement, because a node that takes over thousands of documents needs a round trip for each.

use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio_postgres::Row;

use super::error::PostgresError;
use super::number_cache::NumberCache;
use super::open_documents::clamp;
use super::pool::{Pool, PooledConnection};
use crate::id::DocId;
use crate::log::{Entry, Revision, Snapshot};
use crate::outage::LineLimit;
use crate::store::damage::{HeadDamage, LogDamage, LogEnd, ReportedSnapshots};
use crate::store::revision_search::RevisionSearch;
use crate::store::snapshot_codec::unpack;
use crate::store::stored_entry::StoredEntry;
use crate::store::{LoadRange, Loaded, PAGE_BYTES, PAGE_ENTRIES};

/// Joins the last entry of a row of `documents`, for [`log_end`].
macro_rules! last_entry {
    () => {
        "LEFT JOIN LATERAL (
  SELECT entries.revision, entries.at_ms
  FROM entries
  WHERE entries.doc = documents.number
  ORDER BY entries.revision DESC
  LIMIT 1
) AS last ON true"
    };
}

/// The newest snapshot before `$4` that is at or before `$3`, or after the head; and the entries from there to `$3`, each
/// with the head. Only the row of the entry after the snapshot has the snapshot's data.
const LOAD: &str = concat!(
    "
SELECT later.revision, later.epoch, later.author, later.client, later.seq, later.at_ms, later.payload, later.checksum,
       documents.updated_at_ms, last.revision, last.at_ms, kept.revision,
       CASE WHEN later.revision IS NULL OR later.revision = kept.revision + 1 THEN kept.data END, documents.number
FROM documents
",
    last_entry!(),
    "
LEFT JOIN LATERAL (
  SELECT snapshots.revision, snapshots.data
  FROM snapshots
  WHERE snapshots.doc = documents.number AND snapshots.revision < $4
    AND (snapshots.revision <= $3 OR snapshots.revision > coalesce(last.revision, 0))
  ORDER BY snapshots.revision DESC
  LIMIT 1
) AS kept ON true
LEFT JOIN LATERAL (
  SELECT *
  FROM entries
  WHERE entries.doc = documents.number AND entries.revision > coalesce(kept.revision, 0) AND entries.revision <= $3
  ORDER BY entries.revision
) AS later ON true
WHERE documents.collection = $1 AND documents.id = $2
ORDER BY later.revision"
);

/// The number of a document, the columns of [`log_end`], the revision of its newest snapshot, and the newest revision of it in
/// the feed of changes, which is read completely.
const HIGHEST: &str = concat!(
    "
SELECT documents.number, documents.updated_at_ms, last.revision, last.at_ms, greatest(
  (SELECT max(snapshots.revision) FROM snapshots WHERE snapshots.doc = documents.number),
  (SELECT max(fed.head)
   FROM changes
   CROSS JOIN LATERAL unnest(changes.docs, changes.heads) AS fed (doc, head)
   WHERE fed.doc = documents.number))
FROM documents
",
    last_entry!(),
    "
WHERE documents.collection = $1 AND documents.id = $2"
);

/// The number of a document, and the columns of [`log_end`].
pub(super) const HEAD: &str = concat!(
    "
SELECT documents.number, documents.updated_at_ms, last.revision, last.at_ms
FROM documents
",
    last_entry!(),
    "
WHERE documents.collection = $1 AND documents.id = $2"
);

/// The head, and one page of the entries: until they have `$5` bytes. `octet_length` does not read the payloads.
const PAGE: &str = concat!(
    "
SELECT page.revision, page.epoch, page.author, page.client, page.seq, page.at_ms, page.payload, page.checksum,
       documents.updated_at_ms, last.revision, last.at_ms
FROM documents
",
    last_entry!(),
    "
LEFT JOIN LATERAL (
  SELECT *
  FROM (
    SELECT entries.*, coalesce(sum(octet_length(entries.payload)) OVER (
             ORDER BY entries.revision ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS bytes_before
    FROM entries
    WHERE entries.doc = documents.number AND entries.revision > $3
    ORDER BY entries.revision
    LIMIT $4
  ) AS sized
  WHERE sized.bytes_before < $5
) AS page ON true
WHERE documents.collection = $1 AND documents.id = $2
ORDER BY page.revision"
);

const AT_MS: &str = "SELECT at_ms FROM entries WHERE doc = $1 AND revision = $2";

/// Reads documents.
#[derive(Debug)]
pub(super) struct DocumentReader {
    /// The server of the appends.
    primary: Pool,
    /// A standby for earlier revisions, if there is one.
    replica: Option<Pool>,
    /// The documents that were in the database before.
    numbers: Arc<NumberCache>,
    /// The damaged snapshots that were logged.
    reported: ReportedSnapshots,
}

impl DocumentReader {
    pub(super) fn new(primary: Pool, replica: Option<Pool>, numbers: Arc<NumberCache>) -> Self {
        Self {
            primary,
            replica,
            numbers,
            reported: ReportedSnapshots::default(),
        }
    }

    /// Sets the gauges of the replica's pool to its current state.
    pub(super) fn sample_metrics(&self) {
        if let Some(replica) = &self.replica {
            replica.sample_metrics();
        }
    }

    pub(super) async fn load(
        &self,
        doc: &DocId,
        range: LoadRange,
    ) -> Result<Loaded, PostgresError> {
        let is_old = matches!(range, LoadRange::At(_) | LoadRange::AtTime(_));
        if let Some(replica) = self.replica.as_ref().filter(|_| is_old) {
            match self.load_from(replica, doc, range).await {
                // A range that ends at the head of the replica may continue on the primary.
                Ok((loaded, until)) if until < loaded.head => return Ok(loaded),
                Ok(_) => {}
                Err(error) => {
                    static LIMIT: LineLimit = LineLimit::new();
                    if let Some(left_out) = LIMIT.pass() {
                        tracing::warn!(%error, left_out, "the replica does not answer: reading from the primary");
                    }
                }
            }
        }
        let (loaded, _) = self.load_from(&self.primary, doc, range).await?;
        Ok(loaded)
    }

    /// Loads from one server. Returns the revision at which the range ends as well.
    async fn load_from(
        &self,
        pool: &Pool,
        doc: &DocId,
        range: LoadRange,
    ) -> Result<(Loaded, Revision), PostgresError> {
        let mut connection = pool.acquire().await?;
        let until = match range {
            LoadRange::Since(revision) => {
                let loaded = self.page(&mut connection, doc, revision).await?;
                let head = loaded.head;
                return Ok((loaded, head));
            }
            LoadRange::BeforeDamage => {
                let loaded = self.before_damage(&mut connection, doc).await?;
                let head = loaded.head;
                return Ok((loaded, head));
            }
            LoadRange::Head => Revision(u64::MAX),
            LoadRange::At(revision) => revision,
            LoadRange::AtTime(at_ms) => last_at(&mut connection, doc, at_ms).await?,
        };
        let loaded = self.load_at(&mut connection, doc, until).await?;
        let until = until.min(loaded.head);
        Ok((loaded, until))
    }

    /// The newest readable snapshot at or before a revision, and the entries from there to the revision.
    ///
    /// A snapshot after the head proves that the end of the log is missing.
    async fn load_at(
        &self,
        connection: &mut PooledConnection,
        doc: &DocId,
        until: Revision,
    ) -> Result<Loaded, PostgresError> {
        let (collection, id) = (doc.collection.as_str(), doc.id.as_str());
        let mut before = i64::MAX;
        loop {
            let rows = connection
                .query(LOAD, &[&collection, &id, &clamp(until), &before])
                .await?;
            let Some(first) = rows.first() else {
                return self.without_row(doc);
            };
            self.numbers.insert(doc, first.get(13));
            let end = log_end(first, 8);
            let head = end.head;
            let mut snapshot = Snapshot::default();
            if let Some(revision) = first.get(11) {
                match self.unpack(doc, revision, first.get(12)).await? {
                    Some(readable) => snapshot = readable,
                    None => {
                        before = revision;
                        continue;
                    }
                }
            }
            if snapshot.revision > head {
                return Err(LogDamage::before_snapshot(doc, snapshot.revision).into());
            }
            end.check(doc, until)?;
            let entries = read(doc.clone(), snapshot.revision.next(), rows).await?;
            let last = entries.last().map_or(snapshot.revision, |it| it.revision);
            if last < until.min(head) {
                return Err(LogDamage::missing(doc, last.next()).into());
            }
            return Ok(Loaded {
                snapshot,
                entries,
                head,
            });
        }
    }

    /// The entries after `revision`, as many as one page holds.
    async fn page(
        &self,
        connection: &mut PooledConnection,
        doc: &DocId,
        revision: Revision,
    ) -> Result<Loaded, PostgresError> {
        let (collection, id) = (doc.collection.as_str(), doc.id.as_str());
        let (entries_max, bytes_max) = (PAGE_ENTRIES as i64, PAGE_BYTES as i64);
        let after = clamp(revision);
        let rows = connection
            .query(PAGE, &[&collection, &id, &after, &entries_max, &bytes_max])
            .await?;
        let Some(first) = rows.first() else {
            return self.without_row(doc);
        };
        let end = log_end(first, 8);
        let head = end.head;
        if revision == head {
            end.check(doc, revision.next())?;
        }
        let next = revision.min(head).next();
        let entries = read(doc.clone(), next, rows).await?;
        if entries.is_empty() && revision < head {
            return Err(LogDamage::missing(doc, next).into());
        }
        Ok(Loaded {
            snapshot: Snapshot::default(),
            entries,
            head,
        })
    }

    /// The highest revision of a document that any row names; zero if it was never claimed.
    pub(super) async fn highest_revision(&self, doc: &DocId) -> Result<Revision, PostgresError> {
        let (collection, id) = (doc.collection.as_str(), doc.id.as_str());
        let rows = self.primary.query(HIGHEST, &[&collection, &id]).await?;
        let Some(row) = rows.first() else {
            return Ok(self.without_row(doc)?.head);
        };
        let elsewhere: Option<i64> = row.get(4);
        let elsewhere = Revision(elsewhere.unwrap_or(0).cast_unsigned());
        Ok(log_end(row, 1).highest_revision().max(elsewhere))
    }

    /// The load of a document without a row in `documents`: it was never claimed, unless it is known to this process.
    pub(super) fn without_row(&self, doc: &DocId) -> Result<Loaded, PostgresError> {
        match self.numbers.contains(doc) {
            true => Err(PostgresError::Head(
                doc.clone(),
                HeadDamage::MissingDocument,
            )),
            false => Ok(Loaded::default()),
        }
    }

    /// Unpacks a snapshot; `None` if it is damaged. Without `data` the next entry is missing, and `data` is returned in its row.
    pub(super) async fn unpack(
        &self,
        doc: &DocId,
        revision: i64,
        data: Option<Vec<u8>>,
    ) -> Result<Option<Snapshot>, PostgresError> {
        let revision = Revision(revision.cast_unsigned());
        let Some(data) = data else {
            return Err(LogDamage::missing(doc, revision.next()).into());
        };
        match run_by_size(data.len(), move || unpack(revision, &data)).await? {
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(damage) => {
                if self.reported.is_first(doc, revision) {
                    tracing::error!(%doc, %revision, %damage, "passed over a damaged snapshot");
                }
                Ok(None)
            }
        }
    }

    pub(super) fn close(&self) {
        if let Some(replica) = &self.replica {
            replica.close();
        }
    }
}

/// The revision of the last entry that was sequenced at or before `at_ms`.
async fn last_at(
    connection: &mut PooledConnection,
    doc: &DocId,
    at_ms: u64,
) -> Result<Revision, PostgresError> {
    let (collection, id) = (doc.collection.as_str(), doc.id.as_str());
    let rows = connection.query(HEAD, &[&collection, &id]).await?;
    let Some(row) = rows.first() else {
        return Ok(Revision::ZERO);
    };
    let number: i64 = row.get(0);
    let mut search = RevisionSearch::new(log_end(row, 1).head);
    while let Some(revision) = search.probe() {
        let rows = connection
            .query(AT_MS, &[&number, &clamp(revision)])
            .await?;
        let row = rows
            .first()
            .ok_or_else(|| LogDamage::missing(doc, revision))?;
        let time = row.get::<_, i64>(0).cast_unsigned();
        search.narrow(revision, time <= at_ms);
    }
    Ok(search.result())
}

/// The end of a log, from the columns `updated_at_ms`, at `column`, and the last entry's `revision` and `at_ms`.
pub(super) fn log_end(row: &Row, column: usize) -> LogEnd {
    let revision: Option<i64> = row.get(column + 1);
    let last = revision.map(|revision| (revision, row.get(column + 2)));
    LogEnd::new(row.get(column), last)
}

/// Reads entries from `first` on and checks that there is no gap. If there is no entry, there is one row of NULLs.
async fn read(
    doc: DocId,
    first: Revision,
    rows: Vec<Row>,
) -> Result<Vec<Arc<Entry>>, PostgresError> {
    let is_none = |row: &Row| row.get::<_, Option<i64>>(0).is_none();
    if rows.first().is_some_and(is_none) {
        return Ok(Vec::new());
    }
    let bytes = rows.iter().map(Row::raw_size_bytes).sum();
    run_by_size(bytes, move || {
        let mut entries = Vec::with_capacity(rows.len());
        for (row, expected) in rows.iter().zip((first.0..).map(Revision)) {
            let entry = entry(row).map_err(|why| LogDamage::new(&doc, expected, why))?;
            if entry.revision != expected {
                return Err(LogDamage::missing(&doc, expected).into());
            }
            entries.push(Arc::new(entry));
        }
        Ok(entries)
    })
    .await?
}

/// Reads an entry from the first eight columns of a row, or returns why the row is damaged.
pub(super) fn entry(row: &Row) -> Result<Entry, String> {
    let number = |column: usize| row.get::<_, i64>(column).cast_unsigned();
    let author = std::str::from_utf8(row.get(2)).map_err(|_| "its author is not UTF-8")?;
    let stored = StoredEntry {
        revision: number(0),
        epoch: number(1),
        author,
        client: row.get(3),
        seq: number(4),
        at_ms: number(5),
        payload: row.get(6),
        checksum: number(7),
    };
    stored.decode()
}

/// Up to this size rows are decoded in place.
const IN_PLACE_BYTES: usize = 16 << 10;

/// Runs `work` on `bytes` bytes: in place if they are few, because handing it to another thread would take longer.
async fn run_by_size<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PostgresError> {
    if bytes <= IN_PLACE_BYTES {
        return Ok(work());
    }
    run_blocking(work).await
}

/// Runs CPU-bound work on a blocking thread.
pub(super) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PostgresError> {
    let done = spawn_blocking(work).await;
    done.map_err(|error| PostgresError::Other(error.to_string()))
}
