//! Damaged rows that claims and appends need: fences, and the names of documents.

use copydesk::store::{StoreErrorKind, VerifyEvent, VerifyRange};

use super::*;

const DAMAGED: StoreErrorKind = StoreErrorKind::Damaged { entry: None };

/// Writes an entry under each of three claims. Returns the fence of the last one.
async fn write_under_three_claims(store: &dyn Store, id: &str) -> Fence {
    let mut fence = None;
    for change in [create("abc"), insert("x"), insert("y")] {
        let mut writer = Writer::claim(store, id).await;
        writer.write(change).await;
        fence = Some(writer.fence);
    }
    fence.unwrap()
}

/// The epoch of the fence was set to 1, with the token of the third claim.
async fn check_fence_behind_the_log(store: &dyn Store, third: Fence) {
    let old = Fence {
        epoch: Epoch(1),
        ..third
    };
    let mut writer = Writer {
        store,
        doc: doc("a"),
        fence: old,
        head: Revision(3),
    };
    let entry = writer.entry(insert("z"));
    assert_eq!(writer.append(&[entry]).await, Err(AppendError::Fenced));
    for _ in 0..3 {
        let error = store.claim(&doc("a"), ME).await.unwrap_err();
        assert_eq!(error.kind, DAMAGED, "{error}");
    }
    // The document can be read, and others can be claimed.
    let loaded = head(store, "a").await;
    assert_eq!(text(&fold(&loaded)).as_deref(), Some("yxabc"));
    store.claim(&doc("b"), ME).await.unwrap();

    assert!(!store.restore_fence(&doc("b")).await.unwrap());
    assert!(!store.restore_fence(&doc("unknown")).await.unwrap());
    assert!(store.restore_fence(&doc("a")).await.unwrap());
    assert!(!store.restore_fence(&doc("a")).await.unwrap());
    let entry = writer.entry(insert("z"));
    assert_eq!(writer.append(&[entry]).await, Err(AppendError::Fenced));
    let lease = store.claim(&doc("a"), ME).await.unwrap();
    assert_eq!((lease.fence.epoch, lease.head), (Epoch(4), Revision(3)));
}

#[tokio::test]
async fn fence_with_an_epoch_before_the_log_is_refused_until_it_is_restored() {
    let factory = SqliteFactory::new();
    let fence = write_under_three_claims(factory.store(), "a").await;
    let harm = "UPDATE documents SET epoch = 1 WHERE id = 'a'";
    factory.raw_connection().execute_batch(harm).unwrap();
    check_fence_behind_the_log(factory.store(), fence).await;

    let Some(factory) = PostgresFactory::new().await else {
        return;
    };
    let fence = write_under_three_claims(factory.store(), "a").await;
    let raw = factory.raw_connection().await;
    raw.batch_execute("UPDATE heads SET epoch = 1")
        .await
        .unwrap();
    check_fence_behind_the_log(factory.store(), fence).await;
}

#[tokio::test]
async fn missing_fence_is_restored_and_old_fences_stay_void() {
    let Some(factory) = PostgresFactory::new().await else {
        return;
    };
    let store = factory.store();
    let fence = write_under_three_claims(store, "a").await;
    let raw = factory.raw_connection().await;
    raw.batch_execute("DELETE FROM heads").await.unwrap();
    assert!(store.restore_fence(&doc("a")).await.unwrap());
    let mut writer = Writer {
        store,
        doc: doc("a"),
        fence,
        head: Revision(3),
    };
    let entry = writer.entry(insert("z"));
    assert_eq!(writer.append(&[entry]).await, Err(AppendError::Fenced));
    let lease = store.claim(&doc("a"), ME).await.unwrap();
    assert_eq!((lease.fence.epoch, lease.head), (Epoch(4), Revision(3)));
}

/// A document that the process has used is not shown as a new one when its row is gone.
#[tokio::test]
async fn document_that_lost_its_row_is_not_created_again() {
    let Some(factory) = PostgresFactory::new().await else {
        return;
    };
    let mut writer = Writer::claim(factory.store(), "a").await;
    writer.write(create("abc")).await;
    let reader = open_shared(&factory.url, NodeId(8)).await;
    head(&reader, "a").await;
    let harm = "ALTER TABLE heads DROP CONSTRAINT heads_doc_fkey; DELETE FROM documents";
    let raw = factory.raw_connection().await;
    raw.batch_execute(harm).await.unwrap();

    let entry = writer.entry(insert("z"));
    assert_eq!(writer.append(&[entry]).await, Err(AppendError::Fenced));
    for store in [factory.store(), &reader as &dyn Store] {
        let error = store.claim(&doc("a"), ME).await.unwrap_err();
        assert_eq!(error.kind, DAMAGED, "{error}");
        for range in [
            LoadRange::Head,
            LoadRange::BeforeDamage,
            LoadRange::Since(Revision::ZERO),
            LoadRange::At(Revision(1)),
        ] {
            let error = store.load(&doc("a"), range).await.unwrap_err();
            assert_eq!(error.kind, DAMAGED, "{range:?}: {error}");
        }
        assert_eq!(head(store, "new").await.head, Revision::ZERO);
    }
    factory.store().claim(&doc("new"), ME).await.unwrap();
    assert_eq!(
        raw.query("SELECT id FROM documents", &[])
            .await
            .unwrap()
            .len(),
        1,
        "no row was added for the lost document"
    );
}

#[tokio::test]
async fn epochs_that_fall_in_a_log_are_reported() {
    let factory = SqliteFactory::new();
    write_under_three_claims(factory.store(), "a").await;
    let mut writer = Writer::claim(factory.store(), "a").await;
    let entry = Entry {
        epoch: Epoch(2),
        ..Entry::clone(&writer.entry(insert("z")))
    };
    writer.append(&[Arc::new(entry)]).await.unwrap();
    let mut faults = Vec::new();
    let mut report = |event| {
        if let VerifyEvent::Damage(damage) = event {
            faults.push(damage.to_string());
        }
    };
    let (folder, range) = (factory.folder.path(), VerifyRange::default());
    SqliteStore::verify(folder, range, &mut report)
        .await
        .unwrap();
    assert_eq!(
        faults,
        ["docs/a: entry 4: its epoch is smaller than that of an entry before it"]
    );
}
