//! The statement that appends: many documents, each under its fence, in one transaction.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::connect::PostgresConnector;
use super::error::PostgresError;
use super::number_cache;
use crate::id::DocId;
use crate::log::{Change, Entry, Epoch, Fence};
use crate::store::snapshot_codec::row_checksum;
use crate::store::{AppendError, Batch};

/// Appends the entries of the documents whose fence holds and whose first entry is the next one; says which those were.
///
/// A claim and an append of a document are in one order: each locks its row in `heads` to the end of its transaction,
/// and the two locks exclude one another. If the claim was first, the row is read anew and its token is another. A row
/// that is being claimed is passed over, so that nobody waits for it who shares the transaction. All rows of a document
/// depend on its row in `mine`: they are written wholly or not at all.
///
/// That the entry before the first is there is looked for by its key, which costs the same however long the log is: the
/// newest revision would be found by reading all of the document on its last page of the index. That none comes after
/// it is what the primary key says.
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
  WHERE asked.first - 1 = CASE asked.first WHEN 1 THEN 0 ELSE (
    SELECT old.revision FROM entries AS old WHERE old.doc = asked.doc AND old.revision = asked.first - 1) END
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

/// What is known of documents that were not appended to.
const VERDICT: &str = "
SELECT heads.doc, heads.epoch, heads.token, coalesce(
  (SELECT entries.revision FROM entries WHERE entries.doc = heads.doc ORDER BY entries.revision DESC LIMIT 1), 0)
FROM unnest($1::bigint[]) AS asked (doc)
JOIN heads USING (doc)";

/// One document's part of an append, encoded where it was asked for.
#[derive(Debug)]
pub(super) struct EncodedBatch {
    pub(super) doc: DocId,
    fence: Fence,
    rows: Vec<EncodedEntry>,
    life: Option<Liveness>,
}

#[derive(Debug)]
struct EncodedEntry {
    entry: Arc<Entry>,
    payload: Vec<u8>,
    checksum: u64,
}

/// Whether the document exists after a part's entries, where these say anything about it.
#[derive(Debug)]
struct Liveness {
    live: bool,
    at_ms: i64,
    created_at_ms: Option<i64>,
}

impl EncodedBatch {
    pub(super) fn new(batch: Batch) -> Self {
        let mut life: Option<Liveness> = None;
        for entry in &batch.entries {
            let live = match entry.change {
                Change::Create(_) => true,
                Change::Delete => false,
                Change::Edit(_) | Change::Nothing => continue,
            };
            let at_ms = entry.at_ms.cast_signed();
            let earlier = life.and_then(|life| life.created_at_ms);
            life = Some(Liveness {
                live,
                at_ms,
                created_at_ms: earlier.or(live.then_some(at_ms)),
            });
        }
        let rows = batch.entries.into_iter().map(|entry| {
            let payload = entry.change.encode();
            EncodedEntry {
                checksum: row_checksum(&entry, &payload),
                payload,
                entry,
            }
        });
        Self {
            rows: rows.collect(),
            doc: batch.doc,
            fence: batch.fence,
            life,
        }
    }

    /// A part without entries: it is not written.
    pub(super) fn empty(doc: DocId) -> Self {
        Self {
            doc,
            fence: Fence {
                epoch: Epoch(0),
                token: 0,
            },
            rows: Vec::new(),
            life: None,
        }
    }

    /// About how many bytes it writes.
    pub(super) fn weight(&self) -> usize {
        self.rows.iter().map(|row| row.payload.len() + 200).sum()
    }

    /// Whether each entry follows the one before it.
    fn is_contiguous(&self) -> bool {
        let revisions = self.rows.iter().map(|row| row.entry.revision.0);
        let first = self.rows.first().map_or(0, |row| row.entry.revision.0);
        revisions.eq((first..=u64::MAX).take(self.rows.len())) && !self.rows.is_empty()
    }

    fn first(&self) -> i64 {
        self.rows
            .first()
            .map_or(0, |row| row.entry.revision.0.cast_signed())
    }

    fn last(&self) -> i64 {
        self.rows
            .last()
            .map_or(0, |row| row.entry.revision.0.cast_signed())
    }

    /// What came of a part that was not written, by what the tables said a moment later.
    fn outcome(&self, found: Option<&StoredHead>) -> AppendOutcome {
        let Some(found) = found.filter(|found| found.fence == self.fence) else {
            return AppendOutcome::Done(Err(AppendError::Fenced));
        };
        if self.rows.is_empty() {
            AppendOutcome::Done(Ok(()))
        } else if self.is_contiguous() && self.first() == found.head + 1 {
            AppendOutcome::Busy
        } else {
            AppendOutcome::Done(Err(AppendError::Gap))
        }
    }
}

/// What came of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AppendOutcome {
    Done(Result<(), AppendError>),
    /// Not written, though its fence holds and its entries follow: somebody is claiming the document.
    Busy,
}

/// A document's fence and head, as they were found.
struct StoredHead {
    fence: Fence,
    head: i64,
}

/// A connection for appends, with its statements. It runs one statement at a time and is thrown away after the first
/// that it does not know the fate of. Never is the server asked to cancel one: a cancelled wait for the standbys reports
/// success.
pub(super) struct AppendConnection {
    client: Client,
    task: JoinHandle<()>,
    append: Statement,
    verdict: Statement,
    numbers: Statement,
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
                verdict: client.prepare(VERDICT).await?,
                numbers: client.prepare(number_cache::FIND).await?,
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

    /// Whether it can no longer be used.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Asks [`number_cache::FIND`].
    pub(super) async fn find_numbers(
        &self,
        (collections, ids): (Vec<&str>, Vec<&str>),
    ) -> Result<Vec<Row>, PostgresError> {
        self.query(&self.numbers, &[&collections, &ids]).await
    }

    /// Appends the parts of distinct documents, in one transaction. A fault is everybody's.
    pub(super) async fn append(
        &self,
        parts: &[(i64, &EncodedBatch)],
    ) -> Result<Vec<AppendOutcome>, PostgresError> {
        let mut sendable: Vec<_> = parts
            .iter()
            .filter(|(_, part)| part.is_contiguous())
            .collect();
        // The rows are locked in this order.
        sendable.sort_unstable_by_key(|(number, _)| *number);
        let written = if sendable.is_empty() {
            HashSet::new()
        } else {
            self.write(&sendable).await?
        };
        let left = parts
            .iter()
            .map(|(number, _)| *number)
            .filter(|number| !written.contains(number));
        let left: Vec<i64> = left.collect();
        let found = if left.is_empty() {
            HashMap::new()
        } else {
            self.find(&left).await?
        };
        let outcome = |(number, part): &(i64, &EncodedBatch)| {
            if written.contains(number) {
                AppendOutcome::Done(Ok(()))
            } else {
                part.outcome(found.get(number))
            }
        };
        Ok(parts.iter().map(outcome).collect())
    }

    async fn write(&self, parts: &[&(i64, &EncodedBatch)]) -> Result<HashSet<i64>, PostgresError> {
        let docs: Vec<i64> = parts.iter().map(|(number, _)| *number).collect();
        let of =
            |value: fn(&EncodedBatch) -> i64| parts.iter().map(|(_, part)| value(part)).collect();
        let epochs: Vec<i64> = of(|part| part.fence.epoch.0.cast_signed());
        let [firsts, lasts]: [Vec<i64>; 2] = [of(EncodedBatch::first), of(EncodedBatch::last)];
        let tokens: Vec<_> = parts
            .iter()
            .map(|(_, part)| part.fence.token.to_be_bytes())
            .collect();
        let tokens: Vec<&[u8]> = tokens.iter().map(<[u8; 16]>::as_slice).collect();
        let mut new = EntryColumns::default();
        let mut lives = LivenessColumns::default();
        for (number, part) in parts {
            for row in &part.rows {
                new.push(*number, row);
            }
            if let Some(life) = &part.life {
                lives.push(*number, life);
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

    async fn find(&self, docs: &[i64]) -> Result<HashMap<i64, StoredHead>, PostgresError> {
        let rows = self.query(&self.verdict, &[&docs]).await?;
        let found = |row: &Row| {
            let token: &[u8] = row.get(2);
            let fence = Fence {
                epoch: Epoch(row.get::<_, i64>(1).cast_unsigned()),
                token: u128::from_be_bytes(token.try_into().ok()?),
            };
            let head = row.get(3);
            Some((row.get(0), StoredHead { fence, head }))
        };
        Ok(rows.iter().filter_map(found).collect())
    }

    /// Runs a statement to its end: the answer comes with the server's word that the transaction is over.
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

/// The entries, column by column.
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

/// The documents that begin or end, column by column.
#[derive(Default)]
struct LivenessColumns {
    docs: Vec<i64>,
    live: Vec<bool>,
    times: Vec<i64>,
    created: Vec<Option<i64>>,
}

impl LivenessColumns {
    fn push(&mut self, doc: i64, life: &Liveness) {
        self.docs.push(doc);
        self.live.push(life.live);
        self.times.push(life.at_ms);
        self.created.push(life.created_at_ms);
    }
}
