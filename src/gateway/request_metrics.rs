//! Measures HTTP requests.

use std::time::Instant;

use actix_web::Error;
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::web::Data;

use super::gateway::Gateway;
use super::metrics::{RequestKind, StatusClass};

/// Middleware: measures each HTTP request.
pub(super) async fn measure(
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse, Error> {
    let gateway = request.app_data::<Data<Gateway>>().cloned();
    let pattern = request.match_pattern();
    let begun = Instant::now();
    let response = next.call(request).await;
    if let Some(gateway) = gateway {
        let pattern = pattern.as_deref().and_then(|it| gateway.below_base(it));
        let kind = RequestKind::of(pattern, &gateway.settings().socket_path);
        let status = match &response {
            Ok(response) => response.status(),
            Err(error) => error.as_response_error().status_code(),
        };
        let metrics = gateway.metrics();
        let status = StatusClass::of(status);
        metrics.http_requests.of((kind, status)).inc();
        let seconds = metrics.http_request_seconds.of(kind);
        seconds.observe(begun.elapsed());
    }
    response
}
