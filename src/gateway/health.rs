//! The probes of load balancers and orchestrators: liveness and readiness.

use actix_web::web::{self, Data};
use actix_web::{HttpResponse, Responder};

use super::gateway::Gateway;
use crate::node::Readiness;

/// Adds the routes of the probes.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/healthz", web::get().to(healthz))
        .route("/readyz", web::get().to(readyz));
}

/// Returns true if the decoded path of a request is that of the liveness probe.
pub(super) fn is_liveness(path: &str) -> bool {
    path == "/healthz"
}

async fn healthz() -> impl Responder {
    "ok\n"
}

/// Returns 200 if the node can serve clients, with `degraded` in the body if it cannot serve everything; otherwise 503.
async fn readyz(gateway: Data<Gateway>) -> HttpResponse {
    if gateway.node().is_incompatible() {
        let body = "no common wire version with the other nodes\n";
        return HttpResponse::ServiceUnavailable().body(body);
    }
    if !gateway.is_serving() {
        return HttpResponse::ServiceUnavailable().body("draining\n");
    }
    match gateway.node().readiness().await {
        Readiness::Ready => HttpResponse::Ok().body("ready\n"),
        Readiness::Degraded(reason) => HttpResponse::Ok().body(format!("degraded: {reason}\n")),
        Readiness::NotReady(reason) => {
            HttpResponse::ServiceUnavailable().body(format!("{reason}\n"))
        }
    }
}
