//! Connection strings of Postgres, with options of libpq that tokio-postgres does not support.

use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;

use super::error::in_words;
use crate::store::StoreError;

/// A parsed connection string.
#[derive(Debug, Clone)]
pub(super) struct Address {
    /// The part that tokio-postgres supports. `verify-ca` and `verify-full` are `require` in it.
    pub(super) config: Config,
    /// What is verified of the server's certificate.
    pub(super) verification: Verification,
    /// Where the certificates of the authorities are, if the string says so.
    pub(super) roots: Option<Roots>,
}

/// What is verified of a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verification {
    /// According to `sslmode`: everything with `require`, nothing with `prefer` unless authorities are named.
    ByMode,
    /// The signature of an authority: `sslmode=verify-ca`.
    Authority,
    /// The signature of an authority and the server's name: `sslmode=verify-full`.
    Full,
}

/// Where the certificates of the authorities are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Roots {
    /// `sslrootcert=system`.
    System,
    /// A file in PEM.
    File(PathBuf),
}

impl Roots {
    /// The path of the file; empty for the system's certificates.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::System => Path::new(""),
            Self::File(path) => path,
        }
    }
}

impl Address {
    /// Parses `postgres://user:password@host:port,host:port/database?option=value&…`. The options may include those of
    /// libpq that select a server and verify its certificate.
    ///
    /// # Errors
    /// If an option or its value is not supported; the error names it.
    pub(super) fn parse(url: &str) -> Result<Self, StoreError> {
        let mut verification = Verification::ByMode;
        let mut roots = None;
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut kept = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (name, value) {
                ("sslmode", "verify-ca") => verification = Verification::Authority,
                ("sslmode", "verify-full") => verification = Verification::Full,
                ("sslmode", "disable" | "prefer" | "require") => kept.push(pair.to_owned()),
                ("sslmode", _) => {
                    let known = "disable, prefer, require, verify-ca or verify-full";
                    return Err(unknown_value(name, value, known));
                }
                ("sslrootcert", _) => roots = Some(parse_roots(value)?),
                ("target_session_attrs", _) => kept.push(format!("{name}={}", attributes(value)?)),
                _ => kept.push(pair.to_owned()),
            }
        }
        if verification != Verification::ByMode {
            kept.push("sslmode=require".to_owned());
        }
        let config = format!("{base}?{}", kept.join("&")).parse();
        Ok(Self {
            config: config.map_err(|error| unreadable(in_words(&error)))?,
            verification,
            roots,
        })
    }
}

fn parse_roots(value: &str) -> Result<Roots, StoreError> {
    let path = percent_decode_str(value).decode_utf8();
    let path = path.map_err(|error| unreadable(format!("sslrootcert: {error}")))?;
    match &*path {
        "" => Err(unknown_value("sslrootcert", "", "a file, or system")),
        "system" => Ok(Roots::System),
        path => Ok(Roots::File(path.into())),
    }
}

/// The value for tokio-postgres, which distinguishes servers by whether they accept writes: a primary does, a standby
/// does not.
fn attributes(value: &str) -> Result<&'static str, StoreError> {
    match value {
        "any" | "prefer-standby" => Ok("any"),
        "read-write" | "primary" => Ok("read-write"),
        "read-only" | "standby" => Ok("read-only"),
        _ => {
            let known = "any, read-write, read-only, primary, standby or prefer-standby";
            Err(unknown_value("target_session_attrs", value, known))
        }
    }
}

fn unknown_value(name: &str, value: &str, known: &str) -> StoreError {
    unreadable(format!("{name} is `{value}`, but must be {known}"))
}

fn unreadable(reason: String) -> StoreError {
    StoreError::new("read the Postgres url", reason)
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::{SslMode, TargetSessionAttrs};

    use super::*;

    fn parse(query: &str) -> Result<Address, String> {
        let url = format!("postgres://ann:se%3Fcret@a,b:2/desk{query}");
        Address::parse(&url).map_err(|error| error.to_string())
    }

    #[test]
    fn certificates_are_verified_according_to_the_options() {
        for (query, mode, verification, roots) in [
            ("", SslMode::Prefer, Verification::ByMode, None),
            ("?", SslMode::Prefer, Verification::ByMode, None),
            (
                "?sslmode=disable",
                SslMode::Disable,
                Verification::ByMode,
                None,
            ),
            (
                "?sslmode=require",
                SslMode::Require,
                Verification::ByMode,
                None,
            ),
            (
                "?sslmode=verify-full",
                SslMode::Require,
                Verification::Full,
                None,
            ),
            (
                "?sslmode=verify-ca&sslrootcert=system",
                SslMode::Require,
                Verification::Authority,
                Some(Roots::System),
            ),
            (
                "?sslrootcert=%2Fetc%2Fssl/ca.pem&sslmode=verify-full&application_name=x",
                SslMode::Require,
                Verification::Full,
                Some(Roots::File("/etc/ssl/ca.pem".into())),
            ),
        ] {
            let address = parse(query).unwrap();
            assert_eq!(address.config.get_ssl_mode(), mode, "{query}");
            assert_eq!(address.verification, verification, "{query}");
            assert_eq!(address.roots, roots, "{query}");
            assert_eq!(address.config.get_password(), Some(&b"se?cret"[..]));
            assert_eq!(address.config.get_hosts().len(), 2);
        }
    }

    #[test]
    fn servers_are_chosen_by_the_words_of_libpq() {
        for (word, attributes) in [
            ("any", TargetSessionAttrs::Any),
            ("primary", TargetSessionAttrs::ReadWrite),
            ("read-write", TargetSessionAttrs::ReadWrite),
            ("standby", TargetSessionAttrs::ReadOnly),
            ("prefer-standby", TargetSessionAttrs::Any),
        ] {
            let address = parse(&format!("?target_session_attrs={word}")).unwrap();
            assert_eq!(address.config.get_target_session_attrs(), attributes);
        }
    }

    #[test]
    fn errors_name_the_unknown_option() {
        for (query, words) in [
            (
                "?sslmode=verify_full",
                &["sslmode", "verify_full", "verify-full"][..],
            ),
            (
                "?target_session_attrs=master",
                &["target_session_attrs", "master", "primary"],
            ),
            ("?sslrootcert=", &["sslrootcert", "system"]),
            ("?sslcert=x", &["sslcert"]),
            ("?connect_timeout=soon", &["connect_timeout"]),
        ] {
            let error = parse(query).unwrap_err();
            for word in words {
                assert!(error.contains(word), "{query}: {error}");
            }
            assert!(!error.contains("cret"), "{error}");
        }
    }
}
