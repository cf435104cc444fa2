//! Builds a text op within a budget.

use super::super::budget::Budget;
use super::super::error::OtError;
use super::op::TextOp;
use super::walk::{Piece, Walk};

/// A text op under construction. The cost of each piece is taken from the budget before it is added.
#[derive(Debug)]
pub(super) struct Output<'b> {
    op: TextOp,
    /// The size of `op`.
    bytes: usize,
    budget: &'b mut Budget,
}

impl<'b> Output<'b> {
    pub(super) fn new(budget: &'b mut Budget) -> Self {
        Self {
            op: TextOp::default(),
            bytes: 0,
            budget,
        }
    }

    /// Adds a piece, as [`TextOp::push`] does.
    pub(super) fn push(&mut self, piece: Piece<'_>) -> Result<(), OtError> {
        self.op.push_within(piece, &mut self.bytes, self.budget)
    }

    /// Adds the rest of an op.
    pub(super) fn push_rest(&mut self, mut rest: Walk<'_>) -> Result<(), OtError> {
        while let Some(piece) = rest.take_component() {
            self.push(piece)?;
        }
        Ok(())
    }

    /// Takes the cost of a piece that is read and not added.
    pub(super) fn pass(&mut self) -> Result<(), OtError> {
        self.budget.charge(1, self.bytes)
    }

    /// The finished op, without a keep at its end.
    pub(super) fn finish(self) -> TextOp {
        self.op.trim()
    }
}
