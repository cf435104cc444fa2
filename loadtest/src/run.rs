//! A run: makes the documents, lets the clients in, lets them write for a time, waits until all is quiet, checks.

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

use crate::check::Faults;
use crate::clerk::{Clerk, join};
use crate::desk::Desk;
use crate::member::{Editor, Member, Pace, Reader};
use crate::options::Common;
use crate::process::{allow_files, bar};
use crate::report::{Report, Unit};
use crate::server::Cost;
use crate::socket::{Socket, Target};
use crate::stats::Stats;
use crate::tape::Tape;
use crate::writing::{self, Habit, Writer};

/// What a run is to do.
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
    desks: Vec<Desk>,
    tasks: JoinSet<()>,
    bar: ProgressBar,
    /// The connection that made the documents.
    clerk: ClientId,
}

/// How many connections may be opening at once.
const OPENING_MAX: usize = 64;

/// Runs a plan. On Ctrl-C it ends early and reports what it has.
pub(crate) async fn run(options: &Common, plan: &Plan) -> Result<Report> {
    let clients = plan.docs * (plan.editors + plan.readers);
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    fastrand::seed(seed);
    allow_files(clients as u64)?;
    let target = Target::resolve(options).await?;
    let before = options.server_pid.map(Cost::of).transpose()?;
    let mut clerk = Clerk::new(&target).await?;
    let mut run = Run {
        options,
        plan,
        target,
        rng: Rng::with_seed(seed),
        stats: Rc::new(RefCell::new(Stats::new())),
        phase: watch::Sender::new(Phase::Joining),
        desks: Vec::new(),
        tasks: JoinSet::new(),
        bar: bar(),
        clerk: clerk.id.clone(),
    };
    run.open_desks(&mut clerk).await?;
    drop(clerk);
    run.seat(clients).await?;
    let mut report = run.measure(seed, before, clients).await?;
    run.close(&mut report).await?;
    Ok(report)
}

impl Run<'_> {
    async fn open_desks(&mut self, clerk: &mut Clerk) -> Result<()> {
        let content = writing::content(self.plan.kind, self.plan.chars, &mut self.rng);
        for index in 0..self.plan.docs {
            let doc = self.options.doc(self.plan.scenario, index)?;
            clerk.create(&doc, content.clone()).await?;
            let tape = Rc::new(RefCell::new(Tape::new(doc, self.plan.kind)));
            self.desks.push(Desk::new(tape));
            self.bar.set_message(format!(
                "{} of {} documents made",
                index + 1,
                self.plan.docs
            ));
            self.bar.tick();
        }
        Ok(())
    }

    /// Lets all clients in.
    async fn seat(&mut self, clients: usize) -> Result<()> {
        let mut opening = JoinSet::new();
        let mut opened = 0;
        let mut seated = 0;
        while seated < clients {
            while opened < clients && opening.len() < OPENING_MAX {
                let (target, index) = (self.target.clone(), opened);
                opening.spawn_local(async move { (index, join(&target, index).await) });
                opened += 1;
            }
            let next = opening
                .join_next()
                .await
                .context("a connection is opening")?;
            let (index, joined) = next.context("open a connection")?;
            let (socket, id) =
                joined.with_context(|| format!("open connection {} of {clients}", index + 1))?;
            self.take_seat(index, socket, id);
            seated += 1;
            self.bar
                .set_message(format!("{seated} of {clients} connected"));
            self.bar.tick();
        }
        let deadline = Instant::now() + self.options.patience();
        while self
            .members()
            .any(|member| member.borrow().revision().is_none())
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

    fn take_seat(&mut self, index: usize, socket: Socket, id: ClientId) {
        let (docs, plan) = (self.desks.len(), self.plan);
        let desk = &mut self.desks[index % docs];
        let tape = Rc::clone(&desk.tape);
        let member = if index / docs < plan.editors {
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
            Member::Editor(Box::new(Editor::new(id, tape, writer, pace)))
        } else {
            Member::Reader(Reader::new(id, tape))
        };
        let member = Rc::new(RefCell::new(member));
        desk.members.push(Rc::clone(&member));
        let (stats, phase) = (Rc::clone(&self.stats), self.phase.subscribe());
        self.tasks.spawn_local(async move {
            if let Err(error) = attend(socket, &member, &stats, phase).await {
                stats.borrow_mut().failed(&error);
            }
        });
    }

    fn members(&self) -> impl Iterator<Item = &Rc<RefCell<Member>>> {
        self.desks.iter().flat_map(|desk| &desk.members)
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

    /// Lets them write, and counts.
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
            // Where ops are made, the documents and their logs grow along.
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

    /// Waits; whether Ctrl-C, or that all clients are gone, cut it short.
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

    /// Waits until all is quiet, and checks.
    async fn close(&mut self, report: &mut Report) -> Result<()> {
        let mut faults = Faults::default();
        let gaps: u64 = self.members().map(|member| member.borrow().gaps()).sum();
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
            self.desks
                .iter()
                .for_each(|desk| desk.tell_restless(&mut faults));
        }
        self.phase.send_replace(Phase::Over);
        while self.tasks.join_next().await.is_some() {}
        self.bar.set_message("checking");
        self.bar.tick();
        let mut entries = 0;
        if self.options.unchecked {
            self.desks
                .iter()
                .for_each(|desk| desk.check_readers(&mut faults));
        } else {
            let mut clerk = Clerk::new(&self.target)
                .await
                .context("come back to check")?;
            for (index, desk) in self.desks.iter().enumerate() {
                let maker = (self.clerk.clone(), index as u64 + 1);
                entries += desk.check(maker, &mut clerk, &mut faults).await?;
            }
        }
        self.bar.finish_and_clear();
        let stats = self.stats.borrow();
        let failures = Faults {
            told: stats.failures.clone(),
            count: stats.failed,
        };
        faults.extend(failures);
        let (clients, docs) = (self.members().count(), self.desks.len());
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

    /// Waits until every client has everything; whether it came to that.
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
            still = if self.desks.iter().all(Desk::is_quiet) {
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

/// One client's life.
async fn attend(
    mut socket: Socket,
    member: &RefCell<Member>,
    stats: &RefCell<Stats>,
    mut phase: watch::Receiver<Phase>,
) -> Result<()> {
    loop {
        let now = *phase.borrow_and_update();
        if now == Phase::Over {
            return Ok(());
        }
        let writing = now == Phase::Writing;
        member
            .borrow_mut()
            .act(Instant::now(), writing, &mut socket)?;
        socket.flush()?;
        let due = member.borrow().due().filter(|_| writing);
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
            read = socket.read(|frame, now| member.borrow_mut().hear(frame, now, &mut stats.borrow_mut())) => read?,
            () = until => {}
        }
        stats.borrow_mut().received(socket.take_received());
    }
}
