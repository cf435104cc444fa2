//! The frames that wait to be written to one socket.

mod pending_presences;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use self::pending_presences::{PendingPresences, PresenceKey};
use super::encoder::FrameEncoder;
use super::outbox_budget::OutboxBudget;
use super::probe::DeliveryProbe;
use super::wake_queue::{WakeBatch, WakeQueue};
use crate::protocol::CloseReason;
use crate::store::History;
use crate::sync::lock;

/// The frames that wait to be written to one socket: whole WebSocket frames, in order, up to a bound.
///
/// There are three kinds:
/// - *Pushed* frames (commits, acknowledgements): if more than `bytes_max` of them wait, the socket is closed with 1013. Its
///   client reconnects with its revision and is sent the commits after it.
/// - *Replies* to a read: the client asked for them, so they do not close the socket, whatever their size. A catch-up waits
///   until the pages before are [written](Self::drained).
/// - *Presence* values: a newer value replaces an older value of the same presence that is not written yet.
///
/// A frame counts until it is written to the connection, not until it is taken from the queue. Any thread may push; one task,
/// the writer, takes.
#[derive(Debug)]
pub struct Outbox {
    /// Locked to queue frames or to take them.
    state: Mutex<OutboxState>,
    /// Notified when the outbox closes.
    closing: Notify,
    /// Notified when at most [`DRAINED_BYTES`] wait to be written, or the outbox closes.
    drained: Notify,
    /// Wakes the tasks of the writer's thread. Without one, the writer is woken directly.
    wake_queue: Option<WakeQueue>,
    bytes_max: usize,
    /// Shared by all outboxes of the node.
    budget: Option<Arc<OutboxBudget>>,
    encoder: &'static dyn FrameEncoder,
    history: History,
}

#[derive(Debug, Default)]
struct OutboxState {
    queue: VecDeque<(FrameKind, Bytes)>,
    /// Queued and not yet written.
    waiting: WaitingBytes,
    /// Taken from the queue and not yet written; a part of `waiting`.
    writing: WaitingBytes,
    presences: PendingPresences,
    /// The bytes that are counted in the shared budget.
    charged: usize,
    phase: OutboxPhase,
    close_reason: Option<CloseReason>,
    /// The waker of the writer, if it waits for frames.
    writer: Option<Waker>,
    probe: Option<Box<DeliveryProbe>>,
}

/// The bytes of each kind.
#[derive(Debug, Default, Clone, Copy)]
struct WaitingBytes {
    pushed: usize,
    replies: usize,
    /// Memory that is shared with other sockets and counted by the node's snapshot budget.
    shared: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FrameKind {
    Pushed,
    Reply,
    Shared,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum OutboxPhase {
    #[default]
    Open,
    /// Further frames are dropped. The queued ones are still written; the last is a close frame.
    Closing,
    /// The connection may be ended: the peer answered the close frame, or did not in time.
    Released,
}

/// The outbox was full, and has been closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxFull;

/// The most bytes that are collected for one write.
const WRITE_BYTES: usize = 64 << 10;

/// An outbox with at most this many bytes counts as drained.
const DRAINED_BYTES: usize = WRITE_BYTES;

/// While more than this many bytes wait to be written, only the newest value of each presence waits behind them.
const PRESENCE_DIRECT_BYTES: usize = 16 << 10;

/// A piece of a reply of at least this size is not copied: sockets share it.
const SHARED_BYTES_MIN: usize = 4 << 10;

impl Outbox {
    /// An empty outbox for at most `bytes_max` bytes of pushed frames.
    #[must_use]
    pub fn new(
        bytes_max: usize,
        encoder: &'static dyn FrameEncoder,
        wake_queue: Option<WakeQueue>,
    ) -> Self {
        Self {
            state: Mutex::default(),
            closing: Notify::new(),
            drained: Notify::new(),
            wake_queue,
            bytes_max,
            budget: None,
            encoder,
            history: History::default(),
        }
    }

    /// The same outbox, counted in the budget of the node.
    #[must_use]
    pub fn with_budget(mut self, budget: Arc<OutboxBudget>) -> Self {
        self.budget = Some(budget);
        self
    }

    /// The same outbox, for a socket that was opened in this history of the log.
    #[must_use]
    pub fn with_history(mut self, history: History) -> Self {
        self.history = history;
        self
    }

    /// The history of the log in which its socket was opened. Documents of another history do not serve it.
    #[must_use]
    pub fn history(&self) -> History {
        self.history
    }

    /// Queues whole frames. A closed outbox drops them.
    ///
    /// One piece that is larger than the bound is taken if no other pushed frames wait: its size does not mean that the
    /// client reads slowly.
    ///
    /// # Errors
    /// If the outbox was full. It is closed then.
    pub fn push(&self, frames: Bytes) -> Result<(), OutboxFull> {
        let writer = self.queue(frames)?.writer.take();
        writer.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Queues the reply to a read: whole frames in pieces, in order. Does not close the outbox, whatever the size.
    pub fn push_reply(&self, pieces: impl IntoIterator<Item = Bytes>) {
        let mut state = lock(&self.state);
        if state.phase != OutboxPhase::Open {
            return;
        }
        for piece in pieces {
            let is_shared = piece.len() >= SHARED_BYTES_MIN && !piece.is_unique();
            let kind = if is_shared {
                FrameKind::Shared
            } else {
                FrameKind::Reply
            };
            *state.waiting.of(kind) += piece.len();
            state.queue.push_back((kind, piece));
        }
        self.charge(&mut state);
        wake_writer(state);
    }

    /// Queues a presence value. While other frames wait, a newer value replaces an older value of the same presence; if the
    /// values take more than a quarter of the outbox's bound, those of further presences are dropped.
    pub(in crate::node) fn push_presence(&self, key: &PresenceKey, frame: &Bytes) {
        let mut state = lock(&self.state);
        if state.phase != OutboxPhase::Open {
            return;
        }
        if state.presences.is_empty() && state.waiting.all() <= PRESENCE_DIRECT_BYTES {
            drop(state);
            // A full outbox closes itself, which ends its session.
            let _ = self.push(frame.clone());
            return;
        }
        state.presences.put(key, frame, self.bytes_max / 4);
        self.charge(&mut state);
        wake_writer(state);
    }

    /// Queues whole frames like [`push`](Self::push), but does not wake the writer unless they fill a write. Returns true if
    /// the caller must wake it by [`wake_with`](Self::wake_with); false if it is awake or another caller will wake it.
    ///
    /// # Errors
    /// If the outbox was full. It is closed then.
    pub(in crate::node) fn push_deferred(&self, frames: Bytes) -> Result<bool, OutboxFull> {
        let mut state = self.queue(frames)?;
        let fills_write = state.waiting.all() >= WRITE_BYTES;
        let writer = state.writer.take_if(|_| fills_write);
        let must_wake = state.writer.is_some() && state.queue.len() == 1;
        drop(state);
        writer.into_iter().for_each(Waker::wake);
        Ok(must_wake)
    }

    /// Measures how long the frames that are queued now take to be written, unless a measurement is under way.
    pub(in crate::node) fn measure(&self, probe: DeliveryProbe) {
        let mut state = lock(&self.state);
        if state.waiting.all() > 0 {
            state.probe.get_or_insert_with(|| Box::new(probe));
        }
    }

    /// Wakes the writer, if it waits, together with the others in the batch.
    pub(in crate::node) fn wake_with(&self, batch: &mut WakeBatch) {
        let writer = lock(&self.state).writer.take();
        match (writer, &self.wake_queue) {
            (Some(writer), Some(queue)) => batch.add(queue, writer),
            (Some(writer), None) => writer.wake(),
            (None, _) => {}
        }
    }

    /// Closes the socket behind the queued frames.
    pub fn close(&self, reason: CloseReason) {
        let state = lock(&self.state);
        if state.phase == OutboxPhase::Open {
            self.begin_closing(state, reason);
        }
    }

    /// Closes the socket without writing what is queued, because its client does not read.
    pub fn close_slow(&self) {
        let state = lock(&self.state);
        if state.phase == OutboxPhase::Open {
            self.close_full(state);
        }
    }

    /// Closes the socket if more than its bound of frames waits elsewhere to be pushed.
    pub(in crate::node) fn close_if_over(&self, bytes: usize) {
        let state = lock(&self.state);
        if state.phase == OutboxPhase::Open && bytes > self.bytes_max {
            self.close_full(state);
        }
    }

    /// Why the outbox was closed; `None` if it is open.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        lock(&self.state).close_reason
    }

    /// Returns true if further frames are dropped.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        lock(&self.state).phase != OutboxPhase::Open
    }

    /// Waits until it closes. One waiter at a time.
    pub async fn closed(&self) {
        if !self.is_closed() {
            self.closing.notified().await;
        }
    }

    /// Waits until at most 64 KiB wait to be written, or it closes. Cancel-safe, for any number of waiters.
    pub async fn drained(&self) {
        loop {
            let drained = self.drained.notified();
            {
                let state = lock(&self.state);
                if state.phase != OutboxPhase::Open || state.waiting.all() <= DRAINED_BYTES {
                    return;
                }
            }
            drained.await;
        }
    }

    /// Ends the connection after the close frame: the peer has answered it, or will not. If the connection ended earlier, with
    /// frames of the peer unread, it would be reset and the close frame lost.
    pub fn release(&self) {
        let mut state = lock(&self.state);
        state.phase = OutboxPhase::Released;
        wake_writer(state);
    }

    /// Takes queued frames for one write; those taken before count as written. Ends after the close frame, once it is
    /// [released](Self::release).
    pub fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = lock(&self.state);
        self.count_written(&mut state);
        let Some((kind, first)) = state.next_piece() else {
            if state.phase == OutboxPhase::Released {
                return Poll::Ready(None);
            }
            let writer = state.writer.as_ref();
            if !writer.is_some_and(|writer| writer.will_wake(cx.waker())) {
                state.writer = Some(cx.waker().clone());
            }
            // An idle socket does not keep the memory of a burst.
            state.queue.shrink_to(4);
            return Poll::Pending;
        };
        *state.writing.of(kind) += first.len();
        if first.len() >= WRITE_BYTES || (state.queue.is_empty() && state.presences.is_empty()) {
            state.probe_taken();
            return Poll::Ready(Some(first));
        }
        let mut write = BytesMut::from(first.as_ref());
        while let Some((kind, next)) = state.next_piece() {
            if write.len() + next.len() > WRITE_BYTES {
                state.queue.push_front((kind, next));
                break;
            }
            write.extend_from_slice(&next);
            *state.writing.of(kind) += next.len();
        }
        state.probe_taken();
        Poll::Ready(Some(write.freeze()))
    }

    /// Queues whole frames without waking the writer.
    fn queue(&self, frames: Bytes) -> Result<MutexGuard<'_, OutboxState>, OutboxFull> {
        let mut state = lock(&self.state);
        if state.phase != OutboxPhase::Open {
            return Ok(state);
        }
        let bytes = frames.len();
        let is_alone = state.waiting.pushed == 0 && state.waiting.replies <= WRITE_BYTES;
        let mut kind = FrameKind::Pushed;
        if bytes > self.bytes_max && is_alone {
            kind = FrameKind::Reply;
        } else if state.waiting.pushed + bytes > self.bytes_max {
            self.close_full(state);
            return Err(OutboxFull);
        }
        *state.waiting.of(kind) += bytes;
        state.queue.push_back((kind, frames));
        if !self.charge(&mut state) {
            self.close_full(state);
            return Err(OutboxFull);
        }
        Ok(state)
    }

    /// Counts in the shared budget what waits beyond one write. Returns false if the budget is exceeded.
    fn charge(&self, state: &mut OutboxState) -> bool {
        let Some(budget) = &self.budget else {
            return true;
        };
        let waiting = state.waiting.pushed + state.waiting.replies + state.presences.bytes();
        let beyond = waiting.saturating_sub(WRITE_BYTES);
        let is_within = budget.change(state.charged, beyond);
        state.charged = beyond;
        is_within || beyond == 0
    }

    /// Drops what waits, and closes. The client asks again for what it missed.
    fn close_full(&self, mut state: MutexGuard<'_, OutboxState>) {
        state.queue.clear();
        state.presences = PendingPresences::default();
        state.waiting = state.writing;
        self.charge(&mut state);
        self.begin_closing(state, CloseReason::ReadsTooSlowly);
    }

    fn begin_closing(&self, mut state: MutexGuard<'_, OutboxState>, reason: CloseReason) {
        state.phase = OutboxPhase::Closing;
        state.close_reason = Some(reason);
        state.presences = PendingPresences::default();
        let frame = self.encoder.close(reason);
        state.queue.push_back((FrameKind::Pushed, frame));
        wake_writer(state);
        self.closing.notify_one();
        self.drained.notify_waiters();
    }

    /// Counts what was taken last as written.
    fn count_written(&self, state: &mut OutboxState) {
        let before = state.waiting.all();
        let written = std::mem::take(&mut state.writing);
        state.waiting.subtract(written);
        state.probe.take_if(|probe| probe.written());
        if before > DRAINED_BYTES {
            self.charge(state);
            if state.waiting.all() <= DRAINED_BYTES {
                self.drained.notify_waiters();
            }
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let charged = lock(&self.state).charged;
        if let Some(budget) = &self.budget {
            budget.change(charged, 0);
        }
    }
}

/// Wakes the writer, if it waits, after the lock is released.
fn wake_writer(mut state: MutexGuard<'_, OutboxState>) {
    let writer = state.writer.take();
    drop(state);
    writer.into_iter().for_each(Waker::wake);
}

impl OutboxState {
    /// Tells the measurement, if there is one, that all frames have been taken, if they have.
    fn probe_taken(&mut self) {
        if let Some(probe) = self.probe.as_mut().filter(|_| self.queue.is_empty()) {
            probe.taken();
        }
    }

    /// The next piece to write: queued frames first, then pending presence values.
    fn next_piece(&mut self) -> Option<(FrameKind, Bytes)> {
        if let Some(piece) = self.queue.pop_front() {
            return Some(piece);
        }
        let value = self.presences.take()?;
        self.waiting.pushed += value.len();
        Some((FrameKind::Pushed, value))
    }
}

impl WaitingBytes {
    fn of(&mut self, kind: FrameKind) -> &mut usize {
        match kind {
            FrameKind::Pushed => &mut self.pushed,
            FrameKind::Reply => &mut self.replies,
            FrameKind::Shared => &mut self.shared,
        }
    }

    fn all(self) -> usize {
        self.pushed + self.replies + self.shared
    }

    fn subtract(&mut self, other: Self) {
        self.pushed = self.pushed.saturating_sub(other.pushed);
        self.replies = self.replies.saturating_sub(other.replies);
        self.shared = self.shared.saturating_sub(other.shared);
    }
}

#[cfg(test)]
mod tests;
