//! Follows the frames (RFC 6455, section 5.2) in the bytes of a socket.

use actix_web::web::{Bytes, BytesMut};

use super::MessageLimits;
use crate::protocol::OversizedMessage;

/// What no client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameViolation {
    /// A message larger than `refused_bytes_max`, of too many frames, or too large and not answerable.
    TooLarge,
    /// A reserved bit or opcode.
    Reserved,
}

/// The result of scanning some bytes.
#[derive(Debug, Default)]
pub(super) struct ScanOutput {
    /// The bytes that pass.
    pub(super) bytes: BytesMut,
    /// The frames that answer rejected messages.
    pub(super) errors: Vec<Bytes>,
    /// The number of the data message, counted from 1, of which a part passed before it was rejected.
    pub(super) rejected: Option<u64>,
    /// How many frames there were that do not end a message, and how many KiB of rejected messages.
    pub(super) extra_frames: u32,
}

/// Decides which bytes of a socket pass. Pure.
#[derive(Debug)]
pub(super) struct FrameScanner {
    /// The header that is being read. It passes when it is complete.
    header: [u8; HEADER_BYTES_MAX],
    /// How many bytes of it have arrived.
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
    /// How many bytes of its payload have not arrived.
    payload_bytes: u64,
    mask: [u8; 4],
    /// How many bytes of its payload have arrived.
    offset: usize,
    is_final: bool,
    is_control: bool,
}

/// The data message that is being read, with all of its frames.
#[derive(Debug, Default)]
struct MessageState {
    bytes: u64,
    frames: u32,
    is_text: bool,
    /// Its small members, if it is rejected or may still become too large.
    members: Option<OversizedMessage>,
    is_rejected: bool,
    /// Whether frames of it have passed.
    has_passed: bool,
}

/// The size of the longest header: two bytes, a length of eight, a mask of four.
const HEADER_BYTES_MAX: usize = 14;

/// The most frames of one message: each takes some memory until the message is complete.
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
    pub(super) fn new(limits: MessageLimits) -> Self {
        Self {
            header: [0; HEADER_BYTES_MAX],
            header_bytes: 0,
            frame: FrameState::default(),
            message: MessageState::default(),
            messages: 0,
            limits,
        }
    }

    /// Scans bytes, and adds those that pass to `output`.
    ///
    /// # Errors
    /// If the client has sent what it may not: the socket must be closed.
    pub(super) fn scan(
        &mut self,
        mut bytes: &[u8],
        output: &mut ScanOutput,
    ) -> Result<(), FrameViolation> {
        while let Some((first, rest)) = bytes.split_first() {
            // The payload of the current frame.
            if self.frame.payload_bytes > 0 {
                let length = self.frame.payload_bytes.min(bytes.len() as u64) as usize;
                let (payload, rest) = bytes.split_at(length);
                bytes = rest;
                self.scan_payload(payload, output);
                if self.frame.payload_bytes == 0 {
                    self.end_frame(output)?;
                }
                continue;
            }
            // The header of the next one. The codec ignores reserved bits, so they are checked here.
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
                self.pass_header(size, output);
                if self.frame.payload_bytes == 0 {
                    self.end_frame(output)?;
                }
            }
        }
        Ok(())
    }

    /// The size of the header, as far as it is known.
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
        if !self.frame.is_control {
            return self.begin_data_frame(first & OPCODE, length, is_masked);
        }
        if length > self.limits.bytes_max as u64 {
            return Err(FrameViolation::TooLarge);
        }
        Ok(())
    }

    fn begin_data_frame(
        &mut self,
        opcode: u8,
        length: u64,
        is_masked: bool,
    ) -> Result<(), FrameViolation> {
        let message = &mut self.message;
        message.is_text |= message.frames == 0 && opcode == TEXT;
        message.bytes = message.bytes.saturating_add(length);
        message.frames += 1;
        let is_large = message.bytes > self.limits.bytes_max as u64;
        let is_huge = message.bytes > self.limits.refused_bytes_max as u64;
        let is_answerable = message.is_text && is_masked;
        if is_huge || message.frames > FRAMES_MAX || (is_large && !is_answerable) {
            return Err(FrameViolation::TooLarge);
        }
        message.is_rejected |= is_large;
        if message.is_text && (is_large || !self.frame.is_final) {
            message.members.get_or_insert_default();
        }
        Ok(())
    }

    /// Whether the current frame belongs to a rejected message.
    fn is_rejected(&self) -> bool {
        self.message.is_rejected && !self.frame.is_control
    }

    fn pass_header(&mut self, size: usize, output: &mut ScanOutput) {
        let ends_nothing = !self.frame.is_control && !self.frame.is_final;
        output.extra_frames = output.extra_frames.saturating_add(u32::from(ends_nothing));
        if self.is_rejected() {
            return;
        }
        output.bytes.extend_from_slice(&self.header[..size]);
        if !self.frame.is_control && !std::mem::replace(&mut self.message.has_passed, true) {
            self.messages += 1;
        }
    }

    fn scan_payload(&mut self, payload: &[u8], output: &mut ScanOutput) {
        let frame = &mut self.frame;
        frame.payload_bytes -= payload.len() as u64;
        if let Some(members) = self.message.members.as_mut().filter(|_| !frame.is_control) {
            let masked = payload.iter().zip(frame.offset..);
            let unmasked: Vec<u8> = masked.map(|(byte, at)| byte ^ frame.mask[at % 4]).collect();
            members.read(&unmasked);
        }
        frame.offset = frame.offset.wrapping_add(payload.len());
        if self.is_rejected() {
            let kibibytes = u32::try_from(payload.len() / 1_024).unwrap_or(u32::MAX);
            output.extra_frames = output.extra_frames.saturating_add(kibibytes);
        } else {
            output.bytes.extend_from_slice(payload);
        }
    }

    /// Ends the current frame. A rejected message is answered when it has arrived as a whole; the part of it that has passed
    /// is ended by an empty frame.
    fn end_frame(&mut self, output: &mut ScanOutput) -> Result<(), FrameViolation> {
        if self.frame.is_control || !self.frame.is_final {
            return Ok(());
        }
        let message = std::mem::take(&mut self.message);
        if !message.is_rejected {
            return Ok(());
        }
        if message.has_passed {
            output.bytes.extend_from_slice(&EMPTY_LAST);
            output.rejected = Some(self.messages);
        }
        let members = message.members.unwrap_or_default();
        let error = members.error_frame(self.limits.bytes_max);
        output.errors.push(error.ok_or(FrameViolation::TooLarge)?);
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

    /// Scans bytes in pieces of different sizes. Returns what passes, the number of errors, and which message was rejected
    /// after a part of it had passed.
    fn scanned(bytes: &[u8]) -> Result<(Vec<u8>, usize, Option<u64>), FrameViolation> {
        let outcomes = [1, 2, 3, 7, 1_000, usize::MAX].map(|size| {
            let mut scanner = FrameScanner::new(LIMITS);
            let (mut all, mut errors, mut rejected) = (Vec::new(), 0, None);
            for piece in bytes.chunks(size.min(bytes.len().max(1))) {
                let mut output = ScanOutput::default();
                scanner.scan(piece, &mut output)?;
                all.extend_from_slice(&output.bytes);
                errors += output.errors.len();
                rejected = rejected.or(output.rejected);
            }
            Ok((all, errors, rejected))
        });
        assert!(
            outcomes.iter().all(|outcome| *outcome == outcomes[0]),
            "the result depends on the pieces"
        );
        outcomes[0].clone()
    }

    /// Whether all bytes pass unchanged.
    fn passes(bytes: &[u8]) -> bool {
        scanned(bytes) == Ok((bytes.to_vec(), 0, None))
    }

    #[test]
    fn messages_up_to_the_limit_pass() {
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
        assert_eq!(scanned(&huge), Err(FrameViolation::TooLarge));
        // The header is sufficient.
        let mut announced = vec![0x81, MASKED | 127];
        announced.extend_from_slice(&(1_u64 << 62).to_be_bytes());
        announced.extend_from_slice(&[0; 4]);
        assert_eq!(scanned(&announced), Err(FrameViolation::TooLarge));
        // Binary and unmasked messages are not read to their end.
        assert_eq!(scanned(&frame(0x82, 1_001)), Err(FrameViolation::TooLarge));
        let unmasked = [vec![0x81, 126, 0x10, 0x00], vec![b' '; 0x1000]].concat();
        assert_eq!(scanned(&unmasked), Err(FrameViolation::TooLarge));
    }

    fn large_op(bytes: usize) -> Vec<u8> {
        let text = "x".repeat(bytes);
        format!(r#"{{"a":"op","c":"c","d":"d","seq":1,"op":["{text}"]}}"#).into_bytes()
    }

    #[test]
    fn message_over_the_limit_is_read_to_its_end_and_rejected() {
        let (before, after) = (frame(0x81, 10), frame(0x81, 20));
        let large = frame_of(0x81, &large_op(50_000));
        let all = [before.clone(), large, after.clone()].concat();
        let passed = [before, after].concat();
        assert_eq!(scanned(&all), Ok((passed, 1, None)));
        // Without its members a message cannot be answered.
        assert_eq!(scanned(&frame(0x81, 50_000)), Err(FrameViolation::TooLarge));
    }

    #[test]
    fn fragmented_message_that_grows_too_large_is_rejected() {
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
        // The codec has received the beginning: it is ended by an empty frame, and the reader skips it.
        let passed = [other.clone(), first, ping, EMPTY_LAST.to_vec(), other].concat();
        assert_eq!(scanned(&all.concat()), Ok((passed, 1, Some(2))));
    }

    #[test]
    fn reserved_bits_and_opcodes_are_violations() {
        for first in [0x91, 0xa1, 0xc1, 0x83, 0x87, 0x8b, 0x8f] {
            assert_eq!(
                scanned(&frame(first, 3)),
                Err(FrameViolation::Reserved),
                "{first}"
            );
        }
        for first in [0x81, 0x82, 0x88, 0x89, 0x8a] {
            assert!(passes(&frame(first, 3)), "{first}");
        }
    }

    #[test]
    fn fragmented_message_counts_as_one() {
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
        let mut output = ScanOutput::default();
        let pieces = [
            frame(0x81, 5),
            frame(0x01, 5),
            frame(0x00, 5),
            frame(0x80, 5),
        ]
        .concat();
        assert_eq!(FrameScanner::new(LIMITS).scan(&pieces, &mut output), Ok(()));
        assert_eq!(
            output.extra_frames, 2,
            "the last frame of a message is not counted"
        );
        assert_eq!(scanned(&endless(1_024)), Err(FrameViolation::TooLarge));
    }
}
