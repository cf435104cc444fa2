//! Presence between nodes. Every channel has a home, which the ring names: nodes tell it what is published on them, and it
//! tells those that listen. All of it is soft state, said again and again: what is not is gone after a while, whether it
//! was a message that was lost, a node, or a whole network.

use std::collections::{BTreeMap, HashMap};
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use super::registry::{Heard, PresenceRegistry, Remote};
use crate::doc::Presence;
use crate::id::{ClientId, Name, NodeId};
use crate::node::cluster::codec::{Message, Roster, Rumour};
use crate::sync::lock;

/// How often a node says what is published on it and what it listens to.
pub(in crate::node) const REFRESH_EVERY: Duration = Duration::from_secs(2);

/// How long others believe it.
const BELIEVED_FOR: Duration = Duration::from_secs(5);

/// How many channels one message names.
const CHANNELS_PER_MESSAGE: usize = 500;

impl PresenceRegistry {
    /// Somebody here listens to a channel now.
    pub(in crate::node) fn listen(&self, channel: &Name) {
        let home = self.peers.home(channel);
        if home != self.peers.me() {
            let listened = vec![channel.clone()];
            let rosters = Vec::new();
            self.send(home, Rumour::Present { listened, rosters });
        }
    }

    /// Somebody here wants the channel's values to be said again.
    pub(in crate::node) fn ask_elsewhere(&self, channel: &Name) {
        let me = self.peers.me();
        self.pass(me, channel, &Rumour::Asked(me, channel.clone()));
    }

    /// A client here says a value.
    pub(in crate::node) fn say_elsewhere(&self, client: &ClientId, presence: &Presence) {
        let me = self.peers.me();
        if self.peers.has_transport() {
            let rumour = Rumour::Value(me, client.clone(), presence.clone());
            self.pass(me, &presence.channel, &rumour);
        }
    }

    /// Another node says something: as the channel's home, or to it. Returns what this node's subscribers are to be told.
    pub(in crate::node) fn hear(&self, from: NodeId, rumour: Rumour) -> Vec<Heard> {
        let mut heard = Vec::new();
        match rumour {
            Rumour::Present { listened, rosters } => {
                let now = Instant::now();
                let mut listening = self.listening();
                for channel in listened {
                    listening.entry(channel).or_default().insert(from, now);
                }
                drop(listening);
                for roster in rosters {
                    let channel = roster.channel.clone();
                    self.spread(from, &channel, &Rumour::Roster(from, roster.clone()));
                    heard.extend(self.hear_roster(from, &roster));
                }
            }
            Rumour::Roster(node, roster) => heard = self.hear_roster(node, &roster),
            Rumour::Value(node, client, presence) => {
                if from == node {
                    let rumour = Rumour::Value(node, client.clone(), presence.clone());
                    self.spread(node, &presence.channel, &rumour);
                }
                heard.extend(self.hear_value(node, client, presence));
            }
            Rumour::Asked(node, channel) => {
                self.ask_here(&channel, None);
                if from == node {
                    self.spread(node, &channel, &Rumour::Asked(node, channel.clone()));
                }
            }
        }
        heard
    }

    /// Says again what is here, to each channel's home; and forgets what others have not said again, of which this node's
    /// subscribers are to be told.
    pub(in crate::node) fn refresh(&self) -> Vec<Heard> {
        let mut heard = Vec::new();
        let (mut listened, mut rosters) = (BTreeMap::new(), BTreeMap::new());
        let mut channels = self.lock();
        for (name, channel) in &mut *channels {
            let home = self.peers.home(name);
            if !channel.subscribers.is_empty() {
                let of_home: &mut Vec<Name> = listened.entry(home).or_default();
                of_home.push(name.clone());
            }
            if !channel.published.is_empty() {
                let values = channel.published.iter();
                let values = values.map(|((client, id), (_, presence))| {
                    (client.clone(), id.clone(), presence.version)
                });
                let of_home: &mut Vec<Roster> = rosters.entry(home).or_default();
                of_home.push(Roster {
                    channel: name.clone(),
                    values: values.collect(),
                });
            }
            heard.extend(channel.drop_remote(|remote| remote.heard.elapsed() > BELIEVED_FOR));
        }
        drop(channels);
        self.listening().retain(|_, nodes| {
            nodes.retain(|_, said| said.elapsed() <= BELIEVED_FOR);
            !nodes.is_empty()
        });
        let me = self.peers.me();
        for (home, listened) in listened.into_iter().filter(|(home, _)| *home != me) {
            for some in listened.chunks(CHANNELS_PER_MESSAGE) {
                let (listened, rosters) = (some.to_vec(), Vec::new());
                self.send(home, Rumour::Present { listened, rosters });
            }
        }
        for (home, rosters) in rosters {
            if home == me {
                for roster in rosters {
                    let channel = roster.channel.clone();
                    self.spread(me, &channel, &Rumour::Roster(me, roster));
                }
                continue;
            }
            for some in rosters.chunks(CHANNELS_PER_MESSAGE) {
                let (listened, rosters) = (Vec::new(), some.to_vec());
                self.send(home, Rumour::Present { listened, rosters });
            }
        }
        heard
    }

    /// Brings what `node` says to the channel's home, or, where that is here, to whoever listens.
    fn pass(&self, node: NodeId, channel: &Name, rumour: &Rumour) {
        let home = self.peers.home(channel);
        if home == self.peers.me() {
            self.spread(node, channel, rumour);
        } else {
            self.send(home, rumour.clone());
        }
    }

    /// As the channel's home: tells the other nodes that listen.
    fn spread(&self, origin: NodeId, channel: &Name, rumour: &Rumour) {
        let listening = self.listening();
        let nodes: Vec<_> = listening.get(channel).into_iter().flatten().collect();
        for (node, _) in nodes.into_iter().filter(|(node, _)| **node != origin) {
            self.send(*node, rumour.clone());
        }
    }

    fn hear_value(&self, node: NodeId, client: ClientId, presence: Presence) -> Option<Heard> {
        let mut channels = self.lock();
        let channel = channels.get_mut(&presence.channel)?;
        let key = (client, presence.id.clone());
        // The client is there now: the end of its socket here does not end what it says.
        if !presence.is_gone() {
            channel.published.remove(&key);
        }
        if channel.subscribers.is_empty() {
            return None;
        }
        let known = channel.remote.get(&key);
        let old = known.is_some_and(|known| {
            let other = known.node != node;
            (known.presence.version >= presence.version && !other) || (other && presence.is_gone())
        });
        if old || (known.is_none() && presence.is_gone()) {
            return None;
        }
        let heard = Heard {
            client: key.0.clone(),
            presence: presence.clone(),
        };
        if presence.is_gone() {
            channel.remote.remove(&key);
        } else {
            let remote = Remote {
                node,
                presence,
                heard: Instant::now(),
            };
            channel.remote.insert(key, remote);
        }
        Some(heard)
    }

    /// What is published on a node: what else was known of it is gone, and what was missed is asked for.
    fn hear_roster(&self, node: NodeId, roster: &Roster) -> Vec<Heard> {
        let mut channels = self.lock();
        let Some(channel) = channels.get_mut(&roster.channel) else {
            return Vec::new();
        };
        if channel.subscribers.is_empty() {
            return Vec::new();
        }
        let (now, mut missed) = (Instant::now(), false);
        for (client, id, version) in &roster.values {
            match channel.remote.get_mut(&(client.clone(), id.clone())) {
                Some(remote) if remote.node == node => {
                    remote.heard = now;
                    missed |= remote.presence.version < *version;
                }
                Some(_) => {}
                None => missed = true,
            }
        }
        let heard = channel.drop_remote(|remote| remote.node == node && remote.heard < now);
        drop(channels);
        if missed {
            let asked = Rumour::Asked(self.peers.me(), roster.channel.clone());
            self.send(node, asked);
        }
        heard
    }

    fn send(&self, to: NodeId, rumour: Rumour) {
        self.peers.send(to, &Message::Presence(rumour));
    }

    fn listening(&self) -> MutexGuard<'_, HashMap<Name, BTreeMap<NodeId, Instant>>> {
        lock(&self.listening)
    }
}

impl super::registry::Channel {
    /// Lets values of other nodes go: that they are gone is to be told.
    fn drop_remote(&mut self, mut gone: impl FnMut(&Remote) -> bool) -> Vec<Heard> {
        let gone = self.remote.extract_if(.., |_, remote| gone(remote));
        gone.map(|((client, _), Remote { mut presence, .. })| {
            presence.end();
            Heard { client, presence }
        })
        .collect()
    }
}
