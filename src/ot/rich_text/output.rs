//! Builds a Delta within a budget.

use super::super::budget::Budget;
use super::super::error::OtError;
use super::attributes::Attributes;
use super::delta::{Component, Delta};
use super::walk::Piece;

/// A Delta under construction. The cost of each piece is taken from the budget before it is added.
#[derive(Debug)]
pub(super) struct Output<'b> {
    delta: Delta,
    /// The size of `delta`.
    bytes: usize,
    budget: &'b mut Budget,
}

impl<'b> Output<'b> {
    pub(super) fn new(budget: &'b mut Budget) -> Self {
        Self {
            delta: Delta::default(),
            bytes: 0,
            budget,
        }
    }

    /// Adds a piece, as [`Delta::push`] does.
    pub(super) fn push(&mut self, piece: Piece<'_>) -> Result<(), OtError> {
        self.pay(&piece)?;
        self.bytes += self.delta.push(piece);
        Ok(())
    }

    /// Adds a piece at the very end, as [`Delta::push_in_order`] does.
    pub(super) fn push_in_order(&mut self, piece: Piece<'_>) -> Result<(), OtError> {
        self.pay(&piece)?;
        self.bytes += self.delta.push_in_order(piece);
        Ok(())
    }

    /// Adds a plain retain.
    pub(super) fn push_retain(&mut self, len: u64) -> Result<(), OtError> {
        if len == 0 {
            return Ok(());
        }
        let attributes = None;
        self.push(Piece::Retain { len, attributes })
    }

    /// Takes the cost of a piece that is read and not added.
    pub(super) fn pass(&mut self) -> Result<(), OtError> {
        self.budget.charge(1, self.bytes)
    }

    /// Takes the cost of merging two sets of attributes.
    pub(super) fn merge(
        &mut self,
        one: Option<&Attributes>,
        other: Option<&Attributes>,
    ) -> Result<(), OtError> {
        let steps = |attributes: Option<&Attributes>| attributes.map_or(0, Attributes::steps);
        self.budget.spend(steps(one) + steps(other))
    }

    pub(super) fn components(&self) -> &[Component] {
        self.delta.components()
    }

    /// The finished op, without a plain retain at its end.
    pub(super) fn finish(self) -> Delta {
        self.delta.chop()
    }

    fn pay(&mut self, piece: &Piece<'_>) -> Result<(), OtError> {
        let (body, attributes) = match piece {
            Piece::Text {
                text, attributes, ..
            } => (text.len(), attributes),
            Piece::Embed { value, attributes } => (value.len(), attributes),
            Piece::Retain { attributes, .. } => (0, attributes),
            Piece::Delete { .. } => (0, &None),
        };
        let attributes = attributes.map_or(0, Attributes::size);
        let steps = 1 + (attributes / 4096 + body / 4096) as u64;
        self.budget.charge(steps, self.bytes + body + attributes)
    }
}
