//! The request that WebSocket begins with, and the answer.

use std::io;

use httparse::{EMPTY_HEADER, Request, Status};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tungstenite::handshake::derive_accept_key;

use super::WebSocket;
use crate::config;
use crate::listener::{Carrier, Met, TLS_HANDSHAKE, Unwelcome};
use crate::session::{Violation, mistaken, refusal};

/// Header lines of a request.
const HEADER_COUNT_MAX: usize = 100;

/// Read at a time.
const READ_BYTES: usize = 2 * 1024;

/// A key is 16 bytes in base64.
const KEY_BYTES: usize = 24;

/// Those that we confirm, the most preferred first.
const PROTOCOLS: [&str; 3] = ["v12.stomp", "v11.stomp", "v10.stomp"];

/// Which requests are taken.
#[derive(Debug)]
pub(in crate::listener) struct Rules {
    of: config::WebSocket,
    head_bytes_max: usize,
}

/// Somebody who is not served, with the stream by which it may be told.
pub(in crate::listener) struct Refused<S> {
    why: Unwelcome,
    told: Option<(S, Vec<u8>)>,
}

impl<S> Refused<S> {
    pub(in crate::listener) fn into_met(self, carrier: impl FnOnce(S) -> Carrier) -> Met {
        match self.told {
            Some((stream, answer)) => Met::Farewell(self.why, carrier(stream), answer),
            None => Met::Gone(self.why),
        }
    }

    fn silent(why: Unwelcome) -> Self {
        Self { why, told: None }
    }
}

/// What a head is.
#[derive(Debug, PartialEq, Eq)]
enum Head {
    /// More is to come.
    Partial,
    /// A request of so many bytes, to be answered so.
    Taken { len: usize, answer: Vec<u8> },
    /// A request that is not served.
    Refused(u16, &'static str, Vec<u8>),
    /// No request at all.
    Stranger(&'static str, Vec<u8>),
}

impl Rules {
    pub(in crate::listener) fn new(of: config::WebSocket, head_bytes_max: usize) -> Self {
        Self { of, head_bytes_max }
    }

    /// Reads a request and takes it, or not.
    pub(in crate::listener) async fn accept<S>(&self, mut stream: S) -> Result<WebSocket<S>, Refused<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let failed = |error: io::Error| Refused::silent(error.into());
        let mut bytes = Vec::new();
        let (why, answer) = loop {
            let before = bytes.len();
            // Not more than is allowed, and never by what is announced.
            bytes.resize((before + READ_BYTES).min(self.head_bytes_max + 1), 0);
            let room = bytes.get_mut(before..).unwrap_or_default();
            let count = stream.read(room).await.map_err(failed)?;
            bytes.truncate(before + count);
            let within = bytes.get(..self.head_bytes_max).unwrap_or(&bytes);
            match self.judge(within) {
                _ if count == 0 => return Err(Refused::silent(Unwelcome::Lost)),
                Head::Partial if bytes.len() > self.head_bytes_max => {
                    let what = "Request Header Fields Too Large";
                    let text =
                        "The head of the request is longer than this broker allows (login_bytes_max).\n";
                    break (Unwelcome::Request(431, what), answer(431, what, "", text));
                }
                Head::Partial => {}
                Head::Taken { len, answer } => {
                    stream.write_all(&answer).await.map_err(failed)?;
                    stream.flush().await.map_err(failed)?;
                    return Ok(WebSocket::new(stream, bytes.split_off(len)));
                }
                Head::Refused(status, what, answer) => break (Unwelcome::Request(status, what), answer),
                Head::Stranger(code, answer) => break (Unwelcome::Stranger(code), answer),
            }
        };
        let told = Some((stream, answer));
        Err(Refused { why, told })
    }

    fn judge(&self, bytes: &[u8]) -> Head {
        if bytes.first() == Some(&TLS_HANDSHAKE) {
            let text = "This port speaks WebSocket without TLS: connect by ws://, not wss://.\n";
            return Head::Stranger(Violation::Tls.code(), answer(400, "Bad Request", "", text));
        }
        let mut headers = [EMPTY_HEADER; HEADER_COUNT_MAX];
        let mut request = Request::new(&mut headers);
        let len = match request.parse(bytes) {
            Ok(Status::Complete(len)) => len,
            Ok(Status::Partial) => return Head::Partial,
            Err(httparse::Error::TooManyHeaders) => {
                let what = "Request Header Fields Too Large";
                return refused(431, what, "", "The request has too many headers.\n");
            }
            // What begins as a request is one.
            Err(_) if mistaken(bytes) == Some(Violation::Http) => {
                return refused(400, "Bad Request", "", "This is not a request of HTTP/1.1.\n");
            }
            Err(_) => {
                let code = Violation::WebSocketNeeded;
                return Head::Stranger(code.code(), refusal(code));
            }
        };
        match self.check(&request) {
            Ok(answer) => Head::Taken { len, answer },
            Err(refused) => refused,
        }
    }

    /// Whether a request is served; the answer if it is.
    fn check(&self, request: &Request<'_, '_>) -> Result<Vec<u8>, Head> {
        let path = request.path.unwrap_or_default();
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        if !self.of.paths.iter().any(|served| served == path) {
            return Err(refused(
                404,
                "Not Found",
                "",
                "No WebSocket is served under this path.\n",
            ));
        }
        let asks = request.method == Some("GET")
            && request.version == Some(1)
            && lists(request, "connection", "upgrade")
            && lists(request, "upgrade", "websocket");
        if !asks {
            let more = "Upgrade: websocket\r\n";
            let text = "This port speaks STOMP over WebSocket: connect by ws:// or wss://.\n";
            return Err(refused(426, "Upgrade Required", more, text));
        }
        if value(request, "sec-websocket-version") != Some(b"13") {
            let more = "Sec-WebSocket-Version: 13\r\n";
            return Err(refused(
                426,
                "Upgrade Required",
                more,
                "Version 13 of WebSocket is spoken here.\n",
            ));
        }
        let key = value(request, "sec-websocket-key").filter(|key| key.len() == KEY_BYTES);
        let Some(key) = key else {
            return Err(refused(
                400,
                "Bad Request",
                "",
                "Sec-WebSocket-Key is missing, or no key.\n",
            ));
        };
        if let Some(origin) = value(request, "origin")
            && !self.is_allowed(origin)
        {
            let text = "Pages of this origin are not served (origins of the [[listener]]).\n";
            return Err(refused(403, "Forbidden", "", text));
        }
        let offered = |protocol: &&str| lists(request, "sec-websocket-protocol", protocol);
        let protocol = match PROTOCOLS.iter().find(|protocol| offered(protocol)) {
            Some(protocol) => format!("Sec-WebSocket-Protocol: {protocol}\r\n"),
            None => String::new(),
        };
        let accept = derive_accept_key(key);
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{protocol}\r\n"
        );
        Ok(answer.into_bytes())
    }

    fn is_allowed(&self, origin: &[u8]) -> bool {
        let any = config::WebSocket::ANY;
        let mut allowed = self.of.origins.iter();
        allowed.any(|allowed| allowed == any || allowed.as_bytes().eq_ignore_ascii_case(origin))
    }
}

/// The value of a header; of a repeated one the first counts.
fn value<'h>(request: &Request<'_, 'h>, name: &str) -> Option<&'h [u8]> {
    let header = request
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case(name))?;
    Some(header.value.trim_ascii())
}

/// Whether a header, or several of its name, list a word.
fn lists(request: &Request<'_, '_>, name: &str, word: &str) -> bool {
    let mut headers = request
        .headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case(name));
    headers.any(|header| {
        let mut words = header.value.split(|byte| *byte == b',');
        words.any(|listed| listed.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
    })
}

fn refused(status: u16, what: &'static str, more: &str, text: &str) -> Head {
    Head::Refused(status, what, answer(status, what, more, text))
}

/// An answer of HTTP with a text for people; `more` are header lines.
pub(in crate::listener) fn answer(status: u16, what: &str, more: &str, text: &str) -> Vec<u8> {
    let len = text.len();
    format!(
        "HTTP/1.1 {status} {what}\r\nContent-Type: text/plain\r\nContent-Length: {len}\r\n\
         Connection: close\r\n{more}\r\n{text}"
    )
    .into_bytes()
}
