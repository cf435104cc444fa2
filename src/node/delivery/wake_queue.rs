//! Wakes many socket tasks of one thread by one message to that thread.
//!
//! Waking a task from another thread takes a lock and, if that thread sleeps, a system call; and a thread that is woken
//! separately for each of a thousand readers falls asleep again in between. Within its own thread, waking a task is a push to
//! a list.

use std::sync::Arc;
use std::task::Waker;

use tokio::sync::mpsc;

/// Wakes the socket tasks of one thread. Clones share the queue.
#[derive(Debug, Clone)]
pub struct WakeQueue(Arc<mpsc::UnboundedSender<Vec<Waker>>>);

/// The receiving end of a [`WakeQueue`], which runs on its thread.
#[derive(Debug)]
pub struct WakeTask(mpsc::UnboundedReceiver<Vec<Waker>>);

impl WakeQueue {
    /// A queue, and the task that has to [`run`](WakeTask::run) on the thread of the sockets.
    #[must_use]
    pub fn new() -> (Self, WakeTask) {
        // Bounded by the number of sockets: each has one waker, which is in at most one batch.
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(Arc::new(sender)), WakeTask(receiver))
    }
}

impl WakeTask {
    /// Wakes the tasks of every batch. Returns when all clones of the queue are dropped.
    pub async fn run(mut self) {
        while let Some(wakers) = self.0.recv().await {
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

/// The wakers that one delivery collects, by thread: few threads, many wakers.
#[derive(Debug, Default)]
pub(in crate::node) struct WakeBatch(Vec<(WakeQueue, Vec<Waker>)>);

impl WakeBatch {
    /// Adds a waker, to be woken with the others of its thread.
    pub(in crate::node) fn add(&mut self, queue: &WakeQueue, waker: Waker) {
        let mut threads = self.0.iter_mut();
        match threads.find(|(known, _)| Arc::ptr_eq(&known.0, &queue.0)) {
            Some((_, wakers)) => wakers.push(waker),
            None => self.0.push((queue.clone(), vec![waker])),
        }
    }

    /// Wakes all added wakers, and empties the batch.
    pub(in crate::node) fn wake(&mut self) {
        for (queue, wakers) in self.0.drain(..) {
            if let Err(unsent) = queue.0.send(wakers) {
                // The thread is ending. Its sockets are woken from this one.
                unsent.0.into_iter().for_each(Waker::wake);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wake_counter::WakeCounter;
    use super::*;

    #[tokio::test]
    async fn all_are_woken_once_even_if_their_thread_has_ended() {
        let woken = Arc::new(WakeCounter::default());
        let ((live, task), (ended, ended_task)) = (WakeQueue::new(), WakeQueue::new());
        drop(ended_task);
        let mut batch = WakeBatch::default();
        for queue in [&live, &ended, &live] {
            batch.add(queue, woken.waker());
        }
        batch.wake();
        assert_eq!(woken.wakes(), 1, "the socket of the ended thread");
        drop(live);
        task.run().await;
        assert_eq!(woken.wakes(), 3);
    }
}
