//! Presence values that pass through a document: their positions are transformed to the newest known revision.

use std::sync::Arc;

use crate::id::{DocId, Name};
use crate::log::Revision;
use crate::ot::Kind;

/// A presence's value.
#[derive(Debug, Clone)]
pub struct Presence {
    /// The channel.
    pub channel: Name,
    /// The presence's name, chosen by the client, unique in the channel.
    pub id: Name,
    /// The client's count of this presence's values.
    pub version: u64,
    /// The value as JSON; `null` if the presence has ended.
    pub value: Arc<str>,
    /// Set if the value is a position in a document.
    pub position: Option<Position>,
}

impl Presence {
    /// Returns true if this value ends the presence.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        &*self.value == "null"
    }
}

/// The document state that a presence's position refers to.
#[derive(Debug, Clone)]
pub struct Position {
    /// The document.
    pub doc: DocId,
    /// The revision.
    pub revision: Revision,
    /// The document's type.
    pub kind: Kind,
}
