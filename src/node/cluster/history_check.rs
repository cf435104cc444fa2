//! Notices that the store went back in time, and changes to a new history.
//!
//! After a backup is restored or a failover lost commits, the log ends before what this node has, or has other entries. Each
//! heartbeat names the store's history and the place that answered. If the place changed, or a claim found fewer revisions
//! than this node has, the node compares the log with the newest commits that it has. If one is missing, it renews the history
//! in the store, and every node learns of that with its next heartbeat. With the history, a node drops all documents and
//! sockets: what they hold may not be in the log.

use super::log_history::NewestCommit;
use crate::id::DocId;
use crate::log::Revision;
use crate::node::Node;
use crate::store::{HeartbeatReply, StoreError};

/// A commit that the store has lost.
#[derive(Debug)]
struct LostCommit {
    doc: DocId,
    revision: Revision,
}

/// The most lost commits that are logged one by one.
const LOGGED_MAX: usize = 10;

impl Node {
    /// Compares the history and the place of a heartbeat's reply with those before, and the log with what this node has if there
    /// is a reason.
    ///
    /// # Errors
    /// If the store does not answer. The next heartbeat compares again.
    pub(in crate::node) async fn compare_history(
        &self,
        reply: &HeartbeatReply,
    ) -> Result<(), StoreError> {
        let log_history = &self.services().log_history;
        let known = log_history.get();
        let Some(place) = log_history.place() else {
            log_history.adopt(reply.history, &reply.place);
            return Ok(());
        };
        if reply.history != known {
            if reply.history.follows(known) {
                tracing::error!(
                    generation = reply.history.generation,
                    "the history of the store was renewed by another node or by `copydesk restored`: all documents are loaded anew and all sockets closed"
                );
                log_history.adopt(reply.history, &reply.place);
                return Ok(());
            }
            tracing::error!(
                known = known.generation,
                found = reply.history.generation,
                "the store has an older history than this node: an older backup was restored"
            );
            return self.renew_history(reply).await;
        }
        let is_suspect = log_history.take_suspicion();
        if place == reply.place && !is_suspect {
            return Ok(());
        }
        let compared = self.compare_log(reply).await;
        if compared.is_err() {
            log_history.keep_suspicion();
        }
        compared
    }

    /// Compares the log with the newest commits that this node has.
    async fn compare_log(&self, reply: &HeartbeatReply) -> Result<(), StoreError> {
        let (compared, lost) = self.find_lost().await?;
        if lost.is_empty() {
            tracing::info!(
                documents = compared,
                "the store was restarted or another server was promoted: it holds all that this node knows"
            );
            self.store()
                .renew_history(reply.history, reply.history)
                .await?;
            self.services().log_history.set_place(&reply.place);
            return Ok(());
        }
        for LostCommit { doc, revision } in lost.iter().take(LOGGED_MAX) {
            tracing::error!(
                %doc, %revision,
                "the store has lost a commit: the log ends before this revision or has another entry there"
            );
        }
        tracing::error!(
            documents = lost.len(),
            of = compared,
            "the store went back in time: acknowledged edits of these documents are lost; the history is renewed, all documents are loaded anew and all sockets closed"
        );
        self.renew_history(reply).await
    }

    async fn renew_history(&self, reply: &HeartbeatReply) -> Result<(), StoreError> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| StoreError::new("renew history", error))?;
        let next = reply
            .history
            .after(self.log_history(), u128::from_le_bytes(id));
        let renewed = self.store().renew_history(reply.history, next).await?;
        self.services().log_history.adopt(renewed, &reply.place);
        Ok(())
    }

    /// The number of documents of which this node has commits, and the newest commits that the log does not hold.
    async fn find_lost(&self) -> Result<(usize, Vec<LostCommit>), StoreError> {
        let mut newest: Vec<(DocId, NewestCommit)> = self.services().documents.newest_commits();
        newest.extend(self.services().log_history.closed());
        let revisions: Vec<_> = newest
            .iter()
            .map(|(doc, commit)| (doc.clone(), commit.revision))
            .collect();
        let found = self.store().fingerprints(&revisions).await?;
        let missing = newest.iter().zip(found);
        let missing = missing.filter(|((_, commit), found)| commit.is_missing_in(*found));
        let lost = missing.map(|((doc, commit), _)| LostCommit {
            doc: doc.clone(),
            revision: commit.revision,
        });
        Ok((newest.len(), lost.collect()))
    }
}
