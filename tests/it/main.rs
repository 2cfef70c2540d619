//! The broker over TCP, in this process: real sockets, real threads, a real committer; in memory or on disk.

mod client;
mod faults;
mod flow;
mod lifecycle;
mod paths;
mod server;
