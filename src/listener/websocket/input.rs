//! Frames of WebSocket in, payloads out, in the bytes they came in.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

/// The longest header: two bytes, eight of length, four of mask.
const HEADER_BYTES_MAX: usize = 14;

/// The longest payload of a control frame (RFC 6455, section 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// What is wrong with what a peer sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("a frame of WebSocket that its protocol does not allow")]
    Frame,
    #[error("a text message of WebSocket that is not UTF-8")]
    Text,
}

impl Broken {
    pub(super) fn close_code(self) -> CloseCode {
        match self {
            Self::Frame => CloseCode::Protocol,
            Self::Text => CloseCode::Invalid,
        }
    }
}

/// How far what came was read.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// The beginning of a header that was cut.
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    /// The frame begun, once its header is there.
    frame: Option<Frame>,
    /// The message begun, between its frames too.
    message: Option<Text>,
    /// The payload of the control frame begun.
    control: Vec<u8>,
    /// The last ping that is not answered.
    ping: Option<Vec<u8>>,
    closed: bool,
}

#[derive(Debug)]
struct Frame {
    kind: Kind,
    /// It ends its message.
    is_final: bool,
    mask: [u8; 4],
    /// Bytes of the payload that were read, and that are to come.
    at: usize,
    left: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Ping,
    Close,
    /// A pong, which nobody asked for.
    Other,
}

impl Input {
    /// The peer's close frame has come.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The ping that is to be answered: of several, the last one.
    pub(super) fn take_ping(&mut self) -> Option<Vec<u8>> {
        self.ping.take()
    }

    /// Takes bytes; leaves those of STOMP at their beginning, and returns how many these are.
    pub(super) fn take(&mut self, bytes: &mut [u8]) -> Result<usize, Broken> {
        let (mut read, mut kept) = (0, 0);
        while !self.closed {
            let Some(frame) = &mut self.frame else {
                let rest = bytes.get(read..).unwrap_or_default();
                if rest.is_empty() {
                    break;
                }
                read += self.read_header(rest)?;
                continue;
            };
            let there = bytes.len() - read;
            let count = usize::try_from(frame.left).map_or(there, |left| left.min(there));
            let payload = bytes.get_mut(read..read + count).unwrap_or_default();
            frame.unmask(payload);
            match frame.kind {
                Kind::Data => {
                    if let Some(text) = &mut self.message {
                        text.check(payload)?;
                    }
                    bytes.copy_within(read..read + count, kept);
                    kept += count;
                }
                _ => self.control.extend_from_slice(payload),
            }
            read += count;
            match frame.left {
                0 => self.end_frame()?,
                _ => break,
            }
        }
        Ok(kept)
    }

    /// Takes bytes of a header; returns how many.
    fn read_header(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let mut taken = 0;
        for byte in bytes {
            if let Some(place) = self.header.get_mut(self.header_len) {
                *place = *byte;
            }
            self.header_len += 1;
            taken += 1;
            let read = self.header.get(..self.header_len).unwrap_or_default();
            let parsed = FrameHeader::parse(&mut Cursor::new(read)).map_err(|_| Broken::Frame)?;
            if let Some((header, left)) = parsed {
                self.header_len = 0;
                self.begin_frame(&header, left)?;
                break;
            }
        }
        Ok(taken)
    }

    fn begin_frame(&mut self, header: &FrameHeader, left: u64) -> Result<(), Broken> {
        let plain = !(header.rsv1 || header.rsv2 || header.rsv3) && i64::try_from(left).is_ok();
        let mask = header.mask.filter(|_| plain).ok_or(Broken::Frame)?;
        let kind = match header.opcode {
            OpCode::Control(control) => {
                if !header.is_final || left > CONTROL_BYTES_MAX {
                    return Err(Broken::Frame);
                }
                match control {
                    Control::Ping => Kind::Ping,
                    Control::Close => Kind::Close,
                    Control::Pong => Kind::Other,
                    Control::Reserved(_) => return Err(Broken::Frame),
                }
            }
            OpCode::Data(data) => {
                match (data, &self.message) {
                    (Data::Text, None) => self.message = Some(Text::new(true)),
                    (Data::Binary, None) => self.message = Some(Text::new(false)),
                    (Data::Continue, Some(_)) => {}
                    _ => return Err(Broken::Frame),
                }
                Kind::Data
            }
        };
        self.frame = Some(Frame {
            kind,
            is_final: header.is_final,
            mask,
            at: 0,
            left,
        });
        Ok(())
    }

    fn end_frame(&mut self) -> Result<(), Broken> {
        let Some(frame) = self.frame.take() else {
            return Ok(());
        };
        let control = std::mem::take(&mut self.control);
        match frame.kind {
            Kind::Data if frame.is_final => {
                if let Some(text) = self.message.take() {
                    text.end()?;
                }
            }
            Kind::Data | Kind::Other => {}
            Kind::Ping => self.ping = Some(control),
            Kind::Close => self.closed = true,
        }
        Ok(())
    }
}

impl Frame {
    /// Removes the mask from the next bytes of the payload.
    fn unmask(&mut self, payload: &mut [u8]) {
        let mut mask = self.mask;
        mask.rotate_left(self.at % 4);
        // Eight at a time, which the mask divides.
        let [a, b, c, d] = mask;
        let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        let (words, rest) = payload.as_chunks_mut::<8>();
        for word in words {
            *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
        }
        for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        self.at = (self.at + payload.len()) % 4;
        self.left -= payload.len() as u64;
    }
}

/// Whether a message of text is UTF-8, however it is cut.
#[derive(Debug)]
struct Text {
    /// It says that it is.
    claimed: bool,
    /// The beginning of a character that was cut.
    cut: [u8; 4],
    cut_len: usize,
}

impl Text {
    fn new(claimed: bool) -> Self {
        Self {
            claimed,
            cut: [0; 4],
            cut_len: 0,
        }
    }

    fn check(&mut self, mut bytes: &[u8]) -> Result<(), Broken> {
        if !self.claimed {
            return Ok(());
        }
        while self.cut_len > 0 {
            let Some((first, rest)) = bytes.split_first() else {
                return Ok(());
            };
            if let Some(place) = self.cut.get_mut(self.cut_len) {
                *place = *first;
            }
            self.cut_len += 1;
            bytes = rest;
            match std::str::from_utf8(self.cut.get(..self.cut_len).unwrap_or_default()) {
                Ok(_) => self.cut_len = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(Broken::Text),
            }
        }
        match std::str::from_utf8(bytes) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_none() => {
                let cut = bytes.get(error.valid_up_to()..).unwrap_or_default();
                for (place, byte) in self.cut.iter_mut().zip(cut) {
                    *place = *byte;
                }
                self.cut_len = cut.len();
                Ok(())
            }
            Err(_) => Err(Broken::Text),
        }
    }

    fn end(&self) -> Result<(), Broken> {
        match self.cut_len {
            0 => Ok(()),
            _ => Err(Broken::Text),
        }
    }
}
