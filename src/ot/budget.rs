//! Bounds of the cost of one op, the size of the result and the work, which are checked during the computation.

use super::error::OtError;

/// The work and size that remain for one op. Transform and compose take from it before each piece that they write, and
/// fail with [`OtError::TooLarge`] when it is used up.
///
/// A step is one piece of an op that is read and written, plus one for every 8 attributes and every kilobyte of
/// attributes that are merged for it: about 100 ns in a release build. Steps, unlike time, are the same on every node.
///
/// ```
/// use copydesk::ot::{Budget, Kind, Op};
///
/// let op = Op::parse(Kind::TextUnicode, "[1, \"b\"]")?;
/// assert!(op.compose_within(&op, &mut Budget::new(0, 1 << 20)).is_err());
/// assert!(op.compose_within(&op, &mut Budget::new(1_000, 1 << 20)).is_ok());
/// # Ok::<(), copydesk::ot::OtError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    steps: u64,
    bytes_max: usize,
}

impl Budget {
    /// A budget of `steps` steps, for results of at most `bytes_max` bytes each (as [`Op::size`](super::Op::size) counts
    /// them).
    #[must_use]
    pub const fn new(steps: u64, bytes_max: usize) -> Self {
        Self { steps, bytes_max }
    }

    /// The steps that are left.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// Takes `steps` from the remaining steps.
    ///
    /// # Errors
    /// `TooLarge` if fewer remain; no steps remain then.
    pub fn spend(&mut self, steps: u64) -> Result<(), OtError> {
        match self.steps.checked_sub(steps) {
            Some(left) => {
                self.steps = left;
                Ok(())
            }
            None => {
                self.steps = 0;
                Err(TOO_MUCH_WORK)
            }
        }
    }

    /// Takes the `steps` of a piece, and checks the current size of the result.
    pub(super) fn charge(&mut self, steps: u64, bytes: usize) -> Result<(), OtError> {
        if bytes > self.bytes_max {
            return Err(OUTCOME_TOO_LARGE);
        }
        self.spend(steps)
    }
}

/// For callers without a bound of their own, such as clients: results have at most [`CONTENT_BYTES_MAX`].
impl Default for Budget {
    fn default() -> Self {
        Self::new(u64::MAX, CONTENT_BYTES_MAX)
    }
}

/// The largest content in bytes. Larger ones are rejected while they are read or computed, even if an older version stored
/// them.
pub const CONTENT_BYTES_MAX: usize = 64 << 20;

/// The bounds of a content that an op is applied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentBounds {
    /// The most bytes of the content afterwards, as [`Content::size_bytes`](super::Content::size_bytes) counts them. An op
    /// that makes a larger content smaller is applied.
    pub bytes_max: usize,
    /// The most bytes, as JSON, of the attributes that an op leaves on one run of text.
    pub attribute_bytes_max: usize,
}

impl ContentBounds {
    /// The bounds of a committed op. Ops that older versions accepted are applied, up to [`CONTENT_BYTES_MAX`].
    pub const LOGGED: Self = Self {
        bytes_max: CONTENT_BYTES_MAX,
        attribute_bytes_max: usize::MAX,
    };

    /// The bounds of a new op: `bytes_max` for the content, 64 KiB for the attributes of a run.
    #[must_use]
    pub const fn of_new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            attribute_bytes_max: super::error::ATTRIBUTE_BYTES_MAX,
        }
    }
}

const TOO_MUCH_WORK: OtError =
    OtError::TooLarge("Too many concurrent changes to combine with this op: send smaller ops");

const OUTCOME_TOO_LARGE: OtError =
    OtError::TooLarge("The op becomes too large when it is combined with concurrent changes");
