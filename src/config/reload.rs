//! What of a configuration that is read again holds at once, and what at the next start.
//!
//! # Invariants
//! - What a broker runs with is a configuration that it could have been started with.

use super::{Config, Key, LISTENER, POLICY, RULE, ordered};

/// Keys outside `[limits]` that hold as soon as they are read.
const AT_ONCE: [&str; 4] = [
    "server.shutdown_ms_max",
    "log.level",
    "heart_beat.interval_ms_min",
    "heart_beat.margin_percent",
];

/// Keys of `[limits]` that size something when the broker starts.
pub(super) const LIMITS_AT_START: [&str; 13] = [
    "login_bytes_max",
    "login_check_count_max",
    "login_failure_count_max",
    "login_failure_window_ms",
    "login_delay_ms",
    "login_delay_ms_max",
    "login_address_count_max",
    "group_count_max",
    "receiving_bytes_max",
    "disk_free_bytes_min",
    "commit_bytes_max",
    "unflushed_bytes_max",
    "body_cache_bytes_max",
];

impl Key {
    /// Whether a changed value waits for the next start.
    pub fn needs_restart(&self) -> bool {
        match self.section {
            "limits" => LIMITS_AT_START.contains(&self.name),
            _ => !AT_ONCE.contains(&self.path().as_str()),
        }
    }
}

/// What becomes of a configuration that is read while a broker runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// What the broker runs with from now on.
    pub running: Config,
    /// What of it is new: keys with their section, `policy` and `rule`.
    pub taken: Vec<String>,
    /// What differs from it and waits for the next start: keys with their section, and `listener`.
    pub restart: Vec<String>,
}

impl Changes {
    /// From what a broker runs with to what was read.
    pub fn between(running: &Config, read: &Config) -> Self {
        let mut changes = Self {
            running: running.clone(),
            taken: Vec::new(),
            restart: Vec::new(),
        };
        let differs = |key: &&Key| key.get(running) != key.get(read);
        for key in super::keys().filter(differs) {
            let taken = !key.needs_restart() && key.set(&mut changes.running, &key.get(read));
            match taken {
                true => changes.taken.push(key.path()),
                false => changes.restart.push(key.path()),
            }
        }
        changes.put_off_what_does_not_go_together(running);
        if running.policies != read.policies {
            changes.running.policies.clone_from(&read.policies);
            changes.taken.push(POLICY.to_owned());
        }
        if running.rules != read.rules {
            changes.running.rules.clone_from(&read.rules);
            changes.taken.push(RULE.to_owned());
        }
        if running.listeners != read.listeners {
            changes.restart.push(LISTENER.to_owned());
        }
        changes
    }

    /// Of two values that are new together, one may have to wait: then both do.
    fn put_off_what_does_not_go_together(&mut self, before: &Config) {
        for (lower, upper) in ordered(&self.running.limits) {
            if lower.1 <= upper.1 {
                continue;
            }
            for path in [lower.0, upper.0] {
                let Some(key) = super::keys().find(|key| key.path() == path) else {
                    continue;
                };
                if self.taken.iter().any(|taken| taken == path) {
                    key.set(&mut self.running, &key.get(before));
                    self.taken.retain(|taken| taken != path);
                    self.restart.push(path.to_owned());
                }
            }
        }
    }
}
