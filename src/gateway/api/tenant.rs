//! What the owner of a tenant does: accounts, invitations, the audit log.

use actix_web::web::{Data, Json, Path, Query};

use super::extract::{AccountsOwner, InOrder, TenantOwner};
use super::messages::{
    AccountView, AccountsQuery, AccountsResponse, AuditQuery, AuditResponse, CodeResponse, Empty,
    InvitationView, InvitationsResponse, InviteRequest, SetDisabledRequest, SetTenantRoleRequest,
    UserRequest,
};
use crate::access::{Role, Subject};
use crate::auth::AuthService;
use crate::gateway::api_error::ApiError;

/// The most accounts of one page.
const ACCOUNTS_MAX: usize = 200;

pub(super) async fn invite(
    InOrder(Json(body), AccountsOwner(owner)): InOrder<Json<InviteRequest>, AccountsOwner>,
    auth: Data<AuthService>,
) -> Result<Json<CodeResponse>, ApiError> {
    let role = parse_role(body.role.as_deref())?;
    let code = auth.invite(&owner, role).await?;
    Ok(Json(CodeResponse { code }))
}

/// A page of the tenant's accounts, in the order of their logins.
pub(super) async fn accounts(
    InOrder(Query(query), AccountsOwner(owner)): InOrder<Query<AccountsQuery>, AccountsOwner>,
    auth: Data<AuthService>,
) -> Result<Json<AccountsResponse>, ApiError> {
    let tenant = owner.tenant_or_home().to_owned();
    let page = auth
        .accounts()
        .accounts_of(tenant, query.after, ACCOUNTS_MAX);
    let page = page.await?;
    let is_full = page.len() == ACCOUNTS_MAX;
    let next = page.last().filter(|_| is_full);
    Ok(Json(AccountsResponse {
        next: next.map(|account| account.login.clone()),
        people: page.into_iter().map(AccountView::from).collect(),
    }))
}

pub(super) async fn invitations(
    AccountsOwner(owner): AccountsOwner,
    auth: Data<AuthService>,
) -> Result<Json<InvitationsResponse>, ApiError> {
    let tenant = owner.tenant_or_home().to_owned();
    let pending = auth.accounts().invitations(tenant).await?;
    let invitations = pending.into_iter().map(InvitationView::from).collect();
    Ok(Json(InvitationsResponse { invitations }))
}

pub(super) async fn delete_invitation(
    AccountsOwner(owner): AccountsOwner,
    id: Path<String>,
    auth: Data<AuthService>,
) -> Result<Json<Empty>, ApiError> {
    let by = owner.user_id().ok_or(ApiError::SignInRequired)?.clone();
    let tenant = owner.tenant_or_home().to_owned();
    let deletion = auth
        .accounts()
        .delete_invitation(tenant, Subject(id.into_inner()), by);
    match deletion.await? {
        true => Ok(Json(Empty {})),
        false => Err(ApiError::InvitationNotFound),
    }
}

/// A page of the tenant's audit log, the newest event first.
pub(super) async fn audit(
    InOrder(Query(query), TenantOwner(owner)): InOrder<Query<AuditQuery>, TenantOwner>,
    auth: Data<AuthService>,
) -> Result<Json<AuditResponse>, ApiError> {
    let tenant = owner.tenant_or_home().to_owned();
    let events = auth
        .accounts()
        .audit_events_of(tenant, query.before, AuditResponse::EVENTS_MAX);
    Ok(Json(events.await?.into()))
}

pub(super) async fn set_disabled(
    InOrder(Json(body), AccountsOwner(owner)): InOrder<Json<SetDisabledRequest>, AccountsOwner>,
    auth: Data<AuthService>,
) -> Result<Json<Empty>, ApiError> {
    auth.set_disabled(&owner, &body.login, body.disabled)
        .await?;
    Ok(Json(Empty {}))
}

pub(super) async fn allow_reset(
    InOrder(Json(body), AccountsOwner(owner)): InOrder<Json<UserRequest>, AccountsOwner>,
    auth: Data<AuthService>,
) -> Result<Json<CodeResponse>, ApiError> {
    let code = auth.allow_reset(&owner, &body.login).await?;
    Ok(Json(CodeResponse { code }))
}

/// Gives a user a role on every document of the tenant, or removes it.
pub(super) async fn set_role(
    InOrder(Json(body), AccountsOwner(owner)): InOrder<Json<SetTenantRoleRequest>, AccountsOwner>,
    auth: Data<AuthService>,
) -> Result<Json<Empty>, ApiError> {
    let role = parse_role(body.role.as_deref())?;
    auth.set_tenant_role(&owner, &body.login, role).await?;
    Ok(Json(Empty {}))
}

pub(super) async fn end_sessions(
    InOrder(Json(body), TenantOwner(owner)): InOrder<Json<UserRequest>, TenantOwner>,
    auth: Data<AuthService>,
) -> Result<Json<Empty>, ApiError> {
    auth.end_user_sessions(&owner, &body.login).await?;
    Ok(Json(Empty {}))
}

/// A role, or `None` to remove one.
pub(super) fn parse_role(text: Option<&str>) -> Result<Option<Role>, ApiError> {
    text.map(|text| Role::parse(text).ok_or(ApiError::InvalidRole))
        .transpose()
}
