//! A node's life among others: what it hears, and what it says again and again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use thiserror::Error;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, timeout};

use super::change_follower::ChangeFollower;
use super::codec::Message;
use super::peers::{LOOK_EVERY, names};
use super::store_status::SILENT_AFTER;
use crate::cluster::{Delivery, Inbox};
use crate::id::NodeId;
use crate::node::Node;
use crate::node::presence::sync::REFRESH_EVERY;
use crate::outage::Outage;
use crate::store::{Heartbeat, HeartbeatReply, StoreError};
use crate::version::WireRange;

/// How long a start waits for messages to pass. A node that starts while they do not serves what it can.
const COMING_UP: Duration = Duration::from_secs(5);

/// How long a start waits for the store to answer a heartbeat.
const FIRST_BEAT_PATIENCE: Duration = Duration::from_secs(30);

/// How long a node waits before it asks the store about a node that it does not know.
const STRANGER_PAUSE: Duration = Duration::from_millis(20);

/// How long a node that joins leaves the others to read of it before it serves anybody. While rings differ, what one node
/// commits is heard late on another.
const SETTLING: Duration = Duration::from_millis(300);

/// How long the report of a silent node waits for the node's name.
const NAME_PATIENCE: Duration = Duration::from_secs(1);

/// How long one heartbeat may take.
const BEAT_PATIENCE: Duration = Duration::from_secs(3);

/// How long it may take to compare the log with what the node holds. The next heartbeat tries again.
const COMPARE_PATIENCE: Duration = Duration::from_secs(10);
/// Why a node does not take part in the cluster.
#[derive(Debug, Error)]
pub enum JoinError {
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Live nodes share no wire version with this one.
    #[error(
        "no common wire version with the live nodes {nodes}; this program understands {wire}: upgrade one release at a time"
    )]
    Incompatible {
        /// The names and versions of those nodes.
        nodes: String,
        /// What this node understands.
        wire: WireRange,
    },
}

impl Node {
    /// Takes part in the cluster from now on: hears the others, and says that it lives. Without an inbox it is a node that
    /// shares its store with nobody it could hear.
    ///
    /// # Errors
    /// If the store does not answer a heartbeat for half a minute, or if a live node shares no wire version with this one.
    pub async fn take_part(self: &Arc<Self>, inbox: Option<Inbox>) -> Result<(), JoinError> {
        if let Some(inbox) = inbox {
            self.runtime().spawn(self.clone().hears(inbox));
            self.runtime().spawn(self.clone().looks());
            self.runtime().spawn(self.clone().refreshes());
            self.runtime().spawn(self.clone().passes_on_reopenings());
            self.peers().come_up(COMING_UP).await;
        }
        let deadline = Instant::now() + FIRST_BEAT_PATIENCE;
        let outage = Outage::new();
        while let Err(error) = self.beat().await {
            if Instant::now() > deadline {
                return Err(error.into());
            }
            if outage.begins() {
                tracing::warn!(%error, "the store does not answer yet: the start waits for it");
            }
            sleep(self.settings().heartbeat()).await;
        }
        self.await_compatible().await?;
        // Those who have not read of this node yet look at once.
        if self.peers().send_all(&Message::Ping) {
            sleep(SETTLING).await;
        }
        self.runtime().spawn(self.clone().beats());
        self.runtime().spawn(self.clone().follows_changes());
        Ok(())
    }

    /// Waits until all live nodes share a wire version with this one: the heartbeats of nodes that have just ended count for
    /// a while. It takes no documents meanwhile.
    async fn await_compatible(self: &Arc<Self>) -> Result<(), JoinError> {
        let deadline = Instant::now() + self.settings().dead_after() * 2;
        loop {
            let nodes = self.peers().not_understood();
            if nodes.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                self.leave_ring().await;
                return Err(JoinError::Incompatible {
                    nodes: names(&nodes),
                    wire: self.peers().version().wire,
                });
            }
            sleep(self.settings().heartbeat()).await;
            if let Err(error) = self.beat().await {
                tracing::debug!(%error, "the store does not answer while other versions are waited for");
            }
        }
    }

    async fn hears(self: Arc<Self>, mut inbox: Inbox) {
        while let Some(Delivery { from, messages }) = inbox.receive().await {
            survive("hear a node", || self.peers().received_from(from));
            let mut is_heard = false;
            for message in messages {
                survive("hear a message", || {
                    let Some(message) = self.peers().decode(from, &message) else {
                        return;
                    };
                    if !std::mem::replace(&mut is_heard, true) {
                        self.peers().heard(from);
                    }
                    self.hear(from, message);
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
            Message::Ping => self.peers().send_every_way(from, &Message::Pong),
            Message::Pong => {}
            Message::Leaving => self.peers().leaves(from),
            Message::HasStore => self.peers().asked_for_store(from),
            Message::StoreAnswers => {
                if self.peers().stands(from) {
                    self.resign();
                }
            }
            Message::SaveProbe => self.probed(from),
            Message::SaveConfirmed => self.peers().note_saves(),
            Message::Presence(rumour) => self.pass_on(self.presence().hear(from, rumour)),
        }
    }

    async fn looks(self: Arc<Self>) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            survive("look who is silent", || {
                for peer in self.peers().look() {
                    self.runtime().spawn(self.clone().report_silence(peer));
                }
            });
        }
    }

    /// Reports a node that does not answer, by the name that people gave it.
    async fn report_silence(self: Arc<Self>, peer: NodeId) {
        let name = timeout(NAME_PATIENCE, self.store().node_name(peer)).await;
        let name = name.ok().and_then(Result::ok).flatten();
        let peer_name = name.as_deref().unwrap_or("unknown");
        tracing::warn!(
            %peer,
            peer_name,
            "a node does not answer: its documents go to the others until it does"
        );
    }

    /// Has documents ask again when messages pass again.
    async fn passes_on_reopenings(self: Arc<Self>) {
        let Some(mut reopened) = self.peers().transport_reopened() else {
            return;
        };
        while reopened.changed().await.is_ok() {
            self.peers().reopen();
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
            survive("say presences again", || {
                self.pass_on(self.presence().refresh())
            });
        }
    }

    async fn beats(self: Arc<Self>) {
        let mut ticks = self.ticks();
        let outage = Outage::new();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // Rings that differ for long would keep readers waiting: it is looked at once who that is.
                () = self.peers().stranger() => sleep(STRANGER_PAUSE).await,
                () = self.histories().suspected() => sleep(STRANGER_PAUSE).await,
            }
            match attempt("heartbeat", self.beat()).await {
                Err(error) if outage.begins() => {
                    tracing::warn!(%error, "the store did not answer the heartbeat");
                }
                Err(_) => {}
                Ok(()) => {
                    if let Some(past) = outage.ends() {
                        let (failures, seconds) = (past.failures, past.lasted.as_secs());
                        tracing::info!(failures, seconds, "the store answers the heartbeat again");
                    }
                }
            }
        }
    }

    /// Follows the store's feed of changes. Apart from the heartbeats: a comparison of many open documents takes long, and a
    /// node whose heartbeat is late is taken for dead.
    async fn follows_changes(self: Arc<Self>) {
        let mut ticks = self.ticks();
        let outage = Outage::new();
        let mut follower = ChangeFollower::default();
        loop {
            ticks.tick().await;
            match attempt("changes", follower.follow(&self)).await {
                Err(error) if outage.begins() => {
                    tracing::warn!(%error, "the store did not answer what changed");
                }
                Err(_) => {}
                Ok(()) => {
                    if let Some(past) = outage.ends() {
                        let (failures, seconds) = (past.failures, past.lasted.as_secs());
                        tracing::info!(failures, seconds, "the store answers what changed again");
                    }
                }
            }
        }
    }

    fn ticks(&self) -> Interval {
        let mut ticks = interval(self.settings().heartbeat());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }

    /// Says that this node lives, and passes on what it learns.
    pub(in crate::node) async fn beat(self: &Arc<Self>) -> Result<(), StoreError> {
        let _turn = self.may_beat().await;
        let pulse = self.pulse().await;
        self.peers().note_store(pulse.is_ok());
        self.store_status().set_away(pulse.is_err());
        let pulse = pulse?;
        self.peers().learn(&pulse.addresses);
        if self.peers().named(&pulse) {
            self.resign();
        }
        Ok(())
    }

    /// One heartbeat's answer, once the history that it names has been compared.
    async fn pulse(self: &Arc<Self>) -> Result<HeartbeatReply, StoreError> {
        let (beat, asked) = (self.next_beat(), self.now().clock);
        let pulse = self.heartbeat(&beat).await?;
        if let Some(store_ms) = pulse.store_ms {
            self.learn_time(store_ms, asked);
        }
        // Before this node takes documents for which the others are gone.
        let compared = timeout(COMPARE_PATIENCE, self.compare_history(&pulse)).await;
        compared
            .unwrap_or_else(|_| Err(StoreError::new("compare history", "no answer in time")))?;
        Ok(pulse)
    }

    /// Writes the heartbeat. While it takes too long the store counts as away, before it is given up.
    async fn heartbeat(&self, beat: &Heartbeat) -> Result<HeartbeatReply, StoreError> {
        let mut pulse = self.store().heartbeat(beat);
        if let Ok(pulse) = timeout(SILENT_AFTER, &mut pulse).await {
            return pulse;
        }
        self.store_status().set_away(true);
        let pulse = timeout(BEAT_PATIENCE - SILENT_AFTER, pulse).await;
        pulse.unwrap_or_else(|_| Err(StoreError::new("heartbeat", "no answer in time")))
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

/// Awaits one request to the store; a panic in it is a failure of `verb`.
async fn attempt(
    verb: &'static str,
    request: impl Future<Output = Result<(), StoreError>>,
) -> Result<(), StoreError> {
    let outcome = AssertUnwindSafe(request).catch_unwind().await;
    outcome.unwrap_or_else(|_| {
        tracing::error!(
            step = verb,
            "a step of the node panicked: it goes on with the next"
        );
        Err(StoreError::new(verb, "it panicked"))
    })
}

#[cfg(test)]
mod tests;
