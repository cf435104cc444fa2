//! The versions of the messages between nodes: which of them a node understands, which of them two nodes share, and what
//! a node can do besides.

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
    /// What a node understands that does not state its versions: it is from before versions were stated.
    pub const UNSTATED: Self = Self {
        oldest: 1,
        newest: 1,
    };

    /// The newest version that both understand; `None` if there is none.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u8> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }

    /// Whether a message of this version can be decoded.
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

/// What a node can do beyond its wire versions, one bit each. Bits are never reused. A new message kind, entry kind or
/// stored format is used only while all live nodes have its bit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Answers messages that it cannot decode with a notice of its versions.
    pub const VERSION_NOTICE: Self = Self(1);

    /// Reads snapshots that are compressed by zstd.
    pub const ZSTD_SNAPSHOTS: Self = Self(1 << 1);

    /// All that this program can do.
    pub const ALL: Self = Self(Self::VERSION_NOTICE.0 | Self::ZSTD_SNAPSHOTS.0);

    /// What both can do.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether all of these are among them.
    #[must_use]
    pub fn contain(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }
}

/// The versions that a node states in each heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeVersion {
    /// The wire versions that it understands.
    pub wire: WireRange,
    /// What else it can do.
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
