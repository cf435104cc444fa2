//! Wakes many sockets of one thread by one message to it.
//!
//! To wake a task from another thread takes a lock and, where that thread sleeps, a system call; and a thread that is
//! woken for each of a thousand readers falls asleep again between them. On its own thread a wake is a push to a list.

use std::sync::Arc;
use std::task::Waker;

use tokio::sync::mpsc;

/// Wakes the sockets of one thread. Clones ring the same.
#[derive(Debug, Clone)]
pub struct WakeQueue(Arc<mpsc::UnboundedSender<Vec<Waker>>>);

/// The thread's end of its bell.
#[derive(Debug)]
pub struct WakeTask(mpsc::UnboundedReceiver<Vec<Waker>>);

impl WakeQueue {
    /// A bell, and what has to [`run`](WakeTask::run) on the thread whose sockets it wakes.
    #[must_use]
    pub fn new() -> (Self, WakeTask) {
        // Bounded by the sockets: each has one waker, which comes back to it when it is woken.
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(Arc::new(sender)), WakeTask(receiver))
    }
}

impl WakeTask {
    /// Wakes whoever is to be woken, for as long as there is a bell.
    pub async fn run(mut self) {
        while let Some(wakers) = self.0.recv().await {
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

/// The wakers that one delivery has gathered, by bell: a few bells, many wakers.
#[derive(Debug, Default)]
pub(in crate::node) struct WakeBatch(Vec<(WakeQueue, Vec<Waker>)>);

impl WakeBatch {
    /// Adds a waker, to be woken with the others of its thread.
    pub(in crate::node) fn add(&mut self, bell: &WakeQueue, waker: Waker) {
        match self
            .0
            .iter_mut()
            .find(|(known, _)| Arc::ptr_eq(&known.0, &bell.0))
        {
            Some((_, wakers)) => wakers.push(waker),
            None => self.0.push((bell.clone(), vec![waker])),
        }
    }

    /// Rings all bells; the round begins anew.
    pub(in crate::node) fn ring(&mut self) {
        for (bell, wakers) in self.0.drain(..) {
            if let Err(unsent) = bell.0.send(wakers) {
                // The thread is on its way down; its sockets are woken all the same.
                unsent.0.into_iter().for_each(Waker::wake);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn everybody_is_woken_once_even_when_the_thread_is_gone() {
        let woken = Arc::new(Woken::default());
        let ((near, ringing), (gone, dead)) = (WakeQueue::new(), WakeQueue::new());
        drop(dead);
        let mut round = WakeBatch::default();
        for bell in [&near, &gone, &near] {
            round.add(bell, Waker::from(woken.clone()));
        }
        round.ring();
        assert_eq!(
            woken.0.load(Ordering::SeqCst),
            1,
            "those of the thread that is gone"
        );
        drop(near);
        ringing.run().await;
        assert_eq!(woken.0.load(Ordering::SeqCst), 3);
    }
}
