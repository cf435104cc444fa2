//! One suite for every transport, and tests of failures that only a transport over a server has.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use copydesk::cluster::{Health, MemoryNetwork, RedisSettings, RedisTransport, RedisUrl};
use copydesk::id::NodeId;
use tokio::time::{Instant, sleep, timeout};

mod servers {
    pub(crate) mod peer;
    pub(crate) mod redis;
    #[allow(dead_code, unreachable_pub)]
    pub(crate) mod skip;
}
use servers::peer::{LIMIT, Peer, number};
use servers::redis::{RedisAccess, RedisServer, free_port};

const ANN: NodeId = NodeId(0xa);
const BOB: NodeId = NodeId(0xb);
const EVE: NodeId = NodeId(0xe);

// ---- The suite ----

/// A way to make transports that reach each other.
trait TestNetwork {
    async fn open(&self, node: NodeId) -> Peer;
}

struct InMemory(MemoryNetwork);

impl TestNetwork for InMemory {
    async fn open(&self, node: NodeId) -> Peer {
        let (transport, inbox) = self.0.open(node);
        Peer {
            id: node,
            transport,
            inbox,
        }
    }
}

struct OverRedis {
    server: RedisServer,
    settings: RedisSettings,
}

impl OverRedis {
    fn start(access: RedisAccess) -> Option<Self> {
        let server = RedisServer::start(access)?;
        let settings = RedisSettings {
            url: Some(server.url("").parse().unwrap()),
            command_timeout_ms: 1_000,
            ..RedisSettings::default()
        };
        Some(Self { server, settings })
    }

    /// The name of a node's inbox.
    fn key(&self, node: NodeId) -> String {
        format!("{}in:{node}", self.settings.prefix)
    }
}

impl TestNetwork for OverRedis {
    async fn open(&self, node: NodeId) -> Peer {
        let node = open(&self.settings, node);
        node.await_healthy().await;
        node
    }
}

/// Each of these runs on every transport.
macro_rules! suite {
    ($($test:ident),* $(,)?) => {
        mod in_memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::InMemory(super::MemoryNetwork::new())).await;
            })*
        }
        mod over_redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some(network) = super::OverRedis::start(super::RedisAccess::Open) {
                    super::$test(network).await;
                }
            })*
        }
    };
}

suite![
    messages_between_two_nodes_arrive_in_order,
    messages_of_each_of_many_senders_arrive_in_order,
    message_to_the_own_node_arrives,
    large_messages_arrive_unchanged,
    empty_messages_arrive,
    node_that_receives_nothing_delays_no_other,
    unknown_receiver_delays_no_other,
    closed_transport_drops_sends_and_ends_its_inbox,
];

async fn messages_between_two_nodes_arrive_in_order(network: impl TestNetwork) {
    let (ann, mut bob) = (network.open(ANN).await, network.open(BOB).await);
    for number in 0..3_000 {
        ann.send(BOB, number);
    }
    assert_eq!(
        bob.numbers(ANN, 3_000).await,
        (0..3_000).collect::<Vec<_>>()
    );
    assert_eq!(bob.transport.counts().received, 3_000);
    until(|| ann.transport.counts().sent == 3_000).await;
    assert_eq!(ann.transport.counts().dropped, 0);
}

async fn messages_of_each_of_many_senders_arrive_in_order(network: impl TestNetwork) {
    let mut bob = network.open(BOB).await;
    let mut senders = Vec::new();
    for name in 100..108 {
        senders.push((NodeId(name), network.open(NodeId(name)).await));
    }
    let sending = senders.iter().map(|(_, sender)| {
        let transport = Arc::clone(&sender.transport);
        tokio::spawn(async move {
            for number in 0..400_u32 {
                transport.send(BOB, number.to_le_bytes().to_vec().into());
                tokio::task::yield_now().await;
            }
        })
    });
    let sending: Vec<_> = sending.collect();
    let mut next = vec![0; senders.len()];
    while next.iter().any(|&number| number < 400) {
        let delivery = bob.receive().await;
        let from = senders.iter().position(|&(name, _)| name == delivery.from);
        for message in &delivery.messages {
            assert_eq!(number(message), next[from.unwrap()]);
            next[from.unwrap()] += 1;
        }
    }
    for sender in sending {
        sender.await.unwrap();
    }
}

async fn message_to_the_own_node_arrives(network: impl TestNetwork) {
    let mut ann = network.open(ANN).await;
    ann.send(ANN, 7);
    assert_eq!(ann.numbers(ANN, 1).await, [7]);
    ann.await_healthy().await;
}

async fn large_messages_arrive_unchanged(network: impl TestNetwork) {
    let (ann, mut bob) = (network.open(ANN).await, network.open(BOB).await);
    let big = |byte: u8| -> Bytes { (0..2 << 20).map(|at| byte ^ (at % 251) as u8).collect() };
    for byte in 0..5 {
        ann.transport.send(BOB, big(byte));
        ann.send(BOB, u32::from(byte));
    }
    let mut received = Vec::new();
    while received.len() < 10 {
        received.extend(bob.receive().await.messages);
    }
    for (byte, pair) in (0..).zip(received.chunks(2)) {
        assert!(pair[0] == big(byte), "the bytes of message {byte} differ");
        assert_eq!(number(&pair[1]), u32::from(byte));
    }
}

async fn empty_messages_arrive(network: impl TestNetwork) {
    let (ann, mut bob) = (network.open(ANN).await, network.open(BOB).await);
    ann.transport.send(BOB, Bytes::new());
    ann.transport.send(BOB, Bytes::from_static(&[0]));
    let mut received = Vec::new();
    while received.len() < 2 {
        received.extend(bob.receive().await.messages);
    }
    assert_eq!(received, [&[][..], &[0]]);
}

async fn node_that_receives_nothing_delays_no_other(network: impl TestNetwork) {
    let (ann, mut bob, eve) = (
        network.open(ANN).await,
        network.open(BOB).await,
        network.open(EVE).await,
    );
    let flood = Bytes::from(vec![0; 16 << 10]);
    for number in 0..1_000 {
        // 80 MB in total for Eve, which is more than any queue holds.
        for _ in 0..5 {
            ann.transport.send(EVE, flood.clone());
        }
        ann.send(BOB, number);
    }
    assert_eq!(
        bob.numbers(ANN, 1_000).await,
        (0..1_000).collect::<Vec<_>>()
    );
    assert!(ann.transport.counts().dropped > 0, "Eve's share is bounded");
    drop(eve);
}

async fn unknown_receiver_delays_no_other(network: impl TestNetwork) {
    let (ann, mut bob) = (network.open(ANN).await, network.open(BOB).await);
    for number in 0..100 {
        ann.send(NodeId(0xdead), number);
        ann.send(BOB, number);
    }
    assert_eq!(bob.numbers(ANN, 100).await, (0..100).collect::<Vec<_>>());
}

async fn closed_transport_drops_sends_and_ends_its_inbox(network: impl TestNetwork) {
    let (ann, mut bob) = (network.open(ANN).await, network.open(BOB).await);
    ann.send(BOB, 1);
    ann.transport.close().await;
    assert_eq!(bob.numbers(ANN, 1).await, [1], "what was queued went out");
    ann.send(BOB, 2);
    let counts = ann.transport.counts();
    assert_eq!((counts.sent, counts.dropped), (1, 1));
    let Peer {
        mut inbox,
        transport,
        ..
    } = bob;
    transport.close().await;
    transport.close().await;
    assert_eq!(timeout(LIMIT, inbox.receive()).await.unwrap(), None);
}

// ---- In memory, with the faults of a network ----

#[tokio::test]
async fn memory_network_loses_duplicates_and_partitions_as_configured() {
    let exchange = MemoryNetwork::new();
    let network = InMemory(exchange.clone());
    let (ann, mut bob) = (network.open(ANN).await, network.open(BOB).await);
    exchange.lose_one_in(3);
    (0..6).for_each(|number| ann.send(BOB, number));
    assert_eq!(bob.numbers(ANN, 4).await, [0, 1, 3, 4]);
    exchange.lose_one_in(0);
    exchange.double_one_in(2);
    (0..4).for_each(|number| ann.send(BOB, number));
    assert_eq!(bob.numbers(ANN, 6).await, [0, 1, 1, 2, 3, 3]);
    exchange.double_one_in(0);
    exchange.cut(BOB, ANN);
    ann.send(BOB, 1);
    ann.send(ANN, 1);
    assert!(
        bob.transport.health().borrow().is_good(),
        "the network does not report it"
    );
    exchange.heal();
    ann.send(BOB, 2);
    assert_eq!(bob.numbers(ANN, 1).await, [2]);
    exchange.isolate(BOB);
    ann.send(BOB, 3);
    bob.send(BOB, 3);
    assert_eq!(
        *bob.transport.health().borrow(),
        Health::Bad("isolated".into())
    );
    assert!(ann.transport.health().borrow().is_good());
    exchange.heal();
    ann.send(BOB, 4);
    assert_eq!(bob.numbers(ANN, 1).await, [4]);
    bob.await_healthy().await;
}

// ---- Redis: failures of the server ----

/// Declares tests over Redis.
macro_rules! over_redis {
    ($(async fn $test:ident($network:ident) $body:block)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            #[allow(unused_mut, reason = "some kill the server")]
            if let Some(mut $network) = OverRedis::start(RedisAccess::Open) $body
        })*
    };
}

over_redis! {
    async fn messages_after_a_flush_of_redis_arrive(network) {
        let (ann, mut bob) = (network.open(ANN).await, network.open(BOB).await);
        let flushing = async {
            loop {
                assert_eq!(network.server.ask(&["FLUSHALL"]), "OK");
                sleep(Duration::from_millis(50)).await;
            }
        };
        // Many messages pass between two flushes, and a sender repeats what is not answered.
        let talking = async {
            for number in 0..100 {
                ann.send_until_received(&mut bob, number).await;
            }
        };
        tokio::select! {
            () = flushing => unreachable!("the loop does not end"),
            () = talking => {}
        }
        ann.await_healthy().await;
        bob.await_healthy().await;
        (0..100).for_each(|number| ann.send(BOB, 1_000 + number));
        while number(bob.receive().await.messages.last().unwrap()) != 1_099 {}
        let expiry: i64 = network.server.ask(&["PTTL", &network.key(BOB)]).parse().unwrap();
        assert!((1..=60_000).contains(&expiry), "{expiry}");
    }

    async fn stream_ids_that_go_back_are_detected(network) {
        let (ann, mut bob) = (network.open(ANN).await, network.open(BOB).await);
        // A server whose clock is an hour ahead, and another in its place that has the right time.
        let now = network.server.ask(&["TIME"]);
        let seconds: u64 = now.lines().next().unwrap().parse().unwrap();
        let ahead = format!("{}-0", (seconds + 3_600) * 1_000);
        network.server.ask(&["XADD", &network.key(BOB), &ahead, "f", "poison"]);
        until(|| bob.transport.counts().poison == 1).await;
        assert_eq!(network.server.ask(&["DEL", &network.key(BOB)]), "1");
        ann.send_until_received(&mut bob, 1).await;
        bob.await_healthy().await;
    }

    async fn messages_pass_again_after_redis_was_killed(network) {
        let (ann, mut bob) = (network.open(ANN).await, network.open(BOB).await);
        ann.send_until_received(&mut bob, 1).await;
        network.server.kill();
        let reason = ann.await_unhealthy().await;
        assert!(reason.contains("redis"), "{reason}");
        bob.await_unhealthy().await;
        // Messages sent meanwhile are bounded and not kept for later.
        let flood = Bytes::from(vec![0; 1 << 20]);
        (0..100).for_each(|_| ann.transport.send(BOB, flood.clone()));
        assert!(ann.transport.counts().dropped >= 80);
        network.server.restart();
        ann.await_healthy().await;
        bob.await_healthy().await;
        ann.send_until_received(&mut bob, 2).await;
        assert_eq!(bob.transport.counts().poison, 0);
    }

    async fn messages_pass_again_after_redis_was_suspended(network) {
        let (ann, mut bob) = (network.open(ANN).await, network.open(BOB).await);
        network.server.signal("STOP");
        ann.await_unhealthy().await;
        bob.await_unhealthy().await;
        ann.send(BOB, 1);
        // Longer than any time limit for an answer.
        sleep(Duration::from_secs(3)).await;
        network.server.signal("CONT");
        ann.await_healthy().await;
        bob.await_healthy().await;
        ann.send_until_received(&mut bob, 2).await;
    }

    async fn slow_reader_loses_the_oldest_messages(network) {
        network.settings.inbox_entries_max = 300;
        let (ann, mut bob) = (network.open(ANN).await, network.open(BOB).await);
        // One entry per message, because each is sent after the previous one has left.
        for number in 0..1_500_u32 {
            ann.send(BOB, number);
            until(|| ann.transport.counts().sent > u64::from(number)).await;
        }
        let kept: u32 = network.server.ask(&["XLEN", &network.key(BOB)]).parse().unwrap();
        // Redis trims whole nodes of its tree, which hold a hundred entries.
        assert!(kept <= 300 + 100, "{kept} entries");
        bob.await_unhealthy().await;
        ann.await_healthy().await;
        let mut numbers = Vec::new();
        while numbers.last() != Some(&1_499) {
            numbers.extend(bob.receive().await.messages.iter().map(number));
        }
        assert!(numbers.is_sorted(), "{numbers:?}");
        assert!(numbers.len() < 1_500, "the oldest are gone");
        bob.await_healthy().await;
        ann.send_until_received(&mut bob, 5_000).await;
        // Entries that were read are deleted.
        until(|| network.server.ask(&["XLEN", &network.key(BOB)]).parse::<u32>().unwrap() < 5).await;
    }

    async fn unread_inbox_is_bounded_in_bytes(network) {
        network.settings.inbox_bytes_max = 1 << 20;
        let ann = network.open(ANN).await;
        let large = Bytes::from(vec![7; 200_000]);
        for sent in 0..40_u64 {
            ann.transport.send(EVE, large.clone());
            until(|| ann.transport.counts().sent > sent).await;
        }
        let held = || -> usize { network.server.ask(&["MEMORY", "USAGE", &network.key(EVE)]).parse().unwrap() };
        assert!((800_000..1_500_000).contains(&held()), "{}", held());
        // Small messages are not delayed by large ones.
        for sent in 40..140_u64 {
            ann.send(EVE, 1);
            until(|| ann.transport.counts().sent > sent).await;
        }
        assert!(held() < 1_500_000, "{}", held());
        ann.await_healthy().await;
    }

    async fn full_redis_drops_messages_and_health_reports_it(network) {
        let (ann, mut bob) = (network.open(ANN).await, network.open(BOB).await);
        ann.send_until_received(&mut bob, 1).await;
        network.server.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
        network.server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
        let reason = ann.await_unhealthy().await;
        assert!(reason.contains("OOM"), "{reason}");
        bob.await_unhealthy().await;
        ann.send(BOB, 2);
        until(|| ann.transport.counts().dropped > 0).await;
        network.server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
        ann.await_healthy().await;
        bob.await_healthy().await;
        ann.send_until_received(&mut bob, 3).await;
    }

    async fn malformed_entries_are_skipped_and_counted(network) {
        let (ann, mut bob) = (network.open(ANN).await, network.open(BOB).await);
        let poison: [&[&str]; 7] = [
            &["x", "y"],
            &["f", "a"],
            &["f", "a", "m", "text"],
            &["f", "nobody", "m", "\u{1}"],
            &["f", "a", "p", "5"],
            &["f", "b", "p", "now"],
            &["m", "\u{1}", "f", "a"],
        ];
        for fields in poison {
            let id = network.server.ask(&[&["XADD", &network.key(BOB), "*"][..], fields].concat());
            assert!(id.contains('-'), "{id}");
        }
        let script = r"return redis.call('XADD', KEYS[1], '*', '\255\254', '\255', '\255', '\0')";
        network.server.ask(&["EVAL", script, "1", &network.key(BOB)]);
        ann.send(BOB, 1);
        assert_eq!(bob.numbers(ANN, 1).await, [1]);
        assert_eq!(bob.transport.counts().poison, 8);
        bob.await_healthy().await;
    }

    async fn inbox_key_of_another_type_affects_only_its_node(network) {
        let (ann, bob, mut eve) = (network.open(ANN).await, network.open(BOB).await, network.open(EVE).await);
        network.server.ask(&["SET", &network.key(BOB), "what"]);
        let reason = bob.await_unhealthy().await;
        assert!(reason.contains("WRONGTYPE"), "{reason}");
        (0..10).for_each(|number| [BOB, EVE].iter().for_each(|&to| ann.send(to, number)));
        assert_eq!(eve.numbers(ANN, 10).await, (0..10).collect::<Vec<_>>());
        ann.await_healthy().await;
        network.server.ask(&["DEL", &network.key(BOB)]);
        bob.await_healthy().await;
    }

    async fn inbox_of_a_closed_node_is_deleted(network) {
        let (ann, bob) = (network.open(ANN).await, network.open(BOB).await);
        bob.transport.close().await;
        assert_eq!(network.server.ask(&["KEYS", "*"]), network.key(ANN));
        // The inbox of a killed node expires, even if others still write to it.
        ann.send(BOB, 1);
        until(|| network.server.ask(&["EXISTS", &network.key(BOB)]) == "1").await;
        until(|| network.server.ask(&["PTTL", &network.key(BOB)]).parse::<i64>().unwrap() > 0).await;
    }
}

/// The promoted replica has the inboxes, without the entries that had not been replicated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinel_names_the_promoted_server() {
    let Some(mut network) = OverRedis::start(RedisAccess::Open) else {
        return;
    };
    let first = network.server.port.to_string();
    let replica = network
        .server
        .another(&["--replicaof", "127.0.0.1", &first]);
    until(|| {
        replica
            .ask(&["INFO", "replication"])
            .contains("master_link_status:up")
    })
    .await;
    let sentinel = network.server.sentinel();
    let seen = || {
        sentinel
            .ask(&["SENTINEL", "replicas", "main"])
            .contains(&replica.port.to_string())
    };
    until(seen).await;
    let url = format!(
        "redis-sentinel://127.0.0.1:{}?sentinelServiceName=main",
        sentinel.port
    );
    network.settings.url = url.parse::<RedisUrl>().unwrap().into();
    let (ann, mut bob) = (network.open(ANN).await, network.open(BOB).await);
    ann.send_until_received(&mut bob, 1).await;
    network.server.kill();
    let role = || replica.ask(&["INFO", "replication"]);
    until(|| role().contains("role:master")).await;
    ann.send_until_received(&mut bob, 2).await;
    ann.await_healthy().await;
    bob.await_healthy().await;
}

/// Inboxes are on different servers; a batch is sent to all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_pass_over_a_redis_cluster() {
    let Some(mut network) = OverRedis::start(RedisAccess::Open) else {
        return;
    };
    let clustered = ["--cluster-enabled", "yes"];
    let servers: Vec<RedisServer> = (0..3).map(|_| network.server.another(&clustered)).collect();
    for (server, slots) in
        servers
            .iter()
            .zip([["0", "5000"], ["5001", "11000"], ["11001", "16383"]])
    {
        let given = server.ask(&[&["CLUSTER", "ADDSLOTSRANGE"][..], &slots].concat());
        assert_eq!(given, "OK");
        server.ask(&["CLUSTER", "MEET", "127.0.0.1", &servers[0].port.to_string()]);
    }
    let state = |server: &RedisServer| server.ask(&["CLUSTER", "INFO"]);
    let ready = |server| {
        let state = state(server);
        state.contains("cluster_state:ok") && state.contains("cluster_known_nodes:3")
    };
    until(|| servers.iter().all(ready)).await;
    let url = format!("redis-cluster://127.0.0.1:{}", servers[0].port);
    network.settings.url = url.parse::<RedisUrl>().unwrap().into();
    let mut nodes = Vec::new();
    for name in 0..12 {
        nodes.push((NodeId(name), network.open(NodeId(name)).await));
    }
    let ann = network.open(NodeId(99)).await;
    for number in 0..50 {
        nodes.iter().for_each(|&(node, _)| ann.send(node, number));
    }
    for (_, node) in &mut nodes {
        assert_eq!(
            node.numbers(NodeId(99), 50).await,
            (0..50).collect::<Vec<_>>()
        );
    }
    for server in &servers {
        assert_ne!(server.ask(&["DBSIZE"]), "0", "every server has inboxes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transport_starts_without_redis() {
    let settings = RedisSettings {
        url: format!("redis://127.0.0.1:{}", free_port()).parse().ok(),
        ..RedisSettings::default()
    };
    let ann = open(&settings, ANN);
    ann.send(BOB, 1);
    let told = |reason: &str| reason.contains("refused");
    until(|| matches!(&*ann.transport.health().borrow(), Health::Bad(reason) if told(reason)))
        .await;
    ann.transport.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn password_is_required_and_accepted() {
    let Some(mut network) = OverRedis::start(RedisAccess::Password("s3cret/@:#")) else {
        return;
    };
    let stranger = open(&network.settings, ANN);
    let reason = stranger.await_unhealthy_for("NOAUTH").await;
    assert!(!stranger.transport.health().borrow().is_good(), "{reason}");
    network.settings.url = Some(network.server.url(":wr0ng@").parse().unwrap());
    open(&network.settings, ANN)
        .await_unhealthy_for("WRONGPASS")
        .await;
    network.settings.url = Some(network.server.url(":s3cret%2F%40%3A%23@").parse().unwrap());
    let (ann, mut bob) = (network.open(ANN).await, network.open(BOB).await);
    ann.send_until_received(&mut bob, 1).await;
    assert!(!format!("{:?} {:?}", network.settings, ann.transport).contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_connection_needs_the_configured_authority() {
    let Some(mut network) = OverRedis::start(RedisAccess::Tls) else {
        return;
    };
    let ca_file = network.server.ca();
    let other = OverRedis::start(RedisAccess::Tls).expect("the first has started");
    network.settings.ca_file = other.server.ca();
    open(&network.settings, ANN)
        .await_unhealthy_for("InvalidCertificate")
        .await;
    network.settings.ca_file = ca_file;
    let (ann, mut bob) = (network.open(ANN).await, network.open(BOB).await);
    ann.send_until_received(&mut bob, 1).await;
    let big = Bytes::from(vec![9; 2 << 20]);
    ann.transport.send(BOB, big.clone());
    assert!(bob.receive().await.messages == [big]);
    network.settings.ca_file = "/nowhere/ca.pem".into();
    let error = RedisTransport::open(&network.settings, EVE)
        .unwrap_err()
        .to_string();
    assert!(error.contains("/nowhere/ca.pem"), "{error}");
}

// ---- Helpers ----

fn open(settings: &RedisSettings, node: NodeId) -> Peer {
    let (transport, inbox) = RedisTransport::open(settings, node).unwrap();
    Peer {
        id: node,
        transport,
        inbox,
    }
}

impl Peer {
    /// Waits until no messages pass; returns the reason.
    async fn await_unhealthy(&self) -> String {
        self.await_unhealthy_for("").await
    }

    /// Waits until no messages pass for a reason that contains this word; returns the reason.
    async fn await_unhealthy_for(&self, word: &str) -> String {
        let mut health = self.transport.health();
        let so = |health: &Health| matches!(health, Health::Bad(reason) if reason.contains(word));
        let bad = timeout(LIMIT, health.wait_for(so)).await;
        let now = self.transport.health().borrow().clone();
        match &*bad
            .unwrap_or_else(|_| panic!("not bad for {word}: {now:?}"))
            .expect("it is open")
        {
            Health::Bad(reason) => reason.to_string(),
            Health::Good => unreachable!("it is bad"),
        }
    }
}

async fn until(condition: impl Fn() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(
            since.elapsed() < LIMIT,
            "the condition does not hold in time"
        );
        sleep(Duration::from_millis(1)).await;
    }
}
