//! The clock of the Postgres server, which is the same for all nodes.

/// An SQL expression: the time at which the statement began, in milliseconds since 1970.
macro_rules! now_ms {
    () => {
        "floor(extract(epoch FROM statement_timestamp()) * 1000)::bigint"
    };
}
pub(super) use now_ms;
