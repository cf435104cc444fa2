//! What a document's task reports about itself to the rest of the node.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::log::{Epoch, Revision};
use crate::node::cluster::log_history::NewestCommit;
use crate::sync::lock;

/// The state of an open document, written by its task and read by the node.
#[derive(Debug, Default)]
pub(in crate::node) struct OwnershipStatus {
    /// The epoch under which the node owns the document; 0 if it does not.
    owned: AtomicU64,
    /// One more than the revision at which the node follows the document; 0 if it does not.
    followed: AtomicU64,
    newest_commit: Mutex<Option<NewestCommit>>,
    /// Whether a claim is under way. Written last and read first: a reader that sees false also sees the outcome of the claim.
    is_claiming: AtomicBool,
}

/// What a node has of an open document.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) struct Ownership {
    /// The epoch under which the node owns it.
    pub(in crate::node) owned: Option<Epoch>,
    /// The revision at which the node follows it without owning it.
    pub(in crate::node) followed: Option<Revision>,
    /// Whether a claim is under way.
    pub(in crate::node) is_claiming: bool,
}

impl OwnershipStatus {
    pub(super) fn set_newest_commit(&self, commit: NewestCommit) {
        *lock(&self.newest_commit) = Some(commit);
    }

    pub(super) fn newest_commit(&self) -> Option<NewestCommit> {
        lock(&self.newest_commit).clone()
    }

    pub(super) fn set(&self, ownership: Ownership) {
        let owned = ownership.owned.map_or(0, |epoch| epoch.0);
        self.owned.store(owned, Ordering::Relaxed);
        let followed = ownership.followed.map_or(0, |head| head.0 + 1);
        self.followed.store(followed, Ordering::Relaxed);
        self.is_claiming
            .store(ownership.is_claiming, Ordering::Release);
    }

    pub(super) fn get(&self) -> Ownership {
        let is_claiming = self.is_claiming.load(Ordering::Acquire);
        let owned = self.owned.load(Ordering::Relaxed);
        let followed = self.followed.load(Ordering::Relaxed);
        Ownership {
            owned: (owned > 0).then_some(Epoch(owned)),
            followed: followed.checked_sub(1).map(Revision),
            is_claiming,
        }
    }
}
