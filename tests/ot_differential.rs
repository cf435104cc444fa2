//! Compares `copydesk::ot` with the npm packages that the clients run, on seeded random cases.
//!
//! `OT_SEED` (default 1) selects the cases, `OT_CASES` (default 20000) their number; a failure prints the whole case.
//! Node and npm are needed; see `servers/skip.rs` for what happens without them.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::sync_channel;
use std::thread;

use copydesk::ot::{Content, Kind, Op, Side, transform_presence};
use serde_json::value::RawValue;
use serde_json::{Value, json};

#[allow(dead_code, unreachable_pub)]
#[path = "servers/skip.rs"]
mod skip;

const BATCH: u64 = 500;

#[test]
fn random_cases_have_the_results_of_the_npm_packages() {
    let Some(oracle) = oracle() else { return };
    let (seed, cases) = (setting("OT_SEED", 1), setting("OT_CASES", 20_000));
    let mut node = node(oracle);
    let mut questions = node.stdin.take().expect("node's stdin");
    let answers = BufReader::new(node.stdout.take().expect("node's stdout"));

    // Generator, node and comparison run at the same time.
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
fn values_are_printed_as_javascript_prints_them() {
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

/// The folder of the oracle with its packages, which the first test that needs them installs, in this process or another.
fn oracle() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let folder = FOLDER.get_or_init(install).as_deref();
    if folder.is_none() {
        skip::missing("node or npm");
    }
    folder
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
        return None;
    }
    // Some runners start a process for each test: one installs, the others wait for it.
    let lock = Path::new(env!("CARGO_TARGET_TMPDIR")).join("oracle.lock");
    let lock = File::create(lock).expect("create the lock file");
    lock.lock().expect("lock the oracle's folder");
    // npm writes this file last.
    if !folder.join("node_modules/.package-lock.json").exists() {
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

/// Two ops on one content, a third one after the first, and this crate's results.
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
        let doc = data(kind, &mut dice);
        let content = create(kind, &doc);
        let a_json = op(&content, &mut dice);
        let b_json = if dice.one_in(20) {
            a_json.clone()
        } else {
            op(&content, &mut dice)
        };
        let (a, b) = (parse(kind, &a_json), parse(kind, &b_json));
        let after = applied(&content, &[&a]);
        let inverse = a.invert(&content).expect("the inverse");
        // The inverse of the first, so that components cancel out, or a random op.
        let c_json = if dice.one_in(10) {
            written(&inverse)
        } else {
            op(&after, &mut dice)
        };
        let c = parse(kind, &c_json);

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
        let undone = applied(&after, &[&inverse]);
        assert!(
            without_nulls(&undone) == without_nulls(&content),
            "{a_json} inverts on {doc}"
        );
        let composed = a.compose(&c).expect("compose");
        let then = applied(&after, &[&c]);
        let late = applied(&content, &[&b, &left]);
        for op in [&a, &b, &c, &left, &right, &composed, &inverse] {
            let logged = Op::parse_logged(kind, &written(op));
            assert!(logged.as_ref() == Ok(op), "{op:?} is logged as {logged:?}");
        }
        for content in [&content, &after, &then, &late, &undone] {
            let stored = create(kind, &written_content(content));
            assert!(stored == *content, "{content:?} is stored as {stored:?}");
        }

        let at = dice.below(content.len() + 2);
        let length = dice.below(4);
        let mut answer = vec![
            ("create", written_content(&content)),
            ("a", written(&a)),
            ("b", written(&b)),
            ("c", written(&c)),
            ("apply", written_content(&after)),
            ("then", written_content(&then)),
            ("left", written(&left)),
            ("right", written(&right)),
            ("late", written_content(&late)),
            ("compose", written(&composed)),
            ("invert", written(&inverse)),
            ("undone", written_content(&undone)),
            ("own", a.transform_position(at, true).to_string()),
            ("other", a.transform_position(at, false).to_string()),
        ];
        if kind == Kind::RichText {
            for (name, own) in [("ownRange", true), ("otherRange", false)] {
                let mut range = json!({"index": at, "length": length, "by": "x"});
                transform_presence(kind, &mut range, &a, own).expect("presence");
                answer.push((name, range.to_string()));
            }
            answer.push(("quill5", "true".to_owned()));
        }
        // The ops as sent, not as this crate normalises them, so that the packages are independent of it.
        let question = format!(
            r#"{{"kind":"{}","doc":{doc},"a":{a_json},"b":{b_json},"c":{c_json},"at":{at},"length":{length}}}"#,
            kind.name(),
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
            // Keys may be in another order.
            let same = ours == theirs || value(ours) == value(theirs);
            assert!(
                same,
                "{verb} differs\n  case   {}\n  ours   {ours}\n  theirs {theirs}",
                self.question
            );
        }
    }
}

/// An op as `{ops}` or as an array: the package returns either form.
fn value(json: &str) -> Value {
    match serde_json::from_str(json).expect("JSON") {
        Value::Object(mut map) if map.contains_key("ops") => map.remove("ops").expect("ops"),
        value => value,
    }
}

fn converges(content: &Content, a: &Op, b: &Op, a_after_b: &Op, b_after_a: &Op) {
    let one = applied(content, &[a, b_after_a]);
    let two = applied(content, &[b, a_after_b]);
    assert!(
        one == two,
        "{a:?} and {b:?} diverge: {} or {}",
        written_content(&one),
        written_content(&two)
    );
}

fn applied(content: &Content, ops: &[&Op]) -> Content {
    let mut after = content.clone();
    for op in ops {
        after
            .apply(op)
            .unwrap_or_else(|error| panic!("{error}: {ops:?} on {}", written_content(content)));
    }
    after
}

/// An inverse does not restore a null attribute of an insert: no retain can set one.
fn without_nulls(content: &Content) -> Content {
    let Value::Array(mut inserts) = value(&written_content(content)) else {
        return content.clone();
    };
    for insert in &mut inserts {
        if let Some(attributes) = insert.get_mut("attributes").and_then(Value::as_object_mut) {
            attributes.retain(|_, value| !value.is_null());
        }
    }
    create(content.kind(), &Value::Array(inserts).to_string())
}

fn create(kind: Kind, data: &str) -> Content {
    Content::create(kind, Some(data)).unwrap_or_else(|error| panic!("{error}: {data}"))
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

/// Mostly of few letters, so that equal texts are frequent.
fn text(dice: &mut Dice, max: u64) -> String {
    let range = if dice.one_in(3) { 2 } else { CHARS.len() };
    (0..=dice.below(max))
        .map(|_| dice.pick(&CHARS[..range]))
        .collect()
}

/// Includes the values that count as empty in some language.
const EMBEDS: [&str; 14] = [
    "1",
    r#"{"video":1,"image":{"b":1,"a":2}}"#,
    r#"{"image":"http://i/1.png"}"#,
    r#"{"image":"http://i/2.png"}"#,
    r#"{"formula":"e=mc^2"}"#,
    r#"{"mention":{"name":"Zoë 😀","id":7,"at":[1.5,1e21,-0.5e-7]}}"#,
    r#"{"divider":true}"#,
    r#"{"divider":false}"#,
    r#"{"image":null}"#,
    r#"{"image":""}"#,
    r#"{"n":-0}"#,
    r#"{"":{}}"#,
    r#"{"insert":[{"attributes":{},"delete":null}]}"#,
    r#"{"retain":2}"#,
];

const ATTRIBUTES: [(&str, &[&str]); 10] = [
    ("bold", &["true", "false"]),
    ("color", &[r##""#f00""##, r##""#0f0""##, r#""""#]),
    ("header", &["1", "2", "0", "-0", "1.0"]),
    ("link", &[r#""http://a/?q=1&b=\"2\"""#, r#""x""#]),
    (
        "font",
        &[
            r#"{"name":"x","size":3}"#,
            r#"{"size":3,"name":"x"}"#,
            r#"{"name":"y","deep":{"er":[null]}}"#,
            r#"{"name":null,"size":3}"#,
            r#"{"name":null}"#,
        ],
    ),
    ("tags", &[r#"["p","q"]"#, "[]", "{}", "[null]", r#"[""]"#]),
    (
        "n",
        &[
            "0",
            r#""""#,
            "false",
            "9007199254740993",
            "0.1",
            r#""null""#,
        ],
    ),
    ("", &["true", r#""""#]),
    ("10", &["1", "2"]),
    ("é\\n", &["1", "[0]"]),
];

/// `"attributes":{..}` or nothing. A null in an insert is an ordinary attribute.
fn attributes(dice: &mut Dice) -> Option<String> {
    if dice.one_in(2) {
        return None;
    }
    let mut set = std::collections::BTreeMap::new();
    for _ in 0..dice.pick(&[0, 1, 1, 1, 1, 2, 2, 2, 2, 3]) {
        // Mostly of few keys, so that both ops set the same ones.
        let range = if dice.one_in(2) { 3 } else { ATTRIBUTES.len() };
        let (key, values) = dice.pick(&ATTRIBUTES[..range]);
        let value = if dice.one_in(3) {
            "null"
        } else {
            dice.pick(values)
        };
        set.insert(key, value);
    }
    let mut pairs: Vec<_> = set
        .iter()
        .map(|(key, value)| match *key {
            "bold" if dice.one_in(4) => format!(r#""\u0062old":{value}"#),
            key => format!(r#""{key}":{value}"#),
        })
        .collect();
    if dice.one_in(2) {
        pairs.reverse();
    }
    Some(format!(r#""attributes":{{{}}}"#, pairs.join(",")))
}

/// A string in one of its JSON spellings.
fn spelled(text: &str, dice: &mut Dice) -> String {
    if !dice.one_in(10) {
        return json!(text).to_string();
    }
    let escaped: String = text
        .encode_utf16()
        .map(|unit| format!(r"\u{unit:04x}"))
        .collect();
    format!(r#""{escaped}""#)
}

/// A count in one of its JSON spellings: for JavaScript `5.0` is 5.
fn count_spelled(count: u64, dice: &mut Dice) -> String {
    match dice.below(40) {
        0 => format!("{count}.0"),
        1 => format!("{count}e0"),
        _ => count.to_string(),
    }
}

/// `{step,attributes}`, in either order.
fn component(step: &str, attributes: Option<String>, dice: &mut Dice) -> String {
    match attributes {
        None => format!("{{{step}}}"),
        Some(attributes) if dice.one_in(4) => format!("{{{attributes},{step}}}"),
        Some(attributes) if dice.one_in(8) => format!("{{ {step} ,\t{attributes} }}"),
        Some(attributes) => format!("{{{step},{attributes}}}"),
    }
}

fn insert(dice: &mut Dice) -> String {
    let body = if dice.one_in(5) {
        dice.pick(&EMBEDS).to_owned()
    } else {
        let text = text(dice, 4);
        spelled(&text, dice)
    };
    let attributes = attributes(dice);
    component(&format!(r#""insert":{body}"#), attributes, dice)
}

/// `[..]` or `{"ops":[..]}`.
fn delta(components: &[String], dice: &mut Dice) -> String {
    let list = components.join(",");
    if dice.one_in(4) {
        format!(r#"{{"ops":[{list}]}}"#)
    } else {
        format!("[{list}]")
    }
}

/// The data of a new document; some are so large that they are stored as many spans.
fn data(kind: Kind, dice: &mut Dice) -> String {
    let is_large = dice.one_in(100);
    match kind {
        Kind::TextUnicode if dice.one_in(10) => json!("").to_string(),
        Kind::TextUnicode => json!(text(dice, if is_large { 2_000 } else { 14 })).to_string(),
        Kind::RichText => {
            let count = dice.below(if is_large { 80 } else { 7 });
            let mut inserts: Vec<_> = (0..count).map(|_| insert(dice)).collect();
            if is_large {
                let long = format!(r#""insert":{}"#, json!(text(dice, 2_000)));
                let attributes = attributes(dice);
                inserts.push(component(&long, attributes, dice));
            }
            delta(&inserts, dice)
        }
    }
}

/// The lengths of the parts that no op may split, in the kind's unit.
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
            let reach = if dice.one_in(12) { left } else { left.min(5) };
            1 + dice.below(reach as u64) as usize
        };
        // Keep, insert, delete; never two of one kind in succession: that is the normal form.
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

/// Components not in normal form: neighbours of one kind, inserts after deletes, and a plain retain at the end or beyond it.
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
        // Sometimes far into the document.
        let reach = if dice.one_in(12) { left } else { left.min(6) };
        let count = (1 + dice.below(reach)) as usize;
        let len: u64 = atoms[at..at + count].iter().sum();
        at += count;
        parts.push(match step {
            1 => format!(r#"{{"delete":{}}}"#, count_spelled(len, dice)),
            _ => {
                let attributes = attributes(dice);
                let step = format!(r#""retain":{}"#, count_spelled(len, dice));
                component(&step, attributes, dice)
            }
        });
    }
    // A retain beyond the end has no effect.
    if dice.one_in(20) {
        parts.push(format!(r#"{{"retain":{}}}"#, 1 + dice.below(50)));
    }
    delta(&parts, dice)
}
