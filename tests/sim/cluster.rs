//! What nodes say to each other and know of each other: the real ring and the real membership, heartbeats that lag, links
//! that lose, double, delay and part, nodes that leave.

use std::collections::BTreeSet;
use std::time::Duration;

use copydesk::cluster::Membership;
use copydesk::doc::{Event, PeerMessage};
use copydesk::id::NodeId;
use copydesk::store::{DocumentChanges, Heartbeat, OpenDocuments};
use copydesk::version::NodeVersion;

use super::world::{Happening, World, ms};

/// What one node says to another.
#[derive(Debug, Clone)]
pub(crate) enum Saying {
    Link(usize, PeerMessage),
    Ping,
    Pong,
    Leaving,
}

/// How often a node says that it lives, and looks who owes it an answer.
const BEAT_EVERY: Duration = ms(500);
const LOOK_EVERY: Duration = ms(100);

/// How long the store believes a node that is silent.
const FORGOTTEN_AFTER: Duration = ms(3_000);

impl World {
    /// A node begins, and knows of no other until the store has told it.
    pub(crate) fn joins(&mut self, node: usize) {
        let id = self.fresh_node();
        self.nodes[node].id = id;
        self.nodes[node].membership = Membership::new(id, FORGOTTEN_AFTER);
        self.within(20, Happening::Heartbeat(id, true));
        self.at(self.clock + LOOK_EVERY, Happening::Look(id));
    }

    pub(crate) fn say(&mut self, from: NodeId, to: NodeId, saying: Saying) {
        if let Saying::Link(doc, PeerMessage::Commits { entries, .. }) = &saying {
            self.must_be_durable(*doc, entries);
        }
        let clock = self.clock;
        let asks = matches!(
            saying,
            Saying::Link(_, PeerMessage::Submit(_) | PeerMessage::Subscribe { .. })
        );
        if let Some(node) = self.node_of(from).filter(|_| asks) {
            self.nodes[node].membership.request_sent(to, clock);
        }
        let ends = (self.node_of(from), self.node_of(to));
        if let (Some(from), Some(to)) = ends
            && self.parted.contains(&(from, to))
        {
            return;
        }
        if self.storm(10) {
            return;
        }
        if self.storm(10) {
            self.within(800, Happening::Said(from, to, saying.clone()));
        }
        let delay = if self.storm(10) { 500 } else { 5 };
        self.within(delay, Happening::Said(from, to, saying));
    }

    pub(crate) fn hear(&mut self, from: NodeId, to: NodeId, saying: Saying) {
        let Some(node) = self.node_of(to) else {
            return;
        };
        let clock = self.clock;
        if self.nodes[node].membership.is_unknown(from, clock) {
            self.within(20, Happening::Heartbeat(to, false));
        }
        if self.nodes[node].membership.message_received(from, clock) {
            self.publish_ring(to);
        }
        match saying {
            Saying::Link(doc, link) => self.event(
                to,
                doc,
                Event::PeerMessage {
                    from,
                    message: link,
                },
            ),
            Saying::Ping if from == to => {}
            Saying::Ping => self.say(to, from, Saying::Pong),
            Saying::Pong => {}
            Saying::Leaving => {
                if self.nodes[node].membership.peer_leaves(from) {
                    self.publish_ring(to);
                }
            }
        }
    }

    /// A node says to the store that it lives, and learns what it has to know. Some of it is lost, some comes late.
    pub(crate) fn beat(&mut self, id: NodeId, again: bool) {
        let Some(node) = self.node_of(id) else {
            return;
        };
        if again {
            self.at(self.clock + BEAT_EVERY, Happening::Heartbeat(id, true));
        }
        let takes_part = !self.nodes[node].leaving;
        self.nodes[node].beat_at = self.clock;
        let beat = beat_of(id, takes_part);
        let open = self.open_on(node);
        let asked = self.ask_store(|depot| (depot.heartbeat(&beat).nodes, depot.news(&open)));
        let Ok((nodes, DocumentChanges { lost, newer })) = asked else {
            return;
        };
        self.at(self.clock + FORGOTTEN_AFTER, Happening::Forget(id));
        let delay = if self.storm(10) { 1_000 } else { 20 };
        if !self.storm(10) {
            self.within(delay, Happening::Named(id, nodes));
        }
        for (doc, epoch) in open.owned {
            if lost.contains(&doc) && !self.storm(30) {
                let doc = self.number(&doc);
                self.within(
                    delay,
                    Happening::Document(id, doc, Event::Superseded(epoch)),
                );
            }
        }
        for (doc, head) in newer {
            if !self.storm(30) {
                let doc = self.number(&doc);
                self.within(
                    delay,
                    Happening::Document(id, doc, Event::HeadAdvanced(head)),
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

    /// The store forgets a node that has been silent for too long.
    pub(crate) fn forget(&mut self, id: NodeId) {
        let silent = self.node_of(id).is_none_or(|node| {
            self.nodes[node].leaving || self.nodes[node].beat_at + FORGOTTEN_AFTER <= self.clock
        });
        if silent {
            self.depot.heartbeat(&beat_of(id, false));
        }
    }

    pub(crate) fn named(&mut self, id: NodeId, nodes: &[NodeId]) {
        let Some(node) = self.node_of(id) else {
            return;
        };
        let (clock, membership) = (self.clock, &mut self.nodes[node].membership);
        let back = membership.store_answered(clock);
        if membership.store_listed(nodes, clock) || back {
            self.publish_ring(id);
        }
    }

    pub(crate) fn look(&mut self, id: NodeId) {
        let Some(node) = self.node_of(id) else {
            return;
        };
        self.at(self.clock + LOOK_EVERY, Happening::Look(id));
        let due = self.nodes[node].membership.poll(self.clock);
        if due.ring_changed {
            self.publish_ring(id);
        }
        for to in due.ping {
            self.say(id, to, Saying::Ping);
        }
    }

    /// The node's documents learn whose they should be.
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
            self.event(id, doc, Event::OwnerChanged(owner));
        }
    }

    /// Messages pass again between these, or go another way: their documents ask again.
    pub(crate) fn unpart(&mut self, cut: &[(usize, usize)]) {
        self.parted.retain(|pair| !cut.contains(pair));
        let nodes: BTreeSet<usize> = cut.iter().flat_map(|&(one, other)| [one, other]).collect();
        for id in nodes
            .into_iter()
            .map(|node| self.nodes[node].id)
            .collect::<Vec<_>>()
        {
            let open = self.node_of(id).map(|node| self.nodes[node].open.keys());
            for doc in open.into_iter().flatten().copied().collect::<Vec<_>>() {
                self.event(id, doc, Event::Reconnected);
            }
        }
    }

    /// Some nodes hear each other no more for a while: two of them, one of two, or one and all, itself among them.
    pub(crate) fn part(&mut self) {
        let nodes = self.nodes.len() as u64;
        let (one, other) = (
            self.dice.below(nodes) as usize,
            self.dice.below(nodes) as usize,
        );
        let cut = match self.dice.below(3) {
            0 => vec![(one, other)],
            1 => vec![(one, other), (other, one)],
            _ => (0..nodes as usize)
                .flat_map(|to| [(one, to), (to, one)])
                .collect(),
        };
        self.parted.extend(&cut);
        self.within(4_000, Happening::Unpart(cut));
    }

    /// A node is asked to stop: it gives its documents and its sockets away first.
    pub(crate) fn leave(&mut self, node: usize) {
        let id = self.nodes[node].id;
        if id.0 == 0 || self.nodes[node].leaving || self.nodes[node].stopped.is_some() {
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
            self.say(id, other, Saying::Leaving);
        }
        self.beat(id, false);
        let (sessions, visits) = (&self.nodes[node].sessions, &self.nodes[node].visits);
        let (sessions, visits) = (sessions.clone(), visits.clone());
        for (session, index) in sessions {
            self.within(1_000, Happening::Cut(index, session));
        }
        for (session, index) in visits {
            self.within(1_000, Happening::VisitorGoes(index, session));
        }
        self.at(self.clock + ms(1_200), Happening::Stop(id));
    }

    /// A node that leaves stops as soon as everything that it accepted is durable.
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
            self.within(200, Happening::Stop(id));
        }
    }
}

fn beat_of(me: NodeId, takes_part: bool) -> Heartbeat {
    Heartbeat {
        me,
        name: "".into(),
        takes_part,
        address: None,
        version: NodeVersion::default(),
    }
}
