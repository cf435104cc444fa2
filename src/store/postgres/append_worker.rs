//! A lane: one connection that appends, and what waits for it.
//!
//! While a statement is under way, parts gather; when it answers, all that gathered becomes the next one. A document's
//! parts always take the same lane, one statement after the other. Under load a lane rests between two statements, so that
//! more gathers: a statement costs Postgres as much as many parts.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::append::{AppendConnection, AppendOutcome, EncodedBatch};
use super::connect::PostgresConnector;
use super::error::{FailureKind, PostgresError};
use super::number_cache::NumberCache;
use super::outages::Outages;
use super::updated_at_queue::UpdatedAtQueue;
use crate::id::DocId;
use crate::store::{AppendError, StoreError};
use crate::sync::lock;

/// How many appends may wait in a lane's inbox, and about how many parts beyond it. When both are full, whoever asks
/// waits.
const QUEUE_MAX: usize = 512;

/// How many documents one statement carries: with more the latency grows, and the rate does not.
const DOCUMENTS_MAX: usize = 200;

/// A statement takes no more parts once it weighs this many bytes.
const WEIGHT_MAX: usize = 2 << 20;

/// A lane rests for a millisecond for so many documents of its last statement: it does not where few write, and whoever
/// writes alone never waits.
const DOCUMENTS_A_MS: usize = 2;

/// The longest rest, in milliseconds.
const REST_MAX_MS: usize = 5;

/// How long an append is tried while somebody claims its document. Most claims are over after a few milliseconds.
const BUSY_MAX: Duration = Duration::from_secs(1);

/// How long such an append waits between two tries.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// What whoever asked for a part's append is told; an error's words where its fate is unknown.
pub(super) type AppendReply = Result<Result<(), AppendError>, Arc<str>>;

/// A part, and where its answer goes.
pub(super) type AppendRequest = (EncodedBatch, oneshot::Sender<AppendReply>);

/// The same, in line.
struct PendingAppend {
    part: EncodedBatch,
    answer: oneshot::Sender<AppendReply>,
    /// When it is tried (again).
    due: Instant,
    /// Until when a busy document is tried.
    until: Instant,
}

/// The way into a lane. Dropped or closed, it lets the lane finish what waits.
pub(super) struct AppendWorker {
    /// `None` once it is closed.
    inbox: Mutex<Option<mpsc::Sender<Vec<PendingAppend>>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl AppendWorker {
    pub(super) fn start(
        connector: PostgresConnector,
        patience: Duration,
        numbers: Arc<NumberCache>,
        touches: Arc<UpdatedAtQueue>,
    ) -> Self {
        let (inbox, outbox) = mpsc::channel(QUEUE_MAX);
        let runner = AppendTask {
            inbox: outbox,
            waiting: VecDeque::new(),
            connection: None,
            connector,
            patience,
            numbers,
            touches,
            outages: Outages::new("append"),
        };
        Self {
            inbox: Mutex::new(Some(inbox)),
            task: Mutex::new(Some(tokio::spawn(runner.run()))),
        }
    }

    /// Puts parts in line, together: they share a statement if it has room. Their answers come, whatever happens; an
    /// answer that does not come says that the lane ended.
    pub(super) async fn send(&self, asked: Vec<AppendRequest>) -> Result<(), StoreError> {
        let closed = || PostgresError::Closed.into_store_error("append");
        let now = Instant::now();
        let waiting = asked.into_iter().map(|(part, answer)| PendingAppend {
            part,
            answer,
            due: now,
            until: now + BUSY_MAX,
        });
        let inbox = lock(&self.inbox).clone().ok_or_else(closed)?;
        inbox.send(waiting.collect()).await.map_err(|_| closed())
    }

    /// Has the lane take a part of a document that does not exist: it is answered when the lane has a connection, and
    /// when all that waits before it is written.
    pub(super) async fn check(&self) -> Result<(), StoreError> {
        let doc =
            DocId::parse("check", "check").map_err(|error| StoreError::new("check", error))?;
        let (answer, answered) = oneshot::channel();
        self.send(vec![(EncodedBatch::empty(doc), answer)]).await?;
        let answer = answered
            .await
            .map_err(|_| PostgresError::Closed.into_store_error("check"))?;
        answer
            .map(drop)
            .map_err(|why| StoreError::new("append", why))
    }

    /// Lets the lane finish what waits, at most until `deadline`.
    pub(super) async fn close(&self, deadline: Instant) {
        drop(lock(&self.inbox).take());
        let Some(mut task) = lock(&self.task).take() else {
            return;
        };
        if timeout_at(deadline, &mut task).await.is_err() {
            task.abort();
        }
    }
}

struct AppendTask {
    inbox: mpsc::Receiver<Vec<PendingAppend>>,
    /// In the order in which they came. At most one statement's worth of busy ones and what came meanwhile.
    waiting: VecDeque<PendingAppend>,
    /// `None` before the first append and after a fault.
    connection: Option<AppendConnection>,
    connector: PostgresConnector,
    patience: Duration,
    numbers: Arc<NumberCache>,
    touches: Arc<UpdatedAtQueue>,
    outages: Outages,
}

impl AppendTask {
    async fn run(mut self) {
        while let Some(picked) = self.next().await {
            let rest_ms = (picked.len() / DOCUMENTS_A_MS).min(REST_MAX_MS);
            self.commit(picked).await;
            if rest_ms > 0 {
                sleep(Duration::from_millis(rest_ms as u64)).await;
            }
        }
    }

    /// What the next statement carries; waits for it. `None`: nobody is left who could ask.
    async fn next(&mut self) -> Option<Vec<PendingAppend>> {
        loop {
            while self.waiting.len() < QUEUE_MAX
                && let Ok(waiting) = self.inbox.try_recv()
            {
                self.waiting.extend(waiting);
            }
            let now = Instant::now();
            let picked = self.pick(now);
            if !picked.is_empty() {
                return Some(picked);
            }
            let later = self.waiting.iter().map(|it| it.due).filter(|it| *it > now);
            let Some(due) = later.min() else {
                self.waiting.extend(self.inbox.recv().await?);
                continue;
            };
            if self.waiting.len() >= QUEUE_MAX || self.inbox.is_closed() {
                sleep_until(due).await;
            } else if let Ok(Some(waiting)) = timeout_at(due, self.inbox.recv()).await {
                self.waiting.extend(waiting);
            }
        }
    }

    /// Takes what is due: of each document the first, and none whose document has one before it.
    fn pick(&mut self, now: Instant) -> Vec<PendingAppend> {
        let (mut picked, mut weight) = (Vec::new(), 0);
        let mut kept = VecDeque::new();
        let mut met = HashSet::new();
        for waiting in self.waiting.drain(..) {
            let is_first = met.insert(waiting.part.doc.clone());
            let has_room = picked.len() < DOCUMENTS_MAX && weight < WEIGHT_MAX;
            if is_first && has_room && waiting.due <= now {
                weight += waiting.part.weight();
                picked.push(waiting);
            } else {
                kept.push_back(waiting);
            }
        }
        self.waiting = kept;
        picked
    }

    /// Appends in one statement; when something in it is at fault, in one for each, so that only that is refused. Where a
    /// lock was waited for in vain, it is in the way of the others as well: each would wait for it in turn.
    async fn commit(&mut self, picked: Vec<PendingAppend>) {
        match self.attempt(&picked).await {
            Ok(outcomes) => {
                self.outages.record_success();
                self.answer(picked, outcomes);
            }
            Err(fault) if fault.kind() == FailureKind::Unknown => self.fail(picked, &fault),
            Err(fault) if fault.kind() == FailureKind::Data && picked.len() > 1 => {
                tracing::warn!(error = %fault, documents = picked.len(), "appends one by one what cannot be appended at once");
                for waiting in picked {
                    self.commit_alone(waiting).await;
                }
            }
            Err(fault) => picked
                .into_iter()
                .for_each(|waiting| refuse(waiting, &fault)),
        }
    }

    async fn commit_alone(&mut self, waiting: PendingAppend) {
        let picked = vec![waiting];
        match self.attempt(&picked).await {
            Ok(outcomes) => self.answer(picked, outcomes),
            Err(fault) if fault.kind() == FailureKind::Unknown => self.fail(picked, &fault),
            Err(fault) => picked
                .into_iter()
                .for_each(|waiting| refuse(waiting, &fault)),
        }
    }

    /// After an error of unknown fate the connection is not used again.
    async fn attempt(
        &mut self,
        picked: &[PendingAppend],
    ) -> Result<Vec<AppendOutcome>, PostgresError> {
        let connection = match self
            .connection
            .take()
            .filter(|connection| !connection.is_closed())
        {
            Some(connection) => connection,
            None => AppendConnection::open(&self.connector, self.patience).await?,
        };
        let outcome = self.append(&connection, picked).await;
        let is_known = outcome
            .as_ref()
            .map_or_else(|fault| fault.kind() != FailureKind::Unknown, |_| true);
        if is_known {
            self.connection = Some(connection);
        }
        outcome
    }

    async fn append(
        &self,
        connection: &AppendConnection,
        picked: &[PendingAppend],
    ) -> Result<Vec<AppendOutcome>, PostgresError> {
        let docs = picked.iter().map(|waiting| &waiting.part.doc);
        let mut lookup = self.numbers.look_up(docs);
        if let Some(question) = lookup.missing() {
            lookup.add(&self.numbers, &connection.find_numbers(question).await?);
        }
        let parts: Vec<_> = lookup
            .numbers()
            .zip(picked)
            .filter_map(|(number, waiting)| Some((number?, &waiting.part)))
            .collect();
        let outcomes = connection.append(&parts).await?;
        let written = parts.iter().zip(&outcomes);
        let written = written.filter(|(_, outcome)| **outcome == AppendOutcome::Done(Ok(())));
        let numbers = written.map(|((number, _), _)| *number);
        self.touches.stage(numbers, Instant::now());
        let mut outcomes = outcomes.into_iter();
        // A document that has no number was never claimed.
        let outcome = |number: Option<i64>| {
            number
                .and_then(|_| outcomes.next())
                .unwrap_or(AppendOutcome::Done(Err(AppendError::Fenced)))
        };
        Ok(lookup.numbers().map(outcome).collect())
    }

    fn answer(&mut self, picked: Vec<PendingAppend>, outcomes: Vec<AppendOutcome>) {
        let now = Instant::now();
        for (mut waiting, outcome) in picked.into_iter().zip(outcomes).rev() {
            match outcome {
                AppendOutcome::Done(outcome) => {
                    if outcome == Err(AppendError::Fenced) {
                        // Should the database be another than it was, the next claim learns the number anew.
                        self.numbers.remove(&waiting.part.doc);
                    }
                    // Whoever asked may have gone away.
                    let _ = waiting.answer.send(Ok(outcome));
                }
                AppendOutcome::Busy if now < waiting.until => {
                    // Before what came later for the same document.
                    waiting.due = now + BUSY_PAUSE;
                    self.waiting.push_front(waiting);
                }
                AppendOutcome::Busy => {
                    let why = format!("{}: somebody is claiming it", waiting.part.doc);
                    let _ = waiting.answer.send(Err(why.into()));
                }
            }
        }
    }

    fn fail(&mut self, picked: Vec<PendingAppend>, fault: &PostgresError) {
        if fault.is_outage() {
            self.outages.record_failure(fault);
        } else {
            tracing::error!(error = %fault, documents = picked.len(), "an append has an unknown outcome and no outage explains it");
        }
        let why: Arc<str> = fault.to_string().into();
        for waiting in picked {
            let _ = waiting.answer.send(Err(Arc::clone(&why)));
        }
    }
}

/// Answers for a part that was surely not appended, by its own fault or because its document's row was held.
fn refuse(waiting: PendingAppend, fault: &PostgresError) {
    let answer = match fault.kind() {
        FailureKind::Data => {
            tracing::error!(doc = %waiting.part.doc, error = %fault, "refused what does not fit into the log");
            Ok(Err(AppendError::Gap))
        }
        FailureKind::Lock | FailureKind::Unknown => Err(fault.to_string().into()),
    };
    let _ = waiting.answer.send(answer);
}
