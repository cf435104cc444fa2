//! Brings a submit from its base to the head, over one entry after the other.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::doc::rejection::Rejection;
use crate::doc::settings::DocumentSettings;
use crate::doc::submit::{Proposal, Submit};
use crate::id::NodeId;
use crate::log::{Change, Entry, Revision, Snapshot, SubmitId};
use crate::ot::{Budget, Newline, Op, Side};

/// An op with more JSON than this is not processed at once, since parsing, transforming and applying it may take longer than a
/// slice of work.
pub(super) const LARGE_OP_BYTES: usize = 32 << 10;

/// The most bytes that a transformed op may take in memory. The largest message makes one of some 12 MB.
pub(super) const CHANGE_BYTES_MAX: usize = 16 << 20;

/// How far before the head the first copy of a submit without a base is looked for. The tail usually reaches back so far, so
/// that the store is not asked.
pub(super) const COPY_WITHIN: u64 = 1_000;

/// A submit on its way from its base to the head.
#[derive(Debug, Clone)]
pub(super) struct Rebase {
    /// The node that is answered.
    pub(super) from: NodeId,
    pub(super) id: SubmitId,
    /// The approximate size of the submit when it arrived, in bytes.
    pub(super) bytes: usize,
    /// The work that may still be spent on it.
    pub(super) budget: Budget,
    /// Whether the author may see a final newline after one that was committed meanwhile.
    pub(super) newline: Newline,
    pub(super) base: Revision,
    /// The revision that it has been rebased to.
    pub(super) at: Revision,
    /// Whether it was made without a base. Then the entries on its way are only searched for its first copy.
    pub(super) without_base: bool,
    pub(super) change: RebasedChange,
    /// The change as it was submitted, for a dead letter; `None` for a copy, of which only the id is looked for.
    pub(super) proposal: Option<Proposal>,
}

/// The change of a submit, as far as it is parsed.
#[derive(Debug, Clone)]
pub(super) enum RebasedChange {
    /// The change at [`Rebase::at`].
    Parsed(Change),
    /// The JSON of a large edit, which is parsed in its first slice of work. Waiting edits stay unparsed because an op takes
    /// several times the bytes of its JSON.
    Unparsed(Arc<str>),
    /// An edit where there is no document, so that no type can parse it. It may still be a copy, or older than a deletion.
    Untyped,
}

impl RebasedChange {
    /// Parses an edit of the document at its head.
    pub(super) fn parse(json: &str, head: &Snapshot) -> Result<Self, Rejection> {
        let Some(content) = &head.content else {
            return Ok(Self::Untyped);
        };
        let op = Op::parse(content.kind(), json)?;
        Ok(Self::Parsed(Change::Edit(op)))
    }
}

/// The reason why a submit is not rebased further.
#[derive(Debug)]
pub(super) enum RebaseEnd {
    /// This entry is its first copy.
    Duplicate(Arc<Entry>),
    /// An entry on its way excludes it.
    Rejected(Rejection),
}

impl Rebase {
    /// A submit at its base. An edit that cannot be parsed is returned with its rejection.
    pub(super) fn new(
        from: NodeId,
        submit: Submit,
        head: &Snapshot,
        settings: &DocumentSettings,
    ) -> Result<Self, (SubmitId, Rejection)> {
        let Submit { id, base, proposal } = submit;
        let bytes = proposal.size();
        let change = match &proposal {
            Proposal::Create(content) => RebasedChange::Parsed(Change::Create(content.clone())),
            Proposal::Delete => RebasedChange::Parsed(Change::Delete),
            Proposal::Edit(json) if bytes > LARGE_OP_BYTES => RebasedChange::Unparsed(json.clone()),
            Proposal::Edit(json) => match RebasedChange::parse(json, head) {
                Ok(change) => change,
                Err(rejection) => return Err((id, rejection)),
            },
        };
        let past = Revision(head.revision.0.saturating_sub(COPY_WITHIN));
        Ok(Self {
            from,
            id,
            bytes,
            budget: budget(settings),
            newline: Newline::IsFirst,
            base: base.unwrap_or(head.revision),
            at: base.unwrap_or(past),
            without_base: base.is_none(),
            change,
            proposal: Some(proposal),
        })
    }

    /// A copy of the entry at `revision`, which the store still has to show.
    pub(super) fn of_copy(
        from: NodeId,
        id: SubmitId,
        revision: Revision,
        settings: &DocumentSettings,
    ) -> Self {
        Self {
            from,
            id,
            bytes: 0,
            budget: budget(settings),
            newline: Newline::IsFirst,
            base: revision.before(),
            at: revision.before(),
            without_base: false,
            change: RebasedChange::Untyped,
            proposal: None,
        }
    }

    /// Rebases the submit over one entry, or ends the rebase, by the rules of ShareDB:
    ///
    /// | entry \ submit | create | edit | delete |
    /// |---|---|---|---|
    /// | create | already exists | already exists | already exists |
    /// | edit | already exists | transformed | unchanged |
    /// | delete | deleted | deleted | unchanged |
    pub(super) fn over(&mut self, entry: &Arc<Entry>) -> ControlFlow<RebaseEnd> {
        if entry.id == self.id {
            return ControlFlow::Break(RebaseEnd::Duplicate(entry.clone()));
        }
        if self.without_base {
            self.at = entry.revision;
            return ControlFlow::Continue(());
        }
        let rejected = |rejection| ControlFlow::Break(RebaseEnd::Rejected(rejection));
        match (&mut self.change, &entry.change) {
            (_, Change::Nothing) => {}
            (_, Change::Create(_)) => return rejected(Rejection::already_exists()),
            (RebasedChange::Parsed(Change::Create(_)), Change::Edit(_)) => {
                return rejected(Rejection::already_exists());
            }
            (
                RebasedChange::Parsed(Change::Create(_) | Change::Edit(_))
                | RebasedChange::Unparsed(_)
                | RebasedChange::Untyped,
                Change::Delete,
            ) => {
                return rejected(Rejection::deleted());
            }
            (RebasedChange::Parsed(Change::Edit(op)), Change::Edit(other)) => {
                // The later op is the left one, as in its client.
                match op.transform_within(other, Side::Left, &mut self.budget) {
                    Ok(transformed) => {
                        *op = transformed;
                        self.newline = Newline::MayBeSecond;
                    }
                    Err(error) => return rejected(error.into()),
                }
            }
            (
                RebasedChange::Parsed(Change::Delete | Change::Nothing),
                Change::Edit(_) | Change::Delete,
            )
            | (RebasedChange::Unparsed(_) | RebasedChange::Untyped, Change::Edit(_)) => {}
        }
        self.at = entry.revision;
        ControlFlow::Continue(())
    }
}

/// The work that may be spent on one submit.
fn budget(settings: &DocumentSettings) -> Budget {
    Budget::new(settings.combine_steps_max, CHANGE_BYTES_MAX)
}

#[cfg(test)]
mod tests;
