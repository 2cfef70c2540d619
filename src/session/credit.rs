//! The headers of SUBSCRIBE that say how many messages may be on their way: what each form of them asks for.

use super::error::Violation;
use super::fields::number;
use crate::base::Limits;
use crate::port::Credit;

/// How a value is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Messages; 0 is pull.
    Messages,
    /// Messages; 0 is no bound, but `prefetch_count_max`.
    MessagesOrAll,
    /// Bytes; 0 is one message at a time, -1 is no bound, but `prefetch_count_max`.
    Bytes,
    /// Apollo's `messages,bytes`: whichever lets more through. Without bytes they are 0; 0 of both is pull.
    Both,
}

/// What a value asks for.
pub(super) fn read(
    form: Form,
    header: &'static str,
    value: &[u8],
    limits: &Limits,
) -> Result<Credit, Violation> {
    let count_max = limits.prefetch_count_max;
    let invalid = Violation::HeaderInvalid { header };
    let messages = |text: &[u8]| {
        let count = number(text).ok_or(invalid)?;
        let count = u32::try_from(count).ok().filter(|count| *count <= count_max);
        count.ok_or(Violation::PrefetchTooHigh)
    };
    Ok(match form {
        Form::Messages | Form::MessagesOrAll => match messages(value)? {
            0 if form == Form::Messages => Credit::Pull,
            0 => Credit::count(count_max),
            count => Credit::count(count),
        },
        Form::Bytes if value == b"-1" => Credit::count(count_max),
        Form::Bytes => match number(value).ok_or(invalid)? {
            0 => Credit::count(1),
            bytes => Credit::Window { count: 0, bytes },
        },
        Form::Both => {
            let mut parts = value.split(|byte| *byte == b',');
            let count = messages(parts.next().unwrap_or_default())?;
            let bytes = parts.next().map_or(Some(0), number).ok_or(invalid)?;
            match (count, bytes) {
                _ if parts.next().is_some() => return Err(invalid),
                (0, 0) => Credit::Pull,
                (count, bytes) => Credit::Window { count, bytes },
            }
        }
    })
}
