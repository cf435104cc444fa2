//! The world of a scenario: its clock, its future events and its faults.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use copydesk::client::{Client, ClientRequest, ServerMessage};
use copydesk::doc::{Event, SessionRequest, Ticket};
use copydesk::id::{ClientId, DocId, NodeId, SessionId};
use copydesk::log::Revision;
use copydesk::ot::Kind;
use copydesk::store::{Batch, LoadRange};

use super::clients::{SimClient, SimProbe};
use super::cluster::NodeMessage;
use super::freshness::FreshnessCheck;
use super::nodes::SimNode;
use super::probe_client::{ProbeClient, ProbeMessage};
use super::rng::Rng;
use super::sim_store::SimStore;

/// The shape of a scenario.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) nodes: usize,
    pub(crate) creation: Creation,
}

/// How often a document is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Creation {
    /// Once, by one client, so that no change is dropped because of a second creation.
    Once,
    /// After each deletion, by any client.
    Repeated,
}

/// A scenario.
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) kind: Kind,
    pub(crate) clock: Duration,
    /// The times and numbers of the future events, soonest first; events of one time in the order of their planning.
    future: BinaryHeap<Reverse<(Duration, u64)>>,
    events: BTreeMap<u64, SimEvent>,
    pub(crate) next: u64,
    pub(crate) store: SimStore,
    pub(crate) docs: Vec<DocId>,
    pub(crate) nodes: Vec<SimNode>,
    /// The pairs of nodes of which the second does not receive from the first.
    pub(crate) partitioned: BTreeSet<(usize, usize)>,
    pub(crate) clients: Vec<SimClient>,
    pub(crate) probes: Vec<SimProbe>,
    /// The rejected submits of clients.
    pub(crate) refused: BTreeSet<(ClientId, u64)>,
    pub(crate) fresh: FreshnessCheck,
    pub(crate) creation: Creation,
    /// Whether faults are injected. They stop before the end, so that everything can be answered.
    pub(crate) faults_enabled: bool,
    /// The number of injected faults.
    pub(crate) faults: u64,
    /// The first violation of an invariant.
    pub(crate) violation: Option<String>,
    pub(crate) trace: bool,
}

#[derive(Debug)]
pub(crate) enum SimEvent {
    Edit(usize),
    Connect(usize),
    Disconnect(usize, SessionId),
    Request(usize, SessionId, ClientRequest),
    Message(usize, SessionId, ServerMessage),
    ProbeTurn(usize),
    ProbeDisconnect(usize, SessionId),
    ProbeRequest(usize, SessionId, Ticket, SessionRequest),
    ProbeReceive(usize, SessionId, ProbeMessage),
    /// An event for a document of a node, dropped if the node has restarted since.
    ForDocument(NodeId, usize, Event),
    /// An append with an unknown outcome is carried out late.
    LateAppend(Vec<Batch>),
    /// An append is carried out.
    Append(NodeId, Vec<(usize, Batch)>),
    /// The answer of an append, for each of its documents.
    AppendAnswer(NodeId, Vec<(usize, Event)>),
    NodeMessage(NodeId, NodeId, NodeMessage),
    Timeout(NodeId, usize),
    /// A node sends its heartbeat; if true, periodically.
    Heartbeat(NodeId, bool),
    /// A node reads the members.
    Members(NodeId, Vec<NodeId>),
    ForgetNode(NodeId),
    CheckPeers(NodeId),
    InjectFaults,
    Crash(usize),
    Start(usize),
    Resume(NodeId),
    HealPartition(Vec<(usize, usize)>),
    Stop(NodeId),
    EndFaults,
}

const FAULTS_LAST: Duration = Duration::from_secs(8);
const SCENARIO_LASTS: Duration = Duration::from_secs(60);

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl World {
    pub(crate) fn new(seed: u64, shape: &Shape, trace: bool) -> Self {
        let mut rng = Rng::new(seed);
        let kind = if rng.percent(60) {
            Kind::TextUnicode
        } else {
            Kind::RichText
        };
        let docs = 1 + rng.below(3) as usize;
        let clients = docs + 1 + rng.below(4) as usize;
        let probes = rng.below(4) as usize;
        let mut world = Self {
            kind,
            clock: Duration::ZERO,
            future: BinaryHeap::new(),
            events: BTreeMap::new(),
            next: 0,
            store: SimStore::default(),
            docs: (0..docs)
                .map(|doc| DocId::parse("c", &format!("d{doc}")).unwrap())
                .collect(),
            nodes: Vec::new(),
            partitioned: BTreeSet::new(),
            clients: Vec::new(),
            probes: Vec::new(),
            refused: BTreeSet::new(),
            fresh: FreshnessCheck::default(),
            creation: shape.creation,
            faults_enabled: true,
            faults: 0,
            violation: None,
            trace,
            rng,
        };
        for node in 0..shape.nodes {
            world.nodes.push(SimNode::down());
            world.join(node);
        }
        (0..clients).for_each(|index| world.add_client(index));
        (0..probes).for_each(|index| world.add_probe(index));
        world.within(1_000, SimEvent::InjectFaults);
        world.at(FAULTS_LAST, SimEvent::EndFaults);
        world
    }

    fn add_client(&mut self, index: usize) {
        let id = ClientId::parse(&format!("client-{index}")).unwrap();
        self.clients.push(SimClient {
            machine: Client::new(id),
            doc: index % self.docs.len(),
            creates: index < self.docs.len(),
            socket: None,
            edits_left: self.rng.below(25),
        });
        self.within(20, SimEvent::Connect(index));
        self.within(200, SimEvent::Edit(index));
    }

    fn add_probe(&mut self, index: usize) {
        let requests_left = self.rng.below(40);
        self.probes.push(SimProbe {
            machine: ProbeClient::new(index, requests_left),
            doc: index % self.docs.len(),
            socket: None,
        });
        self.within(300, SimEvent::ProbeTurn(index));
    }

    /// Dispatches the events until the scenario is at rest.
    pub(crate) fn run(&mut self) {
        while let Some(Reverse((at, number))) = self.future.pop() {
            self.clock = at;
            if self.clock > SCENARIO_LASTS
                || self.violation.is_some()
                || (!self.faults_enabled && self.is_at_rest())
            {
                return;
            }
            let event = self.events.remove(&number).expect("it was planned");
            if self.trace {
                println!("{:>9.3?} {event:?}", self.clock);
            }
            self.dispatch(event);
        }
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.clients
            .iter()
            .map(|client| client.machine.acknowledged().len() as u64)
            .sum()
    }

    fn is_at_rest(&self) -> bool {
        let end = LoadRange::Since(Revision(u64::MAX >> 1));
        let heads: Vec<Revision> = self
            .docs
            .iter()
            .map(|doc| self.store.load(doc, end).head)
            .collect();
        self.clients.iter().all(|client| {
            client.edits_left == 0
                && client.socket.is_some()
                && client.machine.is_settled()
                && client.machine.revision() == Some(heads[client.doc])
        }) && self
            .probes
            .iter()
            .all(|probe| probe.machine.is_at_rest(heads[probe.doc]))
    }

    pub(crate) fn new_node_id(&mut self) -> NodeId {
        NodeId(self.rng.next())
    }

    /// The index of a document.
    pub(crate) fn index_of(&self, doc: &DocId) -> usize {
        let place = self.docs.iter().position(|it| it == doc);
        place.expect("a document of this scenario")
    }

    pub(crate) fn at(&mut self, at: Duration, event: SimEvent) {
        self.future.push(Reverse((at, self.next)));
        self.events.insert(self.next, event);
        self.next += 1;
    }

    pub(crate) fn within(&mut self, ms_max: u64, event: SimEvent) {
        let at = self.clock + ms(self.rng.below(ms_max + 1));
        self.at(at, event);
    }

    pub(crate) fn fault(&mut self, percent: u64) -> bool {
        let strikes = self.faults_enabled && self.rng.percent(percent);
        self.faults += u64::from(strikes);
        strikes
    }

    pub(crate) fn dispatch(&mut self, event: SimEvent) {
        if let Some(node) = event.receiver().and_then(|id| self.node_of(id))
            && let Some(waiting) = &mut self.nodes[node].paused
        {
            return waiting.push(event);
        }
        match event {
            SimEvent::Edit(client) => self.edit(client),
            SimEvent::Connect(client) => self.connect(client),
            SimEvent::Disconnect(client, session) => self.disconnect_session(client, session),
            SimEvent::Request(client, session, request) => self.request(client, session, request),
            SimEvent::Message(client, session, message) => self.message(client, session, message),
            SimEvent::ProbeTurn(probe) => self.probe_turn(probe),
            SimEvent::ProbeDisconnect(probe, session) => {
                self.disconnect_probe_session(probe, session)
            }
            SimEvent::ProbeRequest(probe, session, ticket, ask) => {
                self.probe_request(probe, session, ticket, ask);
            }
            SimEvent::ProbeReceive(probe, session, heard) => {
                self.probe_receives(probe, session, heard);
            }
            SimEvent::ForDocument(node, doc, event) => self.document_event(node, doc, event),
            SimEvent::LateAppend(batches) => drop(self.store.append(batches)),
            SimEvent::Append(node, batches) => self.append(node, batches),
            SimEvent::AppendAnswer(node, answers) => self.append_answered(node, answers),
            SimEvent::NodeMessage(from, to, message) => self.receive(from, to, message),
            SimEvent::Timeout(node, doc) => self.document_event(node, doc, Event::Timeout),
            SimEvent::Heartbeat(node, again) => self.heartbeat(node, again),
            SimEvent::Members(node, nodes) => self.members(node, &nodes),
            SimEvent::ForgetNode(node) => self.forget_node(node),
            SimEvent::CheckPeers(node) => self.check_peers(node),
            SimEvent::InjectFaults => self.inject_faults(),
            SimEvent::Crash(node) => self.crash(node),
            SimEvent::Start(node) => self.start(node),
            SimEvent::Resume(node) => self.resume(node),
            SimEvent::HealPartition(cut) => self.heal_partition(&cut),
            SimEvent::Stop(node) => self.stop(node),
            SimEvent::EndFaults => {
                self.faults_enabled = false;
                self.partitioned.clear();
                self.store.away_until = Duration::ZERO;
            }
        }
    }

    /// Sometimes a node crashes, pauses or leaves, some nodes are partitioned, or the store is unavailable.
    fn inject_faults(&mut self) {
        self.within(1_000, SimEvent::InjectFaults);
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        let id = self.nodes[node].id;
        if self.fault(10) && id.0 != 0 {
            self.within(500, SimEvent::Crash(node));
        }
        if self.fault(10) && id.0 != 0 && self.nodes[node].paused.is_none() {
            self.nodes[node].paused = Some(Vec::new());
            self.within(5_000, SimEvent::Resume(id));
        }
        if self.fault(10) {
            self.leave(node);
        }
        if self.fault(10) {
            self.partition();
        }
        if self.fault(3) {
            self.store.away_until = self.clock + ms(self.rng.below(3_000));
        }
    }
}

impl SimEvent {
    /// The node that handles the event, if a pause delays it.
    fn receiver(&self) -> Option<NodeId> {
        match self {
            Self::ForDocument(node, ..)
            | Self::AppendAnswer(node, _)
            | Self::NodeMessage(_, node, _)
            | Self::Timeout(node, _)
            | Self::Heartbeat(node, _)
            | Self::Members(node, _)
            | Self::CheckPeers(node)
            | Self::Stop(node) => Some(*node),
            _ => None,
        }
    }
}
