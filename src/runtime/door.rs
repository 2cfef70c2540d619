//! Who may come in: sockets are accepted here, led through the gate of their listener, and served.
//!
//! All of it happens on the porch, the work of TLS among it: whoever is inside does not wait for a stranger's key exchange.
//!
//! # Invariants
//! - The time to log in begins when a connection is accepted; what a gate takes of it is gone.
//! - A connection counts from its acceptance to its end, whether it comes through its gate or not.

use std::fs::{self, Permissions};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::base::{Dialect, Identity, Methods, Now};
use crate::config::Address;
use crate::listener::{Carrier, Gate, Met, Rehome, Unwelcome, meet_local, say_farewell};
use crate::session::{SessionConfig, Violation, refusal};

use super::RunError;
use super::connection::{Shared, welcome};
use super::logins::Doorstep;
use super::neighbours::{Neighbour, Neighbours};
use super::presence::Peer;
use super::stats::Stats;

/// Connections waiting to be accepted.
const BACKLOG_COUNT: u32 = 1_024;

/// After accept failed for want of descriptors or memory: time for others to close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections being told that there are too many.
const TURN_AWAY_COUNT_MAX: usize = 64;

/// An address that was taken, where nobody is accepted yet.
pub(super) enum Taken {
    Tcp(TcpSocket),
    Unix(UnixSocket, SocketFile),
}

/// Where somebody may ring.
enum Bell {
    Tcp(TcpListener),
    Unix(
        UnixListener,
        #[expect(dead_code, reason = "it ends with the listener")] SocketFile,
    ),
}

/// Somebody who rang.
enum Caller {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

/// A socket in the file system, which is removed with this value.
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // What is gone is as it should be; what cannot be removed is replaced by the next start.
        let _ = fs::remove_file(&self.0);
    }
}

/// Takes an address, so that one in use is found out early.
pub(super) fn take(address: &Address) -> Result<Taken, RunError> {
    let taken = match address {
        Address::Tcp(address) => bind_tcp(*address).map(Taken::Tcp),
        Address::Unix { path, mode } => bind_unix(path, *mode),
    };
    taken.map_err(|source| RunError::Listen {
        address: address.clone(),
        source,
    })
}

pub(super) fn bind_tcp(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restarted broker must not wait for the old connections' time to be up.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Listens; gives the address with the port chosen.
pub(super) fn listen_tcp(socket: TcpSocket) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = socket.listen(BACKLOG_COUNT)?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

/// A socket that is left over is replaced; one that somebody listens on, or anything else of that name, is in the way.
fn bind_unix(path: &Path, mode: u32) -> io::Result<Taken> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => match StdUnixStream::connect(path) {
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Err(error) => return Err(error),
        },
        Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    let file = SocketFile(path.to_owned());
    // Before it listens, nobody can connect.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(Taken::Unix(socket, file))
}

/// A listener that takes connections.
pub(super) struct Entrance {
    bell: Bell,
    gate: Option<Arc<Gate>>,
    /// What sessions begin with everywhere, and what they find here.
    everywhere: Arc<SessionConfig>,
    doorstep: Arc<Doorstep>,
    dialect: Dialect,
}

impl Entrance {
    /// Begins to listen; gives the address with the port chosen. Inside the runtime of the porch.
    pub(super) fn open(
        taken: Taken,
        address: &Address,
        gate: Option<Arc<Gate>>,
        (dialect, methods): (Dialect, Methods),
        session: &Arc<SessionConfig>,
    ) -> Result<(Self, Address), RunError> {
        let failed = |source| RunError::Listen {
            address: address.clone(),
            source,
        };
        let (bell, bound) = match taken {
            Taken::Tcp(socket) => {
                let (listener, bound) = listen_tcp(socket).map_err(failed)?;
                (Bell::Tcp(listener), Address::Tcp(bound))
            }
            Taken::Unix(socket, file) => {
                let listener = socket.listen(BACKLOG_COUNT).map_err(failed)?;
                (Bell::Unix(listener, file), address.clone())
            }
        };
        let doorstep = Arc::new(Doorstep {
            session: with_dialect(session, dialect),
            methods,
            listener: bound.to_string().into(),
        });
        let entrance = Self {
            bell,
            gate,
            everywhere: Arc::clone(session),
            doorstep,
            dialect,
        };
        Ok((entrance, bound))
    }

    /// What a session finds here: one value for all of them, until it changes everywhere.
    fn doorstep(&mut self, everywhere: Arc<SessionConfig>) -> Arc<Doorstep> {
        if !Arc::ptr_eq(&self.everywhere, &everywhere) {
            self.doorstep = Arc::new(Doorstep {
                session: with_dialect(&everywhere, self.dialect),
                methods: self.doorstep.methods.clone(),
                listener: self.doorstep.listener.clone(),
            });
            self.everywhere = everywhere;
        }
        Arc::clone(&self.doorstep)
    }

    /// What somebody is told for whom there is no place. A gate with TLS would have to be passed first: nothing is said there.
    fn full(&self) -> Vec<u8> {
        match &self.gate {
            None => refusal(Violation::TooManyConnections),
            Some(gate) => gate.full(),
        }
    }
}

fn with_dialect(session: &SessionConfig, dialect: Dialect) -> Arc<SessionConfig> {
    Arc::new(SessionConfig {
        dialect,
        ..session.clone()
    })
}

impl Bell {
    async fn accept(&self) -> io::Result<Caller> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Caller::Tcp(stream, peer))
            }
            Self::Unix(listener, _) => Ok(Caller::Unix(listener.accept().await?.0)),
        }
    }
}

/// Has the system find out when a peer is gone. Bytes that it does not acknowledge are sent again by other rules, which are the
/// system's: a peer that has not read for long is there all the same.
fn keep_alive(stream: &TcpStream, silence_ms_max: u64) -> rustix::io::Result<()> {
    if silence_ms_max == 0 {
        return Ok(());
    }
    // Half of the time in silence, and then four times an eighth.
    let eighth = Duration::from_secs((silence_ms_max / 8_000).max(1));
    sockopt::set_tcp_keepidle(stream, eighth * 4)?;
    sockopt::set_tcp_keepintvl(stream, eighth)?;
    sockopt::set_tcp_keepcnt(stream, 4)?;
    sockopt::set_socket_keepalive(stream, true)
}

/// What all listeners share.
pub(super) struct Door {
    pub(super) shared: Arc<Shared>,
    connection_count_max: AtomicU64,
    neighbours: Arc<Neighbours>,
    turning_away: Arc<Semaphore>,
    /// Where those are served who are no newcomers any more.
    inside: Handle,
}

/// One connection's place among those counted.
struct Place {
    shared: Arc<Shared>,
    _present: mpsc::Sender<()>,
    _neighbour: Option<Neighbour>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.stats.connection_count.subtract(1);
    }
}

/// What goes with a connection from door to end.
struct Visit {
    shared: Arc<Shared>,
    doorstep: Arc<Doorstep>,
    peer: Peer,
    accepted: Now,
    place: Place,
    inside: Handle,
}

impl Door {
    pub(super) fn new(shared: Arc<Shared>, connection_count_max: u64, inside: Handle) -> Self {
        Self {
            connection_count_max: AtomicU64::new(connection_count_max),
            neighbours: Arc::default(),
            turning_away: Arc::new(Semaphore::new(TURN_AWAY_COUNT_MAX)),
            inside,
            shared,
        }
    }

    /// Who is inside stays, however many they are.
    pub(super) fn set_connection_count_max(&self, connection_count_max: u64) {
        self.connection_count_max
            .store(connection_count_max, Ordering::Relaxed);
    }

    /// Accepts until it is told not to.
    pub(super) async fn attend(
        self: Arc<Self>,
        mut entrance: Entrance,
        mut accept_until: watch::Receiver<bool>,
        present: mpsc::Sender<()>,
    ) {
        let stopped = accept_until.clone();
        let mut failing = false;
        loop {
            let accepted = tokio::select! {
                biased;
                _ = accept_until.wait_for(|accepting| !accepting) => return,
                accepted = entrance.bell.accept() => accepted,
            };
            match accepted {
                Ok(caller) => {
                    failing = false;
                    self.enter(caller, &mut entrance, &present, &stopped);
                    // As after a newcomer's turn: others may wait for the processor.
                    std::thread::yield_now();
                }
                Err(error) => {
                    self.shared.stats.accept_failed_count.add(1);
                    if !failing {
                        tracing::warn!("accept failed, trying on: {error}");
                    }
                    failing = true;
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn enter(
        &self,
        caller: Caller,
        entrance: &mut Entrance,
        present: &mpsc::Sender<()>,
        stopped: &watch::Receiver<bool>,
    ) {
        let stats = &self.shared.stats;
        let doorstep = entrance.doorstep(self.shared.session.get());
        let session = &doorstep.session;
        let (login, linger) = (session.limits.login_ms_max, session.limits.linger_ms_max);
        let (login, linger) = (Duration::from_millis(login), Duration::from_millis(linger));
        let connection_count_max = self.connection_count_max.load(Ordering::Relaxed);
        if stats.connection_count.value() >= connection_count_max {
            let bound = ("connection_count_max", connection_count_max);
            self.turn_away(caller, entrance.full(), bound, linger);
            return;
        }
        let neighbour = match &caller {
            Caller::Unix(_) => None,
            Caller::Tcp(_, peer) => {
                let count_max = session.limits.address_connection_count_max;
                let entered = self.neighbours.enter(peer.ip(), count_max);
                if entered.is_none() {
                    let bound = ("address_connection_count_max", count_max as u64);
                    self.turn_away(caller, entrance.full(), bound, linger);
                    return;
                }
                entered
            }
        };
        stats.accepted_count.add(1);
        stats.connection_count.add(1);
        let visit = |peer| Visit {
            shared: Arc::clone(&self.shared),
            doorstep: Arc::clone(&doorstep),
            peer,
            accepted: self.shared.clock.now(),
            place: Place {
                shared: Arc::clone(&self.shared),
                _present: present.clone(),
                _neighbour: neighbour,
            },
            inside: self.inside.clone(),
        };
        match caller {
            Caller::Tcp(stream, peer) => {
                // Frames are written whole; waiting for more to come would only delay them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%peer, "TCP_NODELAY cannot be set: {error}");
                }
                if let Err(error) = keep_alive(&stream, session.limits.silence_ms_max) {
                    tracing::debug!(%peer, "TCP keep-alive cannot be set: {error}");
                }
                let visit = visit(peer.into());
                match &entrance.gate {
                    None => {
                        let moved = |stream: TcpStream| TcpStream::from_std(stream.into_std()?);
                        tokio::spawn(visit.serve(stream, Identity::Unknown, moved));
                    }
                    Some(gate) => {
                        let met = Arc::clone(gate).meet(stream);
                        tokio::spawn(visit.pass(met, login, linger, stopped.clone()));
                    }
                }
            }
            Caller::Unix(stream) => match meet_local(stream) {
                Ok((carrier, identity)) => {
                    let visit = visit(Peer::of(&identity));
                    tokio::spawn(visit.serve(carrier, identity, rehomed));
                }
                Err(error) => {
                    let visit = visit(Peer::of(&Identity::Unknown));
                    visit.end(&Unwelcome::Failed(error));
                }
            },
        }
    }

    /// Tells somebody that there are too many connections.
    fn turn_away(&self, caller: Caller, answer: Vec<u8>, bound: (&str, u64), linger: Duration) {
        self.shared.stats.turned_away_count.add(1);
        let (carrier, peer) = match caller {
            Caller::Tcp(stream, peer) => (Carrier::Tcp(stream), peer.into()),
            Caller::Unix(stream) => (Carrier::Unix(stream), Peer::of(&Identity::Unknown)),
        };
        tracing::warn!(%peer, bound = bound.0, count_max = bound.1, "connection turned away");
        if let Ok(permit) = Arc::clone(&self.turning_away).try_acquire_owned() {
            tokio::spawn(async move {
                // Told or not, in time or not: it is closed.
                let _ = timeout(linger, say_farewell(carrier, &answer)).await;
                drop(permit);
            });
        }
    }
}

impl Visit {
    /// Serves a connection: here while it is a newcomer, then inside.
    async fn serve<S>(
        self,
        stream: S,
        identity: Identity,
        moved: impl FnOnce(S) -> io::Result<S> + Send + 'static,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self {
            shared,
            doorstep,
            peer,
            accepted,
            place,
            inside,
        } = self;
        let Some(resident) = welcome(shared, doorstep, stream, (peer, identity), accepted).await else {
            drop(place);
            return;
        };
        inside.spawn(async move {
            if let Some(resident) = resident.rehome(moved) {
                resident.serve().await;
            }
            drop(place);
        });
    }

    /// Leads somebody through a gate, and serves who comes through.
    async fn pass(
        self,
        met: impl Future<Output = Met>,
        login: Duration,
        linger: Duration,
        mut stopped: watch::Receiver<bool>,
    ) {
        // On the heap, and gone before the connection is served: it would be held for as long as that.
        let mut met = Box::pin(async move {
            tokio::select! {
                biased;
                _ = stopped.wait_for(|accepting| !accepting) => Met::Gone(Unwelcome::Stopped),
                met = timeout(login, yielding(met)) => met.unwrap_or(Met::Gone(Unwelcome::Late)),
            }
        });
        let done = met.as_mut().await;
        drop(met);
        match done {
            Met::Welcome(carrier, identity) => self.serve(carrier, identity, rehomed).await,
            Met::Farewell(why, carrier, answer) => {
                // Told or not, in time or not: it is closed.
                let _ = timeout(linger, say_farewell(carrier, &answer)).await;
                self.end(&why);
            }
            Met::Gone(why) => self.end(&why),
        }
    }

    /// It did not come through.
    fn end(self, why: &Unwelcome) {
        count(&self.shared.stats, why);
        tracing::info!(peer = %self.peer, reason = %why, "connection closed before it could speak STOMP");
    }
}

fn rehomed(mut carrier: Carrier) -> io::Result<Carrier> {
    carrier.rehome()?;
    Ok(carrier)
}

/// As after a newcomer's turn, the processor is given up after each poll.
async fn yielding<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let polled = future.as_mut().poll(cx);
        std::thread::yield_now();
        polled
    })
    .await
}

fn count(stats: &Stats, why: &Unwelcome) {
    match why {
        Unwelcome::Lost | Unwelcome::Failed(_) => stats.lost_count.add(1),
        Unwelcome::Handshake(_) | Unwelcome::Stranger(_) => stats.violation_count.add(1),
        Unwelcome::Request(..) | Unwelcome::Stopped => stats.refused_count.add(1),
        Unwelcome::Late => stats.timed_out_count.add(1),
    }
}
