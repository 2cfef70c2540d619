//! Reading frames from a contiguous buffer that grows at its end.
//!
//! # Invariants
//! - No byte is searched twice, however the bytes arrive: what was looked at is remembered.
//! - A line or body is refused as soon as its bytes at hand prove it too long, and by the same error at every split.
#![expect(
    clippy::indexing_slicing,
    reason = "offsets are found in the frame's own bytes, which only grow between two calls"
)]

use memchr::{memchr, memchr2};

use super::error::DecodeError;
use super::escape::is_plain;
use super::version::Grammar;

/// Bounds of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// One line of the head, without its line end.
    pub header_line_bytes_max: usize,
    /// Command line and header lines, with their line ends, without the empty line.
    pub header_block_bytes_max: usize,
    /// Header lines.
    pub header_count_max: usize,
    /// The body.
    pub body_bytes_max: usize,
}

/// One frame, borrowed from the bytes it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The command, not checked.
    pub command: &'a [u8],
    /// The header lines with their line ends.
    pub head: &'a [u8],
    /// The body.
    pub body: &'a [u8],
    grammar: Grammar,
}

impl<'a> Frame<'a> {
    /// The headers in their order.
    pub fn headers(&self) -> Headers<'a> {
        Headers {
            head: self.head,
            grammar: self.grammar,
        }
    }

    /// The raw value of a header; of a repeated one the first counts.
    pub fn first(&self, name: &str) -> Option<&'a [u8]> {
        let mut headers = self.headers().filter_map(Result::ok);
        let header = headers.find(|header| header.name == name.as_bytes())?;
        Some(header.value)
    }

    /// Whether no header has a backslash or a CR.
    pub fn is_plain(&self) -> bool {
        is_plain(self.head)
    }
}

/// One header as it came in: escapes not decoded, padding removed where the grammar says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Left of the first colon; never empty.
    pub name: &'a [u8],
    /// Right of it.
    pub value: &'a [u8],
}

impl<'a> Header<'a> {
    fn parse(line: &'a [u8], grammar: Grammar) -> Result<Self, DecodeError> {
        let colon = memchr(b':', line).ok_or(DecodeError::HeaderMalformed)?;
        let (mut name, mut value) = (&line[..colon], &line[colon + 1..]);
        if grammar.padded {
            while let [rest @ .., b' '] = name {
                name = rest;
            }
            while let [b' ', rest @ ..] = value {
                value = rest;
            }
        }
        // 1.2 alone keeps CR out of names; elsewhere it is a character like any other.
        if name.is_empty() || grammar.crlf && memchr(b'\r', name).is_some() {
            return Err(DecodeError::HeaderMalformed);
        }
        Ok(Self { name, value })
    }
}

/// Headers in their order; see [`Frame::headers`].
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    head: &'a [u8],
    grammar: Grammar,
}

impl<'a> Iterator for Headers<'a> {
    type Item = Result<Header<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = memchr(b'\n', self.head)?;
        let line = strip(&self.head[..end], self.grammar);
        self.head = &self.head[end + 1..];
        Some(Header::parse(line, self.grammar))
    }
}

fn strip(line: &[u8], grammar: Grammar) -> &[u8] {
    match line {
        [rest @ .., b'\r'] if grammar.crlf => rest,
        _ => line,
    }
}

/// What the bytes at hand hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A whole frame, and how many bytes it took with the line ends before it.
    Frame(Frame<'a>, usize),
    /// No whole frame. So many bytes (line ends between frames) are done with; the next call takes the rest of them
    /// again, with what follows.
    Incomplete(usize),
}

#[derive(Debug, Clone, Copy, Default)]
enum Length {
    #[default]
    Unknown,
    Counted(usize),
    Refused(DecodeError),
}

/// How far the frame begun was read. Offsets are from its first byte.
#[derive(Debug, Clone, Copy, Default)]
struct Begun {
    /// Everything before was searched.
    searched: usize,
    line_start: usize,
    command_len: usize,
    /// Where the first header line begins; 0 while the command line is read.
    head_start: usize,
    header_count: usize,
    length: Length,
    /// Where the body begins; 0 while the head is read.
    body_start: usize,
}

/// See the module's text. After an error it must not be used again.
#[derive(Debug)]
pub struct Decoder {
    limits: FrameLimits,
    grammar: Grammar,
    begun: Option<Begun>,
    /// Where the frame begun starts in the bytes of the last call.
    frame_start: usize,
    #[cfg(test)]
    pub(super) searched_bytes: usize,
}

impl Decoder {
    /// Between frames.
    pub fn new(limits: FrameLimits, grammar: Grammar) -> Self {
        Self {
            limits,
            grammar,
            begun: None,
            frame_start: 0,
            #[cfg(test)]
            searched_bytes: 0,
        }
    }

    /// Changes what the next frames are read by. Only between frames.
    pub fn set(&mut self, limits: FrameLimits, grammar: Grammar) {
        assert!(self.begun.is_none(), "rules change between frames only");
        self.limits = limits;
        self.grammar = grammar;
    }

    /// How frames are read now.
    pub fn grammar(&self) -> Grammar {
        self.grammar
    }

    /// How many bytes of line ends stand before the next frame. CR LF is skipped in every version: a heart-beat of a
    /// peer with CR LF line ends harms nobody.
    pub fn gap(&self, bytes: &[u8]) -> usize {
        if self.begun.is_some() {
            return 0;
        }
        let mut at = 0;
        loop {
            match &bytes[at..] {
                [b'\n', ..] => at += 1,
                [b'\r', b'\n', ..] => at += 2,
                _ => return at,
            }
        }
    }

    /// Reads the next frame. `bytes` begins where the last call's frame ended or, after [`Decoded::Incomplete`], where
    /// it said.
    pub fn decode<'a>(&mut self, bytes: &'a [u8]) -> Result<Decoded<'a>, DecodeError> {
        let gap = self.gap(bytes);
        self.frame_start = gap;
        let frame = &bytes[gap..];
        // A CR may be half of a line end.
        if self.begun.is_none() && matches!(frame, [] | [b'\r']) {
            return Ok(Decoded::Incomplete(gap));
        }
        let mut begun = self.begun.unwrap_or_default();
        let decoded = self.read(&mut begun, frame);
        self.begun = match decoded {
            Ok(Some(_)) => None,
            Ok(None) | Err(_) => Some(begun),
        };
        Ok(match decoded? {
            Some((frame, len)) => Decoded::Frame(frame, gap + len),
            None => Decoded::Incomplete(gap),
        })
    }

    /// The header lines of the frame begun that were read whole, given the bytes of the last call: for an ERROR that
    /// names the frame's `receipt`.
    pub fn headers_so_far<'a>(&self, bytes: &'a [u8]) -> Headers<'a> {
        let frame = bytes.get(self.frame_start..).unwrap_or_default();
        let head = match self.begun {
            Some(begun) if begun.head_start > 0 => frame.get(begun.head_start..begun.line_start),
            _ => None,
        };
        Headers {
            head: head.unwrap_or_default(),
            grammar: self.grammar,
        }
    }

    /// The bytes of the whole frame begun, if its body is known to be long: of at least `body_bytes_min` by its
    /// content-length or, without one, by what came of it; it may then go on up to the limit.
    pub fn long_frame_bytes(&self, body_bytes_min: usize) -> Option<usize> {
        let begun = self.begun.filter(|begun| begun.body_start > 0)?;
        let (known, most) = match begun.length {
            Length::Counted(len) => (len, len),
            Length::Unknown => (begun.searched - begun.body_start, self.limits.body_bytes_max),
            Length::Refused(_) => return None,
        };
        (known >= body_bytes_min).then_some(begun.body_start + most + 1)
    }

    fn read<'a>(
        &mut self,
        begun: &mut Begun,
        frame: &'a [u8],
    ) -> Result<Option<(Frame<'a>, usize)>, DecodeError> {
        if begun.body_start == 0 && !self.read_head(begun, frame)? {
            return Ok(None);
        }
        let len = match begun.length {
            Length::Refused(error) => return Err(error),
            Length::Counted(len) => match frame.get(begun.body_start + len) {
                None => return Ok(None),
                Some(0) => len,
                Some(_) => return Err(DecodeError::NulMissing),
            },
            Length::Unknown => {
                let found = self.search(begun, frame, |bytes| memchr(0, bytes));
                let len = found.unwrap_or(frame.len()) - begun.body_start;
                if len > self.limits.body_bytes_max {
                    return Err(DecodeError::BodyTooLong);
                }
                match found {
                    None => return Ok(None),
                    Some(_) => len,
                }
            }
        };
        let body_end = begun.body_start + len;
        let decoded = Frame {
            command: &frame[..begun.command_len],
            head: &frame[begun.head_start..begun.line_start],
            body: &frame[begun.body_start..body_end],
            grammar: self.grammar,
        };
        Ok(Some((decoded, body_end + 1)))
    }

    /// Reads lines up to the empty one; false if it is not there yet.
    fn read_head(&mut self, begun: &mut Begun, frame: &[u8]) -> Result<bool, DecodeError> {
        loop {
            let found = self.search(begun, frame, |bytes| memchr2(b'\n', 0, bytes));
            let raw = &frame[begun.line_start..found.unwrap_or(frame.len())];
            self.check_line(begun, raw)?;
            let Some(end) = found else {
                return Ok(false);
            };
            if frame[end] == 0 {
                return Err(DecodeError::NulInHead);
            }
            let line = strip(raw, self.grammar);
            if line.len() > self.limits.header_line_bytes_max {
                return Err(DecodeError::HeaderLineTooLong);
            }
            if begun.head_start == 0 {
                begun.command_len = line.len();
                begun.head_start = end + 1;
            } else if line.is_empty() {
                begun.body_start = end + 1;
                return Ok(true);
            } else {
                begun.header_count += 1;
                if begun.header_count > self.limits.header_count_max {
                    return Err(DecodeError::HeaderCountTooHigh);
                }
                self.note_length(begun, line);
            }
            begun.line_start = end + 1;
        }
    }

    /// Searches what was not searched yet; says where in the frame.
    fn search(
        &mut self,
        begun: &mut Begun,
        frame: &[u8],
        find: impl Fn(&[u8]) -> Option<usize>,
    ) -> Option<usize> {
        let found = find(&frame[begun.searched..]).map(|at| begun.searched + at);
        let searched = found.map_or(frame.len(), |at| at + 1);
        #[cfg(test)]
        {
            self.searched_bytes += searched - begun.searched;
        }
        begun.searched = searched;
        found
    }

    /// Refuses a line of which only these bytes are known. Of the two limits the one that is reached first decides, so
    /// that bytes arriving one by one or all at once lead to the same error.
    fn check_line(&self, begun: &Begun, raw: &[u8]) -> Result<(), DecodeError> {
        let crlf = self.grammar.crlf;
        let line_at = self.limits.header_line_bytes_max + usize::from(crlf) + 1;
        // A CR alone may yet be the empty line, which does not count.
        let empty = if crlf && raw.first() == Some(&b'\r') { 1 } else { 0 };
        let block_at = self
            .limits
            .header_block_bytes_max
            .saturating_sub(begun.line_start)
            .max(empty + 1);
        match raw.len() {
            len if len < line_at.min(block_at) => Ok(()),
            _ if line_at <= block_at => Err(DecodeError::HeaderLineTooLong),
            _ => Err(DecodeError::HeaderBlockTooLong),
        }
    }

    /// The first `content-length` counts. Its errors wait for the end of the head, so that `receipt` is known by then.
    fn note_length(&self, begun: &mut Begun, line: &[u8]) {
        const NAME: &[u8] = b"content-length";
        if !matches!(begun.length, Length::Unknown) || !line.starts_with(NAME) {
            return;
        }
        let Ok(Header { name: NAME, value }) = Header::parse(line, self.grammar) else {
            return;
        };
        begun.length = if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            Length::Refused(DecodeError::ContentLengthInvalid)
        } else {
            let parsed = value.iter().try_fold(0_usize, |sum, digit| {
                sum.checked_mul(10)?.checked_add(usize::from(digit - b'0'))
            });
            match parsed {
                Some(len) if len <= self.limits.body_bytes_max => Length::Counted(len),
                _ => Length::Refused(DecodeError::BodyTooLong),
            }
        };
    }
}
