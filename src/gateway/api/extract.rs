//! Extractors: what handlers need of a request, checked before the handler runs.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::net::IpAddr;

use actix_web::dev::Payload;
use actix_web::web::{self, Data};
use actix_web::{FromRequest, HttpRequest};
use futures_util::future::LocalBoxFuture;
use serde::Deserialize;

use crate::access::{Principal, Role};
use crate::auth::{AuthMode, AuthService, Credentials, Identity, RequestSource};
use crate::gateway::api_error::ApiError;
use crate::gateway::gateway::Gateway;
use crate::gateway::request_auth;
use crate::gateway::request_source;
use crate::id::DocId;

/// Extracts `A`, then `B`, and stops at the first error.
///
/// actix extracts the arguments of a handler at the same time. Which of two errors a client receives, and whether a request
/// with a malformed body counts towards the rate limit of its user, would then depend on when its body arrives.
pub(super) struct InOrder<A, B>(pub(super) A, pub(super) B);

impl<A: FromRequest + 'static, B: FromRequest + 'static> FromRequest for InOrder<A, B> {
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let first = A::from_request(request, payload);
        let request = request.clone();
        Box::pin(async move {
            let first = first.await.map_err(Into::into)?;
            let second = B::from_request(&request, &mut Payload::None).await;
            Ok(Self(first, second.map_err(Into::into)?))
        })
    }
}

/// Runs an async check of a request as an extractor.
fn check<T, F>(
    request: &HttpRequest,
    check: impl FnOnce(HttpRequest, Data<Gateway>) -> F,
) -> LocalBoxFuture<'static, Result<T, ApiError>>
where
    F: Future<Output = Result<T, ApiError>> + 'static,
{
    Box::pin(check(
        request.clone(),
        request_source::gateway(request).clone(),
    ))
}

impl FromRequest for Credentials {
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(request_auth::credentials(request)))
    }
}

impl FromRequest for RequestSource {
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let gateway = request_source::gateway(request);
        ready(Ok(request_source::source(request, gateway)))
    }
}

/// The client's address.
pub(super) struct ClientAddress(pub(super) IpAddr);

impl FromRequest for ClientAddress {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let gateway = request_source::gateway(request);
        ready(Ok(Self(request_source::address(request, gateway))))
    }
}

/// The authentication service in a mode with accounts of this server; [`ApiError::NoAccounts`] in other modes.
pub(super) struct Accounts(pub(super) Data<AuthService>);

impl FromRequest for Accounts {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let auth = request_source::gateway(request).auth();
        ready(match auth.mode() {
            AuthMode::Accounts => Ok(Self(Data::from(auth.clone()))),
            AuthMode::Open | AuthMode::Tokens => Err(ApiError::NoAccounts),
        })
    }
}

/// The identity of a request: a user, a guest with share links, or any client in open mode. Counts towards the rate limit of
/// the user.
pub(super) struct SignedIn(pub(super) Identity);

impl FromRequest for SignedIn {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        check(request, async |request, gateway| {
            let identity = identify(&request, &gateway).await?;
            Ok(Self(identity))
        })
    }
}

/// The mode of tokens; [`ApiError::NoAccounts`] in other modes.
pub(super) struct TokensMode;

impl FromRequest for TokensMode {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let mode = request_source::gateway(request).auth().mode();
        let is_tokens = mode == AuthMode::Tokens;
        ready(is_tokens.then_some(Self).ok_or(ApiError::NoAccounts))
    }
}

/// The owner of a tenant. Open mode has none.
pub(super) struct TenantOwner(pub(super) Identity);

impl FromRequest for TenantOwner {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        check(request, async |request, gateway| {
            tenant_owner(&request, &gateway).await.map(Self)
        })
    }
}

/// The owner of a tenant with accounts of this server; [`ApiError::NoAccounts`] in other modes.
pub(super) struct AccountsOwner(pub(super) Identity);

impl FromRequest for AccountsOwner {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        check(request, async |request, gateway| {
            if gateway.auth().mode() != AuthMode::Accounts {
                return Err(ApiError::NoAccounts);
            }
            tenant_owner(&request, &gateway).await.map(Self)
        })
    }
}

/// The least role that an operation on a document requires.
pub(super) trait RequiredRole: 'static {
    const ROLE: Role;
}

/// The operation reads the document.
pub(super) struct Read;

impl RequiredRole for Read {
    const ROLE: Role = Role::Viewer;
}

/// The operation changes the document.
pub(super) struct Write;

impl RequiredRole for Write {
    const ROLE: Role = Role::Editor;
}

/// The document of the path `{collection}/{id}`, and the role of the identity on it, which is at least `R`.
///
/// An identity without a role receives [`ApiError::DocumentNotFound`], as if the document did not exist.
pub(super) struct DocumentAccess<R> {
    pub(super) doc: DocId,
    pub(super) identity: Identity,
    pub(super) role: Role,
    /// The revocations delivered before the role was looked up.
    pub(super) generation: u64,
    required: PhantomData<R>,
}

impl<R: RequiredRole> FromRequest for DocumentAccess<R> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        check(request, async |request, gateway| {
            let generation = gateway.auth().revocation_generation();
            let identity = identify(&request, &gateway).await?;
            let (doc, role) = permitted(&request, &gateway, &identity, R::ROLE).await?;
            Ok(Self {
                doc,
                identity,
                role,
                generation,
                required: PhantomData,
            })
        })
    }
}

/// The owner of the document of the path. Open mode has none. The store checks the ownership once more with each change.
pub(super) struct DocumentOwner {
    pub(super) doc: DocId,
    pub(super) identity: Identity,
    /// The identity's principal on the document.
    pub(super) principal: Principal,
}

impl FromRequest for DocumentOwner {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        check(request, async |request, gateway| {
            if gateway.auth().mode() == AuthMode::Open {
                return Err(ApiError::NoAccounts);
            }
            let identity = identify(&request, &gateway).await?;
            let (doc, _) = permitted(&request, &gateway, &identity, Role::Owner).await?;
            let principal = identity.principal_on(&doc).ok_or(ApiError::NoAccounts)?;
            Ok(Self {
                doc,
                identity,
                principal,
            })
        })
    }
}

async fn identify(request: &HttpRequest, gateway: &Gateway) -> Result<Identity, ApiError> {
    let credentials = request_auth::credentials(request);
    let identity = gateway.identify(&credentials).await?;
    let identity = identity.ok_or(ApiError::SignInRequired)?;
    if gateway.limits().allow_user_request(&identity) {
        Ok(identity)
    } else {
        Err(ApiError::RequestRate)
    }
}

async fn tenant_owner(request: &HttpRequest, gateway: &Gateway) -> Result<Identity, ApiError> {
    if gateway.auth().mode() == AuthMode::Open {
        return Err(ApiError::NoAccounts);
    }
    let identity = identify(request, gateway).await?;
    let role = identity.profile.as_ref().and_then(|profile| profile.role);
    if role == Some(Role::Owner) {
        Ok(identity)
    } else {
        Err(ApiError::TenantOwnerRequired)
    }
}

/// The names of a document in a path.
#[derive(Deserialize)]
struct DocumentPath {
    collection: String,
    id: String,
}

/// The document of the path and the identity's role on it.
async fn permitted(
    request: &HttpRequest,
    gateway: &Gateway,
    identity: &Identity,
    required: Role,
) -> Result<(DocId, Role), ApiError> {
    let path = web::Path::<DocumentPath>::extract(request).await;
    let path = path.map_err(|_| ApiError::DocumentNotFound)?;
    let doc =
        DocId::parse_path(&path.collection, &path.id).map_err(|_| ApiError::DocumentNotFound)?;
    match gateway.auth().role(identity, &doc).await? {
        Some(role) if role >= required => Ok((doc, role)),
        Some(_) => Err(ApiError::DocumentForbidden),
        None => Err(ApiError::DocumentNotFound),
    }
}
