//! The background tasks of a node in a cluster: messages, heartbeats, checks of the other nodes, the feed of changes.

mod beat;
mod join;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};

use super::change_follower::ChangeFollower;
use super::message::NodeMessage;
use super::peers::CHECK_INTERVAL;
use crate::cluster::{Delivery, Inbox};
use crate::id::NodeId;
use crate::node::Node;
use crate::node::presence::registry::REFRESH_EVERY;
use crate::outage::Outage;
use crate::store::StoreError;

pub(in crate::node) use beat::BeatError;
use beat::BeatOutages;
pub use join::JoinError;

/// How long a node waits before it asks the store about a node that it does not know: others may come at the same time.
const UNKNOWN_NODE_PAUSE: Duration = Duration::from_millis(20);

/// How long the log line about a suspected node waits for the node's name.
const NAME_PATIENCE: Duration = Duration::from_secs(1);

impl Node {
    /// Receives the messages of other nodes.
    async fn receive_loop(self: Arc<Self>, mut inbox: Inbox) {
        let peers = &self.services().peers;
        while let Some(Delivery { from, messages }) = inbox.receive().await {
            survive("receive bytes", || peers.bytes_received(from));
            let mut is_decoded = false;
            for message in messages {
                survive("receive a message", || {
                    let Some(message) = peers.decode(from, &message) else {
                        return;
                    };
                    if !std::mem::replace(&mut is_decoded, true) {
                        peers.message_received(from);
                    }
                    self.receive(from, message);
                });
            }
        }
    }

    fn receive(self: &Arc<Self>, from: NodeId, message: NodeMessage) {
        let services = self.services();
        let peers = &services.peers;
        match message {
            NodeMessage::Document(doc, message, mark) if mark == self.log_history().mark() => {
                self.registry().receive(from, &doc, message);
            }
            // The log has, or had, other entries at the revisions that the message names.
            NodeMessage::Document(doc, ..) => {
                tracing::debug!(%from, %doc, "message of another history dropped");
            }
            // A ping to itself shows the node that messages pass.
            NodeMessage::Ping if from == self.id() => {}
            NodeMessage::Ping => peers.send_every_way(from, &NodeMessage::Pong),
            NodeMessage::Pong => {}
            NodeMessage::Leaving => peers.node_leaves(from),
            NodeMessage::HasStore => peers.answer_store_query(from),
            NodeMessage::StoreAnswers => {
                if peers.store_answers_peer(from) {
                    services.documents.step_down_all();
                }
            }
            NodeMessage::SaveProbe => self.answer_save_probe(from),
            NodeMessage::SaveConfirmed => peers.save_confirmed(),
            NodeMessage::Presence(message) => services.presence.receive(from, message),
        }
    }

    /// Checks the other nodes, and logs those that are suspected.
    async fn check_loop(self: Arc<Self>) {
        let mut ticks = ticks(CHECK_INTERVAL);
        loop {
            ticks.tick().await;
            survive("check the other nodes", || {
                for peer in self.services().peers.check() {
                    let report = self.clone().log_suspected(peer);
                    self.services().runtime.spawn(report);
                }
            });
        }
    }

    /// Logs that a node does not answer, with the name that operators gave it.
    async fn log_suspected(self: Arc<Self>, peer: NodeId) {
        let name = timeout(NAME_PATIENCE, self.store().node_name(peer)).await;
        let name = name.ok().and_then(Result::ok).flatten();
        let peer_name = name.as_deref().unwrap_or("unknown");
        tracing::warn!(
            %peer,
            peer_name,
            "a node does not answer: its documents go to the others until it does"
        );
    }

    /// Makes documents repeat their requests when messages pass again.
    async fn reconnect_loop(self: Arc<Self>) {
        let peers = &self.services().peers;
        let Some(mut reopened) = peers.watch_transport() else {
            return;
        };
        while reopened.changed().await.is_ok() {
            peers.reconnected();
        }
    }

    /// Sends this node's presence state again before it expires on other nodes, and when channels get other homes.
    async fn presence_loop(self: Arc<Self>) {
        let mut ticks = ticks(REFRESH_EVERY);
        let mut ring = self.services().peers.watch_ring();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                changed = ring.changed() => if changed.is_err() {
                    return;
                },
            }
            survive("refresh presence", || self.presence().refresh());
        }
    }

    async fn heartbeat_loop(self: Arc<Self>) {
        let services = self.services();
        let mut ticks = ticks(self.settings().heartbeat());
        let outages = BeatOutages::default();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // While rings differ, readers wait: the store is asked at once about a new node.
                () = services.peers.unknown_node_heard() => sleep(UNKNOWN_NODE_PAUSE).await,
                () = services.log_history.suspected() => sleep(UNKNOWN_NODE_PAUSE).await,
            }
            let outcome = attempt("heartbeat", self.beat()).await;
            outages.log(&outcome);
        }
    }

    /// Follows the store's feed of changes. Not in the heartbeat loop: comparing many open documents takes long,
    /// and a node counts as dead if its heartbeat is late.
    async fn change_loop(self: Arc<Self>) {
        let mut ticks = ticks(self.settings().heartbeat());
        let outage = Outage::new();
        let documents = &self.services().documents;
        let mut follower = ChangeFollower::default();
        loop {
            ticks.tick().await;
            match attempt("changes", follower.follow(documents, self.store())).await {
                Err(error) if outage.begins() => {
                    tracing::warn!(%error, "the change feed was not read from the store");
                }
                Err(_) => {}
                Ok(()) => {
                    if let Some(past) = outage.ends() {
                        let (failures, seconds) = (past.failures, past.lasted.as_secs());
                        tracing::info!(
                            failures,
                            seconds,
                            "the change feed is read from the store again"
                        );
                    }
                }
            }
        }
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Runs one step of a background task. A panic ends this step and not the task: a node that receives or sends nothing any more
/// would be worse than one that left out a message.
fn survive(step: &'static str, run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        tracing::error!(
            step,
            "a background step of the node panicked: continuing with the next one"
        );
    }
}

/// Awaits one request to the store. A panic counts as a failure of `verb`.
async fn attempt<E: From<StoreError>>(
    verb: &'static str,
    request: impl Future<Output = Result<(), E>>,
) -> Result<(), E> {
    let outcome = AssertUnwindSafe(request).catch_unwind().await;
    outcome.unwrap_or_else(|_| {
        tracing::error!(
            step = verb,
            "a background step of the node panicked: continuing with the next one"
        );
        Err(StoreError::new(verb, "it panicked").into())
    })
}

#[cfg(test)]
mod tests;
