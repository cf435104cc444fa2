//! Long work on documents, divided into slices so that other documents have their turn.

use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;

/// The right to work long on one document. When it is dropped it is not free at once, but after as long as it was used: a
/// quarter of the processors, at most half of the time, does long work.
#[derive(Debug)]
pub(in crate::node) struct Slice {
    begun: Instant,
    permit: Option<OwnedSemaphorePermit>,
}

/// The longest that a slice is kept after its use.
const REST_MAX: Duration = Duration::from_secs(1);

/// How many slices are worked on at once.
pub(in crate::node) fn slices_at_once() -> usize {
    available_parallelism().map_or(1, |processors| processors.get().div_ceil(4))
}

impl Slice {
    /// A slice that begins now.
    pub(in crate::node) fn begin(permit: OwnedSemaphorePermit) -> Self {
        Self {
            begun: Instant::now(),
            permit: Some(permit),
        }
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        let rest = self.begun.elapsed().min(REST_MAX);
        let permit = self.permit.take();
        // Without a runtime the node is ending, and nobody waits for the permit.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                sleep(rest).await;
                drop(permit);
            });
        }
    }
}
