//! Membership, placement and transport of a cluster.
//!
//! [`Membership`] detects failed nodes, the [`HashRing`] built from it names the node that should own each document, and a
//! [`Transport`] carries messages between nodes: over Redis Streams, over direct links while Redis does not answer, or in
//! memory for tests. `tests/transport.rs` runs one suite over all transports. No other module uses Redis.

mod cluster_transport;
mod compatibility;
mod direct;
mod membership;
mod memory;
mod packing;
mod redis;
mod ring;
mod send_queue;
mod transport;

pub use cluster_transport::{ClusterError, ClusterTransport};
pub use compatibility::incompatible_nodes;
pub use direct::{ClusterSettings, ListenAddress};
pub use membership::{Membership, MembershipActions};
pub use memory::MemoryNetwork;
pub use redis::{BadRedisUrl, RedisError, RedisSettings, RedisTransport, RedisUrl};
pub use ring::HashRing;
pub use transport::{Delivery, Health, Inbox, Transport, TransportStats};
