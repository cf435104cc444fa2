//! Lists and searches in collections with more documents than one page reads.

use copydesk::access::{Principal, Subject};
use copydesk::store::{AccessQueries, ListPage, StoreErrorKind};

use super::alone_postgres::{count, eventually, node, open_as, settings as shared_settings};
use super::servers::postgres as server;
use super::*;

/// More documents than a page reads (10,000), of which the oldest are more than it sorts (3,000).
const DOCUMENTS: usize = 14_000;
const OLD: usize = 3_500;

/// The document `d{at}`, edited at the time `at`.
fn title(at: usize) -> String {
    match at {
        10 => "Zürich ÜNIQUE 100%".to_owned(),
        20 => "Quay".to_owned(),
        1..=OLD => format!("Old entry {at}"),
        _ => format!("Note {at}"),
    }
}

fn titles() -> Vec<(String, String)> {
    let titles = (1..=DOCUMENTS).map(title);
    titles.map(|it| (it.to_lowercase(), it)).collect()
}

/// The documents of all pages of a query, and the number of pages.
async fn all_pages(
    query: ListQuery,
    mut ask: impl AsyncFnMut(ListQuery) -> ListPage,
) -> (Vec<String>, usize) {
    let (mut found, mut next) = (Vec::new(), None);
    for pages in 1.. {
        let page = ask(ListQuery {
            after: next,
            ..query.clone()
        })
        .await;
        found.extend(
            page.documents
                .iter()
                .map(|it| it.doc.id.as_str().to_owned()),
        );
        next = page.next;
        if next.is_none() {
            return (found, pages);
        }
        assert!(pages < 100, "it comes to an end");
    }
    unreachable!()
}

fn search(text: &str) -> ListQuery {
    ListQuery {
        limit: 200,
        title: Some(text.to_owned()),
        ..query()
    }
}

/// The ids of old documents, newest first.
fn old() -> Vec<String> {
    let old = (1..=OLD).rev().filter(|at| title(*at).starts_with("Old"));
    old.map(|at| format!("d{at}")).collect()
}

/// Documents from before the index over titles existed. The nodes index them.
async fn fill(url: &str) {
    let raw = server::connect(url).await;
    let documents = "INSERT INTO documents (collection, id, live, title, title_folded, created_at_ms, updated_at_ms)
        SELECT 'docs', 'd' || place, true, convert_to(title, 'UTF8'), convert_to(folded, 'UTF8'), place, place
        FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (folded, title, place)";
    let (folded, titles): (Vec<_>, Vec<_>) = titles().into_iter().unzip();
    raw.execute(documents, &[&folded, &titles]).await.unwrap();
    let unknown = "UPDATE titles_progress SET is_complete = false;
        INSERT INTO grants (collection, id, subject, role)
        SELECT 'docs', id, 'few'::bytea, 1 FROM documents WHERE id IN ('d1', 'd2', 'd13000')
        UNION ALL
        SELECT 'docs', id, 'many'::bytea, 1 FROM documents WHERE convert_from(title, 'UTF8') LIKE 'Old%'";
    raw.batch_execute(unknown).await.unwrap();
}

fn member(user: &str) -> Principal {
    Principal {
        user: Some(Subject(user.to_owned())),
        tenant: Some("home".into()),
        role: None,
        links: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rare_and_frequent_titles_are_found_among_many() {
    let Some(url) = server::schema().await else {
        return;
    };
    open_as(&shared_settings(&url), node())
        .await
        .close()
        .await
        .unwrap();
    fill(&url).await;
    let settings = PostgresSettings {
        list_timeout_ms: 20_000,
        lock_timeout_ms: 20_000,
        ..shared_settings(&url)
    };
    let store = open_as(&settings, node()).await;
    let raw = server::connect(&url).await;
    let list = async |query| store.list(query).await.unwrap();
    // Each document is found, whether or not the index is complete. Until it is, more pages are needed.
    assert_eq!(all_pages(search("unique"), list).await.0, [""; 0]);
    assert_eq!(all_pages(search("ÜNIQUE"), list).await.0, ["d10"]);
    eventually("the index is full", async || {
        let full = "SELECT count(*) FROM titles_progress WHERE is_complete";
        (count(&raw, full).await == 1).then_some(())
    })
    .await;
    for (text, expected) in [
        ("ünique", &["d10"][..]),
        ("0%", &["d10"]),
        ("q", &["d20", "d10"]),
        ("qu", &["d20", "d10"]),
        ("%", &["d10"]),
        ("_", &[]),
        ("xy", &[]),
        ("no such title", &[]),
    ] {
        let (found, pages) = all_pages(search(text), list).await;
        assert_eq!(
            (found.as_slice(), pages),
            (expected.map_strings().as_slice(), 1),
            "{text}"
        );
    }
    let page = list(search("NOTE")).await;
    assert_eq!(
        (page.documents.len(), page.documents[0].doc.id.as_str()),
        (200, "d14000")
    );
    assert_eq!(all_pages(search("old entry"), list).await.0, old());

    let list_for = async |user, query| store.list_for(member(user), query).await.unwrap();
    let few = all_pages(search(""), async |query| list_for("few", query).await).await;
    assert_eq!(few, (vec!["d13000".into(), "d2".into(), "d1".into()], 1));
    let few = all_pages(search("old"), async |query| list_for("few", query).await).await;
    assert_eq!(few, (vec!["d2".into(), "d1".into()], 1));
    let many = all_pages(search(""), async |query| list_for("many", query).await).await;
    assert_eq!(many.0, old());
    let none = all_pages(search(""), async |query| list_for("none", query).await).await;
    assert_eq!(none, (vec![], 1));

    // A title that is changed later is found, and the previous one is not.
    let d5 = DocId::parse("docs", "d5").unwrap();
    assert!(store.rename(&d5, "Xylophone", None).await.unwrap());
    assert_eq!(all_pages(search("xyl"), list).await, (vec!["d5".into()], 1));
    assert!(store.rename(&d5, "", None).await.unwrap());
    assert_eq!(all_pages(search("xyl"), list).await, (vec![], 1));

    waiting_searches_do_not_delay_loads(store, &raw).await;
}

async fn waiting_searches_do_not_delay_loads(store: PostgresStore, raw: &tokio_postgres::Client) {
    let store = Arc::new(store);
    raw.batch_execute("BEGIN; LOCK TABLE titles IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let searches = (0..16).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.list(search("xyz")).await })
    });
    let searches: Vec<_> = searches.collect();
    eventually("two searches wait, and no more", async || {
        let waiting =
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'titles'::regclass";
        (count(raw, waiting).await == 2).then_some(())
    })
    .await;
    let documents = (0..50).map(|at| store.load_one(at));
    join_all(documents).await;
    store.check_writes().await.unwrap();
    assert!(searches.iter().all(|it| !it.is_finished()));
    raw.batch_execute("COMMIT").await.unwrap();
    for search in searches {
        // Some have waited for a connection longer than the time limit.
        let found = search.await.unwrap();
        assert!(found.is_err() || found.unwrap().documents.is_empty());
    }
}

trait LoadOne {
    async fn load_one(&self, at: usize);
}

impl LoadOne for PostgresStore {
    async fn load_one(&self, at: usize) {
        let doc = DocId::parse("docs", &format!("d{at}")).unwrap();
        // The documents have times and no entries, which counts as damage; the store has answered nevertheless.
        if let Err(error) = self.load(&doc, LoadRange::Head).await {
            let kind = error.kind;
            assert!(matches!(kind, StoreErrorKind::Damaged { .. }), "{error}");
        }
    }
}

trait MapStrings {
    fn map_strings(&self) -> Vec<String>;
}

impl MapStrings for [&str] {
    fn map_strings(&self) -> Vec<String> {
        self.iter().map(|it| (*it).to_owned()).collect()
    }
}

#[tokio::test]
async fn search_in_a_folder_reads_a_bounded_number_of_documents_per_page() {
    let factory = SqliteFactory::new();
    let mut raw = factory.raw_connection();
    let transaction = raw.transaction().unwrap();
    for (at, (folded, title)) in (1..).zip(titles()) {
        let document = "INSERT INTO documents (collection, id, live, title, title_folded, created_at_ms, updated_at_ms)
            VALUES ('docs', 'd' || ?1, 1, ?2, ?3, ?1, ?1)";
        transaction
            .execute(document, rusqlite::params![at, title, folded])
            .unwrap();
        if title.starts_with("Old") || at == 13_000 {
            let subject = if at < 3 || at == 13_000 {
                "few"
            } else {
                "many"
            };
            let grant = "INSERT INTO grants (collection, id, subject, role) VALUES ('docs', 'd' || ?1, ?2, 1)";
            transaction
                .execute(grant, rusqlite::params![at, subject])
                .unwrap();
        }
    }
    transaction.commit().unwrap();
    let store = factory.store();
    let list = async |query| store.list(query).await.unwrap();
    let first = list(search("ünique")).await;
    assert_eq!(
        (first.documents.len(), first.next),
        (0, Some((4_001, "d4001".to_owned())))
    );
    assert_eq!(
        all_pages(search("ünique"), list).await,
        (vec!["d10".into()], 2)
    );
    assert_eq!(all_pages(search("old entry"), list).await.0, old());
    let list_for = async |user, query| factory.store.list_for(member(user), query).await.unwrap();
    let few = all_pages(search(""), async |query| list_for("few", query).await).await;
    assert_eq!(few, (vec!["d13000".into(), "d2".into(), "d1".into()], 1));
    let many = all_pages(search(""), async |query| list_for("many", query).await).await;
    assert_eq!(many.0, old()[..old().len() - 2]);
}
