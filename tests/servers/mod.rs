//! Real servers for tests: each is started on a free port of this machine and ended after its last test.
//!
//! Tests of a server that is not installed fail. With `COPYDESK_MAY_SKIP=1` they are skipped, see [`skip`].

// Not each suite uses all of it.
#![allow(dead_code, unreachable_pub)]

pub mod postgres;
pub mod skip;
pub mod stopped;

use std::net::TcpListener;
use std::process::Command;

/// A port that is free at the time of the call.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A command that runs as `user` if this process runs as root: some servers refuse to run as root.
pub fn command_as(user: &str, program: &std::path::Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={user}"))
        .arg(format!("--regid={user}"))
        .arg("--init-groups")
        .arg("--")
        .arg(program);
    command
}

pub fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.starts_with("Uid:\t0\t"))
}
