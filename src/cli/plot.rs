//! An SVG of lines over time, in panels. By hand: some lines and texts need no library.

use std::fmt::Write;

use super::bench::{duration_text, grouped};

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

/// One line of a panel, with a value for each moment; a place without value is a gap.
#[derive(Debug)]
pub struct Series {
    /// Its name in the legend.
    pub name: &'static str,
    /// In the unit of the panel.
    pub values: Vec<Option<f64>>,
}

/// What the axis of a panel shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Numbers, from 0.
    Linear,
    /// Times in microseconds, which span orders of magnitude.
    Time,
}

/// Lines that share an axis.
#[derive(Debug)]
pub struct Panel {
    /// What it shows, with the unit.
    pub title: &'static str,
    /// At most four lines.
    pub series: Vec<Series>,
    /// Of its axis.
    pub scale: Scale,
}

impl Panel {
    fn values(&self) -> impl Iterator<Item = f64> {
        self.series
            .iter()
            .flat_map(|series| series.values.iter().flatten().copied())
    }

    fn label(&self, value: f64) -> String {
        match self.scale {
            // A power of ten has nothing behind its point.
            Scale::Time => duration_text(value).replace(".00", ""),
            Scale::Linear => grouped(value.round() as u64),
        }
    }

    /// The ends of the axis, and where it has lines.
    fn axis(&self) -> (f64, f64, Vec<f64>) {
        let top = self.values().fold(0.0, f64::max);
        if self.scale == Scale::Linear {
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

/// The whole picture. `notes` says what was measured, `moments_s` when, in seconds.
pub fn svg(title: &str, notes: &str, moments_s: &[f64], panels: &[Panel]) -> String {
    let height = HEAD_HEIGHT + PANEL_HEIGHT * panels.len() as f64 + FOOT_HEIGHT;
    let end_s = moments_s.last().map_or(1.0, |at_s| *at_s).max(1e-3);
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
            moments_s,
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

fn draw(out: &mut String, panel: &Panel, top: f64, moments_s: &[f64], x_of: &impl Fn(f64) -> f64) {
    let (low, high, ticks) = panel.axis();
    let y_of = |value: f64| {
        let value = match panel.scale {
            Scale::Time => value.max(0.1).log10(),
            Scale::Linear => value,
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
        for (at_s, value) in moments_s.iter().zip(&series.values) {
            match value {
                Some(value) => {
                    let (x, y) = (x_of(*at_s), y_of(*value));
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
