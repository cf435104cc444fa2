//! Measures how long a commit takes to its reader's socket.

use std::time::Instant;

use crate::metrics::Seconds;

/// A measurement on one outbox: from the arrival of a commit until the frames that were queued for it are written.
#[derive(Debug)]
pub(in crate::node) struct DeliveryProbe {
    since: Instant,
    seconds: Seconds,
    /// Whether the frames have been taken to be written.
    is_taken: bool,
}

impl DeliveryProbe {
    /// Starts a measurement now.
    pub(in crate::node) fn start(seconds: Seconds) -> Self {
        Self {
            since: Instant::now(),
            seconds,
            is_taken: false,
        }
    }

    /// The frames have been taken.
    pub(super) fn taken(&mut self) {
        self.is_taken = true;
    }

    /// What was taken has been written. Returns false if the frames have not been taken: the measurement goes on.
    pub(super) fn written(&self) -> bool {
        if self.is_taken {
            self.seconds.observe(self.since.elapsed());
        }
        self.is_taken
    }
}
