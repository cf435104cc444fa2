//! Performs what the presence registry asks for: sends values to sockets, to documents and to other nodes.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::registry::{PresenceEffect, PresenceRegistry, PresenceRequester, PresenceUpdate};
use crate::doc::Presence;
use crate::id::{ClientId, Name, NodeId, SessionId};
use crate::node::cluster::message::{NodeMessage, PresenceMessage};
use crate::node::cluster::peers::Peers;
use crate::node::delivery::encoder::FrameEncoder;
use crate::node::delivery::outbox::Outbox;
use crate::node::document::mailbox::{DocumentMessage, Mailboxes};
use crate::sync::lock;

/// The presence channels of one node, for its sessions and for the messages of other nodes.
///
/// The mutex protects the registry and a queue of effects. A thread that changes the registry appends the effects, and
/// performs what is queued unless another thread is doing so already: so effects are performed in the order of the changes,
/// and no lock is held while a frame is encoded or queued for a socket.
#[derive(Debug)]
pub struct PresenceService {
    state: Mutex<QueuedEffects>,
    /// Notified when the queue is empty.
    drained: Condvar,
    peers: Arc<Peers>,
    documents: Arc<Mailboxes>,
    encoder: &'static dyn FrameEncoder,
    started: Instant,
}

type PresenceEffects = Vec<PresenceEffect<Arc<Outbox>>>;

#[derive(Debug)]
struct QueuedEffects {
    registry: PresenceRegistry<Arc<Outbox>>,
    effects: PresenceEffects,
    /// Whether a thread performs the queued effects.
    is_draining: bool,
}

/// The most effects that wait while another thread performs earlier ones. Beyond that, threads wait for that thread.
const EFFECTS_MAX: usize = 4_096;

impl PresenceService {
    pub(in crate::node) fn new(
        peers: Arc<Peers>,
        documents: Arc<Mailboxes>,
        encoder: &'static dyn FrameEncoder,
    ) -> Self {
        Self {
            state: Mutex::new(QueuedEffects {
                registry: PresenceRegistry::new(peers.me()),
                effects: Vec::new(),
                is_draining: false,
            }),
            drained: Condvar::new(),
            peers,
            documents,
            encoder,
            started: Instant::now(),
        }
    }

    /// Subscribes a session to a channel. The other subscribers are asked to repeat their values, for the new one.
    pub fn subscribe(
        self: &Arc<Self>,
        session: SessionId,
        (client, requester): (&ClientId, PresenceRequester),
        outbox: &Arc<Outbox>,
        channel: &Name,
    ) {
        let subscriber = (session, client, outbox.clone());
        let at_home = (channel, self.home(channel));
        self.change(|registry, now, effects| {
            registry.subscribe(subscriber, requester, at_home, now, effects);
        });
    }

    /// Ends a session's subscription to a channel. What the session published stays.
    pub fn unsubscribe(&self, session: SessionId, channel: &Name) {
        lock(&self.state).registry.unsubscribe(session, channel);
    }

    /// Asks the other subscribers to repeat their values, at most once in 10 ms for each of them.
    pub fn request(
        self: &Arc<Self>,
        session: SessionId,
        requester: PresenceRequester,
        channel: &Name,
    ) {
        let at_home = (channel, self.home(channel));
        self.change(|registry, now, effects| {
            registry.request_repeat(session, requester, at_home, now, effects);
        });
    }

    /// Publishes a value of a session. The frame that goes to the channel's subscribers is also sent to the session, as the
    /// acknowledgement. Does nothing if the session has ended.
    pub fn publish(
        self: &Arc<Self>,
        session: SessionId,
        client: &ClientId,
        outbox: &Arc<Outbox>,
        presence: Presence,
    ) {
        let home = self.home(&presence.channel);
        self.change(|registry, _, effects| {
            // A value with a position comes by way of its document, and the session may have ended meanwhile. Its outbox
            // closes before the registry ends the session, so that a value that comes later is never kept.
            if !outbox.is_closed() {
                let publisher = (session, client, outbox.clone());
                registry.publish(publisher, presence, home, effects);
            }
        });
    }

    /// Ends a session after its outbox was closed: its subscriptions to `channels`, and the values that it published there.
    pub fn end_session<'a>(
        self: &Arc<Self>,
        session: SessionId,
        channels: impl Iterator<Item = &'a Name>,
    ) {
        let channels: Vec<_> = channels.map(|name| (name, self.home(name))).collect();
        self.change(|registry, _, effects| {
            registry.end_session(session, channels.into_iter(), effects);
        });
    }

    /// How many channels are in use on this node.
    pub(in crate::node) fn channel_count(&self) -> usize {
        lock(&self.state).registry.channel_count()
    }

    /// How many sockets on this node a value on the channel is sent to.
    #[must_use]
    pub fn subscriber_count(&self, channel: &Name) -> usize {
        lock(&self.state).registry.subscriber_count(channel)
    }

    /// The clients that have a value of this name on the channel, as far as this node knows.
    #[must_use]
    pub fn clients_by_name(&self, channel: &Name, id: &Name) -> Vec<ClientId> {
        lock(&self.state).registry.clients_by_name(channel, id)
    }

    /// Returns true if the session published a value on the channel that is not gone.
    #[must_use]
    pub fn has_published(&self, session: SessionId, channel: &Name) -> bool {
        lock(&self.state).registry.has_published(session, channel)
    }

    /// Sends a value that no session of this node publishes to this node's subscribers.
    pub(in crate::node) fn deliver(self: &Arc<Self>, update: PresenceUpdate) {
        self.change(|registry, _, effects| registry.deliver(update, effects));
    }

    /// Takes a message of another node.
    pub(in crate::node) fn receive(self: &Arc<Self>, from: NodeId, message: PresenceMessage) {
        self.change(|registry, now, effects| registry.receive(from, message, now, effects));
    }

    /// Sends what is on this node to the channels' homes again, and drops what other nodes have not sent again.
    pub(in crate::node) fn refresh(self: &Arc<Self>) {
        self.change(|registry, now, effects| {
            registry.refresh(|name| self.peers.home(name), now, effects);
        });
    }

    fn home(&self, channel: &Name) -> NodeId {
        self.peers.home(channel)
    }

    /// Changes the registry and performs the effects, unless another thread is performing effects: then it performs these
    /// too, after its own.
    fn change(
        self: &Arc<Self>,
        change: impl FnOnce(&mut PresenceRegistry<Arc<Outbox>>, Duration, &mut PresenceEffects),
    ) {
        let mut state = lock(&self.state);
        while state.is_draining && state.effects.len() >= EFFECTS_MAX {
            let waited = self.drained.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        let QueuedEffects {
            registry, effects, ..
        } = &mut *state;
        change(registry, self.started.elapsed(), effects);
        if effects.is_empty() || std::mem::replace(&mut state.is_draining, true) {
            return;
        }
        drop(state);
        let _draining = Draining(self);
        self.drain();
    }

    fn drain(self: &Arc<Self>) {
        let mut undelivered = Vec::new();
        loop {
            let effects = {
                let mut state = lock(&self.state);
                let QueuedEffects {
                    registry, effects, ..
                } = &mut *state;
                for update in undelivered.drain(..) {
                    registry.deliver(update, effects);
                }
                if effects.is_empty() {
                    // Under the same lock as the look at the queue: a thread that adds an effect now performs it itself.
                    state.is_draining = false;
                    return;
                }
                self.drained.notify_all();
                std::mem::take(effects)
            };
            for effect in effects {
                undelivered.extend(self.perform(effect));
            }
        }
    }

    /// Performs an effect. Returns a value that has to be delivered without its document.
    fn perform(self: &Arc<Self>, effect: PresenceEffect<Arc<Outbox>>) -> Option<PresenceUpdate> {
        match effect {
            PresenceEffect::Deliver {
                update,
                to,
                publisher,
            } => self.send_value(&update, &to, publisher.as_deref()),
            PresenceEffect::RequestRepeat { channel, to } => {
                let frame = self.encoder.presence_request(&channel);
                for outbox in to {
                    // A full outbox closes itself, which ends its session.
                    let _ = outbox.push(frame.clone());
                }
            }
            PresenceEffect::Schedule { channel, at } => self.schedule_repeat(channel, at),
            PresenceEffect::Route(update) => return self.route(update),
            PresenceEffect::Send { to, message } => {
                self.peers.send(to, &NodeMessage::Presence(message));
            }
        }
        None
    }

    fn send_value(&self, update: &PresenceUpdate, to: &[Arc<Outbox>], publisher: Option<&Outbox>) {
        let PresenceUpdate { client, presence } = update;
        let frame = self.encoder.presence(client, presence);
        let key = (
            presence.channel.clone(),
            client.clone(),
            presence.id.clone(),
        );
        for outbox in to {
            outbox.push_presence(&key, &frame);
        }
        if let Some(publisher) = publisher {
            // A full outbox closes itself, which ends its session.
            let _ = publisher.push(frame);
        }
    }

    /// Passes a value with a position to its document's task, which delivers it behind the commits that are on their way to
    /// the same sockets: a client with a document ahead of a position cannot use it, and the end of a value must not
    /// overtake the value. Returns the value if it has no position, or if the document is closed or its mailbox is full.
    fn route(&self, update: PresenceUpdate) -> Option<PresenceUpdate> {
        let position = update.presence.position.as_ref();
        let Some(doc) = position.map(|position| position.doc.clone()) else {
            return Some(update);
        };
        match self
            .documents
            .try_send(&doc, DocumentMessage::Presence(update))
        {
            Some(DocumentMessage::Presence(update)) => Some(update),
            _ => None,
        }
    }

    /// At most one is scheduled for each channel.
    fn schedule_repeat(self: &Arc<Self>, channel: Name, at: Duration) {
        let service = self.clone();
        tokio::spawn(async move {
            sleep_until(service.started + at).await;
            let at_home = (&channel, service.home(&channel));
            service.change(|registry, now, effects| registry.repeat_due(at_home, now, effects));
        });
    }
}

/// Lets another thread perform effects if this one panics.
struct Draining<'a>(&'a PresenceService);

impl Drop for Draining<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&self.0.state).is_draining = false;
            self.0.drained.notify_all();
        }
    }
}

#[cfg(test)]
mod tests;
