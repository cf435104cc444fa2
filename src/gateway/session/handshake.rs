//! The client's handshake: which client id it resumes.

use tracing::Span;

use super::outdated_client::OutdatedClient;
use super::{ClientKind, Session, SessionEnd};
use crate::id::{ClientId, DocId};
use crate::log::Revision;
use crate::protocol::{self, CloseReason, Refusal};

impl Session {
    /// Resumes the client id of an earlier connection if it was issued to this user. An id of another server is replaced by
    /// one that is derived from it; for any other the socket keeps its new id.
    ///
    /// # Errors
    /// If the client is of another history of the log and is closed for it: the editor of this project then keeps unsaved
    /// text and reloads.
    pub(super) fn handshake(&mut self, claimed: Option<String>) -> Result<(), SessionEnd> {
        self.has_returned |= claimed.is_some();
        let claimed = claimed.and_then(|id| ClientId::parse(&id).ok());
        let issuer = self.gateway.client_ids();
        let history = self.outbox.history();
        if let Some(claimed) = &claimed
            && issuer.is_of_another_history(claimed, history)
        {
            // A client of another user would get a new id, and would pass for one of this history when it reconnects.
            if self.client_kind == ClientKind::Extended || !self.is_own_client(claimed) {
                return Err(CloseReason::HistoryChanged.into());
            }
            let documents_max = self.gateway.settings().documents_max;
            self.outdated = Some(OutdatedClient::new(documents_max));
        }
        if let Some(claimed) = claimed {
            if self.is_own_client(&claimed) {
                self.client = claimed;
            } else if !issuer.is_issued_here(&claimed) {
                let author = &self.permissions.identity().author;
                self.client = issuer.replacement(author, &claimed, history);
            }
        }
        if self.has_returned {
            Span::current().record("resumed", self.client.as_str());
        }
        self.send(protocol::handshake("hs", &self.client));
        Ok(())
    }

    /// Whether a client id was issued to this socket's user.
    pub(super) fn is_own_client(&self, client: &ClientId) -> bool {
        let author = &self.permissions.identity().author;
        self.gateway.client_ids().is_issued_to(author, client)
    }

    /// Checks a read of a client that has `since` of a document.
    ///
    /// # Errors
    /// If the client has it from another history of the log.
    pub(super) fn check_history(
        &mut self,
        doc: &DocId,
        since: Option<Revision>,
    ) -> Result<(), Refusal> {
        let outdated = self.outdated.as_mut();
        outdated.map_or(Ok(()), |outdated| outdated.admit(doc, since))
    }
}
