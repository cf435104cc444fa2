//! Verification of a whole database: the checksum of each row, the order of each log, and snapshots against the replay
//! of the log.
//!
//! The rules are here, over [`Rows`], which each store implements. Nothing is changed, and the database may be in use:
//! a document that grows meanwhile is read to its new end.

use std::fmt;

use futures_util::future::BoxFuture;

use super::StoreError;
use super::damage::LogEnd;
use super::snapshot_codec::unpack;
use crate::id::DocId;
use crate::log::{Entry, Epoch, Revision, Snapshot};

/// How many documents are read at once; also how often progress is reported.
pub(super) const DOCUMENTS_PAGE: usize = 1_000;

/// The result of reading some rows.
pub(super) type RowsFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// The rows of a database. A row that cannot be decoded is returned with the reason, not as an error.
pub(super) trait Rows: Send {
    /// The faults that the database's own check finds in its files, one sentence each.
    fn check_files(&mut self) -> RowsFuture<'_, Vec<String>>;

    /// The documents after a number, in order, at most [`DOCUMENTS_PAGE`].
    fn documents(&mut self, after: i64) -> RowsFuture<'_, Vec<DocumentRow>>;

    /// The row of one document; `None` if there is none.
    fn find<'a>(&'a mut self, doc: &'a DocId) -> RowsFuture<'a, Option<DocumentRow>>;

    /// The numbers in `after..=until` that have entries or snapshots but no document.
    fn orphans(&mut self, after: i64, until: i64) -> RowsFuture<'_, Vec<i64>>;

    /// What the document's row in the list has now; `None` if the row is missing.
    fn list_entry(&mut self, document: i64) -> RowsFuture<'_, Option<ListEntry>>;

    /// One page of the document's entries after `revision`, in order; empty at the end of the log.
    fn entries(&mut self, document: i64, after: Revision) -> RowsFuture<'_, Vec<EntryRow>>;

    /// The document's first snapshot after `revision`, packed.
    fn snapshot(&mut self, document: i64, after: Revision) -> RowsFuture<'_, Option<SnapshotRow>>;
}

/// A row of the table of documents.
#[derive(Debug)]
pub(super) struct DocumentRow {
    pub(super) number: i64,
    /// The document, or why its name is invalid.
    pub(super) doc: Result<DocId, String>,
    /// Whether the document has a fence.
    pub(super) has_fence: bool,
}

/// What a document's row has for the list, and the epoch of its fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ListEntry {
    /// Whether the document is marked as existing.
    pub(super) live: bool,
    pub(super) updated_at_ms: i64,
    /// `None` if the document has no fence.
    pub(super) epoch: Option<Epoch>,
}

/// A row of the log: the entry, or why it cannot be decoded.
#[derive(Debug)]
pub(super) struct EntryRow {
    pub(super) revision: Revision,
    pub(super) entry: Result<Entry, String>,
}

/// A row of the table of snapshots.
#[derive(Debug)]
pub(super) struct SnapshotRow {
    pub(super) revision: Revision,
    pub(super) packed: Vec<u8>,
}

/// An event of a running verification.
#[derive(Debug)]
pub enum VerifyEvent {
    /// Damage was found.
    Damage(DamageReport),
    /// All documents up to this number are verified. With it as [`VerifyRange::after`], a verification continues there.
    Progress {
        /// The number of the last verified document.
        document: i64,
        /// The totals so far.
        totals: VerifyTotals,
    },
}

/// Damage, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamageReport {
    /// The document, or its number if it has no valid name; empty for the files of the database.
    pub place: String,
    /// The fault, in words.
    pub fault: String,
}

impl fmt::Display for DamageReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place.as_str() {
            "" => f.write_str(&self.fault),
            place => write!(f, "{place}: {}", self.fault),
        }
    }
}

/// The part of a database that is verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifyRange {
    /// Only documents with a larger number.
    pub after: i64,
}

/// How much was read and how much of it is damaged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifyTotals {
    /// Documents, deleted ones included.
    pub documents: u64,
    /// Entries of their logs.
    pub entries: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// The number of [`DamageReport`]s.
    pub damages: u64,
}

/// Verifies the documents of `range`.
///
/// # Errors
/// If the database cannot be read to its end.
pub(super) async fn verify(
    rows: &mut dyn Rows,
    range: VerifyRange,
    report: &mut (dyn FnMut(VerifyEvent) + Send),
) -> Result<VerifyTotals, StoreError> {
    let mut verifier = Verifier {
        rows,
        report,
        totals: VerifyTotals::default(),
    };
    verifier.run(range).await
}

/// Verifies one document and returns its faults, in words.
///
/// # Errors
/// If the database cannot be read to its end.
pub(super) async fn verify_document(
    rows: &mut dyn Rows,
    doc: &DocId,
) -> Result<Vec<String>, StoreError> {
    let mut faults = Vec::new();
    let mut report = |event| {
        if let VerifyEvent::Damage(damage) = event {
            faults.push(damage.fault);
        }
    };
    if let Some(document) = rows.find(doc).await? {
        let mut verifier = Verifier {
            rows,
            report: &mut report,
            totals: VerifyTotals::default(),
        };
        verifier.document(document).await?;
    }
    Ok(faults)
}

struct Verifier<'a> {
    rows: &'a mut dyn Rows,
    report: &'a mut (dyn FnMut(VerifyEvent) + Send),
    totals: VerifyTotals,
}

impl Verifier<'_> {
    async fn run(&mut self, range: VerifyRange) -> Result<VerifyTotals, StoreError> {
        for fault in self.rows.check_files().await? {
            self.damage("", fault);
        }
        let mut after = range.after;
        loop {
            let documents = self.rows.documents(after).await?;
            let until = documents.last().map_or(i64::MAX, |last| last.number);
            for number in self.rows.orphans(after, until).await? {
                let fault = "the row in documents is missing, entries or snapshots exist";
                self.damage(&unnamed(number), fault.to_owned());
            }
            if documents.is_empty() {
                return Ok(self.totals);
            }
            for document in documents {
                self.document(document).await?;
            }
            after = until;
            (self.report)(VerifyEvent::Progress {
                document: after,
                totals: self.totals,
            });
        }
    }

    async fn document(&mut self, document: DocumentRow) -> Result<(), StoreError> {
        let place = match &document.doc {
            Ok(doc) => doc.to_string(),
            Err(_) => unnamed(document.number),
        };
        self.totals.documents += 1;
        if let Err(why) = document.doc {
            self.damage(&place, format!("its name is damaged: {why}"));
        }
        if !document.has_fence {
            self.damage(&place, "its row in heads is missing".to_owned());
        }
        let mut replay = Replay::default();
        loop {
            let listed = self.rows.list_entry(document.number).await?;
            let read_to = replay.at;
            self.log(document.number, &place, &mut replay).await?;
            // Entries that were appended after the row was read may have changed whether the document exists.
            if replay.at == read_to {
                if let Some(listed) = listed {
                    self.compare_with_list(&place, listed, &replay);
                }
                return self
                    .snapshots_ahead(document.number, &place, replay.at)
                    .await;
            }
        }
    }

    /// Compares a document's rows with the replay of its whole log.
    fn compare_with_list(&mut self, place: &str, listed: ListEntry, replay: &Replay) {
        let exists = replay.state.as_ref().map(|it| it.content.is_some());
        if exists.is_some_and(|exists| exists != listed.live) {
            let live = listed.live;
            self.damage(
                place,
                format!("it is marked live = {live}, and its log says otherwise"),
            );
        }
        if let Some(epoch) = listed.epoch
            && epoch < replay.last_epoch
        {
            let fault = format!(
                "its fence has epoch {}, and its log epoch {}",
                epoch.0, replay.last_epoch.0
            );
            self.damage(place, fault);
        }
        let last = replay
            .last_at_ms
            .map(|at_ms| (replay.at.0.cast_signed(), at_ms));
        if LogEnd::new(listed.updated_at_ms, last).is_cut_off {
            let fault = format!(
                "entry {}: it is missing, and the list has its time",
                replay.at.next()
            );
            self.damage(place, fault);
        }
    }

    /// Reads the entries after `replay.at` to the end of the log, and the snapshots between them.
    async fn log(
        &mut self,
        number: i64,
        place: &str,
        replay: &mut Replay,
    ) -> Result<(), StoreError> {
        let mut snapshot = self.rows.snapshot(number, replay.at).await?;
        loop {
            let page = self.rows.entries(number, replay.at).await?;
            if page.is_empty() {
                return Ok(());
            }
            for row in page {
                self.totals.entries += 1;
                if row.revision != replay.at.next() {
                    self.damage(place, missing(replay.at.next(), row.revision.before()));
                    replay.lose(row.revision.before());
                    // A snapshot in the gap has the state that the missing entries led to.
                    while let Some(kept) = snapshot.take_if(|it| it.revision < row.revision) {
                        snapshot = self.rows.snapshot(number, kept.revision).await?;
                        self.snapshot(place, &kept, replay);
                    }
                }
                if let Err(fault) = replay.fold(row) {
                    self.damage(place, fault);
                }
                if let Some(kept) = snapshot.take_if(|it| it.revision == replay.at) {
                    snapshot = self.rows.snapshot(number, kept.revision).await?;
                    self.snapshot(place, &kept, replay);
                }
            }
        }
    }

    /// Compares a snapshot with the replay. If the replay ended at a damaged entry, it continues from the snapshot.
    fn snapshot(&mut self, place: &str, row: &SnapshotRow, replay: &mut Replay) {
        self.totals.snapshots += 1;
        let revision = row.revision;
        match unpack(revision, &row.packed) {
            Err(damage) => self.damage(place, format!("snapshot {revision}: {damage}")),
            Ok(_) if revision != replay.at => {}
            Ok(found) => match &replay.state {
                Some(state) if *state != found => {
                    let fault =
                        format!("snapshot {revision}: it differs from the replay of the log");
                    self.damage(place, fault);
                }
                Some(_) => {}
                None => replay.state = Some(found),
            },
        }
    }

    /// Reports the snapshots after the last entry of the log.
    async fn snapshots_ahead(
        &mut self,
        number: i64,
        place: &str,
        head: Revision,
    ) -> Result<(), StoreError> {
        let mut after = head;
        while let Some(row) = self.rows.snapshot(number, after).await? {
            after = row.revision;
            // The log may have grown since its end was read.
            if self
                .rows
                .entries(number, row.revision.before())
                .await?
                .is_empty()
            {
                self.totals.snapshots += 1;
                let fault = format!("snapshot {after}: the log ends at {head}, before it");
                self.damage(place, fault);
            }
        }
        Ok(())
    }

    fn damage(&mut self, place: &str, fault: String) {
        self.totals.damages += 1;
        let place = place.to_owned();
        (self.report)(VerifyEvent::Damage(DamageReport { place, fault }));
    }
}

/// The replay of a log.
struct Replay {
    /// The revision of the last entry that was read, sound or not.
    at: Revision,
    /// The document at `at`; `None` after a damaged entry until the next snapshot.
    state: Option<Snapshot>,
    /// The time of the last entry; `None` before the first one. After a damaged entry it is the latest possible time, so that
    /// nothing is concluded from it.
    last_at_ms: Option<i64>,
    /// The largest epoch of a sound entry. Epochs never fall.
    last_epoch: Epoch,
}

impl Default for Replay {
    fn default() -> Self {
        Self {
            at: Revision::ZERO,
            state: Some(Snapshot::default()),
            last_at_ms: None,
            last_epoch: Epoch::default(),
        }
    }
}

impl Replay {
    /// Continues after `revision`: its entry is damaged or missing.
    fn lose(&mut self, revision: Revision) {
        self.at = revision;
        self.state = None;
        self.last_at_ms = Some(-1);
    }

    /// Applies the next entry. A damaged one is reported; until the next snapshot there is no state to compare with.
    fn fold(&mut self, row: EntryRow) -> Result<(), String> {
        let at_ms = row.entry.as_ref().ok();
        let epoch = at_ms.map_or(self.last_epoch, |entry| entry.epoch);
        let at_ms = at_ms.map(|entry| entry.at_ms.cast_signed());
        let folded = match (row.entry, &mut self.state) {
            (Err(why), _) => Err(why),
            (Ok(_), None) => Ok(()),
            (Ok(entry), Some(state)) => state.fold(&entry).map_err(|error| error.to_string()),
        };
        match folded {
            Ok(()) => {
                self.at = row.revision;
                self.last_at_ms = at_ms;
                let highest = self.last_epoch;
                self.last_epoch = epoch.max(highest);
                if epoch < highest {
                    let revision = row.revision;
                    return Err(format!(
                        "entry {revision}: its epoch is smaller than that of an entry before it"
                    ));
                }
                Ok(())
            }
            Err(why) => {
                self.lose(row.revision);
                Err(format!("entry {}: {why}", row.revision))
            }
        }
    }
}

fn unnamed(number: i64) -> String {
    format!("document number {number}")
}

fn missing(first: Revision, last: Revision) -> String {
    match first == last {
        true => format!("entry {first}: it is missing"),
        false => format!("entries {first} to {last}: they are missing"),
    }
}
