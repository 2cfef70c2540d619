//! The texts of ids, written and read. A text of another session or store is never mistaken for one of ours.
//!
//! Session id `STORE-EPOCH-SESSION`, message id `STORE-EPOCH-NUMBER`, ack id `STORE-EPOCH-SESSION-TAG`.

use super::fields::number;
use crate::base::{Epoch, MessageId, SessionNo, Tag};

/// The session id: also the `session` header of CONNECTED, and what an ack id begins with.
pub(super) fn session_id(store: &str, epoch: Epoch, no: SessionNo) -> Box<str> {
    format!("{store}-{epoch}-{no}").into_boxed_str()
}

/// Writes what follows `STORE-` in a message id.
pub(super) fn write_message(message: MessageId, out: &mut Vec<u8>) {
    let (epoch, counter) = message.parts();
    write_number(u64::from(epoch.0), out);
    out.push(b'-');
    write_number(counter, out);
}

/// Writes a number in digits.
pub(super) fn write_number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Reads a message id.
pub(super) fn read_message(store: &str, text: &[u8]) -> Option<MessageId> {
    let rest = text.strip_prefix(store.as_bytes())?.strip_prefix(b"-")?;
    let mut parts = rest.splitn(2, |byte| *byte == b'-');
    let epoch = u32::try_from(number(parts.next()?)?).ok()?;
    MessageId::from_parts(Epoch(epoch), number(parts.next()?)?)
}

/// Reads an ack id.
pub(super) fn read_tag(session: &str, text: &[u8]) -> Option<Tag> {
    let rest = text.strip_prefix(session.as_bytes())?.strip_prefix(b"-")?;
    number(rest).map(Tag)
}
