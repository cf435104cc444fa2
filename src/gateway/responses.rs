//! Answers of the API that many give.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::json;

use crate::outage::LineLimit;
use crate::store::StoreError;

/// What an answer about documents says to caches.
pub(super) const NO_STORE: (&str, &str) = ("cache-control", "no-store");

pub(super) fn unauthorized() -> HttpResponse {
    failure(StatusCode::UNAUTHORIZED, "unauthorized", "sign in first")
}

pub(super) fn no_document() -> HttpResponse {
    failure(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is no such document",
    )
}

pub(super) fn unavailable(error: &StoreError) -> HttpResponse {
    static LIMIT: LineLimit = LineLimit::new();
    if let Some(left_out) = LIMIT.pass() {
        tracing::warn!(%error, left_out, "the store did not answer a request");
    }
    failure(
        StatusCode::SERVICE_UNAVAILABLE,
        "store_unavailable",
        "the store does not answer: try again",
    )
}

pub(super) fn failure(status: StatusCode, code: &str, message: &str) -> HttpResponse {
    let body = json!({ "error": { "code": code, "message": message } });
    HttpResponse::build(status)
        .insert_header(NO_STORE)
        .json(body)
}
