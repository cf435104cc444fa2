mod bounds;
mod damage;
mod divergence;
mod outage;

use std::collections::BTreeMap;

use futures_util::FutureExt;

use super::*;
use crate::doc::SessionReply;
use crate::doc::peer_subscriptions::SUBSCRIPTION_LASTS;
use crate::doc::retry_timers::{
    RECLAIM_PAUSE, RESEND_FIRST, RESEND_LAST, RETRY_FIRST, RETRY_LAST, SUBSCRIBE_AGAIN,
};
use crate::doc::submit::Submit;
use crate::doc::{EncodedSnapshot, Proposal};
use crate::id::{ClientId, DocId, UserId};
use crate::log::{Change, Entry, Revision, Snapshot, SubmitId, Tail};
use crate::ot::{Content, Kind};
use crate::store::{Batch, LoadRange, MemoryStore, Store};

const ME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);

/// A document in front of a `MemoryStore`. Its requests to the store wait until the test has them answered.
struct TestDocument {
    document: Document,
    store: MemoryStore,
    doc: DocId,
    clock: Duration,
    requests: VecDeque<Action>,
    /// What each session was sent, in short words.
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

impl TestDocument {
    /// A document without sessions. Its log holds the creation by `maker` and then edits by `bob`, up to `head`.
    fn of(head: u64) -> Self {
        let settings = DocumentSettings {
            tail_entries_max: 3,
            ..DocumentSettings::default()
        };
        let test = Self {
            document: Document::new(ME, ME, settings),
            store: MemoryStore::new(),
            doc: DocId::parse("c", "d").unwrap(),
            clock: Duration::from_secs(100),
            requests: VecDeque::new(),
            sent: BTreeMap::new(),
            messages: Vec::new(),
            tickets: 0,
        };
        if head > 0 {
            test.append_elsewhere(1, head);
        }
        test
    }

    /// A document that another node owns, with one subscribed session.
    fn following(head: u64) -> Self {
        let mut test = Self::of(head);
        test.handle(Event::OwnerChanged(OTHER));
        test.subscribe(1, None);
        test.answer_all();
        test
    }

    /// Another node claims the document and appends these revisions.
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
            | Action::ReportRefused(_)
            | Action::RefoldSnapshot { .. }
            | Action::SaveSnapshot { .. } => self.requests.push_back(action),
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

    /// The store answers the oldest request.
    fn answer(&mut self) {
        let action = self.requests.pop_front().expect("the store was asked");
        let event = match action {
            Action::LoadSnapshot => Event::SnapshotEncoded(Ok(self.show())),
            Action::EncodeSnapshot(snapshot) => {
                Event::SnapshotEncoded(Ok((Arc::new(encoded(&snapshot)), vec![])))
            }
            Action::LoadPage { requester, since } => {
                let loaded = now(self.store.load(&self.doc, LoadRange::Since(since)));
                // Two entries a page, so that catch-ups take several pages.
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
                // As with a snapshot near the head: the tail begins there.
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

    /// The store fails to answer the oldest request. An append is carried out nevertheless if `done`.
    fn fail(&mut self, done: bool) {
        let error = || StoreError::new("ask", "away");
        let event = match self.requests.pop_front().expect("the store was asked") {
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

    /// The store answers everything and time passes, until the document waits for nothing.
    fn settle(&mut self) {
        for _ in 0..100 {
            if !self.requests.is_empty() {
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

    /// The store answers everything; no time passes.
    fn answer_all(&mut self) {
        while !self.requests.is_empty() {
            self.answer();
        }
    }

    /// The message of an owner elsewhere with the commits from `since` to `until`.
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

    /// What a session was sent since the last call.
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

/// The answer of the `MemoryStore`, which is ready at once.
fn now<T>(answer: impl Future<Output = Result<T, StoreError>>) -> T {
    answer
        .now_or_never()
        .expect("at once")
        .expect("memory does not fail")
}

const NONE: [&str; 0] = [];

#[test]
fn subscriber_gets_the_document_then_each_commit() {
    let mut test = TestDocument::of(3);
    test.subscribe(1, None);
    assert_eq!(test.sent(1), NONE);
    test.settle();
    test.submit(2, edit("ann", 1, 3));
    test.settle();
    assert_eq!(test.sent(1), ["shown 3", "op 4"]);
    assert_eq!(
        test.sent(2),
        ["op 4"],
        "the author is sent its commit, subscribed or not"
    );
}

#[test]
fn reconnecting_client_gets_missed_commits_then_each_commit() {
    for (since, expected) in [
        (6, vec!["done"]),
        (5, vec!["op 6", "done"]),
        (
            0,
            vec!["op 1", "op 2", "op 3", "op 4", "op 5", "op 6", "done"],
        ),
    ] {
        let mut test = TestDocument::of(6);
        test.subscribe(1, since);
        test.settle();
        assert_eq!(test.sent(1), expected, "since {since}");
        test.submit(2, edit("ann", 1, 6));
        test.settle();
        assert_eq!(test.sent(1), ["op 7"], "since {since}");
    }
}

#[test]
fn client_ahead_of_the_log_is_rejected() {
    // Owned here and elsewhere, with a subscriber and without.
    for (owner, reads) in [(ME, true), (ME, false), (OTHER, true), (OTHER, false)] {
        let mut test = TestDocument::of(6);
        test.handle(Event::OwnerChanged(owner));
        if reads {
            test.subscribe(9, None);
        }
        if owner == ME {
            test.submit(8, edit("ann", 1, 6));
        } else {
            test.append_elsewhere(7, 7);
        }
        test.answer_all();
        for (session, since, answer) in [
            (1, 7, "done"),
            (2, 8, "FutureRevision"),
            (3, 1_000, "FutureRevision"),
        ] {
            test.subscribe(session, since);
            test.answer_all();
            assert_eq!(
                test.sent(session),
                [answer],
                "{owner}, {reads}: since {since}"
            );
        }
    }
}

#[test]
fn client_ahead_of_its_node_is_served_from_the_store() {
    for reads in [true, false] {
        let mut test = TestDocument::of(2);
        test.handle(Event::OwnerChanged(OTHER));
        if reads {
            test.subscribe(9, None);
        }
        test.answer_all();
        test.append_elsewhere(3, 6);
        test.subscribe(1, 4);
        test.answer_all();
        // The entries that the node reads for itself are sent once more, and the client ignores them.
        assert_eq!(test.sent(1)[..3], ["op 5", "op 6", "done"]);
        let told = test.commits(6, 6);
        test.append_elsewhere(7, 7);
        test.handle(told);
        let told = test.commits(6, 7);
        test.handle(told);
        assert_eq!(test.sent(1), ["op 7"]);
        if reads {
            let sent = ["shown 2", "op 3", "op 4", "op 5", "op 6", "op 7"];
            assert_eq!(test.sent(9), sent);
        }
    }
}

#[test]
fn read_without_a_subscription_returns_the_stored_head() {
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
            let mut test = TestDocument::of(2);
            test.handle(Event::OwnerChanged(OTHER));
            // The last subscriber leaves, and the subscription with the owner is not renewed.
            test.subscribe(1, None);
            test.answer_all();
            test.leave(1);
            test.append_elsewhere(3, 9);
            test.messages.clear();
            if subscribes {
                test.subscribe(2, since);
            } else {
                test.fetch(2, since);
            }
            test.answer_all();
            assert_eq!(test.sent(2), expected, "subscribes: {subscribes}");
            // The next subscriber renews it at once.
            let said = |(to, message): &(NodeId, PeerMessage)| {
                *to == OTHER && matches!(message, PeerMessage::Subscribe { since: Revision(9) })
            };
            assert_eq!(test.messages.iter().any(said), subscribes);
        }
    }
}

#[test]
fn snapshot_requested_before_a_read_does_not_answer_it() {
    for since in [None, Some(2)] {
        let mut test = TestDocument::of(2);
        test.handle(Event::OwnerChanged(OTHER));
        test.fetch(1, None);
        let read_before = Event::SnapshotEncoded(Ok(test.show()));
        test.append_elsewhere(3, 3);
        test.fetch(2, since);
        test.requests.clear();
        test.handle(read_before);
        assert_eq!(test.sent(1), ["shown 2"]);
        assert_eq!(test.sent(2), NONE);
        test.answer_all();
        match since {
            None => assert_eq!(test.sent(2), ["shown 3"]),
            Some(_) => assert_eq!(test.sent(2), ["op 3", "done"]),
        }
    }
}

#[test]
fn reconnecting_client_waits_for_the_known_head() {
    let mut test = TestDocument::following(2);
    test.append_elsewhere(3, 4);
    test.handle(Event::HeadAdvanced(Revision(4)));
    test.fetch(2, 2);
    assert_eq!(test.sent(2), NONE);
    test.answer_all();
    assert_eq!(test.sent(2), ["op 3", "op 4", "done"]);
}

#[test]
fn log_that_grows_while_a_gap_is_read_is_read_again() {
    let mut test = TestDocument::following(2);
    // The named head is wrong; before the store shows that, the owner sends the commits.
    test.handle(Event::HeadAdvanced(Revision(3)));
    let read_before = Event::PageLoaded {
        requester: PageRequester::Gap,
        since: Revision(2),
        page: Ok(Vec::new()),
    };
    test.requests.clear();
    test.append_elsewhere(3, 5);
    let told = test.commits(4, 5);
    test.handle(told);
    test.handle(read_before);
    test.answer_all();
    assert_eq!(test.sent(1), ["shown 2", "op 3", "op 4", "op 5"]);
}

#[test]
fn empty_catch_up_page_does_not_end_a_gap() {
    let mut test = TestDocument::following(2);
    test.append_elsewhere(3, 3);
    test.handle(Event::HeadAdvanced(Revision(3)));
    // The page was read for another session, before the entry existed.
    test.handle(Event::PageLoaded {
        requester: PageRequester::CatchUp(SessionId(1)),
        since: Revision(2),
        page: Ok(Vec::new()),
    });
    test.answer_all();
    assert_eq!(test.sent(1), ["shown 2", "op 3"]);
}

#[test]
fn client_behind_the_tail_catches_up_page_by_page() {
    let mut test = TestDocument::of(8);
    test.subscribe(1, None);
    test.settle();
    test.submit(1, edit("ann", 1, 8));
    test.settle();
    test.sent(1);
    test.subscribe(2, 0);
    test.subscribe(3, 1);
    test.answer();
    // A new commit meanwhile is delivered after the missing ones.
    test.submit(1, edit("ann", 2, 9));
    test.settle();
    let walked: Vec<String> = (1..=10).map(|revision| format!("op {revision}")).collect();
    for (session, first) in [(2, 0), (3, 1)] {
        let mut sent = test.sent(session);
        let done = sent.iter().position(|it| it == "done").expect("an answer");
        sent.remove(done);
        assert_eq!(sent, walked[first..], "session {session}");
    }
    assert_eq!(test.sent(1), ["op 10"]);
}

#[test]
fn fetch_does_not_end_the_subscription() {
    for since in [None, Some(0), Some(3)] {
        let mut test = TestDocument::of(3);
        test.subscribe(1, None);
        test.settle();
        test.fetch(1, since);
        test.settle();
        test.sent(1);
        test.submit(2, edit("ann", 1, 3));
        test.settle();
        assert_eq!(test.sent(1), ["op 4"], "fetched since {since:?}");
    }
}

#[test]
fn commits_follow_a_snapshot_fetched_by_a_subscriber() {
    let mut test = TestDocument::of(3);
    test.subscribe(1, None);
    test.submit(2, edit("ann", 1, 3));
    test.settle();
    test.sent(1);
    // The client has dropped the document and ignores commits until the snapshot arrives.
    test.fetch(1, None);
    test.submit(2, edit("ann", 2, 4));
    let encode = test.requests.pop_front().expect("a snapshot to encode");
    test.answer();
    test.requests.push_front(encode);
    test.settle();
    assert_eq!(test.sent(1), ["op 5", "shown 4", "op 5"]);
}

#[test]
fn no_commits_follow_a_fetch() {
    for since in [None, Some(1)] {
        let mut test = TestDocument::of(2);
        test.fetch(1, since);
        test.settle();
        let first = test.sent(1);
        test.submit(2, edit("ann", 1, 2));
        test.settle();
        assert_eq!(test.sent(1), NONE);
        match since {
            None => assert_eq!(first, ["shown 2"]),
            Some(_) => assert_eq!(first, ["op 2", "done"]),
        }
    }
}

#[test]
fn no_commits_follow_an_unsubscribe() {
    for (since, answers, expected) in [
        // Before the document is known, during a catch-up, and after it.
        (None, 0, vec!["done", "shown 8"]),
        (Some(0), 0, vec!["done", "done"]),
        (Some(0), 2, vec!["op 1", "op 2", "done", "done"]),
        (None, 9, vec!["shown 8", "done"]),
    ] {
        let mut test = TestDocument::of(8);
        if answers > 0 {
            // Commits of another client push the old entries out of the tail.
            test.submit(9, edit("ann", 9, 8));
            test.settle();
        }
        let mut test = if answers == 9 {
            TestDocument::of(8)
        } else {
            test
        };
        test.subscribe(1, since);
        match answers {
            0 => {}
            2 => test.answer(),
            _ => test.settle(),
        }
        test.unsubscribe(1);
        test.settle();
        test.submit(9, edit("ann", 10, None));
        test.settle();
        assert_eq!(test.sent(1), expected, "since {since:?}, {answers} answers");
    }
}

#[test]
fn unsubscribe_during_catch_up_starts_the_next_catch_up() {
    let mut test = TestDocument::of(8);
    test.submit(9, edit("ann", 1, 8));
    test.settle();
    test.subscribe(1, 0);
    test.fetch(1, 4);
    test.answer();
    test.unsubscribe(1);
    test.settle();
    let first_page = ["op 1", "op 2", "done", "done"];
    let rest = ["op 5", "op 6", "op 7", "op 8", "op 9", "done"];
    assert_eq!(test.sent(1), [&first_page[..], &rest].concat());
}

#[test]
fn slow_catch_up_does_not_delay_other_clients() {
    let mut test = TestDocument::of(8);
    test.submit(9, edit("ann", 1, 8));
    test.settle();
    test.subscribe(1, 0);
    test.subscribe(2, 4);
    // The page of the first client is loaded when its socket has drained.
    let is_slow = |action: &Action| {
        let requester = PageRequester::CatchUp(SessionId(1));
        matches!(action, Action::LoadPage { requester: of, .. } if *of == requester)
    };
    test.requests.retain(|action| !is_slow(action));
    test.settle();
    assert_eq!(
        test.sent(2),
        ["op 5", "op 6", "op 7", "op 8", "op 9", "done"]
    );
}

#[test]
fn snapshot_owed_by_an_ended_sequencer_is_loaded() {
    let mut test = TestDocument::of(2);
    test.submit(9, edit("ann", 1, 2));
    test.answer();
    // The append is under way: the snapshot shows the state that it leads to.
    test.subscribe(1, None);
    test.fail(true);
    test.settle();
    assert_eq!(test.sent(1).first().map(String::as_str), Some("shown 3"));
    assert_eq!(test.sent(9), ["op 3"]);
    // The same if the sequencer ends because of a future base.
    let mut test = TestDocument::of(2);
    test.submit(9, edit("ann", 1, 2));
    test.answer();
    test.subscribe(1, None);
    test.wait(RECLAIM_PAUSE);
    test.submit(8, edit("eve", 1, 1_000));
    test.settle();
    assert!(test.sent(1).iter().any(|it| it.starts_with("shown")));
    assert_eq!(test.log(), ["maker/1", "bob/1", "ann/1"]);
}

#[test]
fn append_with_unknown_outcome_is_committed_once() {
    for done in [true, false] {
        let mut test = TestDocument::of(2);
        test.subscribe(1, None);
        test.settle();
        test.submit(1, edit("ann", 1, 2));
        test.answer();
        test.fail(done);
        assert_eq!(
            test.sent(1),
            ["shown 2"],
            "nothing is sent while the outcome is unknown"
        );
        test.settle();
        assert_eq!(test.sent(1), ["op 3"], "done: {done}");
        assert_eq!(test.log(), ["maker/1", "bob/1", "ann/1"]);
    }
}

#[test]
fn fenced_owner_claims_again_and_keeps_the_order() {
    let mut test = TestDocument::of(2);
    test.subscribe(1, 2);
    test.settle();
    test.submit(1, edit("ann", 1, 2));
    test.settle();
    test.append_elsewhere(4, 5);
    test.submit(1, edit("ann", 2, 3));
    test.settle();
    assert_eq!(test.sent(1), ["done", "op 3", "op 4", "op 5", "op 6"]);
    assert_eq!(test.log()[2..], ["ann/1", "bob/3", "bob/4", "ann/2"]);
}

#[test]
fn future_base_is_rejected_after_one_claim() {
    let mut test = TestDocument::of(2);
    test.submit(1, edit("ann", 1, 2));
    test.settle();
    test.sent(1);
    let mut claims = 0;
    for seq in 2..5 {
        test.submit(1, edit("ann", seq, 1_000));
    }
    // One is with the owner at a time; each causes a claim, with pauses between the claims.
    let began = test.clock;
    while test.sent.get(&1).is_none_or(|sent| sent.len() < 3) {
        match test.requests.front() {
            Some(Action::Claim) => {
                claims += 1;
                test.answer();
            }
            Some(other) => panic!("{other:?}"),
            None => {
                let at = test.document.timeout().expect("a retry is due");
                test.wait(at.saturating_sub(test.clock));
            }
        }
    }
    let refused = vec!["FutureRevision"; 3];
    assert_eq!(test.sent(1), refused);
    assert!(RECLAIM_PAUSE * claims <= test.clock - began + RECLAIM_PAUSE);
    assert!(claims <= 3);
}

#[test]
fn owner_behind_the_log_claims_before_it_rejects() {
    let mut test = TestDocument::of(2);
    test.submit(1, edit("ann", 1, 2));
    test.settle();
    test.append_elsewhere(4, 4);
    test.submit(2, edit("cat", 1, 4));
    test.settle();
    assert_eq!(test.sent(2), ["op 5"]);
    assert_eq!(test.log().last().map(String::as_str), Some("cat/1"));
}

#[test]
fn reused_seq_is_rejected_and_other_submits_commit() {
    // The first copy is no longer in memory, and the base of the copy is newer than it.
    let mut test = TestDocument::of(0);
    test.submit(1, submit("ann", 1, 0, Proposal::Create(text(""))));
    test.submit(1, edit("ann", 2, None));
    test.settle();
    for seq in 3..8 {
        test.submit(1, edit("ann", seq, None));
        test.settle();
    }
    test.sent(1);
    test.submit(1, edit("ann", 2, 7));
    test.submit(2, edit("bob", 1, 7));
    test.submit(3, edit("cat", 1, 7));
    test.settle();
    assert_eq!(test.sent(1), ["Malformed"]);
    assert_eq!(test.log()[7..], ["bob/1", "cat/1"]);
    // The same in an append with other entries.
    test.submit(2, edit("bob", 2, 9));
    test.submit(1, edit("ann", 3, 9));
    test.submit(3, edit("cat", 2, 9));
    test.settle();
    assert_eq!(test.sent(1), ["Malformed"]);
    assert_eq!(test.log()[9..], ["bob/2", "cat/2"]);
}

/// How many entries a client without a subscription is sent that submits `count` edits on revision 8, before the first is
/// answered. `is_in_tail`: whether the entries since 8 are in memory.
fn entries_sent_for_submits_on_one_base(count: u64, is_in_tail: bool) -> usize {
    let mut test = TestDocument::of(8);
    if !is_in_tail {
        for seq in 1..=8 {
            test.submit(9, edit("bob2", seq, 7 + seq));
            test.settle();
        }
    }
    for seq in 1..=count {
        test.submit(1, edit("ann", seq, 8));
    }
    test.settle();
    let sent = test.sent(1);
    let head = test.log().len() as u64;
    let expected: Vec<String> = (9..=head)
        .map(|revision| format!("op {revision}"))
        .collect();
    assert_eq!(sent, expected, "each commit once, in order");
    sent.len()
}

#[test]
fn answers_to_submits_on_one_base_grow_with_their_number() {
    for (is_in_tail, others) in [(true, 0), (false, 8)] {
        for count in [6, 12] {
            let entries = entries_sent_for_submits_on_one_base(count, is_in_tail);
            assert_eq!(entries, count as usize + others, "in tail: {is_in_tail}");
        }
    }
}

#[test]
fn submit_repeated_by_a_client_without_a_subscription_is_answered_with_its_commit() {
    let mut test = TestDocument::of(3);
    for _ in 0..3 {
        test.submit(1, edit("ann", 1, 1));
        test.settle();
    }
    assert_eq!(test.sent(1), ["op 2", "op 3", "op 4", "op 4", "op 4"]);
    // A client that reads the document anew is sent everything again.
    test.fetch(1, 3);
    test.settle();
    test.sent(1);
    test.submit(1, edit("ann", 1, 1));
    test.settle();
    assert_eq!(test.sent(1), ["op 2", "op 3", "op 4"]);
}

#[test]
fn commit_of_a_submit_without_a_base_is_sent_again_to_an_older_base() {
    let mut test = TestDocument::of(3);
    test.submit(1, edit("ann", 1, None));
    test.settle();
    assert_eq!(test.sent(1), ["op 4"]);
    test.submit(1, edit("ann", 2, 3));
    test.settle();
    assert_eq!(test.sent(1), ["op 4", "op 5"]);
}

#[test]
fn submit_repeated_on_a_new_socket_is_answered_there() {
    let mut test = TestDocument::of(2);
    test.submit(1, edit("ann", 1, 2));
    // The server notices the broken socket only after the client has reconnected.
    test.submit(2, edit("ann", 1, 2));
    test.subscribe(2, 2);
    test.leave(1);
    test.settle();
    let sent = test.sent(2);
    assert!(
        sent.contains(&"op 3".to_owned()) && sent.contains(&"done".to_owned()),
        "{sent:?}"
    );
    assert_eq!(test.log().len(), 3);
    assert!(!test.document.has_session(SessionId(1)));
}

#[test]
fn submit_sent_on_two_sockets_is_answered_on_both() {
    let mut test = TestDocument::of(2);
    // The old socket sends next what the new one has sent already.
    test.submit(1, edit("ann", 1, 2));
    test.submit(1, edit("ann", 2, 2));
    test.submit(2, edit("ann", 2, 2));
    test.submit(2, edit("ann", 3, 2));
    // No time passes, so that nothing is sent again.
    test.answer_all();
    assert_eq!(test.log()[2..], ["ann/1", "ann/2", "ann/3"]);
    assert!(test.sent(1).contains(&"op 4".to_owned()));
    assert!(test.sent(2).contains(&"op 5".to_owned()));
    assert!(test.document.is_idle());
}

#[test]
fn submits_of_one_session_keep_their_order() {
    let mut test = TestDocument::of(1);
    for seq in 1..=3 {
        test.submit(1, edit("ann", seq, 1));
    }
    test.settle();
    assert_eq!(test.log(), ["maker/1", "ann/1", "ann/2", "ann/3"]);
    // The same if the first has to be rebased from the store and the next has not.
    let mut test = TestDocument::of(8);
    test.submit(9, edit("zoe", 1, 8));
    test.settle();
    test.submit(1, edit("ann", 1, 1));
    test.submit(1, edit("ann", 2, None));
    test.settle();
    assert_eq!(test.log()[9..], ["ann/1", "ann/2"]);
}

#[test]
fn append_answer_of_an_older_claim_is_ignored() {
    let mut test = TestDocument::of(2);
    test.submit(1, edit("ann", 1, 2));
    test.settle();
    test.wait(RECLAIM_PAUSE);
    test.submit(1, edit("ann", 2, 3));
    let append = test.requests.pop_front().expect("an append");
    // A future base makes the owner claim again, and the pending submits are sent again.
    test.submit(2, edit("eve", 1, 1_000));
    test.answer();
    assert!(matches!(test.requests.front(), Some(Action::Append { .. })));
    test.sent(1);
    let Action::Append { fence, .. } = append else {
        panic!("an append")
    };
    let result = Ok(Ok(()));
    test.handle(Event::Appended { fence, result });
    assert_eq!(test.sent(1), NONE, "the append under way is another one");
    test.settle();
    assert_eq!(test.sent(1), ["op 4"]);
}

#[test]
fn requests_during_a_store_failure_are_served_afterwards() {
    let mut test = TestDocument::of(6);
    test.subscribe(1, None);
    test.submit(2, edit("ann", 1, 3));
    for _ in 0..3 {
        while !test.requests.is_empty() {
            test.fail(false);
        }
        let at = test.document.timeout().expect("a resend is due");
        test.wait(at.saturating_sub(test.clock));
    }
    assert_eq!(test.sent(1), NONE);
    test.settle();
    assert_eq!(test.sent(1)[0], "shown 6");
    assert_eq!(test.sent(2).last().map(String::as_str), Some("op 7"));
}

#[test]
fn read_that_waits_too_long_is_rejected() {
    let mut test = TestDocument::of(2);
    test.subscribe(1, None);
    for _ in 0..20 {
        while !test.requests.is_empty() {
            test.fail(false);
        }
        test.wait(Duration::from_secs(1));
    }
    assert_eq!(test.sent(1), ["StoreUnavailable"]);
    assert!(test.document.is_idle());
}

#[test]
fn catch_up_resumes_after_a_store_failure() {
    let mut test = TestDocument::of(8);
    test.submit(9, edit("ann", 1, 8));
    test.settle();
    test.subscribe(1, 0);
    test.answer();
    test.fail(false);
    test.settle();
    assert_eq!(test.sent(1).len(), 10);
}

#[test]
fn gap_is_filled_from_the_store() {
    let mut test = TestDocument::of(2);
    test.subscribe(1, None);
    test.settle();
    test.handle(Event::OwnerChanged(OTHER));
    test.append_elsewhere(3, 6);
    let commits = |test: &TestDocument, since: u64, until: usize| PeerMessage::Commits {
        head: Revision(until as u64),
        entries: test.head().1[since as usize..until].to_vec(),
    };
    // 5 arrived, 3 and 4 are missing. While they are read, the owner sends them too.
    let fifth = commits(&test, 4, 5);
    let message = |message| Event::PeerMessage {
        from: OTHER,
        message,
    };
    test.handle(message(fifth));
    let all = commits(&test, 2, 4);
    test.handle(message(all));
    while !test.requests.is_empty() {
        test.answer();
    }
    assert_eq!(test.sent(1), ["shown 2", "op 3", "op 4", "op 5", "op 6"]);
    assert_eq!(test.document.forwarder.head(), Revision(6));
    // A second gap is filled as well.
    test.append_elsewhere(7, 9);
    let ninth = commits(&test, 8, 9);
    test.handle(message(ninth));
    while !test.requests.is_empty() {
        test.answer();
    }
    assert_eq!(test.sent(1), ["op 7", "op 8", "op 9"]);
}

#[test]
fn peer_subscription_survives_a_change_of_owner() {
    let mut test = TestDocument::of(2);
    let message = PeerMessage::Subscribe { since: Revision(2) };
    test.handle(Event::PeerMessage {
        from: OTHER,
        message,
    });
    assert!(test.requests.is_empty(), "reading needs no owner");
    test.submit(1, edit("ann", 1, 2));
    // The document is not idle until the subscription expires.
    while test.messages.is_empty() {
        test.answer();
    }
    let (to, PeerMessage::Commits { head, entries }) = &test.messages[0] else {
        panic!("{:?}", test.messages);
    };
    assert_eq!((*to, *head, entries.len()), (OTHER, Revision(3), 1));
    test.messages.clear();
    test.wait(SUBSCRIPTION_LASTS);
    test.submit(1, edit("ann", 2, 3));
    while !test.requests.is_empty() {
        test.answer();
    }
    assert!(test.messages.is_empty(), "{:?}", test.messages);
}

#[test]
fn owner_not_named_by_the_ring_ends_when_quiet() {
    let mut test = TestDocument::of(2);
    test.submit(1, edit("ann", 1, 2));
    // The claim succeeds; the append is under way.
    test.answer();
    test.handle(Event::OwnerChanged(OTHER));
    assert!(test.document.owned_epoch().is_some());
    while !test.requests.is_empty() {
        test.answer();
    }
    assert!(test.document.owned_epoch().is_none());
    assert_eq!(test.log().last().map(String::as_str), Some("ann/1"));
    test.messages.clear();
    test.submit(1, edit("ann", 2, 3));
    let (to, PeerMessage::Submit(submit, _)) = &test.messages[0] else {
        panic!("{:?}", test.messages);
    };
    assert_eq!((*to, submit.id.seq), (OTHER, 2));
}

#[test]
fn owner_behind_a_known_head_steps_down() {
    let mut test = TestDocument::of(2);
    test.submit(1, edit("ann", 1, 2));
    test.settle();
    assert!(test.document.owned_epoch().is_some());
    let told = |head| {
        let (from, head) = (OTHER, Revision(head));
        let entries = Vec::new();
        Event::PeerMessage {
            from,
            message: PeerMessage::Commits { head, entries },
        }
    };
    test.handle(told(3));
    assert!(
        test.document.owned_epoch().is_some(),
        "the head is the one it knows"
    );
    test.append_elsewhere(4, 4);
    test.handle(told(4));
    assert!(test.document.owned_epoch().is_none());
    // A new reader is served no less than the known head.
    test.subscribe(2, None);
    test.settle();
    assert_eq!(test.sent(2), ["shown 4"]);
}

#[test]
fn outdated_snapshot_is_requested_with_a_delay() {
    let mut test = TestDocument::of(2);
    test.subscribe(1, None);
    test.settle();
    // The store lags behind what the node was told.
    test.handle(Event::HeadAdvanced(Revision(9)));
    test.subscribe(2, None);
    for _ in 0..3 {
        let shown = test
            .requests
            .iter()
            .filter(|it| matches!(it, Action::LoadSnapshot));
        assert!(shown.count() <= 1);
        while !test.requests.is_empty() {
            test.answer();
        }
        test.wait(RETRY_FIRST);
    }
    test.append_elsewhere(3, 9);
    test.handle(Event::HeadAdvanced(Revision(9)));
    test.settle();
    assert_eq!(test.sent(2).first().map(String::as_str), Some("shown 9"));
}

#[test]
fn unanswered_submit_is_sent_again() {
    let mut test = TestDocument::of(2);
    test.handle(Event::OwnerChanged(OTHER));
    test.subscribe(1, 2);
    test.submit(1, edit("ann", 1, 2));
    while !test.requests.is_empty() {
        test.answer();
    }
    test.messages.clear();
    test.wait(RESEND_FIRST);
    assert!(
        matches!(test.messages[0], (OTHER, PeerMessage::Submit(..))),
        "{:?}",
        test.messages
    );
    test.messages.clear();
    test.wait(SUBSCRIBE_AGAIN);
    let subscribes = |(_, message): &(NodeId, PeerMessage)| {
        matches!(message, PeerMessage::Subscribe { since: Revision(2) })
    };
    assert!(test.messages.iter().any(subscribes), "{:?}", test.messages);
}

#[test]
fn resends_to_a_silent_owner_back_off() {
    let mut test = TestDocument::of(2);
    test.handle(Event::OwnerChanged(OTHER));
    let asked_at = |test: &mut TestDocument, until: u64| {
        let mut at = Vec::new();
        let began = test.clock;
        while test.clock < began + Duration::from_millis(until) {
            test.messages.clear();
            test.wait(RESEND_FIRST / 2);
            if !test.messages.is_empty() {
                at.push((test.clock - began).as_millis());
            }
        }
        at
    };
    test.submit(1, edit("ann", 1, 2));
    assert_eq!(
        asked_at(&mut test, 24_000),
        [400, 1_200, 2_800, 6_000, 11_000, 16_000, 21_000]
    );
    // A new submit, or another owner, restarts the delays.
    test.submit(2, edit("bob", 1, 2));
    assert_eq!(asked_at(&mut test, 1_500), [400, 1_200]);
    test.handle(Event::OwnerChanged(NodeId(3)));
    assert_eq!(asked_at(&mut test, 1_500), [400, 1_200]);
}

#[test]
fn pending_submit_is_sent_at_once_on_reconnect() {
    let mut test = TestDocument::of(2);
    test.handle(Event::OwnerChanged(OTHER));
    test.submit(1, edit("ann", 1, 2));
    // The owner is silent until the delay is five seconds.
    for _ in 0..20 {
        test.wait(RESEND_LAST);
    }
    test.messages.clear();
    test.handle(Event::Reconnected);
    assert!(
        matches!(test.messages[..], [(OTHER, PeerMessage::Submit(..))]),
        "{:?}",
        test.messages
    );
    // The delays start anew.
    test.messages.clear();
    test.wait(RESEND_FIRST);
    assert_eq!(test.messages.len(), 1);
}

#[test]
fn failed_store_requests_are_repeated_on_reconnect() {
    let mut test = TestDocument::of(2);
    test.submit(1, edit("ann", 1, 2));
    for _ in 0..20 {
        test.fail(false);
        test.wait(RETRY_LAST);
    }
    test.fail(false);
    assert_eq!(test.requests.len(), 0, "it waits for its next retry");
    test.handle(Event::Reconnected);
    let claims = test.requests.iter().any(|it| matches!(it, Action::Claim));
    assert!(claims, "{:?}", test.requests);
    test.settle();
    assert_eq!(test.log()[2..], ["ann/1"]);
}

#[test]
fn idle_document_does_nothing_on_reconnect() {
    let mut test = TestDocument::following(3);
    test.messages.clear();
    test.handle(Event::Reconnected);
    assert!(test.messages.is_empty() && test.requests.is_empty());
}

#[test]
fn submit_dropped_by_a_busy_owner_is_committed_later() {
    let mut test = TestDocument::of(2);
    let settings = DocumentSettings {
        staged_entries_max: 1,
        ..DocumentSettings::default()
    };
    test.document = Document::new(ME, ME, settings);
    for (session, client) in [(1, "ann"), (2, "bea"), (3, "cat")] {
        test.submit(session, edit(client, 1, 2));
    }
    test.settle();
    for session in 1..=3 {
        assert!(test.sent(session).iter().all(|it| it.starts_with("op")));
    }
    assert_eq!(test.log()[2..], ["ann/1", "bea/1", "cat/1"]);
}

#[test]
fn document_without_sessions_is_idle() {
    let mut test = TestDocument::of(8);
    test.subscribe(1, None);
    test.fetch(2, 0);
    test.submit(3, edit("ann", 1, 2));
    assert!(!test.document.is_idle());
    test.settle();
    test.leave(1);
    test.submit(4, edit("cat", 1, 9));
    test.leave(4);
    assert!(
        !test.document.forwarder.is_submit_pending(),
        "its submit may still be committed"
    );
    test.settle();
    assert!(test.document.is_idle());
    for session in 1..=3 {
        assert!(
            !test.document.has_session(SessionId(session)),
            "session {session}"
        );
    }
}

#[test]
fn revoked_write_access_rejects_waiting_submits() {
    let mut test = TestDocument::of(1);
    test.subscribe(1, 1);
    for seq in 1..=3 {
        test.submit(1, edit("ann", seq, 1));
    }
    test.submit(2, edit("bob", 9, 1));
    test.handle(Event::WriteAccessRevoked(SessionId(1)));
    let refused = |sent: Vec<String>| sent.iter().filter(|it| *it == "Forbidden").count();
    // Only the first was with the owner; the others are rejected at once.
    assert_eq!(refused(test.sent(1)), 2);
    test.settle();
    assert_eq!(refused(test.sent(1)), 0);
    assert_eq!(test.log()[1..], ["ann/1", "bob/9"]);
    // With access again, it continues.
    test.submit(1, edit("ann", 4, 3));
    test.settle();
    assert_eq!(test.log()[3..], ["ann/4"]);
}

#[test]
fn pending_submit_is_not_settled() {
    let mut test = TestDocument::of(1);
    assert!(test.document.is_settled());
    for seq in 1..=2 {
        test.submit(1, edit("ann", seq, 1));
    }
    assert!(
        test.document.owned_epoch().is_none(),
        "the claim is under way"
    );
    while !test.requests.is_empty() {
        assert!(!test.document.is_settled());
        test.answer();
    }
    assert!(test.document.is_settled());
    assert_eq!(test.log(), ["maker/1", "ann/1", "ann/2"]);
}

#[test]
fn submits_waiting_for_a_claim_are_bounded_in_bytes() {
    let settings = DocumentSettings {
        staged_bytes_max: 1_000,
        ..DocumentSettings::default()
    };
    let mut document = Document::new(ME, ME, settings);
    let long = format!(r#"["{}"]"#, "x".repeat(600));
    for client in ["ann", "cat", "dan"] {
        let message = PeerMessage::Submit(
            submit(client, 1, 0, Proposal::Edit(long.as_str().into())),
            None,
        );
        document.handle(
            Event::PeerMessage {
                from: OTHER,
                message,
            },
            Now::default(),
        );
    }
    assert_eq!(document.waiting_submits.len(), 2);
}
