//! Looks at the frames of a socket as its bytes pass: how much a client announces, in how many pieces, and what has no
//! meaning.
//!
//! The WebSocket codec behind it looks at a frame's length only when the whole frame is there, and reads on while there is
//! anything to read: on its own it would hold whatever a client cares to send, and a thread would do nothing else. So bytes
//! pass in small portions, each only when all messages of the one before have been taken.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::error::PayloadError;
use actix_web::web::{Bytes, BytesMut};
use futures_util::Stream;

use crate::node::Outbox;
use crate::protocol::{CloseReason, OversizedMessage};

/// A socket's bytes, watched. After a breach nothing more passes, but all is still read: unread bytes would make the network
/// drop the close frame.
#[derive(Debug)]
pub(super) struct FrameLimiter<S> {
    bytes: S,
    watch: FrameScanner,
    /// Told of messages that are refused, and closed at a breach.
    outbox: Arc<Outbox>,
    passage: Rc<ReadGate>,
}

/// What the guard and the reader of the messages behind it tell each other.
#[derive(Debug, Default)]
pub(super) struct ReadGate {
    /// Whether the guard has ended the socket.
    is_over: Cell<bool>,
    /// Whether one more portion of bytes may pass.
    is_wanted: Cell<bool>,
    /// How many frames that do not end a message, and pieces of 1 KiB of refused messages, have passed since they were
    /// taken.
    work: Cell<u32>,
    /// Which of the data messages, counted from 1, is the broken rest of one that was refused.
    broken: Cell<Option<u64>>,
    /// How many data messages were taken.
    taken: Cell<u64>,
}

impl ReadGate {
    /// Whether the guard has ended the socket.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.get()
    }

    /// Lets one more portion of bytes pass.
    pub(super) fn want(&self) {
        self.is_wanted.set(true);
    }

    /// Whether the portion has not passed: there are no more bytes for now.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted.get()
    }

    /// A data message was taken; true: it is the rest of one that was refused.
    pub(super) fn takes_broken(&self) -> bool {
        self.taken.set(self.taken.get() + 1);
        self.broken.take_if_is(self.taken.get())
    }

    /// How many frames have passed since this was asked last, besides one for each message.
    pub(super) fn take_extra_frames(&self) -> u32 {
        self.work.take()
    }
}

trait TakeIfIs {
    fn take_if_is(&self, value: u64) -> bool;
}

impl TakeIfIs for Cell<Option<u64>> {
    fn take_if_is(&self, value: u64) -> bool {
        let is = self.get() == Some(value);
        if is {
            self.set(None);
        }
        is
    }
}

/// How large messages may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct MessageLimits {
    /// The largest message that passes.
    pub(super) bytes_max: usize,
    /// The largest that is read to its end and refused by name. A client that sends a larger one is closed with 1009.
    pub(super) refused_bytes_max: usize,
}

impl<S> FrameLimiter<S> {
    /// Lets messages within `limits` pass, refuses larger ones through `outbox`, and closes it at a breach.
    pub(super) fn new(bytes: S, limits: MessageLimits, outbox: Arc<Outbox>) -> Self {
        Self {
            bytes,
            watch: FrameScanner::new(limits),
            outbox,
            passage: Rc::default(),
        }
    }

    /// What the reader of the messages tells it, and is told.
    pub(super) fn passage(&self) -> Rc<ReadGate> {
        Rc::clone(&self.passage)
    }

    /// Lets the guard's verdict on some bytes be known; returns those that pass.
    fn pass(&mut self, bytes: &[u8]) -> Option<Bytes> {
        let mut passed = ScanOutput::default();
        let verdict = self.watch.pass(bytes, &mut passed);
        let work = &self.passage.work;
        work.set(work.get().saturating_add(passed.work));
        if passed.broken.is_some() {
            self.passage.broken.set(passed.broken);
        }
        for refusal in passed.refusals {
            // A full outbox closes itself; its session ends by that.
            let _ = self.outbox.push(refusal);
        }
        match verdict {
            Ok(()) => return Some(passed.bytes.freeze()),
            Err(FrameViolation::TooLarge) => self.outbox.close(CloseReason::MessageTooLarge),
            Err(FrameViolation::Reserved) => self.outbox.close(CloseReason::ReservedBits),
        }
        self.passage.is_over.set(true);
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
            if !this.passage.is_wanted.get() {
                // Polled again when it is: the reader asks for more only after all that there was.
                return Poll::Pending;
            }
            let bytes = match Pin::new(&mut this.bytes).poll_next(cx) {
                Poll::Ready(Some(Ok(bytes))) => bytes,
                other => return other,
            };
            if this.passage.is_over.get() {
                continue;
            }
            if let Some(passed) = this.pass(&bytes).filter(|passed| !passed.is_empty()) {
                this.passage.is_wanted.set(false);
                return Poll::Ready(Some(Ok(passed)));
            }
        }
    }
}

/// What no client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FrameViolation {
    TooLarge,
    Reserved,
}

/// What came of some bytes.
#[derive(Debug, Default)]
struct ScanOutput {
    /// Those that pass.
    bytes: BytesMut,
    /// The answers to messages that do not.
    refusals: Vec<Bytes>,
    /// Which data message is the broken rest of one that does not.
    broken: Option<u64>,
    work: u32,
}

/// Where in the stream of frames (RFC 6455, section 5.2) the bytes are.
#[derive(Debug)]
struct FrameScanner {
    /// The header that is being read. It passes when it is whole.
    header: [u8; HEADER_BYTES_MAX],
    /// How much of it has come.
    header_bytes: usize,
    frame: FrameState,
    message: MessageState,
    /// How many data messages have passed, or have begun to.
    messages: u64,
    limits: MessageLimits,
}

/// The frame that is being read.
#[derive(Debug, Default)]
struct FrameState {
    /// How much of its payload has not come.
    payload_bytes: u64,
    mask: [u8; 4],
    /// How much of its payload has come.
    offset: usize,
    is_final: bool,
    is_control: bool,
}

/// The data message that is being read, over all of its frames.
#[derive(Debug, Default)]
struct MessageState {
    bytes: u64,
    frames: u32,
    is_text: bool,
    /// Its small members, where it is refused or may still become too large.
    members: Option<OversizedMessage>,
    is_refused: bool,
    /// Whether frames of it have passed.
    has_passed: bool,
}

const HEADER_BYTES_MAX: usize = 14;

/// The most frames that one message may come in: each costs some memory until the message is whole.
const FRAMES_MAX: u32 = 1_024;

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const TEXT: u8 = 0x01;
const CONTROL: u8 = 0x08;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;

/// An empty continuation frame, the last of its message, masked with zeros.
const EMPTY_LAST: [u8; 6] = [FINAL, MASKED, 0, 0, 0, 0];

impl FrameScanner {
    fn new(limits: MessageLimits) -> Self {
        Self {
            header: [0; HEADER_BYTES_MAX],
            header_bytes: 0,
            frame: FrameState::default(),
            message: MessageState::default(),
            messages: 0,
            limits,
        }
    }

    /// Looks at bytes, and lets those pass that may.
    fn pass(&mut self, mut bytes: &[u8], passed: &mut ScanOutput) -> Result<(), FrameViolation> {
        while let Some((first, rest)) = bytes.split_first() {
            if self.frame.payload_bytes > 0 {
                let length = self.frame.payload_bytes.min(bytes.len() as u64) as usize;
                let (payload, rest) = bytes.split_at(length);
                bytes = rest;
                self.payload(payload, passed);
                if self.frame.payload_bytes == 0 {
                    self.end_frame(passed)?;
                }
                continue;
            }
            // The codec behind this one passes over them.
            let is_known = matches!(first & OPCODE, 0..=2 | 8..=10);
            if self.header_bytes == 0 && (first & RESERVED != 0 || !is_known) {
                return Err(FrameViolation::Reserved);
            }
            self.header[self.header_bytes] = *first;
            self.header_bytes += 1;
            bytes = rest;
            let size = self.header_size();
            if self.header_bytes == size {
                self.begin_frame(size)?;
                self.pass_header(size, passed);
                if self.frame.payload_bytes == 0 {
                    self.end_frame(passed)?;
                }
            }
        }
        Ok(())
    }

    /// How large the header is, as far as it is known.
    fn header_size(&self) -> usize {
        if self.header_bytes < 2 {
            return 2;
        }
        let length = match self.header[1] & LENGTH {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.header[1] & MASKED == 0 { 0 } else { 4 };
        2 + length + mask
    }

    fn begin_frame(&mut self, header_bytes: usize) -> Result<(), FrameViolation> {
        let [first, second, long @ ..] = self.header;
        let length = match second & LENGTH {
            126 => u64::from(u16::from_be_bytes([long[0], long[1]])),
            127 => u64::from_be_bytes(long[..8].try_into().expect("a header has them")),
            length => u64::from(length),
        };
        let is_masked = second & MASKED != 0;
        let mut mask = [0; 4];
        if is_masked {
            mask.copy_from_slice(&self.header[header_bytes - 4..header_bytes]);
        }
        self.header_bytes = 0;
        self.frame = FrameState {
            payload_bytes: length,
            mask,
            offset: 0,
            is_final: first & FINAL != 0,
            is_control: first & CONTROL != 0,
        };
        if self.frame.is_control {
            let is_long = length > self.limits.bytes_max as u64;
            return if is_long {
                Err(FrameViolation::TooLarge)
            } else {
                Ok(())
            };
        }
        self.begin_data_frame(first & OPCODE, length, is_masked)
    }

    fn begin_data_frame(
        &mut self,
        opcode: u8,
        length: u64,
        masked: bool,
    ) -> Result<(), FrameViolation> {
        let message = &mut self.message;
        message.is_text |= message.frames == 0 && opcode == TEXT;
        message.bytes = message.bytes.saturating_add(length);
        message.frames += 1;
        let is_large = message.bytes > self.limits.bytes_max as u64;
        let is_huge = message.bytes > self.limits.refused_bytes_max as u64;
        if is_huge || message.frames > FRAMES_MAX || (is_large && !(message.is_text && masked)) {
            return Err(FrameViolation::TooLarge);
        }
        message.is_refused |= is_large;
        if message.is_text && (is_large || !self.frame.is_final) {
            message.members.get_or_insert_default();
        }
        Ok(())
    }

    /// Whether the frame that is being read is of a message that is refused.
    fn is_refused(&self) -> bool {
        self.message.is_refused && !self.frame.is_control
    }

    fn pass_header(&mut self, size: usize, passed: &mut ScanOutput) {
        let is_piece = !self.frame.is_control && !self.frame.is_final;
        passed.work = passed.work.saturating_add(u32::from(is_piece));
        if self.is_refused() {
            return;
        }
        passed.bytes.extend_from_slice(&self.header[..size]);
        if !self.frame.is_control && !std::mem::replace(&mut self.message.has_passed, true) {
            self.messages += 1;
        }
    }

    fn payload(&mut self, payload: &[u8], passed: &mut ScanOutput) {
        let frame = &mut self.frame;
        frame.payload_bytes -= payload.len() as u64;
        if let Some(members) = self.message.members.as_mut().filter(|_| !frame.is_control) {
            let unmasked = payload.iter().zip(frame.offset..);
            let unmasked: Vec<u8> = unmasked
                .map(|(byte, at)| byte ^ frame.mask[at % 4])
                .collect();
            members.read(&unmasked);
        }
        frame.offset = frame.offset.wrapping_add(payload.len());
        if self.is_refused() {
            let kibibytes = u32::try_from(payload.len() / 1_024).unwrap_or(u32::MAX);
            passed.work = passed.work.saturating_add(kibibytes);
        } else {
            passed.bytes.extend_from_slice(payload);
        }
    }

    /// A frame is whole. A message that was refused is answered when all of it has come; what had passed of it is brought
    /// to an end.
    fn end_frame(&mut self, passed: &mut ScanOutput) -> Result<(), FrameViolation> {
        if self.frame.is_control || !self.frame.is_final {
            return Ok(());
        }
        let message = std::mem::take(&mut self.message);
        if !message.is_refused {
            return Ok(());
        }
        if message.has_passed {
            passed.bytes.extend_from_slice(&EMPTY_LAST);
            passed.broken = Some(self.messages);
        }
        let members = message.members.unwrap_or_default();
        let refusal = members.refusal(self.limits.bytes_max);
        passed
            .refusals
            .push(refusal.ok_or(FrameViolation::TooLarge)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame_of(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        let length = payload.len();
        match length {
            0..=125 => frame.push(MASKED | length as u8),
            126..=0xffff => {
                frame.push(MASKED | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                frame.push(MASKED | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        let mask = [7, 11, 13, 17];
        frame.extend_from_slice(&mask);
        let masked = payload.iter().zip(0..);
        frame.extend(masked.map(|(byte, at): (_, usize)| byte ^ mask[at % 4]));
        frame
    }

    fn frame(first: u8, length: usize) -> Vec<u8> {
        frame_of(first, &vec![b'x'; length])
    }

    const LIMITS: MessageLimits = MessageLimits {
        bytes_max: 1_000,
        refused_bytes_max: 100_000,
    };

    /// What comes of bytes, whatever pieces they come in: what passes, how many refusals there are, and which message is
    /// broken.
    fn watched(bytes: &[u8]) -> Result<(Vec<u8>, usize, Option<u64>), FrameViolation> {
        let outcomes = [1, 2, 3, 7, 1_000, usize::MAX].map(|size| {
            let mut watch = FrameScanner::new(LIMITS);
            let (mut all, mut refusals, mut broken) = (Vec::new(), 0, None);
            for piece in bytes.chunks(size.min(bytes.len().max(1))) {
                let mut passed = ScanOutput::default();
                watch.pass(piece, &mut passed)?;
                all.extend_from_slice(&passed.bytes);
                refusals += passed.refusals.len();
                broken = broken.or(passed.broken);
            }
            Ok((all, refusals, broken))
        });
        assert!(
            outcomes.iter().all(|outcome| *outcome == outcomes[0]),
            "the pieces decide"
        );
        outcomes[0].clone()
    }

    /// Whether all of it passes as it is.
    fn passes(bytes: &[u8]) -> bool {
        watched(bytes) == Ok((bytes.to_vec(), 0, None))
    }

    #[test]
    fn messages_up_to_the_bound_pass_and_no_larger_ones() {
        assert!(passes(
            &[
                frame(0x81, 0),
                frame(0x81, 125),
                frame(0x81, 126),
                frame(0x81, 1_000)
            ]
            .concat()
        ));
        assert!(!passes(&frame(0x81, 1_001)));
        let huge = [frame(0x81, 10), frame(0x81, 100_001)].concat();
        assert_eq!(watched(&huge), Err(FrameViolation::TooLarge));
        // The header alone is enough to tell.
        let mut announced = vec![0x81, MASKED | 127];
        announced.extend_from_slice(&(1_u64 << 62).to_be_bytes());
        announced.extend_from_slice(&[0; 4]);
        assert_eq!(watched(&announced), Err(FrameViolation::TooLarge));
        // Neither binary messages nor those of what is no client are read to their end.
        assert_eq!(watched(&frame(0x82, 1_001)), Err(FrameViolation::TooLarge));
        let unmasked = [vec![0x81, 126, 0x10, 0x00], vec![b' '; 0x1000]].concat();
        assert_eq!(watched(&unmasked), Err(FrameViolation::TooLarge));
    }

    fn large_op(bytes: usize) -> Vec<u8> {
        let text = "x".repeat(bytes);
        format!(r#"{{"a":"op","c":"c","d":"d","seq":1,"op":["{text}"]}}"#).into_bytes()
    }

    #[test]
    fn a_message_over_the_bound_is_read_to_its_end_and_refused() {
        let (before, after) = (frame(0x81, 10), frame(0x81, 20));
        let large = frame_of(0x81, &large_op(50_000));
        let all = [before.clone(), large, after.clone()].concat();
        let passed = [before, after].concat();
        assert_eq!(watched(&all), Ok((passed, 1, None)));
        // Without names there is nothing to answer.
        assert_eq!(watched(&frame(0x81, 50_000)), Err(FrameViolation::TooLarge));
    }

    #[test]
    fn a_message_in_pieces_that_grows_too_large_is_refused_too() {
        let op = large_op(5_000);
        let (head, rest) = op.split_at(900);
        let (middle, tail) = rest.split_at(900);
        let [first, ping] = [frame_of(0x01, head), frame(0x89, 5)];
        let other = frame(0x81, 10);
        let all = [
            other.clone(),
            first.clone(),
            frame_of(0x00, middle),
            ping.clone(),
            frame_of(0x80, tail),
            other.clone(),
        ];
        // The codec behind it has the beginning already: that is brought to an end, and passed over.
        let passed = [other.clone(), first, ping, EMPTY_LAST.to_vec(), other].concat();
        assert_eq!(watched(&all.concat()), Ok((passed, 1, Some(2))));
    }

    #[test]
    fn reserved_bits_and_opcodes_do_not_pass() {
        for first in [0x91, 0xa1, 0xc1, 0x83, 0x87, 0x8b, 0x8f] {
            assert_eq!(
                watched(&frame(first, 3)),
                Err(FrameViolation::Reserved),
                "{first}"
            );
        }
        for first in [0x81, 0x82, 0x88, 0x89, 0x8a] {
            assert!(passes(&frame(first, 3)), "{first}");
        }
    }

    #[test]
    fn a_message_in_pieces_is_one_message() {
        assert!(passes(
            &[
                frame(0x01, 500),
                frame(0x89, 5),
                frame(0x80, 500),
                frame(0x81, 1_000)
            ]
            .concat()
        ));
        let endless = |frames: usize| {
            let begin = frame(0x01, 0).into_iter();
            begin
                .chain(frame(0x00, 0).repeat(frames))
                .collect::<Vec<_>>()
        };
        assert!(passes(&endless(1_023)));
        let mut passed = ScanOutput::default();
        let pieces = [
            frame(0x81, 5),
            frame(0x01, 5),
            frame(0x00, 5),
            frame(0x80, 5),
        ]
        .concat();
        assert_eq!(FrameScanner::new(LIMITS).pass(&pieces, &mut passed), Ok(()));
        assert_eq!(passed.work, 2, "a message counts by itself");
        assert_eq!(watched(&endless(1_024)), Err(FrameViolation::TooLarge));
    }
}
