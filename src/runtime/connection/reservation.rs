//! Room for the body of the frame being received, out of one budget for all connections.
//!
//! # Invariants
//! - A connection waits for room holding none: the body before is complete, and its room given back. So those who
//!   hold room need nobody's help but their own peer's, whose progress is watched.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The budget: bodies being received by all connections together.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    bytes: Arc<Semaphore>,
    bytes_max: u32,
}

impl Budget {
    /// With all of it free.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let bytes_max = u32::try_from(bytes_max).unwrap_or(u32::MAX);
        Self {
            bytes: Arc::new(Semaphore::new(bytes_max as usize)),
            bytes_max,
        }
    }
}

/// What one connection holds of the budget, or waits for.
#[derive(Default)]
pub(super) enum Reservation {
    /// No long body is being received.
    #[default]
    None,
    /// Its frame may not be read on yet.
    Waiting(Pin<Box<dyn Future<Output = OwnedSemaphorePermit> + Send>>),
    /// There is room for all of it.
    Held {
        /// Given back when dropped.
        _permit: OwnedSemaphorePermit,
    },
}

impl Reservation {
    /// The session took `taken` bytes, after which the frame begun last needs `announced` more of body.
    pub(super) fn follow(&mut self, taken: usize, announced: usize, budget: &Budget) {
        // A frame is taken whole: where bytes were taken, what was begun before is complete.
        if taken > 0 || announced == 0 {
            *self = Self::None;
        }
        if announced > 0 && matches!(self, Self::None) {
            // A frame larger than the whole budget may go alone.
            let count = u32::try_from(announced).unwrap_or(u32::MAX).min(budget.bytes_max);
            let bytes = Arc::clone(&budget.bytes);
            *self = Self::Waiting(Box::pin(async move {
                bytes
                    .acquire_many_owned(count)
                    .await
                    .expect("the budget's semaphore is never closed")
            }));
        }
    }

    /// Ready when the rest of the frame may be read.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Waiting(room) = self {
            match room.as_mut().poll(cx) {
                Poll::Ready(permit) => *self = Self::Held { _permit: permit },
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    /// Gives back what is held.
    pub(super) fn release(&mut self) {
        *self = Self::None;
    }
}
