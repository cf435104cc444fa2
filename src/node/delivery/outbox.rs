//! The frames that wait to be written to one socket.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::outbox_budget::OutboxBudget;
use super::wake_queue::{WakeBatch, WakeQueue};
use crate::id::{ClientId, Name};
use crate::protocol::{CloseReason, close_frame};
use crate::store::History;
use crate::sync::lock;

/// The frames that wait to be written to one socket: whole WebSocket frames, in order, up to a bound.
///
/// There are three kinds:
/// - *Pushed* frames (commits, acks): a reader that lets more than `bytes_max` of them gather is closed with 1013. It
///   comes back with its revision and is sent what it missed from there.
/// - *Answers* to a read: the client asked for them, so their size does not make it a slow reader. A session asks for the
///   next one when those before it are [written](Self::drained).
/// - *Presence* values: a newer value replaces an older one of the same presence that is not written yet.
///
/// A frame counts until it is written to the connection, not until it is taken from the queue. Any thread may push; one
/// stream drains.
#[derive(Debug)]
pub struct Outbox {
    inner: Mutex<Inner>,
    /// Told when the outbox closes.
    closing: Notify,
    /// Told when little waits to be written, or the outbox closes.
    drained: Notify,
    /// Wakes the thread that drains it; without one, the drainer is woken directly.
    bell: Option<WakeQueue>,
    bytes_max: usize,
    /// What all outboxes of the node share.
    budget: Option<Arc<OutboxBudget>>,
    /// The history of the log that its socket was opened in.
    history: History,
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<(Kind, Bytes)>,
    /// Queued and not yet written.
    held: Held,
    /// BytePermit from the queue and not yet written; a part of `held`.
    writing: Held,
    presences: Presences,
    /// How many bytes of the shared budget this outbox uses.
    charged: usize,
    state: State,
    drainer: Option<Waker>,
}

/// Bytes of each kind.
#[derive(Debug, Default, Clone, Copy)]
struct Held {
    pushed: usize,
    answers: usize,
    /// Pieces of memory that other sockets, and the node's snapshot budget, share.
    shared: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pushed,
    Answer,
    Shared,
}

/// Names a presence: its channel, the client that publishes it, its id.
pub(in crate::node) type PresenceKey = (Name, ClientId, Name);

/// The newest value of each presence that is not queued yet, oldest key first.
#[derive(Debug, Default)]
struct Presences {
    order: VecDeque<PresenceKey>,
    values: HashMap<PresenceKey, Bytes>,
    bytes: usize,
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
pub struct OutboxFull;

/// The most bytes that one write gathers.
const WRITE_BYTES: usize = 64 << 10;

/// An outbox with at most so many bytes counts as drained.
const DRAINED_BYTES: usize = WRITE_BYTES;

/// While more bytes than these wait to be written, presence values wait behind them, newest value only.
const PRESENCE_DIRECT_BYTES: usize = 16 << 10;

/// A piece of an answer of at least so many bytes is not copied: sockets share it.
const SHARED_BYTES_MIN: usize = 4 << 10;

impl Outbox {
    /// An empty outbox that takes at most `bytes_max` bytes of pushed frames at once.
    #[must_use]
    pub fn new(bytes_max: usize, bell: Option<WakeQueue>) -> Self {
        Self {
            inner: Mutex::default(),
            closing: Notify::new(),
            drained: Notify::new(),
            bell,
            bytes_max,
            budget: None,
            history: History::default(),
        }
    }

    /// The same, counted towards what all outboxes of the node may hold.
    #[must_use]
    pub fn within(mut self, budget: Arc<OutboxBudget>) -> Self {
        self.budget = Some(budget);
        self
    }

    /// The same, of a socket that was opened in this history of the log.
    #[must_use]
    pub fn in_history(mut self, history: History) -> Self {
        self.history = history;
        self
    }

    /// The history of the log that its socket was opened in. Documents of another history do not serve it.
    #[must_use]
    pub fn history(&self) -> History {
        self.history
    }

    /// Queues whole frames. A closed outbox drops them: its socket is on its way out.
    ///
    /// One piece larger than the bound is taken if no other pushed frames wait: it is not a slow reader that is sent it.
    ///
    /// # Errors
    /// When it was full; it is closed then.
    pub fn push(&self, frames: Bytes) -> Result<(), OutboxFull> {
        let drainer = self.queue(frames)?.drainer.take();
        drainer.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Queues an answer to a read: the pieces of whole frames, in order. Does not close the outbox, whatever its size.
    pub fn answer(&self, pieces: impl IntoIterator<Item = Bytes>) {
        let mut inner = self.lock();
        if inner.state != State::Open {
            return;
        }
        for piece in pieces {
            let is_shared = piece.len() >= SHARED_BYTES_MIN && !piece.is_unique();
            let kind = if is_shared {
                Kind::Shared
            } else {
                Kind::Answer
            };
            *inner.held.of(kind) += piece.len();
            inner.queue.push_back((kind, piece));
        }
        self.charge(&mut inner);
        let drainer = inner.drainer.take();
        drop(inner);
        drainer.into_iter().for_each(Waker::wake);
    }

    /// Queues a presence value. While a reader is behind, a newer value takes the place of an older one of the same
    /// presence; with more than a quarter of the outbox's bound of them waiting, values of further presences are dropped.
    pub(in crate::node) fn presence(&self, key: &PresenceKey, frame: &Bytes) {
        let mut inner = self.lock();
        if inner.state != State::Open {
            return;
        }
        if inner.presences.order.is_empty() && inner.held.all() <= PRESENCE_DIRECT_BYTES {
            drop(inner);
            // A full outbox closes itself; its session ends by that.
            let _ = self.push(frame.clone());
            return;
        }
        inner.presences.put(key, frame, self.bytes_max / 4);
        self.charge(&mut inner);
        let drainer = inner.drainer.take();
        drop(inner);
        drainer.into_iter().for_each(Waker::wake);
    }

    /// Queues whole frames, as [`push`](Self::push) does, but leaves the drainer asleep until they fill a write or it is
    /// [woken](Self::wake_in). Returns true if the caller must have it woken; false if it is awake, or another caller
    /// will wake it.
    ///
    /// # Errors
    /// When it was full; it is closed then.
    pub(in crate::node) fn leave(&self, frames: Bytes) -> Result<bool, OutboxFull> {
        let mut inner = self.queue(frames)?;
        let fills = inner.held.all() >= WRITE_BYTES;
        let drainer = inner.drainer.take_if(|_| fills);
        let is_left = inner.drainer.is_some() && inner.queue.len() == 1;
        drop(inner);
        drainer.into_iter().for_each(Waker::wake);
        Ok(is_left)
    }

    /// Wakes the drainer, if it sleeps, when the round is rung.
    pub(in crate::node) fn wake_in(&self, round: &mut WakeBatch) {
        let drainer = self.lock().drainer.take();
        match (drainer, &self.bell) {
            (Some(drainer), Some(bell)) => round.add(bell, drainer),
            (Some(drainer), None) => drainer.wake(),
            (None, _) => {}
        }
    }

    /// Queues whole frames, for the drainer once it is woken.
    fn queue(&self, frames: Bytes) -> Result<MutexGuard<'_, Inner>, OutboxFull> {
        let mut inner = self.lock();
        if inner.state != State::Open {
            return Ok(inner);
        }
        let bytes = frames.len();
        let mut kind = Kind::Pushed;
        if bytes > self.bytes_max && inner.held.pushed == 0 && inner.held.answers <= WRITE_BYTES {
            kind = Kind::Answer;
        } else if inner.held.pushed + bytes > self.bytes_max {
            self.give_up(inner);
            return Err(OutboxFull);
        }
        *inner.held.of(kind) += bytes;
        inner.queue.push_back((kind, frames));
        if !self.charge(&mut inner) {
            self.give_up(inner);
            return Err(OutboxFull);
        }
        Ok(inner)
    }

    /// Counts towards the shared budget what the outbox holds beyond one write; false: the budget is exceeded.
    fn charge(&self, inner: &mut Inner) -> bool {
        let Some(budget) = &self.budget else {
            return true;
        };
        let held = inner.held.pushed + inner.held.answers + inner.presences.bytes;
        let beyond = held.saturating_sub(WRITE_BYTES);
        let is_within = budget.change(inner.charged, beyond);
        inner.charged = beyond;
        is_within || beyond == 0
    }

    /// Closes behind what is queued.
    pub fn close(&self, reason: CloseReason) {
        let inner = self.lock();
        if inner.state == State::Open {
            self.end(inner, reason);
        }
    }

    /// Closes because its reader does not read, without waiting for what is queued.
    pub fn close_slow(&self) {
        let inner = self.lock();
        if inner.state == State::Open {
            self.give_up(inner);
        }
    }

    /// Closes if what waits elsewhere to be pushed is more than it takes at once.
    pub(in crate::node) fn bear(&self, bytes: usize) {
        let inner = self.lock();
        if inner.state == State::Open && bytes > self.bytes_max {
            self.give_up(inner);
        }
    }

    /// Closes because more waits for the reader than may; what waited, it will ask for again.
    fn give_up(&self, mut inner: MutexGuard<'_, Inner>) {
        inner.queue.clear();
        inner.presences = Presences::default();
        inner.held = inner.writing;
        self.charge(&mut inner);
        self.end(inner, CloseReason::ReadsTooSlowly);
    }

    fn end(&self, mut inner: MutexGuard<'_, Inner>, reason: CloseReason) {
        inner.state = State::Closing;
        inner.presences = Presences::default();
        inner.queue.push_back((Kind::Pushed, close_frame(reason)));
        let drainer = inner.drainer.take();
        drop(inner);
        if let Some(drainer) = drainer {
            drainer.wake();
        }
        self.closing.notify_one();
        self.drained.notify_waiters();
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

    /// Waits until at most 64 KiB wait to be written, or it closes. Cancel-safe; any number of waiters.
    pub async fn drained(&self) {
        loop {
            let drained = self.drained.notified();
            {
                let inner = self.lock();
                if inner.state != State::Open || inner.held.all() <= DRAINED_BYTES {
                    return;
                }
            }
            drained.await;
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

    /// Takes what is queued, gathered for one write; what was taken before counts as written. Ends after the close frame,
    /// when it is released.
    pub fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut inner = self.lock();
        self.written(&mut inner);
        let Some((kind, first)) = inner.next_piece() else {
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
        *inner.writing.of(kind) += first.len();
        if first.len() >= WRITE_BYTES || (inner.queue.is_empty() && inner.presences.is_empty()) {
            return Poll::Ready(Some(first));
        }
        let mut gathered = BytesMut::from(first.as_ref());
        while let Some((kind, next)) = inner.next_piece() {
            if gathered.len() + next.len() > WRITE_BYTES {
                inner.queue.push_front((kind, next));
                break;
            }
            gathered.extend_from_slice(&next);
            *inner.writing.of(kind) += next.len();
        }
        Poll::Ready(Some(gathered.freeze()))
    }

    /// What was taken last is written.
    fn written(&self, inner: &mut Inner) {
        let before = inner.held.all();
        let written = std::mem::take(&mut inner.writing);
        inner.held.subtract(written);
        if before > DRAINED_BYTES {
            self.charge(inner);
            if inner.held.all() <= DRAINED_BYTES {
                self.drained.notify_waiters();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let charged = self.lock().charged;
        if let Some(budget) = &self.budget {
            budget.change(charged, 0);
        }
    }
}

impl Inner {
    /// The next piece to write: queued frames first, then presence values.
    fn next_piece(&mut self) -> Option<(Kind, Bytes)> {
        if let Some(piece) = self.queue.pop_front() {
            return Some(piece);
        }
        let value = self.presences.take()?;
        self.held.pushed += value.len();
        Some((Kind::Pushed, value))
    }
}

impl Held {
    fn of(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Pushed => &mut self.pushed,
            Kind::Answer => &mut self.answers,
            Kind::Shared => &mut self.shared,
        }
    }

    fn all(self) -> usize {
        self.pushed + self.answers + self.shared
    }

    fn subtract(&mut self, other: Self) {
        self.pushed = self.pushed.saturating_sub(other.pushed);
        self.answers = self.answers.saturating_sub(other.answers);
        self.shared = self.shared.saturating_sub(other.shared);
    }
}

impl Presences {
    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn put(&mut self, key: &PresenceKey, frame: &Bytes, bytes_max: usize) {
        if let Some(value) = self.values.get_mut(key) {
            self.bytes = self.bytes + frame.len() - value.len();
            *value = frame.clone();
        } else if self.bytes + frame.len() <= bytes_max {
            self.bytes += frame.len();
            self.order.push_back(key.clone());
            self.values.insert(key.clone(), frame.clone());
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        let key = self.order.pop_front()?;
        let value = self.values.remove(&key)?;
        self.bytes -= value.len();
        if self.order.is_empty() {
            *self = Self::default();
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn take(outbox: &Outbox) -> Poll<Option<Bytes>> {
        outbox.poll_take(&mut Context::from_waker(Waker::noop()))
    }

    /// A piece of memory that others hold too, as a snapshot's content.
    fn shared(bytes: usize) -> [Bytes; 2] {
        let piece = Bytes::from(vec![b'x'; bytes]);
        [piece.clone(), piece]
    }

    #[test]
    fn queued_frames_are_written_at_once_and_in_order() {
        let outbox = Outbox::new(100, None);
        assert_eq!(take(&outbox), Poll::Pending);
        outbox.push(Bytes::from_static(b"a")).unwrap();
        outbox.push(Bytes::from_static(b"b")).unwrap();
        assert_eq!(take(&outbox), Poll::Ready(Some(Bytes::from_static(b"ab"))));
        assert_eq!(take(&outbox), Poll::Pending);
        outbox.close(CloseReason::Normal);
        outbox.push(Bytes::from_static(b"late")).unwrap();
        assert_eq!(
            take(&outbox),
            Poll::Ready(Some(close_frame(CloseReason::Normal)))
        );
        assert_eq!(take(&outbox), Poll::Pending);
        outbox.release();
        assert_eq!(take(&outbox), Poll::Ready(None));
    }

    #[test]
    fn one_large_piece_leaves_room_for_what_follows_it() {
        let outbox = Outbox::new(10, None);
        let large = Bytes::from(vec![b'x'; 2 * WRITE_BYTES]);
        outbox.push(large.clone()).unwrap();
        outbox.push(Bytes::from_static(b"0123456789")).unwrap();
        assert_eq!(take(&outbox), Poll::Ready(Some(large.clone())));
        let small = Bytes::from_static(b"0123456789");
        assert_eq!(take(&outbox), Poll::Ready(Some(small)));
        assert_eq!(take(&outbox), Poll::Pending);
        outbox.push(large.clone()).unwrap();
        assert_eq!(take(&outbox), Poll::Ready(Some(large)));
    }

    #[test]
    fn a_frame_counts_until_it_is_written() {
        let outbox = Outbox::new(10, None);
        let large = Bytes::from(vec![b'x'; 2 * WRITE_BYTES]);
        outbox.push(large.clone()).unwrap();
        assert_eq!(take(&outbox), Poll::Ready(Some(large.clone())));
        assert_eq!(
            outbox.push(large),
            Err(OutboxFull),
            "the first is being written"
        );
    }

    #[test]
    fn a_reader_that_never_reads_is_closed_and_forgotten() {
        let outbox = Outbox::new(10, None);
        outbox
            .push(Bytes::from_static(b"one large piece is taken whole"))
            .unwrap();
        outbox.push(Bytes::from_static(b"0123456789")).unwrap();
        assert_eq!(outbox.push(Bytes::from_static(b"x")), Err(OutboxFull));
        assert!(outbox.is_closed());
        let Poll::Ready(Some(last)) = take(&outbox) else {
            panic!("a close frame")
        };
        assert_eq!(last[2..4], 1013_u16.to_be_bytes());
        assert_eq!(take(&outbox), Poll::Pending);
    }

    #[test]
    fn answers_do_not_close_and_are_waited_for() {
        let outbox = Outbox::new(10, None);
        let [kept, piece] = shared(3 * WRITE_BYTES);
        outbox.answer([Bytes::from_static(b"head"), piece]);
        outbox.push(Bytes::from_static(b"0123456789")).unwrap();
        assert!(outbox.drained().now_or_never().is_none());
        let head = Bytes::from_static(b"head");
        assert_eq!(take(&outbox), Poll::Ready(Some(head)));
        let Poll::Ready(Some(body)) = take(&outbox) else {
            panic!("the shared piece")
        };
        assert_eq!(body.as_ptr(), kept.as_ptr(), "it is not copied");
        assert!(outbox.drained().now_or_never().is_none(), "being written");
        let small = Bytes::from_static(b"0123456789");
        assert_eq!(take(&outbox), Poll::Ready(Some(small)));
        assert!(outbox.drained().now_or_never().is_some());
    }

    #[test]
    fn the_newest_value_of_a_presence_is_written_behind_the_rest() {
        let outbox = Outbox::new(1 << 20, None);
        let key = |id: &str| {
            let channel = Name::parse("ch").unwrap();
            let client = ClientId::parse("ann").unwrap();
            (channel, client, Name::parse(id).unwrap())
        };
        let value = |text: &'static str| Bytes::from_static(text.as_bytes());
        let backlog = Bytes::from(vec![b'x'; WRITE_BYTES]);
        outbox.push(backlog.clone()).unwrap();
        for text in ["[a1]", "[a2]", "[a3]"] {
            outbox.presence(&key("a"), &value(text));
        }
        outbox.presence(&key("b"), &value("[b1]"));
        outbox.push(value("commit")).unwrap();
        assert_eq!(take(&outbox), Poll::Ready(Some(backlog)));
        let rest = value("commit[a3][b1]");
        assert_eq!(take(&outbox), Poll::Ready(Some(rest)));
        // A reader that keeps up is sent each value.
        assert_eq!(take(&outbox), Poll::Pending);
        outbox.presence(&key("a"), &value("[a4]"));
        outbox.presence(&key("a"), &value("[a5]"));
        assert_eq!(take(&outbox), Poll::Ready(Some(value("[a4][a5]"))));
    }

    #[test]
    fn presences_never_close_a_reader() {
        let outbox = Outbox::new(100_000, None);
        outbox.push(Bytes::from(vec![b'x'; 50_000])).unwrap();
        let frame = Bytes::from(vec![b'p'; 8_000]);
        for n in 0..1_000 {
            let client = ClientId::parse(&format!("c{n}")).unwrap();
            let name = Name::parse("n").unwrap();
            outbox.presence(&(name.clone(), client, name), &frame);
        }
        assert!(!outbox.is_closed());
        assert!(outbox.lock().presences.bytes <= 25_000);
    }

    #[test]
    fn all_outboxes_share_a_budget() {
        let budget = Arc::new(OutboxBudget::new(3 * WRITE_BYTES));
        let outbox = |_| Outbox::new(10 * WRITE_BYTES, None).within(budget.clone());
        let outboxes: Vec<_> = (0..3).map(outbox).collect();
        let frames = Bytes::from(vec![b'x'; 3 * WRITE_BYTES]);
        outboxes[0].push(frames.clone()).unwrap();
        assert_eq!(outboxes[1].push(frames.clone()), Err(OutboxFull));
        // Readers that keep up are not closed for those that do not.
        outboxes[2].push(Bytes::from_static(b"a commit")).unwrap();
        outboxes[0].close_slow();
        let other = Outbox::new(10 * WRITE_BYTES, None).within(budget.clone());
        other.push(frames).unwrap();
        drop(other);
        assert_eq!(budget.used(), 0);
    }
}
