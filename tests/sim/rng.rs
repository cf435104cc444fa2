//! Seeded random numbers and ops: the same seed makes the same scenario.

use copydesk::ot::{Content, Kind, Op};

/// A random number generator (SplitMix64; Steele, Lea and Flood 2014).
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `below - 1`.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        self.next() % below.max(1)
    }

    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

/// An op that fits the content: an insert, a deletion, or a format.
pub(crate) fn op(rng: &mut Rng, content: &Content) -> Op {
    let len = content.len();
    match content.kind() {
        Kind::TextUnicode => {
            let at = rng.below(len + 1);
            let keep = if at == 0 {
                String::new()
            } else {
                format!("{at},")
            };
            let json = if at < len && rng.percent(40) {
                format!("[{keep}{{\"d\":{}}}]", 1 + rng.below((len - at).min(3)))
            } else {
                format!("[{keep}\"{}\"]", rng.pick(&["a", "bc", "😀", "é"]))
            };
            Op::parse(Kind::TextUnicode, &json).expect("an op in normal form")
        }
        Kind::RichText => {
            // Characters of one code unit, so that every index is between two characters.
            let at = rng.below(len + 1);
            let keep = if at == 0 {
                String::new()
            } else {
                format!("{{\"retain\":{at}}},")
            };
            let rest = (len - at).min(3);
            let json = match rng.below(4) {
                0 if rest > 0 => format!("[{keep}{{\"delete\":{}}}]", 1 + rng.below(rest)),
                1 if rest > 0 => format!(
                    "[{keep}{{\"retain\":{},\"attributes\":{{\"bold\":{}}}}}]",
                    1 + rng.below(rest),
                    rng.pick(&["true", "null"])
                ),
                2 => format!("[{keep}{{\"insert\":{{\"image\":\"i\"}}}}]"),
                _ => format!("[{keep}{{\"insert\":\"{}\"}}]", rng.pick(&["x", "yz"])),
            };
            Op::parse(Kind::RichText, &json).expect("an op in normal form")
        }
    }
}
