//! SEND: from a frame to the stored form of a message.

use std::borrow::Cow;

use bytes::Bytes;
use memchr::{memchr, memchr3};

use super::dialect;
use super::error::{Cause, Violation};
use super::fields::{Fields, number, required};
use super::ids::write_number;
use super::rules::Rules;
use super::schedule::times;
use super::temporary;
use crate::base::{Destination, DestinationKind, Dialect, Now, Settings, TxNo, Wildcards};
use crate::port::{PRIORITY_DEFAULT, PRIORITY_MAX, Payload, Request, Requests, Send, Span, Target, Terms};
use crate::wire::{DecodeError, Frame, Header, store, unescape};

/// From this size on a body is a buffer of its own, so that the core need not copy it.
pub(super) const SHARED_BYTES_MIN: usize = 64 * 1024;

const DESTINATION: &[u8] = b"destination:";

/// One destination of a SEND: a topic has no wildcards.
fn destination<'a>(text: &'a str, of: &Sender<'_>) -> Result<Destination<'a>, Violation> {
    let destination = dialect::destination(of.dialect, text, of.routing)?;
    if destination.kind == DestinationKind::Topic && Wildcards::of(destination.name) != Wildcards::None {
        return Err(Violation::BadWildcard);
    }
    Ok(destination)
}

/// What a SEND has besides its frame.
#[derive(Debug, Clone)]
pub(super) struct Sender<'a> {
    pub(super) tx: Option<TxNo>,
    /// The id of its session, to which temporary queues belong that it names by their own names.
    pub(super) session: &'a str,
    /// When it came.
    pub(super) now: Now,
    pub(super) dialect: Dialect,
    /// What a name without prefix is, if the frame says so.
    pub(super) routing: Option<DestinationKind>,
    /// What it declares of its queue.
    pub(super) declared: Option<Box<Settings>>,
    pub(super) dedup_id_bytes_max: usize,
    pub(super) group_bytes_max: usize,
    pub(super) schedule_period_ms_min: u64,
}

/// When a message expires: the earliest of what its headers say, of which 0 says never.
fn expires_at_ms(fields: &Fields<'_>, now: Now) -> Result<Option<u64>, Violation> {
    let mut earliest: Option<u64> = None;
    for (header, value, is_span) in [
        ("expires", fields.expires, false),
        ("expiration", fields.expiration, true),
        ("ttl", fields.ttl, true),
    ] {
        let Some(value) = value else { continue };
        let number = number(value).ok_or(Violation::HeaderInvalid { header })?;
        if number > 0 {
            let at = if is_span {
                now.wall_ms_after(number)
            } else {
                number
            };
            earliest = Some(earliest.map_or(at, |earliest| earliest.min(at)));
        }
    }
    Ok(earliest)
}

/// A priority; one above the highest counts as the highest.
fn priority(fields: &Fields<'_>) -> Result<u8, Violation> {
    let Some(value) = fields.priority else {
        return Ok(PRIORITY_DEFAULT);
    };
    let number = number(value).ok_or(Violation::HeaderInvalid { header: "priority" })?;
    Ok(number.min(u64::from(PRIORITY_MAX)) as u8)
}

/// The group that a message is of, by whichever name; an empty one is none.
fn group<'a>(fields: &Fields<'a>, rules: &Rules, bytes_max: usize) -> Result<Option<Cow<'a, [u8]>>, Cause> {
    let Some(value) = fields.group_id.or(fields.message_group) else {
        return Ok(None);
    };
    let value = unescape(rules.escapes(), value)?;
    if value.len() > bytes_max {
        return Err(Violation::GroupTooLong.into());
    }
    Ok(Some(value).filter(|value| !value.is_empty()))
}

/// The deduplication id, by whichever name.
fn dedup_id<'a>(
    fields: &Fields<'a>,
    rules: &Rules,
    bytes_max: usize,
) -> Result<Option<Cow<'a, [u8]>>, Cause> {
    let mut id: Option<Cow<'a, [u8]>> = None;
    for (header, value) in [
        ("dedup-id", fields.dedup_id),
        ("_AMQ_DUPL_ID", fields.amq_dupl_id),
        ("Nats-Msg-Id", fields.nats_msg_id),
    ] {
        let Some(value) = value else { continue };
        let value = unescape(rules.escapes(), value)?;
        // An empty one would be the same for many messages, and all of them but one lost.
        if value.is_empty() || id.as_ref().is_some_and(|id| *id != value) {
            return Err(Violation::HeaderInvalid { header }.into());
        }
        if value.len() > bytes_max {
            return Err(Violation::DedupIdTooLong.into());
        }
        id = Some(value);
    }
    Ok(id)
}

/// Adds a SEND to the requests.
pub(super) fn send(
    requests: &mut Requests,
    frame: &Frame<'_>,
    fields: &Fields<'_>,
    rules: &Rules,
    of: Sender<'_>,
) -> Result<(), Cause> {
    let Sender {
        tx,
        session,
        now,
        dedup_id_bytes_max,
        ..
    } = of;
    let raw = required(fields.destination, "destination")?;
    let text = unescape(rules.escapes(), raw)?;
    let text = std::str::from_utf8(&text).map_err(|_| DecodeError::NotUtf8)?;
    let mut parts = Destination::parts(text);
    let Destination { kind, name } = destination(parts.next().unwrap_or_default(), &of)?;
    let also = parts.map(|part| {
        let Destination { kind, name } = destination(part, &of)?;
        let name = requests.push_bytes(temporary::known(session, part, name).as_bytes());
        Ok(Target { kind, name })
    });
    let also: Vec<Target> = also.collect::<Result<_, Violation>>()?;
    if let Some(settings) = of.declared.clone() {
        if kind != DestinationKind::Queue || !also.is_empty() {
            return Err(Violation::DeclarationMisplaced.into());
        }
        let name = requests.push_bytes(name.as_bytes());
        requests.list.push(Request::Declare { name, settings });
    }
    let persistent = match fields.persistent {
        None | Some(b"true") => true,
        Some(b"false") => false,
        Some(_) => return Err(Violation::HeaderInvalid { header: "persistent" }.into()),
    };
    let dedup = dedup_id(fields, rules, dedup_id_bytes_max)?.map(|id| requests.push_bytes(&id));
    // A destination that is stored as it came is named within the header block.
    let stored_name = match memchr3(b'\\', b':', b'\r', raw) {
        None if frame.body.len() < SHARED_BYTES_MIN
            && also.is_empty()
            && kind != DestinationKind::Temporary =>
        {
            None
        }
        _ => Some(requests.push_bytes(temporary::known(session, text, name).as_bytes())),
    };
    let (payload, header_len, start) = if frame.body.len() < SHARED_BYTES_MIN {
        let start = requests.arena.len();
        write_block(frame, fields, rules, raw, session, &mut requests.arena)?;
        let header_len = requests.arena.len() - start;
        requests.arena.extend_from_slice(frame.body);
        let len = requests.arena.len() - start;
        (
            Payload::Arena(Span {
                start: small(start),
                len: small(len),
            }),
            header_len,
            start,
        )
    } else {
        let mut bytes = Vec::with_capacity(frame.head.len() + frame.body.len() + 64);
        write_block(frame, fields, rules, raw, session, &mut bytes)?;
        let header_len = bytes.len();
        bytes.extend_from_slice(frame.body);
        (Payload::Shared(Bytes::from(bytes)), header_len, 0)
    };
    let name = stored_name.unwrap_or_else(|| Span {
        start: small(start + DESTINATION.len() + text.len() - name.len()),
        len: small(name.len()),
    });
    let group = group(fields, rules, of.group_bytes_max)?.map(|group| requests.push_bytes(&group));
    let (due_at_ms, repeat) = times(requests, fields, rules, now, of.schedule_period_ms_min)?;
    let terms = Terms {
        expires_at_ms: expires_at_ms(fields, now)?,
        ack_timeout_ms: fields.ack_timeout_ms()?,
        due_at_ms,
        repeat,
        priority: priority(fields)?,
        group,
        ends_group: group.is_some() && fields.group_seq == Some(b"-1"),
    };
    if terms.due_at_ms.is_some()
        && std::iter::once(&Target { kind, name })
            .chain(&also)
            .any(|to| to.kind == DestinationKind::Topic)
    {
        return Err(Violation::DelayMisplaced.into());
    }
    let send = Send {
        to: Target { kind, name },
        also,
        payload,
        header_len: small(header_len),
        persistent,
        terms,
        dedup,
        tx,
    };
    requests.list.push(Request::Send(send));
    Ok(())
}

fn small(len: usize) -> u32 {
    u32::try_from(len).expect("an arena stays under 4 GiB")
}

/// Writes the header block as it is stored: `destination`, the producer's headers in their order, `content-length`.
fn write_block(
    frame: &Frame<'_>,
    fields: &Fields<'_>,
    rules: &Rules,
    destination: &[u8],
    session: &str,
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let escapes = rules.escapes();
    let plain = frame.is_plain();
    out.extend_from_slice(DESTINATION);
    store(escapes, destination, out);
    out.push(b'\n');
    for header in frame.headers() {
        let Header { name, value } = header?;
        let name: &[u8] = match name {
            b"destination" | b"subscription" | b"ack" | b"redelivered" | b"delivery-count" | b"receipt"
            | b"transaction" | b"content-length" => continue,
            b"message-id" if fields.sender_message_id.is_some() => continue,
            b"message-id" => b"sender-message-id",
            b"reply-to" if temporary::write_reply_to(session, escapes, value, out) => continue,
            name => name,
        };
        if plain && memchr(b':', value).is_none() {
            out.extend_from_slice(name);
            out.push(b':');
            out.extend_from_slice(value);
        } else {
            store(escapes, name, out);
            out.push(b':');
            store(escapes, value, out);
        }
        out.push(b'\n');
    }
    out.extend_from_slice(b"content-length:");
    write_number(frame.body.len() as u64, out);
    out.push(b'\n');
    Ok(())
}
