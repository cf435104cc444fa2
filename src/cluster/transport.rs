//! What a transport promises, and what it tells of itself.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use crate::id::NodeId;

/// Carries messages between nodes. Every one may be lost, doubled or late; none is waited for. Those of one node to
/// another keep their order as long as they go the same way, except that a stretch may come twice.
pub trait Transport: Debug + Send + Sync {
    /// Queues a message for a node's inbox, also the own one. Never waits: what exceeds the bound for that node, or for
    /// all of them, is dropped and counted.
    fn send(&self, to: NodeId, message: Bytes);

    /// As [`send`](Self::send), by every way that there is: for a message that finds out whether the other node lives.
    fn send_every_way(&self, to: NodeId, message: Bytes) {
        self.send(to, message);
    }

    /// The address at which other nodes reach this one without a server in between; they learn it from the store.
    fn address(&self) -> Option<Arc<str>> {
        None
    }

    /// The other nodes that live, and their addresses, as the store names them.
    fn learn(&self, peers: &[(NodeId, Arc<str>)]) {
        let _ = peers;
    }

    /// TransportStats how often messages began to pass again, or to go another way: what was sent just before may be lost, and is
    /// worth sending again.
    fn reopened(&self) -> watch::Receiver<u64>;

    /// Whether messages pass at present, in both directions, by any way.
    fn health(&self) -> watch::Receiver<Health>;

    /// What passed so far, for metrics.
    fn counts(&self) -> TransportStats;

    /// Sends what is queued, within a limit, and gives the inbox up. What is sent later is dropped.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Whether messages pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// They pass.
    Good,
    /// They do not, and why, as far as it is known.
    Bad(Arc<str>),
}

impl Health {
    /// Whether messages pass.
    #[must_use]
    pub fn is_good(&self) -> bool {
        *self == Self::Good
    }
}

/// Messages of one node, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Who sent them.
    pub from: NodeId,
    /// The messages.
    pub messages: Vec<Bytes>,
}

/// A node's end of the transport: what was sent to it.
///
/// Whoever holds it must take what comes. Where nobody does, the senders do not wait: what is too much is lost.
#[derive(Debug)]
pub struct Inbox(pub(super) mpsc::Receiver<Delivery>);

impl Inbox {
    /// The next delivery; `None` when the transport is closed. Cancel-safe.
    pub async fn receive(&mut self) -> Option<Delivery> {
        self.0.recv().await
    }
}

/// What passed so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransportStats {
    /// Messages that were handed over to be carried.
    pub sent: u64,
    /// Messages that were delivered into the inbox.
    pub received: u64,
    /// Messages that were dropped on the way out: no room, no way, or too old.
    pub dropped: u64,
    /// Things in the inbox that no node can have sent.
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

/// The same, while it counts.
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
