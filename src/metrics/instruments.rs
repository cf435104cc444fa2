//! The instruments that `prometheus-client` does not have as such: histograms with fixed buckets, and families with all of
//! their series.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::labels::{EncodedLabels, LabelSet};

/// A gauge of seconds: a time since 1970, or a duration.
pub type SecondsGauge = Gauge<f64, AtomicU64>;

/// Sets a counter that is counted elsewhere, to be exported. Values must not fall.
pub fn set_counter(counter: &Counter, value: u64) {
    counter.inner().store(value, Ordering::Relaxed);
}

/// Sets a gauge to a number of things or bytes.
pub fn set_gauge(gauge: &Gauge, number: usize) {
    gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
}

/// Declares a histogram with fixed buckets.
macro_rules! histogram {
    ($(#[$meta:meta])* $name:ident: $buckets:expr) => {
        $(#[$meta])*
        #[derive(Debug, Clone)]
        pub struct $name(Histogram);

        impl Default for $name {
            fn default() -> Self {
                Self(Histogram::new($buckets))
            }
        }

        impl EncodeMetric for $name {
            fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
                self.0.encode(encoder)
            }

            fn metric_type(&self) -> MetricType {
                MetricType::Histogram
            }
        }
    };
}

histogram! {
    /// A histogram of durations, in seconds: from 0.5 ms, below which all is well, to 10 s, above which clients have given up.
    Seconds: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0]
}

impl Seconds {
    /// Adds a duration.
    pub fn observe(&self, duration: Duration) {
        self.0.observe(duration.as_secs_f64());
    }
}

histogram! {
    /// A histogram of sizes in bytes: from 64 bytes to 16 MiB in factors of eight.
    Bytes: (2..=8).map(|exponent| f64::from(8_u32.pow(exponent)))
}

impl Bytes {
    /// Adds a size.
    pub fn observe(&self, bytes: usize) {
        // Sizes beyond 2^52 bytes do not exist.
        #[expect(clippy::cast_precision_loss)]
        self.0.observe(bytes as f64);
    }
}

histogram! {
    /// A histogram of how many things were handled at once: from 1 to 4,096 in factors of four.
    Count: (0..=6).map(|exponent| f64::from(4_u32.pow(exponent)))
}

impl Count {
    /// Adds a number of things.
    pub fn observe(&self, count: usize) {
        #[expect(clippy::cast_precision_loss)]
        self.0.observe(count as f64);
    }
}

/// One instrument for each combination of label values. All of them are exported, also those that were never used.
pub struct Labelled<S, I> {
    instruments: Arc<[I]>,
    labels: PhantomData<S>,
}

impl<S: LabelSet, I> Labelled<S, I> {
    /// The instrument of these label values.
    pub fn of(&self, labels: S) -> &I {
        &self.instruments[labels.index()]
    }
}

impl<S: LabelSet, I: Default> Default for Labelled<S, I> {
    fn default() -> Self {
        Self {
            instruments: S::all().iter().map(|_| I::default()).collect(),
            labels: PhantomData,
        }
    }
}

impl<S, I> Clone for Labelled<S, I> {
    fn clone(&self) -> Self {
        Self {
            instruments: self.instruments.clone(),
            labels: PhantomData,
        }
    }
}

impl<S, I: fmt::Debug> fmt::Debug for Labelled<S, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.instruments.deref().fmt(f)
    }
}

impl<S: LabelSet, I: EncodeMetric> EncodeMetric for Labelled<S, I> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (labels, instrument) in S::all().into_iter().zip(&*self.instruments) {
            let labels = EncodedLabels(labels);
            instrument.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        // A label without values would be an empty enum.
        self.instruments
            .first()
            .map_or(MetricType::Unknown, EncodeMetric::metric_type)
    }
}
