//! The `copydesk` command: what the program can do, in one table.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use copydesk::auth::{Door, Mint, Mode};
use copydesk::config::{self, Config};
use copydesk::gateway::{self, Certificate, Gateway};
use copydesk::id::NodeId;
use copydesk::node::Node;
use copydesk::store::{SqliteSettings, SqliteStore, Store};
use copydesk::telemetry;
use mimalloc::MiMalloc;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// A real-time document server: many people edit one document at once, and nothing acknowledged is ever lost.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  copydesk serve                               the page at http://127.0.0.1:8080/, what it is told in ./data
  copydesk serve --open                        without accounts: everybody may read and write everything
  copydesk serve --listen 0.0.0.0:80 --data /var/lib/copydesk
  COPYDESK__LOG__LEVEL=debug copydesk serve    any setting by the environment
  copydesk config check --config my.toml       is this file sound?";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the page, the API and the sockets until SIGTERM or Ctrl-C
    Serve(Serve),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say whether the configuration is sound, and what comes of it
    Check(ConfigFile),
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The file of settings [default: config.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    file: ConfigFile,
    /// The address to listen on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// The folder of the database [default: data/]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Let everybody in, without accounts: for tests and trials
    #[arg(long)]
    open: bool,
}

fn main() -> ExitCode {
    match command(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("copydesk: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command(command: Command) -> Result<()> {
    match command {
        Command::Serve(serve) => {
            let mut config = serve.file.load()?;
            config.server.listen = serve.listen.unwrap_or(config.server.listen);
            config.server.data = serve.data.unwrap_or(config.server.data);
            if serve.open {
                config.auth.mode = Mode::Open;
            }
            telemetry::begin(&config.log)?;
            tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .context("start the runtime")?
                .block_on(run(config))
        }
        Command::Config(ConfigCommand::Check(file)) => {
            let config = file.load()?;
            println!("{config:#?}");
            println!("The configuration is sound.");
            Ok(())
        }
    }
}

impl ConfigFile {
    fn load(&self) -> Result<Config> {
        let usual = Path::new("config.toml");
        let path = self
            .config
            .as_deref()
            .or_else(|| usual.exists().then_some(usual));
        Ok(config::load(path, std::env::vars())?)
    }
}

/// Serves until a signal says stop.
async fn run(config: Config) -> Result<()> {
    // Each socket takes two descriptors; the usual 1,024 would be full with 500.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let listen = config.server.listen;
    let listener = TcpListener::bind(listen).with_context(|| format!("listen on {listen}"))?;
    let settings = SqliteSettings {
        folder: config.server.data.clone(),
        size_max_mib: config.server.data_mib_max,
        ..SqliteSettings::default()
    };
    let store = Arc::new(SqliteStore::open(&settings)?);
    let secret = store.secret().await?;
    let mint = Mint::new(&secret);
    let (mode, settings, accounts) = (config.auth.mode, config.auth, store.clone());
    let door = tokio::task::spawn_blocking(move || Door::open(settings, Some(accounts), &secret));
    let door = door.await.context("open the door")??;
    let known = door.begin_watch().await?;
    let keeper = tokio::spawn({
        let door = door.clone();
        async move { door.keep(known).await }
    });
    let mut id = [0; 8];
    getrandom::fill(&mut id).context("draw the node's id")?;
    let id = NodeId(u64::from_le_bytes(id));
    let node = Node::new(id, store.clone(), config.node, Handle::current());
    let gateway = Gateway::new(node, mint, door, config.gateway);
    if mode == Mode::Open {
        tracing::warn!(
            "open mode: whoever reaches {listen} may read and write every document; serve without --open for accounts"
        );
    }

    let certificate = Certificate::open(&config.tls)?;
    let tls = certificate.as_ref().map(Certificate::config).transpose()?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let (address, handle, server) =
        gateway::serve(gateway.clone(), listener, tls).context("start the server")?;
    // Taken in any case: a hangup is no reason to end.
    let hangup = signal(SignalKind::hangup())?;
    let refresher = tokio::spawn(async move {
        match certificate {
            Some(certificate) => certificate.keep_fresh(hangup).await,
            None => drop(hangup),
        }
    });
    let server = tokio::spawn(server);
    tracing::info!(%address, data = %config.server.data.display(), "serving: {scheme}://{address}/");

    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("stopping: what was accepted becomes durable, then sockets close");
    let patience = Duration::from_millis(config.server.stop_patience_ms);
    let stop = async {
        let durable = gateway.stop(patience).await;
        handle.stop(true).await;
        durable
    };
    let durable = tokio::select! {
        durable = stop => durable,
        // Whoever says it twice does not want to wait.
        _ = term.recv() => bail!("stopped at once: what was not acknowledged may be lost"),
        _ = int.recv() => bail!("stopped at once: what was not acknowledged may be lost"),
    };
    server.await.context("join the server")?.context("serve")?;
    keeper.abort();
    refresher.abort();
    store.close().await?;
    if !durable {
        bail!("the store did not answer in time: what was not acknowledged may be lost");
    }
    tracing::info!("stopped");
    Ok(())
}
