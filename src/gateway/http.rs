//! The HTTP application: routes, middleware and the headers of all responses.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::header::LOCATION;
use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::web::{self, Data};
use actix_web::{App, HttpRequest, HttpResponse};
use rustls::ServerConfig;

use super::api;
use super::assets::{self, EditorPage};
use super::connection_deadlines::ConnectionTimeouts;
use super::cookies;
use super::gateway::Gateway;
use super::health;
use super::origin_check;
use super::request_auth;
use super::request_id;
use super::request_limits;
use super::request_metrics;
use super::server::{self, ServerLimits};
use super::socket_admission;
use super::store_availability;

const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' https: data:; \
     style-src 'self'; style-src-attr 'unsafe-inline'; connect-src 'self'; object-src 'none'; base-uri 'self'; \
     frame-ancestors 'none'; form-action 'self'";

/// Serves on `listener`. The future runs until the handle stops it.
///
/// # Errors
/// If the listener cannot be used.
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
    let limits = server_limits(&gateway);
    let settings = gateway.settings();
    let page = Data::new(EditorPage::new(&settings.base_path, &settings.socket_path));
    let app = move || {
        let request_bytes_max = gateway.settings().request_bytes_max;
        let base_path = gateway.settings().base_path.clone();
        App::new()
            .app_data(Data::from(gateway.clone()))
            .app_data(Data::from(gateway.auth().clone()))
            .app_data(page.clone())
            .app_data(request_limits::json_config(request_bytes_max))
            .configure(|config| routes(config, &gateway))
            .default_service(web::to(move |request| {
                outside_base_path(request, base_path.clone())
            }))
            .wrap(from_fn(store_availability::reject_while_unavailable))
            .wrap(from_fn(origin_check::check_origin))
            .wrap(from_fn(request_auth::limit_request_rate))
            .wrap(from_fn(request_limits::enforce))
            .wrap(default_headers(is_secure))
            .wrap(from_fn(request_metrics::measure))
            .wrap(from_fn(request_id::assign))
    };
    let server = server::serve(app, listener, tls, &limits)?;
    Ok((address, server.handle(), server))
}

fn server_limits(gateway: &Gateway) -> ServerLimits {
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

/// All routes, below the base path. The probes are also at the root, because load balancers ask a node directly.
fn routes(config: &mut web::ServiceConfig, gateway: &Gateway) {
    let settings = gateway.settings();
    let socket_path = &settings.socket_path;
    if !settings.base_path.is_empty() {
        health::routes(config);
    }
    config.service(
        web::scope(&settings.base_path)
            .route(socket_path, web::get().to(socket_admission::open))
            .route(
                &format!("{socket_path}/"),
                web::get().to(socket_admission::open),
            )
            .configure(health::routes)
            .route("/", web::get().to(index))
            .route("/d/{id}", web::get().to(index))
            .configure(api::routes::configure)
            .route("/{path:.*}", web::get().to(asset)),
    );
}

/// The headers of every response.
fn default_headers(is_secure: bool) -> DefaultHeaders {
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
        // Unless a response says otherwise: caches must not keep errors, probes and answers of the API.
        .add(("cache-control", "no-store"));
    if !is_secure {
        return headers;
    }
    headers.add(("strict-transport-security", "max-age=31536000"))
}

/// The page of the editor, with a cookie for a new guest.
async fn index(request: HttpRequest, page: Data<EditorPage>) -> actix_web::Result<HttpResponse> {
    let mut response = page.answer(&request);
    if let Some(cookie) = cookies::new_guest(&request) {
        response
            .add_cookie(&cookie)
            .map_err(actix_web::error::ErrorInternalServerError)?;
    }
    Ok(response)
}

async fn asset(request: HttpRequest, path: web::Path<String>) -> HttpResponse {
    assets::asset(&request, &path)
}

/// Answers requests outside of the base path. The base path without its last slash redirects to the page.
async fn outside_base_path(request: HttpRequest, base_path: String) -> HttpResponse {
    if !base_path.is_empty() && request.path() == base_path {
        let page = format!("{base_path}/");
        return HttpResponse::PermanentRedirect()
            .insert_header((LOCATION, page))
            .finish();
    }
    HttpResponse::NotFound().finish()
}
