//! A run: creates the documents, connects the clients, lets them write for a time, waits until they are settled, checks.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use copydesk::id::ClientId;
use copydesk::ot::Kind;
use fastrand::Rng;
use indicatif::ProgressBar;
use tokio::select;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use crate::admin_client::{AdminClient, connect};
use crate::check::Faults;
use crate::commit_recorder::CommitRecorder;
use crate::document_under_test::DocumentUnderTest;
use crate::options::Common;
use crate::process::{bar, raise_file_limit};
use crate::report::{Report, Unit};
use crate::server::Cost;
use crate::simulated_client::{Editor, Pace, Reader, SimulatedClient};
use crate::socket::{Socket, Target};
use crate::stats::Stats;
use crate::writing::{self, Habit, Writer};

/// The parameters of a run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) scenario: &'static str,
    pub(crate) docs: usize,
    pub(crate) kind: Kind,
    pub(crate) chars: u64,
    /// Editors of each document.
    pub(crate) editors: usize,
    /// Readers of each document.
    pub(crate) readers: usize,
    /// Ops of each editor in a second; none: as fast as they are acknowledged.
    pub(crate) rate: Option<f64>,
    /// Whether the editors type, rather than write anywhere.
    pub(crate) typing: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Joining,
    Writing,
    Quiet,
    Over,
}

struct Run<'a> {
    options: &'a Common,
    plan: &'a Plan,
    target: Target,
    rng: Rng,
    stats: Rc<RefCell<Stats>>,
    phase: watch::Sender<Phase>,
    documents: Vec<DocumentUnderTest>,
    tasks: JoinSet<()>,
    bar: ProgressBar,
    /// The client that created the documents.
    admin: ClientId,
}

/// How many connections may be opening at once.
const OPENING_MAX: usize = 64;

/// Runs a plan. On Ctrl-C it ends early and reports what it has.
pub(crate) async fn run(options: &Common, plan: &Plan) -> Result<Report> {
    let clients = plan.docs * (plan.editors + plan.readers);
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    fastrand::seed(seed);
    raise_file_limit(clients as u64)?;
    let target = Target::resolve(options).await?;
    let before = options.server_pid.map(Cost::of).transpose()?;
    let mut admin = AdminClient::new(&target).await?;
    let mut run = Run {
        options,
        plan,
        target,
        rng: Rng::with_seed(seed),
        stats: Rc::new(RefCell::new(Stats::new())),
        phase: watch::Sender::new(Phase::Joining),
        documents: Vec::new(),
        tasks: JoinSet::new(),
        bar: bar(),
        admin: admin.id.clone(),
    };
    run.create_documents(&mut admin).await?;
    drop(admin);
    run.connect_all(clients).await?;
    let mut report = run.measure(seed, before, clients).await?;
    run.close(&mut report).await?;
    Ok(report)
}

impl Run<'_> {
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
    async fn connect_all(&mut self, clients: usize) -> Result<()> {
        let mut opening = JoinSet::new();
        let mut opened = 0;
        let mut connected = 0;
        while connected < clients {
            while opened < clients && opening.len() < OPENING_MAX {
                let (target, index) = (self.target.clone(), opened);
                opening.spawn_local(async move { (index, connect(&target, index).await) });
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
        let (docs, plan) = (self.documents.len(), self.plan);
        let document = &mut self.documents[index % docs];
        let recorder = Rc::clone(&document.recorder);
        let client = if index / docs < plan.editors {
            let cursor = self.rng.u64(..=plan.chars);
            let habit = if plan.typing {
                Habit::Typing { cursor }
            } else {
                Habit::Anywhere
            };
            let writer = Writer::new(self.rng.fork(), plan.chars, habit);
            let pace = match plan.rate {
                None => Pace::Closed,
                Some(rate) if rate > 0.0 => Pace::Rate {
                    next: None,
                    step: Duration::from_secs_f64(1.0 / rate),
                },
                Some(_) => Pace::Silent,
            };
            SimulatedClient::Editor(Box::new(Editor::new(id, recorder, writer, pace)))
        } else {
            SimulatedClient::Reader(Reader::new(id, recorder))
        };
        let client = Rc::new(RefCell::new(client));
        document.clients.push(Rc::clone(&client));
        let (stats, phase) = (Rc::clone(&self.stats), self.phase.subscribe());
        self.tasks.spawn_local(async move {
            if let Err(error) = drive(socket, &client, &stats, phase).await {
                stats.borrow_mut().failed(&error);
            }
        });
    }

    fn clients(&self) -> impl Iterator<Item = &Rc<RefCell<SimulatedClient>>> {
        self.documents.iter().flat_map(|document| &document.clients)
    }

    fn check_alive(&self) -> Result<()> {
        let stats = self.stats.borrow();
        let told = stats.failures.first().map_or("", String::as_str);
        ensure!(
            stats.failed == 0,
            "{} clients failed; the first: {told}",
            stats.failed
        );
        Ok(())
    }

    /// Lets the editors write, and measures.
    async fn measure(&mut self, seed: u64, before: Option<Cost>, clients: usize) -> Result<Report> {
        self.phase.send_replace(Phase::Writing);
        let interrupted = self.wait("warming up", self.options.warmup()).await;
        let start = self.cost()?;
        self.stats.borrow_mut().open = true;
        let began = Instant::now();
        if !interrupted {
            self.wait("measuring", self.options.seconds()).await;
        }
        self.stats.borrow_mut().open = false;
        let (took, end) = (began.elapsed(), self.cost()?);
        self.phase.send_replace(Phase::Quiet);
        let mut report = Report::new(self.plan.scenario, took);
        self.describe(&mut report, seed);
        report.counts(&self.stats.borrow());
        if let (Some(before), Some(start), Some(end)) = (before, start, end) {
            report.cost(start, end, &self.stats.borrow());
            // With editors the documents and their logs grow too.
            if self.plan.editors == 0 {
                let grown = end.rss_bytes.saturating_sub(before.rss_bytes) as f64;
                let each = grown / clients.max(1) as f64;
                let name = "server memory a connection";
                report.figure("server_bytes_per_connection", name, each, Unit::Bytes);
            }
        }
        Ok(report)
    }

    fn cost(&self) -> Result<Option<Cost>> {
        self.options.server_pid.map(Cost::of).transpose()
    }

    fn describe(&self, report: &mut Report, seed: u64) {
        let plan = self.plan;
        report.parameter("seed", seed);
        report.parameter("documents", plan.docs);
        report.parameter("type", plan.kind.name());
        report.parameter("chars", plan.chars);
        report.parameter("editors", plan.editors);
        report.parameter("readers", plan.readers);
        if let Some(rate) = plan.rate {
            report.parameter("rate", rate);
        }
    }

    /// Waits for `time`, or until all clients have failed. Returns true if Ctrl-C ended the wait.
    async fn wait(&self, doing: &str, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let interrupt = tokio::signal::ctrl_c();
        tokio::pin!(interrupt);
        let mut submits = 0;
        loop {
            let tick = Instant::now() + Duration::from_millis(200);
            select! {
                biased;
                _ = &mut interrupt => return true,
                () = sleep_until(deadline.min(tick).into()) => {}
            }
            let stats = self.stats.borrow();
            let rate = (stats.submits - submits) * 5;
            submits = stats.submits;
            self.bar
                .set_message(format!("{doing}: {rate} ops/s, {} failures", stats.failed));
            self.bar.tick();
            if Instant::now() >= deadline || stats.failed as usize >= self.tasks.len().max(1) {
                return false;
            }
        }
    }

    /// Waits until all clients are settled, and checks.
    async fn close(&mut self, report: &mut Report) -> Result<()> {
        let mut faults = Faults::default();
        let gaps: u64 = self.clients().map(|client| client.borrow().gaps()).sum();
        if gaps > 0 {
            report.figure(
                "gaps_healed",
                "gaps that clients healed",
                gaps as f64,
                Unit::Count,
            );
        }
        if !self.quiet().await {
            faults.add("not all clients came to rest at one revision in time".to_owned());
            self.documents
                .iter()
                .for_each(|document| document.report_unsettled(&mut faults));
        }
        self.phase.send_replace(Phase::Over);
        while self.tasks.join_next().await.is_some() {}
        self.bar.set_message("checking");
        self.bar.tick();
        let mut entries = 0;
        if self.options.unchecked {
            self.documents
                .iter()
                .for_each(|document| document.check_readers(&mut faults));
        } else {
            let mut admin = AdminClient::new(&self.target)
                .await
                .context("come back to check")?;
            for (index, document) in self.documents.iter().enumerate() {
                let maker = (self.admin.clone(), index as u64 + 1);
                entries += document.check(maker, &mut admin, &mut faults).await?;
            }
        }
        self.bar.finish_and_clear();
        let stats = self.stats.borrow();
        let failures = Faults {
            told: stats.failures.clone(),
            count: stats.failed,
        };
        faults.extend(failures);
        let (clients, docs) = (self.clients().count(), self.documents.len());
        if !self.options.unchecked {
            let name = "entries in the logs";
            report.figure("log_entries", name, entries as f64, Unit::Count);
        }
        report.checked = if self.options.unchecked {
            format!("{clients} clients of {docs} documents among themselves; nothing was read back")
        } else {
            format!(
                "{clients} clients of {docs} documents, with what was fetched afresh and with the whole log"
            )
        };
        report.faulty(faults);
        Ok(())
    }

    /// Waits until every client is settled. Returns false if that takes too long.
    async fn quiet(&self) -> bool {
        let deadline = Instant::now() + self.options.patience();
        let interrupt = tokio::signal::ctrl_c();
        tokio::pin!(interrupt);
        let mut still = 0;
        while still < 3 {
            select! {
                biased;
                _ = &mut interrupt => return false,
                () = sleep(Duration::from_millis(50)) => {}
            }
            self.bar.set_message("waiting until all is quiet");
            self.bar.tick();
            still = if self.documents.iter().all(DocumentUnderTest::is_quiet) {
                still + 1
            } else {
                0
            };
            if Instant::now() > deadline || self.stats.borrow().failed > 0 {
                return false;
            }
        }
        true
    }
}

/// Runs one client until the run is over.
async fn drive(
    mut socket: Socket,
    client: &RefCell<SimulatedClient>,
    stats: &RefCell<Stats>,
    mut phase: watch::Receiver<Phase>,
) -> Result<()> {
    loop {
        let now = *phase.borrow_and_update();
        if now == Phase::Over {
            return Ok(());
        }
        let writing = now == Phase::Writing;
        client
            .borrow_mut()
            .act(Instant::now(), writing, &mut socket)?;
        socket.flush()?;
        let due = client.borrow().due().filter(|_| writing);
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
