//! The rows of a Postgres database, for verification.

use futures_util::FutureExt;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use super::connect::PostgresConnector;
use super::error::{PostgresError, in_words};
use super::load::entry;
use crate::id::DocId;
use crate::log::{Epoch, Revision};
use crate::store::verify::{
    DOCUMENTS_PAGE, DocumentRow, EntryRow, ListEntry, Rows, RowsFuture, SnapshotRow,
};
use crate::store::{PAGE_BYTES, PAGE_ENTRIES, StoreError};

const DOCUMENTS: &str = "
SELECT documents.number, documents.collection, documents.id, heads.doc IS NOT NULL
FROM documents
LEFT JOIN heads ON heads.doc = documents.number
WHERE documents.number > $1
ORDER BY documents.number
LIMIT $2";

const DOCUMENT: &str = "
SELECT documents.number, documents.collection, documents.id, heads.doc IS NOT NULL
FROM documents
LEFT JOIN heads ON heads.doc = documents.number
WHERE documents.collection = $1 AND documents.id = $2";

/// Steps from one number to the next by the indexes, so the time depends on the number of documents and not of entries.
const ORPHANS: &str = "
WITH RECURSIVE found (doc) AS (
  SELECT least(
    (SELECT min(entries.doc) FROM entries WHERE entries.doc > $1),
    (SELECT min(snapshots.doc) FROM snapshots WHERE snapshots.doc > $1))
  UNION ALL
  SELECT least(
    (SELECT min(entries.doc) FROM entries WHERE entries.doc > found.doc),
    (SELECT min(snapshots.doc) FROM snapshots WHERE snapshots.doc > found.doc))
  FROM found
  WHERE found.doc <= $2
)
SELECT found.doc
FROM found
WHERE found.doc <= $2 AND NOT EXISTS (SELECT 1 FROM documents WHERE documents.number = found.doc)";

const LIST_ENTRY: &str = "
SELECT documents.live, documents.updated_at_ms, heads.epoch
FROM documents
LEFT JOIN heads ON heads.doc = documents.number
WHERE documents.number = $1";

/// One page of a log: at most `$3` entries, and about `$4` bytes.
const ENTRIES: &str = "
SELECT revision, epoch, author, client, seq, at_ms, payload, checksum
FROM (
  SELECT entries.*, coalesce(sum(octet_length(entries.payload)) OVER (
           ORDER BY entries.revision ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS bytes_before
  FROM entries
  WHERE entries.doc = $1 AND entries.revision > $2
  ORDER BY entries.revision
  LIMIT $3
) AS sized
WHERE bytes_before < $4
ORDER BY revision";

const SNAPSHOT: &str = "
SELECT revision, data
FROM snapshots
WHERE doc = $1 AND revision > $2
ORDER BY revision
LIMIT 1";

/// A database for verification, over one connection of its own.
pub(super) struct PostgresRows(Client);

impl PostgresRows {
    pub(super) async fn connect(connector: &PostgresConnector) -> Result<Self, StoreError> {
        let connected = connector.connect().await;
        let (client, _) = connected
            .map_err(|error| PostgresError::Away(in_words(&error)).into_store_error("verify"))?;
        Ok(Self(client))
    }

    async fn query(
        &self,
        statement: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let rows = self.0.query(statement, values).await;
        rows.map_err(|error| PostgresError::Sql(error).into_store_error("verify"))
    }
}

fn document(row: &Row) -> DocumentRow {
    DocumentRow {
        number: row.get(0),
        doc: DocId::parse(row.get(1), row.get(2)).map_err(|error| error.to_string()),
        has_fence: row.get(3),
    }
}

impl Rows for PostgresRows {
    /// Postgres verifies its pages when it reads them, if the cluster was created with checksums.
    fn check_files(&mut self) -> RowsFuture<'_, Vec<String>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn documents(&mut self, after: i64) -> RowsFuture<'_, Vec<DocumentRow>> {
        async move {
            let limit = DOCUMENTS_PAGE as i64;
            let rows = self.query(DOCUMENTS, &[&after, &limit]).await?;
            Ok(rows.iter().map(document).collect())
        }
        .boxed()
    }

    fn find<'a>(&'a mut self, doc: &'a DocId) -> RowsFuture<'a, Option<DocumentRow>> {
        async move {
            let names = (doc.collection.as_str(), doc.id.as_str());
            let rows = self.query(DOCUMENT, &[&names.0, &names.1]).await?;
            Ok(rows.first().map(document))
        }
        .boxed()
    }

    fn orphans(&mut self, after: i64, until: i64) -> RowsFuture<'_, Vec<i64>> {
        async move {
            let rows = self.query(ORPHANS, &[&after, &until]).await?;
            Ok(rows.iter().map(|row| row.get(0)).collect())
        }
        .boxed()
    }

    fn list_entry(&mut self, document: i64) -> RowsFuture<'_, Option<ListEntry>> {
        async move {
            let rows = self.query(LIST_ENTRY, &[&document]).await?;
            Ok(rows.first().map(|row| ListEntry {
                live: row.get(0),
                updated_at_ms: row.get(1),
                epoch: row
                    .get::<_, Option<i64>>(2)
                    .map(|epoch| Epoch(epoch.cast_unsigned())),
            }))
        }
        .boxed()
    }

    fn entries(&mut self, document: i64, after: Revision) -> RowsFuture<'_, Vec<EntryRow>> {
        async move {
            let (after, entries_max) = (after.0.cast_signed(), PAGE_ENTRIES as i64);
            let values: [&(dyn ToSql + Sync); 4] =
                [&document, &after, &entries_max, &(PAGE_BYTES as i64)];
            let rows = self.query(ENTRIES, &values).await?;
            let page = rows.iter().map(|row| EntryRow {
                revision: Revision(row.get::<_, i64>(0).cast_unsigned()),
                entry: entry(row),
            });
            Ok(page.collect())
        }
        .boxed()
    }

    fn snapshot(&mut self, document: i64, after: Revision) -> RowsFuture<'_, Option<SnapshotRow>> {
        async move {
            let after = after.0.cast_signed();
            let rows = self.query(SNAPSHOT, &[&document, &after]).await?;
            Ok(rows.first().map(|row| SnapshotRow {
                revision: Revision(row.get::<_, i64>(0).cast_unsigned()),
                packed: row.get(1),
            }))
        }
        .boxed()
    }
}
