//! Keeps long work from delaying the other tasks of a thread.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// Work on at most this many bytes is done in place. More goes to another thread, or lets the other tasks go to one.
pub(super) const IN_PLACE_BYTES: usize = 32 << 10;

/// Works on this thread, while another thread takes over its other tasks.
pub(super) fn work_in_place<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => block_in_place(work),
        _ => work(),
    }
}

/// Works on a thread for blocking work if there are many bytes to work on. A panic of the work is a panic of the caller.
pub(super) async fn work_off_thread<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if bytes <= IN_PLACE_BYTES {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn work_in_place_lets_other_tasks_run() {
        let (done, waits) = std::sync::mpsc::channel();
        let worker = tokio::spawn(async {
            tokio::spawn(async move { done.send(()) });
            work_in_place(move || waits.recv_timeout(Duration::from_secs(20)))
        });
        assert!(worker.await.unwrap().is_ok());
    }
}
