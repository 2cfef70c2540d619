//! Escapes of names and values: per version, and between the stored form (escapes of 1.2) and the other versions.
//!
//! # Invariants
//! - Nothing written here holds a raw LF, and no name a raw colon: text of one peer never forges a header for another.

use std::borrow::Cow;

use memchr::{memchr, memchr2, memchr3};

use super::error::DecodeError;
use super::version::Escapes;

/// Which side of the colon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Left of it.
    Name,
    /// Right of it.
    Value,
}

/// Whether every escape is one that the version has.
pub fn check(escapes: Escapes, raw: &[u8]) -> Result<(), DecodeError> {
    let mut rest = raw;
    while escapes != Escapes::None
        && let Some(at) = memchr(b'\\', rest)
    {
        let escape = rest.get(at + 1);
        if !matches!(
            (escape, escapes),
            (Some(b'n' | b'c' | b'\\'), _) | (Some(b'r'), Escapes::Four)
        ) {
            return Err(DecodeError::EscapeInvalid);
        }
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    Ok(())
}

/// The text that a raw name or value stands for; borrowed where there is no escape.
pub fn unescape(escapes: Escapes, raw: &[u8]) -> Result<Cow<'_, [u8]>, DecodeError> {
    if escapes == Escapes::None || memchr(b'\\', raw).is_none() {
        return Ok(Cow::Borrowed(raw));
    }
    let mut text = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'\\' {
            text.push(byte);
            continue;
        }
        text.push(match (bytes.next(), escapes) {
            (Some(b'n'), _) => b'\n',
            (Some(b'c'), _) => b':',
            (Some(b'\\'), _) => b'\\',
            (Some(b'r'), Escapes::Four) => b'\r',
            _ => return Err(DecodeError::EscapeInvalid),
        });
    }
    Ok(Cow::Owned(text))
}

/// Writes a text as a name or value. Without escapes, what could forge a header is written as if there were some.
pub fn escape(escapes: Escapes, part: Part, text: &[u8], out: &mut Vec<u8>) {
    if memchr3(b'\\', b':', b'\n', text).is_none() && memchr(b'\r', text).is_none() {
        out.extend_from_slice(text);
        return;
    }
    for &byte in text {
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            b':' if escapes != Escapes::None || part == Part::Name => out.extend_from_slice(b"\\c"),
            b'\\' if escapes != Escapes::None => out.extend_from_slice(b"\\\\"),
            b'\r' if escapes == Escapes::Four => out.extend_from_slice(b"\\r"),
            _ => out.push(byte),
        }
    }
}

/// Writes a raw name or value, as it came in and was checked, with the escapes of 1.2.
pub fn store(escapes: Escapes, raw: &[u8], out: &mut Vec<u8>) {
    if memchr3(b'\\', b':', b'\r', raw).is_none() {
        out.extend_from_slice(raw);
        return;
    }
    let mut bytes = raw.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\r' => out.extend_from_slice(b"\\r"),
            b':' => out.extend_from_slice(b"\\c"),
            b'\\' if escapes == Escapes::None => out.extend_from_slice(b"\\\\"),
            // The escapes of 1.1 are among those of 1.2: copied, so that the second backslash of a pair is not read.
            b'\\' => {
                out.push(b'\\');
                out.extend(bytes.next());
            }
            _ => out.push(byte),
        }
    }
}

/// Writes a stored header block (lines with the escapes of 1.2, each ended by LF) with other escapes.
///
/// 1.1 has no escape for CR, so it goes raw. 1.0 has none at all: `\\` and, in values, `\c` are decoded, but `\n`
/// anywhere and `\c` in a name stay two characters.
pub fn transcode(escapes: Escapes, block: &[u8], out: &mut Vec<u8>) {
    if escapes == Escapes::Four || memchr(b'\\', block).is_none() {
        out.extend_from_slice(block);
        return;
    }
    let mut part = Part::Name;
    let mut rest = block;
    while let Some(at) = memchr3(b'\\', b':', b'\n', rest) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let (kept, taken): (&[u8], usize) = match (special, escapes, part) {
            ([b'\\', b'r', ..], ..) => (b"\r", 2),
            ([b'\\', b'\\', ..], Escapes::None, _) => (b"\\", 2),
            ([b'\\', b'c', ..], Escapes::None, Part::Value) => (b":", 2),
            ([b'\\', second, ..], ..) => {
                out.push(b'\\');
                (std::slice::from_ref(second), 2)
            }
            ([byte, ..], ..) => {
                part = if *byte == b'\n' { Part::Name } else { Part::Value };
                (std::slice::from_ref(byte), 1)
            }
            ([], ..) => break,
        };
        out.extend_from_slice(kept);
        rest = special.get(taken..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

/// Whether raw header lines hold neither a backslash nor a CR; what is then left to escape is a colon in a value.
pub(super) fn is_plain(block: &[u8]) -> bool {
    memchr2(b'\\', b'\r', block).is_none()
}
