//! Process-wide settings: the limit of open files, the progress line, and Ctrl-C.

use std::cell::Cell;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};

/// File descriptors needed besides those of the clients' sockets.
const FILES_BESIDE: u64 = 64;

/// Raises the limit of open files.
pub(crate) fn raise_file_limit(clients: u64) -> Result<()> {
    let needed = clients + FILES_BESIDE;
    let allowed = rlimit::increase_nofile_limit(needed.max(1 << 16))
        .context("raise the limit of open files")?;
    ensure!(
        allowed >= needed,
        "{clients} clients need {needed} open files and {allowed} are allowed: raise the hard limit (ulimit -Hn)"
    );
    Ok(())
}

/// A flag that is set by the first Ctrl-C, for scenarios that poll it between two steps.
pub(crate) fn interrupted() -> Rc<Cell<bool>> {
    let flag = Rc::new(Cell::new(false));
    let told = Rc::clone(&flag);
    tokio::task::spawn_local(async move { told.set(tokio::signal::ctrl_c().await.is_ok()) });
    flag
}

/// A progress line on a terminal; nothing elsewhere.
pub(crate) fn bar() -> ProgressBar {
    let style =
        ProgressStyle::with_template("{spinner} {elapsed} {msg}").expect("the template is sound");
    ProgressBar::new_spinner().with_style(style)
}
