//! What is in a message: its number decides its length and bytes, so that each can be checked.

use super::oracle::Uid;
use super::rng::Rng;

/// The header that carries the number.
pub(super) const UID: &str = "uid";

/// The body of a message: of even ones small, of odd ones so long that they have body chunks of their own.
pub(super) fn body_of(uid: Uid) -> Vec<u8> {
    let mut rng = Rng::new(uid);
    let len = match rng.below(20) {
        _ if uid % 2 == 1 => 17_000 + rng.below(70_000),
        0 | 1 => 0,
        2..15 => rng.below(300),
        15..19 => rng.below(5_000),
        _ => rng.below(20_000),
    };
    let mut body = Vec::with_capacity(len + 8);
    while body.len() < len {
        body.extend_from_slice(&rng.next().to_le_bytes());
    }
    body.truncate(len);
    body
}

/// The number in a stored header block.
pub(super) fn uid_in(block: &[u8]) -> Option<Uid> {
    block
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"uid:"))
        .and_then(|text| std::str::from_utf8(text).ok())
        .and_then(|text| text.parse().ok())
}
