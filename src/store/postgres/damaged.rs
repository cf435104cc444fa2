//! Loading the readable part of a damaged document.
//!
//! A statement that reads a damaged page fails completely, so the rows before it are read by smaller and smaller statements.

use std::sync::Arc;

use super::error::PostgresError;
use super::load::{DocumentReader, HEAD, entry, log_end};
use super::pool::PooledConnection;
use crate::id::DocId;
use crate::log::{Entry, Revision, Snapshot};
use crate::store::Loaded;

const SNAPSHOTS: &str = "SELECT revision FROM snapshots WHERE doc = $1 ORDER BY revision DESC";

const SNAPSHOT: &str = "SELECT data FROM snapshots WHERE doc = $1 AND revision = $2";

/// As [`HEAD`], if the page of the last entry is damaged: its revision is in the index as well.
const HEAD_BY_INDEX: &str = "
SELECT documents.number, 0::bigint, (
  SELECT entries.revision FROM entries WHERE entries.doc = documents.number ORDER BY entries.revision DESC LIMIT 1),
  0::bigint
FROM documents
WHERE documents.collection = $1 AND documents.id = $2";

const ENTRIES: &str = "
SELECT revision, epoch, author, client, seq, at_ms, payload, checksum
FROM entries
WHERE doc = $1 AND revision > $2 AND revision <= $2 + $3
ORDER BY revision";

/// The largest number of entries that one statement reads. It is halved after each statement that read a damaged page.
const ENTRIES_PAGE: u64 = 1_024;

impl DocumentReader {
    /// The newest readable snapshot, and the entries after it up to the first that is missing or damaged.
    pub(super) async fn before_damage(
        &self,
        connection: &mut PooledConnection,
        doc: &DocId,
    ) -> Result<Loaded, PostgresError> {
        let names = (doc.collection.as_str(), doc.id.as_str());
        let rows = match connection.query(HEAD, &[&names.0, &names.1]).await {
            Err(error) if error.is_corruption() => {
                connection
                    .query(HEAD_BY_INDEX, &[&names.0, &names.1])
                    .await?
            }
            rows => rows?,
        };
        let Some(row) = rows.first() else {
            return self.without_row(doc);
        };
        let number: i64 = row.get(0);
        let end = log_end(row, 1);
        let snapshot = self.newest_snapshot(connection, doc, number).await?;
        let entries =
            entries_before_damage(connection, number, snapshot.revision, end.head).await?;
        Ok(Loaded {
            head: end.head_before_damage(snapshot.revision),
            snapshot,
            entries,
        })
    }

    /// The newest readable snapshot, also one after the head; the empty document if there is none.
    async fn newest_snapshot(
        &self,
        connection: &mut PooledConnection,
        doc: &DocId,
        number: i64,
    ) -> Result<Snapshot, PostgresError> {
        let rows = match connection.query(SNAPSHOTS, &[&number]).await {
            Err(error) if error.is_corruption() => Vec::new(),
            rows => rows?,
        };
        for row in rows {
            let revision: i64 = row.get(0);
            let data = match connection.query(SNAPSHOT, &[&number, &revision]).await {
                Err(error) if error.is_corruption() => continue,
                rows => rows?,
            };
            let data = data.first().map(|row| row.get(0));
            if let Some(data) = data
                && let Some(snapshot) = self.unpack(doc, revision, Some(data)).await?
            {
                return Ok(snapshot);
            }
        }
        Ok(Snapshot::default())
    }
}

async fn entries_before_damage(
    connection: &mut PooledConnection,
    number: i64,
    after: Revision,
    head: Revision,
) -> Result<Vec<Arc<Entry>>, PostgresError> {
    let (mut at, mut page) = (after, ENTRIES_PAGE);
    let mut entries = Vec::new();
    while at < head {
        let (since, limit) = (at.0.cast_signed(), page.cast_signed());
        let rows = match connection.query(ENTRIES, &[&number, &since, &limit]).await {
            Err(error) if error.is_corruption() && page == 1 => break,
            Err(error) if error.is_corruption() => {
                page /= 2;
                continue;
            }
            rows => rows?,
        };
        let before = at;
        for row in &rows {
            match entry(row) {
                Ok(entry) if entry.revision == at.next() => {
                    at = entry.revision;
                    entries.push(Arc::new(entry));
                }
                Ok(_) | Err(_) => return Ok(entries),
            }
        }
        if at == before {
            break;
        }
    }
    Ok(entries)
}
