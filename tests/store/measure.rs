//! Measures the cost of the shared store and the speed of a takeover. Run one by one, on a quiet machine:
//!
//! `cargo test --release --test store measure_ -- --ignored --nocapture --test-threads 1`.

use super::servers::postgres::{self as server, OwnServer};
use super::*;

/// The CPU time of a connection's process at the server, in microseconds. The system counts in steps of 10 ms.
fn backend_cpu_us(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The fields after the name, which may contain any character: first the state, then numbers.
    let numbers = stat.rsplit(')').next().unwrap();
    let ticks = numbers.split_whitespace().skip(11).take(2);
    ticks.map(|it| it.parse::<u64>().unwrap()).sum::<u64>() * 10_000
}

const DOCUMENTS: u64 = 100;
const ROUNDS: u64 = 300;

/// The same columns, without a fence.
const PLAIN: &str = "
INSERT INTO plain (doc, revision, epoch, author, client, seq, at_ms, payload, checksum)
SELECT doc, revision, epoch, author, client, seq, at_ms, payload, checksum
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bytea[], $5::text[], $6::bigint[], $7::bigint[],
            $8::bytea[], $9::bigint[])
  AS new (doc, revision, epoch, author, client, seq, at_ms, payload, checksum)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for a quiet machine"]
async fn measure_the_fence() {
    let Some(own) = OwnServer::start(&["fsync=off"]) else {
        return;
    };
    let store = open_shared(&own.url(), ME).await;
    let mut fences = Vec::new();
    for at in 0..DOCUMENTS {
        fences.push(claim(&store, &format!("d{at}")).await.fence);
    }
    let change = insert("x");
    let append = async |revision: u64| {
        let batches = fences.iter().zip(0_u64..).map(|(fence, at)| {
            let next = entry(revision, revision, change.clone());
            batch(&format!("d{at}"), *fence, vec![next])
        });
        let answers = store.append(batches.collect()).await.unwrap();
        assert!(answers.iter().all(Result::is_ok));
    };
    append(1).await;
    let plain = server::connect(&own.url()).await;
    plain
        .batch_execute(
            "CREATE TABLE plain (LIKE entries INCLUDING ALL);
             SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan; SET jit = off",
        )
        .await
        .unwrap();
    let pid = async |sql: &str| -> i32 { plain.query_one(sql, &[]).await.unwrap().get(0) };
    let appending = pid("SELECT pid FROM pg_stat_activity
         WHERE application_name LIKE 'copydesk:%' AND query LIKE '%INSERT INTO entries%'")
    .await;
    let inserting = pid("SELECT pg_backend_pid()").await;
    let statement = plain.prepare(PLAIN).await.unwrap();
    let payload = change.encode();
    let insert_plain = async |revision: i64| {
        let count = usize::try_from(DOCUMENTS).unwrap();
        let docs: Vec<i64> = (0..DOCUMENTS.cast_signed()).collect();
        let (numbers, ones) = (vec![revision; count], vec![1_i64; count]);
        let (authors, clients) = (vec![&b"ann"[..]; count], vec!["client"; count]);
        let payloads = vec![&payload[..]; count];
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 9] = [
            &docs, &numbers, &ones, &authors, &clients, &numbers, &numbers, &payloads, &numbers,
        ];
        plain.execute(&statement, &values).await.unwrap();
    };
    let before = [appending, inserting].map(backend_cpu_us);
    // Alternating, so that other load of the machine affects both.
    for round in 0..ROUNDS {
        append(round + 2).await;
        insert_plain((round + 2).cast_signed()).await;
    }
    let after = [appending, inserting].map(backend_cpu_us);
    let each = |at: usize| (after[at] - before[at]) as f64 / (ROUNDS * DOCUMENTS) as f64;
    println!(
        "an op of {DOCUMENTS} a statement costs Postgres {:.1} us fenced, {:.1} us plain: the fence {:.1} us",
        each(0),
        each(1),
        each(0) - each(1)
    );
}

/// As many documents as one node may own.
const TAKEN_OVER: usize = 10_000;

/// As many as a node claims at once.
const AT_ONCE: usize = 256;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for a quiet machine"]
async fn measure_a_takeover() {
    let Some(own) = OwnServer::start(&["fsync=off"]) else {
        return;
    };
    let owner = open_shared(&own.url(), ME).await;
    let names: Vec<_> = (0..TAKEN_OVER).map(|at| format!("d{at}")).collect();
    let leases = join_all(names.iter().map(|id| claim(&owner, id))).await;
    for (names, leases) in names.chunks(100).zip(leases.chunks(100)) {
        let batches = names.iter().zip(leases).map(|(id, lease)| {
            let mut entries = vec![entry(1, 1, create("some text"))];
            entries.extend((2..=10).map(|at| entry(at, at, insert("x"))));
            batch(id, lease.fence, entries)
        });
        owner.append(batches.collect()).await.unwrap();
    }
    drop(owner);
    let heir = Arc::new(open_shared(&own.url(), NodeId(2)).await);
    let claims = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let began = Instant::now();
    let taken = names.into_iter().map(|id| {
        let (heir, claims) = (Arc::clone(&heir), Arc::clone(&claims));
        tokio::spawn(async move {
            let _turn = claims.acquire().await.unwrap();
            let lease = claim(&*heir, &id).await;
            assert_eq!(head(&*heir, &id).await.head, lease.head);
            began.elapsed()
        })
    });
    let mut taken: Vec<_> = join_all(taken.collect::<Vec<_>>()).await;
    taken.sort_by_key(|it| *it.as_ref().unwrap());
    let after = |part: usize| taken[TAKEN_OVER * part / 100 - 1].as_ref().unwrap();
    println!(
        "{TAKEN_OVER} documents: half are taken over after {:?}, 99 of 100 after {:?}, all after {:?}",
        after(50),
        after(99),
        after(100)
    );
}
