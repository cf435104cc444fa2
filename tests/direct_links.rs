//! Nodes whose messages go by direct links while Redis is silent, with a real Redis and real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use copydesk::cluster::{ClusterSettings, ClusterTransport, RedisSettings};
use copydesk::id::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

mod servers {
    pub(crate) mod peer;
    #[allow(dead_code, reason = "other suites use the rest")]
    pub(crate) mod redis;
    #[allow(dead_code, unreachable_pub, reason = "other suites use the rest")]
    pub(crate) mod skip;
}
use servers::peer::{LIMIT, Peer, number};
use servers::redis::{RedisAccess, RedisServer, free_port};

const ANN: NodeId = NodeId(0xa);
const BOB: NodeId = NodeId(0xb);
const EVE: NodeId = NodeId(0xe);

const SECRET: [u8; 32] = [7; 32];

/// The settings of a Redis that is not running.
fn unreachable_redis() -> RedisSettings {
    at(&format!("redis://127.0.0.1:{}", free_port()))
}

fn at(url: &str) -> RedisSettings {
    RedisSettings {
        url: Some(url.parse().unwrap()),
        command_timeout_ms: 1_000,
        ..RedisSettings::default()
    }
}

async fn open(redis: &RedisSettings, id: NodeId) -> Peer {
    open_with(redis, id, &SECRET).await
}

async fn open_with(redis: &RedisSettings, id: NodeId, secret: &[u8; 32]) -> Peer {
    let settings = ClusterSettings::default();
    let opened = ClusterTransport::open(redis, &settings, (id, secret)).await;
    let (transport, inbox) = opened.unwrap();
    Peer {
        id,
        transport,
        inbox,
    }
}

/// Tells each of the nodes where the others are, as the store does.
fn exchange_addresses(nodes: &[&Peer]) {
    let addresses: Vec<_> = nodes
        .iter()
        .map(|node| (node.id, node.transport.address().unwrap()))
        .collect();
    for node in nodes {
        let others = addresses.iter().filter(|(id, _)| *id != node.id);
        node.transport.learn(&others.cloned().collect::<Vec<_>>());
    }
}

/// Two nodes with a live link and without a Redis.
async fn linked() -> (Peer, Peer) {
    let (ann, bob) = (
        open(&unreachable_redis(), ANN).await,
        open(&unreachable_redis(), BOB).await,
    );
    exchange_addresses(&[&ann, &bob]);
    ann.await_healthy().await;
    bob.await_healthy().await;
    (ann, bob)
}

impl Peer {
    fn address(&self) -> SocketAddr {
        self.transport.address().unwrap().parse().unwrap()
    }

    async fn await_unhealthy(&self) {
        let mut health = self.transport.health();
        let bad = timeout(LIMIT, health.wait_for(|it| !it.is_good())).await;
        bad.expect("no message passes").expect("it is open");
    }

    /// Waits until messages go another way than before.
    async fn reopened(&self, before: u64) {
        let mut reopened = self.transport.reopened();
        let passed = timeout(LIMIT, reopened.wait_for(|count| *count > before)).await;
        passed.expect("the way changes").expect("it is open");
    }

    fn reopenings(&self) -> u64 {
        *self.transport.reopened().borrow()
    }
}

async fn until(condition: impl Fn() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < LIMIT, "it does not come to pass");
        sleep(Duration::from_millis(1)).await;
    }
}

// ---- Links alone ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn link_carries_messages_of_any_size_in_order() {
    let (mut ann, mut bob) = linked().await;
    for number in 0..3_000 {
        ann.send(BOB, number);
    }
    assert_eq!(
        bob.numbers(ANN, 3_000).await,
        (0..3_000).collect::<Vec<_>>()
    );
    let big: Bytes = (0..3 << 20).map(|at| (at % 251) as u8).collect();
    bob.transport.send(ANN, big.clone());
    bob.transport.send(ANN, Bytes::new());
    let mut received = Vec::new();
    while received.len() < 2 {
        received.extend(ann.receive().await.messages);
    }
    assert!(received == [big, Bytes::new()]);
    ann.send(ANN, 5);
    assert_eq!(
        ann.numbers(ANN, 1).await,
        [5],
        "it hears itself while a link is live"
    );
    let counts = ann.transport.counts();
    assert!(counts.sent >= 3_001 && counts.received >= 3, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_receives_nothing_delays_no_other_and_has_a_bounded_queue() {
    let (ann, bob) = linked().await;
    let mut eve = open(&unreachable_redis(), EVE).await;
    exchange_addresses(&[&ann, &bob, &eve]);
    ann.send_until_received(&mut eve, 1).await;
    let flood = Bytes::from(vec![0; 64 << 10]);
    for number in 0..1_000 {
        ann.transport.send(BOB, flood.clone());
        ann.send(EVE, number);
    }
    assert_eq!(
        eve.numbers(ANN, 1_000).await,
        (0..1_000).collect::<Vec<_>>()
    );
    let dropped = || ann.transport.counts().dropped;
    until(|| dropped() > 0).await;
    drop(bob);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_node_announces_its_end_and_sends_its_queue() {
    let (ann, mut bob) = linked().await;
    ann.send(BOB, 1);
    ann.transport.close().await;
    assert_eq!(bob.numbers(ANN, 1).await, [1]);
    bob.await_unhealthy().await;
    ann.send(BOB, 2);
    bob.transport.close().await;
    assert_eq!(timeout(LIMIT, bob.inbox.receive()).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_of_another_store_gets_no_link() {
    let (ann, mut bob) = linked().await;
    let stranger = open_with(&unreachable_redis(), EVE, &[8; 32]).await;
    exchange_addresses(&[&ann, &bob, &stranger]);
    // Time for several attempts, during which the other nodes continue.
    for number in 0..20 {
        stranger.send(ANN, 9);
        ann.send_until_received(&mut bob, number).await;
        sleep(Duration::from_millis(50)).await;
    }
    assert!(!stranger.transport.health().borrow().is_good());
}

// ---- Hostile and broken connections ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_and_silent_connections_are_closed_and_affect_no_link() {
    let (ann, mut bob) = linked().await;
    let address = bob.address();
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    for garbage in [
        &b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..],
        &[0xff; 4_096],
        b"copydesk\x01\x01\0\0\0\0\0\0",
        b"copydesk\x09\x09\0\0\0\0\0\0",
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(garbage).await;
        ended(&mut stream).await;
    }
    ann.send_until_received(&mut bob, 1).await;
    for stream in &mut silent {
        ended(stream).await;
    }
    ann.send_until_received(&mut bob, 2).await;
    let eve = open(&unreachable_redis(), EVE).await;
    exchange_addresses(&[&ann, &bob, &eve]);
    eve.send_until_received(&mut bob, 3).await;
}

/// Waits until the other end has closed a connection.
async fn ended(stream: &mut TcpStream) {
    let mut bytes = [0; 100];
    let end = async { while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {} };
    timeout(LIMIT, end).await.expect("the connection ends");
}

/// A proxy before a node that records the traffic, and can be made to drop everything.
struct Proxy {
    address: SocketAddr,
    swallows: watch::Sender<bool>,
    /// What the first connection sent to the node.
    recorded: watch::Receiver<Vec<u8>>,
}

impl Proxy {
    async fn to(node: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (record, recorded) = watch::channel(Vec::new());
        let swallows = watch::Sender::new(false);
        let switch = swallows.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(target) = TcpStream::connect(node).await else {
                    continue;
                };
                let (from_client, to_client) = stream.into_split();
                let (from_node, to_node) = target.into_split();
                tokio::spawn(forward(
                    from_client,
                    to_node,
                    switch.clone(),
                    Some(record.clone()),
                ));
                tokio::spawn(forward(from_node, to_client, switch.clone(), None));
            }
        });
        Self {
            address,
            swallows,
            recorded,
        }
    }
}

async fn forward(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    swallows: watch::Sender<bool>,
    record: Option<watch::Sender<Vec<u8>>>,
) {
    let mut bytes = [0; 4_096];
    while let Ok(read) = from.read(&mut bytes).await
        && read > 0
    {
        if let Some(record) = &record {
            record.send_modify(|all| all.extend_from_slice(&bytes[..read]));
        }
        if !*swallows.borrow() && to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

/// Ann reaches Bob only by the proxy, and Bob does not know where Ann is.
async fn linked_by_proxy() -> (Peer, Peer, Proxy) {
    let (ann, bob) = (
        open(&unreachable_redis(), ANN).await,
        open(&unreachable_redis(), BOB).await,
    );
    let proxy = Proxy::to(bob.address()).await;
    ann.transport
        .learn(&[(BOB, proxy.address.to_string().into())]);
    ann.await_healthy().await;
    bob.await_healthy().await;
    (ann, bob, proxy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_link_is_detected_by_both_ends_and_replaced() {
    let (mut ann, mut bob, proxy) = linked_by_proxy().await;
    bob.send_until_received(&mut ann, 1).await;
    proxy.swallows.send_replace(true);
    ann.await_unhealthy().await;
    bob.await_unhealthy().await;
    proxy.swallows.send_replace(false);
    ann.await_healthy().await;
    bob.await_healthy().await;
    ann.send_until_received(&mut bob, 2).await;
    bob.send_until_received(&mut ann, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replayed_connection_is_rejected_and_its_traffic_is_encrypted() {
    let (ann, mut bob, proxy) = linked_by_proxy().await;
    let text = Bytes::from_static(b"a text that must not be readable");
    ann.transport.send(BOB, text.clone());
    assert_eq!(bob.receive().await.messages, std::slice::from_ref(&text));
    let recorded = proxy.recorded.borrow().clone();
    assert!(recorded.len() > 100);
    assert!(!recorded.windows(8).any(|bytes| text.starts_with(bytes)));
    let received = bob.transport.counts().received;
    let mut replay = TcpStream::connect(bob.address()).await.unwrap();
    replay.write_all(&recorded).await.unwrap();
    ended(&mut replay).await;
    assert_eq!(bob.transport.counts().received, received);
    ann.send_until_received(&mut bob, 2).await;
}

// ---- With Redis ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_pass_while_redis_is_killed_stopped_or_full() {
    let Some(mut server) = RedisServer::start(RedisAccess::Open) else {
        return;
    };
    let settings = at(&server.url(""));
    let (ann, mut bob) = (open(&settings, ANN).await, open(&settings, BOB).await);
    exchange_addresses(&[&ann, &bob]);
    ann.await_healthy().await;
    bob.await_healthy().await;
    ann.send_until_received(&mut bob, 0).await;
    let mut next = 1;
    for how in ["killed", "stopped", "full"] {
        // Messages take Redis; otherwise its failure would not change the path.
        takes_redis(&ann, &server).await;
        let before = ann.reopenings();
        match how {
            "killed" => server.kill(),
            "stopped" => server.signal("STOP"),
            _ => {
                server.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
                server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
            }
        }
        ann.reopened(before).await;
        for _ in 0..50 {
            ann.send_until_received(&mut bob, next).await;
            next += 1;
        }
        ann.await_healthy().await;
        bob.await_healthy().await;
        let before = ann.reopenings();
        match how {
            "killed" => server.restart(),
            "stopped" => server.signal("CONT"),
            _ => drop(server.ask(&["CONFIG", "SET", "maxmemory", "0"])),
        }
        ann.reopened(before).await;
        ann.send_until_received(&mut bob, next).await;
        next += 1;
        // Redis carries messages again.
        takes_redis(&ann, &server).await;
    }
}

/// Waits until the messages of a peer to `BOB` take Redis.
async fn takes_redis(peer: &Peer, server: &RedisServer) {
    until(|| {
        peer.send(BOB, 0);
        entries(server, BOB) > 0
    })
    .await;
}

/// How many entries with messages wait in a node's inbox in Redis.
fn entries(server: &RedisServer, node: NodeId) -> u64 {
    let script = "local count = 0 \
        for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do \
            if entry[2][3] == 'm' then count = count + 1 end \
        end \
        return count";
    let inbox = format!("copydesk:in:{node}");
    server.ask(&["EVAL", script, "1", &inbox]).parse().unwrap()
}

/// The sender's Redis works: the other node reports that it receives nothing from its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_alone_lost_redis_sends_and_receives_over_links() {
    let Some(server) = RedisServer::start(RedisAccess::Open) else {
        return;
    };
    let settings = at(&server.url(""));
    let (mut ann, mut bob) = (
        open(&settings, ANN).await,
        open(&unreachable_redis(), BOB).await,
    );
    exchange_addresses(&[&ann, &bob]);
    bob.await_healthy().await;
    ann.send_until_received(&mut bob, 1).await;
    bob.send_until_received(&mut ann, 2).await;
    for number in 10..60 {
        ann.send(BOB, number);
        bob.send(ANN, number);
    }
    assert_eq!(bob.numbers(ANN, 50).await, (10..60).collect::<Vec<_>>());
    assert_eq!(ann.numbers(BOB, 50).await, (10..60).collect::<Vec<_>>());
    bob.send(BOB, 3);
    assert_eq!(bob.numbers(BOB, 1).await, [3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_without_links_works_over_redis_alone() {
    let Some(server) = RedisServer::start(RedisAccess::Open) else {
        return;
    };
    let settings = at(&server.url(""));
    let (ann, mut bob) = (open(&settings, ANN).await, open(&settings, BOB).await);
    // A port without a listener.
    let closed = format!("127.0.0.1:{}", free_port());
    ann.transport.learn(&[(BOB, closed.into())]);
    ann.await_healthy().await;
    bob.await_healthy().await;
    ann.send_until_received(&mut bob, 1).await;
    // A message for every path is sent once if there is one path.
    ann.transport
        .send_every_way(BOB, 7_u32.to_le_bytes().to_vec().into());
    while number(&bob.receive().await.messages[0]) != 7 {}
}
