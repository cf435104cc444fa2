//! What the process needs from around it: open files, a line on the terminal, an ear for Ctrl-C.

use std::cell::Cell;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};

/// How many descriptors are needed beside the clients' sockets.
const FILES_BESIDE: u64 = 64;

/// Raises the limit of open files.
pub(crate) fn allow_files(clients: u64) -> Result<()> {
    let needed = clients + FILES_BESIDE;
    let allowed = rlimit::increase_nofile_limit(needed.max(1 << 16))
        .context("raise the limit of open files")?;
    ensure!(
        allowed >= needed,
        "{clients} clients need {needed} open files and {allowed} are allowed: raise the hard limit (ulimit -Hn)"
    );
    Ok(())
}

/// Turns true at the first Ctrl-C, for scenarios that look between two steps.
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
