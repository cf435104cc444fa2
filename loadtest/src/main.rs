//! Loads a Copydesk server.
fn main() {}
