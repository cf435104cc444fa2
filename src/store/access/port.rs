//! The port that a store implements: row-level primitives within one transaction.

use super::AccessFuture;
use crate::access::{
    AccountDraft, DocumentRegistration, GrantCount, NewAuditEvent, NewInvitation, NewRevocation,
    NewShareLink, PasswordReset, Principal, RefreshTokens, Role, SecretHash, SessionKey,
    StoredInvitation, StoredReset, StoredRoles, StoredSession, Subject,
};
use crate::id::DocId;

/// A change of the access rows: the rules, written once over the primitives of [`AccessTransaction`].
pub(in crate::store) trait Operation: Send + Sync + 'static {
    /// What the caller gets.
    type Output: Send + 'static;

    /// Runs the operation within a transaction. It may be run again if the transaction fails.
    fn run<T: AccessTransaction>(
        &self,
        tx: &mut T,
    ) -> impl Future<Output = Result<Self::Output, T::Error>> + Send;

    /// Returns false if the transaction is rolled back: the operation was refused, possibly after its first writes.
    fn commits(_: &Self::Output) -> bool {
        true
    }
}

/// What a store implements, besides [`AccessQueries`](super::AccessQueries), to be an [`AccessStore`](super::AccessStore).
pub(in crate::store) trait AccessBackend {
    /// Runs an operation in one transaction.
    fn run<O: Operation>(&self, operation: O) -> AccessFuture<'_, O::Output>;

    /// Registers a document to its first owner by the rule of [`DocumentRegistration::decide`], with an audit event. Apart from
    /// the operations because Postgres does it in one statement, without a transaction of its own.
    fn register_document(
        &self,
        doc: DocId,
        owner: Subject,
        documents_max: Option<u64>,
    ) -> AccessFuture<'_, DocumentRegistration>;

    /// The password reset with this code, if its maker's account exists.
    fn stored_reset(&self, code: SecretHash) -> AccessFuture<'_, Option<AsOf<StoredReset>>>;

    /// The invitation with this code, if its maker's account exists.
    fn stored_invitation(
        &self,
        code: SecretHash,
    ) -> AccessFuture<'_, Option<AsOf<StoredInvitation>>>;

    /// The session with this key, expired ones included.
    fn stored_session(&self, key: SessionKey) -> AccessFuture<'_, Option<AsOf<StoredSession>>>;

    /// The stored roles of the principal on each of the documents, in their order, as of one moment. Those of a user are asked
    /// for only in its own tenant.
    fn stored_roles(
        &self,
        principal: Principal,
        docs: Vec<DocId>,
    ) -> AccessFuture<'_, Vec<StoredRoles>>;

    /// Adds bytes to a tenant's usage and returns the sum. Not an operation for the same reason as the registration.
    fn add_usage(&self, tenant: String, bytes: u64) -> AccessFuture<'_, u64>;
}

/// A row, and the time at which it was read by the store's clock.
#[derive(Debug, Clone)]
pub(in crate::store) struct AsOf<T> {
    pub(in crate::store) row: T,
    /// In milliseconds since 1970.
    pub(in crate::store) now_ms: u64,
}

/// The primitives of one transaction. In Postgres each is one statement, and one round trip. In SQLite and in memory they are
/// complete when they return, so that their futures never wait.
///
/// The methods do not decide: they read, write, and report what they found. A guard that a primitive has ("unless the subject
/// is the owner") holds against rows that were committed since the operation read them.
pub(in crate::store) trait AccessTransaction: Send {
    /// Why a primitive failed. Nothing of the transaction takes effect then.
    type Error: Send;

    /// The time at which the transaction began by the store's clock, in milliseconds since 1970.
    fn now_ms(&self) -> u64;

    /// Adds a revocation. It is stored at the end of the transaction, because storing revocations orders all transactions
    /// that do.
    fn revoke(&mut self, revocation: NewRevocation);

    /// Takes a lock that is held until the transaction ends. Stores that run one transaction at a time need none.
    fn lock(
        &mut self,
        lock: AccessLock<'_>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Counts rows.
    fn count(
        &mut self,
        counted: Counted<'_>,
    ) -> impl Future<Output = Result<u64, Self::Error>> + Send;

    /// Deletes rows that have expired.
    fn delete_expired(
        &mut self,
        expired: Expired<'_>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Inserts an account. Returns false, without an effect, if its login is taken.
    fn insert_account(
        &mut self,
        account: &AccountDraft,
        tenant: &str,
        role: Option<Role>,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Updates an account. Returns false if there is none.
    fn update_account(
        &mut self,
        user: &Subject,
        change: AccountChange<'_>,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Inserts an invitation; without an effect if there is one with this code.
    fn insert_invitation(
        &mut self,
        invitation: &NewInvitation,
        maker: &Subject,
        expires_at_ms: u64,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Deletes the invitation with this code and returns it. `None`, without an effect, if there is none or its maker's
    /// account is gone.
    fn take_invitation(
        &mut self,
        code: SecretHash,
    ) -> impl Future<Output = Result<Option<StoredInvitation>, Self::Error>> + Send;

    /// Deletes an invitation of a tenant. Returns false if there is none.
    fn delete_invitation(
        &mut self,
        tenant: &str,
        id: &Subject,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Inserts a password reset, or replaces the user's.
    fn put_reset(
        &mut self,
        reset: &PasswordReset,
        maker: &Subject,
        expires_at_ms: u64,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Deletes the password reset with this code and returns it. `None`, without an effect, if there is none or its maker's
    /// account is gone.
    fn take_reset(
        &mut self,
        code: SecretHash,
    ) -> impl Future<Output = Result<Option<StoredReset>, Self::Error>> + Send;

    /// Inserts a session that begins now.
    fn insert_session(
        &mut self,
        session: NewSessionRow<'_>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// The refresh tokens of a session. Transactions that ask for the same session wait for each other.
    fn refresh_tokens(
        &mut self,
        key: &SessionKey,
    ) -> impl Future<Output = Result<Option<RefreshTokens>, Self::Error>> + Send;

    /// Stores new refresh tokens, as of now.
    fn set_refresh_tokens(
        &mut self,
        key: &SessionKey,
        newest: SecretHash,
        previous: SecretHash,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Deletes a session and returns its user.
    fn delete_session(
        &mut self,
        key: &SessionKey,
    ) -> impl Future<Output = Result<Option<Subject>, Self::Error>> + Send;

    /// Deletes sessions of a user and returns their keys.
    fn delete_sessions(
        &mut self,
        user: &Subject,
        filter: SessionFilter<'_>,
    ) -> impl Future<Output = Result<Vec<SessionKey>, Self::Error>> + Send;

    /// Invalidates the subject's tokens that were issued up to a time, in seconds since 1970. A later time that is stored
    /// already stays.
    fn end_tokens(
        &mut self,
        subject: &Subject,
        issued_until_s: u64,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// A user's role on every document of a tenant. It does not change until the transaction ends.
    fn tenant_role(
        &mut self,
        user: &Subject,
        tenant: &str,
    ) -> impl Future<Output = Result<Option<Role>, Self::Error>> + Send;

    /// A subject's own role on a document.
    fn grant(
        &mut self,
        doc: &DocId,
        subject: &Subject,
    ) -> impl Future<Output = Result<Option<Role>, Self::Error>> + Send;

    /// Counts the grants on a document.
    fn grant_count(
        &mut self,
        doc: &DocId,
        subject: &Subject,
    ) -> impl Future<Output = Result<GrantCount, Self::Error>> + Send;

    /// Inserts or changes a grant. Returns false, without an effect, if the subject is the owner.
    fn put_grant(
        &mut self,
        doc: &DocId,
        subject: &Subject,
        role: Role,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Deletes a grant, if there is one. Returns false, without an effect, if the subject is the owner.
    fn delete_grant(
        &mut self,
        doc: &DocId,
        subject: &Subject,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Makes the owner of a document an editor, and returns it.
    fn demote_owners(
        &mut self,
        doc: &DocId,
    ) -> impl Future<Output = Result<Vec<Subject>, Self::Error>> + Send;

    /// Inserts a share link that is created now.
    fn insert_link(
        &mut self,
        link: NewLinkRow<'_>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Deletes a share link of a document. Returns false if there is none.
    fn delete_link(
        &mut self,
        doc: &DocId,
        link: &Subject,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Inserts an audit event. Its tenant is the document's, else that of the actor's account, else that of the subject's
    /// account, else the one in the actor's id.
    fn insert_audit_event(
        &mut self,
        event: NewAuditEvent<'_>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Counts an event on the newest line after `since_ms` that is equal to it. Returns false if there is none.
    fn count_audit_event(
        &mut self,
        event: NewAuditEvent<'_>,
        since_ms: u64,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send;
}

/// What a transaction locks.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) enum AccessLock<'a> {
    /// The creation of accounts.
    Accounts,
    /// The number of a tenant's invitations.
    InvitationsOf(&'a str),
    /// The grants and share links of a document.
    SharingOf(&'a DocId),
}

/// Rows to count.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) enum Counted<'a> {
    /// Accounts, at most so many: for a stranger's request the effort must not grow with the table.
    Accounts { at_most: u64 },
    /// A tenant's invitations that have not expired.
    InvitationsOf(&'a str),
    /// A document's share links that have not expired.
    LinksOf(&'a DocId),
}

/// Rows to delete when they have expired.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) enum Expired<'a> {
    Sessions,
    Invitations,
    LinksOf(&'a DocId),
}

/// A column of an account to change.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) enum AccountChange<'a> {
    /// The Argon2id hash, in the PHC form.
    Password(&'a str),
    TenantRole(Option<Role>),
    Disabled(bool),
}

/// Sessions of a user to delete.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) enum SessionFilter<'a> {
    /// All, or all except one.
    AllExcept(Option<&'a SessionKey>),
    /// All except `newest` and the `others_max` others that were renewed last.
    Oldest {
        newest: &'a SessionKey,
        others_max: u64,
    },
}

/// A session to insert.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct NewSessionRow<'a> {
    pub(in crate::store) key: &'a SessionKey,
    pub(in crate::store) user: &'a Subject,
    pub(in crate::store) refresh: SecretHash,
    pub(in crate::store) expires_at_ms: u64,
}

/// A share link to insert.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct NewLinkRow<'a> {
    pub(in crate::store) link: &'a NewShareLink,
    pub(in crate::store) role: Role,
    pub(in crate::store) expires_at_ms: Option<u64>,
}
