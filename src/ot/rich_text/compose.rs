//! Composes two Deltas.

use super::super::budget::Budget;
use super::super::error::OtError;
use super::attributes::{Attributes, Nulls};
use super::delta::{Component, Delta};
use super::output::Output;
use super::walk::{Piece, Walk};

impl Delta {
    /// Composes this op and then `next` into one op.
    ///
    /// # Errors
    /// When `next` cuts a surrogate pair that this op inserts; `TooLarge` when it would exceed `budget`.
    pub fn compose(&self, next: &Self, budget: &mut Budget) -> Result<Self, OtError> {
        let mut out = Output::new(budget);
        let (mut own, mut next) = (Walk::new(self), Walk::new(next));
        while !(own.is_at_end() && next.is_at_end()) {
            if next.at_insert() {
                if let Some(piece) = next.take_component() {
                    out.push(piece)?;
                }
            } else if own.at_delete() {
                if let Some(piece) = own.take_component() {
                    out.push(piece)?;
                }
            } else {
                let len = own.len().min(next.len());
                let (mine, theirs) = (own.take(len)?, next.take(len)?);
                match theirs {
                    Piece::Delete { .. } if mine.is_insert() => out.pass()?,
                    Piece::Delete { .. } => out.push(theirs)?,
                    _ => {
                        let is_apart = out.push_retained(mine, theirs.attributes())?;
                        if is_apart && next.is_at_end() {
                            out.push_rest(own)?;
                            break;
                        }
                    }
                }
            }
        }
        Ok(out.finish())
    }
}

impl Output<'_> {
    /// Adds the part of `piece` that the next op retains. Returns true if it is now the last component by itself.
    fn push_retained(
        &mut self,
        piece: Piece<'_>,
        attributes: Option<&Attributes>,
    ) -> Result<bool, OtError> {
        self.merge(piece.attributes(), attributes)?;
        let nulls = if piece.is_insert() {
            Nulls::Drop
        } else {
            Nulls::Keep
        };
        let attributes = Attributes::compose(piece.attributes(), attributes, nulls);
        let count = self.components().len();
        self.push(piece.with_attributes(attributes.as_ref()))?;
        let is_delete = matches!(self.components().last(), Some(Component::Delete { .. }));
        Ok(self.components().len() > count && !is_delete)
    }

    /// Adds the rest that the next op leaves unchanged, in its original order, as the npm package does.
    fn push_rest(&mut self, mut rest: Walk<'_>) -> Result<(), OtError> {
        if let Some(piece) = rest.take_component() {
            self.push(piece)?;
        }
        while let Some(piece) = rest.take_component() {
            self.push_in_order(piece)?;
        }
        Ok(())
    }
}
