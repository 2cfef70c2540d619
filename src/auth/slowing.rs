//! Attempts that are slowed: after some failures, an address waits before its next login is judged.
//!
//! The wait is counted from the last failure and doubles with each. Nothing is reserved for who waits: whoever's turn comes
//! looks again, so that many attempts at once gain nothing, and none of them can push the time on for others.
//!
//! # Invariants
//! - Failures of one address never make another wait.
//! - The table has a bound; beyond it the address whose last failure is the oldest is forgotten.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::base::Limits;

/// Where attempts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// An address; of IPv6 its network of 64 bits, since one peer has as many addresses in it as it likes.
    Net(IpAddr),
    /// A user of this machine.
    Local(u32),
}

impl Source {
    /// That of an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) & !u128::from(u64::MAX);
                Self::Net(Ipv6Addr::from(network).into())
            }
            address => Self::Net(address),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last_at: u64,
}

/// See the module's text. Times are monotonic milliseconds.
#[derive(Debug)]
pub struct Slowing {
    failure_count_max: u32,
    window_ms: u64,
    delay_ms: u64,
    delay_ms_max: u64,
    address_count_max: usize,
    failures: HashMap<Source, Failures>,
}

impl Slowing {
    /// Nobody has failed yet.
    pub fn new(limits: &Limits) -> Self {
        Self {
            failure_count_max: limits.login_failure_count_max,
            window_ms: limits.login_failure_window_ms,
            delay_ms: limits.login_delay_ms,
            delay_ms_max: limits.login_delay_ms_max,
            address_count_max: limits.login_address_count_max,
            failures: HashMap::new(),
        }
    }

    /// Until when the next attempt waits, if it does.
    pub fn wait_until(&self, source: Source, at: u64) -> Option<u64> {
        let failures = self.failures.get(&source).filter(|of| !self.is_over(of, at))?;
        let until = failures.last_at.saturating_add(self.delay(failures.count));
        (until > at).then_some(until)
    }

    /// A login of this source was denied.
    pub fn handle_failure(&mut self, source: Source, at: u64) {
        let before = self.failures.get(&source).copied();
        let count = before.filter(|of| !self.is_over(of, at)).map_or(0, |of| of.count);
        if before.is_none() && self.failures.len() >= self.address_count_max {
            let oldest = self.failures.iter().min_by_key(|(_, of)| of.last_at);
            if let Some(source) = oldest.map(|(source, _)| *source) {
                self.failures.remove(&source);
            }
        }
        let count = count.saturating_add(1);
        self.failures.insert(source, Failures { count, last_at: at });
    }

    fn delay(&self, count: u32) -> u64 {
        let Some(doublings) = count.checked_sub(self.failure_count_max) else {
            return 0;
        };
        let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
        self.delay_ms.saturating_mul(factor).min(self.delay_ms_max)
    }

    /// Failures are forgotten once none came for the window, or for as long as they make wait.
    fn is_over(&self, failures: &Failures, at: u64) -> bool {
        let kept_ms = self.window_ms.max(self.delay(failures.count));
        failures.last_at.saturating_add(kept_ms) <= at
    }
}
