//! Counters of the floor with IO. All but `connection_count` only grow.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters since start, written by many threads.
        #[derive(Debug, Default)]
        pub(crate) struct Stats {
            $(pub(crate) $name: Counter,)*
        }

        /// One reading of all counters.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct StatsView {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Stats {
            /// Reads each counter; not one moment for all.
            pub(crate) fn view(&self) -> StatsView {
                StatsView { $($name: self.$name.value(),)* }
            }
        }
    };
}

counters! {
    /// Connections open now.
    connection_count,
    /// Connections accepted.
    accepted_count,
    /// Connections turned away at `connection_count_max` or `address_connection_count_max`.
    turned_away_count,
    /// Failed calls of accept.
    accept_failed_count,
    /// Connections ended by DISCONNECT.
    disconnected_count,
    /// Connections ended for a violation of the protocol.
    violation_count,
    /// Connections ended by a refusal.
    refused_count,
    /// Logins denied.
    login_denied_count,
    /// Connections ended by a time limit, unread output among them.
    timed_out_count,
    /// Connections that the peer ended without DISCONNECT.
    lost_count,
    /// Connections ended by a fault of ours.
    fault_count,
    /// Bytes read from sockets.
    in_bytes,
    /// Bytes written to sockets.
    out_bytes,
    /// Requests that took effect.
    request_count,
    /// Batches made durable.
    commit_count,
    /// Body chunks found in memory.
    body_hit_count,
    /// Body chunks read from the store.
    body_read_count,
}

/// A number that many threads add to.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn subtract(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
