//! The suite that each store passes, and tests of the stores with a disk.

#[path = "store/postgres.rs"]
mod alone_postgres;
#[path = "store/changes.rs"]
mod change_feed;
#[path = "store/damage.rs"]
mod damaged_documents;
#[path = "store/faults.rs"]
mod faults;
#[path = "store/fences.rs"]
mod fences;
#[path = "store/measure_scale.rs"]
mod measure_scale;
#[path = "store/measure.rs"]
mod measure_shared;
#[path = "store/repair.rs"]
mod repairing;
#[path = "store/search.rs"]
mod searching;
mod servers;
#[path = "store/verify.rs"]
mod verification;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use copydesk::id::{ClientId, DocId, Name, NodeId, UserId};
use copydesk::log::{Change, Entry, Epoch, Fence, Revision, Snapshot, SubmitId};
use copydesk::ot::{Content, Kind, Op};
use copydesk::store::{
    AppendError, Batch, ChangeCursor, Continuity, DocumentChanges, Heartbeat, History, Lease,
    ListQuery, ListedDocument, LoadRange, Loaded, MemoryStore, OpenDocuments, PAGE_ENTRIES,
    PostgresSettings, PostgresStore, SqliteSettings, SqliteStore, Store,
};
use copydesk::version::NodeVersion;
use faults::{
    dead_letter_that_is_written_again_is_stored_once, dead_letters_are_filtered_and_paged,
    dead_letters_are_removed_by_number_and_by_filter, dead_letters_survive_a_restart,
    panic_that_is_recorded_again_is_the_same_panic, quarantine_is_bounded,
    quarantine_survives_a_restart_until_it_is_released,
    second_panic_within_a_minute_puts_a_document_into_quarantine,
};
use futures_util::future::join_all;
use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;

const ME: NodeId = NodeId(7);

// ---- The suite ----

/// A store that is empty at first and can be closed and opened again.
trait Factory {
    fn store(&self) -> &dyn Store;

    /// Closes the store and opens it again.
    fn reopen(&mut self) -> impl Future<Output = ()>;
}

struct InMemory(MemoryStore);

impl Factory for InMemory {
    fn store(&self) -> &dyn Store {
        &self.0
    }

    async fn reopen(&mut self) {
        self.0 = self.0.clone();
    }
}

struct SqliteFactory {
    store: SqliteStore,
    folder: TempDir,
}

impl SqliteFactory {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        Self {
            store: open(folder.path()),
            folder,
        }
    }

    /// Another connection, to damage the database.
    fn raw_connection(&self) -> Connection {
        Connection::open(self.folder.path().join("copydesk.db")).unwrap()
    }
}

impl Factory for SqliteFactory {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    async fn reopen(&mut self) {
        self.store.close().await.unwrap();
        self.store = open(self.folder.path());
    }
}

struct PostgresFactory {
    store: PostgresStore,
    /// A schema that only this test uses.
    url: String,
}

impl PostgresFactory {
    /// `None`: Postgres is not installed.
    async fn new() -> Option<Self> {
        let url = servers::postgres::schema().await?;
        let store = open_shared(&url, ME).await;
        Some(Self { store, url })
    }

    /// Another connection, to damage the database.
    async fn raw_connection(&self) -> tokio_postgres::Client {
        servers::postgres::connect(&self.url).await
    }
}

impl Factory for PostgresFactory {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    async fn reopen(&mut self) {
        self.store.close().await.unwrap();
        self.store = open_shared(&self.url, ME).await;
    }
}

async fn open_shared(url: &str, me: NodeId) -> PostgresStore {
    let settings = PostgresSettings {
        url: url.to_owned(),
        ..PostgresSettings::default()
    };
    PostgresStore::open(&settings, me, "here").await.unwrap()
}

fn settings(folder: &Path) -> SqliteSettings {
    SqliteSettings {
        folder: folder.to_owned(),
        ..SqliteSettings::default()
    }
}

fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(&settings(folder)).unwrap()
}

/// The tests that run on each store.
macro_rules! suite {
    ($($test:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::InMemory(super::MemoryStore::new())).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::SqliteFactory::new()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $test() {
                if let Some(factory) = super::PostgresFactory::new().await {
                    super::$test(factory).await;
                }
            })*
        }
    };
}

suite![
    appended_entries_are_loaded_unchanged,
    restart_keeps_everything,
    unknown_document_is_empty,
    rename_of_another_title_changes_nothing,
    old_epoch_is_fenced,
    same_epoch_with_another_token_is_fenced,
    claim_returns_the_final_head,
    batch_with_a_gap_is_rejected_completely,
    rejected_batches_do_not_affect_the_others,
    document_may_be_twice_in_one_append,
    entries_since_a_revision_are_read_in_pages,
    document_is_read_at_earlier_revisions,
    snapshots_shorten_the_load,
    fenced_snapshot_is_not_saved,
    snapshot_after_the_head_is_rejected,
    list_has_the_existing_documents,
    list_is_paged_newest_first,
    titles_are_found_regardless_of_case,
    secret_is_created_once,
    comparison_finds_documents_that_were_claimed,
    comparison_finds_documents_with_newer_heads,
    feed_has_each_change_once,
    node_that_takes_no_part_is_not_in_the_reply,
    history_is_renewed_by_the_first_of_two_nodes,
    fingerprints_distinguish_entries,
    odd_values_survive,
    dead_letters_survive_a_restart,
    dead_letter_that_is_written_again_is_stored_once,
    dead_letters_are_filtered_and_paged,
    dead_letters_are_removed_by_number_and_by_filter,
    second_panic_within_a_minute_puts_a_document_into_quarantine,
    panic_that_is_recorded_again_is_the_same_panic,
    quarantine_survives_a_restart_until_it_is_released,
    quarantine_is_bounded,
];

async fn appended_entries_are_loaded_unchanged(factory: impl Factory) {
    let mut ann = Writer::claim(factory.store(), "a").await;
    let mut expected = vec![ann.entry(create("héllo 😀\u{0}"))];
    expected.push(ann.entry(insert("x")));
    expected.push(ann.entry(Change::Nothing));
    expected.push(ann.entry(Change::Delete));
    expected.push(ann.entry(Change::Create(rich())));
    ann.append(&expected[..2]).await.unwrap();
    ann.append(&expected[2..]).await.unwrap();
    let loaded = head(factory.store(), "a").await;
    assert_eq!(loaded.entries, expected);
    assert_eq!(
        (loaded.head, loaded.snapshot),
        (Revision(5), Snapshot::default())
    );
}

async fn restart_keeps_everything(mut factory: impl Factory) {
    let mut ann = Writer::claim(factory.store(), "a").await;
    ann.write(create("")).await;
    let mut snapshot = Snapshot::default();
    for entry in head(factory.store(), "a").await.entries {
        snapshot.fold(&entry).unwrap();
    }
    ann.save(snapshot.clone()).await;
    ann.write(insert("b")).await;
    factory
        .store()
        .rename(&doc("a"), "Title", None)
        .await
        .unwrap();
    let (before, listed) = (
        head(factory.store(), "a").await,
        described(factory.store(), "a").await,
    );
    drop(ann);
    factory.reopen().await;
    let after = head(factory.store(), "a").await;
    assert_eq!(after.entries, before.entries);
    assert_eq!((after.snapshot, after.head), (snapshot, before.head));
    let listed = ListedDocument {
        updated_at_ms: 2_002,
        ..listed.unwrap()
    };
    assert_eq!(described(factory.store(), "a").await, Some(listed));
    assert_eq!(claim(factory.store(), "a").await.fence.epoch, Epoch(2));
}

async fn rename_of_another_title_changes_nothing(factory: impl Factory) {
    let store = factory.store();
    Writer::claim(store, "a").await.write(create("")).await;
    for (was, title, is_renamed) in [
        (Some(""), "A", true),
        (Some("A"), "B", true),
        // Sent again, because the answer was lost.
        (Some("A"), "B", true),
        (Some("A"), "C", false),
        (Some("b"), "C", false),
        (Some(""), "C", false),
        (None, "D", true),
        (Some("B"), "E", false),
        (Some("D"), "", true),
        (Some("D"), "", true),
    ] {
        let before = described(store, "a").await.unwrap().title;
        let renamed = store.rename(&doc("a"), title, was).await.unwrap();
        assert_eq!(renamed, is_renamed, "from {was:?} to {title:?}");
        let expected = if is_renamed { title } else { &before };
        assert_eq!(described(store, "a").await.unwrap().title, expected);
    }
}

async fn unknown_document_is_empty(factory: impl Factory) {
    let store = factory.store();
    for reach in [
        LoadRange::Head,
        LoadRange::Since(Revision(3)),
        LoadRange::At(Revision(3)),
        LoadRange::AtTime(3),
    ] {
        let loaded = store.load(&doc("a"), reach).await.unwrap();
        assert_eq!(
            (loaded.snapshot, loaded.entries, loaded.head.0),
            (Snapshot::default(), vec![], 0)
        );
    }
    assert_eq!(described(store, "a").await, None);
    assert!(!store.rename(&doc("a"), "x", None).await.unwrap());
    let forged = Fence {
        epoch: Epoch(0),
        token: 0,
    };
    let append = vec![batch("a", forged, vec![entry(1, 1, create(""))])];
    assert_eq!(
        store.append(append).await.unwrap(),
        [Err(AppendError::Fenced)]
    );
    assert_eq!(store.append(Vec::new()).await.unwrap(), []);
    let lease = claim(store, "a").await;
    assert_eq!((lease.fence.epoch, lease.head), (Epoch(1), Revision::ZERO));
    // A claim does not create the document.
    assert_eq!(described(store, "a").await, None);
}

async fn old_epoch_is_fenced(factory: impl Factory) {
    let mut ann = Writer::claim(factory.store(), "a").await;
    ann.write(create("")).await;
    let mut ben = Writer::claim(factory.store(), "a").await;
    let late = ann.entry(insert("ann"));
    assert_eq!(ann.append(&[late]).await, Err(AppendError::Fenced));
    ben.write(insert("ben")).await;
    assert_eq!(head(factory.store(), "a").await.head, Revision(2));
}

async fn same_epoch_with_another_token_is_fenced(factory: impl Factory) {
    let mut ann = Writer::claim(factory.store(), "a").await;
    let first = ann.entry(create(""));
    ann.fence.token ^= 1;
    assert_eq!(
        ann.append(&[Arc::clone(&first)]).await,
        Err(AppendError::Fenced)
    );
    ann.fence.token ^= 1;
    ann.fence.epoch.0 += 1;
    assert_eq!(
        ann.append(&[Arc::clone(&first)]).await,
        Err(AppendError::Fenced)
    );
    ann.fence.epoch.0 -= 1;
    assert_eq!(ann.append(&[first]).await, Ok(()));
}

async fn claim_returns_the_final_head(factory: impl Factory) {
    let mut ann = Writer::claim(factory.store(), "a").await;
    for at in 0..5 {
        ann.write(if at == 0 { create("") } else { insert("x") })
            .await;
    }
    let lease = claim(factory.store(), "a").await;
    assert_eq!((lease.head, lease.fence.epoch), (Revision(5), Epoch(2)));
    assert_ne!(lease.fence.token, ann.fence.token);
}

async fn batch_with_a_gap_is_rejected_completely(factory: impl Factory) {
    let ann = Writer::claim(factory.store(), "a").await;
    let entries = |revisions: &[u64]| -> Vec<_> {
        revisions
            .iter()
            .map(|revision| entry(*revision, *revision, Change::Nothing))
            .collect()
    };
    for wrong in [&[0][..], &[2], &[1, 3], &[1, 2, 2], &[2, 1], &[u64::MAX]] {
        assert_eq!(
            ann.append(&entries(wrong)).await,
            Err(AppendError::Gap),
            "{wrong:?}"
        );
    }
    assert_eq!(ann.append(&entries(&[1, 2])).await, Ok(()));
    assert_eq!(ann.append(&entries(&[2, 3])).await, Err(AppendError::Gap));
    assert_eq!(head(factory.store(), "a").await.head, Revision(2));
}

async fn rejected_batches_do_not_affect_the_others(factory: impl Factory) {
    let store = factory.store();
    let mut batches = Vec::new();
    let mut expected = Vec::new();
    for at in 0..100 {
        let id = format!("d{at}");
        let mut fence = claim(store, &id).await.fence;
        let mut revision = 1;
        expected.push(match at % 4 {
            1 => {
                fence.token += 1;
                Err(AppendError::Fenced)
            }
            2 => {
                revision = 2;
                Err(AppendError::Gap)
            }
            _ => Ok(()),
        });
        batches.push(batch(&id, fence, vec![entry(revision, 1, create(""))]));
    }
    assert_eq!(store.append(batches).await.unwrap(), expected);
    for (at, outcome) in expected.iter().enumerate() {
        let loaded = head(store, &format!("d{at}")).await;
        assert_eq!(loaded.head.0, u64::from(outcome.is_ok()), "d{at}");
    }
}

async fn document_may_be_twice_in_one_append(factory: impl Factory) {
    let fence = claim(factory.store(), "a").await.fence;
    let batches = vec![
        batch("a", fence, vec![entry(1, 1, create(""))]),
        batch("a", fence, vec![entry(2, 2, insert("x"))]),
        batch("a", fence, vec![entry(2, 3, insert("y"))]),
    ];
    let answer = factory.store().append(batches).await.unwrap();
    assert_eq!(answer, [Ok(()), Ok(()), Err(AppendError::Gap)]);
}

async fn entries_since_a_revision_are_read_in_pages(factory: impl Factory) {
    let store = factory.store();
    let mut ann = Writer::claim(store, "a").await;
    let count = PAGE_ENTRIES as u64 + 10;
    let entries: Vec<_> = (0..count).map(|_| ann.entry(Change::Nothing)).collect();
    ann.append(&entries).await.unwrap();
    // Two of these exceed the bytes of a page.
    let large: Vec<_> = (0..3)
        .map(|_| ann.entry(create(&"x".repeat(3 << 20))))
        .collect();
    ann.append(&large).await.unwrap();
    let (mut at, mut pages) = (Revision::ZERO, Vec::new());
    loop {
        let page = store.load(&doc("a"), LoadRange::Since(at)).await.unwrap();
        assert_eq!(
            (page.head.0, &page.snapshot),
            (count + 3, &Snapshot::default())
        );
        let Some(last) = page.entries.last() else {
            break;
        };
        assert_eq!(page.entries[0].revision, at.next());
        at = last.revision;
        pages.push(page.entries.len());
    }
    assert_eq!(pages, [PAGE_ENTRIES, 12, 1]);
    let beyond = store
        .load(&doc("a"), LoadRange::Since(Revision(u64::MAX)))
        .await
        .unwrap();
    assert_eq!((beyond.entries, beyond.head.0), (vec![], count + 3));
}

async fn document_is_read_at_earlier_revisions(factory: impl Factory) {
    let store = factory.store();
    let mut ann = Writer::claim(store, "a").await;
    ann.write(create("")).await;
    let mut texts = vec![None, Some(String::new())];
    for at in 0..30 {
        ann.write(insert(&(at % 10).to_string())).await;
        let text = texts.last().unwrap().clone().unwrap_or_default();
        texts.push(Some(format!("{}{text}", at % 10)));
        if at % 7 == 0 {
            ann.save(fold(&head(store, "a").await)).await;
        }
    }
    for revision in 0..=40 {
        let at = store
            .load(&doc("a"), LoadRange::At(Revision(revision)))
            .await
            .unwrap();
        let expected = &texts[31.min(revision as usize)];
        assert_eq!(&text(&fold(&at)), expected, "at {revision}");
        // The time of an entry is 2,000 plus its revision.
        let then = store
            .load(&doc("a"), LoadRange::AtTime(2_000 + revision))
            .await
            .unwrap();
        assert_eq!(&text(&fold(&then)), expected, "at time {revision}");
    }
    for (at_ms, revision) in [(0, 0), (2_000, 0), (u64::MAX, 31)] {
        let then = store
            .load(&doc("a"), LoadRange::AtTime(at_ms))
            .await
            .unwrap();
        assert_eq!(fold(&then).revision, Revision(revision));
    }
}

async fn snapshots_shorten_the_load(factory: impl Factory) {
    let store = factory.store();
    let mut ann = Writer::claim(store, "a").await;
    ann.write(create("abc")).await;
    for at in 2..=9 {
        ann.write(insert("x")).await;
        if at % 2 == 0 {
            ann.save(fold(&head(store, "a").await)).await;
        }
    }
    let loaded = head(store, "a").await;
    assert_eq!(
        (loaded.snapshot.revision, loaded.entries.len()),
        (Revision(8), 1)
    );
    assert_eq!(loaded.snapshot.creator, Some((submit(1), Revision(1))));
    assert_eq!(text(&fold(&loaded)).as_deref(), Some("xxxxxxxxabc"));
}

async fn fenced_snapshot_is_not_saved(factory: impl Factory) {
    let store = factory.store();
    let mut ann = Writer::claim(store, "a").await;
    ann.write(create("abc")).await;
    claim(store, "a").await;
    ann.save(fold(&head(store, "a").await)).await;
    assert_eq!(head(store, "a").await.snapshot, Snapshot::default());
    let unknown = Fence {
        epoch: Epoch(1),
        token: 1,
    };
    store
        .save_snapshot(&doc("unknown"), unknown, Snapshot::default())
        .await
        .unwrap();
}

async fn snapshot_after_the_head_is_rejected(factory: impl Factory) {
    let store = factory.store();
    let mut ann = Writer::claim(store, "a").await;
    ann.write(create("abc")).await;
    let mut ahead = fold(&head(store, "a").await);
    ahead.fold(&entry(2, 2, insert("x"))).unwrap();
    assert!(
        store
            .save_snapshot(&doc("a"), ann.fence, ahead)
            .await
            .is_err()
    );
    assert_eq!(head(store, "a").await.snapshot, Snapshot::default());
}

async fn list_has_the_existing_documents(mut factory: impl Factory) {
    let mut ann = Writer::claim(factory.store(), "a").await;
    ann.write(create("")).await;
    let created = ListedDocument {
        doc: doc("a"),
        title: String::new(),
        created_at_ms: 2_001,
        updated_at_ms: 2_001,
        revision: Revision(1),
    };
    assert_eq!(described(factory.store(), "a").await, Some(created.clone()));
    assert_eq!(
        list(factory.store(), query()).await,
        std::slice::from_ref(&created)
    );
    let other = ListQuery {
        collection: Name::parse("other").unwrap(),
        ..query()
    };
    assert_eq!(list(factory.store(), other).await, []);

    let mut ann = Writer::claim(factory.store(), "a").await;
    ann.write(Change::Delete).await;
    assert_eq!(described(factory.store(), "a").await, None);
    assert_eq!(list(factory.store(), query()).await, []);
    assert!(
        !factory
            .store()
            .rename(&doc("a"), "gone", None)
            .await
            .unwrap()
    );

    // A document that was deleted and created again keeps the time of its first creation.
    let mut ann = Writer::claim(factory.store(), "a").await;
    ann.write(create("")).await;
    ann.write(insert("x")).await;
    drop(ann);
    factory.reopen().await;
    let again = ListedDocument {
        updated_at_ms: 2_004,
        revision: Revision(4),
        ..created
    };
    assert_eq!(list(factory.store(), query()).await, [again]);
}

async fn list_is_paged_newest_first(mut factory: impl Factory) {
    for (at, id) in ["b", "a", "d", "c", "e"].iter().enumerate() {
        let fence = claim(factory.store(), id).await.fence;
        // `a` and `d` have the same time and are ordered by their ids.
        let at_ms = [10, 20, 20, 30, 5][at];
        let first = Entry {
            at_ms,
            ..Entry::clone(&entry(1, 1, create("")))
        };
        let mut entries = vec![Arc::new(first)];
        if *id == "e" {
            entries.push(Arc::new(Entry {
                at_ms: 40,
                ..Entry::clone(&entry(2, 2, insert("x")))
            }));
        }
        let answer = factory
            .store()
            .append(vec![batch(id, fence, entries)])
            .await
            .unwrap();
        assert_eq!(answer, [Ok(())]);
    }
    factory.reopen().await;
    for limit in [1, 2, 3, 100] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = list(
                factory.store(),
                ListQuery {
                    limit,
                    after,
                    ..query()
                },
            )
            .await;
            assert!(page.len() <= limit);
            seen.extend(page.iter().map(|listed| listed.doc.id.to_string()));
            let Some(last) = page.last() else { break };
            after = Some((last.updated_at_ms, last.doc.id.to_string()));
        }
        assert_eq!(seen, ["e", "c", "d", "a", "b"], "{limit} a page");
    }
    assert_eq!(
        list(
            factory.store(),
            ListQuery {
                limit: 0,
                ..query()
            }
        )
        .await,
        []
    );
}

async fn titles_are_found_regardless_of_case(factory: impl Factory) {
    let store = factory.store();
    for (id, title) in [
        ("a", "Über Äpfel"),
        ("b", "100% _sure_"),
        ("c", "ÜBER'M \"Berg\""),
    ] {
        Writer::claim(store, id).await.write(create("")).await;
        assert!(store.rename(&doc(id), title, None).await.unwrap());
        assert_eq!(described(store, id).await.unwrap().title, title);
    }
    for (text, expected) in [
        ("über", vec!["c", "a"]),
        ("ÄPFEL", vec!["a"]),
        ("%", vec!["b"]),
        ("_SURE_", vec!["b"]),
        ("'", vec!["c"]),
        ("", vec!["c", "b", "a"]),
        ("nothing", vec![]),
    ] {
        let found = list(
            store,
            ListQuery {
                title: Some(text.into()),
                ..query()
            },
        )
        .await;
        let found: Vec<_> = found.iter().map(|listed| listed.doc.id.as_str()).collect();
        assert_eq!(found, expected, "{text}");
    }
}

async fn secret_is_created_once(mut factory: impl Factory) {
    let secret = factory.store().secret().await.unwrap();
    assert_ne!(secret, [0; 32]);
    assert_eq!(factory.store().secret().await.unwrap(), secret);
    factory.reopen().await;
    assert_eq!(factory.store().secret().await.unwrap(), secret);
}

async fn history_is_renewed_by_the_first_of_two_nodes(mut factory: impl Factory) {
    let first = factory.store().history().await.unwrap();
    let [ours, theirs] = [1, 2].map(|id| first.after(History::default(), id));
    assert_eq!(
        factory.store().renew_history(first, ours).await.unwrap(),
        ours
    );
    assert_eq!(
        factory.store().renew_history(first, theirs).await.unwrap(),
        ours,
        "the second node gets the history of the first"
    );
    factory.reopen().await;
    assert_eq!(factory.store().history().await.unwrap(), ours);
    let pulse = factory.store().heartbeat(&beat()).await.unwrap();
    assert_eq!(pulse.history, ours);
    let again = factory.store().renew_history(ours, ours).await.unwrap();
    assert_eq!(again, ours, "a history that is confirmed stays");
}

async fn fingerprints_distinguish_entries(factory: impl Factory) {
    let store = factory.store();
    let mut asked = Vec::new();
    for (id, seq) in [("a", 1), ("b", 2)] {
        let lease = store.claim(&doc(id), ME).await.unwrap();
        let entries = vec![entry(1, seq, create("x")), entry(2, 10, insert("y"))];
        let appended = store.append(vec![batch(id, lease.fence, entries)]).await;
        appended.unwrap().remove(0).unwrap();
        asked.extend([1, 2, 3].map(|revision| (doc(id), Revision(revision))));
    }
    asked.push((doc("never claimed"), Revision(1)));
    let found = store.fingerprints(&asked).await.unwrap();
    let expected = |seq| Some(entry(1, seq, Change::Delete).fingerprint());
    let (a, b, last) = (expected(1), expected(2), expected(10));
    assert_eq!(found, [a, last, None, b, last, None, None]);
    assert_ne!(a, b);
}

fn beat() -> Heartbeat {
    Heartbeat {
        me: ME,
        name: "here".into(),
        takes_part: true,
        address: None,
        version: NodeVersion::default(),
    }
}

async fn comparison_finds_documents_that_were_claimed(factory: impl Factory) {
    let store = factory.store();
    let mut open = OpenDocuments::default();
    for id in ["a", "b", "c"] {
        open.owned
            .push((doc(id), claim(store, id).await.fence.epoch));
    }
    assert_eq!(
        store.compare_open(&open).await.unwrap(),
        DocumentChanges::default()
    );
    claim(store, "b").await;
    open.owned.push((doc("unknown"), Epoch(1)));
    let news = store.compare_open(&open).await.unwrap();
    assert_eq!(news.lost, [doc("b"), doc("unknown")]);
}

async fn comparison_finds_documents_with_newer_heads(factory: impl Factory) {
    let store = factory.store();
    let mut ann = Writer::claim(store, "a").await;
    for _ in 0..3 {
        ann.write(Change::Nothing).await;
    }
    let open = OpenDocuments {
        followed: vec![(doc("a"), Revision(3)), (doc("unknown"), Revision(0))],
        ..OpenDocuments::default()
    };
    assert_eq!(store.compare_open(&open).await.unwrap().newer, []);
    for _ in 0..2 {
        ann.write(Change::Nothing).await;
    }
    let newer = store.compare_open(&open).await.unwrap().newer;
    assert_eq!(newer, [(doc("a"), Revision(5))]);
}

async fn feed_has_each_change_once(factory: impl Factory) {
    let store = factory.store();
    let changes = async |since: Option<&ChangeCursor>| store.changes(since).await.unwrap();
    let mut ann = Writer::claim(store, "a").await;
    ann.write(Change::Nothing).await;
    let start = changes(None).await;
    assert_eq!(start.continuity, Continuity::Incomplete);
    assert_eq!((start.claimed, start.appended), (vec![], vec![]));

    // Also for a document without any earlier change.
    let mut bob = Writer::claim(store, "b").await;
    bob.write(Change::Nothing).await;
    ann.write(Change::Nothing).await;
    ann.write(Change::Nothing).await;
    let again = claim(store, "a").await;
    for _ in 0..2 {
        let mut found = changes(Some(&start.cursor)).await;
        found.claimed.sort_unstable();
        found.appended.sort_unstable();
        assert_eq!(found.continuity, Continuity::Complete);
        let claimed = [(doc("a"), again.fence.epoch), (doc("b"), bob.fence.epoch)];
        assert_eq!(found.claimed, claimed);
        let appended = [(doc("a"), Revision(3)), (doc("b"), Revision(1))];
        assert_eq!(found.appended, appended);
    }
    let found = changes(Some(&start.cursor)).await;
    // Rejected appends are no changes.
    let fenced = ann.entry(Change::Nothing);
    assert_eq!(ann.append(&[fenced]).await, Err(AppendError::Fenced));
    let nothing = changes(Some(&found.cursor)).await;
    assert_eq!(nothing.continuity, Continuity::Complete);
    assert_eq!((nothing.claimed, nothing.appended), (vec![], vec![]));
    bob.write(Change::Nothing).await;
    let next = changes(Some(&nothing.cursor)).await;
    assert_eq!(next.appended, [(doc("b"), Revision(2))]);
}

async fn node_that_takes_no_part_is_not_in_the_reply(factory: impl Factory) {
    let store = factory.store();
    let mut beat = beat();
    beat.takes_part = false;
    assert_eq!(store.heartbeat(&beat).await.unwrap().nodes, []);
    beat.takes_part = true;
    assert_eq!(store.heartbeat(&beat).await.unwrap().nodes, [ME]);
    beat.takes_part = false;
    assert_eq!(store.heartbeat(&beat).await.unwrap().nodes, []);
}

#[tokio::test]
async fn document_of_a_folder_is_located_while_a_server_uses_it_and_afterwards() {
    let folder = TempDir::new().unwrap();
    let missing = SqliteStore::locate(folder.path(), &doc("a")).unwrap_err();
    assert!(missing.to_string().contains("no database"), "{missing}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let store = open(folder.path());
    for _ in 0..2 {
        let mut ann = Writer::claim(&store, "a").await;
        ann.write(Change::Nothing).await;
    }
    let look = || {
        SqliteStore::locate(folder.path(), &doc("a"))
            .unwrap()
            .unwrap()
    };
    let found = look();
    assert_eq!((found.epoch, found.head), (Epoch(2), Revision(2)));
    assert_eq!(SqliteStore::locate(folder.path(), &doc("b")).unwrap(), None);
    store.close().await.unwrap();
    drop(store);
    assert_eq!(look(), found);
}

async fn odd_values_survive(factory: impl Factory) {
    let store = factory.store();
    let odd = DocId::parse("名前/'\"%", &"ä".repeat(127)).unwrap();
    let fence = store.claim(&odd, ME).await.unwrap().fence;
    let id = SubmitId {
        author: UserId::new("a\0b'--"),
        client: ClientId::parse("!\"'~").unwrap(),
        seq: u64::MAX,
    };
    let entry = Arc::new(Entry {
        revision: Revision(1),
        epoch: Epoch(u64::MAX),
        id,
        at_ms: u64::MAX,
        change: create("\u{0}\u{10ffff}"),
    });
    let batch = Batch {
        doc: odd.clone(),
        fence,
        entries: vec![Arc::clone(&entry)],
    };
    assert_eq!(store.append(vec![batch]).await.unwrap(), [Ok(())]);
    assert_eq!(
        store.load(&odd, LoadRange::Head).await.unwrap().entries,
        [entry]
    );
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// SQLite answers each call as memory does, also after a restart.
    #[test]
    fn stores_agree(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(agrees_with_memory(SqliteFactory::new(), &steps));
    }

    /// Postgres does as well.
    #[test]
    fn shared_stores_agree(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            if let Some(factory) = PostgresFactory::new().await {
                agrees_with_memory(factory, &steps).await;
            }
        });
    }
}

async fn agrees_with_memory(mut factory: impl Factory, steps: &[Step]) {
    let memory = MemoryStore::new();
    let mut fences = [BTreeMap::new(), BTreeMap::new()];
    for step in steps {
        if matches!(step, Step::Reopen) {
            factory.reopen().await;
        }
        let answer = step.run(factory.store(), &mut fences[0]).await;
        let in_memory = step.run(&memory, &mut fences[1]).await;
        assert_eq!(answer, in_memory, "{step:?}");
    }
    factory.reopen().await;
    let listed = list(factory.store(), query()).await;
    assert_eq!(listed, list(&memory, query()).await);
    for id in ["d0", "d1", "d2"] {
        let (loaded, in_memory) = (head(factory.store(), id).await, head(&memory, id).await);
        assert_eq!(loaded.head, in_memory.head);
        assert_eq!(fold(&loaded), fold(&in_memory));
    }
}

/// A call to a store.
#[derive(Debug, Clone)]
enum Step {
    Claim(u8),
    /// For each batch: the document, the number of its claim, the distance from the head, the number of entries.
    Append(Vec<(u8, bool, u8, u8)>),
    Snapshot(u8, bool),
    Load(u8, u8, u8),
    Rename(u8, bool),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let doc = 0..3_u8;
    let off = prop_oneof![5 => Just(1_u8), 1 => 0..4_u8];
    let stale = proptest::bool::weighted(0.2);
    let batch = (doc.clone(), stale, off, 1..5_u8);
    prop_oneof![
        2 => doc.clone().prop_map(Step::Claim),
        8 => proptest::collection::vec(batch, 1..5).prop_map(Step::Append),
        2 => (doc.clone(), stale).prop_map(|(doc, stale)| Step::Snapshot(doc, stale)),
        4 => (doc.clone(), 0..4_u8, 0..40_u8).prop_map(|(doc, reach, at)| Step::Load(doc, reach, at)),
        1 => (doc, any::<bool>()).prop_map(|(doc, upper)| Step::Rename(doc, upper)),
        1 => Just(Step::Reopen),
    ]
}

impl Step {
    /// Makes the call and returns its result as text. `fences` are the claims of each document.
    async fn run(&self, store: &dyn Store, fences: &mut BTreeMap<u8, Vec<Fence>>) -> String {
        let fence = |fences: &BTreeMap<u8, Vec<Fence>>, doc: u8, stale: bool| {
            let claims = fences.get(&doc)?;
            claims
                .iter()
                .rev()
                .nth(usize::from(stale))
                .or(claims.last())
                .copied()
        };
        match self {
            Self::Claim(doc) => {
                let lease = claim(store, &format!("d{doc}")).await;
                fences.entry(*doc).or_default().push(lease.fence);
                format!("{} {}", lease.fence.epoch.0, lease.head)
            }
            Self::Append(parts) => {
                let mut batches = Vec::new();
                for (doc, stale, off, count) in parts {
                    let Some(fence) = fence(fences, *doc, *stale) else {
                        continue;
                    };
                    let id = format!("d{doc}");
                    let loaded = head(store, &id).await;
                    let first = loaded.head.0 + u64::from(*off);
                    let exists = fold(&loaded).content.is_some();
                    let entries = (0..u64::from(*count)).map(|at| {
                        let change = match (exists, at) {
                            (false, 0) => create("new"),
                            (true, 3) => Change::Delete,
                            (_, 1) => insert("a"),
                            _ => Change::Nothing,
                        };
                        entry(first + at, first + at, change)
                    });
                    batches.push(batch(&id, fence, entries.collect()));
                }
                format!("{:?}", store.append(batches).await.unwrap())
            }
            Self::Snapshot(doc, stale) => {
                let Some(fence) = fence(fences, *doc, *stale) else {
                    return String::new();
                };
                let id = format!("d{doc}");
                let snapshot = fold(&head(store, &id).await);
                format!(
                    "{:?}",
                    store.save_snapshot(&self::doc(&id), fence, snapshot).await
                )
            }
            Self::Load(doc, reach, at) => {
                let at = u64::from(*at);
                let reach = match reach {
                    0 => LoadRange::Head,
                    1 => LoadRange::Since(Revision(at)),
                    2 => LoadRange::At(Revision(at)),
                    _ => LoadRange::AtTime(2_000 + at),
                };
                let loaded = store
                    .load(&self::doc(&format!("d{doc}")), reach)
                    .await
                    .unwrap();
                match reach {
                    LoadRange::Since(_) => format!("{:?} {}", loaded.entries, loaded.head),
                    _ => format!("{:?} {}", fold(&loaded), loaded.head),
                }
            }
            Self::Rename(doc, upper) => {
                let title = if *upper { "ÄÖ" } else { "äö" };
                let id = self::doc(&format!("d{doc}"));
                let renamed = store.rename(&id, title, None).await.unwrap();
                let titled = list(
                    store,
                    ListQuery {
                        title: Some("äÖ".into()),
                        ..query()
                    },
                )
                .await;
                format!("{renamed} {}", titled.len())
            }
            Self::Reopen => String::new(),
        }
    }
}

// ---- Stores with a disk ----

#[tokio::test]
async fn damaged_snapshots_are_skipped() {
    let factory = SqliteFactory::new();
    let mut ann = Writer::claim(&factory.store, "a").await;
    ann.write(create("abc")).await;
    for _ in 0..3 {
        ann.write(insert("x")).await;
        ann.save(fold(&head(&factory.store, "a").await)).await;
    }
    ann.write(insert("y")).await;
    let expected = fold(&head(&factory.store, "a").await);
    for (damaged, next_best) in [(4, 3), (3, 2), (2, 0)] {
        flip_a_bit(&factory, "snapshots", "data", damaged);
        let loaded = head(&factory.store, "a").await;
        assert_eq!(loaded.snapshot.revision, Revision(next_best));
        assert_eq!(fold(&loaded), expected);
    }
    // A newly saved snapshot is readable again.
    ann.save(expected.clone()).await;
    assert_eq!(head(&factory.store, "a").await.snapshot, expected);
}

#[tokio::test]
async fn two_readable_snapshots_are_kept_beside_damaged_ones() {
    let factory = SqliteFactory::new();
    let mut ann = Writer::claim(&factory.store, "a").await;
    ann.write(create("abc")).await;
    for round in 0..40 {
        ann.write(insert("x")).await;
        ann.save(fold(&head(&factory.store, "a").await)).await;
        if round % 3 == 2 {
            flip_a_bit(&factory, "snapshots", "data", round + 2);
        }
    }
    // 40 was damaged.
    for revision in [41, 39] {
        let at = LoadRange::At(Revision(revision));
        let loaded = factory.store.load(&doc("a"), at).await.unwrap();
        assert_eq!(loaded.snapshot.revision, Revision(revision));
    }
    let kept: i64 = factory
        .raw_connection()
        .query_row("SELECT count(*) FROM snapshots", [], |row| row.get(0))
        .unwrap();
    assert!((2..=12).contains(&kept), "{kept}");
}

#[tokio::test]
async fn damaged_log_is_an_error_and_never_a_wrong_text() {
    for harm in [
        "UPDATE entries SET payload = x'' WHERE revision = 2",
        "UPDATE entries SET payload = CAST(replace(CAST(payload AS TEXT), 'x', 'y') AS BLOB)
         WHERE revision = 2",
        "UPDATE entries SET seq = seq + 100 WHERE revision = 2",
        "UPDATE entries SET client = '' WHERE revision = 3",
        "DELETE FROM entries WHERE revision = 2",
        "DELETE FROM entries WHERE revision = 1",
    ] {
        let factory = SqliteFactory::new();
        let mut ann = Writer::claim(&factory.store, "a").await;
        ann.write(create("abc")).await;
        ann.write(insert("x")).await;
        ann.write(insert("x")).await;
        assert!(
            factory.raw_connection().execute(harm, []).unwrap() > 0,
            "{harm}"
        );
        for reach in [
            LoadRange::Head,
            LoadRange::Since(Revision::ZERO),
            LoadRange::At(Revision(3)),
        ] {
            let error = factory.store.load(&doc("a"), reach).await.unwrap_err();
            assert!(
                error.to_string().contains("the log is damaged"),
                "{harm}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn log_without_its_end_is_an_error() {
    let factory = SqliteFactory::new();
    let mut ann = Writer::claim(&factory.store, "a").await;
    ann.write(create("abc")).await;
    ann.write(insert("x")).await;
    ann.save(fold(&head(&factory.store, "a").await)).await;
    factory
        .raw_connection()
        .execute("DELETE FROM entries WHERE revision = 2", [])
        .unwrap();
    let error = factory
        .store
        .load(&doc("a"), LoadRange::Head)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("the log is damaged"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_appends_share_transactions() {
    let factory = Arc::new(SqliteFactory::new());
    let (documents, rounds) = (50, 20);
    let tasks: Vec<_> = (0..documents)
        .map(|at| {
            let factory = Arc::clone(&factory);
            tokio::spawn(async move {
                let mut writer = Writer::claim(&factory.store, &format!("d{at}")).await;
                writer.write(create("")).await;
                for _ in 1..rounds {
                    writer.write(insert("x")).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let counts = factory.store.counts();
    assert_eq!(counts.jobs, documents * (rounds + 1));
    assert!(counts.transactions < counts.jobs / 4, "{counts:?}");
    for at in 0..documents {
        assert_eq!(
            head(&factory.store, &format!("d{at}")).await.head,
            Revision(rounds)
        );
    }
}

#[tokio::test]
async fn write_ahead_log_is_reused() {
    let factory = SqliteFactory::new();
    let log = factory.folder.path().join("copydesk.db-wal");
    let size = || std::fs::metadata(&log).unwrap().len();
    assert_eq!(size(), 16 << 20);
    let mut ann = Writer::claim(&factory.store, "a").await;
    // Some 160 MiB.
    for at in 0..2_000 {
        ann.write(create(&noise(80_000, at))).await;
    }
    assert!(size() <= 80 << 20, "{}", size());
}

#[tokio::test]
async fn full_disk_acknowledges_nothing_and_recovers() {
    let factory = SqliteFactory::new();
    let mut ann = Writer::claim(&factory.store, "a").await;
    ann.write(create("")).await;
    factory.store.limit_size(0).await.unwrap();
    let mut written = 1;
    let refused = loop {
        let entry = ann.entry(create(&noise(20_000, written)));
        let batch = batch("a", ann.fence, vec![Arc::clone(&entry)]);
        match factory.store.append(vec![batch]).await {
            Ok(answer) => assert_eq!(answer, [Ok(())]),
            Err(error) => break (entry, error),
        }
        written += 1;
        assert!(written < 1_000, "the limit does nothing");
    };
    assert!(refused.1.to_string().contains("full"), "{}", refused.1);
    assert!(factory.store.check_writes().await.is_err());
    // Everything that was acknowledged can be read, and nothing that was rejected.
    let loaded = factory
        .store
        .load(&doc("a"), LoadRange::Since(Revision::ZERO))
        .await
        .unwrap();
    assert_eq!(loaded.entries.len() as u64, written);
    factory.store.limit_size(1 << 30).await.unwrap();
    factory.store.check_writes().await.unwrap();
    assert_eq!(ann.append(&[refused.0]).await, Ok(()));
    assert_eq!(head(&factory.store, "a").await.head, Revision(written + 1));
}

#[tokio::test]
async fn locked_database_is_an_error_until_it_is_free() {
    let factory = SqliteFactory::new();
    let mut ann = Writer::claim(&factory.store, "a").await;
    let raw = factory.raw_connection();
    raw.execute_batch("BEGIN IMMEDIATE").unwrap();
    let entry = ann.entry(create(""));
    let stuck = batch("a", ann.fence, vec![Arc::clone(&entry)]);
    assert!(factory.store.append(vec![stuck]).await.is_err());
    assert_eq!(factory.store.counts().failures, 1);
    raw.execute_batch("COMMIT").unwrap();
    assert_eq!(ann.append(&[entry]).await, Ok(()));
}

#[tokio::test]
async fn folder_serves_one_process_at_a_time() {
    let factory = SqliteFactory::new();
    let folder = factory.folder.path();
    let error = SqliteStore::open(&settings(folder)).unwrap_err();
    let expected = format!(
        "open: another process uses the data folder {}",
        folder.display()
    );
    assert_eq!(error.to_string(), expected);
    factory.store.close().await.unwrap();
    open(folder);
}

#[tokio::test]
async fn closed_store_returns_errors() {
    let factory = SqliteFactory::new();
    let mut ann = Writer::claim(&factory.store, "a").await;
    factory.store.close().await.unwrap();
    let batch = batch("a", ann.fence, vec![ann.entry(create(""))]);
    let error = factory.store.append(vec![batch]).await.unwrap_err();
    assert_eq!(error.to_string(), "append: the store is closed");
    let error = factory
        .store
        .load(&doc("a"), LoadRange::Head)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "load: the store is closed");
    factory.store.close().await.unwrap();
    // All data is in one file, which can be copied. The reserve has space for a start on a full disk; the history file
    // reveals at a start that a backup was restored.
    let files = std::fs::read_dir(factory.folder.path()).unwrap();
    let mut names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
    names.sort();
    let expected = [
        "copydesk.db",
        "copydesk.history",
        "copydesk.lock",
        "copydesk.reserve",
    ];
    assert_eq!(names, expected);
}

#[test]
fn foreign_or_damaged_database_is_rejected() {
    let check = |prepare: &dyn Fn(&Path), expected: &str| {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("copydesk.db");
        prepare(&file);
        let before = std::fs::read(&file).ok();
        let error = SqliteStore::open(&settings(folder.path()))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains(&*folder.path().to_string_lossy()), "{error}");
        assert_eq!(std::fs::read(&file).ok(), before, "it was changed");
    };
    check(
        &|file| std::fs::write(file, [b'x'; 5_000]).unwrap(),
        "is not a database",
    );
    check(
        &|file| {
            let db = Connection::open(file).unwrap();
            db.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE cats (name)")
                .unwrap();
        },
        "another program's database",
    );
    check(
        &|file| {
            open(file.parent().unwrap());
            let db = Connection::open(file).unwrap();
            db.execute_batch("PRAGMA user_version = 1000").unwrap();
        },
        "has version 1000",
    );
    check(
        &|file| {
            open(file.parent().unwrap());
            newer_folder(file, 999);
        },
        "has version 1000",
    );
}

/// Marks the database of a folder as one of a newer program; its changes work with programs from a version on.
fn newer_folder(file: &Path, works_with: i32) {
    let db = Connection::open(file).unwrap();
    db.execute_batch("PRAGMA user_version = 1000").unwrap();
    let note = "INSERT INTO copydesk_versions (version, works_with) VALUES (1000, ?1)";
    db.execute(note, [works_with]).unwrap();
}

#[test]
fn folder_of_a_newer_program_is_opened_if_its_changes_work_with_this_one() {
    let folder = TempDir::new().unwrap();
    open(folder.path());
    let known = SqliteStore::migration_status(folder.path()).unwrap();
    assert!(known.pending.is_empty());
    newer_folder(
        &folder.path().join("copydesk.db"),
        *known.applied.last().unwrap(),
    );
    open(folder.path());
}

#[test]
fn error_names_a_folder_that_cannot_be_created() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = SqliteStore::open(&settings(&file.join("data"))).unwrap_err();
    assert!(
        error.to_string().starts_with("open: make the data folder"),
        "{error}"
    );
}

#[test]
fn settings_are_read() {
    let read = toml::from_str::<SqliteSettings>;
    let some = SqliteSettings {
        size_max_mib: 5,
        ..SqliteSettings::default()
    };
    assert_eq!(read("size_max_mib = 5"), Ok(some));
    assert!(read("size = 5").is_err());
}

/// Repeatedly kills a process in the middle of its appends.
#[test]
fn acknowledged_appends_survive_a_kill() {
    let folder = TempDir::new().unwrap();
    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "appends_until_it_is_killed",
                "--ignored",
                "--nocapture",
            ])
            .env("STORE_FOLDER", folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut hear = |line: Option<std::io::Result<String>>| {
            let line = line?.ok()?;
            if let Some((id, revision)) =
                line.strip_prefix("ack ").and_then(|it| it.split_once(' '))
            {
                acknowledged.insert(id.to_owned(), revision.parse().unwrap());
            }
            Some(())
        };
        for _ in 0..200 + 70 * round {
            hear(lines.next()).expect("the child goes on until it is killed");
        }
        assert!(
            SqliteStore::open(&settings(folder.path())).is_err(),
            "the child has the folder"
        );
        child.kill().unwrap();
        // Lines that were written before it was killed count.
        while hear(lines.next()).is_some() {}
        child.wait().unwrap();
        check_log(folder.path(), &acknowledged);
    }
}

fn check_log(folder: &Path, acknowledged: &BTreeMap<String, u64>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = open(folder);
        for (id, revision) in acknowledged {
            let loaded = head(&store, id).await;
            assert!(
                loaded.head.0 >= *revision,
                "{id}: {} < {revision}",
                loaded.head
            );
            assert_eq!(
                text(&fold(&loaded)).unwrap().len() as u64,
                loaded.head.0 - 1
            );
            assert_eq!(claim(&store, id).await.head, loaded.head);
        }
        store.close().await.unwrap();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a child of `acknowledged_appends_survive_a_kill`"]
async fn appends_until_it_is_killed() {
    let Some(folder) = std::env::var_os("STORE_FOLDER").map(PathBuf::from) else {
        return;
    };
    let store = Arc::new(open(&folder));
    let tasks: Vec<_> = (0..4)
        .map(|at| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let id = format!("d{at}");
                let mut writer = Writer::claim(&*store, &id).await;
                loop {
                    let empty = writer.head == Revision::ZERO;
                    writer
                        .write(if empty { create("") } else { insert("x") })
                        .await;
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "ack {id} {}", writer.head).unwrap();
                    out.flush().unwrap();
                }
            })
        })
        .collect();
    join_all(tasks).await;
}

fn flip_a_bit(factory: &SqliteFactory, table: &str, column: &str, revision: u64) {
    let db = factory.raw_connection();
    let at = format!("WHERE revision = {revision}");
    let read = format!("SELECT {column} FROM {table} {at}");
    let mut bytes: Vec<u8> = db.query_row(&read, [], |row| row.get(0)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    db.execute(&format!("UPDATE {table} SET {column} = ?1 {at}"), [bytes])
        .unwrap();
}

// ---- Measurements ----

/// `cargo test --release --test store measure -- --ignored --nocapture`, in `STORE_BENCH` or the folder for temporary
/// files. The speed of disks varies, so the measurements alternate and each is compared with the bare flushes of its
/// own round. On a busy machine only the CPU time is meaningful.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for a quiet machine"]
async fn measure() {
    let folder = std::env::var_os("STORE_BENCH").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(folder).unwrap();
    let shapes = [
        (1, 1),
        (1, 10),
        (1, 50),
        (1, 100),
        (1, 1_000),
        (10, 1),
        (50, 1),
        (100, 1),
        (1_000, 1),
    ];
    let mut stores: Vec<(&str, Box<dyn Store>)> = vec![("sqlite", Box::new(open(folder.path())))];
    let server = servers::postgres::OwnServer::start(&[]);
    if let Some(server) = &server {
        let store = open_shared(&server.url(), ME).await;
        stores.push(("postgres", Box::new(store)));
    }
    let mut writers = Vec::new();
    for (_, store) in &stores {
        let mut documents = Vec::new();
        for at in 0..1_000 {
            documents.push(Writer::claim(&**store, &format!("d{at}")).await);
        }
        for chunk in documents.chunks_mut(100) {
            append_all(chunk, 1, &create("")).await;
        }
        writers.push(documents);
    }
    let mut figures: BTreeMap<String, Vec<[f64; 3]>> = BTreeMap::new();
    for _ in 0..9 {
        for (documents, entries) in shapes {
            for (at, (name, _)) in stores.iter().enumerate() {
                let flushes = flushes_per_second(folder.path());
                let before = cpu_us();
                let (count, seconds) =
                    append_for_a_while(&mut writers[at], documents, entries).await;
                let cpu = (cpu_us() - before) / count;
                let shape = format!("{documents:5} documents x {entries:5} entries, {name}");
                let turn = [count / seconds, count / seconds / flushes, cpu];
                figures.entry(shape).or_default().push(turn);
            }
        }
    }
    for (shape, turns) in figures {
        let [rate, ratio, cpu] = [0, 1, 2].map(|column| {
            let mut values: Vec<f64> = turns.iter().map(|turn| turn[column]).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        });
        println!(
            "{shape}: {rate:8.0} entries/s, {ratio:6.2} a bare flush, {cpu:6.1} µs of processor each"
        );
    }
}

/// The CPU time of all threads of this process, in microseconds.
fn cpu_us() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let spent = tasks.filter_map(|task| {
        let stat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<f64>().ok()
    });
    spent.sum::<f64>() / 1e3
}

fn flushes_per_second(folder: &Path) -> f64 {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create(folder.join("flush")).unwrap();
    file.write_all_at(&vec![0; 4 << 20], 0).unwrap();
    file.sync_all().unwrap();
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_millis(200) {
        file.write_all_at(&[count as u8; 4_096], (count % 1_024) * 4_096)
            .unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    count as f64 / start.elapsed().as_secs_f64()
}

/// Appends to this many documents at a time. Returns how many entries were appended, in how many seconds.
async fn append_for_a_while(
    writers: &mut [Writer<'_>],
    documents: usize,
    entries: usize,
) -> (f64, f64) {
    let change = insert("some words of a text");
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_millis(200) {
        append_all(&mut writers[..documents], entries, &change).await;
        writers.rotate_left(documents % 1_000);
        count += documents * entries;
    }
    (count as f64, start.elapsed().as_secs_f64())
}

async fn append_all(writers: &mut [Writer<'_>], count: usize, change: &Change) {
    let store = writers[0].store;
    let batches = writers.iter_mut().map(|writer| {
        let entries = (0..count).map(|_| writer.entry(change.clone())).collect();
        Batch {
            doc: writer.doc.clone(),
            fence: writer.fence,
            entries,
        }
    });
    let answer = store.append(batches.collect()).await.unwrap();
    assert!(answer.iter().all(Result::is_ok), "{answer:?}");
}

// ---- Helpers ----

/// The holder of a claim.
struct Writer<'a> {
    store: &'a dyn Store,
    doc: DocId,
    fence: Fence,
    /// The revision before the next entry.
    head: Revision,
}

impl<'a> Writer<'a> {
    async fn claim(store: &'a dyn Store, id: &str) -> Self {
        let Lease { fence, head } = claim(store, id).await;
        Self {
            store,
            doc: doc(id),
            fence,
            head,
        }
    }

    /// The next entry, for an append.
    fn entry(&mut self, change: Change) -> Arc<Entry> {
        self.head = self.head.next();
        let entry = Entry::clone(&entry(self.head.0, self.head.0, change));
        Arc::new(Entry {
            epoch: self.fence.epoch,
            ..entry
        })
    }

    async fn append(&self, entries: &[Arc<Entry>]) -> Result<(), AppendError> {
        let batch = batch(self.doc.id.as_str(), self.fence, entries.to_vec());
        self.store.append(vec![batch]).await.unwrap()[0]
    }

    /// Appends one entry.
    async fn write(&mut self, change: Change) {
        let entry = self.entry(change);
        assert_eq!(self.append(&[entry]).await, Ok(()));
    }

    async fn save(&self, snapshot: Snapshot) {
        self.store
            .save_snapshot(&self.doc, self.fence, snapshot)
            .await
            .unwrap();
    }
}

fn doc(id: &str) -> DocId {
    DocId::parse("docs", id).unwrap()
}

fn query() -> ListQuery {
    ListQuery {
        collection: Name::parse("docs").unwrap(),
        limit: 100,
        after: None,
        title: None,
    }
}

fn batch(id: &str, fence: Fence, entries: Vec<Arc<Entry>>) -> Batch {
    Batch {
        doc: doc(id),
        fence,
        entries,
    }
}

fn entry(revision: u64, seq: u64, change: Change) -> Arc<Entry> {
    let at_ms = revision.saturating_add(2_000);
    let id = submit(seq);
    Arc::new(Entry {
        revision: Revision(revision),
        epoch: Epoch(1),
        id,
        at_ms,
        change,
    })
}

fn submit(seq: u64) -> SubmitId {
    let client = ClientId::parse("c0ffee00c0ffee00c0ffee00c0ffee00").unwrap();
    SubmitId {
        author: UserId::anyone(),
        client,
        seq,
    }
}

fn create(text: &str) -> Change {
    let json = serde_json::to_string(text).unwrap();
    Change::Create(Content::create(Kind::TextUnicode, Some(&json)).unwrap())
}

fn rich() -> Content {
    Content::create(Kind::RichText, Some(r#"[{"insert":"a\n"}]"#)).unwrap()
}

/// An insert at the beginning.
fn insert(text: &str) -> Change {
    let json = serde_json::to_string(&[text]).unwrap();
    Change::Edit(Op::parse(Kind::TextUnicode, &json).unwrap())
}

/// Text that does not compress.
fn noise(len: usize, seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'a' + (state % 26) as u8)
    };
    std::iter::repeat_with(next).take(len).collect()
}

async fn claim(store: &dyn Store, id: &str) -> Lease {
    store.claim(&doc(id), ME).await.unwrap()
}

async fn head(store: &dyn Store, id: &str) -> Loaded {
    store.load(&doc(id), LoadRange::Head).await.unwrap()
}

async fn described(store: &dyn Store, id: &str) -> Option<ListedDocument> {
    store.describe(&doc(id)).await.unwrap()
}

async fn list(store: &dyn Store, query: ListQuery) -> Vec<ListedDocument> {
    store.list(query).await.unwrap().documents
}

fn fold(loaded: &Loaded) -> Snapshot {
    let mut snapshot = loaded.snapshot.clone();
    for entry in &loaded.entries {
        snapshot.fold(entry).unwrap();
    }
    snapshot
}

fn text(snapshot: &Snapshot) -> Option<String> {
    let mut json = Vec::new();
    snapshot.content.as_ref()?.write_json(&mut json);
    Some(serde_json::from_slice(&json).unwrap())
}
