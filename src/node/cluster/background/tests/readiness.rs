//! What nodes say to balancers, and what they do when a way is open again.

use super::*;
use crate::node::Readiness;

const UNSAVED: &str = "edits cannot be saved";
const UNHEARD: &str = "the other nodes are not heard";

/// Waits until a node says so. Meanwhile it never says what it must not.
async fn told(node: &Arc<Node>, expected: Readiness, never: Option<Readiness>) {
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
    let ([one, other], ways, _exchange) = two().await;
    told(&one, Readiness::Ready, None).await;
    ways[0].is_cut.store(true, Ordering::SeqCst);
    told(&one, Readiness::NotReady(UNSAVED), None).await;
    told(&other, Readiness::Ready, Some(Readiness::NotReady(UNSAVED))).await;
    ways[1].is_cut.store(true, Ordering::SeqCst);
    // The other was asked a moment ago and could: that is worth nothing now.
    let never = Some(Readiness::NotReady(UNSAVED));
    told(&other, Readiness::Degraded(UNSAVED), never).await;
    told(&one, Readiness::Degraded(UNSAVED), None).await;
    for way in &ways {
        way.is_cut.store(false, Ordering::SeqCst);
    }
    for node in [&one, &other] {
        told(node, Readiness::Ready, None).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_is_not_heard_is_ready_unless_others_hear_each_other() {
    let ([one, other], _ways, exchange) = two().await;
    exchange.isolate(one.id());
    exchange.isolate(other.id());
    let never = Some(Readiness::NotReady(UNHEARD));
    for node in [&one, &other] {
        told(node, Readiness::Degraded(UNHEARD), never).await;
    }
    // Both have told the store that they hear nobody.
    let beat = || async { one.store().heartbeat(&one.next_beat()).await.unwrap() };
    while !beat().await.nodes.is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    exchange.heal();
    told(&one, Readiness::Ready, None).await;
    exchange.isolate(one.id());
    told(&one, Readiness::NotReady(UNHEARD), None).await;
    told(&other, Readiness::Ready, never).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_without_others_says_that_it_cannot_save() {
    let way = Way::default();
    let node = alone(1, &way, None);
    node.take_part(None).await.unwrap();
    told(&node, Readiness::Ready, None).await;
    way.is_cut.store(true, Ordering::SeqCst);
    let never = Some(Readiness::Degraded(UNSAVED));
    told(&node, Readiness::NotReady(UNSAVED), never).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_is_alone_needs_no_messages() {
    let (way, exchange) = (Way::default(), MemoryNetwork::new());
    let node = node(1, &way, &exchange).await;
    exchange.isolate(node.id());
    told(&node, Readiness::Ready, Some(Readiness::Degraded(UNHEARD))).await;
    assert!(node.next_beat().takes_part);
    // Another one lives: the two would have to hear each other.
    forget(&way.store, NodeId(2)).await;
    told(&node, Readiness::Degraded(UNHEARD), None).await;
    assert!(!node.next_beat().takes_part);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_are_told_when_messages_and_the_store_are_back() {
    let ([one, _other], [way, _], exchange) = two().await;
    let mut reopened = one.peers().watch_reopened();
    exchange.isolate(one.id());
    exchange.heal();
    timeout(PATIENCE, reopened.changed())
        .await
        .unwrap()
        .unwrap();
    way.is_cut.store(true, Ordering::SeqCst);
    eventually("the store is missed", || !one.peers().has_store()).await;
    reopened.mark_unchanged();
    way.is_cut.store(false, Ordering::SeqCst);
    timeout(PATIENCE, reopened.changed())
        .await
        .unwrap()
        .unwrap();
}
