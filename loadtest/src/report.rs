//! The results of a run, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::check::Faults;
use crate::server::Cost;
use crate::stats::{Latencies, Stats};

/// The results of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) scenario: &'static str,
    /// The parameters of the run.
    pub(crate) parameters: BTreeMap<&'static str, serde_json::Value>,
    /// How long was measured.
    pub(crate) seconds: f64,
    /// Figures in the order in which they are shown.
    #[serde(serialize_with = "as_map")]
    pub(crate) figures: Vec<Figure>,
    /// What was compared, in a sentence; of a scenario that compares nothing, what came instead.
    pub(crate) checked: String,
    /// Whether the scenario compares anything.
    pub(crate) is_checked: bool,
    /// What is wrong; the first few.
    pub(crate) faults: Vec<String>,
    /// How much is wrong.
    pub(crate) fault_count: u64,
}

/// One measured value.
#[derive(Debug)]
pub(crate) struct Figure {
    /// What a program calls it; ends in its unit.
    key: &'static str,
    /// What a person calls it.
    name: &'static str,
    value: f64,
    unit: Unit,
}

/// What a value is shown in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unit {
    Count,
    PerSecond,
    Microseconds,
    Bytes,
    Seconds,
}

fn as_map<S: serde::Serializer>(figures: &[Figure], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(figures.iter().map(|figure| (figure.key, figure.value)))
}

impl Report {
    pub(crate) fn new(scenario: &'static str, seconds: Duration) -> Self {
        Self {
            scenario,
            parameters: BTreeMap::new(),
            seconds: seconds.as_secs_f64(),
            figures: Vec::new(),
            checked: String::new(),
            is_checked: true,
            faults: Vec::new(),
            fault_count: 0,
        }
    }

    pub(crate) fn parameter(&mut self, name: &'static str, value: impl Into<serde_json::Value>) {
        self.parameters.insert(name, value.into());
    }

    pub(crate) fn figure(&mut self, key: &'static str, name: &'static str, value: f64, unit: Unit) {
        self.figures.push(Figure {
            key,
            name,
            value,
            unit,
        });
    }

    /// What was counted in the measured time.
    pub(crate) fn counts(&mut self, stats: &Stats) {
        for (key, name, count) in [
            ("ops_per_second", "ops acknowledged", stats.submits),
            ("edits_per_second", "edits acknowledged", stats.acks.len()),
        ] {
            // Where nothing was composed, the two are one.
            let told = key == "ops_per_second" || count != stats.submits;
            if told && count > 0 {
                self.figure(key, name, count as f64 / self.seconds, Unit::PerSecond);
            }
        }
        let names = ["ack p50", "ack p99", "ack max"];
        self.latencies(
            ["ack_p50_us", "ack_p99_us", "ack_max_us"],
            names,
            &stats.acks,
        );
        if stats.delivered > 0 {
            let rate = stats.delivered as f64 / self.seconds;
            self.figure("deliveries_per_second", "deliveries", rate, Unit::PerSecond);
        }
        let keys = ["delivery_p50_us", "delivery_p99_us", "delivery_max_us"];
        let names = ["delivery p50", "delivery p99", "delivery max"];
        self.latencies(keys, names, &stats.deliveries);
        self.figure(
            "received_bytes",
            "bytes received",
            stats.received as f64,
            Unit::Bytes,
        );
    }

    /// 50 %, 99 % and the worst.
    pub(crate) fn latencies(
        &mut self,
        keys: [&'static str; 3],
        names: [&'static str; 3],
        times: &Latencies,
    ) {
        if times.len() == 0 {
            return;
        }
        let values = [
            times.quantile_us(0.5),
            times.quantile_us(0.99),
            times.max_us(),
        ];
        for ((key, name), value) in keys.into_iter().zip(names).zip(values) {
            self.figure(key, name, value as f64, Unit::Microseconds);
        }
    }

    /// What the server spent in the measured time.
    pub(crate) fn cost(&mut self, before: Cost, after: Cost, stats: &Stats) {
        let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
        self.figure(
            "server_cpu_seconds",
            "server processor time",
            cpu,
            Unit::Seconds,
        );
        for (key, name, count) in [
            (
                "server_cpu_us_per_delivery",
                "server time a delivery",
                stats.delivered,
            ),
            ("server_cpu_us_per_op", "server time an op", stats.submits),
        ] {
            if count > 0 {
                self.figure(key, name, cpu * 1e6 / count as f64, Unit::Microseconds);
            }
        }
        self.figure(
            "server_rss_bytes",
            "server memory",
            after.rss_bytes as f64,
            Unit::Bytes,
        );
    }

    pub(crate) fn faulty(&mut self, faults: Faults) {
        self.fault_count += faults.count;
        self.faults.extend(faults.told);
    }

    /// The report as a table.
    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        let parameters: Vec<_> = self
            .parameters
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        let _ = writeln!(
            out,
            "{} for {:.1} s: {}",
            self.scenario,
            self.seconds,
            parameters.join(", ")
        );
        let width = self
            .figures
            .iter()
            .map(|figure| figure.name.len())
            .max()
            .unwrap_or(0);
        for figure in &self.figures {
            let _ = writeln!(
                out,
                "  {:width$}  {:>14}",
                figure.name,
                figure.unit.show(figure.value)
            );
        }
        let verdict = match (self.fault_count, self.is_checked) {
            (0, true) => "converged",
            (0, false) => "not checked",
            _ => "FAULTY",
        };
        let _ = writeln!(out, "  {verdict}: {}", self.checked);
        for fault in &self.faults {
            let _ = writeln!(out, "    {fault}");
        }
        let untold = self.fault_count.saturating_sub(self.faults.len() as u64);
        if untold > 0 {
            let _ = writeln!(out, "    and {untold} more");
        }
        out
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Count => format!("{} ", grouped(value)),
            Self::PerSecond if value < 100.0 => format!("{value:.1} /s"),
            Self::PerSecond => format!("{} /s", grouped(value)),
            Self::Microseconds if value < 100.0 => format!("{value:.2} µs"),
            Self::Microseconds if value < 100_000.0 => format!("{:.2} ms", value / 1e3),
            Self::Microseconds => format!("{:.2} s", value / 1e6),
            Self::Bytes if value < 10.0 * 1_048_576.0 => format!("{:.1} KiB", value / 1_024.0),
            Self::Bytes => format!("{:.1} MiB", value / 1_048_576.0),
            Self::Seconds => format!("{value:.2} s"),
        }
    }
}

/// A whole number in groups of three digits.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shown_in_fitting_units() {
        for (unit, value, shown) in [
            (Unit::Count, 1_234_567.0, "1,234,567 "),
            (Unit::PerSecond, 12.34, "12.3 /s"),
            (Unit::Microseconds, 3.5, "3.50 µs"),
            (Unit::Microseconds, 1_500.0, "1.50 ms"),
            (Unit::Bytes, 2_048.0, "2.0 KiB"),
        ] {
            assert_eq!(unit.show(value), shown);
        }
    }
}
