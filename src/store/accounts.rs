//! What a store promises about people: accounts, sessions, rights on documents, share links, and the record of all of it.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{ListPage, ListQuery, StoreError};
use crate::access::{
    Account, AccountDraft, Admission, AuditEvent, CreateAccountError, DocumentRegistration, Grant,
    LiveSession, NewInvitation, NewShareLink, PasswordReset, PendingInvitation, Permission,
    Principal, Renewal, Revocation, Role, SecretHash, SessionKey, ShareError, ShareLink, Subject,
};
use crate::id::DocId;

/// What a verb about people returns.
pub type AccessFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Where people's accounts and rights are kept. Each verb is one transaction. Times are by the store's clock, so that
/// all nodes agree on what has expired.
pub trait AccessStore: Debug + Send + Sync {
    /// Whether anybody has an account.
    fn has_accounts(&self) -> AccessFuture<'_, bool>;

    /// Makes an account; why not, where it may not be made.
    fn create_account(
        &self,
        user: AccountDraft,
        admission: Admission,
    ) -> AccessFuture<'_, Result<(), CreateAccountError>>;

    /// The account that signs in by this name.
    fn account_by_login(&self, login: String) -> AccessFuture<'_, Option<Account>>;

    /// An account.
    fn account(&self, id: Subject) -> AccessFuture<'_, Option<Account>>;

    /// Changes a password, and ends all sessions of the user but `keep`.
    fn set_password(
        &self,
        user: Subject,
        password: String,
        keep: Option<SessionKey>,
    ) -> AccessFuture<'_, ()>;

    /// Gives a user a role on every document of the tenant, or takes it.
    fn set_tenant_role(
        &self,
        user: Subject,
        role: Option<Role>,
        by: Subject,
    ) -> AccessFuture<'_, bool>;

    /// Closes an account or opens it again. Closed, its sessions end, its sockets close everywhere, and no session begins.
    /// `false`: there is no such account.
    fn set_disabled(&self, user: Subject, disabled: bool, by: Subject) -> AccessFuture<'_, bool>;

    /// The accounts of a tenant whose logins come after `after`, in their order, at most `limit`.
    fn accounts_of(
        &self,
        tenant: String,
        after: String,
        limit: usize,
    ) -> AccessFuture<'_, Vec<Account>>;

    /// Lets whoever has the code choose a new password for an account, instead of whoever was let before.
    fn create_reset(&self, reset: PasswordReset, by: Subject) -> AccessFuture<'_, ()>;

    /// Changes the password of the account that the code is for, which is good once, and ends all its sessions; none:
    /// the code is good for nothing.
    fn reset_password(
        &self,
        code: SecretHash,
        password: String,
    ) -> AccessFuture<'_, Option<Subject>>;

    /// Whether a code lets somebody choose a new password.
    fn is_reset_valid(&self, code: SecretHash) -> AccessFuture<'_, bool>;

    /// Lets whoever has the code make an account, for as long as `by` may give what it gives. `false`: the tenant has as
    /// many invitations as it may.
    fn create_invitation(&self, invitation: NewInvitation, by: Subject) -> AccessFuture<'_, bool>;

    /// Whether a code lets somebody make an account.
    fn is_invitation_valid(&self, code: SecretHash) -> AccessFuture<'_, bool>;

    /// A tenant's invitations that can be used, those that end first before the others.
    fn invitations(&self, tenant: String) -> AccessFuture<'_, Vec<PendingInvitation>>;

    /// Ends an invitation; `false`: the tenant has no such one.
    fn delete_invitation(&self, tenant: String, id: Subject, by: Subject)
    -> AccessFuture<'_, bool>;

    /// Begins a session. The user keeps at most `sessions_max` sessions, this one included: those that were renewed longest
    /// ago end, as [`end_session`](Self::end_session) ends them.
    fn begin_session(
        &self,
        key: SessionKey,
        user: Subject,
        refresh: SecretHash,
        lasts: Duration,
        sessions_max: u64,
    ) -> AccessFuture<'_, ()>;

    /// Exchanges a session's refresh token for the next. A genuine token that was exchanged longer than `grace` ago ends
    /// the session: two have it, and one of them is a thief.
    fn renew_session(
        &self,
        key: SessionKey,
        refresh: SecretHash,
        next: SecretHash,
        grace: Duration,
    ) -> AccessFuture<'_, Renewal>;

    /// A session that has neither ended nor expired.
    fn session(&self, key: SessionKey) -> AccessFuture<'_, Option<LiveSession>>;

    /// Ends a session: its sockets close everywhere.
    fn end_session(&self, key: SessionKey) -> AccessFuture<'_, ()>;

    /// Ends all sessions of a subject, and closes its sockets everywhere. Another application's tokens are no good any more
    /// that it has issued for the subject until now.
    fn end_sessions_of(&self, subject: Subject, by: Subject) -> AccessFuture<'_, ()>;

    /// Until when tokens for a subject must have been issued to be no good, in seconds since 1970.
    fn tokens_ended(&self, subject: Subject) -> AccessFuture<'_, Option<u64>>;

    /// What somebody may do with each of these documents, in the same order.
    fn permissions(&self, who: Principal, docs: Vec<DocId>) -> AccessFuture<'_, Vec<Permission>>;

    /// Makes a document that nobody knows yet the subject's own, where its tenant has fewer than `documents_max`.
    fn register_document(
        &self,
        doc: DocId,
        subject: Subject,
        documents_max: Option<u64>,
    ) -> AccessFuture<'_, DocumentRegistration>;

    /// Gives a subject a role on a document or takes it, the owner's excepted. At most `people_max` subjects have one.
    fn set_role(
        &self,
        doc: DocId,
        subject: Subject,
        role: Option<Role>,
        by: Principal,
        people_max: u64,
    ) -> AccessFuture<'_, Result<(), ShareError>>;

    /// Makes another subject the owner; who was, may edit from then on.
    fn transfer_ownership(
        &self,
        doc: DocId,
        to: Subject,
        by: Principal,
    ) -> AccessFuture<'_, Result<(), ShareError>>;

    /// Who may do what with a document by a right of their own, the owner first.
    fn grants(&self, doc: DocId) -> AccessFuture<'_, Vec<Grant>>;

    /// As [`Store::list`](super::Store::list), of the documents that `who` may read, those of opened share links included.
    /// Empty for guests, and for a collection of another tenant.
    fn list_for(&self, who: Principal, query: ListQuery) -> AccessFuture<'_, ListPage>;

    /// Makes a share link.
    fn create_link(
        &self,
        link: NewShareLink,
        by: Principal,
    ) -> AccessFuture<'_, Result<(), ShareError>>;

    /// A document's share links that have not expired.
    fn links(&self, doc: DocId) -> AccessFuture<'_, Vec<ShareLink>>;

    /// The share link with this secret, if it has not expired.
    fn link_by_secret(&self, secret: SecretHash) -> AccessFuture<'_, Option<ShareLink>>;

    /// Ends a document's share link.
    fn delete_link(
        &self,
        doc: DocId,
        link: Subject,
        by: Principal,
    ) -> AccessFuture<'_, Result<(), ShareError>>;

    /// Whose rights changed after a sequence number, oldest first, at most [`REVOCATIONS_PAGE`].
    fn revocations(&self, since: u64) -> AccessFuture<'_, Vec<Revocation>>;

    /// The newest revocation's number.
    fn last_revocation(&self) -> AccessFuture<'_, u64>;

    /// What was done about a document's rights before the deed of this number, newest first, at most `limit`.
    fn audit_events(
        &self,
        doc: DocId,
        before: Option<u64>,
        limit: usize,
    ) -> AccessFuture<'_, Vec<AuditEvent>>;

    /// What was done in a tenant before the deed of this number, newest first, at most `limit`.
    fn audit_events_of(
        &self,
        tenant: String,
        before: Option<u64>,
        limit: usize,
    ) -> AccessFuture<'_, Vec<AuditEvent>>;

    /// Keeps in the audit log what else somebody did. What the same actor does again within an hour, of
    /// `REPEATED_ACTIONS`, counts on the same line.
    fn audit(
        &self,
        actor: Subject,
        deed: &'static str,
        doc: Option<DocId>,
        subject: Option<Subject>,
    ) -> AccessFuture<'_, ()>;

    /// Counts bytes towards what a tenant has taken, and says how many that are.
    fn add_usage(&self, tenant: String, bytes: u64) -> AccessFuture<'_, u64>;
}

/// The most revocations that [`AccessStore::revocations`] returns at once.
pub const REVOCATIONS_PAGE: usize = 1_000;
