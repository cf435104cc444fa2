//! Claims: those that arrive while one statement runs share the next one.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};

use super::error::PostgresError;
use super::lock_breaker;
use super::number_cache::NumberCache;
use super::pool::{Pool, PooledConnection};
use super::updated_at_queue::UpdatedAtQueue;
use crate::id::{DocId, NodeId};
use crate::log::{Epoch, Fence, Revision};
use crate::store::damage::HeadDamage;
use crate::store::{Lease, StoreError};
use crate::sync::lock;

/// How many claims may wait. While the queue is full, callers wait.
const QUEUE_MAX: usize = 4_096;

/// How many documents one statement claims.
const DOCUMENTS_MAX: usize = 1_000;

/// Records in `changes` which documents were claimed, for the other nodes.
macro_rules! record_changes {
    () => {
        "recorded AS (
  INSERT INTO changes (docs, epochs)
  SELECT array_agg(claimed.doc), array_agg(claimed.epoch)
  FROM claimed
  HAVING count(*) > 0
)"
    };
}

/// Claims documents that have a row: increments the epoch and sets the random token.
///
/// Not documents with a last entry of a later epoch: their fences are damaged, and new entries would have falling epochs.
///
/// `$locking`: whether rows that are locked by an append or another claim are skipped or waited for.
macro_rules! claim {
    ($locking:literal) => {
        concat!(
            "
WITH asked AS (
  SELECT *
  FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bigint[])
    WITH ORDINALITY AS asked (collection, id, token, owner, place)
), free AS (
  SELECT heads.doc, asked.token, asked.owner, asked.place
  FROM asked
  JOIN documents USING (collection, id)
  JOIN heads ON heads.doc = documents.number
  WHERE heads.epoch >= coalesce(
    (SELECT entries.epoch FROM entries WHERE entries.doc = heads.doc ORDER BY entries.revision DESC LIMIT 1), 0)
  ORDER BY heads.doc
  FOR NO KEY UPDATE OF heads",
            $locking,
            "
), claimed AS (
  UPDATE heads
  SET epoch = heads.epoch + 1, token = free.token, owner = free.owner, owner_name = $5, claimed_at = clock_timestamp()
  FROM free
  WHERE heads.doc = free.doc
  RETURNING free.place, heads.doc, heads.epoch
), ",
            record_changes!(),
            "
SELECT place, doc, epoch
FROM claimed"
        )
    };
}

const CLAIM_FREE: &str = claim!(" SKIP LOCKED");
pub(super) const CLAIM_WAITING: &str = claim!("");

/// Adds and claims the documents that were never claimed. Others are not changed.
const ADD: &str = concat!(
    "
WITH asked AS (
  SELECT *
  FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bigint[])
    WITH ORDINALITY AS asked (collection, id, token, owner, place)
), made AS (
  INSERT INTO documents (collection, id)
  SELECT asked.collection, asked.id
  FROM asked
  WHERE NOT EXISTS (
    SELECT 1
    FROM documents AS old
    WHERE old.collection = asked.collection AND old.id = asked.id)
  ORDER BY asked.collection COLLATE \"C\", asked.id COLLATE \"C\"
  ON CONFLICT DO NOTHING
  RETURNING number, collection, id
), claimed AS (
  INSERT INTO heads (doc, epoch, token, owner, owner_name, claimed_at)
  SELECT made.number, 1, asked.token, asked.owner, $5, clock_timestamp()
  FROM made
  JOIN asked USING (collection, id)
  RETURNING doc, epoch
), ",
    record_changes!(),
    "
SELECT asked.place, claimed.doc, claimed.epoch
FROM claimed
JOIN made ON made.number = claimed.doc
JOIN asked USING (collection, id)"
);

/// Whether a document has a row in `heads`, and whether its epoch is smaller than that of the last entry.
const FENCE_STATE: &str = "
SELECT heads.doc IS NOT NULL, heads.epoch < (
  SELECT entries.epoch FROM entries WHERE entries.doc = documents.number ORDER BY entries.revision DESC LIMIT 1)
FROM documents
LEFT JOIN heads ON heads.doc = documents.number
WHERE documents.collection = $1 AND documents.id = $2";

/// Sets the epoch of a fence to that of the last entry if it is smaller or there is no fence, with a token that no claim has.
const RESTORE_FENCE: &str = "
INSERT INTO heads (doc, epoch, token, owner, owner_name, claimed_at)
SELECT documents.number, coalesce(last.epoch, 0), $3, 0, '', clock_timestamp()
FROM documents
LEFT JOIN LATERAL (
  SELECT entries.epoch
  FROM entries
  WHERE entries.doc = documents.number
  ORDER BY entries.revision DESC
  LIMIT 1
) AS last ON true
WHERE documents.collection = $1 AND documents.id = $2
ON CONFLICT (doc) DO UPDATE
SET epoch = excluded.epoch, token = excluded.token, owner = 0, owner_name = '', claimed_at = excluded.claimed_at
WHERE heads.epoch < excluded.epoch
RETURNING doc";

/// Restores the fence of a document. Returns true if it was missing or damaged.
pub(super) async fn restore_fence(pool: &Pool, doc: &DocId) -> Result<bool, PostgresError> {
    let mut token = [0; 16];
    getrandom::fill(&mut token).map_err(|error| PostgresError::Other(error.to_string()))?;
    let (collection, id) = (doc.collection.as_str(), doc.id.as_str());
    let rows = pool
        .query(RESTORE_FENCE, &[&collection, &id, &token.as_slice()])
        .await?;
    Ok(!rows.is_empty())
}

/// The heads of the logs. A statement of its own, after the claim has ended: within the claim its snapshot would be
/// from the claim's beginning and miss what was appended before the claim got the lock.
const HEADS: &str = "
SELECT asked.doc, coalesce(
  (SELECT entries.revision FROM entries WHERE entries.doc = asked.doc ORDER BY entries.revision DESC LIMIT 1), 0)
FROM unnest($1::bigint[]) AS asked (doc)";

/// A claim in the queue, and the channel for its result.
pub(super) struct PendingClaim {
    doc: DocId,
    me: NodeId,
    token: [u8; 16],
    answer: oneshot::Sender<Result<Lease, StoreError>>,
}

/// The handle of the task that claims.
pub(super) struct ClaimQueue {
    /// `None` once it is closed.
    inbox: Mutex<Option<mpsc::Sender<PendingClaim>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl ClaimQueue {
    pub(super) fn start(claimer: Claimer) -> Self {
        let (inbox, claims) = mpsc::channel(QUEUE_MAX);
        Self {
            inbox: Mutex::new(Some(inbox)),
            task: Mutex::new(Some(tokio::spawn(run(Arc::new(claimer), claims)))),
        }
    }

    /// Claims a document for `me`.
    pub(super) async fn claim(&self, doc: &DocId, me: NodeId) -> Result<Lease, StoreError> {
        let closed = || PostgresError::Closed.into_store_error("claim");
        let mut token = [0; 16];
        getrandom::fill(&mut token).map_err(|error| StoreError::new("claim", error))?;
        let (answer, answered) = oneshot::channel();
        let claim = PendingClaim {
            doc: doc.clone(),
            me,
            token,
            answer,
        };
        let inbox = lock(&self.inbox).clone();
        inbox
            .ok_or_else(closed)?
            .send(claim)
            .await
            .map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// Waits until the queued claims are answered, at most until `deadline`.
    pub(super) async fn close(&self, deadline: Instant) {
        drop(lock(&self.inbox).take());
        let task = lock(&self.task).take();
        let Some(mut task) = task else { return };
        if timeout_at(deadline, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// Claims documents.
pub(super) struct Claimer {
    pub(super) pool: Pool,
    /// The name of this node.
    pub(super) name: Arc<str>,
    pub(super) numbers: Arc<NumberCache>,
    pub(super) updated_at: Arc<UpdatedAtQueue>,
    /// How long a row may be locked until the connection that holds it is ended.
    pub(super) lock_timeout: Duration,
    /// One claim at a time waits for a row, because it uses two connections.
    pub(super) waits: Semaphore,
    /// How long a claim may wait until it is its turn to wait for a row.
    pub(super) patience: Duration,
}

async fn run(claimer: Arc<Claimer>, mut inbox: mpsc::Receiver<PendingClaim>) {
    let mut locked = JoinSet::new();
    let mut claims = Vec::new();
    loop {
        while locked.try_join_next().is_some() {}
        if claims.is_empty() && inbox.recv_many(&mut claims, DOCUMENTS_MAX).await == 0 {
            break;
        }
        // Two claims of one document need two epochs, so the second one is in a later statement.
        let mut met = HashSet::new();
        let (wave, later) = claims
            .drain(..)
            .partition::<Vec<_>, _>(|claim| met.insert(claim.doc.clone()));
        claims = later;
        for claim in claimer.claim_unlocked(wave).await {
            let claimer = Arc::clone(&claimer);
            locked.spawn(async move { claimer.claim_locked(claim).await });
        }
    }
    while locked.join_next().await.is_some() {}
}

impl Claimer {
    /// Claims the documents with unlocked rows and answers their claims. Returns the others.
    async fn claim_unlocked(&self, claims: Vec<PendingClaim>) -> Vec<PendingClaim> {
        let mut claimed = HashMap::new();
        match self.try_claim(&claims, &mut claimed).await {
            Ok(leases) => {
                let mut locked = Vec::new();
                for (place, claim) in claims.into_iter().enumerate() {
                    match leases.get(&place) {
                        Some(lease) => drop(claim.answer.send(Ok(*lease))),
                        None => locked.push(claim),
                    }
                }
                locked
            }
            Err(error) => {
                fail(claims, &error);
                Vec::new()
            }
        }
    }

    /// The leases by the positions of their claims. A claim without a lease found its document's row locked.
    async fn try_claim(
        &self,
        claims: &[PendingClaim],
        claimed: &mut HashMap<usize, (i64, Fence)>,
    ) -> Result<HashMap<usize, Lease>, PostgresError> {
        let mut connection = self.pool.acquire().await?;
        self.run_statement(&mut connection, CLAIM_FREE, claims, |_| true, claimed)
            .await?;
        // A document that was in the database before is not added again: its row is locked, damaged or lost.
        let is_new = |claim: &PendingClaim| !self.numbers.contains(&claim.doc);
        if (0..claims.len()).any(|at| !claimed.contains_key(&at) && is_new(&claims[at])) {
            self.run_statement(&mut connection, ADD, claims, is_new, claimed)
                .await?;
        }
        self.leases(&mut connection, claimed).await
    }

    /// Runs one of the statements for those of the claims that have no fence yet.
    async fn run_statement(
        &self,
        connection: &mut PooledConnection,
        sql: &'static str,
        claims: &[PendingClaim],
        those: impl Fn(&PendingClaim) -> bool,
        claimed: &mut HashMap<usize, (i64, Fence)>,
    ) -> Result<(), PostgresError> {
        let left: Vec<_> = (0..claims.len())
            .filter(|at| !claimed.contains_key(at) && those(&claims[*at]))
            .collect();
        let of = |at: &usize| &claims[*at];
        let collections: Vec<_> = left
            .iter()
            .map(|at| of(at).doc.collection.as_str())
            .collect();
        let ids: Vec<_> = left.iter().map(|at| of(at).doc.id.as_str()).collect();
        let tokens: Vec<_> = left.iter().map(|at| of(at).token.as_slice()).collect();
        let owners: Vec<_> = left.iter().map(|at| of(at).me.0.cast_signed()).collect();
        let name = self.name.as_bytes();
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&collections, &ids, &tokens, &owners, &name];
        for row in connection.query(sql, &values).await? {
            let place = usize::try_from(row.get::<_, i64>(0)).unwrap_or(0) - 1;
            let at = left[place];
            let fence = Fence {
                epoch: Epoch(row.get::<_, i64>(2).cast_unsigned()),
                token: u128::from_be_bytes(claims[at].token),
            };
            self.numbers.insert(&claims[at].doc, row.get(1));
            claimed.insert(at, (row.get(1), fence));
        }
        Ok(())
    }

    async fn leases(
        &self,
        connection: &mut PooledConnection,
        claimed: &HashMap<usize, (i64, Fence)>,
    ) -> Result<HashMap<usize, Lease>, PostgresError> {
        let docs: Vec<i64> = claimed.values().map(|(doc, _)| *doc).collect();
        if docs.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = connection.query(HEADS, &[&docs]).await?;
        let heads: HashMap<i64, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        // A crash may have lost the update of updated_at_ms.
        let edited = heads.iter().filter(|(_, head)| **head > 0);
        self.updated_at
            .stage(edited.map(|(doc, _)| *doc), Instant::now());
        let lease = |(at, (doc, fence)): (&usize, &(i64, Fence))| {
            let head = Revision(heads.get(doc).copied().unwrap_or(0).cast_unsigned());
            (
                *at,
                Lease {
                    fence: *fence,
                    head,
                },
            )
        };
        Ok(claimed.iter().map(lease).collect())
    }

    /// Claims a document with a locked row: waits for the lock, and after `lock_timeout` ends the connection that
    /// holds it.
    async fn claim_locked(&self, claim: PendingClaim) {
        let claims = [claim];
        let mut claimed = HashMap::new();
        let lease = match timeout(self.patience, self.waits.acquire()).await {
            Ok(Ok(_turn)) => self.wait_and_claim(&claims, &mut claimed).await,
            _ => Err(PostgresError::Other(
                "the rows of many documents are locked".to_owned(),
            )),
        };
        let [claim] = claims;
        let _ = match lease {
            Ok(lease) => claim.answer.send(Ok(lease)),
            Err(PostgresError::Head(doc, damage)) => {
                damage.report(&doc);
                claim
                    .answer
                    .send(Err(damage.into_store_error("claim", &doc)))
            }
            Err(error) => return fail(vec![claim], &error),
        };
    }

    async fn wait_and_claim(
        &self,
        claims: &[PendingClaim],
        claimed: &mut HashMap<usize, (i64, Fence)>,
    ) -> Result<Lease, PostgresError> {
        let mut connection = self.pool.acquire().await?;
        let pid = lock_breaker::backend_pid(&mut connection).await?;
        {
            let claiming =
                self.run_statement(&mut connection, CLAIM_WAITING, claims, |_| true, claimed);
            let breaking = lock_breaker::break_locks(&self.pool, pid, self.lock_timeout);
            tokio::pin!(claiming, breaking);
            tokio::select! {
                biased;
                done = &mut claiming => done?,
                () = &mut breaking => claiming.await?,
            }
        }
        let leases = self.leases(&mut connection, claimed).await?;
        if let Some(lease) = leases.get(&0) {
            return Ok(*lease);
        }
        Err(self.unclaimable(&mut connection, &claims[0].doc).await?)
    }

    /// Why a document without a locked row was not claimed: it is damaged, or another node has added it meanwhile.
    async fn unclaimable(
        &self,
        connection: &mut PooledConnection,
        doc: &DocId,
    ) -> Result<PostgresError, PostgresError> {
        let names = (doc.collection.as_str(), doc.id.as_str());
        let rows = connection.query(FENCE_STATE, &[&names.0, &names.1]).await?;
        let damage = match rows.first() {
            None if self.numbers.contains(doc) => HeadDamage::MissingDocument,
            Some(row) if !row.get::<_, bool>(0) => HeadDamage::MissingFence,
            Some(row) if row.get::<_, Option<bool>>(1) == Some(true) => HeadDamage::EpochBehindLog,
            _ => {
                return Ok(PostgresError::Other(format!(
                    "{doc}: another node claimed it for the first time at this moment"
                )));
            }
        };
        Ok(PostgresError::Head(doc.clone(), damage))
    }
}

fn fail(claims: Vec<PendingClaim>, error: &PostgresError) {
    for claim in claims {
        let reason = format!("{}: {error}", claim.doc);
        let _ = claim.answer.send(Err(StoreError::new("claim", reason)));
    }
}
