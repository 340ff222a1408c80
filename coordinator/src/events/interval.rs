//! Explains a checkpoint interval that the core chose.

use std::time::Duration;

use whimbrel_core::{Bound, Interval};

/// The interval and its formula, for people: `auto: every 4m 10s = √(2 × 0.8 s × 10.9 h)`, the square root of twice the cost of
/// a checkpoint times the time between failures.
pub(super) fn explain(interval: Interval) -> String {
    let whole = Duration::from_secs(interval.every.as_secs_f64().round() as u64);
    let every = humantime::format_duration(whole);
    let Some(cost) = interval.cost else {
        return format!("auto: the first after {every}, to see what one costs");
    };
    let root = format!("√(2 × {} × {})", figure(cost), figure(interval.between_failures));
    match interval.bound {
        None => format!("auto: every {every} = {root}"),
        Some(Bound::SaveTakes) => {
            format!("auto: every {every}, as long as a save takes, which is more than {root}")
        }
        Some(Bound::Limit) => format!("auto: every {every}, the nearest allowed to {root}"),
    }
}

/// A duration with two or three digits and one unit.
fn figure(time: Duration) -> String {
    const UNITS: [(f64, &str); 4] = [(86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s")];
    let seconds = time.as_secs_f64();
    match UNITS.iter().find(|(unit, _)| seconds >= 2.0 * unit) {
        Some((unit, name)) => format!("{:.1} {name}", seconds / unit),
        None if seconds >= 0.1 => format!("{seconds:.1} s"),
        None => format!("{:.1} ms", seconds * 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_explains_itself() {
        let chosen = |bound, seconds, cost| {
            let (every, cost) = (Duration::from_secs_f64(seconds), Some(Duration::from_secs_f64(cost)));
            explain(Interval { every, cost, between_failures: Duration::from_secs(39_240), bound })
        };
        assert_eq!(chosen(None, 250.57, 0.8), "auto: every 4m 11s = √(2 × 0.8 s × 10.9 h)");
        assert_eq!(
            chosen(Some(Bound::SaveTakes), 900.0, 0.012),
            "auto: every 15m, as long as a save takes, which is more than √(2 × 12.0 ms × 10.9 h)"
        );
        assert_eq!(
            chosen(Some(Bound::Limit), 10.0, 0.0),
            "auto: every 10s, the nearest allowed to √(2 × 0.0 ms × 10.9 h)"
        );
        let every = Duration::from_secs(60);
        let first = Interval { every, cost: None, between_failures: every, bound: None };
        assert_eq!(explain(first), "auto: the first after 1m, to see what one costs");
    }

    #[test]
    fn figures_have_one_unit() {
        let figures = [0.0004, 0.25, 1.5, 100.0, 250.0, 7200.0, 1e6]
            .map(|seconds| figure(Duration::from_secs_f64(seconds)));
        assert_eq!(figures, ["0.4 ms", "0.2 s", "1.5 s", "100.0 s", "4.2 min", "2.0 h", "11.6 d"]);
    }
}
