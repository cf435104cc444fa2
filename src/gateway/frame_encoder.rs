//! Encodes what the node sends to sockets, in the ShareDB protocol.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::doc::{EncodedSnapshot, Presence, Rejection};
use crate::id::{ClientId, DocId, Name};
use crate::log::{Entry, Snapshot};
use crate::node::{CommitAuthor, FrameEncoder, ReplyEncoder, SnapshotNotice};
use crate::protocol::{self, CloseReason, EchoedFields, Frames, Refusal, close_frame};

/// Encodes frames of the ShareDB protocol.
#[derive(Debug, Clone, Copy)]
pub struct ShareDbEncoder;

impl FrameEncoder for ShareDbEncoder {
    fn commits(&self, doc: &DocId, entries: &[Arc<Entry>], reader: Option<&CommitAuthor>) -> Bytes {
        let (mut frames, mut scratch) = (Frames::new(), Vec::new());
        for entry in entries {
            let is_marked_own = reader.is_some_and(|reader| reader.is_marked_in(entry));
            let client = if is_marked_own {
                entry.id.client.unmarked()
            } else {
                entry.id.client.as_str()
            };
            protocol::commit(doc, entry, client, &mut frames, &mut scratch);
        }
        frames.finish()
    }

    fn presence(&self, client: &ClientId, presence: &Presence) -> Bytes {
        protocol::presence(client, presence)
    }

    fn presence_request(&self, channel: &Name) -> Bytes {
        protocol::presence_requested(channel)
    }

    fn close(&self, reason: CloseReason) -> Bytes {
        close_frame(reason)
    }

    fn snapshot(&self, snapshot: &Snapshot) -> EncodedSnapshot {
        protocol::encode_snapshot(snapshot)
    }

    fn snapshot_with_notice(
        &self,
        snapshot: &Snapshot,
        notice: &SnapshotNotice,
    ) -> EncodedSnapshot {
        let notice = match notice {
            SnapshotNotice::ReadOnly(rejection) => rejection.clone().into(),
            SnapshotNotice::StoreAway => Refusal::store_away(snapshot.revision),
        };
        protocol::encode_snapshot_with_notice(snapshot, &notice)
    }
}

impl ReplyEncoder for EchoedFields {
    fn snapshot(&self, snapshot: &EncodedSnapshot) -> Vec<Bytes> {
        protocol::snapshot_reply(self, snapshot)
    }

    fn done(&self) -> Bytes {
        protocol::done(self)
    }

    fn rejection(&self, rejection: Rejection) -> Bytes {
        protocol::error(self, &rejection.into())
    }

    fn bulk(
        &self,
        read: &BTreeMap<Name, Option<Arc<EncodedSnapshot>>>,
        rejected: &BTreeMap<Name, Refusal>,
    ) -> Vec<Bytes> {
        protocol::bulk_reply(self, read, rejected)
    }
}
