//! The sessions of this node that are sent every commit.

use std::sync::Arc;

use crate::id::SessionId;

/// The subscribed sessions, sorted. A delivery shares the list.
#[derive(Debug, Default)]
pub(super) struct Subscribers(Arc<Vec<SessionId>>);

impl Subscribers {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains(&self, session: SessionId) -> bool {
        self.0.binary_search(&session).is_ok()
    }

    pub(super) fn add(&mut self, session: SessionId) {
        if let Err(place) = self.0.binary_search(&session) {
            Arc::make_mut(&mut self.0).insert(place, session);
        }
    }

    pub(super) fn remove(&mut self, session: SessionId) {
        if let Ok(place) = self.0.binary_search(&session) {
            Arc::make_mut(&mut self.0).remove(place);
        }
    }

    /// The list as it is now.
    pub(super) fn shared(&self) -> Arc<Vec<SessionId>> {
        self.0.clone()
    }
}
