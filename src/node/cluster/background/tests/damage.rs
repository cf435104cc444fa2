//! Tests of a node whose store refuses claims because a row is damaged.

use super::*;
use crate::protocol;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn document_that_cannot_be_claimed_is_shown_whole_and_read_only() {
    let (network, way) = (MemoryNetwork::new(), StoreConnection::default());
    let doc = DocId::parse("c", "d").unwrap();
    let node = node(1, &way, &network).await;
    let (mut ann, mut bob) = (TestClient::on(&node), TestClient::on(&node));
    ann.submit(&doc, create()).await;
    eventually("it is created", || ann.was_sent("\"create\"")).await;

    // The node's fence is void, and it cannot claim again.
    way.is_fence_damaged.store(true, Ordering::SeqCst);
    way.store.claim(&doc, NodeId(9)).await.unwrap();
    let edit = Proposal::Edit(r#"["x"]"#.into());
    ann.submit(&doc, edit).await;
    eventually("the submit is rejected", || ann.was_sent("ERR_DOC_DAMAGED")).await;
    let (_, echo) = protocol::parse(r#"{"a":"f","c":"c","d":"d"}"#).unwrap();
    let fetch = SessionRequest::Fetch { since: None };
    let session = (bob.session, &bob.outbox);
    let reply_to = ReplyTo::Socket(Box::new(echo));
    node.ask(&doc, session, fetch, reply_to).await.unwrap();
    eventually("the whole text is sent", || bob.was_sent("abc")).await;
    assert!(bob.was_sent("ERR_DOC_DAMAGED"), "{}", bob.sent);
}
