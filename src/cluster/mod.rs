//! What makes several nodes one server: the [`HashRing`] says which node should own a document, a [`Transport`] carries
//! messages between nodes: over Redis, which only this module knows, and over direct links while Redis is silent, or in
//! memory for tests. One suite, `tests/transport.rs`, holds all of them to what [`Transport`] promises.

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
