//! `copydesk serve`: opens the store, starts the node and the gateway, and stops them in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use copydesk::admin::AdminServer;
use copydesk::auth::{AuthMode, AuthService, ClientIdIssuer};
use copydesk::cluster::ClusterTransport;
use copydesk::config::Config;
use copydesk::gateway::{self, Certificate, Gateway, GatewayMetrics, ShareDbEncoder};
use copydesk::id::NodeId;
use copydesk::metrics::{MetricsRegistry, ProcessMetrics};
use copydesk::node::{Node, NodeEnvironment, NodeMetrics};
use copydesk::store::StoreMetrics;
use copydesk::telemetry;
use socket2::{Domain, Socket, Type};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use super::open_store::{OpenStore, new_node_id, node_name};

/// Serves until a signal stops the server.
pub(crate) async fn serve(
    #[cfg_attr(not(debug_assertions), expect(unused_mut))] mut config: Config,
) -> Result<()> {
    #[cfg(debug_assertions)]
    config.node.read_test_environment();
    let (id, name) = (new_node_id()?, node_name(&config));
    telemetry::set_node(&name, id);
    raise_file_limit(&config);

    // Bound first: an address in use is an error before anything else is opened.
    let address = config.server.listen;
    let socket = bind(address).with_context(|| format!("listen on {address}"))?;
    let metrics = ServerMetrics::start();
    let admin = AdminServer::start(&config.admin, metrics.registry.clone())?;
    if let Some(admin) = &admin {
        tracing::info!(address = %admin.address(), "the admin listener serves metrics: http://{}/metrics", admin.address());
    }
    let store = OpenStore::open_measured(&config, id, metrics.store.clone()).await?;
    let services = Services::start(&config, (id, &name), &store, &metrics).await?;
    if config.auth.mode == AuthMode::Open {
        tracing::warn!(
            "open mode: every client that reaches {address} may read and write every document; serve without --open for accounts"
        );
    }
    let setup_code = services.setup_code().await?;

    let server = HttpServer::start(&config, &services.gateway, socket)?;
    let url = format!("{}://{}/", server.scheme, server.address);
    let data = match store {
        OpenStore::Sqlite(_) => config.server.data.display().to_string(),
        OpenStore::Postgres(_) => "Postgres".to_owned(),
    };
    tracing::info!(address = %server.address, data, "serving: {url}");
    if let Some(code) = setup_code {
        tracing::warn!(
            "no account exists yet: make the first at {url} on this machine, or from another machine at the server's address with /#invitation={code} behind it"
        );
    }

    let mut signals = StopSignals::new()?;
    signals.received().await;
    tracing::info!("stopping: accepted edits become durable, then sockets close");
    let patience = Duration::from_millis(config.server.stop_patience_ms);
    let is_durable = tokio::select! {
        is_durable = services.stop(server, patience) => is_durable?,
        () = signals.received() => {
            bail!("stopped at once by a second signal: edits that were not acknowledged may be lost")
        }
    };
    store.close().await?;
    if let Some(admin) = admin {
        admin.stop().await.context("stop the admin listener")?;
    }
    if !is_durable {
        bail!("the store did not answer in time: edits that were not acknowledged may be lost");
    }
    tracing::info!("stopped");
    Ok(())
}

/// The metrics of all parts of the server.
struct ServerMetrics {
    registry: Arc<MetricsRegistry>,
    node: NodeMetrics,
    gateway: GatewayMetrics,
    store: StoreMetrics,
}

impl ServerMetrics {
    /// The metrics of a server whose parts have not started.
    fn start() -> Self {
        let mut registry = MetricsRegistry::new();
        let process = ProcessMetrics::start();
        let (node, gateway) = (NodeMetrics::default(), GatewayMetrics::default());
        let store = StoreMetrics::default();
        registry.add(&process);
        registry.add(&gateway);
        registry.add(&node);
        registry.add(&store);
        let runtime = Handle::current();
        registry.sample(move || process.sample(&runtime));
        Self {
            registry: Arc::new(registry),
            node,
            gateway,
            store,
        }
    }

    /// Samples the state of the parts that have started.
    fn sample(&self, node: &Arc<Node>, gateway: &Arc<Gateway>) {
        let (node, gateway) = (node.clone(), gateway.clone());
        self.registry.sample(move || {
            node.sample_metrics();
            node.store().sample_metrics();
            gateway.sample_metrics();
        });
    }
}

/// The parts of a running server behind HTTP.
struct Services {
    node: Arc<Node>,
    auth: Arc<AuthService>,
    gateway: Arc<Gateway>,
    mode: AuthMode,
    /// Tasks that run until the server has stopped.
    background: JoinSet<()>,
    /// Tasks that send sockets to other nodes. They end when the server begins to stop.
    balancing: JoinSet<()>,
}

impl Services {
    async fn start(
        config: &Config,
        (id, name): (NodeId, &str),
        store: &OpenStore,
        metrics: &ServerMetrics,
    ) -> Result<Self> {
        let secret = store.get().secret().await?;
        let (transport, inbox) = match &config.redis.url {
            None => (None, None),
            Some(_) => {
                let opened = ClusterTransport::open(&config.redis, &config.cluster, (id, &secret));
                let (transport, inbox) = opened.await?;
                (Some(transport), Some(inbox))
            }
        };
        let mut background = JoinSet::new();
        let auth = start_auth(config, store, secret, &mut background).await?;

        let environment = NodeEnvironment {
            store: store.get(),
            transport,
            encoder: &ShareDbEncoder,
            runtime: Handle::current(),
            metrics: metrics.node.clone(),
        };
        let node = Node::new((id, name), config.node.clone(), environment);
        node.begin_log_history(store.get().history().await?);
        if let OpenStore::Postgres(_) = store {
            let joined = node.take_part(inbox).await;
            joined.inspect_err(
                |error| tracing::error!(%error, "this node does not join the cluster"),
            )?;
        }
        reload_permissions_after_rewind(&node, &auth, &mut background);

        let client_ids = ClientIdIssuer::new(&secret);
        let gateway = Gateway::new(
            node.clone(),
            client_ids,
            auth.clone(),
            config.gateway.clone(),
            metrics.gateway.clone(),
        );
        metrics.sample(&node, &gateway);
        let mut balancing = JoinSet::new();
        let isolated = gateway.clone();
        balancing.spawn(async move { isolated.yield_while_stranded().await });
        balancing.spawn(gateway.clone().rebalance());
        Ok(Self {
            node,
            auth,
            gateway,
            mode: config.auth.mode,
            background,
            balancing,
        })
    }

    /// The invitation for the first account; `None` if there are accounts, or the mode needs none.
    async fn setup_code(&self) -> Result<Option<String>> {
        let is_new =
            self.mode == AuthMode::Accounts && !self.auth.accounts().has_accounts().await?;
        Ok(is_new.then(|| self.auth.setup_code()))
    }

    /// Stops accepting, waits up to `patience` until accepted edits are durable, and closes the sockets. Returns false if
    /// the time was too short.
    async fn stop(mut self, server: HttpServer, patience: Duration) -> Result<bool> {
        self.balancing.abort_all();
        if self.node.is_in_cluster() {
            self.gateway.hand_over().await;
        }
        let is_durable = self.gateway.stop(patience).await;
        server.stop().await?;
        self.background.abort_all();
        self.node.close_peers().await;
        Ok(is_durable)
    }
}

/// Starts the authentication service and its background task.
async fn start_auth(
    config: &Config,
    store: &OpenStore,
    secret: [u8; 32],
    background: &mut JoinSet<()>,
) -> Result<Arc<AuthService>> {
    let (settings, accounts) = (config.auth.clone(), store.accounts());
    // Reads keys from files or by HTTP.
    let opened =
        tokio::task::spawn_blocking(move || AuthService::open(settings, Some(accounts), &secret));
    let auth = opened.await.context("start the authentication service")??;
    let known = auth.last_revocation().await?;
    let service = auth.clone();
    background.spawn(async move { service.run(known).await });
    Ok(auth)
}

/// Lets permissions be looked up again when the store went back in time: revocations may have been lost.
fn reload_permissions_after_rewind(
    node: &Node,
    auth: &Arc<AuthService>,
    background: &mut JoinSet<()>,
) {
    let (auth, mut history) = (auth.clone(), node.watch_log_history());
    background.spawn(async move {
        while history.changed().await.is_ok() {
            auth.store_rewound();
        }
    });
}

/// The running HTTP server.
struct HttpServer {
    address: SocketAddr,
    scheme: &'static str,
    handle: actix_web::dev::ServerHandle,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
    /// Reads the certificate again when it changes.
    refresher: tokio::task::JoinHandle<()>,
}

impl HttpServer {
    fn start(config: &Config, gateway: &Arc<Gateway>, socket: Socket) -> Result<Self> {
        let certificate = Certificate::open(&config.tls)?;
        let tls = certificate.as_ref().map(Certificate::config).transpose()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        socket
            .listen(BACKLOG)
            .with_context(|| format!("listen on {}", config.server.listen))?;
        let (address, handle, server) =
            gateway::serve(gateway.clone(), socket.into(), tls).context("start the server")?;
        // Handled even without TLS: SIGHUP must not end the process.
        let hangup = signal(SignalKind::hangup())?;
        let refresher = tokio::spawn(async move {
            match certificate {
                Some(certificate) => certificate.keep_fresh(hangup).await,
                None => drop(hangup),
            }
        });
        Ok(Self {
            address,
            scheme,
            handle,
            task: tokio::spawn(server),
            refresher,
        })
    }

    async fn stop(self) -> Result<()> {
        self.handle.stop(true).await;
        self.task
            .await
            .context("join the server")?
            .context("serve")?;
        self.refresher.abort();
        Ok(())
    }
}

/// SIGTERM and Ctrl-C.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next of them.
    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Connections that may wait to be accepted: all clients of another node may connect at once when it restarts. The
/// system's own limit (`net.core.somaxconn`) is usually the same.
const BACKLOG: i32 = 4_096;

/// Binds an address without listening. An address in use is reported at once, and clients and load balancers cannot connect
/// before the server is ready to answer.
fn bind(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // As the standard library does: closed connections that linger in the kernel do not block the address.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// File descriptors that a node needs besides those of connections: for the store, the other nodes and files.
const OTHER_FILES: u64 = 200;

/// Raises the limit of open files to the hard limit, and warns if that is too low for the configured connections.
fn raise_file_limit(config: &Config) {
    let (sockets_max, connections_max) =
        (config.gateway.sockets_max, config.gateway.connections_max);
    let wanted = (sockets_max + connections_max) as u64 + OTHER_FILES;
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(files) if files >= wanted => {}
        Ok(files) => tracing::warn!(
            files,
            sockets_max,
            connections_max,
            "fewer files may be open than gateway.sockets_max and connections_max together: beyond that no connection is \
             taken; raise the limit of open files or lower the two"
        ),
        Err(error) => tracing::warn!(%error, "the limit of open files stays as it is"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn bound_address_accepts_connections_after_listen_only() {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = bind(free).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let early = TcpStream::connect(address).unwrap_err();
        assert_eq!(early.kind(), std::io::ErrorKind::ConnectionRefused);
        socket.listen(BACKLOG).unwrap();
        TcpStream::connect(address).unwrap();
        let taken = bind(address).unwrap_err();
        assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    }
}
