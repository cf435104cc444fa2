//! The audit log.

use std::time::Duration;

use super::{Role, Subject, tenant_of};
use crate::id::DocId;

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// Its number; numbers grow.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The user or share link that acted.
    pub actor: Subject,
    /// What was done.
    pub action: String,
    /// The document (collection and id) that it concerns.
    pub doc: Option<(String, String)>,
    /// The subject that it concerns.
    pub subject: Option<Subject>,
    /// Details, for example the new role.
    pub detail: Option<String>,
    /// How many events this line stands for: repeated events share a line.
    pub times: u64,
    /// The time of the last of them, in milliseconds since 1970; `None` if there is only one.
    pub last_at_ms: Option<u64>,
}

/// What an audit event records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditAction {
    /// An account was created.
    CreateAccount,
    /// A user changed their password.
    ChangePassword,
    /// A user got or lost a role on every document of the tenant.
    SetTenantRole,
    /// An account was disabled.
    DisableAccount,
    /// An account was enabled again.
    EnableAccount,
    /// A password reset was created.
    CreateReset,
    /// A password was set by a reset code.
    ResetPassword,
    /// An invitation was created.
    CreateInvitation,
    /// An invitation was deleted.
    DeleteInvitation,
    /// A session began.
    SignIn,
    /// A sign-in was rejected.
    FailToSignIn,
    /// A session was ended by its user.
    SignOut,
    /// All sessions of a subject were ended.
    SignOutEverywhere,
    /// A document was registered to its first owner.
    CreateDocument,
    /// A subject got or lost a role on a document.
    SetRole,
    /// The ownership of a document was transferred.
    TransferOwnership,
    /// A share link was created.
    CreateLink,
    /// A share link was deleted.
    DeleteLink,
    /// A share link was opened.
    OpenLink,
}

impl AuditAction {
    /// The name in the audit log. Stored: never changed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreateAccount => "make account",
            Self::ChangePassword => "change password",
            Self::SetTenantRole => "set tenant role",
            Self::DisableAccount => "close account",
            Self::EnableAccount => "open account",
            Self::CreateReset => "allow reset",
            Self::ResetPassword => "reset password",
            Self::CreateInvitation => "invite",
            Self::DeleteInvitation => "end invitation",
            Self::SignIn => "sign in",
            Self::FailToSignIn => "fail to sign in",
            Self::SignOut => "sign out",
            Self::SignOutEverywhere => "sign out everywhere",
            Self::CreateDocument => "create",
            Self::SetRole => "set role",
            Self::TransferOwnership => "transfer",
            Self::CreateLink => "make link",
            Self::DeleteLink => "end link",
            Self::OpenLink => "open link",
        }
    }

    /// Returns true if equal events within [`REPEAT_WINDOW`] share one line. These are the actions that a client may repeat at
    /// will, so they must not flood the log. None of them changes a permission.
    pub(crate) fn is_counted(self) -> bool {
        matches!(self, Self::OpenLink | Self::FailToSignIn | Self::SignIn)
    }
}

/// How long repeated events are counted on the same line.
pub(crate) const REPEAT_WINDOW: Duration = Duration::from_hours(1);

/// An audit event to store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewAuditEvent<'a> {
    pub(crate) actor: &'a Subject,
    pub(crate) action: AuditAction,
    pub(crate) doc: Option<&'a DocId>,
    pub(crate) subject: Option<&'a Subject>,
    pub(crate) detail: Option<&'a str>,
}

impl<'a> NewAuditEvent<'a> {
    /// An event that concerns nothing but its actor.
    pub(crate) fn new(actor: &'a Subject, action: AuditAction) -> Self {
        Self {
            actor,
            action,
            doc: None,
            subject: None,
            detail: None,
        }
    }

    /// Adds the document that it concerns.
    pub(crate) fn on(self, doc: &'a DocId) -> Self {
        Self {
            doc: Some(doc),
            ..self
        }
    }

    /// Adds the subject that it concerns.
    pub(crate) fn about(self, subject: &'a Subject) -> Self {
        Self {
            subject: Some(subject),
            ..self
        }
    }

    /// Adds the role that was set.
    pub(crate) fn to_role(self, role: Option<Role>) -> Self {
        Self {
            detail: Some(role.map_or("none", Role::as_str)),
            ..self
        }
    }

    /// The tenant to file it under, unless the account of the actor or of the subject decides: the document's.
    pub(crate) fn document_tenant(&self) -> Option<&'a str> {
        self.doc.map(|doc| tenant_of(&doc.collection))
    }

    /// The tenant to file it under if neither a document nor an account decides: that of the actor's id.
    pub(crate) fn actor_tenant(&self) -> Option<&'a str> {
        let (tenant, _) = self.actor.0.split_once(':')?;
        Some(tenant)
    }
}
