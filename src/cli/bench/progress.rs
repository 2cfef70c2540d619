//! How far a run is, on standard error: a bar on a terminal, else a line now and then.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::report::grouped;

/// Between two lines where there is no terminal.
const LINE_NS: u64 = 5_000_000_000;
const BAR_WIDTH: usize = 20;

/// What a run goes towards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Goal {
    /// So many messages.
    Count(u64),
    /// The end of a time.
    Time(Duration),
    /// Nobody knows.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Bar,
    Lines,
    Nothing,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Progress {
    name: &'static str,
    goal: Goal,
    form: Form,
    line_ns: u64,
    last: (u64, u64),
}

impl Progress {
    pub(super) fn new(name: &'static str, goal: Goal, silent: bool) -> Self {
        let form = match (silent, std::io::stderr().is_terminal()) {
            (true, _) => Form::Nothing,
            (false, true) => Form::Bar,
            (false, false) => Form::Lines,
        };
        Self {
            name,
            goal,
            form,
            line_ns: LINE_NS,
            last: (0, 0),
        }
    }

    /// `done_count` is what counts towards a goal of messages, and what the rate is of.
    pub(super) fn show(&mut self, elapsed_ns: u64, done_count: u64) {
        // Progress that cannot be shown is no reason to fail.
        match self.form {
            Form::Bar => {
                let _ = write!(std::io::stderr(), "\r{}\x1b[K", self.text(elapsed_ns, done_count));
            }
            Form::Lines if elapsed_ns >= self.line_ns => {
                self.line_ns = elapsed_ns + LINE_NS;
                let _ = writeln!(std::io::stderr(), "{}", self.text(elapsed_ns, done_count));
            }
            Form::Lines => return,
            Form::Nothing => {}
        }
        self.last = (elapsed_ns, done_count);
    }

    pub(super) fn clear(&self) {
        if self.form == Form::Bar {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    fn text(&self, elapsed_ns: u64, done_count: u64) -> String {
        let seconds = elapsed_ns as f64 / 1e9;
        let part = match self.goal {
            Goal::Count(count) => Some(done_count as f64 / count.max(1) as f64),
            Goal::Time(time) => Some(seconds / time.as_secs_f64().max(1e-9)),
            Goal::Unknown => None,
        };
        let name = self.name;
        let bar = part.map_or_else(String::new, |part| {
            let part = part.clamp(0.0, 1.0);
            let full = (part * BAR_WIDTH as f64) as usize;
            let (full, rest) = ("#".repeat(full), ".".repeat(BAR_WIDTH - full));
            format!(" [{full}{rest}] {:3.0} %", part * 100.0)
        });
        let since_s = elapsed_ns.saturating_sub(self.last.0) as f64 / 1e9;
        let rate = done_count.saturating_sub(self.last.1) as f64 / since_s.max(1e-9);
        let (done, rate) = (grouped(done_count), grouped(rate as u64));
        format!("{name}{bar} {seconds:6.1} s  {done} messages  {rate} msg/s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_follows_the_goal_and_stays_within_its_bounds() {
        let text =
            |goal, elapsed_ns, done_count| Progress::new("publish", goal, true).text(elapsed_ns, done_count);
        assert_eq!(
            text(Goal::Count(2_000), 2_000_000_000, 1_000),
            "publish [##########..........]  50 %    2.0 s  1,000 messages  500 msg/s"
        );
        assert_eq!(
            text(Goal::Time(Duration::from_secs(1)), 2_000_000_000, 0),
            "publish [####################] 100 %    2.0 s  0 messages  0 msg/s"
        );
        assert_eq!(
            text(Goal::Unknown, 500_000_000, 10),
            "publish    0.5 s  10 messages  20 msg/s"
        );
    }
}
