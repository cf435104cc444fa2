//! Tests of what only a store for many nodes provides.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::sleep;

use super::servers::postgres::{self as server, OwnServer};
use super::servers::stopped::Stopped;
use super::*;
use copydesk::store::{LiveNode, MigrationPhase};
use copydesk::version::{Capabilities, WireRange};

/// How long a condition may take. Only failures take as long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Repeats a check until it returns a value.
pub(super) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within the limit: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

pub(super) fn settings(url: &str) -> PostgresSettings {
    PostgresSettings {
        url: url.to_owned(),
        append_connections: 2,
        open_patience_ms: 0,
        ..PostgresSettings::default()
    }
}

/// The id of a node that no other test uses: it is in the names of connections.
pub(super) fn node() -> NodeId {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    NodeId(u64::from_ne_bytes(bytes))
}

/// The name of the connections of `me` at the server.
fn application_name(me: NodeId) -> String {
    format!("copydesk:here:{me}")
}

pub(super) async fn open_as(settings: &PostgresSettings, me: NodeId) -> PostgresStore {
    PostgresStore::open(settings, me, "here").await.unwrap()
}

async fn refusal(settings: &PostgresSettings) -> String {
    let opened = PostgresStore::open(settings, ME, "here").await;
    opened.unwrap_err().to_string()
}

pub(super) async fn count(client: &tokio_postgres::Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

// ---- The fence ----

/// The claims and appends of two nodes, for the check at the end.
#[derive(Debug, Default)]
struct Story {
    /// Epoch and head of each claim.
    claims: Vec<(Epoch, Revision)>,
    /// Revision and seq of each acknowledged entry.
    acknowledged: Vec<(Revision, u64)>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_fence_each_other() {
    let Some(url) = server::schema().await else {
        return;
    };
    let documents = 4;
    let seqs = Arc::new(AtomicU64::new(1));
    let stories: Arc<Vec<_>> = Arc::new(
        (0..documents)
            .map(|_| std::sync::Mutex::new(Story::default()))
            .collect(),
    );
    let mut tasks = Vec::new();
    for _ in 0..2 {
        let store = Arc::new(open_as(&settings(&url), node()).await);
        for document in 0..documents {
            let (store, seqs) = (Arc::clone(&store), Arc::clone(&seqs));
            let stories = Arc::clone(&stories);
            tasks.push(tokio::spawn(async move {
                for round in 0..25 {
                    claim_and_append(&store, document, round, &seqs, &stories[document]).await;
                }
            }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    let store = open_as(&settings(&url), node()).await;
    for (document, story) in stories.iter().enumerate() {
        let loaded = head(&store, &format!("d{document}")).await;
        check_log(&loaded, &story.lock().unwrap());
    }
}

/// Claims a document and appends to it until another node has claimed it.
async fn claim_and_append(
    store: &PostgresStore,
    document: usize,
    round: u64,
    seqs: &AtomicU64,
    story: &std::sync::Mutex<Story>,
) {
    let id = format!("d{document}");
    let Lease { fence, mut head } = claim(store, &id).await;
    story.lock().unwrap().claims.push((fence.epoch, head));
    for _ in 0..10 + round % 3 {
        let entries: Vec<_> = (1..=2)
            .map(|at| {
                let seq = seqs.fetch_add(1, Ordering::Relaxed);
                Arc::new(Entry {
                    epoch: fence.epoch,
                    ..Entry::clone(&entry(head.0 + at, seq, Change::Nothing))
                })
            })
            .collect();
        let batch = batch(&id, fence, entries.clone());
        match store.append(vec![batch]).await.unwrap()[0] {
            Ok(()) => {
                let told = entries.iter().map(|entry| (entry.revision, entry.id.seq));
                story.lock().unwrap().acknowledged.extend(told);
                head = Revision(head.0 + 2);
            }
            Err(refused) => {
                assert_eq!(refused, AppendError::Fenced);
                return;
            }
        }
    }
}

/// Each acknowledged entry is in the log once, nothing else is, and no fence wrote after a later claim.
fn check_log(loaded: &Loaded, story: &Story) {
    let found: BTreeMap<u64, u64> = loaded
        .entries
        .iter()
        .map(|entry| (entry.revision.0, entry.id.seq))
        .collect();
    let told: BTreeMap<u64, u64> = story
        .acknowledged
        .iter()
        .map(|(revision, seq)| (revision.0, *seq))
        .collect();
    assert_eq!(
        told.len(),
        story.acknowledged.len(),
        "a revision was acknowledged twice"
    );
    assert_eq!(found, told);
    assert!(story.claims.len() >= 50, "{}", story.claims.len());
    let epochs: Vec<_> = loaded.entries.iter().map(|entry| entry.epoch).collect();
    assert!(epochs.is_sorted(), "{epochs:?}");
    for (epoch, head) in &story.claims {
        let later = loaded.entries.iter().filter(|entry| entry.revision > *head);
        for entry in later {
            assert!(entry.epoch >= *epoch, "{entry:?} after {epoch:?} at {head}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_claim_the_same_documents_at_once_get_different_epochs() {
    let Some(url) = server::schema().await else {
        return;
    };
    let stores = [
        open_as(&settings(&url), node()).await,
        open_as(&settings(&url), node()).await,
    ];
    let mut claims = Vec::new();
    for at in 0..200 {
        // In opposite orders, and each document twice by each node.
        for (store, at) in [(&stores[0], at % 100), (&stores[1], 99 - at % 100)] {
            claims.push(async move { (at, claim(store, &format!("d{at}")).await.fence) });
        }
    }
    let mut fences: HashMap<i32, Vec<Fence>> = HashMap::new();
    for (at, fence) in join_all(claims).await {
        fences.entry(at).or_default().push(fence);
    }
    for fences in fences.values_mut() {
        fences.sort_by_key(|fence| fence.epoch);
        let epochs: Vec<_> = fences.iter().map(|fence| fence.epoch.0).collect();
        assert_eq!(epochs, [1, 2, 3, 4]);
    }
}

#[tokio::test]
async fn terminated_append_is_unknown_and_the_claim_shows_its_outcome() {
    let Some(url) = server::schema().await else {
        return;
    };
    let me = node();
    let store = open_as(&settings(&url), me).await;
    let mut ann = Writer::claim(&store, "a").await;
    ann.write(create("")).await;
    let (raw, killer) = (server::connect(&url).await, server::connect(&url).await);
    raw.batch_execute("BEGIN; LOCK TABLE entries IN SHARE MODE")
        .await
        .unwrap();
    let lost = ann.entry(insert("x"));
    let batch = batch("a", ann.fence, vec![Arc::clone(&lost)]);
    let kill = eventually("the append waits", async || {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE application_name = $1 AND wait_event_type = 'Lock'";
        killer
            .query_opt(sql, &[&application_name(me)])
            .await
            .unwrap()
    });
    let (answer, _) = tokio::join!(store.append(vec![batch]), kill);
    let error = answer.unwrap_err().to_string();
    assert!(error.starts_with("append: "), "{error}");
    raw.batch_execute("COMMIT").await.unwrap();
    let mut ann = Writer::claim(&store, "a").await;
    assert_eq!(ann.head, Revision(1));
    ann.write(insert("y")).await;
    assert_eq!(text(&fold(&head(&store, "a").await)).as_deref(), Some("y"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_connections_lose_and_duplicate_nothing() {
    let Some(url) = server::schema().await else {
        return;
    };
    let me = node();
    let store = Arc::new(open_as(&settings(&url), me).await);
    let writers: Vec<_> = (0..8)
        .map(|at| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { write_through(&store, &format!("d{at}")).await })
        })
        .collect();
    let killer = server::connect(&url).await;
    let mut killed = 0;
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE application_name = $1 AND query LIKE '%INSERT INTO entries%'";
        let row = killer
            .query_one(sql, &[&application_name(me)])
            .await
            .unwrap();
        killed += row.get::<_, i64>(0);
        sleep(Duration::from_millis(15)).await;
    }
    let mut unknown = 0;
    for writer in writers {
        unknown += writer.await.unwrap();
    }
    assert!(
        killed > 0 && unknown > 0,
        "{killed} killed, {unknown} unknown"
    );
    for at in 0..8 {
        let loaded = head(&*store, &format!("d{at}")).await;
        let seqs: Vec<_> = loaded.entries.iter().map(|entry| entry.id.seq).collect();
        assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
    }
}

/// Appends entries 1 to 200, one by one, in spite of errors: after an unknown outcome the next claim shows the head.
/// Returns the number of errors.
async fn write_through(store: &PostgresStore, id: &str) -> u64 {
    let (mut unknown, mut written) = (0, 0);
    while written < 200 {
        let Ok(lease) = store.claim(&doc(id), ME).await else {
            continue;
        };
        written = lease.head.0;
        while written < 200 {
            let next = entry(written + 1, written + 1, Change::Nothing);
            match store.append(vec![batch(id, lease.fence, vec![next])]).await {
                Ok(answer) => assert_eq!(answer, [Ok(())]),
                Err(_) => {
                    unknown += 1;
                    break;
                }
            }
            written += 1;
        }
    }
    unknown
}

/// A cancelled wait for the standbys is reported as a success with a warning.
#[tokio::test]
async fn append_without_a_standby_is_not_acknowledged() {
    let Some(own) = OwnServer::start(&[]) else {
        return;
    };
    let me = node();
    let store = open_as(&settings(&own.url()), me).await;
    let mut ann = Writer::claim(&store, "a").await;
    ann.write(create("")).await;
    let raw = server::connect(&own.url()).await;
    let standbys = async |names: &str| {
        let alter = format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'");
        raw.batch_execute(&alter).await.unwrap();
        raw.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        let is_set = async || {
            let row = raw
                .query_one("SHOW synchronous_standby_names", &[])
                .await
                .unwrap();
            (row.get::<_, &str>(0) == names).then_some(())
        };
        eventually("the setting is read", is_set).await;
    };
    raw.batch_execute("SET synchronous_commit = local")
        .await
        .unwrap();
    standbys("absent").await;
    let sql = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity
               WHERE application_name = $1 AND wait_event = 'SyncRep'";
    let name = application_name(me);
    let cancels = async || {
        loop {
            raw.query(sql, &[&name]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // Each server process reads the setting at its next statement, so the first appends may not wait yet.
    let mut refused = false;
    for _ in 0..1_000 {
        let next = ann.entry(insert("x"));
        let batch = batch("a", ann.fence, vec![next]);
        refused = tokio::select! {
            answer = store.append(vec![batch]) => answer.is_err(),
            () = cancels() => unreachable!("it goes on for ever"),
        };
        if refused {
            break;
        }
    }
    assert!(refused, "an append that no standby has was acknowledged");
    standbys("").await;
    // It was written nevertheless, as the claim shows.
    let claimed = eventually("the claim", async || store.claim(&doc("a"), ME).await.ok()).await;
    assert_eq!(claimed.head, ann.head);
}

#[tokio::test]
async fn faulty_batch_is_rejected_alone() {
    let Some(factory) = PostgresFactory::new().await else {
        return;
    };
    let harm = "ALTER TABLE entries ADD CONSTRAINT poison CHECK (seq <> 666)";
    factory
        .raw_connection()
        .await
        .batch_execute(harm)
        .await
        .unwrap();
    let (mut batches, mut expected) = (Vec::new(), Vec::new());
    for at in 0..40 {
        let id = format!("d{at}");
        let fence = claim(&factory.store, &id).await.fence;
        let seq = if at % 20 == 7 { 666 } else { at };
        batches.push(batch(&id, fence, vec![entry(1, seq, create(""))]));
        expected.push(if seq == 666 {
            Err(AppendError::Refused)
        } else {
            Ok(())
        });
    }
    let answer = factory.store.append(batches).await.unwrap();
    assert_eq!(answer, expected);
    for (at, outcome) in expected.iter().enumerate() {
        let loaded = head(&factory.store, &format!("d{at}")).await;
        assert_eq!(loaded.head.0, u64::from(outcome.is_ok()), "d{at}");
    }
}

// ---- Locked rows ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claim_ends_the_connection_of_a_stopped_process_that_locks_its_row() {
    let Some(url) = server::schema().await else {
        return;
    };
    let settings = PostgresSettings {
        lock_timeout_ms: 100,
        ..settings(&url)
    };
    let store = open_as(&settings, node()).await;
    Writer::claim(&store, "a").await.write(create("")).await;
    let (port, schema) = address(&url);
    let parameters = [
        ("user", "postgres"),
        ("database", "postgres"),
        ("application_name", "copydesk:stopped:0000000000000001"),
        (
            "options",
            &format!(
                "-c search_path={schema} -c statement_timeout=100 -c idle_in_transaction_session_timeout=100"
            ),
        ),
    ];
    let sql = "SELECT doc FROM heads FOR SHARE";
    let mut stopped = Stopped::within(port, &parameters, sql);
    let lease = claim(&store, "a").await;
    assert_eq!((lease.fence.epoch, lease.head), (Epoch(2), Revision(1)));
    assert!(stopped.is_ended());
}

/// The port of a test's server and the schema that is the test's own.
fn address(url: &str) -> (u16, String) {
    let config: tokio_postgres::Config = url.parse().unwrap();
    let schema = config.get_options().unwrap().rsplit('=').next().unwrap();
    (config.get_ports()[0], schema.to_owned())
}

#[tokio::test]
async fn row_locked_by_another_program_delays_only_its_document() {
    let Some(url) = server::schema().await else {
        return;
    };
    let settings = PostgresSettings {
        lock_timeout_ms: 50,
        ..settings(&url)
    };
    let store = open_as(&settings, node()).await;
    let mut ann = Writer::claim(&store, "a").await;
    let mut ben = Writer::claim(&store, "b").await;
    let raw = server::connect(&url).await;
    let hold = "BEGIN; SELECT 1 FROM heads JOIN documents ON number = doc WHERE id = 'a' FOR UPDATE OF heads";
    raw.batch_execute(hold).await.unwrap();
    // A claim fails; a claim of another document does not wait for it.
    let (a, c) = (doc("a"), doc("c"));
    let (held, free) = tokio::join!(store.claim(&a, ME), store.claim(&c, ME));
    let error = held.unwrap_err().to_string();
    assert!(error.contains("docs/a"), "{error}");
    free.unwrap();
    // An append waits; an append to another document does not wait for it.
    let held = ann.entry(create(""));
    let held = store.append(vec![batch("a", ann.fence, vec![held])]);
    tokio::pin!(held);
    let free = async {
        for _ in 0..20 {
            ben.write(Change::Nothing).await;
        }
    };
    tokio::select! {
        biased;
        answer = &mut held => panic!("the row is held: {answer:?}"),
        () = free => {}
    }
    raw.batch_execute("COMMIT").await.unwrap();
    assert_eq!(held.await.unwrap(), [Ok(())]);
}

/// After a lock timeout the documents of a statement are not appended one by one, which would wait for the lock again.
#[tokio::test]
async fn locked_table_delays_a_statement_once() {
    let Some(url) = server::schema().await else {
        return;
    };
    let settings = PostgresSettings {
        append_connections: 1,
        lock_timeout_ms: 300,
        ..settings(&url)
    };
    let store = open_as(&settings, node()).await;
    let mut batches = Vec::new();
    for at in 0..60 {
        let id = format!("d{at}");
        let fence = claim(&store, &id).await.fence;
        batches.push(batch(&id, fence, vec![entry(1, at, Change::Nothing)]));
    }
    let raw = server::connect(&url).await;
    let lock = "BEGIN; LOCK TABLE entries IN SHARE MODE";
    raw.batch_execute(lock).await.unwrap();
    let began = Instant::now();
    let error = store.append(batches.clone()).await.unwrap_err();
    // Sixty waits of 300 ms would take 18 s.
    assert!(began.elapsed() < Duration::from_secs(9), "{error}");
    raw.batch_execute("COMMIT").await.unwrap();
    let answers = store.append(batches).await.unwrap();
    assert!(
        answers.iter().all(Result::is_ok),
        "nothing of it was written before"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_go_on_while_reads_wait() {
    let Some(url) = server::schema().await else {
        return;
    };
    let settings = PostgresSettings {
        read_connections: 2,
        lock_timeout_ms: 60_000,
        statement_timeout_ms: 60_000,
        acquire_timeout_ms: 60_000,
        ..settings(&url)
    };
    let store = Arc::new(open_as(&settings, node()).await);
    let mut ann = Writer::claim(&*store, "a").await;
    ann.write(create("")).await;
    // Loads read snapshots and appends do not.
    let raw = server::connect(&url).await;
    let lock = "BEGIN; LOCK TABLE snapshots IN ACCESS EXCLUSIVE MODE";
    raw.batch_execute(lock).await.unwrap();
    let loads = (0..100).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { head(&*store, "a").await.head })
    });
    let loads: Vec<_> = loads.collect();
    let waits = "SELECT count(*) FROM pg_stat_activity
                 WHERE wait_event_type = 'Lock' AND query LIKE '%FROM snapshots%'";
    let watcher = server::connect(&url).await;
    eventually("all connections that read wait", async || {
        (count(&watcher, waits).await >= 2).then_some(())
    })
    .await;
    for _ in 0..50 {
        ann.write(insert("x")).await;
    }
    claim(&*store, "b").await;
    assert!(!loads.iter().any(tokio::task::JoinHandle::is_finished));
    raw.batch_execute("COMMIT").await.unwrap();
    for load in loads {
        assert_eq!(load.await.unwrap(), Revision(51));
    }
}

// ---- Nodes ----

#[tokio::test]
async fn silent_node_is_not_in_the_reply() {
    let Some(url) = server::schema().await else {
        return;
    };
    let settings = PostgresSettings {
        node_dead_after_ms: 2_000,
        ..settings(&url)
    };
    let store = open_as(&settings, NodeId(1)).await;
    let [one, two] = [1, u64::MAX].map(|id| Heartbeat {
        me: NodeId(id),
        ..beat()
    });
    assert_eq!(store.heartbeat(&two).await.unwrap().nodes, [two.me]);
    assert_eq!(store.heartbeat(&one).await.unwrap().nodes, [one.me, two.me]);
    eventually("the other is dead", async || {
        let nodes = store.heartbeat(&one).await.unwrap().nodes;
        (nodes == [one.me]).then_some(())
    })
    .await;
    // It is live again with its next heartbeat.
    assert_eq!(store.heartbeat(&two).await.unwrap().nodes, [one.me, two.me]);
    // Each node gets the newest addresses of the others.
    let at = |beat: &Heartbeat, address: Option<&str>| Heartbeat {
        address: address.map(Into::into),
        ..beat.clone()
    };
    store
        .heartbeat(&at(&two, Some("10.0.0.2:7")))
        .await
        .unwrap();
    store
        .heartbeat(&at(&two, Some("10.0.0.2:8")))
        .await
        .unwrap();
    let told = store
        .heartbeat(&at(&one, Some("10.0.0.1:7")))
        .await
        .unwrap();
    assert_eq!(told.addresses, [(two.me, "10.0.0.2:8".into())]);
    store.heartbeat(&at(&two, None)).await.unwrap();
    assert_eq!(store.heartbeat(&one).await.unwrap().addresses, []);
    // The row of a node that was silent for long is deleted.
    let raw = server::connect(&url).await;
    let age = "UPDATE nodes SET beat_at = beat_at - interval '1 day' WHERE id = -1";
    assert_eq!(raw.execute(age, &[]).await.unwrap(), 1);
    store.heartbeat(&one).await.unwrap();
    assert_eq!(count(&raw, "SELECT count(*) FROM nodes").await, 1);
}

#[tokio::test]
async fn heartbeat_returns_the_versions_of_live_nodes() {
    let Some(url) = server::schema().await else {
        return;
    };
    let settings = settings(&url);
    let store = open_as(&settings, NodeId(1)).await;
    let newer = Heartbeat {
        me: NodeId(u64::MAX),
        takes_part: false,
        version: NodeVersion {
            wire: WireRange {
                oldest: 2,
                newest: 255,
            },
            capabilities: Capabilities(u64::MAX),
            program: "9.9.9".into(),
        },
        ..beat()
    };
    store.heartbeat(&newer).await.unwrap();
    // A node from before versions were stated.
    let older = "INSERT INTO nodes (id, name, takes_part, beat_at) VALUES (7, 'old', true, clock_timestamp())";
    server::connect(&url)
        .await
        .batch_execute(older)
        .await
        .unwrap();
    let one = Heartbeat {
        me: NodeId(1),
        ..beat()
    };
    let pulse = store.heartbeat(&one).await.unwrap();
    assert_eq!(pulse.nodes, [NodeId(1), NodeId(7)]);
    let old = LiveNode {
        id: NodeId(7),
        name: "old".into(),
        takes_part: true,
        version: NodeVersion::default(),
    };
    assert_eq!(pulse.others, [old, LiveNode::from(&newer)]);
}

#[tokio::test]
async fn locate_returns_the_owner() {
    let Some(url) = server::schema().await else {
        return;
    };
    let settings = settings(&url);
    let look = async |id: &str| PostgresStore::locate(&settings, &doc(id)).await;
    let empty = look("a").await.unwrap_err().to_string();
    assert!(empty.contains("has no tables of Copydesk"), "{empty}");
    let raw = server::connect(&url).await;
    let made = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()";
    assert_eq!(count(&raw, made).await, 0, "locate changes nothing");
    let store = open_as(&settings, node()).await;
    assert_eq!(look("a").await.unwrap(), None);
    let owner = NodeId(u64::MAX);
    store.claim(&doc("a"), owner).await.unwrap();
    let beat = Heartbeat {
        me: owner,
        ..beat()
    };
    store.heartbeat(&beat).await.unwrap();
    let found = look("a").await.unwrap().unwrap();
    assert_eq!((found.epoch, found.head), (Epoch(1), Revision(0)));
    assert_eq!(found.owner, Some(owner));
    assert_eq!(found.owner_name.as_deref(), Some("here"));
    assert!(found.owner_lives);
    let age = "UPDATE nodes SET beat_at = beat_at - interval '1 hour'";
    raw.execute(age, &[]).await.unwrap();
    assert!(!look("a").await.unwrap().unwrap().owner_lives);
    let newer = "INSERT INTO copydesk_versions (version) VALUES (1000)";
    raw.batch_execute(newer).await.unwrap();
    look("a").await.unwrap();
}

// ---- The server ----

#[tokio::test]
async fn store_reconnects_to_a_restarted_server() {
    let Some(mut own) = OwnServer::start(&[]) else {
        return;
    };
    let store = open_as(&settings(&own.url()), node()).await;
    let mut ann = Writer::claim(&store, "a").await;
    ann.write(create("")).await;
    own.crash();
    let next = ann.entry(insert("x"));
    store
        .append(vec![batch("a", ann.fence, vec![next])])
        .await
        .unwrap_err();
    store.load(&doc("a"), LoadRange::Head).await.unwrap_err();
    own.go_on();
    let claimed = eventually("a claim", async || store.claim(&doc("a"), ME).await.ok()).await;
    assert_eq!(claimed.head, Revision(1));
    let next = vec![entry(2, 2, insert("x"))];
    let answer = store.append(vec![batch("a", claimed.fence, next)]).await;
    assert_eq!(answer.unwrap(), [Ok(())]);
    assert_eq!(text(&fold(&head(&store, "a").await)).as_deref(), Some("x"));
}

#[tokio::test]
async fn full_disk_loses_nothing_that_was_acknowledged() {
    let Some(mut own) = OwnServer::on_a_small_disk(200) else {
        return;
    };
    let store = open_as(&settings(&own.url()), node()).await;
    let mut acknowledged = 0;
    let mut fence = claim(&store, "a").await.fence;
    for round in 0..2 {
        // The loop ends with an error: each entry takes space of the disk, and its text does not compress.
        loop {
            let text = noise(300_000, acknowledged);
            let next = entry(acknowledged + 1, acknowledged, create(&text));
            match store.append(vec![batch("a", fence, vec![next])]).await {
                Ok(answers) => assert_eq!(answers, [Ok(())], "{round}"),
                Err(_) => break,
            }
            acknowledged += 1;
        }
        assert!(acknowledged > 0);
        own.make_room();
        let lease = eventually("a claim", async || store.claim(&doc("a"), ME).await.ok()).await;
        // The entry with the unknown outcome may be there.
        assert!(
            (acknowledged..=acknowledged + 1).contains(&lease.head.0),
            "{lease:?}"
        );
        (acknowledged, fence) = (lease.head.0, lease.fence);
    }
    let mut read = 0;
    while read < acknowledged {
        let page = store
            .load(&doc("a"), LoadRange::Since(Revision(read)))
            .await
            .unwrap();
        read = page.entries.last().unwrap().revision.0;
    }
}

#[tokio::test]
async fn check_writes_fails_while_postgres_is_read_only() {
    let Some(own) = OwnServer::start(&[]) else {
        return;
    };
    let store = open_as(&settings(&own.url()), node()).await;
    store.check_writes().await.unwrap();
    let raw = server::connect(&own.url()).await;
    for (is_read_only, what) in [("on", "a failure"), ("off", "success")] {
        let set = format!("ALTER SYSTEM SET default_transaction_read_only = {is_read_only}");
        // The read-only setting can be changed back in a read-only session.
        raw.batch_execute("SET default_transaction_read_only = off")
            .await
            .unwrap();
        raw.batch_execute(&set).await.unwrap();
        raw.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        eventually(what, async || {
            let checked = store.check_writes().await;
            (checked.is_err() == (is_read_only == "on")).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_writes_fails_while_there_is_no_connection_for_appends() {
    let Some(own) = OwnServer::start(&[]) else {
        return;
    };
    let raw = server::connect(&own.url()).await;
    raw.batch_execute("CREATE ROLE desk LOGIN CONNECTION LIMIT 5")
        .await
        .unwrap();
    raw.batch_execute("CREATE DATABASE desk OWNER desk")
        .await
        .unwrap();
    let url = format!(
        "postgres://desk@127.0.0.1:{}/desk?sslmode=disable",
        own.port()
    );
    let settings = PostgresSettings {
        acquire_timeout_ms: 200,
        ..settings(&url)
    };
    let store = Arc::new(open_as(&settings, node()).await);
    // Readers take all free connections.
    let readers = (0..8).map(|at| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.load(&doc(&format!("d{at}")), LoadRange::Head).await })
    });
    for reader in readers.collect::<Vec<_>>() {
        // Those without a connection have failed.
        let _ = reader.await.unwrap();
    }
    eventually("a failure", async || {
        store.load(&doc("a"), LoadRange::Head).await.ok()?;
        store.check_writes().await.err()
    })
    .await;
    raw.batch_execute("ALTER ROLE desk CONNECTION LIMIT 50")
        .await
        .unwrap();
    eventually("success", async || store.check_writes().await.ok()).await;
}

#[tokio::test]
async fn start_waits_for_a_server_that_is_away() {
    let Some(mut own) = OwnServer::start(&[]) else {
        return;
    };
    own.crash();
    let settings = PostgresSettings {
        open_patience_ms: 60_000,
        ..settings(&own.url())
    };
    let opened = tokio::spawn(async move { open_as(&settings, ME).await });
    // It fails to connect before the server runs.
    tokio::task::yield_now().await;
    let started = tokio::task::spawn_blocking(move || {
        own.go_on();
        own
    });
    let _own = started.await.unwrap();
    claim(&opened.await.unwrap(), "a").await;
}

#[tokio::test]
async fn primary_is_found_among_the_hosts() {
    let read_only = OwnServer::start(&["default_transaction_read_only=on"]);
    let (Some(read_only), Some(primary)) = (read_only, OwnServer::start(&[])) else {
        return;
    };
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for (entries, wanted) in [(1, "target_session_attrs=read-write&"), (2, "")] {
        // The first host has no server, the second accepts connections and does not answer, the third is read-only.
        let url = format!(
            "postgres://postgres@127.0.0.1:{},127.0.0.1:{},127.0.0.1:{},127.0.0.1:{}/postgres?{wanted}sslmode=disable",
            servers::free_port(),
            silent.local_addr().unwrap().port(),
            read_only.port(),
            primary.port(),
        );
        let settings = PostgresSettings {
            connect_timeout_ms: 1_000,
            ..settings(&url)
        };
        let store = open_as(&settings, node()).await;
        Writer::claim(&store, "a")
            .await
            .write(Change::Nothing)
            .await;
        let raw = server::connect(&primary.url()).await;
        assert_eq!(count(&raw, "SELECT count(*) FROM entries").await, entries);
        assert_eq!(
            head(&store, "a").await.head.0,
            entries.cast_unsigned(),
            "{wanted}"
        );
    }
}

#[tokio::test]
async fn errors_of_the_start_name_their_cause() {
    let Some(url) = server::schema().await else {
        return;
    };
    let away = format!(
        "postgres://postgres@127.0.0.1:{}/postgres",
        servers::free_port()
    );
    let error = refusal(&settings(&away)).await;
    assert!(error.contains("connect to Postgres"), "{error}");
    let error = refusal(&settings("mysql://127.0.0.1")).await;
    assert!(error.contains("read the Postgres url"), "{error}");
    let error = refusal(&settings(&url.replace("/postgres?", "/nowhere?"))).await;
    assert!(
        error.contains("the database of the url does not exist"),
        "{error}"
    );
    let error = refusal(&settings(&url.replace("//postgres@", "//nobody@"))).await;
    assert!(
        error.contains("rejects the user or password of the url"),
        "{error}"
    );
    let settings = PostgresSettings {
        open_patience_ms: 60_000,
        ..settings(&url)
    };
    drop(open_as(&settings, ME).await);
    let raw = server::connect(&url).await;
    // A newer program added something that this one can ignore.
    let additive = "INSERT INTO copydesk_versions (version, works_with) VALUES (999, 12)";
    raw.batch_execute(additive).await.unwrap();
    drop(open_as(&settings, ME).await);
    let newer = "INSERT INTO copydesk_versions (version, works_with) VALUES (1000, 999)";
    raw.batch_execute(newer).await.unwrap();
    let error = refusal(&settings).await;
    assert!(error.contains("has version 1000"), "{error}");
}

#[tokio::test]
async fn large_database_is_migrated_by_the_command_and_used_meanwhile() {
    let Some(url) = server::schema().await else {
        return;
    };
    let settings = settings(&url);
    drop(open_as(&settings, ME).await);
    let operator = server::connect(&url).await;
    // The tables as the version before left them, with a log of 70 MB.
    let before = "
        DROP INDEX audit_repeated;
        DELETE FROM copydesk_versions WHERE version = 12;
        INSERT INTO entries (doc, revision, epoch, author, client, seq, at_ms, payload, checksum)
        SELECT 1, n, 1, 'a', 'c', n, n, decode(repeat(md5(n::text), 32), 'hex'), 0
        FROM generate_series(1, 120000) AS n";
    operator.batch_execute(before).await.unwrap();
    let has_index = "SELECT count(*) FROM pg_indexes
        WHERE schemaname = current_schema() AND indexname = 'audit_repeated'";
    drop(open_as(&settings, ME).await);
    assert_eq!(
        count(&operator, has_index).await,
        0,
        "a start does not wait"
    );
    let status = PostgresStore::migrate(&settings, None).await.unwrap();
    assert_eq!(status.pending, [12]);
    let contract = PostgresStore::migrate(&settings, Some(MigrationPhase::Contract));
    let error = contract.await.unwrap_err().to_string();
    assert!(
        error.contains("run `copydesk migrate --expand` first"),
        "{error}"
    );
    // What an interrupted command leaves behind.
    let half = "
        CREATE INDEX audit_repeated ON audit (actor, deed, number);
        UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'audit_repeated'::regclass";
    operator.batch_execute(half).await.unwrap();
    for _ in 0..2 {
        let expand = PostgresStore::migrate(&settings, Some(MigrationPhase::Expand));
        assert!(expand.await.unwrap().pending.is_empty());
        let valid = "SELECT count(*) FROM pg_index
            WHERE indexrelid = 'audit_repeated'::regclass AND indisvalid";
        assert_eq!(count(&operator, valid).await, 1);
    }
}

#[tokio::test]
async fn migration_that_waits_for_a_table_does_not_delay_heartbeats() {
    let Some(url) = server::schema().await else {
        return;
    };
    let settings = PostgresSettings {
        open_patience_ms: 60_000,
        ..settings(&url)
    };
    let store = open_as(&settings, ME).await;
    let operator = server::connect(&url).await;
    let before = "
        ALTER TABLE nodes DROP COLUMN wire_oldest, DROP COLUMN wire_newest, DROP COLUMN capabilities,
          DROP COLUMN program, DROP COLUMN schema;
        DELETE FROM copydesk_versions WHERE version = 11";
    operator.batch_execute(before).await.unwrap();
    operator
        .batch_execute("BEGIN; SELECT count(*) FROM nodes")
        .await
        .unwrap();
    // The migration waits for this transaction; a node's statement must not wait behind it for long.
    let starting = tokio::spawn({
        let settings = settings.clone();
        async move { open_as(&settings, node()).await }
    });
    let reader = server::connect(&url).await;
    let waits = "SELECT count(*) FROM pg_locks
        WHERE relation = 'nodes'::regclass AND mode = 'AccessExclusiveLock' AND NOT granted";
    eventually("the change waits", async || {
        (count(&reader, waits).await > 0).then_some(())
    })
    .await;
    reader
        .batch_execute("SET statement_timeout = '2s'; SELECT count(*) FROM nodes")
        .await
        .unwrap();
    assert!(!starting.is_finished());
    operator.batch_execute("COMMIT").await.unwrap();
    let started = starting.await.unwrap();
    started.heartbeat(&beat()).await.unwrap();
    store.heartbeat(&beat()).await.unwrap();
}

#[tokio::test]
async fn password_is_not_printed() {
    let secret = settings("postgres://ann:topsecret@127.0.0.1/db");
    assert!(!format!("{secret:?}").contains("topsecret"));
    let read = toml::from_str::<PostgresSettings>;
    assert_eq!(read("").unwrap(), PostgresSettings::default());
    assert!(read("size = 5").is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_may_start_at_once() {
    let Some(url) = server::schema().await else {
        return;
    };
    let settings = settings(&url);
    let stores = join_all((0..8).map(|_| open_as(&settings, node()))).await;
    let secrets = join_all(stores.iter().map(|store| store.secret())).await;
    for secret in &secrets {
        assert_eq!(secret.as_ref().unwrap(), secrets[0].as_ref().unwrap());
    }
    let raw = server::connect(&url).await;
    let versions = count(&raw, "SELECT count(*) FROM copydesk_versions").await;
    let known = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/postgres"));
    assert_eq!(versions, known.unwrap().count() as i64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn number_of_connections_is_that_of_the_settings() {
    let Some(url) = server::schema().await else {
        return;
    };
    let me = node();
    let settings = PostgresSettings {
        append_connections: 1,
        claim_connections: 3,
        read_connections: 2,
        ..settings(&url)
    };
    let store = Arc::new(open_as(&settings, me).await);
    let work = (0..300).map(|at| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut writer = Writer::claim(&*store, &format!("d{at}")).await;
            for _ in 0..5 {
                writer.write(Change::Nothing).await;
                head(&*store, &format!("d{at}")).await;
            }
        })
    });
    let work: Vec<_> = work.collect();
    let raw = server::connect(&url).await;
    let mut most = 0;
    while !work.iter().all(tokio::task::JoinHandle::is_finished) {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
        let row = raw.query_one(sql, &[&application_name(me)]).await.unwrap();
        most = most.max(row.get::<_, i64>(0));
    }
    for task in work {
        task.await.unwrap();
    }
    assert!((1..=6).contains(&most), "{most}");
}

/// A plan that is made while the tables are empty must be the right one later as well, and none is compiled to machine
/// code, whatever its estimated cost.
#[tokio::test]
async fn statements_use_the_indexes() {
    let explain = [
        "session_preload_libraries=auto_explain",
        "auto_explain.log_min_duration=0",
        "auto_explain.log_settings=on",
    ];
    let Some(own) = OwnServer::start(&explain) else {
        return;
    };
    let store = open_as(&settings(&own.url()), node()).await;
    let mut ann = Writer::claim(&store, "a").await;
    for _ in 0..8 {
        ann.write(Change::Nothing).await;
    }
    head(&store, "a").await;
    let open = OpenDocuments {
        owned: vec![(doc("a"), ann.fence.epoch)],
        followed: vec![(doc("a"), Revision(7))],
    };
    let news = store.compare_open(&open).await.unwrap();
    assert_eq!(
        (news.lost, news.newer),
        (vec![], vec![(doc("a"), Revision(8))])
    );
    let start = store.changes(None).await.unwrap();
    ann.write(Change::Nothing).await;
    let changes = store.changes(Some(&start.cursor)).await.unwrap();
    assert_eq!(changes.appended, [(doc("a"), Revision(9))]);
    let log = own.log();
    let plan = |of: &str| {
        let plan = log.rsplit("Query Text:").find(|it| it.contains(of));
        plan.unwrap_or_else(|| panic!("explained: {of}"))
    };
    for (statement, expected) in [
        (
            "INSERT INTO entries",
            "Index Scan using heads_pkey on heads",
        ),
        (
            "INSERT INTO entries",
            "Index Scan using entries_pkey on entries",
        ),
        (
            "INSERT INTO entries",
            "Index Scan using documents_pkey on documents",
        ),
        ("kept.data", "Index Scan using entries_pkey on entries"),
        ("IS DISTINCT FROM", "Index Scan using heads_pkey on heads"),
        ("FROM cursor", "Index Scan using changes_xid on changes"),
        (
            "revision > asked.known",
            "Index Only Scan Backward using entries_pkey on entries",
        ),
    ] {
        // The table of the nodes has a page or two.
        let plan = plan(statement).replace("Seq Scan on nodes", "");
        assert!(plan.contains(expected), "{expected}: {plan}");
        assert!(plan.contains("jit = 'off'"), "{plan}");
        for wrong in ["Seq Scan", "Bitmap"] {
            assert!(!plan.contains(wrong), "{plan}");
        }
    }
}

#[tokio::test]
async fn connection_is_encrypted_and_its_certificate_verified() {
    let Some(mut own) = OwnServer::start(&[]) else {
        return;
    };
    let certificate = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let (ours, other) = (certificate("localhost"), certificate("localhost"));
    let folder = TempDir::new().unwrap();
    let file = |name: &str, pem: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path
    };
    let (ca, wrong) = (
        file("ca.pem", &ours.cert.pem()),
        file("wrong.pem", &other.cert.pem()),
    );
    own.encrypt(&ours.cert.pem(), &ours.signing_key.serialize_pem());
    let connect = |mode: &str, ca_file: &Path| PostgresSettings {
        url: format!(
            "postgres://postgres@localhost:{}/postgres?sslmode={mode}",
            own.port()
        ),
        ca_file: ca_file.to_owned(),
        ..settings("")
    };
    let no_file = Path::new("");
    for (mode, ca_file, is_encrypted) in [
        ("disable", no_file, false),
        ("prefer", no_file, true),
        ("prefer", &ca, true),
        ("require", &ca, true),
    ] {
        let me = node();
        let store = open_as(&connect(mode, ca_file), me).await;
        claim(&store, "a").await;
        let raw = server::connect(&own.url()).await;
        let sql = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = $1";
        let row = raw.query_one(sql, &[&application_name(me)]).await.unwrap();
        assert_eq!(row.get::<_, bool>(0), is_encrypted, "{mode}");
    }
    for (mode, ca_file) in [
        ("require", no_file),
        ("require", &wrong),
        ("prefer", &wrong),
    ] {
        let error = refusal(&connect(mode, ca_file)).await;
        assert!(error.contains("certificate"), "{mode}: {error}");
    }
    let error = refusal(&connect("require", &folder.path().join("nothing"))).await;
    assert!(error.contains("read ca_file"), "{error}");

    // As for libpq: the url names the authority, and the certificate may be for another name than the server's.
    let by = |host: &str, mode: &str, ca: &Path| PostgresSettings {
        url: format!(
            "postgres://postgres@{host}:{}/postgres?sslmode={mode}&sslrootcert={}&target_session_attrs=primary",
            own.port(),
            ca.display()
        ),
        ..settings("")
    };
    for (host, mode) in [
        ("localhost", "verify-full"),
        ("localhost", "verify-ca"),
        ("127.0.0.1", "verify-ca"),
    ] {
        claim(&open_as(&by(host, mode, &ca), node()).await, "b").await;
    }
    for (host, mode, ca) in [
        ("127.0.0.1", "verify-full", &ca),
        ("localhost", "verify-full", &wrong),
        ("127.0.0.1", "verify-ca", &wrong),
    ] {
        let error = refusal(&by(host, mode, ca)).await;
        assert!(error.contains("certificate"), "{host} {mode}: {error}");
    }
}

// ---- Loads ----

#[tokio::test]
async fn replica_serves_earlier_revisions_and_never_the_head() {
    let (Some(url), Some(replica_url)) = (server::schema().await, server::schema().await) else {
        return;
    };
    // A replica that lags: it has the first two of four entries.
    let primary = open_as(&settings(&url), ME).await;
    let replica = open_as(&settings(&replica_url), ME).await;
    for (store, entries) in [(&primary, 4), (&replica, 2)] {
        let mut ann = Writer::claim(store, "a").await;
        for _ in 0..entries {
            ann.write(Change::Nothing).await;
        }
    }
    let both = |replica_url: &str| PostgresSettings {
        replica_url: replica_url.to_owned(),
        ..settings(&url)
    };
    let store = open_as(&both(&replica_url), ME).await;
    for (reach, revision, head) in [
        (LoadRange::At(Revision(1)), 1, 2),
        (LoadRange::At(Revision(2)), 2, 4),
        (LoadRange::At(Revision(3)), 3, 4),
        (LoadRange::AtTime(2_001), 1, 2),
        (LoadRange::AtTime(2_004), 4, 4),
        (LoadRange::Head, 4, 4),
    ] {
        let loaded = store.load(&doc("a"), reach).await.unwrap();
        assert_eq!(
            (fold(&loaded).revision.0, loaded.head.0),
            (revision, head),
            "{reach:?}"
        );
    }
    let away = format!(
        "postgres://postgres@127.0.0.1:{}/postgres",
        servers::free_port()
    );
    let store = open_as(&both(&away), ME).await;
    let loaded = store
        .load(&doc("a"), LoadRange::At(Revision(1)))
        .await
        .unwrap();
    assert_eq!(fold(&loaded).revision, Revision(1));
}

#[tokio::test]
async fn damaged_snapshots_in_postgres_are_skipped() {
    let Some(factory) = PostgresFactory::new().await else {
        return;
    };
    let mut ann = Writer::claim(&factory.store, "a").await;
    ann.write(create("abc")).await;
    for _ in 0..3 {
        ann.write(insert("x")).await;
        ann.save(fold(&head(&factory.store, "a").await)).await;
    }
    ann.write(insert("y")).await;
    let expected = fold(&head(&factory.store, "a").await);
    let raw = factory.raw_connection().await;
    for (damaged, next_best) in [(4, 3), (3, 2), (2, 0)] {
        let harm = "UPDATE snapshots SET data = set_byte(data, 20, get_byte(data, 20) # 4) WHERE revision = $1";
        assert_eq!(raw.execute(harm, &[&i64::from(damaged)]).await.unwrap(), 1);
        let loaded = head(&factory.store, "a").await;
        assert_eq!(loaded.snapshot.revision, Revision(next_best));
        assert_eq!(fold(&loaded), expected);
    }
    // A newly saved snapshot is readable again.
    ann.save(expected.clone()).await;
    assert_eq!(head(&factory.store, "a").await.snapshot, expected);
}

#[tokio::test]
async fn old_snapshots_in_postgres_are_removed() {
    let Some(factory) = PostgresFactory::new().await else {
        return;
    };
    let mut ann = Writer::claim(&factory.store, "a").await;
    ann.write(create("abc")).await;
    for _ in 0..40 {
        ann.write(insert("x")).await;
        ann.save(fold(&head(&factory.store, "a").await)).await;
    }
    for revision in [41, 40] {
        let at = LoadRange::At(Revision(revision));
        let loaded = factory.store.load(&doc("a"), at).await.unwrap();
        assert_eq!(loaded.snapshot.revision, Revision(revision));
    }
    let kept = count(
        &factory.raw_connection().await,
        "SELECT count(*) FROM snapshots",
    )
    .await;
    assert!((2..=12).contains(&kept), "{kept}");
}

#[tokio::test]
async fn damaged_log_in_postgres_is_an_error_and_never_a_wrong_text() {
    let harms = [
        "UPDATE entries SET payload = '' WHERE revision = 2",
        "UPDATE entries SET payload = set_byte(payload, length(payload) - 3, 121) WHERE revision = 2",
        "UPDATE entries SET seq = seq + 100 WHERE revision = 2",
        "UPDATE entries SET client = '' WHERE revision = 3",
        "UPDATE entries SET author = '\\xff' WHERE revision = 3",
        "DELETE FROM entries WHERE revision = 2",
        "DELETE FROM entries WHERE revision = 1",
    ];
    for harm in harms {
        let Some(factory) = PostgresFactory::new().await else {
            return;
        };
        let mut ann = Writer::claim(&factory.store, "a").await;
        ann.write(create("abc")).await;
        ann.write(insert("x")).await;
        ann.write(insert("x")).await;
        let raw = factory.raw_connection().await;
        assert!(raw.execute(harm, &[]).await.unwrap() > 0, "{harm}");
        for reach in [
            LoadRange::Head,
            LoadRange::Since(Revision::ZERO),
            LoadRange::At(Revision(3)),
        ] {
            let loaded = factory.store.load(&doc("a"), reach).await;
            let error = loaded.unwrap_err().to_string();
            assert!(error.contains("the log is damaged"), "{harm}: {error}");
        }
    }
}

#[tokio::test]
async fn log_in_postgres_without_its_end_is_an_error() {
    let Some(factory) = PostgresFactory::new().await else {
        return;
    };
    let mut ann = Writer::claim(&factory.store, "a").await;
    ann.write(create("abc")).await;
    ann.write(insert("x")).await;
    ann.save(fold(&head(&factory.store, "a").await)).await;
    let harm = "DELETE FROM entries WHERE revision = 2";
    factory
        .raw_connection()
        .await
        .batch_execute(harm)
        .await
        .unwrap();
    let loaded = factory.store.load(&doc("a"), LoadRange::Head).await;
    let error = loaded.unwrap_err().to_string();
    assert!(error.contains("the log is damaged"), "{error}");
}

#[tokio::test]
async fn closed_postgres_store_returns_errors() {
    let Some(factory) = PostgresFactory::new().await else {
        return;
    };
    let mut ann = Writer::claim(&factory.store, "a").await;
    factory.store.close().await.unwrap();
    let batch = batch("a", ann.fence, vec![ann.entry(create(""))]);
    let error = factory.store.append(vec![batch]).await.unwrap_err();
    assert_eq!(error.to_string(), "append: the store is closed");
    let error = factory.store.claim(&doc("a"), ME).await.unwrap_err();
    assert_eq!(error.to_string(), "claim: the store is closed");
    let loaded = factory.store.load(&doc("a"), LoadRange::Head).await;
    let error = loaded.unwrap_err();
    assert_eq!(error.to_string(), "load: the store is closed");
    factory.store.close().await.unwrap();
}
