//! A steady load for a long time.

use anyhow::Result;
use copydesk::ot::Kind;

use crate::options::{self, Common};
use crate::report::{Report, Unit};
use crate::run::{self, Plan, Run};
use crate::timeline::Series;
use crate::trend::Trend;

/// A steady load for a long time (--seconds): how memory, open files and latencies of the server change over it.
///
/// The slopes are the medians of the slopes between all pairs of samples, so that single outliers do not count. Memory and
/// open files are those of the server's processes together. The documents keep their length, but their logs grow, and the
/// load generator keeps 16 bytes for each op to check it at the end.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Edits a second of all editors together.
    #[arg(long, default_value_t = 1_000.0, value_parser = options::above_zero)]
    rate: f64,
    /// How many documents.
    #[arg(long, default_value_t = 200, value_parser = options::count)]
    docs: usize,
    /// Editors in each document.
    #[arg(long, default_value_t = 2, value_parser = options::count)]
    clients: usize,
    /// How long each document is, about.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    chars: u64,
    /// What kind of documents they are: text-unicode or rich-text.
    #[arg(long = "type", default_value = "text-unicode", value_parser = options::kind)]
    kind: Kind,
}

pub(crate) async fn run(common: &Common, options: &Options) -> Result<Report> {
    let each = options.rate / (options.docs * options.clients) as f64;
    let plan = Plan::new("soak", options.kind, options.chars, options.docs);
    let plan = plan.uniform(options.clients, 0, Some(each));
    let mut run = Run::prepare(common, plan).await?;
    let segment = run.segment(run::whole(common)).await?;
    let mut report = run.report(&segment);
    trends(run.series(), &mut report);
    run.finish(&mut report).await?;
    Ok(report)
}

/// Adds the slopes to the report.
fn trends(series: &Series, report: &mut Report) {
    let sums = |column: fn(&crate::timeline::ServerSeries) -> &[u64]| -> Vec<f64> {
        let sum = |index| {
            let servers = series.servers.iter();
            servers
                .filter_map(|server| column(server).get(index))
                .sum::<u64>()
        };
        if series.servers.is_empty() {
            return Vec::new();
        }
        (0..series.at_s.len()).map(|at| sum(at) as f64).collect()
    };
    add(
        report,
        series,
        ("memory", "memory"),
        &sums(|server| &server.rss_bytes),
        Unit::Bytes,
    );
    add(
        report,
        series,
        ("open_files", "open files"),
        &sums(|server| &server.open_files),
        Unit::Count,
    );
    let Some(group) = series.groups.values().next() else {
        return;
    };
    for (name, column) in [
        (("ack_p50", "ack p50"), &group.ack_p50_us),
        (("ack_p99", "ack p99"), &group.ack_p99_us),
    ] {
        let values: Option<Vec<f64>> = column
            .iter()
            .map(|value| value.map(|value| value as f64))
            .collect();
        let values = values.unwrap_or_default();
        add(report, series, name, &values, Unit::Microseconds);
    }
}

fn add(report: &mut Report, series: &Series, name: (&str, &str), values: &[f64], unit: Unit) {
    if values.len() != series.at_s.len() {
        return;
    }
    if let Some(trend) = Trend::of(&series.at_s, values) {
        let (key, name) = name;
        report.figure(
            format!("{key}_slope_per_hour"),
            format!("{name}, change in an hour"),
            trend.per_hour,
            unit,
        );
        report.figure(
            format!("{key}_drift_share"),
            format!("{name}, change over the run"),
            trend.share,
            Unit::Share,
        );
    }
}
