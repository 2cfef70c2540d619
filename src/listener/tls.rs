//! TLS: certificates from files, read again at will, and a stream over it.
//!
//! TLS 1.2 and 1.3 with the suites of rustls, no renegotiation, no compression, no early data.
//!
//! # Invariants
//! - A connection keeps what was valid when it came; a session is resumed only with the certificates it was made with.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use super::carrier::Rehome;
use super::{TlsError, identity_of};
use crate::base::Identity;
use crate::config::{self, ClientCertificate};

/// The certificates of one listener.
#[derive(Debug)]
pub(super) struct Keys {
    files: config::Tls,
    server: RwLock<Arc<ServerConfig>>,
}

impl Keys {
    /// Reads the files.
    pub(super) fn load(files: config::Tls) -> Result<Self, TlsError> {
        let server = RwLock::new(read(&files)?);
        Ok(Self { files, server })
    }

    /// Reads them again. With an error nothing is changed.
    pub(super) fn reload(&self) -> Result<(), TlsError> {
        let server = read(&self.files)?;
        // Nothing can panic while it is held.
        *self.server.write().unwrap_or_else(PoisonError::into_inner) = server;
        Ok(())
    }

    /// The handshake. A stream that comes back with an error has been told what is wrong.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<(Tls<TcpStream>, Identity), (io::Error, Option<TcpStream>)> {
        let server = Arc::clone(&self.server.read().unwrap_or_else(PoisonError::into_inner));
        match TlsAcceptor::from(server).accept(stream).into_fallible().await {
            Ok(stream) => {
                let identity = identity_of(&stream, self.files.login);
                Ok((Tls(Box::new(stream)), identity))
            }
            // The peer went away, or is gone.
            Err((error, _)) if error.kind() != io::ErrorKind::InvalidData => Err((error, None)),
            Err((error, stream)) => Err((error, Some(stream))),
        }
    }
}

fn read(files: &config::Tls) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(default_provider());
    let chain = certificates(&files.certificate_file)?;
    let key = PrivateKeyDer::from_pem_file(&files.key_file).map_err(unreadable("key", &files.key_file))?;
    let unusable = |source| TlsError::Unusable {
        certificate: files.certificate_file.clone(),
        key: files.key_file.clone(),
        source,
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(unusable)?;
    let builder = match &files.client {
        ClientCertificate::None => builder.with_no_client_auth(),
        ClientCertificate::Optional(path) | ClientCertificate::Required(path) => {
            let mut authorities = RootCertStore::empty();
            for certificate in certificates(path)? {
                authorities
                    .add(certificate)
                    .map_err(|source| TlsError::Authority {
                        path: path.clone(),
                        source,
                    })?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider);
            let verifier = match files.client {
                ClientCertificate::Optional(_) => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            let verifier = verifier.build().map_err(|source| TlsError::Verifier {
                path: path.clone(),
                source,
            })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder
        .with_single_cert(chain, key)
        .map(Arc::new)
        .map_err(unusable)
}

/// At least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(unreadable("certificate", path))?;
    match read.is_empty() {
        true => Err(TlsError::Empty {
            path: path.to_owned(),
        }),
        false => Ok(read),
    }
}

fn unreadable(what: &'static str, path: &Path) -> impl FnOnce(pem::Error) -> TlsError {
    move |source| TlsError::Unreadable {
        what,
        path: path.to_owned(),
        source,
    }
}

/// A stream over TLS. A peer that closes without saying so in TLS has closed: what is cut is a frame, which nobody takes
/// for a whole one.
#[derive(Debug)]
pub(crate) struct Tls<S>(Box<TlsStream<S>>);

impl<S: Rehome> Rehome for Tls<S> {
    fn rehome(&mut self) -> io::Result<()> {
        self.0.get_mut().0.rehome()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tls<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut *self.0).poll_read(cx, buffer) {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            read => read,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tls<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }
}
