//! Two Deltas in one.

use super::super::error::OtError;
use super::attributes::{Attributes, Nulls};
use super::delta::{Component, Delta};
use super::walk::{Piece, Walk};

impl Delta {
    /// One op that does what this one and then `next` do.
    ///
    /// # Errors
    /// When `next` cuts a surrogate pair that this op inserts.
    pub fn compose(&self, next: &Self) -> Result<Self, OtError> {
        let mut out = Self::default();
        let (mut own, mut next) = (Walk::new(self), Walk::new(next));
        while !(own.is_at_end() && next.is_at_end()) {
            if next.at_insert() {
                next.take_component()
                    .into_iter()
                    .for_each(|piece| out.push(piece));
            } else if own.at_delete() {
                own.take_component()
                    .into_iter()
                    .for_each(|piece| out.push(piece));
            } else {
                let len = own.len().min(next.len());
                let (mine, theirs) = (own.take(len)?, next.take(len)?);
                match theirs {
                    Piece::Delete { .. } if mine.is_insert() => {}
                    Piece::Delete { .. } => out.push(theirs),
                    _ => {
                        let is_apart = out.push_retained(mine, theirs.attributes());
                        if is_apart && next.is_at_end() {
                            out.push_rest(own);
                            break;
                        }
                    }
                }
            }
        }
        Ok(out.chop())
    }

    /// Adds what the next op retains of `piece`; says whether it now stands as the last component, by itself.
    fn push_retained(&mut self, piece: Piece<'_>, attributes: Option<&Attributes>) -> bool {
        let nulls = if piece.is_insert() {
            Nulls::Drop
        } else {
            Nulls::Keep
        };
        let attributes = Attributes::compose(piece.attributes(), attributes, nulls);
        let count = self.components().len();
        self.push(piece.with_attributes(attributes.as_ref()));
        self.components().len() > count
            && !matches!(self.components().last(), Some(Component::Delete { .. }))
    }

    /// Adds what the next op leaves as it is, in the order in which it was sent, as the package does.
    fn push_rest(&mut self, mut rest: Walk<'_>) {
        rest.take_component()
            .into_iter()
            .for_each(|piece| self.push(piece));
        while let Some(piece) = rest.take_component() {
            self.push_in_order(piece);
        }
    }
}
