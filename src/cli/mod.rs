//! The command line: its arguments, and what each command does.

pub(crate) mod arguments;
pub(crate) mod database;
pub(crate) mod dead_letters;
pub(crate) mod documents;
mod open_store;
pub(crate) mod serve;
