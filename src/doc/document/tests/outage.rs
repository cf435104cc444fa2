//! Readers while the store is away, and readers who name a revision that they know.

use super::*;
use crate::log::Snapshot;

const AWAY: &str = "StoreUnavailable";
const NEWER: &str = "FutureRevision";

impl Desk {
    /// The store is known to be away: what it was asked first is not answered. Snapshots in memory are refolded.
    fn answer_away(&mut self) {
        let action = self.asked.pop_front().expect("the store was asked");
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
fn an_edited_document_is_read_from_memory_while_the_store_is_away() {
    // A document of another node, and one that this node owns.
    for owner in [OTHER, ME] {
        let mut desk = Desk::of(3);
        desk.handle(Event::OwnerChanged(owner));
        desk.subscribe(9, None);
        desk.answer_all();
        if owner == ME {
            desk.submit(8, edit("ann", 1, 3));
            desk.settle();
        } else {
            desk.append_elsewhere(4, 4);
            let told = desk.commits(3, 4);
            desk.handle(told);
        }
        desk.handle(Event::StoreUnavailable);
        if owner == ME {
            // An ack is awaited: what is staged is shown to nobody.
            desk.submit(8, edit("ann", 2, 4));
        }
        let appends = desk.asked.len();
        desk.subscribe(1, None);
        desk.fetch(2, None);
        let refold = desk
            .asked
            .iter()
            .position(|it| matches!(it, Action::RefoldSnapshot { .. }));
        let refold = desk.asked.remove(refold.expect("memory is used")).unwrap();
        desk.asked.push_front(refold);
        desk.answer_away();
        for session in [1, 2] {
            assert_eq!(desk.sent(session), ["shown 4"], "owner {owner}");
        }
        desk.fetch(3, None);
        assert_eq!(desk.sent(3), ["shown 4"], "it is kept for the next reader");
        desk.subscribe(4, 2);
        assert_eq!(desk.sent(4), ["op 3", "op 4", "done"]);
        let appended = desk
            .asked
            .iter()
            .filter(|it| matches!(it, Action::Append { .. }));
        assert_eq!(appended.count(), appends);
    }
}

#[test]
fn new_readers_are_refused_at_once_where_nothing_is_in_memory() {
    let mut desk = Desk::of(3);
    desk.handle(Event::StoreUnavailable);
    desk.subscribe(1, None);
    desk.fetch(2, None);
    desk.subscribe(3, 2);
    desk.answer_away();
    assert_eq!(
        (desk.sent(1), desk.sent(2)),
        (vec![AWAY.to_owned()], vec![AWAY.to_owned()])
    );
    // A store whose server is gone fails at once.
    desk.wait(RETRY_FIRST);
    desk.fetch(4, None);
    desk.fail(false);
    assert_eq!(desk.sent(4), [AWAY]);
    // A client that comes back has the document and waits for the store.
    assert_eq!(desk.sent(3), NONE);
    desk.handle(Event::StoreAvailable);
    desk.settle();
    assert_eq!(desk.sent(3), ["op 3", "done"]);
    desk.subscribe(1, None);
    desk.settle();
    assert_eq!(desk.sent(1), ["shown 3"]);
}

#[test]
fn an_owner_without_memory_refuses_readers_while_an_append_is_not_answered() {
    let mut desk = Desk::of(3);
    desk.submit(8, edit("ann", 1, 3));
    desk.answer();
    assert!(matches!(desk.asked.front(), Some(Action::Append { .. })));
    desk.subscribe(1, None);
    desk.handle(Event::StoreUnavailable);
    assert_eq!(desk.sent(1), [AWAY]);
    desk.subscribe(2, None);
    assert_eq!(desk.sent(2), [AWAY]);
}

#[test]
fn a_reader_is_shown_no_less_than_it_names() {
    // A node that is told the commits, late; and one that is not.
    for is_told in [true, false] {
        let mut desk = Desk::of(3);
        desk.handle(Event::OwnerChanged(OTHER));
        if is_told {
            desk.subscribe(9, None);
            desk.answer_all();
        }
        desk.append_elsewhere(4, 6);
        for (session, min, live, answer) in [
            (1, 6, false, vec!["shown 6"]),
            (2, 6, true, vec!["shown 6"]),
            (3, 0, false, vec!["shown 6"]),
            (4, 7, false, vec![NEWER]),
            (5, 1_000, true, vec![NEWER]),
        ] {
            desk.read_from(session, min, live);
            desk.answer_all();
            assert_eq!(desk.sent(session), answer, "told {is_told}, from {min}");
        }
        assert_eq!(desk.sent(1), NONE, "a fetch is no subscription");
        desk.append_elsewhere(7, 7);
        let told = desk.commits(6, 7);
        desk.handle(told);
        assert_eq!(desk.sent(2), ["op 7"]);
    }
}

#[test]
fn a_reader_that_names_more_than_memory_holds_is_refused_while_the_store_is_away() {
    let mut desk = Desk::following(3);
    desk.append_elsewhere(4, 4);
    desk.handle(Event::StoreUnavailable);
    desk.read_from(2, 4, false);
    desk.answer_away();
    assert_eq!(desk.sent(2), [AWAY]);
    desk.read_from(3, 3, false);
    while !desk.asked.is_empty() {
        desk.answer_away();
    }
    assert_eq!(desk.sent(3), ["shown 3"]);
}
