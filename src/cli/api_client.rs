//! Requests to the running broker of a data folder, over the HTTP API on its local socket.

use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::{Method, Request, header};
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

    fn request<T: DeserializeOwned>(&self, method: Method, route: Route, body: Bytes) -> Result<T, Failure> {
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
        let (status, bytes) = self
            .runtime
            .block_on(async { tokio::time::timeout(ANSWER, exchange).await })
            .unwrap_or(Err(Failure::Api(ApiError::TimedOut)))?;
        let done = if status.is_success() {
            serde_json::from_slice(&bytes)
        } else {
            return Err(match serde_json::from_slice::<Failed>(&bytes) {
                Ok(failed) => Failure::Refused(failed),
                Err(error) => Failure::Api(error.into()),
            });
        };
        done.map_err(|error| Failure::Api(error.into()))
    }
}

async fn exchange(
    stream: UnixStream,
    method: Method,
    route: Route,
    body: Bytes,
) -> Result<(hyper::StatusCode, Bytes), ApiError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // What goes wrong with it is told by the request, too.
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(route.0)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let bytes = response.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok((status, bytes))
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
