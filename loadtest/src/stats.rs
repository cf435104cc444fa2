//! What is measured while a run is on.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::check::Faults;

/// Counts and latencies of one group of clients. Outside the measured time only failures are noted.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// Whether this is the measured time.
    pub(crate) open: bool,
    /// What was measured since the last [`Stats::take_window`].
    pub(crate) window: Counts,
    /// The failures of clients.
    pub(crate) failures: Faults,
}

/// Counts and latencies of a part of the measured time. Its size does not depend on how much is recorded.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// From when a change was due until its ack came.
    pub(crate) acks: Latencies,
    /// From when a change was due until another client was told of it.
    pub(crate) deliveries: Latencies,
    /// From when a change was due until this program made it: how late the load generator itself was.
    pub(crate) lateness: Latencies,
    /// Submits acknowledged. A submit may hold several edits.
    pub(crate) submits: u64,
    /// Commits told to clients other than their authors.
    pub(crate) delivered: u64,
    /// Submits that the server refused.
    pub(crate) rejected: u64,
    /// Bytes taken in by all clients.
    pub(crate) received: u64,
}

impl Stats {
    /// A submit was acknowledged; its edits were due then.
    pub(crate) fn acked(&mut self, dues: &[Instant], now: Instant) {
        if self.open {
            self.window.submits += 1;
            for due in dues {
                let time = now.saturating_duration_since(*due);
                self.window.acks.record(time);
            }
        }
    }

    /// Another's commit was told.
    pub(crate) fn delivered(&mut self, due: Option<Instant>, now: Instant) {
        if self.open {
            self.window.delivered += 1;
            if let Some(due) = due {
                let time = now.saturating_duration_since(due);
                self.window.deliveries.record(time);
            }
        }
    }

    /// An edit was made that was due then.
    pub(crate) fn made(&mut self, due: Instant, now: Instant) {
        if self.open {
            let late = now.saturating_duration_since(due);
            self.window.lateness.record(late);
        }
    }

    /// A submit was refused.
    pub(crate) fn rejected(&mut self) {
        if self.open {
            self.window.rejected += 1;
        }
    }

    /// Bytes were taken in.
    pub(crate) fn received(&mut self, bytes: u64) {
        if self.open {
            self.window.received += bytes;
        }
    }

    /// Something went wrong.
    pub(crate) fn failed(&mut self, error: &anyhow::Error) {
        self.failures.add(format!("{error:#}"));
    }

    /// What was measured since the last call.
    pub(crate) fn take_window(&mut self) -> Counts {
        std::mem::take(&mut self.window)
    }
}

impl Counts {
    /// Adds what was measured by another group or in another part of the time.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.acks.merge(&other.acks);
        self.deliveries.merge(&other.deliveries);
        self.lateness.merge(&other.lateness);
        self.submits += other.submits;
        self.delivered += other.delivered;
        self.rejected += other.rejected;
        self.received += other.received;
    }
}

/// How long things took, in microseconds with three significant digits.
#[derive(Debug)]
pub(crate) struct Latencies(Histogram<u64>);

/// Points of a distribution in each half of what is left up to 100 %.
const POINTS_PER_HALF: u32 = 3;

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new(3).expect("three significant digits are allowed"))
    }
}

impl Latencies {
    pub(crate) fn record(&mut self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        // Only a histogram of fixed size has values that it does not take.
        let _ = self.0.record(us);
    }

    /// Adds all values of another histogram.
    pub(crate) fn merge(&mut self, other: &Self) {
        let _ = self.0.add(&other.0);
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len()
    }

    /// In microseconds.
    pub(crate) fn quantile_us(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }

    /// In microseconds.
    pub(crate) fn max_us(&self) -> u64 {
        self.0.max()
    }

    /// Points of the distribution, denser towards 100 %: the share of values up to a value, and the value in microseconds.
    pub(crate) fn distribution(&self) -> Vec<(f64, u64)> {
        let points = self.0.iter_quantiles(POINTS_PER_HALF);
        points
            .map(|point| (point.quantile(), point.value_iterated_to()))
            .collect()
    }
}

#[cfg(test)]
mod tests;
