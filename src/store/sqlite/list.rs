//! The list of documents. Each function runs within one read transaction.

use rusqlite::types::{Type, ValueRef};
use rusqlite::{Connection, Row, params};

use super::error::SqliteError;
use crate::id::DocId;
use crate::log::Revision;
use crate::store::{ListPage, ListQuery, ListedDocument};

/// How many documents one page of a search reads, newest edit first: some 10 ms.
const WALK_MAX: usize = 10_000;

/// A page of the documents that exist.
pub(super) fn list(db: &Connection, query: &ListQuery) -> Result<ListPage, SqliteError> {
    walk(db, query, |_, _| Ok(true))
}

/// Reads the documents of a collection, newest edit first, until the page is full or [`WALK_MAX`] were read. Of those with
/// a matching title, the page has the ones for which `may_read` returns true.
pub(super) fn walk(
    db: &Connection,
    query: &ListQuery,
    mut may_read: impl FnMut(&Connection, &str) -> rusqlite::Result<bool>,
) -> Result<ListPage, SqliteError> {
    let mut statement = db.prepare_cached(
        "SELECT updated_at_ms, id, instr(title_folded, ?4) > 0
         FROM documents
         WHERE live = 1 AND collection = ?1 AND (updated_at_ms, id) < (?2, ?3)
         ORDER BY updated_at_ms DESC, id DESC",
    )?;
    let (at_ms, id) = query.start();
    let mut rows = statement.query(params![
        query.collection.as_str(),
        at_ms,
        id,
        query.folded_title()
    ])?;
    let mut page = ListPage::default();
    if query.limit == 0 {
        return Ok(page);
    }
    for read in 1.. {
        let Some(row) = rows.next()? else {
            return Ok(page);
        };
        let id: String = row.get(1)?;
        if row.get(2)? && may_read(db, &id)? {
            page.documents
                .extend(find(db, query.collection.as_str(), &id)?);
        }
        if page.documents.len() >= query.limit || read >= WALK_MAX {
            page.next = Some((row.get::<_, i64>(0)?.cast_unsigned(), id));
            return Ok(page);
        }
    }
    Ok(page)
}

/// The list's entry of one document; `None` if the document does not exist.
pub(super) fn describe(
    db: &Connection,
    doc: &DocId,
) -> Result<Option<ListedDocument>, SqliteError> {
    find(db, doc.collection.as_str(), doc.id.as_str())
}

fn find(
    db: &Connection,
    collection: &str,
    id: &str,
) -> Result<Option<ListedDocument>, SqliteError> {
    let mut statement = db.prepare_cached(
        "SELECT collection, id, title, created_at_ms, updated_at_ms,
           (SELECT coalesce(max(revision), 0) FROM entries WHERE doc = number)
         FROM documents
         WHERE live = 1 AND collection = ?1 AND id = ?2",
    )?;
    let mut rows = statement.query([collection, id])?;
    rows.next()?.map(listed).transpose()
}

/// Reads a document from the columns collection, id, title, created_at_ms, updated_at_ms and revision.
pub(super) fn listed(row: &Row<'_>) -> Result<ListedDocument, SqliteError> {
    let text = |value: ValueRef<'_>| value.as_str().map(str::to_owned);
    let collection = text(row.get_ref(0)?).map_err(rusqlite::Error::from)?;
    let id = text(row.get_ref(1)?).map_err(rusqlite::Error::from)?;
    let doc = DocId::parse(&collection, &id).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(1, Type::Text, Box::new(error))
    })?;
    Ok(ListedDocument {
        doc,
        title: row.get(2)?,
        created_at_ms: row.get::<_, Option<i64>>(3)?.unwrap_or(0).cast_unsigned(),
        updated_at_ms: row.get::<_, i64>(4)?.cast_unsigned(),
        revision: Revision(row.get::<_, i64>(5)?.cast_unsigned()),
    })
}
