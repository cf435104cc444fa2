//! The measured time in short samples: latencies, throughput and what each server process used.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::server::Cost;
use crate::stats::Counts;

/// Samples of the measured time. Their number is bounded: the interval grows with the length of the run.
#[derive(Debug)]
pub(crate) struct Timeline {
    began: Instant,
    pids: Vec<u32>,
    last: Vec<Cost>,
    /// When the sample that is being taken began.
    sample_began: Instant,
    pub(crate) series: Series,
}

/// The samples, by column.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Series {
    /// The middle of each sample, in seconds since the first.
    pub(crate) at_s: Vec<f64>,
    /// One for each group of clients.
    pub(crate) groups: BTreeMap<&'static str, GroupSeries>,
    /// One for each server process.
    pub(crate) servers: Vec<ServerSeries>,
    /// What began when.
    pub(crate) marks: Vec<Mark>,
}

/// What one group of clients measured in each sample; no value where nothing was measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct GroupSeries {
    pub(crate) ops_per_second: Vec<f64>,
    pub(crate) deliveries_per_second: Vec<f64>,
    pub(crate) rejected_per_second: Vec<f64>,
    pub(crate) ack_p50_us: Vec<Option<u64>>,
    pub(crate) ack_p99_us: Vec<Option<u64>>,
    pub(crate) ack_max_us: Vec<Option<u64>>,
    pub(crate) delivery_p50_us: Vec<Option<u64>>,
    pub(crate) delivery_p99_us: Vec<Option<u64>>,
    pub(crate) delivery_max_us: Vec<Option<u64>>,
}

/// What one server process used in each sample.
#[derive(Debug, Default, Serialize)]
pub(crate) struct ServerSeries {
    pub(crate) pid: u32,
    /// Processors in use: 1 is one processor all the time.
    pub(crate) cpu: Vec<f64>,
    pub(crate) rss_bytes: Vec<u64>,
    pub(crate) open_files: Vec<u64>,
}

/// A moment with a name.
#[derive(Debug, Serialize)]
pub(crate) struct Mark {
    pub(crate) at_s: f64,
    pub(crate) name: String,
}

/// More samples than this are not taken by a run of one length.
const SAMPLES_MAX: u32 = 600;
/// No sample is shorter: a percentile of fewer ops says little.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

impl Timeline {
    pub(crate) fn new(pids: &[u32]) -> Result<Self> {
        let servers = pids.iter().map(|pid| ServerSeries {
            pid: *pid,
            ..ServerSeries::default()
        });
        let now = Instant::now();
        Ok(Self {
            began: now,
            pids: pids.to_vec(),
            last: Cost::of_all(pids)?,
            sample_began: now,
            series: Series {
                servers: servers.collect(),
                ..Series::default()
            },
        })
    }

    /// How long a sample takes in a run of this length.
    pub(crate) fn interval(run: Duration) -> Duration {
        (run / SAMPLES_MAX).max(INTERVAL_MIN)
    }

    /// A part of the measured time begins. Returns what the servers have used until then.
    pub(crate) fn begin(&mut self, name: String) -> Result<Vec<Cost>> {
        let now = Instant::now();
        if self.series.marks.is_empty() {
            self.began = now;
        }
        let at_s = now.duration_since(self.began).as_secs_f64();
        self.series.marks.push(Mark { at_s, name });
        self.sample_began = now;
        self.last = Cost::of_all(&self.pids)?;
        Ok(self.last.clone())
    }

    /// Ends a sample: what each group measured in it.
    pub(crate) fn sample(&mut self, groups: &[(&'static str, Counts)]) -> Result<()> {
        let now = Instant::now();
        let seconds = now.duration_since(self.sample_began).as_secs_f64();
        if seconds <= 0.0 {
            return Ok(());
        }
        let end = now.duration_since(self.began).as_secs_f64();
        self.series.at_s.push(end - seconds / 2.0);
        for (name, counts) in groups {
            let group = self.series.groups.entry(name).or_default();
            group.push(counts, seconds);
        }
        let costs = Cost::of_all(&self.pids)?;
        let servers = self.series.servers.iter_mut();
        for ((series, cost), last) in servers.zip(&costs).zip(&self.last) {
            let cpu = cost.cpu.saturating_sub(last.cpu).as_secs_f64();
            series.cpu.push(cpu / seconds);
            series.rss_bytes.push(cost.rss_bytes);
            series.open_files.push(cost.files);
        }
        self.last = costs;
        self.sample_began = now;
        Ok(())
    }

    /// What the servers had used at the last sample.
    pub(crate) fn last(&self) -> &[Cost] {
        &self.last
    }
}

impl GroupSeries {
    fn push(&mut self, counts: &Counts, seconds: f64) {
        let rate = |count: u64| count as f64 / seconds;
        self.ops_per_second.push(rate(counts.submits));
        self.deliveries_per_second.push(rate(counts.delivered));
        self.rejected_per_second.push(rate(counts.rejected));
        for (times, p50, p99, max) in [
            (
                &counts.acks,
                &mut self.ack_p50_us,
                &mut self.ack_p99_us,
                &mut self.ack_max_us,
            ),
            (
                &counts.deliveries,
                &mut self.delivery_p50_us,
                &mut self.delivery_p99_us,
                &mut self.delivery_max_us,
            ),
        ] {
            let any = times.len() > 0;
            p50.push(any.then(|| times.quantile_us(0.5)));
            p99.push(any.then(|| times.quantile_us(0.99)));
            max.push(any.then(|| times.max_us()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_runs_have_a_bounded_number_of_samples() {
        let hour = Duration::from_secs(3_600);
        assert_eq!(
            Timeline::interval(Duration::from_secs(10)),
            Duration::from_secs(1)
        );
        assert_eq!(Timeline::interval(hour), Duration::from_secs(6));
        assert!((hour * 24).div_duration_f64(Timeline::interval(hour * 24)) <= 600.5);
    }

    #[test]
    fn every_column_gets_a_value_in_every_sample() {
        let mut timeline = Timeline::new(&[std::process::id()]).unwrap();
        timeline.begin("all".to_owned()).unwrap();
        let mut counts = Counts::default();
        timeline.sample(&[("all", Counts::default())]).unwrap();
        counts.submits = 5;
        counts.acks.record(Duration::from_millis(2));
        timeline.sample(&[("all", counts)]).unwrap();
        let json = serde_json::to_value(&timeline.series).unwrap();
        for (name, column) in json["groups"]["all"].as_object().unwrap() {
            assert_eq!(column.as_array().unwrap().len(), 2, "{name}");
        }
        assert!(json["groups"]["all"]["ack_p99_us"][0].is_null());
        assert!(json["groups"]["all"]["ack_p99_us"][1].as_u64().unwrap() >= 1_900);
        assert_eq!(json["servers"][0]["rss_bytes"].as_array().unwrap().len(), 2);
    }
}
