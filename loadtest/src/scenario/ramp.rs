//! Rising load, until the server no longer keeps up.

use std::time::Duration;

use anyhow::{Result, ensure};
use copydesk::ot::Kind;

use crate::options::{self, Common};
use crate::report::{Report, Table, Unit};
use crate::run::{ClientRole, Plan, Run, Segment, SegmentPlan, Tempo};
use crate::stats::Counts;

/// Rising load, to find the knee: the highest rate at which ack p99 and refusals stay within their bounds.
///
/// The load is open-loop: each editor's edits are due at its rate, however slow the acks are, and their latencies count from
/// when they were due. The rate grows by --factor from step to step until a bound is crossed; then --refine halvings of the
/// last interval follow. --seconds is how long each step measures, --warmup how long it loads the server before that.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Edits a second of all editors together in the first step.
    #[arg(long, default_value_t = 500.0, value_parser = options::above_zero)]
    from: f64,
    /// The highest rate that is tried.
    #[arg(long, default_value_t = 1_000_000.0, value_parser = options::above_zero)]
    to: f64,
    /// From one rate to the next.
    #[arg(long, default_value_t = 1.4, value_parser = options::factor)]
    factor: f64,
    /// How often the interval between the last rate that held and the first that did not is halved.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(..=8))]
    refine: u32,
    /// Also measures at so many times the knee: what overload does to accepted work. 0: does not.
    #[arg(long, default_value_t = 0.0, value_parser = options::positive)]
    overload: f64,
    /// The bound of ack p99, in milliseconds.
    #[arg(long, default_value_t = 100.0, value_parser = options::above_zero)]
    ack_p99_ms: f64,
    /// The bound of refused submits, as a share of all.
    #[arg(long, default_value_t = 0.001, value_parser = options::share)]
    rejected_share: f64,
    /// The least share of the edits that were due that must be acknowledged.
    #[arg(long, default_value_t = 0.95, value_parser = options::share)]
    accepted_share: f64,
    /// How many documents.
    #[arg(long, default_value_t = 500, value_parser = options::count)]
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
    ensure!(
        options.from <= options.to,
        "--from {} is above --to {}",
        options.from,
        options.to
    );
    ensure!(
        options.overload == 0.0 || options.overload > 1.0,
        "--overload {} must be above 1, or 0 for none",
        options.overload
    );
    let mut ramp = Ramp {
        options,
        common,
        run: Run::prepare(common, options.plan()).await?,
        steps: Vec::new(),
    };
    ramp.rise().await?;
    ramp.refine().await?;
    ramp.overload().await?;
    ramp.report().await
}

impl Options {
    /// Every editor makes one edit a second at speed 1: then the speed is the rate of all divided by the editors.
    fn plan(&self) -> Plan {
        let mut plan = Plan::new("ramp", self.kind, self.chars, self.docs);
        for client in 0..self.docs * self.clients {
            plan.client(client % self.docs, 0, ClientRole::Editor(Some(1.0)));
        }
        plan.tolerates_refusals = true;
        plan.parameter("editors", self.clients);
        plan.parameter("from", self.from);
        plan.parameter("to", self.to);
        plan.parameter("factor", self.factor);
        plan.parameter("refine", self.refine);
        plan.parameter("overload", self.overload);
        plan.parameter("ack_p99_ms", self.ack_p99_ms);
        plan.parameter("rejected_share", self.rejected_share);
        plan.parameter("accepted_share", self.accepted_share);
        plan
    }

    /// Why a step at a rate is beyond the knee; `None` if it is not.
    fn crossed(&self, rate: f64, took: Duration, counts: &Counts) -> Option<String> {
        let p99_ms = counts.acks.quantile_us(0.99) as f64 / 1e3;
        let rejected = rejected_share(counts);
        let accepted = counts.acks.len() as f64 / took.as_secs_f64() / rate;
        if rejected > self.rejected_share {
            Some(format!("{:.1} % refused", rejected * 100.0))
        } else if accepted < self.accepted_share {
            Some(format!(
                "{:.1} % of the edits acknowledged",
                accepted * 100.0
            ))
        } else if p99_ms > self.ack_p99_ms {
            Some(format!("ack p99 {p99_ms:.0} ms"))
        } else {
            None
        }
    }
}

fn rejected_share(counts: &Counts) -> f64 {
    let all = counts.submits + counts.rejected;
    counts.rejected as f64 / all.max(1) as f64
}

struct Ramp<'a> {
    options: &'a Options,
    common: &'a Common,
    run: Run<'a>,
    steps: Vec<Step>,
}

struct Step {
    /// Edits a second.
    rate: f64,
    segment: Segment,
    counts: Counts,
    /// Why it is beyond the knee.
    crossed: Option<String>,
}

impl Ramp<'_> {
    /// Measures at a rate. Returns true if the bounds hold.
    async fn step(&mut self, name: &str, rate: f64) -> Result<bool> {
        let editors = self.options.docs * self.options.clients;
        let plan = SegmentPlan {
            name: format!("{name}{rate:.0} edits/s"),
            tempo: Tempo {
                speed: rate / editors as f64,
                silent: None,
            },
            settle: self.common.warmup(),
            measure: self.common.seconds(),
        };
        let segment = self.run.segment(plan).await?;
        let counts = segment.total();
        let mut crossed = self.options.crossed(rate, segment.took, &counts);
        if self.run.failed() > 0 {
            crossed = Some(format!(
                "the server closed {} connections",
                self.run.failed()
            ));
        }
        let holds = crossed.is_none();
        self.steps.push(Step {
            rate,
            segment,
            counts,
            crossed,
        });
        Ok(holds)
    }

    /// Whether the ramp ends here: interrupted, or connections are gone and each editor's share with them.
    fn is_over(&self) -> bool {
        let last = self.steps.last();
        self.run.failed() > 0 || last.is_some_and(|step| step.segment.is_interrupted)
    }

    async fn rise(&mut self) -> Result<()> {
        let mut rate = self.options.from;
        while rate <= self.options.to * 1.000_001 {
            let holds = self.step("", rate).await?;
            if !holds || self.is_over() {
                return Ok(());
            }
            rate *= self.options.factor;
        }
        Ok(())
    }

    async fn refine(&mut self) -> Result<()> {
        for _ in 0..self.options.refine {
            let (Some(knee), Some(crossed)) = (self.knee(), self.first_crossed()) else {
                return Ok(());
            };
            let rate = f64::midpoint(knee.rate, crossed);
            if self.is_over() || !self.run.drain().await {
                return Ok(());
            }
            self.step("", rate).await?;
        }
        Ok(())
    }

    async fn overload(&mut self) -> Result<()> {
        let Some(knee) = self.knee().map(|knee| knee.rate) else {
            return Ok(());
        };
        if self.options.overload > 1.0 && !self.is_over() && self.run.drain().await {
            self.step("overload: ", knee * self.options.overload)
                .await?;
        }
        Ok(())
    }

    /// The highest rate that held.
    fn knee(&self) -> Option<&Step> {
        let held = self.steps.iter().filter(|step| step.crossed.is_none());
        held.max_by(|one, other| one.rate.total_cmp(&other.rate))
    }

    /// The lowest rate that did not hold.
    fn first_crossed(&self) -> Option<f64> {
        let crossed = self.steps.iter().filter(|step| step.crossed.is_some());
        crossed.map(|step| step.rate).min_by(f64::total_cmp)
    }

    async fn report(mut self) -> Result<Report> {
        let steps = std::mem::take(&mut self.steps);
        let held = steps.iter().filter(|step| step.crossed.is_none());
        let knee = held.max_by(|one, other| one.rate.total_cmp(&other.rate));
        let shown = knee.or(steps.last()).map(|step| &step.segment);
        let Some(shown) = shown else {
            anyhow::bail!("nothing was measured");
        };
        let mut report = self.run.report(shown);
        if let Some(knee) = knee {
            let name = "knee: edits accepted";
            let rate = knee.counts.acks.len() as f64 / knee.segment.took.as_secs_f64();
            report.figure("knee_edits_per_second", name, rate, Unit::PerSecond);
        }
        report.tables.push(table(&steps));
        let closed = self.run.failed();
        if closed > 0 {
            let reason = format!("the server closed {closed} connections in the last step");
            self.run.abandon(&mut report, reason).await;
        } else {
            self.run.finish(&mut report).await?;
        }
        report.checked = format!("{}; {}", verdict(knee, &steps), report.checked);
        Ok(report)
    }
}

/// Where the knee is, in a sentence.
fn verdict(knee: Option<&Step>, steps: &[Step]) -> String {
    let reason = |rate: f64| {
        let crossed = steps.iter().filter(|step| step.rate > rate);
        let next = crossed.min_by(|one, other| one.rate.total_cmp(&other.rate));
        next.and_then(|step| Some(format!("{:.0}/s: {}", step.rate, step.crossed.as_ref()?)))
    };
    match knee {
        None => "no knee: the first rate already crossed a bound; start lower (--from)".to_owned(),
        Some(knee) => match reason(knee.rate) {
            Some(reason) => format!("the knee is {:.0} edits/s (at {reason})", knee.rate),
            None => format!(
                "no bound was crossed up to {:.0} edits/s: raise --to",
                knee.rate
            ),
        },
    }
}

fn table(steps: &[Step]) -> Table {
    let mut table = Table::new(
        "rate",
        &[
            ("accepted", Unit::PerSecond),
            ("refused", Unit::Share),
            ("ack p50", Unit::Microseconds),
            ("ack p99", Unit::Microseconds),
            ("generator late", Unit::Microseconds),
        ],
    );
    for step in steps {
        let counts = &step.counts;
        let crossed = step.crossed.as_ref();
        let reason = crossed.map_or_else(String::new, |reason| format!(" – {reason}"));
        let accepted = counts.acks.len() as f64 / step.segment.took.as_secs_f64();
        table.row(
            format!("{}{reason}", step.segment.name),
            vec![
                Some(accepted),
                Some(rejected_share(counts)),
                Some(counts.acks.quantile_us(0.5) as f64),
                Some(counts.acks.quantile_us(0.99) as f64),
                Some(counts.lateness.quantile_us(0.99) as f64),
            ],
        );
    }
    table
}

#[cfg(test)]
mod tests;
