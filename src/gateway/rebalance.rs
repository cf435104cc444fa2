//! Sends sockets from a node that has clearly more than the others to them, a few a second, so that nodes that were added
//! get a share of those that are open already.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval};

use super::gateway::Gateway;
use crate::node::Node;

/// How often the nodes compare how many sockets they have.
const EVERY: Duration = Duration::from_secs(2);

/// A node with fewer sockets neither counts as one with too many nor asks how many the others have.
const SOCKETS_MIN: u64 = 40;

/// A node begins to send sockets away when it has more than this share of the average, in percent...
const BEGIN_PERCENT: u64 = 120;

/// ...and goes on until it has no more than this one. Of the sockets that it sends away some come back to it by way of the
/// balancer, so it must not begin again at once.
const END_PERCENT: u64 = 105;

/// Decides how many sockets a node has too many. A pure machine.
#[derive(Debug, Default)]
struct Surplus {
    is_sending: bool,
}

impl Surplus {
    /// How many sockets a node with `mine` has more than the average, if it is to send some away.
    fn of(&mut self, mine: u64, others: &[u64]) -> u64 {
        let nodes = others.len() as u64 + 1;
        let average = (mine + others.iter().sum::<u64>()).div_ceil(nodes);
        let percent = if self.is_sending {
            END_PERCENT
        } else {
            BEGIN_PERCENT
        };
        self.is_sending = mine >= SOCKETS_MIN && mine * 100 > average * percent;
        if self.is_sending { mine - average } else { 0 }
    }
}

/// Calls sockets to leave: the one that has waited longest is called first, and leaves if it is at rest.
#[derive(Debug)]
pub(super) struct RebalanceQueue(Semaphore);

impl RebalanceQueue {
    pub(super) fn new() -> Self {
        Self(Semaphore::new(0))
    }

    /// Waits until this socket is called. Cancel-safe, but loses its place in line.
    pub(super) async fn selected(&self) {
        match self.0.acquire().await {
            Ok(call) => call.forget(),
            // It is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Calls so many. Calls that no socket was there for are taken back first: they are not for those that come later.
    fn select(&self, count: usize) {
        self.0.forget_permits(self.0.available_permits());
        self.0.add_permits(count);
    }
}

impl Gateway {
    /// Compares this node with the others again and again, and sends sockets to them. Ends at once where settings say so.
    pub async fn rebalance(self: Arc<Self>) {
        let per_second = self.settings().rebalance_per_second;
        if per_second == 0 || !self.node().is_in_cluster() {
            return;
        }
        let most = u64::from(per_second) * EVERY.as_secs();
        let mut surplus = Surplus::default();
        // How many the store was told of. A quiet cluster asks it nothing.
        let mut told = None;
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mine = self.sockets() as u64;
            if told == Some(mine) && mine < SOCKETS_MIN {
                continue;
            }
            let others = others(self.node(), mine).await;
            told = others.is_some().then_some(mine);
            let count = match others {
                Some(others) if self.is_serving() => surplus.of(mine, &others).min(most),
                _ => 0,
            };
            if count > 0 {
                tracing::debug!(mine, count, "calls sockets to leave for nodes with fewer");
            }
            self.rebalance_queue()
                .select(usize::try_from(count).unwrap_or(usize::MAX));
        }
    }
}

/// How many sockets each other node has that serves; `None`: the store did not answer, which others report.
async fn others(node: &Node, mine: u64) -> Option<Vec<u64>> {
    match node.store().share_sockets(node.id(), mine).await {
        Ok(others) => Some(others),
        Err(error) => {
            tracing::debug!(%error, "the sockets of other nodes are not known");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// Lets nodes send away what they have too many, at most `most` each time; a balancer gives each to the next node in
    /// turn. Returns after how many rounds no socket moves any more, and what each node has then.
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
                let count = machine.of(before[at], &others).min(most);
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
        panic!("it never comes to rest: {nodes:?}");
    }

    #[test]
    fn nodes_converge_and_come_to_rest() {
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
    fn nodes_that_are_alike_or_small_or_alone_send_nothing() {
        for nodes in [vec![1_000, 900, 1_100], vec![39, 0, 0], vec![5_000]] {
            assert_eq!(converge(nodes.clone(), 10), (0, nodes));
        }
    }

    #[test]
    fn a_call_that_no_socket_was_there_for_is_taken_back() {
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
