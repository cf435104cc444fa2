//! Postgres for tests: one server that all tests share, and separate servers for tests that damage or restart it.

use std::fs::{File, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::skip::{missing, skipped};
use super::{command_as, free_port, is_root};

/// The url of the server that all tests share: `COPYDESK_TEST_POSTGRES`, or one that the first test starts and that
/// ends some seconds after the last test. `None`: Postgres is not installed.
pub fn shared() -> Option<&'static str> {
    static SHARED: OnceLock<Option<(String, Option<File>)>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        if let Ok(url) = std::env::var("COPYDESK_TEST_POSTGRES") {
            return Some((url, None));
        }
        let (port, using) = join(&programs()?);
        Some((url(port), Some(using)))
    });
    if shared.is_none() {
        missing("Postgres");
    }
    shared.as_ref().map(|(url, _)| url.as_str())
}

/// Adds a parameter to a url.
pub fn with(url: &str, parameter: &str) -> String {
    let sign = if url.contains('?') { '&' } else { '?' };
    format!("{url}{sign}{parameter}")
}

/// The url of an empty schema of the shared server. Its connections see only this schema.
pub async fn schema() -> Option<String> {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let server = shared()?;
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    let name = format!("test_{}_{count}_{now}", std::process::id());
    let client = connect(server).await;
    client
        .batch_execute(&format!("CREATE SCHEMA {name}"))
        .await
        .unwrap();
    Some(with(server, &format!("options=-c%20search_path%3D{name}")))
}

/// A connection that does not belong to a store.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A server for one test. It ends when it is dropped.
#[derive(Debug)]
pub struct OwnServer {
    bin: PathBuf,
    folder: TempDir,
    port: u16,
    options: Vec<String>,
    process: Option<Child>,
    /// Whether its folder is on a disk of its own.
    is_mounted: bool,
}

/// How much of a small disk is filled at first, in MiB.
const RESERVE_MIB: u64 = 60;

fn fresh_folder() -> TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("copydesk-postgres-").tempdir().unwrap()
}

impl OwnServer {
    /// A new server with these settings, as `name=value`. `None`: Postgres is not installed.
    pub fn start(options: &[&str]) -> Option<Self> {
        Self::start_in(fresh_folder(), options)
    }

    /// A new server on a disk of this many MiB, part of which [`make_room`](Self::make_room) frees. `None`, and
    /// reported as skipped, if this process may not mount a disk.
    pub fn on_a_small_disk(mib: u64) -> Option<Self> {
        let folder = fresh_folder();
        let size = format!("size={mib}m,mode=777");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path())
            .status();
        if !mounted.is_ok_and(|it| it.success()) {
            skipped("a small disk cannot be mounted: run the tests as root");
            return None;
        }
        let mut own = Self::start_in(folder, &["min_wal_size=32MB", "max_wal_size=48MB"])?;
        own.is_mounted = true;
        own.fill_disk(RESERVE_MIB);
        Some(own)
    }

    /// Fills part of the disk.
    fn fill_disk(&self, mib: u64) {
        let path = self.folder.path().join("ballast");
        std::fs::write(path, vec![1; usize::try_from(mib << 20).unwrap()]).unwrap();
    }

    /// Frees half of that part, and starts the server again if it has ended.
    pub fn make_room(&mut self) {
        let ballast = self.folder.path().join("ballast");
        let bytes = std::fs::metadata(&ballast).unwrap().len();
        let file = File::options().write(true).open(&ballast).unwrap();
        file.set_len(bytes / 2).unwrap();
        let ended = self
            .process
            .as_mut()
            .is_none_or(|it| it.try_wait().unwrap().is_some());
        if ended {
            self.process = None;
            self.go_on();
        }
    }

    fn start_in(folder: TempDir, options: &[&str]) -> Option<Self> {
        let Some(bin) = programs() else {
            missing("Postgres");
            return None;
        };
        give_to_server_user(folder.path());
        initialise(&bin, folder.path());
        let mut own = Self {
            bin,
            port: free_port(),
            folder,
            options: options.iter().map(|it| (*it).to_owned()).collect(),
            process: None,
            is_mounted: false,
        };
        own.go_on();
        Some(own)
    }

    pub fn url(&self) -> String {
        url(self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The server's log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Enables TLS for new connections.
    pub fn encrypt(&mut self, certificate: &str, key: &str) {
        self.crash();
        let owner = std::fs::metadata(self.data()).unwrap();
        for (name, pem) in [("server.crt", certificate), ("server.key", key)] {
            let path = self.data().join(name);
            std::fs::write(&path, pem).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        self.options.push("ssl=on".to_owned());
        self.go_on();
    }

    /// Ends the server at once, like a crash.
    pub fn crash(&mut self) {
        if let Some(mut process) = self.process.take() {
            // SIGQUIT also ends its child processes.
            signal("QUIT", process.id());
            process.wait().unwrap();
        }
    }

    /// Starts the server again on the same port.
    pub fn go_on(&mut self) {
        let mut process = serve(&self.bin, self.folder.path(), self.port, &self.options);
        await_answer(self.port, self.folder.path(), &mut process);
        self.process = Some(process);
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.crash();
        if self.is_mounted {
            let _ = Command::new("umount")
                .arg("-l")
                .arg(self.folder.path())
                .status();
        }
    }
}

fn url(port: u16) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable")
}

/// The folder of Postgres's programs: the newest of Debian's, or the one in which `initdb` is found.
fn programs() -> Option<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let debian = debian.filter_map(|version| Some(version.ok()?.path().join("bin")));
    let mut debian: Vec<_> = debian.collect();
    debian.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    folders.extend(debian.into_iter().rev());
    folders
        .into_iter()
        .find(|it| it.join("initdb").exists() && it.join("postgres").exists())
}

/// Registers as a user of the shared server, and starts it if it does not run. Returns its port, and a guard to hold
/// while it is used.
fn join(bin: &Path) -> (u16, File) {
    use std::hash::{Hash, Hasher};
    let mut hasher = std::hash::DefaultHasher::new();
    (env!("CARGO_MANIFEST_DIR"), std::env::var_os("USER")).hash(&mut hasher);
    let folder = std::env::temp_dir().join(format!("copydesk-tests-{:016x}", hasher.finish()));
    std::fs::create_dir_all(&folder).unwrap();
    give_to_server_user(&folder);
    let file = |name: &str| {
        let mut options = File::options();
        let options = options.create(true).truncate(false).write(true);
        options.open(folder.join(name)).unwrap()
    };
    // Registers first and then checks whether it runs; the watchdog does the opposite.
    let using = file("using");
    using.lock_shared().unwrap();
    let starting = file("starting");
    starting.lock().unwrap();
    let port = std::fs::read_to_string(folder.join("port")).ok();
    let port = port.and_then(|it| it.parse().ok());
    let port = port.filter(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok());
    let port = port.unwrap_or_else(|| {
        let _ = std::fs::remove_dir_all(folder.join("data"));
        initialise(bin, &folder);
        let port = free_port();
        let options = [
            "fsync=off",
            "max_connections=300",
            "track_activity_query_size=8192",
        ]
        .map(str::to_owned);
        let mut process = serve(bin, &folder, port, &options);
        await_answer(port, &folder, &mut process);
        std::fs::write(folder.join("port"), port.to_string()).unwrap();
        end_after_last_user(&folder, process.id());
        port
    });
    starting.unlock().unwrap();
    (port, using)
}

/// Ends the shared server some seconds after its last user is gone. It is a process of its own, because the one that
/// starts the server may end long before the last user.
fn end_after_last_user(folder: &Path, server: u32) {
    let script = r#"
        cd "$1"
        while sleep 10; do
          exec 8>>using 9>>starting
          flock -x 9
          if flock -xn 8; then
            kill -INT "$2"
            for _ in $(seq 100); do kill -0 "$2" 2>/dev/null || break; sleep 0.1; done
            cd / && rm -rf "$1/data" "$1/port"
            exit
          fi
          exec 8>&- 9>&-
        done"#;
    let started = Command::new("setsid")
        .arg("--fork")
        .args(["bash", "-c", script, "watch"])
        .arg(folder)
        .arg(server.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(started.unwrap().success());
}

fn initialise(bin: &Path, folder: &Path) {
    let done = command_as("postgres", &bin.join("initdb"))
        .current_dir("/")
        .args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
            "-D",
        ])
        .arg(folder.join("data"))
        .output()
        .unwrap();
    assert!(done.status.success(), "initdb: {done:?}");
}

/// Starts a server. It does not end with this process; the caller has to end it.
fn serve(bin: &Path, folder: &Path, port: u16, options: &[String]) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    let mut command = command_as("postgres", &bin.join("postgres"));
    command
        .current_dir("/")
        .arg("-D")
        .arg(folder.join("data"))
        .args(["-p", &port.to_string()])
        .args(["-c", "listen_addresses=127.0.0.1"])
        .args(["-c", "unix_socket_directories="])
        .args(["-c", "log_min_messages=warning"]);
    for option in options {
        command.args(["-c", option]);
    }
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn await_answer(port: u16, folder: &Path, process: &mut Child) {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let answers = move || {
        let connected = async {
            let (client, connection) = tokio_postgres::connect(&url(port), NoTls).await.ok()?;
            let task = tokio::spawn(connection);
            let answer = client.simple_query("SELECT 1").await.ok();
            task.abort();
            answer
        };
        runtime().block_on(connected).is_some()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        // On a thread of its own, because the test may run in a runtime already.
        if std::thread::spawn(answers).join().unwrap() {
            return;
        }
        let ended = process.try_wait().unwrap();
        let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        assert!(ended.is_none(), "Postgres ended: {}", log());
        assert!(
            Instant::now() < deadline,
            "Postgres does not answer: {}",
            log()
        );
        std::thread::sleep(Duration::from_millis(30));
    }
}

fn signal(name: &str, process: u32) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &process.to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

/// The user of the server must be able to write here, if this process runs as root.
fn give_to_server_user(folder: &Path) {
    if is_root() {
        std::fs::set_permissions(folder, Permissions::from_mode(0o777)).unwrap();
    }
}
