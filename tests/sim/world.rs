//! The world of one story: its clock, what will happen, and what befalls it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use copydesk::client::{Client, ClientRequest, ServerMessage};
use copydesk::doc::{Event, SessionRequest, Ticket};
use copydesk::id::{ClientId, DocId, NodeId, SessionId};
use copydesk::log::Revision;
use copydesk::ot::Kind;
use copydesk::store::{Batch, LoadRange};

use super::clients::{SimClient, SimVisitor};
use super::cluster::Saying;
use super::freshness::Freshness;
use super::nodes::SimNode;
use super::probe_client::{Heard, Visitor};
use super::rng::Dice;
use super::sim_store::Depot;

/// What kind of world it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) nodes: usize,
    pub(crate) lives: Lives,
}

/// How often a document is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lives {
    /// Once, by one client, so that nobody's work is thrown away because two did.
    One,
    /// Again whenever somebody has deleted it, by anybody.
    Many,
}

/// One story.
pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) kind: Kind,
    pub(crate) clock: Duration,
    /// What will happen, soonest first; of two at one time, the one decided on first.
    future: BinaryHeap<Reverse<(Duration, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    pub(crate) next: u64,
    pub(crate) depot: Depot,
    pub(crate) docs: Vec<DocId>,
    pub(crate) nodes: Vec<SimNode>,
    /// Which nodes are not heard by which.
    pub(crate) parted: BTreeSet<(usize, usize)>,
    pub(crate) clients: Vec<SimClient>,
    pub(crate) visitors: Vec<SimVisitor>,
    /// The submits of clients that were told no.
    pub(crate) refused: BTreeSet<(ClientId, u64)>,
    pub(crate) fresh: Freshness,
    pub(crate) lives: Lives,
    /// Whether faults still befall the world. They stop before the end, so that it can come to rest.
    pub(crate) stormy: bool,
    /// How many faults there were.
    pub(crate) faults: u64,
    /// The first promise that was broken.
    pub(crate) fault: Option<String>,
    pub(crate) trace: bool,
}

#[derive(Debug)]
pub(crate) enum Happening {
    Edit(usize),
    Connect(usize),
    Cut(usize, SessionId),
    Request(usize, SessionId, ClientRequest),
    Message(usize, SessionId, ServerMessage),
    Visit(usize),
    VisitorGoes(usize, SessionId),
    VisitorAsks(usize, SessionId, Ticket, SessionRequest),
    VisitorHears(usize, SessionId, Heard),
    /// Something reaches a document of a node, if it is still the one.
    Document(NodeId, usize, Event),
    /// An append whose asker was told that its fate is unknown happens after all.
    LateAppend(Vec<Batch>),
    /// An append happens, and its answer is on its way.
    Append(NodeId, Vec<(usize, Batch)>),
    /// An append is answered, for each document that had a part in it.
    Written(NodeId, Vec<(usize, Event)>),
    Said(NodeId, NodeId, Saying),
    Timeout(NodeId, usize),
    /// A node says that it lives; and again, again and again.
    Heartbeat(NodeId, bool),
    /// A node learns who lives.
    Named(NodeId, Vec<NodeId>),
    Forget(NodeId),
    Look(NodeId),
    Trouble,
    Crash(usize),
    Start(usize),
    Wake(NodeId),
    Unpart(Vec<(usize, usize)>),
    Stop(NodeId),
    Calm,
}

const STORM: Duration = Duration::from_secs(8);
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const fn ms(ms: u64) -> Duration {
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
        let docs = 1 + dice.below(3) as usize;
        let clients = docs + 1 + dice.below(4) as usize;
        let visitors = dice.below(4) as usize;
        let mut world = Self {
            kind,
            clock: Duration::ZERO,
            future: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            next: 0,
            depot: Depot::default(),
            docs: (0..docs)
                .map(|doc| DocId::parse("c", &format!("d{doc}")).unwrap())
                .collect(),
            nodes: Vec::new(),
            parted: BTreeSet::new(),
            clients: Vec::new(),
            visitors: Vec::new(),
            refused: BTreeSet::new(),
            fresh: Freshness::default(),
            lives: shape.lives,
            stormy: true,
            faults: 0,
            fault: None,
            trace,
            dice,
        };
        for node in 0..shape.nodes {
            world.nodes.push(SimNode::down());
            world.joins(node);
        }
        (0..clients).for_each(|index| world.invite(index));
        (0..visitors).for_each(|index| world.admit_visitor(index));
        world.within(1_000, Happening::Trouble);
        world.at(STORM, Happening::Calm);
        world
    }

    fn invite(&mut self, index: usize) {
        let id = ClientId::parse(&format!("client-{index}")).unwrap();
        self.clients.push(SimClient {
            machine: Client::new(id),
            doc: index % self.docs.len(),
            creates: index < self.docs.len(),
            socket: None,
            edits_left: self.dice.below(25),
        });
        self.within(20, Happening::Connect(index));
        self.within(200, Happening::Edit(index));
    }

    fn admit_visitor(&mut self, index: usize) {
        let asks_left = self.dice.below(40);
        self.visitors.push(SimVisitor {
            machine: Visitor::new(index, asks_left),
            doc: index % self.docs.len(),
            socket: None,
        });
        self.within(300, Happening::Visit(index));
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

    fn rests(&self) -> bool {
        let end = LoadRange::Since(Revision(u64::MAX >> 1));
        let heads: Vec<Revision> = self
            .docs
            .iter()
            .map(|doc| self.depot.load(doc, end).head)
            .collect();
        self.clients.iter().all(|client| {
            client.edits_left == 0
                && client.socket.is_some()
                && client.machine.is_settled()
                && client.machine.revision() == Some(heads[client.doc])
        }) && self
            .visitors
            .iter()
            .all(|visitor| visitor.machine.rests(heads[visitor.doc]))
    }

    pub(crate) fn fresh_node(&mut self) -> NodeId {
        NodeId(self.dice.next())
    }

    /// A document's place among this story's.
    pub(crate) fn number(&self, doc: &DocId) -> usize {
        let place = self.docs.iter().position(|it| it == doc);
        place.expect("a document of this story")
    }

    pub(crate) fn at(&mut self, at: Duration, happening: Happening) {
        self.future.push(Reverse((at, self.next)));
        self.happenings.insert(self.next, happening);
        self.next += 1;
    }

    pub(crate) fn within(&mut self, ms_max: u64, happening: Happening) {
        let at = self.clock + ms(self.dice.below(ms_max + 1));
        self.at(at, happening);
    }

    pub(crate) fn storm(&mut self, percent: u64) -> bool {
        let strikes = self.stormy && self.dice.percent(percent);
        self.faults += u64::from(strikes);
        strikes
    }

    pub(crate) fn happen(&mut self, happening: Happening) {
        if let Some(node) = happening.addressee().and_then(|id| self.node_of(id))
            && let Some(waiting) = &mut self.nodes[node].stopped
        {
            return waiting.push(happening);
        }
        match happening {
            Happening::Edit(client) => self.edit(client),
            Happening::Connect(client) => self.connect(client),
            Happening::Cut(client, session) => self.cut_socket(client, session),
            Happening::Request(client, session, request) => self.request(client, session, request),
            Happening::Message(client, session, message) => self.message(client, session, message),
            Happening::Visit(visitor) => self.visit(visitor),
            Happening::VisitorGoes(visitor, session) => self.visitor_goes_from(visitor, session),
            Happening::VisitorAsks(visitor, session, ticket, ask) => {
                self.visitor_asks(visitor, session, ticket, ask);
            }
            Happening::VisitorHears(visitor, session, heard) => {
                self.visitor_hears(visitor, session, heard);
            }
            Happening::Document(node, doc, event) => self.event(node, doc, event),
            Happening::LateAppend(batches) => drop(self.depot.append(batches)),
            Happening::Append(node, batches) => self.append(node, batches),
            Happening::Written(node, answers) => self.written(node, answers),
            Happening::Said(from, to, saying) => self.hear(from, to, saying),
            Happening::Timeout(node, doc) => self.event(node, doc, Event::Timeout),
            Happening::Heartbeat(node, again) => self.beat(node, again),
            Happening::Named(node, nodes) => self.named(node, &nodes),
            Happening::Forget(node) => self.forget(node),
            Happening::Look(node) => self.look(node),
            Happening::Trouble => self.trouble(),
            Happening::Crash(node) => self.crash(node),
            Happening::Start(node) => self.start(node),
            Happening::Wake(node) => self.wake(node),
            Happening::Unpart(cut) => self.unpart(&cut),
            Happening::Stop(node) => self.stop(node),
            Happening::Calm => {
                self.stormy = false;
                self.parted.clear();
                self.depot.away_until = Duration::ZERO;
            }
        }
    }

    /// Now and then a node crashes, pauses or leaves, some do not hear each other, or the store is away.
    fn trouble(&mut self) {
        self.within(1_000, Happening::Trouble);
        let node = self.dice.below(self.nodes.len() as u64) as usize;
        let id = self.nodes[node].id;
        if self.storm(10) && id.0 != 0 {
            self.within(500, Happening::Crash(node));
        }
        if self.storm(10) && id.0 != 0 && self.nodes[node].stopped.is_none() {
            self.nodes[node].stopped = Some(Vec::new());
            self.within(5_000, Happening::Wake(id));
        }
        if self.storm(10) {
            self.leave(node);
        }
        if self.storm(10) {
            self.part();
        }
        if self.storm(3) {
            self.depot.away_until = self.clock + ms(self.dice.below(3_000));
        }
    }
}

impl Happening {
    /// The node that it happens to, if it is one that may be paused.
    fn addressee(&self) -> Option<NodeId> {
        match self {
            Self::Document(node, ..)
            | Self::Written(node, _)
            | Self::Said(_, node, _)
            | Self::Timeout(node, _)
            | Self::Heartbeat(node, _)
            | Self::Named(node, _)
            | Self::Look(node)
            | Self::Stop(node) => Some(*node),
            _ => None,
        }
    }
}
