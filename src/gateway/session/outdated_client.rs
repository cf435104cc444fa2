//! A client that holds documents of another history of the log.

use std::collections::BTreeSet;

use crate::doc::Proposal;
use crate::id::DocId;
use crate::log::Revision;
use crate::protocol::Refusal;

/// Limits the requests of a client that holds documents of another history of the log, after the store was restored from a
/// backup. Pure.
///
/// A revision of that history says nothing about the log, so each request that names one is rejected, and so is each edit.
/// A document that the client discards and loads again, as the ShareDB client does after a rejected op, is served. The
/// client keeps its id, so that it is recognised on its next socket too.
#[derive(Debug)]
pub(super) struct OutdatedClient {
    /// The documents that the client has loaded again.
    reloaded: BTreeSet<DocId>,
    documents_max: usize,
}

impl OutdatedClient {
    /// A client that has loaded no document again, and may load `documents_max`.
    pub(super) fn new(documents_max: usize) -> Self {
        Self {
            reloaded: BTreeSet::new(),
            documents_max,
        }
    }

    /// Checks a fetch or a subscription of a client that has `since`. Without anything, the document counts as reloaded.
    ///
    /// # Errors
    /// If the client has the document from another history.
    pub(super) fn admit(&mut self, doc: &DocId, since: Option<Revision>) -> Result<(), Refusal> {
        // Revision 0 is the same in all histories.
        let has_nothing = since.is_none_or(|since| since == Revision::ZERO);
        if has_nothing && self.reloaded.len() < self.documents_max {
            self.reloaded.insert(doc.clone());
        }
        self.require_reloaded(doc)
    }

    /// Checks a submit that was made on `base`.
    ///
    /// # Errors
    /// If `base` is a revision of another history.
    pub(super) fn admit_submit(
        &mut self,
        doc: &DocId,
        base: Option<Revision>,
        proposal: &Proposal,
    ) -> Result<(), Refusal> {
        match (base, proposal) {
            (None | Some(Revision::ZERO), Proposal::Create(_)) => self.admit(doc, base),
            _ => self.require_reloaded(doc),
        }
    }

    /// Checks that the client has loaded a document again.
    ///
    /// # Errors
    /// If it has not.
    pub(super) fn require_reloaded(&self, doc: &DocId) -> Result<(), Refusal> {
        if self.reloaded.contains(doc) {
            return Ok(());
        }
        Err(Refusal::history_changed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Code;

    #[test]
    fn only_reloaded_documents_are_served() {
        let mut client = OutdatedClient::new(2);
        let [a, b, c] = ["a", "b", "c"].map(|id| DocId::parse("c", id).unwrap());
        let edit = Proposal::Edit("[]".into());
        let rejected = |checked: Result<(), Refusal>| checked.unwrap_err().code;
        assert_eq!(
            rejected(client.admit(&a, Some(Revision(9)))),
            Code::HistoryChanged
        );
        for base in [None, Some(Revision::ZERO), Some(Revision(9))] {
            let checked = client.admit_submit(&a, base, &edit);
            assert_eq!(rejected(checked), Code::HistoryChanged, "{base:?}");
        }
        client.admit(&a, None).unwrap();
        client.admit(&a, Some(Revision(11))).unwrap();
        client.admit_submit(&a, Some(Revision(11)), &edit).unwrap();
        assert_eq!(rejected(client.require_reloaded(&b)), Code::HistoryChanged);
        client.admit(&b, Some(Revision::ZERO)).unwrap();
        assert_eq!(rejected(client.admit(&c, None)), Code::HistoryChanged);
    }
}
