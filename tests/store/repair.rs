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
