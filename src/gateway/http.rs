//! Routes: the page, the socket, health, and where the others are.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::middleware::{Compress, DefaultHeaders, from_fn};
use actix_web::web::{self, Data};
use actix_web::{App, HttpRequest, HttpResponse, Responder, rt};
use rustls::ServerConfig;

use super::answers::{failure, unauthorized, unavailable};
use super::bearer;
use super::documents;
use super::gateway::{Counted, Gateway};
use super::page;
use super::patience;
use super::people;
use super::rights::Rights;
use super::server;
use super::session::Session;
use super::sharing;
use super::upgrade;
use crate::auth::{Mode, NONCE_BYTES, network};
use crate::cluster::Health;
use crate::id::DocId;
use crate::node::Outbox;
use crate::store::StoreError;

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
    let sockets_max = gateway.settings().sockets_max;
    let is_secure = tls.is_some();
    let app = move || {
        App::new()
            .app_data(Data::from(gateway.clone()))
            .app_data(
                web::JsonConfig::default()
                    .limit(JSON_BYTES_MAX)
                    .error_handler(|error, _| {
                        let message = error.to_string();
                        let response = failure(StatusCode::BAD_REQUEST, "bad_request", &message);
                        actix_web::error::InternalError::from_response(error, response).into()
                    }),
            )
            .route("/ws", web::get().to(open_socket))
            .route("/healthz", web::get().to(healthz))
            .route("/readyz", web::get().to(readyz))
            .service(
                web::scope("")
                    .wrap(from_fn(patience::limit))
                    .wrap(from_fn(bearer::watch_origin))
                    .wrap(from_fn(bearer::watch_pace))
                    .wrap(Compress::default())
                    .wrap(headers(is_secure))
                    .route("/", web::get().to(index))
                    .route("/d/{id}", web::get().to(index))
                    .configure(people::routes)
                    .configure(sharing::routes)
                    .configure(documents::routes)
                    .route("/api/{rest:.*}", web::route().to(no_such_api))
                    .route("/{path:.*}", web::get().to(asset)),
            )
    };
    let server = server::serve(app, listener, tls, sockets_max + HTTP_CONNECTIONS)?;
    Ok((address, server.handle(), server))
}

/// The largest body of a request.
const JSON_BYTES_MAX: usize = 16 << 10;

/// Connections a worker takes besides sockets.
const HTTP_CONNECTIONS: usize = 1_000;

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
        .add(("cross-origin-resource-policy", "same-origin"));
    if !is_secure {
        return headers;
    }
    headers.add(("strict-transport-security", "max-age=31536000"))
}

const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' https: data:; \
     style-src 'self'; style-src-attr 'unsafe-inline'; connect-src 'self'; object-src 'none'; base-uri 'self'; \
     frame-ancestors 'none'; form-action 'self'";

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
    if !bearer::may_act(&request, &gateway) {
        return Ok(bearer::foreign_page());
    }
    let address = bearer::address(&request, &gateway);
    if gateway.door().mode() != Mode::Open && !gateway.limits().may_knock(network(address)) {
        gateway.limits().hold_back().await;
        return Ok(failure(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many",
            "too many sockets are asked for from this address: try again",
        ));
    }
    let told = gateway.door().told();
    let person = match gateway
        .door()
        .identify(&bearer::credentials(&request))
        .await
    {
        Ok(Some(person)) => person,
        Ok(None) => return Ok(unauthorized()),
        Err(error) => return Ok(unavailable(&error)),
    };
    let Some(counted) = Counted::new(&gateway) else {
        return Ok(failure(
            StatusCode::SERVICE_UNAVAILABLE,
            "full",
            "As many sockets are open as may be",
        ));
    };
    let Ok(places) = gateway.limits().hold_socket(&person, network(address)) else {
        return Ok(failure(
            StatusCode::TOO_MANY_REQUESTS,
            "quota",
            "as many sockets are open as this user or tenant may have",
        ));
    };
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce)
        .map_err(|_| actix_web::error::ErrorInternalServerError("no randomness"))?;
    let client = gateway.mint().mint(&person.author, nonce);
    let share = gateway.limits().share(&person, network(address));
    let rights = Rights::new(gateway.door().clone(), person, told);
    let hears_of_rights = request.query_string() == "rights";

    let bytes_max = gateway.settings().message_bytes_max;
    let bell = Some(upgrade::bell());
    let outbox = Arc::new(Outbox::new(gateway.settings().outbox_bytes_max, bell));
    let open = upgrade::open(&request, payload, bytes_max, outbox.clone());
    let (response, messages) = open.await?;
    let session = Session::new(gateway, rights, hears_of_rights, client, outbox, share);
    rt::spawn(async move {
        session.run(messages).await;
        drop((counted, places));
    });
    Ok(response)
}

async fn index(request: HttpRequest) -> actix_web::Result<HttpResponse> {
    let mut response = page::page(&request);
    if let Some(cookie) = bearer::new_guest(&request) {
        response
            .add_cookie(&cookie)
            .map_err(actix_web::error::ErrorInternalServerError)?;
    }
    Ok(response)
}

async fn asset(request: HttpRequest, path: web::Path<String>) -> HttpResponse {
    page::asset(&request, &path)
}

async fn healthz() -> impl Responder {
    "ok\n"
}

/// How long whoever asks whether the server is ready waits for the store. Balancers themselves wait no longer.
const READY_PATIENCE: Duration = Duration::from_millis(900);

/// Ready means: the store answers, the other nodes are heard, and the server is not on its way down.
async fn readyz(gateway: Data<Gateway>) -> HttpResponse {
    if !gateway.is_serving() {
        return HttpResponse::ServiceUnavailable().body("draining\n");
    }
    // Whether such a document exists is not the question.
    let doc = DocId::parse("readyz", "readyz").expect("both are names");
    let asked = rt::time::timeout(READY_PATIENCE, gateway.node().store().describe(&doc)).await;
    let late = |_| Err(StoreError::new("describe", "no answer in time"));
    match asked.unwrap_or_else(late) {
        Ok(_) => match gateway.node().health() {
            Health::Good => HttpResponse::Ok().body("ready\n"),
            Health::Bad(reason) => {
                let body = format!("the other nodes are not heard: {reason}\n");
                HttpResponse::ServiceUnavailable().body(body)
            }
        },
        Err(error) => {
            tracing::warn!(%error, "not ready");
            HttpResponse::ServiceUnavailable().body("the store does not answer\n")
        }
    }
}

async fn no_such_api() -> HttpResponse {
    failure(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is no such resource",
    )
}
