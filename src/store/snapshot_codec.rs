//! The stored forms that can tell when they were damaged: snapshots and the log's rows.

use thiserror::Error;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::log::{DecodeError, Entry, Revision, Snapshot};
use crate::ot::CONTENT_BYTES_MAX;

/// The first byte of a packed snapshot: XXH3's 128 bits over the revision and what follows, then LZ4 with its length.
const FORMAT_LZ4: u8 = 1;

/// As [`FORMAT_LZ4`], but compressed by zstd. Written while every live node can read it.
const FORMAT_ZSTD: u8 = 2;

/// 20 kB of prose have 2.4 times less bytes than before (LZ4: 1.5), 200 kB 3.4 times; higher levels gain 3 % for ten times
/// the work.
const ZSTD_LEVEL: i32 = 9;

/// The most bytes that a snapshot is unpacked to. A content's JSON has less than twice the bytes that its size counts.
const UNPACKED_BYTES_MAX: usize = 2 * CONTENT_BYTES_MAX;

const CHECKSUM_BYTES: usize = 16;

/// The bytes before a compressed body that state how many it is unpacked to, little-endian.
const SIZE_BYTES: usize = 4;

/// How a snapshot is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// Readable by every version.
    Lz4,
    /// Smaller. Readable by nodes with [`ZSTD_SNAPSHOTS`](crate::version::Capabilities::ZSTD_SNAPSHOTS).
    Zstd,
}

/// Why a packed snapshot was refused.
#[derive(Debug, Error)]
pub(super) enum UnpackError {
    #[error("format {0:?} is unknown")]
    Format(Option<u8>),
    #[error("the checksum does not match")]
    Checksum,
    #[error("it is larger than a document may be")]
    TooLarge,
    #[error("{0}")]
    Compression(#[from] lz4_flex::block::DecompressError),
    #[error("{0}")]
    Zstd(#[from] std::io::Error),
    #[error("{0}")]
    Decode(#[from] DecodeError),
}

/// Packs a snapshot: encoded, compressed, checked. Falls back to LZ4 where zstd fails, as it does for want of memory.
pub(super) fn pack(snapshot: &Snapshot, packing: Packing) -> Vec<u8> {
    let encoded = snapshot.encode();
    let compressed = match packing {
        Packing::Zstd => compress_zstd(&encoded).map(|body| (FORMAT_ZSTD, body)),
        Packing::Lz4 => None,
    };
    let (format, body) = compressed.unwrap_or_else(|| {
        let body = lz4_flex::block::compress_prepend_size(&encoded);
        (FORMAT_LZ4, body)
    });
    let mut packed = Vec::with_capacity(1 + CHECKSUM_BYTES + body.len());
    packed.push(format);
    packed.extend_from_slice(&checksum(snapshot.revision, &body));
    packed.extend_from_slice(&body);
    packed
}

/// The size of `encoded` and its zstd frame.
fn compress_zstd(encoded: &[u8]) -> Option<Vec<u8>> {
    let size = u32::try_from(encoded.len()).ok()?;
    let frame = zstd::bulk::compress(encoded, ZSTD_LEVEL).ok()?;
    let mut body = Vec::with_capacity(SIZE_BYTES + frame.len());
    body.extend_from_slice(&size.to_le_bytes());
    body.extend_from_slice(&frame);
    Some(body)
}

/// Whether the packed snapshot at `revision` is what [`pack`] wrote; if so, its compressed body.
pub(super) fn verify(revision: Revision, packed: &[u8]) -> Result<&[u8], UnpackError> {
    let Some((&(FORMAT_LZ4 | FORMAT_ZSTD), rest)) = packed.split_first() else {
        return Err(UnpackError::Format(packed.first().copied()));
    };
    let (expected, body) = rest
        .split_at_checked(CHECKSUM_BYTES)
        .ok_or(UnpackError::Checksum)?;
    if expected != checksum(revision, body) {
        return Err(UnpackError::Checksum);
    }
    Ok(body)
}

/// Reads the packed snapshot at `revision`, after verifying it.
pub(super) fn unpack(revision: Revision, packed: &[u8]) -> Result<Snapshot, UnpackError> {
    let body = verify(revision, packed)?;
    let (size, compressed) = body
        .split_first_chunk::<SIZE_BYTES>()
        .ok_or(UnpackError::Checksum)?;
    let size = u32::from_le_bytes(*size) as usize;
    if size > UNPACKED_BYTES_MAX {
        return Err(UnpackError::TooLarge);
    }
    let bytes = match packed.first() {
        Some(&FORMAT_ZSTD) => zstd::bulk::decompress(compressed, size)?,
        _ => lz4_flex::block::decompress(compressed, size)?,
    };
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
        assert!(matches!(refused, Err(UnpackError::TooLarge)), "{refused:?}");
    }

    /// What versions before zstd wrote: the plain text "abc" at revision 7.
    const EARLIER: &str = "01c558b49f5184fcc3cf368a01e4e04ad958000000f0287b2261745f6d73223a332c2263726561746f72223a6e756c6c\
        7d0a7b2274797065223a22687474703a2f2f73686172656a732e6f72672f1a00f00e732f746578742d756e69636f6465\
        222c2264617461223a22616263227d";

    fn prose() -> Snapshot {
        let text = include_str!("../../README.md");
        let json = serde_json::to_string(text).unwrap();
        Snapshot {
            revision: Revision(7),
            at_ms: 3,
            content: Some(Content::create(Kind::TextUnicode, Some(&json)).unwrap()),
            creator: None,
        }
    }

    #[test]
    fn zstd_makes_prose_smaller_than_lz4() {
        let snapshot = prose();
        let bytes = |packing| pack(&snapshot, packing).len();
        let (lz4, zstd) = (bytes(Packing::Lz4), bytes(Packing::Zstd));
        assert!(zstd * 4 < lz4 * 3, "{lz4} -> {zstd} bytes");
    }

    #[test]
    fn both_packings_are_read() {
        let snapshot = prose();
        for packing in [Packing::Lz4, Packing::Zstd] {
            let packed = pack(&snapshot, packing);
            assert_eq!(
                unpack(Revision(7), &packed).unwrap(),
                snapshot,
                "{packing:?}"
            );
        }
    }

    #[test]
    fn snapshot_of_an_earlier_version_is_read() {
        let content = Content::create(Kind::TextUnicode, Some("\"abc\"")).unwrap();
        let snapshot = Snapshot {
            revision: Revision(7),
            at_ms: 3,
            content: Some(content),
            creator: None,
        };
        let packed: Vec<u8> = (0..EARLIER.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&EARLIER[at..at + 2], 16).unwrap())
            .collect();
        assert_eq!(unpack(Revision(7), &packed).unwrap(), snapshot);
    }

    #[test]
    fn zstd_frame_that_is_longer_than_stated_is_refused() {
        let frame = zstd::bulk::compress(&[b'a'; 1_000], ZSTD_LEVEL).unwrap();
        let body = [&999_u32.to_le_bytes()[..], &frame].concat();
        let mut packed = vec![FORMAT_ZSTD];
        packed.extend_from_slice(&checksum(Revision(7), &body));
        packed.extend_from_slice(&body);
        let refused = unpack(Revision(7), &packed);
        assert!(matches!(refused, Err(UnpackError::Zstd(_))), "{refused:?}");
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
        for packing in [Packing::Lz4, Packing::Zstd] {
            assert_damage_is_noticed(&snapshot, packing);
        }
    }

    fn assert_damage_is_noticed(snapshot: &Snapshot, packing: Packing) {
        let packed = pack(snapshot, packing);
        assert_eq!(unpack(Revision(7), &packed).unwrap(), *snapshot);
        assert!(matches!(
            unpack(Revision(8), &packed),
            Err(UnpackError::Checksum)
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
