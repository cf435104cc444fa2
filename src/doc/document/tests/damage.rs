//! Documents with a damaged log: served as of the entry before the damage, and saved by an owner that holds them whole.

use super::*;
use crate::doc::document::damage::RELOAD_AFTER;
use crate::doc::{ReadOnly, ReadOnlyCause};

const DAMAGED: &str = "Damaged";

impl TestDocument {
    /// The store answers the oldest request: entry `entry` is damaged, and those before it can be read.
    fn answer_damaged(&mut self, entry: u64) {
        let at = Revision(entry - 1);
        let action = self.requests.pop_front().expect("the store was asked");
        let event = match action {
            Action::LoadSnapshot | Action::Claim => {
                let cause = ReadOnlyCause::Damaged {
                    entry: Some(Revision(entry)),
                };
                let (mut snapshot, entries) = (Snapshot::default(), self.head().1);
                let readable = entries.iter().take_while(|it| it.revision <= at);
                readable.for_each(|it| snapshot.fold(it).unwrap());
                let readable = snapshot.content.is_some();
                Event::ReadOnly(ReadOnly {
                    readable: readable.then(|| Arc::new(encoded(&snapshot))),
                    head: Revision(entries.len() as u64),
                    rejection: cause.rejection(readable.then_some(at)),
                    cause,
                })
            }
            Action::LoadPage { requester, since } => {
                let page = Err(StoreError::damaged("load", Some(Revision(entry)), "a test"));
                Event::PageLoaded {
                    requester,
                    since,
                    page,
                }
            }
            other => panic!("not answered: {other:?}"),
        };
        self.handle(event);
    }

    /// The store answers every request with the damaged entry, and time passes until no request is left.
    fn settle_damaged(&mut self, entry: u64) {
        for _ in 0..20 {
            if !self.requests.is_empty() {
                self.answer_damaged(entry);
            } else if let Some(at) = self.document.timeout() {
                self.clock = self.clock.max(at);
                self.handle(Event::Timeout);
            }
        }
    }
}

#[test]
fn damaged_document_is_read_only_as_of_the_damage() {
    let mut test = TestDocument::of(6);
    test.subscribe(1, None);
    test.answer_damaged(4);
    assert_eq!(test.sent(1), ["shown 3"]);
    // A claim finds the damage too: the submit is rejected and not retried.
    for session in [1, 2] {
        test.submit(session, edit("ann", session, 3));
        while !test.requests.is_empty() {
            test.answer_damaged(4);
        }
        assert_eq!(test.sent(session), [DAMAGED]);
    }
    for (session, since, answer) in [
        (3, None, "shown 3"),
        (4, Some(3), "done"),
        (5, Some(2), DAMAGED),
        (6, Some(6), DAMAGED),
    ] {
        test.subscribe(session, since);
        assert_eq!(test.sent(session), [answer], "since {since:?}");
    }
    assert!(test.requests.is_empty(), "the store is not asked again");
}

#[test]
fn document_with_a_damaged_first_entry_is_unreadable() {
    let mut test = TestDocument::of(2);
    test.subscribe(1, None);
    test.answer_damaged(1);
    assert_eq!(test.sent(1), [DAMAGED]);
}

#[test]
fn restored_document_is_served_again() {
    let mut test = TestDocument::of(6);
    test.submit(1, edit("ann", 1, 6));
    test.answer_damaged(4);
    assert_eq!(test.sent(1), [DAMAGED]);
    test.clock += RELOAD_AFTER;
    test.submit(1, edit("ann", 2, 6));
    test.settle();
    assert_eq!(test.sent(1), ["op 7"]);
}

#[test]
fn claim_refused_because_of_damage_rejects_submits_until_the_rows_are_restored() {
    let mut test = TestDocument::of(6);
    test.submit(1, edit("ann", 1, 6));
    assert!(matches!(test.requests.pop_front(), Some(Action::Claim)));
    let error = StoreError::damaged("claim", None, "the fence is missing");
    test.handle(Event::Claimed(Err(error)));
    assert_eq!(test.sent(1), [DAMAGED]);
    assert!(test.requests.is_empty(), "the claim is not repeated");
    test.clock += RELOAD_AFTER;
    test.submit(1, edit("ann", 2, 6));
    test.settle();
    assert_eq!(test.sent(1), ["op 7"]);
}

#[test]
fn owner_saves_a_snapshot_when_the_log_is_damaged() {
    let mut test = TestDocument::of(6);
    test.submit(1, edit("ann", 1, 6));
    test.settle();
    let save = |test: &mut TestDocument| {
        let saves = test
            .requests
            .iter()
            .filter(|it| matches!(it, Action::SaveSnapshot { .. }));
        let saves = saves.count();
        test.requests.clear();
        saves
    };
    save(&mut test);
    let told = || Event::PeerMessage {
        from: OTHER,
        message: PeerMessage::SaveSnapshot,
    };
    test.handle(told());
    assert_eq!(save(&mut test), 1);
    test.handle(told());
    assert_eq!(save(&mut test), 0, "once at each revision");
    // A submit with a base before the damaged entry is rejected as well.
    test.submit(2, edit("bob", 100, 1));
    test.submit(1, edit("ann", 2, 7));
    test.answer_damaged(4);
    test.answer();
    assert_eq!(test.sent(2), [DAMAGED]);
    assert_eq!(
        test.sent(1)[1..],
        ["op 8"],
        "the document can still be changed"
    );
    assert_eq!(save(&mut test), 1);
}

#[test]
fn follower_asks_the_owner_to_save_before_serving_read_only() {
    let mut test = TestDocument::of(6);
    test.handle(Event::OwnerChanged(OTHER));
    test.subscribe(1, None);
    test.answer_damaged(4);
    let to_owner = (OTHER, PeerMessage::SaveSnapshot);
    let is_asked = |(to, message): &(NodeId, PeerMessage)| {
        *to == to_owner.0 && matches!(message, PeerMessage::SaveSnapshot)
    };
    assert!(test.messages.iter().any(is_asked), "{:?}", test.messages);
    assert_eq!(test.sent(1), NONE);
    // The owner has saved a snapshot.
    test.wait(RETRY_FIRST);
    test.answer_all();
    assert_eq!(test.sent(1), ["shown 6"]);
}

#[test]
fn pending_submits_wait_for_an_owner_elsewhere() {
    let mut test = TestDocument::of(6);
    test.handle(Event::OwnerChanged(OTHER));
    test.submit(1, edit("ann", 1, 6));
    test.subscribe(2, None);
    test.settle_damaged(4);
    assert_eq!(test.sent(2), ["shown 3"], "no owner has saved it");
    assert_eq!(test.sent(1), NONE);
    test.submit(3, edit("bob", 100, 6));
    assert_eq!(test.sent(3), NONE);
    let message = PeerMessage::Reject {
        id: edit("bob", 100, 6).id,
        rejection: ReadOnlyCause::Damaged { entry: None }.rejection(None),
    };
    test.handle(Event::PeerMessage {
        from: OTHER,
        message,
    });
    assert_eq!(test.sent(3), [DAMAGED]);
    // The ring names this node, so that it rejects the submit itself.
    test.handle(Event::OwnerChanged(ME));
    while !test.requests.is_empty() {
        test.answer_damaged(4);
    }
    assert_eq!(test.sent(1), [DAMAGED]);
}

#[test]
fn client_from_before_the_damage_is_rejected() {
    let mut test = TestDocument::of(6);
    test.submit(9, edit("ann", 1, 6));
    test.settle();
    test.subscribe(1, 1);
    test.answer_damaged(4);
    assert_eq!(test.sent(1), [DAMAGED]);
    assert!(matches!(
        test.requests.pop_front(),
        Some(Action::SaveSnapshot { .. })
    ));
    test.subscribe(1, 6);
    test.answer_all();
    assert_eq!(test.sent(1), ["op 7", "done"]);
}

#[test]
fn unreadable_gap_closes_the_sessions() {
    let mut test = TestDocument::following(3);
    test.append_elsewhere(4, 6);
    let told = test.commits(6, 6);
    test.handle(told);
    for _ in 0..20 {
        while !test.requests.is_empty() {
            if matches!(test.requests.front(), Some(Action::CloseSessions)) {
                assert!(test.messages.iter().any(|(_, message)| {
                    matches!(message, PeerMessage::Subscribe { since } if *since == Revision(3))
                }));
                return;
            }
            test.answer_damaged(5);
        }
        test.wait(Duration::from_secs(2));
    }
    panic!("the sessions wait for ever");
}

/// The answer of the store to a load or a claim of a document in quarantine.
fn quarantined(test: &TestDocument) -> Event {
    let (snapshot, entries) = test.head();
    Event::ReadOnly(ReadOnly {
        readable: Some(Arc::new(encoded(&snapshot))),
        head: Revision(entries.len() as u64),
        rejection: ReadOnlyCause::Quarantined.rejection(None),
        cause: ReadOnlyCause::Quarantined,
    })
}

#[test]
fn document_in_quarantine_is_read_and_not_changed_until_it_is_released() {
    for owner in [ME, OTHER] {
        let mut test = TestDocument::of(6);
        test.handle(Event::OwnerChanged(owner));
        test.subscribe(1, None);
        let answer = quarantined(&test);
        test.requests.clear();
        test.handle(answer);
        assert_eq!(test.sent(1), ["shown 6"]);
        test.messages.clear();
        test.submit(2, edit("ann", 1, 6));
        assert_eq!(test.sent(2), ["Quarantined"]);
        for (session, since, answer) in [(3, Some(6), "done"), (4, Some(2), "Quarantined")] {
            test.subscribe(session, since);
            assert_eq!(test.sent(session), [answer], "since {since:?}");
        }
        assert!(test.messages.is_empty(), "no owner elsewhere is asked");
        assert!(test.requests.is_empty(), "the store is not asked again");
    }
    let mut test = TestDocument::of(6);
    test.subscribe(1, None);
    let answer = quarantined(&test);
    test.requests.clear();
    test.handle(answer);
    assert_eq!(test.sent(1), ["shown 6"]);
    test.clock += RELOAD_AFTER;
    test.submit(1, edit("ann", 2, 6));
    test.settle();
    assert_eq!(test.sent(1), ["op 7"], "it was released");
}

#[test]
fn owner_ends_when_its_document_is_in_quarantine() {
    let mut test = TestDocument::of(6);
    test.submit(1, edit("ann", 1, 6));
    test.settle();
    assert!(test.document.owned_epoch().is_some());
    let answer = quarantined(&test);
    test.handle(answer);
    assert_eq!(test.document.owned_epoch(), None);
    test.sent(2);
    test.submit(2, edit("bob", 100, 6));
    assert_eq!(test.sent(2), ["Quarantined"]);
}
