//! Many documents with a few typists each.

use anyhow::Result;
use copydesk::ot::Kind;

use crate::options::{self, Common};
use crate::report::Report;
use crate::run::{self, Plan};

/// Many documents, each with a few typists at a steady rate.
///
/// A typist whose op is in flight types on: the letters are sent as one op after the ack, and their latency counts from when
/// each letter was due.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many documents.
    #[arg(long, default_value_t = 1_000)]
    docs: usize,
    /// Typists in each document.
    #[arg(long, default_value_t = 2)]
    clients: usize,
    /// Letters a second of each typist; 0: as fast as they are acknowledged.
    #[arg(long, default_value_t = 3.0, value_parser = options::rate)]
    rate: f64,
    /// How long each document is, about.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    chars: u64,
    /// What kind of documents they are: text-unicode or rich-text.
    #[arg(long = "type", default_value = "text-unicode", value_parser = options::kind)]
    kind: Kind,
}

pub(crate) async fn run(common: &Common, options: &Options) -> Result<Report> {
    let plan = Plan::new("many", options.kind, options.chars, options.docs);
    let rate = (options.rate > 0.0).then_some(options.rate);
    run::run(common, plan.uniform(options.clients, 0, rate)).await
}
