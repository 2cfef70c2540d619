//! The login: what a connection begins with.

use super::dialect::{self, Meaning, On};
use super::error::{Cause, Violation};
use super::fields::{number, receipt_of};
use super::login::{Agreed, Judging};
use super::rules::Rules;
use super::{Session, ids};
use crate::base::{Limits, Now};
use crate::wire::{Encoder, Escapes, Frame, FrameLimits, Header, Version};

/// What HTTP begins with. STOMP's CONNECT is followed by a line end, HTTP's by a space.
const HTTP: [&[u8]; 9] = [
    b"GET ",
    b"PUT ",
    b"POST ",
    b"HEAD ",
    b"PATCH ",
    b"DELETE ",
    b"OPTIONS ",
    b"CONNECT ",
    b"PRI * HTTP/2",
];

/// A record of TLS: handshake, version 3.x.
const TLS: &[u8] = &[0x16, 0x03];

/// Another protocol, told by its first bytes.
pub fn mistaken(bytes: &[u8]) -> Option<Violation> {
    if bytes.starts_with(TLS) {
        Some(Violation::Tls)
    } else if HTTP.iter().any(|method| bytes.starts_with(method)) {
        Some(Violation::Http)
    } else {
        None
    }
}

/// The bounds of a frame after the login.
pub(super) fn frame_limits(limits: &Limits) -> FrameLimits {
    FrameLimits {
        header_line_bytes_max: limits.header_line_bytes_max,
        header_block_bytes_max: limits.header_block_bytes_max,
        header_count_max: limits.header_count_max,
        body_bytes_max: limits.body_bytes_max,
    }
}

/// The highest version of a list that both sides have; without a list it is 1.0.
fn negotiate(accept: Option<&[u8]>) -> Option<Version> {
    let Some(accept) = accept else {
        return Some(Version::V10);
    };
    accept
        .split(|byte| *byte == b',')
        .filter_map(|item| Version::parse(item.trim_ascii()))
        .max()
}

/// What the client can send and wants to receive, in milliseconds.
fn heart_beat(value: Option<&[u8]>) -> Option<(u64, u64)> {
    let Some(value) = value else {
        return Some((0, 0));
    };
    let mut numbers = value.split(|byte| *byte == b',').map(number);
    let pair = (numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some(pair)
}

impl Session {
    /// CONNECT or STOMP. Any `host` is the one virtual host; `login` and `passcode` are unread where nobody judges them.
    pub(super) fn connect(&mut self, frame: &Frame<'_>, now: Now) -> Result<(), Cause> {
        if !matches!(frame.command, b"CONNECT" | b"STOMP") {
            return Err(Violation::NotConnected.into());
        }
        let (mut accept, mut beat, mut client_id) = (None, None, None);
        let (mut login, mut passcode) = (None, None);
        for header in frame.headers() {
            let Header { name, value } = header?;
            match name {
                b"accept-version" => _ = accept.get_or_insert(value),
                b"heart-beat" => _ = beat.get_or_insert(value),
                b"client-id" => _ = client_id.get_or_insert(value),
                b"login" => _ = login.get_or_insert(value),
                b"passcode" => _ = passcode.get_or_insert(value),
                _ => {
                    let known = dialect::meaning(self.config.dialect, On::Connect, name);
                    if let Some((row, Meaning::NoEffect)) = known {
                        self.note(row);
                    }
                }
            }
        }
        let rules = Rules::of(negotiate(accept).ok_or(Violation::VersionUnsupported)?);
        let theirs = match rules.heart_beat {
            true => Some(heart_beat(beat).ok_or(Violation::BadHeartBeat)?),
            false => None,
        };
        self.client_id = client_id.filter(|id| !id.is_empty()).map(Box::from);
        let agreed = Agreed { rules, theirs };
        if self.judging.is_open() {
            self.welcome(&agreed, now);
        } else {
            let receipt_id = receipt_of(frame.headers(), Escapes::None);
            self.judging = Judging::asked(login, passcode, self.identity.clone(), agreed, receipt_id);
        }
        Ok(())
    }

    /// CONNECTED: what was agreed on holds from now.
    pub(super) fn welcome(&mut self, agreed: &Agreed, now: Now) {
        let Agreed { rules, theirs } = *agreed;
        let ours = theirs.map(|theirs| self.heart_beat.agree(&self.config, theirs, now.mono_ms));
        self.rules = Some(rules);
        self.decoder
            .set(frame_limits(&self.config.limits), rules.version.grammar());
        self.id = ids::session_id(&self.config.store, self.config.epoch, self.no);
        let id = &self.id;
        self.line.push(0..0, |out| {
            let mut frame = Encoder::new(out, Escapes::None, "CONNECTED")
                .header("version", rules.version.as_str())
                .header("session", id.as_bytes())
                .header("server", concat!("steadfast/", env!("CARGO_PKG_VERSION")));
            if let Some((send_ms, receive_ms)) = ours {
                frame = frame.header("heart-beat", format!("{send_ms},{receive_ms}"));
            }
            frame.end();
        });
    }
}
