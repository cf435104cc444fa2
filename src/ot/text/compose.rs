//! Composes two text ops.

use super::super::budget::Budget;
use super::super::error::OtError;
use super::op::{Component, TextOp};
use super::output::Output;
use super::walk::{Piece, Walk, Whole, split_chars};

impl TextOp {
    /// Composes this op and then `next` into one op.
    ///
    /// # Errors
    /// `TooLarge` when it would exceed `budget`.
    pub fn compose(&self, next: &Self, budget: &mut Budget) -> Result<Self, OtError> {
        let mut out = Output::new(budget);
        let mut own = Walk::new(self);
        for component in next.components() {
            match component {
                Component::Keep(len) => keep(&mut own, *len, &mut out)?,
                Component::Insert { text, len } => out.push(Piece::Insert { text, len: *len })?,
                Component::Delete { len, text } => {
                    delete(&mut own, *len, text.as_deref(), &mut out)?;
                }
            }
        }
        out.push_rest(own)?;
        Ok(out.finish())
    }
}

/// `next` keeps `len` code points of this op's result.
fn keep(own: &mut Walk<'_>, mut len: u64, out: &mut Output<'_>) -> Result<(), OtError> {
    while len > 0 {
        let piece = own.take(len, Whole::Deletes);
        out.push(piece)?;
        len -= made(piece);
    }
    Ok(())
}

/// `next` deletes `len` code points of this op's result.
fn delete(
    own: &mut Walk<'_>,
    mut len: u64,
    mut told: Option<&str>,
    out: &mut Output<'_>,
) -> Result<(), OtError> {
    while len > 0 {
        let piece = own.take(len, Whole::Deletes);
        let made = made(piece);
        let text = told.map(|text| {
            let (text, rest) = split_chars(text, made);
            told = Some(rest);
            text
        });
        match piece {
            Piece::Keep(len) => out.push(Piece::Delete { len, text })?,
            Piece::Insert { .. } => out.pass()?,
            Piece::Delete { .. } => out.push(piece)?,
        }
        len -= made;
    }
    Ok(())
}

fn made(piece: Piece<'_>) -> u64 {
    match piece {
        Piece::Keep(len) | Piece::Insert { len, .. } => len,
        Piece::Delete { .. } => 0,
    }
}
