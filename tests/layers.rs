//! Checks the imports of each module against the layering table of ARCHITECTURE.md: only the modules of its row are allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The table of ARCHITECTURE.md: the modules that each module may import.
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

/// Returns true for a file of unit tests, which may import any module.
fn is_test(path: &Path) -> bool {
    path.iter()
        .any(|part| part == "tests" || part == "tests.rs")
}

/// The modules that a file imports: the first word after each `crate::`. Its tests may import any module.
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
            // Exported macros are at the root of the crate, with names that begin with `__`.
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
    for path in sources.iter().filter(|path| !is_test(path)) {
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
fn imports_are_found_at_any_place() {
    let text = "use crate::store::Store;\nfn f() { let x = crate::node::y(); }\n// crate::gateway\n#[cfg(test)]\nmod tests { use crate::cluster::Z; }";
    assert_eq!(imports(text), ["store", "node"]);
}

/// Pairs of files that import each other. Only ever removed from.
const ALLOWED_CIRCLES: &[(&str, &str)] = &[
    ("access::account", "access::permission"),
    ("auth::credentials", "auth::error"),
    ("auth::settings", "auth::token_verifier"),
    ("gateway::gateway", "gateway::rebalance"),
    ("ot::rich_text::delta", "ot::rich_text::walk"),
    ("ot::text::op", "ot::text::walk"),
    ("store::postgres::migrate", "store::postgres::schema"),
    ("store::sqlite::history", "store::sqlite::write_connection"),
    ("store::sqlite::write_connection", "store::sqlite::writer"),
];

/// The files of `src` by module path, without tests.
fn module_files() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    files(&root, &mut paths);
    let mut modules = BTreeMap::new();
    for path in paths.iter().filter(|path| !is_test(path)) {
        let inside = path.strip_prefix(&root).expect("inside src");
        let inside = inside.with_extension("");
        let names: Vec<_> = inside.iter().map(|it| it.to_string_lossy()).collect();
        let module = names.join("::").trim_end_matches("::mod").to_owned();
        let source = fs::read_to_string(path).expect("a source");
        modules.insert(module, code(&source));
    }
    modules
}

/// The source without comments and unit tests.
fn code(source: &str) -> String {
    let code = source.split("#[cfg(test)]\nmod tests").next();
    let lines = code.unwrap_or_default().lines();
    let lines = lines.filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The paths of a `use` tree, without white space: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(tree: &str) -> Vec<String> {
    let tree: String = tree.split_whitespace().collect();
    let Some((prefix, rest)) = tree.split_once('{') else {
        return vec![tree];
    };
    let (mut depth, mut branch, mut branches) = (0, String::new(), Vec::new());
    for it in rest[..rest.rfind('}').unwrap_or(rest.len())].chars() {
        match it {
            ',' if depth == 0 => branches.push(std::mem::take(&mut branch)),
            _ => {
                depth += i32::from(it == '{') - i32::from(it == '}');
                branch.push(it);
            }
        }
    }
    branches.push(branch);
    let branches = branches.iter().filter(|branch| !branch.is_empty());
    branches
        .flat_map(|branch| expand(&format!("{prefix}{branch}")))
        .collect()
}

/// The paths that a module uses, from the root of the crate; `exported` are those of its `pub use`.
fn uses(module: &str, code: &str, exported: bool) -> Vec<String> {
    let statements = code.split(';').filter_map(|statement| {
        let line = statement.rfind("use ")?;
        let is_public = statement[..line]
            .trim_end()
            .rsplit('\n')
            .next()?
            .contains("pub");
        (is_public == exported).then(|| &statement[line + 4..])
    });
    let paths = statements.flat_map(expand).map(|path| {
        let (mut base, mut rest) = (module, path.as_str());
        if let Some(inside) = rest.strip_prefix("crate::") {
            return inside.to_owned();
        }
        while let Some(above) = rest.strip_prefix("super::") {
            base = base.rsplit_once("::").map_or("", |(parent, _)| parent);
            rest = above;
        }
        let rest = rest.trim_start_matches("self::");
        format!("{base}::{rest}")
            .trim_start_matches("::")
            .to_owned()
    });
    paths.collect()
}

/// The module that a path names: the longest one, or the one from which that module exports the name.
fn resolve(path: &str, modules: &BTreeMap<String, String>) -> Option<String> {
    let mut module = path;
    while !modules.contains_key(module) {
        module = module.rsplit_once("::")?.0;
    }
    let name = path[module.len()..].trim_start_matches("::");
    let exports = uses(module, &modules[module], true);
    let end = format!("::{name}");
    let export = exports.iter().find(|export| export.ends_with(&end));
    match export {
        Some(export) if !name.is_empty() && export != path => resolve(export, modules),
        _ => Some(module.to_owned()),
    }
}

#[test]
fn files_do_not_import_each_other() {
    let modules = module_files();
    let mut edges = BTreeSet::new();
    for (module, code) in &modules {
        let used = uses(module, code, false);
        let used = used.iter().filter_map(|path| resolve(path, &modules));
        edges.extend(used.map(|used| (module.clone(), used)));
    }
    let is_above = |one: &str, other: &str| other.starts_with(&format!("{one}::"));
    let circles = edges.iter().filter(|(one, other)| {
        // A file and the files of its folder are one module.
        let are_one = is_above(one, other) || is_above(other, one);
        one < other && !are_one && edges.contains(&(other.clone(), one.clone()))
    });
    let new: Vec<_> = circles
        .filter(|(one, other)| !ALLOWED_CIRCLES.contains(&(one.as_str(), other.as_str())))
        .collect();
    assert!(new.is_empty(), "files that import each other: {new:#?}");
}

#[test]
fn cycles_are_found_through_exports_and_nested_imports() {
    let sources = [
        ("m", "mod a;\npub use a::A;"),
        ("m::a", "use super::b::{B, c::{C, D}};"),
        ("m::b", "use crate::m::A;"),
    ];
    let modules = sources.map(|(module, code)| (module.to_owned(), code.to_owned()));
    let modules = BTreeMap::from(modules);
    let used = uses("m::a", &modules["m::a"], false);
    assert_eq!(used, ["m::b::B", "m::b::c::C", "m::b::c::D"]);
    assert_eq!(resolve("m::b::c::C", &modules).as_deref(), Some("m::b"));
    assert_eq!(resolve("m::A", &modules).as_deref(), Some("m::a"));
}
