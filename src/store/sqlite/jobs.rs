//! The jobs that the writer thread runs: appends, claims, snapshots, titles.

use rusqlite::{Connection, params};

use super::documents::{claimed_epoch, head, last_entry};
use super::error::is_duplicate;
use super::write_connection::WriteConnection;
use super::writer::WriteJob;
use crate::id::DocId;
use crate::log::{Epoch, Fence, Revision};
use crate::store::change_feed::FeedChange;
use crate::store::damage::HeadDamage;
use crate::store::snapshot_codec::verify;
use crate::store::snapshot_retention::Retention;
use crate::store::stored_entry::{EncodedBatch, Liveness};
use crate::store::{AppendError, Batch, Lease};

/// Appends entries to documents.
pub(super) struct AppendJob(Vec<EncodedBatch>);

impl AppendJob {
    /// Encodes the batches.
    pub(super) fn new(batches: Vec<Batch>) -> Self {
        Self(batches.into_iter().map(EncodedBatch::new).collect())
    }
}

impl WriteJob for AppendJob {
    type Output = Vec<Result<(), AppendError>>;
    const VERB: &'static str = "append";

    fn bytes(&self) -> usize {
        self.0.iter().map(EncodedBatch::bytes).sum()
    }

    fn run(&self, connection: &mut WriteConnection) -> rusqlite::Result<Self::Output> {
        let append = |batch: &EncodedBatch| {
            let appended = connection.isolated(|connection| append(connection, batch))?;
            Ok(appended.unwrap_or_else(|error| {
                tracing::error!(doc = %batch.doc, %error, "append rejected: its values violate a constraint of the table");
                // A revision that the log has already violates the primary key, which is what `Gap` means.
                Err(match is_duplicate(&error) {
                    true => AppendError::Gap,
                    false => AppendError::Refused,
                })
            }))
        };
        self.0.iter().map(append).collect()
    }
}

fn append(
    connection: &mut WriteConnection,
    batch: &EncodedBatch,
) -> rusqlite::Result<Result<(), AppendError>> {
    let Some(number) = connection.fenced(&batch.doc, batch.fence)? else {
        return Ok(Err(AppendError::Fenced));
    };
    let (head, epoch) = last_entry(connection.db(), number)?;
    if epoch > batch.fence.epoch {
        // The fence is damaged. The next claim is refused for the same reason.
        return Ok(Err(AppendError::Fenced));
    }
    if !batch.follows(head) {
        return Ok(Err(AppendError::Gap));
    }
    insert_entries(connection.db(), number, batch)?;
    if let Some(liveness) = batch.liveness {
        update_liveness(connection.db(), number, liveness)?;
    }
    if let Some(last) = batch.rows.last() {
        connection.stage_updated_at(number, last.entry.at_ms);
        connection.record_change(&batch.doc, FeedChange::Appended(batch.last()));
    }
    Ok(Ok(()))
}

fn insert_entries(db: &Connection, number: i64, batch: &EncodedBatch) -> rusqlite::Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO entries (doc, revision, epoch, author, client, seq, at_ms, payload, checksum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    for row in &batch.rows {
        let entry = &row.entry;
        insert.execute(params![
            number,
            entry.revision.0.cast_signed(),
            entry.epoch.0.cast_signed(),
            entry.id.author.as_str(),
            entry.id.client.as_str(),
            entry.id.seq.cast_signed(),
            entry.at_ms.cast_signed(),
            row.payload,
            row.checksum.cast_signed(),
        ])?;
    }
    Ok(())
}

fn update_liveness(db: &Connection, number: i64, liveness: Liveness) -> rusqlite::Result<()> {
    db.prepare_cached(
        "UPDATE documents
         SET live = ?2, updated_at_ms = ?3, created_at_ms = coalesce(created_at_ms, ?4)
         WHERE number = ?1",
    )?
    .execute(params![
        number,
        liveness.live,
        liveness.at_ms.cast_signed(),
        liveness.created_at_ms.map(u64::cast_signed)
    ])
    .map(drop)
}

/// Writes and removes a row, so that it fails if there is no room for an edit of usual size.
pub(super) struct CheckWritesJob;

/// The size of that row.
const CHECK_BYTES: u32 = 16 << 10;

impl WriteJob for CheckWritesJob {
    type Output = ();
    const VERB: &'static str = "check writes";

    fn bytes(&self) -> usize {
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

/// Claims a document: the next epoch, and the random `token`.
pub(super) struct ClaimJob {
    pub(super) doc: DocId,
    pub(super) token: u128,
}

impl WriteJob for ClaimJob {
    type Output = Result<Lease, HeadDamage>;
    const VERB: &'static str = "claim";

    fn run(&self, connection: &mut WriteConnection) -> rusqlite::Result<Self::Output> {
        if let Err(damage) = check_claimable(connection, &self.doc)? {
            return Ok(Err(damage));
        }
        // The number of a new document is one that has no entries: if the row of an earlier document is missing, SQLite would
        // assign its number again, and the new document would show its text.
        //
        // A crash may have lost the update of updated_at_ms, so it is read from the log. It is not set back: that would
        // hide that the last entry is missing (see `LogEnd`).
        let (number, epoch): (i64, i64) = connection
            .db()
            .prepare_cached(
                "INSERT INTO documents (number, collection, id, epoch, token)
                 VALUES (
                   1 + max(
                     (SELECT coalesce(max(number), 0) FROM documents),
                     (SELECT coalesce(max(doc), 0) FROM entries),
                     (SELECT coalesce(max(doc), 0) FROM snapshots)),
                   ?1, ?2, 1, ?3)
                 ON CONFLICT (collection, id) DO UPDATE
                 SET epoch = epoch + 1, token = excluded.token,
                     updated_at_ms = max(updated_at_ms, coalesce(
                       (SELECT at_ms FROM entries WHERE doc = number ORDER BY revision DESC LIMIT 1),
                       0))
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
        connection.record_change(&self.doc, FeedChange::Claimed(epoch));
        let fence = Fence {
            epoch,
            token: self.token,
        };
        Ok(Ok(Lease {
            fence,
            head: head(connection.db(), number)?,
        }))
    }
}

/// Returns the damage that prevents a claim, if there is any.
fn check_claimable(
    connection: &mut WriteConnection,
    doc: &DocId,
) -> rusqlite::Result<Result<(), HeadDamage>> {
    let Some((number, epoch)) = claimed_epoch(connection.db(), doc)? else {
        let is_lost = connection.number(doc)?.is_some();
        return Ok(match is_lost {
            true => Err(HeadDamage::MissingDocument),
            false => Ok(()),
        });
    };
    let (_, last) = last_entry(connection.db(), number)?;
    Ok(match last > epoch {
        true => Err(HeadDamage::EpochBehindLog),
        false => Ok(()),
    })
}

/// Raises the epoch of a document's fence to that of its last entry, if it is smaller. The random `token` voids the fence.
pub(super) struct RestoreFenceJob {
    pub(super) doc: DocId,
    pub(super) token: u128,
}

impl WriteJob for RestoreFenceJob {
    /// Whether the epoch was raised.
    type Output = bool;
    const VERB: &'static str = "restore fence";

    fn run(&self, connection: &mut WriteConnection) -> rusqlite::Result<bool> {
        let Some((number, epoch)) = claimed_epoch(connection.db(), &self.doc)? else {
            return Ok(false);
        };
        let (_, last) = last_entry(connection.db(), number)?;
        if last <= epoch {
            return Ok(false);
        }
        connection
            .db()
            .prepare_cached("UPDATE documents SET epoch = ?2, token = ?3 WHERE number = ?1")?
            .execute(params![
                number,
                last.0.cast_signed(),
                self.token.to_be_bytes()
            ])?;
        Ok(true)
    }
}

/// Saves a packed snapshot.
pub(super) struct SaveSnapshotJob {
    pub(super) doc: DocId,
    pub(super) fence: Fence,
    pub(super) revision: Revision,
    pub(super) packed: Vec<u8>,
}

/// The log ends before the snapshot.
pub(super) struct AheadOfTheLog;

impl WriteJob for SaveSnapshotJob {
    type Output = Result<(), AheadOfTheLog>;
    const VERB: &'static str = "save snapshot";

    fn bytes(&self) -> usize {
        self.packed.len()
    }

    fn run(&self, connection: &mut WriteConnection) -> rusqlite::Result<Self::Output> {
        let Some(number) = connection.fenced(&self.doc, self.fence)? else {
            return Ok(Ok(()));
        };
        if self.revision == Revision::ZERO {
            // Every document is empty at revision zero.
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
        remove_old_snapshots(connection.db(), number, head)?;
        Ok(Ok(()))
    }
}

/// Deletes the snapshots that are no longer needed. See [`Retention`].
fn remove_old_snapshots(db: &Connection, number: i64, head: Revision) -> rusqlite::Result<()> {
    let revisions = db
        .prepare_cached("SELECT revision FROM snapshots WHERE doc = ?1 ORDER BY revision DESC")?
        .query_map([number], |row| Ok(row.get::<_, i64>(0)?.cast_unsigned()))?
        .collect::<rusqlite::Result<_>>()?;
    let mut retention = Retention::new(revisions);
    while let Some(revision) = retention.next_unchecked() {
        retention.record(is_readable(db, number, Revision(revision))?);
    }
    let mut delete = db.prepare_cached("DELETE FROM snapshots WHERE doc = ?1 AND revision = ?2")?;
    for revision in retention.removable(head.0) {
        delete.execute([number, revision.cast_signed()])?;
    }
    Ok(())
}

fn is_readable(db: &Connection, number: i64, revision: Revision) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT data FROM snapshots WHERE doc = ?1 AND revision = ?2")?
        .query_row([number, revision.0.cast_signed()], |row| {
            Ok(verify(revision, row.get_ref(0)?.as_blob()?).is_ok())
        })
}

/// Gives a document a title.
pub(super) struct RenameJob {
    pub(super) doc: DocId,
    pub(super) title: String,
    /// The title that it must have now, unless it has the new one already.
    pub(super) was: Option<String>,
}

impl WriteJob for RenameJob {
    /// Whether the document exists and had that title.
    type Output = bool;
    const VERB: &'static str = "rename";

    fn run(&self, connection: &mut WriteConnection) -> rusqlite::Result<bool> {
        let renamed = connection
            .db()
            .prepare_cached(
                "UPDATE documents SET title = ?3, title_folded = ?4
                 WHERE collection = ?1 AND id = ?2 AND live = 1
                   AND (?5 IS NULL OR title IN (?3, ?5))",
            )?
            .execute(params![
                self.doc.collection.as_str(),
                self.doc.id.as_str(),
                self.title,
                self.title.to_lowercase(),
                self.was,
            ])?;
        Ok(renamed > 0)
    }
}

/// Limits the database's size, in bytes.
pub(super) struct LimitSizeJob(pub(super) u64);

impl WriteJob for LimitSizeJob {
    type Output = ();
    const VERB: &'static str = "limit";

    fn run(&self, connection: &mut WriteConnection) -> rusqlite::Result<()> {
        connection.limit(self.0)
    }
}
