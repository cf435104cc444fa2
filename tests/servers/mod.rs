//! Real servers for tests: started here, on a free port of this machine, and ended when nobody uses them any more.
//!
//! Where a server's programs are missing, its tests say so and are skipped; with `CI=true` or
//! `COPYDESK_REQUIRE_SERVERS=1` they fail.

// Each suite uses some of it.
#![allow(dead_code, unreachable_pub)]

pub mod postgres;
pub mod stopped;

use std::net::TcpListener;
use std::process::Command;

/// Says that tests cannot run without `program`, or fails where they have to.
pub fn missing(program: &str) {
    let required = std::env::var("CI").is_ok_and(|it| it == "true")
        || std::env::var("COPYDESK_REQUIRE_SERVERS").is_ok_and(|it| it == "1");
    assert!(!required, "{program} is not installed, and is required");
    eprintln!("SKIPPED: {program} is not installed; `make test` installs it on Debian");
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A command that runs as `user` where we are root: some servers refuse root.
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
