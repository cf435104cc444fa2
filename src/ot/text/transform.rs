//! Rewrites a text op to apply after another.

use super::super::ot::Side;
use super::op::{Component, TextOp};
use super::walk::{Piece, Walk, Whole};

impl TextOp {
    /// This op, made on the same text as `other`, as it applies after it. At one place the left one's insert goes first.
    #[must_use]
    pub fn transform(&self, other: &Self, side: Side) -> Self {
        let mut out = Self::default();
        let mut own = Walk::new(self);
        for component in other.components() {
            match component {
                Component::Keep(len) => pass(&mut own, *len, &mut out),
                Component::Insert { len, .. } => {
                    if side == Side::Left && own.at_insert() {
                        out.push(own.take(u64::MAX, Whole::Inserts));
                    }
                    out.push(Piece::Keep(*len));
                }
                Component::Delete { len, .. } => vanish(&mut own, *len, &mut out),
            }
        }
        while let Some(piece) = own.take_component() {
            out.push(piece);
        }
        out.trim()
    }
}

/// Goes over `len` code points that the other op keeps: what is done to them stays as it is.
fn pass(own: &mut Walk<'_>, mut len: u64, out: &mut TextOp) {
    while len > 0 {
        let piece = own.take(len, Whole::Inserts);
        out.push(piece);
        len -= consumed(piece);
    }
}

/// Goes over `len` code points that the other op deleted: only what is inserted among them stays.
fn vanish(own: &mut Walk<'_>, mut len: u64, out: &mut TextOp) {
    while len > 0 {
        let piece = own.take(len, Whole::Inserts);
        if let Piece::Insert { .. } = piece {
            out.push(piece);
        }
        len -= consumed(piece);
    }
}

fn consumed(piece: Piece<'_>) -> u64 {
    match piece {
        Piece::Keep(len) | Piece::Delete { len, .. } => len,
        Piece::Insert { .. } => 0,
    }
}
