//! The messages between the forwarders and the owner of a document.

use std::sync::Arc;

use super::rejection::Rejection;
use super::submit::Submit;
use crate::log::{Entry, Revision, SubmitId};

/// A message between two nodes about one document.
///
/// Messages may be lost, duplicated and reordered: receivers find gaps by revision, and senders repeat what was not answered.
#[derive(Debug, Clone)]
pub enum PeerMessage {
    /// To the owner: send the commits after `since`, and all later ones. The subscription expires unless it is repeated. A
    /// node that does not own the document keeps it for the case that it becomes the owner.
    Subscribe {
        /// The newest revision that the forwarder has.
        since: Revision,
    },
    /// To the owner: a client's change, and the [fingerprint](Entry::fingerprint) of the entry at its base that the forwarder
    /// has, if it has one. If the owner has another entry there, it answers with [`Diverged`](Self::Diverged).
    Submit(Submit, Option<u64>),
    /// From the owner: durable entries, without a gap; without entries, only the head.
    Commits {
        /// The newest durable revision.
        head: Revision,
        /// The entries.
        entries: Vec<Arc<Entry>>,
    },
    /// From the owner: a submit was rejected.
    Reject {
        /// The submit.
        id: SubmitId,
        /// The reason.
        rejection: Rejection,
    },
    /// To the owner: the stored log is damaged. The owner saves a snapshot of what it holds in memory, from which the document
    /// can be loaded again.
    SaveSnapshot,
    /// From the owner: it has another entry at the base of a submit than the forwarder, so one of them has entries that the
    /// store has lost. The submit was neither accepted nor rejected.
    Diverged {
        /// The submit's base.
        revision: Revision,
    },
}
