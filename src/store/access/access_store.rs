//! [`AccessStore`]: what other modules ask of a store about access.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::accounts::{
    CreateAccount, CreateInvitation, CreateReset, DeleteInvitation, ResetPassword, SetDisabled,
    SetPassword, SetTenantRole,
};
use super::audit::Audit;
use super::sessions::{BeginSession, EndSession, EndSessionsOf, RenewSession};
use super::sharing::{CreateLink, DeleteLink, SetRole, TransferOwnership};
use super::{AccessBackend, AsOf};
use crate::access::{
    Account, AccountDraft, Admission, AuditAction, AuditEvent, CreateAccountError,
    DocumentRegistration, Grant, LiveSession, NewInvitation, NewShareLink, PasswordReset,
    PendingInvitation, Permission, Principal, Renewal, Revocation, Role, SecretHash, SessionKey,
    ShareError, ShareLink, StoredInvitation, StoredReset, StoredRoles, StoredSession, Subject,
};
use crate::id::DocId;
use crate::store::{ListPage, ListQuery, StoreError};

/// What the methods of [`AccessStore`] return.
pub type AccessFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// The most revocations that [`AccessQueries::revocations`] returns at once.
pub const REVOCATIONS_PAGE: usize = 1_000;

/// Accounts, sessions, permissions, share links, revocations and the audit log of a store. Each change is one transaction.
/// Times are those of the store's clock, so that all nodes agree on what has expired.
pub trait AccessStore: AccessQueries {
    /// Creates an account.
    fn create_account(
        &self,
        account: AccountDraft,
        admission: Admission,
    ) -> AccessFuture<'_, Result<(), CreateAccountError>>;

    /// Changes a password and ends all sessions of the user except `keep`.
    fn set_password(
        &self,
        user: Subject,
        password: String,
        keep: Option<SessionKey>,
    ) -> AccessFuture<'_, ()>;

    /// Sets a user's role on every document of the tenant. Returns false if there is no such account.
    fn set_tenant_role(
        &self,
        user: Subject,
        role: Option<Role>,
        by: Subject,
    ) -> AccessFuture<'_, bool>;

    /// Disables an account or enables it again. Disabling ends its sessions and closes its sockets on every node. Returns false
    /// if there is no such account.
    fn set_disabled(&self, user: Subject, disabled: bool, by: Subject) -> AccessFuture<'_, bool>;

    /// Creates a password reset, which replaces an earlier one of the user.
    fn create_reset(&self, reset: PasswordReset, by: Subject) -> AccessFuture<'_, ()>;

    /// Returns true if the code of a password reset is valid: not expired, not used, and its issuer still owns the tenant.
    fn is_reset_valid(&self, code: SecretHash) -> AccessFuture<'_, bool>;

    /// Sets a password by the code of a reset, which it uses up, and ends all sessions of the user. Returns the user; `None` if
    /// the code is not valid.
    fn reset_password(
        &self,
        code: SecretHash,
        password: String,
    ) -> AccessFuture<'_, Option<Subject>>;

    /// Creates an invitation. Returns false if the tenant has as many as it may.
    fn create_invitation(&self, invitation: NewInvitation, by: Subject) -> AccessFuture<'_, bool>;

    /// Returns true if the code of an invitation is valid: not expired, not used, and its issuer still owns the tenant.
    fn is_invitation_valid(&self, code: SecretHash) -> AccessFuture<'_, bool>;

    /// Deletes an invitation. Returns false if the tenant has no such one.
    fn delete_invitation(&self, tenant: String, id: Subject, by: Subject)
    -> AccessFuture<'_, bool>;

    /// Begins a session. A user has at most `sessions_max` sessions, this one included: those that were renewed longest ago
    /// end.
    fn begin_session(
        &self,
        key: SessionKey,
        user: Subject,
        refresh: SecretHash,
        lasts: Duration,
        sessions_max: u64,
    ) -> AccessFuture<'_, ()>;

    /// Exchanges a session's refresh token for the next one. A token that was exchanged longer than `grace` ago ends the
    /// session, because two clients have it.
    fn renew_session(
        &self,
        key: SessionKey,
        refresh: SecretHash,
        next: SecretHash,
        grace: Duration,
    ) -> AccessFuture<'_, Renewal>;

    /// A session, unless it has ended or expired or its account is disabled.
    fn session(&self, key: SessionKey) -> AccessFuture<'_, Option<LiveSession>>;

    /// Ends a session and closes its sockets on every node.
    fn end_session(&self, key: SessionKey) -> AccessFuture<'_, ()>;

    /// Ends all sessions of a subject and closes its sockets on every node. Tokens of another application that were issued for
    /// the subject until now become invalid.
    fn end_sessions_of(&self, subject: Subject, by: Subject) -> AccessFuture<'_, ()>;

    /// The principal's permission on each of the documents, in their order.
    fn permissions(
        &self,
        principal: Principal,
        docs: Vec<DocId>,
    ) -> AccessFuture<'_, Vec<Permission>>;

    /// Registers a document to its first owner, if it is new and its tenant has fewer than `documents_max` documents.
    fn register_document(
        &self,
        doc: DocId,
        owner: Subject,
        documents_max: Option<u64>,
    ) -> AccessFuture<'_, DocumentRegistration>;

    /// Sets or takes away a subject's role on a document. At most `people_max` subjects, the owner included, have one.
    fn set_role(
        &self,
        doc: DocId,
        subject: Subject,
        role: Option<Role>,
        by: Principal,
        people_max: u64,
    ) -> AccessFuture<'_, Result<(), ShareError>>;

    /// Makes a subject the owner of a document. The previous owner becomes an editor.
    fn transfer_ownership(
        &self,
        doc: DocId,
        to: Subject,
        by: Principal,
    ) -> AccessFuture<'_, Result<(), ShareError>>;

    /// Creates a share link.
    fn create_link(
        &self,
        link: NewShareLink,
        by: Principal,
    ) -> AccessFuture<'_, Result<(), ShareError>>;

    /// Deletes a share link of a document.
    fn delete_link(
        &self,
        doc: DocId,
        link: Subject,
        by: Principal,
    ) -> AccessFuture<'_, Result<(), ShareError>>;

    /// Writes an audit event that belongs to no change. Equal events of the kinds that clients may repeat share one line within
    /// an hour.
    fn audit(
        &self,
        actor: Subject,
        action: AuditAction,
        doc: Option<DocId>,
        subject: Option<Subject>,
    ) -> AccessFuture<'_, ()>;

    /// Adds bytes to a tenant's usage and returns the sum.
    fn add_usage(&self, tenant: String, bytes: u64) -> AccessFuture<'_, u64>;
}

/// The queries of an [`AccessStore`]: one read each.
pub trait AccessQueries: Debug + Send + Sync {
    /// Returns true if there is an account.
    fn has_accounts(&self) -> AccessFuture<'_, bool>;

    /// The account with this login.
    fn account_by_login(&self, login: String) -> AccessFuture<'_, Option<Account>>;

    /// The account of this user.
    fn account(&self, id: Subject) -> AccessFuture<'_, Option<Account>>;

    /// The accounts of a tenant with logins after `after`, in the order of the logins, at most `limit`.
    fn accounts_of(
        &self,
        tenant: String,
        after: String,
        limit: usize,
    ) -> AccessFuture<'_, Vec<Account>>;

    /// A tenant's invitations that have not expired, in the order in which they expire.
    fn invitations(&self, tenant: String) -> AccessFuture<'_, Vec<PendingInvitation>>;

    /// The time, in seconds since 1970, up to which tokens of another application for the subject are invalid.
    fn tokens_ended(&self, subject: Subject) -> AccessFuture<'_, Option<u64>>;

    /// The grants on a document, the owner's first.
    fn grants(&self, doc: DocId) -> AccessFuture<'_, Vec<Grant>>;

    /// As [`Store::list`](crate::store::Store::list), of the documents that the principal may read, those of opened share links
    /// included. Empty for guests and for a collection of another tenant.
    fn list_for(&self, principal: Principal, query: ListQuery) -> AccessFuture<'_, ListPage>;

    /// A document's share links that have not expired, in the order of their creation.
    fn links(&self, doc: DocId) -> AccessFuture<'_, Vec<ShareLink>>;

    /// The share link with this secret, if it has not expired.
    fn link_by_secret(&self, secret: SecretHash) -> AccessFuture<'_, Option<ShareLink>>;

    /// The revocations after a sequence number, in their order, at most [`REVOCATIONS_PAGE`].
    fn revocations(&self, since: u64) -> AccessFuture<'_, Vec<Revocation>>;

    /// The sequence number of the newest revocation; 0 if there was none.
    fn last_revocation(&self) -> AccessFuture<'_, u64>;

    /// A document's audit events with numbers below `before`, newest first, at most `limit`.
    fn audit_events(
        &self,
        doc: DocId,
        before: Option<u64>,
        limit: usize,
    ) -> AccessFuture<'_, Vec<AuditEvent>>;

    /// A tenant's audit events with numbers below `before`, newest first, at most `limit`.
    fn audit_events_of(
        &self,
        tenant: String,
        before: Option<u64>,
        limit: usize,
    ) -> AccessFuture<'_, Vec<AuditEvent>>;
}

impl<S: AccessBackend + AccessQueries> AccessStore for S {
    fn create_account(
        &self,
        account: AccountDraft,
        admission: Admission,
    ) -> AccessFuture<'_, Result<(), CreateAccountError>> {
        self.run(CreateAccount { account, admission })
    }

    fn set_password(
        &self,
        user: Subject,
        password: String,
        keep: Option<SessionKey>,
    ) -> AccessFuture<'_, ()> {
        self.run(SetPassword {
            user,
            password,
            keep,
        })
    }

    fn set_tenant_role(
        &self,
        user: Subject,
        role: Option<Role>,
        by: Subject,
    ) -> AccessFuture<'_, bool> {
        self.run(SetTenantRole { user, role, by })
    }

    fn set_disabled(&self, user: Subject, disabled: bool, by: Subject) -> AccessFuture<'_, bool> {
        self.run(SetDisabled { user, disabled, by })
    }

    fn create_reset(&self, reset: PasswordReset, by: Subject) -> AccessFuture<'_, ()> {
        self.run(CreateReset { reset, by })
    }

    fn is_reset_valid(&self, code: SecretHash) -> AccessFuture<'_, bool> {
        let reset = self.stored_reset(code);
        let is_valid = |it: AsOf<StoredReset>| it.row.is_valid(it.now_ms);
        reset.map(move |it| Ok(it?.is_some_and(is_valid))).boxed()
    }

    fn reset_password(
        &self,
        code: SecretHash,
        password: String,
    ) -> AccessFuture<'_, Option<Subject>> {
        self.run(ResetPassword { code, password })
    }

    fn create_invitation(&self, invitation: NewInvitation, by: Subject) -> AccessFuture<'_, bool> {
        self.run(CreateInvitation { invitation, by })
    }

    fn is_invitation_valid(&self, code: SecretHash) -> AccessFuture<'_, bool> {
        let invitation = self.stored_invitation(code);
        let is_valid = |it: AsOf<StoredInvitation>| it.row.is_valid(it.now_ms);
        invitation
            .map(move |it| Ok(it?.is_some_and(is_valid)))
            .boxed()
    }

    fn delete_invitation(
        &self,
        tenant: String,
        id: Subject,
        by: Subject,
    ) -> AccessFuture<'_, bool> {
        self.run(DeleteInvitation { tenant, id, by })
    }

    fn begin_session(
        &self,
        key: SessionKey,
        user: Subject,
        refresh: SecretHash,
        lasts: Duration,
        sessions_max: u64,
    ) -> AccessFuture<'_, ()> {
        self.run(BeginSession {
            key,
            user,
            refresh,
            lasts,
            sessions_max,
        })
    }

    fn renew_session(
        &self,
        key: SessionKey,
        refresh: SecretHash,
        next: SecretHash,
        grace: Duration,
    ) -> AccessFuture<'_, Renewal> {
        self.run(RenewSession {
            key,
            refresh,
            next,
            grace,
        })
    }

    fn session(&self, key: SessionKey) -> AccessFuture<'_, Option<LiveSession>> {
        let stored = self.stored_session(key);
        let live = |it: AsOf<StoredSession>| it.row.live(it.now_ms);
        stored.map(move |it| Ok(it?.and_then(live))).boxed()
    }

    fn end_session(&self, key: SessionKey) -> AccessFuture<'_, ()> {
        self.run(EndSession { key })
    }

    fn end_sessions_of(&self, subject: Subject, by: Subject) -> AccessFuture<'_, ()> {
        self.run(EndSessionsOf { subject, by })
    }

    fn permissions(
        &self,
        principal: Principal,
        docs: Vec<DocId>,
    ) -> AccessFuture<'_, Vec<Permission>> {
        let stored = self.stored_roles(principal.clone(), docs.clone());
        let resolve = move |stored: Vec<StoredRoles>| {
            let both = docs.iter().zip(&stored);
            both.map(|(doc, stored)| principal.permission(doc, stored))
                .collect()
        };
        stored.map(move |it| it.map(resolve)).boxed()
    }

    fn register_document(
        &self,
        doc: DocId,
        owner: Subject,
        documents_max: Option<u64>,
    ) -> AccessFuture<'_, DocumentRegistration> {
        AccessBackend::register_document(self, doc, owner, documents_max)
    }

    fn set_role(
        &self,
        doc: DocId,
        subject: Subject,
        role: Option<Role>,
        by: Principal,
        people_max: u64,
    ) -> AccessFuture<'_, Result<(), ShareError>> {
        self.run(SetRole {
            doc,
            subject,
            role,
            by,
            people_max,
        })
    }

    fn transfer_ownership(
        &self,
        doc: DocId,
        to: Subject,
        by: Principal,
    ) -> AccessFuture<'_, Result<(), ShareError>> {
        self.run(TransferOwnership { doc, to, by })
    }

    fn create_link(
        &self,
        link: NewShareLink,
        by: Principal,
    ) -> AccessFuture<'_, Result<(), ShareError>> {
        self.run(CreateLink { link, by })
    }

    fn delete_link(
        &self,
        doc: DocId,
        link: Subject,
        by: Principal,
    ) -> AccessFuture<'_, Result<(), ShareError>> {
        self.run(DeleteLink { doc, link, by })
    }

    fn audit(
        &self,
        actor: Subject,
        action: AuditAction,
        doc: Option<DocId>,
        subject: Option<Subject>,
    ) -> AccessFuture<'_, ()> {
        self.run(Audit {
            actor,
            action,
            doc,
            subject,
        })
    }

    fn add_usage(&self, tenant: String, bytes: u64) -> AccessFuture<'_, u64> {
        AccessBackend::add_usage(self, tenant, bytes)
    }
}
