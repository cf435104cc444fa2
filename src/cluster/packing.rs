//! How messages lie in one piece: a version byte, then each message behind its length in four bytes, the lowest first.

#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// What a message takes besides itself.
const LENGTH_BYTES: usize = 4;

/// The first byte of every piece. A node that meets another one skips the piece: its sender is newer, and what is lost
/// is asked for again.
const VERSION: u8 = 1;

/// Packs messages, in their order, into pieces of at most `bytes_max`, each with how many it holds. A message that is
/// larger has a piece of its own.
pub(super) fn pack(messages: &[Bytes], bytes_max: usize) -> Vec<(Bytes, usize)> {
    let mut pieces = Vec::new();
    let mut rest = messages;
    while !rest.is_empty() {
        let mut bytes = 1;
        let fitting = rest.iter().take_while(|message| {
            bytes += LENGTH_BYTES + message.len();
            bytes <= bytes_max
        });
        let count = fitting.count().max(1);
        pieces.push((piece(&rest[..count]), count));
        rest = &rest[count..];
    }
    pieces
}

fn piece(messages: &[Bytes]) -> Bytes {
    let bytes: usize = messages.iter().map(|m| LENGTH_BYTES + m.len()).sum();
    let mut piece = BytesMut::with_capacity(1 + bytes);
    piece.put_u8(VERSION);
    for message in messages {
        let length = u32::try_from(message.len()).expect("the queue's bound is far below 4 GiB");
        piece.put_u32_le(length);
        piece.put_slice(message);
    }
    piece.freeze()
}

/// The messages of a piece, which they share; `None` when it is none of ours.
pub(super) fn unpack(mut piece: Bytes) -> Option<Vec<Bytes>> {
    if piece.is_empty() || piece.get_u8() != VERSION {
        return None;
    }
    let mut messages = Vec::new();
    while !piece.is_empty() {
        let length = piece.try_get_u32_le().ok()? as usize;
        if length > piece.len() {
            return None;
        }
        messages.push(piece.split_to(length));
    }
    Some(messages)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_piece_is_refused() {
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
        fn messages_come_out_as_they_went_in(
            sizes in proptest::collection::vec(0..200usize, 0..40),
            bytes_max in 1..500usize,
        ) {
            let messages: Vec<Bytes> = sizes
                .iter()
                .enumerate()
                .map(|(index, &size)| vec![index as u8; size].into())
                .collect();
            let pieces = pack(&messages, bytes_max);
            for (piece, count) in &pieces {
                prop_assert_eq!(unpack(piece.clone()).unwrap().len(), *count);
                prop_assert!(*count == 1 || piece.len() <= bytes_max);
            }
            let pieces = pieces.into_iter().map(|(piece, _)| piece);
            let unpacked: Vec<Bytes> = pieces.filter_map(unpack).flatten().collect();
            prop_assert_eq!(unpacked, messages);
        }

        #[test]
        fn no_bytes_can_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let bytes = Bytes::from(bytes);
            if let Some(messages) = unpack(bytes.clone()) {
                prop_assert_eq!(piece(&messages), bytes);
            }
        }
    }
}
