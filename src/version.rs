//! Wire versions of the messages between nodes, and the capabilities of a node.

use std::fmt;
use std::sync::Arc;

/// The wire versions that a node can encode and decode, both ends included. Version 0 is reserved for the notice that
/// every version understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireRange {
    /// The oldest.
    pub oldest: u8,
    /// The newest.
    pub newest: u8,
}

impl WireRange {
    /// The versions of a node that does not state them: it is older than the statement of versions.
    pub const UNSTATED: Self = Self {
        oldest: 1,
        newest: 1,
    };

    /// The newest version that both support; `None` if there is none.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u8> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }

    /// Returns true if messages of this version can be decoded.
    #[must_use]
    pub fn contains(self, version: u8) -> bool {
        (self.oldest..=self.newest).contains(&version)
    }
}

impl fmt::Display for WireRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.oldest, self.newest)
    }
}

/// Capabilities of a node besides its wire versions, one bit each. Bits are never reused. A new message kind, entry kind or
/// stored format is used only while all live nodes have its bit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Answers messages that it cannot decode with a notice of its versions.
    pub const VERSION_NOTICE: Self = Self(1);

    /// Reads snapshots that are compressed by zstd.
    pub const ZSTD_SNAPSHOTS: Self = Self(1 << 1);

    /// Reads messages about a document in a renewed history, requests to save a snapshot, and questions whether edits can be
    /// saved. They are older than the statement of capabilities, so every program that states one reads them.
    pub const HISTORY_AND_SAVING: Self = Self::VERSION_NOTICE;

    /// Reads submits with the fingerprint of the entry at their base, and the answer that the entries differ.
    pub const BASE_FINGERPRINTS: Self = Self(1 << 2);

    /// Understands that a document in quarantine rejects changes (`ERR_DOC_QUARANTINED`).
    pub const QUARANTINE: Self = Self(1 << 3);

    /// The capabilities of this program.
    pub const ALL: Self = Self(
        Self::VERSION_NOTICE.0
            | Self::ZSTD_SNAPSHOTS.0
            | Self::BASE_FINGERPRINTS.0
            | Self::QUARANTINE.0,
    );

    /// The capabilities that both have.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns true if it has all of these.
    #[must_use]
    pub fn contain(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }
}

/// The versions that a node states in each heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeVersion {
    /// The wire versions that it supports.
    pub wire: WireRange,
    /// Its capabilities.
    pub capabilities: Capabilities,
    /// The program's version, for logs; empty if the node does not state it.
    pub program: Arc<str>,
}

/// A node that states nothing.
impl Default for NodeVersion {
    fn default() -> Self {
        Self {
            wire: WireRange::UNSTATED,
            capabilities: Capabilities::default(),
            program: "".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_version_is_the_newest_of_both() {
        let range = |oldest, newest| WireRange { oldest, newest };
        for (one, other, common) in [
            (range(1, 1), range(1, 1), Some(1)),
            (range(1, 1), range(1, 2), Some(1)),
            (range(1, 3), range(2, 5), Some(3)),
            (range(2, 3), range(3, 4), Some(3)),
            (range(1, 1), range(2, 2), None),
            (range(4, 6), range(1, 3), None),
        ] {
            assert_eq!(one.common(other), common, "{one} {other}");
            assert_eq!(other.common(one), common, "{other} {one}");
        }
    }

    #[test]
    fn capability_counts_only_if_both_have_it() {
        let (one, other) = (Capabilities(0b110), Capabilities(0b011));
        assert!(one.and(other).contain(Capabilities(0b010)));
        assert!(!one.and(other).contain(Capabilities(0b110)));
        assert!(
            !NodeVersion::default()
                .capabilities
                .contain(Capabilities::VERSION_NOTICE)
        );
    }
}
