//! What is measured while a run is on.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Counts and latencies of one run. Outside the measured time only failures are noted.
#[derive(Debug)]
pub(crate) struct Stats {
    /// Whether this is the measured time.
    pub(crate) open: bool,
    /// From when a change was due until its ack came.
    pub(crate) acks: Latencies,
    /// From when a change was due until another client was told of it.
    pub(crate) deliveries: Latencies,
    /// Submits acknowledged. A submit may hold several edits.
    pub(crate) submits: u64,
    /// Commits told to clients other than their authors.
    pub(crate) delivered: u64,
    /// Bytes taken in by all clients.
    pub(crate) received: u64,
    /// What went wrong; the first few.
    pub(crate) failures: Vec<String>,
    /// How many went wrong.
    pub(crate) failed: u64,
}

const FAILURES_TOLD: usize = 5;

impl Stats {
    pub(crate) fn new() -> Self {
        Self {
            open: false,
            acks: Latencies::new(),
            deliveries: Latencies::new(),
            submits: 0,
            delivered: 0,
            received: 0,
            failures: Vec::new(),
            failed: 0,
        }
    }

    /// A submit was acknowledged; its edits were due then.
    pub(crate) fn acked(&mut self, dues: &[Instant], now: Instant) {
        if self.open {
            self.submits += 1;
            for due in dues {
                self.acks.record(now.saturating_duration_since(*due));
            }
        }
    }

    /// Another's commit was told.
    pub(crate) fn delivered(&mut self, due: Option<Instant>, now: Instant) {
        if self.open {
            self.delivered += 1;
            if let Some(due) = due {
                self.deliveries.record(now.saturating_duration_since(due));
            }
        }
    }

    /// Bytes were taken in.
    pub(crate) fn received(&mut self, bytes: u64) {
        if self.open {
            self.received += bytes;
        }
    }

    /// Something went wrong.
    pub(crate) fn failed(&mut self, error: &anyhow::Error) {
        self.failed += 1;
        if self.failures.len() < FAILURES_TOLD {
            self.failures.push(format!("{error:#}"));
        }
    }
}

/// How long things took.
#[derive(Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Self {
        Self(Histogram::new(3).expect("three significant digits are allowed"))
    }

    pub(crate) fn record(&mut self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        // Only a histogram of fixed size has values that it does not take.
        let _ = self.0.record(us);
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
}
