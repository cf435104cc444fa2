//! Opening a WebSocket: the admission check, and the start of its session.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::error::ErrorInternalServerError;
use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse, rt};
use futures_util::FutureExt;

use super::api_error::ApiError;
use super::frame_encoder::ShareDbEncoder;
use super::gateway::{Gateway, SocketGuard};
use super::origin_check;
use super::permission_cache::PermissionCache;
use super::rate_limits::SocketPermit;
use super::request_auth;
use super::request_source;
use super::session::{ClientKind, Session};
use super::upgrade;
use crate::auth::{AuthMode, Identity, NONCE_BYTES, network};
use crate::id::ClientId;
use crate::node::Outbox;
use crate::store::History;

/// What an admitted socket holds.
struct AdmittedSocket {
    identity: Identity,
    network: IpAddr,
    /// The revocations delivered before the identity was looked up.
    generation: u64,
    /// The socket's share of the node's limit.
    guard: SocketGuard,
    /// The socket's shares of the limits of its user and its tenant.
    reservations: [Option<SocketPermit>; 2],
}

impl AdmittedSocket {
    /// Checks whether one more socket may be opened. Cheap checks come first; the shares are taken last.
    async fn check(request: &HttpRequest, gateway: &Arc<Gateway>) -> Result<Self, ApiError> {
        // The state of the node and the origin of the page.
        if !gateway.is_serving() {
            return Err(ApiError::Restarting);
        }
        if !origin_check::may_act(request, gateway) {
            return Err(origin_check::other_origin(request));
        }
        // The rate of handshakes, before the store is asked.
        let network = network(request_source::address(request, gateway));
        if !allow_handshake(request, gateway, network) {
            return Err(too_many_handshakes(gateway).await);
        }
        // The identity, and its user's rate of handshakes over all sessions.
        let generation = gateway.auth().revocation_generation();
        let credentials = request_auth::credentials(request);
        let identity = gateway.identify(&credentials).await?;
        let identity = identity.ok_or(ApiError::SignInRequired)?;
        if !gateway.limits().allow_connect(&identity) {
            return Err(too_many_handshakes(gateway).await);
        }
        // The numbers of open sockets.
        let guard = SocketGuard::new(gateway).ok_or(ApiError::SocketsExhausted)?;
        let reservations = gateway.limits().reserve_socket(&identity, network);
        Ok(Self {
            identity,
            network,
            generation,
            guard,
            reservations: reservations.map_err(|_| ApiError::SocketQuota)?,
        })
    }
}

fn allow_handshake(request: &HttpRequest, gateway: &Gateway, network: IpAddr) -> bool {
    if gateway.auth().mode() == AuthMode::Open {
        return true;
    }
    let key = request_auth::rate_limit_key(request, gateway, network);
    gateway.limits().allow_handshake(network, key)
}

/// Delays the rejection, so that a client that waits for it asks less often.
async fn too_many_handshakes(gateway: &Gateway) -> ApiError {
    gateway.limits().delay_rejection().await;
    ApiError::SocketRate
}

/// Handler: admits a socket, upgrades its connection and starts its session.
pub(super) async fn open(
    request: HttpRequest,
    payload: web::Payload,
    gateway: Data<Gateway>,
) -> actix_web::Result<HttpResponse> {
    let gateway = gateway.into_inner();
    let admission = AdmittedSocket::check(&request, &gateway)
        .await
        .inspect_err(|error| gateway.metrics().socket_refused(error))?;
    let history = gateway.node().log_history();
    let client = new_client_id(&gateway, &admission.identity, history)?;
    let outbox = new_outbox(&gateway, history);
    let accept = upgrade::accept(
        &request,
        payload,
        gateway.settings().message_limits(),
        outbox.clone(),
        gateway.node().snapshots().clone(),
    );
    let (response, messages) = accept.await?;
    let AdmittedSocket {
        identity,
        network,
        generation,
        guard,
        reservations,
    } = admission;
    let limits = gateway.limits().for_socket(&identity, network);
    let permissions = PermissionCache::new(gateway.auth().clone(), identity, generation);
    let client_kind = match request.query_string() {
        "rights" => ClientKind::Extended,
        _ => ClientKind::ShareDb,
    };
    gateway.metrics().sockets_accepted.inc();
    let session = Session::new(gateway, permissions, client_kind, client, outbox, limits);
    // Not an async block: its future would hold the session twice.
    let served = session.run(messages);
    rt::spawn(served.map(|()| drop((guard, reservations))));
    Ok(response)
}

/// The id of the socket's client, unless the client resumes another one.
fn new_client_id(
    gateway: &Gateway,
    identity: &Identity,
    history: History,
) -> actix_web::Result<ClientId> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|_| ErrorInternalServerError("no randomness"))?;
    Ok(gateway.client_ids().issue(&identity.author, nonce, history))
}

fn new_outbox(gateway: &Gateway, history: History) -> Arc<Outbox> {
    let wake_queue = Some(upgrade::wake_queue());
    let bytes_max = gateway.settings().outbox_bytes_max;
    let outbox = Outbox::new(bytes_max, &ShareDbEncoder, wake_queue).with_history(history);
    Arc::new(outbox.with_budget(gateway.node().outboxes().clone()))
}
