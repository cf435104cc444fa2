//! Sessions and the user's own account: registration, signing in and out, passwords.

use actix_web::cookie::Cookie;
use actix_web::web::{Data, Json};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use serde::Serialize;

use super::extract::{Accounts, ClientAddress, InOrder, SignedIn, TokensMode};
use super::messages::{
    BeginSessionRequest, ChangePasswordRequest, Empty, MeResponse, MeUser, RegisterRequest,
    ResetPasswordRequest, SignInRequest,
};
use crate::access::{HOME_TENANT, Role};
use crate::auth::{
    AuthError, AuthMode, AuthService, Credentials, Identity, NewAccount, PASSWORD_CHARS_MIN,
    RequestSource, SessionTokens,
};
use crate::gateway::api_error::ApiError;
use crate::gateway::cookies;
use crate::gateway::gateway::Gateway;
use crate::gateway::metrics::SignInResult;

/// The state of the session, for the page.
pub(super) async fn me(
    credentials: Credentials,
    source: RequestSource,
    auth: Data<AuthService>,
) -> Result<Json<MeResponse>, ApiError> {
    let identity = auth.identify(&credentials).await?;
    let needs_setup = match auth.mode() {
        AuthMode::Accounts => !auth.accounts().has_accounts().await?,
        AuthMode::Open | AuthMode::Tokens => false,
    };
    let user = identity.as_ref().and_then(me_user);
    let tenant = identity
        .as_ref()
        .map_or(HOME_TENANT, Identity::tenant_or_home);
    let lifetime_ms = u64::try_from(auth.access_lifetime().as_millis()).unwrap_or(u64::MAX);
    Ok(Json(MeResponse {
        collection: default_collection(tenant),
        is_guest: identity.is_some() && user.is_none(),
        mode: auth.mode().as_str(),
        needs_setup,
        needs_setup_code: needs_setup && !source.is_own_machine,
        password_chars_min: PASSWORD_CHARS_MIN,
        registration: auth.registration().as_str(),
        renew_after_ms: lifetime_ms.saturating_mul(8) / 10,
        user,
    }))
}

fn me_user(identity: &Identity) -> Option<MeUser> {
    let (id, profile) = (identity.user_id()?, identity.profile.as_ref()?);
    Some(MeUser {
        id: id.0.clone(),
        login: profile.login.clone(),
        may_sign_out: identity.session.is_some(),
        name: profile.name.clone(),
        role: profile.role.map(Role::as_str),
    })
}

/// The collection that the page lists.
fn default_collection(tenant: &str) -> String {
    match tenant {
        HOME_TENANT => "documents".to_owned(),
        other => format!("{other}:documents"),
    }
}

/// Creates an account and signs in.
pub(super) async fn register(
    InOrder(Json(body), Accounts(auth)): InOrder<Json<RegisterRequest>, Accounts>,
    credentials: Credentials,
    source: RequestSource,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let account = NewAccount {
        login: body.login,
        name: body.name,
        password: body.password,
        invitation: body.invitation,
    };
    let tokens = auth.register(&account, &credentials, source).await?;
    Ok(signed_in(&request, &auth, &tokens))
}

pub(super) async fn sign_in(
    InOrder(Json(body), Accounts(auth)): InOrder<Json<SignInRequest>, Accounts>,
    credentials: Credentials,
    ClientAddress(address): ClientAddress,
    gateway: Data<Gateway>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let tokens = auth.sign_in(&body.login, &body.password, &credentials, address);
    let tokens = tokens.await;
    let sign_ins = &gateway.metrics().sign_ins;
    sign_ins.of(SignInResult::of(&tokens)).inc();
    Ok(signed_in(&request, &auth, &tokens?))
}

/// Keeps another application's token in a cookie, for the page. Answers 409 `other_session` if the cookie signs in another
/// user, unless the request says to replace it.
pub(super) async fn begin(
    InOrder(body, InOrder(TokensMode, SignedIn(identity))): InOrder<
        Option<Json<BeginSessionRequest>>,
        InOrder<TokensMode, SignedIn>,
    >,
    credentials: Credentials,
    auth: Data<AuthService>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let user = identity.user_id().ok_or(ApiError::SignInRequired)?;
    let replaces = body.is_some_and(|Json(body)| body.replace);
    let kept = auth.identify(&cookies::session_only(&request)).await?;
    if let Some(kept) = kept.filter(|kept| !replaces && kept.user_id() != Some(user)) {
        return Err(ApiError::OtherSession {
            kept: display_name(&kept),
            offered: display_name(&identity),
        });
    }
    let token = credentials.access.unwrap_or_default();
    Ok(with_cookies(
        &Empty {},
        vec![cookies::token(&request, &token)],
    ))
}

fn display_name(identity: &Identity) -> Option<String> {
    identity
        .profile
        .as_ref()
        .map(|profile| profile.name.clone())
}

/// Renews the session. If it is over, the answer removes its cookies.
pub(super) async fn refresh(
    Accounts(auth): Accounts,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let token = cookies::refresh_token(&request).ok_or(ApiError::SignInRequired)?;
    match auth.refresh(&token).await {
        Ok(tokens) => Ok(signed_in(&request, &auth, &tokens)),
        Err(AuthError::Rejected(_)) => {
            let mut response = ApiError::SignInRequired.error_response();
            add_cookies(&mut response, cookies::signed_out(&request));
            Ok(response)
        }
        Err(error) => Err(error.into()),
    }
}

/// Ends the session, if there is one, and removes its cookies.
pub(super) async fn sign_out(
    credentials: Credentials,
    auth: Data<AuthService>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    if auth.mode() == AuthMode::Accounts {
        let refresh = cookies::refresh_token(&request);
        auth.sign_out(credentials.access.as_deref(), refresh.as_deref())
            .await?;
    }
    Ok(with_cookies(&Empty {}, cookies::signed_out(&request)))
}

pub(super) async fn sign_out_everywhere(
    SignedIn(identity): SignedIn,
    auth: Data<AuthService>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let user = identity.user_id().ok_or(ApiError::SignInRequired)?;
    auth.sign_out_everywhere(user).await?;
    Ok(with_cookies(&Empty {}, cookies::signed_out(&request)))
}

pub(super) async fn change_password(
    InOrder(Json(body), InOrder(Accounts(auth), SignedIn(identity))): InOrder<
        Json<ChangePasswordRequest>,
        InOrder<Accounts, SignedIn>,
    >,
) -> Result<Json<Empty>, ApiError> {
    auth.change_password(&identity, &body.present, &body.next)
        .await?;
    Ok(Json(Empty {}))
}

/// Sets a new password by the code of a reset, and signs in.
pub(super) async fn reset_password(
    InOrder(Json(body), Accounts(auth)): InOrder<Json<ResetPasswordRequest>, Accounts>,
    credentials: Credentials,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let tokens = auth.reset_password(&body.code, &body.password, &credentials);
    Ok(signed_in(&request, &auth, &tokens.await?))
}

fn signed_in(request: &HttpRequest, auth: &AuthService, tokens: &SessionTokens) -> HttpResponse {
    let cookies = cookies::signed_in(request, tokens, auth.access_lifetime());
    with_cookies(&Empty {}, cookies)
}

/// 200 with a JSON body and cookies.
pub(super) fn with_cookies(body: &impl Serialize, cookies: Vec<Cookie<'static>>) -> HttpResponse {
    let mut response = HttpResponse::Ok().json(body);
    add_cookies(&mut response, cookies);
    response
}

fn add_cookies(response: &mut HttpResponse, cookies: Vec<Cookie<'static>>) {
    for cookie in cookies {
        // Fails only for values that no header can hold; these are base64 or already came in a header.
        let _ = response.add_cookie(&cookie);
    }
}
