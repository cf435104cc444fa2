//! Checks that comments, log lines, error texts and documents are plain technical English, and that each type name has one
//! meaning.
//!
//! The measure of the language is the number of words of the kind "who", "whoever", "nobody" in 1,000 words. Text that is
//! written about types, messages and nodes has almost none; text that personifies them has more than ten. To see the counts
//! of each module: `cargo nextest run --workspace --test language --no-capture`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The limits per 1,000 words. They are only ever lowered.
const COMMENTS_PER_1000_MAX: f64 = 1.0;
const TEXTS_PER_1000_MAX: f64 = 1.0;
const DOCUMENTS_PER_1000_MAX: f64 = 2.0;

/// Type names that are defined more than once for the same idea, with the reason; at most 15.
const SAME_IDEA: &[(&str, &str)] = &[
    (
        "Component",
        "a component of an op, in plain text and in rich text",
    ),
    (
        "Output",
        "an op under construction, in plain text and in rich text",
    ),
    (
        "Piece",
        "a piece of an op under transformation, in plain text and in rich text",
    ),
    (
        "Transaction",
        "the rows of the access rules within one transaction, in each store",
    ),
    (
        "UpdatedAtQueue",
        "times of the list that wait to be written, in each store that has a list",
    ),
    (
        "Walk",
        "the walk along two ops, in plain text and in rich text",
    ),
];

const PERSONAL: [&str; 8] = [
    "who",
    "whoever",
    "whom",
    "whose",
    "nobody",
    "somebody",
    "anybody",
    "everybody",
];

/// Documents besides the sources; for a folder the Markdown files in it.
const DOCUMENTS: &[&str] = &[
    ".",
    ".github",
    "config.toml",
    "deploy",
    "docs",
    "examples",
    "fuzz",
    "loadtest",
    "tests/cluster",
    "tests/js",
    "tests/sim",
];

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Count {
    words: usize,
    personal: usize,
}

impl Count {
    fn of(text: &str) -> Self {
        let mut count = Self::default();
        for word in text.split(|c: char| !c.is_alphabetic()) {
            if word.is_empty() {
                continue;
            }
            count.words += 1;
            count.personal += usize::from(is_personal(word));
        }
        count
    }

    fn add(&mut self, other: Self) {
        self.words += other.words;
        self.personal += other.personal;
    }

    #[allow(clippy::cast_precision_loss)]
    fn per_1000(self) -> f64 {
        1_000.0 * self.personal as f64 / self.words.max(1) as f64
    }
}

fn is_personal(word: &str) -> bool {
    PERSONAL.contains(&word.to_lowercase().as_str())
}

/// A Rust source, taken apart.
#[derive(Debug, Default)]
struct Source {
    /// The code without comments and without the contents of string literals.
    code: String,
    comments: String,
    /// The string literals.
    texts: Vec<String>,
}

impl Source {
    fn parse(source: &str) -> Self {
        let mut parsed = Self::default();
        let mut rest = source;
        while let Some(next) = rest.chars().next() {
            rest = if rest.starts_with("//") {
                parsed.line_comment(rest)
            } else if rest.starts_with("/*") {
                parsed.block_comment(rest)
            } else if let Some(hashes) = raw_string_hashes(rest).filter(|_| !parsed.ends_in_word())
            {
                parsed.raw_string(rest, hashes)
            } else if next == '"' {
                parsed.string(rest)
            } else if let Some(length) = char_literal_bytes(rest) {
                parsed.code.push_str("' '");
                &rest[length..]
            } else {
                parsed.code.push(next);
                &rest[next.len_utf8()..]
            };
        }
        parsed
    }

    fn ends_in_word(&self) -> bool {
        self.code
            .ends_with(|last: char| last.is_alphanumeric() || last == '_')
    }

    fn line_comment<'a>(&mut self, rest: &'a str) -> &'a str {
        let end = rest.find('\n').unwrap_or(rest.len());
        self.comments.push_str(&rest[..end]);
        self.comments.push('\n');
        &rest[end..]
    }

    fn block_comment<'a>(&mut self, rest: &'a str) -> &'a str {
        let end = rest.find("*/").map_or(rest.len(), |at| at + 2);
        self.comments.push_str(&rest[..end]);
        self.comments.push('\n');
        &rest[end..]
    }

    fn raw_string<'a>(&mut self, rest: &'a str, hashes: usize) -> &'a str {
        let start = rest.find('"').map_or(rest.len(), |at| at + 1);
        let close = format!("\"{}", "#".repeat(hashes));
        let length = rest[start..].find(&close).unwrap_or(rest.len() - start);
        self.text(&rest[start..start + length]);
        &rest[(start + length + close.len()).min(rest.len())..]
    }

    fn string<'a>(&mut self, rest: &'a str) -> &'a str {
        let mut escaped = false;
        for (at, c) in rest.char_indices().skip(1) {
            if c == '"' && !escaped {
                self.text(&rest[1..at]);
                return &rest[at + 1..];
            }
            escaped = c == '\\' && !escaped;
        }
        ""
    }

    fn text(&mut self, text: &str) {
        self.code.push_str("\"\"");
        self.texts.push(text.to_owned());
    }

    /// The texts that a person reads: everything but SQL, whose column names are part of the schema.
    fn prose(&self) -> impl Iterator<Item = &str> {
        let is_sql = |text: &str| {
            [
                "SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "FROM", "WHERE",
            ]
            .iter()
            .any(|keyword| text.split_whitespace().any(|word| word == *keyword))
        };
        self.texts
            .iter()
            .map(String::as_str)
            .filter(move |text| text.contains(' ') && !is_sql(text))
    }

    /// The names of its functions, tests included.
    fn functions(&self) -> impl Iterator<Item = &str> {
        self.code.split("fn ").skip(1).map(leading_word)
    }

    /// The names of the types that it defines; associated types are none.
    fn types(&self) -> BTreeSet<&str> {
        let defined = |line| {
            let line: &str = strip_visibility(line);
            let words = ["struct ", "enum ", "trait ", "union "];
            let inner = line.trim_start();
            let name = words.iter().find_map(|word| inner.strip_prefix(word));
            // An indented `type` belongs to a trait or an impl.
            let name = name.or_else(|| line.strip_prefix("type "))?;
            Some(leading_word(name)).filter(|name| !name.is_empty())
        };
        self.code.lines().filter_map(defined).collect()
    }
}

/// For `r"`, `r#"`, `br"` and the like the number of hashes.
fn raw_string_hashes(rest: &str) -> Option<usize> {
    let rest = rest.strip_prefix(['b', 'c']).unwrap_or(rest);
    let rest = rest.strip_prefix('r')?;
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    rest[hashes..].starts_with('"').then_some(hashes)
}

/// The length of the char literal that `rest` begins with; `None` for a lifetime.
fn char_literal_bytes(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    let first = inner.chars().next()?;
    if first == '\\' {
        let escaped = inner.chars().nth(1)?.len_utf8();
        return Some(inner[1 + escaped..].find('\'')? + 1 + escaped + 2);
    }
    inner[first.len_utf8()..]
        .starts_with('\'')
        .then(|| first.len_utf8() + 2)
}

fn strip_visibility(line: &str) -> &str {
    let inner = line.trim_start();
    let Some(rest) = inner.strip_prefix("pub") else {
        return line;
    };
    match rest.strip_prefix('(') {
        Some(scope) => scope.split_once(") ").map_or(line, |(_, rest)| rest),
        None => rest.strip_prefix(' ').unwrap_or(line),
    }
}

fn leading_word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

/// The words of a document; of a TOML file those of its comments.
fn prose_of(path: &Path, text: &str) -> String {
    if path.extension().is_some_and(|ending| ending == "toml") {
        let comments = text.lines().filter_map(|line| line.split_once('#'));
        return comments
            .map(|(_, comment)| format!("{comment}\n"))
            .collect();
    }
    text.to_owned()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The sources under `src/` by their path in it.
fn sources() -> BTreeMap<PathBuf, Source> {
    let src = root().join("src");
    let mut paths = Vec::new();
    rust_files(&src, &mut paths);
    let parse = |path: PathBuf| {
        let source = Source::parse(&fs::read_to_string(&path).expect("a source"));
        let inside = path.strip_prefix(&src).expect("inside src");
        (inside.to_owned(), source)
    };
    paths.into_iter().map(parse).collect()
}

/// `gateway` for `gateway/socket.rs` and for `gateway.rs`.
fn module(path: &Path) -> String {
    let first = path.iter().next().expect("a name").to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// Adds up the counts by name, prints them, and returns the sum.
fn tally(title: &str, counts: impl Iterator<Item = (String, Count)>) -> Count {
    let mut by_name: BTreeMap<String, Count> = BTreeMap::new();
    let mut sum = Count::default();
    for (name, count) in counts {
        by_name.entry(name).or_default().add(count);
        sum.add(count);
    }
    println!(
        "{title}: {} of {} words, {:.1} per 1,000",
        sum.personal,
        sum.words,
        sum.per_1000()
    );
    for (name, count) in by_name {
        println!(
            "{:6.1}  {:4} of {:6}  {name}",
            count.per_1000(),
            count.personal,
            count.words
        );
    }
    sum
}

#[test]
fn comments_are_written_in_plain_technical_english() {
    let sources = sources();
    let counts = sources
        .iter()
        .map(|(path, source)| (module(path), Count::of(&source.comments)));
    let sum = tally("comments", counts);
    assert!(sum.words > 10_000, "the comments were not found: {sum:?}");
    assert!(
        sum.per_1000() <= COMMENTS_PER_1000_MAX,
        "{:.1} per 1,000",
        sum.per_1000()
    );
}

#[test]
fn logs_and_errors_are_written_in_plain_technical_english() {
    let sources = sources();
    let texts = |source: &Source| {
        let mut sum = Count::default();
        source.prose().for_each(|text| sum.add(Count::of(text)));
        sum
    };
    let counts = sources
        .iter()
        .map(|(path, source)| (module(path), texts(source)));
    let sum = tally("log lines, errors and other texts", counts);
    assert!(sum.words > 1_000, "the texts were not found: {sum:?}");
    assert!(
        sum.per_1000() <= TEXTS_PER_1000_MAX,
        "{:.1} per 1,000",
        sum.per_1000()
    );
}

#[test]
fn documents_are_written_in_plain_technical_english() {
    let is_document = |path: &Path| {
        path.extension()
            .is_some_and(|ending| ending == "md" || ending == "toml")
    };
    let mut paths = Vec::new();
    for name in DOCUMENTS {
        let path = root().join(name);
        if path.is_file() {
            paths.push(path);
        } else if let Ok(entries) = fs::read_dir(&path) {
            let files = entries.map(|entry| entry.expect("an entry").path());
            paths.extend(files.filter(|file| file.is_file() && is_document(file)));
        }
    }
    let counts = paths.iter().map(|path| {
        let text = prose_of(path, &fs::read_to_string(path).expect("a document"));
        let name = path
            .strip_prefix(root())
            .expect("inside")
            .display()
            .to_string();
        (name, Count::of(&text))
    });
    let sum = tally("documents", counts);
    assert!(sum.words > 10_000, "the documents were not found: {sum:?}");
    assert!(
        sum.per_1000() <= DOCUMENTS_PER_1000_MAX,
        "{:.1} per 1,000",
        sum.per_1000()
    );
}

#[test]
fn functions_and_tests_are_named_in_plain_technical_english() {
    let sources = sources();
    let mut names = Vec::new();
    for (path, source) in &sources {
        let personal = source
            .functions()
            .filter(|name| name.split('_').any(is_personal));
        names.extend(personal.map(|name| format!("{}: {name}", path.display())));
    }
    println!("{} names:\n{}", names.len(), names.join("\n"));
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn a_type_name_has_one_meaning() {
    let sources = sources();
    let defined = collisions(&sources);
    assert!(
        SAME_IDEA.len() <= 15,
        "{} names are allowed",
        SAME_IDEA.len()
    );
    let allowed = |name: &str| SAME_IDEA.iter().any(|(allowed, _)| *allowed == name);
    let (same, other): (Vec<_>, Vec<_>) = defined.iter().partition(|(name, _)| allowed(name));
    println!("{} type names with two or more meanings:", other.len());
    for (name, files) in &other {
        println!("  {name}: {}", files.join(" "));
    }
    println!("{} of the same idea in two dialects", same.len());
    assert!(other.is_empty(), "{other:?}");
}

/// The type names that two or more files define, with these files.
fn collisions(sources: &BTreeMap<PathBuf, Source>) -> BTreeMap<&str, Vec<String>> {
    let mut defined: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (path, source) in sources {
        for name in source.types() {
            defined
                .entry(name)
                .or_default()
                .push(path.display().to_string());
        }
    }
    defined.retain(|_, files| files.len() > 1);
    defined
}

#[test]
fn words_are_counted_whole_and_in_any_case() {
    let count = Count::of("Who asks? Nobody's whole cohort, whoever it is.");
    assert_eq!(
        count,
        Count {
            words: 9,
            personal: 3
        }
    );
    assert!((count.per_1000() - 333.3).abs() < 0.1);
    assert_eq!(Count::of("").per_1000(), 0.0);
}

#[test]
fn comments_texts_and_code_are_told_apart() {
    let source = Source::parse(concat!(
        "/// Who is it?\n",
        "fn who_is<'a>(c: char) -> &'a str { // nobody\n",
        "    if c == '\"' || c == '\\'' { warn!(\"a \\\"text\\\" // of somebody\") }\n",
        "    /* whom */ r#\"raw \"who\" text\"#\n",
        "}\n",
    ));
    assert_eq!(
        Count::of(&source.comments),
        Count {
            words: 5,
            personal: 3
        }
    );
    assert_eq!(
        source.texts,
        ["a \\\"text\\\" // of somebody", "raw \"who\" text"]
    );
    assert_eq!(source.functions().collect::<Vec<_>>(), ["who_is"]);
    assert!(!source.code.contains("nobody") && !source.code.contains("somebody"));
}

#[test]
fn sql_is_not_counted_as_prose() {
    let source = Source::parse(
        "let a = \"SELECT who FROM audit\"; let b = \"nobody is signed in\"; let c = \"who\";",
    );
    assert_eq!(source.prose().collect::<Vec<_>>(), ["nobody is signed in"]);
}

#[test]
fn only_comments_of_a_toml_file_are_prose() {
    let text = "# who\nwho = 1 # whom\n";
    assert_eq!(prose_of(Path::new("a.toml"), text), " who\n whom\n");
    assert_eq!(prose_of(Path::new("a.md"), text), text);
}

#[test]
fn a_name_that_two_files_define_is_a_collision() {
    let one = "pub(crate) struct Link;\nenum Own {}\nimpl T for Link { type Output = Own; }\n// struct Shared;\n";
    let other = "mod tests {\n    pub struct Link;\n}\ntype Alias = u8;\ntrait T { type Output; }\nstruct Shared;";
    let sources = [("a.rs", one), ("b.rs", other)];
    let sources = sources.map(|(path, text)| (PathBuf::from(path), Source::parse(text)));
    let sources = BTreeMap::from(sources);
    assert_eq!(
        sources[Path::new("b.rs")].types(),
        BTreeSet::from(["Link", "Alias", "Shared", "T"])
    );
    let found = collisions(&sources);
    assert_eq!(
        found,
        BTreeMap::from([("Link", vec!["a.rs".to_owned(), "b.rs".to_owned()])])
    );
}
