//! Unit tests of a document's task: what sessions are sent, and what survives a panic.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::timeout;

use super::*;
use crate::doc::{Proposal, SessionReply, Submit};
use crate::gateway::ShareDbEncoder;
use crate::id::{ClientId, Name, UserId};
use crate::log::{Change, Entry, Epoch, Snapshot, SubmitId};
use crate::node::delivery::reply::BulkReply;
use crate::node::document::session::READS_MAX;
use crate::node::{Node, NodeEnvironment, NodeMetrics, NodeSettings, RepairMode, repair};
use crate::ot::{Content, Kind, Op};
use crate::protocol::{self, BadRequest, Code, EchoedFields, Refusal, encode_snapshot};
use crate::store::{Batch, LoadRange, MemoryStore, Store};

fn environment(store: &Arc<MemoryStore>) -> NodeEnvironment {
    NodeEnvironment {
        store: store.clone(),
        transport: None,
        encoder: &ShareDbEncoder,
        runtime: Handle::current(),
        metrics: NodeMetrics::default(),
    }
}

fn node(store: &Arc<MemoryStore>) -> Arc<Node> {
    let settings = NodeSettings::default();
    Node::new((NodeId(1), "a"), settings, environment(store))
}

fn task() -> (DocumentTask, mpsc::Sender<DocumentMessage>) {
    let environment = environment(&Arc::new(MemoryStore::new()));
    let services = NodeServices::new((NodeId(1), "a"), NodeSettings::default(), environment);
    let (sender, receiver) = mpsc::channel(8);
    let doc = DocId::parse("c", "a").unwrap();
    let opened = (1, History::default());
    let task = DocumentTask::new(doc, opened, Arc::new(services), receiver, Arc::default());
    (task, sender)
}

fn outbox(bytes_max: usize) -> Arc<Outbox> {
    Arc::new(Outbox::new(bytes_max, &ShareDbEncoder, None))
}

fn echo(text: &str) -> EchoedFields {
    match protocol::parse(text) {
        Ok((_, echo)) | Err(BadRequest::Refused(echo, _)) => echo,
        Err(BadRequest::NotAnObject) => panic!("{text}"),
    }
}

fn fetch(outbox: &Arc<Outbox>, reply_to: ReplyTo) -> DocumentMessage {
    DocumentMessage::Request {
        session: SessionId(1),
        outbox: outbox.clone(),
        reply_to,
        request: SessionRequest::Fetch { since: None },
    }
}

fn to_socket() -> ReplyTo {
    ReplyTo::Socket(Box::new(echo(r#"{"a":"f","c":"c","d":"a"}"#)))
}

fn bulk(text: &str, documents: usize) -> Arc<BulkReply> {
    BulkReply::new(Box::new(echo(text)), true, documents, None)
}

/// Everything that is in the outbox, as text.
fn sent(outbox: &Outbox) -> String {
    let mut all = String::new();
    while let Poll::Ready(Some(frames)) = outbox.poll_take(&mut Context::from_waker(Waker::noop()))
    {
        all.push_str(&String::from_utf8_lossy(&frames));
    }
    all
}

fn commit(revision: u64) -> Arc<Entry> {
    Arc::new(Entry {
        revision: Revision(revision),
        epoch: Epoch(1),
        id: SubmitId {
            author: UserId::anyone(),
            client: ClientId::parse("ann").unwrap(),
            seq: revision,
        },
        at_ms: 0,
        change: Change::Delete,
    })
}

/// Sends a request in a new session, and returns the outbox and what it contains once there is an answer.
async fn ask(node: &Arc<Node>, doc: &DocId, request: SessionRequest) -> (Arc<Outbox>, String) {
    let outbox = outbox(1 << 20);
    let session = (node.next_session(), &outbox);
    node.ask(doc, session, request, to_socket()).await.unwrap();
    let answered = timeout(Duration::from_secs(20), async {
        loop {
            let sent = sent(&outbox);
            if !sent.is_empty() {
                return sent;
            }
            tokio::task::yield_now().await;
        }
    });
    let answer = answered.await.expect("it is answered");
    (outbox, answer)
}

#[tokio::test]
async fn panic_of_a_state_machine_closes_its_document_and_no_other() {
    let node = node(&Arc::new(MemoryStore::new()));
    let [doc, neighbour] = ["a", "b"].map(|id| DocId::parse("c", id).unwrap());
    let subscribe = || SessionRequest::Subscribe { since: None };
    let (outbox, _) = ask(&node, &doc, subscribe()).await;
    let (other, _) = ask(&node, &neighbour, subscribe()).await;
    // An owner never sends commits with a gap between them: the machine relies on that.
    let entries = vec![commit(1), commit(3)];
    let head = Revision(3);
    let commits = PeerMessage::Commits { head, entries };
    node.registry().receive(NodeId(2), &doc, commits);
    outbox.closed().await;
    assert!(
        sent(&outbox).contains(&*CloseReason::DocumentClosed.text()),
        "clients reconnect"
    );
    assert!(!other.is_closed());
    let (_, answer) = ask(&node, &doc, subscribe()).await;
    assert!(
        answer.contains(r#""data":{"v":0"#),
        "it is opened anew: {answer}"
    );
}

/// Stores a document that folds to 2 GB: an older version accepted its second entry.
async fn store_oversized(store: &MemoryStore, doc: &DocId) {
    let runs: Vec<String> = (0..2_000)
        .map(|at| format!(r#"{{"insert":"a","attributes":{{"n":{}}}}}"#, at % 2))
        .collect();
    let content = Content::create(Kind::RichText, Some(&format!("[{}]", runs.join(","))));
    let edit = |json: &str| Change::Edit(Op::parse_logged(Kind::RichText, json).unwrap());
    let big = "x".repeat(1 << 20);
    let changes = [
        Change::Create(content.unwrap()),
        edit(&format!(
            r#"[{{"retain":2000,"attributes":{{"a":"{big}"}}}}]"#
        )),
        edit(r#"[{"retain":2000},{"insert":"the end"}]"#),
    ];
    let lease = store.claim(doc, NodeId(9)).await.unwrap();
    let entries = (1..).zip(changes).map(|(revision, change)| {
        let entry = Arc::unwrap_or_clone(commit(revision));
        let epoch = lease.fence.epoch;
        Arc::new(Entry {
            change,
            epoch,
            ..entry
        })
    });
    let batch = Batch {
        doc: doc.clone(),
        fence: lease.fence,
        entries: entries.collect(),
    };
    store.append(vec![batch]).await.unwrap().remove(0).unwrap();
}

#[tokio::test]
async fn an_oversized_document_is_read_only_until_it_is_repaired() {
    const CODE: &str = "ERR_DOC_OVERSIZED";
    let store = Arc::new(MemoryStore::new());
    let doc = DocId::parse("c", "a").unwrap();
    store_oversized(&store, &doc).await;
    let subscribe = |since: Option<u64>| SessionRequest::Subscribe {
        since: since.map(Revision),
    };
    let edit = |base: u64| {
        SessionRequest::Submit(Submit {
            id: SubmitId {
                seq: 100 + base,
                ..commit(1).id.clone()
            },
            base: Some(Revision(base)),
            proposal: Proposal::Edit(r#"[{"insert":"x"}]"#.into()),
        })
    };
    let check = async |node: &Arc<Node>, request, expected: &str| {
        let (_, answer) = ask(node, &doc, request).await;
        assert!(
            answer.contains(expected),
            "{expected}: {}",
            &answer[..answer.len().min(300)]
        );
    };
    let opened = node(&store);
    // The submit comes first: the claim finds the fault too, and the submit is not repeated for ever.
    for (request, expected) in [
        (edit(1), CODE),
        (subscribe(None), r#""v":1,"#),
        (edit(1), CODE),
        (subscribe(Some(3)), CODE),
    ] {
        check(&opened, request, expected).await;
    }
    let past = opened
        .history(&doc, LoadRange::At(Revision(1)))
        .await
        .unwrap();
    assert_eq!(past.revision, Revision(1));
    let rejection = opened
        .history(&doc, LoadRange::At(Revision(2)))
        .await
        .unwrap_err();
    assert_eq!(Refusal::from(rejection).code, Code::DocOversized);

    let dry_run = repair(&*store, &doc, NodeId(2), RepairMode::DryRun)
        .await
        .unwrap();
    assert_eq!(dry_run.without_attributes, [Revision(2)]);
    // A dry run changes nothing.
    check(&node(&store), edit(1), CODE).await;
    repair(&*store, &doc, NodeId(2), RepairMode::Write)
        .await
        .unwrap();
    let again = repair(&*store, &doc, NodeId(2), RepairMode::Write)
        .await
        .unwrap();
    assert!(again.is_whole());
    let repaired = node(&store);
    for (request, expected) in [(subscribe(None), "the end"), (edit(5), r#""v":5,"#)] {
        check(&repaired, request, expected).await;
    }
}

#[test]
fn large_submits_may_take_long() {
    let edit = |bytes: usize| {
        let id = commit(1).id.clone();
        let proposal = Proposal::Edit(" ".repeat(bytes).into());
        let (from, base) = (NodeId(2), None);
        let message = PeerMessage::Submit(Submit { id, base, proposal }, None);
        Event::PeerMessage { from, message }
    };
    assert!(may_take_long(&edit(IN_PLACE_BYTES + 1)));
    assert!(!may_take_long(&edit(100)));
}

#[tokio::test]
async fn clients_with_requests_in_the_mailbox_of_an_ended_task_are_closed() {
    let (task, sender) = task();
    let outbox = outbox(1_000);
    sender.try_send(fetch(&outbox, to_socket())).unwrap();
    drop(task);
    assert!(outbox.is_closed());
    let message = DocumentMessage::SessionClosed(SessionId(1));
    assert!(sender.try_send(message).is_err());
}

#[tokio::test]
async fn requests_of_a_session_that_ended_are_dropped() {
    let (mut task, _sender) = task();
    let own = outbox(100_000);
    let fetch = || SessionRequest::Fetch { since: None };
    let accepted = task.accept_request(SessionId(1), own.clone(), to_socket(), fetch());
    assert!(accepted.is_some());
    own.close(CloseReason::ReadsTooSlowly);
    task.handle(Event::SessionClosed(SessionId(1)));
    let accepted = task.accept_request(SessionId(1), own.clone(), to_socket(), fetch());
    assert!(accepted.is_none(), "it was sent before the session ended");
    let other = outbox(100_000);
    let accepted = task.accept_request(SessionId(2), other, to_socket(), fetch());
    assert!(accepted.is_some());
    drop(own);
    task.handle(Event::SessionClosed(SessionId(2)));
    let ended: Vec<_> = task.ended.keys().copied().collect();
    assert_eq!(
        ended,
        [SessionId(2)],
        "without an outbox no further request can come"
    );
}

#[tokio::test]
async fn the_number_of_waiting_reads_of_a_session_is_limited() {
    let (mut task, _sender) = task();
    let outbox = outbox(100_000);
    for asked in 0..=READS_MAX {
        let fetch = SessionRequest::Fetch { since: None };
        let event = task.accept_request(SessionId(1), outbox.clone(), to_socket(), fetch);
        assert_eq!(event.is_some(), asked < READS_MAX);
    }
    assert!(sent(&outbox).contains("ERR_BUSY"));
    let unsubscribe = SessionRequest::Unsubscribe;
    let end = task.accept_request(SessionId(1), outbox, to_socket(), unsubscribe);
    assert!(end.is_some());
}

#[tokio::test]
async fn commits_stay_behind_the_first_bulk_reply_that_holds_them() {
    let (mut task, _sender) = task();
    let (session, outbox) = (SessionId(1), outbox(100_000));
    let first = bulk(r#"{"a":"bs","c":"c","b":["a","b"]}"#, 2);
    let name = |name| Name::parse(name).unwrap();
    let subscribe = SessionRequest::Subscribe { since: None };
    let part = ReplyTo::Bulk(first.clone(), name("a"), None);
    task.accept_request(session, outbox.clone(), part, subscribe);
    let snapshot = Arc::new(encode_snapshot(&Snapshot::default()));
    task.reply(session, Ticket(0), SessionReply::Snapshot(snapshot.clone()));
    task.deliver(&[session], &[commit(1)]);
    // Another bulk reply with the document is complete sooner. Its commits must not overtake those before.
    let second = bulk(r#"{"a":"bf","c":"c","b":["a"]}"#, 1);
    let fetch = SessionRequest::Fetch { since: None };
    let part = ReplyTo::Bulk(second, name("a"), None);
    task.accept_request(session, outbox.clone(), part, fetch);
    task.reply(session, Ticket(1), SessionReply::Snapshot(snapshot));
    task.deliver(&[session], &[commit(2)]);
    let unsubscribe = SessionRequest::Unsubscribe;
    task.accept_request(session, outbox.clone(), to_socket(), unsubscribe);
    task.reply(session, Ticket(2), SessionReply::Done);
    assert!(!sent(&outbox).contains("\"a\":\"op\""));
    first.reject(&outbox, name("b"), Refusal::busy());
    let sent = sent(&outbox);
    let expected = [
        "\"bs\"",
        "\"v\":0,\"src\"",
        "\"v\":1,\"src\"",
        "\"a\":\"f\"",
    ];
    let places: Vec<_> = expected.iter().map(|it| sent.find(it)).collect();
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{sent}"
    );
}

#[tokio::test]
async fn held_back_frames_are_bounded_by_the_outbox() {
    let (mut task, _sender) = task();
    let (session, outbox) = (SessionId(1), outbox(1_000));
    let held_by = bulk(r#"{"a":"bs","c":"c","b":["a","b"]}"#, 2);
    let part = ReplyTo::Bulk(held_by, Name::parse("a").unwrap(), None);
    let subscribe = SessionRequest::Subscribe { since: None };
    task.accept_request(session, outbox.clone(), part, subscribe);
    for revision in 1..100 {
        task.deliver(&[session], &[commit(revision)]);
    }
    assert!(outbox.is_closed());
}
