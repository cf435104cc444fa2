//! A document whose stored log is damaged: shown as it was before the damage, and saved by the owner that holds it whole.

use super::*;
use crate::doc::{ReadOnly, ReadOnlyCause};

const DAMAGED: &str = "Damaged";

impl Desk {
    /// The store answers what it was asked first: entry `entry` is damaged, what stands before it can be read.
    fn answer_damaged(&mut self, entry: u64) {
        let at = Revision(entry - 1);
        let action = self.asked.pop_front().expect("the store was asked");
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

    /// As often as the store is asked, the entry is damaged; time passes until nothing more is asked.
    fn settle_damaged(&mut self, entry: u64) {
        for _ in 0..20 {
            if !self.asked.is_empty() {
                self.answer_damaged(entry);
            } else if let Some(at) = self.document.timeout() {
                self.clock = self.clock.max(at);
                self.handle(Event::Timeout);
            }
        }
    }
}

#[test]
fn a_damaged_document_is_shown_as_it_was_and_not_changed() {
    let mut desk = Desk::of(6);
    desk.subscribe(1, None);
    desk.answer_damaged(4);
    assert_eq!(desk.sent(1), ["shown 3"]);
    // A claim meets the damage too: the submit is refused, and not tried for ever.
    for session in [1, 2] {
        desk.submit(session, edit("ann", session, 3));
        while !desk.asked.is_empty() {
            desk.answer_damaged(4);
        }
        assert_eq!(desk.sent(session), [DAMAGED]);
    }
    for (session, since, answer) in [
        (3, None, "shown 3"),
        (4, Some(3), "done"),
        (5, Some(2), DAMAGED),
        (6, Some(6), DAMAGED),
    ] {
        desk.subscribe(session, since);
        assert_eq!(desk.sent(session), [answer], "since {since:?}");
    }
    assert!(desk.asked.is_empty(), "the store is not asked again");
}

#[test]
fn nothing_is_shown_where_the_first_entry_is_damaged() {
    let mut desk = Desk::of(2);
    desk.subscribe(1, None);
    desk.answer_damaged(1);
    assert_eq!(desk.sent(1), [DAMAGED]);
}

#[test]
fn a_restored_document_is_served_again() {
    let mut desk = Desk::of(6);
    desk.submit(1, edit("ann", 1, 6));
    desk.answer_damaged(4);
    assert_eq!(desk.sent(1), [DAMAGED]);
    desk.clock += LOOK_AGAIN;
    desk.submit(1, edit("ann", 2, 6));
    desk.settle();
    assert_eq!(desk.sent(1), ["op 7"]);
}

#[test]
fn an_owner_saves_what_it_holds_when_the_log_below_is_damaged() {
    let mut desk = Desk::of(6);
    desk.submit(1, edit("ann", 1, 6));
    desk.settle();
    let save = |desk: &mut Desk| {
        let saves = desk
            .asked
            .iter()
            .filter(|it| matches!(it, Action::SaveSnapshot { .. }));
        let saves = saves.count();
        desk.asked.clear();
        saves
    };
    save(&mut desk);
    let told = || Event::PeerMessage {
        from: OTHER,
        message: PeerMessage::SaveSnapshot,
    };
    desk.handle(told());
    assert_eq!(save(&mut desk), 1);
    desk.handle(told());
    assert_eq!(save(&mut desk), 0, "once at each revision");
    // A submit that was made before the damaged entry finds out as well.
    desk.submit(2, edit("bob", 100, 1));
    desk.submit(1, edit("ann", 2, 7));
    desk.answer_damaged(4);
    desk.answer();
    assert_eq!(desk.sent(2), [DAMAGED]);
    assert_eq!(desk.sent(1)[1..], ["op 8"], "the document is written on");
    assert_eq!(save(&mut desk), 1);
}

#[test]
fn a_node_asks_the_owner_to_save_before_it_shows_an_old_state() {
    let mut desk = Desk::of(6);
    desk.handle(Event::OwnerChanged(OTHER));
    desk.subscribe(1, None);
    desk.answer_damaged(4);
    let to_owner = (OTHER, PeerMessage::SaveSnapshot);
    let is_asked = |(to, message): &(NodeId, PeerMessage)| {
        *to == to_owner.0 && matches!(message, PeerMessage::SaveSnapshot)
    };
    assert!(desk.messages.iter().any(is_asked), "{:?}", desk.messages);
    assert_eq!(desk.sent(1), NONE);
    // The owner has saved it.
    desk.wait(RETRY_FIRST);
    desk.answer_all();
    assert_eq!(desk.sent(1), ["shown 6"]);
}

#[test]
fn submits_are_left_to_an_owner_elsewhere() {
    let mut desk = Desk::of(6);
    desk.handle(Event::OwnerChanged(OTHER));
    desk.submit(1, edit("ann", 1, 6));
    desk.subscribe(2, None);
    desk.settle_damaged(4);
    assert_eq!(desk.sent(2), ["shown 3"], "nobody saved it");
    assert_eq!(desk.sent(1), NONE);
    desk.submit(3, edit("bob", 100, 6));
    assert_eq!(desk.sent(3), NONE);
    let message = PeerMessage::Reject {
        id: edit("bob", 100, 6).id,
        rejection: ReadOnlyCause::Damaged { entry: None }.rejection(None),
    };
    desk.handle(Event::PeerMessage {
        from: OTHER,
        message,
    });
    assert_eq!(desk.sent(3), [DAMAGED]);
    // The ring names this node: it is its own to refuse.
    desk.handle(Event::OwnerChanged(ME));
    while !desk.asked.is_empty() {
        desk.answer_damaged(4);
    }
    assert_eq!(desk.sent(1), [DAMAGED]);
}

#[test]
fn a_client_from_before_the_damage_is_refused() {
    let mut desk = Desk::of(6);
    desk.submit(9, edit("ann", 1, 6));
    desk.settle();
    desk.subscribe(1, 1);
    desk.answer_damaged(4);
    assert_eq!(desk.sent(1), [DAMAGED]);
    assert!(matches!(
        desk.asked.pop_front(),
        Some(Action::SaveSnapshot { .. })
    ));
    desk.subscribe(1, 6);
    desk.answer_all();
    assert_eq!(desk.sent(1), ["op 7", "done"]);
}

#[test]
fn a_gap_that_cannot_be_read_closes_the_sockets() {
    let mut desk = Desk::following(3);
    desk.append_elsewhere(4, 6);
    let told = desk.commits(6, 6);
    desk.handle(told);
    for _ in 0..20 {
        while !desk.asked.is_empty() {
            if matches!(desk.asked.front(), Some(Action::CloseSessions)) {
                assert!(desk.messages.iter().any(|(_, message)| {
                    matches!(message, PeerMessage::Subscribe { since } if *since == Revision(3))
                }));
                return;
            }
            desk.answer_damaged(5);
        }
        desk.wait(Duration::from_secs(2));
    }
    panic!("the sessions wait for ever");
}
