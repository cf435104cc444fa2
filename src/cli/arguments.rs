//! The arguments of the command line, and the settings that they set.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use copydesk::auth::AuthMode;
use copydesk::config::{self, Config, Flag};
use copydesk::node::RepairMode;
use copydesk::store::MigrationPhase;

/// A real-time document server: many users edit one document at the same time, and no acknowledged edit is lost.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  copydesk serve                               the page at http://127.0.0.1:8080/, the database in ./data
  copydesk serve --open                        without accounts: every visitor may read and write everything
  copydesk serve --listen 0.0.0.0:80 --data /var/lib/copydesk
  copydesk serve --node a --store postgres://u:p@db/copydesk --redis redis://cache
                                               a node of a cluster; the other nodes have other names
  copydesk locate documents/abc                the node that owns this document
  copydesk restored --store postgres://u:p@db/copydesk
                                               after restoring a backup: clients load their documents again
  copydesk verify --data backup                check every row of a database or of a backup
  COPYDESK__LOG__LEVEL=debug copydesk serve    any setting by an environment variable
  copydesk config check --config my.toml       check a configuration file";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the page, the API and the sockets until SIGTERM or Ctrl-C
    Serve(Serve),
    /// Print the node that owns a document, the epoch, the newest revision, and damage
    #[command(visible_alias = "where")]
    Locate(DocumentTarget),
    /// Check every row of a database: checksums, the order of each log, and snapshots against the replay
    ///
    /// Reads only; a server may be using the database. The exit status is 0 if no row is damaged, 1 if a row is damaged,
    /// and 2 if the database cannot be read.
    Verify(Verify),
    /// Bring the tables to a newer version of the program while nodes of the older version are running
    ///
    /// A starting node makes the quick changes itself. In a large Postgres database the others are made by this command,
    /// beside running nodes. It may be interrupted and repeated. Prints the versions that were applied and those that are
    /// pending.
    Migrate(Migrate),
    /// Make a document writable again that is larger than the limit (ERR_DOC_OVERSIZED)
    ///
    /// The text is kept; attributes of the ops that made the document too large are dropped. Without --store the server must
    /// be stopped first.
    Repair(Repair),
    /// Declare that the database was restored from a backup
    ///
    /// The database gets a new history: clients that reconnect with state from before are told to load their documents
    /// again. With --store nodes may be running; without it the server must be stopped first.
    Restored(Restored),
    /// Inspect the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check the configuration and print all settings
    Check(ConfigFile),
}

#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// The configuration file [default: config.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// The address to listen on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    #[command(flatten)]
    store: StoreChoice,
    /// The Redis or Valkey for messages between the nodes of a cluster [default: a single node]
    #[arg(long, value_name = "redis://…")]
    redis: Option<String>,
    /// Give every visitor all permissions, without accounts: for tests and trials
    #[arg(long)]
    open: bool,
    /// The name of this node in logs and responses [default: the name of the machine]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StoreChoice {
    /// The Postgres database that all nodes of a cluster share [default: SQLite in the data folder]
    #[arg(long, value_name = "postgres://…", conflicts_with = "data")]
    store: Option<String>,
    /// The folder of the SQLite database [default: data/]
    #[arg(long, value_name = "FOLDER")]
    data: Option<String>,
}

/// A document in a store.
#[derive(Debug, Args)]
pub(crate) struct DocumentTarget {
    /// The document: its collection and its id
    #[arg(value_name = "COLLECTION/ID")]
    pub(crate) doc: String,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    #[command(flatten)]
    pub(crate) store: StoreChoice,
}

#[derive(Debug, Args)]
pub(crate) struct Repair {
    #[command(flatten)]
    pub(crate) target: DocumentTarget,
    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Repair {
    pub(crate) fn mode(&self) -> RepairMode {
        if self.dry_run {
            RepairMode::DryRun
        } else {
            RepairMode::Write
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Restored {
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    #[command(flatten)]
    pub(crate) store: StoreChoice,
}

#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// Add what the new version needs; nodes of the previous version keep working [default]
    #[arg(long, conflicts_with_all = ["contract", "status"])]
    expand: bool,
    /// Remove what only older versions need, once no node of them is left
    #[arg(long, conflicts_with = "status")]
    contract: bool,
    /// Print the versions, and change nothing
    #[arg(long)]
    status: bool,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    #[command(flatten)]
    pub(crate) store: StoreChoice,
}

impl Migrate {
    /// The migrations to apply; `None` with `--status`.
    pub(crate) fn phase(&self) -> Option<MigrationPhase> {
        match (self.status, self.contract) {
            (true, _) => None,
            (_, true) => Some(MigrationPhase::Contract),
            _ => Some(MigrationPhase::Expand),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Resume after this document number, as printed by the progress of an earlier run
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) after: i64,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    #[command(flatten)]
    pub(crate) store: StoreChoice,
}

impl Serve {
    /// The settings that the flags set.
    pub(crate) fn flags(&self) -> Vec<Flag> {
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
    pub(crate) fn flags(&self) -> Vec<Flag> {
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
    /// Merges the file, the environment and `flags`, and checks the result.
    pub(crate) fn load(&self, flags: &[Flag]) -> Result<Config> {
        let usual = Path::new("config.toml");
        let path = self
            .config
            .as_deref()
            .or_else(|| usual.exists().then_some(usual));
        // Names that are not UTF-8 cannot be names of settings.
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((
                name.into_string().ok()?,
                value.to_string_lossy().into_owned(),
            ))
        });
        Ok(config::load(path, environment, flags)?)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_declared_without_conflicts() {
        Cli::command().debug_assert();
    }

    #[test]
    fn locate_has_the_alias_where() {
        for verb in ["locate", "where"] {
            let cli = Cli::try_parse_from(["copydesk", verb, "docs/a"]).expect(verb);
            assert!(matches!(cli.command, Command::Locate(target) if target.doc == "docs/a"));
        }
    }

    #[test]
    fn flags_set_the_settings_that_they_are_named_for() {
        let arguments = [
            "copydesk",
            "serve",
            "--open",
            "--listen",
            "here",
            "--node",
            "a",
            "--redis",
            "redis://r",
            "--data",
            "folder",
        ];
        let Command::Serve(serve) = Cli::try_parse_from(arguments).expect("valid").command else {
            panic!("another command");
        };
        let flags = serve.flags();
        let set: Vec<_> = flags
            .iter()
            .map(|flag| (flag.name, flag.setting, flag.value.as_str()))
            .collect();
        assert_eq!(
            set,
            [
                ("--data", "server.data", "folder"),
                ("--data", "postgres.url", ""),
                ("--listen", "server.listen", "here"),
                ("--redis", "redis.url", "redis://r"),
                ("--node", "server.node", "a"),
                ("--open", "auth.mode", "open"),
            ]
        );
    }

    #[test]
    fn a_store_and_a_data_folder_exclude_each_other() {
        let arguments = [
            "copydesk",
            "serve",
            "--store",
            "postgres://s",
            "--data",
            "folder",
        ];
        assert!(Cli::try_parse_from(arguments).is_err());
    }
}
