//! Look-ups of single documents: their numbers, heads and epochs.

use rusqlite::{Connection, OptionalExtension, params};

use super::error::SqliteError;
use crate::id::DocId;
use crate::log::{Epoch, Revision};
use crate::store::damage::LogEnd;
use crate::store::{DocumentChanges, DocumentLocation, OpenDocuments};

/// The number that stands for a document in the other tables; `None` if it was never claimed.
pub(super) fn number(db: &Connection, doc: &DocId) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT number FROM documents WHERE collection = ?1 AND id = ?2")?
        .query_row([doc.collection.as_str(), doc.id.as_str()], |row| row.get(0))
        .optional()
}

/// The number of a document and the end of its log; `None` if it was never claimed.
pub(super) fn find(db: &Connection, doc: &DocId) -> rusqlite::Result<Option<(i64, LogEnd)>> {
    let row = db
        .prepare_cached(
            "SELECT number, updated_at_ms FROM documents WHERE collection = ?1 AND id = ?2",
        )?
        .query_row([doc.collection.as_str(), doc.id.as_str()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let Some((number, updated_at_ms)) = row else {
        return Ok(None);
    };
    let last = db
        .prepare_cached(
            "SELECT revision, at_ms FROM entries WHERE doc = ?1 ORDER BY revision DESC LIMIT 1",
        )?
        .query_row([number], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(Some((number, LogEnd::new(updated_at_ms, last))))
}

/// The revision of the last entry of a document's log; zero if the log is empty.
pub(super) fn head(db: &Connection, number: i64) -> rusqlite::Result<Revision> {
    Ok(last_entry(db, number)?.0)
}

/// The revision and the epoch of the last entry of a document's log; zero if the log is empty.
pub(super) fn last_entry(db: &Connection, number: i64) -> rusqlite::Result<(Revision, Epoch)> {
    let last = db
        .prepare_cached(
            "SELECT revision, epoch FROM entries WHERE doc = ?1 ORDER BY revision DESC LIMIT 1",
        )?
        .query_row([number], |row| {
            let of = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
            Ok((Revision(of(0)?), Epoch(of(1)?)))
        })
        .optional()?;
    Ok(last.unwrap_or_default())
}

/// The highest revision of a document that any row names; zero if it was never claimed.
pub(super) fn highest_revision(db: &Connection, doc: &DocId) -> Result<Revision, SqliteError> {
    let Some((number, end)) = find(db, doc)? else {
        return Ok(Revision::ZERO);
    };
    let snapshot: Option<i64> = db
        .prepare_cached("SELECT max(revision) FROM snapshots WHERE doc = ?1")?
        .query_row([number], |row| row.get(0))?;
    let snapshot = Revision(snapshot.unwrap_or(0).cast_unsigned());
    Ok(end.highest_revision().max(snapshot))
}

/// The number of a document and the epoch of its newest claim; `None` if it was never claimed.
pub(super) fn claimed_epoch(
    db: &Connection,
    doc: &DocId,
) -> rusqlite::Result<Option<(i64, Epoch)>> {
    db.prepare_cached("SELECT number, epoch FROM documents WHERE collection = ?1 AND id = ?2")?
        .query_row([doc.collection.as_str(), doc.id.as_str()], |row| {
            Ok((row.get(0)?, Epoch(row.get::<_, i64>(1)?.cast_unsigned())))
        })
        .optional()
}

/// Logs an error if the entries with the largest document number have no document. A look at all numbers takes longer; that is
/// what `copydesk verify` does.
pub(super) fn report_orphans(db: &Connection) -> rusqlite::Result<()> {
    let (documents, entries): (i64, i64) = db.query_row(
        "SELECT (SELECT coalesce(max(number), 0) FROM documents), (SELECT coalesce(max(doc), 0) FROM entries)",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if entries > documents {
        tracing::error!(
            number = entries,
            "a row of the table documents is missing and its entries exist: run `copydesk verify`, and restore the row from a backup"
        );
    }
    Ok(())
}

/// Compares a node's open documents with the database.
pub(super) fn compare_open(
    db: &Connection,
    open: &OpenDocuments,
) -> Result<DocumentChanges, SqliteError> {
    Ok(DocumentChanges {
        lost: lost(db, &open.owned)?,
        newer: newer(db, &open.followed)?,
    })
}

/// Those of the documents that were claimed since the given epoch.
fn lost(db: &Connection, owned: &[(DocId, Epoch)]) -> rusqlite::Result<Vec<DocId>> {
    let mut statement = db.prepare_cached(
        "SELECT 1 FROM documents WHERE collection = ?1 AND id = ?2 AND epoch = ?3",
    )?;
    let mut lost = Vec::new();
    for (doc, epoch) in owned {
        let values = params![
            doc.collection.as_str(),
            doc.id.as_str(),
            epoch.0.cast_signed()
        ];
        if !statement.exists(values)? {
            lost.push(doc.clone());
        }
    }
    Ok(lost)
}

/// Those of the documents with a newer head than the given revision, with their heads.
fn newer(
    db: &Connection,
    followed: &[(DocId, Revision)],
) -> rusqlite::Result<Vec<(DocId, Revision)>> {
    let mut newer = Vec::new();
    for (doc, known) in followed {
        let Some(number) = number(db, doc)? else {
            continue;
        };
        let head = head(db, number)?;
        if head > *known {
            newer.push((doc.clone(), head));
        }
    }
    Ok(newer)
}

/// Where a document is. The owner is not stored: it is the process that has locked the folder.
pub(super) fn locate(
    db: &Connection,
    doc: &DocId,
) -> Result<Option<DocumentLocation>, SqliteError> {
    let Some((number, epoch)) = claimed_epoch(db, doc)? else {
        return Ok(None);
    };
    Ok(Some(DocumentLocation {
        owner: None,
        owner_name: None,
        owner_lives: false,
        epoch,
        head: head(db, number)?,
    }))
}
