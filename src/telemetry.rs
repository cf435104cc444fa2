//! What the server says of itself: lines for people on a terminal, JSON for machines elsewhere.

use std::io::IsTerminal;

use serde::Deserialize;
use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// How the server logs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// What is logged: a level, or levels by module, as `tracing` filters are written.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// As `Human` on a terminal, as `Json` elsewhere.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            level: "info,actix_server=warn,actix_http=off,fred=error".to_owned(),
            format: LogFormat::Auto,
        }
    }
}

/// The level is not one.
#[derive(Debug, Error)]
#[error("log.level {level:?} is no filter ({source}): try \"info\", or \"info,copydesk=debug\"")]
pub struct BadLevel {
    level: String,
    source: ParseError,
}

/// Reads the level.
///
/// # Errors
/// When it is no filter.
pub fn filter(settings: &LogSettings) -> Result<EnvFilter, BadLevel> {
    EnvFilter::try_new(&settings.level).map_err(|source| BadLevel {
        level: settings.level.clone(),
        source,
    })
}

/// Begins to log, to standard error.
///
/// # Errors
/// When the level is no filter.
pub fn begin(settings: &LogSettings) -> Result<(), BadLevel> {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter(settings)?)
        .with_writer(std::io::stderr)
        .with_target(false);
    let terminal = std::io::stderr().is_terminal();
    let human = match settings.format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    // Somebody who embeds the library may log already: then theirs is the log.
    let _ = if human {
        lines.with_ansi(terminal).try_init()
    } else {
        lines.json().try_init()
    };
    Ok(())
}
