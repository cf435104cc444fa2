//! The nodes of a scenario: their documents, the events and the actions of these.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use copydesk::client::ServerMessage;
use copydesk::cluster::Membership;
use copydesk::doc::{
    Action, Document, DocumentSettings, EncodedSnapshot, Event, Now, PeerMessage, RejectionReason,
    SessionReply, Ticket,
};
use copydesk::id::{NodeId, SessionId};
use copydesk::log::{Entry, Revision, Snapshot};
use copydesk::ot::Content;
use copydesk::store::{Batch, LoadRange};

use super::clients::READS;
use super::cluster::NodeMessage;
use super::probe_client::ProbeMessage;
use super::sim_store::SimWriter;
use super::sim_store::encode;
use super::world::{SimEvent, World};

/// A node with its documents and sockets.
pub(crate) struct SimNode {
    /// New at every start; zero while it is down.
    pub(crate) id: NodeId,
    pub(crate) membership: Membership,
    pub(crate) open: BTreeMap<usize, SimDocument>,
    pub(crate) writer: SimWriter,
    /// The client of each session.
    pub(crate) sessions: BTreeMap<SessionId, usize>,
    /// The probe of each session.
    pub(crate) probe_sessions: BTreeMap<SessionId, usize>,
    /// The time of its newest heartbeat.
    pub(crate) heartbeat_at: Duration,
    /// Whether it takes no new documents and is about to stop.
    pub(crate) leaving: bool,
    /// While it is paused: the events since.
    pub(crate) paused: Option<Vec<SimEvent>>,
}

/// A document that is open on a node.
pub(crate) struct SimDocument {
    pub(crate) document: Document,
    /// The timeout that was requested last.
    timeout: Option<Duration>,
    /// The number of answers of the store that are under way.
    pending: usize,
    /// The newest revision that it was told of.
    told: Revision,
}

impl SimNode {
    pub(crate) fn down() -> Self {
        Self {
            id: NodeId(0),
            membership: Membership::new(NodeId(0), Duration::MAX),
            open: BTreeMap::new(),
            writer: SimWriter::default(),
            sessions: BTreeMap::new(),
            probe_sessions: BTreeMap::new(),
            heartbeat_at: Duration::ZERO,
            leaving: false,
            paused: None,
        }
    }

    /// Returns true if new sockets connect to it.
    pub(crate) fn is_welcoming(&self) -> bool {
        self.id.0 != 0 && !self.leaving
    }
}

/// Small limits, so that each of them is reached.
fn settings() -> DocumentSettings {
    DocumentSettings {
        tail_entries_max: 6,
        snapshot_entries: 10,
        staged_entries_max: 3,
        late_submits_max: 2,
        // So few that a rebase over many concurrent changes takes several slices.
        combine_slice_steps: 5,
        ..DocumentSettings::default()
    }
}

impl World {
    /// The index of the running node with this id.
    pub(crate) fn node_of(&self, id: NodeId) -> Option<usize> {
        self.nodes
            .iter()
            .position(|node| node.id == id && id.0 != 0)
    }

    /// Hands an event to a document of a node.
    pub(crate) fn document_event(&mut self, id: NodeId, doc: usize, event: Event) {
        let Some(node) = self.node_of(id) else {
            return;
        };
        if let Some(waiting) = &mut self.nodes[node].paused {
            return waiting.push(SimEvent::ForDocument(id, doc, event));
        }
        let opens = matches!(event, Event::Request { .. } | Event::PeerMessage { .. });
        if !opens && !self.nodes[node].open.contains_key(&doc) {
            return;
        }
        let owner = self.owner_as_seen(node, doc);
        let now = Now {
            clock: self.clock,
            wall_ms: self.clock.as_millis() as u64,
        };
        let open = self.nodes[node]
            .open
            .entry(doc)
            .or_insert_with(|| SimDocument {
                document: Document::new(id, owner, settings()),
                timeout: None,
                pending: 0,
                told: Revision::ZERO,
            });
        open.observe(&event);
        if let Event::Request {
            session,
            ticket,
            request: ask,
        } = &event
        {
            let document = &open.document;
            let is_told =
                document.owned_epoch().is_some() || document.followed_revision().is_some();
            let told = is_told.then_some(open.told);
            self.fresh.asked(doc, (*session, *ticket), ask, told);
        }
        open.document.handle(event, now);
        let actions: Vec<_> = std::iter::from_fn(|| open.document.poll()).collect();
        let timeout = open.document.timeout();
        if timeout.is_some() && timeout != open.timeout {
            open.timeout = timeout;
            let at = timeout.unwrap_or_default().max(self.clock);
            self.at(at, SimEvent::Timeout(id, doc));
        }
        for action in actions {
            // A node may crash between any two actions.
            if self.nodes[node].id != id {
                return;
            }
            if self.faults_enabled && self.rng.below(2_000) == 0 {
                self.faults += 1;
                return self.crash(node);
            }
            self.perform(node, doc, action);
        }
        self.close_if_idle(node, doc);
    }

    /// Sometimes closes an idle document.
    fn close_if_idle(&mut self, node: usize, doc: usize) {
        let open = self.nodes[node].open.get(&doc);
        let idle = open.is_some_and(|open| open.pending == 0 && open.document.is_idle());
        if idle && self.fault(5) {
            self.nodes[node].open.remove(&doc);
        }
    }

    /// The owner of a document by the ring of a node; sometimes a wrong one.
    pub(crate) fn owner_as_seen(&mut self, node: usize, doc: usize) -> NodeId {
        let id = self.nodes[node].id;
        if self.fault(2) {
            return id;
        }
        let ring = self.nodes[node].membership.ring();
        ring.owner(&self.docs[doc]).unwrap_or(id)
    }

    pub(crate) fn crash(&mut self, node: usize) {
        if self.nodes[node].id.0 == 0 {
            return;
        }
        let gone = std::mem::replace(&mut self.nodes[node], SimNode::down());
        for index in gone.probe_sessions.into_values() {
            self.probes[index].socket = None;
            self.probes[index].machine.disconnected();
        }
        for index in gone.sessions.into_values().collect::<BTreeSet<_>>() {
            self.clients[index].socket = None;
            self.clients[index].machine.disconnected();
            self.within(800, SimEvent::Connect(index));
        }
        self.within(1_500, SimEvent::Start(node));
    }

    pub(crate) fn start(&mut self, node: usize) {
        if self.nodes[node].id.0 == 0 {
            self.join(node);
        }
    }

    /// A paused node continues, with the events since.
    pub(crate) fn resume(&mut self, id: NodeId) {
        let Some(node) = self.node_of(id) else {
            return;
        };
        for event in self.nodes[node].paused.take().into_iter().flatten() {
            self.dispatch(event);
        }
    }

    fn perform(&mut self, node: usize, doc: usize, action: Action) {
        let id = self.nodes[node].id;
        match action {
            Action::Reply {
                session,
                ticket,
                reply: answer,
            } => self.reply(node, session, ticket, answer),
            Action::Deliver { to, entries } => self.deliver(node, doc, &to, &entries),
            Action::PublishPresence {
                session,
                ticket,
                presence,
                ..
            } => {
                self.send_probe(node, session, ProbeMessage::Published(ticket, presence));
            }
            Action::Send { to, message: link } => {
                if let PeerMessage::Commits { head, .. } = link {
                    self.open(node, doc).observe_head(head);
                }
                self.send(id, to, NodeMessage::Link(doc, link));
            }
            Action::LoadSnapshot => {
                let name = self.docs[doc].clone();
                let shown = self.ask_store(|store| store.show(&name));
                self.answer_later(node, doc, 20, Event::SnapshotEncoded(shown));
            }
            Action::EncodeSnapshot(snapshot) => {
                let shown = (Arc::new(encode(&snapshot)), Vec::new());
                self.answer_later(node, doc, 5, Event::SnapshotEncoded(Ok(shown)));
            }
            Action::LoadPage { requester, since } => {
                let name = self.docs[doc].clone();
                let page = self.ask_store(|store| store.load(&name, LoadRange::Since(since)));
                // Short pages, so that catch-ups take several.
                let page = page.map(|loaded| loaded.entries.into_iter().take(3).collect());
                self.answer_later(
                    node,
                    doc,
                    20,
                    Event::PageLoaded {
                        requester,
                        since,
                        page,
                    },
                );
            }
            Action::RequestSlice(epoch) => {
                self.answer_later(node, doc, 5, Event::SliceGranted(epoch))
            }
            Action::Claim => {
                let name = self.docs[doc].clone();
                let claimed = self.ask_store(|store| store.claim(&name, id));
                self.answer_later(node, doc, 20, Event::Claimed(claimed));
            }
            Action::Append { fence, entries } => {
                self.open(node, doc).pending += 1;
                let batch = Batch {
                    doc: self.docs[doc].clone(),
                    fence,
                    entries,
                };
                self.gather(node, doc, batch);
            }
            Action::RefoldSnapshot { .. } => {
                self.violation =
                    Some("a snapshot was refolded while the store is available".to_owned());
            }
            Action::CloseSessions => {
                self.violation = Some("sessions were closed without a damaged entry".to_owned());
            }
            Action::ReportRefused(_) => {
                self.violation =
                    Some("the store refused an entry because of its values".to_owned());
            }
            Action::SaveSnapshot { fence, snapshot } => {
                // Without this snapshot, the next load reads more entries.
                if !self.fault(20) {
                    let name = self.docs[doc].clone();
                    self.store.save(&name, fence, snapshot);
                }
            }
        }
    }

    fn open(&mut self, node: usize, doc: usize) -> &mut SimDocument {
        let open = self.nodes[node].open.get_mut(&doc);
        open.expect("a document with actions is open")
    }

    /// Sends a document the answer of the store.
    fn answer_later(&mut self, node: usize, doc: usize, ms_max: u64, event: Event) {
        self.open(node, doc).pending += 1;
        let id = self.nodes[node].id;
        self.within(ms_max, SimEvent::ForDocument(id, doc, event));
    }

    fn deliver(&mut self, node: usize, doc: usize, to: &[SessionId], entries: &[Arc<Entry>]) {
        self.check_durable(doc, entries);
        for session in to {
            for entry in entries {
                self.fresh.delivered(doc, *session, entry.revision);
                self.open(node, doc).observe_head(entry.revision);
                let heard = ProbeMessage::Commit(entry.clone());
                if !self.send_probe(node, *session, heard) {
                    self.send_client(node, *session, ServerMessage::Commit(entry.clone()));
                }
            }
        }
    }

    fn reply(&mut self, node: usize, session: SessionId, ticket: Ticket, answer: SessionReply) {
        if let Err(violation) = self.fresh.answered((session, ticket), &answer) {
            self.violation = Some(violation);
        }
        if let SessionReply::Rejected(refusal) = &answer
            && refusal.reason == RejectionReason::Malformed
        {
            self.violation = Some(format!("{session:?} sent no malformed request: {refusal}"));
        }
        if self.send_probe(node, session, ProbeMessage::Reply(ticket, answer.clone())) {
            return;
        }
        let message = match answer {
            SessionReply::Snapshot(shown) => ServerMessage::Snapshot(snapshot(&shown)),
            SessionReply::Done => ServerMessage::Done,
            SessionReply::Rejected(_) if ticket.0 < READS => {
                ServerMessage::Rejected { seq: ticket.0 }
            }
            SessionReply::Rejected(refusal) => {
                // The client reconnects and repeats the request.
                if self.trace {
                    println!("rejected: {refusal}");
                }
                let Some(index) = self.nodes[node].sessions.get(&session).copied() else {
                    return;
                };
                return self.disconnect(index);
            }
            SessionReply::Committed(_) => return,
        };
        self.send_client(node, session, message);
    }

    pub(crate) fn check_durable(&mut self, doc: usize, entries: &[Arc<Entry>]) {
        let Some(first) = entries.first() else { return };
        let before = LoadRange::Since(first.revision.before());
        let stored = self.store.load(&self.docs[doc], before).entries;
        let differs = |(stored, told): (&Arc<Entry>, &Arc<Entry>)| stored != told;
        if stored.len() < entries.len() || stored.iter().zip(entries).any(differs) {
            self.violation = Some(format!("sent before it was durable: {entries:?}"));
        }
    }
}

impl SimDocument {
    /// Updates the known head and the number of pending answers.
    fn observe(&mut self, event: &Event) {
        match event {
            Event::PeerMessage {
                message: PeerMessage::Commits { head, .. },
                ..
            }
            | Event::HeadAdvanced(head) => self.observe_head(*head),
            Event::SnapshotEncoded(_)
            | Event::ReadOnly(_)
            | Event::SnapshotRefolded(_)
            | Event::PageLoaded { .. }
            | Event::SliceGranted(_)
            | Event::Claimed(_)
            | Event::Appended { .. } => self.pending -= 1,
            Event::Request { .. }
            | Event::SessionClosed(_)
            | Event::WriteAccessRevoked(_)
            | Event::PeerMessage { .. }
            | Event::OwnerChanged(_)
            | Event::Superseded(_)
            | Event::Reconnected
            | Event::StoreUnavailable
            | Event::StoreAvailable
            | Event::Timeout => {}
        }
    }

    fn observe_head(&mut self, head: Revision) {
        self.told = self.told.max(head);
    }
}

/// The snapshot that a client decodes.
fn snapshot(shown: &EncodedSnapshot) -> Snapshot {
    let content = shown.kind.map(|kind| {
        let data = shown.content_json();
        let data = std::str::from_utf8(&data).unwrap();
        Content::create(kind, Some(data)).unwrap()
    });
    Snapshot {
        revision: shown.revision,
        content,
        ..Snapshot::default()
    }
}
