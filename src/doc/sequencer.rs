//! The owner's half of a document: gives every submit its place in the log.

mod duplicates;
mod rebase;
mod rebase_queue;
mod snapshot_schedule;
mod staged_log;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use self::duplicates::Duplicates;
use self::rebase::{CHANGE_BYTES_MAX, LARGE_OP_BYTES, Rebase, RebaseEnd, RebasedChange};
use self::rebase_queue::RebaseQueue;
use self::snapshot_schedule::SnapshotSchedule;
use self::staged_log::StagedLog;
use super::action::Action;
use super::effects::Effects;
use super::event::{Now, PageRequester};
use super::peer_message::PeerMessage;
use super::peer_subscriptions::PeerSubscriptions;
use super::rejection::Rejection;
use super::settings::DocumentSettings;
use super::submit::{Proposal, Submit};
use crate::id::NodeId;
use crate::log::{Change, Entry, Fence, FoldError, Revision, Snapshot, SubmitId, Tail};
use crate::ot::{ContentBounds, OtError};
use crate::store::AppendError;

/// Gives every submit its place in the log: recognises copies, rebases to the head, stages, and appends in groups. Knows nodes,
/// not sessions.
///
/// # Contract
///
/// A sequencer lives from one successful claim to the first append that did not certainly succeed, and is dropped then. What a
/// method wants done it adds to `effects`, messages to this node included. For each
/// [`Action::Append`] the document calls [`appended`](Self::appended) or drops the sequencer, after
/// [`append_rejected`](Self::append_rejected) if the log rejected the entries; there is one append at a time. For each
/// [`Action::LoadPage`] it calls [`page_loaded`](Self::page_loaded) or [`page_failed`](Self::page_failed), or later
/// [`continue_rebase`](Self::continue_rebase); for each [`Action::RequestSlice`], [`slice_granted`](Self::slice_granted).
/// Nothing is acknowledged, broadcast or rejected before the entries that it was decided on are durable.
#[derive(Debug)]
pub(super) struct Sequencer {
    fence: Fence,
    me: NodeId,
    /// The document with everything that is staged.
    head: Snapshot,
    log: StagedLog,
    duplicates: Duplicates,
    /// The submits that are rebased in slices.
    rebasing: RebaseQueue,
    /// Rejections that were decided on staged entries, oldest first. They are sent when those are durable: if that never
    /// happens, another owner may accept the submit.
    deferred_rejections: VecDeque<DeferredRejection>,
    /// The other nodes that are sent the commits.
    subscriptions: PeerSubscriptions,
    snapshots: SnapshotSchedule,
    /// The submit that is being processed. After a panic it is the cause.
    in_progress: Option<SubmitInProgress>,
    settings: DocumentSettings,
}

/// The submit that is being processed.
#[derive(Debug, Clone)]
pub(super) struct SubmitInProgress {
    /// The node that sent it.
    pub(super) from: NodeId,
    pub(super) id: SubmitId,
    pub(super) base: Option<Revision>,
    /// The change; `None` for a copy of a commit.
    pub(super) proposal: Option<Proposal>,
}

/// A rejection that waits until entries are durable.
#[derive(Debug)]
struct DeferredRejection {
    /// The newest entry that it was decided on.
    until: Revision,
    to: NodeId,
    id: SubmitId,
    rejection: Rejection,
}

/// The result of handing a submit to the sequencer.
#[derive(Debug)]
pub(super) enum SubmitOutcome {
    /// It was staged, recognised, rejected or queued. The answer is or will be among the effects.
    Settled,
    /// Its base is beyond this sequencer's durable head: the client is faulty, or another node has appended since the claim.
    FutureBase(Submit),
}

/// What a rejected append had.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RejectedAppend {
    /// One entry, whose submit was rejected.
    One(SubmitId, Rejection),
    /// So many entries. One of them is at fault.
    Several(usize),
}

/// The entry after a revision.
enum NextEntry<'a> {
    Loaded(&'a Arc<Entry>),
    /// There is none: the revision is the head.
    AtHead,
    /// The store has it.
    InStore,
}

impl Sequencer {
    /// Starts under a new claim. `head` is the document as the claim found it, `tail` its newest entries, `subscriptions` the
    /// nodes that wait for commits.
    pub(super) fn new(
        me: NodeId,
        fence: Fence,
        head: Snapshot,
        tail: Tail,
        subscriptions: PeerSubscriptions,
        settings: DocumentSettings,
    ) -> Self {
        assert_eq!(tail.head(), head.revision, "the tail leads to the head");
        Self {
            fence,
            me,
            head,
            snapshots: SnapshotSchedule::after_opening(tail.len()),
            duplicates: Duplicates::of(&tail),
            log: StagedLog::new(tail),
            rebasing: RebaseQueue::default(),
            deferred_rejections: VecDeque::new(),
            subscriptions,
            in_progress: None,
            settings,
        }
    }

    /// The fence that appends are made under.
    pub(super) fn fence(&self) -> Fence {
        self.fence
    }

    /// The revision of the newest staged entry.
    pub(super) fn head(&self) -> Revision {
        self.head.revision
    }

    /// Returns true if nothing is staged and no submit is being rebased.
    pub(super) fn is_quiet(&self) -> bool {
        self.log.is_durable() && self.rebasing.is_empty()
    }

    /// The submit that was being processed when the sequencer panicked.
    pub(super) fn in_progress(&self) -> Option<&SubmitInProgress> {
        self.in_progress.as_ref()
    }

    /// Rejects every later copy of these submits.
    pub(super) fn reject_copies(&mut self, rejected: &[(SubmitId, Rejection)]) {
        for (id, rejection) in rejected {
            self.duplicates.rejected(id.clone(), rejection.clone());
        }
    }

    /// The nodes that are sent the commits.
    pub(super) fn subscriptions(&self) -> &PeerSubscriptions {
        &self.subscriptions
    }

    /// As [`subscriptions`](Self::subscriptions), to be changed.
    pub(super) fn subscriptions_mut(&mut self) -> &mut PeerSubscriptions {
        &mut self.subscriptions
    }

    /// The entry at the base of a submit, if it is in memory and is not the one with `fingerprint`, which the submit's sender
    /// has: the submit was made on another history of the document.
    pub(super) fn other_base(
        &self,
        submit: &Submit,
        fingerprint: Option<u64>,
    ) -> Option<Arc<Entry>> {
        let mine = self.log.tail().entry(submit.base?)?;
        (mine.fingerprint() != fingerprint?).then(|| mine.clone())
    }

    /// Gives a submit the next revision, or answers it as its first copy was.
    pub(super) fn submit(
        &mut self,
        from: NodeId,
        submit: Submit,
        now: Now,
        effects: &mut Effects,
    ) -> SubmitOutcome {
        if from != self.me {
            self.subscriptions.renew(from, now);
        }
        // A copy of an earlier submit is answered like that.
        if let Some(revision) = self.first_copy(&submit.id) {
            self.answer_copy(from, submit, revision, effects);
            return SubmitOutcome::Settled;
        }
        if let Some(rejection) = self.duplicates.rejection_of(&submit.id).cloned() {
            self.send_rejection(from, submit.id, rejection, effects);
            return SubmitOutcome::Settled;
        }
        if submit.base.is_some_and(|base| base > self.log.durable()) {
            return SubmitOutcome::FutureBase(submit);
        }
        if self.rebasing.has_copy(from, &submit.id, self.me) {
            return SubmitOutcome::Settled;
        }
        self.in_progress = Some(SubmitInProgress {
            from,
            id: submit.id.clone(),
            base: submit.base,
            proposal: Some(submit.proposal.clone()),
        });
        assert!(
            !self.settings.panics_on(&submit.proposal),
            "a test provokes a panic"
        );
        self.begin_rebase(from, submit, now, effects);
        self.in_progress = None;
        SubmitOutcome::Settled
    }

    /// The revision of the first copy of this submit, as far as memory tells.
    fn first_copy(&self, id: &SubmitId) -> Option<Revision> {
        let creator = self.head.creator.as_ref();
        let creator = creator.filter(|(creator, _)| creator == id);
        let creator = creator.map(|(_, revision)| *revision);
        self.duplicates.first_copy(id).or(creator)
    }

    /// Answers a copy of the submit that has or will have `revision`.
    fn answer_copy(
        &mut self,
        from: NodeId,
        submit: Submit,
        revision: Revision,
        effects: &mut Effects,
    ) {
        if revision > self.log.durable() {
            // The commit of the staged entry is the answer.
        } else if revision > self.log.tail().start() {
            let base = submit.base.unwrap_or(revision);
            self.send_commits(from, base, revision, effects);
        } else {
            let copy = Rebase::of_copy(from, submit.id, revision, &self.settings);
            self.queue_rebase(copy, effects);
        }
    }

    /// Rebases a submit at once if that is cheap, and queues it otherwise.
    fn begin_rebase(&mut self, from: NodeId, submit: Submit, now: Now, effects: &mut Effects) {
        let is_large = submit.proposal.size() > LARGE_OP_BYTES;
        let rebase = match Rebase::new(from, submit, &self.head, &self.settings) {
            Ok(rebase) => rebase,
            Err((id, rejection)) => return self.reject(from, id, rejection, effects),
        };
        let behind = self.log.tail().start().0.saturating_sub(rebase.at.0);
        if !rebase.without_base && behind > self.settings.behind_entries_max {
            self.reject(from, rebase.id, Rejection::revision_too_old(), effects);
        } else if is_large || behind > 0 {
            self.queue_rebase(rebase, effects);
        } else if let Some(rebase) = self.rebase_slice(rebase, now, effects) {
            self.queue_rebase(rebase, effects);
        }
    }

    /// Queues a submit for its next slice of work, or for the entries between its base and the tail. If too many wait it is
    /// dropped without an answer, and its forwarder sends it again: a rejection would hold for every copy.
    fn queue_rebase(&mut self, rebase: Rebase, effects: &mut Effects) {
        if self.rebasing.has_copy(rebase.from, &rebase.id, self.me) {
            return;
        }
        if self.rebasing.add(rebase, &self.settings) && self.rebasing.len() == 1 {
            self.continue_rebase(effects);
        }
    }

    /// Requests what the first queued submit needs: entries from the store, or its next slice of work.
    pub(super) fn continue_rebase(&mut self, effects: &mut Effects) {
        let Some(at) = self.rebasing.first().map(|first| first.at) else {
            return;
        };
        let epoch = self.fence.epoch;
        if matches!(self.next_entry(at), NextEntry::InStore) {
            effects.load_page(PageRequester::Sequencer(epoch), at);
        } else if self.rebasing.request_slice() {
            effects.action(Action::RequestSlice(epoch));
        }
    }

    /// The requested slice of work may be done.
    pub(super) fn slice_granted(&mut self, now: Now, effects: &mut Effects) {
        self.rebasing.slice_granted();
        self.work_on_first(now, effects);
    }

    /// The entries after `since`, which the first queued submit needs, were loaded.
    pub(super) fn page_loaded(
        &mut self,
        since: Revision,
        page: &[Arc<Entry>],
        now: Now,
        effects: &mut Effects,
    ) {
        if self.rebasing.first().is_none_or(|first| first.at != since) {
            return;
        }
        self.rebasing.set_page(page);
        if matches!(self.next_entry(since), NextEntry::InStore)
            && let Some(rebase) = self.rebasing.take_first()
        {
            // The log lacks an entry that its head promises: nothing can be rebased over it.
            self.reject(
                rebase.from,
                rebase.id,
                Rejection::revision_too_old(),
                effects,
            );
            return self.continue_rebase(effects);
        }
        self.work_on_first(now, effects);
    }

    /// The entries after `since`, which the first queued submit needs, cannot be read: it is rejected.
    pub(super) fn page_failed(
        &mut self,
        since: Revision,
        rejection: Rejection,
        effects: &mut Effects,
    ) {
        if let Some(rebase) = self.rebasing.take_first_at(since) {
            self.reject(rebase.from, rebase.id, rejection, effects);
            self.continue_rebase(effects);
        }
    }

    /// Does a slice of work on the first queued submit.
    fn work_on_first(&mut self, now: Now, effects: &mut Effects) {
        let Some(rebase) = self.rebasing.take_first() else {
            return;
        };
        self.in_progress = Some(SubmitInProgress {
            from: rebase.from,
            id: rebase.id.clone(),
            base: (!rebase.without_base).then_some(rebase.base),
            proposal: rebase.proposal.clone(),
        });
        match self.rebase_slice(rebase, now, effects) {
            Some(rebase) => self.rebasing.put_back(rebase),
            None => self.rebasing.clear_page(),
        }
        self.in_progress = None;
        self.continue_rebase(effects);
    }

    /// Rebases a submit by at most a slice of work, and stages it at the head. Returns it if it needs more work.
    fn rebase_slice(
        &mut self,
        mut rebase: Rebase,
        now: Now,
        effects: &mut Effects,
    ) -> Option<Rebase> {
        if let RebasedChange::Unparsed(json) = &rebase.change {
            match RebasedChange::parse(json, &self.head) {
                Ok(change) => rebase.change = change,
                Err(rejection) => {
                    self.reject(rebase.from, rebase.id, rejection, effects);
                    return None;
                }
            }
        }
        let slice = self.settings.combine_slice_steps;
        let pause_at = rebase.budget.steps().saturating_sub(slice);
        // One entry at a time: rebased over their composition it would become another op (rule 4).
        loop {
            let entry = match self.next_entry(rebase.at) {
                NextEntry::AtHead => break,
                NextEntry::InStore => return Some(rebase),
                NextEntry::Loaded(entry) => entry.clone(),
            };
            if let ControlFlow::Break(end) = rebase.over(&entry) {
                self.end_rebase(rebase, end, effects);
                return None;
            }
            if rebase.budget.steps() < pause_at && rebase.at < self.head.revision {
                return Some(rebase);
            }
        }
        self.stage(rebase, now, effects);
        None
    }

    /// The entry after `at`, as far as memory reaches.
    fn next_entry(&self, at: Revision) -> NextEntry<'_> {
        if at >= self.head.revision {
            return NextEntry::AtHead;
        }
        let entry = self.log.next(at).or_else(|| self.rebasing.loaded(at));
        entry.map_or(NextEntry::InStore, NextEntry::Loaded)
    }

    /// Answers a submit that is not rebased further.
    fn end_rebase(&mut self, rebase: Rebase, end: RebaseEnd, effects: &mut Effects) {
        match end {
            RebaseEnd::Duplicate(entry) if entry.revision > self.log.durable() => {
                // The commit of the staged entry is the answer.
            }
            RebaseEnd::Duplicate(entry) if entry.revision > self.log.tail().start() => {
                self.send_commits(rebase.from, rebase.base, entry.revision, effects);
            }
            RebaseEnd::Duplicate(entry) => {
                let head = self.log.durable();
                let entries = vec![entry];
                effects.send(rebase.from, PeerMessage::Commits { head, entries });
            }
            RebaseEnd::Rejected(rejection) => {
                self.reject(rebase.from, rebase.id, rejection, effects);
            }
        }
    }

    /// Stages a submit that has been rebased to the head. If too much is staged it is dropped without an answer, and its
    /// forwarder sends it again.
    fn stage(&mut self, rebase: Rebase, now: Now, effects: &mut Effects) {
        let RebasedChange::Parsed(mut change) = rebase.change else {
            return self.reject(rebase.from, rebase.id, Rejection::does_not_exist(), effects);
        };
        if let (Change::Edit(op), Some(content)) = (&mut change, &self.head.content) {
            if op.size() > CHANGE_BYTES_MAX {
                return self.reject(rebase.from, rebase.id, Rejection::op_too_large(), effects);
            }
            // Commit exactly what is applied.
            if let Some(completed) = content.with_final_newline(op, rebase.newline) {
                *op = completed;
            }
        }
        if self.log.is_full(&self.settings) {
            return;
        }
        let entry = Entry {
            revision: self.head.revision.next(),
            epoch: self.fence.epoch,
            id: rebase.id,
            // Times never fall, so that they can be searched by bisection.
            at_ms: now.wall_ms.max(self.head.at_ms),
            change,
        };
        if let Err(rejection) = self.fold(&entry) {
            return self.reject(rebase.from, entry.id, rejection, effects);
        }
        self.duplicates.committed(&entry);
        self.log.stage(entry);
        self.append(effects);
    }

    /// Applies an entry to the head, unless it does not fit or makes the document too large.
    fn fold(&mut self, entry: &Entry) -> Result<(), Rejection> {
        if matches!(entry.change, Change::Create(_)) && self.head.content.is_some() {
            return Err(Rejection::already_exists());
        }
        let bytes_max = self.settings.document_bytes_max;
        let bounds = ContentBounds::of_new(bytes_max);
        let folded = self.head.fold_within(entry, &bounds);
        folded.map_err(|error| match error {
            FoldError::Unfit(_, OtError::ContentTooLarge) => {
                Rejection::document_too_large(bytes_max)
            }
            FoldError::Unfit(_, error) => error.into(),
            FoldError::Missing(_) => Rejection::does_not_exist(),
            FoldError::Gap { .. } => unreachable!("an entry is made to follow the head"),
        })
    }

    /// Appends everything that is staged, unless an append is under way: then it is appended together afterwards.
    fn append(&mut self, effects: &mut Effects) {
        if !self.log.may_append() {
            return self.provide_snapshots(effects);
        }
        self.log.begin_append();
        let entries: Vec<Arc<Entry>> = self.log.appending().cloned().collect();
        let appended = entries.iter().map(AsRef::as_ref);
        self.snapshots
            .appending(appended, &self.head, &self.settings);
        // The head holds everything that is staged. The append leads to it only if it holds all of that.
        if self.snapshots.is_any_owed() && self.log.is_appending_all() {
            self.snapshots.keep(&self.head);
        }
        let fence = self.fence;
        effects.action(Action::Append { fence, entries });
    }

    /// The append under way is durable.
    pub(super) fn appended(&mut self, effects: &mut Effects) {
        let commits = self.log.appended();
        let duplicates = &mut self.duplicates;
        self.log
            .trim(&self.settings, |entry| duplicates.forget(entry));
        self.snapshots.appended(self.fence, effects);
        // Broadcast the commits; this node's own sessions are served last.
        let head = self.log.durable();
        for node in self.subscriptions.nodes().chain([self.me]) {
            let entries = commits.clone();
            effects.send(node, PeerMessage::Commits { head, entries });
        }
        self.send_deferred_rejections(effects);
        self.append(effects);
    }

    /// Appends the next entries one by one.
    pub(super) fn append_one_by_one(&mut self, entries: usize) {
        self.log.append_one_by_one(entries);
    }

    /// The log rejected the append under way although this sequencer's claim holds. After [`AppendError::Gap`] a submit in it is
    /// in the log already, where neither memory nor the way from its base showed it; after [`AppendError::Refused`] the store
    /// refuses an entry because of its values.
    ///
    /// One client must not keep others from writing. If the append has one entry, that submit is rejected, and a refused entry
    /// is reported. Otherwise the number of entries is returned, for [`append_one_by_one`](Self::append_one_by_one) of the next
    /// sequencer.
    pub(super) fn append_rejected(
        &self,
        error: AppendError,
        effects: &mut Effects,
    ) -> RejectedAppend {
        let mut entries = self.log.appending();
        let (first, rest) = (entries.next(), entries.count());
        let Some(entry) = first else {
            return RejectedAppend::Several(0);
        };
        if rest > 0 {
            return RejectedAppend::Several(rest + 1);
        }
        let rejection = match error {
            AppendError::Refused => {
                effects.action(Action::ReportRefused(entry.clone()));
                Rejection::not_stored()
            }
            AppendError::Gap | AppendError::Fenced => Rejection::seq_used(),
        };
        for node in self.subscriptions.nodes().chain([self.me]) {
            effects.reject(node, entry.id.clone(), rejection.clone());
        }
        RejectedAppend::One(entry.id.clone(), rejection)
    }

    /// Rejects a submit, and every later copy of it.
    fn reject(&mut self, to: NodeId, id: SubmitId, rejection: Rejection, effects: &mut Effects) {
        self.duplicates.rejected(id.clone(), rejection.clone());
        self.send_rejection(to, id, rejection, effects);
    }

    /// Sends a rejection when everything that is staged now is durable.
    fn send_rejection(
        &mut self,
        to: NodeId,
        id: SubmitId,
        rejection: Rejection,
        effects: &mut Effects,
    ) {
        let is_same = |deferred: &DeferredRejection| deferred.to == to && deferred.id == id;
        if self.log.is_durable() {
            effects.reject(to, id, rejection);
        } else if !self.deferred_rejections.iter().any(is_same) {
            self.deferred_rejections.push_back(DeferredRejection {
                until: self.head.revision,
                to,
                id,
                rejection,
            });
        }
    }

    /// Sends the rejections that were decided on durable entries only.
    fn send_deferred_rejections(&mut self, effects: &mut Effects) {
        let durable = self.log.durable();
        let deferred = &mut self.deferred_rejections;
        while let Some(it) = deferred.pop_front_if(|it| it.until <= durable) {
            effects.reject(it.to, it.id, it.rejection);
        }
    }

    /// Another node wants the commits after `since`, and all later ones.
    pub(super) fn subscribe(
        &mut self,
        from: NodeId,
        since: Revision,
        now: Now,
        effects: &mut Effects,
    ) {
        self.subscriptions.renew(from, now);
        // The forwarder reads entries before the tail from the store when it finds the gap.
        if since < self.log.durable() {
            self.send_commits(from, since, self.log.durable(), effects);
        }
    }

    /// Sends a node the commits after `since`, and in any case those from `until` on, as far as the tail reaches.
    fn send_commits(&self, to: NodeId, since: Revision, until: Revision, effects: &mut Effects) {
        let tail = self.log.tail();
        let since = since.min(until.before()).max(tail.start());
        let entries = tail.since(since).into_iter().flatten().cloned().collect();
        let head = tail.head();
        effects.send(to, PeerMessage::Commits { head, entries });
    }

    /// Returns true if an encoded snapshot was requested and not provided.
    pub(super) fn owes_snapshot(&self) -> bool {
        self.snapshots.is_requested()
    }

    /// Requests an encoded snapshot of the durable document.
    pub(super) fn request_snapshot(&mut self, effects: &mut Effects) {
        self.snapshots.request();
        self.provide_snapshots(effects);
    }

    /// The stored log is damaged, and the document is whole in memory: a snapshot is saved, at most once at each revision, so
    /// that the document can be loaded without the damaged entries.
    pub(super) fn rescue(&mut self, effects: &mut Effects) {
        if self.snapshots.rescue(self.head.revision) {
            self.provide_snapshots(effects);
        }
    }

    /// Provides the snapshots that are owed if nothing is staged; otherwise the next append does.
    fn provide_snapshots(&mut self, effects: &mut Effects) {
        if self.log.is_durable() && self.snapshots.is_any_owed() {
            self.snapshots
                .provide(self.head.clone(), self.fence, effects);
        }
    }
}

#[cfg(test)]
mod tests;
