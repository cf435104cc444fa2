//! Looks at the frame headers of a socket as its bytes pass, and ends it where a client announces more than it may send, or
//! what has no meaning.
//!
//! The WebSocket codec behind it looks at a frame's length only when the whole frame is there, and gathers until then: on
//! its own it would hold whatever a client cares to announce.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::error::PayloadError;
use actix_web::web::Bytes;
use futures_util::Stream;

use crate::node::Outbox;

/// A socket's bytes, watched. After a message that is too large nothing more passes, but all is still read: bytes that
/// nobody reads would make the network drop the close frame.
#[derive(Debug)]
pub(super) struct Guard<S> {
    bytes: S,
    watch: Watch,
    /// Closed where a client announces too much.
    outbox: Arc<Outbox>,
    /// Whether it has.
    is_over: Rc<Cell<bool>>,
}

impl<S> Guard<S> {
    /// Lets messages of at most so many bytes pass, and closes `outbox` at the first that is larger.
    pub(super) fn new(bytes: S, message_bytes_max: usize, outbox: Arc<Outbox>) -> Self {
        Self {
            bytes,
            watch: Watch::new(message_bytes_max as u64),
            outbox,
            is_over: Rc::default(),
        }
    }

    /// Whether it has ended the socket, now and later.
    pub(super) fn is_over(&self) -> Rc<Cell<bool>> {
        Rc::clone(&self.is_over)
    }
}

impl<S> Stream for Guard<S>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let bytes = match Pin::new(&mut this.bytes).poll_next(cx) {
                Poll::Ready(Some(Ok(bytes))) => bytes,
                other => return other,
            };
            if this.is_over.get() {
                continue;
            }
            match this.watch.pass(&bytes) {
                Ok(()) => return Poll::Ready(Some(Ok(bytes))),
                Err(Breach::TooLarge) => this.outbox.close(1009, "the message is too large"),
                Err(Breach::Reserved) => this.outbox.close(1002, "a reserved bit or opcode"),
            }
            this.is_over.set(true);
        }
    }
}

/// What no client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Breach {
    TooLarge,
    Reserved,
}

/// Where in the stream of frames (RFC 6455, section 5.2) the bytes are.
#[derive(Debug)]
struct Watch {
    /// The header that is being read.
    header: [u8; HEADER_BYTES_MAX],
    /// How much of it has come.
    header_bytes: usize,
    /// How much of the frame's payload has not come.
    payload_bytes: u64,
    /// How large the message is that is being read, over all of its frames.
    message_bytes: u64,
    /// How many frames it has.
    frames: u32,
    message_bytes_max: u64,
}

const HEADER_BYTES_MAX: usize = 14;

/// The most frames that one message may come in: each costs some memory until the message is whole.
const FRAMES_MAX: u32 = 1_024;

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const CONTROL: u8 = 0x08;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;

impl Watch {
    fn new(message_bytes_max: u64) -> Self {
        Self {
            header: [0; HEADER_BYTES_MAX],
            header_bytes: 0,
            payload_bytes: 0,
            message_bytes: 0,
            frames: 0,
            message_bytes_max,
        }
    }

    /// Looks at bytes.
    fn pass(&mut self, mut bytes: &[u8]) -> Result<(), Breach> {
        while let Some((first, rest)) = bytes.split_first() {
            if self.payload_bytes > 0 {
                let passed = self.payload_bytes.min(bytes.len() as u64);
                self.payload_bytes -= passed;
                bytes = &bytes[passed as usize..];
                continue;
            }
            // The codec behind this one passes over them.
            let is_known = matches!(first & OPCODE, 0..=2 | 8..=10);
            if self.header_bytes == 0 && (first & RESERVED != 0 || !is_known) {
                return Err(Breach::Reserved);
            }
            self.header[self.header_bytes] = *first;
            self.header_bytes += 1;
            bytes = rest;
            if self.header_bytes == self.header_size() {
                self.begin_frame()?;
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

    fn begin_frame(&mut self) -> Result<(), Breach> {
        let [first, second, long @ ..] = self.header;
        let length = match second & LENGTH {
            126 => u64::from(u16::from_be_bytes([long[0], long[1]])),
            127 => u64::from_be_bytes(long[..8].try_into().expect("a header has them")),
            length => u64::from(length),
        };
        self.header_bytes = 0;
        self.payload_bytes = length;
        if first & CONTROL == 0 {
            self.message_bytes = self.message_bytes.saturating_add(length);
            self.frames += 1;
        }
        if length > self.message_bytes_max
            || self.message_bytes > self.message_bytes_max
            || self.frames > FRAMES_MAX
        {
            return Err(Breach::TooLarge);
        }
        if first & (FINAL | CONTROL) == FINAL {
            self.message_bytes = 0;
            self.frames = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![first];
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
        frame.extend_from_slice(&[0; 4]);
        frame.resize(frame.len() + length, b'x');
        frame
    }

    /// Whether it all passes, whatever pieces it comes in.
    fn passes(bytes: &[u8]) -> bool {
        watched(bytes).is_ok()
    }

    fn watched(bytes: &[u8]) -> Result<(), Breach> {
        let outcomes = [1, 2, 3, 7, 1_000, usize::MAX].map(|size| {
            let mut watch = Watch::new(1_000);
            bytes
                .chunks(size.min(bytes.len().max(1)))
                .try_for_each(|piece| watch.pass(piece))
        });
        assert!(
            outcomes.iter().all(|outcome| *outcome == outcomes[0]),
            "the pieces decide"
        );
        outcomes[0]
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
        assert!(!passes(&[frame(0x81, 10), frame(0x81, 70_000)].concat()));
        // The header alone is enough to tell.
        let mut announced = vec![0x81, MASKED | 127];
        announced.extend_from_slice(&(1_u64 << 62).to_be_bytes());
        announced.extend_from_slice(&[0; 4]);
        assert!(!passes(&announced));
    }

    #[test]
    fn reserved_bits_and_opcodes_do_not_pass() {
        for first in [0x91, 0xa1, 0xc1, 0x83, 0x87, 0x8b, 0x8f] {
            assert_eq!(watched(&frame(first, 3)), Err(Breach::Reserved), "{first}");
        }
        for first in [0x81, 0x82, 0x88, 0x89, 0x8a] {
            assert_eq!(watched(&frame(first, 3)), Ok(()), "{first}");
        }
    }

    #[test]
    fn a_message_in_pieces_is_one_message() {
        let piece = |first, length| frame(first, length);
        assert!(passes(
            &[
                piece(0x01, 500),
                piece(0x89, 5),
                piece(0x80, 500),
                piece(0x81, 1_000)
            ]
            .concat()
        ));
        assert!(!passes(
            &[piece(0x01, 500), piece(0x00, 500), piece(0x80, 1)].concat()
        ));
        let endless = |frames: usize| {
            piece(0x01, 0)
                .into_iter()
                .chain(piece(0x00, 0).repeat(frames))
                .collect::<Vec<_>>()
        };
        assert!(passes(&endless(1_023)));
        assert!(!passes(&endless(1_024)));
    }
}
