//! STOMP over WebSocket, against the client of another library.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use tungstenite::client::IntoClientRequest;
use tungstenite::error::{Error, ProtocolError};
use tungstenite::handshake::client::{Request, Response};
use tungstenite::http::StatusCode;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};
use tungstenite::{Bytes, HandshakeError, Message};

use super::*;
use crate::client::send_frame;

const CONNECT: &str = "CONNECT\naccept-version:1.2\nhost:test\n\n\0";

struct Web<S = TcpStream>(tungstenite::WebSocket<S>);

impl Web {
    fn dial(server: &Server) -> Self {
        let (web, _) = upgrade(server, "/", &[]).unwrap();
        web
    }

    fn connect(server: &Server) -> Self {
        Self::dial(server).logged_in()
    }

    /// Writes bytes beneath WebSocket.
    fn write_raw(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }
}

impl<S: Read + Write> Web<S> {
    fn logged_in(mut self) -> Self {
        self.send(CONNECT);
        assert!(self.text().starts_with("CONNECTED\nversion:1.2\n"));
        self
    }

    fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).unwrap();
    }

    /// The next message, of text.
    fn text(&mut self) -> String {
        match self.0.read().unwrap() {
            Message::Text(text) => text.to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn binary(&mut self) -> Bytes {
        match self.0.read().unwrap() {
            Message::Binary(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }

    fn expect_receipt(&mut self, receipt: &str) {
        assert_eq!(self.text(), format!("RECEIPT\nreceipt-id:{receipt}\n\n\0\n"));
    }

    /// The broker closes: first in WebSocket, then the stream.
    fn expect_close(&mut self, expected: CloseCode) {
        match self.0.read().unwrap() {
            Message::Close(Some(close)) => assert_eq!(close.code, expected),
            other => panic!("{other:?}"),
        }
        assert!(matches!(self.0.read(), Err(Error::ConnectionClosed)));
    }
}

fn request(server: &Server, path: &str, headers: &[(&'static str, &str)]) -> Request {
    let url = format!("ws://{}{path}", server.address());
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

fn upgrade(server: &Server, path: &str, headers: &[(&'static str, &str)]) -> Result<(Web, Response), Error> {
    let request = request(server, path, headers);
    match tungstenite::client(request, dial(server.address())) {
        Ok((web, response)) => Ok((Web(web), response)),
        Err(HandshakeError::Failure(error)) => Err(error),
        Err(HandshakeError::Interrupted(_)) => panic!("a blocking socket is not interrupted"),
    }
}

#[test]
fn a_message_is_text_where_it_can_be() {
    let server = serve(ws(), |_| {});
    let mut web = Web::connect(&server);
    web.send("SUBSCRIBE\nid:0\ndestination:/queue/q\nreceipt:s\n\n\0");
    web.expect_receipt("s");
    web.send("SEND\ndestination:/queue/q\nreceipt:t\n\ngrün 日本\0");
    web.expect_receipt("t");
    let text = web.text();
    assert!(
        text.starts_with("MESSAGE\n") && text.ends_with("\n\ngrün 日本\0\n"),
        "{text}"
    );
    // A body that is not UTF-8 comes as a binary message, and goes as one.
    let body = b"\xff\0\xfe";
    web.0.send(Message::binary(send_frame("q", body, "b"))).unwrap();
    web.expect_receipt("b");
    let binary = web.binary();
    assert!(binary.starts_with(b"MESSAGE\n") && binary.ends_with(b"\n\n\xff\0\xfe\0\n"));
    // More than makes it a newcomer, so that it goes from one thread to another.
    for number in 0..200 {
        web.send(&format!("SEND\ndestination:/queue/q\n\n{number}\0"));
        assert!(web.text().ends_with(&format!("\n\n{number}\0\n")));
    }
}

#[test]
fn a_long_body_is_one_message() {
    let server = serve(ws(), |_| {});
    let mut web = Web::connect(&server);
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    web.0.send(Message::binary(send_frame("q", &body, "r"))).unwrap();
    web.expect_receipt("r");
    web.send("SUBSCRIBE\nid:0\ndestination:/queue/q\nreceipt:s\n\n\0");
    web.expect_receipt("s");
    let message = web.binary();
    assert!(message.starts_with(b"MESSAGE\n"));
    let end = message.len() - 2;
    assert!(message[end - body.len()..end] == body, "the body is whole");
    assert_eq!(message[end..], *b"\0\n");
    web.send("DISCONNECT\nreceipt:bye\n\n\0");
    web.expect_receipt("bye");
    web.expect_close(CloseCode::Normal);
}

#[test]
fn frames_and_messages_need_not_have_the_same_bounds() {
    let server = serve(ws(), |_| {});
    let mut web = Web::dial(&server);
    // A frame over several messages, of either kind; cut within a character, too.
    web.send("CONN");
    web.0
        .send(Message::binary(&b"ECT\naccept-version:1.2\n"[..]))
        .unwrap();
    web.send("host:a\n\n");
    web.send("\0");
    assert!(web.text().starts_with("CONNECTED\n"));
    // Several frames in one message.
    web.send("SEND\ndestination:/queue/q\nreceipt:1\n\na\0\nSEND\ndestination:/queue/q\nreceipt:2\n\nb\0");
    web.expect_receipt("1");
    web.expect_receipt("2");
    // A message in several frames of WebSocket, with a ping between, cut within a character.
    let text = "SEND\ndestination:/queue/q\nreceipt:3\n\n日\0".as_bytes();
    let (begin, end) = text.split_at(text.len() - 2);
    let mut part = |opcode, is_final, payload: &[u8]| {
        let frame = Frame::message(payload.to_vec(), OpCode::Data(opcode), is_final);
        web.0.send(Message::Frame(frame)).unwrap();
    };
    part(Data::Text, false, begin);
    part(Data::Continue, false, b"");
    web.0.send(Message::Ping(Bytes::from_static(b"there?"))).unwrap();
    let frame = Frame::message(end.to_vec(), OpCode::Data(Data::Continue), true);
    web.0.send(Message::Frame(frame)).unwrap();
    let mut answers = [web.0.read().unwrap(), web.0.read().unwrap()];
    answers.sort_by_key(Message::is_text);
    assert_eq!(answers[0], Message::Pong(Bytes::from_static(b"there?")));
    assert_eq!(answers[1], Message::text("RECEIPT\nreceipt-id:3\n\n\0\n"));
    // A heart-beat is a message of its own.
    web.send("\n");
    web.send("SEND\ndestination:/queue/q\nreceipt:4\n\n\0");
    web.expect_receipt("4");
}

#[test]
fn the_last_frame_precedes_the_close() {
    let server = serve(ws(), |_| {});
    let mut web = Web::connect(&server);
    // All at once: nothing of it is behind the close.
    let mut frames = String::new();
    for number in 0..100 {
        frames.push_str(&format!("SEND\ndestination:/queue/q\nreceipt:{number}\n\nx\0"));
    }
    frames.push_str("DISCONNECT\nreceipt:bye\n\n\0");
    web.send(&frames);
    for number in 0..100 {
        web.expect_receipt(&number.to_string());
    }
    web.expect_receipt("bye");
    web.expect_close(CloseCode::Normal);

    let mut web = Web::connect(&server);
    web.send("NONSENSE\n\n\0");
    let error = web.text();
    assert!(error.starts_with("ERROR\nmessage:unknown command\n"), "{error}");
    web.expect_close(CloseCode::Normal);

    // A close of the peer's is answered, behind what was due to it.
    let mut web = Web::connect(&server);
    web.send("SEND\ndestination:/queue/q\nreceipt:last\n\nx\0");
    web.0.close(None).unwrap();
    web.0.flush().unwrap();
    web.expect_receipt("last");
    assert!(matches!(web.0.read(), Ok(Message::Close(_))));
    assert!(matches!(web.0.read(), Err(Error::ConnectionClosed)));
    server.await_stats("the end of all", |stats| {
        stats.connection_count == 0 && stats.disconnected_count == 1 && stats.lost_count == 1
    });
}

#[test]
fn what_websocket_forbids_ends_the_connection() {
    let server = serve(ws(), |_| {});
    let header = |opcode, is_final, rsv1, mask| FrameHeader {
        is_final,
        rsv1,
        opcode: OpCode::Data(opcode),
        mask,
        ..FrameHeader::default()
    };
    let zero = Some([0; 4]);
    let wrong = [
        (
            header(Data::Text, true, false, None),
            &b"x"[..],
            CloseCode::Protocol,
        ),
        (header(Data::Text, true, true, zero), b"x", CloseCode::Protocol),
        (
            header(Data::Continue, true, false, zero),
            b"x",
            CloseCode::Protocol,
        ),
        (header(Data::Text, true, false, zero), b"\xff", CloseCode::Invalid),
        // A character that no frame follows to end it.
        (
            header(Data::Text, true, false, zero),
            b"\xe6\x97",
            CloseCode::Invalid,
        ),
    ];
    let count = wrong.len() as u64;
    for (header, payload, expected) in wrong {
        let mut web = Web::connect(&server);
        let mut frame = Vec::new();
        header.format(payload.len() as u64, &mut frame).unwrap();
        frame.extend_from_slice(payload);
        web.write_raw(&frame);
        match web.0.read() {
            Ok(Message::Close(Some(close))) => assert_eq!(close.code, expected),
            other => panic!("{other:?}"),
        }
    }
    server.await_stats("the end of all", |stats| {
        stats.violation_count == count && stats.connection_count == 0
    });
}

#[test]
fn a_message_of_any_length_is_bounded_as_frames_are() {
    let server = serve(ws(), |options| options.limits.body_bytes_max = 100_000);
    let mut web = Web::connect(&server);
    web.0
        .send(Message::binary(send_frame("q", &[b'x'; 100_000], "r")))
        .unwrap();
    web.expect_receipt("r");
    // The header of a message of 4 EiB costs nothing but what comes.
    let mut header = Vec::new();
    let announced = FrameHeader {
        opcode: OpCode::Data(Data::Binary),
        mask: Some([0; 4]),
        ..FrameHeader::default()
    };
    announced.format(1 << 62, &mut header).unwrap();
    web.write_raw(&header);
    web.write_raw(&send_frame("q", &[b'x'; 100_000], "s"));
    web.expect_receipt("s");
    web.write_raw(&send_frame("q", &[b'x'; 100_001], "t"));
    let error = web.text();
    assert!(error.contains("\ncode:body-too-long\n"), "{error}");
    web.expect_close(CloseCode::Normal);
    // Before login even less.
    let mut web = Web::dial(&server);
    web.0
        .send(Message::text(format!("CONNECT\n{}", "a:b\n".repeat(20_000))))
        .unwrap();
    let error = web.text();
    assert!(error.starts_with("ERROR\n"), "{error}");
}

#[test]
fn pings_are_answered_while_much_is_written() {
    let server = serve(ws(), |_| {});
    let mut web = Web::connect(&server);
    for _ in 0..40 {
        web.0
            .send(Message::binary(send_frame("q", &[b'x'; 200_000], "")))
            .unwrap();
    }
    web.send("SUBSCRIBE\nid:0\ndestination:/queue/q\nreceipt:s\n\n\0");
    for number in 0..50_u8 {
        web.0.send(Message::Ping(vec![number].into())).unwrap();
    }
    let (mut message_count, mut last_pong) = (0, None);
    while message_count < 40 || last_pong != Some(49) {
        match web.0.read().unwrap() {
            Message::Pong(payload) => last_pong = payload.first().copied(),
            message if message.len() > 200_000 => message_count += 1,
            _ => {}
        }
    }
}

#[test]
fn sub_protocols_are_confirmed_if_they_are_known() {
    let server = serve(ws(), |_| {});
    let name = "sec-websocket-protocol";
    for (offered, confirmed) in [
        ("v10.stomp, v11.stomp, v12.stomp", "v12.stomp"),
        ("v10.stomp,mqtt,v11.stomp", "v11.stomp"),
        ("v10.stomp", "v10.stomp"),
    ] {
        let (web, response) = upgrade(&server, "/", &[(name, offered)]).unwrap();
        assert_eq!(response.headers()[name], confirmed);
        web.logged_in();
    }
    // Nothing offered is served; what is unknown is not confirmed, of which this client complains.
    upgrade(&server, "/", &[]).unwrap().0.logged_in();
    match upgrade(&server, "/", &[(name, "mqtt")]).map(|_| ()) {
        Err(Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_))) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn paths_and_origins_are_as_configured() {
    let served =
        |server: &Server, path, headers: &[(&'static str, &str)]| match upgrade(server, path, headers) {
            Ok((web, response)) => {
                assert!(!response.headers().contains_key("sec-websocket-extensions"));
                web.logged_in();
                StatusCode::SWITCHING_PROTOCOLS
            }
            Err(Error::Http(response)) => response.status(),
            Err(other) => panic!("{other:?}"),
        };
    let (yes, no) = (StatusCode::SWITCHING_PROTOCOLS, StatusCode::FORBIDDEN);
    let server = serve(ws(), |_| {});
    assert_eq!(served(&server, "/ws?token=1", &[]), yes);
    assert_eq!(served(&server, "/other", &[]), StatusCode::NOT_FOUND);
    // No page is served unless it is listed, not even one that claims to come from here.
    let own = format!("http://{}", server.address());
    assert_eq!(served(&server, "/", &[("origin", &own)]), no);
    assert_eq!(served(&server, "/", &[("origin", "null")]), no);
    // Nobody is talked into compression.
    let deflate = ("sec-websocket-extensions", "permessage-deflate");
    assert_eq!(served(&server, "/", &[deflate]), yes);

    let listener = |origins: &[&str]| Listener {
        websocket: Some(WebSocket {
            paths: vec!["/stomp".to_owned()],
            origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
        }),
        ..any()
    };
    let server = serve(
        listener(&["https://app.example", "http://localhost:8080"]),
        |_| {},
    );
    for (origin, expected) in [
        ("https://app.example", yes),
        ("https://APP.example", yes),
        ("http://localhost:8080", yes),
        ("http://app.example", no),
        ("https://app.example:8443", no),
        ("https://app.example.evil.example", no),
        ("null", no),
    ] {
        assert_eq!(
            served(&server, "/stomp", &[("origin", origin)]),
            expected,
            "{origin}"
        );
    }
    assert_eq!(served(&server, "/", &[]), StatusCode::NOT_FOUND);
    let server = serve(listener(&["*"]), |_| {});
    assert_eq!(
        served(&server, "/stomp", &[("origin", "https://any.example")]),
        yes
    );
}

#[test]
fn over_tls_it_is_the_same() {
    let folder = Folder::new();
    let server = serve(wss(&folder), |_| {});
    let config = trusting(&folder.authority, &[&rustls::version::TLS13]).with_no_client_auth();
    let stream = dial_tls(server.address(), config);
    let (web, _) = tungstenite::client(request(&server, "/", &[]), stream).unwrap();
    let mut web = Web(web).logged_in();
    web.send("SUBSCRIBE\nid:0\ndestination:/queue/q\nreceipt:s\n\n\0");
    web.expect_receipt("s");
    for number in 0..200 {
        web.send(&format!("SEND\ndestination:/queue/q\n\n{number}\0"));
        assert!(web.text().ends_with(&format!("\n\n{number}\0\n")));
    }
    web.send("DISCONNECT\nreceipt:bye\n\n\0");
    web.expect_receipt("bye");
    web.expect_close(CloseCode::Normal);
}

#[test]
fn frames_that_come_with_the_request_are_not_lost() {
    let server = serve(ws(), |_| {});
    let mut stream = dial(server.address());
    let mut bytes =
        b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            .to_vec();
    let header = FrameHeader {
        mask: Some([1, 2, 3, 4]),
        ..FrameHeader::default()
    };
    let mut masked = Frame::from_payload(header, Bytes::from_static(CONNECT.as_bytes()));
    masked.header_mut().opcode = OpCode::Data(Data::Text);
    masked.format(&mut bytes).unwrap();
    stream.write_all(&bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer);
    // The example of RFC 6455, section 1.3.
    assert!(
        answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
        "{answer}"
    );
    assert!(answer.contains("CONNECTED\nversion:1.2\n"), "{answer}");
}
