//! The presence values of this node's clients and of the clients that its sessions follow on other nodes.
//!
//! Presence (cursors, lists of users) is neither sequenced nor stored: each value replaces the one before. Between nodes it
//! travels by way of each channel's *home*, the node that the hash ring names for it. Nodes send the home what is published
//! on them and which channels they subscribe to; the home forwards it to the nodes that subscribe. All of it is soft state:
//! it is sent again every [`REFRESH_EVERY`] and expires after [`EXPIRES_AFTER`], so a lost message or node heals by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::doc::Presence;
use crate::id::{ClientId, Name, NodeId, SessionId};
use crate::node::cluster::message::{PresenceDigest, PresenceMessage};

/// How often a node sends what is published on it and what it subscribes to.
pub(in crate::node) const REFRESH_EVERY: Duration = Duration::from_secs(2);

/// How long state of another node is kept without being sent again.
const EXPIRES_AFTER: Duration = Duration::from_secs(5);

/// The most channels that one message names.
const CHANNELS_PER_MESSAGE: usize = 500;

/// The subscribers of a channel are asked to repeat their values at most once in this time for each of them: every
/// subscriber answers, and every answer goes to all.
const REPEAT_PAUSE_EACH: Duration = Duration::from_millis(10);

/// The presence channels of one node. Pure: the caller passes the time since the node's start and each channel's home, and
/// performs the effects, in order. `S` is what a subscriber is reached by.
#[derive(Debug)]
pub(super) struct PresenceRegistry<S> {
    me: NodeId,
    channels: BTreeMap<Name, Channel<S>>,
    /// For the channels that this node is the home of: the nodes that subscribe, and when each of them last said so.
    subscribed_nodes: BTreeMap<Name, BTreeMap<NodeId, Duration>>,
}

/// What the caller has to do, in order.
#[derive(Debug)]
pub(super) enum PresenceEffect<S> {
    /// Send a value to subscribers on this node, and to its publisher as the acknowledgement.
    Deliver {
        update: PresenceUpdate,
        to: Vec<S>,
        publisher: Option<S>,
    },
    /// Ask subscribers on this node to publish their values again.
    RequestRepeat { channel: Name, to: Vec<S> },
    /// Call [`PresenceRegistry::repeat_due`] for the channel at this time.
    Schedule { channel: Name, at: Duration },
    /// Pass a value that no session of this node publishes to [`PresenceRegistry::deliver`]. A value with a position goes
    /// by way of its document's task.
    Route(PresenceUpdate),
    /// Send a message to another node.
    Send {
        to: NodeId,
        message: PresenceMessage,
    },
}

/// A client's value on a channel, or the end of one.
#[derive(Debug, Clone)]
pub(in crate::node) struct PresenceUpdate {
    pub(in crate::node) client: ClientId,
    pub(in crate::node) presence: Presence,
}

/// Whether a session that asks for the values of others is asked to repeat its own as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresenceRequester {
    /// It is: the session replaces an earlier one, and the end of that removed the client's values.
    Returning,
    /// It is not: the session has no values yet, or published them itself.
    New,
}

#[derive(Debug)]
struct Channel<S> {
    subscribers: BTreeMap<SessionId, Subscriber<S>>,
    /// The values that are not gone. A client that returns in a new session takes its values along: the end of its old
    /// session does not remove them.
    published: BTreeMap<PresenceId, PublishedValue>,
    /// The values of clients on other nodes, while this node has subscribers.
    remote: BTreeMap<PresenceId, RemoteValue>,
    /// When the subscribers were last asked to repeat their values.
    repeat_requested: Option<Duration>,
    /// Whether a call of `repeat_due` is scheduled.
    repeat_is_scheduled: bool,
}

/// A presence within a channel: its client and its name.
type PresenceId = (ClientId, Name);

#[derive(Debug)]
struct Subscriber<S> {
    client: ClientId,
    sink: S,
}

#[derive(Debug)]
struct PublishedValue {
    /// The session that published it last.
    session: SessionId,
    presence: Presence,
}

#[derive(Debug)]
struct RemoteValue {
    node: NodeId,
    presence: Presence,
    /// When its node last sent it or listed it.
    confirmed: Duration,
}

impl<S: Clone> PresenceRegistry<S> {
    pub(super) fn new(me: NodeId) -> Self {
        Self {
            me,
            channels: BTreeMap::new(),
            subscribed_nodes: BTreeMap::new(),
        }
    }

    /// Subscribes a session to a channel. The other subscribers are asked to repeat their values, for the new one.
    pub(super) fn subscribe(
        &mut self,
        (session, client, sink): (SessionId, &ClientId, S),
        requester: PresenceRequester,
        (name, home): (&Name, NodeId),
        now: Duration,
        effects: &mut Vec<PresenceEffect<S>>,
    ) {
        let channel = self.channels.entry(name.clone()).or_default();
        let client = client.clone();
        channel
            .subscribers
            .insert(session, Subscriber { client, sink });
        if home != self.me {
            effects.push(PresenceEffect::Send {
                to: home,
                message: PresenceMessage::Refresh {
                    subscribed: vec![name.clone()],
                    digests: Vec::new(),
                },
            });
        }
        self.request_repeat(session, requester, (name, home), now, effects);
    }

    /// Ends a session's subscription to a channel. What the session published stays.
    pub(super) fn unsubscribe(&mut self, session: SessionId, name: &Name) {
        if let Some(channel) = self.channels.get_mut(name) {
            channel.unsubscribe(session);
            self.remove_if_unused(name);
        }
    }

    /// Asks the other subscribers to repeat their values, on this node and on others. If they were asked too short a time
    /// ago, they are asked once for all requests made meanwhile, as soon as that is allowed.
    pub(super) fn request_repeat(
        &mut self,
        session: SessionId,
        requester: PresenceRequester,
        (name, home): (&Name, NodeId),
        now: Duration,
        effects: &mut Vec<PresenceEffect<S>>,
    ) {
        let except = (requester == PresenceRequester::New).then_some(session);
        if self.request_local_repeat(name, except, now, effects) {
            self.request_remote_repeat((name, home), effects);
        }
    }

    /// Makes a request that was scheduled.
    pub(super) fn repeat_due(
        &mut self,
        (name, home): (&Name, NodeId),
        now: Duration,
        effects: &mut Vec<PresenceEffect<S>>,
    ) {
        if let Some(channel) = self.channels.get_mut(name) {
            channel.repeat_is_scheduled = false;
            channel.repeat_requested = Some(now);
            effects.extend(channel.repeat_request(name, None));
        }
        self.request_remote_repeat((name, home), effects);
    }

    /// Takes a value that a session of this node publishes.
    pub(super) fn publish(
        &mut self,
        (session, client, sink): (SessionId, &ClientId, S),
        presence: Presence,
        home: NodeId,
        effects: &mut Vec<PresenceEffect<S>>,
    ) {
        let name = presence.channel.clone();
        let channel = self.channels.entry(name.clone()).or_default();
        let id = (client.clone(), presence.id.clone());
        channel.remote.remove(&id);
        if presence.is_gone() {
            channel.published.remove(&id);
        } else {
            let presence = presence.clone();
            channel
                .published
                .insert(id, PublishedValue { session, presence });
        }
        let update = PresenceUpdate {
            client: client.clone(),
            presence,
        };
        let to = channel.subscribers_except(client);
        self.remove_if_unused(&name);
        self.forward_value(home, &update, effects);
        effects.push(PresenceEffect::Deliver {
            update,
            to,
            publisher: Some(sink),
        });
    }

    /// Ends a session: its subscriptions to `channels`, each with its home, and the values that it published there last.
    pub(super) fn end_session<'a>(
        &mut self,
        session: SessionId,
        channels: impl Iterator<Item = (&'a Name, NodeId)>,
        effects: &mut Vec<PresenceEffect<S>>,
    ) {
        for (name, home) in channels {
            let Some(channel) = self.channels.get_mut(name) else {
                continue;
            };
            channel.unsubscribe(session);
            let ended: Vec<_> = channel
                .published
                .extract_if(.., |_, value| value.session == session)
                .collect();
            self.remove_if_unused(name);
            for ((client, _), PublishedValue { mut presence, .. }) in ended {
                presence.end();
                let update = PresenceUpdate { client, presence };
                self.forward_value(home, &update, effects);
                effects.push(PresenceEffect::Route(update));
            }
        }
    }

    /// Delivers a routed value to this node's subscribers, unless a newer one has been published meanwhile.
    pub(super) fn deliver(&self, update: PresenceUpdate, effects: &mut Vec<PresenceEffect<S>>) {
        let PresenceUpdate { client, presence } = &update;
        let Some(channel) = self.channels.get(&presence.channel) else {
            return;
        };
        let id = (client.clone(), presence.id.clone());
        let has_newer =
            |remote: &RemoteValue| presence.is_gone() || remote.presence.version > presence.version;
        let is_outdated =
            channel.published.contains_key(&id) || channel.remote.get(&id).is_some_and(has_newer);
        let to = channel.subscribers_except(client);
        if !is_outdated && !to.is_empty() {
            effects.push(PresenceEffect::Deliver {
                update,
                to,
                publisher: None,
            });
        }
    }

    /// Takes a message of another node: as the channel's home, or from it.
    pub(super) fn receive(
        &mut self,
        from: NodeId,
        message: PresenceMessage,
        now: Duration,
        effects: &mut Vec<PresenceEffect<S>>,
    ) {
        match message {
            PresenceMessage::Refresh {
                subscribed,
                digests,
            } => {
                for name in subscribed {
                    let nodes = self.subscribed_nodes.entry(name).or_default();
                    nodes.insert(from, now);
                }
                for digest in digests {
                    let message = PresenceMessage::Digest(from, digest.clone());
                    self.forward_as_home(from, &digest.channel, &message, effects);
                    self.receive_digest(from, &digest, now, effects);
                }
            }
            PresenceMessage::Digest(node, digest) => {
                self.receive_digest(node, &digest, now, effects);
            }
            PresenceMessage::Value(node, client, presence) => {
                let update = PresenceUpdate { client, presence };
                if from == node {
                    self.forward_as_home(
                        node,
                        &update.presence.channel,
                        &value_of(node, &update),
                        effects,
                    );
                }
                self.receive_value(node, update, now, effects);
            }
            PresenceMessage::RepeatRequest(node, name) => {
                self.request_local_repeat(&name, None, now, effects);
                if from == node {
                    let message = PresenceMessage::RepeatRequest(node, name.clone());
                    self.forward_as_home(node, &name, &message, effects);
                }
            }
        }
    }

    /// Sends the state of this node to each channel's home again, and drops the state of other nodes that has expired.
    pub(super) fn refresh(
        &mut self,
        home_of: impl Fn(&Name) -> NodeId,
        now: Duration,
        effects: &mut Vec<PresenceEffect<S>>,
    ) {
        let is_expired = |confirmed: Duration| now.saturating_sub(confirmed) > EXPIRES_AFTER;
        let mut subscribed: BTreeMap<NodeId, Vec<Name>> = BTreeMap::new();
        let mut digests: BTreeMap<NodeId, Vec<PresenceDigest>> = BTreeMap::new();
        for (name, channel) in &mut self.channels {
            let home = home_of(name);
            if !channel.subscribers.is_empty() {
                subscribed.entry(home).or_default().push(name.clone());
            }
            if !channel.published.is_empty() {
                digests.entry(home).or_default().push(channel.digest(name));
            }
            let ended = channel.end_remote(|value| is_expired(value.confirmed));
            effects.extend(ended.map(PresenceEffect::Route));
        }
        self.subscribed_nodes.retain(|_, nodes| {
            nodes.retain(|_, confirmed| !is_expired(*confirmed));
            !nodes.is_empty()
        });
        // What this node is the home of goes straight to the nodes that subscribe.
        subscribed.remove(&self.me);
        for digest in digests.remove(&self.me).unwrap_or_default() {
            let name = digest.channel.clone();
            self.forward_as_home(
                self.me,
                &name,
                &PresenceMessage::Digest(self.me, digest),
                effects,
            );
        }
        effects.extend(refresh_messages(subscribed, digests));
    }

    /// How many channels are in use on this node.
    pub(super) fn channel_count(&self) -> usize {
        self.channels.len()
    }

    /// How many sessions of this node subscribe to the channel.
    pub(super) fn subscriber_count(&self, name: &Name) -> usize {
        self.channels
            .get(name)
            .map_or(0, |channel| channel.subscribers.len())
    }

    /// The clients that have a value of this name on the channel, as far as this node knows.
    pub(super) fn clients_by_name(&self, name: &Name, id: &Name) -> Vec<ClientId> {
        let Some(channel) = self.channels.get(name) else {
            return Vec::new();
        };
        let ids = channel.published.keys().chain(channel.remote.keys());
        let named = ids.filter(|(_, name)| name == id);
        named.map(|(client, _)| client.clone()).collect()
    }

    /// Returns true if the session published a value on the channel that is not gone.
    pub(super) fn has_published(&self, session: SessionId, name: &Name) -> bool {
        self.channels.get(name).is_some_and(|channel| {
            let mut published = channel.published.values();
            published.any(|value| value.session == session)
        })
    }

    /// Returns true if no channel is in use.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// Asks the channel's subscribers on this node to repeat their values, now or as soon as they may be asked again.
    /// Returns true if they were asked now.
    fn request_local_repeat(
        &mut self,
        name: &Name,
        except: Option<SessionId>,
        now: Duration,
        effects: &mut Vec<PresenceEffect<S>>,
    ) -> bool {
        let Some(channel) = self.channels.get_mut(name) else {
            return true;
        };
        let allowed_at = channel.repeat_allowed_at();
        if allowed_at.is_none_or(|at| at <= now) {
            let request = channel.repeat_request(name, except);
            channel.repeat_requested = request.is_some().then_some(now);
            effects.extend(request);
            return true;
        }
        if !std::mem::replace(&mut channel.repeat_is_scheduled, true)
            && let Some(at) = allowed_at
        {
            let channel = name.clone();
            effects.push(PresenceEffect::Schedule { channel, at });
        }
        false
    }

    fn request_remote_repeat(
        &self,
        (name, home): (&Name, NodeId),
        effects: &mut Vec<PresenceEffect<S>>,
    ) {
        let message = PresenceMessage::RepeatRequest(self.me, name.clone());
        self.send_by_home((name, home), &message, effects);
    }

    fn forward_value(
        &self,
        home: NodeId,
        update: &PresenceUpdate,
        effects: &mut Vec<PresenceEffect<S>>,
    ) {
        // A node that is alone is the home of every channel, and no other node subscribes: nothing is cloned for it.
        let name = &update.presence.channel;
        if home != self.me || self.subscribed_nodes.contains_key(name) {
            self.send_by_home((name, home), &value_of(self.me, update), effects);
        }
    }

    /// Sends a message of this node to the channel's home, or, if that is this node, to the nodes that subscribe.
    fn send_by_home(
        &self,
        (name, home): (&Name, NodeId),
        message: &PresenceMessage,
        effects: &mut Vec<PresenceEffect<S>>,
    ) {
        if home == self.me {
            self.forward_as_home(self.me, name, message, effects);
        } else {
            let message = message.clone();
            effects.push(PresenceEffect::Send { to: home, message });
        }
    }

    /// As the channel's home: sends a message of `origin` to the other nodes that subscribe.
    fn forward_as_home(
        &self,
        origin: NodeId,
        name: &Name,
        message: &PresenceMessage,
        effects: &mut Vec<PresenceEffect<S>>,
    ) {
        let nodes = self.subscribed_nodes.get(name).into_iter().flatten();
        let others = nodes.filter(|(node, _)| **node != origin);
        effects.extend(others.map(|(node, _)| PresenceEffect::Send {
            to: *node,
            message: message.clone(),
        }));
    }

    fn receive_value(
        &mut self,
        node: NodeId,
        update: PresenceUpdate,
        now: Duration,
        effects: &mut Vec<PresenceEffect<S>>,
    ) {
        let presence = &update.presence;
        let Some(channel) = self.channels.get_mut(&presence.channel) else {
            return;
        };
        let id = (update.client.clone(), presence.id.clone());
        // The client is on that node now: the end of its session here does not remove the value.
        if !presence.is_gone() {
            channel.published.remove(&id);
        }
        if channel.subscribers.is_empty() {
            return;
        }
        let is_new = match channel.remote.get(&id) {
            None => !presence.is_gone(),
            Some(known) if known.node == node => known.presence.version < presence.version,
            // The client has moved to `node`; the end of its value there says nothing about the other node.
            Some(_) => !presence.is_gone(),
        };
        if !is_new {
            return;
        }
        if presence.is_gone() {
            channel.remote.remove(&id);
        } else {
            let value = RemoteValue {
                node,
                presence: presence.clone(),
                confirmed: now,
            };
            channel.remote.insert(id, value);
        }
        effects.push(PresenceEffect::Route(update));
    }

    /// Takes the list of a node's values: those that it does not list are gone; if a newer one is listed, a message was
    /// lost, and the node is asked to repeat its values.
    fn receive_digest(
        &mut self,
        node: NodeId,
        digest: &PresenceDigest,
        now: Duration,
        effects: &mut Vec<PresenceEffect<S>>,
    ) {
        let Some(channel) = self.channels.get_mut(&digest.channel) else {
            return;
        };
        if channel.subscribers.is_empty() {
            return;
        }
        let mut is_incomplete = false;
        for (client, id, version) in &digest.values {
            match channel.remote.get_mut(&(client.clone(), id.clone())) {
                Some(value) if value.node == node => {
                    value.confirmed = now;
                    is_incomplete |= value.presence.version < *version;
                }
                Some(_) => {}
                None => is_incomplete = true,
            }
        }
        let ended = channel.end_remote(|value| value.node == node && value.confirmed < now);
        effects.extend(ended.map(PresenceEffect::Route));
        if is_incomplete {
            effects.push(PresenceEffect::Send {
                to: node,
                message: PresenceMessage::RepeatRequest(self.me, digest.channel.clone()),
            });
        }
    }

    fn remove_if_unused(&mut self, name: &Name) {
        let is_unused =
            |channel: &Channel<S>| channel.subscribers.is_empty() && channel.published.is_empty();
        if self.channels.get(name).is_some_and(is_unused) {
            self.channels.remove(name);
        }
    }
}

impl<S> Default for Channel<S> {
    fn default() -> Self {
        Self {
            subscribers: BTreeMap::new(),
            published: BTreeMap::new(),
            remote: BTreeMap::new(),
            repeat_requested: None,
            repeat_is_scheduled: false,
        }
    }
}

impl<S: Clone> Channel<S> {
    fn unsubscribe(&mut self, session: SessionId) {
        self.subscribers.remove(&session);
        if self.subscribers.is_empty() {
            self.remote.clear();
        }
    }

    /// The subscribers that are sent a value of this client: all sessions of other clients.
    fn subscribers_except(&self, client: &ClientId) -> Vec<S> {
        let subscribers = self.subscribers.values();
        let others = subscribers.filter(|subscriber| subscriber.client != *client);
        others.map(|subscriber| subscriber.sink.clone()).collect()
    }

    /// When the subscribers may be asked again to repeat their values; `None` if they have not been asked.
    fn repeat_allowed_at(&self) -> Option<Duration> {
        let subscribers = u32::try_from(self.subscribers.len()).unwrap_or(u32::MAX);
        Some(self.repeat_requested? + REPEAT_PAUSE_EACH.saturating_mul(subscribers))
    }

    /// The request to repeat their values, to all subscribers but one; `None` if there are no others.
    fn repeat_request(&self, name: &Name, except: Option<SessionId>) -> Option<PresenceEffect<S>> {
        let others = self.subscribers.iter();
        let others = others.filter(|(session, _)| Some(**session) != except);
        let to: Vec<_> = others.map(|(_, it)| it.sink.clone()).collect();
        let channel = name.clone();
        (!to.is_empty()).then_some(PresenceEffect::RequestRepeat { channel, to })
    }

    /// The values that are published here, each with its version.
    fn digest(&self, name: &Name) -> PresenceDigest {
        let values = self.published.iter();
        let values = values
            .map(|((client, id), value)| (client.clone(), id.clone(), value.presence.version));
        PresenceDigest {
            channel: name.clone(),
            values: values.collect(),
        }
    }

    /// Removes values of other nodes, and returns their ends, which are to be delivered.
    fn end_remote(
        &mut self,
        mut ends: impl FnMut(&RemoteValue) -> bool,
    ) -> impl Iterator<Item = PresenceUpdate> {
        let ended = self.remote.extract_if(.., move |_, value| ends(value));
        ended.map(|((client, _), RemoteValue { mut presence, .. })| {
            presence.end();
            PresenceUpdate { client, presence }
        })
    }
}

fn value_of(node: NodeId, update: &PresenceUpdate) -> PresenceMessage {
    PresenceMessage::Value(node, update.client.clone(), update.presence.clone())
}

/// The refresh messages to each home, of at most [`CHANNELS_PER_MESSAGE`] channels each.
fn refresh_messages<S>(
    subscribed: BTreeMap<NodeId, Vec<Name>>,
    digests: BTreeMap<NodeId, Vec<PresenceDigest>>,
) -> Vec<PresenceEffect<S>> {
    let mut effects = Vec::new();
    let mut send = |to, subscribed: &[Name], digests: &[PresenceDigest]| {
        let (subscribed, digests) = (subscribed.to_vec(), digests.to_vec());
        let message = PresenceMessage::Refresh {
            subscribed,
            digests,
        };
        effects.push(PresenceEffect::Send { to, message });
    };
    for (home, names) in subscribed {
        for names in names.chunks(CHANNELS_PER_MESSAGE) {
            send(home, names, &[]);
        }
    }
    for (home, digests) in digests {
        for digests in digests.chunks(CHANNELS_PER_MESSAGE) {
            send(home, &[], digests);
        }
    }
    effects
}

#[cfg(test)]
mod tests;
