//! Sharing over HTTP: who may do what with a document, share links, and what was changed about it.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::{Value, json};

use super::accounts::{
    AUDIT_MAX, Before, answer, denied_response, no_accounts, no_such_role, parse_role, permitted,
    respond, shown_deeds,
};
use super::gateway::Gateway;
use super::request_auth;
use super::responses::{failure, unavailable};
use crate::access::{Account, Grant, Principal, Role, ShareError, ShareLink, Subject};
use crate::auth::{AuthMode, Identity, is_name};
use crate::id::DocId;
use crate::store::StoreError;

type Path = web::Path<(String, String)>;

pub(super) fn routes(config: &mut ServiceConfig) {
    let document = "/api/documents/{collection}/{id}";
    config
        .route(&format!("{document}/people"), web::get().to(people))
        .route(&format!("{document}/people"), web::put().to(set_role))
        .route(&format!("{document}/owner"), web::put().to(transfer))
        .route(&format!("{document}/links"), web::post().to(share))
        .route(
            &format!("{document}/links/{{link}}"),
            web::delete().to(end_link),
        )
        .route(&format!("{document}/audit"), web::get().to(audit))
        .route("/api/links", web::post().to(open));
}

/// The longest that a share link may be made to last, in days.
const LINK_DAYS_MAX: u64 = 3_650;

/// The owner of a document, if it is they who ask. Whatever they change, the store asks once more.
async fn owner(
    request: &HttpRequest,
    gateway: &Gateway,
    path: &(String, String),
) -> Result<(Principal, Identity, DocId), HttpResponse> {
    if gateway.auth().mode() == AuthMode::Open {
        return Err(no_accounts());
    }
    let (identity, doc, _) = permitted(request, gateway, path, Role::Owner).await?;
    let who = identity.principal_on(&doc).ok_or_else(no_accounts)?;
    Ok((who, identity, doc))
}

async fn people(request: HttpRequest, gateway: Data<Gateway>, path: Path) -> HttpResponse {
    let (_, _, doc) = match owner(&request, &gateway, &path).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    respond(shared(&gateway, doc).await)
}

async fn shared(gateway: &Gateway, doc: DocId) -> Result<Value, StoreError> {
    let accounts = gateway.auth().accounts();
    let holders = accounts.grants(doc.clone()).await?;
    let links = accounts.links(doc).await?;
    let holders: Vec<Value> = holders.iter().map(shown_holder).collect();
    let links: Vec<Value> = links.iter().map(shown_link).collect();
    Ok(json!({ "people": holders, "links": links }))
}

fn shown_holder(holder: &Grant) -> Value {
    let (login, name) = holder.account.clone().unzip();
    json!({ "id": holder.subject.0, "login": login, "name": name, "role": holder.role.as_str() })
}

fn shown_link(link: &ShareLink) -> Value {
    json!({
        "id": link.id.0,
        "role": link.role.as_str(),
        "has_password": link.password.is_some(),
        "expires_at": link.expires_at_ms,
    })
}

/// Somebody with an account here, by login, or with one of the application that vouches, by its id.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SetRole {
    login: Option<String>,
    id: Option<String>,
    role: Option<String>,
}

async fn set_role(
    request: HttpRequest,
    gateway: Data<Gateway>,
    path: Path,
    asked: web::Json<SetRole>,
) -> HttpResponse {
    let (by, identity, doc) = match owner(&request, &gateway, &path).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let role = match parse_role(asked.role.as_deref()) {
        Ok(Some(Role::Owner)) | Err(_) => return no_such_role(),
        Ok(role) => role,
    };
    let subject = match whom(
        &gateway,
        &identity,
        asked.login.as_deref(),
        asked.id.as_deref(),
    )
    .await
    {
        Ok(subject) => subject,
        Err(response) => return response,
    };
    let set = gateway.auth().set_role(doc.clone(), subject, role, by);
    match set.await {
        Ok(Ok(())) => respond(shared(&gateway, doc).await),
        Ok(Err(why)) => not_shared(why),
        Err(error) => unavailable(&error),
    }
}

fn not_shared(why: ShareError) -> HttpResponse {
    match why {
        ShareError::NotOwner => failure(
            StatusCode::FORBIDDEN,
            "forbidden",
            "you may not do that with this document",
        ),
        ShareError::OwnerMustTransfer => failure(
            StatusCode::CONFLICT,
            "owner",
            "the owner stays the owner until another is",
        ),
        ShareError::QuotaReached => failure(
            StatusCode::TOO_MANY_REQUESTS,
            "quota",
            "the document is shared with as many people as it may be: take the role from some of them first",
        ),
        ShareError::LinkNotFound => {
            failure(StatusCode::NOT_FOUND, "not_found", "there is no such link")
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Transfer {
    login: Option<String>,
    id: Option<String>,
}

async fn transfer(
    request: HttpRequest,
    gateway: Data<Gateway>,
    path: Path,
    asked: web::Json<Transfer>,
) -> HttpResponse {
    let (by, identity, doc) = match owner(&request, &gateway, &path).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let to = match whom(
        &gateway,
        &identity,
        asked.login.as_deref(),
        asked.id.as_deref(),
    )
    .await
    {
        Ok(subject) => subject,
        Err(response) => return response,
    };
    match gateway.auth().transfer_ownership(doc, to, by).await {
        Ok(Ok(())) => answer(&json!({}), Vec::new()),
        Ok(Err(why)) => not_shared(why),
        Err(error) => unavailable(&error),
    }
}

/// Whom a request means, in the tenant of who makes it.
async fn whom(
    gateway: &Gateway,
    identity: &Identity,
    login: Option<&str>,
    id: Option<&str>,
) -> Result<Subject, HttpResponse> {
    let nobody = || {
        let message = "nobody here signs in by that name";
        failure(StatusCode::NOT_FOUND, "no_such_person", message)
    };
    let tenant = identity.tenant().unwrap_or_default();
    let auth = gateway.auth();
    let found: Result<Option<Account>, StoreError> = match (auth.mode(), login, id) {
        (AuthMode::Tokens, None, Some(id)) => {
            let id = id.strip_prefix(&format!("{tenant}:")).unwrap_or(id);
            if !is_name(id) {
                return Err(nobody());
            }
            return Ok(Subject(format!("{tenant}:{id}")));
        }
        (AuthMode::Accounts, Some(login), None) => {
            let login = login.trim().to_lowercase();
            auth.accounts().account_by_login(login).await
        }
        (AuthMode::Accounts, None, Some(id)) => {
            auth.accounts().account(Subject(id.to_owned())).await
        }
        _ => return Err(nobody()),
    };
    let found = found.map_err(|error| unavailable(&error))?;
    let user = found.filter(|user| user.tenant == tenant);
    user.map(|user| user.id).ok_or_else(nobody)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateLink {
    role: String,
    days: Option<u64>,
    password: Option<String>,
}

async fn share(
    request: HttpRequest,
    gateway: Data<Gateway>,
    path: Path,
    asked: web::Json<CreateLink>,
) -> HttpResponse {
    let (by, _, doc) = match owner(&request, &gateway, &path).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let Some(role) = Role::parse(&asked.role).filter(|role| *role < Role::Owner) else {
        return no_such_role();
    };
    if asked
        .days
        .is_some_and(|days| !(1..=LINK_DAYS_MAX).contains(&days))
    {
        let message = format!("a link lasts 1 to {LINK_DAYS_MAX} days");
        return failure(StatusCode::BAD_REQUEST, "bad_request", &message);
    }
    let lasts = asked.days.map(|days| Duration::from_hours(24 * days));
    let password = asked.password.as_deref().filter(|text| !text.is_empty());
    match gateway
        .auth()
        .create_link(by, &doc, role, password, lasts)
        .await
    {
        Ok((id, secret)) => answer(&json!({ "id": id.0, "secret": secret }), Vec::new()),
        Err(denied) => denied_response(&denied),
    }
}

async fn end_link(
    request: HttpRequest,
    gateway: Data<Gateway>,
    path: web::Path<(String, String, String)>,
) -> HttpResponse {
    let (collection, id, link) = path.into_inner();
    let (by, _, doc) = match owner(&request, &gateway, &(collection, id)).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    match gateway.auth().delete_link(doc, Subject(link), by).await {
        Ok(Ok(())) => answer(&json!({}), Vec::new()),
        Ok(Err(why)) => not_shared(why),
        Err(error) => unavailable(&error),
    }
}

async fn audit(
    request: HttpRequest,
    gateway: Data<Gateway>,
    path: Path,
    page: web::Query<Before>,
) -> HttpResponse {
    let (_, _, doc) = match owner(&request, &gateway, &path).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let accounts = gateway.auth().accounts();
    let deeds = accounts.audit_events(doc, page.before, AUDIT_MAX).await;
    respond(deeds.map(|deeds| shown_deeds(&deeds)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OpenLink {
    secret: String,
    password: Option<String>,
}

/// Opens a share link, with or without an account.
async fn open(
    request: HttpRequest,
    gateway: Data<Gateway>,
    asked: web::Json<OpenLink>,
) -> HttpResponse {
    let auth = gateway.auth();
    if auth.mode() == AuthMode::Open {
        return no_accounts();
    }
    let from = request_auth::address(&request, &gateway);
    let brought = request_auth::credentials(&request);
    let (secret, password) = (&asked.secret, asked.password.as_deref());
    match auth.open_link(secret, password, &brought, from).await {
        Ok((link, token)) => {
            let body = json!({
                "collection": link.doc.collection.as_str(),
                "id": link.doc.id.as_str(),
                "role": link.role.as_str(),
            });
            answer(&body, vec![request_auth::opened(&request, &token)])
        }
        Err(denied) => denied_response(&denied),
    }
}
