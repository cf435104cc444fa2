//! Cursors and who is here: channels on which each value replaces the one before. Nothing is stored, nothing is ordered.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::doc::Presence;
use crate::id::{ClientId, Name, NodeId, SessionId};
use crate::node::cluster::peers::Peers;
use crate::node::delivery::outbox::Outbox;
use crate::protocol::{self};
use crate::sync::lock;

/// The presence channels of this node's sessions. What is said on other nodes comes by way of `rumours.rs`. Clones are the
/// same hub.
#[derive(Debug, Clone)]
pub struct PresenceRegistry {
    pub(in crate::node) peers: Arc<Peers>,
    pub(in crate::node) channels: Arc<Mutex<HashMap<Name, Channel>>>,
    /// For the channels whose home this node is: the nodes that listen, and when they said so last.
    pub(in crate::node) listening: Arc<Mutex<HashMap<Name, BTreeMap<NodeId, Instant>>>>,
}

#[derive(Debug, Default)]
pub(in crate::node) struct Channel {
    pub(in crate::node) subscribers: BTreeMap<SessionId, (ClientId, Arc<Outbox>)>,
    /// The values that are not gone, each with the session that said it last. A client that came back over a new socket
    /// takes its values along: the end of its old socket does not end them.
    pub(in crate::node) published: BTreeMap<(ClientId, Name), (SessionId, Presence)>,
    /// The values of clients on other nodes, while somebody here listens.
    pub(in crate::node) remote: BTreeMap<(ClientId, Name), Remote>,
    /// When the subscribers were asked last to repeat their values.
    asked: Option<tokio::time::Instant>,
    /// Whether they will be asked again soon.
    is_due: bool,
}

/// The subscribers of a channel are asked to repeat their values at most once in so long for each of them: every one
/// answers, and every answer goes to all.
const ASK_EACH: Duration = Duration::from_millis(10);

/// Whether a session is asked to repeat its own values as well when it asks for those of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresenceRequester {
    /// It comes back: the others took its values for gone when its old socket ended.
    Returning,
    /// It has no values yet, or has said them on this socket.
    New,
}

/// A value of a client on another node.
#[derive(Debug)]
pub(in crate::node) struct Remote {
    pub(in crate::node) node: NodeId,
    pub(in crate::node) presence: Presence,
    /// When its node said last that it is there.
    pub(in crate::node) heard: Instant,
}

/// A value that this node's subscribers are to be told, and that its own session does not say: it ended, or it is on
/// another node.
#[derive(Debug)]
pub(in crate::node) struct Heard {
    pub(in crate::node) client: ClientId,
    pub(in crate::node) presence: Presence,
}

impl PresenceRegistry {
    pub(in crate::node) fn new(peers: Arc<Peers>) -> Self {
        Self {
            peers,
            channels: Arc::default(),
            listening: Arc::default(),
        }
    }

    /// A session listens to a channel. The others are asked to repeat their values: that is how it learns them.
    pub fn subscribe(
        &self,
        session: SessionId,
        (client, asker): (&ClientId, PresenceRequester),
        outbox: &Arc<Outbox>,
        channel: &Name,
    ) {
        let mut channels = self.lock();
        let subscribers = &mut channels.entry(channel.clone()).or_default().subscribers;
        subscribers.insert(session, (client.clone(), outbox.clone()));
        drop(channels);
        self.listen(channel);
        self.request(session, asker, channel);
    }

    /// A session listens no more. What it says itself stays.
    pub fn unsubscribe(&self, session: SessionId, channel: &Name) {
        let mut channels = self.lock();
        if let Some(found) = channels.get_mut(channel) {
            found.leave(session);
            if found.is_empty() {
                channels.remove(channel);
            }
        }
    }

    /// A session wants the others to repeat their values. Where they were asked a moment ago, they are asked again when
    /// they may be: once for all who ask meanwhile.
    pub fn request(&self, session: SessionId, asker: PresenceRequester, channel: &Name) {
        let except = (asker == PresenceRequester::New).then_some(session);
        if self.ask_here(channel, except) {
            self.ask_elsewhere(channel);
        }
    }

    /// Asks the channel's subscribers on this node to repeat their values, now or as soon as they may be asked again;
    /// true: they were asked now.
    pub(in crate::node) fn ask_here(&self, name: &Name, except: Option<SessionId>) -> bool {
        let now = tokio::time::Instant::now();
        let mut channels = self.lock();
        let Some(channel) = channels.get_mut(name) else {
            return true;
        };
        let each = u32::try_from(channel.subscribers.len()).unwrap_or(u32::MAX);
        let may_at = channel
            .asked
            .map(|asked| asked + ASK_EACH.saturating_mul(each));
        let Some(may_at) = may_at.filter(|at| *at > now) else {
            let asked = ask(name, except, &channel.subscribers);
            channel.asked = asked.then_some(now);
            return true;
        };
        if !std::mem::replace(&mut channel.is_due, true) {
            let (hub, name) = (self.clone(), name.clone());
            // One for each channel at most.
            tokio::spawn(async move {
                tokio::time::sleep_until(may_at).await;
                hub.ask_when_due(&name);
            });
        }
        false
    }

    fn ask_when_due(&self, name: &Name) {
        if let Some(channel) = self.lock().get_mut(name) {
            channel.is_due = false;
            channel.asked = Some(tokio::time::Instant::now());
            ask(name, None, &channel.subscribers);
        }
        self.ask_elsewhere(name);
    }

    /// How many sockets on this node a value on the channel is sent to.
    #[must_use]
    pub fn subscriber_count(&self, channel: &Name) -> usize {
        let channels = self.lock();
        channels
            .get(channel)
            .map_or(0, |found| found.subscribers.len())
    }

    /// A session says a value: the channel's others are told, and the session itself, as its ack.
    pub fn publish(
        &self,
        session: SessionId,
        client: &ClientId,
        outbox: &Outbox,
        presence: Presence,
    ) {
        let frame = protocol::presence(client, &presence);
        let mut channels = self.lock();
        // A position comes by way of its document: its session may have left meanwhile, and would never leave again.
        if outbox.is_closed() {
            return;
        }
        let channel = channels.entry(presence.channel.clone()).or_default();
        channel.tell(client, &presence, &frame);
        self.say_elsewhere(client, &presence);
        let name = presence.channel.clone();
        let key = (client.clone(), presence.id.clone());
        channel.remote.remove(&key);
        if presence.is_gone() {
            channel.published.remove(&key);
        } else {
            channel.published.insert(key, (session, presence));
        }
        if channel.is_empty() {
            channels.remove(&name);
        }
        drop(channels);
        // A full outbox closes itself; its session ends by that.
        let _ = outbox.push(frame);
    }

    /// The clients that have a value by this name on the channel, as far as this node knows.
    #[must_use]
    pub fn clients_by_name(&self, channel: &Name, id: &Name) -> Vec<ClientId> {
        let channels = self.lock();
        let Some(channel) = channels.get(channel) else {
            return Vec::new();
        };
        let keys = channel.published.keys().chain(channel.remote.keys());
        let named = keys.filter(|(_, name)| name == id);
        named.map(|(client, _)| client.clone()).collect()
    }

    /// Whether a value on the channel is the session's.
    #[must_use]
    pub fn has_published(&self, session: SessionId, channel: &Name) -> bool {
        let channels = self.lock();
        let published = channels
            .get(channel)
            .map(|channel| channel.published.values());
        published
            .into_iter()
            .flatten()
            .any(|(by, _)| *by == session)
    }

    /// A session ended, and its outbox is closed: it listens no more on `channels`, and what it said there last is gone.
    /// Returns what the others are to be told.
    pub(in crate::node) fn left<'a>(
        &self,
        session: SessionId,
        channels: impl Iterator<Item = &'a Name>,
    ) -> Vec<Heard> {
        let mut heard = Vec::new();
        let mut all = self.lock();
        for name in channels {
            let Some(channel) = all.get_mut(name) else {
                continue;
            };
            channel.leave(session);
            let gone: Vec<_> = channel
                .published
                .extract_if(.., |_, (by, _)| *by == session)
                .collect();
            for ((client, _), (_, mut presence)) in gone {
                presence.end();
                self.say_elsewhere(&client, &presence);
                heard.push(Heard { client, presence });
            }
            if channel.is_empty() {
                all.remove(name);
            }
        }
        heard
    }

    /// Tells this node's subscribers, unless something newer was said meanwhile.
    pub(in crate::node) fn tell(&self, heard: &Heard) {
        let Heard { client, presence } = heard;
        let channels = self.lock();
        let Some(channel) = channels.get(&presence.channel) else {
            return;
        };
        let key = (client.clone(), presence.id.clone());
        let remote = channel.remote.get(&key);
        let is_old = channel.published.contains_key(&key)
            || remote.is_some_and(|remote| {
                presence.is_gone() || remote.presence.version > presence.version
            });
        if !is_old {
            channel.tell(client, presence, &protocol::presence(client, presence));
        }
    }

    pub(in crate::node) fn lock(&self) -> MutexGuard<'_, HashMap<Name, Channel>> {
        lock(&self.channels)
    }
}

impl Channel {
    fn is_empty(&self) -> bool {
        self.subscribers.is_empty() && self.published.is_empty()
    }

    fn leave(&mut self, session: SessionId) {
        self.subscribers.remove(&session);
        if self.subscribers.is_empty() {
            self.remote.clear();
        }
    }

    /// Tells all but the client itself. A reader that is behind is sent the newest value only.
    pub(in crate::node) fn tell(
        &self,
        client: &ClientId,
        presence: &Presence,
        frame: &bytes::Bytes,
    ) {
        let (channel, id) = (presence.channel.clone(), presence.id.clone());
        let key = (channel, client.clone(), id);
        for (other, outbox) in self.subscribers.values() {
            if other != client {
                outbox.presence(&key, frame);
            }
        }
    }
}

/// Asks the subscribers to repeat their values, but for one; false: there are no others.
fn ask(
    channel: &Name,
    except: Option<SessionId>,
    subscribers: &BTreeMap<SessionId, (ClientId, Arc<Outbox>)>,
) -> bool {
    let frame = protocol::presence_requested(channel);
    let asked = subscribers
        .iter()
        .filter(|(session, _)| Some(**session) != except);
    let mut any = false;
    for (_, (_, outbox)) in asked {
        let _ = outbox.push(frame.clone());
        any = true;
    }
    any
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::protocol::CloseReason;
    use crate::version::NodeVersion;

    struct Member(SessionId, ClientId, Arc<Outbox>);

    fn member(id: u64, client: &str) -> Member {
        Member(
            SessionId(id),
            ClientId::parse(client).unwrap(),
            Arc::new(Outbox::new(1 << 20, None)),
        )
    }

    impl Member {
        fn heard(&self) -> String {
            match self.2.poll_take(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(frames)) => String::from_utf8_lossy(&frames[2..]).into_owned(),
                _ => String::new(),
            }
        }
    }

    /// Lets a session leave, and tells the others.
    fn leave(hub: &PresenceRegistry, member: &Member, channel: &Name) {
        for heard in hub.left(member.0, std::iter::once(channel)) {
            hub.tell(&heard);
        }
    }

    fn alone() -> PresenceRegistry {
        PresenceRegistry::new(Arc::new(Peers::new(
            (NodeId(1), NodeVersion::default()),
            None,
            Duration::MAX,
        )))
    }

    fn value(version: u64, value: &str) -> Presence {
        let (channel, id) = (Name::parse("ch").unwrap(), Name::parse("p").unwrap());
        Presence {
            channel,
            id,
            version,
            value: value.into(),
            position: None,
        }
    }

    #[test]
    fn a_client_that_came_back_outlives_its_old_socket() {
        let hub = alone();
        let channel = Name::parse("ch").unwrap();
        let (old, new, bob) = (member(1, "ann"), member(2, "ann"), member(3, "bob"));
        hub.subscribe(bob.0, (&bob.1, PresenceRequester::New), &bob.2, &channel);
        hub.publish(old.0, &old.1, &old.2, value(1, "1"));
        assert!(bob.heard().contains(r#""p":1,"pv":1"#));
        hub.publish(new.0, &new.1, &new.2, value(2, "2"));
        assert!(bob.heard().contains(r#""p":2,"pv":2"#));
        leave(&hub, &old, &channel);
        assert_eq!(bob.heard(), "");
        leave(&hub, &new, &channel);
        assert!(bob.heard().contains(r#""p":null,"pv":3"#));
        leave(&hub, &bob, &channel);
        assert!(hub.lock().is_empty());
    }

    #[test]
    fn what_comes_after_its_session_left_leaves_no_ghost() {
        let hub = alone();
        let channel = Name::parse("ch").unwrap();
        let (ann, bob) = (member(1, "ann"), member(2, "bob"));
        hub.subscribe(bob.0, (&bob.1, PresenceRequester::New), &bob.2, &channel);
        ann.2.close(CloseReason::Normal);
        leave(&hub, &ann, &channel);
        hub.publish(ann.0, &ann.1, &ann.2, value(1, "1"));
        assert_eq!(bob.heard(), "");
        leave(&hub, &bob, &channel);
        assert!(hub.lock().is_empty());
    }

    #[test]
    fn a_newcomer_makes_the_others_speak() {
        let hub = alone();
        let channel = Name::parse("ch").unwrap();
        let (ann, bob) = (member(1, "ann"), member(2, "bob"));
        hub.subscribe(ann.0, (&ann.1, PresenceRequester::New), &ann.2, &channel);
        assert_eq!(ann.heard(), "");
        hub.subscribe(bob.0, (&bob.1, PresenceRequester::New), &bob.2, &channel);
        assert_eq!(ann.heard(), r#"{"a":"pr","ch":"ch"}"#);
        hub.publish(bob.0, &bob.1, &bob.2, value(1, "1"));
        assert!(
            bob.heard().contains(r#""src":"bob""#),
            "the publisher's own frame is its ack"
        );
        assert!(ann.heard().contains(r#""src":"bob""#));
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_are_answered_together() {
        let hub = alone();
        let channel = Name::parse("ch").unwrap();
        let members: Vec<_> = (0..100).map(|n| member(n, &format!("c{n}"))).collect();
        for Member(session, client, outbox) in &members {
            hub.subscribe(*session, (client, PresenceRequester::New), outbox, &channel);
        }
        let requests = |member: &Member| member.heard().matches(r#""a":"pr""#).count();
        tokio::time::sleep(ASK_EACH * 200).await;
        members.iter().for_each(|member| {
            requests(member);
        });
        // A viewer asks 1,000 times; each is asked twice: at once, and for all who asked since.
        for _ in 0..1_000 {
            hub.request(members[0].0, PresenceRequester::New, &channel);
        }
        tokio::time::sleep(ASK_EACH * 200).await;
        assert!(members[1..].iter().all(|member| requests(member) == 2));
        assert!(!hub.lock()[&channel].is_due);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_comes_back_is_asked_for_its_own_values() {
        let hub = alone();
        let channel = Name::parse("ch").unwrap();
        let (ann, bob) = (member(1, "ann"), member(2, "bob"));
        hub.subscribe(ann.0, (&ann.1, PresenceRequester::New), &ann.2, &channel);
        hub.subscribe(
            bob.0,
            (&bob.1, PresenceRequester::Returning),
            &bob.2,
            &channel,
        );
        assert_eq!(bob.heard(), r#"{"a":"pr","ch":"ch"}"#);
        assert_eq!(ann.heard(), r#"{"a":"pr","ch":"ch"}"#);
    }
}
