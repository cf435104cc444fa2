//! The errors of HTTP requests: their statuses, stable codes and texts.

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError};
use serde_json::json;
use thiserror::Error;

use crate::access::ShareError;
use crate::auth::AuthError;
use crate::outage::LineLimit;
use crate::protocol::{Code, Refusal};
use crate::store::StoreError;

/// Why a request is rejected. Clients tell the cases apart by the status and the code; the text is for people.
#[derive(Debug, Error)]
pub(super) enum ApiError {
    /// The request proves no identity.
    #[error("sign in first")]
    SignInRequired,
    /// The mode of authentication has no accounts, or none that this operation is for.
    #[error("this server keeps no accounts")]
    NoAccounts,
    /// The path of the API does not exist.
    #[error("there is no such resource")]
    ResourceNotFound,
    /// The document does not exist, or the identity may not read it: the answer does not tell which.
    #[error("there is no such document")]
    DocumentNotFound,
    /// The tenant has no such invitation.
    #[error("there is no such invitation")]
    InvitationNotFound,
    /// The document has no such share link.
    #[error("there is no such link")]
    LinkNotFound,
    /// The tenant has no such user.
    #[error("this tenant has no such user")]
    UserNotFound,
    /// The role on the document does not permit the operation.
    #[error("you may not do that with this document")]
    DocumentForbidden,
    /// The operation requires the owner of the tenant.
    #[error("tenant owner role required")]
    TenantOwnerRequired,
    /// The page that sends the request may not act for its user.
    #[error("this page may not act for you here: its origin is not in [auth] origins")]
    OtherOrigin,
    /// The owner's role changes only by a transfer of the ownership.
    #[error("the owner's role changes only by a transfer of the ownership")]
    OwnerMustTransfer,
    /// The browser has a session of another user.
    #[error(
        "this browser is signed in as another user: repeat the request with \"replace\": true to change that"
    )]
    OtherSession {
        /// The name of the user that is signed in.
        kept: Option<String>,
        /// The name of the user of the request's token.
        offered: Option<String>,
    },
    /// A parameter or the body is malformed.
    #[error("{0}")]
    BadRequest(String),
    /// The role does not exist, or cannot be given this way.
    #[error("a role is viewer, commenter, editor or owner")]
    InvalidRole,
    /// The title is too long or has control characters.
    #[error("a title has at most {0} characters, none of them control characters")]
    InvalidTitle(usize),
    /// The document has another title than the one that the request replaces.
    #[error(
        "the document has been renamed meanwhile: repeat the request if the new title is to be replaced"
    )]
    TitleChanged {
        /// The title that it has.
        title: String,
    },
    /// The rate limit of requests.
    #[error("too many requests: try again")]
    RequestRate,
    /// The rate limit of WebSocket handshakes.
    #[error("too many sockets are asked for from this address or by this user: try again")]
    SocketRate,
    /// The user or the tenant has as many sockets as it may.
    #[error("socket quota of the user or tenant reached")]
    SocketQuota,
    /// The document is shared with as many users as it may be.
    #[error("user quota of the document reached: remove the roles of other users first")]
    DocumentUsersQuota,
    /// Too many lists of documents are being read.
    #[error("too many lists are asked for at once: try again")]
    ListsBusy,
    /// The node is shutting down.
    #[error("the server is stopping: try again")]
    Restarting,
    /// The node has as many sockets as it may.
    #[error("the server has no free sockets: try again")]
    SocketsExhausted,
    /// The head of the request is too long.
    #[error("the address is too long: send at most {0} bytes")]
    UrlTooLong(usize),
    /// The headers of the request are too large.
    #[error("the headers are too large: send at most {0} bytes")]
    HeadersTooLarge(usize),
    /// The body is too large.
    #[error("the body is too large: send at most {0} bytes")]
    BodyTooLarge(usize),
    /// The body is not JSON.
    #[error("the body must be JSON: send Content-Type: application/json")]
    BodyNotJson,
    /// The body is compressed.
    #[error("bodies must not be compressed: send the body without Content-Encoding")]
    BodyCompressed,
    /// The body did not arrive within the time limit.
    #[error("the body did not come in time: send it again")]
    BodyTimeout,
    /// The ops of a text edit are malformed or do nothing.
    #[error("{0}")]
    InvalidOps(String),
    /// The node or the document's sequencer rejected a text edit.
    #[error("{}", .0.message)]
    Edit(Refusal),
    /// A text edit was not answered in time.
    #[error(
        "no answer in time: the edit may have been committed; read the document before sending it again"
    )]
    OutcomeUnknown,
    /// The operation on accounts or sessions failed.
    #[error(transparent)]
    Auth(AuthError),
    /// The store did not answer.
    #[error("the store does not answer: try again")]
    Store(StoreError),
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::Edit(refusal)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Store(error) => Self::Store(error),
            error => Self::Auth(error),
        }
    }
}

impl From<ShareError> for ApiError {
    fn from(error: ShareError) -> Self {
        match error {
            ShareError::NotOwner => Self::DocumentForbidden,
            ShareError::OwnerMustTransfer => Self::OwnerMustTransfer,
            ShareError::QuotaReached => Self::DocumentUsersQuota,
            ShareError::LinkNotFound => Self::LinkNotFound,
        }
    }
}

impl ApiError {
    /// The status and the stable code.
    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::BadRequest(_) | Self::InvalidRole => (StatusCode::BAD_REQUEST, "bad_request"),
            Self::SignInRequired => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::DocumentForbidden | Self::TenantOwnerRequired => {
                (StatusCode::FORBIDDEN, "forbidden")
            }
            Self::OtherOrigin => (StatusCode::FORBIDDEN, "foreign_page"),
            Self::NoAccounts
            | Self::ResourceNotFound
            | Self::DocumentNotFound
            | Self::InvitationNotFound
            | Self::LinkNotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::UserNotFound => (StatusCode::NOT_FOUND, "no_such_person"),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "timeout"),
            Self::OwnerMustTransfer => (StatusCode::CONFLICT, "owner"),
            Self::TitleChanged { .. } => (StatusCode::CONFLICT, "title_changed"),
            Self::OtherSession { .. } => (StatusCode::CONFLICT, "other_session"),
            Self::BodyTooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::UrlTooLong(_) => (StatusCode::URI_TOO_LONG, "too_long"),
            Self::BodyNotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Self::BodyCompressed => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding"),
            Self::InvalidOps(_) => (StatusCode::UNPROCESSABLE_ENTITY, "bad_ops"),
            Self::InvalidTitle(_) => (StatusCode::UNPROCESSABLE_ENTITY, "bad_title"),
            Self::RequestRate | Self::SocketRate => (StatusCode::TOO_MANY_REQUESTS, "too_many"),
            Self::SocketQuota | Self::DocumentUsersQuota => {
                (StatusCode::TOO_MANY_REQUESTS, "quota")
            }
            Self::HeadersTooLarge(_) => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too_large"),
            Self::ListsBusy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            Self::OutcomeUnknown => (StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown"),
            Self::Restarting => (StatusCode::SERVICE_UNAVAILABLE, "restarting"),
            Self::SocketsExhausted => (StatusCode::SERVICE_UNAVAILABLE, "full"),
            Self::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
            Self::Auth(error) => auth_status_and_code(error),
            Self::Edit(refusal) => edit_status_and_code(refusal.code),
        }
    }

    /// After how many seconds the client may repeat the request.
    fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::Auth(AuthError::Throttled(wait)) => Some(wait.as_secs().max(1)),
            Self::Auth(AuthError::Overloaded) => Some(1),
            _ => None,
        }
    }
}

fn auth_status_and_code(error: &AuthError) -> (StatusCode, &'static str) {
    match error {
        AuthError::Throttled(_) => (StatusCode::TOO_MANY_REQUESTS, "too_many"),
        AuthError::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
        AuthError::Rejected(_) => (StatusCode::FORBIDDEN, "refused"),
        AuthError::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "unfit"),
        AuthError::Quota(_) => (StatusCode::TOO_MANY_REQUESTS, "quota"),
        AuthError::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
    }
}

fn edit_status_and_code(code: Code) -> (StatusCode, &'static str) {
    match code {
        Code::DoesNotExist | Code::WasDeleted => (StatusCode::NOT_FOUND, "not_found"),
        Code::FutureVersion | Code::OpsNotFound | Code::AlreadyCreated => {
            (StatusCode::CONFLICT, "bad_base")
        }
        Code::HistoryChanged => (StatusCode::CONFLICT, "history_changed"),
        Code::DocOversized | Code::DocDamaged | Code::DocQuarantined => {
            (StatusCode::CONFLICT, "read_only")
        }
        Code::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        Code::Quota => (StatusCode::TOO_MANY_REQUESTS, "quota"),
        Code::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
        Code::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
        Code::StoreUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
        _ => (StatusCode::UNPROCESSABLE_ENTITY, "bad_ops"),
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status_and_code().0
    }

    fn error_response(&self) -> HttpResponse {
        if let Self::Store(error) = self {
            static LIMIT: LineLimit = LineLimit::new();
            if let Some(left_out) = LIMIT.pass() {
                tracing::warn!(%error, left_out, "the store did not answer a request");
            }
        }
        let (status, code) = self.status_and_code();
        let mut body = json!({ "error": { "code": code, "message": self.to_string() } });
        if let Self::OtherSession { kept, offered } = self {
            body["kept"] = json!(kept);
            body["offered"] = json!(offered);
        }
        if let Self::TitleChanged { title } = self {
            body["title"] = json!(title);
        }
        let mut response = HttpResponse::build(status);
        response.insert_header((CACHE_CONTROL, "no-store"));
        if let Some(seconds) = self.retry_after_seconds() {
            response.insert_header((RETRY_AFTER, seconds));
        }
        response.json(body)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::auth::{InvalidInput, QuotaReached, RejectedCredentials};

    /// Clients depend on these pairs.
    #[test]
    fn statuses_and_codes_are_stable() {
        let other_session = ApiError::OtherSession {
            kept: None,
            offered: None,
        };
        let title_changed = ApiError::TitleChanged {
            title: String::new(),
        };
        let auth = |error: AuthError| ApiError::from(error);
        for (error, status, code) in [
            (ApiError::SignInRequired, 401, "unauthorized"),
            (ApiError::NoAccounts, 404, "not_found"),
            (ApiError::DocumentNotFound, 404, "not_found"),
            (ApiError::UserNotFound, 404, "no_such_person"),
            (ApiError::DocumentForbidden, 403, "forbidden"),
            (ApiError::OtherOrigin, 403, "foreign_page"),
            (ApiError::from(ShareError::OwnerMustTransfer), 409, "owner"),
            (ApiError::from(ShareError::QuotaReached), 429, "quota"),
            (other_session, 409, "other_session"),
            (title_changed, 409, "title_changed"),
            (ApiError::InvalidRole, 400, "bad_request"),
            (ApiError::InvalidTitle(1), 422, "bad_title"),
            (ApiError::SocketRate, 429, "too_many"),
            (ApiError::SocketQuota, 429, "quota"),
            (ApiError::SocketsExhausted, 503, "full"),
            (ApiError::Restarting, 503, "restarting"),
            (ApiError::HeadersTooLarge(1), 431, "too_large"),
            (ApiError::BodyNotJson, 415, "unsupported_media_type"),
            (ApiError::BodyCompressed, 415, "unsupported_encoding"),
            (auth(RejectedCredentials::Password.into()), 403, "refused"),
            (auth(InvalidInput::Name.into()), 422, "unfit"),
            (auth(QuotaReached::Accounts.into()), 429, "quota"),
            (auth(AuthError::Overloaded), 503, "busy"),
            (
                auth(StoreError::new("read", "away").into()),
                503,
                "store_unavailable",
            ),
        ] {
            let found = error.status_and_code();
            assert_eq!((found.0.as_u16(), found.1), (status, code), "{error:?}");
        }
    }

    #[test]
    fn throttled_attempts_are_told_when_to_retry() {
        for (wait, seconds) in [(Duration::ZERO, "1"), (Duration::from_secs(7), "7")] {
            let response = ApiError::from(AuthError::Throttled(wait)).error_response();
            let header = response.headers().get(RETRY_AFTER).unwrap();
            assert_eq!(header, seconds);
        }
    }
}
