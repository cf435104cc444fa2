//! How often a document wakes its readers.
//!
//! To write to a socket costs more than all else that is done for a delivery, and a busy document commits a thousand times
//! a second. So a document that has just woken its readers lets what follows gather in their outboxes for a moment. Whose
//! own op is acknowledged is woken at once, and so is everybody when the document was quiet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::outbox::{Outbox, OutboxFull};
use super::wake_queue::WakeBatch;

/// How long a document lets its readers be when it has woken them.
const REST: Duration = Duration::from_millis(2);

/// The same when they were more than [`CROWD`]: to write to them all takes longer than [`REST`].
const CROWD_REST: Duration = Duration::from_millis(10);
const CROWD: usize = 256;

/// Who of a document's readers is woken, and when.
#[derive(Debug, Default)]
pub(in crate::node) struct DeliveryThrottle {
    /// The outboxes that hold something for a socket that sleeps.
    asleep: Vec<Arc<Outbox>>,
    /// Whom the next [`ring`](Self::ring) wakes in any case.
    round: WakeBatch,
    /// When the document has rested since it woke everybody.
    rested: Option<Instant>,
}

impl DeliveryThrottle {
    /// Queues whole frames for a socket that is woken when the document has rested.
    ///
    /// # Errors
    /// When its outbox was full; it is closed then.
    pub(in crate::node) fn leave(
        &mut self,
        outbox: &Arc<Outbox>,
        frames: Bytes,
    ) -> Result<(), OutboxFull> {
        if outbox.leave(frames)? {
            self.asleep.push(outbox.clone());
        }
        Ok(())
    }

    /// Has a socket woken by the next [`ring`](Self::ring).
    pub(in crate::node) fn hurry(&mut self, outbox: &Outbox) {
        outbox.wake_in(&mut self.round);
    }

    /// When to [`ring`](Self::ring) again, if anybody sleeps that the last one left asleep.
    pub(in crate::node) fn due(&self) -> Option<Instant> {
        self.rested.filter(|_| !self.asleep.is_empty())
    }

    /// Wakes who is in a hurry and, when the document has rested, everybody.
    pub(in crate::node) fn ring(&mut self, now: Instant) {
        if !self.asleep.is_empty() && self.rested.is_none_or(|rested| now >= rested) {
            let is_crowd = self.asleep.len() > CROWD;
            self.rested = Some(now + if is_crowd { CROWD_REST } else { REST });
            self.wake_all();
        }
        self.round.ring();
    }

    fn wake_all(&mut self) {
        for outbox in self.asleep.drain(..) {
            outbox.wake_in(&mut self.round);
        }
    }
}

impl Drop for DeliveryThrottle {
    fn drop(&mut self) {
        // Others may have queued behind what was left here, and count on its being woken.
        self.wake_all();
        self.round.ring();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    use super::*;

    /// A socket that writes when it is woken, and counts.
    struct Socket {
        outbox: Arc<Outbox>,
        woken: Arc<Woken>,
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Socket {
        fn new() -> Self {
            let socket = Self {
                outbox: Arc::new(Outbox::new(1 << 20, None)),
                woken: Arc::default(),
            };
            assert_eq!(socket.write(), 0, "nothing is there yet");
            socket
        }

        /// Writes what is there and falls asleep; how many bytes that were.
        fn write(&self) -> usize {
            let waker = Waker::from(self.woken.clone());
            let mut cx = Context::from_waker(&waker);
            let mut bytes = 0;
            while let Poll::Ready(Some(frames)) = self.outbox.poll_take(&mut cx) {
                bytes += frames.len();
            }
            bytes
        }

        /// How often it was woken until now.
        fn woken(&self) -> usize {
            self.woken.0.load(Ordering::SeqCst)
        }
    }

    fn frames(bytes: usize) -> Bytes {
        Bytes::from(vec![0; bytes])
    }

    #[test]
    fn readers_of_a_busy_document_sleep_while_it_rests_and_authors_do_not() {
        let (reader, author) = (Socket::new(), Socket::new());
        let mut throttle = DeliveryThrottle::default();
        let start = Instant::now();
        let commit = |throttle: &mut DeliveryThrottle, at| {
            for socket in [&reader, &author] {
                throttle.leave(&socket.outbox, frames(10)).unwrap();
            }
            throttle.hurry(&author.outbox);
            throttle.ring(at);
            (reader.woken(), author.woken())
        };
        assert_eq!(commit(&mut throttle, start), (1, 1), "it was quiet");
        assert_eq!((reader.write(), author.write()), (10, 10));
        assert_eq!(throttle.due(), None, "nobody sleeps over anything");
        for writes in 2..5 {
            assert_eq!(commit(&mut throttle, start + REST / 2), (1, writes));
            assert_eq!(author.write(), 10);
        }
        assert_eq!(throttle.due(), Some(start + REST));
        throttle.ring(start + REST);
        assert_eq!(reader.woken(), 2);
        assert_eq!(reader.write(), 30, "all that gathered, at once");
        assert_eq!(author.write(), 0);
        assert_eq!(throttle.due(), None);
    }

    #[test]
    fn a_crowd_is_let_be_for_longer() {
        let crowd: Vec<_> = (0..=CROWD).map(|_| Socket::new()).collect();
        let mut throttle = DeliveryThrottle::default();
        let start = Instant::now();
        for at in [start, start + REST] {
            for reader in &crowd {
                throttle.leave(&reader.outbox, frames(10)).unwrap();
            }
            throttle.ring(at);
            for reader in &crowd {
                assert_eq!(reader.woken(), 1);
                reader.write();
            }
        }
    }

    #[test]
    fn what_fills_a_write_does_not_wait() {
        let reader = Socket::new();
        let mut throttle = DeliveryThrottle::default();
        let start = Instant::now();
        throttle.leave(&reader.outbox, frames(10)).unwrap();
        throttle.ring(start);
        reader.write();
        throttle.leave(&reader.outbox, frames(100 << 10)).unwrap();
        assert_eq!(reader.woken(), 2);
    }

    #[test]
    fn a_document_that_ends_leaves_nobody_asleep() {
        let reader = Socket::new();
        let (mut one, mut other) = (DeliveryThrottle::default(), DeliveryThrottle::default());
        let start = Instant::now();
        for throttle in [&mut one, &mut other] {
            throttle.leave(&reader.outbox, frames(10)).unwrap();
            throttle.ring(start);
            reader.write();
        }
        one.leave(&reader.outbox, frames(10)).unwrap();
        other.leave(&reader.outbox, frames(10)).unwrap();
        assert_eq!(
            (one.due(), other.due()),
            (Some(start + REST), None),
            "one wakes for both"
        );
        one.ring(start);
        drop(one);
        assert_eq!(reader.woken(), 3);
        assert_eq!(reader.write(), 20);
    }
}
