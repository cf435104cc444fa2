use super::*;

fn recorded(figures: &[(&str, f64)]) -> Recorded {
    let figures: BTreeMap<_, _> = figures
        .iter()
        .map(|(key, value)| ((*key).to_owned(), *value))
        .collect();
    let better = figures
        .keys()
        .filter_map(|key| Some((key.clone(), Better::of(key)?)))
        .collect();
    Recorded {
        schema: Some(SCHEMA),
        scenario: "many".to_owned(),
        parameters: BTreeMap::from([
            ("seed".to_owned(), 1.into()),
            ("documents".to_owned(), 9.into()),
        ]),
        figures,
        better,
        fault_count: 0,
    }
}

fn regressed(key: &str, one: f64, two: f64) -> bool {
    let (a, b) = (recorded(&[(key, one)]), recorded(&[(key, two)]));
    compare(&a, &b, 0.25).unwrap().is_regression
}

#[test]
fn figure_is_worse_only_beyond_the_noise_band_and_in_its_direction() {
    for (key, one, two, expected) in [
        ("ops_per_second", 1_000.0, 810.0, false),
        ("ops_per_second", 1_000.0, 790.0, true),
        ("ops_per_second", 1_000.0, 9_000.0, false),
        ("ack_p50_us", 10_000.0, 12_400.0, false),
        ("ack_p50_us", 10_000.0, 12_600.0, true),
        ("ack_p50_us", 10_000.0, 1_000.0, false),
        // Twice the band for p99.
        ("ack_p99_us", 10_000.0, 14_900.0, false),
        ("ack_p99_us", 10_000.0, 15_100.0, true),
        // Below the timer's tick.
        ("ack_p50_us", 300.0, 1_200.0, false),
        ("ack_p50_us", 300.0, 1_400.0, true),
        ("server_cpu_us_per_op", 40.0, 60.0, true),
        // Not judged.
        ("ack_max_us", 10_000.0, 900_000.0, false),
        ("received_bytes", 10.0, 900_000.0, false),
    ] {
        assert_eq!(regressed(key, one, two), expected, "{key} {one} {two}");
    }
}

#[test]
fn missing_figures_new_refusals_and_faults_are_regressions() {
    let a = recorded(&[("knee_edits_per_second", 900.0)]);
    let without = compare(&a, &recorded(&[]), 0.25).unwrap();
    assert!(without.is_regression && without.table.contains("missing"));
    let refusing = recorded(&[
        ("knee_edits_per_second", 900.0),
        ("rejected_per_second", 5.0),
    ]);
    assert!(compare(&a, &refusing, 0.25).unwrap().is_regression);
    let faulty = Recorded {
        fault_count: 2,
        ..a.clone()
    };
    assert!(compare(&a, &faulty, 0.25).unwrap().is_regression);
    assert!(!compare(&a, &a, 0.25).unwrap().is_regression);
}

#[test]
fn runs_that_did_not_do_the_same_are_not_compared() {
    let a = recorded(&[("ops_per_second", 1.0)]);
    let refusal = |change: fn(&mut Recorded)| {
        let mut b = a.clone();
        change(&mut b);
        compare(&a, &b, 0.25).unwrap_err().to_string()
    };
    let other = refusal(|b| b.scenario = "hot".to_owned());
    assert_eq!(
        other,
        "A is a run of many and B of hot: only runs of one scenario are compared"
    );
    let larger = refusal(|b| drop(b.parameters.insert("documents".to_owned(), 10.into())));
    assert_eq!(
        larger,
        "the runs have different parameters: documents is 9 in A and 10 in B"
    );
    let more = refusal(|b| drop(b.parameters.insert("rate".to_owned(), 3.into())));
    assert_eq!(
        more,
        "the runs have different parameters: rate is nothing in A and 3 in B"
    );
    let mut reseeded = a.clone();
    reseeded.parameters.insert("seed".to_owned(), 2.into());
    assert!(compare(&a, &reseeded, 0.25).is_ok());
    let mut faulty = a.clone();
    faulty.fault_count = 1;
    assert!(compare(&faulty, &a, 0.25).is_err());
}

#[test]
fn files_that_are_no_reports_are_named() {
    let folder = std::env::temp_dir().join(format!("compare-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("report.json");
    let open = |json: &str| {
        std::fs::write(&file, json).unwrap();
        format!("{:#}", Recorded::open(&file).unwrap_err())
    };
    assert!(open("[]").contains("is not a report of copydesk-loadtest"));
    let old = r#"{"scenario":"hot","parameters":{},"figures":{},"fault_count":0}"#;
    assert!(open(old).ends_with("has schema none, this program reads 1"));
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(format!("{:#}", Recorded::open(&file).unwrap_err()).starts_with("read "));
}
