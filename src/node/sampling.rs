//! Sets the gauges of a node's metrics to its current state.

use super::metrics::{BudgetKind, Direction, MessageDrop};
use super::node::Node;
use crate::metrics::set_counter;

impl Node {
    /// Sets the gauges of the node's metrics to its current state. Does not wait.
    pub fn sample_metrics(&self) {
        let services = self.services();
        let metrics = &services.metrics;
        metrics.documents_open.set(as_i64(self.documents_open()));
        let channels = services.presence.channel_count();
        metrics.presence_channels.set(as_i64(channels));
        self.sample_budgets();
        self.sample_peers();
    }

    fn sample_budgets(&self) {
        let (metrics, settings) = (&self.services().metrics, self.settings());
        for (budget, used, limit) in [
            (
                BudgetKind::Outboxes,
                self.outboxes().used(),
                settings.outboxes_bytes_max,
            ),
            (
                BudgetKind::Snapshots,
                self.snapshots().used(),
                settings.snapshots_bytes_max,
            ),
        ] {
            metrics.budget_used_bytes.of(budget).set(as_i64(used));
            metrics.budget_limit_bytes.of(budget).set(as_i64(limit));
        }
    }

    fn sample_peers(&self) {
        let metrics = &self.services().metrics;
        let peers = self.services().peers.status();
        metrics.peers_alive.set(as_i64(peers.alive));
        metrics.peers_suspected.set(as_i64(peers.suspected));
        metrics.node_isolated.set(i64::from(peers.is_isolated));
        metrics.store_away.set(i64::from(peers.is_store_away));
        metrics.transport_healthy.set(i64::from(peers.is_heard));
        let Some(messages) = peers.messages else {
            return;
        };
        for (direction, count) in [
            (Direction::Sent, messages.sent),
            (Direction::Received, messages.received),
        ] {
            set_counter(metrics.peer_messages.of(direction), count);
        }
        for (reason, count) in [
            (MessageDrop::Unsent, messages.dropped),
            (MessageDrop::Undecodable, messages.poison),
        ] {
            set_counter(metrics.peer_messages_dropped.of(reason), count);
        }
    }
}

fn as_i64(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
