//! Faults of a document: panics, and entries that the store refuses.

use std::any::Any;

use super::DocumentTask;
use crate::doc::{PeerMessage, PoisonSubmit, Rejection, SessionReply};
use crate::log::Entry;
use crate::node::faults::FaultyDocument;

impl DocumentTask {
    /// The state machine or one of its actions panicked. The submit that caused it is rejected and kept as a dead letter.
    pub(super) fn panicked(&mut self, cause: &(dyn Any + Send)) {
        tracing::error!(
            "a document's state machine panicked: the document is closed and loaded again"
        );
        self.services.metrics.document_panics.inc();
        let poison = self.document.poison_submit();
        let faults = &self.services.faults;
        faults.panicked(&self.faulty(), cause, poison.as_ref());
        if let Some(poison) = poison {
            self.reject_poison_submit(poison);
        }
    }

    /// Rejects the submit that caused a panic, wherever it came from: it would cause the next panic.
    fn reject_poison_submit(&mut self, poison: PoisonSubmit) {
        let rejection = Rejection::op_not_applied();
        for (session, ticket) in poison.requests {
            self.reply(session, ticket, SessionReply::Rejected(rejection.clone()));
        }
        if poison.from != self.services.id {
            let id = poison.id;
            self.send_to_peer(poison.from, PeerMessage::Reject { id, rejection });
        }
    }

    /// The store refuses an entry because of its values.
    pub(super) fn report_refused(&self, entry: &Entry) {
        self.services.faults.entry_refused(&self.faulty(), entry);
    }

    fn faulty(&self) -> FaultyDocument<'_> {
        FaultyDocument {
            doc: &self.doc,
            head: self.document.known_revision(),
            at_ms: self.services.clock.wall_ms(),
        }
    }
}
