//! Nodes of which one has entries that the store has lost.

use super::*;
use crate::doc::Contradiction;
use crate::log::Epoch;

fn diverged(test: &mut TestDocument) -> Option<(NodeId, Revision)> {
    let found = test
        .messages
        .iter()
        .find_map(|(to, message)| match message {
            PeerMessage::Diverged { revision } => Some((*to, *revision)),
            _ => None,
        });
    test.messages.clear();
    found
}

/// The revision of the entry that the document has and that another one contradicts.
fn contradicted(test: &mut TestDocument) -> Option<u64> {
    match test.document.take_contradiction()? {
        Contradiction::EntryDiffers(mine) => Some(mine.revision.0),
        Contradiction::LogIsShorter => panic!("the log has all revisions"),
    }
}

fn forwarded(submit: Submit, fingerprint: u64) -> Event {
    Event::PeerMessage {
        from: OTHER,
        message: PeerMessage::Submit(submit, Some(fingerprint)),
    }
}

#[test]
fn submit_on_another_entry_than_the_owners_is_not_sequenced() {
    let mut test = TestDocument::of(6);
    let (_, entries) = test.head();
    let fingerprint = entries[5].fingerprint();
    // It waits for the claim first, and is sent to an owner then.
    for _ in 0..2 {
        test.handle(forwarded(edit("bob", 100, 6), fingerprint ^ 1));
        test.settle();
        assert_eq!(diverged(&mut test), Some((OTHER, Revision(6))));
        assert_eq!(contradicted(&mut test), Some(6));
        assert_eq!(test.log().len(), 6);
    }
    test.handle(forwarded(edit("bob", 100, 6), fingerprint));
    test.settle();
    assert_eq!(diverged(&mut test), None);
    assert_eq!(contradicted(&mut test), None);
    assert_eq!(test.log().len(), 7);
    // A copy of a submit is compared as well: its answer would be of the other history.
    test.handle(forwarded(edit("bob", 100, 6), fingerprint ^ 1));
    assert_eq!(diverged(&mut test), Some((OTHER, Revision(6))));
}

#[test]
fn submit_on_an_entry_that_is_not_in_memory_is_sequenced() {
    let mut test = TestDocument::of(6);
    for (seq, base) in [(100, None), (101, Some(1)), (102, Some(9))] {
        test.handle(forwarded(edit("bob", seq, base), 1));
        test.settle();
        assert_eq!(diverged(&mut test), None, "{base:?}");
    }
    assert_eq!(contradicted(&mut test), None);
    assert_eq!(test.log().len(), 8);
}

#[test]
fn forwarder_names_the_entry_at_the_base_and_keeps_a_diverged_submit() {
    let mut test = TestDocument::following(3);
    test.handle(test.commits(0, 3));
    let expected = test.head().1[2].fingerprint();
    test.messages.clear();
    test.submit(1, edit("ann", 1, 3));
    let named = |test: &TestDocument| match &test.messages[..] {
        [(OTHER, PeerMessage::Submit(_, fingerprint))] => *fingerprint,
        other => panic!("{other:?}"),
    };
    assert_eq!(named(&test), Some(expected));
    test.sent(1);
    test.handle(Event::PeerMessage {
        from: OTHER,
        message: PeerMessage::Diverged {
            revision: Revision(3),
        },
    });
    assert_eq!(contradicted(&mut test), Some(3));
    assert_eq!(test.sent(1), NONE);
    test.messages.clear();
    test.wait(Duration::from_secs(5));
    assert_eq!(named(&test), Some(expected), "it is sent again");
}

#[test]
fn commit_that_differs_from_a_delivered_one_is_noticed() {
    let mut test = TestDocument::following(3);
    test.handle(test.commits(0, 3));
    test.handle(test.commits(0, 3));
    assert_eq!(contradicted(&mut test), None);
    let other = Entry {
        epoch: Epoch(77),
        ..Entry::clone(&test.head().1[1])
    };
    test.handle(Event::PeerMessage {
        from: OTHER,
        message: PeerMessage::Commits {
            head: Revision(3),
            entries: vec![Arc::new(other)],
        },
    });
    assert_eq!(contradicted(&mut test), Some(2));
}
