//! Environment variables with which cluster tests change a node of a debug build.

use super::NodeSettings;
use crate::version::WireRange;

/// The wire versions that the node states and understands, as `oldest-newest`.
const WIRE: &str = "COPYDESK_TEST_WIRE";

/// An edit whose JSON contains this text makes the sequencer panic.
const PANIC_MARK: &str = "COPYDESK_TEST_PANIC_MARK";

/// Added to this computer's clock, in milliseconds.
const CLOCK_OFFSET_MS: &str = "COPYDESK_TEST_CLOCK_OFFSET_MS";

impl NodeSettings {
    /// Applies the variables that tests set. Invalid values are ignored.
    pub fn read_test_environment(&mut self) {
        if let Some(wire) = std::env::var(WIRE).ok().and_then(|text| parse_wire(&text)) {
            self.version.wire = wire;
        }
        let panic_mark = std::env::var(PANIC_MARK).ok();
        self.document.panic_mark = panic_mark.filter(|it| !it.is_empty()).map(Into::into);
        let offset_ms = std::env::var(CLOCK_OFFSET_MS).ok();
        if let Some(offset_ms) = offset_ms.and_then(|text| text.parse().ok()) {
            self.clock_offset_ms = offset_ms;
        }
    }
}

fn parse_wire(text: &str) -> Option<WireRange> {
    let (oldest, newest) = text.split_once('-')?;
    Some(WireRange {
        oldest: oldest.parse().ok()?,
        newest: newest.parse().ok()?,
    })
}
