//! Rejects requests of the API at once while the store is known to be away, instead of after the store's time limits.

use std::time::Duration;

use actix_web::ResponseError;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::rt::time::sleep;
use actix_web::web::Data;
use tokio::select;

use super::api_error::ApiError;
use super::gateway::Gateway;
use crate::store::StoreError;

/// How often the store is checked during a read.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// Answers requests of the API with 503 while the store is away.
pub(super) async fn reject_while_unavailable(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let gateway = request.app_data::<Data<Gateway>>();
    if gateway.is_some_and(|gateway| needs_store(gateway, &request) && is_away(gateway)) {
        return Ok(request.into_response(ApiError::from(away()).error_response()));
    }
    next.call(request)
        .await
        .map(ServiceResponse::map_into_boxed_body)
}

/// Waits for a read of the store until it is known to be away.
///
/// # Errors
/// Those of the read, and if the store goes away during it.
pub(super) async fn unless_unavailable<T>(
    gateway: &Gateway,
    read: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let store_away = async {
        while !is_away(gateway) {
            sleep(CHECK_INTERVAL).await;
        }
    };
    select! {
        biased;
        result = read => result,
        () = store_away => Err(away()),
    }
}

fn needs_store(gateway: &Gateway, request: &ServiceRequest) -> bool {
    let path = gateway.below_base(request.match_info().as_str());
    path.is_some_and(|path| path.starts_with("/api/"))
}

fn is_away(gateway: &Gateway) -> bool {
    gateway.node().is_store_away()
}

fn away() -> StoreError {
    StoreError::new("answer a request", "the store is away")
}
