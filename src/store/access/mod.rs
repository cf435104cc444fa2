//! Access rows: accounts, sessions, grants, share links, revocations and the audit log.
//!
//! [`AccessStore`] is what other modules use. Its changes are [`Operation`]s, written once over the port
//! [`AccessTransaction`]; the rules in them are functions of [`crate::access`]. A store implements the port, the queries
//! ([`AccessQueries`]) and [`AccessBackend`].

mod access_store;
mod accounts;
mod audit;
mod port;
mod sessions;
mod sharing;
#[cfg(test)]
mod tests;

pub use access_store::{AccessFuture, AccessQueries, AccessStore, REVOCATIONS_PAGE};
pub(super) use port::{
    AccessBackend, AccessLock, AccessTransaction, AccountChange, AsOf, Counted, Expired,
    NewLinkRow, NewSessionRow, Operation, SessionFilter,
};
