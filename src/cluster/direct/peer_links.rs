//! The other nodes by their ids: their addresses, the connections to them, and which of those carry messages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::connection::{CHUNK_BYTES_ACCEPTED, ConnectionShared, DirectConnection, run};
use super::frames::FrameDecryptor;
use super::handshake::{LinkKey, SecureChannel, initiate};
use crate::cluster::transport::Delivery;
use crate::id::NodeId;
use crate::sync::lock;

/// Interval at which live links are published and missing ones are dialed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long connecting and the handshake may take.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the node with the greater id leaves connecting to the other one, so that most pairs have one connection.
const YIELD: Duration = Duration::from_millis(700);

/// The pause after a failure to connect: it doubles from the first to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_LAST: Duration = Duration::from_secs(3);

/// How long there is no link to a node that lives until that is logged.
const UNREACHABLE_AFTER: Duration = Duration::from_secs(10);

/// How many nodes there may be links to.
const PEERS_MAX: usize = 256;

/// How many connections there may be to one node: both ends may connect at the same time, and the other end may notice
/// later that one broke.
const CONNECTIONS_MAX: usize = 4;

/// The nodes with a live link; true if Redis carries their messages, by their status.
pub(in crate::cluster) type LiveLinks = BTreeMap<NodeId, bool>;

/// All links of a node.
#[derive(Debug)]
pub(super) struct PeerLinks {
    pub(super) me: NodeId,
    pub(super) key: LinkKey,
    pub(super) common: Arc<ConnectionShared>,
    /// Locked for look-ups only.
    pub(super) peers: Mutex<BTreeMap<NodeId, PeerNode>>,
    /// Where messages are delivered; `None` once the links are closed.
    pub(super) deliveries: Mutex<Option<mpsc::Sender<Delivery>>>,
    pub(super) live: watch::Sender<LiveLinks>,
    /// Bounds the connections that have not completed their handshake.
    pub(super) unauthenticated: Arc<Semaphore>,
}

/// Another node.
#[derive(Debug)]
pub(super) struct PeerNode {
    /// Its address, if the store named it.
    address: Option<Arc<str>>,
    connections: Vec<Arc<DirectConnection>>,
    /// When to connect next, if there is no connection.
    dial_at: Instant,
    is_dialed: bool,
    failures: u32,
    /// Since when there has been no live link.
    without_link_since: Instant,
    /// Whether that was logged.
    is_reported: bool,
    /// Why the last attempt to connect failed.
    trouble: String,
}

impl PeerNode {
    fn new(now: Instant) -> Self {
        Self {
            address: None,
            connections: Vec::new(),
            dial_at: now,
            is_dialed: false,
            failures: 0,
            without_link_since: now,
            is_reported: false,
            trouble: "not connected yet".to_owned(),
        }
    }

    /// The oldest connection that carries messages: which one it is changes seldom, so that messages keep their order.
    fn live(&self) -> Option<&Arc<DirectConnection>> {
        self.connections.iter().find(|it| it.is_live())
    }
}

impl PeerLinks {
    /// Takes the live nodes and their addresses from the store. A node that is not listed is removed once its connections
    /// end.
    pub(super) fn learn(&self, named: &[(NodeId, Arc<str>)]) {
        let now = Instant::now();
        let mut peers = lock(&self.peers);
        let living: BTreeSet<NodeId> = named.iter().map(|(node, _)| *node).collect();
        peers.retain(|node, peer| {
            if !living.contains(node) {
                peer.address = None;
            }
            peer.address.is_some() || !peer.connections.is_empty()
        });
        for (node, address) in named.iter().filter(|(node, _)| *node != self.me) {
            if peers.len() >= PEERS_MAX && !peers.contains_key(node) {
                continue;
            }
            let peer = peers.entry(*node).or_insert_with(|| {
                let mut peer = PeerNode::new(now);
                if self.me > *node {
                    peer.dial_at = now + YIELD;
                }
                peer
            });
            peer.address = Some(Arc::clone(address));
        }
    }

    /// A connection that carries messages to a node.
    pub(super) fn live_connection(&self, to: NodeId) -> Option<Arc<DirectConnection>> {
        lock(&self.peers).get(&to)?.live().cloned()
    }

    /// Serves an authenticated connection until it ends. If there are too many to that node, the oldest one is closed.
    pub(super) async fn serve(
        &self,
        stream: TcpStream,
        secured: SecureChannel,
        opener: FrameDecryptor,
    ) {
        let SecureChannel { peer: node, cipher } = secured;
        let Some(deliveries) = lock(&self.deliveries).clone() else {
            return;
        };
        let connection = DirectConnection::new(node, Arc::clone(&self.common));
        if !self.add(&connection) {
            return tracing::debug!(%node, "too many nodes: direct link refused");
        }
        tracing::debug!(%node, "direct link established");
        let end = run(&connection, stream, &cipher, opener, &deliveries).await;
        tracing::debug!(%node, reason = %end, "direct link ended");
        self.remove(&connection);
    }

    fn add(&self, connection: &Arc<DirectConnection>) -> bool {
        let mut peers = lock(&self.peers);
        if peers.len() >= PEERS_MAX && !peers.contains_key(&connection.peer) {
            return false;
        }
        let now = Instant::now();
        let peer = peers
            .entry(connection.peer)
            .or_insert_with(|| PeerNode::new(now));
        if peer.connections.len() >= CONNECTIONS_MAX {
            peer.connections.remove(0).close();
        }
        peer.connections.push(Arc::clone(connection));
        peer.failures = 0;
        true
    }

    fn remove(&self, connection: &Arc<DirectConnection>) {
        if let Some(peer) = lock(&self.peers).get_mut(&connection.peer) {
            peer.connections.retain(|it| !Arc::ptr_eq(it, connection));
            // A node that ended has ended its connections first: the store has yet to say so.
            peer.dial_at = peer.dial_at.max(Instant::now() + PAUSE_FIRST);
        }
    }

    /// Publishes which links are live. Returns the nodes to connect to.
    fn refresh(&self) -> Vec<(NodeId, Arc<str>)> {
        let now = Instant::now();
        let mut live = LiveLinks::new();
        let mut to_dial = Vec::new();
        for (node, peer) in lock(&self.peers).iter_mut() {
            if let Some(connection) = peer.live() {
                live.insert(*node, connection.peer_has_redis());
                peer.without_link_since = now;
                if std::mem::take(&mut peer.is_reported) {
                    tracing::info!(%node, "direct link to the node established");
                }
                continue;
            }
            let Some(address) = peer.address.clone() else {
                continue;
            };
            if peer.connections.is_empty() && !peer.is_dialed && now >= peer.dial_at {
                peer.is_dialed = true;
                to_dial.push((*node, Arc::clone(&address)));
            }
            if !peer.is_reported && now >= peer.without_link_since + UNREACHABLE_AFTER {
                peer.is_reported = true;
                tracing::warn!(
                    %node,
                    %address,
                    reason = peer.trouble,
                    "no direct link to a live node: it and this node cannot exchange messages while Redis is unavailable"
                );
            }
        }
        self.live.send_if_modified(|known| {
            let has_changed = *known != live;
            *known = live;
            has_changed
        });
        to_dial
    }

    /// Connects to a node, and serves the connection until it ends.
    async fn dial(self: Arc<Self>, node: NodeId, address: Arc<str>) {
        let connected = timeout(HANDSHAKE_TIMEOUT, self.connect(node, &address)).await;
        let connected = connected.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        if let Some(peer) = lock(&self.peers).get_mut(&node) {
            peer.is_dialed = false;
            if let Err(reason) = &connected {
                let pause = PAUSE_FIRST * (1 << peer.failures.min(10));
                peer.failures += 1;
                peer.dial_at = Instant::now() + pause.min(PAUSE_LAST);
                peer.trouble.clone_from(reason);
            }
        }
        if let Ok((stream, secured)) = connected {
            let opener = FrameDecryptor::new(CHUNK_BYTES_ACCEPTED);
            self.serve(stream, secured, opener).await;
        }
    }

    async fn connect(
        &self,
        node: NodeId,
        address: &str,
    ) -> Result<(TcpStream, SecureChannel), String> {
        let stream = TcpStream::connect(address).await;
        let mut stream = stream.map_err(|error| error.to_string())?;
        stream
            .set_nodelay(true)
            .map_err(|error| error.to_string())?;
        let secured = initiate(&mut stream, &self.key, self.me, node).await;
        Ok((stream, secured.map_err(|error| error.to_string())?))
    }

    /// Waits until nothing is queued.
    pub(super) async fn flushed(&self) {
        while self
            .common
            .queued
            .load(std::sync::atomic::Ordering::Relaxed)
            > 0
        {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends all connections, and takes no more.
    pub(super) fn close(&self) {
        lock(&self.deliveries).take();
        for peer in lock(&self.peers).values() {
            for connection in &peer.connections {
                connection.close();
            }
        }
        self.live.send_replace(LiveLinks::new());
    }
}

/// Dials missing links and publishes which are live.
pub(super) async fn maintain(links: Arc<PeerLinks>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = links.common.changed.notified() => {}
        }
        for (node, address) in links.refresh() {
            tokio::spawn(Arc::clone(&links).dial(node, address));
        }
    }
}
