//! Skipping tests that cannot run on this machine.
//!
//! The test harness has no result for a skipped test; it counts as passed. So each skip is written to the file
//! `COPYDESK_SKIP_LOG`, and `make test` counts these lines as skipped.

use std::fs::File;
use std::io::Write;

/// Skips a test because `program` is not installed. Panics, so that the test fails, unless `COPYDESK_MAY_SKIP=1` is
/// set.
pub fn missing(program: &str) {
    assert!(
        std::env::var("COPYDESK_MAY_SKIP").is_ok_and(|it| it == "1"),
        "{program} is not installed: install it (`make test` does on Debian), or set COPYDESK_MAY_SKIP=1 to skip this test"
    );
    skipped(&format!("{program} is not installed"));
}

/// Skips a test because this machine does not permit what it needs.
pub fn skipped(reason: &str) {
    let line = format!("SKIPPED: {}: {reason}\n", test_name());
    // Not by `eprintln`: the test harness drops its output if the test passes.
    std::io::stderr()
        .write_all(line.as_bytes())
        .expect("write to stderr");
    if let Some(path) = std::env::var_os("COPYDESK_SKIP_LOG") {
        let mut log = File::options()
            .create(true)
            .append(true)
            .open(path)
            .expect("open the file that COPYDESK_SKIP_LOG names");
        // In one write, because several tests append at the same time.
        log.write_all(line.as_bytes()).expect("write the skip log");
    }
}

/// The name of the running test: a runner with a process for each test passes it as an argument; otherwise it is the
/// name of the thread.
fn test_name() -> String {
    let mut arguments = std::env::args().skip(1);
    let named = arguments.find(|it| !it.starts_with('-'));
    let only = std::env::args().any(|it| it == "--exact");
    let thread = std::thread::current().name().map(str::to_owned);
    named.filter(|_| only).or(thread).unwrap_or_default()
}
