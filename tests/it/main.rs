//! The broker over TCP, in this process: real sockets, real threads, a real committer; in memory or on disk.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may fail where it stands, and has no clock handed to it"
)]

#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "shared with tests of the real program"
)]
#[path = "../rig/http.rs"]
mod http;

#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "shared with tests of the real program"
)]
#[path = "../rig/certificates.rs"]
mod certificates;

mod api;
mod client;
mod faults;
mod flow;
mod lifecycle;
mod logins;
mod paths;
mod selectors;
mod server;
mod service;
mod signals;
mod transports;
