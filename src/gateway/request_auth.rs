//! What a request brings along: cookies, tokens, its page's origin, its address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

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

use super::assets;
use super::gateway::Gateway;
use super::health;
use super::responses::failure;
use super::socket::ConnectionHandle;
use crate::auth::{
    AuthMode, Credentials, Identity, RateLimitKey, RequestSource, SESSION_LIFETIME, SessionTokens,
    is_loopback, network,
};
use crate::store::StoreError;
use crate::sync::lock;

/// What the server speaks over a WebSocket, where the client offers a choice: beside it, `bearer.TOKEN` brings a token
/// along, which a browser's script cannot put into a header.
pub(super) const SUBPROTOCOL: &str = "copydesk";
const BEARER: &str = "bearer.";

const ACCESS: &str = "copydesk_access";
const REFRESH: &str = "copydesk_refresh";
const LINKS: &str = "copydesk_links";
const GUEST: &str = "copydesk_guest";
const DEVICE: &str = "copydesk_device";

/// Every request that changes something has this header: another site's page cannot add it.
const OURS: &str = "x-copydesk";

/// How many random bytes name a guest.
const GUEST_BYTES: usize = 16;

/// How long a guest is known by a browser, and a link stays open in it, in days.
const GUEST_DAYS: i64 = 365;
const LINKS_DAYS: i64 = 30;

/// How long a browser that has signed in is known, in days. Browsers keep no cookie longer.
const DEVICE_DAYS: i64 = 400;

/// What a request says about who makes it.
pub(super) fn credentials(request: &HttpRequest) -> Credentials {
    Credentials {
        access: bearer(request).or_else(|| cookie(request, ACCESS)),
        links: cookie(request, LINKS),
        guest: guest(request),
        device: cookie(request, DEVICE),
    }
}

/// The user that the browser's cookie signs in, whatever token the request itself brings.
///
/// # Errors
/// When the store does not answer.
pub(super) async fn kept(
    request: &HttpRequest,
    gateway: &Gateway,
) -> Result<Option<Identity>, StoreError> {
    let brought = Credentials {
        access: cookie(request, ACCESS),
        ..Credentials::default()
    };
    gateway.auth().identify(&brought).await
}

/// The principal that a request proves, whose pace it counts towards; `None`: it counts towards that of its address.
pub(super) fn rate_limit_key(
    request: &HttpRequest,
    gateway: &Gateway,
    address: IpAddr,
) -> Option<RateLimitKey> {
    let (auth, brought) = (gateway.auth(), credentials(request));
    let by_seal = auth.rate_limit_key_from_cookies(&brought);
    by_seal.or_else(|| {
        let is_token = auth.mode() == AuthMode::Tokens && brought.access.is_some();
        (is_token && gateway.limits().allow_token_check(address))
            .then(|| auth.rate_limit_key_from_token(&brought))
            .flatten()
    })
}

/// Where a request comes from.
pub(super) fn caller(request: &HttpRequest, gateway: &Gateway) -> RequestSource {
    let socket = request.conn_data::<ConnectionHandle>();
    let is_local = socket.is_some_and(ConnectionHandle::is_local);
    let host = said(request, HOST).unwrap_or_default();
    let is_passed_on = PASSED_ON
        .iter()
        .any(|name| request.headers().contains_key(*name));
    let auth = gateway.auth();
    RequestSource {
        address: address(request, gateway),
        is_own_machine: is_local && !is_passed_on && !auth.is_behind_proxy() && is_loopback(host),
    }
}

/// What proxies add to the requests that they pass on.
const PASSED_ON: [&str; 4] = ["x-forwarded-for", "x-real-ip", "forwarded", "via"];

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
        .conn_data::<ConnectionHandle>()
        .is_some_and(ConnectionHandle::is_encrypted)
    {
        return true;
    }
    let gateway = request.app_data::<Data<Gateway>>();
    let behind_proxy = gateway.is_some_and(|gateway| gateway.auth().is_behind_proxy());
    behind_proxy && last_forwarded(request, "x-forwarded-proto").is_some_and(is_tls)
}

/// Whether a proxy's word for the client's protocol means TLS; some name that of the socket.
fn is_tls(protocol: &str) -> bool {
    ["https", "wss"]
        .iter()
        .any(|it| it.eq_ignore_ascii_case(protocol))
}

/// What the proxy in front says: each proxy on the way adds its word at the end of the list.
fn last_forwarded<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    let header = request.headers().get_all(name).last()?;
    header.to_str().ok()?.rsplit(',').next().map(str::trim)
}

/// An address as proxies write it: with a port or without, one of IPv6 in brackets or without.
fn forwarded_address(said: &str) -> Option<IpAddr> {
    let bare = || said.strip_prefix('[')?.strip_suffix(']');
    let with_port = || said.parse().ok().map(|it: SocketAddr| it.ip());
    bare().unwrap_or(said).parse().ok().or_else(with_port)
}

/// The client's address.
pub(super) fn address(request: &HttpRequest, gateway: &Gateway) -> IpAddr {
    let peer = request.peer_addr().map(|peer| peer.ip());
    let said = || last_forwarded(request, "x-forwarded-for").and_then(forwarded_address);
    let said = gateway.auth().is_behind_proxy().then(said).flatten();
    said.or(peer).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// Whether the page that makes this request may act for its user.
pub(super) fn may_act(request: &HttpRequest, gateway: &Gateway) -> bool {
    let origin = said(request, ORIGIN);
    let host = said(request, HOST).unwrap_or_default();
    let is_secure = is_secure(request);
    is_for_us(request, gateway) && gateway.auth().allows_origin(origin, host, is_secure)
}

/// Whether the request was sent to a name of ours.
fn is_for_us(request: &HttpRequest, gateway: &Gateway) -> bool {
    let socket = request.conn_data::<ConnectionHandle>();
    let is_local = socket.is_none_or(ConnectionHandle::is_local);
    gateway.auth().allows_host(said(request, HOST), is_local)
}

/// What a header says; nothing readable is an empty text.
fn said(request: &HttpRequest, name: HeaderName) -> Option<&str> {
    let value = request.headers().get(name)?;
    Some(value.to_str().unwrap_or_default())
}

/// The refusal of a page of another origin. Names the origin in the log, for the operator who forgot to allow it.
pub(super) fn foreign_page(request: &HttpRequest) -> HttpResponse {
    if let Some(unsaid) = FOREIGN_PAGES.may_say() {
        let shown = |name| said(request, name).map(|it| it.chars().take(SHOWN_CHARS).collect());
        let origin: String = shown(ORIGIN).unwrap_or_default();
        let host: String = shown(HOST).unwrap_or_default();
        tracing::warn!(
            origin,
            host,
            unsaid,
            "request of another origin rejected: if the page is yours, add its origin to [auth] origins; if origin and host \
             differ only by the proxy in front, make it pass Host on unchanged"
        );
    }
    failure(
        StatusCode::FORBIDDEN,
        "foreign_page",
        "this page may not act for you here: its origin is not in [auth] origins",
    )
}

/// How much of a header is shown in the log.
const SHOWN_CHARS: usize = 200;

/// Keeps strangers from filling the log.
static FOREIGN_PAGES: Seldom = Seldom::new();

/// Lets something be said once in ten seconds.
struct Seldom(Mutex<Option<(Instant, u64)>>);

const SELDOM: Duration = Duration::from_secs(10);

impl Seldom {
    const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// How often it was not said since it last was; `None`: not now either.
    fn may_say(&self) -> Option<u64> {
        let mut last = lock(&self.0);
        if let Some((at, unsaid)) = &mut *last
            && at.elapsed() < SELDOM
        {
            *unsaid += 1;
            return None;
        }
        let unsaid = last.map_or(0, |(_, unsaid)| unsaid);
        *last = Some((Instant::now(), 0));
        Some(unsaid)
    }
}

/// Lets nothing be changed by another site's page, and nothing be read by the name of another site.
pub(super) async fn check_origin(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    if is_watched(request.request()) {
        let refusal = foreign_page(request.request());
        return Ok(request.into_response(refusal));
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
    let is_ours = gateway.auth().mode() == AuthMode::Open
        || request.headers().contains_key(OURS)
        || request.headers().contains_key(AUTHORIZATION);
    !is_ours || !may_act(request, gateway)
}

/// Lets an address ask no more than its share. Counted is every request but those for the page, its files and whether the
/// process lives, which are answered from memory: by its decoded path, for that is what is routed by, and whether or not there is such a route.
pub(super) async fn limit_request_rate(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let gateway = request
        .app_data::<Data<Gateway>>()
        .filter(|gateway| gateway.auth().mode() != AuthMode::Open && is_paced(gateway, &request));
    if let Some(gateway) = gateway.cloned()
        && !allow_request(request.request(), &gateway)
    {
        gateway.limits().delay_rejection().await;
        return Ok(request.into_response(too_fast()));
    }
    next.call(request)
        .await
        .map(ServiceResponse::map_into_boxed_body)
}

/// Whether a request is within the pace of its principal or, where it proves none, of its address.
fn allow_request(request: &HttpRequest, gateway: &Gateway) -> bool {
    let address = network(address(request, gateway));
    let principal = rate_limit_key(request, gateway, address);
    gateway.limits().allow_request(address, principal)
}

/// Whether a request counts towards its address's pace. Sockets have a pace of their own.
fn is_paced(gateway: &Gateway, request: &ServiceRequest) -> bool {
    let path = request.match_info().as_str();
    let is_page = gateway.below_base(path).is_some_and(assets::is_page);
    let is_free = *request.method() == Method::GET && (is_page || health::is_liveness(path));
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
    tokens: &SessionTokens,
    access_lasts: Duration,
) -> Vec<Cookie<'static>> {
    let seconds = |lasts: Duration| CookieDuration::seconds(lasts.as_secs().cast_signed());
    let access = build(request, ACCESS, &tokens.access, seconds(access_lasts));
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

/// The cookies that sign somebody out. The browser stays known: see [`Tokens::device`].
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

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn addresses_are_read_as_proxies_write_them() {
        for (said, address) in [
            ("192.0.2.7", Some("192.0.2.7")),
            ("192.0.2.7:4711", Some("192.0.2.7")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:4711", Some("2001:db8::1")),
            ("unknown", None),
            ("", None),
            ("[192.0.2.7", None),
            ("192.0.2.7:port", None),
        ] {
            let expected: Option<IpAddr> = address.map(|it| it.parse().unwrap());
            assert_eq!(forwarded_address(said), expected, "{said}");
        }
    }

    #[test]
    fn the_proxy_in_front_has_the_last_word() {
        let name = "x-forwarded-proto";
        for (said, last, secure) in [
            (&["https"][..], "https", true),
            (&["https, https"], "https", true),
            (&["http,HTTPS"], "HTTPS", true),
            (&["http", "wss"], "wss", true),
            (&["https, http"], "http", false),
            (&["https", "http"], "http", false),
        ] {
            let request = said
                .iter()
                .fold(TestRequest::default(), |request, line| {
                    request.append_header((name, *line))
                })
                .to_http_request();
            assert_eq!(last_forwarded(&request, name), Some(last));
            assert_eq!(is_tls(last), secure, "{said:?}");
        }
    }

    #[test]
    fn what_is_said_seldom_is_counted() {
        let seldom = Seldom::new();
        assert_eq!(seldom.may_say(), Some(0));
        assert_eq!([seldom.may_say(), seldom.may_say()], [None, None]);
        *seldom.0.lock().unwrap() = Some((Instant::now() - SELDOM, 2));
        assert_eq!(seldom.may_say(), Some(2));
    }
}
