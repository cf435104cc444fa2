//! A content and two ops from arbitrary bytes: an op that does not apply changes nothing; ops that apply converge, compose and
//! invert.

#![no_main]

use copydesk::ot::{Content, Kind, Op, Side};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.iter().copied();
    let kind = if bytes.next().unwrap_or(0) % 3 == 0 {
        Kind::TextUnicode
    } else {
        Kind::RichText
    };
    let data = match kind {
        Kind::TextUnicode => json!(text(&mut bytes)),
        Kind::RichText => components(&mut bytes)
            .into_iter()
            .filter(|part| part.get("insert").is_some())
            .collect(),
    };
    let content = Content::create(kind, Some(&data.to_string())).expect("sound data");
    let (Some(a), Some(b), Some(c)) = (
        op(kind, &mut bytes),
        op(kind, &mut bytes),
        op(kind, &mut bytes),
    ) else {
        return;
    };
    let (after_a, after_b) = (applied(&content, &a), applied(&content, &b));
    for (side, other) in [(Side::Left, Side::Right), (Side::Right, Side::Left)] {
        // Ops that do not fit must transform as well.
        let (late_a, late_b) = (
            a.transform(&b, side).expect("one kind"),
            b.transform(&a, other).expect("one kind"),
        );
        let (Some(after_a), Some(after_b)) = (&after_a, &after_b) else {
            continue;
        };
        // An op may rely on the implied final newline; if both ops insert it, there may be one newline too many.
        let exact = fits(&content, &a) && fits(&content, &b);
        match (applied(after_a, &late_b), applied(after_b, &late_a)) {
            (Some(one), Some(two)) => assert!(one == two || !exact, "diverged: {one:?} {two:?}"),
            _ => assert!(!exact, "a transformed op does not apply"),
        }
    }
    if let Some(after_a) = after_a {
        let inverse = a.invert(&content).expect("what applies can be undone");
        // A null attribute of an insert is not restored by an inverse, so that only the lengths are compared.
        let undone = applied(&after_a, &inverse).expect("an inverse applies");
        assert_eq!(undone.len(), content.len());
        if let Some(after_c) = applied(&after_a, &c)
            && fits(&content, &a)
            && fits(&after_a, &c)
        {
            assert!(
                applied(
                    &content,
                    &a.compose(&c).expect("what applies in turn composes")
                ) == Some(after_c)
            );
        }
    }
    let _ = a.compose(&b);
});

/// The content after `op`; `None` if it does not apply, in which case the content is unchanged.
fn applied(content: &Content, op: &Op) -> Option<Content> {
    let mut after = content.clone();
    match after.apply(op) {
        Ok(()) => Some(after),
        Err(_) => {
            assert!(after == *content, "a refused op changed something");
            None
        }
    }
}

/// Returns true if `op` applies without the implied final newline.
fn fits(content: &Content, op: &Op) -> bool {
    let mut json = Vec::new();
    op.write_json(&mut json);
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    let parts = json
        .get("ops")
        .unwrap_or(&json)
        .as_array()
        .cloned()
        .unwrap_or_default();
    let len = |part: &Value| {
        part["retain"]
            .as_u64()
            .or(part["delete"].as_u64())
            .unwrap_or(0)
    };
    parts.iter().map(len).sum::<u64>() <= content.len()
}

const CHARS: [&str; 16] = [
    "a",
    "b",
    "\n",
    "a",
    "é",
    "中",
    "\u{301}",
    "\u{200d}",
    "\"",
    "\u{0}",
    "\u{ffff}",
    "😀",
    "👩",
    "🇫",
    "\u{10000}",
    "\u{10ffff}",
];

fn text(bytes: &mut impl Iterator<Item = u8>) -> String {
    let len = bytes.next().unwrap_or(0) % 24;
    (0..=len)
        .filter_map(|_| bytes.next())
        .map(|byte| CHARS[usize::from(byte % 16)])
        .collect()
}

fn op(kind: Kind, bytes: &mut impl Iterator<Item = u8>) -> Option<Op> {
    let parts = match kind {
        Kind::TextUnicode => {
            let mut parts: Vec<Value> = Vec::new();
            for part in components(bytes) {
                let insert = part.get("insert").map(|text| {
                    if text.is_string() {
                        text.clone()
                    } else {
                        json!("e")
                    }
                });
                parts.push(match (insert, part.get("delete")) {
                    (Some(text), _) => text,
                    (None, Some(len)) => json!({ "d": len }),
                    (None, None) => part["retain"].clone(),
                });
            }
            parts
        }
        Kind::RichText => components(bytes),
    };
    Op::parse(kind, &Value::Array(parts).to_string()).ok()
}

fn components(bytes: &mut impl Iterator<Item = u8>) -> Vec<Value> {
    let mut parts = Vec::new();
    while let Some(byte) = bytes.next() {
        let mut part = match byte % 8 {
            0 => break,
            1 | 2 => json!({ "retain": 1 + bytes.next().unwrap_or(0) % 32 }),
            3 | 4 => json!({ "delete": 1 + bytes.next().unwrap_or(0) % 16 }),
            5 => json!({ "insert": { "e": byte / 64 } }),
            _ => match text(bytes) {
                text if text.is_empty() => break,
                text => json!({ "insert": text }),
            },
        };
        if byte % 8 != 3 && byte % 8 != 4 {
            match byte / 32 {
                1 => part["attributes"] = json!({ "b": true }),
                2 => part["attributes"] = json!({ "b": null, "c": [1, { "x": 2.5 }] }),
                3 => part["attributes"] = json!({ "b": false }),
                _ => {}
            }
        }
        parts.push(part);
    }
    parts
}
