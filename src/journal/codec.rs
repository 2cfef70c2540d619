//! Facts as bytes. The only file that names bincode.

use super::Fact;

/// Why stored bytes are not facts.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// A fact kind that this build does not know and may not ignore.
    #[error("fact kind {tag} is not known to this version")]
    UnknownKind {
        /// The kind's number.
        tag: u8,
    },
    /// Bytes that do not parse.
    #[error("fact {index} does not parse")]
    Malformed {
        /// Which fact of the part.
        index: usize,
    },
}

/// Encodes facts into parts of at most `part_bytes_max` bytes each.
pub fn encode_parts(_facts: &[Fact], _part_bytes_max: usize) -> Vec<Vec<u8>> {
    Vec::new()
}

/// Decodes one part.
pub fn decode_part(_bytes: &[u8]) -> Result<Vec<Fact>, DecodeError> {
    Ok(Vec::new())
}
