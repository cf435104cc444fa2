//! The history of the embedded database, and how a start detects that the database went back in time.
//!
//! The contents of a restored backup do not show that it was restored. Two things outside of the database do:
//! - the file: a file that was copied, unpacked or moved from another disk has another inode or creation time than the one
//!   that is recorded in the database;
//! - `copydesk.history` beside it, which records the database's progress: a backup that was written over the file, or
//!   imported into it, is behind that.
//!
//! A rollback of the whole file system changes both, so an operator must report it with `copydesk restored`.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rusqlite::{Connection, OptionalExtension, params};

use super::data_dir::DataDir;
use super::write_connection::WriteConnection;
use super::writer::WriteJob;
use crate::id::DocId;
use crate::log::{Epoch, Revision};
use crate::store::history::stored_fingerprint;
use crate::store::{History, StoreError};

/// The history that the database has.
pub(super) fn read(db: &Connection) -> rusqlite::Result<History> {
    Ok(Progress::read(db)?.history)
}

/// Replaces the history `known` by `next` if the database has `known`.
pub(super) struct RenewHistoryJob {
    pub(super) known: History,
    pub(super) next: History,
}

impl WriteJob for RenewHistoryJob {
    type Output = ();
    const VERB: &'static str = "renew history";

    fn run(&self, connection: &mut WriteConnection) -> rusqlite::Result<()> {
        renew(connection.db(), self.known, self.next)
    }
}

fn renew(db: &Connection, known: History, next: History) -> rusqlite::Result<()> {
    db.execute(
        "UPDATE history SET generation = ?1, id = ?2 WHERE id = ?3",
        params![
            next.generation.cast_signed(),
            next.id.to_be_bytes(),
            known.id.to_be_bytes()
        ],
    )
    .map(drop)
}

/// The fingerprint of the entry at each of these revisions; `None` if there is no such entry.
pub(super) fn fingerprints(
    db: &Connection,
    entries: &[(DocId, Revision)],
) -> rusqlite::Result<Vec<Option<u64>>> {
    let mut statement = db.prepare_cached(
        "SELECT epoch, author, client, seq
         FROM entries
         WHERE doc = (SELECT number FROM documents WHERE collection = ?1 AND id = ?2) AND revision = ?3",
    )?;
    let mut found = Vec::with_capacity(entries.len());
    for (doc, revision) in entries {
        let names = params![
            doc.collection.as_str(),
            doc.id.as_str(),
            revision.0.cast_signed()
        ];
        let entry = statement.query_row(names, |row| {
            let epoch = Epoch(row.get::<_, i64>(0)?.cast_unsigned());
            let (author, client): (String, String) = (row.get(1)?, row.get(2)?);
            let seq = row.get::<_, i64>(3)?.cast_unsigned();
            Ok(stored_fingerprint(epoch, &author, &client, seq))
        });
        found.push(entry.optional()?);
    }
    Ok(found)
}

/// The progress of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    history: History,
    /// Grows by one per second in which something is appended.
    writes: u64,
}

impl Progress {
    fn read(db: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT generation, id, writes FROM history";
        db.prepare_cached(sql)?.query_row([], |row| {
            Ok(Self {
                history: History {
                    generation: row.get::<_, i64>(0)?.cast_unsigned(),
                    id: u128::from_be_bytes(row.get(1)?),
                },
                writes: row.get::<_, i64>(2)?.cast_unsigned(),
            })
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let history = History {
            generation: words.next()?.parse().ok()?,
            id: u128::from_str_radix(words.next()?, 16).ok()?,
        };
        let writes = words.next()?.parse().ok()?;
        Some(Self { history, writes })
    }

    fn text(self) -> String {
        let History { generation, id } = self.history;
        format!("{generation} {id:032x} {}\n", self.writes)
    }

    /// Returns true if a database with the progress `self` cannot have had the progress `earlier` before.
    fn is_behind(self, earlier: Self) -> bool {
        if self.history == earlier.history {
            self.writes < earlier.writes
        } else {
            !self.history.follows(earlier.history)
        }
    }
}

/// The file beside the database that records its progress. After a crash it may be behind by the writes of the last
/// second; it is never ahead.
#[derive(Debug)]
pub(super) struct HistoryFile {
    path: PathBuf,
    written: Option<Progress>,
    /// Whether the last write failed, which is logged once.
    fails: bool,
}

impl HistoryFile {
    /// Compares the database with the recorded progress. If the database went back in time, it gets a new history.
    pub(super) fn compare(folder: &DataDir, db: &Connection) -> Result<Self, StoreError> {
        let error = |error: rusqlite::Error| StoreError::new("open", error);
        let path = folder.history();
        let known = fs::read_to_string(&path).ok();
        let known = known.and_then(|text| Progress::parse(&text));
        let here = Progress::read(db).map_err(error)?;
        let file = identity(&folder.file());
        let recorded: String = db
            .query_row("SELECT file FROM history", [], |row| row.get(0))
            .map_err(error)?;
        let is_copy = !recorded.is_empty() && !file.is_empty() && recorded != file;
        let is_behind = known.is_some_and(|known| here.is_behind(known));
        if is_copy || is_behind {
            let before = known.map_or(here.history, |known| known.history);
            let next = here
                .history
                .after(before, u128::from_be_bytes(super::random("open")?));
            renew(db, here.history, next).map_err(error)?;
            tracing::error!(
                is_copy,
                is_behind,
                generation = next.generation,
                "the database went back in time: its history was renewed, and clients of the previous history must reload"
            );
        }
        if recorded != file
            && let Err(error) = db.execute("UPDATE history SET file = ?1", [&file])
        {
            tracing::warn!(%error, "the identity of the database file cannot be recorded: a restored backup may not be detected");
        }
        let mut history_file = Self {
            path,
            written: known,
            fails: false,
        };
        history_file.update(db);
        Ok(history_file)
    }

    /// Writes the progress of the database to the file. It is not flushed, so it may be lost in a crash of the machine.
    pub(super) fn update(&mut self, db: &Connection) {
        let Ok(progress) = Progress::read(db) else {
            return;
        };
        if self.written == Some(progress) {
            return;
        }
        match write(&self.path, &progress.text()) {
            Ok(()) => {
                self.written = Some(progress);
                self.fails = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.fails, true) {
                    tracing::warn!(path = %self.path.display(), %error, "the history file cannot be written: a restored backup may not be detected");
                }
            }
        }
    }
}

/// Replaces the file atomically.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("history-new");
    let mut options = super::data_dir::private();
    options.create(true).truncate(true).write(true);
    io::Write::write_all(&mut options.open(&fresh)?, text.as_bytes())?;
    fs::rename(&fresh, path)
}

/// Distinguishes a file from its copies; empty if the system does not provide that.
fn identity(path: &Path) -> String {
    fs::metadata(path).map_or_else(|_| String::new(), |metadata| identity_of(&metadata))
}

#[cfg(unix)]
fn identity_of(metadata: &Metadata) -> String {
    use std::os::unix::fs::MetadataExt;
    let born = metadata.created().ok();
    let born = born.and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    let born = born.map_or(0, |born| born.as_nanos());
    format!("{}:{born}", metadata.ino())
}

#[cfg(not(unix))]
fn identity_of(_: &Metadata) -> String {
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(folder: &Path) -> History {
        let (folder, _lock) = DataDir::lock(folder).unwrap();
        let db = folder.open().unwrap();
        HistoryFile::compare(&folder, &db).unwrap();
        read(&db).unwrap()
    }

    /// Opens a folder and increases its progress by one.
    fn advance(folder: &Path) {
        let (folder, _lock) = DataDir::lock(folder).unwrap();
        let db = folder.open().unwrap();
        let mut file = HistoryFile::compare(&folder, &db).unwrap();
        db.execute("UPDATE history SET writes = writes + 1", [])
            .unwrap();
        file.update(&db);
    }

    fn copy(from: &Path, to: &Path) {
        for file in fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }

    #[test]
    fn restarts_and_crashes_keep_the_history() {
        let folder = tempfile::tempdir().unwrap();
        let first = history(folder.path());
        assert_eq!(first.generation, 0);
        for _ in 0..3 {
            advance(folder.path());
            assert_eq!(history(folder.path()), first);
        }
        // The file is missing, or was not written completely.
        fs::remove_file(folder.path().join("copydesk.history")).unwrap();
        assert_eq!(history(folder.path()), first);
        fs::write(folder.path().join("copydesk.history"), "torn").unwrap();
        assert_eq!(history(folder.path()), first);
    }

    #[test]
    fn each_way_to_restore_a_backup_renews_the_history() {
        let (data, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (data, backup) = (data.path(), backup.path());
        let database = data.join("copydesk.db");
        let mut seen = vec![history(data)];
        copy(data, backup);
        let saved = backup.join("copydesk.db");
        let over = || {
            fs::copy(&saved, &database).unwrap();
        };
        let anew = || {
            fs::remove_file(&database).unwrap();
            over();
        };
        let whole = || {
            for file in fs::read_dir(data).unwrap() {
                fs::remove_file(file.unwrap().path()).unwrap();
            }
            copy(backup, data);
        };
        let within = || {
            let db = Connection::open(&database).unwrap();
            let from = saved.display();
            db.execute_batch(&format!(
                "ATTACH '{from}' AS saved;
                 DELETE FROM main.history;
                 INSERT INTO main.history SELECT * FROM saved.history;
                 UPDATE main.history SET file = '{}'",
                identity(&database)
            ))
            .unwrap();
        };
        let ways: [(&str, &dyn Fn()); 4] = [
            ("copied over the file", &over),
            ("a new file", &anew),
            ("the whole folder", &whole),
            ("imported into the database", &within),
        ];
        for (way, restore) in ways {
            advance(data);
            advance(data);
            restore();
            let renewed = history(data);
            assert!(!seen.contains(&renewed), "{way}: {renewed:?}");
            assert!(renewed.generation > 0, "{way}");
            assert_eq!(history(data), renewed, "{way}: a restart is no restore");
            seen.push(renewed);
        }
    }
}
