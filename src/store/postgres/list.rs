//! The list of documents.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::change::now_ms;
use super::fault::Fault;
use super::pool::Pool;
use crate::id::DocId;
use crate::log::Revision;
use crate::store::accounts::{Who, tenant_of};
use crate::store::{ListQuery, Listed};

/// The columns of what the list says.
macro_rules! listed {
    ($($rest:expr),+) => {
        concat!(
            "
SELECT collection, id, title, created_at_ms, updated_at_ms, coalesce(
  (SELECT entries.revision FROM entries WHERE entries.doc = documents.number ORDER BY entries.revision DESC LIMIT 1), 0)
FROM documents
WHERE live AND collection = $1 ",
            $($rest),+
        )
    };
}

const LIST: &str = listed!(
    "AND (updated_at_ms, id) < ($2, $3) AND position($4::bytea IN title_folded) > 0
ORDER BY updated_at_ms DESC, id DESC
LIMIT $5"
);

/// The same, limited to what the user may read: everything if $6 or a role on the tenant says so, else the documents with a
/// role of their own and those of the share links $9.
const LIST_FOR: &str = listed!(
    "AND (updated_at_ms, id) < ($2, $3) AND position($4::bytea IN title_folded) > 0
  AND ($6
    OR EXISTS (SELECT 1 FROM users WHERE users.id = $7 AND users.tenant = $8 AND users.role > 0)
    OR EXISTS (
      SELECT 1
      FROM grants
      WHERE grants.subject = $7 AND grants.collection = documents.collection AND grants.id = documents.id)
    OR EXISTS (
      SELECT 1
      FROM links
      WHERE links.id = ANY ($9) AND links.collection = documents.collection AND links.doc = documents.id
        AND (links.expires_at_ms IS NULL OR links.expires_at_ms > ",
    now_ms!(),
    ")))
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
    let Page {
        at_ms,
        id,
        title,
        limit,
    } = Page::of(query)?;
    let collection = query.collection.as_str();
    let rows = pool
        .query(LIST, &[&collection, &at_ms, &id, &title, &limit])
        .await?;
    rows.iter().map(listed).collect()
}

/// Lists the documents that exist and that `who` may read.
pub(super) async fn list_for(
    pool: &Pool,
    who: &Who,
    query: &ListQuery,
) -> Result<Vec<Listed>, Fault> {
    let tenant = tenant_of(&query.collection);
    let user = who.user.as_ref();
    let Some(user) = user.filter(|_| who.tenant.as_deref() == Some(tenant)) else {
        return Ok(Vec::new());
    };
    let Page {
        at_ms,
        id,
        title,
        limit,
    } = Page::of(query)?;
    let (collection, user) = (query.collection.as_str(), user.0.as_bytes());
    let sees_all = who.role.is_some();
    let links: Vec<_> = who.links.iter().map(|link| link.0.as_bytes()).collect();
    let values: [&(dyn ToSql + Sync); 9] = [
        &collection,
        &at_ms,
        &id,
        &title,
        &limit,
        &sees_all,
        &user,
        &tenant,
        &links,
    ];
    let rows = pool.query(LIST_FOR, &values).await?;
    rows.iter().map(listed).collect()
}

/// Which documents a query is after, as the statements take it.
struct Page<'a> {
    at_ms: i64,
    id: &'a str,
    /// Folded.
    title: Vec<u8>,
    limit: i64,
}

impl<'a> Page<'a> {
    fn of(query: &'a ListQuery) -> Result<Self, Fault> {
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
        Ok(Self {
            at_ms,
            id,
            title: title.into_bytes(),
            limit: i64::try_from(query.limit).unwrap_or(i64::MAX),
        })
    }
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
