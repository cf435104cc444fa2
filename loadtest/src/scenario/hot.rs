//! Many writers on one document.

use anyhow::Result;
use copydesk::ot::Kind;

use crate::options::{self, Common};
use crate::report::Report;
use crate::run::{self, Plan};

/// Many writers on one document, each with one op in flight.
///
/// Each writes its next op, a letter somewhere or one less, as soon as the last one is acknowledged. With W writers every
/// op is delivered W times and transformed over up to W others: this is where a sequencer that does not gather collapses.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Number of writers.
    #[arg(long, default_value_t = 50)]
    writers: usize,
    /// How long the document is, about.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(..=10_000_000))]
    chars: u64,
    /// What kind of document it is: text-unicode or rich-text.
    #[arg(long = "type", default_value = "text-unicode", value_parser = options::kind)]
    kind: Kind,
}

pub(crate) async fn run(common: &Common, options: &Options) -> Result<Report> {
    let plan = Plan::new("hot", options.kind, options.chars, 1);
    let mut plan = plan.uniform(options.writers, 0, None);
    plan.typing = false;
    run::run(common, plan).await
}
