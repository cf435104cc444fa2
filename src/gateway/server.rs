//! Accepts connections, and hands each to HTTP in a form that a WebSocket can take over.

use std::future::ready;
use std::io;
use std::net::TcpListener;

use actix_http::error::DispatchError;
use actix_http::{HttpService, Protocol, Request};
use actix_service::{
    IntoServiceFactory, ServiceFactory, ServiceFactoryExt, fn_service, map_config,
};
use actix_tls::accept::TlsError;
use actix_tls::accept::rustls_0_23::{Acceptor, TlsStream};
use actix_web::body::BoxBody;
use actix_web::dev::{AppConfig, Server, ServiceResponse};
use actix_web::rt::net::TcpStream;
use rustls::ServerConfig;

use super::socket::{Connection, HttpEnd};

/// How requests may take to end when the server stops, in seconds.
const SHUTDOWN_SECONDS: u64 = 2;

/// Serves what `app` makes, one for each thread, to the connections of `listener`; at most so many on each thread at once.
///
/// # Errors
/// When the listener cannot be used.
pub(super) fn serve<A, F>(
    app: impl Fn() -> A + Send + Clone + 'static,
    listener: TcpListener,
    tls: Option<ServerConfig>,
    connections_max: usize,
) -> io::Result<Server>
where
    A: IntoServiceFactory<F, Request>,
    F: ServiceFactory<
            Request,
            Config = AppConfig,
            Response = ServiceResponse<BoxBody>,
            Error = actix_web::Error,
            InitError = (),
        > + 'static,
{
    let http = move || {
        let app = app()
            .into_factory()
            .map_err(|error: actix_web::Error| error.error_response());
        HttpService::build()
            .on_connect_ext(|end: &HttpEnd, data| {
                data.insert(end.socket());
            })
            .finish(map_config(app, |()| AppConfig::default()))
    };
    let server = Server::build()
        .disable_signals()
        .shutdown_timeout(SHUTDOWN_SECONDS)
        .max_concurrent_connections(connections_max);
    let server = match tls {
        None => server.listen("http", listener, move || {
            let plain =
                fn_service(|tcp| ready(Ok::<_, DispatchError>(entry(Connection::Plain(tcp)))));
            plain.and_then(http())
        })?,
        Some(mut tls) => {
            tls.alpn_protocols = vec![b"http/1.1".to_vec()];
            server.listen("https", listener, move || {
                Acceptor::new(tls.clone())
                    .map_init_err(|()| ())
                    .map_err(TlsError::into_service_error)
                    .map(|tls: TlsStream<TcpStream>| entry(Connection::Encrypted(Box::new(tls))))
                    .and_then(http().map_err(TlsError::Service))
            })?
        }
    };
    Ok(server.run())
}

/// A connection as HTTP takes it.
fn entry(connection: Connection) -> (HttpEnd, Protocol, Option<std::net::SocketAddr>) {
    let (end, peer) = HttpEnd::new(connection);
    (end, Protocol::Http1, peer)
}
