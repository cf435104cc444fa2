//! Packs messages into chunks: a version byte, then each message after its length as a little-endian `u32`.

#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Length prefix of a message.
const LENGTH_BYTES: usize = 4;

/// First byte of every chunk. A chunk with another version is skipped: its sender is newer, and lost messages are
/// requested again.
const VERSION: u8 = 1;

/// Packs messages, in order, into chunks of at most `bytes_max` bytes; a larger message has a chunk of its own. Returns
/// each chunk with its number of messages.
pub(super) fn pack(messages: &[Bytes], bytes_max: usize) -> Vec<(Bytes, usize)> {
    let mut chunks = Vec::new();
    let mut rest = messages;
    while !rest.is_empty() {
        let mut bytes = 1;
        let fitting = rest.iter().take_while(|message| {
            bytes += LENGTH_BYTES + message.len();
            bytes <= bytes_max
        });
        let count = fitting.count().max(1);
        chunks.push((chunk(&rest[..count]), count));
        rest = &rest[count..];
    }
    chunks
}

fn chunk(messages: &[Bytes]) -> Bytes {
    let bytes: usize = messages.iter().map(|m| LENGTH_BYTES + m.len()).sum();
    let mut chunk = BytesMut::with_capacity(1 + bytes);
    chunk.put_u8(VERSION);
    for message in messages {
        let length = u32::try_from(message.len()).expect("the queue's bound is far below 4 GiB");
        chunk.put_u32_le(length);
        chunk.put_slice(message);
    }
    chunk.freeze()
}

/// The messages of a chunk, as slices of it; `None` if it is malformed or of another version.
pub(super) fn unpack(mut chunk: Bytes) -> Option<Vec<Bytes>> {
    if chunk.is_empty() || chunk.get_u8() != VERSION {
        return None;
    }
    let mut messages = Vec::new();
    while !chunk.is_empty() {
        let length = chunk.try_get_u32_le().ok()? as usize;
        if length > chunk.len() {
            return None;
        }
        messages.push(chunk.split_to(length));
    }
    Some(messages)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn malformed_chunk_is_refused() {
        for bad in [
            &[][..],
            &[0],
            &[2, 0, 0, 0, 0],
            &[1, 0],
            &[1, 0, 0, 0],
            &[1, 1, 0, 0, 0],
            &[1, 255, 255, 255, 255, 7],
            b"a text",
        ] {
            assert_eq!(unpack(Bytes::from_static(bad)), None, "{bad:?}");
        }
        assert_eq!(unpack(Bytes::from_static(&[1])), Some(vec![]));
        assert_eq!(
            unpack(Bytes::from_static(&[1, 0, 0, 0, 0, 1, 0, 0, 0, 9])),
            Some(vec![Bytes::new(), Bytes::from_static(&[9])])
        );
    }

    proptest! {
        #[test]
        fn packed_messages_are_unpacked_unchanged(
            sizes in proptest::collection::vec(0..200usize, 0..40),
            bytes_max in 1..500usize,
        ) {
            let messages: Vec<Bytes> = sizes
                .iter()
                .enumerate()
                .map(|(index, &size)| vec![index as u8; size].into())
                .collect();
            let chunks = pack(&messages, bytes_max);
            for (chunk, count) in &chunks {
                prop_assert_eq!(unpack(chunk.clone()).unwrap().len(), *count);
                prop_assert!(*count == 1 || chunk.len() <= bytes_max);
            }
            let chunks = chunks.into_iter().map(|(chunk, _)| chunk);
            let unpacked: Vec<Bytes> = chunks.filter_map(unpack).flatten().collect();
            prop_assert_eq!(unpacked, messages);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let bytes = Bytes::from(bytes);
            if let Some(messages) = unpack(bytes.clone()) {
                prop_assert_eq!(chunk(&messages), bytes);
            }
        }
    }
}
