mod bounds;
mod damage;
mod outage;

use std::collections::BTreeMap;

use futures_util::FutureExt;

use super::*;
use crate::doc::peer_subscriptions::LISTENS_FOR;
use crate::doc::{EncodedSnapshot, Proposal};
use crate::doc::{SessionReply, Ticket};
use crate::id::{ClientId, DocId, UserId};
use crate::log::{Change, Entry, Revision, SubmitId};
use crate::ot::{Content, Kind};
use crate::store::{Batch, LoadRange, MemoryStore, Store};

const ME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);

/// A document under the test's hand, in front of a real store's rules: what it asks the store waits until the test
/// lets it be answered.
struct Desk {
    document: Document,
    store: MemoryStore,
    doc: DocId,
    clock: Duration,
    asked: VecDeque<Action>,
    /// What each session was sent, as short sentences.
    sent: BTreeMap<u64, Vec<String>>,
    messages: Vec<(NodeId, PeerMessage)>,
    tickets: u64,
}

fn text(data: &str) -> Content {
    let json = serde_json::to_string(data).unwrap();
    Content::create(Kind::TextUnicode, Some(&json)).unwrap()
}

fn submit(client: &str, seq: u64, base: impl Into<Option<u64>>, proposal: Proposal) -> Submit {
    let client = ClientId::parse(client).unwrap();
    let author = UserId::anyone();
    Submit {
        id: SubmitId {
            author,
            client,
            seq,
        },
        base: base.into().map(Revision),
        proposal,
    }
}

fn edit(client: &str, seq: u64, base: impl Into<Option<u64>>) -> Submit {
    submit(client, seq, base, Proposal::Edit(r#"["."]"#.into()))
}

impl Desk {
    /// A document whose log holds its creation by `maker` and then edits by `bob`, up to `head`; nobody has opened it.
    fn of(head: u64) -> Self {
        let settings = DocumentSettings {
            tail_entries_max: 3,
            ..DocumentSettings::default()
        };
        let desk = Self {
            document: Document::new(ME, ME, settings),
            store: MemoryStore::new(),
            doc: DocId::parse("c", "d").unwrap(),
            clock: Duration::from_secs(100),
            asked: VecDeque::new(),
            sent: BTreeMap::new(),
            messages: Vec::new(),
            tickets: 0,
        };
        if head > 0 {
            desk.append_elsewhere(1, head);
        }
        desk
    }

    /// A log of another node's, and a session that has been shown it.
    fn following(head: u64) -> Self {
        let mut desk = Self::of(head);
        desk.handle(Event::OwnerChanged(OTHER));
        desk.subscribe(1, None);
        desk.answer_all();
        desk
    }

    /// Another node claims, and appends these revisions.
    fn append_elsewhere(&self, first: u64, last: u64) {
        let lease = now(self.store.claim(&self.doc, OTHER));
        let dot = Change::Edit(crate::ot::Op::parse(Kind::TextUnicode, r#"["."]"#).unwrap());
        let entry = |revision| {
            let (client, seq, change) = match revision {
                1 => ("maker", 1, Change::Create(text(""))),
                _ => ("bob", revision - 1, dot.clone()),
            };
            Arc::new(Entry {
                revision: Revision(revision),
                epoch: lease.fence.epoch,
                id: submit(client, seq, 0, Proposal::Delete).id,
                at_ms: 0,
                change,
            })
        };
        let batch = Batch {
            doc: self.doc.clone(),
            fence: lease.fence,
            entries: (first..=last).map(entry).collect(),
        };
        now(self.store.append(vec![batch])).remove(0).unwrap();
    }

    fn handle(&mut self, event: Event) {
        let now = Now {
            clock: self.clock,
            wall_ms: 0,
        };
        self.document.handle(event, now);
        while let Some(action) = self.document.poll() {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Reply {
                session,
                reply: answer,
                ..
            } => {
                let sentence = match answer {
                    SessionReply::Snapshot(shown) => format!("shown {}", shown.revision),
                    SessionReply::Done => "done".to_owned(),
                    SessionReply::Committed(_) => return,
                    SessionReply::Rejected(rejection) => format!("{:?}", rejection.reason),
                };
                self.sent.entry(session.0).or_default().push(sentence);
            }
            Action::Deliver { to, entries } => {
                for session in to.iter() {
                    let sent = self.sent.entry(session.0).or_default();
                    sent.extend(entries.iter().map(|entry| format!("op {}", entry.revision)));
                }
            }
            Action::Send { to, message } => self.messages.push((to, message)),
            Action::PublishPresence {
                session, presence, ..
            } => {
                let revision = presence.position.map(|it| it.revision.0);
                let sentence = format!("{} at {revision:?}", presence.value);
                self.sent.entry(session.0).or_default().push(sentence);
            }
            Action::LoadSnapshot
            | Action::EncodeSnapshot(_)
            | Action::LoadPage { .. }
            | Action::RequestSlice(_)
            | Action::Claim
            | Action::Append { .. }
            | Action::CloseSessions
            | Action::RefoldSnapshot { .. }
            | Action::SaveSnapshot { .. } => self.asked.push_back(action),
        }
    }

    fn ask(&mut self, session: u64, ask: SessionRequest) {
        self.tickets += 1;
        self.handle(Event::Request {
            session: SessionId(session),
            ticket: Ticket(self.tickets),
            request: ask,
        });
    }

    fn subscribe(&mut self, session: u64, since: impl Into<Option<u64>>) {
        let since = since.into().map(Revision);
        self.ask(session, SessionRequest::Subscribe { since });
    }

    fn fetch(&mut self, session: u64, since: impl Into<Option<u64>>) {
        let since = since.into().map(Revision);
        self.ask(session, SessionRequest::Fetch { since });
    }

    fn unsubscribe(&mut self, session: u64) {
        self.ask(session, SessionRequest::Unsubscribe);
    }

    fn submit(&mut self, session: u64, submit: Submit) {
        self.ask(session, SessionRequest::Submit(submit));
    }

    fn leave(&mut self, session: u64) {
        self.handle(Event::SessionClosed(SessionId(session)));
    }

    /// The store answers what it was asked first.
    fn answer(&mut self) {
        let action = self.asked.pop_front().expect("the store was asked");
        let event = match action {
            Action::LoadSnapshot => Event::SnapshotEncoded(Ok(self.show())),
            Action::EncodeSnapshot(snapshot) => {
                Event::SnapshotEncoded(Ok((Arc::new(encoded(&snapshot)), vec![])))
            }
            Action::LoadPage { requester, since } => {
                let loaded = now(self.store.load(&self.doc, LoadRange::Since(since)));
                // Two a page, so that walks are walks.
                let page = loaded.entries.into_iter().take(2).collect();
                Event::PageLoaded {
                    requester,
                    since,
                    page: Ok(page),
                }
            }
            Action::RequestSlice(epoch) => Event::SliceGranted(epoch),
            Action::Claim => {
                let lease = now(self.store.claim(&self.doc, ME));
                let (head, mut entries) = self.head();
                // As where a snapshot is near the head: memory begins there.
                let entries = entries.split_off(entries.len().saturating_sub(2));
                let mut tail = Tail::new(Revision(head.revision.0 - entries.len() as u64));
                entries.into_iter().for_each(|entry| tail.push(entry));
                Event::Claimed(Ok((lease.fence, head, tail)))
            }
            Action::Append { fence, entries } => {
                let batch = Batch {
                    doc: self.doc.clone(),
                    fence,
                    entries,
                };
                let result = Ok(now(self.store.append(vec![batch])).remove(0));
                Event::Appended { fence, result }
            }
            other => panic!("not answered: {other:?}"),
        };
        self.handle(event);
    }

    /// The store does not answer what it was asked first; an append it does all the same, if `done`.
    fn fail(&mut self, done: bool) {
        let error = || StoreError::new("ask", "away");
        let event = match self.asked.pop_front().expect("the store was asked") {
            Action::LoadSnapshot | Action::EncodeSnapshot(_) => {
                Event::SnapshotEncoded(Err(error()))
            }
            Action::LoadPage { requester, since } => Event::PageLoaded {
                requester,
                since,
                page: Err(error()),
            },
            Action::Claim => Event::Claimed(Err(error())),
            Action::Append { fence, entries } => {
                if done {
                    let doc = self.doc.clone();
                    let batch = Batch {
                        doc,
                        fence,
                        entries,
                    };
                    now(self.store.append(vec![batch])).remove(0).unwrap();
                }
                Event::Appended {
                    fence,
                    result: Err(error()),
                }
            }
            other => panic!("not answered: {other:?}"),
        };
        self.handle(event);
    }

    /// The store answers, and time passes, until nothing more comes of it.
    fn settle(&mut self) {
        for _ in 0..100 {
            if !self.asked.is_empty() {
                self.answer();
            } else if let Some(at) = self.document.timeout() {
                self.clock = self.clock.max(at);
                self.handle(Event::Timeout);
            } else {
                return;
            }
        }
        panic!("it never comes to rest: {:?}", self.document);
    }

    /// The store answers all that it is asked; no time passes.
    fn answer_all(&mut self) {
        while !self.asked.is_empty() {
            self.answer();
        }
    }

    /// The owner elsewhere tells the commits from `since` to `until`.
    fn commits(&self, since: u64, until: u64) -> Event {
        let message = PeerMessage::Commits {
            head: Revision(until),
            entries: self.head().1[since as usize..until as usize].to_vec(),
        };
        Event::PeerMessage {
            from: OTHER,
            message,
        }
    }

    fn wait(&mut self, time: Duration) {
        self.clock += time;
        self.handle(Event::Timeout);
    }

    fn show(&self) -> (Arc<EncodedSnapshot>, Vec<Arc<Entry>>) {
        let (head, entries) = self.head();
        (Arc::new(encoded(&head)), entries)
    }

    fn head(&self) -> (Snapshot, Vec<Arc<Entry>>) {
        let loaded = now(self.store.load(&self.doc, LoadRange::Head));
        let mut snapshot = loaded.snapshot;
        for entry in &loaded.entries {
            snapshot.fold(entry).unwrap();
        }
        (snapshot, loaded.entries)
    }

    /// What a session was sent since it was last looked at.
    fn sent(&mut self, session: u64) -> Vec<String> {
        self.sent.remove(&session).unwrap_or_default()
    }

    /// The clients of the log, oldest first.
    fn log(&self) -> Vec<String> {
        let (_, entries) = self.head();
        let name = |entry: &Arc<Entry>| format!("{}/{}", entry.id.client.as_str(), entry.id.seq);
        entries.iter().map(name).collect()
    }
}

/// The content's JSON stands for the wire's encoding of a snapshot.
fn encoded(snapshot: &Snapshot) -> EncodedSnapshot {
    let mut json = Vec::new();
    if let Some(content) = &snapshot.content {
        content.write_json(&mut json);
    }
    let kind = snapshot.content.as_ref().map(Content::kind);
    let range = 0..json.len();
    EncodedSnapshot::new(snapshot.revision, kind, json.into(), range)
}

/// Memory answers at once.
fn now<T>(answer: impl Future<Output = Result<T, StoreError>>) -> T {
    answer
        .now_or_never()
        .expect("at once")
        .expect("memory does not fail")
}

const NONE: [&str; 0] = [];

#[test]
fn a_reader_is_shown_the_document_and_then_each_commit() {
    let mut desk = Desk::of(3);
    desk.subscribe(1, None);
    assert_eq!(desk.sent(1), NONE);
    desk.settle();
    desk.submit(2, edit("ann", 1, 3));
    desk.settle();
    assert_eq!(desk.sent(1), ["shown 3", "op 4"]);
    assert_eq!(
        desk.sent(2),
        ["op 4"],
        "who submits is sent its commit, subscribed or not"
    );
}

#[test]
fn who_comes_back_is_sent_what_it_missed_and_then_each_commit() {
    for (since, expected) in [
        (6, vec!["done"]),
        (5, vec!["op 6", "done"]),
        (
            0,
            vec!["op 1", "op 2", "op 3", "op 4", "op 5", "op 6", "done"],
        ),
    ] {
        let mut desk = Desk::of(6);
        desk.subscribe(1, since);
        desk.settle();
        assert_eq!(desk.sent(1), expected, "since {since}");
        desk.submit(2, edit("ann", 1, 6));
        desk.settle();
        assert_eq!(desk.sent(1), ["op 7"], "since {since}");
    }
}

#[test]
fn who_has_more_than_the_log_is_refused() {
    // At home and elsewhere; with a reader there, and without.
    for (owner, reads) in [(ME, true), (ME, false), (OTHER, true), (OTHER, false)] {
        let mut desk = Desk::of(6);
        desk.handle(Event::OwnerChanged(owner));
        if reads {
            desk.subscribe(9, None);
        }
        if owner == ME {
            desk.submit(8, edit("ann", 1, 6));
        } else {
            desk.append_elsewhere(7, 7);
        }
        desk.answer_all();
        for (session, since, answer) in [
            (1, 7, "done"),
            (2, 8, "FutureRevision"),
            (3, 1_000, "FutureRevision"),
        ] {
            desk.subscribe(session, since);
            desk.answer_all();
            assert_eq!(
                desk.sent(session),
                [answer],
                "{owner}, {reads}: since {since}"
            );
        }
    }
}

#[test]
fn who_has_more_than_its_node_is_served_on() {
    for reads in [true, false] {
        let mut desk = Desk::of(2);
        desk.handle(Event::OwnerChanged(OTHER));
        if reads {
            desk.subscribe(9, None);
        }
        desk.answer_all();
        desk.append_elsewhere(3, 6);
        desk.subscribe(1, 4);
        desk.answer_all();
        // What its node then reads for itself comes once more, and its client passes it over.
        assert_eq!(desk.sent(1)[..3], ["op 5", "op 6", "done"]);
        let told = desk.commits(6, 6);
        desk.append_elsewhere(7, 7);
        desk.handle(told);
        let told = desk.commits(6, 7);
        desk.handle(told);
        assert_eq!(desk.sent(1), ["op 7"]);
        if reads {
            let sent = ["shown 2", "op 3", "op 4", "op 5", "op 6", "op 7"];
            assert_eq!(desk.sent(9), sent);
        }
    }
}

#[test]
fn who_asks_where_nobody_is_told_is_shown_what_the_store_holds() {
    for (since, expected) in [
        (None, vec!["shown 9"]),
        (
            Some(2),
            vec![
                "op 3", "op 4", "op 5", "op 6", "op 7", "op 8", "op 9", "done",
            ],
        ),
        (Some(9), vec!["done"]),
    ] {
        for subscribes in [true, false] {
            let mut desk = Desk::of(2);
            desk.handle(Event::OwnerChanged(OTHER));
            // The last reader leaves, and the owner is told no more that its commits are wanted.
            desk.subscribe(1, None);
            desk.answer_all();
            desk.leave(1);
            desk.append_elsewhere(3, 9);
            desk.messages.clear();
            if subscribes {
                desk.subscribe(2, since);
            } else {
                desk.fetch(2, since);
            }
            desk.answer_all();
            assert_eq!(desk.sent(2), expected, "subscribes: {subscribes}");
            // From now on it is wanted again, and at once.
            let said = |(to, message): &(NodeId, PeerMessage)| {
                *to == OTHER && matches!(message, PeerMessage::Subscribe { since: Revision(9) })
            };
            assert_eq!(desk.messages.iter().any(said), subscribes);
        }
    }
}

#[test]
fn a_snapshot_that_was_read_before_the_question_does_not_answer_it() {
    for since in [None, Some(2)] {
        let mut desk = Desk::of(2);
        desk.handle(Event::OwnerChanged(OTHER));
        desk.fetch(1, None);
        let read_before = Event::SnapshotEncoded(Ok(desk.show()));
        desk.append_elsewhere(3, 3);
        desk.fetch(2, since);
        desk.asked.clear();
        desk.handle(read_before);
        assert_eq!(desk.sent(1), ["shown 2"]);
        assert_eq!(desk.sent(2), NONE);
        desk.answer_all();
        match since {
            None => assert_eq!(desk.sent(2), ["shown 3"]),
            Some(_) => assert_eq!(desk.sent(2), ["op 3", "done"]),
        }
    }
}

#[test]
fn who_comes_back_is_not_done_before_it_has_what_was_told() {
    let mut desk = Desk::following(2);
    desk.append_elsewhere(3, 4);
    desk.handle(Event::HeadAdvanced(Revision(4)));
    desk.fetch(2, 2);
    assert_eq!(desk.sent(2), NONE);
    desk.answer_all();
    assert_eq!(desk.sent(2), ["op 3", "op 4", "done"]);
}

#[test]
fn a_log_that_has_grown_while_its_end_was_looked_for_is_read_on() {
    let mut desk = Desk::following(2);
    // Somebody is wrong; but before the store has said so, the owner tells what is true.
    desk.handle(Event::HeadAdvanced(Revision(3)));
    let read_before = Event::PageLoaded {
        requester: PageRequester::Gap,
        since: Revision(2),
        page: Ok(Vec::new()),
    };
    desk.asked.clear();
    desk.append_elsewhere(3, 5);
    let told = desk.commits(4, 5);
    desk.handle(told);
    desk.handle(read_before);
    desk.answer_all();
    assert_eq!(desk.sent(1), ["shown 2", "op 3", "op 4", "op 5"]);
}

#[test]
fn what_a_walker_found_says_nothing_of_a_gap() {
    let mut desk = Desk::following(2);
    desk.append_elsewhere(3, 3);
    desk.handle(Event::HeadAdvanced(Revision(3)));
    // It was read for somebody else, before there was an entry.
    desk.handle(Event::PageLoaded {
        requester: PageRequester::CatchUp(SessionId(1)),
        since: Revision(2),
        page: Ok(Vec::new()),
    });
    desk.answer_all();
    assert_eq!(desk.sent(1), ["shown 2", "op 3"]);
}

#[test]
fn who_comes_back_far_behind_the_tail_walks_to_it() {
    let mut desk = Desk::of(8);
    desk.subscribe(1, None);
    desk.settle();
    desk.submit(1, edit("ann", 1, 8));
    desk.settle();
    desk.sent(1);
    desk.subscribe(2, 0);
    desk.subscribe(3, 1);
    desk.answer();
    // Meanwhile there is news, which comes behind what is missing.
    desk.submit(1, edit("ann", 2, 9));
    desk.settle();
    let walked: Vec<String> = (1..=10).map(|revision| format!("op {revision}")).collect();
    for (session, first) in [(2, 0), (3, 1)] {
        let mut sent = desk.sent(session);
        let done = sent.iter().position(|it| it == "done").expect("an answer");
        sent.remove(done);
        assert_eq!(sent, walked[first..], "session {session}");
    }
    assert_eq!(desk.sent(1), ["op 10"]);
}

#[test]
fn a_fetch_leaves_the_subscription_as_it_is() {
    for since in [None, Some(0), Some(3)] {
        let mut desk = Desk::of(3);
        desk.subscribe(1, None);
        desk.settle();
        desk.fetch(1, since);
        desk.settle();
        desk.sent(1);
        desk.submit(2, edit("ann", 1, 3));
        desk.settle();
        assert_eq!(desk.sent(1), ["op 4"], "fetched since {since:?}");
    }
}

#[test]
fn commits_follow_the_snapshot_that_a_subscriber_fetches() {
    let mut desk = Desk::of(3);
    desk.subscribe(1, None);
    desk.submit(2, edit("ann", 1, 3));
    desk.settle();
    desk.sent(1);
    // It has thrown away what it had; until the snapshot comes it can take nothing in.
    desk.fetch(1, None);
    desk.submit(2, edit("ann", 2, 4));
    let encode = desk.asked.pop_front().expect("a snapshot to encode");
    desk.answer();
    desk.asked.push_front(encode);
    desk.settle();
    assert_eq!(desk.sent(1), ["op 5", "shown 4", "op 5"]);
}

#[test]
fn who_only_fetches_is_told_nothing_later() {
    for since in [None, Some(1)] {
        let mut desk = Desk::of(2);
        desk.fetch(1, since);
        desk.settle();
        let first = desk.sent(1);
        desk.submit(2, edit("ann", 1, 2));
        desk.settle();
        assert_eq!(desk.sent(1), NONE);
        match since {
            None => assert_eq!(first, ["shown 2"]),
            Some(_) => assert_eq!(first, ["op 2", "done"]),
        }
    }
}

#[test]
fn nothing_follows_the_end_of_a_subscription() {
    for (since, answers, expected) in [
        // Before the document is known, in the middle of a walk, and when all has been said.
        (None, 0, vec!["done", "shown 8"]),
        (Some(0), 0, vec!["done", "done"]),
        (Some(0), 2, vec!["op 1", "op 2", "done", "done"]),
        (None, 9, vec!["shown 8", "done"]),
    ] {
        let mut desk = Desk::of(8);
        if answers > 0 {
            // Somebody else makes the tail short.
            desk.submit(9, edit("ann", 9, 8));
            desk.settle();
        }
        let mut desk = if answers == 9 { Desk::of(8) } else { desk };
        desk.subscribe(1, since);
        match answers {
            0 => {}
            2 => desk.answer(),
            _ => desk.settle(),
        }
        desk.unsubscribe(1);
        desk.settle();
        desk.submit(9, edit("ann", 10, None));
        desk.settle();
        assert_eq!(desk.sent(1), expected, "since {since:?}, {answers} answers");
    }
}

#[test]
fn a_read_that_ends_in_the_middle_of_its_way_does_not_stop_the_next() {
    let mut desk = Desk::of(8);
    desk.submit(9, edit("ann", 1, 8));
    desk.settle();
    desk.subscribe(1, 0);
    desk.fetch(1, 4);
    desk.answer();
    desk.unsubscribe(1);
    desk.settle();
    let first_page = ["op 1", "op 2", "done", "done"];
    let rest = ["op 5", "op 6", "op 7", "op 8", "op 9", "done"];
    assert_eq!(desk.sent(1), [&first_page[..], &rest].concat());
}

#[test]
fn a_client_that_reads_slowly_does_not_keep_others_from_catching_up() {
    let mut desk = Desk::of(8);
    desk.submit(9, edit("ann", 1, 8));
    desk.settle();
    desk.subscribe(1, 0);
    desk.subscribe(2, 4);
    // The page of the first is read when its socket has drained.
    let is_slow = |action: &Action| {
        let requester = PageRequester::CatchUp(SessionId(1));
        matches!(action, Action::LoadPage { requester: of, .. } if *of == requester)
    };
    desk.asked.retain(|action| !is_slow(action));
    desk.settle();
    assert_eq!(
        desk.sent(2),
        ["op 5", "op 6", "op 7", "op 8", "op 9", "done"]
    );
}

#[test]
fn a_reader_is_shown_the_document_though_its_owner_falls() {
    let mut desk = Desk::of(2);
    desk.submit(9, edit("ann", 1, 2));
    desk.answer();
    // The append is under way: what it leads to is what the reader is to be shown.
    desk.subscribe(1, None);
    desk.fail(true);
    desk.settle();
    assert_eq!(desk.sent(1).first().map(String::as_str), Some("shown 3"));
    assert_eq!(desk.sent(9), ["op 3"]);
    // The same where it doubts itself.
    let mut desk = Desk::of(2);
    desk.submit(9, edit("ann", 1, 2));
    desk.answer();
    desk.subscribe(1, None);
    desk.wait(DOUBT_PAUSE);
    desk.submit(8, edit("eve", 1, 1_000));
    desk.settle();
    assert!(desk.sent(1).iter().any(|it| it.starts_with("shown")));
    assert_eq!(desk.log(), ["maker/1", "bob/1", "ann/1"]);
}

#[test]
fn an_append_of_unknown_fate_is_committed_once() {
    for done in [true, false] {
        let mut desk = Desk::of(2);
        desk.subscribe(1, None);
        desk.settle();
        desk.submit(1, edit("ann", 1, 2));
        desk.answer();
        desk.fail(done);
        assert_eq!(
            desk.sent(1),
            ["shown 2"],
            "nobody knows, so nothing is said"
        );
        desk.settle();
        assert_eq!(desk.sent(1), ["op 3"], "done: {done}");
        assert_eq!(desk.log(), ["maker/1", "bob/1", "ann/1"]);
    }
}

#[test]
fn a_fenced_owner_claims_anew_and_says_all_in_order() {
    let mut desk = Desk::of(2);
    desk.subscribe(1, 2);
    desk.settle();
    desk.submit(1, edit("ann", 1, 2));
    desk.settle();
    desk.append_elsewhere(4, 5);
    desk.submit(1, edit("ann", 2, 3));
    desk.settle();
    assert_eq!(desk.sent(1), ["done", "op 3", "op 4", "op 5", "op 6"]);
    assert_eq!(desk.log()[2..], ["ann/1", "bob/3", "bob/4", "ann/2"]);
}

#[test]
fn a_submit_from_the_future_is_refused_after_one_claim() {
    let mut desk = Desk::of(2);
    desk.submit(1, edit("ann", 1, 2));
    desk.settle();
    desk.sent(1);
    let mut claims = 0;
    for seq in 2..5 {
        desk.submit(1, edit("ann", seq, 1_000));
    }
    // One is with the owner at a time; each is looked into, but not all the time.
    let began = desk.clock;
    while desk.sent.get(&1).is_none_or(|sent| sent.len() < 3) {
        match desk.asked.front() {
            Some(Action::Claim) => {
                claims += 1;
                desk.answer();
            }
            Some(other) => panic!("{other:?}"),
            None => {
                let at = desk.document.timeout().expect("it will look");
                desk.wait(at.saturating_sub(desk.clock));
            }
        }
    }
    let refused = vec!["FutureRevision"; 3];
    assert_eq!(desk.sent(1), refused);
    assert!(DOUBT_PAUSE * claims <= desk.clock - began + DOUBT_PAUSE);
    assert!(claims <= 3);
}

#[test]
fn an_owner_that_is_behind_claims_before_it_refuses() {
    let mut desk = Desk::of(2);
    desk.submit(1, edit("ann", 1, 2));
    desk.settle();
    desk.append_elsewhere(4, 4);
    desk.submit(2, edit("cat", 1, 4));
    desk.settle();
    assert_eq!(desk.sent(2), ["op 5"]);
    assert_eq!(desk.log().last().map(String::as_str), Some("cat/1"));
}

#[test]
fn a_seq_that_was_used_before_is_refused_and_the_others_go_on() {
    // Its first copy is so old that memory has forgotten it, and its base does not lead past it.
    let mut desk = Desk::of(0);
    desk.submit(1, submit("ann", 1, 0, Proposal::Create(text(""))));
    desk.submit(1, edit("ann", 2, None));
    desk.settle();
    for seq in 3..8 {
        desk.submit(1, edit("ann", seq, None));
        desk.settle();
    }
    desk.sent(1);
    desk.submit(1, edit("ann", 2, 7));
    desk.submit(2, edit("bob", 1, 7));
    desk.submit(3, edit("cat", 1, 7));
    desk.settle();
    assert_eq!(desk.sent(1), ["Malformed"]);
    assert_eq!(desk.log()[7..], ["bob/1", "cat/1"]);
    // And in a batch with others.
    desk.submit(2, edit("bob", 2, 9));
    desk.submit(1, edit("ann", 3, 9));
    desk.submit(3, edit("cat", 2, 9));
    desk.settle();
    assert_eq!(desk.sent(1), ["Malformed"]);
    assert_eq!(desk.log()[9..], ["bob/2", "cat/2"]);
}

#[test]
fn what_is_said_on_a_new_socket_is_answered_there() {
    let mut desk = Desk::of(2);
    desk.submit(1, edit("ann", 1, 2));
    // The socket broke, and that is noticed only after the client has come back.
    desk.submit(2, edit("ann", 1, 2));
    desk.subscribe(2, 2);
    desk.leave(1);
    desk.settle();
    let sent = desk.sent(2);
    assert!(
        sent.contains(&"op 3".to_owned()) && sent.contains(&"done".to_owned()),
        "{sent:?}"
    );
    assert_eq!(desk.log().len(), 3);
    assert!(!desk.document.has_session(SessionId(1)));
}

#[test]
fn what_is_said_on_two_sockets_is_answered_on_both() {
    let mut desk = Desk::of(2);
    // The old socket's queue reaches what the new one has said already, and still waits for.
    desk.submit(1, edit("ann", 1, 2));
    desk.submit(1, edit("ann", 2, 2));
    desk.submit(2, edit("ann", 2, 2));
    desk.submit(2, edit("ann", 3, 2));
    // No time passes: later, what is unanswered would be said again.
    desk.answer_all();
    assert_eq!(desk.log()[2..], ["ann/1", "ann/2", "ann/3"]);
    assert!(desk.sent(1).contains(&"op 4".to_owned()));
    assert!(desk.sent(2).contains(&"op 5".to_owned()));
    assert!(desk.document.is_idle());
}

#[test]
fn submits_of_one_session_keep_their_order() {
    let mut desk = Desk::of(1);
    for seq in 1..=3 {
        desk.submit(1, edit("ann", seq, 1));
    }
    desk.settle();
    assert_eq!(desk.log(), ["maker/1", "ann/1", "ann/2", "ann/3"]);
    // Also where the first has a long way to go, and the next has none.
    let mut desk = Desk::of(8);
    desk.submit(9, edit("zoe", 1, 8));
    desk.settle();
    desk.submit(1, edit("ann", 1, 1));
    desk.submit(1, edit("ann", 2, None));
    desk.settle();
    assert_eq!(desk.log()[9..], ["ann/1", "ann/2"]);
}

#[test]
fn the_answer_to_an_older_claims_append_decides_nothing() {
    let mut desk = Desk::of(2);
    desk.submit(1, edit("ann", 1, 2));
    desk.settle();
    desk.wait(DOUBT_PAUSE);
    desk.submit(1, edit("ann", 2, 3));
    let append = desk.asked.pop_front().expect("an append");
    // A submit from the future makes the owner claim again, and what was under way is said again.
    desk.submit(2, edit("eve", 1, 1_000));
    desk.answer();
    assert!(matches!(desk.asked.front(), Some(Action::Append { .. })));
    desk.sent(1);
    let Action::Append { fence, .. } = append else {
        panic!("an append")
    };
    let result = Ok(Ok(()));
    desk.handle(Event::Appended { fence, result });
    assert_eq!(desk.sent(1), NONE, "the append under way is another");
    desk.settle();
    assert_eq!(desk.sent(1), ["op 4"]);
}

#[test]
fn while_the_store_is_away_everybody_waits_and_then_is_served() {
    let mut desk = Desk::of(6);
    desk.subscribe(1, None);
    desk.submit(2, edit("ann", 1, 3));
    for _ in 0..3 {
        while !desk.asked.is_empty() {
            desk.fail(false);
        }
        let at = desk.document.timeout().expect("it asks again");
        desk.wait(at.saturating_sub(desk.clock));
    }
    assert_eq!(desk.sent(1), NONE);
    desk.settle();
    assert_eq!(desk.sent(1)[0], "shown 6");
    assert_eq!(desk.sent(2).last().map(String::as_str), Some("op 7"));
}

#[test]
fn who_waited_too_long_for_a_snapshot_is_refused() {
    let mut desk = Desk::of(2);
    desk.subscribe(1, None);
    for _ in 0..20 {
        while !desk.asked.is_empty() {
            desk.fail(false);
        }
        desk.wait(Duration::from_secs(1));
    }
    assert_eq!(desk.sent(1), ["StoreUnavailable"]);
    assert!(desk.document.is_idle());
}

#[test]
fn a_walk_survives_a_store_that_was_away() {
    let mut desk = Desk::of(8);
    desk.submit(9, edit("ann", 1, 8));
    desk.settle();
    desk.subscribe(1, 0);
    desk.answer();
    desk.fail(false);
    desk.settle();
    assert_eq!(desk.sent(1).len(), 10);
}

#[test]
fn a_gap_is_healed_from_the_store() {
    let mut desk = Desk::of(2);
    desk.subscribe(1, None);
    desk.settle();
    desk.handle(Event::OwnerChanged(OTHER));
    desk.append_elsewhere(3, 6);
    let commits = |desk: &Desk, since: u64, until: usize| PeerMessage::Commits {
        head: Revision(until as u64),
        entries: desk.head().1[since as usize..until].to_vec(),
    };
    // 5 came, 3 and 4 are missing; while they are read, the owner says them too.
    let fifth = commits(&desk, 4, 5);
    let message = |message| Event::PeerMessage {
        from: OTHER,
        message,
    };
    desk.handle(message(fifth));
    let all = commits(&desk, 2, 4);
    desk.handle(message(all));
    while !desk.asked.is_empty() {
        desk.answer();
    }
    assert_eq!(desk.sent(1), ["shown 2", "op 3", "op 4", "op 5", "op 6"]);
    assert_eq!(desk.document.forwarder.head(), Revision(6));
    // And once more: healing is not for once.
    desk.append_elsewhere(7, 9);
    let ninth = commits(&desk, 8, 9);
    desk.handle(message(ninth));
    while !desk.asked.is_empty() {
        desk.answer();
    }
    assert_eq!(desk.sent(1), ["op 7", "op 8", "op 9"]);
}

#[test]
fn who_listens_is_told_what_a_later_owner_commits() {
    let mut desk = Desk::of(2);
    let message = PeerMessage::Subscribe { since: Revision(2) };
    desk.handle(Event::PeerMessage {
        from: OTHER,
        message,
    });
    assert!(desk.asked.is_empty(), "reading needs no owner");
    desk.submit(1, edit("ann", 1, 2));
    // Not until it stops listening, which it does by its silence.
    while desk.messages.is_empty() {
        desk.answer();
    }
    let (to, PeerMessage::Commits { head, entries }) = &desk.messages[0] else {
        panic!("{:?}", desk.messages);
    };
    assert_eq!((*to, *head, entries.len()), (OTHER, Revision(3), 1));
    desk.messages.clear();
    desk.wait(LISTENS_FOR);
    desk.submit(1, edit("ann", 2, 3));
    while !desk.asked.is_empty() {
        desk.answer();
    }
    assert!(desk.messages.is_empty(), "{:?}", desk.messages);
}

#[test]
fn an_owner_that_the_ring_names_no_more_ends_when_it_is_quiet() {
    let mut desk = Desk::of(2);
    desk.submit(1, edit("ann", 1, 2));
    // The claim; the append is under way then.
    desk.answer();
    desk.handle(Event::OwnerChanged(OTHER));
    assert!(desk.document.owned_epoch().is_some());
    while !desk.asked.is_empty() {
        desk.answer();
    }
    assert!(desk.document.owned_epoch().is_none());
    assert_eq!(desk.log().last().map(String::as_str), Some("ann/1"));
    desk.messages.clear();
    desk.submit(1, edit("ann", 2, 3));
    let (to, PeerMessage::Submit(submit)) = &desk.messages[0] else {
        panic!("{:?}", desk.messages);
    };
    assert_eq!((*to, submit.id.seq), (OTHER, 2));
}

#[test]
fn an_owner_that_is_told_of_more_than_it_staged_owns_no_more() {
    let mut desk = Desk::of(2);
    desk.submit(1, edit("ann", 1, 2));
    desk.settle();
    assert!(desk.document.owned_epoch().is_some());
    let told = |head| {
        let (from, head) = (OTHER, Revision(head));
        let entries = Vec::new();
        Event::PeerMessage {
            from,
            message: PeerMessage::Commits { head, entries },
        }
    };
    desk.handle(told(3));
    assert!(
        desk.document.owned_epoch().is_some(),
        "that is what it knows"
    );
    desk.append_elsewhere(4, 4);
    desk.handle(told(4));
    assert!(desk.document.owned_epoch().is_none());
    // A reader is shown no less than what was told.
    desk.subscribe(2, None);
    desk.settle();
    assert_eq!(desk.sent(2), ["shown 4"]);
}

#[test]
fn a_snapshot_that_is_too_old_is_not_asked_for_without_end() {
    let mut desk = Desk::of(2);
    desk.subscribe(1, None);
    desk.settle();
    // The store is read where it lags.
    desk.handle(Event::HeadAdvanced(Revision(9)));
    desk.subscribe(2, None);
    for _ in 0..3 {
        let shown = desk
            .asked
            .iter()
            .filter(|it| matches!(it, Action::LoadSnapshot));
        assert!(shown.count() <= 1);
        while !desk.asked.is_empty() {
            desk.answer();
        }
        desk.wait(RETRY_FIRST);
    }
    desk.append_elsewhere(3, 9);
    desk.handle(Event::HeadAdvanced(Revision(9)));
    desk.settle();
    assert_eq!(desk.sent(2).first().map(String::as_str), Some("shown 9"));
}

#[test]
fn a_follower_says_again_what_its_owner_did_not_answer() {
    let mut desk = Desk::of(2);
    desk.handle(Event::OwnerChanged(OTHER));
    desk.subscribe(1, 2);
    desk.submit(1, edit("ann", 1, 2));
    while !desk.asked.is_empty() {
        desk.answer();
    }
    desk.messages.clear();
    desk.wait(ASK_AGAIN);
    assert!(
        matches!(desk.messages[0], (OTHER, PeerMessage::Submit(_))),
        "{:?}",
        desk.messages
    );
    desk.messages.clear();
    desk.wait(SUBSCRIBE_AGAIN);
    let subscribes = |(_, message): &(NodeId, PeerMessage)| {
        matches!(message, PeerMessage::Subscribe { since: Revision(2) })
    };
    assert!(desk.messages.iter().any(subscribes), "{:?}", desk.messages);
}

#[test]
fn an_owner_that_does_not_answer_is_asked_less_and_less_often() {
    let mut desk = Desk::of(2);
    desk.handle(Event::OwnerChanged(OTHER));
    let asked_at = |desk: &mut Desk, until: u64| {
        let mut at = Vec::new();
        let began = desk.clock;
        while desk.clock < began + Duration::from_millis(until) {
            desk.messages.clear();
            desk.wait(ASK_AGAIN / 2);
            if !desk.messages.is_empty() {
                at.push((desk.clock - began).as_millis());
            }
        }
        at
    };
    desk.submit(1, edit("ann", 1, 2));
    assert_eq!(
        asked_at(&mut desk, 24_000),
        [400, 1_200, 2_800, 6_000, 11_000, 16_000, 21_000]
    );
    // Who is asked something else, or is another, is asked soon.
    desk.submit(2, edit("bob", 1, 2));
    assert_eq!(asked_at(&mut desk, 1_500), [400, 1_200]);
    desk.handle(Event::OwnerChanged(NodeId(3)));
    assert_eq!(asked_at(&mut desk, 1_500), [400, 1_200]);
}

#[test]
fn waiting_submit_is_sent_at_once_when_messages_pass_again() {
    let mut desk = Desk::of(2);
    desk.handle(Event::OwnerChanged(OTHER));
    desk.submit(1, edit("ann", 1, 2));
    // The owner is not heard for so long that it is asked every five seconds.
    for _ in 0..20 {
        desk.wait(ASK_AGAIN_LAST);
    }
    desk.messages.clear();
    desk.handle(Event::Reconnected);
    assert!(
        matches!(desk.messages[..], [(OTHER, PeerMessage::Submit(_))]),
        "{:?}",
        desk.messages
    );
    // From then on it is asked as if it were for the first time.
    desk.messages.clear();
    desk.wait(ASK_AGAIN);
    assert_eq!(desk.messages.len(), 1);
}

#[test]
fn what_the_store_did_not_answer_is_asked_at_once_when_it_answers_again() {
    let mut desk = Desk::of(2);
    desk.submit(1, edit("ann", 1, 2));
    for _ in 0..20 {
        desk.fail(false);
        desk.wait(RETRY_LAST);
    }
    desk.fail(false);
    assert_eq!(desk.asked.len(), 0, "it waits for its next attempt");
    desk.handle(Event::Reconnected);
    let claims = desk.asked.iter().any(|it| matches!(it, Action::Claim));
    assert!(claims, "{:?}", desk.asked);
    desk.settle();
    assert_eq!(desk.log()[2..], ["ann/1"]);
}

#[test]
fn document_that_waits_for_nothing_does_nothing_when_messages_pass_again() {
    let mut desk = Desk::following(3);
    desk.messages.clear();
    desk.handle(Event::Reconnected);
    assert!(desk.messages.is_empty() && desk.asked.is_empty());
}

#[test]
fn what_an_owner_was_too_busy_for_is_committed_later() {
    let mut desk = Desk::of(2);
    let settings = DocumentSettings {
        staged_entries_max: 1,
        ..DocumentSettings::default()
    };
    desk.document = Document::new(ME, ME, settings);
    for (session, client) in [(1, "ann"), (2, "bea"), (3, "cat")] {
        desk.submit(session, edit(client, 1, 2));
    }
    desk.settle();
    for session in 1..=3 {
        assert!(desk.sent(session).iter().all(|it| it.starts_with("op")));
    }
    assert_eq!(desk.log()[2..], ["ann/1", "bea/1", "cat/1"]);
}

#[test]
fn what_nobody_needs_is_idle() {
    let mut desk = Desk::of(8);
    desk.subscribe(1, None);
    desk.fetch(2, 0);
    desk.submit(3, edit("ann", 1, 2));
    assert!(!desk.document.is_idle());
    desk.settle();
    desk.leave(1);
    desk.submit(4, edit("cat", 1, 9));
    desk.leave(4);
    assert!(
        !desk.document.forwarder.is_waiting(),
        "what it said is left to the log"
    );
    desk.settle();
    assert!(desk.document.is_idle());
    for session in 1..=3 {
        assert!(
            !desk.document.has_session(SessionId(session)),
            "session {session}"
        );
    }
}

#[test]
fn who_may_not_write_any_more_commits_nothing_that_waited() {
    let mut desk = Desk::of(1);
    desk.subscribe(1, 1);
    for seq in 1..=3 {
        desk.submit(1, edit("ann", seq, 1));
    }
    desk.submit(2, edit("bob", 9, 1));
    desk.handle(Event::WriteAccessRevoked(SessionId(1)));
    let refused = |sent: Vec<String>| sent.iter().filter(|it| *it == "Forbidden").count();
    // Only the first was with the owner; the others are answered at once.
    assert_eq!(refused(desk.sent(1)), 2);
    desk.settle();
    assert_eq!(refused(desk.sent(1)), 0);
    assert_eq!(desk.log()[1..], ["ann/1", "bob/9"]);
    // Allowed again, it goes on.
    desk.submit(1, edit("ann", 4, 3));
    desk.settle();
    assert_eq!(desk.log()[3..], ["ann/4"]);
}

#[test]
fn what_waits_for_an_owner_is_not_settled() {
    let mut desk = Desk::of(1);
    assert!(desk.document.is_settled());
    for seq in 1..=2 {
        desk.submit(1, edit("ann", seq, 1));
    }
    assert!(
        desk.document.owned_epoch().is_none(),
        "the claim is under way"
    );
    while !desk.asked.is_empty() {
        assert!(!desk.document.is_settled());
        desk.answer();
    }
    assert!(desk.document.is_settled());
    assert_eq!(desk.log(), ["maker/1", "ann/1", "ann/2"]);
}

#[test]
fn what_waits_for_a_claim_waits_in_few_bytes() {
    let settings = DocumentSettings {
        staged_bytes_max: 1_000,
        ..DocumentSettings::default()
    };
    let mut document = Document::new(ME, ME, settings);
    let long = format!(r#"["{}"]"#, "x".repeat(600));
    for client in ["ann", "cat", "dan"] {
        let message =
            PeerMessage::Submit(submit(client, 1, 0, Proposal::Edit(long.as_str().into())));
        document.handle(
            Event::PeerMessage {
                from: OTHER,
                message,
            },
            Now::default(),
        );
    }
    assert_eq!(document.waiting.len(), 2);
}
