//! Changes of the user's access while the socket is open.

use std::collections::BTreeSet;

use super::{ClientKind, Session, SessionEnd};
use crate::access::Role;
use crate::auth::{AccessChange, PermissionScope};
use crate::doc::SessionRequest;
use crate::gateway::permission_cache::{AccessLost, RefreshedRole, document_of_channel};
use crate::id::{DocId, Name};
use crate::log::Revision;
use crate::node::ReplyTo;
use crate::protocol::{self, CloseReason, Refusal};

impl Session {
    /// Applies the pending change of the user's access, if there is one.
    ///
    /// # Errors
    /// If the session ends with it.
    pub(super) async fn apply_access_change(&mut self) -> Result<(), SessionEnd> {
        match self.permissions.take_access_change() {
            None => Ok(()),
            Some(AccessChange::Permissions(scope)) => self.refresh_permissions(scope).await,
            Some(AccessChange::SessionEnded) => Err(CloseReason::SignedOut.into()),
        }
    }

    /// Reads the user's permissions again and applies what has changed.
    ///
    /// # Errors
    /// If the user has lost access to a subscribed document: the protocol has no message for it, so the socket is closed,
    /// and the document is rejected when the client subscribes again.
    pub(super) async fn refresh_permissions(
        &mut self,
        scope: PermissionScope,
    ) -> Result<(), SessionEnd> {
        let channels = self.presences.channels();
        let of_channels = channels.filter_map(document_of_channel);
        let subscribed = self.subscriptions.documents().cloned();
        let in_use: BTreeSet<DocId> = subscribed.chain(of_channels).collect();
        let refreshed = self.permissions.refresh(scope, in_use).await;
        let refreshed = refreshed.map_err(|lost| match lost {
            AccessLost::SignedOut => CloseReason::SignedOut,
            AccessLost::LookupFailed => CloseReason::PermissionsUnknown,
        })?;
        let mut has_lost_access = false;
        for RefreshedRole {
            doc,
            role,
            has_changed,
        } in refreshed
        {
            if has_changed && self.client_kind == ClientKind::Extended {
                self.send(protocol::rights(&doc, role.map(Role::as_str)));
            }
            // Submits that have not reached the owner of the document are discarded.
            if has_changed && role < Some(Role::Editor) {
                self.gateway.node().revoke_write(&doc, self.id).await;
            }
            match role {
                None => has_lost_access |= self.receives_updates_of(&doc),
                Some(_) => self.reveal(&doc).await,
            }
        }
        if has_lost_access {
            return Err(CloseReason::AccessLost.into());
        }
        Ok(())
    }

    /// Whether the client is sent commits or presences of a document.
    fn receives_updates_of(&self, doc: &DocId) -> bool {
        let is_of_doc = |channel: &Name| document_of_channel(channel).as_ref() == Some(doc);
        self.subscriptions.is_visible(doc) || self.presences.channels().any(is_of_doc)
    }

    /// Sends a document that was hidden until now from its beginning.
    pub(super) async fn reveal(&mut self, doc: &DocId) {
        if !self.subscriptions.reveal(doc) {
            return;
        }
        let request = SessionRequest::Subscribe {
            since: Some(Revision::ZERO),
        };
        // No request of the client could be answered with the error: it reconnects and subscribes again.
        let asked = self.ask(doc, request, ReplyTo::Unrequested).await;
        if asked.is_err() {
            self.outbox.close(CloseReason::SubscriptionFailed);
        }
    }

    /// Sends the user's role on a document to a client that knows such messages.
    pub(super) async fn send_role(&mut self, doc: &DocId) -> Result<(), Refusal> {
        if self.client_kind == ClientKind::Extended {
            let role = self.permissions.role(doc).await?;
            self.send(protocol::rights(doc, role.map(Role::as_str)));
        }
        Ok(())
    }
}
