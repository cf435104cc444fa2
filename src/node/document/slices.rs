//! Long work on documents, divided into slices so that other documents have their turn.

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

/// The slices of long work on a node: as many at once as a quarter of the processors, first come, first served.
#[derive(Debug)]
pub(in crate::node) struct SlicePool(Arc<Semaphore>);

/// The permit to work long on one document. After it is dropped it stays taken for as long as it was used: long work takes
/// a quarter of the processors for at most half of the time.
#[derive(Debug)]
pub(super) struct SlicePermit {
    begun: Instant,
    permit: Option<OwnedSemaphorePermit>,
}

/// The longest time that a permit stays taken after its use.
const REST_MAX: Duration = Duration::from_secs(1);

impl SlicePool {
    pub(in crate::node) fn new() -> Self {
        let processors = available_parallelism().map_or(1, std::num::NonZero::get);
        Self(Arc::new(Semaphore::new(processors.div_ceil(4))))
    }

    /// Waits for a slice, which begins when it is returned.
    pub(super) async fn begin(&self) -> Option<SlicePermit> {
        let permit = self.0.clone().acquire_owned().await.ok()?;
        Some(SlicePermit {
            begun: Instant::now(),
            permit: Some(permit),
        })
    }
}

impl Drop for SlicePermit {
    fn drop(&mut self) {
        let rest = self.begun.elapsed().min(REST_MAX);
        let permit = self.permit.take();
        // Without a runtime the node is ending, and no document waits for the permit.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                sleep(rest).await;
                drop(permit);
            });
        }
    }
}
