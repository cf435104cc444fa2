//! One socket's life: its requests in, their answers and the commits out.

mod outdated_client;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use actix_http::ws::ProtocolError;
use actix_web::rt::time::{Instant, sleep, sleep_until, timeout};
use actix_ws::AggregatedMessage;
use futures_util::FutureExt;
use tokio::select;
use tokio::sync::{Semaphore, watch};

use self::outdated_client::OutdatedClient;
use super::gateway::{Gateway, Phase};
use super::permission_cache::{
    AccessLost, PermissionCache, RefreshedRole, document_of, no_such_document,
};
use super::rate_limits::SocketRateLimits;
use super::upgrade::{self, MessageStream};
use crate::access::{HOME_TENANT, Role, tenant_of};
use crate::auth::{AccessChange, PermissionScope};
use crate::doc::{Presence, Proposal, ReadMode, SessionReply, SessionRequest, Submit};
use crate::id::{ClientId, DocId, Name, SessionId};
use crate::log::{Revision, Snapshot, SubmitId};
use crate::node::{
    AskError, BulkReply, ByteBudget, BytePermit, Outbox, PresenceRequester, ReplyTo, RequestSlot,
};
use crate::protocol::{
    self, BadRequest, ClientMessage, CloseReason, Code, EchoedFields, Frames, Refusal,
    encode_snapshot, ping_frame, pong_frame,
};
use crate::store::LoadRange;

/// One socket's life.
#[derive(Debug)]
pub(super) struct Session {
    id: SessionId,
    gateway: Arc<Gateway>,
    /// Who it is, and what they may do.
    rights: PermissionCache,
    /// Whether it wants to be told of its rights: the ShareDB client does not know such a message.
    hears_of_rights: bool,
    /// Whether its client was connected before.
    has_returned: bool,
    /// Who its submits and presences come from: minted for this socket, or brought along from the one before.
    client: ClientId,
    outbox: Arc<Outbox>,
    /// Set if its client comes from another history of the log than its socket.
    outdated: Option<OutdatedClient>,
    /// For its submits.
    room: ByteBudget,
    /// For its reads that are not answered.
    reads: Arc<Semaphore>,
    /// For its bulk request that is not answered.
    bulks: Arc<Semaphore>,
    /// For its submits that are not answered.
    submits: Arc<Semaphore>,
    /// The documents that it is told the commits of.
    documents: BTreeSet<DocId>,
    /// The documents that it asked for and may not read: it was shown none, and gets them if that changes.
    unseen: BTreeSet<DocId>,
    /// The presence channels that it listens or speaks on.
    channels: BTreeMap<Name, ChannelUse>,
    /// How many frames its last message came in, besides the first.
    pieces: u32,
    /// How many of its presences are there, on all channels.
    presences: usize,
    /// How many bytes their values have.
    presences_bytes: usize,
    pace: Pace,
    /// The paces that it shares with others.
    share: SocketRateLimits,
    /// When it was opened, or its client sent the newest edit.
    edited: Instant,
}

/// What a session does on a presence channel.
#[derive(Debug, Default)]
struct ChannelUse {
    listens: bool,
    /// How many bytes the value of each of its presences there has.
    presences: BTreeMap<Name, usize>,
    /// Whether it said a position there: that comes by way of its document, perhaps late, so the place is kept.
    positions: bool,
}

/// How many presences one socket may have: each is held for those who end with its socket. An editor has one or two.
const PRESENCES_MAX: usize = 1_000;

/// A client that has to wait at least so long for one of its messages is told so.
const TOLD_OF_WAIT: Duration = Duration::from_millis(500);

/// How long an edit waits for those before it to be answered. Its socket is not read meanwhile.
const EDIT_PATIENCE: Duration = Duration::from_secs(30);

/// How many reads of one socket may be without an answer. The socket is not read while it has as many.
const READS_MAX: usize = 8;

/// How many bytes the values of one socket's presences may have together: the hub holds each, and sends it to all who
/// listen.
const PRESENCES_BYTES_MAX: usize = 256 << 10;

/// How long a socket with presences may be silent before it is pinged.
const PRESENT_PING: Duration = Duration::from_secs(3);

/// How long a socket with presences may be silent, pings unanswered, before it is closed.
const PRESENT_SILENCE: Duration = Duration::from_secs(8);

/// Lets the connection end with the session, however that ends.
struct Released(Arc<Outbox>);

impl Drop for Released {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Why a session ended.
#[derive(Debug)]
enum End {
    /// The peer is gone, or the outbox closed itself.
    Gone,
    /// We close, and say why.
    Close(CloseReason),
    /// Nothing was heard for too long.
    Silent,
}

/// How long a socket may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Silence {
    /// Before it is pinged.
    ping: Duration,
    /// Before it is closed.
    idle: Duration,
    /// After the close, for the client's answer to it. Ends together with the configured idle timeout.
    last_wait: Duration,
}

impl Silence {
    /// Splits the idle timeout: most of it before the close, at most `close_patience` after it, and a little for the server
    /// to be late.
    fn new(ping: Duration, idle_timeout: Duration, close_patience: Duration) -> Self {
        let part_max = idle_timeout.saturating_sub(ping) / 4;
        let last_wait = close_patience.min(idle_timeout / 20).min(part_max);
        let slack = (idle_timeout / 50).min(part_max);
        Self {
            ping,
            idle: idle_timeout.saturating_sub(last_wait + slack),
            last_wait,
        }
    }
}

/// Why a request was not served.
#[derive(Debug)]
enum Unserved {
    /// It is answered with this.
    Refused(Refusal),
    /// The session ends.
    Ended(End),
}

impl From<Refusal> for Unserved {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<End> for Unserved {
    fn from(end: End) -> Self {
        Self::Ended(end)
    }
}

const OUTDATED: End = End::Close(CloseReason::HistoryChanged);

/// Why a socket closes that goes to a node with fewer.
const MOVES: End = End::Close(CloseReason::Rebalanced);

/// How long a socket must be open, and without an edit, until it may be sent to another node.
const AT_REST: Duration = Duration::from_secs(3);

/// The server has slowed the socket down for as long as it may, and its edits still cannot be taken.
const OVERLOADED: End = End::Close(CloseReason::Overloaded);

const SIGNED_OUT: End = End::Close(CloseReason::SignedOut);

const LOST: End = End::Close(CloseReason::AccessLost);

const NOT_KNOWN: End = End::Close(CloseReason::PermissionsUnknown);

impl Session {
    pub(super) fn new(
        gateway: Arc<Gateway>,
        rights: PermissionCache,
        hears_of_rights: bool,
        client: ClientId,
        outbox: Arc<Outbox>,
        share: SocketRateLimits,
    ) -> Self {
        let settings = gateway.settings();
        let pace = Pace::new(settings.messages_per_second, settings.messages_burst);
        let room = ByteBudget::new(settings.submits_bytes_max);
        let submits_max = gateway.node().session_submits_max();
        Self {
            id: gateway.node().next_session(),
            gateway,
            rights,
            hears_of_rights,
            has_returned: false,
            client,
            outbox,
            outdated: None,
            room,
            reads: Arc::new(Semaphore::new(READS_MAX)),
            bulks: Arc::new(Semaphore::new(1)),
            submits: Arc::new(Semaphore::new(submits_max)),
            documents: BTreeSet::new(),
            unseen: BTreeSet::new(),
            channels: BTreeMap::new(),
            pieces: 0,
            presences: 0,
            presences_bytes: 0,
            pace,
            share,
            edited: Instant::now(),
        }
    }

    /// Lives until the peer leaves, breaks a rule, falls silent, reads too slowly, or the server stops.
    pub(super) async fn run(mut self, mut messages: MessageStream) {
        let _released = Released(self.outbox.clone());
        self.say(protocol::handshake("init", &self.client));
        let mut phase = self.gateway.phase();
        let end = self.listen(&mut messages, &mut phase).await;
        // Closed before it leaves: whoever still holds it sees by that that the session is over.
        match end {
            End::Close(reason) => self.outbox.close(reason),
            End::Silent => self.outbox.close(CloseReason::IdleTimeout),
            End::Gone => self.outbox.close(CloseReason::Normal),
        }
        let patience = match end {
            End::Silent => self.silence().last_wait,
            End::Close(..) | End::Gone => self.gateway.settings().close_patience(),
        };
        Box::pin(self.leave()).await;
        messages.end(&self.outbox, patience).await;
    }

    /// Each branch is cancel-safe: a watch, a notification, a stream and a timer.
    async fn listen(
        &mut self,
        messages: &mut MessageStream,
        phase: &mut watch::Receiver<Phase>,
    ) -> End {
        let mut heard = Instant::now();
        let mut pinged = heard;
        // Where the node leaves: when this socket goes.
        let mut goes_at = None;
        let own_history = self.outbox.history();
        let mut history = self.gateway.node().watch_log_history();
        let gateway = self.gateway.clone();
        let mut called = pin!(gateway.rebalance_queue().selected());
        loop {
            let now_in = *phase.borrow_and_update();
            let serving = matches!(now_in, Phase::Serving | Phase::Leaving);
            match now_in {
                Phase::Closing => return End::Close(CloseReason::Restarting),
                Phase::Leaving => {
                    goes_at.get_or_insert(Instant::now() + self.turn_to_go());
                }
                Phase::Serving | Phase::Draining => {}
            }
            let Silence { ping, idle, .. } = self.silence();
            let silent_at = (pinged.max(heard) + ping).min(heard + idle);
            let due = self.rights.due().map(Instant::from_std);
            select! {
                biased;
                _ = phase.changed() => {}
                () = self.outbox.closed() => return End::Gone,
                _ = history.wait_for(|history| *history != own_history) => return OUTDATED,
                () = self.rights.told() => {
                    if let Err(end) = Box::pin(self.heed()).await {
                        return end;
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if let Err(end) = Box::pin(self.look_again(PermissionScope::Everything)).await {
                        return end;
                    }
                }
                // While the server drains, nothing more is accepted.
                message = messages.next(), if serving => {
                    let Some(message) = message else { return End::Gone };
                    // On the heap while it lasts: a silent socket should not keep the room for it.
                    // Frames beyond the first count as messages.
                    self.pieces = messages.take_work();
                    if let Err(end) = Box::pin(self.received(message)).await {
                        return end;
                    }
                    // Not silent, but not read while its message waited.
                    heard = Instant::now();
                }
                () = sleep_until(goes_at.unwrap_or(silent_at)), if goes_at.is_some() => {
                    return End::Close(CloseReason::Restarting);
                }
                () = &mut called => {
                    if now_in == Phase::Serving && self.is_at_rest() {
                        return MOVES;
                    }
                    called.set(gateway.rebalance_queue().selected());
                }
                () = sleep_until(silent_at) => {
                    let now = Instant::now();
                    if now >= heard + idle {
                        return End::Silent;
                    }
                    pinged = now;
                    self.say(ping_frame());
                }
            }
        }
    }

    /// Whether its client loses nothing, and hardly notices, if the socket closes now: it has made no edit for a while, and
    /// all that it asked is answered.
    fn is_at_rest(&self) -> bool {
        self.edited.elapsed() >= AT_REST
            && self.submits.available_permits() == self.gateway.node().session_submits_max()
            && self.reads.available_permits() == READS_MAX
            && self.bulks.available_permits() == 1
    }

    /// How long the socket may be silent. One with a cursor is pinged more often, so that others do not see the cursor for
    /// long after the connection is lost.
    fn silence(&self) -> Silence {
        let settings = self.gateway.settings();
        let (ping, idle) = (settings.ping_interval(), settings.idle_timeout());
        let patience = settings.close_patience();
        if self.presences == 0 {
            return Silence::new(ping, idle, patience);
        }
        Silence::new(ping.min(PRESENT_PING), idle.min(PRESENT_SILENCE), patience)
    }

    /// When, of the time that a node takes to leave, this socket goes: not all at once, they would all come back at once.
    fn turn_to_go(&self) -> Duration {
        let share = self.id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        self.gateway.settings().hand_over() * (share as u32) / (1 << 16)
    }

    async fn received(
        &mut self,
        message: Result<AggregatedMessage, ProtocolError>,
    ) -> Result<(), End> {
        self.pace.add(self.pieces);
        let due = self.pace.pass();
        if due > Instant::now() {
            self.wait_for(sleep_until(due)).await?;
        }
        match message {
            Ok(AggregatedMessage::Text(text)) => self.request(&text).await,
            Ok(AggregatedMessage::Binary(_)) => Err(End::Close(CloseReason::BinaryMessage)),
            Ok(AggregatedMessage::Ping(payload)) => {
                self.say(pong_frame(&payload));
                Ok(())
            }
            Ok(AggregatedMessage::Pong(_)) => Ok(()),
            Ok(AggregatedMessage::Close(_)) => Err(End::Close(CloseReason::Normal)),
            Err(error) => Err(match upgrade::close_reason(&error) {
                Some(reason) => End::Close(reason),
                None => End::Gone,
            }),
        }
    }

    async fn request(&mut self, text: &str) -> Result<(), End> {
        let (message, echo) = match protocol::parse(text) {
            Ok(parsed) => parsed,
            Err(BadRequest::Refused(echo, refusal)) => {
                self.say(protocol::error(&echo, &refusal));
                return Ok(());
            }
            Err(BadRequest::NotAnObject) => {
                return Err(End::Close(CloseReason::NotAnObject));
            }
        };
        let submits = message.changed_document().is_some();
        if submits {
            self.edited = Instant::now();
        }
        match self.paced(message, &echo).await {
            Ok(()) => Ok(()),
            Err(Unserved::Ended(end)) => Err(end),
            // Its client would throw the work away: closed, it comes back and sends it again.
            Err(Unserved::Refused(refusal)) if submits && refusal.will_pass() => Err(OVERLOADED),
            Err(Unserved::Refused(refusal)) => {
                self.say(protocol::error(&echo, &refusal));
                Ok(())
            }
        }
    }

    /// Serves a message when the paces that it counts towards have room for it.
    async fn paced(&mut self, message: ClientMessage, echo: &EchoedFields) -> Result<(), Unserved> {
        let weight = self.weight(&message);
        self.pace.add(weight - 1);
        let weight = weight.saturating_add(std::mem::take(&mut self.pieces));
        let wait = self.count(&message, weight).ok_or_else(Refusal::busy)?;
        if !wait.is_zero() {
            self.slow_down(wait).await?;
        }
        // Right before it is served, and not when the loop comes round: what is refused is refused at once.
        self.heed().await?;
        if message.is_read() {
            self.answers_written().await?;
        }
        let served = self.serve(message, echo).await;
        // What was told meanwhile may be why it was given up.
        self.heed().await?;
        served
    }

    /// Keeps a client that is over a limit waiting, unread. Clients that know of it are told for how long.
    async fn slow_down(&mut self, wait: Duration) -> Result<(), End> {
        if self.hears_of_rights && wait >= TOLD_OF_WAIT {
            self.say(protocol::slowed(wait));
        }
        self.wait_for(sleep(wait)).await
    }

    /// Waits for one of the session's slots.
    async fn slot(&mut self, slots: &Arc<Semaphore>) -> Result<RequestSlot, End> {
        let slot = RequestSlot::take(slots);
        self.wait_for(slot).await?.ok_or(End::Gone)
    }

    /// Waits until the answers to earlier reads are written, but for the last 64 KiB: one large answer at a time. A client
    /// that does not read them is not read; its socket ends by itself when it makes no progress.
    async fn answers_written(&mut self) -> Result<(), End> {
        let outbox = self.outbox.clone();
        self.wait_for(outbox.drained()).await
    }

    /// Waits for something while the socket is not read. What happens to the user's rights meanwhile is seen to.
    ///
    /// # Errors
    /// When the session ends first.
    async fn wait_for<T>(&mut self, awaited: impl Future<Output = T>) -> Result<T, End> {
        let mut awaited = std::pin::pin!(awaited);
        if let Some(done) = awaited.as_mut().now_or_never() {
            return Ok(done);
        }
        let mut phase = self.gateway.phase();
        let own_history = self.outbox.history();
        let mut history = self.gateway.node().watch_log_history();
        loop {
            select! {
                biased;
                () = self.outbox.closed() => return Err(End::Gone),
                _ = history.wait_for(|history| *history != own_history) => return Err(OUTDATED),
                _ = phase.wait_for(|phase| *phase == Phase::Closing) => {
                    return Err(End::Close(CloseReason::Restarting));
                }
                done = &mut awaited => return Ok(done),
                () = self.rights.told() => Box::pin(self.heed()).await?,
            }
        }
    }

    /// How many messages one counts as: a presence goes to all who listen, and is as many as there are eighths of them, once
    /// for each KiB.
    fn weight(&self, message: &ClientMessage) -> u32 {
        let (channel, bytes) = match message {
            ClientMessage::Presence(presence) => (&presence.channel, presence.value.len()),
            ClientMessage::PresenceRequest { channel }
            | ClientMessage::PresenceSubscribe { channel, .. } => (channel, 0),
            _ => return 1,
        };
        let listeners = self.gateway.node().presence().subscriber_count(channel);
        let frames = listeners.saturating_mul(1 + bytes / 1_024);
        u32::try_from(1 + frames / 8).unwrap_or(u32::MAX)
    }

    /// Counts a message towards the paces that it shares: how long it is to wait; none: too many wait already.
    fn count(&mut self, message: &ClientMessage, weight: u32) -> Option<Duration> {
        let tenant = message
            .collection_or_channel()
            .map_or(HOME_TENANT, tenant_of);
        self.share.take(
            self.gateway.limits(),
            tenant,
            message.changed_document(),
            weight,
        )
    }

    async fn serve(&mut self, message: ClientMessage, echo: &EchoedFields) -> Result<(), Unserved> {
        match message {
            ClientMessage::Handshake { client } => Ok(self.shake_hands(client)?),
            ClientMessage::Ping => {
                self.say(Frames::one(b"{\"a\":\"pp\"}"));
                Ok(())
            }
            ClientMessage::Fetch { doc, since, min } => {
                self.admit(&doc, since)?;
                if self.may_read(&doc).await? {
                    let ask = match (since, min) {
                        (None, Some(min)) => SessionRequest::ReadFrom {
                            min,
                            mode: ReadMode::Fetch,
                        },
                        _ => SessionRequest::Fetch { since },
                    };
                    return self.read(&doc, ask, echo).await;
                }
                Ok(self.show_nothing(since, echo)?)
            }
            ClientMessage::Subscribe { doc, since, min } => {
                self.admit(&doc, since)?;
                let may = self.may_read(&doc).await?;
                self.say_role(&doc).await?;
                if may {
                    self.subscribing([&doc].into_iter())?;
                    let ask = match (since, min) {
                        (None, Some(min)) => SessionRequest::ReadFrom {
                            min,
                            mode: ReadMode::Subscribe,
                        },
                        _ => SessionRequest::Subscribe { since },
                    };
                    return self.read(&doc, ask, echo).await;
                }
                self.hiding(&doc)?;
                Ok(self.show_nothing(since, echo)?)
            }
            ClientMessage::Unsubscribe { doc } => Ok(self.unsubscribe(&doc, echo).await?),
            ClientMessage::BulkFetch(bulk) => {
                self.bulk(bulk, echo, |since| SessionRequest::Fetch { since })
                    .await
            }
            ClientMessage::BulkSubscribe(bulk) => {
                let docs: Vec<DocId> = documents(&bulk).collect();
                self.rights.know(docs.iter()).await?;
                let (mut readable, mut hidden) = (Vec::new(), Vec::new());
                for doc in docs {
                    let may = self.may_read(&doc).await?;
                    if may { &mut readable } else { &mut hidden }.push(doc);
                }
                self.subscribing(readable.iter())?;
                hidden.iter().try_for_each(|doc| self.hiding(doc))?;
                self.bulk(bulk, echo, |since| SessionRequest::Subscribe { since })
                    .await
            }
            ClientMessage::BulkUnsubscribe(bulk) => Ok(self.bulk_unsubscribe(&bulk, echo).await?),
            ClientMessage::Submit { doc, submit } => self.submit(doc, submit, echo).await,
            ClientMessage::HistoryAt { doc, revision } => {
                let reach = revision.map_or(LoadRange::Head, LoadRange::At);
                Ok(self.history(&doc, reach, echo).await?)
            }
            ClientMessage::HistoryAtTime { doc, at_ms } => {
                let reach = at_ms.map_or(LoadRange::Head, LoadRange::AtTime);
                Ok(self.history(&doc, reach, echo).await?)
            }
            ClientMessage::Presence(presence) => Ok(self.presence(presence, echo).await?),
            ClientMessage::PresenceSubscribe { channel, seq } => {
                self.rights.demand_channel(&channel).await?;
                self.use_channel(&channel)?.listens = true;
                let client = (&self.client, self.presence_requester());
                let registry = self.gateway.node().presence();
                registry.subscribe(self.id, client, &self.outbox, &channel);
                self.say(protocol::presence_subscribed("ps", &channel, seq));
                Ok(())
            }
            ClientMessage::PresenceUnsubscribe { channel, seq } => {
                self.gateway
                    .node()
                    .presence()
                    .unsubscribe(self.id, &channel);
                if let Some(used) = self.channels.get_mut(&channel) {
                    used.listens = false;
                }
                self.drop_unused(&channel);
                self.say(protocol::presence_subscribed("pu", &channel, seq));
                Ok(())
            }
            ClientMessage::PresenceRequest { channel } => {
                self.rights.demand_channel(&channel).await?;
                let registry = self.gateway.node().presence();
                registry.request(self.id, self.presence_requester(), &channel);
                self.say(protocol::done(echo));
                Ok(())
            }
        }
    }

    /// Sees to what happened to the user's rights.
    async fn heed(&mut self) -> Result<(), End> {
        match self.rights.news() {
            None => Ok(()),
            Some(AccessChange::Permissions(scope)) => self.look_again(scope).await,
            Some(AccessChange::SessionEnded) => Err(SIGNED_OUT),
        }
    }

    /// Looks at the user's rights again. Who may no longer read something that they are told of is sent away: there is no
    /// word for it in the protocol, and asked for again, the document is refused.
    async fn look_again(&mut self, scope: PermissionScope) -> Result<(), End> {
        let heard = self.channels.keys().filter_map(document_of);
        let shown = self.documents.iter().chain(&self.unseen).cloned();
        let in_use: BTreeSet<DocId> = shown.chain(heard).collect();
        let found = match self.rights.look_again(scope, in_use).await {
            Ok(found) => found,
            Err(AccessLost::SignedOut) => return Err(SIGNED_OUT),
            Err(AccessLost::Unknown) => return Err(NOT_KNOWN),
        };
        let mut lost = false;
        for RefreshedRole { doc, role, is_news } in found {
            if is_news && self.hears_of_rights {
                self.say(protocol::rights(&doc, role.map(Role::as_str)));
            }
            // What it said before it was told, and what is not with the document's owner yet, is not committed any more.
            if is_news && role < Some(Role::Editor) {
                self.gateway.node().revoke_write(&doc, self.id).await;
            }
            match role {
                None => lost |= self.is_told_of(&doc),
                Some(_) => self.show_late(&doc).await,
            }
        }
        if lost { Err(LOST) } else { Ok(()) }
    }

    /// Whether it is sent what happens to a document, or who is there.
    fn is_told_of(&self, doc: &DocId) -> bool {
        let is_of_it = |channel: &Name| document_of(channel).as_ref() == Some(doc);
        self.documents.contains(doc) || self.channels.keys().any(is_of_it)
    }

    /// Sends a document from its beginning to who had asked for it when they could not see it.
    async fn show_late(&mut self, doc: &DocId) {
        if !self.unseen.remove(doc) {
            return;
        }
        self.documents.insert(doc.clone());
        let ask = SessionRequest::Subscribe {
            since: Some(Revision::ZERO),
        };
        // A refusal has nobody to go to: the client comes back and asks again.
        if self.ask_for(doc, ask, ReplyTo::Unrequested).await.is_err() {
            self.outbox.close(CloseReason::SubscriptionFailed);
        }
    }

    /// Tells who wants to hear it what the user may do with a document.
    async fn say_role(&mut self, doc: &DocId) -> Result<(), Refusal> {
        if self.hears_of_rights {
            let role = self.rights.role(doc).await?;
            self.say(protocol::rights(doc, role.map(Role::as_str)));
        }
        Ok(())
    }

    async fn may_read(&mut self, doc: &DocId) -> Result<bool, Refusal> {
        let node = self.gateway.node().clone();
        let role = tokio::select! {
            biased;
            role = self.rights.role(doc) => role?,
            () = node.store_away() => return Err(Refusal::store_unavailable()),
        };
        Ok(role.is_some())
    }

    /// Refuses a change that the user may not make. Who begins a document that nobody knows, owns it.
    async fn may_submit(&mut self, doc: &DocId, proposal: &Proposal) -> Result<(), Refusal> {
        let least = match proposal {
            Proposal::Create(_) | Proposal::Edit(_) => Role::Editor,
            Proposal::Delete => Role::Owner,
        };
        // Also where a role on the whole tenant would do: every document has an owner of its own.
        let begins = matches!(proposal, Proposal::Create(_));
        if begins && self.rights.own(doc).await? {
            self.say_role(doc).await?;
            self.show_late(doc).await;
            return Ok(());
        }
        self.rights.demand(doc, least).await
    }

    /// Counts a document that is not shown towards what the socket may subscribe to.
    fn hiding(&mut self, doc: &DocId) -> Result<(), Refusal> {
        let documents_max = self.gateway.settings().documents_max;
        let taken = self.documents.len() + self.unseen.len();
        if taken >= documents_max && !self.unseen.contains(doc) {
            return Err(too_many_documents(documents_max));
        }
        self.unseen.insert(doc.clone());
        Ok(())
    }

    /// Answers as if there were no document, for there may be none.
    fn show_nothing(&self, since: Option<Revision>, echo: &EchoedFields) -> Result<(), Refusal> {
        match nothing(since)? {
            SessionReply::Snapshot(shown) => {
                self.outbox.answer(protocol::snapshot_reply(echo, &shown))
            }
            SessionReply::Done | SessionReply::Committed(_) | SessionReply::Rejected(_) => {
                self.say(protocol::done(echo))
            }
        }
        Ok(())
    }

    /// Whether its client is asked for its own presences when it asks for those of others.
    fn presence_requester(&self) -> PresenceRequester {
        if self.has_returned {
            PresenceRequester::Returning
        } else {
            PresenceRequester::New
        }
    }

    fn vouches(&self, client: &ClientId) -> bool {
        let author = &self.rights.person().author;
        self.gateway.client_ids().is_issued_to(author, client)
    }

    /// Refuses what a client of another history asks about a document that it holds as it was there.
    fn admit(&mut self, doc: &DocId, since: Option<Revision>) -> Result<(), Refusal> {
        let outdated = self.outdated.as_mut();
        outdated.map_or(Ok(()), |outdated| outdated.admit(doc, since))
    }

    /// A client that comes back is who it was, if its id was minted for this very user. One that comes with an id of another
    /// server gets one of ours that stands for that; any other gets a new one.
    ///
    /// # Errors
    /// If the client comes from another history of the log, and can be told so: our page keeps unsent text and reloads.
    fn shake_hands(&mut self, claimed: Option<String>) -> Result<(), End> {
        self.has_returned |= claimed.is_some();
        let claimed = claimed.and_then(|id| ClientId::parse(&id).ok());
        let mint = self.gateway.client_ids();
        let history = self.outbox.history();
        if let Some(claimed) = &claimed
            && mint.is_of_another_history(claimed, history)
        {
            // With a new id it would pass for a client of this history when it comes back.
            if self.hears_of_rights || !self.vouches(claimed) {
                return Err(OUTDATED);
            }
            let documents_max = self.gateway.settings().documents_max;
            self.outdated = Some(OutdatedClient::new(documents_max));
        }
        if let Some(claimed) = claimed.filter(|id| self.vouches(id) || !mint.is_issued_here(id)) {
            self.client = if self.vouches(&claimed) {
                claimed
            } else {
                mint.replacement(&self.rights.person().author, &claimed, history)
            };
        }
        self.say(protocol::handshake("hs", &self.client));
        Ok(())
    }

    /// Whose submit it is that says that it comes from `src`. A client that came with an id of another server may have a
    /// submit under way that names it: that is its user's, and no other client is sent it under that id.
    fn author_of(&self, src: Option<ClientId>) -> Result<ClientId, Refusal> {
        let history = self.outbox.history();
        let src = match src {
            None => return Ok(self.client.clone()),
            // Its op was made in another history, whatever its socket says.
            Some(src)
                if self.outdated.is_none()
                    && self
                        .gateway
                        .client_ids()
                        .is_of_another_history(&src, history) =>
            {
                return Err(Refusal::history_changed());
            }
            Some(src) if src == self.client || self.vouches(&src) => return Ok(src),
            Some(src) => src,
        };
        let mint = self.gateway.client_ids();
        let author = &self.rights.person().author;
        let came_with =
            !mint.is_issued_here(&src) && self.client == mint.replacement(author, &src, history);
        let foreign = src.as_foreign().filter(|_| came_with);
        foreign.ok_or_else(|| {
            let message = "The src is another client's: reconnect to get one";
            Refusal::new(Code::Forbidden, message)
        })
    }

    async fn submit(
        &mut self,
        doc: DocId,
        submit: protocol::SubmitRequest,
        echo: &EchoedFields,
    ) -> Result<(), Unserved> {
        if let Some(outdated) = &mut self.outdated {
            outdated.admit_submit(&doc, submit.base, &submit.proposal)?;
        }
        let client = self.author_of(submit.client)?;
        self.may_submit(&doc, &submit.proposal).await?;
        let bytes = submit.proposal.size();
        if submit.proposal != Proposal::Delete {
            self.rights.demand_room(&doc, bytes)?;
        }
        let (slot, taken) = self.room_for(bytes).await?;
        // PermissionCache may have changed while it waited.
        self.may_submit(&doc, &submit.proposal).await?;
        let id = SubmitId {
            author: self.rights.person().author.clone(),
            client,
            seq: submit.seq,
        };
        let submit = Submit {
            id,
            base: submit.base,
            proposal: submit.proposal,
        };
        let reply = ReplyTo::Submit(echo.clone(), taken, slot);
        Ok(self
            .ask_for(&doc, SessionRequest::Submit(submit), reply)
            .await?)
    }

    /// Waits until so few edits of the socket, and so few bytes of all sockets', are without an answer that there is room
    /// for one more.
    async fn room_for(&mut self, bytes: usize) -> Result<(RequestSlot, BytePermit), Unserved> {
        let (gateway, submits) = (self.gateway.clone(), self.submits.clone());
        let room = self.room.clone();
        let taken = async {
            let slot = RequestSlot::take(&submits).await?;
            let taken = ByteBudget::acquire([&room, gateway.node().submit_budget()], bytes).await?;
            Some((slot, taken))
        };
        let taken = self.wait_for(timeout(EDIT_PATIENCE, taken)).await?;
        Ok(taken.ok().flatten().ok_or_else(Refusal::busy)?)
    }

    async fn presence(
        &mut self,
        mut presence: Presence,
        echo: &EchoedFields,
    ) -> Result<(), Refusal> {
        let bytes_max = self.gateway.settings().presence_bytes_max;
        if presence.value.len() > bytes_max {
            let message = format!("A presence has at most {bytes_max} bytes");
            return Err(Refusal::new(Code::TooLarge, message));
        }
        self.rights.demand_channel(&presence.channel).await?;
        if let Some(position) = &presence.position {
            if let Some(outdated) = &self.outdated {
                outdated.demand(&position.doc)?;
            }
            self.rights.demand(&position.doc, Role::Viewer).await?;
        }
        self.demand_own_name(&presence)?;
        let person = self.rights.person();
        if !person.is_unrestricted() {
            let known = person.profile.as_ref();
            presence.sign(known.map(|known| known.name.as_str()));
        }
        self.keep_presence(&presence)?;
        match &presence.position {
            // The document brings the position up to its present revision before it is published. That a position is gone
            // is said on the same way: it must not overtake the position.
            Some(position) => {
                let doc = position.doc.clone();
                let ask = SessionRequest::PublishPresence {
                    client: self.client.clone(),
                    presence,
                };
                self.ask(&doc, ask, echo).await
            }
            None => {
                self.gateway.node().presence().publish(
                    self.id,
                    &self.client,
                    &self.outbox,
                    presence,
                );
                Ok(())
            }
        }
    }

    /// Refuses a presence by the name of somebody else's: readers know presences by their names alone. The same user's
    /// other clients may have it, for one that comes back is another.
    fn demand_own_name(&self, presence: &Presence) -> Result<(), Refusal> {
        let (channel, id) = (&presence.channel, &presence.id);
        let known = self.channels.get(channel);
        if known.is_some_and(|used| used.presences.contains_key(id)) {
            return Ok(());
        }
        let registry = self.gateway.node().presence();
        let others = registry.clients_by_name(channel, id);
        if others.iter().all(|client| self.vouches(client)) {
            return Ok(());
        }
        let message = "The presence's id belongs to somebody else";
        Err(Refusal::new(Code::Forbidden, message))
    }

    fn use_channel(&mut self, channel: &Name) -> Result<&mut ChannelUse, Refusal> {
        let channels_max = self.gateway.settings().channels_max;
        let is_full = |channels: &BTreeMap<_, _>| {
            channels.len() >= channels_max && !channels.contains_key(channel)
        };
        if is_full(&self.channels) {
            // Where nothing of it is shown any more, its last position has come and gone.
            let registry = self.gateway.node().presence();
            self.channels.retain(|name, used| {
                used.listens || !used.presences.is_empty() || registry.has_published(self.id, name)
            });
        }
        if is_full(&self.channels) {
            let message = format!("A connection uses at most {channels_max} presence channels");
            return Err(Refusal::new(Code::TooMany, message));
        }
        Ok(self.channels.entry(channel.clone()).or_default())
    }

    /// Counts the presences that are there.
    fn keep_presence(&mut self, presence: &Presence) -> Result<(), Refusal> {
        let (channel, id) = (&presence.channel, &presence.id);
        if presence.is_gone() {
            let used = self.channels.get_mut(channel);
            if let Some(bytes) = used.and_then(|used| used.presences.remove(id)) {
                self.presences -= 1;
                self.presences_bytes -= bytes;
            }
            self.drop_unused(channel);
            return Ok(());
        }
        let used = self.channels.get(channel);
        let known = used.and_then(|used| used.presences.get(id)).copied();
        let bytes = presence.value.len();
        let all_bytes = self.presences_bytes - known.unwrap_or(0) + bytes;
        if all_bytes > PRESENCES_BYTES_MAX || (known.is_none() && self.presences >= PRESENCES_MAX) {
            let message = format!(
                "A connection has at most {PRESENCES_MAX} presences, of at most {PRESENCES_BYTES_MAX} bytes together"
            );
            return Err(Refusal::new(Code::TooMany, message));
        }
        let used = self.use_channel(channel)?;
        used.presences.insert(id.clone(), bytes);
        used.positions |= presence.position.is_some();
        self.presences += usize::from(known.is_none());
        self.presences_bytes = all_bytes;
        Ok(())
    }

    /// Frees a channel's place, if the session neither listens nor is present there.
    fn drop_unused(&mut self, channel: &Name) {
        let unused =
            |used: &ChannelUse| !used.listens && !used.positions && used.presences.is_empty();
        if self.channels.get(channel).is_some_and(unused) {
            self.channels.remove(channel);
        }
    }

    /// Counts documents towards what the socket may subscribe to: all of them, or none.
    fn subscribing<'a>(
        &mut self,
        docs: impl Iterator<Item = &'a DocId> + Clone,
    ) -> Result<(), Refusal> {
        let documents_max = self.gateway.settings().documents_max;
        let new = docs
            .clone()
            .filter(|doc| !self.documents.contains(*doc))
            .count();
        if self.documents.len() + self.unseen.len() + new > documents_max {
            return Err(too_many_documents(documents_max));
        }
        self.documents.extend(docs.cloned());
        Ok(())
    }

    async fn unsubscribe(&mut self, doc: &DocId, echo: &EchoedFields) -> Result<(), Refusal> {
        self.unseen.remove(doc);
        if self.documents.remove(doc) {
            return self.ask(doc, SessionRequest::Unsubscribe, echo).await;
        }
        self.say(protocol::done(echo));
        Ok(())
    }

    async fn bulk(
        &mut self,
        bulk: protocol::BulkRequest,
        echo: &EchoedFields,
        ask: impl Fn(Option<Revision>) -> SessionRequest,
    ) -> Result<(), Unserved> {
        let names: Vec<DocId> = documents(&bulk).collect();
        self.rights.know(names.iter()).await?;
        let turn = self.slot(&self.bulks.clone()).await?;
        let parts = bulk.docs.len() + bulk.beyond.len();
        let reply = BulkReply::new(echo.clone(), !bulk.since, parts, Some(turn));
        reply.begin(&self.outbox);
        for id in bulk.beyond {
            reply.refuse(&self.outbox, id, Refusal::bulk_too_long(bulk.docs.len()));
        }
        for (id, version) in bulk.docs {
            if let Some(refusal) = reply.will_pass() {
                reply.refuse(&self.outbox, id, refusal);
                continue;
            }
            let doc = DocId {
                collection: bulk.collection.clone(),
                id: id.clone(),
            };
            // Where the request names versions, none is the very beginning.
            let since = if bulk.since {
                version.or(Some(Revision::ZERO))
            } else {
                None
            };
            if let Err(refusal) = self.admit(&doc, since) {
                reply.refuse(&self.outbox, id, refusal);
                continue;
            }
            match self.may_read(&doc).await {
                Ok(true) => {}
                Ok(false) => {
                    match nothing(since) {
                        Ok(answer) => reply.answer(&self.outbox, id, answer),
                        Err(refusal) => reply.refuse(&self.outbox, id, refusal),
                    }
                    continue;
                }
                Err(refusal) => {
                    reply.refuse(&self.outbox, id, refusal);
                    continue;
                }
            }
            let slot = self.slot(&self.reads.clone()).await?;
            let part = ReplyTo::Bulk(reply.clone(), id.clone(), Some(slot));
            // A part that was not asked is answered in its place: the others wait for the whole.
            if let Err(refusal) = self.ask_for(&doc, ask(since), part).await {
                reply.refuse(&self.outbox, id, refusal);
            }
        }
        Ok(())
    }

    async fn bulk_unsubscribe(
        &mut self,
        bulk: &protocol::BulkRequest,
        echo: &EchoedFields,
    ) -> Result<(), Refusal> {
        let beyond = bulk.beyond.iter().map(|id| DocId {
            collection: bulk.collection.clone(),
            id: id.clone(),
        });
        let named: Vec<DocId> = documents(bulk).chain(beyond).collect();
        for doc in &named {
            self.unseen.remove(doc);
        }
        let subscribed: Vec<DocId> = named
            .into_iter()
            .filter(|doc| self.documents.remove(doc))
            .collect();
        let reply = BulkReply::new(echo.clone(), false, subscribed.len(), None);
        reply.begin(&self.outbox);
        for doc in subscribed {
            let part = ReplyTo::Bulk(reply.clone(), doc.id.clone(), None);
            if let Err(refusal) = self.ask_for(&doc, SessionRequest::Unsubscribe, part).await {
                reply.refuse(&self.outbox, doc.id, refusal);
            }
        }
        Ok(())
    }

    async fn history(
        &mut self,
        doc: &DocId,
        reach: LoadRange,
        echo: &EchoedFields,
    ) -> Result<(), Refusal> {
        self.rights.demand(doc, Role::Viewer).await?;
        let shown = {
            let history = self.gateway.history(doc, reach);
            select! {
                biased;
                // Whoever asks for much must not hear the later of their rights.
                () = self.rights.told() => return Err(Refusal::busy()),
                shown = history => shown?,
            }
        };
        self.outbox.answer(protocol::history(echo, &shown));
        Ok(())
    }

    /// Asks a document for what it holds, when few of the socket's reads are without an answer.
    async fn read(
        &mut self,
        doc: &DocId,
        ask: SessionRequest,
        echo: &EchoedFields,
    ) -> Result<(), Unserved> {
        let slot = self.slot(&self.reads.clone()).await?;
        let reply = ReplyTo::Read(echo.clone(), slot);
        Ok(self.ask_for(doc, ask, reply).await?)
    }

    async fn ask(
        &self,
        doc: &DocId,
        ask: SessionRequest,
        echo: &EchoedFields,
    ) -> Result<(), Refusal> {
        self.ask_for(doc, ask, ReplyTo::Socket(echo.clone())).await
    }

    async fn ask_for(
        &self,
        doc: &DocId,
        ask: SessionRequest,
        reply: ReplyTo,
    ) -> Result<(), Refusal> {
        let asked = self
            .gateway
            .node()
            .ask(doc, (self.id, &self.outbox), ask, reply)
            .await;
        match asked {
            Ok(()) => Ok(()),
            Err(AskError::Stopping) => {
                // No answer at all: a client whose submit is refused throws its work away, one that must come back
                // says it again.
                self.outbox.close(CloseReason::Restarting);
                Ok(())
            }
            Err(AskError::Full) => {
                let message = "Too many documents are open: try again";
                Err(Refusal::new(Code::Busy, message))
            }
        }
    }

    fn say(&self, frames: actix_web::web::Bytes) {
        // A full outbox closes itself, and `listen` sees that.
        let _ = self.outbox.push(frames);
    }

    async fn leave(&mut self) {
        self.gateway
            .node()
            .end_presence(self.id, self.channels.keys());
        for doc in std::mem::take(&mut self.documents) {
            self.gateway.node().end_session(&doc, self.id).await;
        }
    }
}

/// What a document says that is not there, or not for them. Whoever has some of it, had it once: that is over.
fn nothing(since: Option<Revision>) -> Result<SessionReply, Refusal> {
    match since {
        None => Ok(SessionReply::Snapshot(Arc::new(encode_snapshot(
            &Snapshot::default(),
        )))),
        Some(Revision::ZERO) => Ok(SessionReply::Done),
        Some(_) => Err(no_such_document()),
    }
}

fn too_many_documents(documents_max: usize) -> Refusal {
    let message = format!("A connection subscribes to at most {documents_max} documents");
    Refusal::new(Code::TooMany, message)
}

fn documents(bulk: &protocol::BulkRequest) -> impl Iterator<Item = DocId> {
    bulk.docs.keys().map(|id| DocId {
        collection: bulk.collection.clone(),
        id: id.clone(),
    })
}

/// Lets so many messages pass in a second, and a burst of them at once. Who is faster waits unread.
#[derive(Debug)]
struct Pace {
    /// When the messages so far would have passed at the steady rate.
    due: Instant,
    each: Duration,
    burst: Duration,
}

impl Pace {
    fn new(per_second: u32, burst: u32) -> Self {
        let each = Duration::from_secs(1) / per_second.max(1);
        Self {
            due: Instant::now(),
            each,
            burst: each * burst,
        }
    }

    /// Counts more messages than came.
    fn add(&mut self, more: u32) {
        self.due = self.due.max(Instant::now()) + self.each * more;
    }

    /// Counts a message; returns when it may pass.
    fn pass(&mut self) -> Instant {
        let now = Instant::now();
        self.due = self.due.max(now) + self.each;
        self.due
            .checked_sub(self.burst)
            .map_or(now, |at| at.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_socket_is_freed_within_the_idle_timeout() {
        let ms = Duration::from_millis;
        for (ping, idle, patience, expected) in [
            (20_000, 45_000, 2_000, (42_100, 2_000)),
            (3_000, 8_000, 2_000, (7_440, 400)),
            (20_000, 20_040, 2_000, (20_020, 10)),
            (20_000, 45_000, 10, (44_090, 10)),
        ] {
            let silence = Silence::new(ms(ping), ms(idle), ms(patience));
            let closed = (silence.idle.as_millis(), silence.last_wait.as_millis());
            assert_eq!(closed, expected, "{ping} {idle} {patience}");
            assert!(silence.idle > ms(ping), "it is pinged before");
        }
    }
}
