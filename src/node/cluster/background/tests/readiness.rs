//! Tests of the readiness of nodes, and of what documents do when messages or the store are back.

use super::*;
use crate::node::Readiness;

const UNSAVED: &str = "edits cannot be saved";
const UNHEARD: &str = "the other nodes are not heard";

/// Waits until a node has the expected readiness. Meanwhile it must never have the other one.
async fn expect_readiness(node: &Arc<Node>, expected: Readiness, never: Option<Readiness>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let readiness = node.readiness().await;
        assert_ne!(Some(readiness), never);
        if readiness == expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{readiness:?} is not {expected:?}"
        );
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_cannot_save_is_ready_unless_another_node_can() {
    let ([one, other], ways, _network) = two().await;
    expect_readiness(&one, Readiness::Ready, None).await;
    ways[0].is_cut.store(true, Ordering::SeqCst);
    expect_readiness(&one, Readiness::NotReady(UNSAVED), None).await;
    expect_readiness(&other, Readiness::Ready, Some(Readiness::NotReady(UNSAVED))).await;
    ways[1].is_cut.store(true, Ordering::SeqCst);
    // The other node could save edits a moment ago. That result must not be used.
    let never = Some(Readiness::NotReady(UNSAVED));
    expect_readiness(&other, Readiness::Degraded(UNSAVED), never).await;
    expect_readiness(&one, Readiness::Degraded(UNSAVED), None).await;
    for way in &ways {
        way.is_cut.store(false, Ordering::SeqCst);
    }
    for node in [&one, &other] {
        expect_readiness(node, Readiness::Ready, None).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_is_not_heard_is_ready_unless_others_hear_each_other() {
    let ([one, other], _ways, network) = two().await;
    network.isolate(one.id());
    network.isolate(other.id());
    let never = Some(Readiness::NotReady(UNHEARD));
    for node in [&one, &other] {
        expect_readiness(node, Readiness::Degraded(UNHEARD), never).await;
    }
    // Both have told the store that they hear no other node.
    let beat = || async { one.store().heartbeat(&one.next_heartbeat()).await.unwrap() };
    while !beat().await.nodes.is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    network.heal();
    expect_readiness(&one, Readiness::Ready, None).await;
    network.isolate(one.id());
    expect_readiness(&one, Readiness::NotReady(UNHEARD), None).await;
    expect_readiness(&other, Readiness::Ready, never).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_without_a_transport_is_not_ready_if_it_cannot_save() {
    let way = StoreConnection::default();
    let node = alone(1, &way, None);
    node.take_part(None).await.unwrap();
    expect_readiness(&node, Readiness::Ready, None).await;
    way.is_cut.store(true, Ordering::SeqCst);
    let never = Some(Readiness::Degraded(UNSAVED));
    expect_readiness(&node, Readiness::NotReady(UNSAVED), never).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_is_alone_needs_no_messages() {
    let (way, network) = (StoreConnection::default(), MemoryNetwork::new());
    let node = node(1, &way, &network).await;
    network.isolate(node.id());
    expect_readiness(&node, Readiness::Ready, Some(Readiness::Degraded(UNHEARD))).await;
    assert!(node.next_heartbeat().takes_part);
    // Another node lives: the two would have to hear each other.
    expire(&way.store, NodeId(2)).await;
    expect_readiness(&node, Readiness::Degraded(UNHEARD), None).await;
    assert!(!node.next_heartbeat().takes_part);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_repeat_requests_when_messages_and_the_store_are_back() {
    let ([one, _other], [way, _], network) = two().await;
    let mut reopened = one.services().peers.watch_reconnects();
    network.isolate(one.id());
    network.heal();
    timeout(PATIENCE, reopened.changed())
        .await
        .unwrap()
        .unwrap();
    way.is_cut.store(true, Ordering::SeqCst);
    eventually("the store is missed", || !one.services().peers.has_store()).await;
    reopened.mark_unchanged();
    way.is_cut.store(false, Ordering::SeqCst);
    timeout(PATIENCE, reopened.changed())
        .await
        .unwrap()
        .unwrap();
}
