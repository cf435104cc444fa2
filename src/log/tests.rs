use std::sync::Arc;

use super::*;
use crate::id::{ClientId, UserId};
use crate::ot::{Content, Kind, Op};

fn entry(revision: u64, change: Change) -> Entry {
    let client = ClientId::parse("ann").unwrap();
    let id = SubmitId {
        author: UserId::anyone(),
        client,
        seq: revision,
    };
    Entry {
        revision: Revision(revision),
        epoch: Epoch(1),
        id,
        at_ms: 7,
        change,
    }
}

fn text(data: &str) -> Content {
    Content::create(
        Kind::TextUnicode,
        Some(&serde_json::to_string(data).unwrap()),
    )
    .unwrap()
}

fn op(json: &str) -> Change {
    Change::Edit(Op::parse(Kind::TextUnicode, json).unwrap())
}

#[test]
fn snapshot_is_the_fold_of_its_entries() {
    let mut snapshot = Snapshot::default();
    snapshot
        .fold(&entry(1, Change::Create(text("a😀b"))))
        .unwrap();
    snapshot.fold(&entry(2, op(r#"[2,"x"]"#))).unwrap();
    assert_eq!(snapshot.content, Some(text("a😀xb")));
    assert!(matches!(
        snapshot.fold(&entry(4, Change::Nothing)),
        Err(FoldError::Gap { .. })
    ));
    assert!(matches!(
        snapshot.fold(&entry(3, op(r#"[9,"x"]"#))),
        Err(FoldError::Unfit(..))
    ));
    assert_eq!(snapshot.revision, Revision(2));
    let again = Snapshot::decode(Revision(2), &snapshot.encode()).unwrap();
    assert_eq!(again, snapshot);
    snapshot.fold(&entry(3, Change::Delete)).unwrap();
    assert_eq!(snapshot.content, None);
    assert_eq!(
        Snapshot::decode(Revision(3), &snapshot.encode()).unwrap(),
        snapshot
    );
    assert!(matches!(
        snapshot.fold(&entry(4, op("[]"))),
        Err(FoldError::Missing(_))
    ));
}

#[test]
fn changes_survive_the_store() {
    for change in [
        Change::Create(text("\u{0}\"\n")),
        Change::Create(Content::create(Kind::RichText, Some(r#"[{"insert":"a\n"}]"#)).unwrap()),
        op(r#"[1,"\n",{"d":2}]"#),
        Change::Delete,
        Change::Nothing,
    ] {
        assert_eq!(Change::decode(&change.encode()).unwrap(), change);
    }
    for bad in ["", "X", "T", "T{", "C{}", "C{\"type\":\"x\",\"data\":1}"] {
        assert!(Change::decode(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn tail_has_no_gap_and_forgets_the_oldest() {
    let mut tail = Tail::new(Revision(3));
    assert_eq!(tail.since(Revision(3)).map(|it| it.len()), Some(0));
    for revision in 4..=9 {
        tail.push(Arc::new(entry(revision, Change::Nothing)));
    }
    assert!(tail.since(Revision(2)).is_none());
    assert!(tail.since(Revision(10)).is_none());
    let mut gone = Vec::new();
    tail.trim(2, usize::MAX, |entry| gone.push(entry.revision.0));
    assert_eq!(gone, [4, 5, 6, 7]);
    assert_eq!(
        (tail.start(), tail.head(), tail.len()),
        (Revision(7), Revision(9), 2)
    );
    let since: Vec<u64> = tail
        .since(Revision(8))
        .unwrap()
        .map(|entry| entry.revision.0)
        .collect();
    assert_eq!(since, [9]);
    tail.trim(9, 0, |_| {});
    assert_eq!(tail.len(), 1);
}
