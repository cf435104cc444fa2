//! UTF-16 lengths of texts in UTF-8.

/// How many UTF-16 units `text` has.
pub(super) fn utf16_len(text: &str) -> u64 {
    // Every character has one byte that does not continue another; those outside the BMP have one from 0xF0 up.
    let units = |byte: u8| u64::from(byte & 0xC0 != 0x80) + u64::from(byte >= 0xF0);
    text.bytes().map(units).sum()
}

/// Splits `text` of `len` units after `at` units; `None` if that splits a surrogate pair.
pub(super) fn split_units(text: &str, len: u64, at: u64) -> Option<(&str, &str)> {
    if at >= len {
        return Some((text, ""));
    }
    if text.len() as u64 == len {
        return Some(text.split_at(usize::try_from(at).ok()?));
    }
    let mut units = 0;
    for (byte, char) in text.char_indices() {
        if units >= at {
            return (units == at).then(|| text.split_at(byte));
        }
        units += char.len_utf16() as u64;
    }
    (units == at).then_some((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_javascript() {
        for (text, len) in [
            ("", 0),
            ("ab", 2),
            ("é中", 2),
            ("😀", 2),
            ("a😀\u{301}", 4),
            ("\u{ffff}\u{10000}", 3),
        ] {
            assert_eq!(utf16_len(text), len);
            let cuts: Vec<_> = (0..=len)
                .map(|at| split_units(text, len, at).map(|(left, _)| utf16_len(left)))
                .collect();
            let whole = |at| {
                text.encode_utf16()
                    .nth(at as usize)
                    .is_none_or(|unit| !(0xDC00..0xE000).contains(&unit))
            };
            assert_eq!(
                cuts,
                (0..=len)
                    .map(|at| whole(at).then_some(at))
                    .collect::<Vec<_>>()
            );
        }
    }
}
