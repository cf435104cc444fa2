//! Documents, as they are and as they were.
//!
//! A document is loaded by one statement: where a node takes over thousands, each way to the server and back counts.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use tokio::task::spawn_blocking;
use tokio_postgres::Row;

use super::error::PostgresError;
use super::heartbeat::clamp;
use super::pool::{Pool, PooledConnection};
use crate::id::{ClientId, DocId, UserId};
use crate::log::{Change, Entry, Epoch, Revision, Snapshot, SubmitId};
use crate::outage::LineLimit;
use crate::store::snapshot_codec::{row_checksum, unpack};
use crate::store::store::RevisionSearch;
use crate::store::{LoadRange, Loaded, PAGE_BYTES, PAGE_ENTRIES};
use crate::sync::lock;

/// The newest snapshot before `$4` that is at or before `$3`, or ahead of the log; and the entries from there to `$3`, each
/// with the log's length. The snapshot's data is in the first row alone.
const LOAD: &str = "
SELECT later.revision, later.epoch, later.author, later.client, later.seq, later.at_ms, later.payload, later.checksum,
       head.revision, kept.revision,
       CASE WHEN later.revision IS NULL OR later.revision = kept.revision + 1 THEN kept.data END
FROM documents
CROSS JOIN LATERAL (
  SELECT coalesce(
    (SELECT entries.revision FROM entries WHERE entries.doc = documents.number ORDER BY entries.revision DESC LIMIT 1),
    0) AS revision
) AS head
LEFT JOIN LATERAL (
  SELECT snapshots.revision, snapshots.data
  FROM snapshots
  WHERE snapshots.doc = documents.number AND snapshots.revision < $4
    AND (snapshots.revision <= $3 OR snapshots.revision > head.revision)
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
ORDER BY later.revision";

pub(super) const HEAD: &str = "
SELECT documents.number, coalesce(
  (SELECT entries.revision FROM entries WHERE entries.doc = documents.number ORDER BY entries.revision DESC LIMIT 1), 0)
FROM documents
WHERE documents.collection = $1 AND documents.id = $2";

/// The log's length, and one page of it: entries until they have `$5` bytes. How large an entry is, is known without
/// reading it.
const PAGE: &str = "
SELECT page.revision, page.epoch, page.author, page.client, page.seq, page.at_ms, page.payload, page.checksum,
       head.revision
FROM documents
CROSS JOIN LATERAL (
  SELECT coalesce(
    (SELECT entries.revision FROM entries WHERE entries.doc = documents.number ORDER BY entries.revision DESC LIMIT 1),
    0) AS revision
) AS head
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
ORDER BY page.revision";

const AT_MS: &str = "SELECT at_ms FROM entries WHERE doc = $1 AND revision = $2";

/// How many damaged snapshots are remembered. When there are more, all are forgotten and may be reported again.
const REPORTED_MAX: usize = 1_024;

/// Reads documents.
#[derive(Debug)]
pub(super) struct DocumentReader {
    /// Where appends go.
    primary: Pool,
    /// For what documents were, where there is one.
    replica: Option<Pool>,
    /// The damaged snapshots that were reported: once each, not at every load.
    reported: Mutex<HashSet<(DocId, Revision)>>,
}

impl DocumentReader {
    pub(super) fn new(primary: Pool, replica: Option<Pool>) -> Self {
        Self {
            primary,
            replica,
            reported: Mutex::default(),
        }
    }

    pub(super) async fn load(
        &self,
        doc: &DocId,
        reach: LoadRange,
    ) -> Result<Loaded, PostgresError> {
        let is_old = matches!(reach, LoadRange::At(_) | LoadRange::AtTime(_));
        if let Some(replica) = self.replica.as_ref().filter(|_| is_old) {
            match self.load_from(replica, doc, reach).await {
                // What reaches to the replica's end may go on beyond it.
                Ok((loaded, until)) if until < loaded.head => return Ok(loaded),
                Ok(_) => {}
                Err(error) => {
                    static LIMIT: LineLimit = LineLimit::new();
                    if let Some(left_out) = LIMIT.pass() {
                        tracing::warn!(%error, left_out, "the replica does not answer; the primary is asked");
                    }
                }
            }
        }
        let (loaded, _) = self.load_from(&self.primary, doc, reach).await?;
        Ok(loaded)
    }

    /// The document and the revision that it was wanted at.
    async fn load_from(
        &self,
        pool: &Pool,
        doc: &DocId,
        reach: LoadRange,
    ) -> Result<(Loaded, Revision), PostgresError> {
        let mut connection = pool.acquire().await?;
        let until = match reach {
            LoadRange::Since(revision) => {
                let loaded = page(&mut connection, doc, revision).await?;
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

    /// The newest good snapshot at or before a revision, down to the empty document, and the entries from there to the
    /// revision.
    ///
    /// A good one that is ahead of the log proves that the log has lost its end.
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
                return Ok(Loaded::default());
            };
            let head = Revision(first.get::<_, i64>(8).cast_unsigned());
            let mut snapshot = Snapshot::default();
            if let Some(kept) = first.get(9) {
                match self.kept(doc, kept, first.get(10)).await? {
                    Some(good) => snapshot = good,
                    None => {
                        before = kept;
                        continue;
                    }
                }
            }
            if snapshot.revision > head {
                let why = "it is missing, and there is a snapshot of it";
                return Err(damage(doc, snapshot.revision.0, why));
            }
            let entries = read(doc.clone(), snapshot.revision.next(), rows).await?;
            let last = entries.last().map_or(snapshot.revision, |it| it.revision);
            if last < until.min(head) {
                return Err(damage(doc, last.next().0, "it is missing"));
            }
            return Ok(Loaded {
                snapshot,
                entries,
                head,
            });
        }
    }

    /// A snapshot that was kept, unless it is damaged. Its data stands beside the next entry, and lacks with that.
    pub(super) async fn kept(
        &self,
        doc: &DocId,
        revision: i64,
        data: Option<Vec<u8>>,
    ) -> Result<Option<Snapshot>, PostgresError> {
        let revision = Revision(revision.cast_unsigned());
        let Some(data) = data else {
            return Err(damage(doc, revision.next().0, "it is missing"));
        };
        match run_by_size(data.len(), move || unpack(revision, &data)).await? {
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(damage) => {
                if self.is_first(doc, revision) {
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

    fn is_first(&self, doc: &DocId, revision: Revision) -> bool {
        let mut reported = lock(&self.reported);
        if reported.len() >= REPORTED_MAX {
            reported.clear();
        }
        reported.insert((doc.clone(), revision))
    }
}

fn damage(doc: &DocId, revision: u64, what: &str) -> PostgresError {
    PostgresError::Damage {
        doc: doc.clone(),
        entry: Revision(revision),
        what: what.to_owned(),
    }
}

/// The entries after `revision`, as many as one page holds.
async fn page(
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
        return Ok(Loaded::default());
    };
    let head = Revision(first.get::<_, i64>(8).cast_unsigned());
    let next = revision.min(head).next();
    let entries = read(doc.clone(), next, rows).await?;
    if entries.is_empty() && revision < head {
        return Err(damage(doc, next.0, "it is missing"));
    }
    Ok(Loaded {
        snapshot: Snapshot::default(),
        entries,
        head,
    })
}

/// The last revision whose entry was sequenced at `at_ms` or before.
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
    let mut search = RevisionSearch::new(Revision(row.get::<_, i64>(1).cast_unsigned()));
    while let Some(revision) = search.probe() {
        let rows = connection
            .query(AT_MS, &[&number, &clamp(revision)])
            .await?;
        let row = rows
            .first()
            .ok_or_else(|| damage(doc, revision.0, "it is missing"))?;
        let time = row.get::<_, i64>(0).cast_unsigned();
        search.narrow(revision, time <= at_ms);
    }
    Ok(search.result())
}

/// Reads entries that begin with `first`, without a gap. A row without one says that there are none.
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
        for (row, expected) in rows.iter().zip(first.0..) {
            let entry = entry(row).map_err(|why| damage(&doc, expected, &why))?;
            if entry.revision.0 != expected {
                return Err(damage(&doc, expected, "it is missing"));
            }
            entries.push(Arc::new(entry));
        }
        Ok(entries)
    })
    .await?
}

/// Reads an entry from the first eight columns of a row, or says why it cannot be read.
pub(super) fn entry(row: &Row) -> Result<Entry, String> {
    let number = |column: usize| row.get::<_, i64>(column).cast_unsigned();
    let payload: &[u8] = row.get(6);
    let author = std::str::from_utf8(row.get(2)).map_err(|_| "its author is no text")?;
    let client = ClientId::parse(row.get(3)).map_err(|_| "its client is none")?;
    let entry = Entry {
        revision: Revision(number(0)),
        epoch: Epoch(number(1)),
        id: SubmitId {
            author: UserId::new(author),
            client,
            seq: number(4),
        },
        at_ms: number(5),
        change: Change::decode(payload).map_err(|error| error.to_string())?,
    };
    if row_checksum(&entry, payload) != number(7) {
        return Err("its checksum does not match".to_owned());
    }
    Ok(entry)
}

/// What is read in place; more goes beside.
const IN_PLACE_BYTES: usize = 16 << 10;

/// Reads so many bytes: a few are read before another thread would have begun.
async fn run_by_size<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PostgresError> {
    if bytes <= IN_PLACE_BYTES {
        return Ok(work());
    }
    run_blocking(work).await
}

/// Runs what takes the processor for a while beside those threads that must not wait.
pub(super) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PostgresError> {
    let done = spawn_blocking(work).await;
    done.map_err(|error| PostgresError::Other(error.to_string()))
}
