//! Loading damaged documents, in both stores.

use std::io::{Seek, SeekFrom};

use copydesk::store::{StoreError, StoreErrorKind};

use super::*;

/// The results of a load of the head and of a load before the damage.
#[derive(Debug, PartialEq)]
struct Found {
    /// The first damaged entry; `None` if the head can be loaded.
    damaged: Option<u64>,
    /// The revisions of the snapshot, the last entry and the head that can be read.
    readable: (u64, u64, u64),
}

/// SQL that damages a document, the first damaged entry, and what can be read then. `{d}` selects the document, `{x}`
/// is before bytes in hexadecimal.
///
/// The document has six entries and a snapshot at 3.
type Case = (&'static str, Option<u64>, (u64, u64, u64));

const SOUND: (u64, u64, u64) = (3, 6, 6);

const CASES: [Case; 17] = [
    ("SELECT 1", None, SOUND),
    (
        "UPDATE entries SET payload = {x}54 WHERE {d} AND revision = 5",
        Some(5),
        (3, 4, 6),
    ),
    (
        "UPDATE entries SET epoch = epoch + 1 WHERE {d} AND revision = 5",
        Some(5),
        (3, 4, 6),
    ),
    (
        "UPDATE entries SET author = {x}62 WHERE {d} AND revision = 5",
        Some(5),
        (3, 4, 6),
    ),
    (
        "UPDATE entries SET client = '' WHERE {d} AND revision = 5",
        Some(5),
        (3, 4, 6),
    ),
    (
        "UPDATE entries SET seq = seq + 8 WHERE {d} AND revision = 5",
        Some(5),
        (3, 4, 6),
    ),
    (
        "UPDATE entries SET at_ms = at_ms + 1 WHERE {d} AND revision = 5",
        Some(5),
        (3, 4, 6),
    ),
    (
        "UPDATE entries SET checksum = checksum - 1 WHERE {d} AND revision = 5",
        Some(5),
        (3, 4, 6),
    ),
    (
        "DELETE FROM entries WHERE {d} AND revision = 5",
        Some(5),
        (3, 4, 6),
    ),
    (
        "DELETE FROM entries WHERE {d} AND revision = 4",
        Some(4),
        (3, 3, 6),
    ),
    (
        "UPDATE entries SET seq = seq + 8 WHERE {d} AND revision = 4",
        Some(4),
        (3, 3, 6),
    ),
    // Before the newest readable snapshot: the present state is not affected.
    (
        "DELETE FROM entries WHERE {d} AND revision = 2",
        None,
        SOUND,
    ),
    ("DELETE FROM snapshots WHERE {d}", None, (0, 6, 6)),
    (
        "UPDATE snapshots SET data = {x}0101 WHERE {d}",
        None,
        (0, 6, 6),
    ),
    (
        "UPDATE snapshots SET data = {x}0101 WHERE {d}; DELETE FROM entries WHERE {d} AND revision = 2",
        Some(2),
        (0, 1, 6),
    ),
    // The log ends before a snapshot, which is the newest state.
    (
        "DELETE FROM entries WHERE {d} AND revision > 2",
        Some(3),
        (3, 3, 2),
    ),
    // The list has the time of the last entry.
    (
        "UPDATE documents SET updated_at_ms = (SELECT at_ms FROM entries WHERE {d} AND revision = 6)
         WHERE number = (SELECT min(doc) FROM entries WHERE {d});
         DELETE FROM entries WHERE {d} AND revision = 6",
        Some(6),
        (3, 5, 6),
    ),
];

/// The SQL of a case for the document of this number; `hex` writes bytes in the dialect.
fn damage_sql(sql: &str, number: usize, hex: fn(&str) -> String) -> String {
    let mut sql = sql.replace("{d}", &format!("doc = {number}"));
    for bytes in ["54", "62", "0101"] {
        sql = sql.replace(&format!("{{x}}{bytes}"), &hex(bytes));
    }
    sql
}

async fn write_document(store: &dyn Store, id: &str) {
    let mut writer = Writer::claim(store, id).await;
    writer.write(create("abc")).await;
    for revision in 2..=6 {
        writer.write(insert("x")).await;
        if revision == 3 {
            writer.save(fold(&head(store, id).await)).await;
        }
    }
}

fn damaged_entry(error: &StoreError) -> Option<Revision> {
    match error.kind {
        StoreErrorKind::Damaged { entry } => entry,
        kind => panic!("{kind:?}: {error}"),
    }
}

async fn load_head_and_before(store: &dyn Store, id: &str) -> Found {
    let damaged = match store.load(&doc(id), LoadRange::Head).await {
        Ok(_) => None,
        Err(error) => Some(damaged_entry(&error).expect("the entry is known").0),
    };
    let before = store.load(&doc(id), LoadRange::BeforeDamage).await.unwrap();
    let snapshot = before.snapshot.revision;
    let last = before.entries.last().map_or(snapshot, |it| it.revision);
    // The text that can be read is unchanged.
    let text = text(&fold(&before)).unwrap();
    assert_eq!(text, format!("{}abc", "x".repeat(last.0 as usize - 1)));
    Found {
        damaged,
        readable: (snapshot.0, last.0, before.head.0),
    }
}

#[tokio::test]
async fn entries_before_the_damage_are_read_from_a_folder() {
    let factory = SqliteFactory::new();
    for (number, (sql, damaged, readable)) in (1..).zip(CASES) {
        let id = number.to_string();
        write_document(factory.store(), &id).await;
        // An author is a text in SQLite.
        let sql = sql.replace("author = {x}62", "author = 'b'");
        let sql = damage_sql(&sql, number, |bytes| format!("x'{bytes}'"));
        factory.raw_connection().execute_batch(&sql).unwrap();
        let found = load_head_and_before(factory.store(), &id).await;
        assert_eq!(found, Found { damaged, readable }, "{sql}");
    }
}

#[tokio::test]
async fn entries_before_the_damage_are_read_from_postgres() {
    let Some(factory) = PostgresFactory::new().await else {
        return;
    };
    let raw = factory.raw_connection().await;
    for (number, (sql, damaged, readable)) in (1..).zip(CASES) {
        let id = number.to_string();
        write_document(factory.store(), &id).await;
        let sql = damage_sql(sql, number, |bytes| format!("'\\x{bytes}'"));
        raw.batch_execute(&sql).await.unwrap();
        let found = load_head_and_before(factory.store(), &id).await;
        assert_eq!(found, Found { damaged, readable }, "{sql}");
    }
}

#[tokio::test]
async fn load_of_an_earlier_revision_names_its_damaged_entry() {
    let factory = SqliteFactory::new();
    write_document(factory.store(), "a").await;
    let sql = "DELETE FROM entries WHERE doc = 1 AND revision = 2";
    factory.raw_connection().execute_batch(sql).unwrap();
    let store = factory.store();
    for reach in [LoadRange::At(Revision(2)), LoadRange::Since(Revision(1))] {
        let error = store.load(&doc("a"), reach).await.unwrap_err();
        assert_eq!(damaged_entry(&error), Some(Revision(2)), "{reach:?}");
    }
    for reach in [
        LoadRange::At(Revision(1)),
        LoadRange::At(Revision(4)),
        LoadRange::Since(Revision(2)),
    ] {
        store.load(&doc("a"), reach).await.unwrap();
    }
}

/// A page of SQLite's file is overwritten: the rows before it can be read.
#[tokio::test]
async fn rows_before_a_damaged_page_are_read() {
    const PAGE: usize = 1 << 12;
    const LEAF: u8 = 0x0a;
    let mut factory = SqliteFactory::new();
    let mut writer = Writer::claim(factory.store(), "a").await;
    writer.write(create("")).await;
    for at in 2..=100 {
        writer
            .write(insert(&format!("[{at}]{}", "x".repeat(300))))
            .await;
    }
    factory.store.close().await.unwrap();
    let path = factory.folder.path().join("copydesk.db");
    let bytes = std::fs::read(&path).unwrap();
    let page_of = |at: u64| {
        let mark = format!("[{at}]x");
        let place = bytes
            .windows(mark.len())
            .position(|it| it == mark.as_bytes());
        place.unwrap() / PAGE * PAGE
    };
    // Interior pages have rows too, and lead to all other rows.
    let damaged = (40..60).find(|at| bytes[page_of(*at)] == LEAF).unwrap();
    let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(page_of(damaged) as u64)).unwrap();
    file.write_all(&[0; PAGE]).unwrap();
    drop(file);
    factory.reopen().await;
    let store = factory.store();
    let error = store.load(&doc("a"), LoadRange::Head).await.unwrap_err();
    assert!(error.to_string().contains("malformed"), "{error}");
    assert_eq!(damaged_entry(&error), None);
    let before = store
        .load(&doc("a"), LoadRange::BeforeDamage)
        .await
        .unwrap();
    let read = before.entries.len() as u64;
    assert!(
        (20..damaged).contains(&read),
        "{read} entries, {damaged} is damaged"
    );
    assert_eq!(before.head, Revision(100));
}

/// Postgres fails a statement that reads a damaged page. Here a view does so for one entry.
#[tokio::test]
async fn rows_before_a_damaged_page_of_postgres_are_read() {
    let Some(factory) = PostgresFactory::new().await else {
        return;
    };
    write_document(factory.store(), "a").await;
    let harm = "
        ALTER TABLE entries RENAME TO sound_entries;
        CREATE FUNCTION unreadable(payload bytea) RETURNS bytea LANGUAGE plpgsql STABLE AS
          $$ BEGIN RAISE EXCEPTION 'invalid page in block 7' USING ERRCODE = 'data_corrupted'; END $$;
        CREATE VIEW entries AS
          SELECT doc, revision, epoch, author, client, seq, at_ms,
                 CASE WHEN revision = 5 THEN unreadable(payload) ELSE payload END AS payload, checksum
          FROM sound_entries";
    factory
        .raw_connection()
        .await
        .batch_execute(harm)
        .await
        .unwrap();
    // A store that has not prepared its statements for the table.
    let store = open_shared(&factory.url, NodeId(8)).await;
    let error = store.load(&doc("a"), LoadRange::Head).await.unwrap_err();
    assert_eq!(damaged_entry(&error), None, "{error}");
    let before = store
        .load(&doc("a"), LoadRange::BeforeDamage)
        .await
        .unwrap();
    let entries: Vec<u64> = before.entries.iter().map(|it| it.revision.0).collect();
    assert_eq!((before.snapshot.revision.0, entries), (3, vec![4]));
}

#[tokio::test]
async fn faults_of_one_document_are_found() {
    let factory = SqliteFactory::new();
    write_document(factory.store(), "a").await;
    let sql = "DELETE FROM entries WHERE doc = 1 AND revision = 5";
    factory.raw_connection().execute_batch(sql).unwrap();
    let folder = factory.folder.path();
    let faults = SqliteStore::verify_document(folder, &doc("a"))
        .await
        .unwrap();
    assert_eq!(faults, ["entry 5: it is missing"]);
    let faults = SqliteStore::verify_document(folder, &doc("b"))
        .await
        .unwrap();
    assert!(faults.is_empty(), "{faults:?}");
}

#[tokio::test]
async fn damaged_document_is_repaired_with_the_entries_before_the_damage() {
    use copydesk::node::{RepairMode, repair};
    let factory = SqliteFactory::new();
    write_document(factory.store(), "a").await;
    let sql = "UPDATE entries SET seq = seq + 8 WHERE doc = 1 AND revision = 5";
    factory.raw_connection().execute_batch(sql).unwrap();
    let repaired = repair(factory.store(), &doc("a"), ME, RepairMode::Write).await;
    assert_eq!(repaired.unwrap().left_out_from, Some(Revision(5)));
    let loaded = head(factory.store(), "a").await;
    assert_eq!(loaded.head, Revision(8));
    assert_eq!(text(&fold(&loaded)).as_deref(), Some("xxxabc"));
}

/// The checksum of an entry's row, as the stored format defines it.
fn row_checksum(entry: &Entry, payload: &[u8]) -> i64 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for number in [entry.revision.0, entry.epoch.0, entry.id.seq, entry.at_ms] {
        hash.update(&number.to_le_bytes());
    }
    for text in [entry.id.author.as_str(), entry.id.client.as_str()] {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hash.update(payload);
    hash.digest().cast_signed()
}

/// A payload that no version can decode, with its valid checksum, for entry 5 of a document that is written by
/// [`write_document`].
async fn undecodable(store: &dyn Store, id: &str) -> (&'static str, i64) {
    let loaded = head(store, id).await;
    let entry = loaded.entries.iter().find(|it| it.revision.0 == 5).unwrap();
    let payload = [0xff, 0xff, 0xff];
    assert!(Change::decode(&payload).is_err());
    ("ffffff", row_checksum(entry, &payload))
}

#[tokio::test]
async fn payload_that_cannot_be_decoded_is_damage_despite_its_checksum() {
    let expected = Found {
        damaged: Some(5),
        readable: (3, 4, 6),
    };
    let update = "UPDATE entries SET payload = {x}, checksum = {c} WHERE doc = 1 AND revision = 5";
    let factory = SqliteFactory::new();
    write_document(factory.store(), "a").await;
    let (bytes, checksum) = undecodable(factory.store(), "a").await;
    let sql = update.replace("{x}", &format!("x'{bytes}'"));
    let sql = sql.replace("{c}", &checksum.to_string());
    factory.raw_connection().execute_batch(&sql).unwrap();
    assert_eq!(load_head_and_before(factory.store(), "a").await, expected);
    let Some(factory) = PostgresFactory::new().await else {
        return;
    };
    write_document(factory.store(), "a").await;
    let (bytes, checksum) = undecodable(factory.store(), "a").await;
    let sql = update.replace("{x}", &format!("'\\x{bytes}'"));
    let sql = sql.replace("{c}", &checksum.to_string());
    factory
        .raw_connection()
        .await
        .batch_execute(&sql)
        .await
        .unwrap();
    assert_eq!(load_head_and_before(factory.store(), "a").await, expected);
}

/// Without its row in `documents`, the entries of a document must not become those of the next new document.
#[tokio::test]
async fn number_of_a_lost_document_is_not_assigned_again() {
    let mut factory = SqliteFactory::new();
    write_document(factory.store(), "a").await;
    let sql = "PRAGMA foreign_keys = off; DELETE FROM documents WHERE number = 1";
    factory.raw_connection().execute_batch(sql).unwrap();
    factory.reopen().await;
    let claimed = Writer::claim(factory.store(), "b").await;
    assert_eq!(claimed.head, Revision::ZERO);
    assert_eq!(head(factory.store(), "b").await.head, Revision::ZERO);
    let number = "SELECT number FROM documents WHERE id = 'b'";
    let number: i64 = factory
        .raw_connection()
        .query_row(number, [], |row| row.get(0))
        .unwrap();
    assert_eq!(number, 2);
}

#[tokio::test]
async fn claim_of_a_document_without_its_fence_reports_damage() {
    let Some(factory) = PostgresFactory::new().await else {
        return;
    };
    write_document(factory.store(), "a").await;
    let raw = factory.raw_connection().await;
    raw.batch_execute("DELETE FROM heads").await.unwrap();
    let error = factory.store().claim(&doc("a"), ME).await.unwrap_err();
    assert_eq!(
        error.kind,
        StoreErrorKind::Damaged { entry: None },
        "{error}"
    );
    // The document can be read, and others can be claimed.
    assert_eq!(head(factory.store(), "a").await.head, Revision(6));
    factory.store().claim(&doc("b"), ME).await.unwrap();
}
