//! What the process uses, and its build.

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;

use super::{Gauge, SecondsGauge, metrics, set_gauge};

metrics! {
    /// What the process uses. On systems other than Linux, the values that the system tells are zero.
    pub struct ProcessMetrics {
        /// Processor time that the process has used, user and system, in seconds.
        pub process_cpu_seconds: prometheus_client::metrics::counter::Counter<f64, AtomicU64>;
        /// Resident memory of the process in bytes.
        pub process_resident_memory_bytes: Gauge;
        /// Open file descriptors.
        pub process_open_fds: Gauge;
        /// The limit of open file descriptors.
        pub process_max_fds: Gauge;
        /// Threads of the process.
        pub process_threads: Gauge;
        /// The start of the process, in seconds since 1970.
        pub process_start_time_seconds: SecondsGauge;
        /// Threads of the runtime on which documents run.
        pub runtime_workers: Gauge;
        /// Tasks of that runtime that are alive.
        pub runtime_tasks: Gauge;
        /// Tasks that wait in its global queue for a thread.
        pub runtime_queued_tasks: Gauge;
        /// Time that its threads were busy, in seconds.
        pub runtime_busy_seconds: prometheus_client::metrics::counter::Counter<f64, AtomicU64>;
    }
}

impl ProcessMetrics {
    /// The metrics of this process, which starts now.
    #[must_use]
    pub fn start() -> Self {
        let metrics = Self::default();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = since_1970.unwrap_or_default().as_secs_f64();
        metrics.process_start_time_seconds.set(seconds);
        metrics
    }

    /// Sets all values to the current ones.
    pub fn sample(&self, runtime: &Handle) {
        self.sample_runtime(runtime);
        #[cfg(target_os = "linux")]
        self.sample_process();
    }

    fn sample_runtime(&self, runtime: &Handle) {
        let of_runtime = runtime.metrics();
        let workers = of_runtime.num_workers();
        set_gauge(&self.runtime_workers, workers);
        set_gauge(&self.runtime_tasks, of_runtime.num_alive_tasks());
        set_gauge(&self.runtime_queued_tasks, of_runtime.global_queue_depth());
        let busy = (0..workers).map(|worker| of_runtime.worker_total_busy_duration(worker));
        let busy: std::time::Duration = busy.sum();
        set_seconds(&self.runtime_busy_seconds, busy.as_secs_f64());
    }

    /// Reads `/proc/self`. A value that cannot be read stays as it was.
    #[cfg(target_os = "linux")]
    fn sample_process(&self) {
        let Ok(process) = procfs::process::Process::myself() else {
            return;
        };
        if let Ok(stat) = process.stat() {
            #[expect(clippy::cast_precision_loss)]
            let seconds = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
            set_seconds(&self.process_cpu_seconds, seconds);
            let resident = stat.rss.saturating_mul(procfs::page_size());
            self.process_resident_memory_bytes
                .set(i64::try_from(resident).unwrap_or(i64::MAX));
            self.process_threads.set(stat.num_threads);
        }
        if let Ok(open) = process.fd_count() {
            set_gauge(&self.process_open_fds, open);
        }
        if let Ok((soft, _)) = rlimit::Resource::NOFILE.get() {
            self.process_max_fds
                .set(i64::try_from(soft).unwrap_or(i64::MAX));
        }
    }
}

fn set_seconds(
    counter: &prometheus_client::metrics::counter::Counter<f64, AtomicU64>,
    seconds: f64,
) {
    use std::sync::atomic::Ordering;
    counter.inner().store(seconds.to_bits(), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_uses_memory_and_files() {
        let metrics = ProcessMetrics::start();
        metrics.sample(&Handle::current());
        assert!(metrics.process_resident_memory_bytes.get() > 1 << 20);
        assert!(metrics.process_open_fds.get() > 2);
        assert!(metrics.process_max_fds.get() >= metrics.process_open_fds.get());
        assert!(metrics.process_threads.get() >= 1);
        assert!(metrics.process_start_time_seconds.get() > 1e9);
        assert_eq!(metrics.runtime_workers.get(), 1);
    }
}
