//! A few writers, many readers.

use anyhow::Result;
use copydesk::ot::Kind;

use crate::options::{self, Common};
use crate::report::Report;
use crate::run::{self, Plan};

/// One writer, or a few, and many readers.
///
/// At a low rate every op travels alone: this is the price of one delivery. With --rate 0 the writers write as fast as they
/// are acknowledged, ops gather, and a socket is written once for many of them.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Number of readers.
    #[arg(long, default_value_t = 1_000)]
    readers: usize,
    /// Number of writers.
    #[arg(long, default_value_t = 1)]
    writers: usize,
    /// How many ops each writer makes in a second; 0: as fast as they are acknowledged.
    #[arg(long, default_value_t = 10.0, value_parser = options::rate)]
    rate: f64,
    /// How long the document is, about.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(..=10_000_000))]
    chars: u64,
    /// What kind of document it is: text-unicode or rich-text.
    #[arg(long = "type", default_value = "text-unicode", value_parser = options::kind)]
    kind: Kind,
}

pub(crate) async fn run(common: &Common, options: &Options) -> Result<Report> {
    let plan = Plan::new("fanout", options.kind, options.chars, 1);
    let rate = (options.rate > 0.0).then_some(options.rate);
    let plan = plan.uniform(options.writers, options.readers, rate);
    run::run(common, plan).await
}
