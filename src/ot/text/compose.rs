//! Two text ops in one.

use super::op::{Component, TextOp};
use super::walk::{Piece, Walk, Whole, split_chars};

impl TextOp {
    /// One op that does what this one and then `next` do.
    #[must_use]
    pub fn compose(&self, next: &Self) -> Self {
        let mut out = Self::default();
        let mut own = Walk::new(self);
        for component in next.components() {
            match component {
                Component::Keep(len) => keep(&mut own, *len, &mut out),
                Component::Insert { text, len } => out.push(Piece::Insert { text, len: *len }),
                Component::Delete { len, text } => {
                    delete(&mut own, *len, text.as_deref(), &mut out)
                }
            }
        }
        while let Some(piece) = own.take_component() {
            out.push(piece);
        }
        out.trim()
    }
}

/// `next` keeps `len` code points of what this op makes.
fn keep(own: &mut Walk<'_>, mut len: u64, out: &mut TextOp) {
    while len > 0 {
        let piece = own.take(len, Whole::Deletes);
        out.push(piece);
        len -= made(piece);
    }
}

/// `next` deletes `len` code points, told or not, of what this op makes.
fn delete(own: &mut Walk<'_>, mut len: u64, mut told: Option<&str>, out: &mut TextOp) {
    while len > 0 {
        let piece = own.take(len, Whole::Deletes);
        let made = made(piece);
        let text = told.map(|text| {
            let (text, rest) = split_chars(text, made);
            told = Some(rest);
            text
        });
        match piece {
            Piece::Keep(len) => out.push(Piece::Delete { len, text }),
            Piece::Insert { .. } => {}
            Piece::Delete { .. } => out.push(piece),
        }
        len -= made;
    }
}

fn made(piece: Piece<'_>) -> u64 {
    match piece {
        Piece::Keep(len) | Piece::Insert { len, .. } => len,
        Piece::Delete { .. } => 0,
    }
}
