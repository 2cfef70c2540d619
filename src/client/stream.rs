//! What a connection is over: TCP, or TLS over it.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Whom a client believes, and what it shows.
#[derive(Clone, Default)]
pub struct Tls {
    /// A PEM file of authorities; those of the system if none.
    pub ca_file: Option<PathBuf>,
    /// PEM files of a certificate and its key, for brokers that ask for one.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Made of them once for all connections.
    config: Arc<OnceLock<Arc<ClientConfig>>>,
}

/// Why a client has nothing to speak TLS with.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// A file cannot be read, or is no PEM.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// No authority to believe.
    #[error("there is no authority to believe: name a file with --ca")]
    NoAuthority,
    /// What the files hold cannot be used.
    #[error("the certificate cannot be used")]
    Unusable(#[source] rustls::Error),
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("ca_file", &self.ca_file)
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// With these files.
    pub fn new(ca_file: Option<PathBuf>, certificate: Option<(PathBuf, PathBuf)>) -> Self {
        Self {
            ca_file,
            certificate,
            config: Arc::default(),
        }
    }

    fn config(&self) -> Result<Arc<ClientConfig>, TlsSetupError> {
        if let Some(config) = self.config.get() {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.read()?);
        Ok(Arc::clone(self.config.get_or_init(|| config)))
    }

    fn read(&self) -> Result<ClientConfig, TlsSetupError> {
        let mut roots = RootCertStore::empty();
        let found = match &self.ca_file {
            Some(path) => certificates(path)?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        roots.add_parsable_certificates(found);
        if roots.is_empty() {
            return Err(TlsSetupError::NoAuthority);
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsSetupError::Unusable)?
            .with_root_certificates(roots);
        match &self.certificate {
            None => Ok(builder.with_no_client_auth()),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(unreadable(key))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(TlsSetupError::Unusable)
            }
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsSetupError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    read.map_err(unreadable(path))
}

fn unreadable(path: &Path) -> impl FnOnce(pem::Error) -> TlsSetupError {
    move |source| TlsSetupError::Unreadable {
        path: path.to_owned(),
        source,
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// Agrees on TLS with a host over a blocking socket.
    pub(super) fn secure(socket: TcpStream, host: &str, tls: &Tls) -> io::Result<Self> {
        let invalid = |error| io::Error::new(ErrorKind::InvalidInput, error);
        let config = tls.config().map_err(io::Error::other)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|error| invalid(error.to_string()))?;
        let session = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(session, socket);
        stream.conn.complete_io(&mut stream.sock)?;
        Ok(Self::Tls(Box::new(stream)))
    }

    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }

    /// What was written is not in the socket yet.
    pub(super) fn holds_back(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.conn.wants_write(),
        }
    }

    /// Takes more of what was read from the socket already, and of which that says nothing any more. 0 if there is no more.
    pub(super) fn read_more(&mut self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(_) => Ok(0),
            Self::Tls(stream) => match stream.conn.reader().read(space) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
                read => read,
            },
        }
    }
}

impl Read for Stream {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(space),
            Self::Tls(stream) => stream.read(space),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
