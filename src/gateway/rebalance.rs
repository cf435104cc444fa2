//! Moves open sockets, a few a second, from a node with clearly more than the average to the other nodes, so that nodes
//! that were added get their share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval};

use super::gateway::Gateway;
use crate::node::Node;

/// How often the nodes compare their numbers of sockets.
const INTERVAL: Duration = Duration::from_secs(2);

/// A node with fewer sockets moves none, and does not read the numbers of the others.
const SOCKETS_MIN: u64 = 40;

/// A node begins to move sockets when it has more than this share of the average, in percent.
const BEGIN_PERCENT: u64 = 120;

/// A node moves sockets until it has no more than this share of the average, in percent. It is less than
/// [`BEGIN_PERCENT`] because the load balancer sends some of the sockets back to the node.
const END_PERCENT: u64 = 105;

/// Decides how many sockets a node moves. Pure.
#[derive(Debug, Default)]
struct Surplus {
    is_moving: bool,
}

impl Surplus {
    /// How many sockets to move from a node with `mine`, so that it has the average.
    fn update(&mut self, mine: u64, others: &[u64]) -> u64 {
        let nodes = others.len() as u64 + 1;
        let average = (mine + others.iter().sum::<u64>()).div_ceil(nodes);
        let percent = if self.is_moving {
            END_PERCENT
        } else {
            BEGIN_PERCENT
        };
        self.is_moving = mine >= SOCKETS_MIN && mine * 100 > average * percent;
        if self.is_moving { mine - average } else { 0 }
    }
}

/// Selects the sockets to move: the one that has waited longest first. A selected socket moves if it is idle.
#[derive(Debug)]
pub(super) struct RebalanceQueue(Semaphore);

impl RebalanceQueue {
    pub(super) fn new() -> Self {
        Self(Semaphore::new(0))
    }

    /// Waits until this socket is selected. Cancel-safe, but the socket loses its place in the queue.
    pub(super) async fn selected(&self) {
        match self.0.acquire().await {
            Ok(permit) => permit.forget(),
            // The semaphore is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Selects `count` sockets. Selections that no socket has taken are withdrawn first, so that they do not apply to new
    /// sockets.
    fn select(&self, count: usize) {
        self.0.forget_permits(self.0.available_permits());
        self.0.add_permits(count);
    }
}

impl Gateway {
    /// Compares this node with the others at an interval, and moves sockets to them. Returns at once if rebalancing is off.
    pub async fn rebalance(self: Arc<Self>) {
        let per_second = self.settings().rebalance_per_second;
        if per_second == 0 || !self.node().is_in_cluster() {
            return;
        }
        let most = u64::from(per_second) * INTERVAL.as_secs();
        let mut surplus = Surplus::default();
        // The number of sockets in the store. It is not written again while it is small and unchanged.
        let mut stored = None;
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mine = self.sockets() as u64;
            if stored == Some(mine) && mine < SOCKETS_MIN {
                continue;
            }
            let others = others(self.node(), mine).await;
            stored = others.is_some().then_some(mine);
            let count = match others {
                Some(others) if self.is_serving() => surplus.update(mine, &others).min(most),
                _ => 0,
            };
            if count > 0 {
                tracing::debug!(mine, count, "moving sockets to nodes with fewer");
            }
            self.rebalance_queue()
                .select(usize::try_from(count).unwrap_or(usize::MAX));
        }
    }
}

/// Writes the number of sockets of this node, and returns those of the other nodes that are serving. `None` if the store
/// fails, which the heartbeat logs.
async fn others(node: &Node, mine: u64) -> Option<Vec<u64>> {
    match node.store().share_sockets(node.id(), mine).await {
        Ok(others) => Some(others),
        Err(error) => {
            tracing::debug!(%error, "socket counts of other nodes not read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// Moves sockets between nodes in rounds, at most `most` of each node; the load balancer is round-robin. Returns after
    /// how many rounds no socket moves, and how many each node has then.
    fn converge(mut nodes: Vec<u64>, most: u64) -> (usize, Vec<u64>) {
        let mut machines: Vec<_> = nodes.iter().map(|_| Surplus::default()).collect();
        let (mut turn, mut quiet) = (0, 0);
        for round in 0..10_000 {
            let before = nodes.clone();
            let mut moving = 0;
            for (at, machine) in machines.iter_mut().enumerate() {
                let others: Vec<_> = (0..before.len())
                    .filter(|it| *it != at)
                    .map(|it| before[it])
                    .collect();
                let count = machine.update(before[at], &others).min(most);
                nodes[at] -= count;
                moving += count;
            }
            for _ in 0..moving {
                turn = (turn + 1) % nodes.len();
                nodes[turn] += 1;
            }
            quiet = if moving == 0 { quiet + 1 } else { 0 };
            if quiet == 100 {
                return (round - 99, nodes);
            }
        }
        panic!("does not converge: {nodes:?}");
    }

    #[test]
    fn nodes_converge() {
        for (nodes, most) in [
            (vec![1_000, 1_000, 0], 10),
            (vec![3_000, 0, 0], 10),
            (vec![500, 500, 500, 0, 0, 0], 10),
            (vec![50_000, 50_000, 100], 2_000),
        ] {
            let total: u64 = nodes.iter().sum();
            let average = total / nodes.len() as u64;
            let (rounds, after) = converge(nodes.clone(), most);
            assert_eq!(after.iter().sum::<u64>(), total);
            let most_of_all = after.iter().max().copied().unwrap_or(0);
            assert!(
                most_of_all * 100 <= average * BEGIN_PERCENT,
                "{nodes:?} -> {after:?} in {rounds} rounds"
            );
        }
    }

    #[test]
    fn equal_small_or_single_nodes_move_nothing() {
        for nodes in [vec![1_000, 900, 1_100], vec![39, 0, 0], vec![5_000]] {
            assert_eq!(converge(nodes.clone(), 10), (0, nodes));
        }
    }

    #[test]
    fn selection_that_no_socket_took_is_withdrawn() {
        let rebalance_queue = RebalanceQueue::new();
        rebalance_queue.select(5);
        rebalance_queue.select(1);
        assert!(rebalance_queue.selected().now_or_never().is_some());
        assert!(rebalance_queue.selected().now_or_never().is_none());
        rebalance_queue.select(1);
        rebalance_queue.select(0);
        assert!(rebalance_queue.selected().now_or_never().is_none());
    }
}
