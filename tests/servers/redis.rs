//! A real redis-server for one test: on a free port, without persistence, ended with the test.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::skip::missing;

/// How long the server may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running redis-server.
#[derive(Debug)]
pub(crate) struct RedisServer {
    pub(crate) port: u16,
    /// Its arguments, besides the port.
    arguments: Vec<String>,
    /// The arguments that redis-cli needs to connect.
    door: Vec<String>,
    child: Child,
    folder: TempDir,
}

/// How clients must authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RedisAccess {
    Open,
    Password(&'static str),
    /// TLS, with a certificate for `localhost` by an authority of its own, see [`RedisServer::ca`].
    Tls,
}

impl RedisServer {
    /// Starts a server. `None`: redis-server is not installed, and the test may be skipped.
    pub(crate) fn start(door: RedisAccess) -> Option<Self> {
        if Command::new("redis-server")
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .is_err()
        {
            missing("redis-server");
            return None;
        }
        let folder = TempDir::new().expect("a folder");
        let (arguments, door_keys) = match door {
            RedisAccess::Open => (vec![], vec![]),
            RedisAccess::Password(password) => (
                words(&["--requirepass", password]),
                words(&["--no-auth-warning", "-a", password]),
            ),
            RedisAccess::Tls => tls(&folder),
        };
        Some(Self::run(folder, &arguments, &door_keys))
    }

    /// Starts a server without authentication, with these arguments.
    pub(crate) fn another(&self, arguments: &[&str]) -> Self {
        let folder = TempDir::new().expect("a folder");
        Self::run(folder, &words(arguments), &[])
    }

    /// Starts a sentinel that monitors this server under the name `main`.
    pub(crate) fn sentinel(&self) -> Self {
        let folder = TempDir::new().expect("a folder");
        let file = folder.path().join("sentinel.conf");
        let orders = format!(
            "sentinel monitor main 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds main 500\n\
             sentinel failover-timeout main 2000\n",
            self.port
        );
        fs::write(&file, orders).expect("a file");
        let file = file.display().to_string();
        Self::run(folder, &words(&[&file, "--sentinel"]), &[])
    }

    fn run(folder: TempDir, arguments: &[String], door_keys: &[String]) -> Self {
        // Another process may take the port before the server does.
        for _ in 0..10 {
            let port = free_port();
            let child = spawn(port, arguments, &folder);
            let mut server = Self {
                port,
                arguments: arguments.to_vec(),
                door: door_keys.to_vec(),
                child,
                folder: TempDir::new().expect("a folder"),
            };
            if server.answers() {
                server.folder = folder;
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    /// Its url, with the password if there is one.
    pub(crate) fn url(&self, user: &str) -> String {
        match self
            .arguments
            .iter()
            .any(|argument| argument == "--tls-port")
        {
            true => format!("rediss://{user}localhost:{}", self.port),
            false => format!("redis://{user}127.0.0.1:{}", self.port),
        }
    }

    /// The certificate of the authority, if TLS is used.
    pub(crate) fn ca(&self) -> std::path::PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Runs a command and returns its output.
    pub(crate) fn ask(&self, command: &[&str]) -> String {
        let answer = Command::new("redis-cli")
            .args(["-h", "localhost", "-p", &self.port.to_string()])
            .args(&self.door)
            .args(command)
            .output()
            .expect("redis-cli runs");
        String::from_utf8_lossy(&answer.stdout).trim().to_owned()
    }

    /// Kills the server.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Starts the server again on the same port, empty.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(self.port, &self.arguments, &self.folder);
        assert!(self.answers(), "redis-server does not start again");
    }

    /// Sends a signal to it: `STOP`, `CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        let done = Command::new("kill")
            .args([&format!("-{signal}"), &self.child.id().to_string()])
            .status();
        assert!(done.expect("kill runs").success());
    }

    /// Waits until it answers; false if it has ended.
    fn answers(&mut self) -> bool {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if self.child.try_wait().expect("a child").is_some() {
                return false;
            }
            if self.ask(&["PING"]) == "PONG" {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("redis-server does not answer");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16, arguments: &[String], folder: &TempDir) -> Child {
    let port_argument = match arguments.iter().any(|argument| argument == "--tls-port") {
        true => vec!["--port".to_owned(), "0".to_owned()],
        false => vec!["--port".to_owned(), port.to_string()],
    };
    let arguments = arguments.iter().map(|argument| match &**argument {
        "PORT" => port.to_string(),
        _ => argument.clone(),
    });
    Command::new("redis-server")
        .args(arguments)
        .args(port_argument)
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--dir", &folder.path().display().to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server starts")
}

/// Creates an authority and a certificate signed by it.
fn tls(folder: &TempDir) -> (Vec<String>, Vec<String>) {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let write = |name: &str, text: String| -> String {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let authority_key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new(vec![]).expect("an authority");
    // It needs a name of its own: OpenSSL treats a certificate with equal issuer and subject as self-signed.
    let name = "An authority for tests";
    authority.distinguished_name.push(DnType::CommonName, name);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = authority.self_signed(&authority_key).expect("a signature");
    let ca = write("ca.pem", ca.pem());
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])
        .and_then(|params| params.signed_by(&key, &issuer))
        .expect("a certificate");
    let certificate = write("server.pem", certificate.pem());
    let key = write("server.key", key.serialize_pem());
    let server = ["--tls-port", "PORT", "--tls-auth-clients", "no"];
    let files = [
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
    ];
    (
        words(&[&server[..], &files[..]].concat()),
        words(&["--tls", "--cacert", &ca]),
    )
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// A port that is free at the time of the call.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}
