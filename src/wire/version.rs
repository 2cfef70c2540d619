//! The versions of the protocol, and what they change in the grammar of a frame.
//!
//! # Not here
//! What they change in the meaning of frames: `session::rules`.

/// A version of STOMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 1.0
    V10,
    /// 1.1
    V11,
    /// 1.2
    V12,
}

impl Version {
    /// All of them, lowest first.
    pub const ALL: [Self; 3] = [Self::V10, Self::V11, Self::V12];

    /// As written in `accept-version` and `version`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V10 => "1.0",
            Self::V11 => "1.1",
            Self::V12 => "1.2",
        }
    }

    /// The inverse of [`Version::as_str`].
    pub fn parse(text: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|version| version.as_str().as_bytes() == text)
    }

    /// How its frames are written.
    pub const fn grammar(self) -> Grammar {
        match self {
            Self::V10 => Grammar {
                crlf: false,
                padded: true,
                escapes: Escapes::None,
            },
            Self::V11 => Grammar {
                crlf: false,
                padded: false,
                escapes: Escapes::Three,
            },
            Self::V12 => Grammar {
                crlf: true,
                padded: false,
                escapes: Escapes::Four,
            },
        }
    }
}

/// How the head of a frame is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grammar {
    /// A line may end in CR LF.
    pub crlf: bool,
    /// Spaces before a value and behind a name are not part of them.
    pub padded: bool,
    /// Which escapes there are.
    pub escapes: Escapes,
}

impl Grammar {
    /// CONNECT, STOMP and CONNECTED: the version is not known yet, so all that any version allows, and no escapes.
    pub const CONNECT: Self = Self {
        crlf: true,
        padded: true,
        escapes: Escapes::None,
    };
}

/// The escapes of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escapes {
    /// 1.0 and CONNECT: a backslash is a backslash.
    None,
    /// 1.1: `\n`, `\c` and `\\`.
    Three,
    /// 1.2: `\r` too.
    Four,
}
