//! How long a document takes to open.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use copydesk::client::{Client, ClientRequest, ServerMessage};
use copydesk::log::Snapshot;
use copydesk::ot::{Content, Kind};
use fastrand::Rng;
use tokio::time::timeout;

use crate::admin_client::{AdminClient, connect};
use crate::commit_recorder::CommitRecorder;
use crate::options::{self, Common};
use crate::process::{bar, interrupted, raise_file_limit};
use crate::report::{Report, Unit};
use crate::server::Cost;
use crate::simulated_client::{Editor, Pace};
use crate::socket::{Socket, Target};
use crate::stats::Latencies;
use crate::wire::{self, ServerFrame};
use crate::writing::{self, Habit, Writer};

/// How long a document takes to open: from asking for it to its last byte.
///
/// Each opening uses a new connection; connecting is not counted. The document is edited before each opening, so that the
/// server cannot send a snapshot that it has cached; --untouched does not edit.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long the document is.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(..=10_000_000))]
    chars: u64,
    /// Leave the document alone between two openings.
    #[arg(long)]
    untouched: bool,
    /// What kind of document it is: text-unicode or rich-text.
    #[arg(long = "type", default_value = "text-unicode", value_parser = options::kind)]
    kind: Kind,
}

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn run(common: &Common, options: &Options) -> Result<Report> {
    raise_file_limit(3)?;
    let seed = common.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let mut rng = Rng::with_seed(seed);
    let target = Target::resolve(common).await?;
    let doc = common.doc("open", 0)?;
    let content = writing::content(options.kind, options.chars, &mut rng);
    let mut admin = AdminClient::new(&target).await?;
    admin.create(&doc, content).await?;
    let recorder = std::rc::Rc::new(std::cell::RefCell::new(CommitRecorder::new(
        doc,
        options.kind,
    )));
    let mut editor = Typist::new(&target, recorder, rng, options).await?;
    let (mut times, mut bytes, bar) = (Latencies::default(), 0, bar());
    let pids = target.server_pids(common);
    let before = Cost::of_all(&pids)?;
    let began = Instant::now();
    let interrupted = interrupted();
    while times.len() == 0 || (began.elapsed() < common.seconds() && !interrupted.get()) {
        if !options.untouched {
            editor.edit().await?;
        }
        let (time, size) = editor.time_opening(&target).await?;
        times.record(time);
        bytes = size;
        bar.set_message(format!("{} openings", times.len()));
        bar.tick();
    }
    bar.finish_and_clear();
    let mut report = Report::new("open", began.elapsed());
    report.parameter("seed", seed);
    report.parameter("type", options.kind.name());
    report.parameter("chars", options.chars);
    report.parameter("edited", !options.untouched);
    report.figure("openings", "openings", times.len() as f64, Unit::Count);
    report.latencies("open", "open", &times);
    report.figure(
        "opening_bytes",
        "bytes of an opening",
        bytes as f64,
        Unit::Bytes,
    );
    if !pids.is_empty() {
        let (before, after) = (Cost::sum(&before), Cost::sum(&Cost::of_all(&pids)?));
        let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e6;
        report.figure(
            "server_cpu_us_per_open",
            "server time an opening",
            cpu / times.len() as f64,
            Unit::Microseconds,
        );
        report.figure(
            "server_rss_bytes",
            "server memory",
            after.rss_bytes as f64,
            Unit::Bytes,
        );
    }
    report.checked = "every opening showed the document of the editor".to_owned();
    Ok(report)
}

/// Edits the document between two openings, and has the content that they must show.
struct Typist {
    socket: Socket,
    editor: Editor,
    writer: Writer,
}

impl Typist {
    async fn new(
        target: &Target,
        recorder: crate::simulated_client::SharedRecorder,
        mut rng: Rng,
        options: &Options,
    ) -> Result<Self> {
        let (socket, id) = connect(target, 0, 0).await?;
        let writer = |rng| Writer::new(rng, options.chars, Habit::Anywhere);
        let spare = writer(rng.fork());
        let editor = Editor::new(id, recorder, spare, Pace::Silent);
        let mut typist = Self {
            socket,
            editor,
            writer: writer(rng),
        };
        typist
            .settle(|editor| editor.client.content().is_some())
            .await?;
        Ok(typist)
    }

    /// Makes an edit, and waits until it is acknowledged.
    async fn edit(&mut self) -> Result<()> {
        let content = self
            .editor
            .client
            .content()
            .context("the document is gone")?;
        let op = self.writer.edit(content);
        self.editor.edit(op, Instant::now())?;
        self.settle(|editor| editor.client.is_settled()).await
    }

    async fn settle(&mut self, done: impl Fn(&Editor) -> bool) -> Result<()> {
        let mut stats = crate::stats::Stats::default();
        loop {
            self.editor.send_pending(&mut self.socket);
            self.socket.flush()?;
            if done(&self.editor) {
                return Ok(());
            }
            let read = self
                .socket
                .read(|frame, now| self.editor.receive(frame, now, &mut stats));
            timeout(PATIENCE, read)
                .await
                .context("no answer in time")??;
            ensure!(
                stats.failures.count == 0,
                "{}",
                stats.failures.told.join("; ")
            );
        }
    }

    /// Opens the document on a new connection; how long it took, and how many bytes it was. A snapshot may be followed by
    /// the newest commits: then it is open when they have come.
    async fn time_opening(&self, target: &Target) -> Result<(Duration, u64)> {
        let (mut socket, id) = connect(target, 1, 1).await?;
        let (doc, kind) = self.editor.doc();
        let mut json = Vec::new();
        wire::write(
            &doc,
            &id,
            &ClientRequest::Subscribe { since: None },
            &mut json,
        );
        let mut client = Client::new(id);
        let wanted = self.editor.client.revision();
        socket.take_received();
        let began = Instant::now();
        let mut time = Duration::ZERO;
        socket.send(&json);
        socket.flush()?;
        while client
            .revision()
            .is_none_or(|revision| Some(revision) < wanted)
        {
            let read = socket.read(|frame, now| {
                // What came with one read came at one time, however long we take to read it.
                time = now - began;
                let message = match wire::read(kind, frame)? {
                    ServerFrame::Shown {
                        revision,
                        exists,
                        data,
                    } => {
                        let content = exists.then(|| Content::create(kind, data)).transpose()?;
                        ServerMessage::Snapshot(Snapshot {
                            revision,
                            content,
                            ..Snapshot::default()
                        })
                    }
                    ServerFrame::Commit(entry) => ServerMessage::Commit(entry.into()),
                    ServerFrame::Refused(_, said) => bail!("the server refused: {said}"),
                    _ => return Ok(()),
                };
                Ok(client.received(message)?)
            });
            timeout(PATIENCE, read)
                .await
                .context("open the document: no answer in time")??;
        }
        ensure!(
            client.content() == self.editor.client.content(),
            "an opening showed another document"
        );
        Ok((time, socket.take_received()))
    }
}
