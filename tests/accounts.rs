//! The access rows of every store: one suite for SQLite, Postgres and memory.

mod servers;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use copydesk::access::{
    AccountDraft, Admission, AuditAction, AuditEvent, CreateAccountError, DocumentRegistration,
    NewInvitation, NewShareLink, PasswordReset, Principal, Renewal, Role, SecretHash, SessionKey,
    ShareError, Subject,
};
use copydesk::id::{ClientId, DocId, Name, NodeId, UserId};
use copydesk::log::{Change, Entry, Revision, SubmitId};
use copydesk::ot::{Content, Kind};
use copydesk::store::{
    AccessQueries, AccessStore, Batch, ListQuery, MemoryStore, PostgresSettings, PostgresStore,
    SqliteSettings, SqliteStore, Store,
};
use futures_util::future::join_all;
use rusqlite::Connection;
use tempfile::TempDir;

/// An empty store of one kind.
trait Factory {
    fn accounts(&self) -> &dyn AccessStore;

    fn store(&self) -> &dyn Store;

    /// Ends the tokens of a subject while the store's clock is an hour ahead.
    async fn end_tokens_an_hour_ahead(&self, subject: &Subject);
}

/// Ends the tokens of a subject, and moves the stored time an hour ahead by a statement.
const AHEAD: &str = "UPDATE ended_tokens SET issued_until = issued_until + 3600";

async fn end_tokens(accounts: &dyn AccessStore, subject: &Subject) {
    let ended = accounts.end_sessions_of(subject.clone(), subject.clone());
    ended.await.unwrap();
}

struct InMemory(MemoryStore);

impl Factory for InMemory {
    fn accounts(&self) -> &dyn AccessStore {
        &self.0
    }

    fn store(&self) -> &dyn Store {
        &self.0
    }

    async fn end_tokens_an_hour_ahead(&self, subject: &Subject) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now_ms = u64::try_from(now.as_millis()).unwrap();
        self.0.set_clock_ms(now_ms + 3_600_000);
        end_tokens(&self.0, subject).await;
        self.0.set_clock_ms(now_ms);
    }
}

struct InFolder {
    store: SqliteStore,
    /// Deleted when this is dropped.
    folder: TempDir,
}

impl InFolder {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let settings = SqliteSettings {
            folder: folder.path().to_owned(),
            ..SqliteSettings::default()
        };
        Self {
            store: SqliteStore::open(&settings).unwrap(),
            folder,
        }
    }
}

impl Factory for InFolder {
    fn accounts(&self) -> &dyn AccessStore {
        &self.store
    }

    fn store(&self) -> &dyn Store {
        &self.store
    }

    async fn end_tokens_an_hour_ahead(&self, subject: &Subject) {
        end_tokens(&self.store, subject).await;
        let db = Connection::open(self.folder.path().join("copydesk.db")).unwrap();
        assert_eq!(db.execute(AHEAD, []).unwrap(), 1);
    }
}

struct InPostgres {
    store: PostgresStore,
    /// The URL of a schema that only this test uses.
    url: String,
}

impl InPostgres {
    /// `None` if Postgres is not installed.
    async fn new() -> Option<Self> {
        let url = servers::postgres::schema().await?;
        let store = open_shared(&url, NodeId(7)).await;
        Some(Self { store, url })
    }
}

impl Factory for InPostgres {
    fn accounts(&self) -> &dyn AccessStore {
        &self.store
    }

    fn store(&self) -> &dyn Store {
        &self.store
    }

    async fn end_tokens_an_hour_ahead(&self, subject: &Subject) {
        end_tokens(&self.store, subject).await;
        let client = servers::postgres::connect(&self.url).await;
        assert_eq!(client.execute(AHEAD, &[]).await.unwrap(), 1);
    }
}

async fn open_shared(url: &str, me: NodeId) -> PostgresStore {
    let settings = PostgresSettings {
        url: url.to_owned(),
        ..PostgresSettings::default()
    };
    PostgresStore::open(&settings, me, "here").await.unwrap()
}

/// Runs each of these on every store.
macro_rules! suite {
    ($($test:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::InMemory(super::MemoryStore::new())).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::InFolder::new()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $test() {
                if let Some(factory) = super::InPostgres::new().await {
                    super::$test(factory).await;
                }
            })*
        }
    };
}

suite![
    the_first_account_is_created_once_and_owns_the_tenant,
    a_login_is_unique,
    an_invitation_creates_one_account,
    an_invitation_ends_with_its_issuers_role,
    only_the_owner_changes_sharing,
    a_disabled_account_has_no_session,
    a_reset_code_sets_a_password_once,
    ending_sessions_ends_the_tokens_issued_until_now,
    ended_tokens_stay_ended_when_the_clock_steps_back,
    registrations_stop_at_the_document_quota,
    usage_is_added_up_per_tenant,
    a_tenants_audit_events_are_returned_newest_first,
    a_refresh_token_is_exchanged_once,
    a_second_tab_may_present_the_previous_token,
    a_stale_refresh_token_ends_the_session,
    a_new_password_ends_the_other_sessions,
    open_registration_stops_at_the_account_quota,
    the_oldest_sessions_end_when_there_are_too_many,
    a_session_expires,
    the_highest_role_counts,
    roles_do_not_reach_into_another_tenant,
    the_first_registration_owns_the_document,
    a_document_with_a_log_cannot_be_registered,
    ownership_changes_only_by_transfer,
    a_link_opens_its_document_until_it_is_deleted,
    a_link_expires,
    a_list_shows_readable_documents,
    revocations_are_returned_in_order,
    changes_of_sharing_are_audited,
    repeated_events_share_one_line,
    links_and_grants_stop_at_their_quotas,
    invitations_stop_at_their_quota,
    ids_with_a_nul_character_are_not_found,
    concurrent_changes_are_applied_one_after_another,
];

const DAY: Duration = Duration::from_hours(24);
const NO_TIME: Duration = Duration::ZERO;

fn subject(name: &str) -> Subject {
    Subject(name.to_owned())
}

fn key(name: &str) -> SessionKey {
    SessionKey(name.to_owned())
}

fn hash(seed: u8) -> SecretHash {
    [seed; 32]
}

fn doc(id: &str) -> DocId {
    DocId::parse("notes", id).unwrap()
}

fn new_user(name: &str, tenant: &str) -> AccountDraft {
    AccountDraft {
        id: subject(name),
        tenant: tenant.to_owned(),
        login: format!("{name}@example.org"),
        name: name.to_uppercase(),
        password: format!("hash of {name}"),
    }
}

fn member(name: &str, tenant: &str) -> Principal {
    Principal {
        user: Some(subject(name)),
        tenant: Some(tenant.to_owned()),
        role: None,
        links: Vec::new(),
    }
}

fn guest(link: &str) -> Principal {
    Principal {
        user: None,
        tenant: None,
        role: None,
        links: vec![subject(link)],
    }
}

fn link(id: &str, role: Role, secret: u8) -> NewShareLink {
    NewShareLink {
        id: subject(id),
        doc: doc("plan"),
        role,
        secret: hash(secret),
        password: None,
        lasts: None,
        links_max: MANY,
    }
}

/// A quota that no test reaches.
const MANY: u64 = 1_000;

async fn add(accounts: &dyn AccessStore, name: &str) {
    let added = accounts
        .create_account(
            new_user(name, "home"),
            Admission::Open { accounts_max: MANY },
        )
        .await;
    assert_eq!(added.unwrap(), Ok(()));
}

/// Creates the first account, which owns the tenant.
async fn first(accounts: &dyn AccessStore, name: &str) {
    let added = accounts.create_account(new_user(name, "home"), Admission::First);
    assert_eq!(added.await.unwrap(), Ok(()));
}

async fn try_own(accounts: &dyn AccessStore, id: &str, name: &str) -> DocumentRegistration {
    accounts
        .register_document(doc(id), subject(name), None)
        .await
        .unwrap()
}

async fn own(accounts: &dyn AccessStore, id: &str, name: &str) {
    assert_eq!(
        try_own(accounts, id, name).await,
        DocumentRegistration::Registered
    );
}

async fn role(accounts: &dyn AccessStore, principal: &Principal, doc: DocId) -> Option<Role> {
    let rights = accounts
        .permissions(principal.clone(), vec![doc])
        .await
        .unwrap();
    rights[0].role
}

/// A user who owns the tenant according to their token.
fn tenant_owner() -> Principal {
    Principal {
        role: Some(Role::Owner),
        ..member("boss", "home")
    }
}

/// Creates a document with a log, as its first op does.
async fn create(store: &dyn Store, doc: &DocId) {
    let lease = store.claim(doc, NodeId(1)).await.unwrap();
    let entry = Entry {
        revision: lease.head.next(),
        epoch: lease.fence.epoch,
        id: SubmitId {
            author: UserId::new("ann"),
            client: ClientId::parse("A").unwrap(),
            seq: 1,
        },
        at_ms: 1_000,
        change: Change::Create(Content::create(Kind::TextUnicode, None).unwrap()),
    };
    let batch = Batch {
        doc: doc.clone(),
        fence: lease.fence,
        entries: vec![entry.into()],
    };
    assert_eq!(store.append(vec![batch]).await.unwrap(), [Ok(())]);
    assert_eq!(lease.head, Revision::ZERO);
}

async fn the_first_account_is_created_once_and_owns_the_tenant(factory: impl Factory) {
    let accounts = factory.accounts();
    assert!(!accounts.has_accounts().await.unwrap());
    let (ann, bob) = (new_user("ann", "home"), new_user("bob", "home"));
    assert_eq!(
        accounts
            .create_account(ann, Admission::First)
            .await
            .unwrap(),
        Ok(())
    );
    assert!(accounts.has_accounts().await.unwrap());
    let second = accounts
        .create_account(bob, Admission::First)
        .await
        .unwrap();
    assert_eq!(second, Err(CreateAccountError::NotFirst));
    let ann = accounts.account(subject("ann")).await.unwrap().unwrap();
    assert_eq!(ann.role, Some(Role::Owner));
    assert_eq!(
        role(accounts, &member("ann", "home"), doc("any")).await,
        Some(Role::Owner)
    );
}

async fn a_login_is_unique(factory: impl Factory) {
    let accounts = factory.accounts();
    add(accounts, "ann").await;
    let mut imitator = new_user("other", "home");
    imitator.login = "ann@example.org".to_owned();
    let again = accounts
        .create_account(imitator, Admission::Open { accounts_max: MANY })
        .await
        .unwrap();
    assert_eq!(again, Err(CreateAccountError::LoginTaken));
    let found = accounts
        .account_by_login("ann@example.org".to_owned())
        .await;
    assert_eq!(found.unwrap().unwrap().id, subject("ann"));
    assert_eq!(
        accounts.account_by_login("eve".to_owned()).await.unwrap(),
        None
    );
}

async fn an_invitation_creates_one_account(factory: impl Factory) {
    let accounts = factory.accounts();
    first(accounts, "ann").await;
    let invitation = |seed, lasts| NewInvitation {
        code: hash(seed),
        id: subject(&format!("invitation {seed}")),
        tenant: "home".to_owned(),
        role: Some(Role::Viewer),
        lasts,
        invitations_max: MANY,
    };
    for (seed, lasts) in [(1, DAY), (2, NO_TIME)] {
        let invited = accounts.create_invitation(invitation(seed, lasts), subject("ann"));
        invited.await.unwrap();
    }
    let add = |name, seed| {
        accounts.create_account(new_user(name, "other"), Admission::Invited(hash(seed)))
    };
    // A refused registration does not use up the invitation.
    assert_eq!(
        add("ann", 1).await.unwrap(),
        Err(CreateAccountError::LoginTaken)
    );
    assert_eq!(add("bob", 1).await.unwrap(), Ok(()));
    let bob = accounts.account(subject("bob")).await.unwrap().unwrap();
    assert_eq!(
        (bob.tenant.as_str(), bob.role),
        ("home", Some(Role::Viewer))
    );
    for seed in [1, 2, 3] {
        assert!(!accounts.is_invitation_valid(hash(seed)).await.unwrap());
        assert_eq!(
            add("eve", seed).await.unwrap(),
            Err(CreateAccountError::NotInvited)
        );
        // Without an invitation the answer does not tell which logins exist.
        assert_eq!(
            add("ann", seed).await.unwrap(),
            Err(CreateAccountError::NotInvited)
        );
    }
}

async fn an_invitation_ends_with_its_issuers_role(factory: impl Factory) {
    let accounts = factory.accounts();
    first(accounts, "ann").await;
    add(accounts, "bob").await;
    let promoted = accounts.set_tenant_role(subject("bob"), Some(Role::Owner), subject("ann"));
    assert!(promoted.await.unwrap());
    for seed in [1, 2] {
        let invitation = NewInvitation {
            code: hash(seed),
            id: subject(&format!("invitation {seed}")),
            tenant: "home".to_owned(),
            role: Some(Role::Owner),
            lasts: DAY,
            invitations_max: MANY,
        };
        accounts
            .create_invitation(invitation, subject("bob"))
            .await
            .unwrap();
    }
    let listed = accounts.invitations("home".to_owned()).await.unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(
        (&listed[0].maker, listed[0].role),
        (&subject("bob"), Some(Role::Owner))
    );
    assert!(
        accounts
            .invitations("acme".to_owned())
            .await
            .unwrap()
            .is_empty()
    );
    let end = |tenant: &str, id| {
        accounts.delete_invitation(tenant.to_owned(), subject(id), subject("ann"))
    };
    assert!(!end("acme", "invitation 1").await.unwrap());
    assert!(end("home", "invitation 1").await.unwrap());
    assert!(!accounts.is_invitation_valid(hash(1)).await.unwrap());
    assert!(accounts.is_invitation_valid(hash(2)).await.unwrap());
    let demoted = accounts.set_tenant_role(subject("bob"), Some(Role::Editor), subject("ann"));
    assert!(demoted.await.unwrap());
    assert!(!accounts.is_invitation_valid(hash(2)).await.unwrap());
    let eve = accounts.create_account(new_user("eve", "home"), Admission::Invited(hash(2)));
    assert_eq!(eve.await.unwrap(), Err(CreateAccountError::NotInvited));
}

/// The previous owner cannot change anything after a transfer.
async fn only_the_owner_changes_sharing(factory: impl Factory) {
    let accounts = factory.accounts();
    add(accounts, "ann").await;
    add(accounts, "bob").await;
    own(accounts, "plan", "ann").await;
    let (ann, bob) = (member("ann", "home"), member("bob", "home"));
    let handed = accounts.transfer_ownership(doc("plan"), subject("bob"), ann.clone());
    assert_eq!(handed.await.unwrap(), Ok(()));
    let not_owner = Err(ShareError::NotOwner);
    for stranger in [
        ann,
        guest("l"),
        member("bob", "acme"),
        member("stranger", "home"),
    ] {
        let give = accounts.set_role(
            doc("plan"),
            subject("eve"),
            Some(Role::Viewer),
            stranger.clone(),
            MANY,
        );
        assert_eq!(give.await.unwrap(), not_owner);
        let take = accounts.transfer_ownership(doc("plan"), subject("ann"), stranger.clone());
        assert_eq!(take.await.unwrap(), not_owner);
        let share = accounts.create_link(link("l", Role::Editor, 5), stranger.clone());
        assert_eq!(share.await.unwrap(), not_owner);
        let end = accounts.delete_link(doc("plan"), subject("l"), stranger);
        assert_eq!(end.await.unwrap(), not_owner);
    }
    let shared = accounts.create_link(link("l", Role::Editor, 5), bob);
    assert_eq!(shared.await.unwrap(), Ok(()));
}

async fn a_disabled_account_has_no_session(factory: impl Factory) {
    let accounts = factory.accounts();
    session(accounts).await;
    let set = |disabled| accounts.set_disabled(subject("ann"), disabled, subject("boss"));
    assert!(set(true).await.unwrap());
    assert_eq!(accounts.session(key("s")).await.unwrap(), None);
    let told = accounts.revocations(0).await.unwrap();
    assert!(told.iter().any(|it| it.ends && it.session.is_none()));
    // A session that begins at the same moment is not valid either.
    let begun = accounts.begin_session(key("late"), subject("ann"), hash(1), DAY, MANY);
    begun.await.unwrap();
    assert_eq!(accounts.session(key("late")).await.unwrap(), None);
    let users = accounts.accounts_of("home".to_owned(), String::new(), 10);
    assert!(users.await.unwrap()[0].disabled);
    assert!(set(false).await.unwrap());
    assert!(accounts.session(key("late")).await.unwrap().is_some());
    let unknown = accounts.set_disabled(subject("stranger"), true, subject("boss"));
    assert!(!unknown.await.unwrap());
}

async fn a_reset_code_sets_a_password_once(factory: impl Factory) {
    let accounts = factory.accounts();
    first(accounts, "boss").await;
    session(accounts).await;
    let reset = |seed, lasts| PasswordReset {
        code: hash(seed),
        user: subject("ann"),
        lasts,
    };
    for (seed, lasts) in [(1, DAY), (2, DAY), (3, NO_TIME)] {
        let allowed = accounts.create_reset(reset(seed, lasts), subject("boss"));
        allowed.await.unwrap();
        assert_eq!(
            accounts.is_reset_valid(hash(seed)).await.unwrap(),
            lasts == DAY
        );
    }
    // A newer code replaces the earlier ones, and the newest has expired.
    for seed in [1, 2, 3, 4] {
        let done = accounts.reset_password(hash(seed), "new".to_owned());
        assert_eq!(done.await.unwrap(), None);
    }
    // A reset by a user who does not own the tenant is not valid.
    let stranger = accounts.create_reset(reset(5, DAY), subject("ann"));
    stranger.await.unwrap();
    assert!(!accounts.is_reset_valid(hash(5)).await.unwrap());
    let allowed = accounts.create_reset(reset(6, DAY), subject("boss"));
    allowed.await.unwrap();
    let done = accounts.reset_password(hash(6), "new".to_owned());
    assert_eq!(done.await.unwrap(), Some(subject("ann")));
    let ann = accounts.account(subject("ann")).await.unwrap().unwrap();
    assert_eq!(ann.password, "new");
    assert_eq!(accounts.session(key("s")).await.unwrap(), None);
    let again = accounts.reset_password(hash(6), "newer".to_owned());
    assert_eq!(again.await.unwrap(), None);
}

async fn ending_sessions_ends_the_tokens_issued_until_now(factory: impl Factory) {
    let accounts = factory.accounts();
    let ended = || accounts.tokens_ended(subject("acme:7"));
    assert_eq!(ended().await.unwrap(), None);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let end = accounts.end_sessions_of(subject("acme:7"), subject("acme:1"));
    end.await.unwrap();
    let until = ended().await.unwrap().unwrap();
    assert!(until.abs_diff(now.as_secs()) < 60, "{until}");
}

async fn ended_tokens_stay_ended_when_the_clock_steps_back(factory: impl Factory) {
    let accounts = factory.accounts();
    let subject = subject("acme:7");
    factory.end_tokens_an_hour_ahead(&subject).await;
    let before = accounts.tokens_ended(subject.clone()).await.unwrap();
    end_tokens(accounts, &subject).await;
    let after = accounts.tokens_ended(subject).await.unwrap();
    assert!(before.is_some());
    assert_eq!(after, before);
}

async fn registrations_stop_at_the_document_quota(factory: impl Factory) {
    let accounts = factory.accounts();
    let own = async |collection: &str, id: &str, most| {
        let doc = DocId::parse(collection, id).unwrap();
        accounts
            .register_document(doc, subject("ann"), most)
            .await
            .unwrap()
    };
    assert_eq!(
        own("acme:notes", "none", Some(0)).await,
        DocumentRegistration::QuotaReached
    );
    assert_eq!(
        own("acme:notes", "one", Some(2)).await,
        DocumentRegistration::Registered
    );
    assert_eq!(
        own("acme:notes", "two", Some(2)).await,
        DocumentRegistration::Registered
    );
    assert_eq!(
        own("acme:notes", "three", Some(2)).await,
        DocumentRegistration::QuotaReached
    );
    assert_eq!(
        own("acme:notes", "two", Some(2)).await,
        DocumentRegistration::Exists
    );
    // Another tenant has its own quota.
    assert_eq!(
        own("notes", "one", Some(2)).await,
        DocumentRegistration::Registered
    );
    assert_eq!(
        own("acme:notes", "three", None).await,
        DocumentRegistration::Registered
    );
}

async fn usage_is_added_up_per_tenant(factory: impl Factory) {
    let accounts = factory.accounts();
    for (tenant, bytes, sum) in [
        ("acme", 5, 5),
        ("acme", 7, 12),
        ("home", 1, 1),
        ("acme", 0, 12),
    ] {
        let taken = accounts.add_usage(tenant.to_owned(), bytes);
        assert_eq!(taken.await.unwrap(), sum);
    }
}

async fn a_tenants_audit_events_are_returned_newest_first(factory: impl Factory) {
    let accounts = factory.accounts();
    first(accounts, "ann").await;
    own(accounts, "plan", "ann").await;
    let noted = |actor, action| accounts.audit(subject(actor), action, None, None);
    noted("ann", AuditAction::FailToSignIn).await.unwrap();
    noted("acme:7", AuditAction::SignOut).await.unwrap();
    let opened = accounts.audit(
        subject("link"),
        AuditAction::OpenLink,
        Some(doc("plan")),
        Some(subject("link")),
    );
    opened.await.unwrap();
    let read = async |tenant: &str, before, limit| {
        let events = accounts.audit_events_of(tenant.to_owned(), before, limit);
        events.await.unwrap()
    };
    let words = |events: &[AuditEvent]| {
        events
            .iter()
            .map(|it| it.action.clone())
            .collect::<Vec<_>>()
    };
    let newest = read("home", None, 2).await;
    assert_eq!(words(&newest), ["open link", "fail to sign in"]);
    assert_eq!(newest[0].doc, Some(("notes".to_owned(), "plan".to_owned())));
    let older = read("home", Some(newest[1].number), 10).await;
    assert_eq!(words(&older), ["create", "make account"]);
    assert_eq!(words(&read("acme", None, 10).await), ["sign out"]);
}

async fn session(accounts: &dyn AccessStore) {
    add(accounts, "ann").await;
    let begun = accounts.begin_session(key("s"), subject("ann"), hash(1), DAY, MANY);
    begun.await.unwrap();
}

async fn renew(accounts: &dyn AccessStore, old: u8, next: u8, grace: Duration) -> Renewal {
    let renewed = accounts.renew_session(key("s"), hash(old), hash(next), grace);
    renewed.await.unwrap()
}

async fn a_refresh_token_is_exchanged_once(factory: impl Factory) {
    let accounts = factory.accounts();
    session(accounts).await;
    assert_eq!(renew(accounts, 1, 2, DAY).await, Renewal::Renewed);
    assert_eq!(renew(accounts, 2, 3, DAY).await, Renewal::Renewed);
    let live = accounts.session(key("s")).await.unwrap().unwrap();
    assert_eq!(live.user.id, subject("ann"));
    assert!(live.age < DAY);
}

async fn a_second_tab_may_present_the_previous_token(factory: impl Factory) {
    let accounts = factory.accounts();
    session(accounts).await;
    assert_eq!(renew(accounts, 1, 2, DAY).await, Renewal::Renewed);
    assert_eq!(renew(accounts, 1, 9, DAY).await, Renewal::JustRenewed);
    // The token that the first tab got is still the newest.
    assert_eq!(renew(accounts, 2, 3, DAY).await, Renewal::Renewed);
}

async fn a_stale_refresh_token_ends_the_session(factory: impl Factory) {
    let accounts = factory.accounts();
    session(accounts).await;
    assert_eq!(renew(accounts, 1, 2, NO_TIME).await, Renewal::Renewed);
    assert_eq!(renew(accounts, 1, 9, NO_TIME).await, Renewal::Reused);
    assert_eq!(accounts.session(key("s")).await.unwrap(), None);
    // The newest token does not work either: it may be in the hands of the thief.
    assert_eq!(renew(accounts, 2, 3, DAY).await, Renewal::Ended);
    let told = accounts.revocations(0).await.unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].subject, subject("ann"));
    assert_eq!(told[0].session, Some(key("s")));
    assert!(told[0].ends);
}

async fn the_oldest_sessions_end_when_there_are_too_many(factory: impl Factory) {
    let accounts = factory.accounts();
    session(accounts).await;
    let begin = |name: &str, sessions_max| {
        accounts.begin_session(key(name), subject("ann"), hash(7), DAY, sessions_max)
    };
    for name in ["second", "third"] {
        begin(name, 3).await.unwrap();
    }
    // After its renewal it is no longer the oldest.
    next_millisecond();
    assert_eq!(renew(accounts, 1, 2, DAY).await, Renewal::Renewed);
    begin("new", 2).await.unwrap();
    for (name, is_open) in [
        ("s", true),
        ("second", false),
        ("third", false),
        ("new", true),
    ] {
        let session = accounts.session(key(name)).await.unwrap();
        assert_eq!(session.is_some(), is_open, "{name}");
    }
    let told = accounts.revocations(0).await.unwrap();
    let mut ended: Vec<_> = told.into_iter().filter_map(|it| it.session).collect();
    ended.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(ended, [key("second"), key("third")]);
    begin("alone", 1).await.unwrap();
    assert!(accounts.session(key("alone")).await.unwrap().is_some());
    assert!(accounts.session(key("new")).await.unwrap().is_none());
}

/// Waits until the clock shows another millisecond, the unit of stored times.
fn next_millisecond() {
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_millis()
    };
    let begun = now();
    while now() == begun {
        std::thread::yield_now();
    }
}

async fn open_registration_stops_at_the_account_quota(factory: impl Factory) {
    let accounts = factory.accounts();
    for (name, added) in [
        ("ann", Ok(())),
        ("bob", Ok(())),
        ("eve", Err(CreateAccountError::QuotaReached)),
    ] {
        let admission = Admission::Open { accounts_max: 2 };
        let made = accounts
            .create_account(new_user(name, "home"), admission)
            .await;
        assert_eq!(made.unwrap(), added, "{name}");
    }
}

async fn a_new_password_ends_the_other_sessions(factory: impl Factory) {
    let accounts = factory.accounts();
    session(accounts).await;
    let other = accounts.begin_session(key("other"), subject("ann"), hash(7), DAY, MANY);
    other.await.unwrap();
    let changed = accounts.set_password(subject("ann"), "new".to_owned(), Some(key("s")));
    changed.await.unwrap();
    assert_eq!(accounts.session(key("other")).await.unwrap(), None);
    let live = accounts.session(key("s")).await.unwrap().unwrap();
    assert_eq!(live.user.password, "new");
    let ended = accounts.end_sessions_of(subject("ann"), subject("ann"));
    ended.await.unwrap();
    assert_eq!(accounts.session(key("s")).await.unwrap(), None);
}

async fn a_session_expires(factory: impl Factory) {
    let accounts = factory.accounts();
    add(accounts, "ann").await;
    let begun = accounts.begin_session(key("s"), subject("ann"), hash(1), NO_TIME, MANY);
    begun.await.unwrap();
    assert_eq!(accounts.session(key("s")).await.unwrap(), None);
    assert_eq!(renew(accounts, 1, 2, DAY).await, Renewal::Ended);
}

async fn the_highest_role_counts(factory: impl Factory) {
    let accounts = factory.accounts();
    add(accounts, "ann").await;
    add(accounts, "bob").await;
    own(accounts, "plan", "ann").await;
    let mut bob = member("bob", "home");
    assert_eq!(role(accounts, &bob, doc("plan")).await, None);
    assert_eq!(role(accounts, &bob, doc("no such")).await, None);
    let given = accounts.set_role(
        doc("plan"),
        subject("bob"),
        Some(Role::Viewer),
        tenant_owner(),
        MANY,
    );
    assert_eq!(given.await.unwrap(), Ok(()));
    assert_eq!(role(accounts, &bob, doc("plan")).await, Some(Role::Viewer));
    let made = accounts.create_link(link("l", Role::Editor, 5), tenant_owner());
    assert_eq!(made.await.unwrap(), Ok(()));
    bob.links.push(subject("l"));
    assert_eq!(role(accounts, &bob, doc("plan")).await, Some(Role::Editor));
    bob.links.clear();
    let tenant = accounts.set_tenant_role(subject("bob"), Some(Role::Commenter), subject("ann"));
    assert!(tenant.await.unwrap());
    assert_eq!(
        role(accounts, &bob, doc("plan")).await,
        Some(Role::Commenter)
    );
    assert_eq!(
        role(accounts, &bob, doc("other")).await,
        Some(Role::Commenter)
    );
    let taken = accounts.set_role(doc("plan"), subject("bob"), None, tenant_owner(), MANY);
    assert_eq!(taken.await.unwrap(), Ok(()));
    let tenant = accounts.set_tenant_role(subject("bob"), None, subject("ann"));
    assert!(tenant.await.unwrap());
    assert_eq!(role(accounts, &bob, doc("plan")).await, None);
}

async fn roles_do_not_reach_into_another_tenant(factory: impl Factory) {
    let accounts = factory.accounts();
    let acme = accounts.create_account(new_user("eve", "acme"), Admission::First);
    assert_eq!(acme.await.unwrap(), Ok(()));
    let (theirs, ours) = (DocId::parse("acme:notes", "plan").unwrap(), doc("plan"));
    let eve = member("eve", "acme");
    assert_eq!(
        role(accounts, &eve, theirs.clone()).await,
        Some(Role::Owner)
    );
    assert_eq!(role(accounts, &eve, ours.clone()).await, None);
    // A grant to a user of another tenant has no effect.
    let given = accounts.set_role(
        ours.clone(),
        subject("eve"),
        Some(Role::Editor),
        tenant_owner(),
        MANY,
    );
    assert_eq!(given.await.unwrap(), Ok(()));
    assert_eq!(role(accounts, &eve, ours.clone()).await, None);
    // A token that names another tenant does not give the stored role in it.
    assert_eq!(role(accounts, &member("eve", "home"), theirs).await, None);
}

async fn the_first_registration_owns_the_document(factory: impl Factory) {
    let accounts = factory.accounts();
    add(accounts, "ann").await;
    add(accounts, "bob").await;
    own(accounts, "plan", "ann").await;
    assert_eq!(
        try_own(accounts, "plan", "bob").await,
        DocumentRegistration::Exists
    );
    assert_eq!(
        try_own(accounts, "plan", "ann").await,
        DocumentRegistration::Exists
    );
    assert_eq!(
        role(accounts, &member("ann", "home"), doc("plan")).await,
        Some(Role::Owner)
    );
    assert_eq!(
        role(accounts, &member("bob", "home"), doc("plan")).await,
        None
    );
}

async fn a_document_with_a_log_cannot_be_registered(factory: impl Factory) {
    let accounts = factory.accounts();
    add(accounts, "ann").await;
    create(factory.store(), &doc("old")).await;
    assert_eq!(
        try_own(accounts, "old", "ann").await,
        DocumentRegistration::Exists
    );
    assert_eq!(
        role(accounts, &member("ann", "home"), doc("old")).await,
        None
    );
}

async fn ownership_changes_only_by_transfer(factory: impl Factory) {
    let accounts = factory.accounts();
    add(accounts, "ann").await;
    add(accounts, "bob").await;
    own(accounts, "plan", "ann").await;
    let demoted = accounts.set_role(doc("plan"), subject("ann"), None, tenant_owner(), MANY);
    assert_eq!(demoted.await.unwrap(), Err(ShareError::OwnerMustTransfer));
    let handed = accounts.transfer_ownership(doc("plan"), subject("bob"), tenant_owner());
    assert_eq!(handed.await.unwrap(), Ok(()));
    let holders = accounts.grants(doc("plan")).await.unwrap();
    let named = |at: usize| (holders[at].subject.0.as_str(), holders[at].role);
    assert_eq!(
        [named(0), named(1)],
        [("bob", Role::Owner), ("ann", Role::Editor)]
    );
    assert_eq!(
        holders[0].account,
        Some(("bob@example.org".to_owned(), "BOB".to_owned()))
    );
}

async fn a_link_opens_its_document_until_it_is_deleted(factory: impl Factory) {
    let accounts = factory.accounts();
    let made = accounts.create_link(link("l", Role::Owner, 5), tenant_owner());
    assert_eq!(made.await.unwrap(), Ok(()));
    let found = accounts.link_by_secret(hash(5)).await.unwrap().unwrap();
    // A link does not give ownership.
    assert_eq!((found.id, found.role), (subject("l"), Role::Editor));
    assert_eq!(accounts.link_by_secret(hash(6)).await.unwrap(), None);
    assert_eq!(
        role(accounts, &guest("l"), doc("plan")).await,
        Some(Role::Editor)
    );
    assert_eq!(role(accounts, &guest("l"), doc("other")).await, None);
    let elsewhere = accounts.delete_link(doc("other"), subject("l"), tenant_owner());
    assert_eq!(elsewhere.await.unwrap(), Err(ShareError::LinkNotFound));
    let ended = accounts.delete_link(doc("plan"), subject("l"), tenant_owner());
    assert_eq!(ended.await.unwrap(), Ok(()));
    assert_eq!(role(accounts, &guest("l"), doc("plan")).await, None);
    assert_eq!(accounts.links(doc("plan")).await.unwrap(), []);
}

async fn a_link_expires(factory: impl Factory) {
    let accounts = factory.accounts();
    let expired = NewShareLink {
        lasts: Some(NO_TIME),
        ..link("old", Role::Viewer, 5)
    };
    let lasting = NewShareLink {
        lasts: Some(DAY),
        ..link("new", Role::Viewer, 6)
    };
    assert_eq!(
        accounts.create_link(expired, tenant_owner()).await.unwrap(),
        Ok(())
    );
    assert_eq!(
        accounts.create_link(lasting, tenant_owner()).await.unwrap(),
        Ok(())
    );
    assert_eq!(role(accounts, &guest("old"), doc("plan")).await, None);
    assert_eq!(accounts.link_by_secret(hash(5)).await.unwrap(), None);
    let right = accounts
        .permissions(guest("new"), vec![doc("plan")])
        .await
        .unwrap()[0];
    assert_eq!(right.role, Some(Role::Viewer));
    assert!(
        right
            .lasts
            .is_some_and(|lasts| lasts > NO_TIME && lasts <= DAY)
    );
    let links = accounts.links(doc("plan")).await.unwrap();
    assert_eq!(links.len(), 1);
    assert_eq!(links[0].id, subject("new"));
}

async fn a_list_shows_readable_documents(factory: impl Factory) {
    let accounts = factory.accounts();
    add(accounts, "ann").await;
    add(accounts, "bob").await;
    for id in ["one", "two"] {
        own(accounts, id, "ann").await;
        create(factory.store(), &doc(id)).await;
    }
    create(factory.store(), &doc("free")).await;
    let given = accounts.set_role(
        doc("two"),
        subject("bob"),
        Some(Role::Viewer),
        tenant_owner(),
        MANY,
    );
    assert_eq!(given.await.unwrap(), Ok(()));
    let list = async |principal: Principal| -> Vec<String> {
        let query = ListQuery {
            collection: Name::parse("notes").unwrap(),
            limit: 10,
            after: None,
            title: None,
        };
        let found = accounts.list_for(principal, query).await.unwrap().documents;
        let mut ids: Vec<_> = found.iter().map(|it| it.doc.id.to_string()).collect();
        ids.sort();
        ids
    };
    assert_eq!(list(member("ann", "home")).await, ["one", "two"]);
    assert_eq!(list(member("bob", "home")).await, ["two"]);
    assert!(list(member("bob", "acme")).await.is_empty());
    assert!(list(guest("l")).await.is_empty());
    // A share link shows its document until it expires or is deleted.
    let by_link = |id: &str| Principal {
        links: vec![subject(id)],
        ..member("bob", "home")
    };
    for (id, secret, lasts) in [("live", 7, None), ("over", 8, Some(NO_TIME))] {
        let link = NewShareLink {
            doc: doc("one"),
            lasts,
            ..link(id, Role::Viewer, secret)
        };
        assert_eq!(
            accounts.create_link(link, tenant_owner()).await.unwrap(),
            Ok(())
        );
    }
    assert_eq!(list(by_link("live")).await, ["one", "two"]);
    assert_eq!(list(by_link("over")).await, ["two"]);
    let ended = accounts.delete_link(doc("one"), subject("live"), tenant_owner());
    assert_eq!(ended.await.unwrap(), Ok(()));
    assert_eq!(list(by_link("live")).await, ["two"]);
    let tenant = accounts.set_tenant_role(subject("bob"), Some(Role::Viewer), subject("ann"));
    assert!(tenant.await.unwrap());
    assert_eq!(list(member("bob", "home")).await, ["free", "one", "two"]);
}

async fn revocations_are_returned_in_order(factory: impl Factory) {
    let accounts = factory.accounts();
    assert_eq!(accounts.last_revocation().await.unwrap(), 0);
    for name in ["ann", "bob", "eve"] {
        let set = accounts.set_role(
            doc("plan"),
            subject(name),
            Some(Role::Viewer),
            tenant_owner(),
            MANY,
        );
        assert_eq!(set.await.unwrap(), Ok(()));
    }
    let all = accounts.revocations(0).await.unwrap();
    let names: Vec<_> = all.iter().map(|it| it.subject.0.as_str()).collect();
    assert_eq!(names, ["ann", "bob", "eve"]);
    assert!(all.iter().all(|it| !it.ends && it.session.is_none()));
    assert!(all.iter().all(|it| it.doc == Some(doc("plan"))));
    assert_eq!(
        accounts.revocations(all[1].sequence).await.unwrap(),
        all[2..]
    );
    assert_eq!(accounts.last_revocation().await.unwrap(), all[2].sequence);
}

async fn changes_of_sharing_are_audited(factory: impl Factory) {
    let accounts = factory.accounts();
    own(accounts, "plan", "ann").await;
    let set = accounts.set_role(
        doc("plan"),
        subject("bob"),
        Some(Role::Editor),
        member("ann", "home"),
        MANY,
    );
    assert_eq!(set.await.unwrap(), Ok(()));
    let made = accounts.create_link(link("l", Role::Viewer, 1), member("ann", "home"));
    assert_eq!(made.await.unwrap(), Ok(()));
    let handed = accounts.transfer_ownership(doc("plan"), subject("bob"), member("ann", "home"));
    assert_eq!(handed.await.unwrap(), Ok(()));
    let events = accounts.audit_events(doc("plan"), None, 3).await.unwrap();
    let told: Vec<_> = events
        .iter()
        .map(|it| {
            let subject = it.subject.as_ref().map(|it| it.0.as_str());
            (
                it.actor.0.as_str(),
                it.action.as_str(),
                subject,
                it.detail.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("ann", "transfer", Some("bob"), None),
            ("ann", "make link", Some("l"), Some("viewer")),
            ("ann", "set role", Some("bob"), Some("editor")),
        ]
    );
}

/// Opening a link many times does not push other events off the page.
async fn repeated_events_share_one_line(factory: impl Factory) {
    let accounts = factory.accounts();
    first(accounts, "ann").await;
    own(accounts, "plan", "ann").await;
    let note = |actor: &str, action| {
        let (actor, link) = (subject(actor), subject("l"));
        accounts.audit(actor, action, Some(doc("plan")), Some(link))
    };
    for _ in 0..300 {
        note("l", AuditAction::OpenLink).await.unwrap();
        note("bob", AuditAction::OpenLink).await.unwrap();
        let failed = accounts.audit(subject("ann"), AuditAction::FailToSignIn, None, None);
        failed.await.unwrap();
    }
    // Changes of permissions have a line each.
    for _ in 0..2 {
        note("ann", AuditAction::DeleteLink).await.unwrap();
    }
    let told = |events: &[AuditEvent]| -> Vec<(String, String, u64)> {
        let line = |it: &AuditEvent| (it.actor.0.clone(), it.action.clone(), it.times);
        events.iter().map(line).collect()
    };
    let line = |actor: &str, action: &str, times| (actor.to_owned(), action.to_owned(), times);
    let all = accounts.audit_events(doc("plan"), None, 10).await.unwrap();
    let lines = [
        line("ann", "end link", 1),
        line("ann", "end link", 1),
        line("bob", "open link", 300),
        line("l", "open link", 300),
        line("ann", "create", 1),
    ];
    assert_eq!(told(&all), lines);
    assert!(all[2].last_at_ms >= Some(all[2].at_ms) && all[0].last_at_ms.is_none());
    // The next page.
    let page = accounts
        .audit_events(doc("plan"), Some(all[1].number), 2)
        .await;
    assert_eq!(told(&page.unwrap()), lines[2..4]);
    let of_tenant = accounts.audit_events_of("home".to_owned(), None, 100).await;
    assert!(told(&of_tenant.unwrap()).contains(&line("ann", "fail to sign in", 300)));
}

async fn links_and_grants_stop_at_their_quotas(factory: impl Factory) {
    let accounts = factory.accounts();
    own(accounts, "plan", "ann").await;
    let ann = || member("ann", "home");
    let add = |seed: u8, lasts| {
        let link = NewShareLink {
            lasts,
            links_max: 2,
            ..link(&format!("l{seed}"), Role::Viewer, seed)
        };
        accounts.create_link(link, ann())
    };
    assert_eq!(add(1, Some(NO_TIME)).await.unwrap(), Ok(()));
    for seed in [2, 3] {
        assert_eq!(add(seed, Some(DAY)).await.unwrap(), Ok(()));
    }
    assert_eq!(add(4, None).await.unwrap(), Err(ShareError::QuotaReached));
    let ended = accounts.delete_link(doc("plan"), subject("l2"), ann());
    assert_eq!(ended.await.unwrap(), Ok(()));
    assert_eq!(add(4, None).await.unwrap(), Ok(()));
    // The owner counts as one of three.
    let give = |name, role, most| accounts.set_role(doc("plan"), subject(name), role, ann(), most);
    for name in ["bob", "kim"] {
        let given = give(name, Some(Role::Viewer), 3).await.unwrap();
        assert_eq!(given, Ok(()));
    }
    let refused = give("lee", Some(Role::Viewer), 3).await.unwrap();
    assert_eq!(refused, Err(ShareError::QuotaReached));
    // A role can be changed or taken away beyond the quota.
    for (role, most) in [(Some(Role::Editor), 3), (Some(Role::Viewer), 1), (None, 1)] {
        assert_eq!(give("bob", role, most).await.unwrap(), Ok(()), "{role:?}");
    }
    let given = give("lee", Some(Role::Viewer), 3).await.unwrap();
    assert_eq!(given, Ok(()));
}

async fn invitations_stop_at_their_quota(factory: impl Factory) {
    let accounts = factory.accounts();
    first(accounts, "ann").await;
    let invite = |seed, lasts| {
        let invitation = NewInvitation {
            code: hash(seed),
            id: subject(&format!("invitation {seed}")),
            tenant: "home".to_owned(),
            role: None,
            lasts,
            invitations_max: 2,
        };
        accounts.create_invitation(invitation, subject("ann"))
    };
    assert!(invite(1, NO_TIME).await.unwrap());
    assert!(invite(2, DAY).await.unwrap());
    assert!(invite(3, DAY).await.unwrap());
    assert!(!invite(4, DAY).await.unwrap());
    let ended =
        accounts.delete_invitation("home".to_owned(), subject("invitation 2"), subject("ann"));
    assert!(ended.await.unwrap());
    assert!(invite(4, DAY).await.unwrap());
}

async fn ids_with_a_nul_character_are_not_found(factory: impl Factory) {
    let accounts = factory.accounts();
    add(accounts, "ann").await;
    let odd = "ann\0";
    assert_eq!(
        accounts.account_by_login(odd.to_owned()).await.unwrap(),
        None
    );
    assert_eq!(accounts.account(subject(odd)).await.unwrap(), None);
    assert_eq!(
        role(accounts, &member(odd, "home"), doc("plan")).await,
        None
    );
    let ended = accounts.delete_link(doc("plan"), subject(odd), tenant_owner());
    assert_eq!(ended.await.unwrap(), Err(ShareError::LinkNotFound));
}

/// Of concurrent requests for the same thing one succeeds.
async fn concurrent_changes_are_applied_one_after_another(factory: impl Factory) {
    let accounts = factory.accounts();
    let names = ["ann", "bob", "eve", "joe"];
    // Opens as many connections as are used at once below.
    for any in join_all(names.map(|_| accounts.has_accounts())).await {
        assert!(!any.unwrap());
    }
    let firsts =
        names.map(|name| accounts.create_account(new_user(name, "home"), Admission::First));
    let firsts: Vec<_> = join_all(firsts).await;
    let won = firsts.iter().filter(|it| matches!(it, Ok(Ok(()))));
    assert_eq!(won.count(), 1, "{firsts:?}");
    let refused = firsts
        .iter()
        .filter(|it| matches!(it, Ok(Err(CreateAccountError::NotFirst))));
    assert_eq!(refused.count(), names.len() - 1, "{firsts:?}");

    let owned =
        join_all(names.map(|name| accounts.register_document(doc("plan"), subject(name), None)))
            .await;
    let owners = owned
        .iter()
        .filter(|it| matches!(it, Ok(DocumentRegistration::Registered)));
    assert_eq!(owners.count(), 1, "{owned:?}");
    for _ in 0..10 {
        let hand = |name| accounts.transfer_ownership(doc("plan"), subject(name), tenant_owner());
        for handed in join_all(names.map(hand)).await {
            assert_eq!(handed.unwrap(), Ok(()));
        }
    }
    let holders = accounts.grants(doc("plan")).await.unwrap();
    let roles: Vec<_> = holders.iter().map(|it| it.role).collect();
    assert_eq!(
        roles,
        [Role::Owner, Role::Editor, Role::Editor, Role::Editor]
    );

    let invitation = NewInvitation {
        code: hash(1),
        id: subject("invitation"),
        tenant: "home".to_owned(),
        role: None,
        lasts: DAY,
        invitations_max: MANY,
    };
    let users = accounts.accounts_of("home".to_owned(), String::new(), 10);
    let boss = users.await.unwrap()[0].id.clone();
    accounts.create_invitation(invitation, boss).await.unwrap();
    let invited = ["kim", "lee", "max"]
        .map(|name| accounts.create_account(new_user(name, "home"), Admission::Invited(hash(1))));
    let invited = join_all(invited).await;
    let came = invited.iter().filter(|it| matches!(it, Ok(Ok(()))));
    assert_eq!(came.count(), 1, "{invited:?}");

    let twins = ["one", "two"].map(|name| {
        let user = AccountDraft {
            login: "twin".to_owned(),
            ..new_user(name, "home")
        };
        accounts.create_account(user, Admission::Open { accounts_max: MANY })
    });
    let twins = join_all(twins).await;
    let came = twins.iter().filter(|it| matches!(it, Ok(Ok(()))));
    assert_eq!(came.count(), 1, "{twins:?}");

    add(accounts, "zoe").await;
    let begun = accounts.begin_session(key("s"), subject("zoe"), hash(1), DAY, MANY);
    begun.await.unwrap();
    let tabs = [2, 3, 4].map(|next| accounts.renew_session(key("s"), hash(1), hash(next), DAY));
    let tabs: Vec<_> = join_all(tabs)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let renewed = tabs.iter().filter(|it| **it == Renewal::Renewed);
    assert_eq!(renewed.count(), 1, "{tabs:?}");
    let just = tabs.iter().filter(|it| **it == Renewal::JustRenewed);
    assert_eq!(just.count(), 2, "{tabs:?}");
}

// ---- Postgres only: several nodes on one store ----

#[tokio::test]
async fn a_revocation_by_one_node_is_read_by_another() {
    let Some(factory) = InPostgres::new().await else {
        return;
    };
    let (here, other) = (
        factory.accounts(),
        open_shared(&factory.url, NodeId(8)).await,
    );
    session(here).await;
    assert_eq!(other.last_revocation().await.unwrap(), 0);
    assert!(other.session(key("s")).await.unwrap().is_some());
    here.end_session(key("s")).await.unwrap();
    let told = other.revocations(0).await.unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(
        (&told[0].subject, &told[0].session, told[0].ends),
        (&subject("ann"), &Some(key("s")), true)
    );
    assert_eq!(other.session(key("s")).await.unwrap(), None);
    assert_eq!(other.last_revocation().await.unwrap(), told[0].sequence);
}

/// A reader that continues from the newest sequence number it knows misses none while several nodes write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocations_are_read_without_gaps_while_nodes_write() {
    let Some(factory) = InPostgres::new().await else {
        return;
    };
    let nodes = join_all((10..13).map(|me| open_shared(&factory.url, NodeId(me)))).await;
    let (writers, each) = (nodes.len() * 4, 25);
    let write = |writer: usize| {
        let accounts: &dyn AccessStore = &nodes[writer % nodes.len()];
        async move {
            for at in 0..each {
                let plan = doc(&format!("plan{writer}"));
                let name = subject(&format!("{writer} {at}"));
                let set = accounts.set_role(plan, name, Some(Role::Viewer), tenant_owner(), MANY);
                assert_eq!(set.await.unwrap(), Ok(()));
            }
        }
    };
    let read = async {
        let deadline = Instant::now() + Duration::from_secs(60);
        let (mut known, mut sequences) = (0, Vec::new());
        while sequences.len() < writers * each {
            assert!(Instant::now() < deadline, "{} were read", sequences.len());
            for revocation in factory.accounts().revocations(known).await.unwrap() {
                known = revocation.sequence;
                sequences.push(known);
            }
        }
        sequences
    };
    let (sequences, _) = futures_util::future::join(read, join_all((0..writers).map(write))).await;
    let expected: Vec<u64> = (1..=(writers * each) as u64).collect();
    assert_eq!(sequences, expected);
}

/// The statements on access rows, their locks, and the look at the clock that begins a transaction. Not BEGIN, COMMIT and
/// LOCK TABLE: pg_stat_statements counts utility statements at their first execution only.
const COUNT_STATEMENTS: &str = "
SELECT coalesce(sum(calls), 0)::bigint
FROM pg_stat_statements
WHERE query !~ 'pg_stat_statements' AND query !~ '^(BEGIN|COMMIT|ROLLBACK|LOCK)'
  AND query ~* '(users|invitations|resets|sessions|ended_tokens|grants|links|audit|revocation|usage|advisory_xact_lock|^SELECT floor)'";

/// BEGIN is sent together with the look at the clock, and COMMIT with the revocations: a change has two round trips besides
/// its primitives.
#[tokio::test]
async fn changes_use_no_more_statements_than_they_need() {
    let options = ["fsync=off", "shared_preload_libraries=pg_stat_statements"];
    let Some(own) = servers::postgres::OwnServer::start(&options) else {
        return;
    };
    let client = servers::postgres::connect(&own.url()).await;
    let extension = "CREATE EXTENSION pg_stat_statements";
    client.batch_execute(extension).await.unwrap();
    let store = open_shared(&own.url(), NodeId(7)).await;
    let accounts: &dyn AccessStore = &store;
    let statements = async || -> i64 {
        let row = client.query_one(COUNT_STATEMENTS, &[]).await.unwrap();
        let reset = "SELECT pg_stat_statements_reset()";
        client.batch_execute(reset).await.unwrap();
        row.get(0)
    };
    let ann = member("ann", "home");
    let invitation = NewInvitation {
        code: hash(1),
        id: subject("invitation"),
        tenant: "home".to_owned(),
        role: None,
        lasts: DAY,
        invitations_max: MANY,
    };
    let reset = PasswordReset {
        code: hash(2),
        user: subject("bob"),
        lasts: DAY,
    };
    let begin = |name: &str| accounts.begin_session(key(name), subject("bob"), hash(1), DAY, MANY);
    let renew = |token| accounts.renew_session(key("s"), hash(token), hash(2), DAY);
    let role = |role| accounts.set_role(doc("plan"), subject("bob"), role, ann.clone(), MANY);
    let open = Admission::Open { accounts_max: MANY };
    // The first connection of the pool, and the statements of the start.
    assert!(!accounts.has_accounts().await.unwrap());
    statements().await;
    macro_rules! uses {
        ($used:literal, $call:expr) => {{
            let output = $call.await.unwrap();
            let used = statements().await;
            assert_eq!(used, $used, "{} returned {output:?}", stringify!($call));
        }};
    }
    uses!(
        4,
        accounts.create_account(new_user("ann", "home"), Admission::First)
    );
    uses!(4, accounts.create_account(new_user("bob", "home"), open));
    uses!(6, accounts.create_invitation(invitation, subject("ann")));
    uses!(1, accounts.is_invitation_valid(hash(1)));
    uses!(
        4,
        accounts.create_account(new_user("eve", "home"), Admission::Invited(hash(1)))
    );
    uses!(
        2,
        accounts.delete_invitation("home".to_owned(), subject("none"), subject("ann"))
    );
    uses!(3, accounts.create_reset(reset, subject("ann")));
    uses!(1, accounts.is_reset_valid(hash(2)));
    uses!(5, accounts.reset_password(hash(2), "new".to_owned()));
    uses!(6, begin("s"));
    uses!(5, begin("t"));
    uses!(1, accounts.session(key("s")));
    uses!(3, renew(1));
    uses!(2, renew(1));
    uses!(4, renew(7));
    uses!(4, accounts.end_session(key("t")));
    uses!(
        4,
        accounts.set_password(subject("bob"), "newer".to_owned(), None)
    );
    uses!(5, accounts.end_sessions_of(subject("bob"), subject("ann")));
    uses!(
        4,
        accounts.set_tenant_role(subject("bob"), Some(Role::Viewer), subject("ann"))
    );
    uses!(
        1,
        accounts.register_document(doc("plan"), subject("ann"), Some(MANY))
    );
    uses!(
        1,
        accounts.permissions(ann.clone(), vec![doc("plan"), doc("other")])
    );
    uses!(8, role(Some(Role::Viewer)));
    uses!(7, role(None));
    uses!(
        8,
        accounts.create_link(link("l", Role::Viewer, 5), ann.clone())
    );
    uses!(
        7,
        accounts.delete_link(doc("plan"), subject("l"), ann.clone())
    );
    uses!(
        8,
        accounts.transfer_ownership(doc("plan"), subject("bob"), ann.clone())
    );
    uses!(
        5,
        accounts.set_disabled(subject("bob"), true, subject("ann"))
    );
    uses!(1, accounts.add_usage("home".to_owned(), 1));
}
