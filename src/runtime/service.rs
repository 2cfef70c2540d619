//! What a service manager is told: systemd's protocol (`sd_notify`), where the environment names its socket.
//!
//! # Invariants
//! - `READY=1` leaves only when connections are accepted; `WATCHDOG=1` only while the core and the committer get on.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;

/// That the store is being read.
pub(super) fn recovering() {
    tell(&[NotifyState::Status("reading the store")]);
}

/// That the broker serves: after a start, and after a reload.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// That the configuration is being read again; [`ready`] follows.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => untold(&error),
    }
}

/// That a stop in good order has begun.
pub(super) fn stopping() {
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status("answering what is due"),
    ]);
}

/// That it gets on.
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How long it may be silent, if it is watched.
pub(super) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|period| !period.is_zero())
}

/// Without a manager this is nothing; one that cannot be told must not keep a broker from serving.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        untold(&error);
    }
}

fn untold(error: &io::Error) {
    tracing::warn!("the service manager (NOTIFY_SOCKET) cannot be told: {error}");
}
