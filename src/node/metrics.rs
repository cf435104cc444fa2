//! What a node measures.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::doc::{Event, PageRequester, SessionReply};
use crate::metrics::{
    Bytes, CallResult, Count, Counter, Gauge, Labelled, Seconds, SecondsGauge, labels, metrics,
};
use crate::store::{AppendError, StoreError};

labels! {
    /// How a submit of a session ended.
    pub enum SubmitResult: "result" {
        /// It is committed and acknowledged.
        Committed = "committed",
        /// It was rejected for good: its client was sent an error.
        Rejected = "rejected",
        /// It was rejected for now: its socket was closed, and its client sends it again.
        Postponed = "postponed",
    }
}

labels! {
    /// Which node ordered a submit.
    pub enum SubmitPath: "path" {
        /// This node.
        Owner = "owner",
        /// Another node, to which it was forwarded.
        Forwarded = "forwarded",
    }
}

labels! {
    /// How an append of a document ended.
    pub enum AppendResult: "result" {
        /// The entries are durable.
        Appended = "appended",
        /// Another node has claimed the document since.
        Fenced = "fenced",
        /// The entries do not follow the log.
        Gap = "gap",
        /// The store refuses an entry because of its values.
        Refused = "refused",
        /// The store failed or did not answer in time: the entries may be durable.
        Unknown = "unknown",
    }
}

labels! {
    /// What became of a dead letter.
    pub enum DeadLetterResult: "result" {
        /// It was written to the store.
        Written = "written",
        /// Too many waited, or the store did not take it.
        Dropped = "dropped",
    }
}

labels! {
    /// Why the owner of a document changed on this node.
    pub enum OwnershipChange: "reason" {
        /// This node claimed the document.
        Claimed = "claimed",
        /// The hash ring selects another node.
        RingChanged = "ring_changed",
        /// An append found that another node claimed the document.
        Fenced = "fenced",
        /// The feed of changes showed that another node claimed the document.
        Superseded = "superseded",
        /// The task of the document ended.
        Closed = "closed",
        /// Any other reason, such as an append with an unknown outcome.
        Other = "other",
    }
}

labels! {
    /// What reads a page of the log.
    pub enum PageReader: "reader" {
        /// A node that missed commits.
        Gap = "gap",
        /// A session that is far behind.
        CatchUp = "catch_up",
        /// The owner, for a submit on an old revision.
        Rebase = "rebase",
    }
}

labels! {
    /// What a budget of bytes is for.
    pub enum BudgetKind: "budget" {
        /// Frames that wait for sockets.
        Outboxes = "outboxes",
        /// Encoded snapshots.
        Snapshots = "snapshots",
    }
}

labels! {
    /// The direction of messages between nodes.
    pub enum Direction: "direction" {
        /// To other nodes.
        Sent = "sent",
        /// From other nodes.
        Received = "received",
    }
}

labels! {
    /// Why a message between nodes was dropped.
    pub enum MessageDrop: "reason" {
        /// The queue to its receiver was full, there was no path, or it was too old.
        Unsent = "unsent",
        /// An entry of the inbox could not be decoded.
        Undecodable = "undecodable",
        /// The mailbox of its document was full.
        MailboxFull = "mailbox_full",
    }
}

metrics! {
    /// The metrics of a node.
    pub struct NodeMetrics {
        /// Answered submits of sessions on this node.
        pub submits: Labelled<SubmitResult, Counter>;
        /// Time from the frame of a submit to its acknowledgement in the outbox of its socket, by the node that ordered it.
        pub ack_seconds: Labelled<SubmitPath, Seconds>;

        /// Time of an append of one document, until it is durable.
        pub append_seconds: Seconds;
        /// Entries in an append of one document.
        pub append_entries: Count;
        /// Bytes of the entries in an append of one document.
        pub append_bytes: Bytes;
        /// Appends of documents.
        pub appends: Labelled<AppendResult, Counter>;

        /// Commits queued for sockets.
        pub deliveries: Counter;
        /// Time from a commit's arrival at its document on this node until it is written to a socket; one delivery in eight is
        /// measured, on one of its sockets.
        pub delivery_seconds: Seconds;
        /// Sockets closed because more bytes waited for them than their outbox may hold.
        pub slow_readers_closed: Counter;

        /// Open documents.
        pub documents_open: Gauge;
        /// Open documents that this node owns.
        pub documents_owned: Gauge;
        /// Changes of a document's owner, as this node saw them.
        pub owner_changes: Labelled<OwnershipChange, Counter>;
        /// Claims of documents.
        pub claims: Labelled<CallResult, Counter>;
        /// Time to claim a document and load it.
        pub claim_seconds: Seconds;
        /// Panics in the state machine of a document.
        pub document_panics: Counter;
        /// Edits that were not committed because of a fault.
        pub dead_letters: Labelled<DeadLetterResult, Counter>;
        /// Documents that are read-only because of repeated panics, on all nodes.
        pub documents_quarantined: Gauge;

        /// Pages of logs read from the store.
        pub log_pages_read: Labelled<PageReader, Counter>;
        /// Snapshots that were saved, or were not.
        pub snapshots_saved: Labelled<CallResult, Counter>;
        /// When a snapshot was last saved, in seconds since 1970; zero before the first.
        pub snapshot_last_saved_timestamp_seconds: SecondsGauge;
        /// Bytes of memory in use, by budget.
        pub budget_used_bytes: Labelled<BudgetKind, Gauge>;
        /// Bytes of memory that may be in use, by budget.
        pub budget_limit_bytes: Labelled<BudgetKind, Gauge>;

        /// Presence channels that are in use on this node.
        pub presence_channels: Gauge;
        /// Presence values published by sessions of this node.
        pub presences_published: Counter;

        /// Other live nodes, as the store last listed them.
        pub peers_alive: Gauge;
        /// Other nodes that do not answer and have lost their documents for now.
        pub peers_suspected: Gauge;
        /// 1 if the store answers other nodes and not this one.
        pub node_isolated: Gauge;
        /// 1 if the store is known to be away.
        pub store_away: Gauge;
        /// 1 if messages between nodes pass, or there is no other node.
        pub transport_healthy: Gauge;
        /// Heartbeats that this node wrote into the store.
        pub heartbeats: Labelled<CallResult, Counter>;
        /// When the store last answered a heartbeat, in seconds since 1970; zero before the first.
        pub heartbeat_last_success_timestamp_seconds: SecondsGauge;

        /// Messages between nodes.
        pub peer_messages: Labelled<Direction, Counter>;
        /// Bytes of messages between nodes.
        pub peer_message_bytes: Labelled<Direction, Counter>;
        /// Messages between nodes that were dropped. Their senders repeat what is unanswered.
        pub peer_messages_dropped: Labelled<MessageDrop, Counter>;
    }
}

impl NodeMetrics {
    /// A session's submit was answered.
    pub(super) fn submit_answered(
        &self,
        received: Instant,
        path: SubmitPath,
        result: SubmitResult,
    ) {
        if result == SubmitResult::Committed {
            self.ack_seconds.of(path).observe(received.elapsed());
        }
        self.submits.of(result).inc();
    }

    /// An append ended.
    pub(super) fn append_ended(
        &self,
        (entries, bytes): (usize, usize),
        took: Duration,
        result: &Result<Result<(), AppendError>, StoreError>,
    ) {
        self.append_seconds.observe(took);
        self.append_entries.observe(entries);
        self.append_bytes.observe(bytes);
        let result = match result {
            Ok(Ok(())) => AppendResult::Appended,
            Ok(Err(AppendError::Fenced)) => AppendResult::Fenced,
            Ok(Err(AppendError::Gap)) => AppendResult::Gap,
            Ok(Err(AppendError::Refused)) => AppendResult::Refused,
            Err(_) => AppendResult::Unknown,
        };
        self.appends.of(result).inc();
    }

    /// A snapshot was saved, or not.
    pub(super) fn snapshot_saved<T, E>(&self, result: &Result<T, E>) {
        self.snapshots_saved.of(CallResult::of(result)).inc();
        if result.is_ok() {
            set_to_now(&self.snapshot_last_saved_timestamp_seconds);
        }
    }

    /// The store answered a heartbeat, or not.
    pub(super) fn heartbeat_ended<T, E>(&self, result: &Result<T, E>) {
        self.heartbeats.of(CallResult::of(result)).inc();
        if result.is_ok() {
            set_to_now(&self.heartbeat_last_success_timestamp_seconds);
        }
    }
}

impl SubmitResult {
    /// The result of a submit with this answer.
    pub(super) fn of(answer: &SessionReply) -> Self {
        match answer {
            SessionReply::Rejected(rejection) if rejection.is_transient() => Self::Postponed,
            SessionReply::Rejected(_) => Self::Rejected,
            SessionReply::Committed(_) | SessionReply::Done | SessionReply::Snapshot(_) => {
                Self::Committed
            }
        }
    }
}

impl PageReader {
    pub(super) fn of(requester: &PageRequester) -> Self {
        match requester {
            PageRequester::Gap => Self::Gap,
            PageRequester::CatchUp(_) => Self::CatchUp,
            PageRequester::Sequencer(_) => Self::Rebase,
        }
    }
}

/// Measures how long an open document is owned by this node, and why that changes.
#[derive(Debug)]
pub(super) struct OwnershipMeter {
    metrics: Arc<NodeMetrics>,
    is_owned: bool,
}

impl OwnershipMeter {
    /// The meter of a document that this node does not own.
    pub(super) fn new(metrics: Arc<NodeMetrics>) -> Self {
        Self {
            metrics,
            is_owned: false,
        }
    }

    /// Takes the state after an event. `reason` is that of an owner that stops.
    pub(super) fn set(&mut self, is_owned: bool, reason: OwnershipChange) {
        if std::mem::replace(&mut self.is_owned, is_owned) == is_owned {
            return;
        }
        if is_owned {
            self.metrics.documents_owned.inc();
            let claimed = OwnershipChange::Claimed;
            self.metrics.owner_changes.of(claimed).inc();
        } else {
            self.metrics.documents_owned.dec();
            self.metrics.owner_changes.of(reason).inc();
        }
    }
}

impl Drop for OwnershipMeter {
    fn drop(&mut self) {
        self.set(false, OwnershipChange::Closed);
    }
}

impl OwnershipChange {
    /// The reason why an owner stops with this event.
    pub(super) fn of(event: &Event) -> Self {
        match event {
            Event::OwnerChanged(_) => Self::RingChanged,
            Event::Superseded(_) => Self::Superseded,
            Event::Appended {
                result: Ok(Err(AppendError::Fenced)),
                ..
            } => Self::Fenced,
            _ => Self::Other,
        }
    }
}

fn set_to_now(gauge: &SecondsGauge) {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    gauge.set(since_1970.unwrap_or_default().as_secs_f64());
}
