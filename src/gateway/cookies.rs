//! The cookies of a browser: sessions, share links, guests, known devices.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::cookie::time::Duration as CookieDuration;
use actix_web::cookie::{Cookie, SameSite};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::request_source::is_secure;
use crate::auth::{Credentials, SESSION_LIFETIME, SessionTokens};

const ACCESS: &str = "copydesk_access";
const REFRESH: &str = "copydesk_refresh";
const LINKS: &str = "copydesk_links";
const GUEST: &str = "copydesk_guest";
const DEVICE: &str = "copydesk_device";

/// The random bytes that identify a guest.
const GUEST_BYTES: usize = 16;

/// The lifetimes of cookies, in days. 400 is the most that browsers accept.
const GUEST_DAYS: i64 = 365;
const LINKS_DAYS: i64 = 30;
const DEVICE_DAYS: i64 = 400;

/// The credentials in the cookies of a request. `bearer`: a token of its headers, which takes precedence.
pub(super) fn credentials(request: &HttpRequest, bearer: Option<String>) -> Credentials {
    Credentials {
        access: bearer.or_else(|| read(request, ACCESS)),
        links: read(request, LINKS),
        guest: guest(request),
        device: read(request, DEVICE),
    }
}

/// The access token in the cookie alone, whatever token the headers of the request have.
pub(super) fn session_only(request: &HttpRequest) -> Credentials {
    Credentials {
        access: read(request, ACCESS),
        ..Credentials::default()
    }
}

/// The refresh token of a request.
pub(super) fn refresh_token(request: &HttpRequest) -> Option<String> {
    read(request, REFRESH)
}

/// The cookies of a session that began or was renewed.
pub(super) fn signed_in(
    request: &HttpRequest,
    tokens: &SessionTokens,
    access_lifetime: Duration,
) -> Vec<Cookie<'static>> {
    let seconds = |lifetime: Duration| CookieDuration::seconds(lifetime.as_secs().cast_signed());
    let access = build(request, ACCESS, &tokens.access, seconds(access_lifetime));
    let refresh = tokens
        .refresh
        .as_ref()
        .map(|refresh| build(request, REFRESH, refresh, seconds(SESSION_LIFETIME)));
    let device = tokens
        .device
        .as_ref()
        .map(|device| build(request, DEVICE, device, CookieDuration::days(DEVICE_DAYS)));
    let others = refresh.into_iter().chain(device);
    std::iter::once(access).chain(others).collect()
}

/// The cookies that sign a browser out. Its device stays known: see [`SessionTokens::device`].
pub(super) fn signed_out(request: &HttpRequest) -> Vec<Cookie<'static>> {
    let removed = |name| build(request, name, "", CookieDuration::ZERO);
    [ACCESS, REFRESH, LINKS].map(removed).into()
}

/// The cookie that keeps another application's token. The token has an expiry of its own.
pub(super) fn token(request: &HttpRequest, token: &str) -> Cookie<'static> {
    build(request, ACCESS, token, CookieDuration::days(1))
}

/// The cookie of the opened share links.
pub(super) fn links(request: &HttpRequest, links: &str) -> Cookie<'static> {
    build(request, LINKS, links, CookieDuration::days(LINKS_DAYS))
}

/// A cookie that distinguishes this guest from others; `None` if the request has one.
pub(super) fn new_guest(request: &HttpRequest) -> Option<Cookie<'static>> {
    if guest(request).is_some() {
        return None;
    }
    let mut name = [0; GUEST_BYTES];
    getrandom::fill(&mut name).ok()?;
    let name = URL_SAFE_NO_PAD.encode(name);
    Some(build(
        request,
        GUEST,
        &name,
        CookieDuration::days(GUEST_DAYS),
    ))
}

fn guest(request: &HttpRequest) -> Option<String> {
    read(request, GUEST).filter(|value| {
        URL_SAFE_NO_PAD
            .decode(value)
            .is_ok_and(|bytes| bytes.len() == GUEST_BYTES)
    })
}

/// The value of a cookie: over TLS of the name with the `__Host-` prefix, which only this server can set.
fn read(request: &HttpRequest, name: &str) -> Option<String> {
    let cookie = request.cookie(&full_name(name, is_secure(request)))?;
    Some(cookie.value().to_owned())
}

fn full_name(name: &str, is_secure: bool) -> String {
    let prefix = if is_secure { "__Host-" } else { "" };
    format!("{prefix}{name}")
}

/// A cookie that scripts cannot read and other sites' pages do not send.
fn build(
    request: &HttpRequest,
    name: &str,
    value: &str,
    lifetime: CookieDuration,
) -> Cookie<'static> {
    let is_secure = is_secure(request);
    Cookie::build(full_name(name, is_secure), value.to_owned())
        .path("/")
        .http_only(true)
        .secure(is_secure)
        .same_site(SameSite::Strict)
        .max_age(lifetime)
        .finish()
}
