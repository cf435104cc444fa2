//! Limits how often a document wakes its readers.
//!
//! Writing to a socket costs more than everything else in a delivery, and a busy document commits a thousand times a second.
//! So for a short time after a document woke its readers, further commits are collected in their outboxes. The author of an
//! acknowledged op is woken at once; so are all readers if the document was quiet before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::outbox::{Outbox, OutboxFull};
use super::wake_queue::WakeBatch;

/// The shortest time between two wake-ups of a document's readers.
const INTERVAL: Duration = Duration::from_millis(2);

/// The same if more than [`LARGE_AUDIENCE`] readers were woken: writing to them all takes longer than [`INTERVAL`].
const LARGE_INTERVAL: Duration = Duration::from_millis(10);
const LARGE_AUDIENCE: usize = 256;

/// Decides when the readers of one document are woken.
#[derive(Debug, Default)]
pub(in crate::node) struct DeliveryThrottle {
    /// The outboxes with new frames for sockets that have not been woken.
    deferred: Vec<Arc<Outbox>>,
    /// The sockets that the next [`flush`](Self::flush) wakes in any case.
    batch: WakeBatch,
    /// When all readers may be woken again.
    allowed_at: Option<Instant>,
}

impl DeliveryThrottle {
    /// Queues whole frames for a socket, which is woken when the interval has passed.
    ///
    /// # Errors
    /// If the outbox was full. It is closed then.
    pub(in crate::node) fn push(
        &mut self,
        outbox: &Arc<Outbox>,
        frames: Bytes,
    ) -> Result<(), OutboxFull> {
        if outbox.push_deferred(frames)? {
            self.deferred.push(outbox.clone());
        }
        Ok(())
    }

    /// Has a socket woken by the next [`flush`](Self::flush), whether or not the interval has passed.
    pub(in crate::node) fn wake_at_next_flush(&mut self, outbox: &Outbox) {
        outbox.wake_with(&mut self.batch);
    }

    /// When to [`flush`](Self::flush) again; `None` if no socket waits for the end of the interval.
    pub(in crate::node) fn next_flush(&self) -> Option<Instant> {
        self.allowed_at.filter(|_| !self.deferred.is_empty())
    }

    /// Wakes the sockets that do not wait for the interval, and all others if it has passed.
    pub(in crate::node) fn flush(&mut self, now: Instant) {
        if !self.deferred.is_empty() && self.allowed_at.is_none_or(|at| now >= at) {
            let is_large = self.deferred.len() > LARGE_AUDIENCE;
            self.allowed_at = Some(now + if is_large { LARGE_INTERVAL } else { INTERVAL });
            self.wake_deferred();
        }
        self.batch.wake();
    }

    fn wake_deferred(&mut self) {
        for outbox in self.deferred.drain(..) {
            outbox.wake_with(&mut self.batch);
        }
    }
}

impl Drop for DeliveryThrottle {
    fn drop(&mut self) {
        // Other documents may have queued frames behind the deferred ones, and rely on this throttle to wake the socket.
        self.wake_deferred();
        self.batch.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll};

    use super::super::wake_counter::WakeCounter;
    use super::*;
    use crate::gateway::ShareDbEncoder;

    /// A socket that counts how often it is woken.
    struct Socket {
        outbox: Arc<Outbox>,
        woken: Arc<WakeCounter>,
    }

    impl Socket {
        fn new() -> Self {
            let socket = Self {
                outbox: Arc::new(Outbox::new(1 << 20, &ShareDbEncoder, None)),
                woken: Arc::default(),
            };
            assert_eq!(socket.write(), 0, "nothing is queued yet");
            socket
        }

        /// Writes everything that is queued, and registers its waker. Returns the number of bytes.
        fn write(&self) -> usize {
            let waker = self.woken.waker();
            let mut cx = Context::from_waker(&waker);
            let mut bytes = 0;
            while let Poll::Ready(Some(frames)) = self.outbox.poll_take(&mut cx) {
                bytes += frames.len();
            }
            bytes
        }

        /// How often it was woken.
        fn woken(&self) -> usize {
            self.woken.wakes()
        }
    }

    fn frames(bytes: usize) -> Bytes {
        Bytes::from(vec![0; bytes])
    }

    #[test]
    fn a_busy_document_wakes_its_readers_in_intervals_and_authors_at_once() {
        let (reader, author) = (Socket::new(), Socket::new());
        let mut throttle = DeliveryThrottle::default();
        let start = Instant::now();
        let commit = |throttle: &mut DeliveryThrottle, at| {
            for socket in [&reader, &author] {
                throttle.push(&socket.outbox, frames(10)).unwrap();
            }
            throttle.wake_at_next_flush(&author.outbox);
            throttle.flush(at);
            (reader.woken(), author.woken())
        };
        assert_eq!(
            commit(&mut throttle, start),
            (1, 1),
            "nothing was delivered before"
        );
        assert_eq!((reader.write(), author.write()), (10, 10));
        assert_eq!(throttle.next_flush(), None, "no reader has unread frames");
        for writes in 2..5 {
            assert_eq!(commit(&mut throttle, start + INTERVAL / 2), (1, writes));
            assert_eq!(author.write(), 10);
        }
        assert_eq!(throttle.next_flush(), Some(start + INTERVAL));
        throttle.flush(start + INTERVAL);
        assert_eq!(reader.woken(), 2);
        assert_eq!(reader.write(), 30, "all deferred frames in one write");
        assert_eq!(author.write(), 0);
        assert_eq!(throttle.next_flush(), None);
    }

    #[test]
    fn many_readers_are_woken_in_longer_intervals() {
        let audience: Vec<_> = (0..=LARGE_AUDIENCE).map(|_| Socket::new()).collect();
        let mut throttle = DeliveryThrottle::default();
        let start = Instant::now();
        for at in [start, start + INTERVAL] {
            for reader in &audience {
                throttle.push(&reader.outbox, frames(10)).unwrap();
            }
            throttle.flush(at);
            for reader in &audience {
                assert_eq!(reader.woken(), 1);
                reader.write();
            }
        }
    }

    #[test]
    fn a_full_write_wakes_its_reader_at_once() {
        let reader = Socket::new();
        let mut throttle = DeliveryThrottle::default();
        let start = Instant::now();
        throttle.push(&reader.outbox, frames(10)).unwrap();
        throttle.flush(start);
        reader.write();
        throttle.push(&reader.outbox, frames(100 << 10)).unwrap();
        assert_eq!(reader.woken(), 2);
    }

    #[test]
    fn a_document_that_ends_wakes_all_its_readers() {
        let reader = Socket::new();
        let (mut one, mut other) = (DeliveryThrottle::default(), DeliveryThrottle::default());
        let start = Instant::now();
        for throttle in [&mut one, &mut other] {
            throttle.push(&reader.outbox, frames(10)).unwrap();
            throttle.flush(start);
            reader.write();
        }
        one.push(&reader.outbox, frames(10)).unwrap();
        other.push(&reader.outbox, frames(10)).unwrap();
        assert_eq!(
            (one.next_flush(), other.next_flush()),
            (Some(start + INTERVAL), None),
            "the first throttle wakes for both"
        );
        one.flush(start);
        drop(one);
        assert_eq!(reader.woken(), 3);
        assert_eq!(reader.write(), 20);
    }
}
