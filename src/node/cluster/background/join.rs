//! Joining the cluster, and leaving it.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, sleep};

use crate::cluster::Inbox;
use crate::node::Node;
use crate::node::cluster::background::BeatError;
use crate::node::cluster::message::NodeMessage;
use crate::node::cluster::peers::names;
use crate::outage::Outage;
use crate::store::StoreError;
use crate::version::WireRange;

/// How long a start waits for messages to pass. A node that starts while they do not serves what it can.
const TRANSPORT_PATIENCE: Duration = Duration::from_secs(5);

/// How long a start waits for the store to answer a heartbeat.
const FIRST_HEARTBEAT_PATIENCE: Duration = Duration::from_secs(30);

/// How long a node that joins waits until the other nodes have read of it. While rings differ, commits of one node are late on
/// others.
const SETTLING: Duration = Duration::from_millis(300);

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
        /// The versions that this node understands.
        wire: WireRange,
    },
}

impl Node {
    /// Joins the cluster: starts the background tasks, and announces this node. Without an inbox, the node uses the store alone
    /// or beside nodes that it cannot hear.
    ///
    /// # Errors
    /// If the store does not answer a heartbeat for half a minute, or if a live node shares no wire version with this one.
    pub async fn take_part(self: &Arc<Self>, inbox: Option<Inbox>) -> Result<(), JoinError> {
        let services = self.services();
        let runtime = &services.runtime;
        if let Some(inbox) = inbox {
            runtime.spawn(self.clone().receive_loop(inbox));
            runtime.spawn(self.clone().check_loop());
            runtime.spawn(self.clone().presence_loop());
            runtime.spawn(self.clone().reconnect_loop());
            services.peers.wait_until_heard(TRANSPORT_PATIENCE).await;
        }
        self.first_heartbeat().await?;
        self.await_compatible().await?;
        // Nodes that have not read of this one yet ask the store at once.
        if services.peers.send_all(&NodeMessage::Ping) {
            sleep(SETTLING).await;
        }
        runtime.spawn(self.clone().heartbeat_loop());
        runtime.spawn(self.clone().change_loop());
        Ok(())
    }

    /// Takes no more documents, and announces that: the other nodes take over what this node owns. Its sockets are still served.
    pub async fn leave_ring(&self) {
        let peers = &self.services().peers;
        peers.node_leaves(self.id());
        peers.send_all(&NodeMessage::Leaving);
        // After `NotCompared` the heartbeat is written.
        if let Err(BeatError::NotAnswered(error)) = self.beat().await {
            tracing::warn!(%error, "the end of this node was not written to the store");
        }
    }

    async fn first_heartbeat(&self) -> Result<(), JoinError> {
        let deadline = Instant::now() + FIRST_HEARTBEAT_PATIENCE;
        let outage = Outage::new();
        while let Err(error) = self.beat().await {
            if Instant::now() > deadline {
                return Err(StoreError::from(error).into());
            }
            if outage.begins() {
                tracing::warn!(%error, "the store does not answer yet: the start waits for it");
            }
            sleep(self.settings().heartbeat()).await;
        }
        Ok(())
    }

    /// Waits until all live nodes share a wire version with this one: nodes that have just ended count as live for a while. This
    /// node takes no documents meanwhile.
    async fn await_compatible(&self) -> Result<(), JoinError> {
        let peers = &self.services().peers;
        let deadline = Instant::now() + self.settings().dead_after() * 2;
        loop {
            let nodes = peers.not_understood();
            if nodes.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                self.leave_ring().await;
                return Err(JoinError::Incompatible {
                    nodes: names(&nodes),
                    wire: peers.version().wire,
                });
            }
            sleep(self.settings().heartbeat()).await;
            if let Err(error) = self.beat().await {
                tracing::debug!(%error, "the store does not answer while other versions are waited for");
            }
        }
    }
}
