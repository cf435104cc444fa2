//! The history of the embedded database, and how a start notices that the database went back in time.
//!
//! A restored backup looks like any other database from within. Two things outside of it tell:
//! - the database's file: a file that was copied, unpacked or moved from another disk has another inode or time of birth
//!   than the one that the database says it is in;
//! - `copydesk.history` beside it, which says how far the database had come: a backup that was written over the
//!   database's file, or read into it, is behind that.
//!
//! What neither tells (a snapshot of the whole file system was rolled back) an operator must say: `copydesk restored`.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rusqlite::{Connection, OptionalExtension, params};

use super::data_dir::DataDir;
use super::write_connection::WriteConnection;
use super::writer::WriteJob;
use crate::id::{ClientId, DocId, UserId};
use crate::log::{Epoch, Revision, SubmitId, fingerprint};
use crate::store::{History, StoreError};

/// The history that the database has.
pub(super) fn read(db: &Connection) -> rusqlite::Result<History> {
    Ok(Progress::read(db)?.history)
}

/// Replaces the history `known` by `next`, if the database still has `known`.
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

/// The fingerprint of the entry at each of these revisions; `None` where there is no such entry.
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
        let entry = statement
            .query_row(names, |row| {
                Ok((
                    Epoch(row.get::<_, i64>(0)?.cast_unsigned()),
                    row.get::<_, String>(1)?,
                    row.get::<_, String>(2)?,
                    row.get::<_, i64>(3)?.cast_unsigned(),
                ))
            })
            .optional()?;
        // An id that cannot be parsed was not written by this program: it is not the entry that was asked about.
        found.push(entry.map(|(epoch, author, client, seq)| {
            let author = UserId::new(&author);
            ClientId::parse(&client).map_or(0, |client| {
                fingerprint(
                    epoch,
                    &SubmitId {
                        author,
                        client,
                        seq,
                    },
                )
            })
        }));
    }
    Ok(found)
}

/// How far a database has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    history: History,
    /// Grows by one about every second in which something is appended.
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

    /// Returns true if a database that has come as far as `self` cannot have been as far as `earlier` before.
    fn is_behind(self, earlier: Self) -> bool {
        if self.history == earlier.history {
            self.writes < earlier.writes
        } else {
            !self.history.follows(earlier.history)
        }
    }
}

/// The file beside the database that says how far the database has come. It may be behind the database, by what was written
/// in the last second before a crash, and is never ahead of it.
#[derive(Debug)]
pub(super) struct HistoryFile {
    path: PathBuf,
    written: Option<Progress>,
    /// Whether the last write failed: said once, not every second.
    fails: bool,
}

impl HistoryFile {
    /// Compares the database with what is known of it from outside. A database that went back in time gets a new history.
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
                "the database went back in time: its history is renewed, and clients of the history before must reload"
            );
        }
        if recorded != file
            && let Err(error) = db.execute("UPDATE history SET file = ?1", [&file])
        {
            tracing::warn!(%error, "the identity of the database's file is not recorded: a restored backup may not be noticed");
        }
        let mut history_file = Self {
            path,
            written: known,
            fails: false,
        };
        history_file.update(db);
        Ok(history_file)
    }

    /// Brings the file up to the database. Not flushed: after a crash of the machine it may be behind.
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
                    tracing::warn!(path = %self.path.display(), %error, "the history file is not written: a restored backup may not be noticed");
                }
            }
        }
    }
}

/// Replaces the file in one step, so that a crash leaves the old text or the new one.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("history-new");
    let mut options = super::data_dir::private();
    options.create(true).truncate(true).write(true);
    io::Write::write_all(&mut options.open(&fresh)?, text.as_bytes())?;
    fs::rename(&fresh, path)
}

/// What tells a file from its copies; empty where the system does not say.
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

    /// Opens a folder, counts its progress up and leaves it.
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
        // The file was lost, or is of before the crash.
        fs::remove_file(folder.path().join("copydesk.history")).unwrap();
        assert_eq!(history(folder.path()), first);
        fs::write(folder.path().join("copydesk.history"), "torn").unwrap();
        assert_eq!(history(folder.path()), first);
    }

    #[test]
    fn every_way_to_restore_a_backup_renews_the_history() {
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
            ("written over the file", &over),
            ("in the file's place", &anew),
            ("the whole folder", &whole),
            ("read into the database", &within),
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
