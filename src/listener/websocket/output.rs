//! Bytes of STOMP in, frames of WebSocket out: a frame of STOMP is a message.
//!
//! A message is text if the frame is UTF-8. What that is must be known when it begins; so a frame that is not all there then, which is one with
//! a long body only, is binary, in as many pieces as it comes in.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use crate::wire::{Decoded, Decoder, Escapes, FRAME_END, FrameLimits, Grammar};

/// With so much encoded, the socket comes first.
const READY_BYTES_MAX: usize = 64 * 1024;

/// Our own frames have no bounds here, but that their sums are numbers.
const LIMITS: FrameLimits = FrameLimits {
    header_line_bytes_max: usize::MAX / 4,
    header_block_bytes_max: usize::MAX / 4,
    header_count_max: usize::MAX / 4,
    body_bytes_max: usize::MAX / 4,
};

/// Where our frames end is told by line ends and `content-length` alone, which are the same in every version.
const GRAMMAR: Grammar = Grammar {
    crlf: false,
    padded: false,
    escapes: Escapes::None,
};

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Whole frames of WebSocket.
    ready: Vec<u8>,
    /// Bytes at their beginning that are in the stream.
    at: usize,
    /// Bytes to come of a frame of STOMP that was begun.
    left: usize,
    closed: bool,
}

impl Output {
    /// What is to be written, if anything is.
    pub(super) fn rest(&self) -> Option<&[u8]> {
        self.ready.get(self.at..).filter(|rest| !rest.is_empty())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest().is_none()
    }

    /// Our close frame is behind all that is encoded.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// So much of it is in the stream.
    pub(super) fn wrote(&mut self, count: usize) {
        self.at += count;
        if self.at >= self.ready.len() {
            self.ready = Vec::new();
            self.at = 0;
        }
    }

    pub(super) fn put_pong(&mut self, payload: &[u8]) {
        if !self.closed {
            self.put(true, OpCode::Control(Control::Pong), payload);
        }
    }

    /// Nothing can follow.
    pub(super) fn put_close(&mut self, code: CloseCode) {
        if !self.closed {
            let code = u16::from(code).to_be_bytes();
            self.put(true, OpCode::Control(Control::Close), &code);
            self.closed = true;
        }
    }

    /// Takes bytes of STOMP; returns how many. At least one, if there are any.
    pub(super) fn encode(&mut self, bytes: &[u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty())
            && self.ready.len() < READY_BYTES_MAX
        {
            done += match self.left {
                0 => self.begin(rest),
                left => {
                    let piece = rest.get(..left).unwrap_or(rest);
                    self.left -= piece.len();
                    self.put(self.left == 0, OpCode::Data(Data::Continue), piece);
                    piece.len()
                }
            };
        }
        done
    }

    /// Takes what begins between frames of STOMP.
    fn begin(&mut self, bytes: &[u8]) -> usize {
        let mut decoder = Decoder::new(LIMITS, GRAMMAR);
        let beats = decoder.gap(bytes);
        if beats > 0 {
            let beats = bytes.get(..beats).unwrap_or_default();
            self.put(true, OpCode::Data(Data::Text), beats);
            return beats.len();
        }
        let end = FRAME_END.len() - 1;
        let whole = match decoder.decode(bytes) {
            Ok(Decoded::Frame(_, len)) => bytes.get(..len + end),
            _ => None,
        };
        match whole {
            Some(frame) => {
                let kind = match std::str::from_utf8(frame) {
                    Ok(_) => Data::Text,
                    Err(_) => Data::Binary,
                };
                self.put(true, OpCode::Data(kind), frame);
                frame.len()
            }
            None => {
                let len = decoder.long_frame_bytes(0).map_or(0, |len| len + end);
                self.left = len.saturating_sub(bytes.len());
                self.put(self.left == 0, OpCode::Data(Data::Binary), bytes);
                bytes.len()
            }
        }
    }

    fn put(&mut self, is_final: bool, opcode: OpCode, payload: &[u8]) {
        let header = FrameHeader {
            is_final,
            opcode,
            ..FrameHeader::default()
        };
        let len = payload.len() as u64;
        self.ready.reserve(header.len(len) + payload.len());
        header
            .format(len, &mut self.ready)
            .expect("a Vec takes what is written to it");
        self.ready.extend_from_slice(payload);
    }
}
