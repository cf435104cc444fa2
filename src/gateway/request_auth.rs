//! What a request proves about its sender: credentials and the rate limit key; and the rate limit of requests.

use std::net::IpAddr;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use actix_web::middleware::Next;
use actix_web::{HttpRequest, ResponseError};

use super::api_error::ApiError;
use super::assets;
use super::cookies;
use super::gateway::Gateway;
use super::health;
use super::request_source::{address, gateway};
use crate::auth::{AuthMode, Credentials, RateLimitKey, network};

/// The WebSocket subprotocol. A client may offer `bearer.TOKEN` beside it, because scripts of a browser cannot set headers of
/// a handshake.
pub(super) const SUBPROTOCOL: &str = "copydesk";
const BEARER: &str = "bearer.";

/// The credentials of a request: a bearer token takes precedence over the cookie.
pub(super) fn credentials(request: &HttpRequest) -> Credentials {
    cookies::credentials(request, bearer(request))
}

fn bearer(request: &HttpRequest) -> Option<String> {
    let header = |name| request.headers().get(name)?.to_str().ok();
    if let Some(value) = header(AUTHORIZATION) {
        return value.strip_prefix("Bearer ").map(str::to_owned);
    }
    header(SEC_WEBSOCKET_PROTOCOL)?
        .split(',')
        .find_map(|offered| offered.trim().strip_prefix(BEARER))
        .map(str::to_owned)
}

/// The key of the rate limit that a request counts towards; `None`: that of its address.
pub(super) fn rate_limit_key(
    request: &HttpRequest,
    gateway: &Gateway,
    network: IpAddr,
) -> Option<RateLimitKey> {
    let (auth, credentials) = (gateway.auth(), credentials(request));
    auth.rate_limit_key_from_cookies(&credentials).or_else(|| {
        let has_token = auth.mode() == AuthMode::Tokens && credentials.access.is_some();
        (has_token && gateway.limits().allow_token_check(network))
            .then(|| auth.rate_limit_key_from_token(&credentials))
            .flatten()
    })
}

/// Middleware: limits the request rate of each principal or, without one, of each address.
///
/// Requests for the page, its files and the liveness probe are free: they are answered from memory. They are recognised by
/// the decoded path, which routes the request, whether there is such a route or not.
pub(super) async fn limit_request_rate(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let gateway = gateway(request.request()).clone();
    if gateway.auth().mode() != AuthMode::Open
        && is_limited(&gateway, &request)
        && !allow_request(request.request(), &gateway)
    {
        gateway.limits().delay_rejection().await;
        return Ok(request.into_response(ApiError::RequestRate.error_response()));
    }
    next.call(request)
        .await
        .map(ServiceResponse::map_into_boxed_body)
}

/// Returns true if a request counts towards the rate limit. WebSocket handshakes have limits of their own.
fn is_limited(gateway: &Gateway, request: &ServiceRequest) -> bool {
    let path = request.match_info().as_str();
    let is_page = gateway.below_base(path).is_some_and(assets::is_page);
    let is_free = *request.method() == Method::GET && (is_page || health::is_liveness(path));
    !is_free && !gateway.is_socket_path(path)
}

fn allow_request(request: &HttpRequest, gateway: &Gateway) -> bool {
    let network = network(address(request, gateway));
    let key = rate_limit_key(request, gateway, network);
    gateway.limits().allow_request(network, key)
}
