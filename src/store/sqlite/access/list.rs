//! The list of the documents that a principal may read.

use std::collections::HashSet;

use rusqlite::{Connection, params};

use super::{signed, tenant_role};
use crate::access::{Principal, tenant_of};
use crate::store::sqlite::error::SqliteError;
use crate::store::sqlite::list::{listed, walk};
use crate::store::{ListPage, ListQuery, ListedDocument};

/// Up to this many documents that are shared with a user are sorted. For a user with more, the newest documents of the
/// collection are searched for shared ones.
const SHARED_MAX: usize = 3_000;

/// A page of the documents that a user may read: all of the collection, or those that are shared with the user.
pub(super) fn list_for(
    db: &Connection,
    now_ms: u64,
    principal: &Principal,
    query: &ListQuery,
) -> Result<ListPage, SqliteError> {
    let tenant = tenant_of(&query.collection);
    let Some(user) = principal.member_of(tenant) else {
        return Ok(ListPage::default());
    };
    if tenant_role(db, user, tenant)?.max(principal.role).is_some() {
        return walk(db, query, |_, _| Ok(true));
    }
    let links: Vec<&str> = principal.links.iter().map(|link| link.0.as_str()).collect();
    let links = serde_json::json!(links).to_string();
    let mut statement = db.prepare_cached(
        "SELECT id FROM grants WHERE subject = ?1 AND collection = ?2
         UNION
         SELECT doc FROM links
         WHERE id IN (SELECT value FROM json_each(?3)) AND collection = ?2 AND coalesce(expires_at_ms > ?4, 1)
         LIMIT ?5",
    )?;
    let values = params![
        user.0,
        query.collection.as_str(),
        links,
        signed(now_ms),
        SHARED_MAX as i64 + 1
    ];
    let shared = statement.query_map(values, |row| row.get(0))?;
    let shared: HashSet<String> = shared.collect::<Result<_, _>>()?;
    if shared.len() <= SHARED_MAX {
        return list_of(db, query, &shared);
    }
    walk(db, query, |db, id| {
        let mut statement = db.prepare_cached(
            "SELECT 1 FROM grants WHERE subject = ?1 AND collection = ?2 AND id = ?3
             UNION ALL
             SELECT 1 FROM links
             WHERE id IN (SELECT value FROM json_each(?4)) AND collection = ?2 AND doc = ?3
               AND coalesce(expires_at_ms > ?5, 1)",
        )?;
        let values = params![user.0, query.collection.as_str(), id, links, signed(now_ms)];
        statement.exists(values)
    })
}

/// A page of these documents.
fn list_of(
    db: &Connection,
    query: &ListQuery,
    ids: &HashSet<String>,
) -> Result<ListPage, SqliteError> {
    let ids: Vec<&String> = ids.iter().collect();
    let mut statement = db.prepare_cached(
        "SELECT collection, id, title, created_at_ms, updated_at_ms,
           (SELECT coalesce(max(revision), 0) FROM entries WHERE doc = number)
         FROM (
           SELECT documents.*
           FROM json_each(?6) AS asked
           CROSS JOIN documents ON documents.collection = ?1 AND documents.id = asked.value
           WHERE live = 1 AND (updated_at_ms, documents.id) < (?2, ?3) AND instr(title_folded, ?4) > 0
           ORDER BY updated_at_ms DESC, documents.id DESC
           LIMIT ?5
         )",
    )?;
    let (at_ms, id) = query.start();
    let title = query.title.as_deref().unwrap_or_default().to_lowercase();
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![
        query.collection.as_str(),
        at_ms,
        id,
        title,
        limit,
        serde_json::json!(ids).to_string()
    ])?;
    let mut page = ListPage::default();
    while let Some(row) = rows.next()? {
        page.documents.push(listed(row)?);
    }
    let last = page.documents.last();
    page.next = last
        .filter(|_| page.documents.len() >= query.limit)
        .map(ListedDocument::place);
    Ok(page)
}
