//! The clients and probes of a scenario, and their sockets.

use std::time::Duration;

use copydesk::client::{Client, ClientRequest, ServerMessage};
use copydesk::doc::{Event, Proposal, SessionRequest, Submit, Ticket};
use copydesk::id::{SessionId, UserId};
use copydesk::log::{Change, SubmitId};
use copydesk::ot::{Content, Kind};

use super::probe_client::{ProbeClient, ProbeMessage};
use super::rng;
use super::world::{Creation, SimEvent, World, ms};

/// A client and its socket.
pub(crate) struct SimClient {
    pub(crate) machine: Client,
    /// The index of its document.
    pub(crate) doc: usize,
    /// Whether it creates the document if there is none.
    pub(crate) creates: bool,
    /// Its connection.
    pub(crate) socket: Option<Socket>,
    pub(crate) edits_left: u64,
}

/// A probe and its socket.
pub(crate) struct SimProbe {
    pub(crate) machine: ProbeClient,
    pub(crate) doc: usize,
    pub(crate) socket: Option<Socket>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Socket {
    node: usize,
    session: SessionId,
    /// When the newest message of each direction arrives. Messages of a socket are not reordered.
    to_server: Duration,
    to_client: Duration,
}

/// The tickets of a client are the `seq`s of its submits below this number, and reads from it on.
pub(crate) const READS: u64 = 1 << 32;

impl World {
    pub(crate) fn edit(&mut self, index: usize) {
        if self.clients[index].edits_left == 0 {
            return;
        }
        let creates = self.clients[index].creates || self.creation == Creation::Repeated;
        let machine = &mut self.clients[index].machine;
        match (machine.revision(), machine.content()) {
            (Some(_), Some(_)) if self.creation == Creation::Repeated && self.rng.percent(12) => {
                machine.delete().expect("it exists");
            }
            (Some(_), Some(content)) => {
                let op = rng::op(&mut self.rng, &content.clone());
                machine.edit(op).expect("an op that fits");
                self.clients[index].edits_left -= 1;
            }
            (Some(_), None) if creates => {
                let data = if self.kind == Kind::RichText {
                    r#"[{"insert":"a\n"}]"#
                } else {
                    "\"ab\""
                };
                machine
                    .create(Content::create(self.kind, Some(data)).unwrap())
                    .expect("it does not exist");
            }
            _ => {}
        }
        self.within(300, SimEvent::Edit(index));
        self.send_requests(index);
        if let Some(socket) = self.clients[index].socket
            && self.fault(2)
        {
            self.within(10, SimEvent::Disconnect(index, socket.session));
        }
    }

    pub(crate) fn connect(&mut self, index: usize) {
        if self.clients[index].socket.is_some() {
            return;
        }
        let welcoming: Vec<usize> = (0..self.nodes.len())
            .filter(|node| self.nodes[*node].is_welcoming())
            .collect();
        if welcoming.is_empty() {
            return self.within(200, SimEvent::Connect(index));
        }
        let node = *self.rng.pick(&welcoming);
        let session = SessionId(self.next);
        self.next += 1;
        self.nodes[node].sessions.insert(session, index);
        self.clients[index].socket = Some(Socket {
            node,
            session,
            to_server: self.clock,
            to_client: self.clock,
        });
        self.clients[index].machine.connected();
        self.send_requests(index);
    }

    /// Breaks the socket. The client notices at once, the server a little later.
    pub(crate) fn disconnect(&mut self, index: usize) {
        let Some(socket) = self.clients[index].socket.take() else {
            return;
        };
        self.clients[index].machine.disconnected();
        self.within(500, SimEvent::Connect(index));
        let node = &mut self.nodes[socket.node];
        if node.sessions.remove(&socket.session).is_some() {
            let id = node.id;
            let doc = self.clients[index].doc;
            self.within(
                50,
                SimEvent::ForDocument(id, doc, Event::SessionClosed(socket.session)),
            );
        }
    }

    /// As [`disconnect`](Self::disconnect), if the client is still on that socket.
    pub(crate) fn disconnect_session(&mut self, index: usize, session: SessionId) {
        if self.clients[index]
            .socket
            .is_some_and(|socket| socket.session == session)
        {
            self.disconnect(index);
        }
    }

    fn send_requests(&mut self, index: usize) {
        while let Some(request) = self.clients[index].machine.poll() {
            let delay = ms(1 + self.rng.below(10));
            let Some(socket) = &mut self.clients[index].socket else {
                continue;
            };
            socket.to_server = socket.to_server.max(self.clock + delay);
            let (at, session) = (socket.to_server, socket.session);
            self.at(at, SimEvent::Request(index, session, request));
        }
    }

    pub(crate) fn request(&mut self, index: usize, session: SessionId, request: ClientRequest) {
        // Requests under way on a broken socket may still arrive.
        let Some(node) = self
            .nodes
            .iter()
            .position(|node| node.sessions.contains_key(&session))
        else {
            return;
        };
        let ask = match request {
            ClientRequest::Subscribe { since } => SessionRequest::Subscribe { since },
            ClientRequest::Fetch { since } => SessionRequest::Fetch { since },
            ClientRequest::Submit {
                seq, base, change, ..
            } => {
                let client = self.clients[index].machine.id().clone();
                let proposal = match change {
                    Change::Create(content) => Proposal::Create(content),
                    Change::Edit(op) => {
                        let mut json = Vec::new();
                        op.write_json(&mut json);
                        Proposal::Edit(String::from_utf8(json).unwrap().into())
                    }
                    Change::Delete | Change::Nothing => Proposal::Delete,
                };
                let id = SubmitId {
                    author: UserId::anyone(),
                    client,
                    seq,
                };
                SessionRequest::Submit(Submit {
                    id,
                    base: Some(base),
                    proposal,
                })
            }
        };
        // The ticket shows the kind of the request.
        let ticket = Ticket(match &ask {
            SessionRequest::Submit(submit) => submit.id.seq,
            _ => {
                self.next += 1;
                READS + self.next
            }
        });
        let id = self.nodes[node].id;
        self.document_event(
            id,
            self.clients[index].doc,
            Event::Request {
                session,
                ticket,
                request: ask,
            },
        );
    }

    pub(crate) fn message(&mut self, index: usize, session: SessionId, message: ServerMessage) {
        if self.clients[index]
            .socket
            .is_none_or(|socket| socket.session != session)
        {
            return;
        }
        if let ServerMessage::Rejected { seq } = message {
            let client = self.clients[index].machine.id().clone();
            self.refused.insert((client, seq));
        }
        let heard = self.clients[index].machine.received(message);
        if let Err(unfit) = heard {
            self.violation = Some(format!("client {index} cannot apply a message: {unfit}"));
        }
        self.send_requests(index);
        if self.fault(1) {
            self.disconnect(index);
        }
    }

    pub(crate) fn send_client(&mut self, node: usize, session: SessionId, message: ServerMessage) {
        let Some(index) = self.nodes[node].sessions.get(&session).copied() else {
            return;
        };
        let delay = ms(1 + self.rng.below(10));
        let clock = self.clock;
        let Some(socket) = &mut self.clients[index].socket else {
            return;
        };
        socket.to_client = socket.to_client.max(clock + delay);
        let at = socket.to_client;
        self.at(at, SimEvent::Message(index, session, message));
    }

    /// A probe sends requests, sometimes on a new socket.
    pub(crate) fn probe_turn(&mut self, index: usize) {
        if self.probes[index].machine.requests_left == 0 {
            return;
        }
        self.within(400, SimEvent::ProbeTurn(index));
        if self.probes[index].socket.is_none() && !self.connect_probe(index) {
            return;
        }
        self.probes[index].machine.requests_left -= 1;
        // Sometimes several at once, so that their answers can overtake each other.
        for _ in 0..=self.rng.below(2) {
            let probe = &mut self.probes[index];
            let doc = &self.docs[probe.doc];
            let (ticket, ask) = probe
                .machine
                .ask(&mut self.rng, doc, self.kind, self.creation);
            let delay = ms(1 + self.rng.below(10));
            let socket = self.probes[index].socket.as_mut().expect("it is connected");
            socket.to_server = socket.to_server.max(self.clock + delay);
            let (at, session) = (socket.to_server, socket.session);
            self.at(at, SimEvent::ProbeRequest(index, session, ticket, ask));
        }
        if self.fault(4) {
            self.disconnect_probe(index);
        }
    }

    fn connect_probe(&mut self, index: usize) -> bool {
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        if !self.nodes[node].is_welcoming() {
            return false;
        }
        let session = SessionId(self.next);
        self.next += 1;
        self.nodes[node].probe_sessions.insert(session, index);
        self.probes[index].socket = Some(Socket {
            node,
            session,
            to_server: self.clock,
            to_client: self.clock,
        });
        true
    }

    pub(crate) fn disconnect_probe(&mut self, index: usize) {
        let Some(socket) = self.probes[index].socket.take() else {
            return;
        };
        self.probes[index].machine.disconnected();
        let node = &mut self.nodes[socket.node];
        if node.probe_sessions.remove(&socket.session).is_some() {
            let id = node.id;
            let doc = self.probes[index].doc;
            self.within(
                50,
                SimEvent::ForDocument(id, doc, Event::SessionClosed(socket.session)),
            );
        }
    }

    /// As [`disconnect_probe`](Self::disconnect_probe), if the probe is still on that socket.
    pub(crate) fn disconnect_probe_session(&mut self, index: usize, session: SessionId) {
        if self.probes[index]
            .socket
            .is_some_and(|socket| socket.session == session)
        {
            self.disconnect_probe(index);
        }
    }

    pub(crate) fn probe_request(
        &mut self,
        index: usize,
        session: SessionId,
        ticket: Ticket,
        ask: SessionRequest,
    ) {
        let node = self
            .nodes
            .iter()
            .find(|node| node.probe_sessions.contains_key(&session));
        if let Some(id) = node.map(|node| node.id) {
            self.document_event(
                id,
                self.probes[index].doc,
                Event::Request {
                    session,
                    ticket,
                    request: ask,
                },
            );
        }
    }

    pub(crate) fn probe_receives(&mut self, index: usize, session: SessionId, heard: ProbeMessage) {
        let probe = &self.probes[index];
        if probe.socket.is_none_or(|socket| socket.session != session) {
            return;
        }
        let log = self.store.log(&self.docs[probe.doc]);
        if let Err(violation) = self.probes[index].machine.receive(heard, &log) {
            self.violation = Some(format!("probe {index}: {violation}"));
        }
    }

    /// Sends a message to the session's probe. Returns false if the session is not a probe's.
    pub(crate) fn send_probe(
        &mut self,
        node: usize,
        session: SessionId,
        heard: ProbeMessage,
    ) -> bool {
        let Some(index) = self.nodes[node].probe_sessions.get(&session).copied() else {
            return false;
        };
        let delay = ms(1 + self.rng.below(10));
        let clock = self.clock;
        if let Some(socket) = &mut self.probes[index].socket {
            socket.to_client = socket.to_client.max(clock + delay);
            let at = socket.to_client;
            self.at(at, SimEvent::ProbeReceive(index, session, heard));
        }
        true
    }
}
