use super::*;
use crate::doc::rejection::RejectionReason;
use crate::id::{ClientId, UserId};
use crate::log::Epoch;
use crate::ot::{Content, Kind};

fn id(client: &str) -> SubmitId {
    SubmitId {
        author: UserId::anyone(),
        client: ClientId::parse(client).unwrap(),
        seq: 1,
    }
}

fn text(data: &str) -> Content {
    let json = serde_json::to_string(data).unwrap();
    Content::create(Kind::TextUnicode, Some(&json)).unwrap()
}

/// The document "ab" at revision 5.
fn head() -> Snapshot {
    Snapshot {
        revision: Revision(5),
        content: Some(text("ab")),
        ..Snapshot::default()
    }
}

fn rebase(base: Option<u64>, proposal: Proposal, head: &Snapshot) -> Rebase {
    let submit = Submit {
        id: id("ann"),
        base: base.map(Revision),
        proposal,
    };
    Rebase::new(NodeId(1), submit, head, &DocumentSettings::default()).unwrap()
}

/// The entry that leads to revision 5.
fn entry(change: Change) -> Arc<Entry> {
    Arc::new(Entry {
        revision: Revision(5),
        epoch: Epoch(1),
        id: id("bob"),
        at_ms: 0,
        change,
    })
}

fn edit(json: &str) -> Change {
    Change::Edit(Op::parse(Kind::TextUnicode, json).unwrap())
}

#[test]
fn each_pair_of_changes_has_its_outcome() {
    let create = || Proposal::Create(text("new"));
    let small = || Proposal::Edit(r#"["b"]"#.into());
    let large = || Proposal::Edit(format!(r#"["{}"]"#, "b".repeat(LARGE_OP_BYTES)).into());
    let (exists, deleted) = (RejectionReason::AlreadyExists, RejectionReason::Deleted);
    let created = || Change::Create(text("x"));
    let edited = || edit(r#"["a"]"#);
    let table = [
        (created(), create(), Some(exists)),
        (created(), small(), Some(exists)),
        (created(), large(), Some(exists)),
        (created(), Proposal::Delete, Some(exists)),
        (edited(), create(), Some(exists)),
        (edited(), small(), None),
        (edited(), large(), None),
        (edited(), Proposal::Delete, None),
        (Change::Delete, create(), Some(deleted)),
        (Change::Delete, small(), Some(deleted)),
        (Change::Delete, large(), Some(deleted)),
        (Change::Delete, Proposal::Delete, None),
        (Change::Nothing, create(), None),
        (Change::Nothing, small(), None),
        (Change::Nothing, Proposal::Delete, None),
    ];
    for (committed, proposal, expected) in table {
        let case = format!("{committed:?}, then {proposal:?}");
        let mut rebase = rebase(Some(4), proposal, &head());
        let found = match rebase.over(&entry(committed)) {
            ControlFlow::Continue(()) => None,
            ControlFlow::Break(RebaseEnd::Rejected(rejection)) => Some(rejection.reason),
            ControlFlow::Break(end) => panic!("{case}: {end:?}"),
        };
        assert_eq!(found, expected, "{case}");
        let at = if expected.is_none() { 5 } else { 4 };
        assert_eq!(rebase.at, Revision(at), "{case}");
    }
}

#[test]
fn an_edit_of_no_document_is_compared_and_not_parsed() {
    let nothing = Snapshot {
        content: None,
        ..head()
    };
    let mut rebase = rebase(Some(4), Proposal::Edit("not parsed".into()), &nothing);
    assert!(matches!(rebase.change, RebasedChange::Untyped));
    assert!(rebase.over(&entry(edit(r#"["a"]"#))).is_continue());
    let end = rebase.over(&entry(Change::Delete));
    assert!(matches!(end, ControlFlow::Break(RebaseEnd::Rejected(_))));
}

#[test]
fn a_transformed_op_is_left_of_the_committed_one() {
    let mut rebase = rebase(Some(4), Proposal::Edit(r#"[1,"A"]"#.into()), &head());
    assert!(rebase.over(&entry(edit(r#"[1,"B"]"#))).is_continue());
    let RebasedChange::Parsed(Change::Edit(op)) = &rebase.change else {
        panic!("{:?}", rebase.change);
    };
    assert_eq!(Change::Edit(op.clone()), edit(r#"[1,"A"]"#));
    assert!(matches!(rebase.newline, Newline::MayBeSecond));
}

#[test]
fn the_first_copy_ends_the_rebase_with_and_without_a_base() {
    for base in [Some(4), None] {
        let mut rebase = rebase(base, Proposal::Delete, &head());
        let copy = Arc::new(Entry {
            id: id("ann"),
            ..Entry::clone(&entry(Change::Delete))
        });
        let end = rebase.over(&copy);
        assert!(
            matches!(&end, ControlFlow::Break(RebaseEnd::Duplicate(found)) if *found == copy),
            "{base:?}: {end:?}"
        );
    }
}

#[test]
fn a_submit_without_a_base_starts_before_the_head_and_passes_every_change() {
    let mut rebase = rebase(None, Proposal::Create(text("new")), &head());
    assert_eq!((rebase.at, rebase.base), (Revision::ZERO, Revision(5)));
    for change in [Change::Create(text("x")), Change::Delete, Change::Nothing] {
        assert!(rebase.over(&entry(change)).is_continue());
    }
    assert_eq!(rebase.at, Revision(5));
}
