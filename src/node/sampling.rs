//! Sets the gauges of a node's metrics to its current state.

use super::metrics::{BudgetKind, Direction, MessageDrop};
use super::node::Node;
use crate::metrics::{set_counter, set_gauge};

impl Node {
    /// Sets the gauges of the node's metrics to its current state. Does not wait.
    pub fn sample_metrics(&self) {
        let services = self.services();
        let metrics = &services.metrics;
        set_gauge(&metrics.documents_open, self.documents_open());
        let channels = services.presence.channel_count();
        set_gauge(&metrics.presence_channels, channels);
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
            set_gauge(metrics.budget_used_bytes.of(budget), used);
            set_gauge(metrics.budget_limit_bytes.of(budget), limit);
        }
    }

    fn sample_peers(&self) {
        let metrics = &self.services().metrics;
        let peers = self.services().peers.status();
        set_gauge(&metrics.peers_alive, peers.alive);
        set_gauge(&metrics.peers_suspected, peers.suspected);
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
