//! Loads documents from the store and encodes them for readers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::blocking::work_off_thread;
use super::damage::DamageReports;
use super::fold::{Folded, ReadablePart, fold, refold, size_of_content};
use super::mailbox::Mailboxes;
use crate::doc::{EncodedSnapshot, Event, ReadOnly, ReadOnlyCause, Rejection};
use crate::id::{DocId, NodeId};
use crate::log::{Entry, Fence, Revision, Snapshot, Tail};
use crate::metrics::CallResult;
use crate::node::cluster::store_status::StoreStatus;
use crate::node::delivery::encoder::{FrameEncoder, SnapshotNotice};
use crate::node::delivery::outbox::Outbox;
use crate::node::delivery::snapshot_budget::SnapshotBudget;
use crate::node::faults::FaultService;
use crate::node::metrics::NodeMetrics;
use crate::ot::CONTENT_BYTES_MAX;
use crate::outage::LineLimit;
use crate::store::{AppendError, Batch, LoadRange, Store, StoreError, StoreErrorKind};

/// Reads documents from the store, and claims and appends to them, within the bounds of the node.
#[derive(Debug)]
pub(in crate::node) struct DocumentLoader {
    me: NodeId,
    faults: Arc<FaultService>,
    store: Arc<dyn Store>,
    store_status: Arc<StoreStatus>,
    documents: Arc<Mailboxes>,
    snapshots: Arc<SnapshotBudget>,
    encoder: &'static dyn FrameEncoder,
    /// Held while a document is claimed.
    claims: Semaphore,
    /// Held while a page of the log is read for a client that catches up.
    catch_ups: Semaphore,
    damage_reports: DamageReports,
    metrics: Arc<NodeMetrics>,
}

/// How many pages of the log are read at once for clients that catch up.
const CATCH_UPS_AT_ONCE: usize = 8;

/// How long the store may take for a request of a document. The stores have shorter limits of their own; this one lets a
/// document ask again if an answer never comes.
const STORE_PATIENCE: Duration = Duration::from_secs(20);

impl DocumentLoader {
    pub(in crate::node) fn new(
        (me, faults): (NodeId, Arc<FaultService>),
        (store, store_status): (Arc<dyn Store>, Arc<StoreStatus>),
        documents: Arc<Mailboxes>,
        (snapshots, encoder): (Arc<SnapshotBudget>, &'static dyn FrameEncoder),
        claims_max: usize,
        metrics: Arc<NodeMetrics>,
    ) -> Self {
        Self {
            me,
            faults,
            store,
            store_status,
            documents,
            snapshots,
            encoder,
            claims: Semaphore::new(claims_max),
            catch_ups: Semaphore::new(CATCH_UPS_AT_ONCE),
            damage_reports: DamageReports::default(),
            metrics,
        }
    }

    /// Loads a document's head and encodes it.
    pub(super) async fn load_snapshot(&self, doc: &DocId) -> Event {
        let loaded = async {
            let _permit = self.snapshot_permit("load").await?;
            let loaded = within_patience("load", async {
                match self.load_folded(doc).await? {
                    Folded::Whole(head, entries) => Ok(Event::SnapshotEncoded(Ok((
                        self.encode(head).await,
                        entries,
                    )))),
                    Folded::ReadOnly(part) => Ok(self.read_only(doc, part).await),
                }
            });
            self.store_status.unless_away("load", loaded).await
        };
        let loaded: Result<Event, StoreError> = loaded.await;
        loaded.unwrap_or_else(|error| Event::SnapshotEncoded(Err(error)))
    }

    /// Encodes a snapshot when the budget allows it.
    pub(super) async fn encode_snapshot(&self, snapshot: Snapshot) -> Event {
        let encoded = match self.snapshot_permit("encode").await {
            Ok(_permit) => Ok((self.encode(snapshot).await, Vec::new())),
            Err(error) => Err(error),
        };
        Event::SnapshotEncoded(encoded)
    }

    /// Applies entries to an encoded snapshot without the store.
    pub(super) async fn refold_snapshot(
        &self,
        snapshot: Arc<EncodedSnapshot>,
        entries: Vec<Arc<Entry>>,
    ) -> Event {
        let Ok(_permit) = self.snapshot_permit("encode").await else {
            return Event::SnapshotRefolded(None);
        };
        let refolded = match refold(snapshot, entries).await {
            Some(refolded) => {
                let notice = SnapshotNotice::StoreAway;
                Some(self.encode_with_notice(refolded, notice).await)
            }
            None => None,
        };
        Event::SnapshotRefolded(refolded)
    }

    /// Claims a document and loads it as of the claim.
    pub(super) async fn claim(&self, doc: &DocId) -> Event {
        let begun = Instant::now();
        let claimed = within_patience("claim", self.claim_and_load(doc));
        let claimed = self.store_status.unless_away("claim", claimed).await;
        self.metrics.claim_seconds.observe(begun.elapsed());
        self.metrics.claims.of(CallResult::of(&claimed)).inc();
        claimed.unwrap_or_else(|error| Event::Claimed(Err(error)))
    }

    /// Waits for the permit to read a page for a client that catches up: until its outbox is drained, so that it reads a long
    /// log at its own speed. Returns `None` if its socket is closed.
    pub(super) async fn catch_up_permit(&self, reader: &Outbox) -> Option<SemaphorePermit<'_>> {
        reader.drained().await;
        if reader.is_closed() {
            return None;
        }
        self.catch_ups.acquire().await.ok()
    }

    /// Reads a page of the log.
    pub(super) async fn load_page(
        &self,
        doc: &DocId,
        since: Revision,
    ) -> Result<Vec<Arc<Entry>>, StoreError> {
        let page = within_patience("load", self.store.load(doc, LoadRange::Since(since)));
        let page = self.store_status.unless_away("load", page).await;
        if let Err(error) = &page
            && let StoreErrorKind::Damaged { entry } = error.kind
        {
            self.damage_reports.report(doc, entry, None);
        }
        page.map(|loaded| loaded.entries)
    }

    /// Appends entries of one document. The inner error: the append was rejected. The outer error: its outcome is unknown.
    pub(super) async fn append(&self, batch: Batch) -> Result<Result<(), AppendError>, StoreError> {
        let begun = Instant::now();
        let bytes = batch.entries.iter().map(|entry| entry.size()).sum();
        let size = (batch.entries.len(), bytes);
        let answers = within_patience("append", self.store.append(vec![batch])).await;
        let missing = || StoreError::new("append", "no answer for the batch");
        let result = answers.and_then(|mut answers| answers.pop().ok_or_else(missing));
        self.metrics.append_ended(size, begun.elapsed(), &result);
        result
    }

    /// Saves a snapshot. A failure is logged: the document's next snapshot is saved instead.
    pub(super) async fn save_snapshot(&self, doc: &DocId, fence: Fence, snapshot: Snapshot) {
        static LIMIT: LineLimit = LineLimit::new();
        let saved = self.store.save_snapshot(doc, fence, snapshot).await;
        self.metrics.snapshot_saved(&saved);
        if let Err(error) = saved
            && let Some(left_out) = LIMIT.pass()
        {
            tracing::warn!(%error, left_out, "a snapshot was not saved: the document's next one is tried");
        }
    }

    /// The document in an earlier state.
    pub(in crate::node) async fn history(
        &self,
        doc: &DocId,
        range: LoadRange,
    ) -> Result<Arc<EncodedSnapshot>, Rejection> {
        let permit = self.snapshot_permit("load").await;
        let _permit = permit.map_err(|_| Rejection::busy())?;
        let loaded = self
            .store_status
            .unless_away("load", self.store.load(doc, range))
            .await
            .map_err(|error| self.unreadable(doc, &error))?;
        if let LoadRange::At(revision) = range
            && revision > loaded.head
        {
            return Err(Rejection::future_revision());
        }
        match fold(loaded).await {
            Folded::Whole(then, _) => Ok(self.encode(then).await),
            Folded::ReadOnly(part) => {
                let readable = part.readable.as_ref().map(|it| it.revision);
                Err(part.cause.rejection(readable))
            }
        }
    }

    /// Claims a document. The head that is loaded after the claim is the head under its fence.
    async fn claim_and_load(&self, doc: &DocId) -> Result<Event, StoreError> {
        let _permit = self.claims.acquire().await.ok();
        if self.faults.is_quarantined(doc).await
            && let Folded::ReadOnly(part) = self.load_folded(doc).await?
        {
            return Ok(self.read_only(doc, part).await);
        }
        let lease = match self.store.claim(doc, self.me).await {
            Ok(lease) => lease,
            Err(StoreError {
                kind: StoreErrorKind::Damaged { entry },
                ..
            }) => return self.unclaimable(doc, entry).await,
            Err(error) => return Err(error),
        };
        let (head, entries) = match self.load_folded(doc).await? {
            Folded::Whole(head, entries) => (head, entries),
            Folded::ReadOnly(part) => return Ok(self.read_only(doc, part).await),
        };
        if head.revision != lease.head {
            // Only another claim moves the head: this one is void.
            return Err(StoreError::new("claim", "the document was claimed again"));
        }
        let start = entries
            .first()
            .map_or(head.revision, |entry| entry.revision.before());
        let mut tail = Tail::new(start);
        entries.into_iter().for_each(|entry| tail.push(entry));
        Ok(Event::Claimed(Ok((lease.fence, head, tail))))
    }

    /// The event for a document that cannot be claimed because of damaged rows. Its log is served as far as it is readable.
    async fn unclaimable(&self, doc: &DocId, entry: Option<Revision>) -> Result<Event, StoreError> {
        let part = match self.load_folded(doc).await? {
            Folded::Whole(whole, _) => ReadablePart {
                head: whole.revision,
                readable: Some(whole),
                cause: ReadOnlyCause::Damaged { entry },
            },
            Folded::ReadOnly(part) => part,
        };
        Ok(self.read_only(doc, part).await)
    }

    /// Loads a document's head and folds it; of a damaged document, what is before the damage. A document in quarantine is
    /// read-only.
    async fn load_folded(&self, doc: &DocId) -> Result<Folded, StoreError> {
        let folded = self.load_readable(doc).await?;
        Ok(match folded {
            Folded::Whole(head, _) if self.faults.is_quarantined(doc).await => {
                Folded::quarantined(head)
            }
            folded => folded,
        })
    }

    /// Loads a document's head and folds it, as far as it can be read.
    async fn load_readable(&self, doc: &DocId) -> Result<Folded, StoreError> {
        match self.store.load(doc, LoadRange::Head).await {
            Ok(loaded) => return Ok(fold(loaded).await),
            Err(error) if !is_damage(&error) => return Err(error),
            Err(_) => {}
        }
        let loaded = match self.store.load(doc, LoadRange::BeforeDamage).await {
            Ok(loaded) => loaded,
            Err(error) => {
                let StoreErrorKind::Damaged { entry } = error.kind else {
                    return Err(error);
                };
                return Ok(Folded::ReadOnly(ReadablePart {
                    readable: None,
                    head: Revision::ZERO,
                    cause: ReadOnlyCause::Damaged { entry },
                }));
            }
        };
        let head = loaded.head;
        Ok(match fold(loaded).await {
            Folded::Whole(snapshot, _) if snapshot.revision != head => {
                Folded::damaged(snapshot, head)
            }
            // Only a snapshot was damaged, and the log before it is whole.
            folded => folded,
        })
    }

    async fn encode(&self, snapshot: Snapshot) -> Arc<EncodedSnapshot> {
        let (bytes, encoder) = (size_of_content(&snapshot), self.encoder);
        let encoded = work_off_thread(bytes, move || encoder.snapshot(&snapshot)).await;
        Arc::new(self.snapshots.count(encoded))
    }

    /// Encodes a snapshot with a notice why it is not the newest state of the document.
    async fn encode_with_notice(
        &self,
        snapshot: Snapshot,
        notice: SnapshotNotice,
    ) -> Arc<EncodedSnapshot> {
        let (bytes, encoder) = (size_of_content(&snapshot), self.encoder);
        let encode = move || encoder.snapshot_with_notice(&snapshot, &notice);
        let encoded = work_off_thread(bytes, encode).await;
        Arc::new(self.snapshots.count(encoded))
    }

    /// The event for a document that is too large to be held, or damaged.
    async fn read_only(&self, doc: &DocId, part: ReadablePart) -> Event {
        let ReadablePart {
            readable,
            head,
            cause,
        } = part;
        let at = readable.as_ref().map(|it| it.revision);
        match cause {
            ReadOnlyCause::Oversized => tracing::error!(
                readable = %at.unwrap_or_default(), %head,
                "the document is larger than {CONTENT_BYTES_MAX} bytes: it is read-only until `copydesk repair {doc}` is run"
            ),
            ReadOnlyCause::Damaged { entry } => self.damage_reports.report(doc, entry, at),
            // Logged when the quarantine began.
            ReadOnlyCause::Quarantined => {}
        }
        let rejection = cause.rejection(at);
        let readable = match readable {
            Some(readable) => {
                let notice = SnapshotNotice::ReadOnly(rejection.clone());
                Some(self.encode_with_notice(readable, notice).await)
            }
            None => None,
        };
        Event::ReadOnly(ReadOnly {
            readable,
            head,
            rejection,
            cause,
        })
    }

    /// Waits for the permit to load and encode a snapshot.
    async fn snapshot_permit(&self, verb: &'static str) -> Result<SemaphorePermit<'_>, StoreError> {
        if self.snapshots.is_nearly_full() {
            self.documents.evict_idle();
        }
        let permit = self.snapshots.permit().await;
        permit.ok_or_else(|| {
            static LIMIT: LineLimit = LineLimit::new();
            if let Some(left_out) = LIMIT.pass() {
                tracing::warn!(
                    left_out,
                    "node.snapshots_bytes_max reached: a read waits until others are written"
                );
            }
            StoreError::new(verb, "too many snapshots wait to be read")
        })
    }

    /// The rejection of a read that failed.
    fn unreadable(&self, doc: &DocId, error: &StoreError) -> Rejection {
        static LIMIT: LineLimit = LineLimit::new();
        if let StoreErrorKind::Damaged { entry } = error.kind {
            self.damage_reports.report(doc, entry, None);
            return ReadOnlyCause::Damaged { entry }.rejection(None);
        }
        if let Some(left_out) = LIMIT.pass() {
            tracing::warn!(%doc, %error, left_out, "a document was not read");
        }
        Rejection::store_unavailable()
    }
}

fn is_damage(error: &StoreError) -> bool {
    matches!(error.kind, StoreErrorKind::Damaged { .. })
}

/// Waits for an answer of the store at most [`STORE_PATIENCE`].
async fn within_patience<T>(
    verb: &'static str,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = |_| {
        static LIMIT: LineLimit = LineLimit::new();
        if let Some(left_out) = LIMIT.pass() {
            tracing::warn!(
                verb,
                left_out,
                "a request to the store got no answer within its time limit"
            );
        }
        Err(StoreError::new(verb, "no answer in time"))
    };
    timeout(STORE_PATIENCE, answer).await.unwrap_or_else(late)
}
