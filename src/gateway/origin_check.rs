//! Protection against pages of other sites: cross-site requests and DNS rebinding.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{AUTHORIZATION, HOST, ORIGIN};
use actix_web::middleware::Next;
use actix_web::{HttpRequest, ResponseError};

use super::api_error::ApiError;
use super::gateway::Gateway;
use super::request_source::{gateway, header, is_secure};
use super::socket::ConnectionHandle;
use crate::auth::AuthMode;
use crate::outage::LineLimit;

/// Requests that change something have this header, which pages of other sites cannot add.
const REQUEST_HEADER: &str = "x-copydesk";

/// How many characters of a header are logged.
const LOGGED_CHARS_MAX: usize = 200;

/// Middleware: rejects changes by pages of other sites, and every request by the host name of another site.
pub(super) async fn check_origin(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    if !is_allowed(request.request(), gateway(request.request())) {
        let error = other_origin(request.request());
        return Ok(request.into_response(error.error_response()));
    }
    next.call(request)
        .await
        .map(ServiceResponse::map_into_boxed_body)
}

fn is_allowed(request: &HttpRequest, gateway: &Gateway) -> bool {
    if matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    ) {
        return allows_host(request, gateway);
    }
    let has_header = gateway.auth().mode() == AuthMode::Open
        || request.headers().contains_key(REQUEST_HEADER)
        || request.headers().contains_key(AUTHORIZATION);
    has_header && may_act(request, gateway)
}

/// Returns true if the page that sends this request may act for its user.
pub(super) fn may_act(request: &HttpRequest, gateway: &Gateway) -> bool {
    let origin = header(request, ORIGIN);
    let host = header(request, HOST).unwrap_or_default();
    let is_secure = is_secure(request);
    allows_host(request, gateway) && gateway.auth().allows_origin(origin, host, is_secure)
}

/// Returns true if the request was sent to a host name of this server.
fn allows_host(request: &HttpRequest, gateway: &Gateway) -> bool {
    let connection = request.conn_data::<ConnectionHandle>();
    let is_local = connection.is_none_or(ConnectionHandle::is_local);
    gateway.auth().allows_host(header(request, HOST), is_local)
}

/// The error for a request of another origin. Logs the origin, because the operator may have forgotten to allow it.
pub(super) fn other_origin(request: &HttpRequest) -> ApiError {
    static LIMIT: LineLimit = LineLimit::new();
    if let Some(left_out) = LIMIT.pass() {
        let logged = |name| {
            header(request, name).map(|it| it.chars().take(LOGGED_CHARS_MAX).collect::<String>())
        };
        tracing::warn!(
            origin = logged(ORIGIN).unwrap_or_default(),
            host = logged(HOST).unwrap_or_default(),
            left_out,
            "request of another origin rejected: if the page is yours, add its origin to [auth] origins; if origin and host \
             differ only by the proxy in front, make it pass Host on unchanged"
        );
    }
    ApiError::OtherOrigin
}
