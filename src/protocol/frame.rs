//! WebSocket framing of what the server sends (RFC 6455, section 5.2). A server's frames carry no mask, so the same
//! bytes serve every socket: a commit is framed once, and a batch of commits is one piece of memory for all readers.

use bytes::{BufMut, Bytes, BytesMut};

use super::close::CloseReason;

/// Whole WebSocket text frames, one after the other.
#[derive(Debug, Default)]
pub struct Frames(BytesMut);

impl Frames {
    /// Returns an empty sequence of frames.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one text frame. `json` is UTF-8.
    pub fn push(&mut self, json: &[u8]) {
        header(&mut self.0, TEXT, json.len());
        self.0.extend_from_slice(json);
    }

    /// The frames as bytes.
    #[must_use]
    pub fn finish(self) -> Bytes {
        self.0.freeze()
    }

    /// One text frame whose payload is these pieces, one after the other. Pieces of at least 4 KiB are not copied: the frame
    /// shares their memory.
    #[must_use]
    pub fn of_pieces(pieces: impl IntoIterator<Item = Bytes, IntoIter: Clone>) -> Vec<Bytes> {
        let pieces = pieces.into_iter();
        let mut copied = BytesMut::with_capacity(256);
        header(&mut copied, TEXT, pieces.clone().map(|it| it.len()).sum());
        let mut frame = Vec::new();
        for piece in pieces {
            if piece.len() < SHARED_BYTES_MIN {
                copied.extend_from_slice(&piece);
                continue;
            }
            frame.push(copied.split().freeze());
            frame.push(piece);
        }
        if !copied.is_empty() {
            frame.push(copied.freeze());
        }
        frame
    }

    /// One text frame.
    #[must_use]
    pub fn one(json: &[u8]) -> Bytes {
        frame(TEXT, json)
    }
}

/// A close frame with the code and the text of `reason`.
#[must_use]
pub fn close_frame(reason: CloseReason) -> Bytes {
    let text = reason.text();
    debug_assert!(
        text.len() <= 123,
        "a control frame carries at most 125 bytes"
    );
    let mut out = BytesMut::with_capacity(text.len() + 4);
    header(&mut out, CLOSE, text.len() + 2);
    out.put_u16(reason.code() as u16);
    out.extend_from_slice(text.as_bytes());
    out.freeze()
}

/// A ping. WebSocket implementations answer it without the application.
#[must_use]
pub fn ping_frame() -> Bytes {
    Bytes::from_static(&[FINAL | PING, 0])
}

/// The answer to a client's ping, with the payload of the ping: at most 125 bytes.
#[must_use]
pub fn pong_frame(payload: &[u8]) -> Bytes {
    frame(PONG, &payload[..payload.len().min(125)])
}

/// A binary frame, for the echo server that the conformance suite of WebSockets runs against. The protocol itself has none.
#[cfg(feature = "echo")]
#[must_use]
pub fn binary_frame(payload: &[u8]) -> Bytes {
    frame(BINARY, payload)
}

fn frame(opcode: u8, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + HEADER_BYTES_MAX);
    header(&mut out, opcode, payload.len());
    out.extend_from_slice(payload);
    out.freeze()
}

/// Pieces of a frame below this size are copied, which costs less than a write of their own.
const SHARED_BYTES_MIN: usize = 4 << 10;

const HEADER_BYTES_MAX: usize = 10;
const FINAL: u8 = 0x80;
const TEXT: u8 = 0x1;
#[cfg(feature = "echo")]
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

fn header(out: &mut BytesMut, opcode: u8, length: usize) {
    out.put_u8(FINAL | opcode);
    match length {
        0..=125 => out.put_u8(length as u8),
        126..=0xffff => {
            out.put_u8(126);
            out.put_u16(length as u16);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(length as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_what_a_client_parses() {
        use actix_http::ws::{OpCode, Parser};
        let long = "x".repeat(70_000);
        let middle = "y".repeat(300);
        let mut frames = Frames::new();
        for text in ["{}", &middle, &long] {
            frames.push(text.as_bytes());
        }
        let mut bytes = BytesMut::from(frames.finish().as_ref());
        for text in ["{}", &middle, &long] {
            let (fin, opcode, payload) =
                Parser::parse(&mut bytes, false, 1 << 20).unwrap().unwrap();
            assert!(fin && opcode == OpCode::Text);
            assert_eq!(payload.unwrap(), text.as_bytes());
        }
        let pieces = ["head", &long, "middle", &long, "tail"].map(|it| Bytes::from(it.to_owned()));
        let frame = Frames::of_pieces(pieces.clone());
        assert_eq!(frame[1].as_ptr(), pieces[1].as_ptr(), "not copied");
        let mut bytes = BytesMut::from(&*frame.concat());
        let (_, _, payload) = Parser::parse(&mut bytes, false, 1 << 20).unwrap().unwrap();
        assert_eq!(payload.unwrap(), pieces.concat());
        assert!(bytes.is_empty());
        let mut bytes = BytesMut::from(close_frame(CloseReason::Restarting).as_ref());
        let (_, opcode, payload) = Parser::parse(&mut bytes, false, 1 << 20).unwrap().unwrap();
        assert_eq!(
            (opcode, &payload.unwrap()[..]),
            (
                OpCode::Close,
                &b"\x03\xf4server is restarting: reconnect"[..]
            )
        );
    }
}
