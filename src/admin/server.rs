//! The HTTP server of the admin listener. It has a thread of its own, so it answers while the other threads are busy, and
//! it starts before the store is opened and stops after it is closed.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{ServerHandle, ServiceRequest};
use actix_web::error::InternalError;
use actix_web::http::StatusCode;
use actix_web::http::header::{ACCEPT, CONTENT_TYPE, WWW_AUTHENTICATE};
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{self, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use thiserror::Error;
use tokio::task::JoinHandle;

use super::access_check::AccessCheck;
use super::settings::AdminSettings;
use crate::metrics::{ExpositionFormat, MetricsRegistry};

/// The most connections at once. A scraper uses one.
const CONNECTIONS_MAX: usize = 64;

/// How long a client may take to send the head of a request.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);

/// The admin listener cannot listen.
#[derive(Debug, Error)]
#[error(
    "the admin listener cannot listen on {address}: {source}; set admin.listen to another address, or to \"\""
)]
pub struct ListenError {
    address: String,
    source: io::Error,
}

/// The running admin listener.
#[derive(Debug)]
pub struct AdminServer {
    address: SocketAddr,
    handle: ServerHandle,
    task: JoinHandle<io::Result<()>>,
}

impl AdminServer {
    /// Starts to listen; `None` if the settings want no listener. If the default address is in use, another port is taken.
    ///
    /// # Errors
    /// If the address cannot be used.
    pub fn start(
        settings: &AdminSettings,
        metrics: Arc<MetricsRegistry>,
    ) -> Result<Option<Self>, ListenError> {
        let error = |source| ListenError {
            address: settings.listen.clone(),
            source,
        };
        let address = settings
            .address()
            .map_err(|fault| error(io::Error::new(io::ErrorKind::InvalidInput, fault)))?;
        let Some(address) = address else {
            return Ok(None);
        };
        let listener = match TcpListener::bind(address) {
            Err(fault)
                if fault.kind() == io::ErrorKind::AddrInUse && settings.may_take_another_port() =>
            {
                TcpListener::bind((address.ip(), 0))
            }
            bound => bound,
        };
        let listener = listener.map_err(error)?;
        let address = listener.local_addr().map_err(error)?;
        let check = AccessCheck::new(&settings.token);
        let server = HttpServer::new(move || {
            let check = check.clone();
            App::new()
                .app_data(Data::from(metrics.clone()))
                .wrap(from_fn(move |request: ServiceRequest, next: Next<_>| {
                    let checked = check.check(request.request());
                    async move {
                        match checked {
                            Ok(()) => next.call(request).await,
                            Err(status) => Err(rejection(status).into()),
                        }
                    }
                }))
                .route("/metrics", web::get().to(export))
        })
        .workers(1)
        .max_connections(CONNECTIONS_MAX)
        .client_request_timeout(HEAD_PATIENCE)
        .disable_signals()
        .shutdown_timeout(1)
        .listen(listener)
        .map_err(error)?
        .run();
        Ok(Some(Self {
            address,
            handle: server.handle(),
            task: tokio::spawn(server),
        }))
    }

    /// The address that is listened on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening.
    ///
    /// # Errors
    /// If the server had failed.
    pub async fn stop(self) -> io::Result<()> {
        self.handle.stop(true).await;
        self.task.await.map_err(io::Error::other)?
    }
}

/// The response to a request that is not answered.
fn rejection(status: StatusCode) -> InternalError<&'static str> {
    let mut response = HttpResponse::build(status);
    let reason = if status == StatusCode::UNAUTHORIZED {
        response.insert_header((WWW_AUTHENTICATE, "Bearer"));
        "the admin listener needs its token: Authorization: Bearer …\n"
    } else {
        "the admin listener answers no web page, and no name other than localhost\n"
    };
    InternalError::from_response(reason, response.body(reason))
}

async fn export(request: HttpRequest, metrics: Data<MetricsRegistry>) -> HttpResponse {
    let accept = request.headers().get(ACCEPT);
    let accept = accept.and_then(|it| it.to_str().ok()).unwrap_or_default();
    let format = ExpositionFormat::accepted(accept);
    match metrics.export(format) {
        Ok(text) => HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, format.content_type()))
            .body(text),
        Err(error) => HttpResponse::InternalServerError().body(format!("{error}\n")),
    }
}
