//! `copydesk repair`, run on a data folder.

use std::process::Command;

use copydesk::node::{RepairMode, repair};
use tempfile::TempDir;

use super::*;

/// A folder with a document that expands to 2 GB: an older version accepted its second entry.
async fn oversized(doc: &DocId) -> TempDir {
    let folder = TempDir::new().unwrap();
    let store = sqlite(&folder);
    let runs: Vec<String> = (0..2_000)
        .map(|at| format!(r#"{{"insert":"a","attributes":{{"n":{}}}}}"#, at % 2))
        .collect();
    let content = Content::create(Kind::RichText, Some(&format!("[{}]", runs.join(","))));
    let edit = |json: &str| Change::Edit(Op::parse_logged(Kind::RichText, json).unwrap());
    let big = "x".repeat(1 << 20);
    let changes = [
        Change::Create(content.unwrap()),
        edit(&format!(
            r#"[{{"retain":2000,"attributes":{{"a":"{big}"}}}}]"#
        )),
        edit(r#"[{"retain":2000},{"insert":"the end"}]"#),
    ];
    let lease = store.claim(doc, ME).await.unwrap();
    let entries = (1..).zip(changes).map(|(revision, change)| {
        Arc::new(Entry {
            revision: Revision(revision),
            epoch: lease.fence.epoch,
            id: SubmitId {
                author: UserId::anyone(),
                client: ClientId::parse("ann").unwrap(),
                seq: revision,
            },
            at_ms: revision,
            change,
        })
    });
    let batch = Batch {
        doc: doc.clone(),
        fence: lease.fence,
        entries: entries.collect(),
    };
    store.append(vec![batch]).await.unwrap().remove(0).unwrap();
    store.close().await.unwrap();
    folder
}

fn sqlite(folder: &TempDir) -> SqliteStore {
    let settings = SqliteSettings {
        folder: folder.path().to_owned(),
        ..SqliteSettings::default()
    };
    SqliteStore::open(&settings).unwrap()
}

fn run(folder: &TempDir, extra: &[&str]) -> (bool, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_copydesk"))
        .args(["repair", "docs/a", "--data"])
        .arg(folder.path())
        .args(extra)
        .output()
        .unwrap();
    let said = [run.stdout, run.stderr].concat();
    (run.status.success(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn repair_recreates_an_oversized_document_and_keeps_its_text() {
    let doc = DocId::parse("docs", "a").unwrap();
    let folder = oversized(&doc).await;
    let (is_done, said) = run(&folder, &["--dry-run"]);
    assert!(is_done && said.contains("would be made anew"), "{said}");
    let (is_done, said) = run(&folder, &[]);
    assert!(is_done && said.contains("revisions 2\n"), "{said}");
    let (is_done, said) = run(&folder, &[]);
    assert!(is_done && said.contains("sound at revision 5"), "{said}");
    let store = sqlite(&folder);
    let saved = repair(&store, &doc, ME, RepairMode::DryRun).await.unwrap();
    assert!(saved.is_whole());
    assert!(
        saved
            .snapshot
            .content
            .unwrap()
            .to_text()
            .ends_with("aathe end")
    );
    // While the folder is in use, nothing is changed.
    let (is_done, said) = run(&folder, &[]);
    assert!(!is_done && !said.is_empty(), "{said}");
    store.close().await.unwrap();
}

/// Repairs `docs/a`, whose log was cut off at `head`, and checks that no revision up to `highest` is used again.
async fn check_repair_after(store: &dyn Store, head: u64, highest: u64) {
    let doc = DocId::parse("docs", "a").unwrap();
    let repaired = repair(store, &doc, ME, RepairMode::Write).await.unwrap();
    assert_eq!(repaired.left_out_from, Some(Revision(head + 1)));
    let since = LoadRange::Since(Revision(head));
    let entries = store.load(&doc, since).await.unwrap().entries;
    let changes: Vec<_> = entries
        .iter()
        .map(|it| (it.revision.0, &it.change))
        .collect();
    let (padding, anew) = changes.split_at((highest - head) as usize);
    let revisions: Vec<u64> = padding.iter().map(|(revision, _)| *revision).collect();
    assert_eq!(revisions, (head + 1..=highest).collect::<Vec<_>>());
    assert!(padding.iter().all(|(_, it)| **it == Change::Nothing));
    assert!(
        matches!(anew, [(deleted, Change::Delete), (_, Change::Create(_))] if *deleted == highest + 1),
        "{anew:?}"
    );
    let loaded = store.load(&doc, LoadRange::Head).await.unwrap();
    let written = format!("{}abc", "x".repeat(head as usize - 1));
    assert_eq!(text(&fold(&loaded)), Some(written));
    let again = repair(store, &doc, ME, RepairMode::Write).await.unwrap();
    assert!(again.is_whole());
}

async fn write_six(store: &dyn Store) {
    let mut writer = Writer::claim(store, "a").await;
    writer.write(create("abc")).await;
    for _ in 2..=6 {
        writer.write(insert("x")).await;
    }
}

/// Sets the time of the list to that of the last entry, and deletes the entries after `head`.
fn cut_off(head: u64) -> String {
    format!(
        "UPDATE documents SET updated_at_ms = (SELECT max(at_ms) FROM entries);
         DELETE FROM entries WHERE revision > {head}"
    )
}

#[tokio::test]
async fn repair_does_not_use_the_revisions_of_lost_entries_again() {
    let factory = SqliteFactory::new();
    write_six(factory.store()).await;
    factory.raw_connection().execute_batch(&cut_off(5)).unwrap();
    check_repair_after(factory.store(), 5, 6).await;

    // A damaged snapshot names a later revision than the list.
    let factory = SqliteFactory::new();
    write_six(factory.store()).await;
    let sql = format!(
        "{}; INSERT INTO snapshots (doc, revision, epoch, data) VALUES (1, 9, 1, x'01')",
        cut_off(5)
    );
    factory.raw_connection().execute_batch(&sql).unwrap();
    check_repair_after(factory.store(), 5, 9).await;

    // In Postgres the feed of changes names it, also if the list lags behind.
    for sql in [
        cut_off(3),
        "DELETE FROM entries WHERE revision > 3".to_owned(),
    ] {
        let Some(factory) = PostgresFactory::new().await else {
            return;
        };
        write_six(factory.store()).await;
        let raw = factory.raw_connection().await;
        raw.batch_execute(&sql).await.unwrap();
        check_repair_after(factory.store(), 3, 6).await;
    }
}
