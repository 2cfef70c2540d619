//! Bytes out of frames, without IO.

use memchr::memchr3;

#[cfg(test)]
mod tests;

/// Appends a frame of any kind; names and values are escaped as STOMP 1.2 demands (`CONNECT` is not, by its rule).
/// With a body a `content-length` is added.
pub fn encode_frame(out: &mut Vec<u8>, command: &str, headers: &[(&str, &str)], body: Option<&[u8]>) {
    let raw = command == "CONNECT" || command == "CONNECTED";
    out.extend_from_slice(command.as_bytes());
    out.push(b'\n');
    for (name, value) in headers {
        for (part, end) in [(name, b':'), (value, b'\n')] {
            if raw {
                out.extend_from_slice(part.as_bytes());
            } else {
                escape(out, part.as_bytes());
            }
            out.push(end);
        }
    }
    if let Some(body) = body {
        out.extend_from_slice(b"content-length:");
        out.extend_from_slice(itoa::Buffer::new().format(body.len()).as_bytes());
        out.extend_from_slice(b"\n\n");
        out.extend_from_slice(body);
        out.push(0);
    } else {
        out.extend_from_slice(b"\n\0");
    }
}

/// Appends an ACK (or NACK) for the raw value of a MESSAGE's `ack` header: it goes back as it came, escapes and all.
pub fn encode_ack(out: &mut Vec<u8>, raw_ack: &[u8]) {
    out.extend_from_slice(b"ACK\nid:");
    out.extend_from_slice(raw_ack);
    out.extend_from_slice(b"\n\n\0");
}

/// Appends an ACK that is part of a transaction.
pub fn encode_ack_staged(out: &mut Vec<u8>, raw_ack: &[u8], transaction: &str) {
    out.extend_from_slice(b"ACK\nid:");
    out.extend_from_slice(raw_ack);
    out.extend_from_slice(b"\ntransaction:");
    escape(out, transaction.as_bytes());
    out.extend_from_slice(b"\n\n\0");
}

/// The head of a SEND made ahead: only the number in its last header and the body are left to fill in.
#[derive(Debug, Clone)]
pub struct SendTemplate {
    head: Vec<u8>,
}

impl SendTemplate {
    /// A SEND to `destination` with bodies of exactly `body_bytes`, these further headers, and at last the header
    /// `numbered` (`receipt` or `transaction`), whose value is a number that differs from frame to frame.
    pub fn new(destination: &str, body_bytes: usize, headers: &[(String, String)], numbered: &str) -> Self {
        let length = body_bytes.to_string();
        let mut all = vec![("destination", destination), ("content-length", length.as_str())];
        all.extend(
            headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        let mut head = Vec::new();
        encode_frame(&mut head, "SEND", &all, None);
        // Without the empty line and the NUL: the numbered header follows.
        head.truncate(head.len() - 2);
        head.extend_from_slice(numbered.as_bytes());
        head.push(b':');
        Self { head }
    }

    /// Appends the frame, with a deduplication id that needs no escapes, up to its body; `body` appends that, of the announced
    /// length.
    pub fn encode(
        &self,
        out: &mut Vec<u8>,
        number: u64,
        dedup_id: Option<&[u8]>,
        body: impl FnOnce(&mut Vec<u8>),
    ) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        if let Some(id) = dedup_id {
            out.extend_from_slice(b"\ndedup-id:");
            out.extend_from_slice(id);
        }
        out.extend_from_slice(b"\n\n");
        body(out);
        out.push(0);
    }
}

fn escape(out: &mut Vec<u8>, plain: &[u8]) {
    if memchr3(b'\\', b'\n', b':', plain).is_none() && !plain.contains(&b'\r') {
        out.extend_from_slice(plain);
        return;
    }
    for byte in plain {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b':' => out.extend_from_slice(b"\\c"),
            other => out.push(*other),
        }
    }
}
