//! An SVG of a run's course: rate, and percentiles of latency, over time. By hand: some lines and texts need no library.

use std::fmt::Write;

use super::report::{Latency, duration_text, grouped};
use super::timeline::{Course, Point};

const WIDTH: f64 = 960.0;
const PANEL_HEIGHT: f64 = 220.0;
const HEAD_HEIGHT: f64 = 56.0;
const FOOT_HEIGHT: f64 = 36.0;
/// Space of the axis on the left, of the legend on the right, and above and below within a panel.
const LEFT: f64 = 90.0;
const RIGHT: f64 = 110.0;
const ABOVE: f64 = 26.0;
const BELOW: f64 = 12.0;

/// By series, with the width of its line. A later one is drawn below, and wider: where they coincide all are seen.
const STROKES: [(&str, f64); 4] = [
    ("#1f6f8b", 1.5),
    ("#d1495b", 3.0),
    ("#d9902f", 5.0),
    ("#c4c4cc", 7.0),
];

/// One line of a panel; a place without value is a gap.
struct Series {
    name: &'static str,
    values: Vec<Option<f64>>,
}

/// A percentile's name, and where a latency has it.
type Percentile = (&'static str, fn(&Latency) -> f64);

struct Panel {
    title: &'static str,
    series: Vec<Series>,
    /// Latency spans orders of magnitude; a rate begins at 0.
    logarithmic: bool,
}

impl Panel {
    fn rate(points: &[Point]) -> Self {
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
        Self {
            title: "rate, messages per second",
            series,
            logarithmic: false,
        }
    }

    /// `None` if no latency was recorded.
    fn latency(title: &'static str, points: &[Point], course: fn(&Point) -> Course) -> Option<Self> {
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
        any.then_some(Self {
            title,
            series,
            logarithmic: true,
        })
    }

    fn values(&self) -> impl Iterator<Item = f64> {
        self.series
            .iter()
            .flat_map(|series| series.values.iter().flatten().copied())
    }

    fn label(&self, value: f64) -> String {
        if self.logarithmic {
            // A power of ten has nothing behind its point.
            duration_text(value).replace(".00", "")
        } else {
            grouped(value.round() as u64)
        }
    }

    /// The ends of the axis, and where it has lines.
    fn axis(&self) -> (f64, f64, Vec<f64>) {
        let top = self.values().fold(0.0, f64::max);
        if !self.logarithmic {
            let step = round_step(top / 4.0);
            let end = (top / step).ceil().max(1.0);
            let ticks = (0..=end as u32).map(|number| f64::from(number) * step).collect();
            return (0.0, end * step, ticks);
        }
        let low = self
            .values()
            .fold(f64::INFINITY, f64::min)
            .max(0.1)
            .log10()
            .floor();
        let high = top.max(0.2).log10().ceil().max(low + 1.0);
        let ticks = (low as i32..=high as i32)
            .map(|power| 10_f64.powi(power))
            .collect();
        (low, high, ticks)
    }
}

/// The smallest of 1, 2 or 5 times a power of ten that is at least `least`.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(1e-3).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|step| *step >= least)
        .unwrap_or(10.0 * power)
}

/// The whole picture. `notes` says what was measured.
pub(super) fn svg(title: &str, notes: &str, points: &[Point]) -> String {
    let mut panels = vec![Panel::rate(points)];
    panels.extend(Panel::latency("latency to the RECEIPT", points, |point| {
        point.confirmed
    }));
    panels.extend(Panel::latency("latency to the delivery", points, |point| {
        point.delivered
    }));
    let height = HEAD_HEIGHT + PANEL_HEIGHT * panels.len() as f64 + FOOT_HEIGHT;
    let end_s = points.last().map_or(1.0, |point| point.at_s).max(1e-3);
    let x_of = |at_s: f64| LEFT + at_s / end_s * (WIDTH - LEFT - RIGHT);

    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    text(&mut out, LEFT, 24.0, "start", "font-size=\"16\"", title);
    text(&mut out, LEFT, 42.0, "start", "fill=\"#666\"", notes);
    for (number, panel) in panels.iter().enumerate() {
        draw(
            &mut out,
            panel,
            HEAD_HEIGHT + PANEL_HEIGHT * number as f64,
            points,
            &x_of,
        );
    }
    let step = round_step(end_s / 10.0);
    let mut at_s = 0.0;
    while at_s <= end_s * 1.0001 {
        let y = height - FOOT_HEIGHT + 14.0;
        text(
            &mut out,
            x_of(at_s),
            y,
            "middle",
            "",
            &format!("{} s", (at_s * 1000.0).round() / 1000.0),
        );
        at_s += step;
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, panel: &Panel, top: f64, points: &[Point], x_of: &impl Fn(f64) -> f64) {
    let (low, high, ticks) = panel.axis();
    let y_of = |value: f64| {
        let value = if panel.logarithmic {
            value.max(0.1).log10()
        } else {
            value
        };
        let part = ((value - low) / (high - low)).clamp(0.0, 1.0);
        top + PANEL_HEIGHT - BELOW - part * (PANEL_HEIGHT - ABOVE - BELOW)
    };
    text(
        out,
        LEFT,
        top + ABOVE - 10.0,
        "start",
        "font-weight=\"bold\"",
        panel.title,
    );
    for tick in ticks {
        let y = y_of(tick);
        let end = WIDTH - RIGHT;
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{end}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>"
        );
        text(
            out,
            LEFT - 8.0,
            y + 4.0,
            "end",
            "fill=\"#666\"",
            &panel.label(tick),
        );
    }
    let series: Vec<_> = panel.series.iter().enumerate().zip(STROKES).collect();
    for ((number, series), (colour, width)) in series.into_iter().rev() {
        let mut path = String::new();
        let mut pen = 'M';
        for (point, value) in points.iter().zip(&series.values) {
            match value {
                Some(value) => {
                    let (x, y) = (x_of(point.at_s), y_of(*value));
                    // A place between two gaps is a dot.
                    let dot = if pen == 'M' { "h0" } else { "" };
                    let _ = write!(path, "{pen}{x:.1} {y:.1}{dot}");
                    pen = 'L';
                }
                None => pen = 'M',
            }
        }
        let _ = writeln!(
            out,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" stroke-linecap=\"round\" stroke-linejoin=\"round\"/>"
        );
        let y = top + ABOVE + 16.0 * number as f64 + 8.0;
        text(out, WIDTH - RIGHT + 34.0, y, "start", "", series.name);
        let (x, y) = (WIDTH - RIGHT + 10.0, y - 4.0);
        let _ = writeln!(
            out,
            "<line x1=\"{x}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
            x + 18.0
        );
    }
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, style: &str, words: &str) {
    let words = words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {style}>{words}</text>"
    );
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

    #[test]
    fn steps_are_round() {
        for (least, step) in [
            (0.9, 1.0),
            (1.1, 2.0),
            (2.1, 5.0),
            (51.0, 100.0),
            (23_000.0, 50_000.0),
        ] {
            assert!((round_step(least) - step).abs() < 1e-9, "{least}");
        }
    }
}
