//! Measures the cost of a large collection and of many open documents. Run one by one, on a quiet machine:
//!
//! `DOCUMENTS=5000000 cargo test --release --test store measure_ -- --ignored --nocapture --test-threads 1`.

use copydesk::store::ListPage;

use super::servers::postgres::{self as server, OwnServer};
use super::*;

fn from_environment(name: &str, default: usize) -> usize {
    let value = std::env::var(name).ok();
    value.map_or(default, |value| value.parse().unwrap())
}

fn percentiles(mut samples: Vec<Duration>) -> String {
    samples.sort_unstable();
    let at = |share: f64| samples[((samples.len() - 1) as f64 * share) as usize];
    format!("p50 {:?}, p99 {:?} of {}", at(0.5), at(0.99), samples.len())
}

/// Documents with titles. The order of their edits is unrelated to the order of their creation.
const FILL: &str = "
INSERT INTO documents (collection, id, live, title, title_folded, created_at_ms, updated_at_ms)
SELECT 'docs', 'd' || at, true, convert_to(title, 'UTF8'), convert_to(lower(title), 'UTF8'), at, (at * 7919) % 5000000
FROM (
  SELECT at, (ARRAY['Meeting notes', 'Budget plan', 'Quarterly report', 'Design review', 'Протокол', 'Travel',
                    'Interview', 'Roadmap', 'Release checklist', 'Ideas'])[1 + at % 10]
    || ' ' || at || ' ' || substr(md5(at::text), 1, 8) AS title
  FROM generate_series(1::bigint, $1) AS at
) AS titled";

const INDEX: &str = "
SET maintenance_work_mem = '512MB';
DROP INDEX titles_grams;
INSERT INTO titles SELECT number, collection, title_folded FROM documents;
CREATE INDEX titles_grams ON titles USING gin (copydesk_grams(collection, folded, 1, 3)) WITH (gin_pending_list_limit = 256);
ANALYZE documents;
ANALYZE titles";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for a quiet machine"]
async fn measure_searches_beside_loads() {
    let options = ["fsync=off", "shared_buffers=1GB", "max_wal_size=4GB"];
    let Some(own) = OwnServer::start(&options) else {
        return;
    };
    let store = Arc::new(open_shared(&own.url(), ME).await);
    let documents = from_environment("DOCUMENTS", 500_000);
    let raw = server::connect(&own.url()).await;
    raw.execute(FILL, &[&(documents as i64)]).await.unwrap();
    raw.batch_execute(INDEX).await.unwrap();
    let load = async |rounds: usize| {
        let mut samples = Vec::new();
        for at in 0..rounds {
            let doc = doc(&format!("d{}", 1 + at * 7_919 % documents));
            let began = Instant::now();
            // The documents have no entries, which counts as damage.
            drop(store.load(&doc, LoadRange::Head).await);
            samples.push(began.elapsed());
        }
        percentiles(samples)
    };
    eprintln!("{documents} documents; a load alone: {}", load(2_000).await);
    for text in [
        "",
        "e",
        "zq",
        "протокол",
        "ПРОТО",
        "no such title",
        "%",
        "roadmap 1",
        "deadbeef",
        "12345",
    ] {
        let (ask, searchers) = (Arc::clone(&store), 20);
        let searching = (0..searchers).map(|_| {
            let store = Arc::clone(&ask);
            tokio::spawn(async move { search_for_a_while(&store, text).await })
        });
        let searching: Vec<_> = searching.collect();
        let loads = load(300).await;
        let mut samples = Vec::new();
        let mut page = ListPage::default();
        for searcher in searching {
            let (found, mut times) = searcher.await.unwrap();
            page = found;
            samples.append(&mut times);
        }
        let found = page.documents.len();
        let searches = percentiles(samples);
        eprintln!(
            "{text:?}: {found} found, next {}; search {searches}; load {loads}",
            page.next.is_some()
        );
    }
}

async fn search_for_a_while(store: &PostgresStore, text: &str) -> (ListPage, Vec<Duration>) {
    let (mut samples, mut page) = (Vec::new(), ListPage::default());
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        let query = ListQuery {
            limit: 50,
            title: Some(text.to_owned()),
            ..query()
        };
        let began = Instant::now();
        page = store.list(query).await.unwrap();
        samples.push(began.elapsed());
    }
    (page, samples)
}

/// Three nodes with `DOCUMENTS` open documents in total, none of which is edited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for a quiet machine"]
async fn measure_open_idle_documents() {
    let options = [
        "fsync=off",
        "shared_preload_libraries=pg_stat_statements",
        "max_connections=100",
    ];
    let Some(own) = OwnServer::start(&options) else {
        return;
    };
    let raw = server::connect(&own.url()).await;
    let extension = "CREATE EXTENSION pg_stat_statements";
    raw.batch_execute(extension).await.unwrap();
    let each = from_environment("DOCUMENTS", 200_000) / 3;
    let mut stores = Vec::new();
    for node in 1..=3 {
        let store = open_shared(&own.url(), NodeId(node)).await;
        let claims = (0..each).map(async |at| {
            let doc = doc(&format!("n{node}-{at}"));
            (
                doc.clone(),
                store.claim(&doc, NodeId(node)).await.unwrap().fence.epoch,
            )
        });
        let owned = join_all(claims).await;
        stores.push((
            store,
            OpenDocuments {
                owned,
                followed: vec![],
            },
        ));
    }
    for way in ["the feed of changes", "a comparison of all"] {
        let reset = "SELECT pg_stat_statements_reset()";
        raw.batch_execute(reset).await.unwrap();
        let mut cursors = vec![None; 3];
        let began = Instant::now();
        for _ in 0..60 {
            let next = tokio::time::sleep(Duration::from_millis(500));
            for ((store, open), cursor) in stores.iter().zip(&mut cursors) {
                store.heartbeat(&beat()).await.unwrap();
                if way == "the feed of changes" {
                    *cursor = Some(store.changes(cursor.as_ref()).await.unwrap().cursor);
                } else {
                    store.compare_open(open).await.unwrap();
                }
            }
            next.await;
        }
        let took = began.elapsed();
        let statements = "SELECT round(total_exec_time + total_plan_time)::bigint, calls, left(regexp_replace(query, '\\s+', ' ', 'g'), 70)
            FROM pg_stat_statements ORDER BY 1 DESC LIMIT 5";
        for row in raw.query(statements, &[]).await.unwrap() {
            let (ms, calls, query): (i64, i64, String) = (row.get(0), row.get(1), row.get(2));
            let core = ms as f64 / took.as_millis() as f64 * 100.0;
            eprintln!(
                "{way}, {each} documents on each of 3 nodes, {took:?}: {ms} ms ({core:.2} % of a core), {calls} calls: {query}"
            );
        }
    }
}
