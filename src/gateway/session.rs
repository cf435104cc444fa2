//! The session of one WebSocket: a loop that serves the client's requests one after the other and closes the socket.
//!
//! Commits, presences and answers of documents reach the client through the session's outbox, without this loop.

mod access;
mod bulk;
mod dispatch;
mod handshake;
mod outdated_client;
mod presence;
mod presence_quota;
mod silence;
mod submit;
mod subscriptions;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use actix_web::rt::time::{Instant, sleep_until};
use futures_util::FutureExt;
use tokio::select;
use tokio::sync::{Semaphore, watch};
use tracing::Instrument;

use self::outdated_client::OutdatedClient;
use self::presence_quota::PresenceQuota;
use self::silence::SilenceLimits;
use self::subscriptions::Subscriptions;
use super::gateway::{Gateway, Phase};
use super::permission_cache::PermissionCache;
use super::rate_limits::SocketRateLimits;
use super::upgrade::MessageStream;
use crate::auth::PermissionScope;
use crate::id::{ClientId, SessionId};
use crate::node::{ByteBudget, Outbox, RequestSlot};
use crate::protocol::{self, CloseReason, Refusal, ping_frame};

/// The session of one WebSocket.
#[derive(Debug)]
pub(super) struct Session {
    id: SessionId,
    gateway: Arc<Gateway>,
    permissions: PermissionCache,
    client_kind: ClientKind,
    /// Whether the client had a client id when it connected, so it was connected before.
    has_returned: bool,
    /// The client id of its submits and presences: issued for this socket, or resumed from an earlier one.
    client: ClientId,
    outbox: Arc<Outbox>,
    /// Set if the client holds documents of another history of the log.
    outdated: Option<OutdatedClient>,
    /// The bytes of its submits that are not answered.
    submit_budget: ByteBudget,
    /// Permits for its submits, reads and bulk requests that are not answered.
    submits: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    bulk_requests: Arc<Semaphore>,
    subscriptions: Subscriptions,
    presences: PresenceQuota,
    limits: SocketRateLimits,
    /// How many frames its last message came in, without the first. They count as messages.
    extra_frames: u32,
    /// The time of its newest edit or, before the first, of the connection.
    edited: Instant,
}

/// Which messages a client understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientKind {
    /// Any ShareDB client: the messages of the ShareDB protocol.
    ShareDb,
    /// The editor of this project, which asks for them: also the messages about permissions and rate limits.
    Extended,
}

/// How many reads of one socket may be unanswered. The socket is not read while it has as many.
const READS_MAX: usize = 8;

/// How long a socket must be open, and without an edit, before it may be moved to another node.
const IDLE_BEFORE_MOVE: Duration = Duration::from_secs(3);

/// Releases the outbox when the session ends, also by a panic, so that the connection ends too.
struct ReleaseOutbox(Arc<Outbox>);

impl Drop for ReleaseOutbox {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Why the loop of a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SessionEnd {
    /// The connection is gone, or the outbox has closed itself.
    Disconnected,
    /// The server closes the socket.
    Closed(CloseReason),
}

/// Why a request was not served.
#[derive(Debug)]
enum RequestError {
    /// The client gets an error.
    Rejected(Refusal),
    /// The session ends.
    SessionEnded(SessionEnd),
}

impl From<Refusal> for RequestError {
    fn from(refusal: Refusal) -> Self {
        Self::Rejected(refusal)
    }
}

impl From<SessionEnd> for RequestError {
    fn from(end: SessionEnd) -> Self {
        Self::SessionEnded(end)
    }
}

impl From<CloseReason> for SessionEnd {
    fn from(reason: CloseReason) -> Self {
        Self::Closed(reason)
    }
}

impl Session {
    pub(super) fn new(
        gateway: Arc<Gateway>,
        permissions: PermissionCache,
        client_kind: ClientKind,
        client: ClientId,
        outbox: Arc<Outbox>,
        limits: SocketRateLimits,
    ) -> Self {
        let settings = gateway.settings();
        Self {
            id: gateway.node().next_session(),
            permissions,
            client_kind,
            has_returned: false,
            client,
            outbox,
            outdated: None,
            submit_budget: ByteBudget::new(settings.submits_bytes_max),
            submits: Arc::new(Semaphore::new(gateway.node().session_submits_max())),
            reads: Arc::new(Semaphore::new(READS_MAX)),
            bulk_requests: Arc::new(Semaphore::new(1)),
            subscriptions: Subscriptions::new(settings.documents_max),
            presences: PresenceQuota::new(settings.channels_max),
            limits,
            extra_frames: 0,
            edited: Instant::now(),
            gateway,
        }
    }

    /// Serves the socket until the client disconnects or the server closes it.
    /// Not async itself: its future would hold the session and the messages twice.
    pub(super) fn run(self, messages: MessageStream) -> impl Future<Output = ()> {
        // Of the level of errors: lines of all levels have its fields.
        let (session, client) = (self.id.0, &self.client);
        let resumed = tracing::field::Empty;
        let span = tracing::error_span!(parent: None, "socket", session, client = client.as_str(), resumed);
        self.run_in_span(messages).instrument(span)
    }

    async fn run_in_span(mut self, mut messages: MessageStream) {
        let _release = ReleaseOutbox(self.outbox.clone());
        self.send(protocol::handshake("init", &self.client));
        let mut phase = self.gateway.phase();
        let end = self.serve(&mut messages, &mut phase).await;
        // Close the outbox before the documents are left: to others that hold it, a closed outbox is an ended session.
        let (reason, close_timeout) = match end {
            SessionEnd::Closed(reason @ CloseReason::IdleTimeout) => {
                (reason, self.silence_limits().close_timeout)
            }
            SessionEnd::Closed(reason) => (reason, self.gateway.settings().close_patience()),
            SessionEnd::Disconnected => {
                let close_timeout = self.gateway.settings().close_patience();
                (CloseReason::Normal, close_timeout)
            }
        };
        self.outbox.close(reason);
        let metrics = self.gateway.metrics();
        metrics.socket_closed(self.outbox.close_reason());
        Box::pin(self.leave_documents()).await;
        messages.end(&self.outbox, close_timeout).await;
    }

    /// The loop of the session. Each branch is cancel-safe: a watch, a notification, a stream or a timer. Futures of serving
    /// are boxed, so that an idle socket does not hold memory for them.
    async fn serve(
        &mut self,
        messages: &mut MessageStream,
        phase: &mut watch::Receiver<Phase>,
    ) -> SessionEnd {
        let mut received_at = Instant::now();
        let mut pinged_at = received_at;
        // While the node hands its documents over: when this socket is closed.
        let mut hand_over_at = None;
        let own_history = self.outbox.history();
        let mut history = self.gateway.node().watch_log_history();
        let gateway = self.gateway.clone();
        let mut selected = pin!(gateway.rebalance_queue().selected());
        loop {
            // What the phase of the server means for this socket.
            let current_phase = *phase.borrow_and_update();
            let accepts_requests = matches!(current_phase, Phase::Serving | Phase::Leaving);
            match current_phase {
                Phase::Closing => return CloseReason::Restarting.into(),
                Phase::Leaving => {
                    hand_over_at.get_or_insert(Instant::now() + self.hand_over_delay());
                }
                Phase::Serving | Phase::Draining => {}
            }
            // Deadlines of the timers.
            let SilenceLimits { ping, idle, .. } = self.silence_limits();
            let silent_at = (pinged_at.max(received_at) + ping).min(received_at + idle);
            let refresh_at = self.permissions.next_refresh().map(Instant::from_std);
            select! {
                biased;
                _ = phase.changed() => {}
                () = self.outbox.closed() => return SessionEnd::Disconnected,
                _ = history.wait_for(|history| *history != own_history) => {
                    return CloseReason::HistoryChanged.into();
                }
                () = self.permissions.access_changed() => {
                    if let Err(end) = Box::pin(self.apply_access_change()).await {
                        return end;
                    }
                }
                () = sleep_until(refresh_at.unwrap_or(silent_at)), if refresh_at.is_some() => {
                    let everything = PermissionScope::Everything;
                    if let Err(end) = Box::pin(self.refresh_permissions(everything)).await {
                        return end;
                    }
                }
                message = messages.next(), if accepts_requests => {
                    let Some(message) = message else { return SessionEnd::Disconnected };
                    self.extra_frames = messages.take_extra_frames();
                    if let Err(end) = Box::pin(self.received(message)).await {
                        return end;
                    }
                    // The socket was not read while the message was served: that time does not count as silence.
                    received_at = Instant::now();
                }
                () = sleep_until(hand_over_at.unwrap_or(silent_at)), if hand_over_at.is_some() => {
                    return CloseReason::Restarting.into();
                }
                () = &mut selected => {
                    if current_phase == Phase::Serving && self.may_move() {
                        return CloseReason::Rebalanced.into();
                    }
                    selected.set(gateway.rebalance_queue().selected());
                }
                () = sleep_until(silent_at) => {
                    let now = Instant::now();
                    if now >= received_at + idle {
                        return CloseReason::IdleTimeout.into();
                    }
                    pinged_at = now;
                    self.send(ping_frame());
                }
            }
        }
    }

    /// Waits for `awaited` while the socket is not read, and applies access changes meanwhile.
    ///
    /// # Errors
    /// If the session ends first.
    async fn wait_for<T>(&mut self, awaited: impl Future<Output = T>) -> Result<T, SessionEnd> {
        let mut awaited = pin!(awaited);
        if let Some(done) = awaited.as_mut().now_or_never() {
            return Ok(done);
        }
        let mut phase = self.gateway.phase();
        let own_history = self.outbox.history();
        let mut history = self.gateway.node().watch_log_history();
        loop {
            select! {
                biased;
                () = self.outbox.closed() => return Err(SessionEnd::Disconnected),
                _ = history.wait_for(|history| *history != own_history) => {
                    return Err(CloseReason::HistoryChanged.into());
                }
                _ = phase.wait_for(|phase| *phase == Phase::Closing) => {
                    return Err(CloseReason::Restarting.into());
                }
                done = &mut awaited => return Ok(done),
                () = self.permissions.access_changed() => {
                    Box::pin(self.apply_access_change()).await?;
                }
            }
        }
    }

    /// Waits for a permit of one of the session's semaphores.
    async fn request_slot(&mut self, slots: &Arc<Semaphore>) -> Result<RequestSlot, SessionEnd> {
        let slot = self.wait_for(RequestSlot::take(slots)).await?;
        slot.ok_or(SessionEnd::Disconnected)
    }

    /// Whether the socket may be moved to another node: the client has made no edit for a while, and all its requests are
    /// answered.
    fn may_move(&self) -> bool {
        self.edited.elapsed() >= IDLE_BEFORE_MOVE
            && self.submits.available_permits() == self.gateway.node().session_submits_max()
            && self.reads.available_permits() == READS_MAX
            && self.bulk_requests.available_permits() == 1
    }

    /// After how much of the hand-over this socket is closed. Spreads the sockets over it, so that they do not reconnect all
    /// at once.
    fn hand_over_delay(&self) -> Duration {
        let share = self.id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        self.gateway.settings().hand_over() * (share as u32) / (1 << 16)
    }

    /// Queues frames for the client. A full outbox closes itself, which ends the loop of the session.
    fn send(&self, frames: actix_web::web::Bytes) {
        let _ = self.outbox.push(frames);
    }

    /// Ends the session's presences and subscriptions.
    async fn leave_documents(&mut self) {
        self.gateway
            .node()
            .end_presence(self.id, self.presences.channels());
        for doc in self.subscriptions.take_visible() {
            self.gateway.node().end_session(&doc, self.id).await;
        }
    }
}
