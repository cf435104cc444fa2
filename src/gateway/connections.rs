//! Limits the number of open HTTP connections, in total and per address.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::task::AtomicWaker;

use crate::sync::lock;

/// The open HTTP connections of all threads, TLS handshakes included. WebSockets are counted by the gateway.
///
/// At a limit, the connection that has waited longest for its client is closed in favour of the new one: a flood of
/// connections that send nothing closes itself, and a client that sends its request at once is still served.
#[derive(Debug)]
pub(super) struct Connections {
    connections_max: usize,
    /// `None` behind a proxy, because all connections have its address.
    address_connections_max: Option<usize>,
    started: Instant,
    open: Mutex<OpenConnections>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    count: usize,
    by_address: HashMap<IpAddr, Vec<Arc<ConnectionSlot>>>,
}

/// The state of a connection that other threads read.
#[derive(Debug)]
struct ConnectionSlot {
    /// When the connection began to wait for its client, in microseconds after the start; `BUSY` while it does not wait.
    waiting_since: AtomicU64,
    is_evicted: AtomicBool,
    waker: AtomicWaker,
}

const BUSY: u64 = u64::MAX;

/// The permit of an open connection. It counts towards the limits until it is dropped.
pub(super) struct ConnectionPermit {
    slot: Arc<ConnectionSlot>,
    address: IpAddr,
    connections: Arc<Connections>,
}

impl Connections {
    /// At most `connections_max` connections, of which one address has at most `address_connections_max`.
    pub(super) fn new(connections_max: usize, address_connections_max: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            connections_max,
            address_connections_max,
            started: Instant::now(),
            open: Mutex::default(),
        })
    }

    /// Admits a new connection, which waits for its client. `None` if a limit is reached and every connection that could be
    /// closed is being served.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionPermit> {
        let mut open = lock(&self.open);
        let of_address = open.by_address.get(&address).map_or(0, Vec::len);
        if self
            .address_connections_max
            .is_some_and(|max| of_address >= max)
        {
            open.evict(Some(address))?;
        } else if open.count >= self.connections_max {
            open.evict(None)?;
        }
        let slot = Arc::new(ConnectionSlot {
            waiting_since: AtomicU64::new(self.now()),
            is_evicted: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        open.count += 1;
        let of_address = open.by_address.entry(address).or_default();
        of_address.push(slot.clone());
        Some(ConnectionPermit {
            slot,
            address,
            connections: self.clone(),
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(BUSY - 1)
    }
}

impl OpenConnections {
    /// Closes the connection that has waited longest, of one address or of all. `None` if no connection waits.
    fn evict(&mut self, address: Option<IpAddr>) -> Option<()> {
        let candidates = self
            .by_address
            .iter()
            .filter(|(of, _)| address.is_none_or(|address| address == **of))
            .flat_map(|(of, slots)| slots.iter().map(move |slot| (*of, slot)));
        let (address, slot) = candidates
            .filter(|(_, slot)| slot.waiting_since.load(Ordering::Relaxed) != BUSY)
            .min_by_key(|(_, slot)| slot.waiting_since.load(Ordering::Relaxed))?;
        let slot = slot.clone();
        self.remove(address, &slot);
        slot.is_evicted.store(true, Ordering::Release);
        slot.waker.wake();
        Some(())
    }

    fn remove(&mut self, address: IpAddr, slot: &Arc<ConnectionSlot>) {
        let Some(slots) = self.by_address.get_mut(&address) else {
            return;
        };
        if let Some(at) = slots.iter().position(|other| Arc::ptr_eq(other, slot)) {
            slots.swap_remove(at);
            self.count -= 1;
        }
        if slots.is_empty() {
            self.by_address.remove(&address);
        }
    }
}

impl ConnectionPermit {
    /// A request is being served: the connection is not evicted.
    pub(super) fn set_busy(&self) {
        self.slot.waiting_since.store(BUSY, Ordering::Relaxed);
    }

    /// The connection waits for its client: it may be evicted.
    pub(super) fn set_waiting(&self) {
        let now = self.connections.now();
        self.slot.waiting_since.store(now, Ordering::Relaxed);
    }

    /// Whether the connection must end; if not, the task is woken when it must.
    pub(super) fn poll_evicted(&self, cx: &Context<'_>) -> bool {
        self.slot.waker.register(cx.waker());
        self.slot.is_evicted.load(Ordering::Acquire)
    }

    /// Completes when the connection must be closed.
    pub(super) async fn evicted(&self) {
        let poll = |cx: &mut Context<'_>| match self.poll_evicted(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        };
        poll_fn(poll).await;
    }
}

impl fmt::Debug for ConnectionPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionPermit")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = lock(&self.connections.open);
        open.remove(self.address, &self.slot);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn is_evicted(place: &ConnectionPermit) -> bool {
        place.poll_evicted(&Context::from_waker(Waker::noop()))
    }

    /// A connection that waits since the given time.
    fn admitted(connections: &Arc<Connections>, last: u8, waiting_since: u64) -> ConnectionPermit {
        let place = connections.admit(address(last)).unwrap();
        place
            .slot
            .waiting_since
            .store(waiting_since, Ordering::Relaxed);
        place
    }

    #[test]
    fn longest_waiting_connection_of_the_address_is_evicted() {
        let connections = Connections::new(10, Some(3));
        let other = admitted(&connections, 2, 0);
        let places = [5, 1, 3].map(|since| admitted(&connections, 1, since));
        places[1].set_busy();
        let _new = admitted(&connections, 1, 9);
        assert_eq!(
            places.each_ref().map(is_evicted),
            [false, false, true],
            "a connection that is served stays"
        );
        assert!(!is_evicted(&other));
    }

    #[test]
    fn connection_is_rejected_while_all_others_are_served() {
        let connections = Connections::new(10, Some(1));
        let place = admitted(&connections, 1, 0);
        place.set_busy();
        assert!(connections.admit(address(1)).is_none());
        place.set_waiting();
        assert!(connections.admit(address(1)).is_some());
        assert!(is_evicted(&place));
    }

    #[test]
    fn total_is_limited_and_dropped_permits_are_returned() {
        let connections = Connections::new(3, None);
        let places = [1, 2, 3].map(|last| admitted(&connections, last, last.into()));
        let new = admitted(&connections, 4, 9);
        assert_eq!(places.each_ref().map(is_evicted), [true, false, false]);
        drop((places, new));
        let open = connections.open.lock().unwrap();
        assert_eq!((open.count, open.by_address.len()), (0, 0));
    }
}
