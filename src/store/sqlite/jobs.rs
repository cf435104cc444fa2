//! What is asked of the writer: appends, claims, snapshots, titles.

use std::sync::Arc;

use rusqlite::{Connection, params};

use super::write_connection::{WriteConnection, head};
use super::writer::WriteJob;
use crate::id::DocId;
use crate::log::{Change, Entry, Epoch, Fence, Revision};
use crate::store::change_feed;
use crate::store::snapshot_codec::{row_checksum, verify};
use crate::store::snapshot_retention::superfluous;
use crate::store::{AppendError, Batch, Lease};

/// Appends many documents' entries.
pub(super) struct AppendJob(Vec<EncodedBatch>);

/// One document's part, encoded where it was asked for and not on the writer's thread.
struct EncodedBatch {
    doc: DocId,
    fence: Fence,
    rows: Vec<EncodedEntry>,
}

struct EncodedEntry {
    entry: Arc<Entry>,
    payload: Vec<u8>,
    checksum: u64,
}

impl AppendJob {
    pub(super) fn new(batches: Vec<Batch>) -> Self {
        Self(batches.into_iter().map(EncodedBatch::new).collect())
    }
}

impl EncodedBatch {
    fn new(batch: Batch) -> Self {
        let rows = batch.entries.into_iter().map(|entry| {
            let payload = entry.change.encode();
            EncodedEntry {
                checksum: row_checksum(&entry, &payload),
                payload,
                entry,
            }
        });
        Self {
            doc: batch.doc,
            fence: batch.fence,
            rows: rows.collect(),
        }
    }
}

impl WriteJob for AppendJob {
    type Output = Vec<Result<(), AppendError>>;
    const VERB: &'static str = "append";

    fn weight(&self) -> usize {
        let rows = self.0.iter().flat_map(|part| &part.rows);
        rows.map(|row| row.payload.len() + 200).sum()
    }

    fn run(&self, connection: &mut WriteConnection) -> rusqlite::Result<Self::Output> {
        let append = |part| {
            let outcome = connection.isolated(|connection| append(connection, part))?;
            // The constraints say what `Gap` says: a revision that is in the log already.
            Ok(outcome.unwrap_or_else(|error| {
                tracing::error!(doc = %part.doc, %error, "refused what does not fit into the log");
                Err(AppendError::Gap)
            }))
        };
        self.0.iter().map(append).collect()
    }
}

fn append(
    connection: &mut WriteConnection,
    part: &EncodedBatch,
) -> rusqlite::Result<Result<(), AppendError>> {
    let Some(number) = connection.fenced(&part.doc, part.fence)? else {
        return Ok(Err(AppendError::Fenced));
    };
    let mut revision = head(connection.db(), number)?;
    let mut insert = connection.db().prepare_cached(
        "INSERT INTO entries (doc, revision, epoch, author, client, seq, at_ms, payload, checksum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    if !follow(revision, &part.rows) {
        return Ok(Err(AppendError::Gap));
    }
    for EncodedEntry {
        entry,
        payload,
        checksum,
    } in &part.rows
    {
        revision = entry.revision;
        insert.execute(params![
            number,
            revision.0.cast_signed(),
            entry.epoch.0.cast_signed(),
            entry.id.author.as_str(),
            entry.id.client.as_str(),
            entry.id.seq.cast_signed(),
            entry.at_ms.cast_signed(),
            payload,
            checksum.cast_signed(),
        ])?;
    }
    drop(insert);
    live_or_die(connection.db(), number, &part.rows)?;
    if let Some(newest) = part.rows.last() {
        connection.stage_updated_at(number, newest.entry.at_ms);
        connection.record_change(&part.doc, change_feed::FeedChange::Appended(revision));
    }
    Ok(Ok(()))
}

fn follow(head: Revision, rows: &[EncodedEntry]) -> bool {
    let revisions = rows.iter().map(|row| row.entry.revision.0);
    revisions.eq((head.0 + 1..).take(rows.len()))
}

/// Tells the list whether the document exists after these entries.
fn live_or_die(db: &Connection, number: i64, rows: &[EncodedEntry]) -> rusqlite::Result<()> {
    for EncodedEntry { entry, .. } in rows {
        let live = match entry.change {
            Change::Create(_) => true,
            Change::Delete => false,
            Change::Edit(_) | Change::Nothing => continue,
        };
        db.prepare_cached(
            "UPDATE documents
             SET live = ?2, updated_at_ms = ?3,
                 created_at_ms = coalesce(created_at_ms, CASE WHEN ?2 THEN ?3 END)
             WHERE number = ?1",
        )?
        .execute(params![number, live, entry.at_ms.cast_signed()])?;
    }
    Ok(())
}

/// Writes and removes a row: fails when there is no room for an edit of usual size.
pub(super) struct CheckWritesJob;

/// How large that row is.
const CHECK_BYTES: u32 = 16 << 10;

impl WriteJob for CheckWritesJob {
    type Output = ();
    const VERB: &'static str = "check writes";

    fn weight(&self) -> usize {
        CHECK_BYTES as usize
    }

    fn run(&self, connection: &mut WriteConnection) -> rusqlite::Result<()> {
        let db = connection.db();
        db.prepare_cached(
            "INSERT OR REPLACE INTO secrets (name, value) VALUES ('check', zeroblob(?1))",
        )?
        .execute([CHECK_BYTES])?;
        db.prepare_cached("DELETE FROM secrets WHERE name = 'check'")?
            .execute([])
            .map(drop)
    }
}

/// Takes the right to append, with a token that was drawn where it was asked for.
pub(super) struct ClaimJob {
    pub(super) doc: DocId,
    pub(super) token: u128,
}

impl WriteJob for ClaimJob {
    type Output = Lease;
    const VERB: &'static str = "claim";

    fn run(&self, connection: &mut WriteConnection) -> rusqlite::Result<Lease> {
        // The time of the last edit is read from the log: a crash may have kept it from the list.
        let (number, epoch): (i64, i64) = connection
            .db()
            .prepare_cached(
                "INSERT INTO documents (collection, id, epoch, token)
                 VALUES (?1, ?2, 1, ?3)
                 ON CONFLICT (collection, id) DO UPDATE
                 SET epoch = epoch + 1, token = excluded.token,
                     updated_at_ms = coalesce(
                       (SELECT at_ms FROM entries WHERE doc = number ORDER BY revision DESC LIMIT 1),
                       updated_at_ms)
                 RETURNING number, epoch",
            )?
            .query_row(
                params![
                    self.doc.collection.as_str(),
                    self.doc.id.as_str(),
                    self.token.to_be_bytes()
                ],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
        connection.cache_number(&self.doc, number);
        let epoch = Epoch(epoch.cast_unsigned());
        connection.record_change(&self.doc, change_feed::FeedChange::Claimed(epoch));
        let fence = Fence {
            epoch,
            token: self.token,
        };
        Ok(Lease {
            fence,
            head: head(connection.db(), number)?,
        })
    }
}

/// Keeps a snapshot that was packed where it was asked for.
pub(super) struct SaveSnapshotJob {
    pub(super) doc: DocId,
    pub(super) fence: Fence,
    pub(super) revision: Revision,
    pub(super) packed: Vec<u8>,
}

/// The snapshot tells of entries that the log does not have.
pub(super) struct AheadOfTheLog;

impl WriteJob for SaveSnapshotJob {
    type Output = Result<(), AheadOfTheLog>;
    const VERB: &'static str = "save snapshot";

    fn weight(&self) -> usize {
        self.packed.len()
    }

    fn run(&self, connection: &mut WriteConnection) -> rusqlite::Result<Self::Output> {
        let Some(number) = connection.fenced(&self.doc, self.fence)? else {
            return Ok(Ok(()));
        };
        if self.revision == Revision::ZERO {
            // What every document is before its first entry.
            return Ok(Ok(()));
        }
        let head = head(connection.db(), number)?;
        if self.revision > head {
            return Ok(Err(AheadOfTheLog));
        }
        connection
            .db()
            .prepare_cached(
                "INSERT OR REPLACE INTO snapshots (doc, revision, epoch, data)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                number,
                self.revision.0.cast_signed(),
                self.fence.epoch.0.cast_signed(),
                self.packed
            ])?;
        thin_out(connection.db(), number, head)?;
        Ok(Ok(()))
    }
}

/// Forgets the snapshots that are no longer worth their place: see [`superfluous`].
fn thin_out(db: &Connection, number: i64, head: Revision) -> rusqlite::Result<()> {
    let revisions: Vec<i64> = db
        .prepare_cached("SELECT revision FROM snapshots WHERE doc = ?1 ORDER BY revision DESC")?
        .query_map([number], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let (mut good, mut newest) = (0, 0);
    while good < 2 && newest < revisions.len() {
        good += usize::from(is_good(db, number, revisions[newest])?);
        newest += 1;
    }
    let older: Vec<u64> = revisions[newest..]
        .iter()
        .map(|it| it.cast_unsigned())
        .collect();
    let newer = newest
        .checked_sub(1)
        .map_or(head.0, |at| revisions[at].cast_unsigned());
    for revision in superfluous(head.0, newer, &older) {
        db.prepare_cached("DELETE FROM snapshots WHERE doc = ?1 AND revision = ?2")?
            .execute([number, revision.cast_signed()])?;
    }
    Ok(())
}

fn is_good(db: &Connection, number: i64, revision: i64) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT data FROM snapshots WHERE doc = ?1 AND revision = ?2")?
        .query_row([number, revision], |row| {
            Ok(verify(
                Revision(revision.cast_unsigned()),
                row.get_ref(0)?.as_blob()?,
            )
            .is_ok())
        })
}

/// Gives a document a title.
pub(super) struct RenameJob {
    pub(super) doc: DocId,
    pub(super) title: String,
}

impl WriteJob for RenameJob {
    type Output = bool;
    const VERB: &'static str = "rename";

    fn run(&self, connection: &mut WriteConnection) -> rusqlite::Result<bool> {
        let renamed = connection
            .db()
            .prepare_cached(
                "UPDATE documents SET title = ?3, title_folded = ?4
                 WHERE collection = ?1 AND id = ?2 AND live = 1",
            )?
            .execute([
                self.doc.collection.as_str(),
                self.doc.id.as_str(),
                &self.title,
                &self.title.to_lowercase(),
            ])?;
        Ok(renamed > 0)
    }
}

/// Bounds the database's size, in bytes.
pub(super) struct LimitSizeJob(pub(super) u64);

impl WriteJob for LimitSizeJob {
    type Output = ();
    const VERB: &'static str = "limit";

    fn run(&self, connection: &mut WriteConnection) -> rusqlite::Result<()> {
        connection.limit(self.0)
    }
}
