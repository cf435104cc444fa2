//! The statement that appends entries to many documents, each under its fence, in one transaction.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::connect::PostgresConnector;
use super::error::PostgresError;
use super::number_cache;
use crate::log::{Epoch, Fence, Revision};
use crate::store::AppendError;
use crate::store::stored_entry::{EncodedBatch, EncodedEntry, Liveness};

/// Appends the entries of each document if its fence is valid and its first entry is the next one. Returns the numbers of
/// these documents.
///
/// Claims and appends of a document are ordered: each locks its row in `heads` until its transaction ends, and the two
/// locks exclude each other. If the claim was first, the row is read again and has another token. A row that is being
/// claimed is skipped, so that the other documents of the transaction do not wait for it. All rows of a document depend
/// on its row in `mine`: all of them are written, or none.
///
/// The entry before the first one is looked up by its key, at a cost that does not depend on the length of the log. Finding
/// the newest revision would read all index entries of the document on the last page. The primary key prevents an
/// append if there is a later entry. An entry before the first one with a later epoch proves that the fence is damaged.
///
/// The row in `changes` tells the other nodes which documents have new heads.
pub(super) const APPEND: &str = "
WITH asked AS (
  SELECT *
  FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bigint[], $18::bigint[])
    AS asked (doc, epoch, token, first, last)
), mine AS (
  SELECT heads.doc, asked.last
  FROM asked
  JOIN heads ON heads.doc = asked.doc AND heads.epoch = asked.epoch AND heads.token = asked.token
  JOIN documents ON documents.number = asked.doc
  WHERE asked.first - 1 = CASE asked.first WHEN 1 THEN 0 ELSE (
    SELECT old.revision FROM entries AS old WHERE old.doc = asked.doc AND old.revision = asked.first - 1
      AND old.epoch <= asked.epoch) END
  FOR SHARE OF heads SKIP LOCKED
), written AS (
  INSERT INTO entries (doc, revision, epoch, author, client, seq, at_ms, payload, checksum)
  SELECT mine.doc, new.revision, new.epoch, new.author, new.client, new.seq, new.at_ms, new.payload, new.checksum
  FROM unnest($5::bigint[], $6::bigint[], $7::bigint[], $8::bytea[], $9::text[], $10::bigint[], $11::bigint[],
              $12::bytea[], $13::bigint[])
    AS new (doc, revision, epoch, author, client, seq, at_ms, payload, checksum)
  JOIN mine USING (doc)
), living AS (
  UPDATE documents
  SET live = life.live, updated_at_ms = life.at_ms, 
      created_at_ms = coalesce(documents.created_at_ms, life.created_at_ms)
  FROM unnest($14::bigint[], $15::boolean[], $16::bigint[], $17::bigint[]) AS life (doc, live, at_ms, created_at_ms)
  JOIN mine USING (doc)
  WHERE documents.number = life.doc
), noted AS (
  INSERT INTO changes (docs, heads)
  SELECT array_agg(mine.doc), array_agg(mine.last)
  FROM mine
  HAVING count(*) > 0
)
SELECT doc FROM mine";

/// The fence and the last entry of documents of which the batches were not appended.
const FIND_HEADS: &str = "
SELECT heads.doc, heads.epoch, heads.token, coalesce(last.revision, 0), coalesce(last.epoch, 0)
FROM unnest($1::bigint[]) AS asked (doc)
JOIN heads USING (doc)
JOIN documents ON documents.number = heads.doc
LEFT JOIN LATERAL (
  SELECT entries.revision, entries.epoch
  FROM entries
  WHERE entries.doc = heads.doc
  ORDER BY entries.revision DESC
  LIMIT 1
) AS last ON true";

/// The result of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AppendOutcome {
    Done(Result<(), AppendError>),
    /// Not appended although its fence is valid and its entries are the next ones: another session is claiming the
    /// document.
    Busy,
}

/// The fence and the head of a document in the database.
struct StoredHead {
    fence: Fence,
    head: Revision,
    /// The epoch of the last entry.
    last_epoch: Epoch,
}

impl AppendOutcome {
    /// The result of a batch that was not appended, from what the tables had a moment later.
    fn of_rejected(batch: &EncodedBatch, found: Option<&StoredHead>) -> Self {
        match found {
            // A fence with a smaller epoch is damaged: the next claim is refused for the same reason.
            Some(found) if found.fence == batch.fence && found.last_epoch <= found.fence.epoch => {
                if batch.rows.is_empty() {
                    Self::Done(Ok(()))
                } else if batch.follows(found.head) {
                    Self::Busy
                } else {
                    Self::Done(Err(AppendError::Gap))
                }
            }
            _ => Self::Done(Err(AppendError::Fenced)),
        }
    }
}

/// A connection for appends, with its prepared statements. It runs one statement at a time, and is closed after the
/// first one with an unknown outcome. A statement is never cancelled: a cancelled wait for the standbys reports
/// success.
pub(super) struct AppendConnection {
    client: Client,
    task: JoinHandle<()>,
    append: Statement,
    find_heads: Statement,
    find_numbers: Statement,
    patience: Duration,
}

impl AppendConnection {
    pub(super) async fn open(
        connector: &PostgresConnector,
        patience: Duration,
    ) -> Result<Self, PostgresError> {
        let opened = async {
            let (client, task) = connector.connect().await?;
            Ok::<_, tokio_postgres::Error>(Self {
                append: client.prepare(APPEND).await?,
                find_heads: client.prepare(FIND_HEADS).await?,
                find_numbers: client.prepare(number_cache::FIND).await?,
                client,
                task,
                patience,
            })
        };
        match timeout(connector.patience(), opened).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(PostgresError::Away(super::error::in_words(&error))),
            Err(_) => Err(PostgresError::Away("no answer in time".to_owned())),
        }
    }

    /// Returns true if the connection can no longer be used.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs [`number_cache::FIND`].
    pub(super) async fn find_numbers(
        &self,
        (collections, ids): (Vec<&str>, Vec<&str>),
    ) -> Result<Vec<Row>, PostgresError> {
        self.query(&self.find_numbers, &[&collections, &ids]).await
    }

    /// Appends the batches of distinct documents, in one transaction. An error concerns all of them.
    pub(super) async fn append(
        &self,
        batches: &[(i64, &EncodedBatch)],
    ) -> Result<Vec<AppendOutcome>, PostgresError> {
        let mut contiguous: Vec<_> = batches
            .iter()
            .filter(|(_, batch)| batch.is_contiguous())
            .collect();
        // The rows are locked in this order.
        contiguous.sort_unstable_by_key(|(number, _)| *number);
        let written = if contiguous.is_empty() {
            HashSet::new()
        } else {
            self.write(&contiguous).await?
        };
        let rejected = batches
            .iter()
            .map(|(number, _)| *number)
            .filter(|number| !written.contains(number));
        let rejected: Vec<i64> = rejected.collect();
        let found = if rejected.is_empty() {
            HashMap::new()
        } else {
            self.find_heads(&rejected).await?
        };
        let outcome = |(number, batch): &(i64, &EncodedBatch)| {
            if written.contains(number) {
                AppendOutcome::Done(Ok(()))
            } else {
                AppendOutcome::of_rejected(batch, found.get(number))
            }
        };
        Ok(batches.iter().map(outcome).collect())
    }

    async fn write(
        &self,
        batches: &[&(i64, &EncodedBatch)],
    ) -> Result<HashSet<i64>, PostgresError> {
        let docs: Vec<i64> = batches.iter().map(|(number, _)| *number).collect();
        let of = |value: fn(&EncodedBatch) -> i64| {
            batches.iter().map(|(_, batch)| value(batch)).collect()
        };
        let epochs: Vec<i64> = of(|batch| batch.fence.epoch.0.cast_signed());
        let [firsts, lasts]: [Vec<i64>; 2] = [
            of(|batch| batch.first().0.cast_signed()),
            of(|batch| batch.last().0.cast_signed()),
        ];
        let tokens: Vec<_> = batches
            .iter()
            .map(|(_, batch)| batch.fence.token.to_be_bytes())
            .collect();
        let tokens: Vec<&[u8]> = tokens.iter().map(<[u8; 16]>::as_slice).collect();
        let mut new = EntryColumns::default();
        let mut lives = LivenessColumns::default();
        for (number, batch) in batches {
            for row in &batch.rows {
                new.push(*number, row);
            }
            if let Some(liveness) = &batch.liveness {
                lives.push(*number, liveness);
            }
        }
        let values: [&(dyn ToSql + Sync); 18] = [
            &docs,
            &epochs,
            &tokens,
            &firsts,
            &new.docs,
            &new.revisions,
            &new.epochs,
            &new.authors,
            &new.clients,
            &new.seqs,
            &new.times,
            &new.payloads,
            &new.checksums,
            &lives.docs,
            &lives.live,
            &lives.times,
            &lives.created,
            &lasts,
        ];
        let rows = self.query(&self.append, &values).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    async fn find_heads(&self, docs: &[i64]) -> Result<HashMap<i64, StoredHead>, PostgresError> {
        let rows = self.query(&self.find_heads, &[&docs]).await?;
        let found = |row: &Row| {
            let token: &[u8] = row.get(2);
            let fence = Fence {
                epoch: Epoch(row.get::<_, i64>(1).cast_unsigned()),
                token: u128::from_be_bytes(token.try_into().ok()?),
            };
            let head = Revision(row.get::<_, i64>(3).cast_unsigned());
            let last_epoch = Epoch(row.get::<_, i64>(4).cast_unsigned());
            let found = StoredHead {
                fence,
                head,
                last_epoch,
            };
            Some((row.get(0), found))
        };
        Ok(rows.iter().filter_map(found).collect())
    }

    /// Runs a statement and waits until the server has ended its transaction.
    async fn query(
        &self,
        statement: &Statement,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, PostgresError> {
        let answer = timeout(self.patience, self.client.query(statement, values)).await;
        Ok(answer.map_err(|_| PostgresError::Late(self.patience))??)
    }
}

impl Drop for AppendConnection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The columns of the entries.
#[derive(Default)]
struct EntryColumns<'a> {
    docs: Vec<i64>,
    revisions: Vec<i64>,
    epochs: Vec<i64>,
    authors: Vec<&'a [u8]>,
    clients: Vec<&'a str>,
    seqs: Vec<i64>,
    times: Vec<i64>,
    payloads: Vec<&'a [u8]>,
    checksums: Vec<i64>,
}

impl<'a> EntryColumns<'a> {
    fn push(&mut self, doc: i64, row: &'a EncodedEntry) {
        let entry = &row.entry;
        self.docs.push(doc);
        self.revisions.push(entry.revision.0.cast_signed());
        self.epochs.push(entry.epoch.0.cast_signed());
        self.authors.push(entry.id.author.as_str().as_bytes());
        self.clients.push(entry.id.client.as_str());
        self.seqs.push(entry.id.seq.cast_signed());
        self.times.push(entry.at_ms.cast_signed());
        self.payloads.push(&row.payload);
        self.checksums.push(row.checksum.cast_signed());
    }
}

/// The columns of the documents that are created or deleted.
#[derive(Default)]
struct LivenessColumns {
    docs: Vec<i64>,
    live: Vec<bool>,
    times: Vec<i64>,
    created: Vec<Option<i64>>,
}

impl LivenessColumns {
    fn push(&mut self, doc: i64, liveness: &Liveness) {
        self.docs.push(doc);
        self.live.push(liveness.live);
        self.times.push(liveness.at_ms.cast_signed());
        self.created
            .push(liveness.created_at_ms.map(u64::cast_signed));
    }
}
