//! Requests to the running broker of a data folder, over the HTTP API on its local socket.

use std::future::Future;
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};

use super::{Failure, StoreArgs, load};
use crate::api::{Failed, PATH_FILE, SOCKET_FILE, VERSION, percent_encode};
use crate::config::Overrides;

/// The longest that an answer may take.
const ANSWER: Duration = Duration::from_secs(60);

/// See the module's text. Each request has a connection of its own: they cost little on one machine, and a broker that
/// was started again is found.
#[derive(Debug)]
pub(super) struct ApiClient {
    data_dir: PathBuf,
    runtime: Runtime,
}

/// What went wrong with an exchange, but for the broker's own refusal.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// No connection, though something is there.
    #[error("cannot connect to {}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    /// The connection broke.
    #[error("the broker broke off its answer")]
    Http(#[from] hyper::Error),
    /// The answer is none of ours.
    #[error("the broker's answer is not understood; it may be of another version")]
    Json(#[from] serde_json::Error),
    /// A request that cannot be written.
    #[error("the request cannot be made")]
    Request(#[from] hyper::http::Error),
    /// The program cannot wait for an answer.
    #[error("requests cannot be made")]
    Runtime(#[source] io::Error),
    /// Nothing came.
    #[error("the broker did not answer within {} s", ANSWER.as_secs())]
    TimedOut,
}

/// A path of the API: segments and query, encoded.
#[derive(Debug, Clone)]
pub(super) struct Route(String);

impl Route {
    /// The path of these segments.
    pub(super) fn new(segments: &[&str]) -> Self {
        let mut path = VERSION.to_owned();
        for segment in segments {
            path.push('/');
            path.push_str(&percent_encode(segment));
        }
        Self(path)
    }

    /// With a value in the query, if there is one.
    pub(super) fn with(mut self, name: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.0.push(if self.0.contains('?') { '&' } else { '?' });
            self.0.push_str(name);
            self.0.push('=');
            self.0.push_str(&percent_encode(&value.to_string()));
        }
        self
    }
}

impl ApiClient {
    /// For the broker whose data folder these arguments name.
    pub(super) fn new(args: StoreArgs) -> Result<Self, Failure> {
        let config = load(Overrides {
            file: args.config,
            data_dir: args.data_dir,
            ..Overrides::default()
        })?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::Api(ApiError::Runtime(error)))?;
        Ok(Self {
            data_dir: config.server.data_dir,
            runtime,
        })
    }

    /// The data folder.
    pub(super) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub(super) fn get<T: DeserializeOwned>(&self, route: Route) -> Result<T, Failure> {
        self.request(Method::GET, route, Bytes::new())
    }

    pub(super) fn post<T: DeserializeOwned>(
        &self,
        route: Route,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::Api(error.into()))?;
        self.request(Method::POST, route, body.into())
    }

    /// An answer that is no JSON, to be read as it comes.
    pub(super) fn get_bytes(&self, route: Route) -> Result<ApiStream<'_>, Failure> {
        self.stream(Method::GET, route, Bytes::new())
    }

    /// The same for an answer that is no JSON, to be read as it comes.
    pub(super) fn post_for_bytes(
        &self,
        route: Route,
        body: &impl Serialize,
    ) -> Result<ApiStream<'_>, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::Api(error.into()))?;
        self.stream(Method::POST, route, body.into())
    }

    fn stream(&self, method: Method, route: Route, body: Bytes) -> Result<ApiStream<'_>, Failure> {
        let response = self.ask(method, route, body)?;
        if !response.status().is_success() {
            return Err(self.refusal(response));
        }
        Ok(ApiStream {
            runtime: &self.runtime,
            body: response.into_body(),
            rest: Bytes::new(),
        })
    }

    fn request<T: DeserializeOwned>(&self, method: Method, route: Route, body: Bytes) -> Result<T, Failure> {
        let response = self.ask(method, route, body)?;
        if !response.status().is_success() {
            return Err(self.refusal(response));
        }
        let bytes = self.collect(response)?;
        serde_json::from_slice(&bytes).map_err(|error| Failure::Api(error.into()))
    }

    fn refusal(&self, response: Response<Incoming>) -> Failure {
        let failed = self
            .collect(response)
            .map(|bytes| serde_json::from_slice::<Failed>(&bytes));
        match failed {
            Ok(Ok(failed)) => Failure::Refused(failed),
            Ok(Err(error)) => Failure::Api(error.into()),
            Err(failure) => failure,
        }
    }

    fn collect(&self, response: Response<Incoming>) -> Result<Bytes, Failure> {
        let collected = wait(&self.runtime, response.into_body().collect());
        let collected = collected.and_then(|collected| collected.map_err(ApiError::Http));
        collected.map(Collected::to_bytes).map_err(Failure::Api)
    }

    fn ask(&self, method: Method, route: Route, body: Bytes) -> Result<Response<Incoming>, Failure> {
        let path = socket_path(&self.data_dir);
        let connect = |source: io::Error| match source.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::NotADirectory => {
                Failure::NoBroker(self.data_dir.clone())
            }
            _ => Failure::Api(ApiError::Connect {
                path: path.as_ref().unwrap_or(&self.data_dir).clone(),
                source,
            }),
        };
        let socket = path.as_ref().map_err(|error| connect(error.kind().into()))?;
        let exchange = async {
            let stream = UnixStream::connect(socket).await.map_err(connect)?;
            exchange(stream, method, route, body).await.map_err(Failure::Api)
        };
        wait(&self.runtime, exchange).unwrap_or_else(|error| Err(Failure::Api(error)))
    }
}

/// The body of an answer.
pub(super) struct ApiStream<'a> {
    runtime: &'a Runtime,
    body: Incoming,
    /// Came and was not read yet.
    rest: Bytes,
}

impl Read for ApiStream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match wait(self.runtime, self.body.frame()) {
                Ok(None) => return Ok(0),
                Ok(Some(Ok(frame))) => self.rest = frame.into_data().unwrap_or_default(),
                Ok(Some(Err(error))) => return Err(io::Error::other(ApiError::Http(error))),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        let taken = self.rest.split_to(self.rest.len().min(into.len()));
        into.get_mut(..taken.len())
            .expect("no more was taken")
            .copy_from_slice(&taken);
        Ok(taken.len())
    }
}

/// Lets something come to its end, or the broker's time be up.
fn wait<T>(runtime: &Runtime, what: impl Future<Output = T>) -> Result<T, ApiError> {
    runtime
        .block_on(async { tokio::time::timeout(ANSWER, what).await })
        .map_err(|_| ApiError::TimedOut)
}

async fn exchange(
    stream: UnixStream,
    method: Method,
    route: Route,
    body: Bytes,
) -> Result<Response<Incoming>, ApiError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // What goes wrong with it is told by the request, too. It ends with the answer.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(route.0)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))?;
    Ok(sender.send_request(request).await?)
}

/// Where the socket is: in the folder, or where a file in it says.
fn socket_path(data_dir: &Path) -> io::Result<PathBuf> {
    let data_dir = data_dir.canonicalize()?;
    match std::fs::read(data_dir.join(PATH_FILE)) {
        Ok(path) => Ok(std::ffi::OsString::from_vec(path).into()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(data_dir.join(SOCKET_FILE)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_encoded() {
        let route = Route::new(&["queues", "a/b c?\n", "messages"])
            .with("count", Some(3))
            .with("from", None::<u64>)
            .with("header", Some("k:v&w"));
        assert_eq!(
            route.0,
            "/v1/queues/a%2Fb%20c%3F%0A/messages?count=3&header=k%3Av%26w"
        );
    }
}
