//! A node's life among others: what it hears, and what it says again and again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::node::Node;
use super::peers::LOOK_EVERY;
use super::rumours::REFRESH_EVERY;
use super::wire::Message;
use crate::cluster::{Delivery, Inbox};
use crate::doc::Event;
use crate::id::NodeId;
use crate::store::StoreError;

/// How long a start waits for messages to pass. A node that starts while they do not serves what it can.
const COMING_UP: Duration = Duration::from_secs(5);

/// How long a start waits for the store to answer a heartbeat.
const FIRST_BEAT_PATIENCE: Duration = Duration::from_secs(30);

/// How long a node waits before it asks the store about a node that it does not know.
const STRANGER_PAUSE: Duration = Duration::from_millis(20);

/// How long a node that joins leaves the others to read of it before it serves anybody. While rings differ, what one node
/// commits is heard late on another.
const SETTLING: Duration = Duration::from_millis(300);

/// How long one heartbeat may take.
const BEAT_PATIENCE: Duration = Duration::from_secs(3);

impl Node {
    /// Takes part in the cluster from now on: hears the others, and says that it lives. Without an inbox it is a node that
    /// shares its store with nobody it could hear.
    ///
    /// # Errors
    /// When the store does not answer a heartbeat for half a minute.
    pub async fn take_part(self: &Arc<Self>, inbox: Option<Inbox>) -> Result<(), StoreError> {
        if let Some(inbox) = inbox {
            self.runtime().spawn(self.clone().hears(inbox));
            self.runtime().spawn(self.clone().looks());
            self.runtime().spawn(self.clone().refreshes());
            self.peers().come_up(COMING_UP).await;
        }
        let deadline = Instant::now() + FIRST_BEAT_PATIENCE;
        while let Err(error) = self.beat().await {
            if Instant::now() > deadline {
                return Err(error);
            }
            tracing::warn!(%error, "the store does not answer yet");
            sleep(self.settings().heartbeat()).await;
        }
        // Those who have not read of this node yet look at once.
        if self.peers().send_all(&Message::Ping) {
            sleep(SETTLING).await;
        }
        self.runtime().spawn(self.clone().beats());
        Ok(())
    }

    async fn hears(self: Arc<Self>, mut inbox: Inbox) {
        while let Some(Delivery { from, messages }) = inbox.receive().await {
            self.peers().heard(from);
            for message in messages {
                match Message::decode(&message) {
                    Ok(message) => self.hear(from, message),
                    Err(error) => tracing::debug!(%from, %error, "a message was not understood"),
                }
            }
        }
    }

    fn hear(self: &Arc<Self>, from: NodeId, message: Message) {
        match message {
            Message::Link(doc, link) => self.linked(from, &doc, link),
            // That this node heard itself is all it wanted to know.
            Message::Ping if from == self.id() => {}
            Message::Ping => self.peers().send(from, &Message::Pong),
            Message::Pong => {}
            Message::Leaving => self.peers().leaves(from),
            Message::Presence(rumour) => self.pass_on(self.hub().hear(from, rumour)),
        }
    }

    async fn looks(self: Arc<Self>) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.peers().look();
        }
    }

    /// Says again what presences are here, in the time that others believe it for.
    async fn refreshes(self: Arc<Self>) {
        let mut ticks = interval(REFRESH_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ring = self.peers().watch_ring();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // The channels have other homes.
                changed = ring.changed() => if changed.is_err() {
                    return;
                },
            }
            self.pass_on(self.hub().refresh());
        }
    }

    async fn beats(self: Arc<Self>) {
        let mut ticks = interval(self.settings().heartbeat());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures = 0_u32;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // Rings that differ for long would keep readers waiting: it is looked at once who that is, but not for
                // each message of one who takes no part.
                () = self.peers().stranger() => sleep(STRANGER_PAUSE).await,
            }
            match self.beat().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    if failures.is_power_of_two() {
                        tracing::warn!(%error, failures, "the heartbeat does not reach the store");
                    }
                }
            }
        }
    }

    /// Says that this node lives, and passes on what it learns.
    pub(super) async fn beat(self: &Arc<Self>) -> Result<(), StoreError> {
        let beat = self.next_beat();
        let pulse = timeout(BEAT_PATIENCE, self.store().heartbeat(&beat)).await;
        let pulse =
            pulse.unwrap_or_else(|_| Err(StoreError::new("heartbeat", "no answer in time")))?;
        self.peers().named(&pulse.nodes);
        for doc in &pulse.lost {
            let epoch = beat.owned.iter().find(|(owned, _)| owned == doc);
            if let Some((_, epoch)) = epoch {
                self.told(doc, Event::Deposed(*epoch));
            }
        }
        for (doc, head) in pulse.newer {
            self.told(&doc, Event::Newer(head));
        }
        Ok(())
    }
}
