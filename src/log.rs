//! The log of a document: revisions, epochs, entries, and the snapshots and tails made of them.

mod change;
mod snapshot;
mod tail;

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

pub use self::change::{Change, DecodeError, write_content};
pub use self::snapshot::{FoldError, Snapshot};
pub use self::tail::Tail;
use crate::id::{ClientId, UserId};

/// The number of entries in the log. Entry `r` leads from revision `r - 1` to `r`; on the wire a revision is ShareDB's
/// `v`, and an op's `v` is the revision that it applies to.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Revision(pub u64);

impl Revision {
    /// Before the first entry: the document has never existed.
    pub const ZERO: Self = Self(0);

    /// The revision one entry later.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The revision one entry earlier; revision zero for revision zero.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The fencing number of a document. It grows by one at every claim.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

/// The right to append: the epoch and the random token of one claim. The token distinguishes two claims that got the same
/// epoch because a failover lost the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The claim's number.
    pub epoch: Epoch,
    /// The claim's random part.
    pub token: u128,
}

/// Identifies a submit for ever.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubmitId {
    /// Its author.
    pub author: UserId,
    /// The client that sent it.
    pub client: ClientId,
    /// The client's count of its submits.
    pub seq: u64,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The revision that it leads to.
    pub revision: Revision,
    /// The epoch that it was committed under.
    pub epoch: Epoch,
    /// The submit that it commits.
    pub id: SubmitId,
    /// When its owner sequenced it, in milliseconds since 1970 by the owner's clock. For display only.
    pub at_ms: u64,
    /// Its effect.
    pub change: Change,
}

impl Entry {
    /// Approximate size in bytes, for bounds.
    #[must_use]
    pub fn size(&self) -> usize {
        self.change.size() + 200
    }

    /// A hash of the epoch and of the submit's id. Two entries of one document and revision have the same
    /// fingerprint only if they are the same commit.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        fingerprint(self.epoch, &self.id)
    }
}

/// [`Entry::fingerprint`] of an entry that has this epoch and came from this submit.
#[must_use]
pub fn fingerprint(epoch: Epoch, id: &SubmitId) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&epoch.0.to_le_bytes());
    hasher.update(&id.seq.to_le_bytes());
    for text in [id.author.as_str(), id.client.as_str()] {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.digest()
}

#[cfg(test)]
mod tests;
