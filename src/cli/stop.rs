//! Ctrl-C and SIGTERM, as something to wait for beside a connection. A second one ends the program at once.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level::pipe};

/// What a shell expects of a program that Ctrl-C has ended.
const INTERRUPTED: i32 = 130;

/// From its making on, the first signal is only noted.
#[derive(Debug)]
pub(super) struct Stop {
    noted: UnixStream,
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// A signal came, now or earlier.
    Stopped,
    /// Nobody reads standard output any more.
    OutputGone,
    /// There is something to read.
    Ready,
    /// None of these in time.
    TimedOut,
}

impl Stop {
    pub(super) fn new() -> io::Result<Self> {
        let (noted, wake) = UnixStream::pair()?;
        let second = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag down and raises it.
            flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&second))?;
            flag::register(signal, Arc::clone(&second))?;
            pipe::register(signal, wake.try_clone()?)?;
        }
        Ok(Self { noted })
    }

    /// Waits until `input` has something, a signal came, standard output lost its reader, or the time is over.
    pub(super) fn wait(&self, input: Option<BorrowedFd<'_>>, timeout: Option<Duration>) -> io::Result<Woken> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let output = io::stdout();
        loop {
            let mut all = vec![
                PollFd::new(&self.noted, PollFlags::IN),
                // Asked for nothing, a descriptor still tells of its other end's leaving.
                PollFd::from_borrowed_fd(output.as_fd(), PollFlags::empty()),
            ];
            all.extend(input.map(|input| PollFd::from_borrowed_fd(input, PollFlags::IN)));
            match poll(&mut all, timeout.as_ref()) {
                Ok(0) => return Ok(Woken::TimedOut),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let woken = |at: usize| all.get(at).is_some_and(|one| !one.revents().is_empty());
            return Ok(match (woken(0), woken(1)) {
                (true, _) => Woken::Stopped,
                (false, true) => Woken::OutputGone,
                (false, false) => Woken::Ready,
            });
        }
    }
}
