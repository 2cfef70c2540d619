//! What lies between a socket and STOMP: TLS, WebSocket, Unix sockets, and strangers on the wrong port.

mod logins;
mod mistaken;
mod tls;
mod unix;
mod websocket;

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use steadfast::config::{self, CertificateName, ClientCertificate, WebSocket};
use steadfast::runtime::{Listener, ServeOptions};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ClientConfig, ClientConnection, StreamOwned};

use super::certificates::{Authority, Folder};
use super::client::{Client, PATIENCE};
use super::server::Server;

type TlsStream = StreamOwned<ClientConnection, TcpStream>;

fn any() -> Listener {
    SocketAddr::from(([127, 0, 0, 1], 0)).into()
}

/// A broker with one listener.
fn serve(listener: Listener, change: impl FnOnce(&mut ServeOptions)) -> Server {
    Server::start(|options| {
        options.listen = vec![listener];
        change(options);
    })
}

fn tls(folder: &Folder, client: ClientCertificate) -> Listener {
    Listener {
        tls: Some(config::Tls {
            certificate_file: folder.path("server.pem"),
            key_file: folder.path("server.key"),
            client,
            login: CertificateName::default(),
        }),
        ..any()
    }
}

fn ws() -> Listener {
    Listener {
        websocket: Some(WebSocket::default()),
        ..any()
    }
}

fn wss(folder: &Folder) -> Listener {
    Listener {
        websocket: Some(WebSocket::default()),
        ..tls(folder, ClientCertificate::None)
    }
}

/// A socket that waits for an answer for long, and not for ever.
fn dial(address: SocketAddr) -> TcpStream {
    Client::dial(address).stream
}

/// A client that believes an authority.
fn trusting(
    authority: &Authority,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(authority.pem().as_bytes());
    roots.add(certificate.unwrap()).unwrap();
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
}

/// A client's certificate and its key.
fn shown_by(authority: &Authority) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let (certificate, key) = authority.client("alice");
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    (vec![certificate], key)
}

/// TLS over a new connection; the handshake is done by the first read or write.
fn dial_tls(address: SocketAddr, config: ClientConfig) -> TlsStream {
    let name = "localhost".try_into().unwrap();
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(session, dial(address))
}
