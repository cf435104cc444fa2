//! Routes: the page, the socket, health, and where the others are.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::http::header::LOCATION;
use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::web::{self, Data};
use actix_web::{App, HttpRequest, HttpResponse, rt};
use rustls::ServerConfig;

use super::accounts;
use super::assets::{self, EditorPage};
use super::connection_deadlines::ConnectionTimeouts;
use super::documents;
use super::frame_encoder::ShareDbEncoder;
use super::gateway::{Gateway, SocketGuard};
use super::health;
use super::permission_cache::PermissionCache;
use super::request_auth;
use super::request_limits;
use super::responses::{NO_STORE, failure, unauthorized, unavailable};
use super::server::{self, ServerLimits};
use super::session::{ClientKind, Session};
use super::sharing;
use super::store_availability;
use super::text_ops;
use super::upgrade;
use crate::auth::{AuthMode, NONCE_BYTES, network};
use crate::node::Outbox;

/// Serves on `listener`. The future runs until the handle stops it.
///
/// # Errors
/// When the listener cannot be used.
pub fn serve(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    tls: Option<ServerConfig>,
) -> io::Result<(
    SocketAddr,
    ServerHandle,
    impl Future<Output = io::Result<()>>,
)> {
    let address = listener.local_addr()?;
    let is_secure = tls.is_some();
    let bounds = bounds(&gateway);
    let settings = gateway.settings();
    let page = Data::new(EditorPage::new(&settings.base_path, &settings.socket_path));
    let app = move || {
        let request_bytes_max = gateway.settings().request_bytes_max;
        let base_path = gateway.settings().base_path.clone();
        App::new()
            .app_data(Data::from(gateway.clone()))
            .app_data(page.clone())
            .app_data(request_limits::json_config(request_bytes_max))
            .configure(|config| routes(config, &gateway))
            .default_service(web::to(move |request| {
                elsewhere(request, base_path.clone())
            }))
            .wrap(from_fn(store_availability::reject_while_unavailable))
            .wrap(from_fn(request_auth::check_origin))
            .wrap(from_fn(request_auth::limit_request_rate))
            .wrap(from_fn(request_limits::enforce))
            .wrap(headers(is_secure))
    };
    let server = server::serve(app, listener, tls, &bounds)?;
    Ok((address, server.handle(), server))
}

fn bounds(gateway: &Gateway) -> ServerLimits {
    let settings = gateway.settings();
    ServerLimits {
        sockets_max: settings.sockets_max,
        connections_max: settings.connections_max,
        address_connections_max: (!gateway.auth().is_behind_proxy())
            .then_some(settings.address_connections_max),
        timeouts: ConnectionTimeouts {
            request: Duration::from_millis(settings.request_timeout_ms),
            response: Duration::from_millis(settings.answer_timeout_ms),
        },
    }
}

/// All that is served, below the base path. The probes of balancers, which ask a node itself, are also at the root.
fn routes(config: &mut web::ServiceConfig, gateway: &Gateway) {
    let settings = gateway.settings();
    let socket_path = &settings.socket_path;
    if !settings.base_path.is_empty() {
        health::routes(config);
    }
    config.service(
        web::scope(&settings.base_path)
            .route(socket_path, web::get().to(open_socket))
            .route(&format!("{socket_path}/"), web::get().to(open_socket))
            .configure(health::routes)
            .route("/", web::get().to(index))
            .route("/d/{id}", web::get().to(index))
            .configure(accounts::routes)
            .configure(sharing::routes)
            .configure(documents::routes)
            .configure(text_ops::routes)
            .route("/api/{rest:.*}", web::route().to(no_such_api))
            .route("/{path:.*}", web::get().to(asset)),
    );
}

/// What every answer says, whatever route it comes from.
fn headers(is_secure: bool) -> DefaultHeaders {
    let headers = DefaultHeaders::new()
        .add(("content-security-policy", CONTENT_SECURITY_POLICY))
        .add(("x-content-type-options", "nosniff"))
        .add(("referrer-policy", "same-origin"))
        .add((
            "permissions-policy",
            "camera=(), geolocation=(), microphone=()",
        ))
        .add(("cross-origin-opener-policy", "same-origin"))
        .add(("cross-origin-resource-policy", "same-origin"))
        // Of answers that do not say otherwise: no cache may keep a 404, a refusal or what a probe was told.
        .add(NO_STORE);
    if !is_secure {
        return headers;
    }
    headers.add(("strict-transport-security", "max-age=31536000"))
}

const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' https: data:; \
     style-src 'self'; style-src-attr 'unsafe-inline'; connect-src 'self'; object-src 'none'; base-uri 'self'; \
     frame-ancestors 'none'; form-action 'self'";

/// Whether one more socket may be asked for now, by the request's principal or, where it proves none, from its address.
fn allow_handshake(request: &HttpRequest, gateway: &Gateway, network: IpAddr) -> bool {
    if gateway.auth().mode() == AuthMode::Open {
        return true;
    }
    let principal = request_auth::rate_limit_key(request, gateway, network);
    gateway.limits().allow_handshake(network, principal)
}

async fn too_many_sockets(gateway: &Gateway) -> HttpResponse {
    gateway.limits().delay_rejection().await;
    failure(
        StatusCode::TOO_MANY_REQUESTS,
        "too_many",
        "too many sockets are asked for from this address or by this user: try again",
    )
}

async fn open_socket(
    request: HttpRequest,
    payload: web::Payload,
    gateway: Data<Gateway>,
) -> actix_web::Result<HttpResponse> {
    let gateway = gateway.into_inner();
    if !gateway.is_serving() {
        return Ok(failure(
            StatusCode::SERVICE_UNAVAILABLE,
            "restarting",
            "The server restarts: come back",
        ));
    }
    if !request_auth::may_act(&request, &gateway) {
        return Ok(request_auth::foreign_page(&request));
    }
    let address = request_auth::address(&request, &gateway);
    if !allow_handshake(&request, &gateway, network(address)) {
        return Ok(too_many_sockets(&gateway).await);
    }
    let told = gateway.auth().revocation_generation();
    let identity = match gateway
        .auth()
        .identify(&request_auth::credentials(&request))
        .await
    {
        Ok(Some(identity)) => identity,
        Ok(None) => return Ok(unauthorized()),
        Err(error) => return Ok(unavailable(&error)),
    };
    if !gateway.limits().allow_connect(&identity) {
        return Ok(too_many_sockets(&gateway).await);
    }
    let Some(counted) = SocketGuard::new(&gateway) else {
        return Ok(failure(
            StatusCode::SERVICE_UNAVAILABLE,
            "full",
            "As many sockets are open as may be",
        ));
    };
    let Ok(places) = gateway.limits().reserve_socket(&identity, network(address)) else {
        return Ok(failure(
            StatusCode::TOO_MANY_REQUESTS,
            "quota",
            "as many sockets are open as this user or tenant may have",
        ));
    };
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce)
        .map_err(|_| actix_web::error::ErrorInternalServerError("no randomness"))?;
    let history = gateway.node().log_history();
    let client = gateway.client_ids().issue(&identity.author, nonce, history);
    let share = gateway.limits().for_socket(&identity, network(address));
    let rights = PermissionCache::new(gateway.auth().clone(), identity, told);
    let client_kind = match request.query_string() {
        "rights" => ClientKind::Extended,
        _ => ClientKind::ShareDb,
    };

    let limits = gateway.settings().message_limits();
    let wake_queue = Some(upgrade::wake_queue());
    let outbox = Outbox::new(
        gateway.settings().outbox_bytes_max,
        &ShareDbEncoder,
        wake_queue,
    );
    let outbox = outbox.with_history(history);
    let outbox = Arc::new(outbox.with_budget(gateway.node().outboxes().clone()));
    let open = upgrade::accept(
        &request,
        payload,
        limits,
        outbox.clone(),
        gateway.node().snapshots().clone(),
    );
    let (response, messages) = open.await?;
    let session = Session::new(gateway, rights, client_kind, client, outbox, share);
    rt::spawn(async move {
        session.run(messages).await;
        drop((counted, places));
    });
    Ok(response)
}

async fn index(request: HttpRequest, page: Data<EditorPage>) -> actix_web::Result<HttpResponse> {
    let mut response = page.answer(&request);
    if let Some(cookie) = request_auth::new_guest(&request) {
        response
            .add_cookie(&cookie)
            .map_err(actix_web::error::ErrorInternalServerError)?;
    }
    Ok(response)
}

async fn asset(request: HttpRequest, path: web::Path<String>) -> HttpResponse {
    assets::asset(&request, &path)
}

/// What is outside of the base path. Its name without the last slash leads to the page.
async fn elsewhere(request: HttpRequest, base_path: String) -> HttpResponse {
    if !base_path.is_empty() && request.path() == base_path {
        let page = format!("{base_path}/");
        return HttpResponse::PermanentRedirect()
            .insert_header((LOCATION, page))
            .finish();
    }
    HttpResponse::NotFound().finish()
}

async fn no_such_api() -> HttpResponse {
    failure(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is no such resource",
    )
}
