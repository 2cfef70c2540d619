//! When a message comes: the headers of a SEND that delay it, or let it come again and again.
//!
//! # Not here
//! The times of a schedule: `base::schedule`. Whether they have come: `broker`.

use super::error::{Cause, Violation};
use super::fields::{Fields, number};
use super::rules::Rules;
use crate::base::{Cron, Now};
use crate::port::{Repeat, Requests};
use crate::wire::unescape;

const PERIOD: &str = "AMQ_SCHEDULED_PERIOD";
const REPEAT: &str = "AMQ_SCHEDULED_REPEAT";
const CRON: &str = "AMQ_SCHEDULED_CRON";

/// Before when a message is not delivered, and when it comes again.
pub(super) fn times(
    requests: &mut Requests,
    fields: &Fields<'_>,
    rules: &Rules,
    now: Now,
    period_ms_min: u64,
) -> Result<(Option<u64>, Option<Repeat>), Cause> {
    let due_at_ms = due_at_ms(fields, now)?;
    let period_ms = match fields.scheduled_period {
        None => 0,
        Some(value) => number(value).ok_or(Violation::HeaderInvalid { header: PERIOD })?,
    };
    let count = match fields.scheduled_repeat {
        None => Some(0),
        Some(value) => count(value).ok_or(Violation::HeaderInvalid { header: REPEAT })?,
    };
    if let Some(text) = fields.scheduled_cron {
        for (header, named) in [
            (PERIOD, period_ms > 0),
            (REPEAT, count != Some(0)),
            ("AMQ_SCHEDULED_DELAY", is_some(fields.scheduled_delay)),
            ("AMQ_SCHEDULED_TIME", is_some(fields.scheduled_time)),
            ("x-delay", is_some(fields.x_delay)),
            ("deliver-after", is_some(fields.deliver_after)),
        ] {
            if named {
                return Err(Violation::ScheduleConflict { header }.into());
            }
        }
        let text = unescape(rules.escapes(), text)?;
        let cron = std::str::from_utf8(&text).ok().and_then(Cron::parse);
        let first = cron.and_then(|cron| cron.next(now.wall_ms));
        let first = first.ok_or(Violation::HeaderInvalid { header: CRON })?;
        return Ok((Some(first), Some(Repeat::Cron(requests.push_bytes(&text)))));
    }
    if period_ms == 0 {
        return match count {
            Some(0) => Ok((due_at_ms, None)),
            _ => Err(Violation::ScheduleConflict { header: REPEAT }.into()),
        };
    }
    if period_ms < period_ms_min {
        return Err(Violation::PeriodTooShort.into());
    }
    let first = due_at_ms.unwrap_or(now.wall_ms_after(period_ms));
    let last_at_ms = count.map(|count| first.saturating_add(period_ms.saturating_mul(count)));
    let repeat = (count != Some(0)).then_some(Repeat::Every {
        period_ms,
        last_at_ms,
    });
    Ok((Some(first), repeat))
}

/// The latest of what the headers of a delay say.
fn due_at_ms(fields: &Fields<'_>, now: Now) -> Result<Option<u64>, Violation> {
    let mut latest: Option<u64> = None;
    for (header, value, span_unit_ms) in [
        ("AMQ_SCHEDULED_TIME", fields.scheduled_time, None),
        ("AMQ_SCHEDULED_DELAY", fields.scheduled_delay, Some(1)),
        ("x-delay", fields.x_delay, Some(1)),
        ("deliver-after", fields.deliver_after, Some(1_000)),
    ] {
        let Some(value) = value else { continue };
        let number = number(value).ok_or(Violation::HeaderInvalid { header })?;
        if number > 0 {
            let at = span_unit_ms.map_or(number, |unit_ms| {
                now.wall_ms_after(number.saturating_mul(unit_ms))
            });
            latest = latest.max(Some(at));
        }
    }
    Ok(latest.filter(|at| *at > now.wall_ms))
}

/// Whether a number asks for anything.
fn is_some(value: Option<&[u8]>) -> bool {
    value.and_then(number).is_some_and(|number| number > 0)
}

/// How often a message comes again: `Some(None)` for ever. `None` for no number.
fn count(text: &[u8]) -> Option<Option<u64>> {
    match text.strip_prefix(b"-") {
        Some(digits) => match number(digits)? {
            0 => Some(Some(0)),
            _ => Some(None),
        },
        None => number(text).map(Some),
    }
}
