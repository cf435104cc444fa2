//! One heartbeat of a node: it is written, the history in its reply is compared with the log, and the reply is applied.

use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;

use crate::node::Node;
use crate::node::cluster::peers::Participation;
use crate::node::cluster::store_status::AWAY_AFTER;
use crate::outage::Outage;
use crate::store::{Heartbeat, HeartbeatReply, StoreError};

/// How long one heartbeat may take.
const HEARTBEAT_PATIENCE: Duration = Duration::from_secs(3);

/// How long it may take to compare the log with what the node has. The next heartbeat tries again.
const COMPARE_PATIENCE: Duration = Duration::from_secs(10);

/// Why the reply to a heartbeat was not applied.
#[derive(Debug, Error)]
pub(in crate::node) enum BeatError {
    /// The heartbeat was not written, or the store did not answer it.
    #[error(transparent)]
    NotAnswered(#[from] StoreError),
    /// The heartbeat was written, and the log could not be compared with what this node has.
    #[error(transparent)]
    NotCompared(StoreError),
}

impl From<BeatError> for StoreError {
    fn from(error: BeatError) -> Self {
        match error {
            BeatError::NotAnswered(error) | BeatError::NotCompared(error) => error,
        }
    }
}

/// Limits the log lines about failed heartbeats, by the operation that failed.
#[derive(Debug, Default)]
pub(super) struct BeatOutages {
    heartbeat: Outage,
    comparison: Outage,
}

impl BeatOutages {
    /// Logs the outcome of a heartbeat if it begins or ends an outage.
    pub(super) fn log(&self, outcome: &Result<(), BeatError>) {
        match outcome {
            Err(BeatError::NotAnswered(error)) => {
                if self.heartbeat.begins() {
                    tracing::warn!(%error, "the store did not answer the heartbeat");
                }
                return;
            }
            Err(BeatError::NotCompared(error)) => {
                if self.comparison.begins() {
                    tracing::warn!(%error, "the log was not compared with what this node has: retrying");
                }
            }
            Ok(()) => {
                if let Some(past) = self.comparison.ends() {
                    let (failures, seconds) = (past.failures, past.lasted.as_secs());
                    tracing::info!(failures, seconds, "the log is compared again");
                }
            }
        }
        if let Some(past) = self.heartbeat.ends() {
            let (failures, seconds) = (past.failures, past.lasted.as_secs());
            tracing::info!(failures, seconds, "the store answers the heartbeat again");
        }
    }
}

impl Node {
    /// Writes this node's heartbeat, and applies the reply.
    pub(in crate::node::cluster) async fn beat(&self) -> Result<(), BeatError> {
        let _permit = self.heartbeat_permit().await;
        let services = self.services();
        let reply = self.heartbeat_and_compare().await;
        services.store_status.set_away(reply.is_err());
        let answered = match &reply {
            Err(BeatError::NotAnswered(error)) => Err(error),
            Ok(_) | Err(BeatError::NotCompared(_)) => Ok(()),
        };
        services.metrics.heartbeat_ended(&answered);
        match &reply {
            Ok(_) => services.peers.heartbeat_succeeded(),
            Err(_) => services.peers.heartbeat_failed(),
        }
        let reply = reply?;
        services.peers.set_addresses(&reply.addresses);
        if services.peers.apply_heartbeat(&reply) == Participation::StepDown {
            services.documents.step_down_all();
        }
        Ok(())
    }

    /// The reply to one heartbeat, after the history that it names has been compared: before this node takes documents of nodes
    /// that are gone.
    async fn heartbeat_and_compare(&self) -> Result<HeartbeatReply, BeatError> {
        let clock = &self.services().clock;
        let (heartbeat, asked) = (self.next_heartbeat(), clock.now().clock);
        let reply = self.heartbeat(&heartbeat).await?;
        if let Some(store_ms) = reply.store_ms {
            clock.learn(store_ms, asked);
        }
        let compared = timeout(COMPARE_PATIENCE, self.compare_history(&reply)).await;
        let late = |_| Err(StoreError::new("compare the log", "no answer in time"));
        compared
            .unwrap_or_else(late)
            .map_err(BeatError::NotCompared)?;
        Ok(reply)
    }

    /// Writes a heartbeat. If it takes long, the store counts as away before the heartbeat is given up.
    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatReply, StoreError> {
        let mut reply = self.store().heartbeat(heartbeat);
        if let Ok(reply) = timeout(AWAY_AFTER, &mut reply).await {
            return reply;
        }
        self.services().store_status.set_away(true);
        let reply = timeout(HEARTBEAT_PATIENCE - AWAY_AFTER, reply).await;
        reply.unwrap_or_else(|_| Err(StoreError::new("heartbeat", "no answer in time")))
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::sync::lock;

    /// The logged bytes.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_name_the_operation_that_failed_once() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .finish();
        let failed = || StoreError::new("read", "away");
        let outages = BeatOutages::default();
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..2 {
                outages.log(&Err(BeatError::NotCompared(failed())));
            }
            for _ in 0..2 {
                outages.log(&Err(BeatError::NotAnswered(failed())));
            }
        });
        let text = String::from_utf8(lock(&log.0).clone()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains("the log was not compared"), "{text}");
        assert!(lines[1].contains("did not answer the heartbeat"), "{text}");
    }
}
