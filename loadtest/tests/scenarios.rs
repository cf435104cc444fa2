//! The load generator against a real server: short runs of every scenario end with a report, in JSON and as a page, and
//! `compare` shows a regression by its exit status.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const LOADTEST: &str = env!("CARGO_BIN_EXE_copydesk-loadtest");

/// A server of its own port and folder; stopped when dropped.
struct Server {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Server {
    fn start(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("loadtest-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let log = fs::File::create(folder.join("server.log")).unwrap();
        let child = Command::new(server_program())
            .args(["serve", "--open", "--listen"])
            .arg(format!("127.0.0.1:{port}"))
            .arg("--data")
            .arg(folder.join("data"))
            .current_dir(&folder)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut server = Self {
            child,
            port,
            folder,
        };
        server.await_listening();
        server
    }

    fn await_listening(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "the server does not listen: {}",
                fs::read_to_string(self.folder.join("server.log")).unwrap()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a scenario; returns its JSON report and its page.
    fn load(&self, arguments: &[&str]) -> (Value, String) {
        let (json, page) = (self.file("report.json"), self.file("report.html"));
        let url = format!("ws://127.0.0.1:{}/ws", self.port);
        let output = Command::new(LOADTEST)
            .args(["--url", &url, "--warmup", "0.2", "--seed", "7"])
            .arg("--json")
            .arg(&json)
            .arg("--report")
            .arg(&page)
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        let json = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
        (json, fs::read_to_string(page).unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The server: `COPYDESK_BIN`, or the one that was built with this test.
fn server_program() -> PathBuf {
    let beside = Path::new(LOADTEST).with_file_name("copydesk");
    let program = std::env::var_os("COPYDESK_BIN").map_or(beside, PathBuf::from);
    assert!(
        program.exists(),
        "{} is missing: cargo build --workspace --bin copydesk",
        program.display()
    );
    program
}

fn text(output: &Output) -> String {
    let (out, error) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(error)
}

fn figure(report: &Value, key: &str) -> f64 {
    let value = report["figures"][key].as_f64();
    value.unwrap_or_else(|| panic!("{key} is missing in {}", report["figures"]))
}

/// What every report has.
fn assert_complete(report: &Value, page: &str) {
    assert_eq!(report["schema"], 1);
    assert_eq!(report["fault_count"], 0);
    assert_eq!(report["is_checked"], true);
    let series = &report["series"];
    let samples = series["at_s"].as_array().unwrap().len();
    assert!(samples > 0);
    // The server was found by its port.
    assert_eq!(
        series["servers"][0]["cpu"].as_array().unwrap().len(),
        samples
    );
    assert!(figure(report, "server_rss_bytes") > 1e6);
    assert!(
        !report["distributions"]["ack"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    let scenario = report["scenario"].as_str().unwrap();
    assert!(page.contains(&format!("copydesk-loadtest {scenario}</title>")));
}

#[test]
fn ramp_measures_every_rate_and_compare_finds_its_regressions() {
    let server = Server::start("ramp");
    // Bounds that no machine crosses: every rate is measured.
    let bounds = ["--ack-p99-ms", "60000", "--accepted-share", "0.01"];
    let rates = ["--from", "20", "--to", "45", "--factor", "2", "--docs", "5"];
    let arguments = [&["ramp", "--seconds", "1"], &bounds[..], &rates[..]].concat();
    let (report, page) = server.load(&arguments);
    assert_complete(&report, &page);
    let rows = report["tables"][0]["rows"].as_array().unwrap();
    let names: Vec<_> = rows
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["20 edits/s", "40 edits/s"]);
    assert!(figure(&report, "knee_edits_per_second") > 1.0);
    assert!(
        report["checked"]
            .as_str()
            .unwrap()
            .starts_with("no bound was crossed")
    );
    assert_compared(&server, &report);
}

fn assert_compared(server: &Server, report: &Value) {
    let (a, b) = (server.file("a.json"), server.file("b.json"));
    fs::write(&a, report.to_string()).unwrap();
    let compared = |change: &dyn Fn(&mut Value)| {
        let mut other = report.clone();
        change(&mut other);
        fs::write(&b, other.to_string()).unwrap();
        let output = Command::new(LOADTEST)
            .arg("compare")
            .args([&a, &b])
            .output()
            .unwrap();
        (output.status.code(), text(&output))
    };
    let (status, shown) = compared(&|_| {});
    assert_eq!(status, Some(0), "{shown}");
    let slower = figure(report, "knee_edits_per_second") / 2.0;
    let (status, shown) = compared(&|it| it["figures"]["knee_edits_per_second"] = slower.into());
    assert!(status == Some(1) && shown.contains("WORSE"), "{shown}");
    let (status, shown) = compared(&|it| it["parameters"]["documents"] = 6.into());
    assert_eq!(status, Some(2));
    assert!(shown.contains("documents is 5 in A and 6 in B"), "{shown}");
}

#[test]
fn storm_brings_all_connections_back() {
    let server = Server::start("storm");
    let sizes = ["--sockets", "450", "--docs", "4", "--survivors", "4"];
    let times = ["--rate", "20", "--spread", "0.2", "--seconds", "1"];
    let arguments = [&["storm"], &sizes[..], &times[..]].concat();
    let (report, page) = server.load(&arguments);
    assert_complete(&report, &page);
    assert!(figure(&report, "all_back_seconds") > 0.0);
    let rows = report["tables"][0]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 3, "before, during, after");
}

#[test]
fn crowd_reports_viewers_and_other_documents_apart() {
    let server = Server::start("crowd");
    let crowd = ["--editors", "5", "--rate", "4", "--viewers", "20"];
    let others = ["--others", "3", "--others-rate", "10", "--seconds", "1"];
    let arguments = [&["crowd"], &crowd[..], &others[..]].concat();
    let (report, page) = server.load(&arguments);
    assert_complete(&report, &page);
    assert!(figure(&report, "viewers_delivery_p99_us") > 0.0);
    assert!(figure(&report, "others_ack_p99_us") > 0.0);
    assert_eq!(figure(&report, "dropped"), 0.0);
}

#[test]
fn soak_reports_slopes() {
    let server = Server::start("soak");
    let arguments = ["soak", "--rate", "50", "--docs", "5", "--seconds", "5"];
    let (report, page) = server.load(&arguments);
    assert_complete(&report, &page);
    figure(&report, "memory_slope_per_hour");
    figure(&report, "open_files_slope_per_hour");
}

#[test]
fn wrong_arguments_are_refused_with_a_reason() {
    for (arguments, reason) in [
        (
            &["ramp", "--from", "90", "--to", "50"][..],
            "--from 90 is above --to 50",
        ),
        (
            &["ramp", "--overload", "0.5"],
            "--overload 0.5 must be above 1, or 0 for none",
        ),
        (&["soak", "--rate", "0"], "must be above 0"),
        (&["soak", "--server-pid", "one"], "invalid digit"),
        (&["storm", "--sockets", "0"], "not a whole number from 1"),
        (&["storm", "--spread=-1"], "not a number from 0"),
        (&["crowd", "--editors", "many"], "not a whole number from 1"),
        (&["cluster"], "--store"),
        (
            &["cluster", "--store", "postgres://x/y"],
            "a cluster has several nodes",
        ),
        (&["compare", "a.json"], "<B>"),
        (
            &["compare", "/nowhere/a.json", "/nowhere/b.json"],
            "read /nowhere/a.json",
        ),
    ] {
        let output = Command::new(LOADTEST).args(arguments).output().unwrap();
        let shown = text(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {shown}");
        assert!(shown.contains(reason), "{arguments:?}: {shown}");
    }
}
