//! The people of a story: clients and visitors, and the sockets between them and the nodes.

use std::time::Duration;

use copydesk::client::{Client, ClientRequest, ServerMessage};
use copydesk::doc::{Event, Proposal, SessionRequest, Submit, Ticket};
use copydesk::id::{SessionId, UserId};
use copydesk::log::{Change, SubmitId};
use copydesk::ot::{Content, Kind};

use super::probe_client::{Heard, Visitor};
use super::rng as dice;
use super::world::{Happening, Lives, World, ms};

/// A client and its socket.
pub(crate) struct SimClient {
    pub(crate) machine: Client,
    /// Which document it has open.
    pub(crate) doc: usize,
    /// Whether it creates the document where nobody did.
    pub(crate) creates: bool,
    /// Where it is connected.
    pub(crate) socket: Option<Socket>,
    pub(crate) edits_left: u64,
}

/// A visitor and its socket.
pub(crate) struct SimVisitor {
    pub(crate) machine: Visitor,
    pub(crate) doc: usize,
    pub(crate) socket: Option<Socket>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Socket {
    node: usize,
    session: SessionId,
    /// When the last message of each direction arrives: a socket keeps its order.
    to_server: Duration,
    to_client: Duration,
}

/// A client's tickets below it are the counts of its submits, those from it on are its reads.
pub(crate) const READS: u64 = 1 << 32;

impl World {
    pub(crate) fn edit(&mut self, index: usize) {
        if self.clients[index].edits_left == 0 {
            return;
        }
        let creates = self.clients[index].creates || self.lives == Lives::Many;
        let machine = &mut self.clients[index].machine;
        match (machine.revision(), machine.content()) {
            (Some(_), Some(_)) if self.lives == Lives::Many && self.dice.percent(12) => {
                machine.delete().expect("it exists");
            }
            (Some(_), Some(content)) => {
                let op = dice::op(&mut self.dice, &content.clone());
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
        self.within(300, Happening::Edit(index));
        self.pump(index);
        if let Some(socket) = self.clients[index].socket
            && self.storm(2)
        {
            self.within(10, Happening::Cut(index, socket.session));
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
            return self.within(200, Happening::Connect(index));
        }
        let node = *self.dice.pick(&welcoming);
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
        self.pump(index);
    }

    /// The socket breaks: the client knows at once, the server a little later.
    pub(crate) fn cut(&mut self, index: usize) {
        let Some(socket) = self.clients[index].socket.take() else {
            return;
        };
        self.clients[index].machine.disconnected();
        self.within(500, Happening::Connect(index));
        let node = &mut self.nodes[socket.node];
        if node.sessions.remove(&socket.session).is_some() {
            let id = node.id;
            let doc = self.clients[index].doc;
            self.within(
                50,
                Happening::Document(id, doc, Event::SessionClosed(socket.session)),
            );
        }
    }

    /// As [`cut`](Self::cut), if the client is still on that socket.
    pub(crate) fn cut_socket(&mut self, index: usize, session: SessionId) {
        if self.clients[index]
            .socket
            .is_some_and(|socket| socket.session == session)
        {
            self.cut(index);
        }
    }

    fn pump(&mut self, index: usize) {
        while let Some(request) = self.clients[index].machine.poll() {
            let delay = ms(1 + self.dice.below(10));
            let Some(socket) = &mut self.clients[index].socket else {
                continue;
            };
            socket.to_server = socket.to_server.max(self.clock + delay);
            let (at, session) = (socket.to_server, socket.session);
            self.at(at, Happening::Request(index, session, request));
        }
    }

    pub(crate) fn request(&mut self, index: usize, session: SessionId, request: ClientRequest) {
        // What was on its way on a socket that broke may still arrive.
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
        // The ticket says what kind of request it answers.
        let ticket = Ticket(match &ask {
            SessionRequest::Submit(submit) => submit.id.seq,
            _ => {
                self.next += 1;
                READS + self.next
            }
        });
        let id = self.nodes[node].id;
        self.event(
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
            self.fault = Some(format!(
                "client {index} cannot take what it was sent: {unfit}"
            ));
        }
        self.pump(index);
        if self.storm(1) {
            self.cut(index);
        }
    }

    pub(crate) fn send_client(&mut self, node: usize, session: SessionId, message: ServerMessage) {
        let Some(index) = self.nodes[node].sessions.get(&session).copied() else {
            return;
        };
        let delay = ms(1 + self.dice.below(10));
        let clock = self.clock;
        let Some(socket) = &mut self.clients[index].socket else {
            return;
        };
        socket.to_client = socket.to_client.max(clock + delay);
        let at = socket.to_client;
        self.at(at, Happening::Message(index, session, message));
    }

    /// A visitor asks something, now and then on a new socket.
    pub(crate) fn visit(&mut self, index: usize) {
        if self.visitors[index].machine.asks_left == 0 {
            return;
        }
        self.within(400, Happening::Visit(index));
        if self.visitors[index].socket.is_none() && !self.visitor_connects(index) {
            return;
        }
        self.visitors[index].machine.asks_left -= 1;
        // Now and then two things at once: answers may not mix them up.
        for _ in 0..=self.dice.below(2) {
            let visitor = &mut self.visitors[index];
            let doc = &self.docs[visitor.doc];
            let (ticket, ask) = visitor
                .machine
                .ask(&mut self.dice, doc, self.kind, self.lives);
            let delay = ms(1 + self.dice.below(10));
            let socket = self.visitors[index]
                .socket
                .as_mut()
                .expect("it is connected");
            socket.to_server = socket.to_server.max(self.clock + delay);
            let (at, session) = (socket.to_server, socket.session);
            self.at(at, Happening::VisitorAsks(index, session, ticket, ask));
        }
        if self.storm(4) {
            self.visitor_goes(index);
        }
    }

    fn visitor_connects(&mut self, index: usize) -> bool {
        let node = self.dice.below(self.nodes.len() as u64) as usize;
        if !self.nodes[node].is_welcoming() {
            return false;
        }
        let session = SessionId(self.next);
        self.next += 1;
        self.nodes[node].visits.insert(session, index);
        self.visitors[index].socket = Some(Socket {
            node,
            session,
            to_server: self.clock,
            to_client: self.clock,
        });
        true
    }

    pub(crate) fn visitor_goes(&mut self, index: usize) {
        let Some(socket) = self.visitors[index].socket.take() else {
            return;
        };
        self.visitors[index].machine.disconnected();
        let node = &mut self.nodes[socket.node];
        if node.visits.remove(&socket.session).is_some() {
            let id = node.id;
            let doc = self.visitors[index].doc;
            self.within(
                50,
                Happening::Document(id, doc, Event::SessionClosed(socket.session)),
            );
        }
    }

    /// As [`visitor_goes`](Self::visitor_goes), if the visitor is still on that socket.
    pub(crate) fn visitor_goes_from(&mut self, index: usize, session: SessionId) {
        if self.visitors[index]
            .socket
            .is_some_and(|socket| socket.session == session)
        {
            self.visitor_goes(index);
        }
    }

    pub(crate) fn visitor_asks(
        &mut self,
        index: usize,
        session: SessionId,
        ticket: Ticket,
        ask: SessionRequest,
    ) {
        let node = self
            .nodes
            .iter()
            .find(|node| node.visits.contains_key(&session));
        if let Some(id) = node.map(|node| node.id) {
            self.event(
                id,
                self.visitors[index].doc,
                Event::Request {
                    session,
                    ticket,
                    request: ask,
                },
            );
        }
    }

    pub(crate) fn visitor_hears(&mut self, index: usize, session: SessionId, heard: Heard) {
        let visitor = &self.visitors[index];
        if visitor
            .socket
            .is_none_or(|socket| socket.session != session)
        {
            return;
        }
        let log = self.depot.log(&self.docs[visitor.doc]);
        if let Err(fault) = self.visitors[index].machine.hears(heard, &log) {
            self.fault = Some(format!("visitor {index}: {fault}"));
        }
    }

    /// Whether the session is a visitor's: then it is on its way to it.
    pub(crate) fn visitor_is_told(
        &mut self,
        node: usize,
        session: SessionId,
        heard: Heard,
    ) -> bool {
        let Some(index) = self.nodes[node].visits.get(&session).copied() else {
            return false;
        };
        let delay = ms(1 + self.dice.below(10));
        let clock = self.clock;
        if let Some(socket) = &mut self.visitors[index].socket {
            socket.to_client = socket.to_client.max(clock + delay);
            let at = socket.to_client;
            self.at(at, Happening::VisitorHears(index, session, heard));
        }
        true
    }
}
