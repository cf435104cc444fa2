//! What a store promises about people: accounts, sessions, rights on documents, share links, and the record of all of it.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{ListPage, ListQuery, StoreError};
use crate::id::{DocId, Name};

/// What a verb about people returns.
pub type Asked<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Where people's accounts and rights are kept. Each verb is one transaction. Times are by the store's clock, so that
/// all nodes agree on what has expired.
pub trait Accounts: Debug + Send + Sync {
    /// Whether anybody has an account.
    fn any_user(&self) -> Asked<'_, bool>;

    /// Makes an account; why not, where it may not be made.
    fn add_user(&self, user: NewUser, admission: Admission) -> Asked<'_, Result<(), NotAdded>>;

    /// The account that signs in by this name.
    fn user_by_login(&self, login: String) -> Asked<'_, Option<User>>;

    /// An account.
    fn user(&self, id: Subject) -> Asked<'_, Option<User>>;

    /// Changes a password, and ends all sessions of the user but `keep`.
    fn set_password(
        &self,
        user: Subject,
        password: String,
        keep: Option<SessionKey>,
    ) -> Asked<'_, ()>;

    /// Gives a user a role on every document of the tenant, or takes it.
    fn set_tenant_role(&self, user: Subject, role: Option<Role>, by: Subject) -> Asked<'_, bool>;

    /// Closes an account or opens it again. Closed, its sessions end, its sockets close everywhere, and no session begins.
    /// `false`: there is no such account.
    fn set_disabled(&self, user: Subject, disabled: bool, by: Subject) -> Asked<'_, bool>;

    /// The accounts of a tenant whose logins come after `after`, in their order, at most `limit`.
    fn users_of(&self, tenant: String, after: String, limit: usize) -> Asked<'_, Vec<User>>;

    /// Lets whoever has the code choose a new password for an account, instead of whoever was let before.
    fn allow_reset(&self, reset: Reset, by: Subject) -> Asked<'_, ()>;

    /// Changes the password of the account that the code is for, which is good once, and ends all its sessions; none:
    /// the code is good for nothing.
    fn reset_password(&self, code: Hash, password: String) -> Asked<'_, Option<Subject>>;

    /// Whether a code lets somebody choose a new password.
    fn may_reset(&self, code: Hash) -> Asked<'_, bool>;

    /// Lets whoever has the code make an account, for as long as `by` may give what it gives. `false`: the tenant has as
    /// many invitations as it may.
    fn invite(&self, invitation: Invitation, by: Subject) -> Asked<'_, bool>;

    /// Whether a code lets somebody make an account.
    fn is_invited(&self, code: Hash) -> Asked<'_, bool>;

    /// A tenant's invitations that can be used, those that end first before the others.
    fn invitations(&self, tenant: String) -> Asked<'_, Vec<Invited>>;

    /// Ends an invitation; `false`: the tenant has no such one.
    fn end_invitation(&self, tenant: String, id: Subject, by: Subject) -> Asked<'_, bool>;

    /// Begins a session. The user keeps at most `sessions_max` sessions, this one included: those that were renewed longest
    /// ago end, as [`end_session`](Self::end_session) ends them.
    fn begin_session(
        &self,
        key: SessionKey,
        user: Subject,
        refresh: Hash,
        lasts: Duration,
        sessions_max: u64,
    ) -> Asked<'_, ()>;

    /// Exchanges a session's refresh token for the next. A genuine token that was exchanged longer than `grace` ago ends
    /// the session: two have it, and one of them is a thief.
    fn renew_session(
        &self,
        key: SessionKey,
        refresh: Hash,
        next: Hash,
        grace: Duration,
    ) -> Asked<'_, Renewal>;

    /// A session that has neither ended nor expired.
    fn session(&self, key: SessionKey) -> Asked<'_, Option<LiveSession>>;

    /// Ends a session: its sockets close everywhere.
    fn end_session(&self, key: SessionKey) -> Asked<'_, ()>;

    /// Ends all sessions of a subject, and closes its sockets everywhere. Another application's tokens are no good any more
    /// that it has issued for the subject until now.
    fn end_sessions_of(&self, subject: Subject, by: Subject) -> Asked<'_, ()>;

    /// Until when tokens for a subject must have been issued to be no good, in seconds since 1970.
    fn tokens_ended(&self, subject: Subject) -> Asked<'_, Option<u64>>;

    /// What somebody may do with each of these documents, in the same order.
    fn rights(&self, who: Who, docs: Vec<DocId>) -> Asked<'_, Vec<Right>>;

    /// Makes a document that nobody knows yet the subject's own, where its tenant has fewer than `documents_max`.
    fn own(&self, doc: DocId, subject: Subject, documents_max: Option<u64>) -> Asked<'_, Owned>;

    /// Gives a subject a role on a document or takes it, the owner's excepted. At most `people_max` subjects have one.
    fn set_role(
        &self,
        doc: DocId,
        subject: Subject,
        role: Option<Role>,
        by: Who,
        people_max: u64,
    ) -> Asked<'_, Result<(), NotShared>>;

    /// Makes another subject the owner; who was, may edit from then on.
    fn transfer(&self, doc: DocId, to: Subject, by: Who) -> Asked<'_, Result<(), NotShared>>;

    /// Who may do what with a document by a right of their own, the owner first.
    fn holders(&self, doc: DocId) -> Asked<'_, Vec<Holder>>;

    /// As [`Store::list`](super::Store::list), of the documents that `who` may read, those of opened share links included.
    /// Empty for guests, and for a collection of another tenant.
    fn list_for(&self, who: Who, query: ListQuery) -> Asked<'_, ListPage>;

    /// Makes a share link.
    fn add_link(&self, link: NewLink, by: Who) -> Asked<'_, Result<(), NotShared>>;

    /// A document's share links that have not expired.
    fn links(&self, doc: DocId) -> Asked<'_, Vec<Link>>;

    /// The share link with this secret, if it has not expired.
    fn link_by_secret(&self, secret: Hash) -> Asked<'_, Option<Link>>;

    /// Ends a document's share link.
    fn end_link(&self, doc: DocId, link: Subject, by: Who) -> Asked<'_, Result<(), NotShared>>;

    /// Whose rights changed after a sequence number, oldest first, at most [`REVOCATIONS_PAGE`].
    fn revocations(&self, since: u64) -> Asked<'_, Vec<Revocation>>;

    /// The newest revocation's number.
    fn last_revocation(&self) -> Asked<'_, u64>;

    /// What was done about a document's rights before the deed of this number, newest first, at most `limit`.
    fn audit(&self, doc: DocId, before: Option<u64>, limit: usize) -> Asked<'_, Vec<Deed>>;

    /// What was done in a tenant before the deed of this number, newest first, at most `limit`.
    fn audit_of(&self, tenant: String, before: Option<u64>, limit: usize) -> Asked<'_, Vec<Deed>>;

    /// Keeps in the audit log what else somebody did. What the same actor does again within an hour, of
    /// `REPEATED_DEEDS`, counts on the same line.
    fn note(
        &self,
        actor: Subject,
        deed: &'static str,
        doc: Option<DocId>,
        subject: Option<Subject>,
    ) -> Asked<'_, ()>;

    /// Counts bytes towards what a tenant has taken, and says how many that are.
    fn take_bytes(&self, tenant: String, bytes: u64) -> Asked<'_, u64>;
}

/// The most revocations that are read at once.
pub const REVOCATIONS_PAGE: usize = 1_000;

/// What many requests may do again and again, so that the audit log has one line for it in `REPEATED_WITHIN`: else they
/// would hide everything else. None of these changes a right.
pub(super) const REPEATED_DEEDS: [&str; 3] = ["open link", "fail to sign in", "sign in"];

/// For how long such a deed counts on the same line.
pub(super) const REPEATED_WITHIN: Duration = Duration::from_hours(1);

/// Whoever may hold a right: a user, or a share link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(pub String);

/// Names a session. Known, it opens nothing: that takes a token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(pub String);

/// SHA-256 of a secret that only its bearer has.
pub type Hash = [u8; 32];

/// What somebody may do with a document; each may do what those before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// May read it.
    Viewer = 1,
    /// May comment on it.
    Commenter = 2,
    /// May change it.
    Editor = 3,
    /// May share it and delete it.
    Owner = 4,
}

impl Role {
    /// All, the least first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Commenter, Self::Editor, Self::Owner];

    /// The role as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Commenter => "commenter",
            Self::Editor => "editor",
            Self::Owner => "owner",
        }
    }

    /// Reads what [`as_str`](Self::as_str) writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// Reads what a store keeps; none where it keeps none.
    pub(super) fn of_number(number: i64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|role| i64::from(*role as u8) == number)
    }
}

/// The tenant of those who were not given another: its collections have plain names.
pub const HOME: &str = "home";

/// Whose a collection is: `acme:notes` is acme's, `notes` is [`HOME`]'s. There is no other way to name it, so nobody
/// reaches another tenant's by naming it.
#[must_use]
pub fn tenant_of(collection: &Name) -> &str {
    match collection.as_str().split_once(':') {
        Some((tenant, _)) => tenant,
        None => HOME,
    }
}

/// An account to be made.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Drawn at random.
    pub id: Subject,
    /// The tenant, unless an invitation names another.
    pub tenant: String,
    /// What it signs in by, in lower case.
    pub login: String,
    /// What others see.
    pub name: String,
    /// Argon2id, in the PHC form.
    pub password: String,
}

/// By what right an account is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// There is none yet: it will own everything.
    First,
    /// Accounts may be made without an invitation, while there are fewer than this many, closed ones included.
    Open {
        /// How many accounts there may be.
        accounts_max: u64,
    },
    /// By an invitation.
    Invited(Hash),
}

/// Why an account was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAdded {
    /// It would not be the first.
    NotFirst,
    /// Somebody signs in by this name already.
    Taken,
    /// There is no such invitation.
    NotInvited,
    /// There are as many accounts as may be made without an invitation.
    Full,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name to us.
    pub id: Subject,
    /// Its tenant.
    pub tenant: String,
    /// What it signs in by.
    pub login: String,
    /// What others see.
    pub name: String,
    /// Argon2id, in the PHC form.
    pub password: String,
    /// The role on every document of the tenant.
    pub role: Option<Role>,
    /// Whether it is closed: it may not sign in.
    pub disabled: bool,
}

/// A right to choose a new password.
#[derive(Debug, Clone)]
pub struct Reset {
    /// Of the code.
    pub code: Hash,
    /// Whose password.
    pub user: Subject,
    /// How long it can be used.
    pub lasts: Duration,
}

/// An invitation that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invited {
    /// Its name; opens nothing.
    pub id: Subject,
    /// What the account will be on every document of the tenant.
    pub role: Option<Role>,
    /// Who made it.
    pub maker: Subject,
    /// When it expires, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

/// A right to make an account.
#[derive(Debug, Clone)]
pub struct Invitation {
    /// Of the code.
    pub code: Hash,
    /// Its name, drawn at random.
    pub id: Subject,
    /// Where the account will belong.
    pub tenant: String,
    /// What it will be on every document of the tenant.
    pub role: Option<Role>,
    /// How long it can be used.
    pub lasts: Duration,
    /// How many invitations that can be used the tenant may have.
    pub invitations_max: u64,
}

/// What came of a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// It was exchanged for the next.
    Renewed,
    /// Another tab exchanged it a moment ago: the session goes on, the next token is with that tab.
    JustRenewed,
    /// It was exchanged before: the session has ended.
    Reused,
    /// There is no such session any more.
    Ended,
}

/// A session that has neither ended nor expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveSession {
    /// Whose it is.
    pub user: User,
    /// How long ago it was begun or renewed.
    pub age: Duration,
}

/// Somebody, as far as rights on documents go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The user, if it is one.
    pub user: Option<Subject>,
    /// The tenant it belongs to.
    pub tenant: Option<String>,
    /// The role on every document of the tenant that others vouch for, besides what the store keeps.
    pub role: Option<Role>,
    /// The share links that it has opened.
    pub links: Vec<Subject>,
}

/// What somebody may do with a document.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Right {
    /// Nothing, or this.
    pub role: Option<Role>,
    /// How long, where a share link gives it and expires.
    pub lasts: Option<Duration>,
}

/// What came of the wish to own a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owned {
    /// It is theirs.
    Now,
    /// Somebody knows it.
    Known,
    /// The tenant has as many as it may.
    Full,
}

/// Why nothing was changed about who may do what with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotShared {
    /// Who wanted it does not own the document.
    NotOwner,
    /// The owner stays the owner until another is.
    OwnerStays,
    /// The document has no such link.
    NoLink,
    /// The document has as many links, or is shared with as many people, as it may.
    Full,
}

/// Somebody who may do something with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Who.
    pub subject: Subject,
    /// What it signs in by, and what others see, if it has an account here.
    pub known: Option<(String, String)>,
    /// What it may do.
    pub role: Role,
}

/// A share link to be made.
#[derive(Debug, Clone)]
pub struct NewLink {
    /// Its name, drawn at random.
    pub id: Subject,
    /// The document that it opens.
    pub doc: DocId,
    /// What whoever opens it may do; never own.
    pub role: Role,
    /// Of what the address says.
    pub secret: Hash,
    /// Argon2id, in the PHC form.
    pub password: Option<String>,
    /// How long it opens anything.
    pub lasts: Option<Duration>,
    /// How many links that have not expired the document may have.
    pub links_max: u64,
}

/// A share link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub id: Subject,
    /// The document that it opens.
    pub doc: DocId,
    /// What whoever opens it may do.
    pub role: Role,
    /// Argon2id, in the PHC form.
    pub password: Option<String>,
    /// When it expires, in milliseconds since 1970.
    pub expires_at_ms: Option<u64>,
}

/// That somebody's rights changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Its place among all.
    pub sequence: u64,
    /// Whose.
    pub subject: Subject,
    /// Only this session of the subject.
    pub session: Option<SessionKey>,
    /// Whether its sockets close; otherwise rights are looked up anew.
    pub ends: bool,
    /// The only document on which its rights changed; `None` if they may have changed on every document.
    pub doc: Option<DocId>,
}

impl Revocation {
    /// The document that a stored row names. A row without one, or with one that is no document's name, is about every
    /// document, so nothing that was taken away is overlooked.
    pub(super) fn document(collection: Option<&str>, id: Option<&str>) -> Option<DocId> {
        DocId::parse(collection?, id?).ok()
    }
}

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// Its place among all.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who did it.
    pub actor: Subject,
    /// What: a word.
    pub deed: String,
    /// With which document.
    pub doc: Option<(String, String)>,
    /// To whom.
    pub subject: Option<Subject>,
    /// How.
    pub detail: Option<String>,
    /// How often, and when last, where it was repeated: see `REPEATED_DEEDS`.
    pub times: u64,
    /// In milliseconds since 1970.
    pub last_at_ms: Option<u64>,
}

/// The tenant that another application's user belongs to, by its name.
pub(super) fn tenant_of_subject(subject: &Subject) -> Option<&str> {
    subject.0.split_once(':').map(|(tenant, _)| tenant)
}
