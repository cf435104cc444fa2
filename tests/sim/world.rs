//! The world of one story: clients, sockets, nodes, links, a store, and what befalls them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use copydesk::client::{Client, Message, Request};
use copydesk::doc::{
    Action, Answer, Ask, Document, DocumentSettings, Event, Link, Now, Submit, Ticket,
};
use copydesk::id::{ClientId, DocId, NodeId, SessionId, UserId};
use copydesk::log::{Change, Entry, Fence, Revision, Snapshot, SubmitId, Tail};
use copydesk::ot::{Content, Kind};
use copydesk::protocol::{Proposal, Shown};
use copydesk::store::{Batch, Loaded, MemoryStore, Open, Reach, Refused, Store, StoreError};
use futures_util::FutureExt;

use super::dice::{self, Dice};
use super::visitor::{Heard, Visitor};

/// What kind of world it is.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) nodes: usize,
    pub(crate) lives: Lives,
}

/// How often the document is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lives {
    /// Once, by one client, so that nobody's work is thrown away because two did.
    One,
    /// Again whenever somebody has deleted it, by anybody.
    Many,
}

/// One story.
pub(crate) struct World {
    dice: Dice,
    kind: Kind,
    clock: Duration,
    /// What will happen, soonest first; of two at one time, the one decided on first.
    future: BinaryHeap<Reverse<(Duration, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    next: u64,
    store: MemoryStore,
    doc: DocId,
    nodes: Vec<SimNode>,
    pub(crate) clients: Vec<SimClient>,
    pub(crate) visitors: Vec<SimVisitor>,
    pub(crate) lives: Lives,
    /// Whether faults still befall the world. They stop before the end, so that it can come to rest.
    stormy: bool,
    /// How many faults there were.
    pub(crate) faults: u64,
    /// The first promise that was broken.
    pub(crate) fault: Option<String>,
    trace: bool,
}

/// A node: its document, and the sockets on it.
struct SimNode {
    /// New at every start.
    id: NodeId,
    document: Option<Document>,
    /// Which client is on which session.
    sessions: BTreeMap<SessionId, usize>,
    /// Which visitor is.
    visits: BTreeMap<SessionId, usize>,
    /// The wake-up that was asked for last.
    timeout: Option<Duration>,
    /// While it is stopped: what has reached it since.
    stopped: Option<Vec<Event>>,
}

/// A client and its socket.
pub(crate) struct SimClient {
    pub(crate) machine: Client,
    /// Where it is connected.
    socket: Option<Socket>,
    edits_left: u64,
}

/// A visitor and its socket.
pub(crate) struct SimVisitor {
    pub(crate) machine: Visitor,
    socket: Option<Socket>,
}

#[derive(Debug, Clone, Copy)]
struct Socket {
    node: usize,
    session: SessionId,
    /// When the last message of each direction arrives: a socket keeps its order.
    to_server: Duration,
    to_client: Duration,
}

#[derive(Debug)]
enum Happening {
    Edit(usize),
    Connect(usize),
    Cut(usize),
    Request(usize, SessionId, Request),
    Message(usize, SessionId, Message),
    Visit(usize),
    VisitorAsks(SessionId, Ticket, Ask),
    VisitorHears(usize, SessionId, Heard),
    /// The store's answer reaches the node that asked, if it is still the one.
    Answer(NodeId, Event),
    /// An append whose asker was told that its fate is unknown happens after all.
    LateAppend(Batch),
    /// An append happens, and its answer is on its way.
    Append(NodeId, Fence, Batch),
    Link(NodeId, NodeId, Link),
    Ring(usize, NodeId),
    Timeout(NodeId),
    Heartbeat,
    Crash(usize),
    Start(usize),
    Wake(NodeId),
    Calm,
}

const STORM: Duration = Duration::from_secs(8);
const PATIENCE: Duration = Duration::from_secs(60);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl World {
    pub(crate) fn new(seed: u64, shape: &Shape, trace: bool) -> Self {
        let mut dice = Dice::new(seed);
        let kind = if dice.percent(60) {
            Kind::TextUnicode
        } else {
            Kind::RichText
        };
        let clients = 2 + dice.below(4) as usize;
        let mut world = Self {
            kind,
            clock: Duration::ZERO,
            future: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            next: 0,
            store: MemoryStore::new(),
            doc: DocId::parse("c", "d").unwrap(),
            nodes: Vec::new(),
            clients: Vec::new(),
            visitors: Vec::new(),
            lives: shape.lives,
            stormy: true,
            faults: 0,
            fault: None,
            trace,
            dice,
        };
        for _ in 0..shape.nodes {
            let id = world.fresh_node();
            world.nodes.push(SimNode {
                id,
                document: None,
                sessions: BTreeMap::new(),
                visits: BTreeMap::new(),
                timeout: None,
                stopped: None,
            });
        }
        for index in 0..clients {
            let id = ClientId::parse(&format!("client-{index}")).unwrap();
            let edits_left = world.dice.below(25);
            world.clients.push(SimClient {
                machine: Client::new(id),
                socket: None,
                edits_left,
            });
            world.within(20, Happening::Connect(index));
            world.within(200, Happening::Edit(index));
        }
        for index in 0..world.dice.below(4) as usize {
            let asks_left = world.dice.below(40);
            world.visitors.push(SimVisitor {
                machine: Visitor::new(index, asks_left),
                socket: None,
            });
            world.within(300, Happening::Visit(index));
        }
        world.within(1_000, Happening::Heartbeat);
        world.at(STORM, Happening::Calm);
        world
    }

    /// Lets everything happen, until nothing is left to.
    pub(crate) fn tell(&mut self) {
        while let Some(Reverse((at, number))) = self.future.pop() {
            self.clock = at;
            if self.clock > PATIENCE || self.fault.is_some() || (!self.stormy && self.rests()) {
                return;
            }
            let happening = self.happenings.remove(&number).expect("it was planned");
            if self.trace {
                println!("{:>9.3?} {happening:?}", self.clock);
            }
            self.happen(happening);
        }
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.clients
            .iter()
            .map(|client| client.machine.acknowledged().len() as u64)
            .sum()
    }

    /// The log as the store holds it.
    pub(crate) fn log(&self) -> Vec<Arc<Entry>> {
        let mut log = Vec::new();
        loop {
            let since = Revision(log.len() as u64);
            let page = self
                .load(Reach::Since(since))
                .expect("memory answers")
                .entries;
            if page.is_empty() {
                return log;
            }
            log.extend(page);
        }
    }

    fn rests(&self) -> bool {
        let head = self
            .load(Reach::Since(Revision(u64::MAX >> 1)))
            .expect("memory answers")
            .head;
        self.clients.iter().all(|client| {
            client.edits_left == 0
                && client.socket.is_some()
                && client.machine.is_settled()
                && client.machine.revision() == Some(head)
        }) && self
            .visitors
            .iter()
            .all(|visitor| visitor.machine.rests(head))
    }

    fn fresh_node(&mut self) -> NodeId {
        NodeId(self.dice.next())
    }

    fn at(&mut self, at: Duration, happening: Happening) {
        self.future.push(Reverse((at, self.next)));
        self.happenings.insert(self.next, happening);
        self.next += 1;
    }

    fn within(&mut self, ms_max: u64, happening: Happening) {
        let at = self.clock + ms(self.dice.below(ms_max + 1));
        self.at(at, happening);
    }

    fn storm(&mut self, percent: u64) -> bool {
        let strikes = self.stormy && self.dice.percent(percent);
        self.faults += u64::from(strikes);
        strikes
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Edit(client) => self.edit(client),
            Happening::Connect(client) => self.connect(client),
            Happening::Cut(client) => self.cut(client),
            Happening::Request(client, session, request) => self.request(client, session, request),
            Happening::Message(client, session, message) => self.message(client, session, message),
            Happening::Visit(visitor) => self.visit(visitor),
            Happening::VisitorAsks(session, ticket, ask) => self.visitor_asks(session, ticket, ask),
            Happening::VisitorHears(visitor, session, heard) => {
                self.visitor_hears(visitor, session, heard);
            }
            Happening::Answer(node, event) => self.event(node, event),
            Happening::LateAppend(batch) => {
                let _ = self.append(batch);
            }
            Happening::Append(node, fence, batch) => {
                let result = self.append(batch);
                self.within(
                    5,
                    Happening::Answer(
                        node,
                        Event::Appended {
                            fence,
                            result: Ok(result),
                        },
                    ),
                );
            }
            Happening::Link(from, to, link) => self.event(to, Event::Linked { from, link }),
            Happening::Ring(node, owner) => {
                let id = self.nodes[node].id;
                self.event(id, Event::Ring(owner));
            }
            Happening::Timeout(node) => self.event(node, Event::Timeout),
            Happening::Heartbeat => self.heartbeat(),
            Happening::Crash(node) => self.crash(node),
            Happening::Start(node) => self.start(node),
            Happening::Wake(node) => self.wake(node),
            Happening::Calm => self.stormy = false,
        }
    }

    // Clients.

    fn edit(&mut self, index: usize) {
        if self.clients[index].edits_left == 0 {
            return;
        }
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
            (Some(_), None) if index == 0 || self.lives == Lives::Many => {
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
        if self.storm(2) {
            self.within(10, Happening::Cut(index));
        }
    }

    fn connect(&mut self, index: usize) {
        if self.clients[index].socket.is_some() {
            return;
        }
        let alive: Vec<usize> = (0..self.nodes.len())
            .filter(|node| self.nodes[*node].id.0 != 0)
            .collect();
        if alive.is_empty() {
            return self.within(200, Happening::Connect(index));
        }
        let node = *self.dice.pick(&alive);
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
    fn cut(&mut self, index: usize) {
        let Some(socket) = self.clients[index].socket.take() else {
            return;
        };
        self.clients[index].machine.disconnected();
        self.within(500, Happening::Connect(index));
        let node = &mut self.nodes[socket.node];
        if node.sessions.remove(&socket.session).is_some() {
            let id = node.id;
            self.within(50, Happening::Answer(id, Event::Left(socket.session)));
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

    fn request(&mut self, index: usize, session: SessionId, request: Request) {
        // What was on its way on a socket that broke may still arrive.
        let Some(node) = self
            .nodes
            .iter()
            .position(|node| node.sessions.contains_key(&session))
        else {
            return;
        };
        let ask = match request {
            Request::Subscribe { since } => Ask::Subscribe { since },
            Request::Fetch { since } => Ask::Fetch { since },
            Request::Submit {
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
                Ask::Submit(Submit {
                    id,
                    base: Some(base),
                    proposal,
                })
            }
        };
        // The ticket says what kind of request it answers.
        let ticket = Ticket(match &ask {
            Ask::Submit(submit) => submit.id.seq,
            _ => 0,
        });
        let id = self.nodes[node].id;
        self.event(
            id,
            Event::Asked {
                session,
                ticket,
                ask,
            },
        );
    }

    fn message(&mut self, index: usize, session: SessionId, message: Message) {
        if self.clients[index]
            .socket
            .is_none_or(|socket| socket.session != session)
        {
            return;
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

    fn say(&mut self, node: usize, session: SessionId, message: Message) {
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

    // Visitors.

    /// A visitor asks something, now and then on a new socket.
    fn visit(&mut self, index: usize) {
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
            let (ticket, ask) =
                self.visitors[index]
                    .machine
                    .ask(&mut self.dice, &self.doc, self.kind);
            let delay = ms(1 + self.dice.below(10));
            let socket = self.visitors[index]
                .socket
                .as_mut()
                .expect("it is connected");
            socket.to_server = socket.to_server.max(self.clock + delay);
            let (at, session) = (socket.to_server, socket.session);
            self.at(at, Happening::VisitorAsks(session, ticket, ask));
        }
        if self.storm(4) {
            self.visitor_goes(index);
        }
    }

    fn visitor_connects(&mut self, index: usize) -> bool {
        let node = self.dice.below(self.nodes.len() as u64) as usize;
        if self.nodes[node].id.0 == 0 {
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

    fn visitor_goes(&mut self, index: usize) {
        let Some(socket) = self.visitors[index].socket.take() else {
            return;
        };
        self.visitors[index].machine.disconnected();
        let node = &mut self.nodes[socket.node];
        if node.visits.remove(&socket.session).is_some() {
            let id = node.id;
            self.within(50, Happening::Answer(id, Event::Left(socket.session)));
        }
    }

    fn visitor_asks(&mut self, session: SessionId, ticket: Ticket, ask: Ask) {
        let node = self
            .nodes
            .iter()
            .find(|node| node.visits.contains_key(&session));
        if let Some(id) = node.map(|node| node.id) {
            self.event(
                id,
                Event::Asked {
                    session,
                    ticket,
                    ask,
                },
            );
        }
    }

    fn visitor_hears(&mut self, index: usize, session: SessionId, heard: Heard) {
        let visitor = &self.visitors[index];
        if visitor
            .socket
            .is_none_or(|socket| socket.session != session)
        {
            return;
        }
        let log = self.log();
        if let Err(fault) = self.visitors[index].machine.hears(heard, &log) {
            self.fault = Some(format!("visitor {index}: {fault}"));
        }
    }

    /// Whether the session is a visitor's: then it is on its way to it.
    fn visitor_is_told(&mut self, node: usize, session: SessionId, heard: Heard) -> bool {
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

    // Nodes.

    fn settings() -> DocumentSettings {
        // Small, so that every edge is reached.
        DocumentSettings {
            tail_entries_max: 6,
            snapshot_entries: 10,
            ..DocumentSettings::default()
        }
    }

    fn event(&mut self, id: NodeId, event: Event) {
        let Some(node) = self.nodes.iter().position(|node| node.id == id) else {
            return;
        };
        if self.nodes[node].id.0 == 0 {
            return;
        }
        if let Some(waiting) = &mut self.nodes[node].stopped {
            return waiting.push(event);
        }
        let now = Now {
            clock: self.clock,
            wall_ms: self.clock.as_millis() as u64,
        };
        let owner = self.owner_as_seen(node);
        let document = self.nodes[node]
            .document
            .get_or_insert_with(|| Document::new(id, owner, Self::settings()));
        document.handle(event, now);
        let mut actions = Vec::new();
        while let Some(action) = document.poll() {
            actions.push(action);
        }
        let timeout = document.timeout();
        if timeout.is_some() && timeout != self.nodes[node].timeout {
            self.nodes[node].timeout = timeout;
            self.at(
                timeout.unwrap_or_default().max(self.clock),
                Happening::Timeout(id),
            );
        }
        for action in actions {
            // A crash between any two steps.
            if self.nodes[node].id != id {
                return;
            }
            if self.storm(0) || (self.stormy && self.dice.below(2_000) == 0) {
                self.faults += 1;
                return self.crash(node);
            }
            self.perform(node, action);
        }
    }

    /// The ring: the first living node, which a node that was told otherwise may not know.
    fn owner_as_seen(&mut self, node: usize) -> NodeId {
        if self.storm(20) {
            return self.nodes[node].id;
        }
        self.owner()
    }

    /// A stopped node is soon taken for dead.
    fn owner(&self) -> NodeId {
        let mut living = self.nodes.iter().filter(|node| node.id.0 != 0);
        let awake = living.clone().find(|node| node.stopped.is_none());
        awake
            .or(living.next_back())
            .map_or(NodeId(0), |node| node.id)
    }

    fn crash(&mut self, node: usize) {
        if self.nodes[node].id.0 == 0 {
            return;
        }
        let sessions = std::mem::take(&mut self.nodes[node].sessions);
        for index in std::mem::take(&mut self.nodes[node].visits).into_values() {
            self.visitors[index].socket = None;
            self.visitors[index].machine.disconnected();
        }
        self.nodes[node].document = None;
        self.nodes[node].stopped = None;
        self.nodes[node].timeout = None;
        self.nodes[node].id = NodeId(0);
        for index in sessions.into_values().collect::<BTreeSet<_>>() {
            self.clients[index].socket = None;
            self.clients[index].machine.disconnected();
            self.within(800, Happening::Connect(index));
        }
        self.within(1_500, Happening::Start(node));
        self.tell_ring();
    }

    fn start(&mut self, node: usize) {
        if self.nodes[node].id.0 != 0 {
            return;
        }
        self.nodes[node].id = self.fresh_node();
        self.tell_ring();
    }

    /// A stopped node goes on, with all that has reached it meanwhile.
    fn wake(&mut self, id: NodeId) {
        let node = self.nodes.iter_mut().find(|node| node.id == id);
        for event in node
            .and_then(|node| node.stopped.take())
            .into_iter()
            .flatten()
        {
            self.event(id, event);
        }
    }

    fn tell_ring(&mut self) {
        let owner = self.owner();
        for node in 0..self.nodes.len() {
            self.within(1_000, Happening::Ring(node, owner));
        }
    }

    /// Each node learns whether its document was claimed away, whether the log has moved on, and who should own.
    fn heartbeat(&mut self) {
        self.within(1_000, Happening::Heartbeat);
        let owner = self.owner();
        for node in 0..self.nodes.len() {
            let id = self.nodes[node].id;
            let Some(document) = &self.nodes[node].document else {
                continue;
            };
            let owned = document.owned();
            let open = Open {
                owned: owned
                    .map(|epoch| (self.doc.clone(), epoch))
                    .into_iter()
                    .collect(),
                followed: document
                    .followed()
                    .map(|head| (self.doc.clone(), head))
                    .into_iter()
                    .collect(),
            };
            let news = self
                .store
                .news(&open)
                .now_or_never()
                .expect("memory answers")
                .unwrap();
            if let (Some(epoch), [_]) = (owned, &news.lost[..])
                && !self.storm(30)
            {
                self.within(20, Happening::Answer(id, Event::Deposed(epoch)));
            }
            if let [(_, head)] = news.newer[..]
                && !self.storm(30)
            {
                self.within(20, Happening::Answer(id, Event::Newer(head)));
            }
        }
        for node in 0..self.nodes.len() {
            if !self.storm(30) {
                self.within(20, Happening::Ring(node, owner));
            }
        }
        if self.storm(10) {
            let node = self.dice.below(self.nodes.len() as u64) as usize;
            if self.nodes[node].id.0 != 0 {
                self.within(500, Happening::Crash(node));
            }
        }
        if self.storm(10) {
            let node = self.dice.below(self.nodes.len() as u64) as usize;
            let id = self.nodes[node].id;
            if id.0 != 0 && self.nodes[node].stopped.is_none() {
                self.nodes[node].stopped = Some(Vec::new());
                self.within(5_000, Happening::Wake(id));
            }
        }
    }

    fn perform(&mut self, node: usize, action: Action) {
        let id = self.nodes[node].id;
        match action {
            Action::Reply {
                session,
                ticket,
                answer,
            } => self.reply(node, session, ticket, answer),
            Action::Deliver { to, entries } => {
                self.must_be_durable(&entries);
                for session in to.iter() {
                    for entry in &entries {
                        let heard = Heard::Commit(entry.clone());
                        if self.visitor_is_told(node, *session, heard) {
                            continue;
                        }
                        self.say(node, *session, Message::Commit(entry.clone()));
                    }
                }
            }
            Action::Publish {
                session,
                ticket,
                presence,
                ..
            } => {
                self.visitor_is_told(node, session, Heard::Published(ticket, presence));
            }
            Action::Send { to, link } => self.send(id, to, link),
            Action::Show => {
                let event = Event::Shown(self.unless_away(|world| world.show()));
                self.within(20, Happening::Answer(id, event));
            }
            Action::Encode(snapshot) => {
                let event = Event::Shown(Ok((Arc::new(Shown::of(&snapshot)), Vec::new())));
                self.within(5, Happening::Answer(id, event));
            }
            Action::Page { asker, since } => {
                let page = self.unless_away(|world| world.load(Reach::Since(since)));
                // Short pages, so that walks are walks.
                let event = Event::Paged {
                    asker,
                    since,
                    page: page.map(|loaded| loaded.entries.into_iter().take(3).collect()),
                };
                self.within(20, Happening::Answer(id, event));
            }
            Action::Claim => {
                let event = Event::Claimed(self.unless_away(|world| world.claim(id)));
                self.within(20, Happening::Answer(id, event));
            }
            Action::Append { fence, entries } => {
                let batch = Batch {
                    doc: self.doc.clone(),
                    fence,
                    entries,
                };
                self.send_append(id, fence, batch);
            }
            Action::Save { fence, snapshot } => {
                let saved = self
                    .store
                    .save_snapshot(&self.doc, fence, snapshot)
                    .now_or_never();
                saved.expect("memory answers").unwrap();
            }
        }
    }

    fn reply(&mut self, node: usize, session: SessionId, ticket: Ticket, answer: Answer) {
        if self.visitor_is_told(node, session, Heard::Answer(ticket, answer.clone())) {
            return;
        }
        let message = match answer {
            Answer::Shown(shown) => Message::Shown(snapshot(&shown)),
            Answer::Done => Message::Done,
            Answer::Refused(_) if ticket.0 > 0 => Message::Refused { seq: ticket.0 },
            Answer::Refused(refusal) => {
                // The client would ask again on a new socket.
                if self.trace {
                    println!("refused: {refusal}");
                }
                let Some(index) = self.nodes[node].sessions.get(&session).copied() else {
                    return;
                };
                return self.cut(index);
            }
            Answer::Committed => return,
        };
        self.say(node, session, message);
    }

    fn send(&mut self, from: NodeId, to: NodeId, link: Link) {
        if let Link::Commits { entries, .. } = &link {
            self.must_be_durable(entries);
        }
        if self.storm(10) {
            return;
        }
        if self.storm(10) {
            self.within(800, Happening::Link(from, to, link.clone()));
        }
        let delay = if self.storm(10) { 500 } else { 5 };
        self.within(delay, Happening::Link(from, to, link));
    }

    fn must_be_durable(&mut self, entries: &[Arc<Entry>]) {
        let Some(first) = entries.first() else { return };
        let stored = self
            .load(Reach::Since(first.revision.before()))
            .expect("memory answers")
            .entries;
        if stored.len() < entries.len()
            || stored
                .iter()
                .zip(entries)
                .any(|(stored, told)| stored != told)
        {
            self.fault = Some(format!("told before it was durable: {entries:?}"));
        }
    }

    // The store.

    fn unless_away<T>(
        &mut self,
        ask: impl FnOnce(&Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.storm(3) {
            Err(StoreError::new("ask", "away"))
        } else {
            ask(self)
        }
    }

    fn load(&self, reach: Reach) -> Result<Loaded, StoreError> {
        self.store
            .load(&self.doc, reach)
            .now_or_never()
            .expect("memory answers")
    }

    fn head(&self) -> Result<(Snapshot, Vec<Arc<Entry>>), StoreError> {
        let Loaded {
            mut snapshot,
            entries,
            ..
        } = self.load(Reach::Head)?;
        for entry in &entries {
            snapshot
                .fold(entry)
                .map_err(|error| StoreError::new("fold", error))?;
        }
        Ok((snapshot, entries))
    }

    fn show(&self) -> Result<(Arc<Shown>, Vec<Arc<Entry>>), StoreError> {
        let (head, entries) = self.head()?;
        Ok((Arc::new(Shown::of(&head)), entries))
    }

    fn claim(&self, node: NodeId) -> Result<(Fence, Snapshot, Tail), StoreError> {
        let lease = self
            .store
            .claim(&self.doc, node)
            .now_or_never()
            .expect("memory answers")?;
        let (head, entries) = self.head()?;
        let mut tail = Tail::new(
            entries
                .first()
                .map_or(head.revision, |entry| entry.revision.before()),
        );
        entries.into_iter().for_each(|entry| tail.push(entry));
        Ok((lease.fence, head, tail))
    }

    fn append(&self, batch: Batch) -> Result<(), Refused> {
        let answers = self
            .store
            .append(vec![batch])
            .now_or_never()
            .expect("memory answers");
        answers.expect("memory answers").remove(0)
    }

    /// An append: it happens now or later, and its answer comes, or says that nobody knows.
    fn send_append(&mut self, node: NodeId, fence: Fence, batch: Batch) {
        if self.storm(3) {
            let unknown = Err(StoreError::new("append", "nobody knows"));
            self.within(
                30,
                Happening::Answer(
                    node,
                    Event::Appended {
                        fence,
                        result: unknown,
                    },
                ),
            );
            match self.dice.below(3) {
                0 => drop(self.append(batch)),
                1 => self.within(2_000, Happening::LateAppend(batch)),
                _ => {}
            }
            return;
        }
        let delay = if self.storm(3) { 2_000 } else { 8 };
        self.within(delay, Happening::Append(node, fence, batch));
    }
}

/// The snapshot that a client reads from what it is shown.
fn snapshot(shown: &Shown) -> Snapshot {
    let content = shown.kind.map(|kind| {
        let data = std::str::from_utf8(shown.data()).unwrap();
        Content::create(kind, Some(data)).unwrap()
    });
    Snapshot {
        revision: shown.revision,
        content,
        ..Snapshot::default()
    }
}
