//! The list of documents, and its search.
//!
//! A page reads a bounded number of rows, however many documents the collection has. For a user with few grants these
//! are the documents of the grants. Otherwise they are the newest documents in order, until the page is full, at most
//! [`WALK_MAX`]. If a search finds too few of them, the index over the titles is used. If that finds too many documents
//! to sort in time, the page stays short, and its `next` continues after the documents that were read.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::error::PostgresError;
use super::pool::{Pool, PooledConnection};
use super::server_clock::now_ms;
use crate::access::{Principal, tenant_of};
use crate::id::DocId;
use crate::log::Revision;
use crate::store::{ListPage, ListQuery, ListedDocument};

/// How many documents one page reads in their order: some 20 ms.
const WALK_MAX: i64 = 10_000;

/// How many documents of the title index or of a user's grants are sorted.
const SORT_MAX: usize = 3_000;

/// The columns of a document in the list.
macro_rules! listed {
    ($($rest:expr),+) => {
        concat!(
            "
SELECT collection, id, title, created_at_ms, updated_at_ms, coalesce(
  (SELECT entries.revision FROM entries WHERE entries.doc = documents.number ORDER BY entries.revision DESC LIMIT 1), 0)",
            $($rest),+
        )
    };
}

/// Whether a user may read a row of `documents`: `$sees_all`, a grant, or an opened share link.
macro_rules! may_read {
    ($sees_all:literal, $user:literal, $links:literal) => {
        concat!(
            "(",
            $sees_all,
            " OR EXISTS (
      SELECT 1
      FROM grants
      WHERE grants.subject = ",
            $user,
            " AND grants.collection = documents.collection AND grants.id = documents.id)
    OR EXISTS (
      SELECT 1
      FROM links
      WHERE links.id = ANY (",
            $links,
            ") AND links.collection = documents.collection AND links.doc = documents.id
        AND (links.expires_at_ms IS NULL OR links.expires_at_ms > ",
            now_ms!(),
            ")))"
        )
    };
}

/// The documents of a collection after a place, newest edit first: at most `$5` that match, out of at most `$6` that
/// are read. The last one that was read is returned in any case.
const WALK: &str = concat!(listed!(
    ", documents.is_match, documents.place = $6
FROM (
  SELECT documents.*, position($4::bytea IN title_folded) > 0
    AND ",
    may_read!("$7", "$8", "$9"),
    " AS is_match
  FROM (
    SELECT number, collection, id, title, title_folded, created_at_ms, updated_at_ms,
           row_number() OVER (ORDER BY updated_at_ms DESC, id DESC) AS place
    FROM documents
    WHERE live AND collection = $1 AND (updated_at_ms, id) < ($2, $3)
    ORDER BY updated_at_ms DESC, id DESC
    LIMIT $6
  ) AS documents
) AS documents
WHERE is_match OR place = $6
ORDER BY updated_at_ms DESC, id DESC
LIMIT $5"
));

/// The documents with these numbers that match, newest edit first.
const SORT: &str = listed!(
    "
FROM (
  SELECT documents.*
  FROM unnest($6::bigint[]) AS asked (number)
  JOIN documents ON documents.number = asked.number
  WHERE live AND collection = $1 AND (updated_at_ms, documents.id) < ($2, $3) AND position($4::bytea IN title_folded) > 0
    AND ",
    may_read!("$7", "$8", "$9"),
    "
  ORDER BY updated_at_ms DESC, documents.id DESC
  LIMIT $5
) AS documents
ORDER BY updated_at_ms DESC, id DESC"
);

/// Whether a user's role on the tenant permits reading all documents; if not, the numbers of the documents with a grant
/// for the user or an opened share link, at most `$5`.
const SCOPE: &str = concat!(
    "
WITH tenant AS MATERIALIZED (
  SELECT EXISTS (SELECT 1 FROM users WHERE users.id = $2 AND users.tenant = $3 AND users.role > 0) AS sees_all
)
SELECT sees_all, ARRAY(
  SELECT documents.number
  FROM (
    (SELECT grants.id
     FROM grants
     WHERE grants.subject = $2 AND grants.collection = $1 AND NOT sees_all
     LIMIT $5)
    UNION
    (SELECT links.doc
     FROM links
     WHERE links.id = ANY ($4) AND links.collection = $1 AND NOT sees_all
       AND (links.expires_at_ms IS NULL OR links.expires_at_ms > ",
    now_ms!(),
    "))
  ) AS shared (id)
  JOIN documents ON documents.collection = $1 AND documents.id = shared.id
)
FROM tenant"
);

/// The numbers of the documents with titles that may contain a text, at most `$3`; and whether the index has all titles.
const TITLED: &str = "
SELECT copydesk_titled($1, $2, $3), is_complete
FROM titles_progress";

const DESCRIBE: &str = listed!(
    "
FROM documents
WHERE live AND collection = $1 AND id = $2"
);

const RENAME: &str = "
UPDATE documents
SET title = $3, title_folded = $4
WHERE collection = $1 AND id = $2 AND live
  AND ($5::bytea IS NULL OR title IN ($3, $5))
RETURNING number";

/// A page of the documents that exist.
pub(super) async fn list(pool: &Pool, query: &ListQuery) -> Result<ListPage, PostgresError> {
    let reader = ListAccess {
        sees_all: true,
        user: b"",
        links: Vec::new(),
    };
    let mut search = Search::new(pool, query, reader).await?;
    search.walk().await
}

/// A page of the documents that exist and that the principal may read.
pub(super) async fn list_for(
    pool: &Pool,
    principal: &Principal,
    query: &ListQuery,
) -> Result<ListPage, PostgresError> {
    let tenant = tenant_of(&query.collection);
    let user = principal.user.as_ref();
    let Some(user) = user.filter(|_| principal.tenant.as_deref() == Some(tenant)) else {
        return Ok(ListPage::default());
    };
    let reader = ListAccess {
        sees_all: principal.role.is_some(),
        user: user.0.as_bytes(),
        links: principal
            .links
            .iter()
            .map(|link| link.0.as_bytes())
            .collect(),
    };
    let mut search = Search::new(pool, query, reader).await?;
    if search.reader.sees_all {
        return search.walk().await;
    }
    let shared = search.scope(tenant).await?;
    if !search.reader.sees_all && shared.len() <= SORT_MAX {
        return search.sort(&shared).await;
    }
    search.walk().await
}

/// What the reader of a list has access to.
struct ListAccess<'a> {
    sees_all: bool,
    user: &'a [u8],
    /// The share links that the user has opened.
    links: Vec<&'a [u8]>,
}

/// The parameters of the statements, and their connection.
struct Search<'a> {
    connection: PooledConnection,
    reader: ListAccess<'a>,
    collection: &'a str,
    at_ms: i64,
    id: &'a str,
    /// In lower case; empty if each title matches.
    title: Vec<u8>,
    limit: usize,
}

impl<'a> Search<'a> {
    async fn new(
        pool: &Pool,
        query: &'a ListQuery,
        reader: ListAccess<'a>,
    ) -> Result<Self, PostgresError> {
        let (at_ms, id) = query.start();
        if id.contains('\0') {
            // No id contains NUL, and Postgres rejects it.
            return Err(PostgresError::Other(
                "the place of the page contains a NUL".to_owned(),
            ));
        }
        Ok(Self {
            connection: pool.acquire().await?,
            reader,
            collection: query.collection.as_str(),
            at_ms,
            id,
            title: query.folded_title().into_bytes(),
            limit: query.limit,
        })
    }

    /// The numbers of the documents that are shared with the user, at most one more than [`SORT_MAX`]; none if the role of
    /// the user permits reading all documents.
    async fn scope(&mut self, tenant: &str) -> Result<Vec<i64>, PostgresError> {
        let most = SORT_MAX as i64 + 1;
        let ListAccess { user, links, .. } = &self.reader;
        let values: [&(dyn ToSql + Sync); 5] = [&self.collection, user, &tenant, links, &most];
        let rows = self.connection.query(SCOPE, &values).await?;
        let row = rows.first().ok_or_else(no_row)?;
        self.reader.sees_all = row.get(0);
        Ok(row.get(1))
    }

    /// Reads the documents in their order, and then the index over titles.
    async fn walk(&mut self) -> Result<ListPage, PostgresError> {
        let limit = clamp(self.limit);
        let is_filtered = !self.title.is_empty() || !self.reader.sees_all;
        let looked_at_max = if is_filtered {
            WALK_MAX.max(limit)
        } else {
            limit
        };
        let rows = self.rows(WALK, &looked_at_max).await?;
        let is_match = |row: &&Row| row.get::<_, bool>(6);
        let documents: Vec<_> = rows
            .iter()
            .filter(is_match)
            .map(listed)
            .collect::<Result<_, _>>()?;
        let last = rows.last().map(listed).transpose()?;
        let is_full = documents.len() >= self.limit;
        let is_cut = is_full || rows.last().is_some_and(|row| row.get(7));
        if !is_full
            && is_cut
            && !self.title.is_empty()
            && let Some(titled) = self.titled().await
        {
            return self.sort(&titled).await;
        }
        Ok(ListPage {
            documents,
            next: last.filter(|_| is_cut).map(|last| last.place()),
        })
    }

    /// The numbers of the documents with titles that may contain the text; `None` if there are too many, the index is not
    /// complete, or it does not answer in time.
    async fn titled(&mut self) -> Option<Vec<i64>> {
        let most = SORT_MAX as i64 + 1;
        let values: [&(dyn ToSql + Sync); 3] = [&self.collection, &self.title, &most];
        match self.connection.query(TITLED, &values).await {
            Ok(rows) => {
                let row = rows.first().filter(|row| row.get(1))?;
                let titled: Vec<i64> = row.get(0);
                (titled.len() <= SORT_MAX).then_some(titled)
            }
            Err(error) => {
                tracing::debug!(%error, "the index over titles does not answer: the page remains short");
                None
            }
        }
    }

    /// Those of the documents with these numbers that match.
    async fn sort(&mut self, numbers: &[i64]) -> Result<ListPage, PostgresError> {
        let rows = self.rows(SORT, &numbers).await?;
        let documents: Vec<_> = rows.iter().map(listed).collect::<Result<_, _>>()?;
        let last = documents.last().filter(|_| documents.len() >= self.limit);
        Ok(ListPage {
            next: last.map(ListedDocument::place),
            documents,
        })
    }

    async fn rows(
        &mut self,
        sql: &'static str,
        about: &(dyn ToSql + Sync),
    ) -> Result<Vec<Row>, PostgresError> {
        let limit = clamp(self.limit);
        let ListAccess {
            sees_all,
            user,
            links,
        } = &self.reader;
        let values: [&(dyn ToSql + Sync); 9] = [
            &self.collection,
            &self.at_ms,
            &self.id,
            &self.title,
            &limit,
            about,
            sees_all,
            user,
            links,
        ];
        self.connection.query(sql, &values).await
    }
}

fn clamp(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn no_row() -> PostgresError {
    PostgresError::Other("a statement that returns one row returned none".to_owned())
}

/// The list's entry of one document.
pub(super) async fn describe(
    pool: &Pool,
    doc: &DocId,
) -> Result<Option<ListedDocument>, PostgresError> {
    let (collection, id) = (doc.collection.as_str(), doc.id.as_str());
    let rows = pool.query(DESCRIBE, &[&collection, &id]).await?;
    rows.first().map(listed).transpose()
}

/// Sets the title of a document. Returns false if the document does not exist or has another title than `was`.
pub(super) async fn rename(
    pool: &Pool,
    doc: &DocId,
    title: &str,
    was: Option<&str>,
) -> Result<bool, PostgresError> {
    let (collection, id) = (doc.collection.as_str(), doc.id.as_str());
    let folded = title.to_lowercase();
    let (title, folded) = (title.as_bytes(), folded.as_bytes());
    let was = was.map(str::as_bytes);
    let rows = pool
        .query(RENAME, &[&collection, &id, &title, &folded, &was])
        .await?;
    Ok(!rows.is_empty())
}

fn listed(row: &Row) -> Result<ListedDocument, PostgresError> {
    let (collection, id): (&str, &str) = (row.get(0), row.get(1));
    let doc = DocId::parse(collection, id)
        .map_err(|error| PostgresError::Other(format!("{collection}/{id}: {error}")))?;
    let title = String::from_utf8(row.get(2));
    Ok(ListedDocument {
        title: title.map_err(|_| PostgresError::Other(format!("{doc}: its title is not UTF-8")))?,
        doc,
        created_at_ms: row.get::<_, Option<i64>>(3).unwrap_or(0).cast_unsigned(),
        updated_at_ms: row.get::<_, i64>(4).cast_unsigned(),
        revision: Revision(row.get::<_, i64>(5).cast_unsigned()),
    })
}
