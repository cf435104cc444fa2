//! A node's life among others: what it hears, and what it says again and again.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, timeout};

use super::node::Node;
use super::peers::LOOK_EVERY;
use super::rumours::REFRESH_EVERY;
use super::wire::Message;
use crate::cluster::{Delivery, Inbox};
use crate::doc::Event;
use crate::id::{DocId, NodeId};
use crate::log::Revision;
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

/// How long it may take to compare the log with what the node holds. The next heartbeat tries again.
const COMPARE_PATIENCE: Duration = Duration::from_secs(10);

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
        self.runtime().spawn(self.clone().asks_for_news());
        Ok(())
    }

    async fn hears(self: Arc<Self>, mut inbox: Inbox) {
        while let Some(Delivery { from, messages }) = inbox.receive().await {
            survive("hear a node", || self.peers().heard(from));
            for message in messages {
                survive("hear a message", || match Message::decode(&message) {
                    Ok(message) => self.hear(from, message),
                    Err(error) => tracing::debug!(%from, %error, "a message was not understood"),
                });
            }
        }
    }

    fn hear(self: &Arc<Self>, from: NodeId, message: Message) {
        match message {
            Message::Link(doc, link, mark) if mark == self.log_history().mark() => {
                self.linked(from, &doc, link);
            }
            // The log has, or had, other entries at the revisions that it names.
            Message::Link(doc, ..) => {
                tracing::debug!(%from, %doc, "message of another history dropped");
            }
            // That this node heard itself is all it wanted to know.
            Message::Ping if from == self.id() => {}
            Message::Ping => self.peers().send(from, &Message::Pong),
            Message::Pong => {}
            Message::Leaving => self.peers().leaves(from),
            Message::HasStore => self.peers().asked_for_store(from),
            Message::StoreAnswers => {
                if self.peers().stands(from) {
                    self.resign();
                }
            }
            Message::Presence(rumour) => self.pass_on(self.hub().hear(from, rumour)),
        }
    }

    async fn looks(self: Arc<Self>) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            survive("look who is silent", || self.peers().look());
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
            survive("say presences again", || self.pass_on(self.hub().refresh()));
        }
    }

    async fn beats(self: Arc<Self>) {
        let mut ticks = self.ticks();
        let mut outcomes = Outcomes::of("heartbeat");
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // Rings that differ for long would keep readers waiting: it is looked at once who that is.
                () = self.peers().stranger() => sleep(STRANGER_PAUSE).await,
                () = self.histories().suspected() => sleep(STRANGER_PAUSE).await,
            }
            outcomes.note(self.beat()).await;
        }
    }

    /// Asks the store again and again for what this node has not been told. Apart from the heartbeats: the more documents,
    /// the longer it takes, and whoever beats late is taken for dead.
    async fn asks_for_news(self: Arc<Self>) {
        let mut ticks = self.ticks();
        let mut outcomes = Outcomes::of("news");
        let mut late = HashMap::new();
        loop {
            ticks.tick().await;
            outcomes.note(self.ask_for_news(&mut late)).await;
        }
    }

    fn ticks(&self) -> Interval {
        let mut ticks = interval(self.settings().heartbeat());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }

    /// Says that this node lives, and passes on what it learns.
    pub(super) async fn beat(self: &Arc<Self>) -> Result<(), StoreError> {
        let _turn = self.may_beat().await;
        let beat = self.next_beat();
        let pulse = timeout(BEAT_PATIENCE, self.store().heartbeat(&beat)).await;
        let pulse =
            pulse.unwrap_or_else(|_| Err(StoreError::new("heartbeat", "no answer in time")))?;
        // Before this node takes documents for which the others are gone.
        let compared = timeout(COMPARE_PATIENCE, self.compare_history(&pulse)).await;
        compared
            .unwrap_or_else(|_| Err(StoreError::new("compare history", "no answer in time")))?;
        self.peers().named(&pulse.nodes, pulse.others);
        Ok(())
    }

    /// Asks for what this node has not been told. A document is told of the head that it lacks when it lacks it at the next
    /// asking too: most often the commits are on their way, and nobody needs to read them from the store. `late` is what
    /// the last asking found.
    async fn ask_for_news(&self, late: &mut HashMap<DocId, Revision>) -> Result<(), StoreError> {
        let open = self.open_documents();
        let found = std::mem::take(late);
        for (doc, has) in &open.followed {
            if let Some(head) = found.get(doc).filter(|head| has < *head) {
                self.told(doc, Event::Newer(*head));
            }
        }
        let news = self.store().news(&open).await?;
        let epochs: HashMap<_, _> = open.owned.into_iter().collect();
        for doc in &news.lost {
            if let Some(epoch) = epochs.get(doc) {
                self.told(doc, Event::Deposed(*epoch));
            }
        }
        *late = news.newer.into_iter().collect();
        Ok(())
    }
}

/// Takes one step of what goes on for as long as the node lives. A panic is the end of this step, and of nothing else: a
/// node that hears nothing any more, or says nothing, would be worse than one that left out a message.
fn survive(step: &'static str, take: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(take)).is_err() {
        tracing::error!(
            step,
            "a step of the node panicked: it goes on with the next"
        );
    }
}

/// What comes of something that the store is asked again and again.
struct Outcomes {
    verb: &'static str,
    /// How often in a row it failed.
    failures: u32,
}

impl Outcomes {
    fn of(verb: &'static str) -> Self {
        Self { verb, failures: 0 }
    }

    /// Waits for what comes of it; says of failures, less and less often. A panic is one.
    async fn note(&mut self, asked: impl Future<Output = Result<(), StoreError>>) {
        let verb = self.verb;
        let outcome = AssertUnwindSafe(asked).catch_unwind().await;
        match outcome.unwrap_or_else(|_| Err(StoreError::new(verb, "it panicked"))) {
            Ok(()) => self.failures = 0,
            Err(error) => {
                self.failures += 1;
                if self.failures.is_power_of_two() {
                    tracing::warn!(%error, failures = self.failures, "the heartbeat does not reach the store");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
