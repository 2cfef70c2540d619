//! Writing frames.

use super::escape::{Part, escape};
use super::version::Escapes;

/// Ends every frame: the NUL, and an EOL that the standard allows there. Clients written for brokers that send it read two
/// bytes, and would take the first of the next frame for it (PHP's `stomp` does).
pub const FRAME_END: &[u8] = b"\0\n";

/// Writes one frame to the end of a buffer: command, then headers, then [`Encoder::body`] or [`Encoder::end`].
#[derive(Debug)]
#[must_use = "a frame is not whole before its body"]
pub struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    escapes: Escapes,
}

impl<'a> Encoder<'a> {
    /// Begins a frame.
    pub fn new(out: &'a mut Vec<u8>, escapes: Escapes, command: &str) -> Self {
        out.extend_from_slice(command.as_bytes());
        out.push(b'\n');
        Self { out, escapes }
    }

    /// A header of any text.
    pub fn header(self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        escape(self.escapes, Part::Name, name.as_ref(), self.out);
        self.out.push(b':');
        escape(self.escapes, Part::Value, value.as_ref(), self.out);
        self.out.push(b'\n');
        self
    }

    /// A header whose value is escaped already.
    pub fn escaped(self, name: &str, value: &[u8]) -> Self {
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(b':');
        self.out.extend_from_slice(value);
        self.out.push(b'\n');
        self
    }

    /// A header with a number.
    pub fn number(self, name: &str, value: u64) -> Self {
        let mut digits = itoa::Buffer::new();
        self.escaped(name, digits.format(value).as_bytes())
    }

    /// Ends a frame with a body, counted by `content-length`.
    pub fn body(self, body: &[u8]) {
        let counted = self.number("content-length", body.len() as u64);
        counted.out.push(b'\n');
        counted.out.extend_from_slice(body);
        counted.out.extend_from_slice(FRAME_END);
    }

    /// Ends a frame without a body.
    pub fn end(self) {
        self.out.push(b'\n');
        self.out.extend_from_slice(FRAME_END);
    }
}
