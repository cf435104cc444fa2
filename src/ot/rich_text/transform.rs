//! Rewrites a Delta to apply after another.

use super::super::ot::Side;
use super::attributes::Attributes;
use super::delta::Delta;
use super::walk::{Piece, Walk};

impl Delta {
    /// This op, made on the same text as `other`, as it applies after it. At one place the right one's insert goes first,
    /// and the left one yields the attributes that both set.
    #[must_use]
    pub fn transform(&self, other: &Self, side: Side) -> Self {
        let mut out = Self::default();
        let (mut own, mut other) = (Walk::new(self), Walk::new(other));
        while !own.is_at_end() {
            if other.at_insert() && (side == Side::Left || !own.at_insert()) {
                out.push_retain(other.len());
                other.take_component();
            } else if own.at_insert() || other.is_at_end() {
                own.take_component()
                    .into_iter()
                    .for_each(|piece| out.push(piece));
            } else {
                let len = own.len().min(other.len());
                // Neither is at an insert, so no text is cut.
                let (Ok(mine), Ok(theirs)) = (own.take(len), other.take(len)) else {
                    break;
                };
                match (mine, theirs) {
                    (_, Piece::Delete { .. }) => {}
                    (Piece::Retain { attributes, .. }, theirs) => {
                        let attributes =
                            Attributes::transform(attributes, theirs.attributes(), side);
                        out.push(Piece::Retain {
                            len,
                            attributes: attributes.as_ref(),
                        });
                    }
                    (mine, _) => out.push(mine),
                }
            }
        }
        out.chop()
    }
}
