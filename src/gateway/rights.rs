//! What one socket's user may do with each of its documents, as it was looked up last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::auth::{Door, News, Person, Watch};
use crate::id::{DocId, Name};
use crate::protocol::{Code, Refusal};
use crate::store::{Right, Role, StoreError};

/// What one socket's user may do. Looked up once for each document and not again until somebody changes it, so that an op
/// costs a look into a map.
#[derive(Debug)]
pub(super) struct Rights {
    door: Arc<Door>,
    person: Person,
    watch: Watch,
    held: BTreeMap<DocId, Held>,
    /// When the person is to be looked at again; none: not before somebody says so.
    again_at: Option<Instant>,
    /// When the first share link that gives a role expires.
    expires_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    role: Option<Role>,
    /// When a share link that gives it expires.
    until: Option<Instant>,
}

/// A document whose role changed.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) doc: DocId,
    pub(super) role: Option<Role>,
}

/// The person may no longer be here.
#[derive(Debug)]
pub(super) struct Over;

/// How many documents' roles are held besides those in use: when there are more, all are looked up again.
const HELD_MAX: usize = 4_000;

/// How soon the store is asked again when it did not answer.
const RETRY: Duration = Duration::from_secs(1);

impl Rights {
    /// The rights of somebody who came in when `told` revocations had been told.
    pub(super) fn new(door: Arc<Door>, person: Person, told: u64) -> Self {
        let watch = door.watch(&person, told);
        let again_at = person.lasts.map(|lasts| Instant::now() + lasts);
        Self {
            door,
            person,
            watch,
            held: BTreeMap::new(),
            again_at,
            expires_at: None,
        }
    }

    pub(super) fn person(&self) -> &Person {
        &self.person
    }

    /// Takes what happened to the person's rights.
    pub(super) fn news(&self) -> Option<News> {
        self.watch.take()
    }

    /// Waits until something may have happened. Cancel-safe.
    pub(super) async fn told(&self) {
        self.watch.told().await;
    }

    /// When [`look_again`](Self::look_again) is due, whatever happens.
    pub(super) fn due(&self) -> Option<Instant> {
        self.again_at.into_iter().chain(self.expires_at).min()
    }

    /// Looks again at the person and at every role that is held or `in_use`, and says which have changed.
    pub(super) async fn look_again(
        &mut self,
        in_use: impl Iterator<Item = &DocId>,
    ) -> Result<Vec<Changed>, Over> {
        let mut docs: BTreeSet<DocId> = in_use.cloned().collect();
        docs.extend(self.held.keys().cloned());
        match self.try_look_again(docs.into_iter().collect()).await {
            Ok(changed) => changed.ok_or(Over),
            Err(error) => {
                tracing::warn!(%error, "rights are not known: each is asked for again");
                self.held.clear();
                self.expires_at = None;
                self.again_at = Some(Instant::now() + RETRY);
                Ok(Vec::new())
            }
        }
    }

    async fn try_look_again(
        &mut self,
        docs: Vec<DocId>,
    ) -> Result<Option<Vec<Changed>>, StoreError> {
        let Some(lasts) = self.door.still(&self.person).await? else {
            return Ok(None);
        };
        self.again_at = Instant::now().checked_add(lasts);
        let rights = self.door.rights(&self.person, docs.clone()).await?;
        let mut changed = Vec::new();
        self.expires_at = None;
        for (doc, right) in docs.into_iter().zip(rights) {
            let held = Held::new(right);
            let before = self.hold(doc.clone(), held);
            if before.is_none_or(|before| before.role != held.role) {
                changed.push(Changed {
                    doc,
                    role: held.role,
                });
            }
        }
        Ok(Some(changed))
    }

    /// Makes sure that the roles on these documents are held.
    pub(super) async fn know(&mut self, docs: impl Iterator<Item = &DocId>) -> Result<(), Refusal> {
        if self.person.is_free() {
            return Ok(());
        }
        let missing: Vec<DocId> = docs
            .filter(|doc| !self.held.contains_key(*doc))
            .cloned()
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        if self.held.len() + missing.len() > HELD_MAX {
            self.held.clear();
        }
        let rights = self.door.rights(&self.person, missing.clone()).await;
        let rights = rights.map_err(|error| {
            tracing::warn!(%error, "rights are not known");
            Refusal::store_unavailable()
        })?;
        for (doc, right) in missing.into_iter().zip(rights) {
            self.hold(doc, Held::new(right));
        }
        Ok(())
    }

    fn hold(&mut self, doc: DocId, held: Held) -> Option<Held> {
        if let Some(until) = held.until {
            self.expires_at = Some(self.expires_at.map_or(until, |at| at.min(until)));
        }
        self.held.insert(doc, held)
    }

    /// What the person may do with a document.
    pub(super) async fn role(&mut self, doc: &DocId) -> Result<Option<Role>, Refusal> {
        if self.person.is_free() {
            return Ok(Some(Role::Owner));
        }
        if let Some(held) = self.held.get(doc) {
            // An expired link's role is looked up anew.
            if held.until.is_none_or(|until| until > Instant::now()) {
                return Ok(held.role);
            }
            self.held.remove(doc);
        }
        self.know(std::iter::once(doc)).await?;
        Ok(self.held.get(doc).and_then(|held| held.role))
    }

    /// Refuses whoever may do less than `least` with a document. To those who may not even read it, there is none.
    pub(super) async fn demand(&mut self, doc: &DocId, least: Role) -> Result<(), Refusal> {
        match self.role(doc).await? {
            Some(role) if role >= least => Ok(()),
            Some(_) => Err(too_little(least)),
            None => Err(no_such_document()),
        }
    }

    /// Makes a document that nobody knows the person's own; `false`: somebody knows it.
    pub(super) async fn own(&mut self, doc: &DocId) -> Result<bool, Refusal> {
        if self.person.is_free() {
            return Ok(false);
        }
        let owned = self.door.own(&self.person, doc).await.map_err(|error| {
            tracing::warn!(%error, "rights are not known");
            Refusal::store_unavailable()
        })?;
        if !owned {
            return Ok(false);
        }
        let right = Right {
            role: Some(Role::Owner),
            lasts: None,
        };
        self.hold(doc.clone(), Held::new(right));
        Ok(true)
    }

    /// Refuses presence on a channel whose document the person may not read.
    pub(super) async fn demand_channel(&mut self, channel: &Name) -> Result<(), Refusal> {
        if self.person.is_free() {
            return Ok(());
        }
        match document_of(channel) {
            Some(doc) => self.demand(&doc, Role::Viewer).await,
            None => Err(Refusal::new(
                Code::Forbidden,
                "A presence channel is a document's: its collection, a dot, its id",
            )),
        }
    }
}

impl Held {
    fn new(right: Right) -> Self {
        Self {
            role: right.role,
            until: right.lasts.map(|lasts| Instant::now() + lasts),
        }
    }
}

/// The document that a presence channel is about. Collections have no dots, where rights are looked at.
fn document_of(channel: &Name) -> Option<DocId> {
    let (collection, id) = channel.as_str().split_once('.')?;
    DocId::parse(collection, id).ok()
}

/// What there is to say about a document that is not there or not theirs: nothing that would tell the two apart.
pub(super) fn no_such_document() -> Refusal {
    Refusal::new(
        Code::Forbidden,
        "There is no such document, or it is not shared with you",
    )
}

fn too_little(least: Role) -> Refusal {
    let message = match least {
        Role::Owner => "Only the owner may do that",
        Role::Editor | Role::Commenter | Role::Viewer => {
            "You may read this document, and not change it"
        }
    };
    Refusal::new(Code::Forbidden, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_one_documents() {
        for (channel, doc) in [
            ("notes.plan", Some("notes/plan")),
            ("acme:notes.plan.b", Some("acme:notes/plan.b")),
            ("notes", None),
            (".plan", None),
            ("notes.", None),
        ] {
            let found = document_of(&Name::parse(channel).unwrap());
            assert_eq!(found.map(|doc| doc.to_string()).as_deref(), doc);
        }
    }
}
