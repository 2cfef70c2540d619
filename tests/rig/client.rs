//! A tiny blocking STOMP 1.2 client on a bare socket.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long a test waits for a frame that must come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One frame from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub command: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Frame {
    /// The first header of a name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are done with.
    done: usize,
    chunk: Vec<u8>,
    receipts: u64,
}

impl Client {
    /// Opens a connection and logs in.
    pub fn connect(addr: SocketAddr) -> io::Result<Self> {
        let mut client = Self::open(addr)?;
        client.send("CONNECT", &[("accept-version", "1.2"), ("host", "test")], b"")?;
        let frame = client.expect()?;
        match frame.command.as_str() {
            "CONNECTED" => Ok(client),
            _ => Err(io::Error::other(format!("not connected: {frame:?}"))),
        }
    }

    /// Opens a connection and sends nothing.
    pub fn open(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, Duration::from_secs(10))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
            done: 0,
            chunk: vec![0; 64 * 1024],
            receipts: 0,
        })
    }

    /// Sends a frame; the body with its length.
    pub fn send(&mut self, command: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        self.stream.write_all(&encode(command, headers, body))
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a frame with a receipt header and waits for its RECEIPT; other frames that come meanwhile are given back.
    pub fn request(
        &mut self,
        command: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Vec<Frame>> {
        self.receipts += 1;
        let id = format!("request-{}", self.receipts);
        let mut all = headers.to_vec();
        all.push(("receipt", &id));
        self.send(command, &all, body)?;
        let mut others = Vec::new();
        loop {
            let frame = self.expect()?;
            if frame.command == "RECEIPT" && frame.header("receipt-id") == Some(&id) {
                return Ok(others);
            }
            if frame.command == "ERROR" {
                return Err(io::Error::other(format!("{command} was refused: {frame:?}")));
            }
            others.push(frame);
        }
    }

    /// The next frame, which must come.
    pub fn expect(&mut self) -> io::Result<Frame> {
        self.receive(PATIENCE)?
            .ok_or_else(|| io::Error::new(ErrorKind::TimedOut, "no frame came"))
    }

    /// The next frame; `None` if none came in time, an error of kind `UnexpectedEof` at the end of the stream.
    pub fn receive(&mut self, timeout: Duration) -> io::Result<Option<Frame>> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(frame) = self.decode()? {
                return Ok(Some(frame));
            }
            let left = end.saturating_duration_since(Instant::now());
            let came = if left.is_zero() {
                self.stream.set_nonblocking(true)?;
                let came = self.stream.read(&mut self.chunk);
                self.stream.set_nonblocking(false)?;
                came
            } else {
                self.stream.set_read_timeout(Some(left))?;
                self.stream.read(&mut self.chunk)
            };
            match came {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.buffer.extend_from_slice(&self.chunk[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if left.is_zero() {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Closes the connection with a TCP reset: what is unread on either side is gone.
    pub fn reset(self) {
        // If the option cannot be set the close is an ordinary one, which the broker must bear as well.
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).ok();
    }

    /// The socket, to shut it down or to see its state.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn decode(&mut self) -> io::Result<Option<Frame>> {
        while self.buffer.get(self.done) == Some(&b'\n') {
            self.done += 1;
        }
        if self.done > 0 && (self.done == self.buffer.len() || self.done > 1 << 20) {
            self.buffer.drain(..self.done);
            self.done = 0;
        }
        match decode(&self.buffer[self.done..])? {
            Some((frame, len)) => {
                self.done += len;
                Ok(Some(frame))
            }
            None => Ok(None),
        }
    }
}

/// The bytes of a frame in STOMP 1.2.
pub fn encode(command: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 256);
    bytes.extend_from_slice(command.as_bytes());
    bytes.push(b'\n');
    for (name, value) in headers {
        for (text, end) in [(name, b':'), (value, b'\n')] {
            for byte in text.bytes() {
                match byte {
                    b'\n' => bytes.extend_from_slice(b"\\n"),
                    b'\r' => bytes.extend_from_slice(b"\\r"),
                    b':' => bytes.extend_from_slice(b"\\c"),
                    b'\\' => bytes.extend_from_slice(b"\\\\"),
                    _ => bytes.push(byte),
                }
            }
            bytes.push(end);
        }
    }
    if !body.is_empty() {
        bytes.extend_from_slice(format!("content-length:{}\n", body.len()).as_bytes());
    }
    bytes.push(b'\n');
    bytes.extend_from_slice(body);
    bytes.push(0);
    bytes
}

/// The first frame in the bytes and how many bytes it took; `None` where it is not whole yet.
pub fn decode(bytes: &[u8]) -> io::Result<Option<(Frame, usize)>> {
    let bad = |what: &str| io::Error::new(ErrorKind::InvalidData, what.to_owned());
    let mut at = bytes
        .iter()
        .position(|byte| *byte != b'\n')
        .unwrap_or(bytes.len());
    let mut lines = Vec::new();
    loop {
        let Some(len) = bytes[at..].iter().position(|byte| *byte == b'\n') else {
            return if bytes.len() - at > 128 * 1024 {
                Err(bad("a header line without end"))
            } else {
                Ok(None)
            };
        };
        let line = std::str::from_utf8(&bytes[at..at + len]).map_err(|_| bad("a header is not UTF-8"))?;
        at += len + 1;
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let mut lines = lines.into_iter();
    let command = lines.next().ok_or_else(|| bad("no command"))?.to_owned();
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| bad("a header without colon"))?;
        headers.push((unescape(name)?, unescape(value)?));
    }
    let mut frame = Frame {
        command,
        headers,
        body: Vec::new(),
    };
    let len = match frame.header("content-length") {
        Some(text) => text.parse().map_err(|_| bad("content-length is not a number"))?,
        None => match bytes[at..].iter().position(|byte| *byte == 0) {
            Some(len) => len,
            None => return Ok(None),
        },
    };
    let Some(rest) = bytes.get(at..at + len + 1) else {
        return Ok(None);
    };
    if rest[len] != 0 {
        return Err(bad("no NUL after the body"));
    }
    frame.body = rest[..len].to_vec();
    Ok(Some((frame, at + len + 1)))
}

fn unescape(text: &str) -> io::Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('c') => ':',
                Some('\\') => '\\',
                _ => return Err(io::Error::new(ErrorKind::InvalidData, "a wrong escape")),
            },
            c => c,
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_at_every_split() {
        let headers = [("destination", "/queue/a:b\\c\nd\re"), ("x", "")];
        let bytes = encode("SEND", &headers, b"a\0b\n");
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]).unwrap(), None);
        }
        let (frame, len) = decode(&bytes).unwrap().unwrap();
        assert_eq!(len, bytes.len());
        assert_eq!(frame.header("destination"), Some("/queue/a:b\\c\nd\re"));
        assert_eq!(frame.header("x"), Some(""));
        assert_eq!(frame.body, b"a\0b\n");
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        for bytes in [
            &b"A\nb\n\n\0"[..],
            b"A\nb:\\x\n\n\0",
            b"A\ncontent-length:1\n\nab\0",
        ] {
            assert!(decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
