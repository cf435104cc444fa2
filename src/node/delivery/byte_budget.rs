//! How many bytes of submits may be without an answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Room for the submits of somebody, or of all, until they are answered: while the store is away, nothing else ends them.
#[derive(Debug, Clone)]
pub struct ByteBudget {
    bytes: Arc<Semaphore>,
    all: u32,
}

/// What a submit takes of some rooms, until it is dropped.
#[derive(Debug)]
pub struct BytePermit {
    _permits: [OwnedSemaphorePermit; 2],
}

/// How long a submit waits for room. Its socket is not read meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a submit takes besides its change.
const OVERHEAD_BYTES: usize = 500;

impl ByteBudget {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let all = u32::try_from(bytes.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Self {
            bytes: Arc::new(Semaphore::new(all as usize)),
            all,
        }
    }

    /// Takes room for a change of so many bytes in each of `rooms`, in this order; waits while one of them has too little.
    /// What is larger than a room has it to itself. None: there was no room for too long.
    pub async fn acquire(budgets: [&Self; 2], bytes: usize) -> Option<BytePermit> {
        let wanted = u32::try_from(bytes + OVERHEAD_BYTES).unwrap_or(u32::MAX);
        let take = |room: &Self| room.bytes.clone().acquire_many_owned(wanted.min(room.all));
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
    async fn room_is_waited_for_and_not_for_ever() {
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
    async fn what_is_larger_than_the_room_has_it_to_itself() {
        let (own, all) = (ByteBudget::new(1_000), ByteBudget::new(100_000));
        let large = ByteBudget::acquire([&own, &all], 50_000).await;
        assert!(large.is_some());
        assert!(ByteBudget::acquire([&own, &all], 1).await.is_none());
        drop(large);
        assert!(ByteBudget::acquire([&own, &all], 1).await.is_some());
    }
}
