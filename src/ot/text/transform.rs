//! Transforms a text op.

use super::super::budget::Budget;
use super::super::error::OtError;
use super::super::ot::Side;
use super::op::{Component, TextOp};
use super::output::Output;
use super::walk::{Piece, Walk, Whole};

impl TextOp {
    /// Transforms this op, made on the same text as `other`, so that it applies after `other`. At the same position the left op's
    /// insert is first.
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
        let mut own = Walk::new(self);
        for component in other.components() {
            match component {
                Component::Keep(len) => pass(&mut own, *len, &mut out)?,
                Component::Insert { len, .. } => {
                    if side == Side::Left && own.at_insert() {
                        out.push(own.take(u64::MAX, Whole::Inserts))?;
                    }
                    out.push(Piece::Keep(*len))?;
                }
                Component::Delete { len, .. } => vanish(&mut own, *len, &mut out)?,
            }
        }
        out.push_rest(own)?;
        Ok(out.finish())
    }
}

/// Copies this op's components for `len` code points that the other op keeps.
fn pass(own: &mut Walk<'_>, mut len: u64, out: &mut Output<'_>) -> Result<(), OtError> {
    while len > 0 {
        let piece = own.take(len, Whole::Inserts);
        out.push(piece)?;
        len -= consumed(piece);
    }
    Ok(())
}

/// Copies this op's inserts among `len` code points that the other op deleted.
fn vanish(own: &mut Walk<'_>, mut len: u64, out: &mut Output<'_>) -> Result<(), OtError> {
    while len > 0 {
        let piece = own.take(len, Whole::Inserts);
        if let Piece::Insert { .. } = piece {
            out.push(piece)?;
        } else {
            out.pass()?;
        }
        len -= consumed(piece);
    }
    Ok(())
}

fn consumed(piece: Piece<'_>) -> u64 {
    match piece {
        Piece::Keep(len) | Piece::Delete { len, .. } => len,
        Piece::Insert { .. } => 0,
    }
}
