//! The picture of a run's course: rate, and percentiles of latency, over time.

use super::super::plot::{self, Panel, Scale, Series};
use super::report::Latency;
use super::timeline::{Course, Point};

/// A percentile's name, and where a latency has it.
type Percentile = (&'static str, fn(&Latency) -> f64);

fn rate(points: &[Point]) -> Panel {
    let one = |name, course: fn(&Point) -> Course| Series {
        name,
        values: points
            .iter()
            .map(|point| Some(course(point).rate_per_s))
            .collect(),
    };
    let mut series = vec![
        one("confirmed", |point| point.confirmed),
        one("delivered", |point| point.delivered),
    ];
    series.retain(|series| series.values.iter().flatten().any(|rate| *rate > 0.0));
    Panel {
        title: "rate, messages per second",
        series,
        scale: Scale::Linear,
    }
}

/// `None` if no latency was recorded.
fn latency(title: &'static str, points: &[Point], course: fn(&Point) -> Course) -> Option<Panel> {
    let percentiles: [Percentile; 4] = [
        ("p50", |latency| latency.p50),
        ("p99", |latency| latency.p99),
        ("p99.9", |latency| latency.p999),
        ("max", |latency| latency.max),
    ];
    let series: Vec<Series> = percentiles
        .into_iter()
        .map(|(name, percentile)| Series {
            name,
            values: points
                .iter()
                .map(|point| course(point).latency_us.as_ref().map(percentile))
                .collect(),
        })
        .collect();
    let any = series
        .iter()
        .any(|series| series.values.iter().any(Option::is_some));
    any.then_some(Panel {
        title,
        series,
        scale: Scale::Time,
    })
}

/// The whole picture. `notes` says what was measured.
pub(super) fn svg(title: &str, notes: &str, points: &[Point]) -> String {
    let mut panels = vec![rate(points)];
    panels.extend(latency("latency to the RECEIPT", points, |point| point.confirmed));
    panels.extend(latency("latency to the delivery", points, |point| {
        point.delivered
    }));
    let moments_s: Vec<f64> = points.iter().map(|point| point.at_s).collect();
    plot::svg(title, notes, &moments_s, &panels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(at_s: f64, rate_per_s: f64, p50: Option<f64>) -> Point {
        let latency_us = p50.map(|p50| Latency {
            p50,
            p90: p50,
            p99: 10.0 * p50,
            p999: 20.0 * p50,
            p9999: 20.0 * p50,
            max: 30.0 * p50,
        });
        let nothing = Course {
            rate_per_s: 0.0,
            latency_us: None,
        };
        Point {
            at_s,
            confirmed: Course {
                rate_per_s,
                latency_us,
            },
            delivered: nothing,
        }
    }

    #[test]
    fn a_picture_has_its_panels_its_lines_and_gaps_and_nothing_unescaped() {
        let points = [
            point(0.1, 1000.0, Some(200.0)),
            point(0.2, 0.0, None),
            point(0.3, 900.0, Some(300.0)),
        ];
        let picture = svg("a <b> & c", "8 producers", &points);
        assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
        assert!(picture.contains("a &lt;b&gt; &amp; c"));
        // One line of the rate, four percentiles to the RECEIPT; nothing was delivered.
        assert_eq!(picture.matches("<path").count(), 5);
        assert!(!picture.contains("delivery") && !picture.contains("NaN") && !picture.contains("inf"));
        // The gap begins its line anew.
        let p50 = picture.lines().rfind(|line| line.starts_with("<path")).unwrap();
        assert_eq!((p50.matches('M').count(), p50.matches('L').count()), (2, 0));
    }

    #[test]
    fn a_picture_of_nothing_is_one() {
        let picture = svg("empty", "", &[]);
        assert!(!picture.contains("NaN") && !picture.contains("inf"));
    }
}
