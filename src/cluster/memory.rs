//! A transport in memory: several nodes in one process, for tests, with ways to make it as bad as a network.

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

/// How many messages may wait in an inbox; those beyond are dropped.
const INBOX_MESSAGES_MAX: usize = 4_096;

/// Where the nodes of one process meet. Clones are the same exchange.
#[derive(Debug, Clone, Default)]
pub struct MemoryNetwork(Arc<Mutex<NetworkState>>);

#[derive(Debug, Default)]
struct NetworkState {
    /// The nodes that are open.
    endpoints: BTreeMap<NodeId, Endpoint>,
    /// The pairs that do not hear each other, the smaller node first. A node that is cut from itself is isolated.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Of how many messages one is lost; zero: none.
    lose_one_in: u64,
    /// Of how many messages one comes twice; zero: none.
    double_one_in: u64,
    /// How many messages had a way so far.
    carried: u64,
}

/// What the exchange has of a node.
#[derive(Debug)]
struct Endpoint {
    deliveries: mpsc::Sender<Delivery>,
    health: watch::Sender<Health>,
    /// How often the health turned good.
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
    /// An exchange where everything passes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a node's transport and inbox. A node of that name from before is closed.
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

    /// Nothing passes between the two any more, in either direction. Neither is told, as on a network.
    pub fn cut(&self, one: NodeId, other: NodeId) {
        self.change(|state| state.cut.insert(pair(one, other)));
    }

    /// Nothing passes to the node or from it any more, and its health says so.
    pub fn isolate(&self, node: NodeId) {
        self.change(|state| {
            let nodes: Vec<NodeId> = state.endpoints.keys().copied().chain([node]).collect();
            state.cut.extend(nodes.iter().map(|&one| pair(one, node)));
        });
    }

    /// Everything passes again, but for what is lost by number.
    pub fn heal(&self) {
        self.change(|state| state.cut.clear());
    }

    /// Loses one message in so many; zero: none.
    pub fn lose_one_in(&self, messages: u64) {
        self.change(|state| state.lose_one_in = messages);
    }

    /// Delivers one message in so many twice; zero: none.
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
    /// Carries a message; `false` when it was lost.
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
