//! A STOMP client as simple as can be: one blocking socket, frames read one by one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Long enough for any answer on a loaded machine; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Client<S = TcpStream> {
    pub(crate) stream: S,
    unread: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) command: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Frame {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    /// A socket, without a word said.
    pub(crate) fn dial(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// Connected, in version 1.2.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::dial(address).logged_in()
    }

    /// Whether nothing comes for a little while. Where nothing must come, it proves little; it never fails falsely.
    pub(crate) fn is_silent(&mut self) -> bool {
        self.stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let mut byte = [0];
        let silent = self.unread.is_empty() && self.stream.peek(&mut byte).is_err();
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }
}

impl<S: Read + Write> Client<S> {
    /// Over any stream, without a word said.
    pub(crate) fn over(stream: S) -> Self {
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// Connected, in version 1.2.
    pub(crate) fn logged_in(mut self) -> Self {
        self.send("CONNECT\naccept-version:1.2\nhost:test\n\n\0");
        let connected = self.frame();
        assert_eq!(connected.command, "CONNECTED", "{connected:?}");
        self
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Reads until at least so many bytes are there that no frame was made of yet.
    pub(crate) fn read_up_to(&mut self, count: usize) {
        let mut buffer = [0; 64 * 1024];
        while self.unread.len() < count {
            let read = self.stream.read(&mut buffer).unwrap();
            assert!(read > 0, "the broker closed the connection");
            self.unread.extend_from_slice(&buffer[..read]);
        }
    }

    pub(crate) fn publish(&mut self, queue: &str, body: &str, receipt: &str) {
        self.send(send_frame(queue, body.as_bytes(), receipt));
    }

    pub(crate) fn subscribe(&mut self, queue: &str, ack: &str, more: &str) {
        self.send(format!(
            "SUBSCRIBE\nid:{queue}\ndestination:/queue/{queue}\nack:{ack}\nreceipt:sub\n{more}\n\0"
        ));
        self.expect_receipt("sub");
    }

    pub(crate) fn ack(&mut self, message: &Frame, receipt: &str) {
        self.send(format!(
            "ACK\nid:{}\nreceipt:{receipt}\n\n\0",
            message.header("ack")
        ));
        self.expect_receipt(receipt);
    }

    pub(crate) fn expect_receipt(&mut self, receipt: &str) {
        let frame = self.frame();
        assert_eq!(
            (frame.command.as_str(), frame.header("receipt-id")),
            ("RECEIPT", receipt),
            "{frame:?}"
        );
    }

    pub(crate) fn expect_message(&mut self, body: &str) -> Frame {
        let frame = self.frame();
        assert_eq!(
            (frame.command.as_str(), frame.text()),
            ("MESSAGE", body),
            "{frame:?}"
        );
        frame
    }

    pub(crate) fn expect_error(&mut self) -> Frame {
        let frame = self.frame();
        assert_eq!(frame.command, "ERROR", "{frame:?}");
        frame
    }

    /// DISCONNECT, its RECEIPT, the end.
    pub(crate) fn disconnect(mut self) {
        self.send("DISCONNECT\nreceipt:bye\n\n\0");
        self.expect_receipt("bye");
        self.expect_end();
    }

    /// The broker closes without a reset and without another frame.
    pub(crate) fn expect_end(&mut self) {
        let end = self.try_frame();
        assert_eq!(end, None);
    }

    pub(crate) fn frame(&mut self) -> Frame {
        self.try_frame().expect("a frame, not the end")
    }

    /// The next frame, or `None` at the end of the stream.
    pub(crate) fn try_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, len)) = parse(&self.unread) {
                self.unread.drain(..len);
                return Some(frame);
            }
            let mut buffer = vec![0; 64 * 1024];
            let count = self.stream.read(&mut buffer).unwrap();
            if count == 0 {
                assert!(
                    self.unread.iter().all(|byte| *byte == b'\n'),
                    "the stream ends within a frame"
                );
                return None;
            }
            self.unread.extend_from_slice(&buffer[..count]);
        }
    }
}

pub(crate) fn send_frame(queue: &str, body: &[u8], receipt: &str) -> Vec<u8> {
    let mut frame = format!(
        "SEND\ndestination:/queue/{queue}\ncontent-length:{}\n",
        body.len()
    );
    if !receipt.is_empty() {
        frame.push_str(&format!("receipt:{receipt}\n"));
    }
    frame.push('\n');
    let mut frame = frame.into_bytes();
    frame.extend_from_slice(body);
    frame.push(0);
    frame
}

fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let start = bytes.iter().position(|byte| *byte != b'\n')?;
    let head_len = bytes[start..].windows(2).position(|pair| pair == b"\n\n")?;
    let head = std::str::from_utf8(&bytes[start..start + head_len]).unwrap();
    let mut lines = head.split('\n');
    let command = lines.next().unwrap().to_owned();
    let headers: Vec<(String, String)> = lines
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_owned(), value.to_owned())
        })
        .collect();
    let body_start = start + head_len + 2;
    let rest = &bytes[body_start..];
    let len = match headers.iter().find(|(name, _)| name == "content-length") {
        Some((_, len)) => len.parse().unwrap(),
        None => rest.iter().position(|byte| *byte == 0)?,
    };
    let end = rest.get(len..len + 2)?;
    assert_eq!(end, b"\0\n");
    let body = rest[..len].to_vec();
    let frame = Frame {
        command,
        headers,
        body,
    };
    Some((frame, body_start + len + 2))
}
