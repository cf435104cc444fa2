//! In-memory transport for tests: several nodes in one process, with injected loss, duplication and partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use super::transport::{
    Delivery, Health, Inbox, Transport, TransportCounters, TransportStats, add,
};
use crate::id::NodeId;
use crate::sync::lock;

/// Messages that an inbox holds; further ones are dropped.
const INBOX_MESSAGES_MAX: usize = 4_096;

/// A simulated network between the nodes of one process. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryNetwork(Arc<Mutex<NetworkState>>);

#[derive(Debug, Default)]
struct NetworkState {
    /// The open endpoints.
    endpoints: BTreeMap<NodeId, Endpoint>,
    /// Partitioned pairs, the smaller id first. A node that is partitioned from itself is isolated.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Loses every n-th message; 0 loses none.
    lose_one_in: u64,
    /// Duplicates every n-th message; 0 duplicates none.
    double_one_in: u64,
    /// Messages sent between connected nodes so far.
    carried: u64,
}

/// The network's side of a node.
#[derive(Debug)]
struct Endpoint {
    deliveries: mpsc::Sender<Delivery>,
    health: watch::Sender<Health>,
    /// How often the health became good.
    reopened: watch::Sender<u64>,
    counters: Arc<TransportCounters>,
}

/// One node's transport.
#[derive(Debug)]
struct MemoryTransport {
    me: NodeId,
    exchange: MemoryNetwork,
    health: watch::Receiver<Health>,
    reopened: watch::Receiver<u64>,
    counters: Arc<TransportCounters>,
}

impl MemoryNetwork {
    /// Returns a network without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens a node's transport and inbox. An earlier node with that id is closed.
    #[must_use]
    pub fn open(&self, me: NodeId) -> (Arc<dyn Transport>, Inbox) {
        let (deliveries, inbox) = mpsc::channel(INBOX_MESSAGES_MAX);
        let (health, told) = watch::channel(Health::Good);
        let (reopened, reopenings) = watch::channel(0);
        let counters = Arc::new(TransportCounters::default());
        let endpoint = Endpoint {
            deliveries,
            health,
            reopened,
            counters: Arc::clone(&counters),
        };
        self.change(|state| state.endpoints.insert(me, endpoint));
        let line = MemoryTransport {
            me,
            exchange: self.clone(),
            health: told,
            reopened: reopenings,
            counters,
        };
        (Arc::new(line), Inbox(inbox))
    }

    /// Partitions two nodes in both directions. Their health stays good, as with a real partition.
    pub fn cut(&self, one: NodeId, other: NodeId) {
        self.change(|state| state.cut.insert(pair(one, other)));
    }

    /// Partitions a node from all, itself included; its health becomes bad.
    pub fn isolate(&self, node: NodeId) {
        self.change(|state| {
            let nodes: Vec<NodeId> = state.endpoints.keys().copied().chain([node]).collect();
            state.cut.extend(nodes.iter().map(|&one| pair(one, node)));
        });
    }

    /// Removes all partitions.
    pub fn heal(&self) {
        self.change(|state| state.cut.clear());
    }

    /// Loses every n-th message; 0 loses none.
    pub fn lose_one_in(&self, messages: u64) {
        self.change(|state| state.lose_one_in = messages);
    }

    /// Duplicates every n-th message; 0 duplicates none.
    pub fn double_one_in(&self, messages: u64) {
        self.change(|state| state.double_one_in = messages);
    }

    fn change<T>(&self, change: impl FnOnce(&mut NetworkState) -> T) -> T {
        let mut state = self.state();
        let result = change(&mut state);
        state.publish_health();
        result
    }

    fn state(&self) -> MutexGuard<'_, NetworkState> {
        lock(&self.0)
    }
}

impl NetworkState {
    /// Delivers a message; returns false if it was lost.
    fn carry(&mut self, from: NodeId, to: NodeId, message: &Bytes) -> bool {
        let every = |count: u64, carried: u64| count > 0 && carried.is_multiple_of(count);
        if self.cut.contains(&pair(from, to)) || !self.endpoints.contains_key(&from) {
            return false;
        }
        self.carried += 1;
        if every(self.lose_one_in, self.carried) {
            return false;
        }
        let copies = 1 + usize::from(every(self.double_one_in, self.carried));
        let Some(endpoint) = self.endpoints.get(&to) else {
            return false;
        };
        let delivered = (0..copies).filter(|_| endpoint.deliver(from, message.clone()));
        delivered.count() > 0
    }

    fn publish_health(&self) {
        for (&node, endpoint) in &self.endpoints {
            let health = match self.cut.contains(&(node, node)) {
                true => Health::Bad("isolated".into()),
                false => Health::Good,
            };
            let is_good = health.is_good();
            let has_changed = endpoint.health.send_if_modified(|told| {
                let news = *told != health;
                *told = health;
                news
            });
            if has_changed && is_good {
                endpoint.reopened.send_modify(|count| *count += 1);
            }
        }
    }
}

impl Endpoint {
    fn deliver(&self, from: NodeId, message: Bytes) -> bool {
        let messages = vec![message];
        let delivered = self.deliveries.try_send(Delivery { from, messages });
        add(&self.counters.received, usize::from(delivered.is_ok()));
        delivered.is_ok()
    }
}

impl Transport for MemoryTransport {
    fn send(&self, to: NodeId, message: Bytes) {
        let carried = self.exchange.state().carry(self.me, to, &message);
        let counter = match carried {
            true => &self.counters.sent,
            false => &self.counters.dropped,
        };
        add(counter, 1);
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    fn reopened(&self) -> watch::Receiver<u64> {
        self.reopened.clone()
    }

    fn counts(&self) -> TransportStats {
        self.counters.read()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.exchange
            .change(|state| state.endpoints.remove(&self.me));
        async {}.boxed()
    }
}

fn pair(one: NodeId, other: NodeId) -> (NodeId, NodeId) {
    (one.min(other), one.max(other))
}
