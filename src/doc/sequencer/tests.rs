mod bounds;

use super::*;
use crate::id::UserId;
use crate::log::Epoch;
use crate::ot::{Content, Kind};

const ME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);

/// An owner under the test's hand: each submit and each answer of the store is one step.
struct Owner {
    sequencer: Sequencer,
    /// What it was asked to say and do since it was last asked what it said.
    out: VecDeque<Action>,
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

impl Owner {
    /// An owner of a document that has never existed.
    fn of_nothing() -> Self {
        Self::with(settings())
    }

    /// An owner of a document that `maker` created at revision 1.
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
                Listeners::default(),
                settings,
            ),
            out: VecDeque::new(),
            appends: Vec::new(),
        }
    }

    /// Another owner of what this one committed, that remembers only the newest `entries` of it.
    fn reopened(self, entries: u64) -> Self {
        let head = self.sequencer.head.clone();
        let mut tail = Tail::new(Revision(head.revision.0 - entries));
        for entry in self.sequencer.tail.since(tail.start()).unwrap() {
            tail.push(entry.clone());
        }
        let fence = Fence {
            epoch: Epoch(2),
            token: 2,
        };
        Self {
            sequencer: Sequencer::new(ME, fence, head, tail, Listeners::default(), settings()),
            out: VecDeque::new(),
            appends: Vec::new(),
        }
    }

    fn submit_from(&mut self, from: NodeId, submit: Submit) -> Verdict {
        let verdict = self
            .sequencer
            .submit(from, submit, Now::default(), &mut self.out);
        self.gather();
        verdict
    }

    fn submit(&mut self, submit: Submit) -> Verdict {
        self.submit_from(ME, submit)
    }

    /// The store answers the append under way.
    fn appended(&mut self) {
        self.sequencer.appended(&mut self.out);
        self.gather();
    }

    fn commit(&mut self, submit: Submit) {
        self.submit(submit);
        self.work_off();
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

    fn gather(&mut self) {
        for action in &self.out {
            if let Action::Append { entries, .. } = action {
                let revisions = entries.iter().map(|entry| entry.revision.0).collect();
                self.appends.push(revisions);
            }
        }
        self.out
            .retain(|action| !matches!(action, Action::Append { .. }));
    }

    /// Gives the sequencer as many slices of work as it asks for; says how many.
    fn work_off(&mut self) -> usize {
        let mut slices = 0;
        while self.sequencer.slice_wanted {
            slices += 1;
            let now = Now::default();
            self.sequencer.next_slice(now, &mut self.out);
            self.out
                .retain(|action| !matches!(action, Action::RequestSlice(_)));
            self.gather();
        }
        slices
    }

    /// What was said and asked since, as short sentences.
    fn said(&mut self) -> Vec<String> {
        self.out.drain(..).map(|action| sentence(&action)).collect()
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

fn sentence(action: &Action) -> String {
    match action {
        Action::Send { to, message } => {
            let to = if *to == ME { "me" } else { "other" };
            match message {
                PeerMessage::Commits { entries, .. } => {
                    let revisions: Vec<u64> = entries.iter().map(|it| it.revision.0).collect();
                    format!("{to}: commits {revisions:?}")
                }
                PeerMessage::Reject { id, rejection } => {
                    format!(
                        "{to}: {}/{} {:?}",
                        id.client.as_str(),
                        id.seq,
                        rejection.reason
                    )
                }
                PeerMessage::Subscribe { .. }
                | PeerMessage::Submit(_)
                | PeerMessage::SaveSnapshot => {
                    unreachable!("an owner says no such thing")
                }
            }
        }
        Action::LoadPage { since, .. } => format!("page {since}"),
        Action::SaveSnapshot { snapshot, .. } => format!("save {}", snapshot.revision),
        Action::EncodeSnapshot(snapshot) => format!("encode {}", snapshot.revision),
        other => format!("{other:?}"),
    }
}

const NONE: [&str; 0] = [];

#[test]
fn what_was_committed_meanwhile_decides_what_may_follow() {
    // protocol.md's matrix: what is in the log since the base, what comes, what becomes of it.
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
            Owner::of_nothing()
        } else {
            Owner::of("x")
        };
        let base = owner.sequencer.head.revision.0;
        owner.commit(match committed {
            "edit" => submit("bob", 1, base, edit(r#"["a"]"#)),
            "create" => submit("bob", 1, base, create()),
            _ => submit("bob", 1, base, Proposal::Delete),
        });
        let said = format!("{incoming:?} after {committed}");
        owner.submit(submit("ann", 1, base, incoming));
        let mut answers = owner.said();
        if outcome == wins {
            owner.appended();
            answers.extend(owner.said());
            assert_eq!(answers, [format!("me: commits [{}]", base + 2)], "{said}");
        } else {
            assert_eq!(answers, [format!("me: ann/1 {outcome}")], "{said}");
        }
    }
}

#[test]
fn the_head_decides_what_may_come_without_a_past() {
    let create = || Proposal::Create(text("new"));
    for (exists, incoming, code) in [
        (true, create(), "AlreadyExists"),
        (false, edit(r#"["a"]"#), "DoesNotExist"),
        (true, edit("5"), "Malformed"),
        (true, edit(r#"[9,"a"]"#), "NotApplicable"),
    ] {
        let mut owner = if exists {
            Owner::of("x")
        } else {
            Owner::of_nothing()
        };
        owner.submit(submit("ann", 1, None, incoming.clone()));
        assert_eq!(owner.said(), [format!("me: ann/1 {code}")], "{incoming:?}");
    }
    let mut owner = Owner::of_nothing();
    owner.commit(submit("ann", 1, None, Proposal::Delete));
    owner.commit(submit("ann", 2, None, create()));
    assert_eq!(
        (owner.head(), owner.sequencer.head.revision),
        ("new".to_owned(), Revision(2)),
        "a delete of nothing uses up a revision, and a document that begins anew goes on counting"
    );
}

#[test]
fn time_of_an_entry_is_never_before_that_of_the_entry_before() {
    let mut owner = Owner::of("");
    let mut times = Vec::new();
    for (seq, wall_ms) in (1..).zip([5_000, 4_000, 5_001, 0, 90_000_000, 5_002, 90_000_001]) {
        let now = Now {
            wall_ms,
            ..Now::default()
        };
        let submit = submit("ann", seq, seq, edit(r#"["x"]"#));
        owner.sequencer.submit(ME, submit, now, &mut owner.out);
        owner.appended();
        times.push(owner.sequencer.head.at_ms);
    }
    let later = 90_000_000;
    assert_eq!(times, [5_000, 5_000, 5_001, 5_001, later, later, later + 1]);
    // Another owner, whose clock is behind, goes on from there.
    let mut next = owner.reopened(2);
    next.commit(submit("ann", 8, 8, edit(r#"["x"]"#)));
    assert_eq!(next.sequencer.head.at_ms, later + 1);
}

#[test]
fn a_later_op_goes_left() {
    let mut owner = Owner::of("ab");
    owner.submit(submit("ann", 1, 1, edit(r#"[1,"A"]"#)));
    owner.submit(submit("bob", 1, 1, edit(r#"[1,"B"]"#)));
    assert_eq!(owner.head(), "aBAb");
}

#[test]
fn appends_gather_while_one_is_under_way() {
    let mut owner = Owner::of("ab");
    for (seq, client) in ["ann", "bob", "cat"].into_iter().enumerate() {
        owner.submit(submit(client, seq as u64, 1, edit(r#"["x"]"#)));
    }
    assert_eq!(owner.said(), NONE, "nothing is told before it is durable");
    owner.appended();
    assert_eq!(owner.said(), ["me: commits [2]"]);
    owner.appended();
    assert_eq!(owner.said(), ["me: commits [3, 4]"]);
    assert_eq!(owner.appends[1..], [vec![2], vec![3, 4]]);
}

#[test]
fn what_is_made_on_whatever_is_current_follows_the_staged() {
    let mut owner = Owner::of("ab");
    owner.submit(submit("ann", 1, 1, edit(r#"[2,"x"]"#)));
    owner.submit(submit("bob", 1, None, edit(r#"[3,"y"]"#)));
    owner.submit(submit("cat", 1, None, Proposal::Delete));
    assert_eq!(owner.said(), NONE);
    owner.appended();
    owner.appended();
    assert_eq!(owner.said(), ["me: commits [2]", "me: commits [3, 4]"]);
}

#[test]
fn resent_submit_is_committed_once() {
    let x = || submit("ann", 1, 1, edit(r#"["x"]"#));
    // While it is staged: its commit will be the answer.
    let mut owner = Owner::of("ab");
    owner.submit(x());
    owner.submit(x());
    owner.appended();
    assert_eq!(owner.said(), ["me: commits [2]"]);
    // When it is committed, also with what came since.
    owner.commit(submit("bob", 1, 2, edit(r#"["y"]"#)));
    owner.submit(x());
    assert_eq!(owner.said(), ["me: commits [2, 3]"]);
    // On the revision it led to, on the present one, and on none.
    for base in [Some(2), Some(3), None] {
        owner.submit(submit("ann", 1, base, edit(r#"["x"]"#)));
        assert_eq!(owner.said(), ["me: commits [2, 3]"], "{base:?}");
    }
    assert_eq!(owner.head(), "yxab");
}

#[test]
fn anothers_submit_under_the_same_name_is_another() {
    let mut owner = Owner::of("ab");
    owner.commit(submit("ann", 1, 1, edit(r#"["x"]"#)));
    let mut stolen = submit("ann", 1, 1, edit(r#"["y"]"#));
    stolen.id.author = UserId::new("eve");
    owner.submit(stolen);
    owner.appended();
    assert_eq!(owner.said(), ["me: commits [3]"]);
    assert_eq!(owner.head(), "yxab");
}

#[test]
fn resent_create_is_known_by_the_document_it_made() {
    let mut owner = Owner::with(DocumentSettings {
        document_bytes_max: 10_000,
        ..settings()
    });
    owner.commit(submit("maker", 1, 0, Proposal::Create(text("ab"))));
    // Further back than a copy is looked for in the log.
    owner.commits_by("bob", COPY_WITHIN + 100);
    let mut owner = owner.reopened(1);
    owner.submit(submit("maker", 1, None, Proposal::Create(text("ab"))));
    assert_eq!(owner.said(), ["page 0"], "the commit is fetched to be told");
    let created = Arc::new(Entry {
        revision: Revision(1),
        epoch: Epoch(1),
        id: id("maker", 1),
        at_ms: 0,
        change: Change::Create(text("ab")),
    });
    owner
        .sequencer
        .paged(Revision(0), &[created], Now::default(), &mut owner.out);
    assert_eq!(owner.said(), ["me: commits [1]"]);
    assert!(owner.sequencer.is_quiet());
}

#[test]
fn a_base_beyond_the_head_is_for_the_document_to_judge() {
    let mut owner = Owner::of("ab");
    let verdict = owner.submit(submit("ann", 1, 2, edit(r#"["x"]"#)));
    assert!(matches!(verdict, Verdict::Ahead(_)));
    // Staged is not durable: nobody was told of it, so nobody can have it for a base.
    owner.submit(submit("bob", 1, 1, edit(r#"["y"]"#)));
    let verdict = owner.submit(submit("ann", 1, 2, edit(r#"["x"]"#)));
    assert!(matches!(verdict, Verdict::Ahead(_)));
    assert_eq!(owner.said(), NONE);
}

/// The log of an owner whose document `maker` created and `bob` edited, as pages of it are read.
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
fn late_submits_walk_to_the_tail_page_by_page() {
    let mut owner = Owner::of("ab");
    owner.commits_by("bob", 8);
    let log = log_by_bob(8);
    owner.submit(submit("ann", 1, 1, edit(r#"[2,"x"]"#)));
    owner.submit(submit("ann", 1, 1, edit(r#"[2,"x"]"#)));
    owner.submit(submit("cat", 1, 2, edit(r#"[3,"y"]"#)));
    assert_eq!(
        owner.said(),
        ["page 1"],
        "one walks at a time, copies not at all"
    );
    owner.submit(submit("dan", 1, 2, edit(r#"["z"]"#)));
    assert_eq!(owner.said(), NONE, "passed over: it will be said again");
    let page = |owner: &mut Owner, since: usize, until: usize| {
        owner.sequencer.paged(
            Revision(since as u64),
            &log[since..until],
            Now::default(),
            &mut owner.out,
        );
        owner.gather();
        owner.said()
    };
    assert_eq!(page(&mut owner, 1, 4), ["page 4"]);
    assert_eq!(
        page(&mut owner, 1, 4),
        NONE,
        "an answer that came twice counts once"
    );
    assert_eq!(
        page(&mut owner, 4, 7),
        ["page 2"],
        "the tail is reached: the next one walks"
    );
    assert_eq!(page(&mut owner, 2, 9), NONE);
    assert!(owner.sequencer.late.is_empty());
    assert_eq!(owner.head(), "........abyx");
    assert_eq!(owner.appends.last(), Some(&vec![10]));
    owner.appended();
    owner.appended();
    assert_eq!(owner.said(), ["me: commits [10]", "me: commits [11]"]);
}

#[test]
fn late_submits_wait_in_few_bytes() {
    let mut owner = Owner::with(DocumentSettings {
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
    let waiting: Vec<_> = owner.sequencer.late.iter().map(|it| &it.id).collect();
    assert_eq!(waiting, [&id("ann", 1), &id("cat", 1)]);
    assert_eq!(owner.said(), ["page 1"], "dan is passed over");
}

#[test]
fn an_op_that_needs_too_much_work_is_refused_after_its_slices() {
    let mut owner = Owner::with(DocumentSettings {
        document_bytes_max: 10 << 20,
        tail_entries_max: 100,
        tail_bytes_max: 100 << 20,
        combine_steps_max: 100_000,
        combine_slice_steps: 10_000,
        ..settings()
    });
    let all = "a".repeat(300_000);
    owner.commit(submit("maker", 1, 0, Proposal::Create(text(&all))));
    // Each of bob's letters cuts what ann deletes into one more piece.
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
    // Others are not kept waiting by it, and a copy of it changes nothing.
    owner.submit(submit("ann", 1, 1, delete.clone()));
    owner.submit(submit("cat", 1, 11, edit(r#"["c"]"#)));
    owner.appended();
    assert_eq!(owner.said(), ["RequestSlice(Epoch(1))", "me: commits [12]"]);
    let slices = owner.work_off();
    assert!((2..10).contains(&slices), "{slices} slices");
    assert_eq!(owner.said(), ["me: ann/1 TooLarge"]);
    owner.submit(submit("ann", 2, owner.sequencer.head.revision.0, delete));
    owner.appended();
    let said = owner.said();
    assert!(said.contains(&"me: commits [13]".to_owned()), "{said:?}");
}

#[test]
fn a_late_copy_is_found_on_the_way() {
    let mut owner = Owner::of("ab");
    owner.commits_by("bob", 8);
    let log = log_by_bob(8);
    owner.submit(submit("bob", 2, 2, edit(r#"["."]"#)));
    assert_eq!(owner.said(), ["page 2"]);
    owner
        .sequencer
        .paged(Revision(2), &log[2..9], Now::default(), &mut owner.out);
    assert_eq!(owner.said(), ["me: commits [3]"]);
    assert!(owner.sequencer.is_quiet());
}

#[test]
fn a_late_submit_that_came_by_two_nodes_is_answered_at_home() {
    for nodes in [[OTHER, ME], [ME, OTHER]] {
        let mut owner = Owner::of("ab");
        owner.commits_by("bob", 8);
        let log = log_by_bob(8);
        for node in nodes {
            owner.submit_from(node, submit("bob", 2, 2, edit(r#"["."]"#)));
        }
        owner
            .sequencer
            .paged(Revision(2), &log[2..9], Now::default(), &mut owner.out);
        assert_eq!(owner.said(), ["page 2", "me: commits [3]"]);
    }
}

#[test]
fn a_base_that_is_too_old_is_refused() {
    let mut owner = Owner::of("");
    owner.commits_by("bob", 25);
    owner.submit(submit("ann", 1, 1, edit(r#"["x"]"#)));
    assert_eq!(owner.said(), ["me: ann/1 RevisionTooOld"]);
    // A page without entries can only mean that the log lacks them.
    owner.submit(submit("ann", 2, 9, edit(r#"["x"]"#)));
    owner
        .sequencer
        .paged(Revision(9), &[], Now::default(), &mut owner.out);
    assert_eq!(owner.said(), ["page 9", "me: ann/2 RevisionTooOld"]);
}

#[test]
fn a_document_at_its_limit_may_only_shrink() {
    let mut owner = Owner::of(&"x".repeat(50));
    assert_eq!(
        owner.head(),
        "nothing",
        "a create beyond the limit is refused"
    );
    owner.commit(submit("ann", 1, 0, Proposal::Create(text(&"x".repeat(38)))));
    for (seq, json, code) in [
        (2, r#"["yyyyyyyyyy"]"#, Some("TooLarge")),
        (3, r#"[{"d":9},"zzzzz"]"#, None),
        (4, r#"[{"d":5}]"#, None),
    ] {
        owner.submit(submit("ann", seq, None, edit(json)));
        let refused: Vec<String> = owner.said();
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
fn no_more_is_staged_than_may_be() {
    let mut owner = Owner::of("");
    for client in ["ann", "bob", "cat", "dan"] {
        owner.submit(submit(client, 1, 1, edit(r#"["x"]"#)));
    }
    owner.appended();
    owner.appended();
    assert_eq!(owner.said(), ["me: commits [2]", "me: commits [3, 4]"]);
    // Passed over, not refused: so it may be said again.
    owner.submit(submit("dan", 1, 1, edit(r#"["x"]"#)));
    owner.appended();
    assert_eq!(owner.said(), ["me: commits [5]"]);
}

#[test]
fn a_refusal_waits_until_its_reason_is_durable() {
    let create = |client| submit(client, 1, 0, Proposal::Create(text("x")));
    let mut owner = Owner::of_nothing();
    owner.submit(create("bob"));
    owner.submit(create("ann"));
    owner.submit(create("ann"));
    owner.submit_from(OTHER, create("ann"));
    // If this owner is deposed, bob's create is lost and ann's may be let in.
    assert_eq!(owner.said(), NONE);
    owner.appended();
    let no = |to| format!("{to}: ann/1 AlreadyExists");
    let commits = |to| format!("{to}: commits [1]");
    assert_eq!(
        owner.said(),
        [commits("other"), commits("me"), no("me"), no("other")]
    );
}

#[test]
fn what_was_refused_stays_refused() {
    let mut owner = Owner::of(&"a".repeat(38));
    let grow = || submit("ann", 1, 1, edit(r#"["bcdef"]"#));
    owner.submit(grow());
    owner.commit(submit("bob", 1, 1, edit(r#"[{"d":20}]"#)));
    // Its copy came by another way and took longer. By now it would fit; but its client has thrown it away.
    owner.submit_from(OTHER, grow());
    assert_eq!(owner.said(), ["other: ann/1 TooLarge"]);
    owner.commit(submit("ann", 2, 1, edit(r#"["bcdef"]"#)));
    assert_eq!(owner.head().len(), 23);
}

#[test]
fn resent_create_without_a_version_is_known_though_the_document_was_deleted() {
    let create = || submit("ann", 1, None, Proposal::Create(text("x")));
    let mut owner = Owner::of_nothing();
    owner.commit(create());
    owner.commit(submit("bob", 1, 1, Proposal::Delete));
    let log: Vec<_> = owner
        .sequencer
        .tail
        .since(Revision::ZERO)
        .unwrap()
        .cloned()
        .collect();
    for (seq, said) in [(1, ["me: commits [1]"]), (2, ["me: commits [3]"])] {
        // Another owner, right behind a snapshot: it remembers nothing.
        let mut owner = Owner::with(settings());
        let head = Snapshot {
            revision: Revision(2),
            ..Snapshot::default()
        };
        let fence = owner.sequencer.fence;
        let listeners = Listeners::default();
        let tail = Tail::new(Revision(2));
        owner.sequencer = Sequencer::new(ME, fence, head, tail, listeners, settings());
        owner.submit(Submit {
            id: id("ann", seq),
            ..create()
        });
        assert_eq!(owner.said(), ["page 0"]);
        owner
            .sequencer
            .paged(Revision::ZERO, &log, Now::default(), &mut owner.out);
        owner.gather();
        if !owner.appends.is_empty() {
            owner.appended();
        }
        assert_eq!(owner.said(), said, "ann/{seq}");
    }
}

#[test]
fn every_node_that_asks_or_submits_is_told() {
    let mut owner = Owner::of("");
    owner.submit_from(OTHER, submit("ann", 1, 1, edit(r#"["x"]"#)));
    owner.appended();
    assert_eq!(owner.said(), ["other: commits [2]", "me: commits [2]"]);
    owner
        .sequencer
        .subscribe(OTHER, Revision(0), Now::default(), &mut owner.out);
    owner
        .sequencer
        .subscribe(OTHER, Revision(2), Now::default(), &mut owner.out);
    assert_eq!(owner.said(), ["other: commits [1, 2]"]);
    owner.commits_by("bob", 5);
    owner
        .sequencer
        .subscribe(OTHER, Revision(2), Now::default(), &mut owner.out);
    assert_eq!(
        owner.said(),
        ["other: commits [5, 6, 7]"],
        "the rest is in the store"
    );
}

#[test]
fn a_snapshot_is_of_what_is_durable() {
    let mut owner = Owner::of("");
    owner.sequencer.show(&mut owner.out);
    assert_eq!(owner.said(), ["encode 1"]);
    owner.submit(submit("ann", 1, 1, edit(r#"["x"]"#)));
    owner.sequencer.show(&mut owner.out);
    owner.submit(submit("bob", 1, 1, edit(r#"["y"]"#)));
    assert_eq!(owner.said(), NONE);
    owner.appended();
    assert_eq!(
        owner.said(),
        ["me: commits [2]"],
        "3 was staged: the head was ahead of the log"
    );
    owner.appended();
    assert_eq!(owner.said(), ["encode 3", "me: commits [3]"]);
}

#[test]
fn snapshots_are_saved_when_they_are_due() {
    let mut owner = Owner::with(DocumentSettings {
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
        saved.extend(owner.said().into_iter().filter(|it| it.starts_with("save")));
    }
    assert_eq!(saved, ["save 3", "save 6"]);
}

#[test]
fn a_batch_that_the_log_refuses_is_tried_one_by_one() {
    let mut owner = Owner::of("");
    owner.sequencer.append_singly(2);
    for client in ["ann", "bob", "cat"] {
        owner.submit(submit(client, 1, 1, edit(r#"["x"]"#)));
    }
    owner.appended();
    assert_eq!(owner.sequencer.refused(&mut owner.out), 0);
    assert_eq!(
        owner.said(),
        ["me: commits [2]", "me: bob/1 Malformed"],
        "the one that was alone cannot be"
    );
    owner.appended();
    assert_eq!(owner.appends[1..], [vec![2], vec![3], vec![4]]);
    let mut owner = Owner::of("");
    for client in ["ann", "bob", "cat"] {
        owner.submit(submit(client, 1, 1, edit(r#"["x"]"#)));
    }
    owner.appended();
    assert_eq!(owner.sequencer.refused(&mut owner.out), 2);
    assert_eq!(owner.said(), ["me: commits [2]"]);
}

fn rich_owner(data: &str) -> Owner {
    let mut owner = Owner::with(DocumentSettings {
        tail_entries_max: 100,
        document_bytes_max: 10 << 20,
        ..settings()
    });
    let content = Content::create(Kind::RichText, Some(data)).unwrap();
    owner.commit(submit("maker", 1, 0, Proposal::Create(content)));
    owner
}

/// The op of a commit, as others are told it.
fn told(owner: &Owner, revision: u64) -> String {
    let entry = owner
        .sequencer
        .tail
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
fn others_are_told_the_final_newline_that_an_op_makes_real() {
    let mut owner = rich_owner(r#"[{"insert":"Hi"}]"#);
    let format = |kind: &str| {
        edit(&format!(
            r#"[{{"retain":2}},{{"retain":1,"attributes":{{"{kind}":1}}}}]"#
        ))
    };
    owner.commit(submit("ann", 1, 1, format("header")));
    // At the same time: bob's own Quill shows its newline behind ann's.
    owner.commit(submit("bob", 1, 1, format("list")));
    assert_eq!(
        told(&owner, 2),
        r#"{"ops":[{"retain":2},{"insert":"\n","attributes":{"header":1}}]}"#
    );
    assert_eq!(
        told(&owner, 3),
        r#"{"ops":[{"retain":3},{"insert":"\n","attributes":{"list":1}}]}"#
    );
    owner.said();
    owner.submit(submit(
        "cat",
        1,
        3,
        edit(r#"[{"retain":5,"attributes":{"b":1}}]"#),
    ));
    assert_eq!(
        owner.said(),
        ["me: cat/1 NotApplicable"],
        "with no op between, that is beyond the end"
    );
}

#[test]
fn an_op_that_multiplies_attributes_is_refused_and_the_document_goes_on() {
    let runs: Vec<_> = (0..3_000)
        .map(|at| format!(r#"{{"insert":"a","attributes":{{"n":{}}}}}"#, at % 2))
        .collect();
    let mut owner = rich_owner(&format!("[{}]", runs.join(",")));
    let poison = format!(
        r#"[{{"retain":3000,"attributes":{{"a":"{}"}}}}]"#,
        "x".repeat(60_000)
    );
    owner.submit(submit("ann", 1, 1, edit(&poison)));
    owner.work_off();
    let said = owner.said();
    assert_eq!(
        said.last().map(String::as_str),
        Some("me: ann/1 TooLarge"),
        "{said:?}"
    );
    owner.commit(submit("bob", 1, 1, edit(r#"[{"insert":"b"}]"#)));
    assert_eq!(owner.sequencer.head.revision, Revision(2));
}
