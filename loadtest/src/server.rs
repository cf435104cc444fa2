//! What the server under test costs, as the kernel tells it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// A process's processor time and memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Used so far, by all its threads.
    pub(crate) cpu: Duration,
    /// Resident now.
    pub(crate) rss_bytes: u64,
}

/// The kernel's unit of processor time: `USER_HZ` has been 100 on every Linux there is.
const TICKS_PER_SECOND: u64 = 100;

impl Cost {
    /// Reads `/proc/PID`.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let stat = read(pid, "stat")?;
        // The second field is the program's name, which may hold anything; the numbers stand behind its last bracket.
        let numbers = stat.rsplit_once(')').map_or("", |(_, numbers)| numbers);
        let ticks =
            |index: usize| -> Option<u64> { numbers.split_whitespace().nth(index)?.parse().ok() };
        let (user, system) = ticks(11).zip(ticks(12)).context("read /proc/PID/stat")?;
        let status = read(pid, "status")?;
        let rss = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap_or("0 kB");
        let kib: u64 = rss
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .context("read VmRSS")?;
        Ok(Self {
            cpu: Duration::from_millis((user + system) * 1_000 / TICKS_PER_SECOND),
            rss_bytes: kib << 10,
        })
    }
}

fn read(pid: u32, file: &str) -> Result<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}"))
        .with_context(|| format!("look at process {pid}: is it there, and this Linux?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cost_is_read() {
        assert!(Cost::of(std::process::id()).unwrap().rss_bytes > 1 << 20);
        assert!(Cost::of(u32::MAX).is_err());
    }
}
