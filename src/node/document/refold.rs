//! Brings an encoded snapshot that is in memory to a newer revision, without the store.

use std::sync::Arc;

use super::task::off_path;
use crate::doc::EncodedSnapshot;
use crate::log::{Entry, Snapshot};
use crate::node::Node;
use crate::ot::Content;
use crate::protocol::{Refusal, encode_snapshot_with_notice};

impl Node {
    /// Folds `entries` into `shown`, with a notice that the store is away and this may not be the newest state. `None` if they
    /// do not fit, or there is no room for it.
    pub(in crate::node) async fn refold(
        &self,
        shown: Arc<EncodedSnapshot>,
        entries: Vec<Arc<Entry>>,
    ) -> Option<Arc<EncodedSnapshot>> {
        let _turn = self.snapshot_turn("encode").await.ok()?;
        let bytes = shown.size() + entries.iter().map(|entry| entry.size()).sum::<usize>();
        let refolded = off_path(bytes, move || fold(&shown, &entries)).await?;
        Some(Arc::new(self.snapshots().count(refolded)))
    }
}

fn fold(shown: &EncodedSnapshot, entries: &[Arc<Entry>]) -> Option<EncodedSnapshot> {
    let content = match shown.kind {
        Some(kind) => {
            let data = shown.content_json();
            let json = std::str::from_utf8(&data).ok()?;
            Some(Content::create_logged(kind, json).ok()?)
        }
        None => None,
    };
    let mut snapshot = Snapshot {
        revision: shown.revision,
        content,
        ..Snapshot::default()
    };
    snapshot.fold_all(entries).ok()?;
    let notice = Refusal::store_away(snapshot.revision);
    Some(encode_snapshot_with_notice(&snapshot, &notice))
}
