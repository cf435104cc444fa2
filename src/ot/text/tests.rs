//! Tests of plain text: accepted and rejected forms, tables of the protocol.

use super::super::{Content, Kind, Op, OtError, Side};

fn op(json: &str) -> Op {
    Op::parse(Kind::TextUnicode, json).unwrap_or_else(|error| panic!("{error}: {json}"))
}

fn written(op: &Op) -> String {
    let mut out = Vec::new();
    op.write_json(&mut out);
    String::from_utf8(out).expect("JSON is UTF-8")
}

fn content(text: &str) -> Content {
    Content::create(
        Kind::TextUnicode,
        Some(&serde_json::json!(text).to_string()),
    )
    .expect("a string")
}

#[test]
fn transform_equals_the_npm_package() {
    // text, a, b, a left, a right, a then b, b then a
    let table = [
        (
            "abc",
            r#"[1,"X"]"#,
            r#"[1,"Y"]"#,
            r#"[1,"X"]"#,
            r#"[2,"X"]"#,
            "aYXbc",
            "aXYbc",
        ),
        (
            "abcd",
            r#"[1,{"d":2}]"#,
            r#"[2,"Y"]"#,
            r#"[1,{"d":1},1,{"d":1}]"#,
            r#"[1,{"d":1},1,{"d":1}]"#,
            "aYd",
            "aYd",
        ),
        (
            "abcd",
            r#"[1,{"d":2}]"#,
            r#"[2,{"d":2}]"#,
            r#"[1,{"d":1}]"#,
            r#"[1,{"d":1}]"#,
            "a",
            "a",
        ),
        (
            "a😀b",
            r#"[2,"X"]"#,
            r#"[1,{"d":1}]"#,
            r#"[1,"X"]"#,
            r#"[1,"X"]"#,
            "aXb",
            "aXb",
        ),
        (
            "😀😁",
            r#"[1,"X"]"#,
            r#"[1,"Y"]"#,
            r#"[1,"X"]"#,
            r#"[2,"X"]"#,
            "😀YX😁",
            "😀XY😁",
        ),
        (
            "ab",
            r#"[{"d":"ab"}]"#,
            r#"[1,"Y"]"#,
            r#"[{"d":"a"},1,{"d":"b"}]"#,
            r#"[{"d":"a"},1,{"d":"b"}]"#,
            "Y",
            "Y",
        ),
        (
            "ab",
            r#"[{"d":1},"X"]"#,
            r#"["Y"]"#,
            r#"[1,{"d":1},"X"]"#,
            r#"[1,{"d":1},"X"]"#,
            "YXb",
            "YXb",
        ),
    ];
    for (text, a, b, left, right, a_then_b, b_then_a) in table {
        let (a, b) = (op(a), op(b));
        assert_eq!(written(&a.transform(&b, Side::Left).unwrap()), left);
        assert_eq!(written(&a.transform(&b, Side::Right).unwrap()), right);
        for (first, second, expected) in [(&a, &b, a_then_b), (&b, &a, b_then_a)] {
            let mut content = content(text);
            content.apply(first).unwrap();
            content
                .apply(&second.transform(first, Side::Left).unwrap())
                .unwrap();
            assert_eq!(content.to_text(), expected);
        }
    }
}

#[test]
fn compose_equals_the_npm_package() {
    let table = [
        (r#"[1,"xy"]"#, r#"[2,{"d":1}]"#, r#"[1,"x"]"#),
        (r#"[1,{"d":1}]"#, r#"[1,"z"]"#, r#"[1,"z",{"d":1}]"#),
        (r#"[{"d":"a"}]"#, r#"[{"d":"b"}]"#, r#"[{"d":"ab"}]"#),
        (r#"[{"d":"a"}]"#, r#"[{"d":1}]"#, r#"[{"d":2}]"#),
        (r#"["a"]"#, r#"[{"d":"a"}]"#, "[]"),
        (r#"["a😀"]"#, r#"[1,"b"]"#, r#"["ab😀"]"#),
    ];
    for (a, b, both) in table {
        assert_eq!(written(&op(a).compose(&op(b)).unwrap()), both);
    }
}

#[test]
fn inverse_inserts_the_deleted_text() {
    let content = content("a😀b");
    for (edit, inverse) in [
        (r#"[1,{"d":1},"x"]"#, r#"[1,"😀",{"d":"x"}]"#),
        (r#"["x",{"d":"a"}]"#, r#"[{"d":"x"},"a"]"#),
        (r#"[{"d":"z"}]"#, r#"["a"]"#),
    ] {
        assert_eq!(written(&op(edit).invert(&content).unwrap()), inverse);
    }
    assert!(op(r#"[3,{"d":1}]"#).invert(&content).is_err());
}

#[test]
fn insert_at_a_cursor_is_placed_after_it() {
    let edit = op(r#"[2,"XY",1,{"d":2}]"#);
    for (before, after) in [(0, 0), (2, 2), (3, 5), (4, 5), (5, 5), (6, 6)] {
        assert_eq!(edit.transform_position(before, true), after);
        assert_eq!(edit.transform_position(before, false), after);
    }
}

#[test]
fn only_normal_form_is_accepted() {
    let sound = [
        "[]",
        r#"["x",{"d":1}]"#,
        r#"[{"d":1},"x"]"#,
        r#"[{"d":1},"x",{"d":1}]"#,
        r#"[1,{"d":"é😀"}]"#,
        " [ 1.0 , \"x\" ] ",
    ];
    for json in sound {
        assert!(Op::parse(Kind::TextUnicode, json).is_ok(), "{json}");
    }
    let table = [
        (r#"[0,"x"]"#, "Skip components must be >0"),
        (r#"[-1,"x"]"#, "Skip components must be >0"),
        (r#"[1.5,"x"]"#, "Counts must be whole numbers"),
        (r#"[2147483649,"x"]"#, "Counts must not exceed 2147483648"),
        (r#"[1e300,"x"]"#, "Counts must not exceed 2147483648"),
        (r#"[""]"#, "Inserts cannot be empty"),
        (r#"[{"d":0}]"#, "Deletes must not be empty"),
        (r#"[{"d":""}]"#, "Deletes must not be empty"),
        (r#"[{"d":-1}]"#, "Deletes must not be empty"),
        (r#"[{}]"#, "Delete must be number or string"),
        (r#"[{"x":1}]"#, "Delete must be number or string"),
        (r#"[1,{"d":1,"x":2}]"#, "Deletes must have no key but d"),
        (r#"[{"d":1,"d":1}]"#, "Deletes must have no key but d"),
        (
            r#"[1,2,"x"]"#,
            "Adjacent skip components should be combined",
        ),
        (r#"["x","y"]"#, "Adjacent inserts should be combined"),
        (
            r#"[{"d":1},{"d":1}]"#,
            "Adjacent deletes should be combined",
        ),
        (r#"["x",3]"#, "Op has a trailing skip"),
        ("[3]", "Op has a trailing skip"),
    ];
    for (json, flaw) in table {
        assert_eq!(
            Op::parse(Kind::TextUnicode, json),
            Err(OtError::Malformed(flaw)),
            "{json}"
        );
    }
    let unsound = [
        "",
        "{}",
        "\"x\"",
        "null",
        "5",
        "[null]",
        "[true]",
        r#"[["x"]]"#,
        r#"[{"d":true}]"#,
        r#"[{"d":null}]"#,
        r#"[{"d":{}}]"#,
        r#"["a\ud800"]"#,
        r#"[{"d":"\ud83d"}]"#,
        "[1,]",
        "[] []",
        r#"{"ops":[]}"#,
        "[1e400,\"x\"]",
        "[\"\n\"]",
    ];
    for json in unsound {
        assert!(
            matches!(
                Op::parse(Kind::TextUnicode, json),
                Err(OtError::Malformed(_))
            ),
            "{json}"
        );
    }
}

#[test]
fn limit_of_components_applies_to_clients_and_not_to_the_log() {
    let json = format!("[{}\"x\"]", "\"x\",1,".repeat(75_000));
    assert!(Op::parse(Kind::TextUnicode, &json).is_err());
    let op = Op::parse_logged(Kind::TextUnicode, &json).unwrap();
    assert_eq!(written(&op), json);
}

#[test]
fn op_that_does_not_fit_changes_nothing() {
    let mut text = content("a😀b");
    for json in [r#"["x",3,"y",1,"z"]"#, r#"["x",{"d":4}]"#, r#"[4,"x"]"#] {
        assert_eq!(
            text.apply(&op(json)),
            Err(OtError::NotApplied("The op is too long for this document"))
        );
        assert!(text == content("a😀b"));
    }
    text.apply(&op(r#"[3,"!"]"#)).unwrap();
    assert_eq!(
        (text.to_text().as_str(), text.len(), text.size_bytes()),
        ("a😀b!", 4, 9)
    );
}

#[test]
fn text_is_created_from_a_string() {
    assert_eq!(
        Content::create(Kind::TextUnicode, None).unwrap().to_text(),
        ""
    );
    assert_eq!(content("a\"\n\u{1}😀").to_text(), "a\"\n\u{1}😀");
    for data in [
        "null",
        "5",
        "[]",
        "{}",
        r#""\ud800""#,
        "",
        "\"a",
        r#""a" "b""#,
    ] {
        let error = Content::create(Kind::TextUnicode, Some(data)).unwrap_err();
        assert_eq!(
            (error, error.to_string().as_str()),
            (
                OtError::BadData("Initial data must be a string"),
                "Initial data must be a string"
            )
        );
    }
    let mut out = Vec::new();
    content("a\"\n\u{1}😀").write_json(&mut out);
    assert_eq!(out, r#""a\"\n\u0001😀""#.as_bytes());
}
