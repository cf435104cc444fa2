//! What makes several nodes one server: the [`Ring`] says which node should own a document, a [`Transport`] carries
//! messages between nodes. Over Redis, which only this room knows, or in memory for tests; one suite,
//! `tests/transport.rs`, holds both to what [`Transport`] promises.

mod channel;
mod frame;
mod membership;
mod outgoing;
mod redis;
mod ring;
mod transport;

pub use channel::Exchange;
pub use membership::{Due, Membership};
pub use redis::{BadRedisUrl, RedisSettings, RedisTransport, RedisTrouble, RedisUrl};
pub use ring::Ring;
pub use transport::{Counts, Delivery, Health, Inbox, Transport};
