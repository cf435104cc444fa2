//! Transforms presence positions to the tail's head.

use super::Forwarder;
use crate::doc::presence::Presence;
use crate::id::ClientId;
use crate::log::Change;
use crate::ot::transform_presence;

impl Forwarder {
    /// Transforms a presence of `client` to the tail's head, as far as the tail reaches back. A presence that has ended keeps
    /// its value at every revision; one that loses its position becomes `null`.
    pub(in crate::doc) fn rebase_presence(&self, client: &ClientId, presence: &mut Presence) {
        let is_gone = presence.is_gone();
        let (Some(position), Some(tail)) = (&mut presence.position, &self.tail) else {
            return;
        };
        if is_gone {
            position.revision = position.revision.max(tail.head());
            return;
        }
        let unseen = tail.since(position.revision);
        let Some(unseen) = unseen.filter(|unseen| unseen.len() > 0) else {
            return;
        };
        let Ok(mut value) = serde_json::from_str::<serde_json::Value>(&presence.value) else {
            return;
        };
        for entry in unseen {
            match &entry.change {
                Change::Edit(op) => {
                    let own = entry.id.client == *client;
                    if transform_presence(position.kind, &mut value, op, own).is_err() {
                        value = serde_json::Value::Null;
                    }
                }
                Change::Create(_) | Change::Delete => value = serde_json::Value::Null,
                Change::Nothing => {}
            }
        }
        position.revision = tail.head();
        presence.value = value.to_string().into();
    }
}
