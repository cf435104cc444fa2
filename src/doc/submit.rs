//! A change that a client wants committed.

use std::sync::Arc;

use crate::log::{Revision, SubmitId};
use crate::ot::Content;

/// A change on its way to the owner.
#[derive(Debug, Clone)]
pub struct Submit {
    /// Identifies the submit, also across reconnects.
    pub id: SubmitId,
    /// The revision that the change was made on; `None`: whichever is current when it is sequenced.
    pub base: Option<Revision>,
    /// The change.
    pub proposal: Proposal,
}

/// The change of a submit, as far as it can be parsed without the document.
#[derive(Debug, Clone, PartialEq)]
pub enum Proposal {
    /// Creates the document.
    Create(Content),
    /// Edits the document. The op is JSON, because only the document's type can parse it.
    Edit(Arc<str>),
    /// Deletes the document.
    Delete,
}

impl Proposal {
    /// The approximate size in bytes, for limits.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Create(content) => content.size_bytes(),
            Self::Edit(json) => json.len(),
            Self::Delete => 0,
        }
    }
}
