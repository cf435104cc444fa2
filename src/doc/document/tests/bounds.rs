//! Submits of other nodes, and the limits of a document's queues.

use super::*;
use crate::doc::document::waiting_submits::SUBMITS_MAX;

/// A node that is neither this one nor the owner.
const THIRD: NodeId = NodeId(3);

#[test]
fn pending_submits_of_a_session_are_bounded() {
    let settings = DocumentSettings {
        session_submits_max: 2,
        ..DocumentSettings::default()
    };
    let mut test = TestDocument::of(1);
    test.document = Document::new(ME, ME, settings);
    for seq in 1..=3 {
        test.submit(1, edit("ann", seq, 1));
    }
    test.submit(2, edit("bob", 1, 1));
    assert_eq!(test.sent(1), ["Busy"], "the third");
    test.settle();
    assert_eq!(test.log(), ["maker/1", "ann/1", "bob/1", "ann/2"]);
}

#[test]
fn submits_waiting_for_a_claim_are_bounded() {
    let mut document = Document::new(ME, ME, DocumentSettings::default());
    for seq in 0..=SUBMITS_MAX as u64 {
        let message = PeerMessage::Submit(edit("ann", seq, 0), None);
        document.handle(
            Event::PeerMessage {
                from: OTHER,
                message,
            },
            Now::default(),
        );
    }
    assert_eq!(document.waiting_submits.len(), SUBMITS_MAX);
}

#[test]
fn forwarded_submit_is_not_forwarded_again() {
    let mut test = TestDocument::of(2);
    // The sender's ring names this node; this node's ring names another one.
    test.handle(Event::OwnerChanged(OTHER));
    let message = PeerMessage::Submit(edit("ann", 1, 2), None);
    test.handle(Event::PeerMessage {
        from: THIRD,
        message,
    });
    test.answer_all();
    assert_eq!(test.log(), ["maker/1", "bob/1", "ann/1"]);
    let to: Vec<_> = test.messages.iter().map(|(to, _)| *to).collect();
    assert!(to.contains(&THIRD), "the sender is answered: {to:?}");
    let submits = |(_, message): &&(_, PeerMessage)| matches!(message, PeerMessage::Submit(..));
    assert_eq!(test.messages.iter().filter(submits).count(), 0);
}

#[test]
fn claim_rejects_only_submits_that_came_before_it() {
    let mut test = TestDocument::of(2);
    test.submit(1, edit("ann", 1, 2));
    let claims = |it: &Action| matches!(it, Action::Claim);
    let claim = test.requests.iter().position(claims).expect("it claims");
    test.requests.remove(claim);
    // While the answer to the claim, with revision 2, is on its way, another node claims and appends.
    let lease = now(test.store.claim(&test.doc, ME));
    let (head, entries) = test.head();
    let mut tail = Tail::new(Revision::ZERO);
    entries.into_iter().for_each(|entry| tail.push(entry));
    test.append_elsewhere(3, 4);
    let message = PeerMessage::Submit(edit("cat", 1, 4), None);
    test.handle(Event::PeerMessage {
        from: OTHER,
        message,
    });
    test.handle(Event::Claimed(Ok((lease.fence, head, tail))));
    test.settle();
    let is_refusal =
        |(_, message): &(_, PeerMessage)| matches!(message, PeerMessage::Reject { .. });
    assert!(!test.messages.iter().any(is_refusal), "{:?}", test.messages);
    assert!(test.log().contains(&"cat/1".to_owned()));
}
