//! From a message of the client to the request that it makes: parsing, rate limits, and the function that serves it.

use std::time::Duration;

use actix_http::ws::ProtocolError;
use actix_web::rt::time::{Instant, sleep};
use actix_ws::AggregatedMessage;

use super::{ClientKind, RequestError, Session, SessionEnd};
use crate::access::{HOME_TENANT, tenant_of};
use crate::doc::SessionRequest;
use crate::gateway::metrics::ThrottleLimit;
use crate::gateway::upgrade;
use crate::id::DocId;
use crate::node::{AskError, ReplyTo};
use crate::protocol::{
    self, BadRequest, ClientMessage, CloseReason, Code, EchoedFields, Frames, Refusal, pong_frame,
};
use crate::store::LoadRange;

/// The shortest wait for a rate limit that the client is notified of.
const NOTIFIED_WAIT_MIN: Duration = Duration::from_millis(500);

impl Session {
    /// Serves a message of the client.
    ///
    /// # Errors
    /// If the session ends.
    pub(super) async fn received(
        &mut self,
        message: Result<AggregatedMessage, ProtocolError>,
    ) -> Result<(), SessionEnd> {
        let wait = self
            .limits
            .take_messages(self.extra_frames.saturating_add(1));
        let metrics = self.gateway.metrics();
        metrics.throttled(ThrottleLimit::Socket, wait);
        let bytes = match &message {
            Ok(AggregatedMessage::Text(text)) => text.len(),
            _ => 0,
        };
        metrics.message_received(bytes);
        if !wait.is_zero() {
            self.wait_for(sleep(wait)).await?;
        }
        match message {
            Ok(AggregatedMessage::Text(text)) => self.request(&text).await,
            Ok(AggregatedMessage::Binary(_)) => Err(CloseReason::BinaryMessage.into()),
            Ok(AggregatedMessage::Ping(payload)) => {
                self.send(pong_frame(&payload));
                Ok(())
            }
            Ok(AggregatedMessage::Pong(_)) => Ok(()),
            Ok(AggregatedMessage::Close(_)) => Err(CloseReason::Normal.into()),
            Err(error) => {
                let reason = upgrade::close_reason(&error);
                Err(reason.map_or(SessionEnd::Disconnected, SessionEnd::Closed))
            }
        }
    }

    async fn request(&mut self, text: &str) -> Result<(), SessionEnd> {
        let (message, echo) = match protocol::parse(text) {
            Ok(parsed) => parsed,
            Err(BadRequest::Refused(echo, refusal)) => {
                self.send(protocol::error(&echo, &refusal));
                return Ok(());
            }
            Err(BadRequest::NotAnObject) => return Err(CloseReason::NotAnObject.into()),
        };
        let is_submit = message.changed_document().is_some();
        if is_submit {
            self.edited = Instant::now();
        }
        match self.serve_within_limits(message, &echo).await {
            Ok(()) => Ok(()),
            Err(RequestError::SessionEnded(end)) => Err(end),
            // A client discards an edit that is rejected. After a close it reconnects and sends the edit again.
            Err(RequestError::Rejected(refusal)) if is_submit && refusal.will_pass() => {
                Err(CloseReason::Overloaded.into())
            }
            Err(RequestError::Rejected(refusal)) => {
                self.send(protocol::error(&echo, &refusal));
                Ok(())
            }
        }
    }

    /// Waits for the rate limits that a message counts towards, then serves it.
    async fn serve_within_limits(
        &mut self,
        message: ClientMessage,
        echo: &EchoedFields,
    ) -> Result<(), RequestError> {
        // Count the message towards the limits of the socket and the shared ones.
        let weight = self.weight(&message);
        self.limits.take_messages(weight - 1);
        let weight = weight.saturating_add(std::mem::take(&mut self.extra_frames));
        let wait = self
            .take_shared(&message, weight)
            .ok_or_else(Refusal::busy)?;
        let metrics = self.gateway.metrics();
        metrics.throttled(ThrottleLimit::Shared, wait);
        if !wait.is_zero() {
            self.delay(wait).await?;
        }
        // Apply pending access changes first, so that a request without permission is rejected.
        self.apply_access_change().await?;
        if message.is_read() {
            self.answers_written().await?;
        }
        let served = self.dispatch(message, echo).await;
        // A request that was aborted because of an access change is followed by that change.
        self.apply_access_change().await?;
        served
    }

    /// Delays a client that is over a rate limit. Its socket is not read meanwhile.
    async fn delay(&mut self, wait: Duration) -> Result<(), SessionEnd> {
        if self.client_kind == ClientKind::Extended && wait >= NOTIFIED_WAIT_MIN {
            self.send(protocol::slowed(wait));
        }
        self.wait_for(sleep(wait)).await
    }

    /// Waits until no more than 64 KiB of the answers to earlier reads are unwritten, so that one large answer is held at a
    /// time. A client that does not read its answers is not read; its writer closes the socket when it makes no progress.
    async fn answers_written(&mut self) -> Result<(), SessionEnd> {
        let outbox = self.outbox.clone();
        self.wait_for(outbox.drained()).await
    }

    /// How many messages a message counts as. A presence is sent to each subscriber of its channel, so it counts as one more
    /// for every eight of them and for each KiB of its value.
    fn weight(&self, message: &ClientMessage) -> u32 {
        let (channel, bytes) = match message {
            ClientMessage::Presence(presence) => (&presence.channel, presence.value.len()),
            ClientMessage::PresenceRequest { channel }
            | ClientMessage::PresenceSubscribe { channel, .. } => (channel, 0),
            _ => return 1,
        };
        let subscribers = self.gateway.node().presence().subscriber_count(channel);
        let frames = subscribers.saturating_mul(1 + bytes / 1_024);
        u32::try_from(1 + frames / 8).unwrap_or(u32::MAX)
    }

    /// Counts a message towards the shared limits. Returns the wait; `None` if it is too long.
    fn take_shared(&mut self, message: &ClientMessage, weight: u32) -> Option<Duration> {
        let name = message.collection_or_channel();
        let tenant = name.map_or(HOME_TENANT, tenant_of);
        let doc = message.changed_document();
        self.limits
            .take_shared(self.gateway.limits(), tenant, doc, weight)
    }

    async fn dispatch(
        &mut self,
        message: ClientMessage,
        echo: &EchoedFields,
    ) -> Result<(), RequestError> {
        match message {
            ClientMessage::Handshake { client } => self.handshake(client)?,
            ClientMessage::Ping => self.send(Frames::one(b"{\"a\":\"pp\"}")),
            ClientMessage::Fetch { doc, since, min } => self.fetch(&doc, since, min, echo).await?,
            ClientMessage::Subscribe { doc, since, min } => {
                self.subscribe(&doc, since, min, echo).await?;
            }
            ClientMessage::Unsubscribe { doc } => self.unsubscribe(&doc, echo).await?,
            ClientMessage::BulkFetch(bulk) => self.bulk_fetch(bulk, echo).await?,
            ClientMessage::BulkSubscribe(bulk) => self.bulk_subscribe(bulk, echo).await?,
            ClientMessage::BulkUnsubscribe(bulk) => self.bulk_unsubscribe(&bulk, echo).await?,
            ClientMessage::Submit { doc, submit } => self.submit(doc, submit, echo).await?,
            ClientMessage::HistoryAt { doc, revision } => {
                let range = revision.map_or(LoadRange::Head, LoadRange::At);
                self.history(&doc, range, echo).await?;
            }
            ClientMessage::HistoryAtTime { doc, at_ms } => {
                let range = at_ms.map_or(LoadRange::Head, LoadRange::AtTime);
                self.history(&doc, range, echo).await?;
            }
            ClientMessage::Presence(presence) => self.publish_presence(presence, echo).await?,
            ClientMessage::PresenceSubscribe { channel, seq } => {
                self.subscribe_presence(&channel, seq).await?;
            }
            ClientMessage::PresenceUnsubscribe { channel, seq } => {
                self.unsubscribe_presence(&channel, seq);
            }
            ClientMessage::PresenceRequest { channel } => {
                self.request_presence(&channel, echo).await?;
            }
        }
        Ok(())
    }

    /// Sends a request to the task of a document, which answers it through the outbox.
    pub(super) async fn ask(
        &self,
        doc: &DocId,
        request: SessionRequest,
        reply: ReplyTo,
    ) -> Result<(), Refusal> {
        let node = self.gateway.node();
        let asked = node.ask(doc, (self.id, &self.outbox), request, reply).await;
        match asked {
            Ok(()) => Ok(()),
            Err(AskError::Stopping) => {
                // No error: a client discards a submit that is rejected, and sends it again after a close.
                self.outbox.close(CloseReason::Restarting);
                Ok(())
            }
            Err(AskError::Full) => Err(Refusal::new(
                Code::Busy,
                "Too many documents are open: try again",
            )),
        }
    }

    /// Sends a request that returns the content or the commits of a document, when few of them are unanswered.
    pub(super) async fn ask_read(
        &mut self,
        doc: &DocId,
        request: SessionRequest,
        echo: &EchoedFields,
    ) -> Result<(), RequestError> {
        let slot = self.request_slot(&self.reads.clone()).await?;
        let reply = ReplyTo::Read(Box::new(echo.clone()), slot);
        Ok(self.ask(doc, request, reply).await?)
    }
}
