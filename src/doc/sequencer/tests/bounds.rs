//! The limits of a sequencer's queues.

use super::*;
use crate::doc::sequencer::duplicates::REJECTIONS_MAX;

#[test]
fn staged_bytes_are_bounded() {
    let mut owner = TestSequencer::with(DocumentSettings {
        staged_bytes_max: 1_000,
        staged_entries_max: 100,
        document_bytes_max: 10_000,
        ..settings()
    });
    owner.commit(submit("maker", 1, 0, Proposal::Create(text(""))));
    let long = format!(r#"["{}"]"#, "x".repeat(600));
    for client in ["ann", "bob", "cat"] {
        owner.submit(submit(client, 1, 1, edit(&long)));
    }
    owner.appended();
    owner.appended();
    assert_eq!(owner.take_output(), ["me: commits [2]", "me: commits [3]"]);
    // The third was dropped and not rejected. Sent again, it is committed.
    owner.submit(submit("cat", 1, 1, edit(&long)));
    owner.appended();
    assert_eq!(owner.take_output(), ["me: commits [4]"]);
}

#[test]
fn remembered_rejections_are_bounded() {
    let create = |seq| submit("ann", seq, 1, Proposal::Create(text("x")));
    let mut owner = TestSequencer::of("ab");
    let count = REJECTIONS_MAX as u64 + 1;
    for seq in 1..=count {
        owner.submit(create(seq));
    }
    let duplicates = &owner.sequencer.duplicates;
    let remembered: Vec<u64> = duplicates.rejections().map(|id| id.seq).collect();
    assert_eq!(remembered.len(), REJECTIONS_MAX);
    assert_eq!(remembered.first(), Some(&2));
    assert_eq!(remembered.last(), Some(&count));
}

#[test]
fn snapshot_is_saved_after_the_configured_bytes() {
    let saved = |snapshot_bytes, edits: u64| {
        let mut owner = TestSequencer::with(DocumentSettings {
            snapshot_bytes,
            document_bytes_max: 10_000,
            ..settings()
        });
        owner.commit(submit("maker", 1, 0, Proposal::Create(text(""))));
        let long = edit(&format!(r#"["{}"]"#, "x".repeat(300)));
        for seq in 1..=edits {
            owner.submit(submit("ann", seq, seq, long.clone()));
            owner.appended();
        }
        let said = owner.take_output();
        said.into_iter()
            .filter(|it| it.starts_with("save "))
            .collect::<Vec<_>>()
    };
    assert_eq!(saved(2_000, 3), NONE, "fewer bytes than configured");
    let saves = saved(2_000, 12);
    assert!((1..=3).contains(&saves.len()), "{saves:?}");
    assert_eq!(saved(1 << 20, 12), NONE);
}
