//! Redis addresses, validated when parsed and printed without credentials.

use std::fmt;
use std::str::FromStr;

use fred::types::config::{Config, Server};
use serde::Deserialize;
use thiserror::Error;

/// The address of a Redis or Valkey server, Sentinel or cluster. `Display` and `Debug` omit the credentials.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct RedisUrl {
    /// The address for the client library, without TLS, which is configured separately.
    plain: String,
    scheme: String,
    tls: bool,
}

/// Why an address is invalid. Never contains the address, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadRedisUrl {
    /// Unknown scheme.
    #[error(
        "a Redis address begins with redis:// (or rediss:// for TLS, redis-sentinel://, rediss-sentinel://, \
         redis-cluster://, rediss-cluster://; valkey works like redis)"
    )]
    Scheme,
    /// Malformed after the scheme.
    #[error(
        "the Redis address is malformed: {0} (redis://user:password@host:port/database; in a password, characters like \
         @ : / ? # are written as %40 %3A %2F %3F %23)"
    )]
    Unsound(String),
}

impl RedisUrl {
    /// The client library's configuration for this address.
    pub(super) fn config(&self) -> Config {
        Config::from_url(&self.plain).expect("validated when parsed")
    }

    /// The named servers with their ports.
    pub(in crate::cluster) fn hosts(&self) -> Vec<(String, u16)> {
        let hosts = self.config().server.hosts();
        let host = |server: &Server| (server.host.to_string(), server.port);
        hosts.iter().map(host).collect()
    }

    /// Returns true if the address asks for TLS.
    pub(super) fn tls(&self) -> bool {
        self.tls
    }
}

impl FromStr for RedisUrl {
    type Err = BadRedisUrl;

    fn from_str(text: &str) -> Result<Self, BadRedisUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(BadRedisUrl::Scheme)?;
        let (name, kind) = match scheme.split_once('-') {
            Some((name, kind @ ("sentinel" | "cluster"))) => (name, Some(kind)),
            Some(_) => return Err(BadRedisUrl::Scheme),
            None => (scheme, None),
        };
        let tls = match name {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(BadRedisUrl::Scheme),
        };
        let plain = match kind {
            Some(kind) => format!("redis-{kind}://{rest}"),
            None => format!("redis://{rest}"),
        };
        Config::from_url(&plain).map_err(|error| {
            // The part after a colon in the library's message may quote the address.
            let words = error.details().split(':').next().unwrap_or_default();
            BadRedisUrl::Unsound(words.to_lowercase().trim_end_matches('.').to_owned())
        })?;
        Ok(Self {
            plain,
            scheme: scheme.to_owned(),
            tls,
        })
    }
}

impl TryFrom<String> for RedisUrl {
    type Error = BadRedisUrl;

    fn try_from(text: String) -> Result<Self, BadRedisUrl> {
        text.parse()
    }
}

impl Default for RedisUrl {
    fn default() -> Self {
        "redis://127.0.0.1:6379".parse().expect("a valid address")
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> = self
            .config()
            .server
            .hosts()
            .iter()
            .map(ToString::to_string)
            .collect();
        write!(f, "{}://{}", self.scheme, hosts.join(","))
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_printed_without_credentials() {
        for (text, shown, tls) in [
            ("redis://127.0.0.1", "redis://127.0.0.1:6379", false),
            (
                "redis://ann:s3cret@cache:7000/2",
                "redis://cache:7000",
                false,
            ),
            ("rediss://:s3%40cret@cache", "rediss://cache:6379", true),
            ("valkeys://cache:1", "valkeys://cache:1", true),
            (
                "redis-sentinel://:s3cret@one:26379?sentinelServiceName=main&sentinelPassword=s3cret&node=two:26380",
                "redis-sentinel://two:26380,one:26379",
                false,
            ),
            (
                "rediss-cluster://one:7000?node=two:7001",
                "rediss-cluster://two:7001,one:7000",
                true,
            ),
        ] {
            let url: RedisUrl = text.parse().unwrap();
            assert_eq!((url.to_string(), url.tls()), (shown.to_owned(), tls));
            assert_eq!(format!("{url:?}"), shown);
        }
    }

    #[test]
    fn malformed_address_is_refused_without_printing_it() {
        for text in [
            "",
            "127.0.0.1:6379",
            "http://s3cret",
            "redis-what://s3cret",
            "redis+unix:///s3cret",
            "redis://",
            "redis://:s3cret@",
            "redis://:s3cret#tail@cache",
            "redis://:s3/cret@cache",
            "redis://cache:s3cret",
            "redis://cache:99999",
            "redis://cache/s3cret",
            "redis-sentinel://:s3cret@one:26379",
            "redis-cluster://one:1?node=s3cret",
        ] {
            let error = text.parse::<RedisUrl>().unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{text}: {error}");
        }
    }
}
