//! One document with many editors and viewers, and others beside it.

use anyhow::Result;
use copydesk::ot::Kind;

use crate::options::{self, Common};
use crate::report::{Report, Table, Unit};
use crate::run::{ClientRole, Plan, Run, Segment, SegmentPlan, Tempo};

/// One document with many editors and viewers, and other documents beside it.
///
/// First the other documents are edited alone, then the crowd's editors write too; --seconds is the length of each part.
/// "edit to screen" is the time from when an edit was due until a viewer or another editor has received it. A connection that
/// the server ends is a fault, and so is a revision that a viewer misses.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Editors of the document.
    #[arg(long, default_value_t = 100, value_parser = options::count)]
    editors: usize,
    /// Edits a second of each of them.
    #[arg(long, default_value_t = 0.2, value_parser = options::above_zero)]
    rate: f64,
    /// Viewers of the document.
    #[arg(long, default_value_t = 1_000, value_parser = options::count)]
    viewers: usize,
    /// Other documents, with one editor each.
    #[arg(long, default_value_t = 50, value_parser = options::count)]
    others: usize,
    /// Edits a second of each of their editors.
    #[arg(long, default_value_t = 1.0, value_parser = options::above_zero)]
    others_rate: f64,
    /// How long each document is, about.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(..=10_000_000))]
    chars: u64,
    /// What kind of documents they are: text-unicode or rich-text.
    #[arg(long = "type", default_value = "text-unicode", value_parser = options::kind)]
    kind: Kind,
}

const CROWD: usize = 0;

impl Options {
    fn plan(&self) -> Plan {
        let mut plan = Plan::new("crowd", self.kind, self.chars, 1 + self.others);
        plan.groups = vec!["crowd", "viewers", "others"];
        for _ in 0..self.editors {
            plan.client(0, CROWD, ClientRole::Editor(Some(self.rate)));
        }
        for _ in 0..self.viewers {
            plan.client(0, 1, ClientRole::Reader);
        }
        for doc in 1..=self.others {
            plan.client(doc, 2, ClientRole::Editor(Some(self.others_rate)));
        }
        plan.parameter("editors", self.editors);
        plan.parameter("rate", self.rate);
        plan.parameter("viewers", self.viewers);
        plan.parameter("others", self.others);
        plan.parameter("others_rate", self.others_rate);
        plan
    }
}

pub(crate) async fn run(common: &Common, options: &Options) -> Result<Report> {
    let mut run = Run::prepare(common, options.plan()).await?;
    let part = |name: &str, silent| SegmentPlan {
        name: name.to_owned(),
        tempo: Tempo { speed: 1.0, silent },
        settle: common.warmup(),
        measure: common.seconds(),
    };
    let alone = run.segment(part("others alone", Some(CROWD))).await?;
    let crowd = match alone.is_interrupted {
        true => None,
        false => Some(run.segment(part("with the crowd", None)).await?),
    };
    let mut report = run.report(crowd.as_ref().unwrap_or(&alone));
    if let Some(crowd) = &crowd {
        describe(&mut report, &alone, crowd);
    }
    let dropped = run.failed() as f64;
    report.figure(
        "dropped",
        "connections ended by the server",
        dropped,
        Unit::Count,
    );
    run.finish(&mut report).await?;
    Ok(report)
}

fn describe(report: &mut Report, alone: &Segment, crowd: &Segment) {
    let mut table = Table::new(
        "part",
        &[
            ("others: ack p50", Unit::Microseconds),
            ("others: ack p99", Unit::Microseconds),
            ("edit to screen p50", Unit::Microseconds),
            ("edit to screen p99", Unit::Microseconds),
        ],
    );
    for segment in [alone, crowd] {
        let (acks, screens) = (
            &segment.group("others").acks,
            &segment.group("viewers").deliveries,
        );
        let quantile = |times: &crate::stats::Latencies, quantile| {
            (times.len() > 0).then(|| times.quantile_us(quantile) as f64)
        };
        table.row(
            &*segment.name,
            vec![
                quantile(acks, 0.5),
                quantile(acks, 0.99),
                quantile(screens, 0.5),
                quantile(screens, 0.99),
            ],
        );
    }
    report.tables.push(table);
    let p99 = |segment: &Segment| segment.group("others").acks.quantile_us(0.99) as f64;
    let ratio = p99(crowd) / p99(alone).max(1.0);
    let name = "others: ack p99 with / without the crowd";
    report.figure("others_p99_ratio", name, ratio, Unit::Ratio);
}
