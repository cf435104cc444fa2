//! The contract of a transport between nodes.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use crate::id::NodeId;

/// Carries messages between nodes: unreliable datagrams. A message may be lost, duplicated or late. Messages from one node
/// to another keep their order while they take the same path, except that a run of them may be repeated.
pub trait Transport: Debug + Send + Sync {
    /// Queues a message for a node's inbox; the node may be this one. Never blocks: a message beyond the bound for that node,
    /// or for all nodes, is dropped and counted.
    fn send(&self, to: NodeId, message: Bytes);

    /// As [`send`](Self::send), over every available path: for pings.
    fn send_every_way(&self, to: NodeId, message: Bytes) {
        self.send(to, message);
    }

    /// The address of this node's listener for direct links, which the heartbeat publishes; `None` without one.
    fn address(&self) -> Option<Arc<str>> {
        None
    }

    /// Takes the live nodes and their addresses from the store's heartbeats.
    fn learn(&self, peers: &[(NodeId, Arc<str>)]) {
        let _ = peers;
    }

    /// Counts recoveries and changes of path. What was sent just before one may be lost: unanswered requests are sent again.
    fn reopened(&self) -> watch::Receiver<u64>;

    /// Whether messages pass in both directions over any path.
    fn health(&self) -> watch::Receiver<Health>;

    /// Counters since the start, for metrics.
    fn counts(&self) -> TransportStats;

    /// Sends what is queued, within a time limit, and closes the inbox. Messages sent later are dropped.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Whether a transport carries messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Good,
    /// It does not; the reason, as far as it is known.
    Bad(Arc<str>),
}

impl Health {
    /// Returns true if messages pass.
    #[must_use]
    pub fn is_good(&self) -> bool {
        *self == Self::Good
    }
}

/// Messages from one node, in the order in which it sent them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The sender.
    pub from: NodeId,
    /// The messages.
    pub messages: Vec<Bytes>,
}

/// The receiving half of a transport.
///
/// It is bounded and must be drained: senders do not wait, and what exceeds the bound is lost.
#[derive(Debug)]
pub struct Inbox(pub(super) mpsc::Receiver<Delivery>);

impl Inbox {
    /// Waits for the next delivery; `None` once the transport is closed. Cancel-safe.
    pub async fn receive(&mut self) -> Option<Delivery> {
        self.0.recv().await
    }
}

/// Counters of a transport since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransportStats {
    /// Messages handed to the network.
    pub sent: u64,
    /// Messages delivered into the inbox.
    pub received: u64,
    /// Messages dropped before sending: queue full, no path, or too old.
    pub dropped: u64,
    /// Entries in the inbox that could not be decoded.
    pub poison: u64,
}

impl std::ops::Add for TransportStats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            received: self.received + other.received,
            dropped: self.dropped + other.dropped,
            poison: self.poison + other.poison,
        }
    }
}

/// The live counters behind [`TransportStats`].
#[derive(Debug, Default)]
pub(super) struct TransportCounters {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) poison: AtomicU64,
}

impl TransportCounters {
    pub(super) fn read(&self) -> TransportStats {
        TransportStats {
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            poison: self.poison.load(Ordering::Relaxed),
        }
    }
}

pub(super) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}
