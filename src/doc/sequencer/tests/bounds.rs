//! The bounds of what a sequencer holds.

use super::*;

#[test]
fn no_more_bytes_are_staged_than_allowed() {
    let mut owner = Owner::with(DocumentSettings {
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
    assert_eq!(owner.said(), ["me: commits [2]", "me: commits [3]"]);
    // The third was dropped and not refused: sent again, it is committed.
    owner.submit(submit("cat", 1, 1, edit(&long)));
    owner.appended();
    assert_eq!(owner.said(), ["me: commits [4]"]);
}

#[test]
fn only_the_newest_refusals_are_remembered() {
    let create = |seq| submit("ann", seq, 1, Proposal::Create(text("x")));
    let mut owner = Owner::of("ab");
    let count = REFUSED_MAX as u64 + 1;
    for seq in 1..=count {
        owner.submit(create(seq));
    }
    let remembered = &owner.sequencer.refused;
    assert_eq!(remembered.len(), REFUSED_MAX);
    assert_eq!(remembered.front().map(|(id, _)| id.seq), Some(2));
    assert_eq!(remembered.back().map(|(id, _)| id.seq), Some(count));
}

#[test]
fn a_snapshot_is_saved_after_so_many_bytes() {
    let saved = |snapshot_bytes, edits: u64| {
        let mut owner = Owner::with(DocumentSettings {
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
        let said = owner.said();
        said.into_iter()
            .filter(|it| it.starts_with("save "))
            .collect::<Vec<_>>()
    };
    assert_eq!(saved(2_000, 3), NONE, "fewer bytes than that");
    let saves = saved(2_000, 12);
    assert!((1..=3).contains(&saves.len()), "{saves:?}");
    assert_eq!(saved(1 << 20, 12), NONE);
}
