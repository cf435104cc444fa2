//! The label of calls that succeed or fail.

use super::labels;

labels! {
    /// How a call ended.
    pub enum CallResult: "result" {
        /// It succeeded.
        Succeeded = "ok",
        /// It failed.
        Failed = "failed",
    }
}

impl CallResult {
    /// The label of this result.
    pub fn of<T, E>(result: &Result<T, E>) -> Self {
        if result.is_ok() {
            Self::Succeeded
        } else {
            Self::Failed
        }
    }
}
