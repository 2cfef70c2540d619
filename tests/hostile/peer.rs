//! Sockets of those who keep to no rules.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::stage::PATIENCE;

/// One connection, on bare bytes. Reads and writes return at once.
pub struct Peer {
    stream: TcpStream,
    pub answer: Vec<u8>,
    ended: bool,
    over: bool,
}

impl Peer {
    pub fn dial(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
        Self {
            stream,
            answer: Vec::new(),
            ended: false,
            over: false,
        }
    }

    /// Logged in.
    pub fn connect(addr: SocketAddr, version: &str) -> Self {
        let mut peer = Self::dial(addr);
        peer.say(format!("CONNECT\naccept-version:{version}\nhost:h\n\n\0"));
        peer.await_answer("\n\n\0");
        peer.answer.clear();
        peer
    }

    /// Writes what the socket takes now; how much it took. A closed connection takes nothing.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        match self.stream.write(bytes) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.over = true;
                0
            }
        }
    }

    /// Whether a write failed, as it does once the broker closed both sides.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Writes all, unless the connection ends meanwhile.
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let mut rest = bytes.as_ref();
        let begin = Instant::now();
        while !rest.is_empty() && !self.ended && !self.over {
            let count = self.push(rest);
            rest = &rest[count..];
            if count == 0 {
                self.look();
                assert!(begin.elapsed() < PATIENCE, "{} bytes are not taken", rest.len());
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Reads what is there.
    pub fn look(&mut self) {
        let mut chunk = [0; 16 * 1024];
        while !self.ended {
            match self.stream.read(&mut chunk) {
                Ok(0) => self.ended = true,
                Ok(count) => self.answer.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.ended = true,
            }
        }
    }

    /// Whether the broker closed its side. Reads.
    pub fn is_ended(&mut self) -> bool {
        self.look();
        self.ended
    }

    /// Waits until the answer ends in this.
    pub fn await_answer(&mut self, end: &str) {
        let begin = Instant::now();
        loop {
            let is_over = self.is_ended() || begin.elapsed() > PATIENCE;
            if self
                .answer
                .trim_ascii_end()
                .ends_with(end.trim_ascii_end().as_bytes())
            {
                return;
            }
            assert!(!is_over, "no {end:?} but {}", self.answer.escape_ascii());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until anything came.
    pub fn await_any(&mut self) {
        let begin = Instant::now();
        while self.answer.is_empty() && !self.is_ended() {
            assert!(begin.elapsed() < PATIENCE, "no answer");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the broker closed its side, and gives the code of its ERROR.
    pub fn await_code(&mut self) -> String {
        let begin = Instant::now();
        while !self.is_ended() {
            assert!(
                begin.elapsed() < PATIENCE,
                "not closed after {}",
                self.answer.escape_ascii()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        self.code()
    }

    /// The code of the ERROR that came, if one did.
    pub fn code(&self) -> String {
        let text = String::from_utf8_lossy(&self.answer);
        let code = text
            .rsplit_once("ERROR\n")
            .and_then(|(_, error)| error.split_once("\ncode:"))
            .and_then(|(_, code)| code.split('\n').next());
        code.unwrap_or("none").to_owned()
    }

    /// Ends the input of the broker, and goes on reading.
    pub fn shut(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Closes with a TCP reset.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).unwrap();
    }
}
