//! The id of an HTTP request: in the header `x-request-id` of its response, and in the log lines that it causes.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::web::Data;
use tracing::Instrument;

use super::gateway::Gateway;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken from a proxy, in bytes.
const ID_BYTES_MAX: usize = 64;

/// Gives the request an id: that of the proxy in front, if one is configured and its id is well-formed; otherwise a new one.
pub(super) async fn assign(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let gateway = request.app_data::<Data<Gateway>>();
    let is_behind_proxy = gateway.is_some_and(|gateway| gateway.auth().is_behind_proxy());
    let given = request
        .headers()
        .get(REQUEST_ID)
        .filter(|_| is_behind_proxy);
    let id = given.filter(|id| is_well_formed(id)).cloned();
    let id = id.unwrap_or_else(new_id);
    // Of the level of errors: lines of all levels have its fields.
    let request_id = id.to_str().unwrap_or_default();
    let span = tracing::error_span!(parent: None, "request", request_id);
    let mut response = next.call(request).instrument(span).await?;
    response.headers_mut().insert(REQUEST_ID, id);
    Ok(response.map_into_boxed_body())
}

/// Returns true if an id can be taken over: letters, digits and `-_.`, which need no escapes in a log.
fn is_well_formed(id: &HeaderValue) -> bool {
    let is_plain = |it: &u8| it.is_ascii_alphanumeric() || b"-_.".contains(it);
    (1..=ID_BYTES_MAX).contains(&id.len()) && id.as_bytes().iter().all(is_plain)
}

/// A new id: a count from a random start, so that ids of other processes differ.
fn new_id() -> HeaderValue {
    static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| {
        let mut start = [0; 8];
        // Without randomness the ids are unique in this process only.
        let _ = getrandom::fill(&mut start);
        AtomicU64::new(u64::from_le_bytes(start))
    });
    let id = format!("{:016x}", NEXT.fetch_add(1, Ordering::Relaxed));
    HeaderValue::try_from(id).expect("hexadecimal digits are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_plain_ids_are_taken_over() {
        let longest = "a".repeat(ID_BYTES_MAX);
        let too_long = "a".repeat(ID_BYTES_MAX + 1);
        for (id, is_taken) in [
            ("7f3e-09_A.b", true),
            (longest.as_str(), true),
            (too_long.as_str(), false),
            ("", false),
            ("two words", false),
            ("a\"b", false),
            ("a,b", false),
            ("\u{1b}[31m", false),
            ("名前", false),
        ] {
            let Ok(id) = HeaderValue::from_bytes(id.as_bytes()) else {
                assert!(!is_taken, "{id}");
                continue;
            };
            assert_eq!(is_well_formed(&id), is_taken, "{id:?}");
        }
    }

    #[test]
    fn new_ids_are_well_formed_and_differ() {
        let (one, other) = (new_id(), new_id());
        assert!(is_well_formed(&one) && is_well_formed(&other));
        assert_ne!(one, other);
    }
}
