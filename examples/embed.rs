//! A Copydesk server inside another program: one node with SQLite in a folder, without accounts.
//!
//! ```sh
//! cargo run --example embed -- data/embedded
//! ```
//!
//! `src/main.rs` does the same with settings from a file, accounts, TLS, and Postgres and Redis for several nodes.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use anyhow::{Context, Result, ensure};
use copydesk::auth::{AuthMode, AuthService, AuthSettings, ClientIdIssuer};
use copydesk::gateway::{self, Gateway, GatewayMetrics, GatewaySettings, ShareDbEncoder};
use copydesk::id::NodeId;
use copydesk::node::{Node, NodeEnvironment, NodeMetrics, NodeSettings};
use copydesk::store::{SqliteSettings, SqliteStore, Store};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

#[tokio::main]
async fn main() -> Result<()> {
    let folder = std::env::args().nth(1).context("usage: embed FOLDER")?;
    let server = Server::start(Path::new(&folder), "127.0.0.1:8080").await?;
    println!("http://{}/ until Ctrl-C", server.address);
    tokio::signal::ctrl_c().await?;
    server.stop().await
}

/// A running server. It needs a runtime with several threads.
pub(crate) struct Server {
    /// The address that it listens on.
    pub(crate) address: SocketAddr,
    gateway: Arc<Gateway>,
    store: Arc<SqliteStore>,
    handle: ServerHandle,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    /// Serves the documents in `folder`; port 0 takes a free one.
    pub(crate) async fn start(folder: &Path, listen: &str) -> Result<Self> {
        let store = Arc::new(SqliteStore::open(&SqliteSettings {
            folder: folder.to_owned(),
            ..SqliteSettings::default()
        })?);
        let secret = store.secret().await?;
        // A new id at every start: entries and messages tell the incarnations of a node apart.
        let id = NodeId(getrandom::u64()?);
        let environment = NodeEnvironment {
            store: store.clone(),
            transport: None,
            encoder: &ShareDbEncoder,
            runtime: Handle::current(),
            metrics: NodeMetrics::default(),
        };
        let node = Node::new((id, "embedded"), NodeSettings::default(), environment);
        node.begin_log_history(store.history().await?);
        let open = AuthSettings {
            mode: AuthMode::Open,
            ..AuthSettings::default()
        };
        let auth = AuthService::open(open, Some(store.clone()), &secret)?;
        let client_ids = ClientIdIssuer::new(&secret);
        let gateway = Gateway::new(
            node,
            client_ids,
            auth,
            GatewaySettings::default(),
            GatewayMetrics::default(),
        );
        let listener = TcpListener::bind(listen)?;
        let (address, handle, server) = gateway::serve(gateway.clone(), listener, None)?;
        Ok(Self {
            address,
            gateway,
            store,
            handle,
            task: tokio::spawn(server),
        })
    }

    /// Commits what was accepted, closes the sockets with 1012, and closes the database.
    pub(crate) async fn stop(self) -> Result<()> {
        let is_durable = self.gateway.stop(Duration::from_secs(10)).await;
        self.handle.stop(true).await;
        self.task.await??;
        self.store.close().await?;
        ensure!(is_durable, "the store did not answer in time");
        Ok(())
    }
}
