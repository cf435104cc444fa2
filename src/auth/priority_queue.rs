//! A bounded priority queue for expensive work: a few callers run at once, the others wait in the order of their priority.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::sync::lock;

/// The priority of a caller: lower values run first. Among equal ones the newest runs first: callers that have waited long
/// may have given up, and a crowd that arrived at once does not lock out later callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Priority {
    /// The kind of the caller.
    pub(super) class: CallerClass,
    /// The caller's recent load: see [`Admitted::rank`](super::login_throttle::Admitted::rank).
    pub(super) rank: u32,
}

/// A kind of caller, in descending priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CallerClass {
    /// A session, a device that has signed in to the account before, or a code that is valid.
    Known,
    /// Any other caller that signs in.
    Stranger,
    /// The password of a share link.
    Link,
}

/// Hands out a fixed number of [`Permit`]s.
///
/// When the queue is full, a new caller displaces the last one in order if it has a higher priority; otherwise the new caller
/// is rejected. So a crowd cannot lock out callers of a better class or of a network with little load.
#[derive(Debug)]
pub(super) struct PriorityQueue {
    waiting_max: usize,
    state: Mutex<Waiters>,
}

#[derive(Debug)]
struct Waiters {
    /// The permits that are free.
    free: usize,
    waiting: BTreeMap<QueueKey, oneshot::Sender<Permit>>,
    /// The callers so far.
    arrivals: u64,
}

type QueueKey = (Priority, Reverse<u64>);

/// The right to run; returned when it is dropped.
#[derive(Debug)]
pub(super) struct Permit(Option<Arc<PriorityQueue>>);

/// The work was not done: too many callers wait, or this one waited too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overloaded;

/// How long a caller waits for a permit.
const PATIENCE: Duration = Duration::from_secs(10);

impl PriorityQueue {
    /// A queue with `at_once` permits, for which at most `waiting_max` callers wait.
    pub(super) fn new(at_once: usize, waiting_max: usize) -> Arc<Self> {
        Arc::new(Self {
            waiting_max,
            state: Mutex::new(Waiters {
                free: at_once,
                waiting: BTreeMap::new(),
                arrivals: 0,
            }),
        })
    }

    /// Waits for a permit. A caller that is dropped leaves the queue.
    ///
    /// # Errors
    /// If the queue is full of callers of a higher priority, or the wait is too long.
    pub(super) async fn permit(self: &Arc<Self>, priority: Priority) -> Result<Permit, Overloaded> {
        let (place, receiver) = match self.enter(priority)? {
            QueueEntry::Running(permit) => return Ok(permit),
            QueueEntry::Waiting(place, receiver) => (place, receiver),
        };
        let _leaves = Leaves { queue: self, place };
        match timeout(PATIENCE, receiver).await {
            Ok(Ok(permit)) => Ok(permit),
            // Displaced, or waited too long.
            Ok(Err(_)) | Err(_) => Err(Overloaded),
        }
    }

    /// Takes a free permit or a position in the queue.
    fn enter(self: &Arc<Self>, priority: Priority) -> Result<QueueEntry, Overloaded> {
        let mut state = self.state();
        if state.free > 0 {
            state.free -= 1;
            return Ok(QueueEntry::Running(Permit(Some(self.clone()))));
        }
        let place = (priority, Reverse(state.arrivals));
        state.arrivals += 1;
        if state.waiting.len() >= self.waiting_max {
            match state.waiting.last_entry() {
                // Dropping its sender wakes the displaced caller.
                Some(last) if place < *last.key() => drop(last.remove()),
                _ => return Err(Overloaded),
            }
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.insert(place, sender);
        Ok(QueueEntry::Waiting(place, receiver))
    }

    /// Passes a returned permit to the first caller in order.
    fn pass_on(self: &Arc<Self>) {
        let mut state = self.state();
        while let Some((_, sender)) = state.waiting.pop_first() {
            match sender.send(Permit(Some(self.clone()))) {
                Ok(()) => return,
                // The caller was dropped at this moment. The permit must not be returned while the lock is held.
                Err(mut permit) => permit.0 = None,
            }
        }
        state.free += 1;
    }

    fn state(&self) -> MutexGuard<'_, Waiters> {
        lock(&self.state)
    }
}

/// The result of entering the queue.
enum QueueEntry {
    Running(Permit),
    Waiting(QueueKey, oneshot::Receiver<Permit>),
}

/// Removes a caller from the queue when it is dropped.
struct Leaves<'a> {
    queue: &'a PriorityQueue,
    place: QueueKey,
}

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.queue.state().waiting.remove(&self.place);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(queue) = self.0.take() {
            queue.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;

    fn of(class: CallerClass, rank: u32) -> Priority {
        Priority { class, rank }
    }

    #[tokio::test(start_paused = true)]
    async fn known_callers_and_quiet_networks_come_first() {
        let queue = PriorityQueue::new(1, 10);
        let running = queue.permit(of(CallerClass::Link, 9)).await.unwrap();
        let order = Mutex::new(Vec::new());
        let callers = [
            of(CallerClass::Link, 0),
            of(CallerClass::Stranger, 7),
            of(CallerClass::Stranger, 0),
            of(CallerClass::Known, 3),
            of(CallerClass::Stranger, 0),
        ];
        let callers = callers.iter().enumerate().map(async |(number, priority)| {
            let permit = queue.permit(*priority).await.unwrap();
            order.lock().unwrap().push(number);
            drop(permit);
        });
        let end = async {
            tokio::task::yield_now().await;
            drop(running);
        };
        futures_util::future::join(join_all(callers), end).await;
        assert_eq!(*order.lock().unwrap(), [3, 4, 2, 1, 0]);
        assert_eq!(queue.state().free, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn full_queue_displaces_the_last_caller() {
        let queue = PriorityQueue::new(1, 3);
        let running = queue.permit(of(CallerClass::Stranger, 0)).await.unwrap();
        let mut crowd: Vec<_> = (0..3)
            .map(|_| Box::pin(queue.permit(of(CallerClass::Stranger, 5))))
            .collect();
        for caller in &mut crowd {
            assert!(caller.now_or_never().is_none());
        }
        // The queue is full: a busy network is rejected, a quiet one displaces the last caller.
        let refused = queue.permit(of(CallerClass::Stranger, 6)).now_or_never();
        assert_eq!(refused.unwrap().unwrap_err(), Overloaded);
        let mut quiet = Box::pin(queue.permit(of(CallerClass::Stranger, 0)));
        assert!((&mut quiet).now_or_never().is_none());
        let displaced = (&mut crowd[0]).now_or_never();
        assert_eq!(displaced.unwrap().unwrap_err(), Overloaded);
        drop(running);
        assert!((&mut quiet).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_caller_returns_its_permit() {
        let queue = PriorityQueue::new(1, 3);
        let running = queue.permit(of(CallerClass::Known, 0)).await.unwrap();
        let mut gone = Box::pin(queue.permit(of(CallerClass::Known, 0)));
        assert!((&mut gone).now_or_never().is_none());
        // The permit is sent, and never received.
        drop(running);
        drop(gone);
        assert_eq!(queue.state().free, 1);
        let running = queue.permit(of(CallerClass::Known, 0)).await.unwrap();
        let mut gone = Box::pin(queue.permit(of(CallerClass::Known, 0)));
        assert!((&mut gone).now_or_never().is_none());
        drop(gone);
        assert!(queue.state().waiting.is_empty());
        // A caller that waits too long receives an error.
        let late = queue.permit(of(CallerClass::Known, 0)).await;
        assert_eq!(late.unwrap_err(), Overloaded);
        drop(running);
        assert_eq!(queue.state().free, 1);
    }
}
