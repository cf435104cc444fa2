//! The list of documents.

use tokio_postgres::Row;

use super::fault::Fault;
use super::pool::Pool;
use crate::id::DocId;
use crate::log::Revision;
use crate::store::{ListQuery, Listed};

/// The columns of what the list says.
macro_rules! listed {
    ($rest:literal) => {
        concat!(
            "
SELECT collection, id, title, created_at_ms, updated_at_ms, coalesce(
  (SELECT entries.revision FROM entries WHERE entries.doc = documents.number ORDER BY entries.revision DESC LIMIT 1), 0)
FROM documents
WHERE live AND collection = $1 ",
            $rest
        )
    };
}

const LIST: &str = listed!(
    "AND (updated_at_ms, id) < ($2, $3) AND position($4::bytea IN title_folded) > 0
ORDER BY updated_at_ms DESC, id DESC
LIMIT $5"
);

const DESCRIBE: &str = listed!("AND id = $2");

const RENAME: &str = "
UPDATE documents
SET title = $3, title_folded = $4
WHERE collection = $1 AND id = $2 AND live
RETURNING number";

/// Lists the documents that exist.
pub(super) async fn list(pool: &Pool, query: &ListQuery) -> Result<Vec<Listed>, Fault> {
    // No id is as large as this: the first page begins before it.
    let (at_ms, id) = match &query.after {
        Some((at_ms, id)) => (i64::try_from(*at_ms).unwrap_or(i64::MAX), id.as_str()),
        None => (i64::MAX, "\u{10ffff}"),
    };
    if id.contains('\0') {
        // No id holds one, and Postgres takes none.
        return Err(Fault::Other(
            "the page before ends with no document's id".to_owned(),
        ));
    }
    let title = query.title.as_deref().unwrap_or_default().to_lowercase();
    let (collection, title) = (query.collection.as_str(), title.as_bytes());
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let rows = pool
        .query(LIST, &[&collection, &at_ms, &id, &title, &limit])
        .await?;
    rows.iter().map(listed).collect()
}

/// What the list says of one document.
pub(super) async fn describe(pool: &Pool, doc: &DocId) -> Result<Option<Listed>, Fault> {
    let (collection, id) = (doc.collection.as_str(), doc.id.as_str());
    let rows = pool.query(DESCRIBE, &[&collection, &id]).await?;
    rows.first().map(listed).transpose()
}

/// Gives a document a title; `false` when it does not exist.
pub(super) async fn rename(pool: &Pool, doc: &DocId, title: &str) -> Result<bool, Fault> {
    let (collection, id) = (doc.collection.as_str(), doc.id.as_str());
    let folded = title.to_lowercase();
    let (title, folded) = (title.as_bytes(), folded.as_bytes());
    let rows = pool
        .query(RENAME, &[&collection, &id, &title, &folded])
        .await?;
    Ok(!rows.is_empty())
}

fn listed(row: &Row) -> Result<Listed, Fault> {
    let (collection, id): (&str, &str) = (row.get(0), row.get(1));
    let doc = DocId::parse(collection, id)
        .map_err(|error| Fault::Other(format!("{collection}/{id}: {error}")))?;
    let title = String::from_utf8(row.get(2));
    Ok(Listed {
        title: title.map_err(|_| Fault::Other(format!("{doc}: its title is no text")))?,
        doc,
        created_at_ms: row.get::<_, Option<i64>>(3).unwrap_or(0).cast_unsigned(),
        updated_at_ms: row.get::<_, i64>(4).cast_unsigned(),
        revision: Revision(row.get::<_, i64>(5).cast_unsigned()),
    })
}
