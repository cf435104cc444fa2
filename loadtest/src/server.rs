//! What the server under test costs, as the kernel reports it.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};

/// A process's processor time, memory and open files.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Used so far, by all its threads.
    pub(crate) cpu: Duration,
    /// Resident now.
    pub(crate) rss_bytes: u64,
    /// Open file descriptors.
    pub(crate) files: u64,
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
            files: open_files(pid),
        })
    }

    /// Reads several processes.
    pub(crate) fn of_all(pids: &[u32]) -> Result<Vec<Self>> {
        pids.iter().map(|pid| Self::of(*pid)).collect()
    }

    /// The sum over several processes.
    pub(crate) fn sum(costs: &[Self]) -> Self {
        costs.iter().fold(Self::default(), |sum, cost| Self {
            cpu: sum.cpu + cost.cpu,
            rss_bytes: sum.rss_bytes + cost.rss_bytes,
            files: sum.files + cost.files,
        })
    }
}

/// Number of open files; 0 if it cannot be read, as for a process of another user.
fn open_files(pid: u32) -> u64 {
    let folder = format!("/proc/{pid}/fd");
    // Since Linux 6.2 the size of the folder is the number of its entries.
    match fs::metadata(&folder) {
        Ok(metadata) if metadata.len() > 0 => metadata.len(),
        _ => fs::read_dir(&folder).map_or(0, |entries| entries.count() as u64),
    }
}

fn read(pid: u32, file: &str) -> Result<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}"))
        .with_context(|| format!("look at process {pid}: is it there, and this Linux?"))
}

/// The process of this machine that listens on a loopback address; `None` if it is not found or may not be looked at.
pub(crate) fn listener_of(address: SocketAddr) -> Option<u32> {
    if !address.ip().is_loopback() {
        return None;
    }
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .find_map(|table| listening_inode(&table, address.port()))?;
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?;
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(|pid: &u32| holds(*pid, &wanted))
}

/// The inode of the socket that listens on a port, from the table of `/proc/net/tcp`.
fn listening_inode(table: &str, port: u16) -> Option<u64> {
    const LISTENS: &str = "0A";
    let end = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let listens = fields.get(1)?.ends_with(&end) && *fields.get(3)? == LISTENS;
        listens.then(|| fields.get(9)?.parse().ok()).flatten()
    })
}

/// Returns true if a file descriptor of the process refers to the socket.
fn holds(pid: u32, socket: &str) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    entries
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .any(|link| link.as_os_str() == socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn own_cost_is_read() {
        let cost = Cost::of(std::process::id()).unwrap();
        assert!(cost.rss_bytes > 1 << 20 && cost.files > 2, "{cost:?}");
        assert!(Cost::of(u32::MAX).is_err());
    }

    #[test]
    fn listener_of_a_port_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(listener_of(address), Some(std::process::id()));
        drop(listener);
        assert_eq!(listener_of(address), None);
    }

    #[test]
    fn only_listening_sockets_of_the_port_are_taken() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 11 1\n\
            1: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1\n\
            2: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 13 1\n";
        assert_eq!(listening_inode(table, 8080), Some(13));
        assert_eq!(listening_inode(table, 8082), None);
        assert_eq!(listening_inode("", 8080), None);
    }
}
