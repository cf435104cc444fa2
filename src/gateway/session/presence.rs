//! Requests about presence.

use super::Session;
use crate::access::Role;
use crate::doc::{Presence, SessionRequest};
use crate::id::Name;
use crate::node::{PresenceRequester, ReplyTo};
use crate::protocol::{self, Code, EchoedFields, Refusal};

impl Session {
    pub(super) async fn subscribe_presence(
        &mut self,
        channel: &Name,
        seq: u64,
    ) -> Result<(), Refusal> {
        self.permissions.require_channel(channel).await?;
        let registry = self.gateway.node().presence();
        let is_published = |name: &Name| registry.has_published(self.id, name);
        self.presences.subscribe(channel, is_published)?;
        let client = (&self.client, self.presence_requester());
        registry.subscribe(self.id, client, &self.outbox, channel);
        self.send(protocol::presence_subscribed("ps", channel, seq));
        Ok(())
    }

    pub(super) fn unsubscribe_presence(&mut self, channel: &Name, seq: u64) {
        let registry = self.gateway.node().presence();
        registry.unsubscribe(self.id, channel);
        self.presences.unsubscribe(channel);
        self.send(protocol::presence_subscribed("pu", channel, seq));
    }

    /// Asks the other clients of a channel to send their presences again.
    pub(super) async fn request_presence(
        &mut self,
        channel: &Name,
        echo: &EchoedFields,
    ) -> Result<(), Refusal> {
        self.permissions.require_channel(channel).await?;
        let registry = self.gateway.node().presence();
        registry.request(self.id, self.presence_requester(), channel);
        self.send(protocol::done(echo));
        Ok(())
    }

    pub(super) async fn publish_presence(
        &mut self,
        mut presence: Presence,
        echo: &EchoedFields,
    ) -> Result<(), Refusal> {
        // Check the value, the channel, the document and the id.
        let bytes_max = self.gateway.settings().presence_bytes_max;
        if presence.value.len() > bytes_max {
            let message = format!("A presence has at most {bytes_max} bytes");
            return Err(Refusal::new(Code::TooLarge, message));
        }
        self.permissions.require_channel(&presence.channel).await?;
        if let Some(position) = &presence.position {
            if let Some(outdated) = &self.outdated {
                outdated.require_reloaded(&position.doc)?;
            }
            self.permissions
                .require_role(&position.doc, Role::Viewer)
                .await?;
        }
        self.require_unused_id(&presence)?;
        // Enter the name of the user.
        let identity = self.permissions.identity();
        if !identity.is_unrestricted() {
            let profile = identity.profile.as_ref();
            presence.sign(profile.map(|profile| profile.name.as_str()));
        }
        let registry = self.gateway.node().presence();
        let is_published = |name: &Name| registry.has_published(self.id, name);
        self.presences.update(&presence, is_published)?;
        // A position is published by its document, which first transforms it to its current revision. The end of a position
        // takes the same way, so that it does not overtake the position.
        let Some(position) = &presence.position else {
            registry.publish(self.id, &self.client, &self.outbox, presence);
            return Ok(());
        };
        let doc = position.doc.clone();
        let request = SessionRequest::PublishPresence {
            client: self.client.clone(),
            presence,
        };
        self.ask(&doc, request, ReplyTo::Socket(Box::new(echo.clone())))
            .await
    }

    /// Checks that no client of another user has a presence of the same id on the channel: subscribers tell presences apart
    /// by their ids alone. Clients of the same user may share an id, because a client that reconnects is a new one.
    fn require_unused_id(&self, presence: &Presence) -> Result<(), Refusal> {
        let (channel, id) = (&presence.channel, &presence.id);
        if self.presences.contains(channel, id) {
            return Ok(());
        }
        let registry = self.gateway.node().presence();
        let others = registry.clients_by_name(channel, id);
        if others.iter().all(|client| self.is_own_client(client)) {
            return Ok(());
        }
        let message = "The id of the presence is used by another user";
        Err(Refusal::new(Code::Forbidden, message))
    }

    /// Whether the registry asks a client for its own presences when it asks for those of others: it does after a reconnect.
    fn presence_requester(&self) -> PresenceRequester {
        if self.has_returned {
            PresenceRequester::Returning
        } else {
            PresenceRequester::New
        }
    }
}
