//! What a forwarder and an owner say to each other. Every message may be lost, doubled or late: revisions reveal gaps,
//! and whoever still waits asks again.

use std::sync::Arc;

use crate::log::{Entry, Revision, SubmitId};
use crate::protocol::{Proposal, Refusal};

/// A change on its way to the owner.
#[derive(Debug, Clone)]
pub struct Submit {
    /// What names it for ever.
    pub id: SubmitId,
    /// The revision that it was made on; none: whatever is current.
    pub base: Option<Revision>,
    /// The change.
    pub proposal: Proposal,
}

/// One message between two nodes about one document.
#[derive(Debug, Clone)]
pub enum Link {
    /// To the owner: tell me the commits after `since`, and all that follow. Soft state, said again and again; whoever is
    /// to become the owner keeps it until then.
    Subscribe {
        /// The newest revision that the forwarder has.
        since: Revision,
    },
    /// To the owner: a client's change.
    Submit(Submit),
    /// From the owner: entries that are durable, without a gap. Perhaps none: then the head is the news.
    Commits {
        /// The newest revision that is durable.
        head: Revision,
        /// The entries.
        entries: Vec<Arc<Entry>>,
    },
    /// From the owner: a submit that was refused.
    Reject {
        /// The submit.
        id: SubmitId,
        /// Why.
        refusal: Refusal,
    },
    /// To the owner: the stored log is damaged. Save what you hold in memory, so that it can be loaded again.
    SaveSnapshot,
}
