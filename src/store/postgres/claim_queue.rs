//! Claims: whoever asks while one statement is under way shares the next.

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
use crate::store::{Lease, StoreError};
use crate::sync::lock;

/// How many claims may wait. When the queue is full, whoever asks waits.
const QUEUE_MAX: usize = 4_096;

/// How many documents one statement claims.
const DOCUMENTS_MAX: usize = 1_000;

/// Tells the other nodes which documents were claimed.
macro_rules! noted {
    () => {
        "noted AS (
  INSERT INTO changes (docs, epochs)
  SELECT array_agg(claimed.doc), array_agg(claimed.epoch)
  FROM claimed
  HAVING count(*) > 0
)"
    };
}

/// Takes the right to append to documents that are known: one more epoch, and the token that was drawn for it.
///
/// `$locking` says what becomes of rows that an append or another claim holds: passed over, or waited for.
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
            noted!(),
            "
SELECT place, doc, epoch
FROM claimed"
        )
    };
}

const CLAIM_FREE: &str = claim!(" SKIP LOCKED");
pub(super) const CLAIM_WAITING: &str = claim!("");

/// Makes documents known that nobody claimed before, as claimed. The others are left as they are.
const MAKE: &str = concat!(
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
    noted!(),
    "
SELECT asked.place, claimed.doc, claimed.epoch
FROM claimed
JOIN made ON made.number = claimed.doc
JOIN asked USING (collection, id)"
);

/// How many entries each log holds. A statement of its own, after the claim's end: within the claim it would be as old
/// as the claim's beginning, and miss what was appended before the claim got its row.
const HEADS: &str = "
SELECT asked.doc, coalesce(
  (SELECT entries.revision FROM entries WHERE entries.doc = asked.doc ORDER BY entries.revision DESC LIMIT 1), 0)
FROM unnest($1::bigint[]) AS asked (doc)";

/// A claim that waits, and where its answer goes.
pub(super) struct PendingClaim {
    doc: DocId,
    me: NodeId,
    token: [u8; 16],
    answer: oneshot::Sender<Result<Lease, Arc<str>>>,
}

/// The way to the task that claims.
pub(super) struct ClaimQueue {
    /// `None` once it is closed.
    inbox: Mutex<Option<mpsc::Sender<PendingClaim>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl ClaimQueue {
    pub(super) fn start(claimer: Claimer) -> Self {
        let (inbox, asks) = mpsc::channel(QUEUE_MAX);
        Self {
            inbox: Mutex::new(Some(inbox)),
            task: Mutex::new(Some(tokio::spawn(run(Arc::new(claimer), asks)))),
        }
    }

    /// Claims a document for `me`.
    pub(super) async fn claim(&self, doc: &DocId, me: NodeId) -> Result<Lease, StoreError> {
        let closed = || PostgresError::Closed.into_store_error("claim");
        let mut token = [0; 16];
        getrandom::fill(&mut token).map_err(|error| StoreError::new("claim", error))?;
        let (answer, answered) = oneshot::channel();
        let ask = PendingClaim {
            doc: doc.clone(),
            me,
            token,
            answer,
        };
        let inbox = lock(&self.inbox).clone();
        inbox
            .ok_or_else(closed)?
            .send(ask)
            .await
            .map_err(|_| closed())?;
        let lease = answered.await.map_err(|_| closed())?;
        lease.map_err(|why| StoreError::new("claim", why))
    }

    /// Lets what waits be answered, at most until `deadline`.
    pub(super) async fn close(&self, deadline: Instant) {
        drop(lock(&self.inbox).take());
        let task = lock(&self.task).take();
        let Some(mut task) = task else { return };
        if timeout_at(deadline, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// What claims need.
pub(super) struct Claimer {
    pub(super) pool: Pool,
    /// What people call this node.
    pub(super) name: Arc<str>,
    pub(super) numbers: Arc<NumberCache>,
    pub(super) touches: Arc<UpdatedAtQueue>,
    /// How long a row may be held until who holds it is ended.
    pub(super) lock_timeout: Duration,
    /// One claim at a time waits for a row: while it does, it has two connections.
    pub(super) waits: Semaphore,
    /// How long a claim may wait for its turn to wait.
    pub(super) patience: Duration,
}

async fn run(claimer: Arc<Claimer>, mut inbox: mpsc::Receiver<PendingClaim>) {
    let mut held = JoinSet::new();
    let mut asks = Vec::new();
    loop {
        while held.try_join_next().is_some() {}
        if asks.is_empty() && inbox.recv_many(&mut asks, DOCUMENTS_MAX).await == 0 {
            break;
        }
        // Two claims of one document are two epochs.
        let mut met = HashSet::new();
        let (wave, later) = asks
            .drain(..)
            .partition::<Vec<_>, _>(|ask| met.insert(ask.doc.clone()));
        asks = later;
        for ask in claimer.claim(wave).await {
            let claimer = Arc::clone(&claimer);
            held.spawn(async move { claimer.claim_held(ask).await });
        }
    }
    while held.join_next().await.is_some() {}
}

impl Claimer {
    /// Claims those that nobody holds, and answers them. Returns the others.
    async fn claim(&self, asks: Vec<PendingClaim>) -> Vec<PendingClaim> {
        let mut claimed = HashMap::new();
        match self.try_claim(&asks, &mut claimed).await {
            Ok(leases) => {
                let mut held = Vec::new();
                for (place, ask) in asks.into_iter().enumerate() {
                    match leases.get(&place) {
                        Some(lease) => drop(ask.answer.send(Ok(*lease))),
                        None => held.push(ask),
                    }
                }
                held
            }
            Err(fault) => {
                fail(asks, &fault);
                Vec::new()
            }
        }
    }

    /// The leases, by the places of who asked. Where there is none, somebody holds the document's row.
    async fn try_claim(
        &self,
        asks: &[PendingClaim],
        claimed: &mut HashMap<usize, (i64, Fence)>,
    ) -> Result<HashMap<usize, Lease>, PostgresError> {
        let mut connection = self.pool.acquire().await?;
        self.ask(&mut connection, CLAIM_FREE, asks, claimed).await?;
        if claimed.len() < asks.len() {
            self.ask(&mut connection, MAKE, asks, claimed).await?;
        }
        self.leases(&mut connection, claimed).await
    }

    /// Runs one of the statements for those that are not claimed yet.
    async fn ask(
        &self,
        connection: &mut PooledConnection,
        sql: &'static str,
        asks: &[PendingClaim],
        claimed: &mut HashMap<usize, (i64, Fence)>,
    ) -> Result<(), PostgresError> {
        let left: Vec<_> = (0..asks.len())
            .filter(|at| !claimed.contains_key(at))
            .collect();
        let of = |at: &usize| &asks[*at];
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
                token: u128::from_be_bytes(asks[at].token),
            };
            self.numbers.insert(&asks[at].doc, row.get(1));
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
        // A crash may have kept the time of the last edit from the list.
        let edited = heads.iter().filter(|(_, head)| **head > 0);
        self.touches
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

    /// Claims a document whose row somebody holds: waits for it, and after a while ends who holds it.
    async fn claim_held(&self, ask: PendingClaim) {
        let asks = [ask];
        let mut claimed = HashMap::new();
        let lease = match timeout(self.patience, self.waits.acquire()).await {
            Ok(Ok(_turn)) => self.wait_and_claim(&asks, &mut claimed).await,
            _ => Err(PostgresError::Other(
                "many documents' rows are held".to_owned(),
            )),
        };
        let [ask] = asks;
        let answer = lease.map_err(|fault| format!("{}: {fault}", ask.doc).into());
        let _ = ask.answer.send(answer);
    }

    async fn wait_and_claim(
        &self,
        asks: &[PendingClaim],
        claimed: &mut HashMap<usize, (i64, Fence)>,
    ) -> Result<Lease, PostgresError> {
        let mut connection = self.pool.acquire().await?;
        let pid = lock_breaker::backend_pid(&mut connection).await?;
        {
            let claim = self.ask(&mut connection, CLAIM_WAITING, asks, claimed);
            let free = lock_breaker::break_locks(&self.pool, pid, self.lock_timeout);
            tokio::pin!(claim, free);
            tokio::select! {
                biased;
                done = &mut claim => done?,
                () = &mut free => claim.await?,
            }
        }
        let leases = self.leases(&mut connection, claimed).await?;
        let lease = leases.get(&0).copied();
        lease.ok_or_else(|| {
            PostgresError::Other("another node made it known at this moment".to_owned())
        })
    }
}

fn fail(asks: Vec<PendingClaim>, fault: &PostgresError) {
    let why: Arc<str> = fault.to_string().into();
    for ask in asks {
        let _ = ask.answer.send(Err(Arc::clone(&why)));
    }
}
