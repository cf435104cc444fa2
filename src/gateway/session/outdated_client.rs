//! A client that comes back from another history of the log.

use std::collections::BTreeSet;

use crate::doc::Proposal;
use crate::id::DocId;
use crate::log::Revision;
use crate::protocol::Refusal;

/// What a client may do that holds documents as they were in another history of the log.
///
/// A revision that it names says nothing about the log as it is now, so each request that names one is refused, and so is
/// each edit. A client that throws a document away and loads it anew, as ShareDB's does after a refused op, may go on with
/// that document. It keeps its id, so that it is recognised on its next socket too.
#[derive(Debug)]
pub(super) struct OutdatedClient {
    /// The documents that it has loaded anew.
    reloaded: BTreeSet<DocId>,
    documents_max: usize,
}

impl OutdatedClient {
    /// A client that has loaded nothing anew, and may so load as many documents.
    pub(super) fn new(documents_max: usize) -> Self {
        Self {
            reloaded: BTreeSet::new(),
            documents_max,
        }
    }

    /// Admits a fetch or a subscription of a client that says that it has `since`.
    ///
    /// # Errors
    /// If what it has is of another history.
    pub(super) fn admit(&mut self, doc: &DocId, since: Option<Revision>) -> Result<(), Refusal> {
        // All histories begin with the same nothing.
        let has_nothing = since.is_none_or(|since| since == Revision::ZERO);
        if has_nothing && self.reloaded.len() < self.documents_max {
            self.reloaded.insert(doc.clone());
        }
        self.demand(doc)
    }

    /// Admits a submit made on `base`.
    ///
    /// # Errors
    /// If it was made on a revision of another history.
    pub(super) fn admit_submit(
        &mut self,
        doc: &DocId,
        base: Option<Revision>,
        proposal: &Proposal,
    ) -> Result<(), Refusal> {
        match (base, proposal) {
            (None | Some(Revision::ZERO), Proposal::Create(_)) => self.admit(doc, base),
            _ => self.demand(doc),
        }
    }

    /// Admits what needs a document that was loaded anew.
    ///
    /// # Errors
    /// If it was not.
    pub(super) fn demand(&self, doc: &DocId) -> Result<(), Refusal> {
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
    fn only_what_was_loaded_anew_is_served() {
        let mut client = OutdatedClient::new(2);
        let [a, b, c] = ["a", "b", "c"].map(|id| DocId::parse("c", id).unwrap());
        let edit = Proposal::Edit("[]".into());
        let refused = |answer: Result<(), Refusal>| answer.unwrap_err().code;
        assert_eq!(
            refused(client.admit(&a, Some(Revision(9)))),
            Code::HistoryChanged
        );
        for base in [None, Some(Revision::ZERO), Some(Revision(9))] {
            let answer = client.admit_submit(&a, base, &edit);
            assert_eq!(refused(answer), Code::HistoryChanged, "{base:?}");
        }
        client.admit(&a, None).unwrap();
        client.admit(&a, Some(Revision(11))).unwrap();
        client.admit_submit(&a, Some(Revision(11)), &edit).unwrap();
        assert_eq!(refused(client.demand(&b)), Code::HistoryChanged);
        client.admit(&b, Some(Revision::ZERO)).unwrap();
        assert_eq!(refused(client.admit(&c, None)), Code::HistoryChanged);
    }
}
