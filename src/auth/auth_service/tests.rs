//! Tests of revocations that another node makes.

use std::collections::BTreeSet;

use futures_util::{FutureExt, TryFutureExt};

use super::*;
use crate::auth::{AccessChange, NewAccount, PermissionScope, RequestSource};
use crate::store::{SqliteSettings, SqliteStore};
use std::net::IpAddr;
use tokio::time::timeout;

/// A revocation made by another node reaches this node through the store alone.
#[tokio::test]
async fn revocations_of_another_node_are_read_from_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let settings = SqliteSettings {
        folder: folder.path().to_owned(),
        ..SqliteSettings::default()
    };
    let store = Arc::new(SqliteStore::open(&settings).unwrap());
    let accounts: Arc<dyn AccessStore> = store.clone();
    let service = AuthService::open(AuthSettings::default(), Some(accounts), &[7; 32]).unwrap();
    let last = service.last_revocation().await.unwrap();
    let source = RequestSource {
        address: IpAddr::from([192, 0, 2, 1]),
        is_own_machine: true,
    };
    let account = NewAccount {
        login: "ann".to_owned(),
        name: "Ann".to_owned(),
        password: "a long password".to_owned(),
        invitation: None,
    };
    let credentials = Credentials::default();
    let registered = service.register(&account, &credentials, source);
    let credentials = Credentials {
        access: Some(registered.await.unwrap().access),
        ..Credentials::default()
    };
    let identity = service.identify(&credentials).await.unwrap().unwrap();
    let subscription = service.subscribe_revocations(&identity, service.revocation_generation());
    let runner = tokio::spawn({
        let service = service.clone();
        async move { service.run(last).await }
    });
    let by = identity.user_id().unwrap().clone();
    let doc = DocId::parse("notes", "plan").unwrap();
    let key = identity.session.clone().unwrap();
    let principal = identity.principal.clone().unwrap();
    let changed =
        AccessChange::Permissions(PermissionScope::Documents(BTreeSet::from([doc.clone()])));
    for (revoke, change) in [
        (
            store.transfer_ownership(doc, by, principal).boxed(),
            changed,
        ),
        (
            store.end_session(key).map_ok(Ok).boxed(),
            AccessChange::SessionEnded,
        ),
    ] {
        assert_eq!(revoke.await.unwrap(), Ok(()));
        let notified = timeout(Duration::from_secs(5), subscription.notified());
        notified
            .await
            .expect("the subscription is notified in time");
        assert_eq!(subscription.take(), Some(change));
    }
    assert!(service.identify(&credentials).await.unwrap().is_none());
    assert_eq!(service.revalidate(&identity).await.unwrap(), None);
    runner.abort();
}
