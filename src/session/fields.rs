//! The headers of a frame that the session reads, and those that belong to the broker.

use memchr::memchr;

use super::dialect;
use super::error::{Cause, Violation};
use super::rules::Rules;
use crate::wire::{DecodeError, Escapes, Frame, Header, Headers, Part, check, escape, unescape};

/// The raw values of the headers that have a meaning in some client frame. Of repeated headers the first counts.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    pub(super) destination: Option<&'a [u8]>,
    pub(super) id: Option<&'a [u8]>,
    pub(super) ack: Option<&'a [u8]>,
    pub(super) message_id: Option<&'a [u8]>,
    pub(super) subscription: Option<&'a [u8]>,
    pub(super) transaction: Option<&'a [u8]>,
    pub(super) receipt: Option<&'a [u8]>,
    pub(super) persistent: Option<&'a [u8]>,
    pub(super) reply_to: Option<&'a [u8]>,
    pub(super) expires: Option<&'a [u8]>,
    pub(super) requeue: Option<&'a [u8]>,
    pub(super) delay: Option<&'a [u8]>,
    pub(super) reason: Option<&'a [u8]>,
    pub(super) ack_timeout: Option<&'a [u8]>,
    pub(super) expiration: Option<&'a [u8]>,
    pub(super) ttl: Option<&'a [u8]>,
    pub(super) dedup_id: Option<&'a [u8]>,
    pub(super) amq_dupl_id: Option<&'a [u8]>,
    pub(super) nats_msg_id: Option<&'a [u8]>,
    pub(super) priority: Option<&'a [u8]>,
    pub(super) scheduled_delay: Option<&'a [u8]>,
    pub(super) scheduled_time: Option<&'a [u8]>,
    pub(super) scheduled_period: Option<&'a [u8]>,
    pub(super) scheduled_repeat: Option<&'a [u8]>,
    pub(super) scheduled_cron: Option<&'a [u8]>,
    pub(super) x_delay: Option<&'a [u8]>,
    pub(super) deliver_after: Option<&'a [u8]>,
    pub(super) group_id: Option<&'a [u8]>,
    pub(super) message_group: Option<&'a [u8]>,
    pub(super) group_seq: Option<&'a [u8]>,
    /// A producer's own; only its presence matters.
    pub(super) sender_message_id: Option<&'a [u8]>,
    /// Of a SEND: there may be headers of other brokers.
    pub(super) foreign: bool,
}

impl<'a> Fields<'a> {
    /// Reads all headers, and checks each, known or not: UTF-8, and the escapes that the version has.
    pub(super) fn read(frame: &Frame<'a>, rules: &Rules) -> Result<Self, DecodeError> {
        if rules.utf8 && std::str::from_utf8(frame.head).is_err() {
            return Err(DecodeError::NotUtf8);
        }
        let escapes = rules.escapes();
        let escaped = escapes != Escapes::None && memchr(b'\\', frame.head).is_some();
        let mut fields = Self::default();
        let send = frame.command == b"SEND";
        for header in frame.headers() {
            let Header { name, value } = header?;
            if escaped {
                check(escapes, name)?;
                check(escapes, value)?;
            }
            // No name here has a character that could be escaped, so the raw name is the name.
            let field = match name {
                b"destination" => &mut fields.destination,
                b"id" => &mut fields.id,
                b"ack" => &mut fields.ack,
                b"message-id" => &mut fields.message_id,
                b"subscription" => &mut fields.subscription,
                b"transaction" => &mut fields.transaction,
                b"receipt" => &mut fields.receipt,
                b"persistent" => &mut fields.persistent,
                b"reply-to" => &mut fields.reply_to,
                b"expires" => &mut fields.expires,
                b"requeue" => &mut fields.requeue,
                b"delay" => &mut fields.delay,
                b"reason" => &mut fields.reason,
                b"ack-timeout" => &mut fields.ack_timeout,
                b"expiration" => &mut fields.expiration,
                b"ttl" => &mut fields.ttl,
                b"dedup-id" => &mut fields.dedup_id,
                b"_AMQ_DUPL_ID" => &mut fields.amq_dupl_id,
                b"Nats-Msg-Id" => &mut fields.nats_msg_id,
                b"priority" => &mut fields.priority,
                b"AMQ_SCHEDULED_DELAY" => &mut fields.scheduled_delay,
                b"AMQ_SCHEDULED_TIME" => &mut fields.scheduled_time,
                b"AMQ_SCHEDULED_PERIOD" => &mut fields.scheduled_period,
                b"AMQ_SCHEDULED_REPEAT" => &mut fields.scheduled_repeat,
                b"AMQ_SCHEDULED_CRON" => &mut fields.scheduled_cron,
                b"x-delay" => &mut fields.x_delay,
                b"deliver-after" => &mut fields.deliver_after,
                b"JMSXGroupID" => &mut fields.group_id,
                b"message_group" => &mut fields.message_group,
                b"JMSXGroupSeq" => &mut fields.group_seq,
                b"sender-message-id" => &mut fields.sender_message_id,
                name => {
                    fields.foreign |= send && dialect::may_be_known(name);
                    continue;
                }
            };
            field.get_or_insert(value);
        }
        fields.foreign |= fields.expiration.is_some();
        Ok(fields)
    }
}

/// A header that the command needs.
pub(super) fn required<'a>(value: Option<&'a [u8]>, header: &'static str) -> Result<&'a [u8], Cause> {
    value.ok_or(Cause::Violation(Violation::HeaderMissing { header }))
}

/// The `receipt` of a frame that may be faulty or cut short, as `receipt-id` of the ERROR, escaped.
pub(super) fn receipt_of(headers: Headers<'_>, escapes: Escapes) -> Option<Vec<u8>> {
    let header = headers
        .filter_map(Result::ok)
        .find(|header| header.name == b"receipt")?;
    let text = unescape(escapes, header.value).ok()?;
    if escapes != Escapes::None && std::str::from_utf8(&text).is_err() {
        return None;
    }
    let mut escaped = Vec::with_capacity(text.len());
    escape(escapes, Part::Value, &text, &mut escaped);
    Some(escaped)
}

/// A non-negative integer in digits only; what is too large for us counts as the largest.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0_u64, |sum, digit| {
        sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
    }))
}

impl Fields<'_> {
    /// `ack-timeout`: seconds, with decimals or without (as ocamlmq has it), in milliseconds.
    pub(super) fn ack_timeout_ms(&self) -> Result<Option<u64>, Violation> {
        let invalid = Violation::HeaderInvalid {
            header: "ack-timeout",
        };
        self.ack_timeout
            .map(|text| seconds(text).ok_or(invalid))
            .transpose()
    }
}

/// Seconds, with decimals or without, in milliseconds; a part of one counts as a whole one, so that some time stays some.
fn seconds(text: &[u8]) -> Option<u64> {
    let (whole, part) = match text.iter().position(|byte| *byte == b'.') {
        Some(at) => (text.get(..at)?, text.get(at + 1..)?),
        None => (text, &b"0"[..]),
    };
    let (whole, _) = (number(whole)?, number(part)?);
    let digit = |at: usize| u64::from(part.get(at).map_or(0, |digit| digit - b'0'));
    let rest = part
        .get(3..)
        .unwrap_or_default()
        .iter()
        .any(|digit| *digit != b'0');
    let ms = digit(0) * 100 + digit(1) * 10 + digit(2) + u64::from(rest);
    Some(whole.saturating_mul(1_000).saturating_add(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_decimals() {
        for (text, ms) in [
            ("0", 0),
            ("30", 30_000),
            ("0.5", 500),
            ("1.25", 1_250),
            ("2.0001", 2_001),
            ("0.0000", 0),
        ] {
            assert_eq!(seconds(text.as_bytes()), Some(ms), "{text}");
        }
        for text in ["", ".", "1.", ".5", "-1", "1e3", "1.5s", "1.2.3", " 1"] {
            assert_eq!(seconds(text.as_bytes()), None, "{text}");
        }
        assert_eq!(seconds(b"99999999999999999999999"), Some(u64::MAX));
    }
}
