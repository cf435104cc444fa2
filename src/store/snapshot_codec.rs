//! The stored form of snapshots: encoded, compressed, and with a checksum that detects damage.

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_128;

use crate::log::{DecodeError, Revision, Snapshot};
use crate::ot::CONTENT_BYTES_MAX;

/// The first byte of a packed snapshot: it is followed by XXH3 (128 bits) over the revision and the rest, the unpacked
/// size, and LZ4.
const FORMAT_LZ4: u8 = 1;

/// As [`FORMAT_LZ4`], with zstd. Written if all live nodes can read it.
const FORMAT_ZSTD: u8 = 2;

/// Compresses 20 kB of prose by a factor of 2.4 (LZ4: 1.5) and 200 kB by 3.4. Higher levels gain 3 % for ten times the
/// work.
const ZSTD_LEVEL: i32 = 9;

/// The largest size of an unpacked snapshot, in bytes. The JSON of a content has less than twice the bytes that its
/// size counts.
const UNPACKED_BYTES_MAX: usize = 2 * CONTENT_BYTES_MAX;

const CHECKSUM_BYTES: usize = 16;

/// The size of the unpacked snapshot, little-endian, before the compressed bytes.
const SIZE_BYTES: usize = 4;

/// How a snapshot is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// Readable by every version.
    Lz4,
    /// Smaller. Nodes need [`ZSTD_SNAPSHOTS`](crate::version::Capabilities::ZSTD_SNAPSHOTS) to read it.
    Zstd,
}

/// Why a packed snapshot cannot be read.
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

/// Encodes and compresses a snapshot and adds the checksum. Falls back to LZ4 if zstd fails, for example for lack of
/// memory.
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

/// The size of `encoded`, followed by its zstd frame.
fn compress_zstd(encoded: &[u8]) -> Option<Vec<u8>> {
    let size = u32::try_from(encoded.len()).ok()?;
    let frame = zstd::bulk::compress(encoded, ZSTD_LEVEL).ok()?;
    let mut body = Vec::with_capacity(SIZE_BYTES + frame.len());
    body.extend_from_slice(&size.to_le_bytes());
    body.extend_from_slice(&frame);
    Some(body)
}

/// Verifies the checksum of the packed snapshot at `revision`. Returns its compressed body.
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

/// Verifies and reads the packed snapshot at `revision`.
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

/// The checksum includes the revision, so a snapshot of another revision does not match.
fn checksum(revision: Revision, body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    (xxh3_128(body) ^ u128::from(revision.0)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ot::{Content, Kind};

    #[test]
    fn snapshot_that_is_too_large_is_not_unpacked() {
        let text = "a".repeat(UNPACKED_BYTES_MAX + 1);
        let body = lz4_flex::block::compress_prepend_size(text.as_bytes());
        let mut packed = vec![FORMAT_LZ4];
        packed.extend_from_slice(&checksum(Revision(7), &body));
        packed.extend_from_slice(&body);
        let refused = unpack(Revision(7), &packed);
        assert!(matches!(refused, Err(UnpackError::TooLarge)), "{refused:?}");
    }

    /// The plain text "abc" at revision 7, as versions before zstd wrote it.
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
    fn each_flipped_bit_is_detected() {
        let content = Content::create(Kind::TextUnicode, Some("\"aaaaaaaaaaaaaaaaab\"")).unwrap();
        let snapshot = Snapshot {
            revision: Revision(7),
            at_ms: 3,
            content: Some(content),
            creator: None,
        };
        for packing in [Packing::Lz4, Packing::Zstd] {
            assert_damage_is_detected(&snapshot, packing);
        }
    }

    fn assert_damage_is_detected(snapshot: &Snapshot, packing: Packing) {
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
