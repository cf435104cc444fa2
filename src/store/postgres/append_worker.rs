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

use super::append::{Link, Outcome, Part};
use super::connect::Connector;
use super::error::{Fault, Kind};
use super::number_cache::Numbers;
use super::outages::Outages;
use super::updated_at_queue::Touches;
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
pub(super) type Answer = Result<Result<(), AppendError>, Arc<str>>;

/// A part, and where its answer goes.
pub(super) type Asked = (Part, oneshot::Sender<Answer>);

/// The same, in line.
struct Waiting {
    part: Part,
    answer: oneshot::Sender<Answer>,
    /// When it is tried (again).
    due: Instant,
    /// Until when a busy document is tried.
    until: Instant,
}

/// The way into a lane. Dropped or closed, it lets the lane finish what waits.
pub(super) struct Lane {
    /// `None` once it is closed.
    inbox: Mutex<Option<mpsc::Sender<Vec<Waiting>>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Lane {
    pub(super) fn start(
        connector: Connector,
        patience: Duration,
        numbers: Arc<Numbers>,
        touches: Arc<Touches>,
    ) -> Self {
        let (inbox, outbox) = mpsc::channel(QUEUE_MAX);
        let runner = Runner {
            inbox: outbox,
            waiting: VecDeque::new(),
            link: None,
            connector,
            patience,
            numbers,
            touches,
            outages: Outages::of("append"),
        };
        Self {
            inbox: Mutex::new(Some(inbox)),
            task: Mutex::new(Some(tokio::spawn(runner.run()))),
        }
    }

    /// Puts parts in line, together: they share a statement if it has room. Their answers come, whatever happens; an
    /// answer that does not come says that the lane ended.
    pub(super) async fn send(&self, asked: Vec<Asked>) -> Result<(), StoreError> {
        let closed = || Fault::Closed.of("append");
        let now = Instant::now();
        let waiting = asked.into_iter().map(|(part, answer)| Waiting {
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
        self.send(vec![(Part::empty(doc), answer)]).await?;
        let answer = answered.await.map_err(|_| Fault::Closed.of("check"))?;
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

struct Runner {
    inbox: mpsc::Receiver<Vec<Waiting>>,
    /// In the order in which they came. At most one statement's worth of busy ones and what came meanwhile.
    waiting: VecDeque<Waiting>,
    /// `None` before the first append and after a fault.
    link: Option<Link>,
    connector: Connector,
    patience: Duration,
    numbers: Arc<Numbers>,
    touches: Arc<Touches>,
    outages: Outages,
}

impl Runner {
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
    async fn next(&mut self) -> Option<Vec<Waiting>> {
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
    fn pick(&mut self, now: Instant) -> Vec<Waiting> {
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
    async fn commit(&mut self, picked: Vec<Waiting>) {
        match self.attempt(&picked).await {
            Ok(outcomes) => {
                self.outages.answered();
                self.answer(picked, outcomes);
            }
            Err(fault) if fault.kind() == Kind::Unknown => self.fail(picked, &fault),
            Err(fault) if fault.kind() == Kind::Data && picked.len() > 1 => {
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

    async fn commit_alone(&mut self, waiting: Waiting) {
        let picked = vec![waiting];
        match self.attempt(&picked).await {
            Ok(outcomes) => self.answer(picked, outcomes),
            Err(fault) if fault.kind() == Kind::Unknown => self.fail(picked, &fault),
            Err(fault) => picked
                .into_iter()
                .for_each(|waiting| refuse(waiting, &fault)),
        }
    }

    /// After an error of unknown fate the connection is not used again.
    async fn attempt(&mut self, picked: &[Waiting]) -> Result<Vec<Outcome>, Fault> {
        let link = match self.link.take().filter(|link| !link.is_closed()) {
            Some(link) => link,
            None => Link::open(&self.connector, self.patience).await?,
        };
        let outcome = self.append(&link, picked).await;
        let is_known = outcome
            .as_ref()
            .map_or_else(|fault| fault.kind() != Kind::Unknown, |_| true);
        if is_known {
            self.link = Some(link);
        }
        outcome
    }

    async fn append(&self, link: &Link, picked: &[Waiting]) -> Result<Vec<Outcome>, Fault> {
        let docs = picked.iter().map(|waiting| &waiting.part.doc);
        let mut lookup = self.numbers.look_up(docs);
        if let Some(question) = lookup.question() {
            lookup.learn(&self.numbers, &link.find_numbers(question).await?);
        }
        let parts: Vec<_> = lookup
            .numbers()
            .zip(picked)
            .filter_map(|(number, waiting)| Some((number?, &waiting.part)))
            .collect();
        let outcomes = link.append(&parts).await?;
        let written = parts.iter().zip(&outcomes);
        let written = written.filter(|(_, outcome)| **outcome == Outcome::Done(Ok(())));
        let numbers = written.map(|((number, _), _)| *number);
        self.touches.stage(numbers, Instant::now());
        let mut outcomes = outcomes.into_iter();
        // A document that has no number was never claimed.
        let outcome = |number: Option<i64>| {
            number
                .and_then(|_| outcomes.next())
                .unwrap_or(Outcome::Done(Err(AppendError::Fenced)))
        };
        Ok(lookup.numbers().map(outcome).collect())
    }

    fn answer(&mut self, picked: Vec<Waiting>, outcomes: Vec<Outcome>) {
        let now = Instant::now();
        for (mut waiting, outcome) in picked.into_iter().zip(outcomes).rev() {
            match outcome {
                Outcome::Done(outcome) => {
                    if outcome == Err(AppendError::Fenced) {
                        // Should the database be another than it was, the next claim learns the number anew.
                        self.numbers.forget(&waiting.part.doc);
                    }
                    // Whoever asked may have gone away.
                    let _ = waiting.answer.send(Ok(outcome));
                }
                Outcome::Busy if now < waiting.until => {
                    // Before what came later for the same document.
                    waiting.due = now + BUSY_PAUSE;
                    self.waiting.push_front(waiting);
                }
                Outcome::Busy => {
                    let why = format!("{}: somebody is claiming it", waiting.part.doc);
                    let _ = waiting.answer.send(Err(why.into()));
                }
            }
        }
    }

    fn fail(&mut self, picked: Vec<Waiting>, fault: &Fault) {
        if fault.is_outage() {
            self.outages.failed(fault);
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
fn refuse(waiting: Waiting, fault: &Fault) {
    let answer = match fault.kind() {
        Kind::Data => {
            tracing::error!(doc = %waiting.part.doc, error = %fault, "refused what does not fit into the log");
            Ok(Err(AppendError::Gap))
        }
        Kind::Lock | Kind::Unknown => Err(fault.to_string().into()),
    };
    let _ = waiting.answer.send(answer);
}
