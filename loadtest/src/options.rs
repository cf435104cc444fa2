//! The options that all scenarios have in common.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use copydesk::id::DocId;
use copydesk::ot::Kind;

/// The options of every scenario.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// The address of the server's WebSockets. Connections use several addresses, separated by commas, in turn.
    #[arg(long, default_value = "ws://127.0.0.1:8080/ws", global = true)]
    pub(crate) url: String,
    /// The clients' token, if the server requires one: of a user with permission to create documents in the collection.
    #[arg(long, env = "COPYDESK_TOKEN", hide_env_values = true, global = true)]
    pub(crate) token: Option<String>,
    /// How long to measure.
    #[arg(long, default_value_t = 10.0, value_parser = positive, global = true)]
    pub(crate) seconds: f64,
    /// How long to load the server before measuring.
    #[arg(long, default_value_t = 1.0, value_parser = positive, global = true)]
    pub(crate) warmup: f64,
    /// Also write the report to this file, as JSON (the schema is in docs/LOADTEST.md).
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) json: Option<PathBuf>,
    /// Also write the report to this file, as a page with plots that needs no network.
    #[arg(long, value_name = "FILE.html", global = true)]
    pub(crate) report: Option<PathBuf>,
    /// The seed of all random choices; by default another one each time. The report has it.
    #[arg(long, global = true)]
    pub(crate) seed: Option<u64>,
    /// The server's process on this machine, or that of each node with commas between them: processor time, memory and open
    /// files are reported. By default the processes that listen on the loopback addresses of --url.
    #[arg(
        long,
        value_name = "PID",
        visible_alias = "pid",
        value_delimiter = ',',
        global = true
    )]
    pub(crate) server_pid: Vec<u32>,
    /// The collection in which the run makes its documents. Each run makes new ones.
    #[arg(long, default_value = "loadtest", global = true)]
    pub(crate) collection: String,
    /// How long the clients may take to settle after the last op.
    #[arg(long, default_value_t = 60.0, value_parser = positive, global = true)]
    pub(crate) patience: f64,
    /// Do not read the documents and their logs back: for a server that stores none.
    #[arg(long, global = true)]
    pub(crate) unchecked: bool,
}

/// A number from 0 on.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if value.is_finite() && (0.0..=1e7).contains(&value) {
        Ok(value)
    } else {
        Err("not a number from 0 to 10000000".to_owned())
    }
}

/// A number of ops in a second.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    positive(text)
}

/// A number above 0.
pub(crate) fn above_zero(text: &str) -> Result<f64, String> {
    let value = positive(text)?;
    if value > 0.0 {
        Ok(value)
    } else {
        Err("must be above 0".to_owned())
    }
}

/// A share: above 0 and at most 1.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let value = above_zero(text)?;
    if value <= 1.0 {
        Ok(value)
    } else {
        Err("must be a share above 0 and at most 1".to_owned())
    }
}

/// A factor above 1.
pub(crate) fn factor(text: &str) -> Result<f64, String> {
    let value = positive(text)?;
    if value > 1.0 {
        Ok(value)
    } else {
        Err("must be above 1".to_owned())
    }
}

/// How many clients, documents or sockets: at least one.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    const MAX: usize = 5_000_000;
    match text.parse() {
        Ok(count @ 1..=MAX) => Ok(count),
        _ => Err(format!("not a whole number from 1 to {MAX}")),
    }
}

/// A type of document.
pub(crate) fn kind(name: &str) -> Result<Kind, String> {
    Kind::parse(name).ok_or_else(|| {
        let known: Vec<_> = Kind::ALL.into_iter().map(Kind::name).collect();
        format!("known types are {}", known.join(" and "))
    })
}

impl Common {
    pub(crate) fn seconds(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub(crate) fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup)
    }

    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs_f64(self.patience)
    }

    /// A document's name that no other run has.
    pub(crate) fn doc(&self, scenario: &str, index: usize) -> Result<DocId> {
        let run = std::process::id();
        let at = std::time::UNIX_EPOCH
            .elapsed()
            .context("read the clock")?
            .as_millis();
        DocId::parse(
            &self.collection,
            &format!("{scenario}-{at:x}-{run:x}-{index}"),
        )
        .with_context(|| format!("name a document in {}", self.collection))
    }
}
