//! The wire versions of messages, and the notice that answers a message that cannot be decoded.
//!
//! A message begins with its version. Version 0 is the notice, in a form that never changes. Programs from before the notice
//! drop it like a message of any unknown version.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::codec::{self, MessageDecodeError};
use super::message::NodeMessage;
use crate::version::{Capabilities, NodeVersion, WireRange};

/// The version of the notice.
const NOTICE: u8 = 0;

/// The most bytes of the program's version in a notice.
const PROGRAM_BYTES_MAX: usize = 64;

/// The wire versions that this program understands, and what else it can do.
pub(in crate::node) fn of_this_program() -> NodeVersion {
    NodeVersion {
        wire: WireRange {
            oldest: codec::VERSION,
            newest: codec::VERSION,
        },
        capabilities: Capabilities::ALL,
        program: env!("CARGO_PKG_VERSION").into(),
    }
}

/// Decoded bytes of another node.
#[derive(Debug)]
pub(in crate::node) enum Received {
    /// A message.
    Message(NodeMessage),
    /// The versions that the sender understands: it could not decode a message of this node.
    Notice(NodeVersion),
}

/// Encodes a message in a version that its receiver understands.
pub(in crate::node) fn encode(message: &NodeMessage, version: u8) -> Bytes {
    match version {
        #[cfg(debug_assertions)]
        next::VERSION => next::encode(message),
        _ => message.encode(),
    }
}

/// Decodes bytes of another node, if their version is one of `understood`.
///
/// # Errors
/// If the version is not understood, or the bytes are not a message of that version.
pub(in crate::node) fn decode(
    bytes: &[u8],
    understood: WireRange,
) -> Result<Received, MessageDecodeError> {
    match bytes.first() {
        Some(&NOTICE) => read_notice(bytes).map(Received::Notice),
        Some(&version) if !understood.contains(version) => {
            Err(MessageDecodeError::Version(Some(version)))
        }
        #[cfg(debug_assertions)]
        Some(&next::VERSION) => next::decode(bytes).map(Received::Message),
        _ => NodeMessage::decode(bytes).map(Received::Message),
    }
}

/// The notice of these versions: 0, the oldest and the newest wire version, the capabilities in 8 bytes, the length of the
/// program's version and the version. Later versions may append fields.
pub(in crate::node) fn notice(version: &NodeVersion) -> Bytes {
    let program = version.program.as_bytes();
    let program = &program[..program.len().min(PROGRAM_BYTES_MAX)];
    let mut bytes = BytesMut::with_capacity(12 + program.len());
    bytes.put_slice(&[NOTICE, version.wire.oldest, version.wire.newest]);
    bytes.put_u64_le(version.capabilities.0);
    bytes.put_u8(program.len() as u8);
    bytes.put_slice(program);
    bytes.freeze()
}

fn read_notice(bytes: &[u8]) -> Result<NodeVersion, MessageDecodeError> {
    let cut = || MessageDecodeError::Invalid("notice of versions: truncated".to_owned());
    let (&[_, oldest, newest], rest) = bytes.split_first_chunk().ok_or_else(cut)?;
    let (capabilities, rest) = rest.split_first_chunk().ok_or_else(cut)?;
    let (&length, rest) = rest.split_first().ok_or_else(cut)?;
    let program = rest.get(..length.into()).ok_or_else(cut)?;
    let printable = |c: char| if c.is_control() { '?' } else { c };
    let program: String = String::from_utf8_lossy(program)
        .chars()
        .map(printable)
        .collect();
    Ok(NodeVersion {
        wire: WireRange { oldest, newest },
        capabilities: Capabilities(u64::from_le_bytes(*capabilities)),
        program: Arc::from(program),
    })
}

/// A next wire version, for tests of two versions side by side. In debug builds only.
#[cfg(debug_assertions)]
pub(in crate::node) mod next {
    use super::{Bytes, MessageDecodeError, NodeMessage};
    use xxhash_rust::xxh3::xxh3_64;

    pub(in crate::node) const VERSION: u8 = super::codec::VERSION + 1;

    /// A checksum, and the bytes of the version before in reverse order: they cannot be decoded as that version.
    pub(in crate::node) fn encode(message: &NodeMessage) -> Bytes {
        let mut body = message.encode().to_vec();
        body.reverse();
        let checksum = xxh3_64(&body).to_le_bytes();
        [&[VERSION][..], &checksum, &body].concat().into()
    }

    pub(in crate::node) fn decode(bytes: &[u8]) -> Result<NodeMessage, MessageDecodeError> {
        let broken = || MessageDecodeError::Invalid("checksum".to_owned());
        let body = bytes.get(9..).ok_or_else(broken)?;
        if bytes[1..9] != xxh3_64(body).to_le_bytes() {
            return Err(broken());
        }
        let body: Vec<u8> = body.iter().rev().copied().collect();
        NodeMessage::decode(&body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(oldest: u8, newest: u8) -> WireRange {
        WireRange { oldest, newest }
    }

    #[test]
    fn message_is_decoded_only_in_an_understood_version() {
        for (version, understood, is_decoded) in [
            (1, range(1, 1), true),
            (1, range(1, 2), true),
            (2, range(1, 2), true),
            (2, range(1, 1), false),
            (1, range(2, 2), false),
        ] {
            let bytes = encode(&NodeMessage::HasStore, version);
            match decode(&bytes, understood) {
                Ok(Received::Message(NodeMessage::HasStore)) => assert!(is_decoded, "{version}"),
                Err(MessageDecodeError::Version(Some(told))) => {
                    assert!(!is_decoded && told == version)
                }
                other => panic!("{version}: {other:?}"),
            }
        }
    }

    #[test]
    fn notice_is_decoded_by_later_versions_and_dropped_by_earlier_ones() {
        let version = NodeVersion {
            wire: range(3, 9),
            capabilities: Capabilities(1 << 63 | 5),
            program: "9.1.0".into(),
        };
        let mut bytes = notice(&version).to_vec();
        assert!(matches!(
            NodeMessage::decode(&bytes),
            Err(MessageDecodeError::Version(Some(0)))
        ));
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length], range(1, 1)).is_err(), "{length}");
        }
        bytes.extend(b"what a later version adds");
        match decode(&bytes, range(1, 1)) {
            Ok(Received::Notice(read)) => assert_eq!(read, version),
            other => panic!("{other:?}"),
        }
    }
}
