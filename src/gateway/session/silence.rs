//! How long a socket may be silent.

use std::time::Duration;

use super::Session;

/// How long a socket may be silent before it is pinged and before it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SilenceLimits {
    /// Before it is pinged.
    pub(super) ping: Duration,
    /// Before it is closed.
    pub(super) idle: Duration,
    /// How long the client may take to answer the close frame. Ends together with the configured idle timeout.
    pub(super) close_timeout: Duration,
}

/// The ping interval of sockets with presences: other users see the cursor of a lost connection until it is closed.
const PRESENCE_PING: Duration = Duration::from_secs(3);

/// The idle timeout of sockets with presences.
const PRESENCE_IDLE: Duration = Duration::from_secs(8);

impl SilenceLimits {
    /// Splits the idle timeout: most of it before the close, at most `close_timeout` after it, and a margin for delays of
    /// the server.
    fn new(ping: Duration, idle_timeout: Duration, close_timeout: Duration) -> Self {
        let part_max = idle_timeout.saturating_sub(ping) / 4;
        let close_timeout = close_timeout.min(idle_timeout / 20).min(part_max);
        let margin = (idle_timeout / 50).min(part_max);
        Self {
            ping,
            idle: idle_timeout.saturating_sub(close_timeout + margin),
            close_timeout,
        }
    }
}

impl Session {
    /// The limits that apply now.
    pub(super) fn silence_limits(&self) -> SilenceLimits {
        let settings = self.gateway.settings();
        let (ping, idle) = (settings.ping_interval(), settings.idle_timeout());
        let close_timeout = settings.close_patience();
        if self.presences.is_empty() {
            return SilenceLimits::new(ping, idle, close_timeout);
        }
        SilenceLimits::new(
            ping.min(PRESENCE_PING),
            idle.min(PRESENCE_IDLE),
            close_timeout,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_socket_is_freed_within_the_idle_timeout() {
        let ms = Duration::from_millis;
        for (ping, idle, close_timeout, expected) in [
            (20_000, 45_000, 2_000, (42_100, 2_000)),
            (3_000, 8_000, 2_000, (7_440, 400)),
            (20_000, 20_040, 2_000, (20_020, 10)),
            (20_000, 45_000, 10, (44_090, 10)),
        ] {
            let limits = SilenceLimits::new(ms(ping), ms(idle), ms(close_timeout));
            let closed = (limits.idle.as_millis(), limits.close_timeout.as_millis());
            assert_eq!(closed, expected, "{ping} {idle} {close_timeout}");
            assert!(limits.idle > ms(ping), "it is pinged before");
        }
    }
}
