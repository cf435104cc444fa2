//! Migrations: numbered changes of the tables, and which programs may use newer tables.
//!
//! A migration file may begin with a line that states its kind and the oldest version that works with it, such as `--
//! migration: online, works with 4`. Without that line it is quick and works with the version before.

/// A change of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Migration {
    /// The version of the tables after it, from 1.
    pub(super) version: i32,
    /// The statements.
    pub(super) sql: &'static str,
    /// When and how it is applied.
    pub(super) kind: MigrationKind,
    /// The oldest version with programs that work with the tables after this migration. A program that knows this version
    /// may use them although it does not know the migration.
    pub(super) works_with: i32,
}

/// When and how a migration is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MigrationKind {
    /// Adds something; fast regardless of the size of the tables. Applied in one transaction at the start of a node.
    Quick,
    /// Takes time in proportion to the size of a table, and the program needs it. Applied in one transaction; in a
    /// large database only by `copydesk migrate`.
    Long,
    /// Takes time in proportion to the size of a table, and the program works without it. Applied outside of a
    /// transaction, by statements that can be repeated; in a large database only by `copydesk migrate`.
    Online,
    /// Removes what only older programs need. Applied by `copydesk migrate --contract`, and in a new database.
    Contract,
}

/// A phase of a migration of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationPhase {
    /// Adds what the new program needs; older programs still work.
    Expand,
    /// Removes what only older programs need.
    Contract,
}

/// The versions of the migrations that were applied and that are pending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationStatus {
    /// Applied, in order. A newer program may have applied some that this one does not know.
    pub applied: Vec<i32>,
    /// Known to this program and not applied.
    pub pending: Vec<i32>,
}

/// The beginning of the line that describes a migration.
const HEADER: &str = "-- migration: ";

impl Migration {
    /// The migrations in these files, in order.
    pub(super) fn list(files: &[&'static str]) -> Vec<Self> {
        (1..)
            .zip(files)
            .map(|(version, sql)| Self::of(version, sql))
            .collect()
    }

    fn of(version: i32, sql: &'static str) -> Self {
        let header = sql.lines().next().and_then(parse_header);
        let (kind, works_with) = header.unwrap_or((MigrationKind::Quick, version - 1));
        Self {
            version,
            sql,
            kind,
            works_with,
        }
    }

    /// The statements without comments. With `true`, the statement is repeated until it changes no row.
    pub(super) fn statements(&self) -> Vec<(String, bool)> {
        let mut statements = Vec::new();
        let (mut statement, mut repeats) = (String::new(), false);
        for line in self.sql.lines() {
            let code = line.split("--").next().unwrap_or_default().trim_end();
            repeats |= line.trim() == "-- repeat until no row changes";
            if !code.is_empty() {
                statement.push_str(code);
                statement.push('\n');
            }
            if code.ends_with(';') {
                statements.push((std::mem::take(&mut statement), std::mem::take(&mut repeats)));
            }
        }
        statements
    }
}

/// Reads `-- migration: quick, works with 4`.
fn parse_header(line: &str) -> Option<(MigrationKind, i32)> {
    let (kind, works_with) = line.strip_prefix(HEADER)?.split_once(", works with ")?;
    let kind = match kind {
        "quick" => MigrationKind::Quick,
        "long" => MigrationKind::Long,
        "online" => MigrationKind::Online,
        "contract" => MigrationKind::Contract,
        _ => return None,
    };
    Some((kind, works_with.trim().parse().ok()?))
}

/// Checks whether a program that knows versions up to `known` may use tables to which these versions were applied, each
/// with the oldest version that works with it (`None`: only itself).
///
/// # Errors
pub(super) fn accepts(
    known: i32,
    applied: impl IntoIterator<Item = (i32, Option<i32>)>,
) -> Result<(), i32> {
    let newer = applied.into_iter().filter(|(version, _)| *version > known);
    let breaking = newer.filter(|(version, works_with)| works_with.unwrap_or(*version) > known);
    let newest = breaking.map(|(version, _)| version).max();
    newest.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_tables_are_accepted_only_if_each_newer_change_works_with_the_program() {
        for (known, applied, accepted) in [
            (4, vec![(4, None)], Ok(())),
            (4, vec![(4, None), (5, Some(4)), (6, Some(2))], Ok(())),
            (4, vec![(5, Some(4)), (6, Some(5)), (7, Some(4))], Err(6)),
            (4, vec![(5, None)], Err(5)),
            (5, vec![(5, None), (6, Some(5))], Ok(())),
        ] {
            assert_eq!(
                accepts(known, applied.clone()),
                accepted,
                "{known} {applied:?}"
            );
        }
    }

    #[test]
    fn first_line_states_the_kind() {
        let files = [
            "CREATE TABLE a (b integer);",
            "-- migration: online, works with 1\nCREATE INDEX a;",
            "-- migration: contract, works with 2\nDROP TABLE a;",
            "-- A comment.\nCREATE TABLE c (d integer);",
        ];
        let read = Migration::list(&files);
        let read: Vec<_> = read
            .iter()
            .map(|it| (it.version, it.kind, it.works_with))
            .collect();
        let expected = [
            (1, MigrationKind::Quick, 0),
            (2, MigrationKind::Online, 1),
            (3, MigrationKind::Contract, 2),
            (4, MigrationKind::Quick, 3),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn statements_are_split_at_the_ends_of_lines() {
        let sql = "-- migration: online, works with 1\nCREATE INDEX a\n  ON b (c); -- why; so\n\n\
                   -- repeat until no row changes\nUPDATE b SET c = 1 WHERE c IS NULL;\nDROP INDEX d;";
        let found = Migration::of(2, sql).statements();
        let expected = [
            ("CREATE INDEX a\n  ON b (c);\n", false),
            ("UPDATE b SET c = 1 WHERE c IS NULL;\n", true),
            ("DROP INDEX d;\n", false),
        ];
        let expected = expected.map(|(text, repeats)| (text.to_owned(), repeats));
        assert_eq!(found, expected);
    }

    /// The files of a folder with their names.
    fn files(dialect: &str) -> Vec<(String, String)> {
        let folder = format!("{}/sql/{dialect}", env!("CARGO_MANIFEST_DIR"));
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        let name =
            |path: &std::path::Path| path.file_name().unwrap().to_string_lossy().into_owned();
        files
            .iter()
            .map(|path| (name(path), std::fs::read_to_string(path).unwrap()))
            .collect()
    }

    #[test]
    fn only_contract_migrations_take_something_away() {
        // Statements that would break an older program which runs beside the new one.
        let breaking = ["DROP ", "RENAME ", " TYPE ", "SET NOT NULL", "TRUNCATE "];
        for (name, sql) in ["postgres", "sqlite"]
            .iter()
            .flat_map(|dialect| files(dialect))
        {
            let header = sql.lines().next().unwrap_or_default();
            let kind = parse_header(header).map(|(kind, _)| kind);
            assert_eq!(
                kind.is_some(),
                header.starts_with(HEADER),
                "{name}: {header}"
            );
            if kind == Some(MigrationKind::Contract) {
                continue;
            }
            let code = sql
                .lines()
                .map(|line| line.split("--").next().unwrap_or_default());
            for line in code.map(str::to_uppercase) {
                let found = breaking.iter().find(|word| line.contains(**word));
                assert_eq!(found, None, "{name}: {line}");
                let adds = line.contains("ADD COLUMN") && line.contains("NOT NULL");
                assert!(!adds || line.contains("DEFAULT"), "{name}: {line}");
            }
        }
    }
}
