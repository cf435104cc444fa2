//! The presence values that wait behind other frames of a socket.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::id::{ClientId, Name};

/// Identifies a presence: its channel, the client that publishes it, its name.
pub(in crate::node) type PresenceKey = (Name, ClientId, Name);

/// The newest value of each presence, in the order of their first values.
#[derive(Debug, Default)]
pub(super) struct PendingPresences {
    order: VecDeque<PresenceKey>,
    values: HashMap<PresenceKey, Bytes>,
    bytes: usize,
}

impl PendingPresences {
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The size of all values.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Replaces the value of this presence. The first value of another presence is dropped if all values together would
    /// take more than `bytes_max`.
    pub(super) fn put(&mut self, key: &PresenceKey, frame: &Bytes, bytes_max: usize) {
        if let Some(value) = self.values.get_mut(key) {
            self.bytes = self.bytes + frame.len() - value.len();
            *value = frame.clone();
        } else if self.bytes + frame.len() <= bytes_max {
            self.bytes += frame.len();
            self.order.push_back(key.clone());
            self.values.insert(key.clone(), frame.clone());
        }
    }

    /// Removes the oldest presence and returns its value.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        let key = self.order.pop_front()?;
        let value = self.values.remove(&key)?;
        self.bytes -= value.len();
        if self.order.is_empty() {
            // Frees the memory of a burst.
            *self = Self::default();
        }
        Some(value)
    }
}
