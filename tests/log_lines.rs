//! Compares the WARN and ERROR lines of the sources with the table in deploy/OPERATIONS.md: an operator finds every line
//! there, and the table has no line that is never written.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The heading of the table's first column.
const TABLE: &str = "| message | means | do |";

/// A text of the table that ends so is the beginning of one.
const REST: &str = " …";

/// The fewest characters of a beginning: it must be something to search for.
const BEGINNING_MIN: usize = 9;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The texts in the table's first column.
fn documented(page: &str) -> BTreeSet<String> {
    let rows = page.lines().skip_while(|line| *line != TABLE).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let texts = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned));
    texts.collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            sources(&path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push(path);
        }
    }
}

/// The texts of the `warn!` and `error!` calls of a file, without those of its unit tests.
fn written(source: &str) -> Vec<String> {
    let code = source
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default();
    let calls = code
        .match_indices("warn!(")
        .chain(code.match_indices("error!("));
    let is_call = |at: usize| {
        let before = code[..at].chars().next_back();
        // Not `compile_error!`.
        before.is_none_or(|it| !it.is_alphanumeric() && it != '_')
    };
    let starts = calls.filter(|(at, _)| is_call(*at));
    starts
        .map(|(at, name)| message(&code[at + name.len()..]))
        .collect()
}

/// The text of a call: its last string literal that is an argument by itself, not after `=` or within other brackets.
fn message(arguments: &str) -> String {
    let (mut depth, mut text, mut is_value) = (1, String::new(), false);
    let mut rest = arguments.chars();
    while let Some(it) = rest.next() {
        match it {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '=' => is_value = true,
            ',' => is_value = false,
            '"' => {
                let literal = literal(&mut rest);
                if depth == 1 && !is_value {
                    text = literal;
                }
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    text
}

/// The rest of a string literal; a line that continues after a backslash is one text.
fn literal(rest: &mut std::str::Chars<'_>) -> String {
    let mut text = String::new();
    while let Some(it) = rest.next() {
        match it {
            '"' => break,
            '\\' if rest.as_str().starts_with('\n') => {
                while rest.as_str().starts_with(char::is_whitespace) {
                    rest.next();
                }
            }
            '\\' => text.extend(rest.next()),
            it => text.push(it),
        }
    }
    text
}

/// Whether a text of the table is a line, or its beginning.
fn stands_for(documented: &str, line: &str) -> bool {
    let beginning = documented.strip_suffix(REST).unwrap_or(documented);
    beginning.len() >= BEGINNING_MIN && line.starts_with(beginning)
}

#[test]
fn every_warning_and_error_is_in_the_operators_table() {
    let page = fs::read_to_string(root().join("deploy/OPERATIONS.md")).expect("OPERATIONS.md");
    let documented = documented(&page);
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let mut lines = BTreeSet::new();
    for file in &files {
        let source = fs::read_to_string(file).expect("a source");
        for text in written(&source) {
            assert!(
                !text.is_empty() && !text.starts_with('{'),
                "{}: a line without a text of its own",
                file.display()
            );
            lines.insert(text);
        }
    }
    assert!(lines.len() > 40, "the scan finds too little: {lines:?}");
    let is_known = |line: &&String| documented.iter().any(|text| stands_for(text, line));
    let unknown: Vec<_> = lines.iter().filter(|line| !is_known(line)).collect();
    assert!(
        unknown.is_empty(),
        "not in the table of deploy/OPERATIONS.md: {unknown:#?}"
    );
    let is_written = |text: &&String| lines.iter().any(|line| stands_for(text, line));
    let stale: Vec<_> = documented.iter().filter(|text| !is_written(text)).collect();
    assert!(
        stale.is_empty(),
        "in the table, and no longer written: {stale:#?}"
    );
}

#[test]
fn log_text_is_found_among_the_fields_of_a_call() {
    let source = r#"
        tracing::warn!("alone");
        warn!(%reason, "by itself");
        tracing::error!(
            doc = %self.doc, mode = format!("{:o}", mode & 0o7777), key = "none",
            "goes on \
             in the next {line}"
        );
    "#;
    let expected = ["alone", "by itself", "goes on in the next {line}"];
    assert_eq!(written(source), expected);
}
