//! The porch: the one thread that accepts connections and serves them while they are newcomers.
//!
//! A flood of connections, whatever they say, queues here, behind each other and not before those who are inside: the system shares
//! the processors between this thread and the workers. It gives its processor up after each newcomer's turn, so that
//! where there is one processor only, whoever is inside waits for one turn at most. Nobody starves: newcomers have a
//! thread's share, always.
//!
//! # Not here
//! When a newcomer goes in: `connection`.

use std::io;
use std::thread::{Builder, JoinHandle};

use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;
use tokio::task;

use super::exit;

/// See the module's text. Dropping it closes it, too, and waits for nothing.
pub(crate) struct Porch {
    handle: Handle,
    closing: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Porch {
    /// Starts the thread.
    pub(crate) fn build() -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (closing, closed) = oneshot::channel();
        let thread = Builder::new().name("porch".into()).spawn(move || {
            // Told, or its other end dropped: either is the end.
            let _ = runtime.block_on(closed);
            runtime.shutdown_background();
        })?;
        Ok(Self {
            handle,
            closing,
            thread,
        })
    }

    /// Its runtime.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends the thread, when nobody is there any more.
    pub(crate) async fn close(self) {
        // It ends only by being told.
        let _ = self.closing.send(());
        if !matches!(task::spawn_blocking(|| self.thread.join()).await, Ok(Ok(()))) {
            exit::after_bug();
        }
    }
}
