//! Frames out of bytes, without IO: the driver reads into [`Decoder::space`], says how much with
//! [`Decoder::filled`], and takes frames until there is none.
//!
//! # Invariants
//! - The same bytes give the same frames at every split.
//! - A frame borrows the buffer; nothing is copied, and header values are raw (see [`unescape`]).
//! - `start <= end <= buffer.len()`.
#![expect(
    clippy::indexing_slicing,
    reason = "every range is between positions found by a search in the same slice"
)]

use std::borrow::Cow;

use memchr::{memchr, memchr2};

#[cfg(test)]
mod tests;

/// The head of a frame may not be longer.
const HEAD_BYTES_MAX: usize = 1 << 20;
/// A body may not be longer: as long as a broker of ours can be made to take.
pub const BODY_BYTES_MAX: usize = 1 << 30;
/// Room offered to a read.
const SPACE_BYTES: usize = 128 << 10;

/// Bytes that are no STOMP frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A header line without a colon.
    #[error("a header line has no colon")]
    HeaderWithoutColon,
    /// A content-length that is no number, or too large a one.
    #[error("the content-length is not a number or too large")]
    ContentLength,
    /// No end of the head, or of a body without content-length, within the bound.
    #[error("the frame is too large")]
    TooLarge,
    /// The byte after the body is not NUL.
    #[error("no NUL follows the body")]
    NoNul,
}

/// One frame, borrowed from the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The command, as it came.
    pub command: &'a [u8],
    head: &'a [u8],
    /// The body.
    pub body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The raw headers in their order.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut rest = self.head;
        std::iter::from_fn(move || {
            let end = memchr(b'\n', rest)?;
            let line = without_cr(&rest[..end]);
            rest = &rest[end + 1..];
            let colon = memchr(b':', line)?;
            Some((&line[..colon], &line[colon + 1..]))
        })
    }

    /// The raw value of the first header of that name (the first one counts in STOMP).
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers()
            .find_map(|(key, value)| (key == name.as_bytes()).then_some(value))
    }

    /// The unescaped text of a header, for people.
    pub fn text(&self, name: &str) -> Option<String> {
        self.header(name)
            .map(|value| String::from_utf8_lossy(&unescape(value)).into_owned())
    }
}

/// Undoes the escapes of STOMP 1.2; an escape that it does not know stays as it is.
pub fn unescape(raw: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'\\', raw).is_none() {
        return Cow::Borrowed(raw);
    }
    let mut plain = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            plain.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'n') => plain.push(b'\n'),
            Some(b'r') => plain.push(b'\r'),
            Some(b'c') => plain.push(b':'),
            Some(b'\\') => plain.push(b'\\'),
            Some(other) => plain.extend([b'\\', other]),
            None => plain.push(b'\\'),
        }
    }
    Cow::Owned(plain)
}

/// See the module's text.
#[derive(Debug)]
pub struct Decoder {
    space_bytes: usize,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Below this many bytes after `start` another look is in vain.
    need_bytes: usize,
}

impl Decoder {
    /// An empty decoder for large reads.
    pub fn new() -> Self {
        Self::with_space(SPACE_BYTES)
    }

    /// An empty decoder that offers at least so much room to a read.
    pub fn with_space(space_bytes: usize) -> Self {
        assert!(space_bytes > 0, "a decoder without space");
        Self {
            space_bytes,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            need_bytes: 0,
        }
    }

    /// Room for the next read; never empty.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        // No more than what came already: a length that is only claimed takes no memory.
        let held = self.end - self.start;
        let want = self
            .space_bytes
            .max(self.need_bytes.saturating_sub(held).min(held));
        if self.buffer.len() - self.end < want {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            if self.buffer.len() < self.end + want {
                self.buffer.resize(self.end + want, 0);
            }
        }
        &mut self.buffer[self.end..]
    }

    /// `count` bytes were read into [`Decoder::space`].
    pub fn filled(&mut self, count: usize) {
        assert!(
            count <= self.buffer.len() - self.end,
            "more was filled than there is space"
        );
        self.end += count;
    }

    /// Takes the bytes themselves, where there is no reader.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let space = self.space();
            let count = bytes.len().min(space.len());
            space[..count].copy_from_slice(&bytes[..count]);
            self.filled(count);
            bytes = &bytes[count..];
        }
    }

    /// Whether nothing is left but what was given out, and ends of lines.
    pub fn is_empty(&self) -> bool {
        let rest = &self.buffer[self.start..self.end];
        rest.iter().all(|byte| matches!(byte, b'\n' | b'\r'))
    }

    /// The next whole frame, if there is one. Ends of lines between frames (heart-beats) are skipped.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, DecodeError> {
        while self.start < self.end && matches!(self.buffer[self.start], b'\n' | b'\r') {
            self.start += 1;
        }
        if self.end - self.start < self.need_bytes.max(1) {
            return Ok(None);
        }
        match parse(&self.buffer[self.start..self.end])? {
            Parsed::Frame(frame, length) => {
                self.start += length;
                self.need_bytes = 0;
                Ok(Some(frame))
            }
            Parsed::Short(need_bytes) => {
                self.need_bytes = need_bytes;
                Ok(None)
            }
        }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

enum Parsed<'a> {
    /// A frame and its length in bytes, NUL included.
    Frame(Frame<'a>, usize),
    /// At least so many bytes in all are needed.
    Short(usize),
}

/// Reads the frame that `bytes` begins with.
fn parse(bytes: &[u8]) -> Result<Parsed<'_>, DecodeError> {
    let Some(command_end) = memchr(b'\n', bytes) else {
        return short_head(bytes);
    };
    let head_start = command_end + 1;
    let mut at = head_start;
    let mut content_length = None;
    loop {
        // A line ends at LF; the colon that a header needs comes before it, and is mostly near.
        let Some(found) = memchr2(b':', b'\n', &bytes[at..]) else {
            return short_head(bytes);
        };
        let line = at;
        at += found;
        if bytes[at] == b'\n' {
            if without_cr(&bytes[line..at]).is_empty() {
                at = line;
                break;
            }
            return Err(DecodeError::HeaderWithoutColon);
        }
        let Some(rest) = memchr(b'\n', &bytes[at..]) else {
            return short_head(bytes);
        };
        if content_length.is_none() && &bytes[line..at] == b"content-length" {
            content_length = Some(parse_length(without_cr(&bytes[at + 1..at + rest]))?);
        }
        at += rest + 1;
    }
    let head = &bytes[head_start..at];
    // `at` is the empty line: LF or CR LF.
    let body_start = at + if bytes[at] == b'\r' { 2 } else { 1 };
    let body_end = match content_length {
        Some(length) => {
            let body_end = body_start + length;
            match bytes.get(body_end) {
                None => return Ok(Parsed::Short(body_end + 1)),
                Some(0) => body_end,
                Some(_) => return Err(DecodeError::NoNul),
            }
        }
        None => match memchr(0, &bytes[body_start..]) {
            Some(length) => body_start + length,
            None if bytes.len() > BODY_BYTES_MAX => return Err(DecodeError::TooLarge),
            None => return Ok(Parsed::Short(bytes.len() + 1)),
        },
    };
    let frame = Frame {
        command: without_cr(&bytes[..command_end]),
        head,
        body: &bytes[body_start..body_end],
    };
    Ok(Parsed::Frame(frame, body_end + 1))
}

fn short_head(bytes: &[u8]) -> Result<Parsed<'static>, DecodeError> {
    if bytes.len() > HEAD_BYTES_MAX {
        return Err(DecodeError::TooLarge);
    }
    Ok(Parsed::Short(bytes.len() + 1))
}

fn parse_length(text: &[u8]) -> Result<usize, DecodeError> {
    let length = parse_number(text).ok_or(DecodeError::ContentLength)?;
    usize::try_from(length)
        .ok()
        .filter(|length| *length <= BODY_BYTES_MAX)
        .ok_or(DecodeError::ContentLength)
}

/// A decimal number of at most 18 digits.
pub fn parse_number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0, |number: u64, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + u64::from(byte - b'0'))
    })
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}
