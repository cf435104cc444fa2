//! Holds `copydesk::ot` to the npm packages that the clients run: seeded random cases, answered by both.
//!
//! `OT_SEED` (default 1) picks the stories, `OT_CASES` (default 20000) their number; a failure prints the whole case.
//! Node and npm are needed; without them the test skips, loudly.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::sync_channel;
use std::thread;

use copydesk::ot::{Content, Kind, Op, Side, transform_presence};
use serde_json::value::RawValue;
use serde_json::{Value, json};

const BATCH: u64 = 500;

#[test]
fn same_as_the_npm_packages() {
    let Some(oracle) = oracle() else { return };
    let (seed, cases) = (setting("OT_SEED", 1), setting("OT_CASES", 20_000));
    let mut node = node(oracle);
    let mut questions = node.stdin.take().expect("node's stdin");
    let answers = BufReader::new(node.stdout.take().expect("node's stdout"));

    // The generator runs ahead of the comparison, and both of node.
    let (ahead, asked) = sync_channel::<Vec<Case>>(4);
    let generator = thread::spawn(move || {
        for start in (0..cases).step_by(BATCH as usize) {
            let batch: Vec<Case> = (start..cases.min(start + BATCH))
                .map(|index| Case::of(seed, index))
                .collect();
            let mut line = Vec::from(b"[");
            for (at, case) in batch.iter().enumerate() {
                line.extend_from_slice(if at == 0 { b"" } else { b"," });
                line.extend_from_slice(case.question.as_bytes());
            }
            line.extend_from_slice(b"]\n");
            if questions.write_all(&line).is_err() || ahead.send(batch).is_err() {
                return;
            }
        }
    });
    let mut compared = 0;
    for (batch, line) in asked.iter().zip(answers.lines()) {
        let line = line.expect("an answer from node");
        let answers: Vec<&RawValue> = serde_json::from_str(&line).expect("a line of answers");
        assert_eq!(answers.len(), batch.len());
        for (case, answer) in batch.iter().zip(answers) {
            case.compare(answer);
            compared += 1;
        }
    }
    generator.join().expect("the generator");
    node.wait().expect("node ends");
    assert_eq!(compared, cases, "every case was answered");
    println!("{compared} cases, OT_SEED={seed}: no difference");
}

#[test]
fn values_are_written_as_javascript_writes_them() {
    let Some(oracle) = oracle() else { return };
    let (seed, cases) = (setting("OT_SEED", 1), setting("OT_CASES", 20_000));
    let mut dice = Dice(seed ^ 0x7A15);
    let values: Vec<String> = (0..cases).map(|_| value_as_sent(&mut dice)).collect();
    let mut node = node(oracle);
    let mut questions = node.stdin.take().expect("node's stdin");
    let mut answers = BufReader::new(node.stdout.take().expect("node's stdout")).lines();
    for batch in values.chunks(BATCH as usize) {
        let asked: Vec<_> = batch
            .iter()
            .map(|value| format!(r#"{{"kind":"json","value":{value}}}"#))
            .collect();
        writeln!(questions, "[{}]", asked.join(",")).expect("ask node");
        let line = answers
            .next()
            .expect("a line")
            .expect("an answer from node");
        let theirs: Vec<&RawValue> = serde_json::from_str(&line).expect("a line of answers");
        for (value, theirs) in batch.iter().zip(theirs) {
            let embed = parse(
                Kind::RichText,
                &format!(r#"[{{"insert":{{"v":{value}}}}}]"#),
            );
            assert_eq!(
                written(&embed),
                format!(r#"{{"ops":[{{"insert":{{"v":{theirs}}}}}]}}"#),
                "{value}"
            );
        }
    }
    drop(questions);
    node.wait().expect("node ends");
}

/// Numbers and strings in many spellings.
fn value_as_sent(dice: &mut Dice) -> String {
    let float = f64::from_bits(dice.next());
    let decimal = dice.next() as i64 as f64 / 10_f64.powi(dice.below(25) as i32);
    match dice.below(6) {
        0 if float.is_finite() => format!("{float:e}"),
        1 => decimal.to_string(),
        2 => (dice.next() as i64).to_string(),
        3 => format!("{}e{}", dice.below(100_000), dice.below(40) as i64 - 20),
        4 => format!("-{}.{}0", dice.below(1_000), dice.below(1_000_000)),
        _ => {
            let unit = |unit: u16| format!(r"\u{unit:04x}");
            let escaped: String = text(dice, 6).encode_utf16().map(unit).collect();
            format!(r#"[{},"{escaped}"]"#, json!(text(dice, 6)))
        }
    }
}

fn node(oracle: &Path) -> Child {
    Command::new("node")
        .arg("oracle.mjs")
        .current_dir(oracle)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start node")
}

/// The oracle's folder with its packages installed; once, whichever test asks first.
fn oracle() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOLDER.get_or_init(install).as_deref()
}

fn install() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js/oracle");
    let runs = |program| {
        let version = Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .status();
        version.is_ok_and(|status| status.success())
    };
    if !runs("node") || !runs("npm") {
        // Not by `eprintln`, which the test harness keeps to itself.
        let skipped = "\n!!! SKIPPED: node or npm is not installed, nothing was compared with the npm packages !!!\n";
        writeln!(std::io::stderr(), "{skipped}").expect("write to stderr");
        return None;
    }
    if !folder.join("node_modules/rich-text").exists() {
        let installed = Command::new("npm")
            .arg("ci")
            .current_dir(&folder)
            .status()
            .expect("run npm");
        assert!(installed.success(), "npm ci in {}", folder.display());
    }
    Some(folder)
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// Two ops on one content, a third after the first, and what we make of them.
struct Case {
    question: String,
    answer: Vec<(&'static str, String)>,
}

impl Case {
    fn of(seed: u64, index: u64) -> Self {
        let mut dice = Dice(
            seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ index.wrapping_mul(0xD1B5_4A32_D192_ED03),
        );
        let kind = if dice.below(3) == 0 {
            Kind::TextUnicode
        } else {
            Kind::RichText
        };
        let content = content(kind, &mut dice);
        let (a_json, b_json) = (op(&content, &mut dice), op(&content, &mut dice));
        let (a, b) = (parse(kind, &a_json), parse(kind, &b_json));
        let mut after = content.clone();
        after
            .apply(&a)
            .unwrap_or_else(|error| panic!("{error}: {a_json} on {}", written_content(&content)));
        let c = parse(kind, &op(&after, &mut dice));

        let (left, right) = (
            a.transform(&b, Side::Left).expect("left"),
            a.transform(&b, Side::Right).expect("right"),
        );
        converges(
            &content,
            &a,
            &b,
            &left,
            &b.transform(&a, Side::Right).expect("right"),
        );
        converges(
            &content,
            &a,
            &b,
            &right,
            &b.transform(&a, Side::Left).expect("left"),
        );
        let inverse = a.invert(&content).expect("the inverse");
        let mut undone = after.clone();
        undone.apply(&inverse).expect("the inverse applies");
        assert!(
            undone == content,
            "{a_json} inverts on {}",
            written_content(&content)
        );
        let composed = a.compose(&c).expect("compose");

        let at = dice.below(content.len() + 2);
        let length = dice.below(4);
        let mut answer = vec![
            ("apply", written_content(&after)),
            ("left", written(&left)),
            ("right", written(&right)),
            ("compose", written(&composed)),
            ("invert", written(&inverse)),
            ("own", a.transform_position(at, true).to_string()),
            ("other", a.transform_position(at, false).to_string()),
        ];
        let mut normal = String::from("null");
        if kind == Kind::RichText {
            for (name, own) in [("ownRange", true), ("otherRange", false)] {
                let mut range = json!({"index": at, "length": length, "by": "x"});
                transform_presence(kind, &mut range, &a, own).expect("presence");
                answer.push((name, range.to_string()));
            }
            answer.push(("quill5", "true".to_owned()));
            normal = written(&a);
        }
        let question = format!(
            r#"{{"kind":"{}","doc":{},"a":{a_json},"b":{b_json},"c":{},"normal":{normal},"at":{at},"length":{length}}}"#,
            kind.name(),
            written_content(&content),
            written(&c),
        );
        Self { question, answer }
    }

    fn compare(&self, theirs: &RawValue) {
        let theirs: std::collections::BTreeMap<&str, &RawValue> =
            serde_json::from_str(theirs.get()).expect("an answer");
        for (verb, ours) in &self.answer {
            let theirs = theirs
                .get(verb)
                .unwrap_or_else(|| panic!("{verb}: {theirs:?} for {}", self.question))
                .get();
            // Keys may stand in another order.
            let same = ours == theirs || value(ours) == value(theirs);
            assert!(
                same,
                "{verb} differs\n  case   {}\n  ours   {ours}\n  theirs {theirs}",
                self.question
            );
        }
    }
}

/// An op as `{ops}` or as an array: the package answers with either.
fn value(json: &str) -> Value {
    match serde_json::from_str(json).expect("JSON") {
        Value::Object(mut map) if map.contains_key("ops") => map.remove("ops").expect("ops"),
        value => value,
    }
}

fn converges(content: &Content, a: &Op, b: &Op, a_after_b: &Op, b_after_a: &Op) {
    let (mut one, mut two) = (content.clone(), content.clone());
    for (content, ops) in [(&mut one, [a, b_after_a]), (&mut two, [b, a_after_b])] {
        for op in ops {
            content
                .apply(op)
                .unwrap_or_else(|error| panic!("{error}: {a:?} {b:?}"));
        }
    }
    assert!(
        one == two,
        "{a:?} and {b:?} diverge: {} or {}",
        written_content(&one),
        written_content(&two)
    );
}

fn parse(kind: Kind, json: &str) -> Op {
    Op::parse(kind, json).unwrap_or_else(|error| panic!("{error}: {json}"))
}

fn written(op: &Op) -> String {
    let mut out = Vec::new();
    op.write_json(&mut out);
    String::from_utf8(out).expect("UTF-8")
}

fn written_content(content: &Content) -> String {
    let mut out = Vec::new();
    content.write_json(&mut out);
    String::from_utf8(out).expect("UTF-8")
}

// ---- the generator -------------------------------------------------------------------------------------------------

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}

const CHARS: [&str; 30] = [
    "a",
    "b",
    "c",
    "d",
    "e",
    " ",
    "\n",
    "0",
    "é",
    "ß",
    "中",
    "\u{301}",
    "\u{200d}",
    "\u{fe0f}",
    "\"",
    "\\",
    "\t",
    "\u{2028}",
    "\u{0}",
    "\u{7f}",
    "\u{e000}",
    "\u{ffff}",
    "😀",
    "😁",
    "👩",
    "🇫",
    "🇷",
    "𝒳",
    "\u{10000}",
    "\u{10ffff}",
];

/// Mostly of few letters, so that equal texts meet.
fn text(dice: &mut Dice, max: u64) -> String {
    let range = if dice.one_in(3) { 2 } else { CHARS.len() };
    (0..=dice.below(max))
        .map(|_| dice.pick(&CHARS[..range]))
        .collect()
}

const EMBEDS: [&str; 5] = [
    r#"{"image":"http://i/1.png"}"#,
    r#"{"image":"http://i/2.png"}"#,
    r#"{"formula":"e=mc^2"}"#,
    r#"{"mention":{"name":"Zoë 😀","id":7,"at":[1.5,1e21,-0.5e-7]}}"#,
    r#"{"divider":true}"#,
];

const ATTRIBUTES: [(&str, &[&str]); 7] = [
    ("bold", &["true"]),
    ("color", &[r##""#f00""##, r##""#0f0""##]),
    ("header", &["1", "2"]),
    ("link", &[r#""http://a/?q=1&b=\"2\"""#, r#""x""#]),
    (
        "font",
        &[
            r#"{"name":"x","size":3}"#,
            r#"{"size":3,"name":"x"}"#,
            r#"{"name":"y","deep":{"er":[null]}}"#,
        ],
    ),
    ("tags", &[r#"["p","q"]"#, "[]", "{}"]),
    ("n", &["0", r#""""#, "false", "9007199254740993", "0.1"]),
];

/// `,"attributes":{..}` or nothing.
fn attributes(dice: &mut Dice, nulls: bool) -> String {
    if dice.one_in(2) {
        return String::new();
    }
    let mut set = std::collections::BTreeMap::new();
    for _ in 0..=dice.below(2) {
        let (key, values) = dice.pick(&ATTRIBUTES);
        set.insert(
            key,
            if nulls && dice.one_in(3) {
                "null"
            } else {
                dice.pick(values)
            },
        );
    }
    let mut pairs: Vec<_> = set
        .iter()
        .map(|(key, value)| format!(r#""{key}":{value}"#))
        .collect();
    if dice.one_in(2) {
        pairs.reverse();
    }
    format!(r#","attributes":{{{}}}"#, pairs.join(","))
}

fn insert(dice: &mut Dice) -> String {
    let body = if dice.one_in(5) {
        dice.pick(&EMBEDS).to_owned()
    } else {
        json!(text(dice, 4)).to_string()
    };
    format!(r#"{{"insert":{body}{}}}"#, attributes(dice, false))
}

fn content(kind: Kind, dice: &mut Dice) -> Content {
    let data = match kind {
        Kind::TextUnicode if dice.one_in(10) => json!("").to_string(),
        Kind::TextUnicode => json!(text(dice, 14)).to_string(),
        Kind::RichText => {
            let inserts: Vec<_> = (0..dice.below(7)).map(|_| insert(dice)).collect();
            format!("[{}]", inserts.join(","))
        }
    };
    Content::create(kind, Some(&data)).unwrap_or_else(|error| panic!("{error}: {data}"))
}

/// The lengths of what no op may cut, in the kind's unit.
fn atoms(content: &Content) -> Vec<u64> {
    let of_text = |text: &str| -> Vec<u64> {
        match content.kind() {
            Kind::TextUnicode => text.chars().map(|_| 1).collect(),
            Kind::RichText => text.chars().map(|char| char.len_utf16() as u64).collect(),
        }
    };
    match value(&written_content(content)) {
        Value::String(text) => of_text(&text),
        Value::Array(inserts) => inserts
            .iter()
            .flat_map(|component| {
                component["insert"]
                    .as_str()
                    .map_or_else(|| vec![1], of_text)
            })
            .collect(),
        other => panic!("no content: {other}"),
    }
}

fn op(content: &Content, dice: &mut Dice) -> String {
    match content {
        Content::Text(_) => text_op(&content.to_text(), dice),
        Content::Rich(_) => rich_op(&atoms(content), dice),
    }
}

fn text_op(base: &str, dice: &mut Dice) -> String {
    let chars: Vec<char> = base.chars().collect();
    let mut at = 0;
    let mut parts: Vec<Value> = Vec::new();
    let tells = dice.one_in(3);
    for _ in 0..dice.below(6) {
        let left = chars.len() - at;
        let some = if left == 0 {
            0
        } else {
            1 + dice.below(left.min(5) as u64) as usize
        };
        // Keep, insert, delete; never one after its like: that is the normal form.
        let (was_keep, was_insert) = (
            parts.last().is_some_and(Value::is_u64),
            parts.last().is_some_and(Value::is_string),
        );
        let was_delete = parts.last().is_some_and(Value::is_object);
        match dice.below(3) {
            0 if some > 0 && !was_keep => parts.push(json!(some)),
            1 if !was_insert => {
                parts.push(json!(text(dice, 4)));
                continue;
            }
            2 if some > 0 && !was_delete => {
                let told: String = chars[at..at + some].iter().collect();
                parts.push(if tells || dice.one_in(6) {
                    json!({ "d": told })
                } else {
                    json!({ "d": some })
                });
            }
            _ => continue,
        }
        at += some;
    }
    while parts.last().is_some_and(Value::is_u64) {
        parts.pop();
    }
    Value::Array(parts).to_string()
}

/// Components as they come: neighbours of one sort, inserts after deletes and a retain at the end included.
fn rich_op(atoms: &[u64], dice: &mut Dice) -> String {
    let mut at = 0;
    let mut parts = Vec::new();
    for _ in 0..dice.below(7) {
        let left = (atoms.len() - at) as u64;
        let step = dice.below(3);
        if step == 0 || left == 0 {
            parts.push(insert(dice));
            continue;
        }
        let count = (1 + dice.below(left.min(6))) as usize;
        let len: u64 = atoms[at..at + count].iter().sum();
        at += count;
        parts.push(match step {
            1 => format!(r#"{{"delete":{len}}}"#),
            _ => format!(r#"{{"retain":{len}{}}}"#, attributes(dice, true)),
        });
    }
    format!("[{}]", parts.join(","))
}
