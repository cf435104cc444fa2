//! What a document does with the submits of other nodes, and the bounds of what it holds for them and for its sessions.

use super::*;

/// A node that is neither this one nor the owner.
const THIRD: NodeId = NodeId(3);

#[test]
fn a_session_has_few_submits_without_an_answer() {
    let settings = DocumentSettings {
        session_submits_max: 2,
        ..DocumentSettings::default()
    };
    let mut desk = Desk::of(1);
    desk.document = Document::new(ME, ME, settings);
    for seq in 1..=3 {
        desk.submit(1, edit("ann", seq, 1));
    }
    desk.submit(2, edit("bob", 1, 1));
    assert_eq!(desk.sent(1), ["Busy"], "the third");
    desk.settle();
    assert_eq!(desk.log(), ["maker/1", "ann/1", "bob/1", "ann/2"]);
}

#[test]
fn few_submits_of_other_nodes_wait_for_a_claim() {
    let mut document = Document::new(ME, ME, DocumentSettings::default());
    for seq in 0..=WAITING_MAX as u64 {
        let message = PeerMessage::Submit(edit("ann", seq, 0));
        document.handle(
            Event::PeerMessage {
                from: OTHER,
                message,
            },
            Now::default(),
        );
    }
    assert_eq!(document.waiting.len(), WAITING_MAX);
}

#[test]
fn a_forwarded_submit_is_not_forwarded_again() {
    let mut desk = Desk::of(2);
    // The ring of the node that sends it names this node; the ring of this node names another one.
    desk.handle(Event::OwnerChanged(OTHER));
    let message = PeerMessage::Submit(edit("ann", 1, 2));
    desk.handle(Event::PeerMessage {
        from: THIRD,
        message,
    });
    desk.answer_all();
    assert_eq!(desk.log(), ["maker/1", "bob/1", "ann/1"]);
    let to: Vec<_> = desk.messages.iter().map(|(to, _)| *to).collect();
    assert!(to.contains(&THIRD), "the sender is answered: {to:?}");
    let submits = |(_, message): &&(_, PeerMessage)| matches!(message, PeerMessage::Submit(_));
    assert_eq!(desk.messages.iter().filter(submits).count(), 0);
}

#[test]
fn a_claim_refuses_only_what_came_before_it() {
    let mut desk = Desk::of(2);
    desk.submit(1, edit("ann", 1, 2));
    let claims = |it: &Action| matches!(it, Action::Claim);
    let claim = desk.asked.iter().position(claims).expect("it claims");
    desk.asked.remove(claim);
    // The store has answered the claim with revision 2; the answer is on its way when another node claims and appends.
    let lease = now(desk.store.claim(&desk.doc, ME));
    let (head, entries) = desk.head();
    let mut tail = Tail::new(Revision::ZERO);
    entries.into_iter().for_each(|entry| tail.push(entry));
    desk.append_elsewhere(3, 4);
    let message = PeerMessage::Submit(edit("cat", 1, 4));
    desk.handle(Event::PeerMessage {
        from: OTHER,
        message,
    });
    desk.handle(Event::Claimed(Ok((lease.fence, head, tail))));
    desk.settle();
    let is_refusal =
        |(_, message): &(_, PeerMessage)| matches!(message, PeerMessage::Reject { .. });
    assert!(!desk.messages.iter().any(is_refusal), "{:?}", desk.messages);
    assert!(desk.log().contains(&"cat/1".to_owned()));
}
