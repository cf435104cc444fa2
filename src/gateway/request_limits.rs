//! Limits of HTTP requests, for all routes and methods: the size of the head and the body, and the time for the body.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::{JsonPayloadError, PayloadError};
use actix_web::http::ConnectionType;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use actix_web::middleware::Next;
use actix_web::rt::time::{Sleep, sleep};
use actix_web::web::{Bytes, Data, JsonConfig};
use actix_web::{HttpMessage, HttpRequest, ResponseError};
use futures_util::Stream;

use super::api_error::ApiError;
use super::connection_deadlines::RequestBody;
use super::gateway::Gateway;
use super::request_source;
use super::socket::ConnectionHandle;
use crate::auth::{AuthMode, network};

/// The longest path and query of a request, in bytes.
const URL_BYTES_MAX: usize = 8 << 10;

/// The most bytes of the names and values of a request's headers. actix-http itself answers 431 to a head of more than
/// 128 KiB or of more than 96 headers.
const HEADERS_BYTES_MAX: usize = 32 << 10;

/// Reads JSON bodies of up to `bytes_max` bytes. Bodies are never decompressed: [`enforce`] rejects compressed ones, and the
/// decompressors are not compiled in.
pub(super) fn json_config(bytes_max: usize) -> JsonConfig {
    JsonConfig::default()
        .limit(bytes_max)
        .error_handler(move |error, _| body_error(&error, bytes_max).into())
}

fn body_error(error: &JsonPayloadError, bytes_max: usize) -> ApiError {
    match error {
        JsonPayloadError::OverflowKnownLength { .. }
        | JsonPayloadError::Overflow { .. }
        | JsonPayloadError::Payload(PayloadError::Overflow) => ApiError::BodyTooLarge(bytes_max),
        JsonPayloadError::ContentType => ApiError::BodyNotJson,
        JsonPayloadError::Payload(PayloadError::Io(error))
            if error.kind() == io::ErrorKind::TimedOut =>
        {
            ApiError::BodyTimeout
        }
        error => ApiError::BadRequest(error.to_string()),
    }
}

/// Rejects a request if its head exceeds a limit, limits the bytes and the time of its body, and closes the connection after
/// the response if a part of the body is unread.
pub(super) async fn enforce(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let Some(gateway) = request.app_data::<Data<Gateway>>().cloned() else {
        return Err(actix_web::error::ErrorInternalServerError("no gateway"));
    };
    let connection = request.conn_data::<ConnectionHandle>().cloned();
    if let Some(connection) = &connection {
        connection.deadlines().request_started();
    }
    let unread = Unread::default();
    let response = match head_rejection(request.request(), gateway.settings().request_bytes_max) {
        Some(error) => {
            unread.set(!matches!(request.take_payload(), Payload::None));
            Ok(request.into_response(error.error_response()))
        }
        None => {
            limit_body(&mut request, &gateway, &unread);
            let response = next.call(request).await;
            let response = response.map(ServiceResponse::map_into_boxed_body);
            match response {
                Ok(response) => Ok(limit_response_rate(response, &gateway).await),
                error => error,
            }
        }
    };
    if let Some(connection) = &connection {
        let body = if unread.get() {
            RequestBody::Unread
        } else {
            RequestBody::Read
        };
        connection.deadlines().request_finished(body);
    }
    let mut response = response?;
    if unread.get() {
        let head = response.response_mut().head_mut();
        head.set_connection_type(ConnectionType::Close);
    }
    Ok(response)
}

/// The size of the largest response that is not counted: the number of requests is limited already.
const SMALL_RESPONSE_BYTES: u64 = 16 << 10;

/// Limits the bytes of large responses that an address is sent in a second: delays the response, or rejects the request.
async fn limit_response_rate(response: ServiceResponse, gateway: &Gateway) -> ServiceResponse {
    let BodySize::Sized(bytes) = response.response().body().size() else {
        return response;
    };
    if gateway.auth().mode() == AuthMode::Open || bytes <= SMALL_RESPONSE_BYTES {
        return response;
    }
    let address = network(request_source::address(response.request(), gateway));
    match gateway.limits().response_delay(address, bytes) {
        Some(wait) => {
            if !wait.is_zero() {
                sleep(wait).await;
            }
            response
        }
        None => response.into_response(ApiError::RequestRate.error_response()),
    }
}

/// Whether a part of the request's body is unread.
type Unread = Rc<Cell<bool>>;

/// The error for a request with a head that exceeds a limit.
fn head_rejection(request: &HttpRequest, body_bytes_max: usize) -> Option<ApiError> {
    let headers = request.headers();
    let url_bytes = request
        .uri()
        .path_and_query()
        .map_or(0, |it| it.as_str().len());
    if url_bytes > URL_BYTES_MAX {
        return Some(ApiError::UrlTooLong(URL_BYTES_MAX));
    }
    let headers_bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if headers_bytes > HEADERS_BYTES_MAX {
        return Some(ApiError::HeadersTooLarge(HEADERS_BYTES_MAX));
    }
    let is_encoded = headers
        .get_all(CONTENT_ENCODING)
        .any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if is_encoded {
        return Some(ApiError::BodyCompressed);
    }
    let announced = headers.get(CONTENT_LENGTH)?.to_str().ok()?;
    let is_larger = announced
        .parse()
        .is_ok_and(|bytes: u64| bytes > body_bytes_max as u64);
    is_larger.then_some(ApiError::BodyTooLarge(body_bytes_max))
}

/// Makes the request's body end with an error when it is too large or too late. Does not apply to WebSockets, which
/// [`FrameLimiter`](super::frame_limiter::FrameLimiter) limits.
fn limit_body(request: &mut ServiceRequest, gateway: &Gateway, unread: &Unread) {
    if gateway.is_socket_path(request.match_info().as_str()) {
        return;
    }
    let payload = request.take_payload();
    if matches!(payload, Payload::None) {
        return;
    }
    unread.set(true);
    let settings = gateway.settings();
    request.set_payload(Payload::Stream {
        payload: Box::pin(LimitedBody {
            payload,
            bytes_left: settings.request_bytes_max,
            until: Box::pin(sleep(Duration::from_millis(settings.request_timeout_ms))),
            unread: unread.clone(),
        }),
    });
}

/// A body with a limit of its size and of the time in which it must arrive.
struct LimitedBody {
    payload: Payload,
    bytes_left: usize,
    until: Pin<Box<Sleep>>,
    unread: Unread,
}

impl Stream for LimitedBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.until.as_mut().poll(cx).is_ready() {
            let late = io::Error::new(io::ErrorKind::TimedOut, "the body did not come in time");
            return Poll::Ready(Some(Err(PayloadError::Io(late))));
        }
        let next = Pin::new(&mut self.payload).poll_next(cx);
        match &next {
            Poll::Ready(None) => self.unread.set(false),
            Poll::Ready(Some(Ok(bytes))) => match self.bytes_left.checked_sub(bytes.len()) {
                Some(left) => self.bytes_left = left,
                None => return Poll::Ready(Some(Err(PayloadError::Overflow))),
            },
            _ => {}
        }
        next
    }
}
