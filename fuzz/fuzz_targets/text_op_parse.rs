//! Parses arbitrary bytes as a plain-text op: no panic, and an accepted op is written and parsed again unchanged.

#![no_main]

use copydesk::ot::ot_js::Edit;
use copydesk::ot::{Content, Kind, Op};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &str| {
    if let Ok(op) = Op::parse(Kind::TextUnicode, json) {
        let mut out = Vec::new();
        op.write_json(&mut out);
        let out = String::from_utf8(out).expect("JSON is UTF-8");
        assert_eq!(Op::parse(Kind::TextUnicode, &out).as_ref(), Ok(&op));
        let mut content =
            Content::create(Kind::TextUnicode, Some(r#""a😀b\ncdefgh""#)).expect("a content");
        let before = content.clone();
        match content.apply(&op) {
            Ok(()) => {
                let inverse = op.invert(&before).expect("what applies can be undone");
                content.apply(&inverse).expect("the inverse applies");
                assert!(content == before);
            }
            Err(_) => assert!(content == before && op.invert(&before).is_err()),
        }
    }
    if let Ok(edit) = Edit::parse(json) {
        let mut out = Vec::new();
        edit.write_json(&mut out);
        let out = String::from_utf8(out).expect("JSON is UTF-8");
        // Neighbours were merged, so counts may exceed the limit of a single component.
        if let Ok(again) = Edit::parse(&out) {
            assert_eq!(again, edit);
        }
        let again = Edit::from_text_op(&edit.to_text_op(), edit.base_len())
            .expect("it fits its own length");
        assert_eq!(again, edit);
        let mut content =
            Content::create(Kind::TextUnicode, Some(r#""a😀b\ncdefgh""#)).expect("a content");
        if edit.apply(&mut content).is_ok() {
            assert_eq!(content.len(), edit.target_len());
        }
    }
    if let Ok(content) = Content::create(Kind::TextUnicode, Some(json)) {
        let mut out = Vec::new();
        content.write_json(&mut out);
        let out = String::from_utf8(out).expect("JSON is UTF-8");
        assert!(Content::create(Kind::TextUnicode, Some(&out)).as_ref() == Ok(&content));
    }
});
