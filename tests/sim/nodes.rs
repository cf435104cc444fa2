//! The nodes of a story: their documents, what happens to them, and what they want done.

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
use super::cluster::Saying;
use super::probe_client::Heard;
use super::sim_store::Writer;
use super::sim_store::encode;
use super::world::{Happening, World};

/// A node: its documents, and the sockets on it.
pub(crate) struct SimNode {
    /// New at every start; zero while it is down.
    pub(crate) id: NodeId,
    pub(crate) membership: Membership,
    pub(crate) open: BTreeMap<usize, Open>,
    pub(crate) writer: Writer,
    /// Which client is on which session.
    pub(crate) sessions: BTreeMap<SessionId, usize>,
    /// Which visitor is.
    pub(crate) visits: BTreeMap<SessionId, usize>,
    /// When it told the store last that it lives.
    pub(crate) beat_at: Duration,
    /// Whether it takes no more documents and is about to stop.
    pub(crate) leaving: bool,
    /// While it is paused: what has reached it since.
    pub(crate) stopped: Option<Vec<Happening>>,
}

/// A document that is open on a node.
pub(crate) struct Open {
    pub(crate) document: Document,
    /// The wake-up that was asked for last.
    timeout: Option<Duration>,
    /// How many answers of the store are on their way.
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
            writer: Writer::default(),
            sessions: BTreeMap::new(),
            visits: BTreeMap::new(),
            beat_at: Duration::ZERO,
            leaving: false,
            stopped: None,
        }
    }

    /// Whether new sockets go to it.
    pub(crate) fn is_welcoming(&self) -> bool {
        self.id.0 != 0 && !self.leaving
    }
}

/// Small, so that every edge is reached.
fn settings() -> DocumentSettings {
    DocumentSettings {
        tail_entries_max: 6,
        snapshot_entries: 10,
        staged_entries_max: 3,
        late_submits_max: 2,
        // So few that what many others were changing meanwhile is combined in several slices.
        combine_slice_steps: 5,
        ..DocumentSettings::default()
    }
}

impl World {
    /// Where the node is that has this name, while it runs.
    pub(crate) fn node_of(&self, id: NodeId) -> Option<usize> {
        self.nodes
            .iter()
            .position(|node| node.id == id && id.0 != 0)
    }

    /// Something happens to a document of a node.
    pub(crate) fn event(&mut self, id: NodeId, doc: usize, event: Event) {
        let Some(node) = self.node_of(id) else {
            return;
        };
        if let Some(waiting) = &mut self.nodes[node].stopped {
            return waiting.push(Happening::Document(id, doc, event));
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
        let open = self.nodes[node].open.entry(doc).or_insert_with(|| Open {
            document: Document::new(id, owner, settings()),
            timeout: None,
            pending: 0,
            told: Revision::ZERO,
        });
        open.note(&event);
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
            self.at(at, Happening::Timeout(id, doc));
        }
        for action in actions {
            // A crash between any two steps.
            if self.nodes[node].id != id {
                return;
            }
            if self.stormy && self.dice.below(2_000) == 0 {
                self.faults += 1;
                return self.crash(node);
            }
            self.perform(node, doc, action);
        }
        self.close_if_idle(node, doc);
    }

    /// Now and then a document is closed that nobody needs.
    fn close_if_idle(&mut self, node: usize, doc: usize) {
        let open = self.nodes[node].open.get(&doc);
        let idle = open.is_some_and(|open| open.pending == 0 && open.document.is_idle());
        if idle && self.storm(5) {
            self.nodes[node].open.remove(&doc);
        }
    }

    /// Whose a document should be, as far as a node knows; now and then it is wrong.
    pub(crate) fn owner_as_seen(&mut self, node: usize, doc: usize) -> NodeId {
        let id = self.nodes[node].id;
        if self.storm(2) {
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
        for index in gone.visits.into_values() {
            self.visitors[index].socket = None;
            self.visitors[index].machine.disconnected();
        }
        for index in gone.sessions.into_values().collect::<BTreeSet<_>>() {
            self.clients[index].socket = None;
            self.clients[index].machine.disconnected();
            self.within(800, Happening::Connect(index));
        }
        self.within(1_500, Happening::Start(node));
    }

    pub(crate) fn start(&mut self, node: usize) {
        if self.nodes[node].id.0 == 0 {
            self.joins(node);
        }
    }

    /// A paused node goes on, with all that has reached it meanwhile.
    pub(crate) fn wake(&mut self, id: NodeId) {
        let Some(node) = self.node_of(id) else {
            return;
        };
        for happening in self.nodes[node].stopped.take().into_iter().flatten() {
            self.happen(happening);
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
                self.visitor_is_told(node, session, Heard::Published(ticket, presence));
            }
            Action::Send { to, message: link } => {
                if let PeerMessage::Commits { head, .. } = link {
                    self.open(node, doc).knows(head);
                }
                self.say(id, to, Saying::Link(doc, link));
            }
            Action::LoadSnapshot => {
                let name = self.docs[doc].clone();
                let shown = self.ask_store(|depot| depot.show(&name));
                self.answers(node, doc, 20, Event::SnapshotEncoded(shown));
            }
            Action::EncodeSnapshot(snapshot) => {
                let shown = (Arc::new(encode(&snapshot)), Vec::new());
                self.answers(node, doc, 5, Event::SnapshotEncoded(Ok(shown)));
            }
            Action::LoadPage { requester, since } => {
                let name = self.docs[doc].clone();
                let page = self.ask_store(|depot| depot.load(&name, LoadRange::Since(since)));
                // Short pages, so that walks are walks.
                let page = page.map(|loaded| loaded.entries.into_iter().take(3).collect());
                self.answers(
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
            Action::RequestSlice(epoch) => self.answers(node, doc, 5, Event::SliceGranted(epoch)),
            Action::Claim => {
                let name = self.docs[doc].clone();
                let claimed = self.ask_store(|depot| depot.claim(&name, id));
                self.answers(node, doc, 20, Event::Claimed(claimed));
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
                self.fault =
                    Some("a document was refolded, and nothing said the store is away".to_owned());
            }
            Action::CloseSessions => {
                self.fault = Some("sockets were closed, and no entry is damaged".to_owned());
            }
            Action::SaveSnapshot { fence, snapshot } => {
                // A snapshot that is not saved, or not whole, costs the next opening some time and nothing else.
                if !self.storm(20) {
                    let name = self.docs[doc].clone();
                    self.depot.save(&name, fence, snapshot);
                }
            }
        }
    }

    fn open(&mut self, node: usize, doc: usize) -> &mut Open {
        let open = self.nodes[node].open.get_mut(&doc);
        open.expect("whoever acts is open")
    }

    /// The store's answer to a document is on its way.
    fn answers(&mut self, node: usize, doc: usize, ms_max: u64, event: Event) {
        self.open(node, doc).pending += 1;
        let id = self.nodes[node].id;
        self.within(ms_max, Happening::Document(id, doc, event));
    }

    fn deliver(&mut self, node: usize, doc: usize, to: &[SessionId], entries: &[Arc<Entry>]) {
        self.must_be_durable(doc, entries);
        for session in to {
            for entry in entries {
                self.fresh.delivered(doc, *session, entry.revision);
                self.open(node, doc).knows(entry.revision);
                let heard = Heard::Commit(entry.clone());
                if !self.visitor_is_told(node, *session, heard) {
                    self.send_client(node, *session, ServerMessage::Commit(entry.clone()));
                }
            }
        }
    }

    fn reply(&mut self, node: usize, session: SessionId, ticket: Ticket, answer: SessionReply) {
        if let Err(fault) = self.fresh.answered((session, ticket), &answer) {
            self.fault = Some(fault);
        }
        if let SessionReply::Rejected(refusal) = &answer
            && refusal.reason == RejectionReason::Malformed
        {
            self.fault = Some(format!("{session:?} said nothing wrong: {refusal}"));
        }
        if self.visitor_is_told(node, session, Heard::Reply(ticket, answer.clone())) {
            return;
        }
        let message = match answer {
            SessionReply::Snapshot(shown) => ServerMessage::Snapshot(snapshot(&shown)),
            SessionReply::Done => ServerMessage::Done,
            SessionReply::Rejected(_) if ticket.0 < READS => {
                ServerMessage::Rejected { seq: ticket.0 }
            }
            SessionReply::Rejected(refusal) => {
                // The client would ask again on a new socket.
                if self.trace {
                    println!("refused: {refusal}");
                }
                let Some(index) = self.nodes[node].sessions.get(&session).copied() else {
                    return;
                };
                return self.cut(index);
            }
            SessionReply::Committed(_) => return,
        };
        self.send_client(node, session, message);
    }

    pub(crate) fn must_be_durable(&mut self, doc: usize, entries: &[Arc<Entry>]) {
        let Some(first) = entries.first() else { return };
        let before = LoadRange::Since(first.revision.before());
        let stored = self.depot.load(&self.docs[doc], before).entries;
        let differs = |(stored, told): (&Arc<Entry>, &Arc<Entry>)| stored != told;
        if stored.len() < entries.len() || stored.iter().zip(entries).any(differs) {
            self.fault = Some(format!("told before it was durable: {entries:?}"));
        }
    }
}

impl Open {
    /// An event tells it something, or answers what it asked the store.
    fn note(&mut self, event: &Event) {
        match event {
            Event::PeerMessage {
                message: PeerMessage::Commits { head, .. },
                ..
            }
            | Event::HeadAdvanced(head) => self.knows(*head),
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

    fn knows(&mut self, head: Revision) {
        self.told = self.told.max(head);
    }
}

/// The snapshot that a client reads from what it is shown.
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
