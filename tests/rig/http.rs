//! A tiny blocking HTTP/1.1 client: one request on one connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("an answer is text")
    }

    /// Its JSON, of a status of 200.
    pub fn json<T: DeserializeOwned>(&self) -> T {
        assert_eq!(self.status, 200, "{self:?}");
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Its status, and the code of its error.
    pub fn failure(&self) -> (u16, String) {
        let failed: Value = serde_json::from_slice(&self.body).expect("an error is JSON");
        let message = failed["message"].as_str().expect("it has a message");
        assert!(!message.is_empty());
        (
            self.status,
            failed["code"].as_str().expect("it has a code").to_owned(),
        )
    }
}

/// Asks over a socket of the file system.
pub fn ask(socket: &Path, method: &str, target: &str, body: &str) -> io::Result<Answer> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    exchange(stream, method, target, body)
}

/// Asks over TCP.
pub fn ask_tcp(address: SocketAddr, method: &str, target: &str) -> io::Result<Answer> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    exchange(stream, method, target, "")
}

fn exchange(mut stream: impl Read + Write, method: &str, target: &str, body: &str) -> io::Result<Answer> {
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    // A request that is refused for its head may be answered before its body is taken.
    let sent = stream.write_all(body.as_bytes());
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    parse(&bytes).ok_or_else(|| {
        let error = sent.err().or(read.err());
        error.unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())
    })
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let head_len = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..head_len].to_vec()).ok()?.to_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = bytes[head_len + 4..].to_vec();
    let len: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))?
        .parse()
        .ok()?;
    let is_whole = body.len() == len || body.is_empty();
    is_whole.then_some(Answer { status, head, body })
}
