use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn merged_histograms_equal_one_that_recorded_everything() {
    let mut rng = fastrand::Rng::with_seed(7);
    let (mut parts, mut whole) = (
        [Latencies::default(), Latencies::default()],
        Latencies::default(),
    );
    for at in 0..10_000 {
        // The second part has values that are far out of the range of the first.
        let us = rng.u64(1..1_000) * if at % 2 == 0 { 1 } else { 100_000 };
        parts[at % 2].record(Duration::from_micros(us));
        whole.record(Duration::from_micros(us));
    }
    let mut merged = Latencies::default();
    parts.iter().for_each(|part| merged.merge(part));
    assert_eq!(merged.len(), whole.len());
    assert_eq!(merged.max_us(), whole.max_us());
    for quantile in [0.0, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0] {
        assert_eq!(merged.quantile_us(quantile), whole.quantile_us(quantile));
    }
}

#[test]
fn latency_counts_from_when_the_edit_was_due() {
    let mut stats = Stats {
        open: true,
        ..Stats::default()
    };
    let due = Instant::now();
    // The server stalled for a second: five edits were due meanwhile and left as one submit.
    let dues: Vec<_> = (0..5).map(|at| due + ms(200) * at).collect();
    stats.acked(&dues, due + ms(1_000));
    let counts = stats.take_window();
    assert_eq!((counts.submits, counts.acks.len()), (1, 5));
    assert!((999_000..=1_001_000).contains(&counts.acks.max_us()));
    assert!((599_000..=601_000).contains(&counts.acks.quantile_us(0.5)));
}

#[test]
fn nothing_is_counted_outside_the_measured_time() {
    let mut stats = Stats::default();
    let now = Instant::now();
    stats.acked(&[now], now);
    stats.delivered(Some(now), now);
    stats.made(now, now);
    stats.rejected();
    stats.received(9);
    let counts = stats.take_window();
    assert_eq!(counts.acks.len() + counts.deliveries.len(), 0);
    assert_eq!(counts.submits + counts.delivered, 0);
    assert_eq!(counts.rejected + counts.received, 0);
    assert_eq!(counts.lateness.len(), 0);
}

#[test]
fn distribution_rises_to_all_values() {
    let mut times = Latencies::default();
    assert!(times.distribution().is_empty());
    for at in 1..=1_000 {
        times.record(ms(at));
    }
    let points = times.distribution();
    assert!(
        points
            .windows(2)
            .all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1)
    );
    assert!(points.len() < 100, "{}", points.len());
    assert!((points.last().unwrap().0 - 1.0).abs() < 1e-9);
}
