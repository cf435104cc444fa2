//! What a request brings along: cookies, tokens, its page's origin, its address.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::cookie::time::Duration as CookieDuration;
use actix_web::cookie::{Cookie, SameSite};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::answers::failure;
use super::gateway::Gateway;
use super::page;
use super::socket::Socket;
use crate::auth::{Credentials, Mode, SESSION_LASTS, Tokens, network};

/// What the server speaks over a WebSocket, where the client offers a choice: beside it, `bearer.TOKEN` brings a token
/// along, which a browser's script cannot put into a header.
pub(super) const SUBPROTOCOL: &str = "copydesk";
const BEARER: &str = "bearer.";

const ACCESS: &str = "copydesk_access";
const REFRESH: &str = "copydesk_refresh";
const LINKS: &str = "copydesk_links";
const GUEST: &str = "copydesk_guest";

/// Every request that changes something has this header: another site's page cannot add it.
const OURS: &str = "x-copydesk";

/// How many random bytes name a guest.
const GUEST_BYTES: usize = 16;

/// How long a guest is known by a browser, and a link stays open in it, in days.
const GUEST_DAYS: i64 = 365;
const LINKS_DAYS: i64 = 30;

/// What a request says about who makes it.
pub(super) fn credentials(request: &HttpRequest) -> Credentials {
    Credentials {
        access: bearer(request).or_else(|| cookie(request, ACCESS)),
        links: cookie(request, LINKS),
        guest: guest(request),
    }
}

/// The refresh token that a request brings along.
pub(super) fn refresh(request: &HttpRequest) -> Option<String> {
    cookie(request, REFRESH)
}

fn bearer(request: &HttpRequest) -> Option<String> {
    let header = |name| request.headers().get(name)?.to_str().ok();
    if let Some(value) = header(AUTHORIZATION) {
        return value.strip_prefix("Bearer ").map(str::to_owned);
    }
    let offered = header(SEC_WEBSOCKET_PROTOCOL)?.split(',');
    offered
        .filter_map(|one| one.trim().strip_prefix(BEARER))
        .map(str::to_owned)
        .next()
}

fn guest(request: &HttpRequest) -> Option<String> {
    cookie(request, GUEST).filter(|value| {
        URL_SAFE_NO_PAD
            .decode(value)
            .is_ok_and(|bytes| bytes.len() == GUEST_BYTES)
    })
}

/// The cookie by its name over TLS, which only this very server can have set, or by its plain name without.
fn cookie(request: &HttpRequest, name: &str) -> Option<String> {
    let cookie = request.cookie(&name_of(name, is_secure(request)))?;
    Some(cookie.value().to_owned())
}

fn name_of(name: &str, is_secure: bool) -> String {
    let prefix = if is_secure { "__Host-" } else { "" };
    format!("{prefix}{name}")
}

/// Whether the client's end speaks TLS: to us, or to the proxy in front.
pub(super) fn is_secure(request: &HttpRequest) -> bool {
    if request
        .conn_data::<Socket>()
        .is_some_and(Socket::is_encrypted)
    {
        return true;
    }
    let gateway = request.app_data::<Data<Gateway>>();
    let behind_proxy = gateway.is_some_and(|gateway| gateway.door().is_behind_proxy());
    let said = || request.headers().get("x-forwarded-proto")?.to_str().ok();
    behind_proxy && said() == Some("https")
}

/// The client's address.
pub(super) fn address(request: &HttpRequest, gateway: &Gateway) -> IpAddr {
    let peer = request.peer_addr().map(|peer| peer.ip());
    let said = || {
        let header = request.headers().get_all("x-forwarded-for").last()?;
        header
            .to_str()
            .ok()?
            .rsplit(',')
            .next()?
            .trim()
            .parse()
            .ok()
    };
    let said = gateway.door().is_behind_proxy().then(said).flatten();
    said.or(peer).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// Whether the page that makes this request may act for its user.
pub(super) fn may_act(request: &HttpRequest, gateway: &Gateway) -> bool {
    let origin = said(request, ORIGIN);
    let host = said(request, HOST).unwrap_or_default();
    let is_secure = is_secure(request);
    is_for_us(request, gateway) && gateway.door().may_act(origin, host, is_secure)
}

/// Whether the request was sent to a name of ours.
fn is_for_us(request: &HttpRequest, gateway: &Gateway) -> bool {
    let socket = request.conn_data::<Socket>();
    let is_local = socket.is_none_or(Socket::is_local);
    gateway.door().is_for_us(said(request, HOST), is_local)
}

/// What a header says; nothing readable is an empty text.
fn said(request: &HttpRequest, name: HeaderName) -> Option<&str> {
    let value = request.headers().get(name)?;
    Some(value.to_str().unwrap_or_default())
}

pub(super) fn foreign_page() -> HttpResponse {
    failure(
        StatusCode::FORBIDDEN,
        "foreign_page",
        "this page may not act for you here",
    )
}

/// Lets nothing be changed by another site's page, and nothing be read by the name of another site.
pub(super) async fn watch_origin(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    if is_watched(request.request()) {
        return Ok(request.into_response(foreign_page()));
    }
    next.call(request)
        .await
        .map(ServiceResponse::map_into_boxed_body)
}

fn is_watched(request: &HttpRequest) -> bool {
    let Some(gateway) = request.app_data::<Data<Gateway>>() else {
        return true;
    };
    let method = request.method();
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return !is_for_us(request, gateway);
    }
    let is_ours = gateway.door().mode() == Mode::Open
        || request.headers().contains_key(OURS)
        || request.headers().contains_key(AUTHORIZATION);
    !is_ours || !may_act(request, gateway)
}

/// Lets an address ask no more than its share. Counted is every request but those for the page and its files, which are
/// answered from memory: by its decoded path, for that is what is routed by, and whether or not there is such a route.
pub(super) async fn watch_pace(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let gateway = request
        .app_data::<Data<Gateway>>()
        .filter(|gateway| gateway.door().mode() != Mode::Open && is_paced(gateway, &request));
    if let Some(gateway) = gateway.cloned()
        && !gateway
            .limits()
            .may_ask(network(address(request.request(), &gateway)))
    {
        gateway.limits().hold_back().await;
        return Ok(request.into_response(too_fast()));
    }
    next.call(request)
        .await
        .map(ServiceResponse::map_into_boxed_body)
}

/// Whether a request counts towards its address's pace. Sockets have a pace of their own.
fn is_paced(gateway: &Gateway, request: &ServiceRequest) -> bool {
    let path = request.match_info().as_str();
    let is_page = gateway.below_base(path).is_some_and(page::is_page);
    let is_free = *request.method() == Method::GET && is_page;
    !is_free && !gateway.is_socket_path(path)
}

pub(super) fn too_fast() -> HttpResponse {
    failure(
        StatusCode::TOO_MANY_REQUESTS,
        "too_many",
        "too many requests: try again",
    )
}

/// The cookies that sign somebody in.
pub(super) fn signed_in(
    request: &HttpRequest,
    tokens: &Tokens,
    access_lasts: Duration,
) -> Vec<Cookie<'static>> {
    let seconds = |lasts: Duration| CookieDuration::seconds(lasts.as_secs().cast_signed());
    let access = build(request, ACCESS, &tokens.access, seconds(access_lasts));
    let refresh = tokens
        .refresh
        .as_ref()
        .map(|refresh| build(request, REFRESH, refresh, seconds(SESSION_LASTS)));
    std::iter::once(access).chain(refresh).collect()
}

/// The cookies that sign somebody out.
pub(super) fn signed_out(request: &HttpRequest) -> Vec<Cookie<'static>> {
    let gone = |name| build(request, name, "", CookieDuration::ZERO);
    [ACCESS, REFRESH, LINKS].map(gone).into()
}

/// The cookie that keeps another application's token.
pub(super) fn vouched(request: &HttpRequest, token: &str) -> Cookie<'static> {
    // The token says itself when it ends.
    build(request, ACCESS, token, CookieDuration::days(1))
}

/// The cookie that keeps share links open.
pub(super) fn opened(request: &HttpRequest, links: &str) -> Cookie<'static> {
    build(request, LINKS, links, CookieDuration::days(LINKS_DAYS))
}

/// The cookie that tells a guest from others, where there is none yet.
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

/// A cookie that no script reads and no other site sends along.
fn build(request: &HttpRequest, name: &str, value: &str, lasts: CookieDuration) -> Cookie<'static> {
    let is_secure = is_secure(request);
    Cookie::build(name_of(name, is_secure), value.to_owned())
        .path("/")
        .http_only(true)
        .secure(is_secure)
        .same_site(SameSite::Strict)
        .max_age(lasts)
        .finish()
}
