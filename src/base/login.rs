//! A login: what a peer says of itself, and by which methods it may be believed.

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::Identity;

/// Bytes that nobody is to see: no `Debug`, log line or error shows them, and their memory is wiped when they are dropped.
/// How long comparing two takes tells how alike they are: what a peer says is not judged so.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// Adds one.
    pub fn push(&mut self, byte: u8) {
        if self.0.len() == self.0.capacity() {
            // Growing where it is would leave a copy behind that nobody wipes.
            let mut grown = Zeroizing::new(Vec::with_capacity(2 * self.0.len() + 32));
            grown.extend_from_slice(&self.0);
            self.0 = grown;
        }
        self.0.push(byte);
    }

    /// Takes the last character of a text away, if there is one.
    pub fn pop_character(&mut self) {
        while let Some(byte) = self.0.pop() {
            // Bytes behind the first of a character begin with these two bits.
            if byte & 0xc0 != 0x80 {
                break;
            }
        }
    }

    /// Shows them to whoever has to compare or send them.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// A login to be judged: what CONNECT said, and what the transport had proved before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// `login`; `None` if there is none, or an empty one. As it came: it may be anything.
    pub name: Option<Box<[u8]>>,
    /// `passcode`; `None` if there is none, or an empty one.
    pub passcode: Option<Secret>,
    /// What the transport proved.
    pub identity: Identity,
}

/// One way of knowing who somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// `login` and `passcode` of a user.
    Password,
    /// A name in the certificate that a TLS client showed.
    Certificate,
    /// The user that a peer on a Unix socket runs as.
    Unix,
    /// A JWT in `passcode`.
    Jwt,
    /// Nobody is asked who they are.
    None,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 5] = [
        Self::Password,
        Self::Certificate,
        Self::Unix,
        Self::Jwt,
        Self::None,
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Certificate => "certificate",
            Self::Unix => "unix",
            Self::Jwt => "jwt",
            Self::None => "none",
        }
    }

    /// The method of a name.
    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == text)
    }
}

/// The methods that a listener takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Methods {
    /// Every one that something is configured for; where nothing is, nobody is asked.
    #[default]
    Configured,
    /// These and no other.
    Only(Box<[Method]>),
}

impl Methods {
    /// Whether a method is taken. `open` = nobody could prove anything, since no users and no keys are configured.
    pub fn take(&self, method: Method, open: bool) -> bool {
        match self {
            Self::Configured => open == (method == Method::None),
            Self::Only(methods) => methods.contains(&method),
        }
    }

    /// Whether nobody is asked anything at all.
    pub fn ask_nobody(&self, open: bool) -> bool {
        match self {
            Self::Configured => open,
            Self::Only(methods) => methods.iter().all(|method| *method == Method::None),
        }
    }
}

/// How a JWT is signed. It belongs to a key of ours: what a token says of itself decides nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenAlgorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// RSA (PKCS #1 v1.5) with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

impl TokenAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 3] = [Self::Hs256, Self::Rs256, Self::Es256];

    /// As RFC 7518 writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }

    fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == text)
    }
}

/// Where a key for tokens is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenKey {
    /// What it is for.
    pub algorithm: TokenAlgorithm,
    /// For HS256 the secret, 32 bytes at least; for the others a public key in PEM.
    pub file: PathBuf,
}

impl fmt::Display for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.file.display())
    }
}

impl TokenKey {
    /// What [`TokenKey::parse`] takes, for messages.
    pub const FORM: &str =
        "ALGORITHM:FILE with HS256, RS256 or ES256, such as \"RS256:/etc/steadfast/issuer.pem\"";

    /// Reads `ALGORITHM:FILE`.
    pub fn parse(text: &str) -> Option<Self> {
        let (algorithm, file) = text.split_once(':')?;
        let algorithm = TokenAlgorithm::named(algorithm)?;
        (!file.is_empty()).then(|| Self {
            algorithm,
            file: file.into(),
        })
    }
}
