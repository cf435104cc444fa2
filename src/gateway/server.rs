//! Accepts connections within their limits and passes each to HTTP in a form that a WebSocket can take over.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, Protocol, Request};
use actix_service::{
    IntoServiceFactory, ServiceFactory, ServiceFactoryExt, fn_service, map_config,
};
use actix_web::body::BoxBody;
use actix_web::dev::{AppConfig, Server, ServiceResponse};
use actix_web::rt::net::TcpStream;
use actix_web::rt::time::timeout;
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

use super::connection_deadlines::{ConnectionDeadlines, ConnectionTimeouts};
use super::connections::Connections;
use super::socket::{ClientStream, HttpStream};
use crate::auth::network;

/// The time for open requests when the server stops, in seconds.
const SHUTDOWN_SECONDS: u64 = 2;

/// How long a TLS handshake may take.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);

/// How long closing a connection may take, and how long the rest of a request is read after an early response.
const DISCONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// How long the head of a connection's first request may take before it is answered with 408.
const FIRST_HEAD_PATIENCE: Duration = Duration::from_secs(5);

/// The limits of a server's connections.
#[derive(Debug, Clone)]
pub(super) struct ServerLimits {
    /// The most open WebSockets of all threads.
    pub(super) sockets_max: usize,
    /// The most other connections.
    pub(super) connections_max: usize,
    /// The most of those from one address; `None` behind a proxy, because all connections have its address.
    pub(super) address_connections_max: Option<usize>,
    /// The time limits of requests and responses.
    pub(super) timeouts: ConnectionTimeouts,
}

/// Serves the connections of `listener` with one application per thread, made by `app`.
///
/// # Errors
/// If the listener cannot be used.
pub(super) fn serve<A, F>(
    app: impl Fn() -> A + Send + Clone + 'static,
    listener: TcpListener,
    tls: Option<ServerConfig>,
    bounds: &ServerLimits,
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
            .client_request_timeout(FIRST_HEAD_PATIENCE)
            .client_disconnect_timeout(DISCONNECT_PATIENCE)
            .on_connect_ext(|end: &HttpStream, data| {
                data.insert(end.handle());
            })
            .finish(map_config(app, |()| AppConfig::default()))
    };
    let is_secure = tls.is_some();
    let entrance = Arc::new(ConnectionAcceptor {
        connections: Connections::new(bounds.connections_max, bounds.address_connections_max),
        tls: tls.map(|mut tls| {
            tls.alpn_protocols = vec![b"http/1.1".to_vec()];
            TlsAcceptor::from(Arc::new(tls))
        }),
        timeouts: bounds.timeouts,
    });
    let server = Server::build()
        .disable_signals()
        .shutdown_timeout(SHUTDOWN_SECONDS)
        // Never reached, even if one thread has all connections: accepting must not pause.
        .max_concurrent_connections(bounds.sockets_max + 2 * bounds.connections_max)
        .listen(
            if is_secure { "https" } else { "http" },
            listener,
            move || {
                let entrance = entrance.clone();
                let enter = fn_service(move |tcp| {
                    let entrance = entrance.clone();
                    async move { entrance.enter(tcp).await.map_err(DispatchError::Io) }
                });
                enter.and_then(http())
            },
        )?;
    Ok(server.run())
}

/// Accepts connections for all threads.
struct ConnectionAcceptor {
    connections: Arc<Connections>,
    tls: Option<TlsAcceptor>,
    timeouts: ConnectionTimeouts,
}

impl ConnectionAcceptor {
    /// Counts a connection and, if the server uses TLS, does its handshake. During the handshake the connection may be
    /// evicted like one that waits for a request; other connections are not delayed by it.
    async fn enter(
        &self,
        tcp: TcpStream,
    ) -> io::Result<(HttpStream, Protocol, Option<SocketAddr>)> {
        let peer = tcp.peer_addr().map(|peer| peer.ip());
        let address = network(peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        let place = self.connections.admit(address).ok_or_else(|| {
            io::Error::new(io::ErrorKind::ConnectionRefused, "too many connections")
        })?;
        let connection = match &self.tls {
            None => ClientStream::Plain(tcp),
            Some(tls) => {
                let handshake = timeout(HANDSHAKE_PATIENCE, tls.accept(tcp));
                let handshaken = tokio::select! {
                    handshaken = handshake => handshaken.map_err(|_| io::ErrorKind::TimedOut)??,
                    () = place.evicted() => return Err(io::ErrorKind::TimedOut.into()),
                };
                ClientStream::Encrypted(Box::new(handshaken))
            }
        };
        let deadlines = ConnectionDeadlines::new(self.timeouts, Some(place));
        let (end, peer) = HttpStream::new(connection, deadlines);
        Ok((end, Protocol::Http1, peer))
    }
}
