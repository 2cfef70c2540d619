//! The HTTP API: JSON over a Unix socket of the data folder, and metrics and health beside it over TCP if asked for.
//!
//! Each request is routed, checked and answered here; what it means is in `views` and `acts`. The socket is there
//! before the store is read: until the broker is recovered, health is told and everything else refused.
//!
//! # Invariants
//! - Who reaches the socket may do everything: its mode lets in the owner of the process (and root) alone.
//! - Over TCP nothing but `/metrics` and `/health` is there.
//! - Connections, the time to ask, and the bytes of a request are bounded.
//! - After [`Server::stop`] no act is under way.
//!
//! # Not here
//! The types of requests and answers: `crate::api`.

mod acts;
mod backup;
mod body;
mod metrics;
mod problem;
mod query;
mod reader;
mod socket;
mod stream;
mod views;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::api;
use crate::base::SessionNo;
use crate::port::{Act, Refusal};
use crate::store::Store;

use super::committer::Watchdog;
use super::connection::Shared;
use super::timings::Timings;
use acts::Verb;
use problem::Problem;
use query::Query;
use reader::{Filter, LOOK_COUNT_MAX};
use views::{MessagesPage, QueuesPage};

pub use metrics::{METRICS, Metric};
pub use problem::{ApiCode, refusal_status};

/// Connections to the socket, and to the TCP listener, at a time.
const CONNECTION_COUNT_MAX: usize = 64;

/// The head of a request, and then its body, must come in this time; a connection may be idle as long.
const REQUEST_TIME: Duration = Duration::from_secs(30);

/// A connection of the TCP listener ends after this long, so that strangers cannot keep them all.
const METRICS_TIME: Duration = Duration::from_secs(120);

/// What a stop waits for answers under way.
const STOP_TIME: Duration = Duration::from_secs(2);

/// After accept failed for want of descriptors: time for others to close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Answer = Response<Either<Full<Bytes>, stream::Stream>>;

/// Whether the broker runs, and what the API works on as soon as it does.
#[derive(Default)]
pub(crate) struct Api {
    parts: OnceLock<Parts>,
    /// Where requests to read the configuration again go.
    reloads: OnceLock<mpsc::Sender<ReloadAnswer>>,
}

/// Where the answer to such a request goes: what was taken, or the mistakes of the configuration.
pub(crate) type ReloadAnswer = oneshot::Sender<Result<api::Reloaded, String>>;

/// What the API works on.
pub(crate) struct Parts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) watchdog: Arc<Watchdog>,
    pub(crate) timings: Arc<Timings>,
    pub(crate) uuid: [u8; 16],
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: Vec<super::Listener>,
    pub(crate) metrics_listen: Option<SocketAddr>,
    pub(crate) looks: Semaphore,
}

impl Parts {
    /// What [`Parts::looks`] begins with.
    pub(crate) fn looks() -> Semaphore {
        Semaphore::new(LOOK_COUNT_MAX)
    }

    /// Whether the broker is ready, but for its being stopped.
    fn health(&self) -> api::Health {
        let mut reasons = Vec::new();
        if let Some(elapsed) = self.watchdog.hangs(self.shared.clock.now().mono_ms) {
            let seconds = elapsed.as_secs();
            let message = format!("a commit has been under way for {seconds} s: the disk does not answer");
            reasons.push(reason("commit-hangs", &message));
        }
        if !self.shared.core.holdings().room {
            reasons.push(reason(
                "disk-full",
                "the disk is nearly full: SENDs are refused, settlements are not",
            ));
        }
        if self.shared.stopping.load(Ordering::Acquire) {
            reasons.push(reason("stopping", "the broker is stopping"));
        }
        api::Health {
            ok: reasons.is_empty(),
            reasons,
        }
    }
}

fn starting() -> Problem {
    Problem::new(
        ApiCode::Starting,
        "the broker is reading its store; ask again in a moment",
    )
}

fn reason(code: &str, message: &str) -> api::HealthReason {
    api::HealthReason {
        code: code.to_owned(),
        message: message.to_owned(),
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Caller {
    /// Over TCP: metrics and health only.
    stranger: bool,
    /// Of the process at the other end of the socket.
    uid: Option<u32>,
    pid: Option<i32>,
}

/// The listeners and their connections.
pub(crate) struct Server {
    place: Option<socket::Place>,
    close: watch::Sender<bool>,
    doors: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens on the socket of a data folder, and on a TCP listener if there is one. Without the socket the broker still
    /// serves messages, which matter more; it is told of.
    pub(crate) fn start(api: &Arc<Api>, data_dir: &Path, metrics: Option<TcpListener>) -> Self {
        let (close, _) = watch::channel(false);
        let mut doors = Vec::new();
        let place = match socket::Place::listen(data_dir) {
            Ok((place, listener)) => {
                tracing::debug!(path = %place.path().display(), "API listens");
                doors.push(Listener::Local(listener));
                Some(place)
            }
            Err(error) => {
                tracing::warn!(
                    data_dir = %data_dir.display(),
                    "no socket for the API, so that status, queues and the like will not find this broker: {error}"
                );
                None
            }
        };
        doors.extend(metrics.map(Listener::Metrics));
        let doors = doors
            .into_iter()
            .map(|listener| tokio::spawn(attend(Arc::clone(api), listener, close.subscribe())))
            .collect();
        Self { place, close, doors }
    }

    /// The socket, if there is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.place.as_ref().map(socket::Place::path)
    }

    /// Takes no more requests, lets those under way be answered for a short time, and ends. Removes the socket.
    pub(crate) async fn stop(self) {
        // Those who accept hold the other end.
        let _ = self.close.send(true);
        for door in self.doors {
            // It has ended well, or panicked: then it was told of, and nothing of it is left.
            let _ = door.await;
        }
        drop(self.place);
    }
}

enum Listener {
    Local(UnixListener),
    Metrics(TcpListener),
}

async fn attend(api: Arc<Api>, listener: Listener, mut close: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTION_COUNT_MAX));
    let mut connections = JoinSet::new();
    loop {
        let permit = tokio::select! {
            biased;
            () = closed(&mut close) => break,
            permit = Arc::clone(&places).acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            biased;
            () = closed(&mut close) => break,
            accepted = listener.accept() => accepted,
        };
        // Those that ended are forgotten here, so that the set stays as small as there are places.
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok(accepted) => {
                let (api, close) = (Arc::clone(&api), close.clone());
                connections.spawn(async move {
                    accepted.attend(api, close).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!("accept failed, trying on: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(STOP_TIME, ended).await.is_err() {
        connections.shutdown().await;
    }
}

/// Returns once everything is to end.
async fn closed(close: &mut watch::Receiver<bool>) {
    // An error says that whoever would close is gone, which is the same.
    let _ = close.wait_for(|closed| *closed).await;
}

/// A connection, not looked at yet.
enum Accepted {
    Local(UnixStream),
    Metrics(TcpStream),
}

impl Listener {
    async fn accept(&self) -> std::io::Result<Accepted> {
        Ok(match self {
            Self::Local(listener) => Accepted::Local(listener.accept().await?.0),
            Self::Metrics(listener) => Accepted::Metrics(listener.accept().await?.0),
        })
    }
}

impl Accepted {
    async fn attend(self, api: Arc<Api>, close: watch::Receiver<bool>) {
        match self {
            Self::Local(stream) => {
                let peer = stream.peer_cred().ok();
                let caller = Caller {
                    stranger: false,
                    uid: peer.map(|peer| peer.uid()),
                    pid: peer.and_then(|peer| peer.pid()),
                };
                serve(api, stream, caller, close).await;
            }
            Self::Metrics(stream) => {
                let caller = Caller {
                    stranger: true,
                    ..Caller::default()
                };
                // Cut, it loses a scrape at most.
                let _ = timeout(METRICS_TIME, serve(api, stream, caller, close)).await;
            }
        }
    }
}

async fn serve<S>(api: Arc<Api>, stream: S, caller: Caller, mut close: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let api = Arc::clone(&api);
        async move { Ok::<_, Infallible>(api.answer(request, caller).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_TIME)
            .serve_connection(TokioIo::new(stream), service)
    );
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = closed(&mut close) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!("API connection ended: {error}");
    }
}

impl Api {
    /// The broker is recovered: everything is answered from now on.
    pub(crate) fn begin(&self, parts: Parts) {
        if self.parts.set(parts).is_err() {
            unreachable!("a broker starts once");
        }
    }

    /// Where requests to read the configuration again arrive from now on.
    pub(crate) fn take_reloads(&self) -> mpsc::Receiver<ReloadAnswer> {
        let (ask, asked) = mpsc::channel(1);
        if self.reloads.set(ask).is_err() {
            unreachable!("a broker is run once");
        }
        asked
    }

    async fn reload(&self, caller: Caller) -> Result<api::Reloaded, Problem> {
        let ask = self.reloads.get().ok_or_else(starting)?;
        let (answer, answered) = oneshot::channel();
        tracing::info!(uid = caller.uid, pid = caller.pid, act = "reload", "operator");
        // Nobody answers any more once a stop has begun.
        let asked = ask.send(answer).await;
        asked.map_err(|_| Problem::from(Refusal::ShuttingDown))?;
        let done = answered.await.map_err(|_| Problem::from(Refusal::ShuttingDown))?;
        done.map_err(|mistakes| Problem::new(ApiCode::ConfigurationInvalid, mistakes))
    }

    fn health(&self) -> api::Health {
        match self.parts.get() {
            Some(parts) => parts.health(),
            None => api::Health {
                ok: false,
                reasons: vec![reason("starting", "the broker is reading its store")],
            },
        }
    }

    async fn answer(&self, request: Request<Incoming>, caller: Caller) -> Answer {
        let answered = self.try_answer(request, caller).await;
        answered.unwrap_or_else(Problem::into_response)
    }

    async fn try_answer(&self, request: Request<Incoming>, caller: Caller) -> Result<Answer, Problem> {
        let uri = request.uri().clone();
        let segments = segments(uri.path())?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let route = Route::of(&segments)
            .filter(|route| !caller.stranger || route.is_public())
            .ok_or_else(|| {
                Problem::new(
                    ApiCode::PathUnknown,
                    format!("there is no {}: docs/api.md lists every path", uri.path()),
                )
            })?;
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        match route {
            Route::Act(..)
            | Route::Disconnect(_)
            | Route::Backup
            | Route::Reload
            | Route::StatePolicy(_)
            | Route::EndPolicy(_)
                if request.method() != Method::POST =>
            {
                return Err(Problem::not_allowed("POST"));
            }
            Route::Act(..)
            | Route::Disconnect(_)
            | Route::Backup
            | Route::Reload
            | Route::StatePolicy(_)
            | Route::EndPolicy(_) => {}
            _ if !reads => return Err(Problem::not_allowed("GET")),
            _ => {}
        }
        let mut query = Query::parse(uri.query())?;
        match route {
            Route::Live => {
                query.end()?;
                let health = api::Health {
                    ok: true,
                    reasons: Vec::new(),
                };
                return Ok(json(StatusCode::OK, &health));
            }
            Route::Ready => {
                query.end()?;
                let health = self.health();
                let status = match health.ok {
                    true => StatusCode::OK,
                    false => StatusCode::SERVICE_UNAVAILABLE,
                };
                return Ok(json(status, &health));
            }
            _ => {}
        }
        let parts = self.parts.get().ok_or_else(starting)?;
        match route {
            Route::Live | Route::Ready => unreachable!("they were answered"),
            Route::Metrics => {
                query.end()?;
                let reading = parts.reading().await;
                // With many queues it takes longer than a thread that serves connections should be busy.
                let text = tokio::task::spawn_blocking(|| reading.into_text()).await;
                let text = text.unwrap_or_default();
                Ok(plain(metrics::CONTENT_TYPE, text))
            }
            Route::Status => {
                let rate_ms = query.rate_ms()?;
                query.end()?;
                Ok(ok(&parts.status(rate_ms).await))
            }
            Route::Store => {
                query.end()?;
                Ok(ok(&parts.store().await))
            }
            Route::Queues => {
                let page = QueuesPage {
                    from: query.text("from")?.unwrap_or_default(),
                    count: query.count()?,
                    prefix: query.text("prefix")?.unwrap_or_default(),
                    rate_ms: query.rate_ms()?,
                };
                query.end()?;
                Ok(ok(&parts.queues(page).await))
            }
            Route::Topics => {
                let from = query.text("from")?.unwrap_or_default();
                let count = query.count()?;
                query.end()?;
                Ok(ok(&parts.topics(&from, count)))
            }
            Route::Queue(name) => {
                let rate_ms = query.rate_ms()?;
                query.end()?;
                Ok(ok(&parts.queue_detail(name, rate_ms).await?))
            }
            Route::Messages(name) => {
                let page = MessagesPage {
                    from: query.number("from")?.unwrap_or(0),
                    count: query.count()?,
                    filter: Filter::parse(&query.all("header"))?,
                    body: body_part(query.text("body")?)?,
                };
                query.end()?;
                let messages = parts.messages(name, page).await?;
                // Bodies may be many megabytes.
                let answer = tokio::task::spawn_blocking(move || ok(&messages)).await;
                answer.map_err(|_| Problem::bad("the broker is stopping"))
            }
            Route::Body(name, sequence) => {
                query.end()?;
                let sequence = sequence
                    .parse()
                    .map_err(|_| Problem::bad(format!("{sequence:?} is not a queue sequence")))?;
                parts.whole_body(name, sequence)
            }
            Route::Connections => {
                let from = query.number("from")?.unwrap_or(0);
                let count = query.count()?;
                query.end()?;
                Ok(ok(&parts.connections(from, count)))
            }
            Route::Connection(text) => {
                query.end()?;
                Ok(ok(&parts.connection_detail(session(text)?)?))
            }
            Route::Transactions => {
                let from = query.number("from")?.unwrap_or(0);
                let count = query.count()?;
                query.end()?;
                Ok(ok(&parts.transactions(from, count).await))
            }
            Route::Disconnect(text) => {
                query.end()?;
                let session = session(text)?;
                let plain: api::Plain = read_body(request).await?;
                Ok(ok(&parts.disconnect(session, plain.dry_run, caller).await?))
            }
            Route::Backup => {
                query.end()?;
                let wanted: api::Backup = read_body(request).await?;
                parts.backup(&wanted, caller)
            }
            Route::Reload => {
                query.end()?;
                let api::Reload {} = read_body(request).await?;
                Ok(ok(&self.reload(caller).await?))
            }
            Route::Policies => {
                query.end()?;
                Ok(ok(&parts.policies()))
            }
            Route::StatePolicy(pattern) => {
                query.end()?;
                let wanted: api::StatePolicy = read_body(request).await?;
                let (settings, dry_run) = (Some(&wanted.settings), wanted.dry_run);
                Ok(ok(&parts
                    .state_policy(pattern, settings, dry_run, caller)
                    .await?))
            }
            Route::EndPolicy(pattern) => {
                query.end()?;
                let plain: api::Plain = read_body(request).await?;
                Ok(ok(&parts
                    .state_policy(pattern, None, plain.dry_run, caller)
                    .await?))
            }
            Route::Act(queue, act) => {
                query.end()?;
                Ok(ok(&parts.act_on_queue(queue, act, request, caller).await?))
            }
        }
    }
}

impl Parts {
    async fn act_on_queue(
        &self,
        queue: &str,
        act: ActName,
        request: Request<Incoming>,
        caller: Caller,
    ) -> Result<api::Acted, Problem> {
        match act {
            ActName::Purge | ActName::Requeue => {
                let verb = match act {
                    ActName::Purge => Verb::Purge,
                    _ => Verb::Requeue,
                };
                let wanted: api::Selection = read_body(request).await?;
                self.act_on_messages(queue, verb, &wanted, caller).await
            }
            ActName::Move | ActName::Copy => {
                let wanted: api::Transfer = read_body(request).await?;
                let verb = match act {
                    ActName::Move => Verb::Move(&wanted.to),
                    _ => Verb::Copy(&wanted.to),
                };
                let selection = api::Selection {
                    header: wanted.header.clone(),
                    set_aside: wanted.set_aside,
                    limit: wanted.limit,
                    from: wanted.from,
                    until: wanted.until,
                    dry_run: wanted.dry_run,
                };
                self.act_on_messages(queue, verb, &selection, caller).await
            }
            ActName::Delete => {
                let wanted: api::Delete = read_body(request).await?;
                self.delete(queue, &wanted, caller).await
            }
            ActName::Pause | ActName::Resume => {
                let plain: api::Plain = read_body(request).await?;
                let queue = queue.to_owned();
                let act = match act {
                    ActName::Pause => Act::Pause { queue },
                    _ => Act::Resume { queue },
                };
                self.act(&act, plain.dry_run, caller).await
            }
        }
    }
}

/// What a path names.
#[derive(Debug, Clone, Copy)]
enum Route<'a> {
    Live,
    Ready,
    Metrics,
    Status,
    Store,
    Queues,
    Topics,
    Queue(&'a str),
    Messages(&'a str),
    Body(&'a str, &'a str),
    Act(&'a str, ActName),
    Connections,
    Connection(&'a str),
    Disconnect(&'a str),
    Transactions,
    Backup,
    Reload,
    Policies,
    StatePolicy(&'a str),
    EndPolicy(&'a str),
}

#[derive(Debug, Clone, Copy)]
enum ActName {
    Purge,
    Delete,
    Pause,
    Resume,
    Move,
    Copy,
    Requeue,
}

impl<'a> Route<'a> {
    fn of(segments: &[&'a str]) -> Option<Self> {
        Some(match segments {
            ["health", "live"] => Self::Live,
            ["health", "ready"] => Self::Ready,
            ["metrics"] => Self::Metrics,
            ["v1", rest @ ..] => match rest {
                ["status"] => Self::Status,
                ["store"] => Self::Store,
                ["queues"] => Self::Queues,
                ["topics"] => Self::Topics,
                ["queues", name] => Self::Queue(name),
                ["queues", name, "messages"] => Self::Messages(name),
                ["queues", name, "messages", sequence, "body"] => Self::Body(name, sequence),
                ["queues", name, "purge"] => Self::Act(name, ActName::Purge),
                ["queues", name, "delete"] => Self::Act(name, ActName::Delete),
                ["queues", name, "pause"] => Self::Act(name, ActName::Pause),
                ["queues", name, "resume"] => Self::Act(name, ActName::Resume),
                ["queues", name, "move"] => Self::Act(name, ActName::Move),
                ["queues", name, "copy"] => Self::Act(name, ActName::Copy),
                ["queues", name, "requeue"] => Self::Act(name, ActName::Requeue),
                ["connections"] => Self::Connections,
                ["connections", session] => Self::Connection(session),
                ["connections", session, "disconnect"] => Self::Disconnect(session),
                ["transactions"] => Self::Transactions,
                ["backup"] => Self::Backup,
                ["reload"] => Self::Reload,
                ["policies"] => Self::Policies,
                ["policies", pattern, "set"] => Self::StatePolicy(pattern),
                ["policies", pattern, "delete"] => Self::EndPolicy(pattern),
                _ => return None,
            },
            _ => return None,
        })
    }

    /// Whether it is there over TCP too.
    fn is_public(self) -> bool {
        matches!(self, Self::Live | Self::Ready | Self::Metrics)
    }
}

/// The parts of a path, each decoded for itself: a slash within a name is `%2F`.
fn segments(path: &str) -> Result<Vec<String>, Problem> {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split('/')
        .map(|segment| {
            api::percent_decode(segment)
                .ok_or_else(|| Problem::bad(format!("{segment} in the path is not percent-encoded UTF-8")))
        })
        .collect()
}

fn session(text: &str) -> Result<SessionNo, Problem> {
    let number = text.parse().map(SessionNo);
    number.map_err(|_| Problem::bad(format!("{text:?} is not the number of a session")))
}

fn body_part(text: Option<String>) -> Result<api::BodyPart, Problem> {
    match text.as_deref() {
        None | Some("preview") => Ok(api::BodyPart::Preview),
        Some("whole") => Ok(api::BodyPart::Whole),
        Some("none") => Ok(api::BodyPart::None),
        Some(other) => Err(Problem::bad(format!(
            "body={other} is not preview, whole or none"
        ))),
    }
}

/// Reads the JSON of a request. No body at all is `{}`.
async fn read_body<T: DeserializeOwned + Default>(request: Request<Incoming>) -> Result<T, Problem> {
    let body = Limited::new(request.into_body(), api::REQUEST_BYTES_MAX).collect();
    let collected = match timeout(REQUEST_TIME, body).await {
        Ok(collected) => collected,
        Err(_) => {
            return Err(Problem::new(
                ApiCode::RequestTimeout,
                "the body of the request did not come in time",
            ));
        }
    };
    let bytes = collected
        .map_err(|error| match error.is::<LengthLimitError>() {
            true => Problem::new(
                ApiCode::RequestTooLarge,
                format!(
                    "the body of the request has more than {} bytes",
                    api::REQUEST_BYTES_MAX
                ),
            ),
            false => Problem::bad(format!("the body of the request did not come whole: {error}")),
        })?
        .to_bytes();
    if bytes.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&bytes).map_err(|error| Problem::bad(format!("the body of the request: {error}")))
}

fn ok(answer: &impl Serialize) -> Answer {
    json(StatusCode::OK, answer)
}

fn json(status: StatusCode, answer: &impl Serialize) -> Answer {
    let mut bytes =
        serde_json::to_vec(answer).expect("an answer has text for keys, and nothing in it can fail");
    bytes.push(b'\n');
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(bytes))));
    *response.status_mut() = status;
    content(&mut response, "application/json");
    response
}

fn plain(content_type: &'static str, text: String) -> Answer {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(text))));
    content(&mut response, content_type);
    response
}

fn content(response: &mut Answer, content_type: &'static str) {
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    // What is told is true for the moment only.
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-store"),
    );
}
