//! The arguments of the command line, and the settings that they set.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
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
  copydesk dead-letters list --newer-than 1d   edits that were not committed because of a fault of the program
  copydesk quarantine release documents/abc    make a document writable again after repeated panics
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
    /// List, show, export or delete the edits that were not committed because of a fault of the program
    ///
    /// Nodes may be running. Payloads are text that users wrote.
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// List or release the documents that are read-only because they panicked twice within a minute (ERR_DOC_QUARANTINED)
    ///
    /// Nodes may be running.
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// Inspect the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// Print the newest dead letters as a table, without their payloads
    List(ListLetters),
    /// Print one dead letter with its payload
    Show(ShowLetter),
    /// Print dead letters with their payloads, one JSON object a line, newest first
    Export(ExportLetters),
    /// Delete dead letters
    Purge(PurgeLetters),
}

impl DeadLettersCommand {
    pub(crate) fn source(&self) -> &StoreSource {
        match self {
            Self::List(list) => &list.source,
            Self::Show(show) => &show.source,
            Self::Export(export) => &export.source,
            Self::Purge(purge) => &purge.source,
        }
    }
}

/// Selects dead letters.
#[derive(Debug, Args)]
pub(crate) struct LetterSelection {
    /// Only those of this document
    #[arg(long, value_name = "COLLECTION/ID")]
    pub(crate) doc: Option<String>,
    /// Only those that are at most so old: 90s, 15m, 12h, 7d
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    pub(crate) newer_than: Option<Duration>,
    /// Only those that are older: 90s, 15m, 12h, 7d
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    pub(crate) older_than: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct ListLetters {
    #[command(flatten)]
    pub(crate) selection: LetterSelection,
    /// How many to print
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = parse_limit)]
    pub(crate) limit: usize,
    #[command(flatten)]
    source: StoreSource,
}

#[derive(Debug, Args)]
pub(crate) struct ShowLetter {
    /// The number in the first column of the list
    #[arg(value_name = "ID", value_parser = clap::value_parser!(u64).range(1..=i64::MAX as u64))]
    pub(crate) id: u64,
    #[command(flatten)]
    source: StoreSource,
}

#[derive(Debug, Args)]
pub(crate) struct ExportLetters {
    #[command(flatten)]
    pub(crate) selection: LetterSelection,
    #[command(flatten)]
    source: StoreSource,
}

#[derive(Debug, Args)]
pub(crate) struct PurgeLetters {
    #[command(flatten)]
    pub(crate) selection: LetterSelection,
    /// Delete all dead letters
    #[arg(long, conflicts_with_all = ["doc", "newer_than", "older_than"])]
    pub(crate) all: bool,
    #[command(flatten)]
    source: StoreSource,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// Print the documents in quarantine
    List(StoreSource),
    /// Make a document writable again; running nodes notice it within about a second
    Release(ReleaseDocument),
}

impl QuarantineCommand {
    pub(crate) fn source(&self) -> &StoreSource {
        match self {
            Self::List(source) => source,
            Self::Release(release) => &release.source,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ReleaseDocument {
    /// The document: its collection and its id
    #[arg(value_name = "COLLECTION/ID")]
    pub(crate) doc: String,
    #[command(flatten)]
    source: StoreSource,
}

/// Where the store is.
#[derive(Debug, Args)]
pub(crate) struct StoreSource {
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    #[command(flatten)]
    pub(crate) store: StoreChoice,
}

impl StoreSource {
    /// The configuration that names the store.
    pub(crate) fn load(&self) -> Result<Config> {
        self.file.load(&self.store.flags())
    }
}

/// Parses how many rows to print.
fn parse_limit(text: &str) -> Result<usize> {
    let limit = text.parse().ok().filter(|it| (1..=100_000).contains(it));
    limit.with_context(|| format!("{text:?} is not a number from 1 to 100000"))
}

/// Parses an age: `90s`, `15m`, `12h` or `7d`.
fn parse_age(text: &str) -> Result<Duration> {
    let wrong = || format!("{text:?} is no age: write 90s, 15m, 12h or 7d");
    let units = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];
    let parts = units
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(*unit)?, *seconds)));
    let (number, unit_seconds) = parts.with_context(wrong)?;
    ensure!(number.bytes().all(|it| it.is_ascii_digit()), wrong());
    let number: u64 = number.parse().ok().with_context(wrong)?;
    let seconds = number.checked_mul(unit_seconds).with_context(wrong)?;
    Ok(Duration::from_secs(seconds))
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
    fn ages_have_a_number_and_a_unit() {
        for (text, seconds) in [
            ("0s", Some(0)),
            ("90s", Some(90)),
            ("15m", Some(900)),
            ("12h", Some(43_200)),
            ("7d", Some(604_800)),
            ("", None),
            ("7", None),
            ("d", None),
            ("-1d", None),
            ("1.5h", None),
            ("7é", None),
            ("99999999999999999999d", None),
            ("9999999999999999999d", None),
        ] {
            let parsed = parse_age(text).ok();
            assert_eq!(parsed, seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn wrong_arguments_of_dead_letters_get_an_error() {
        for (arguments, error) in [
            (
                "dead-letters list --newer-than 7",
                "write 90s, 15m, 12h or 7d",
            ),
            ("dead-letters list --limit 0", "from 1 to 100000"),
            ("dead-letters show", "<ID>"),
            ("dead-letters show 0", "not in 1.."),
            ("dead-letters purge --all --doc a/b", "cannot be used with"),
            ("quarantine release", "<COLLECTION/ID>"),
        ] {
            let arguments = ["copydesk"].into_iter().chain(arguments.split(' '));
            let found = Cli::try_parse_from(arguments).expect_err(error).to_string();
            assert!(found.contains(error), "{found}");
        }
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
