//! Direct links: one TCP connection between each two nodes, encrypted and authenticated by the store's secret.
//!
//! They carry messages while Redis does not. Each node listens, publishes its address with its heartbeat and connects to
//! the addresses that other nodes publish; both ends send over a connection. Four times a second each end sends its
//! status: whether it receives from the other end, and whether Redis carries its messages.

mod connection;
mod frames;
mod handshake;
mod listener;
mod peer_links;
mod settings;

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use self::connection::ConnectionShared;
use self::handshake::LinkKey;
pub(super) use self::peer_links::LiveLinks;
use self::peer_links::{PeerLinks, maintain};
pub use self::settings::{ClusterSettings, ListenAddress};
use super::transport::{Delivery, TransportCounters, add};
use crate::id::NodeId;

/// How long a close waits until what is queued is written.
const CLOSE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

/// The direct links of a node.
#[derive(Debug)]
pub(super) struct DirectLinks {
    links: Arc<PeerLinks>,
    /// The address that other nodes connect to.
    advertised: Arc<str>,
    tasks: [AbortHandle; 2],
}

impl DirectLinks {
    /// Listens, and connects to the nodes passed to [`learn`](Self::learn); `None` if direct links are off. `towards` are
    /// the addresses of the shared servers, see [`ClusterSettings`].
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub(super) async fn open(
        settings: &ClusterSettings,
        towards: &[(String, u16)],
        (me, secret): (NodeId, &[u8; 32]),
        deliveries: mpsc::Sender<Delivery>,
        counters: Arc<TransportCounters>,
    ) -> io::Result<Option<Self>> {
        let Some(address) = settings.listen_address(towards).await? else {
            return Ok(None);
        };
        let listener = TcpListener::bind(address).await?;
        let advertised = settings.advertised(listener.local_addr()?, towards).await?;
        let links = Arc::new(PeerLinks {
            me,
            key: LinkKey::new(secret),
            common: Arc::new(ConnectionShared {
                has_redis: watch::Sender::new(false),
                counters,
                queued: AtomicU64::new(0),
                changed: Notify::new(),
                started: Instant::now(),
            }),
            peers: Mutex::default(),
            deliveries: Mutex::new(Some(deliveries)),
            live: watch::Sender::default(),
            unauthenticated: Arc::new(Semaphore::new(listener::UNAUTHENTICATED_MAX)),
        });
        let tasks = [
            tokio::spawn(listener::accept(Arc::clone(&links), listener)).abort_handle(),
            tokio::spawn(maintain(Arc::clone(&links))).abort_handle(),
        ];
        tracing::info!(address = %advertised, "listening for direct links from other nodes");
        Ok(Some(Self {
            links,
            advertised: advertised.into(),
            tasks,
        }))
    }

    /// The address that other nodes connect to.
    pub(super) fn advertised(&self) -> Arc<str> {
        Arc::clone(&self.advertised)
    }

    /// Takes the live nodes and their addresses.
    pub(super) fn learn(&self, peers: &[(NodeId, Arc<str>)]) {
        self.links.learn(peers);
    }

    /// Publishes to the other nodes whether Redis carries this node's messages.
    pub(super) fn has_redis(&self) -> watch::Sender<bool> {
        self.links.common.has_redis.clone()
    }

    /// The nodes with a live link, and whether Redis carries their messages.
    pub(super) fn watch_live(&self) -> watch::Receiver<LiveLinks> {
        self.links.live.subscribe()
    }

    /// Queues a message; returns false if there is no live link to the node. A message beyond the queue's bound is dropped
    /// and counted.
    pub(super) fn send(&self, to: NodeId, message: Bytes) -> bool {
        let Some(connection) = self.links.live_connection(to) else {
            return false;
        };
        if !connection.send(message) {
            add(&self.links.common.counters.dropped, 1);
        }
        true
    }

    /// Sends what is queued, within a time limit, and closes all connections.
    pub(super) async fn close(&self) {
        for task in &self.tasks {
            task.abort();
        }
        let _ = timeout(CLOSE_TIMEOUT, self.links.flushed()).await;
        self.links.close();
    }
}

impl Drop for DirectLinks {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.links.close();
    }
}
