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
pub use audit::AuditEvent;
pub(crate) use audit::{REPEAT_WINDOW, REPEATED_ACTIONS};
pub(crate) use permission::tenant_of_subject;
pub use permission::{HOME_TENANT, Permission, Principal, Role, tenant_of};
pub use revocation::Revocation;
pub use session::{LiveSession, Renewal, SessionKey};
pub use sharing::{DocumentRegistration, Grant, NewShareLink, ShareError, ShareLink};
