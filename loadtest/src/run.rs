//! A run: creates the documents, connects the clients, lets them write for a time, waits until they are settled, checks.

mod finish;
mod measure;
mod plan;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use copydesk::id::ClientId;
use fastrand::Rng;
use indicatif::ProgressBar;
use tokio::select;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use crate::admin_client::{AdminClient, connect};
use crate::commit_recorder::CommitRecorder;
use crate::document_under_test::DocumentUnderTest;
use crate::options::Common;
use crate::process::{bar, raise_file_limit};
use crate::report::Report;
use crate::returning::{Connection, ReturnTimes, drive_returning};
use crate::server::Cost;
use crate::simulated_client::{Editor, Pace, Reader, SimulatedClient};
use crate::socket::{Socket, Target};
use crate::stats::Stats;
use crate::timeline::Timeline;
use crate::writing::{self, Habit, Writer};

pub(crate) use measure::Segment;
pub(crate) use plan::{ClientPlan, ClientRole, Plan, SegmentPlan};

/// What the clients do at present.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Phase {
    Joining,
    Writing(Tempo),
    Quiet,
    Over,
}

/// How fast the editors write.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tempo {
    /// A factor to each editor's own rate.
    pub(crate) speed: f64,
    /// A group that does not write.
    pub(crate) silent: Option<usize>,
}

impl Tempo {
    /// All groups write at their own rate.
    pub(crate) const NORMAL: Self = Self {
        speed: 1.0,
        silent: None,
    };
}

impl Phase {
    /// The speed of a group's editors; none: they do not write.
    fn speed(self, group: usize) -> Option<f64> {
        match self {
            Self::Writing(tempo) if tempo.silent != Some(group) => Some(tempo.speed),
            _ => None,
        }
    }
}

/// A run with its connected clients.
pub(crate) struct Run<'a> {
    options: &'a Common,
    plan: Plan,
    target: Target,
    rng: Rng,
    seed: u64,
    /// One for each group.
    stats: Vec<Rc<RefCell<Stats>>>,
    phase: watch::Sender<Phase>,
    documents: Vec<DocumentUnderTest>,
    tasks: JoinSet<()>,
    bar: ProgressBar,
    /// The client that created the documents.
    admin: ClientId,
    /// What the servers had used before the first client connected.
    before: Vec<Cost>,
    timeline: Timeline,
    pub(crate) returns: Rc<ReturnTimes>,
}

/// How many connections may be opening at once.
const OPENING_MAX: usize = 64;

/// Runs a plan in one part. On Ctrl-C it ends early and reports what it has.
pub(crate) async fn run(options: &Common, plan: Plan) -> Result<Report> {
    let mut run = Run::prepare(options, plan).await?;
    let segment = run.segment(whole(options)).await?;
    let mut report = run.report(&segment);
    run.finish(&mut report).await?;
    Ok(report)
}

/// The whole measured time as one part.
pub(crate) fn whole(options: &Common) -> SegmentPlan {
    SegmentPlan {
        name: "measured".to_owned(),
        tempo: Tempo::NORMAL,
        settle: options.warmup(),
        measure: options.seconds(),
    }
}

impl<'a> Run<'a> {
    /// Creates the documents and connects all clients.
    pub(crate) async fn prepare(options: &'a Common, plan: Plan) -> Result<Self> {
        let mut run = Self::with_documents(options, plan).await?;
        run.connect_all().await?;
        Ok(run)
    }

    /// Creates the documents. The clients may then still be changed in the plan.
    pub(crate) async fn with_documents(options: &'a Common, plan: Plan) -> Result<Self> {
        let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
        fastrand::seed(seed);
        raise_file_limit(plan.clients.len() as u64)?;
        let target = Target::resolve(options).await?;
        let pids = target.server_pids(options);
        let before = Cost::of_all(&pids)?;
        let mut admin = AdminClient::new(&target).await?;
        let mut run = Self {
            options,
            target,
            rng: Rng::with_seed(seed),
            seed,
            stats: plan.groups.iter().map(|_| Rc::default()).collect(),
            plan,
            phase: watch::Sender::new(Phase::Joining),
            documents: Vec::new(),
            tasks: JoinSet::new(),
            bar: bar(),
            admin: admin.id.clone(),
            before,
            timeline: Timeline::new(&pids)?,
            returns: Rc::default(),
        };
        run.create_documents(&mut admin).await?;
        Ok(run)
    }

    async fn create_documents(&mut self, admin: &mut AdminClient) -> Result<()> {
        let content = writing::content(self.plan.kind, self.plan.chars, &mut self.rng);
        for index in 0..self.plan.docs {
            let doc = self.options.doc(self.plan.scenario, index)?;
            admin.create(&doc, content.clone()).await?;
            let recorder = Rc::new(RefCell::new(CommitRecorder::new(doc, self.plan.kind)));
            self.documents.push(DocumentUnderTest::new(recorder));
            self.bar.set_message(format!(
                "{} of {} documents made",
                index + 1,
                self.plan.docs
            ));
            self.bar.tick();
        }
        Ok(())
    }

    /// Connects all clients, and waits until each has its document.
    pub(crate) async fn connect_all(&mut self) -> Result<()> {
        let mut opening = JoinSet::new();
        let clients = self.plan.clients.len();
        let (mut opened, mut connected) = (0, 0);
        while connected < clients {
            while opened < clients && opening.len() < OPENING_MAX {
                let (target, index) = (self.target.clone(), opened);
                let endpoint = self.plan.clients[index].endpoint;
                opening
                    .spawn_local(async move { (index, connect(&target, endpoint, index).await) });
                opened += 1;
            }
            let next = opening
                .join_next()
                .await
                .context("a connection is opening")?;
            let (index, joined) = next.context("open a connection")?;
            let (socket, id) =
                joined.with_context(|| format!("open connection {} of {clients}", index + 1))?;
            self.add_client(index, socket, id);
            connected += 1;
            self.bar
                .set_message(format!("{connected} of {clients} connected"));
            self.bar.tick();
        }
        self.await_documents().await
    }

    async fn await_documents(&self) -> Result<()> {
        let deadline = Instant::now() + self.options.patience();
        while self
            .clients()
            .any(|client| client.borrow().revision().is_none())
        {
            self.check_alive()?;
            ensure!(
                Instant::now() < deadline,
                "not all clients were shown their document in time"
            );
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn add_client(&mut self, index: usize, socket: Socket, id: ClientId) {
        let plan = self.plan.clients[index];
        let recorder = Rc::clone(&self.documents[plan.doc].recorder);
        let client = match plan.role {
            ClientRole::Editor(rate) => {
                let mut editor = Editor::new(id, recorder, self.writer(), Pace::of(rate));
                editor.tolerates_refusals = self.plan.tolerates_refusals;
                SimulatedClient::Editor(Box::new(editor))
            }
            ClientRole::Reader | ClientRole::ReturningReader => {
                SimulatedClient::Reader(Reader::new(id, recorder))
            }
        };
        let client = Rc::new(RefCell::new(client));
        self.documents[plan.doc].clients.push(Rc::clone(&client));
        let stats = Rc::clone(&self.stats[plan.group]);
        let phase = self.phase.subscribe();
        if matches!(plan.role, ClientRole::ReturningReader) {
            let connection = Connection {
                target: self.target.clone(),
                endpoint: plan.endpoint,
                index,
                socket: Some(socket),
                client,
                stats: Rc::clone(&stats),
                returns: Rc::clone(&self.returns),
            };
            self.tasks.spawn_local(async move {
                if let Err(error) = drive_returning(connection, phase).await {
                    stats.borrow_mut().failed(&error);
                }
            });
        } else {
            self.tasks.spawn_local(async move {
                if let Err(error) = drive(socket, &client, &stats, plan.group, phase).await {
                    stats.borrow_mut().failed(&error);
                }
            });
        }
    }

    fn writer(&mut self) -> Writer {
        let cursor = self.rng.u64(..=self.plan.chars);
        let habit = if self.plan.typing {
            Habit::Typing { cursor }
        } else {
            Habit::Anywhere
        };
        Writer::new(self.rng.fork(), self.plan.chars, habit)
    }

    fn clients(&self) -> impl Iterator<Item = &Rc<RefCell<SimulatedClient>>> {
        self.documents.iter().flat_map(|document| &document.clients)
    }

    /// How many clients have failed.
    pub(crate) fn failed(&self) -> u64 {
        let groups = self.stats.iter();
        groups.map(|stats| stats.borrow().failures.count).sum()
    }

    fn check_alive(&self) -> Result<()> {
        for stats in &self.stats {
            let failures = &stats.borrow().failures;
            let told = failures.told.first().map_or("", String::as_str);
            ensure!(
                failures.count == 0,
                "{} clients failed; the first: {told}",
                failures.count
            );
        }
        Ok(())
    }

    /// The documents' ids, in the order of the plan.
    pub(crate) fn doc_ids(&self) -> Vec<copydesk::id::DocId> {
        let documents = self.documents.iter();
        documents
            .map(|document| document.recorder.borrow().doc.clone())
            .collect()
    }

    /// The clients of the plan, to be changed before they are connected.
    pub(crate) fn planned_clients(&mut self) -> &mut [ClientPlan] {
        &mut self.plan.clients
    }

    /// Number of addresses of the server.
    pub(crate) fn endpoints(&self) -> usize {
        self.target.len()
    }
}

/// Runs one client until the run is over.
async fn drive(
    mut socket: Socket,
    client: &RefCell<SimulatedClient>,
    stats: &RefCell<Stats>,
    group: usize,
    mut phase: watch::Receiver<Phase>,
) -> Result<()> {
    loop {
        let now = *phase.borrow_and_update();
        if now == Phase::Over {
            return Ok(());
        }
        let speed = now.speed(group);
        client
            .borrow_mut()
            .act(Instant::now(), speed, &mut stats.borrow_mut(), &mut socket)?;
        socket.flush()?;
        let due = client.borrow().due().filter(|_| speed.is_some());
        let until = async {
            match due {
                Some(due) => sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        // Each is cancel-safe: a read hands over what it took within one poll.
        select! {
            biased;
            _ = phase.changed() => {}
            read = socket.read(|frame, now| client.borrow_mut().receive(frame, now, &mut stats.borrow_mut())) => read?,
            () = until => {}
        }
        stats.borrow_mut().received(socket.take_received());
    }
}
