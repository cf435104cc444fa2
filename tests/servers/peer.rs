//! The two ends of a node's transport, for tests that send numbers between nodes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use copydesk::cluster::{Delivery, Health, Inbox, Transport};
use copydesk::id::NodeId;
use tokio::time::{Instant, timeout};

/// How long an event may take. Only failures take as long.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A node: its transport and the inbox of it.
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) inbox: Inbox,
}

impl Peer {
    pub(crate) fn send(&self, to: NodeId, number: u32) {
        let message = number.to_le_bytes().to_vec();
        self.transport.send(to, message.into());
    }

    pub(crate) async fn receive(&mut self) -> Delivery {
        let received = timeout(LIMIT, self.inbox.receive()).await;
        received.expect("a delivery").expect("the inbox is open")
    }

    /// Receives this many numbers of one sender, and returns them in the order of their arrival.
    pub(crate) async fn numbers(&mut self, from: NodeId, count: usize) -> Vec<u32> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            let delivery = self.receive().await;
            assert_eq!(delivery.from, from);
            numbers.extend(delivery.messages.iter().map(number));
        }
        numbers
    }

    /// Sends a number until it arrives, as a request that waits for its answer does.
    pub(crate) async fn send_until_received(&self, to: &mut Self, number: u32) {
        let since = Instant::now();
        while since.elapsed() < LIMIT {
            self.send(to.id, number);
            let has_number = |delivery: &Delivery| {
                let mut messages = delivery.messages.iter();
                messages.any(|message| self::number(message) == number)
            };
            let arrives = async { while !has_number(&to.receive().await) {} };
            if timeout(Duration::from_millis(100), arrives).await.is_ok() {
                return;
            }
        }
        panic!("{number} does not arrive");
    }

    /// Waits until messages pass.
    pub(crate) async fn await_healthy(&self) {
        let mut health = self.transport.health();
        let good = timeout(LIMIT, health.wait_for(Health::is_good)).await;
        good.expect("messages pass").expect("the transport is open");
    }
}

pub(crate) fn number(message: &Bytes) -> u32 {
    u32::from_le_bytes(message[..].try_into().expect("a number"))
}
