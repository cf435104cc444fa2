//! A document of which only a part can be read, and which cannot be changed.

use std::time::Duration;

use super::Forwarder;
use crate::doc::action::SessionReply;
use crate::doc::effects::Effects;
use crate::doc::event::{Now, ReadOnly, ReadOnlyCause};
use crate::doc::rejection::Rejection;
use crate::log::Revision;

/// A document that is larger than what is held in memory, or damaged.
#[derive(Debug)]
pub(super) struct ReadOnlyDocument {
    pub(super) found: ReadOnly,
    /// When the next request loads the document again; `None`: not before the log grows.
    reload_at: Option<Duration>,
}

/// What happens to the pending submits when a document turns out to be read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::doc) enum PendingOnReadOnly {
    /// They are rejected.
    Reject,
    /// They wait for an owner elsewhere.
    Keep,
}

/// The place of the owner that a submit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::doc) enum OwnerPlace {
    /// This node.
    Here,
    /// Another node.
    Elsewhere,
}

impl ReadOnlyDocument {
    /// The answer to a read of a client that has `since`. No commits follow it: they are too many, or cannot be read.
    pub(super) fn answer(&self, since: Option<Revision>) -> SessionReply {
        match (since, &self.found.readable) {
            (None, Some(readable)) => SessionReply::Snapshot(readable.clone()),
            (Some(since), Some(readable)) if since == readable.revision => SessionReply::Done,
            (Some(_), _) | (None, None) => SessionReply::Rejected(self.found.rejection.clone()),
        }
    }
}

impl Forwarder {
    /// Only a part of the document can be read. It is served until the log grows beyond `found.head`, or until a request
    /// comes after `reload_at`.
    pub(in crate::doc) fn set_read_only(
        &mut self,
        found: ReadOnly,
        pending: PendingOnReadOnly,
        reload_at: Option<Duration>,
        effects: &mut Effects,
    ) {
        let read_only = ReadOnlyDocument { found, reload_at };
        self.snapshot.is_requested = false;
        self.gap = None;
        for read in std::mem::take(&mut self.pending_reads) {
            effects.reply(read.session, read.ticket, read_only.answer(read.since));
        }
        let rejection = &read_only.found.rejection;
        self.catch_ups.reject_all(rejection, effects);
        self.sent_ranges.clear();
        if pending == PendingOnReadOnly::Reject {
            self.pending_submits.reject_all(rejection, effects);
        }
        self.read_only = Some(read_only);
    }

    /// The answer to every submit while the document is read-only; `None` if it is not. A damaged document may be whole in the
    /// memory of an owner elsewhere: then that owner answers.
    pub(in crate::doc) fn read_only_rejection(&self, owner: OwnerPlace) -> Option<&Rejection> {
        let found = &self.read_only.as_ref()?.found;
        let is_damaged = matches!(found.cause, ReadOnlyCause::Damaged { .. });
        (owner == OwnerPlace::Here || !is_damaged).then_some(&found.rejection)
    }

    /// Ends the read-only state if the document is to be loaded again by now.
    pub(in crate::doc) fn expire_read_only(&mut self, now: Now) {
        let is_due = |it: &mut ReadOnlyDocument| it.reload_at.is_some_and(|at| at <= now.clock);
        self.read_only.take_if(is_due);
    }

    /// Ends the read-only state if the log has grown. Returns true if it remains.
    pub(super) fn stays_read_only(&mut self, head: Revision) -> bool {
        self.read_only.take_if(|it| head > it.found.head);
        self.read_only.is_some()
    }
}
