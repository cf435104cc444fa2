//! Prints the median times of apply, transform, compose and invert. `cargo test --release --test ot_bench -- --ignored --nocapture`

use std::hint::black_box;
use std::time::Instant;

use copydesk::ot::{Content, Kind, Op, Side};
use serde_json::json;

#[test]
#[ignore = "a measurement, not a check"]
fn medians() {
    for kind in Kind::ALL {
        println!("\n{}", kind.name());
        verbs(kind);
        let small = keystroke(kind, 1_000);
        let large = keystroke(kind, 1_000_000);
        println!(
            "  a keystroke in 1 MB takes {:.1} times as long as in 1 kB",
            large / small
        );
    }
}

fn verbs(kind: Kind) {
    let (a, b) = match kind {
        Kind::TextUnicode => (r#"[500,"a"]"#, r#"[300,"b",100,{"d":3}]"#),
        Kind::RichText => (
            r#"[{"retain":500},{"insert":"a"}]"#,
            r#"[{"retain":300},{"insert":"b"},{"retain":100},{"delete":3}]"#,
        ),
    };
    let (op, other) = (
        Op::parse(kind, a).expect("an op"),
        Op::parse(kind, b).expect("an op"),
    );
    let mut out = Vec::new();
    report("parse", || drop(black_box(Op::parse(kind, black_box(a)))));
    report("transform", || {
        drop(black_box(black_box(&op).transform(&other, Side::Left)))
    });
    report("compose", || {
        drop(black_box(black_box(&op).compose(&other)))
    });
    report("write", || {
        out.clear();
        black_box(&op).write_json(&mut out);
    });
    let (long, again) = (long_op(kind, 7), long_op(kind, 11));
    report("transform of 10,000 components over 10,000", || {
        drop(black_box(long.transform(&again, Side::Left)))
    });
    report("compose of 10,000 components with 10,000", || {
        drop(black_box(long.compose(&again)))
    });
}

fn long_op(kind: Kind, step: u64) -> Op {
    let (keep, insert) = match kind {
        Kind::TextUnicode => (json!(step), json!("x")),
        Kind::RichText => (json!({ "retain": step }), json!({ "insert": "x" })),
    };
    let components: Vec<_> = (0..10_000)
        .map(|at| if at % 2 == 0 { &keep } else { &insert })
        .collect();
    Op::parse(kind, &json!(components).to_string()).expect("an op")
}

/// The nanoseconds of keystrokes at positions all over a document of about this many bytes.
fn keystroke(kind: Kind, bytes: usize) -> f64 {
    let line = "The quick brown fox jumps over the lazy dog, as foxes do. ";
    let data = match kind {
        Kind::TextUnicode => json!(line.repeat(bytes / line.len())),
        Kind::RichText => {
            let bold = json!({"insert": line, "attributes": {"bold": true}});
            let plain = json!({"insert": line.repeat(3)});
            (0..bytes / line.len() / 4)
                .flat_map(|_| [bold.clone(), plain.clone()])
                .collect()
        }
    };
    let mut content = Content::create(kind, Some(&data.to_string())).expect("a content");
    let length = content.len();
    let ops: Vec<Op> = (0..1_000)
        .map(|at| {
            let at = 1 + at * 7_919 % (length - 1);
            let json = match kind {
                Kind::TextUnicode => json!([at, "x"]),
                Kind::RichText => json!([{"retain": at}, {"insert": "x"}]),
            };
            Op::parse(kind, &json.to_string()).expect("an op")
        })
        .collect();
    let mut next = ops.iter().cycle();
    let name = format!("keystroke in {} kB", bytes / 1_000);
    let alone = report(&name, || {
        content.apply(next.next().expect("ops")).expect("applies")
    });
    report(&format!("{name}, all of it shared with a snapshot"), || {
        let snapshot = content.clone();
        content.apply(next.next().expect("ops")).expect("applies");
        drop(black_box(snapshot));
    });
    report(&format!("clone of {} kB", bytes / 1_000), || {
        drop(black_box(content.clone()))
    });
    alone
}

/// Prints and returns the median nanoseconds of a run.
fn report(name: &str, mut run: impl FnMut()) -> f64 {
    let start = Instant::now();
    run();
    let rounds = (2_000_000 / (start.elapsed().as_nanos() as u64 + 100)).clamp(1, 1_000);
    let mut samples: Vec<f64> = (0..51)
        .map(|_| {
            let start = Instant::now();
            (0..rounds).for_each(|_| run());
            start.elapsed().as_nanos() as f64 / rounds as f64
        })
        .collect();
    samples.sort_by(f64::total_cmp);
    println!("  {name:45} {:>12.0} ns", samples[samples.len() / 2]);
    samples[samples.len() / 2]
}
