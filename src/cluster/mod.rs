//! What makes several nodes one server: the [`HashRing`] says which node should own a document, a [`Transport`] carries
//! messages between nodes: over Redis, which only this module knows, and over direct links while Redis is silent, or in
//! memory for tests. One suite, `tests/transport.rs`, holds all of them to what [`Transport`] promises.

mod channel;
mod compatibility;
mod direct;
mod frame;
mod membership;
mod outgoing;
mod redis;
mod ring;
mod transport;
mod ways;

pub use channel::MemoryNetwork;
pub use compatibility::incompatible_nodes;
pub use direct::{ClusterSettings, ListenAddress};
pub use membership::{Membership, MembershipActions};
pub use redis::{BadRedisUrl, RedisError, RedisSettings, RedisTransport, RedisUrl};
pub use ring::HashRing;
pub use transport::{Delivery, Health, Inbox, Transport, TransportStats};
pub use ways::{ClusterError, ClusterTransport};
