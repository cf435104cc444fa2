//! Transforms a Delta.

use super::super::budget::Budget;
use super::super::error::OtError;
use super::super::ot::Side;
use super::attributes::Attributes;
use super::delta::Delta;
use super::output::Output;
use super::walk::{Piece, Walk};

impl Delta {
    /// Transforms this op, made on the same text as `other`, so that it applies after `other`. At the same position the right
    /// op's insert is first, and the left op yields the attributes that both set.
    ///
    /// # Errors
    /// `TooLarge` when it would exceed `budget`.
    pub fn transform(
        &self,
        other: &Self,
        side: Side,
        budget: &mut Budget,
    ) -> Result<Self, OtError> {
        let mut out = Output::new(budget);
        let (mut own, mut other) = (Walk::new(self), Walk::new(other));
        while !own.is_at_end() {
            if other.at_insert() && (side == Side::Left || !own.at_insert()) {
                out.push_retain(other.len())?;
                other.take_component();
            } else if own.at_insert() || other.is_at_end() {
                if let Some(piece) = own.take_component() {
                    out.push(piece)?;
                }
            } else {
                let len = own.len().min(other.len());
                // Neither op is at an insert, so no text is split.
                let (mine, theirs) = (own.take(len)?, other.take(len)?);
                match (mine, theirs) {
                    (_, Piece::Delete { .. }) => out.pass()?,
                    (Piece::Retain { attributes, .. }, theirs) => {
                        out.merge(attributes, theirs.attributes())?;
                        let attributes =
                            Attributes::transform(attributes, theirs.attributes(), side);
                        out.push(Piece::Retain {
                            len,
                            attributes: attributes.as_ref(),
                        })?;
                    }
                    (mine, _) => out.push(mine)?,
                }
            }
        }
        Ok(out.finish())
    }
}
