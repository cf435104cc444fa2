//! Dead letters and quarantine, on each store.

use copydesk::id::{ClientId, DocId, NodeId, UserId};
use copydesk::log::{Revision, SubmitId};
use copydesk::store::{
    DEAD_LETTERS_PAGE, DeadLetter, DeadLetterFilter, DeadLetterReason, FaultStore, PANIC_WINDOW_MS,
    PanicOutcome, PanicRecord, QUARANTINED_MAX, SqliteFaults, Store, StoredDeadLetter,
};

use super::{Factory, ME, SqliteFactory, doc};

const NOW_MS: u64 = 1_700_000_000_000;

fn letter(id: &str, at_ms: u64) -> DeadLetter {
    DeadLetter {
        reason: DeadLetterReason::Panic,
        detail: "index out of bounds: \0 'é'".to_owned(),
        doc: doc(id),
        submit: SubmitId {
            author: UserId::new("ann"),
            client: ClientId::parse("client-1").unwrap(),
            seq: u64::MAX,
        },
        base: None,
        head: Revision(7),
        node: NodeId(u64::MAX),
        node_name: "north".into(),
        at_ms,
        payload: "{\"op\":[\"\0é\"]}".to_owned(),
        payload_bytes: 90_000,
    }
}

fn all() -> DeadLetterFilter {
    DeadLetterFilter::default()
}

async fn list(store: &dyn Store, filter: DeadLetterFilter) -> Vec<DeadLetter> {
    let page = store.dead_letters(filter, None, usize::MAX).await.unwrap();
    page.into_iter().map(|it| it.letter).collect()
}

pub(super) async fn dead_letters_survive_a_restart(mut factory: impl Factory) {
    let mut refused = letter("b", NOW_MS + 1);
    refused.reason = DeadLetterReason::Refused;
    refused.base = Some(Revision(3));
    let letters = vec![letter("a", NOW_MS), refused];
    let store = factory.store();
    store.add_dead_letters(letters.clone()).await.unwrap();
    factory.reopen().await;
    let mut found = list(factory.store(), all()).await;
    found.reverse();
    assert_eq!(found, letters);
    assert!(found[0].is_cut());
    let sizes = factory.store().dead_letter_sizes().await.unwrap();
    assert_eq!(sizes.len(), 2);
    assert_eq!(sizes[0].doc, doc("a"));
    assert!(sizes[0].bytes > letters[0].payload.len() as u64);
}

pub(super) async fn dead_letter_that_is_written_again_is_stored_once(factory: impl Factory) {
    let store = factory.store();
    for _ in 0..2 {
        store
            .add_dead_letters(vec![letter("a", NOW_MS)])
            .await
            .unwrap();
    }
    assert_eq!(list(store, all()).await.len(), 1);
}

pub(super) async fn dead_letters_are_filtered_and_paged(factory: impl Factory) {
    let store = factory.store();
    let letters = (0..250).map(|at| letter(if at % 2 == 0 { "even" } else { "odd" }, NOW_MS + at));
    store.add_dead_letters(letters.collect()).await.unwrap();
    let mut pages: Vec<Vec<StoredDeadLetter>> = Vec::new();
    loop {
        let before = pages.last().and_then(|page| page.last()).map(|it| it.id);
        let page = store.dead_letters(all(), before, usize::MAX).await.unwrap();
        if page.is_empty() {
            break;
        }
        pages.push(page);
    }
    let lengths: Vec<_> = pages.iter().map(Vec::len).collect();
    assert_eq!(lengths, [DEAD_LETTERS_PAGE, DEAD_LETTERS_PAGE, 50]);
    let found: Vec<_> = pages.into_iter().flatten().collect();
    assert!(found.is_sorted_by(|a, b| a.id > b.id), "newest first");
    let newest = &found[0];
    assert_eq!(newest.letter.at_ms, NOW_MS + 249);

    let times = async |filter: DeadLetterFilter| {
        let found = list(store, filter).await;
        let times = found.into_iter().map(|it| it.at_ms - NOW_MS);
        times.collect::<Vec<_>>()
    };
    let of_odd = DeadLetterFilter {
        doc: Some(doc("odd")),
        from_ms: Some(NOW_MS + 100),
        until_ms: Some(NOW_MS + 105),
        ..all()
    };
    assert_eq!(times(of_odd).await, [103, 101]);
    let one = DeadLetterFilter {
        id: Some(newest.id),
        ..all()
    };
    assert_eq!(times(one).await, [249]);
    let unknown = DeadLetterFilter {
        doc: Some(doc("neither")),
        ..all()
    };
    assert_eq!(times(unknown).await, [0; 0]);
    assert_eq!(store.dead_letters(all(), None, 3).await.unwrap().len(), 3);
}

pub(super) async fn dead_letters_are_removed_by_number_and_by_filter(factory: impl Factory) {
    let store = factory.store();
    let letters = (0..6).map(|at| letter("a", NOW_MS + at)).collect();
    store.add_dead_letters(letters).await.unwrap();
    let sizes = store.dead_letter_sizes().await.unwrap();
    let two = vec![sizes[0].id, sizes[2].id];
    store.remove_dead_letters(two.clone()).await.unwrap();
    store.remove_dead_letters(two).await.unwrap();
    let early = DeadLetterFilter {
        until_ms: Some(NOW_MS + 4),
        ..all()
    };
    assert_eq!(store.purge_dead_letters(early.clone()).await.unwrap(), 2);
    assert_eq!(store.purge_dead_letters(early).await.unwrap(), 0);
    let left: Vec<_> = list(store, all()).await.iter().map(|it| it.at_ms).collect();
    assert_eq!(left, [NOW_MS + 5, NOW_MS + 4]);
    // The numbers of letters that were deleted are not used again.
    store.purge_dead_letters(all()).await.unwrap();
    store
        .add_dead_letters(vec![letter("a", NOW_MS)])
        .await
        .unwrap();
    let newest = store.dead_letter_sizes().await.unwrap()[0].id;
    assert!(newest > sizes[5].id, "{newest}");
}

fn panic(id: &str, at_ms: u64) -> PanicRecord {
    PanicRecord {
        doc: doc(id),
        node: ME,
        node_name: "north".into(),
        at_ms,
        is_repeated: false,
    }
}

async fn quarantined(store: &dyn Store) -> Vec<DocId> {
    let found = store.quarantined().await.unwrap();
    found.into_iter().map(|it| it.doc).collect()
}

pub(super) async fn second_panic_within_a_minute_puts_a_document_into_quarantine(
    factory: impl Factory,
) {
    use PanicOutcome::{Quarantined, Recorded};
    let store = factory.store();
    // (document, time, whether the node has seen another one, outcome)
    for (id, at_ms, is_repeated, expected) in [
        ("slow", NOW_MS, false, Recorded),
        ("slow", NOW_MS + PANIC_WINDOW_MS, false, Recorded),
        ("fast", NOW_MS, false, Recorded),
        ("other", NOW_MS + 1, false, Recorded),
        ("fast", NOW_MS + PANIC_WINDOW_MS - 1, false, Quarantined),
        ("fast", NOW_MS + 10 * PANIC_WINDOW_MS, false, Quarantined),
        // A clock that goes back.
        ("back", NOW_MS + 1, false, Recorded),
        ("back", NOW_MS, false, Quarantined),
        // The store did not answer the first record.
        ("repeated", NOW_MS, true, Quarantined),
    ] {
        let record = PanicRecord {
            is_repeated,
            ..panic(id, at_ms)
        };
        let outcome = store.record_panic(record).await.unwrap();
        assert_eq!(outcome, expected, "{id} {at_ms}");
    }
    let expected = ["back", "fast", "repeated"].map(doc);
    assert_eq!(quarantined(store).await, expected);
    let since = store.quarantined().await.unwrap()[1].since_ms;
    assert_eq!(since, NOW_MS + PANIC_WINDOW_MS - 1, "the first one");
}

pub(super) async fn panic_that_is_recorded_again_is_the_same_panic(factory: impl Factory) {
    let store = factory.store();
    for _ in 0..3 {
        let outcome = store.record_panic(panic("a", NOW_MS)).await.unwrap();
        assert_eq!(outcome, PanicOutcome::Recorded);
    }
    let elsewhere = PanicRecord {
        node: NodeId(8),
        ..panic("a", NOW_MS)
    };
    let outcome = store.record_panic(elsewhere).await.unwrap();
    assert_eq!(outcome, PanicOutcome::Quarantined);
}

pub(super) async fn quarantine_survives_a_restart_until_it_is_released(mut factory: impl Factory) {
    for id in ["a", "b"] {
        for at_ms in [NOW_MS, NOW_MS + 1] {
            let store = factory.store();
            store.record_panic(panic(id, at_ms)).await.unwrap();
        }
    }
    let once = panic("once", NOW_MS);
    factory.store().record_panic(once).await.unwrap();
    factory.reopen().await;
    let store = factory.store();
    assert_eq!(quarantined(store).await, ["a", "b"].map(doc));
    assert!(store.release_quarantine(&doc("a")).await.unwrap());
    for id in ["a", "once", "unknown"] {
        assert!(!store.release_quarantine(&doc(id)).await.unwrap(), "{id}");
    }
    assert_eq!(quarantined(store).await, [doc("b")]);
    // After a release the panics are counted anew.
    let outcome = store.record_panic(panic("a", NOW_MS + 2)).await.unwrap();
    assert_eq!(outcome, PanicOutcome::Recorded);
}

pub(super) async fn quarantine_is_bounded(factory: impl Factory) {
    let store = factory.store();
    let repeated = |at: usize| PanicRecord {
        is_repeated: true,
        ..panic(&format!("d{at:05}"), NOW_MS)
    };
    for at in 0..QUARANTINED_MAX {
        let outcome = store.record_panic(repeated(at)).await.unwrap();
        assert_eq!(outcome, PanicOutcome::Quarantined);
    }
    let outcome = store.record_panic(repeated(QUARANTINED_MAX)).await.unwrap();
    assert_eq!(outcome, PanicOutcome::Full);
    assert_eq!(quarantined(store).await.len(), QUARANTINED_MAX);
    let known = store.record_panic(panic("d00000", NOW_MS + 1)).await;
    assert_eq!(known.unwrap(), PanicOutcome::Quarantined);
}

#[tokio::test]
async fn faults_of_a_folder_are_read_and_written_beside_its_server() {
    let factory = SqliteFactory::new();
    let server = factory.store();
    server
        .add_dead_letters(vec![letter("a", NOW_MS)])
        .await
        .unwrap();
    for at_ms in [NOW_MS, NOW_MS + 1] {
        server.record_panic(panic("a", at_ms)).await.unwrap();
    }
    let beside = SqliteFaults::open(factory.folder.path()).unwrap();
    let found = beside.dead_letters(all(), None, 10).await.unwrap();
    assert_eq!(found[0].letter, letter("a", NOW_MS));
    assert_eq!(beside.dead_letter_sizes().await.unwrap().len(), 1);
    assert_eq!(beside.purge_dead_letters(all()).await.unwrap(), 1);
    assert_eq!(beside.quarantined().await.unwrap()[0].doc, doc("a"));
    assert!(beside.release_quarantine(&doc("a")).await.unwrap());
    drop(beside);
    assert_eq!(list(server, all()).await.len(), 0);
    assert_eq!(quarantined(server).await, [] as [DocId; 0]);
    server
        .add_dead_letters(vec![letter("b", NOW_MS)])
        .await
        .unwrap();
}

#[test]
fn folder_without_a_database_has_no_faults() {
    let folder = tempfile::TempDir::new().unwrap();
    let error = SqliteFaults::open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("no database"), "{error}");
}
