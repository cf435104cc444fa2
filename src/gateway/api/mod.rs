//! The JSON API: handlers, what they extract from requests, and the bodies of requests and responses.

mod documents;
mod extract;
mod messages;
mod sessions;
mod sharing;
mod tenant;
mod text_ops;

pub(super) mod routes;
