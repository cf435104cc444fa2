//! A node: the documents that are open on it, each with its task.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use tokio::time::timeout;

use super::cluster::codec::Message;
use super::cluster::history::{Known, LogHistory};
use super::cluster::peers::Peers;
use super::cluster::readiness::SaveChecks;
use super::cluster::store_clock::StoreClock;
use super::cluster::store_status::StoreStatus;
use super::delivery::byte_budget::ByteBudget;
use super::delivery::outbox::Outbox;
use super::delivery::outbox_budget::OutboxBudget;
use super::delivery::reply::ReplyTo;
use super::delivery::snapshot_budget::SnapshotBudget;
use super::document::damage::DamageReports;
use super::document::slices::{Slice, slices_at_once};
use super::document::task::{Post, Task};
use super::presence::registry::{Heard, PresenceRegistry};
use super::settings::NodeSettings;
use crate::cluster::Transport;
use crate::doc::{Event, Now, PeerMessage, SessionRequest};
use crate::id::{DocId, Name, NodeId, SessionId};
use crate::log::{Epoch, Revision};
use crate::store::{Heartbeat, History, OpenDocuments, Store, StoreError};
use crate::sync::lock;
use crate::version::Capabilities;

/// The documents that are open on this node, by name, and what they share.
#[derive(Debug)]
pub struct Node {
    id: NodeId,
    /// What people call it.
    name: Arc<str>,
    peers: Arc<Peers>,
    /// Taken by who claims.
    claims: Semaphore,
    /// BytePermit for each slice of long work on a document.
    slices: Arc<Semaphore>,
    /// For the submits of all sockets.
    submit_budget: ByteBudget,
    snapshots: Arc<SnapshotBudget>,
    damage_reports: DamageReports,
    store_status: StoreStatus,
    outboxes: Arc<OutboxBudget>,
    /// Taken by a client that is behind while a page of the log is read for it.
    catch_ups: Semaphore,
    /// Taken by who beats: one heartbeat after the other, so that an older one does not undo a newer one.
    beating: Semaphore,
    store: Arc<dyn Store>,
    histories: LogHistory,
    /// What the store said last of whether edits can be saved.
    saves: SaveChecks,
    settings: NodeSettings,
    hub: PresenceRegistry,
    /// Where the documents' tasks run: not on a socket's single-threaded worker.
    runtime: Handle,
    started: Instant,
    /// Locked for moments only.
    store_clock: Mutex<StoreClock>,
    /// The open documents' mailboxes. Locked for look-ups only. Whoever posts holds a clone of the sender while it
    /// does; a document closes itself only while nobody holds one.
    documents: Mutex<HashMap<DocId, Arc<Mailbox>>>,
    /// Told when the documents that nobody needs are to close at once, for there are too many.
    crowded: watch::Sender<()>,
    /// When that was told last.
    crowded_at: Mutex<Option<Instant>>,
    next_incarnation: AtomicU64,
    next_session: AtomicU64,
    stopping: AtomicBool,
}

/// How often at most the documents are told that there are too many: it wakes all of them.
const CROWDED_EVERY: Duration = Duration::from_secs(1);

/// How many pages of the log are read at once for clients that are behind.
const CATCH_UPS_AT_ONCE: usize = 8;

/// The way to an open document.
#[derive(Debug)]
struct Mailbox {
    /// Which of the document's tasks it leads to.
    incarnation: u64,
    /// The history of the log that the document was opened in.
    history: History,
    sender: mpsc::Sender<Post>,
    standing: Arc<Standing>,
}

/// What a document's task tells the node of its machine.
#[derive(Debug, Default)]
pub(in crate::node) struct Standing {
    /// The epoch under which it is owned; 0: it is not.
    owned: AtomicU64,
    /// One more than the revision that it is followed at; 0: it is not.
    followed: AtomicU64,
    /// Its newest commit.
    known: Mutex<Option<Known>>,
    /// Whether a claim is under way. Written last and read first: a document that claims no more is seen with what its
    /// claim gave it.
    is_claiming: AtomicBool,
}

/// What a node has of an open document.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) struct OpenDocument {
    /// The epoch under which the node owns it.
    pub(in crate::node) owned: Option<Epoch>,
    /// The revision at which the node follows it, without owning it.
    pub(in crate::node) followed: Option<Revision>,
    /// Whether the node is about to own it.
    pub(in crate::node) is_claiming: bool,
}

impl Standing {
    /// The newest commit is this one.
    pub(in crate::node) fn set_known(&self, known: Known) {
        *lock(&self.known) = Some(known);
    }

    /// The newest commit.
    pub(in crate::node) fn known(&self) -> Option<Known> {
        lock(&self.known).clone()
    }

    pub(in crate::node) fn set(&self, document: OpenDocument) {
        let owned = document.owned.map_or(0, |epoch| epoch.0);
        self.owned.store(owned, Ordering::Relaxed);
        let followed = document.followed.map_or(0, |head| head.0 + 1);
        self.followed.store(followed, Ordering::Relaxed);
        self.is_claiming
            .store(document.is_claiming, Ordering::Release);
    }

    fn get(&self) -> OpenDocument {
        let is_claiming = self.is_claiming.load(Ordering::Acquire);
        OpenDocument {
            owned: self.owned(),
            followed: self.followed(),
            is_claiming,
        }
    }

    fn owned(&self) -> Option<Epoch> {
        let epoch = self.owned.load(Ordering::Relaxed);
        (epoch > 0).then_some(Epoch(epoch))
    }

    fn followed(&self) -> Option<Revision> {
        let followed = self.followed.load(Ordering::Relaxed);
        followed.checked_sub(1).map(Revision)
    }
}

/// Why a document was not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AskError {
    /// The node stops.
    #[error("the node stops")]
    Stopping,
    /// As many documents are open as may be.
    #[error("too many documents are open")]
    Full,
}

impl Node {
    /// A node without documents, whose tasks will run on `runtime`. `id` is drawn anew at every start. It owns
    /// everything, until it [takes part](Self::take_part) in a cluster by way of a `transport`.
    #[must_use]
    pub fn new(
        (id, name): (NodeId, &str),
        store: Arc<dyn Store>,
        transport: Option<Arc<dyn Transport>>,
        settings: NodeSettings,
        runtime: Handle,
    ) -> Arc<Self> {
        let me = (id, settings.version.clone());
        let peers = Arc::new(Peers::new(me, transport, settings.dead_after()));
        Arc::new(Self {
            id,
            name: name.into(),
            hub: PresenceRegistry::new(peers.clone()),
            peers,
            claims: Semaphore::new(settings.claims_max),
            slices: Arc::new(Semaphore::new(slices_at_once())),
            submit_budget: ByteBudget::new(settings.submits_bytes_max),
            snapshots: Arc::new(SnapshotBudget::new(settings.snapshots_bytes_max)),
            damage_reports: DamageReports::default(),
            store_status: StoreStatus::default(),
            outboxes: Arc::new(OutboxBudget::new(settings.outboxes_bytes_max)),
            catch_ups: Semaphore::new(CATCH_UPS_AT_ONCE),
            beating: Semaphore::new(1),
            store,
            histories: LogHistory::default(),
            saves: SaveChecks::default(),
            settings,
            runtime,
            started: Instant::now(),
            store_clock: Mutex::default(),
            documents: Mutex::default(),
            crowded: watch::Sender::new(()),
            crowded_at: Mutex::default(),
            next_incarnation: AtomicU64::new(1),
            next_session: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
        })
    }

    /// A name for a new socket.
    #[must_use]
    pub fn next_session(&self) -> SessionId {
        SessionId(self.next_session.fetch_add(1, Ordering::Relaxed))
    }

    /// The presence channels.
    #[must_use]
    pub fn presence(&self) -> &PresenceRegistry {
        &self.hub
    }

    /// Where the truth is kept.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Room for the submits of all sockets.
    #[must_use]
    pub fn submit_budget(&self) -> &ByteBudget {
        &self.submit_budget
    }

    /// What the encoded snapshots of the node may take.
    #[must_use]
    pub fn snapshots(&self) -> &Arc<SnapshotBudget> {
        &self.snapshots
    }

    /// Whether the store answers this node.
    pub(in crate::node) fn store_status(&self) -> &StoreStatus {
        &self.store_status
    }

    /// Waits for an answer of the store, and within a second for none while the store is known to be away.
    ///
    /// # Errors
    /// As `answer`, or that the store is away.
    pub async fn unless_store_away<T>(
        &self,
        verb: &'static str,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        tokio::select! {
            biased;
            answer = answer => answer,
            () = self.store_away() => Err(StoreError::away(verb)),
        }
    }

    /// Resolves when the store has been known to be away for half a second since the call. Cancel-safe.
    pub async fn store_away(&self) {
        self.store_status.away().await;
    }

    /// Which damaged documents were reported in the log.
    pub(in crate::node) fn damage_reports(&self) -> &DamageReports {
        &self.damage_reports
    }

    /// What the outboxes of all sockets may take.
    #[must_use]
    pub fn outboxes(&self) -> &Arc<OutboxBudget> {
        &self.outboxes
    }

    /// How many submits of one session may be without an answer.
    #[must_use]
    pub fn session_submits_max(&self) -> usize {
        self.settings.document.session_submits_max.max(1)
    }

    /// How many documents are open.
    #[must_use]
    pub fn documents_open(&self) -> usize {
        self.lock().len()
    }

    /// Asks a document something in a session's name, opening it if it is not open. The answer goes to `reply`. Waits
    /// while the document's mailbox is full.
    ///
    /// # Errors
    /// When the document was not asked; there will be no answer.
    pub async fn ask(
        self: &Arc<Self>,
        doc: &DocId,
        (session, outbox): (SessionId, &Arc<Outbox>),
        ask: SessionRequest,
        reply: ReplyTo,
    ) -> Result<(), AskError> {
        let mut post = Post::Asked {
            session,
            outbox: outbox.clone(),
            reply,
            ask,
        };
        loop {
            let mailbox = self.open(doc)?;
            match mailbox.sender.send(post).await {
                Ok(()) => return Ok(()),
                // Its task ended without closing the document first: by a panic. It is opened anew.
                Err(unsent) => post = unsent.0,
            }
        }
    }

    /// Says that a session ended.
    pub async fn end_session(&self, doc: &DocId, session: SessionId) {
        self.post(doc, Post::Left(session)).await;
    }

    /// Says that a session may not change a document any more.
    pub async fn revoke_write(&self, doc: &DocId, session: SessionId) {
        self.post(doc, Post::Muted(session)).await;
    }

    /// Tells an open document, waiting while its mailbox is full.
    async fn post(&self, doc: &DocId, post: Post) {
        let mailbox = self.lock().get(doc).cloned();
        if let Some(mailbox) = mailbox {
            // A document that has ended needs no telling.
            let _ = mailbox.sender.send(post).await;
        }
    }

    /// A session ended: what it said last on these channels is gone.
    pub fn end_presence<'a>(&self, session: SessionId, channels: impl Iterator<Item = &'a Name>) {
        self.pass_on(self.hub.left(session, channels));
    }

    /// Tells this node's subscribers of presences. Those with a position go by way of their document, behind the commits that
    /// are on their way to the same sockets: to a client whose document is further than a position, that is no position
    /// yet, and one that is gone would stay for ever.
    pub(in crate::node) fn pass_on(&self, heard: impl IntoIterator<Item = Heard>) {
        for heard in heard {
            let position = heard.presence.position.as_ref();
            let mailbox = position.and_then(|position| self.lock().get(&position.doc).cloned());
            let unsent = match mailbox {
                Some(mailbox) => match mailbox.sender.try_send(Post::Heard(heard)) {
                    Ok(()) => continue,
                    Err(unsent) => unsent.into_inner(),
                },
                None => Post::Heard(heard),
            };
            if let Post::Heard(heard) = unsent {
                self.hub.tell(&heard);
            }
        }
    }

    /// Something that another node says about a document. A submit or a subscription opens it; the rest is of interest only
    /// where it is open. Never waits: what finds the mailbox full is lost, and said again.
    pub(in crate::node) fn linked(self: &Arc<Self>, from: NodeId, doc: &DocId, link: PeerMessage) {
        let opens = matches!(link, PeerMessage::Submit(_) | PeerMessage::Subscribe { .. });
        let mailbox = if opens {
            self.open(doc).ok()
        } else {
            self.lock().get(doc).cloned()
        };
        if let Some(mailbox) = mailbox {
            let _ = mailbox.sender.try_send(Post::Linked { from, link });
        }
    }

    /// Something that the store says about an open document; said again with the next heartbeat.
    pub(in crate::node) fn told(&self, doc: &DocId, event: Event) {
        let mailbox = self.lock().get(doc).cloned();
        if let Some(mailbox) = mailbox {
            let _ = mailbox.sender.try_send(Post::Told(event));
        }
    }

    /// What the next heartbeat says.
    pub(in crate::node) fn next_beat(&self) -> Heartbeat {
        Heartbeat {
            me: self.id,
            name: self.name.clone(),
            takes_part: self.peers.take_part(),
            address: self.peers.address(),
            version: self.peers.version().clone(),
        }
    }

    /// Calls `visit` with each of these documents that is open, what the caller has about it, and what the node has of it.
    /// Locks the documents for the whole walk.
    pub(in crate::node) fn visit_open<'a, T>(
        &self,
        docs: impl IntoIterator<Item = (&'a DocId, T)>,
        mut visit: impl FnMut(&'a DocId, T, OpenDocument),
    ) {
        let documents = self.lock();
        for (doc, about) in docs {
            if let Some(mailbox) = documents.get(doc) {
                visit(doc, about, mailbox.standing.get());
            }
        }
    }

    /// The open documents that the store may know more of.
    pub(in crate::node) fn open_documents(&self) -> OpenDocuments {
        let mut open = OpenDocuments::default();
        for (doc, mailbox) in &*self.lock() {
            let (owned, followed) = (mailbox.standing.owned(), mailbox.standing.followed());
            open.owned.extend(owned.map(|epoch| (doc.clone(), epoch)));
            open.followed
                .extend(followed.map(|head| (doc.clone(), head)));
        }
        open
    }

    /// The newest commits that this node knows of its open documents.
    pub(in crate::node) fn known_commits(&self) -> Vec<(DocId, Known)> {
        let documents = self.lock();
        let known = |(doc, mailbox): (&DocId, &Arc<Mailbox>)| {
            Some((doc.clone(), mailbox.standing.known()?))
        };
        documents.iter().filter_map(known).collect()
    }

    /// Gives up all documents that this node owns, whatever is under way. What is unanswered is said again, to others.
    pub(in crate::node) fn resign(&self) {
        for (doc, epoch) in self.open_documents().owned {
            self.told(&doc, Event::Superseded(epoch));
        }
    }

    /// Whether the store answers the other nodes and not this one: they are the better ones to go to.
    #[must_use]
    pub fn watch_store_isolation(&self) -> watch::Receiver<bool> {
        self.peers.watch_store_isolation()
    }

    /// Takes no more documents: the others are told, and take over what this node owns. Its sockets are still served.
    pub async fn leave_ring(self: &Arc<Self>) {
        self.peers.leaves(self.id);
        self.peers.send_all(&Message::Leaving);
        if let Err(error) = self.beat().await {
            tracing::warn!(%error, "the store was not told that this node leaves");
        }
    }

    /// Whether there may be other nodes.
    #[must_use]
    pub fn is_in_cluster(&self) -> bool {
        self.peers.has_transport()
    }

    /// Whether the store that the nodes share is known to be away. A store of this node's own never is.
    #[must_use]
    pub fn is_store_away(&self) -> bool {
        self.peers.is_store_away()
    }

    /// Whether this node gave up its documents because other live nodes share no wire version with it.
    #[must_use]
    pub fn is_incompatible(&self) -> bool {
        self.peers.is_incompatible()
    }

    /// What this node and all other live nodes can do: what a new message kind, entry kind or stored format waits for.
    #[must_use]
    pub fn common_capabilities(&self) -> Capabilities {
        self.peers.common_capabilities()
    }

    /// Gives up the way to the other nodes.
    pub async fn close_peers(&self) {
        self.peers.close().await;
    }

    /// Waits for the right to beat: one heartbeat at a time.
    pub(in crate::node) async fn may_beat(&self) -> Option<SemaphorePermit<'_>> {
        self.beating.acquire().await.ok()
    }

    /// Waits for the right to read a page of the log for a client that is behind.
    pub(in crate::node) async fn catch_up_turn(&self) -> Option<SemaphorePermit<'_>> {
        self.catch_ups.acquire().await.ok()
    }

    /// Waits for a slice of long work: so many at once on the whole node, first come, first served.
    pub(in crate::node) async fn slice(&self) -> Option<Slice> {
        let permit = self.slices.clone().acquire_owned().await.ok()?;
        Some(Slice::begin(permit))
    }

    /// Waits for the right to claim: so many claims at once, and no more.
    pub(in crate::node) async fn may_claim(&self) -> Option<SemaphorePermit<'_>> {
        self.claims.acquire().await.ok()
    }

    /// Opens no more documents, and waits until what was accepted is durable; `false`: not within `patience`.
    pub async fn stop(&self, patience: Duration) -> bool {
        self.stopping.store(true, Ordering::SeqCst);
        let mailboxes: Vec<_> = self.lock().values().cloned().collect();
        let finish = async {
            // All are told before any is waited for: what they have to append, the store gathers.
            for mailbox in &mailboxes {
                // One that has ended needs no telling.
                let _ = mailbox.sender.send(Post::Finish).await;
            }
            for mailbox in &mailboxes {
                mailbox.sender.closed().await;
            }
        };
        timeout(patience, finish).await.is_ok()
    }

    fn open(self: &Arc<Self>, doc: &DocId) -> Result<Arc<Mailbox>, AskError> {
        let mut documents = self.lock();
        // Read under the lock: a document of an older history never replaces one of a newer.
        let history = self.log_history();
        // A document of another history ends by itself; the log is read anew.
        let open = documents.get(doc).filter(|it| it.history == history);
        if let Some(mailbox) = open {
            return Ok(mailbox.clone());
        }
        if self.stopping.load(Ordering::SeqCst) {
            return Err(AskError::Stopping);
        }
        let documents_max = self.settings.documents_max;
        // Before there is no room left: those who ask for documents and want nothing more of them must not keep others out.
        if documents.len() >= documents_max - documents_max / 8 {
            self.make_room();
        }
        if documents.len() >= documents_max {
            return Err(AskError::Full);
        }
        let (sender, receiver) = mpsc::channel(self.settings.mailbox_max);
        let incarnation = self.next_incarnation.fetch_add(1, Ordering::Relaxed);
        let standing = Arc::new(Standing::default());
        let mailbox = Arc::new(Mailbox {
            incarnation,
            history,
            sender,
            standing: standing.clone(),
        });
        documents.insert(doc.clone(), mailbox.clone());
        // The task ends itself: when it is idle, finished, or has panicked.
        let opened = (incarnation, history);
        let task = Task::new(doc.clone(), opened, self.clone(), receiver, standing);
        self.runtime.spawn(task.run());
        Ok(mailbox)
    }

    /// Closes the documents that no session needs, which else would stay for a while, and frees the snapshots that
    /// documents keep for their next reader.
    pub(in crate::node) fn make_room(&self) {
        let mut last = lock(&self.crowded_at);
        if last.is_none_or(|last| last.elapsed() >= CROWDED_EVERY) {
            *last = Some(Instant::now());
            self.crowded.send_replace(());
        }
    }

    /// Told when documents that nobody needs are to close at once.
    pub(in crate::node) fn watch_crowd(&self) -> watch::Receiver<()> {
        self.crowded.subscribe()
    }

    /// Closes a document, unless somebody is about to ask it something or its mailbox is not empty. The mailbox is
    /// looked at last, when nobody can post any more.
    pub(in crate::node) fn close_unless_wanted(
        &self,
        doc: &DocId,
        incarnation: u64,
        mailbox_is_empty: impl FnOnce() -> bool,
    ) -> bool {
        let mut documents = self.lock();
        // Unlike a look at the count, this sees what those who let go had posted before.
        let unwanted = documents.get_mut(doc).is_some_and(|mailbox| {
            mailbox.incarnation == incarnation && Arc::get_mut(mailbox).is_some()
        });
        let closes = unwanted && mailbox_is_empty();
        if closes {
            documents.remove(doc);
        }
        closes
    }

    /// Forgets a document whose task ends, unless another was opened since.
    pub(in crate::node) fn forget(&self, doc: &DocId, incarnation: u64) {
        let mut documents = self.lock();
        if documents
            .get(doc)
            .is_some_and(|mailbox| mailbox.incarnation == incarnation)
        {
            documents.remove(doc);
        }
    }

    pub(in crate::node) fn histories(&self) -> &LogHistory {
        &self.histories
    }

    pub(in crate::node) fn saves(&self) -> &SaveChecks {
        &self.saves
    }

    /// This node's incarnation: drawn at its start.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    pub(in crate::node) fn peers(&self) -> &Peers {
        &self.peers
    }

    pub(in crate::node) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(in crate::node) fn settings(&self) -> &NodeSettings {
        &self.settings
    }

    pub(in crate::node) fn now(&self) -> Now {
        let clock = self.started.elapsed();
        Now {
            clock,
            wall_ms: self.time_at(clock),
        }
    }

    /// The time by the store's clock, in milliseconds since 1970; by this node's own clock if the store has none.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        self.time_at(self.started.elapsed())
    }

    fn time_at(&self, clock: Duration) -> u64 {
        let store_ms = self.store_clock().now_ms(clock);
        store_ms.unwrap_or_else(|| self.own_time_ms())
    }

    fn own_time_ms(&self) -> u64 {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let wall_ms = wall.map_or(0, |wall| {
            u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
        });
        wall_ms.saturating_add_signed(self.settings.clock_offset_ms)
    }

    /// The store answered with its time: a heartbeat that was sent `asked` after the node started.
    pub(in crate::node) fn learn_time(&self, store_ms: u64, asked: Duration) {
        let (answered, own_ms) = (self.started.elapsed(), self.own_time_ms());
        let difference = {
            let mut clock = self.store_clock();
            clock.learn(store_ms, asked, answered);
            clock.new_difference(own_ms, answered)
        };
        if let Some(difference_ms) = difference {
            tracing::warn!(
                difference_ms,
                "the clock of this machine differs from Postgres's: entries get Postgres's time; check NTP"
            );
        }
    }

    fn store_clock(&self) -> MutexGuard<'_, StoreClock> {
        lock(&self.store_clock)
    }

    pub(in crate::node) fn instant(&self, clock: Duration) -> Instant {
        self.started + clock
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DocId, Arc<Mailbox>>> {
        lock(&self.documents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[tokio::test]
    async fn documents_that_nobody_needs_make_room_for_those_that_somebody_wants() {
        let settings = NodeSettings {
            documents_max: 8,
            ..NodeSettings::default()
        };
        let store = Arc::new(MemoryStore::new());
        let node = Node::new((NodeId(1), "a"), store, None, settings, Handle::current());
        let outbox = Arc::new(Outbox::new(1 << 20, None));
        let ask = async |name: &str, ask| {
            let doc = DocId::parse("c", name).unwrap();
            let asker = (SessionId(1), &outbox);
            node.ask(&doc, asker, ask, ReplyTo::Unrequested).await
        };
        for n in 0..8 {
            let name = format!("wanted once {n}");
            ask(&name, SessionRequest::Fetch { since: None })
                .await
                .unwrap();
        }
        let patience = Duration::from_secs(20);
        let wanted = timeout(patience, async {
            while ask("wanted", SessionRequest::Subscribe { since: None }).await
                == Err(AskError::Full)
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        wanted.await.expect("there is room before long");
        let settled = timeout(patience, async {
            while node.documents_open() > 1 {
                node.make_room();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        settled
            .await
            .expect("only the one that is subscribed to stays");
        assert!(
            node.lock()
                .contains_key(&DocId::parse("c", "wanted").unwrap())
        );
    }

    #[tokio::test]
    async fn a_document_stays_open_for_whoever_is_about_to_ask() {
        let store = Arc::new(MemoryStore::new());
        let settings = NodeSettings::default();
        let node = Node::new((NodeId(1), "a"), store, None, settings, Handle::current());
        let doc = DocId::parse("c", "d").unwrap();
        let (sender, mut receiver) = mpsc::channel(1);
        let mailbox = Arc::new(Mailbox {
            incarnation: 1,
            history: History::default(),
            sender,
            standing: Arc::default(),
        });
        node.lock().insert(doc.clone(), mailbox.clone());
        assert!(!node.close_unless_wanted(&doc, 1, || receiver.is_empty()));
        mailbox.sender.try_send(Post::Finish).unwrap();
        drop(mailbox);
        assert!(!node.close_unless_wanted(&doc, 1, || receiver.is_empty()));
        receiver.try_recv().unwrap();
        assert!(node.close_unless_wanted(&doc, 1, || receiver.is_empty()));
        assert_eq!(node.documents_open(), 0);
    }
}
