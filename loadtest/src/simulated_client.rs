//! The clients of a run: editors, which keep the whole document, and readers, which only keep count.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use copydesk::client::{Client, ClientRequest, ServerMessage};
use copydesk::id::{ClientId, DocId};
use copydesk::log::{Change, Revision, Snapshot};
use copydesk::ot::{Kind, Op};

use crate::commit_recorder::{CommitRecorder, Received};
use crate::socket::Socket;
use crate::stats::Stats;
use crate::wire::{self, ServerFrame};
use crate::writing::Writer;

/// The recorder that all clients of one document in this process share.
pub(crate) type SharedRecorder = Rc<RefCell<CommitRecorder>>;

/// One client.
#[derive(Debug)]
pub(crate) enum SimulatedClient {
    Editor(Box<Editor>),
    Reader(Reader),
}

/// When an editor writes.
#[derive(Debug)]
pub(crate) enum Pace {
    /// Never.
    Silent,
    /// As soon as its last edit is acknowledged.
    Closed,
    /// At a rate, however long acks take.
    Rate {
        /// When the next edit is due; unset until the writing begins.
        next: Option<Instant>,
        /// From one edit to the next at speed 1.
        step: Duration,
        /// The speed at which `next` was set.
        speed: f64,
    },
}

/// A client with the whole document, transforming and all.
#[derive(Debug)]
pub(crate) struct Editor {
    pub(crate) client: Client,
    recorder: SharedRecorder,
    writer: Writer,
    pace: Pace,
    /// When the edits that wait were due.
    waiting: Vec<Instant>,
    /// When the edits of the submit in flight were due.
    in_flight: Vec<Instant>,
    /// How many acks have been counted.
    acked: usize,
    /// Whether a refused submit is only counted, as in a run that overloads the server on purpose.
    pub(crate) tolerates_refusals: bool,
}

/// How many edits may wait behind a submit. Then the writer pauses, and catches up later: what it meant to write stays due.
const WAITING_MAX: usize = 1_000;

impl Pace {
    /// Edits a second at speed 1; none: as fast as they are acknowledged; 0: never.
    pub(crate) fn of(rate: Option<f64>) -> Self {
        match rate {
            None => Self::Closed,
            Some(rate) if rate > 0.0 => Self::Rate {
                next: None,
                step: Duration::from_secs_f64(1.0 / rate),
                speed: 1.0,
            },
            Some(_) => Self::Silent,
        }
    }

    /// When the next edit was due, if that is not later than now.
    fn take_due(&mut self, now: Instant, wanted: f64, is_settled: bool) -> Option<Instant> {
        match self {
            Self::Closed => is_settled.then_some(now),
            Self::Silent => None,
            Self::Rate { next, step, speed } => {
                let step = step.div_f64(wanted);
                if *speed != wanted {
                    (*next, *speed) = (None, wanted);
                }
                // Each editor starts at a random time within the first step, so that they do not write in lockstep.
                let due = *next.get_or_insert_with(|| now + step.mul_f64(fastrand::f64()));
                if due > now {
                    return None;
                }
                *next = Some(due + step);
                Some(due)
            }
        }
    }

    /// The writing stopped: what was due until it goes on is not caught up with.
    fn pause(&mut self) {
        if let Self::Rate { next, .. } = self {
            *next = None;
        }
    }
}

impl Editor {
    pub(crate) fn new(id: ClientId, recorder: SharedRecorder, writer: Writer, pace: Pace) -> Self {
        let mut client = Client::new(id);
        client.connected();
        Self {
            client,
            recorder,
            writer,
            pace,
            waiting: Vec::new(),
            in_flight: Vec::new(),
            acked: 0,
            tolerates_refusals: false,
        }
    }

    /// Which document it edits.
    pub(crate) fn doc(&self) -> (DocId, Kind) {
        let recorder = self.recorder.borrow();
        (recorder.doc.clone(), recorder.kind)
    }

    /// Takes in a frame.
    pub(crate) fn receive(&mut self, frame: &[u8], now: Instant, stats: &mut Stats) -> Result<()> {
        let before = self.client.revision();
        let next = before.unwrap_or_default().next();
        let told = self.recorder.borrow_mut().read(next, frame)?;
        let message = match told {
            Received::Commit(commit) => {
                let own = commit.entry.id.client == *self.client.id();
                if before.is_some() && commit.entry.revision == next && !own {
                    stats.delivered(commit.due, now);
                    self.writer.moved(&commit.entry.change);
                }
                ServerMessage::Commit(commit.entry)
            }
            Received::Other(heard) => match self.other(heard, stats)? {
                Some(message) => message,
                None => return Ok(()),
            },
        };
        self.client.received(message)?;
        if self.client.acknowledged().len() > self.acked {
            self.acked = self.client.acknowledged().len();
            stats.acked(&self.in_flight, now);
        }
        Ok(())
    }

    fn other(
        &mut self,
        heard: ServerFrame<'_>,
        stats: &mut Stats,
    ) -> Result<Option<ServerMessage>> {
        Ok(Some(match heard {
            ServerFrame::Shown {
                revision,
                exists,
                data,
            } => {
                let content = exists
                    .then(|| self.recorder.borrow_mut().content(data))
                    .transpose()?;
                ServerMessage::Snapshot(Snapshot {
                    revision,
                    content,
                    ..Snapshot::default()
                })
            }
            ServerFrame::Done => ServerMessage::Done,
            ServerFrame::Bare(id, seq, revision) if id == *self.client.id() => {
                ServerMessage::Acked { seq, revision }
            }
            ServerFrame::Bare(id, seq, revision) => {
                ServerMessage::Commit(wire::entry(id, seq, revision, Change::Nothing).into())
            }
            ServerFrame::Refused(Some(seq), said) => {
                stats.rejected();
                if !self.tolerates_refusals {
                    stats.failed(&anyhow::anyhow!("submit {seq} was refused: {said}"));
                }
                // The client drops its edits with the refused one.
                self.in_flight.clear();
                self.waiting.clear();
                ServerMessage::Rejected { seq }
            }
            ServerFrame::Refused(None, said) => bail!("the server refused: {said}"),
            ServerFrame::Commit(_) | ServerFrame::Handshake(_) | ServerFrame::Other => {
                return Ok(None);
            }
        }))
    }

    /// Edits the document; the change was due then.
    pub(crate) fn edit(&mut self, op: Op, due: Instant) -> Result<()> {
        self.client.edit(op).context("make an edit")?;
        self.waiting.push(due);
        Ok(())
    }

    /// Makes the edits that are due at the speed, if it writes at all, and sends pending requests.
    fn act(
        &mut self,
        now: Instant,
        speed: Option<f64>,
        stats: &mut Stats,
        socket: &mut Socket,
    ) -> Result<()> {
        if speed.is_none() {
            self.pace.pause();
        }
        while let Some(speed) = speed
            && self.waiting.len() < WAITING_MAX
            // After a refusal the document is fetched anew. What is due meanwhile stays due.
            && let Some(content) = self.client.content()
        {
            let is_settled = self.client.is_settled();
            let Some(due) = self.pace.take_due(now, speed, is_settled) else {
                break;
            };
            let op = self.writer.edit(content);
            self.edit(op, due)?;
            stats.made(due, now);
        }
        self.send_pending(socket);
        Ok(())
    }

    /// Sends the pending requests.
    pub(crate) fn send_pending(&mut self, socket: &mut Socket) {
        while let Some(request) = self.client.poll() {
            if let ClientRequest::Submit { seq, .. } = &request {
                self.in_flight.clear();
                std::mem::swap(&mut self.in_flight, &mut self.waiting);
                if let Some(due) = self.in_flight.first() {
                    self.recorder
                        .borrow_mut()
                        .submitted(self.client.id(), *seq, *due);
                }
            }
            let mut json = Vec::with_capacity(160);
            wire::write(
                &self.recorder.borrow().doc,
                self.client.id(),
                &request,
                &mut json,
            );
            socket.send(&json);
        }
    }

    fn due(&self) -> Option<Instant> {
        match self.pace {
            Pace::Rate { next, .. }
                if self.waiting.len() < WAITING_MAX && self.client.content().is_some() =>
            {
                next
            }
            Pace::Rate { .. } | Pace::Silent | Pace::Closed => None,
        }
    }
}

/// A client that only reads: it checks that no revision is missing and hashes the commits.
#[derive(Debug)]
pub(crate) struct Reader {
    id: ClientId,
    recorder: SharedRecorder,
    /// The newest revision that it received.
    pub(crate) revision: Option<Revision>,
    /// Hash of all commits since it connected: equal for all readers that connected at the same revision.
    pub(crate) hash: u64,
    asked: bool,
    /// Whether the server has answered its subscription.
    pub(crate) is_subscribed: bool,
    /// Whether `hash` covers all commits: false after a reconnect that was answered with a snapshot.
    pub(crate) is_comparable: bool,
}

impl Reader {
    pub(crate) fn new(id: ClientId, recorder: SharedRecorder) -> Self {
        Self {
            id,
            recorder,
            revision: None,
            hash: 0,
            asked: false,
            is_subscribed: false,
            is_comparable: true,
        }
    }

    /// Continues on a new connection, on which the server issued this id.
    pub(crate) fn reconnected(&mut self, id: ClientId) {
        self.id = id;
        self.asked = false;
        self.is_subscribed = false;
    }

    pub(crate) fn receive(&mut self, frame: &[u8], now: Instant, stats: &mut Stats) -> Result<()> {
        let next = self.revision.unwrap_or_default().next();
        let told = self.recorder.borrow_mut().read(next, frame)?;
        match told {
            Received::Commit(commit) => {
                if self.revision.is_none() || commit.entry.revision < next {
                    return Ok(());
                }
                ensure!(
                    commit.entry.revision == next,
                    "revision {} came where {next} was due",
                    commit.entry.revision
                );
                self.revision = Some(next);
                self.hash =
                    (self.hash.rotate_left(5) ^ commit.hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                stats.delivered(commit.due, now);
            }
            Received::Other(ServerFrame::Shown { revision, .. }) => {
                self.is_comparable &= self.revision.is_none();
                self.revision = self.revision.max(Some(revision));
                self.is_subscribed = true;
            }
            Received::Other(ServerFrame::Done) => self.is_subscribed = true,
            Received::Other(ServerFrame::Refused(_, said)) => bail!("the server refused: {said}"),
            Received::Other(_) => {}
        }
        Ok(())
    }

    /// Subscribes, from the revision that it has.
    pub(crate) fn act(&mut self, socket: &mut Socket) {
        if !std::mem::replace(&mut self.asked, true) {
            let mut json = Vec::new();
            let request = ClientRequest::Subscribe {
                since: self.revision,
            };
            wire::write(&self.recorder.borrow().doc, &self.id, &request, &mut json);
            socket.send(&json);
        }
    }
}

impl SimulatedClient {
    pub(crate) fn receive(&mut self, frame: &[u8], now: Instant, stats: &mut Stats) -> Result<()> {
        match self {
            Self::Editor(editor) => editor.receive(frame, now, stats),
            Self::Reader(reader) => reader.receive(frame, now, stats),
        }
    }

    /// Does what is due at the speed; without one it does not write.
    pub(crate) fn act(
        &mut self,
        now: Instant,
        speed: Option<f64>,
        stats: &mut Stats,
        socket: &mut Socket,
    ) -> Result<()> {
        match self {
            Self::Editor(editor) => editor.act(now, speed, stats, socket),
            Self::Reader(reader) => {
                reader.act(socket);
                Ok(())
            }
        }
    }

    /// When it wants to write next by itself.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self {
            Self::Editor(editor) => editor.due(),
            Self::Reader(_) => None,
        }
    }

    /// The newest revision that it has; `None` before the first snapshot.
    pub(crate) fn revision(&self) -> Option<Revision> {
        match self {
            Self::Editor(editor) => editor.client.revision(),
            Self::Reader(reader) => reader.revision,
        }
    }

    /// Continues on a new connection, on which the server issued this id. Only readers do.
    pub(crate) fn reconnected(&mut self, id: ClientId) {
        if let Self::Reader(reader) = self {
            reader.reconnected(id);
        }
    }

    /// Returns true if the server has answered its subscription.
    pub(crate) fn is_subscribed(&self) -> bool {
        match self {
            Self::Editor(editor) => editor.client.revision().is_some(),
            Self::Reader(reader) => reader.is_subscribed,
        }
    }

    /// How many gaps it had to heal.
    pub(crate) fn gaps(&self) -> u64 {
        match self {
            Self::Editor(editor) => editor.client.anomalies().gaps,
            Self::Reader(_) => 0,
        }
    }

    /// Whether nothing of its own is under way.
    pub(crate) fn is_settled(&self) -> bool {
        match self {
            Self::Editor(editor) => editor.client.is_settled(),
            Self::Reader(_) => true,
        }
    }
}
