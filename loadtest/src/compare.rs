//! Compares two reports and finds regressions.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::options;
use crate::report::{Better, SCHEMA};

/// Compares two JSON reports (--json) of one scenario with the same parameters: is B worse than A?
///
/// Prints a table. The exit status is 1 if a figure of B is worse than that of A by more than the noise band, or if B has
/// faults or lacks a figure; 2 if the two cannot be compared. The worst value of a latency, which is one event, and what the
/// load generator used are shown in neither.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The report to compare with.
    a: PathBuf,
    /// The report that is judged.
    b: PathBuf,
    /// By which share a figure may be worse; percentiles of 99 % by twice that. The default is above the spread of runs of one
    /// build on a machine that the load generator shares, which is about a fifth.
    #[arg(long, default_value_t = 0.25, value_parser = options::positive)]
    noise: f64,
}

/// What a comparison needs of a report.
#[derive(Debug, Clone, Deserialize)]
struct Recorded {
    schema: Option<u32>,
    scenario: String,
    parameters: BTreeMap<String, serde_json::Value>,
    figures: BTreeMap<String, f64>,
    #[serde(default)]
    better: BTreeMap<String, Better>,
    fault_count: u64,
}

/// Parameters in which two runs may differ.
const FREE: [&str; 1] = ["seed"];
/// Differences of latencies below this are never judged: the load generator's timer ticks once a millisecond.
const LATENCY_FLOOR_US: f64 = 1_000.0;

/// The outcome of a comparison.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) table: String,
    pub(crate) is_regression: bool,
}

/// Compares two files.
pub(crate) fn run(options: &Options) -> Result<Comparison> {
    let (a, b) = (Recorded::open(&options.a)?, Recorded::open(&options.b)?);
    compare(&a, &b, options.noise)
}

impl Recorded {
    fn open(file: &Path) -> Result<Self> {
        let name = file.display();
        let json = std::fs::read(file).with_context(|| format!("read {name}"))?;
        let read: Self = serde_json::from_slice(&json)
            .with_context(|| format!("{name} is not a report of copydesk-loadtest (--json)"))?;
        ensure!(
            read.schema == Some(SCHEMA),
            "{name} has schema {}, this program reads {SCHEMA}",
            read.schema
                .map_or_else(|| "none".to_owned(), |schema| schema.to_string())
        );
        Ok(read)
    }

    /// Fails if the two runs did not do the same.
    fn check_comparable(&self, other: &Self) -> Result<()> {
        ensure!(
            self.scenario == other.scenario,
            "A is a run of {} and B of {}: only runs of one scenario are compared",
            self.scenario,
            other.scenario
        );
        let names: std::collections::BTreeSet<_> = self
            .parameters
            .keys()
            .chain(other.parameters.keys())
            .collect();
        let show = |value: Option<&serde_json::Value>| {
            value.map_or_else(|| "nothing".to_owned(), ToString::to_string)
        };
        let mut differ = Vec::new();
        for name in names
            .into_iter()
            .filter(|name| !FREE.contains(&name.as_str()))
        {
            let (one, two) = (self.parameters.get(name), other.parameters.get(name));
            if one != two {
                differ.push(format!(
                    "{name} is {} in A and {} in B",
                    show(one),
                    show(two)
                ));
            }
        }
        ensure!(
            differ.is_empty(),
            "the runs have different parameters: {}",
            differ.join("; ")
        );
        ensure!(
            self.fault_count == 0,
            "A has {} faults: it is no base for a comparison",
            self.fault_count
        );
        Ok(())
    }
}

fn compare(a: &Recorded, b: &Recorded, noise: f64) -> Result<Comparison> {
    a.check_comparable(b)?;
    let keys = a.figures.keys().filter(|key| a.better.contains_key(*key));
    let width = keys.clone().map(String::len).max().unwrap_or(0);
    let mut table = format!("{:width$}  {:>12}  {:>12}  {:>8}\n", "", "A", "B", "B / A");
    let mut is_regression = false;
    for key in keys {
        let (one, two) = (a.figures[key], b.figures.get(key).copied());
        let verdict = judge(key, a.better[key], one, two, noise);
        is_regression |= verdict == Verdict::Worse;
        let ratio = two.map_or_else(|| "–".to_owned(), |two| format!("{:.2}", two / one));
        let two = two.map_or_else(|| "missing".to_owned(), shown);
        let _ = writeln!(
            table,
            "{key:width$}  {:>12}  {two:>12}  {ratio:>8}  {}",
            shown(one),
            verdict.name()
        );
    }
    for key in b.figures.keys().filter(|key| !a.figures.contains_key(*key)) {
        if let Some(Better::Lower) = b.better.get(key).filter(|_| key.starts_with("rejected")) {
            is_regression = true;
            let two = shown(b.figures[key]);
            let _ = writeln!(
                table,
                "{key:width$}  {:>12}  {two:>12}  {:>8}  WORSE",
                0, "–"
            );
        }
    }
    if b.fault_count > 0 {
        is_regression = true;
        let _ = writeln!(table, "B has {} faults  WORSE", b.fault_count);
    }
    let verdict = if is_regression {
        "regression"
    } else {
        "no regression"
    };
    let percent = noise * 100.0;
    let _ = writeln!(
        table,
        "{verdict} (noise band {percent:.0} %, for p99 {:.0} %; latencies at least 1 ms)",
        percent * 2.0
    );
    Ok(Comparison {
        table,
        is_regression,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Same,
    Better,
    Worse,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Same => "",
            Self::Better => "better",
            Self::Worse => "WORSE",
        }
    }
}

/// Judges one figure; a missing one is worse.
fn judge(key: &str, better: Better, one: f64, two: Option<f64>, noise: f64) -> Verdict {
    let Some(two) = two else {
        return Verdict::Worse;
    };
    let is_latency =
        (key.ends_with("_p50_us") || key.ends_with("_p99_us")) && !key.starts_with("server_");
    if is_latency && (one - two).abs() < LATENCY_FLOOR_US {
        return Verdict::Same;
    }
    let band = if key.ends_with("_p99_us") {
        noise * 2.0
    } else {
        noise
    };
    let (good, bad) = match better {
        Better::Lower => (one, two),
        Better::Higher => (two, one),
    };
    if bad > good * (1.0 + band) {
        Verdict::Worse
    } else if good > bad * (1.0 + band) {
        Verdict::Better
    } else {
        Verdict::Same
    }
}

fn shown(value: f64) -> String {
    if value.abs() < 100.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests;
