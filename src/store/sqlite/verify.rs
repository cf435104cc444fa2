//! The rows of a database file, for verification.

use futures_util::FutureExt;
use rusqlite::{Connection, OptionalExtension, params};

use super::load::{ENTRIES, entry};
use crate::id::DocId;
use crate::log::{Epoch, Revision};
use crate::store::verify::{
    DOCUMENTS_PAGE, DocumentRow, EntryRow, ListEntry, Rows, RowsFuture, SnapshotRow,
};
use crate::store::{PAGE_BYTES, PAGE_ENTRIES, StoreError};

/// How many faults of the file SQLite's own check reports before it ends.
const FILE_FAULTS_MAX: usize = 100;

/// A database that is only read. Its methods block on the disk.
pub(super) struct SqliteRows(pub(super) Connection);

impl SqliteRows {
    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> RowsFuture<'_, T>
    where
        T: Send + 'static,
    {
        let answer = read(&self.0).map_err(|error| StoreError::new("verify", error));
        async { answer }.boxed()
    }
}

fn document(row: &rusqlite::Row<'_>) -> rusqlite::Result<DocumentRow> {
    let names: rusqlite::Result<(String, String)> = row
        .get(1)
        .and_then(|collection| Ok((collection, row.get(2)?)));
    let doc = match names {
        Ok((collection, id)) => DocId::parse(&collection, &id).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    Ok(DocumentRow {
        number: row.get(0)?,
        doc,
        // In SQLite the fence is a part of the row.
        has_fence: true,
    })
}

impl Rows for SqliteRows {
    fn check_files(&mut self) -> RowsFuture<'_, Vec<String>> {
        self.read(|db| {
            let mut faults: Vec<String> = db
                .prepare(&format!("PRAGMA quick_check({FILE_FAULTS_MAX})"))?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            faults.retain(|fault| fault != "ok");
            Ok(faults)
        })
    }

    fn documents(&mut self, after: i64) -> RowsFuture<'_, Vec<DocumentRow>> {
        self.read(|db| {
            db.prepare_cached(
                "SELECT number, collection, id
                 FROM documents
                 WHERE number > ?1
                 ORDER BY number
                 LIMIT ?2",
            )?
            .query_map(params![after, DOCUMENTS_PAGE as i64], document)?
            .collect()
        })
    }

    fn find<'a>(&'a mut self, doc: &'a DocId) -> RowsFuture<'a, Option<DocumentRow>> {
        self.read(|db| {
            db.prepare_cached(
                "SELECT number, collection, id FROM documents WHERE collection = ?1 AND id = ?2",
            )?
            .query_row([doc.collection.as_str(), doc.id.as_str()], document)
            .optional()
        })
    }

    fn orphans(&mut self, after: i64, until: i64) -> RowsFuture<'_, Vec<i64>> {
        self.read(|db| {
            db.prepare_cached(
                "WITH RECURSIVE found (doc) AS (
                   SELECT min(doc) FROM (
                     SELECT min(doc) AS doc FROM entries WHERE doc > ?1
                     UNION ALL
                     SELECT min(doc) AS doc FROM snapshots WHERE doc > ?1)
                   UNION ALL
                   SELECT (
                     SELECT min(doc) FROM (
                       SELECT min(entries.doc) AS doc FROM entries WHERE entries.doc > found.doc
                       UNION ALL
                       SELECT min(snapshots.doc) AS doc FROM snapshots WHERE snapshots.doc > found.doc))
                   FROM found
                   WHERE found.doc <= ?2
                 )
                 SELECT doc
                 FROM found
                 WHERE doc <= ?2 AND NOT EXISTS (SELECT 1 FROM documents WHERE number = doc)",
            )?
            .query_map([after, until], |row| row.get(0))?
            .collect()
        })
    }

    fn list_entry(&mut self, document: i64) -> RowsFuture<'_, Option<ListEntry>> {
        self.read(|db| {
            db.prepare_cached("SELECT live, updated_at_ms, epoch FROM documents WHERE number = ?1")?
                .query_row([document], |row| {
                    Ok(ListEntry {
                        live: row.get::<_, i64>(0)? == 1,
                        updated_at_ms: row.get(1)?,
                        epoch: Some(Epoch(row.get::<_, i64>(2)?.cast_unsigned())),
                    })
                })
                .optional()
        })
    }

    fn entries(&mut self, document: i64, after: Revision) -> RowsFuture<'_, Vec<EntryRow>> {
        self.read(|db| {
            let mut statement = db.prepare_cached(ENTRIES)?;
            let mut rows = statement.query([document, after.next().0.cast_signed(), i64::MAX])?;
            let (mut page, mut bytes) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                page.push(EntryRow {
                    revision: Revision(row.get::<_, i64>(0)?.cast_unsigned()),
                    entry: entry(row),
                });
                bytes += row.get_ref(6)?.as_blob().map_or(0, <[u8]>::len);
                if bytes >= PAGE_BYTES || page.len() >= PAGE_ENTRIES {
                    break;
                }
            }
            Ok(page)
        })
    }

    fn snapshot(&mut self, document: i64, after: Revision) -> RowsFuture<'_, Option<SnapshotRow>> {
        self.read(|db| {
            db.prepare_cached(
                "SELECT revision, data
                 FROM snapshots
                 WHERE doc = ?1 AND revision > ?2
                 ORDER BY revision
                 LIMIT 1",
            )?
            .query_row([document, after.0.cast_signed()], |row| {
                Ok(SnapshotRow {
                    revision: Revision(row.get::<_, i64>(0)?.cast_unsigned()),
                    packed: row.get(1)?,
                })
            })
            .optional()
        })
    }
}
