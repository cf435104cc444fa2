//! The stored forms that can tell when they were damaged: snapshots and the log's rows.

use thiserror::Error;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::log::{DecodeError, Entry, Revision, Snapshot};
use crate::ot::CONTENT_BYTES_MAX;

/// The first byte of a packed snapshot: XXH3's 128 bits over the revision and what follows, then LZ4 with its length.
const FORMAT_LZ4: u8 = 1;

/// The most bytes that a snapshot is unpacked to. A content's JSON has less than twice the bytes that its size counts.
const UNPACKED_BYTES_MAX: usize = 2 * CONTENT_BYTES_MAX;

const CHECKSUM_BYTES: usize = 16;

/// Why a packed snapshot was refused.
#[derive(Debug, Error)]
pub(super) enum Damage {
    #[error("format {0:?} is unknown")]
    Format(Option<u8>),
    #[error("the checksum does not match")]
    Checksum,
    #[error("it is larger than a document may be")]
    TooLarge,
    #[error("{0}")]
    Compression(#[from] lz4_flex::block::DecompressError),
    #[error("{0}")]
    Decode(#[from] DecodeError),
}

/// Packs a snapshot: encoded, compressed, checked.
pub(super) fn pack(snapshot: &Snapshot) -> Vec<u8> {
    let body = lz4_flex::block::compress_prepend_size(&snapshot.encode());
    let mut packed = Vec::with_capacity(1 + CHECKSUM_BYTES + body.len());
    packed.push(FORMAT_LZ4);
    packed.extend_from_slice(&checksum(snapshot.revision, &body));
    packed.extend_from_slice(&body);
    packed
}

/// Whether the packed snapshot at `revision` is what [`pack`] wrote.
pub(super) fn verify(revision: Revision, packed: &[u8]) -> Result<&[u8], Damage> {
    let Some((&FORMAT_LZ4, rest)) = packed.split_first() else {
        return Err(Damage::Format(packed.first().copied()));
    };
    let (expected, body) = rest
        .split_at_checked(CHECKSUM_BYTES)
        .ok_or(Damage::Checksum)?;
    if expected != checksum(revision, body) {
        return Err(Damage::Checksum);
    }
    Ok(body)
}

/// Reads the packed snapshot at `revision`, after verifying it.
pub(super) fn unpack(revision: Revision, packed: &[u8]) -> Result<Snapshot, Damage> {
    let body = verify(revision, packed)?;
    let size = body.first_chunk().map(|size| u32::from_le_bytes(*size));
    if size.is_some_and(|size| size as usize > UNPACKED_BYTES_MAX) {
        return Err(Damage::TooLarge);
    }
    let bytes = lz4_flex::block::decompress_size_prepended(body)?;
    Ok(Snapshot::decode(revision, &bytes)?)
}

/// The revision is part of it, so that a snapshot does not pass for another one's.
fn checksum(revision: Revision, body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    (xxh3_128(body) ^ u128::from(revision.0)).to_le_bytes()
}

/// The checksum of an entry's row: everything but the document, whose number only the database knows.
pub(super) fn row_checksum(entry: &Entry, payload: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    for number in [entry.revision.0, entry.epoch.0, entry.id.seq, entry.at_ms] {
        hash.update(&number.to_le_bytes());
    }
    for text in [entry.id.author.as_str(), entry.id.client.as_str()] {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hash.update(payload);
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ot::{Content, Kind};

    #[test]
    fn a_snapshot_that_is_too_large_is_not_unpacked() {
        let text = "a".repeat(UNPACKED_BYTES_MAX + 1);
        let body = lz4_flex::block::compress_prepend_size(text.as_bytes());
        let mut packed = vec![FORMAT_LZ4];
        packed.extend_from_slice(&checksum(Revision(7), &body));
        packed.extend_from_slice(&body);
        let refused = unpack(Revision(7), &packed);
        assert!(matches!(refused, Err(Damage::TooLarge)), "{refused:?}");
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let content = Content::create(Kind::TextUnicode, Some("\"aaaaaaaaaaaaaaaaab\"")).unwrap();
        let snapshot = Snapshot {
            revision: Revision(7),
            at_ms: 3,
            content: Some(content),
            creator: None,
        };
        let packed = pack(&snapshot);
        assert_eq!(unpack(Revision(7), &packed).unwrap(), snapshot);
        assert!(matches!(
            unpack(Revision(8), &packed),
            Err(Damage::Checksum)
        ));
        for at in 0..packed.len() * 8 {
            let mut flipped = packed.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            assert!(unpack(Revision(7), &flipped).is_err(), "bit {at}");
        }
        for cut in 0..packed.len() {
            assert!(unpack(Revision(7), &packed[..cut]).is_err(), "cut at {cut}");
        }
    }
}
