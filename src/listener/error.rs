//! Why a certificate is not used, and why somebody did not come through a gate.

use std::io;
use std::path::PathBuf;

use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::pem;

/// Why TLS cannot be spoken with what the files hold.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is no PEM.
    #[error("cannot read the {what} in {}", path.display())]
    Unreadable {
        /// Certificate or key.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// A file without a certificate.
    #[error("there is no certificate in {}", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// A certificate of an authority that cannot be one.
    #[error("a certificate in {} cannot be that of an authority", path.display())]
    Authority {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// No client could be verified.
    #[error("the certificates in {} verify nobody", path.display())]
    Verifier {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::server::VerifierBuilderError,
    },
    /// A certificate and a key that do not go together, or that are not understood.
    #[error("the certificate in {} and the key in {} cannot be used", certificate.display(), key.display())]
    Unusable {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// What became of a socket.
impl From<io::Error> for Unwelcome {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Self::Lost,
            _ => Self::Failed(error),
        }
    }
}

/// Why somebody did not come through.
#[derive(Debug, thiserror::Error)]
pub enum Unwelcome {
    /// It went away.
    #[error("closed by the peer")]
    Lost,
    /// The socket failed.
    #[error("socket failed: {0}")]
    Failed(io::Error),
    /// TLS could not be agreed on.
    #[error("no TLS: {0}")]
    Handshake(io::Error),
    /// It speaks another protocol.
    #[error("violation: {0}")]
    Stranger(&'static str),
    /// A request that is not served: its status, and what it was told.
    #[error("request refused: {0} {1}")]
    Request(u16, &'static str),
    /// The broker stops.
    #[error("closed by the stop of the broker")]
    Stopped,
    /// It took too long.
    #[error("timed out: login-timeout")]
    Late,
}
