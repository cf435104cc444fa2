//! The frames of a direct link. On the wire each is its length in two bytes, the higher first, and so many encrypted
//! bytes. A frame's first byte says what it is; a chunk that does not fit into one frame comes in several.

use bytes::{BufMut, Bytes, BytesMut};
use snow::StatelessTransportState;
use thiserror::Error;

/// The largest encrypted frame: a Noise message.
const SEALED_BYTES_MAX: usize = 65_535;

/// The tag behind each encrypted frame.
const TAG_BYTES: usize = 16;

/// How much of a chunk one frame holds, besides its first byte.
const PART_BYTES_MAX: usize = SEALED_BYTES_MAX - TAG_BYTES - 1;

const STATUS: u8 = 0;
const PART: u8 = 1;
const LAST_PART: u8 = 2;

/// Status of a node, sent at an interval and with every change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LinkStatus {
    /// Redis carries this node's messages at present.
    pub(super) has_redis: bool,
    /// This node has received from the other end recently over this connection.
    pub(super) hears_you: bool,
}

/// A decrypted frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LinkFrame {
    /// The status of the other end.
    Status(LinkStatus),
    /// Packed messages.
    Chunk(Bytes),
}

/// Why a frame was refused. The connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum FrameError {
    #[error("a frame was changed, repeated or left out on the way")]
    Forged,
    #[error("a frame has no content")]
    Empty,
    #[error("a chunk has more than the {0} bytes that are allowed")]
    Oversize(usize),
}

impl LinkStatus {
    fn to_byte(self) -> u8 {
        u8::from(self.has_redis) | u8::from(self.hears_you) << 1
    }

    fn of_byte(byte: u8) -> Self {
        Self {
            has_redis: byte & 1 > 0,
            hears_you: byte & 2 > 0,
        }
    }
}

/// Encrypts what one direction sends. Each frame has the next nonce.
#[derive(Debug, Default)]
pub(super) struct FrameEncryptor {
    nonce: u64,
}

impl FrameEncryptor {
    /// Appends a status frame to `out`.
    pub(super) fn status(
        &mut self,
        cipher: &StatelessTransportState,
        status: LinkStatus,
        out: &mut BytesMut,
    ) {
        self.seal(cipher, &[STATUS, status.to_byte()], out);
    }

    /// Appends a chunk to `out`, in as many frames as it takes.
    pub(super) fn chunk(
        &mut self,
        cipher: &StatelessTransportState,
        chunk: &[u8],
        out: &mut BytesMut,
    ) {
        let mut plain = Vec::with_capacity(1 + chunk.len().min(PART_BYTES_MAX));
        let mut parts = chunk.chunks(PART_BYTES_MAX).peekable();
        while let Some(part) = parts.next() {
            plain.clear();
            plain.push(if parts.peek().is_some() {
                PART
            } else {
                LAST_PART
            });
            plain.extend_from_slice(part);
            self.seal(cipher, &plain, out);
        }
    }

    fn seal(&mut self, cipher: &StatelessTransportState, plain: &[u8], out: &mut BytesMut) {
        let length = plain.len() + TAG_BYTES;
        out.put_u16(u16::try_from(length).expect("a part fits into a frame"));
        let start = out.len();
        out.resize(start + length, 0);
        let sealed = cipher.write_message(self.nonce, plain, &mut out[start..]);
        sealed.expect("the buffer has room for the tag");
        self.nonce += 1;
    }
}

/// Decrypts what one direction receives, and puts chunks together.
#[derive(Debug)]
pub(super) struct FrameDecryptor {
    nonce: u64,
    /// The largest chunk that is put together.
    chunk_bytes_max: usize,
    /// The parts of a chunk that is not complete.
    parts: BytesMut,
}

impl FrameDecryptor {
    pub(super) fn new(chunk_bytes_max: usize) -> Self {
        Self {
            nonce: 0,
            chunk_bytes_max,
            parts: BytesMut::new(),
        }
    }

    /// Decrypts a frame; `None` if it is part of a chunk that is not complete, or of a kind that a newer node sends.
    ///
    /// # Errors
    /// If the frame is not the next one that the other end sent, or makes a chunk too large.
    pub(super) fn open(
        &mut self,
        cipher: &StatelessTransportState,
        sealed: &[u8],
    ) -> Result<Option<LinkFrame>, FrameError> {
        let mut plain = vec![0; sealed.len()];
        let length = cipher
            .read_message(self.nonce, sealed, &mut plain)
            .map_err(|_| FrameError::Forged)?;
        self.nonce += 1;
        let Some((&kind, content)) = plain[..length].split_first() else {
            return Err(FrameError::Empty);
        };
        match kind {
            STATUS => {
                let byte = content.first().ok_or(FrameError::Empty)?;
                Ok(Some(LinkFrame::Status(LinkStatus::of_byte(*byte))))
            }
            PART | LAST_PART => {
                if self.parts.len() + content.len() > self.chunk_bytes_max {
                    return Err(FrameError::Oversize(self.chunk_bytes_max));
                }
                self.parts.extend_from_slice(content);
                let whole = (kind == LAST_PART).then(|| std::mem::take(&mut self.parts));
                Ok(whole.map(|chunk| LinkFrame::Chunk(chunk.freeze())))
            }
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use snow::Builder;

    use super::*;

    /// The two ends of a connection.
    pub(in crate::cluster::direct) fn ciphers() -> [StatelessTransportState; 2] {
        let builder = || {
            let pattern = "Noise_NNpsk0_25519_ChaChaPoly_SHA256".parse().unwrap();
            Builder::new(pattern).psk(0, &[7; 32]).unwrap()
        };
        let mut one = builder().build_initiator().unwrap();
        let mut other = builder().build_responder().unwrap();
        let (mut sent, mut read) = ([0; 200], [0; 200]);
        let length = one.write_message(&[], &mut sent).unwrap();
        other.read_message(&sent[..length], &mut read).unwrap();
        let length = other.write_message(&[], &mut sent).unwrap();
        one.read_message(&sent[..length], &mut read).unwrap();
        [one, other].map(|it| it.into_stateless_transport_mode().unwrap())
    }

    /// The encrypted frames of what was written.
    fn frames(mut written: &[u8]) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some((length, rest)) = written.split_first_chunk::<2>() {
            let (frame, rest) = rest.split_at(u16::from_be_bytes(*length).into());
            frames.push(frame.to_vec());
            written = rest;
        }
        frames
    }

    #[test]
    fn frames_come_out_as_they_went_in() {
        let [one, other] = ciphers();
        let (mut sealer, mut opener) = (FrameEncryptor::default(), FrameDecryptor::new(1 << 20));
        for bytes in [
            0,
            1,
            PART_BYTES_MAX - 1,
            PART_BYTES_MAX,
            PART_BYTES_MAX + 1,
            300_000,
            1 << 20,
        ] {
            let chunk: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
            let mut written = BytesMut::new();
            sealer.chunk(&one, &chunk, &mut written);
            let status = LinkStatus {
                has_redis: bytes % 2 == 0,
                hears_you: bytes % 3 == 0,
            };
            sealer.status(&one, status, &mut written);
            let opened: Vec<LinkFrame> = frames(&written)
                .iter()
                .filter_map(|frame| opener.open(&other, frame).unwrap())
                .collect();
            let chunk = (bytes > 0).then(|| LinkFrame::Chunk(chunk.into()));
            let expected: Vec<LinkFrame> = chunk
                .into_iter()
                .chain([LinkFrame::Status(status)])
                .collect();
            assert!(opened == expected, "{bytes} bytes");
        }
    }

    #[test]
    fn changed_repeated_reordered_and_missing_frames_are_refused() {
        let [one, other] = ciphers();
        let mut sealer = FrameEncryptor::default();
        let mut written = BytesMut::new();
        for byte in 0..3 {
            sealer.chunk(&one, &[byte; 10], &mut written);
        }
        let frames = frames(&written);
        let mut changed = frames[0].clone();
        changed[3] ^= 1;
        for (what, sequence) in [
            ("changed", vec![&changed]),
            ("repeated", vec![&frames[0], &frames[0]]),
            ("reordered", vec![&frames[1], &frames[0]]),
            ("missing", vec![&frames[0], &frames[2]]),
        ] {
            let mut opener = FrameDecryptor::new(100);
            let opened: Result<Vec<_>, _> = sequence
                .iter()
                .map(|frame| opener.open(&other, frame))
                .collect();
            assert_eq!(opened.unwrap_err(), FrameError::Forged, "{what}");
        }
        let mut opener = FrameDecryptor::new(100);
        for bytes in [&[][..], &[0; 15], &[0; 16], &[0; 200]] {
            assert_eq!(opener.open(&other, bytes), Err(FrameError::Forged));
        }
    }

    #[test]
    fn piece_beyond_the_bound_is_refused_before_it_is_held() {
        let [one, other] = ciphers();
        let (mut sealer, mut opener) = (FrameEncryptor::default(), FrameDecryptor::new(200_000));
        let mut written = BytesMut::new();
        sealer.chunk(&one, &vec![1; 300_000], &mut written);
        let opened: Result<Vec<_>, _> = frames(&written)
            .iter()
            .map(|frame| opener.open(&other, frame))
            .collect();
        assert_eq!(opened.unwrap_err(), FrameError::Oversize(200_000));
        assert!(opener.parts.len() <= 200_000);
    }

    #[test]
    fn frame_of_a_newer_kind_is_passed_over_and_one_without_content_is_not() {
        let [one, other] = ciphers();
        let mut sealer = FrameEncryptor::default();
        let mut written = BytesMut::new();
        sealer.seal(&one, &[99, 1, 2], &mut written);
        sealer.seal(&one, &[STATUS, 0xff, 5], &mut written);
        sealer.seal(&one, &[STATUS], &mut written);
        sealer.seal(&one, &[], &mut written);
        let mut opener = FrameDecryptor::new(100);
        let opened: Vec<_> = frames(&written)
            .iter()
            .map(|frame| opener.open(&other, frame))
            .collect();
        let status = LinkFrame::Status(LinkStatus {
            has_redis: true,
            hears_you: true,
        });
        let empty = Err(FrameError::Empty);
        assert_eq!(
            opened,
            [Ok(None), Ok(Some(status)), empty, Err(FrameError::Empty)]
        );
    }
}
