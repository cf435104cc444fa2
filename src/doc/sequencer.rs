//! The owner's half: gives every submit its place in the log.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::event::{Action, Asker, Now};
use super::link::{Link, Submit};
use super::listeners::Listeners;
use super::settings::DocumentSettings;
use crate::id::{ClientId, NodeId};
use crate::log::{Change, Entry, Fence, FoldError, Revision, Snapshot, SubmitId, Tail};
use crate::ot::{Op, Side};
use crate::protocol::{Proposal, Refusal};

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
    recent: BTreeMap<ClientId, (SubmitId, Revision)>,
    /// Submits made on revisions before the tail, walked towards it page by page, one at a time.
    late: VecDeque<Rebase>,
    /// What was refused, newest last: a copy that comes when it would be accepted finds its client told otherwise.
    refused: VecDeque<(SubmitId, Refusal)>,
    /// Refusals that were decided on what is staged, each with the revision up to which it was looked at, and the node that
    /// waits: they are told when that is durable. It may never be, and then another owner lets the submit in.
    unsaid: VecDeque<(Revision, NodeId, SubmitId, Refusal)>,
    /// The other nodes that are told the commits.
    listeners: Listeners,
    /// The document as it will be when the append under way is durable, if somebody waits for it.
    view: Option<Snapshot>,
    /// Whether somebody wants to be shown the document.
    show_wanted: bool,
    /// What was appended since the last snapshot was asked for.
    unsaved: Unsaved,
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

/// How many bytes an op may take in memory when it has been brought to the head. The largest message makes one of some 3 MB.
const CHANGE_BYTES_MAX: usize = 8 << 20;

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
            recent.insert(entry.id.client.clone(), (entry.id.clone(), entry.revision));
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
            refused: VecDeque::new(),
            unsaid: VecDeque::new(),
            listeners,
            view: None,
            show_wanted: false,
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
        if let Some((id, refusal)) = refused.cloned() {
            self.say_no(from, id, refusal, out);
            return Verdict::Settled;
        }
        if submit.base.is_some_and(|base| base > self.tail.head()) {
            return Verdict::Ahead(submit);
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

    /// Finds the place of a submit that is not known.
    fn place(&mut self, from: NodeId, submit: Submit, now: Now, out: &mut VecDeque<Action>) {
        let rebase = match Rebase::new(from, submit, &self.head) {
            Ok(rebase) => rebase,
            Err((id, refusal)) => return self.refuse(from, id, refusal, out),
        };
        if rebase.at >= self.tail.start() {
            self.stage(rebase, now, out);
        } else if !rebase.on_current
            && self.tail.start().0 - rebase.at.0 > self.settings.behind_entries_max
        {
            self.refuse(from, rebase.id, Refusal::ops_not_found(), out);
        } else {
            self.put_aside(rebase, out);
        }
    }

    /// Refuses a submit, and every copy of it that is still to come.
    fn refuse(&mut self, to: NodeId, id: SubmitId, refusal: Refusal, out: &mut VecDeque<Action>) {
        if self.refused.len() >= REFUSED_MAX {
            self.refused.pop_front();
        }
        self.refused.push_back((id.clone(), refusal.clone()));
        self.say_no(to, id, refusal, out);
    }

    fn say_no(&mut self, to: NodeId, id: SubmitId, refusal: Refusal, out: &mut VecDeque<Action>) {
        let waits =
            |(_, node, waiting, _): &(_, NodeId, SubmitId, _)| *node == to && *waiting == id;
        if self.staged.is_empty() {
            reject(to, id, refusal, out);
        } else if !self.unsaid.iter().any(waits) {
            self.unsaid.push_back((self.head.revision, to, id, refusal));
        }
    }

    /// Tells the refusals whose reasons are durable.
    fn say_unsaid(&mut self, out: &mut VecDeque<Action>) {
        let durable = self.tail.head();
        while let Some((_, to, id, refusal)) = self.unsaid.pop_front_if(|(at, ..)| *at <= durable) {
            reject(to, id, refusal, out);
        }
    }

    /// Lets a submit wait for the entries between its base and the tail. Where too many wait already it is passed over:
    /// whoever waits for it says it again. To say no would be to say it of each copy, whatever becomes of the next.
    fn put_aside(&mut self, rebase: Rebase, out: &mut VecDeque<Action>) {
        if let Some(late) = self.late.iter_mut().find(|late| late.id == rebase.id) {
            // Whoever is not answered asks again; where this node's own sessions wait for it, they are answered.
            if rebase.from == self.me {
                late.from = self.me;
            }
            return;
        }
        let bytes: usize = self.late.iter().map(|late| late.bytes).sum();
        if self.late.len() < self.settings.late_submits_max
            && bytes < self.settings.staged_bytes_max
        {
            self.late.push_back(rebase);
            if self.late.len() == 1 {
                self.page(out);
            }
        }
    }

    /// Asks for what the first of the late submits has not seen.
    pub(super) fn page(&self, out: &mut VecDeque<Action>) {
        if let Some(late) = self.late.front() {
            let asker = Asker::Sequencer(self.fence.epoch);
            out.push_back(Action::Page {
                asker,
                since: late.at,
            });
        }
    }

    /// The entries after `since`, which the first of the late submits asked for.
    pub(super) fn paged(
        &mut self,
        since: Revision,
        page: &[Arc<Entry>],
        now: Now,
        out: &mut VecDeque<Action>,
    ) {
        let Some(rebase) = self.late.front().cloned().filter(|late| late.at == since) else {
            return;
        };
        self.at_work = Some((rebase.from, rebase.id.clone()));
        self.walk(rebase, page, now, out);
        self.at_work = None;
    }

    /// Brings the first of the late submits over a page.
    fn walk(
        &mut self,
        mut rebase: Rebase,
        page: &[Arc<Entry>],
        now: Now,
        out: &mut VecDeque<Action>,
    ) {
        for entry in page {
            if let ControlFlow::Break(outcome) = rebase.over(entry) {
                self.late.pop_front();
                self.settle(rebase, outcome, out);
                return self.page(out);
            }
            if rebase.at == self.tail.head() {
                break;
            }
        }
        // A page without progress means that the log lacks what its head promises: nothing can be built on it.
        if page.is_empty() {
            self.late.pop_front();
            self.refuse(rebase.from, rebase.id, Refusal::ops_not_found(), out);
            return self.page(out);
        }
        if rebase.at < self.tail.start() {
            self.late[0] = rebase;
        } else {
            self.late.pop_front();
            self.stage(rebase, now, out);
        }
        self.page(out);
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
                reject(node, entry.id.clone(), Refusal::seq_used(), out);
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
                    .get(&gone.id.client)
                    .is_some_and(|(_, revision)| *revision == gone.revision)
                {
                    recent.remove(&gone.id.client);
                }
            },
        );
        if let Some(view) = self.view.take() {
            self.viewed(view, out);
        }
        for node in self.listeners.nodes() {
            out.push_back(Action::Send {
                to: node,
                link: Link::Commits {
                    head: self.tail.head(),
                    entries: commits.clone(),
                },
            });
        }
        out.push_back(Action::Send {
            to: self.me,
            link: Link::Commits {
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
            out.push_back(Action::Save {
                fence: self.fence,
                snapshot: view.clone(),
            });
        }
        if std::mem::take(&mut self.show_wanted) {
            out.push_back(Action::Encode(view));
        }
    }

    /// Where the log holds, or will hold, an earlier copy of this submit, as far as memory goes.
    fn first_copy(&self, submit: &Submit) -> Option<Revision> {
        let recent = self
            .recent
            .get(&submit.id.client)
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
            link: Link::Commits {
                head: self.tail.head(),
                entries: commits,
            },
        });
    }

    /// Brings a submit that has reached the tail to the head, and stages it. Where too much is staged already it is passed
    /// over, and said again by whoever waits for it.
    fn stage(&mut self, mut rebase: Rebase, now: Now, out: &mut VecDeque<Action>) {
        let unseen = self
            .tail
            .since(rebase.at.min(self.tail.head()))
            .expect("whoever stages has reached the tail");
        // What is made on whatever is current is made on the staged too.
        let at = rebase.at;
        let staged = self.staged.iter().filter(|entry| entry.revision > at);
        // One entry at a time: over their composition it would become another op (rule 4).
        let walked = unseen
            .chain(staged)
            .try_for_each(|entry| rebase.over(entry));
        if let ControlFlow::Break(outcome) = walked {
            return self.settle(rebase, outcome, out);
        }
        let Wanted::Change(change) = rebase.wanted else {
            return self.refuse(rebase.from, rebase.id, Refusal::does_not_exist(), out);
        };
        // Each entry that it is brought past may have cut it into more pieces.
        if change.size() > CHANGE_BYTES_MAX && matches!(change, Change::Edit(_)) {
            return self.refuse(rebase.from, rebase.id, Refusal::op_too_large(), out);
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
            at_ms: now.wall_ms.max(self.head.at_ms),
            change,
        };
        if let Err(refusal) = self.fold(&entry) {
            return self.refuse(rebase.from, entry.id, refusal, out);
        }
        self.recent
            .insert(entry.id.client.clone(), (entry.id.clone(), entry.revision));
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
                    link: Link::Commits {
                        head: self.tail.head(),
                        entries: vec![entry],
                    },
                });
            }
            Outcome::Refused(refusal) => self.refuse(rebase.from, rebase.id, refusal, out),
        }
    }

    /// Folds an entry into the head, unless it does not fit or makes the document too large.
    fn fold(&mut self, entry: &Entry) -> Result<(), Refusal> {
        let bytes_max = self.settings.document_bytes_max;
        let bytes = self
            .head
            .content
            .as_ref()
            .map_or(0, |content| content.size_bytes());
        if matches!(entry.change, Change::Create(_)) && self.head.content.is_some() {
            return Err(Refusal::already_created());
        }
        if bytes + entry.change.size() <= bytes_max {
            return self.head.fold(entry).map_err(|error| unfit(&error));
        }
        // Near the limit the outcome decides: what shrinks the document is always welcome.
        let mut grown = self.head.clone();
        grown.fold(entry).map_err(|error| unfit(&error))?;
        let bytes_grown = grown
            .content
            .as_ref()
            .map_or(0, |content| content.size_bytes());
        if bytes_grown > bytes_max && bytes_grown > bytes {
            return Err(Refusal::document_too_large(bytes_max));
        }
        self.head = grown;
        Ok(())
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

fn unfit(error: &FoldError) -> Refusal {
    match error {
        FoldError::Unfit(_, error) => (*error).into(),
        FoldError::Missing(_) => Refusal::does_not_exist(),
        FoldError::Gap { .. } => unreachable!("an entry is made to follow the head"),
    }
}

fn reject(to: NodeId, id: SubmitId, refusal: Refusal, out: &mut VecDeque<Action>) {
    out.push_back(Action::Send {
        to,
        link: Link::Reject { id, refusal },
    });
}

/// A submit on its way from its base to the head.
#[derive(Debug, Clone)]
struct Rebase {
    from: NodeId,
    id: SubmitId,
    /// How many bytes it took when it came, about.
    bytes: usize,
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
    /// An edit of a document that does not exist: no type could read it. It can still be a copy, or too late.
    Unread,
}

/// Why a submit need not go further.
#[derive(Debug)]
enum Outcome {
    /// This is its first copy.
    Copy(Arc<Entry>),
    Refused(Refusal),
}

impl Rebase {
    fn new(from: NodeId, submit: Submit, head: &Snapshot) -> Result<Self, (SubmitId, Refusal)> {
        let Submit { id, base, proposal } = submit;
        let wanted = match (proposal, &head.content) {
            (Proposal::Create(content), _) => Wanted::Change(Change::Create(content)),
            (Proposal::Delete, _) => Wanted::Change(Change::Delete),
            (Proposal::Edit(_), None) => Wanted::Unread,
            (Proposal::Edit(json), Some(content)) => match Op::parse(content.kind(), &json) {
                Ok(op) => Wanted::Change(Change::Edit(op)),
                Err(error) => return Err((id, error.into())),
            },
        };
        let bytes = match &wanted {
            Wanted::Change(change) => change.size(),
            Wanted::Unread => 0,
        };
        let past = Revision(head.revision.0.saturating_sub(COPY_WITHIN));
        Ok(Self {
            from,
            id,
            bytes,
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
        let refused = |refusal| ControlFlow::Break(Outcome::Refused(refusal));
        match (&mut self.wanted, &entry.change) {
            (_, Change::Nothing) => {}
            (_, Change::Create(_)) => return refused(Refusal::already_created()),
            (Wanted::Change(Change::Create(_)), Change::Edit(_)) => {
                return refused(Refusal::already_created());
            }
            (
                Wanted::Change(Change::Create(_) | Change::Edit(_)) | Wanted::Unread,
                Change::Delete,
            ) => {
                return refused(Refusal::was_deleted());
            }
            (Wanted::Change(Change::Edit(op)), Change::Edit(other)) => {
                // The later op is the left one, as it is in its client.
                match op.transform(other, Side::Left) {
                    Ok(moved) => *op = moved,
                    Err(error) => return refused(error.into()),
                }
            }
            (
                Wanted::Change(Change::Delete | Change::Nothing),
                Change::Edit(_) | Change::Delete,
            )
            | (Wanted::Unread, Change::Edit(_)) => {}
        }
        self.at = entry.revision;
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests;
