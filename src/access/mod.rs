//! The access domain: accounts, sessions, tenants, roles, share links, revocations and audit events, and the rules about
//! them. Pure: the store holds the rows, `auth` authenticates requests, the gateway enforces permissions.
#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

mod account;
mod audit;
mod permission;
mod revocation;
mod session;
mod sharing;

pub use account::{
    Account, AccountDraft, Admission, CreateAccountError, NewInvitation, PasswordReset,
    PendingInvitation, SecretHash, Subject,
};
pub(crate) use account::{Issuer, StoredInvitation, StoredReset};
pub use audit::{AuditAction, AuditEvent};
pub(crate) use audit::{NewAuditEvent, REPEAT_WINDOW};
pub(crate) use permission::StoredRoles;
pub use permission::{HOME_TENANT, Permission, Principal, Role, tenant_of};
pub use revocation::Revocation;
pub(crate) use revocation::{NewRevocation, REVOCATIONS_KEPT};
pub use session::{LiveSession, Renewal, SessionKey};
pub(crate) use session::{RefreshTokens, StoredSession, later};
pub(crate) use sharing::GrantCount;
pub use sharing::{DocumentRegistration, Grant, NewShareLink, ShareError, ShareLink};
