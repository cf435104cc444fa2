//! One measured value: its unit, and which direction is better.

use serde::{Deserialize, Serialize};

/// One measured value.
#[derive(Debug)]
pub(crate) struct Figure {
    /// Its key in the JSON; ends in its unit.
    pub(super) key: String,
    /// Its name in tables.
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) unit: Unit,
}

/// The direction in which a figure improves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    Lower,
    Higher,
}

impl Better {
    /// The direction of a figure, by the end of its key; `None` if a comparison does not judge it.
    pub(crate) fn of(key: &str) -> Option<Self> {
        let is_of_generator = key.starts_with("generator_");
        let is_cost = key.starts_with("server_cpu_us_per_");
        let is_memory = matches!(key, "server_bytes_per_connection" | "server_rss_bytes");
        let is_quantile = key.ends_with("_p50_us") || key.ends_with("_p99_us");
        let is_refusal = key == "rejected_per_second";
        let is_return = key.ends_with("_back_seconds");
        if is_of_generator {
            None
        } else if is_cost || is_memory || is_quantile || is_refusal || is_return {
            Some(Self::Lower)
        } else if key.ends_with("_per_second") {
            Some(Self::Higher)
        } else {
            None
        }
    }
}

/// What a value is shown in.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    Count,
    PerSecond,
    Microseconds,
    Bytes,
    Seconds,
    Share,
    Ratio,
}

impl Unit {
    /// A value with its unit, for people.
    pub(crate) fn show(self, value: f64) -> String {
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
            Self::Ratio => format!("{value:.2} ×"),
            Self::Share => format!("{:.1} %", value * 100.0),
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
            (Unit::Share, 0.125, "12.5 %"),
        ] {
            assert_eq!(unit.show(value), shown);
        }
    }

    #[test]
    fn only_figures_with_a_direction_are_judged() {
        for (key, better) in [
            ("ack_p99_us", Some(Better::Lower)),
            ("others_ack_p50_us", Some(Better::Lower)),
            ("server_cpu_us_per_op", Some(Better::Lower)),
            ("server_bytes_per_connection", Some(Better::Lower)),
            ("ops_per_second", Some(Better::Higher)),
            ("knee_edits_per_second", Some(Better::Higher)),
            ("rejected_per_second", Some(Better::Lower)),
            ("all_back_seconds", Some(Better::Lower)),
            // The worst of many values is one event, and what the load generator does says nothing about the server.
            ("ack_max_us", None),
            ("generator_late_p99_us", None),
            ("received_bytes", None),
            ("server_cpu_seconds", None),
            ("openings", None),
        ] {
            assert_eq!(Better::of(key), better, "{key}");
        }
    }
}
