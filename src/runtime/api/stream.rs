//! An answer that is sent while it is made.
//!
//! # Invariants
//! - One that ends well is whole; any other breaks off.
//! - The work ends when whoever reads it hangs up, or takes nothing for [`STALL`]; at a stop, with its connection.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Either;
use hyper::Response;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Answer, content};
use crate::store::StoreError;

/// A reader that takes nothing for so long has gone.
const STALL: Duration = Duration::from_secs(60);

/// Pieces on their way to the socket.
const AHEAD_COUNT: usize = 2;

/// The body of the answer. An empty piece is its end.
pub(super) struct Stream(mpsc::Receiver<Bytes>);

/// The answer has no end.
#[derive(Debug, thiserror::Error)]
#[error("the answer was broken off")]
pub(super) struct BrokenOff;

impl Body for Stream {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        self.0.poll_recv(cx).map(|came| match came {
            Some(end) if end.is_empty() => None,
            Some(piece) => Some(Ok(Frame::data(piece))),
            None => Some(Err(BrokenOff)),
        })
    }
}

/// Why an answer did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum GivenUp {
    #[error("its reader has gone")]
    Left,
    #[error("its reader took nothing for {} s", STALL.as_secs())]
    Stalled,
    #[error("the store cannot be read")]
    Store(#[source] StoreError),
    #[error("the broker is stopping")]
    Stopping,
}

/// Where the bytes of an answer go.
#[derive(Debug)]
pub(super) struct Out(mpsc::Sender<Bytes>);

/// An answer of bytes, and where they go.
pub(super) fn open() -> (Out, Answer) {
    let (out, body) = mpsc::channel(AHEAD_COUNT);
    let mut response = Response::new(Either::Right(Stream(body)));
    content(&mut response, "application/octet-stream");
    (Out(out), response)
}

impl Out {
    /// Waits until there is room for a piece.
    pub(super) async fn send(&self, piece: Bytes) -> Result<(), GivenUp> {
        if piece.is_empty() {
            return Ok(());
        }
        self.put(piece).await
    }

    async fn put(&self, piece: Bytes) -> Result<(), GivenUp> {
        match timeout(STALL, self.0.send(piece)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(GivenUp::Left),
            Err(_) => Err(GivenUp::Stalled),
        }
    }

    /// Does the work that sends, for as long as somebody reads, and ends the answer if it ended well.
    pub(super) async fn drive(&self, work: impl Future<Output = Result<(), GivenUp>>) -> Result<(), GivenUp> {
        let whole = async {
            work.await?;
            self.put(Bytes::new()).await
        };
        tokio::select! {
            biased;
            () = self.0.closed() => Err(GivenUp::Left),
            done = whole => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn sent(work: impl AsyncFn(&Out) -> Result<(), GivenUp>) -> Result<Bytes, String> {
        let (out, answer) = open();
        let done = async {
            let done = out.drive(work(&out)).await;
            drop(out);
            done
        };
        let (_, collected) = tokio::join!(done, answer.into_body().collect());
        collected
            .map(http_body_util::Collected::to_bytes)
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn an_answer_that_ends_well_is_whole() {
        let all = sent(async |out| {
            for piece in ["one", "", "two", "three", "four"] {
                out.send(Bytes::from(piece)).await?;
            }
            Ok(())
        });
        assert_eq!(all.await.unwrap(), "onetwothreefour");
    }

    #[tokio::test]
    async fn an_answer_that_fails_is_broken_off() {
        let all = sent(async |out| {
            out.send(Bytes::from("one")).await?;
            Err(GivenUp::Stopping)
        });
        assert_eq!(all.await.unwrap_err(), BrokenOff.to_string());
    }

    #[tokio::test]
    async fn the_work_ends_when_the_reader_has_gone() {
        let (out, answer) = open();
        drop(answer);
        let done = out.drive(std::future::pending()).await;
        assert!(matches!(done, Err(GivenUp::Left)));
    }
}
