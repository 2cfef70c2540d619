//! Configuration: defaults, then a TOML file, then `STEADFAST_*` environment variables, then flags; the later wins.
//!
//! Every key stands once, in [`keys`], with its range; the file and the environment are read through that table, and
//! `config/steadfast.toml` is compared with it by a test.
//!
//! # Invariants
//! - A key or variable that is not in the table is refused, as is a value out of its range: nothing is ignored.
//!
//! # Not here
//! Reading the environment of the process: `cli` hands it over. Flags: `cli` parses them into [`Overrides`].

mod error;
mod keys;
mod listener;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

pub use error::{ConfigError, Origin};
pub use keys::{Key, keys};
pub use listener::{Address, CertificateName, ClientCertificate, Listener, Tls, WebSocket};

use crate::base::{Limits, Method, PATTERN_FORM, Policies, SettingKey, Settings, TokenKey};
use keys::Value;

/// The commented list of every key with its default.
pub const SAMPLE: &str = include_str!("../../config/steadfast.toml");

/// What every variable of ours begins with.
const PREFIX: &str = "STEADFAST_";

/// The variable that names the file; no key.
const FILE_VARIABLE: &str = "STEADFAST_CONFIG";

/// The variable with the passcode of `send`, `receive` and others that connect: no key of the broker.
pub const PASSCODE_VARIABLE: &str = "STEADFAST_PASSCODE";

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[security]`
    pub security: Security,
    /// `[log]`
    pub log: Log,
    /// `[heart_beat]`
    pub heart_beat: HeartBeat,
    /// `[store]`
    pub store: StoreConfig,
    /// `[limits]`
    pub limits: Limits,
    /// `[[listener]]`: listeners beside those of `server.listen`.
    pub listeners: Vec<Listener>,
    /// `[[policy]]`: patterns of the names of queues, and what each states.
    pub policies: Vec<(String, Settings)>,
}

/// The sections that are lists of tables, and the key that says what a policy is for.
const LISTENER: &str = "listener";
const POLICY: &str = "policy";
const PATTERN: &str = "pattern";

/// Where the broker listens and stores, and how it stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Addresses of listeners with the default dialect; at least one, unless there are others.
    pub listen: Vec<SocketAddr>,
    /// An address for metrics and health; none, if they are only on the API's socket.
    pub metrics_listen: Option<SocketAddr>,
    /// The data folder; made if it is missing.
    pub data_dir: PathBuf,
    /// A stop takes at most about this long, then connections are cut.
    pub shutdown_ms_max: u64,
    /// Threads for connections; 0 = one for each core.
    pub worker_thread_count: usize,
    /// Addresses that are not loopback are allowed although anyone may log in.
    pub insecure_allow_anonymous: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 61613))],
            metrics_listen: None,
            data_dir: PathBuf::from("./data"),
            shutdown_ms_max: 5_000,
            worker_thread_count: 0,
            insecure_allow_anonymous: false,
        }
    }
}

/// Who may come in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Security {
    /// The users file; none = [`USERS_FILE`] in the data folder, if that is there.
    pub users_file: Option<PathBuf>,
    /// Keys that JWTs may be signed with.
    pub jwt_keys: Vec<TokenKey>,
    /// What `aud` of a JWT has to contain; empty = anything.
    pub jwt_audience: String,
    /// What `iss` of a JWT has to be; empty = anything.
    pub jwt_issuer: String,
}

/// The users file's name in the data folder.
pub const USERS_FILE: &str = "users.toml";

/// What is logged, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Log {
    /// Lines for people or for machines.
    pub format: LogFormat,
    /// What is left out.
    pub level: LogLevel,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object on a line.
    Json,
}

/// The least severe level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Faults only.
    Error,
    /// And what someone should look at.
    Warn,
    /// And what happens to connections.
    #[default]
    Info,
    /// And details.
    Debug,
    /// And everything.
    Trace,
}

impl LogFormat {
    /// The text of every value.
    pub const NAMES: [&str; 2] = ["text", "json"];

    /// The value of a text.
    pub fn named(text: &str) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

impl LogLevel {
    /// The text of every value.
    pub const NAMES: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

    /// The value of a text.
    pub fn named(text: &str) -> Option<Self> {
        match text {
            "error" => Some(Self::Error),
            "warn" => Some(Self::Warn),
            "info" => Some(Self::Info),
            "debug" => Some(Self::Debug),
            "trace" => Some(Self::Trace),
            _ => None,
        }
    }
}

/// Heart-beats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartBeat {
    /// The shortest interval we guarantee and ask for, either way.
    pub interval_ms_min: u64,
    /// A peer is dead after its agreed interval times this, in percent.
    pub margin_percent: u64,
}

impl Default for HeartBeat {
    fn default() -> Self {
        Self {
            interval_ms_min: 100,
            margin_percent: 200,
        }
    }
}

/// The store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreConfig {
    /// Pages that the store's engine keeps in memory, by its own count.
    pub cache_bytes: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            cache_bytes: 32 * 1024 * 1024,
        }
    }
}

/// What flags say; each beats every other source.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config`
    pub file: Option<PathBuf>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--listen`; empty = not given.
    pub listen: Vec<SocketAddr>,
    /// `--metrics-listen`
    pub metrics_listen: Option<SocketAddr>,
    /// `--log-format`
    pub log_format: Option<LogFormat>,
    /// `--log-level`
    pub log_level: Option<LogLevel>,
    /// `--insecure-allow-anonymous`
    pub insecure_allow_anonymous: bool,
}

impl Config {
    /// Every listener: those of `server.listen`, then the others.
    pub fn every_listener(&self) -> impl Iterator<Item = Listener> {
        let short = self.server.listen.iter().map(|address| Listener::from(*address));
        short.chain(self.listeners.iter().cloned())
    }

    /// The users file.
    pub fn users_file(&self) -> PathBuf {
        let named = self.security.users_file.clone();
        named.unwrap_or_else(|| self.server.data_dir.join(USERS_FILE))
    }

    /// An address that others can reach, and where anybody may log in, must be asked for by name. `open` = there are no users,
    /// and no keys of tokens.
    pub fn refuse_exposed(&self, open: bool) -> Result<(), ConfigError> {
        let mut addresses = self
            .every_listener()
            .filter(|listener| listener.authentication.take(Method::None, open))
            .filter_map(|listener| listener.address.tcp());
        match addresses.find(|address| !address.ip().to_canonical().is_loopback()) {
            Some(address) if !self.server.insecure_allow_anonymous => Err(ConfigError::Exposed { address }),
            _ => Ok(()),
        }
    }

    /// Reads every source in its order and checks the whole.
    pub fn load(
        overrides: Overrides,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut file = None;
        let mut variables = Vec::new();
        for (name, value) in environment {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            if name == FILE_VARIABLE {
                file = Some(PathBuf::from(value));
            } else if name != PASSCODE_VARIABLE {
                variables.push((name.to_owned(), value));
            }
        }
        variables.sort();

        // The default address is that of a broker of which nothing else is said.
        let mut config = Self::default();
        let default = std::mem::take(&mut config.server.listen);
        if let Some(path) = overrides.file.or(file) {
            config.read_file(&path)?;
        }
        for (name, value) in variables {
            config.read_variable(name, value)?;
        }
        let server = &mut config.server;
        if let Some(data_dir) = overrides.data_dir {
            server.data_dir = data_dir;
        }
        if !overrides.listen.is_empty() {
            server.listen = overrides.listen;
        }
        if server.listen.is_empty() && config.listeners.is_empty() {
            server.listen = default;
        }
        if overrides.metrics_listen.is_some() {
            server.metrics_listen = overrides.metrics_listen;
        }
        server.insecure_allow_anonymous |= overrides.insecure_allow_anonymous;
        config.log.format = overrides.log_format.unwrap_or(config.log.format);
        config.log.level = overrides.log_level.unwrap_or(config.log.level);
        config.check()?;
        Ok(config)
    }

    fn read_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        self.read_text(path, &text)
    }

    /// Reads a file's text; `path` is for messages.
    fn read_text(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let at = |byte: usize| Origin::File {
            path: path.to_owned(),
            line: text.as_bytes().iter().take(byte).filter(|&&b| b == b'\n').count() + 1,
        };
        let document = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            at: at(error.span().map_or(0, |span| span.start)),
            message: error.message().replace('\n', ", "),
        })?;
        for (section, table) in document.get_ref() {
            let section_at = at(section.span().start);
            let section = section.get_ref();
            if let Some(section) = [LISTENER, POLICY].into_iter().find(|name| section == name) {
                let DeValue::Array(tables) = table.get_ref() else {
                    return Err(ConfigError::NoList {
                        at: section_at,
                        section,
                    });
                };
                for table in tables {
                    let begin = at(table.span().start);
                    let DeValue::Table(table) = table.get_ref() else {
                        return Err(ConfigError::NoList { at: begin, section });
                    };
                    match section {
                        LISTENER => self.listeners.push(listener::read(text, table, begin, &at)?),
                        _ => self.read_policy(text, table, begin, &at)?,
                    }
                }
                continue;
            }
            if !keys().any(|key| key.section == section) {
                return Err(ConfigError::UnknownSection {
                    at: section_at,
                    section: section.to_string(),
                });
            }
            let DeValue::Table(table) = table.get_ref() else {
                return Err(ConfigError::NoSection {
                    at: section_at,
                    section: section.to_string(),
                });
            };
            for (name, value) in table {
                let Some(key) = keys().find(|key| key.section == section && key.name == name.get_ref())
                else {
                    return Err(ConfigError::UnknownKey {
                        at: at(name.span().start),
                        section: section.to_string(),
                        name: name.get_ref().to_string(),
                    });
                };
                let value_at = at(value.span().start);
                match Value::from_toml(value.get_ref()).filter(|value| key.set(self, value)) {
                    Some(_) => {}
                    None => {
                        let found = text.get(value.span()).unwrap_or_default();
                        return Err(ConfigError::bad_value(value_at, key, found));
                    }
                }
            }
        }
        Ok(())
    }

    fn read_policy(
        &mut self,
        text: &str,
        table: &DeTable<'_>,
        begin: Origin,
        at: &impl Fn(usize) -> Origin,
    ) -> Result<(), ConfigError> {
        let mut pattern = None;
        let mut settings = Settings::default();
        for (name, value) in table {
            let found = text.get(value.span()).unwrap_or_default();
            let bad = |allowed| {
                let at = at(value.span().start);
                ConfigError::bad(at, POLICY, name.get_ref(), found, allowed)
            };
            if name.get_ref() == PATTERN {
                let written = value
                    .get_ref()
                    .as_str()
                    .filter(|pattern| Policies::is_pattern(pattern));
                let Some(written) = written else {
                    return Err(bad(PATTERN_FORM.to_owned()));
                };
                if self
                    .policies
                    .iter()
                    .any(|(other, _)| Policies::is_same(other, written))
                {
                    return Err(bad("each pattern once".to_owned()));
                }
                pattern = Some(written.to_owned());
                continue;
            }
            let Some(key) = SettingKey::named(name.get_ref()) else {
                return Err(ConfigError::UnknownSetting {
                    at: at(name.span().start),
                    name: name.get_ref().to_string(),
                });
            };
            let value = Value::from_toml(value.get_ref()).and_then(Value::into_setting);
            if !value.is_some_and(|value| settings.state(key, value)) {
                return Err(bad(key.allowed()));
            }
        }
        let pattern = pattern.ok_or(ConfigError::NoPattern { at: begin })?;
        self.policies.push((pattern, settings));
        Ok(())
    }

    fn read_variable(&mut self, name: String, value: OsString) -> Result<(), ConfigError> {
        let Some(key) = keys().find(|key| key.variable() == name) else {
            return Err(ConfigError::UnknownVariable { name });
        };
        let parsed = value.to_str().and_then(|text| key.parse(text));
        match parsed.filter(|value| key.set(self, value)) {
            Some(_) => Ok(()),
            None => Err(ConfigError::bad_value(
                Origin::Variable { name },
                key,
                &value.to_string_lossy(),
            )),
        }
    }

    /// What no single key can know.
    fn check(&self) -> Result<(), ConfigError> {
        let mut taken = BTreeSet::new();
        for Listener { address, .. } in self.every_listener() {
            let chosen = address.tcp().is_none_or(|address| address.port() != 0);
            if chosen && !taken.insert(address.to_string()) {
                return Err(ConfigError::ListenerTwice { address });
            }
        }
        let limits = &self.limits;
        let ordered = [
            (
                ("limits.header_line_bytes_max", limits.header_line_bytes_max),
                ("limits.header_block_bytes_max", limits.header_block_bytes_max),
            ),
            (
                ("limits.prefetch_count", limits.prefetch_count as usize),
                ("limits.prefetch_count_max", limits.prefetch_count_max as usize),
            ),
            (
                ("limits.body_bytes_max", limits.body_bytes_max),
                ("limits.receiving_bytes_max", limits.receiving_bytes_max),
            ),
        ];
        for (lower, upper) in ordered {
            if lower.1 > upper.1 {
                return Err(ConfigError::Order { lower, upper });
            }
        }
        Ok(())
    }
}

/// Reads `IP:PORT` or `localhost:PORT`. Other names are refused: which address they mean is not ours to guess.
pub fn parse_address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => port
            .parse()
            .ok()
            .map(|port| SocketAddr::from(([127, 0, 0, 1], port))),
        None => text.parse().ok(),
    }
}

/// What [`parse_address`] takes, for messages.
pub const ADDRESS_FORM: &str = "IP:PORT, such as 127.0.0.1:61613 or [::1]:61613 (port 0 = any free port)";
