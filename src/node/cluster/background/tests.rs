//! Two nodes of one process that stand on one store in memory, and what they make of a store that does not answer one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use futures_util::future::{BoxFuture, ready};
use tokio::runtime::Handle;

use super::*;
use crate::cluster::MemoryNetwork;
use crate::doc::{Proposal, SessionRequest, Submit};
use crate::id::{ClientId, DocId, SessionId, UserId};
use crate::log::{Change, Entry, Fence, Revision, Snapshot, SubmitId};
use crate::node::cluster::wire_version;
use crate::node::{NodeSettings, Outbox, ReplyTo};
use crate::ot::{Content, Kind, Op};
use crate::store::{
    AppendError, Batch, ChangeCursor, Changes, DocumentChanges, Heartbeat, HeartbeatReply, History,
    Lease, ListPage, ListQuery, ListedDocument, LoadRange, Loaded, MemoryStore, OpenDocuments,
    Store,
};
use crate::version::{NodeVersion, WireRange};

/// One node's way to the store, which can be cut.
#[derive(Debug, Clone, Default)]
struct Way {
    store: MemoryStore,
    is_cut: Arc<AtomicBool>,
    /// How often it carried a heartbeat.
    beats: Arc<AtomicU64>,
    /// How often all open documents were compared with the store.
    comparisons: Arc<AtomicU64>,
}

/// What is cut fails at once.
fn cut<'a, T: Send + 'a>() -> BoxFuture<'a, Result<T, StoreError>> {
    ready(Err(StoreError::new("reach", "it is cut"))).boxed()
}

macro_rules! by_way {
    ($(fn $verb:ident($($name:ident: $kind:ty),*) -> $answer:ty;)*) => {
        impl Store for Way {
            $(fn $verb<'a>(&'a self, $($name: $kind),*) -> BoxFuture<'a, Result<$answer, StoreError>> {
                if self.is_cut.load(Ordering::SeqCst) {
                    return cut();
                }
                self.store.$verb($($name),*)
            })*

            fn compare_open<'a>(&'a self, open: &'a OpenDocuments) -> BoxFuture<'a, Result<DocumentChanges, StoreError>> {
                if self.is_cut.load(Ordering::SeqCst) {
                    return cut();
                }
                self.comparisons.fetch_add(1, Ordering::SeqCst);
                self.store.compare_open(open)
            }

            fn heartbeat<'a>(&'a self, beat: &'a Heartbeat) -> BoxFuture<'a, Result<HeartbeatReply, StoreError>> {
                if self.is_cut.load(Ordering::SeqCst) {
                    return cut();
                }
                self.beats.fetch_add(1, Ordering::SeqCst);
                self.store.heartbeat(beat)
            }
        }
    };
}

by_way! {
    fn load(doc: &'a DocId, reach: LoadRange) -> Loaded;
    fn claim(doc: &'a DocId, me: NodeId) -> Lease;
    fn append(batches: Vec<Batch>) -> Vec<Result<(), AppendError>>;
    fn save_snapshot(doc: &'a DocId, fence: Fence, snapshot: Snapshot) -> ();
    fn changes(since: Option<&'a ChangeCursor>) -> Changes;
    fn list(query: ListQuery) -> ListPage;
    fn describe(doc: &'a DocId) -> Option<ListedDocument>;
    fn rename(doc: &'a DocId, title: &'a str) -> bool;
    fn check_writes() -> ();
    fn history() -> History;
    fn renew_history(known: History, next: History) -> History;
    fn fingerprints(entries: &'a [(DocId, Revision)]) -> Vec<Option<u64>>;
    fn secret() -> [u8; 32];
}

/// How long a condition may take to come about. Only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within the limit: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

const DEAD_AFTER_MS: u64 = 300;

/// A node that takes part.
async fn node(id: u64, way: &Way, exchange: &MemoryNetwork) -> Arc<Node> {
    join(id, way, exchange, WireRange::UNSTATED).await.unwrap()
}

/// A node of these wire versions that takes part.
async fn join(
    id: u64,
    way: &Way,
    exchange: &MemoryNetwork,
    wire: WireRange,
) -> Result<Arc<Node>, JoinError> {
    let (transport, inbox) = exchange.open(NodeId(id));
    let node = of_version(id, way, Some(transport), wire);
    node.take_part(Some(inbox)).await?;
    Ok(node)
}

type SomeTransport = Option<Arc<dyn crate::cluster::Transport>>;

fn alone(id: u64, way: &Way, transport: SomeTransport) -> Arc<Node> {
    of_version(id, way, transport, WireRange::UNSTATED)
}

fn of_version(id: u64, way: &Way, transport: SomeTransport, wire: WireRange) -> Arc<Node> {
    let mut settings = NodeSettings {
        heartbeat_ms: 50,
        dead_after_ms: DEAD_AFTER_MS,
        ..NodeSettings::default()
    };
    settings.version.wire = wire;
    let store = Arc::new(way.clone());
    Node::new(
        (NodeId(id), "n"),
        store,
        transport,
        settings,
        Handle::current(),
    )
}

/// Two nodes that know of each other, each with its way to the same store.
async fn two() -> ([Arc<Node>; 2], [Way; 2], MemoryNetwork) {
    let exchange = MemoryNetwork::new();
    let one = Way::default();
    let other = Way {
        store: one.store.clone(),
        ..Way::default()
    };
    let nodes = [
        node(1, &one, &exchange).await,
        node(2, &other, &exchange).await,
    ];
    for node in &nodes {
        let ring = node.peers().watch_ring();
        eventually("they know each other", || ring.borrow().nodes().len() == 2).await;
    }
    (nodes, [one, other], exchange)
}

fn ring(node: &Node) -> Vec<NodeId> {
    node.peers().watch_ring().borrow().nodes().to_vec()
}

/// A document that the ring gives to this node.
fn document_of(node: &Node) -> DocId {
    let named = |at: u32| DocId::parse("c", &format!("d{at}")).unwrap();
    let mut docs = (0..).map(named);
    docs.find(|doc| node.peers().owner(doc) == node.id())
        .unwrap()
}

/// Somebody who has a document open on a node.
struct Person {
    node: Arc<Node>,
    session: SessionId,
    seq: u64,
    outbox: Arc<Outbox>,
    sent: String,
}

impl Person {
    fn on(node: &Arc<Node>) -> Self {
        Self {
            node: node.clone(),
            session: node.next_session(),
            seq: 0,
            outbox: Arc::new(Outbox::new(1 << 20, None)),
            sent: String::new(),
        }
    }

    async fn ask(&self, doc: &DocId, ask: SessionRequest) {
        let whom = (self.session, &self.outbox);
        let asked = self.node.ask(doc, whom, ask, ReplyTo::Unrequested).await;
        asked.unwrap();
    }

    /// Submits what nobody submitted before.
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

    /// Inserts a text, and waits until it is sent to this person.
    async fn write_and_read(&mut self, doc: &DocId, text: &str) {
        let edit = Proposal::Edit(format!(r#"["{text}"]"#).into());
        self.submit(doc, edit).await;
        eventually("the edit is read", || self.was_sent(text)).await;
    }

    /// Whether it was ever sent this.
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

/// What the store's clock does to a node that it has not heard.
async fn forget(store: &MemoryStore, me: NodeId) {
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
async fn readers_on_a_stranded_node_hear_what_others_commit() {
    let ([one, other], [way, _], _exchange) = two().await;
    let doc = document_of(&one);
    let (mut ann, mut bob) = (Person::on(&one), Person::on(&other));
    ann.ask(&doc, SessionRequest::Subscribe { since: None })
        .await;
    ann.submit(&doc, create()).await;
    eventually("it is created", || ann.was_sent("\"create\"")).await;
    eventually("it is owned", || !one.open_documents().owned.is_empty()).await;
    let mut stranded = one.watch_store_isolation();

    way.is_cut.store(true, Ordering::SeqCst);
    forget(&way.store, one.id()).await;
    timeout(PATIENCE, stranded.wait_for(|it| *it))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(ring(&one), [other.id()]);
    eventually("it is given up", || one.open_documents().owned.is_empty()).await;
    bob.ask(&doc, SessionRequest::Subscribe { since: None })
        .await;
    bob.submit(&doc, Proposal::Edit(r#"["bob"]"#.into())).await;
    eventually("Bob is answered", || bob.was_sent("bob")).await;
    eventually("Ann hears of it", || ann.was_sent("bob")).await;
    ann.submit(&doc, Proposal::Edit(r#"["ann"]"#.into())).await;
    eventually("Ann writes on by way of the other", || bob.was_sent("ann")).await;

    way.is_cut.store(false, Ordering::SeqCst);
    timeout(PATIENCE, stranded.wait_for(|it| !*it))
        .await
        .unwrap()
        .unwrap();
    for node in [&one, &other] {
        eventually("the ring is whole", || ring(node) == [one.id(), other.id()]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gives_up_what_it_owns_while_the_store_answers_no_one() {
    let ([one, other], ways, _exchange) = two().await;
    let doc = document_of(&one);
    let mut ann = Person::on(&one);
    ann.ask(&doc, SessionRequest::Subscribe { since: None })
        .await;
    ann.submit(&doc, create()).await;
    eventually("it is created", || ann.was_sent("\"create\"")).await;
    for way in &ways {
        way.is_cut.store(true, Ordering::SeqCst);
    }
    let both_ask = || [&one, &other].iter().all(|node| !node.peers().has_store());
    eventually("nobody has a store", both_ask).await;
    // Much longer than it takes to be taken for dead and to ask the others.
    sleep(Duration::from_millis(DEAD_AFTER_MS * 4)).await;
    assert!(!*one.watch_store_isolation().borrow() && !*other.watch_store_isolation().borrow());
    assert_eq!(one.open_documents().owned.len(), 1);
    // Whoever comes is shown what its owner has in memory.
    let mut late = Person::on(&one);
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
async fn who_takes_no_part_is_looked_up_once_a_second() {
    let (way, exchange) = (Way::default(), MemoryNetwork::new());
    let node = node(1, &way, &exchange).await;
    // One that says nothing to the store: it drains, or is cut off from it.
    let (stranger, _inbox) = exchange.open(NodeId(9));
    let (before, began) = (way.beats.load(Ordering::SeqCst), Instant::now());
    for _ in 0..100 {
        stranger.send(node.id(), wire_version::encode(&Message::Ping, 1));
        sleep(Duration::from_millis(5)).await;
    }
    let beats = way.beats.load(Ordering::SeqCst) - before;
    // Its own, twenty a second, and two for the stranger.
    let expected = began.elapsed().as_millis() / 50 + 3;
    assert!(
        u128::from(beats) <= expected,
        "{beats} instead of {expected}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_without_a_transport_owns_all_whoever_else_there_is() {
    let way = Way::default();
    let exchange = MemoryNetwork::new();
    let other = node(2, &way, &exchange).await;
    let deaf = alone(1, &way, None);
    deaf.take_part(None).await.unwrap();
    assert_eq!(ring(&deaf), [deaf.id()]);
    assert!(!deaf.next_beat().takes_part);
    let pulse = way.heartbeat(&other.next_beat()).await.unwrap();
    assert_eq!((pulse.nodes, pulse.others.len()), (vec![other.id()], 1));
    let doc = document_of(&other);
    let mut ann = Person::on(&deaf);
    ann.ask(&doc, SessionRequest::Subscribe { since: None })
        .await;
    ann.submit(&doc, create()).await;
    eventually("it writes all the same", || ann.was_sent("\"create\"")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_is_not_brought_back_by_an_older_heartbeat() {
    let way = Way::default();
    let node = node(1, &way, &MemoryNetwork::new()).await;
    // As if a heartbeat that says the contrary were under way.
    let turn = node.may_beat().await.unwrap();
    let leaving = tokio::spawn({
        let node = node.clone();
        async move { node.leave_ring().await }
    });
    eventually("it leaves", || !node.peers().take_part()).await;
    assert!(
        !leaving.is_finished(),
        "its own word waits for the older one"
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

/// A document on each of two nodes that somebody reads, and a backup of the store as it is then.
async fn backed_up() -> ([Arc<Node>; 2], Way, DocId, [Person; 2], MemoryStore) {
    let (nodes, [way, _], _exchange) = two().await;
    let doc = document_of(&nodes[0]);
    let mut people = [Person::on(&nodes[0]), Person::on(&nodes[1])];
    for person in &people {
        person.ask(&doc, from_the_beginning()).await;
    }
    // A subscription that came after the creation would not be sent it.
    for node in &nodes {
        eventually("it is subscribed to", || {
            !node.open_documents().followed.is_empty()
        })
        .await;
    }
    people[0].submit(&doc, create()).await;
    for person in &mut people {
        eventually("it is created", || person.was_sent("\"create\"")).await;
    }
    let backup = way.store.backup();
    (nodes, way, doc, people, backup)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_that_lost_commits_gets_one_new_history_and_sockets_are_closed() {
    let (nodes, way, doc, mut people, backup) = backed_up().await;
    people[1]
        .submit(&doc, Proposal::Edit(r#"["lost"]"#.into()))
        .await;
    for person in &mut people {
        eventually("it is committed", || person.was_sent("lost")).await;
    }
    way.store.restore(&backup);
    for person in &mut people {
        eventually("the socket is closed", || person.outbox.is_closed()).await;
        assert!(person.was_sent("ERR_HISTORY_CHANGED"));
    }
    let renewed = way.store.history().await.unwrap();
    assert_eq!(renewed.generation, 1);
    for node in &nodes {
        eventually("the node serves it", || node.log_history() == renewed).await;
        // Who comes now is shown what the log holds, and one who came before it was renewed is sent away.
        let (mut late, mut early) = (Person::on(node), Person::on(node));
        late.outbox = Arc::new(Outbox::new(1 << 20, None).in_history(renewed));
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
async fn failover_that_lost_nothing_disturbs_nobody() {
    let (nodes, way, doc, mut people, backup) = backed_up().await;
    let before = way.store.history().await.unwrap();
    way.store.restore(&backup);
    let beats = way.beats.load(Ordering::SeqCst);
    eventually("it is compared", || {
        way.beats.load(Ordering::SeqCst) > beats + 3
    })
    .await;
    people[0]
        .submit(&doc, Proposal::Edit(r#"["on"]"#.into()))
        .await;
    for person in &mut people {
        eventually("they go on", || person.was_sent("on\"")).await;
        assert!(!person.outbox.is_closed());
    }
    assert_eq!(way.store.history().await.unwrap(), before);
    assert!(nodes.iter().all(|node| node.log_history() == before));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backup_from_before_a_renewal_is_no_history_to_go_back_to() {
    let (nodes, way, _doc, _people, backup) = backed_up().await;
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

/// Appends to a document as another node would, and tells nobody.
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
async fn feed_of_changes_tells_owners_and_readers_what_no_message_told() {
    let ([one, other], [way, other_way], _exchange) = two().await;
    let doc = document_of(&one);
    let (mut ann, mut bob) = (Person::on(&one), Person::on(&other));
    ann.ask(&doc, SessionRequest::Subscribe { since: None })
        .await;
    ann.submit(&doc, create()).await;
    eventually("it is created", || ann.was_sent("\"create\"")).await;
    bob.ask(&doc, SessionRequest::Subscribe { since: None })
        .await;
    let follows = || !other.open_documents().followed.is_empty();
    eventually("Bob's node follows it", follows).await;
    eventually("it is owned", || !one.open_documents().owned.is_empty()).await;
    let compared = || [&way, &other_way].map(|way| way.comparisons.load(Ordering::SeqCst));
    let before = compared();

    write_unheard(&way.store, &doc).await;
    eventually("the owner is deposed", || {
        one.open_documents().owned.is_empty()
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
    let (way, exchange) = (Way::default(), MemoryNetwork::new());
    let mut nodes = Vec::new();
    for (id, wire) in [(1, OLD), (2, BOTH), (3, BOTH)] {
        nodes.push(join(id, &way, &exchange, wire).await.unwrap());
    }
    for node in &nodes {
        eventually("they know each other", || ring(node).len() == 3).await;
    }
    for owner in &nodes {
        let doc = document_of(owner);
        let mut people: Vec<_> = nodes.iter().map(Person::on).collect();
        people[0]
            .ask(&doc, SessionRequest::Subscribe { since: None })
            .await;
        people[0].submit(&doc, create()).await;
        eventually("it is there", || people[0].was_sent("\"create\"")).await;
        // Whoever was sent its own edit is subscribed, and is sent all that follow.
        for (at, person) in people.iter_mut().enumerate() {
            person
                .ask(&doc, SessionRequest::Subscribe { since: None })
                .await;
            person.write_and_read(&doc, &format!("first of {at}")).await;
        }
        for at in 0..people.len() {
            let text = format!("second of {at}");
            people[at].write_and_read(&doc, &text).await;
            for reader in &mut people {
                eventually("all read it", || reader.was_sent(&text)).await;
            }
        }
    }
    let total = |node: &Arc<Node>| node.peers().undecoded_total();
    assert_eq!(nodes.iter().map(total).sum::<u64>(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_shares_no_wire_version_with_a_live_node_does_not_join() {
    let (way, exchange) = (Way::default(), MemoryNetwork::new());
    let old = join(1, &way, &exchange, OLD).await.unwrap();
    let refused = join(2, &way, &exchange, NEW).await.unwrap_err();
    assert!(
        matches!(refused, JoinError::Incompatible { .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("n (wire 1-1)"), "{refused}");
    assert_eq!(ring(&old), [old.id()]);
    let pulse = way.heartbeat(&old.next_beat()).await.unwrap();
    assert_eq!(pulse.nodes, [old.id()], "it has left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_fewer_nodes_understand_gives_up_its_documents() {
    let (way, exchange) = (Way::default(), MemoryNetwork::new());
    let new = join(1, &way, &exchange, NEW).await.unwrap();
    let doc = document_of(&new);
    let mut ann = Person::on(&new);
    ann.ask(&doc, SessionRequest::Subscribe { since: None })
        .await;
    ann.submit(&doc, create()).await;
    eventually("it is owned", || !new.open_documents().owned.is_empty()).await;
    // As if an old node woke up: it does not ask whether it may join.
    let (transport, _inbox) = exchange.open(NodeId(2));
    let old = of_version(2, &way, Some(transport), OLD);
    old.beat().await.unwrap();
    eventually("it stands back", || new.is_incompatible()).await;
    assert_eq!(ring(&new), [old.id()]);
    assert!(
        *new.watch_store_isolation().borrow(),
        "its sockets go to others"
    );
    eventually("it is given up", || new.open_documents().owned.is_empty()).await;
    old.leave_ring().await;
    assert!(!old.is_incompatible());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_decoded_is_answered_with_a_notice_and_does_not_count_as_heard() {
    let (way, exchange) = (Way::default(), MemoryNetwork::new());
    let node = node(1, &way, &exchange).await;
    let (stranger, mut inbox) = exchange.open(NodeId(9));
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
        let message = wire_version::encode(&Message::Pong, version);
        stranger.send(node.id(), message);
    };
    send(2);
    let notice = wire_version::notice(&wire_version::of_this_program());
    let answered = timeout(PATIENCE, async {
        while inbox.receive().await.unwrap().messages != [notice.clone()] {}
    });
    answered.await.expect("a notice comes");
    // It is asked something, and goes on to send what nobody can read.
    let doc = (0..).map(|at| DocId::parse("c", &format!("e{at}")).unwrap());
    let doc = doc
        .clone()
        .find(|doc| node.peers().owner(doc) == NodeId(9))
        .unwrap();
    let mut ann = Person::on(&node);
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
    assert!(node.peers().undecoded_total() > 1);
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

mod readiness;
