//! `copydesk repair`: repairs an oversized or damaged document.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::doc::{Salvaged, salvage};
use crate::id::{ClientId, DocId, NodeId, UserId};
use crate::log::{Change, Entry, Fence, Revision, Snapshot, SubmitId};
use crate::store::{Batch, LoadRange, Store, StoreError, StoreErrorKind};

/// Whether a repair is written to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepairMode {
    /// Only report what would be done.
    DryRun,
    /// Write the repaired document.
    Write,
}

/// Repairs a document that is larger than what may be held in memory, or that has a damaged log. The document is deleted and
/// created again, at the next two revisions, with what [`salvage`] recovers: of a damaged log, the state before the damage.
/// Earlier entries stay as they are. Returns what was recovered; if that is everything, nothing is written.
///
/// If the end of the log is lost, entries without effect take the place of the lost ones: a revision that was acknowledged for
/// another op is not used again, as far as the store has a trace of it ([`Store::highest_revision`]).
///
/// Claims the document as `me`, from any node that owns it.
///
/// # Errors
/// If the store does not answer, no state is readable before the damage, or another node claims the document at the same time.
pub async fn repair(
    store: &dyn Store,
    doc: &DocId,
    me: NodeId,
    mode: RepairMode,
) -> Result<Salvaged, StoreError> {
    let found = load(store, doc).await?;
    if mode == RepairMode::DryRun || found.is_whole() {
        return Ok(found);
    }
    let lease = store.claim(doc, me).await?;
    // Loaded again: another node may have appended until the claim.
    let salvaged = load(store, doc).await?;
    if !salvaged.is_whole() {
        let highest = store.highest_revision(doc).await?;
        write(
            store,
            doc,
            lease.fence,
            (lease.head, highest),
            &salvaged.snapshot,
        )
        .await?;
    }
    Ok(salvaged)
}

async fn load(store: &dyn Store, doc: &DocId) -> Result<Salvaged, StoreError> {
    // Before the load, so that an entry that is appended meanwhile is not taken for a lost one.
    let highest = store.highest_revision(doc).await?;
    let loaded = match store.load(doc, LoadRange::Head).await {
        Err(error) if matches!(error.kind, StoreErrorKind::Damaged { .. }) => {
            store.load(doc, LoadRange::BeforeDamage).await?
        }
        loaded => loaded?,
    };
    let salvaged = tokio::task::spawn_blocking(move || {
        let mut whole = loaded.snapshot.clone();
        match whole.fold_all(&loaded.entries) {
            Ok(()) if whole.revision == loaded.head && highest <= loaded.head => {
                Ok(Salvaged::whole(whole))
            }
            Ok(()) if whole.content.is_none() => Err(StoreError::new(
                "repair",
                "the damage is in the first entries: nothing can be saved",
            )),
            // A snapshot beyond the head would count as newer than the state that is written here.
            Ok(()) if whole.revision > loaded.head => Err(StoreError::new(
                "repair",
                "the end of the log is missing, and a snapshot of it exists: restore a backup",
            )),
            Ok(()) => Ok(Salvaged {
                left_out_from: Some(whole.revision.next()),
                ..Salvaged::whole(whole)
            }),
            Err(_) => Ok(salvage(loaded.snapshot, &loaded.entries)),
        }
    });
    salvaged
        .await
        .map_err(|error| StoreError::new("repair", error))?
}

/// How many lost entries are replaced at most. More than that is taken for damage of the number itself.
const LOST_MAX: u64 = 100_000;

/// Deletes the document and creates it with the recovered state, in one transaction, at revisions after `highest`. The log ends
/// at `head`.
async fn write(
    store: &dyn Store,
    doc: &DocId,
    fence: Fence,
    (head, highest): (Revision, Revision),
    saved: &Snapshot,
) -> Result<(), StoreError> {
    let lost = highest.0.saturating_sub(head.0);
    if lost > LOST_MAX {
        let reason = format!("{lost} entries are missing at the end of the log: restore a backup");
        return Err(StoreError::new("repair", reason));
    }
    let mut changes = vec![Change::Nothing; lost as usize];
    changes.push(Change::Delete);
    changes.extend(saved.content.clone().map(Change::Create));
    let client = ClientId::parse(&format!("repair-{:032x}", fence.token))
        .map_err(|error| StoreError::new("repair", error))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    let entries: Vec<_> = (1..)
        .zip(changes)
        .map(|(seq, change)| {
            Arc::new(Entry {
                revision: Revision(head.0 + seq),
                epoch: fence.epoch,
                id: SubmitId {
                    author: UserId::anyone(),
                    client: client.clone(),
                    seq,
                },
                at_ms: now_ms.max(saved.at_ms),
                change,
            })
        })
        .collect();
    let mut snapshot = Snapshot {
        revision: head,
        ..Snapshot::default()
    };
    snapshot
        .fold_all(&entries)
        .map_err(|error| StoreError::new("repair", error))?;
    let batch = Batch {
        doc: doc.clone(),
        fence,
        entries,
    };
    let answer = store.append(vec![batch]).await?.pop();
    answer
        .unwrap_or(Err(crate::store::AppendError::Fenced))
        .map_err(|error| StoreError::new("repair", error))?;
    store.save_snapshot(doc, fence, snapshot).await
}
