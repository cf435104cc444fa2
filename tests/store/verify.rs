//! Verification finds each kind of damage and reports nothing else.

use std::path::Path;
use std::process::{Command, Output};

use copydesk::store::{
    PostgresSettings, PostgresStore, SqliteStore, Store, VerifyEvent, VerifyRange, VerifyTotals,
};

use super::{Factory, PostgresFactory, SqliteFactory, Writer, create, fold, head, insert};

/// SQL that damages the database, for SQLite and for Postgres, and the faults that verification must report then.
type Case = (&'static str, &'static str, &'static [&'static str]);

const CASES: [Case; 11] = [
    ("SELECT 1", "SELECT 1", &[]),
    (
        "UPDATE entries SET seq = seq + 100 WHERE doc = 1 AND revision = 2",
        "UPDATE entries SET seq = seq + 100 WHERE doc = 1 AND revision = 2",
        &["docs/a: entry 2: its checksum does not match"],
    ),
    // One report for each damaged entry, regardless of the entries before it.
    (
        "UPDATE entries SET seq = seq + 100 WHERE doc = 1 AND revision IN (2, 4, 6)",
        "UPDATE entries SET seq = seq + 100 WHERE doc = 1 AND revision IN (2, 4, 6)",
        &[
            "docs/a: entry 2: its checksum does not match",
            "docs/a: entry 4: its checksum does not match",
            "docs/a: entry 6: its checksum does not match",
        ],
    ),
    (
        "DELETE FROM entries WHERE doc = 1 AND revision IN (2, 4, 5)",
        "DELETE FROM entries WHERE doc = 1 AND revision IN (2, 4, 5)",
        &[
            "docs/a: entry 2: it is missing",
            "docs/a: entries 4 to 5: they are missing",
        ],
    ),
    (
        "DELETE FROM entries WHERE doc = 1 AND revision > 4",
        "DELETE FROM entries WHERE doc = 1 AND revision > 4",
        &["docs/a: snapshot 5: the log ends at 4, before it"],
    ),
    (
        "UPDATE snapshots SET data = x'01' WHERE revision = 5",
        "UPDATE snapshots SET data = '\\x01' WHERE revision = 5",
        &["docs/a: snapshot 5: the checksum does not match"],
    ),
    // The checksum of an entry does not cover its document; only the replay shows that it belongs to another one.
    (
        "DELETE FROM entries WHERE doc = 1 AND revision = 4;
         UPDATE entries SET doc = 1 WHERE doc = 2 AND revision = 4",
        "DELETE FROM entries WHERE doc = 1 AND revision = 4;
         UPDATE entries SET doc = 1 WHERE doc = 2 AND revision = 4",
        &[
            "docs/a: snapshot 5: it differs from the replay of the log",
            "docs/b: entry 4: it is missing",
        ],
    ),
    (
        "UPDATE documents SET live = 0 WHERE number = 1",
        "UPDATE documents SET live = false WHERE number = 1",
        &["docs/a: it is marked live = false, and its log says otherwise"],
    ),
    (
        "UPDATE documents SET epoch = 0 WHERE number = 1",
        "UPDATE heads SET epoch = 0 WHERE doc = 1",
        &["docs/a: its fence has epoch 0, and its log epoch 1"],
    ),
    (
        "PRAGMA foreign_keys = off; DELETE FROM documents WHERE number = 1",
        "DELETE FROM heads WHERE doc = 1; DELETE FROM documents WHERE number = 1",
        &["document number 1: the row in documents is missing, entries or snapshots exist"],
    ),
    (
        "PRAGMA foreign_keys = off; DELETE FROM documents",
        "DELETE FROM heads; DELETE FROM documents",
        &[
            "document number 1: the row in documents is missing, entries or snapshots exist",
            "document number 2: the row in documents is missing, entries or snapshots exist",
        ],
    ),
];

/// Two documents of six entries each, `docs/a` with snapshots at 3 and 5.
async fn write_documents(store: &dyn Store) {
    for (id, text) in [("a", "x"), ("b", "y")] {
        let mut writer = Writer::claim(store, id).await;
        writer.write(create("abc")).await;
        for revision in 2..=6 {
            writer.write(insert(text)).await;
            if id == "a" && [3, 5].contains(&revision) {
                writer.save(fold(&head(store, id).await)).await;
            }
        }
    }
}

async fn verify_folder(folder: &Path, after: i64) -> (Vec<String>, VerifyTotals) {
    let mut damages = Vec::new();
    let mut report = |event| {
        if let VerifyEvent::Damage(damage) = event {
            damages.push(damage.to_string());
        }
    };
    let totals = SqliteStore::verify(folder, VerifyRange { after }, &mut report).await;
    (damages, totals.unwrap())
}

#[tokio::test]
async fn each_kind_of_damage_in_a_folder_is_reported() {
    for (harm, _, expected) in CASES {
        let factory = SqliteFactory::new();
        write_documents(factory.store()).await;
        factory.raw_connection().execute_batch(harm).unwrap();
        let (damages, totals) = verify_folder(factory.folder.path(), 0).await;
        assert_eq!(damages, expected, "{harm}");
        assert_eq!(totals.damages, expected.len() as u64, "{harm}");
    }
}

#[tokio::test]
async fn each_kind_of_damage_in_postgres_is_reported() {
    let missing_fence: Case = (
        "",
        "DELETE FROM heads WHERE doc = 2",
        &["docs/b: its row in heads is missing"],
    );
    for (_, harm, expected) in CASES.into_iter().chain([missing_fence]) {
        let Some(factory) = PostgresFactory::new().await else {
            return;
        };
        write_documents(factory.store()).await;
        factory
            .raw_connection()
            .await
            .batch_execute(harm)
            .await
            .unwrap();
        let settings = PostgresSettings {
            url: factory.url.clone(),
            ..PostgresSettings::default()
        };
        let mut damages = Vec::new();
        let mut report = |event| {
            if let VerifyEvent::Damage(damage) = event {
                damages.push(damage.to_string());
            }
        };
        let range = VerifyRange::default();
        let totals = PostgresStore::verify(&settings, range, &mut report).await;
        assert_eq!(totals.unwrap().damages, expected.len() as u64, "{harm}");
        assert_eq!(damages, expected, "{harm}");
    }
}

#[tokio::test]
async fn verification_counts_what_it_read_and_resumes() {
    let factory = SqliteFactory::new();
    write_documents(factory.store()).await;
    let (_, totals) = verify_folder(factory.folder.path(), 0).await;
    let counts = (totals.documents, totals.entries, totals.snapshots);
    assert_eq!(counts, (2, 12, 2));
    let harm = "UPDATE entries SET seq = seq + 100 WHERE revision = 2";
    factory.raw_connection().execute_batch(harm).unwrap();
    let (damages, totals) = verify_folder(factory.folder.path(), 1).await;
    assert_eq!(damages, ["docs/b: entry 2: its checksum does not match"]);
    assert_eq!(totals.documents, 1);
}

/// More documents than one page has, and a log that is longer than one page.
#[tokio::test]
async fn verification_continues_over_pages() {
    let factory = SqliteFactory::new();
    let mut writer = Writer::claim(factory.store(), "long").await;
    writer.write(create("")).await;
    let entries: Vec<_> = (0..5_000).map(|_| writer.entry(insert("x"))).collect();
    writer.append(&entries).await.unwrap();
    let raw = factory.raw_connection();
    raw
        .execute_batch(
            "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 2500)
             INSERT INTO documents (collection, id) SELECT 'docs', 'empty' || n FROM numbers;
             UPDATE entries SET seq = 9999 WHERE revision = 4900;",
        )
        .unwrap();
    let (damages, totals) = verify_folder(factory.folder.path(), 0).await;
    assert_eq!(
        damages,
        ["docs/long: entry 4900: its checksum does not match"]
    );
    assert_eq!((totals.documents, totals.entries), (2_501, 5_001));
}

#[tokio::test]
async fn exit_status_distinguishes_sound_damaged_and_unreadable() {
    let factory = SqliteFactory::new();
    write_documents(factory.store()).await;
    let folder = factory.folder.path();
    let sound = run(folder);
    assert_eq!(sound.status.code(), Some(0), "{sound:?}");
    let summary = "2 documents, 12 entries, 2 snapshots: 0 faults\n";
    assert_eq!(String::from_utf8_lossy(&sound.stdout), summary);
    let harm = "DELETE FROM entries WHERE doc = 1 AND revision = 2";
    factory.raw_connection().execute_batch(harm).unwrap();
    let damaged = run(folder);
    assert_eq!(damaged.status.code(), Some(1), "{damaged:?}");
    assert!(
        String::from_utf8_lossy(&damaged.stdout).starts_with("docs/a: entry 2: it is missing\n")
    );
    let unreadable = run(&folder.join("elsewhere"));
    assert_eq!(unreadable.status.code(), Some(2), "{unreadable:?}");
}

fn run(folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_copydesk"));
    command.arg("verify").arg("--data").arg(folder);
    command.output().unwrap()
}
