//! What balancers and orchestrators ask: whether the process lives, and whether it can serve.

use std::time::Duration;

use actix_web::web::{self, Data};
use actix_web::{HttpResponse, Responder};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::gateway::Gateway;
use crate::cluster::Health;
use crate::store::StoreError;

/// Adds the routes of the probes.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/healthz", web::get().to(healthz))
        .route("/readyz", web::get().to(readyz));
}

/// Whether the decoded path of a request is that of the probe which nothing is looked up for.
pub(super) fn is_liveness(path: &str) -> bool {
    path == "/healthz"
}

async fn healthz() -> impl Responder {
    "ok\n"
}

/// How long a probe waits for the store. Balancers themselves wait no longer.
const READY_PATIENCE: Duration = Duration::from_millis(900);

/// How long an answer holds for the probes after it: however many ask, the store is asked once.
const HOLDS: Duration = Duration::from_millis(500);

/// What the store last said of whether edits can be saved.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    /// Held while the store is asked: the probes that come meanwhile take the same answer.
    known: Mutex<Option<(Instant, Result<(), StoreError>)>>,
}

impl Readiness {
    /// Whether an edit could be saved now, or could a moment ago.
    async fn check(&self, gateway: &Gateway) -> Result<(), StoreError> {
        let mut known = self.known.lock().await;
        if let Some((at, answer)) = &*known
            && at.elapsed() < HOLDS
        {
            return answer.clone();
        }
        let asked = timeout(READY_PATIENCE, gateway.node().store().check_writes()).await;
        let late = |_| Err(StoreError::new("check writes", "no answer in time"));
        let answer = asked.unwrap_or_else(late);
        let was_ready = known.as_ref().is_none_or(|(_, answer)| answer.is_ok());
        match &answer {
            Err(error) if was_ready => tracing::warn!(%error, "not ready: edits cannot be saved"),
            Ok(()) if !was_ready => tracing::info!("ready again: edits can be saved"),
            _ => {}
        }
        *known = Some((Instant::now(), answer.clone()));
        answer
    }
}

/// Ready means: edits can be saved, the other nodes are heard, and the server is not on its way down.
async fn readyz(gateway: Data<Gateway>) -> HttpResponse {
    if !gateway.is_serving() {
        return HttpResponse::ServiceUnavailable().body("draining\n");
    }
    if gateway.readiness().check(&gateway).await.is_err() {
        // The store's own words are only in the log: anybody may ask this.
        return HttpResponse::ServiceUnavailable().body("edits cannot be saved\n");
    }
    match gateway.node().health() {
        Health::Good => HttpResponse::Ok().body("ready\n"),
        Health::Bad(reason) => {
            let body = format!("the other nodes are not heard: {reason}\n");
            HttpResponse::ServiceUnavailable().body(body)
        }
    }
}
