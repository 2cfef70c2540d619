//! What the broker's process has used, read from `/proc`: CPU, memory, bytes written.

use std::collections::HashSet;
use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};

/// One reading.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    /// User and system time, in seconds.
    pub(super) cpu_s: f64,
    /// Resident memory.
    pub(super) rss_bytes: u64,
    /// Bytes the process caused to be written to storage (`write_bytes`).
    pub(super) written_bytes: u64,
}

/// Reads a process; `None` if it is gone or not ours to read.
pub(super) fn usage(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; user and system time are the 12th and 13th fields after it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields
        .split_ascii_whitespace()
        .skip(11)
        .map(|field| field.parse::<u64>().ok());
    let ticks = ticks.next()?? + ticks.next()??;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    // Another user's process hides its IO: then the bytes stay 0.
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    Some(Usage {
        cpu_s: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
        rss_bytes: number_after(&status, "VmRSS:")? * 1024,
        written_bytes: number_after(&io, "\nwrite_bytes:").unwrap_or(0),
    })
}

/// CPU seconds of the calling thread so far: the load runs on one, beside which there may be a sink's.
pub(super) fn own_cpu_s() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_ascii_whitespace()
        .next()
        .and_then(|ns| ns.parse().ok())
        .map_or(0.0, |ns: f64| ns / 1e9)
}

/// The process that listens at this address on this machine, if it can be found.
pub(super) fn find_listener(addr: &str) -> Option<u32> {
    let addrs: Vec<SocketAddr> = addr.to_socket_addrs().ok()?.collect();
    if !addrs
        .iter()
        .any(|addr| addr.ip().is_loopback() || addr.ip().is_unspecified())
    {
        return None;
    }
    let port = addrs.first()?.port();
    let mut sockets = HashSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (Some(local), Some(&state), Some(inode)) = (fields.get(1), fields.get(3), fields.get(9))
            else {
                continue;
            };
            let local_port = local
                .rsplit_once(':')
                .and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
            // 0A: listening.
            if state == "0A" && local_port == Some(port) {
                sockets.insert(format!("socket:[{inode}]"));
            }
        }
    }
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let holds = fs::read_dir(process.path().join("fd"))
            .ok()?
            .flatten()
            .any(|descriptor| {
                fs::read_link(descriptor.path())
                    .is_ok_and(|link| link.to_str().is_some_and(|link| sockets.contains(link)))
            });
        holds.then_some(pid)
    })
}

/// The number after a name in a file of `/proc`.
fn number_after(text: &str, name: &str) -> Option<u64> {
    let (_, rest) = text.split_once(name)?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_and_read() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        assert_eq!(find_listener(&addr), Some(std::process::id()));
        assert!(usage(std::process::id()).unwrap().rss_bytes > 1 << 20);
    }
}
