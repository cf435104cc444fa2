//! Recognises copies of submits: a client sends its submit again until it is answered.

use std::collections::{BTreeMap, VecDeque};

use crate::doc::rejection::Rejection;
use crate::id::{ClientId, UserId};
use crate::log::{Entry, Revision, SubmitId, Tail};

/// The most rejections that are remembered.
pub(super) const REJECTIONS_MAX: usize = 1_000;

/// What is known of earlier submits.
#[derive(Debug)]
pub(super) struct Duplicates {
    /// Each client's newest submit among the tail's commits and the staged entries. It recognises a copy with a base that
    /// is not older than the first copy.
    newest: BTreeMap<(UserId, ClientId), (SubmitId, Revision)>,
    /// The newest rejections, oldest first. A copy that arrives when it would be accepted is rejected too, because its client
    /// has dropped the change.
    rejections: VecDeque<(SubmitId, Rejection)>,
}

impl Duplicates {
    /// Knows the submits of a tail.
    pub(super) fn of(tail: &Tail) -> Self {
        let mut duplicates = Self {
            newest: BTreeMap::new(),
            rejections: VecDeque::new(),
        };
        for entry in tail.since(tail.start()).into_iter().flatten() {
            duplicates.committed(entry);
        }
        duplicates
    }

    /// Remembers an entry of the tail, or a staged one.
    pub(super) fn committed(&mut self, entry: &Entry) {
        let newest = (entry.id.clone(), entry.revision);
        self.newest.insert(client_of(&entry.id), newest);
    }

    /// Forgets an entry that leaves the tail.
    pub(super) fn forget(&mut self, entry: &Entry) {
        let client = client_of(&entry.id);
        let newest = self.newest.get(&client);
        if newest.is_some_and(|(_, revision)| *revision == entry.revision) {
            self.newest.remove(&client);
        }
    }

    /// The revision of the first copy of this submit, as far as memory tells.
    pub(super) fn first_copy(&self, id: &SubmitId) -> Option<Revision> {
        let newest = self.newest.get(&client_of(id));
        let newest = newest.filter(|(newest, _)| newest == id);
        newest.map(|(_, revision)| *revision)
    }

    /// The earlier rejection of this submit.
    pub(super) fn rejection_of(&self, id: &SubmitId) -> Option<&Rejection> {
        let mut rejections = self.rejections.iter();
        let found = rejections.find(|(rejected, _)| rejected == id);
        found.map(|(_, rejection)| rejection)
    }

    /// The rejected submits that are remembered, oldest first.
    #[cfg(test)]
    pub(super) fn rejections(&self) -> impl Iterator<Item = &SubmitId> {
        self.rejections.iter().map(|(id, _)| id)
    }

    /// Remembers a rejection.
    pub(super) fn rejected(&mut self, id: SubmitId, rejection: Rejection) {
        if self.rejections.len() >= REJECTIONS_MAX {
            self.rejections.pop_front();
        }
        self.rejections.push_back((id, rejection));
    }
}

/// The client of a submit. Another user's client may have the same id.
fn client_of(id: &SubmitId) -> (UserId, ClientId) {
    (id.author.clone(), id.client.clone())
}
