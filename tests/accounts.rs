//! What every store that keeps people promises about them. One suite for all such stores.

mod servers;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use copydesk::access::{
    AccountDraft, Admission, AuditEvent, CreateAccountError, DocumentRegistration, NewInvitation,
    NewShareLink, PasswordReset, Principal, Renewal, Role, SecretHash, SessionKey, ShareError,
    Subject,
};
use copydesk::id::{ClientId, DocId, Name, NodeId, UserId};
use copydesk::log::{Change, Entry, Revision, SubmitId};
use copydesk::ot::{Content, Kind};
use copydesk::store::{
    AccessStore, Batch, ListQuery, PostgresSettings, PostgresStore, SqliteSettings, SqliteStore,
    Store,
};
use futures_util::future::join_all;
use tempfile::TempDir;

/// A store that keeps people, empty.
trait Factory {
    fn accounts(&self) -> &dyn AccessStore;

    fn store(&self) -> &dyn Store;
}

struct InFolder {
    store: SqliteStore,
    /// Removed with the store.
    _folder: TempDir,
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
            _folder: folder,
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
}

struct InPostgres {
    store: PostgresStore,
    /// Of a schema that is this test's alone.
    url: String,
}

impl InPostgres {
    /// `None`: Postgres is not installed.
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
}

async fn open_shared(url: &str, me: NodeId) -> PostgresStore {
    let settings = PostgresSettings {
        url: url.to_owned(),
        ..PostgresSettings::default()
    };
    PostgresStore::open(&settings, me, "here").await.unwrap()
}

/// Each of these runs on every store.
macro_rules! suite {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::InFolder::new()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $test() {
                if let Some(kept) = super::InPostgres::new().await {
                    super::$test(kept).await;
                }
            })*
        }
    };
}

suite![
    first_account_is_made_once_and_owns_everything,
    a_login_is_taken_once,
    an_invitation_is_used_once,
    an_invitation_is_as_good_as_its_maker,
    only_the_owner_shares,
    a_closed_account_has_no_session,
    a_forgotten_password_is_chosen_anew_once,
    tokens_are_ended_by_when_they_were_issued,
    a_tenant_makes_as_many_documents_as_it_may,
    what_tenants_take_is_added_up,
    a_tenants_deeds_are_read_from_the_newest,
    a_refresh_token_is_exchanged_once,
    a_second_tab_is_no_thief_for_a_moment,
    a_stale_refresh_token_ends_the_session,
    a_new_password_ends_the_other_sessions,
    accounts_without_invitation_are_bounded,
    the_oldest_sessions_end_when_there_are_too_many,
    a_session_expires,
    rights_are_the_most_that_anything_gives,
    a_tenant_is_not_reached_from_another,
    a_document_is_owned_by_who_was_first,
    a_document_that_has_a_log_is_nobodys_to_take,
    the_owner_changes_only_by_transfer,
    a_link_opens_its_document_until_it_ends,
    a_link_expires,
    a_list_shows_what_may_be_read,
    revocations_are_told_in_order,
    deeds_are_kept,
    repeated_deeds_are_one_line,
    a_document_has_so_many_links_and_people,
    a_tenant_has_so_many_invitations,
    what_nobody_is_called_is_not_found,
    what_is_done_at_once_is_done_in_turn,
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

fn who(name: &str, tenant: &str) -> Principal {
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

/// More than any test makes.
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

/// The first account, which owns everything.
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

async fn role(accounts: &dyn AccessStore, who: &Principal, doc: DocId) -> Option<Role> {
    let rights = accounts.permissions(who.clone(), vec![doc]).await.unwrap();
    rights[0].role
}

/// Somebody who owns everything of the tenant.
fn boss() -> Principal {
    Principal {
        role: Some(Role::Owner),
        ..who("boss", "home")
    }
}

/// Ann's document, as its first op would make it.
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

async fn first_account_is_made_once_and_owns_everything(kept: impl Factory) {
    let accounts = kept.accounts();
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
        role(accounts, &who("ann", "home"), doc("any")).await,
        Some(Role::Owner)
    );
}

async fn a_login_is_taken_once(kept: impl Factory) {
    let accounts = kept.accounts();
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

async fn an_invitation_is_used_once(kept: impl Factory) {
    let accounts = kept.accounts();
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
    // A login that is taken uses no invitation up.
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
        // Who may not come in learns nothing of who is here.
        assert_eq!(
            add("ann", seed).await.unwrap(),
            Err(CreateAccountError::NotInvited)
        );
    }
}

/// What was given away goes with the right to give it.
async fn an_invitation_is_as_good_as_its_maker(kept: impl Factory) {
    let accounts = kept.accounts();
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

/// Whoever was the owner a moment ago changes nothing any more.
async fn only_the_owner_shares(kept: impl Factory) {
    let accounts = kept.accounts();
    add(accounts, "ann").await;
    add(accounts, "bob").await;
    own(accounts, "plan", "ann").await;
    let (ann, bob) = (who("ann", "home"), who("bob", "home"));
    let handed = accounts.transfer_ownership(doc("plan"), subject("bob"), ann.clone());
    assert_eq!(handed.await.unwrap(), Ok(()));
    let not_owner = Err(ShareError::NotOwner);
    for stranger in [ann, guest("l"), who("bob", "acme"), who("nobody", "home")] {
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

async fn a_closed_account_has_no_session(kept: impl Factory) {
    let accounts = kept.accounts();
    session(accounts).await;
    let set = |disabled| accounts.set_disabled(subject("ann"), disabled, subject("boss"));
    assert!(set(true).await.unwrap());
    assert_eq!(accounts.session(key("s")).await.unwrap(), None);
    let told = accounts.revocations(0).await.unwrap();
    assert!(told.iter().any(|it| it.ends && it.session.is_none()));
    // Begun at the same moment, it opens nothing either.
    let begun = accounts.begin_session(key("late"), subject("ann"), hash(1), DAY, MANY);
    begun.await.unwrap();
    assert_eq!(accounts.session(key("late")).await.unwrap(), None);
    let users = accounts.accounts_of("home".to_owned(), String::new(), 10);
    assert!(users.await.unwrap()[0].disabled);
    assert!(set(false).await.unwrap());
    assert!(accounts.session(key("late")).await.unwrap().is_some());
    let nobody = accounts.set_disabled(subject("nobody"), true, subject("boss"));
    assert!(!nobody.await.unwrap());
}

async fn a_forgotten_password_is_chosen_anew_once(kept: impl Factory) {
    let accounts = kept.accounts();
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
    // The newest is the only one, and it has expired.
    for seed in [1, 2, 3, 4] {
        let done = accounts.reset_password(hash(seed), "new".to_owned());
        assert_eq!(done.await.unwrap(), None);
    }
    // Nor does one help that somebody made who may not.
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

async fn tokens_are_ended_by_when_they_were_issued(kept: impl Factory) {
    let accounts = kept.accounts();
    let ended = || accounts.tokens_ended(subject("acme:7"));
    assert_eq!(ended().await.unwrap(), None);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let end = accounts.end_sessions_of(subject("acme:7"), subject("acme:1"));
    end.await.unwrap();
    let until = ended().await.unwrap().unwrap();
    assert!(until.abs_diff(now.as_secs()) < 60, "{until}");
}

async fn a_tenant_makes_as_many_documents_as_it_may(kept: impl Factory) {
    let accounts = kept.accounts();
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
    // Of no interest to another tenant.
    assert_eq!(
        own("notes", "one", Some(2)).await,
        DocumentRegistration::Registered
    );
    assert_eq!(
        own("acme:notes", "three", None).await,
        DocumentRegistration::Registered
    );
}

async fn what_tenants_take_is_added_up(kept: impl Factory) {
    let accounts = kept.accounts();
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

async fn a_tenants_deeds_are_read_from_the_newest(kept: impl Factory) {
    let accounts = kept.accounts();
    first(accounts, "ann").await;
    own(accounts, "plan", "ann").await;
    let noted = |actor, deed| accounts.audit(subject(actor), deed, None, None);
    noted("ann", "fail to sign in").await.unwrap();
    noted("acme:7", "sign out").await.unwrap();
    let opened = accounts.audit(
        subject("link"),
        "open link",
        Some(doc("plan")),
        Some(subject("link")),
    );
    opened.await.unwrap();
    let read = async |tenant: &str, before, limit| {
        let deeds = accounts.audit_events_of(tenant.to_owned(), before, limit);
        deeds.await.unwrap()
    };
    let words = |deeds: &[AuditEvent]| deeds.iter().map(|it| it.action.clone()).collect::<Vec<_>>();
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

async fn a_refresh_token_is_exchanged_once(kept: impl Factory) {
    let accounts = kept.accounts();
    session(accounts).await;
    assert_eq!(renew(accounts, 1, 2, DAY).await, Renewal::Renewed);
    assert_eq!(renew(accounts, 2, 3, DAY).await, Renewal::Renewed);
    let live = accounts.session(key("s")).await.unwrap().unwrap();
    assert_eq!(live.user.id, subject("ann"));
    assert!(live.age < DAY);
}

async fn a_second_tab_is_no_thief_for_a_moment(kept: impl Factory) {
    let accounts = kept.accounts();
    session(accounts).await;
    assert_eq!(renew(accounts, 1, 2, DAY).await, Renewal::Renewed);
    assert_eq!(renew(accounts, 1, 9, DAY).await, Renewal::JustRenewed);
    // The first tab's token is still the newest.
    assert_eq!(renew(accounts, 2, 3, DAY).await, Renewal::Renewed);
}

async fn a_stale_refresh_token_ends_the_session(kept: impl Factory) {
    let accounts = kept.accounts();
    session(accounts).await;
    assert_eq!(renew(accounts, 1, 2, NO_TIME).await, Renewal::Renewed);
    assert_eq!(renew(accounts, 1, 9, NO_TIME).await, Renewal::Reused);
    assert_eq!(accounts.session(key("s")).await.unwrap(), None);
    // The thief's or the owner's newest token, nobody knows which: it opens nothing.
    assert_eq!(renew(accounts, 2, 3, DAY).await, Renewal::Ended);
    let told = accounts.revocations(0).await.unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].subject, subject("ann"));
    assert_eq!(told[0].session, Some(key("s")));
    assert!(told[0].ends);
}

async fn the_oldest_sessions_end_when_there_are_too_many(kept: impl Factory) {
    let accounts = kept.accounts();
    session(accounts).await;
    let begin = |name: &str, sessions_max| {
        accounts.begin_session(key(name), subject("ann"), hash(7), DAY, sessions_max)
    };
    for name in ["second", "third"] {
        begin(name, 3).await.unwrap();
    }
    // Renewed, so it is not the oldest any more.
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

/// Waits until the clock shows another millisecond, the unit in which stores keep times.
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

async fn accounts_without_invitation_are_bounded(kept: impl Factory) {
    let accounts = kept.accounts();
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

async fn a_new_password_ends_the_other_sessions(kept: impl Factory) {
    let accounts = kept.accounts();
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

async fn a_session_expires(kept: impl Factory) {
    let accounts = kept.accounts();
    add(accounts, "ann").await;
    let begun = accounts.begin_session(key("s"), subject("ann"), hash(1), NO_TIME, MANY);
    begun.await.unwrap();
    assert_eq!(accounts.session(key("s")).await.unwrap(), None);
    assert_eq!(renew(accounts, 1, 2, DAY).await, Renewal::Ended);
}

async fn rights_are_the_most_that_anything_gives(kept: impl Factory) {
    let accounts = kept.accounts();
    add(accounts, "ann").await;
    add(accounts, "bob").await;
    own(accounts, "plan", "ann").await;
    let mut bob = who("bob", "home");
    assert_eq!(role(accounts, &bob, doc("plan")).await, None);
    assert_eq!(role(accounts, &bob, doc("no such")).await, None);
    let given = accounts.set_role(
        doc("plan"),
        subject("bob"),
        Some(Role::Viewer),
        boss(),
        MANY,
    );
    assert_eq!(given.await.unwrap(), Ok(()));
    assert_eq!(role(accounts, &bob, doc("plan")).await, Some(Role::Viewer));
    let made = accounts.create_link(link("l", Role::Editor, 5), boss());
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
    let taken = accounts.set_role(doc("plan"), subject("bob"), None, boss(), MANY);
    assert_eq!(taken.await.unwrap(), Ok(()));
    let tenant = accounts.set_tenant_role(subject("bob"), None, subject("ann"));
    assert!(tenant.await.unwrap());
    assert_eq!(role(accounts, &bob, doc("plan")).await, None);
}

async fn a_tenant_is_not_reached_from_another(kept: impl Factory) {
    let accounts = kept.accounts();
    let acme = accounts.create_account(new_user("eve", "acme"), Admission::First);
    assert_eq!(acme.await.unwrap(), Ok(()));
    let (theirs, ours) = (DocId::parse("acme:notes", "plan").unwrap(), doc("plan"));
    let eve = who("eve", "acme");
    assert_eq!(
        role(accounts, &eve, theirs.clone()).await,
        Some(Role::Owner)
    );
    assert_eq!(role(accounts, &eve, ours.clone()).await, None);
    // Not even where somebody gave her a role by mistake.
    let given = accounts.set_role(
        ours.clone(),
        subject("eve"),
        Some(Role::Editor),
        boss(),
        MANY,
    );
    assert_eq!(given.await.unwrap(), Ok(()));
    assert_eq!(role(accounts, &eve, ours.clone()).await, None);
    // And not by saying that she belongs elsewhere.
    assert_eq!(role(accounts, &who("eve", "home"), theirs).await, None);
}

async fn a_document_is_owned_by_who_was_first(kept: impl Factory) {
    let accounts = kept.accounts();
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
        role(accounts, &who("ann", "home"), doc("plan")).await,
        Some(Role::Owner)
    );
    assert_eq!(role(accounts, &who("bob", "home"), doc("plan")).await, None);
}

async fn a_document_that_has_a_log_is_nobodys_to_take(kept: impl Factory) {
    let accounts = kept.accounts();
    add(accounts, "ann").await;
    create(kept.store(), &doc("old")).await;
    assert_eq!(
        try_own(accounts, "old", "ann").await,
        DocumentRegistration::Exists
    );
    assert_eq!(role(accounts, &who("ann", "home"), doc("old")).await, None);
}

async fn the_owner_changes_only_by_transfer(kept: impl Factory) {
    let accounts = kept.accounts();
    add(accounts, "ann").await;
    add(accounts, "bob").await;
    own(accounts, "plan", "ann").await;
    let demoted = accounts.set_role(doc("plan"), subject("ann"), None, boss(), MANY);
    assert_eq!(demoted.await.unwrap(), Err(ShareError::OwnerMustTransfer));
    let handed = accounts.transfer_ownership(doc("plan"), subject("bob"), boss());
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

async fn a_link_opens_its_document_until_it_ends(kept: impl Factory) {
    let accounts = kept.accounts();
    let made = accounts.create_link(link("l", Role::Owner, 5), boss());
    assert_eq!(made.await.unwrap(), Ok(()));
    let found = accounts.link_by_secret(hash(5)).await.unwrap().unwrap();
    // A link makes nobody an owner.
    assert_eq!((found.id, found.role), (subject("l"), Role::Editor));
    assert_eq!(accounts.link_by_secret(hash(6)).await.unwrap(), None);
    assert_eq!(
        role(accounts, &guest("l"), doc("plan")).await,
        Some(Role::Editor)
    );
    assert_eq!(role(accounts, &guest("l"), doc("other")).await, None);
    let elsewhere = accounts.delete_link(doc("other"), subject("l"), boss());
    assert_eq!(elsewhere.await.unwrap(), Err(ShareError::LinkNotFound));
    let ended = accounts.delete_link(doc("plan"), subject("l"), boss());
    assert_eq!(ended.await.unwrap(), Ok(()));
    assert_eq!(role(accounts, &guest("l"), doc("plan")).await, None);
    assert_eq!(accounts.links(doc("plan")).await.unwrap(), []);
}

async fn a_link_expires(kept: impl Factory) {
    let accounts = kept.accounts();
    let expired = NewShareLink {
        lasts: Some(NO_TIME),
        ..link("old", Role::Viewer, 5)
    };
    let lasting = NewShareLink {
        lasts: Some(DAY),
        ..link("new", Role::Viewer, 6)
    };
    assert_eq!(accounts.create_link(expired, boss()).await.unwrap(), Ok(()));
    assert_eq!(accounts.create_link(lasting, boss()).await.unwrap(), Ok(()));
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

async fn a_list_shows_what_may_be_read(kept: impl Factory) {
    let accounts = kept.accounts();
    add(accounts, "ann").await;
    add(accounts, "bob").await;
    for id in ["one", "two"] {
        own(accounts, id, "ann").await;
        create(kept.store(), &doc(id)).await;
    }
    create(kept.store(), &doc("nobodys")).await;
    let given = accounts.set_role(doc("two"), subject("bob"), Some(Role::Viewer), boss(), MANY);
    assert_eq!(given.await.unwrap(), Ok(()));
    let list = async |who: Principal| -> Vec<String> {
        let query = ListQuery {
            collection: Name::parse("notes").unwrap(),
            limit: 10,
            after: None,
            title: None,
        };
        let found = accounts.list_for(who, query).await.unwrap().documents;
        let mut ids: Vec<_> = found.iter().map(|it| it.doc.id.to_string()).collect();
        ids.sort();
        ids
    };
    assert_eq!(list(who("ann", "home")).await, ["one", "two"]);
    assert_eq!(list(who("bob", "home")).await, ["two"]);
    assert!(list(who("bob", "acme")).await.is_empty());
    assert!(list(guest("l")).await.is_empty());
    // A share link shows its document as long as it opens it.
    let by_link = |id: &str| Principal {
        links: vec![subject(id)],
        ..who("bob", "home")
    };
    for (id, secret, lasts) in [("live", 7, None), ("over", 8, Some(NO_TIME))] {
        let link = NewShareLink {
            doc: doc("one"),
            lasts,
            ..link(id, Role::Viewer, secret)
        };
        assert_eq!(accounts.create_link(link, boss()).await.unwrap(), Ok(()));
    }
    assert_eq!(list(by_link("live")).await, ["one", "two"]);
    assert_eq!(list(by_link("over")).await, ["two"]);
    let ended = accounts.delete_link(doc("one"), subject("live"), boss());
    assert_eq!(ended.await.unwrap(), Ok(()));
    assert_eq!(list(by_link("live")).await, ["two"]);
    let tenant = accounts.set_tenant_role(subject("bob"), Some(Role::Viewer), subject("ann"));
    assert!(tenant.await.unwrap());
    assert_eq!(list(who("bob", "home")).await, ["nobodys", "one", "two"]);
}

async fn revocations_are_told_in_order(kept: impl Factory) {
    let accounts = kept.accounts();
    assert_eq!(accounts.last_revocation().await.unwrap(), 0);
    for name in ["ann", "bob", "eve"] {
        let set = accounts.set_role(doc("plan"), subject(name), Some(Role::Viewer), boss(), MANY);
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

async fn deeds_are_kept(kept: impl Factory) {
    let accounts = kept.accounts();
    own(accounts, "plan", "ann").await;
    let set = accounts.set_role(
        doc("plan"),
        subject("bob"),
        Some(Role::Editor),
        who("ann", "home"),
        MANY,
    );
    assert_eq!(set.await.unwrap(), Ok(()));
    let made = accounts.create_link(link("l", Role::Viewer, 1), who("ann", "home"));
    assert_eq!(made.await.unwrap(), Ok(()));
    let handed = accounts.transfer_ownership(doc("plan"), subject("bob"), who("ann", "home"));
    assert_eq!(handed.await.unwrap(), Ok(()));
    let deeds = accounts.audit_events(doc("plan"), None, 3).await.unwrap();
    let told: Vec<_> = deeds
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

/// Whoever opens a link again and again hides nothing of what else was done.
async fn repeated_deeds_are_one_line(kept: impl Factory) {
    let accounts = kept.accounts();
    first(accounts, "ann").await;
    own(accounts, "plan", "ann").await;
    let note = |actor: &str, deed| {
        let (actor, link) = (subject(actor), subject("l"));
        accounts.audit(actor, deed, Some(doc("plan")), Some(link))
    };
    for _ in 0..300 {
        note("l", "open link").await.unwrap();
        note("bob", "open link").await.unwrap();
        let failed = accounts.audit(subject("ann"), "fail to sign in", None, None);
        failed.await.unwrap();
    }
    // A change of rights is never one line with another.
    for _ in 0..2 {
        note("ann", "end link").await.unwrap();
    }
    let told = |deeds: &[AuditEvent]| -> Vec<(String, String, u64)> {
        let line = |it: &AuditEvent| (it.actor.0.clone(), it.action.clone(), it.times);
        deeds.iter().map(line).collect()
    };
    let line = |actor: &str, deed: &str, times| (actor.to_owned(), deed.to_owned(), times);
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
    // Page by page.
    let page = accounts
        .audit_events(doc("plan"), Some(all[1].number), 2)
        .await;
    assert_eq!(told(&page.unwrap()), lines[2..4]);
    let of_tenant = accounts.audit_events_of("home".to_owned(), None, 100).await;
    assert!(told(&of_tenant.unwrap()).contains(&line("ann", "fail to sign in", 300)));
}

async fn a_document_has_so_many_links_and_people(kept: impl Factory) {
    let accounts = kept.accounts();
    own(accounts, "plan", "ann").await;
    let ann = || who("ann", "home");
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
    // The owner is one of three.
    let give = |name, role, most| accounts.set_role(doc("plan"), subject(name), role, ann(), most);
    for name in ["bob", "kim"] {
        let given = give(name, Some(Role::Viewer), 3).await.unwrap();
        assert_eq!(given, Ok(()));
    }
    let refused = give("lee", Some(Role::Viewer), 3).await.unwrap();
    assert_eq!(refused, Err(ShareError::QuotaReached));
    // Whoever has a role may have another or lose it, also where there are more than may be.
    for (role, most) in [(Some(Role::Editor), 3), (Some(Role::Viewer), 1), (None, 1)] {
        assert_eq!(give("bob", role, most).await.unwrap(), Ok(()), "{role:?}");
    }
    let given = give("lee", Some(Role::Viewer), 3).await.unwrap();
    assert_eq!(given, Ok(()));
}

async fn a_tenant_has_so_many_invitations(kept: impl Factory) {
    let accounts = kept.accounts();
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

async fn what_nobody_is_called_is_not_found(kept: impl Factory) {
    let accounts = kept.accounts();
    add(accounts, "ann").await;
    let odd = "ann\0";
    assert_eq!(
        accounts.account_by_login(odd.to_owned()).await.unwrap(),
        None
    );
    assert_eq!(accounts.account(subject(odd)).await.unwrap(), None);
    assert_eq!(role(accounts, &who(odd, "home"), doc("plan")).await, None);
    let ended = accounts.delete_link(doc("plan"), subject(odd), boss());
    assert_eq!(ended.await.unwrap(), Err(ShareError::LinkNotFound));
}

/// Many people ask for what only one of them can have.
async fn what_is_done_at_once_is_done_in_turn(kept: impl Factory) {
    let accounts = kept.accounts();
    let names = ["ann", "bob", "eve", "joe"];
    // This opens as many connections as are used at once below.
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
        let hand = |name| accounts.transfer_ownership(doc("plan"), subject(name), boss());
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

// ---- What only a store that many nodes share can promise ----

#[tokio::test]
async fn a_revocation_by_one_node_is_read_by_another() {
    let Some(kept) = InPostgres::new().await else {
        return;
    };
    let (here, other) = (kept.accounts(), open_shared(&kept.url, NodeId(8)).await);
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

/// Whoever reads on from the newest that it knows misses none, although several nodes write at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_revocation_is_overtaken() {
    let Some(kept) = InPostgres::new().await else {
        return;
    };
    let nodes = join_all((10..13).map(|me| open_shared(&kept.url, NodeId(me)))).await;
    let (writers, each) = (nodes.len() * 4, 25);
    let write = |writer: usize| {
        let accounts: &dyn AccessStore = &nodes[writer % nodes.len()];
        async move {
            for at in 0..each {
                let plan = doc(&format!("plan{writer}"));
                let name = subject(&format!("{writer} {at}"));
                let set = accounts.set_role(plan, name, Some(Role::Viewer), boss(), MANY);
                assert_eq!(set.await.unwrap(), Ok(()));
            }
        }
    };
    let read = async {
        let deadline = Instant::now() + Duration::from_secs(60);
        let (mut known, mut sequences) = (0, Vec::new());
        while sequences.len() < writers * each {
            assert!(Instant::now() < deadline, "{} were read", sequences.len());
            for revocation in kept.accounts().revocations(known).await.unwrap() {
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
