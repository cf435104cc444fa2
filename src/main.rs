//! The `copydesk` command: what the program can do, in one table.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
use copydesk::auth::{AuthMode, AuthService, ClientIdIssuer};
use copydesk::cluster::ClusterTransport;
use copydesk::config::{self, Config, Flag};
use copydesk::gateway::{self, Certificate, Gateway};
use copydesk::id::{DocId, NodeId};
use copydesk::node::{self, JoinError, Node, RepairMode};
use copydesk::protocol::CloseCode;
use copydesk::store::{
    AccessStore, History, MigrationPhase, PostgresStore, SqliteSettings, SqliteStore, Store,
    VerifyEvent, VerifyRange,
};
use copydesk::telemetry;
use mimalloc::MiMalloc;
use socket2::{Domain, Socket, Type};
use tokio::runtime::{Handle, Runtime};
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
  copydesk serve --node a --store postgres://u:p@db/copydesk --redis redis://cache
                                               a node of a cluster; others have other names
  copydesk where documents/abc                 who owns that document
  copydesk restored --store postgres://u:p@db/copydesk
                                               a backup was restored: clients of before must load anew
  copydesk verify --data backup                is every row of this database, or backup of one, sound?
  COPYDESK__LOG__LEVEL=debug copydesk serve    any setting by the environment
  copydesk config check --config my.toml       is this file sound?";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the page, the API and the sockets until SIGTERM or Ctrl-C
    Serve(Serve),
    /// Say which node owns a document, under which epoch, and how far its log goes
    Where(Where),
    /// Check every row of a database: checksums, the order of each log, and snapshots against the replay
    ///
    /// Reads only; a server may be using the database. The exit status is 0 if all is sound, 1 if something is damaged,
    /// and 2 if the database cannot be read.
    Verify(Verify),
    /// Bring the tables of a newer version of the program up to date, beside nodes of the older one
    ///
    /// A start of a node does what is quick. In a large Postgres database the rest is done here, while the nodes go on. It
    /// may be interrupted and repeated. Prints the versions that were applied and those that are pending.
    Migrate(Migrate),
    /// Make a document writable again that is larger than what may be held (ERR_DOC_OVERSIZED). Its text is kept; attributes
    /// of the ops that made it too large are left out. Without --store the server must be stopped first
    Repair(Repair),
    /// Say that the database was restored from a backup: it gets a new history, and every client that comes back with
    /// what it held before is told to load its documents anew. With --store nodes may be running; without it the server must
    /// be stopped first
    Restored(Restored),
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
    listen: Option<String>,
    #[command(flatten)]
    store: StoreChoice,
    /// The Redis or Valkey that carries messages between the nodes of a cluster [default: this node is alone]
    #[arg(long, value_name = "redis://…")]
    redis: Option<String>,
    /// Let everybody in, without accounts: for tests and trials
    #[arg(long)]
    open: bool,
    /// What people call this node [default: the machine's name]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

#[derive(Debug, Default, Args)]
struct StoreChoice {
    /// The Postgres that all nodes of a cluster share [default: a database of its own, in the data folder]
    #[arg(long, value_name = "postgres://…", conflicts_with = "data")]
    store: Option<String>,
    /// The folder of the database [default: data/]
    #[arg(long, value_name = "FOLDER")]
    data: Option<String>,
}

#[derive(Debug, Args)]
struct Repair {
    #[command(flatten)]
    doc: Where,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct Restored {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    store: StoreChoice,
}

#[derive(Debug, Args)]
struct Where {
    /// The document: its collection and its id
    #[arg(value_name = "COLLECTION/ID")]
    doc: String,
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    store: StoreChoice,
}

#[derive(Debug, Args)]
struct Migrate {
    /// Add what the new version needs: nodes of the version before go on [default]
    #[arg(long, conflicts_with_all = ["contract", "status"])]
    expand: bool,
    /// Remove what only older versions needed: when no node of them is left
    #[arg(long, conflicts_with = "status")]
    contract: bool,
    /// Only print the versions
    #[arg(long)]
    status: bool,
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    store: StoreChoice,
}

#[derive(Debug, Args)]
struct Verify {
    /// Resume after this document number, which the progress of an earlier run names
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    after: i64,
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    store: StoreChoice,
}

/// The exit status of `copydesk serve` if live nodes share no wire version with this program.
const INCOMPATIBLE: u8 = 3;

fn main() -> ExitCode {
    match command(Cli::parse().command) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("copydesk: {error:#}");
            match error.downcast_ref::<JoinError>() {
                Some(JoinError::Incompatible { .. }) => INCOMPATIBLE.into(),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn command(command: Command) -> Result<ExitCode> {
    match command {
        Command::Serve(serve) => {
            let config = serve.file.load(&serve.flags())?;
            telemetry::begin(&config.log)?;
            let threads = config.server.threads();
            runtime(threads)?.block_on(run(config))?;
        }
        Command::Where(Where { doc, file, store }) => {
            let config = file.load(&store.flags())?;
            runtime(1)?.block_on(locate(&doc, &config))?;
        }
        Command::Verify(Verify { after, file, store }) => {
            let config = file.load(&store.flags())?;
            return Ok(runtime(1)?.block_on(verify(VerifyRange { after }, &config)));
        }
        Command::Migrate(command) => {
            let config = command.file.load(&command.store.flags())?;
            telemetry::begin(&config.log)?;
            runtime(1)?.block_on(migrate(&command, &config))?;
        }
        Command::Repair(Repair { doc, dry_run }) => {
            let Where { doc, file, store } = doc;
            let config = file.load(&store.flags())?;
            runtime(1)?.block_on(repair(&doc, dry_run, &config))?;
        }
        Command::Restored(Restored { file, store }) => {
            let config = file.load(&store.flags())?;
            runtime(1)?.block_on(restored(&config))?;
        }
        Command::Config(ConfigCommand::Check(file)) => {
            let config = file.load(&[])?;
            println!("{config:#?}");
            println!("The configuration is sound.");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What runs the documents and the ways to the store and the other nodes, on so many threads.
fn runtime(threads: usize) -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(threads).enable_all();
    builder.build().context("start the runtime")
}

impl Serve {
    /// The settings that the flags set.
    fn flags(&self) -> Vec<Flag> {
        let mut flags = self.store.flags();
        let given = [
            ("--listen", "server.listen", &self.listen),
            ("--redis", "redis.url", &self.redis),
            ("--node", "server.node", &self.node),
        ];
        for (name, setting, value) in given {
            flags.extend(value.clone().map(|value| Flag {
                name,
                setting,
                value,
            }));
        }
        if self.open {
            flags.push(Flag {
                name: "--open",
                setting: "auth.mode",
                value: AuthMode::Open.as_str().to_owned(),
            });
        }
        flags
    }
}

impl StoreChoice {
    /// The settings that the flags set. `--data` also overrides a Postgres of the file or environment.
    fn flags(&self) -> Vec<Flag> {
        let flag = |name, setting, value: &str| Flag {
            name,
            setting,
            value: value.to_owned(),
        };
        let mut flags = Vec::new();
        if let Some(data) = &self.data {
            flags.push(flag("--data", "server.data", data));
            flags.push(flag("--data", "postgres.url", ""));
        }
        if let Some(store) = &self.store {
            flags.push(flag("--store", "postgres.url", store));
        }
        flags
    }
}

impl ConfigFile {
    fn load(&self, flags: &[Flag]) -> Result<Config> {
        let usual = Path::new("config.toml");
        let path = self
            .config
            .as_deref()
            .or_else(|| usual.exists().then_some(usual));
        // Variables whose names are not UTF-8 are not ours.
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((
                name.into_string().ok()?,
                value.to_string_lossy().into_owned(),
            ))
        });
        Ok(config::load(path, environment, flags)?)
    }
}

/// Says where a document is.
async fn locate(doc: &str, config: &Config) -> Result<()> {
    let doc = parse_doc(doc)?;
    let found = match config.is_shared() {
        true => PostgresStore::locate(&config.postgres, &doc).await?,
        false => SqliteStore::locate(&config.server.data, &doc)?,
    };
    let Some(found) = found else {
        bail!("nobody has opened {doc} for writing yet");
    };
    let owner = match (found.owner_name, found.owner) {
        (Some(name), Some(id)) if found.owner_lives => format!("{name} ({id})"),
        (Some(name), Some(id)) => {
            format!("{name} ({id}), which is gone: whoever writes next makes another")
        }
        _ => "the one node that has this folder".to_owned(),
    };
    println!("document  {doc}");
    println!("owner     {owner}");
    println!("epoch     {}", found.epoch.0);
    println!("revision  {}", found.head);
    let faults = match config.is_shared() {
        true => PostgresStore::verify_document(&config.postgres, &doc).await?,
        false => SqliteStore::verify_document(&config.server.data, &doc).await?,
    };
    for fault in faults {
        println!("damage    {fault}");
    }
    Ok(())
}

/// The exit status of `copydesk verify` if something is damaged.
const DAMAGED: u8 = 1;

/// The exit status of `copydesk verify` if the database cannot be read.
const UNREADABLE: u8 = 2;

/// Verifies a database. Damage goes to standard output, one fault a line; progress goes to standard error.
async fn verify(range: VerifyRange, config: &Config) -> ExitCode {
    let (mut resume, mut damages) = (range.after, 0);
    let mut report = |event| match event {
        VerifyEvent::Damage(damage) => {
            damages += 1;
            println!("{damage}");
        }
        VerifyEvent::Progress { document, totals } => {
            resume = document;
            eprintln!(
                "{} documents, {} entries; resume with --after {document}",
                totals.documents, totals.entries
            );
        }
    };
    let verified = match config.is_shared() {
        true => PostgresStore::verify(&config.postgres, range, &mut report).await,
        false => SqliteStore::verify(&config.server.data, range, &mut report).await,
    };
    match verified {
        Ok(totals) => {
            println!(
                "{} documents, {} entries, {} snapshots: {} faults",
                totals.documents, totals.entries, totals.snapshots, totals.damages
            );
            if totals.damages > 0 {
                DAMAGED.into()
            } else {
                ExitCode::SUCCESS
            }
        }
        Err(error) => {
            eprintln!("copydesk: {error}; resume with --after {resume}");
            if damages > 0 {
                DAMAGED.into()
            } else {
                UNREADABLE.into()
            }
        }
    }
}

/// Brings the tables up to date, and prints their versions.
async fn migrate(command: &Migrate, config: &Config) -> Result<()> {
    let phase = match (command.status, command.contract) {
        (true, _) => None,
        (_, true) => Some(MigrationPhase::Contract),
        _ => Some(MigrationPhase::Expand),
    };
    let status = match config.is_shared() {
        true => PostgresStore::migrate(&config.postgres, phase).await?,
        false => {
            // A folder has one server, which does all of it at its start.
            if phase.is_some() {
                let store = OpenStore::open_existing(config, fresh_id()?).await?;
                store.close().await?;
            }
            SqliteStore::migration_status(&config.server.data)?
        }
    };
    let list = |versions: &[i32]| match versions {
        [] => "none".to_owned(),
        versions => versions
            .iter()
            .map(i32::to_string)
            .collect::<Vec<_>>()
            .join(" "),
    };
    println!("applied  {}", list(&status.applied));
    println!("pending  {}", list(&status.pending));
    Ok(())
}

/// Repairs a document, and says what was done.
async fn repair(doc: &str, dry_run: bool, config: &Config) -> Result<()> {
    let doc = parse_doc(doc)?;
    let mode = if dry_run {
        RepairMode::DryRun
    } else {
        RepairMode::Write
    };
    let me = fresh_id()?;
    let store = OpenStore::open_existing(config, me).await?;
    let repaired = node::repair(&*store.get(), &doc, me, mode).await;
    store.close().await?;
    let saved = repaired?;
    if saved.is_whole() {
        println!(
            "{doc} is sound at revision {}: nothing was changed",
            saved.snapshot.revision
        );
        return Ok(());
    }
    let (done, content) = (
        if dry_run { "would be" } else { "was" },
        &saved.snapshot.content,
    );
    let bytes = content.as_ref().map_or(0, |content| content.size_bytes());
    println!("document            {doc}: it {done} made anew with {bytes} bytes");
    let revisions: Vec<String> = saved
        .without_attributes
        .iter()
        .map(ToString::to_string)
        .collect();
    println!("without attributes  revisions {}", revisions.join(", "));
    if let Some(revision) = saved.left_out_from {
        println!("left out            revision {revision} and all after it");
    }
    Ok(())
}

/// Renews the history of the store, and says what follows.
async fn restored(config: &Config) -> Result<()> {
    let store = OpenStore::open_existing(config, fresh_id()?).await?;
    let renewed = renew_history(&*store.get()).await;
    store.close().await?;
    println!("history  {}: renewed", renewed?.generation);
    println!(
        "Running nodes load all documents anew within a second and close their sockets with {}. Pages reload; \
         text that they had not saved is kept there for copying. Other clients get ERR_HISTORY_CHANGED for what they hold.",
        CloseCode::HistoryChanged as u16
    );
    Ok(())
}

async fn renew_history(store: &dyn Store) -> Result<History> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).context("draw the history's id")?;
    let known = store.history().await?;
    let next = known.after(known, u128::from_le_bytes(id));
    Ok(store.renew_history(known, next).await?)
}

fn parse_doc(doc: &str) -> Result<DocId> {
    let (collection, id) = doc.split_once('/').context("a document is COLLECTION/ID")?;
    DocId::parse(collection, id).context(format!("{doc:?} names no document"))
}

/// The store that the configuration names.
enum OpenStore {
    Sqlite(Arc<SqliteStore>),
    Postgres(Arc<PostgresStore>),
}

impl OpenStore {
    /// Opens a store that holds a database already. An operator's command that runs in the wrong folder, or with the wrong
    /// address, must not make an empty database and report success.
    async fn open_existing(config: &Config, me: NodeId) -> Result<Self> {
        let status = match config.is_shared() {
            true => PostgresStore::migrate(&config.postgres, None).await?,
            false => SqliteStore::migration_status(&config.server.data)?,
        };
        ensure!(
            !status.applied.is_empty(),
            "the database has no tables of Copydesk: check its address"
        );
        Self::open(config, me).await
    }

    async fn open(config: &Config, me: NodeId) -> Result<Self> {
        if config.is_shared() {
            let store = PostgresStore::open(&config.postgres, me, &node_name(config)).await?;
            return Ok(Self::Postgres(Arc::new(store)));
        }
        let settings = SqliteSettings {
            folder: config.server.data.clone(),
            size_max_mib: config.server.data_mib_max,
            ..SqliteSettings::default()
        };
        Ok(Self::Sqlite(Arc::new(SqliteStore::open(&settings)?)))
    }

    fn get(&self) -> Arc<dyn Store> {
        match self {
            Self::Sqlite(store) => store.clone(),
            Self::Postgres(store) => store.clone(),
        }
    }

    /// Where accounts are kept.
    fn accounts(&self) -> Arc<dyn AccessStore> {
        match self {
            Self::Sqlite(store) => store.clone(),
            Self::Postgres(store) => store.clone(),
        }
    }

    async fn close(&self) -> Result<()> {
        match self {
            Self::Sqlite(store) => store.close().await?,
            Self::Postgres(store) => store.close().await?,
        }
        Ok(())
    }
}

/// A node's id is drawn anew at every start: what was said to the one before is not for this one.
fn fresh_id() -> Result<NodeId> {
    let mut id = [0; 8];
    getrandom::fill(&mut id).context("draw the node's id")?;
    Ok(NodeId(u64::from_le_bytes(id)))
}

/// What people call this node.
fn node_name(config: &Config) -> String {
    if !config.server.node.is_empty() {
        return config.server.node.clone();
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "node".to_owned(),
        name => name.to_owned(),
    }
}

/// Connections that may wait to be taken: as many come at once when a neighbour restarts. The system's own limit
/// (`net.core.somaxconn`) is usually the same.
const BACKLOG: i32 = 4_096;

/// Takes an address, so that one that is taken is told at once, and lets nobody knock yet: whoever were let in before the
/// server serves would wait, and a balancer would take the node for one that answers.
fn take_address(listen: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, None)?;
    // As the standard library does: what is left of closed connections does not hold the address.
    socket.set_reuse_address(true)?;
    socket.bind(&listen.into())?;
    Ok(socket)
}

/// Descriptors that a node needs besides connections: the store, the other nodes, its files.
const OTHER_FILES: u64 = 200;

/// Raises the limit of open files, for each connection takes one; says so if it stays below the bound on connections.
fn allow_files(config: &Config) {
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

/// Serves until a signal says stop.
async fn run(
    #[cfg_attr(not(debug_assertions), expect(unused_mut))] mut config: Config,
) -> Result<()> {
    #[cfg(debug_assertions)]
    config.node.read_test_environment();
    let (id, name) = (fresh_id()?, node_name(&config));
    telemetry::set_node(&name, id);
    allow_files(&config);
    let listen = config.server.listen;
    let listening_socket = take_address(listen).with_context(|| format!("listen on {listen}"))?;
    let store = OpenStore::open(&config, id).await?;
    let secret = store.get().secret().await?;
    let client_ids = ClientIdIssuer::new(&secret);
    let (transport, inbox) = match &config.redis.url {
        None => (None, None),
        Some(_) => {
            let opened = ClusterTransport::open(&config.redis, &config.cluster, (id, &secret));
            let (transport, inbox) = opened.await?;
            (Some(transport), Some(inbox))
        }
    };
    let (mode, settings, accounts) = (config.auth.mode, config.auth, store.accounts());
    let auth =
        tokio::task::spawn_blocking(move || AuthService::open(settings, Some(accounts), &secret));
    let auth = auth.await.context("start the authentication service")??;
    let known = auth.last_revocation().await?;
    let is_new = mode == AuthMode::Accounts && !auth.accounts().has_accounts().await?;
    let setup_code = is_new.then(|| auth.setup_code());
    let keeper = tokio::spawn({
        let auth = auth.clone();
        async move { auth.run(known).await }
    });
    let runtime = Handle::current();
    let node = Node::new((id, &name), store.get(), transport, config.node, runtime);
    node.begin_log_history(store.get().history().await?);
    if let OpenStore::Postgres(_) = store {
        let joined = node.take_part(inbox).await;
        joined
            .inspect_err(|error| tracing::error!(%error, "this node does not join the cluster"))?;
    }
    tokio::spawn({
        let (auth, mut history) = (auth.clone(), node.watch_log_history());
        async move {
            while history.changed().await.is_ok() {
                auth.store_rewound();
            }
        }
    });
    let gateway = Gateway::new(node.clone(), client_ids, auth, config.gateway);
    if mode == AuthMode::Open {
        tracing::warn!(
            "open mode: whoever reaches {listen} may read and write every document; serve without --open for accounts"
        );
    }

    let certificate = Certificate::open(&config.tls)?;
    let tls = certificate.as_ref().map(Certificate::config).transpose()?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    listening_socket
        .listen(BACKLOG)
        .with_context(|| format!("listen on {listen}"))?;
    let (address, handle, server) = gateway::serve(gateway.clone(), listening_socket.into(), tls)
        .context("start the server")?;
    // Taken in any case: a hangup is no reason to end.
    let hangup = signal(SignalKind::hangup())?;
    let refresher = tokio::spawn(async move {
        match certificate {
            Some(certificate) => certificate.keep_fresh(hangup).await,
            None => drop(hangup),
        }
    });
    let server = tokio::spawn(server);
    let yielder = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.yield_while_stranded().await }
    });
    let rebalancer = tokio::spawn(gateway.clone().rebalance());
    let data = match store {
        OpenStore::Sqlite(_) => config.server.data.display().to_string(),
        OpenStore::Postgres(_) => "Postgres".to_owned(),
    };
    tracing::info!(%address, data, "serving: {scheme}://{address}/");
    if let Some(code) = setup_code {
        tracing::warn!(
            "no account exists yet: make the first at {scheme}://{address}/ on this machine, or from another machine at the server's address with /#invitation={code} behind it"
        );
    }

    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("stopping: what was accepted becomes durable, then sockets close");
    yielder.abort();
    rebalancer.abort();
    let patience = Duration::from_millis(config.server.stop_patience_ms);
    let stop = async {
        if node.is_in_cluster() {
            gateway.hand_over().await;
        }
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
    node.close_peers().await;
    store.close().await?;
    if !durable {
        bail!("the store did not answer in time: what was not acknowledged may be lost");
    }
    tracing::info!("stopped");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn address_is_taken_at_once_and_open_when_it_serves() {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = take_address(free).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let early = TcpStream::connect(address).unwrap_err();
        assert_eq!(early.kind(), std::io::ErrorKind::ConnectionRefused);
        socket.listen(BACKLOG).unwrap();
        TcpStream::connect(address).unwrap();
        let taken = take_address(address).unwrap_err();
        assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    }
}
