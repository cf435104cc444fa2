//! The owner's half: gives every submit its place in the log.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::action::Action;
use super::event::{Now, PageRequester};
use super::peer_message::PeerMessage;
use super::peer_subscriptions::Listeners;
use super::rejection::Rejection;
use super::settings::DocumentSettings;
use super::submit::Proposal;
use super::submit::Submit;
use crate::id::{ClientId, NodeId, UserId};
use crate::log::{Change, Entry, Fence, FoldError, Revision, Snapshot, SubmitId, Tail};
use crate::ot::{Budget, ContentBounds, Newline, Op, OtError, Side};

/// Gives every submit its place in the log. Knows nodes, not sessions.
///
/// Each call may add to `out`; what is meant for the own node is among it, addressed like any other.
#[derive(Debug)]
pub(super) struct Sequencer {
    fence: Fence,
    me: NodeId,
    /// The newest commits. Whoever needs older ones reads the store.
    tail: Tail,
    /// Sequenced but not yet durable: transformed against, told to nobody.
    staged: VecDeque<Arc<Entry>>,
    /// How many bytes `staged` takes, about.
    staged_bytes: usize,
    /// Whose submit is being worked on, where it came from: if that is the end of this machine, it is known why.
    at_work: Option<(NodeId, SubmitId)>,
    /// How many of `staged` are on their way to the store. Zero: no append is under way.
    appending: usize,
    /// How many of the next entries are appended one by one.
    singly: usize,
    /// The document with all that is staged.
    head: Snapshot,
    /// Each client's newest submit among the commits of `tail` and the staged: a copy of it is known even where the
    /// copy's base lies behind it.
    recent: BTreeMap<(UserId, ClientId), (SubmitId, Revision)>,
    /// Submits that need more than a slice of work, or entries before the tail: brought to the head slice by slice and page
    /// by page, one at a time.
    late: VecDeque<Rebase>,
    /// Entries before the tail that were read for the first of `late`, without a gap.
    late_page: Vec<Arc<Entry>>,
    /// Whether [`Action::RequestSlice`] was asked for and has not come.
    slice_wanted: bool,
    /// What was refused, newest last: a copy that comes when it would be accepted finds its client told otherwise.
    refused: VecDeque<(SubmitId, Rejection)>,
    /// Refusals that were decided on what is staged, each with the revision up to which it was looked at, and the node that
    /// waits: they are told when that is durable. It may never be, and then another owner lets the submit in.
    unsaid: VecDeque<(Revision, NodeId, SubmitId, Rejection)>,
    /// The other nodes that are told the commits.
    listeners: Listeners,
    /// The document as it will be when the append under way is durable, if somebody waits for it.
    view: Option<Snapshot>,
    /// Whether somebody wants to be shown the document.
    show_wanted: bool,
    /// What was appended since the last snapshot was asked for.
    unsaved: Unsaved,
    /// The revision of the snapshot that was asked for because the stored log is damaged.
    rescued: Option<Revision>,
    settings: DocumentSettings,
}

#[derive(Debug, Default)]
struct Unsaved {
    entries: usize,
    bytes: usize,
    /// Whether `view` is to be saved.
    due: bool,
}

/// How much of a document is worth as much again of the settings' commits between two snapshots.
const SNAPSHOT_PIECE_BYTES: usize = 256 << 10;

/// How many refusals are remembered.
const REFUSED_MAX: usize = 1_000;

/// How far back the first copy of a submit is looked for that was made on whatever is current. Where memory reaches as
/// far, the store is not asked.
const COPY_WITHIN: u64 = 1_000;

/// How many bytes an op may take in memory when it has been brought to the head. The largest message makes one of some
/// 12 MB.
const CHANGE_BYTES_MAX: usize = 16 << 20;

/// An op of so many bytes is not worked on at once, since parsing, combining and applying it may take longer than a slice.
const LARGE_OP_BYTES: usize = 32 << 10;

/// What came of a submit that needs the document's decision.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It was staged, recognised, refused or put aside: all that follows is said in actions.
    Settled,
    /// Its base is beyond my head: I may be the one who is behind.
    Ahead(Submit),
}

impl Sequencer {
    /// Begins under a fresh claim: `head` is the document as the claim found it, `tail` its newest entries, `listeners`
    /// the nodes that wait for what comes.
    pub(super) fn new(
        me: NodeId,
        fence: Fence,
        head: Snapshot,
        tail: Tail,
        listeners: Listeners,
        settings: DocumentSettings,
    ) -> Self {
        assert_eq!(tail.head(), head.revision, "the tail leads to the head");
        let mut recent = BTreeMap::new();
        for entry in tail.since(tail.start()).into_iter().flatten() {
            recent.insert(client_of(&entry.id), (entry.id.clone(), entry.revision));
        }
        Self {
            fence,
            me,
            // Opening walked these entries: the next opening should not have to.
            unsaved: Unsaved {
                entries: tail.len(),
                ..Unsaved::default()
            },
            tail,
            staged: VecDeque::new(),
            staged_bytes: 0,
            at_work: None,
            appending: 0,
            singly: 0,
            head,
            recent,
            late: VecDeque::new(),
            late_page: Vec::new(),
            slice_wanted: false,
            refused: VecDeque::new(),
            unsaid: VecDeque::new(),
            listeners,
            view: None,
            show_wanted: false,
            rescued: None,
            settings,
        }
    }

    pub(super) fn fence(&self) -> Fence {
        self.fence
    }

    /// The revision that the newest staged entry leads to.
    pub(super) fn head(&self) -> Revision {
        self.head.revision
    }

    /// Whether nothing is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.staged.is_empty() && self.late.is_empty()
    }

    /// Gives `submit` the next revision, or answers with what came of its first copy.
    pub(super) fn submit(
        &mut self,
        from: NodeId,
        submit: Submit,
        now: Now,
        out: &mut VecDeque<Action>,
    ) -> Verdict {
        if from != self.me {
            self.listeners.said(from, now);
        }
        if let Some(revision) = self.first_copy(&submit) {
            self.answer_known_copy(from, submit, revision, out);
            return Verdict::Settled;
        }
        let refused = self.refused.iter().find(|(id, _)| *id == submit.id);
        if let Some((id, rejection)) = refused.cloned() {
            self.say_no(from, id, rejection, out);
            return Verdict::Settled;
        }
        if submit.base.is_some_and(|base| base > self.tail.head()) {
            return Verdict::Ahead(submit);
        }
        if self.is_under_way(from, &submit.id) {
            return Verdict::Settled;
        }
        self.at_work = Some((from, submit.id.clone()));
        self.place(from, submit, now, out);
        self.at_work = None;
        Verdict::Settled
    }

    /// Whose submit was being worked on when this machine came to its end.
    pub(super) fn culprit(&self) -> Option<&(NodeId, SubmitId)> {
        self.at_work.as_ref()
    }

    /// Whether a copy of this submit is being brought on. If that one came by another node and this node's own sessions wait
    /// for it too, those are answered.
    fn is_under_way(&mut self, from: NodeId, id: &SubmitId) -> bool {
        let me = self.me;
        let copy = self.late.iter_mut().find(|late| late.id == *id);
        if let Some(late) = copy {
            late.from = if from == me { me } else { late.from };
            return true;
        }
        false
    }

    /// Finds the place of a submit that is not known.
    fn place(&mut self, from: NodeId, submit: Submit, now: Now, out: &mut VecDeque<Action>) {
        let is_large = submit.proposal.size() > LARGE_OP_BYTES;
        let rebase = match Rebase::new(from, submit, &self.head, &self.settings) {
            Ok(rebase) => rebase,
            Err((id, rejection)) => return self.refuse(from, id, rejection, out),
        };
        let behind = self.tail.start().0.saturating_sub(rebase.at.0);
        if !rebase.on_current && behind > self.settings.behind_entries_max {
            self.refuse(from, rebase.id, Rejection::revision_too_old(), out);
        } else if is_large || behind > 0 {
            self.put_aside(rebase, out);
        } else if let Some(rebase) = self.bring_on(rebase, now, out) {
            self.put_aside(rebase, out);
        }
    }

    /// Refuses a submit, and every copy of it that is still to come.
    fn refuse(
        &mut self,
        to: NodeId,
        id: SubmitId,
        rejection: Rejection,
        out: &mut VecDeque<Action>,
    ) {
        if self.refused.len() >= REFUSED_MAX {
            self.refused.pop_front();
        }
        self.refused.push_back((id.clone(), rejection.clone()));
        self.say_no(to, id, rejection, out);
    }

    fn say_no(
        &mut self,
        to: NodeId,
        id: SubmitId,
        rejection: Rejection,
        out: &mut VecDeque<Action>,
    ) {
        let waits =
            |(_, node, waiting, _): &(_, NodeId, SubmitId, _)| *node == to && *waiting == id;
        if self.staged.is_empty() {
            reject(to, id, rejection, out);
        } else if !self.unsaid.iter().any(waits) {
            self.unsaid
                .push_back((self.head.revision, to, id, rejection));
        }
    }

    /// Tells the refusals whose reasons are durable.
    fn say_unsaid(&mut self, out: &mut VecDeque<Action>) {
        let durable = self.tail.head();
        while let Some((_, to, id, rejection)) = self.unsaid.pop_front_if(|(at, ..)| *at <= durable)
        {
            reject(to, id, rejection, out);
        }
    }

    /// Lets a submit wait for its next slice of work, or for the entries between its base and the tail. If too many wait
    /// already it is dropped without an answer, and its forwarder sends it again: a rejection would hold for every copy.
    fn put_aside(&mut self, rebase: Rebase, out: &mut VecDeque<Action>) {
        if self.is_under_way(rebase.from, &rebase.id) {
            return;
        }
        let bytes: usize = self.late.iter().map(|late| late.bytes).sum();
        if self.late.len() < self.settings.late_submits_max
            && bytes < self.settings.staged_bytes_max
        {
            self.late.push_back(rebase);
            if self.late.len() == 1 {
                self.ask_for_more(out);
            }
        }
    }

    /// Asks for what the first of the late submits needs: entries from the store, or its next slice of work.
    pub(super) fn ask_for_more(&mut self, out: &mut VecDeque<Action>) {
        let Some(late) = self.late.front() else {
            return;
        };
        let epoch = self.fence.epoch;
        if matches!(self.next_entry(late.at), NextEntry::Unread) {
            let (requester, since) = (PageRequester::Sequencer(epoch), late.at);
            out.push_back(Action::LoadPage { requester, since });
        } else if !std::mem::replace(&mut self.slice_wanted, true) {
            out.push_back(Action::RequestSlice(epoch));
        }
    }

    /// The first of the late submits has its next slice of work.
    pub(super) fn next_slice(&mut self, now: Now, out: &mut VecDeque<Action>) {
        self.slice_wanted = false;
        self.work_on_late(now, out);
    }

    /// The entries after `since`, which the first of the late submits asked for.
    pub(super) fn paged(
        &mut self,
        since: Revision,
        page: &[Arc<Entry>],
        now: Now,
        out: &mut VecDeque<Action>,
    ) {
        if self.late.front().is_none_or(|late| late.at != since) {
            return;
        }
        self.late_page = page.to_vec();
        if matches!(self.next_entry(since), NextEntry::Unread)
            && let Some(rebase) = self.late.pop_front()
        {
            // The log lacks what its head promises: nothing can be built on it.
            self.refuse(rebase.from, rebase.id, Rejection::revision_too_old(), out);
            return self.ask_for_more(out);
        }
        self.work_on_late(now, out);
    }

    /// The entries after `since`, which the first of the late submits asked for, cannot be read: it is refused.
    pub(super) fn not_paged(
        &mut self,
        since: Revision,
        rejection: Rejection,
        out: &mut VecDeque<Action>,
    ) {
        if let Some(rebase) = self.late.pop_front_if(|late| late.at == since) {
            self.refuse(rebase.from, rebase.id, rejection, out);
            self.ask_for_more(out);
        }
    }

    /// The stored log is damaged, and the document is whole here: it is saved once more, so that it can be loaded without
    /// the damaged entries. At most once at each revision.
    pub(super) fn rescue(&mut self, out: &mut VecDeque<Action>) {
        if self.rescued.replace(self.head.revision) != Some(self.head.revision) {
            self.unsaved.due = true;
            self.look(out);
        }
    }

    /// Does a slice of work on the first of the late submits.
    fn work_on_late(&mut self, now: Now, out: &mut VecDeque<Action>) {
        let Some(rebase) = self.late.pop_front() else {
            return;
        };
        self.at_work = Some((rebase.from, rebase.id.clone()));
        match self.bring_on(rebase, now, out) {
            Some(rebase) => self.late.push_front(rebase),
            None => self.late_page.clear(),
        }
        self.at_work = None;
        self.ask_for_more(out);
    }

    /// Brings a submit towards the head by at most a slice of work, and stages it there. Hands it back if more is needed.
    fn bring_on(
        &mut self,
        mut rebase: Rebase,
        now: Now,
        out: &mut VecDeque<Action>,
    ) -> Option<Rebase> {
        if let Wanted::Unparsed(json) = &rebase.wanted {
            match Wanted::edit(json, &self.head) {
                Ok(wanted) => rebase.wanted = wanted,
                Err(rejection) => {
                    self.refuse(rebase.from, rebase.id, rejection, out);
                    return None;
                }
            }
        }
        let slice = self.settings.combine_slice_steps;
        let pause_at = rebase.budget.steps().saturating_sub(slice);
        // One entry at a time: over their composition it would become another op (rule 4).
        loop {
            let entry = match self.next_entry(rebase.at) {
                NextEntry::Reached => break,
                NextEntry::Unread => return Some(rebase),
                NextEntry::Is(entry) => entry.clone(),
            };
            if let ControlFlow::Break(outcome) = rebase.over(&entry) {
                self.settle(rebase, outcome, out);
                return None;
            }
            if rebase.budget.steps() < pause_at && rebase.at < self.head.revision {
                return Some(rebase);
            }
        }
        self.stage(rebase, now, out);
        None
    }

    /// The entry after `at`, as far as memory goes.
    fn next_entry(&self, at: Revision) -> NextEntry<'_> {
        if at >= self.head.revision {
            return NextEntry::Reached;
        }
        let entry = if at >= self.tail.head() {
            self.staged.get(distance(self.tail.head(), at))
        } else if let Some(mut known) = self.tail.since(at) {
            known.next()
        } else {
            let first = self.late_page.first().map(|entry| entry.revision.before());
            let place = first.filter(|first| *first <= at);
            place.and_then(|first| self.late_page.get(distance(first, at)))
        };
        entry.map_or(NextEntry::Unread, NextEntry::Is)
    }

    /// Appends so many of the next entries one by one.
    pub(super) fn append_singly(&mut self, entries: usize) {
        self.singly = entries;
    }

    /// The log refused the append under way, though this sequencer's claim holds: a submit in it is in the log already,
    /// where neither memory nor the way from its base showed it. No client of ours says a `seq` twice for two things, but
    /// one that does must not keep the others from writing. Where it was alone it is known, and refused; else the answer
    /// is how many there were.
    pub(super) fn refused(&self, out: &mut VecDeque<Action>) -> usize {
        if self.appending > 1 {
            return self.appending;
        }
        if let Some(entry) = self.staged.front() {
            for node in self.listeners.nodes().chain([self.me]) {
                reject(node, entry.id.clone(), Rejection::seq_used(), out);
            }
        }
        0
    }

    /// The append under way is durable.
    pub(super) fn appended(&mut self, out: &mut VecDeque<Action>) {
        let commits: Vec<Arc<Entry>> = self.staged.drain(..self.appending).collect();
        self.appending = 0;
        self.singly = self.singly.saturating_sub(commits.len());
        for entry in &commits {
            self.staged_bytes -= entry.size();
            self.tail.push(entry.clone());
        }
        let recent = &mut self.recent;
        self.tail.trim(
            self.settings.tail_entries_max,
            self.settings.tail_bytes_max,
            |gone| {
                if recent
                    .get(&client_of(&gone.id))
                    .is_some_and(|(_, revision)| *revision == gone.revision)
                {
                    recent.remove(&client_of(&gone.id));
                }
            },
        );
        if let Some(view) = self.view.take() {
            self.viewed(view, out);
        }
        for node in self.listeners.nodes() {
            out.push_back(Action::Send {
                to: node,
                message: PeerMessage::Commits {
                    head: self.tail.head(),
                    entries: commits.clone(),
                },
            });
        }
        out.push_back(Action::Send {
            to: self.me,
            message: PeerMessage::Commits {
                head: self.tail.head(),
                entries: commits,
            },
        });
        self.say_unsaid(out);
        self.append(out);
    }

    /// Another node wants the commits after `since`, and all that follow.
    pub(super) fn subscribe(
        &mut self,
        from: NodeId,
        since: Revision,
        now: Now,
        out: &mut VecDeque<Action>,
    ) {
        self.listeners.said(from, now);
        // What is no longer here, the forwarder reads from the store when it sees the gap.
        if since < self.tail.head() {
            self.tell(from, since, self.tail.head(), out);
        }
    }

    /// The nodes that are told the commits.
    pub(super) fn listeners(&self) -> &Listeners {
        &self.listeners
    }

    /// As [`listeners`](Self::listeners), to be changed.
    pub(super) fn listeners_mut(&mut self) -> &mut Listeners {
        &mut self.listeners
    }

    /// Whether somebody waits for a snapshot that is not at hand yet.
    pub(super) fn owes_a_snapshot(&self) -> bool {
        self.show_wanted
    }

    /// Asks for the durable document to be encoded, as soon as there is a moment at which it is at hand.
    pub(super) fn show(&mut self, out: &mut VecDeque<Action>) {
        self.show_wanted = true;
        self.look(out);
    }

    /// Takes the durable document if this is a moment at which it is at hand: nothing is staged. Else the next append
    /// provides one.
    fn look(&mut self, out: &mut VecDeque<Action>) {
        if self.staged.is_empty() && (self.show_wanted || self.unsaved.due) {
            self.viewed(self.head.clone(), out);
        }
    }

    fn viewed(&mut self, view: Snapshot, out: &mut VecDeque<Action>) {
        if std::mem::take(&mut self.unsaved.due) {
            out.push_back(Action::SaveSnapshot {
                fence: self.fence,
                snapshot: view.clone(),
            });
        }
        if std::mem::take(&mut self.show_wanted) {
            out.push_back(Action::EncodeSnapshot(view));
        }
    }

    /// Where the log holds, or will hold, an earlier copy of this submit, as far as memory goes.
    fn first_copy(&self, submit: &Submit) -> Option<Revision> {
        let recent = self
            .recent
            .get(&client_of(&submit.id))
            .filter(|(id, _)| *id == submit.id);
        let creator = self
            .head
            .creator
            .as_ref()
            .filter(|(id, _)| *id == submit.id);
        recent.or(creator).map(|(_, revision)| *revision)
    }

    /// Answers a copy of what memory knows to have `revision`.
    fn answer_known_copy(
        &mut self,
        from: NodeId,
        submit: Submit,
        revision: Revision,
        out: &mut VecDeque<Action>,
    ) {
        if revision > self.tail.head() {
            // Not yet durable: its commit will be the answer.
        } else if revision > self.tail.start() {
            self.tell(from, submit.base.unwrap_or(revision), revision, out);
        } else {
            let (base, at) = (revision.before(), revision.before());
            self.put_aside(
                Rebase {
                    from,
                    id: submit.id,
                    bytes: 0,
                    budget: combine_budget(&self.settings),
                    newline: Newline::IsFirst,
                    base,
                    at,
                    on_current: false,
                    wanted: Wanted::Unread,
                },
                out,
            );
        }
    }

    /// Tells a node the commits after `since`, and in any case from `until` on.
    fn tell(&self, to: NodeId, since: Revision, until: Revision, out: &mut VecDeque<Action>) {
        let since = since.min(until.before()).max(self.tail.start());
        let commits: Vec<_> = self
            .tail
            .since(since)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        out.push_back(Action::Send {
            to,
            message: PeerMessage::Commits {
                head: self.tail.head(),
                entries: commits,
            },
        });
    }

    /// Stages a submit that has been brought to the head. If too much is staged already it is dropped without an answer, and
    /// its forwarder sends it again.
    fn stage(&mut self, rebase: Rebase, now: Now, out: &mut VecDeque<Action>) {
        let Wanted::Change(mut change) = rebase.wanted else {
            return self.refuse(rebase.from, rebase.id, Rejection::does_not_exist(), out);
        };
        if let (Change::Edit(op), Some(content)) = (&mut change, &self.head.content) {
            if op.size() > CHANGE_BYTES_MAX {
                return self.refuse(rebase.from, rebase.id, Rejection::op_too_large(), out);
            }
            // Others are told exactly what is applied.
            if let Some(told) = content.with_final_newline(op, rebase.newline) {
                *op = told;
            }
        }
        let full = self.staged.len() >= self.settings.staged_entries_max
            || self.staged_bytes >= self.settings.staged_bytes_max;
        if full {
            return;
        }
        let entry = Entry {
            revision: self.head.revision.next(),
            epoch: self.fence.epoch,
            id: rebase.id,
            // Never before the entry before it, so that times can be searched by halving.
            at_ms: now.wall_ms.max(self.head.at_ms),
            change,
        };
        if let Err(rejection) = self.fold(&entry) {
            return self.refuse(rebase.from, entry.id, rejection, out);
        }
        self.recent
            .insert(client_of(&entry.id), (entry.id.clone(), entry.revision));
        self.staged_bytes += entry.size();
        self.staged.push_back(Arc::new(entry));
        self.append(out);
    }

    fn settle(&mut self, rebase: Rebase, outcome: Outcome, out: &mut VecDeque<Action>) {
        match outcome {
            Outcome::Copy(entry) if entry.revision > self.tail.head() => {
                // Staged, and so told when it is durable.
            }
            Outcome::Copy(entry) if entry.revision > self.tail.start() => {
                self.tell(rebase.from, rebase.base, entry.revision, out);
            }
            Outcome::Copy(entry) => {
                out.push_back(Action::Send {
                    to: rebase.from,
                    message: PeerMessage::Commits {
                        head: self.tail.head(),
                        entries: vec![entry],
                    },
                });
            }
            Outcome::Refused(rejection) => self.refuse(rebase.from, rebase.id, rejection, out),
        }
    }

    /// Folds an entry into the head, unless it does not fit or makes the document too large.
    fn fold(&mut self, entry: &Entry) -> Result<(), Rejection> {
        if matches!(entry.change, Change::Create(_)) && self.head.content.is_some() {
            return Err(Rejection::already_exists());
        }
        let bytes_max = self.settings.document_bytes_max;
        let bounds = ContentBounds::of_new(bytes_max);
        self.head
            .fold_within(entry, &bounds)
            .map_err(|error| match error {
                FoldError::Unfit(_, OtError::ContentTooLarge) => {
                    Rejection::document_too_large(bytes_max)
                }
                FoldError::Unfit(_, error) => error.into(),
                FoldError::Missing(_) => Rejection::does_not_exist(),
                FoldError::Gap { .. } => unreachable!("an entry is made to follow the head"),
            })
    }

    /// Whether so much was committed since the last snapshot that the next opening should not have to walk it. A large
    /// document costs more to snapshot than to walk, so it is walked further.
    fn is_snapshot_due(&self) -> bool {
        let content = self
            .head
            .content
            .as_ref()
            .map_or(0, |content| content.size_bytes());
        let pieces = 1 + content / SNAPSHOT_PIECE_BYTES;
        self.unsaved.entries >= self.settings.snapshot_entries * pieces
            || self.unsaved.bytes >= self.settings.snapshot_bytes * pieces
    }

    /// Sends all that is staged on its way, unless an append is under way: then it gathers.
    fn append(&mut self, out: &mut VecDeque<Action>) {
        if self.appending > 0 || self.staged.is_empty() {
            return self.look(out);
        }
        self.appending = if self.singly > 0 {
            1
        } else {
            self.staged.len()
        };
        self.unsaved.entries += self.appending;
        self.unsaved.bytes += self.under_way().map(|entry| entry.size()).sum::<usize>();
        if self.is_snapshot_due() {
            self.unsaved = Unsaved {
                due: true,
                ..Unsaved::default()
            };
        }
        // The head holds all that is staged: it is what this append leads to only if all of it goes.
        if (self.unsaved.due || self.show_wanted) && self.appending == self.staged.len() {
            self.view = Some(self.head.clone());
        }
        let entries = self.under_way().cloned().collect();
        out.push_back(Action::Append {
            fence: self.fence,
            entries,
        });
    }

    fn under_way(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.staged.range(..self.appending)
    }
}

/// The entry after a revision.
enum NextEntry<'a> {
    Is(&'a Arc<Entry>),
    /// There is none: the revision is the head.
    Reached,
    /// It is in the store.
    Unread,
}

/// How many revisions lie between two.
fn distance(from: Revision, to: Revision) -> usize {
    usize::try_from(to.0 - from.0).unwrap_or(usize::MAX)
}

fn reject(to: NodeId, id: SubmitId, rejection: Rejection, out: &mut VecDeque<Action>) {
    out.push_back(Action::Send {
        to,
        message: PeerMessage::Reject { id, rejection },
    });
}

/// What may be spent on one submit.
fn combine_budget(settings: &DocumentSettings) -> Budget {
    Budget::new(settings.combine_steps_max, CHANGE_BYTES_MAX)
}

/// A submit on its way from its base to the head.
#[derive(Debug, Clone)]
struct Rebase {
    from: NodeId,
    id: SubmitId,
    /// How many bytes it took when it came, about.
    bytes: usize,
    /// What may still be spent to bring it on.
    budget: Budget,
    /// Whether its author may see a final newline behind one that came meanwhile.
    newline: Newline,
    base: Revision,
    /// The revision that it has been brought to.
    at: Revision,
    /// Whether it was made on whatever is current: on its way it looks for its first copy, and nothing else concerns it.
    on_current: bool,
    wanted: Wanted,
}

#[derive(Debug, Clone)]
enum Wanted {
    Change(Change),
    /// The JSON of a large edit that waits for its first slice of work.
    Unparsed(Arc<str>),
    /// An edit of a document that does not exist: no type could read it. It can still be a copy, or too late.
    Unread,
}

impl Wanted {
    /// An edit of the document at its head.
    fn edit(json: &str, head: &Snapshot) -> Result<Self, Rejection> {
        let Some(content) = &head.content else {
            return Ok(Self::Unread);
        };
        let op = Op::parse(content.kind(), json)?;
        Ok(Self::Change(Change::Edit(op)))
    }
}

/// Why a submit need not go further.
#[derive(Debug)]
enum Outcome {
    /// This is its first copy.
    Copy(Arc<Entry>),
    Refused(Rejection),
}

impl Rebase {
    fn new(
        from: NodeId,
        submit: Submit,
        head: &Snapshot,
        settings: &DocumentSettings,
    ) -> Result<Self, (SubmitId, Rejection)> {
        let Submit { id, base, proposal } = submit;
        let bytes = proposal.size();
        let wanted = match proposal {
            Proposal::Create(content) => Wanted::Change(Change::Create(content)),
            Proposal::Delete => Wanted::Change(Change::Delete),
            // What an op takes once it is parsed is several times its JSON: those that wait stay as they are.
            Proposal::Edit(json) if bytes > LARGE_OP_BYTES => Wanted::Unparsed(json),
            Proposal::Edit(json) => match Wanted::edit(&json, head) {
                Ok(wanted) => wanted,
                Err(rejection) => return Err((id, rejection)),
            },
        };
        let past = Revision(head.revision.0.saturating_sub(COPY_WITHIN));
        Ok(Self {
            from,
            id,
            bytes,
            budget: combine_budget(settings),
            newline: Newline::IsFirst,
            base: base.unwrap_or(head.revision),
            at: base.unwrap_or(past),
            on_current: base.is_none(),
            wanted,
        })
    }

    /// Brings it past one entry: ShareDB's matrix of what may follow what.
    fn over(&mut self, entry: &Arc<Entry>) -> ControlFlow<Outcome> {
        if entry.id == self.id {
            return ControlFlow::Break(Outcome::Copy(entry.clone()));
        }
        if self.on_current {
            self.at = entry.revision;
            return ControlFlow::Continue(());
        }
        let refused = |rejection| ControlFlow::Break(Outcome::Refused(rejection));
        match (&mut self.wanted, &entry.change) {
            (_, Change::Nothing) => {}
            (_, Change::Create(_)) => return refused(Rejection::already_exists()),
            (Wanted::Change(Change::Create(_)), Change::Edit(_)) => {
                return refused(Rejection::already_exists());
            }
            (
                Wanted::Change(Change::Create(_) | Change::Edit(_))
                | Wanted::Unparsed(_)
                | Wanted::Unread,
                Change::Delete,
            ) => {
                return refused(Rejection::deleted());
            }
            (Wanted::Change(Change::Edit(op)), Change::Edit(other)) => {
                // The later op is the left one, as it is in its client.
                match op.transform_within(other, Side::Left, &mut self.budget) {
                    Ok(moved) => {
                        *op = moved;
                        self.newline = Newline::MayBeSecond;
                    }
                    Err(error) => return refused(error.into()),
                }
            }
            (
                Wanted::Change(Change::Delete | Change::Nothing),
                Change::Edit(_) | Change::Delete,
            )
            | (Wanted::Unparsed(_) | Wanted::Unread, Change::Edit(_)) => {}
        }
        self.at = entry.revision;
        ControlFlow::Continue(())
    }
}

/// The client of a submit: another user's may have the same id.
fn client_of(id: &SubmitId) -> (UserId, ClientId) {
    (id.author.clone(), id.client.clone())
}

#[cfg(test)]
mod tests;
