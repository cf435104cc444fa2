//! Sharing of a document: the roles of users, the ownership, share links and the audit log.

use std::time::Duration;

use actix_web::web::{Data, Json, Path, Query};
use actix_web::{HttpRequest, HttpResponse};

use super::extract::{ClientAddress, DocumentOwner, InOrder};
use super::messages::{
    AuditQuery, AuditResponse, CreateLinkRequest, CreatedLinkResponse, Empty, GrantView,
    OpenLinkRequest, OpenedLinkResponse, SetRoleRequest, ShareLinkView, SharingResponse,
    TransferRequest,
};
use super::sessions::with_cookies;
use super::tenant::parse_role;
use crate::access::{Role, Subject};
use crate::auth::{AuthMode, AuthService, Credentials, Identity, is_name};
use crate::gateway::api_error::ApiError;
use crate::gateway::cookies;
use crate::id::DocId;

/// The longest validity of a share link, in days.
const LINK_DAYS_MAX: u64 = 3_650;

/// The users and the share links of the document.
pub(super) async fn people(
    owner: DocumentOwner,
    auth: Data<AuthService>,
) -> Result<Json<SharingResponse>, ApiError> {
    sharing(&auth, owner.doc).await
}

async fn sharing(auth: &AuthService, doc: DocId) -> Result<Json<SharingResponse>, ApiError> {
    let grants = auth.accounts().grants(doc.clone()).await?;
    let links = auth.accounts().links(doc).await?;
    Ok(Json(SharingResponse {
        links: links.into_iter().map(ShareLinkView::from).collect(),
        people: grants.into_iter().map(GrantView::from).collect(),
    }))
}

/// Gives a user a role on the document, or removes it.
pub(super) async fn set_role(
    InOrder(Json(body), owner): InOrder<Json<SetRoleRequest>, DocumentOwner>,
    auth: Data<AuthService>,
) -> Result<Json<SharingResponse>, ApiError> {
    let role = parse_role(body.role.as_deref())?;
    if role == Some(Role::Owner) {
        return Err(ApiError::InvalidRole);
    }
    let user = find_user(&auth, &owner.identity, body.login, body.id).await?;
    auth.set_role(owner.doc.clone(), user, role, owner.principal)
        .await??;
    sharing(&auth, owner.doc).await
}

/// Makes another user the owner of the document.
pub(super) async fn transfer(
    InOrder(Json(body), owner): InOrder<Json<TransferRequest>, DocumentOwner>,
    auth: Data<AuthService>,
) -> Result<Json<Empty>, ApiError> {
    let user = find_user(&auth, &owner.identity, body.login, body.id).await?;
    auth.transfer_ownership(owner.doc, user, owner.principal)
        .await??;
    Ok(Json(Empty {}))
}

/// The user that a request names, in the tenant of `identity`: an account by login or id, a user of another application by
/// id.
async fn find_user(
    auth: &AuthService,
    identity: &Identity,
    login: Option<String>,
    id: Option<String>,
) -> Result<Subject, ApiError> {
    let tenant = identity.tenant().unwrap_or_default();
    let account = match (auth.mode(), login, id) {
        // The application has the users: any valid name is accepted.
        (AuthMode::Tokens, None, Some(id)) => {
            let id = id.strip_prefix(&format!("{tenant}:")).unwrap_or(&id);
            let is_valid = is_name(id);
            let user = is_valid.then(|| Subject(format!("{tenant}:{id}")));
            return user.ok_or(ApiError::UserNotFound);
        }
        (AuthMode::Accounts, Some(login), None) => {
            let login = login.trim().to_lowercase();
            auth.accounts().account_by_login(login).await?
        }
        (AuthMode::Accounts, None, Some(id)) => auth.accounts().account(Subject(id)).await?,
        _ => None,
    };
    let account = account.filter(|account| account.tenant == tenant);
    account
        .map(|account| account.id)
        .ok_or(ApiError::UserNotFound)
}

pub(super) async fn create_link(
    InOrder(Json(body), owner): InOrder<Json<CreateLinkRequest>, DocumentOwner>,
    auth: Data<AuthService>,
) -> Result<Json<CreatedLinkResponse>, ApiError> {
    let role = Role::parse(&body.role).filter(|role| *role < Role::Owner);
    let role = role.ok_or(ApiError::InvalidRole)?;
    let is_valid = |days: u64| (1..=LINK_DAYS_MAX).contains(&days);
    if body.days.is_some_and(|days| !is_valid(days)) {
        let message = format!("a link lasts 1 to {LINK_DAYS_MAX} days");
        return Err(ApiError::BadRequest(message));
    }
    let lifetime = body.days.map(|days| Duration::from_hours(24 * days));
    let password = body.password.as_deref().filter(|text| !text.is_empty());
    let (id, secret) = auth
        .create_link(owner.principal, &owner.doc, role, password, lifetime)
        .await?;
    Ok(Json(CreatedLinkResponse { id: id.0, secret }))
}

pub(super) async fn delete_link(
    owner: DocumentOwner,
    path: Path<(String, String, String)>,
    auth: Data<AuthService>,
) -> Result<Json<Empty>, ApiError> {
    let (_, _, link) = path.into_inner();
    auth.delete_link(owner.doc, Subject(link), owner.principal)
        .await??;
    Ok(Json(Empty {}))
}

/// A page of the document's audit log, the newest event first.
pub(super) async fn audit(
    InOrder(Query(query), owner): InOrder<Query<AuditQuery>, DocumentOwner>,
    auth: Data<AuthService>,
) -> Result<Json<AuditResponse>, ApiError> {
    let events = auth
        .accounts()
        .audit_events(owner.doc, query.before, AuditResponse::EVENTS_MAX);
    Ok(Json(events.await?.into()))
}

/// Opens a share link, with or without an account.
pub(super) async fn open_link(
    Json(body): Json<OpenLinkRequest>,
    credentials: Credentials,
    ClientAddress(address): ClientAddress,
    auth: Data<AuthService>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    if auth.mode() == AuthMode::Open {
        return Err(ApiError::NoAccounts);
    }
    let (link, links) = auth
        .open_link(
            &body.secret,
            body.password.as_deref(),
            &credentials,
            address,
        )
        .await?;
    let cookie = cookies::links(&request, &links);
    Ok(with_cookies(&OpenedLinkResponse::from(&link), vec![cookie]))
}
