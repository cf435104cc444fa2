//! The metrics of a process, and their export.

use std::fmt;
use std::sync::Mutex;

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::Registry;

use crate::sync::lock;

/// The metrics of one module.
pub trait MetricSet {
    /// Adds all metrics of the set.
    fn register(&self, registry: &mut Registry);
}

/// The formats of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpositionFormat {
    /// The text format of Prometheus, version 0.0.4.
    Prometheus,
    /// `OpenMetrics` text, version 1.0.0.
    OpenMetrics,
}

impl ExpositionFormat {
    /// The format that a client accepts. A client that does not ask for `OpenMetrics` gets the format of Prometheus.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        let asks_for = |media: &str| media.trim().starts_with("application/openmetrics-text");
        if accept.split(',').any(asks_for) {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// The content type of an export in this format.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All metrics of a process.
pub struct MetricsRegistry {
    registry: Registry,
    samplers: Mutex<Vec<Sampler>>,
}

/// Sets gauges to the current values.
type Sampler = Box<dyn Fn() + Send>;

impl MetricsRegistry {
    /// A registry without metrics.
    #[must_use]
    pub fn new() -> Self {
        Self {
            registry: Registry::with_prefix("copydesk"),
            samplers: Mutex::default(),
        }
    }

    /// Adds the metrics of a module.
    pub fn add(&mut self, set: &impl MetricSet) {
        set.register(&mut self.registry);
    }

    /// Calls `sampler` before each export. It sets gauges that nothing else keeps current, and must not wait: it may read
    /// counters and take short locks.
    pub fn sample(&self, sampler: impl Fn() + Send + 'static) {
        lock(&self.samplers).push(Box::new(sampler));
    }

    /// The current values of all metrics.
    ///
    /// # Errors
    /// If an instrument cannot be encoded, which is a fault of this program.
    pub fn export(&self, format: ExpositionFormat) -> Result<String, fmt::Error> {
        for sampler in &*lock(&self.samplers) {
            sampler();
        }
        let mut text = String::new();
        match format {
            ExpositionFormat::Prometheus => prometheus_text::encode(&mut text, &self.registry)?,
            ExpositionFormat::OpenMetrics => text::encode(&mut text, &self.registry)?,
        }
        Ok(text)
    }
}

impl Default for MetricsRegistry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MetricsRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsRegistry").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Counter, Gauge, Labelled, Seconds, labels, metrics};
    use super::*;

    labels! {
        /// How it ended.
        enum Outcome: "outcome" {
            /// Well.
            Kept = "kept",
            /// Badly.
            Dropped = "dropped",
        }
    }

    labels! {
        /// Where it was.
        enum Place: "place" {
            /// On this node.
            Here = "here",
            /// On another node.
            Elsewhere = "elsewhere",
        }
    }

    metrics! {
        /// Metrics of every kind.
        struct TestMetrics {
            /// Things that happened.
            things: Counter;
            /// Things that are there,
            /// now.
            things_present: Gauge;
            /// Ended things.
            ended: Labelled<(Outcome, Place), Counter>;
            /// How long things take.
            thing_seconds: Labelled<Place, Seconds>;
        }
    }

    #[test]
    fn every_series_is_exported_from_the_start() {
        let metrics = TestMetrics::default();
        let mut registry = MetricsRegistry::new();
        registry.add(&metrics);
        let text = registry.export(ExpositionFormat::Prometheus).unwrap();
        assert!(
            text.contains("# HELP copydesk_things_total Things that happened.\n"),
            "{text}"
        );
        assert!(
            text.contains("\n# TYPE copydesk_things_total counter\ncopydesk_things_total 0\n"),
            "{text}"
        );
        assert!(
            text.contains("# HELP copydesk_things_present Things that are there, now.\n"),
            "{text}"
        );
        for outcome in ["kept", "dropped"] {
            for place in ["here", "elsewhere"] {
                let series =
                    format!("copydesk_ended_total{{outcome=\"{outcome}\",place=\"{place}\"}} 0\n");
                assert!(text.contains(&series), "{series} {text}");
            }
        }
        assert!(
            text.contains("copydesk_thing_seconds_count{place=\"elsewhere\"} 0\n"),
            "{text}"
        );
    }

    #[test]
    fn samplers_run_before_each_export() {
        let metrics = TestMetrics::default();
        let mut registry = MetricsRegistry::new();
        registry.add(&metrics);
        metrics.ended.of((Outcome::Dropped, Place::Here)).inc();
        metrics
            .thing_seconds
            .of(Place::Here)
            .observe(Duration::from_millis(3));
        let gauge = metrics.things_present.clone();
        registry.sample(move || {
            gauge.inc();
        });
        registry.export(ExpositionFormat::Prometheus).unwrap();
        let text = registry.export(ExpositionFormat::OpenMetrics).unwrap();
        assert!(text.contains("copydesk_things_present 2\n"), "{text}");
        assert!(
            text.contains("copydesk_ended_total{outcome=\"dropped\",place=\"here\"} 1\n"),
            "{text}"
        );
        assert!(
            text.contains("copydesk_thing_seconds_bucket{le=\"0.0025\",place=\"here\"} 0\n"),
            "{text}"
        );
        assert!(
            text.contains("copydesk_thing_seconds_bucket{le=\"0.005\",place=\"here\"} 1\n"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn the_format_is_the_one_that_is_accepted() {
        for (accept, format) in [
            ("", ExpositionFormat::Prometheus),
            ("text/plain", ExpositionFormat::Prometheus),
            ("*/*", ExpositionFormat::Prometheus),
            (
                "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
                ExpositionFormat::OpenMetrics,
            ),
        ] {
            assert_eq!(ExpositionFormat::accepted(accept), format, "{accept}");
        }
    }
}
