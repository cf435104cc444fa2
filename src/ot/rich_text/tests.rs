//! Tests of rich text: accepted and rejected forms, tables of the protocol.

use super::super::{COMPONENTS_MAX, Content, Kind, Newline, Op, OtError, Side, transform_presence};

fn op(json: &str) -> Op {
    Op::parse(Kind::RichText, json).unwrap_or_else(|error| panic!("{error}: {json}"))
}

fn content(json: &str) -> Content {
    Content::create(Kind::RichText, Some(json)).unwrap_or_else(|error| panic!("{error}: {json}"))
}

fn written(op: &Op) -> String {
    let mut out = Vec::new();
    op.write_json(&mut out);
    String::from_utf8(out).expect("JSON is UTF-8")
}

fn data(content: &Content) -> String {
    let mut out = Vec::new();
    content.write_json(&mut out);
    String::from_utf8(out).expect("JSON is UTF-8")
}

/// The table's short hand: `r3`, `d2`, `iX`, each followed by attributes if any.
fn delta(short: &str) -> String {
    let component = |part: &str| {
        let (step, rest) = part.split_at(1);
        let (value, attributes) = rest
            .split_once('{')
            .map_or((rest, String::new()), |(value, set)| {
                (value, format!(r#","attributes":{{{set}"#))
            });
        match step {
            "r" => format!(r#"{{"retain":{value}{attributes}}}"#),
            "d" => format!(r#"{{"delete":{value}}}"#),
            _ => format!(r#"{{"insert":"{value}"{attributes}}}"#),
        }
    };
    format!(
        r#"{{"ops":[{}]}}"#,
        short
            .split_whitespace()
            .map(component)
            .collect::<Vec<_>>()
            .join(",")
    )
}

#[test]
fn transform_equals_the_npm_package() {
    // text, a, b, a left, a right, a then b, b then a
    let table = [
        (
            "abc", "r1 iX", "r1 iY", "r2 iX", "r1 iX", "iaXYbc", "iaYXbc",
        ),
        (
            "abc",
            r#"r3{"bold":true,"color":"red"}"#,
            r#"r3{"color":"blue"}"#,
            r#"r3{"bold":true}"#,
            r#"r3{"bold":true,"color":"red"}"#,
            r#"iabc{"bold":true,"color":"red"}"#,
            r#"iabc{"bold":true,"color":"blue"}"#,
        ),
        (
            "abc",
            r#"r3{"bold":null}"#,
            r#"r3{"bold":true}"#,
            "",
            r#"r3{"bold":null}"#,
            "iabc",
            r#"iabc{"bold":true}"#,
        ),
        (
            "abcd",
            "r1 d2",
            "r2 iY",
            "r1 d1 r1 d1",
            "r1 d1 r1 d1",
            "iaYd",
            "iaYd",
        ),
        ("a😀b", "r3 iX", "r1 d2", "r1 iX", "r1 iX", "iaXb", "iaXb"),
        // An insert after a delete keeps its place until a transform or compose rebuilds the op.
        ("ab", "d1 iX", "r1 iY", "d1 r1 iX", "iX d1", "iXYb", "iYXb"),
    ];
    for (text, a, b, left, right, a_then_b, b_then_a) in table {
        let (a, b) = (op(&delta(a)), op(&delta(b)));
        for (side, expected) in [(Side::Left, left), (Side::Right, right)] {
            let late = a.transform(&b, side).unwrap();
            assert!(late == op(&delta(expected)), "{side:?}: {}", written(&late));
        }
        for (first, second, expected) in [(&a, &b, a_then_b), (&b, &a, b_then_a)] {
            let mut content = content(&delta(&format!("i{text}")));
            content.apply(first).unwrap();
            content
                .apply(&second.transform(first, Side::Left).unwrap())
                .unwrap();
            assert_eq!(data(&content), delta(expected));
        }
    }
}

#[test]
fn cursors_and_selections_are_transformed() {
    let edit = op(&delta("r2 iXY"));
    for (at, own, other) in [(1, 1, 1), (2, 4, 2), (3, 5, 5)] {
        assert_eq!(
            (
                edit.transform_position(at, true),
                edit.transform_position(at, false)
            ),
            (own, other)
        );
    }
    assert_eq!(op(&delta("r1 d3 iX")).transform_position(3, false), 1);
    let table = [
        (
            r#"{"index":1,"length":2,"name":"Ann"}"#,
            r#"{"index":1,"length":4,"name":"Ann"}"#,
        ),
        (r#"{"index":2.0,"length":0}"#, r#"{"index":2,"length":0}"#),
        ("null", "null"),
    ];
    for (before, after) in table {
        let mut value = serde_json::from_str(before).unwrap();
        transform_presence(Kind::RichText, &mut value, &edit, false).unwrap();
        assert_eq!(value.to_string(), after);
    }
    for bad in [
        "5",
        "[]",
        "{}",
        r#"{"index":1}"#,
        r#"{"index":-1,"length":0}"#,
        r#"{"index":1.5,"length":0}"#,
        r#"{"index":1e300,"length":0}"#,
    ] {
        let mut value: serde_json::Value = serde_json::from_str(bad).unwrap();
        let before = value.clone();
        assert!(
            transform_presence(Kind::RichText, &mut value, &edit, false).is_err(),
            "{bad}"
        );
        assert_eq!(value, before);
    }
    let text = Op::noop(Kind::TextUnicode);
    let mut value = serde_json::json!({"index": 1, "length": 2});
    assert_eq!(
        transform_presence(Kind::TextUnicode, &mut value, &text, true),
        Err(OtError::NoPresence)
    );
    assert_eq!(
        transform_presence(Kind::RichText, &mut value, &text, true),
        Err(OtError::KindsDiffer)
    );
}

#[test]
fn ops_are_normalised_where_the_npm_package_does_not() {
    let table = [
        (r#"[]"#, r#"{"ops":[]}"#),
        (r#" { "ops" : [ ] } "#, r#"{"ops":[]}"#),
        (
            r#"[{"insert":"a"},{"insert":"b"},{"retain":1},{"retain":2},{"delete":1},{"delete":2}]"#,
            r#"{"ops":[{"insert":"ab"},{"retain":3},{"delete":3}]}"#,
        ),
        (
            r#"[{"insert":"a"},{"retain":3}]"#,
            r#"{"ops":[{"insert":"a"}]}"#,
        ),
        (
            r#"[{"insert":"a","attributes":{}},{"retain":1,"attributes":{}}]"#,
            r#"{"ops":[{"insert":"a"}]}"#,
        ),
        (
            r#"[{"insert":"a","attributes":{"b":null,"c":1.0}}]"#,
            r#"{"ops":[{"insert":"a","attributes":{"b":null,"c":1}}]}"#,
        ),
        (
            r#"[{"retain":1,"attributes":{"c":-0,"b":null}}]"#,
            r#"{"ops":[{"retain":1,"attributes":{"b":null,"c":0}}]}"#,
        ),
        (
            r#"[{"attributes":{"f":{"y":1,"x":[]}},"insert":"a"},{"insert":"b","attributes":{"f":{"x":[],"y":1e0}}}]"#,
            r#"{"ops":[{"insert":"ab","attributes":{"f":{"x":[],"y":1}}}]}"#,
        ),
        (
            r#"[{"delete":1},{"insert":"a"}]"#,
            r#"{"ops":[{"delete":1},{"insert":"a"}]}"#,
        ),
        (
            r#"[{"insert":""},{"insert":"a"},{"retain":1},{"insert":"","attributes":{"b":1}},{"delete":1}]"#,
            r#"{"ops":[{"insert":"a"},{"retain":1},{"delete":1}]}"#,
        ),
        (
            r#"[{"insert":5},{"insert":-0.50}]"#,
            r#"{"ops":[{"insert":5},{"insert":-0.5}]}"#,
        ),
        // For Quill the first key of an embed is its kind.
        (
            r#"[{"insert":{"video":{"b":1,"a":2},"image":1}}]"#,
            r#"{"ops":[{"insert":{"video":{"a":2,"b":1},"image":1}}]}"#,
        ),
        (
            r#"[{"insert":{"m":{"b":1,"a":"\u00e9"}}},{"insert":{"m":{"b":1,"a":"é"}}}]"#,
            r#"{"ops":[{"insert":{"m":{"a":"é","b":1}}},{"insert":{"m":{"a":"é","b":1}}}]}"#,
        ),
    ];
    for (sent, expected) in table {
        assert_eq!(written(&op(sent)), expected);
    }
}

#[test]
fn ops_that_would_corrupt_a_document_are_rejected() {
    let deep = format!(
        r#"[{{"insert":"a","attributes":{{"x":{}{}}}}}]"#,
        "[".repeat(101),
        "]".repeat(101)
    );
    let deeper = format!(
        r#"[{{"insert":{{"x":{}{}}}}}]"#,
        "[".repeat(5_000),
        "]".repeat(5_000)
    );
    let many = format!(
        "[{}{}]",
        r#"{"insert":"a"},{"delete":1},"#.repeat(COMPONENTS_MAX / 2),
        r#"{"insert":"a"}"#
    );
    let table = [
        "",
        "null",
        "5",
        "\"x\"",
        "{}",
        r#"{"ops":5}"#,
        r#"{"ops":[],"x":1}"#,
        r#"{"x":1,"ops":[]}"#,
        r#"{"ops":{"ops":[]}}"#,
        "[] 1",
        "[null]",
        "[5]",
        "[{}]",
        "[[]]",
        r#"[{"insert":"a","delete":1}]"#,
        r#"[{"insert":"a","retain":1}]"#,
        r#"[{"insert":"a","delete":null}]"#,
        r#"[{"insert":"a","insert":"b"}]"#,
        r#"[{"insert":"a","x":1}]"#,
        r#"[{"attributes":{"b":true}}]"#,
        r#"[{"insert":"","attributes":5}]"#,
        r#"[{"insert":null}]"#,
        r#"[{"insert":1e400}]"#,
        r#"[{"insert":0}]"#,
        r#"[{"insert":-0.0}]"#,
        r#"[{"insert":true}]"#,
        r#"[{"insert":[]}]"#,
        r#"[{"insert":{}}]"#,
        r#"[{"insert":{"a":1,"a":2}}]"#,
        r#"[{"insert":{"__proto__":1}}]"#,
        r#"[{"insert":{"constructor":1}}]"#,
        r#"[{"insert":"\ud800"}]"#,
        r#"[{"insert":"a\ude00"}]"#,
        r#"[{"insert":{"a":"\ud800"}}]"#,
        r#"[{"insert":{"a":1e400}}]"#,
        r#"[{"retain":0}]"#,
        r#"[{"retain":-1}]"#,
        r#"[{"retain":1.5}]"#,
        r#"[{"retain":"1"}]"#,
        r#"[{"retain":null}]"#,
        r#"[{"retain":{"image":1}}]"#,
        r#"[{"retain":2147483649}]"#,
        r#"[{"delete":0}]"#,
        r#"[{"delete":-1}]"#,
        r#"[{"delete":1.5}]"#,
        r#"[{"delete":"1"}]"#,
        r#"[{"delete":true}]"#,
        r#"[{"delete":1,"attributes":{"b":true}}]"#,
        r#"[{"insert":"a","attributes":null}]"#,
        r#"[{"insert":"a","attributes":[]}]"#,
        r#"[{"insert":"a","attributes":"b"}]"#,
        r#"[{"insert":"a","attributes":5}]"#,
        r#"[{"insert":"a","attributes":{"__proto__":1}}]"#,
        r#"[{"retain":1,"attributes":{"toString":null}}]"#,
        r#"[{"insert":"a","attributes":{"b":{"__proto__":1}}}]"#,
        r#"[{"insert":"a","attributes":{"b":1,"b":2}}]"#,
        r#"[{"insert":"a","attributes":{"\ud800":1}}]"#,
        &deep,
        &deeper,
        &many,
    ];
    for json in table {
        let refused = Op::parse(Kind::RichText, json);
        assert!(
            matches!(refused, Err(OtError::Malformed(_))),
            "{json}: {refused:?}"
        );
    }
    assert!(Op::parse_logged(Kind::RichText, &many).is_ok());
}

#[test]
fn op_that_does_not_fit_changes_nothing() {
    let base = r#"[{"insert":"a😀b"},{"insert":{"i":1}}]"#;
    let too_long = [
        "r7 iX",
        "d6",
        "r5 d1",
        "r6 d1",
        r#"r7{"b":1}"#,
        r#"r5{"b":1} d2"#,
    ];
    let cuts = [
        "r2 iX",
        "r1 d1",
        "d2",
        "r2 d1",
        r#"r2{"b":1}"#,
        "iX r1 d1 iY d1",
    ];
    for (ops, flaw) in [
        (&too_long[..], "The op is too long for this document"),
        (&cuts[..], "The op cuts a surrogate pair"),
    ] {
        for short in ops {
            let mut content = content(base);
            let edit = op(&delta(short));
            assert_eq!(
                content.apply(&edit),
                Err(OtError::NotApplied(flaw)),
                "{short}"
            );
            assert_eq!(
                edit.invert(&content),
                Err(OtError::NotApplied(flaw)),
                "{short}"
            );
            assert_eq!(data(&content), format!(r#"{{"ops":{base}}}"#));
        }
    }
    assert_eq!(
        op(&delta("i😀")).compose(&op(&delta("r1 iX"))),
        Err(OtError::NotApplied("The op cuts a surrogate pair"))
    );
}

/// Quill shows and formats a final newline that the document may not have.
#[test]
fn retain_over_the_implied_final_newline_inserts_it() {
    let table = [
        (
            r#"[{"insert":"Hi!"}]"#,
            r#"r3 r1{"header":1}"#,
            r#"iHi! i\n{"header":1}"#,
        ),
        (
            r#"[{"insert":"Hi!"}]"#,
            r#"r1 r3{"b":1,"c":null}"#,
            r#"iH ii!\n{"b":1}"#,
        ),
        (
            r#"[{"insert":"Hi!"}]"#,
            r#"r3 iX r1{"b":1}"#,
            r#"iHi!X i\n{"b":1}"#,
        ),
        (
            r#"[{"insert":"Hi!"}]"#,
            r#"d3 r1{"b":1} iX"#,
            r#"i\n{"b":1} iX"#,
        ),
        (r#"[{"insert":"Hi!"}]"#, "r4 iX", r"iHi!\nX"),
        ("[]", r#"r1{"b":1}"#, r#"i\n{"b":1}"#),
    ];
    for (base, short, expected) in table {
        let edit = op(&delta(short));
        let before = content(base);
        let mut after = before.clone();
        after.apply(&edit).unwrap();
        assert_eq!(data(&after), delta(expected));
        after.apply(&edit.invert(&before).unwrap()).unwrap();
        assert!(after == before, "{short} is undone: {}", data(&after));
    }
    let mut ended = content(r#"[{"insert":"Hi!\n"}]"#);
    assert!(ended.apply(&op(&delta(r#"r4 r1{"header":1}"#))).is_err());
    ended.apply(&op(&delta(r#"r3 r1{"header":1}"#))).unwrap();
}

#[test]
fn invert_equals_the_npm_package() {
    let base = content(
        r#"[{"insert":"ab","attributes":{"b":true,"f":{"x":1}}},{"insert":"c"},{"insert":{"i":1}}]"#,
    );
    let table = [
        (
            r#"r3{"b":null}"#,
            r#"{"ops":[{"retain":2,"attributes":{"b":true}},{"retain":1,"attributes":{"b":null}}]}"#,
        ),
        (r#"r2{"b":true}"#, r#"{"ops":[]}"#),
        (
            r#"r1{"f":{"x":1}}"#.trim(),
            r#"{"ops":[{"retain":1,"attributes":{"f":{"x":1}}}]}"#,
        ),
        (
            "r1 d3",
            r#"{"ops":[{"retain":1},{"insert":"b","attributes":{"b":true,"f":{"x":1}}},{"insert":"c"},{"insert":{"i":1}}]}"#,
        ),
        (
            "iXY r1 iZ",
            r#"{"ops":[{"delete":2},{"retain":1},{"delete":1}]}"#,
        ),
    ];
    for (short, expected) in table {
        assert_eq!(
            written(&op(&delta(short)).invert(&base).unwrap()),
            expected,
            "{short}"
        );
    }
}

/// A null attribute that an insert was created with is an ordinary attribute; composed onto an insert it removes another.
#[test]
fn null_attributes_of_inserts_are_kept() {
    // base, a, b made on what a makes: after a, after both, both in one
    let table = [
        (
            r#"ix{"b":null}"#,
            r#"iy{"b":null} r1"#,
            "r1 iz",
            r#"iyx{"b":null}"#,
            r#"iy{"b":null} iz ix{"b":null}"#,
            r#"iy{"b":null} iz"#,
        ),
        (
            r#"ix{"b":null,"c":1}"#,
            r#"r1{"c":null}"#,
            r#"r1{"b":null}"#,
            r#"ix{"b":null}"#,
            "ix",
            r#"r1{"b":null,"c":null}"#,
        ),
        (
            "ix",
            r#"iy{"b":null}"#,
            r#"r1{"c":2}"#,
            r#"iy{"b":null} ix"#,
            r#"iy{"b":null,"c":2} ix"#,
            r#"iy{"b":null,"c":2}"#,
        ),
        (
            "ix",
            r#"iy{"b":null,"c":null}"#,
            r#"r1{"c":null}"#,
            r#"iy{"b":null,"c":null} ix"#,
            r#"iy{"b":null} ix"#,
            r#"iy{"b":null}"#,
        ),
    ];
    for (base, a, b, after, then, both) in table {
        let (mut content, a, b) = (content(&delta(base)), op(&delta(a)), op(&delta(b)));
        assert_eq!(data(&content), delta(base));
        content.apply(&a).unwrap();
        assert_eq!(data(&content), delta(after));
        content.apply(&b).unwrap();
        assert_eq!(data(&content), delta(then));
        assert_eq!(written(&a.compose(&b).unwrap()), delta(both));
    }
    let base = content(&delta(r#"ix{"b":null,"c":null}"#));
    for (short, inverse) in [
        ("d1", r#"ix{"b":null,"c":null}"#),
        (r#"r1{"b":1,"c":null,"d":1}"#, r#"r1{"b":null,"d":null}"#),
    ] {
        assert_eq!(
            written(&op(&delta(short)).invert(&base).unwrap()),
            delta(inverse)
        );
    }
    let (a, b) = (op(&delta(r#"r1 iy{"b":null}"#)), op(&delta("d1")));
    assert_eq!(
        written(&a.transform(&b, Side::Left).unwrap()),
        delta(r#"iy{"b":null}"#)
    );
}

#[test]
fn rich_text_is_created_from_inserts() {
    let nothing = r#"[{"insert":""}]"#;
    for data in [
        None,
        Some("null"),
        Some("[]"),
        Some(r#"{"ops":[]}"#),
        Some(nothing),
    ] {
        assert!(Content::create(Kind::RichText, data).unwrap().is_empty());
    }
    let sound = content(
        r#"{"ops":[{"insert":"a"},{"insert":"b","attributes":{}},{"insert":{"i":1},"attributes":{"b":null}}]}"#,
    );
    assert_eq!(
        data(&sound),
        r#"{"ops":[{"insert":"ab"},{"insert":{"i":1},"attributes":{"b":null}}]}"#
    );
    assert_eq!((sound.len(), sound.to_text().as_str()), (3, "ab"));
    for bad in [
        "5",
        "\"a\"",
        "{}",
        r#"[{"retain":1}]"#,
        r#"[{"insert":"a"},{"delete":1}]"#,
        r#"[{"insert":"","retain":1}]"#,
        "[",
        "",
    ] {
        assert!(
            matches!(
                Content::create(Kind::RichText, Some(bad)),
                Err(OtError::BadData(_))
            ),
            "{bad}"
        );
    }
}

#[test]
fn size_is_close_to_that_of_the_json() {
    let text = "wörld";
    let run = |at: usize| serde_json::json!({"insert": text, "attributes": {"link": format!("http://x/{at}")}});
    let content = content(&(0..200).map(run).collect::<serde_json::Value>().to_string());
    let json = data(&content).len();
    assert!(
        (json / 2..json * 2).contains(&content.size_bytes()),
        "{} for {json}",
        content.size_bytes()
    );
}

#[test]
fn implied_newline_is_sent_to_other_clients_as_an_insert() {
    use Newline::{IsFirst, MayBeSecond};
    let (bare, ended) = (r#"[{"insert":"Hi!"}]"#, r#"[{"insert":"Hi!\n"}]"#);
    let table = [
        (
            bare,
            IsFirst,
            r#"r3 r1{"header":1}"#,
            Some(r#"r3 i\n{"header":1}"#),
        ),
        (
            bare,
            IsFirst,
            r#"r4{"b":1,"c":null}"#,
            Some(r#"r3{"b":1,"c":null} i\n{"b":1}"#),
        ),
        (bare, IsFirst, "r4 iX", Some(r"r3 i\nX")),
        (bare, IsFirst, r#"r3{"b":1}"#, None),
        (bare, IsFirst, "r3 iX", None),
        (bare, IsFirst, r#"r5{"b":1}"#, None),
        (bare, IsFirst, "r3 d1", None),
        (ended, IsFirst, r#"r4 r1{"list":1}"#, None),
        (
            ended,
            MayBeSecond,
            r#"r4 r1{"list":1}"#,
            Some(r#"r4 i\n{"list":1}"#),
        ),
        (ended, MayBeSecond, r#"r3 r1{"list":1}"#, None),
        ("[]", IsFirst, r#"r1{"b":1}"#, Some(r#"i\n{"b":1}"#)),
    ];
    for (base, newline, short, expected) in table {
        let (edit, base) = (op(&delta(short)), content(base));
        let told = base.with_final_newline(&edit, newline);
        assert_eq!(told.as_ref().map(written), expected.map(delta), "{short}");
        if let (Some(told), IsFirst) = (told, newline) {
            let (mut own, mut others) = (base.clone(), base);
            own.apply(&edit).unwrap();
            others.apply(&told).unwrap();
            assert!(own == others, "{short}");
        }
    }
}
