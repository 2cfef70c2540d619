//! Temporary queues: private to a connection, gone with it.
//!
//! A client names its own `/temp-queue/NAME`; the broker tells others `/reply-queue/SESSION/NAME`, in the `reply-to` of what
//! the client sends. ActiveMQ's clients SUBSCRIBE to theirs; RabbitMQ's only name it in `reply-to`, and get the replies under
//! the subscription `/temp-queue/NAME`.

use std::borrow::Cow;

use memchr::memchr;

use super::error::{Cause, Violation};
use super::fields::Fields;
use super::rules::Rules;
use super::subscribe::{Key, Of};
use super::{Session, dialect};
use crate::base::{Destination, DestinationKind, REPLY_PREFIX, TEMPORARY_PREFIX};
use crate::port::{AckMode, Binding, Credit, Request, Subscribe};
use crate::wire::{DecodeError, Escapes, store, unescape};

/// The name, without prefix, by which all know what is called `name` in `text`.
pub(super) fn known<'a>(session: &str, text: &str, name: &'a str) -> Cow<'a, str> {
    match text.starts_with(TEMPORARY_PREFIX) {
        true => Cow::Owned(format!("{session}/{name}")),
        false => Cow::Borrowed(name),
    }
}

/// Writes a `reply-to` that names a temporary queue of this session as others know it; false for any other.
pub(super) fn write_reply_to(session: &str, escapes: Escapes, raw: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(name) = raw.strip_prefix(TEMPORARY_PREFIX.as_bytes()) else {
        return false;
    };
    out.extend_from_slice(b"reply-to:");
    out.extend_from_slice(REPLY_PREFIX.as_bytes());
    out.extend_from_slice(session.as_bytes());
    out.push(b'/');
    store(escapes, name, out);
    out.push(b'\n');
    true
}

impl Session {
    /// A SEND to a temporary queue of this session needs a subscription to it: nobody else could take the message.
    pub(super) fn check_own(&self, fields: &Fields<'_>, rules: &Rules) -> Result<(), Cause> {
        let Some(raw) = fields.destination else {
            return Ok(());
        };
        if !raw.starts_with(TEMPORARY_PREFIX.as_bytes()) && memchr(b',', raw).is_none() {
            return Ok(());
        }
        let text = unescape(rules.escapes(), raw)?;
        let text = std::str::from_utf8(&text).map_err(|_| DecodeError::NotUtf8)?;
        for part in Destination::parts(text) {
            if let Some(name) = part.strip_prefix(TEMPORARY_PREFIX)
                && self.subscriptions.of_temporary(name).is_none()
            {
                return Err(Violation::TemporaryUnknown.into());
            }
        }
        Ok(())
    }

    /// A SEND with a temporary queue of this session in `reply-to`: if nothing is subscribed to it, replies will come under its
    /// own name.
    pub(super) fn expect_replies(&mut self, fields: &Fields<'_>, rules: &Rules) -> Result<(), Cause> {
        let Some(raw) = fields
            .reply_to
            .filter(|raw| raw.starts_with(TEMPORARY_PREFIX.as_bytes()))
        else {
            return Ok(());
        };
        let text = unescape(rules.escapes(), raw)?;
        let text = std::str::from_utf8(&text).map_err(|_| DecodeError::NotUtf8)?;
        let name = text.strip_prefix(TEMPORARY_PREFIX).unwrap_or_default();
        if name.is_empty() || Destination::parts(text).nth(1).is_some() {
            return Err(Violation::HeaderInvalid { header: "reply-to" }.into());
        }
        if self.subscriptions.of_temporary(name).is_some() {
            return Ok(());
        }
        let key = Key::Id(text.as_bytes().into());
        let of = Of::Temporary {
            name: name.into(),
            automatic: true,
        };
        // What nobody asks for waits in the queue.
        let credit = match dialect::replies_come_unasked(self.config.dialect) {
            true => Credit::count(self.config.limits.prefetch_count),
            false => Credit::Pull,
        };
        let sub = self.add_subscription(key, of, Some(text.as_bytes()), AckMode::Auto, rules)?;
        let name = self.requests.push_bytes(known(&self.id, text, name).as_bytes());
        self.requests.list.push(Request::Subscribe(Subscribe {
            sub,
            kind: DestinationKind::Temporary,
            name,
            binding: Binding::None,
            ack_mode: AckMode::Auto,
            ack_timeout_ms: None,
            credit,
            filter: None,
            binds_durably: false,
            priority: 0,
            exclusive: false,
            no_local: false,
            browse: None,
            by_message: false,
        }));
        Ok(())
    }
}
