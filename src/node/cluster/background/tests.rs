//! Tests of two nodes in one process with one store in memory, to which each node can lose its connection.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use futures_util::future::{BoxFuture, ready};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::*;
use crate::cluster::MemoryNetwork;
use crate::cluster::Transport;
use crate::doc::{PeerMessage, Proposal, SessionRequest, Submit};
use crate::gateway::ShareDbEncoder;
use crate::id::{ClientId, DocId, SessionId, UserId};
use crate::log::{Change, Entry, Fence, Revision, Snapshot, SubmitId};
use crate::node::cluster::wire_version;
use crate::node::{NodeEnvironment, NodeMetrics, NodeSettings, Outbox, ReplyTo};
use crate::ot::{Content, Kind, Op};
use crate::store::{
    AppendError, Batch, ChangeCursor, Changes, DeadLetter, DeadLetterFilter, DeadLetterSize,
    DocumentChanges, FaultStore, Heartbeat, HeartbeatReply, History, Lease, ListPage, ListQuery,
    ListedDocument, LoadRange, Loaded, MemoryStore, OpenDocuments, PanicOutcome, PanicRecord,
    QuarantinedDocument, Store, StoredDeadLetter,
};
use crate::version::{NodeVersion, WireRange};

/// One node's connection to the store, which can be cut.
#[derive(Debug, Clone, Default)]
struct StoreConnection {
    store: MemoryStore,
    is_cut: Arc<AtomicBool>,
    /// Whether claims fail because a row that they need is damaged.
    is_fence_damaged: Arc<AtomicBool>,
    /// Whether the fingerprints of commits cannot be read.
    is_log_unreadable: Arc<AtomicBool>,
    /// How many heartbeats were made.
    heartbeats: Arc<AtomicU64>,
    /// How often all open documents were compared with the store.
    comparisons: Arc<AtomicU64>,
}

/// The failure of a cut connection.
fn cut<'a, T: Send + 'a>() -> BoxFuture<'a, Result<T, StoreError>> {
    ready(Err(StoreError::new("reach", "the connection is cut"))).boxed()
}

/// Faults are recorded over the same connection.
macro_rules! faults_by_connection {
    ($(fn $verb:ident($($name:ident: $kind:ty),*) -> $answer:ty;)*) => {
        impl FaultStore for StoreConnection {
            $(fn $verb(&self, $($name: $kind),*) -> BoxFuture<'_, Result<$answer, StoreError>> {
                if self.is_cut.load(Ordering::SeqCst) {
                    return cut();
                }
                self.store.$verb($($name),*)
            })*

            fn release_quarantine<'a>(&'a self, doc: &'a DocId) -> BoxFuture<'a, Result<bool, StoreError>> {
                if self.is_cut.load(Ordering::SeqCst) {
                    return cut();
                }
                self.store.release_quarantine(doc)
            }
        }
    };
}

faults_by_connection! {
    fn add_dead_letters(letters: Vec<DeadLetter>) -> ();
    fn dead_letters(filter: DeadLetterFilter, before: Option<u64>, limit: usize) -> Vec<StoredDeadLetter>;
    fn dead_letter_sizes() -> Vec<DeadLetterSize>;
    fn remove_dead_letters(ids: Vec<u64>) -> ();
    fn purge_dead_letters(filter: DeadLetterFilter) -> u64;
    fn record_panic(panic: PanicRecord) -> PanicOutcome;
    fn quarantined() -> Vec<QuarantinedDocument>;
}

macro_rules! by_connection {
    ($(fn $verb:ident($($name:ident: $kind:ty),*) -> $answer:ty;)*) => {
        impl Store for StoreConnection {
            $(fn $verb<'a>(&'a self, $($name: $kind),*) -> BoxFuture<'a, Result<$answer, StoreError>> {
                if self.is_cut.load(Ordering::SeqCst) {
                    return cut();
                }
                self.store.$verb($($name),*)
            })*

            fn claim<'a>(&'a self, doc: &'a DocId, me: NodeId) -> BoxFuture<'a, Result<Lease, StoreError>> {
                if self.is_cut.load(Ordering::SeqCst) {
                    return cut();
                }
                if self.is_fence_damaged.load(Ordering::SeqCst) {
                    return ready(Err(StoreError::damaged("claim", None, "a test"))).boxed();
                }
                self.store.claim(doc, me)
            }

            fn compare_open<'a>(&'a self, open: &'a OpenDocuments) -> BoxFuture<'a, Result<DocumentChanges, StoreError>> {
                if self.is_cut.load(Ordering::SeqCst) {
                    return cut();
                }
                self.comparisons.fetch_add(1, Ordering::SeqCst);
                self.store.compare_open(open)
            }

            fn fingerprints<'a>(&'a self, entries: &'a [(DocId, Revision)]) -> BoxFuture<'a, Result<Vec<Option<u64>>, StoreError>> {
                if self.is_log_unreadable.load(Ordering::SeqCst) {
                    return cut();
                }
                self.store.fingerprints(entries)
            }

            fn heartbeat<'a>(&'a self, beat: &'a Heartbeat) -> BoxFuture<'a, Result<HeartbeatReply, StoreError>> {
                if self.is_cut.load(Ordering::SeqCst) {
                    return cut();
                }
                self.heartbeats.fetch_add(1, Ordering::SeqCst);
                self.store.heartbeat(beat)
            }
        }
    };
}

by_connection! {
    fn load(doc: &'a DocId, reach: LoadRange) -> Loaded;
    fn append(batches: Vec<Batch>) -> Vec<Result<(), AppendError>>;
    fn save_snapshot(doc: &'a DocId, fence: Fence, snapshot: Snapshot) -> ();
    fn changes(since: Option<&'a ChangeCursor>) -> Changes;
    fn list(query: ListQuery) -> ListPage;
    fn describe(doc: &'a DocId) -> Option<ListedDocument>;
    fn rename(doc: &'a DocId, title: &'a str, was: Option<&'a str>) -> bool;
    fn check_writes() -> ();
    fn history() -> History;
    fn renew_history(known: History, next: History) -> History;
    fn highest_revision(doc: &'a DocId) -> Revision;
    fn restore_fence(doc: &'a DocId) -> bool;
    fn secret() -> [u8; 32];
}

/// How long a condition may take to become true. Only a failing test takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within the limit: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

const DEAD_AFTER_MS: u64 = 300;

/// An edit with this text makes its document panic.
const PANIC_MARK: &str = "poison";

/// A node that has joined the cluster.
async fn node(id: u64, way: &StoreConnection, network: &MemoryNetwork) -> Arc<Node> {
    join(id, way, network, WireRange::UNSTATED).await.unwrap()
}

/// A node of these wire versions that has joined the cluster.
async fn join(
    id: u64,
    way: &StoreConnection,
    network: &MemoryNetwork,
    wire: WireRange,
) -> Result<Arc<Node>, JoinError> {
    let (transport, inbox) = network.open(NodeId(id));
    let node = of_version(id, way, Some(transport), wire);
    node.take_part(Some(inbox)).await?;
    Ok(node)
}

fn alone(id: u64, way: &StoreConnection, transport: Option<Arc<dyn Transport>>) -> Arc<Node> {
    of_version(id, way, transport, WireRange::UNSTATED)
}

fn of_version(
    id: u64,
    way: &StoreConnection,
    transport: Option<Arc<dyn Transport>>,
    wire: WireRange,
) -> Arc<Node> {
    let mut settings = NodeSettings {
        heartbeat_ms: 50,
        dead_after_ms: DEAD_AFTER_MS,
        ..NodeSettings::default()
    };
    settings.version.wire = wire;
    settings.document.panic_mark = Some(PANIC_MARK.into());
    let environment = NodeEnvironment {
        store: Arc::new(way.clone()),
        transport,
        encoder: &ShareDbEncoder,
        runtime: Handle::current(),
        metrics: NodeMetrics::default(),
    };
    Node::new((NodeId(id), "n"), settings, environment)
}

/// Two nodes in one hash ring, each with its connection to the same store.
async fn two() -> ([Arc<Node>; 2], [StoreConnection; 2], MemoryNetwork) {
    let network = MemoryNetwork::new();
    let one = StoreConnection::default();
    let other = StoreConnection {
        store: one.store.clone(),
        ..StoreConnection::default()
    };
    let nodes = [
        node(1, &one, &network).await,
        node(2, &other, &network).await,
    ];
    for node in &nodes {
        let ring = node.services().peers.watch_ring();
        eventually("both are in the hash ring", || {
            ring.borrow().nodes().len() == 2
        })
        .await;
    }
    (nodes, [one, other], network)
}

fn ring(node: &Node) -> Vec<NodeId> {
    node.services().peers.watch_ring().borrow().nodes().to_vec()
}

/// A document that the hash ring gives to this node.
fn document_of(node: &Node) -> DocId {
    let named = |at: u32| DocId::parse("c", &format!("d{at}")).unwrap();
    let mut docs = (0..).map(named);
    docs.find(|doc| node.services().peers.owner(doc) == node.id())
        .unwrap()
}

/// A client with a document open on a node.
struct TestClient {
    node: Arc<Node>,
    session: SessionId,
    seq: u64,
    outbox: Arc<Outbox>,
    sent: String,
}

impl TestClient {
    fn on(node: &Arc<Node>) -> Self {
        Self {
            node: node.clone(),
            session: node.next_session(),
            seq: 0,
            outbox: Arc::new(Outbox::new(1 << 20, &ShareDbEncoder, None)),
            sent: String::new(),
        }
    }

    async fn ask(&self, doc: &DocId, ask: SessionRequest) {
        let session = (self.session, &self.outbox);
        let asked = self.node.ask(doc, session, ask, ReplyTo::Unrequested);
        asked.await.unwrap();
    }

    /// Submits a change with the next `seq`.
    async fn submit(&mut self, doc: &DocId, proposal: Proposal) {
        self.seq += 1;
        let id = SubmitId {
            author: UserId::anyone(),
            client: ClientId::parse(&format!("{}-{}", self.node.id(), self.session.0)).unwrap(),
            seq: self.seq,
        };
        let submit = Submit {
            id,
            base: None,
            proposal,
        };
        self.ask(doc, SessionRequest::Submit(submit)).await;
    }

    /// Inserts a text, and waits until its commit is delivered to this client.
    async fn write_and_read(&mut self, doc: &DocId, text: &str) {
        let edit = Proposal::Edit(format!(r#"["{text}"]"#).into());
        self.submit(doc, edit).await;
        eventually("the edit is read", || self.was_sent(text)).await;
    }

    /// Returns true if this text was ever sent to the client.
    fn was_sent(&mut self, text: &str) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(frames)) = self.outbox.poll_take(&mut context) {
            self.sent.push_str(&String::from_utf8_lossy(&frames));
        }
        self.sent.contains(text)
    }
}

fn create() -> Proposal {
    Proposal::Create(Content::create(Kind::TextUnicode, Some(r#""abc""#)).unwrap())
}

/// Makes the store treat a node as one that has written no heartbeat for long.
async fn expire(store: &MemoryStore, me: NodeId) {
    let beat = Heartbeat {
        me,
        name: "n".into(),
        takes_part: false,
        address: None,
        version: NodeVersion::default(),
    };
    store.heartbeat(&beat).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_on_an_isolated_node_receive_commits_of_others() {
    let ([one, other], [way, _], _network) = two().await;
    let doc = document_of(&one);
    let (mut ann, mut bob) = (TestClient::on(&one), TestClient::on(&other));
    ann.ask(&doc, SessionRequest::Subscribe { since: None })
        .await;
    ann.submit(&doc, create()).await;
    eventually("it is created", || ann.was_sent("\"create\"")).await;
    eventually("it is owned", || {
        !one.services()
            .documents
            .followed_and_owned()
            .owned
            .is_empty()
    })
    .await;
    let mut isolated = one.watch_store_isolation();

    way.is_cut.store(true, Ordering::SeqCst);
    expire(&way.store, one.id()).await;
    timeout(PATIENCE, isolated.wait_for(|it| *it))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(ring(&one), [other.id()]);
    eventually("it is given up", || {
        one.services()
            .documents
            .followed_and_owned()
            .owned
            .is_empty()
    })
    .await;
    bob.ask(&doc, SessionRequest::Subscribe { since: None })
        .await;
    bob.submit(&doc, Proposal::Edit(r#"["bob"]"#.into())).await;
    eventually("Bob is answered", || bob.was_sent("bob")).await;
    eventually("Ann hears of it", || ann.was_sent("bob")).await;
    ann.submit(&doc, Proposal::Edit(r#"["ann"]"#.into())).await;
    eventually("Ann writes on by way of the other", || bob.was_sent("ann")).await;

    way.is_cut.store(false, Ordering::SeqCst);
    timeout(PATIENCE, isolated.wait_for(|it| !*it))
        .await
        .unwrap()
        .unwrap();
    for node in [&one, &other] {
        eventually("the ring is whole", || ring(node) == [one.id(), other.id()]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_keep_their_owners_while_the_store_answers_no_node() {
    let ([one, other], ways, _network) = two().await;
    let doc = document_of(&one);
    let mut ann = TestClient::on(&one);
    ann.ask(&doc, SessionRequest::Subscribe { since: None })
        .await;
    ann.submit(&doc, create()).await;
    eventually("it is created", || ann.was_sent("\"create\"")).await;
    for way in &ways {
        way.is_cut.store(true, Ordering::SeqCst);
    }
    let both_ask = || {
        [&one, &other]
            .iter()
            .all(|node| !node.services().peers.has_store())
    };
    eventually("the store answers no node", both_ask).await;
    // Much longer than it takes to count as dead and to ask the other node.
    sleep(Duration::from_millis(DEAD_AFTER_MS * 4)).await;
    assert!(!*one.watch_store_isolation().borrow() && !*other.watch_store_isolation().borrow());
    assert_eq!(one.services().documents.followed_and_owned().owned.len(), 1);
    // A new reader is sent what the owner has in memory.
    let mut late = TestClient::on(&one);
    late.ask(
        &doc,
        SessionRequest::Subscribe {
            since: Some(crate::log::Revision::ZERO),
        },
    )
    .await;
    eventually("the document is read", || late.was_sent("\"create\"")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_node_is_looked_up_once_a_second() {
    let (way, network) = (StoreConnection::default(), MemoryNetwork::new());
    let node = node(1, &way, &network).await;
    // A node without heartbeats: it drains, or is cut off from the store.
    let (stranger, _inbox) = network.open(NodeId(9));
    let (before, began) = (way.heartbeats.load(Ordering::SeqCst), Instant::now());
    for _ in 0..100 {
        stranger.send(node.id(), wire_version::encode(&NodeMessage::Ping, 1));
        sleep(Duration::from_millis(5)).await;
    }
    let beats = way.heartbeats.load(Ordering::SeqCst) - before;
    // Its own, twenty a second, and two for the stranger.
    let expected = began.elapsed().as_millis() / 50 + 3;
    assert!(
        u128::from(beats) <= expected,
        "{beats} instead of {expected}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_without_a_transport_owns_all_documents_in_spite_of_other_nodes() {
    let way = StoreConnection::default();
    let network = MemoryNetwork::new();
    let other = node(2, &way, &network).await;
    let lonely = alone(1, &way, None);
    lonely.take_part(None).await.unwrap();
    assert_eq!(ring(&lonely), [lonely.id()]);
    assert!(!lonely.next_heartbeat().takes_part);
    let pulse = way.heartbeat(&other.next_heartbeat()).await.unwrap();
    assert_eq!((pulse.nodes, pulse.others.len()), (vec![other.id()], 1));
    let doc = document_of(&other);
    let mut ann = TestClient::on(&lonely);
    ann.ask(&doc, SessionRequest::Subscribe { since: None })
        .await;
    ann.submit(&doc, create()).await;
    eventually("it writes all the same", || ann.was_sent("\"create\"")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_leaves_is_not_brought_back_by_an_older_heartbeat() {
    let way = StoreConnection::default();
    let node = node(1, &way, &MemoryNetwork::new()).await;
    // As if a heartbeat that says the contrary were under way.
    let turn = node.heartbeat_permit().await.unwrap();
    let leaving = tokio::spawn({
        let node = node.clone();
        async move { node.leave_ring().await }
    });
    eventually("it leaves", || !node.services().peers.takes_part()).await;
    assert!(
        !leaving.is_finished(),
        "its last heartbeat waits for the older one"
    );
    drop(turn);
    leaving.await.unwrap();
    let stranger = Heartbeat {
        me: NodeId(9),
        name: "n".into(),
        takes_part: false,
        address: None,
        version: NodeVersion::default(),
    };
    assert_eq!(way.heartbeat(&stranger).await.unwrap().nodes, []);
}

/// A subscription that is sent every entry, and no snapshot.
fn from_the_beginning() -> SessionRequest {
    SessionRequest::Subscribe {
        since: Some(crate::log::Revision::ZERO),
    }
}

/// Two nodes, a document that a client reads on each of them, and a backup of the store.
async fn backed_up() -> (
    [Arc<Node>; 2],
    StoreConnection,
    DocId,
    [TestClient; 2],
    MemoryStore,
) {
    let (nodes, [way, _], _network) = two().await;
    let doc = document_of(&nodes[0]);
    let mut clients = [TestClient::on(&nodes[0]), TestClient::on(&nodes[1])];
    for client in &clients {
        client.ask(&doc, from_the_beginning()).await;
    }
    // A subscription that came after the creation would not be sent it.
    for node in &nodes {
        eventually("it is subscribed to", || {
            !node
                .services()
                .documents
                .followed_and_owned()
                .followed
                .is_empty()
        })
        .await;
    }
    clients[0].submit(&doc, create()).await;
    for client in &mut clients {
        eventually("it is created", || client.was_sent("\"create\"")).await;
    }
    let backup = way.store.backup();
    (nodes, way, doc, clients, backup)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_that_lost_commits_gets_one_new_history_and_sockets_are_closed() {
    let (nodes, way, doc, mut clients, backup) = backed_up().await;
    clients[1]
        .submit(&doc, Proposal::Edit(r#"["lost"]"#.into()))
        .await;
    for client in &mut clients {
        eventually("it is committed", || client.was_sent("lost")).await;
    }
    way.store.restore(&backup);
    for client in &mut clients {
        eventually("the socket is closed", || client.outbox.is_closed()).await;
        assert!(client.was_sent("ERR_HISTORY_CHANGED"));
    }
    let renewed = way.store.history().await.unwrap();
    assert_eq!(renewed.generation, 1);
    for node in &nodes {
        eventually("the node serves it", || node.log_history() == renewed).await;
        // A new session is sent what the log holds. A session of the former history is closed.
        let (mut late, mut early) = (TestClient::on(node), TestClient::on(node));
        late.outbox = Arc::new(Outbox::new(1 << 20, &ShareDbEncoder, None).with_history(renewed));
        late.ask(&doc, from_the_beginning()).await;
        late.submit(&doc, Proposal::Edit(r#"["kept"]"#.into()))
            .await;
        eventually("it goes on", || late.was_sent("kept")).await;
        assert!(!late.was_sent("lost"));
        early
            .ask(&doc, SessionRequest::Subscribe { since: None })
            .await;
        eventually("it is sent away", || early.was_sent("ERR_HISTORY_CHANGED")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_that_lost_nothing_closes_no_socket() {
    let (nodes, way, doc, mut clients, backup) = backed_up().await;
    let before = way.store.history().await.unwrap();
    way.store.restore(&backup);
    let beats = way.heartbeats.load(Ordering::SeqCst);
    eventually("it is compared", || {
        way.heartbeats.load(Ordering::SeqCst) > beats + 3
    })
    .await;
    clients[0]
        .submit(&doc, Proposal::Edit(r#"["on"]"#.into()))
        .await;
    for client in &mut clients {
        eventually("they go on", || client.was_sent("on\"")).await;
        assert!(!client.outbox.is_closed());
    }
    assert_eq!(way.store.history().await.unwrap(), before);
    assert!(nodes.iter().all(|node| node.log_history() == before));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backup_from_before_a_renewal_is_no_history_to_go_back_to() {
    let (nodes, way, _doc, _clients, backup) = backed_up().await;
    let first = way.store.history().await.unwrap();
    let second = first.after(first, 7);
    way.store.renew_history(first, second).await.unwrap();
    for node in &nodes {
        eventually("the node serves it", || node.log_history() == second).await;
    }
    way.store.restore(&backup);
    for node in &nodes {
        eventually("it is renewed", || node.log_history().generation == 2).await;
    }
}

/// Appends to a document as another node would, without a message to other nodes.
async fn write_unheard(store: &MemoryStore, doc: &DocId) {
    let lease = store.claim(doc, NodeId(9)).await.unwrap();
    let id = SubmitId {
        author: UserId::anyone(),
        client: ClientId::parse("unheard").unwrap(),
        seq: lease.fence.epoch.0,
    };
    let entry = Entry {
        revision: lease.head.next(),
        epoch: lease.fence.epoch,
        id,
        at_ms: 1,
        change: Change::Edit(Op::parse(Kind::TextUnicode, r#"["unheard"]"#).unwrap()),
    };
    let batch = Batch {
        doc: doc.clone(),
        fence: lease.fence,
        entries: vec![Arc::new(entry)],
    };
    assert_eq!(store.append(vec![batch]).await.unwrap(), [Ok(())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feed_of_changes_reports_to_owners_and_readers_what_messages_did_not() {
    let ([one, other], [way, other_way], _network) = two().await;
    let doc = document_of(&one);
    let (mut ann, mut bob) = (TestClient::on(&one), TestClient::on(&other));
    ann.ask(&doc, SessionRequest::Subscribe { since: None })
        .await;
    ann.submit(&doc, create()).await;
    eventually("it is created", || ann.was_sent("\"create\"")).await;
    bob.ask(&doc, SessionRequest::Subscribe { since: None })
        .await;
    let follows = || {
        !other
            .services()
            .documents
            .followed_and_owned()
            .followed
            .is_empty()
    };
    eventually("Bob's node follows it", follows).await;
    eventually("it is owned", || {
        !one.services()
            .documents
            .followed_and_owned()
            .owned
            .is_empty()
    })
    .await;
    let compared = || [&way, &other_way].map(|way| way.comparisons.load(Ordering::SeqCst));
    let before = compared();

    write_unheard(&way.store, &doc).await;
    eventually("the owner is deposed", || {
        one.services()
            .documents
            .followed_and_owned()
            .owned
            .is_empty()
    })
    .await;
    eventually("Ann hears of it", || ann.was_sent("unheard")).await;
    eventually("Bob hears of it", || bob.was_sent("unheard")).await;
    assert_eq!(compared(), before, "no open document was asked for");
}

const OLD: WireRange = WireRange {
    oldest: 1,
    newest: 1,
};
const BOTH: WireRange = WireRange {
    oldest: 1,
    newest: 2,
};
const NEW: WireRange = WireRange {
    oldest: 2,
    newest: 2,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_neighbouring_wire_versions_serve_each_others_documents() {
    let (way, network) = (StoreConnection::default(), MemoryNetwork::new());
    let mut nodes = Vec::new();
    for (id, wire) in [(1, OLD), (2, BOTH), (3, BOTH)] {
        nodes.push(join(id, &way, &network, wire).await.unwrap());
    }
    for node in &nodes {
        eventually("both are in the hash ring", || ring(node).len() == 3).await;
    }
    for owner in &nodes {
        let doc = document_of(owner);
        let mut clients: Vec<_> = nodes.iter().map(TestClient::on).collect();
        clients[0]
            .ask(&doc, SessionRequest::Subscribe { since: None })
            .await;
        clients[0].submit(&doc, create()).await;
        eventually("it is there", || clients[0].was_sent("\"create\"")).await;
        // A client that was sent its own edit is subscribed, and is sent all later commits.
        for (at, client) in clients.iter_mut().enumerate() {
            client
                .ask(&doc, SessionRequest::Subscribe { since: None })
                .await;
            client.write_and_read(&doc, &format!("first of {at}")).await;
        }
        for at in 0..clients.len() {
            let text = format!("second of {at}");
            clients[at].write_and_read(&doc, &text).await;
            for reader in &mut clients {
                eventually("all read it", || reader.was_sent(&text)).await;
            }
        }
    }
    let total = |node: &Arc<Node>| node.services().peers.undecoded_total();
    assert_eq!(nodes.iter().map(total).sum::<u64>(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_shares_no_wire_version_with_a_live_node_does_not_join() {
    let (way, network) = (StoreConnection::default(), MemoryNetwork::new());
    let old = join(1, &way, &network, OLD).await.unwrap();
    let refused = join(2, &way, &network, NEW).await.unwrap_err();
    assert!(
        matches!(refused, JoinError::Incompatible { .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("n (wire 1-1)"), "{refused}");
    assert_eq!(ring(&old), [old.id()]);
    let pulse = way.heartbeat(&old.next_heartbeat()).await.unwrap();
    assert_eq!(pulse.nodes, [old.id()], "it has left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_fewer_nodes_understand_gives_up_its_documents() {
    let (way, network) = (StoreConnection::default(), MemoryNetwork::new());
    let new = join(1, &way, &network, NEW).await.unwrap();
    let doc = document_of(&new);
    let mut ann = TestClient::on(&new);
    ann.ask(&doc, SessionRequest::Subscribe { since: None })
        .await;
    ann.submit(&doc, create()).await;
    eventually("it is owned", || {
        !new.services()
            .documents
            .followed_and_owned()
            .owned
            .is_empty()
    })
    .await;
    // As if an old node woke up: it does not ask whether it may join.
    let (transport, _inbox) = network.open(NodeId(2));
    let old = of_version(2, &way, Some(transport), OLD);
    old.beat().await.unwrap();
    eventually("it stands back", || new.is_incompatible()).await;
    assert_eq!(ring(&new), [old.id()]);
    assert!(
        *new.watch_store_isolation().borrow(),
        "its sockets go to others"
    );
    eventually("it is given up", || {
        new.services()
            .documents
            .followed_and_owned()
            .owned
            .is_empty()
    })
    .await;
    old.leave_ring().await;
    assert!(!old.is_incompatible());
}

#[tokio::test]
async fn log_that_cannot_be_compared_is_not_a_heartbeat_without_an_answer() {
    let way = StoreConnection::default();
    let node = alone(1, &way, None);
    node.beat().await.unwrap();
    way.is_log_unreadable.store(true, Ordering::SeqCst);
    node.services().log_history.suspect();
    let error = node.beat().await.unwrap_err();
    assert!(matches!(error, BeatError::NotCompared(_)), "{error:?}");
    way.is_cut.store(true, Ordering::SeqCst);
    let error = node.beat().await.unwrap_err();
    assert!(matches!(error, BeatError::NotAnswered(_)), "{error:?}");
    way.is_cut.store(false, Ordering::SeqCst);
    way.is_log_unreadable.store(false, Ordering::SeqCst);
    node.beat().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_decoded_is_answered_with_a_notice_and_does_not_count_as_heard() {
    let (way, network) = (StoreConnection::default(), MemoryNetwork::new());
    let node = node(1, &way, &network).await;
    let (stranger, mut inbox) = network.open(NodeId(9));
    let beat = Heartbeat {
        me: NodeId(9),
        name: "nine".into(),
        takes_part: true,
        address: None,
        version: NodeVersion::default(),
    };
    way.heartbeat(&beat).await.unwrap();
    eventually("it is a member", || ring(&node).len() == 2).await;
    let send = |version| {
        let message = wire_version::encode(&NodeMessage::Pong, version);
        stranger.send(node.id(), message);
    };
    send(2);
    let notice = wire_version::notice(&wire_version::of_this_program());
    let answered = timeout(PATIENCE, async {
        while inbox.receive().await.unwrap().messages != [notice.clone()] {}
    });
    answered.await.expect("a notice comes");
    // It is sent a request, and continues to send messages that cannot be decoded.
    let doc = (0..).map(|at| DocId::parse("c", &format!("e{at}")).unwrap());
    let doc = doc
        .clone()
        .find(|doc| node.services().peers.owner(doc) == NodeId(9))
        .unwrap();
    let mut ann = TestClient::on(&node);
    ann.ask(&doc, SessionRequest::Subscribe { since: None })
        .await;
    ann.submit(&doc, create()).await;
    eventually("it is passed over", || {
        send(2);
        ring(&node) == [node.id()]
    })
    .await;
    eventually("the document is served", || ann.was_sent("\"create\"")).await;
    send(1);
    eventually("what it says in time counts", || ring(&node).len() == 2).await;
    assert!(node.services().peers.undecoded_total() > 1);
}

#[test]
fn step_that_panics_does_not_end_what_repeats_it() {
    let mut taken = 0;
    for at in 0..3 {
        survive("test", || assert_ne!(at, 1, "on purpose"));
        taken += 1;
    }
    assert_eq!(taken, 3);
}

mod damage;
mod quarantine;
mod readiness;
