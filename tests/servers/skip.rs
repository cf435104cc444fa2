//! Tests that cannot run on this machine.
//!
//! The test harness has no result for a test that did not run: it counts as passed. So each skip is written to the file
//! that `COPYDESK_SKIP_LOG` names, and `make test` counts these lines as skipped instead of passed.

use std::fs::File;
use std::io::Write;

/// Called by a test that returns early because `program` is not installed. Panics, and so fails the test, unless
/// `COPYDESK_MAY_SKIP=1` allows such a skip.
pub fn missing(program: &str) {
    assert!(
        std::env::var("COPYDESK_MAY_SKIP").is_ok_and(|it| it == "1"),
        "{program} is not installed: install it (`make test` does on Debian), or set COPYDESK_MAY_SKIP=1 to skip this test"
    );
    skipped(&format!("{program} is not installed"));
}

/// Called by a test that returns early because the machine does not allow what it needs.
pub fn skipped(reason: &str) {
    let line = format!("SKIPPED: {}: {reason}\n", test_name());
    // Not by `eprintln`, whose output the test harness drops when the test passes.
    std::io::stderr()
        .write_all(line.as_bytes())
        .expect("write to stderr");
    if let Some(path) = std::env::var_os("COPYDESK_SKIP_LOG") {
        let mut log = File::options()
            .create(true)
            .append(true)
            .open(path)
            .expect("open the file that COPYDESK_SKIP_LOG names");
        // One write: several tests append at once.
        log.write_all(line.as_bytes()).expect("write the skip log");
    }
}

/// The name of the running test. A runner that starts a process for each test names it in the arguments; otherwise the
/// test's thread has its name.
fn test_name() -> String {
    let mut arguments = std::env::args().skip(1);
    let named = arguments.find(|it| !it.starts_with('-'));
    let only = std::env::args().any(|it| it == "--exact");
    let thread = std::thread::current().name().map(str::to_owned);
    named.filter(|_| only).or(thread).unwrap_or_default()
}
