//! Readers while the store does not answer, and readers that name a revision which they know.

use super::*;

const AWAY: &str = "StoreUnavailable";
const NEWER: &str = "FutureRevision";

impl TestDocument {
    /// The store is known not to answer: the oldest request fails. Snapshots in memory are refolded.
    fn answer_away(&mut self) {
        let action = self.requests.pop_front().expect("the store was asked");
        let event = match action {
            Action::LoadSnapshot => Event::SnapshotEncoded(Err(StoreError::away("load"))),
            Action::LoadPage { requester, since } => {
                let page = Err(StoreError::away("load"));
                Event::PageLoaded {
                    requester,
                    since,
                    page,
                }
            }
            Action::RefoldSnapshot {
                snapshot: shown,
                entries,
            } => {
                let data = shown.content_json();
                let json = std::str::from_utf8(&data).unwrap();
                let mut snapshot = Snapshot {
                    revision: shown.revision,
                    content: Some(Content::create_logged(shown.kind.unwrap(), json).unwrap()),
                    ..Snapshot::default()
                };
                snapshot.fold_all(&entries).unwrap();
                Event::SnapshotRefolded(Some(Arc::new(encoded(&snapshot))))
            }
            other => panic!("not answered: {other:?}"),
        };
        self.handle(event);
    }

    fn read_from(&mut self, session: u64, min: u64, live: bool) {
        let min = Revision(min);
        let mode = if live {
            ReadMode::Subscribe
        } else {
            ReadMode::Fetch
        };
        self.ask(session, SessionRequest::ReadFrom { min, mode });
    }
}

#[test]
fn document_is_served_from_memory_during_an_outage() {
    // A document of another node, and one that this node owns.
    for owner in [OTHER, ME] {
        let mut test = TestDocument::of(3);
        test.handle(Event::OwnerChanged(owner));
        test.subscribe(9, None);
        test.answer_all();
        if owner == ME {
            test.submit(8, edit("ann", 1, 3));
            test.settle();
        } else {
            test.append_elsewhere(4, 4);
            let told = test.commits(3, 4);
            test.handle(told);
        }
        test.handle(Event::StoreUnavailable);
        if owner == ME {
            // The append is not answered: staged entries are not shown.
            test.submit(8, edit("ann", 2, 4));
        }
        let appends = test.requests.len();
        test.subscribe(1, None);
        test.fetch(2, None);
        let refold = test
            .requests
            .iter()
            .position(|it| matches!(it, Action::RefoldSnapshot { .. }));
        let refold = test
            .requests
            .remove(refold.expect("memory is used"))
            .unwrap();
        test.requests.push_front(refold);
        test.answer_away();
        for session in [1, 2] {
            assert_eq!(test.sent(session), ["shown 4"], "owner {owner}");
        }
        test.fetch(3, None);
        assert_eq!(test.sent(3), ["shown 4"], "it is kept for the next reader");
        test.subscribe(4, 2);
        assert_eq!(test.sent(4), ["op 3", "op 4", "done"]);
        let appended = test
            .requests
            .iter()
            .filter(|it| matches!(it, Action::Append { .. }));
        assert_eq!(appended.count(), appends);
    }
}

#[test]
fn new_readers_without_memory_are_rejected_during_an_outage() {
    let mut test = TestDocument::of(3);
    test.handle(Event::StoreUnavailable);
    test.subscribe(1, None);
    test.fetch(2, None);
    test.subscribe(3, 2);
    test.answer_away();
    assert_eq!(
        (test.sent(1), test.sent(2)),
        (vec![AWAY.to_owned()], vec![AWAY.to_owned()])
    );
    // A store without a server fails at once.
    test.wait(RETRY_FIRST);
    test.fetch(4, None);
    test.fail(false);
    assert_eq!(test.sent(4), [AWAY]);
    // A client that reconnects has the document and waits for the store.
    assert_eq!(test.sent(3), NONE);
    test.handle(Event::StoreAvailable);
    test.settle();
    assert_eq!(test.sent(3), ["op 3", "done"]);
    test.subscribe(1, None);
    test.settle();
    assert_eq!(test.sent(1), ["shown 3"]);
}

#[test]
fn owner_with_unanswered_append_rejects_new_readers_during_an_outage() {
    let mut test = TestDocument::of(3);
    test.submit(8, edit("ann", 1, 3));
    test.answer();
    assert!(matches!(test.requests.front(), Some(Action::Append { .. })));
    test.subscribe(1, None);
    test.handle(Event::StoreUnavailable);
    assert_eq!(test.sent(1), [AWAY]);
    test.subscribe(2, None);
    assert_eq!(test.sent(2), [AWAY]);
}

#[test]
fn read_returns_no_less_than_the_named_revision() {
    // A node that is told of commits, with a delay, and a node that is not.
    for is_told in [true, false] {
        let mut test = TestDocument::of(3);
        test.handle(Event::OwnerChanged(OTHER));
        if is_told {
            test.subscribe(9, None);
            test.answer_all();
        }
        test.append_elsewhere(4, 6);
        for (session, min, live, answer) in [
            (1, 6, false, vec!["shown 6"]),
            (2, 6, true, vec!["shown 6"]),
            (3, 0, false, vec!["shown 6"]),
            (4, 7, false, vec![NEWER]),
            (5, 1_000, true, vec![NEWER]),
        ] {
            test.read_from(session, min, live);
            test.answer_all();
            assert_eq!(test.sent(session), answer, "told {is_told}, from {min}");
        }
        assert_eq!(test.sent(1), NONE, "a fetch is no subscription");
        test.append_elsewhere(7, 7);
        let told = test.commits(6, 7);
        test.handle(told);
        assert_eq!(test.sent(2), ["op 7"]);
    }
}

#[test]
fn named_revision_beyond_memory_is_rejected_during_an_outage() {
    let mut test = TestDocument::following(3);
    test.append_elsewhere(4, 4);
    test.handle(Event::StoreUnavailable);
    test.read_from(2, 4, false);
    test.answer_away();
    assert_eq!(test.sent(2), [AWAY]);
    test.read_from(3, 3, false);
    while !test.requests.is_empty() {
        test.answer_away();
    }
    assert_eq!(test.sent(3), ["shown 3"]);
}
