//! The slope of a series of samples.

/// The slope of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Trend {
    /// The change in one hour, in the unit of the values.
    pub(crate) per_hour: f64,
    /// The change over the length of the series, as a share of the median value.
    pub(crate) share: f64,
}

impl Trend {
    /// The median of the slopes between all pairs of points (Theil and Sen's estimator): up to 29 % of the points may be
    /// outliers without an effect, such as the first samples after the start. `None` for fewer than three points.
    pub(crate) fn of(at_s: &[f64], values: &[f64]) -> Option<Self> {
        let points: Vec<_> = at_s.iter().zip(values).collect();
        if points.len() < 3 {
            return None;
        }
        let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
        for (index, (at, value)) in points.iter().enumerate() {
            for (later, other) in &points[index + 1..] {
                if *later > *at {
                    slopes.push((*other - *value) / (*later - *at));
                }
            }
        }
        let per_second = median(slopes)?;
        let middle = median(values.to_vec())?;
        let length = at_s.last()? - at_s.first()?;
        let change = per_second * length;
        Some(Self {
            per_hour: per_second * 3_600.0,
            share: if middle == 0.0 { 0.0 } else { change / middle },
        })
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    Some(if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trend(values: &[f64]) -> Trend {
        let at: Vec<_> = (0..values.len()).map(|at| at as f64).collect();
        Trend::of(&at, values).unwrap()
    }

    #[test]
    fn slope_of_a_line_is_found_in_spite_of_outliers() {
        let mut values: Vec<_> = (0..100).map(|at| 50.0 + 2.0 * f64::from(at)).collect();
        assert!((trend(&values).per_hour - 7_200.0).abs() < 1e-6);
        values[3] = 9_000.0;
        values[97] = 0.0;
        assert!((trend(&values).per_hour - 7_200.0).abs() < 100.0);
    }

    #[test]
    fn flat_series_has_no_slope() {
        let flat = trend(&[5.0, 5.0, 5.0, 5.0]);
        assert_eq!((flat.per_hour, flat.share), (0.0, 0.0));
        assert_eq!(Trend::of(&[0.0, 1.0], &[1.0, 2.0]), None);
    }
}
