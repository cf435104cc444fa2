//! The end of a run: waits until all clients are settled, and checks.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::select;
use tokio::time::sleep;

use super::{Phase, Run};
use crate::admin_client::AdminClient;
use crate::check::Faults;
use crate::document_under_test::DocumentUnderTest;
use crate::report::{Report, Unit};

impl Run<'_> {
    /// Waits until all clients are settled, and checks.
    pub(crate) async fn finish(mut self, report: &mut Report) -> Result<()> {
        let mut faults = Faults::default();
        let gaps: u64 = self.clients().map(|client| client.borrow().gaps()).sum();
        if gaps > 0 {
            let name = "gaps that clients healed";
            report.figure("gaps_healed", name, gaps as f64, Unit::Count);
        }
        if !self.drain().await {
            faults.add("not all clients came to rest at one revision in time".to_owned());
            self.documents
                .iter()
                .for_each(|document| document.report_unsettled(&mut faults));
        }
        self.close().await;
        self.bar.set_message("checking");
        self.bar.tick();
        if self.options.unchecked {
            self.documents
                .iter()
                .for_each(|document| document.check_readers(&mut faults));
        } else {
            let entries = self.check_documents(&mut faults).await?;
            let name = "entries in the logs";
            report.figure("log_entries", name, entries as f64, Unit::Count);
        }
        self.bar.finish_and_clear();
        for stats in &self.stats {
            faults.extend(std::mem::take(&mut stats.borrow_mut().failures));
        }
        report.checked = self.checked();
        report.series = self.timeline.series;
        report.faulty(faults);
        Ok(())
    }

    /// Ends a run whose clients the server has disconnected: nothing is checked.
    pub(crate) async fn abandon(mut self, report: &mut Report, reason: String) {
        self.close().await;
        self.bar.finish_and_clear();
        report.is_checked = false;
        report.checked = reason;
        report.series = self.timeline.series;
    }

    async fn close(&mut self) {
        self.phase.send_replace(Phase::Over);
        while self.tasks.join_next().await.is_some() {}
    }

    /// Reads all documents and their logs back and compares. Returns the number of entries.
    async fn check_documents(&self, faults: &mut Faults) -> Result<u64> {
        let mut entries = 0;
        let mut admin = AdminClient::new(&self.target)
            .await
            .context("come back to check")?;
        for (index, document) in self.documents.iter().enumerate() {
            let maker = (self.admin.clone(), index as u64 + 1);
            entries += document.check(maker, &mut admin, faults).await?;
        }
        Ok(entries)
    }

    fn checked(&self) -> String {
        let (clients, docs) = (self.clients().count(), self.documents.len());
        if self.options.unchecked {
            format!("{clients} clients of {docs} documents among themselves; nothing was read back")
        } else {
            format!(
                "{clients} clients of {docs} documents, with what was fetched afresh and with the whole log"
            )
        }
    }

    /// Waits until every client is settled. Returns false if that takes too long.
    pub(super) async fn quiet(&self) -> bool {
        let deadline = Instant::now() + self.options.patience();
        let interrupt = tokio::signal::ctrl_c();
        tokio::pin!(interrupt);
        let mut still = 0;
        while still < 3 {
            select! {
                biased;
                _ = &mut interrupt => return false,
                () = sleep(Duration::from_millis(50)) => {}
            }
            self.bar.set_message("waiting until all is quiet");
            self.bar.tick();
            still = if self.documents.iter().all(DocumentUnderTest::is_quiet) {
                still + 1
            } else {
                0
            };
            if Instant::now() > deadline || self.failed() > 0 {
                return false;
            }
        }
        true
    }
}
