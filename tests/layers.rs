//! Holds the code to the layering table of ARCHITECTURE.md: a module imports what stands in its row, and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The table as ARCHITECTURE.md prints it: module -> what it may import.
fn table() -> BTreeMap<String, Vec<String>> {
    let page = read("ARCHITECTURE.md");
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
        // | floor | module | may import | is |
        let [floor, module, imports, ..] = cells[..] else {
            return None;
        };
        floor.parse::<u32>().ok()?;
        Some((words(module), words(imports)))
    });
    let mut table = BTreeMap::new();
    for (modules, imports) in rows {
        for module in modules {
            table.insert(module, imports.clone());
        }
    }
    table
}

fn words(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .flat_map(str::split_whitespace)
        .map(str::to_owned)
        .collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// What a file imports of ours: the first word behind each `crate::`. Its tests may import what they like.
fn imports(text: &str) -> Vec<String> {
    let code = text
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default();
    let code = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let named = |line: &str| -> Vec<String> {
        let word = |rest: &str| {
            rest.split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        line.split("crate::")
            .skip(1)
            .map(word)
            // An exported macro stands at the root of the crate, under a name that begins with `__`.
            .filter(|word| !word.is_empty() && !word.starts_with("__"))
            .collect()
    };
    code.flat_map(named).collect()
}

#[test]
fn modules_import_what_their_row_allows() {
    let table = table();
    assert!(
        table.len() >= 12,
        "ARCHITECTURE.md has its table: {table:?}"
    );
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    files(&root, &mut sources);
    let mut faults = Vec::new();
    for path in &sources {
        let inside = path.strip_prefix(&root).expect("inside src");
        let first = inside.iter().next().expect("a name").to_string_lossy();
        let module = first.trim_end_matches(".rs").to_owned();
        if ["lib", "main", "cli"].contains(&module.as_str()) {
            continue;
        }
        let Some(allowed) = table.get(&module) else {
            faults.push(format!("{module} has no row"));
            continue;
        };
        for import in imports(&fs::read_to_string(path).expect("a source")) {
            if import != module && !allowed.contains(&import) {
                faults.push(format!(
                    "{}: {module} may not import {import}",
                    inside.display()
                ));
            }
        }
    }
    faults.dedup();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn an_import_is_seen_wherever_it_stands() {
    let text = "use crate::store::Store;\nfn f() { let x = crate::node::y(); }\n// crate::gateway\n#[cfg(test)]\nmod tests { use crate::cluster::Z; }";
    assert_eq!(imports(text), ["store", "node"]);
}
