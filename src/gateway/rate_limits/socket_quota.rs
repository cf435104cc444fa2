//! How many sockets each user and each tenant may have open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// Limits the sockets that are open for each key.
#[derive(Debug)]
pub(super) struct SocketQuota {
    /// `None`: any number.
    sockets_max: Option<usize>,
    counts: Arc<Mutex<HashMap<String, usize>>>,
}

/// The user or the tenant has as many sockets open as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) struct SocketQuotaExceeded;

/// Counts one open socket until it is dropped.
#[derive(Debug)]
pub(in crate::gateway) struct SocketPermit {
    key: String,
    counts: Arc<Mutex<HashMap<String, usize>>>,
}

impl SocketQuota {
    /// At most `sockets_max` for each key; 0: any number.
    pub(super) fn new(sockets_max: usize) -> Self {
        Self {
            sockets_max: (sockets_max > 0).then_some(sockets_max),
            counts: Arc::default(),
        }
    }

    /// Counts one more socket. `None` if their number is not limited.
    pub(super) fn acquire(&self, key: &str) -> Result<Option<SocketPermit>, SocketQuotaExceeded> {
        let Some(sockets_max) = self.sockets_max else {
            return Ok(None);
        };
        let mut counts = lock(&self.counts);
        let count = counts.entry(key.to_owned()).or_default();
        if *count >= sockets_max {
            return Err(SocketQuotaExceeded);
        }
        *count += 1;
        Ok(Some(SocketPermit {
            key: key.to_owned(),
            counts: self.counts.clone(),
        }))
    }
}

impl Drop for SocketPermit {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}
