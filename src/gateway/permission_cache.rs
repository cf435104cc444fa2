//! What one socket's user may do with each of its documents, as it was looked up last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep_until, timeout};

use crate::access::{DocumentRegistration, Permission, Role, tenant_of};
use crate::auth::{AccessChange, AuthService, Identity, PermissionScope, RevocationSubscription};
use crate::id::{DocId, Name};
use crate::outage::LineLimit;
use crate::protocol::{Code, Refusal};
use crate::store::StoreError;

/// What one socket's user may do. Looked up once for each document and not again until somebody changes it, so that an op
/// costs a look into a map.
#[derive(Debug)]
pub(super) struct PermissionCache {
    door: Arc<AuthService>,
    person: Identity,
    watch: RevocationSubscription,
    held: BTreeMap<DocId, Held>,
    /// When the person is to be looked at again; none: not before somebody says so.
    again_at: Option<Instant>,
    /// When the first share link that gives a role expires.
    expires_at: Option<Instant>,
    /// Since when something is known to have changed, and the store has not said what.
    in_doubt: Option<Instant>,
    /// When all roles may be looked up again.
    rested: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    role: Option<Role>,
    /// When a share link that gives it expires.
    until: Option<Instant>,
    /// Whether the document was changed under it: what waits there ends with the role.
    is_used_to_write: bool,
}

/// What the person may do with a document, as it was just looked up.
#[derive(Debug)]
pub(super) struct RefreshedRole {
    pub(super) doc: DocId,
    pub(super) role: Option<Role>,
    /// Whether that is something else than before.
    pub(super) is_news: bool,
}

/// Why the person may not stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AccessLost {
    /// They are not signed in any more.
    SignedOut,
    /// Their rights have changed, and for too long nobody knows to what.
    Unknown,
}

/// How many documents' roles are held besides those in use: when there are more, all are looked up again.
const HELD_MAX: usize = 4_000;

/// How long all roles are not looked up again after they were, for each of them: whoever gives and takes a user's role on
/// one document again and again must not keep the store busy with all that the user has open.
const REST_EACH: Duration = Duration::from_micros(200);

/// How soon the store is asked again when it did not answer.
const RETRY: Duration = Duration::from_millis(500);

/// How long somebody whose rights are known to have changed may stay while the store does not say to what. Whose rights
/// nobody has changed may stay however long it is away.
const DOUBT_MAX: Duration = Duration::from_secs(4);

impl PermissionCache {
    /// The rights of somebody who came in when `told` revocations had been told.
    pub(super) fn new(door: Arc<AuthService>, person: Identity, told: u64) -> Self {
        let watch = door.subscribe_revocations(&person, told);
        let again_at = person.valid_for.and_then(in_future);
        Self {
            door,
            person,
            watch,
            held: BTreeMap::new(),
            again_at,
            expires_at: None,
            in_doubt: None,
            rested: None,
        }
    }

    pub(super) fn person(&self) -> &Identity {
        &self.person
    }

    /// Takes what happened to the person's rights. After a change that the store has not told yet, every document is looked
    /// at: an answer about some of them does not end the doubt.
    pub(super) fn news(&mut self) -> Option<AccessChange> {
        let AccessChange::Permissions(scope) = self.watch.take()? else {
            return Some(AccessChange::SessionEnded);
        };
        let is_in_doubt = self.in_doubt.is_some();
        self.in_doubt.get_or_insert_with(Instant::now);
        let scope = if is_in_doubt {
            PermissionScope::Everything
        } else {
            scope
        };
        Some(AccessChange::Permissions(scope))
    }

    /// Waits until something has happened. Cancel-safe.
    pub(super) async fn told(&self) {
        while !self.watch.has_change() {
            self.watch.notified().await;
        }
    }

    /// When [`look_again`](Self::look_again) is due, whatever happens.
    pub(super) fn due(&self) -> Option<Instant> {
        self.again_at.into_iter().chain(self.expires_at).min()
    }

    /// Looks again at the roles within `scope` that are `in_use` or were used to write, and, where the scope is everything,
    /// at the person. Other roles within the scope are forgotten: they are looked up when they are needed.
    pub(super) async fn look_again(
        &mut self,
        mut scope: PermissionScope,
        mut in_use: BTreeSet<DocId>,
    ) -> Result<Vec<RefreshedRole>, AccessLost> {
        if let Some(rested) = self.rested {
            sleep_until(rested.into()).await;
        }
        let now = Instant::now();
        if self.expires_at.is_some_and(|at| at <= now) {
            self.in_doubt.get_or_insert(now);
            scope = PermissionScope::Everything;
        }
        let is_meant = |doc: &DocId| match &scope {
            PermissionScope::Everything => true,
            PermissionScope::Documents(docs) => docs.contains(doc),
        };
        self.held
            .retain(|doc, held| !is_meant(doc) || held.is_used_to_write || in_use.contains(doc));
        in_use.extend(self.held.keys().cloned());
        in_use.retain(is_meant);
        let count = u32::try_from(in_use.len()).unwrap_or(u32::MAX);
        self.rested = Some(now + REST_EACH.saturating_mul(count));
        // A store that does not answer at all must not keep anybody here for longer than one that refuses.
        let patience = self.in_doubt.map_or(DOUBT_MAX, |since| {
            let left = DOUBT_MAX.saturating_sub(now.saturating_duration_since(since));
            left.max(RETRY)
        });
        let looked = self.try_look_again(&scope, in_use.into_iter().collect());
        let late = |_| Err(StoreError::new("read rights", "no answer in time"));
        match timeout(patience, looked).await.unwrap_or_else(late) {
            Ok(found) => {
                self.in_doubt = None;
                found.ok_or(AccessLost::SignedOut)
            }
            Err(error) => {
                // Told while the store was asked, perhaps right at the beginning.
                if self.watch.has_change() {
                    self.in_doubt.get_or_insert(now);
                }
                self.not_known(&error)
            }
        }
    }

    /// The store did not answer: every role is asked for again, and soon all of this. Whose rights have changed may not
    /// stay for long.
    fn not_known(&mut self, error: &StoreError) -> Result<Vec<RefreshedRole>, AccessLost> {
        report(error);
        self.held.clear();
        self.expires_at = None;
        let retry = Instant::now() + RETRY;
        self.again_at = Some(retry);
        match self.in_doubt {
            Some(since) if retry.saturating_duration_since(since) >= DOUBT_MAX => {
                Err(AccessLost::Unknown)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Asks the store for the roles on `docs`. `None`: the person is not signed in any more.
    async fn try_look_again(
        &mut self,
        scope: &PermissionScope,
        docs: Vec<DocId>,
    ) -> Result<Option<Vec<RefreshedRole>>, StoreError> {
        let is_everything = *scope == PermissionScope::Everything;
        if !is_everything && docs.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let lasts = if is_everything {
            let Some(lasts) = self.door.revalidate(&self.person).await? else {
                return Ok(None);
            };
            Some(lasts)
        } else {
            None
        };
        let rights = self.door.permissions(&self.person, docs.clone()).await?;
        if let Some(lasts) = lasts {
            self.again_at = in_future(lasts);
            self.expires_at = None;
        }
        let mut found = Vec::new();
        for (doc, right) in docs.into_iter().zip(rights) {
            let mut held = Held::new(right);
            let writes = self.held.get(&doc).map(|held| held.is_used_to_write);
            held.is_used_to_write = writes.unwrap_or(false);
            let before = self.hold(doc.clone(), held);
            found.push(RefreshedRole {
                doc,
                role: held.role,
                is_news: before.is_none_or(|before| before.role != held.role),
            });
        }
        Ok(Some(found))
    }

    /// Makes sure that the roles on these documents are held.
    pub(super) async fn know(&mut self, docs: impl Iterator<Item = &DocId>) -> Result<(), Refusal> {
        if self.person.is_unrestricted() {
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
        let rights = self.door.permissions(&self.person, missing.clone()).await;
        let rights = rights.map_err(|error| {
            report(&error);
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
        if self.person.is_unrestricted() {
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
            Some(role) if role >= least => {
                if let Some(held) = self.held.get_mut(doc) {
                    held.is_used_to_write |= least >= Role::Editor;
                }
                Ok(())
            }
            Some(_) => Err(too_little(least)),
            None => Err(no_such_document()),
        }
    }

    /// Makes a document that nobody knows the person's own; `false`: somebody knows it.
    pub(super) async fn own(&mut self, doc: &DocId) -> Result<bool, Refusal> {
        if self.person.is_unrestricted() {
            return Ok(false);
        }
        let owned = self
            .door
            .claim_ownership(&self.person, doc)
            .await
            .map_err(|error| {
                report(&error);
                Refusal::store_unavailable()
            })?;
        match owned {
            DocumentRegistration::Registered => {}
            DocumentRegistration::Exists => return Ok(false),
            DocumentRegistration::QuotaReached => {
                return Err(Refusal::new(
                    Code::Quota,
                    "As many documents are kept here as may be",
                ));
            }
        }
        let right = Permission {
            role: Some(Role::Owner),
            lasts: None,
        };
        let mut held = Held::new(right);
        held.is_used_to_write = true;
        self.hold(doc.clone(), held);
        Ok(true)
    }

    /// Refuses what goes beyond what the document's tenant may keep.
    pub(super) fn demand_room(&self, doc: &DocId, bytes: usize) -> Result<(), Refusal> {
        if self.person.is_unrestricted()
            || self.door.try_add_bytes(tenant_of(&doc.collection), bytes)
        {
            return Ok(());
        }
        Err(Refusal::new(Code::Quota, "As much is kept here as may be"))
    }

    /// Refuses presence on a channel whose document the person may not read.
    pub(super) async fn demand_channel(&mut self, channel: &Name) -> Result<(), Refusal> {
        if self.person.is_unrestricted() {
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
    fn new(right: Permission) -> Self {
        Self {
            role: right.role,
            until: right.lasts.and_then(in_future),
            is_used_to_write: false,
        }
    }
}

/// When what lasts so long from now is over; none: later than any clock tells.
fn in_future(lasts: Duration) -> Option<Instant> {
    Instant::now().checked_add(lasts)
}

/// The document that a presence channel is about. Collections have no dots, where rights are looked at.
pub(super) fn document_of(channel: &Name) -> Option<DocId> {
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
    match least {
        Role::Owner => Refusal::new(Code::Forbidden, "Only the owner may do that"),
        Role::Editor | Role::Commenter | Role::Viewer => Refusal::may_not_change(),
    }
}

/// Reports that the store did not say what a user may do; each socket of the node may meet the same outage.
fn report(error: &StoreError) {
    static LIMIT: LineLimit = LineLimit::new();
    if let Some(left_out) = LIMIT.pass() {
        tracing::warn!(%error, left_out, "the store did not answer what a user may do: it is asked again");
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::auth::{AuthSettings, Credentials, NewAccount, RequestSource};
    use crate::store::{AccessStore, SqliteSettings, SqliteStore};

    const HERE: RequestSource = RequestSource {
        address: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        is_own_machine: true,
    };

    /// Ann, who owns a document and everything else, with a store that can be taken away.
    struct Desk {
        store: Arc<SqliteStore>,
        door: Arc<AuthService>,
        rights: PermissionCache,
        _folder: tempfile::TempDir,
    }

    impl Desk {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let settings = SqliteSettings {
                folder: folder.path().to_owned(),
                ..SqliteSettings::default()
            };
            let store = Arc::new(SqliteStore::open(&settings).unwrap());
            let accounts: Arc<dyn AccessStore> = store.clone();
            let door =
                AuthService::open(AuthSettings::default(), Some(accounts), &[7; 32]).unwrap();
            let account = NewAccount {
                login: "ann".to_owned(),
                name: "Ann".to_owned(),
                password: "a long password".to_owned(),
                invitation: None,
            };
            let brought = Credentials::default();
            let tokens = door.register(&account, &brought, HERE);
            let brought = Credentials {
                access: Some(tokens.await.unwrap().access),
                ..Credentials::default()
            };
            let ann = door.identify(&brought).await.unwrap().unwrap();
            let rights = PermissionCache::new(door.clone(), ann, door.revocation_generation());
            Self {
                store,
                door,
                rights,
                _folder: folder,
            }
        }

        /// Somebody changes Ann's rights, and her socket is told.
        async fn change(&mut self) {
            let known = self.door.last_revocation().await.unwrap();
            let ann = self.rights.person().user_id().unwrap().clone();
            let set = self
                .store
                .set_tenant_role(ann.clone(), Some(Role::Viewer), ann);
            assert!(set.await.unwrap());
            tokio::select! {
                () = self.door.run(known) => {}
                () = self.rights.told() => {}
            }
            assert_eq!(
                self.rights.news(),
                Some(AccessChange::Permissions(PermissionScope::Everything))
            );
        }

        async fn look_again(&mut self) -> Result<Vec<RefreshedRole>, AccessLost> {
            let in_use = BTreeSet::from([plan()]);
            self.rights
                .look_again(PermissionScope::Everything, in_use)
                .await
        }
    }

    fn plan() -> DocId {
        DocId::parse("notes", "plan").unwrap()
    }

    fn long_ago() -> Option<Instant> {
        Instant::now().checked_sub(DOUBT_MAX)
    }

    #[tokio::test]
    async fn whose_rights_nobody_changed_stays_while_the_store_is_away() {
        let mut desk = Desk::new().await;
        assert_eq!(desk.rights.role(&plan()).await.unwrap(), Some(Role::Owner));
        desk.store.close().await.unwrap();
        for _ in 0..3 {
            assert!(desk.look_again().await.unwrap().is_empty());
            assert!(desk.rights.due().is_some(), "it looks again");
        }
        // But nobody may do anything that was not looked up.
        assert!(desk.rights.role(&plan()).await.is_err());
    }

    #[tokio::test]
    async fn whose_rights_changed_goes_when_the_store_does_not_say_to_what() {
        let mut desk = Desk::new().await;
        desk.change().await;
        desk.store.close().await.unwrap();
        assert!(desk.look_again().await.unwrap().is_empty());
        // The first news counts, not the newest.
        desk.rights.in_doubt = long_ago();
        assert_eq!(desk.look_again().await.unwrap_err(), AccessLost::Unknown);
    }

    #[tokio::test]
    async fn a_doubt_ends_with_an_answer() {
        let mut desk = Desk::new().await;
        desk.change().await;
        let found = desk.look_again().await.unwrap();
        assert_eq!(found[0].role, Some(Role::Viewer));
        assert_eq!(desk.rights.in_doubt, None);
    }

    #[tokio::test]
    async fn a_change_looks_at_what_is_used_and_not_at_all_that_was() {
        let mut desk = Desk::new().await;
        let doc = |name: &str| DocId::parse("notes", name).unwrap();
        for n in 0..100 {
            desk.rights.role(&doc(&format!("read {n}"))).await.unwrap();
        }
        let written = doc("written");
        desk.rights.demand(&written, Role::Editor).await.unwrap();
        desk.change().await;
        let found = desk.look_again().await.unwrap();
        let found: Vec<_> = found.into_iter().map(|found| found.doc).collect();
        assert_eq!(found, [plan(), written]);
        assert!(desk.rights.rested.is_some(), "the next look waits");
    }

    #[tokio::test]
    async fn a_change_on_one_document_looks_at_no_other() {
        let mut desk = Desk::new().await;
        let doc = |name: &str| DocId::parse("notes", name).unwrap();
        for name in ["written", "other"] {
            let least = Role::Editor;
            desk.rights.demand(&doc(name), least).await.unwrap();
        }
        let look =
            |docs: &[&str]| PermissionScope::Documents(docs.iter().map(|name| doc(name)).collect());
        let in_use = BTreeSet::from([plan(), doc("other")]);
        let scope = look(&["written", "plan", "never seen"]);
        let found = desk.rights.look_again(scope, in_use.clone()).await.unwrap();
        let found: Vec<_> = found.into_iter().map(|found| found.doc).collect();
        assert_eq!(found, [plan(), doc("written")]);
        desk.store.close().await.unwrap();
        let scope = look(&["never seen"]);
        let found = desk.rights.look_again(scope, in_use).await.unwrap();
        assert!(found.is_empty(), "the store is not even asked");
        assert!(desk.rights.held.contains_key(&doc("other")));
    }

    #[tokio::test]
    async fn a_doubt_about_everything_is_not_ended_by_one_document() {
        let mut desk = Desk::new().await;
        let known = desk.door.last_revocation().await.unwrap();
        desk.rights.in_doubt = Some(Instant::now());
        let ann = desk.rights.person().user_id().unwrap().clone();
        let by = desk.rights.person().principal.clone().unwrap();
        desk.store
            .register_document(plan(), ann.clone(), None)
            .await
            .unwrap();
        let shared = desk
            .store
            .transfer_ownership(plan(), ann, by)
            .await
            .unwrap();
        assert_eq!(shared, Ok(()));
        tokio::select! {
            () = desk.door.run(known) => {}
            () = desk.rights.told() => {}
        }
        // What changed before is still unknown, whatever the store says of one document.
        assert_eq!(
            desk.rights.news(),
            Some(AccessChange::Permissions(PermissionScope::Everything))
        );
    }

    #[tokio::test]
    async fn a_link_that_expires_leaves_no_doubt_behind() {
        let mut desk = Desk::new().await;
        let until = Instant::now();
        let editor = Held {
            role: Some(Role::Editor),
            until: Some(until),
            is_used_to_write: false,
        };
        desk.rights.hold(plan(), editor);
        assert_eq!(desk.rights.due(), Some(until));
        // A message came first, and found the role anew: whoever is told of the document must hear of it all the same.
        assert_eq!(desk.rights.role(&plan()).await.unwrap(), Some(Role::Owner));
        let found = desk.look_again().await.unwrap();
        assert_eq!((found.len(), found[0].is_news), (1, false));
        desk.store.close().await.unwrap();
        desk.rights.expires_at = Some(until);
        assert!(desk.look_again().await.unwrap().is_empty());
        assert!(
            desk.rights.in_doubt.is_some(),
            "what it gave is not known any more"
        );
    }

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
