//! The cluster of a scenario: the real hash ring and membership, delayed heartbeats, links that lose, duplicate, delay and
//! partition, and nodes that leave.

use std::collections::BTreeSet;
use std::time::Duration;

use copydesk::cluster::Membership;
use copydesk::doc::{Event, PeerMessage};
use copydesk::id::NodeId;
use copydesk::store::{DocumentChanges, Heartbeat, OpenDocuments};
use copydesk::version::NodeVersion;

use super::world::{SimEvent, World, ms};

/// A message between two nodes.
#[derive(Debug, Clone)]
pub(crate) enum NodeMessage {
    Link(usize, PeerMessage),
    Ping,
    Pong,
    Leaving,
}

/// How often a node sends its heartbeat, and checks its peers for overdue answers.
const HEARTBEAT_EVERY: Duration = ms(500);
const CHECK_PEERS_EVERY: Duration = ms(100);

/// How long the store keeps a silent node as a member.
const FORGOTTEN_AFTER: Duration = ms(3_000);

impl World {
    /// A node starts. It knows of no other until it reads the members from the store.
    pub(crate) fn join(&mut self, node: usize) {
        let id = self.new_node_id();
        self.nodes[node].id = id;
        self.nodes[node].membership = Membership::new(id, FORGOTTEN_AFTER);
        self.within(20, SimEvent::Heartbeat(id, true));
        self.at(self.clock + CHECK_PEERS_EVERY, SimEvent::CheckPeers(id));
    }

    pub(crate) fn send(&mut self, from: NodeId, to: NodeId, message: NodeMessage) {
        if let NodeMessage::Link(doc, PeerMessage::Commits { entries, .. }) = &message {
            self.check_durable(*doc, entries);
        }
        let clock = self.clock;
        let asks = matches!(
            message,
            NodeMessage::Link(_, PeerMessage::Submit(..) | PeerMessage::Subscribe { .. })
        );
        if let Some(node) = self.node_of(from).filter(|_| asks) {
            self.nodes[node].membership.request_sent(to, clock);
        }
        let ends = (self.node_of(from), self.node_of(to));
        if let (Some(from), Some(to)) = ends
            && self.partitioned.contains(&(from, to))
        {
            return;
        }
        if self.fault(10) {
            return;
        }
        if self.fault(10) {
            self.within(800, SimEvent::NodeMessage(from, to, message.clone()));
        }
        let delay = if self.fault(10) { 500 } else { 5 };
        self.within(delay, SimEvent::NodeMessage(from, to, message));
    }

    pub(crate) fn receive(&mut self, from: NodeId, to: NodeId, message: NodeMessage) {
        let Some(node) = self.node_of(to) else {
            return;
        };
        let clock = self.clock;
        if self.nodes[node].membership.is_unknown(from, clock) {
            self.within(20, SimEvent::Heartbeat(to, false));
        }
        if self.nodes[node].membership.message_received(from, clock) {
            self.publish_ring(to);
        }
        match message {
            NodeMessage::Link(doc, link) => self.document_event(
                to,
                doc,
                Event::PeerMessage {
                    from,
                    message: link,
                },
            ),
            NodeMessage::Ping if from == to => {}
            NodeMessage::Ping => self.send(to, from, NodeMessage::Pong),
            NodeMessage::Pong => {}
            NodeMessage::Leaving => {
                if self.nodes[node].membership.peer_leaves(from) {
                    self.publish_ring(to);
                }
            }
        }
    }

    /// A node sends its heartbeat to the store and reads the members and changes. Some of the answers are lost or late.
    pub(crate) fn heartbeat(&mut self, id: NodeId, again: bool) {
        let Some(node) = self.node_of(id) else {
            return;
        };
        if again {
            self.at(self.clock + HEARTBEAT_EVERY, SimEvent::Heartbeat(id, true));
        }
        let takes_part = !self.nodes[node].leaving;
        self.nodes[node].heartbeat_at = self.clock;
        let beat = heartbeat_of(id, takes_part);
        let open = self.open_on(node);
        let asked = self.ask_store(|store| (store.heartbeat(&beat).nodes, store.news(&open)));
        let Ok((nodes, DocumentChanges { lost, newer })) = asked else {
            return;
        };
        self.at(self.clock + FORGOTTEN_AFTER, SimEvent::ForgetNode(id));
        let delay = if self.fault(10) { 1_000 } else { 20 };
        if !self.fault(10) {
            self.within(delay, SimEvent::Members(id, nodes));
        }
        for (doc, epoch) in open.owned {
            if lost.contains(&doc) && !self.fault(30) {
                let doc = self.index_of(&doc);
                self.within(
                    delay,
                    SimEvent::ForDocument(id, doc, Event::Superseded(epoch)),
                );
            }
        }
        for (doc, head) in newer {
            if !self.fault(30) {
                let doc = self.index_of(&doc);
                self.within(
                    delay,
                    SimEvent::ForDocument(id, doc, Event::HeadAdvanced(head)),
                );
            }
        }
    }

    /// The documents that a node has open.
    fn open_on(&self, node: usize) -> OpenDocuments {
        let node = &self.nodes[node];
        let open = || {
            node.open
                .iter()
                .map(|(doc, open)| (&self.docs[*doc], &open.document))
        };
        let owned =
            open().filter_map(|(doc, document)| Some((doc.clone(), document.owned_epoch()?)));
        let followed =
            open().filter_map(|(doc, document)| Some((doc.clone(), document.followed_revision()?)));
        OpenDocuments {
            owned: owned.collect(),
            followed: followed.collect(),
        }
    }

    /// The store removes a node that was silent for too long.
    pub(crate) fn forget_node(&mut self, id: NodeId) {
        let silent = self.node_of(id).is_none_or(|node| {
            self.nodes[node].leaving
                || self.nodes[node].heartbeat_at + FORGOTTEN_AFTER <= self.clock
        });
        if silent {
            self.store.heartbeat(&heartbeat_of(id, false));
        }
    }

    pub(crate) fn members(&mut self, id: NodeId, nodes: &[NodeId]) {
        let Some(node) = self.node_of(id) else {
            return;
        };
        let (clock, membership) = (self.clock, &mut self.nodes[node].membership);
        let back = membership.store_answered(clock);
        if membership.store_listed(nodes, clock) || back {
            self.publish_ring(id);
        }
    }

    pub(crate) fn check_peers(&mut self, id: NodeId) {
        let Some(node) = self.node_of(id) else {
            return;
        };
        self.at(self.clock + CHECK_PEERS_EVERY, SimEvent::CheckPeers(id));
        let due = self.nodes[node].membership.poll(self.clock);
        if due.ring_changed {
            self.publish_ring(id);
        }
        for to in due.ping {
            self.send(id, to, NodeMessage::Ping);
        }
    }

    /// Sends the node's documents their owners by the hash ring.
    fn publish_ring(&mut self, id: NodeId) {
        let Some(node) = self.node_of(id) else {
            return;
        };
        let open: Vec<usize> = self.nodes[node].open.keys().copied().collect();
        for doc in open {
            let Some(node) = self.node_of(id) else {
                return;
            };
            let owner = self.owner_as_seen(node, doc);
            self.document_event(id, doc, Event::OwnerChanged(owner));
        }
    }

    /// Ends a partition: the documents of its nodes repeat their requests.
    pub(crate) fn heal_partition(&mut self, cut: &[(usize, usize)]) {
        self.partitioned.retain(|pair| !cut.contains(pair));
        let nodes: BTreeSet<usize> = cut.iter().flat_map(|&(one, other)| [one, other]).collect();
        for id in nodes
            .into_iter()
            .map(|node| self.nodes[node].id)
            .collect::<Vec<_>>()
        {
            let open = self.node_of(id).map(|node| self.nodes[node].open.keys());
            for doc in open.into_iter().flatten().copied().collect::<Vec<_>>() {
                self.document_event(id, doc, Event::Reconnected);
            }
        }
    }

    /// Partitions some nodes for a while: two of them, in one or both directions, or one from all, itself included.
    pub(crate) fn partition(&mut self) {
        let nodes = self.nodes.len() as u64;
        let (one, other) = (
            self.rng.below(nodes) as usize,
            self.rng.below(nodes) as usize,
        );
        let cut = match self.rng.below(3) {
            0 => vec![(one, other)],
            1 => vec![(one, other), (other, one)],
            _ => (0..nodes as usize)
                .flat_map(|to| [(one, to), (to, one)])
                .collect(),
        };
        self.partitioned.extend(&cut);
        self.within(4_000, SimEvent::HealPartition(cut));
    }

    /// Shuts a node down: it gives its documents and sockets away first.
    pub(crate) fn leave(&mut self, node: usize) {
        let id = self.nodes[node].id;
        if id.0 == 0 || self.nodes[node].leaving || self.nodes[node].paused.is_some() {
            return;
        }
        self.nodes[node].leaving = true;
        if self.nodes[node].membership.peer_leaves(id) {
            self.publish_ring(id);
        }
        let Some(node) = self.node_of(id) else {
            return;
        };
        let others: Vec<NodeId> = self.nodes[node].membership.others().collect();
        for other in others {
            self.send(id, other, NodeMessage::Leaving);
        }
        self.heartbeat(id, false);
        let (sessions, probe_sessions) =
            (&self.nodes[node].sessions, &self.nodes[node].probe_sessions);
        let (sessions, probe_sessions) = (sessions.clone(), probe_sessions.clone());
        for (session, index) in sessions {
            self.within(1_000, SimEvent::Disconnect(index, session));
        }
        for (session, index) in probe_sessions {
            self.within(1_000, SimEvent::ProbeDisconnect(index, session));
        }
        self.at(self.clock + ms(1_200), SimEvent::Stop(id));
    }

    /// Stops a node that leaves, as soon as everything that it accepted is durable.
    pub(crate) fn stop(&mut self, id: NodeId) {
        let Some(node) = self.node_of(id) else {
            return;
        };
        if self.nodes[node]
            .open
            .values()
            .all(|open| open.document.is_settled())
        {
            self.crash(node);
        } else {
            self.within(200, SimEvent::Stop(id));
        }
    }
}

fn heartbeat_of(me: NodeId, takes_part: bool) -> Heartbeat {
    Heartbeat {
        me,
        name: "".into(),
        takes_part,
        address: None,
        version: NodeVersion::default(),
    }
}
