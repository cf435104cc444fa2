//! The measured parts of a run.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::select;
use tokio::time::sleep_until;

use super::{Phase, Run, SegmentPlan};
use crate::report::{Report, Unit};
use crate::server::Cost;
use crate::stats::Counts;
use crate::timeline::{Series, Timeline};

/// A measured part of a run.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) name: String,
    pub(crate) took: Duration,
    /// What each group measured.
    pub(crate) groups: Vec<(&'static str, Counts)>,
    /// What each server had used before and after.
    pub(crate) costs: (Vec<Cost>, Vec<Cost>),
    /// Whether Ctrl-C ended it.
    pub(crate) is_interrupted: bool,
}

impl Segment {
    /// All groups together.
    pub(crate) fn total(&self) -> Counts {
        let mut total = Counts::default();
        self.groups
            .iter()
            .for_each(|(_, counts)| total.merge(counts));
        total
    }

    /// What one group measured.
    pub(crate) fn group(&self, name: &str) -> &Counts {
        let found = self.groups.iter().find(|(group, _)| *group == name);
        &found.expect("the plan has this group").1
    }
}

/// How often the progress line changes.
const PROGRESS: Duration = Duration::from_millis(200);

impl Run<'_> {
    /// Lets the editors write as the plan says, and measures. They write on afterwards, until the next part or the end.
    pub(crate) async fn segment(&mut self, plan: SegmentPlan) -> Result<Segment> {
        self.phase.send_replace(Phase::Writing(plan.tempo));
        let settled = self.wait(&plan.name, Instant::now() + plan.settle, |_| false);
        let interrupted = settled.await?;
        let end = Instant::now() + plan.measure;
        self.measured(plan.name, interrupted, |_| Instant::now() >= end)
            .await
    }

    /// Measures until `done`, at the present tempo.
    pub(crate) async fn measured(
        &mut self,
        name: String,
        mut interrupted: bool,
        done: impl Fn(&Self) -> bool,
    ) -> Result<Segment> {
        let before = self.timeline.begin(name.clone())?;
        self.stats
            .iter()
            .for_each(|stats| stats.borrow_mut().open = true);
        let began = Instant::now();
        let mut groups: Vec<_> = self.empty_groups();
        let interval = Timeline::interval(self.options.seconds());
        while !interrupted && !done(self) {
            interrupted = self.wait(&name, Instant::now() + interval, &done).await?;
            self.take_sample(&mut groups)?;
            if self.failed() as usize >= self.tasks.len().max(1) {
                break;
            }
        }
        self.stats
            .iter()
            .for_each(|stats| stats.borrow_mut().open = false);
        let took = began.elapsed();
        Ok(Segment {
            name,
            took,
            groups,
            costs: (before, self.timeline.last().to_vec()),
            is_interrupted: interrupted,
        })
    }

    fn empty_groups(&self) -> Vec<(&'static str, Counts)> {
        let names = self.plan.groups.iter();
        names.map(|name| (*name, Counts::default())).collect()
    }

    /// Moves what was measured since the last sample to the timeline and to the sums.
    fn take_sample(&mut self, sums: &mut [(&'static str, Counts)]) -> Result<()> {
        let mut sample = self.empty_groups();
        for (stats, (_, counts)) in self.stats.iter().zip(&mut sample) {
            *counts = stats.borrow_mut().take_window();
        }
        self.timeline.sample(&sample)?;
        for ((_, sum), (_, counts)) in sums.iter_mut().zip(&sample) {
            sum.merge(counts);
        }
        Ok(())
    }

    /// Waits until a time, until `done`, or until all clients have failed. Returns true if Ctrl-C ended the wait.
    async fn wait(
        &self,
        doing: &str,
        until: Instant,
        done: impl Fn(&Self) -> bool,
    ) -> Result<bool> {
        let interrupt = tokio::signal::ctrl_c();
        tokio::pin!(interrupt);
        loop {
            let tick = Instant::now() + PROGRESS;
            select! {
                biased;
                _ = &mut interrupt => return Ok(true),
                () = sleep_until(until.min(tick).into()) => {}
            }
            let failed = self.failed();
            self.bar
                .set_message(format!("{doing}: {} s, {failed} failures", self.seconds()));
            self.bar.tick();
            let all_failed = failed as usize >= self.tasks.len().max(1);
            if Instant::now() >= until || all_failed || done(self) {
                return Ok(false);
            }
        }
    }

    fn seconds(&self) -> u64 {
        self.bar.elapsed().as_secs()
    }

    /// Lets no editor write, and waits until all edits are acknowledged and delivered. Returns false if that takes too long.
    pub(crate) async fn drain(&mut self) -> bool {
        self.phase.send_replace(Phase::Quiet);
        self.quiet().await
    }

    /// The report of a part, with the run's parameters.
    pub(crate) fn report(&self, segment: &Segment) -> Report {
        let mut report = Report::new(self.plan.scenario, segment.took);
        self.describe(&mut report);
        let total = segment.total();
        report.counts(&total);
        if segment.groups.len() > 1 {
            report.groups(&segment.groups);
        }
        report.cost(&segment.costs.0, &segment.costs.1, &total);
        // With editors the documents and their logs grow too.
        if self.plan.editors() == 0 && !self.before.is_empty() {
            let (before, end) = (Cost::sum(&self.before), Cost::sum(&segment.costs.1));
            let grown = end.rss_bytes.saturating_sub(before.rss_bytes) as f64;
            let each = grown / self.plan.clients.len().max(1) as f64;
            let name = "server memory a connection";
            report.figure("server_bytes_per_connection", name, each, Unit::Bytes);
        }
        report
    }

    /// The samples so far.
    pub(crate) fn series(&self) -> &Series {
        &self.timeline.series
    }

    fn describe(&self, report: &mut Report) {
        let plan = &self.plan;
        report.parameter("seed", self.seed);
        report.parameter("seconds", self.options.seconds);
        report.parameter("nodes", self.endpoints());
        report.parameter("documents", plan.docs);
        report.parameter("type", plan.kind.name());
        report.parameter("chars", plan.chars);
        for (name, value) in &plan.parameters {
            report.parameter(name, value.clone());
        }
    }
}
