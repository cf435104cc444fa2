use super::*;
use clap::Parser;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

fn options(arguments: &[&str]) -> Options {
    let line = ["ramp"].iter().chain(arguments);
    Line::try_parse_from(line).unwrap().options
}

fn counts(acks: u64, ms: u64, rejected: u64) -> Counts {
    let mut counts = Counts {
        submits: acks,
        rejected,
        ..Counts::default()
    };
    for _ in 0..acks {
        counts.acks.record(Duration::from_millis(ms));
    }
    counts
}

#[test]
fn each_bound_ends_the_ramp() {
    let options = options(&[]);
    let second = Duration::from_secs(1);
    let crossed =
        |acks, ms, rejected| options.crossed(1_000.0, second, &counts(acks, ms, rejected));
    assert_eq!(crossed(1_000, 20, 0), None);
    assert_eq!(crossed(1_000, 20, 1), None);
    assert_eq!(crossed(1_000, 150, 0).as_deref(), Some("ack p99 150 ms"));
    assert_eq!(crossed(950, 20, 50).as_deref(), Some("5.0 % refused"));
    let slow = "80.0 % of the edits acknowledged";
    assert_eq!(crossed(800, 20, 0).as_deref(), Some(slow));
}

#[test]
fn wrong_bounds_are_refused_with_a_reason() {
    for (arguments, reason) in [
        (["--factor", "1"], "must be above 1"),
        (["--from", "0"], "must be above 0"),
        (["--from", "fast"], "not a number"),
        (
            ["--rejected-share", "1.5"],
            "must be a share above 0 and at most 1",
        ),
        (["--docs", "0"], "not a whole number from 1 to 5000000"),
        (["--ack-p99-ms", "-3"], "unexpected argument"),
        (["--ack-p99-ms=nan", "--docs=1"], "not a number"),
        (
            ["--type", "markdown"],
            "known types are text-unicode and rich-text",
        ),
    ] {
        let line = ["ramp"].iter().chain(&arguments);
        let error = Line::try_parse_from(line).unwrap_err().to_string();
        assert!(error.contains(reason), "{arguments:?}: {error}");
    }
}
