//! Parses arbitrary bytes as a rich-text op: no panic, and an accepted op is written and parsed again unchanged.

#![no_main]

use copydesk::ot::{Content, Kind, Op, transform_presence};
use libfuzzer_sys::fuzz_target;

const BASE: &str = r#"[{"insert":"a😀b"},{"insert":{"image":"u"},"attributes":{"b":true}},{"insert":"cdef","attributes":{"b":true}}]"#;

fuzz_target!(|json: &str| {
    if let Ok(op) = Op::parse_logged(Kind::RichText, json) {
        let mut out = Vec::new();
        op.write_json(&mut out);
        let out = String::from_utf8(out).expect("JSON is UTF-8");
        // Neighbours were merged, so counts may exceed the limit of a single component.
        if let Ok(again) = Op::parse_logged(Kind::RichText, &out) {
            assert_eq!(again, op);
        }
        let mut content = Content::create(Kind::RichText, Some(BASE)).expect("a content");
        let before = content.clone();
        match content.apply(&op) {
            Ok(()) => {
                let inverse = op.invert(&before).expect("what applies can be undone");
                content.apply(&inverse).expect("the inverse applies");
                assert!(content == before);
            }
            Err(_) => assert!(content == before && op.invert(&before).is_err()),
        }
        if let Ok(mut value) = serde_json::from_str(json) {
            let _ = transform_presence(Kind::RichText, &mut value, &op, true);
        }
    }
    if let Ok(mut value) = serde_json::from_str(json) {
        let op = Op::parse(
            Kind::RichText,
            r#"[{"retain":3},{"insert":"x"},{"delete":2}]"#,
        )
        .expect("an op");
        let _ = transform_presence(Kind::RichText, &mut value, &op, false);
    }
    if let Ok(content) = Content::create(Kind::RichText, Some(json)) {
        let mut out = Vec::new();
        content.write_json(&mut out);
        let out = String::from_utf8(out).expect("JSON is UTF-8");
        assert!(Content::create_logged(Kind::RichText, &out).as_ref() == Ok(&content));
    }
});
