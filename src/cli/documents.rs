//! Commands on one document: `locate` and `repair`.

use anyhow::{Context, Result, bail};
use copydesk::config::Config;
use copydesk::doc::Salvaged;
use copydesk::id::{DocId, NodeId};
use copydesk::node::{self, RepairMode};
use copydesk::store::{PostgresStore, SqliteStore, Store, StoreError};

use super::open_store::{OpenStore, new_node_id};

/// Prints the owner of a document, its epoch and newest revision, and its damage.
pub(crate) async fn locate(doc: &str, config: &Config) -> Result<()> {
    let doc = parse_doc(doc)?;
    let found = match config.is_shared() {
        true => PostgresStore::locate(&config.postgres, &doc).await?,
        false => SqliteStore::locate(&config.server.data, &doc)?,
    };
    let Some(found) = found else {
        bail!("no node has opened {doc} for writing yet");
    };
    let owner = match (found.owner_name, found.owner) {
        (Some(name), Some(id)) if found.owner_lives => format!("{name} ({id})"),
        (Some(name), Some(id)) => {
            format!("{name} ({id}), which is gone: the next write makes another node the owner")
        }
        _ => "the one node of this data folder".to_owned(),
    };
    println!("document  {doc}");
    println!("owner     {owner}");
    println!("epoch     {}", found.epoch.0);
    println!("revision  {}", found.head);
    let faults = match config.is_shared() {
        true => PostgresStore::verify_document(&config.postgres, &doc).await?,
        false => SqliteStore::verify_document(&config.server.data, &doc).await?,
    };
    for fault in faults {
        println!("damage    {fault}");
    }
    Ok(())
}

/// Repairs a document, and prints what was done.
pub(crate) async fn repair(doc: &str, mode: RepairMode, config: &Config) -> Result<()> {
    let doc = parse_doc(doc)?;
    let me = new_node_id()?;
    let store = OpenStore::open_existing(config, me).await?;
    let repaired = repair_fence_and_log(&*store.get(), &doc, me, mode).await;
    store.close().await?;
    let (fence_restored, saved) = repaired?;
    if fence_restored {
        println!("{doc}: its fence was restored");
    }
    if saved.is_whole() {
        println!(
            "{doc} is sound at revision {}: its log was not changed",
            saved.snapshot.revision
        );
        return Ok(());
    }
    let done = match mode {
        RepairMode::DryRun => "would be",
        RepairMode::Write => "was",
    };
    let content = &saved.snapshot.content;
    let bytes = content.as_ref().map_or(0, |content| content.size_bytes());
    println!("document            {doc}: it {done} made anew with {bytes} bytes");
    let revisions: Vec<String> = saved
        .without_attributes
        .iter()
        .map(ToString::to_string)
        .collect();
    println!("without attributes  revisions {}", revisions.join(", "));
    if let Some(revision) = saved.left_out_from {
        println!("left out            revision {revision} and all after it");
    }
    Ok(())
}

/// Repairs the fence first, because the repair of the log claims the document. Returns true if the fence was damaged.
async fn repair_fence_and_log(
    store: &dyn Store,
    doc: &DocId,
    me: NodeId,
    mode: RepairMode,
) -> Result<(bool, Salvaged), StoreError> {
    let fence_restored = mode == RepairMode::Write && store.restore_fence(doc).await?;
    Ok((fence_restored, node::repair(store, doc, me, mode).await?))
}

/// Parses `COLLECTION/ID`.
pub(super) fn parse_doc(doc: &str) -> Result<DocId> {
    let (collection, id) = doc.split_once('/').context("a document is COLLECTION/ID")?;
    DocId::parse(collection, id).context(format!("{doc:?} is not the name of a document"))
}
