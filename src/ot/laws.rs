//! Property tests for all ops on all contents: convergence, composition, inversion, normal form.

use proptest::prelude::*;

use super::ot_js::Edit;
use super::{Content, Kind, Op, Side};

fn op(kind: Kind, json: &str) -> Op {
    Op::parse(kind, json).unwrap_or_else(|error| panic!("{error}: {json}"))
}

fn content(kind: Kind, json: &str) -> Content {
    Content::create(kind, Some(json)).unwrap_or_else(|error| panic!("{error}: {json}"))
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

fn applied(content: &Content, ops: &[&Op]) -> Content {
    let mut content = content.clone();
    for op in ops {
        content
            .apply(op)
            .unwrap_or_else(|error| panic!("{error}: {op:?}"));
        if let Content::Rich(rich) = &content {
            rich.check_invariants();
        }
    }
    content
}

fn converges(content: &Content, a: &Op, b: &Op) {
    for side in [Side::Left, Side::Right] {
        let other = if side == Side::Left {
            Side::Right
        } else {
            Side::Left
        };
        let (a_after_b, b_after_a) = (
            a.transform(b, side).unwrap(),
            b.transform(a, other).unwrap(),
        );
        let (one, two) = (
            applied(content, &[a, &b_after_a]),
            applied(content, &[b, &a_after_b]),
        );
        assert!(
            one == two,
            "{} and {} ({side:?}): {} or {}",
            written(a),
            written(b),
            data(&one),
            data(&two)
        );
        is_normal(&a_after_b);
    }
}

/// Written ops are accepted by the parser.
fn is_normal(op: &Op) {
    assert_eq!(
        Op::parse_logged(op.kind(), &written(op)).as_ref(),
        Ok(op),
        "{}",
        written(op)
    );
}

/// An inverse does not restore a null attribute of an insert: no retain can set one.
fn without_nulls(base: &Content) -> Content {
    let mut json: serde_json::Value = serde_json::from_str(&data(base)).expect("sound JSON");
    let inserts = json
        .get_mut("ops")
        .and_then(serde_json::Value::as_array_mut);
    for insert in inserts.into_iter().flatten() {
        if let Some(attributes) = insert
            .get_mut("attributes")
            .and_then(serde_json::Value::as_object_mut)
        {
            attributes.retain(|_, value| !value.is_null());
        }
    }
    content(base.kind(), &json.to_string())
}

/// All ops over `len` units, with one of `steps` at each unit and one of `gaps` between units.
fn every_op(kind: Kind, len: usize, steps: &[&str], gaps: &[&str]) -> Vec<Op> {
    let mut paths = vec![String::new()];
    for at in 0..=2 * len {
        let choices = if at % 2 == 0 { gaps } else { steps };
        let longer = |path: &String| {
            choices
                .iter()
                .map(|choice| format!("{path}{choice}"))
                .collect::<Vec<_>>()
        };
        paths = paths.iter().flat_map(longer).collect();
    }
    paths
        .iter()
        .map(|path| op(kind, &tidy(kind, path)))
        .collect()
}

/// `kkd` as components in normal form.
fn tidy(kind: Kind, path: &str) -> String {
    let mut parts: Vec<(char, usize)> = Vec::new();
    for step in path.chars() {
        match parts.last_mut() {
            Some((last, count)) if *last == step => *count += 1,
            _ => parts.push((step, 1)),
        }
    }
    if kind == Kind::TextUnicode && parts.last().is_some_and(|(step, _)| *step == 'k') {
        parts.pop();
    }
    let component = |(step, count): &(char, usize)| match (kind, step) {
        (Kind::TextUnicode, 'k') => format!("{count}"),
        (Kind::TextUnicode, 'd') => format!(r#"{{"d":{count}}}"#),
        (Kind::TextUnicode, text) => format!(r#""{text}""#),
        (Kind::RichText, 'k') => format!(r#"{{"retain":{count}}}"#),
        (Kind::RichText, 'd') => format!(r#"{{"delete":{count}}}"#),
        (Kind::RichText, 'T') => format!(r#"{{"retain":{count},"attributes":{{"b":true}}}}"#),
        (Kind::RichText, 'F') => {
            format!(r#"{{"retain":{count},"attributes":{{"b":false,"c":1}}}}"#)
        }
        (Kind::RichText, 'N') => format!(r#"{{"retain":{count},"attributes":{{"b":null}}}}"#),
        (Kind::RichText, 'B') => r#"{"insert":"B","attributes":{"b":true}}"#.to_owned(),
        (Kind::RichText, 'E') => r#"{"insert":{"e":1},"attributes":{"b":null}}"#.to_owned(),
        (Kind::RichText, text) => format!(r#"{{"insert":"{text}"}}"#),
    };
    format!(
        "[{}]",
        parts.iter().map(component).collect::<Vec<_>>().join(",")
    )
}

/// The results depend on the length of a text only, so one text of distinct characters represents all of its length.
#[test]
fn every_pair_of_ops_on_a_small_text_converges() {
    for len in 0..=4 {
        let text: String = "a😀b\u{301}".chars().take(len).collect();
        let base = content(
            Kind::TextUnicode,
            &format!("{text:?}").replace("\\u{301}", "\u{301}"),
        );
        let mine = every_op(Kind::TextUnicode, len, &["k", "d"], &["", "x"]);
        let theirs = every_op(Kind::TextUnicode, len, &["k", "d"], &["", "y"]);
        for a in &mine {
            for b in &theirs {
                converges(&base, a, b);
            }
        }
    }
}

#[test]
fn every_pair_of_deltas_on_a_small_text_converges() {
    let bases = [
        r#"[]"#,
        r#"[{"insert":"a"}]"#,
        r#"[{"insert":"a","attributes":{"b":true}},{"insert":{"i":1}}]"#,
    ];
    for (len, base) in bases.iter().enumerate() {
        let base = content(Kind::RichText, base);
        let mine = every_op(Kind::RichText, len, &["k", "d", "T", "N"], &["", "x", "B"]);
        let theirs = every_op(Kind::RichText, len, &["k", "d", "F", "N"], &["", "y", "E"]);
        for a in &mine {
            for b in &theirs {
                converges(&base, a, b);
            }
        }
    }
}

#[test]
fn every_pair_of_deltas_on_three_units_converges() {
    let base = content(
        Kind::RichText,
        r#"[{"insert":"ab"},{"insert":"c","attributes":{"c":2}}]"#,
    );
    let mine = every_op(Kind::RichText, 3, &["k", "d", "T"], &["", "x"]);
    let theirs = every_op(Kind::RichText, 3, &["k", "d", "F"], &["", "y"]);
    for a in mine.iter().step_by(3) {
        for b in &theirs {
            converges(&base, a, b);
        }
    }
}

// ---- Random ops ----------------------------------------------------------------------------------------------------

/// One random step of an op: a distance, and an edit after it.
#[derive(Debug, Clone)]
enum Step {
    Keep(usize, Option<&'static str>),
    Insert(String, Option<&'static str>),
    Embed(&'static str, Option<&'static str>),
    Delete(usize, bool),
}

fn text() -> impl Strategy<Value = String> {
    let char = prop_oneof![
        Just('a'),
        Just('b'),
        Just('\n'),
        Just('é'),
        Just('😀'),
        Just('\u{200d}'),
        Just('\u{10ffff}')
    ];
    proptest::collection::vec(char, 1..12).prop_map(String::from_iter)
}

fn set() -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![
        3 => Just(None),
        1 => Just(Some(r#"{"b":true}"#)),
        1 => Just(Some(r#"{"b":null,"c":{"x":[1,2]}}"#)),
        1 => Just(Some(r#"{"c":1e3}"#)),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1..9_usize, set()).prop_map(|(len, set)| Step::Keep(len, set)),
        (text(), set()).prop_map(|(text, set)| Step::Insert(text, set)),
        (
            prop_oneof![Just(r#"{"i":"u"}"#), Just(r#"{"m":{"id":7}}"#)],
            set()
        )
            .prop_map(|(value, set)| Step::Embed(value, set)),
        (1..9_usize, any::<bool>()).prop_map(|(len, told)| Step::Delete(len, told)),
    ];
    proptest::collection::vec(step, 0..9)
}

/// The steps as an op that applies to `content` and splits no surrogate pair. Steps beyond the end are left out.
fn along(content: &Content, steps: &[Step]) -> Op {
    match content {
        Content::Text(_) => text_along(&content.to_text(), steps),
        Content::Rich(rich) => {
            let mut rest = rich.unit_lens().into_iter().peekable();
            let mut parts = Vec::new();
            for step in steps {
                let mut take = |count: usize| rest.by_ref().take(count).sum::<u64>();
                let set = |set: &Option<&str>| {
                    set.map_or(String::new(), |set| format!(r#","attributes":{set}"#))
                };
                parts.push(match step {
                    Step::Insert(text, with) => {
                        format!(r#"{{"insert":{}{}}}"#, serde_json::json!(text), set(with))
                    }
                    Step::Embed(value, with) => format!(r#"{{"insert":{value}{}}}"#, set(with)),
                    Step::Keep(count, with) => match take(*count) {
                        0 => continue,
                        len => format!(r#"{{"retain":{len}{}}}"#, set(with)),
                    },
                    Step::Delete(count, _) => match take(*count) {
                        0 => continue,
                        len => format!(r#"{{"delete":{len}}}"#),
                    },
                });
            }
            op(Kind::RichText, &format!("[{}]", parts.join(",")))
        }
    }
}

fn text_along(text: &str, steps: &[Step]) -> Op {
    let mut rest = text.chars();
    let mut parts: Vec<serde_json::Value> = Vec::new();
    for step in steps {
        let part = match step {
            Step::Insert(text, _) => serde_json::json!(text),
            Step::Embed(value, _) => serde_json::json!(value),
            Step::Keep(count, _) => serde_json::json!(rest.by_ref().take(*count).count()),
            Step::Delete(count, told) => match rest.by_ref().take(*count).collect::<String>() {
                text if *told => serde_json::json!({ "d": text }),
                text => serde_json::json!({ "d": text.chars().count() }),
            },
        };
        let is_empty = part == 0 || part["d"] == 0 || part["d"] == "";
        let same_sort = parts.last().is_some_and(|last| {
            (last.is_u64(), last.is_string(), last.is_object())
                == (part.is_u64(), part.is_string(), part.is_object())
        });
        match parts.last_mut().filter(|_| same_sort) {
            _ if is_empty => {}
            // Adjacent components of one kind are not in normal form: counts are added up, a second insert is skipped.
            Some(last) if part.is_u64() => {
                *last = serde_json::json!(last.as_u64().unwrap() + part.as_u64().unwrap())
            }
            Some(last) if part.is_object() => {
                let len = |value: &serde_json::Value| match &value["d"] {
                    serde_json::Value::String(text) => text.chars().count() as u64,
                    count => count.as_u64().unwrap(),
                };
                *last = serde_json::json!({ "d": len(last) + len(&part) });
            }
            Some(_) => {}
            None => parts.push(part),
        }
    }
    while parts.last().is_some_and(serde_json::Value::is_u64) {
        parts.pop();
    }
    op(
        Kind::TextUnicode,
        &serde_json::Value::Array(parts).to_string(),
    )
}

fn base() -> impl Strategy<Value = Content> {
    let plain =
        text().prop_map(|text| content(Kind::TextUnicode, &serde_json::json!(text).to_string()));
    let rich = proptest::collection::vec((text(), set(), any::<bool>()), 0..20).prop_map(|runs| {
        let run = |(text, set, is_embed): &(String, Option<&str>, bool)| {
            let body = if *is_embed {
                serde_json::json!({ "i": text })
            } else {
                serde_json::json!(text)
            };
            format!(
                r#"{{"insert":{body},"attributes":{}}}"#,
                set.unwrap_or("{}")
            )
        };
        content(
            Kind::RichText,
            &format!("[{}]", runs.iter().map(run).collect::<Vec<_>>().join(",")),
        )
    });
    prop_oneof![1 => plain, 2 => rich]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_ops_converge(base in base(), a in steps(), b in steps()) {
        converges(&base, &along(&base, &a), &along(&base, &b));
    }

    #[test]
    fn composed_op_has_the_effect_of_both(base in base(), a in steps(), b in steps(), c in steps()) {
        let a = along(&base, &a);
        let after_a = applied(&base, &[&a]);
        let b = along(&after_a, &b);
        let after_b = applied(&after_a, &[&b]);
        let c = along(&after_b, &c);
        let (ab, bc) = (a.compose(&b).unwrap(), b.compose(&c).unwrap());
        is_normal(&ab);
        prop_assert!(applied(&base, &[&ab]) == after_b);
        let (left, right) = (ab.compose(&c).unwrap(), a.compose(&bc).unwrap());
        prop_assert!(applied(&base, &[&left]) == applied(&base, &[&right]));
    }

    #[test]
    fn inverse_restores_the_content(base in base(), a in steps()) {
        let a = along(&base, &a);
        let inverse = a.invert(&base).unwrap();
        is_normal(&inverse);
        prop_assert!(without_nulls(&applied(&base, &[&a, &inverse])) == without_nulls(&base));
    }

    #[test]
    fn written_ops_are_parsed_unchanged(base in base(), a in steps()) {
        is_normal(&along(&base, &a));
        let again = content(base.kind(), &data(&base));
        prop_assert!(again == base);
        prop_assert_eq!(data(&again), data(&base));
        prop_assert!(again.size_bytes() >= base.to_text().len());
    }

    /// A document is a Delta of inserts, and apply equals compose: two implementations that share no code.
    #[test]
    fn tree_equals_composition_as_a_list(base in base(), a in steps()) {
        if base.kind() == Kind::RichText {
            let a = along(&base, &a);
            let list = op(Kind::RichText, &data(&base)).compose(&a).unwrap();
            prop_assert_eq!(data(&applied(&base, &[&a])), written(&list));
        }
    }

    /// The crate places inserts before deletes; for ops of that form both must agree.
    #[test]
    fn results_equal_those_of_the_operational_transform_crate(base in base(), a in steps(), b in steps()) {
        if base.kind() == Kind::TextUnicode {
            let edit = |op: &Op, base: &Content| match op {
                Op::Text(op) => Edit::from_text_op(op, base.len()).unwrap(),
                Op::Rich(_) => unreachable!("a plain text's op"),
            };
            // Converted by the crate once, so that the op has its order.
            let (a, b) = (edit(&along(&base, &a), &base), edit(&along(&base, &b), &base));
            let (op_a, op_b) = (Op::Text(a.to_text_op()), Op::Text(b.to_text_op()));
            let (after_a, after_b) = (applied(&base, &[&op_a]), applied(&base, &[&op_b]));
            let (a_after_b, b_after_a) = a.transform(&b).unwrap();
            prop_assert_eq!(edit(&op_a.transform(&op_b, Side::Left).unwrap(), &after_b), a_after_b);
            prop_assert_eq!(&edit(&op_b.transform(&op_a, Side::Right).unwrap(), &after_a), &b_after_a);
            let both = op_a.compose(&Op::Text(b_after_a.to_text_op())).unwrap();
            prop_assert_eq!(edit(&both, &base), a.compose(&b_after_a).unwrap());
            prop_assert_eq!(edit(&op_a.invert(&base).unwrap(), &after_a), a.invert(&base).unwrap());
            let mut text = base;
            a.apply(&mut text).unwrap();
            prop_assert!(text == after_a);
        }
    }
}
