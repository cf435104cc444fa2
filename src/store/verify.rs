//! Verification of a whole database: the checksum of every row, the order of every log, and snapshots against the replay.
//!
//! The rules are written once, over [`Rows`]; each store implements that in its dialect. Nothing is changed, and the
//! database may be in use: a document that grows while it is read is read to its new end.

use std::fmt;

use futures_util::future::BoxFuture;

use super::StoreError;
use super::snapshot_codec::unpack;
use crate::id::DocId;
use crate::log::{Entry, Revision, Snapshot};

/// How many documents are read at once, and so how often progress is reported.
pub(super) const DOCUMENTS_PAGE: usize = 1_000;

/// A database, row by row. A row that cannot be read back is returned with the reason, not as an error.
pub(super) trait Rows: Send {
    /// Reports what the database's own check finds in its files, one sentence each.
    fn check_files(&mut self) -> BoxFuture<'_, Result<Vec<String>, StoreError>>;

    /// The next documents by number, at most [`DOCUMENTS_PAGE`].
    fn documents(&mut self, after: i64) -> BoxFuture<'_, Result<Vec<DocumentRow>, StoreError>>;

    /// The row of one document; `None` if there is none of that name.
    fn find<'a>(
        &'a mut self,
        doc: &'a DocId,
    ) -> BoxFuture<'a, Result<Option<DocumentRow>, StoreError>>;

    /// The numbers in `after..=until` that have entries or snapshots and no document.
    fn orphans(&mut self, after: i64, until: i64) -> BoxFuture<'_, Result<Vec<i64>, StoreError>>;

    /// Returns true if the document is marked as existing.
    fn is_live(&mut self, document: i64) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// One page of the document's entries after `revision`, by revision; empty at the end of the log.
    fn entries(
        &mut self,
        document: i64,
        after: Revision,
    ) -> BoxFuture<'_, Result<Vec<EntryRow>, StoreError>>;

    /// The document's next snapshot after `revision`, packed.
    fn snapshot(
        &mut self,
        document: i64,
        after: Revision,
    ) -> BoxFuture<'_, Result<Option<SnapshotRow>, StoreError>>;
}

/// A row of the table of documents.
#[derive(Debug)]
pub(super) struct DocumentRow {
    pub(super) number: i64,
    /// The collection and the id, or why they are no name.
    pub(super) doc: Result<DocId, String>,
    /// Whether the row that fences its appends exists.
    pub(super) has_fence: bool,
}

/// A row of the log: the entry, or why it cannot be read.
#[derive(Debug)]
pub(super) struct EntryRow {
    pub(super) revision: Revision,
    pub(super) entry: Result<Entry, String>,
}

/// A row of the snapshots.
#[derive(Debug)]
pub(super) struct SnapshotRow {
    pub(super) revision: Revision,
    pub(super) packed: Vec<u8>,
}

/// What verification reports while it runs.
#[derive(Debug)]
pub enum VerifyEvent {
    /// Something is damaged.
    Damage(DamageReport),
    /// All documents up to this number are verified. Passed to [`VerifyRange::after`], it resumes there.
    Progress {
        /// The number of the last verified document.
        document: i64,
        /// What was read so far.
        totals: VerifyTotals,
    },
}

/// What is damaged, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamageReport {
    /// The document's name, or its number if it has no name; empty for the database's files.
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

/// Which part of a database is verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifyRange {
    /// Only documents with a larger number.
    pub after: i64,
}

/// How much was read, and how much of it is damaged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifyTotals {
    /// Documents, deleted ones included.
    pub documents: u64,
    /// Entries of their logs.
    pub entries: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Reports of [`DamageReport`].
    pub damages: u64,
}

/// Verifies the documents of `range` and returns what was read.
///
/// # Errors
/// If the database cannot be read on.
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
/// If the database cannot be read on.
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
            let (is_live, read_to) = (self.rows.is_live(document.number).await?, replay.at);
            self.log(document.number, &place, &mut replay).await?;
            let found = replay.state.as_ref().map(|it| it.content.is_some());
            // Entries that came after the row was read may have changed whether the document exists.
            if replay.at == read_to {
                if found.is_some_and(|exists| exists != is_live) {
                    let fault =
                        format!("it is marked live = {is_live}, and its log says otherwise");
                    self.damage(&place, fault);
                }
                return self
                    .snapshots_ahead(document.number, &place, replay.at)
                    .await;
            }
        }
    }

    /// Reads the entries after `replay.at` to the end of the log, and the snapshots among them.
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
                    // A snapshot in the gap says what the missing entries led to.
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

    /// Compares a snapshot with the replay, or, where the replay ended at a damaged entry, goes on from the snapshot.
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

    /// Reports the snapshots after the log's last entry.
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

/// The fold of a log as far as it was read.
struct Replay {
    /// The revision of the last entry that was read, whether or not it was sound.
    at: Revision,
    /// The document at `at`; `None` after a damaged entry, until a snapshot says what it is.
    state: Option<Snapshot>,
}

impl Default for Replay {
    fn default() -> Self {
        Self {
            at: Revision::ZERO,
            state: Some(Snapshot::default()),
        }
    }
}

impl Replay {
    /// Skips to `revision`, whose entry is damaged or missing.
    fn lose(&mut self, revision: Revision) {
        self.at = revision;
        self.state = None;
    }

    /// Folds the next entry. An unsound one is reported once; what follows it has no state to be compared with.
    fn fold(&mut self, row: EntryRow) -> Result<(), String> {
        let folded = match (row.entry, &mut self.state) {
            (Err(why), _) => Err(why),
            (Ok(_), None) => Ok(()),
            (Ok(entry), Some(state)) => state.fold(&entry).map_err(|error| error.to_string()),
        };
        match folded {
            Ok(()) => {
                self.at = row.revision;
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
