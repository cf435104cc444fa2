//! Bounds of the dead letters.

use std::time::Duration;

use crate::setting::settings;
use crate::store::DeadLetterBounds;

settings! {
    /// Bounds of the dead letters, which are edits that were not committed because of a fault. Sizes are bytes.
    pub struct DeadLetterSettings {
        /// The most dead letters in the store; 0: none are kept. One principal and one document have at most a tenth.
        pub count_max: usize = 10_000, in 0..=100_000;
        /// Bytes of all dead letters. One principal and one document have at most a tenth.
        pub bytes_max: u64 = 64 << 20, in 1 << 16..=1 << 40;
        /// How many days dead letters are kept.
        pub kept_days: u64 = 30, in 1..=3_650;
        /// Bytes of one payload; the rest is cut off. Up to 64 payloads wait in memory to be written.
        pub payload_bytes_max: usize = 64 << 10, in 0..=1 << 20;
    }
}

impl DeadLetterSettings {
    pub(super) fn bounds(&self) -> DeadLetterBounds {
        let kept = Duration::from_hours(24 * self.kept_days);
        DeadLetterBounds {
            count_max: self.count_max,
            bytes_max: self.bytes_max,
            age_max_ms: u64::try_from(kept.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
