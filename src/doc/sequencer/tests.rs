mod bounds;

use super::rebase::COPY_WITHIN;
use super::*;
use crate::doc::Proposal;
use crate::doc::effects::Effect;
use crate::id::{ClientId, UserId};
use crate::log::Epoch;
use crate::ot::{Content, Kind, Op};

const ME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);

/// A sequencer. Each submit and each answer of the store is one step of the test.
struct TestSequencer {
    sequencer: Sequencer,
    effects: Effects,
    /// What the sequencer added to the effects since [`take_output`](Self::take_output), appends apart.
    out: Vec<Effect>,
    appends: Vec<Vec<u64>>,
}

fn settings() -> DocumentSettings {
    DocumentSettings {
        tail_entries_max: 3,
        snapshot_entries: 1_000,
        document_bytes_max: 40,
        late_submits_max: 2,
        staged_entries_max: 3,
        behind_entries_max: 20,
        ..DocumentSettings::default()
    }
}

fn text(data: &str) -> Content {
    let json = serde_json::to_string(data).unwrap();
    Content::create(Kind::TextUnicode, Some(&json)).unwrap()
}

fn id(client: &str, seq: u64) -> SubmitId {
    SubmitId {
        author: UserId::new(&format!("user of {client}")),
        client: ClientId::parse(client).unwrap(),
        seq,
    }
}

fn edit(json: &str) -> Proposal {
    Proposal::Edit(json.into())
}

fn submit(client: &str, seq: u64, base: impl Into<Option<u64>>, proposal: Proposal) -> Submit {
    Submit {
        id: id(client, seq),
        base: base.into().map(Revision),
        proposal,
    }
}

impl TestSequencer {
    /// The sequencer of a document that never existed.
    fn of_nothing() -> Self {
        Self::with(settings())
    }

    /// The sequencer of a document that `maker` created at revision 1.
    fn of(data: &str) -> Self {
        let mut owner = Self::of_nothing();
        owner.commit(submit("maker", 1, 0, Proposal::Create(text(data))));
        owner
    }

    fn with(settings: DocumentSettings) -> Self {
        let fence = Fence {
            epoch: Epoch(1),
            token: 1,
        };
        let tail = Tail::new(Revision::ZERO);
        Self {
            sequencer: Sequencer::new(
                ME,
                fence,
                Snapshot::default(),
                tail,
                PeerSubscriptions::default(),
                settings,
            ),
            effects: Effects::new(ME),
            out: Vec::new(),
            appends: Vec::new(),
        }
    }

    /// The sequencer of the next owner, with the newest `entries` as its tail.
    fn reopened(self, entries: u64) -> Self {
        let head = self.sequencer.head.clone();
        let mut tail = Tail::new(Revision(head.revision.0 - entries));
        for entry in self.sequencer.log.tail().since(tail.start()).unwrap() {
            tail.push(entry.clone());
        }
        let fence = Fence {
            epoch: Epoch(2),
            token: 2,
        };
        Self {
            sequencer: Sequencer::new(
                ME,
                fence,
                head,
                tail,
                PeerSubscriptions::default(),
                settings(),
            ),
            effects: Effects::new(ME),
            out: Vec::new(),
            appends: Vec::new(),
        }
    }

    fn submit_from(&mut self, from: NodeId, submit: Submit) -> SubmitOutcome {
        let verdict = self
            .sequencer
            .submit(from, submit, Now::default(), &mut self.effects);
        self.gather();
        verdict
    }

    fn submit(&mut self, submit: Submit) -> SubmitOutcome {
        self.submit_from(ME, submit)
    }

    /// The append under way succeeds.
    fn appended(&mut self) {
        self.sequencer.appended(&mut self.effects);
        self.gather();
    }

    fn commit(&mut self, submit: Submit) {
        self.submit(submit);
        self.grant_slices();
        self.appended();
        self.out.clear();
    }

    /// Edits by `client`, one after the other, `seq` counting from 1.
    fn commits_by(&mut self, client: &str, edits: u64) {
        for seq in 1..=edits {
            let base = self.sequencer.head.revision.0;
            self.commit(submit(client, seq, base, edit(r#"["."]"#)));
        }
    }

    /// Moves the effects to `out`, and the revisions of appends to `appends`.
    fn gather(&mut self) {
        for effect in self.effects.drain() {
            match effect {
                Effect::Action(Action::Append { entries, .. }) => {
                    let revisions = entries.iter().map(|entry| entry.revision.0).collect();
                    self.appends.push(revisions);
                }
                effect => self.out.push(effect),
            }
        }
    }

    /// Grants all slices of work that are requested, and returns their number.
    fn grant_slices(&mut self) -> usize {
        let mut slices = 0;
        while self.sequencer.rebasing.is_slice_requested() {
            slices += 1;
            let now = Now::default();
            self.sequencer.slice_granted(now, &mut self.effects);
            self.gather();
            self.out
                .retain(|effect| !matches!(effect, Effect::Action(Action::RequestSlice(_))));
        }
        slices
    }

    /// The effects since the last call, in short words.
    fn take_output(&mut self) -> Vec<String> {
        self.gather();
        self.out.drain(..).map(|effect| sentence(&effect)).collect()
    }

    fn head(&self) -> String {
        match &self.sequencer.head.content {
            Some(Content::Text(_)) => {
                let mut json = Vec::new();
                let content = self.sequencer.head.content.as_ref().unwrap();
                content.write_json(&mut json);
                serde_json::from_slice(&json).unwrap()
            }
            Some(Content::Rich(_)) => "rich".to_owned(),
            None => "nothing".to_owned(),
        }
    }
}

fn sentence(effect: &Effect) -> String {
    let action = match effect {
        Effect::LocalMessage(message) => return message_sentence("me", message),
        Effect::Action(action) => action,
        other => unreachable!("a sequencer has no such effect: {other:?}"),
    };
    match action {
        Action::Send { message, .. } => message_sentence("other", message),
        Action::LoadPage { since, .. } => format!("page {since}"),
        Action::SaveSnapshot { snapshot, .. } => format!("save {}", snapshot.revision),
        Action::ReportRefused(entry) => format!("refused {}", entry.revision),
        Action::EncodeSnapshot(snapshot) => format!("encode {}", snapshot.revision),
        other => format!("{other:?}"),
    }
}

fn message_sentence(to: &str, message: &PeerMessage) -> String {
    match message {
        PeerMessage::Commits { entries, .. } => {
            let revisions: Vec<u64> = entries.iter().map(|it| it.revision.0).collect();
            format!("{to}: commits {revisions:?}")
        }
        PeerMessage::Reject { id, rejection } => {
            let (client, seq) = (id.client.as_str(), id.seq);
            format!("{to}: {client}/{seq} {:?}", rejection.reason)
        }
        PeerMessage::Subscribe { .. }
        | PeerMessage::Submit(..)
        | PeerMessage::SaveSnapshot
        | PeerMessage::Diverged { .. } => {
            unreachable!("an owner sends no such message")
        }
    }
}

const NONE: [&str; 0] = [];

#[test]
fn concurrent_changes_have_sharedb_outcomes() {
    // ShareDB's outcomes: the change committed since the base, the submitted change, the outcome.
    let create = || Proposal::Create(text("new"));
    let wins = "";
    let table = [
        ("edit", edit(r#"["b"]"#), wins),
        ("edit", create(), "AlreadyExists"),
        ("edit", Proposal::Delete, wins),
        ("create", edit(r#"["b"]"#), "AlreadyExists"),
        ("create", create(), "AlreadyExists"),
        ("create", Proposal::Delete, "AlreadyExists"),
        ("delete", edit(r#"["b"]"#), "Deleted"),
        ("delete", create(), "Deleted"),
        ("delete", Proposal::Delete, wins),
    ];
    for (committed, incoming, outcome) in table {
        let mut owner = if committed == "create" {
            TestSequencer::of_nothing()
        } else {
            TestSequencer::of("x")
        };
        let base = owner.sequencer.head.revision.0;
        owner.commit(match committed {
            "edit" => submit("bob", 1, base, edit(r#"["a"]"#)),
            "create" => submit("bob", 1, base, create()),
            _ => submit("bob", 1, base, Proposal::Delete),
        });
        let said = format!("{incoming:?} after {committed}");
        owner.submit(submit("ann", 1, base, incoming));
        let mut answers = owner.take_output();
        if outcome == wins {
            owner.appended();
            answers.extend(owner.take_output());
            assert_eq!(answers, [format!("me: commits [{}]", base + 2)], "{said}");
        } else {
            assert_eq!(answers, [format!("me: ann/1 {outcome}")], "{said}");
        }
    }
}

#[test]
fn submit_without_a_base_is_checked_against_the_head() {
    let create = || Proposal::Create(text("new"));
    for (exists, incoming, code) in [
        (true, create(), "AlreadyExists"),
        (false, edit(r#"["a"]"#), "DoesNotExist"),
        (true, edit("5"), "Malformed"),
        (true, edit(r#"[9,"a"]"#), "NotApplicable"),
    ] {
        let mut owner = if exists {
            TestSequencer::of("x")
        } else {
            TestSequencer::of_nothing()
        };
        owner.submit(submit("ann", 1, None, incoming.clone()));
        assert_eq!(
            owner.take_output(),
            [format!("me: ann/1 {code}")],
            "{incoming:?}"
        );
    }
    let mut owner = TestSequencer::of_nothing();
    owner.commit(submit("ann", 1, None, Proposal::Delete));
    owner.commit(submit("ann", 2, None, create()));
    assert_eq!(
        (owner.head(), owner.sequencer.head.revision),
        ("new".to_owned(), Revision(2)),
        "a delete of no document takes a revision, and a new document continues the count"
    );
}

#[test]
fn entry_times_never_fall() {
    let mut owner = TestSequencer::of("");
    let mut times = Vec::new();
    for (seq, wall_ms) in (1..).zip([5_000, 4_000, 5_001, 0, 90_000_000, 5_002, 90_000_001]) {
        let now = Now {
            wall_ms,
            ..Now::default()
        };
        let submit = submit("ann", seq, seq, edit(r#"["x"]"#));
        owner.sequencer.submit(ME, submit, now, &mut owner.effects);
        owner.appended();
        times.push(owner.sequencer.head.at_ms);
    }
    let later = 90_000_000;
    assert_eq!(times, [5_000, 5_000, 5_001, 5_001, later, later, later + 1]);
    // The next owner has a slow clock and continues from there.
    let mut next = owner.reopened(2);
    next.commit(submit("ann", 8, 8, edit(r#"["x"]"#)));
    assert_eq!(next.sequencer.head.at_ms, later + 1);
}

#[test]
fn later_op_is_placed_left() {
    let mut owner = TestSequencer::of("ab");
    owner.submit(submit("ann", 1, 1, edit(r#"[1,"A"]"#)));
    owner.submit(submit("bob", 1, 1, edit(r#"[1,"B"]"#)));
    assert_eq!(owner.head(), "aBAb");
}

#[test]
fn appends_are_grouped_while_one_is_under_way() {
    let mut owner = TestSequencer::of("ab");
    for (seq, client) in ["ann", "bob", "cat"].into_iter().enumerate() {
        owner.submit(submit(client, seq as u64, 1, edit(r#"["x"]"#)));
    }
    assert_eq!(
        owner.take_output(),
        NONE,
        "nothing is broadcast before it is durable"
    );
    owner.appended();
    assert_eq!(owner.take_output(), ["me: commits [2]"]);
    owner.appended();
    assert_eq!(owner.take_output(), ["me: commits [3, 4]"]);
    assert_eq!(owner.appends[1..], [vec![2], vec![3, 4]]);
}

#[test]
fn submit_without_a_base_follows_staged_entries() {
    let mut owner = TestSequencer::of("ab");
    owner.submit(submit("ann", 1, 1, edit(r#"[2,"x"]"#)));
    owner.submit(submit("bob", 1, None, edit(r#"[3,"y"]"#)));
    owner.submit(submit("cat", 1, None, Proposal::Delete));
    assert_eq!(owner.take_output(), NONE);
    owner.appended();
    owner.appended();
    assert_eq!(
        owner.take_output(),
        ["me: commits [2]", "me: commits [3, 4]"]
    );
}

#[test]
fn resent_submit_is_committed_once() {
    let x = || submit("ann", 1, 1, edit(r#"["x"]"#));
    // While it is staged, its commit will be the answer.
    let mut owner = TestSequencer::of("ab");
    owner.submit(x());
    owner.submit(x());
    owner.appended();
    assert_eq!(owner.take_output(), ["me: commits [2]"]);
    // When it is committed, it is sent with the later commits.
    owner.commit(submit("bob", 1, 2, edit(r#"["y"]"#)));
    owner.submit(x());
    assert_eq!(owner.take_output(), ["me: commits [2, 3]"]);
    // With the base it led to, the current base, and none.
    for base in [Some(2), Some(3), None] {
        owner.submit(submit("ann", 1, base, edit(r#"["x"]"#)));
        assert_eq!(owner.take_output(), ["me: commits [2, 3]"], "{base:?}");
    }
    assert_eq!(owner.head(), "yxab");
}

#[test]
fn same_submit_id_of_another_user_is_not_a_copy() {
    let mut owner = TestSequencer::of("ab");
    owner.commit(submit("ann", 1, 1, edit(r#"["x"]"#)));
    let mut stolen = submit("ann", 1, 1, edit(r#"["y"]"#));
    stolen.id.author = UserId::new("eve");
    owner.submit(stolen);
    owner.appended();
    assert_eq!(owner.take_output(), ["me: commits [3]"]);
    assert_eq!(owner.head(), "yxab");
}

#[test]
fn resent_create_is_recognised_by_the_document() {
    let mut owner = TestSequencer::with(DocumentSettings {
        document_bytes_max: 10_000,
        ..settings()
    });
    owner.commit(submit("maker", 1, 0, Proposal::Create(text("ab"))));
    // Farther back than the log is searched for a copy.
    owner.commits_by("bob", COPY_WITHIN + 100);
    let mut owner = owner.reopened(1);
    owner.submit(submit("maker", 1, None, Proposal::Create(text("ab"))));
    assert_eq!(
        owner.take_output(),
        ["page 0"],
        "the commit is loaded to be sent"
    );
    let created = Arc::new(Entry {
        revision: Revision(1),
        epoch: Epoch(1),
        id: id("maker", 1),
        at_ms: 0,
        change: Change::Create(text("ab")),
    });
    owner
        .sequencer
        .page_loaded(Revision(0), &[created], Now::default(), &mut owner.effects);
    assert_eq!(owner.take_output(), ["me: commits [1]"]);
    assert!(owner.sequencer.is_quiet());
}

#[test]
fn future_base_is_returned_to_the_document() {
    let mut owner = TestSequencer::of("ab");
    let verdict = owner.submit(submit("ann", 1, 2, edit(r#"["x"]"#)));
    assert!(matches!(verdict, SubmitOutcome::FutureBase(_)));
    // Staged entries are not durable: no client was told of them, so that none has them as a base.
    owner.submit(submit("bob", 1, 1, edit(r#"["y"]"#)));
    let verdict = owner.submit(submit("ann", 1, 2, edit(r#"["x"]"#)));
    assert!(matches!(verdict, SubmitOutcome::FutureBase(_)));
    assert_eq!(owner.take_output(), NONE);
}

/// A log with the creation by `maker` and edits by `bob`, to be loaded in pages.
fn log_by_bob(edits: u64) -> Vec<Arc<Entry>> {
    let entry = |revision: u64, id, change| {
        Arc::new(Entry {
            revision: Revision(revision),
            epoch: Epoch(1),
            id,
            at_ms: 0,
            change,
        })
    };
    let dot = Change::Edit(Op::parse(Kind::TextUnicode, r#"["."]"#).unwrap());
    let made = entry(1, id("maker", 1), Change::Create(text("ab")));
    let edits = (1..=edits).map(|seq| entry(seq + 1, id("bob", seq), dot.clone()));
    [made].into_iter().chain(edits).collect()
}

#[test]
fn submits_behind_the_tail_are_rebased_page_by_page() {
    let mut owner = TestSequencer::of("ab");
    owner.commits_by("bob", 8);
    let log = log_by_bob(8);
    owner.submit(submit("ann", 1, 1, edit(r#"[2,"x"]"#)));
    owner.submit(submit("ann", 1, 1, edit(r#"[2,"x"]"#)));
    owner.submit(submit("cat", 1, 2, edit(r#"[3,"y"]"#)));
    assert_eq!(
        owner.take_output(),
        ["page 1"],
        "one is rebased at a time, and copies are not"
    );
    owner.submit(submit("dan", 1, 2, edit(r#"["z"]"#)));
    assert_eq!(owner.take_output(), NONE, "dropped: it will be sent again");
    let page = |owner: &mut TestSequencer, since: usize, until: usize| {
        owner.sequencer.page_loaded(
            Revision(since as u64),
            &log[since..until],
            Now::default(),
            &mut owner.effects,
        );
        owner.gather();
        owner.take_output()
    };
    assert_eq!(page(&mut owner, 1, 4), ["page 4"]);
    assert_eq!(
        page(&mut owner, 1, 4),
        NONE,
        "a page that arrives twice counts once"
    );
    assert_eq!(
        page(&mut owner, 4, 7),
        ["page 2"],
        "the tail is reached, and the next one is rebased"
    );
    assert_eq!(page(&mut owner, 2, 9), NONE);
    assert!(owner.sequencer.rebasing.is_empty());
    assert_eq!(owner.head(), "........abyx");
    assert_eq!(owner.appends.last(), Some(&vec![10]));
    owner.appended();
    owner.appended();
    assert_eq!(
        owner.take_output(),
        ["me: commits [10]", "me: commits [11]"]
    );
}

#[test]
fn queued_rebases_are_bounded_in_bytes() {
    let mut owner = TestSequencer::with(DocumentSettings {
        staged_bytes_max: 1_000,
        late_submits_max: 100,
        document_bytes_max: 10_000,
        ..settings()
    });
    owner.commit(submit("maker", 1, 0, Proposal::Create(text("ab"))));
    owner.commits_by("bob", 8);
    let long = format!(r#"["{}"]"#, "x".repeat(600));
    for client in ["ann", "cat", "dan"] {
        owner.submit(submit(client, 1, 1, edit(&long)));
    }
    let waiting: Vec<_> = owner.sequencer.rebasing.ids().collect();
    assert_eq!(waiting, [&id("ann", 1), &id("cat", 1)]);
    assert_eq!(
        owner.take_output(),
        ["page 1"],
        "the submit of dan is dropped"
    );
}

#[test]
fn op_needing_too_much_work_is_rejected_after_its_slices() {
    let mut owner = TestSequencer::with(DocumentSettings {
        document_bytes_max: 10 << 20,
        tail_entries_max: 100,
        tail_bytes_max: 100 << 20,
        combine_steps_max: 100_000,
        combine_slice_steps: 10_000,
        ..settings()
    });
    let all = "a".repeat(300_000);
    owner.commit(submit("maker", 1, 0, Proposal::Create(text(&all))));
    // Each letter of bob splits ann's deletion into one more component.
    let letters = vec![r#""b""#; 4_000].join(",1,");
    for op in 0..10 {
        let base = owner.sequencer.head.revision.0;
        let keep = 1 + op * 8_000;
        owner.commit(submit(
            "bob",
            base,
            base,
            edit(&format!("[{keep},{letters}]")),
        ));
        assert_eq!(owner.sequencer.head.revision.0, base + 1);
    }
    let delete = edit(&format!(r#"[{{"d":{}}}]"#, all.len()));
    owner.submit(submit("ann", 1, 1, delete.clone()));
    // It does not delay other submits, and a copy of it changes nothing.
    owner.submit(submit("ann", 1, 1, delete.clone()));
    owner.submit(submit("cat", 1, 11, edit(r#"["c"]"#)));
    owner.appended();
    assert_eq!(
        owner.take_output(),
        ["RequestSlice(Epoch(1))", "me: commits [12]"]
    );
    let slices = owner.grant_slices();
    assert!((2..10).contains(&slices), "{slices} slices");
    assert_eq!(owner.take_output(), ["me: ann/1 TooLarge"]);
    owner.submit(submit("ann", 2, owner.sequencer.head.revision.0, delete));
    owner.appended();
    let said = owner.take_output();
    assert!(said.contains(&"me: commits [13]".to_owned()), "{said:?}");
}

#[test]
fn copy_behind_the_tail_is_found_during_rebase() {
    let mut owner = TestSequencer::of("ab");
    owner.commits_by("bob", 8);
    let log = log_by_bob(8);
    owner.submit(submit("bob", 2, 2, edit(r#"["."]"#)));
    assert_eq!(owner.take_output(), ["page 2"]);
    owner
        .sequencer
        .page_loaded(Revision(2), &log[2..9], Now::default(), &mut owner.effects);
    assert_eq!(owner.take_output(), ["me: commits [3]"]);
    assert!(owner.sequencer.is_quiet());
}

#[test]
fn queued_submit_from_two_nodes_is_answered_on_this_node() {
    for nodes in [[OTHER, ME], [ME, OTHER]] {
        let mut owner = TestSequencer::of("ab");
        owner.commits_by("bob", 8);
        let log = log_by_bob(8);
        for node in nodes {
            owner.submit_from(node, submit("bob", 2, 2, edit(r#"["."]"#)));
        }
        owner
            .sequencer
            .page_loaded(Revision(2), &log[2..9], Now::default(), &mut owner.effects);
        assert_eq!(owner.take_output(), ["page 2", "me: commits [3]"]);
    }
}

#[test]
fn too_old_base_is_rejected() {
    let mut owner = TestSequencer::of("");
    owner.commits_by("bob", 25);
    owner.submit(submit("ann", 1, 1, edit(r#"["x"]"#)));
    assert_eq!(owner.take_output(), ["me: ann/1 RevisionTooOld"]);
    // A page without entries means that the log lacks them.
    owner.submit(submit("ann", 2, 9, edit(r#"["x"]"#)));
    owner
        .sequencer
        .page_loaded(Revision(9), &[], Now::default(), &mut owner.effects);
    assert_eq!(owner.take_output(), ["page 9", "me: ann/2 RevisionTooOld"]);
}

#[test]
fn document_at_its_limit_may_only_shrink() {
    let mut owner = TestSequencer::of(&"x".repeat(50));
    assert_eq!(
        owner.head(),
        "nothing",
        "a create beyond the limit is rejected"
    );
    owner.commit(submit("ann", 1, 0, Proposal::Create(text(&"x".repeat(38)))));
    for (seq, json, code) in [
        (2, r#"["yyyyyyyyyy"]"#, Some("TooLarge")),
        (3, r#"[{"d":9},"zzzzz"]"#, None),
        (4, r#"[{"d":5}]"#, None),
    ] {
        owner.submit(submit("ann", seq, None, edit(json)));
        let refused: Vec<String> = owner.take_output();
        let expected: Vec<String> = code
            .iter()
            .map(|code| format!("me: ann/{seq} {code}"))
            .collect();
        assert_eq!(refused, expected, "{json}");
        owner.appended();
        owner.out.clear();
    }
}

#[test]
fn staged_entries_are_bounded() {
    let mut owner = TestSequencer::of("");
    for client in ["ann", "bob", "cat", "dan"] {
        owner.submit(submit(client, 1, 1, edit(r#"["x"]"#)));
    }
    owner.appended();
    owner.appended();
    assert_eq!(
        owner.take_output(),
        ["me: commits [2]", "me: commits [3, 4]"]
    );
    // It was dropped and not rejected, so that it may be sent again.
    owner.submit(submit("dan", 1, 1, edit(r#"["x"]"#)));
    owner.appended();
    assert_eq!(owner.take_output(), ["me: commits [5]"]);
}

#[test]
fn rejection_waits_until_its_reason_is_durable() {
    let create = |client| submit(client, 1, 0, Proposal::Create(text("x")));
    let mut owner = TestSequencer::of_nothing();
    owner.submit(create("bob"));
    owner.submit(create("ann"));
    owner.submit(create("ann"));
    owner.submit_from(OTHER, create("ann"));
    // If this owner is superseded, bob's create is lost and ann's may be accepted.
    assert_eq!(owner.take_output(), NONE);
    owner.appended();
    let no = |to| format!("{to}: ann/1 AlreadyExists");
    let commits = |to| format!("{to}: commits [1]");
    assert_eq!(
        owner.take_output(),
        [commits("other"), commits("me"), no("me"), no("other")]
    );
}

#[test]
fn rejected_submit_stays_rejected() {
    let mut owner = TestSequencer::of(&"a".repeat(38));
    let grow = || submit("ann", 1, 1, edit(r#"["bcdef"]"#));
    owner.submit(grow());
    owner.commit(submit("bob", 1, 1, edit(r#"[{"d":20}]"#)));
    // A copy arrives late. It would fit by now, but its client has dropped the change.
    owner.submit_from(OTHER, grow());
    assert_eq!(owner.take_output(), ["other: ann/1 TooLarge"]);
    owner.commit(submit("ann", 2, 1, edit(r#"["bcdef"]"#)));
    assert_eq!(owner.head().len(), 23);
}

#[test]
fn resent_create_without_a_base_is_recognised_after_a_delete() {
    let create = || submit("ann", 1, None, Proposal::Create(text("x")));
    let mut owner = TestSequencer::of_nothing();
    owner.commit(create());
    owner.commit(submit("bob", 1, 1, Proposal::Delete));
    let log: Vec<_> = owner
        .sequencer
        .log
        .tail()
        .since(Revision::ZERO)
        .unwrap()
        .cloned()
        .collect();
    for (seq, said) in [(1, ["me: commits [1]"]), (2, ["me: commits [3]"])] {
        // The next owner, right after a snapshot, with an empty tail.
        let mut owner = TestSequencer::with(settings());
        let head = Snapshot {
            revision: Revision(2),
            ..Snapshot::default()
        };
        let fence = owner.sequencer.fence;
        let listeners = PeerSubscriptions::default();
        let tail = Tail::new(Revision(2));
        owner.sequencer = Sequencer::new(ME, fence, head, tail, listeners, settings());
        owner.submit(Submit {
            id: id("ann", seq),
            ..create()
        });
        assert_eq!(owner.take_output(), ["page 0"]);
        owner
            .sequencer
            .page_loaded(Revision::ZERO, &log, Now::default(), &mut owner.effects);
        owner.gather();
        if !owner.appends.is_empty() {
            owner.appended();
        }
        assert_eq!(owner.take_output(), said, "ann/{seq}");
    }
}

#[test]
fn subscribing_and_submitting_nodes_get_commits() {
    let mut owner = TestSequencer::of("");
    owner.submit_from(OTHER, submit("ann", 1, 1, edit(r#"["x"]"#)));
    owner.appended();
    assert_eq!(
        owner.take_output(),
        ["other: commits [2]", "me: commits [2]"]
    );
    owner
        .sequencer
        .subscribe(OTHER, Revision(0), Now::default(), &mut owner.effects);
    owner
        .sequencer
        .subscribe(OTHER, Revision(2), Now::default(), &mut owner.effects);
    assert_eq!(owner.take_output(), ["other: commits [1, 2]"]);
    owner.commits_by("bob", 5);
    owner
        .sequencer
        .subscribe(OTHER, Revision(2), Now::default(), &mut owner.effects);
    assert_eq!(
        owner.take_output(),
        ["other: commits [5, 6, 7]"],
        "the rest is in the store"
    );
}

#[test]
fn snapshots_show_durable_entries_only() {
    let mut owner = TestSequencer::of("");
    owner.sequencer.request_snapshot(&mut owner.effects);
    assert_eq!(owner.take_output(), ["encode 1"]);
    owner.submit(submit("ann", 1, 1, edit(r#"["x"]"#)));
    owner.sequencer.request_snapshot(&mut owner.effects);
    owner.submit(submit("bob", 1, 1, edit(r#"["y"]"#)));
    assert_eq!(owner.take_output(), NONE);
    owner.appended();
    assert_eq!(
        owner.take_output(),
        ["me: commits [2]"],
        "3 was staged: the head was ahead of the log"
    );
    owner.appended();
    assert_eq!(owner.take_output(), ["encode 3", "me: commits [3]"]);
}

#[test]
fn snapshots_are_saved_when_they_are_due() {
    let mut owner = TestSequencer::with(DocumentSettings {
        snapshot_entries: 3,
        ..settings()
    });
    let mut saved = Vec::new();
    for seq in 1..=8 {
        let proposal = if seq == 1 {
            Proposal::Create(text(""))
        } else {
            edit(r#"["x"]"#)
        };
        owner.submit(submit("ann", seq, seq - 1, proposal));
        owner.appended();
        saved.extend(
            owner
                .take_output()
                .into_iter()
                .filter(|it| it.starts_with("save")),
        );
    }
    assert_eq!(saved, ["save 3", "save 6"]);
}

#[test]
fn rejected_append_is_repeated_one_by_one() {
    let mut owner = TestSequencer::of("");
    owner.sequencer.append_one_by_one(2);
    for client in ["ann", "bob", "cat"] {
        owner.submit(submit(client, 1, 1, edit(r#"["x"]"#)));
    }
    owner.appended();
    let rejected = |owner: &mut TestSequencer, error| {
        owner.sequencer.append_rejected(error, &mut owner.effects)
    };
    let bob = submit("bob", 1, 1, edit("")).id;
    assert_eq!(
        rejected(&mut owner, AppendError::Gap),
        RejectedAppend::One(bob, Rejection::seq_used())
    );
    assert_eq!(
        owner.take_output(),
        ["me: commits [2]", "me: bob/1 Malformed"],
        "the single entry is rejected"
    );
    owner.appended();
    assert_eq!(owner.appends[1..], [vec![2], vec![3], vec![4]]);
    let mut owner = TestSequencer::of("");
    for client in ["ann", "bob", "cat"] {
        owner.submit(submit(client, 1, 1, edit(r#"["x"]"#)));
    }
    owner.appended();
    assert_eq!(
        rejected(&mut owner, AppendError::Gap),
        RejectedAppend::Several(2)
    );
    assert_eq!(owner.take_output(), ["me: commits [2]"]);
}

#[test]
fn entry_that_the_store_refuses_is_reported_and_its_submit_rejected() {
    let mut owner = TestSequencer::of("");
    owner.submit(submit("ann", 1, 1, edit(r#"["x"]"#)));
    let sequencer = &owner.sequencer;
    let rejected = sequencer.append_rejected(AppendError::Refused, &mut owner.effects);
    let ann = submit("ann", 1, 1, edit("")).id;
    assert_eq!(rejected, RejectedAppend::One(ann, Rejection::not_stored()));
    assert_eq!(
        owner.take_output(),
        ["refused 2", "me: ann/1 NotApplicable"]
    );
}

#[test]
fn copies_of_a_submit_that_another_sequencer_rejected_are_rejected() {
    let mut owner = TestSequencer::of("");
    let poison = submit("ann", 1, 1, edit(r#"["x"]"#));
    let rejected = [(poison.id.clone(), Rejection::op_not_applied())];
    owner.sequencer.reject_copies(&rejected);
    owner.submit(poison);
    assert_eq!(owner.take_output(), ["me: ann/1 NotApplicable"]);
    owner.submit(submit("ann", 2, 1, edit(r#"["x"]"#)));
    assert_eq!(owner.appends.last(), Some(&vec![2]));
}

fn rich_owner(data: &str) -> TestSequencer {
    let mut owner = TestSequencer::with(DocumentSettings {
        tail_entries_max: 100,
        document_bytes_max: 10 << 20,
        ..settings()
    });
    let content = Content::create(Kind::RichText, Some(data)).unwrap();
    owner.commit(submit("maker", 1, 0, Proposal::Create(content)));
    owner
}

/// The op of a commit as it is broadcast.
fn told(owner: &TestSequencer, revision: u64) -> String {
    let entry = owner
        .sequencer
        .log
        .tail()
        .since(Revision(revision - 1))
        .unwrap()
        .next()
        .unwrap();
    let Change::Edit(op) = &entry.change else {
        panic!("{entry:?} is no edit")
    };
    let mut out = Vec::new();
    op.write_json(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn committed_op_includes_the_implied_final_newline() {
    let mut owner = rich_owner(r#"[{"insert":"Hi"}]"#);
    let format = |kind: &str| {
        edit(&format!(
            r#"[{{"retain":2}},{{"retain":1,"attributes":{{"{kind}":1}}}}]"#
        ))
    };
    owner.commit(submit("ann", 1, 1, format("header")));
    // Concurrently: bob's Quill shows its own newline after ann's.
    owner.commit(submit("bob", 1, 1, format("list")));
    assert_eq!(
        told(&owner, 2),
        r#"{"ops":[{"retain":2},{"insert":"\n","attributes":{"header":1}}]}"#
    );
    assert_eq!(
        told(&owner, 3),
        r#"{"ops":[{"retain":3},{"insert":"\n","attributes":{"list":1}}]}"#
    );
    owner.take_output();
    owner.submit(submit(
        "cat",
        1,
        3,
        edit(r#"[{"retain":5,"attributes":{"b":1}}]"#),
    ));
    assert_eq!(
        owner.take_output(),
        ["me: cat/1 NotApplicable"],
        "without an op between, that is beyond the end"
    );
}

#[test]
fn op_that_multiplies_attributes_is_rejected() {
    let runs: Vec<_> = (0..3_000)
        .map(|at| format!(r#"{{"insert":"a","attributes":{{"n":{}}}}}"#, at % 2))
        .collect();
    let mut owner = rich_owner(&format!("[{}]", runs.join(",")));
    let poison = format!(
        r#"[{{"retain":3000,"attributes":{{"a":"{}"}}}}]"#,
        "x".repeat(60_000)
    );
    owner.submit(submit("ann", 1, 1, edit(&poison)));
    owner.grant_slices();
    let said = owner.take_output();
    assert_eq!(
        said.last().map(String::as_str),
        Some("me: ann/1 TooLarge"),
        "{said:?}"
    );
    owner.commit(submit("bob", 1, 1, edit(r#"[{"insert":"b"}]"#)));
    assert_eq!(owner.sequencer.head.revision, Revision(2));
}
