//! What waits to be written to one socket.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::bell::{Bell, Round};
use crate::protocol::close_frame;

/// What waits to be written to one socket: whole WebSocket frames, in order, up to a bound.
///
/// A reader that lets more than the bound gather is not waited for: its outbox closes, it comes back with its revision
/// and is sent what it missed from there. Anybody may push, from any thread; one stream drains.
#[derive(Debug)]
pub struct Outbox {
    inner: Mutex<Inner>,
    /// Told when the outbox closes.
    closing: Notify,
    /// Wakes the thread that drains it; without one, whoever drains is woken directly.
    bell: Option<Bell>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<Bytes>,
    /// How many bytes of `queue` count towards the bound.
    bytes: usize,
    /// Whether the first of the queue does not: it is larger than the bound, and was taken whole.
    first_is_free: bool,
    state: State,
    drainer: Option<Waker>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// Nothing more is taken; what is queued, a close frame last, is still written.
    Closing,
    /// The peer has had its time to read that.
    Released,
}

/// The outbox was full, and is closed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slow;

/// The WebSocket status that sends a client away for a while.
pub const TRY_AGAIN_LATER: u16 = 1013;

/// The most bytes that one write gathers.
const WRITE_BYTES: usize = 64 << 10;

impl Outbox {
    /// An empty outbox that takes at most so many bytes at once.
    #[must_use]
    pub fn new(bytes_max: usize, bell: Option<Bell>) -> Self {
        Self {
            inner: Mutex::default(),
            closing: Notify::new(),
            bell,
            bytes_max,
        }
    }

    /// Queues whole frames. A closed outbox drops them: its socket is on its way out.
    ///
    /// An empty outbox takes anything, whatever its size, and as much as usual behind it: one large document is not a slow
    /// reader.
    ///
    /// # Errors
    /// When it was full; it is closed then.
    pub fn push(&self, frames: Bytes) -> Result<(), Slow> {
        let drainer = self.queue(frames)?.drainer.take();
        drainer.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Queues whole frames, as [`push`](Self::push) does, but leaves who drains them asleep until they fill a write or
    /// somebody [wakes](Self::wake_in) it. Whether nobody is bound to, yet: an outbox that was not empty is awake, or left
    /// to somebody who will.
    ///
    /// # Errors
    /// When it was full; it is closed then.
    pub(super) fn leave(&self, frames: Bytes) -> Result<bool, Slow> {
        let mut inner = self.queue(frames)?;
        let fills = inner.first_is_free || inner.bytes >= WRITE_BYTES;
        let drainer = inner.drainer.take_if(|_| fills);
        let is_left = inner.drainer.is_some() && inner.queue.len() == 1;
        drop(inner);
        drainer.into_iter().for_each(Waker::wake);
        Ok(is_left)
    }

    /// Wakes who drains it, if it sleeps, when the round is rung.
    pub(super) fn wake_in(&self, round: &mut Round) {
        let drainer = self.lock().drainer.take();
        match (drainer, &self.bell) {
            (Some(drainer), Some(bell)) => round.add(bell, drainer),
            (Some(drainer), None) => drainer.wake(),
            (None, _) => {}
        }
    }

    /// Queues whole frames, for whoever drains them once it is woken.
    fn queue(&self, frames: Bytes) -> Result<MutexGuard<'_, Inner>, Slow> {
        let mut inner = self.lock();
        if inner.state != State::Open {
            return Ok(inner);
        }
        if inner.queue.is_empty() && frames.len() > self.bytes_max {
            inner.first_is_free = true;
        } else if inner.bytes + frames.len() > self.bytes_max {
            self.give_up(inner);
            return Err(Slow);
        } else {
            inner.bytes += frames.len();
        }
        inner.queue.push_back(frames);
        Ok(inner)
    }

    /// Closes behind what is queued, with a WebSocket status and a reason of at most 123 bytes.
    pub fn close(&self, status: u16, reason: &str) {
        let inner = self.lock();
        if inner.state == State::Open {
            self.end(inner, status, reason);
        }
    }

    /// Closes if what waits elsewhere to be pushed is more than it takes at once.
    pub(super) fn bear(&self, bytes: usize) {
        let inner = self.lock();
        if inner.state == State::Open && bytes > self.bytes_max {
            self.give_up(inner);
        }
    }

    /// Closes because more waits for the reader than may; what waited, it will ask for again.
    fn give_up(&self, mut inner: MutexGuard<'_, Inner>) {
        inner.queue.clear();
        inner.bytes = 0;
        inner.first_is_free = false;
        self.end(
            inner,
            TRY_AGAIN_LATER,
            "you read too slowly: come back with your version",
        );
    }

    fn end(&self, mut inner: MutexGuard<'_, Inner>, status: u16, reason: &str) {
        inner.state = State::Closing;
        inner.queue.push_back(close_frame(status, reason));
        let drainer = inner.drainer.take();
        drop(inner);
        if let Some(drainer) = drainer {
            drainer.wake();
        }
        self.closing.notify_one();
    }

    /// Whether it takes nothing more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lock().state != State::Open
    }

    /// Waits until it closes. One waiter at a time.
    pub async fn closed(&self) {
        if !self.is_closed() {
            self.closing.notified().await;
        }
    }

    /// Lets the draining end, now that the peer has answered the close frame or will not. Ended before, with what the peer
    /// says still unread, the connection would be reset, and the close frame lost on its way.
    pub fn release(&self) {
        let mut inner = self.lock();
        inner.state = State::Released;
        let drainer = inner.drainer.take();
        drop(inner);
        if let Some(drainer) = drainer {
            drainer.wake();
        }
    }

    /// Takes what is queued, gathered for one write; ends after the close frame, when it is released.
    pub fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut inner = self.lock();
        let Some(first) = inner.queue.pop_front() else {
            if inner.state == State::Released {
                return Poll::Ready(None);
            }
            if !inner
                .drainer
                .as_ref()
                .is_some_and(|drainer| drainer.will_wake(cx.waker()))
            {
                inner.drainer = Some(cx.waker().clone());
            }
            // A burst leaves its room behind: an idle socket should not keep it.
            inner.queue.shrink_to(4);
            return Poll::Pending;
        };
        if !std::mem::take(&mut inner.first_is_free) {
            inner.bytes = inner.bytes.saturating_sub(first.len());
        }
        if inner.queue.is_empty() || first.len() >= WRITE_BYTES {
            return Poll::Ready(Some(first));
        }
        let mut gathered = BytesMut::from(first.as_ref());
        while let Some(next) = inner.queue.front() {
            if gathered.len() + next.len() > WRITE_BYTES {
                break;
            }
            gathered.extend_from_slice(next);
            inner.bytes = inner.bytes.saturating_sub(next.len());
            inner.queue.pop_front();
        }
        Poll::Ready(Some(gathered.freeze()))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here can panic half-way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(outbox: &Outbox) -> Poll<Option<Bytes>> {
        outbox.poll_take(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn what_gathered_is_written_at_once_and_in_order() {
        let outbox = Outbox::new(100, None);
        assert_eq!(take(&outbox), Poll::Pending);
        outbox.push(Bytes::from_static(b"a")).unwrap();
        outbox.push(Bytes::from_static(b"b")).unwrap();
        assert_eq!(take(&outbox), Poll::Ready(Some(Bytes::from_static(b"ab"))));
        assert_eq!(take(&outbox), Poll::Pending);
        outbox.close(1000, "");
        outbox.push(Bytes::from_static(b"late")).unwrap();
        assert_eq!(take(&outbox), Poll::Ready(Some(close_frame(1000, ""))));
        assert_eq!(take(&outbox), Poll::Pending);
        outbox.release();
        assert_eq!(take(&outbox), Poll::Ready(None));
    }

    #[test]
    fn a_large_piece_leaves_room_for_what_follows_it() {
        let outbox = Outbox::new(10, None);
        let large = Bytes::from_static(b"a document that is larger than the bound");
        outbox.push(large.clone()).unwrap();
        outbox.push(Bytes::from_static(b"0123456789")).unwrap();
        let Poll::Ready(Some(first)) = take(&outbox) else {
            panic!("what was pushed")
        };
        assert!(first.starts_with(&large));
        outbox.push(large.clone()).unwrap();
        assert_eq!(take(&outbox), Poll::Ready(Some(large)));
    }

    #[test]
    fn a_reader_that_never_reads_is_closed_and_forgotten() {
        let outbox = Outbox::new(10, None);
        outbox
            .push(Bytes::from_static(b"one large piece is taken whole"))
            .unwrap();
        outbox.push(Bytes::from_static(b"0123456789")).unwrap();
        assert_eq!(outbox.push(Bytes::from_static(b"x")), Err(Slow));
        assert!(outbox.is_closed());
        let Poll::Ready(Some(last)) = take(&outbox) else {
            panic!("a close frame")
        };
        assert_eq!(last[2..4], 1013_u16.to_be_bytes());
        assert_eq!(take(&outbox), Poll::Pending);
    }
}
