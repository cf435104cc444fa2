use std::net::IpAddr;

use super::*;
use crate::auth::{AuthSettings, Credentials, NewAccount, RequestSource};
use crate::store::{AccessStore, SqliteSettings, SqliteStore};

const HERE: RequestSource = RequestSource {
    address: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    is_own_machine: true,
};

/// The permissions of Ann, the owner of the tenant, and a store that can be closed.
struct CacheFixture {
    store: Arc<SqliteStore>,
    auth: Arc<AuthService>,
    permissions: PermissionCache,
    _folder: tempfile::TempDir,
}

impl CacheFixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = SqliteSettings {
            folder: folder.path().to_owned(),
            ..SqliteSettings::default()
        };
        let store = Arc::new(SqliteStore::open(&settings).unwrap());
        let accounts: Arc<dyn AccessStore> = store.clone();
        let auth = AuthService::open(AuthSettings::default(), Some(accounts), &[7; 32]).unwrap();
        let account = NewAccount {
            login: "ann".to_owned(),
            name: "Ann".to_owned(),
            password: "a long password".to_owned(),
            invitation: None,
        };
        let brought = Credentials::default();
        let tokens = auth.register(&account, &brought, HERE);
        let brought = Credentials {
            access: Some(tokens.await.unwrap().access),
            ..Credentials::default()
        };
        let ann = auth.identify(&brought).await.unwrap().unwrap();
        let permissions = PermissionCache::new(auth.clone(), ann, auth.revocation_generation());
        Self {
            store,
            auth,
            permissions,
            _folder: folder,
        }
    }

    /// Changes the role of Ann and waits until her socket is notified.
    async fn change(&mut self) {
        let known = self.auth.last_revocation().await.unwrap();
        let ann = self.permissions.identity().user_id().unwrap().clone();
        let set = self
            .store
            .set_tenant_role(ann.clone(), Some(Role::Viewer), ann);
        assert!(set.await.unwrap());
        tokio::select! {
            () = self.auth.run(known) => {}
            () = self.permissions.access_changed() => {}
        }
        assert_eq!(
            self.permissions.take_access_change(),
            Some(AccessChange::Permissions(PermissionScope::Everything))
        );
    }

    async fn refresh(&mut self) -> Result<Vec<RefreshedRole>, AccessLost> {
        let in_use = BTreeSet::from([plan()]);
        self.permissions
            .refresh(PermissionScope::Everything, in_use)
            .await
    }
}

fn plan() -> DocId {
    DocId::parse("notes", "plan").unwrap()
}

fn long_ago() -> Option<Instant> {
    Instant::now().checked_sub(STALE_MAX)
}

#[tokio::test]
async fn unchanged_permissions_stay_valid_while_the_store_is_away() {
    let mut fixture = CacheFixture::new().await;
    assert_eq!(
        fixture.permissions.role(&plan()).await.unwrap(),
        Some(Role::Owner)
    );
    fixture.store.close().await.unwrap();
    for _ in 0..3 {
        assert!(fixture.refresh().await.unwrap().is_empty());
        assert!(
            fixture.permissions.next_refresh().is_some(),
            "the refresh is retried"
        );
    }
    // Roles that are not cached cannot be read.
    assert!(fixture.permissions.role(&plan()).await.is_err());
}

#[tokio::test]
async fn changed_permissions_end_the_session_if_the_store_stays_away() {
    let mut fixture = CacheFixture::new().await;
    fixture.change().await;
    fixture.store.close().await.unwrap();
    assert!(fixture.refresh().await.unwrap().is_empty());
    // The time counts from the first change, not from the newest.
    fixture.permissions.stale_since = long_ago();
    assert_eq!(
        fixture.refresh().await.unwrap_err(),
        AccessLost::LookupFailed
    );
}

#[tokio::test]
async fn successful_refresh_clears_the_stale_mark() {
    let mut fixture = CacheFixture::new().await;
    fixture.change().await;
    let found = fixture.refresh().await.unwrap();
    assert_eq!(found[0].role, Some(Role::Viewer));
    assert_eq!(fixture.permissions.stale_since, None);
}

#[tokio::test]
async fn change_refreshes_documents_in_use_only() {
    let mut fixture = CacheFixture::new().await;
    let doc = |name: &str| DocId::parse("notes", name).unwrap();
    for n in 0..100 {
        fixture
            .permissions
            .role(&doc(&format!("read {n}")))
            .await
            .unwrap();
    }
    let written = doc("written");
    fixture
        .permissions
        .require_role(&written, Role::Editor)
        .await
        .unwrap();
    fixture.change().await;
    let found = fixture.refresh().await.unwrap();
    let found: Vec<_> = found.into_iter().map(|found| found.doc).collect();
    assert_eq!(found, [plan(), written]);
    assert!(
        fixture.permissions.next_full_refresh.is_some(),
        "the next refresh waits"
    );
}

#[tokio::test]
async fn change_of_one_document_refreshes_no_other() {
    let mut fixture = CacheFixture::new().await;
    let doc = |name: &str| DocId::parse("notes", name).unwrap();
    for name in ["written", "other"] {
        let least = Role::Editor;
        fixture
            .permissions
            .require_role(&doc(name), least)
            .await
            .unwrap();
    }
    let scope_of =
        |docs: &[&str]| PermissionScope::Documents(docs.iter().map(|name| doc(name)).collect());
    let in_use = BTreeSet::from([plan(), doc("other")]);
    let scope = scope_of(&["written", "plan", "never seen"]);
    let found = fixture
        .permissions
        .refresh(scope, in_use.clone())
        .await
        .unwrap();
    let found: Vec<_> = found.into_iter().map(|found| found.doc).collect();
    assert_eq!(found, [plan(), doc("written")]);
    fixture.store.close().await.unwrap();
    let scope = scope_of(&["never seen"]);
    let found = fixture.permissions.refresh(scope, in_use).await.unwrap();
    assert!(found.is_empty(), "the store is not queried");
    assert!(fixture.permissions.roles.contains_key(&doc("other")));
}

#[tokio::test]
async fn stale_mark_on_everything_is_not_cleared_by_one_document() {
    let mut fixture = CacheFixture::new().await;
    let known = fixture.auth.last_revocation().await.unwrap();
    fixture.permissions.stale_since = Some(Instant::now());
    let ann = fixture.permissions.identity().user_id().unwrap().clone();
    let by = fixture.permissions.identity().principal.clone().unwrap();
    fixture
        .store
        .register_document(plan(), ann.clone(), None)
        .await
        .unwrap();
    let shared = fixture
        .store
        .transfer_ownership(plan(), ann, by)
        .await
        .unwrap();
    assert_eq!(shared, Ok(()));
    tokio::select! {
        () = fixture.auth.run(known) => {}
        () = fixture.permissions.access_changed() => {}
    }
    // The earlier change is still unread, whatever the store returns for one document.
    assert_eq!(
        fixture.permissions.take_access_change(),
        Some(AccessChange::Permissions(PermissionScope::Everything))
    );
}

#[tokio::test]
async fn expired_link_is_refreshed() {
    let mut fixture = CacheFixture::new().await;
    let until = Instant::now();
    let editor = CachedRole {
        role: Some(Role::Editor),
        until: Some(until),
        used_to_write: false,
    };
    fixture.permissions.insert(plan(), editor);
    assert_eq!(fixture.permissions.next_refresh(), Some(until));
    // A message looked the role up first. The refresh must return it all the same.
    assert_eq!(
        fixture.permissions.role(&plan()).await.unwrap(),
        Some(Role::Owner)
    );
    let found = fixture.refresh().await.unwrap();
    assert_eq!((found.len(), found[0].has_changed), (1, false));
    fixture.store.close().await.unwrap();
    fixture.permissions.link_expires_at = Some(until);
    assert!(fixture.refresh().await.unwrap().is_empty());
    assert!(
        fixture.permissions.stale_since.is_some(),
        "the role that the link gave is not known"
    );
}

#[test]
fn channel_name_is_collection_dot_document() {
    for (channel, doc) in [
        ("notes.plan", Some("notes/plan")),
        ("acme:notes.plan.b", Some("acme:notes/plan.b")),
        ("notes", None),
        (".plan", None),
        ("notes.", None),
    ] {
        let found = document_of_channel(&Name::parse(channel).unwrap());
        assert_eq!(found.map(|doc| doc.to_string()).as_deref(), doc);
    }
}
