//! Dead letters and quarantine on two nodes. An edit that contains [`PANIC_MARK`] makes the owner panic.

use super::*;
use crate::node::cluster::message::NodeMessage;
use crate::node::metrics::DeadLetterResult;
use crate::protocol;
use crate::store::DeadLetterReason;
use crate::version::Capabilities;

const NOT_APPLIED: &str = "ERR_OT_OP_NOT_APPLIED";
const QUARANTINED: &str = "ERR_DOC_QUARANTINED";

/// A client that is told of its rejected edits.
struct Editor {
    client: TestClient,
    doc: DocId,
}

impl Editor {
    fn on(node: &Arc<Node>, doc: &DocId) -> Self {
        Self {
            client: TestClient::on(node),
            doc: doc.clone(),
        }
    }

    async fn ask(&self, request: SessionRequest) {
        let text = r#"{"a":"op","c":"c","d":"d","v":0,"seq":1,"src":"x","op":[]}"#;
        let (_, echo) = protocol::parse(text).unwrap();
        let client = &self.client;
        let session = (client.session, &client.outbox);
        let reply_to = ReplyTo::Socket(Box::new(echo));
        let asked = client.node.ask(&self.doc, session, request, reply_to);
        asked.await.unwrap();
    }

    async fn subscribe(&self) {
        self.ask(SessionRequest::Subscribe { since: None }).await;
    }

    /// Submits an edit with this seq of the client `name`.
    async fn edit(&self, name: &str, seq: u64, text: &str) {
        let id = SubmitId {
            author: UserId::new("user"),
            client: ClientId::parse(name).unwrap(),
            seq,
        };
        let proposal = Proposal::Edit(format!(r#"["{text}"]"#).into());
        let base = None;
        self.ask(SessionRequest::Submit(Submit { id, base, proposal }))
            .await;
    }

    async fn is_sent(&mut self, what: &str) {
        eventually(what, || self.client.was_sent(what)).await;
    }
}

/// Two nodes, and a document that the first owns.
async fn with_document() -> ([Arc<Node>; 2], StoreConnection, DocId, MemoryNetwork) {
    let (nodes, [way, _], network) = two().await;
    let doc = document_of(&nodes[0]);
    let mut ann = Editor::on(&nodes[0], &doc);
    ann.subscribe().await;
    ann.client.submit(&doc, create()).await;
    ann.is_sent("\"create\"").await;
    (nodes, way, doc, network)
}

async fn letters(store: &MemoryStore) -> Vec<DeadLetter> {
    let found = store.dead_letters(DeadLetterFilter::default(), None, 100);
    let found = found.await.unwrap();
    found.into_iter().map(|it| it.letter).collect()
}

async fn eventually_letters(store: &MemoryStore, count: usize) -> Vec<DeadLetter> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = letters(store).await;
        if found.len() >= count {
            return found;
        }
        assert!(Instant::now() < deadline, "dead letters: {found:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until each node has the document in quarantine, or none has.
async fn eventually_quarantined(nodes: &[Arc<Node>], doc: &DocId, expected: bool) {
    for node in nodes {
        let deadline = Instant::now() + PATIENCE;
        while node.services().faults.is_quarantined(doc).await != expected {
            assert!(Instant::now() < deadline, "quarantined: not {expected}");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_edit_of_another_node_is_rejected_kept_and_not_processed_again() {
    let (nodes, way, doc, _network) = with_document().await;
    let mut bob = Editor::on(&nodes[1], &doc);
    bob.subscribe().await;
    bob.edit("bob", 1, "poison 'é'").await;
    bob.is_sent(NOT_APPLIED).await;
    let [letter] = &eventually_letters(&way.store, 1).await[..] else {
        panic!("one panic");
    };
    assert_eq!(letter.reason, DeadLetterReason::Panic);
    assert_eq!((&letter.doc, letter.node), (&doc, nodes[0].id()));
    assert_eq!(letter.submit.author, UserId::new("user"));
    assert_eq!(
        (letter.submit.client.as_str(), letter.submit.seq),
        ("bob", 1)
    );
    assert_eq!((letter.base, letter.head), (None, Revision(1)));
    assert_eq!(letter.payload, r#"{"op":["poison 'é'"]}"#);
    assert!(letter.detail.contains("a test provokes a panic"));
    // The client reconnects and sends the edit again.
    for node in &nodes {
        let mut again = Editor::on(node, &doc);
        again.edit("bob", 1, "poison 'é'").await;
        again.is_sent(NOT_APPLIED).await;
    }
    assert_eq!(
        nodes[0].services().metrics.document_panics.get(),
        1,
        "it was not processed"
    );
    // The document can be edited.
    let mut carl = Editor::on(&nodes[1], &doc);
    carl.subscribe().await;
    carl.edit("carl", 1, "sound").await;
    carl.is_sent("sound").await;
    assert_eq!(letters(&way.store).await.len(), 1);
    assert_eq!(way.store.quarantined().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn document_is_quarantined_on_all_nodes_until_it_is_released() {
    let (nodes, way, doc, network) = with_document().await;
    let mut reader = Editor::on(&nodes[1], &doc);
    reader.subscribe().await;
    reader.is_sent("abc").await;
    for seq in 1..=2 {
        let mut bob = Editor::on(&nodes[1], &doc);
        bob.edit("bob", seq, "poison").await;
        bob.is_sent(NOT_APPLIED).await;
    }
    eventually_quarantined(&nodes, &doc, true).await;
    // Clients with the document open reconnect, and so learn of it.
    timeout(PATIENCE, reader.client.outbox.closed())
        .await
        .expect("the reader is closed");
    let newcomer = join(3, &way, &network, WireRange::UNSTATED).await.unwrap();
    assert!(newcomer.services().faults.is_quarantined(&doc).await);
    for node in [&nodes[0], &nodes[1], &newcomer] {
        let mut ann = Editor::on(node, &doc);
        ann.subscribe().await;
        ann.is_sent(r#""notice":{"code":"ERR_DOC_QUARANTINED""#)
            .await;
        assert!(ann.client.was_sent("abc"), "it can be read");
        let mut carl = Editor::on(node, &doc);
        carl.edit("carl", 1, "sound").await;
        carl.is_sent(QUARANTINED).await;
    }
    // Another document of the same owner is not affected.
    let mut other = DocId::parse("c", "other").unwrap();
    for at in 0.. {
        other = DocId::parse("c", &format!("other{at}")).unwrap();
        if nodes[0].services().peers.owner(&other) == nodes[0].id() {
            break;
        }
    }
    let mut ann = Editor::on(&nodes[1], &other);
    ann.subscribe().await;
    ann.client.submit(&other, create()).await;
    ann.is_sent("\"create\"").await;

    assert!(way.store.release_quarantine(&doc).await.unwrap());
    let all = [nodes[0].clone(), nodes[1].clone(), newcomer];
    eventually_quarantined(&all, &doc, false).await;
    for (at, node) in all.iter().enumerate() {
        let mut ann = Editor::on(node, &doc);
        ann.subscribe().await;
        let text = format!("released {at}");
        let mut seq = 0;
        // The message to the open document may still be on its way.
        eventually_edited(&mut ann, &format!("ann-{at}"), &mut seq, &text).await;
    }
}

/// Edits until an edit is committed.
async fn eventually_edited(editor: &mut Editor, name: &str, seq: &mut u64, text: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !editor.client.was_sent(text) {
        assert!(Instant::now() < deadline, "the document stays read-only");
        if editor.client.outbox.is_closed() {
            *editor = Editor::on(&editor.client.node.clone(), &editor.doc.clone());
            editor.subscribe().await;
        }
        *seq += 1;
        editor.edit(name, *seq, text).await;
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn panics_are_recorded_after_an_outage_of_the_store() {
    let (nodes, way, doc, _network) = with_document().await;
    // The document is open and owned, so it panics without the store.
    way.is_cut.store(true, Ordering::SeqCst);
    let mut bob = Editor::on(&nodes[0], &doc);
    bob.edit("bob", 1, "poison").await;
    bob.is_sent(NOT_APPLIED).await;
    way.is_cut.store(false, Ordering::SeqCst);
    let letters = eventually_letters(&way.store, 1).await;
    assert_eq!(letters[0].submit.seq, 1);
    let metrics = &nodes[0].services().metrics;
    assert_eq!(metrics.dead_letters.of(DeadLetterResult::Dropped).get(), 0);
    assert_eq!(metrics.dead_letters.of(DeadLetterResult::Written).get(), 1);
    let mut bob = Editor::on(&nodes[0], &doc);
    bob.edit("bob", 2, "poison").await;
    bob.is_sent(NOT_APPLIED).await;
    eventually_quarantined(&nodes, &doc, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_of_an_older_version_is_told_of_a_damaged_document_instead() {
    let (nodes, way, doc, network) = with_document().await;
    for at_ms in [1, 2] {
        let panic = PanicRecord {
            doc: doc.clone(),
            node: NodeId(8),
            node_name: "n".into(),
            at_ms,
            is_repeated: false,
        };
        way.store.record_panic(panic).await.unwrap();
    }
    eventually_quarantined(&nodes, &doc, true).await;
    let older = Capabilities(Capabilities::ALL.0 & !Capabilities::QUARANTINE.0);
    for (id, capabilities, expected) in [
        (8, older, "ERR_DOC_DAMAGED"),
        (9, Capabilities::ALL, QUARANTINED),
    ] {
        let (transport, mut inbox) = network.open(NodeId(id));
        let mut version = wire_version::of_this_program();
        version.capabilities = capabilities;
        let beat = Heartbeat {
            me: NodeId(id),
            name: "n".into(),
            takes_part: false,
            address: None,
            version,
        };
        way.store.heartbeat(&beat).await.unwrap();
        // The node reads of the other one.
        nodes[0].beat().await.unwrap();
        let submit = Submit {
            id: SubmitId {
                author: UserId::anyone(),
                client: ClientId::parse("ann").unwrap(),
                seq: 1,
            },
            base: None,
            proposal: Proposal::Edit(r#"["x"]"#.into()),
        };
        let mark = nodes[0].log_history().mark();
        let message = NodeMessage::Document(doc.clone(), PeerMessage::Submit(submit, None), mark);
        transport.send(nodes[0].id(), message.encode());
        let rejection = timeout(PATIENCE, async {
            loop {
                let delivery = inbox.receive().await.expect("the network is open");
                for bytes in delivery.messages {
                    if let Ok(NodeMessage::Document(_, PeerMessage::Reject { rejection, .. }, _)) =
                        NodeMessage::decode(&bytes)
                    {
                        return rejection;
                    }
                }
            }
        });
        let rejection = rejection.await.expect("the submit is rejected");
        assert_eq!(protocol::Code::from(rejection.reason).as_str(), expected);
    }
}
