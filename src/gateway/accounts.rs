//! Accounts over HTTP: the first one, signing in and out, passwords, invitations.

use actix_web::cookie::Cookie;
use actix_web::http::StatusCode;
use actix_web::http::header::RETRY_AFTER;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::{Value, json};

use super::gateway::Gateway;
use super::request_auth;
use super::responses::{NO_STORE, failure, no_document, unauthorized, unavailable};
use crate::access::{Account, AuditEvent, HOME_TENANT, PendingInvitation, Role, Subject};
use crate::auth::{AuthError, AuthMode, Identity, NewAccount, PASSWORD_CHARS_MIN, SessionTokens};
use crate::id::DocId;
use crate::store::StoreError;

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/api/me", web::get().to(me))
        .route("/api/register", web::post().to(register))
        .route("/api/sign-in", web::post().to(sign_in))
        .route("/api/session", web::post().to(begin))
        .route("/api/refresh", web::post().to(refresh))
        .route("/api/sign-out", web::post().to(sign_out))
        .route(
            "/api/sign-out-everywhere",
            web::post().to(sign_out_everywhere),
        )
        .route("/api/password", web::post().to(change_password))
        .route("/api/password-reset", web::post().to(reset_password))
        .route("/api/invitations", web::post().to(invite))
        .route("/api/invitations", web::get().to(invitations))
        .route("/api/invitations/{id}", web::delete().to(end_invitation))
        .route("/api/audit", web::get().to(audit))
        .route("/api/people", web::get().to(people))
        .route("/api/people/role", web::put().to(set_tenant_role))
        .route("/api/people/disabled", web::put().to(set_disabled))
        .route("/api/people/reset", web::post().to(allow_reset))
        .route("/api/people/sign-out", web::post().to(send_away));
}

/// The document that a path names, if whoever asks may do `least` with it. To those who may not even read it, there is
/// none.
pub(super) async fn permitted(
    request: &HttpRequest,
    gateway: &Gateway,
    path: &(String, String),
    least: Role,
) -> Result<(Identity, DocId, Role), HttpResponse> {
    let identity = identity(request, gateway).await?;
    let doc = DocId::parse_path(&path.0, &path.1).map_err(|_| no_document())?;
    let role = gateway.auth().role(&identity, &doc).await;
    match role.map_err(|error| unavailable(&error))? {
        Some(role) if role >= least => Ok((identity, doc, role)),
        Some(_) => Err(failure(
            StatusCode::FORBIDDEN,
            "forbidden",
            "you may not do that with this document",
        )),
        None => Err(no_document()),
    }
}

/// Whoever makes a request; an answer where it is nobody we know.
pub(super) async fn identity(
    request: &HttpRequest,
    gateway: &Gateway,
) -> Result<Identity, HttpResponse> {
    let found = gateway
        .auth()
        .identify(&request_auth::credentials(request))
        .await;
    let found = found.map_err(|error| unavailable(&error))?;
    let identity = found.ok_or_else(unauthorized)?;
    if gateway.limits().allow_user_request(&identity) {
        Ok(identity)
    } else {
        Err(request_auth::too_fast())
    }
}

async fn me(request: HttpRequest, gateway: Data<Gateway>) -> HttpResponse {
    let auth = gateway.auth();
    let found = match auth.identify(&request_auth::credentials(&request)).await {
        Ok(found) => found,
        Err(error) => return unavailable(&error),
    };
    let needs_setup = match auth.mode() {
        AuthMode::Accounts => match auth.accounts().has_accounts().await {
            Ok(any) => !any,
            Err(error) => return unavailable(&error),
        },
        AuthMode::Open | AuthMode::Tokens => false,
    };
    let user = found.as_ref().and_then(|identity| {
        let (id, known) = (identity.user_id()?, identity.profile.as_ref()?);
        Some(json!({
            "id": id.0,
            "login": known.login,
            "name": known.name,
            "role": known.role.map(Role::as_str),
            "may_sign_out": identity.session.is_some(),
        }))
    });
    let tenant = found
        .as_ref()
        .and_then(Identity::tenant)
        .unwrap_or(HOME_TENANT);
    let collection = match tenant {
        HOME_TENANT => "documents".to_owned(),
        other => format!("{other}:documents"),
    };
    let body = json!({
        "mode": auth.mode().as_str(),
        "user": user,
        "is_guest": found.is_some() && user.is_none(),
        "needs_setup": needs_setup,
        "needs_setup_code": needs_setup && !request_auth::caller(&request, &gateway).is_own_machine,
        "registration": auth.registration().as_str(),
        "collection": collection,
        "password_chars_min": PASSWORD_CHARS_MIN,
        "renew_after_ms": auth.access_lifetime().as_millis() as u64 * 8 / 10,
    });
    answer(&body, Vec::new())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Register {
    login: String,
    name: String,
    password: String,
    invitation: Option<String>,
}

async fn register(
    request: HttpRequest,
    gateway: Data<Gateway>,
    asked: web::Json<Register>,
) -> HttpResponse {
    if gateway.auth().mode() != AuthMode::Accounts {
        return no_accounts();
    }
    let asked = asked.into_inner();
    let account = NewAccount {
        login: asked.login,
        name: asked.name,
        password: asked.password,
        invitation: asked.invitation,
    };
    let brought = request_auth::credentials(&request);
    let caller = request_auth::caller(&request, &gateway);
    let tokens = gateway.auth().register(&account, &brought, caller);
    signed_in(&request, &gateway, tokens.await)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignIn {
    login: String,
    password: String,
}

async fn sign_in(
    request: HttpRequest,
    gateway: Data<Gateway>,
    asked: web::Json<SignIn>,
) -> HttpResponse {
    if gateway.auth().mode() != AuthMode::Accounts {
        return no_accounts();
    }
    let from = request_auth::address(&request, &gateway);
    let brought = request_auth::credentials(&request);
    let (login, password) = (&asked.login, &asked.password);
    let tokens = gateway.auth().sign_in(login, password, &brought, from);
    signed_in(&request, &gateway, tokens.await)
}

/// What to do with the session of another user that the browser has.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    /// Whether it is replaced. A link that somebody else made must not do that unasked: what is written next would go to
    /// the account of whoever made it.
    #[serde(default)]
    replace: bool,
}

/// Takes another application's token into a cookie, for the page. Refused with 409 `other_session` where the cookie
/// signs in another user, unless the request says to replace it.
async fn begin(
    request: HttpRequest,
    gateway: Data<Gateway>,
    asked: Option<web::Json<Begin>>,
) -> HttpResponse {
    if gateway.auth().mode() != AuthMode::Tokens {
        return no_accounts();
    }
    let identity = match identity(&request, &gateway).await {
        Ok(identity) if identity.user_id().is_some() => identity,
        Ok(_) => return unauthorized(),
        Err(response) => return response,
    };
    let replaces = asked.is_some_and(|asked| asked.replace);
    match request_auth::kept(&request, &gateway).await {
        Err(error) => return unavailable(&error),
        Ok(Some(kept)) if !replaces && kept.user_id() != identity.user_id() => {
            return other_session(&kept, &identity);
        }
        Ok(_) => {}
    }
    let token = request_auth::credentials(&request)
        .access
        .unwrap_or_default();
    answer(&json!({}), vec![request_auth::vouched(&request, &token)])
}

/// The answer that names both users, so that the page can ask which of them it should be.
fn other_session(kept: &Identity, offered: &Identity) -> HttpResponse {
    let name = |identity: &Identity| identity.profile.as_ref().map(|known| known.name.clone());
    let body = json!({
        "error": {
            "code": "other_session",
            "message": "this browser is signed in as another user: repeat the request with \"replace\": true to change that",
        },
        "kept": name(kept),
        "offered": name(offered),
    });
    HttpResponse::Conflict().insert_header(NO_STORE).json(body)
}

async fn refresh(request: HttpRequest, gateway: Data<Gateway>) -> HttpResponse {
    if gateway.auth().mode() != AuthMode::Accounts {
        return no_accounts();
    }
    let Some(token) = request_auth::refresh(&request) else {
        return unauthorized();
    };
    match gateway.auth().refresh(&token).await {
        Ok(tokens) => admitted(&request, &gateway, &tokens),
        Err(AuthError::Rejected(_)) => {
            let mut response = unauthorized();
            add(&mut response, request_auth::signed_out(&request));
            response
        }
        Err(denied) => denied_response(&denied),
    }
}

async fn sign_out(request: HttpRequest, gateway: Data<Gateway>) -> HttpResponse {
    if gateway.auth().mode() == AuthMode::Accounts {
        let (access, refresh) = (
            request_auth::credentials(&request).access,
            request_auth::refresh(&request),
        );
        let ended = gateway
            .auth()
            .sign_out(access.as_deref(), refresh.as_deref());
        if let Err(error) = ended.await {
            return unavailable(&error);
        }
    }
    answer(&json!({}), request_auth::signed_out(&request))
}

async fn sign_out_everywhere(request: HttpRequest, gateway: Data<Gateway>) -> HttpResponse {
    let identity = match identity(&request, &gateway).await {
        Ok(identity) => identity,
        Err(response) => return response,
    };
    let Some(user) = identity.user_id() else {
        return unauthorized();
    };
    match gateway.auth().sign_out_everywhere(user).await {
        Ok(()) => answer(&json!({}), request_auth::signed_out(&request)),
        Err(error) => unavailable(&error),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangePassword {
    present: String,
    next: String,
}

async fn change_password(
    request: HttpRequest,
    gateway: Data<Gateway>,
    asked: web::Json<ChangePassword>,
) -> HttpResponse {
    if gateway.auth().mode() != AuthMode::Accounts {
        return no_accounts();
    }
    let identity = match identity(&request, &gateway).await {
        Ok(identity) => identity,
        Err(response) => return response,
    };
    let (present, next) = (&asked.present, &asked.next);
    let changed = gateway.auth().change_password(&identity, present, next);
    match changed.await {
        Ok(()) => answer(&json!({}), Vec::new()),
        Err(denied) => denied_response(&denied),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Invite {
    role: Option<String>,
}

async fn invite(
    request: HttpRequest,
    gateway: Data<Gateway>,
    asked: web::Json<Invite>,
) -> HttpResponse {
    let identity = match host(&request, &gateway).await {
        Ok(identity) => identity,
        Err(response) => return response,
    };
    let Ok(role) = parse_role(asked.role.as_deref()) else {
        return no_such_role();
    };
    match gateway.auth().invite(&identity, role).await {
        Ok(code) => answer(&json!({ "code": code }), Vec::new()),
        Err(denied) => denied_response(&denied),
    }
}

/// The page of a list that a request asks for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct After {
    #[serde(default)]
    after: String,
}

/// How many accounts, and how many lines of the audit log, one answer holds.
const PEOPLE_MAX: usize = 200;
pub(super) const AUDIT_MAX: usize = 200;

async fn people(
    request: HttpRequest,
    gateway: Data<Gateway>,
    page: web::Query<After>,
) -> HttpResponse {
    let identity = match host(&request, &gateway).await {
        Ok(identity) => identity,
        Err(response) => return response,
    };
    let tenant = identity.tenant().unwrap_or(HOME_TENANT).to_owned();
    let after = page.into_inner().after;
    let found = gateway
        .auth()
        .accounts()
        .accounts_of(tenant, after, PEOPLE_MAX);
    respond(found.await.map(|users| {
        let is_full = users.len() == PEOPLE_MAX;
        let next = users.last().filter(|_| is_full).map(|user| &user.login);
        json!({ "next": next, "people": users.iter().map(shown_user).collect::<Vec<_>>() })
    }))
}

fn shown_user(user: &Account) -> Value {
    json!({
        "id": user.id.0,
        "login": user.login,
        "name": user.name,
        "role": user.role.map(Role::as_str),
        "disabled": user.disabled,
    })
}

async fn invitations(request: HttpRequest, gateway: Data<Gateway>) -> HttpResponse {
    let identity = match host(&request, &gateway).await {
        Ok(identity) => identity,
        Err(response) => return response,
    };
    let tenant = identity.tenant().unwrap_or(HOME_TENANT).to_owned();
    let found = gateway.auth().accounts().invitations(tenant).await;
    respond(found.map(|invitations| {
        let invitations: Vec<Value> = invitations.iter().map(shown_invitation).collect();
        json!({ "invitations": invitations })
    }))
}

fn shown_invitation(invited: &PendingInvitation) -> Value {
    json!({
        "id": invited.id.0,
        "role": invited.role.map(Role::as_str),
        "maker": invited.maker.0,
        "expires_at": invited.expires_at_ms,
    })
}

async fn end_invitation(
    request: HttpRequest,
    gateway: Data<Gateway>,
    id: web::Path<String>,
) -> HttpResponse {
    let identity = match host(&request, &gateway).await {
        Ok(identity) => identity,
        Err(response) => return response,
    };
    let Some(by) = identity.user_id().cloned() else {
        return unauthorized();
    };
    let tenant = identity.tenant().unwrap_or(HOME_TENANT).to_owned();
    let id = Subject(id.into_inner());
    match gateway
        .auth()
        .accounts()
        .delete_invitation(tenant, id, by)
        .await
    {
        Ok(true) => answer(&json!({}), Vec::new()),
        Ok(false) => {
            let message = "there is no such invitation";
            failure(StatusCode::NOT_FOUND, "not_found", message)
        }
        Err(error) => unavailable(&error),
    }
}

/// The page of the audit log that a request asks for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Before {
    pub(super) before: Option<u64>,
}

async fn audit(
    request: HttpRequest,
    gateway: Data<Gateway>,
    page: web::Query<Before>,
) -> HttpResponse {
    let identity = match tenant_owner(&request, &gateway).await {
        Ok(identity) => identity,
        Err(response) => return response,
    };
    let tenant = identity.tenant().unwrap_or(HOME_TENANT).to_owned();
    let accounts = gateway.auth().accounts();
    let deeds = accounts
        .audit_events_of(tenant, page.before, AUDIT_MAX)
        .await;
    respond(deeds.map(|deeds| shown_deeds(&deeds)))
}

/// A page of the audit log, and where the next one begins.
pub(super) fn shown_deeds(deeds: &[AuditEvent]) -> Value {
    let is_full = deeds.len() == AUDIT_MAX;
    let next = deeds.last().filter(|_| is_full).map(|deed| deed.number);
    json!({ "next": next, "deeds": deeds.iter().map(shown_deed).collect::<Vec<_>>() })
}

fn shown_deed(deed: &AuditEvent) -> Value {
    let document = deed.doc.as_ref();
    json!({
        "at": deed.at_ms,
        "actor": deed.actor.0,
        "deed": deed.action,
        "document": document.map(|(collection, id)| format!("{collection}/{id}")),
        "subject": deed.subject.as_ref().map(|subject| &subject.0),
        "detail": deed.detail,
        "times": deed.times,
        "last_at": deed.last_at_ms,
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SetDisabled {
    login: String,
    disabled: bool,
}

async fn set_disabled(
    request: HttpRequest,
    gateway: Data<Gateway>,
    asked: web::Json<SetDisabled>,
) -> HttpResponse {
    let identity = match host(&request, &gateway).await {
        Ok(identity) => identity,
        Err(response) => return response,
    };
    let auth = gateway.auth();
    let set = auth.set_disabled(&identity, &asked.login, asked.disabled);
    match set.await {
        Ok(()) => answer(&json!({}), Vec::new()),
        Err(denied) => denied_response(&denied),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AllowReset {
    login: String,
}

async fn allow_reset(
    request: HttpRequest,
    gateway: Data<Gateway>,
    asked: web::Json<AllowReset>,
) -> HttpResponse {
    let identity = match host(&request, &gateway).await {
        Ok(identity) => identity,
        Err(response) => return response,
    };
    match gateway.auth().allow_reset(&identity, &asked.login).await {
        Ok(code) => answer(&json!({ "code": code }), Vec::new()),
        Err(denied) => denied_response(&denied),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResetPassword {
    code: String,
    password: String,
}

async fn reset_password(
    request: HttpRequest,
    gateway: Data<Gateway>,
    asked: web::Json<ResetPassword>,
) -> HttpResponse {
    if gateway.auth().mode() != AuthMode::Accounts {
        return no_accounts();
    }
    let brought = request_auth::credentials(&request);
    let (code, password) = (&asked.code, &asked.password);
    let tokens = gateway.auth().reset_password(code, password, &brought);
    signed_in(&request, &gateway, tokens.await)
}

/// Whoever asks, if they own the whole tenant and its accounts are kept here.
async fn host(request: &HttpRequest, gateway: &Gateway) -> Result<Identity, HttpResponse> {
    if gateway.auth().mode() != AuthMode::Accounts {
        return Err(no_accounts());
    }
    tenant_owner(request, gateway).await
}

/// Whoever asks, if they own the whole tenant. Where everybody is let in nobody does.
async fn tenant_owner(request: &HttpRequest, gateway: &Gateway) -> Result<Identity, HttpResponse> {
    if gateway.auth().mode() == AuthMode::Open {
        return Err(no_accounts());
    }
    let identity = identity(request, gateway).await?;
    if identity.profile.as_ref().and_then(|known| known.role) == Some(Role::Owner) {
        return Ok(identity);
    }
    Err(failure(
        StatusCode::FORBIDDEN,
        "forbidden",
        "only who owns everything may do that",
    ))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SetTenantRole {
    login: String,
    role: Option<String>,
}

async fn set_tenant_role(
    request: HttpRequest,
    gateway: Data<Gateway>,
    asked: web::Json<SetTenantRole>,
) -> HttpResponse {
    let identity = match host(&request, &gateway).await {
        Ok(identity) => identity,
        Err(response) => return response,
    };
    let Ok(role) = parse_role(asked.role.as_deref()) else {
        return no_such_role();
    };
    let set = gateway
        .auth()
        .set_tenant_role(&identity, &asked.login, role);
    match set.await {
        Ok(_) => answer(&json!({}), Vec::new()),
        Err(denied) => denied_response(&denied),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SendAway {
    login: String,
}

async fn send_away(
    request: HttpRequest,
    gateway: Data<Gateway>,
    asked: web::Json<SendAway>,
) -> HttpResponse {
    let identity = match tenant_owner(&request, &gateway).await {
        Ok(identity) => identity,
        Err(response) => return response,
    };
    match gateway
        .auth()
        .end_user_sessions(&identity, &asked.login)
        .await
    {
        Ok(()) => answer(&json!({}), Vec::new()),
        Err(denied) => denied_response(&denied),
    }
}

/// What is no role.
#[derive(Debug)]
pub(super) struct NoSuchRole;

/// A role, or none.
pub(super) fn parse_role(text: Option<&str>) -> Result<Option<Role>, NoSuchRole> {
    text.map(|text| Role::parse(text).ok_or(NoSuchRole))
        .transpose()
}

pub(super) fn no_such_role() -> HttpResponse {
    failure(
        StatusCode::BAD_REQUEST,
        "bad_request",
        "a role is viewer, commenter, editor or owner",
    )
}

pub(super) fn no_accounts() -> HttpResponse {
    failure(
        StatusCode::NOT_FOUND,
        "not_found",
        "this server keeps no accounts",
    )
}

fn signed_in(
    request: &HttpRequest,
    gateway: &Gateway,
    tokens: Result<SessionTokens, AuthError>,
) -> HttpResponse {
    match tokens {
        Ok(tokens) => admitted(request, gateway, &tokens),
        Err(denied) => denied_response(&denied),
    }
}

fn admitted(request: &HttpRequest, gateway: &Gateway, tokens: &SessionTokens) -> HttpResponse {
    let lasts = gateway.auth().access_lifetime();
    answer(&json!({}), request_auth::signed_in(request, tokens, lasts))
}

pub(super) fn denied_response(denied: &AuthError) -> HttpResponse {
    let message = denied.to_string();
    match denied {
        AuthError::Throttled(wait) => {
            let mut response = failure(StatusCode::TOO_MANY_REQUESTS, "too_many", &message);
            let seconds = wait.as_secs().max(1);
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
            response
        }
        AuthError::Overloaded => {
            let mut response = failure(StatusCode::SERVICE_UNAVAILABLE, "busy", &message);
            response.headers_mut().insert(RETRY_AFTER, 1.into());
            response
        }
        AuthError::Rejected(_) => failure(StatusCode::FORBIDDEN, "refused", &message),
        AuthError::Invalid(_) => failure(StatusCode::UNPROCESSABLE_ENTITY, "unfit", &message),
        AuthError::Quota(_) => failure(StatusCode::TOO_MANY_REQUESTS, "quota", &message),
        AuthError::Store(error) => unavailable(error),
    }
}

pub(super) fn respond(body: Result<Value, StoreError>) -> HttpResponse {
    match body {
        Ok(body) => answer(&body, Vec::new()),
        Err(error) => unavailable(&error),
    }
}

pub(super) fn answer(body: &Value, cookies: Vec<Cookie<'static>>) -> HttpResponse {
    let mut response = HttpResponse::Ok().insert_header(NO_STORE).json(body);
    add(&mut response, cookies);
    response
}

fn add(response: &mut HttpResponse, cookies: Vec<Cookie<'static>>) {
    for cookie in cookies {
        // Names and values are ours, and printable.
        let _ = response.add_cookie(&cookie);
    }
}
