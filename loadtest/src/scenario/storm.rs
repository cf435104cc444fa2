//! Many connections that are cut at once and come back.

use std::time::{Duration, Instant};

use anyhow::Result;
use copydesk::ot::Kind;

use crate::check::Faults;
use crate::options::{self, Common};
use crate::report::{Report, Table, Unit};
use crate::run::{ClientRole, Plan, Run, Segment, SegmentPlan, Tempo};

/// Many connections that are cut at once and come back: how long until all are back, and the ack latencies of the
/// connections that were not cut, before, during and after.
///
/// The cut connections are reset, as if their network had failed, and subscribe again from the revision that they had. With
/// several addresses in --url each comes back to the next one, as if its node had failed. The time back counts from the cut
/// and includes the random pause up to --spread. --seconds is how long it measures before the cut and again after the return;
/// --patience bounds the return.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many connections are cut.
    #[arg(long, default_value_t = 10_000, value_parser = options::count)]
    sockets: usize,
    /// Over how many documents they are spread.
    #[arg(long, default_value_t = 100, value_parser = options::count)]
    docs: usize,
    /// Connections that are not cut, each with an editor; they are spread over the same documents.
    #[arg(long, default_value_t = 100, value_parser = options::count)]
    survivors: usize,
    /// Edits a second of each of these editors.
    #[arg(long, default_value_t = 1.0, value_parser = options::above_zero)]
    rate: f64,
    /// Over how many seconds the clients try to come back; 0: all at once.
    #[arg(long, default_value_t = 1.0, value_parser = options::positive)]
    spread: f64,
    /// How long each document is, about.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    chars: u64,
}

impl Options {
    fn plan(&self) -> Plan {
        let mut plan = Plan::new("storm", Kind::TextUnicode, self.chars, self.docs);
        plan.groups = vec!["survivors", "cut"];
        for number in 0..self.survivors {
            let role = ClientRole::Editor(Some(self.rate));
            plan.client(number % self.docs, 0, role);
        }
        for number in 0..self.sockets {
            plan.client(number % self.docs, 1, ClientRole::ReturningReader);
        }
        plan.parameter("sockets", self.sockets);
        plan.parameter("survivors", self.survivors);
        plan.parameter("rate", self.rate);
        plan.parameter("spread", self.spread);
        plan
    }
}

pub(crate) async fn run(common: &Common, options: &Options) -> Result<Report> {
    let mut run = Run::prepare(common, options.plan()).await?;
    let part = |name: &str, settle| SegmentPlan {
        name: name.to_owned(),
        tempo: Tempo::NORMAL,
        settle,
        measure: common.seconds(),
    };
    let before = run.segment(part("before", common.warmup())).await?;
    let cut_at = Instant::now();
    run.returns.cut(Duration::from_secs_f64(options.spread));
    let all = options.sockets as u64;
    let deadline = cut_at + common.patience();
    let done = |run: &Run<'_>| run.returns.back() >= all || Instant::now() >= deadline;
    let during = run
        .measured("during".to_owned(), before.is_interrupted, done)
        .await?;
    let is_over = during.is_interrupted || run.returns.back() < all;
    let after = match is_over {
        true => None,
        false => Some(run.segment(part("after", Duration::ZERO)).await?),
    };
    let mut report = run.report(&during);
    let segments: Vec<_> = [Some(before), Some(during), after]
        .into_iter()
        .flatten()
        .collect();
    describe(&mut report, &segments, &run);
    let mut faults = Faults::default();
    let missing = all.saturating_sub(run.returns.back());
    if missing > 0 {
        faults.add(format!("{missing} of {all} connections did not come back"));
    }
    run.finish(&mut report).await?;
    report.faulty(faults);
    Ok(report)
}

fn describe(report: &mut Report, segments: &[Segment], run: &Run<'_>) {
    let mut table = Table::new(
        "part",
        &[
            ("seconds", Unit::Seconds),
            ("ops", Unit::PerSecond),
            ("ack p50", Unit::Microseconds),
            ("ack p99", Unit::Microseconds),
            ("ack max", Unit::Microseconds),
        ],
    );
    for segment in segments {
        let counts = segment.group("survivors");
        let seconds = segment.took.as_secs_f64();
        let times = &counts.acks;
        table.row(
            &*segment.name,
            vec![
                Some(seconds),
                Some(counts.submits as f64 / seconds),
                Some(times.quantile_us(0.5) as f64),
                Some(times.quantile_us(0.99) as f64),
                Some(times.max_us() as f64),
            ],
        );
    }
    report.tables.push(table);
    let p99 = |index: usize| {
        let segment = segments.get(index)?;
        let times = &segment.group("survivors").acks;
        (times.len() > 0).then(|| times.quantile_us(0.99) as f64)
    };
    if let (Some(before), Some(during)) = (p99(0), p99(1)) {
        let name = "survivors: ack p99 during / before";
        report.figure(
            "survivors_p99_ratio",
            name,
            during / before.max(1.0),
            Unit::Ratio,
        );
    }
    let times = run.returns.times.borrow();
    report.latencies("back", "back after the cut", &times);
    let seconds = times.max_us() as f64 / 1e6;
    report.figure("all_back_seconds", "all back after", seconds, Unit::Seconds);
    let retries = run.returns.retries.get() as f64;
    report.figure("retries", "failed attempts", retries, Unit::Count);
    if let Some(error) = &*run.returns.first_error.borrow() {
        let note = format!("the first failed attempt to come back: {error}");
        report.notes.push(note);
    }
}
