//! The bodies of requests and responses, and the query parameters.
//!
//! The fields of responses are in alphabetical order, which is the order of their JSON.

use serde::{Deserialize, Serialize};

use crate::access::{Account, AuditEvent, Grant, PendingInvitation, Role, ShareLink};
use crate::store::ListedDocument;

/// A request to create an account.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RegisterRequest {
    pub(super) login: String,
    pub(super) name: String,
    pub(super) password: String,
    pub(super) invitation: Option<String>,
}

/// A request to sign in.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SignInRequest {
    pub(super) login: String,
    pub(super) password: String,
}

/// A request to keep another application's token in a cookie.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BeginSessionRequest {
    /// Whether the session of another user in this browser is replaced. A link made by another person must not do that
    /// unasked: what is written next would go to that person's account.
    #[serde(default)]
    pub(super) replace: bool,
}

/// A request to change the password.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangePasswordRequest {
    pub(super) present: String,
    pub(super) next: String,
}

/// A request to set a password by a reset code.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResetPasswordRequest {
    pub(super) code: String,
    pub(super) password: String,
}

/// A request to invite a user.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InviteRequest {
    pub(super) role: Option<String>,
}

/// A request about another user of the tenant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UserRequest {
    pub(super) login: String,
}

/// A request to disable or enable an account.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetDisabledRequest {
    pub(super) login: String,
    pub(super) disabled: bool,
}

/// A request to set the role of a user on every document of the tenant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetTenantRoleRequest {
    pub(super) login: String,
    pub(super) role: Option<String>,
}

/// A user in a request: by login, or by id.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TransferRequest {
    pub(super) login: Option<String>,
    pub(super) id: Option<String>,
}

/// A request to set the role of a user on a document.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetRoleRequest {
    pub(super) login: Option<String>,
    pub(super) id: Option<String>,
    pub(super) role: Option<String>,
}

/// A request to create a share link.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateLinkRequest {
    pub(super) role: String,
    pub(super) days: Option<u64>,
    pub(super) password: Option<String>,
}

/// A request to open a share link.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OpenLinkRequest {
    pub(super) secret: String,
    pub(super) password: Option<String>,
}

/// A request to rename a document.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RenameRequest {
    pub(super) title: String,
    /// The title that the new one replaces.
    pub(super) was: Option<String>,
}

/// The position in a list of accounts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccountsQuery {
    /// The login after which the page begins.
    #[serde(default)]
    pub(super) after: String,
}

/// The position in the audit log.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    /// The number before which the page begins.
    pub(super) before: Option<u64>,
}

/// The parameters of a list of documents.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DocumentsQuery {
    #[serde(default = "default_collection")]
    pub(super) collection: String,
    #[serde(default = "default_limit")]
    pub(super) limit: usize,
    pub(super) after: Option<String>,
    pub(super) q: Option<String>,
}

fn default_collection() -> String {
    "documents".to_owned()
}

fn default_limit() -> usize {
    50
}

/// An empty response.
#[derive(Debug, Serialize)]
pub(super) struct Empty {}

/// The state of the session, for the page.
#[derive(Debug, Serialize)]
pub(super) struct MeResponse {
    pub(super) collection: String,
    pub(super) is_guest: bool,
    pub(super) mode: &'static str,
    pub(super) needs_setup: bool,
    pub(super) needs_setup_code: bool,
    pub(super) password_chars_min: usize,
    pub(super) registration: &'static str,
    pub(super) renew_after_ms: u64,
    pub(super) user: Option<MeUser>,
}

/// The user of a session.
#[derive(Debug, Serialize)]
pub(super) struct MeUser {
    pub(super) id: String,
    pub(super) login: String,
    pub(super) may_sign_out: bool,
    pub(super) name: String,
    pub(super) role: Option<&'static str>,
}

/// A code: of an invitation or a password reset.
#[derive(Debug, Serialize)]
pub(super) struct CodeResponse {
    pub(super) code: String,
}

/// A page of the accounts of a tenant.
#[derive(Debug, Serialize)]
pub(super) struct AccountsResponse {
    /// The login after which the next page begins; `None` on the last page.
    pub(super) next: Option<String>,
    pub(super) people: Vec<AccountView>,
}

/// An account as its tenant's owner sees it.
#[derive(Debug, Serialize)]
pub(super) struct AccountView {
    disabled: bool,
    id: String,
    login: String,
    name: String,
    role: Option<&'static str>,
}

impl From<Account> for AccountView {
    fn from(account: Account) -> Self {
        Self {
            disabled: account.disabled,
            id: account.id.0,
            login: account.login,
            name: account.name,
            role: account.role.map(Role::as_str),
        }
    }
}

/// The pending invitations of a tenant.
#[derive(Debug, Serialize)]
pub(super) struct InvitationsResponse {
    pub(super) invitations: Vec<InvitationView>,
}

/// A pending invitation, without its code.
#[derive(Debug, Serialize)]
pub(super) struct InvitationView {
    /// In milliseconds since 1970.
    expires_at: u64,
    id: String,
    maker: String,
    role: Option<&'static str>,
}

impl From<PendingInvitation> for InvitationView {
    fn from(invitation: PendingInvitation) -> Self {
        Self {
            expires_at: invitation.expires_at_ms,
            id: invitation.id.0,
            maker: invitation.maker.0,
            role: invitation.role.map(Role::as_str),
        }
    }
}

/// A page of the audit log.
#[derive(Debug, Serialize)]
pub(super) struct AuditResponse {
    deeds: Vec<AuditView>,
    /// The number before which the next page begins; `None` on the last page.
    next: Option<u64>,
}

impl AuditResponse {
    /// The most events of one page.
    pub(super) const EVENTS_MAX: usize = 200;
}

impl From<Vec<AuditEvent>> for AuditResponse {
    fn from(events: Vec<AuditEvent>) -> Self {
        let is_full = events.len() == Self::EVENTS_MAX;
        Self {
            next: events.last().filter(|_| is_full).map(|event| event.number),
            deeds: events.into_iter().map(AuditView::from).collect(),
        }
    }
}

/// An event of the audit log.
#[derive(Debug, Serialize)]
struct AuditView {
    actor: String,
    /// In milliseconds since 1970.
    at: u64,
    deed: String,
    detail: Option<String>,
    document: Option<String>,
    /// In milliseconds since 1970.
    last_at: Option<u64>,
    subject: Option<String>,
    times: u64,
}

impl From<AuditEvent> for AuditView {
    fn from(event: AuditEvent) -> Self {
        Self {
            actor: event.actor.0,
            at: event.at_ms,
            deed: event.action,
            detail: event.detail,
            document: event
                .doc
                .map(|(collection, id)| format!("{collection}/{id}")),
            last_at: event.last_at_ms,
            subject: event.subject.map(|subject| subject.0),
            times: event.times,
        }
    }
}

/// The users and the share links of a document.
#[derive(Debug, Serialize)]
pub(super) struct SharingResponse {
    pub(super) links: Vec<ShareLinkView>,
    pub(super) people: Vec<GrantView>,
}

/// A user's role on a document.
#[derive(Debug, Serialize)]
pub(super) struct GrantView {
    id: String,
    login: Option<String>,
    name: Option<String>,
    role: &'static str,
}

impl From<Grant> for GrantView {
    fn from(grant: Grant) -> Self {
        let (login, name) = grant.account.unzip();
        Self {
            id: grant.subject.0,
            login,
            name,
            role: grant.role.as_str(),
        }
    }
}

/// A share link, without its secret.
#[derive(Debug, Serialize)]
pub(super) struct ShareLinkView {
    /// In milliseconds since 1970; `None`: never.
    expires_at: Option<u64>,
    has_password: bool,
    id: String,
    role: &'static str,
}

impl From<ShareLink> for ShareLinkView {
    fn from(link: ShareLink) -> Self {
        Self {
            expires_at: link.expires_at_ms,
            has_password: link.password.is_some(),
            id: link.id.0,
            role: link.role.as_str(),
        }
    }
}

/// A share link that was created.
#[derive(Debug, Serialize)]
pub(super) struct CreatedLinkResponse {
    pub(super) id: String,
    pub(super) secret: String,
}

/// The document that a share link opened.
#[derive(Debug, Serialize)]
pub(super) struct OpenedLinkResponse {
    collection: String,
    id: String,
    role: &'static str,
}

impl From<&ShareLink> for OpenedLinkResponse {
    fn from(link: &ShareLink) -> Self {
        Self {
            collection: link.doc.collection.as_str().to_owned(),
            id: link.doc.id.as_str().to_owned(),
            role: link.role.as_str(),
        }
    }
}

/// A page of documents.
#[derive(Debug, Serialize)]
pub(super) struct DocumentsResponse {
    pub(super) documents: Vec<DocumentView>,
    /// The cursor of the next page; `None` on the last page.
    pub(super) next: Option<String>,
}

/// A document.
#[derive(Debug, Serialize)]
pub(super) struct DocumentView {
    collection: String,
    /// In milliseconds since 1970.
    created_at: u64,
    id: String,
    revision: u64,
    /// The role of the identity; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    title: String,
    /// In milliseconds since 1970.
    updated_at: u64,
}

impl DocumentView {
    /// `now_ms` bounds the times: those of a log lie in the future if a clock was wrong.
    pub(super) fn new(document: ListedDocument, role: Option<Role>, now_ms: u64) -> Self {
        Self {
            collection: document.doc.collection.as_str().to_owned(),
            created_at: document.created_at_ms.min(now_ms),
            id: document.doc.id.as_str().to_owned(),
            revision: document.revision.0,
            role: role.map(Role::as_str),
            title: document.title,
            updated_at: document.updated_at_ms.min(now_ms),
        }
    }
}
