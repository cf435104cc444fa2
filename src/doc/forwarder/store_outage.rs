//! Readers while the store is away: they are served what this node holds in memory, with a notice, or are refused at once.

use std::sync::Arc;

use super::{Forwarder, Joiner, Least, Want, reply};
use crate::doc::action::{Action, SessionReply};
use crate::doc::encoded_snapshot::EncodedSnapshot;
use crate::doc::rejection::Rejection;

impl Forwarder {
    /// Returns true while the store is known not to answer.
    pub(in crate::doc) fn is_store_away(&self) -> bool {
        self.store_away.is_some()
    }

    /// The store is away, or is back. Those who wait are served from memory as far as that reaches.
    pub(in crate::doc) fn set_store_away(&mut self, is_away: bool, out: &mut Vec<Want>) {
        if is_away {
            self.store_away.get_or_insert_default();
            self.serve_from_memory(out);
        } else if self.store_away.take().is_some() && !self.joiners.is_empty() {
            self.show(out);
        }
    }

    /// While the store is away: serves those who wait from memory, as far as that reaches.
    pub(super) fn serve_from_memory(&mut self, out: &mut Vec<Want>) {
        if self.store_away.is_none() {
            return;
        }
        for joiner in std::mem::take(&mut self.joiners) {
            if let Some(joiner) = self.admit_from_memory(joiner, out) {
                self.joiners.push(joiner);
            }
        }
        if self.joiners.iter().any(|joiner| joiner.since.is_none()) {
            self.refold(out);
        }
    }

    /// Lets a joiner in, or hands it back if memory does not hold what it asks for.
    fn admit_from_memory(&mut self, joiner: Joiner, out: &mut Vec<Want>) -> Option<Joiner> {
        let Some(tail) = &self.tail else {
            return Some(joiner);
        };
        let head = tail.head();
        if let Some(has) = joiner.since {
            let is_held = has <= head && tail.since(has).is_some();
            let least = match is_held {
                true => Least::Known(head),
                false => joiner.least,
            };
            return self.admit(Joiner { least, ..joiner }, out);
        }
        let away = self.store_away.as_ref();
        let shown = away.and_then(|away| away.shown.as_ref());
        let Some(shown) = shown.filter(|it| it.revision >= head && it.revision >= joiner.min)
        else {
            return Some(joiner);
        };
        let shown = SessionReply::Snapshot(shown.clone());
        out.push(reply(joiner.session, joiner.ticket, shown));
        if joiner.live {
            self.enter_live(joiner.session);
        }
        None
    }

    /// Asks for the document at the tail's head, made of the newest snapshot in memory and the entries after it.
    fn refold(&mut self, out: &mut Vec<Want>) {
        let (Some(away), Some(tail)) = (&mut self.store_away, &self.tail) else {
            return;
        };
        let is_newest = away
            .shown
            .as_ref()
            .is_some_and(|it| it.revision >= tail.head());
        if away.refolding || is_newest {
            return;
        }
        let held = [&self.shown, &away.shown].into_iter().flatten();
        let Some(shown) = held.max_by_key(|shown| shown.revision) else {
            return;
        };
        let Some(entries) = tail.since(shown.revision.min(tail.head())) else {
            return;
        };
        away.refolding = true;
        out.push(Want::Do(Action::RefoldSnapshot {
            snapshot: shown.clone(),
            entries: entries.cloned().collect(),
        }));
    }

    /// The document at the tail's head came, or what is in memory does not fit together.
    pub(in crate::doc) fn refolded(
        &mut self,
        shown: Option<Arc<EncodedSnapshot>>,
        out: &mut Vec<Want>,
    ) {
        let Some(away) = &mut self.store_away else {
            return;
        };
        away.refolding = false;
        if shown.is_none() {
            return self.refuse_new_readers(out);
        }
        away.shown = shown;
        self.serve_from_memory(out);
    }

    /// Refuses those who wait for the document and have nothing of it, unless they are about to be served from memory. Clients
    /// that come back go on waiting: they have the document, and what they have not sent.
    pub(in crate::doc) fn refuse_new_readers(&mut self, out: &mut Vec<Want>) {
        if self.store_away.as_ref().is_some_and(|away| away.refolding) {
            return;
        }
        self.joiners.retain(|joiner| {
            let has_nothing = joiner.since.is_none();
            if has_nothing {
                let refused = SessionReply::Rejected(Rejection::store_unavailable());
                out.push(reply(joiner.session, joiner.ticket, refused));
            }
            !has_nothing
        });
    }
}
