//! Connections that do nothing.

use anyhow::Result;
use copydesk::ot::Kind;

use crate::options::Common;
use crate::report::Report;
use crate::run::{self, Plan};

/// Connections that have subscribed and say nothing.
///
/// With --server-pid the report tells what each costs the server in memory (what it has grown by since before the first,
/// divided by their number), and what the server does meanwhile. Connections to 127.0.0.1 come from several loopback addresses,
/// because one has too few ports.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many connections.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Over how many documents they are spread.
    #[arg(long, default_value_t = 1)]
    docs: usize,
    /// How long each document is.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    chars: u64,
}

pub(crate) async fn run(common: &Common, options: &Options) -> Result<Report> {
    let docs = options.docs.max(1);
    let plan = Plan::new("idle", Kind::TextUnicode, options.chars, docs);
    let readers = options.connections.div_ceil(docs);
    run::run(common, plan.uniform(0, readers, Some(0.0))).await
}
