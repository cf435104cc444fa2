//! The rules of the operations, over the store in memory.

use std::time::Duration;

use futures_util::FutureExt;

use super::accounts::{
    CreateAccount, CreateInvitation, CreateReset, DeleteInvitation, ResetPassword, SetDisabled,
    SetPassword, SetTenantRole,
};
use super::audit::Audit;
use super::sessions::{BeginSession, EndSession, EndSessionsOf, RenewSession};
use super::sharing::{CreateLink, DeleteLink, SetRole, TransferOwnership};
use super::*;
use crate::access::{
    AccountDraft, Admission, AuditAction, CreateAccountError, NewInvitation, NewShareLink,
    PasswordReset, Principal, Renewal, Role, SecretHash, SessionKey, ShareError, Subject,
};
use crate::id::DocId;
use crate::store::MemoryStore;

const HOUR: Duration = Duration::from_hours(1);
const MANY: u64 = 100;
const NOON_MS: u64 = 1_800_000_000_000;

fn subject(name: &str) -> Subject {
    Subject(name.to_owned())
}

fn key(name: &str) -> SessionKey {
    SessionKey(name.to_owned())
}

fn hash(seed: u8) -> SecretHash {
    [seed; 32]
}

fn plan() -> DocId {
    DocId::parse("notes", "plan").expect("a valid id")
}

fn principal(name: &str) -> Principal {
    Principal {
        user: Some(subject(name)),
        tenant: Some("home".to_owned()),
        role: None,
        links: Vec::new(),
    }
}

/// The result of a call to the store in memory, which never waits.
fn now<T>(future: AccessFuture<'_, T>) -> T {
    let result = future.now_or_never().expect("ready at once");
    result.expect("memory does not fail")
}

fn create_account(name: &str, admission: Admission) -> CreateAccount {
    let account = AccountDraft {
        id: subject(name),
        tenant: "home".to_owned(),
        login: name.to_owned(),
        name: name.to_owned(),
        password: "hash".to_owned(),
    };
    CreateAccount { account, admission }
}

fn create_invitation(seed: u8) -> CreateInvitation {
    let invitation = NewInvitation {
        code: hash(seed),
        id: subject(&format!("invitation {seed}")),
        tenant: "home".to_owned(),
        role: None,
        lasts: HOUR,
        invitations_max: MANY,
    };
    let by = subject("ann");
    CreateInvitation { invitation, by }
}

fn create_reset(seed: u8) -> CreateReset {
    let reset = PasswordReset {
        code: hash(seed),
        user: subject("bob"),
        lasts: HOUR,
    };
    let by = subject("ann");
    CreateReset { reset, by }
}

fn begin_session(name: &str) -> BeginSession {
    BeginSession {
        key: key(name),
        user: subject("bob"),
        refresh: hash(1),
        lasts: HOUR,
        sessions_max: MANY,
    }
}

fn renew_session(token: u8) -> RenewSession {
    RenewSession {
        key: key("s"),
        refresh: hash(token),
        next: hash(token + 1),
        grace: Duration::from_secs(10),
    }
}

fn set_role(name: &str, role: Option<Role>) -> SetRole {
    SetRole {
        doc: plan(),
        subject: subject(name),
        role,
        by: principal("ann"),
        people_max: MANY,
    }
}

fn create_link(role: Role) -> CreateLink {
    let link = NewShareLink {
        id: subject("link"),
        doc: plan(),
        role,
        secret: hash(9),
        password: None,
        lasts: None,
        links_max: MANY,
    };
    let by = principal("ann");
    CreateLink { link, by }
}

/// A store with two users: ann, the owner of the tenant and of a document, and bob.
fn store() -> MemoryStore {
    let store = MemoryStore::new();
    store.set_clock_ms(NOON_MS);
    let (first, open) = (Admission::First, Admission::Open { accounts_max: MANY });
    for (name, admission) in [("ann", first), ("bob", open)] {
        let created = store.run_counted(&create_account(name, admission)).0;
        assert_eq!(created, Ok(()));
    }
    let registered = AccessStore::register_document(&store, plan(), subject("ann"), None);
    now(registered);
    store
}

#[test]
fn ended_tokens_stay_ended_when_the_clock_steps_back() {
    let store = store();
    let end = || {
        let (subject, by) = (subject("acme:7"), subject("acme:1"));
        store.run_counted(&EndSessionsOf { subject, by });
        now(store.tokens_ended(Subject("acme:7".to_owned())))
    };
    assert_eq!(end(), Some(NOON_MS / 1_000));
    store.set_clock_ms(NOON_MS - 60_000);
    assert_eq!(end(), Some(NOON_MS / 1_000));
    store.set_clock_ms(NOON_MS + 60_000);
    assert_eq!(end(), Some(NOON_MS / 1_000 + 60));
}

#[test]
fn a_refused_operation_changes_nothing() {
    let store = store();
    store.run_counted(&create_invitation(1));
    store.run_counted(&create_reset(2));
    let invited = |name| create_account(name, Admission::Invited(hash(1)));
    assert_eq!(
        store.run_counted(&invited("bob")).0,
        Err(CreateAccountError::LoginTaken)
    );
    let issuer = |disabled| SetDisabled {
        user: subject("ann"),
        disabled,
        by: subject("ann"),
    };
    let reset = || ResetPassword {
        code: hash(2),
        password: "new".to_owned(),
    };
    store.run_counted(&issuer(true));
    assert_eq!(
        store.run_counted(&invited("eve")).0,
        Err(CreateAccountError::NotInvited)
    );
    assert_eq!(store.run_counted(&reset()).0, None);
    // The codes were not used up.
    store.run_counted(&issuer(false));
    assert_eq!(store.run_counted(&invited("eve")).0, Ok(()));
    assert_eq!(store.run_counted(&reset()).0, Some(subject("bob")));
}

#[test]
fn ownership_is_given_by_a_transfer_only() {
    let store = store();
    let owner = store.run_counted(&set_role("bob", Some(Role::Owner))).0;
    assert_eq!(owner, Err(ShareError::OwnerMustTransfer));
    for role in [Some(Role::Viewer), None] {
        let demoted = store.run_counted(&set_role("ann", role)).0;
        assert_eq!(demoted, Err(ShareError::OwnerMustTransfer));
    }
    let grants = now(store.grants(plan()));
    let owners: Vec<_> = grants.iter().map(|it| (&it.subject, it.role)).collect();
    assert_eq!(owners, [(&subject("ann"), Role::Owner)]);
}

#[test]
fn the_audit_log_names_the_role_that_a_link_gives() {
    let store = store();
    let created = store.run_counted(&create_link(Role::Owner)).0;
    assert_eq!(created, Ok(()));
    let events = now(store.audit_events(plan(), None, 1));
    assert_eq!(events[0].action, AuditAction::CreateLink.as_str());
    assert_eq!(events[0].detail.as_deref(), Some("editor"));
    assert_eq!(now(store.links(plan()))[0].role, Role::Editor);
}

/// In Postgres a primitive is a round trip, and each transaction has two more, for its beginning and its end.
#[test]
fn operations_use_few_primitives() {
    let store = store();
    let transfer = |to: &str, by: &str| TransferOwnership {
        doc: plan(),
        to: subject(to),
        by: principal(by),
    };
    macro_rules! count {
        ($operation:expr) => {
            store.run_counted(&$operation).1
        };
    }
    let admission = Admission::Open { accounts_max: MANY };
    let counts = [
        ("create account: first", 2, {
            count!(create_account("eve", Admission::First))
        }),
        ("create account: open", 3, {
            count!(create_account("eve", admission))
        }),
        ("create invitation", 5, count!(create_invitation(1))),
        ("create account: invited", 3, {
            count!(create_account("kim", Admission::Invited(hash(1))))
        }),
        ("delete invitation", 1, {
            let (id, by) = (subject("none"), subject("ann"));
            let tenant = "home".to_owned();
            count!(DeleteInvitation { tenant, id, by })
        }),
        ("set tenant role", 2, {
            let (user, by) = (subject("bob"), subject("ann"));
            let role = Some(Role::Viewer);
            count!(SetTenantRole { user, role, by })
        }),
        ("create reset", 2, count!(create_reset(2))),
        ("reset password", 4, {
            let (code, password) = (hash(2), "new".to_owned());
            count!(ResetPassword { code, password })
        }),
        ("begin session", 5, count!(begin_session("s"))),
        ("begin another session", 4, count!(begin_session("t"))),
        ("renew session", 2, count!(renew_session(1))),
        ("renew session again", 1, count!(renew_session(1))),
        ("renew session: stolen", 2, count!(renew_session(7))),
        ("end session", 2, count!(EndSession { key: key("t") })),
        ("set password", 3, {
            let (user, password, keep) = (subject("bob"), "new".to_owned(), None);
            count!(SetPassword {
                user,
                password,
                keep
            })
        }),
        ("end sessions", 3, {
            let (subject, by) = (subject("bob"), subject("ann"));
            count!(EndSessionsOf { subject, by })
        }),
        ("set role", 6, count!(set_role("bob", Some(Role::Viewer)))),
        ("take role", 5, count!(set_role("bob", None))),
        ("create link", 7, count!(create_link(Role::Viewer))),
        ("delete link", 5, {
            let (doc, link, by) = (plan(), subject("link"), principal("ann"));
            count!(DeleteLink { doc, link, by })
        }),
        ("transfer", 6, count!(transfer("bob", "ann"))),
        ("transfer: refused", 0, {
            let guest = Principal {
                user: None,
                ..principal("ann")
            };
            count!(TransferOwnership {
                by: guest,
                ..transfer("ann", "bob")
            })
        }),
        ("disable account", 3, {
            let (user, disabled, by) = (subject("bob"), true, subject("ann"));
            count!(SetDisabled { user, disabled, by })
        }),
        ("audit", 2, {
            let (actor, action) = (subject("link"), AuditAction::OpenLink);
            let (doc, subject) = (Some(plan()), None);
            count!(Audit {
                actor,
                action,
                doc,
                subject
            })
        }),
    ];
    for (operation, most, counted) in counts {
        assert_eq!(counted, most, "{operation}");
    }
}

#[test]
fn a_refresh_token_is_accepted_for_the_grace_period_after_its_exchange() {
    let store = store();
    store.run_counted(&begin_session("s"));
    let renew = |after_ms: u64| {
        store.set_clock_ms(NOON_MS + after_ms);
        store.run_counted(&renew_session(1)).0
    };
    let expected = [
        (0, Renewal::Renewed),
        (9_999, Renewal::JustRenewed),
        (10_000, Renewal::Reused),
        (10_001, Renewal::Ended),
    ];
    for (after_ms, renewal) in expected {
        assert_eq!(renew(after_ms), renewal, "after {after_ms} ms");
    }
}
