//! Schedules: messages that come again and again.
//!
//! # Not here
//! What becomes of an occurrence: `broker::schedule`. Reading the headers: `session::send`.

use chrono::{DateTime, Utc};
use croner::parser::{CronParser, Seconds, Year};

/// The times at which a message comes again.
#[derive(Debug, Clone)]
pub enum Schedule {
    /// One every so often.
    Every {
        /// From one to the next, in milliseconds; not 0.
        period_ms: u64,
        /// The last, in milliseconds since the Unix epoch; `None`: there is no last one.
        last_at_ms: Option<u64>,
    },
    /// Those that a cron expression names.
    Cron(Cron),
}

impl Schedule {
    /// The next time behind the one that has come, in milliseconds since the Unix epoch; `None` if that was the last. Of a
    /// schedule that ends by a count every time is given, however late; of one that goes on, only one that is still to come at
    /// `now_ms`.
    pub fn next(&self, came_at_ms: u64, now_ms: u64) -> Option<u64> {
        match self {
            Self::Every {
                period_ms,
                last_at_ms: Some(last),
            } => came_at_ms.checked_add(*period_ms).filter(|next| next <= last),
            Self::Every {
                period_ms,
                last_at_ms: None,
            } => {
                let missed = now_ms.saturating_sub(came_at_ms) / period_ms;
                period_ms
                    .checked_mul(missed + 1)
                    .and_then(|ms| came_at_ms.checked_add(ms))
            }
            Self::Cron(cron) => cron.next(came_at_ms.max(now_ms)),
        }
    }
}

/// A cron expression of five fields, in UTC.
#[derive(Debug, Clone)]
pub struct Cron(Box<croner::Cron>);

impl Cron {
    /// The longest expression that is read.
    pub const TEXT_BYTES_MAX: usize = 255;

    /// Reads minute, hour, day of the month, month and day of the week: numbers, names, `*`, lists, ranges, steps; and `L`, `W`, `#`
    /// and `?` as others have them. Where both days are named, either makes a match. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let known = |c: char| c.is_ascii_alphanumeric() || " \t*,-/#?".contains(c);
        if text.len() > Self::TEXT_BYTES_MAX || !text.chars().all(known) {
            return None;
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        parser.parse(text).ok().map(|cron| Self(Box::new(cron)))
    }

    /// The first time behind this one, in milliseconds since the Unix epoch; `None` where no day is like that.
    pub fn next(&self, behind_ms: u64) -> Option<u64> {
        let behind = i64::try_from(behind_ms).ok()?;
        let behind = DateTime::<Utc>::from_timestamp_millis(behind)?;
        let next = self.0.find_next_occurrence(&behind, false).ok()?;
        u64::try_from(next.timestamp_millis())
            .ok()
            .filter(|next| *next > behind_ms)
    }
}

#[cfg(test)]
mod tests;
