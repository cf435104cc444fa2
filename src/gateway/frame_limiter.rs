//! Limits the frames of a WebSocket before the codec reads them: the size of messages, the number of frames of a message, and
//! reserved bits and opcodes.
//!
//! The codec behind it checks the length of a frame only when the whole frame has arrived, and reads for as long as there
//! are bytes. On its own it would buffer whatever a client sends, and keep its thread busy. So bytes pass in small portions,
//! each only when all messages of the portion before have been taken.

mod scanner;

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::error::PayloadError;
use actix_web::web::Bytes;
use futures_util::Stream;

use self::scanner::{FrameScanner, FrameViolation, ScanOutput};
use crate::node::Outbox;
use crate::protocol::CloseReason;

/// The bytes of a socket, with messages that are too large left out. After a violation no more bytes pass, but all are still
/// read: unread bytes would make the network drop the close frame.
#[derive(Debug)]
pub(super) struct FrameLimiter<S> {
    bytes: S,
    scanner: FrameScanner,
    /// Gets the errors for rejected messages, and is closed after a violation.
    outbox: Arc<Outbox>,
    gate: Rc<ReadGate>,
}

/// How large messages may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct MessageLimits {
    /// The size of the largest message that passes.
    pub(super) bytes_max: usize,
    /// The size of the largest message that is read to its end and rejected with an error. A larger one closes the socket.
    pub(super) refused_bytes_max: usize,
}

/// The state that the limiter shares with the reader of the messages.
#[derive(Debug, Default)]
pub(super) struct ReadGate {
    /// Whether the limiter has closed the socket.
    is_closed: Cell<bool>,
    /// Whether one more portion of bytes may pass.
    is_open: Cell<bool>,
    /// See [`take_extra_frames`](Self::take_extra_frames).
    extra_frames: Cell<u32>,
    /// The number of the data message, counted from 1, of which a part passed before it was rejected.
    rejected: Cell<Option<u64>>,
    /// How many data messages the reader has taken.
    taken: Cell<u64>,
}

impl ReadGate {
    /// Whether the limiter has closed the socket.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// Lets one more portion of bytes pass.
    pub(super) fn open(&self) {
        self.is_open.set(true);
    }

    /// Whether no bytes have passed since [`open`](Self::open).
    pub(super) fn is_open(&self) -> bool {
        self.is_open.get()
    }

    /// Counts a data message that the reader has taken. Returns true if it is the rest of a rejected one.
    pub(super) fn is_rest_of_rejected(&self) -> bool {
        self.taken.set(self.taken.get() + 1);
        let is_rest = self.rejected.get() == Some(self.taken.get());
        if is_rest {
            self.rejected.set(None);
        }
        is_rest
    }

    /// How many frames have arrived since the last call that do not end a message, and how many KiB of rejected messages.
    pub(super) fn take_extra_frames(&self) -> u32 {
        self.extra_frames.take()
    }
}

impl<S> FrameLimiter<S> {
    /// Rejects larger messages than `limits` allow with an error in `outbox`, and closes it after a violation.
    pub(super) fn new(bytes: S, limits: MessageLimits, outbox: Arc<Outbox>) -> Self {
        Self {
            bytes,
            scanner: FrameScanner::new(limits),
            outbox,
            gate: Rc::default(),
        }
    }

    /// The state shared with the reader of the messages.
    pub(super) fn gate(&self) -> Rc<ReadGate> {
        Rc::clone(&self.gate)
    }

    /// Scans bytes. Returns those that pass; `None` after a violation.
    fn scan(&mut self, bytes: &[u8]) -> Option<Bytes> {
        let mut output = ScanOutput::default();
        let scanned = self.scanner.scan(bytes, &mut output);
        let extra_frames = &self.gate.extra_frames;
        extra_frames.set(extra_frames.get().saturating_add(output.extra_frames));
        if output.rejected.is_some() {
            self.gate.rejected.set(output.rejected);
        }
        for error in output.errors {
            // A full outbox closes itself, which ends the session.
            let _ = self.outbox.push(error);
        }
        match scanned {
            Ok(()) => return Some(output.bytes.freeze()),
            Err(FrameViolation::TooLarge) => self.outbox.close(CloseReason::MessageTooLarge),
            Err(FrameViolation::Reserved) => self.outbox.close(CloseReason::ReservedBits),
        }
        self.gate.is_closed.set(true);
        None
    }
}

impl<S> Stream for FrameLimiter<S>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if !this.gate.is_open() {
                // The reader polls again after it has opened the gate.
                return Poll::Pending;
            }
            let bytes = match Pin::new(&mut this.bytes).poll_next(cx) {
                Poll::Ready(Some(Ok(bytes))) => bytes,
                other => return other,
            };
            if this.gate.is_closed() {
                continue;
            }
            if let Some(passed) = this.scan(&bytes).filter(|passed| !passed.is_empty()) {
                this.gate.is_open.set(false);
                return Poll::Ready(Some(Ok(passed)));
            }
        }
    }
}
