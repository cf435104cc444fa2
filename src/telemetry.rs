//! The log: readable lines on a terminal, JSON otherwise. Every line has the name and id of the node.

use std::fmt;
use std::io::IsTerminal;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::json;
use thiserror::Error;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::format::{Format, Full, Json, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::setting::settings;

settings! {
    /// Settings of the log.
    pub struct LogSettings {
        /// The lowest level that is logged, or levels by module, in the syntax of `tracing` filters. `actix_http` logs an
        /// error for each request that it cannot parse, so clients could fill the log; `deadpool` warns of each connection
        /// that an outage ended, which the server logs once.
        pub level: String = "info,actix_server=warn,actix_http=off,fred=error,deadpool=error".to_owned();
        /// The format of a log line.
        pub format: LogFormat = LogFormat::Auto;
    }
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `Human` on a terminal, `Json` otherwise.
    Auto,
    /// Readable text.
    Human,
    /// One JSON object a line.
    Json,
}

/// The setting `log.level` is not a filter.
#[derive(Debug, Error)]
#[error("log.level {level:?} is not a filter ({source}): try \"info\", or \"info,copydesk=debug\"")]
pub struct BadLevel {
    level: String,
    source: ParseError,
}

/// Parses the filter.
///
/// # Errors
/// If it is not a filter.
pub fn filter(settings: &LogSettings) -> Result<EnvFilter, BadLevel> {
    EnvFilter::try_new(&settings.level).map_err(|source| BadLevel {
        level: settings.level.clone(),
        source,
    })
}

/// The name and id of the node of this process; unset in commands other than `serve`.
static NODE: OnceLock<NodeLabel> = OnceLock::new();

#[derive(Debug)]
struct NodeLabel {
    name: String,
    id: String,
}

/// Adds the node to all later lines of this process. A second call is ignored.
pub fn set_node(name: &str, id: impl fmt::Display) {
    let label = NodeLabel {
        name: name.to_owned(),
        id: id.to_string(),
    };
    let _ = NODE.set(label);
}

/// Starts logging to standard error.
///
/// # Errors
/// If the level is not a filter.
pub fn begin(settings: &LogSettings) -> Result<(), BadLevel> {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter(settings)?)
        .with_writer(std::io::stderr);
    let terminal = std::io::stderr().is_terminal();
    let human = match settings.format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let format = Format::default().with_target(false);
    // A program that embeds the library may have set up logging: that is used then.
    let _ = if human {
        let format = NodeLabelled::human(format.with_ansi(terminal), &NODE);
        lines.with_ansi(terminal).event_format(format).try_init()
    } else {
        let lines = lines.fmt_fields(JsonFields::new());
        lines
            .event_format(NodeLabelled::json(format, &NODE))
            .try_init()
    };
    Ok(())
}

/// Formats a line as `F` does, and adds the node's name and id. A span would add them only to the tasks inside it.
struct NodeLabelled<F> {
    format: F,
    label: &'static OnceLock<NodeLabel>,
    /// Adds the label to a line.
    add: fn(&str, &NodeLabel) -> String,
}

impl NodeLabelled<Format<Full>> {
    fn human(format: Format<Full>, label: &'static OnceLock<NodeLabel>) -> Self {
        Self {
            format,
            label,
            add: |line, label| {
                format!(
                    "{} node={} node_id={}\n",
                    line.trim_end(),
                    label.name,
                    label.id
                )
            },
        }
    }
}

impl NodeLabelled<Format<Json>> {
    fn json(format: Format, label: &'static OnceLock<NodeLabel>) -> Self {
        Self {
            format: format.json().with_span_list(false),
            label,
            add: |line, label| {
                let object = line.trim_end();
                let Some(open) = object.strip_suffix('}') else {
                    return line.to_owned();
                };
                let (name, id) = (json!(label.name), json!(label.id));
                format!("{open},\"node\":{name},\"node_id\":{id}}}\n")
            },
        }
    }
}

impl<S, N, F> FormatEvent<S, N> for NodeLabelled<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(label) = self.label.get() else {
            return self.format.format_event(context, writer, event);
        };
        let mut line = String::new();
        // Colours are a setting of the inner format.
        self.format
            .format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(&(self.add)(&line, label))
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;

    /// The logged lines.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    static LABEL: OnceLock<NodeLabel> = OnceLock::new();

    fn label() -> &'static OnceLock<NodeLabel> {
        LABEL.get_or_init(|| NodeLabel {
            name: "node \"7\"".to_owned(),
            id: "00ab".to_owned(),
        });
        &LABEL
    }

    #[test]
    fn json_lines_name_the_node_beside_their_own_fields() {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .fmt_fields(JsonFields::new())
            .event_format(NodeLabelled::json(Format::default(), label()))
            .finish();
        tracing::subscriber::with_default(log, || {
            tracing::warn!(node = "another", "it does not answer");
        });
        let line: Value = serde_json::from_str(&lines.text()).unwrap();
        assert_eq!(line["node"], "node \"7\"");
        assert_eq!(line["node_id"], "00ab");
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["fields"]["node"], "another");
        assert_eq!(line["fields"]["message"], "it does not answer");
    }

    #[test]
    fn json_lines_have_the_fields_of_the_span_that_they_are_written_in() {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt()
            .with_env_filter("warn")
            .with_writer(move || writer.clone())
            .fmt_fields(JsonFields::new())
            .event_format(NodeLabelled::json(Format::default(), label()))
            .finish();
        tracing::subscriber::with_default(log, || {
            let doc = tracing::error_span!("document", doc = "c/d");
            doc.in_scope(|| tracing::warn!(revision = 7, "first"));
            tracing::warn!("second");
        });
        let text = lines.text();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines[0]["span"]["doc"], "c/d");
        assert_eq!(lines[0]["fields"]["revision"], 7);
        assert_eq!(lines[1]["span"], Value::Null);
    }

    #[test]
    fn human_lines_name_the_node_at_their_end() {
        let lines = Lines::default();
        let writer = lines.clone();
        let format = Format::default().with_ansi(false);
        let log = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .event_format(NodeLabelled::human(format, label()))
            .finish();
        tracing::subscriber::with_default(log, || {
            tracing::warn!(revision = 7, "first");
            tracing::warn!("second");
        });
        let text = lines.text();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(
            text.lines()
                .all(|line| line.ends_with("node=node \"7\" node_id=00ab")),
            "{text}"
        );
        assert!(text.contains("first revision=7 node="), "{text}");
    }
}
