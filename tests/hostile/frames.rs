//! Frames that are wrong, or nearly so.

use crate::rig::Rng;

/// Version, bytes, and what is answered: a code, or "receipt".
pub const ODD: &[(&str, &[u8], &str)] = &[
    ("1.0", b"SEND\ndestination:/queue/odd\nreceipt:r\n\n\0", "receipt"),
    ("1.0", b"SEND \ndestination:/queue/odd\n\n\0", "unknown-command"),
    ("1.0", b"SEND\r\ndestination:/queue/odd\n\n\0", "unknown-command"),
    ("1.1", b"SEND\r\ndestination:/queue/odd\n\n\0", "unknown-command"),
    (
        "1.2",
        b"SEND\r\ndestination:/queue/odd\r\nreceipt:r\r\n\r\nx\0",
        "receipt",
    ),
    (
        "1.2",
        b"SEND\r\r\ndestination:/queue/odd\n\n\0",
        "unknown-command",
    ),
    ("1.2", b"SE\0ND\ndestination:/queue/odd\n\n\0", "nul-in-header"),
    ("1.0", b"SEND\ndestination:/queue/odd\0\n\n\0", "nul-in-header"),
    ("1.1", b"SEND\ndestination:/queue/odd\n\0\n\n", "nul-in-header"),
    ("1.2", b"SEND\n\r\n\0", "header-missing"),
    ("1.1", b"SEND\n\r\n\0", "nul-in-header"),
    ("1.2", b"SEND\n:/queue/odd\n\n\0", "bad-header"),
    ("1.2", b"SEND\ndestination\n\n\0", "bad-header"),
    ("1.2", b"SEND\ndesti\rnation:/queue/odd\n\n\0", "bad-header"),
    ("1.2", b"SEND\ndestination:/queue/odd\nx:\\t\n\n\0", "bad-escape"),
    ("1.2", b"SEND\ndestination:/queue/odd\nx:\\\n\n\0", "bad-escape"),
    (
        "1.2",
        b"SEND\ndestination:/queue/odd\nx\\c:\\r\\n\\c\\\\\nreceipt:r\n\n\0",
        "receipt",
    ),
    ("1.1", b"SEND\ndestination:/queue/odd\nx:\\r\n\n\0", "bad-escape"),
    (
        "1.1",
        b"SEND\ndestination:/queue/odd\nx:\\n\nreceipt:r\n\n\0",
        "receipt",
    ),
    (
        "1.0",
        b"SEND\ndestination:/queue/odd\nx:\\t\\\nreceipt:r\n\n\0",
        "receipt",
    ),
    (
        "1.2",
        b"SEND\ndestination:/queue/odd\nreceipt:\\\n\n\0",
        "bad-escape",
    ),
    ("1.2", b"SEND\ndestination:/queue/\xff\n\n\0", "not-utf8"),
    ("1.1", b"SEND\ndestination:/queue/\xc0\x80\n\n\0", "not-utf8"),
    (
        "1.2",
        b"SEND\ndestination:/queue/odd\ncontent-length:3\nreceipt:r\n\n\0\0\0\0",
        "receipt",
    ),
    (
        "1.2",
        b"SEND\ndestination:/queue/odd\ncontent-length:2\n\n\0\0\0\0",
        "nul-in-header",
    ),
    ("1.2", b"ACK\nid:1\n\nbody\0", "body-not-allowed"),
    ("1.2", b"ACK\n\n\0", "header-missing"),
    ("1.0", b"NACK\nmessage-id:1\n\n\0", "nack-unsupported"),
    ("1.2", b"MESSAGE\n\n\0", "unknown-command"),
    ("1.2", b"\n\r\n\n\rSEND\n\n\0", "unknown-command"),
    ("1.2", b"\0", "nul-in-header"),
];

/// What is mutated: right frames of every command.
const RIGHT: &[&[u8]] = &[
    b"CONNECT\naccept-version:1.0,1.1,1.2\nhost:h\nheart-beat:1000,1000\n\n\0",
    b"STOMP\r\naccept-version:1.2\r\nhost:h\r\n\r\n\0",
    b"SEND\ndestination:/queue/wild\n\nbody\0",
    b"SEND\ndestination:/queue/wild\ncontent-length:5\nreceipt:a\\cb\n\na\0b\nc\0",
    b"SEND\ndestination:/topic/wild\npersistent:false\ntransaction:t\n\nbody\0",
    b"SEND\ndestination:/queue/wild\npersistent:false\n\nin memory\0",
    b"SUBSCRIBE\nid:0\ndestination:/queue/wild\nack:client-individual\nprefetch-count:10\n\n\0",
    b"SUBSCRIBE\nid:1\ndestination:/topic/wild\nreceipt:s\n\n\0",
    b"UNSUBSCRIBE\nid:0\nreceipt:u\n\n\0",
    b"BEGIN\ntransaction:t\n\n\0",
    b"COMMIT\ntransaction:t\nreceipt:c\n\n\0",
    b"ABORT\ntransaction:t\n\n\0",
    b"ACK\nid:00000000-1-1-1\nmessage-id:00000000-1-1\nsubscription:0\n\n\0",
    b"NACK\nid:00000000-1-1-1\nmessage-id:00000000-1-1\nsubscription:0\ntransaction:t\n\n\0",
    b"DISCONNECT\nreceipt:bye\n\n\0",
    b"\n\n\r\n\n",
];

/// Bytes that mean something.
const SPECIAL: &[u8] = b"\0\n\r:\\cnr, \xff\x16\x03/0123456789";

/// A frame changed in a few places; some as they are, some nothing but noise.
pub fn mutated(rng: &mut Rng) -> Vec<u8> {
    if rng.chance(3) {
        let len = rng.below(300);
        return (0..len).map(|_| rng.next() as u8).collect();
    }
    let mut bytes = RIGHT[rng.below(RIGHT.len())].to_vec();
    for _ in 0..[0, 1, 1, 2, 3, 8][rng.below(6)] {
        let at = rng.below(bytes.len() + 1);
        let special = SPECIAL[rng.below(SPECIAL.len())];
        match rng.below(8) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, special),
            2 => bytes.insert(at, rng.next() as u8),
            3 if at < bytes.len() => bytes[at] = special,
            4 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            5 if at < bytes.len() => drop(bytes.remove(at)),
            6 => {
                let other = RIGHT[rng.below(RIGHT.len())];
                let part = rng.below(other.len());
                bytes.splice(at..at, other[part..].iter().copied());
            }
            _ => {
                let run = vec![special; rng.below(2_000)];
                bytes.splice(at..at, run);
            }
        }
    }
    bytes
}
