//! The results of a run, as a table and as JSON.

mod figures;
mod table;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::check::Faults;
use crate::server::Cost;
use crate::stats::{Counts, Latencies};
use crate::timeline::Series;

pub(crate) use figures::{Better, Figure, Unit};
pub(crate) use table::Table;

/// The version of the JSON. It grows when a field is removed or changes its meaning, not when one is added.
pub(crate) const SCHEMA: u32 = 1;

/// Lateness of the load generator that is not worth a note: its timer ticks once a millisecond.
const LATE_US: u64 = 3_000;

/// The results of a run. Its JSON is described in docs/LOADTEST.md.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) schema: u32,
    pub(crate) scenario: &'static str,
    /// The parameters of the run.
    pub(crate) parameters: BTreeMap<&'static str, serde_json::Value>,
    /// How long was measured.
    pub(crate) seconds: f64,
    /// Figures in the order in which they are shown.
    #[serde(serialize_with = "as_map")]
    pub(crate) figures: Vec<Figure>,
    /// Which figures a comparison judges, and which direction is better.
    pub(crate) better: BTreeMap<String, Better>,
    /// Parts of the run side by side.
    pub(crate) tables: Vec<Table>,
    /// The measured time in samples.
    pub(crate) series: Series,
    /// The distribution of latencies, of each kind and group: pairs of a share and the value in microseconds.
    pub(crate) distributions: BTreeMap<String, Vec<(f64, u64)>>,
    /// What was compared, in a sentence; of a scenario that compares nothing, what came instead.
    pub(crate) checked: String,
    /// Whether the scenario compares anything.
    pub(crate) is_checked: bool,
    /// What else was noticed.
    pub(crate) notes: Vec<String>,
    /// What is wrong; the first few.
    pub(crate) faults: Vec<String>,
    /// How much is wrong.
    pub(crate) fault_count: u64,
}

fn as_map<S: serde::Serializer>(figures: &[Figure], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(figures.iter().map(|figure| (&figure.key, figure.value)))
}

impl Report {
    pub(crate) fn new(scenario: &'static str, seconds: Duration) -> Self {
        Self {
            schema: SCHEMA,
            scenario,
            parameters: BTreeMap::new(),
            seconds: seconds.as_secs_f64(),
            figures: Vec::new(),
            better: BTreeMap::new(),
            tables: Vec::new(),
            series: Series::default(),
            distributions: BTreeMap::new(),
            checked: String::new(),
            is_checked: true,
            notes: Vec::new(),
            faults: Vec::new(),
            fault_count: 0,
        }
    }

    pub(crate) fn parameter(&mut self, name: &'static str, value: impl Into<serde_json::Value>) {
        self.parameters.insert(name, value.into());
    }

    pub(crate) fn figure(
        &mut self,
        key: impl Into<String>,
        name: impl Into<String>,
        value: f64,
        unit: Unit,
    ) {
        let (key, name) = (key.into(), name.into());
        if let Some(better) = Better::of(&key) {
            self.better.insert(key.clone(), better);
        }
        self.figures.push(Figure {
            key,
            name,
            value,
            unit,
        });
    }

    /// What was counted in the measured time.
    pub(crate) fn counts(&mut self, counts: &Counts) {
        for (key, name, count) in [
            ("ops_per_second", "ops acknowledged", counts.submits),
            ("edits_per_second", "edits acknowledged", counts.acks.len()),
            ("rejected_per_second", "ops refused", counts.rejected),
        ] {
            // Where nothing was composed, the first two are one.
            let told = key != "edits_per_second" || count != counts.submits;
            if told && count > 0 {
                self.figure(key, name, count as f64 / self.seconds, Unit::PerSecond);
            }
        }
        self.latencies("ack", "ack", &counts.acks);
        if counts.delivered > 0 {
            let rate = counts.delivered as f64 / self.seconds;
            self.figure("deliveries_per_second", "deliveries", rate, Unit::PerSecond);
        }
        self.latencies("delivery", "delivery", &counts.deliveries);
        self.latencies("generator_late", "load generator late", &counts.lateness);
        self.note_lateness(counts);
        let received = counts.received as f64;
        self.figure("received_bytes", "bytes received", received, Unit::Bytes);
    }

    /// Notes if the latencies say as much about the load generator as about the server.
    fn note_lateness(&mut self, counts: &Counts) {
        let late = counts.lateness.quantile_us(0.99);
        if late > LATE_US && late > counts.acks.quantile_us(0.99) / 3 {
            let late_ms = late as f64 / 1e3;
            self.notes.push(format!(
                "the load generator was late by {late_ms:.0} ms at p99: its processors are busy, and the latencies are upper bounds"
            ));
        }
    }

    /// The latencies of each group apart.
    pub(crate) fn groups(&mut self, groups: &[(&'static str, Counts)]) {
        for (group, counts) in groups {
            self.latencies(
                &format!("{group}_ack"),
                &format!("{group}: ack"),
                &counts.acks,
            );
            self.latencies(
                &format!("{group}_delivery"),
                &format!("{group}: delivery"),
                &counts.deliveries,
            );
        }
    }

    /// 50 %, 99 % and the worst, and the distribution.
    pub(crate) fn latencies(&mut self, key: &str, name: &str, times: &Latencies) {
        if times.len() == 0 {
            return;
        }
        for (end, value) in [
            ("p50", times.quantile_us(0.5)),
            ("p99", times.quantile_us(0.99)),
            ("max", times.max_us()),
        ] {
            self.figure(
                format!("{key}_{end}_us"),
                format!("{name} {end}"),
                value as f64,
                Unit::Microseconds,
            );
        }
        self.distributions
            .insert(key.to_owned(), times.distribution());
    }

    /// What the server's processes used in the measured time; nothing if there are none on this machine.
    pub(crate) fn cost(&mut self, before: &[Cost], after: &[Cost], counts: &Counts) {
        if after.is_empty() {
            return;
        }
        let (before, after) = (Cost::sum(before), Cost::sum(after));
        let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
        let name = "server processor time";
        self.figure("server_cpu_seconds", name, cpu, Unit::Seconds);
        for (key, name, count) in [
            (
                "server_cpu_us_per_delivery",
                "server time a delivery",
                counts.delivered,
            ),
            ("server_cpu_us_per_op", "server time an op", counts.submits),
        ] {
            if count > 0 {
                self.figure(key, name, cpu * 1e6 / count as f64, Unit::Microseconds);
            }
        }
        let rss = after.rss_bytes as f64;
        self.figure("server_rss_bytes", "server memory", rss, Unit::Bytes);
        let files = after.files as f64;
        self.figure("server_open_files", "server open files", files, Unit::Count);
    }

    pub(crate) fn faulty(&mut self, faults: Faults) {
        self.fault_count += faults.count;
        self.faults.extend(faults.told);
    }

    /// Names and values of the figures as they are shown.
    pub(crate) fn shown_figures(&self) -> impl Iterator<Item = (&str, String)> {
        let figures = self.figures.iter();
        figures.map(|figure| (figure.name.as_str(), figure.unit.show(figure.value)))
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
        self.tables
            .iter()
            .for_each(|table| out.push_str(&table.show()));
        let names = self.figures.iter().map(|figure| figure.name.len());
        let width = names.max().unwrap_or(0);
        for (name, shown) in self.shown_figures() {
            let _ = writeln!(out, "  {name:width$}  {shown:>14}");
        }
        let verdict = match (self.fault_count, self.is_checked) {
            (0, true) => "converged",
            (0, false) => "not checked",
            _ => "FAULTY",
        };
        let _ = writeln!(out, "  {verdict}: {}", self.checked);
        for note in &self.notes {
            let _ = writeln!(out, "  note: {note}");
        }
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
