//! What lies between a socket and STOMP: TLS, WebSocket, and what either proves of a peer. A [`Gate`] is that of one listener; it makes a
//! [`Carrier`] of an accepted socket, which is read and written as if there were nothing between.
//!
//! ```text
//!   socket -> (TLS) -> (WebSocket) -> the bytes of STOMP
//! ```
//!
//! # Invariants
//! - A peer that has not come through takes no memory by what it announces, only by what it sent: a record of TLS, or the
//!   head of a request, within `login_bytes_max`.
//! - What speaks another protocol than the listener's is told so in its own, as far as it can be told anything.
//!
//! # Not here
//! Opening sockets, threads and deadlines: `runtime`. Plain TCP, which has no gate and whose way is the shortest.

mod carrier;
mod certificate;
mod error;
mod tls;
mod websocket;

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::base::Identity;
use crate::config;
use crate::session::{Violation, mistaken, refusal};

pub(crate) use self::carrier::{Carrier, Rehome};
pub use self::certificate::login_of;
pub use self::error::{TlsError, Unwelcome};
use self::tls::{Keys, Tls};
use self::websocket::{Rules, WebSocket};

/// The first byte of a record of TLS that begins a handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a stranger says is looked at up to here, to answer in its protocol.
const STRANGER_BYTES: usize = 64;

/// Told to a client of HTTP for whom there is no place.
const FULL: &str = "The broker has as many connections as it may have, in all or from this address.\n";

/// What one listener has in front of STOMP.
#[derive(Debug)]
pub(crate) struct Gate {
    keys: Option<Keys>,
    rules: Option<Rules>,
}

/// Somebody who came through, or who did not and is to be told why.
pub(crate) enum Met {
    /// A connection.
    Welcome(Carrier, Identity),
    /// Bytes to be written, behind which the stream is closed.
    Farewell(Unwelcome, Carrier, Vec<u8>),
    /// Nobody who could be told anything.
    Gone(Unwelcome),
}

impl Gate {
    /// That of a listener. `None` if nothing is in front of STOMP there.
    pub(crate) fn build(
        listener: &config::Listener,
        head_bytes_max: usize,
    ) -> Result<Option<Self>, TlsError> {
        if listener.tls.is_none() && listener.websocket.is_none() {
            return Ok(None);
        }
        let keys = listener.tls.clone().map(Keys::load).transpose()?;
        let rules = listener
            .websocket
            .clone()
            .map(|of| Rules::new(of, head_bytes_max));
        Ok(Some(Self { keys, rules }))
    }

    /// Reads certificates and keys again; those who come from now on are shown the new ones. With an error the old ones stay.
    /// Returns whether there are any.
    pub(crate) fn reload(&self) -> Result<bool, TlsError> {
        match &self.keys {
            Some(keys) => keys.reload().map(|()| true),
            None => Ok(false),
        }
    }

    /// What somebody is told for whom there is no place; nothing where TLS would have to be agreed on first.
    pub(crate) fn full(&self) -> Vec<u8> {
        match self.keys {
            Some(_) => Vec::new(),
            None => websocket::answer(503, "Service Unavailable", "", FULL),
        }
    }

    /// Leads a peer through. To be given up by the caller when its time is over.
    pub(crate) async fn meet(self: Arc<Self>, stream: TcpStream) -> Met {
        let rules = self.rules.as_ref();
        let Some(keys) = &self.keys else {
            return match rules {
                None => Met::Welcome(Carrier::Tcp(stream), Identity::Unknown),
                Some(rules) => match rules.accept(stream).await {
                    Ok(web) => Met::Welcome(Carrier::WebSocket(Box::new(web)), Identity::Unknown),
                    Err(refused) => refused.into_met(Carrier::Tcp),
                },
            };
        };
        // Whoever says nothing takes no memory for TLS.
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(0) => return Met::Gone(Unwelcome::Lost),
            Ok(_) if first == [TLS_HANDSHAKE] => {}
            Ok(_) => return stranger(stream, rules).await,
            Err(error) => return Met::Gone(error.into()),
        }
        let (stream, identity) = match Box::pin(keys.accept(stream)).await {
            Ok(met) => met,
            // What is wrong was said in an alert.
            Err((error, Some(stream))) => {
                let why = Unwelcome::Handshake(error);
                return Met::Farewell(why, Carrier::Tcp(stream), Vec::new());
            }
            Err((error, None)) => return Met::Gone(error.into()),
        };
        match rules {
            None => Met::Welcome(Carrier::Tls(stream), identity),
            Some(rules) => match rules.accept(stream).await {
                Ok(web) => Met::Welcome(Carrier::SecureWebSocket(Box::new(web)), identity),
                Err(refused) => refused.into_met(Carrier::Tls),
            },
        }
    }
}

/// A peer that has come by a Unix socket, and what the kernel knows of it.
pub(crate) fn meet_local(stream: UnixStream) -> std::io::Result<(Carrier, Identity)> {
    let peer = stream.peer_cred()?;
    let identity = Identity::Local {
        uid: peer.uid(),
        pid: peer.pid(),
    };
    Ok((Carrier::Unix(stream), identity))
}

/// Somebody without TLS where it is spoken.
async fn stranger(mut stream: TcpStream, rules: Option<&Rules>) -> Met {
    let mut said = [0; STRANGER_BYTES];
    let count = match stream.read(&mut said).await {
        Ok(count) => count,
        Err(error) => return Met::Gone(error.into()),
    };
    let said = said.get(..count).unwrap_or_default();
    let answer = match mistaken(said) {
        Some(Violation::Http) => {
            let needs = match rules {
                Some(_) => "This port speaks WebSocket over TLS: connect by wss://, not ws:// or http://.\n",
                None => "This port speaks STOMP over TLS, not HTTP: point a STOMP client at it.\n",
            };
            websocket::answer(400, "Bad Request", "", needs)
        }
        _ => refusal(Violation::TlsNeeded),
    };
    Met::Farewell(
        Unwelcome::Stranger(Violation::TlsNeeded.code()),
        Carrier::Tcp(stream),
        answer,
    )
}

/// Tells a peer why it is not served, and lets it read that: closing at once would reset the connection where something
/// is unread, and the answer could be lost. To be given up by the caller when its time is over.
pub(crate) async fn say_farewell(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &[u8],
) -> std::io::Result<()> {
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    let mut nowhere = [0; 1_024];
    while stream.read(&mut nowhere).await? > 0 {}
    Ok(())
}

/// What a client has proved by its certificate.
fn identity_of(stream: &TlsStream<TcpStream>, login: config::CertificateName) -> Identity {
    match stream.get_ref().1.peer_certificates() {
        Some([certificate, ..]) => Identity::Certificate {
            login: login_of(certificate, login),
        },
        _ => Identity::Unknown,
    }
}
