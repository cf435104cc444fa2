//! Metrics: declared once, typed, and exported in the formats of Prometheus and OpenMetrics.
//!
//! Each module declares what it measures with [`metrics!`](crate::__metrics) as a struct of instruments, in the order and with
//! the documentation in which they are exported. A label is an enum ([`labels!`](crate::__labels)), so its values are known at
//! compile time: every series exists from the start with zero, and no value can come from a user. There is no global registry:
//! the command `serve` makes one [`MetricsRegistry`], adds the struct of each module, and gives it to the admin listener.
//!
//! Names start with `copydesk_`, and have base units: seconds and bytes. Counters are exported with `_total`.

mod call_result;
mod declare;
mod instruments;
mod labels;
mod process;
mod registry;

pub use call_result::CallResult;
pub use instruments::{Bytes, Count, Labelled, Seconds, SecondsGauge, set_counter, set_gauge};
pub use labels::{Label, LabelSet};
pub use process::ProcessMetrics;
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;
pub use registry::{ExpositionFormat, MetricSet, MetricsRegistry};

pub(crate) use crate::__labels as labels;
pub(crate) use crate::__metrics as metrics;

#[doc(hidden)]
pub use prometheus_client::registry::Registry;
