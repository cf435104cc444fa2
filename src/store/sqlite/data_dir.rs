//! The data folder: its lock, its database file, and the connections to it.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::store::migration::{Migration, accepts};
use crate::store::{MigrationStatus, StoreError};

/// The database file in the folder. While it is open there are also `-wal` and `-shm`.
const DATABASE: &str = "copydesk.db";

/// The lock file: it is locked while a process uses the folder. It is empty and remains after the process has ended.
const LOCK: &str = "copydesk.lock";

/// A file that reserves space for the next start. SQLite cannot open a database without some space for the index of the
/// write-ahead log, and on a full disk the server should still start and serve reads.
const RESERVE: &str = "copydesk.reserve";
const RESERVE_BYTES: u64 = 256 << 10;

/// The file that records the progress of the database's history. It is not in the database, so restoring the database
/// leaves it as it is.
const HISTORY: &str = "copydesk.history";

/// Identifies the file as a Copydesk database ("Cpdk").
const APPLICATION_ID: i32 = 0x4370_646b;

/// The migrations in order. How many were applied is the file's `user_version`. Never edited after a release.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../sql/sqlite/0001_documents_and_their_log.sql"),
    include_str!("../../../sql/sqlite/0002_people.sql"),
    include_str!("../../../sql/sqlite/0003_accounts_that_end.sql"),
    include_str!("../../../sql/sqlite/0004_repeated_deeds.sql"),
    include_str!("../../../sql/sqlite/0005_revocations_name_documents.sql"),
    include_str!("../../../sql/sqlite/0006_history.sql"),
    include_str!("../../../sql/sqlite/0007_dead_letters.sql"),
];

/// The versions that were applied, each with the oldest version with programs that work with the file.
const VERSIONS: &str = "
CREATE TABLE IF NOT EXISTS copydesk_versions (
  version INTEGER PRIMARY KEY,
  works_with INTEGER
) STRICT";

/// The size to which the write-ahead log is preallocated. A commit within it does not change the size of a file, which
/// makes its flush cheap. Checkpoints keep the log within it most of the time.
const WAL_BYTES: u64 = 16 << 20;

/// How long a connection waits for a lock. Only other programs, such as a backup or a shell, hold one for long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// A data folder.
#[derive(Debug, Clone)]
pub(super) struct DataDir(PathBuf);

/// The lock of the folder, held until this is dropped or the process ends.
#[derive(Debug)]
pub(super) struct DataDirLock(#[expect(dead_code, reason = "held, not read")] File);

/// What a connection may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AccessMode {
    Write,
    Read,
}

impl DataDir {
    /// Creates the folder if it does not exist, and locks it for this process.
    pub(super) fn lock(path: &Path) -> Result<(Self, DataDirLock), StoreError> {
        let error = |what: &str, error: io::Error| {
            open_error(format!(
                "{what} the data folder {}: {error}",
                path.display()
            ))
        };
        make_private(path).map_err(|cause| error("make", cause))?;
        let create = |name: &str| {
            let mut file = private();
            file.create(true).truncate(false).write(true);
            file.open(path.join(name))
        };
        let lock = create(LOCK).map_err(|cause| error("write to", cause))?;
        match lock.try_lock() {
            Ok(()) => {
                // SQLite gives the files beside it the same permissions.
                create(DATABASE).map_err(|cause| error("write to", cause))?;
                #[cfg(unix)]
                permissions::tighten(path);
                Ok((Self(path.to_owned()), DataDirLock(lock)))
            }
            Err(TryLockError::WouldBlock) => Err(open_error(format!(
                "another process uses the data folder {}",
                path.display()
            ))),
            Err(TryLockError::Error(cause)) => Err(error("lock", cause)),
        }
    }

    /// Opens the database of a folder for reading. Another process may have locked the folder.
    pub(super) fn open_read_only(path: &Path) -> Result<Connection, StoreError> {
        let folder = Self(path.to_owned());
        if !folder.file().exists() {
            let why = format!("there is no database in the data folder {}", path.display());
            return Err(open_error(why));
        }
        let explain = |error| folder.explain(&error);
        let only_read = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(folder.file(), only_read).map_err(explain)?;
        db.busy_timeout(BUSY_TIMEOUT).map_err(explain)?;
        Ok(db)
    }

    /// Opens the database of a folder for a few short writes, beside the process that may have locked the folder. SQLite's own
    /// locks order the writes of both.
    pub(super) fn open_beside(path: &Path) -> Result<Connection, StoreError> {
        let folder = Self(path.to_owned());
        let status = Self::status(path)?;
        if !status.pending.is_empty() {
            let why = format!(
                "the database in {} is of an older version: start the server on it once",
                path.display()
            );
            return Err(open_error(why));
        }
        folder
            .connect(AccessMode::Write)
            .map_err(|error| folder.explain(&error))
    }

    /// Opens the database for writing, applies pending migrations and preallocates the write-ahead log. If the disk is
    /// full, it frees the reserve and tries again.
    pub(super) fn open(&self) -> Result<Connection, StoreError> {
        let db = match self.open_database() {
            Err(error) if fs::remove_file(self.reserve()).is_ok() => {
                tracing::warn!(%error, "the database did not open: retrying with the space of copydesk.reserve");
                self.open_database()?
            }
            opened => opened?,
        };
        if let Err(error) = grow(&self.reserve(), RESERVE_BYTES) {
            tracing::warn!(%error, "copydesk.reserve cannot be written: the next start may fail while the disk is full");
        }
        // Without the preallocation each commit costs more; the server starts nevertheless, since a full disk can be
        // read.
        if let Err(error) = grow(&self.file().with_extension("db-wal"), WAL_BYTES) {
            tracing::warn!(%error, "the write-ahead log cannot be preallocated: commits are slower");
        }
        Ok(db)
    }

    fn open_database(&self) -> Result<Connection, StoreError> {
        let mut db = self
            .connect(AccessMode::Write)
            .map_err(|error| self.explain(&error))?;
        self.migrate(&mut db)?;
        Ok(db)
    }

    /// Opens a connection.
    pub(super) fn connect(&self, access: AccessMode) -> rusqlite::Result<Connection> {
        let db = Connection::open_with_flags(
            self.file(),
            OpenFlags::SQLITE_OPEN_READ_WRITE
                | OpenFlags::SQLITE_OPEN_CREATE
                | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        db.busy_timeout(BUSY_TIMEOUT)?;
        db.set_prepared_statement_cache_capacity(64);
        db.pragma_update(None, "journal_mode", "WAL")?;
        // A commit is on the disk when it returns and survives a power failure.
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "foreign_keys", true)?;
        // `Checkpointer` runs them outside of commits.
        db.pragma_update(None, "wal_autocheckpoint", 0)?;
        // In KiB if negative. The writer's cache has room for the last page of some 10,000 documents.
        let cache_kib = if access == AccessMode::Write {
            64 << 10
        } else {
            8 << 10
        };
        db.pragma_update(None, "cache_size", -cache_kib)?;
        db.pragma_update(None, "query_only", access == AccessMode::Read)?;
        Ok(db)
    }

    /// Applies the pending migrations.
    fn migrate(&self, db: &mut Connection) -> Result<(), StoreError> {
        let explain = |error| self.explain(&error);
        let seen: usize = self.version(db)?;
        for migration in Migration::list(MIGRATIONS).iter().skip(seen) {
            let transaction = db.transaction().map_err(explain)?;
            transaction.execute_batch(migration.sql).map_err(explain)?;
            transaction.execute_batch(VERSIONS).map_err(explain)?;
            transaction
                .execute(
                    "INSERT INTO copydesk_versions (version, works_with) VALUES (?1, ?2)",
                    (migration.version, migration.works_with),
                )
                .map_err(explain)?;
            transaction
                .pragma_update(None, "user_version", migration.version)
                .map_err(explain)?;
            transaction
                .pragma_update(None, "application_id", APPLICATION_ID)
                .map_err(explain)?;
            transaction.commit().map_err(explain)?;
        }
        Ok(())
    }

    /// How many migrations were applied to the file.
    fn version(&self, db: &Connection) -> Result<usize, StoreError> {
        let number = |sql| db.query_row(sql, [], |row| row.get::<_, i64>(0));
        let explain = |error| self.explain(&error);
        let application = number("PRAGMA application_id").map_err(explain)?;
        let version = number("PRAGMA user_version").map_err(explain)?;
        let tables = number("SELECT count(*) FROM sqlite_schema").map_err(explain)?;
        let file = self.file();
        if application != i64::from(APPLICATION_ID) && (application, version, tables) != (0, 0, 0) {
            return Err(open_error(format!(
                "{} is another program's database",
                file.display()
            )));
        }
        let known = MIGRATIONS.len() as i64;
        if version > known && !self.is_usable(db, known as i32)? {
            return Err(open_error(format!(
                "{} has version {version}, and this program knows versions up to {known}: it was written by a newer one",
                file.display(),
            )));
        }
        Ok(usize::try_from(version).unwrap_or(0))
    }

    /// Returns true if a program that knows versions up to `known` may use the newer file: all later migrations are
    /// recorded and work with that version.
    fn is_usable(&self, db: &Connection, known: i32) -> Result<bool, StoreError> {
        let noted = || -> rusqlite::Result<Vec<(i32, Option<i32>)>> {
            let table = "SELECT count(*) FROM sqlite_schema WHERE name = 'copydesk_versions'";
            if db.query_row(table, [], |row| row.get::<_, i64>(0))? == 0 {
                return Ok(Vec::new());
            }
            let newer = "SELECT version, works_with FROM copydesk_versions WHERE version > ?1";
            let mut newer = db.prepare(newer)?;
            let newer = newer.query_map([known], |row| Ok((row.get(0)?, row.get(1)?)))?;
            newer.collect()
        };
        let newer = noted().map_err(|error| self.explain(&error))?;
        Ok(!newer.is_empty() && accepts(known, newer).is_ok())
    }

    /// The versions that were applied, and the ones that this program knows and that are pending.
    pub(super) fn status(path: &Path) -> Result<MigrationStatus, StoreError> {
        let db = Self::open_read_only(path)?;
        let version = Self(path.to_owned()).version(&db)? as i32;
        let known = MIGRATIONS.len() as i32;
        Ok(MigrationStatus {
            applied: (1..=version).collect(),
            pending: (version + 1..=known).collect(),
        })
    }

    fn explain(&self, error: &rusqlite::Error) -> StoreError {
        let file = self.file();
        open_error(match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => format!("{} is not a database", file.display()),
            Some(ErrorCode::DatabaseCorrupt) => format!("{} is damaged: {error}", file.display()),
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                format!("{} cannot be written: {error}", file.display())
            }
            _ => format!("{}: {error}", file.display()),
        })
    }

    pub(super) fn history(&self) -> PathBuf {
        self.0.join(HISTORY)
    }

    fn reserve(&self) -> PathBuf {
        self.0.join(RESERVE)
    }

    pub(super) fn file(&self) -> PathBuf {
        self.0.join(DATABASE)
    }
}

fn open_error(reason: String) -> StoreError {
    StoreError::new("open", reason)
}

/// Removes the permission of other users to read the data folder.
#[cfg(unix)]
mod permissions {
    use std::fs::{self, Metadata, Permissions};
    use std::io;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::Path;

    use super::{DATABASE, HISTORY, LOCK, RESERVE};

    /// The permission bits of the group and of others.
    const OTHERS: u32 = 0o077;

    /// Tightens the permissions of the database's files, and of the folder if it has no other files: the database has
    /// all texts and the secret that signs access tokens. If that is not possible (another user owns the file, the file
    /// system has no permissions), a log line says what to do.
    pub(super) fn tighten(folder: &Path) {
        let (wal, shm) = (format!("{DATABASE}-wal"), format!("{DATABASE}-shm"));
        for name in [DATABASE, &wal, &shm, LOCK, RESERVE, HISTORY] {
            let file = folder.join(name);
            if file.exists() {
                report(&file, tighten_one(&file, 0o600));
            }
        }
        let is_ours_alone = fs::read_dir(folder).is_ok_and(|mut entries| {
            entries.all(|entry| {
                entry.is_ok_and(|it| it.file_name().to_string_lossy().starts_with("copydesk."))
            })
        });
        match fs::metadata(folder) {
            Ok(metadata) if is_ours_alone && is_owner(&metadata) => {
                report(folder, tighten_one(folder, 0o700));
            }
            Ok(metadata) if metadata.mode() & OTHERS != 0 => tracing::warn!(
                folder = %folder.display(),
                mode = format!("{:o}", metadata.mode() & 0o7777),
                "other users of this machine can list the data folder: its permissions are unchanged because it has other files or another owner"
            ),
            _ => {}
        }
    }

    /// Sets the permissions if others have any. Returns those before and after, or `None` if nothing was changed.
    fn tighten_one(path: &Path, wanted: u32) -> io::Result<Option<(u32, u32)>> {
        let before = fs::metadata(path)?.mode() & 0o7777;
        if before & OTHERS == 0 {
            return Ok(None);
        }
        fs::set_permissions(path, Permissions::from_mode(wanted))?;
        let after = fs::metadata(path)?.mode() & 0o7777;
        Ok(Some((before, after)))
    }

    fn report(path: &Path, tightened: io::Result<Option<(u32, u32)>>) {
        let path = path.display();
        match tightened {
            Ok(None) => {}
            Ok(Some((before, after))) if after & OTHERS == 0 => tracing::warn!(
                %path,
                before = format!("{before:o}"),
                after = format!("{after:o}"),
                "other users of this machine could read this file or folder: its permissions were tightened"
            ),
            Ok(Some(_)) => tracing::error!(
                %path,
                "other users of this machine can read this file or folder, and the file system does not support permissions: deny access to the parent folder"
            ),
            Err(error) => tracing::error!(
                %path,
                %error,
                "other users of this machine can read this file or folder, and its permissions cannot be changed: change its owner to the user of this process"
            ),
        }
    }

    fn is_owner(metadata: &Metadata) -> bool {
        // `/proc/self` is owned by the user of this process.
        fs::metadata("/proc/self").is_ok_and(|own| own.uid() == metadata.uid())
    }

    #[cfg(test)]
    mod tests {
        use super::super::DataDir;
        use super::*;

        fn mode(path: &Path) -> u32 {
            fs::metadata(path).unwrap().mode() & 0o7777
        }

        #[test]
        fn folder_that_others_can_read_is_tightened() {
            let outer = tempfile::tempdir().unwrap();
            let path = outer.path().join("data");
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
            for name in ["copydesk.db", "copydesk.db-wal", "copydesk.lock"] {
                fs::write(path.join(name), "").unwrap();
                fs::set_permissions(path.join(name), Permissions::from_mode(0o644)).unwrap();
            }
            let (folder, _lock) = DataDir::lock(&path).unwrap();
            let _db = folder.open().unwrap();
            assert_eq!(mode(&path), 0o700);
            for entry in fs::read_dir(&path).unwrap() {
                let entry = entry.unwrap().path();
                assert_eq!(mode(&entry), 0o600, "{}", entry.display());
            }
        }

        #[test]
        fn folder_with_other_files_keeps_its_permissions_and_its_database_is_private() {
            let outer = tempfile::tempdir().unwrap();
            let path = outer.path().to_owned();
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
            fs::write(path.join("other.txt"), "").unwrap();
            fs::set_permissions(path.join("other.txt"), Permissions::from_mode(0o644)).unwrap();
            let (folder, _lock) = DataDir::lock(&path).unwrap();
            let db = folder.open().unwrap();
            db.execute_batch("CREATE TABLE x (y)").unwrap();
            assert_eq!((mode(&path), mode(&path.join("other.txt"))), (0o755, 0o644));
            for name in [
                "copydesk.db",
                "copydesk.db-wal",
                "copydesk.db-shm",
                "copydesk.lock",
            ] {
                assert_eq!(mode(&path.join(name)), 0o600, "{name}");
            }
        }
    }
}

/// Options that create a file which only this user can read.
pub(super) fn private() -> fs::OpenOptions {
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Creates the folder such that only this user can read it.
fn make_private(path: &Path) -> io::Result<()> {
    let mut folder = fs::DirBuilder::new();
    folder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut folder, 0o700);
    folder.create(path)
}

/// Extends a file with zeros to `bytes`. On an error its size is unchanged. SQLite reads a log as far as the checksums
/// of its frames match, so zeros mark its end. Must be called before the first write after a start.
fn grow(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = private().append(true).create(true).open(path)?;
    let before = file.metadata()?.len();
    let zeros = [0; 64 << 10];
    let mut missing = bytes.saturating_sub(before);
    while missing > 0 {
        let step = missing.min(zeros.len() as u64);
        if let Err(error) = file.write_all(&zeros[..step as usize]) {
            // Frees the space, which other writes need.
            file.set_len(before)?;
            return Err(error);
        }
        missing -= step;
    }
    file.sync_all()
}
