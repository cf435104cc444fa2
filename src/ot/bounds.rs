//! Tests of the bounds: no op costs more than its bounds allow, and an op that exceeds them changes nothing.

use super::*;

const MIB: usize = 1 << 20;

fn rich(json: &str) -> Content {
    Content::create(Kind::RichText, Some(json)).unwrap()
}

fn op(json: &str) -> Op {
    Op::parse(Kind::RichText, json).unwrap()
}

fn attributes(bytes: usize) -> String {
    format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes))
}

/// Runs of one letter that differ from their neighbours.
fn runs(count: usize) -> Content {
    let run = |at: usize| match at % 2 {
        0 => r#"{"insert":"a","attributes":{"bold":true}}"#,
        _ => r#"{"insert":"b"}"#,
    };
    rich(&format!(
        "[{}]",
        (0..count).map(run).collect::<Vec<_>>().join(",")
    ))
}

fn is_rejected(content: &Content, op: &Op, bytes_max: usize, error: &OtError) {
    let mut after = content.clone();
    let refused = after.apply_within(op, &ContentBounds::of_new(bytes_max));
    assert_eq!(refused.as_ref(), Err(error));
    assert!(after == *content, "it is as it was");
}

#[test]
fn attributes_that_multiply_over_runs_are_rejected() {
    let content = runs(9_999);
    let set = op(&format!(
        r#"[{{"retain":9999,"attributes":{}}}]"#,
        attributes(60_000)
    ));
    is_rejected(&content, &set, 10 * MIB, &OtError::ContentTooLarge);
    // The same with many small retains, and with an op that an older version logged.
    let small = format!(r#"{{"retain":1,"attributes":{}}}"#, attributes(5_000));
    let small = op(&format!("[{}]", vec![small; 300].join(",")));
    is_rejected(&content, &small, MIB, &OtError::ContentTooLarge);
    let logged = format!(
        r#"[{{"retain":9999,"attributes":{}}}]"#,
        attributes(2 * MIB)
    );
    let logged = Op::parse_logged(Kind::RichText, &logged).unwrap();
    let mut after = content.clone();
    assert_eq!(after.apply(&logged), Err(OtError::ContentTooLarge));
    assert!(after == content);
}

#[test]
fn inserts_that_cut_runs_with_large_attributes_are_rejected() {
    let text = "x".repeat(2_000);
    let content = rich(&format!(
        r#"[{{"insert":"{text}","attributes":{}}}]"#,
        attributes(60_000)
    ));
    for cut in [
        r#"{"insert":"y"},{"retain":1}"#,
        r#"{"retain":1},{"delete":1},{"insert":{"i":1}}"#,
    ] {
        let cuts = op(&format!("[{}]", vec![cut; 900].join(",")));
        is_rejected(&content, &cuts, 10 * MIB, &OtError::ContentTooLarge);
    }
}

#[test]
fn attributes_of_a_run_are_bounded() {
    let mut content = rich(r#"[{"insert":"abc"}]"#);
    let set = |key: &str, value: usize| {
        let value = "x".repeat(value);
        op(&format!(
            r#"[{{"retain":2,"attributes":{{"{key}":"{value}"}}}}]"#
        ))
    };
    let bounds = ContentBounds::of_new(10 * MIB);
    content.apply_within(&set("a", 40_000), &bounds).unwrap();
    let mut after = content.clone();
    let refused = after.apply_within(&set("b", 40_000), &bounds);
    assert!(matches!(refused, Err(OtError::TooLarge(_))), "{refused:?}");
    assert!(after == content);
    // A content beyond the bound, stored by an older version, may be made smaller.
    content.apply(&set("b", 40_000)).unwrap();
    content.apply_within(&set("b", 39_000), &bounds).unwrap();
    assert!(content.size_bytes() > 79_000);
}

#[test]
fn op_that_shrinks_an_oversized_content_is_applied() {
    let content = runs(2_000);
    let bound = content.size_bytes() / 2;
    for (json, fits) in [
        (r#"[{"delete":100}]"#, true),
        (r#"[{"retain":2000,"attributes":{"bold":null}}]"#, true),
        // It grows before it shrinks.
        (
            r#"[{"retain":200,"attributes":{"c":"0123456789"}},{"delete":1800}]"#,
            true,
        ),
        (r#"[{"retain":2000,"attributes":{"c":1}}]"#, false),
        (r#"[{"insert":"x"}]"#, false),
    ] {
        let applied = content
            .clone()
            .apply_within(&op(json), &ContentBounds::of_new(bound));
        assert_eq!(applied.is_ok(), fits, "{json}: {applied:?}");
    }
    let text = Content::create(Kind::TextUnicode, Some(r#""0123456789""#)).unwrap();
    for (json, fits) in [
        (r#"[{"d":2},"x"]"#, true),
        (r#"["x"]"#, false),
        (r#"["\u0001",{"d":3}]"#, false),
    ] {
        let edit = Op::parse(Kind::TextUnicode, json).unwrap();
        let applied = text.clone().apply_within(&edit, &ContentBounds::of_new(8));
        assert_eq!(applied.is_ok(), fits, "{json}: {applied:?}");
    }
}

#[test]
fn size_includes_json_escapes() {
    let written = |content: &Content| {
        let mut out = Vec::new();
        content.write_json(&mut out);
        out.len()
    };
    let mut text = Content::create(Kind::TextUnicode, Some(r#""a\u0001\"\n😀""#)).unwrap();
    assert_eq!(text.size_bytes(), written(&text));
    for json in [r#"[1,"\\\t"]"#, r#"[{"d":3},"\u001f"]"#, r#"[1,{"d":2}]"#] {
        text.apply(&Op::parse(Kind::TextUnicode, json).unwrap())
            .unwrap();
        assert_eq!(text.size_bytes(), written(&text), "{json}");
    }
    let controls = r"\u0001".repeat(3_000);
    let mut content = rich(&format!(r#"[{{"insert":"{controls}"}}]"#));
    content
        .apply(&op(r#"[{"retain":700},{"delete":900},{"insert":"\n"}]"#))
        .unwrap();
    assert_eq!(content.size_bytes(), written(&content));
}

#[test]
fn large_attributes_and_embeds_are_rejected_from_clients_and_read_from_the_store() {
    let keys = |count: usize| {
        let pairs: Vec<_> = (0..count).map(|at| format!(r#""k{at}":1"#)).collect();
        pairs.join(",")
    };
    let list = |count: usize| vec!["1"; count].join(",");
    let text = |bytes: usize| "x".repeat(bytes);
    let table = [
        (
            format!(
                r#"[{{"retain":1,"attributes":{{{}}}}}]"#,
                keys(ATTRIBUTE_KEYS_MAX)
            ),
            true,
        ),
        (
            format!(
                r#"[{{"retain":1,"attributes":{{{}}}}}]"#,
                keys(ATTRIBUTE_KEYS_MAX + 1)
            ),
            false,
        ),
        (
            format!(
                r#"[{{"insert":"a","attributes":{}}}]"#,
                attributes(ATTRIBUTE_BYTES_MAX - 9)
            ),
            true,
        ),
        (
            format!(
                r#"[{{"insert":"a","attributes":{}}}]"#,
                attributes(ATTRIBUTE_BYTES_MAX)
            ),
            false,
        ),
        (
            format!(
                r#"[{{"insert":"a","attributes":{{"a":[{}]}}}}]"#,
                list(VALUE_MEMBERS_MAX)
            ),
            true,
        ),
        (
            format!(
                r#"[{{"insert":"a","attributes":{{"a":[[],{}]}}}}]"#,
                list(VALUE_MEMBERS_MAX)
            ),
            false,
        ),
        (
            format!(
                r#"[{{"insert":{{"a":[{}]}}}}]"#,
                list(VALUE_MEMBERS_MAX - 1)
            ),
            true,
        ),
        (
            format!(r#"[{{"insert":{{"a":[{}]}}}}]"#, list(VALUE_MEMBERS_MAX)),
            false,
        ),
        (
            format!(r#"[{{"insert":{{{}}}}}]"#, keys(VALUE_MEMBERS_MAX + 1)),
            false,
        ),
        (
            format!(
                r#"[{{"insert":{{"image":"{}"}}}}]"#,
                text(EMBED_BYTES_MAX - 12)
            ),
            true,
        ),
        (
            format!(r#"[{{"insert":{{"image":"{}"}}}}]"#, text(EMBED_BYTES_MAX)),
            false,
        ),
    ];
    for (json, fits) in table {
        let parsed = Op::parse(Kind::RichText, &json);
        assert_eq!(parsed.is_ok(), fits, "{}: {:?}", &json[..60], parsed.err());
        assert!(Op::parse_logged(Kind::RichText, &json).is_ok());
        if json.contains("insert") {
            let created = Content::create(Kind::RichText, Some(&json));
            assert_eq!(created.is_ok(), fits, "{}", &json[..60]);
            assert!(Content::create_logged(Kind::RichText, &json).is_ok());
        }
    }
}

#[test]
fn stored_content_beyond_the_hard_bound_is_rejected_while_it_is_read() {
    let run = format!(r#"{{"insert":"a","attributes":{}}}"#, attributes(MIB));
    let other = format!(r#"{{"insert":"b","attributes":{}}}"#, attributes(MIB - 1));
    let stored = format!("[{}]", vec![format!("{run},{other}"); 33].join(","));
    let read = Content::create_logged(Kind::RichText, &stored);
    assert_eq!(read.unwrap_err(), OtError::ContentTooLarge);
}

/// `a` and `b` exceed a budget that bounds the outcome, and one that bounds the work.
fn exceed(a: &Op, b: &Op, steps: u64) {
    let (small, short) = (
        Budget::new(u64::MAX, 8 * MIB),
        Budget::new(steps, usize::MAX),
    );
    for budget in [small, short] {
        for side in [Side::Left, Side::Right] {
            let transformed = a.transform_within(b, side, &mut budget.clone());
            assert!(
                matches!(transformed, Err(OtError::TooLarge(_))),
                "{transformed:?}"
            );
        }
        let composed = b.compose_within(a, &mut budget.clone());
        assert!(
            matches!(composed, Err(OtError::TooLarge(_))),
            "{composed:?}"
        );
    }
    let enough = &mut Budget::new(10_000_000, usize::MAX);
    a.transform_within(b, Side::Left, enough).unwrap();
    b.compose_within(a, enough).unwrap();
    assert!(enough.steps() < 10_000_000, "work is counted");
}

#[test]
fn op_cut_into_too_many_pieces_by_another_is_rejected() {
    let large = op(&format!(
        r#"[{{"retain":10000,"attributes":{}}}]"#,
        attributes(60_000)
    ));
    let cuts = vec![r#"{"insert":"x"},{"retain":1}"#; 3_000].join(",");
    exceed(&large, &op(&format!("[{cuts}]")), 1_000);
    let delete = Op::parse(Kind::TextUnicode, r#"[{"d":1000000}]"#).unwrap();
    let cuts = format!("[{}1,\"x\"]", r#"1,"x","#.repeat(70_000));
    let cuts = Op::parse(Kind::TextUnicode, &cuts).unwrap();
    let mut budget = Budget::new(1_000, usize::MAX);
    for side in [Side::Left, Side::Right] {
        let cut = delete.transform_within(&cuts, side, &mut budget.clone());
        assert!(matches!(cut, Err(OtError::TooLarge(_))));
        let small = &mut Budget::new(u64::MAX, MIB);
        let cut = delete.transform_within(&cuts, side, small);
        assert!(matches!(cut, Err(OtError::TooLarge(_))));
    }
    let composed = cuts.compose_within(&delete, &mut budget);
    assert!(matches!(composed, Err(OtError::TooLarge(_))));
}
