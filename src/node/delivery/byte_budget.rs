//! Bounds the bytes of submits that are not answered yet.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The bytes that the unanswered submits of one socket, or of all sockets, may take. While the store is unavailable nothing
/// is answered, and only this bounds them. Clones share the budget.
#[derive(Debug, Clone)]
pub struct ByteBudget {
    bytes: Arc<Semaphore>,
    total: u32,
}

/// A submit's part of its budgets, until it is dropped.
#[derive(Debug)]
pub struct BytePermit {
    _permits: [OwnedSemaphorePermit; 2],
}

/// How long a submit waits for its budgets. Its socket is not read meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a submit takes in memory besides its change.
const OVERHEAD_BYTES: usize = 500;

impl ByteBudget {
    /// A budget of this many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let total = u32::try_from(bytes.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Self {
            bytes: Arc::new(Semaphore::new(total as usize)),
            total,
        }
    }

    /// Takes the bytes of a change from each of the budgets, in this order; waits while one of them has too few left. A
    /// change that is larger than a budget takes all of it. Returns `None` after 30 s.
    pub async fn acquire(budgets: [&Self; 2], bytes: usize) -> Option<BytePermit> {
        let wanted = u32::try_from(bytes + OVERHEAD_BYTES).unwrap_or(u32::MAX);
        let take = |budget: &Self| {
            let wanted = wanted.min(budget.total);
            budget.bytes.clone().acquire_many_owned(wanted)
        };
        let taken = async {
            let [own, all] = budgets;
            let _permits = [take(own).await.ok()?, take(all).await.ok()?];
            Some(BytePermit { _permits })
        };
        timeout(PATIENCE, taken).await.ok()?
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_submit_waits_for_the_budget_for_a_limited_time() {
        let (own, all) = (ByteBudget::new(10_000), ByteBudget::new(15_000));
        let other = ByteBudget::new(10_000);
        let first = ByteBudget::acquire([&own, &all], 6_000).await;
        assert!(first.is_some());
        assert!(
            ByteBudget::acquire([&own, &all], 6_000).await.is_none(),
            "own is full"
        );
        let second = ByteBudget::acquire([&other, &all], 6_000).await;
        assert!(second.is_some());
        let mut third = Box::pin(ByteBudget::acquire([&other, &all], 2_000));
        assert!(third.as_mut().now_or_never().is_none(), "all is full");
        drop(first);
        assert!(third.await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_larger_than_the_budget_is_accepted_alone() {
        let (own, all) = (ByteBudget::new(1_000), ByteBudget::new(100_000));
        let large = ByteBudget::acquire([&own, &all], 50_000).await;
        assert!(large.is_some());
        assert!(ByteBudget::acquire([&own, &all], 1).await.is_none());
        drop(large);
        assert!(ByteBudget::acquire([&own, &all], 1).await.is_some());
    }
}
